"""Policies of every kind, drawn from a seed: each form of a rule, a party, a duty and a condition that the engine knows."""

from dataclasses import fields, is_dataclass
from random import Random
from typing import Any

from msgspec import Struct, structs

from connector.odrl.registry import Operand, Registry
from connector.odrl.vocabulary import INCLUDED_IN, ODRL
from connector.odrl_reading.parse import FUNCTIONS

RDF_VALUE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"
TEXTS = (
    "research", "two words", "and", "as", "unit", "with", "anything", "{a}", "a, b", '"quoted"', "back\\slash", "urn", "<angle>", "#hash",
    "ex:a", "odrl:use", "目的", "two  spaces", "under_score", "in", "this", "used", "7", "2026-12-31", "at", "most", "not", "-", "it's",
    "\u3000", "é",
)  # fmt: skip
IRIS = (
    "https://w3id.org/dpv#Marketing", "urn:x:y", "https://things.example/a,b", "https://things.example/a(b)c;d", "did:web:a.example",
    "http://www.w3.org/ns/odrl/2/policyUsage", "https://hds.example/ns/1.0#Granted", "urn:a b", "mailto:x@y.example", "https://x.example/#",
)  # fmt: skip
INSTANTS = ("2026-12-31Z", "2026-12-31", "2026-01-01+08:00", "2026-06-30T16:00:00Z", "2026-06-30T16:00", "2026-06-30T16:00:00.5-05:00")
LENGTHS = ("P30D", "P1D", "P6M", "P1Y6M", "PT12H", "PT1H30M", "P0D", "PT0.5S", "P2W")
NUMBERS = ("1", "0", "100", "0.5", "12.50", "1e3", ".25", "+7", "99999999999999999999")
LISTS = ("isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart")


def meaning(of: Any) -> Any:
    """What a policy says, without where it stood in its document, how long that was and what was doubtful in it."""
    if is_dataclass(of):
        skipped = {"path", "leaves", "findings"}
        return (type(of).__name__, *((f.name, meaning(getattr(of, f.name))) for f in fields(of) if f.compare and f.name not in skipped))
    if isinstance(of, Struct):
        return (type(of).__name__, *map(meaning, structs.astuple(of)))
    return tuple(meaning(part) for part in of) if isinstance(of, tuple) else of


class Drawing:
    """Draws trees in the dialect of the W3C's context, where everything can be said."""

    def __init__(self, seed: int, registry: Registry) -> None:
        self.chance, self.registry = Random(seed), registry
        self.operands = sorted({row.iri: row for row in registry.operands.values()}.values(), key=lambda row: row.iri)
        self.actions = sorted({*INCLUDED_IN, *registry.within})
        self.named: set[str] = set()

    def policy(self) -> dict[str, Any]:
        chance = self.chance
        tree: dict[str, Any] = {
            "@context": "http://www.w3.org/ns/odrl.jsonld",
            "@type": chance.choice(("Set", "Offer", "Agreement", "Request")),
        }
        self.maybe(tree, "uid", self.own)
        self.maybe(tree, "target", self.name)
        self.maybe(tree, "assigner", self.name)
        self.maybe(tree, "assignee", lambda: [self.name() for _ in range(chance.randint(1, 3))])
        self.maybe(tree, "timestamp", lambda: "2026-01-01T00:00:00Z")
        self.maybe(tree, "profile", lambda: [sorted(self.registry.profiles)[0]])
        self.maybe(tree, "conflict", lambda: chance.choice(("perm", "prohibit", "invalid")))
        tree["permission"] = [self.rule("duty") for _ in range(chance.randint(1, 2))]
        self.maybe(tree, "prohibition", lambda: [self.rule("remedy")])
        self.maybe(tree, "obligation", lambda: [self.duty("consequence")])
        return tree

    def maybe(self, tree: dict[str, Any], key: str, make: Any, odds: float = 0.4) -> None:
        if self.chance.random() < odds:
            tree[key] = make()

    def name(self) -> str:
        return self.chance.choice([text for text in (*IRIS, *TEXTS, "did:web:b.example", "urn:ds:42") if text.isprintable()])

    def own(self) -> str:
        """A name that nothing else of the policy has."""
        self.named.add(name := next((name for name in (self.name() for _ in range(9)) if name not in self.named), f"urn:{len(self.named)}"))
        return name

    def rule(self, below: str) -> dict[str, Any]:
        rule: dict[str, Any] = {}
        self.maybe(rule, "action", lambda: [self.action() for _ in range(self.chance.randint(1, 2))], 0.9)
        self.maybe(rule, "uid", self.own, 0.2)
        self.maybe(rule, "target", lambda: [self.scope("Asset") for _ in range(self.chance.randint(1, 2))], 0.3)
        self.maybe(rule, "assigner", lambda: self.scope("Party"), 0.1)
        self.maybe(rule, "assignee", lambda: [self.scope("Party")], 0.3)
        self.maybe(rule, "constraint", lambda: [self.condition(0) for _ in range(self.chance.randint(1, 3))], 0.8)
        if rule.keys() <= {"uid"}:  # it would only name a rule
            rule["action"] = ["use"]
        if below:
            self.maybe(rule, below, lambda: [self.duty("consequence" if below == "duty" else "")], 0.4)
        return rule

    def duty(self, below: str) -> dict[str, Any]:
        duty = self.rule(below)
        self.maybe(duty, self.chance.choice(FUNCTIONS), self.name)
        return duty

    def action(self) -> Any:
        action = self.chance.choice(self.actions)
        if self.chance.random() < 0.8:
            return action
        return {RDF_VALUE: {"@id": action}, "refinement": [self.condition(1)]}

    def scope(self, what: str) -> Any:
        if self.chance.random() < 0.6:
            return self.name()
        scope: dict[str, Any] = {"@type": f"{what}Collection", "source": self.name()}
        self.maybe(scope, "refinement", lambda: [self.condition(1)])
        return scope

    def condition(self, depth: int) -> dict[str, Any]:
        if depth < 3 and self.chance.random() < 0.25:
            kind = self.chance.choice(("and", "or", "xone", "andSequence"))
            parts = [self.condition(depth + 1) for _ in range(self.chance.randint(1, 3))]
            node: dict[str, Any] = {kind: {"@list": parts} if kind == "andSequence" else parts}
        else:
            node = self.atom(self.chance.choice(self.operands))
        self.maybe(node, "uid", self.own, 0.1)
        return node

    def atom(self, operand: Operand) -> dict[str, Any]:
        alias = self.registry.aliases.get(operand.iri)
        operator = self.chance.choice(sorted(alias.operators if alias else operand.operators))
        values = [self.value(operand) for _ in range(self.chance.randint(1, 3))]
        right = values if operator in LISTS else values[0]
        left = operand.iri if not operand.iri.startswith(ODRL) else operand.iri[len(ODRL) :]
        node = {"leftOperand": left, "operator": operator, "rightOperand": right}
        if operand.values == "number":
            self.maybe(node, "unit", lambda: {"@id": self.chance.choice(("http://dbpedia.org/resource/Euro", "EUR"))}, 0.2)
            if operand.kind == "counter" and operator not in LISTS:
                self.maybe(node, "status", lambda: {"@value": self.chance.choice(("3", "0.5", "0")), "@type": "xsd:decimal"}, 0.2)
        return node

    def value(self, operand: Operand) -> Any:
        chance = self.chance
        match operand.values:
            case "instant":
                text = chance.choice(INSTANTS)
                return {"@value": text, "@type": "xsd:dateTime" if "T" in text else "xsd:date"}
            case "duration":
                return {"@value": chance.choice(LENGTHS), "@type": "xsd:duration"}
            case "number":
                text = chance.choice(NUMBERS)
                return {"@value": text, "@type": "xsd:integer" if text.lstrip("+").isdecimal() else "xsd:decimal"}
            case "event":
                return {"@id": chance.choice(IRIS)}
        return {"@id": chance.choice(IRIS)} if chance.random() < 0.5 else chance.choice(TEXTS)
