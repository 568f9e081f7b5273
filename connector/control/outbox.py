"""Delivers what is due: messages to peers, and decisions that were put off. At least once, until settled or dead.

A committed row wakes its task at once; after a crash `recover` reads the rows back and wakes the same tasks. A message whose
fate is unknown is not simply sent again: the peer is asked for its state first, because DSP messages carry no id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from opentelemetry.trace import SpanKind

from connector import telemetry
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.steps import Steps, fact
from connector.dsp import exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import PATH_CHARACTERS, Kind, Move, Role, is_pid
from connector.errors import ConnectorError, EgressDenied, IllegalMessage, PeerFailed, WireError
from connector.ports import Act, Identity, Peer, Reply
from connector.records import Changes, Evidence, Expect, Outbound

# Statuses that say "not now": time-outs, overload, a proxy in front of a peer that restarts.
LATER = frozenset({408, 425, 429})
# Statuses that are final only when repeated: 404 and 401 come from proxies and clocks as well as from peers, and 400 also
# from two messages that crossed, after which one of us has to try again.
DOUBTFUL = frozenset({400, 401, 403, 404, 409})
DIFFERING_MAX = 2  # once may be a message on its way, twice is not
ERROR_CHARACTERS_MAX = 1000  # of a peer's words in our records
DOUBTFUL_ATTEMPTS_MAX = 5  # with the back-off below about two seconds: longer than a crossing, shorter than patience

# What has to be added to a message for each attempt: the data address of a start, with a token of its own.
Finish = Callable[[Outbound, Process], Awaitable[Mapping[str, Any]]]


class Outbox:
    """The worker. `finish` mints what a message carries per attempt, `first_retry_seconds` and `retry_seconds_max` bound the
    back-off, which is jittered, doubles, and is cut short by any sign of life from the peer."""

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        peer: Peer,
        identity: Identity,
        tracing: telemetry.Tracing,
        finish: Finish,
        *,
        first_retry_seconds: float = 0.05,
        retry_seconds_max: float = 300.0,
    ) -> None:
        self._journal = journal
        self._store = journal.store
        self._steps = steps
        self._peer = peer
        self._identity = identity
        self._tracing = tracing
        self._finish = finish
        self.first_retry_seconds = first_retry_seconds
        self.retry_seconds_max = retry_seconds_max
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._speaking: set[str] = set()
        self._alive: dict[str, asyncio.Event] = {}
        self.last_errors: dict[str, str] = {}
        journal.listen(self._committed)

    def _committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        for id in changes.settled:
            task = self._tasks.pop(id, None)
            if task is not None and id not in self._speaking:  # a request on its way is not cut: its answer is just not needed
                task.cancel()
        for row in changes.outbox:
            if not row.dead:
                self._wake(row, fresh=row.attempts == 0)

    def _wake(self, row: Outbound, *, fresh: bool) -> None:
        if row.id not in self._tasks:
            task = self._tasks[row.id] = asyncio.create_task(self._run(row, fresh), name=f"outbox {row.act} {row.move}")
            task.add_done_callback(lambda done: self._done(row, done))
            telemetry.outbox_open.inc()

    def _done(self, row: Outbound, task: asyncio.Task[None]) -> None:
        if self._tasks.get(row.id) is task:
            del self._tasks[row.id]
        self.last_errors.pop(row.pid, None)
        telemetry.outbox_open.dec()
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.log.error("outbox task failed", outbox=row.id, error=repr(error), exc_info=error)

    async def recover(self) -> int:
        """Wake every row that is neither settled nor dead: called once, at start."""
        rows = await self._store.open_outbox()
        for row in rows:
            self._wake(row, fresh=False)
        return len(rows)

    def sign_of_life(self, participant: str) -> None:
        """A participant has just spoken or answered: whoever backs off from it tries again now."""
        if (event := self._alive.get(participant)) is not None:
            event.set()

    async def close(self) -> None:
        """Stop all tasks. Their rows stay: the next start goes on with them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, row: Outbound, fresh: bool) -> None:
        wait = row.due - self._journal.clock.now()
        if wait > 0:
            await asyncio.sleep(wait)
        if row.act == "decide":
            await self._decide(row)
        else:
            with self._tracing.span(f"send {row.move.type}", SpanKind.CLIENT, row.trace, message=row.move, pid=row.pid):
                await self._deliver(row, fresh)

    async def _decide(self, row: Outbound) -> None:
        """Do now what was put off, unless the process has changed meanwhile."""
        body = orjson.loads(row.body)

        async def step() -> Changes:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.version != body["version"]:
                return Changes(settled=(row.id,))
            act = Act(row.move, code=body["code"], reasons=tuple(body["reasons"]))
            return self._steps.changes(process, Reaction(process, act), self._journal.clock.now(), settled=(row.id,), ask=False)

        await self._journal.decide(step)

    async def _deliver(self, row: Outbound, fresh: bool) -> None:
        """Attempt, and attempt again. `fresh` says that the peer cannot have seen this message yet."""
        attempt = doubts = differing = 0
        while True:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                await self._journal.commit(Changes(settled=(row.id,)))
                return None
            if attempt or not fresh:
                told = await self._ask(row, process, refused=doubts > 0)
                if told is not None and told is not process:
                    return await self._settle_told(row, process, told)
                differing = differing + 1 if told is None else 0
                if differing >= DIFFERING_MAX:
                    return await self._diverged(row, process)
            reply, error = await self._attempt(row, process)
            if row.id not in self._tasks:
                return None  # settled while we spoke: the peer's next message was faster than its answer
            if reply is not None and reply.status < HTTPStatus.MULTIPLE_CHOICES:
                return await self._accepted(row, reply)
            if reply is not None:
                code, reasons = wire.reasons_of(_json(reply.body))
                error = f"{reply.status} {code or ''} {'; '.join(reasons)}".strip()[:ERROR_CHARACTERS_MAX]
                doubts += reply.status in DOUBTFUL
                if self._final(row, process, reply.status, doubts):
                    return await self._refused(row, code, reasons or (error,), reply.status)
            attempt += 1
            self.last_errors[row.pid] = error or "no answer"
            telemetry.count_message(row.move, "out", "unanswered")
            if not await self._back_off(row, attempt):
                return await self._refused(row, "no-answer", (error or "no answer",), None)

    @staticmethod
    def _final(row: Outbound, process: Process, status: int, doubts: int) -> bool:
        """Whether an error answer ends the attempts."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in LATER:
            return False
        if status not in DOUBTFUL or row.move.termination:
            return True
        crossed = status != HTTPStatus.BAD_REQUEST or process.peer_pid is not None  # nothing crosses a first message
        return not crossed or doubts >= DOUBTFUL_ATTEMPTS_MAX

    async def _attempt(self, row: Outbound, process: Process) -> tuple[Reply | None, str | None]:
        """One delivery attempt, with everything that is minted for it. Returns the reply, or None and why there is none."""
        body = row.body
        try:
            if row.move is Move.START and (extra := await self._finish(row, process)):
                body = orjson.dumps(orjson.loads(body) | extra)
            headers = {"Authorization": await self._identity.mint(row.peer), "Content-Type": "application/json"} | telemetry.trace_header()
        except ConnectorError as e:  # a dataset withdrawn, no key that is valid now: an operator can mend it, and the row goes on
            return None, e.message
        self._speaking.add(row.id)
        try:
            reply = await self._peer.send("POST", process.callback + row.path, headers=headers, body=body)
        except (PeerFailed, EgressDenied) as e:
            return None, e.message
        finally:
            self._speaking.discard(row.id)
        self.sign_of_life(row.peer)
        return reply, None

    async def _back_off(self, row: Outbound, attempt: int) -> bool:
        """Wait before the next attempt; False when the row's time is over."""
        longest = min(self.retry_seconds_max, self.first_retry_seconds * 2 ** min(attempt, 20))
        wait = random.uniform(longest / 4, longest)  # noqa: S311 - jitter, not security
        if self._journal.clock.now() + wait > row.deadline:
            return False
        event = self._alive.setdefault(row.peer, asyncio.Event())
        event.clear()
        try:
            async with asyncio.timeout(wait):
                await event.wait()
                await asyncio.sleep(random.uniform(0, self.first_retry_seconds))  # noqa: S311 - spreads those that wake together
        except TimeoutError:
            pass
        return True

    async def _ask(self, row: Outbound, process: Process, *, refused: bool) -> Process | None:
        """GET the peer's state. Returns the process as `exchange.told` settles it, the same process if the peer cannot say,
        or None if the states differ."""
        if process.peer_pid is None:
            return process  # a first message: the peer finds its process by our pid, so sending again is safe
        part = "transfers" if row.kind is Kind.TRANSFER else "negotiations"
        try:
            headers = {"Authorization": await self._identity.mint(row.peer)} | telemetry.trace_header()
            reply = await self._peer.send(
                "GET", f"{process.callback}/{part}/{quote(process.peer_pid, safe=PATH_CHARACTERS)}", headers=headers
            )
        except ConnectorError:
            return process
        state = (_json(reply.body) or {}).get("state") if reply.status == HTTPStatus.OK else None
        if not isinstance(state, str):
            return process
        try:
            return exchange.told(process, row.id, state.rpartition(":")[2].rpartition("/")[2], refused=refused)
        except IllegalMessage:
            return process

    async def _accepted(self, row: Outbound, reply: Reply) -> None:
        telemetry.count_message(row.move, "out", "accepted")
        document = _json(reply.body) or {}

        def settle(process: Process) -> Process:
            return exchange.answered(process, row.id, document.get("providerPid" if process.role is Role.CONSUMER else "consumerPid"))

        if row.path.endswith(("/negotiations/request", "/negotiations/offers", "/transfers/request")) and not (
            is_pid(document.get("providerPid")) and is_pid(document.get("consumerPid"))
        ):
            await self._refused(
                row, "bad-answer", ("the peer acknowledged without naming its pid, or with one that fits into no address",), reply.status
            )
        else:
            await self._settle(row, settle, telemetry.ACKNOWLEDGED)

    async def _settle_told(self, row: Outbound, before: Process, told: Process) -> None:
        """The peer's state settled it."""
        ended = told.state == exchange.TERMINATED and not row.move.termination
        detail = {"code": "ended-by-peer", "reasons": ["the peer has ended the process"], "ended_by": "peer"} if ended else {}

        def settle(process: Process) -> Process:
            if process.version != before.version:
                return process
            return replace(told, detail=dict(told.detail) | detail)

        await self._settle(row, settle, telemetry.IMPLIED)

    async def _settle(self, row: Outbound, settle: Callable[[Process], Process], what: str) -> None:
        async def step() -> Changes | None:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            after, now = settle(process), self._journal.clock.now()
            evidence = replace(fact(what, after, now), move=row.move)
            return self._steps.changes(process, Reaction(after), now, evidence=(evidence,), settled=(row.id,))

        await self._journal.decide(step)

    async def _refused(self, row: Outbound, code: str | None, reasons: tuple[str, ...], status: int | None) -> None:
        """Refused for good, or out of time: the process keeps what the peer said, the row becomes a dead letter unless it
        is one that a peer may refuse (our termination, the start that only repeats the consumer's own)."""
        telemetry.count_message(row.move, "out", "refused")
        said = list(reasons)

        async def step() -> Changes:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            now = self._journal.clock.now()
            harmless = row.move.termination or (row.move is Move.START and process.resumed)
            after = exchange.refused(process, row.id) if status is not None or row.move.termination else exchange.unanswered(process)
            detail = dict(process.detail) if harmless else dict(process.detail) | {"code": code, "reasons": said, "ended_by": "peer"}
            evidence = (replace(fact(telemetry.REFUSED, after, now, code=code, reasons=said, status=status), move=row.move),)
            changes = self._steps.changes(
                process, Reaction(replace(after, detail=detail)), now, evidence=evidence, settled=(row.id,) if harmless else (), ask=False
            )
            if harmless or after.final:
                return replace(changes, settled=(row.id,))
            dead = replace(row, dead=True, error="; ".join(said)[:ERROR_CHARACTERS_MAX])
            more = replace(fact(telemetry.DEAD, after, now, reasons=said), move=row.move)
            telemetry.log.warning("dead letter", pid=row.pid, move=row.move, peer=row.peer, reasons=said)
            return replace(changes, outbox=(*changes.outbox, dead), evidence=(*changes.evidence, more))

        await self._journal.decide(step)

    async def _diverged(self, row: Outbound, process: Process) -> None:
        """DSP 2025-1: if the states of the two sides differ, the process is to be terminated."""
        telemetry.log.error("states diverged", pid=row.pid, peer=row.peer, move=row.move, state=process.state)

        async def step() -> Changes:
            current = await self._journal.process(row.kind, row.pid)
            if current is None or current.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            now = self._journal.clock.now()
            reason = f"the two sides hold different states: here {current.state} with `{row.move}` unanswered"
            changes = self._steps.end(current, "states-differ", reason, now)
            return replace(changes, evidence=(replace(fact(telemetry.DIVERGED, current, now), move=row.move), *changes.evidence))

        await self._journal.decide(step)

    async def replay(self, id: str) -> bool:
        """Send a dead letter again, with a fresh deadline. False if there is no such letter or its process has moved on."""
        row = await self._store.outbound(id)
        if row is None or not row.dead:
            return False
        done = False

        async def step() -> Changes | None:
            nonlocal done
            process, now = await self._journal.process(row.kind, row.pid), self._journal.clock.now()
            done = process is not None and process.in_flight is None and exchange.legal(process, process.role, row.move)
            if process is None or not done:
                return None
            again = replace(
                row, dead=False, error=None, due=now, created=now, deadline=now + self._steps.sender.times.delivery_seconds, attempts=1
            )
            detail = {k: v for k, v in process.detail.items() if k not in ("code", "reasons", "ended_by")} | _own_words(row)
            sent = replace(exchange.send(process, row.move, row.id), detail=detail, version=process.version + 1, due=None, updated=now)
            evidence = (replace(fact(telemetry.REPLAYED, sent, now), move=row.move),)
            return Changes((Expect(Process, process.pid, process.version),), (sent,), outbox=(again,), evidence=evidence)

        await self._journal.decide(step)
        return done

    async def discard(self, id: str) -> bool:
        """Drop a dead letter; its process ends by its deadline."""
        row = await self._store.outbound(id)
        if row is None or not row.dead:
            return False
        process = await self._journal.process(row.kind, row.pid)
        evidence = (replace(fact(telemetry.DISCARDED, process, self._journal.clock.now()), move=row.move),) if process else ()
        await self._journal.commit(Changes(settled=(id,), evidence=evidence))
        return True


def _own_words(row: Outbound) -> dict[str, Any]:
    """What a message of ours gives for a reason, as the process keeps it."""
    code, reasons = wire.reasons_of(_json(row.body))
    return {"code": code, "reasons": list(reasons), "ended_by": "us"} if reasons else {}


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        document = wire.load(body) if body else None
    except (WireError, ConnectorError):
        return None
    return document if isinstance(document, dict) else None
