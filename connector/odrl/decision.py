"""A decision as a value: what was decided, until when it holds, and on demand every reason for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import connector
from connector.errors import PolicyError
from connector.odrl import words
from connector.odrl.codes import Code, Result
from connector.odrl.duties import deadline_of, meant
from connector.odrl.explain import (
    Fault,
    NearMiss,
    account,
    found_values,
    known,
    near_misses,
    undecided,
    unknown_operands,
)
from connector.odrl.facts import listed
from connector.odrl.judge import Case, deciding_atom, facts_of, granting
from connector.odrl.model import Constraint, Event, Node, Request, constraints_of, leaves
from connector.odrl.results import Owed, RuleResult, owed, rule_results, told
from connector.odrl.values import instant, microseconds, term
from connector.odrl.vocabulary import compact
from connector.values import replace

SEMANTICS: Final = "odrl22-v1"  # stored with each decision: an old agreement is judged by the rules that it was signed under
REASONS_MAX: Final = 8  # sentences to a peer; more are not read
VALUES_MAX, VALUE_CHARS_MAX = 20, 200  # of one list in a ground, and of one value: an IRI stays whole
LEAVES_STORED_MAX: Final = 200  # constraints and values of a policy up to which every one is kept with a decision: some 30 kB
_OF_DUTIES: Final = frozenset({Code.PREDUTY_OPEN, Code.CONSENT_MISSING, Code.OBLIGATION_OVERDUE})
_OPENINGS: Final = {Result.DENY: "Denied", Result.UNKNOWN: "Undecided"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says to a request at one instant.

    `valid_until` is the next instant at which the result is another one, None if time alone changes nothing; in a policy of more than a
    hundred constraints it may be an earlier one, at which the decision is taken again. A permit with such a bound is still `permit`:
    `permit-with` has duties. `at` is the instant of the decision. `failed` is set if the engine itself failed, with the kind of the error.
    """

    result: Result
    valid_until: datetime | None
    at: datetime
    case: Case = field(repr=False, compare=False)
    failed: Code | None = None
    error: str = ""

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
        return self.failed or account(self.case, self.result)[0]

    @property
    def rules(self) -> tuple[RuleResult, ...]:
        """A result for every rule of the policy, for the act that decided; none for a policy that is refused as a whole."""
        return rule_results(self.case)

    @property
    def missing(self) -> tuple[str, ...]:
        """The left operands (full IRIs) that are not known and that matching rules ask for. A permit lists what is measured later."""
        return () if self.failed else unknown_operands(self.case)

    @property
    def duties(self) -> tuple[Owed, ...]:
        """What comes with the use: the duties of the permission that grants, and the obligations of the policy; inactive ones are left
        out. For a denial, those of the permission that would grant."""
        found: dict[str, Owed] = {}
        for duty in self._owed():
            found.setdefault(duty.path, duty)
        return tuple(found.values())

    @property
    def owes(self) -> bool:
        """Whether a duty among `duties` is still to be done."""
        return any(duty.state not in ("fulfilled", "remediated") for duty in self._owed())

    def _owed(self) -> Iterator[Owed]:
        case = self.case
        if self.failed or case.policy.refused or not case.atoms or not case.policy.dutiful:
            return
        for facts in case.atoms if self.permitted else (deciding_atom(case),):  # each act may be granted by another permission
            for rule in (*granting(case, facts), *case.policy.obligations):
                yield from owed(case.policy, rule, case.world, case.now, facts_of(case, rule, facts), case.options, self.stage)

    @property
    def residual(self) -> tuple[Node, ...]:
        """The constraints that are still to be shown or measured: what is missing of a decision that is `unknown`, or that leaves something
        to the transfer."""
        return () if self.failed else undecided(self.case)

    @property
    def obligations_created(self) -> tuple[Owed, ...]:
        """What is to be done because the request is granted, with or after the use, each with its deadline if the use happens now: to be
        watched from then on. () where it is not permitted."""
        return self._created(self.duties)

    def _created(self, duties: Sequence[Owed]) -> tuple[Owed, ...]:
        if not self.permitted:
            return ()
        case, request = self.case, self.case.request
        use = Event(self.at, request.action, request.party, request.target)
        then = replace(case.world, log=(*(case.world.log or ()), use))
        found = []
        for duty in duties:
            if duty.state == "pending" and not duty.blocking and (duty.when != "pre" or duty.kind == "obligation"):
                due = duty.deadline
                if due is None and (at := deadline_of(duty.rule, then, case.policy, deciding_atom(case))) is not None:
                    due = instant(at)
                found.append(duty if due is duty.deadline else replace(duty, deadline=due))
        return tuple(found)

    @property
    def near_misses(self) -> tuple[NearMiss, ...]:
        """The fewest changes that would permit: the failing constraints of the permission that fails least; () for a permit."""
        return () if self.permitted or self.failed else near_misses(self.case)

    def reason(self, level: Literal["peer", "full", "none"] = "peer") -> list[str]:
        """Sentences, the most useful first, at most REASONS_MAX of at most 500 characters.

        `peer` is what the requester may read: their own declarations, id and time, and the terms of the policy that they have seen.
        `full` is for the operator of this connector. `none`, for offers that are hidden, is empty.
        """
        if level == "none":
            return []
        if self.failed:
            return ["Denied: the policy could not be evaluated; this is a fault of the connector that decides, not of the policy."]
        return self._sentences(account(self.case, self.result)[1], level == "full")

    def grounds(self, level: Literal["peer", "full"] = "peer") -> list[dict[str, Any]]:
        """The same as `reason`, as data: one object for each place. None for a permit.

        `code`, `policy` (its id), `rule` and `constraint` (RFC 6901 pointers into that policy as its author wrote it, as far as the place
        is one) and of a constraint `leftOperand`, `operator`, `status` if it has one, `expected` and `actual`, both lists of text. `actual`
        is left out where it is not known, or where `level` does not tell it. A duty that is not done has its `path` and `how_to_fulfil`, as
        in `to_json`.
        """
        if self.permitted or self.failed:
            return []
        code, faults = account(self.case, self.result)
        paths = list(dict.fromkeys(fault.path for fault in faults))[:REASONS_MAX]
        found = {leaf.path: leaf for leaf in constraints_of(self.case.policy) if leaf.path in paths}
        waiting = self.duties if code in _OF_DUTIES else ()
        how = {duty.path: {"how_to_fulfil": _fulfilment(self.case, duty)} for duty in waiting if duty.path in paths}
        return [self._ground(code, path, found.get(path), level == "full") | how.get(path, {}) for path in paths]

    def _ground(self, code: Code, path: str, leaf: Node | None, full: bool) -> dict[str, Any]:
        case = self.case
        rule = next((rule for rule in case.policy.rules if path == rule.path or path.startswith(f"{rule.path}/")), None)
        ground: dict[str, Any] = {"code": code.value, "policy": words.shown(case.policy.id, words.SENTENCE_CHARS_MAX)}
        if rule is not None:
            ground["rule"] = rule.path
        if leaf is None:
            return ground if rule is not None and path == rule.path else ground | {"path": path}
        ground["constraint"] = path
        if isinstance(leaf, Constraint):
            ground |= {"leftOperand": compact(leaf.operand), "operator": leaf.operator, "expected": _listed(leaf.expected)}
            ground |= {"status": leaf.used} if leaf.used else {}
            facts = deciding_atom(case) if case.atoms else {}
            actual = found_values(leaf, case, facts if rule is None else facts_of(case, rule, facts), full=full)
            if actual is not None:
                ground["actual"] = _listed(actual)
        return ground

    def to_json(self) -> dict[str, Any]:
        """The whole decision in plain JSON types, for the store and the management API (odrl.md 2.3; `connector/odrl/README.md` lists its
        fields). `abridged` says that the policy was too large to keep every constraint. `findings` are those that refuse it; what an author
        is warned of decides nothing.
        """
        case = self.case
        code, faults = (self.failed, []) if self.failed else account(case, self.result)
        whole = case.policy.leaves <= LEAVES_STORED_MAX
        rules = () if self.failed else rule_results(case, constraints=whole)
        residual = () if self.failed else undecided(case, {rule.path for rule in rules if rule.active})
        document: dict[str, Any] = {
            "result": self.result.value,
            "code": code.value,
            "stage": str(self.stage),
            "at": _text(self.at),
            "valid_until": None if self.valid_until is None else _text(self.valid_until),
            "policy": words.shown(case.policy.id, words.SENTENCE_CHARS_MAX),
            "semantics": SEMANTICS,
            "engine_version": connector.__version__,
            "profile_versions": dict(case.policy.registry.versions),
            "request": _asked(case.request),
            "facts": {} if self.failed else known(case),
            "missing": list(dict.fromkeys([leaf.operand for leaf in residual if isinstance(leaf, Constraint)])),
            "reason": self.reason("full") if self.failed else self._sentences(faults, full=True),
            "rules": [rule.to_json() for rule in rules],
            "abridged": not whole,
            "findings": [finding.to_json() for finding in case.policy.findings if finding.severity == "error"],
        }
        if residual and whole:
            document["residual"] = [told(leaf) for leaf in residual]
        if case.policy.dutiful and (duties := self.duties):
            document["duties"] = [_duty(case, duty, whole) for duty in duties]
            document["obligations_created"] = [_duty(case, duty, whole) for duty in self._created(duties)]
        if misses := self.near_misses:
            document["near_misses"] = [miss.to_json() for miss in misses]
        return document

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


def _listed(values: Sequence[str]) -> list[str]:
    return [words.shown(value, VALUE_CHARS_MAX) for value in values[:VALUES_MAX]]


def _asked(request: Request) -> dict[str, Any]:
    document: dict[str, Any] = {
        "party": words.shown(request.party, words.SENTENCE_CHARS_MAX),
        "action": words.shown(request.action),
        "target": None if request.target is None else words.shown(request.target, words.SENTENCE_CHARS_MAX),
    }
    if request.params:
        document["params"] = {
            words.shown(name): _listed([_declared(value) for value in listed(given)[:VALUES_MAX]]) for name, given in request.params.items()
        }
    return document


def _declared(value: object) -> str:
    """A declared value as text; what is none is told by its sort."""
    if isinstance(value, str) and value:
        return value
    try:
        return term(value)
    except PolicyError:
        return f"({type(value).__name__})"


def _duty(case: Case, duty: Owed, whole: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": duty.path,
        "id": words.shown(duty.id, words.SENTENCE_CHARS_MAX),
        "when": duty.when,
        "action": [words.shown(action) for action in duty.actions],
        "debtor": words.shown(duty.debtor, words.SENTENCE_CHARS_MAX),
        "state": duty.state,
        "due_by": None if duty.deadline is None else _text(duty.deadline),
        "blocking": duty.blocking,
    }
    return document | {"how_to_fulfil": _fulfilment(case, duty)} if whole else document


def _fulfilment(case: Case, duty: Owed) -> dict[str, Any]:
    """What has to be on record for the duty to be done: each action, on what, as the refinements say, and with whom."""
    document: dict[str, Any] = {
        "action": [words.shown(action) for action in duty.actions],
        "by": words.shown(duty.debtor, words.SENTENCE_CHARS_MAX),
    }
    if targets := duty.rule.targets or meant(case.policy, duty.rule)[0]:
        document["target"] = _listed([scope.id for scope in targets])
    if refinements := [told(leaf) for leaf in leaves(duty.rule.refinements)]:
        document["refinements"] = refinements[:VALUES_MAX]
    if duty.rule.functions:
        document["with"] = {name: words.shown(party, words.SENTENCE_CHARS_MAX) for name, party in duty.rule.functions}
    return document


def _text(at: datetime) -> str:
    if at.tzinfo is not UTC:
        at_microseconds = microseconds(at)
        utc = None if at_microseconds is None else instant(at_microseconds)
        if utc is None:
            return at.isoformat()
        at = utc
    return f"{at.isoformat()[:-6]}Z"
