"""The invoice of an agreement and a period: what the meters say, priced by the agreement, as a value that both sides come to. Pure.

It is made of readings: what a flow had come to, cumulative, at an instant. Where the consumer has signed a receipt that is its reading, at
the instant that its ack names, so both sides have the same readings and make the same invoice of them, to the unit and to the digest. What
only the provider has counted is a line of its own, marked `provider-only`. Of calls and time, which each side can only see for itself, that
is what an ack has beyond its receipt: both sides hold both, so it stands in both invoices, and a consumer that signs for less owes no less.
Where nothing was signed the consumer does not find it in its own; a reading of it is of the end of a day, and changes no more when that is
over. So what was in one invoice is not in the next one again; and of what is therefore not in this one yet, it says how much that is.

A period holds its beginning and not its end. A line is what its price had come to by the end, rounded, less what it had come to by the
beginning, rounded (`connector.metering_bills.prices`), so that invoices of consecutive periods add up to that of the whole. Where a part of
the use is attested by both the price counts that part first, and the rest beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil
from typing import Any, Final, Literal

import orjson

from connector.errors import InvalidRequest
from connector.metering.content import write_bytes
from connector.metering.counts import NOTHING, Counts, total
from connector.metering_bills.currencies import decimal, exactly
from connector.metering_bills.prices import Plan, Price
from connector.values import Value

Attested = Literal["both", "provider-only", "agreed"]  # by signed receipts, by the provider's word, by the agreement itself
ALONE: Final = "provider-only"
ROUNDING: Final = "half-even, once for each line"
MICROSECONDS: Final = 1_000_000
MILLISECOND: Final = 0.001  # to which an invoice says its period


class Reading(Value):
    """What a flow had come to at the instant `at` (POSIX seconds): `counts`, cumulative, and `beyond` them what the ack of the receipt says
    that the receipt does not. `transfer` is the provider's pid. `manifest` and `receipt` are the digests of what was signed, and `sequence`
    the number of the receipt; None and 0 where the consumer has signed nothing."""

    transfer: str
    at: float
    counts: Counts
    sequence: int = 0
    manifest: bytes | None = None
    receipt: bytes | None = None
    beyond: Counts = NOTHING

    @property
    def whole(self) -> Counts:
        """What was counted, whoever attests it."""
        return self.counts + self.beyond

    @property
    def attested(self) -> Attested:
        return "both" if self.receipt is not None else "provider-only"


NONE: Final = Reading("", 0.0, NOTHING)


class Parties(Value):
    """Whose invoice it is: an agreement (its id, and the SHA-256 of its document) over a dataset, its provider and consumer."""

    agreement: str
    digest: bytes
    dataset: str
    provider: str
    consumer: str


class Line(Value):
    """One price: `quantity` of what its unit counts (bytes of a megabyte) in the period, and what that comes to, in minor units."""

    price: Price
    attested: Attested
    quantity: int
    amount: int


class Flow(Value):
    """One transfer in the period: its last reading, and what was counted in the period, of that `beyond` by the provider alone though the
    consumer has signed for the rest. Less than nothing if the consumer has since signed for what had been beyond before."""

    reading: Reading
    counts: Counts
    beyond: Counts = NOTHING


class LeftOut(Value):
    """What the provider alone has counted and an invoice does not hold: the `transfers` (its pids), `counts` and `amount` (minor units)
    beyond what is in the invoice, and the first instant `ends` (POSIX seconds) such that an invoice up to it holds them."""

    transfers: tuple[str, ...]
    counts: Counts
    amount: int
    ends: float


class Closed(Value):
    """That an agreement was closed at the instant `at` (POSIX seconds) by a participant, `by`; `attested` says by whose word: both, once
    the other side has what that one has signed of it, else provider-only or consumer-only."""

    at: float
    by: str
    attested: str

    def to_json(self) -> dict[str, Any]:
        return {"at": rfc3339(self.at), "by": self.by, "attested": self.attested}


class Invoice(Value):
    """What is owed under an agreement for the period [`begins`, `ends`) (POSIX seconds). Of the flows `disputed` (the provider's pids) the
    two sides have signed what contradicts itself. `closed` is there if prices for time end in the period because the agreement was closed.
    `left_out` is no part of it: one side alone knows it, and it changes by the hour. Nor is that it is `preliminary`: its period was not
    over when it was made, so more may come into it, and a day of it that is not over may come to more by the provider's word."""

    parties: Parties
    plan: Plan
    begins: float
    ends: float
    lines: tuple[Line, ...]
    flows: tuple[Flow, ...]
    disputed: tuple[str, ...] = ()
    left_out: LeftOut | None = None
    closed: Closed | None = None
    preliminary: bool = False

    @property
    def total(self) -> int:
        """What is owed, in minor units of the currency."""
        return sum(line.amount for line in self.lines)

    @property
    def counts(self) -> Counts:
        """What was counted in the period."""
        return total(flow.counts for flow in self.flows)

    @property
    def complete(self) -> bool:
        """Whether all that is owed is attested by both, and so is the end of what is paid for by time. What one side alone has counted and
        nobody pays for, such as time where bytes have a price, makes no bill doubtful."""
        return (self.closed is None or self.closed.attested == "both") and all(line.attested != ALONE for line in self.lines)

    @property
    def digest(self) -> str:
        """SHA-256 (base64url) of the invoice in its canonical JSON (RFC 8785) without the digest, `left_out` and `preliminary`: equal
        on both sides if all of it is."""
        return write_bytes(sha256(orjson.dumps(self._said(), option=orjson.OPT_SORT_KEYS)).digest())

    def to_json(self) -> dict[str, Any]:
        """The invoice as plain JSON; amounts are decimal texts. `left_out` is there if something is, and `preliminary` if it is so."""
        said = self._said() | {"digest": self.digest} | ({"preliminary": True} if self.preliminary else {})
        if (left := self.left_out) is None:
            return said
        amount = {"amount": decimal(left.amount, self.plan.currency), "to": rfc3339(left.ends)}
        return said | {"left_out": {"attested": ALONE, "transfers": list(left.transfers), "counts": left.counts.claims()} | amount}

    def _argued(self) -> dict[str, Any]:
        disputed = {"disputed": list(self.disputed)} if self.disputed else {}
        return disputed | ({"closed": self.closed.to_json()} if self.closed is not None else {})

    def _said(self) -> dict[str, Any]:
        currency, parties = self.plan.currency, self.parties
        return {
            "agreement": parties.agreement,
            "agreement_digest": write_bytes(parties.digest),
            "dataset": parties.dataset,
            "provider": parties.provider,
            "consumer": parties.consumer,
            "from": rfc3339(self.begins),
            "to": rfc3339(self.ends),
            "currency": currency,
            "rounding": ROUNDING,
            "lines": [
                {
                    "price": line.price.path,
                    "unit": line.price.unit.name,
                    "unit_price": exactly(line.price.amount, currency),
                    "band": [line.price.above, line.price.upto] if line.price.unit.counted else None,
                    "counted": line.price.unit.counted or None,
                    "quantity": line.quantity,
                    "per": line.price.unit.size,
                    "attested": line.attested,
                    "amount": decimal(line.amount, currency),
                }
                for line in self.lines
            ],
            "total": decimal(self.total, currency),
            "counts": self.counts.claims(),
            "flows": [
                {
                    "transfer": flow.reading.transfer,
                    "attested": flow.reading.attested,
                    "sequence": flow.reading.sequence,
                    "manifest": None if flow.reading.manifest is None else write_bytes(flow.reading.manifest),
                    "receipt": None if flow.reading.receipt is None else write_bytes(flow.reading.receipt),
                    "counts": flow.counts.claims(),
                    "counts_so_far": flow.reading.counts.claims(),
                }
                | ({"beyond": flow.beyond.claims()} if flow.beyond != NOTHING else {})
                for flow in self.flows
            ],
            "attested": "both" if self.complete else "in-part",
        } | self._argued()


def invoice_of(
    parties: Parties,
    plan: Plan,
    readings: Iterable[Reading],
    begins: float,
    ends: float,
    *,
    disputed: Iterable[str] = (),
    alone: Iterable[Reading] = (),
    closed: Closed | None = None,
) -> Invoice:
    """The invoice for the period [`begins`, `ends`) (POSIX seconds). `readings` are of all flows of the agreement, in any order; of several
    of one flow the last one before an instant counts. `disputed` are those of which the two sides have signed what contradicts itself: an
    invoice says so of those that are in it. `alone` are the last readings of flows for which nobody has signed: what of them it does not
    hold is told as left out. `closed` is how the agreement was closed, if it was: an invoice of a later end says so where it has prices for
    time. Raises InvalidRequest for a period that is none."""
    if not begins <= ends:
        raise InvalidRequest("the period ends before it begins; give `from` before `to`", pointer="/from")
    known = list(readings)
    before, after = _standing(known, begins), _standing(known, ends)
    flows = []
    for transfer, reading in sorted(after.items()):
        early = before.get(transfer, NONE)
        counts, beyond = less(reading.whole, early.whole), less(reading.beyond, early.beyond)
        if counts != NOTHING or beyond != NOTHING:
            flows.append(Flow(reading, counts, beyond))
    lines = [line for price in plan.prices for line in _lines(plan, price, before, after, begins, ends)]
    said = tuple(sorted(set(disputed) & after.keys()))
    timed = closed is not None and closed.at < ends and any(price.period is not None for price in plan.prices)
    left_out = _left_out(plan, after, alone, ends)
    return Invoice(parties, plan, begins, ends, tuple(lines), tuple(flows), said, left_out, closed if timed else None)


def standing(readings: Iterable[Reading]) -> dict[str, Reading]:
    """The last reading of each flow (the provider's pid)."""
    return _standing(list(readings), float("inf"))


def less(one: Counts, other: Counts) -> Counts:
    """What one has more than another; less than nothing where it has less."""
    return Counts(*(getattr(one, name) - getattr(other, name) for name in ("bytes", "records", "items", "calls", "microseconds")))


def rfc3339(at: float) -> str:
    """POSIX seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(plan: Plan, price: Price, before: dict[str, Reading], after: dict[str, Reading], begins: float, ends: float) -> Iterator[Line]:
    early, late = _steps(plan, price, before, begins), _steps(plan, price, after, ends)
    for attested, (quantity, amount) in late.items():
        line = Line(price, attested, quantity - early[attested][0], amount - early[attested][1])
        if line.quantity or line.amount:
            yield line


def _steps(plan: Plan, price: Price, readings: dict[str, Reading], at: float) -> dict[Attested, tuple[int, int]]:
    """What a price had come to just before an instant, as quantity and minor units: by what both attest, and what the rest adds to it."""
    last = round(at * MICROSECONDS) - 1

    def come_to(counts: Counts) -> tuple[int, int]:
        return plan.quantity(price, counts, last), plan.rounded(price, counts, last)

    everything = come_to(total(each.whole for each in readings.values()))
    if not price.unit.counted:
        return {"agreed": everything}
    both = come_to(total(each.counts for each in readings.values() if each.attested == "both"))
    return {"both": both, "provider-only": (everything[0] - both[0], everything[1] - both[1])}


def _left_out(plan: Plan, after: dict[str, Reading], alone: Iterable[Reading], ends: float) -> LeftOut | None:
    later = {each.transfer: each for each in alone if each.counts != after.get(each.transfer, NONE).counts}
    if not later:
        return None
    in_it, with_it = ([_steps(plan, price, each, ends) for price in plan.prices] for each in (after, after | later))
    amount = sum(sum(step[1] for step in each.values()) for each in with_it) - sum(sum(step[1] for step in each.values()) for each in in_it)
    counts = total(less(each.counts, after.get(each.transfer, NONE).counts) for each in later.values())
    return LeftOut(tuple(sorted(later)), counts, amount, max(float(ceil(each.at)) for each in later.values()))


def _standing(readings: list[Reading], before: float) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for reading in readings:
        known = found.get(reading.transfer)
        if reading.at < before and (known is None or _order(known) < _order(reading)):
            found[reading.transfer] = reading
    return found


def _order(reading: Reading) -> tuple[int, float, int]:
    """What comes later among the readings of a flow: receipts by their number, and before all of them what nobody has signed."""
    return reading.sequence, reading.at, reading.counts.bytes
