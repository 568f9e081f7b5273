"""One answer, compared leaf by leaf and put where it belongs, whichever way it comes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from connector.errors import PeerFailed, SinkFailed
from connector.intake import legs
from connector.intake.legs import Cut, Moved, Pieces, Window, leg
from connector.lanes import hashing
from connector.merkle.tree import leaf_hash
from connector.ports import Detached
from connector.ports.sinks import Move
from tests.contracts.memory_sinks import MemorySinks
from tests.dataplane.rig import some_bytes
from tests.lanes.compiled import by_lanes

KIB = 1024
CHUNK = 64 * KIB
CONTENT = some_bytes(40 * CHUNK + 321)
CHUNKS = [memoryview(CONTENT)[at : at + CHUNK] for at in range(0, len(CONTENT), CHUNK)]
HASHES = [leaf_hash(chunk) for chunk in CHUNKS]

pytestmark = pytest.mark.asyncio


@dataclass
class Arriving:
    """An answer in pieces: bytes, an error, or an event that it waits for."""

    pieces: list[bytes | Exception | asyncio.Event]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    def detach(self) -> Detached | None:
        return None


async def opened(sinks: MemorySinks, *pieces: bytes | Exception | asyncio.Event, unit: str = "none") -> Pieces:
    return Pieces(Arriving(list(pieces)), await sinks.open("f", "p", overwrite=False), Cut(CHUNK, unit))


def held(sinks: MemorySinks) -> bytes:
    return bytes(sinks.kept["f", "p"])


@pytest.mark.parametrize("piece_bytes", [1000, CHUNK, 300_000, len(CONTENT)])
async def test_pieces_of_any_size_are_leaves_at_their_place(piece_bytes: int):
    sinks = MemorySinks()
    going = await opened(sinks, *(CONTENT[at : at + piece_bytes] for at in range(0, len(CONTENT), piece_bytes)))
    windows = [going.take(1, HASHES[:24], 0, 24 * CHUNK), going.take(25, HASHES[24:], 24 * CHUNK, len(CONTENT) - 24 * CHUNK)]
    for window in windows:
        await window.move.finished
    assert [window.look() for window in windows] == [[(1, 25)], [(25, 42)]]
    assert held(sinks) == CONTENT
    await going.close()


@pytest.mark.parametrize(("count", "most_bytes"), [(1, len(CONTENT)), (16, 1024 * KIB)])
async def test_many_legs_take_no_more_at_once_together_than_a_few(count: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    took, all_of, hashed = [], asyncio.Event(), legs.leaf_hashes

    def told(body: bytes, spans: list[tuple[int, int]]) -> list[bytes]:
        if body[:CHUNK] == CONTENT[:CHUNK]:  # the first of each leg: who comes later has what others leave that are done
            took.append(len(body))
        return hashed(body, spans)

    monkeypatch.setattr(legs, "leaf_hashes", told)
    going = [await opened(MemorySinks(), all_of, CONTENT) for _ in range(count)]
    windows = [each.take(1, HASHES, 0, len(CONTENT)) for each in going]
    for _ in range(100):  # turns, until all of them read
        await asyncio.sleep(0)
    assert Pieces.filling == count
    all_of.set()
    for window in windows:
        await window.move.finished
        assert window.look() == [(1, 42)]
    assert took == [most_bytes] * count
    for each in going:
        await each.close()
    assert Pieces.filling == 0


async def test_what_has_come_before_a_cut_counts_though_others_have_begun_to_take_some(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    come, cut, sinks = asyncio.Event(), asyncio.Event(), MemorySinks()
    going = await opened(sinks, CONTENT[: 30 * CHUNK], cut, PeerFailed("cut"))
    monkeypatch.setattr(legs, "STILL_SECONDS", 60.0)
    window = going.take(1, HASHES, 0, len(CONTENT))
    for _ in range(100):  # turns, until it has taken what there is
        await asyncio.sleep(0)
    others = [await opened(MemorySinks(), come, CONTENT) for _ in range(15)]
    for each in others:
        each.take(1, HASHES, 0, len(CONTENT))
    for _ in range(100):
        await asyncio.sleep(0)
    assert Pieces.filling == 16
    cut.set()
    with pytest.raises(PeerFailed, match="cut"):
        await window.move.finished
    assert window.look() == [(1, 31)]
    for each in (going, *others):
        await each.close()


async def test_a_leaf_that_is_wrong_is_told_and_not_written():
    sinks = MemorySinks()
    wrong = bytearray(CONTENT[: 10 * CHUNK])
    wrong[3 * CHUNK + 5] ^= 1
    going = await opened(sinks, bytes(wrong))
    window = going.take(1, HASHES[:10], 0, 10 * CHUNK)
    await window.move.finished
    assert window.look() == [(1, 4), (5, 11)]
    assert window.wrong == {4: leaf_hash(wrong[3 * CHUNK : 4 * CHUNK])}
    assert held(sinks)[3 * CHUNK : 4 * CHUNK] == bytes(CHUNK)
    await going.close()


async def test_what_has_come_counts_while_the_provider_waits_for_something():
    sinks, more = MemorySinks(), asyncio.Event()
    going = await opened(sinks, CONTENT[: 2 * CHUNK + 100], more, CONTENT[2 * CHUNK + 100 : 4 * CHUNK])
    window = going.take(1, HASHES[:4], 0, 4 * CHUNK)
    for _ in range(1000):
        await asyncio.sleep(0.001)
        if window.look():
            break
    assert (window.seen, window.move.finished.done()) == (2, False)
    more.set()
    await window.move.finished
    assert window.look() == [(3, 5)]
    await going.close()


@pytest.mark.parametrize("end", [PeerFailed("cut"), None], ids=["cut", "short"])
async def test_a_cut_keeps_the_whole_leaves_before_it_and_fails_what_comes_after(end: Exception | None):
    sinks = MemorySinks()
    going = await opened(sinks, CONTENT[: 3 * CHUNK + 7], *([end] if end is not None else []))
    windows = [going.take(1, HASHES[:8], 0, 8 * CHUNK), going.take(9, HASHES[8:16], 8 * CHUNK, 8 * CHUNK)]
    for window in windows:
        with pytest.raises(PeerFailed, match="cut" if end is not None else "ended its answer before the end"):
            await window.move.finished
    assert [window.look() for window in windows] == [[(1, 4)], []]
    assert held(sinks) == CONTENT[: 3 * CHUNK]
    await going.close()


async def test_a_sink_that_is_full_ends_it():
    sinks = MemorySinks(space_bytes=5 * CHUNK)
    going = await opened(sinks, CONTENT)
    window = going.take(1, HASHES[:40], 0, 40 * CHUNK)
    with pytest.raises(SinkFailed):
        await window.move.finished
    await going.close()


async def test_closing_stops_what_waits_and_what_was_not_begun():
    sinks = MemorySinks()
    going = await opened(sinks, asyncio.Event())
    windows = [going.take(1, HASHES[:4], 0, 4 * CHUNK), going.take(5, HASHES[4:8], 4 * CHUNK, 4 * CHUNK)]
    await asyncio.sleep(0.01)
    await going.close()
    for window in windows:
        with pytest.raises(PeerFailed, match="was stopped"):
            await window.move.finished


async def test_lines_are_counted_if_they_are_wanted():
    text = b"".join(b"%d\n" % n for n in range(30_000))
    sinks = MemorySinks()
    chunks = [memoryview(text)[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    going = await opened(sinks, text, unit="line")
    window = going.take(1, [leaf_hash(chunk) for chunk in chunks], 0, len(text))
    await window.move.finished
    assert window.move.records == [bytes(chunk).count(b"\n") for chunk in chunks]
    await going.close()


async def test_a_window_is_looked_at_as_it_fills():
    move = Move(asyncio.get_running_loop().create_future())
    window = Window(10, [b"a", b"b", b"c", b"d"], 0, 4, move)
    assert window.look() == []
    move.hashes += [b"a", b"b"]
    assert window.look() == [(10, 12)]
    move.hashes += [b"x", b"d"]
    assert (window.look(), window.wrong, window.look()) == ([(13, 14)], {12: b"x"}, [])


async def test_threads_move_where_there_is_a_connection_to_take_and_a_descriptor_to_fill():
    made: list[tuple[Detached, int, float]] = []

    class Mover:
        def __init__(self, detached: Detached, into: int, idle_seconds: float) -> None:
            made.append((detached, into, idle_seconds))

        def move(self, offset: int, length: int, chunk_bytes: int, unit: str = "none") -> Move:
            raise AssertionError

        async def close(self) -> None: ...

    class Plain(Arriving):
        def detach(self) -> Detached | None:
            return Detached(5, b"", 10, "http://p")

    sink = await MemorySinks().open("f", "p", overwrite=False)
    cut = Cut(CHUNK, "none")
    for incoming in (Plain([]), Arriving([])):
        without = leg(incoming, sink, cut, Mover, 3.0)
        assert isinstance(without, Pieces)
        await without.close()
    sink.fileno = lambda: 7  # type: ignore[method-assign]
    tls = leg(Arriving([]), sink, cut, Mover, 3.0)
    assert isinstance(tls, Pieces)
    await tls.close()
    assert isinstance(leg(Plain([]), sink, cut, Mover, 3.0), Moved)
    assert made == [(Detached(5, b"", 10, "http://p"), 7, 3.0)]
