"""What was sent before a first receipt that never came, and is signed for under another transfer: it is billed there, and not twice.

Some data leave before the first receipt of who means to sign. Where that is lost with its connection and the transfer ends, the provider
alone has counted them; and the order goes on by another transfer, which signs for all that has come, by whichever of the two. So the word
of the provider counts for what the consumer has signed for nowhere. Nobody gains by it: what was sent could have been signed away by a
first receipt over nothing, as it opens the account of most transfers, and is no more than may leave before that. Once anything of it is
credited no first receipt comes for it any more (`crediting`): it would be signed for twice, and invoices of before would change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from heapq import heapify, heappop, heappush
from math import ceil
from typing import NamedTuple

from connector.control_billing.receipted import last_before
from connector.dsp.messages import Kind, Role
from connector.metering.content import Layout
from connector.metering.counts import NOTHING, Counts
from connector.metering.objects import Ack, Receipt, kept, manifest_of
from connector.metering.ranges import Ranges, count, union, without
from connector.ports import Store
from connector.records.metering import Metered
from connector.telemetry import STATEMENT
from connector.values import replace


class Credited(NamedTuple):
    """From the second `at` (POSIX) on no more of a transfer counts by our word than is `left` of it, cumulative: nothing, if all of it is
    signed for."""

    at: float
    left: Counts


class _Signer(NamedTuple):
    """Who has signed: nothing of it was known before its `first` second (POSIX), and all of it is from its `last` on."""

    first: int
    last: int
    account: Metered


class Elsewhere:
    """What the `accounts` of one agreement have signed for of what others of them hold. Of each it is read once when it was over, and what
    was signed for by a second: a bill asks for each that has signed with each that has not."""

    def __init__(self, store: Store, accounts: Sequence[Metered]) -> None:
        self._store, self._accounts = store, accounts
        self._signers: dict[str, _Signer | None] = {}
        self._told: dict[tuple[str, int], Ranges] = {}

    async def credited(self, account: Metered) -> tuple[Credited, ...]:
        """What is left of what `account` holds, of which we alone say that it was sent, from each second on at which more of it is signed
        for by others. Nothing is as long as a receipt of its own may still come; of live data, whose log is that of one transfer; and of
        who never meant to sign: what he fetches by a second transfer he has fetched twice."""
        leaves = alone(account)
        if not leaves or not account.asked:
            return ()
        signed = [each for each in self._accounts if each.sequence and each.ack and each.root == account.root and each.status != "disputed"]
        signed = [each for each in signed if without(leaves, each.ranges) != leaves]
        if not signed or (over := await _over(self._store, account)) is None:
            return ()
        signers = [signer for each in signed if (signer := await self._signer(each)) is not None]
        coming = [(signer.first, number) for number, signer in enumerate(signers)]
        heapify(coming)
        rest, left = leaves, dict[int, Counts]()
        while coming and rest:  # most are never looked at: the first that are over have signed for all of it
            second, number = heappop(coming)
            known, rest = rest, without(rest, await self._signed_by(signers[number], second))
            if rest != known:
                left[max(second, ceil(over))] = _left(account, without(leaves, rest)) if rest else NOTHING
            if without(rest, signers[number].account.ranges) != rest:
                heappush(coming, (await self._next(signers[number], second, rest), number))
        return tuple(Credited(float(at), counts) for at, counts in left.items())

    async def since(self, account: Metered) -> float | None:
        """The second (POSIX) since which all of it is, as `credited` has it; None as long as it is not."""
        steps = await self.credited(account)
        return steps[-1].at if steps and steps[-1].left == NOTHING else None

    async def _signer(self, each: Metered) -> _Signer | None:
        """None for one that runs: before it is over nobody can know what it comes to. Where the clock was set back, or nothing says when it
        was over, its acks are later than that, and none is before the manifest, unless the clock was set back between those."""
        if each.transfer not in self._signers:
            issued = kept(Ack, each.ack).issued
            stays = float(issued) if each.status == "complete" else await _over(self._store, each)
            if stays is None:
                self._signers[each.transfer] = None
            else:
                first, last = ceil(stays), max(ceil(stays), issued)
                signer = _Signer(first, last, each)
                if first < last:
                    begun = min(max(first, manifest_of(each.manifest).issued), last)
                    signer = signer if await self._signed_by(signer, begun - 1) else signer._replace(first=begun)
                self._signers[each.transfer] = signer
        return self._signers[each.transfer]

    async def _signed_by(self, signer: _Signer, second: int) -> Ranges:
        """What an account whose transfer was over by then had signed for by the end of a second (POSIX). What is signed for later moves
        nothing: else what was credited in one period could be credited once more in the next."""
        if second >= signer.last:
            return signer.account.ranges
        if (of := (signer.account.transfer, second)) not in self._told:
            row = await last_before(self._store, signer.account, second + 1)
            self._told[of] = () if row is None else kept(Receipt, row.receipt).ranges
        return self._told[of]

    async def _next(self, signer: _Signer, second: int, rest: Ranges) -> int:
        """The first second after this one by which it has signed for more, of these leaves: what was signed for once stays so."""
        first, end = second + 1, signer.last
        while first < end:
            middle = (first + end) // 2
            if without(rest, await self._signed_by(signer, middle)) != rest:
                end = middle
            else:
                first = middle + 1
        return first


def crediting(store: Store) -> Callable[[Metered], Awaitable[bool]]:
    """Says of an account for which nobody has signed whether anything of it is credited, as it is signed for elsewhere."""

    async def any_credited(account: Metered) -> bool:
        if await _over(store, account) is None:  # as of most, whose first receipt this is: the others are not read for that
            return False
        return bool(await Elsewhere(store, await store.metered_of(account.agreement)).credited(account))

    return any_credited


def _left(account: Metered, signed: Ranges) -> Counts:
    """What is left of an account of which others have signed for these leaves. Nobody knows here in which leaves records end, so records
    are left as bytes are, and so is time. To take off all records that the others signed for would let one leaf of a part, and many beside
    it, pay for the part."""
    layout, counts = Layout(account.size_bytes or 0, account.chunk_bytes), account.counts
    spans = union((begin, begin + length) for begin, length in (layout.span(*each) for each in signed))
    size = counts.bytes - count(account.sent) + count(without(account.sent, spans))
    records, time = ((each * size // counts.bytes if counts.bytes else 0) for each in (counts.records, counts.microseconds))
    return replace(counts, bytes=size, records=records, microseconds=time)


def alone(account: Metered) -> Ranges:
    """The leaves of finite data of which anything was sent and nothing signed for, as we alone say."""
    if account.role is not Role.PROVIDER or account.sequence or account.root is None or account.size_bytes is None:
        return ()
    layout = Layout(account.size_bytes, account.chunk_bytes)
    return union(account.ranges, (layout.touched(first, last - first) for first, last in account.sent))


async def _over(store: Store, account: Metered) -> float | None:
    """When a transfer has ended (POSIX seconds), None if it runs. Of one that is not stored any more our statement of it says when it was,
    if it was stated."""
    process = await store.process(Kind.TRANSFER, account.transfer)
    if process is not None:
        return process.updated if process.final else None
    said = await store.newest_fact(account.transfer, STATEMENT)
    return 0.0 if said is None else said.at
