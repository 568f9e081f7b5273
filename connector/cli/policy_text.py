"""An ODRL policy in one line for people. It shows what the document says, and by whom each condition is held; it decides nothing."""

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
NOBODY = "not checked"  # who holds a condition that is not understood
DEPTH = 8  # of nested conditions that are shown; a policy that the connector takes is flatter
REFINEMENTS = ("refinement", "odrl:refinement")  # of an action
UNITS = ("unit", "odrl:unit")  # of a number
ACTIONS = ("http://www.w3.org/1999/02/22-rdf-syntax-ns#value", "rdf:value")  # what is refined
PAY, AMOUNT, UNIT = "compensate", "payAmount", "unitOfCount"  # a price
COUNTED = ("https://w3id.org/qiao/v1/", "qiao:")  # a unit of another namespace is another unit, whatever its name ends with
RULES = (("permission", ""), ("prohibition", "must not "), ("obligation", "must "), ("duty", "must "))


def labelled(policy: Mapping[str, Any]) -> str:
    """`summary` with who holds each condition, as in: use, if purpose is research [declared]."""
    from connector.app_settings import held_by

    return summary(policy, held_by(policy))


def summary(policy: Mapping[str, Any], held: Mapping[str, str] | None = None) -> str:
    """All rules of a policy, as in: use, if purpose is research; must delete. With `held` (path -> word) each condition says by whom it
    is held; one whose path is not there is nobody's."""
    lines = [f"{prefix}{_rule(rule, path, held)}" for member, prefix in RULES for path, rule in _places(policy.get(member), f"/{member}")]
    return "; ".join(lines) or "nothing is permitted"


def _rule(rule: Any, path: str, held: Mapping[str, str] | None) -> str:
    if not isinstance(rule, Mapping):
        return short(rule)
    text = " and ".join(_action(action, place, held) for place, action in _places(rule.get("action"), f"{path}/action")) or "use"
    if said := [_condition(each, place, held, DEPTH) for place, each in _places(rule.get("constraint"), f"{path}/constraint")]:
        text += f", if {' and '.join(said)}"
    if duties := [_rule(duty, place, held) for place, duty in _places(rule.get("duty"), f"{path}/duty")]:
        text += f", and then must {' and '.join(duties)}"
    return text


def _action(action: Any, path: str, held: Mapping[str, str] | None) -> str:
    """An action with what refines it: of a duty to pay that is the price."""
    if not isinstance(action, Mapping):
        return short(action)
    name = short(next((action[key] for key in ACTIONS if key in action), action))
    parts = [found for member in REFINEMENTS for found in _places(action.get(member), f"{path}/{member}")]
    if name == PAY:
        name, parts = _price(name, parts, held)
    said = [_condition(each, place, held, DEPTH) for place, each in parts]
    return f"{name} ({' and '.join(said)})" if said else name


def _price(name: str, parts: list[tuple[str, Any]], held: Mapping[str, str] | None) -> tuple[str, list[tuple[str, Any]]]:
    """What is paid for each of a unit that we count, and what else refines it; as they are where they are no price."""
    exact = {short(each.get("leftOperand")): at for at, (_, each) in enumerate(parts) if isinstance(each, Mapping) and _equals(each)}
    if not exact.keys() >= {AMOUNT, UNIT}:
        return name, parts
    place, amount = parts[exact[AMOUNT]]
    unit = value.get("@id") if isinstance(value := parts[exact[UNIT]][1].get("rightOperand"), Mapping) else value
    if not isinstance(unit, str) or not unit.startswith(COUNTED):
        return name, parts
    text = f"pay {_right(amount)} for each {short(unit)}"
    rest = [part for at, part in enumerate(parts) if at not in (exact[AMOUNT], exact[UNIT])]
    return text if held is None else f"{text} [{held.get(place, NOBODY)}]", rest


def _equals(condition: Mapping[str, Any]) -> bool:
    return short(condition.get("operator")) == "eq"


def _right(condition: Mapping[str, Any]) -> str:
    """The value of a condition, with its unit."""
    return " ".join((short(condition.get("rightOperand")), *(short(condition[member]) for member in UNITS if member in condition)))


def _condition(condition: Any, path: str, held: Mapping[str, str] | None, depth: int) -> str:
    if not isinstance(condition, Mapping) or depth == 0:
        return "..."
    for name, word in LOGICAL.items():
        if name in condition:
            inner, below = condition[name], f"{path}/{name}"
            if isinstance(inner, Mapping):
                inner, below = inner.get("@list", []), f"{below}/@list"
            return f"({word.join(_condition(part, place, held, depth - 1) for place, part in _places(inner, below))})"
    operator = short(condition.get("operator"))
    text = f"{short(condition.get('leftOperand'))} {OPERATORS.get(operator, operator)} {_right(condition)}"
    return text if held is None else f"{text} [{held.get(path, NOBODY)}]"


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


def _places(value: Any, path: str) -> list[tuple[str, Any]]:
    """Each of several values with its pointer; one value stands where they would."""
    return (
        [(f"{path}/{number}", each) for number, each in enumerate(value)] if isinstance(value, list) else [(path, v) for v in _many(value)]
    )


def _many(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
