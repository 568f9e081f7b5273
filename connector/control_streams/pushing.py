"""Which transfers we push: those that were asked for so, as long as they run. One that has brought all of its data is completed.

What keeps a push from getting on is tried again with pauses, short ones after it got on for a while. A sink that refuses ends the transfer,
once that cannot be the answer of a proxy or a clock, or of a consumer whose message is on its way. So do data that were published anew:
what was begun and signed for is not there to go on with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from random import random
from typing import Final

from connector import telemetry
from connector.control.journal import Journal
from connector.control.operate import Operations
from connector.dataplane.edr import Address, read_address
from connector.dsp import dcat
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.dsp.transfer import State
from connector.errors import ConnectorError, Contradiction, EgressDenied, NotFound, PeerRefused, TokenRefused, Withdrawn
from connector.lasting import stopped
from connector.metering.credit import SNAPSHOT_CHANGED
from connector.records import Changes, Evidence
from connector.remembered import pause_seconds
from connector.signatures.http import CLOCKS

FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 30.0  # between two attempts
DOUBTED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
SINK_REFUSED: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "sink-unauthorized",
    HTTPStatus.FORBIDDEN: "sink-forbidden",
    HTTPStatus.NOT_FOUND: "sink-not-found",
    HTTPStatus.GONE: "sink-gone",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "sink-too-large",
}
DOUBT_SECONDS = 30.0  # for which these are repeated before they are believed
GARBLED: Final = ("signature-", "content-digest-", "answer-unsigned")  # codes of what one flipped bit makes of an answer that holds
AGAIN_MAX: Final = 3  # times that such a one is asked for again, if nothing else comes between

Push = Callable[[str, Address], Awaitable[None]]


class Pushing:
    """`push(transfer, sink)` brings the data of one: see `connector.dataplane_push.pusher.Pusher.push`."""

    def __init__(self, journal: Journal, operations: Operations, push: Push) -> None:
        self._journal, self._operations, self._push = journal, operations, push
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()  # transfers that go on, as was committed while their push ran: it may be ending by what was before
        self._closed = False

    def committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits."""
        for record in changes.saves:
            if isinstance(record, Process) and _is_pushed(record):
                self._look(record)

    async def recover(self) -> None:
        """Go on with all that run."""
        for each in await self._journal.store.open_transfers():
            process = await self._journal.store.process(Kind.TRANSFER, each.pid)
            if process is not None and _is_pushed(process):
                self._look(process)

    async def close(self) -> None:
        """Stop. The next start goes on with them."""
        self._closed = True
        await stopped(*self._tasks.values())

    def _look(self, process: Process) -> None:
        running = self._tasks.get(process.pid)
        if process.meant != State.STARTED:
            self._again.discard(process.pid)
            if running is not None and process.final:
                running.cancel()
        elif process.state == State.STARTED and running is not None:
            self._again.add(process.pid)
        elif process.state == State.STARTED:
            self._begin(process.pid)

    def _begin(self, pid: str) -> None:
        if not self._closed:
            task = self._tasks[pid] = asyncio.create_task(self._run(pid), name=f"push {pid}")
            task.add_done_callback(lambda _done: self._over(pid))

    def _over(self, pid: str) -> None:
        del self._tasks[pid]
        if pid in self._again:
            self._again.discard(pid)
            self._begin(pid)

    async def _run(self, pid: str) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        refused: float | None = None  # since when, in a row
        garbled = 0  # answers in a row
        while True:
            began, before, seen, refused, garbled = loop.time(), refused, garbled, None, 0
            try:
                process, edr = await self._journal.store.process(Kind.TRANSFER, pid), await self._journal.store.edr(pid)
                if process is None or edr is None or process.meant != State.STARTED:
                    return None
                await self._push(pid, read_address(edr.address))
            except (PeerRefused, EgressDenied, TokenRefused) as error:
                refused = loop.time() if before is None else before
                if _garbled(error):
                    garbled = 1 if loop.time() - began >= DOUBT_SECONDS else seen + 1  # it got on for a while
                    believed = garbled > AGAIN_MAX
                else:
                    believed = not _doubtful(error) or loop.time() - refused >= DOUBT_SECONDS
                if believed:
                    telemetry.log.warning("push refused", transfer=pid, reason=error.message)
                    said, code = f"the data cannot be pushed: {error.message}", _code(error)
                    return await self._end(pid, partial(self._operations.terminate, Kind.TRANSFER, pid, said, code))
                telemetry.log.info("push cut", transfer=pid, reason=error.message)
            except Withdrawn as error:
                telemetry.log.info("push stopped", transfer=pid, code=error.code)
                if error.code == SNAPSHOT_CHANGED:
                    return await self._end(pid, partial(self._operations.terminate, Kind.TRANSFER, pid, error.message, error.code))
            except ConnectorError as error:
                telemetry.log.info("push cut", transfer=pid, reason=error.message)
            except Exception as error:  # a defect: it is said, and may not be there any more the next time
                telemetry.log.error("push failed", transfer=pid, exc_info=error)
            else:
                return await self._end(pid, partial(self._operations.complete, pid))
            if loop.time() - began > PAUSE_SECONDS_MAX:  # it got on for a while
                failures = 0
            failures += 1
            await _pause(failures)

    async def _end(self, pid: str, end: Callable[[], Awaitable[Process]]) -> None:
        """End it, unless somebody else has meanwhile. What cannot be written now, on a full disk, is written later, and nothing is brought
        again for that."""
        failures = 0
        while True:
            try:
                await end()
            except (Contradiction, NotFound):
                telemetry.log.info("transfer ended while it was being ended", pid=pid)
                return
            except ConnectorError as error:
                telemetry.log.error("push not ended", transfer=pid, reason=error.message)
            except Exception as error:  # a defect: nobody else would end it
                telemetry.log.error("push not ended", transfer=pid, exc_info=error)
            else:
                return
            failures += 1
            await _pause(failures)


async def _pause(failures: int) -> None:
    await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX, chance=random()))  # noqa: S311 - spreads load


def _doubtful(error: ConnectorError) -> bool:
    """Whether it is a refusal that need not be the sink's own, or may be over soon: its consumer may just have said that it pauses."""
    return isinstance(error, PeerRefused) and (error.status in DOUBTED or error.said in CLOCKS)


def _garbled(error: ConnectorError) -> bool:
    """Whether it is an answer that may have been changed on its way, and by chance."""
    return isinstance(error, PeerRefused) and error.said is not None and error.said not in CLOCKS and error.said.startswith(GARBLED)


def _code(error: ConnectorError) -> str:
    """What ended a push, for programs: the rule that a signature of the sink breaks, or how the sink refused."""
    if isinstance(error, PeerRefused):
        return error.said or SINK_REFUSED.get(error.status, "sink-refused")
    return "sink-denied" if isinstance(error, EgressDenied) else "sink-address"


def _is_pushed(process: Process) -> bool:
    pushed = process.detail.get("format") == dcat.FORMAT_PUSH
    return pushed and process.kind is Kind.TRANSFER and process.role is Role.PROVIDER
