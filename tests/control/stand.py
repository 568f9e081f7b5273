"""What the tests of the use cases share: a dataset on offer, processes that have come to some state, and what the peer says then."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connector import telemetry
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role, path_of
from connector.ports import Caller, Participant
from connector.records import Agreement, Evidence, Inbox
from connector.values import replace
from tests.pair import OPEN, WAIT_SECONDS, Answer, Desk, Scripted, agreement, document_of, negotiation, transfer

NEVER = 4_000_000_000.0  # POSIX seconds: after every test


class Standing:
    """The identity layer of a data space in which a test decides what is known of whom: `claims` by participant, each until its
    instant in `lapse` (POSIX seconds), if it has one."""

    def __init__(self, own: str, *, now: Callable[[], float] = lambda: 0.0, **claims: Any) -> None:
        self.own = Participant(own, "own", "role", "https://own.test", ())
        self.claims: dict[str, Mapping[str, Any]] = claims
        self.lapse: dict[str, float] = {}
        self.now = now
        self.listeners: list[Callable[[str], None]] = []

    def standing(self, participant: str, _claims: Mapping[str, Any], _expires: float) -> Caller | None:
        known, end = self.claims.get(participant), self.lapse.get(participant, NEVER)
        if known is None:
            return None
        caller = Participant(participant, participant, "role", None, ())
        return Caller(caller, known, end) if self.now() < end else Caller(caller, {}, NEVER)

    def listen(self, changed: Callable[[str], None]) -> None:
        self.listeners.append(changed)

    def say(self, participant: str, claims: Mapping[str, Any] | None) -> None:
        """Something else is known of a participant; None: it has left."""
        self.claims.pop(participant, None)
        if claims is not None:
            self.claims[participant] = claims
        for listener in self.listeners:
            listener(participant)


C, P = Role.CONSUMER, Role.PROVIDER
N, T = Kind.NEGOTIATION, Kind.TRANSFER
DATASET = "urn:test:received"
SUSPEND = {"reason": "maintenance"}


async def offer_terms(us: Desk) -> dict[str, Any]:
    dataset = await us.us.connector.store.dataset(DATASET)
    assert dataset is not None
    return OPEN | {"@id": dataset.offers[0].id, "target": DATASET}


async def standing(at: Desk, kind: Kind, state: str, role: Role, **changed: Any) -> tuple[Process, Agreement]:
    """A process of ours with the peer that has come to `state`, and the agreement that it is about."""
    terms = await offer_terms(at)
    agreed = agreement(at.us, at.peer, role, dataset=DATASET)
    if kind is T:
        return await at.us.put(transfer(at.us, at.peer, state, role, agreed, **changed), agreed), agreed
    made = negotiation(at.us, at.peer, state, role, dataset=DATASET, terms=terms, **changed)
    agreed = replace(agreed, negotiation=made.pid, final=state == "FINALIZED")
    if state in ("AGREED", "VERIFIED", "FINALIZED"):
        return await at.us.put(replace(made, agreement=agreed.id), agreed), agreed
    return await at.us.put(made), agreed


async def say(at: Desk, move: Move, process: Process, agreed: Agreement, **changed: Any) -> Answer:
    return await at.peer.send(at.us, "POST", path_of(move, process.pid), document_of(move, process, agreed) | changed)


async def seen(at: Desk, process: Process) -> tuple[Process | None, list[Evidence], Inbox | None]:
    """Everything that a message could have changed."""
    store = at.us.connector.store
    return await store.process(process.kind, process.pid), await at.us.evidence(process.pid), await store.last_answer(process.pid)


def request(terms: dict[str, Any], at: Desk, pid: str, **members: Any) -> dict[str, Any]:
    return wire.message(Move.CONTRACT_REQUEST, consumer_pid=pid, offer=terms, callbackAddress=at.peer.site.base) | members


@contextmanager
def scripted(peer: Scripted, script: Any) -> Iterator[None]:
    """The peer answers by `script` for a while."""
    peer.script = script
    try:
        yield
    finally:
        peer.script = lambda _method, _path, _document: None


def refusing(status: int, times: int, document: dict[str, Any] | None = None) -> Any:
    """A script that answers the first `times` messages with an error; questions are answered as usual."""
    left = itertools.count()
    return lambda method, _path, _document: (status, document) if method == "POST" and next(left) < times else None


def said(peer: Scripted, process: Process) -> list[str]:
    """What the peer heard about a process, as method and last part of the path."""
    return [
        f"{method} {path.rpartition('/')[2] if method == 'POST' else ''}".strip()
        for method, path, _ in peer.calls
        if f"/{process.peer_pid}/" in f"{path}/"
    ]


async def suspended(at: Desk, process: Process) -> Process:
    await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
    return await at.us.state(T, process.pid, "SUSPENDED")


async def facts(at: Desk, process: Process) -> list[str]:
    """What the record says of a process that was put here. Its dataset was published just before, and the look that follows from that may
    find a transfer among the running ones, which has come without a decision: then it has one now, which is no matter of the test."""
    return [fact.what for fact in await at.us.evidence(process.pid) if fact.what != telemetry.DECIDED_AGAIN]


async def settled(at: Desk, row: str) -> None:
    """Wait until an outbox row is done with."""
    changed = asyncio.Event()
    at.us.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(WAIT_SECONDS):
        while await at.us.connector.store.outbound(row) is not None:
            await changed.wait()
            changed.clear()


async def letters(at: Desk) -> dict[str, dict[str, Any]]:
    """The dead letters that an operator sees, by process."""
    page = await at.us.asked("GET", "/dead-letters?limit=500")
    return {letter["pid"]: letter for letter in page["items"]}


async def dead(at: Desk, process: Process) -> dict[str, Any]:
    """Wait until a message of the process is a dead letter."""
    await at.us.until(process.kind, process.pid, lambda p: p.in_flight is None and p.version > process.version)
    return (await letters(at))[process.pid]
