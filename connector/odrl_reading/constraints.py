"""Constraints and refinements of a document -> nodes with their judges, a finding for each that cannot be meant.

What is not understood becomes `Opaque`: it judges UNKNOWN, whatever stands around it, so that nothing is decided by leaving it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from connector.errors import PolicyError
from connector.odrl import judges, values
from connector.odrl.codes import Code
from connector.odrl.model import Constraint, Judge, Logic, Members, Node, Opaque, Test, Window, fact_key
from connector.odrl.operands import ELAPSED_TIME, TIME_INTERVAL
from connector.odrl.registry import Alias, Operand
from connector.odrl.vocabulary import OPERATOR_NAMES, compact
from connector.odrl.words import shown
from connector.odrl_reading.reading import Reading, canonical, fields, iri, place, several, type_of
from connector.values import replace

DEPTH_MAX: Final = 32  # nested logical constraints; people write two
# A list operator on values that have an order -> how the list is joined, and what is asked of each value.
_EACH: Final[Mapping[str, tuple[Literal["and", "or"], str]]] = {
    "isAnyOf": ("or", "eq"), "isNoneOf": ("and", "neq"), "isAllOf": ("and", "eq"),
}  # fmt: skip
LIST_OPERATORS: Final = frozenset({"isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart"})

_ATOMIC: Final = frozenset({
    "@id", "@type", "leftOperand", "operator", "rightOperand", "rightOperandReference", "dataType", "unit", "status",
})  # fmt: skip
_LOGIC: Final[tuple[Literal["and", "or", "xone", "andSequence"], ...]] = ("and", "or", "xone", "andSequence")
_LOGICAL: Final = frozenset({"@id", "@type", *_LOGIC})
_KEYS: Final = _ATOMIC | _LOGICAL
# Where the present lies to an event: before it, in it, or after it.
_PHASES: Final = {
    "lt": frozenset({"before"}),
    "lteq": frozenset({"before", "during"}),
    "eq": frozenset({"during"}),
    "neq": frozenset({"before", "after"}),
    "gteq": frozenset({"during", "after"}),
    "gt": frozenset({"after"}),
}
_OFFSET: Final = re.compile(r"contractAgreement\+([0-9]{1,9})(s|m|h|d)")
_OFFSET_FORMS: Final = {"s": "PT{}S", "m": "PT{}M", "h": "PT{}H", "d": "P{}D"}
_WRITTEN_OUT: Final = re.compile(r"""\s*(?:\[\s*["\[{]|\{\s*["@])""")  # how the JSON of values begins, and what Java says of them
_MINUTES: Final = re.compile(r"P(?:60|90|120)M")  # that is sixty months; the vocabulary's own notes mean minutes by it


def nodes(raw: object, path: str, reading: Reading) -> tuple[Node, ...]:
    """The constraints of an array (or a single one), of which all count. Raises PolicyError for a document that is given up."""
    if reading.dialect == "dsp" and raw is not None and not isinstance(raw, list):
        reading.note(Code.MALFORMED, path, "it is no array", "write an array of constraints")
        return ()
    return tuple(node for at, entry in several(raw, path) if (node := _node(entry, at, 1, reading)) is not None)


def _node(raw: object, path: str, depth: int, reading: Reading) -> Node | None:
    if not isinstance(raw, dict):
        reading.note(Code.MALFORMED, path, "it is no constraint", "write an object with `leftOperand`, `operator`, `rightOperand`")
        return None
    reading.count(1, path)
    known, opaque = fields(raw, _KEYS, path, reading)
    if "@type" in known:
        type_of(known, "constraint", path, reading)
    if opaque:
        return Opaque(path, canonical(raw, path), judges.nobody_knows)
    kinds = [kind for kind in _LOGIC if kind in known]
    if kinds and not {"leftOperand", "operator", "rightOperand"} & known.keys():
        if len(kinds) > 1:
            reading.note(Code.MALFORMED, path, f"it is `{kinds[0]}` and `{kinds[1]}` at once", "write one of them")
            return None
        return _logical(known, kinds[0], path, depth, reading)
    if not kinds and {"leftOperand", "operator", "rightOperand", "rightOperandReference"} & known.keys():
        return _atomic(known, path, reading)
    reading.note(Code.MALFORMED, path, "it is no constraint", "write `leftOperand`, `operator`, `rightOperand`, or one of `and`, `or`")
    return None


def _logical(
    raw: dict[str, Any], kind: Literal["and", "or", "xone", "andSequence"], path: str, depth: int, reading: Reading
) -> Node | None:
    at = place(raw, path, kind)
    if depth > DEPTH_MAX:
        reading.give_up(at, f"constraints are nested more than {DEPTH_MAX} deep", "write them flat")
    entries = raw[kind]
    ordered = isinstance(entries, dict) and entries.keys() == {"@list"}
    if not ordered and not isinstance(entries, list) and reading.dialect == "dsp":
        reading.note(Code.MALFORMED, at, "it is no array", "write an array of constraints")
        return None
    identifier = _id(raw, path, reading)
    found = several(entries, at)
    parts = tuple(node for where, entry in found if (node := _node(entry, where, depth + 1, reading)) is not None)
    if not found:
        reading.note(Code.EMPTY_SET, at, f"`{kind}` of nothing says nothing", "add constraints or leave it out")
        return Opaque(path, canonical(raw, path), judges.nobody_knows)
    if kind == "andSequence" and not ordered and len(parts) > 1:
        message = "RDF keeps no order here: other connectors may read the parts in another one"
        reading.note(Code.SEQUENCE_UNORDERED, at, message, 'write {"@list": [...]}', "warning")
    compiled = [part.judge for part in parts]
    table: dict[str, Callable[[Sequence[Judge]], Judge]] = {"and": judges.all_of, "or": judges.any_of, "xone": judges.one_of}
    judge = judges.in_order(parts) if kind == "andSequence" else table[kind](compiled)
    return Logic(path, kind, parts, judge, identifier)


def _id(raw: dict[str, Any], path: str, reading: Reading) -> str:
    return reading.describe(raw, path, iri(raw["@id"], place(raw, path, "@id"), reading) or "") if "@id" in raw else ""


def _atomic(raw: dict[str, Any], path: str, reading: Reading) -> Node | None:
    left, operator = _word(raw.get("leftOperand")), _word(raw.get("operator"))
    right, at = raw.get("rightOperand"), place(raw, path, "rightOperand")
    if "rightOperandReference" in raw:
        right, at = _referenced(raw, path, reading), place(raw, path, "rightOperandReference")
        if right is None:
            return Opaque(path, canonical(raw, path), judges.nobody_knows)
    bare = isinstance(right, int | float) and reading.dialect == "dsp"
    if left is None or operator is None or right is None or bare:
        fix = "write `leftOperand` and `operator` as strings, `rightOperand` as a string, object or array"
        if bare:
            fix = 'write {"@value": "5", "@type": "xsd:integer"}: a bare number is not valid in DSP messages'
        reading.note(Code.MALFORMED, path, "its three parts are not there, or not of their type", fix)
        return None
    name = written = OPERATOR_NAMES.get(operator)
    alias = reading.registry.aliases.get(left) or reading.registry.aliases.get(_full(left, reading))
    if alias is None:
        known = reading.registry.operands.get(left) or reading.registry.operands.get(_full(left, reading))
    else:
        known, name, right = _translated(alias, name, right, reading)
    if known is None:
        _unknown_operand(left, place(raw, path, "leftOperand"), reading)
        return Opaque(path, canonical(raw, path), judges.nobody_knows)
    if name not in known.operators:
        what = (
            f"`{shown(operator)}` is no operator of ODRL" if written is None else f"`{written}` does not apply to `{shown(compact(left))}`"
        )
        takes = tuple(sorted(alias.operators if alias else known.operators))
        fix = f"use one of {', '.join(takes)}"
        reading.note(Code.OPERATOR_UNSUPPORTED, place(raw, path, "operator"), what, fix, expected=takes, found=shown(operator))
        return Opaque(path, canonical(raw, path), judges.nobody_knows)
    if "dataType" in raw and (typed := _typed(right, _word(raw["dataType"]))) is not None:
        right = typed
    if known.values != "term" and name in _EACH:
        return _each(raw, known, name, right, (path, at), reading)
    return _constraint(raw, known, name, right, (path, at), reading) or Opaque(path, canonical(raw, path), judges.nobody_knows)


def _each(raw: dict[str, Any], known: Operand, name: str, right: object, places: tuple[str, str], reading: Reading) -> Node:
    """A list operator on values that have an order: one of them, none of them, all of them at once."""
    path, place = places
    kind, operator = _EACH[name]
    parts = [_constraint(raw, known, operator, entry, (at, at), reading) for at, entry in several(right, place)]
    found = tuple(part for part in parts if part is not None)
    if len(found) < len(parts) or not parts:
        if not parts:
            reading.note(Code.EMPTY_SET, place, "there is no value", "give one at least")
        return Opaque(path, canonical(raw, path), judges.nobody_knows)
    reading.count(len(found) - 1, path)
    _doubts(raw, known, name, tuple(part.expected[0] for part in found), path, reading)
    table = {"and": judges.all_of, "or": judges.any_of}
    return Logic(path, kind, found, table[kind]([part.judge for part in found]), _id(raw, path, reading))


def _constraint(
    raw: dict[str, Any], known: Operand, name: str, right: object, places: tuple[str, str], reading: Reading
) -> Constraint | None:
    """A constraint on one operand, or None with a finding; `places` are its pointer and that of its right operand."""
    path, at = places
    test = _test(known, name, right, at, reading)
    if test is None:
        return None
    meaning, expected = test
    unit = (iri(raw["unit"], place(raw, path, "unit"), reading) or "") if "unit" in raw else ""
    unit = reading.expand(unit) or unit
    if unit and known.values not in ("number", "duration"):
        message = f"`{compact(known.iri)}` is no amount, and is counted in no unit"
        reading.note(Code.UNIT_MISMATCH, place(raw, path, "unit"), message, "leave the unit out", found=shown(unit))
        return None
    if known.values == "event":
        unit = reading.expand(expected[0]) or expected[0]
    meaning, used = _from_status(meaning, known, raw.get("status"), place(raw, path, "status"), reading)
    if path != at:
        _doubts(raw, known, name, expected, path, reading)
    if known.usage:
        reading.usage.add(known.iri)
    elif known.values != "instant":
        reading.measures.add((known.iri, unit))
    keyed = known if not unit else _in_unit(known, unit)
    judge = judges.judge_of(keyed, meaning, reading.registry)
    uid = "" if path == at else _id(raw, path, reading)
    return Constraint(path, known.iri, name, expected, meaning, judge, unit, uid, known.label, used)


def _word(raw: object) -> str | None:
    """A word: a string, or {"@id"}."""
    found = raw["@id"] if isinstance(raw, dict) and raw.keys() == {"@id"} else raw
    return found if isinstance(found, str) and found else None


def _full(word: str, reading: Reading) -> str:
    """The word as full IRI; in the W3C context a bare word is a term of ODRL."""
    if ":" not in word and reading.dialect == "odrl":
        return f"odrl:{word}"
    return reading.expand(word) or ""


def _in_unit(operand: Operand, unit: str) -> Operand:
    return replace(operand, iri=fact_key(operand.iri, unit))


def _referenced(raw: dict[str, Any], path: str, reading: Reading) -> object | None:
    at = place(raw, path, "rightOperandReference")
    references = [iri(entry, where, reading, required=True) for where, entry in several(raw["rightOperandReference"], at)]
    found = [reading.references.get(reference or "") for reference in references]
    if "rightOperand" in raw or not found or None in found:
        message = "it refers to a value that is not at hand" if "rightOperand" not in raw else "the value stands twice"
        reading.note(Code.REFERENCE_UNRESOLVED, at, message, "write the value as `rightOperand`; nothing is ever fetched")
        return None
    return found[0] if len(found) == 1 else found


def _typed(right: object, datatype: str | None) -> object | None:
    """A plain literal of the constraint's `dataType`."""
    if datatype is None or isinstance(right, dict):
        return None
    if isinstance(right, list):
        return [_typed(entry, datatype) or entry for entry in right]
    return {"@value": right, "@type": datatype}


def _translated(alias: Alias, name: str | None, right: object, reading: Reading) -> tuple[Operand | None, str | None, object]:
    """An alias in terms of the operand that it stands for."""
    operators = alias.operators.get(name or "")
    written = right.get("@value") if isinstance(right, dict) else right
    if alias.offset:
        match = _OFFSET.fullmatch(written) if isinstance(written, str) else None
        if match is None:
            return reading.registry.operands.get(alias.otherwise), operators, right
        return reading.registry.operands.get(alias.operand), operators, _OFFSET_FORMS[match[2]].format(match[1])
    if alias.separator and isinstance(written, str):
        right = [part for entry in written.split(alias.separator) if (part := entry.strip())]
    elif (
        alias.value != "{}" and isinstance(written, str | int) and not isinstance(written, bool) and len(str(written)) <= values.DIGITS_MAX
    ):
        right = alias.value.replace("{}", str(written))
    return reading.registry.operands.get(alias.operand), operators, right


def _test(operand: Operand, operator: str, raw: object, path: str, reading: Reading) -> tuple[Test, tuple[str, ...]] | None:
    entries = several(raw, path)
    if not entries:
        reading.note(Code.EMPTY_SET, path, "there is no value", "give one at least")
        return None
    if len(entries) > 1 and operator not in LIST_OPERATORS:
        fix = f"use `{'isNoneOf' if operator == 'neq' else 'isAnyOf'}`" if operand.values == "term" else "give one"
        reading.note(Code.TYPE_MISMATCH, path, f"`{operator}` takes one value, not {len(entries)}", fix, found=f"{len(entries)} values")
        return None
    reading.count(len(entries) - 1, path)
    try:
        return _compiled(operand, operator, entries, path, reading)
    except PolicyError as error:
        reading.note(Code.TYPE_MISMATCH, path, f"a value does not fit `{compact(operand.iri)}`", error.message, expected=(operand.values,))
        return None


def _compiled(
    operand: Operand, operator: str, places: list[tuple[str, object]], path: str, reading: Reading
) -> tuple[Test, tuple[str, ...]]:
    entries = [entry for _, entry in places]
    if operand.values == "instant":
        right = values.stretch(entries[0])
        if not right.zoned:
            patch = _replaced((places[0][0], _zoned(entries[0])))
            fix = f"write `{right.text}Z`"
            reading.note(Code.ZONE_MISSING, path, "it has no time zone, so UTC is assumed", fix, "warning", patch=patch)
        window = judges.instants(operator, right)
        reading.instants.update(int(edge[0]) for edge in (window.start, window.end) if edge is not None)
        return window, (right.text,)
    if operand.values == "number":
        found, text = values.number(entries[0])
        return judges.numbers(operator, found), (text,)
    if operand.values == "duration":
        span, text = values.length(values.in_seconds(entries[0]) if reading.registry.seconds else entries[0])
        if operand.iri == TIME_INTERVAL:  # it recurs: that long after the last use there may be another one (odrl.md 1.7)
            operator = {"eq": "gteq", "neq": "lt"}.get(operator, operator)
        return judges.lengths(operator, span), (text,)
    terms = tuple(values.term(entry) for entry in entries)
    for at, text in zip((at for at, _ in places), terms, strict=True):
        if values.misleads(text):
            message = "it has control characters, or some that turn the order in which it is read"
            reading.note(Code.TYPE_MISMATCH, at, message, "write it as people read it", found=shown(text))
        if _WRITTEN_OUT.match(text):  # as a value it would be one that nobody has: `isNoneOf` would hold for everybody
            message = "it is the text of values, as some connectors write a list, and no value"
            reading.note(Code.TYPE_MISMATCH, at, message, "write the values as an array", found=shown(text))
    if operand.usage and any(values.spells_an_iri(entry) for entry in entries):
        message = "a string is taken as the IRI that it spells, which other connectors may not do"
        patch = _replaced(*((at, {"@id": entry}) for at, entry in places if values.spells_an_iri(entry)))
        reading.note(Code.IRI_AS_STRING, path, message, 'write {"@id": "https://..."}', "warning", patch=patch)
    if not all(isinstance(entry, str) or values.in_iri(text) for entry, text in zip(entries, terms, strict=True)):
        message = "it has characters of no IRI, so readers of RDF lose it"
        reading.note(Code.TYPE_MISMATCH, path, message, "write it without quotes, brackets and backslashes", "warning")
    if operand.values == "event":
        return Members(_PHASES[operator], "isAnyOf"), terms
    return Members(frozenset(terms), operator), terms


def _replaced(*changes: tuple[str, object]) -> tuple[dict[str, object], ...]:
    """The patch (RFC 6902) that writes other values; what stands where a reference leads is not ours to mend."""
    return tuple({"op": "replace", "path": path, "value": value} for path, value in changes if "rightOperandReference" not in path)


def _zoned(entry: object) -> object:
    if isinstance(entry, dict):
        return {**entry, "@value": f"{entry['@value']}Z"}
    return f"{entry}Z"


def _from_status(test: Test, operand: Operand, raw: object, path: str, reading: Reading) -> tuple[Test, str]:
    """`status` is what was used up when the policy was written (ODRL 2.2 IM, 2.5.1): the limit counts from there. An heir starts anew
    (2.8). The test from there on, and what was used up as it is written, "" for nothing."""
    if raw is None or reading.ancestors:
        return test, ""
    try:
        start, written = values.number(raw)
    except PolicyError as error:
        reading.note(Code.TYPE_MISMATCH, path, "the status is no number", error.message)
        return test, ""
    if start < 0:
        message = "the status is below zero: it would let more happen than the limit says"
        reading.note(Code.TYPE_MISMATCH, path, message, "write what was used up so far", found=str(start))
        return test, ""
    if not isinstance(test, Window) or operand.kind != "counter":
        reading.note(Code.TERM_UNSUPPORTED, path, f"`{compact(operand.iri)}` has no status", "leave it out")
        return test, ""
    low = None if test.start is None else (test.start[0] - start, test.start[1])
    high = None if test.end is None else (test.end[0] - start, test.end[1])
    return Window(low, high, test.negated), written if start else ""


def _doubts(raw: dict[str, Any], operand: Operand, operator: str, expected: tuple[str, ...], path: str, reading: Reading) -> None:
    """What means something else than people mostly mean by it."""

    def doubt(code: Code, at: str, message: str, fix: str, instead: str = "") -> None:
        patch = ({"op": "replace", "path": place(raw, path, at), "value": instead},) if instead else ()
        reading.note(code, place(raw, path, at), message, fix, "warning", patch=patch)

    grows = operator == "eq" and (operand.kind == "counter" or operand.iri == ELAPSED_TIME)
    if grows and not any(part.endswith("refinement") for part in path.split("/")):  # which says how much one act is of
        message = f"`eq` holds at exactly {shown(expected[0])} and neither before nor after"
        doubt(Code.EQ_AS_LIMIT, "operator", message, "write `lteq` for a limit", "lteq")
    if operand.values == "duration" and _MINUTES.fullmatch(expected[0]):
        message, fix = f"`{expected[0]}` are {expected[0][1:-1]} months", f"write `PT{expected[0][1:]}` for minutes"
        doubt(Code.MONTHS_AS_MINUTES, "rightOperand", message, fix)
    if operand.iri == TIME_INTERVAL and operator in ("lt", "lteq"):
        message = "`timeInterval` is the time since the last use, not a period of validity"
        doubt(Code.INTERVAL_AS_WINDOW, "leftOperand", message, "write `odrl:dateTime` or `odrl:elapsedTime`")
    if operator == "isAllOf" and operand.single and len(set(expected)) > 1:
        message = f"one act has one {operand.label}, and never all of {len(set(expected))}"
        doubt(Code.UNSATISFIABLE, "operator", message, "write `isAnyOf`", "isAnyOf")
    if operand.check == "contract-only" and operand.source == "contract":
        message = f"`{compact(operand.iri)}` is agreed on and cannot be checked by a connector"
        doubt(Code.DECLARATIVE_ONLY, "leftOperand", message, "know that the contract alone holds it")


def _unknown_operand(raw: str, path: str, reading: Reading) -> None:
    operands = reading.registry.operands
    if reading.expand(raw) is not None or reading.dialect == "odrl":
        near = reading.nearest(raw, operands)
        fix = f"write `{near}` if that is meant" if near else "use an operand of the core or of a profile that is loaded"
        reading.note(Code.OPERAND_UNSUPPORTED, path, f"`{shown(raw)}` is a left operand that cannot be checked here", fix)
        return
    endings = ("/" + raw, ":" + raw)
    named = next((compact(known) for known in operands if known.endswith(endings)), None)
    near = named or reading.nearest(f"odrl:{raw}", map(compact, operands))
    meant = f"write `{near}`" if named else f"write `{near}` if that is meant"
    fix = meant if near else "write it with a prefix that the DSP context has, such as `odrl:`, or as a full IRI"
    patch = ({"op": "replace", "path": path, "value": named},) if named else ()
    reading.note(Code.TERM_DROPPED, path, f"`{shown(raw)}` is no term of the DSP context, so it names no left operand", fix, patch=patch)
