"""A part of the program on each road, with real connectors; and that a bill, a file or a chain that is wrong is seen."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connector.dsp.messages import Role
from connector.metering.counts import Counts
from connector.records.metering import Metered, Receipted
from tests.faults.streams import lane, table
from tests.faults.streams.books import differences, opened, replayed, summed
from tests.faults.streams.lane import Lane
from tests.faults.streams.plan import LIVE, POWER_LOST, PUSHED, ROADS, SOURCE_KILLED, UP_AT_LEAST, Cut, Errand, Road, errands
from tests.faults.streams.revocation import ROADS as REVOKED_ON
from tests.faults.streams.revocation import revocations
from tests.faults.streams.run import cut, ledger_verified

QUIET_SECONDS = 0.5
pytestmark = [pytest.mark.slow, pytest.mark.asyncio]


@pytest.mark.parametrize("road", [*ROADS, *PUSHED], ids=lambda road: road.name)
async def test_four_transfers_of_each_road_are_cut_and_come_whole_and_are_billed_once(road: Road, tmp_path: Path):
    todo = [
        errand for errand in errands(60, 11, PUSHED if road.pushed else ROADS) if errand.road is road and errand.size_bytes < 40_000_000
    ][:4]
    report = await cut(todo, tmp_path)
    assert report.good, "\n".join(table.lines(report))
    assert len(report.done) == 4
    assert sum(book.provider_bytes for book in report.books) == sum(errand.size_bytes for errand in todo)
    assert "difference 0;" in table.closing(report)


async def test_data_without_an_end_come_without_a_gap_and_are_billed_once_whatever_dies(tmp_path: Path):
    """Lines whose source is killed, and events whose provider loses its power."""
    shape: dict[str, Any] = {"record_bytes": 1000, "record_seconds": 0.002}
    todo = [
        Errand(number, LIVE[1], 400_000, lines, True, 0, (Cut(how, "down", 150_000, 0.1), Cut("orderly end", "down", 50_000, 0.0)), **shape)
        for number, (how, lines) in enumerate(((SOURCE_KILLED, True), (POWER_LOST, False)))
    ]
    report = await cut(todo, tmp_path)
    assert report.good, "\n".join(table.lines(report))
    assert [each.cuts[0].how for each in report.done] == [SOURCE_KILLED, POWER_LOST]
    assert all(each.size_bytes >= 400_000 and each.records > 300 for each in report.done)
    assert "difference 0;" in table.closing(report)


@pytest.mark.parametrize("road", REVOKED_ON[:3], ids=lambda road: road.name)
async def test_what_is_revoked_while_it_flows_stops_within_a_second_and_a_window(road: Road, tmp_path: Path):
    complaints: list[str] = []
    found = await revocations(tmp_path, complaints, [road], parallels=(4,))
    assert not complaints
    assert len(found) == 3
    for one in found:
        assert not one.wrong, one
        assert one.signed > 0


async def test_a_consumer_that_is_away_for_long_before_its_first_receipt_finds_the_same_transfer_and_pays_once(tmp_path: Path):
    """Killed when the bytes of a small file have left, and when it is about to say that it has them."""
    size, away = 100_000, 4 * QUIET_SECONDS
    async with Lane(tmp_path, ROADS[0], quiet_seconds=QUIET_SECONDS) as one:
        for number, cut in enumerate((Cut("consumer killed", "down", size, away), Cut("consumer killed", "up", UP_AT_LEAST, away))):
            done = await one.run(Errand(number, ROADS[0], size, False, False, 1, (cut,)))
            assert (len(done.cuts), done.wrong) == (1, [])
        assert await one.stop() == []
        found = await summed(one.homes, one.done)
    assert [done.wrong for done in one.done] == [[], []]
    assert (found.transfers, found.provider_bytes, found.consumer_bytes) == (2, 2 * size, 2 * size)


async def test_what_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One transfer without a cut, whose books are read, and then read again with something changed."""
    errand = Errand(1, ROADS[1], 10_000_000, False, True, 1, ())
    monkeypatch.setattr(lane, "_compared", lambda *_: ["the file has another SHA-256"])
    async with Lane(tmp_path, errand.road, 8e6) as one:
        done = await one.run(errand)
        assert done.wrong == ["nothing was cut: the first cut lies beyond everything that came", "the file has another SHA-256"]
        done = await one.run(replace(errand, number=2, cuts=(Cut("orderly end", "down", 2_000_000, 0.0),)))
        assert len(done.cuts) == 1
        assert not (await asyncio.to_thread(ledger_verified, one.homes["consumer"])).startswith("BAD")
        (one.homes["provider"].directory / "admin-token").write_text("another one")
        assert (await asyncio.to_thread(ledger_verified, one.homes["provider"])).startswith("BAD provider")
        assert await one.stop() == []
        consumer, provider = opened(one.homes["consumer"]), opened(one.homes["provider"])
        pull = await consumer.store.pull(done.order)
        mine = await consumer.store.metered(pull.transfer)
        theirs = (await provider.store.metered_of(done.agreement))[0]
        rows = await provider.store.receipts(theirs.transfer)
        _see(mine, theirs, list(rows), provider, consumer)
        await consumer.store.close()
        await provider.store.close()


def _see(mine: Metered, theirs: Metered, rows: list[Receipted], provider: Any, consumer: Any) -> None:
    assert theirs.role is Role.PROVIDER
    assert differences(mine, theirs) == []
    assert differences(None, None) == []
    assert differences(mine, None) == ["only the consumer has an account"]
    more = replace(theirs, counts=theirs.counts + Counts(bytes=1))
    assert len(differences(mine, more)) == 1
    assert replayed(theirs, rows, provider, consumer) == []
    assert len(rows) >= 3
    assert "come to" in replayed(more, rows, provider, consumer)[0]
    assert replayed(theirs, rows[:-1], provider, consumer)
    assert "does not follow: sequence-gap" in replayed(theirs, [rows[0], *rows[2:]], provider, consumer)[0]
    altered = replace(rows[1], receipt=rows[1].receipt[:-2] + ("A" if rows[1].receipt[-2] != "A" else "B") + rows[1].receipt[-1])
    assert "does not follow: jws-" in replayed(theirs, [rows[0], altered, *rows[2:]], provider, consumer)[0]
    swapped = replace(rows[1], ack=rows[0].ack)
    assert "the ack of receipt 2 does not hold: ack-stale" in replayed(theirs, [rows[0], swapped, *rows[2:]], provider, consumer)[0]
    twice = replace(rows[1], ack=None)
    assert replayed(theirs, [*rows, twice], provider, consumer) == ["receipt 2 came twice, and was another"]
