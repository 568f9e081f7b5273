"""The state of duties: what has to be done, by when, and whether it was.

A duty is due while its constraints hold (W3C formal semantics, C2); an upper bound of time among them is its deadline and not a condition.
It is fulfilled by an act of the log: the action or one included in it, on its target, by its debtor, as its refinements say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Stage
from connector.odrl.core import DATE_TIME, DELAY_PERIOD
from connector.odrl.judges import all_of, any_of
from connector.odrl.model import (
    FALSE,
    TRUE,
    Constraint,
    DutyState,
    Event,
    Fact,
    Facts,
    Lapse,
    Logic,
    Node,
    Options,
    Policy,
    Rule,
    Window,
    World,
)


@dataclass(frozen=True, slots=True)
class Owed:
    """A duty as a decision shows it: where it stands in the document, what is to be done, by whom and until when, and how it stands.

    `deadline` is the instant after which it is overdue, if there is one already; `blocking` says that the use has to wait for it.
    """

    path: str
    id: str
    when: Literal["pre", "with", "post"]
    kind: str
    actions: tuple[str, ...]
    debtor: str
    state: DutyState
    deadline: datetime | None
    blocking: bool
    rule: Rule


def owed(policy: Policy, rule: Rule, world: World, now: int | None, facts: Facts, options: Options, stage: str) -> tuple[Owed, ...]:
    """The duties of a permission (or, given an obligation, it alone) as they stand; inactive ones are left out."""
    found = []
    for duty in rule.duties if rule.kind == "permission" else (rule,):
        state = state_of(policy, duty, world, now, facts)
        if state == "inactive":
            continue
        deadline = deadline_of(duty, world)
        debtor = next((scope.id for scope in (*duty.assignees, *rule.assignees)), next(iter(policy.assignees), ""))
        found.append(
            Owed(
                duty.path, duty.id, duty.when, duty.kind, tuple(action.iri for action in duty.actions), debtor,
                state, None if deadline is None else values.instant(deadline), _blocks(duty, state, options, stage), duty,
            )
        )  # fmt: skip
    return tuple(found)


def blocking(policy: Policy, rule: Rule, world: World, now: int | None, facts: Facts, options: Options, stage: str) -> bool:
    """Whether a duty of the permission stands in the way of the use."""
    return any(_blocks(duty, state_of(policy, duty, world, now, facts), options, stage) for duty in rule.duties)


def _blocks(duty: Rule, state: DutyState, options: Options, stage: str) -> bool:
    if state == "overdue":
        return True
    if duty.when != "pre" or state != "pending":
        return False
    # Before the data flow there is nothing to wait for: the agreement binds, and the gate is at the transfer.
    return options.duty_mode == "strict" and stage not in (Stage.CATALOG, Stage.NEGOTIATION)


def state_of(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> DutyState:
    """How a duty stands in the world at `now` (microseconds since 1970)."""
    for name in (duty.id, duty.path):
        if name and (told := world.duties.get(name)) is not None:
            return told
    done = [at for event in world.log if (at := values.microseconds(event.at)) is not None and performs(policy, duty, event)]
    conditions = [node for node in duty.constraints if not _bounds_time(node)]
    if all_of([node.judge for node in conditions])(facts) == FALSE:
        return "inactive"
    deadline = deadline_of(duty, world)
    if any(deadline is None or at < deadline for at in done):
        return "fulfilled"
    if deadline is None or now is None or now < deadline:
        return "pending"
    if done and duty.duties and all(_done_after(policy, consequence, world, deadline) for consequence in duty.duties):
        return "remediated"  # late, and all that follows from being late is done too (ODRL 2.2 IM, 2.6.4)
    return "overdue"


def _done_after(policy: Policy, duty: Rule, world: World, instant: int) -> bool:
    return any((at := values.microseconds(event.at)) is not None and at >= instant and performs(policy, duty, event) for event in world.log)


def performs(policy: Policy, duty: Rule, event: Event) -> bool:
    """Whether an act performs a duty: it names it, or it is the action (or one below it) on its target, as its refinements say."""
    if event.duty:
        return event.duty in (duty.id, duty.path)
    within = policy.registry.action_within(event.action)
    actions = [action for action in duty.actions if action.iri in within]
    if not actions:
        return False
    if duty.targets and event.target not in [scope.id for scope in duty.targets]:
        return False
    if duty.assignees and event.party not in [scope.id for scope in duty.assignees]:
        return False
    facts = _facts_of(event)
    return any_of([all_of([node.judge for node in action.refinements]) for action in actions])(facts) == TRUE


def _facts_of(event: Event) -> Facts:
    facts: dict[str, Fact] = dict(event.amounts)
    if (at := values.microseconds(event.at)) is not None:
        facts[DATE_TIME] = at
    for operand, given in event.params.items():
        for raw in given:
            try:
                facts.setdefault(operand, values.term(raw))
            except PolicyError:
                continue  # a value that cannot be read is not known, and no refinement is satisfied by it
    return facts


def deadline_of(duty: Rule, world: World) -> int | None:
    """The instant (microseconds since 1970) from which the duty is overdue, as far as it is known: the earliest upper bound of time."""
    ends = [end for node in _leaves(duty.constraints) if (end := _end(node, duty, world)) is not None]
    return min(ends, default=None)


def _end(node: Node, duty: Rule, world: World) -> int | None:
    if not isinstance(node, Constraint):
        return None
    if node.operand == DATE_TIME and isinstance(node.test, Window) and not node.test.negated and node.test.end is not None:
        return int(node.test.end[0])
    if node.operand == DELAY_PERIOD and isinstance(node.test, Lapse) and not node.test.negated and node.test.end is not None:
        anchor = world.anchors.get(duty.id) or world.anchors.get(duty.path) or world.anchors.get(DELAY_PERIOD)
        at = None if anchor is None else values.microseconds(anchor)
        return None if at is None else values.after(at, node.test.end)
    return None


def _bounds_time(node: Node) -> bool:
    """Whether a constraint of a duty is its deadline, or says which event it follows, rather than a condition."""
    if not isinstance(node, Constraint):
        return False
    if node.operand.endswith("/event"):
        return True
    if node.operand not in (DATE_TIME, DELAY_PERIOD) or not isinstance(node.test, Window | Lapse):
        return False
    return node.test.end is not None and node.test.start is None and not node.test.negated


def _leaves(nodes: Iterable[Node]) -> Iterable[Node]:
    for node in nodes:
        if isinstance(node, Logic):
            if node.kind == "and":
                yield from _leaves(node.parts)
        else:
            yield node
