"""Events as a server sends them: their one spelling, and where to go on after each, with and without ids."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.egress import guard
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams import events
from connector.adapters_streams.events import Another, Behind, Events, marked, read_place, write_place
from connector.adapters_streams.http_stream import HttpStreams
from connector.dataplane_live import flow as flows
from connector.errors import SourceFailed
from connector.metering.content import SEPARATORS
from connector.ports.live import RECORD_BYTES_MAX
from tests.dataplane.rig import serving
from tests.dataplane_live.test_flow import flowing

EVENT = st.builds(
    lambda id, lines: (f"id: {id}\n".encode() if id else b"") + b"".join(b"data: " + line + b"\n" for line in lines),
    st.none() | st.integers(1, 99),
    st.lists(st.text(alphabet="ab:\u00fc ", max_size=9).map(str.encode), min_size=1, max_size=3),
)
NOISE = st.sampled_from([b": keep-alive\n", b"retry: 10\n", b"id: 7\n", b"event: x\n", b""])


@given(st.lists(EVENT | NOISE, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(1, 40), st.booleans())
def test_events_come_out_in_one_spelling_however_they_are_spelled_and_cut(blocks: list[bytes], newline: bytes, step: int, marked: bool):
    sent = b"".join(block + b"\n" for block in blocks).replace(b"\n", newline)
    sent = events.BOM + sent if marked else sent
    cutter = Events(None)
    found = b"".join(cutter.take(sent[at : at + step]) for at in range(0, len(sent), step)) + cutter.take(b"")
    expected = [block for block in blocks if block.startswith(b"data") or b"\ndata" in block]
    if newline == b"\r" and expected and found != b"".join(block + b"\n" for block in expected):
        expected = expected[:-1] if blocks[-1] is expected[-1] else expected  # the line feed of the last line may be yet to come
    assert found == b"".join(block + b"\n" for block in expected)
    assert found.count(SEPARATORS["message"]) == len(expected)


@pytest.mark.parametrize(
    ("sent", "position"),
    [
        (b"id: 5\ndata: x\n\n", "5"),
        (b"data: x\nid: 6\n\n", "6"),
        (b"id: 5\nid: 6\ndata: x\n\n", "6"),
        (b"id: 5\ndata: x\n\nid:\ndata: y\n\n", None),
        (b"id: 5\ndata: x\n\nid: a\0b\ndata: y\n\n", None),
        (b"id: " + b"9" * 3000 + b"\ndata: x\n\n", None),
        (b"id: " + b"\xff" * 1500 + b"\ndata: x\n\n", None),  # three bytes of UTF-8 for each, as it is kept
        (b"id: 5\n\n", "5"),
        (b"id: 5\n\ndata: x\n\nid: 5\n\n", "5"),
        ("id: \u00fc\ndata: x\n\n".encode(), "\u00fc"),
        (b"id: 5\ndata: x\n", None),
    ],
)
def test_the_id_of_the_last_whole_event_says_where_to_go_on(sent: bytes, position: str | None):
    cutter = Events(None)
    cutter.take(sent)
    assert read_place(cutter.position)[0] == position


def test_a_place_behind_an_id_is_one_text_and_is_read_as_it_was_written():
    behind = Behind().and_then(b"data: x")
    for count in range(2, 100):
        behind = behind.and_then(b"data: %d" % count)
    written = write_place("\u00fc 5", behind, mark := marked(b"id: 5"))
    assert written is not None
    assert len(written.encode()) < 400
    assert read_place(written) == ("\u00fc 5", behind, mark)
    assert read_place(write_place("5", behind)) == ("5", behind, b""), "as before there were marks"
    assert read_place(write_place("5", Behind(), mark)) == ("5", Behind(), mark)
    assert read_place("5") == ("5", Behind(), b"")
    assert read_place(None) == (None, Behind(), b"")
    for wrong in ("5\nx y", "5\n1", "5\n1 a", "5\n0 ", "5\n-1 AAAAAAAAAAA="):
        with pytest.raises(SourceFailed, match="none of a source of events"):
            Events(wrong)


WITHOUT = st.lists(st.sampled_from([b"data: a\n\n", b"data: b\n\n", b"event: c\ndata: c\n\n"]), min_size=1, max_size=40)
X = b"id: 5\ndata: x\n\n"
NEXT = [b"data: new\n\n", b"id: 6\ndata: next\n\n", b"data: more\n\n"]


def after(position: str | None, *sent: bytes) -> tuple[bytes, str | None]:
    """What is given of this answer, and where to go on."""
    cutter = Events(position)
    return b"".join(cutter.take(each) for each in sent), cutter.position


@given(WITHOUT, st.integers(0, 40))
def test_what_comes_again_behind_an_id_is_left_out_and_what_is_new_after_it_is_not(behind: list[bytes], cut: int):
    first, position = after(None, X, *behind)
    assert first.endswith(b"".join(behind))
    assert after(position, *behind[:cut])[1] == position, "it is in the middle of what comes again, and may be cut there again"
    assert after(position, *behind, *NEXT)[0] == b"".join(NEXT)
    assert after(position, *behind, NEXT[0])[1] == after(after(None, X)[1], *behind, NEXT[0])[1]


@given(WITHOUT, WITHOUT)
def test_what_is_not_all_the_same_is_delivered_all_of_it(behind: list[bytes], others: list[bytes]):
    _, position = after(None, b"id: 5\ndata: x\n\n", *behind)
    sent = [*others, NEXT[1]]
    again = others[: len(behind)] == behind
    assert after(position, *sent)[0] == b"".join(sent[len(behind) :] if again else sent)


def test_a_server_that_begins_with_the_event_that_it_was_asked_to_go_on_behind_has_that_left_out_and_nothing_else():
    _, position = after(None, b"id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: c\n\n")
    came, later = after(position, b"id: 2\ndata: b\n\ndata: c\n\ndata: d\n\nid: 2\ndata: b\n\n")
    assert came == b"data: d\n\nid: 2\ndata: b\n\n", "what stands there again later is another one"
    assert after(later, b"id: 2\ndata: x\n\n")[0] == b"id: 2\ndata: x\n\n"
    assert after(later, b": there\n\n", b"id: 2\ndata: b\n\n") == (b"", later), "it may be cut there again"
    assert after("1", b"id: 2\ndata: b\n\n")[0] == b"id: 2\ndata: b\n\n", "it was asked for from before that"
    _, bare = after(position, b"id: 3\n\n")
    assert bare == "3", "it had no data that could come again"


@pytest.mark.asyncio
async def test_at_each_end_of_its_answer_a_server_that_repeats_its_last_event_is_not_billed_for_it():
    app, peer = web.Application(), HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))

    async def answer(request: web.Request) -> web.Response:
        first = int(request.headers.get("Last-Event-ID", "1"))
        sent = "".join(f"id: {number}\ndata: {number}\n\n" for number in range(first, first + 3))
        return web.Response(text=sent, content_type="text/event-stream")

    app.router.add_get("/", answer)
    async with serving(app) as port:
        sources = HttpStreams(peer, {}.get)
        address, _ = await sources.index({"type": "http-stream", "url": f"http://127.0.0.1:{port}/"})
        position, came = None, b""
        for _ in range(3):  # by whoever is told the place, as after a restart
            async for batch in (await sources.open(address)).follow(position):
                came, position = came + batch.data, batch.position
        assert came == b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in range(1, 8))
    await peer.close()


def test_of_an_answer_that_is_all_what_is_less_than_came_before_is_new():
    _, position = after(None, b"id: 5\ndata: x\n\n", b"data: a\n\n", b"data: a\n\n")
    cutter = Events(position)
    assert cutter.take(b"data: a\n\n") == b""
    assert cutter.unrepeated() == b"data: a\n\n"
    assert read_place(cutter.position) == ("5", Behind().and_then(b"data: a"), marked(b"id: 5\ndata: x"))


def test_no_more_is_held_back_than_a_record_may_have_and_what_comes_again_beyond_that_is_left_out_too():
    large = b"data: " + b"x" * (RECORD_BYTES_MAX // 40) + b"\n\n"
    _, position = after(None, b"id: 5\n\n", *[large] * 50)
    cutter = Events(position)
    tracemalloc.start()
    try:
        assert not any(cutter.take(large) for _ in range(49))
        assert (cutter.position, tracemalloc.get_traced_memory()[0] < 2 * len(large)) == (position, True)
    finally:
        tracemalloc.stop()
    assert cutter.take(large) == b""
    assert cutter.take(b"data: new\n\n") == b"data: new\n\n"


@pytest.mark.parametrize("other", [[b"data: new\n\n"], [b"id: 6\n\n"], []], ids=["another", "id", "end"])
def test_what_was_not_held_and_is_new_all_the_same_is_asked_for_again_and_delivered(other: list[bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "RECORD_BYTES_MAX", 400)
    same = [b"data: a\n\n"] * 48
    _, position = after(None, b"id: 5\ndata: x\n\n", *[b"data: a\n\n"] * 50)
    cutter = Events(position)
    with pytest.raises(Another):
        b"".join([*map(cutter.take, [*same, *other]), cutter.unrepeated()])
    assert cutter.position == position
    again = Events(position, again=False)
    assert b"".join(map(again.take, [*same, *other])) == b"".join([*same, *(each for each in other if b"data" in each)])


@asynccontextmanager
async def repeating(answers: list[int]) -> AsyncIterator[tuple[str, list[str | None], list[bytes]]]:
    """A server of events of which every third has an id: each answer is cut after so many, and goes on behind the id that is asked for."""
    made = [(b"id: %d\n" % n if n % 3 == 0 else b"") + b"data: %d\n\n" % (n // 2) for n in range(20)]
    asked = list[str | None]()

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Last-Event-ID"))
        begin = int(asked[-1] or -1) + 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        count = answers.pop(0) if answers else len(made)
        await response.write(b"".join(made[begin : begin + count]))
        if begin + count < len(made) and request.transport is not None:
            request.transport.close()  # what was written leaves before
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}/", asked, made


@pytest.mark.asyncio
async def test_events_of_which_only_some_have_ids_are_delivered_and_counted_once_whenever_their_server_cuts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flows, "SEAL_SECONDS", 0.01)
    monkeypatch.setattr(flows, "PAUSE_SECONDS", 0.001)
    peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
    async with repeating([2, 3, 3, 2, 6]) as (url, asked, made):
        source = await HttpStreams(peer, {}.get).open({"type": "http-stream", "url": url, "media_type": "text/event-stream"})
        whole = b"".join(made)
        async with flowing(tmp_path / "x", source) as (flow, _), asyncio.timeout(20):
            while flow.log.end < len(whole):
                await flow.checkpoint_after(flow.signed, 1.0)
            assert await flow.spool.read(0, flow.log.end) == whole
            assert asked == [None, "0", "3", "6", "6", "12"]
    await peer.close()


@pytest.mark.asyncio
async def test_what_was_new_behind_an_id_and_not_held_is_delivered_at_the_next_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "RECORD_BYTES_MAX", 400)
    _, position = after(None, b"id: 0\ndata: 0\n\n", *[b"data: a\n\n"] * 60)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"data: a\n\n" * 50 + b"id: 1\ndata: b\n\n", content_type="text/event-stream")

    app, peer = web.Application(), HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
    app.router.add_get("/", handle)
    async with serving(app) as port:
        address = {"type": "http-stream", "url": f"http://127.0.0.1:{port}/", "media_type": "text/event-stream"}
        source = await HttpStreams(peer, {}.get).open(address)
        with pytest.raises(SourceFailed, match="again"):
            assert [each async for each in source.follow(position) if each.data] == []
        found = [each async for each in source.follow(position) if each.data]
        assert b"".join(each.data for each in found) == b"data: a\n\n" * 50 + b"id: 1\ndata: b\n\n"
        assert read_place(found[-1].position)[0] == "1"
    await peer.close()


def test_what_comes_again_is_held_in_no_more_room_than_it_has_bytes():
    """A source may send ever so many events of a few bytes behind one id."""
    piece, pieces = b"data\n\n" * 500, 30
    before = Events(None)
    before.take(b"id: a\ndata\n\n")
    for _ in range(pieces):
        before.take(piece)
    again = Events(before.position)
    tracemalloc.start()
    try:
        assert all(not again.take(piece) for _ in range(pieces - 1))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 3 * pieces * len(piece)
    assert again.take(piece + b"data: new\n\n") == b"data: new\n\n"
