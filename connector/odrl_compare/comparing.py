"""Whether one policy refines another, and whether they are compatible (odrl.md 4.1).

Each permission of the first, without what its prohibitions forbid, has to lie in the permissions of the second whose duties it owes. What
is left over is the witness. Where the length of a month decides, where something is not understood, or where it would take too long, the
answer is unknown, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Final

from connector.odrl.duties import signed
from connector.odrl.evaluation import evaluate, under
from connector.odrl.model import DEFAULT_OPTIONS, Constraint, Options, Policy, Rule, Scope, constraints_of
from connector.odrl.operands import DELAY_PERIOD, ELAPSED_TIME
from connector.odrl.words import shown
from connector.odrl_compare.axes import Axis, calendars
from connector.odrl_compare.boxes import STEPS_MAX, Box, TooComplex, Work
from connector.odrl_compare.covering import all_covered, clears, described, narrower, spared
from connector.odrl_compare.lacking import Lack, lacks, shown_by, undone
from connector.odrl_compare.regions import Reader
from connector.odrl_compare.saying import separation
from connector.odrl_compare.shapes import Grant, Shape, months_of, shape_of
from connector.odrl_compare.verdict import NO, UNKNOWN, YES, Answer, Found, Verdict, unknown
from connector.odrl_compare.witness import Witness, witness
from connector.odrl_compare.wording import same_words
from connector.values import Value

NAMES: Final = ("first", "second")
MONTHS_MAX: Final = 8  # different counts of months in two policies whose calendars are gone through
COMPLEX: Final = unknown("the two policies are too complex to be compared in the time that there is")
FROM_SIGNING: Final = frozenset({ELAPSED_TIME, DELAY_PERIOD})
FOREIGN: Final = unknown("the two were read under different profiles")
SIGNED: Final = unknown("the two were signed at different times, and a duration runs from that")
CALENDAR: Final = "that depends on how long the months are, which is known only when the time begins to run"


def compare(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS, names: tuple[str, str] = NAMES) -> Verdict:
    """How two policies stand to each other.

    What is compared is the set of requests that each permits, in every state of the world: a silent axis means anything. A request that
    does not have a fact satisfies neither a constraint on it nor its opposite, exactly as in `evaluate`. Duties and obligations are
    compared as odrl.md 4.1 says. It takes a bounded time for policies as `load` lets them in, and never raises. `options` are those of
    `evaluate`; `names` are what the two are called in reasons (`the request`, `the offer`).
    """
    return Comparison(a, b, options, names=names).verdict()


class Look(Value):
    """Two shapes under one calendar. `day` (since 1970) is one on which this calendar begins, None if no month matters."""

    one: Shape
    other: Shape
    reader: Reader
    day: int | None


class Comparison:
    """Two policies, side by side. The work of all questions together is bounded."""

    def __init__(
        self, a: Policy, b: Policy, options: Options, *, bare: bool = False, steps: int = STEPS_MAX, names: tuple[str, str] = NAMES
    ) -> None:
        self.one, self.other, self.options, self.bare = under(a, options), under(b, options), options, bare
        self.names = names
        self.work = Work(steps)
        self._looks: list[Look] | None = None  # none at all: they are too complex

    def turned(self) -> Comparison:
        """The same two the other way round, at the cost of the same bound."""
        turned = Comparison(self.other, self.one, self.options, bare=self.bare)
        turned.work, turned.names = self.work, (self.names[1], self.names[0])
        if self._looks is not None:
            turned._looks = [Look(look.other, look.one, look.reader, look.day) for look in self._looks]
        return turned

    def verdict(self) -> Verdict:
        """All answers."""
        there, back, both = self.refines(), self.turned().refines(), self.compatible()
        states = (there.answer, back.answer)
        worst = there if there.answer == NO or (there.answer == UNKNOWN and back.answer != NO) else back
        equivalent: Answer = NO if NO in states else UNKNOWN if UNKNOWN in states else YES
        founds = {"refines": there, "refined_by": back, "equivalent": worst, "compatible": both}
        return Verdict(there.answer, back.answer, equivalent, both.answer, founds)

    def refines(self) -> Found:
        """Whether the first is at most as generous as the second."""
        one, other = self.one, self.other
        if one.registry is not other.registry:
            return FOREIGN
        if one.opaque != other.opaque:
            return unknown("properties that are not understood here differ")
        if other.refused and not one.refused:
            return unknown(f"the {self.names[1]} is not understood here: {_first_error(other)}")
        if one is other:
            return Found(YES)
        try:
            found = self._agreed([self._refines(look) for look in self.looks()])
        except TooComplex:
            same = same_words(one, other, bare=self.bare) and not signed_apart(one, other, self.options)
            return Found(YES) if same else COMPLEX
        if found.answer == NO and one.refused:
            return unknown(f"the {self.names[0]} is not understood here: {_first_error(one)}")
        return SIGNED if found.answer == YES and signed_apart(one, other, self.options) else found

    def compatible(self) -> Found:
        """Whether there is a request that both permit."""
        if self.one.registry is not self.other.registry:
            return FOREIGN
        try:
            found = self._agreed([self._compatible(look) for look in self.looks()])
        except TooComplex:
            return COMPLEX
        if found.answer == NO and signed_apart(self.one, self.other, self.options):
            return SIGNED
        if found.answer == YES and (self.one.refused or self.other.refused):
            refused = self.one if self.one.refused else self.other
            return unknown(f"one of the two is not understood here: {_first_error(refused)}")
        return found

    def _agreed(self, founds: list[Found]) -> Found:
        """The answer of all calendars together."""
        if all(found.answer == founds[0].answer for found in founds):
            return founds[0] if len(founds) == 1 else Found(founds[0].answer, partial(self._shown_best, founds))
        return next((found for found in founds if found.answer == UNKNOWN), unknown(CALENDAR))

    def _shown_best(self, founds: list[Found]) -> tuple[str, Witness | None]:
        """The first witness that holds on its own day: where the time is fixed, a month may be another one than the calendar had."""
        told = [found.tell() for found in founds if found.tell is not None]
        for reason, found in told:
            if found is not None:
                states = [evaluate(policy, found.request, found.world, options=self.options).permitted for policy in (self.one, self.other)]
                if any(states) and (founds[0].answer == YES) == all(states):
                    return reason, found
        return told[0] if told else ("", None)

    def looks(self) -> list[Look]:
        """The shapes of both under each calendar that they know. Raises TooComplex; what was too complex for one question is so for all."""
        if self._looks is None:
            self._looks = []
            self._looks = list(self._each_look())
        if not self._looks:
            raise TooComplex
        return self._looks

    def _each_look(self) -> Iterator[Look]:
        months = months_of(self.one) | months_of(self.other)
        if len(months) > MONTHS_MAX:
            raise TooComplex
        if months:
            self.work.leaves = {}
        looks = calendars(months) if months else ((None, ()),)
        for at, (day, lengths) in enumerate(looks):
            before, found = self.work.left, dict(lengths)
            shapes = [shape_of(policy, self.work, found, self.options, bare=self.bare) for policy in (self.one, self.other)]
            yield Look(shapes[0], shapes[1], Reader(self.one.registry, self.work, found), day)
            if at == 1:  # each costs like the other, and the first has read what they share
                self.work.spend(0 if (before - self.work.left) * (len(looks) - 2) <= self.work.left else self.work.left + 1)

    def _refines(self, look: Look) -> Found:
        for grant in look.one.grants:
            found = self._granted(look, grant)
            if found.answer != YES:
                return found
        state, duty = all_covered(look.reader, look.one.policy.obligations, look.other.policy.obligations)
        if duty is None:
            state, duty = clears(look.reader, look.one.policy, look.other.policy)
        return Found(YES) if duty is None else self._besides(look, state, duty)

    def _granted(self, look: Look, grant: Grant) -> Found:
        """Whether the second policy permits what one permission of the first grants, for the duties that it owes."""
        surely: list[Box] = []
        perhaps: list[Box] = []
        for far in look.other.grants:
            sure, maybe = spared(look.reader, grant.rule.duties, far.rule.duties) if far.rule.duties else (None, None)
            if far.rule.duties and not self._by_its_debtors(look, grant.rule, far.rule):
                sure = spared(look.reader, (), far.rule.duties)[0]
            surely += far.region if sure is None else look.reader.work.both(far.region, sure)
            perhaps += far.region if maybe is None else look.reader.work.both(far.region, maybe)
        left, doubt = self._rest(look, grant, perhaps)
        if left is not None:
            return self._outside(look, grant, left)
        if doubt:
            return unknown(doubt)
        if surely != perhaps:
            left, doubt = self._rest(look, grant, surely)
            if left is not None or doubt:
                reason = f"nobody here can tell whether the duties of the {self.names[0]} cover those of the {self.names[1]}"
                return unknown(doubt or reason)
        return Found(YES)

    def _by_its_debtors(self, look: Look, mine: Rule, its: Rule) -> bool:
        """Whether whoever does a duty of the first rule is somebody who may do one of the second, and on its target. A duty that names
        neither is owed by the assignees of its rule, on the targets of that."""
        near, far = self._heads(look.one.policy, mine), self._heads(look.other.policy, its)
        return all(duty.assignees or narrower(own.assignees or near[0], far[0]) for own in mine.duties for duty in its.duties) and all(
            duty.targets or narrower(own.targets or near[1], far[1]) for own in mine.duties for duty in its.duties
        )

    def _heads(self, policy: Policy, rule: Rule) -> tuple[tuple[Scope, ...], tuple[Scope, ...]]:
        """The assignees and targets of a rule, else those of its policy where they count."""
        if self.bare:
            return rule.assignees, rule.targets
        targets = () if policy.target is None else (Scope(policy.target),)
        return rule.assignees or tuple(map(Scope, sorted(policy.assignees))), rule.targets or targets

    def _rest(self, look: Look, grant: Grant, others: list[Box]) -> tuple[Box | None, str]:
        """A box of the permission that surely lies in none of the others, or why nobody can tell whether there is one."""
        doubt = ""
        for box in grant.region:
            for left in look.reader.work.rest(box, others):
                guessed = look.reader.work.guessed(left)
                if not guessed:
                    return left, ""
                doubt = doubt or guessed
        return None, doubt

    def _outside(self, look: Look, grant: Grant, left: Box) -> Found:
        """The second does not permit what is left: at all, or not without a duty that the first does not ask for."""
        work = look.reader.work
        sure = next((box for box in work.rest(left, look.other.boxes) if not work.guessed(box)), None)
        if sure is not None:
            return Found(NO, partial(self._shown, look, grant, sure))
        # Where another permission of the first owes something too, a decision would show that.
        owing = [box for near in look.one.grants if near is not grant and near.rule.duties for box in near.region]
        duties = self._owed(look, grant)

        def places(reader: Reader) -> Iterator[Lack]:
            for box in chain(reader.work.rest(left, owing), (left,)):
                yield from lacks(reader, duties, look.other.grants, box)

        lack = shown_by(look.reader, places)
        if lack is None:
            return unknown("what the two permit differs in something that is not understood here")
        if lack.acts is None:
            asked = described(lack.missing[0])
            return unknown(f"only the time for it can tell whether the {self.names[0]} covers {asked} of the {self.names[1]}")
        return Found(NO, partial(self._owing, look, grant, lack))

    def _besides(self, look: Look, state: Answer, duty: Rule) -> Found:
        """The second has an obligation or a remedy that the first does not cover, whatever is permitted."""
        if state == UNKNOWN:
            return unknown(f"nobody here can tell whether the {self.names[0]} covers {described(duty)} of the {self.names[1]}")
        for grant in look.one.grants:
            try:
                lack = shown_by(look.reader, partial(undone, duties=self._owed(look, grant), duty=duty, region=grant.region))
            except TooComplex:
                break  # it is lacking all the same
            if lack is not None and lack.acts is not None:
                return Found(NO, partial(self._owing, look, grant, lack))
        return Found(NO, lambda: (self._asked(duty), None))

    def _owed(self, look: Look, grant: Grant) -> tuple[Rule, ...]:
        return (*grant.rule.duties, *look.one.policy.obligations)

    def _asked(self, duty: Rule) -> str:
        return f"the {self.names[1]} asks for {described(duty)}, and the {self.names[0]} for nothing that covers it"

    def _shown(self, look: Look, grant: Grant, box: Box) -> tuple[str, Witness]:
        found = witness(box, look.reader.work.axes, grant.rule, self._owed(look, grant), day=look.day)
        return f"the {self.names[0]} permits {found}, and the {self.names[1]} does not", found

    def _owing(self, look: Look, grant: Grant, lack: Lack) -> tuple[str, Witness | None]:
        """An act for which the second asks for more, with all done that the first asks for."""
        axes, done = look.reader.work.axes, lack.acts or ()
        found = witness(lack.box, axes, grant.rule, performed=done, policy=look.one.policy, day=look.day)
        return self._asked(lack.missing[0]), found

    def _compatible(self, look: Look) -> Found:
        doubt, work = "", look.reader.work
        for grant in look.one.grants:
            for far in look.other.grants:
                for box in grant.region:
                    for its in far.region:
                        if work.apart(box, its) or (common := work.meet(box, its)) is None:
                            continue
                        guessed = work.guessed(common)
                        if not guessed:
                            return Found(YES, partial(self._permitted, look, grant, far, common))
                        doubt = doubt or guessed
        return unknown(doubt) if doubt else Found(NO, partial(self._apart, look))

    def _permitted(self, look: Look, grant: Grant, far: Grant, box: Box) -> tuple[str, Witness]:
        done = (*grant.rule.duties, *far.rule.duties, *look.one.policy.obligations, *look.other.policy.obligations)
        return "", witness(box, look.reader.work.axes, grant.rule, done, day=look.day)

    def _apart(self, look: Look) -> tuple[str, Witness | None]:
        """Two policies that have nothing in common: on which axis, and what only one of them permits."""
        work = look.reader.work
        reason = separation(work.axes, look.one.boxes, look.other.boxes, self.names)[1]
        for shape, name in ((look.one, self.names[0]), (look.other, self.names[1])):
            where = _anywhere(shape, work.axes)
            if where is not None:
                done = (*where[0].rule.duties, *shape.policy.obligations)
                found = witness(where[1], work.axes, where[0].rule, done, day=look.day)
                return f"{reason}; only the {name} permits {found}", found
        return reason, None


def _anywhere(shape: Shape, axes: dict[str, Axis]) -> tuple[Grant, Box] | None:
    """A box in which a policy surely permits something, if one is found soon."""
    work = Work()
    work.axes = axes
    try:
        return next(((grant, box) for grant in shape.grants for box in grant.region if not work.guessed(box)), None)
    except TooComplex:
        return None


def signed_apart(one: Policy, other: Policy, options: Options) -> bool:
    """Whether a duration of either may run from its signing, and the two were signed at different times. What differs under one anchor
    differs all the same: a world may name it; what does not may still be decided differently."""
    if options.recurrence_anchor != "agreement" or None in (signed(one), signed(other)) or signed(one) == signed(other):
        return False
    return any(isinstance(leaf, Constraint) and leaf.operand in FROM_SIGNING for policy in (one, other) for leaf in constraints_of(policy))


def _first_error(policy: Policy) -> str:
    return next((shown(str(finding), 200) for finding in policy.findings if finding.severity == "error"), "a finding of severity `error`")
