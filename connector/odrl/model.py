"""The small immutable form of a policy, and what it is asked: policy, rules, constraints, request, world, options, findings.

Everything that an evaluation needs is computed once, when the policy is read: each constraint carries its `judge`, a closure from the facts
to FALSE, UNKNOWN or TRUE, and the policy carries the instants at which any of them may change its mind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

# Kleene's three values, ordered so that `and` is min and `or` is max.
FALSE: Final = 0
UNKNOWN: Final = 1
TRUE: Final = 2

# Left operand IRI -> the one value that holds in this atom of a request. Time is in microseconds since 1970, UTC.
Facts = Mapping[str, str | int]
Judge = Callable[[Facts], int]


class Code(StrEnum):
    """Why a decision or a finding is what it is. Stable: stored with decisions and sent to peers."""

    PERMITTED = "PERMITTED"
    NO_MATCHING_RULE = "NO_MATCHING_RULE"
    ACTION_NOT_COVERED = "ACTION_NOT_COVERED"
    PARTY_NOT_COVERED = "PARTY_NOT_COVERED"
    CONSTRAINT_UNSATISFIED = "CONSTRAINT_UNSATISFIED"
    CONSTRAINT_UNKNOWN = "CONSTRAINT_UNKNOWN"
    NOT_YET_VALID = "NOT_YET_VALID"
    EXPIRED = "EXPIRED"
    PROHIBITED = "PROHIBITED"
    OPERAND_UNSUPPORTED = "OPERAND_UNSUPPORTED"
    OPERATOR_UNSUPPORTED = "OPERATOR_UNSUPPORTED"
    ACTION_UNSUPPORTED = "ACTION_UNSUPPORTED"
    DUTY_UNSUPPORTED = "DUTY_UNSUPPORTED"
    LOGIC_UNSUPPORTED = "LOGIC_UNSUPPORTED"
    TERM_UNSUPPORTED = "TERM_UNSUPPORTED"  # a property that has a meaning, but none that is known here
    TERM_DROPPED = "TERM_DROPPED"  # a word that the DSP context does not define: JSON-LD readers lose it
    TARGET_IN_RULE = "TARGET_IN_RULE"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    EMPTY_SET = "EMPTY_SET"
    PROFILE_UNKNOWN = "PROFILE_UNKNOWN"
    MALFORMED = "MALFORMED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
    ZONE_MISSING = "ZONE_MISSING"  # a warning: UTC is assumed
    IRI_AS_STRING = "IRI_AS_STRING"  # a warning: here it is taken as the IRI, elsewhere it may not be


class Result(StrEnum):
    """What a decision says. `permit-with` is a permit that comes with duties to perform."""

    PERMIT = "permit"
    PERMIT_WITH = "permit-with"
    DENY = "deny"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """Where a decision is taken. At every stage but `catalog` a missing fact closes."""

    CATALOG = "catalog"
    NEGOTIATION = "negotiation"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a policy that cannot be meant here, or (severity `warning`) that is easily misread.

    `path` is an RFC 6901 pointer into the document as its author wrote it; "" is the whole document.
    """

    code: Code
    path: str
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """The finding as one sentence for whoever wrote the policy."""
        return f"{self.path or 'the policy'}: {self.message}; {self.fix}"

    def to_json(self) -> dict[str, str]:
        """Plain JSON types, for problem reports and stored decisions."""
        return {"code": self.code.value, "path": self.path, "message": self.message, "fix": self.fix, "severity": self.severity}


@dataclass(frozen=True, slots=True)
class Window:
    """Satisfied at the instants `start <= now < end` (microseconds since 1970, None = unbounded), or outside of them if negated."""

    start: int | None
    end: int | None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """Satisfied by one of the values, or by none of them if negated."""

    values: frozenset[str]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """An atomic constraint: left operand (full IRI), operator (bare name), right values as written, and what they mean."""

    path: str
    operand: str
    operator: str
    expected: tuple[str, ...]
    test: Window | Members
    judge: Judge = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Logic:
    """A logical constraint: all (`and`) or one at least (`or`) of its parts."""

    path: str
    kind: Literal["and", "or"]
    parts: tuple[Node, ...]
    judge: Judge = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A constraint that nobody here understands, as canonical JSON; a finding of the policy says why. It judges UNKNOWN."""

    path: str
    text: str
    judge: Judge = field(repr=False, compare=False)


Node = Constraint | Logic | Opaque


@dataclass(frozen=True, slots=True)
class Rule:
    """A permission or prohibition: the action (full IRI), whom it addresses (empty = everybody), and its constraints, all of which count.

    `opaque` is the canonical JSON of whatever else the rule says; a policy with any of it is refused.
    """

    path: str
    kind: Literal["permission", "prohibition"]
    action: str
    assignees: frozenset[str]
    constraints: tuple[Node, ...]
    opaque: str
    judge: Judge = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """An Offer or Agreement of DSP 2025-1, read once.

    `instants` are the sorted points in time (microseconds since 1970) at which a constraint may change; `usage` the left operands in use
    that describe the act (a purpose); `leaves` counts rules, constraints and their values. `refused` says that a finding of severity
    `error` is among `findings`: such a policy permits nothing.
    """

    id: str
    kind: Literal["Offer", "Agreement"]
    target: str | None
    assigner: str | None
    assignees: frozenset[str]
    timestamp: str | None
    profiles: frozenset[str]
    permissions: tuple[Rule, ...]
    prohibitions: tuple[Rule, ...]
    opaque: str
    findings: tuple[Finding, ...]
    refused: bool
    instants: tuple[int, ...]
    usage: tuple[str, ...]
    leaves: int


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants to do what with which dataset.

    `party` is the participant id of the requester; `action` any spelling of an ODRL action; `target` the dataset id (None matches only
    policies without a target); `params` what the requester declares: left operand (full IRI or `odrl:` form) -> values, each a string,
    {"@id": iri} or {"@value": text}. Every declared value must be covered. `stage` is one of Stage; any other word is enforced like them.
    """

    party: str
    action: str = "use"
    target: str | None = None
    params: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    stage: str = Stage.TRANSFER


@dataclass(frozen=True, slots=True)
class World:
    """What is so: the instant (aware; a naive one counts as not known) and facts about the requester, shaped as `Request.params`.

    Facts and declared values of one operand are joined: all of them must be covered, so neither can hide the other.
    """

    now: datetime
    facts: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """Choices where ODRL leaves one. `conflict`: which rule wins when a permission and a prohibition both apply."""

    conflict: Literal["prohibit", "permit"] = "prohibit"


DEFAULT_OPTIONS: Final = Options()
