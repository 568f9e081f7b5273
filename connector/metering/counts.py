"""What is counted of a flow. Pure.

The rule, fixed with the manifest: `bytes` of verified leaves, without HTTP, TLS and content coding; `records` by the manifest's `unit`,
each in the leaf in which it ends; `items`, files or objects that are whole; `calls`, transfers that have delivered something: one, as soon
as there are bytes, in however many requests they came, so that no cut and no resumption makes another; `microseconds` in which data flowed.
All but the time follow from the ranges of leaves, so both sides come to the same, and a receipt that says otherwise is refused. The time
each side can only see for itself: the consumer's stands in its receipts, the provider's in its acks. What is signed for counts as long as
the two are as near to each other as two clocks at the two ends of a wire are (`unsigned_time`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from connector.metering import claims as read
from connector.values import Value


class Counts(Value):
    """What was used of a transfer, cumulative and unique: `bytes` of verified leaves, `records` (lines, rows, messages), `items` (files,
    objects), `calls` (transfers that delivered something), `microseconds` in which data flowed."""

    bytes: int = 0
    records: int = 0
    items: int = 0
    calls: int = 0
    microseconds: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each) + getattr(other, each) for each in self.__struct_fields__))

    def most(self, other: Counts) -> Counts:
        """Of each count the larger one: where both say of one transfer what it had come to, what it has come to."""
        return Counts(*(max(getattr(self, each), getattr(other, each)) for each in self.__struct_fields__))

    def within(self, other: Counts) -> bool:
        """Whether each count is at most that of `other`."""
        return all(getattr(self, each) <= getattr(other, each) for each in self.__struct_fields__)

    def claims(self) -> dict[str, int]:
        """The counts by the names of their claims."""
        return {name: getattr(self, attribute) for name, attribute in COUNTED.items()}


def unsigned_time(signed: int, own: int) -> int:
    """How much of the time that the provider has counted (`own`, microseconds) nobody has signed for: none within a second or a fiftieth of
    what is signed, whichever is more, as each side begins and ends with what it sees itself. What lies beyond counts whole."""
    beyond = own - signed
    return beyond if beyond > max(TIME_LEAST, signed // TIME_PART) else 0


def call(size_bytes: int) -> int:
    """The calls of one transfer that has delivered so many bytes."""
    return int(size_bytes > 0)


TIME_LEAST, TIME_PART = 1_000_000, 50  # microseconds; a part of what is signed
NOTHING: Final = Counts()
DAY_SECONDS: Final = 86_400
Days = tuple[tuple[int, Counts], ...]
COUNTED: Final = {"bytes": "bytes", "records": "records", "items": "items", "calls": "calls", "us": "microseconds"}
COUNTS: Final[read.Table] = dict.fromkeys(COUNTED, read.number)


def counts_of(values: Mapping[str, int]) -> Counts:
    """The counts in claims that were read."""
    return Counts(**{attribute: values[name] for name, attribute in COUNTED.items()})


def by_day(days: Days, at: float, counts: Counts) -> Days:
    """`days` (number since 1970 in UTC, and what the counts had come to by its end) once the counts come to this at an instant (POSIX
    seconds). A day that is over stays as it was, whatever becomes of the clock."""
    day = max(int(at // DAY_SECONDS), days[-1][0] if days else 0)
    return *(days[:-1] if days and days[-1][0] == day else days), (day, counts)


def total(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    return sum(counts, NOTHING)
