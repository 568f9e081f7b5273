"""The state of duties: what has to be done, by when, and whether it was.

A duty is due while its constraints hold (W3C formal semantics, C2); an upper bound of time among them is its deadline and not a condition.
It is fulfilled by an act of the log: the action or one included in it, on its target, by its debtor, as its refinements say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Stage
from connector.odrl.judges import all_of, any_of, turns
from connector.odrl.model import (
    FALSE,
    TRUE,
    UNKNOWN,
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
    Since,
    Window,
    World,
    fact_key,
)
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD, EVENT, POLICY_USAGE
from connector.odrl.registry import Operand

WHOLE = ("and", "andSequence")  # logical constraints of which every part has to hold


@dataclass(frozen=True, slots=True)
class Owed:
    """A duty as a decision shows it: where it stands in the document, what is to be done, by whom and until when, and how it stands.

    `deadline` is the instant from which it is overdue, as far as there is one already; `blocking` says that the use has to wait for it.
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
    """The duties of a permission (or, given an obligation, it alone) as they stand; inactive ones are left out. Behind one that is overdue
    stand its consequences: both clear it only together (ODRL 2.2 IM, 2.6.4)."""
    found = []
    for duty in rule.duties if rule.kind == "permission" else (rule,):
        state = state_of(policy, duty, world, now, facts)
        if state == "inactive":
            continue
        deadline = deadline_of(duty, world, policy)
        debtor = next((scope.id for scope in (*duty.assignees, *rule.assignees)), next(iter(policy.assignees), ""))
        found.append(_owed(duty, debtor, state, deadline, _blocks(duty, state, options, stage)))
        if state == "overdue" and deadline is not None:
            for consequence in duty.duties:
                who = next((scope.id for scope in consequence.assignees), debtor)
                done: DutyState = "fulfilled" if _done_after(policy, consequence, world, now, deadline) else "pending"
                found.append(_owed(consequence, who, done, deadline_of(consequence, world, policy), False))
    return tuple(found)


def _owed(duty: Rule, debtor: str, state: DutyState, deadline: int | None, blocking: bool) -> Owed:
    due_by = None if deadline is None else values.instant(deadline)
    actions = tuple(action.iri for action in duty.actions)
    return Owed(duty.path, duty.id, duty.when, duty.kind, actions, debtor, state, due_by, blocking, duty)


def gate(policy: Policy, rule: Rule, world: World, now: int | None, facts: Facts, options: Options, stage: str) -> int:
    """FALSE if a duty of the permission stands in the way of the use, UNKNOWN if one does unless a missing fact says that it is none."""
    state = TRUE
    for duty in rule.duties:
        if _blocks(duty, state_of(policy, duty, world, now, facts), options, stage):
            state = min(state, UNKNOWN if doubtful(policy, duty, world, now, facts) else FALSE)
    return state


def doubtful(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> bool:
    """Whether nobody knows if it is a duty at all."""
    told = any(name in world.duties for name in (duty.id, duty.path) if name)
    return not told and _due(policy, duty, world, now, facts) == UNKNOWN


def _blocks(duty: Rule, state: DutyState, options: Options, stage: str) -> bool:
    # Before the data flow there is nothing to wait for: the agreement binds, and the gate is at the transfer.
    flows = stage not in (Stage.CATALOG, Stage.NEGOTIATION)
    if state == "overdue":
        return flows or duty.kind != "obligation"
    return flows and state == "pending" and duty.kind != "obligation" and duty.when == "pre" and options.duty_mode == "strict"


def state_of(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> DutyState:
    """How a duty stands in the world at `now` (microseconds since 1970)."""
    for name in (duty.id, duty.path):
        if name and (told := world.duties.get(name)) is not None:
            return told
    if _due(policy, duty, world, now, facts) == FALSE:
        return "inactive"
    deadline = deadline_of(duty, world, policy)
    done = _performances(policy, duty, world, now)
    if duty.kind == "duty" and duty.when == "post" and (first := first_use(policy, world)) is not None:
        done = [at for at in done if at >= first]  # what has to be done after the use is not done by what came before it
    if any(deadline is None or at < deadline for at in done):
        return "fulfilled"
    if deadline is None or now is None or now < deadline:
        return "pending"
    if done and duty.duties and all(_done_after(policy, consequence, world, now, deadline) for consequence in duty.duties):
        return "remediated"  # late, and all that follows from being late is done too (ODRL 2.2 IM, 2.6.4)
    return "overdue"


def _performances(policy: Policy, duty: Rule, world: World, now: int | None) -> list[int]:
    """When it was performed: the instants (microseconds since 1970) up to now."""
    acts = ((values.microseconds(event.at), event) for event in world.log or ())
    return [at for at, event in acts if at is not None and (now is None or at <= now) and performs(policy, duty, event, world)]


def _done_after(policy: Policy, duty: Rule, world: World, now: int | None, instant: int) -> bool:
    return any(at >= instant for at in _performances(policy, duty, world, now))


def performs(policy: Policy, duty: Rule, event: Event, world: World | None = None) -> bool:
    """Whether an act performs a duty: it names it, or it is the action (or one below it) on its target, as its refinements say. `world`
    says what is in a collection."""
    if event.duty:
        return event.duty in (duty.id, duty.path)
    world = world or World(event.at)
    within = policy.registry.action_within(event.action)
    actions = [action for action in duty.actions if action.iri in within]
    if not actions:
        return False
    if duty.targets and not any(scope.holds(event.target, world) for scope in duty.targets):
        return False
    if duty.assignees and not any(scope.holds(event.party, world) for scope in duty.assignees):
        return False
    facts = _facts_of(event, policy.registry.operands)
    return any_of([all_of([node.judge for node in action.refinements]) for action in actions])(facts) == TRUE


def exercises(policy: Policy, world: World) -> list[Event]:
    """The acts of the log that are uses, and not performances of duties, in the order in which they are told."""
    duties = duty_actions(policy)
    return [event for event in world.log or () if not event.duty and policy.registry.actions.get(event.action) not in duties]


def first_use(policy: Policy, world: World) -> int | None:
    """The instant (microseconds since 1970) of the first use that the log tells of."""
    return min((at for event in exercises(policy, world) if (at := values.microseconds(event.at)) is not None), default=None)


def duty_actions(policy: Policy) -> frozenset[str]:
    """The actions (full IRIs) that are somebody's duty under the policy."""
    known: frozenset[str] | None = policy.memo.get(duty_actions)
    if known is None:
        known = policy.memo[duty_actions] = frozenset(
            action.iri for duty in _all_duties(policy.rules) if duty.kind not in ("permission", "prohibition") for action in duty.actions
        )
    return known


def _all_duties(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        yield rule
        yield from _all_duties(rule.duties)


def _facts_of(event: Event, operands: Mapping[str, Operand]) -> Facts:
    facts: dict[str, Fact] = dict(event.amounts)
    if (at := values.microseconds(event.at)) is not None:
        facts[DATE_TIME] = at
    for word, given in event.params.items():
        row = operands.get(word)
        for raw in given:
            unit = str(raw.get("unit", "")) if isinstance(raw, Mapping) else ""
            try:
                facts.setdefault(fact_key(row.iri if row else word, unit), _value(row, raw))
            except PolicyError:
                continue  # a value that cannot be read is not known, and no refinement is satisfied by it
    return facts


def _value(row: Operand | None, raw: object) -> Fact:
    if isinstance(raw, Mapping):
        raw = {key: value for key, value in raw.items() if key != "unit"}
    if row is not None and row.values == "number":
        return values.number(raw)[0]
    if row is not None and row.values == "duration":
        return values.exact(raw)
    return frozenset({values.term(raw)}) if row is not None and not row.single else values.term(raw)


def deadline_of(duty: Rule, world: World, policy: Policy | None = None) -> int | None:
    """The instant (microseconds since 1970) from which the duty is overdue, as far as it is known: the earliest upper bound of time. A
    delay runs from the anchor that the world names, else from the first use if the duty follows the use, else from the signing of the
    agreement (odrl.md 1.7); for these two `policy` is needed."""
    ends = [end for node in conjuncts(duty.constraints) if (end := _end(node, duty, world, policy)) is not None]
    return min(ends, default=None)


def has_deadline(duty: Rule) -> bool:
    """Whether its constraints bound the time for it from above."""
    return any(_bounds_time(node) for node in conjuncts(duty.constraints))


def turns_of(duty: Rule, world: World, policy: Policy) -> Iterator[int]:
    """The instants at which the duty may come to another state because time passes, beside those that the policy names."""
    anchor = _anchor(duty, world, policy)
    for node in conjuncts(duty.constraints):
        if anchor is not None and isinstance(node, Constraint) and node.operand == DELAY_PERIOD and isinstance(node.test, Lapse):
            yield from turns(anchor, node.test)


def _end(node: Node, duty: Rule, world: World, policy: Policy | None) -> int | None:
    if not isinstance(node, Constraint) or not _bounds_time(node):
        return None
    if isinstance(node.test, Window):
        return None if node.test.end is None else int(node.test.end[0])
    if isinstance(node.test, Lapse) and node.test.end is not None and (at := _anchor(duty, world, policy)) is not None:
        end = values.after(at, node.test.end)
        return None if end is None else end + int(node.test.end_in)
    return None


def _anchor(duty: Rule, world: World, policy: Policy | None) -> int | None:
    """When the delay of a duty begins."""
    for name in (duty.id, duty.path, DELAY_PERIOD):
        if name and (told := world.anchors.get(name)) is not None:
            return values.microseconds(told)
    if policy is None:
        return None
    if any(_is_use(node) and node.operator in ("gt", "gteq") for node in conjuncts(duty.constraints) if isinstance(node, Constraint)):
        return first_use(policy, world)  # once for each uid, so from the first one
    return signed(policy)


def signed(policy: Policy) -> int | None:
    """The instant (microseconds since 1970) at which an agreement was signed: its timestamp."""
    if "signed" not in policy.memo:
        policy.memo["signed"] = _instant(policy.timestamp)
    found: int | None = policy.memo["signed"]
    return found


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return values.stretch(text).start
    except PolicyError:
        return None  # a timestamp that is no time says nothing, and what runs from it is not known


def _due(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> int:
    """Whether it is a duty at all: its constraints hold, but for the event that it follows and its deadline, of which only the beginning
    counts. What is not known leaves it due."""
    states = [_begun(node, duty, policy, world, now, facts) for node in conjuncts(duty.constraints)]
    return min(states, default=TRUE)


def _begun(node: Node, duty: Rule, policy: Policy, world: World, now: int | None, facts: Facts) -> int:
    if not isinstance(node, Constraint):
        return node.judge(facts)
    if _is_use(node):
        return TRUE
    if isinstance(node.test, Window) and _bounds_time(node):
        start = node.test.start
        return TRUE if start is None else UNKNOWN if now is None else TRUE if now >= start[0] else FALSE
    if node.operand == DELAY_PERIOD and isinstance(node.test, Lapse):
        at = _anchor(duty, world, policy)
        if at is None or now is None:
            return UNKNOWN
        if not _bounds_time(node):
            return node.judge({**facts, node.fact: Since(at, now)})
        begins = at if node.test.start is None else values.after(at, node.test.start)
        return TRUE if begins is not None and now >= begins else FALSE
    return node.judge(facts)


def _is_use(node: Constraint) -> bool:
    return node.operand == EVENT and node.unit == POLICY_USAGE


def _bounds_time(node: Node) -> bool:
    """Whether a constraint of a duty sets its deadline."""
    if not isinstance(node, Constraint) or node.operand not in (DATE_TIME, DELAY_PERIOD) or not isinstance(node.test, Window | Lapse):
        return False
    return node.test.end is not None and not node.test.negated


def conjuncts(nodes: Iterable[Node]) -> Iterator[Node]:
    """The constraints that all have to hold, without the `and`s around them."""
    for node in nodes:
        if isinstance(node, Logic) and node.kind in WHOLE:
            yield from conjuncts(node.parts)
        else:
            yield node
