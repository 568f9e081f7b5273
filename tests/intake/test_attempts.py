"""Downloads from providers that lie, change their mind, fall silent or never end: a clear failure, and no file under that name."""

import asyncio
import hashlib
import os
import resource
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.egress import guard
from connector.adapters.file_sink import FileSinks
from connector.adapters.peer_http import HttpPeer
from connector.errors import Contradiction, PeerFailed, SinkFailed
from connector.intake import patience as module
from connector.intake import room
from connector.intake.download import Downloads
from connector.intake_files.finishing import ONLY_SIZE
from connector.records import Edr, Pull
from connector.values import replace
from tests.contracts.memory_sinks import MemorySinks
from tests.dataplane.rig import CONSUMER, TRANSFER, FakeIdentity, ShiftedClock, Watcher, pull


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other sooner than in the field."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.1)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# --- the disk


@pytest.mark.asyncio
async def test_without_space_for_what_is_announced_nothing_is_fetched(tmp_path: Path):
    async with lying(tmp_path, head({"Content-Length": str(10**17), "ETag": '"e"'}, b"abc")) as liar:
        with pytest.raises(SinkFailed, match="no space"):
            await liar.fetch()
        assert liar.left() == [], "a part without a byte is of no use to anybody"


@pytest.mark.asyncio
async def test_what_nobody_signs_for_goes_on_once_there_is_room_again(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    rest, sinks = head(GOOD_REST, DATA[10:], "206 Partial Content"), MemorySinks()
    async with lying(tmp_path, CUT, rest, rest, patience=30) as liar:
        liar.downloads._sinks = sinks

        def fills(order: Pull) -> None:
            if any("goes on once there is room" in each for each in order.reasons):
                sinks.space_bytes = 1 << 31
            elif order.received_bytes and sinks.space_bytes == 1 << 30:
                sinks.space_bytes = 12

        liar.watcher.on_report = fills
        await liar.fetch()
        assert (sinks.files[str(liar.out)], len(liar.heads)) == (DATA, 3)


# --- providers that lie

Script = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Liar:
    """A provider whose every byte is a test's. `heads` keeps what it was asked."""

    url: str
    out: Path
    downloads: Downloads
    heads: list[str]
    watcher: Watcher = field(default_factory=Watcher)

    async def fetch(self, order: Pull | None = None) -> Pull:
        address = {"@type": "DataAddress", "endpointType": "x", "endpoint": f"{self.url}/data"}
        return await self.downloads.fetch(
            order or pull(self.out), Edr(TRANSFER, address, None, None, None, None, 0.0), **self.watcher.calls
        )

    def left(self) -> list[str]:
        return sorted(os.listdir(self.out.parent))


@asynccontextmanager
async def lying(root: Path, *scripts: Script, patience: float = 0.1, idle: float = 5.0) -> AsyncIterator[Liar]:
    """Each connection is answered by the next script, the last one again and again."""
    heads: list[str] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await scripts[min(len(heads), len(scripts)) - 1](heads[-1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
    (root / "lied").mkdir()
    downloads = Downloads(
        peer, FakeIdentity(CONSUMER), FileSinks([root / "lied"]), ShiftedClock(), idle_seconds=idle, patience_seconds=patience
    )
    try:
        yield Liar(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", root / "lied" / "file", downloads, heads)
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await peer.close()


def head(headers: Mapping[str, str], body: bytes = b"", status: str = "200 OK") -> Script:
    async def answer(_request: str, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)

    return answer


def repr_digest(content: bytes) -> str:
    return f"sha-256=:{b64encode(digest(content)).decode()}:"


DATA = b"the data as it should be"
LENGTH = {"Content-Length": str(len(DATA))}
CUT = head({"Content-Length": "24", "ETag": '"e"', "Repr-Digest": repr_digest(DATA)}, DATA[:10])
GOOD_REST = {"Content-Range": "bytes 10-23/24", "Content-Length": "14", "ETag": '"e"'}
# What it sends -> what is said about it. Nothing may stand under the file's name afterwards.
LIES: dict[str, tuple[tuple[Script, ...], str]] = {
    "another digest": ((head(LENGTH | {"Repr-Digest": repr_digest(b"other")}, DATA),), "the data has SHA-256 .* the provider stated"),
    "too few bytes": ((head({"Content-Length": "100"}, DATA),), "closed the connection in the middle|cannot be continued"),
    "no word of where it ends": ((head({"ETag": '"e"'}, DATA[:10]),), "nobody could tell the end from a cut"),
    "no bytes": ((head({"Content-Length": "100"}),), "closed the connection in the middle|cannot be continued"),
    "a content encoding": ((head(LENGTH | {"Content-Encoding": "gzip"}, DATA),), "content encoding that was not asked for"),
    "a part nobody asked for": ((head(GOOD_REST, DATA[10:], "206 Partial Content"),), "a part that was not asked for"),
    "another part": (
        (CUT, head(GOOD_REST | {"Content-Range": "bytes 9-22/24"}, DATA[9:23], "206 Partial Content")),
        "asked for were those",
    ),
    "a part without its place": (
        (CUT, head({"Content-Length": "14", "ETag": '"e"'}, DATA[10:], "206 Partial Content")),
        "did not say which",
    ),
    "a part that is shorter than it says": (
        (CUT, head(GOOD_REST | {"Content-Length": "4"}, DATA[10:14], "206 Partial Content")),
        "bytes 10 to 23, asked for were those from 14",
    ),
    "a rest with another digest": (
        (CUT, head(GOOD_REST | {"Repr-Digest": repr_digest(b"other")}, DATA[10:], "206 Partial Content")),
        "the data has SHA-256",
    ),
    "other bytes as the rest": ((CUT, head(GOOD_REST, b"x" * 14, "206 Partial Content")), "the data has SHA-256"),
    "no HTTP": ((head({}, status="\x00"),), "did not answer with HTTP"),
    "a redirect": ((head({"Location": "/elsewhere", "Content-Length": "0"}, status="302 Found"),), "status 302"),
    "an answer without content": ((head({}, status="204 No Content"),), "status 204"),
    "a page of a proxy": ((head({"Content-Length": "2"}, b"no", "503 Service Unavailable"),), "status 503"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.asyncio
async def test_a_provider_that_lies_fails_clearly_and_leaves_no_file(lie: str, tmp_path: Path, quick: None):
    scripts, said = LIES[lie]
    async with lying(tmp_path, *scripts) as liar:
        with pytest.raises((PeerFailed, Contradiction), match=said):
            async with asyncio.timeout(10):
                await liar.fetch()
        assert "file" not in liar.left()
        if "SHA-256" in said:
            assert liar.left() == []


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_meant_is_believed_long_before_patience_ends(tmp_path: Path, quick: None):
    async with lying(tmp_path, CUT, head(LENGTH | {"Content-Encoding": "br"}, DATA), patience=900) as liar:
        async with asyncio.timeout(10):
            with pytest.raises(PeerFailed, match="content encoding"):
                await liar.fetch()
        assert liar.left() == ["file.urn-pull.part"]  # for another day, or another way


@pytest.mark.asyncio
async def test_a_continuation_of_other_data_begins_again_and_gives_up_in_the_end(tmp_path: Path, quick: None):
    async with lying(tmp_path, CUT, head(GOOD_REST | {"ETag": '"other"'}, DATA[10:], "206 Partial Content"), head(LENGTH, DATA)) as liar:
        done = await liar.fetch()
        assert (liar.out.read_bytes(), len(liar.heads)) == (DATA, 3)
        assert "provider stated no SHA-256" in done.reasons[0]
    flickering = [head({"Content-Length": "24", "ETag": f'"{n}"'}, DATA[:10]) for n in range(20)]
    (tmp_path / "2").mkdir()
    async with lying(tmp_path / "2", *flickering, patience=20) as liar:
        with pytest.raises(Contradiction, match="had to start again 5 times"):
            await liar.fetch()
        assert not liar.out.exists()


@pytest.mark.asyncio
async def test_a_provider_without_ranges_gets_a_cut_download_done_from_the_start(tmp_path: Path):
    async with lying(tmp_path, CUT, head(LENGTH | {"ETag": '"e"', "Repr-Digest": repr_digest(DATA)}, DATA)) as liar:
        await liar.fetch()
        assert liar.out.read_bytes() == DATA
        assert "Range: bytes=10-" in liar.heads[1]


@pytest.mark.asyncio
async def test_a_stated_digest_says_where_an_answer_ends_that_has_no_length(tmp_path: Path):
    async with lying(tmp_path, head({"Repr-Digest": repr_digest(DATA)}, DATA)) as liar:
        assert (await liar.fetch()).size_bytes == len(DATA)
        assert liar.out.read_bytes() == DATA


@pytest.mark.asyncio
async def test_without_a_strong_tag_nothing_is_continued(tmp_path: Path):
    weak = {"Content-Length": "24", "ETag": 'W/"e"'}
    async with lying(tmp_path, head(weak, DATA[:10]), head(weak, DATA)) as liar:
        done = await liar.fetch()
        assert "Range:" not in liar.heads[1]
        assert (liar.out.read_bytes(), done.validator) == (DATA, None)


@pytest.mark.asyncio
async def test_without_a_stated_digest_ours_is_kept_before_the_file_has_its_name(tmp_path: Path):
    """After a crash in between nothing else would prove that the file of that name is the one that came."""
    async with lying(tmp_path, head(LENGTH, DATA)) as liar:
        liar.watcher.on_report = lambda at: named.append((at.sha256, at.stated, liar.out.exists()))
        named: list[tuple[bytes | None, bool, bool]] = []
        done = await liar.fetch()
        assert named[-1] == (digest(DATA), False, False)
        assert (done.sha256, done.stated, done.reasons) == (digest(DATA), False, (ONLY_SIZE,))
        again = await liar.fetch(replace(liar.watcher.reports[-1], reasons=()))
        assert (again.sha256, again.reasons, len(liar.heads)) == (digest(DATA), (ONLY_SIZE,), 1)


@pytest.mark.asyncio
async def test_a_digest_of_our_own_is_not_held_against_other_data(tmp_path: Path):
    """The data has changed between the crash and the next start, and its provider states a digest neither time."""
    other = b"the data as it has become"[: len(DATA)]
    async with lying(tmp_path, head(LENGTH, other)) as liar:
        done = await liar.fetch(pull(liar.out, sha256=digest(DATA), stated=False, size_bytes=len(DATA)))
        assert (liar.out.read_bytes(), done.sha256, done.stated) == (other, digest(other), False)


@pytest.mark.asyncio
async def test_a_body_of_chunks_is_taken_and_one_that_breaks_off_is_not(tmp_path: Path):
    chunked = {"Transfer-Encoding": "chunked", "Repr-Digest": repr_digest(DATA)}
    whole = f"{len(DATA):x}\r\n".encode() + DATA + b"\r\n"
    async with lying(tmp_path, head(chunked, whole), head(chunked, whole + b"0\r\n\r\n")) as liar:
        await liar.fetch()
        assert (liar.out.read_bytes(), len(liar.heads)) == (DATA, 2)


@pytest.mark.parametrize("when", ["before its head", "in the middle"])
@pytest.mark.asyncio
async def test_a_provider_that_falls_silent_is_given_up(when: str, tmp_path: Path):
    async def silent(_request: str, writer: asyncio.StreamWriter) -> None:
        if when == "in the middle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\nthe")
        await asyncio.Event().wait()

    async with lying(tmp_path, silent, idle=0.1, patience=0.2) as liar:
        async with asyncio.timeout(10):
            with pytest.raises(PeerFailed, match=r"nothing came for 0\.2 s"):
                await liar.fetch()
        assert not liar.out.exists()


def endless(headers: Mapping[str, str], chunk: bytes, status: str = "200 OK") -> Script:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        await head(headers, status=status)(request, writer)
        while True:
            writer.write(chunk)
            await writer.drain()

    return answer


CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"


@pytest.mark.asyncio
async def test_an_endless_body_ends_where_it_said_it_would(tmp_path: Path):
    zeros = bytes(1_000_000)
    async with lying(tmp_path, endless({"Content-Length": "1000000", "Repr-Digest": repr_digest(zeros)}, bytes(65536))) as liar:
        async with asyncio.timeout(10):
            await liar.fetch()
        assert liar.out.read_bytes() == zeros


@pytest.mark.asyncio
async def test_an_endless_rest_of_a_known_size_is_cut_off_and_given_up(tmp_path: Path, quick: None):
    rest = endless({"Transfer-Encoding": "chunked", "ETag": '"e"', "Content-Range": "bytes 10-23/24"}, CHUNK, "206 Partial Content")
    async with lying(tmp_path, *[CUT, rest] * 10, patience=30) as liar:
        async with asyncio.timeout(10):
            with pytest.raises(Contradiction, match="the provider sent more than it had announced"):
                await liar.fetch()
        assert "file" not in liar.left()
        assert liar.out.with_name("file.urn-pull.part").stat().st_size <= len(DATA)


@pytest.mark.asyncio
async def test_an_endless_body_of_unknown_size_ends_with_the_space_for_it(tmp_path: Path):
    async with lying(tmp_path, endless({"Transfer-Encoding": "chunked"}, CHUNK)) as liar:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, before[1]))  # no file of this process may be larger
        try:
            async with asyncio.timeout(10):
                with pytest.raises(SinkFailed, match="cannot be written"):
                    await liar.fetch()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "file" not in liar.left()
