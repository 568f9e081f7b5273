"""What the use of data costs: prices for units, and exact amounts under them.

Amounts are exact fractions; rounding happens once for each price and statement. What a price has come to since the signing is rounded
half to even at the minor unit of the currency (ISO 4217), and a statement is the difference between its end and its beginning, so that
consecutive statements add up to the one of the whole, to the unit. MB are 1,000,000 bytes, minutes 60 seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction
from typing import Final, NamedTuple, Protocol

from connector.metering_bills.currencies import PLACES
from connector.odrl import values
from connector.odrl.model import Span
from connector.odrl.operands import BYTE_COUNT, RECORD_COUNT
from connector.values import Value

QIAO: Final = "https://w3id.org/qiao/v1/"
CALL_COUNT: Final = "urn:qiao:callCount"  # what a budget pays for; no left operand, since a use is what `odrl:count` counts


class Counted(Protocol):
    """What was used, cumulative: numbers of bytes, records, calls, and microseconds of transfer."""

    @property
    def bytes(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def microseconds(self) -> int: ...


class Unit(NamedTuple):
    """What a price is for. `size` of what is `counted` make one (bytes in a megabyte); where nothing is counted the number is agreed on.
    `operand` is what a stream uses up of it, as the ledger of quotas calls it; "" if no stream can be stopped at it."""

    name: str
    counted: str
    size: int
    operand: str = ""


UNITS: Final[Mapping[str, Unit]] = {
    QIAO + "record": Unit("record", "records", 1, RECORD_COUNT),
    QIAO + "megabyte": Unit("MB", "bytes", 1_000_000, BYTE_COUNT),
    QIAO + "call": Unit("call", "calls", 1, CALL_COUNT),
    QIAO + "minute": Unit("minute", "microseconds", 60_000_000),
    QIAO + "person": Unit("person", "", 1),
    QIAO + "subscription": Unit("subscription", "", 1),
}
HEALTH: Final = {f"https://hds.example/ns/1.0#{name}": UNITS[QIAO + name.lower()] for name in ("Record", "Call")}  # by other names


class Price(Value):
    """A price: `amount` of the plan's currency for each `unit`. `path` is the pointer of its duty in the policy.

    Of what is metered it is for the band (`above`, `upto`], in what the unit counts (bytes, not megabytes). Of what is agreed on
    there are `times`, paid once at the signing, or for each `period` that has begun since.
    """

    path: str
    unit: Unit
    amount: Fraction
    above: int = 0
    upto: int | None = None
    times: int = 1
    period: Span | None = None

    def quantity(self, counted: Counted, signed: int, at: int) -> int:
        """How many it is for, in what the unit counts: of `counted` what lies in its band; or those agreed on, by the periods that
        have begun from the signing up to `at` (microseconds since 1970)."""
        if not self.unit.counted:
            return self.times * self._begun(signed, at)
        found: int = getattr(counted, self.unit.counted)
        return max(0, (found if self.upto is None else min(found, self.upto)) - self.above)

    def cost(self, counted: Counted, signed: int, at: int) -> Fraction:
        """What it comes to, exactly, in units of the currency."""
        return self.amount * Fraction(self.quantity(counted, signed, at), self.unit.size)

    def _begun(self, signed: int, at: int) -> int:
        if at < signed:
            return 0
        if (period := self.period) is None:
            return 1

        def start(number: int) -> int:
            begins = values.after(signed, Span(number * period.months, number * period.microseconds))
            return at + 1 if begins is None else begins

        return bisect_right(range((at - signed) // values.bounds(period)[0] + 1), at, key=start)


class Plan(Value):
    """The prices of an agreement, in one `currency` (ISO 4217). `signed` is the instant of its signing (microseconds since 1970), None in
    an offer: nothing is owed yet. `ends` is the one from which no period begins any more, because the agreement is over."""

    currency: str
    prices: tuple[Price, ...]
    signed: int | None = None
    ends: int | None = None

    def cost(self, counted: Counted, at: int) -> int:
        """What was used costs up to the instant `at` (microseconds since 1970), in minor units: each price rounded once."""
        return sum(self.rounded(price, counted, at) for price in self.prices)

    def quantity(self, price: Price, counted: Counted, at: int) -> int:
        """How many one of its prices is for by then, in what its unit counts."""
        if self.signed is None:
            return 0
        return price.quantity(counted, self.signed, at if self.ends is None else min(at, self.ends - 1))

    def rounded(self, price: Price, counted: Counted, at: int) -> int:
        """What one of its prices has come to since the signing, in minor units, half to even."""
        exact = price.amount * Fraction(self.quantity(price, counted, at), price.unit.size)
        return round(exact * Fraction(10 ** PLACES[self.currency]))
