"""What a transfer has set aside of a budget when it started, for all that it costs: an open reservation of its own. Pure.

What streams of the transfer then hold and spend comes off it, and what they give back goes back to it, so that the transfer has at every
instant what it needs to come to its end, and others see no more as reserved than that.

What it has taken in all, held and spent since it began, stands beside that as less than nothing: it reserves nothing, and outlives what
was set aside. Once the transfer is over, and both sides have signed what it came to, the budget has spent what the bill says: what was on
its way then, and was never signed for, goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from connector.metering.ranges import Ranges
from connector.odrl.operands import COUNT
from connector.records import Reservation, Usage
from connector.values import replace

PREFIX: Final = "aside:"
TAKEN: Final = "taken:"
TAKEN_MAX: Final = (
    256  # under one agreement: beyond, what is never signed for stays spent. Else who signs no statements would fill the record
)


def aside_id(transfer: str) -> str:
    """The id of what a transfer (our pid) has set aside."""
    return PREFIX + transfer


def is_aside(each: Reservation) -> bool:
    """Whether a reservation was set aside by the start of its transfer."""
    return each.id == aside_id(each.transfer)


def taken_id(transfer: str) -> str:
    """The id under which stands what a transfer (our pid) has taken."""
    return TAKEN + transfer


def is_taken(each: Reservation) -> bool:
    """Whether it is no reservation, and says what its transfer has taken."""
    return each.id == taken_id(each.transfer)


def taking(usage: Usage, transfer: str, budgets: Iterable[tuple[str, str]], now: float) -> tuple[Reservation, ...]:
    """That a transfer which begins has taken nothing yet of these budgets (rule and operand)."""
    if sum(map(is_taken, usage.open)) >= TAKEN_MAX:
        return ()
    return tuple(Reservation(taken_id(transfer), transfer, rule, operand, 0, now) for rule, operand in budgets)


def holds(usage: Usage | None, transfer: str) -> bool:
    """Whether streams of a transfer hold something."""
    rows = usage.open if usage is not None else ()
    return any(each.transfer == transfer and each.operand != COUNT and not is_aside(each) and not is_taken(each) for each in rows)


def set_aside(usage: Usage, rule: str, operand: str, transfer: str) -> int:
    """What a transfer has set aside and neither holds nor has spent."""
    rows = (each for each in usage.open if is_aside(each) and each.transfer == transfer)
    return sum(max(0, each.amount) for each in rows if (each.rule, each.operand) == (rule, operand))


class Rest(NamedTuple):
    """What a transfer has still to bring costs, by rule and operand, and the bytes that it has paid for, of the content of this entity
    tag."""

    amounts: Mapping[tuple[str, str], int]
    etag: str
    paid: Ranges


def reckoned(usage: Usage, transfer: str, amounts: Mapping[tuple[str, str], int], now: float) -> Usage:
    """The same after a crash that has cut a transfer, whose rest costs these amounts, by rule and operand: that is set aside, as far as it
    is there, and what was set aside and held beside that is spent. What has no amount stays as it is."""
    posted = {(rule, operand): amount for rule, operand, amount in usage.posted}
    known = {(each.rule, each.operand) for each in usage.open if is_aside(each) and each.transfer == transfer} & amounts.keys()
    rows = list[Reservation]()
    for each in usage.open:
        key = each.rule, each.operand
        if each.transfer != transfer or key not in known or is_taken(each):
            rows.append(each)
        elif is_aside(each):
            left = each.amount + _held(usage, each)
            spent = max(0, left - amounts[key])
            rows.append(replace(each, amount=left - spent))
            posted[key] = posted.get(key, 0) + spent
    if not known:
        return usage
    after = replace(usage, posted=_in_order(posted), open=tuple(rows), version=usage.version + 1, updated=now)
    return _less(usage, after, transfer, is_taken)


def drawn(before: Usage, after: Usage, transfer: str) -> Usage:
    """`after`, where what it has more of held and spent than `before`, all of it by one transfer, comes off what that has set aside, and
    is told of what it has taken; less goes back."""
    return _less(before, after, transfer, lambda each: is_aside(each) or is_taken(each))


def balanced(usage: Usage, transfer: str, due: Mapping[tuple[str, str], int], now: float, *, agreed: bool, more: bool = False) -> Usage:
    """The same once a transfer is over, of which so much is `due` by what was signed for, by rule and operand. Nothing of it is set aside
    any more; what was signed for is spent, also where other transfers had brought it; and once both have `agreed`, so that nothing more
    can be signed for, no more than that is; where `more` of it may go back later, it stays noted how much that is at most. What is still
    held may have been used: until it is settled nothing goes back."""
    posted = {(rule, operand): amount for rule, operand, amount in usage.posted}
    rows = list[Reservation]()
    for each in usage.open:
        key = each.rule, each.operand
        if each.transfer != transfer or not (is_aside(each) or is_taken(each)):
            rows.append(each)
        elif is_taken(each) and key in due:
            over = agreed and not _held(usage, each)
            missing = due[key] + each.amount
            if missing > 0 or over:
                posted[key] = posted.get(key, 0) + missing
            if more or not over:
                rows.append(replace(each, amount=-due[key] if over else min(each.amount, -due[key])))
    if tuple(rows) == usage.open:
        return usage
    return replace(usage, posted=_in_order(posted), open=tuple(rows), version=usage.version + 1, updated=now)


def _less(before: Usage, after: Usage, transfer: str, of: Callable[[Reservation], bool]) -> Usage:
    rows = []
    for each in after.open:
        if each.transfer == transfer and of(each):
            more = _used(after, each) - _used(before, each)
            rows.append(replace(each, amount=each.amount - more))  # below nothing: so much more is held, and comes back to others
        else:
            rows.append(each)
    return after if tuple(rows) == after.open else replace(after, open=tuple(rows))


def _used(usage: Usage, of: Reservation) -> int:
    """What was spent by anybody and is held by the transfer, beside what it has set aside."""
    return usage.spent(of.rule, of.operand) + _held(usage, of)


def _held(usage: Usage, of: Reservation) -> int:
    """What streams of the transfer hold."""
    return sum(each.amount for each in usage.open if not is_aside(each) and not is_taken(each) and _same(each, of))


def _in_order(posted: Mapping[tuple[str, str], int]) -> tuple[tuple[str, str, int], ...]:
    return tuple((rule, operand, amount) for (rule, operand), amount in sorted(posted.items()) if amount)


def _same(one: Reservation, other: Reservation) -> bool:
    return (one.transfer, one.rule, one.operand) == (other.transfer, other.rule, other.operand)
