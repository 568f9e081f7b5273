"""Policies, requests and worlds over all kinds of axes, drawn from a seed: few values on few axes, so that they meet often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import strategies as st

from connector.odrl import PARTICIPANT, Event, Options, Policy, Request, Verdict, World, evaluate, load
from connector.odrl.model import Since
from connector.odrl.registry import CONCEPT, ORDER, Operand, Profile, Vocabulary
from connector.odrl_compare.axes import PARTY
from connector.odrl_compare.sides import GAP, Crowd, Names

ODRL = "http://www.w3.org/ns/odrl/2/"
EUR, USD = "urn:unit:eur", "urn:unit:usd"
PERMITS = ("permit", "permit-with")
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
PARTIES = ("did:web:a.example", "did:web:b.example", "did:web:c.example")
ROLES = ("urn:t:auditor", "urn:t:doctor", "urn:t:nurse", "urn:t:staff")
PURPOSES = ("urn:t:research", "urn:t:cancer", "urn:t:rare", "urn:t:quality", "urn:t:marketing")
PLACES = ("urn:t:europe", "urn:t:france", "urn:t:paris", "urn:t:japan")
ACTIONS = ("use", "odrl:read", "odrl:distribute", "odrl:play", "odrl:display", "odrl:transfer")

CONCEPTS = Vocabulary(
    "urn:t:v",
    broader={
        "urn:t:cancer": ("urn:t:research",),
        "urn:t:rare": ("urn:t:research",),
        "urn:t:doctor": ("urn:t:staff",),
        "urn:t:nurse": ("urn:t:staff",),
    },
    parts={"urn:t:paris": ("urn:t:france",), "urn:t:france": ("urn:t:europe",)},
    disjoint=(("urn:t:research", "urn:t:marketing"),),
)
PROFILE = Profile(
    "urn:t:profile",
    operands=(
        Operand("urn:t:role", "role", "角色", "term", "subject", CONCEPT, "claims", "verified"),
        Operand("urn:t:age", "age", "年龄", "number", "quantity", ORDER, "declared", "declared", "negotiation", 0, integral=True),
    ),
    vocabulary=CONCEPTS,
)
OPTIONS = Options(profiles=(PROFILE,))

# left operand -> operators, values and unit, and how often it comes
TIMES = ("2026-06-14Z", "2026-06-15Z", "2026-06-15T12:00:00Z", "2026-06-16Z", "2026-07-01Z")
NUMBERS = tuple({"@value": str(n), "@type": "xsd:integer"} for n in (0, 1, 2, 3, 5))
DECIMALS = tuple({"@value": n, "@type": "xsd:decimal"} for n in ("0", "1", "2.5", "4", "100"))
DAYS = ("PT0S", "P1D", "P10D", "PT36H")
COMPARED = ("eq", "neq", "lt", "lteq", "gt", "gteq")
LISTED = ("isAnyOf", "isNoneOf", "isAllOf")
CHOSEN = ("eq", "neq", "isAnyOf", "isNoneOf")
RELATED = (*CHOSEN, "isA", "isPartOf", "hasPart", "isAllOf")
AXES: tuple[tuple[str, tuple[str, ...], tuple[Any, ...], str], ...] = (
    ("odrl:dateTime", (*COMPARED, *LISTED), TIMES, ""),
    ("odrl:dateTime", COMPARED, TIMES, ""),
    ("odrl:purpose", RELATED, PURPOSES, ""),
    ("odrl:purpose", CHOSEN, PURPOSES, ""),
    ("odrl:spatial", RELATED, PLACES, ""),
    ("urn:t:role", RELATED, ROLES, ""),
    ("urn:qiao:participant", CHOSEN, PARTIES, ""),
    ("odrl:count", (*COMPARED, *LISTED), NUMBERS, ""),
    ("odrl:payAmount", COMPARED, DECIMALS, EUR),
    ("odrl:percentage", COMPARED, DECIMALS, ""),
    ("odrl:resolution", COMPARED, DECIMALS, "urn:unit:dpi"),
    ("urn:t:age", COMPARED, NUMBERS, ""),
    ("odrl:elapsedTime", COMPARED, DAYS, ""),
    ("odrl:meteredTime", COMPARED, DAYS, ""),
    ("odrl:event", COMPARED, ({"@id": "urn:t:congress"},), ""),
)


def a_leaf(chance: Random, axes: tuple[Any, ...] = AXES) -> dict[str, Any]:
    left, operators, values, unit = chance.choice(axes)
    operator = chance.choice(operators)
    many = operator in LISTED or (operator in ("isA", "isPartOf", "hasPart") and chance.random() < 0.4)
    right = chance.choices(values, k=chance.randint(1, 3)) if many else chance.choice(values)
    return {"leftOperand": left, "operator": operator, "rightOperand": right} | ({"odrl:unit": unit} if unit else {})


def a_constraint(chance: Random, depth: int = 0, axes: tuple[Any, ...] = AXES) -> dict[str, Any]:
    if depth == 2 or chance.random() < 0.65:
        return a_leaf(chance, axes)
    kind = chance.choice(("and", "or", "or", "xone", "andSequence"))
    parts: Any = [a_constraint(chance, depth + 1, axes) for _ in range(chance.randint(1, 3))]
    return {kind: {"@list": parts} if kind == "andSequence" else parts}


def a_duty(chance: Random) -> dict[str, Any]:
    action = chance.choice(("odrl:compensate", "odrl:inform", "odrl:delete", "odrl:obtainConsent"))
    constraints = []
    if chance.random() < 0.3:
        constraints.append({"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": chance.choice(PURPOSES)})
    if chance.random() < 0.2:
        constraints.append(
            {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": chance.choice(("2026-08-01Z", "2026-09-01Z"))}
        )
    if chance.random() < 0.3:
        left = chance.choice(("odrl:delayPeriod", "odrl:elapsedTime"))
        within = {"leftOperand": left, "operator": chance.choice(("lt", "lteq")), "rightOperand": chance.choice((*DAYS, "P1M"))}
        constraints.append(within)
    return {"action": action} | ({"constraint": constraints} if constraints else {})


def a_rule(chance: Random, kind: str, axes: tuple[Any, ...] = AXES, *, duties: bool = True) -> dict[str, Any]:
    rule: dict[str, Any] = {"action": chance.choice(ACTIONS) if chance.random() < 0.5 else "use"}
    constraints = [a_constraint(chance, 0, axes) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
    if constraints:
        rule["constraint"] = constraints
    if chance.random() < 0.2:
        rule["assignee"] = chance.sample(PARTIES, chance.randint(1, 2))
    if duties and kind == "permission" and chance.random() < 0.15:
        rule["duty"] = [a_duty(chance) for _ in range(chance.randint(1, 2))]
    return rule


def an_offer(chance: Random, axes: tuple[Any, ...] = AXES, *, duties: bool = True) -> dict[str, Any]:
    document: dict[str, Any] = {"@id": "urn:o", "@type": "Offer"}
    document["permission"] = [a_rule(chance, "permission", axes, duties=duties) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    prohibitions = [a_rule(chance, "prohibition", axes) for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    if prohibitions:
        document["prohibition"] = prohibitions
    if chance.random() < 0.05:
        document["odrl:conflict"] = {"@id": chance.choice(("odrl:perm", "odrl:prohibit", "odrl:invalid"))}
    return document


def read(document: dict[str, Any]) -> Policy:
    return load(document, options=OPTIONS)


def a_rich_duty(chance: Random) -> dict[str, Any]:
    """A duty of several actions, of an amount, of somebody, on something, or after the use."""
    duty = a_duty(chance)
    if chance.random() < 0.25:
        duty["action"] = chance.sample(("odrl:compensate", "odrl:inform", "odrl:delete", "odrl:play", "odrl:display"), 2)
    elif chance.random() < 0.3:
        operator = chance.choice(("eq", "gteq", "lteq", "gt"))
        amount = {"leftOperand": "odrl:payAmount", "operator": operator, "rightOperand": chance.choice(DECIMALS), "odrl:unit": EUR}
        duty["action"] = {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [amount]}
    if chance.random() < 0.15:
        duty["assignee"] = chance.choice(PARTIES)
    if chance.random() < 0.1:
        duty["target"] = "urn:d"
    if chance.random() < 0.15:
        use = {"leftOperand": "odrl:event", "operator": chance.choice(("gt", "lt")), "rightOperand": {"@id": "odrl:policyUsage"}}
        duty["constraint"] = [*duty.get("constraint", ()), use]
    return duty


def asking(document: dict[str, Any], chance: Random) -> dict[str, Any]:
    """The same policy with other duties for most of its permissions."""
    rules = [dict(rule) for rule in document["permission"]]
    for rule in rules:
        if chance.random() < 0.6:
            rule["duty"] = [a_rich_duty(chance) for _ in range(chance.randint(1, 3))]
    return {**document, "permission": rules}


def changed(document: dict[str, Any], chance: Random) -> dict[str, Any]:
    """Nearly the same policy: a rule or a constraint more or less, or another one."""
    rules = [dict(rule) for rule in document["permission"]]
    found = {**document, "permission": rules}
    rule = chance.choice(rules)
    given = list(rule.get("constraint", ()))
    match chance.randrange(6):
        case 0:
            given.append(a_constraint(chance))
        case 1 if given:
            given.pop(chance.randrange(len(given)))
        case 2 if given:
            given[chance.randrange(len(given))] = a_constraint(chance)
        case 3:
            rules.append(a_rule(chance, "permission"))
        case 4:
            found["prohibition"] = [*document.get("prohibition", ()), a_rule(chance, "prohibition")]
        case _:
            chance.shuffle(rules)
    rule.pop("constraint", None)
    if given:
        rule["constraint"] = given
    return found


def a_request(chance: Random) -> tuple[Request, World]:
    """An act in a state of the world: values at, beside and between those of the policies, some facts missing."""

    def some(values: tuple[Any, ...], most: int = 1) -> tuple[Any, ...]:
        return tuple(chance.sample(values, chance.randint(0 if chance.random() < 0.3 else 1, most)))

    params: dict[str, tuple[Any, ...]] = {}
    facts: dict[str, tuple[Any, ...]] = {}
    used: dict[Any, Any] = {}
    anchors = {}
    now = NOW + chance.choice((timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1), timedelta(days=chance.randint(-3, 30))))
    for name, found in (
        (ODRL + "purpose", some(PURPOSES, chance.choice((1, 1, 2)))),
        (ODRL + "spatial", some(PLACES)),
        ("urn:t:age", some(tuple({"@value": n} for n in ("0", "1", "2", "3", "4", "6")))),
        (ODRL + "resolution", some(tuple({"@value": n, "unit": "urn:unit:dpi"} for n in ("0.5", "1", "2.5", "3", "100", "200")))),
    ):
        if found:
            params[name] = found
    if roles := some(ROLES, 3):
        facts["urn:t:role"] = roles
    if phase := some(("before", "during", "after")):
        facts[ODRL + "event urn:t:congress"] = phase
    for key, numbers in (
        (ODRL + "count", (0, 1, 2, 4)),
        (f"{ODRL}payAmount {EUR}", (0, 1, 2, 4, 200)),
        (ODRL + "percentage", (0, 1, 4, 50, 100)),
    ):
        if chance.random() < 0.8:
            used[key] = chance.choice(numbers)
    elapsed = chance.choice((1, 2, 24, 36, 37, 240, 241, 900))
    if chance.random() < 0.8:
        anchors[ODRL + "elapsedTime"] = now - timedelta(hours=elapsed)
    if chance.random() < 0.8:
        used[ODRL + "meteredTime"] = chance.choice([hours for hours in (0, 1, 24, 36, 240, 900) if hours <= elapsed]) * 3_600_000_000
    log = None
    if chance.random() < 0.5:  # uses are counted from the log where nothing else says how many there were
        for counter in ("count", "percentage", "meteredTime", f"payAmount {EUR}"):
            used.setdefault(ODRL + counter, 0)
        anchors.setdefault(ODRL + "elapsedTime", now - timedelta(hours=elapsed))
        actions = chance.sample(("odrl:compensate", "odrl:inform", "odrl:delete", "odrl:obtainConsent"), chance.randint(1, 4))
        log = tuple(Event(now - timedelta(hours=1), action, PARTIES[0]) for action in actions)
    request = Request(chance.choice(PARTIES), chance.choice(ACTIONS), chance.choice((None, "urn:d")), params)
    return request, World(now, facts, anchors, used, log)


def permits(policy: Policy, request: Any, world: Any, options: Options = OPTIONS) -> bool:
    return evaluate(policy, request, world, options=options).result in PERMITS


def separates(yes: Policy, no: Policy, verdict: Verdict, name: str, options: Options = OPTIONS) -> bool:
    """Whether the witness shows it: the one permits, and the other does not, or only with something to do."""
    found = verdict.witnesses[name]
    one, other = (evaluate(policy, found.request, found.world, options=options) for policy in (yes, no))
    if one.result not in PERMITS:
        return False
    if "asks for the" not in verdict.reasons[name]:
        return other.result not in PERMITS
    asked = {duty.path for duty in other.duties if duty.state not in ("fulfilled", "remediated")}
    return other.result not in PERMITS or bool(asked)


seeds = st.integers(0, 2**64).map(Random)
offers = seeds.map(an_offer)


def holds(side: Any, value: Any) -> bool:
    """Whether a value of a fact (None: it is missing) lies in a side, by the vocabularies at hand."""
    if value is None or side is GAP:
        return value is None and side is GAP
    if isinstance(side, Crowd):
        inner = all(holds(side.within, name) for name in value)
        return inner and all(any(holds(hit, name) for name in value) for hit in side.hits)
    if isinstance(side, Names):
        (name,) = value if isinstance(value, frozenset) else (value,)
        return (name in side.values) != side.negated
    number = value.now - value.anchor if isinstance(value, Since) else value
    return any(low <= (number, 0) and (number, 1) <= high for low, high in side.spans)


def lies(box: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether facts lie in a box."""
    return all(holds(side, facts.get(key)) for key, side in box.items())


def some_facts(chance: Random) -> dict[str, Any]:
    """Facts as the judges of constraints take them, at, beside and between the values of the policies; some are missing."""
    now = round((NOW + timedelta(days=chance.randint(-3, 30), microseconds=chance.choice((-1, 0, 0, 1)))).timestamp() * 1_000_000)
    hour = 3_600_000_000
    elapsed = chance.choice((1, 2, 24 * hour - 1, 24 * hour, 24 * hour + 1, 36 * hour, 240 * hour, 900 * hour))
    found: dict[str, Any] = {
        ODRL + "purpose": chance.choice((*PURPOSES, "urn:t:unheard-of")),
        ODRL + "spatial": chance.choice(PLACES),
        "urn:t:role": frozenset(chance.sample(ROLES, chance.randint(1, 3))),
        PARTY: chance.choice(PARTIES),
        ODRL + "count": chance.choice((1, 2, 3, 4, 5, 6)),
        f"{ODRL}payAmount {EUR}": chance.choice((0, 1, 2, Fraction(5, 2), 3, 4, 100, 200)),
        ODRL + "percentage": chance.choice((0, 1, Fraction(5, 2), 3, 4, 50, 100)),
        ODRL + "resolution urn:unit:dpi": chance.choice((Fraction(1, 2), 1, Fraction(5, 2), 3, 4, 100, 101)),
        "urn:t:age": chance.choice((0, 1, 2, 3, 4, 5, 6)),
        ODRL + "elapsedTime": Since(now - elapsed, now),
        ODRL + "meteredTime": chance.choice([length for length in (0, 1, 24 * hour, 36 * hour, 240 * hour) if length <= elapsed]),
        ODRL + "event urn:t:congress": chance.choice(("before", "during", "after")),
    }
    found = {key: value for key, value in found.items() if key == PARTY or chance.random() < 0.8}
    return {**found, ODRL + "dateTime": now, PARTICIPANT: frozenset({found[PARTY]})}
