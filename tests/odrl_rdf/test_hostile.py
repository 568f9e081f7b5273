"""Hostile documents, given to `lint` and `load` directly: a finding that refuses, within the time that an event loop may stand still."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import DEFAULT_OPTIONS, Options, lint, load
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl_rdf.contexts import CONTEXTS
from connector.vocabulary import read_profiles

SECONDS_MAX = 0.05
CHARS_MAX = 2_000  # of what is said about it
ROUNDS = 200  # the best counts: other processes are no matter of ours, and a shared core is at times half as fast for seconds
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
HEAD = f"@prefix odrl: <{ODRL}> . @prefix a: <urn:a:> . @prefix rdf: <{RDF}> .\na:p a odrl:Set ; odrl:permission [ odrl:action odrl:use "
LEAF = "[ odrl:leftOperand odrl:count ; odrl:operator odrl:lteq ; odrl:rightOperand 5 ]"
MANY = 100_000


def turtle(rest: str = "", more: str = "") -> tuple[str, str]:
    return f"{HEAD} {rest} ] . {more}", "turtle"


def policy(constraint: Any, *context: Any, **more: Any) -> dict[str, Any]:
    rule = {"action": "use", "constraint": constraint}
    return {"@context": list(context) or W3C_CONTEXT, "uid": "urn:a:p", "@type": "Set", "permission": [rule], **more}


def leaf(right: Any = "5", **more: Any) -> dict[str, Any]:
    return {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": right, **more}


def nested(levels: int, key: str, end: Any) -> Any:
    value = end
    for _ in range(levels):
        value = {key: [value]}
    return value


def chain(length: int, end: str) -> str:
    return " ".join(f"_:{n} rdf:first a:x ; rdf:rest _:{n + 1} ." for n in range(length)) + f" _:{length} {end}"


SHARED = "; odrl:constraint [ odrl:rightOperand _:0 ] " * 300
OWN = {"ex": "urn:ex:"}
DOCUMENTS: dict[str, Callable[[], tuple[Any, str]]] = {
    "Turtle: 100,000 leaves": lambda: turtle(f"; odrl:constraint {LEAF} " * MANY),
    "Turtle: as many leaves as tokens": lambda: turtle(f"; odrl:constraint {LEAF} " * 900),
    "Turtle: as many triples as tokens": lambda: turtle(more="a:s a:p a:o . " * 2_900 + "a:s"),
    "Turtle: as many values as tokens": lambda: turtle("; odrl:assignee " + ",".join(f"a:x{n}" for n in range(5_900))),
    "Turtle: as many names as tokens": lambda: turtle(more="".join(f"a:s{n} a:p{n} <urn:o:{n}> . " for n in range(2_900)) + "a:s"),
    "Turtle: as many relative IRIs as tokens": lambda: turtle(
        more="@base <https://a.example/> . a:s a:p " + ", ".join(f"<{n}>" for n in range(5_900)) + " ."
    ),
    "Turtle: words and dots": lambda: turtle(more="x." * MANY),
    "Turtle: an IRI of escapes without an end": lambda: turtle("; a:x <urn:" + "\\u00000000" * 11_000),
    "Turtle: too many tokens": lambda: turtle(more=".\n" * MANY),
    "Turtle: deep brackets": lambda: turtle("; odrl:duty " + "[ odrl:duty " * 15_000),
    "Turtle: deep lists": lambda: turtle("; odrl:constraint " + "(" * MANY),
    "Turtle: quotes": lambda: turtle("; a:x " + '"""' * 80_000),
    "Turtle: escapes": lambda: turtle('; a:x "' + "\\n" * MANY + '"'),
    "Turtle: as many escapes as there may be": lambda: turtle('; a:x "' + "\\u6865" * 11_000 + '"'),
    "Turtle: a name without an end": lambda: turtle("; a:x a:" + "%41" * 80_000),
    "Turtle: a string without an end": lambda: turtle('; a:x "' + "x" * 250_000),
    "Turtle: an IRI without an end": lambda: turtle("; a:x <" + "x" * 250_000),
    "Turtle: comments": lambda: turtle("; a:x 1", "#\n" * 120_000),
    "Turtle: a rule in itself": lambda: turtle("; odrl:duty a:r", "a:r odrl:duty a:r ."),
    "Turtle: a constraint in itself": lambda: turtle("; odrl:constraint a:c", "a:c odrl:and ( a:d ) . a:d odrl:or ( a:c ) ."),
    "Turtle: a list in itself": lambda: turtle("; odrl:constraint [ odrl:and _:l ]", "_:l rdf:first a:x ; rdf:rest _:l ."),
    "Turtle: a policy that inherits from itself": lambda: (HEAD + "] ; odrl:inheritFrom a:p .", "turtle"),
    "Turtle: a graph that blows up": lambda: turtle(
        "; odrl:constraint a:c0", " ".join(f"a:c{n} odrl:or ( a:c{n + 1} a:c{n + 1} [ odrl:and ( a:c{n + 1} ) ] ) ." for n in range(30))
    ),
    "Turtle: one list for all": lambda: turtle(SHARED, chain(800, "rdf:first 1 ; rdf:rest () .")),
    "Turtle: one endless list for all": lambda: turtle(SHARED, chain(800, "a:x a:y .")),
    "Turtle: huge integer": lambda: turtle(
        f"; odrl:constraint [ odrl:leftOperand odrl:count ; odrl:operator odrl:lteq ; odrl:rightOperand {'9' * 200_000} ]"
    ),
    "Turtle: hostile IRI": lambda: turtle('; odrl:target <urn:x"\\u0022> '),
    "JSON: 100,000 leaves": lambda: (policy([leaf()] * MANY), "json-ld"),
    "JSON: 100,000 leaves as text": lambda: (json.dumps(policy([leaf()] * MANY)), "json-ld"),
    "JSON: 100,000 leaves of DSP": lambda: (policy([leaf()] * MANY, DSP_CONTEXT), "json-ld"),
    "JSON: 100,000 leaves in own context": lambda: (policy([leaf()] * MANY, W3C_CONTEXT, OWN), "json-ld"),
    "JSON: as many leaves as values": lambda: (policy([leaf() for _ in range(2_700)], W3C_CONTEXT, OWN), "json-ld"),
    "JSON: as many unknown properties as values": lambda: (
        policy([], W3C_CONTEXT, OWN, **{f"ex:x{n}": 1 for n in range(10_900)}), "json-ld",
    ),
    "JSON: as many values of one constraint": lambda: (
        policy([leaf([{"@value": f"{n}", "@type": "xsd:integer"} for n in range(3_600)])], W3C_CONTEXT, OWN), "json-ld",
    ),
    "JSON: as many policies as values": lambda: (
        {"@context": W3C_CONTEXT, "@graph": [{"uid": f"urn:p{n}", "type": "Set", "permission": [{"action": "use"}]} for n in range(1_800)]},
        "json-ld",
    ),
    "JSON: as many strings of one language as values": lambda: (
        policy([], W3C_CONTEXT, OWN, **{"ex:x": [{"@value": f"{n}", "@language": "en"} for n in range(3_600)]}), "json-ld",
    ),
    "JSON: as many leaves as there may be, none of them known": lambda: (
        policy([leaf(leftOperand=f"ex:{n}") for n in range(798)], W3C_CONTEXT, OWN), "json-ld",
    ),
    "JSON: too many values": lambda: (policy([leaf() for _ in range(2_900)], W3C_CONTEXT, OWN), "json-ld"),
    "JSON: objects as text": lambda: ('{"permission":[' + ",".join(["{}"] * 170_000) + "]}", "json-ld"),
    "JSON: as many objects as commas": lambda: ('{"permission":[' + ",".join(["{}"] * 6_990) + "]}", "json-ld"),
    "JSON: as many leaves as commas": lambda: (json.dumps(policy([leaf() for _ in range(3_490)])), "json-ld"),
    "JSON: 100,000 rules": lambda: (policy([], permission=[{"action": "use"}] * MANY), "json-ld"),
    "JSON: 100,000 values": lambda: (policy([leaf(["5"] * MANY)]), "json-ld"),
    "JSON: 100,000 parties": lambda: (policy([], assignee=["did:web:a"] * MANY), "json-ld"),
    "JSON: 100,000 properties": lambda: (policy([], **{f"x{n}": 1 for n in range(MANY)}), "json-ld"),
    "JSON: 100,000 profiles": lambda: (policy([], profile=["urn:x"] * MANY), "json-ld"),
    "JSON: deep constraints": lambda: (policy([nested(MANY, "and", leaf())]), "json-ld"),
    "JSON: deep constraints in own context": lambda: (policy([nested(MANY, "and", leaf())], W3C_CONTEXT, OWN), "json-ld"),
    "JSON: deep duties": lambda: (policy([], permission=[nested(MANY, "duty", {})]), "json-ld"),
    "JSON: deep text": lambda: ("[" * 400_000, "json-ld"),
    "JSON: deep objects": lambda: ('{"a":' * 90_000, "json-ld"),
    "JSON: huge integer": lambda: (policy([leaf(10**5_000)]), "json-ld"),
    "JSON: huge integer as text": lambda: ('{"a": ' + "9" * 400_000 + "}", "json-ld"),
    "JSON: huge integer of a literal": lambda: (policy([leaf({"@value": "9" * 400_000, "@type": "xsd:integer"})]), "json-ld"),
    "JSON: hostile IRIs": lambda: (policy([leaf()], W3C_CONTEXT, OWN, target='urn:x">\n<script>'), "json-ld"),
    "JSON: a key twice": lambda: ('{"@context": "' + W3C_CONTEXT + '", "permission": [{"action": "use", "action": "read"}]}', "json-ld"),
    "JSON: one huge string": lambda: (policy([leaf({"@value": "x" * 400_000})]), "json-ld"),
    "JSON: loops in a graph": lambda: (
        {"@context": [W3C_CONTEXT, OWN], "uid": "ex:p", "type": "Set", "permission": {"uid": "ex:r", "duty": "ex:r"}}, "json-ld",
    ),
    "JSON: contexts in each object": lambda: (
        policy([{"@context": W3C_CONTEXT, **leaf()} for _ in range(300)], W3C_CONTEXT, OWN), "json-ld",
    ),
    "JSON: a context of 100,000 terms": lambda: (policy([leaf()], W3C_CONTEXT, {f"x{n}": f"urn:x:{n}" for n in range(MANY)}), "json-ld"),
    "JSON: terms that lean on each other": lambda: (
        policy([leaf()], W3C_CONTEXT, {f"x{n}": f"x{n + 1}:a" for n in range(900)} | {"x900": "x0:a"}), "json-ld",
    ),
    "JSON: as many unknown words as findings": lambda: (
        policy([], DSP_CONTEXT, permission=[
            {"action": f"{ODRL}distributeeee{n:02}", "constraint": [leaf(leftOperand=f"{ODRL}purposeeeee{n:02}")]} for n in range(49)
        ]), "json-ld",
    ),
    "JSON: a foreign context": lambda: (policy([leaf()], "https://attacker.example/"), "json-ld"),
}  # fmt: skip


PACKED = Options(profiles=read_profiles())  # as the connector has them


@pytest.mark.parametrize("options", [DEFAULT_OPTIONS, PACKED], ids=["core", "packs"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_document_is_refused_in_time(name: str, options: Options):
    document, format = DOCUMENTS[name]()
    best = SECONDS_MAX
    for _ in range(ROUNDS):
        before = process_time()
        findings = lint(document, format, options=options)
        best = min(best, process_time() - before)
        assert any(finding.severity == "error" for finding in findings)
        assert all(str(finding).isprintable() and len(str(finding)) < CHARS_MAX for finding in findings)
        if best < SECONDS_MAX:
            break
    assert best < SECONDS_MAX
    with pytest.raises(PolicyError):
        load(document, format, options=options)


def test_an_object_that_contains_itself_is_refused():
    document = policy([leaf()])
    document["permission"].append(document)
    rule: dict[str, Any] = {"action": "use"}
    rule["duty"] = [rule]
    group: dict[str, Any] = {}
    group["and"] = [group]
    for loop in (document, policy([], permission=[rule]), policy([group]), policy([group], *CONTEXTS)):
        assert any(finding.severity == "error" for finding in lint(loop))
