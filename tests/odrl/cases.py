"""Policies, requests and worlds that the tests of this folder share, and how hypothesis draws them."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

from connector.odrl import Policy, Request, World, load

ODRL = "http://www.w3.org/ns/odrl/2/"
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
PARTIES = ("did:web:a.example", "did:web:b.example", "did:web:c.example")
PURPOSES = ("research", "quality", "marketing")


def leaf(left: str, operator: str, right: object) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def purpose(operator: str, right: object) -> dict[str, Any]:
    return leaf("odrl:purpose", operator, right)


def time(operator: str, right: object) -> dict[str, Any]:
    return leaf("odrl:dateTime", operator, right)


def participant(operator: str, right: object) -> dict[str, Any]:
    return leaf("urn:qiao:participant", operator, right)


def rule(*constraints: dict[str, Any], action: str = "use", **more: object) -> dict[str, Any]:
    return {"action": action, **({"constraint": list(constraints)} if constraints else {}), **more}


def offer(*permissions: dict[str, Any], prohibitions: tuple[dict[str, Any], ...] = (), **more: object) -> dict[str, Any]:
    rules = {"permission": list(permissions)} if permissions else {}
    return {"@id": "urn:o1", "@type": "Offer", **rules, **({"prohibition": list(prohibitions)} if prohibitions else {}), **more}


def policy(*permissions: dict[str, Any], prohibitions: tuple[dict[str, Any], ...] = (), **more: object) -> Policy:
    return load(offer(*permissions, prohibitions=prohibitions, **more))


def request(*purposes: str, party: str = PARTIES[0], stage: str = "transfer", **more: Any) -> Request:
    return Request(party, params={"odrl:purpose": purposes} if purposes else {}, stage=stage, **more)


def world(now: datetime = NOW, **facts: Any) -> World:
    return World(now, facts)


# Few values on few axes, so that policies and requests meet often. Drawn from a seed, which is ten times faster than from single choices.
DAYS = ("2026-06-14Z", "2026-06-15Z", "2026-06-16Z", "2026-06-15")
INSTANTS = ("2026-06-15T12:00:00Z", "2026-06-15T14:00:00+02:00", "2026-06-15T11:59:59.999999Z", "2026-06-15T12:00:01Z")
MOMENTS = tuple(NOW + timedelta(microseconds=n) for n in (-1, 0, 1, 1_000_000, 43_200_000_000 - 1, 43_200_000_000))


def a_leaf(chance: Random) -> dict[str, Any]:
    if chance.random() < 0.4:
        return time(chance.choice(("eq", "neq", "lt", "lteq", "gt", "gteq")), chance.choice(DAYS + INSTANTS))
    left, pool = chance.choice(((("odrl:purpose", ODRL + "purpose"), PURPOSES), (("urn:qiao:participant",), PARTIES)))
    operator = chance.choice(("eq", "neq", "isAnyOf", "isNoneOf"))
    if operator in {"isAnyOf", "isNoneOf"}:
        return leaf(chance.choice(left), operator, chance.choices(pool, k=chance.randint(1, 3)))
    value = chance.choice(pool)
    return leaf(chance.choice(left), operator, chance.choice((value, [value], {"@value": value}, {"@value": value, "@type": "xsd:string"})))


def a_constraint(chance: Random, depth: int = 0) -> dict[str, Any]:
    if depth == 3 or chance.random() < 0.6:
        return a_leaf(chance)
    return {chance.choice(("and", "or", "or")): [a_constraint(chance, depth + 1) for _ in range(chance.randint(1, 3))]}


def a_rule(chance: Random) -> dict[str, Any]:
    action = chance.choice(("use", "use", "odrl:use", ODRL + "use", "odrl:distribute", "odrl:read"))
    who = chance.choice((None, None, None, PARTIES[0], [PARTIES[0], PARTIES[1]]))
    constraints = [a_constraint(chance) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
    return {"action": action, "constraint": constraints} | ({"assignee": who} if who else {})


def an_offer(chance: Random) -> dict[str, Any]:
    prohibitions = tuple(a_rule(chance) for _ in range(chance.choice((0, 0, 0, 1, 2))))
    return offer(*[a_rule(chance) for _ in range(chance.randint(1, 4))], prohibitions=prohibitions)


def a_request(chance: Random) -> Request:
    purposes = tuple(chance.sample(PURPOSES, chance.choice((0, 0, 1, 1, 2))))
    action, stage = chance.choice(("use", "odrl:use", "odrl:read")), chance.choice(("catalog", "negotiation", "transfer"))
    return Request(chance.choice(PARTIES), action, "urn:d", {"odrl:purpose": purposes} if purposes else {}, stage)


def a_moment(chance: Random) -> datetime:
    return chance.choice((*MOMENTS, datetime(2026, 6, 13, tzinfo=UTC) + timedelta(seconds=chance.randint(0, 5 * 86_400))))


def shuffled(node: Any, chance: Random) -> Any:
    """The same JSON in another order of keys and of array members, none of which means anything in a policy."""
    if isinstance(node, list):
        return chance.sample([shuffled(entry, chance) for entry in node], len(node))
    return {key: shuffled(node[key], chance) for key in chance.sample(list(node), len(node))} if isinstance(node, dict) else node


seeds = st.integers(0, 2**64).map(Random)
offers, rules, requests, nows = (seeds.map(draw) for draw in (an_offer, a_rule, a_request, a_moment))
worlds = nows.map(World)
leaves = seeds.map(a_leaf)

# What no author would write on purpose: words and values that are unknown, misplaced or of another type, in a valid shape.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
words = st.sampled_from(("dateTime", "odrl:count", "edc:foo", "purpose", "urn:x:y", "term-lteq", "xone", "", "\ud800\n")) | st.text(
    max_size=8
)
odd_leaves = st.builds(
    leaf,
    words | st.sampled_from(("odrl:dateTime", "odrl:purpose")),
    words | st.sampled_from(("eq", "gt", "isAnyOf")),
    st.text(max_size=12)
    | st.lists(json_values, max_size=3)
    | st.dictionaries(st.sampled_from(("@id", "@value", "@type", "x")), json_values),
)
odd_constraints = st.recursive(
    leaves | odd_leaves,
    lambda inner: st.builds(
        lambda kind, parts: {kind: parts}, st.sampled_from(("and", "or", "xone", "andSequence")), st.lists(inner, max_size=3)
    ),
)
odd_rules = st.builds(
    lambda action, given, more: {**more, "action": action, "constraint": given},
    words | st.just("use"),
    st.lists(odd_constraints, max_size=3),
    st.dictionaries(words | st.sampled_from(("duty", "target", "assignee", "@type")), json_values, max_size=2),
)
odd_offers = st.builds(
    lambda permissions, prohibitions, more: {**more, **offer(*permissions, prohibitions=tuple(prohibitions))},
    st.lists(odd_rules, min_size=1, max_size=2),
    st.lists(odd_rules, max_size=2),
    st.dictionaries(words | st.sampled_from(("obligation", "profile", "assignee", "@context")), json_values, max_size=2),
)
