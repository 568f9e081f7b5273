"""Delivers what is due: messages to peers, and decisions that were put off. At least once, until settled or dead.

A committed row wakes its task at once; after a crash `recover` reads the rows back and wakes the same tasks. A message whose
fate is unknown is not simply sent again: the peer is asked for its state first, because DSP messages carry no id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from random import random
from typing import Any
from urllib.parse import quote

import orjson

from connector import telemetry
from connector.control.compose import saying
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.steps import Anew, Steps, fact
from connector.dsp import answers, exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import OTHER, PATH_CHARACTERS, PATHS, Kind, Move, is_pid
from connector.errors import ConnectorError, EgressDenied, IllegalMessage, PeerFailed
from connector.lasting import stopped
from connector.ports import Act, Identity, Peer, Reply
from connector.records import Changes, Evidence, Outbound
from connector.remembered import pause_seconds
from connector.values import replace

NEXT_WORD_SECONDS = 0.1  # how long the note of an answer waits for the peer's next message
DIFFERING_MAX = 2  # once may be a message on its way, twice is not, unless the peer refuses ours while it waits for our answer
LASTING_ATTEMPTS = 4  # failed in a row: who looks for what does not move has it in the log, hours before it is a dead letter
ERROR_CHARACTERS_MAX = 1000  # of a peer's words in our records

ADDRESSED = frozenset({Move.START, Move.TRANSFER_REQUEST})
# What has to be added to a message for each attempt: the data address of a start, or of a request for push, with a token of its own.
Finish = Callable[[Outbound, Process], Awaitable[Mapping[str, Any]]]
Taken = tuple[int, str | None]  # the status of an answer that has taken our message, and the peer's pid if the answer names it first


class Outbox:
    """The worker. `finish` mints what a message carries per attempt, `first_retry_seconds` and `retry_seconds_max` bound the
    back-off, which is jittered, doubles, and is cut short by a sign of life from the peer: a message of its own, or one of
    ours that it took. `doubt_seconds` is how long a refusal has to be repeated that need not be the peer's own."""

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        anew: Mapping[Move, Anew],
        peer: Peer,
        identity: Identity,
        tracing: telemetry.Tracing,
        finish: Finish,
        *,
        first_retry_seconds: float = 0.05,
        retry_seconds_max: float = 300.0,
        doubt_seconds: float = 30.0,
    ) -> None:
        self._journal = journal
        self._store = journal.store
        self._steps = steps
        self._anew = anew
        self._peer = peer
        self._identity = identity
        self._tracing = tracing
        self._finish = finish
        self.first_retry_seconds = first_retry_seconds
        self.retry_seconds_max = retry_seconds_max
        self.doubt_seconds = doubt_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._speaking: set[str] = set()
        self._holding: dict[str, str] = {}  # id of a row -> the pid whose next word it waits for
        self._alive: dict[str, asyncio.Event] = {}
        self.last_errors: dict[str, str] = {}
        self.unheard: Callable[[str, str], None] = lambda _pid, _why: None  # who waits for this process hears why it has no answer yet
        journal.listen(self._committed, Outbound)

    def _committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        for id in changes.settled:
            if (pid := self._holding.pop(id, None)) is not None:
                self._journal.drop(pid)
            elif (task := self._tasks.pop(id, None)) is not None and id not in self._speaking:
                task.cancel()  # but a request on its way is not cut: its answer is just not needed
        for row in changes.outbox:
            if not row.dead:
                self._wake(row, fresh=row.attempts == 0)

    def _wake(self, row: Outbound, *, fresh: bool, taken: Taken | None = None) -> None:
        if row.id not in self._tasks:
            self._tasks[row.id] = asyncio.create_task(self._run(row, fresh, taken), name=f"outbox {row.act} {row.move}")

    async def recover(self) -> int:
        """Wake every row that is neither settled nor dead: called once, at start."""
        rows = await self._store.open_outbox()
        for row in rows:
            self._wake(row, fresh=False)
        return len(rows)

    def sign_of_life(self, participant: str) -> None:
        """A participant has just spoken, or taken a message: whoever backs off from it tries again now."""
        if (event := self._alive.get(participant)) is not None:
            event.set()

    async def close(self) -> None:
        """Stop all tasks. Their rows stay: the next start goes on with them."""
        self._holding.clear()
        await stopped(*self._tasks.values())

    async def _run(self, row: Outbound, fresh: bool, taken: Taken | None) -> None:
        """Do what the row says, or note only that the peer has `taken` it. A defect on the way is loud, and the row goes on after a pause:
        it is what somebody waits for."""
        telemetry.outbox_open.value += 1
        try:
            # A clock that is set back puts nothing off: no more is waited for than was meant to be.
            wait = row.due - max(self._journal.clock.now(), row.created)
            if wait > 0:
                await asyncio.sleep(wait)
            failures = 0
            while True:
                try:
                    if row.act == "decide":
                        return await self._decide(row)
                    if taken is not None and not failures:
                        return await self._note(row, taken)
                    with self._tracing.span(f"send {row.move.type}", telemetry.SpanKind.CLIENT, row.trace, message=row.move, pid=row.pid):
                        return await self._deliver(row, fresh and not failures)
                except Exception as error:
                    failures += 1
                    self.last_errors[row.pid] = f"internal error {type(error).__name__}; the log has the details"
                    telemetry.log.error("outbox task failed", outbox=row.id, pid=row.pid, move=row.move, failures=failures, exc_info=error)
                    await asyncio.sleep(self._pause_seconds(failures))
        finally:
            telemetry.outbox_open.value -= 1
            self.last_errors.pop(row.pid, None)
            if self._tasks.get(row.id) is asyncio.current_task():
                del self._tasks[row.id]

    async def _decide(self, row: Outbound) -> None:
        """Do now what was put off, unless the process has changed meanwhile. What gives a right is decided on once more."""
        body = orjson.loads(row.body)

        async def step() -> Changes:
            process, now = await self._journal.process(row.kind, row.pid), self._journal.clock.now()
            if process is None or process.version != body["version"]:
                return Changes(settled=(row.id,))
            act = Act(row.move, code=body["code"], reasons=tuple(body["reasons"]), grounds=tuple(body.get("grounds", ())))
            reaction = Reaction(process, act)
            if row.move in self._anew:
                reaction = await self._anew[row.move](process, now)
            return self._steps.changes(process, reaction, now, settled=(row.id,), ask=False)

        await self._journal.decide(step, row.pid)

    async def _deliver(self, row: Outbound, fresh: bool) -> None:
        """Attempt, and attempt again. `fresh` says that the peer cannot have seen this message yet."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + row.deadline - max(self._journal.clock.now(), row.created)  # whatever becomes of the clock meanwhile
        attempt = differing = 0
        doubts = answers.Doubts(self.doubt_seconds)
        while True:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                await self._journal.commit(Changes(settled=(row.id,)))
                return None
            if attempt or not fresh:
                told = await self._ask(row, process, refused=doubts.count > 0)
                if told is not None and told is not process:
                    return await self._settle_told(row, told)
                differing = differing + 1 if told is None else 0
                if differing >= DIFFERING_MAX and not doubts.crossed(loop.time()):
                    return await self._diverged(row, process)
            reply, error = await self._attempt(row, process)
            if row.id not in self._tasks:
                return None  # settled while we spoke: the peer's next message was faster than its answer
            if reply is not None and answers.taken(reply.status):
                return await self._accepted(row, reply)
            if reply is not None:
                document = wire.object_of(reply.body)
                code, reasons, grounds = wire.said_of(document)
                error = answers.in_words(reply.status, code, reasons, reply.headers.get("www-authenticate"))[:ERROR_CHARACTERS_MAX]
                apart = answers.by_clocks(reply.status, reply.headers.get("date"), self._journal.clock.now())
                told_status = answers.told_by(reply.status, document, row.kind)
                if not apart and doubts.over(told_status, row.move, process, loop.time()):
                    return await self._refused(row, code, reasons or (error,), reply.status, grounds)
            attempt += 1
            why = self.last_errors[row.pid] = error or "no answer"
            self.unheard(row.pid, why)
            telemetry.count_message(row.move, "out", "unanswered")
            lasting = attempt >= LASTING_ATTEMPTS and attempt & (attempt - 1) == 0  # and again whenever there are twice as many
            say = telemetry.log.info if lasting else telemetry.log.debug
            say("message not taken", move=row.move, pid=row.pid, peer=row.peer, attempt=attempt, why=why)
            if not await self._back_off(row, attempt, answers.retry_after(reply.headers.get("retry-after") if reply else None), ends):
                return await self._refused(row, "no-answer", (why,), None)

    async def _attempt(self, row: Outbound, process: Process) -> tuple[Reply | None, str | None]:
        """One delivery attempt, with everything that is minted for it. Returns the reply, or None and why there is none."""
        body = row.body
        try:
            if row.move in ADDRESSED and (extra := await self._finish(row, process)):
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
        if answers.taken(reply.status):
            self.sign_of_life(row.peer)
        return reply, None

    def _pause_seconds(self, attempt: int) -> float:
        chance = random()  # noqa: S311 - spreads load
        return pause_seconds(attempt + 1, self.first_retry_seconds, self.retry_seconds_max, chance=chance, spread=0.75)

    async def _back_off(self, row: Outbound, attempt: int, asked_seconds: float, ends: float) -> bool:
        """Wait before the next attempt, at least `asked_seconds` if the peer named a time; False when the row's time is over."""
        wait = max(self._pause_seconds(attempt), min(asked_seconds, self.retry_seconds_max))
        if asyncio.get_running_loop().time() + wait > ends:
            return False
        if asked_seconds:
            await asyncio.sleep(wait)
            return True
        event = self._alive.setdefault(row.peer, asyncio.Event())
        event.clear()
        try:
            async with asyncio.timeout(wait):
                await event.wait()
                await asyncio.sleep(self.first_retry_seconds * random())  # noqa: S311 - spreads those that wake together
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
        state = (wire.object_of(reply.body) or {}).get("state") if reply.status == HTTPStatus.OK else None
        if not isinstance(state, str):
            return process
        try:
            return exchange.told(process, row.id, state.rpartition(":")[2].rpartition("/")[2], refused=refused)
        except IllegalMessage:
            return process

    async def _accepted(self, row: Outbound, reply: Reply) -> None:
        telemetry.count_message(row.move, "out", "accepted")
        telemetry.log.debug("message delivered", move=row.move, pid=row.pid, peer=row.peer, status=reply.status)
        process = await self._journal.process(row.kind, row.pid)
        peer_pid: str | None = None
        if process is not None and row.path == PATHS[row.move][0]:  # the first message: its answer names the peer's pid
            document = wire.object_of(reply.body) or {}
            peer_pid = document.get(f"{OTHER[process.role]}Pid")
            if not (is_pid(peer_pid) and is_pid(document.get(f"{process.role}Pid"))):
                fault = "the peer acknowledged without naming its pid, or with one that fits into no address"
                return await self._refused(row, "bad-answer", (fault,), reply.status)
        if process is not None and process.in_flight_id == row.id and exchange.asks_back(process):
            # A peer whose turn it is speaks next, mostly within milliseconds, and its message says that it took ours: then
            # there is one thing to write instead of two. If we die before, the row is still there, and the peer is asked.
            self._holding[row.id] = row.pid
            return self._journal.hold(row.pid, NEXT_WORD_SECONDS, lambda: self._go_on(row, (reply.status, peer_pid)))
        return await self._note(row, (reply.status, peer_pid))

    def _go_on(self, row: Outbound, taken: Taken) -> None:
        """Nothing has come that settles the row."""
        if self._holding.pop(row.id, None) is not None:
            self._wake(row, fresh=False, taken=taken)

    async def _note(self, row: Outbound, taken: Taken) -> None:
        status, peer_pid = taken
        if peer_pid is not None and (known := await self._store.process_of_peer(row.kind, row.peer, peer_pid)) and known.pid != row.pid:
            fault = f"the peer acknowledged with the pid `{peer_pid}`, which is that of another {row.kind} with it"
            return await self._refused(row, "bad-answer", (fault,), status)
        return await self._settle(row, lambda before: exchange.answered(before, row.id, peer_pid), telemetry.ACKNOWLEDGED)

    async def _settle_told(self, row: Outbound, told: Process) -> None:
        """The peer's state settled it. What is in flight is the same also if the process was looked at meanwhile for another reason."""
        ended = told.state == exchange.TERMINATED and not row.move.termination

        def settle(process: Process) -> Process:
            if not ended:
                return exchange.answered(process, row.id)
            said = saying(process.detail, "peer", "ended-by-peer", ("the peer has ended the process",))
            return replace(exchange.terminated(process), detail=said)

        await self._settle(row, settle, telemetry.IMPLIED)

    async def _settle(self, row: Outbound, settle: Callable[[Process], Process], what: str) -> None:
        async def step() -> Changes | None:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            after, now = settle(process), self._journal.clock.now()
            evidence = fact(what, after, now, row.move)
            return self._steps.changes(process, Reaction(after), now, evidence=(evidence,), settled=(row.id,))

        await self._journal.decide(step, row.pid)

    async def _refused(
        self, row: Outbound, code: str | None, reasons: tuple[str, ...], status: int | None, grounds: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Refused for good, or out of time: the process keeps what was said, the row becomes a dead letter unless it
        is one that a peer may refuse (our termination, the start that only repeats the consumer's own)."""
        what, by, outcome = (telemetry.UNANSWERED, None, "given-up") if status is None else (telemetry.REFUSED, "peer", "refused")
        telemetry.count_message(row.move, "out", outcome)
        said = list(reasons)

        async def step() -> Changes:
            process = await self._journal.process(row.kind, row.pid)
            if process is None or process.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            now = self._journal.clock.now()
            harmless = row.move.termination or (row.move is Move.START and process.resumed)
            after = exchange.refused(process, row.id) if status is not None or row.move.termination else exchange.unanswered(process)
            detail = dict(process.detail) if harmless else saying(process.detail, by, code, reasons, grounds)
            over = harmless or after.final
            refused = fact(what, after, now, row.move, code=code, reasons=said, status=status)
            evidence = (refused,) if over else (refused, fact(telemetry.DEAD, after, now, row.move, reasons=said))
            changes = self._steps.changes(process, Reaction(replace(after, detail=detail)), now, evidence=evidence, ask=False)
            if over:
                return replace(changes, settled=(row.id,))
            dead = replace(row, dead=True, error="; ".join(said)[:ERROR_CHARACTERS_MAX])
            telemetry.log.warning("dead letter", pid=row.pid, move=row.move, peer=row.peer, reasons=said)
            self.unheard(row.pid, f"{dead.error}; it is not told again by itself: `connector replay {row.id}` does it")
            return replace(changes, outbox=(*changes.outbox, dead))

        await self._journal.decide(step, row.pid)

    async def _diverged(self, row: Outbound, process: Process) -> None:
        """DSP 2025-1: if the states of the two sides differ, the process is to be terminated."""
        telemetry.log.error("states diverged", pid=row.pid, peer=row.peer, move=row.move, state=process.state)

        async def step() -> Changes:
            current = await self._journal.process(row.kind, row.pid)
            if current is None or current.in_flight_id != row.id:
                return Changes(settled=(row.id,))
            now = self._journal.clock.now()
            reason = f"the two sides hold different states: here {current.state} with `{row.move}` unanswered"
            return self._steps.end(current, "states-differ", (reason,), now, because=(fact(telemetry.DIVERGED, current, now, row.move),))

        await self._journal.decide(step, row.pid)
