"""What a transfer has set aside of a budget when it started, for all that it costs: an open reservation of its own. Pure.

What streams of the transfer then hold and spend comes off it, and what they give back goes back to it, so that the transfer has at every
instant what it needs to come to its end, and others see no more as reserved than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from connector.metering.ranges import Ranges
from connector.records import Reservation, Usage

PREFIX: Final = "aside:"


def aside_id(transfer: str) -> str:
    """The id of what a transfer (our pid) has set aside."""
    return PREFIX + transfer


def is_aside(each: Reservation) -> bool:
    """Whether a reservation was set aside by the start of its transfer."""
    return each.id == aside_id(each.transfer)


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
        if each.transfer != transfer or key not in known:
            rows.append(each)
        elif is_aside(each):
            left = each.amount + sum(other.amount for other in usage.open if not is_aside(other) and _same(other, each))
            spent = max(0, left - amounts[key])
            rows.append(replace(each, amount=left - spent))
            posted[key] = posted.get(key, 0) + spent
    if not known:
        return usage
    whole = tuple((rule, operand, amount) for (rule, operand), amount in sorted(posted.items()) if amount)
    return replace(usage, posted=whole, open=tuple(rows), version=usage.version + 1, updated=now)


def drawn(before: Usage, after: Usage, transfer: str) -> Usage:
    """`after`, where what it has more of held and spent than `before`, all of it by one transfer, comes off what that has set aside; less
    goes back."""
    rows = []
    for each in after.open:
        if is_aside(each) and each.transfer == transfer:
            more = _taken(after, each) - _taken(before, each)
            rows.append(replace(each, amount=each.amount - more))  # below nothing: so much more is held, and comes back to others
        else:
            rows.append(each)
    return after if tuple(rows) == after.open else replace(after, open=tuple(rows))


def _taken(usage: Usage, of: Reservation) -> int:
    """What was spent by anybody and is held by the transfer, beside what it has set aside."""
    held = (each.amount for each in usage.open if not is_aside(each) and _same(each, of))
    return usage.spent(of.rule, of.operand) + sum(held)


def _same(one: Reservation, other: Reservation) -> bool:
    return (one.transfer, one.rule, one.operand) == (other.transfer, other.rule, other.operand)
