"""The ledger as one thing: it starts, tells, is asked, and ends."""

import asyncio
import threading

import orjson
import pytest

from connector import telemetry
from connector.ledger.book import signer_of
from connector.merkle import notes
from connector.records import Changes
from connector.records.ledger import Place
from tests.contracts.samples import OWN, PEER, fact
from tests.ledger.rig import Clock, Site, key_of
from tests.metrics import sample


@pytest.mark.asyncio
async def test_what_the_port_promises():
    async with Site() as site:
        assert await site.book.checkpoint() is None
        (said,) = await site.say()
        assert await site.book.index_of(said.sequence) == Place("hospital.example/ledger", 0)
        assert (await site.book.checkpoint() or "").startswith("hospital.example/ledger\n1\n")
        assert not site.book.suspected(PEER)
        assert await site.book.fault() is None
    for name in ("ledger_entries_total", "ledger_commit_seconds_count", "ledger_tree_size", "ledger_checkpoint_timestamp_seconds"):
        assert sample(f"qiao_{name}") > 0


@pytest.mark.asyncio
async def test_a_checkpoint_that_was_shown_is_shown_again_for_a_second_and_then_it_is_the_newest():
    async with Site() as site:
        (first,) = await site.say()
        await site.book.index_of(first.sequence)
        note = await site.book.checkpoint()
        (second,) = await site.say()
        await site.book.index_of(second.sequence)
        assert await site.book.checkpoint() == note
        newest = await site.book.sequencer.checkpoint(fresh_seconds=0)
        assert newest is not None
        assert newest.splitlines()[1] == "2"
        assert newest.encode() in (site.anchor.read() or ())


@pytest.mark.asyncio
async def test_an_entry_that_is_in_the_database_is_in_the_checkpoint_that_is_asked_for_with_it(monkeypatch: pytest.MonkeyPatch):
    async with Site() as site:
        (first,) = await site.say()
        await site.book.index_of(first.sequence)
        assert (await site.book.shown(None))[1].splitlines()[1] == "1"
        plain, held, go = site.anchor.write, threading.Event(), threading.Event()

        def write(note: bytes, *, durable: bool) -> None:
            if not durable:  # the moment between the commit and what is known of it here
                held.set()
                assert go.wait(10)
            plain(note, durable=durable)

        monkeypatch.setattr(site.anchor, "write", write)
        await site.say()
        try:
            assert await asyncio.to_thread(held.wait, 10)
            log, note = await site.book.shown(None, beyond=1)
            assert (log.size, note.splitlines()[1]) == (2, "2")
        finally:
            go.set()


@pytest.mark.asyncio
async def test_a_log_that_is_shown_has_all_that_its_checkpoint_is_over(monkeypatch: pytest.MonkeyPatch):
    async with Site() as site:
        (first,) = await site.say()
        await site.book.index_of(first.sequence)
        plain = site.book.sequencer.checkpoint

        async def later(fresh_seconds: float = 0.0) -> str | None:
            """As it is if an entry comes while somebody asks."""
            (another,) = await site.say()
            await site.book.index_of(another.sequence)
            return await plain(0.0)

        monkeypatch.setattr(site.book.sequencer, "checkpoint", later)
        for beyond in (-1, 3):
            log, note = await site.book.shown(None, beyond)
            assert log.size >= int(note.splitlines()[1]) > 1


@pytest.mark.asyncio
async def test_no_payload_and_nothing_personal_is_in_an_entry_whatever_a_fact_says_in_detail():
    async with Site() as site:
        canary = "Maria Musterfrau, 1.1.1970"
        detail = {"reasons": [canary], "nested": {canary: 1}}
        await site.journal.commit(Changes(evidence=tuple(fact(what, detail=detail) for what in telemetry.WHATS)))
        await site.book.index_of(len(telemetry.WHATS))
        entries = await site.store.entries(1, 0, 100)
        assert len(entries) == len(telemetry.WHATS)
        for entry in entries:
            assert b"Maria" not in entry.body
            assert set(orjson.loads(entry.body)) == {
                "at", "detail", "digest", "kind", "move", "peer", "pid", "state", "v", "what"
            }  # fmt: skip


def test_a_signer_signs_under_the_name_that_it_is_given():
    signer = signer_of(key_of(OWN), "a.example/ledger")
    note = notes.read(notes.signed("text\n", [signer]))
    assert notes.verify(note, [notes.VerifierKey("a.example/ledger", key_of(OWN).key.public)])


@pytest.mark.asyncio
async def test_a_start_with_a_clock_that_is_behind_what_is_on_record_is_told(capfd: pytest.CaptureFixture[str]):
    clock = Clock()
    async with Site(clock=clock) as site:
        (said,) = await site.say()
        await site.book.index_of(said.sequence)
    for back, told in ((0, 0), (20, 0), (3600, 1)):
        capfd.readouterr()
        async with Site(store=site.store, anchor=site.anchor, clock=Clock(clock.at - back)):
            pass
        assert capfd.readouterr().err.count("clock behind the ledger") == told
