import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector import app, telemetry
from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.control.journal import Journal
from connector.control.watch import SWEPT_MAX, Keep, Retention
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.metering.dating import BELIEVED_SECONDS
from connector.ports import Store
from connector.records import Changes
from connector.settings.fields import RetentionSettings
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.contracts.samples import OWN, agreement, edr, fact, idempotent, inbox, negotiation, outbound, pull, transfer
from tests.pair import WAIT_SECONDS, desk, fresh
from tests.pair import negotiation as with_peer

KEEP = Keep(inbox_seconds=100.0, processes_seconds=1000.0, keys_seconds=10.0, parts_seconds=50.0)
N, T = Kind.NEGOTIATION, Kind.TRANSFER


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "connector.db", OWN)
    yield made
    await made.close()


async def ended_at(store: Store, at: float) -> None:
    """A finished negotiation and transfer with their messages, secrets and agreement, a pull, and an idempotency key."""
    saves: tuple[Any, ...] = (
        negotiation("n", state="FINALIZED", created=at, updated=at),
        inbox("n", at=at),
        agreement("a", negotiation="n", created=at),
        transfer("t", state="COMPLETED", created=at, updated=at),
        edr("t"),
        pull("p", stage="done", created=at, updated=at),
        idempotent("k", created=at),
    )
    await store.commit(Changes(saves=saves, evidence=(fact(pid="n"),)))


async def left(store: Store) -> set[str]:
    found = {
        "message": await store.last_answer("n"),
        "negotiation": await store.process(N, "n"),
        "transfer": await store.process(T, "t"),
        "token": await store.edr("t"),
        "pull": await store.pull("p"),
        "key": await store.idempotent("k"),
        "agreement": await store.agreement("a"),
        "evidence": await store.evidence_of("n") or None,
    }
    return {name for name, value in found.items() if value is not None}


EVERYTHING = {"message", "negotiation", "transfer", "token", "pull", "key", "agreement", "evidence"}


@pytest.mark.parametrize(
    ("age", "gone"),
    [
        (9.5, set()),
        (10.5, {"key"}),
        (99.5, {"key"}),
        (100.5, {"key", "message"}),
        (999.5, {"key", "message"}),
        (1000.5, EVERYTHING - {"agreement", "evidence"}),
        (1e9, EVERYTHING - {"agreement", "evidence"}),
    ],
)
@pytest.mark.asyncio
async def test_each_thing_goes_after_its_time_and_not_before(store: Store, age: float, gone: set[str]):
    clock = SetClock()
    await ended_at(store, clock.now() - age)
    counts = await Retention(Journal(store, clock), KEEP).sweep()
    assert await left(store) == EVERYTHING - gone
    assert sum(counts.values()) == len(gone - {"token"}), "the secrets of a transfer go with it and are not counted apart"


@pytest.mark.asyncio
async def test_a_clock_that_is_set_ahead_makes_nothing_older(store: Store):
    clock, steady = SetClock(), [0.0]
    await ended_at(store, clock.now())
    retention = Retention(Journal(store, clock), KEEP, lambda: steady[0])
    clock.at += 1e9
    await retention.sweep()
    assert await left(store) == EVERYTHING
    steady[0] += 1e9
    clock.at -= 1e9
    await retention.sweep()
    assert await left(store) == EVERYTHING
    clock.at += 100.5
    await retention.sweep()
    assert await left(store) == EVERYTHING - {"key", "message"}


@pytest.mark.asyncio
async def test_after_a_sleep_of_the_machine_what_is_kept_is_kept_for_a_day_more_and_not_for_ever(store: Store):
    clock, steady = SetClock(), [0.0]
    await ended_at(store, clock.now())
    retention = Retention(Journal(store, clock), KEEP, lambda: steady[0])
    clock.at += 1e9
    await retention.sweep()
    assert await left(store) == EVERYTHING
    steady[0] += BELIEVED_SECONDS
    clock.at += BELIEVED_SECONDS
    await retention.sweep()
    assert not await left(store) & {"key", "message"}


@pytest.mark.asyncio
async def test_each_turn_removes_indexes_that_were_replaced_long_before():
    asked = list[float]()

    def expire(now: float) -> int:
        asked.append(now)
        return 1

    clock = SetClock()
    retention = Retention(Journal(MemoryStore(), clock), KEEP, indexes=expire)
    for _ in range(2):
        await retention._turn()
    assert asked == [clock.now()] * 2


@pytest.mark.asyncio
async def test_a_disk_of_indexes_that_does_not_answer_keeps_no_message_any_longer(store: Store):
    def fails(_now: float) -> int:
        raise OSError(errno.EIO, "Input/output error")

    await ended_at(store, SetClock().now() - 1e9)
    with pytest.raises(OSError, match="Input/output"):
        await Retention(Journal(store, SetClock()), KEEP, indexes=fails)._turn()
    assert not await left(store) & {"key", "message"}


@pytest.mark.parametrize(("kind", "state"), [(N, "REQUESTED"), (N, "VERIFIED"), (T, "STARTED"), (T, "SUSPENDED")])
@pytest.mark.asyncio
async def test_what_is_still_open_is_kept_however_old(store: Store, kind: Kind, state: str):
    one = negotiation("n", state=state, updated=1.0) if kind is N else transfer("n", state=state, updated=1.0)
    await store.commit(Changes(saves=(one, inbox("n", at=1.0), edr("n"), pull("p", stage="download", created=1.0, updated=1.0))))
    assert set((await Retention(Journal(store, SetClock()), KEEP).sweep()).values()) == {0}
    assert await store.process(kind, "n") is not None
    assert await store.last_answer("n") is not None, "the answer to a repeat that may still come"
    assert await store.edr("n") is not None
    assert await store.pull("p") is not None


@pytest.mark.parametrize(
    ("dead", "process", "gone"),
    [
        pytest.param(True, negotiation("n", state="TERMINATED", updated=-999.5), False, id="an operator may still read it"),
        pytest.param(True, negotiation("n", state="TERMINATED", updated=-1000.5), True, id="both go after the time of the process"),
        pytest.param(True, negotiation("n", state="REQUESTED", updated=-1e6), False, id="what is open may be replayed"),
        pytest.param(True, transfer("n", state="STARTED", updated=-1e6), False, id="however long"),
        pytest.param(False, negotiation("n", state="TERMINATED", updated=-1e6), False, id="what is still being delivered is none"),
        pytest.param(True, None, True, id="nobody can do anything with it any more"),
    ],
)
@pytest.mark.asyncio
async def test_a_dead_letter_is_kept_as_long_as_its_process_and_no_longer(store: Store, dead: bool, process: Process | None, gone: bool):
    """Without its process an operator could neither judge it nor send it again; without an end to it nothing would go."""
    clock = SetClock()
    kept = replace(process, updated=clock.now() + process.updated) if process is not None else None
    row = outbound("o", "n", dead=dead, created=1.0, **({"kind": kept.kind} if kept else {}))
    await store.commit(Changes(saves=(kept,) if kept else (), outbox=(row,)))
    counts = await Retention(Journal(store, clock), KEEP).sweep()
    assert (counts["dead_letter"], counts["process"]) == (int(gone), int(gone and kept is not None))
    assert (await store.outbound("o") is None) is gone
    if kept is not None:
        assert (await store.process(kept.kind, "n") is None) is gone
        said = [(each.what, each.detail.get("by")) for each in await store.evidence_of("n")]
        assert said == ([(telemetry.DISCARDED, "retention")] if gone else []), "the record says that it was never delivered"


@pytest.mark.asyncio
async def test_old_letters_of_open_processes_hide_none_behind_them(store: Store):
    """More than are read at once, and the one that may go is the oldest."""
    clock = SetClock()
    many = [(negotiation(f"n{number}", updated=2.0), outbound(f"o{number}", f"n{number}", dead=True, created=2.0)) for number in range(250)]
    last = (negotiation("n", state="TERMINATED", updated=1.0), outbound("o", "n", dead=True, created=1.0))
    for process, row in (*many, last):
        await store.commit(Changes(saves=(process,), outbox=(row,)))
    assert (await Retention(Journal(store, clock), KEEP).sweep())["dead_letter"] == 1
    assert await store.outbound("o") is None
    assert await store.outbound("o249") is not None


class Told(MemoryStore):
    """Says when a sweep has found nothing more, and counts the sweeps."""

    def __init__(self) -> None:
        super().__init__()
        self.swept: list[int] = []
        self.idle = asyncio.Event()

    async def sweep(self, **said: Any) -> Any:
        counts = await super().sweep(**said)
        self.swept.append(sum(counts.values()))
        if not self.swept[-1]:
            self.idle.set()
        return counts


@pytest.mark.asyncio
async def test_the_job_starts_at_once_and_goes_on_in_bounded_sweeps_until_all_is_done():
    store = Told()
    await store.commit(Changes(saves=tuple(idempotent(f"k{n}", created=1.0) for n in range(SWEPT_MAX + 5))))
    retention = Retention(Journal(store, SetClock()), KEEP)
    retention.start()
    async with asyncio.timeout(WAIT_SECONDS):
        await store.idle.wait()
    await retention.close()
    assert store.swept == [SWEPT_MAX, 5, 0]


class Once(Told):
    """Fails once."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = asyncio.Event()

    async def sweep(self, **said: Any) -> Any:
        if not self.swept:
            self.swept.append(-1)
            self.failed.set()
            raise RuntimeError("nobody expects it")
        return await super().sweep(**said)


@pytest.mark.asyncio
async def test_a_sweep_that_fails_is_loud_and_tried_again(capfd: pytest.CaptureFixture[str]):
    store = Once()
    await store.commit(Changes(saves=(idempotent("k", created=1.0),)))
    retention = Retention(Journal(store, SetClock()), KEEP)
    assert await retention.fault() is None
    retention.start()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await store.failed.wait()
            await asyncio.sleep(0)
            assert "retention fails" in str(await retention.fault())
            await store.idle.wait()
            await asyncio.sleep(0)
            assert await retention.fault() is None
    finally:
        await retention.close()
    assert store.swept == [-1, 1, 0]
    logged = capfd.readouterr().err
    assert "retention failed" in logged
    assert '"level":"error"' in logged


@pytest.mark.asyncio
async def test_closing_a_job_that_was_never_started_is_nothing():
    await Retention(Journal(MemoryStore(), SetClock()), KEEP).close()


@pytest.mark.asyncio
async def test_the_settings_say_how_long_in_days_and_hours(tmp_path: Path):
    """A connector that starts finds a negotiation of two days ago and one of half a day ago, and keeps the younger one."""
    keep = RetentionSettings(inbox_days=1, processes_days=1, keys_hours=1)
    async with desk(tmp_path, store="sqlite", retention=keep) as at:
        now = at.us.connector.journal.clock.now()
        old, young = (
            with_peer(at.us, at.peer, "TERMINATED", Role.PROVIDER, pid=fresh(), created=now - age, updated=now - age)
            for age in (2 * 86_400.0, 43_200.0)
        )
        await at.us.put(old)
        await at.us.put(young)
        site = at.us.site
        await at.us.connector.close()
        again = await app.start(site.settings)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while await again.store.process(N, old.pid) is not None:  # noqa: ASYNC110 - a sweep is not announced
                    await asyncio.sleep(0.01)
            assert await again.store.process(N, young.pid) is not None
        finally:
            await again.close()
