"""A policy back to the JSON of the wire: what DSP 2025-1 has a word for under its context, the rest of ODRL with prefixes or in full.

What was read is written by what it means, so that an alias comes out as the operand that it stands for. The words that the DSP context does
not know get the prefix `odrl:`, and a number is typed, because a bare one is not valid in a message (DSP 2025-1, contract schema).
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.model import Action, Constraint, Cut, Lapse, Logic, Node, Number, Rule, Scope, Span, Window, leaves
from connector.odrl.operands import PAY_AMOUNT
from connector.odrl.values import DAY, SECOND, instant
from connector.odrl.vocabulary import ABSOLUTE, compact
from connector.odrl_compare.witness import length_text, number_text

CONFLICTS: Final = {"prohibit": "odrl:prohibit", "permit": "odrl:perm", "invalid": "odrl:invalid"}


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as DSP 2025-1 has it. Raises PolicyError for what has no form there: refined actions and targets of a rule."""
    found: dict[str, Any] = {"@id": rule.id} if rule.id else {}
    found["action"] = _action(rule)
    if rule.targets and rule.kind in ("permission", "prohibition"):
        raise PolicyError(f"{rule.path} has a target of its own, which a rule of DSP 2025-1 cannot have")
    if rule.targets:
        found["target"] = _scopes(rule.targets)
    if rule.assigners and rule.kind not in ("permission", "prohibition"):
        found["assigner"] = _scopes(rule.assigners)
    if rule.assignees:
        found["assignee"] = _scopes(rule.assignees)
    for name, party in rule.functions:
        known = found.get(f"odrl:{name}")
        found[f"odrl:{name}"] = party if known is None else [*(known if isinstance(known, list) else [known]), party]
    if rule.constraints:
        found["constraint"] = [node_json(node) for node in rule.constraints]
    if rule.duties:
        below = {"permission": "duty", "prohibition": "odrl:remedy"}.get(rule.kind, "odrl:consequence")
        found[below] = [rule_json(duty) for duty in rule.duties]
    return found


def node_json(node: Node) -> dict[str, Any]:
    """A constraint as DSP 2025-1 has it. Raises PolicyError for one that is not understood."""
    if isinstance(node, Logic):
        return {node.kind: [node_json(part) for part in node.parts]}  # an `andSequence` too: the schema takes no "@list"
    if isinstance(node, Constraint):
        return _constraint(node)
    raise PolicyError(f"{node.path} is not understood here, so it cannot be written anew")


def _action(rule: Rule) -> Any:
    """The one action of a rule, and of a duty how much is to be paid. What is paid for a unit is a price: two of them add up, so that terms
    of two sides with one each are for a person to put together."""
    paid = rule.actions[0].refinements if len(rule.actions) == 1 else ()
    amounts = rule.kind not in ("permission", "prohibition") and all(
        isinstance(leaf, Constraint) and leaf.operand == PAY_AMOUNT for leaf in leaves(paid)
    )
    if len(rule.actions) != 1 or (paid and not amounts):
        raise PolicyError(f"{rule.path} has not one plain action, and DSP 2025-1 has no form for another")
    name = action_name(rule.actions[0])
    return {"rdf:value": {"@id": name}, "odrl:refinement": [node_json(node) for node in paid]} if paid else name


def action_name(action: Action) -> str:
    """An action as it is written: `use` is the one that the DSP context knows."""
    name = compact(action.iri)
    return "use" if name == "odrl:use" else name


def _scopes(scopes: Iterable[Scope]) -> Any:
    found = [_scope(scope) for scope in scopes]
    return found[0] if len(found) == 1 else found


def _scope(scope: Scope) -> Any:
    if not scope.collection and not scope.refinements:
        return scope.id
    found: dict[str, Any] = {"odrl:source" if scope.collection else "@id": scope.id}
    if scope.refinements:
        found["odrl:refinement"] = [node_json(node) for node in scope.refinements]
    return found


def _constraint(node: Constraint) -> dict[str, Any]:
    head = {"leftOperand": compact(node.operand)}
    unit: dict[str, Any] = {"odrl:unit": {"@id": node.unit}} if node.unit else {}
    test = node.test
    if node.operand.endswith("/event"):
        return head | {"operator": node.operator, "rightOperand": {"@id": node.unit}}
    if isinstance(test, Window):
        found = _window(test, time=node.operand.endswith("/dateTime"))
    elif isinstance(test, Lapse):
        found = _lapse(test)
    else:
        values = [{"@id": value} if value.startswith(ABSOLUTE) else value for value in sorted(test.values)]
        single = len(values) == 1 and test.operator not in ("isAnyOf", "isNoneOf", "isAllOf")
        found = [(test.operator, values[0] if single else values)]
    parts = [head | {"operator": operator, "rightOperand": right} | unit for operator, right in found]
    return parts[0] if len(parts) == 1 else {"and": parts}


def _window(test: Window, *, time: bool) -> list[tuple[str, Any]]:
    """The operators of a window of time or of numbers."""
    write = _instant if time else _number
    start, end = test.start, test.end
    if start is not None and end is not None and (one := _point(start, end, time=time)) is not None:
        return [("neq" if test.negated else "eq", one)]
    if test.negated:
        raise PolicyError("the rest of a window has no operator of its own")
    found = []
    if start is not None:
        found.append(write("gt" if start[1] else "gteq", start[0]))
    if end is not None:
        found.append(write("lteq" if end[1] else "lt", end[0]))
    return found


def _point(start: Cut, end: Cut, *, time: bool) -> Any:
    """What a window covers if it is one value: an instant, a day, a number; else None."""
    if not time:
        return _typed_number(start[0]) if start[0] == end[0] else None
    if end[0] - start[0] == 1:
        return _typed_instant(int(start[0]))
    return _typed_day(int(start[0])) if end[0] - start[0] == DAY and start[0] % DAY == 0 else None


def _instant(operator: str, at: Number) -> tuple[str, Any]:
    """A bound of time; a day where it lies between two: `lteq 2026-12-31` is until its end."""
    if at % DAY == 0:
        return ("lteq", _typed_day(int(at) - DAY)) if operator == "lt" else ("gteq", _typed_day(int(at)))
    if (at - 1) % SECOND == 0:  # behind a whole second: `lteq` and `gt` of it
        return {"lt": "lteq", "gteq": "gt"}[operator], _typed_instant(int(at) - 1)
    return operator, _typed_instant(int(at))


def _number(operator: str, value: Number) -> tuple[str, Any]:
    return operator, _typed_number(value)


def _typed_number(value: Number) -> dict[str, str]:
    kind = "xsd:decimal" if isinstance(value, Fraction) else "xsd:integer"
    return {"@value": number_text(value), "@type": kind}


def _typed_instant(at: int) -> dict[str, str]:
    found = instant(at)
    if found is None:
        raise PolicyError("an instant beyond the calendar cannot be written")
    return {"@value": found.isoformat().replace("+00:00", "Z"), "@type": "xsd:dateTime"}


def _typed_day(at: int) -> dict[str, str]:
    return {"@value": _typed_instant(at)["@value"][:10] + "Z", "@type": "xsd:date"}


def _lapse(test: Lapse) -> list[tuple[str, Any]]:
    start, end = test.start, test.end
    if start is not None and start == end:
        return [("neq" if test.negated else "eq", _typed_span(start))]
    if test.negated:
        raise PolicyError("the rest of a stretch of durations has no operator of its own")
    found: list[tuple[str, Any]] = []
    if start is not None:
        found.append(("gteq" if test.start_in else "gt", _typed_span(start)))
    if end is not None:
        found.append(("lteq" if test.end_in else "lt", _typed_span(end)))
    return found


def _typed_span(span: Span) -> dict[str, str]:
    years, months = divmod(span.months, 12)
    text = "".join(f"{count}{letter}" for count, letter in ((years, "Y"), (months, "M")) if count)
    if span.microseconds or not text:
        text += length_text(span.microseconds).removeprefix("P")
    return {"@value": f"P{text}", "@type": "xsd:duration"}
