"""A part of the program on each road, with real connectors; and that a bill, a file or a chain that is wrong is seen."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from connector.dsp.messages import Role
from connector.metering.counts import Counts
from connector.records.metering import Metered, Receipted
from connector.values import replace
from tests.faults.streams import lane, table
from tests.faults.streams.books import differences, opened, replayed, summed
from tests.faults.streams.lane import Lane
from tests.faults.streams.plan import LIVE, POWER_LOST, PUSHED, ROADS, UP_AT_LEAST, Cut, Errand
from tests.faults.streams.run import cut, ledger_verified

QUIET_SECONDS = 0.5
pytestmark = [pytest.mark.slow, pytest.mark.asyncio]


async def test_what_is_fetched_pushed_or_has_no_end_is_cut_and_comes_whole_and_is_billed_once(tmp_path: Path):
    """Three roads, side by side. All of them, each way of being cut and what is revoked are the program's, which CI runs as well."""
    small: dict[str, Any] = {"record_bytes": 1000, "record_seconds": 0.005}
    todo = [
        Errand(1, ROADS[2], 9_000_000, True, True, 2, (_cut("both killed", 3_000_000), _cut("server reset", 2_000_000))),
        Errand(2, PUSHED[0], 3_000_000, False, True, 0, (_cut("client reset", 500_000), _cut("provider killed", 900_000))),
        Errand(3, LIVE[1], 300_000, False, True, 0, (_cut(POWER_LOST, 100_000), _cut("orderly end", 50_000)), **small),
    ]
    report = await cut(todo, tmp_path)
    assert report.good, "\n".join(table.lines(report))
    assert [len(done.cuts) for done in report.done] == [2, 2, 2]
    whole = {done.errand.number: done for done in report.done}
    assert sum(book.provider_bytes for book in report.books) == 12_000_000 + whole[3].size_bytes
    assert whole[3].size_bytes >= 300_000
    assert whole[3].records > 200
    assert "difference 0;" in table.closing(report)


def _cut(how: str, at: int) -> Cut:
    return Cut(how, "down", at, 0.1)


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
    errand = Errand(1, ROADS[1], 6_000_000, False, True, 1, ())
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
