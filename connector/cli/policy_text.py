"""An ODRL policy in one line for people. It shows what the document says and judges nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPERATORS = {
    "eq": "is",
    "neq": "is not",
    "lt": "<",
    "lteq": "<=",
    "gt": ">",
    "gteq": ">=",
    "isAnyOf": "is one of",
    "isNoneOf": "is none of",
    "isAllOf": "is all of",
    "isA": "is a kind of",
    "isPartOf": "is part of",
    "hasPart": "includes",
}
LOGICAL = {"and": " and ", "or": " or ", "xone": " or else ", "andSequence": " and then "}
PREFIXES = ("odrl:", "urn:qiao:")  # of names that are told from others without them
DEPTH = 8  # of nested conditions that are shown; a policy that the connector takes is flatter
RULES = (("permission", ""), ("prohibition", "must not "), ("obligation", "must "), ("duty", "must "))


def summary(policy: Mapping[str, Any]) -> str:
    """All rules of a policy, as in: use, if purpose is research; must delete."""
    lines = [f"{prefix}{_rule(rule)}" for member, prefix in RULES for rule in _many(policy.get(member))]
    return "; ".join(lines) or "nothing is permitted"


def _rule(rule: Any) -> str:
    if not isinstance(rule, Mapping):
        return short(rule)
    text = " and ".join(short(action) for action in _many(rule.get("action"))) or "use"
    if conditions := [_condition(c, DEPTH) for c in _many(rule.get("constraint"))]:
        text += f", if {' and '.join(conditions)}"
    if duties := [_rule(duty) for duty in _many(rule.get("duty"))]:
        text += f", and then must {' and '.join(duties)}"
    return text


def _condition(condition: Any, depth: int) -> str:
    if not isinstance(condition, Mapping) or depth == 0:
        return "..."
    for name, word in LOGICAL.items():
        if name in condition:
            inner = condition[name]
            parts = inner.get("@list", []) if isinstance(inner, Mapping) else inner
            return f"({word.join(_condition(part, depth - 1) for part in _many(parts))})"
    operator = short(condition.get("operator"))
    return f"{short(condition.get('leftOperand'))} {OPERATORS.get(operator, operator)} {short(condition.get('rightOperand'))}"


def short(value: Any) -> str:
    """A value, an operand or an action without its namespace."""
    match value:
        case Mapping():
            return short(next((value[key] for key in ("@value", "@id", "@list", "@type") if key in value), "..."))
        case list():
            return f"[{', '.join(short(item) for item in value)}]"
        case str() if "://" in value or value.startswith(PREFIXES):
            return value.removeprefix("urn:qiao:").removeprefix("odrl:").rstrip("/#").replace("#", "/").rpartition("/")[2] or value
    return str(value)


def _many(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
