"""Policies with everything that ODRL has, requests and worlds that meet them often, drawn from a seed: for `tests.odrl.naive`, and as the
engine takes them.

What is asked has party, action, target, stage, and the values of the act by the bare name of their operand. A world has `now`, `facts` by
name, `used` by operand or (path of a rule, operand), `anchors`, a `log` of acts (None: nobody keeps one) and the `uses` among them, the
states of `duties`, the `collections` of things, and what concepts lie `below`, what places are `part` of.
"""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

from connector.odrl import Event, Operand, Options, Profile, Request, Vocabulary, World
from connector.odrl.registry import CONCEPT
from tests.odrl import naive

Json = dict[str, Any]
ODRL = "http://www.w3.org/ns/odrl/2/"
W3C_CONTEXT = "http://www.w3.org/ns/odrl.jsonld"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MEMBER = "https://example.org/ns#member"

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
PARTIES = ("did:web:a.example", "did:web:b.example")
GROUP = "urn:g:partners"
ASSETS = ("urn:d:1", "urn:d:2")
SERIES = "urn:s:all"
PURPOSES = ("urn:p:health", "urn:p:cancer", "urn:p:ads")
BELOW = {"urn:p:cancer": ("urn:p:health",)}
PLACES = ("urn:l:eu", "urn:l:de", "urn:l:us")
PART = {"urn:l:de": ("urn:l:eu",)}
MEMBERS = ("urn:m:gold", "urn:m:silver")
EUR = "urn:x:EUR"
DAYS = ("2026-06-14Z", "2026-06-15Z", "2026-06-16Z", "2026-06-15")
INSTANTS = ("2026-06-15T12:00:00Z", "2026-06-15T14:00:00+02:00", "2026-06-15T11:59:59.999999Z", "2026-06-15T12:00:01Z")
SPANS = ("P1M", "P30D", "P1D", "PT12H")
ACTIONS = ("use", "use", "use", "read", "play", "display", "distribute", "sell")
DUTIES = ("compensate", "obtainConsent", "anonymize", "delete", "inform")
ORDERS = ("eq", "neq", "lt", "lteq", "gt", "gteq", "isAnyOf", "isNoneOf", "isAllOf")
BOUNDS = ("eq", "lt", "lteq", "gt", "gteq")
CONCEPTS = ("eq", "neq", "isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart")
LISTS = frozenset({"isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart"})

VOCABULARY = Vocabulary("urn:v", BELOW, PART)
PROFILE = Profile(
    "urn:profile", operands=(Operand(MEMBER, "member", "", "term", "subject", CONCEPT, "claims", "verified"),), vocabulary=VOCABULARY
)
OPTIONS = {
    (conflict, strict): Options(conflict=conflict, duty_mode="strict" if strict else "solid", profiles=(PROFILE,))  # type: ignore[arg-type]
    for conflict in ("prohibit", "permit")
    for strict in (True, False)
}


class Drawing:
    """One policy and what is asked of it. `spread` is the chance of what narrows a rule."""

    def __init__(self, chance: Random, plain: bool = False) -> None:
        self.chance, self.pick = chance, chance.choice
        self.often = chance.random
        self.odrl = self.often() < 0.6
        self.owed = ["read"]
        self.paying = False  # in a duty to pay: of these an amount paid is no condition (`odrl_reading.payments`)
        self.plain = plain  # duties of one action on one target, whose times all count

    # documents

    def spelled(self, word: str) -> str:
        """A term of ODRL by one of its spellings; in the dialect of DSP none of them is bare."""
        return self.pick((word, f"odrl:{word}", ODRL + word) if self.odrl else (f"odrl:{word}", ODRL + word))

    def term(self, value: str) -> object:
        return self.pick((value, {"@id": value}, {"@value": value, "@type": "xsd:anyURI"}))

    def amount(self, value: str) -> object:
        return self.pick((value, {"@value": value, "@type": "xsd:decimal"}))

    def leaf(self, place: str) -> Json:
        """`place` is `rule`, `act` (a refinement) or `duty`."""
        kind = self.pick(
            {
                "rule": (
                    "dateTime",
                    "dateTime",
                    "dateTime",
                    "purpose",
                    "purpose",
                    "spatial",
                    "member",
                    "participant",
                    "number",
                    "number",
                    "duration",
                ),
                "act": ("purpose", "spatial", "resolution", "member", "dateTime"),
                "duty": ("dateTime", "dateTime", "dateTime", "purpose", "number", "elapsed"),
                "done": ("resolution", "resolution", "dateTime"),
                "paid": ("paid", "paid", "resolution"),
                "time": ("dateTime",),
                "condition": ("purpose", "number"),
            }[place]
        )
        if kind in ("purpose", "spatial", "member", "participant"):
            pool = {"purpose": PURPOSES, "spatial": PLACES, "member": MEMBERS, "participant": PARTIES}[kind]
            operator = self.pick(CONCEPTS[:4] if kind == "participant" else CONCEPTS)
            left = {"member": MEMBER, "participant": "urn:qiao:participant"}.get(kind) or self.spelled(kind)
            return self.constraint(left, operator, [self.term(value) for value in self.chance.sample(pool, self.pick((1, 1, 2)))])
        operator = self.pick(BOUNDS if place == "time" else ORDERS)
        if kind == "dateTime":
            values = [
                {"@value": one, "@type": "xsd:dateTime" if "T" in one else "xsd:date"} for one in self.chance.sample(DAYS + INSTANTS, 2)
            ]
            return self.constraint(self.spelled(kind), operator, values)
        if kind == "elapsed":
            return self.constraint(self.spelled("elapsedTime"), operator, list(self.chance.sample(SPANS, 2)))
        if kind == "duration":
            name = self.pick(("elapsedTime", "timeInterval", "meteredTime"))
            return self.constraint(self.spelled(name), operator, list(self.chance.sample(SPANS[1:] if name == "meteredTime" else SPANS, 2)))
        name = {"paid": "payAmount"}.get(kind, kind) if kind != "number" else self.pick(("count", "count", "payAmount", "resolution"))
        name = "count" if name == "payAmount" and place in ("duty", "condition") and self.paying else name
        whole = (
            [str(number) for number in self.chance.sample(range(1, 6), 2)]
            if name != "payAmount"
            else [self.pick(("2", "2.5", "-0", "3")), "1"]
        )
        found = self.constraint(self.spelled(name), operator, [self.amount(value) for value in whole])
        if name == "payAmount" and self.often() < 0.5:
            found["unit"] = EUR
        if name == "count" and self.often() < 0.2:
            found["status"] = self.amount(self.pick(("1", "2")))
        return found

    def constraint(self, left: str, operator: str, values: list[Any]) -> Json:
        values = values if operator in LISTS else values[:1]
        right: Any = values if operator in LISTS and (len(values) > 1 or self.often() < 0.5) else values[0]
        return {"leftOperand": left, "operator": self.pick((operator, f"odrl:{operator}", ODRL + operator)), "rightOperand": right}

    def node(self, place: str, depth: int = 0) -> Json:
        if depth == 3 or self.often() < 0.7:
            return self.leaf(place)
        kind = self.pick(("and", "or", "or", "xone", "andSequence"))
        if kind == "andSequence" and place == "rule" and self.often() < 0.4:
            begin = self.constraint(self.spelled("dateTime"), "gteq", [self.pick(DAYS + INSTANTS)])
            return {kind: {"@list": [begin, self.constraint(self.spelled("delayPeriod"), self.pick(("gteq", "gt")), [self.pick(SPANS)])]}}
        parts = [self.node(place, depth + 1) for _ in range(self.pick((1, 2, 2, 3)))]
        return {kind: {"@list": parts} if kind == "andSequence" else parts}

    def nodes(self, place: str, counts: tuple[int, ...]) -> list[Json]:
        return [self.node(place) for _ in range(self.pick(counts))]

    def action(self, pool: tuple[str, ...], place: str = "act") -> object:
        word = self.spelled(self.pick(pool))
        if self.often() < (0.8 if place == "act" else 0.6):
            return word if "use" not in word or self.often() < 0.5 else "use"
        place = "paid" if place == "done" and word.endswith("compensate") and self.often() < 0.7 else place
        return {"rdf:value": {"@id": word}, "refinement": self.nodes(place, (1, 1, 2))}

    def thing(self, name: str, pool: tuple[str, ...], collection: str) -> object:
        if self.often() < 0.6:
            return self.pick(pool)
        narrowed = {"refinement": self.nodes("act", (1,))} if self.often() < 0.4 else {}
        if self.often() < 0.5:
            return {"@type": f"{name}Collection", "source": collection, **narrowed}
        return {"@type": f"{name}Collection", "@id": collection}

    def several(self, draw: Callable[[], object]) -> object:
        return draw() if self.often() < 0.8 else [draw(), draw()]

    def plain_condition(self) -> Json:
        return self.leaf("time") if self.often() < 0.6 else self.node("condition")

    def duty(self, deep: bool = True) -> Json:
        several = (lambda draw: draw()) if self.plain else self.several
        found: Json = {"action": several(lambda: self.action(DUTIES, "done"))}
        names = [naive.text(action) for action in naive.of(found, "action")]
        self.owed.extend(names)
        self.paying = "compensate" in names
        if self.often() < 0.6:
            draw = self.plain_condition if self.plain else lambda: self.node("duty")
            found["constraint"] = [draw() for _ in range(self.pick((1, 1, 2)))]
        if deep and self.often() < 0.4:
            found["consequence"] = [self.duty(False) for _ in range(self.pick((1, 1, 2)))]
        if self.often() < 0.1:
            found["target"] = several(lambda: self.thing("Asset", ASSETS, SERIES))
        if self.often() < 0.1:
            found["assignee"] = self.thing("Party", PARTIES, GROUP)
        return found

    def rule(self, kind: str) -> Json:
        found: Json = {"action": self.several(lambda: self.action(ACTIONS))}
        if constraints := self.nodes("rule", (0, 0, 0, 0, 1, 1, 2) if kind == "permission" else (0, 1, 2, 2, 3)):
            found["constraint"] = constraints
        if self.often() < 0.2:
            found["assignee"] = self.several(lambda: self.thing("Party", PARTIES, GROUP))
        if self.odrl and self.often() < 0.15:
            found["target"] = self.several(lambda: self.thing("Asset", ASSETS, SERIES))
        if kind == "permission" and self.often() < 0.3:
            found["duty"] = [self.duty() for _ in range(self.pick((1, 1, 2)))]
        if kind == "prohibition" and self.often() < 0.2:
            found["remedy"] = [self.duty(False)]
        return found

    def policy(self) -> Json:
        found: Json = {"@id": "urn:o:1", "@type": "Set" if self.odrl else "Offer", "target": self.pick((*ASSETS[:1] * 4, SERIES))}
        found["permission"] = [self.rule("permission") for _ in range(self.pick((1, 2, 2, 3)))]
        if prohibitions := [self.rule("prohibition") for _ in range(self.pick((0, 0, 0, 0, 1, 1, 2)))]:
            found["prohibition"] = prohibitions
        if self.often() < 0.15:
            found["obligation"] = [self.duty()]
        if self.often() < 0.2:
            found["conflict"] = self.spelled(self.pick(("perm", "prohibit")))
        if self.odrl and self.often() < 0.1:
            found["assignee"] = self.pick((PARTIES[0], GROUP))
        return {"@context": W3C_CONTEXT, **found} if self.odrl else in_words_of_dsp(found)

    # what is asked, and what is so

    def asked(self) -> Json:
        found: Json = {
            "party": PARTIES[self.often() < 0.2],
            "target": self.pick((*ASSETS[:1] * 6, ASSETS[1])),
            "action": self.pick(ACTIONS[:6]),
        }
        found["stage"] = self.pick(("transfer", "transfer", "negotiation", "catalog"))
        for name, pool in (("purpose", PURPOSES), ("spatial", PLACES)):
            found[name] = self.chance.sample(pool, self.pick((0, 1, 1, 1, 2)))
        return found

    def event(self, now: datetime) -> Json:
        found: Json = {"dateTime": now - self.pick((-HOUR, 0 * DAY, timedelta(microseconds=1), HOUR, DAY, 5 * DAY)), "duty": ""}
        found |= {"action": self.pick(self.owed), "party": self.pick(PARTIES), "target": self.pick(ASSETS)}
        if self.often() < 0.15:
            found["duty"] = self.pick(("/permission/0/duty/0", "/obligation/0", "/permission/1/duty/0", "urn:none"))
        if self.often() < 0.5:
            found["resolution"] = Fraction(self.pick((1, 2, 3, 4)))
        if self.often() < 0.3:
            found[self.pick(("payAmount", f"payAmount {EUR}"))] = Fraction(self.pick(("1", "2", "2.5", "3")))
        return found

    def world(self) -> Json:
        steps = (
            0 * DAY,
            0 * DAY,
            timedelta(microseconds=-1),
            timedelta(microseconds=1),
            timedelta(seconds=1),
            -DAY,
            DAY / 2,
            5 * DAY * self.often(),
        )
        now = NOW + self.pick(steps)
        found: Json = {"now": now, "below": BELOW, "part": PART, "facts": {}, "used": {}, "anchors": {}, "duties": {}, "log": None}
        if self.often() < 0.8:
            found["facts"]["member"] = set(self.chance.sample(MEMBERS, self.pick((1, 1, 2))))
        if self.often() < 0.8:
            found["facts"]["resolution"] = Fraction(self.pick((1, 2, 3, 4, 5)))
        for name, most in (("count", 5), ("payAmount", 3), (f"payAmount {EUR}", 3), ("meteredTime", 2 * 86_400_000_000)):
            if self.often() < 0.7:
                found["used"][name] = self.chance.randint(0, most)
            if self.often() < 0.2:
                found["used"][self.pick(("/permission/0", "/permission/1", "/prohibition/0")), name] = self.chance.randint(0, most)
        for name in ("elapsedTime", "timeInterval"):
            if self.often() < 0.7:
                found["anchors"][name] = now - self.pick((0 * DAY, HOUR, DAY, 31 * DAY, 30 * DAY))
        if self.often() < 0.5:
            found["log"] = [self.event(now) for _ in range(self.pick((1, 2, 4, 8)))]
        if self.often() < 0.1:
            states = ("inactive", "pending", "fulfilled", "overdue", "remediated")
            found["duties"][self.pick(("/permission/0/duty/0", "/obligation/0"))] = self.pick(states)
        found["uses"] = found["log"] and [event for event in found["log"] if event["action"] not in DUTIES]
        found["collections"] = {thing: {where} for thing, where in ((PARTIES[0], GROUP), (ASSETS[0], SERIES)) if self.often() < 0.8}
        return found


def in_words_of_dsp(document: Json) -> Json:
    """The same in the words of the DSP context: what it does not define bare has its prefix, and arrays are written where it asks for
    them."""
    bare = {"permission", "prohibition", "obligation", "duty", "constraint", "and", "or", "xone", "andSequence"}
    words = {*bare, "target", "assignee", "action", "leftOperand", "operator", "rightOperand"}

    def written(node: Any) -> Any:
        if isinstance(node, list):
            return [written(one) for one in node]
        if not isinstance(node, dict):
            return node
        return {key if key in words or key[0] == "@" or ":" in key else f"odrl:{key}": written(value) for key, value in node.items()}

    return dict(written(deepcopy(document)))


def with_payments_as_conditions(node: Any, chance: Random) -> Any:
    """The same, where some duties to pay say how much in a constraint of their own, and not in a refinement of the action."""
    if isinstance(node, list):
        return [with_payments_as_conditions(one, chance) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: with_payments_as_conditions(value, chance) for key, value in node.items()}
    action = found.get("action")
    if isinstance(action, dict) and naive.text(action) == "compensate" and chance.random() < 0.5:
        name = "refinement" if "refinement" in action else "odrl:refinement"
        paid = [one for one in action[name] if {naive.text(leaf["leftOperand"]) for leaf in naive.leaves([one])} == {"payAmount"}]
        left = [one for one in action[name] if one not in paid]
        found["action"] = {**action, name: left} if left else action["rdf:value"]
        if paid:
            found["constraint"] = [*found.get("constraint", []), *paid]
    return found


def as_request(asked: Json, chance: Random) -> Request:
    """The request of the engine; the operands by one of their spellings."""
    params = {chance.choice(("odrl:", ODRL)) + name: tuple(asked[name]) for name in ("purpose", "spatial") if asked[name]}
    action = chance.choice((f"odrl:{asked['action']}", ODRL + asked["action"]))
    return Request(asked["party"], action, asked["target"], params, asked["stage"])


def as_event(event: Json) -> Event:
    amounts = {ODRL + name: event[name] for name in ("resolution", "payAmount", f"payAmount {EUR}") if name in event}
    return Event(event["dateTime"], f"odrl:{event['action']}", event["party"], event["target"], {}, amounts, event["duty"])


def as_world(world: Json) -> World:
    facts = {MEMBER: tuple(world["facts"]["member"])} if "member" in world["facts"] else {}
    if "resolution" in world["facts"]:
        facts["odrl:resolution"] = (str(world["facts"]["resolution"]),)
    return World(
        world["now"],
        facts,
        {ODRL + name: at for name, at in world["anchors"].items()},
        {ODRL + key if isinstance(key, str) else (key[0], ODRL + key[1]): number for key, number in world["used"].items()},
        None if world["log"] is None else tuple(as_event(event) for event in world["log"]),
        world["duties"],
        {thing: frozenset(where) for thing, where in world["collections"].items()},
    )
