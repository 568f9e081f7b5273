"""Policies, requests and worlds that the tests of this folder share, and how hypothesis draws them."""

from datetime import UTC, datetime, timedelta
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


# Few values on few axes, so that policies and requests meet often.
DAYS = ("2026-06-14Z", "2026-06-15Z", "2026-06-16Z", "2026-06-15")
INSTANTS = ("2026-06-15T12:00:00Z", "2026-06-15T14:00:00+02:00", "2026-06-15T11:59:59.999999Z", "2026-06-15T12:00:01Z")
nows = st.sampled_from([NOW + timedelta(microseconds=n) for n in (-1, 0, 1, 1_000_000, 43_200_000_000 - 1, 43_200_000_000)]) | st.datetimes(
    datetime(2026, 6, 13), datetime(2026, 6, 18), timezones=st.just(UTC)  # noqa: DTZ001 - bounds of hypothesis are naive
)


def values(pool: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.sampled_from(pool).flatmap(lambda v: st.sampled_from([v, [v], {"@value": v}, {"@value": v, "@type": "xsd:string"}]))


def choices(left: tuple[str, ...], pool: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    one = st.builds(leaf, st.sampled_from(left), st.sampled_from(("eq", "neq")), values(pool))
    many = st.builds(leaf, st.sampled_from(left), st.sampled_from(("isAnyOf", "isNoneOf")), st.lists(st.sampled_from(pool), min_size=1))
    return one | many


leaves = (
    choices(("odrl:purpose", ODRL + "purpose"), PURPOSES)
    | choices(("urn:qiao:participant",), PARTIES)
    | st.builds(time, st.sampled_from(("eq", "neq", "lt", "lteq", "gt", "gteq")), st.sampled_from(DAYS + INSTANTS))
)
constraints = st.recursive(
    leaves, lambda inner: st.builds(lambda kind, parts: {kind: parts}, st.sampled_from(("and", "or")), st.lists(inner, min_size=1, max_size=3))
)
# A rule most often speaks of `use`, so that its constraints matter.
rules = st.builds(
    lambda action, given, who: {"action": action, "constraint": given} | ({"assignee": who} if who else {}),
    st.sampled_from(("use", "use", "odrl:use", ODRL + "use", "odrl:distribute", "odrl:read")),
    st.lists(constraints, max_size=3),
    st.sampled_from((None, None, None, PARTIES[0], [PARTIES[0], PARTIES[1]])),
)
offers = st.builds(
    lambda permissions, prohibitions: offer(*permissions, prohibitions=tuple(prohibitions)),
    st.lists(rules, min_size=1, max_size=3),
    st.lists(rules, max_size=2),
)
requests = st.builds(
    lambda party, action, purposes, stage: Request(party, action, "urn:d", {"odrl:purpose": tuple(purposes)} if purposes else {}, stage),
    st.sampled_from(PARTIES),
    st.sampled_from(("use", "odrl:use", "odrl:read")),
    st.lists(st.sampled_from(PURPOSES), max_size=2, unique=True),
    st.sampled_from(("catalog", "negotiation", "transfer")),
)
worlds = st.builds(World, nows)

# What no author would write on purpose: words and values that are unknown, misplaced or of another type, in a valid shape.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
words = st.sampled_from(("dateTime", "odrl:count", "edc:foo", "purpose", "urn:x:y", "term-lteq", "xone", "", "\ud800\n")) | st.text(max_size=8)
odd_leaves = st.builds(
    leaf,
    words | st.sampled_from(("odrl:dateTime", "odrl:purpose")),
    words | st.sampled_from(("eq", "gt", "isAnyOf")),
    st.text(max_size=12) | st.lists(json_values, max_size=3) | st.dictionaries(st.sampled_from(("@id", "@value", "@type", "x")), json_values),
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
