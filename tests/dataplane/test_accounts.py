"""Accounts: what is on its way beyond what was signed for never exceeds the credit, and what nobody signs for is counted once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
import trustme

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.dataplane import accounts
from connector.dataplane.coverage import RANGES_MAX
from connector.dataplane_accounts import account as accounting
from connector.dsp.messages import Kind
from connector.errors import SinkFailed, StoreError
from connector.metering.content import CHUNK_BYTES, Layout
from connector.ports import COUNTERSIGNED
from connector.records import Changes, Evidence
from connector.records.metering import Metered
from connector.signatures import jws
from connector.signatures.jws import signing_key
from connector.values import replace
from tests.dataplane.reader import a_wire, reading
from tests.dataplane.rig import PROVIDER, TRANSFER, FakeIdentity, Rig, key_of, process, provider, some_bytes, view
from tests.dataplane.signing import CREDIT_BYTES, WINDOW, Consumer

LARGE = some_bytes(6 * CHUNK_BYTES + 12_345)
NOT_YET_SECONDS = 0.05  # what is not to come has not come by then


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, **WINDOW) as one:
        await one.publish(LARGE)
        yield one


@pytest_asyncio.fixture
async def consumer(rig: Rig) -> AsyncIterator[Consumer]:
    async with aiohttp.ClientSession() as http:
        yield Consumer(rig, http)


async def stays_away(stream: asyncio.StreamReader) -> None:
    """Nothing more arrives for now."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NOT_YET_SECONDS):
            await stream.read(1)


def known(rig: Rig) -> accounting.Account:
    assert rig.metering is not None
    account = rig.metering.accounts.at_hand(TRANSFER)
    assert account is not None
    return account


# --- credit on the wire


@pytest.mark.parametrize("kind", ["sendfile", "pieces", "TLS"])
@pytest.mark.asyncio
async def test_no_more_than_the_credit_is_on_its_way_and_each_receipt_lets_more_follow(kind: str, tmp_path: Path):
    root = tmp_path / "data"
    root.mkdir()
    authority = trustme.CA()
    async with a_wire(kind, root, authority, metered=True, **WINDOW) as wire, aiohttp.ClientSession() as http:
        await wire.rig.publish(LARGE, stages=wire.stages)
        consumer = Consumer(wire.rig, http)
        consumer.tls = wire.tls
        await consumer.begin()
        await consumer.sign()
        async with wire.reading(consumer.headers) as reader:
            await reader.take(CREDIT_BYTES)
            await stays_away(reader.stream)
            await consumer.sign((1, 2))
            await reader.take(CHUNK_BYTES)
            await stays_away(reader.stream)
            await consumer.sign((1, 4))
            await reader.take(CREDIT_BYTES)
            await consumer.sign((1, 6))
            assert await reader.all() == LARGE
        ack = await consumer.sign((1, 8), state="complete")
        assert (ack.sequence, consumer.account.counts.bytes) == (5, len(LARGE))


@pytest.mark.asyncio
async def test_ranges_at_the_same_time_share_one_credit(consumer: Consumer):
    await consumer.begin()
    await consumer.sign()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(reading(consumer.rig.endpoint, consumer.headers | {"Range": f"bytes=0-{CREDIT_BYTES - 1}"}))
        await first.take(CREDIT_BYTES)
        headers = consumer.headers | {"Range": f"bytes={CREDIT_BYTES}-{2 * CREDIT_BYTES - 1}"}
        opening = asyncio.create_task(stack.enter_async_context(reading(consumer.rig.endpoint, headers)))
        done, _ = await asyncio.wait({opening}, timeout=NOT_YET_SECONDS)
        assert not done  # it has no answer before there is credit for its first byte
        await consumer.sign((2, 3))
        second = await opening
        await second.take(CHUNK_BYTES)
        await stays_away(second.stream)
        assert known(consumer.rig).out_bytes == CREDIT_BYTES


@pytest.mark.asyncio
async def test_what_was_sent_before_is_sent_again_without_credit(consumer: Consumer):
    await consumer.begin()
    await consumer.sign()
    last = CREDIT_BYTES - 1
    for _ in range(3):
        status, body, _ = await consumer.get(Range=f"bytes=0-{last}")
        assert (status, body) == (206, LARGE[: last + 1])
    assert known(consumer.rig).out_bytes == CREDIT_BYTES


@pytest.mark.asyncio
async def test_without_a_receipt_in_time_the_stream_ends_and_the_flow_stays(consumer: Consumer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accounting, "CREDIT_SECONDS", 0.05)
    await consumer.begin()
    await consumer.sign()
    async with reading(consumer.rig.endpoint, consumer.headers) as reader:
        await reader.take(CREDIT_BYTES)
        assert await reader.stream.read(1) == b""
    status, body, _ = await consumer.get(Range=f"bytes={CREDIT_BYTES}-")
    assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:credit-exhausted")
    await consumer.sign((1, 3))
    assert (await consumer.get(Range=f"bytes={CREDIT_BYTES}-{2 * CREDIT_BYTES - 1}"))[1] == LARGE[CREDIT_BYTES : 2 * CREDIT_BYTES]


@pytest.mark.asyncio
async def test_who_waits_for_credit_is_cut_when_the_transfer_stops(consumer: Consumer):
    await consumer.begin()
    await consumer.sign()
    async with reading(consumer.rig.endpoint, consumer.headers) as reader:
        await reader.take(CREDIT_BYTES)
        consumer.rig.change(state="SUSPENDED")
        with suppress(ConnectionError):
            assert await reader.stream.read(1) == b""
    ack = await consumer.sign((1, 3))
    assert (ack.state, ack.credit_bytes) == ("suspended", CREDIT_BYTES)
    consumer.rig.change(state="STARTED", generation=2)
    consumer.headers = consumer.rig.authorization()
    status, body, _ = await consumer.get(Range=f"bytes={CREDIT_BYTES}-{2 * CREDIT_BYTES - 1}")
    assert (status, body) == (206, LARGE[CREDIT_BYTES : 2 * CREDIT_BYTES])


# --- what the agreement demands


@pytest.mark.parametrize("content", [b"small", LARGE])
@pytest.mark.asyncio
async def test_where_receipts_are_demanded_nothing_leaves_before_the_first(consumer: Consumer, content: bytes):
    await consumer.rig.publish(content, demands=frozenset({COUNTERSIGNED}))
    for headers in ({}, {"Range": "bytes=0-1"}):
        status, body, _ = await consumer.get(**headers)
        problem = orjson.loads(body)
        assert (status, problem["type"]) == (403, "urn:qiao:problem:receipt-required")
        assert "post a first receipt to `/receipts`" in problem["detail"]
    assert (await consumer.begin()).required
    await consumer.sign()
    for _ in range(2):  # the second one would come from memory
        status, body, _ = await consumer.get(Range="bytes=0-4")
        assert (status, body) == (206, content[:5])


@pytest.mark.asyncio
async def test_a_demand_that_is_not_known_here_is_not_met(consumer: Consumer):
    await consumer.rig.publish(LARGE, demands=frozenset({"https://w3id.org/qiao/v1/weighed"}))
    for path in ("", "/manifest"):
        status, body, _ = await consumer.get(path)
        assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:demand-unknown")


# --- who signs nothing


async def written(rig: Rig) -> Metered:
    assert rig.metering is not None
    await rig.metering.accounts.write_now()
    stored = await rig.store.metered(TRANSFER)
    assert stored is not None
    return stored


@pytest.mark.asyncio
async def test_who_signs_nothing_gets_everything_and_each_byte_counts_once(consumer: Consumer):
    await consumer.get(Range="bytes=0-99")
    stored = await written(consumer.rig)
    assert (stored.counts.bytes, stored.counts.calls, stored.counts.items, stored.attested) == (100, 1, 0, "provider-only")
    for _ in range(2):
        assert (await consumer.get())[1] == LARGE
    stored = await written(consumer.rig)
    assert (stored.counts.bytes, stored.counts.calls, stored.counts.items) == (len(LARGE), 1, 1)
    assert stored.counts.microseconds > 0
    assert stored.ranges == Layout(len(LARGE)).whole
    assert [fact.what for fact in await consumer.rig.store.evidence_of(TRANSFER)] == ["manifest-signed"]


@pytest.mark.asyncio
async def test_small_data_from_memory_are_counted_as_well(consumer: Consumer):
    await consumer.rig.publish(b'{"a":1}\n{"b":2}\n', media_type="application/x-ndjson")
    for _ in range(3):
        assert (await consumer.get())[0] == 200
    counts = (await written(consumer.rig)).counts
    assert (counts.bytes, counts.records, counts.items, counts.calls) == (16, 2, 1, 1)


@pytest.mark.asyncio
async def test_counts_go_on_where_a_restart_has_left_them(tmp_path: Path):
    (tmp_path / "data").mkdir()
    store, source = MemoryStore(), None
    for last in (2 * CHUNK_BYTES, 3 * CHUNK_BYTES, 0):
        async with provider(tmp_path / "data", metered=True, store=store, **WINDOW) as rig, aiohttp.ClientSession() as http:
            if source is None:
                await rig.publish(LARGE)
                source = rig.transfers.views[TRANSFER].source
            rig.transfers.views[TRANSFER] = view(source)
            await Consumer(rig, http).get(Range=f"bytes=0-{last}")
            counts = (await written(rig)).counts
        assert counts.bytes == (last or 3 * CHUNK_BYTES) + 1


@pytest.mark.asyncio
async def test_what_was_counted_of_data_before_these_is_not_lost_in_a_restart(tmp_path: Path):
    (tmp_path / "data").mkdir()
    store = MemoryStore()
    async with provider(tmp_path / "data", metered=True, store=store, **WINDOW) as rig, aiohttp.ClientSession() as http:
        await rig.publish(LARGE)
        await Consumer(rig, http).get()
        await written(rig)
        await rig.publish(LARGE[:-1], "other.bin")
        source = rig.transfers.views[TRANSFER].source
        await Consumer(rig, http).get(Range=f"bytes=0-{CHUNK_BYTES}")
        assert (await written(rig)).counts.bytes == len(LARGE) + CHUNK_BYTES + 1
    async with provider(tmp_path / "data", metered=True, store=store, **WINDOW) as rig, aiohttp.ClientSession() as http:
        rig.transfers.views[TRANSFER] = view(source)
        await Consumer(rig, http).get()
        assert (await written(rig)).counts.bytes == 2 * len(LARGE) - 1


@pytest.mark.asyncio
async def test_who_reads_in_more_pieces_than_are_remembered_is_counted_for_all_of_them(consumer: Consumer):
    size = 400
    await consumer.rig.publish(some_bytes(2 * RANGES_MAX * size))
    for odd in (0, 1):
        for at in range(odd * size, 2 * RANGES_MAX * size, 2 * size):
            assert (await consumer.get(Range=f"bytes={at}-{at + size - 1}"))[0] == 206
    counts = (await written(consumer.rig)).counts
    assert (counts.bytes, counts.calls) == (2 * RANGES_MAX * size, 1)


@pytest.mark.asyncio
async def test_what_went_out_before_the_first_receipt_uses_up_credit_after_it(consumer: Consumer):
    await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}")
    await consumer.begin()
    await consumer.sign()
    assert known(consumer.rig).out_bytes == CREDIT_BYTES
    assert (await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}"))[0] == 206
    opening = asyncio.create_task(consumer.get(Range=f"bytes={CREDIT_BYTES}-{CREDIT_BYTES + 9}"))
    done, _ = await asyncio.wait({opening}, timeout=NOT_YET_SECONDS)
    assert not done
    await consumer.sign((1, 2))
    assert (await opening)[1] == LARGE[CREDIT_BYTES : CREDIT_BYTES + 10]


@pytest.mark.asyncio
async def test_what_could_not_be_written_is_written_as_soon_as_it_can_be(consumer: Consumer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accounts, "WRITE_SECONDS", 0.01)
    await consumer.get(Range="bytes=0-9")
    await written(consumer.rig)
    refused, real = asyncio.Event(), consumer.rig.store.commit

    async def full(_changes: object) -> None:
        refused.set()
        raise StoreError("the disk is full")

    consumer.rig.store.commit = full  # type: ignore[method-assign, assignment]
    await consumer.get(Range="bytes=0-99")
    await refused.wait()
    stored = asyncio.Event()

    async def commit(changes: Changes) -> Any:
        done = await real(changes)
        stored.set()
        return done

    consumer.rig.store.commit = commit  # type: ignore[method-assign, assignment]
    await stored.wait()
    found = await consumer.rig.store.metered(TRANSFER)
    assert found is not None
    assert found.counts.bytes == 100


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("cause", ["end", "key", "clock"])
@pytest.mark.asyncio
async def test_a_manifest_that_nobody_could_accept_any_more_is_signed_anew_while_nobody_has_signed_for_it(
    cause: str, signed: bool, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
):
    rig = consumer.rig
    first = await consumer.begin()
    old = consumer.account.manifest
    if signed:
        await consumer.sign()
    else:
        await consumer.get(Range="bytes=0-9")
        assert rig.metering is not None
        await rig.metering.accounts.write_now(TRANSFER)
    before = await rig.store.metered(TRANSFER)
    assert before is not None
    if cause == "end":
        rig.clock.shift_seconds += first.expires - rig.clock.now() + 1
    elif cause == "clock":
        rig.clock.shift_seconds -= 3600  # it was ahead, and is set right
    else:
        retired = replace(key_of(PROVIDER).key, not_after=time.time() - 1)
        fresh = signing_key(f"{PROVIDER}#next", b"n" * 32)
        monkeypatch.setattr(FakeIdentity, "keys", lambda _, name: [retired, fresh.key] if name == PROVIDER else [key_of(name).key])
        monkeypatch.setattr(FakeIdentity, "sign", lambda self, claims, typ: jws.sign(claims, fresh, typ))
    consumer.headers = rig.authorization()
    assert (await consumer.get(Range="bytes=0-9"))[0] == 206
    assert (await rig.store.metered(TRANSFER) or before).manifest == old, "who has accepted it may still sign for it"
    status, body, _ = await consumer.get("/manifest")
    assert (status, body.decode() == old) == (200, signed)
    stored = await rig.store.metered(TRANSFER)
    assert stored is not None
    if not signed:
        assert (stored.counts, stored.sent) == (before.counts, before.sent), "what was sent stays counted"
        again = await consumer.begin()
        assert again.issued <= rig.clock.now() <= again.expires
        assert (await consumer.get("/manifest"))[1] == consumer.account.manifest.encode()
        if cause != "key":
            await consumer.sign()


@pytest.mark.asyncio
async def test_data_that_are_published_anew_get_a_new_manifest_until_somebody_has_signed(consumer: Consumer):
    await consumer.get()
    first = await written(consumer.rig)
    await consumer.rig.publish(LARGE[:-1], "other.bin")
    await consumer.get(Range="bytes=0-999")
    second = await written(consumer.rig)
    assert second.manifest != first.manifest
    assert second.counts.bytes == len(LARGE) + 1000


@pytest.mark.asyncio
async def test_once_somebody_has_signed_a_transfer_is_of_these_data_alone(consumer: Consumer):
    await consumer.begin()
    await consumer.sign((1, 2))
    source = consumer.rig.transfers.views[TRANSFER].source
    await consumer.rig.publish(LARGE[:-1], "other.bin")
    for path in ("", "/manifest"):
        status, body, _ = await consumer.get(path)
        assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:snapshot-changed")
    consumer.rig.change(source=source)
    assert (await consumer.get(Range="bytes=0-9"))[1] == LARGE[:10]


@pytest.mark.parametrize("content", [b"small", LARGE])
@pytest.mark.asyncio
async def test_no_byte_leaves_of_a_transfer_that_cannot_be_put_on_record(consumer: Consumer, content: bytes):
    await consumer.rig.publish(content, agreement="urn:gone")
    consumer.headers = consumer.rig.authorization()
    status, body, _ = await consumer.get()
    assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:unknown-agreement")

    async def full(_changes: object) -> None:
        raise StoreError("the disk is full")

    await consumer.rig.publish(content)
    consumer.headers = consumer.rig.authorization()
    consumer.rig.store.commit = full  # type: ignore[method-assign, assignment]
    status, body, _ = await consumer.get()
    assert (status, orjson.loads(body)["type"]) == (503, "urn:qiao:problem:store")
    del consumer.rig.store.commit  # type: ignore[attr-defined]
    assert (await consumer.get())[1] == content


@pytest.mark.asyncio
async def test_what_is_known_is_bounded_and_forgets_nothing_unwritten(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accounts, "TRANSFERS_MAX", 2)
    assert rig.metering is not None
    async with aiohttp.ClientSession() as http:
        await Consumer(rig, http).get(Range="bytes=0-9")
    first = known(rig)
    for number in range(4):
        await rig.metering.accounts.of(replace(first.permit, transfer=f"urn:t:{number}"), first.log)
    assert len(rig.metering.accounts._known) == 2
    assert known(rig) is first


# --- a restart of the provider


@asynccontextmanager
async def restarted(folder: Path, store: MemoryStore, source: Any = None, **more: Any) -> AsyncIterator[tuple[Rig, Consumer]]:
    """The provider over what is stored, as after a kill: nothing that is only in memory is left."""
    async with provider(folder, metered=True, store=store, **WINDOW) as rig, aiohttp.ClientSession() as http:
        if source is None:
            await rig.publish(LARGE, **more)
        else:
            rig.transfers.views[TRANSFER] = view(source, **more)
        yield rig, Consumer(rig, http)


def again(consumer: Consumer, before: Consumer) -> Consumer:
    """The same consumer, that knows what it has signed, and of which manifest."""
    consumer.account, consumer.log, consumer.count = before.account, before.log, before.count
    return consumer


@pytest.mark.parametrize("reads", [1, CHUNK_BYTES, CREDIT_BYTES])
@pytest.mark.asyncio
async def test_a_restart_brings_no_second_credit_and_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int):
    monkeypatch.setattr(accounting, "CREDIT_SECONDS", 0.05)
    (tmp_path / "data").mkdir()
    store = MemoryStore()
    async with restarted(tmp_path / "data", store) as (rig, first):
        await first.begin()
        await first.sign()
        source = rig.transfers.views[TRANSFER].source
        assert (await first.get(Range=f"bytes=0-{reads - 1}"))[1] == LARGE[:reads]
    for _ in range(2):
        async with restarted(tmp_path / "data", store, source) as (rig, consumer):
            status, body, _ = await consumer.get(Range=f"bytes={CREDIT_BYTES}-")
            assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:credit-exhausted"), "it counts as sent, whoever has it"
            assert (await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}"))[1] == LARGE[:CREDIT_BYTES], "and is sent again"
            assert known(rig).out_bytes == CREDIT_BYTES
    monkeypatch.undo()
    async with restarted(tmp_path / "data", store, source) as (rig, consumer):
        at = again(consumer, first)
        async with reading(rig.endpoint, consumer.headers) as reader:
            await reader.take(CREDIT_BYTES)
            await stays_away(reader.stream)
            for last in (3, 5, 7):
                await at.sign((1, last))
                await reader.take(min(CREDIT_BYTES, len(LARGE) - (last - 1) * CHUNK_BYTES))
        ack = await at.sign((1, 8), state="complete")
        assert (ack.state, known(rig).out_bytes) == ("ok", 0)


@pytest.mark.asyncio
async def test_what_may_leave_is_stored_with_the_receipts_alone_where_one_connection_reads_on(consumer: Consumer):
    """A write for each window would cost as much again as its receipt."""
    await consumer.begin()
    await consumer.sign()
    commits = 0

    def committed(changes: Changes, _: object) -> None:
        nonlocal commits
        commits += any(isinstance(each, Metered) for each in changes.saves)

    metering = consumer.rig.metering
    assert metering is not None
    metering.receipts._decide.__self__.listen(committed)  # type: ignore[attr-defined]
    async with reading(consumer.rig.endpoint, consumer.headers) as reader:
        for last in range(2, 8):
            await reader.take(CHUNK_BYTES)
            await consumer.sign((1, last))
        await reader.all()
    assert commits <= 6 + 1, "six receipts, and the first look"


@pytest.mark.asyncio
async def test_an_account_whose_index_cannot_be_read_keeps_nobody_from_theirs(consumer: Consumer, monkeypatch: pytest.MonkeyPatch):
    metering = consumer.rig.metering
    assert metering is not None
    await consumer.get(Range="bytes=0-99")
    unread = accounting.Account(replace(known(consumer.rig).permit, transfer=f"{TRANSFER}2"), known(consumer.rig).log, None)
    metering.accounts._unwritten = {f"{TRANSFER}2": unread, TRANSFER: known(consumer.rig)}
    write = metering.accounts._write

    async def writes(account: accounting.Account) -> None:
        if account is unread:
            raise SinkFailed("the index of a content log cannot be read")
        await write(account)

    monkeypatch.setattr(metering.accounts, "_write", writes)
    with pytest.raises(SinkFailed):
        await metering.accounts.write_now()
    stored = await consumer.rig.store.metered(TRANSFER)
    assert stored is not None
    assert stored.counts.bytes == 100
    monkeypatch.undo()
    assert list(metering.accounts._unwritten) == [f"{TRANSFER}2"], "what is not stored is still to be"


@pytest.mark.asyncio
async def test_a_signed_request_is_on_record_once_also_where_nothing_else_is_to_be_written(consumer: Consumer):
    metering = consumer.rig.metering
    assert metering is not None
    await consumer.get(Range="bytes=0-9")
    await metering.accounts.write_now()
    account, asked = (
        known(consumer.rig),
        Evidence(telemetry.REQUEST, Kind.TRANSFER, TRANSFER, "c", None, consumer.rig.clock.now(), digest=b"d" * 32),
    )
    account.ask(asked)
    for _ in range(2):
        metering.accounts.written_soon(account)
        await metering.accounts.write_now()
        assert account.unrecorded == ()
    assert len([fact for fact in await consumer.rig.store.evidence_of(TRANSFER) if fact.digest == asked.digest]) == 1


@pytest.mark.asyncio
async def test_a_signed_request_is_on_record_once_also_if_the_end_of_the_process_meets_its_write(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
):
    """Whoever stops waiting for a commit does not stop it."""
    monkeypatch.setattr(accounts, "WRITE_SECONDS", 0.0)
    metering, store = consumer.rig.metering, consumer.rig.store
    assert metering is not None
    await consumer.get(Range="bytes=0-9")
    await metering.accounts.write_now()
    is_written, real, account = asyncio.Event(), store.commit, known(consumer.rig)
    asked = Evidence(telemetry.REQUEST, Kind.TRANSFER, TRANSFER, "c", None, consumer.rig.clock.now(), digest=b"d" * 32)

    async def slow(changes: Changes) -> Any:
        done = await real(changes)
        is_written.set()
        await asyncio.sleep(0.01)
        return done

    store.commit = slow  # type: ignore[method-assign, assignment]
    account.ask(asked)
    metering.accounts.written_soon(account)
    await is_written.wait()
    await metering.accounts.close()
    assert [fact.digest for fact in await store.evidence_of(TRANSFER)].count(asked.digest) == 1


@pytest.mark.asyncio
async def test_what_was_foreseen_of_a_transfer_and_has_not_left_counts_no_more_once_it_has_ended(tmp_path: Path):
    (tmp_path / "data").mkdir()
    async with restarted(tmp_path / "data", MemoryStore(), demands=frozenset({COUNTERSIGNED})) as (rig, consumer):
        await consumer.begin()
        await consumer.sign()
        await consumer.get(Range="bytes=0-9")
        assert (stored := await rig.store.metered(TRANSFER)) is not None
        assert stored.sent == ((0, CREDIT_BYTES),)
        assert rig.metering is not None
        under = await rig.metering.accounts.opens.of(known(rig).permit)
        await rig.store.commit(Changes(saves=(replace(process("TERMINATED"), version=2),)))
        rig.metering.receipts.committed(Changes(saves=(replace(process("TERMINATED"), agreement="urn:agreement"),)), ())
        await rig.metering.receipts.close()
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert (stored.sent, under.size_bytes) == (((0, CHUNK_BYTES),), CHUNK_BYTES)
        under.signed(stored.root, ((2, 40),))
        assert under.size_bytes == CHUNK_BYTES, "who signs for something else has it still"
        under.signed(stored.root, ((1, 2),))
        assert under.size_bytes == 0, "whoever signs for it under the agreement writes it off"


@pytest.mark.asyncio
async def test_what_could_not_be_stored_does_not_leave(consumer: Consumer, monkeypatch: pytest.MonkeyPatch):
    await consumer.begin()
    await consumer.sign()
    stored = await consumer.rig.store.metered(TRANSFER)
    assert stored is not None
    await consumer.rig.store.commit(Changes(saves=(replace(stored, sent=(), version=stored.version + 1),)))
    known(consumer.rig).noted(())
    monkeypatch.setattr(consumer.rig.store, "commit", _full)
    status, body, _ = await consumer.get(Range="bytes=0-9")
    assert (status, orjson.loads(body)["type"]) == (503, "urn:qiao:problem:store")
    monkeypatch.undo()
    assert (await consumer.get(Range="bytes=0-9"))[1] == LARGE[:10]


async def _full(_: Changes) -> None:
    raise StoreError("the disk is full")


@pytest.mark.asyncio
async def test_after_a_restart_as_well_nothing_leaves_of_other_data_than_were_signed_for(tmp_path: Path):
    (tmp_path / "data").mkdir()
    store = MemoryStore()
    async with restarted(tmp_path / "data", store) as (rig, before):
        await before.begin()
        await before.sign((1, 2))
        source = rig.transfers.views[TRANSFER].source
    signed = await store.metered(TRANSFER)
    async with restarted(tmp_path / "data", store, source) as (rig, consumer):
        await rig.publish(LARGE[:-1], "other.bin")
        for path in ("", "/manifest"):
            status, body, _ = await consumer.get(path)
            assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:snapshot-changed")
        assert await store.metered(TRANSFER) == signed
        rig.change(source=source)
        assert (await consumer.get(Range="bytes=0-9"))[1] == LARGE[:10]
