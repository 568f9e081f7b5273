"""The feed of events: nothing is missed between what is on record and what comes."""

import asyncio
from collections.abc import Sequence

import pytest

from connector.control.journal import Feed, Reader
from connector.records import Changes, Evidence
from tests.api.conftest import desk as desk  # noqa: PLC0414 - the fixture
from tests.api.conftest import events
from tests.contracts.samples import fact
from tests.pair import Desk, fresh

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_feed_tells_history_and_then_what_comes_without_a_gap(desk: Desk):
    await desk.us.publish(fresh("dataset"))
    async with asyncio.timeout(20):
        async with events(desk.us) as feed:
            first = (await anext(feed))[1]["sequence"]
        mark = fresh("dataset")
        await desk.us.publish(mark)
        for query, headers in ((f"?after={first}", {}), ("", {"Last-Event-ID": str(first)}), ("?after=1", {"Last-Event-ID": str(first)})):
            async with events(desk.us, query, **headers) as feed:
                seen = []
                async for _, event in feed:
                    seen.append(event["sequence"])
                    if event["detail"].get("dataset") == mark:
                        break
                assert seen == list(range(first + 1, first + 1 + len(seen)))
        async with events(desk.us, "?after=now") as feed:
            later = fresh("dataset")
            await desk.us.publish(later)
            assert (await anext(feed))[1]["detail"]["dataset"] == later


async def test_who_asks_for_states_hears_of_processes_in_them_and_of_nothing_else(desk: Desk):
    states = ("REQUESTED", "AGREED", "VERIFIED", "FINALIZED", "REQUESTED")
    async with asyncio.timeout(20):
        async with events(desk.us, "?after=now&state=AGREED&state=FINALIZED") as feed:
            for state in states:  # each is told by itself
                await desk.us.connector.journal.commit(Changes(evidence=(fact(state=state),)))
            _, agreed = await anext(feed)
            _, finalized = await anext(feed)
        assert [agreed["state"], finalized["state"]] == ["AGREED", "FINALIZED"]
        async with events(desk.us, f"?after={agreed['sequence'] - 2}&state=FINALIZED") as feed:
            assert (await anext(feed))[1] == finalized, "what is on record is chosen from like what comes"
    answer = await desk.us.manage("GET", "/events?state=FINALISED")
    assert (answer.status, "FINALIZED" in answer.json["detail"]) == (400, True)


async def test_who_asks_from_now_costs_few_reads_however_much_is_on_record_and_hears_nothing_of_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    journal, reads = desk.us.connector.journal, list[int]()
    plain = journal.store.events

    async def read(after: int, limit: int) -> Sequence[Evidence]:
        reads.append(after)
        return await plain(after, limit)

    monkeypatch.setattr(journal.store, "events", read)
    for late in (0, 9):  # of those that another replica has written nobody here has heard
        for _ in range(late):
            await journal.store.commit(Changes(evidence=(fact(),)))
        async with asyncio.timeout(20), events(desk.us, "?after=now") as feed:
            mark = fresh("dataset")
            await desk.us.publish(mark)
            assert (await anext(feed))[1]["detail"]["dataset"] == mark
            assert len(reads) <= (10 if late else 3), "one that finds it, and what the feed reads"
            reads.clear()


async def test_a_reader_that_has_gone_is_forgotten_also_if_nothing_is_committed(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    listeners = desk.us.connector.journal._listeners
    feed = next(each.__self__ for each, _ in listeners if isinstance(getattr(each, "__self__", None), Feed))  # type: ignore[attr-defined]
    others, forgotten, plain = set(feed._readers), asyncio.Queue[Reader](), feed.leave

    def leave(one: Reader) -> None:
        plain(one)
        forgotten.put_nowait(one)

    monkeypatch.setattr(feed, "leave", leave)
    async with asyncio.timeout(5):
        async with events(desk.us, "?after=now"):
            (reader,) = feed._readers - others
            while not reader.idle:  # noqa: ASYNC110 - of who waits nobody is told
                await asyncio.sleep(0)
        while await forgotten.get() is not reader:
            pass
    assert reader not in feed._readers


@pytest.mark.parametrize("after", ["yesterday", "-1", str(2**63)])
async def test_a_place_that_no_record_has_is_refused(desk: Desk, after: str):
    answer = await desk.us.manage("GET", f"/events?after={after}")
    assert (answer.status, "`after` is" in answer.json["detail"]) == (400, True)
