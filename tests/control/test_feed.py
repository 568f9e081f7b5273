import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.client.events import EventReader
from connector.client.views import Event, Pull
from connector.control.journal import LIVE_MAX, Feed, Journal
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.records import Changes, Evidence
from tests.contracts.identity_contract import SetClock
from tests.contracts.samples import fact, negotiation
from tests.pair import TOKEN, WAIT_SECONDS, Desk, Running, desk
from tests.pair import negotiation as with_peer

N = Kind.NEGOTIATION


def made() -> tuple[Journal, Feed]:
    journal = Journal(MemoryStore(), SetClock())
    return journal, Feed(journal)


def final(process: Process) -> bool:
    return process.final


@pytest.mark.asyncio
async def test_a_waiter_gets_the_process_in_the_moment_in_which_it_holds():
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("n"),)))
    waiting = asyncio.create_task(feed.wait(N, "n", final, WAIT_SECONDS))
    await journal.commit(Changes(saves=(negotiation("n", state="AGREED", version=2),)))
    await journal.commit(Changes(saves=(negotiation("other", state="FINALIZED"),)))
    assert not waiting.done()
    await journal.commit(Changes(saves=(negotiation("n", state="FINALIZED", version=3),)))
    assert (await waiting).version == 3


@pytest.mark.asyncio
async def test_a_waiter_sees_what_the_store_shows_though_the_journal_has_not_been_told_yet():
    """An order that read both, one after the other, went round for ever in the turn before the journal's: it held the loop."""
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("n"),)))
    await journal.store.commit(Changes(saves=(negotiation("n", state="FINALIZED", version=2),)))
    assert (await journal.process(N, "n")).version == 1
    assert (await feed.wait(N, "n", lambda _: True, None)).version == 2


@pytest.mark.asyncio
async def test_a_waiter_whose_time_is_over_gets_the_process_as_it_stands():
    journal, feed = made()
    assert await feed.wait(N, "n", final, WAIT_SECONDS) is None, "there is none, and nobody waits for it"
    await journal.commit(Changes(saves=(negotiation("n"),)))
    assert (await feed.wait(N, "n", final, 0.01)).state == "REQUESTED"
    assert (await feed.wait(N, "n", lambda _: True, 0)).state == "REQUESTED"


@pytest.mark.asyncio
async def test_a_waiter_without_a_time_waits_as_long_as_the_process_lives(monkeypatch: pytest.MonkeyPatch):
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("n"),)))
    waiting = asyncio.create_task(feed.wait(N, "n", final, None))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 365 * 86_400)
    await asyncio.sleep(0.001)
    assert not waiting.done()
    await journal.commit(Changes(saves=(negotiation("n", state="FINALIZED", version=2),)))
    assert (await waiting).state == "FINALIZED"


@pytest.mark.asyncio
async def test_a_process_that_has_gone_when_the_time_is_over_is_none():
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("n"),)))
    waiting = asyncio.create_task(feed.wait(N, "n", final, 0.01))
    await asyncio.sleep(0)
    await journal.store.commit(Changes(deletes=((Process, "n"),)))
    assert await waiting is None


@pytest.mark.asyncio
async def test_a_waiter_hears_of_a_state_that_did_not_last():
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("n"),)))
    waiting = asyncio.create_task(feed.wait(N, "n", lambda process: process.state == "OFFERED", WAIT_SECONDS))
    await asyncio.sleep(0)
    for version, state in enumerate(("OFFERED", "ACCEPTED"), 2):
        await journal.commit(Changes(saves=(negotiation("n", state=state, version=version),)))
    assert (await waiting).version == 2


@pytest.mark.asyncio
async def test_what_a_waiter_cannot_ask_fails_it_and_neither_the_commit_nor_who_else_hears_of_it():
    journal, feed = made()
    told: list[Changes] = []
    journal.listen(lambda changes, _: told.append(changes))
    await journal.commit(Changes(saves=(negotiation("n"),)))
    wrong = asyncio.create_task(feed.wait(N, "n", lambda process: process.version > 1 and bool(process.detail["nothing"]), WAIT_SECONDS))
    right = asyncio.create_task(feed.wait(N, "n", lambda process: process.version > 1, WAIT_SECONDS))
    await asyncio.sleep(0)
    await journal.commit(Changes(saves=(negotiation("n", version=2),)))
    assert len(told) == 2
    assert (await right).version == 2
    with pytest.raises(KeyError, match="nothing"):
        await wrong


class Slow(MemoryStore):
    """A store that finds a process and tells it when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.may = asyncio.Event(), asyncio.Event()

    async def process(self, kind: Kind, pid: str) -> Process | None:
        found = await super().process(kind, pid)
        self.found.set()
        await self.may.wait()
        return found


@pytest.mark.asyncio
async def test_what_is_committed_while_a_waiter_reads_the_store_is_not_missed():
    store = Slow()
    await store.commit(Changes(saves=(negotiation("n"),)))  # by a process before this one: it is not at hand
    journal = Journal(store, SetClock())
    waiting = asyncio.create_task(Feed(journal).wait(N, "n", final, None))
    await store.found.wait()
    await journal.commit(Changes(saves=(negotiation("n", state="FINALIZED", version=2),)))
    store.may.set()
    async with asyncio.timeout(WAIT_SECONDS):
        assert (await waiting).version == 2


@pytest.mark.asyncio
async def test_a_connector_that_stops_sends_all_waiters_home():
    journal, feed = made()
    await journal.commit(Changes(saves=(negotiation("a"), negotiation("b"))))
    waiting = [asyncio.create_task(feed.wait(N, pid, final, WAIT_SECONDS)) for pid in ("a", "a", "b")]
    hung_up: list[str] = []
    waits, reads = feed.reader(lambda: hung_up.append("waits")), feed.reader(lambda: hung_up.append("reads"))
    waits.idle = True
    await asyncio.sleep(0)
    feed.close()
    assert [each.state for each in await asyncio.gather(*waiting)] == ["REQUESTED"] * 3
    assert waits.woken.is_set()
    assert reads.woken.is_set()
    assert hung_up == ["reads"], "who waits ends in order"


def numbered(sequence: int) -> Evidence:
    return fact(sequence=sequence)


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 5), max_size=12))
def test_whatever_order_events_come_in_a_reader_gets_each_once_after_its_last_wake(order: list[int], batches: list[int]):
    """The law of the feed's reader: take what is live, or read the store from where it stands; never wait with something left.
    Commits become durable in the order of their numbers, but may be told in another."""
    _, feed = made()
    reader, met, durable = feed.reader(), [0], 0
    while order:
        size = batches.pop() if batches else len(order)
        batch, order = order[:size], order[size:]
        durable = max(durable, *batch)
        reader.live.extend(map(numbered, batch))
        taken = reader.following(met[-1])
        met += [event.sequence for event in taken] if taken is not None else range(met[-1] + 1, durable + 1)
    assert met == list(range(13))


@pytest.mark.asyncio
async def test_a_reader_of_states_sleeps_through_all_others_but_never_so_long_that_it_has_missed_something():
    journal, feed = made()
    reader = feed.reader(states=frozenset({"FINALIZED"}))
    await journal.commit(Changes(evidence=(fact(), fact())))
    assert not reader.woken.is_set()
    await journal.commit(Changes(evidence=(fact(), fact(state="FINALIZED"))))
    assert reader.woken.is_set()
    assert [event.sequence for event in reader.wanted(reader.following(0) or ())] == [4]
    reader.woken.clear()
    for _ in range(LIVE_MAX // 2):
        await journal.commit(Changes(evidence=(fact(),)))
    assert not reader.woken.is_set()
    await journal.commit(Changes(evidence=(fact(),)))
    assert reader.woken.is_set()
    assert reader.following(4) is not None, "nothing has to be read again"


@pytest.mark.asyncio
async def test_what_a_slow_reader_has_not_fetched_is_bounded_and_read_from_the_store():
    journal, feed = made()
    reader = feed.reader()
    await journal.commit(Changes(evidence=tuple(fact() for _ in range(3))))
    for _ in range(4):
        await journal.commit(Changes(evidence=tuple(fact() for _ in range(LIVE_MAX // 2))))
    assert len(reader.live) == LIVE_MAX
    assert reader.following(3) is None, "what it needs next is not in memory any more"
    assert len(await journal.store.events(3, 10_000)) == 2 * LIVE_MAX
    feed.leave(reader)
    await journal.commit(Changes(evidence=(fact(),)))
    assert not reader.live, "a reader that has left is not kept"


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, store="sqlite") as made:
        yield made


@asynccontextmanager
async def listening(us: Running, query: str = "", **headers: str) -> AsyncIterator[Callable[[int], "asyncio.Future[list[int]]"]]:
    """An event stream; the value waits for so many more events and returns their sequence numbers."""
    url = f"http://127.0.0.1:{us.connector.ports['management']}/v1/events{query}"
    seen: asyncio.Queue[Event | Pull] = asyncio.Queue()

    async def read(response: aiohttp.ClientResponse) -> None:
        reader = EventReader()
        async for piece in response.content.iter_any():
            for event in reader.feed(piece):
                seen.put_nowait(event)

    async def take(count: int) -> list[int]:
        async with asyncio.timeout(WAIT_SECONDS):
            return [event.sequence for _ in range(count) if isinstance(event := await seen.get(), Event)]

    async with us.http.get(url, headers={"Authorization": f"Bearer {TOKEN}"} | headers) as response:
        assert response.status == 200
        assert await response.content.readline() == b": from here\n"
        reading = asyncio.create_task(read(response))
        try:
            yield take  # type: ignore[misc]
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def happen(us: Running, count: int) -> None:
    for _ in range(count):
        assert isinstance(await us.connector.journal.commit(Changes(evidence=(fact(),))), tuple)


@pytest.mark.asyncio
async def test_the_feed_tells_its_history_and_then_what_comes(at: Desk):
    await happen(at.us, 3)
    async with listening(at.us) as take:
        assert await take(3) == [1, 2, 3]
        await happen(at.us, 2)
        assert await take(2) == [4, 5]


@pytest.mark.parametrize("by_header", [True, False])
@pytest.mark.asyncio
async def test_who_comes_back_with_the_last_number_misses_nothing_and_gets_nothing_twice(at: Desk, by_header: bool):
    """Connections are cut at any place; events go on all the time."""
    met: list[int] = []
    busy = asyncio.create_task(happen(at.us, 60))
    for _ in range(6):
        last = met[-1] if met else 0
        said = {"Last-Event-ID": str(last)} if by_header else {}
        async with listening(at.us, "" if by_header else f"?after={last}", **said) as take:
            met += await take(7)
    await busy
    async with listening(at.us, f"?after={met[-1]}") as take:
        met += await take(60 - len(met))
    assert met == list(range(1, 61))


@pytest.mark.asyncio
async def test_the_header_of_a_reconnecting_browser_overrules_the_address_it_began_with(at: Desk):
    await happen(at.us, 4)
    async with listening(at.us, "?after=1", **{"Last-Event-ID": "3"}) as take:
        assert await take(1) == [4]


@pytest.mark.asyncio
async def test_the_feed_can_begin_now(at: Desk):
    await happen(at.us, 11)
    async with listening(at.us, "?after=now") as take:
        await happen(at.us, 1)
        assert await take(1) == [12]


@pytest.mark.asyncio
async def test_what_is_committed_while_a_reader_reads_the_store_is_told_at_once(at: Desk, monkeypatch: pytest.MonkeyPatch):
    store, late = at.us.connector.store, [1]
    events = store.events

    async def meanwhile(after: int, limit: int) -> Sequence[Evidence]:
        found = await events(after, limit)
        if late:
            await happen(at.us, late.pop())
        return found

    monkeypatch.setattr(store, "events", meanwhile)
    await happen(at.us, 3)
    async with listening(at.us, "?after=3") as take:
        assert await take(1) == [4]


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "%20"])
@pytest.mark.asyncio
async def test_a_place_that_no_event_has_is_refused(at: Desk, after: str):
    answer = await at.us.manage("GET", f"/events?after={after}")
    assert (answer.status, answer.json["title"]) == (400, "invalid request")


@pytest.mark.asyncio
async def test_events_of_a_process_come_with_their_state_in_the_order_in_which_they_happened(at: Desk):
    async with listening(at.us) as take:
        await at.us.put(process := with_peer(at.us, at.peer, "OFFERED", Role.PROVIDER))
        await at.us.asked("POST", f"/negotiations/{process.pid}/terminate", {"reason": "enough"})
        await at.peer.heard("/termination")
        assert await take(2) == [1, 2]
    assert [row.what for row in await at.us.evidence(process.pid)] == ["message-sent", "message-acknowledged"]
    assert [row.state for row in await at.us.evidence(process.pid)] == ["OFFERED", "TERMINATED"]


@pytest.mark.asyncio
async def test_a_watcher_that_does_not_read_costs_a_bounded_amount_and_holds_nobody_up(at: Desk):
    """Its socket is full, so what is meant for it waits in the store; the connector writes and stops all the same."""
    port = at.us.connector.ports["management"]
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(lazy, ("127.0.0.1", port))
    head = f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    await loop.sock_sendall(lazy, head.encode())
    big = fact(detail={"text": "x" * 20_000})
    for _ in range(LIVE_MAX // 100 + 3):
        await at.us.connector.journal.commit(Changes(evidence=(big,) * 100))
    async with listening(at.us, "?after=1290") as take:
        assert await take(10) == list(range(1291, 1301)), "others are served"
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await at.us.connector.close()
    finally:
        lazy.close()
