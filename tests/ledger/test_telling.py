"""What is said beside the ledger is what it says at one fact, whatever comes while it is read."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from msgspec.structs import astuple

from connector.adapters.sqlite import SqliteStore
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Busy
from connector.evidence.verify import verify
from connector.ledger import telling
from connector.records import Changes, Evidence
from connector.values import replace
from tests.contracts.samples import OWN, PEER
from tests.ledger.rig import Site
from tests.ledger.test_collecting import AGREEMENT, ID, PID, agreed, export, nothing

STARTED = Process(Kind.TRANSFER, PID, Role.PROVIDER, PEER, "https://x", "STARTED", "urn:uuid:t-c", agreement=ID, created=1.0, updated=1.0)
MOVES = {"STARTED": Move.START, "SUSPENDED": Move.SUSPENSION}


async def post(site: Site, number: int) -> None:
    """The peer suspends the transfer, or starts it anew."""
    state = sorted(MOVES)[number % 2]
    now = site.clock.now()
    fact = Evidence("message-received", Kind.TRANSFER, PID, PEER, state, now, MOVES[state])
    process = replace(STARTED, state=state, version=number + 2, updated=now)
    assert isinstance(await site.journal.commit(Changes(saves=(process,), evidence=(fact,))), tuple)


def after(work: Callable[[], Coroutine[Any, Any, None]], call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, made once the work is done."""

    async def made(*about: Any, **which: Any) -> Any:
        await work()
        return await call(*about, **which)

    return made


@pytest.mark.asyncio
async def test_an_export_comes_to_an_end_however_fast_a_peer_changes_the_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(OWN, store=store) as site:
        await agreed(site)
        await site.journal.commit(Changes(saves=(STARTED,)))
        number, done = 0, asyncio.Event()

        async def posts() -> None:
            nonlocal number
            number += 1
            await post(site, number)

        async def all_the_time() -> None:
            while not done.is_set():
                await posts()

        for name in ("processes", "metered_of", "logs"):
            monkeypatch.setattr(store, name, after(posts, getattr(store, name)))
        peer = asyncio.create_task(all_the_time())
        data = await export(site)
        done.set()
        await peer
        report = verify(data)
        assert report.sound, report.findings
        assert report.told is not None
        assert number > report.told.entries > 0, "some came later"
    await store.close()


@pytest.mark.asyncio
async def test_an_agreement_that_changes_whenever_it_is_looked_at_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch):
    async with Site(OWN) as site:
        await agreed(site)
        await site.journal.commit(Changes(saves=(STARTED,)))
        number = 0

        async def posts() -> None:
            nonlocal number
            number += 1
            assert number < 100, "it would go on for ever"
            await post(site, number)

        monkeypatch.setattr(telling, "UNSETTLED_SECONDS", 0.0)
        with monkeypatch.context() as patched:
            patched.setattr(site.store, "events", after(posts, site.store.events))
            with pytest.raises(Busy, match="changes without a pause"):
                await export(site)
        assert not await site.store.evidence_of(ID), "nothing was counted"
        assert verify(await export(site)).sound


class Watched(Evidence, weakref=True):
    """A fact of which it is seen whether anybody keeps it."""


@pytest.mark.asyncio
async def test_of_a_ledger_that_is_far_behind_a_page_of_facts_is_kept_at_a_time(monkeypatch: pytest.MonkeyPatch):
    async with Site(OWN) as site:
        await agreed(site)
        other = replace(STARTED, pid="urn:uuid:o", peer_pid="urn:uuid:o-c", agreement="urn:uuid:b")
        elsewhere = [Evidence("message-received", Kind.TRANSFER, other.pid, PEER, "STARTED", 2.0, Move.START) for _ in range(60)]
        await site.journal.commit(Changes(saves=(STARTED, other), evidence=tuple(elsewhere)))
        monkeypatch.setattr(telling, "FACTS", 10)
        seen: list[ref[Watched]] = []
        most, events = 0, site.store.events

        async def watched(after: int, limit: int) -> list[Watched]:
            nonlocal most
            page = [Watched(*astuple(fact)) for fact in await events(after, limit)]
            seen.extend(map(ref, page))
            most = max(most, sum(fact() is not None for fact in seen))
            return page

        monkeypatch.setattr(site.store, "events", watched)
        monkeypatch.setattr(site.store, "logs", nothing_numbered)
        told, last = await telling.Telling(site.store, nothing).settled(AGREEMENT)
        assert list(told.transfers) == [PID]
        assert last >= 60
        assert most <= 2 * 10, f"{most} facts were kept at a time"


async def nothing_numbered() -> tuple[()]:
    return ()
