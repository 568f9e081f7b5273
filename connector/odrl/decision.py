"""A decision as a value: what was decided, until when it holds, and on demand every reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from connector.odrl import words
from connector.odrl.explain import Fault, RuleResult, account, missing, rule_results
from connector.odrl.judge import Case
from connector.odrl.model import Code, Result
from connector.odrl.values import instant, microseconds

REASONS_MAX: Final = 8  # sentences to a peer; more are not read
LEAVES_STORED_MAX: Final = 200  # constraints and values of a policy up to which every one is kept with a decision: some 30 kB
_OPENINGS: Final = {Result.DENY: "Denied", Result.UNKNOWN: "Undecided"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says to a request at one instant.

    `valid_until` is the next instant at which the result is another one, None if time alone changes nothing; in a policy of more than a
    hundred constraints it may be an earlier one, at which the decision is taken again. A permit with such a bound is still `permit`:
    `permit-with` is kept for duties. `at` is the instant of the decision.
    """

    result: Result
    valid_until: datetime | None
    at: datetime
    case: Case = field(repr=False, compare=False)

    @property
    def permitted(self) -> bool:
        """Whether the request may go ahead."""
        return self.result is Result.PERMIT or self.result is Result.PERMIT_WITH

    @property
    def stage(self) -> str:
        """Where it was taken."""
        return self.case.request.stage

    @property
    def policy_id(self) -> str:
        """The `@id` of the policy."""
        return self.case.policy.id

    @property
    def code(self) -> Code:
        """The primary reason as a stable word."""
        return account(self.case, self.result)[0]

    @property
    def rules(self) -> tuple[RuleResult, ...]:
        """A result for every rule of the policy, for the act that decided; none for a policy that is refused as a whole."""
        return rule_results(self.case)

    @property
    def missing(self) -> tuple[str, ...]:
        """The left operands (full IRIs) that are not known and that matching rules ask for; () for a permit."""
        return () if self.permitted else missing(self.case)

    def reason(self, level: Literal["peer", "full", "none"] = "peer") -> list[str]:
        """Sentences, the most useful first, at most REASONS_MAX of at most 500 characters.

        `peer` is what the requester may read: their own declarations, id and time, and the terms of the policy that they have seen.
        `full` is for the operator of this connector. `none`, for offers that are hidden, is empty.
        """
        if level == "none":
            return []
        return self._sentences(account(self.case, self.result)[1], level == "full")

    def to_json(self) -> dict[str, Any]:
        """The whole decision in plain JSON types, for the store and the management API.

        `abridged` says that the policy was too large to keep every constraint.
        """
        case = self.case
        code, faults = account(case, self.result)
        whole = case.policy.leaves <= LEAVES_STORED_MAX
        facts = {operand: list(dict.fromkeys(words.shown(v) for v in _known(case, operand))) for operand in case.policy.usage}
        return {
            "result": self.result.value,
            "code": code.value,
            "stage": str(self.stage),
            "at": _text(self.at),
            "valid_until": None if self.valid_until is None else _text(self.valid_until),
            "policy": words.shown(case.policy.id, words.SENTENCE_CHARS_MAX),
            "request": {
                "party": words.shown(case.request.party, words.SENTENCE_CHARS_MAX),
                "action": words.shown(case.request.action),
                "target": None if case.request.target is None else words.shown(case.request.target, words.SENTENCE_CHARS_MAX),
            },
            "facts": facts,
            "missing": list(self.missing),
            "reason": self._sentences(faults, full=True),
            "rules": [rule.to_json() for rule in rule_results(case, constraints=whole)],
            "abridged": not whole,
            "findings": [finding.to_json() for finding in case.policy.findings],
        }

    def _sentences(self, faults: list[Fault], full: bool) -> list[str]:
        policy = self.case.policy
        if self.permitted:
            until = "" if self.valid_until is None else f" until {_text(self.valid_until)}"
            return [f"Permitted{until} ({words.place(policy, faults[0].path)})."]
        opening = _OPENINGS[self.result]
        texts = dict.fromkeys((fault.path, fault.text if full else fault.secret) for fault in faults)
        return [
            words.shown(f"{opening}: {text}", words.TEXT_CHARS_MAX) + f" ({words.place(policy, path)})."
            for path, text in list(texts)[:REASONS_MAX]
        ]


def _known(case: Case, operand: str) -> list[str]:
    return [value for atom in case.atoms if isinstance(value := atom.get(operand), str)]


def _text(at: datetime) -> str:
    at_microseconds = microseconds(at)
    utc = None if at_microseconds is None else instant(at_microseconds)
    return at.isoformat() if utc is None else utc.isoformat().replace("+00:00", "Z")
