"""The way out of the data listener: what the kernel sends is what the file holds, to the byte, or the connection says otherwise."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from connector.api import outlet
from connector.api.outlet import INFO, PROBES, HttpOutlet, attended, is_silent
from connector.dataplane.stream import FILE_PIECE_BYTES
from connector.errors import SourceFailed
from tests.dataplane.rig import serving, some_bytes
from tests.severed import sever

CONTENT = some_bytes(300_000)


async def through(send: Callable[[HttpOutlet, web.Request], Awaitable[None]], length: int) -> bytes:
    """What a client gets of an answer whose body `send` writes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await send(HttpOutlet(request, response), request)
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with serving(app) as port, aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as answer:
        return await answer.read()


@pytest.mark.asyncio
async def test_who_waits_for_what_may_never_come_hears_that_his_client_is_gone_and_the_kernel_asks_where_nothing_says_so():
    begun, gone, over, told = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[int]()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with attended(request, gone.set):
            assert request.transport is not None
            sock = request.transport.get_extra_info("socket")
            told.extend(sock.getsockopt(socket.IPPROTO_TCP, option) for option, _ in PROBES)
            told.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            begun.set()
            await gone.wait()
        with attended(request, told.clear):
            pass
        over.set()
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with asyncio.timeout(5), serving(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        assert told == [30, 10, 3, 1]
        writer.transport.abort()
        await gone.wait()
        await over.wait()
    assert told == [], "also who has left before"


@pytest.mark.parametrize(
    ("repeated", "probed", "silent_ms", "silent"),
    [
        (8, 0, 60_000, True),  # a network that was cut while something was on its way
        (0, 3, 60_000, True),  # and while the reader had paused, with a full window
        (9, 0, 59_999, False),  # not for long enough
        (0, 0, 600_000, False),  # nothing was asked: the probes for who says nothing are the kernel's
        (0, 1, 119_000, False),  # a window that is full is probed every two minutes in the end, and one answer may be lost
    ],
)
def test_who_answers_nothing_for_a_minute_is_gone_and_who_pauses_is_not(repeated: int, probed: int, silent_ms: int, silent: bool):
    assert is_silent(INFO.pack(repeated, probed, silent_ms)) is silent


@pytest.mark.asyncio
async def test_a_reader_behind_a_network_that_was_cut_is_gone_though_more_was_sent_and_one_that_pauses_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in (("LOOK_SECONDS", 0.02), ("SILENT_SECONDS", 0.15), ("UNANSWERED", 1)):
        monkeypatch.setattr(f"connector.api.outlet.{name}", value)
    begun, looked, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    look = outlet._Watch._look

    def looking(watch: outlet._Watch) -> None:
        look(watch)
        looked.set()

    monkeypatch.setattr(outlet._Watch, "_look", looking)

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with attended(request, gone.set):
            begun.set()
            while not gone.is_set():  # a source that trickles
                await response.write(b".")
                looked.clear()
                await looked.wait()
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with asyncio.timeout(10), serving(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            for _ in range(20):  # looks at one who reads nothing: longer than a silence may be
                looked.clear()
                await looked.wait()
            assert not gone.is_set()
            sever(reader)
            await gone.wait()


@pytest.mark.asyncio
async def test_a_part_of_a_file_and_a_piece_of_ours_arrive_in_order(tmp_path: Path):
    path = tmp_path / "data"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)

    async def send(outlet: HttpOutlet, _request: web.Request) -> None:
        assert outlet.sends_files
        await outlet.send_file(descriptor, 1_000, 200_000)
        await outlet.write(b"the end")

    try:
        assert await through(send, 200_007) == CONTENT[1_000:201_000] + b"the end"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("seconds", "most"), [(60.0, 4 * FILE_PIECE_BYTES), (0.0, FILE_PIECE_BYTES)])
@pytest.mark.asyncio
async def test_a_reader_that_is_fast_gets_more_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int):
    monkeypatch.setattr("connector.api.outlet.FAST_SECONDS", seconds)
    path, seen = tmp_path / "data", list[int]()
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)

    async def send(outlet: HttpOutlet, _request: web.Request) -> None:
        seen.append(outlet.window_bytes)
        await outlet.send_file(descriptor, 0, len(CONTENT))
        seen.append(outlet.window_bytes)

    try:
        assert await through(send, len(CONTENT)) == CONTENT
    finally:
        os.close(descriptor)
    assert seen == [FILE_PIECE_BYTES, most]


@pytest.mark.asyncio
async def test_nothing_is_sent_over_a_connection_that_is_being_closed(tmp_path: Path):
    path = tmp_path / "data"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)

    async def send(outlet: HttpOutlet, request: web.Request) -> None:
        await outlet.write(CONTENT[:3])
        assert request.transport is not None
        request.transport.close()
        with pytest.raises(ConnectionResetError, match="the client is gone"):
            await outlet.send_file(descriptor, 3, 10)

    try:
        assert await through(send, 3) == CONTENT[:3]
    finally:
        os.close(descriptor)


@pytest.mark.asyncio
async def test_what_the_kernel_cannot_send_is_read_and_written():
    async def send(outlet: HttpOutlet, _request: web.Request) -> None:
        reading, writing = os.pipe()  # no file: `sendfile` has nothing for it, and neither has `pread`
        os.close(writing)
        try:
            with pytest.raises(SourceFailed, match="Illegal seek"):
                await outlet.send_file(reading, 0, 3)
        finally:
            os.close(reading)
        await outlet.write(b"abc")

    assert await through(send, 3) == b"abc"


@pytest.mark.asyncio
async def test_a_disk_that_fails_in_the_middle_is_no_defect_and_not_the_clients_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, sent = tmp_path / "data", os.sendfile
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)

    def fails(out: int, source: int, offset: int, count: int) -> int:
        if offset:
            raise OSError(errno.EIO, "Input/output error")
        return sent(out, source, offset, min(count, 1_000))

    async def send(outlet: HttpOutlet, _request: web.Request) -> None:
        with monkeypatch.context() as disk:
            disk.setattr(os, "sendfile", fails)
            with pytest.raises(SourceFailed, match="cannot be read: Input/output error"):
                await outlet.send_file(descriptor, 0, 20_000)
        await outlet.write(CONTENT[1_000:20_000])

    try:
        assert await through(send, 20_000) == CONTENT[:20_000]
    finally:
        os.close(descriptor)


@pytest.mark.asyncio
async def test_a_file_that_is_shorter_than_promised_is_a_failure_of_the_source(tmp_path: Path):
    path = tmp_path / "data"
    path.write_bytes(CONTENT[:10])
    descriptor = os.open(path, os.O_RDONLY)

    async def send(outlet: HttpOutlet, _request: web.Request) -> None:
        with pytest.raises(SourceFailed, match="publish it again"):
            await outlet.send_file(descriptor, 0, 20)
        await outlet.write(CONTENT[10:20])

    try:
        assert await through(send, 20) == CONTENT[:20]
    finally:
        os.close(descriptor)


@pytest.mark.asyncio
async def test_segments_are_full_while_corked_and_go_out_at_the_end():
    seen: list[int] = []

    async def send(outlet: HttpOutlet, request: web.Request) -> None:
        transport = request.transport
        assert transport is not None
        corked = transport.get_extra_info("socket")
        with outlet.corked(transport):
            seen.append(corked.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
            await outlet.write(b"abc")
            outlet.push()
            seen.append(corked.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
        outlet.push()
        seen.append(corked.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))

    assert await through(send, 3) == b"abc"
    assert seen == [1, 1, 0]
