"""Terms: what a consumer asks for (those of an offer, narrowed to its own purposes), and how terms relate to the widest that are
acceptable without asking anybody: the choice between yes, a counter-offer, a person, and no. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from connector.odrl import DEFAULT_OPTIONS, PURPOSE, Options, Policy, compare, differences, meet, same_terms, separating

PURPOSE_NAMES = frozenset({PURPOSE, "odrl:purpose"})


@dataclass(frozen=True, slots=True)
class Settlement:
    """How terms relate to an envelope: `refines` (they lie within it), `overlaps`, `disjoint`, `undecided`.

    `common` is what both have in common, as a policy for an offer, where they overlap; `says` are the differences, one sentence for each
    axis, or what separates the two, or what could not be decided.
    """

    kind: Literal["refines", "overlaps", "disjoint", "undecided"]
    common: Mapping[str, Any] | None = None
    says: tuple[str, ...] = ()


def settle(terms: Policy, envelope: Policy, *, party: str, target: str, options: Options = DEFAULT_OPTIONS) -> Settlement:
    """Relate `terms` to `envelope`, both as far as they are about `party` and the asset `target`: an offer for several participants
    is accepted by one of them, and whoever asks may leave out what goes without saying.

    Where the envelope is the narrower of the two it is itself what they have in common, in the words of its author.
    """
    if same_terms(terms, envelope):
        return Settlement("refines")
    asked, widest = _about(terms, party, target), _about(envelope, party, target)
    verdict = compare(asked, widest, options=options)
    if verdict.refines == "yes":
        return Settlement("refines", says=tuple(differences(envelope, terms)))
    if verdict.compatible == "no":
        apart = separating(asked, widest, options=options)
        return Settlement("disjoint", says=(apart.sentence if apart else verdict.reasons.get("compatible", ""),))
    if "unknown" in (verdict.refines, verdict.compatible):
        return Settlement("undecided", says=tuple(dict.fromkeys(verdict.reasons.values())))
    if verdict.refined_by == "yes":
        common = envelope.document
        return Settlement("overlaps", common if isinstance(common, Mapping) else None, tuple(differences(terms, envelope)))
    met = meet(asked, widest, options=options)
    if met.document is None:
        return Settlement("undecided", says=(met.reason,))
    names = {"target"} | (set() if envelope.assignees else {"assignee"})
    return Settlement("overlaps", {name: value for name, value in met.document.items() if name not in names}, met.from_first)


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
