"""A policy document of DSP 2025-1 -> the immutable policy, with a finding for everything in it that cannot be meant here.

The document is the compact JSON of an Offer or Agreement. Its words mean what the DSP context says and nothing else; what remains is never
skipped: it becomes a finding, and a policy with a finding of severity `error` permits nothing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.model import Code, Constraint, Finding, Logic, Members, Node, Opaque, Policy, Rule, Window
from connector.odrl.operands import OPERANDS, Operand, all_of, any_of, judge_of, nobody_knows, window
from connector.odrl.reading import NONE, Reading, canonical, nearest, parties, refusal, several, strangers, text, type_of
from connector.odrl.vocabulary import ACTIONS, CORE_PROFILE, DSP_CONTEXT, OPERATOR_NAMES, compact, expand
from connector.odrl.words import shown

DEPTH_MAX: Final = 32  # nested logical constraints; people write two

_POLICY_KEYS: Final = frozenset({
    "@context", "@id", "@type", "profile", "permission", "prohibition", "obligation", "target", "assigner", "assignee", "timestamp",
})  # fmt: skip
_RULE_KEYS: Final = frozenset({"@id", "@type", "action", "constraint", "assignee", "duty"})
_ATOMIC_KEYS: Final = frozenset({"@id", "@type", "leftOperand", "operator", "rightOperand"})
_LOGIC_KEYS: Final = frozenset({"@id", "@type", "and", "or", "xone", "andSequence"})
_LOGIC: Final = ("and", "or", "xone", "andSequence")
_OPERANDS: Final = {spelling: operand for iri, operand in OPERANDS.items() for spelling in (iri, compact(iri))}
_KNOWN_OPERANDS: Final = ", ".join(f"`{compact(iri)}`" for iri in OPERANDS)


def load(document: object, format: str = "json-ld", *, strict: bool = True) -> Policy:
    """Read a policy.

    `document` is an Offer or Agreement as a dict: compact JSON-LD, valid by the DSP contract schema, though terms without an `@id` will do.
    `format` is `json-ld`. A document that is no policy at all, or beyond a limit, raises PolicyError with all findings; so does one
    that says something unknown. Without `strict` the latter is kept with its `findings`, so that a policy of somebody else can be shown and
    compared; it permits nothing.
    """
    if format != "json-ld":
        message = f"a policy in the format `{shown(format)}` cannot be read"
        raise PolicyError(message, (Finding(Code.FORMAT_UNSUPPORTED, "", message, "give it as `json-ld`"),))
    reading = Reading()
    policy = _policy(document, reading)
    if policy is None or (strict and policy.refused):
        raise refusal(f"policy `{shown(policy.id)}`" if policy and policy.id else "policy", tuple(reading.findings))
    return policy


def lint(subject: object) -> list[Finding]:
    """All findings of a Policy or of a document as `load` takes it, errors and warnings. Never raises."""
    if isinstance(subject, Policy):
        return list(subject.findings)
    try:
        return list(load(subject, strict=False).findings)
    except PolicyError as error:
        return list(error.findings)


def _policy(document: object, reading: Reading) -> Policy | None:
    if not isinstance(document, dict):
        reading.note(Code.MALFORMED, "", "it is no JSON object", "give one Offer or Agreement")
        return None
    _context(document.get("@context"), reading)
    opaque = strangers(document, _POLICY_KEYS, "", reading)
    kind = type_of(document, "policy", "", reading)
    agreement = kind == "Agreement"
    identifier = text(document.get("@id"), "/@id", reading)
    target = text(document.get("target"), "/target", reading, required=agreement)
    assigner = parties(document.get("assigner"), "/assigner", reading, required=agreement)
    assignees = parties(document.get("assignee"), "/assignee", reading, required=agreement)
    timestamp = text(document.get("timestamp"), "/timestamp", reading)
    profiles = _profiles(document.get("profile"), reading)
    permissions = _rules(document.get("permission"), "permission", reading)
    prohibitions = _rules(document.get("prohibition"), "prohibition", reading)
    if len(assigner) > 1:
        reading.note(Code.MALFORMED, "/assigner", "there are several assigners", "name one")
    if duties := document.get("obligation"):
        reading.note(Code.DUTY_UNSUPPORTED, "/obligation", "this connector cannot watch over obligations", "leave `obligation` out")
        opaque += canonical({"obligation": duties}, "/obligation")
    if not permissions and not prohibitions:
        reading.note(Code.MALFORMED, "", "it has neither a permission nor a prohibition", "add a `permission`")
    if any(finding.code is Code.MALFORMED for finding in reading.findings):
        return None
    return Policy(
        id=identifier or "",
        kind="Agreement" if agreement else "Offer",
        target=target,
        assigner=next(iter(assigner), None),
        assignees=assignees,
        timestamp=timestamp,
        profiles=profiles,
        permissions=permissions,
        prohibitions=prohibitions,
        opaque=opaque,
        findings=tuple(reading.findings),
        refused=any(finding.severity == "error" for finding in reading.findings),
        instants=tuple(sorted(reading.instants)),
        usage=tuple(sorted(reading.usage)),
        leaves=reading.leaves,
    )


def _context(raw: object, reading: Reading) -> None:
    """A document of its own names the DSP context. Others beside it are not looked at: their words are findings where they occur."""
    if raw is None or raw == DSP_CONTEXT:
        return
    if not isinstance(raw, list) or DSP_CONTEXT not in raw or not all(isinstance(entry, str) for entry in raw):
        reading.note(Code.TERM_UNSUPPORTED, "/@context", "it is not the DSP context", f'write `["{DSP_CONTEXT}"]`')


def _profiles(raw: object, reading: Reading) -> frozenset[str]:
    found = set()
    reading.count(len(raw) if isinstance(raw, list) else 0, "/profile")
    for path, entry in several(raw, "/profile"):
        name = text(entry, path, reading, required=True)
        if name is None or expand(name) == CORE_PROFILE:
            continue
        found.add(name)
        reading.note(Code.PROFILE_UNKNOWN, path, f"the ODRL profile `{shown(name)}` is not known here", "leave it out")
    return frozenset(found) if found else NONE


def _rules(raw: object, kind: Literal["permission", "prohibition"], reading: Reading) -> tuple[Rule, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        reading.note(Code.MALFORMED, f"/{kind}", "it is no array", "write an array of rules")
        return ()
    return tuple(rule for index, entry in enumerate(raw) if (rule := _rule(entry, kind, f"/{kind}/{index}", reading)) is not None)


def _rule(raw: object, kind: Literal["permission", "prohibition"], path: str, reading: Reading) -> Rule | None:
    if not isinstance(raw, dict):
        reading.note(Code.MALFORMED, path, "it is no rule", "write an object with an `action`")
        return None
    reading.count(1, path)
    opaque = strangers(raw, _RULE_KEYS, path, reading)
    if "@type" in raw:
        type_of(raw, kind, path, reading)
    if duties := raw.get("duty"):
        reading.note(Code.DUTY_UNSUPPORTED, f"{path}/duty", "this connector cannot watch over duties", "leave `duty` out")
        opaque += canonical({"duty": duties}, f"{path}/duty")
    written = raw.get("action")
    action = ACTIONS.get(written) if isinstance(written, str) else None
    if action is None:
        action = _unknown_action(written, f"{path}/action", reading)
    nodes = raw.get("constraint", [])
    if not isinstance(nodes, list):
        reading.note(Code.MALFORMED, f"{path}/constraint", "it is no array", "write an array of constraints")
        return None
    constraints = _nodes(nodes, f"{path}/constraint", 1, reading)
    assignees = parties(raw.get("assignee"), f"{path}/assignee", reading)
    return Rule(path, kind, action, assignees, constraints, opaque, all_of([node.judge for node in constraints]))


def _nodes(raw: list[Any], path: str, depth: int, reading: Reading) -> tuple[Node, ...]:
    return tuple(node for index, entry in enumerate(raw) if (node := _node(entry, f"{path}/{index}", depth, reading)) is not None)


def _node(raw: object, path: str, depth: int, reading: Reading) -> Node | None:
    if not isinstance(raw, dict):
        reading.note(Code.MALFORMED, path, "it is no constraint", "write an object with `leftOperand`, `operator`, `rightOperand`")
        return None
    reading.count(1, path)
    if "leftOperand" in raw or "operator" in raw or "rightOperand" in raw:
        return _atomic(raw, path, reading)
    kinds = [kind for kind in _LOGIC if kind in raw]
    if len(kinds) != 1:
        reading.note(Code.MALFORMED, path, "it is no constraint", "write `leftOperand`, `operator`, `rightOperand`, or one of `and`, `or`")
        return None
    return _logical(raw, kinds[0], path, depth, reading)


def _logical(raw: dict[str, Any], kind: str, path: str, depth: int, reading: Reading) -> Node | None:
    path_of_parts = f"{path}/{kind}"
    if depth > DEPTH_MAX:
        reading.give_up(path_of_parts, f"constraints are nested more than {DEPTH_MAX} deep", "write them flat")
    if "@type" in raw:
        type_of(raw, "constraint", path, reading)
    if strangers(raw, _LOGIC_KEYS, path, reading):
        return _opaque(raw, path)
    entries = raw[kind]
    if not isinstance(entries, list):
        reading.note(Code.MALFORMED, path_of_parts, "it is no array", "write an array of constraints")
        return None
    if kind not in {"and", "or"}:
        reading.note(Code.LOGIC_UNSUPPORTED, path_of_parts, f"`{kind}` cannot be checked here", "use `and`, `or`, or several offers")
        return _opaque(raw, path)
    if not entries:
        reading.note(Code.EMPTY_SET, path_of_parts, f"`{kind}` of nothing says nothing", "add constraints or leave it out")
        return _opaque(raw, path)
    parts = _nodes(entries, path_of_parts, depth + 1, reading)
    judges = [part.judge for part in parts]
    if kind == "and":
        return Logic(path, "and", parts, all_of(judges))
    return Logic(path, "or", parts, any_of(judges))


def _atomic(raw: dict[str, Any], path: str, reading: Reading) -> Node | None:
    if "@type" in raw:
        type_of(raw, "constraint", path, reading)
    strange = strangers(raw, _ATOMIC_KEYS, path, reading)
    left, operator, right = raw.get("leftOperand"), raw.get("operator"), raw.get("rightOperand")
    if not isinstance(left, str) or not isinstance(operator, str) or not isinstance(right, str | dict | list):
        fix = "write `leftOperand` and `operator` as strings, `rightOperand` as a string, object or array"
        reading.note(Code.MALFORMED, path, "its three parts are not there, or not of their type", fix)
        return None
    operand = _OPERANDS.get(left)
    if operand is None:
        _unknown_operand(left, f"{path}/leftOperand", reading)
        return _opaque(raw, path)
    name = OPERATOR_NAMES.get(operator)
    if name not in operand.operators:
        what = f"`{shown(operator)}` is no operator of ODRL" if name is None else f"`{name}` does not apply to `{compact(operand.iri)}`"
        reading.note(Code.OPERATOR_UNSUPPORTED, f"{path}/operator", what, f"use one of {', '.join(sorted(operand.operators))}")
        return _opaque(raw, path)
    test = _right(operand, name, right, f"{path}/rightOperand", reading)
    if test is None or strange:
        return _opaque(raw, path)
    meaning, expected = test
    if operand.usage:
        reading.usage.add(operand.iri)
    return Constraint(path, operand.iri, name, expected, meaning, judge_of(operand.iri, meaning))


def _right(operand: Operand, operator: str, raw: object, path: str, reading: Reading) -> tuple[Window | Members, tuple[str, ...]] | None:
    entries = values.items(raw)
    if entries is None:
        entries = [raw]
    many = operator in {"isAnyOf", "isNoneOf"}
    if not entries:
        reading.note(Code.EMPTY_SET, path, "there is no value", "give one at least")
        return None
    if len(entries) > 1 and not many:
        fix = f"use `{'isNoneOf' if operator == 'neq' else 'isAnyOf'}`" if operand.values != "instant" else "give one"
        reading.note(Code.TYPE_MISMATCH, path, f"`{operator}` takes one value, not {len(entries)}", fix)
        return None
    reading.count(len(entries) - 1, path)
    try:
        if operand.values == "instant":
            return _instant(operator, entries[0], path, reading)
        found = tuple(values.term(entry) for entry in entries)
    except PolicyError as error:
        reading.note(Code.TYPE_MISMATCH, path, f"a value does not fit `{compact(operand.iri)}`", error.message)
        return None
    if operand.usage and any(values.spells_an_iri(entry) for entry in entries):
        message = "a string is taken as the IRI that it spells, which other connectors may not do"
        reading.note(Code.IRI_AS_STRING, path, message, 'write {"@id": "https://..."}', "warning")
    return Members(frozenset(found), negated=operator in {"neq", "isNoneOf"}), found


def _instant(operator: str, raw: object, path: str, reading: Reading) -> tuple[Window, tuple[str, ...]]:
    right = values.span(raw)
    if not right.zoned:
        reading.note(Code.ZONE_MISSING, path, "it has no time zone, so UTC is assumed", f"write `{right.text}Z`", "warning")
    test = window(operator, right)
    reading.instants.update(edge for edge in (test.start, test.end) if edge is not None)
    return test, (right.text,)


def _unknown_action(raw: object, path: str, reading: Reading) -> str:
    if not isinstance(raw, str) or not raw:
        reading.note(Code.MALFORMED, path, "the action is no string", "write `use`")
        return ""
    if expand(raw) is not None:
        reading.note(Code.ACTION_UNSUPPORTED, path, f"the action `{shown(raw)}` is not known here", "write `use` or another core action")
    else:
        fix = f"write `odrl:{raw}`" if "odrl:" + raw in ACTIONS else "write `use`, or an action of the ODRL core as `odrl:read`"
        reading.note(Code.TERM_DROPPED, path, f"`{shown(raw)}` is no term of the DSP context, so it names no action", fix)
    return raw


def _unknown_operand(raw: str, path: str, reading: Reading) -> None:
    if expand(raw) is not None:
        near = nearest(raw, _OPERANDS)
        fix = f"write `{near}` if that is meant" if near else f"use one of {_KNOWN_OPERANDS}"
        reading.note(Code.OPERAND_UNSUPPORTED, path, f"`{shown(raw)}` is a left operand that cannot be checked here", fix)
        return
    named = next((compact(iri) for iri in OPERANDS if iri.endswith(("/" + raw, ":" + raw))), None)
    fix = f"write `{named}`" if named else f"use one of {_KNOWN_OPERANDS}"
    reading.note(Code.TERM_DROPPED, path, f"`{shown(raw)}` is no term of the DSP context, so it names no left operand", fix)


def _opaque(raw: dict[str, Any], path: str) -> Opaque:
    return Opaque(path, canonical(raw, path), nobody_knows)
