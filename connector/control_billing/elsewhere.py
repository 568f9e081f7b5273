"""What was sent before a first receipt that never came, and is signed for under another transfer: it is billed there, and not twice.

Some data leave before the first receipt of who means to sign. Where that is lost with its connection and the transfer ends, the provider
alone has counted them; and the order goes on by another transfer, which signs for all that has come, by whichever of the two. So the word
of the provider counts for what the consumer has signed for nowhere. Nobody gains by it: what was sent could have been signed away by a
first receipt over nothing, as it opens the account of most transfers, and is no more than may leave before that. Once anything of it is
credited no first receipt comes for it any more (`crediting`): it would be signed for twice, and invoices of before would change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import NamedTuple

from connector.control_billing.receipted import last_before
from connector.dsp.messages import Kind, Role
from connector.metering.content import Layout
from connector.metering.counts import NOTHING, Counts
from connector.metering.objects import Ack, Receipt, kept
from connector.metering.ranges import Ranges, count, covers, union, without
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
    """Who has signed: nothing of it was known before `stays` (POSIX seconds), nor all of it before its last ack was `issued`."""

    stays: float
    issued: int
    account: Metered


class Elsewhere:
    """What the `accounts` of one agreement have signed for of what others of them hold. Of each it is read once when it was over: a bill
    asks for each that has signed with each that has not."""

    def __init__(self, store: Store, accounts: Sequence[Metered]) -> None:
        self._store, self._accounts = store, accounts
        self._known: dict[str, _Signer | None] = {}

    async def credited(self, account: Metered, *, newest: bool = False) -> tuple[Credited, ...]:
        """What is left of what `account` holds, of which we alone say that it was sent, from each second on at which more of it is signed
        for by others; the `newest` of these seconds alone costs less to find. Nothing is as long as a receipt of its own may still come;
        of live data, whose log is that of one transfer; and of who never meant to sign: what he fetches by a second transfer he has
        fetched twice."""
        leaves = alone(account)
        if not leaves or not account.asked:
            return ()
        signed = [each for each in self._accounts if each.sequence and each.ack and each.root == account.root and each.status != "disputed"]
        signed = [each for each in signed if without(leaves, each.ranges) != leaves]
        if not signed or (over := await _over(self._store, account)) is None:
            return ()
        signers = [signer for each in signed if (signer := await self._signer(each)) is not None]
        if not signers:
            return ()

        async def signed_by(second: int) -> Ranges:
            return without(leaves, without(leaves, await _signed_by(self._store, signers, second, leaves)))

        last = ceil(max(over, *(max(signer.stays, signer.issued) for signer in signers)))
        steps, at, known, whole = list[Credited](), ceil(over), Ranges(), await signed_by(last)
        while known != whole:
            first, end = at, last
            while first < end:
                middle = (first + end) // 2
                found = await signed_by(middle)
                if found == whole or (found != known and not newest):
                    end = middle
                else:
                    first = middle + 1
            known = await signed_by(first)
            steps.append(Credited(float(first), NOTHING if known == leaves else _left(account, known)))
            at = first + 1
        return tuple(steps)

    async def since(self, account: Metered) -> float | None:
        """The second (POSIX) since which all of it is, as `credited` has it; None as long as it is not."""
        steps = await self.credited(account, newest=True)
        return steps[-1].at if steps and steps[-1].left == NOTHING else None

    async def _signer(self, each: Metered) -> _Signer | None:
        """None for one that runs: before it is over nobody can know what it comes to."""
        if each.transfer not in self._known:
            issued = kept(Ack, each.ack).issued
            stays = float(issued) if each.status == "complete" else await _over(self._store, each)
            self._known[each.transfer] = None if stays is None else _Signer(stays, issued, each)
        return self._known[each.transfer]


def crediting(store: Store) -> Callable[[Metered], Awaitable[bool]]:
    """Says of an account for which nobody has signed whether anything of it is credited, as it is signed for elsewhere."""

    async def any_credited(account: Metered) -> bool:
        if await _over(store, account) is None:  # as of most, whose first receipt this is: the others are not read for that
            return False
        return bool(await Elsewhere(store, await store.metered_of(account.agreement)).credited(account, newest=True))

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


async def _signed_by(store: Store, signers: Sequence[_Signer], second: int, leaves: Ranges) -> Ranges:
    """What accounts had signed for by the end of a second (POSIX), of transfers that were over by then, until it is all of these leaves.
    What is signed for later moves nothing: else what was credited in one period could be credited once more in the next."""
    ranges = Ranges()
    for stays, issued, each in signers:
        if stays > second:
            continue
        told: Metered | Receipt = each
        if issued > second:
            if (row := await last_before(store, each, second + 1)) is None:
                continue
            told = kept(Receipt, row.receipt)
        if covers(ranges := union(ranges, told.ranges), leaves):
            break
    return ranges


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
