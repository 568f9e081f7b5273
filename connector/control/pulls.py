"""One call from wish to file: find the offer, reuse an agreement or negotiate, transfer, download, check, complete.

An order is durable. Each stage ends with a commit that names what the next one needs, so that after a crash the same code
goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import PurePath
from typing import Any, Protocol

from connector import telemetry
from connector.control.feed import Feed
from connector.control.journal import Journal
from connector.control.operate import Operations
from connector.dsp import dcat
from connector.dsp.answers import LATER
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import ConnectorError, Contradiction, PeerFailed, PeerRefused
from connector.ports import Ids
from connector.records import Changes, Conflict, Edr, Evidence, Expect, Idempotent, Pull

SETTLE_SECONDS = 86_400.0  # how long a stage waits for the other side; the process's own deadlines are shorter
PATIENCE_SECONDS = 900.0  # with a peer whose catalog cannot be reached: one that restarts or moves is back by then
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 5.0  # between two such attempts; each pause is up to twice the one before
OPEN, DONE, FAILED = ("negotiate", "transfer", "download", "complete"), "done", "failed"


class Downloads(Protocol):
    """Fetches bytes to a file; the data plane implements it."""

    def check_out(self, out: str) -> None:
        """Raise InvalidRequest if a download may not go to this path."""

    async def fetch(
        self, pull: Pull, edr: Edr, *, renewed: Callable[[Edr], Awaitable[None]], progress: Callable[[Pull], Awaitable[None]]
    ) -> Pull:
        """Download, resume, check and rename. Returns the order with size, digest and bytes received. `progress` is called
        with what has to survive a crash (validator, size) and for whoever watches. Raises ConnectorError."""


class Pulls:
    """Runs orders. `feed.transient` carries their progress for the event stream."""

    def __init__(self, journal: Journal, feed: Feed, operations: Operations, downloads: Downloads, ids: Ids) -> None:
        self._journal = journal
        self._store = journal.store
        self._feed = feed
        self._operations = operations
        self._downloads = downloads
        self._ids = ids
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        self.live: dict[str, Pull] = {}

    async def order(self, peer: str, dataset: str, out: str, purposes: tuple[str, ...], key: Idempotent | None) -> Pull:
        """Accept an order. Raises NotFound, InvalidRequest; nothing has happened then."""
        participant = self._operations.participant(peer)
        self._downloads.check_out(out)
        now = self._journal.clock.now()
        pull = Pull(self._ids.new(), participant.id, dataset, out, "negotiate", purposes, version=1, created=now, updated=now)
        changes, earlier = self._write(None, pull), None
        if key is not None:
            expects = (*changes.expects, Expect(Idempotent, key.key, None))
            changes = replace(changes, expects=expects, saves=(*changes.saves, replace(key, answer=pull.id.encode())))
        if isinstance(await self._journal.commit(changes), Conflict) and key is not None:
            known = await self._store.idempotent(key.key)
            earlier = await self._store.pull(known.answer.decode()) if known else None
        if earlier is None:
            self._start(pull)
        return earlier or pull

    async def recover(self) -> None:
        """Go on with every order that is not finished."""
        after = None
        while True:
            page = await self._store.pulls(open_only=True, after=after, limit=200)
            for pull in page.items:
                self._start(pull)
            if (after := page.next) is None:
                return

    async def close(self) -> None:
        """Stop. Orders stay where they are, also those that still come in: the next start goes on with them."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, pull: Pull) -> None:
        if self._closed:
            return
        task = self._tasks[pull.id] = asyncio.create_task(self._run(pull), name=f"pull {pull.id}")
        task.add_done_callback(lambda _done: self._tasks.pop(pull.id, None))

    async def _run(self, pull: Pull) -> None:
        stages = {"negotiate": self._negotiate, "transfer": self._transfer, "download": self._download, "complete": self._complete}
        try:
            while pull.stage in stages:
                pull = await stages[pull.stage](pull)
        except ConnectorError as e:
            current = await self._store.pull(pull.id) or pull
            await self._save(current, stage=FAILED, reasons=tuple(e.reasons))
            telemetry.log.warning("pull failed", pull=pull.id, stage=pull.stage, reasons=list(e.reasons))
        except Exception as e:
            current = await self._store.pull(pull.id) or pull
            await self._save(current, stage=FAILED, reasons=(f"internal error {type(e).__name__}; the log has the details",))
            telemetry.log.error("pull broke", pull=pull.id, stage=pull.stage, exc_info=e)
        finally:
            self.live.pop(pull.id, None)
            self._feed.nudge()

    async def _negotiate(self, pull: Pull) -> Pull:
        if pull.negotiation is None:
            found = await self._operations.reusable(pull.peer, pull.dataset, pull.purposes)
            if found is not None:
                return await self._save(pull, stage="transfer", agreement=found.id)
            key = self._key(pull, "negotiation")
            known = await self._store.idempotent(key.key)
            pull = await self._save(pull, negotiation=known.answer.decode() if known else (await self._ask(pull, key)).pid)
        process = await self._settled(Kind.NEGOTIATION, pull.negotiation or "", lambda p: p.final)
        if process.state != "FINALIZED" or process.agreement is None:
            raise self._failure("negotiation", process)
        return await self._save(pull, stage="transfer", agreement=process.agreement)

    async def _ask(self, pull: Pull, key: Idempotent) -> Process:
        """Find the offer and ask for it. An order outlives a peer that restarts, as every message does: one that cannot be
        reached is asked again for PATIENCE_SECONDS, and whoever looks at the order meanwhile sees what it waits for."""
        clock, longest = self._journal.clock, FIRST_PAUSE_SECONDS
        patient_until = clock.now() + PATIENCE_SECONDS
        while True:
            try:
                process = await self._operations.negotiate(pull.peer, pull.dataset, purposes=pull.purposes, key=key)
            except PeerFailed as e:
                if not _passes(e) or clock.now() + longest > patient_until:
                    raise
                telemetry.log.info("catalog not reached", pull=pull.id, reason=e.message)
                self.live[pull.id] = replace(pull, reasons=tuple(e.reasons))
                self._feed.nudge()
            else:
                self.live.pop(pull.id, None)
                return process
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing
            longest = min(longest * 2, PAUSE_SECONDS_MAX)

    async def _transfer(self, pull: Pull) -> Pull:
        if pull.transfer is None:
            key = self._key(pull, "transfer")
            known = await self._store.idempotent(key.key)
            pid = known.answer.decode() if known else (await self._operations.transfer(pull.agreement or "", dcat.FORMAT_PULL, key=key)).pid
            pull = await self._save(pull, transfer=pid)
        process = await self._settled(Kind.TRANSFER, pull.transfer or "", lambda p: p.final or p.state == "STARTED")
        if process.state != "STARTED":
            raise self._failure("transfer", process)
        return await self._save(pull, stage="download")

    async def _download(self, pull: Pull) -> Pull:
        """Download while the transfer runs; a suspension pauses the order, and the next start lets it go on."""
        while True:
            process = await self._settled(Kind.TRANSFER, pull.transfer or "", lambda p: p.final or p.state == "STARTED")
            if process.final and process.state != "COMPLETED":
                raise self._failure("transfer", process)
            edr = await self._store.edr(pull.transfer or "")
            if edr is None:
                raise PeerFailed("the provider started the transfer without a data address")
            running = asyncio.create_task(self._fetch(pull, edr, process))
            ended = asyncio.create_task(self._settled(Kind.TRANSFER, process.pid, partial(_moved_on, process)))
            try:
                await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done() and (await ended).state != "COMPLETED":
                    running.cancel()
                if running.done() or (await ended).state == "COMPLETED":
                    return await running
            except ConnectorError as e:
                state = await self._store.process(Kind.TRANSFER, process.pid)
                if state is None or state.state == "COMPLETED" or not _moved_on(process, state):
                    raise
                telemetry.log.info("download interrupted", pull=pull.id, reason=e.message, state=state.state)
            finally:
                running.cancel()
                ended.cancel()
                await asyncio.gather(running, ended, return_exceptions=True)
            pull = await self._store.pull(pull.id) or pull

    async def _fetch(self, pull: Pull, edr: Edr, process: Process) -> Pull:
        async def renewed(edr: Edr) -> None:
            """Keep the renewed address, unless the process has moved on: a later start's is never replaced by one of before."""
            await self._journal.commit(Changes((Expect(Process, process.pid, process.version),), (edr,)))

        async def progress(seen: Pull) -> None:
            stored = await self._store.pull(pull.id) or pull
            self.live[pull.id] = replace(stored, received_bytes=seen.received_bytes, size_bytes=seen.size_bytes, stage="download")
            if (seen.validator, seen.size_bytes, seen.sha256) != (stored.validator, stored.size_bytes, stored.sha256):
                await self._save(stored, validator=seen.validator, size_bytes=seen.size_bytes, sha256=seen.sha256)
            self._feed.nudge()

        result = await self._downloads.fetch(pull, edr, renewed=renewed, progress=progress)
        stored = await self._store.pull(pull.id) or pull
        return await self._save(
            stored,
            stage="complete",
            size_bytes=result.size_bytes,
            sha256=result.sha256,
            received_bytes=result.received_bytes,
            reasons=result.reasons,
        )

    async def _complete(self, pull: Pull) -> Pull:
        """Size and digest are checked and the file has its name: only now the transfer is completed."""
        process = await self._settled(Kind.TRANSFER, pull.transfer or "", lambda p: p.in_flight is None)
        if process.state == "STARTED":
            try:
                await self._operations.complete(process.pid)
            except Contradiction:
                telemetry.log.info("transfer ended while it was being completed", pid=process.pid)
            await self._settled(Kind.TRANSFER, process.pid, lambda p: p.final or p.in_flight is None)
        return await self._save(pull, stage=DONE)

    async def _settled(self, kind: Kind, pid: str, until: Callable[[Process], bool]) -> Process:
        process = await self._feed.wait(kind, pid, until, SETTLE_SECONDS)
        if process is None or not until(process):
            raise PeerFailed(f"{kind} `{pid}` did not move within {SETTLE_SECONDS:g} s")
        return process

    @staticmethod
    def _failure(what: str, process: Process) -> ConnectorError:
        reasons = tuple(process.detail.get("reasons") or (f"the {what} ended in {process.state} and the peer gave no reason",))
        return Contradiction(f"the {what} ended in {process.state}: {'; '.join(reasons)}", reasons)

    def _key(self, pull: Pull, what: str) -> Idempotent:
        """Beginning a process and noting its pid are two commits; this key, written with the first, makes them one."""
        return Idempotent(f"pull:{pull.id}:{what}", b"", b"", self._journal.clock.now())

    async def _save(self, pull: Pull, **changed: Any) -> Pull:
        saved = replace(pull, version=pull.version + 1, updated=self._journal.clock.now(), **changed)
        await self._journal.commit(self._write(pull, saved))
        return saved

    def _write(self, before: Pull | None, pull: Pull) -> Changes:
        evidence: tuple[Evidence, ...] = ()
        if before is None or before.stage != pull.stage:
            detail = {
                "pull": pull.id,
                "stage": pull.stage,
                "dataset": pull.dataset,
                "file": PurePath(pull.out).name,
                "reasons": list(pull.reasons),
            }
            evidence = (Evidence(telemetry.PULL, None, pull.transfer or pull.negotiation, pull.peer, None, pull.updated, detail=detail),)
        return Changes((Expect(Pull, pull.id, before.version if before else None),), (pull,), evidence=evidence)


def _moved_on(begun: Process, process: Process) -> bool:
    """Whether a download has to stop: its transfer is not running any more, or the provider has started it again. Then there
    is another data address, and the tokens of the one before have ended."""
    return process.final or process.state == "SUSPENDED" or process.last_accepted not in (None, begun.last_accepted)


def _passes(error: PeerFailed) -> bool:
    """Whether the peer may answer otherwise soon: it gave no answer, or one that says "not now"."""
    return not isinstance(error, PeerRefused) or error.status in LATER or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
