"""Terms: what a consumer asks for (those of an offer, narrowed to its own purposes), and how terms relate to the widest that are
acceptable without asking anybody: the choice between yes, a counter-offer, a person, and no. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Literal

import orjson

from connector.errors import PolicyError
from connector.metering_bills.budgets import tallies
from connector.metering_bills.plans import terms_of
from connector.odrl import DEFAULT_OPTIONS, PURPOSE, Options, Policy, differences, load, same_terms
from connector.odrl.model import Constraint, Rule, constraints_of
from connector.odrl.operands import timeless
from connector.odrl_compare.comparing import Comparison
from connector.odrl_compare.covering import described
from connector.odrl_compare.meeting import met, separated
from connector.odrl_compare.terms import told_alike
from connector.odrl_compare.wording import changes, rule_meaning
from connector.odrl_reading.declaration import purposes_of
from connector.remembered import Remembered
from connector.values import Value, replace

OTHER_PRICES = "the prices are not those that are acceptable without asking"
MORE_TO_PAY = "they permit more than was asked for, and what is used is paid for"
STEPS, MORE_STEPS = 7_000, 5_000  # of a comparison, and of the terms that are made of it: together some 25 ms of the loop
NAMES = ("request", "offer")  # how a reason speaks of the two
PURPOSE_NAMES = frozenset({PURPOSE, "odrl:purpose"})
# The left operands that ask something of a stream itself: how it is metered, how requests for it are proven.
DEMANDING = frozenset({"https://w3id.org/qiao/v1/metering", "https://w3id.org/qiao/v1/possession"})


class Settlement(Value):
    """How terms relate to an envelope: `refines` (they lie within it), `overlaps`, `disjoint`, `undecided`.

    `says` is what the terms say otherwise than the envelope, one sentence for each axis, or what separates the two, or what could not be
    decided. Where they overlap, `common` is what both have in common, as a policy for an offer, and `instead` what that says otherwise than
    the terms.
    """

    kind: Literal["refines", "overlaps", "disjoint", "undecided"]
    says: tuple[str, ...] = ()
    common: Mapping[str, Any] | None = None
    instead: tuple[str, ...] = ()


AGREEMENT = frozenset({"@id", "@type", "target", "assigner", "assignee", "timestamp", "permission", "prohibition", "obligation"})
OWN_ID = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ALIKE_MAX, ALIKE_BYTES_MAX = 1_000, 8 << 20
COMPUTED_ALIKE = (purposes_of, tallies, timeless)  # what is computed from the rules alone, and kept with a policy


class Alike:
    """Reads policies by `load`, and of agreements that differ in nothing but their id and time only the first: what both mean is the same
    rules. `size_bytes` is what a policy takes in memory, for its leaves and the bytes of its document."""

    def __init__(self, options: Options, size_bytes: Callable[[int, int], int]) -> None:
        self._options, self._size_bytes = options, size_bytes
        self._kept: Remembered[bytes, Policy] = Remembered(ALIKE_MAX, ALIKE_BYTES_MAX)

    def load(self, document: Mapping[str, Any]) -> Policy:
        """Raises PolicyError as `load`."""
        id, at = document.get("@id"), document.get("timestamp")
        # Anything that is not plain is read by its words: other properties, an id that stands in the rules, or in what is said of them.
        plain = document.keys() <= AGREEMENT and document.get("@type") == "Agreement"
        if not plain or not isinstance(id, str) or not OWN_ID.fullmatch(id) or not isinstance(at, str) or not at:
            return load(document, options=self._options)
        text = orjson.dumps({**document, "@id": None, "timestamp": None}, option=orjson.OPT_SORT_KEYS)
        if id.encode() in text:
            return load(document, options=self._options)
        key = blake2b(text, digest_size=32).digest()
        if (known := self._kept.get(key)) is not None:
            again = replace(known, id=id, timestamp=at, document=document)
            again.memo[Alike] = key
            again.memo.update((what, known.memo[what]) for what in COMPUTED_ALIKE if what in known.memo)
            return again
        policy = load(document, options=self._options)
        said = repr(policy.findings)
        if id not in said and at not in said:
            policy.memo[Alike] = key
            self._kept.put(key, policy, self._size_bytes(policy.leaves + len(policy.findings), len(text)))
        return policy


def alike_of(policy: Policy) -> bytes | None:
    """A digest that is equal for agreements that differ in nothing but their id and time. None for every other policy."""
    known: bytes | None = policy.memo.get(Alike)
    return known


def naming(said: Mapping[str, Any], id: str) -> tuple[str, ...]:
    """The members of what was said in which that id stands."""
    text = id.encode()
    return tuple(name for name, value in said.items() if text in orjson.dumps(value))


def demands(policy: Policy | PolicyError) -> frozenset[str]:
    """What terms demand of a stream, as IRIs, known here or not. What stands in a branch of a choice counts as demanded."""
    if isinstance(policy, PolicyError):
        return frozenset()
    known: frozenset[str] | None = policy.memo.get(demands)
    if known is None:
        demanding = (leaf for leaf in constraints_of(policy) if isinstance(leaf, Constraint) and leaf.operand in DEMANDING)
        known = policy.memo[demands] = frozenset(value for leaf in demanding for value in leaf.expected)
    return known


def settle(terms: Policy, envelope: Policy, *, party: str, target: str, options: Options = DEFAULT_OPTIONS) -> Settlement:
    """Relate `terms` to `envelope`, both as far as they are about `party` and the asset `target`: an offer for several participants
    is accepted by one of them, and whoever asks may leave out what goes without saying.

    Where the envelope is the narrower of the two it is itself what they have in common, in the words of its author. What would be agreed on
    has the prices of the envelope, or a person decides: a duty to pay for the units of a band alone is narrower as a duty, and cheaper.
    """
    found = _settled(terms, envelope, party, target, options)
    if found.kind == "refines" and terms_of(terms) != terms_of(envelope):
        return Settlement("undecided", says=(OTHER_PRICES, *found.says))
    if found.common is not None and found.common is not envelope.document and not _priced_as(envelope, found.common, options):
        return Settlement("undecided", says=(OTHER_PRICES, *found.says))
    return found


def _priced_as(envelope: Policy, common: Mapping[str, Any], options: Options) -> bool:
    """Whether what two policies have in common, as an offer without its id, has the prices of the one."""
    return terms_of(load({**common, "@id": "urn:qiao:common"}, options=options)) == terms_of(envelope)


def _settled(terms: Policy, envelope: Policy, party: str, target: str, options: Options) -> Settlement:
    asked, widest = _about(terms, party, target), _about(envelope, party, target)
    alike = told_alike(terms, envelope, options=options)
    if alike is None and not _about_the_same(asked, widest):
        alike = same_terms(terms, envelope, options=options)
    if alike:
        return Settlement("refines")
    # One for all questions: what two policies permit is found once.
    comparison = Comparison(asked, widest, options, steps=STEPS, names=NAMES)
    verdict = comparison.verdict()
    if verdict.refines == "yes":
        # They may be the same to this party and not to another: then it is still told what is left out.
        said = changes(envelope, terms) if alike is False or verdict.refined_by == "no" else []
        return Settlement("refines", says=tuple(said or differences(envelope, terms, options=options)))
    if verdict.compatible == "no":
        return Settlement("disjoint", says=(separated(comparison).sentence,))
    if "unknown" in (verdict.refines, verdict.compatible):
        return Settlement("undecided", says=tuple(dict.fromkeys(verdict.reasons.values())))
    if verdict.refined_by == "yes":
        common = envelope.document
        instead = tuple(changes(terms, envelope)) or (verdict.reasons["refines"],)
    else:
        found = met(comparison, steps=MORE_STEPS)
        if found.document is None:
            return Settlement("undecided", says=(found.reason,))
        names = {"target"} | (set() if envelope.assignees else {"assignee"})
        common, instead = {name: value for name, value in found.document.items() if name not in names}, found.from_first
    asks = tuple(changes(envelope, terms)) or (verdict.reasons["refines"],)
    return Settlement("overlaps", asks, common if isinstance(common, Mapping) else None, instead)


def _about_the_same(asked: Policy, widest: Policy) -> bool:
    """Whether two policies that have the same terms, whoever they name, permit the same: no rule of them is about something of its own."""
    rules = (*asked.permissions, *asked.prohibitions, *widest.permissions, *widest.prohibitions)
    alike = (asked.target, asked.assignees) == (widest.target, widest.assignees)
    return alike and not any(rule.targets or rule.assignees for rule in rules)


def burdens(terms: Policy, accepted: Policy, own: str) -> tuple[str, ...]:
    """What `terms` oblige `own` to do and `accepted` does not say: who takes on a duty grants nothing, and still is bound by it."""
    known = {rule_meaning(duty) for duty in _owed(accepted, own)}
    return tuple(f"they add {described(duty)}" for duty in _owed(terms, own) if rule_meaning(duty) not in known)


def _owed(policy: Policy, own: str) -> Iterator[Rule]:
    for duty in (*(duty for rule in (*policy.permissions, *policy.prohibitions) for duty in rule.duties), *policy.obligations):
        if not duty.assignees or any(scope.id == own for scope in duty.assignees):
            yield duty


def _about(policy: Policy, party: str, target: str) -> Policy:
    parties = policy.assignees
    return replace(
        policy,
        target=policy.target or target,
        assignees=frozenset({party}) if not parties or party in parties else parties,
    )


def with_purposes(policy: Mapping[str, Any], purposes: tuple[str, ...]) -> dict[str, Any]:
    """The policy with every purpose constraint of its permissions set to `purposes`; a permission that leaves the purpose
    open gets one. Values keep the form (string or IRI) that the offer uses for them."""
    if not purposes:
        return dict(policy)
    return dict(policy) | {"permission": [_narrowed(rule, purposes) for rule in policy.get("permission", ())]}


def _narrowed(rule: Mapping[str, Any], purposes: tuple[str, ...]) -> dict[str, Any]:
    constraints = list(rule.get("constraint", ()))
    own = [c for c in constraints if c.get("leftOperand") in PURPOSE_NAMES]
    forms = {_text(v): v for c in own for v in _listed(c.get("rightOperand", []))}
    values = [forms.get(p, p) for p in purposes]
    wanted = {
        "leftOperand": "odrl:purpose",
        "operator": "isAnyOf" if len(values) > 1 else "eq",
        "rightOperand": values if len(values) > 1 else values[0],
    }
    return dict(rule) | {"constraint": [c for c in constraints if c not in own] + [wanted]}


def _listed(operand: Any) -> list[Any]:
    return operand if isinstance(operand, list) else [operand]


def _text(value: Any) -> str:
    return str(value.get("@id") or value.get("@value")) if isinstance(value, Mapping) else str(value)
