"""Whether what is left of a budget pays for all of finite data, asked before any of them leaves.

A budget that ends in the middle of a file is spent, and has brought no file. So a transfer whose price is known when it starts, which is
where the size of the data and the prices of the budget are known, starts only if all of it is paid for, and sets that aside: transfers that
run beside each other cannot take the end of it from one another. What its meter then holds and spends comes off what is set aside
(`connector.dataplane.quotas`), and what is left goes back when the transfer stops.

What was delivered under the agreement counts: data of which some has come, and not all, are taken to be fetched to their end, for the
price of the rest. What another transfer had on its way when it ended, and which was not signed for, may have to come again: it is set
aside as well, as far as it is there, and keeps no transfer from its start while what was paid for it is on its way back (`owed`). Where
the price is not known (an index that is not at hand) a budget is spent to its last part, as quotas of bytes and records are: they say how
much may be taken, not of what, and who takes a part has what it was worth. Live data end before the first leaf that it does not pay for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from fractions import Fraction
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from connector.control_billing.elsewhere import Elsewhere, alone
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import PolicyError
from connector.metering.content import CHUNK_BYTES, write_etag
from connector.metering.counts import NOTHING, Counts
from connector.metering.ranges import Ranges, covers, union, without
from connector.metering_bills.budgets import tallies
from connector.metering_bills.currencies import currency_of, exactly
from connector.metering_bills.prices import CALL_COUNT
from connector.odrl.counters import Pricing, Tally, quotas
from connector.odrl.model import Policy, fact_key
from connector.odrl.operands import BYTE_COUNT, RECORD_COUNT
from connector.ports import Store
from connector.records import Agreement, Dataset, Reservation, Usage
from connector.records.aside import Rest, aside_id, is_taken, set_aside
from connector.records.metering import Metered
from connector.telemetry import STATEMENT, STATEMENT_AGREED
from connector.values import Value

BUDGET_SHORT: Final = "budget-short"  # the code of a transfer that does not start: what is left of the budget does not pay for all of it
SOON_SECONDS: Final = 60.0  # after its end, in which a transfer is stated if both sides are there
RETURNS: Final = "what one that has just ended had on its way comes back once both have signed for it, so order again in a minute"
MENDED: Final = "ask the provider for an offer with a larger budget and negotiate anew"


class Span(Protocol):
    def span(self, first: int, last: int) -> tuple[int, int]: ...
    def held(self, offset: int, length: int) -> tuple[int, int]: ...


class Extent(Protocol):
    """What is known of finite data: their content log."""

    @property
    def root(self) -> bytes | None: ...
    @property
    def leaves(self) -> int: ...
    @property
    def counts(self) -> bool: ...
    @property
    def layout(self) -> Span: ...
    def records(self, first: int, end: int) -> int: ...


Extents = Callable[[Mapping[str, Any]], Awaitable[Extent | None]]  # of the data behind a pinned address, where it is at hand


async def nothing_known(_address: Mapping[str, Any]) -> Extent | None:
    """No extents are at hand."""
    return None


class Asked(Value):
    """What a transfer has to `set_aside` when it starts; or the `reason` for which it cannot start."""

    set_aside: tuple[Reservation, ...] = ()
    reason: str = ""


async def afford(
    store: Store,
    extents: Extents,
    policy: Policy,
    agreement: Agreement,
    dataset: Dataset,
    usage: Usage,
    charged: Collection[str],
    transfer: str,
    now: float,
    *,
    begun: bool = False,
) -> Asked:
    """What a transfer (our pid) that is to start under the rules `charged` needs of their budgets. Of several permissions that grant it one
    without a budget, or with one that suffices, is enough. One that has `begun` before has paid for what is on its way as well, and comes
    to its end with what is left."""
    limits = {(quota.rule, fact_key(quota.operand, quota.unit)) for quota in quotas(policy)}
    granting = [rule.path for rule in policy.permissions if rule.path in charged]
    budgets = [tally for tally in tallies(policy) if tally.pricing and tally.marks and (tally.rule, tally.operand) in limits]
    budgets = [tally for tally in budgets if tally.rule in granting]
    if not budgets or dataset.size_bytes is None or (extent := await extents(dataset.source)) is None:
        return Asked()
    missing = await _missing(store, agreement, extent, usage, transfer)
    rows, short = [], dict[str, str]()
    for tally in budgets:
        assert tally.pricing is not None  # noqa: S101 - they were chosen by it
        if (cost := price_of(tally.pricing, extent, missing.leaves, missing.calls)) is None:
            continue
        takes = (each for each in usage.open if is_taken(each) and (each.rule, each.operand) == (tally.rule, tally.operand))
        taken = {each.transfer: -each.amount for each in takes}
        if (own := taken.pop(transfer, None)) is not None:  # its account counts as sent what was foreseen, and it has paid for what left
            price = partial(price_of, tally.pricing, extent)
            cost = max(price(missing.rest, missing.calls) or 0, (price(missing.in_all, int(bool(missing.in_all))) or 0) - own)
        left = max(tally.marks) - usage.spent(tally.rule, tally.operand) - usage.reserved(tally.rule, tally.operand)
        left += set_aside(usage, tally.rule, tally.operand, transfer)
        least = price_of(tally.pricing, extent, without(missing.leaves, missing.returning), missing.calls) or 0
        least = max(least, cost - sum(taken.values()))  # some of it is back already
        if least > left and not begun:
            short.setdefault(tally.rule, _reason(tally, dataset, usage, least, left, soon=await about_to_return(store, usage, now)))
        elif cost:
            rows.append(Reservation(aside_id(transfer), transfer, tally.rule, tally.operand, max(0, min(cost, left)), now))
    if len(short) == len(granting):
        return Asked(reason=next(iter(short.values())))
    return Asked(tuple(row for row in rows if row.rule not in short))


class _Missing(NamedTuple):
    """The leaves that are to leave: the `rest` of them by the account of the transfer, and `in_all`, with those that it has brought itself;
    those that are paid for by another transfer, which will have it back; and how many calls that is: one, unless the transfer has had its
    own before."""

    leaves: Ranges
    rest: Ranges
    in_all: Ranges
    returning: Ranges
    calls: int


async def _missing(store: Store, agreement: Agreement, extent: Extent, usage: Usage, transfer: str) -> _Missing:
    whole, brought = _whole(extent), await _brought(store, agreement, extent, transfer)
    returns = {each.transfer for each in usage.open if is_taken(each)}
    returning = union(each for pid, ranges in brought.unsigned.items() if pid in returns for each in ranges)
    in_all = without(whole, brought.others)
    rest = without(in_all, brought.own)
    return _Missing(rest or whole, rest, in_all, returning, int(bool(whole) and not brought.called))


class _Brought(NamedTuple):
    """The leaves that a transfer has brought, or which may be on their way; those of others that were left off; of each of these that
    signs, or means to, what it was sent and has not signed for; and whether the transfer has had its call."""

    own: Ranges
    others: Ranges
    unsigned: Mapping[str, Ranges]
    called: bool


async def _brought(store: Store, agreement: Agreement, extent: Extent, transfer: str, by: float = inf) -> _Brought:
    """What was left off `by` then. Where others have brought all between them, nothing was left off."""
    whole, called = _whole(extent), False
    brought: dict[bool, Ranges] = {True: (), False: ()}
    unsigned = dict[str, Ranges]()
    for account in await store.metered_of(agreement.id):
        own = account.transfer == transfer
        called = called or (own and bool(account.counts.calls))
        if account.root == extent.root and (account.ranges or account.sent) and (own or await _left_off(store, account, whole, by)):
            sent = union(extent.layout.held(first, last - first) for first, last in account.sent)
            if own or account.silent:
                brought[own] = union((*brought[own], *account.ranges, *sent))
            else:
                signed = account.ranges if account.sequence else ()
                brought[own] = union(brought[own], signed)
                unsigned[account.transfer] = without(union(account.ranges, sent), signed)
    return _Brought(brought[True], () if covers(brought[False], whole) else brought[False], unsigned, called)


async def rest_of(
    store: Store, extents: Extents, read: Callable[[Mapping[str, Any]], Policy | PolicyError], process: Process
) -> Rest | None:
    """The rest of a transfer that a crash has cut, as its account says what it has brought and what may be on its way: that is durable
    before it leaves. So it is paid for, and does not cost again when it is sent again. What others have brought counts as it did when it
    was set aside: what they have left off since, this one has not brought. `read` reads the terms of an agreement. None where the price
    is not known."""
    agreement = await store.agreement(process.agreement or "")
    dataset = await store.dataset(agreement.dataset) if agreement is not None else None
    if agreement is None or dataset is None or dataset.size_bytes is None or (extent := await extents(dataset.source)) is None:
        return None
    if isinstance(policy := read(agreement.document), PolicyError):
        return None
    usage = await store.usage(agreement.id)
    began = (each.at for each in (usage.open if usage is not None else ()) if each.id == aside_id(process.pid))
    own, others, _, called = await _brought(store, agreement, extent, process.pid, max(began, default=inf))
    missing, calls = without(_whole(extent), union((*own, *others))), int(not called)
    amounts = dict[tuple[str, str], int]()
    for tally in tallies(policy):
        if tally.pricing is not None and (cost := price_of(tally.pricing, extent, missing, calls)) is not None:
            amounts[tally.rule, tally.operand] = cost
    paid = union((first, first + length) for first, length in (extent.layout.span(*each) for each in own))
    return Rest(amounts, write_etag(extent.root or b"", CHUNK_BYTES), paid)


Due = tuple[Mapping[tuple[str, str], int], bool]


async def owed(store: Store, read: Callable[[Mapping[str, Any]], Policy | PolicyError], accounts: Sequence[Metered]) -> list[Due]:
    """What each of these accounts of one agreement, of transfers that are over, comes to, as it is signed for, by rule and operand of each
    budget: what a bill says of it, unrounded; and whether it stays so: nothing more can be signed for, or it becomes less. Empty where we
    alone have counted data with an end, and bill what has left, or the terms are not understood any more."""
    agreement = await store.agreement(accounts[0].agreement) if accounts else None
    policy = read(agreement.document) if agreement is not None else None
    if policy is None or isinstance(policy, PolicyError):
        return [({}, False)] * len(accounts)
    budgets = {(tally.rule, tally.operand): tally.pricing for tally in tallies(policy) if tally.pricing is not None}
    spending = Elsewhere(store, await _spending(store, [each for each in accounts if not each.sequence]))
    found = [await _comes_to(store, each, spending) for each in accounts]
    return [
        (_due(budgets, *each), each[1]) if not of.silent or of.size_bytes is None else ({}, False)
        for of, each in zip(accounts, found, strict=True)
    ]


def _due(budgets: Mapping[tuple[str, str], Pricing], counts: Counts, _stays: bool) -> dict[tuple[str, str], int]:
    known = ((BYTE_COUNT, counts.bytes), (RECORD_COUNT, counts.records), (CALL_COUNT, counts.calls))
    return {of: sum(pricing.rate(operand) * count for operand, count in known) for of, pricing in budgets.items()}


async def _comes_to(store: Store, account: Metered, spending: Elsewhere) -> tuple[Counts, bool]:
    if account.sequence:
        return account.counts, account.status == "complete" or await store.newest_fact(account.transfer, STATEMENT_AGREED) is not None
    if account.silent and account.size_bytes is None:  # what a budget did not pay a whole leaf of has not left, and is not billed
        process = await store.process(Kind.TRANSFER, account.transfer)
        return account.counts, process is None or process.final
    if not account.counts.bytes and await store.newest_fact(account.transfer, STATEMENT) is not None:  # before, it is not written
        return NOTHING, True
    steps = await spending.credited(account)
    return (steps[-1].left, True) if steps else (NOTHING, False)


async def _spending(store: Store, unsigned: Sequence[Metered]) -> list[Metered]:
    """The accounts that may have signed for what others hold, and whose transfers are over, and have the budget spend what they were
    signed for: what goes back for any other is spent nowhere."""
    wanted = dict[bytes | None, Ranges]()
    for each in unsigned:
        wanted[each.root] = union(wanted.get(each.root, ()), alone(each))
    signed = [each for each in await store.metered_of(unsigned[0].agreement) if each.sequence] if any(wanted.values()) else []
    signed = [each for each in signed if (leaves := wanted.get(each.root, ())) and without(leaves, each.ranges) != leaves]
    processes = [await store.process(Kind.TRANSFER, each.transfer) for each in signed]
    return [each for each, process in zip(signed, processes, strict=True) if process and process.final and process.detail.get("taken")]


def reckoning(
    store: Store, extents: Extents, read: Callable[[Mapping[str, Any]], Policy | PolicyError]
) -> tuple[Callable[[Process], Awaitable[Rest | None]], Callable[[Sequence[Metered]], Awaitable[Sequence[Due]]]]:
    """`rest_of` a transfer that a crash has cut, and what is `owed` for those that are over."""
    return partial(rest_of, store, extents, read), partial(owed, store, read)


def _whole(extent: Extent) -> Ranges:
    """All leaves of data."""
    return ((1, extent.leaves),) if extent.leaves > 1 else ()


async def _left_off(store: Store, account: Metered, whole: Ranges, by: float) -> bool:
    """Whether a transfer has ended `by` then before all of the data had come: nobody fetches by it any more, and somebody wants its
    rest."""
    if account.ranges == whole:
        return False
    process = await store.process(Kind.TRANSFER, account.transfer)
    return process is None or (process.final and process.updated <= by)


def price_of(pricing: Pricing, extent: Extent, leaves: Ranges | None = None, calls: int = 1) -> int | None:
    """What data cost, in sub-units: all of them, or these `leaves`; None if nobody can say."""
    if leaves is None:
        leaves = _whole(extent)
    record = pricing.rate(RECORD_COUNT)
    if record and not extent.counts:
        return None
    size = sum(extent.layout.span(*each)[1] for each in leaves)
    records = sum(extent.records(*each) for each in leaves) if record else 0
    return pricing.rate(BYTE_COUNT) * size + record * records + pricing.rate(CALL_COUNT) * calls


async def about_to_return(store: Store, usage: Usage, now: float) -> bool:
    """Whether a transfer has just ended that may be about to give some of a budget back: none of who signs nothing, as that is billed by
    what has left."""
    for each in (each for each in usage.open if is_taken(each) and each.amount < 0):
        process, account = await store.process(Kind.TRANSFER, each.transfer), await store.metered(each.transfer)
        if process is not None and process.final and now - process.updated < SOON_SECONDS and not (account is not None and account.silent):
            return True
    return False


def _reason(tally: Tally, dataset: Dataset, usage: Usage, cost: int, left: int, *, soon: bool) -> str:
    pricing, currency = tally.pricing, currency_of(tally.operand.partition(" ")[2])
    assert pricing is not None  # noqa: S101 - as above

    def money(amount: int) -> str:
        return f"{exactly(Fraction(amount, pricing.scale), currency)} {currency}"

    others = usage.reserved(tally.rule, tally.operand)
    beside = f"; {money(others)} are set aside for transfers that run" if others else ""
    return (
        f"the budget does not pay for all of `{dataset.id}`: that costs {money(cost)}, and {money(max(left, 0))} of"
        f" {money(max(tally.marks) + pricing.fixed)} are left{beside}; nothing was spent: {f'{RETURNS}; else ' if soon else ''}{MENDED}"
    )
