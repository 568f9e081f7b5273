"""One call from wish to file: find the offer, reuse an agreement or negotiate, transfer, download, check, complete.

An order is durable. Each stage ends with a commit that names what the next one needs, so that after a crash the same code
goes on where it stopped. It has no deadline of its own: it waits as long as the process lives that it waits for, and that one
ends by its own deadlines. What it had to begin again, and why, stands in its reasons.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from connector import telemetry
from connector.control.journal import Feed, Journal
from connector.control.operate import Operations
from connector.control_streams import orders, patience
from connector.control_streams.kept import CANCEL, CANCELLABLE, DONE, FAILED, Kept
from connector.dsp import dcat
from connector.dsp.exchange import TERMINATED, Process
from connector.dsp.messages import Kind
from connector.errors import ConnectorError, Contradiction, NotFound, PeerFailed, PeerRefused, ProfilesUnread, SinkFailed
from connector.lasting import stopped
from connector.ports import Ids
from connector.ports.sinks import Downloads, Enough
from connector.records import Changes, Conflict, Edr, Expect, Idempotent, Pull
from connector.values import replace

EXPLAIN_SECONDS = 10.0  # after the data was refused: the message that explains it may still be on its way
LAST_SECONDS = 30.0  # after a quota has ended: its last bytes may come later than the message that says so
TRANSFERS_MAX = 5  # of one order: a provider that ends each of them before all of the data has come does not mean to give it


class Pulls:
    """Runs orders. `feed.transient` carries their progress for the event stream."""

    def __init__(self, journal: Journal, feed: Feed, operations: Operations, downloads: Downloads, ids: Ids) -> None:
        self._journal = journal
        self._store = journal.store
        self._feed = feed
        self._operations = operations
        self._downloads = downloads
        self._ids = ids
        self._kept = Kept(journal)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        self._enough: dict[str, Enough] = {}  # of the downloads that run
        self._ending: set[str] = set()  # orders that somebody cancels: what has come until now is signed for before their transfer ends
        self._spoken: dict[str, Pull] = {}  # by the process of theirs that the peer has to say something to
        self.live: dict[str, Pull] = {}

    async def order(
        self,
        peer: str,
        dataset: str,
        out: str,
        purposes: tuple[str, ...],
        key: Idempotent | None,
        *,
        parallel: int = 0,
        most_bytes: int | None = None,
        seconds: float | None = None,
        push: bool = False,
        range: str | None = None,
    ) -> Pull:
        """Accept an order; `parallel` connections are to fetch it, 0: as many as seems good. Data without an end are taken until there are
        `most_bytes`, or for so many `seconds`; of others a `range` of bytes, as HTTP spells one, if one is named. The same asked for again,
        while it runs, is the same order. Raises NotFound, InvalidRequest; nothing has happened then."""
        participant, id = self._operations.participant(peer), self._ids.new()
        now = self._journal.clock.now()
        pull = Pull(id, participant.id, dataset, out, "negotiate", purposes, parallel=parallel, version=1, created=now, updated=now)
        pull = replace(pull, most_bytes=most_bytes, until=now + seconds if seconds is not None else None, push=push)
        pull = orders.ranged(pull, range)
        async for running in self._kept.open():
            if orders.same(pull, running):
                if key is not None:
                    noted = (replace(key, answer=running.id.encode()),)
                    await self._journal.commit(Changes((Expect(Idempotent, key.key, None),), noted))
                return self.live.get(running.id, running)
        await self._downloads.check_out(out, id)
        changes, earlier = self._kept.write(None, pull), None
        if key is not None:
            expects = (*changes.expects, Expect(Idempotent, key.key, None))
            changes = replace(changes, expects=expects, saves=(*changes.saves, replace(key, answer=pull.id.encode())))
        if isinstance(await self._journal.commit(changes), Conflict) and key is not None:
            known = await self._store.idempotent(key.key)
            earlier = await self._store.pull(known.answer.decode()) if known else None
        if earlier is None:
            self._start(pull)
        return earlier or pull

    async def enough(self, id: str) -> Pull:
        """Take no more of data without an end: the order is done with what has come. Raises NotFound; Contradiction if it is over, or has
        not begun to fetch."""
        pull = await self._store.pull(id)
        if pull is None:
            raise NotFound(f"there is no pull `{id}`")
        if pull.stage != "download":
            raise Contradiction(f"the order is at `{pull.stage}`: what can end is the download of data without an end")
        await (self._enough.get(id) or Enough()).kept()  # a crash after our answer keeps what was shown before it
        ended = self._kept.next(pull, until=self._journal.clock.now())
        if isinstance(await self._journal.commit(self._kept.write(pull, ended)), Conflict):
            return await self.enough(id)  # it has moved on meanwhile
        if (running := self._enough.get(id)) is not None:
            running.said.set()
        return ended

    async def cancel(self, id: str, reason: str) -> Pull:
        """End an order, and before it what it has begun, of which the peer is told `reason`. What it has of the data stays for the next
        order for that file. Raises NotFound; Contradiction if it is over, or all of its data is there. Nothing has happened then."""
        while True:
            pull = await self._store.pull(id)
            if pull is None:
                raise NotFound(f"there is no pull `{id}`")
            if pull.stage not in CANCELLABLE:
                why = "it is over" if pull.stage in (DONE, FAILED) else "all of its data has come"
                raise Contradiction(f"the order is at `{pull.stage}`: {why}, and nothing is left to cancel")
            has_come = await self._has_come(pull)
            ended = self._kept.next(pull, stage=CANCEL, reasons=(*pull.reasons, reason), received_bytes=has_come)
            running = self._tasks.get(id)
            self._ending.add(id)
            try:
                if running is not None:
                    running.cancel()
                    await asyncio.wait({running})
                # What the order was just writing is written before this, or meets it as a conflict: `_fail` finds all that was begun.
                conflict = isinstance(await self._journal.commit(self._kept.write(pull, ended)), Conflict)
            finally:
                self._ending.discard(id)
                task = self._start(await self._store.pull(id) or ended)  # to its end, or on from where it was
            if not conflict:
                await asyncio.wait([task] if task is not None else [])
                return await self._store.pull(id) or ended

    async def recover(self) -> None:
        """Go on with every order that is not finished."""
        async for pull in self._kept.open():
            self._start(pull)

    async def close(self) -> None:
        """Stop. Orders stay where they are, also those that still come in: the next start goes on with them."""
        self._closed = True
        await stopped(*self._tasks.values())

    def _start(self, pull: Pull) -> asyncio.Task[None] | None:
        running = self._tasks.get(pull.id)  # two that cancel it at once have both waited for the one before
        if self._closed or (running is not None and not running.done()):
            return running
        task = self._tasks[pull.id] = asyncio.create_task(self._run(pull), name=f"pull {pull.id}")
        task.add_done_callback(lambda done: self._tasks.pop(pull.id) if self._tasks.get(pull.id) is done else None)
        return task

    async def _run(self, pull: Pull) -> None:
        stages = {
            "negotiate": self._negotiate, "transfer": self._transfer, "download": self._download, "complete": self._complete,
            CANCEL: self._cancelled,
        }  # fmt: skip
        try:
            while pull.stage in stages:
                pull = await stages[pull.stage](pull)
        except ProfilesUnread as e:  # the fault of an installation, for which this process ends: the next one goes on with the order
            telemetry.log.error("pull left for the next start", pull=pull.id, stage=pull.stage, reasons=list(e.reasons))
        except ConnectorError as e:
            telemetry.log.warning("pull failed", pull=pull.id, stage=pull.stage, reasons=list(e.reasons))
            await patience.surely(partial(self._fail, pull, e.reasons, orders.told(e)), pull.id)
        except Exception as e:
            telemetry.log.error("pull broke", pull=pull.id, stage=pull.stage, exc_info=e)
            why = f"internal error {type(e).__name__}; the log has the details"
            await patience.surely(partial(self._fail, pull, (why,), orders.told(e)), pull.id)
        finally:
            self.live.pop(pull.id, None)
            self._feed.nudge()

    async def _cancelled(self, pull: Pull) -> Pull:
        return await self._fail(pull, (), pull.reasons[-1])

    async def _fail(self, pull: Pull, reasons: tuple[str, ...], say: str) -> Pull:
        """End the order, and before it what it has begun, with what to `say` to the provider: it does not keep a transfer that nobody
        reads. A crash in between finds that process ended, with the same reason."""
        current = await self._store.pull(pull.id) or pull
        negotiation = current.negotiation or await self._kept.noted(current, "negotiation")
        transfer = current.transfer or await self._kept.noted(current, f"transfer:{current.transfers}")
        for kind, pid in ((Kind.NEGOTIATION, negotiation), (Kind.TRANSFER, transfer)):
            process = await self._store.process(kind, pid) if pid is not None else None
            if process is not None and not process.final:
                await self._let_go(kind, process.pid, say)
        if current.validator is None and transfer is not None:  # nobody could go on with what has come, nor would anybody find it
            with suppress(ConnectorError):
                await self._downloads.forget(current)
        over, has_come = orders.joined(current.reasons, reasons), await self._has_come(current)
        return await self._kept.save(
            current, stage=FAILED, reasons=over, received_bytes=has_come, negotiation=negotiation, transfer=transfer
        )

    async def _has_come(self, pull: Pull) -> int:
        """How much of the data is here: no less than was signed for, which all that nobody has seen since a restart may be."""
        accounts = [await self._store.metered(transfer) for transfer in orders.brought(pull)]
        signed = sum(each.counts.bytes for each in accounts if each is not None)
        signed = signed if pull.size_bytes is None else min(signed, pull.size_bytes)
        return max(self.live.get(pull.id, pull).received_bytes, pull.received_bytes, signed)

    async def _let_go(self, kind: Kind, pid: str, say: str) -> None:
        """End what the order has begun. What has ended meanwhile, or cannot be ended now, holds nothing up."""
        try:
            await self._operations.terminate(kind, pid, say)
        except ConnectorError as e:
            telemetry.log.info("not terminated", pid=pid, reason=e.message)

    async def _negotiate(self, pull: Pull) -> Pull:
        """Have an agreement. One that stands here already was refused: it is not used again."""
        if pull.negotiation is None:
            refused = pull.agreement is not None
            found = None if refused else await self._operations.reusable(pull.peer, pull.dataset, pull.purposes)
            if found is not None:
                return await self._kept.save(pull, stage="transfer", agreement=found.id)
            pull = await self._kept.save(pull, negotiation=await self._kept.noted(pull, "negotiation") or (await self._ask(pull)).pid)
        process = await self._answered(Kind.NEGOTIATION, pull, pull.negotiation or "", lambda p: p.final)
        if process.state != "FINALIZED" or process.agreement is None:
            raise orders.failed_with("negotiation", process)
        return await self._kept.save(pull, stage="transfer", agreement=process.agreement)

    async def _ask(self, pull: Pull) -> Process:
        """Find the offer and ask for it; whoever looks at the order meanwhile sees what it waits for."""

        def waits(error: PeerFailed) -> None:
            telemetry.log.info("catalog not reached", pull=pull.id, reason=error.message)
            self._waits(pull, error.reasons)

        ask = partial(self._operations.negotiate, pull.peer, pull.dataset, purposes=pull.purposes, key=self._kept.key(pull, "negotiation"))
        process = await patience.patiently(ask, waits)
        self.live.pop(pull.id, None)
        return process

    async def _transfer(self, pull: Pull) -> Pull:
        """Have the transfer started. An agreement from an earlier order may have come to its end over there without our
        knowledge: if the provider refuses one, another one is negotiated, once."""
        reused = pull.negotiation is None
        if pull.transfer is None:
            key = self._kept.key(pull, f"transfer:{pull.transfers}")
            noted = await self._kept.noted(pull, f"transfer:{pull.transfers}")
            try:
                format = dcat.FORMAT_PUSH if pull.push else dcat.FORMAT_PULL
                begun = noted or (await self._operations.transfer(pull.agreement or "", format, key)).pid
            except Contradiction as e:
                if not reused:
                    raise
                return await self._anew(pull, e.message)
            pull = await self._kept.save(pull, transfer=begun)
        process = await self._answered(Kind.TRANSFER, pull, pull.transfer or "", lambda p: p.final or p.state == "STARTED")
        if process.state == TERMINATED:
            failure = orders.failed_with("transfer", process)
            if reused and process.detail.get("ended_by") == "peer" and not orders.used_up(process):
                return await self._anew(pull, failure.message)
            raise failure
        return await self._kept.save(pull, stage="download")

    async def _anew(self, pull: Pull, why: str) -> Pull:
        why = f"agreement `{pull.agreement}` from an earlier order could not be used: {why}"
        telemetry.log.info("negotiating anew", pull=pull.id, reason=why)
        return await self._kept.save(pull, stage="negotiate", **orders.next_transfer(pull, why))

    async def _again(self, pull: Pull, why: str) -> Pull:
        """The transfer is over, or its log lost, and something never came. Part and agreement are still good."""
        if pull.transfers + 1 >= TRANSFERS_MAX:
            raise PeerFailed(f"{why}; after {pull.transfers + 1} transfers no other one is begun, and the part is kept")
        why += "; the rest comes by another one under the same agreement"
        telemetry.log.info("transfer begun again", pull=pull.id, reason=why)
        return await self._kept.save(pull, stage="transfer", **orders.next_transfer(pull, why))

    async def _download(self, pull: Pull) -> Pull:
        """Download while the transfer runs; a suspension pauses the order, and the next start lets it go on. Once it has ended,
        however it did, the order is done if all of the data has come before."""
        pull = await self._kept.inherit(pull)
        while True:
            process = await self._answered(Kind.TRANSFER, pull, pull.transfer or "", lambda p: p.final or p.state == "STARTED")
            if process.final:
                progress, completed = partial(self._progress, pull.id), process.state == "COMPLETED"
                if (found := await self._downloads.finish(pull, progress=progress, completed=completed)) is not None:
                    return await self._fetched(found)
                if process.state == TERMINATED:
                    raise orders.failed_with("transfer", process)
                return await self._again(pull, f"the provider completed transfer `{pull.transfer}` before all of the data had come")
            edr = await self._store.edr(process.pid)
            if edr is None and not pull.push:
                if await self._moved(process):
                    continue
                raise PeerFailed("the provider started the transfer without a data address")
            ended = asyncio.create_task(self._settled(Kind.TRANSFER, process.pid, partial(orders.moved_on, process)))
            over = partial(self._over, pull.id, ended)
            running = asyncio.create_task(self._fetch(pull, None if pull.push else edr, process, over))
            try:
                await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done() and orders.used_up(await ended):  # what has been charged is on its way, and was paid for
                    await asyncio.wait({running}, timeout=LAST_SECONDS)
                elif not running.done() and (await ended).state != "COMPLETED":
                    running.cancel()
                if running.done() or (await ended).state == "COMPLETED":
                    return await running
            except ConnectorError as e:
                if orders.log_lost(e):
                    await self._let_go(Kind.TRANSFER, process.pid, e.message)
                    return await self._again(await self._store.pull(pull.id) or pull, e.message)
                if not await self._explained(process, e):
                    raise
                telemetry.log.info("download interrupted", pull=pull.id, reason=e.message)
            finally:
                await stopped(running, ended)
            pull = await self._store.pull(pull.id) or pull

    def _over(self, id: str, ended: asyncio.Task[Process]) -> bool:
        """Whether the order is being cancelled or its transfer has moved on, and not merely unheard of since the connector stops."""
        return id in self._ending or (ended.done() and not ended.cancelled())

    async def _fetch(self, pull: Pull, edr: Edr | None, process: Process, over: Callable[[], bool]) -> Pull:
        async def renewed(edr: Edr) -> None:
            """Keep the renewed address, unless the process has moved on: a later start's is never replaced by one of before."""
            await self._journal.commit(Changes((Expect(Process, process.pid, process.version),), (edr,)))

        enough = self._enough[pull.id] = Enough(pull.most_bytes, pull.until)
        progress = partial(self._progress, pull.id)
        try:
            found = await self._downloads.fetch(pull, edr, renewed=renewed, progress=progress, over=over, enough=enough)
            return await self._fetched(found)
        finally:
            del self._enough[pull.id]

    async def _progress(self, id: str, seen: Pull) -> None:
        stored = await self._store.pull(id) or seen
        waits = orders.joined(stored.reasons, seen.reasons)
        self.live[id] = replace(stored, received_bytes=seen.received_bytes, size_bytes=seen.size_bytes, reasons=waits, stage="download")
        known = {name: getattr(seen, name) for name in ("validator", "size_bytes", "sha256", "stated")}
        if replace(stored, **known) != stored:
            await self._kept.save(stored, **known)
        self._feed.nudge()

    async def _fetched(self, result: Pull) -> Pull:
        stored = await self._store.pull(result.id) or result
        known = {name: getattr(result, name) for name in ("size_bytes", "sha256", "stated", "received_bytes")}
        complete = await self._kept.save(stored, stage="complete", reasons=orders.joined(stored.reasons, result.reasons), **known)
        self.live.pop(result.id, None)  # there is no progress any more, however long the provider takes to hear of the end
        return complete

    async def _moved(self, begun: Process) -> bool:
        process = await self._store.process(Kind.TRANSFER, begun.pid)
        return process is not None and orders.moved_on(begun, process)

    async def _explained(self, begun: Process, error: ConnectorError) -> bool:
        """Whether the transfer is not any more what it was when the download began. The data listener may refuse before we have
        heard why, above all if we were away: then the message waits at the provider, which tries it when it hears from us."""
        if not isinstance(error, PeerFailed) and not (isinstance(error, SinkFailed) and error.full):  # the disk is waited for anew
            return False
        if isinstance(error, PeerRefused) and not await self._moved(begun):
            state = await self._operations.ask(begun)
            telemetry.log.info("data refused", pid=begun.pid, reason=error.message, state=begun.state, state_at_peer=state)
            await self._feed.wait(Kind.TRANSFER, begun.pid, partial(orders.moved_on, begun), EXPLAIN_SECONDS)
        return await self._moved(begun)

    async def _complete(self, pull: Pull) -> Pull:
        """Size and digest are checked and the file has its name: only now the transfer is completed."""
        if pull.push:  # whoever brings them says that they are all there, if it does
            await self._feed.wait(Kind.TRANSFER, pull.transfer or "", lambda p: p.final, LAST_SECONDS)
        process = await self._settled(Kind.TRANSFER, pull.transfer or "", lambda p: p.in_flight is None)
        if process.state == "STARTED":
            try:
                await self._operations.complete(process.pid)
            except Contradiction:
                telemetry.log.info("transfer ended while it was being completed", pid=process.pid)
            process = await self._settled(Kind.TRANSFER, process.pid, lambda p: p.final or p.in_flight is None)
        return await self._kept.save(pull, stage=DONE, reasons=orders.joined(pull.reasons, orders.ended_by_peer(process)))

    def unheard(self, pid: str, why: str) -> None:
        """The peer has not taken what process `pid` has to say to it, and is told again: whoever looks at its order sees why."""
        if (pull := self._spoken.get(pid)) is not None:
            self._waits(pull, (why,))

    def _waits(self, pull: Pull, why: tuple[str, ...]) -> None:
        self.live[pull.id] = replace(pull, reasons=orders.joined(pull.reasons, why))
        self._feed.nudge()

    async def _answered(self, kind: Kind, pull: Pull, pid: str, until: Callable[[Process], bool]) -> Process:
        self._spoken[pid] = pull
        try:
            self._waits(replace(self.live.get(pull.id, pull), reasons=pull.reasons), orders.paused(await self._store.process(kind, pid)))
            return await self._settled(kind, pid, until)
        finally:
            del self._spoken[pid]
            self.live.pop(pull.id, None)

    async def _settled(self, kind: Kind, pid: str, until: Callable[[Process], bool]) -> Process:
        process = await self._feed.wait(kind, pid, until, None)
        if process is None:
            raise Contradiction(f"{kind} `{pid}` of this order is not stored any more")
        if not until(process):  # the connector stops: the next start goes on with the order
            raise asyncio.CancelledError
        return process
