"""What streams use up over real sockets: never over, all of it usable, and what did not leave is given back."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.adapters.sqlite import SqliteStore
from connector.dataplane import meter
from connector.dataplane.edr import grant_for
from connector.dataplane.meter import METERED_PIECE_BYTES, Meters
from connector.dataplane.quotas import LEAST
from connector.odrl.counters import Tally
from connector.odrl.operands import BYTE_COUNT, METERED_TIME, RECORD_COUNT
from connector.values import replace
from tests.dataplane.reader import WAIT_SECONDS, Reader, Same, reading
from tests.dataplane.rig import PROVIDER, TRANSFER, Rig, provider, some_bytes
from tests.faults.patience import own_time

RULE = "/permission/0"
AGREEMENT = "urn:agreement"
USERS = 50
SMALL = LEAST[BYTE_COUNT]
SECOND = 1_000_000


def bytes_up_to(most: int, rule: str = RULE) -> Tally:
    return Tally(rule, BYTE_COUNT, (most,))


def records_up_to(most: int) -> Tally:
    return Tally(RULE, RECORD_COUNT, (most,))


def time_up_to(most: int) -> Tally:
    return Tally(RULE, METERED_TIME, (most,))


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as one:
        yield one


@pytest_asyncio.fixture
async def durable(tmp_path: Path) -> AsyncIterator[Rig]:
    """A provider that counts on disk."""
    store = SqliteStore(tmp_path / "connector.db", PROVIDER)
    async with provider(tmp_path, store=store) as one:
        yield one
    await store.close()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def fetch(http: aiohttp.ClientSession, rig: Rig, transfer: str = TRANSFER, **headers: str) -> tuple[int, bytes, str]:
    """Status and what came of the body, and the code of a refusal."""
    token = rig.tokens.access(grant_for(rig.transfers.views[transfer]))[0]
    got = bytearray()
    async with http.get(f"{rig.url}/data/{transfer}", headers={"Authorization": f"Bearer {token}"} | headers) as answer:
        if answer.status >= 400:
            return answer.status, b"", orjson.loads(await answer.read())["type"].rpartition(":")[2]
        try:
            async for piece in answer.content.iter_any():
                got += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            pass  # cut, short of what was announced
        return answer.status, bytes(got), ""


async def settled(rig: Rig, operand: str = BYTE_COUNT, rule: str = RULE) -> int:
    """What is posted once nothing is open any more."""
    await rig.ledger.close()
    usage = await rig.store.usage(AGREEMENT)
    if usage is None:
        return 0
    assert usage.open == ()
    return usage.spent(rule, operand)


@pytest.mark.asyncio
async def test_fifty_users_of_one_agreement_get_what_it_allows_to_the_byte_and_not_one_more(durable: Rig, http: aiohttp.ClientSession):
    rig, most = durable, 5_000_003
    content = some_bytes(400_000)
    await rig.publish(content)
    for number in range(USERS):
        view = rig.transfers.views[TRANSFER]
        rig.transfers.views[f"t{number}"] = replace(view, pid=f"t{number}", tallies=(bytes_up_to(most),))
    highest = 0

    def watch(*_: object) -> None:
        nonlocal highest
        rows = rig.store._points.execute("select rest from usage").fetchall()  # type: ignore[attr-defined]
        for (rest,) in rows:
            said = orjson.loads(rest)
            highest = max(highest, sum(row[2] for row in said["posted"]) + sum(row[4] for row in said["open"]))

    rig.ledger.tell = _both(rig.ledger.tell, watch)  # type: ignore[method-assign]
    taken = await asyncio.gather(*(fetch(http, rig, f"t{number}") for number in range(USERS)))
    received = sum(len(body) for _, body, _ in taken)
    assert received <= most
    assert highest <= most
    assert await settled(rig) == most, "the last byte of it was usable"
    assert received == most, "nobody was cut but by the quota, so all that was counted has come"
    assert all(content.startswith(body) for _, body, _ in taken)
    assert {code for status, _, code in taken if status == 403} <= {"QUOTA_EXHAUSTED"}
    late = await fetch(http, rig, "t0")
    assert (late[0], late[2]) in {(403, "QUOTA_EXHAUSTED"), (403, "transfer-terminated")}


@pytest.mark.asyncio
@pytest.mark.parametrize("tally", [bytes_up_to(SMALL), time_up_to(SECOND)], ids=["bytes", "time"])
async def test_who_waits_for_what_others_hold_is_told_to_come_back_and_gets_it_then(
    rig: Rig, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tally: Tally
):
    await rig.publish(b"data")
    rig.transfers.views[TRANSFER] = replace(rig.transfers.views[TRANSFER], tallies=(tally,))
    other = rig.ledger.holder(AGREEMENT, "other")
    assert await other.exchange([tally], {}) == "granted"
    async with asyncio.timeout(5):
        with monkeypatch.context() as patch:
            patch.setattr(meter, "HELD_SECONDS", 0.05)
            assert (await fetch(http, rig))[0] == 503
        await other.close()
        assert (await fetch(http, rig))[:2] == (200, b"data")


@pytest.mark.asyncio
async def test_who_is_told_to_come_back_in_the_middle_gets_what_was_counted_however_slow_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meter, "HELD_SECONDS", 0.02)
    tally = bytes_up_to(SMALL * 400)
    await rig.publish(b"x" * (SMALL * 400), tallies=(tally,))
    other = rig.ledger.holder(AGREEMENT, "other")
    assert await other.exchange([tally], {}, {BYTE_COUNT: SMALL * 390}) == "granted"
    async with reading(rig.endpoint, rig.authorization()) as reader:
        await reader.sip_to_the_end()
    await other.close()
    taken, spent = len(reader.taken), await settled(rig)
    assert taken == spent < SMALL * 10


@pytest.mark.asyncio
async def test_who_waits_for_another_stream_of_its_transfer_that_may_wait_for_others_is_told_to_come_back_as_soon(
    rig: Rig, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
):
    calling = asyncio.Lock()
    monkeypatch.setattr(Meters, "calling", lambda _meters, _transfer: calling)
    await rig.publish(b"data", tallies=(bytes_up_to(SMALL),))
    async with asyncio.timeout(3):
        async with calling:
            monkeypatch.setattr(meter, "HELD_SECONDS", 0.05)
            assert (await fetch(http, rig))[0] == 503
        monkeypatch.undo()
        assert (await fetch(http, rig))[:2] == (200, b"data")


def _both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        first(*arguments)
        second(*arguments)

    return call


@pytest.mark.parametrize("most", [1, SMALL - 1, SMALL, 1_234_567])
@pytest.mark.asyncio
async def test_bytes_that_pass_through_this_process_are_counted_like_those_of_the_kernel(most: int, rig: Rig, http: aiohttp.ClientSession):
    content = some_bytes(2_000_000)
    await rig.publish(content, tallies=(bytes_up_to(most),), stages=(Same(),))
    assert (await fetch(http, rig))[1] == content[:most]
    assert await settled(rig) == most


@pytest.mark.asyncio
async def test_small_answers_count_too_and_the_last_of_them_is_cut_at_the_quota(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"x" * 1000, tallies=(bytes_up_to(2500),))
    taken = [await fetch(http, rig) for _ in range(3)]
    assert [(status, len(body)) for status, body, _ in taken] == [(200, 1000), (200, 1000), (200, 500)]
    assert await settled(rig) == 2500
    assert rig.marks.asked == [TRANSFER]


@pytest.mark.asyncio
async def test_at_the_quota_nothing_is_announced_and_the_refusal_says_why(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"x" * 1000, tallies=(bytes_up_to(0),))
    assert await fetch(http, rig) == (403, b"", "QUOTA_EXHAUSTED")


@pytest.mark.asyncio
async def test_what_has_no_body_uses_nothing_up(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"x" * 1000, tallies=(bytes_up_to(10),))
    headers = rig.authorization()
    async with http.head(rig.endpoint, headers=headers) as answer:
        etag = answer.headers["ETag"]
        assert (answer.status, answer.content_length) == (200, 1000)
    assert (await fetch(http, rig, **{"If-None-Match": etag}))[0] == 304
    assert (await fetch(http, rig, Range="bytes=5000-"))[0] == 416
    assert await settled(rig) == 0
    await rig.publish(b"", tallies=(bytes_up_to(10),))
    assert await fetch(http, rig) == (200, b"", "")


@pytest.mark.asyncio
async def test_a_range_uses_up_what_it_carries(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(some_bytes(300_000), tallies=(bytes_up_to(1_000_000),))
    assert len((await fetch(http, rig, Range="bytes=100000-249999"))[1]) == 150_000
    assert await settled(rig) == 150_000


@pytest.mark.asyncio
async def test_without_a_quota_nothing_is_written_and_nothing_is_read(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(some_bytes(300_000))
    await rig.store.close()  # whoever asks it now fails
    assert len((await fetch(http, rig))[1]) == 300_000
    await rig.publish(b"small")
    assert (await fetch(http, rig))[1] == b"small"


@pytest.mark.asyncio
async def test_a_reader_that_goes_away_is_charged_for_what_left_and_the_rest_is_given_back(rig: Rig, http: aiohttp.ClientSession):
    size, most = 64 << 20, 1 << 40
    await rig.publish(b"\0" * size, tallies=(bytes_up_to(most),))
    async with reading(rig.endpoint, rig.authorization()) as reader:
        await reader.take(1_000_000)
        usage = await rig.store.usage(AGREEMENT)
        assert usage.reserved(RULE, BYTE_COUNT) > 0, "a portion is held while it is used"
    await once(lambda: rig.flows.seen(TRANSFER).running == 0)
    spent = await settled(rig)
    assert len(reader.taken) <= spent < size, "what nobody took is not charged"


@pytest.mark.asyncio
async def test_a_cut_gives_back_all_but_the_piece_that_was_leaving(rig: Rig):
    size = 64 << 20
    await rig.publish(b"\0" * size, tallies=(bytes_up_to(1 << 40),))
    async with reading(rig.endpoint, rig.authorization()) as reader:
        await reader.take(100_000)
        taken = await quiet(rig, reader)
        rig.change(state="SUSPENDED")
        await reader.sip_to_the_end()
    spent = await settled(rig)
    assert len(reader.taken) <= spent <= taken + METERED_PIECE_BYTES
    assert spent < size / 2, "the kernels of both sides hold some megabytes, and no more than that was charged"


async def once(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def quiet(rig: Rig, reader: Reader) -> int:
    """Wait until the reader's and our kernel are full; returns what has been handed over by then."""
    last, full = -1, select.poll()
    full.register(other_end(reader), select.POLLOUT)
    async with asyncio.timeout(WAIT_SECONDS):
        while (seen := rig.flows.seen(TRANSFER)) is not None and (full.poll(0) or seen.sent_bytes != last):
            last = seen.sent_bytes
            await asyncio.sleep(0.05)
    return last


def other_end(reader: Reader) -> int:
    """The descriptor of our end of its connection: the kernel takes nothing more as long as nothing can be written to it."""
    here = reader.stream._transport.get_extra_info("sockname")  # type: ignore[attr-defined]
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as copy:
            if copy.getpeername() == here:
                return descriptor
    raise AssertionError("there is no connection with it")


@pytest.mark.asyncio
async def test_who_finds_nothing_left_waits_for_what_a_slow_reader_holds_and_gets_what_that_gives_back(
    rig: Rig, http: aiohttp.ClientSession
):
    """The whole quota is held by one who takes nothing; when it is cut, another gets what was not used."""
    size = 40 << 20
    await rig.publish(b"\0" * size, tallies=(bytes_up_to(LEAST[BYTE_COUNT] * 400),))
    other = "slow"
    rig.transfers.views[other] = replace(rig.transfers.views[TRANSFER], pid=other)
    held = rig.ledger.holder(AGREEMENT, other)
    assert await held.exchange([bytes_up_to(SMALL * 400)], {}, {BYTE_COUNT: SMALL * 398}) == "granted"
    before = held.left(BYTE_COUNT)
    first = asyncio.create_task(fetch(http, rig))
    async with asyncio.timeout(WAIT_SECONDS):  # until somebody has taken all that was left, and waits
        while (await rig.store.usage(AGREEMENT)).spent(RULE, BYTE_COUNT) != SMALL * 400 - before or not rig.ledger._news:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    assert not first.done(), "others may give something back"
    assert rig.marks.asked == []
    held.spend(BYTE_COUNT, SMALL * 100)
    await held.close()
    status, body, _ = await first
    assert (status, len(body)) == (200, SMALL * 300)
    assert await settled(rig) == SMALL * 400
    assert rig.marks.asked == [TRANSFER], "asked once nothing was left and nobody held anything"


@pytest.mark.asyncio
async def test_what_a_reader_holds_who_takes_nothing_more_goes_to_others_once_it_is_cut(tmp_path: Path, http: aiohttp.ClientSession):
    size, most = 64 << 20, 40 << 20
    async with provider(tmp_path, stall_seconds=0.8) as rig:
        await rig.publish(b"\0" * size, tallies=(bytes_up_to(most),))
        async with reading(rig.endpoint, rig.authorization()) as slow:
            await slow.take(100_000)
            await quiet(rig, slow)
            assert (await rig.store.usage(AGREEMENT)).reserved(RULE, BYTE_COUNT) > 0, "it holds a portion, and does not use it"
            status, body, _ = await fetch(http, rig)
            await slow.sip_to_the_end()
        assert status == 200
        assert await settled(rig) == most
        assert len(body) + len(slow.taken) <= most
        assert len(body) > most / 2, "the one who waited has got what the other one left"


@pytest.mark.asyncio
async def test_where_the_policy_permits_it_nevertheless_the_stream_goes_on_under_what_counts_then(rig: Rig, http: aiohttp.ClientSession):
    content = some_bytes(500_000)
    await rig.publish(content, tallies=(bytes_up_to(200_000),))
    rig.marks.beyond[TRANSFER] = (Tally(RULE, BYTE_COUNT, ()), bytes_up_to(1_000_000, "/permission/1"))
    assert (await fetch(http, rig))[1] == content
    assert rig.marks.asked == [TRANSFER]
    assert await settled(rig) == 200_000, "nothing depends on it any more"
    assert await settled(rig, rule="/permission/1") == 300_000


@pytest.mark.asyncio
async def test_two_rules_on_one_stream_are_both_charged_and_the_tighter_one_ends_it(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(some_bytes(500_000), tallies=(bytes_up_to(1_000_000), bytes_up_to(150_001, "/permission/1")))
    assert len((await fetch(http, rig))[1]) == 150_001
    assert (await settled(rig), await settled(rig, rule="/permission/1")) == (150_001, 150_001)


LINES = b"".join(b'{"n": %d, "x": "%s"}\n' % (n, b"y" * (n % 97)) for n in range(20_000))


def begun(body: bytes, *, first: bool = True) -> int:
    """The records of which at least one byte is there."""
    return len(body.splitlines()) if first else len(body.split(b"\n", 1)[-1].splitlines())


@pytest.mark.parametrize("most", [1, 99, 100, 101, 12_345])
@pytest.mark.asyncio
async def test_records_leave_whole_and_as_many_as_are_allowed(most: int, rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LINES, media_type="application/x-ndjson", tallies=(records_up_to(most),))
    _, body, _ = await fetch(http, rig)
    assert body == b"".join(line + b"\n" for line in LINES.split(b"\n")[:most])
    assert await settled(rig, RECORD_COUNT) == most


@pytest.mark.asyncio
async def test_a_file_of_as_many_records_as_are_allowed_comes_whole_however_it_ends(rig: Rig, http: aiohttp.ClientSession):
    for content, count in ((b"a\nb\nc\n", 3), (b"a\nb\nc", 3), (b"\n\n\n", 3), (b"a" * 300_000, 1)):
        await rig.publish(content, media_type="application/x-ndjson", tallies=(Tally(str(content[:9]), RECORD_COUNT, (count,)),))
        assert (await fetch(http, rig))[1] == content
        assert await settled(rig, RECORD_COUNT, str(content[:9])) == count


@pytest.mark.asyncio
async def test_pieces_of_records_are_counted_as_records_so_that_many_ranges_get_no_more_than_one(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"abc\ndef\nghi\n", media_type="application/x-ndjson", tallies=(records_up_to(5),))
    for range_, count in (("bytes=1-2", 1), ("bytes=2-4", 3), ("bytes=3-3", 4)):
        await fetch(http, rig, Range=range_)
        assert await settled(rig, RECORD_COUNT) == count
    assert (await fetch(http, rig))[1] == b"abc\n"


EVENTS = [b"id: %d\r\ndata: %s\r\n\r\n" % (n, b"y" * (n % 97)) + (b": alive\r\n\r\n" if n % 5 == 0 else b"") for n in range(4_000)]


@pytest.mark.parametrize("ending", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("most", [1, 101, 3_456])
@pytest.mark.asyncio
async def test_events_leave_whole_and_as_many_as_are_allowed(ending: bytes, most: int, rig: Rig, http: aiohttp.ClientSession):
    events = [event.replace(b"\r\n", ending) for event in EVENTS]
    await rig.publish(b"".join(events), media_type="text/event-stream", tallies=(records_up_to(most),))
    assert (await fetch(http, rig))[1] == b"".join(events[:most])
    assert await settled(rig, RECORD_COUNT) == most


@pytest.mark.asyncio
async def test_pieces_of_events_are_counted_as_events_so_that_many_ranges_get_no_more_than_one(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"data: abc\n\ndata: def\n\n", media_type="text/event-stream", tallies=(records_up_to(4),))
    for range_, count in (("bytes=7-8", 1), ("bytes=6-16", 3), ("bytes=9-10", 3)):
        await fetch(http, rig, Range=range_)
        assert await settled(rig, RECORD_COUNT) == count
    assert (await fetch(http, rig))[1] == b"data: abc\n\n"


@pytest.mark.asyncio
async def test_records_of_what_has_none_are_not_guessed(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"%PDF", media_type="application/pdf", tallies=(records_up_to(5),))
    assert await fetch(http, rig) == (403, b"", "OPERAND_UNSUPPORTED")


@pytest.mark.asyncio
async def test_bytes_and_records_bound_one_stream_together(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LINES, media_type="application/x-ndjson", tallies=(records_up_to(10_000), bytes_up_to(100_000)))
    _, body, _ = await fetch(http, rig)
    assert len(body) == 100_000
    assert await settled(rig) == 100_000
    assert await settled(rig, RECORD_COUNT) == begun(body)


@pytest.mark.asyncio
async def test_metered_time_cuts_at_the_instant_at_which_it_is_used_up(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LEAST, METERED_TIME, SECOND // 10)  # type: ignore[arg-type]
    await rig.publish(b"\0" * (64 << 20), tallies=(time_up_to(SECOND // 2),))
    loop = asyncio.get_running_loop()
    began, within = loop.time(), own_time()
    async with reading(rig.endpoint, rig.authorization()) as one, reading(rig.endpoint, rig.authorization()) as other:
        await asyncio.gather(one.sip_to_the_end(), other.sip_to_the_end())
    assert 0.45 < loop.time() - began < within(1.5)
    assert await settled(rig, METERED_TIME) == SECOND // 2, "two streams at once use up the time once"
    assert rig.marks.asked == [TRANSFER]
    async with reading(rig.endpoint, rig.authorization()) as late:
        assert late.status == 403


@pytest.mark.asyncio
async def test_time_runs_while_a_stream_does_and_the_rest_of_the_portion_is_given_back(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(some_bytes(300_000), tallies=(time_up_to(1000 * SECOND),))
    for _ in range(3):
        assert len((await fetch(http, rig))[1]) == 300_000
    assert 0 < await settled(rig, METERED_TIME) < SECOND, "three answers that take some milliseconds each"


@pytest.mark.asyncio
async def test_time_goes_on_from_portion_to_portion(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LEAST, METERED_TIME, SECOND // 10)  # type: ignore[arg-type]
    await rig.publish(b"\0" * (64 << 20), tallies=(time_up_to(9 * SECOND),))
    loop = asyncio.get_running_loop()
    began = last = loop.time()
    ran = 0.0  # without what the machine stands still for, of which no more is counted than what is held
    async with reading(rig.endpoint, rig.authorization()) as reader:
        while ran < 0.5:  # five portions and more
            await reader.take(1000)
            await asyncio.sleep(0.02)
            ran, last = ran + min(loop.time() - last, 0.03), loop.time()
    assert SECOND * 0.45 < await settled(rig, METERED_TIME) < SECOND * (loop.time() - began)
