"""HTTP resources as sources: the contract, upstreams that lie, and what never leaves: credentials and addresses."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from connector import telemetry
from connector.adapters.egress import guard
from connector.adapters.http_source import PIECE_BYTES, HttpSources, batches
from connector.adapters.peer_http import HttpPeer
from connector.errors import InvalidRequest, SourceFailed
from tests.adapters.upstream import Upstream, chunked, response, serving
from tests.contracts.source_contract import CONTENT, SMALL, Place, SourceContract, opened, read
from tests.pair import OPEN, pair, quoted

SECRET = "Bearer the-upstream-secret-0123456789"


class Impatient:
    """The real client, with patience for a test."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer
        self.check = peer.check

    def stream(self, method: str, url: str, *, headers: Mapping[str, str], idle_seconds: float = 30.0) -> Any:
        return self._peer.stream(method, url, headers=headers, idle_seconds=idle_seconds / 300)


class HttpPlace(Place):
    """A resource of one upstream, and the credentials that the settings hold."""

    def __init__(self, upstream: Upstream, port: int, peer: HttpPeer) -> None:
        self.upstream, self.url = upstream, f"http://127.0.0.1:{port}/patients.csv?sig=of-the-url"
        self.credentials = {"upstream": SECRET}
        self.sources = HttpSources(peer, self.credentials.get)
        self.hasty = HttpSources(Impatient(peer), self.credentials.get)  # type: ignore[arg-type]

    def put(self, content: bytes) -> dict[str, Any]:
        self.upstream.content = content
        self.upstream.version += 1
        return {"type": "http", "url": self.url, "credential": "upstream"}

    def remove(self) -> None:
        self.upstream.content = None


KINDS = {"etag, ranges, length": Upstream, "date only": lambda: Upstream(etags=False, ranges=False, chunks=True)}


@asynccontextmanager
async def placed(upstream: Upstream) -> AsyncIterator[HttpPlace]:
    peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
    async with serving(upstream) as port:
        try:
            yield HttpPlace(upstream, port, peer)
        finally:
            await peer.close()


@pytest_asyncio.fixture
async def place() -> AsyncIterator[HttpPlace]:
    async with placed(Upstream()) as made:
        yield made


class TestHttpSource(SourceContract):
    """The whole contract, on upstreams of each kind."""

    @pytest_asyncio.fixture(params=KINDS)
    async def place(self, request: pytest.FixtureRequest) -> AsyncIterator[HttpPlace]:
        async with placed(KINDS[request.param]()) as made:
            yield made


@pytest.mark.asyncio
async def test_the_upstream_sees_our_request_and_nothing_else(place: HttpPlace):
    place.upstream.more["Set-Cookie"] = "who=hospital"
    pin, _ = await place.publish(SMALL)
    token = telemetry.traceparent.set(f"00-{'a' * 32}-{'b' * 16}-01")
    async with opened(place, pin) as source:
        await read(source, 3, 5)
    telemetry.traceparent.reset(token)
    index, stat, part = place.upstream.requests
    own = {"": "GET /patients.csv?sig=of-the-url HTTP/1.1", "host": place.url.split("/")[2], "accept": "*/*", "accept-encoding": "identity"}
    assert index == own | {"authorization": SECRET}
    assert stat == index | {"if-match": pin["etag"], "range": "bytes=0-0"}
    assert part == index | {"if-match": pin["etag"], "range": "bytes=3-7"}


@pytest.mark.asyncio
async def test_the_address_names_the_credential_and_does_not_hold_it(place: HttpPlace):
    pin, _ = await place.publish(SMALL)
    assert pin["credential"] == "upstream"
    assert "secret" not in json.dumps(pin)
    del place.credentials["upstream"]
    with pytest.raises(SourceFailed, match="credential"):
        await place.sources.open(pin)
    for name in ("upstream", "other", "", 5, ["upstream"]):
        with pytest.raises(InvalidRequest, match="not a name in the settings' section `credentials`") as caught:
            await place.sources.index({"type": "http", "url": place.url, "credential": name})
        assert caught.value.pointer == "/source/credential"
    assert len(place.upstream.requests) == 1


@pytest.mark.asyncio
async def test_a_credential_that_is_taken_from_the_settings_ends_an_open_source(place: HttpPlace):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        place.credentials["upstream"] = "Bearer new"
        assert await read(source) == SMALL
        assert place.upstream.requests[-1]["authorization"] == "Bearer new"
        del place.credentials["upstream"]
        with pytest.raises(SourceFailed, match="look after the settings"):
            await read(source)


@pytest.mark.asyncio
async def test_a_credential_that_would_be_two_headers_is_not_sent(place: HttpPlace):
    place.credentials["upstream"] = f"{SECRET}\r\nX-Admin: yes"
    with pytest.raises(SourceFailed) as caught:
        await place.publish(SMALL)
    assert "secret" not in caught.value.message
    assert place.upstream.requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    [
        *[None, "", 5, ["http://127.0.0.1/"], "/patients.csv", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"],
        *["http://", "http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://2130706433/", "http://127.0.0.1/#part"],
        *["http://me:hunter2@127.0.0.1/", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/\0", "http://127.0.0.1/é"],
        "http://127.0.0.1/" + "x" * 3000,
    ],
    ids=lambda url: repr(url)[:40],
)
async def test_an_address_that_is_not_dialled_is_said_at_once(place: HttpPlace, url: object):
    with pytest.raises(InvalidRequest) as caught:
        await place.sources.index({"type": "http", "url": url})
    assert caught.value.pointer == "/source/url"
    assert "hunter2" not in caught.value.message
    with pytest.raises(SourceFailed):  # nor from a store, after the settings have become stricter
        await place.sources.open({"url": url, "size_bytes": 1, "sha256": "00", "etag": None, "last_modified": None, "ranges": False})
    assert place.upstream.requests == []


STATUSES = [
    *["201 Created", "204 No Content", "206 Partial Content", "300 Multiple", "301 Moved", "302 Found", "303 Other", "304 Not Modified"],
    *["307 Temporary", "308 Permanent", "401 Unauthorized", "403 Forbidden", "404 Not Found", "407 Proxy", "410 Gone", "412 Failed"],
    *["416 Range", "429 Many", "500 Error", "503 Unavailable"],
]


@pytest.mark.asyncio
async def test_another_status_is_a_failure_that_repeats_nothing_of_what_the_upstream_said(place: HttpPlace):
    """Not even an upstream that echoes the credential brings it into an error; and nobody is sent on with it."""
    pin, _ = await place.publish(SMALL)
    other = Upstream()
    async with serving(other) as elsewhere, opened(place, pin) as source:
        away = {"Location": f"http://127.0.0.1:{elsewhere}/{SECRET.split()[1]}", "WWW-Authenticate": SECRET, "X-Echo": SECRET}
        for status in STATUSES:
            body = b"" if status.startswith(("204", "304")) else SECRET.encode()
            answer = response(body, f"{status} {SECRET}", **away)
            place.upstream.lie = lambda _, answer=answer: answer  # type: ignore[misc]
            place.upstream.requests.clear()
            for attempt in (place.sources.index(pin), place.sources.open(pin), read(source), read(source, 3, 4)):
                with pytest.raises(SourceFailed) as caught:
                    await attempt
                assert "secret" not in caught.value.message
                assert "127.0.0.1" not in caught.value.message
            assert len(place.upstream.requests) == 4
    assert other.requests == []


def part(body: bytes, span: str, **headers: str) -> bytes:
    return response(body, "206 Partial Content", Content_Range=span, **headers)


LIES = {
    "another tag, the condition unread": lambda up: response(up.content, ETag='"another"'),
    "a weak tag": lambda up: response(up.content, ETag=f"W/{up.said['ETag']}"),
    "a longer body": lambda up: response(up.content + b"x", ETag=up.said["ETag"]),
    "a shorter body": lambda up: response(up.content[:-1], ETag=up.said["ETag"]),
    "a length that never comes": lambda up: response(up.content[:7], length=len(up.content), ETag=up.said["ETag"]),
    "a longer body without a length": lambda up: chunked([up.content, b"x"]),
    "a much longer body without a length": lambda up: chunked([up.content, b"x" * 3 * PIECE_BYTES]),
    "a shorter body without a length": lambda up: chunked([up.content[:-1]]),
    "a body that ends with the connection, early": lambda up: response(up.content[:-1], length=None),
    "a chunk that is cut": lambda up: chunked([up.content])[:-9],
    "a length that is no number": lambda up: response(up.content, length=None, Content_Length="many"),
    "two lengths": lambda up: response(up.content, Content_length="5"),
    "compressed": lambda up: response(up.content, Content_Encoding="gzip"),
    "compressed twice": lambda up: response(up.content, Content_Encoding="identity, br"),
    "a part from elsewhere": lambda up: part(up.content, f"bytes 1-{len(up.content)}/{len(up.content) + 1}"),
    "a part of something longer": lambda up: part(up.content, f"bytes 0-{len(up.content) - 1}/{len(up.content) + 1}"),
    "a part that does not say which": lambda up: response(up.content, "206 Partial Content"),
    "a part in another unit": lambda up: part(up.content, f"rows 0-{len(up.content) - 1}/{len(up.content)}"),
    "several parts": lambda up: response(up.content, "206 Partial Content", Content_Type="multipart/byteranges; boundary=x"),
    "a part that is short": lambda up: part(up.content[:4], f"bytes 0-3/{len(up.content)}"),
    "no HTTP": lambda up: b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": lambda up: b"",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_no_lie_about_the_resource_is_taken_for_what_was_published(place: HttpPlace, lie: Callable[[Upstream], bytes]):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        place.upstream.lie = lambda _headers: lie(place.upstream)
        with pytest.raises(SourceFailed):
            await read(source)


IN_ANY_ANSWER = [name for name in LIES if "length" not in name and "body" not in name]


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", [*IN_ANY_ANSWER, "a longer body", "a shorter body"])
async def test_nor_is_a_part_of_it(place: HttpPlace, lie: str):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        place.upstream.lie = lambda _headers: LIES[lie](place.upstream)
        with pytest.raises(SourceFailed):
            await read(source, 2, 5)


@pytest.mark.asyncio
@pytest.mark.parametrize("offset", [0, 1, 5, len(SMALL) - 1])
async def test_an_upstream_that_promises_ranges_and_ignores_them_is_read_all_the_same(place: HttpPlace, offset: int):
    place.upstream.lie = lambda _headers: response(SMALL, **place.upstream.said)
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        assert await read(source, offset, 3) == SMALL[offset : offset + 3]
        assert await read(source, offset, None) == SMALL[offset:]


@pytest.mark.asyncio
async def test_looking_at_an_upstream_without_ranges_does_not_fetch_everything(place: HttpPlace):
    place.upstream.ranges = False
    pin, _ = await place.publish(b"x" * 40_000_000)
    await (await place.sources.open(pin)).close()
    async with asyncio.timeout(20):
        await place.upstream.gone.wait()


@pytest.mark.asyncio
async def test_many_looks_are_one_request(place: HttpPlace):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        await asyncio.gather(*(source.stat() for _ in range(50)))
    assert len(place.upstream.requests) == 2


@pytest.mark.asyncio
async def test_a_slow_upstream_is_given_up(place: HttpPlace):
    pin, _ = await place.publish(SMALL)
    source = await place.hasty.open(pin)
    place.upstream.stalls = True
    for said in (b"", b"HTTP/1.1 200 OK\r\n", response(SMALL[:4], length=len(SMALL)), chunked([SMALL])[:-5]):
        place.upstream.lie = lambda _, said=said: said  # type: ignore[misc]
        async with asyncio.timeout(10):
            for attempt in (place.hasty.index(pin), read(source)):
                place.upstream.gone.clear()
                with pytest.raises(SourceFailed, match="cannot be read"):
                    await attempt
                await place.upstream.gone.wait()


@pytest.mark.asyncio
async def test_an_upstream_that_is_down_is_a_failure_without_its_address(place: HttpPlace):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin) as source:
        place.upstream.lie = lambda _headers: b""
        with pytest.raises(SourceFailed) as caught:
            await read(source)
    assert "sig=" not in caught.value.message
    async with serving(Upstream()) as port:
        free = port
    with pytest.raises(SourceFailed, match="no connection"):
        await place.sources.index({"type": "http", "url": f"http://127.0.0.1:{free}/x?sig=of-the-url"})


@pytest.mark.asyncio
async def test_what_ends_with_its_connection_is_published_if_it_comes_twice_as_a_cut_looks_like_that_too(place: HttpPlace):
    address, ends = place.put(SMALL), iter((len(SMALL) // 2, len(SMALL), len(SMALL), len(SMALL)))
    place.upstream.lie = lambda _headers: response(SMALL[: next(ends)], length=None)
    with pytest.raises(SourceFailed, match="had not said where its answer ends"):
        await place.sources.index(address)
    _, stat = await place.sources.index(address)
    assert (stat.size_bytes, next(ends, None)) == (len(SMALL), None)


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", ["a length that never comes", "a chunk that is cut", "compressed", "a part of something longer", "nothing"])
async def test_nothing_half_or_compressed_is_published(place: HttpPlace, lie: str):
    place.upstream.lie = lambda _headers: LIES[lie](place.upstream)
    with pytest.raises(SourceFailed):
        await place.publish(SMALL)


@pytest.mark.asyncio
async def test_what_an_upstream_says_about_itself_is_kept_only_where_a_header_and_a_store_can_carry_it(place: HttpPlace):
    strange = {"Content-Type": "text/\udcff", "ETag": '"\udcff"', "Last-Modified": "caf\u00e9"}
    place.upstream.lie = lambda _headers: response(SMALL, **strange)
    pin, stat = await place.publish(SMALL)
    assert (stat.media_type, pin["etag"], pin["last_modified"]) == ("application/octet-stream", None, None)
    place.upstream.lie = lambda _headers: response(SMALL, ETag='W/"weak"')
    assert (await place.publish(SMALL))[0]["etag"] is None


@given(st.lists(st.integers(0, int(2.5 * PIECE_BYTES)), max_size=4))
@settings(max_examples=30)
def test_whatever_the_network_delivers_is_handed_on_in_whole_pieces(sizes: list[int]):
    whole = bytes(range(251)) * (sum(sizes) // 251 + 1)

    async def chunks() -> AsyncIterator[bytes]:
        at = 0
        for size in sizes:
            yield whole[at : (at := at + size)]

    async def collect() -> list[bytes]:
        return [piece async for piece in batches(chunks())]

    pieces = asyncio.run(collect())
    assert b"".join(pieces) == whole[: sum(sizes)]
    assert all(len(piece) == PIECE_BYTES for piece in pieces[:-1])
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces[-1:])


class Heard(io.StringIO):
    """A log that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def flush(self) -> None:
        self._news.set()

    async def said(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text not in self.getvalue():
                self._news.clear()
                await self._news.wait()


@pytest.mark.asyncio
async def test_a_whole_exchange_shows_neither_the_credential_nor_the_upstream(tmp_path: Path):
    """Not in the catalog, an answer of any list, an event, the record of evidence or the log of either side."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    out = Heard()
    telemetry.configure_logging("debug", "json", out)
    try:
        upstream = Upstream(CONTENT)
        async with serving(upstream) as port, pair(tmp_path, provider={"credentials": {"upstream": tmp_path / "secret"}}) as both:
            source = {"type": "http", "url": f"http://127.0.0.1:{port}/hidden-path?sig=of-the-url", "credential": "upstream"}
            body = {"title": "d", "source": source, "policies": [OPEN]}
            shown = [await both.provider.asked("PUT", f"/datasets/{quoted('urn:d')}", body, status=201)]
            shown.append(await both.consumer.asked("POST", "/catalog", {"peer": "hospital"}))
            order = {"peer": "hospital", "dataset": "urn:d"}
            for name in ("good", "changed"):
                order["out"] = str(both.consumer.site.root / f"out/{name}.csv")
                shown.append(await both.consumer.asked("POST", "/pulls", order, status=201))
                await out.said('"downloaded"' if name == "good" else '"source-failed"')
                upstream.content = CONTENT[::-1]
            for side in (both.provider, both.consumer):
                for path in ("datasets", "negotiations", "agreements", "transfers", "pulls", "dead-letters"):
                    shown.append((await side.manage("GET", f"/{path}")).body.decode())
                shown += [str(row) for row in await side.connector.store.events(0, 1000)]
    finally:
        telemetry.configure_logging("info", "json")
    assert (tmp_path / "biopharma/out/good.csv").read_bytes() == CONTENT
    assert upstream.requests[-1]["authorization"] == SECRET
    log, answers = out.getvalue(), json.dumps(shown)
    for private in (SECRET.split()[1], "hidden-path", "of-the-url"):
        assert private not in log
        assert private not in answers
