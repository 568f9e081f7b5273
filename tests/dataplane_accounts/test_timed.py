"""The metered time of an agreement: when it is over data with an end are cut, and of live data what has left is signed for first."""

import asyncio
from collections.abc import Awaitable, Callable
from time import sleep

import pytest

from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.dataplane.quotas import Ledger
from connector.dataplane_accounts.timed import MICROSECONDS, Timed
from connector.odrl.codes import Code
from connector.odrl.counters import Tally
from connector.odrl.operands import METERED_TIME
from tests.dataplane.rig import Counted

AGREEMENT, MOST = "urn:agreement", MICROSECONDS // 20

pytestmark = pytest.mark.asyncio


class Stream:
    def __init__(self, before_end: Callable[[float | None], Awaitable[None]] | None = None) -> None:
        self.before_end = before_end


async def test_where_others_hold_all_of_the_time_nothing_waits_on_once_its_streams_have_left():
    async def at_mark(_transfer: str) -> None: ...

    store = MemoryStore()
    ledger = Ledger(store, Journal(store, SystemClock()).decide, SystemClock(), Counted(), at_mark, lambda *_: None)
    tally = Tally("/permission/0", METERED_TIME, (MOST,))
    other = ledger.holder(AGREEMENT, "urn:other")
    assert await other.exchange([tally], {}) == "granted"
    time, stream = Timed(ledger, AGREEMENT, tally), Stream()
    joining = asyncio.create_task(time.join(stream, "urn:t"))
    while ledger._news.get(AGREEMENT) is None:  # noqa: ASYNC110 - nothing tells that somebody waits
        await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait({joining})
    time.leave(stream)
    async with asyncio.timeout(2):
        await ledger.close()


@pytest.mark.parametrize("stops", [False, True], ids=["", "the machine stops for longer than the time lasts"])
async def test_each_transfer_of_live_data_ends_once_it_is_signed_for_or_gone_and_the_time_is_posted_before(stops: bool):
    store, decided, cut = MemoryStore(), asyncio.Queue[str](), list[tuple[str, str]]()
    waits, signed, instants = asyncio.Semaphore(0), asyncio.Event(), list[float | None]()

    async def at_mark(transfer: str) -> None:
        decided.put_nowait(transfer)

    async def before_end(ended: float | None) -> None:
        instants.append(ended)
        waits.release()
        await signed.wait()

    ledger = Ledger(
        store, Journal(store, SystemClock()).decide, SystemClock(), Counted(), at_mark, lambda transfer, code: cut.append((transfer, code))
    )
    time = Timed(ledger, AGREEMENT, Tally("/permission/0", METERED_TIME, (MOST,)))
    streams = {"urn:file": Stream(), "urn:one": Stream(before_end), "urn:other": Stream(before_end)}
    begun = asyncio.get_running_loop().time()
    assert all(await asyncio.gather(*(time.join(stream, transfer) for transfer, stream in streams.items())))
    if stops:
        sleep(2 * MOST / MICROSECONDS)  # noqa: ASYNC251 - nothing is renewed meanwhile
    async with asyncio.timeout(10):
        for _ in range(2):
            await waits.acquire()
        assert time.over
        assert instants == [time.ended] * 2, "however late it is seen"
        assert time.ended is not None
        assert begun + MOST / MICROSECONDS <= time.ended < asyncio.get_running_loop().time()
        assert (await decided.get(), cut) == ("urn:file", [("urn:file", Code.QUOTA_EXHAUSTED)])
        usage = await store.usage(AGREEMENT)
        assert usage is not None
        assert (usage.posted, usage.open) == ((("/permission/0", METERED_TIME, MOST),), ())
        assert decided.empty(), "nothing leaves, and nothing is lost"
        time.leave(streams["urn:one"])
        assert await decided.get() == "urn:one", "nobody is waited for who is gone"
        assert decided.empty()
        signed.set()
        assert await decided.get() == "urn:other"
        await ledger.close()
    assert len(cut) == 1
