"""What the words of a policy stand for: operands, actions and concepts, of the core and of the profiles and vocabularies beside it.

A profile is data: rows like those of the core, so that a foreign caller adds operands without touching this code. What no row names has no
meaning here: a policy that uses it is refused when it is written and permits nothing when it is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple
from weakref import WeakValueDictionary

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding
from connector.odrl.model import Number, Options
from connector.odrl.vocabulary import CORE_PROFILE, EXACT_MATCH, INCLUDED_IN, ODRL, compact
from connector.values import Value

CHOICE: Final = frozenset({"eq", "neq", "isAnyOf", "isNoneOf"})
ORDER: Final = CHOICE | {"lt", "lteq", "gt", "gteq", "isAllOf"}
CONCEPT: Final = CHOICE | {"isA", "isPartOf", "hasPart", "isAllOf"}

Values = Literal["instant", "duration", "number", "term", "event"]
When = Literal["pre", "with", "post"]
Check = Literal["verified", "measured", "declared", "contract-only"]


class Label(NamedTuple):
    """What people call a word, in English and Chinese. In the name of an action `{}` is the place of the thing that is used."""

    en: str
    zh: str


NO_LABEL: Final = Label("", "")


class Operand(Value):
    """A left operand: what its values are, which operators it takes, who knows the fact and from when on.

    `kind`: `usage` is what an act does (several values in one request are several acts, each of which must be permitted), `subject` what a
    party is (it has all of its values at once), `time`, `counter` and `quantity` are single values, `declarative` is what nobody can look
    up. `check` says to people how a constraint on it is held: by a credential, by a meter, by the other side's word, or by the contract
    alone. `stage` is the first at which the fact can be known. `low` and `high` bound the axis (`low_in`: the bound itself is a value),
    `step` is the least that one more use adds to a counter, or that a use lasts. `integral` says that only whole numbers are values.
    """

    iri: str
    label: str
    label_zh: str
    values: Values
    kind: Literal["usage", "subject", "time", "counter", "quantity", "declarative"]
    operators: frozenset[str]
    source: Literal["clock", "identity", "claims", "declared", "agreement", "meter", "log", "contract"]
    check: Check
    stage: Literal["catalog", "negotiation", "agreement", "transfer", "end"] = "catalog"
    low: Number | None = None
    high: Number | None = None
    low_in: bool = True
    step: Number = 0
    integral: bool = False

    @property
    def usage(self) -> bool:
        """Whether several values in one request are several acts."""
        return self.kind == "usage"

    @property
    def single(self) -> bool:
        """Whether there is one value at a time, so that `isAllOf` two is never satisfied."""
        return self.kind not in ("subject", "declarative")


class Alias(Value):
    """Another word for a constraint on an operand. `operators` turns its operators into ours (those that are missing are not taken);
    `value` is a pattern for the right operand with `{}` for what was written, such as `P{}D`; `offset` reads `contractAgreement+30d` as a
    duration of `operand` and everything else as an instant of `otherwise`; `separator` parts one string into several values. An alias
    goes before an operand of the same IRI."""

    iri: str
    operand: str
    operators: Mapping[str, str]
    value: str = "{}"
    offset: bool = False
    otherwise: str = ""
    separator: str = ""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Concepts: `broader` gives what each lies directly below, `parts` what each is directly part of; `disjoint` are pairs that share
    nothing (siblings are not disjoint unless it says so); `same` are pairs of one meaning."""

    id: str
    broader: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    disjoint: tuple[tuple[str, str], ...] = ()
    same: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Profile:
    """A profile of ODRL as data: the IRIs by which policies name it, its operands, aliases and actions (IRI -> the one it is included
    in, "" for none), the stage at which a duty of an action is due, and its concepts. `version` is stored with what it decided. `labels`
    say what people call its actions, concepts and aliases, `source` and `licence` where all of it is from. `contexts` are JSON-LD contexts
    (URL -> document) under which policies of the profile are written: none is ever fetched."""

    id: str
    version: str = ""
    iris: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    operands: tuple[Operand, ...] = ()
    aliases: tuple[Alias, ...] = ()
    actions: Mapping[str, str] = field(default_factory=dict)
    duties: Mapping[str, When] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    label: Label = NO_LABEL
    source: str = ""
    licence: str = ""
    contexts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# When a duty of a core action is due: before the use (a gate, which is also meant where nothing is said), with it (it shapes the flow), or
# after it (it is watched).
_WITH: Final = ("anonymize", "watermark", "transform", "modify", "attribute", "nextPolicy")
_POST: Final = ("delete", "inform", "uninstall", "archive")
DUTY_TIME: Final[Mapping[str, When]] = MappingProxyType(
    {**{ODRL + name: "with" for name in _WITH}, **{ODRL + name: "post" for name in _POST}}
)


class Registry(Value, eq=False, weakref=True):
    """Everything that is known, by every spelling. `above` maps a concept to itself and all that it lies below, `whole` to itself and all
    that it is part of; `kinds` and `wholes` are, of each vocabulary, the concepts that it orders by kind, and by part. `seconds`: a plain
    number is a duration too."""

    operands: Mapping[str, Operand]
    aliases: Mapping[str, Alias]
    actions: Mapping[str, str]
    within: Mapping[str, frozenset[str]]
    above: Mapping[str, frozenset[str]]
    whole: Mapping[str, frozenset[str]]
    kinds: tuple[frozenset[str], ...]
    wholes: tuple[frozenset[str], ...]
    disjoint: frozenset[frozenset[str]]
    profiles: frozenset[str]
    prefixes: Mapping[str, str]
    duties: Mapping[str, When]
    versions: Mapping[str, str]
    labels: Mapping[str, Label]
    contexts: Mapping[str, Mapping[str, Any]]
    seconds: bool = False

    def action_within(self, spelling: str) -> frozenset[str]:
        """An action in any spelling -> itself and all that it is included in; empty for one that is not known."""
        return self.within.get(self.actions.get(spelling, ""), frozenset())

    def below(self, concept: str, other: str) -> bool:
        """Whether `concept` is `other` or lies below it."""
        return concept == other or other in self.above.get(concept, ())

    def part_of(self, thing: str, other: str) -> bool:
        """Whether `thing` is `other` or a part of it."""
        return thing == other or other in self.whole.get(thing, ())

    def stands(self, how: Literal["isA", "isPartOf"], one: str, other: str) -> bool | None:
        """Whether `one` is `other`, or lies below it, or is a part of it. No, if a vocabulary says that the two share nothing, or if one
        vocabulary names them both and does not say it; else None: nobody here knows what `one` is (odrl.md 4.2)."""
        if one == other or other in (self.above if how == "isA" else self.whole).get(one, ()):
            return True
        named = any(one in scheme and other in scheme for scheme in (self.kinds if how == "isA" else self.wholes))
        return False if named or self.apart(one, other) else None

    def apart(self, one: str, other: str) -> bool:
        """Whether two concepts are asserted to share nothing: they, or any that they lie below."""
        if not self.disjoint:
            return False
        ones, others = self.above.get(one, frozenset({one})), self.above.get(other, frozenset({other}))
        return any(frozenset({a, b}) in self.disjoint for a in ones for b in others)


def registry_of(options: Options) -> Registry:
    """The registry for these options; the same object for the same profiles and vocabularies. Raises PolicyError for a profile that gives
    a word of the ODRL core another meaning, and for two that say of one context different things."""
    return _registry(options.profiles, options.vocabularies, options.duration_mode == "seconds")


_HELD: Final = WeakValueDictionary[tuple[tuple[Profile, ...], tuple[Vocabulary, ...], bool], Registry]()


@lru_cache(maxsize=64)
def _registry(profiles: tuple[Profile, ...], vocabularies: tuple[Vocabulary, ...], seconds: bool) -> Registry:
    """A policy that somebody still holds keeps its registry the one for these words, however many others came after it."""
    found = _HELD.get((profiles, vocabularies, seconds))
    if found is None:
        found = _HELD[profiles, vocabularies, seconds] = _built(profiles, vocabularies, seconds)
    return found


def _built(profiles: tuple[Profile, ...], vocabularies: tuple[Vocabulary, ...], seconds: bool) -> Registry:
    from connector.odrl.operands import CORE_ALIASES, CORE_OPERANDS

    for profile in profiles:
        _leaves_the_core_alone(profile, {row.iri for row in CORE_OPERANDS} | {row.iri for row in CORE_ALIASES})
    rows = [*CORE_OPERANDS, *(operand for profile in profiles for operand in profile.operands)]
    aliases = [*CORE_ALIASES, *(alias for profile in profiles for alias in profile.aliases)]
    included = dict(INCLUDED_IN)
    for profile in profiles:
        included.update(profile.actions)
    concepts = [*vocabularies, *(profile.vocabulary for profile in profiles if profile.vocabulary is not None)]
    same = dict(EXACT_MATCH)
    prefixes = {name: iri for profile in profiles for name, iri in profile.prefixes.items()}
    actions = {"use": ODRL + "use"}
    for iri in [*included, *same]:
        actions |= dict.fromkeys(_spellings(iri, prefixes), same.get(iri, iri))
    return Registry(
        operands={spelling: row for row in rows for spelling in _spellings(row.iri, prefixes)},
        aliases={spelling: row for row in aliases for spelling in _spellings(row.iri, prefixes)},
        actions=actions,
        within=_closure({iri: (up,) if up else () for iri, up in included.items()}),
        above=_closure(_joined(concepts, "broader")),
        whole=_closure(_joined(concepts, "parts")),
        kinds=tuple(_named(each.broader, *each.disjoint, *each.same) for each in concepts),
        wholes=tuple(_named(each.parts) for each in concepts),
        disjoint=frozenset(frozenset(pair) for vocabulary in concepts for pair in vocabulary.disjoint),
        profiles=frozenset({CORE_PROFILE, *(iri for profile in profiles for iri in profile.iris)}),
        prefixes=prefixes,
        duties={**DUTY_TIME, **{iri: when for profile in profiles for iri, when in profile.duties.items()}},
        versions={profile.id: profile.version for profile in profiles},
        labels={iri: label for profile in profiles for iri, label in profile.labels.items()},
        contexts=_contexts(profiles),
        seconds=seconds,
    )


def _leaves_the_core_alone(profile: Profile, operands: set[str]) -> None:
    """Whoever agrees on a word of the core means what ODRL says: no profile may make a counter what somebody declares (ODRL 2.2 IM, 3)."""
    named = [iri for iri in (*(row.iri for row in profile.operands), *(row.iri for row in profile.aliases)) if iri in operands]
    moved = [iri for iri, up in profile.actions.items() if iri in EXACT_MATCH or INCLUDED_IN.get(iri, up) != up]
    for iri in (*named, *moved):
        message = f"the profile `{profile.id}` gives `{compact(iri)}` another meaning than ODRL"
        finding = Finding(Code.CONFLICTING_TERMS, "", message, "give it an IRI of its own")
        raise PolicyError(str(finding), (finding,))


def _contexts(profiles: Iterable[Profile]) -> dict[str, Mapping[str, Any]]:
    """The contexts of all profiles by their URL, under which each is one and the same."""
    found: dict[str, Mapping[str, Any]] = {}
    for profile in profiles:
        for url, document in profile.contexts.items():
            if found.setdefault(url, document) != document:
                message = f"the profile `{profile.id}` says of the context `{url}` something else than another profile"
                finding = Finding(Code.CONFLICTING_TERMS, "", message, "load one of them")
                raise PolicyError(str(finding), (finding,))
    return found


def _spellings(iri: str, prefixes: Mapping[str, str]) -> list[str]:
    """The IRI in full and by each prefix that is known."""
    short = [f"{name}:{iri[len(space) :]}" for name, space in prefixes.items() if iri.startswith(space)]
    return [iri, compact(iri), *short]


def _named(steps: Mapping[str, tuple[str, ...]], *pairs: tuple[str, str]) -> frozenset[str]:
    return frozenset(steps).union(*steps.values(), *pairs)


def _joined(concepts: Iterable[Vocabulary], what: Literal["broader", "parts"]) -> dict[str, tuple[str, ...]]:
    """The direct steps of all vocabularies; concepts of one meaning lie below each other."""
    found: dict[str, set[str]] = {}
    for vocabulary in concepts:
        for concept, up in (vocabulary.broader if what == "broader" else vocabulary.parts).items():
            found.setdefault(concept, set()).update(up)
        for one, other in vocabulary.same:
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return {concept: tuple(up) for concept, up in found.items()}


def _closure(steps: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    """Each with itself and all that can be reached; loops are harmless."""
    found = {}
    for start in steps:
        reached, waiting = {start}, list(steps[start])
        while waiting:
            if (next_one := waiting.pop()) not in reached:
                reached.add(next_one)
                waiting.extend(steps.get(next_one, ()))
        found[start] = frozenset(reached)
    return found
