"""What is pushed arrives as what is fetched does: proven, receipted, taken up after any cut; and to anybody's sink without all that."""

import asyncio
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from connector.adapters.egress import guard
from connector.adapters.file_sink import FileSink
from connector.dataplane.edr import Address
from connector.dataplane_push import pusher
from connector.errors import EgressDenied, PeerFailed, PeerRefused, SinkFailed, Withdrawn
from connector.intake import account, room
from connector.metering.objects import Receipt, kept
from connector.ports import COUNTERSIGNED
from tests.dataplane.rig import TRANSFER, serving, some_bytes
from tests.dataplane.test_meter import settled
from tests.dataplane.test_meter_budgets import MONEY, budget
from tests.dataplane_push.stand import OURS, Stand, stand
from tests.faults.patience import own_patience

CHUNK = 262_144
CONTENT = some_bytes(9 * CHUNK + 4321)
WINDOW = 2 * CHUNK

pytestmark = pytest.mark.asyncio


async def both(at: Stand) -> None:
    async with asyncio.timeout(30):
        await asyncio.gather(at.receive(), pushed(at))


async def pushed(at: Stand) -> None:
    """Again and again, as whoever runs it does."""
    while True:
        try:
            return await at.push()
        except PeerFailed:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:CHUNK], CONTENT], ids=len)
async def test_what_is_pushed_is_proven_receipted_and_has_its_name(tmp_path: Path, content: bytes):
    async with stand(tmp_path, content, window_bytes=WINDOW, credit_windows=2) as at:
        await both(at)
        assert (at.root / "file").read_bytes() == content
        ours, theirs = await at.accounts()
        assert (theirs.status, theirs.attested, theirs.counts.bytes) == ("complete", "both", len(content))
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        assert len(receipts) >= 1 + len(content) // WINDOW
        assert receipts[-1].state == "complete"


async def test_each_window_is_answered_as_soon_as_it_is_verified_however_large_the_credit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)  # who waited for half of the credit would wait for this
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=64) as at:
        await both(at)
        receipts = await at.rig.store.receipts(TRANSFER)
        assert len(receipts) >= 1 + len(CONTENT) // WINDOW


class Cutting:
    """Between both: breaks the connection of some requests, before they arrive or before they are answered."""

    def __init__(self, seed: int) -> None:
        self._chance, self.left, self.cuts = random.Random(seed), 12, 0

    @property
    def middleware(self) -> Callable[..., Any]:
        @web.middleware
        async def cut(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
            where = self._chance.choice(["", "", "before", "middle", "after"]) if self.left else ""
            if not where:
                return await handler(request)
            self.left, self.cuts = self.left - 1, self.cuts + 1
            assert request.transport is not None
            if where == "middle":
                asyncio.get_running_loop().call_later(0.002, request.transport.abort)
            if where != "before":
                response = await handler(request)
                if where == "middle":
                    return response
            request.transport.abort()
            return web.Response()

        return cut


async def test_nothing_is_brought_while_there_is_no_room_and_it_goes_on_once_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room_bytes, refused, told, brought, write = 4 * CHUNK, asyncio.Event(), asyncio.Event(), list[int](), FileSink.write
    looks = 0

    async def reserve(_sink: FileSink, _more_bytes: int) -> None:
        if room_bytes < len(CONTENT) and told.is_set():
            raise SinkFailed("no space", full=True)

    async def limited(sink: FileSink, offset: int, piece: bytes | memoryview) -> None:
        if offset + len(piece) > room_bytes:
            raise SinkFailed("no space", full=True)
        await write(sink, offset, piece)

    @web.middleware
    async def between(request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        nonlocal looks
        if told.is_set() and request.content_length:
            brought.append(request.content_length)
        try:
            return await handler(request)
        finally:
            if told.is_set() and request.method == "HEAD" and (looks := looks + 1) >= 5:
                refused.set()

    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(room, "LOOK_SECONDS_MAX", 0.01)
    monkeypatch.setattr(FileSink, "write", limited)
    monkeypatch.setattr(FileSink, "reserve", reserve)
    async with stand(tmp_path, CONTENT, between, window_bytes=WINDOW, credit_windows=8) as at, asyncio.timeout(20):
        at.watcher.on_report = lambda order: told.set() if any("the disk is full" in each for each in order.reasons) else None
        running = asyncio.create_task(both(at))
        await refused.wait()
        assert (brought, running.done()) == ([], False)
        ours, theirs = await at.accounts()
        assert (theirs.status, theirs.counts.bytes) == ("aborted", 4 * CHUNK)
        assert theirs.receipt == ours.receipt
        room_bytes = len(CONTENT)
        await running
        assert (at.root / "file").read_bytes() == CONTENT
        assert sum(brought) <= len(CONTENT) - 4 * CHUNK + 3000, "and an address"
        ours, theirs = await at.accounts()
        assert (theirs.status, theirs.counts.bytes, ours.ack) == ("complete", len(CONTENT), theirs.ack)


@pytest.mark.parametrize("seed", range(4))
async def test_wherever_it_is_cut_it_goes_on_with_what_is_not_proven_and_nothing_is_counted_twice(tmp_path: Path, seed: int):
    cutting = Cutting(seed)
    async with stand(tmp_path, CONTENT, cutting.middleware, window_bytes=WINDOW, credit_windows=2) as at:
        await both(at)
        assert cutting.cuts >= 6
        assert (at.root / "file").read_bytes() == CONTENT
        ours, theirs = await at.accounts()
        assert (ours.counts.bytes, theirs.counts.bytes, theirs.status) == (len(CONTENT), len(CONTENT), "complete")


async def test_what_was_cut_and_is_brought_again_is_paid_for_once(tmp_path: Path):
    """As on its bill: else a budget that pays for all of it would end before the data do."""
    cutting = Cutting(0)
    async with stand(tmp_path, CONTENT, cutting.middleware, window_bytes=WINDOW, credit_windows=2) as at:
        at.rig.change(tallies=(budget(2 * len(CONTENT), byte=2),))
        await both(at)
        assert cutting.cuts >= 6
        assert (at.root / "file").read_bytes() == CONTENT
        assert await settled(at.rig, MONEY) == 2 * len(CONTENT)


async def test_a_consumer_that_was_killed_gets_only_what_it_has_not_signed_for(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        receiving, pushing = asyncio.create_task(at.receive()), asyncio.create_task(pushed(at))
        async with asyncio.timeout(20):
            while (mine := await at.store.metered(OURS)) is None or mine.sequence < 3:  # noqa: ASYNC110 - a store tells nobody
                await asyncio.sleep(0.001)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        async with asyncio.timeout(30):
            await at.receive()
            await pushing
        assert (at.root / "file").read_bytes() == CONTENT
        ours, theirs = await at.accounts()
        assert ours.counts == theirs.counts


async def test_a_leaf_that_comes_wrong_is_rejected_and_brought_once_more(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        wrong = [True]
        plain = pusher.pieces

        async def bent(*of: Any) -> AsyncIterator[bytes]:
            async for piece in plain(*of):
                yield b"X" + piece[1:] if wrong and wrong.pop() else piece

        with patched(pusher, pieces=bent):
            await both(at)
        assert (at.root / "file").read_bytes() == CONTENT
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        assert [each.rejected.leaf for each in receipts if each.rejected is not None] == [1]


@contextmanager
def patched(of: Any, **members: Any) -> Iterator[None]:
    before = {name: getattr(of, name) for name in members}
    for name, value in members.items():
        setattr(of, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(of, name, value)


async def test_a_request_that_hangs_gives_way_to_the_next_one_and_is_answered(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        hanging, plain = asyncio.Event(), pusher.pieces

        async def slow(*of: Any) -> AsyncIterator[bytes]:
            async for piece in plain(*of):
                if not hanging.is_set():
                    yield piece[:1000]
                    hanging.set()
                    await asyncio.Event().wait()
                yield piece

        with patched(pusher, pieces=slow):
            receiving, first = asyncio.create_task(at.receive()), asyncio.create_task(at.push())
            async with asyncio.timeout(30):
                await hanging.wait()
                await asyncio.gather(receiving, pushed(at))
                with pytest.raises(PeerFailed, match="with which byte"):
                    await first
        assert (at.root / "file").read_bytes() == CONTENT
        ours, theirs = await at.accounts()
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)


async def test_a_transfer_that_is_suspended_stops_at_once_and_goes_on_later(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        receiving, pushing = asyncio.create_task(at.receive()), asyncio.create_task(at.push())
        async with asyncio.timeout(20):
            while (mine := await at.store.metered(OURS)) is None or mine.sequence < 2:  # noqa: ASYNC110 - a store tells nobody
                await asyncio.sleep(0.001)
        at.rig.change(state="SUSPENDED")
        with pytest.raises(Withdrawn):
            await pushing
        with pytest.raises(Withdrawn):
            await at.push()
        at.rig.change(state="STARTED")
        async with asyncio.timeout(30):
            await pushed(at)
            await receiving
        assert (at.root / "file").read_bytes() == CONTENT


async def test_of_a_push_that_is_revoked_both_sides_have_what_was_verified_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.ports.pushed.ALONE_SECONDS", 0.05)
    monkeypatch.setattr("connector.intake.account.QUIET_SECONDS", 0.05)
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        hanging, ended, plain = asyncio.Event(), asyncio.Event(), pusher.pieces

        async def slow(of: Any, stages: Any, span: Any) -> AsyncIterator[bytes]:
            async for piece in plain(of, stages, span):
                yield piece[: CHUNK + 1000] if span.first else piece  # a leaf and a bit
                if span.first:  # in the middle of the second window
                    hanging.set()
                    await asyncio.Event().wait()

        with patched(pusher, pieces=slow):
            receiving, pushing = asyncio.create_task(at.receive(over=ended.is_set)), asyncio.create_task(at.push())
            async with asyncio.timeout(20):
                await hanging.wait()
                while (await at.accounts())[0].sequence < 3:  # noqa: ASYNC110 - a store tells nobody
                    await asyncio.sleep(0.005)
                at.rig.change(state="TERMINATED")
                ended.set()
                with pytest.raises(Withdrawn):
                    await pushing
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
        ours, theirs = await at.accounts()
        assert ours.counts.bytes == WINDOW + CHUNK
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)


@dataclass
class Plain:
    """Anybody's sink. It answers with `status`, and takes no data with a header that it does not know."""

    status: int = 201
    head: int = 405
    got: list[tuple[str, bytes, str | None]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=self.head)
        self.got.append((request.method, await request.read(), request.headers.get("Authorization")))
        return web.Response(status=400 if "Signature" in request.headers else self.status)


@asynccontextmanager
async def plain(status: int = 201, head: int = 405) -> AsyncIterator[tuple[Plain, Address]]:
    sink, app = Plain(status, head), web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/there", sink.handle)
    async with serving(app) as port:
        yield sink, Address(f"http://127.0.0.1:{port}/there", "sink-token", None, None, None)


async def test_anybodys_sink_gets_all_of_it_in_one_request_and_is_counted_by_us_alone(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at, plain() as (sink, address):
        await at.pusher.push(TRANSFER, address)
        assert sink.got == [("PUT", CONTENT, "Bearer sink-token")]
        assert at.rig.metering is not None
        await at.rig.metering.accounts.write_now()
        stored = await at.rig.store.metered(TRANSFER)
        assert stored is not None
        assert (stored.attested, stored.counts.bytes, stored.counts.items) == ("provider-only", len(CONTENT), 1)


async def test_a_sink_that_says_it_has_all_before_that_has_been_sent_is_asked_again(tmp_path: Path):
    async def hasty(request: web.Request) -> web.Response:
        if request.method == "PUT":
            await request.content.readany()
        return web.Response(status=202 if request.method == "PUT" else 405)

    app = web.Application()
    app.router.add_route("*", "/there", hasty)
    async with stand(tmp_path, bytes(32 << 20)) as at, serving(app) as port:
        with pytest.raises(PeerFailed, match="status 202 before all of the data had been sent") as caught:
            await at.pusher.push(TRANSFER, Address(f"http://127.0.0.1:{port}/there", None, None, None, None))
        assert not isinstance(caught.value, PeerRefused), "it may have all of it the next time"


async def test_a_sink_that_answers_with_more_than_we_keep_has_taken_it_all_the_same(tmp_path: Path):
    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=200 if request.method == "PUT" else 405)
        await answer.prepare(request)
        async for piece in request.content.iter_any():
            got.extend(piece)
            await answer.write(piece)
        return answer

    got, app = bytearray(), web.Application()
    app.router.add_route("*", "/there", echo)
    async with stand(tmp_path, CONTENT) as at, serving(app) as port:
        await at.pusher.push(TRANSFER, Address(f"http://127.0.0.1:{port}/there", None, None, None, None))
    assert got == CONTENT, "all of it, once"


async def test_anybodys_sink_gets_nothing_where_receipts_are_demanded(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at, plain() as (sink, address):
        at.rig.change(demands=frozenset({COUNTERSIGNED}))
        with pytest.raises(Withdrawn) as caught:
            await at.pusher.push(TRANSFER, address)
        assert (caught.value.code, sink.got) == ("receipt-required", [])


@pytest.mark.parametrize(("status", "refused"), [(403, True), (404, True), (503, False), (507, False)])
async def test_a_sink_that_does_not_take_it_is_believed_or_asked_again(tmp_path: Path, status: int, refused: bool):
    async with stand(tmp_path, CONTENT) as at, plain(status) as (_, address):
        with pytest.raises(PeerFailed) as caught:
            await at.pusher.push(TRANSFER, address)
        assert isinstance(caught.value, PeerRefused) is refused


@pytest.mark.parametrize("head", [429, 500, 503, 507])
async def test_a_sink_that_cannot_say_now_what_it_wants_gets_nothing_yet(tmp_path: Path, head: int):
    async with stand(tmp_path, CONTENT) as at, plain(head=head) as (sink, address):
        with pytest.raises(PeerFailed, match=f"status {head}"):
            await at.pusher.push(TRANSFER, address)
        assert sink.got == []


async def test_a_sink_that_wants_nothing_and_signs_for_nothing_is_left_for_later(tmp_path: Path):
    asked = 0

    async def wants_no_more(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked > 50:  # whoever never lets go ends here
            return web.Response(status=410)
        if request.method == "HEAD":
            return web.Response(status=204, headers={"Link": f'<{request.path}>; rel="{pusher.RECEIPTS_RELATION}"'})
        return web.Response(status=204, headers={pusher.OFFSET: str(len(CONTENT))})

    app = web.Application()
    app.router.add_route("*", "/there", wants_no_more)
    async with stand(tmp_path, CONTENT) as at, serving(app) as port:
        with pytest.raises(PeerFailed, match="takes no more data and signs for none"):
            await at.pusher.push(TRANSFER, Address(f"http://127.0.0.1:{port}/there", "sink-token", None, None, None))
        assert asked <= 6


async def test_a_provider_that_forgot_that_it_was_all_is_told_so_and_sends_nothing_twice(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        await both(at)
        before = await at.accounts()

        def nothing(*_: Any) -> AsyncIterator[bytes]:
            raise AssertionError("it was all there")

        with patched(pusher, pieces=nothing):
            await at.push()
        assert await at.accounts() == before


async def test_a_place_that_we_do_not_dial_gets_nothing(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        with pytest.raises(EgressDenied):
            await at.pusher.push(TRANSFER, Address("http://10.0.0.1:80/there", "t", None, None, None))


async def test_what_is_on_its_way_to_whom_a_reload_allows_no_more_is_cut_at_once_and_says_why_the_next_time(tmp_path: Path):
    async with stand(tmp_path, CONTENT, window_bytes=WINDOW, credit_windows=2) as at:
        hanging, plain = asyncio.Event(), pusher.pieces

        async def slow(*of: Any) -> AsyncIterator[bytes]:
            async for piece in plain(*of):
                yield piece[:1000]
                hanging.set()
                await asyncio.Event().wait()

        with patched(pusher, pieces=slow):
            receiving, pushing = asyncio.create_task(at.receive()), asyncio.create_task(pushed(at))
            async with asyncio.timeout(20):
                await hanging.wait()
            at.rig.peer.guard = guard([], http=True, ports=[])
            async with own_patience(1.0):
                with pytest.raises(EgressDenied, match="not at a public address"):
                    await pushing
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


async def test_a_foreign_provider_that_brings_all_at_once_is_taken_too(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at, aiohttp.ClientSession() as http:
        receiving = asyncio.create_task(at.receive())
        async with asyncio.timeout(20):
            while at.downloads.receptions.of(OURS) is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
            async with http.post(at.endpoint, data=io.BytesIO(CONTENT), headers=at.headers()) as answer:
                assert answer.status == 204
            done = await receiving
        assert (done.size_bytes, (at.root / "file").read_bytes()) == (len(CONTENT), CONTENT)
        assert await at.store.metered(OURS) is None


async def test_a_provider_that_ends_its_half_of_a_connection_within_a_body_is_waited_for(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at, aiohttp.ClientSession() as http:
        receiving = asyncio.create_task(at.receive())
        async with asyncio.timeout(20):
            while at.downloads.receptions.of(OURS) is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
            parts = urlsplit(at.endpoint)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            head = {"Host": parts.netloc, "Content-Length": str(len(CONTENT))} | at.headers()
            writer.write(
                f"PUT {parts.path} HTTP/1.1\r\n".encode() + b"".join(f"{name}: {value}\r\n".encode() for name, value in head.items())
            )
            writer.write(b"\r\n" + CONTENT[: len(CONTENT) // 2])
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 502 ")
            writer.close()
            status = 503  # the order waits a moment before it takes any again
            while status == 503:
                async with http.post(at.endpoint, data=io.BytesIO(CONTENT), headers=at.headers()) as answer:
                    status = answer.status
            assert status == 204
            done = await receiving
        assert (done.size_bytes, (at.root / "file").read_bytes()) == (len(CONTENT), CONTENT)
