"""What a rule names -> what it is about: its actions, its assets, its parties, each with its refinements."""

from __future__ import annotations

from typing import Final, Literal

from connector.odrl.codes import Code
from connector.odrl.model import Action, Node, Scope
from connector.odrl.vocabulary import ODRL, WITHOUT_SUCCESSOR, compact
from connector.odrl.words import shown
from connector.odrl_reading.constraints import nodes
from connector.odrl_reading.reading import NONE, Reading, fields, iri, place, several, type_of

_SCOPE: Final = frozenset({"@id", "@type", "source", "refinement"})
_ACTION: Final = frozenset({"@id", "@type", "value", "refinement"})


def name_once(id: str, refinement: object, path: str, reading: Reading) -> None:
    """A finding for what is narrowed by `refinement` here, and was narrowed otherwise, or not at all, where its id stood before: to a
    reader of RDF the id names one thing, and all of it narrows that wherever it stands."""
    if reading.described.setdefault(f"{id} narrowed", refinement) != refinement:  # no IRI has a space in it
        message = f"`{shown(id)}` is narrowed in one place and otherwise in another, and readers of RDF take both for one"
        reading.note(Code.MALFORMED, path, message, "give what is narrowed an id of its own, or write `rdf:value` or `odrl:source`")


def actions(raw: object, path: str, reading: Reading) -> tuple[Action, ...]:
    """The actions that stand at `path`: words, or objects with refinements. What cannot be meant is a finding."""
    entries = several(raw, path)
    reading.look_at(len(entries), path)
    found = tuple(dict.fromkeys(action for at, entry in entries if (action := _action(entry, at, reading)) is not None))
    reading.count(max(0, len(found) - 1), path)  # RDF keeps no word twice
    return found


def _action(raw: object, path: str, reading: Reading) -> Action | None:
    written, at = raw, path
    refinements: tuple[Node, ...] = ()
    refinement: object = None
    id: str | None = None
    if isinstance(raw, dict) and raw.keys() != {"@id"}:
        known, opaque = fields(raw, _ACTION, path, reading)
        type_of(known, "action", path, reading)
        written = known.get("value", known.get("@id"))
        at = place(known, path, "value" if "value" in known else "@id")
        refinement = known.get("refinement")
        if "value" in known:
            id = iri(known.get("@id"), place(known, path, "@id"), reading) or ""
        refinements = nodes(refinement, place(known, path, "refinement"), reading)
        if opaque:
            return Action("", NONE, refinements)
    word = written["@id"] if isinstance(written, dict) and written.keys() == {"@id"} else written
    if not isinstance(word, str) or not word:
        reading.note(Code.MALFORMED, path, "the action is no string", "write `use`")
        return None
    registry = reading.registry
    name = registry.actions.get(word) or registry.actions.get(reading.expand(word) or "")
    if name is None and reading.dialect == "odrl" and ":" not in word:
        name = registry.actions.get(f"odrl:{word}")
    if name is None:
        _unknown_action(word, at, reading)
        return Action(word, NONE, refinements)
    if name != (reading.expand(word) or (ODRL + word if reading.dialect == "odrl" and ":" not in word else name)):
        message = f"`{shown(word)}` is deprecated for `{compact(name)}`"
        patch = ({"op": "replace", "path": at, "value": {"@id": compact(name)} if isinstance(written, dict) else compact(name)},)
        reading.note(Code.DEPRECATED, at, message, f"write `{compact(name)}`", "warning", patch=patch)
    if id != "":
        name_once(id or name, refinement, path, reading)
    return Action(name, registry.within[name], refinements)


def _unknown_action(word: str, path: str, reading: Reading) -> None:
    actions = reading.registry.actions
    full = reading.expand(word) or (ODRL + word if reading.dialect == "odrl" else "")
    if full in WITHOUT_SUCCESSOR:
        message = f"`{compact(full)}` is deprecated in ODRL 2.2, and no action of today means it"
        reading.note(Code.DEPRECATED, path, message, WITHOUT_SUCCESSOR[full], found=compact(full))
    elif reading.expand(word) is not None or reading.dialect == "odrl":
        near = reading.nearest(word, actions)
        fix = f"write `{near}` if that is meant" if near else "write `use` or another core action"
        reading.note(Code.ACTION_UNSUPPORTED, path, f"the action `{shown(word)}` is not known here", fix)
    else:
        fix = f"write `odrl:{word}`" if "odrl:" + word in actions else "write `use`, or an action of the ODRL core as `odrl:read`"
        patch = ({"op": "replace", "path": path, "value": f"odrl:{word}"},) if "odrl:" + word in actions else ()
        reading.note(Code.TERM_DROPPED, path, f"`{shown(word)}` is no term of the DSP context, so it names no action", fix, patch=patch)


def scopes(raw: object, what: Literal["asset", "party"], path: str, reading: Reading) -> tuple[Scope, ...]:
    """The assets or parties that stand at `path`: ids, or collections with refinements. What cannot be meant is a finding."""
    if raw is None:
        return ()
    if raw == []:
        reading.note(Code.EMPTY_SET, path, "it names nobody" if what == "party" else "it names nothing", "name one or leave it out")
    entries = several(raw, path)
    reading.look_at(len(entries), path)
    found = tuple(dict.fromkeys(scope for at, entry in entries if (scope := _scope(entry, what, at, reading)) is not None))
    reading.count(max(0, len(found) - 1), path)
    return found


def _scope(raw: object, what: Literal["asset", "party"], path: str, reading: Reading) -> Scope | None:
    if not isinstance(raw, dict) or raw.keys() == {"@id"}:
        name = iri(raw, path, reading, required=True)
        if name is not None:
            name_once(name, None, path, reading)
        return None if name is None else Scope(name)
    known, opaque = fields(raw, _SCOPE, path, reading)
    if opaque:
        return Scope("")
    kind = type_of(known, what, path, reading)
    refinements = nodes(known.get("refinement"), place(known, path, "refinement"), reading)
    collection = (kind is not None and kind.endswith("Collection")) or "source" in known
    name = iri(known.get("@id", known.get("source")), path, reading, required=True)
    if name is not None and "@id" in known:
        name_once(name, known.get("refinement"), path, reading)
    return None if name is None else Scope(name, refinements, collection)
