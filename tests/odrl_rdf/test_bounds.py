from collections.abc import Callable, Iterable
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl.vocabulary import ODRL, W3C_CONTEXT
from connector.odrl_rdf.bounds import NAMES_MAX, NODES_MAX, RELATIVE_MAX, STATEMENTS_MAX
from connector.odrl_rdf.contexts import CONTEXTS
from connector.odrl_rdf.jsonld import graph_of as of_json
from connector.odrl_rdf.turtle import graph_of as of_turtle
from connector.odrl_reading.reading import LEAVES_MAX

HEAD = f"@prefix odrl: <{ODRL}> .\n@prefix a: <urn:a:> .\n@base <https://a.example/> .\n"
WORDS = [W3C_CONTEXT, {"a": "urn:a:", "@base": "https://a.example/"}]
PARTS = f"{LEAVES_MAX} constraints and values"


def turtle(objects: Iterable[str], predicate: str = "a:p") -> Any:
    return of_turtle(f"{HEAD}a:s {predicate} {' , '.join(objects)} .")


def json(nodes: Iterable[dict[str, Any]]) -> Any:
    return of_json({"@context": WORDS, "@graph": list(nodes)}, CONTEXTS)


def node(number: int, **said: Any) -> dict[str, Any]:
    return {"uid": f"a:{number}", **said}


Read = Callable[[int], Any]
BOUNDS: dict[str, tuple[Read, int, str, str]] = {  # how so many are read, how many there may be, of what, where one too many stands
    "statements of Turtle": (lambda n: turtle(map(str, range(n))), STATEMENTS_MAX, f"{STATEMENTS_MAX} statements", "line 4"),
    "members of Turtle": (
        lambda n: turtle([f"( {' '.join(map(str, range(n - 1)))} )"]), STATEMENTS_MAX, f"{STATEMENTS_MAX} statements", "line 4",
    ),
    "relative IRIs of Turtle": (
        lambda n: turtle(f"<{m}>\n" for m in range(n)), RELATIVE_MAX, f"{RELATIVE_MAX} relative IRIs", f"line {RELATIVE_MAX + 4}",
    ),
    "nodes of Turtle": (
        lambda n: of_turtle(HEAD + "\n".join(f"a:s{m} a:p 1 ." for m in range(n))), NODES_MAX, f"{NODES_MAX} nodes",
        f"line {NODES_MAX + 4}",
    ),
    "nodes in brackets of Turtle": (
        lambda n: of_turtle(f"{HEAD}a:s a:p ( {' '.join(['[ a:p 1 ]'] * (n - 1))} ) ."), NODES_MAX, f"{NODES_MAX} nodes", "line 4",
    ),
    "names of Turtle": (
        lambda n: of_turtle(HEAD + "\n".join(f"a:s a:p{m} 1 ." for m in range(n))), NAMES_MAX, f"more than {NAMES_MAX} names",
        f"line {NAMES_MAX + 4}",
    ),
    "constraints of Turtle": (
        lambda n: turtle(f"[ odrl:leftOperand a:{m} ]\n" for m in range(n)), LEAVES_MAX, PARTS, f"line {LEAVES_MAX + 4}",
    ),
    "values of Turtle": (lambda n: turtle(map(str, range(n)), "odrl:rightOperand"), LEAVES_MAX, PARTS, "line 4"),
    "statements of JSON": (
        lambda n: json([node(0, **{"a:p": list(range(n))})]), STATEMENTS_MAX, f"{STATEMENTS_MAX} statements",
        f"/@graph/0/a:p/{STATEMENTS_MAX}",
    ),
    "nodes of JSON": (lambda n: json(node(m, **{"a:p": 1}) for m in range(n)), NODES_MAX, f"{NODES_MAX} nodes", f"/@graph/{NODES_MAX}"),
    "nodes of JSON that say their type": (
        lambda n: json(node(m, **{"@type": "a:T"}) for m in range(n)), NODES_MAX, f"{NODES_MAX} nodes", f"/@graph/{NODES_MAX}",
    ),
    "nodes of Turtle that say their type": (
        lambda n: of_turtle(HEAD + "\n".join(f"a:s{m} a a:T ." for m in range(n))), NODES_MAX, f"{NODES_MAX} nodes",
        f"line {NODES_MAX + 4}",
    ),
    "names of JSON": (
        lambda n: json(node(m, **{f"a:p{m}": 1}) for m in range(n)), NAMES_MAX, f"more than {NAMES_MAX} names", f"/@graph/{NAMES_MAX}",
    ),
    "relative IRIs of JSON": (
        lambda n: json(node(m, target=f"x{m}") for m in range(n)), RELATIVE_MAX, f"{RELATIVE_MAX} relative IRIs",
        f"/@graph/{RELATIVE_MAX}/target",
    ),
    "constraints of JSON": (lambda n: json(node(m, leftOperand="count") for m in range(n)), LEAVES_MAX, PARTS, f"/@graph/{LEAVES_MAX}/"),
    "values of JSON": (lambda n: json([node(0, rightOperand=list(range(n)))]), LEAVES_MAX, PARTS, "/@graph/0/rightOperand"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_at_a_bound_is_read_and_one_more_is_refused_where_it_stands(name: str):
    read, most, what, place = BOUNDS[name]
    read(most)
    with pytest.raises(PolicyError, match=f"{place}.*more than .*{what}|{place}.*{what}"):
        read(most + 1)


def test_what_is_said_twice_counts_once():
    json([node(0, **{"a:p": [1] * (2 * STATEMENTS_MAX)})])


def test_a_node_that_is_described_in_several_places_counts_once():
    described = [*range(NODES_MAX), *range(NODES_MAX // 4)]
    json(node(m, **{"a:p": place}) for place, m in enumerate(described))
    of_turtle(HEAD + "\n".join(f"a:s{m} a:p {place} ." for place, m in enumerate(described)))


def test_the_constraints_of_all_policies_of_a_document_count_together():
    leaves = [{"leftOperand": "count", "operator": "lteq", "rightOperand": f"{n}"} for n in range(LEAVES_MAX // 2 + 1)]
    with pytest.raises(PolicyError, match=rf"/@graph/1/constraint/{LEAVES_MAX // 2 - 1}.*more than {PARTS}; .* a document of its own$"):
        json(node(number, constraint=leaves) for number in range(2))
