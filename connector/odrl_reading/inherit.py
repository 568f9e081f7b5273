"""What a policy takes over from those it inherits from (ODRL 2.2 IM, 2.8): their properties, profiles, conflict and rules.

Parents come from the caller's own store. One that is not at hand, or a loop, refuses the child: nothing is ever fetched, and a rule that
was inherited must not get lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field

from connector.odrl.codes import Code
from connector.odrl.model import Policy, Rule
from connector.odrl.words import shown
from connector.odrl_reading.reading import NONE, Reading, iri, place, several

GENERATIONS_MAX: Final = 8
Read = Callable[[object, Reading, Mapping[str, object]], Policy | None]


class Inherited(Struct):
    """What came from the parents, with their ids."""

    parents: tuple[str, ...] = ()
    rules: dict[str, tuple[Rule, ...]] = field(default_factory=lambda: {"permission": (), "prohibition": (), "obligation": ()})
    conflict: Literal["", "prohibit", "permit", "invalid"] = ""
    profiles: frozenset[str] = NONE
    target: str | None = None
    assigner: str | None = None
    assignees: frozenset[str] = NONE


def contradict(path: str, reading: Reading) -> None:
    """Two policies that become one say differently who wins; neither may be dropped in silence (ODRL 2.2 IM, 2.9)."""
    message = "the policies that are inherited from, or this one, differ in who wins a conflict"
    reading.note(Code.CONFLICTING_TERMS, path, message, "write the same `odrl:conflict` in all of them, or in one only")


def gather(known: Mapping[str, Any], child: str, parents: Mapping[str, object], reading: Reading, read: Read) -> Inherited:
    """What the policy `child` with the properties `known` takes over from `parents` (IRI -> document); `read` reads one of them."""
    found = Inherited()
    if "inheritFrom" not in known:
        return found
    at, ancestors = place(known, "", "inheritFrom"), reading.ancestors | {child}
    if len(ancestors) > GENERATIONS_MAX:
        reading.give_up(at, f"more than {GENERATIONS_MAX} policies inherit from each other", "write the rules down")
    for path, entry in several(known["inheritFrom"], at):
        name = iri(entry, path, reading, required=True)
        if name is None:
            continue
        if name in ancestors:
            reading.note(Code.INHERITANCE_LOOP, path, f"`{shown(name)}` inherits from itself", "leave one of them out")
        elif name not in parents:
            reading.note(Code.INHERITANCE_UNKNOWN, path, f"the policy `{shown(name)}` is not at hand", "write its rules down here")
        else:
            inner = Reading(reading.registry, reading.dialect, reading.references, ancestors, reading.base + path)
            _take(found, name, path, read(parents[name], inner, parents), inner, reading)
    return found


def _take(found: Inherited, name: str, path: str, parent: Policy | None, inner: Reading, reading: Reading) -> None:
    for finding in inner.findings:
        at = finding.path.removeprefix(inner.base)
        reading.note(finding.code, path, f"in `{shown(name)}`{at}: {finding.message}", finding.fix, finding.severity)
    reading.instants |= inner.instants
    reading.usage |= inner.usage
    reading.measures |= inner.measures
    reading.count(inner.leaves, path)
    if parent is None:
        return
    found.parents += (name, *parent.inherits)
    for kind, rules in (("permission", parent.permissions), ("prohibition", parent.prohibitions), ("obligation", parent.obligations)):
        found.rules[kind] += rules
    if found.conflict and parent.conflict and found.conflict != parent.conflict:
        contradict(path, reading)
    found.conflict = found.conflict or parent.conflict
    found.profiles |= parent.profiles
    found.target, found.assigner = found.target or parent.target, found.assigner or parent.assigner
    found.assignees = found.assignees or parent.assignees
