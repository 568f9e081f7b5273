"""What the tests of the use cases share: a dataset on offer, processes that have come to some state, and what the peer says then."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role, path_of
from connector.records import Agreement, Evidence, Inbox
from tests.pair import OPEN, Answer, Desk, agreement, document_of, negotiation, transfer

C, P = Role.CONSUMER, Role.PROVIDER
N, T = Kind.NEGOTIATION, Kind.TRANSFER
DATASET = "urn:test:received"


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
def silence(at: Desk) -> Iterator[None]:
    """The peer takes no message of ours, nor says why; it answers questions."""
    at.peer.script = lambda method, _path, _document: (503, None) if method == "POST" else None
    try:
        yield
    finally:
        at.peer.script = lambda _method, _path, _document: None
