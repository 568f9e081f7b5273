"""Files of templates: data -> templates with their parameters and cases, every mistake named.

A file is what `policies/templates/*.yaml` hold, already parsed: `id`, `version`, `en`, `zh`, `source`, `licence`, `prefixes`, the `profile`
that its offers name, and `templates`: id -> {class, en, zh, parameters, action, assignee, constraint, duty, prohibition, obligation,
distribution, cases}. `class` is what the template stands for in its source; `distribution` says that it rules itself who may
pass the data on. Rules are written as on the wire, with the file's prefixes, and `refinement` of a duty's action beside the action. `cases`
say what it allows and denies: {say, with, request, world, result}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Code, Finding, Result, Stage
from connector.odrl.model import Event, Number, Request, World
from connector.odrl.registry import Label
from connector.odrl.vocabulary import ODRL, OPERATORS, PREFIXES
from connector.odrl.words import shown
from connector.odrl_forms.checking import Checking, at
from connector.odrl_forms.parameters import TYPES, Parameter
from connector.odrl_reading.reading import refusal
from connector.values import Value, replace

CASE_TIME: Final = "2026-01-15T12:00:00Z"  # of a case that does not care when

_FILE: Final = ("id", "version", "en", "zh", "source", "licence", "prefixes", "profile", "templates")
_PARTS: Final = ("action", "assignee", "constraint", "duty", "prohibition", "obligation")
_TEMPLATE: Final = ("class", "en", "zh", "parameters", "distribution", "cases", *_PARTS)
_PARAMETER: Final = ("type", "en", "zh", "many", "default", "choices", "low", "high")
_RULE: Final = ("action", "constraint")
_DUTY: Final = (*_RULE, "refinement", "target")
_LOGIC: Final = ("and", "or", "xone")
_ATOMIC: Final = ("leftOperand", "operator", "rightOperand", "odrl:unit")
_CASE: Final = ("say", "with", "request", "world", "result")
_REQUEST: Final = ("party", "action", "stage", "params")
_WORLD: Final = ("now", "facts", "anchors", "used", "duties", "done")
_DONE: Final = ("action", "at", "party", "amounts", "duty")


class Case(Value):
    """What a template decides: `parameters` for the form, what is asked of the offer that it makes, and the result."""

    say: str
    parameters: Mapping[str, Any]
    request: Request
    world: World
    result: Result


@dataclass(frozen=True, slots=True)
class Template:
    """A template. `stands_for` is its name in the source that it follows (`IDS 9`, `GRU`), `body` its rules with `$name` for parameters
    and all words in full, `profile` the IRI that its offers name, if they need one."""

    id: str
    version: str
    label: Label
    stands_for: str
    parameters: Mapping[str, Parameter]
    body: Mapping[str, Any]
    profile: str
    distribution: bool
    cases: tuple[Case, ...]
    prefixes: Mapping[str, str] = field(repr=False)


def read_templates(documents: Mapping[str, object]) -> dict[str, Template]:
    """Read files of templates that are used together. `documents`: the name of each file -> the parsed document.

    Raises PolicyError with the findings of all of them, each path led by the name of its file: `ids.yaml#/templates/until/en`.
    """
    found: dict[str, Template] = {}
    findings: list[Finding] = []
    for name, document in documents.items():
        checking = Checking(f"templates `{shown(name)}`")
        try:
            for template in _file(document, checking):
                if template.id in found:
                    path = at("/templates", template.id)
                    checking.note(path, f"there is another template `{template.id}`", "choose another id", Code.CONFLICTING_TERMS)
                found[template.id] = template
            checking.done()
        except PolicyError as error:
            findings += [replace(finding, path=f"{name}#{finding.path}") for finding in error.findings]
    if findings:
        raise refusal("the templates", tuple(findings))
    return found


def _file(document: object, checking: Checking) -> list[Template]:
    raw = checking.mapping(document, "", _FILE)
    if not isinstance(document, Mapping):
        checking.note("", "it is empty", "write a file with `id`, `version` and `templates`")
    for name in ("id", "source", "licence"):
        checking.text(raw.get(name), f"/{name}", required=True)
    checking.label(raw, "")
    prefixes = checking.learn(raw.get("prefixes"), "/prefixes")
    profile = checking.word(raw["profile"], "/profile") if "profile" in raw else ""
    version = checking.text(raw.get("version"), "/version", required=True)
    rows = checking.mapping(raw.get("templates"), "/templates")
    return [_template(name, row, version, profile, prefixes, checking) for name, row in rows.items()]


def _template(name: str, row: object, version: str, profile: str, prefixes: dict[str, str], checking: Checking) -> Template:
    path = at("/templates", name)
    raw = checking.mapping(row, path, _TEMPLATE)
    parameters = {
        key: _parameter(key, entry, at(f"{path}/parameters", key), checking)
        for key, entry in checking.mapping(raw.get("parameters"), f"{path}/parameters").items()
    }
    used: set[str] = set()
    body = {part: _part(part, raw[part], f"{path}/{part}", used, checking) for part in _PARTS if part in raw}
    if not body:
        checking.note(path, "it says nothing", "write a part of it, or `constraint: []` for no condition")
    for word in sorted(used - parameters.keys()):
        checking.note(path, f"`${word}` is no parameter of it", "add it to `parameters`, or write another one")
    for word in sorted(parameters.keys() - used):
        checking.note(at(f"{path}/parameters", word), "it is used nowhere", f"write `${word}` where it belongs, or leave it out")
    cases = tuple(_case(entry, where, checking) for where, entry in checking.entries(raw.get("cases"), f"{path}/cases"))
    allowed = {case.result in (Result.PERMIT, Result.PERMIT_WITH) for case in cases if case.result is not Result.UNKNOWN}
    if allowed != {True, False}:
        checking.note(f"{path}/cases", "it has not both an allowed and a denied case", "add one of each: they are its meaning")
    return Template(
        id=name,
        version=version,
        label=checking.label(raw, path),
        stands_for=checking.text(raw.get("class"), f"{path}/class"),
        parameters=parameters,
        body=body,
        profile=profile,
        distribution=checking.flag(raw.get("distribution"), f"{path}/distribution"),
        cases=cases,
        prefixes=prefixes,
    )


def _parameter(name: str, row: object, path: str, checking: Checking) -> Parameter:
    raw = checking.mapping(row, path, _PARAMETER)
    bounds: dict[str, Number | None] = {}
    for bound in ("low", "high"):
        try:
            bounds[bound] = None if raw.get(bound) is None else values.number(raw[bound])[0]
        except PolicyError:
            checking.note(f"{path}/{bound}", f"`{shown(str(raw[bound]))}` is no number", "write digits")
    return Parameter(
        name=name,
        type=checking.one_of(raw.get("type"), TYPES, f"{path}/type"),
        label=checking.label(raw, path),
        many=checking.flag(raw.get("many"), f"{path}/many"),
        default=raw.get("default"),
        choices=tuple(entry for _, entry in checking.entries(raw.get("choices"), f"{path}/choices")),
        low=bounds.get("low"),
        high=bounds.get("high"),
    )


def _part(part: str, raw: object, path: str, used: set[str], checking: Checking) -> Any:
    if part == "action":
        return _short(checking.word(raw, path, bare=True))
    if part == "assignee":
        return _value(raw, path, used, checking)
    if not isinstance(raw, list):
        checking.note(path, "it is no list", "write a list")
        return []
    if part == "constraint":
        return [_constraint(entry, where, used, checking) for where, entry in checking.entries(raw, path)]
    duty = part in ("duty", "obligation")
    return [_rule(entry, where, used, checking, duty=duty) for where, entry in checking.entries(raw, path)]


def _rule(row: object, path: str, used: set[str], checking: Checking, *, duty: bool) -> dict[str, Any]:
    raw = checking.mapping(row, path)
    known = _DUTY if duty else _RULE
    found: dict[str, Any] = {"action": _short(checking.word(raw.get("action"), f"{path}/action", bare=True))}
    for key, value in raw.items():
        where = at(path, key)
        if key in ("constraint", "refinement") and key in known:
            found[key] = [_constraint(entry, place, used, checking) for place, entry in checking.entries(value, where)]
        elif duty and (key == "target" or (key.startswith("odrl:") and key.endswith("Party"))):
            found[key] = _value(value, where, used, checking)
        elif key != "action":
            fix = f"use {', '.join(f'`{name}`' for name in known)}"
            checking.note(where, f"`{shown(key)}` is not known here", fix, Code.TERM_UNSUPPORTED)
    return found


def _constraint(row: object, path: str, used: set[str], checking: Checking) -> dict[str, Any]:
    logic = next((kind for kind in _LOGIC if isinstance(row, Mapping) and kind in row), None)
    if logic:
        raw = checking.mapping(row, path, (logic,))
        parts = checking.entries(raw[logic], f"{path}/{logic}")
        return {logic: [_constraint(entry, where, used, checking) for where, entry in parts]}
    raw = checking.mapping(row, path, _ATOMIC)
    found = {
        "leftOperand": _short(checking.word(raw.get("leftOperand"), f"{path}/leftOperand", bare=True)),
        "operator": checking.one_of(raw.get("operator"), OPERATORS, f"{path}/operator"),
        "rightOperand": _value(raw.get("rightOperand"), f"{path}/rightOperand", used, checking),
    }
    if "odrl:unit" in raw:
        found["odrl:unit"] = _value(raw["odrl:unit"], f"{path}/odrl:unit", used, checking)
    return found


def _value(raw: object, path: str, used: set[str], checking: Checking) -> Any:
    """A literal, {"@id"} with its word in full, `$name`, or a list of them."""
    if isinstance(raw, list):
        return [_value(entry, f"{path}/{index}", used, checking) for index, entry in enumerate(raw)]
    if isinstance(raw, Mapping) and raw.keys() == {"@id"}:
        return {"@id": _short(checking.word(raw["@id"], f"{path}/@id"))}
    if isinstance(raw, Mapping) and {"@value"} <= raw.keys() <= {"@value", "@type"}:
        return dict(raw)
    text = checking.text(raw, path, required=True)
    if text.startswith("$"):
        used.add(text[1:])
    return text


def _short(iri: str) -> str:
    """The IRI as it stands on the wire: the core's with its prefix, everything else in full."""
    return f"odrl:{iri[len(ODRL) :]}" if iri.startswith(ODRL) else iri


def _case(row: object, path: str, checking: Checking) -> Case:
    raw = checking.mapping(row, path, _CASE)
    asked = checking.mapping(raw.get("request"), f"{path}/request", _REQUEST)
    request = Request(
        party=checking.text(asked.get("party"), f"{path}/request/party", required=True),
        action=checking.text(asked.get("action"), f"{path}/request/action") or "use",
        params=_facts(asked.get("params"), f"{path}/request/params", checking),
        stage=checking.one_of(asked.get("stage"), [stage.value for stage in Stage], f"{path}/request/stage", Stage.TRANSFER.value),
    )
    given = checking.mapping(raw.get("world"), f"{path}/world", _WORLD)
    anchors, used = (checking.mapping(given.get(part), f"{path}/world/{part}") for part in ("anchors", "used"))
    world = World(
        now=_instant(given.get("now", CASE_TIME), f"{path}/world/now", checking),
        facts=_facts(given.get("facts"), f"{path}/world/facts", checking),
        anchors={_key(word, checking): _instant(of, at(f"{path}/world/anchors", word), checking) for word, of in anchors.items()},
        used={_key(word, checking): _amount(of, at(f"{path}/world/used", word), checking) for word, of in used.items()},
        log=tuple(_event(entry, where, checking) for where, entry in checking.entries(given.get("done"), f"{path}/world/done")),
        duties=dict(checking.mapping(given.get("duties"), f"{path}/world/duties")),
    )
    return Case(
        say=checking.text(raw.get("say"), f"{path}/say", required=True),
        parameters=checking.mapping(raw.get("with"), f"{path}/with"),
        request=request,
        world=world,
        result=Result(checking.one_of(raw.get("result"), [result.value for result in Result], f"{path}/result")),
    )


def _event(row: object, path: str, checking: Checking) -> Event:
    raw = checking.mapping(row, path, _DONE)
    amounts = checking.mapping(raw.get("amounts"), f"{path}/amounts")
    return Event(
        at=_instant(raw.get("at"), f"{path}/at", checking),
        action=checking.text(raw.get("action"), f"{path}/action", required=True),
        party=checking.text(raw.get("party"), f"{path}/party"),
        amounts={_key(word, checking): _amount(of, at(f"{path}/amounts", word), checking) for word, of in amounts.items()},
        duty=checking.text(raw.get("duty"), f"{path}/duty"),
    )


def _key(words: str, checking: Checking) -> str:
    """The key of a fact: an operand and perhaps its unit, in full."""
    parts = []
    for word in words.split(" "):
        prefix, colon, rest = word.partition(":")
        space = (checking.prefixes | PREFIXES).get(prefix) if colon else None
        parts.append(word if space is None else space + rest)
    return " ".join(parts)


def _facts(raw: object, path: str, checking: Checking) -> dict[str, tuple[object, ...]]:
    return {
        _key(word, checking): tuple(entry for _, entry in checking.entries(of, at(path, word)))
        for word, of in checking.mapping(raw, path).items()
    }


def _instant(raw: object, path: str, checking: Checking) -> datetime:
    try:
        found = values.instant(values.stretch(raw).start)
    except PolicyError as error:
        checking.note(path, error.message.partition(";")[0], f"write it like `{CASE_TIME}`")
        found = None
    return found or values.EPOCH


def _amount(raw: object, path: str, checking: Checking) -> Number:
    try:
        return values.number(raw)[0]
    except PolicyError as error:
        checking.note(path, error.message.partition(";")[0], "write digits")
        return 0
