"""Receipts: durable and numbered before they are acknowledged, and never acknowledged otherwise, whatever breaks in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control_billing.elsewhere import crediting
from connector.control_billing.losses import write_off
from connector.dataplane import receipts
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane_accounts import account
from connector.dataplane_accounts.opens import unsigned
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import StoreError
from connector.merkle.tree import leaf_hash
from connector.metering import credit
from connector.metering.content import CHUNK_BYTES, Sealed
from connector.metering.objects import Ack, Receipt, Rejected, digest, kept
from connector.metering.statements import Statement
from connector.ports import TransferView
from connector.records import Changes, Conflict, Evidence
from connector.records.metering import Counts, Metered
from connector.signatures import jws
from connector.signatures.jws import PublicKey
from connector.values import replace
from tests.dataplane.reader import reading
from tests.dataplane.rig import CONSUMER, TRANSFER, FakeIdentity, Rig, key_of, process, provider, some_bytes
from tests.dataplane.signing import CREDIT_BYTES, WINDOW, Consumer, Facts
from tests.metering.rig import ACK, signed

LARGE = some_bytes(6 * CHUNK_BYTES + 12_345)
LINES = b'{"n":1234567890}\n' * 40_000 + b"no end"
NDJSON = "application/x-ndjson"


class Failing(MemoryStore):
    """A store that fails to write some kind of fact, as one with a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: str | None = None
        self.commits = self.processes = 0

    async def process(self, kind: Kind, pid: str) -> Process | None:
        self.processes += 1
        return await super().process(kind, pid)

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        if any(fact.what == self.fails_at for fact in changes.evidence):
            raise StoreError("the disk is full")
        self.commits += 1
        return await super().commit(changes)


@asynccontextmanager
async def metered(
    root: Path, store: MemoryStore | None = None, facts: Facts | None = None, before: TransferView | None = None
) -> AsyncIterator[tuple[Rig, Consumer]]:
    """A provider and a consumer that signs; with `before` the transfer is one of an earlier provider."""
    (root / "data").mkdir(exist_ok=True)
    async with provider(root / "data", metered=True, store=store, facts=facts, **WINDOW) as rig, aiohttp.ClientSession() as http:
        if before is None:
            await rig.publish(LARGE)
        else:
            rig.transfers.views[TRANSFER] = before
        yield rig, Consumer(rig, http)


async def facts_of(rig: Rig) -> list[str]:
    return [fact.what for fact in await rig.store.evidence_of(TRANSFER)]


@pytest.mark.asyncio
async def test_an_ack_names_the_place_of_its_receipt_in_the_ledger_and_our_newest_checkpoint(tmp_path: Path):
    facts = Facts()
    async with metered(tmp_path, facts=facts) as (rig, consumer):
        await consumer.begin()
        ack = await consumer.sign((1, 2))
        (number,) = [fact.sequence for fact in await rig.store.evidence_of(TRANSFER) if fact.what == "receipt-accepted"]
        assert (ack.index, ack.ledger) == (number, await facts.checkpoint())


@pytest.mark.asyncio
async def test_a_consumer_owes_receipts_from_the_manifest_on_until_it_has_signed_for_everything_or_given_up(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        assert rig.metering is not None
        owing = rig.metering.receipts.owing
        assert not await owing(TRANSFER), "nobody has said that it means to sign"
        await consumer.begin()
        assert await owing(TRANSFER)
        await consumer.sign((1, 2))
        assert await owing(TRANSFER)
        await consumer.sign((1, 2), state="rejected", rejected=Rejected(2, b"x" * 32))
        assert await owing(TRANSFER), "a leaf that was wrong is fetched again"
        await consumer.sign((1, 2), state="aborted", reason="sink")
        assert await owing(TRANSFER), "it may wait for room on its disk"
        rig.clock.shift_seconds += receipts.ABORTED_SECONDS
        assert not await owing(TRANSFER), "it has given up"
        rig.clock.shift_seconds = 0.0
        await consumer.sign((1, 7))
        assert await owing(TRANSFER), "and goes on after all"
        await consumer.sign((1, 8))
        assert not await owing(TRANSFER)


@pytest.mark.asyncio
@pytest.mark.parametrize(("said", "owes"), [({}, False), ({"Signature": "sig=:AA==:"}, True), ({"Accept-Signature": "sig=()"}, True)])
async def test_who_signs_requests_owes_receipts_too_and_a_restart_does_not_forget_it(tmp_path: Path, said: dict[str, str], owes: bool):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.get(**said)
    async with metered(tmp_path, store, before=view) as (rig, _):
        assert rig.metering is not None
        assert await rig.metering.receipts.owing(TRANSFER) == owes
        assert len([fact for fact in await facts_of(rig) if fact == telemetry.MANIFEST]) == 1


@pytest.mark.asyncio
async def test_who_signs_requests_and_no_receipt_is_not_waited_for_for_ever_and_who_has_signed_one_is(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        assert rig.metering is not None
        await consumer.get(**{"Accept-Signature": "sig=()"})
        for later, owes in ((0.0, True), (receipts.MEANT_SECONDS - 60, True), (receipts.MEANT_SECONDS + 60, False)):
            rig.clock.shift_seconds = later
            assert await rig.metering.receipts.owing(TRANSFER) is owes
        rig.clock.shift_seconds = 0.0
        await consumer.begin()
        await consumer.sign((1, 2))
        rig.clock.shift_seconds = receipts.MEANT_SECONDS + 60
        assert await rig.metering.receipts.owing(TRANSFER), "it may be away for longer, and sign for the rest"


@pytest.mark.asyncio
async def test_whoever_asks_for_the_manifest_later_owes_receipts_from_then_on(tmp_path: Path):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.get()
        await consumer.begin()
        assert len([fact for fact in await facts_of(rig) if fact == telemetry.MANIFEST]) == 1
    async with metered(tmp_path, store, before=view) as (rig, _):
        assert rig.metering is not None
        assert await rig.metering.receipts.owing(TRANSFER)


@pytest.mark.asyncio
async def test_while_more_is_on_its_way_a_receipt_and_its_ack_are_one_write_and_the_last_one_has_its_place(tmp_path: Path):
    store, facts = Failing(), Facts()
    async with metered(tmp_path, store, facts) as (rig, consumer):
        await consumer.begin()
        first = await consumer.sign()
        async with reading(consumer.rig.endpoint, consumer.headers) as reader:
            await reader.take(CREDIT_BYTES)
            commits, processes = store.commits, store.processes
            ack = await consumer.sign((1, 2))
            assert (store.commits, store.processes) == (commits + 1, processes + 1)
            assert (ack.index, ack.receipt, ack.credit_bytes) == (None, digest(consumer.account.receipt), CREDIT_BYTES + CHUNK_BYTES)
            await reader.take(CHUNK_BYTES)
            facts.fault = "no space left"  # then nobody gets credit for what has no place
            assert (await consumer.post(token := consumer.receipt((1, 3))))[0] == 503
            facts.fault = None
            assert (await consumer.post(token))[0] == 200
        assert first.index is not None
        assert kept(Ack, (await rig.store.receipts(TRANSFER))[-1].ack or "").index is not None
        assert await facts_of(rig) == ["manifest-signed", *3 * ["receipt-accepted", "ack-signed"]]


@pytest.mark.parametrize("where", ["receipt-accepted", "ack-signed", "ledger"])
@pytest.mark.asyncio
async def test_what_cannot_be_written_is_not_acknowledged_and_gives_no_credit(where: str, tmp_path: Path):
    store, facts = Failing(), Facts()
    async with metered(tmp_path, store, facts) as (_, consumer):
        await consumer.begin()
        await consumer.sign()
        async with reading(consumer.rig.endpoint, consumer.headers) as reader:
            await reader.take(CREDIT_BYTES)
            token = consumer.receipt((1, 3))
            if where == "ledger":
                facts.fault = "no space left"
            else:
                store.fails_at = where
            for _ in range(2):
                status, body = await consumer.post(token)
                assert (status, orjson.loads(body)["type"]) == (503, "urn:qiao:problem:store")
                assert "space" not in body.decode()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.stream.read(1)
            store.fails_at = facts.fault = None
            status, body = await consumer.post(token)  # the same receipt, as its sender does until it has the ack
            assert (status, kept(Ack, body.decode()).credit_bytes) == (200, 2 * CREDIT_BYTES)
            await reader.take(CREDIT_BYTES)
        assert len(await store.receipts(TRANSFER)) == 2


@pytest.mark.asyncio
async def test_a_crash_between_receipt_and_ack_is_made_good_by_the_same_receipt(tmp_path: Path):
    store = Failing()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.begin()
        store.fails_at = "ack-signed"
        token = consumer.receipt((1, 2))
        assert (await consumer.post(token))[0] == 503
    store.fails_at = None
    async with metered(tmp_path, store, Facts(), view) as (rig, again):
        status, body = await again.post(token)
        ack = kept(Ack, body.decode())
        assert (status, ack.receipt, ack.sequence) == (200, digest(token), 1)
        assert ack.index == next(fact.sequence for fact in await store.evidence_of(TRANSFER) if fact.what == "receipt-accepted")
        assert await facts_of(rig) == ["manifest-signed", "receipt-accepted", "ack-signed"]
        stored = await store.metered(TRANSFER)
        assert stored is not None
        assert stored.ack == body.decode()


@pytest.mark.asyncio
async def test_what_was_acknowledged_has_its_ack_again_after_a_start_though_the_log_has_lost_what_was_signed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.begin()
        await consumer.sign((1, 3))
    monkeypatch.setattr(receipts, "known_log", lambda *_: credit.Log(1, Sealed().measure, lambda _: None))
    async with metered(tmp_path, store, before=view) as (rig, _):
        assert rig.metering is not None
        taken = await rig.metering.receipts.take(TRANSFER, consumer.account.receipt, "ok")
        assert (taken.outcome, taken.ack) == ("duplicate", consumer.account.ack)


@pytest.mark.asyncio
async def test_nothing_is_acknowledged_to_who_contradicts_itself_in_its_ledger(tmp_path: Path):
    facts = Facts()
    async with metered(tmp_path, facts=facts) as (_, consumer):
        await consumer.begin()
        facts.suspects.add(CONSUMER)
        status, body = await consumer.post(consumer.receipt())
        assert (status, orjson.loads(body)["code"]) == (409, "ledger-suspected")


@pytest.mark.asyncio
async def test_an_account_is_not_opened_after_the_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "EARLY_BYTES", 0)
    monkeypatch.setattr(account, "EARLY_SECONDS", 0.05)
    async with metered(tmp_path) as (_, consumer):
        await consumer.begin()
        assert (await consumer.get())[1] == LARGE
        status, body = await consumer.post(consumer.receipt())
        assert (status, orjson.loads(body)["code"]) == (409, "account-late")


@pytest.mark.asyncio
async def test_what_was_read_within_the_credit_before_the_first_receipt_is_forgiven(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}")
        await consumer.begin()
        await consumer.sign()
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert (stored.counts, stored.ranges, stored.attested) == (Counts(), (), "both")


@pytest.mark.asyncio
async def test_no_first_receipt_comes_for_what_is_billed_where_others_have_signed_for_it(tmp_path: Path):
    """It would be signed for twice, and what was credited would be owed again."""
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}")
        await ended(rig)
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert rig.metering is not None
        rig.metering.receipts.credited = crediting(rig.store)
        other = replace(stored, transfer="other", sequence=1, ack=signed(ACK), ranges=((2, 3),), status="complete")
        await rig.store.commit(Changes(saves=(other,)))
        status, body = await consumer.post(consumer.receipt((1, 3)))
        assert (status, orjson.loads(body)["code"]) == (409, "account-credited")
        await rig.store.commit(Changes(saves=(replace(other, status="disputed", version=other.version + 1),)))
        await consumer.sign((1, 3))


@pytest.mark.asyncio
async def test_receipts_that_sign_for_nothing_new_do_not_fill_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receipts, "IDLE_SECONDS", 3600.0)  # however long it takes to send them
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        for _ in range(receipts.IDLE_AT_ONCE):
            await consumer.sign()
        before = len(await facts_of(rig))
        status, body = await consumer.post(consumer.receipt())
        assert (status, orjson.loads(body)["type"]) == (429, "urn:qiao:problem:too-many")
        assert len(await facts_of(rig)) == before
        await consumer.sign((1, 2))  # who has something to sign for is not kept from it
        for number in range(receipts.IDLE_AT_ONCE):
            assert (await consumer.post(consumer.receipt(sequence=1, previous=None, id=f"other{number}")))[0] in (409, 429)
        assert len(await facts_of(rig)) <= before + 4


@pytest.mark.asyncio
async def test_nobody_signs_for_more_time_than_there_was(tmp_path: Path):
    async with metered(tmp_path) as (_, consumer):
        await consumer.begin()
        status, body = await consumer.post(consumer.receipt((1, 2), microseconds=2**53 - 1))
        assert (status, orjson.loads(body)["code"]) == (422, "time-ahead")
        await consumer.sign((1, 2))


@pytest.mark.asyncio
async def test_records_are_those_that_we_have_counted(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await rig.publish(LINES, media_type=NDJSON)
        manifest = await consumer.begin()
        assert (manifest.unit, consumer.log.leaves) == ("line", 4)
        ends = [LINES[at : at + CHUNK_BYTES].count(b"\n") for at in range(0, len(LINES), CHUNK_BYTES)]
        status, body = await consumer.post(consumer.receipt((1, 2)))  # says 0: this consumer counts no lines
        assert (status, orjson.loads(body)["code"]) == (422, "records-differ")
        assert str(ends[0]) in orjson.loads(body)["detail"]
        consumer.log = credit.finite(manifest, records=lambda first, last: sum(ends[first - 1 : last - 1]))
        await consumer.sign((1, 2), (3, 4))
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert stored.counts.records == ends[0] + ends[2]
        await consumer.sign((1, 4), state="complete")
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert (stored.counts.records, stored.counts.items, stored.status) == (40_000, 1, "complete")


@pytest.mark.asyncio
async def test_records_are_those_that_we_have_counted_also_after_a_start_before_anybody_has_asked_for_data(tmp_path: Path):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        await rig.publish(LINES, media_type=NDJSON)
        view = rig.transfers.views[TRANSFER]
        manifest = await consumer.begin()
        ends = [LINES[at : at + CHUNK_BYTES].count(b"\n") for at in range(0, len(LINES), CHUNK_BYTES)]
        consumer.log = credit.finite(manifest, records=lambda first, last: sum(ends[first - 1 : last - 1]))
        await consumer.sign((1, 2))
    async with metered(tmp_path, store, before=view) as (rig, again):
        assert rig.metering is not None
        assert rig.logs is not None
        logs = rig.logs
        rig.metering.receipts.indexed = lambda _transfer: logs.at_hand(view.source)
        again.account, again.count = consumer.account, consumer.count
        again.log = credit.finite(manifest, records=lambda first, last: ends[0] if first == 1 else 0)
        status, body = await again.post(again.receipt((1, 3)))
        assert (status, orjson.loads(body)["code"]) == (422, "records-differ")
        again.log = consumer.log
        await again.sign((1, 3))


@pytest.mark.asyncio
async def test_a_leaf_that_failed_is_told_and_one_that_did_not_is_no_excuse(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        true = leaf_hash(LARGE[:CHUNK_BYTES])
        status, body = await consumer.post(consumer.receipt(state="rejected", rejected=Rejected(1, true)))
        assert (status, orjson.loads(body)["code"]) == (422, "rejected-true")
        await consumer.sign(state="rejected", rejected=Rejected(1, b"x" * 32))
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert stored.status == "rejected"
        await consumer.sign((1, 2))
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert stored.status == "open"


@pytest.mark.asyncio
async def test_a_rejection_that_comes_again_has_no_leaf_read_again(tmp_path: Path):
    looked: list[Rejected] = []

    async def look_at(_permit: Permit, _log: Described, rejected: Rejected) -> None:
        looked.append(rejected)

    async with metered(tmp_path) as (rig, consumer):
        assert rig.metering is not None
        rig.metering.receipts.look_at = look_at
        await consumer.begin()
        token = consumer.receipt(state="rejected", rejected=Rejected(1, b"x" * 32))
        for _ in range(3):
            assert (await consumer.post(token))[0] == 200
        assert looked == [Rejected(1, b"x" * 32)]


@pytest.mark.asyncio
async def test_an_ack_says_that_a_quota_has_ended_the_transfer(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign()
        before = await rig.store.process(process("STARTED").kind, TRANSFER)
        assert before is not None
        over = replace(before, state="TERMINATED", version=before.version + 1, detail={"code": "QUOTA_EXHAUSTED"})
        await rig.store.commit(Changes(saves=(over,)))
        rig.change(state="TERMINATED")
        assert ((await consumer.sign((1, 2))).state, consumer.account.credit_bytes) == ("quota", CHUNK_BYTES)


async def ended(rig: Rig) -> None:
    """The transfer has come to its end, as the control side commits it."""
    before = await rig.store.process(process("STARTED").kind, TRANSFER)
    assert before is not None
    assert rig.metering is not None
    changes = Changes(saves=(replace(before, state="COMPLETED", version=before.version + 1, updated=rig.clock.now()),))
    evidence = await rig.store.commit(changes)
    assert isinstance(evidence, tuple)
    rig.metering.receipts.committed(changes, evidence)
    await rig.metering.receipts.close()


async def statement(consumer: Consumer) -> Statement:
    _, body, _ = await consumer.get("/receipts")
    return kept(Statement, orjson.loads(body)["statement"])


@pytest.mark.asyncio
async def test_the_end_of_a_transfer_is_stated_and_what_is_signed_afterwards_too(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 3))
        await ended(rig)
        (flow,) = (await statement(consumer)).flows
        assert (flow.sequence, flow.receipt, flow.attested) == (1, digest(consumer.account.receipt), "both")
        assert flow.counts.bytes == CREDIT_BYTES
        rig.change(state="COMPLETED")
        ack = await consumer.sign((1, 8), state="complete")
        assert (ack.state, ack.credit_bytes) == ("ok", len(LARGE) + CREDIT_BYTES)
        assert rig.metering is not None
        await rig.metering.receipts.close()
        assert (await statement(consumer)).totals.bytes == len(LARGE)


@pytest.mark.asyncio
async def test_what_is_written_off_stays_so_when_a_part_of_it_is_signed_for_after_all(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.get()
        await consumer.sign((1, 2))
        await ended(rig)
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        lost = unsigned(stored).size_bytes
        assert lost > 0
        assert rig.metering is not None
        journal = Journal(rig.store, rig.clock)
        journal.listen(rig.metering.receipts.committed, Kind.TRANSFER, Metered)
        await write_off(journal, stored.agreement, {TRANSFER: lost}, "its disk died")
        rig.change(state="COMPLETED")
        await consumer.sign((1, 3))
        await rig.metering.receipts.close()
        after = await rig.store.metered(TRANSFER)
        assert after is not None
        assert (after.sequence, after.sent) == (2, ())


@pytest.mark.asyncio
async def test_however_many_receipts_come_after_the_end_what_they_come_to_is_stated_once(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 2))
        assert rig.metering is not None
        receipts = rig.metering.receipts
        before = await rig.store.process(process("STARTED").kind, TRANSFER)
        assert before is not None
        await rig.store.commit(Changes(saves=(replace(before, state="COMPLETED", version=before.version + 1),)))
        rig.change(state="COMPLETED")
        for last in range(3, 9):
            await consumer.sign((1, last), state="complete" if last == 8 else "partial")
        await receipts.close()
        assert (await facts_of(rig)).count("statement-signed") == 1
        assert (await statement(consumer)).totals.bytes == len(LARGE)
        await receipts.state(TRANSFER)
        assert (await facts_of(rig)).count("statement-signed") == 1, "it says so already"


@pytest.mark.asyncio
async def test_a_receipt_that_was_on_its_way_while_its_key_was_replaced_is_taken_and_answered_the_same_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign()
        late = consumer.receipt((1, 3))
        retired = replace(key_of(CONSUMER).key, not_after=float(kept(Receipt, late).issued))
        monkeypatch.setattr(FakeIdentity, "read", read_with(rig, retired))
        rig.clock.shift_seconds += 60
        consumer.headers = rig.authorization()
        status, ack = await consumer.post(late)
        assert (status, kept(Ack, ack.decode()).sequence) == (200, 2)
        rig.clock.shift_seconds += 5_000
        consumer.headers = rig.authorization()
        assert await consumer.post(late) == (200, ack), "it was proven before it was stored"
        consumer.account = replace(consumer.account, sequence=2, receipt=late)
        status, body = await consumer.post(consumer.receipt((1, 4), now=rig.clock.now() - 5_060))
        assert (status, orjson.loads(body)["code"]) == (422, "jws-key-ended")


@pytest.mark.asyncio
async def test_an_ack_is_dated_by_no_clock_that_was_set_ahead_and_by_one_that_its_consumer_bears_out(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        first = await consumer.sign()
        rig.clock.shift_seconds += 3600
        consumer.headers = rig.authorization()
        second = await consumer.sign((1, 2), now=rig.clock.now() - 3600)
        third = await consumer.sign((1, 3))
        assert [(each.issued - first.issued) // 1800 for each in (second, third)] == [0, 2]


def read_with(rig: Rig, key: PublicKey) -> Any:
    """How an identity reads where the consumer has this one key, on the clock of a test."""

    def read(self: FakeIdentity, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        return jws.read(token, typ, issuer, [key] if issuer == CONSUMER else self.keys(issuer), rig.clock.now() if at is None else at)

    return read


@pytest.mark.asyncio
async def test_once_a_dispute_is_settled_data_and_receipts_go_on_where_they_were(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 2))
        assert rig.metering is not None
        before = await rig.store.metered(TRANSFER)
        assert before is not None

        async def put(status: str, version: int) -> None:
            changes = Changes(saves=(replace(before, status=status, version=before.version + version),))
            evidence = await rig.store.commit(changes)
            assert isinstance(evidence, tuple)
            rig.metering.receipts.committed(changes, evidence)  # type: ignore[union-attr]

        await put("disputed", 1)
        assert (await consumer.get(Range="bytes=0-9"))[0] == 403
        status, body = await consumer.post(consumer.receipt((1, 3)))
        assert (status, orjson.loads(body)["code"]) == (409, "account-disputed")
        await put("open", 2)
        assert (await consumer.get(Range="bytes=0-9"))[0] == 206
        assert (await consumer.sign((1, 3))).sequence == 2


@pytest.mark.asyncio
async def test_an_end_that_a_crash_has_left_without_a_statement_is_stated_at_the_next_start(tmp_path: Path):
    store = Failing()
    async with metered(tmp_path, store) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 3))
        store.fails_at = "statement-signed"
        await ended(rig)
        assert orjson.loads((await consumer.get("/receipts"))[1])["statement"] is None
        store.fails_at, view = None, rig.transfers.views[TRANSFER]
    async with metered(tmp_path, store, before=view) as (again, _):
        assert again.metering is not None
        for _ in range(2):
            again.metering.receipts.recover()
            await again.metering.receipts.close()
        assert (await facts_of(again)).count("statement-signed") == 1
        said = kept(Statement, (await again.metering.receipts.last(TRANSFER))["statement"] or "")
        assert said.totals.bytes == CREDIT_BYTES


class Unreadable(MemoryStore):
    """Owes a statement of a transfer whose promise nobody can read, before those that it owes besides."""

    async def unstated(self, role: Role, said: Sequence[str], since: float) -> Sequence[str]:
        return ["urn:uuid:unreadable", TRANSFER]

    async def metered(self, transfer: str) -> Metered | None:
        found = await super().metered(TRANSFER if transfer == "urn:uuid:unreadable" else transfer)
        return replace(found, transfer=transfer, manifest="no.manifest.here") if found and found.transfer != transfer else found


@pytest.mark.asyncio
async def test_a_statement_that_cannot_be_made_good_keeps_none_back_behind_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with metered(tmp_path, Unreadable()) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 3))
        assert rig.metering is not None
        rig.metering.receipts.recover()
        await rig.metering.receipts.close()
        assert (await facts_of(rig)).count("statement-signed") == 1
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["transfer"] for line in lines if line["event"] == "statement failed"] == ["urn:uuid:unreadable"]


@pytest.mark.asyncio
async def test_who_asks_gets_a_statement_of_what_the_account_has_come_to(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.begin()
        await consumer.sign((1, 3))
        await ended(rig)
        assert rig.metering is not None
        first = await rig.metering.receipts.stated(TRANSFER)
        assert await rig.metering.receipts.stated(TRANSFER) == first
        rig.change(state="COMPLETED")
        await consumer.sign((1, 8), state="complete")
        said = await rig.metering.receipts.stated(TRANSFER)
        assert kept(Statement, said["statement"] or "").totals.bytes == len(LARGE)


@pytest.mark.asyncio
async def test_the_end_of_a_transfer_without_receipts_is_stated_by_us_alone(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await consumer.get()
        await ended(rig)
        (flow,) = (await statement(consumer)).flows
        assert (flow.attested, flow.sequence, flow.receipt) == ("provider-only", 0, None)
        assert (flow.counts.bytes, flow.counts.items) == (len(LARGE), 1)
        assert (await facts_of(rig))[-1] == "statement-signed"


@pytest.mark.asyncio
async def test_a_transfer_of_which_nobody_wanted_anything_is_not_stated(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await ended(rig)
        assert await facts_of(rig) == []
        assert (await consumer.get("/receipts"))[0] == 404


@pytest.mark.asyncio
async def test_a_transfer_stays_one_call_after_a_restart_and_its_time_goes_on(tmp_path: Path):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.begin()
        await consumer.sign()
        await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}")
        calls = (await consumer.sign((1, 2))).calls
    async with metered(tmp_path, store, before=view) as (_, again):
        again.account, again.log = consumer.account, consumer.log
        again.count = consumer.count
        await again.get(Range="bytes=0-9")
        ack = await again.sign((1, 3))
        assert (calls, ack.calls) == (1, 1)
    async with metered(tmp_path, store, before=view) as (_, last):
        last.account, last.log, last.count = again.account, again.log, again.count
        said = await last.sign((1, 4))  # before anybody has asked for data
        assert (said.calls, said.microseconds) == (1, ack.microseconds)


@pytest.mark.asyncio
async def test_our_own_counts_are_not_lost_between_a_receipt_and_its_ack(tmp_path: Path):
    store = Failing()
    async with metered(tmp_path, store) as (rig, consumer):
        view = rig.transfers.views[TRANSFER]
        await consumer.begin()
        await consumer.sign()
        await consumer.get(Range=f"bytes=0-{CREDIT_BYTES - 1}")
        assert (await consumer.sign((1, 2))).calls == 1
        store.fails_at = telemetry.ACK
        token = consumer.receipt((1, 3))
        assert (await consumer.post(token))[0] == 503
    store.fails_at = None
    async with metered(tmp_path, store, before=view) as (_, again):
        await again.get(Range="bytes=0-9")
        status, body = await again.post(token)
        assert (status, kept(Ack, body.decode()).calls) == (200, 1)
