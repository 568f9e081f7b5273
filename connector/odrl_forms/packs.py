"""Profile packs: data -> profiles of the registry. A pack is a document of words, hierarchies and names in two languages; no code in it.

A pack is what `policies/profiles/*.yaml` hold, already parsed: dicts, lists, strings, whole numbers, booleans. Its keys:

- `id`, `version`, `en`, `zh`, `source`, `licence`; `iris` by which policies name the profile; `prefixes`: name -> namespace;
- `operands`: word -> {en, zh, values, kind, operators, source, check, stage, low, high, low_in, step, integral}, see `registry.Operand`;
  `operators` is a list, or `order`, `choice`, `concept`;
- `aliases`: word -> {of, operators, value, offset, otherwise, separator, en, zh}, see `registry.Alias`; `operators` is a list (the same
  here and there) or a mapping from theirs to ours;
- `actions`: word -> {in, en, zh}, `in` being the action that it is included in; `duties`: action -> pre | with | post;
- `contexts`: URL of a JSON-LD context -> `words`, under which the words of the pack stand without their prefix, or `odrl`, which is another
  name of the one for ODRL in DSP 2025-1;
- `concepts`: word -> {broader, part_of, same, en, zh}; `disjoint`: pairs; `labels`: word -> {en, zh} for words that stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.model import Number
from connector.odrl.operands import CORE_ALIASES, CORE_OPERANDS
from connector.odrl.registry import CHOICE, CONCEPT, ORDER, Alias, Label, Operand, Profile, Vocabulary
from connector.odrl.values import number
from connector.odrl.vocabulary import ABSOLUTE, EXACT_MATCH, INCLUDED_IN, ODRL, OPERATORS, compact
from connector.odrl.words import shown
from connector.odrl_forms.checking import Checking, at
from connector.odrl_rdf.contexts import CONTEXTS, PROFILE_CONTEXT
from connector.odrl_reading.reading import refusal
from connector.values import replace

_PACK: Final = (
    "id", "version", "en", "zh", "source", "licence", "iris", "prefixes", "operands", "aliases", "actions", "duties", "concepts",
    "disjoint", "labels", "contexts",
)  # fmt: skip
_OPERAND: Final = (
    "en", "zh", "values", "kind", "operators", "source", "check", "stage", "low", "high", "low_in", "step", "integral",
)  # fmt: skip
_ALIAS: Final = ("of", "operators", "value", "offset", "otherwise", "separator", "en", "zh")
_VALUES: Final = ("term", "number", "duration", "instant", "event")
_KINDS: Final = ("usage", "subject", "time", "counter", "quantity", "declarative")
_SOURCES: Final = ("declared", "claims", "identity", "agreement", "meter", "log", "contract", "clock")
_CHECKS: Final = ("verified", "measured", "declared", "contract-only")
_STAGES: Final = ("catalog", "negotiation", "agreement", "transfer", "end")
_TIMES: Final = ("pre", "with", "post")
_SETS: Final[Mapping[str, frozenset[str]]] = {"order": ORDER, "choice": CHOICE, "concept": CONCEPT}
_ORDERED: Final = frozenset({"number", "duration", "instant", "event"})


def read_packs(documents: Mapping[str, object]) -> tuple[Profile, ...]:
    """Read packs that are used together. `documents`: a name for each (its file) -> the parsed document.

    Raises PolicyError with the findings of all of them, each path led by the name of its pack: `health.yaml#/operands/hds:rate/kind`.
    """
    findings, profiles = [], []
    for name, document in documents.items():
        try:
            profiles.append(_profile(document))
        except PolicyError as error:
            findings += [replace(finding, path=f"{name}#{finding.path}") for finding in error.findings]
    if not findings:
        checking = Checking("the profile packs")
        _fit(list(zip(documents, profiles, strict=True)), checking)
        checking.done()
    if findings:
        raise refusal("the profile packs", tuple(findings))
    return tuple(profiles)


def read_pack(document: object, beside: Iterable[Profile] = ()) -> Profile:
    """Read one pack. `beside` are the profiles that it is used with: its aliases may stand for their operands.

    Raises PolicyError whose findings name every mistake: what, where in the document (RFC 6901), and how to mend it.
    """
    profile = _profile(document)
    checking = Checking(f"profile pack `{shown(profile.id)}`")
    _fit([*(("", other) for other in beside), ("", profile)], checking)
    checking.done()
    return profile


def _profile(document: object) -> Profile:
    name = document.get("id") if isinstance(document, Mapping) else None
    checking = Checking(f"profile pack `{shown(name)}`" if isinstance(name, str) else "profile pack")
    raw = checking.mapping(document, "", _PACK)
    if not isinstance(document, Mapping):
        checking.note("", "it is empty", "write a pack with `id`, `version` and what it defines")
    prefixes = checking.learn(raw.get("prefixes"), "/prefixes")
    labels: dict[str, Label] = {}
    rows = {part: checking.mapping(raw.get(part), f"/{part}") for part in ("operands", "aliases", "actions", "concepts", "labels")}
    for word, row in rows["labels"].items():
        path = at("/labels", word)
        labels[checking.word(word, path)] = checking.label(checking.mapping(row, path, ("en", "zh")), path)
    operands = tuple(_operand(word, row, at("/operands", word), checking) for word, row in rows["operands"].items())
    labels |= {operand.iri: Label(operand.label, operand.label_zh) for operand in operands}
    profile = Profile(
        id=checking.text(raw.get("id"), "/id", required=True),
        version=checking.text(raw.get("version"), "/version", required=True),
        iris=checking.words(raw.get("iris"), "/iris"),
        prefixes=prefixes,
        operands=operands,
        aliases=tuple(_alias(word, row, at("/aliases", word), labels, checking) for word, row in rows["aliases"].items()),
        actions=dict(_action(word, row, at("/actions", word), labels, checking) for word, row in rows["actions"].items()),
        duties={
            checking.word(word, at("/duties", word)): checking.one_of(when, _TIMES, at("/duties", word))
            for word, when in checking.mapping(raw.get("duties"), "/duties").items()
        },
        vocabulary=_vocabulary(raw, rows["concepts"], labels, checking),
        labels=labels,
        label=checking.label(raw, ""),
        source=checking.text(raw.get("source"), "/source", required=True),
        licence=checking.text(raw.get("licence"), "/licence", required=True),
        contexts=_contexts(raw.get("contexts"), [*rows["operands"], *rows["aliases"], *rows["actions"]], prefixes, checking),
    )
    checking.done()
    return profile


def _contexts(raw: object, words: Iterable[str], prefixes: Mapping[str, str], checking: Checking) -> dict[str, Mapping[str, Any]]:
    """Contexts by their URL: that of the words of the pack without their prefix, and that of ODRL under another name."""
    split = [word.partition(":") for word in words]
    bare = {**prefixes, **{name: prefixes[prefix] + name for prefix, _, name in split if prefix in prefixes}}
    documents = {"words": {"@context": bare}, "odrl": CONTEXTS[PROFILE_CONTEXT]}
    taken = sorted(name for name in bare.keys() & CONTEXTS[PROFILE_CONTEXT]["@context"].keys() if bare[name] not in (ODRL, ODRL + name))
    found: dict[str, Mapping[str, Any]] = {}
    for url, what in checking.mapping(raw, "/contexts").items():
        if not url.startswith(ABSOLUTE):
            checking.note(at("/contexts", url), "it is no URL", "write the URL by which policies name the context")
        if url in CONTEXTS:
            checking.note(at("/contexts", url), "what this context says is known here", "leave it out")
        if what == "words" and taken:
            said = f"without its prefix `{taken[0]}` would no longer be the word of ODRL that it is"
            checking.note(at("/contexts", url), said, "leave the context out: policies write the words of this pack with their prefix")
        found[url] = documents[checking.one_of(what, documents, at("/contexts", url))]
    return found


def _operand(word: str, row: object, path: str, checking: Checking) -> Operand:
    raw = checking.mapping(row, path, _OPERAND)
    label = checking.label(raw, path)
    values = checking.one_of(raw.get("values"), _VALUES, f"{path}/values")
    operators = _operators(raw.get("operators"), f"{path}/operators", checking)
    fitting = ORDER if values in _ORDERED else CONCEPT
    if misfits := sorted(set(operators) - fitting):
        message = f"{', '.join(f'`{name}`' for name in misfits)} cannot be asked of {values}s"
        fix = f"use {', '.join(f'`{name}`' for name in sorted(fitting))}"
        checking.note(f"{path}/operators", message, fix, Code.OPERATOR_UNSUPPORTED)
    return Operand(
        iri=checking.word(word, path, bare=True),
        label=label.en,
        label_zh=label.zh,
        values=values,
        kind=checking.one_of(raw.get("kind"), _KINDS, f"{path}/kind"),
        operators=frozenset(operators),
        source=checking.one_of(raw.get("source"), _SOURCES, f"{path}/source"),
        check=checking.one_of(raw.get("check"), _CHECKS, f"{path}/check"),
        stage=checking.one_of(raw.get("stage"), _STAGES, f"{path}/stage", "catalog"),
        low=_number(raw, "low", path, checking),
        high=_number(raw, "high", path, checking),
        low_in=raw.get("low_in") is None or checking.flag(raw["low_in"], f"{path}/low_in"),
        step=_number(raw, "step", path, checking) or 0,
        integral=checking.flag(raw.get("integral"), f"{path}/integral"),
    )


def _operators(raw: object, path: str, checking: Checking) -> dict[str, str]:
    """What is written -> what it means here."""
    if isinstance(raw, str):
        return {name: name for name in _SETS[checking.one_of(raw, _SETS, path)]}
    pairs = raw.items() if isinstance(raw, Mapping) else [(entry, entry) for _, entry in checking.entries(raw, path)]
    found = {}
    for theirs, ours in pairs:
        for name in {theirs, ours} - set(OPERATORS):
            checking.note(path, f"`{shown(str(name))}` is no operator of ODRL", f"use {', '.join(OPERATORS)}", Code.OPERATOR_UNSUPPORTED)
        found[theirs] = ours
    if not found:
        checking.note(path, "there is no operator", "write a list of operators, or `order`, `choice` or `concept`")
    return found


def _number(raw: Mapping[str, Any], name: str, path: str, checking: Checking) -> Number | None:
    if raw.get(name) is None:
        return None
    try:
        return number(raw[name])[0]
    except PolicyError:
        checking.note(f"{path}/{name}", f"`{shown(str(raw[name]))}` is no number", "write digits")
        return None


def _alias(word: str, row: object, path: str, labels: dict[str, Label], checking: Checking) -> Alias:
    raw = checking.mapping(row, path, _ALIAS)
    iri = checking.word(word, path, bare=True)
    label = checking.label(raw, path, required=iri not in labels)
    labels.setdefault(iri, label)
    value = checking.text(raw.get("value"), f"{path}/value") or "{}"
    if value.count("{}") != 1:
        checking.note(f"{path}/value", f"`{shown(value)}` has not one place for what was written", "write `{}` once, like `P{}D`")
    offset = checking.flag(raw.get("offset"), f"{path}/offset")
    if offset != ("otherwise" in raw):
        checking.note(path, "`offset` and `otherwise` belong together", "write both or none")
    return Alias(
        iri=iri,
        operand=checking.word(raw.get("of"), f"{path}/of", bare=True),
        operators=_operators(raw.get("operators"), f"{path}/operators", checking),
        value=value,
        offset=offset,
        otherwise=checking.word(raw["otherwise"], f"{path}/otherwise", bare=True) if "otherwise" in raw else "",
        separator=checking.text(raw.get("separator"), f"{path}/separator"),
    )


def _action(word: str, row: object, path: str, labels: dict[str, Label], checking: Checking) -> tuple[str, str]:
    raw = checking.mapping(row, path, ("in", "en", "zh"))
    iri = checking.word(word, path)
    labels[iri] = checking.label(raw, path)
    return iri, checking.word(raw["in"], f"{path}/in") if "in" in raw else ""


def _vocabulary(document: Mapping[str, Any], rows: Mapping[str, Any], labels: dict[str, Label], checking: Checking) -> Vocabulary | None:
    broader: dict[str, tuple[str, ...]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    same: list[tuple[str, str]] = []
    for word, row in rows.items():
        path = at("/concepts", word)
        raw = checking.mapping(row, path, ("broader", "part_of", "same", "en", "zh"))
        iri = checking.word(word, path)
        labels[iri] = checking.label(raw, path)
        broader[iri] = checking.words(raw.get("broader"), f"{path}/broader")
        if "part_of" in raw:
            parts[iri] = checking.words(raw["part_of"], f"{path}/part_of")
        same += [(iri, other) for other in checking.words(raw.get("same"), f"{path}/same")]
    disjoint = []
    for path, pair in checking.entries(document.get("disjoint"), "/disjoint"):
        found = checking.words(pair, path)
        if len(found) == 2:  # noqa: PLR2004 - a pair
            disjoint.append((found[0], found[1]))
        else:
            checking.note(path, "it is no pair", "write two concepts")
    if not broader and not disjoint:
        return None
    return Vocabulary(str(document.get("id", "")), broader, parts, tuple(disjoint), tuple(same))


def _fit(packs: list[tuple[str, Profile]], checking: Checking) -> None:
    """Whether packs can be used together: no word stands twice, and what an alias or an action refers to is there."""
    operands = {operand.iri: operand for operand in CORE_OPERANDS}
    actions, ids, prefixes = {*INCLUDED_IN, *EXACT_MATCH}, set[str](), dict[str, str]()
    aliases = {alias.iri for alias in CORE_ALIASES}
    for name, profile in packs:
        lead = f"{name}#" if name else ""
        if profile.id in ids:
            checking.note(f"{lead}/id", f"there is another pack `{shown(profile.id)}`", "load one of them", Code.CONFLICTING_TERMS)
        ids.add(profile.id)
        for prefix, space in profile.prefixes.items():
            if prefixes.setdefault(prefix, space) != space:
                message = f"`{prefix}:` is `{prefixes[prefix]}` in another pack"
                checking.note(at(f"{lead}/prefixes", prefix), message, "choose another prefix", Code.CONFLICTING_TERMS)
        for operand in profile.operands:
            if operand.iri in operands:
                message = f"`{compact(operand.iri)}` is defined elsewhere"
                checking.note(at(f"{lead}/operands", operand.iri), message, "leave it out", Code.CONFLICTING_TERMS)
            operands[operand.iri] = operand
        actions |= profile.actions.keys()
    for name, profile in packs:
        lead = f"{name}#" if name else ""
        for alias in profile.aliases:
            path = at(f"{lead}/aliases", alias.iri)
            if alias.iri in aliases:
                checking.note(path, f"`{compact(alias.iri)}` is defined elsewhere", "leave it out", Code.CONFLICTING_TERMS)
            aliases.add(alias.iri)
            _stands_for(alias, operands, path, checking)
        for action, up in profile.actions.items():
            if up and up not in actions:
                fix = "name an action of the core, or of a pack that is loaded"
                checking.note(at(f"{lead}/actions", action), f"`{compact(up)}` is no action", fix, Code.ACTION_UNSUPPORTED)
        for action in profile.duties.keys() - actions:
            checking.note(at(f"{lead}/duties", action), "it is no action", "define it among the actions", Code.ACTION_UNSUPPORTED)


def _stands_for(alias: Alias, operands: Mapping[str, Operand], path: str, checking: Checking) -> None:
    for iri in (alias.operand, alias.otherwise):
        operand = operands.get(iri)
        if iri and operand is None:
            fix = "name an operand of the core, or of a pack that is loaded"
            checking.note(f"{path}/of", f"`{shown(compact(iri))}` is no left operand", fix, Code.OPERAND_UNSUPPORTED)
        elif operand is not None and (misfits := sorted(set(alias.operators.values()) - operand.operators)):
            message = f"`{compact(iri)}` does not take {', '.join(f'`{name}`' for name in misfits)}"
            checking.note(f"{path}/operators", message, f"use {', '.join(sorted(operand.operators))}", Code.OPERATOR_UNSUPPORTED)
