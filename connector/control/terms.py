"""What a consumer asks for: the terms of an offer, narrowed to its own purposes. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.odrl import PURPOSE

PURPOSE_NAMES = frozenset({PURPOSE, "odrl:purpose"})


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
