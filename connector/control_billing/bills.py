"""What was used under an agreement, what that costs, and the invoice: read from the accounts of its transfers, on either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import ceil, inf, nextafter
from typing import Any, Final

from connector.control.policies import Policies
from connector.control_billing.closed import REFUSED, closed_of, refused_for
from connector.control_billing.closings import Closings
from connector.control_billing.elsewhere import Elsewhere
from connector.control_billing.receipted import last_before
from connector.control_billing.received import Came, Received, unsigned
from connector.control_billing.stating import Stating
from connector.dsp.messages import Kind, Role
from connector.errors import NotFound, PolicyError
from connector.metering.chain import AHEAD_SECONDS_MAX
from connector.metering.closing import instant_of
from connector.metering.counts import DAY_SECONDS, NOTHING, Counts, total, unsigned_time
from connector.metering.objects import Receipt, ack_of, digest, kept, manifest_of
from connector.metering_bills.currencies import decimal
from connector.metering_bills.invoice import Invoice, Parties, Reading, invoice_of, rfc3339, standing
from connector.metering_bills.prices import Plan
from connector.ports import Clock, Store
from connector.records import Agreement, Pull, Usage
from connector.records.metering import Metered, Receipted
from connector.values import replace

MICROSECONDS: Final = 1_000_000
NONE: Final[Mapping[str, Pull]] = {}
NO_PRICES: Final = "agreement `{}` has no prices, so there is no invoice; `usage` says what was used"


class Bills:
    """Reads accounts and prices. `own` is our participant id: it says which side of an agreement we are. `stating` has both sides sign
    for a period, `closings` tells the other side of what we close, `live` are the orders of ours that fetch now."""

    def __init__(
        self,
        store: Store,
        policies: Policies,
        clock: Clock,
        own: Callable[[], str],
        stating: Stating | None = None,
        live: Mapping[str, Pull] = NONE,
        closings: Closings | None = None,
    ) -> None:
        self._store, self._policies, self._clock, self._own = store, policies, clock, own
        self.stating, self.closings, self._received = stating, closings, Received(store, live)

    async def closing(self, agreement: Agreement, *, wait: bool = False) -> dict[str, Any]:
        """How an agreement was closed: `closing` says by whose word its instant stands (both, provider-only, consumer-only), None if it is
        not closed; `closing_refused` has the `code` for which the other side does not take our closing, and what that `says`, None if it
        has not said so. With `wait` once the other side has been told, or could not be."""
        if self.closings is not None:
            await self.closings.owed(agreement)
        if wait and self.closings is not None:
            await self.closings.tried(agreement.id)
        closed = await closed_of(self._store, await self._agreement(agreement.id), self._own())
        code = await refused_for(self._store, agreement.id)
        refused = None if code is None else {"code": code, "says": REFUSED[code]}
        return {"closing": None if closed is None else closed.attested, "closing_refused": refused}

    async def usage(self, id: str) -> dict[str, Any]:
        """What was used under an agreement so far, in plain JSON: `counts` in all, and of them what the consumer has `signed` for; each
        of its `transfers` (what is `signed-elsewhere` counts there alone, and so does a part of one that is), and which of them are
        `disputed`; the `cost` so far, None without prices, or with the `reasons` for which nobody can say it; and, where we are the
        provider, the `counters` of its quotas and budgets. Where we are the consumer, `counts` and `cost` go as far as what has come,
        signed for or not; by a transfer without receipts that is our own word, `consumer-only`, and on no bill. Raises NotFound."""
        agreement = await self._agreement(id)
        accounts = await self._store.metered_of(id)
        bound, elsewhere = self._policies.meters_time(agreement.document), Elsewhere(self._store, accounts)
        last = standing([each for account in accounts for each in await self._readings(account, (inf,), elsewhere, bound=bound)])
        signed = total(each.counts for each in last.values() if each.attested == "both")
        provider = agreement.provider == self._own()
        came = {} if provider else await self._received.under(id)
        known = {account.transfer: account for account in accounts}
        alone = [each for pid, each in came.items() if pid not in known or not known[pid].sequence]
        ahead = [unsigned(each, known[pid]) for pid, each in came.items() if pid in known and known[pid].sequence]
        reached = {manifest_of(each.manifest).provider_pid: each.counts for each in accounts if each.sequence}  # an ack may be on its way
        reached |= {pid: each.whole.most(reached.get(pid, NOTHING)) for pid, each in last.items()}
        counts = total((*reached.values(), *ahead, *(each.counts for each in alone)))
        now = self._clock.now()
        counters = self._policies.counters(agreement.document, await self._store.usage(id) or Usage(id)) if provider else []
        cost: dict[str, Any] | None
        try:
            plan = self._plan(agreement)
            cost = None if plan is None else {
                "currency": plan.currency,
                "amount": decimal(plan.cost(counts, round(now * MICROSECONDS)), plan.currency),
                "signed": decimal(plan.cost(signed, round(now * MICROSECONDS)), plan.currency),
            }  # fmt: skip
        except PolicyError as error:
            cost = {"reasons": list(error.reasons)}
        return {
            "agreement": id,
            "role": str(Role.PROVIDER if provider else Role.CONSUMER),
            "at": rfc3339(now),
            "counts": counts.claims(),
            "signed": signed.claims(),
            "cost": cost,
            "counters": counters,
            "transfers": [
                *[
                    _told(each, await self._status(each, elsewhere), last)
                    for each in accounts
                    if all(one.transfer != each.transfer for one in alone)
                ],
                *[_came(each, over=await self._over(each.transfer)) for each in alone],
            ],
            "disputed": _disputed(accounts),
        }

    async def invoice(self, id: str, begins: float | None, ends: float | None) -> Invoice:
        """The invoice of an agreement for the period [`begins`, `ends`) (POSIX seconds; None: from the signing, or what was signed for
        before it by the clock, up to and with the last acknowledged receipt, to the second, which both sides come to whenever they ask; up
        to now if there is none). What only we have counted is in it by whole days (UTC), once they are over; what it does not hold of that
        it tells as left out: with `ends` None of all so far, else of the day in which it ends. Where `ends` is yet to come it is
        preliminary. Raises NotFound for an agreement that is not here or has no prices, PolicyError for prices that are not understood,
        InvalidRequest for a period that is none."""
        agreement = await self._agreement(id)
        if self.closings is not None:
            await self.closings.owed(agreement)
        plan = self._plan(agreement)
        if plan is None:
            raise NotFound(NO_PRICES.format(id))
        accounts = await self._store.metered_of(id)
        last = await self._last(accounts) if ends is None else ends
        instants, bound = (last,) if begins is None else (begins, last), self._policies.meters_time(agreement.document)
        found, signed, elsewhere = list[tuple[Metered, list[Reading]]](), inf, Elsewhere(self._store, accounts)
        for account in accounts:
            found.append((account, await self._readings(account, instants, elsewhere, bound=bound)))
            signed = min(signed, manifest_of(account.manifest).issued) if account.sequence else signed
        readings = [reading for _, own in found for reading in own]
        first = agreement.created if plan.signed is None else plan.signed / MICROSECONDS
        until = inf if ends is None else ceil(ends / DAY_SECONDS) * DAY_SECONDS
        alone = [each for account, own in found if not account.sequence and _grows(own) for each in own if each.at < until]
        by_closing = agreement.closed is not None and plan.ends == instant_of(agreement.closed)
        closed, known = await closed_of(self._store, agreement, self._own()) if by_closing else None, standing(alone).values()
        period = _earliest(min(first, last), signed, readings) if begins is None else begins, last
        made = invoice_of(_parties(agreement), plan, readings, *period, disputed=_disputed(accounts), alone=known, closed=closed)
        return replace(made, preliminary=ends is not None and ends > self._clock.now())

    async def _last(self, accounts: Sequence[Metered]) -> float:
        """The instant after the last second in which a receipt was acknowledged, by the clock of who has, which may run ahead of ours as
        far as acks are taken; now, if none was."""
        now = self._clock.now()
        found = list[float]()
        for account in accounts:
            if account.sequence and (row := await last_before(self._store, account, now + AHEAD_SECONDS_MAX)) is not None:
                found.append(ack_of(row.ack or "").issued + 1.0)  # now: of thousands none is remembered until the end
        return max(found, default=now)

    async def _status(self, account: Metered, elsewhere: Elsewhere) -> str:
        """`ended` is what was left open by a transfer that is over: nobody has signed that it is complete, and nothing more comes."""
        if not account.sequence and await elsewhere.since(account) is not None:
            return "signed-elsewhere"
        return "ended" if account.status == "open" and await self._over(account.transfer) else account.status

    async def _over(self, transfer: str) -> bool:
        """Whether a transfer has ended, so that nothing more comes."""
        process = await self._store.process(Kind.TRANSFER, transfer)
        return process is None or process.final

    async def _agreement(self, id: str) -> Agreement:
        found = await self._store.agreement(id)
        if found is None:
            raise NotFound(f"there is no agreement `{id}`")
        return found

    def _plan(self, agreement: Agreement) -> Plan | None:
        found = self._policies.plan(agreement.document)
        over = [at for at in (agreement.ends, agreement.closed) if at is not None]
        return replace(found, ends=round(min(over) * MICROSECONDS)) if found is not None and over else found

    async def _readings(self, account: Metered, before: Sequence[float], elsewhere: Elsewhere, *, bound: bool) -> list[Reading]:
        """What an account had come to at the end of each day on which we alone have counted it, and at the last of its receipts that were
        acknowledged before each of these instants. What we alone have counted comes to what is left of it from each instant on at which
        more is signed for `elsewhere`, in its agreement: what was billed of that before is credited then."""
        counted = _counted(account)
        if not account.sequence:
            steps = await elsewhere.credited(account) if counted else ()
            earlier = [each for each in counted if not steps or each.at < steps[0].at]
            begins = counted[-1].at if steps and not earlier else 0.0  # of the day on which it was sent nothing is billed before its end
            return earlier + [Reading(account.transfer, *each) for each in {max(begins, step.at): step.left for step in steps}.items()]
        found = {each.sequence: each for instant in before if (each := await last_before(self._store, account, instant)) is not None}
        return counted + [_signed(account, each, bound=bound) for each in found.values()]


def _earliest(begins: float, promised: float, readings: Sequence[Reading]) -> float:
    """When the period of all that an agreement has come to begins (POSIX seconds): at `begins`, its signing, or before that where the clock
    was set back after it, as transfers would be on no invoice else: with the first manifest that was `promised` of what is signed for. Acks
    and manifests have whole seconds, and both sides have them."""
    return min((float(promised) if promised + 1 <= begins else begins, *(each.at for each in readings)))


def _grows(readings: Sequence[Reading]) -> bool:
    """Whether nothing of what we alone have counted was billed, and is credited later."""
    return all(one.counts.within(other.counts) for one, other in pairwise(readings))


def _counted(account: Metered) -> list[Reading]:
    """What we alone have counted of a transfer, by the end of each day."""
    return [Reading(account.transfer, nextafter((day + 1) * DAY_SECONDS, 0), counts) for day, counts in account.days]


def _signed(account: Metered, each: Receipted, *, bound: bool) -> Reading:
    """At the instant of the ack, which both sides have: what a receipt says of its own time would let its signer choose the invoice. Where
    time is `bound` by a quota its provider's watch goes by that, and the consumer's, which runs on until it hears of the end, bills none
    beyond."""
    receipt, ack = kept(Receipt, each.receipt), ack_of(each.ack or "")
    counts = receipt.counts
    if bound:
        counts = replace(counts, microseconds=min(counts.microseconds, ack.microseconds))
    beyond = Counts(microseconds=unsigned_time(receipt.counts.microseconds, ack.microseconds))
    pid = manifest_of(account.manifest).provider_pid
    return Reading(pid, float(ack.issued), counts, receipt.sequence, receipt.manifest, each.digest, beyond)


def _parties(agreement: Agreement) -> Parties:
    return Parties(agreement.id, agreement.digest, agreement.dataset, agreement.provider, agreement.consumer)


def _disputed(accounts: Sequence[Metered]) -> list[str]:
    """The transfers (the provider's pids, as in a statement) of which the two sides have signed what contradicts itself."""
    return sorted(manifest_of(each.manifest).provider_pid for each in accounts if each.status == "disputed")


def _came(came: Came, *, over: bool) -> dict[str, Any]:
    """What has come by a transfer for which nobody signs, as we have counted it."""
    said = {"transfer": came.transfer, "status": "ended" if over else "open", "attested": "consumer-only", "sequence": 0, "receipt": None}
    return said | {"counts": came.counts.claims(), "updated": rfc3339(came.at)}


def _told(account: Metered, status: str, last: Mapping[str, Reading]) -> dict[str, Any]:
    by_our_word = None if account.sequence else last.get(account.transfer)
    return {
        "transfer": account.transfer,
        "status": status,
        "attested": account.attested,
        "sequence": account.sequence,
        "receipt": digest(account.receipt).hex() if account.receipt else None,
        "counts": (by_our_word.counts if by_our_word and by_our_word.counts != NOTHING else account.counts).claims(),
        "updated": rfc3339(account.updated),
    }
