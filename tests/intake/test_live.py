"""A consumer of data without an end: whatever is cut comes again, and every lie about leaves, lists and checkpoints is found and named."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.adapters_streams.mover import SpliceMover
from connector.control.journal import Journal
from connector.control_streams.orders import log_lost
from connector.dataplane_live import flow
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, PeerRefused
from connector.intake import account, live, live_promise, patience, room
from connector.intake.account import Means
from connector.intake.download import Metering
from connector.intake.promise import Broken
from connector.lanes import hashing
from connector.merkle import notes
from connector.merkle.checkpoints import Checkpoint, read, sign
from connector.metering.content import CHUNK_BYTES, SEALED
from connector.metering.counts import Counts
from connector.metering.live import LAST, LOST, write_etag
from connector.metering.objects import Receipt, kept
from connector.ports import sinks
from connector.ports.sinks import Enough
from connector.records import Changes, Pull
from connector.records.metering import Metered
from connector.values import replace
from tests.contracts.memory_sinks import MemorySinks
from tests.dataplane.rig import PROVIDER, TRANSFER, Counted, Rig, Watcher, agreed, free_socket, provider, pull, serving
from tests.dataplane.rig import _note_signer as note_signer
from tests.dataplane_live import upstream
from tests.dataplane_live.test_flow import Upper
from tests.lanes.compiled import by_lanes

OURS = "urn:uuid:consumer"
SINCE = {"parameter": "since", "member": "n"}
HOP = {"Transfer-Encoding", "Content-Length", "Connection", "Date", "Server"}

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "SEAL_SECONDS", 0.05)
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patience, "PAUSE_SECONDS_MAX", 0.05)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.1)


@dataclass
class Between:
    """HTTP between both sides. `lies` maps the end of a path to what is made of an answer's body; `cuts` are the bytes after which an
    answer with data breaks off, or brings no more and stays open, if it is `silent`; `refused` are status and code for those who ask for a
    range; `asked` are the ranges."""

    url: str
    http: aiohttp.ClientSession
    lies: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    silent: bool = False
    bend: Callable[[bytes], bytes] = lambda piece: piece
    refused: list[tuple[int, str]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    receipts: list[bool] = field(default_factory=list)  # of each to come: whether it arrives; those after them do

    async def handle(self, request: web.Request) -> web.StreamResponse:
        said = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
        body = await request.read() or None
        if self.refused and "Range" in request.headers:
            self.asked.append(request.headers["Range"])
            status, code = self.refused.pop(0)
            return web.json_response({"type": f"urn:qiao:problem:{code}"}, status=status, content_type="application/problem+json")
        if request.method == "POST" and self.receipts and not self.receipts.pop(0):
            return web.Response(status=503)
        async with self.http.request(request.method, self.url + request.raw_path, headers=said, data=body) as answer:
            headers = {name: value for name, value in answer.headers.items() if name not in HOP}
            headers = {name: value.replace(self.url, f"http://{request.host}") for name, value in headers.items()}
            name = next((each for each in self.lies if each in request.path), "")
            if not request.path.endswith(TRANSFER) or answer.status >= 300:
                found = await answer.read()
                lied = self.lies[name](found) if name and answer.status == 200 else found
                return web.Response(status=answer.status, body=lied, headers=headers)
            self.asked.append(request.headers.get("Range"))
            response = web.StreamResponse(status=answer.status, headers=headers | self.headers)
            await response.prepare(request)
            left = self.cuts.pop(0) if self.cuts else 1 << 60
            try:
                while left > 0 and (piece := await answer.content.readany()):
                    await response.write(self.bend(piece[:left]))
                    left -= len(piece)
                while self.silent and request.transport is not None and not request.transport.is_closing():
                    await answer.content.readany()
            except ConnectionError:
                return response
            if request.transport is not None:
                request.transport.abort()
            return response


@dataclass
class Stand:
    rig: Rig
    between: Between
    over: str
    root: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    watcher: Watcher = field(default_factory=Watcher)
    sinks: MemorySinks | None = None

    def order(self, **changed: Any) -> Pull:
        return replace(pull(self.root / "file", transfer=OURS, agreement="urn:agreement"), **changed)

    async def fetch(self, most_bytes: int | None = 1_000_000, order: Pull | None = None, **options: Any) -> Pull:
        if await self.store.process(Kind.TRANSFER, OURS) is None:
            mine = Process(Kind.TRANSFER, OURS, Role.CONSUMER, PROVIDER, "https://x", "STARTED", peer_pid=TRANSFER, version=1)
            await self.store.commit(Changes(saves=(agreed(peer=PROVIDER), replace(mine, agreement="urn:agreement"))))
        means = Means(self.store, Journal(self.store, self.rig.clock).decide, self.rig.consumer, self.rig.clock, Counted())
        downloads = self.rig.downloads(self.root, metering=Metering(means, SpliceMover, "write"), patience_seconds=30.0)
        downloads._sinks = self.sinks or downloads._sinks
        edr = self.rig.edr(endpoint=self.over)
        enough = Enough(most_bytes)
        return await downloads.fetch(order or self.order(), edr, **({"enough": enough} | options), **self.watcher.calls)

    async def accounts(self) -> tuple[Metered, Metered]:
        ours, theirs = await self.store.metered(OURS), await self.rig.store.metered(TRANSFER)
        assert ours is not None
        assert theirs is not None
        return ours, theirs

    def part(self) -> Path:
        return self.root / "file.urn-pull.part"


@asynccontextmanager
async def stand(tmp_path: Path, path: str = "/lines?size=2000") -> AsyncIterator[Stand]:
    for each in ("root", "out"):
        (tmp_path / each).mkdir()
    at = free_socket()
    over = f"http://127.0.0.1:{at.getsockname()[1]}"
    async with (
        upstream.running() as url,
        provider(tmp_path / "root", metered=True, front=over) as rig,
        aiohttp.ClientSession(auto_decompress=False) as http,
    ):
        await rig.publish_live(url + path, since=SINCE)
        between, app = Between(rig.url, http), web.Application()
        app.router.add_route("*", "/{path:.*}", between.handle)
        async with serving(app, at=at):
            yield Stand(rig, between, over, tmp_path / "out")


def without_gaps(path: Path) -> int:
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["n"] for line in lines] == list(range(1, len(lines) + 1))
    return len(lines)


async def agree(at: Stand, path: Path) -> None:
    """Both accounts and the file say the same."""
    ours, theirs = await at.accounts()
    assert ours.counts == theirs.counts
    assert (ours.counts.bytes, ours.counts.records) == (os.path.getsize(path), without_gaps(path))  # noqa: ASYNC240 - it is here


async def test_leaves_that_are_hashed_many_at_a_time_are_those_that_come_one_by_one(monkeypatch: pytest.MonkeyPatch):
    lines = [b"%d " % n * (2000 + n % 7) + b"\n" for n in range(40)]
    alone = [live._hashed(memoryview(line), (len(line),), "line", b"\n") for line in lines]
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    together = live._hashed(memoryview(b"".join(lines)), tuple(map(len, lines)), "line", b"\n")
    assert together == ([leaf for (leaf,), _ in alone], 40)


async def test_every_cut_goes_on_where_it_is_proven_and_nothing_is_counted_twice(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.between.cuts = [0, 1, 300_000, 700_001, 17_000_000]
        await at.fetch(25_000_000)
        await agree(at, at.root / "file")
        assert len(at.between.asked) >= 6
        assert all(asked is None or asked.endswith(f"-{LAST}") for asked in at.between.asked)


async def test_a_line_that_nobody_closes_and_that_brings_nothing_of_what_is_signed_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "SIGNED_SECONDS", 0.3)
    async with stand(tmp_path) as at:
        at.between.silent, at.between.cuts = True, [300_000, 400_000, 100_000]
        await at.fetch(3_000_000)
        await agree(at, at.root / "file")
        assert len(at.between.asked) >= 4


async def test_what_was_sent_and_never_signed_is_given_up_for_what_the_provider_has_after_a_loss_of_power(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.between.cuts, at.between.refused = [2_000_000], [(416, "range-not-satisfiable")]
        await at.fetch(5_000_000)
        await agree(at, at.root / "file")
        before, after = (int((asked or "").removeprefix("bytes=").split("-")[0]) for asked in at.between.asked[1:3])
        assert after < before


class Filling(MemorySinks):
    """What has come first fills it, until there is `room`."""

    room = False

    @property
    def space_bytes(self) -> int:
        has = max(map(len, self.kept.values()), default=0)
        return 1 << 30 if self.room or not has else has

    @space_bytes.setter
    def space_bytes(self, _all: int) -> None:
        pass


async def test_a_full_disk_pauses_it_and_it_goes_on_behind_what_was_signed_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    async with stand(tmp_path) as at:
        memory, enough = Filling(), Enough()
        at.sinks = memory

        def make_room(order: Pull) -> None:
            if any("goes on once there is room" in each for each in order.reasons):
                memory.room, enough.most_bytes = True, max(map(len, memory.kept.values())) + 1_000_000  # whatever came first

        at.watcher.on_report = make_room
        await at.fetch(enough=enough)
        (content,) = memory.files.values()
        (at.root / "file").write_bytes(content)
        await agree(at, at.root / "file")
        assert len(at.between.asked) == 2


async def test_enough_of_live_data_is_heard_while_their_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    async with stand(tmp_path) as at:
        memory, enough = Filling(), Enough()
        at.sinks = memory

        def say(order: Pull) -> None:
            if any("goes on once there is room" in each for each in order.reasons):
                enough.said.set()

        at.watcher.on_report = say
        await at.fetch(enough=enough)
        (content,) = memory.files.values()
        (at.root / "file").write_bytes(content)
        await agree(at, at.root / "file")


async def test_a_log_that_the_provider_has_lost_ends_the_download_at_once_with_what_was_proven(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.between.cuts, at.between.refused = [20_000_000], [(403, LOST)]
        with pytest.raises(PeerRefused) as caught:
            await at.fetch(60_000_000)
        assert log_lost(caught.value)
        ours, theirs = await at.accounts()
        assert ours.counts == theirs.counts
        assert ours.counts.bytes > 0


async def test_after_a_crash_it_goes_on_behind_what_was_signed_for(tmp_path: Path):
    async with stand(tmp_path) as at:
        done = asyncio.create_task(at.fetch(None))
        async with asyncio.timeout(20):
            while (mine := await at.store.metered(OURS)) is None or mine.sequence < 3 or not mine.ack:  # noqa: ASYNC110 - a store tells nobody
                await asyncio.sleep(0.02)
        done.cancel()
        await asyncio.gather(done, return_exceptions=True)
        with at.part().open("ab") as part:  # what came and was not signed for, and what a crash has made of it
            part.write(b"torn" * 1000)
        before = (await at.accounts())[0].counts.bytes
        await at.fetch(before + 1_000_000)
        await agree(at, at.root / "file")
        assert int((at.between.asked[-1] or "").removeprefix("bytes=").split("-")[0]) >= before


async def test_what_was_shown_before_somebody_had_enough_is_there_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "QUIET_SECONDS", 1_000.0)
    async with stand(tmp_path) as at:
        enough, shown = Enough(), asyncio.Event()
        at.watcher.on_report = lambda seen: shown.set() if seen.received_bytes else None
        running = asyncio.create_task(at.fetch(enough=enough))
        await asyncio.wait({running, asyncio.create_task(shown.wait())}, return_when=asyncio.FIRST_COMPLETED)
        was = at.watcher.reports[-1].received_bytes
        await enough.kept()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        at.watcher.on_report = None
        done = await at.fetch(enough=Enough(until=0.0))
        assert done.received_bytes >= was > 0
        await agree(at, at.root / "file")


async def test_whoever_has_enough_waits_for_no_receipt_that_cannot_be_signed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sinks, "KEEP_SECONDS", 0.01)
    enough = Enough()
    await enough.kept()
    enough.keep = asyncio.Event().wait
    await enough.kept()


async def test_a_consumer_with_an_older_store_takes_its_receipts_up_from_the_provider(tmp_path: Path):
    async with stand(tmp_path) as at:
        await at.fetch()
        mine = await at.store.metered(OURS)
        assert mine is not None
        size = os.path.getsize(at.root / "file")  # noqa: ASYNC240 - it is here
        (at.root / "file").rename(at.part())
        before = replace(mine, sequence=0, receipt="", ack="", ranges=(), counts=Counts(), version=mine.version + 1)
        await at.store.commit(Changes(saves=(before,)))
        await at.fetch(size + 500_000)
        await agree(at, at.root / "file")


async def test_what_was_signed_for_and_is_lost_here_is_not_made_up(tmp_path: Path):
    async with stand(tmp_path) as at:
        await at.fetch()
        (at.root / "file").unlink()
        await at.fetch(400_000)
        ours, theirs = await at.accounts()
        assert ours.counts == theirs.counts
        first = json.loads((at.root / "file").read_bytes().splitlines()[0])["n"]
        assert first > 1


async def test_another_transfer_of_the_same_order_goes_on_in_the_same_file(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.part().write_bytes(b"before\n" * 1000 + b"what was not signed for")
        shape = ("urn:earlier", Role.CONSUMER, "urn:agreement", PROVIDER, "manifest", "origin", 262_144)
        await at.store.commit(Changes(saves=(Metered(*shape, counts=Counts(7000)),)))
        await at.fetch(order=at.order(earlier=("urn:earlier",), validator=write_etag(b"e" * 32)))
        content = (at.root / "file").read_bytes()
        (at.root / "file").write_bytes(content.removeprefix(b"before\n" * 1000))
        await agree(at, at.root / "file")


def _signed(size: int, root: bytes) -> bytes:
    return sign(Checkpoint(_origin[0], size, root), [note_signer(_origin[0])])


def _staged(note: bytes, *lines: str) -> bytes:
    found = read(notes.read(note).text)
    return sign(replace(found, extensions=lines), [note_signer(found.origin)])


def _salted(entry: bytes) -> bytes:
    document = json.loads(entry)
    salt = document["salt"]
    return entry.replace(salt.encode(), (("A" if salt[0] != "A" else "B") + salt[1:]).encode())


def _elsewhere(listed: bytes) -> bytes:
    length, records = SEALED.unpack_from(listed)
    return SEALED.pack(length - 1, min(records, length - 1)) + listed[8:]


_origin = [""]


LIES: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    ("a checkpoint of nobody", "/checkpoint", lambda note: note[:-10] + b"AAAAAAAA=\n", "signature-"),
    ("no checkpoint", "/checkpoint", lambda _: b"x", "note-"),
    ("an old checkpoint", "/checkpoint", lambda _: _signed(1, b"r" * 32), "checkpoint-older"),
    ("a checkpoint of another tree", "/checkpoint", lambda note: _signed(int(note.split(b"\n")[1]), b"r" * 32), "leaf-wrong"),
    ("a stage without a name", "/checkpoint", lambda note: _staged(note, "stage "), "checkpoint-stage"),
    ("another header", "/header", lambda entry: entry.replace(b'"salt":"', b'"salt":"A')[: len(entry)], "header-"),
    ("a header of another salt", "/header", _salted, "unfit"),
    ("a list that ends within a leaf", "/sealed", lambda listed: listed[:-1], "list-length"),
    ("a list that is too short", "/sealed", lambda listed: listed[:-8] or SEALED.pack(1, 0) * 2, "list-other"),
    ("a leaf that is too long", "/sealed", lambda listed: SEALED.pack(1 << 30, 0) + listed[8:], "list-chunk"),
    ("a leaf that is empty", "/sealed", lambda listed: SEALED.pack(0, 0) + listed[8:], "list-chunk"),
    ("more records than bytes", "/sealed", lambda listed: SEALED.pack(1, 2) + listed[8:], "list-records"),
    ("leaves cut elsewhere", "/sealed", _elsewhere, "leaf-wrong"),
]


@pytest.mark.parametrize(("_name", "path", "lie", "code"), LIES, ids=[each[0] for each in LIES])
async def test_every_lie_is_found_and_named_and_nothing_of_it_is_kept(
    tmp_path: Path, _name: str, path: str, lie: Callable[[bytes], bytes], code: str
):
    async with stand(tmp_path, "/lines?size=2000&pause=0.001") as at:
        async with at.between.http.get(f"{at.rig.endpoint}/checkpoint", headers=at.rig.authorization()) as answer:
            _origin[0] = (await answer.text()).split("\n")[0]
        at.between.lies[path] = lie
        with pytest.raises(ConnectorError) as caught:
            await at.fetch()
        found = caught.value.code if isinstance(caught.value, Broken) else "unfit"
        assert found.startswith(code)
        assert not at.part().exists() or at.part().stat().st_size == 0
        mine = await at.store.metered(OURS)
        assert mine is None or mine.counts.bytes == 0


async def test_bytes_that_are_not_those_that_were_signed_are_rejected_by_their_leaf_and_asked_for_once_more(tmp_path: Path):
    async with stand(tmp_path) as at:
        wrong = iter([True])
        at.between.bend = lambda piece: b"X" + piece[1:] if next(wrong, False) else piece
        await at.fetch()
        await agree(at, at.root / "file")
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        rejected = [each.rejected.leaf for each in receipts if each.rejected is not None]
        assert rejected == [1]


async def test_what_is_garbled_now_and_then_does_not_add_up_over_a_transfer_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "AGAIN_MAX", 1)
    async with stand(tmp_path, "/lines?size=2000&pause=0.001") as at:
        each, garbled, enough = itertools.count(), list[bytes](), Enough()

        def lie(listed: bytes) -> bytes:
            if next(each) % 2 == 0:
                garbled.append(listed)
                return SEALED.pack(0, 0) + listed[8:]
            if len(garbled) > 3:  # whatever number of leaves is signed together on a busy machine
                enough.said.set()
            return listed

        at.between.lies["/sealed"] = lie
        await at.fetch(enough=enough)
        await agree(at, at.root / "file")
        assert len(garbled) > 3, "more than at once"


async def test_bytes_that_are_wrong_twice_end_the_order_and_name_the_leaf(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.between.bend = lambda piece: bytes(byte ^ 1 for byte in piece[:64]) + piece[64:]
        with pytest.raises(Broken, match="twice; the part is kept") as caught:
            await at.fetch()
        assert caught.value.code == "leaf-wrong"


async def test_a_log_that_does_not_go_on_as_it_was_is_found_after_a_restart(tmp_path: Path):
    async with stand(tmp_path) as at:
        await at.fetch()
        (at.root / "file").rename(at.part())
        at.between.lies["/tile/"] = lambda tile: bytes(32) + tile[32:]
        with pytest.raises(Broken, match="does not begin with what it had signed") as caught:
            await at.fetch(5_000_000)
        assert caught.value.code == "tile-root"


async def test_stages_are_named_by_each_checkpoint_and_are_the_same_throughout_a_log(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.rig.change(stages=(Upper(),))
        await at.fetch(1_000_000)
        assert (at.root / "file").read_bytes().startswith(b'{"N":1,"X":"YYY')


async def test_data_that_pass_other_stages_within_a_log_are_not_taken(tmp_path: Path):
    async with stand(tmp_path) as at:
        names = iter(("first", "first", "other"))
        at.between.lies["/checkpoint"] = lambda note: _staged(note, f"stage {next(names, 'other')}")
        with pytest.raises(Broken, match="have passed other stages") as caught:
            await at.fetch(60_000_000)
        assert caught.value.code == "checkpoint-stage"


async def test_an_answer_with_another_tag_is_none_of_ours(tmp_path: Path):
    async with stand(tmp_path) as at:
        at.between.headers["ETag"] = '"other"'
        with pytest.raises(ConnectorError, match="other data than those that its manifest promises"):
            await at.fetch()


async def test_a_transfer_that_is_over_ends_with_what_has_come(tmp_path: Path):
    async with stand(tmp_path) as at:
        over = asyncio.Event()
        at.between.cuts = [5_000_000] * 100
        at.watcher.on_report = lambda seen: over.set() if seen.received_bytes > 1_000_000 else None
        done = await at.fetch(None, over=over.is_set)
        assert done.received_bytes == (at.root / "file").stat().st_size
        await agree(at, at.root / "file")


async def test_nothing_stays_that_was_not_signed_for_while_the_provider_took_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "LAST_SECONDS", 0.1)
    enough, seen = Enough(), list[int]()
    async with stand(tmp_path, "/lines?size=2000&pause=0.005") as at:
        at.between.receipts = [True, True] + [False] * 4  # the third one waits while more comes, and still at the end

        def comes(now: Pull) -> None:
            if len(at.between.receipts) < 4:
                seen.append(now.received_bytes)
                if now.received_bytes > seen[0]:
                    enough.said.set()

        at.watcher.on_report = comes
        await at.fetch(enough=enough)
        assert (enough.said.is_set(), at.between.receipts) == (True, [])
        await agree(at, at.root / "file")


async def test_the_last_receipt_is_brought_to_a_provider_that_was_away_as_the_data_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)
    async with stand(tmp_path, "/lines?size=2000&pause=0.001") as at:
        at.between.receipts = [True] + [False] * 4  # but the one that opens
        await at.fetch(100_000)
        assert at.between.receipts == []
        await agree(at, at.root / "file")


async def test_a_transfer_that_the_provider_refuses_is_not_asked_for_without_end(tmp_path: Path):
    async with stand(tmp_path) as at:
        edr = at.rig.edr()
        assert edr
        at.rig.change(state="TERMINATED")
        with pytest.raises(PeerRefused):
            await at.fetch()


async def test_a_receipt_is_written_for_each_window_or_moment_and_names_the_state_that_it_was_verified_by(tmp_path: Path):
    async with stand(tmp_path) as at:
        await at.fetch(3_000_000)
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        assert len(receipts) >= 2
        assert (receipts[0].ranges, receipts[0].checkpoint) == ((), None)
        for each in receipts[1:]:
            assert each.checkpoint is not None
            assert each.ranges == ((1, each.checkpoint.size),)


@given(st.integers(0, 30), st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 50)), max_size=12))
async def test_what_is_held_comes_out_in_order_wherever_it_is_cut(room: int, steps: list[tuple[bytes, int]]):
    held, expected, found = live_promise.Held(), b"".join(piece for piece, _ in steps), b""
    with pytest.MonkeyPatch.context() as less:
        less.setattr(live_promise, "GROWS_BYTES_MIN", room)
        for piece, size in steps:
            held.add(piece)
            body, rest = held.cut(size)
            found += body
            held.add(rest)
    body, rest = held.cut(held.size_bytes)
    assert found + bytes(body) == expected
    assert (len(rest), held.size_bytes) == (0, 0)


async def test_the_room_for_what_is_held_back_is_for_what_came_and_not_for_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A window that a provider has signed may be of more than there is memory; most live data are few bytes a second."""
    followed: list[live.Following] = []
    follow = live.Following._follow

    async def watched(self: live.Following, described: Any) -> None:
        followed.append(self)
        await follow(self, described)

    monkeypatch.setattr(live.Following, "_follow", watched)
    async with stand(tmp_path, "/lines?size=2000&pause=0.001") as at:
        await at.fetch(100_000)
    assert [0 < len(each._held._buffer) < live.WINDOW_BYTES // 2 for each in followed] == [True]


async def test_more_than_there_is_room_for_is_not_held_back_whatever_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "HELD_BYTES_MAX", 100)
    async with stand(tmp_path, "/lines?size=9000") as at:
        with pytest.raises(Broken, match="longer than a window"):
            await at.fetch(20_000)


async def test_no_more_than_a_window_is_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    proven = live.Following._prove

    async def watched(self: live.Following, body: memoryview, goal: live.Goal) -> None:
        held.append(len(body))
        await proven(self, body, goal)

    monkeypatch.setattr(live.Following, "_prove", watched)
    monkeypatch.setattr(live_promise, "GROWS_BYTES_MIN", 1)  # so that the last piece of a window is more than there is room for
    monkeypatch.setattr(flow, "SEAL_SECONDS", 60.0)  # so that each checkpoint is of as much as a window takes, however slow the disk is
    async with stand(tmp_path, "/lines?size=9000") as at:
        await at.fetch(20_000_000)
        numbers = [int(line.partition(b",")[0][5:]) for line in (at.root / "file").read_bytes().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert live.WINDOW_BYTES - CHUNK_BYTES < max(held) <= live.WINDOW_BYTES
