"""The state of duties: what has to be done, by when, and whether it was.

A duty is due while its constraints hold (W3C formal semantics, C2); an upper bound of time among them is its deadline and not a condition,
wherever it stands: of those in an `and` the earliest counts, of those in an `or` the latest. It is fulfilled by an act of the log: the
action or one included in it, on its target, by its debtor, as its refinements say. Who owes several actions, or one on several targets,
owes each of them (ODRL 2.2 IM, 2.7).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, get_args

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Stage
from connector.odrl.judges import all_of, turns
from connector.odrl.model import (
    FALSE,
    TRUE,
    UNKNOWN,
    WHOLE,
    Action,
    Constraint,
    DutyState,
    Event,
    Facts,
    Lapse,
    Logic,
    Node,
    Options,
    Policy,
    Rule,
    Scope,
    Since,
    Window,
    World,
    conjuncts,
    leaves,
)
from connector.odrl.operands import DELAY_PERIOD, ELAPSED_TIME, TIMES, bounds_time, facts_of_act, has_time, is_use
from connector.odrl.vocabulary import ODRL

COMPENSATE: Final = ODRL + "compensate"  # anybody may pay for the assignee (W3C formal semantics, C1)
_STATES: Final = frozenset(get_args(DutyState))


def gate(policy: Policy, rule: Rule, world: World, now: int | None, facts: Facts, options: Options, stage: str) -> int:
    """FALSE if a duty of the permission stands in the way of the use, UNKNOWN if one does unless a missing fact says that it is none."""
    state = TRUE
    for duty in rule.duties:
        if not duty.constraints and not world.duties and not blocks(duty, "pending", options, stage):
            continue  # it has no time to be late in
        if blocks(duty, state_of(policy, duty, world, now, facts), options, stage):
            state = min(state, UNKNOWN if doubtful(policy, duty, world, now, facts) else FALSE)
    return state


def doubtful(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> bool:
    """Whether nobody knows if it is a duty at all."""
    return said_of(policy, duty, world) is None and _due(policy, duty, world, now, facts) == UNKNOWN


def blocks(duty: Rule, state: DutyState, options: Options, stage: str) -> bool:
    """Whether the use waits for a duty, or an obligation, that stands so."""
    # Before the data flow there is nothing to wait for: the agreement binds, and the gate is at the transfer.
    flows = stage not in (Stage.CATALOG, Stage.NEGOTIATION)
    if state == "overdue":
        return flows or duty.kind != "obligation"
    first = duty.gates if duty.kind == "obligation" else duty.when == "pre"
    return flows and state == "pending" and first and options.duty_mode == "strict"


def state_of(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> DutyState:
    """How a duty stands in the world at `now` (microseconds since 1970). One of which the world says what is no state counts as overdue:
    what nobody understands lets nobody in."""
    if (said := said_of(policy, duty, world)) is not None:
        return said
    if _due(policy, duty, world, now, facts) == FALSE:
        return "inactive"
    deadline = deadline_of(duty, world, policy, facts)
    first = first_use(policy, world) if duty.kind == "duty" and duty.when == "post" else None
    done = _done(policy, duty, world, now, first)  # what has to be done after the use is not done by what came before it
    if all(at is not None and (deadline is None or at < deadline) for at in done):
        return "fulfilled"
    if deadline is None or now is None or now < deadline:
        return "pending"
    if None not in done and duty.duties and all(done_after(policy, consequence, world, now, deadline) for consequence in duty.duties):
        return "remediated"  # late, and all that follows from being late is done too (ODRL 2.2 IM, 2.6.4)
    return "overdue"


def said_of(policy: Policy, duty: Rule, world: World) -> DutyState | None:
    """The state of a duty that the world tells: by its id or path, or (as `""`) that of the one duty before the use of a policy of whose
    duties it names none."""
    known = world.duties
    if not known:
        return None
    said = known.get(duty.id if duty.id in known and duty.id else duty.path)
    if said is None and "" in known and duty.kind == "duty" and duty.when == "pre" and not known.keys() & _named(policy):
        said = known[""]
    return said if said is None or said in _STATES else "overdue"


def _named(policy: Policy) -> frozenset[str]:
    """The ids and paths of the duties of a policy's permissions, and `""` if several come before the use: it could be any of them."""
    known: frozenset[str] | None = policy.memo.get(_named)
    if known is None:
        duties = [duty for rule in policy.permissions for duty in rule.duties]
        first = {duty.id or duty.path for duty in duties if duty.when == "pre"}
        names = {name for duty in duties for name in (duty.id, duty.path) if name}
        known = policy.memo[_named] = frozenset(names | {""} if len(first) > 1 else names)
    return known


def _done(policy: Policy, duty: Rule, world: World, now: int | None, since: int | None) -> list[int | None]:
    """For each part of a duty the first instant (microseconds since 1970) up to now, from `since` on, at which it was done."""
    found: list[int | None] = []
    for times in _performances(policy, duty, world):
        place = 0 if since is None else bisect_left(times, since)
        found.append(times[place] if place < len(times) and (now is None or times[place] <= now) else None)
    return found


def done_after(policy: Policy, duty: Rule, world: World, now: int | None, instant: int) -> bool:
    return None not in _done(policy, duty, world, now, instant)


class _Log(NamedTuple):
    """A log as it is read for a policy: its acts by what a duty without refinements asks of them, the first use, and for each duty (by its
    identity) the sorted instants at which each of its parts was done; the acts that name no duty do as much for all that ask the same."""

    events: tuple[Event, ...] | None
    member_of: Mapping[str, frozenset[str]]
    alike: list[list[tuple[int, Event]]]
    named: list[list[tuple[int, Event]]]
    first: int | None
    done: dict[int, tuple[Rule, list[list[int]]]]
    asked: dict[object, list[int]]


def _log(policy: Policy, world: World) -> _Log:
    """The log of a world; the one that was read last is kept, as a decision asks for it at many instants."""
    known: _Log | None = policy.memo.get(_log)
    if known is None or known.events is not world.log or known.member_of is not world.member_of:
        alike: dict[tuple[str, str, str | None, str], list[tuple[int, Event]]] = {}
        for event in world.log or ():
            if (at := values.microseconds(event.at)) is not None:
                alike.setdefault((event.duty, event.action, event.target, event.party), []).append((at, event))
        some, named = ([acts for key, acts in alike.items() if bool(key[0]) is told] for told in (False, True))
        uses = (at for event in exercises(policy, world) if (at := values.microseconds(event.at)) is not None)
        known = policy.memo[_log] = _Log(world.log, world.member_of, some, named, min(uses, default=None), {}, {})
    return known


def _performances(policy: Policy, duty: Rule, world: World) -> list[list[int]]:
    """For each part of a duty the sorted instants (microseconds since 1970) at which it was done, those after now among them."""
    log = _log(policy, world)
    if (known := log.done.get(id(duty))) is not None and known[0] is duty:
        return known[1]
    about = meant(policy, duty)
    refined = bool(duty.refinements) or any(scope.refinements for scopes in about for scope in scopes)

    def among(alike: list[list[tuple[int, Event]]], part: Part) -> Iterator[int]:
        for acts in alike:
            if refined or _performed(policy, duty, part, acts[0][1], world):
                yield from (at for at, event in acts if not refined or _performed(policy, duty, part, event, world))

    found = []
    for part in parts_of(duty):
        asks = (part, duty.assignees, about)
        if asks not in log.asked:
            log.asked[asks] = sorted(among(log.alike, part))
        named = [*among(log.named, part)]
        found.append(sorted((*log.asked[asks], *named)) if named else log.asked[asks])
    log.done[id(duty)] = duty, found
    return found


class Part(NamedTuple):
    """One thing that has to be done of a duty: an action (None: it has none, and nothing is it) on a target (None: the rule's)."""

    action: Action | None
    target: Scope | None


def parts_of(duty: Rule) -> list[Part]:
    """All that has to be done of a duty: each of its actions on each of its targets (ODRL 2.2 IM, 2.7)."""
    return [Part(action, target) for action in duty.actions or (None,) for target in duty.targets or (None,)]


def performs(policy: Policy, duty: Rule, event: Event, world: World | None = None) -> bool:
    """Whether an act performs a duty, or a part of one: it is the action (or one below it) on its target by its debtor, as its refinements
    say, and names no other duty. `world` says what is in a collection."""
    world = world or World(event.at)
    return any(_performed(policy, duty, part, event, world) for part in parts_of(duty))


def _performed(policy: Policy, duty: Rule, part: Part, event: Event, world: World) -> bool:
    action = part.action
    if action is None or (event.duty and event.duty not in (duty.id, duty.path)):
        return False
    if action.iri not in policy.registry.action_within(event.action):
        return False
    targets, debtors = meant(policy, duty)
    facts = facts_of_act(event, policy.registry.operands)
    if all_of([node.judge for node in action.refinements])(facts) != TRUE:
        return False
    if part.target is not None and not _fits(part.target, event.target, facts, world):
        return False
    # The log is that of the policy: an act of which nobody says on what or by whom it was is taken for what the policy is about.
    if part.target is None and targets and event.target and not any(_fits(scope, event.target, facts, world) for scope in targets):
        return False
    if duty.assignees:
        return any(_fits(scope, event.party, facts, world) for scope in duty.assignees)
    free = not debtors or not event.party or action.iri == COMPENSATE
    return free or any(_fits(scope, event.party, facts, world) for scope in debtors)


def _fits(scope: Scope, thing: str | None, facts: Facts, world: World) -> bool:
    return scope.holds(thing, world) and all_of([node.judge for node in scope.refinements])(facts) == TRUE


def meant(policy: Policy, duty: Rule) -> tuple[tuple[Scope, ...], tuple[Scope, ...]]:
    """The targets and the debtors of a duty that names none: those of the rule that it hangs on, or else of the policy."""
    known: dict[str, tuple[tuple[Scope, ...], tuple[Scope, ...]]] | None = policy.memo.get(meant)
    if known is None:
        known = policy.memo[meant] = {}
        targets: tuple[Scope, ...] = () if policy.target is None else (Scope(policy.target),)
        waiting = [(rule, targets, tuple(Scope(party) for party in sorted(policy.assignees))) for rule in policy.rules]
        while waiting:
            rule, targets, debtors = waiting.pop()
            targets, debtors = rule.targets or targets, rule.assignees or debtors
            known[rule.path] = targets, debtors
            waiting.extend((below, targets, debtors) for below in rule.duties)
    return known.get(duty.path, ((), ()))


def exercises(policy: Policy, world: World) -> list[Event]:
    """The acts of the log that are uses, and not performances of duties, in the order in which they are told. What a permission names is a
    use, though it be a duty too, and no act is none because it says that it performs something."""
    duties = duty_actions(policy) - {action.iri for rule in policy.permissions for action in rule.actions}
    return [event for event in world.log or () if policy.registry.actions.get(event.action) not in duties]


def first_use(policy: Policy, world: World) -> int | None:
    """The instant (microseconds since 1970) of the first use that the log tells of."""
    return _log(policy, world).first


def duty_actions(policy: Policy) -> frozenset[str]:
    """The actions (full IRIs) that are somebody's duty under the policy."""
    known: frozenset[str] | None = policy.memo.get(duty_actions)
    if known is None:
        duties = [*policy.obligations, *(duty for rule in policy.rules for duty in rule.duties)]
        duties += [below for duty in duties for below in duty.duties]  # a consequence has none (ODRL 2.2 IM, 2.6.4)
        known = policy.memo[duty_actions] = frozenset(action.iri for duty in duties for action in duty.actions)
    return known


def deadline_of(duty: Rule, world: World, policy: Policy | None = None, facts: Facts | None = None) -> int | None:
    """The instant (microseconds since 1970) from which the duty is overdue, as far as it is known: the earliest upper bound of time, in an
    `or` the latest of the parts that are not known (by `facts`) to be void. A duration runs from the anchor that the world names; else a
    delay from the first use if the duty follows the use, and any from the signing of the agreement (odrl.md 1.7); for these `policy` is
    needed."""
    if not duty.constraints:
        return None
    reading = _Clock(duty, world, policy, facts)
    ends = [end for node in conjuncts(duty.constraints) if (end := reading.end(node)) is not None]
    return min(ends, default=None)


def has_deadline(duty: Rule) -> bool:
    """Whether its constraints bound the time for it from above."""
    return any(_is_bounded(node) for node in conjuncts(duty.constraints))


def _is_bounded(node: Node) -> bool:
    if isinstance(node, Logic):
        return (any if node.kind in WHOLE else all)(_is_bounded(part) for part in node.parts)
    return bounds_time(node)


def turns_of(duty: Rule, world: World, policy: Policy, facts: Facts | None = None) -> Iterator[int]:
    """The instants at which the duty may come to another state because time passes, beside those that the policy names."""
    clock = _Clock(duty, world, policy, facts)
    running = [node for node in leaves(duty.constraints) if isinstance(node, Constraint) and node.operand in TIMES]
    anchors = [(clock.anchor(node), node.test) for node in running]
    return (at for anchor, test in anchors if anchor is not None and isinstance(test, Lapse) for at in turns(anchor, test))


class _Clock(NamedTuple):
    """What time has to do with a duty: when its parts begin and end in a world."""

    duty: Rule
    world: World
    policy: Policy | None
    facts: Facts | None

    def end(self, node: Node) -> int | None:
        """The instant from which a node lets nothing be done any more; None if there is none, or none that is known."""
        if isinstance(node, Logic):
            parts = node.parts if node.kind in WHOLE else [part for part in node.parts if self.met(part) != FALSE]
            ends = [self.end(part) for part in parts]
            known = [end for end in ends if end is not None]
            if node.kind in WHOLE:
                return min(known, default=None)
            return max(known, default=None) if len(known) == len(ends) else None
        if not isinstance(node, Constraint) or not bounds_time(node):
            return None
        if isinstance(node.test, Window):
            return None if node.test.end is None else int(node.test.end[0])
        if isinstance(node.test, Lapse) and node.test.end is not None and (at := self.anchor(node)) is not None:
            end = values.after(at, node.test.end)
            return None if end is None else end + int(node.test.end_in)
        return None

    def met(self, node: Node) -> int:
        """Whether a node holds at some time, by what is known but the time."""
        if isinstance(node, Logic) and has_time(node):
            return (min if node.kind in WHOLE else max)(self.met(part) for part in node.parts)
        if self.facts is None or (isinstance(node, Constraint) and has_time(node)):
            return TRUE
        return node.judge(self.facts)

    def begun(self, node: Node, now: int | None) -> int:
        """Whether a node holds, where an upper bound of time, and the event that the duty follows, always do."""
        facts = self.facts or {}
        if isinstance(node, Logic) and has_time(node):
            return (min if node.kind in WHOLE else max)(self.begun(part, now) for part in node.parts)
        if not isinstance(node, Constraint) or not has_time(node):
            return node.judge(facts)
        if is_use(node):
            return TRUE
        if isinstance(node.test, Window):
            start = node.test.start
            return TRUE if start is None else UNKNOWN if now is None else TRUE if now >= start[0] else FALSE
        if not isinstance(node.test, Lapse) or node.test.start is None:
            return TRUE
        if (at := self.anchor(node)) is None or now is None:
            return UNKNOWN if bounds_time(node) else node.judge(facts)
        begins = values.after(at, node.test.start)
        return TRUE if begins is not None and now >= begins + int(not node.test.start_in) else FALSE

    def anchor(self, node: Constraint) -> int | None:
        """When a duration begins."""
        duty, world, policy = self.duty, self.world, self.policy
        for name in (duty.id, duty.path, node.operand):
            if name and (told := world.anchors.get(name)) is not None:
                return values.microseconds(told)
        if node.operand == ELAPSED_TIME and self.facts is not None and (since := self.facts.get(node.fact)) is not None:
            return since.anchor if isinstance(since, Since) else None  # as the options have it
        if policy is None:
            return None
        if node.operand == DELAY_PERIOD and any(
            is_use(one) and one.operator in ("gt", "gteq") for one in leaves(duty.constraints) if isinstance(one, Constraint)
        ):
            return first_use(policy, world)  # once for each uid, so from the first one
        return signed(policy)


def signed(policy: Policy) -> int | None:
    """The instant (microseconds since 1970) at which an agreement was signed: its timestamp. One that is no time says nothing, and what
    runs from it is not known."""
    if "signed" not in policy.memo:
        try:
            policy.memo["signed"] = None if policy.timestamp is None else values.stretch(policy.timestamp).start
        except PolicyError:
            policy.memo["signed"] = None
    found: int | None = policy.memo["signed"]
    return found


def _due(policy: Policy, duty: Rule, world: World, now: int | None, facts: Facts) -> int:
    """Whether it is a duty at all: its constraints hold, but for the event that it follows and its deadline, of which only the beginning
    counts. What is not known leaves it due."""
    if not duty.constraints:
        return TRUE
    clock = _Clock(duty, world, policy, facts)
    return min([clock.begun(node, now) for node in duty.constraints])
