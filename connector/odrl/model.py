"""The small immutable form of a policy, and what it is asked: policy, rules, constraints, request, world, options, findings.

Everything that an evaluation needs is computed once, when the policy is read: each constraint carries its `judge`, a closure from the facts
to FALSE, UNKNOWN or TRUE, and the policy carries the instants at which any of them may change its mind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from connector.odrl.codes import Code, Finding, Result, Stage
from connector.values import Value, field

if TYPE_CHECKING:
    from connector.odrl.registry import Profile, Registry, Vocabulary

# Kleene's three values, ordered so that `and` is min and `or` is max.
FALSE: Final = 0
UNKNOWN: Final = 1
TRUE: Final = 2

Number = int | Fraction  # never a float; instants and durations are microseconds


class Since(NamedTuple):
    """A duration that is running: from `anchor` to `now`, in microseconds since 1970."""

    anchor: int
    now: int


NEVER: Final = 10**24  # the time since a use that has not been, in microseconds: longer than any calendar

# Left operand IRI -> what holds in this atom of a request: the one value of what an act does, all values of what a party is.
Fact = str | int | Fraction | Since | frozenset[str]
Facts = Mapping[str, Fact]
Judge = Callable[[Facts], int]

# A place between two values: (v, 0) lies just before v, (v, 1) just after it. Instants are whole microseconds and have only (v, 0).
Cut = tuple[Number, int]


class Window(Value):
    """Satisfied by the values between two cuts (None = unbounded), or by those outside of them if negated. The axis is that of the
    operand: instants (microseconds since 1970), or numbers in `unit`."""

    start: Cut | None
    end: Cut | None
    negated: bool = False


class Span(Value):
    """A length of time as it is written: calendar months and microseconds, which only an anchor makes comparable."""

    months: int
    microseconds: int


class Lapse(Value):
    """Satisfied by the durations between two lengths (None = unbounded; `start_in`, `end_in` say whether the length itself is in), or by
    those outside of them if negated."""

    start: Span | None
    end: Span | None
    start_in: bool = True
    end_in: bool = True
    negated: bool = False


class Members(Value):
    """Satisfied by what stands in relation `operator` to the values: eq, neq, isA, hasPart, isPartOf, isAllOf, isAnyOf, isNoneOf."""

    values: frozenset[str]
    operator: str

    @property
    def negated(self) -> bool:
        """Whether it is satisfied by what is not among the values."""
        return self.operator in ("neq", "isNoneOf")


Test = Window | Lapse | Members


def fact_key(operand: str, unit: str) -> str:
    """The key of a fact: the left operand, and the unit in which a number of it is counted."""
    return f"{operand} {unit}" if unit else operand


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """An atomic constraint: left operand (full IRI), operator (bare name), right values as written, and what they mean.

    `label` is what people call the operand, `unit` the IRI of the unit as written, or "", `id` its `uid`, `used` its `status`, or "".
    """

    path: str
    operand: str
    operator: str
    expected: tuple[str, ...]
    test: Test
    judge: Judge = dataclasses.field(repr=False, compare=False)
    unit: str = ""
    id: str = ""
    label: str = dataclasses.field(default="", compare=False)
    used: str = dataclasses.field(default="", repr=False, compare=False)

    @property
    def fact(self) -> str:
        """The key of its fact: numbers in different units are different facts."""
        return fact_key(self.operand, self.unit) if self.unit else self.operand


@dataclasses.dataclass(frozen=True, slots=True)
class Logic:
    """A logical constraint over its parts: all, one at least, exactly one, or all in this order."""

    path: str
    kind: Literal["and", "or", "xone", "andSequence"]
    parts: tuple[Node, ...]
    judge: Judge = dataclasses.field(repr=False, compare=False)
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Opaque:
    """A constraint that nobody here understands, as canonical JSON; a finding of the policy says why. It judges UNKNOWN."""

    path: str
    text: str
    judge: Judge = dataclasses.field(repr=False, compare=False)
    id: str = ""


Node = Constraint | Logic | Opaque


def leaves(nodes: Iterable[Node]) -> Iterator[Constraint | Opaque]:
    """The constraints that have no parts, however deep they stand."""
    for node in nodes:
        if isinstance(node, Logic):
            yield from leaves(node.parts)
        else:
            yield node


WHOLE: Final = ("and", "andSequence")  # logical constraints of which every part has to hold


def conjuncts(nodes: Iterable[Node]) -> Iterator[Node]:
    """The constraints that all have to hold, without the `and`s around them, and without choices of one."""
    for node in nodes:
        if isinstance(node, Logic) and (node.kind in WHOLE or len(node.parts) == 1):
            yield from conjuncts(node.parts)
        else:
            yield node


class Action(Value):
    """An action (full IRI), narrowed by its refinements. `within` is the action and all that it is included in."""

    iri: str
    within: frozenset[str]
    refinements: tuple[Node, ...] = ()


class Scope(Value):
    """An asset or a party by its id, or the members of a collection (`source`) that the refinements choose."""

    id: str
    refinements: tuple[Node, ...] = ()
    collection: bool = False

    def holds(self, thing: str | None, world: World) -> bool:
        """Whether it is this thing, or a collection that the thing is in."""
        return thing is not None and (self.id == thing or self.id in world.member_of.get(thing, ()))


RuleKind = Literal["permission", "prohibition", "obligation", "duty", "remedy", "consequence"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A permission, a prohibition, or a duty in one of its four roles: `obligation` of the policy, `duty` of a permission, `remedy` of a
    prohibition, `consequence` of a duty.

    Several actions, targets or assignees are alternatives; () stands for any action, for the policy's target, for the policy's assignees
    (or everybody). All constraints count. `duties` hold the duties of a permission, the remedies of a prohibition, the consequences of a
    duty. `when` says of a duty whether it comes before the use, with it, or after it; `gates` of an obligation that the use waits
    for it; `functions` names further parties by their function (`compensatedParty`). `opaque` is the canonical JSON of whatever else the
    rule says; a policy with any of it is refused. `judge` judges the constraints. `refinements` are those of actions, targets, assignees.
    """

    path: str
    kind: RuleKind
    actions: tuple[Action, ...]
    targets: tuple[Scope, ...]
    assigners: tuple[Scope, ...]
    assignees: tuple[Scope, ...]
    constraints: tuple[Node, ...]
    opaque: str
    judge: Judge = dataclasses.field(repr=False, compare=False)
    id: str = ""
    duties: tuple[Rule, ...] = ()
    when: Literal["pre", "with", "post"] = "pre"
    functions: tuple[tuple[str, str], ...] = ()
    gates: bool = False
    refinements: tuple[Node, ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        narrowed = [node for action in self.actions for node in action.refinements]
        narrowed += [node for scope in (*self.targets, *self.assignees) for node in scope.refinements]
        object.__setattr__(self, "refinements", tuple(narrowed))


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A policy, read once. `kind` is Set, Offer, Agreement, or another class of ODRL.

    `conflict` is what the policy itself says of it, "" if nothing. `instants` are the sorted points in time (microseconds since 1970) at
    which a constraint may change; `usage` the left operands in use that describe the act (a purpose), `measures` the others but the
    clock, each with its unit ("" for none); `leaves` counts rules, constraints and their values. `refused` says that a finding of
    severity `error` is among `findings`: such a policy permits nothing. `registry` is what its words were read by, `document` the tree
    that it was read from (see `Options`), with the `parents` and `references` that were at hand, `inherits` the ids of its parents.
    `dutiful` says that somebody has something to do under it before, with or after a use. `memo` keeps what was computed from it, for the
    next time.
    """

    id: str
    kind: str
    target: str | None
    assigner: str | None
    assignees: frozenset[str]
    timestamp: str | None
    profiles: frozenset[str]
    conflict: Literal["", "prohibit", "permit", "invalid"]
    permissions: tuple[Rule, ...]
    prohibitions: tuple[Rule, ...]
    obligations: tuple[Rule, ...]
    opaque: str
    findings: tuple[Finding, ...]
    refused: bool
    instants: tuple[int, ...]
    usage: tuple[str, ...]
    measures: tuple[tuple[str, str], ...]
    leaves: int
    registry: Registry = dataclasses.field(repr=False, compare=False)
    document: object = dataclasses.field(repr=False, compare=False)
    inherits: tuple[str, ...] = ()
    parents: Mapping[str, object] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    references: Mapping[str, object] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    dutiful: bool = dataclasses.field(init=False, repr=False, compare=False)
    memo: dict[object, Any] = dataclasses.field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dutiful", bool(self.obligations) or any(rule.duties for rule in self.permissions))

    @property
    def operands(self) -> frozenset[str]:
        """The left operands in use, without the clock."""
        return frozenset((*self.usage, *(operand for operand, _ in self.measures)))

    @property
    def targeted(self) -> bool:
        """Whether a rule names an asset of its own, so that the policy says different things of different ones."""
        return any(rule.targets for rule in self.rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Permissions, prohibitions, obligations."""
        return (*self.permissions, *self.prohibitions, *self.obligations)


def constraints_of(policy: Policy) -> Iterator[Constraint | Opaque]:
    """Every constraint and refinement of a policy that has no parts, those of its duties too."""
    waiting = list(policy.rules)
    while waiting:
        rule = waiting.pop()
        waiting.extend(rule.duties)
        yield from leaves((*rule.constraints, *rule.refinements))


class Request(Value):
    """Who wants to do what with which asset.

    `party` is the id of the requester; `action` any spelling of an ODRL action; `target` the asset (None matches only rules without a
    target); `params` what the requester declares: left operand (full IRI or `odrl:` form) -> values, each a string, {"@id": iri} or
    {"@value": text}. Every declared value must be covered. `stage` is one of Stage; any other word is enforced like `transfer`. `id` is
    the request's own, and `rule` that of the rule in which it was written, for reports.
    """

    party: str
    action: str = "use"
    target: str | None = None
    params: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    stage: str = Stage.TRANSFER
    id: str = ""
    rule: str = ""


class Event(Value):
    """One act that happened: an exercise of the policy's rights, or the performance of a duty.

    `at` is aware; `duty` is the id (or path) of the duty that it performs, if it says so; `params` are values of the act as in `Request`,
    `amounts` what it used: left operand (full IRI) -> number.
    """

    at: datetime
    action: str
    party: str = ""
    target: str | None = None
    params: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    amounts: Mapping[str, Number] = field(default_factory=dict)
    duty: str = ""
    id: str = ""


class Origin(NamedTuple):
    """Who says a fact (an id), of when, and what shows it (an IRI); None where nobody said."""

    asserted_by: str | None = None
    as_of: datetime | None = None
    evidence_ref: str | None = None


DutyState = Literal["inactive", "pending", "fulfilled", "overdue", "remediated"]


class World(Value):
    """What is so: the instant (aware; a naive one counts as not known) and facts about the requester, shaped as `Request.params`.

    Facts and declared values of one operand are joined: all of them must be covered, so neither can hide the other.
    `anchors` say since when a duration runs: left operand (full IRI), or id or path of a duty -> instant. `used` is what was used up
    before: left operand -> number, of the whole policy, or (path of the rule, left operand) -> number, of one rule. `log` holds the acts so
    far (None: nobody keeps one), `duties` the state of duties by id or path where that is known better than from the log
    (`duties.said_of`), `member_of` thing -> the collections that it is in, `origins` left operand -> where its fact comes from, as far as
    that is told.
    """

    now: datetime
    facts: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    anchors: Mapping[str, datetime] = field(default_factory=dict)
    used: Mapping[str | tuple[str, str], Number] = field(default_factory=dict)
    log: tuple[Event, ...] | None = None
    duties: Mapping[str, DutyState] = field(default_factory=dict)
    member_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    id: str = ""
    origins: Mapping[str, Origin] = field(default_factory=dict)


_CHOICES: Final = {
    "conflict": ("prohibit", "permit", "invalid"), "duty_mode": ("strict", "solid"), "recurrence_anchor": ("agreement", "first-use"),
    "duration_mode": ("strict", "seconds"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Choices where ODRL leaves one.

    `conflict` says which rule wins when a permission and a prohibition both apply, if the policy does not say it itself: `invalid` voids
    a policy in which they can. `duty_mode`: a duty before the use that is neither done nor violated blocks (`strict`, the W3C draft) or
    does not (`solid`, the reading of the SolidLab suite). `recurrence_anchor`: from when a duration runs whose anchor the world does not
    name. `measured` are the facts (`fact_key`) that somebody here will have measured or logged by the transfer (None: all of them), so that
    a negotiation is not left to a meter that there is not. `duration_mode`: a duration is an xsd:duration (`strict`, the vocabulary), or a
    plain number is so many seconds, too (`seconds`, the reading of the analyser ODRL-SA and of its suite). `profiles` and `vocabularies`
    add operands, actions and concept hierarchies; a policy that was read without them is read again.
    """

    conflict: Literal["prohibit", "permit", "invalid"] = "prohibit"
    duty_mode: Literal["strict", "solid"] = "strict"
    recurrence_anchor: Literal["agreement", "first-use"] = "agreement"
    measured: frozenset[str] | None = None
    duration_mode: Literal["strict", "seconds"] = "strict"
    profiles: tuple[Profile, ...] = ()
    vocabularies: tuple[Vocabulary, ...] = ()

    def __post_init__(self) -> None:
        for name, words in _CHOICES.items():
            if getattr(self, name) not in words:  # one that is misspelled must not open what the right one closes
                raise ValueError(f"{name} is {getattr(self, name)!r}; write one of {', '.join(words)}")
        object.__setattr__(self, "profiles", tuple(self.profiles))  # any sequence will do; as a key of what is kept it has to be a tuple
        object.__setattr__(self, "vocabularies", tuple(self.vocabularies))


DEFAULT_OPTIONS: Final = Options()

__all__ = ["Code", "Finding", "Result", "Stage"]  # and everything above; these are defined beside it
