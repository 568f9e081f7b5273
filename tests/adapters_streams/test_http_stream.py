"""Lines and events over HTTP, from a source in a process of its own and from servers that say what a test wants."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.egress import guard
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams import events, http_stream
from connector.adapters_streams.events import Events
from connector.adapters_streams.http_stream import HttpStreams, Lines
from connector.errors import InvalidRequest, SourceFailed
from tests.contracts.live_source_contract import LiveSourceContract, Spring
from tests.dataplane.rig import serving
from tests.dataplane_live import upstream
from tests.faults.patience import own_patience

SINCE = {"parameter": "since", "member": "n"}


def peer() -> HttpPeer:
    return HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))


@asynccontextmanager
async def answering(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[tuple[str, HttpStreams]]:
    """A server that answers so, and sources that may dial it."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app, dialling = web.Application(), peer()
    app.router.add_route("*", "/{path:.*}", handle)
    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}", HttpStreams(dialling, {"upstream": "Bearer secret"}.get)
    await dialling.close()


class HttpSpring(Spring):
    def __init__(self, url: str, path: str, resumable: bool, stop: asyncio.Event, stopped: asyncio.Event) -> None:
        self.url, self.path, self.resumable, self.stop, self.stopped = url, path, resumable, stop, stopped
        self.peer = peer()
        self.sources = HttpStreams(self.peer, {}.get)

    def address(self, **members: Any) -> Mapping[str, Any]:
        since = {"since": SINCE} if self.path == "/lines" and self.resumable else {}
        return {"type": "http-stream", "url": self.url + self.path} | since | members

    def ending(self, count: int, *, breaks: bool) -> Mapping[str, Any]:
        return self.address(url=f"{self.url}{self.path}?count={count}{'&breaks=1' if breaks else ''}")

    async def remove(self) -> None:
        self.stop.set()
        await self.stopped.wait()

    def numbers(self, data: bytes) -> list[int]:
        if self.path == "/lines":
            return [json.loads(line)["n"] for line in data.splitlines()]
        return [int(number) for number in re.findall(rb"id: (\d+)", data)]


@pytest_asyncio.fixture(params=["lines", "lines without a way to go on", "events"])
async def spring(request: pytest.FixtureRequest) -> AsyncIterator[HttpSpring]:
    stop, stopped, begun = asyncio.Event(), asyncio.Event(), asyncio.Queue[str]()
    removed = request.node.originalname == LiveSourceContract.test_what_is_not_there_cannot_be_published_or_followed.__name__

    async def run() -> None:
        async with upstream.alone() if removed else upstream.running() as url:
            begun.put_nowait(url)
            await stop.wait()
        stopped.set()

    running = asyncio.create_task(run())
    path = "/events" if request.param == "events" else "/lines"
    found = HttpSpring(await begun.get(), path, "without" not in request.param, stop, stopped)
    yield found
    stop.set()
    await running
    await found.peer.close()


class TestContract(LiveSourceContract):
    pass


@given(st.lists(st.sampled_from([b'{"n":1}', b'{"n":"x"}', b"", b"\r"]), max_size=12), st.integers(1, 20))
def test_lines_come_out_whole_and_none_is_empty(lines: list[bytes], step: int):
    sent = b"".join(line + b"\n" for line in lines) + b'{"n":'
    cutter = Lines(None, None)
    found = b"".join(cutter.take(sent[at : at + step]) for at in range(0, len(sent), step))
    assert found == b"".join(line + b"\n" for line in lines if line.strip(b"\r"))


@pytest.mark.parametrize(
    "line",
    [
        *(b"no json", b"[]", b'{"m":1}', b'{"n":true}', b'{"n":null}', b'{"n":[1]}', b'{"n":"' + b"x" * 3000 + b'"}'),
        *(b'{"n":' + b"1" * 3000 + b"}", b'{"n":1-2}', b'{"n":01}', b'{"n":NaN}', b'{"n":1', b'{"n":"\xff"}'),
        b'{"m":' + b"[" * 100_000 + b"]" * 100_000 + b',"n":1}',
    ],
    ids=range(14),
)
def test_a_line_by_which_nothing_can_go_on_is_a_fault_of_the_source(line: bytes):
    with pytest.raises(SourceFailed, match="`n`, by which"):
        Lines("n", None).take(line + b"\n")


@pytest.mark.parametrize(
    ("value", "position"),
    [
        (b"1732700000.123456789", "1732700000.123456789"),  # more digits than a float has
        (b"340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),  # and than 64 bits
        (b"-1.50E+3", "-1.50E+3"),
        (b'"\\u00e4 \\"b\\""', 'ä "b"'),
        (b"0", "0"),
    ],
)
def test_a_place_to_go_on_from_is_the_very_value_as_another_would_have_records_come_again(value: bytes, position: str):
    lines = Lines("n", None)
    lines.take(b'{"a":{"n":7},"n":' + value + b',"z":[]}\n')
    assert lines.position == position


def test_a_source_that_sends_the_line_again_that_it_was_asked_to_go_on_behind_is_not_billed_for_it_each_time():
    lines = Lines("n", "7")
    with pytest.raises(SourceFailed, match="let it send what follows"):
        lines.take(b'{"n":7}\n{"n":8}\n')
    lines = Lines("n", "7")
    assert lines.take(b'{"n":8}\n') + lines.take(b'{"n":7}\n') == b'{"n":8}\n{"n":7}\n', "what comes later may have any value"
    assert Lines(None, None).take(b'{"n":7}\n') == b'{"n":7}\n'


@pytest.mark.parametrize("cutter", [Lines(None, None), Events(None)], ids=["line", "event"])
def test_a_record_without_an_end_is_not_kept_for_ever(cutter: http_stream.Cutter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "RECORD_BYTES_MAX", 10_000)
    assert cutter.take(b"data:" + b"x" * 9_000) == b""
    with pytest.raises(SourceFailed, match="more than 10000 bytes"):
        cutter.take(b"x" * 2_000)


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"url": ""}, "visible ASCII", "/source/url"),
    ({"url": 5}, "visible ASCII", "/source/url"),
    ({"url": "http://127.0.0.1/a b"}, "visible ASCII", "/source/url"),
    ({"url": "ftp://127.0.0.1/"}, "cannot be used", "/source/url"),
    ({"url": "http://u:p@127.0.0.1/"}, "cannot be used", "/source/url"),
    ({"credential": "none"}, "section `credentials`", "/source/credential"),
    ({"since": "n"}, "`parameter` of the query", "/source/since"),
    ({"since": {"parameter": "since"}}, "`parameter` of the query", "/source/since"),
    ({"since": {"parameter": "", "member": "n"}}, "`parameter` of the query", "/source/since"),
    ({"since": SINCE | {"more": "x"}}, "`parameter` of the query", "/source/since"),
    ({"media_type": "text/csv"}, "no media type of records", "/source/media_type"),
    ({"media_type": "text/event-stream", "since": SINCE}, "followed by their ids", "/source/since"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("changed", "text", "pointer"), MISTAKES, ids=lambda value: str(value)[:40])
async def test_a_mistake_in_an_address_is_named_where_it_is(changed: dict[str, Any], text: str, pointer: str):
    async with answering(lambda _: web.Response(body=b"{}\n", content_type="application/x-ndjson")) as (url, sources):
        with pytest.raises(InvalidRequest, match=text) as caught:
            await sources.index({"type": "http-stream", "url": url} | changed)
        assert caught.value.pointer == pointer


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (web.Response(status=404), "status 404 instead of 200"),
        (web.Response(status=302, headers={"Location": "/x"}), "status 302"),
        (web.Response(body=b"x", headers={"Content-Encoding": "gzip", "Content-Type": "application/x-ndjson"}), "a content encoding that"),
    ],
)
async def test_an_upstream_that_does_not_stream_is_told_as_it_is(answer: web.Response, text: str):
    async with answering(lambda _: answer) as (url, sources):
        with pytest.raises(SourceFailed, match=text):
            await sources.index({"type": "http-stream", "url": url})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "more", "came"),
    [
        (b'{"n":1}\n{"n":2}', {}, b'{"n":1}\n{"n":2}\n'),
        (b'{"n":1}\n\r\n', {}, b'{"n":1}\n'),
        (b'{"n":1}\n{"n":2}', {"since": SINCE}, b'{"n":1}\n'),  # it comes again
    ],
)
async def test_a_last_line_is_ended_by_the_end_where_nothing_else_will(sent: bytes, more: dict[str, Any], came: bytes):
    async with answering(lambda _: web.Response(body=sent, content_type="application/x-ndjson")) as (url, sources):
        address, _ = await sources.index({"type": "http-stream", "url": url} | more)
        assert (await _all(sources, address))[0] == came


@pytest.mark.asyncio
async def test_lines_that_cannot_be_followed_any_more_from_where_they_were_are_not_asked_for_from_their_start():
    asked: list[str] = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.query_string)
        return web.Response(body=b'{"n":1}\n', content_type="application/x-ndjson")

    async with answering(answer) as (url, sources):
        with pytest.raises(SourceFailed, match="has no `since` any more"):
            await _all(sources, {"type": "http-stream", "url": url, "media_type": "application/x-ndjson"}, "1")
    assert asked == []


@pytest.mark.asyncio
async def test_a_last_event_whose_lines_end_with_carriage_returns_is_not_lost_and_one_that_is_cut_is_none():
    for end, came in ((b"\r\r", b"data: a\n\ndata: b\n\n"), (b"\r", b"data: a\n\n"), (b"", b"data: a\n\n")):
        sent = b"data: a\r\rdata: b" + end
        async with answering(lambda _, sent=sent: web.Response(body=sent, content_type="text/event-stream")) as (url, sources):
            address, _ = await sources.index({"type": "http-stream", "url": url})
            assert (await _all(sources, address))[0] == came


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("head", "body", "says"),
    [
        ("application/x-ndjson", b'{"n":1}\n', "had not said where its answer ends"),
        ("application/x-ndjson\r\nContent-Length: 20", b'{"n":1}\n', "in the middle of its answer"),
        ("application/x-ndjson\r\nTransfer-Encoding: chunked", b'8\r\n{"n":1}\n\r\n', "in the middle of its answer"),
        ("text/event-stream\r\nContent-Length: 4", b":-)\n", "before its first event"),
    ],
)
async def test_what_breaks_off_or_may_have_is_no_end(head: str, body: bytes, says: str):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: " + head.encode() + b"\r\n\r\n" + body)
        writer.close()

    dialling, server = peer(), await asyncio.start_server(handle, "127.0.0.1", 0)
    sources = HttpStreams(dialling, {}.get)
    address, _ = await sources.index({"type": "http-stream", "url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"})
    with pytest.raises(SourceFailed, match=says):
        await _all(sources, address)
    await dialling.close()
    server.close()


@pytest.mark.asyncio
async def test_a_page_that_an_upstream_shows_instead_of_its_data_is_no_record_though_it_has_lines():
    page = web.Response(text="<html>\nplease log in\n</html>\n", content_type="text/html")
    lines = web.Response(body=b"{}\n", headers={"Content-Type": "Application/X-NDJSON; charset=utf-8"})
    answers = iter((web.Response(body=b"{}\n", content_type="application/x-ndjson"), page, lines))
    async with answering(lambda _: next(answers)) as (url, sources):
        kept, _ = await sources.index({"type": "http-stream", "url": url})
        assert kept["answers"] == "application/x-ndjson"
        with pytest.raises(SourceFailed, match="answers with `text/html`, and when it was published it was `application/x-ndjson`"):
            await _all(sources, kept)
        assert await _all(sources, kept) == (b"{}\n", None)


@pytest.mark.asyncio
async def test_a_transfer_coding_that_nobody_asked_for_is_no_data():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        )
        writer.close()

    dialling, server = peer(), await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(SourceFailed, match="a transfer encoding that was not asked for"):
        await HttpStreams(dialling, {}.get).index({"type": "http-stream", "url": url})
    await dialling.close()
    server.close()


@pytest.mark.asyncio
async def test_over_tls_the_same_records_come(tmp_path: Path):
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    lines = b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"y" * 3000) for n in range(2000))

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=lines, content_type="application/x-ndjson")

    app = web.Application()
    app.router.add_get("/", handle)
    dialling = HttpPeer(guard(["127.0.0.0/8"], http=False, ports=[]), ca_file=ca_file)
    async with serving(app, tls) as port:
        sources = HttpStreams(dialling, {}.get)
        address, _ = await sources.index({"type": "http-stream", "url": f"https://127.0.0.1:{port}/", "since": SINCE})
        assert await _all(sources, address) == (lines, "1999")
        await dialling.close()


@pytest.mark.asyncio
async def test_a_source_that_may_be_dialled_no_more_is_left_at_once():
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b'{"n":1}\n')
        await asyncio.Event().wait()
        return response

    app, dialling = web.Application(), peer()
    app.router.add_get("/", handle)
    async with serving(app) as port:
        sources = HttpStreams(dialling, {}.get)
        address, _ = await sources.index({"type": "http-stream", "url": f"http://127.0.0.1:{port}/"})
        async with aclosing((await sources.open(address)).follow(None)) as coming:
            assert (await anext(coming)).data == b'{"n":1}\n'
            dialling.guard = guard([], http=True, ports=[])
            async with own_patience(1):
                with pytest.raises(SourceFailed, match="closed the connection"):
                    await anext(coming)
        with pytest.raises(SourceFailed, match="not at a public address"):
            await sources.open(address)
        await dialling.close()


@pytest.mark.asyncio
async def test_the_credential_is_sent_and_never_told():
    seen: list[str | None] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=b'{"n":1}\n', content_type="application/x-ndjson")

    async with answering(answer) as (url, sources):
        address, _ = await sources.index({"type": "http-stream", "url": url, "credential": "upstream", "since": SINCE})
        found, _ = await _all(sources, address)
        assert (found, seen) == (b'{"n":1}\n', ["Bearer secret"] * 2)
        assert "secret" not in json.dumps(address)


@pytest.mark.asyncio
async def test_a_position_is_sent_as_the_source_wants_it_beside_what_the_url_has():
    seen: list[tuple[str, str | None]] = []

    def answer(request: web.Request) -> web.Response:
        seen.append((request.rel_url.raw_query_string, request.headers.get("Last-Event-ID")))
        kind = "text/event-stream" if request.path == "/events" else "application/x-ndjson"
        return web.Response(body=b"", content_type=kind)

    async with answering(answer) as (url, sources):
        for path, more in (("/lines?a=b", {"since": SINCE}), ("/events", {})):
            address, _ = await sources.index({"type": "http-stream", "url": url + path} | more)
            await _all(sources, address, "x y&z")
    assert seen == [("a=b", None), ("a=b&since=x+y%26z", None), ("", None), ("", "x y&z")]


async def _all(sources: HttpStreams, address: Mapping[str, Any], position: str | None = None) -> tuple[bytes, str | None]:
    source = await sources.open(address)
    data = b""
    async for batch in source.follow(position):
        data, position = data + batch.data, batch.position
    return data, position
