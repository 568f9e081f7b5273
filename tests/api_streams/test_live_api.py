"""Live data over HTTP: an ordinary client reads them, goes on where it was, and is told what is not to be had."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from connector.adapters.memory import MemoryStore
from connector.api_streams import live_api
from connector.dataplane.accounts import Accounts
from connector.dataplane.flows import Flows, Running
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane_accounts import flowing
from connector.dataplane_accounts.account import Account
from connector.dataplane_accounts.flowing import MICROSECONDS
from connector.dataplane_live import flow, lives
from connector.dataplane_live.taking import Taking
from connector.merkle import checkpoints, notes
from connector.merkle.tree import leaf_hash, root_of
from connector.metering.content import CHUNK_BYTES, Sealed, read_header, read_sealed
from connector.metering.live import LAST, read_etag
from connector.metering.objects import WINDOW_BYTES, Manifest, kept
from connector.odrl.counters import Pricing, Tally
from connector.odrl.operands import METERED_TIME, RECORD_COUNT
from connector.ports import COUNTERSIGNED
from connector.ports.live import BATCH_BYTES
from tests.dataplane.rig import PROVIDER, TRANSFER, Rig, key_of, provider
from tests.dataplane_live import upstream
from tests.dataplane_live.test_flow import Upper
from tests.dataplane_live.test_live_pair import power_gone

SINCE = {"parameter": "since", "member": "n"}

pytestmark = pytest.mark.asyncio


@dataclass
class Client:
    rig: Rig
    http: aiohttp.ClientSession

    def get(self, path: str = "", method: str = "GET", **headers: str) -> aiohttp.client._RequestContextManager:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, self.rig.endpoint + path, headers=self.rig.authorization() | said)

    async def body(self, path: str, status: int = 200) -> bytes:
        async with self.get(path) as answer:
            assert answer.status == status
            return await answer.read()

    async def take(self, count: int, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
        async with asyncio.timeout(20), self.get(**headers) as answer:
            data = b""
            while len(data) < count:
                piece = await answer.content.readany()
                assert piece, "it has no end"
                data += piece
            return answer, data


@asynccontextmanager
async def client(tmp_path: Path, path: str = "/lines?size=900", window_bytes: int = WINDOW_BYTES, **live: int) -> AsyncIterator[Client]:
    (tmp_path / "root").mkdir()
    limits: dict[str, Any] = {"metered": True, "window_bytes": window_bytes, "live": live}
    async with upstream.running() as url, provider(tmp_path / "root", **limits) as rig:
        await rig.publish_live(url + path, **({"since": SINCE} if path.startswith("/lines") and "count" not in path else {}))
        async with aiohttp.ClientSession() as http:
            yield Client(rig, http)


async def all_of(answer: aiohttp.ClientResponse) -> bytes:
    """What comes until it is cut."""
    data = b""
    with suppress(aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        async for piece in answer.content.iter_any():
            data += piece
    return data


def numbers(data: bytes) -> list[int]:
    return [json.loads(line)["n"] for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


async def test_where_a_log_is_let_go_while_its_account_is_looked_for_the_one_in_its_place_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with client(tmp_path) as at:
        _, before = await at.take(100_000)
        assert at.rig.metering is not None
        live, found, of = at.rig.metering.lives, list[Account](), Accounts.of
        assert live is not None

        async def slow(self: Accounts, permit: Permit, log: Described) -> Account:
            if not found:
                await live._close(TRANSFER, live._flows[TRANSFER])
                of_new = (await live.of(permit)).log
                assert of_new is not log
            found.append(await of(self, permit, log))
            return found[-1]

        monkeypatch.setattr(Accounts, "of", slow)
        answer, data = await at.take(100_000, Range=f"bytes={len(before)}-")
        assert answer.status == 206
        assert numbers(before + data) == list(range(1, len(numbers(before + data)) + 1))
        assert found[-1].log is live._flows[TRANSFER].log


async def test_of_a_reader_that_has_left_while_nothing_comes_no_stream_stays_and_no_time_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left, plain = asyncio.Event(), Flows._leave

    def leave(flows: Flows, stream: Running) -> None:
        plain(flows, stream)
        left.set()

    monkeypatch.setattr(Flows, "_leave", leave)
    async with client(tmp_path, "/lines?size=900&pause=3600") as at:
        await at.take(900)
        async with asyncio.timeout(5):
            await left.wait()
        seen = at.rig.flows.seen(TRANSFER)
        assert seen is not None
        assert seen.running == 0
        assert at.rig.metering is not None
        account = at.rig.metering.accounts.at_hand(TRANSFER)
        assert account is not None
        assert not account.flows


async def test_an_ordinary_client_reads_as_it_comes_and_goes_on_where_it_was(tmp_path: Path):
    async with client(tmp_path) as at:
        answer, data = await at.take(300_000)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
        assert "Content-Length" not in answer.headers
        etag = answer.headers["ETag"]
        assert read_etag(etag) is not None
        for end in (LAST, None):
            more, rest = await at.take(100_000, Range=f"bytes={len(data)}-{end or ''}", If_Range=etag)
            assert (more.status, more.headers["Content-Range"]) == (206, f"bytes {len(data)}-{LAST}/*")
            data += rest
        found = numbers(data)
        assert found == list(range(1, len(found) + 1))


async def test_a_part_that_has_an_end_is_just_that_also_where_it_is_yet_to_come(tmp_path: Path):
    async with client(tmp_path, "/lines?size=900&pause=0.01") as at:
        _, data = await at.take(5_000)
        async with asyncio.timeout(20), at.get(Range="bytes=1000-19999") as answer:
            part = await answer.read()
        assert (answer.status, answer.headers["Content-Range"], len(part)) == (206, "bytes 1000-19999/*", 19_000)
        assert part.startswith(data[1000:20_000])


async def test_where_the_source_has_ended_so_does_the_answer_and_a_part_that_is_not_there_breaks_off(tmp_path: Path):
    async with client(tmp_path, "/lines?count=300") as at, asyncio.timeout(20):
        data = await at.body("")
        assert numbers(data) == list(range(1, 301))
        async with at.get(Range=f"bytes={len(data)}-") as answer:
            assert (answer.status, await answer.read()) == (206, b"")
        async with at.get(Range=f"bytes=10-{len(data)}") as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_who_asks_for_the_end_is_told_by_what_is_signed_that_there_is_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with client(tmp_path, "/lines?count=300") as at, asyncio.timeout(20):
        await at.body("")
        newest = checkpoints.read(notes.read(await at.body("/checkpoint")).text)
        assert newest.extensions == ("end",)
        assert await at.body(f"/checkpoint?after={newest.size}&end") == await at.body("/checkpoint")
        first = checkpoints.read(notes.read(await at.body("/checkpoint?after=1&end")).text)
        assert first.size > 1, "what there is comes before"
        monkeypatch.setattr(live_api, "PATIENCE_SECONDS", 0.01)
        assert await at.body(f"/checkpoint?after={newest.size}", 204) == b"", "others wait, as before"


@pytest.mark.parametrize("signs", [False, True])
async def test_one_that_has_seen_the_manifest_is_one_that_signs_and_is_not_done_with_what_has_left(tmp_path: Path, signs: bool):
    async with client(tmp_path, "/lines?count=300") as at, asyncio.timeout(20):
        await at.body("")
        if signs:
            await at.body("/manifest")
        assert at.rig.metering is not None
        assert at.rig.metering.lives is not None
        assert at.rig.metering.lives._flows[TRANSFER].taking.means() is signs


async def test_nobody_is_told_that_what_goes_on_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_api, "PATIENCE_SECONDS", 0.01)
    async with client(tmp_path, "/lines?pause=0.1") as at, asyncio.timeout(20):
        await at.take(10)
        assert checkpoints.read(notes.read(await at.body("/checkpoint")).text).extensions == ()
        assert await at.body("/checkpoint?after=100000&end", 204) == b""


@pytest.mark.parametrize(("path", "ending"), [("/lines?size=900", b"\n"), ("/events?size=900", b"\n\n")])
async def test_as_many_records_leave_as_are_allowed_and_the_stream_ends_with_the_last(tmp_path: Path, path: str, ending: bytes):
    async with client(tmp_path, path) as at:
        at.rig.change(tallies=(Tally("/permission/0", RECORD_COUNT, (321,)),))
        async with asyncio.timeout(20), at.get() as answer:
            data = await all_of(answer)
        assert data.endswith(ending)
        assert data.count(ending) == 321


@pytest.mark.parametrize(("operand", "most"), [(RECORD_COUNT, 321), (METERED_TIME, 300_000)], ids=["records", "time"])
async def test_at_a_quota_who_signs_is_waited_for_while_nothing_leaves_and_a_suspension_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operand: str, most: int
):
    waits, seconds, left = asyncio.Event(), list[float](), list[int]()

    async def signed_as_left(taking: Taking, bound_seconds: float) -> None:
        seconds.append(bound_seconds)
        left.append(taking._out_bytes)
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Taking, "signed_as_left", signed_as_left)
    async with client(tmp_path) as at:
        at.rig.change(tallies=(Tally("/permission/0", operand, (most,)),))
        await at.body("/manifest")
        async with asyncio.timeout(20), at.get() as answer:
            taken = asyncio.create_task(all_of(answer))
            await waits.wait()
            assert not left[0] or await at.body("/checkpoint?after=1"), "the transfer runs, and what has left can be proven"
            usage = await at.rig.store.usage("urn:agreement")
            assert usage is not None
            assert (usage.spent("/permission/0", operand), usage.open) == (most, ()), "no time runs for what waits"
            assert at.rig.marks.asked == []
            assert at.rig.metering is not None
            account = at.rig.metering.accounts.at_hand(TRANSFER)
            assert account is not None
            with monkeypatch.context() as later:
                later.setattr(flowing, "monotonic", lambda: monotonic() + 3600)
                assert account.microseconds < 3600 * MICROSECONDS, "and none is billed for it"
            at.rig.change(state="SUSPENDED")
            data = await taken
        assert set(seconds) == {live_api.SIGNED_SECONDS}
        assert len(data) <= max(left) + BATCH_BYTES, "one piece was on its way"


async def test_a_budget_ends_before_the_leaf_that_it_does_not_pay_for(tmp_path: Path):
    """Nobody could sign for a part of one, so it would be had for nothing."""
    budget = 700
    async with client(tmp_path, "/lines?size=900") as at, asyncio.timeout(20):
        at.rig.change(tallies=(Tally("/permission/0", "money", (budget,), Pricing(1, 0, ((RECORD_COUNT, 1),))),))
        async with at.get() as answer:
            data = await all_of(answer)
        assert at.rig.metering is not None
        assert at.rig.metering.lives is not None
        with at.rig.metering.lives.log_of(TRANSFER) as log:
            assert log is not None
            paid = max(last for last in range(1, log.leaves + 1) if log.records(1, last) <= budget)
            assert (len(data), data.count(b"\n")) == (log.span(1, paid)[1], log.records(1, paid))
        assert data, "a leaf has fewer records than that"


async def test_what_a_stage_has_made_of_the_data_is_what_is_hashed_signed_and_sent_and_the_checkpoint_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flow, "WINDOW_BYTES", 2 * CHUNK_BYTES)
    async with client(tmp_path, window_bytes=2 * CHUNK_BYTES) as at:
        at.rig.change(stages=(Upper(),))
        _, data = await at.take(1_500_000)
        assert data.startswith(b'{"N":1,"X":"YYY')
        note = await at.body("/checkpoint?after=1")
        manifest = kept(Manifest, (await at.body("/manifest")).decode())
        signed = checkpoints.open(note, manifest.log.origin, [notes.VerifierKey(manifest.log.origin, key_of(PROVIDER).key.public)])
        assert signed.checkpoint.extensions == ("stage upper",)
        listed = read_sealed(await at.body(f"/sealed/1-{signed.checkpoint.size}"), CHUNK_BYTES)
        spans = [listed.span(leaf, leaf + 1) for leaf in range(1, signed.checkpoint.size)]
        hashes = [leaf_hash(data[first : first + length]) for first, length in spans if first + length <= len(data)]
        assert len(hashes) == len(spans)
        assert signed.checkpoint.root == root_of([leaf_hash(await at.body("/header")), *hashes])


async def test_what_lies_beside_proves_what_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow, "WINDOW_BYTES", 2 * CHUNK_BYTES)
    async with client(tmp_path, window_bytes=2 * CHUNK_BYTES) as at:
        _, data = await at.take(2_000_000)
        header = await at.body("/header")
        manifest = kept(Manifest, (await at.body("/manifest")).decode())
        assert (manifest.log.root, manifest.log.size, read_header(header).size_bytes, manifest.unit) == (None, None, None, "line")
        key = notes.VerifierKey(manifest.log.origin, key_of(PROVIDER).key.public)
        size, sealed = 1, Sealed()
        while sealed.size_bytes < 1_000_000:
            note = await at.body(f"/checkpoint?after={size}")
            said = checkpoints.open(note, manifest.log.origin, [key]).checkpoint
            assert said.size > size
            assert read_sealed(await at.body(f"/sealed/{size}-{said.size}"), CHUNK_BYTES).size_bytes <= 2 * CHUNK_BYTES, (
                "it fits into the credit"
            )
            read_sealed(await at.body(f"/sealed/{size}-{said.size}"), CHUNK_BYTES, sealed)
            size = said.size
            spans = [sealed.span(leaf, leaf + 1) for leaf in range(1, size)]
        hashes = [leaf_hash(header), *(leaf_hash(data[first : first + length]) for first, length in spans)]
        assert said.root == root_of(hashes)
        assert sealed.measure(((1, size),)).records == data[: sealed.size_bytes].count(b"\n")
        tile = await at.body(f"/tile/0/000.p/{min(size, 255)}")
        assert tile[:32] == leaf_hash(header)


async def test_what_is_dropped_or_lies_ahead_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lives, "SEGMENT_BYTES", 1024 * 1024)
    async with client(tmp_path, "/lines?size=9000", spool_bytes=4 * 1024 * 1024) as at:
        answer, _ = await at.take(10_000_000)
        assert at.rig.metering is not None
        assert at.rig.metering.lives is not None
        with at.rig.metering.lives.log_of(TRANSFER) as log:
            assert log is not None
            end = log.end
        async with at.get(Range="bytes=0-", If_Range=answer.headers["ETag"]) as dropped:
            assert dropped.status == 416
            assert "are dropped, as they were acknowledged" in (await dropped.json())["detail"]
        async with at.get(Range=f"bytes={end + 10**9}-") as ahead:
            assert (ahead.status, "so far" in (await ahead.json())["detail"]) == (416, True)
        whole, rest = await at.take(100_000)
        assert (whole.status, "ETag" in whole.headers) == (200, False)
        found = numbers(rest)
        assert found == list(range(found[0], found[0] + len(found)))
        assert found[0] > 1


@pytest.mark.parametrize("has_bytes", [0, 123_457])
async def test_a_client_that_has_signed_nothing_goes_on_where_it_was_after_a_loss_of_power(tmp_path: Path, has_bytes: int):
    (tmp_path / "root").mkdir()
    async with upstream.running() as url:
        store, etag, data = MemoryStore(), "", b""
        for life in ("before", "after"):
            limits: dict[str, Any] = {"metered": True, "store": store, "live": {"life": life}}
            async with provider(tmp_path / "root", **limits) as rig, aiohttp.ClientSession() as http:
                await rig.publish_live(f"{url}/lines?size=900", since=SINCE)
                at = Client(rig, http)
                await at.body("/manifest")  # nothing of the bytes is needed for it
                if life == "before":
                    answer, data = await at.take(2_000_000)
                    etag = answer.headers["ETag"]
                else:
                    more, rest = await at.take(2_500_000, Range=f"bytes={has_bytes}-", If_Range=etag)
                    assert more.status == 206
            power_gone(tmp_path / "root.live", bytes_too=True)
    assert data[:has_bytes] + rest[: len(data) - has_bytes] == data
    assert numbers(data[:has_bytes] + rest) == list(range(1, 1 + len(numbers(data[:has_bytes] + rest))))


async def test_a_range_of_another_log_is_answered_with_what_there_is(tmp_path: Path):
    async with client(tmp_path) as at:
        answer, _ = await at.take(1000, Range="bytes=500-", If_Range='"other"')
        assert answer.status == 200
        async with at.get(method="HEAD") as head:
            assert (head.status, "ETag" in head.headers, await head.read()) == (200, True, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/checkpoint?after=0", 400),
        ("/checkpoint?after=x", 400),
        ("/checkpoint?after=99999999999999999999", 400),
        ("/sealed/0-1", 404),
        ("/sealed/2-1", 404),
        ("/sealed/1-99999999", 404),
        ("/sealed/1", 404),
        ("/tile/0/999", 404),
    ],
)
async def test_what_is_not_there_beside_is_refused(tmp_path: Path, path: str, status: int):
    async with client(tmp_path) as at:
        await at.take(1000)
        await at.body(path, status)


async def test_without_news_a_request_for_a_checkpoint_ends_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_api, "PATIENCE_SECONDS", 0.05)
    async with client(tmp_path) as at:
        assert await at.body("/checkpoint?after=1", 204) == b""


async def test_nothing_leaves_before_a_receipt_where_the_agreement_demands_them(tmp_path: Path):
    async with client(tmp_path) as at:
        at.rig.change(demands=frozenset({COUNTERSIGNED}))
        async with at.get() as answer:
            assert (answer.status, (await answer.json())["type"].rpartition(":")[2]) == (403, "receipt-required")


async def test_what_a_client_gets_that_signs_nothing_is_counted_by_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left, plain = asyncio.Semaphore(0), Flows._leave

    def leave(flows: Flows, stream: Running) -> None:
        plain(flows, stream)
        left.release()

    monkeypatch.setattr(Flows, "_leave", leave)
    async with client(tmp_path) as at:
        _, data = await at.take(1_000_000)
        await at.take(10_000, Range="bytes=0-", If_Range="x")
        async with asyncio.timeout(20):
            for _ in range(2):  # what was sent counts once the streams are over
                await left.acquire()
        assert at.rig.metering is not None
        await at.rig.metering.accounts.write_now()
        stored = await at.rig.store.metered(TRANSFER)
        assert stored is not None
        assert (stored.attested, stored.counts.calls >= 1, stored.counts.bytes >= len(data)) == ("provider-only", True, True)


async def test_a_transfer_that_is_suspended_is_cut_and_its_token_opens_nothing(tmp_path: Path):
    async with client(tmp_path, "/lines?pause=0.01") as at, at.get() as answer:
        await answer.content.readany()
        at.rig.change(state="SUSPENDED")
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(10):
                await answer.content.read()
        async with at.get() as refused:
            assert refused.status == 403
