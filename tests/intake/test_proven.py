"""Downloads of which each leaf is proven: right, receipted, taken up, in parallel; and every lie about the data found and named."""

import asyncio
import hashlib
import os
import random
import threading
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from connector.adapters.file_sink import FileSinks
from connector.errors import ConnectorError, PeerFailed, PolicyError, SinkFailed
from connector.intake import account, patience, proven, room
from connector.intake.download import PARALLEL_TLS
from connector.intake.heads import Head, read_head
from connector.intake.promise import Broken
from connector.intake_files.finishing import ONLY_SIZE
from connector.lanes import hashing
from connector.metering.ranges import union
from connector.ports.sinks import Sinks
from connector.records import Pull
from connector.records.metering import Metered
from connector.values import replace
from tests.contracts.memory_sinks import MemorySinks
from tests.dataplane.rig import PROVIDER, some_bytes
from tests.faults.patience import own_patience
from tests.intake.signed_provider import CHUNK, Consumer, SignedProvider, both, of_both
from tests.lanes.compiled import by_lanes

CONTENT = some_bytes(40 * CHUNK + 4321)
WHOLE = ((1, 42),)

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other sooner than in the field, and windows are smaller."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.1)
    monkeypatch.setattr(account, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(proven, "WINDOW_BYTES", 4 * CHUNK)
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)


@pytest.fixture(params=["file", "memory"])
def sinks(request: pytest.FixtureRequest, tmp_path: Path) -> Sinks:
    """With a descriptor, into which threads move, and without one."""
    (tmp_path / "out").mkdir()
    return FileSinks([tmp_path / "out"]) if request.param == "file" else MemorySinks()


def written(consumer: Consumer) -> bytes:
    if isinstance(consumer.sinks, MemorySinks):
        return consumer.sinks.files[str(consumer.out)]
    return consumer.out.read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:CHUNK], CONTENT], ids=len)
@pytest.mark.parametrize("required", [False, True])
async def test_what_is_signed_for_is_proven_receipted_and_has_its_name(tmp_path: Path, sinks: Sinks, content: bytes, required: bool):
    async with both(tmp_path, content, sinks=sinks, required=required) as (provider, consumer):
        done = await consumer.fetch()
        assert written(consumer) == content
        assert (done.size_bytes, done.received_bytes, done.validator, done.reasons) == (len(content), len(content), provider.etag, ())
        # No bytes are asked for before the first receipt, and none at all if there are none: then nobody states a digest.
        assert (done.sha256, done.stated) == (hashlib.sha256(content).digest(), bool(content) or not required)
        of_both(provider, await consumer.account())
        assert provider.account.status == "complete"
        assert provider.account.counts.bytes == len(content)
        assert [each.sequence for each in provider.receipts] == list(range(1, len(provider.receipts) + 1))
        if required or len(content) > proven.AT_ONCE_BYTES:  # else one receipt may do for all that had come when it was signed
            assert provider.receipts[0].ranges == ()
        assert {each.after for each in provider.receipts} == {"fsync"}
        assert provider.receipts == await consumer.signed()
        assert provider.asked["GET "] == 1 + (required and bool(content))  # the answer that named the manifest is the one that is read


async def test_nothing_is_signed_for_under_prices_that_nobody_here_understands(tmp_path: Path, sinks: Sinks):
    def unreadable(document: Mapping[str, Any]) -> bytes | None:
        raise PolicyError("the prices are not understood", ("`furlong` is no unit",))

    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        downloads = consumer.downloads()
        assert downloads.metering is not None
        downloads.metering = replace(downloads.metering, prices=unreadable)
        with pytest.raises(Broken) as broken:
            await downloads.fetch(consumer.order(), consumer.edr(), **consumer.watcher.calls)
        assert (broken.value.code, "`furlong` is no unit" in broken.value.message) == ("prices-unreadable", True)
        assert provider.receipts == []


@pytest.mark.parametrize("bound", [{"most_bytes": CHUNK}, {"until": 4e9}])
async def test_a_part_of_data_with_an_end_is_not_to_be_had_and_nothing_is_signed_for(tmp_path: Path, sinks: Sinks, bound: dict[str, Any]):
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        with pytest.raises(Broken, match="order them without") as broken:
            await consumer.fetch(replace(consumer.order(), **bound))
        assert broken.value.code == "data-have-end"
        assert provider.receipts == []


async def test_never_more_than_the_credit_is_on_its_way_and_the_data_come_all_the_same(tmp_path: Path, sinks: Sinks):
    async with both(tmp_path, CONTENT, sinks=sinks, required=True, window_bytes=CHUNK, credit_windows=2) as (provider, consumer):
        await consumer.fetch()
        assert written(consumer) == CONTENT
        told = [each.counts.bytes for each in provider.receipts]
        assert max(after - before for before, after in pairwise(told)) <= 2 * CHUNK
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("parallel", [2, 5])
async def test_several_connections_bring_the_parts_of_one_file(tmp_path: Path, sinks: Sinks, parallel: int):
    async with both(tmp_path, CONTENT, sinks=sinks, required=True, window_bytes=16 * CHUNK) as (provider, consumer):
        provider.barrier = asyncio.Barrier(parallel)  # nobody gets a byte before all are there
        provider.cuts = [CHUNK * 3 + 17, CHUNK]
        await consumer.fetch(consumer.order(parallel=parallel))
        assert written(consumer) == CONTENT
        assert len(set(provider.ranges)) >= 10
        of_both(provider, await consumer.account())
        assert (provider.account.counts.bytes, provider.account.counts.calls) == (len(CONTENT), 1), "a transfer is one call"


async def test_legs_ask_for_half_of_their_part_of_what_is_missing_and_for_a_window_at_least(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await consumer.fetch(consumer.order(parallel=2))
        asked = [[int(at) for at in each.removeprefix("bytes=").split("-")] for each in provider.ranges[1:]]
        assert asked[0][0] == 10 * CHUNK, "the first answer, of all, was used for a quarter"
        assert [1 + last // CHUNK - first // CHUNK for first, last in asked] == [7, 6, 4, 4, 4, 4, 2]
        assert written(consumer) == CONTENT


async def test_stray_refusals_hours_apart_end_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loop, asked, hours = asyncio.get_running_loop(), 0, 0.0
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + hours)

    def stray(_provider: SignedProvider, _request: web.Request) -> web.Response | None:
        nonlocal asked, hours
        asked += 1
        if asked not in (3, 8):
            return None
        hours += 2 * patience.REFUSED_SECONDS
        return web.Response(status=403)

    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies[""] = stray
        await consumer.fetch(consumer.order(parallel=2))
        assert asked > 8
        of_both(provider, await consumer.account())


async def test_what_is_garbled_on_the_way_of_one_leg_uses_up_no_try_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = Counter[str]()

    def flipped(status: int, headers: Mapping[str, str], offset: int, **more: Any) -> Head:
        task = asyncio.current_task()
        assert task is not None
        asked[task.get_name()] += 1
        if asked[task.get_name()] <= patience.AGAIN_MAX:
            raise Broken("the signature of the answer does not hold", "signature-wrong")
        return read_head(status, headers, offset, **more)

    monkeypatch.setattr(proven, "read_head", flipped)
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await consumer.fetch(consumer.order(parallel=3))
        assert len(asked) > 1, "one leg begins with what flows already"
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))])
async def test_cuts_anywhere_cost_nothing_twice(tmp_path: Path, sinks: Sinks, seed: int):
    chance = random.Random(seed)
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.cuts = [chance.randrange(600_000) for _ in range(12)]
        await consumer.fetch(consumer.order(parallel=chance.choice((1, 3))))
        assert written(consumer) == CONTENT
        of_both(provider, await consumer.account())
        assert provider.account.counts.bytes == len(CONTENT)
        assert provider.account.ranges == WHOLE


@pytest.mark.parametrize("first", [True, False])
async def test_a_leaf_that_is_wrong_once_is_rejected_and_fetched_again_alone(tmp_path: Path, sinks: Sinks, first: bool):
    leaf, ports = 1 if first else 23, list[int]()

    def seen(_provider: SignedProvider, request: web.Request) -> None:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])

    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.corrupt, provider.lies[""] = {leaf: 1}, seen
        await consumer.fetch()
        assert len(ports) == len(set(ports)) == 2, "the connection that brought it is used no more"
        assert written(consumer) == CONTENT
        rejected = [each for each in provider.receipts if each.state == "rejected"]
        wrong = bytearray(CONTENT[(leaf - 1) * CHUNK : leaf * CHUNK])
        wrong[0] ^= 1
        assert [each.rejected and (each.rejected.leaf, each.rejected.got) for each in rejected] == [
            (leaf, hashlib.sha256(b"\0" + wrong).digest())
        ]
        assert provider.ranges[-1] == f"bytes={(leaf - 1) * CHUNK}-{leaf * CHUNK - 1}"
        of_both(provider, await consumer.account())
        assert provider.account.status == "complete"


@pytest.mark.parametrize("corrupt", [{}, {1: 1}])
async def test_what_flows_already_is_taken_while_the_account_is_opened(
    tmp_path: Path, corrupt: dict[int, int], monkeypatch: pytest.MonkeyPatch
):
    refused = 0
    synced: list[int] = []
    told: list[int] = []  # for each receipt, how often the disk was waited for until then
    monkeypatch.setattr(os, "fdatasync", synced.append)

    def not_yet(_provider: SignedProvider, request: web.Request) -> web.Response | None:
        nonlocal refused
        if request.method == "GET" or consumer.part.stat().st_size >= 16 * CHUNK or refused == 100:
            return None
        refused += 1
        return web.Response(status=503)

    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies = {"receipts": not_yet, "ack": lambda *_: told.append(len(synced))}
        provider.corrupt = dict(corrupt)
        await consumer.fetch()
        assert refused < 100, "the data waited for the first receipt"
        assert [each.rejected.leaf for each in provider.receipts if each.rejected] == list(corrupt)
        assert (provider.receipts[0].ranges, told[0]) == ((), 0), "the first receipt says nothing yet, and waits for no data"
        assert synced
        assert written(consumer) == CONTENT
        assert provider.asked["GET "] == 1 + len(corrupt)
        of_both(provider, await consumer.account())


async def test_what_is_here_when_the_account_is_opened_takes_one_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)
    async with both(tmp_path, CONTENT[:CHUNK]) as (provider, consumer):
        await consumer.fetch()
        (only,) = provider.receipts
        assert (only.sequence, only.state, only.ranges) == (1, "complete", ((1, 2),))
        assert (await consumer.account()).version == 2, "the receipt, and its ack: it has none to follow"
        of_both(provider, await consumer.account())


async def test_what_does_not_come_for_a_while_has_its_account_opened_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def opened(provider: SignedProvider, _request: web.Request) -> None:
        monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)  # a machine that is busy in between is no reason for another receipt
        if provider.barrier:
            provider.barrier.set()  # no data come before a receipt

    async with both(tmp_path, CONTENT[:CHUNK]) as (provider, consumer):
        provider.barrier = asyncio.Event()
        provider.lies["ack"] = opened
        await consumer.fetch()
        assert [each.ranges for each in provider.receipts] == [(), ((1, 2),)]
        of_both(provider, await consumer.account())


async def test_whoever_stops_before_anything_has_come_opens_the_account_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)
    async with both(tmp_path, CONTENT[:CHUNK]) as (provider, consumer):
        provider.barrier = asyncio.Event()
        over = asyncio.Event()
        calls = consumer.watcher.calls | {"over": over.is_set}
        fetching = asyncio.create_task(consumer.downloads().fetch(consumer.order(), consumer.edr(), **calls))
        while not provider.asked["GET receipts"]:  # noqa: ASYNC110 - the account is being opened, of which nobody tells
            await asyncio.sleep(0.001)
        over.set()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        provider.barrier.set()
        assert [each.ranges for each in provider.receipts] == [()], "else the provider's word of what it has sent would count"


async def test_the_last_receipt_puts_the_ack_before_it_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)  # a machine that is busy in between is no reason for another receipt
    async with both(tmp_path, CONTENT[:CHUNK], required=True) as (provider, consumer):
        await consumer.fetch()
        mine = await consumer.account()
        assert (len(provider.receipts), mine.version) == (2, 3), "two receipts, and the last ack: it has none to follow"
        assert all(each.ack for each in await consumer.store.receipts(provider.pid))


async def test_a_leaf_that_is_wrong_twice_ends_the_download_which_names_it_and_nothing_of_it_counts(tmp_path: Path, sinks: Sinks):
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.corrupt = {7: 2}
        with pytest.raises(Broken, match=rf"leaf 7 \(bytes {6 * CHUNK} to {7 * CHUNK - 1}\) came twice with other bytes") as caught:
            await consumer.fetch()
        assert caught.value.code == "leaf-wrong"
        assert (await consumer.account()).counts.bytes <= len(CONTENT) - CHUNK
        assert not consumer.out.exists()
        assert [each.rejected.leaf for each in provider.receipts if each.rejected] == [7]
        of_both(provider, await consumer.account())
        await consumer.fetch()  # the provider has mended its disk
        assert written(consumer) == CONTENT
        assert provider.account.counts.bytes == len(CONTENT)


async def test_a_provider_that_finds_its_own_data_wrong_is_not_waited_for(tmp_path: Path):
    def own(provider: SignedProvider, _request: web.Request) -> web.Response | None:
        body = b'{"type":"urn:qiao:problem:source-failed"}'
        return None if provider.corrupt[7] else web.Response(status=502, body=body, content_type="application/problem+json")

    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.corrupt, provider.lies[""] = {7: 1}, own
        with pytest.raises(Broken, match=rf"leaf 7 .* came once with other bytes than `{PROVIDER}` has signed; the provider has found"):
            await consumer.fetch()
        assert [each.rejected.leaf for each in provider.receipts if each.rejected is not None] == [7]


@pytest.mark.parametrize("lanes", [False, True], ids=["hashlib", "lanes"])
async def test_what_the_disk_has_lost_is_fetched_again_and_not_paid_for_again(
    tmp_path: Path, sinks: Sinks, lanes: bool, monkeypatch: pytest.MonkeyPatch
):
    if lanes:
        monkeypatch.setattr(hashing, "HASHING", by_lanes())
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.cuts = [30 * CHUNK, *[0] * 1000]
        with pytest.raises(PeerFailed, match="the part is kept"):
            await consumer.fetch(patience_seconds=0.1)
        receipted = (await consumer.account()).counts.bytes
        assert receipted > 10 * CHUNK
        await _damage(consumer, 3 * CHUNK, b"lost")
        provider.cuts, provider.ranges, sent = [], [], provider.sent_bytes
        await consumer.fetch(consumer.watcher.reports[-1])
        assert written(consumer) == CONTENT
        assert provider.ranges[0] == f"bytes={3 * CHUNK}-{4 * CHUNK - 1}"  # first what is signed for and is not here
        assert provider.sent_bytes - sent <= 13 * CHUNK
        assert provider.account.counts.bytes == len(CONTENT)
        of_both(provider, await consumer.account())


async def _damage(consumer: Consumer, offset: int, piece: bytes) -> None:
    sink = await consumer.sinks.open(str(consumer.out), "urn:pull", overwrite=False)
    await sink.write(offset, piece)
    await sink.close()


OTHER = "urn:uuid:another-transfer"


async def _taken_up(provider: SignedProvider, consumer: Consumer) -> tuple[Pull, Metered]:
    """Fetch about three quarters, and have another transfer begun for the rest: the order for it, and the account of the first one."""
    provider.cuts = [30 * CHUNK, *[0] * 1000]
    with pytest.raises(PeerFailed):
        await consumer.fetch(patience_seconds=0.1)
    before = await consumer.account()
    order = consumer.watcher.reports[-1]
    provider.cuts, provider.pid, provider.receipts = [], OTHER, []
    provider.manifest_changes["provider_pid"] = "urn:uuid:other-provider-pid"
    provider.begin()
    await consumer.know(OTHER, "urn:uuid:other-provider-pid")
    known = {"validator": order.validator, "size_bytes": order.size_bytes, "earlier": (before.transfer,)}
    return consumer.order(transfer=OTHER, **known), before


async def test_what_an_earlier_transfer_has_brought_is_not_paid_for_under_the_next_one(tmp_path: Path, sinks: Sinks):
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        order, before = await _taken_up(provider, consumer)
        await consumer.fetch(order)
        assert written(consumer) == CONTENT
        account = await consumer.account()
        of_both(provider, account)
        assert union(before.ranges, account.ranges) == WHOLE
        assert before.counts.bytes + account.counts.bytes == len(CONTENT)


async def test_the_last_receipt_of_a_transfer_that_goes_on_covers_what_came_after_the_last_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A window is on the disk and waits for its receipt, and more has come, as the last leaf arrives."""

    async def behind(self: account.Account) -> None:
        self.verified(((31, 36),))
        await self._keep()
        while not self._ending:
            await self._news.wait()
            self._news.clear()

    async with both(tmp_path, CONTENT) as (provider, consumer):
        order, before = await _taken_up(provider, consumer)
        monkeypatch.setattr(account.Account, "run", behind)
        await consumer.fetch(order)
        after = await consumer.account()
        of_both(provider, after)
        assert before.counts.bytes + after.counts.bytes == len(CONTENT)
        assert union(before.ranges, after.ranges) == WHOLE


async def test_an_order_of_which_not_everything_is_signed_for_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def nothing(_self: account.Account) -> None:
        return

    async with both(tmp_path, CONTENT) as (_, consumer):
        monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)  # on a slow machine a receipt over all of it would be due meanwhile
        monkeypatch.setattr(account.Account, "complete", nothing)
        monkeypatch.setattr(account.Account, "last", lambda *_: nothing(_[0]))
        with pytest.raises(PeerFailed, match="signed for by nobody; the part is kept"):
            await consumer.fetch()
        assert not consumer.out.exists()


@pytest.mark.parametrize("after", ["fsync", "write"])
async def test_data_are_on_the_disk_before_they_are_signed_for_and_the_receipt_says_how(
    tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out").mkdir()
    synced: list[int] = []  # how much of the file there was when a sync began that has ended
    told: list[tuple[int, int]] = []
    sync = os.fdatasync

    def seen(descriptor: int) -> None:
        size_bytes = os.fstat(descriptor).st_size
        sync(descriptor)
        synced.append(size_bytes)

    def noted(provider: SignedProvider, _request: web.Request) -> None:
        told.append((provider.receipts[-1].counts.bytes, max(synced, default=0)))

    whole: list[int] = []
    everything = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (everything(descriptor), whole.append(descriptor)))
    monkeypatch.setattr(os, "fdatasync", seen)
    async with both(tmp_path, CONTENT, after=after) as (provider, consumer):
        provider.lies["ack"] = noted
        await consumer.fetch()
        assert {each.after for each in provider.receipts} == {after}
        assert told[-1][0] == len(CONTENT)
        assert after == "write" or all(signed <= durable for signed, durable in told)
        assert bool(synced) is (after == "fsync")
        assert bool(whole) is (after == "fsync")


async def test_lines_are_counted_where_they_are_records(tmp_path: Path, sinks: Sinks):
    text = b"".join(b'{"n":%d}\n' % n for n in range(60_000))
    async with both(tmp_path, text, sinks=sinks, media_type="application/x-ndjson") as (provider, consumer):
        provider.cuts = [5 * CHUNK + 3, *[0] * 1000]
        with pytest.raises(PeerFailed):
            await consumer.fetch(patience_seconds=0.1)
        provider.cuts = []
        await consumer.fetch()
        assert written(consumer) == text
        assert provider.account.counts.records == 60_000
        of_both(provider, await consumer.account())


async def test_a_digest_that_is_stated_is_compared_too(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.content = CONTENT[:-1] + b"?"  # what Repr-Digest is made of; the log has the true one
        provider.corrupt = {}
        with pytest.raises(ConnectorError) as caught:
            await consumer.fetch()
        assert isinstance(caught.value, PeerFailed)
        assert not consumer.out.exists()


async def test_without_a_stated_digest_ours_is_kept_before_the_file_has_its_name(tmp_path: Path):
    async with both(tmp_path, CONTENT, stated=False) as (_, consumer):
        done = await consumer.fetch()
        assert (done.sha256, done.stated, done.reasons) == (hashlib.sha256(CONTENT).digest(), False, ())
        last = consumer.watcher.reports[-1]
        assert (last.sha256, last.stated, last.validator) == (done.sha256, False, done.validator)


async def test_a_crash_before_the_file_had_its_name_costs_no_byte(tmp_path: Path, sinks: Sinks, monkeypatch: pytest.MonkeyPatch):
    class Gone(Exception):
        """The process ends here."""

    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        kind = type(await consumer.sinks.open("x", "y", overwrite=False))
        with monkeypatch.context() as patched:

            async def dies(_self: object, **_: object) -> None:
                raise Gone

            patched.setattr(kind, "commit", dies)
            with pytest.raises(Gone):
                await consumer.fetch()
        sent = provider.sent_bytes
        order = consumer.watcher.reports[-1]
        assert (await consumer.downloads().finish(order, progress=consumer.watcher.progress)) is not None
        assert written(consumer) == CONTENT
        assert provider.sent_bytes == sent


async def test_a_full_disk_is_said_to_the_provider_and_the_part_is_kept(tmp_path: Path):
    sinks = MemorySinks()
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        full = 20 * CHUNK

        def fills(_order: object) -> None:
            sinks.space_bytes = full

        consumer.watcher.on_report = fills
        with pytest.raises(SinkFailed, match="no space"):
            await consumer.fetch(patience_seconds=0.1)
        assert (provider.receipts[-1].state, provider.receipts[-1].reason) == ("aborted", "sink")
        of_both(provider, await consumer.account())
        sinks.space_bytes, consumer.watcher.on_report = 1 << 30, None
        await consumer.fetch()
        assert written(consumer) == CONTENT
        assert provider.account.counts.bytes == len(CONTENT)


async def test_a_download_that_is_cancelled_lets_go_of_everything_at_once(tmp_path: Path):
    threads = threading.active_count()
    async with both(tmp_path, CONTENT, required=True, window_bytes=CHUNK, credit_windows=1) as (provider, consumer):
        fifth = asyncio.Event()

        def no_more_acks(*_: object) -> web.Response | None:
            if len(provider.receipts) < 5:
                return None
            fifth.set()
            return web.Response(status=503)

        provider.lies["ack"] = no_more_acks
        fetching = asyncio.create_task(consumer.fetch())
        await fifth.wait()
        fetching.cancel()
        async with own_patience(1.0):
            with pytest.raises(asyncio.CancelledError):
                await fetching
        assert not [t for t in threading.enumerate() if "127.0.0.1" in t.name]
        provider.lies.clear()
        await consumer.fetch()
        assert written(consumer) == CONTENT
    assert threading.active_count() <= threads + 8  # the loop's own workers


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_came_before_the_transfer_ended_is_signed_for(
    tmp_path: Path, sinks: Sinks, cancelled: bool, monkeypatch: pytest.MonkeyPatch
):
    """Be it that the provider cuts the last answer, or that we give it up on its word that the transfer is over."""
    monkeypatch.setattr(account, "QUIET_SECONDS", 60.0)
    come, never = asyncio.Event(), asyncio.Event()
    async with both(tmp_path, CONTENT, sinks=sinks, window_bytes=30 * CHUNK) as (provider, consumer):

        async def stop(leaf: int) -> None:
            if leaf == 21:
                await never.wait()

        if cancelled:
            provider._allow = stop  # type: ignore[method-assign]
        else:
            provider.cuts = [20 * CHUNK + 1000]
        consumer.watcher.on_report = lambda seen: come.set() if seen.received_bytes == 20 * CHUNK else None
        calls = consumer.watcher.calls | {"over": lambda: True}
        fetching = asyncio.create_task(consumer.downloads().fetch(consumer.order(), consumer.edr(), **calls))
        if cancelled:
            await come.wait()
            fetching.cancel()
        with pytest.raises((PeerFailed, asyncio.CancelledError)):
            await fetching
        of_both(provider, await consumer.account())
        assert provider.account.counts.bytes == 20 * CHUNK
        assert (provider.account.status, provider.account.ranges) == ("open", ((1, 21),))
        never.set()


async def test_the_progress_is_what_is_verified(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await consumer.fetch()
        told = [each.received_bytes for each in consumer.watcher.reports]
        assert told == sorted(told)
        assert (told[0], told[-1]) == (0, len(CONTENT))
        assert {each.size_bytes for each in consumer.watcher.reports} == {len(CONTENT)}
        assert {each.validator for each in consumer.watcher.reports} == {provider.etag}


async def test_over_tls_leaves_are_compared_before_they_are_written(tmp_path: Path):
    async with both(tmp_path, CONTENT, authority=trustme.CA(), required=True) as (provider, consumer):
        provider.cuts, provider.corrupt = [7 * CHUNK + 5], {30: 1}
        provider.barrier = asyncio.Barrier(PARALLEL_TLS)  # two connections at once, if nobody says how many
        await consumer.fetch()
        assert written(consumer) == CONTENT
        assert [each.rejected.leaf for each in provider.receipts if each.rejected] == [30]
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("after", ["fsync", "write"])
@pytest.mark.parametrize("stated", [True, False])
async def test_when_a_transfer_is_over_all_may_be_here_already(tmp_path: Path, after: str, stated: bool):
    """A digest proves it; without one what we have signed for, if that outlives a loss of power."""
    async with both(tmp_path, CONTENT, after=after, stated=stated) as (provider, consumer):
        await consumer.fetch()
        consumer.out.rename(consumer.part)  # as before it had its name
        order = next(each for each in reversed(consumer.watcher.reports) if each.sha256 is None or each.stated)
        asked = provider.asked.total()
        found = await consumer.downloads().finish(order, progress=consumer.watcher.progress)
        assert provider.asked.total() == asked
        assert (found is not None) is (stated or after == "fsync")
        if found is not None:
            assert (found.stage, found.reasons, consumer.out.read_bytes() == CONTENT) == ("download", (), True)


async def test_what_has_gaps_is_not_all_that_it_is_long(tmp_path: Path):
    async with both(tmp_path, CONTENT, stated=False) as (_, consumer):
        sink = await consumer.sinks.open(str(consumer.out), "urn:pull", overwrite=False)
        await sink.write(len(CONTENT) - 10, CONTENT[-10:])
        await sink.close()
        order = consumer.order(validator=consumer.provider.etag, size_bytes=len(CONTENT))
        assert await consumer.downloads().finish(order, progress=consumer.watcher.progress) is None
        assert consumer.part.stat().st_size == len(CONTENT)


async def test_a_part_of_proven_leaves_is_begun_again_with_a_provider_that_proves_nothing(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        sink = await consumer.sinks.open(str(consumer.out), "urn:pull", overwrite=False)
        await sink.write(10 * CHUNK, CONTENT[10 * CHUNK : 12 * CHUNK])
        await sink.close()

        def plain(told: SignedProvider, request: web.Request) -> web.Response:
            body, headers = CONTENT, {"ETag": told.etag}
            if (asked := request.http_range).start:
                headers["Content-Range"] = f"bytes {asked.start}-{len(body) - 1}/{len(body)}"
                return web.Response(status=206, body=body[asked.start :], headers=headers)
            return web.Response(body=body, headers=headers)

        provider.lies[""] = plain
        done = await consumer.fetch(consumer.order(validator=provider.etag, size_bytes=len(CONTENT)))
        assert (written(consumer), done.reasons) == (CONTENT, (ONLY_SIZE,))
        assert await consumer.store.metered(provider.pid) is None
