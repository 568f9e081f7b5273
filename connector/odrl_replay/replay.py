"""A log judged as a whole: was each act permitted when it happened, what was owed before and after it, and how does everything stand now?

Every act is decided by what was so then: what was used up before it, since when durations ran, which duties were done. So a replay says of
each act what `evaluate` would have said, had it been asked in time; what an act used is known here and counts for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct, field

from connector.odrl.codes import Code, Stage
from connector.odrl.counters import charged, tallies
from connector.odrl.decision import Decision
from connector.odrl.duties import deadline_of, duty_actions, parts_of, performs, state_of
from connector.odrl.evaluation import evaluate, under
from connector.odrl.facts import gather
from connector.odrl.judge import Case, facts_of, granting
from connector.odrl.model import (
    DEFAULT_OPTIONS,
    FALSE,
    TRUE,
    DutyState,
    Event,
    Facts,
    Number,
    Options,
    Policy,
    Request,
    Rule,
    Since,
    World,
    fact_key,
)
from connector.odrl.operands import COUNT, DATE_TIME, PAY_AMOUNT
from connector.odrl.values import EPOCH, instant, microseconds
from connector.odrl_replay.report import Act, Infringement, Report, Standing
from connector.values import replace

_EVER: Final = -(10**20)  # before every instant of the calendar, in microseconds
_WORST: Final[tuple[DutyState, ...]] = ("inactive", "fulfilled", "remediated", "pending", "overdue")


def replay(
    policy: Policy,
    events: Iterable[Event],
    *,
    options: Options = DEFAULT_OPTIONS,
    world: World | None = None,
    closed_at: datetime | None = None,
) -> Report:
    """Judge a whole log: each act by what was so when it happened, each duty by how it stands at the end.

    `events` come in any order and are taken in that of time, those of one instant as they stand; one of which nobody knows the time stays
    behind the one before it. An act that performs a duty is judged as nothing else. One that comes again under its `id` counts once, and no
    duty is performed twice under one id. A duty with a `uid` is due once, however many permissions name it (odrl.md 1.8, row 10), and one
    of a permission only once this was made use of.

    `world` says what held all the time (facts, anchors, collections), what was used up before, how duties stood; its `now` is when duties
    are judged, if it lies behind the last event. Its log is not looked at: give `events`. `closed_at` (aware) is when the agreement was
    closed: from then on nothing is permitted, and what had no deadline had to be done by then (row 12). Whatever a log holds, this does not
    raise; a `closed_at` without a time zone is a ValueError.
    """
    if closed_at is not None and microseconds(closed_at) is None:
        raise ValueError("`closed_at` has no time zone; give an aware instant")
    course = _Course(under(policy, options), options, world or World(EPOCH), closed_at)
    acts = tuple([course.take(index, event) for index, event in enumerate(_in_order(events))])
    return course.report(acts, None if world is None else microseconds(world.now))


def _in_order(events: Iterable[Event]) -> list[Event]:
    """By time; one without a time that is known stays behind the one before it."""
    keyed: list[tuple[int, Event]] = []
    for event in events:
        at = microseconds(event.at)
        keyed.append((at if at is not None else keyed[-1][0] if keyed else _EVER, event))
    return [event for _, event in sorted(keyed, key=lambda pair: pair[0])]


class _Total(Struct):
    """What is used up. Uses that do not tell an amount are of unknown size as long as nothing tells one."""

    number: Number = 0
    told: bool = False
    uses: int = 0

    def add(self, amount: Number | None, use: bool) -> None:
        self.uses += use
        if amount is not None:
            self.number, self.told = self.number + amount, True

    @property
    def known(self) -> Number | None:
        return self.number if self.told or not self.uses else None


Placed = tuple[int, Event]  # an event with its place in the log


Kept = tuple[str, int]  # a part of a duty: its path, and the number of the part
_USES: Final[Kept] = ("", 0)


class _Infringed(NamedTuple):
    path: str
    place: int
    event: Event
    atoms: tuple[Facts, ...]


class _Course(Struct):
    """A log on its way: what is known after each event."""

    policy: Policy
    options: Options
    world: World
    closed_at: datetime | None
    seen: dict[str, Event] = field(default_factory=dict)
    totals: dict[str | tuple[str, str], _Total] = field(default_factory=dict)
    steps: dict[str, Number] = field(default_factory=dict)  # of each counter: what one more use adds at least
    duties: tuple[Rule, ...] = ()
    done: dict[str, list[Placed]] = field(default_factory=dict)  # duty -> the events that perform it
    kept: dict[Kept, dict[str, Placed]] = field(default_factory=dict)  # the events by which later ones are judged
    bound: dict[str, tuple[Facts, ...]] = field(default_factory=dict)  # duty of a permission that was made use of -> what was known then
    infringed: list[_Infringed] = field(default_factory=list)
    last: int | None = None

    def __post_init__(self) -> None:
        policy, operands = self.policy, self.policy.registry.operands
        self.duties = tuple(_duties(policy.rules))
        self.steps = {fact_key(iri, unit): operands[iri].step for iri, unit in policy.measures if operands[iri].kind == "counter"}
        keys: list[str | tuple[str, str]] = [*self.steps, *((tally.rule, tally.operand) for tally in tallies(policy))]
        for key in keys:
            before = self.world.used.get(key, self.world.used.get(key[1]) if isinstance(key, tuple) else None)
            self.totals[key] = _Total() if before is None else _Total(before, True)

    def take(self, index: int, event: Event) -> Act:
        """The next event."""
        at = microseconds(event.at)
        self.last = at if at is not None else self.last
        duties = [duty for duty in self.duties if performs(self.policy, duty, event, self.world)]
        known = self.seen.get(event.id) if event.id else None
        if known is not None and (duties or known == event):
            return Act(event, "repeated")
        self.seen.setdefault(event.id, event)
        if duties:
            self._performed(index, event, duties)
            return Act(event, "duty", performs=tuple(duty.path for duty in duties))
        if self.closed_at is not None and at is not None and event.at >= self.closed_at:
            return Act(event, "violation")
        return self._used(index, event)

    def _performed(self, index: int, event: Event, duties: list[Rule]) -> None:
        for key, total in self.totals.items():
            total.add(event.amounts.get(key if isinstance(key, str) else key[1]), use=False)  # a payment is one for every rule
        for duty in duties:
            self.done.setdefault(duty.path, []).append((index, event))
            for number, part in enumerate(_parts(duty)):
                if not performs(self.policy, part, event, self.world):
                    continue
                kept = self.kept.setdefault((duty.path, number), {})
                kept.setdefault("first", (index, event))
                if _USES in self.kept:
                    kept.setdefault("since the first use", (index, event))
                kept["last"] = (index, event)

    def _used(self, index: int, event: Event) -> Act:
        asked = Request(event.party, event.action, event.target, event.params, Stage.TRANSFER, event.id)
        decision = evaluate(self.policy, asked, self._world(event), options=self.options)
        named = self.policy.registry.actions.get(event.action)
        if not decision.permitted and named in duty_actions(self.policy) and decision.code is not Code.PROHIBITED:
            return Act(event, "duty")  # what somebody has to do, though not like this: it is no use, and performs nothing
        self._count(index, event, decision)
        if decision.permitted:
            return Act(event, "permitted", decision)
        case = decision.case
        bitten = [
            one.rule.path for one in case.prohibitions if any(one.judge(facts_of(case, one.rule, atom)) == TRUE for atom in case.atoms)
        ]
        self.infringed += [_Infringed(path, index, event, case.atoms) for path in bitten]
        return Act(event, "violation", decision, infringes=tuple(bitten))

    def _world(self, event: Event) -> World:
        """What was so when it happened: what this act uses is known, and counts."""
        used = dict(self.world.used)
        for key, total in self.totals.items():
            operand = key if isinstance(key, str) else key[1]
            amount = self._amount(event, operand)
            if total.known is not None:
                used[key] = total.known + (0 if amount is None else amount - self.steps[operand])
        log = sorted({index: told for kept in self.kept.values() for index, told in kept.values()}.items())
        return replace(self.world, now=event.at, used=used, log=tuple(told for _, told in log))

    def _amount(self, event: Event, operand: str) -> Number | None:
        """What an act uses up: one more use, no money, and of everything else what is told."""
        return event.amounts.get(operand, {COUNT: 1, PAY_AMOUNT: 0}.get(operand.partition(" ")[0]))

    def _count(self, index: int, event: Event, decision: Decision) -> None:
        case, place = decision.case, (index, event)
        rules = charged(case) if decision.permitted else self._would_grant(case)
        for key, total in self.totals.items():
            if isinstance(key, str) or key[0] in rules:
                total.add(self._amount(event, key if isinstance(key, str) else key[1]), use=True)
        uses = self.kept.setdefault(_USES, {})
        if microseconds(event.at) is None:
            uses.setdefault("at nobody knows what time", place)
        else:
            uses.setdefault("first", place)
            uses["last"] = place
        if decision.permitted:
            for rule in [rule for facts in case.atoms for rule in granting(case, facts)]:
                self.bound |= {duty.path: case.atoms for duty in rule.duties if duty.path not in self.bound}

    def _would_grant(self, case: Case) -> tuple[str, ...]:
        """The rules under which an act counts that was not permitted: the permissions that only what is used up, or a duty, keeps from
        granting it, and the prohibitions that speak about it."""
        atoms = [{key: fact for key, fact in atom.items() if key not in self.steps} for atom in case.atoms]
        grants = [one.rule.path for one in case.permissions if any(one.judge(atom) != FALSE for atom in atoms)]
        return (*grants, *(one.rule.path for one in case.prohibitions))

    def report(self, acts: tuple[Act, ...], at: int | None) -> Report:
        """How everything stands at the end."""
        closed = None if self.closed_at is None else microseconds(self.closed_at)
        end = max((each for each in (self.last, at, closed) if each is not None), default=None)
        told = {index: event for done in (*self.done.values(), self.kept.get(_USES, {}).values()) for index, event in done}
        used = {key: total.known for key, total in self.totals.items() if total.known is not None}
        now = (None if end is None else instant(end)) or EPOCH
        world = replace(self.world, now=now, used=used, log=tuple(event for _, event in sorted(told.items())))
        atoms = gather(self.policy, Request(""), world, end, self.options)
        standings: list[Standing] = []
        for duty in (*self.policy.obligations, *(duty for rule in self.policy.permissions for duty in rule.duties)):
            known = self.bound.get(duty.path) if duty.kind == "duty" else atoms
            standings += self._standings(duty, world, end, closed, known)
        infringements = tuple([self._infringement(each, world, end) for each in self.infringed])
        return Report(self.policy.id, None if end is None else now, closed is not None, acts, tuple(standings), infringements)

    def _standings(self, duty: Rule, world: World, end: int | None, closed: int | None, atoms: tuple[Facts, ...] | None) -> list[Standing]:
        """How a duty stands, and its consequences behind it; without `atoms` it never came to be one."""
        atoms = atoms or ()
        state, deadline = _stands(self.policy, duty, world, end, atoms)
        if closed is not None and deadline is None and state in ("pending", "fulfilled"):
            state, deadline = self._forced(duty, world, end, closed, atoms), closed
        found = [_standing(duty, state, deadline, self._done(duty))]
        for consequence in duty.duties:
            late = [event for event in self._done(consequence) if _not_before(event, deadline)]
            after = replace(world, log=tuple(late), anchors={**world.anchors, consequence.path: instant(deadline or 0) or EPOCH})
            due = state in ("overdue", "remediated")
            how, by = _stands(self.policy, consequence, after, end, atoms) if due else ("inactive", None)
            found.append(_standing(consequence, how, by, late if due else []))
        return found

    def _forced(self, duty: Rule, world: World, end: int | None, closed: int, atoms: tuple[Facts, ...]) -> DutyState:
        """What had no deadline is judged by the end of the agreement."""

        def done(one: Rule, log: Iterable[Event]) -> bool:
            return _stands(self.policy, one, replace(world, log=tuple(log)), end, atoms)[0] == "fulfilled"

        log = world.log or ()
        if done(duty, (event for event in log if not _not_before(event, closed))):
            return "fulfilled"
        late = [event for event in log if _not_before(event, closed)]
        return "remediated" if done(duty, log) and duty.duties and all(done(one, late) for one in duty.duties) else "overdue"

    def _done(self, duty: Rule) -> list[Event]:
        return [event for _, event in self.done.get(duty.path, ())]

    def _infringement(self, infringed: _Infringed, world: World, end: int | None) -> Infringement:
        """An infringement with its remedies, each judged by what was done after it."""
        rule = next(rule for rule in self.policy.prohibitions if rule.path == infringed.path)
        remedies = []
        for remedy in rule.duties:
            later = [event for index, event in self.done.get(remedy.path, ()) if index > infringed.place]
            after = replace(world, log=tuple(later), anchors={**world.anchors, remedy.path: infringed.event.at})
            remedies.append(_standing(remedy, *_stands(self.policy, remedy, after, end, infringed.atoms), later))
        return Infringement(infringed.path, infringed.event, tuple(remedies))


def _duties(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Every duty of the rules, in each of its roles."""
    for rule in rules:
        if rule.kind not in ("permission", "prohibition"):
            yield rule
        yield from _duties(rule.duties)


def _parts(duty: Rule) -> list[Rule]:
    """A duty for each thing that has to be done of it."""
    parts = parts_of(duty)
    if len(parts) == 1:
        return [duty]
    return [replace(duty, actions=(part.action,) if part.action else (), targets=(part.target,) if part.target else ()) for part in parts]


def _stands(policy: Policy, duty: Rule, world: World, end: int | None, atoms: tuple[Facts, ...]) -> tuple[DutyState, int | None]:
    """The worst of how a duty stands for each act that brought it about, and its deadline."""
    moved = [_at(facts, end) for facts in atoms]
    found = [(state_of(policy, duty, world, end, facts), deadline_of(duty, world, policy, facts)) for facts in moved]
    return max(found, key=lambda one: _WORST.index(one[0]), default=("inactive", None))


def _at(facts: Facts, end: int | None) -> Facts:
    if end is None:
        return facts
    running = {key: Since(fact.anchor, end) for key, fact in facts.items() if isinstance(fact, Since)}
    return {**facts, DATE_TIME: end, **running}


def _standing(duty: Rule, state: DutyState, deadline: int | None, done: list[Event]) -> Standing:
    return Standing(
        duty.path, duty.kind, state, None if deadline is None else instant(deadline), tuple(event.at for event in done), duty.id
    )


def _not_before(event: Event, bound: int | None) -> bool:
    at = microseconds(event.at)
    return at is not None and bound is not None and at >= bound
