"""Policies under the W3C's context that use all of ODRL, drawn from a seed."""

from collections.abc import Iterator
from random import Random
from typing import Any

XSD = "http://www.w3.org/2001/XMLSchema#"
W3C = "http://www.w3.org/ns/odrl.jsonld"
PARTIES = ("did:web:a.example", "did:web:b.example", "urn:x:team")
ASSETS = ("urn:x:data", "urn:x:more")
ACTIONS = ("use", "read", "distribute", "print", "anonymize", "odrl:play")


def typed(text: str, datatype: str) -> dict[str, str]:
    return {"@value": text, "@type": XSD + datatype}


def leaf(left: str, operator: str, right: Any, **more: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right, **more}


def a_leaf(chance: Random) -> dict[str, Any]:
    order = chance.choice(("lt", "lteq", "gt", "gteq", "neq"))
    drawn = chance.randrange(7)
    if drawn == 0:
        return leaf("dateTime", order, typed(chance.choice(("2026-01-01T00:00:00Z", "2026-06-15T12:00:00.5+02:00")), "dateTime"))
    if drawn == 1:
        return leaf("dateTime", order, typed(f"20{chance.randint(26, 40)}-12-31Z", "date"))
    if drawn == 2:
        return leaf("count", order, typed(str(chance.randint(1, 99)), "integer"))
    if drawn == 3:
        return leaf("payAmount", order, typed(chance.choice(("5.00", "7.5")), "decimal"), unit="http://dbpedia.org/resource/Euro")
    if drawn == 4:
        return leaf("elapsedTime", chance.choice(("lt", "lteq")), typed(chance.choice(("P30D", "P6M", "PT12H")), "duration"))
    terms = [{"@id": "urn:x:research"}, {"@id": "urn:x:quality"}, "marketing"]
    if drawn == 5:
        return leaf("purpose", chance.choice(("isAnyOf", "isNoneOf")), {"@list": chance.sample(terms, chance.randint(1, 3))})
    return leaf(chance.choice(("purpose", "spatial", "recipient")), chance.choice(("eq", "neq", "isA", "isPartOf")), chance.choice(terms))


def a_constraint(chance: Random, depth: int = 0) -> dict[str, Any]:
    if depth == 3 or chance.random() < 0.6:
        return named(a_leaf(chance), chance)
    kind = chance.choice(("and", "or", "xone", "andSequence"))
    parts = [a_constraint(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return named({kind: {"@list": parts} if kind == "andSequence" or chance.random() < 0.5 else parts}, chance)


def named(node: dict[str, Any], chance: Random) -> dict[str, Any]:
    return {"uid": f"urn:x:n{chance.getrandbits(60)}", **node} if chance.random() < 0.4 else node


def lefts(nodes: Any) -> Iterator[str]:
    """The left operands of constraints, however deep they stand."""
    for node in nodes if isinstance(nodes, list) else [nodes]:
        if "leftOperand" in node:
            yield node["leftOperand"]
        for kind in ("and", "or", "xone", "andSequence", "@list"):
            yield from lefts(node[kind]) if kind in node else ()


def constraints(chance: Random, most: int = 2) -> dict[str, Any]:
    found = [a_constraint(chance) for _ in range(chance.randint(0, most))]
    return {"constraint": found} if found else {}


def an_action(chance: Random) -> Any:
    word = chance.choice(ACTIONS)
    if chance.random() < 0.75:
        return word
    refinement = leaf("resolution", "lteq", typed("1200", "integer"), unit="http://dbpedia.org/resource/Dots_per_inch")
    return {"rdf:value": {"@id": "odrl:print"}, "refinement": [refinement]}


def a_thing(chance: Random, names: tuple[str, ...], what: str) -> Any:
    name = chance.choice(names)
    if chance.random() < 0.7:
        return name
    refined = {"refinement": [leaf("language", "eq", "de")]} if chance.random() < 0.5 else {}
    return {"@type": f"{what}Collection", "source": f"{name}:all", **refined}


def a_rule(chance: Random, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"action": [an_action(chance) for _ in range(2)] if chance.random() < 0.2 else an_action(chance)}
    found |= {"target": a_thing(chance, ASSETS, "Asset")} if chance.random() < 0.6 else {}
    found |= {"assignee": a_thing(chance, PARTIES, "Party")} if chance.random() < 0.5 else {}
    found |= constraints(chance)
    if kind == "permission" and chance.random() < 0.4:
        found["duty"] = [a_duty(chance, "consequence")]
    if kind == "prohibition" and chance.random() < 0.4:
        found["remedy"] = [a_duty(chance, "")]
    return named(found, chance)


def a_duty(chance: Random, below: str) -> dict[str, Any]:
    actions = chance.sample(("compensate", "delete", "inform", "anonymize"), chance.choice((1, 1, 1, 2)))
    found: dict[str, Any] = {"action": actions, **constraints(chance, 1)}
    while "compensate" in actions and len({left == "payAmount" for left in lefts(found.get("constraint", []))}) > 1:
        found |= constraints(chance, 1)  # a choice between a payment and something else is refused
    found |= {"informedParty": PARTIES[0]} if "inform" in actions else {}
    found |= {below: [a_duty(chance, "")]} if below and chance.random() < 0.4 else {}
    return named(found, chance)


def a_policy(chance: Random) -> dict[str, Any]:
    found: dict[str, Any] = {"@context": W3C, "uid": "urn:x:policy", "@type": chance.choice(("Set", "Offer", "Agreement"))}
    found |= {"conflict": chance.choice(("perm", "prohibit", "invalid"))} if chance.random() < 0.5 else {}
    found |= {"assigner": PARTIES[0]} if chance.random() < 0.5 else {}
    found["permission"] = [a_rule(chance, "permission") for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.5:
        found["prohibition"] = [a_rule(chance, "prohibition")]
    if chance.random() < 0.4:
        found["obligation"] = [a_duty(chance, "consequence")]
    return found


SPELLED = {"use": ("use", "odrl:use", "http://www.w3.org/ns/odrl/2/use"), "dateTime": ("dateTime", "odrl:dateTime")}
UNORDERED = ("permission", "prohibition", "obligation", "duty", "remedy", "constraint", "refinement", "and", "or", "xone", "action")


def permuted(node: Any, chance: Random, key: str = "") -> Any:
    """The same in another order of keys, of rules, constraints and lists but those of a sequence, and with other prefixes."""
    if isinstance(node, list):
        entries = [permuted(entry, chance, key) for entry in node]
        return entries if key == "andSequence" else chance.sample(entries, len(entries))
    if isinstance(node, dict):
        return {name: permuted(node[name], chance, key if name == "@list" else name) for name in chance.sample(list(node), len(node))}
    return chance.choice(SPELLED.get(node, (node,))) if isinstance(node, str) and key != "rightOperand" else node
