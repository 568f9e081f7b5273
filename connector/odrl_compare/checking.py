"""The semantic check of a policy (odrl.md 4.4): rules that can never apply, constraints that say nothing, permissions and prohibitions that
meet, children that are wider than their parents. Every finding is a warning, says what shows it, and is given only where it is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from connector.odrl.codes import Code, Finding
from connector.odrl.evaluation import under
from connector.odrl.model import DEFAULT_OPTIONS, Constraint, Logic, Node, Options, Policy, Rule, Window, conjuncts, leaves
from connector.odrl.operands import DATE_TIME, EVENT, POLICY_USAGE
from connector.odrl.values import microseconds
from connector.odrl.vocabulary import ODRL, compact
from connector.odrl.words import SENTENCE_CHARS_MAX, asked, shown
from connector.odrl_compare.axes import ACTION, Lengths, axis_of, calendars, cone
from connector.odrl_compare.boxes import STEPS_MAX, Box, Region, TooComplex, Work
from connector.odrl_compare.comparing import MONTHS_MAX, Comparison
from connector.odrl_compare.regions import EVERYWHERE, Reader
from connector.odrl_compare.shapes import months_of
from connector.odrl_compare.sides import HIGH, LOW, Cut, Line, Names
from connector.odrl_compare.verdict import NO
from connector.odrl_compare.witness import witness
from connector.odrl_compare.wording import rule_meaning, title
from connector.values import replace

# A unit without which a number of these says nothing: money of which currency, a size in pixels or in bytes.
UNITS_NEEDED: Final = frozenset(
    ODRL + name
    for name in (
        "payAmount", "absolutePosition", "absoluteSize", "absoluteSpatialPosition", "resolution",
    )
)  # fmt: skip


def check(policy: Policy, *, options: Options = DEFAULT_OPTIONS, now: datetime | None = None) -> tuple[Finding, ...]:
    """What a policy says that can hardly be meant, in the order of the document.

    `now` (aware) adds what is over by then. The rules that a policy inherits are read with it (`load(..., parents=...)`), and its own are
    measured by them. Where it would take too long, or where the length of a month decides, nothing is said. Never raises.
    """
    policy = under(policy, options)
    months = months_of(policy)
    if len(months) > MONTHS_MAX:
        return ()
    at = None if now is None else microseconds(now)
    looks = calendars(months) if months else ((0, ()),)
    steps = 2 * STEPS_MAX // len(looks)
    rounds = [
        {(finding.code, finding.path): finding for finding in _Check(policy, options, dict(lengths), at, steps).findings()}
        for _, lengths in looks
    ]
    kept = [finding for key, finding in rounds[0].items() if all(key in found for found in rounds[1:])]
    return (*kept, *_lineage(policy, options))


class _Check:
    """One policy under one calendar, in so many steps of all parts together."""

    def __init__(self, policy: Policy, options: Options, lengths: Lengths, now: int | None, steps: int) -> None:
        self.policy, self.now, self.lengths = policy, now, lengths
        self.wins = policy.conflict or options.conflict
        self.reader = Reader(policy.registry, Work(), lengths)
        self.steps = steps

    def findings(self) -> Iterator[Finding]:
        """All findings of all rules."""
        for rule in _all_rules(self.policy.rules):
            yield from self._within(self._of_rule(rule))
        yield from self._within(self._duplicates())
        for permission in self.policy.permissions:
            yield from self._within(self._against(permission))
            yield from self._within(self._duties(permission))

    def _within(self, found: Iterator[Finding]) -> list[Finding]:
        """The findings of one part, in a bounded time; what is too complex says nothing."""
        work = self.reader.work
        work.left = given = min(self.steps, STEPS_MAX // 8)
        kept: list[Finding] = []
        try:
            for finding in found:
                kept.append(finding)
        except TooComplex:
            self.steps -= given
        else:
            self.steps -= given - work.left
        return kept

    def _of_rule(self, rule: Rule) -> Iterator[Finding]:
        duty = rule.kind not in ("permission", "prohibition")
        nodes = [node for node in rule.constraints if not (duty and _tells_when(node))]
        region = self.reader.all_true(nodes) if duty else self.reader.rule(self.policy, rule)
        if not region:
            yield self._unsatisfiable(rule)
        elif any(len(units) > 1 for units in self._units(rule).values()) and self._sure(region) is None:
            reason = next(why for box in region if (why := self.reader.work.guessed(box)))
            yield _warning(Code.UNIT_MISMATCH, rule.path, f"nobody can tell whether {title(rule)} can apply: {reason}", "use one unit")
        yield from self._of_nodes(nodes)
        for action in rule.actions:
            yield from self._of_nodes(action.refinements)
        for scope in (*rule.targets, *rule.assignees):
            yield from self._of_nodes(scope.refinements)
        if region and self.now is not None:
            yield from self._over(rule, region)

    def _unsatisfiable(self, rule: Rule) -> Finding:
        """A rule that no request can satisfy, with the least of it that shows it."""
        nodes = [*_flat(rule.constraints), *_flat(rule.refinements)]
        culprits = self._culprits(nodes)
        path = culprits[0].path if len(culprits) == 1 else rule.path
        texts = " and ".join(f"that {asked(node)}" for node in culprits) or "what has nothing in common"
        loose = next((node for node in culprits if isinstance(node, Constraint) and node.operand in UNITS_NEEDED and not node.unit), None)
        if loose is not None:
            message = f"`{compact(loose.operand)}` has no unit, so nobody can tell whether it can be asked {texts}"
            return _warning(Code.UNIT_MISMATCH, loose.path, message, "add `odrl:unit` with the IRI of the unit")
        message = f"no request can ever satisfy {title(rule)}: it asks {texts}"
        if len(culprits) == 1 and isinstance(culprits[0], Constraint):
            message += f"; {_domain(self.reader, culprits[0])}"
        return _warning(Code.UNSATISFIABLE, path, message, "mend or leave out one of them")

    def _units(self, rule: Rule) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for leaf in leaves((*rule.constraints, *rule.refinements)):
            if isinstance(leaf, Constraint) and isinstance(leaf.test, Window):
                found.setdefault(leaf.operand, set()).add(leaf.unit)
        return found

    def _culprits(self, nodes: Sequence[Node]) -> list[Node]:
        """One constraint that nothing satisfies, else two that exclude each other, else all."""
        regions = [(node, self.reader.true(node)) for node in nodes]
        for node, region in regions:
            if not region:
                return [node]
        for index, (node, region) in enumerate(regions):
            for other, its in regions[:index]:
                if not self.reader.work.both(region, its):
                    return [other, node]
        return [node for node, _ in regions]

    def _of_nodes(self, nodes: Sequence[Node]) -> Iterator[Finding]:
        """Constraints that all count: what is always satisfied, or follows from the others; and the same of their parts."""
        flat = list(_flat(nodes))
        regions = [self.reader.true(node) for node in flat]
        before = _running(self.reader, regions)
        kept = EVERYWHERE
        for index in reversed(range(len(flat))):  # of two that say the same, the later one is too much
            node, region = flat[index], regions[index]
            others = self.reader.work.both(before[index], kept)
            if region and not self.reader.false(node) and not self._guessed(region):
                yield _warning(Code.TAUTOLOGY, node.path, f"it is always so that {asked(node)}", "leave it out")
            if others and region and len(flat) > 1 and not self.reader.work.without(others, region):
                yield self._redundant(node, "the others already ask for it")
            else:
                kept = self.reader.work.both(region, kept)
            yield from self._of_logic(node)

    def _of_logic(self, node: Node) -> Iterator[Finding]:
        if not isinstance(node, Logic):
            return
        regions = [self.reader.true(part) for part in node.parts]
        if node.kind == "xone":
            yield from self._overlap(node, regions)
            yield from self._never(node, regions)
        for index, part in enumerate(node.parts):
            others = [box for at, region in enumerate(regions) if at != index for box in region]
            if node.kind == "or" and others and regions[index] and not self.reader.work.without(regions[index], others):
                yield self._redundant(part, "another branch already allows it")
            yield from self._of_nodes([part])

    def _redundant(self, node: Node, why: str) -> Finding:
        return _warning(Code.REDUNDANT, node.path, f"it says nothing more that {asked(node)}: {why}", "leave it out")

    def _overlap(self, node: Logic, regions: list[Region]) -> Iterator[Finding]:
        """`xone` means one and not the other: where two branches hold, it does not."""
        for index, region in enumerate(regions):
            for at in range(index):
                box = self._sure(self.reader.work.both(region, regions[at]))
                if box is not None:
                    facts = _facts(witness(box, self.reader.work.axes, None).sentence)
                    one, other = asked(node.parts[at]), asked(node.parts[index])
                    message = f"with {facts} both hold that {one} and that {other}, and so neither counts"
                    yield _warning(Code.XONE_OVERLAP, node.path, message, "write two offers, or branches that exclude each other")
                    return

    def _never(self, node: Logic, regions: list[Region]) -> Iterator[Finding]:
        """A branch of an `xone` that is offered, and that nobody can choose: whenever it holds, another one does too."""
        if not self.reader.true(node):
            return  # none can be chosen: the rule says so
        for index, part in enumerate(node.parts):
            others = [box for at, region in enumerate(regions) if at != index for box in region]
            if regions[index] and not self.reader.work.without(regions[index], others):
                message = f"it is never the one of the `xone` that {asked(part)}: whenever that holds, another branch does too"
                yield _warning(Code.XONE_NEVER, part.path, message, "leave it out, or write branches that exclude each other")

    def _over(self, rule: Rule, region: Region) -> Iterator[Finding]:
        """A rule whose time is over, a duty whose deadline has passed."""
        later = Line((((self.now or 0, 0), HIGH),))
        if any(DATE_TIME not in box or not box[DATE_TIME].misses(later) for box in region):
            return
        yield _warning(Code.ALREADY_OVER, rule.path, f"the time of {title(rule)} is over", "give it a later end, or leave it out")

    def _duplicates(self) -> Iterator[Finding]:
        seen: dict[object, Rule] = {}
        for rule in self.policy.rules:
            known = seen.setdefault(rule_meaning(rule), rule)
            if known is not rule:
                yield _warning(Code.DUPLICATE_RULE, rule.path, f"it says the same as {known.path}", "leave one of them out")

    def _against(self, permission: Rule) -> Iterator[Finding]:
        """A permission and the prohibitions: always beaten, or overlapping."""
        region = self.reader.rule(self.policy, permission)
        if not region:
            return
        left = region
        for prohibition in self.policy.prohibitions:
            left = self.reader.work.both(left, self.reader.not_rule(self.policy, prohibition))
        if not left and self.wins != "permit":
            path = permission.path
            yield _warning(
                Code.SHADOWED, path, f"whatever {title(permission)} allows is prohibited", "narrow the prohibition, or leave it out"
            )
            return
        for prohibition in self.policy.prohibitions:
            box = self._sure(self.reader.work.both(region, self.reader.rule(self.policy, prohibition)))
            if box is not None and self.policy.conflict != "prohibit":  # said like this, what overlaps is an exception that is meant
                yield self._clash(permission, prohibition, box)

    def _exception(self, permission: Rule, prohibition: Rule) -> bool:
        """Whether the prohibition takes a narrower action out of the permission; one of the same action contradicts it."""
        within = self.policy.registry.within
        return bool(prohibition.actions) and all(
            any(mine.iri in within.get(its.iri, ()) and mine.iri != its.iri for mine in permission.actions) for its in prohibition.actions
        )

    def _clash(self, permission: Rule, prohibition: Rule, box: Box) -> Finding:
        """What both rules speak of. An exception is meant, and only wants to be said; anything else contradicts itself."""
        found = witness(box, self.reader.work.axes, prohibition)
        wins = {"prohibit": "the prohibition wins", "permit": "the permission wins", "invalid": "that voids the whole policy"}[self.wins]
        unset = "" if self.policy.conflict else ", since the policy does not say it"
        message = f"{found} is permitted by {permission.path} and prohibited here: {wins}{unset}"
        code = Code.CONFLICT_UNSET if unset and self._exception(permission, prohibition) else Code.DEONTIC_CONFLICT
        if not unset:
            return _warning(code, prohibition.path, message, "make them exclude each other")
        patch: tuple[Mapping[str, Any], ...] = ({"op": "add", "path": "/odrl:conflict", "value": {"@id": "odrl:prohibit"}},)
        return _warning(code, prohibition.path, message, "write `odrl:conflict`, or make them exclude each other", patch=patch)

    def _duties(self, permission: Rule) -> Iterator[Finding]:
        """A duty that is prohibited by its name, or that can only be done when the permission has ended."""
        for duty in (*permission.duties, *self.policy.obligations):
            for prohibition in self.policy.prohibitions:
                yield from self._prohibited(permission, duty, prohibition)
            yield from self._late(permission, duty)

    def _prohibited(self, permission: Rule, duty: Rule, prohibition: Rule) -> Iterator[Finding]:
        names = frozenset(action.iri for action in duty.actions)
        if prohibition.actions and not any(action.iri in names for action in prohibition.actions):
            return
        act: Region = [{ACTION: Names(frozenset(name for iri in names for name in cone(self.policy.registry, iri).values))}]
        due = [{key: side for key, side in box.items() if key != ACTION} for box in self.reader.rule(self.policy, permission)]
        forbidden = self.reader.rule(self.policy, prohibition)
        box = self._sure(self.reader.work.both(self.reader.work.both(due, act), forbidden)) if due and forbidden else None
        if box is not None:
            found = witness(box, self.reader.work.axes, duty)
            message = f"it has to be done, and {prohibition.path} prohibits it: {found}"
            yield _warning(Code.DUTY_PROHIBITED, duty.path, message, "except it from the prohibition")

    def _late(self, permission: Rule, duty: Rule) -> Iterator[Finding]:
        if duty.when == "post" or duty.kind == "obligation":
            return
        ends = [_last(box) for box in self.reader.rule(self.policy, permission)]
        starts = [
            node.test.start for node in conjuncts(duty.constraints)
            if isinstance(node, Constraint) and node.operand == DATE_TIME and isinstance(node.test, Window) and not node.test.negated
        ]  # fmt: skip
        begins = max((start for start in starts if start is not None), default=LOW)
        if ends and begins >= max(ends):
            message = f"it is to be done before the use, and not before {title(permission)} has ended"
            yield _warning(Code.DUTY_AFTER_END, duty.path, message, "give it an earlier time, or the permission a later end")

    def _sure(self, region: Region) -> Box | None:
        return next((box for box in region if not self.reader.work.guessed(box)), None)

    def _guessed(self, region: Region) -> bool:
        return any(self.reader.work.guessed(box) for box in region)


def _flat(nodes: Iterable[Node]) -> Iterator[Node]:
    """Nodes that all have to hold, without the `and`s around them; an `andSequence` stays one."""
    for node in nodes:
        if isinstance(node, Logic) and node.kind == "and":
            yield from _flat(node.parts)
        else:
            yield node


def _last(box: Box) -> Cut:
    """Where the time of a box ends."""
    side = box.get(DATE_TIME)
    return side.spans[-1][1] if isinstance(side, Line) else HIGH


def _running(reader: Reader, regions: Sequence[Region]) -> list[Region]:
    """What the first n regions have in common, for each n."""
    found = [EVERYWHERE]
    for region in regions:
        found.append(reader.work.both(found[-1], region))
    return found


def _tells_when(node: Node) -> bool:
    """Whether it says of a duty that it comes before or after the use: no use can satisfy that, and none has to."""
    return isinstance(node, Constraint) and node.operand == EVENT and node.unit == POLICY_USAGE


def _all_rules(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        yield rule
        yield from _all_rules(rule.duties)


def _facts(sentence: str) -> str:
    return sentence.partition(" with ")[2] or sentence


def _domain(reader: Reader, node: Constraint) -> str:
    """What values an operand has at all."""
    row = axis_of(reader.registry, node).row
    if row is None or (row.low is None and row.high is None):
        return "one act has one value"
    counts = row.step and row.values != "duration"  # the least that a duration lasts is as little as one likes
    low = "" if row.low is None else f"at least {row.low + row.step}" if counts or (row.low_in and not row.step) else f"more than {row.low}"
    high = "" if row.high is None else f"at most {row.high}"
    return f"{row.label} is {' and '.join(part for part in (low, high) if part)}"


def _warning(code: Code, path: str, message: str, fix: str, **more: Any) -> Finding:
    return Finding(code, path, shown(message, SENTENCE_CHARS_MAX), fix, "warning", **more)


def _inherited(rule: Rule) -> bool:
    """Whether a rule stands with a parent: its path leads through `inheritFrom`, in whatever spelling."""
    return rule.path.partition("/")[2].partition("/")[0].endswith("inheritFrom")


def _lineage(policy: Policy, options: Options) -> Iterator[Finding]:
    """A child may only narrow what it inherits: its own permissions have to lie in those of its parents."""
    own = [rule for rule in policy.permissions if not _inherited(rule)]
    parents = tuple(rule for rule in policy.permissions if _inherited(rule))
    if not policy.inherits or not own or not parents:
        return
    above = replace(policy, permissions=parents)
    for rule in own:
        comparison = Comparison(replace(policy, permissions=(rule,)), above, options, steps=STEPS_MAX // len(own))
        common = comparison.compatible()
        if common.answer == NO:
            message = f"{title(rule)} has nothing in common with what is inherited: {common.reason}"
            yield _warning(Code.CHILD_INCONSISTENT, rule.path, message, "let it narrow a permission of the parent")
        elif (found := comparison.refines()).answer == NO:
            message = f"it allows more than what is inherited: {found.witness or found.reason}"
            yield _warning(Code.CHILD_WIDER, rule.path, message, "let it narrow a permission of the parent")
