"""The words in which the engine answers: results, stages, codes, and the one form of a finding."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from connector.values import Value


class Code(StrEnum):
    """Why a decision or a finding is what it is. Stable: stored with decisions and sent to peers."""

    # of decisions
    PERMITTED = "PERMITTED"
    NO_MATCHING_RULE = "NO_MATCHING_RULE"
    ACTION_NOT_COVERED = "ACTION_NOT_COVERED"
    PARTY_NOT_COVERED = "PARTY_NOT_COVERED"
    CONSTRAINT_UNSATISFIED = "CONSTRAINT_UNSATISFIED"
    CONSTRAINT_UNKNOWN = "CONSTRAINT_UNKNOWN"
    NOT_YET_VALID = "NOT_YET_VALID"
    EXPIRED = "EXPIRED"
    PROHIBITED = "PROHIBITED"
    PREDUTY_OPEN = "PREDUTY_OPEN"
    OBLIGATION_OVERDUE = "OBLIGATION_OVERDUE"
    QUOTA_EXHAUSTED = "QUOTA_EXHAUSTED"
    CONSENT_MISSING = "CONSENT_MISSING"
    CONSENT_WITHDRAWN = "CONSENT_WITHDRAWN"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    POLICY_VOID_CONFLICT = "POLICY_VOID_CONFLICT"
    POLICY_REPLACED = "POLICY_REPLACED"
    AGREEMENT_CLOSED = "AGREEMENT_CLOSED"
    EVALUATION_FAILED = "EVALUATION_FAILED"  # a defect of this engine: it denies, and says that it was not the policy

    # of findings that refuse a policy
    OPERAND_UNSUPPORTED = "OPERAND_UNSUPPORTED"
    OPERATOR_UNSUPPORTED = "OPERATOR_UNSUPPORTED"
    ACTION_UNSUPPORTED = "ACTION_UNSUPPORTED"
    TERM_UNSUPPORTED = "TERM_UNSUPPORTED"  # a property that has a meaning, but none that is known here
    TERM_DROPPED = "TERM_DROPPED"  # a word that the context does not define: JSON-LD readers lose it
    TARGET_IN_RULE = "TARGET_IN_RULE"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    UNIT_MISMATCH = "UNIT_MISMATCH"
    EMPTY_SET = "EMPTY_SET"
    PROFILE_UNKNOWN = "PROFILE_UNKNOWN"
    MALFORMED = "MALFORMED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
    CONTEXT_UNKNOWN = "CONTEXT_UNKNOWN"  # a JSON-LD context that is not at hand; none is ever fetched
    INHERITANCE_LOOP = "INHERITANCE_LOOP"
    INHERITANCE_UNKNOWN = "INHERITANCE_UNKNOWN"  # a parent that is not at hand; none is ever fetched
    REFERENCE_UNRESOLVED = "REFERENCE_UNRESOLVED"  # a `rightOperandReference`, or a rule that is only named; none is ever fetched

    # of warnings: it means something, but perhaps not what was meant
    ZONE_MISSING = "ZONE_MISSING"  # UTC is assumed
    IRI_AS_STRING = "IRI_AS_STRING"  # here it is taken as the IRI, elsewhere it may not be
    CONFLICT_UNSET = "CONFLICT_UNSET"  # a permission and a prohibition overlap and the policy does not say who wins
    CONFLICTING_TERMS = "CONFLICTING_TERMS"
    ACTION_MISSING = "ACTION_MISSING"  # any action is meant
    DEPRECATED = "DEPRECATED"
    USE_IMPLIES_DISTRIBUTE = "USE_IMPLIES_DISTRIBUTE"
    PROHIBITION_OF_USE = "PROHIBITION_OF_USE"
    OBLIGATION_NO_DEADLINE = "OBLIGATION_NO_DEADLINE"
    MONTHS_AS_MINUTES = "MONTHS_AS_MINUTES"  # P60M are 60 months
    EQ_AS_LIMIT = "EQ_AS_LIMIT"  # count eq 10, elapsedTime eq P3M
    PAYMENT_AS_CONDITION = "PAYMENT_AS_CONDITION"  # payAmount as a constraint of a duty to pay
    INTERVAL_AS_WINDOW = "INTERVAL_AS_WINDOW"  # timeInterval is a recurrence
    SEQUENCE_UNORDERED = "SEQUENCE_UNORDERED"  # RDF loses the order where no @list is used
    POLICY_CONSTRAINT = "POLICY_CONSTRAINT"  # a constraint of the policy counts for each rule
    DECLARATIVE_ONLY = "DECLARATIVE_ONLY"

    # of the semantic check, each with a witness
    UNSATISFIABLE = "UNSATISFIABLE"
    TAUTOLOGY = "TAUTOLOGY"
    REDUNDANT = "REDUNDANT"
    XONE_OVERLAP = "XONE_OVERLAP"
    XONE_NEVER = "XONE_NEVER"  # a branch of an `xone` that is never the one: whenever it holds, another does too
    SHADOWED = "SHADOWED"  # a permission that a prohibition always beats
    DEONTIC_CONFLICT = "DEONTIC_CONFLICT"
    DUTY_PROHIBITED = "DUTY_PROHIBITED"
    DUTY_AFTER_END = "DUTY_AFTER_END"
    ALREADY_OVER = "ALREADY_OVER"
    DUPLICATE_RULE = "DUPLICATE_RULE"
    CHILD_WIDER = "CHILD_WIDER"  # a policy that allows more than the one it inherits from
    CHILD_INCONSISTENT = "CHILD_INCONSISTENT"


class Result(StrEnum):
    """What a decision says. `permit-with` is a permit that comes with duties to perform."""

    PERMIT = "permit"
    PERMIT_WITH = "permit-with"
    DENY = "deny"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """Where a decision is taken. At every stage but `catalog` a missing fact closes; at `negotiation` only one that could be known by
    then: what is measured later is left to the transfer."""

    CATALOG = "catalog"
    NEGOTIATION = "negotiation"
    TRANSFER = "transfer"


class Finding(Value):
    """One thing in a policy that cannot be meant here, or (severity `warning`) that is easily misread.

    `path` is an RFC 6901 pointer into the document as its author wrote it; "" is the whole document. Where that was a graph, `path` points
    into the tree that was made of it, and `source` says where in the graph that stands: the IRI of the node, its line, or the pointer into
    the JSON-LD. `expected` and `found` show both sides where that helps; `patch` mends it mechanically (RFC 6902), if anything does.
    """

    code: Code
    path: str
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"
    expected: tuple[str, ...] = ()
    found: str = ""
    patch: tuple[Mapping[str, Any], ...] = ()
    source: str = ""

    def __str__(self) -> str:
        """The finding as one sentence for whoever wrote the policy."""
        place = f" ({self.source})" if self.source else ""
        return f"{self.path or 'the policy'}{place}: {self.message}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for problem reports and stored decisions."""
        document: dict[str, Any] = {
            "code": self.code.value,
            "path": self.path,
            "message": self.message,
            "fix": self.fix,
            "severity": self.severity,
        }
        if self.expected:
            document["expected"] = list(self.expected)
        if self.found:
            document["found"] = self.found
        if self.source:
            document["source"] = self.source
        if self.patch:
            document["patch"] = [dict(step) for step in self.patch]
        return document
