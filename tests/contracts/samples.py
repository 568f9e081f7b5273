"""Records with sensible contents, for tests of whatever keeps or moves them."""

from typing import Any

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.records import Agreement, Dataset, Edr, Evidence, Idempotent, Inbox, Offer, Outbound, Pull, Reservation, Usage
from connector.records.ledger import Log, Witnessed
from connector.records.metering import Counts, Metered, Receipted

OWN = "did:web:hospital.example"
PEER = "did:web:pharma.example"
OTHER_PEER = "did:web:registry.example"
POLICY = {"@type": "Offer", "permission": [{"action": "use", "constraint": [{"leftOperand": "purpose", "operator": "eq"}]}]}


def negotiation(pid: str = "urn:uuid:n1", **values: Any) -> Process:
    base: dict[str, Any] = {"kind": Kind.NEGOTIATION, "role": Role.PROVIDER, "peer": PEER, "callback": "https://pharma.example/dsp"}
    return Process(**(base | {"state": "REQUESTED", "created": 1000.0, "updated": 1000.0, "version": 1} | {"pid": pid} | values))


def transfer(pid: str = "urn:uuid:t1", **values: Any) -> Process:
    return negotiation(pid, **({"kind": Kind.TRANSFER, "role": Role.CONSUMER} | values))


def dataset(id: str = "urn:dataset:d1", offers: tuple[str, ...] | None = None, **values: Any) -> Dataset:
    names = (f"{id}:offer",) if offers is None else offers
    base: dict[str, Any] = {"document": b'{"@id":"x"}', "source": {"type": "file", "path": "cohort.ndjson"}, "version": 1, "updated": 5.0}
    return Dataset(**(base | {"id": id, "offers": tuple(Offer(name, id, POLICY) for name in names)} | values))


def agreement(id: str = "urn:uuid:a1", **values: Any) -> Agreement:
    sides = {"peer": PEER, "provider": OWN, "consumer": PEER}
    base = {"negotiation": "urn:uuid:n1", "dataset": "urn:dataset:d1", "document": {"@id": id}, "digest": b"\x01" * 32, "created": 1000.0}
    return Agreement(**({"id": id} | sides | base | values))


def edr(transfer: str = "urn:uuid:t1", **values: Any) -> Edr:
    base: dict[str, Any] = {"address": {"endpoint": "https://pharma.example/data"}, "access_token": "token", "refresh_token": "again"}
    return Edr(**(base | {"transfer": transfer, "refresh_endpoint": None, "expires": 60.5} | values))


def pull(id: str = "urn:uuid:p1", **values: Any) -> Pull:
    base: dict[str, Any] = {"peer": PEER, "dataset": "urn:dataset:d1", "out": "cohort.ndjson", "stage": "download"}
    base |= {"stated": False, "part": "urn:uuid:p0", "transfers": 2, "range": "5-9"}
    return Pull(**(base | {"id": id, "purposes": ("research",), "created": 1000.0, "version": 1} | values))


COUNT, BYTES = "http://www.w3.org/ns/odrl/2/count", "urn:qiao:byteCount"


def usage(agreement: str = "urn:uuid:a1", **values: Any) -> Usage:
    base: dict[str, Any] = {"posted": (("/permission/0", COUNT, 3),), "version": 1, "updated": 1000.0}
    base |= {"open": (Reservation("urn:uuid:r1", "urn:uuid:t1", "/permission/0", BYTES, 65_536, 999.5),)}
    return Usage(**(base | {"agreement": agreement} | values))


def inbox(pid: str = "urn:uuid:n1", **values: Any) -> Inbox:
    base: dict[str, Any] = {
        "move": Move.CONTRACT_REQUEST,
        "digest": b"\x02" * 32,
        "body": b"{}",
        "status": 201,
        "answer": b"{}",
        "at": 1000.0,
    }
    return Inbox(**(base | {"pid": pid} | values))


def idempotent(key: str = "key-1", **values: Any) -> Idempotent:
    return Idempotent(**({"key": key, "digest": b"\x03" * 32, "answer": b'{"id":1}', "created": 1000.0} | values))


def outbound(id: str = "urn:uuid:o1", pid: str = "urn:uuid:n1", **values: Any) -> Outbound:
    what: dict[str, Any] = {"kind": Kind.NEGOTIATION, "peer": PEER, "act": "deliver", "move": Move.CONTRACT_AGREEMENT}
    base = {"path": "/negotiations/x/agreement", "body": b"{}", "due": 1000.0, "deadline": 2000.0, "created": 1000.0}
    return Outbound(**(what | base | {"id": id, "pid": pid} | values))


def fact(what: str = "message-received", **values: Any) -> Evidence:
    base: dict[str, Any] = {"kind": Kind.NEGOTIATION, "pid": "urn:uuid:n1", "peer": PEER, "state": "REQUESTED", "at": 1000.0}
    return Evidence(**(base | {"what": what} | values))


def metered(transfer: str = "urn:uuid:t1", **values: Any) -> Metered:
    base: dict[str, Any] = {"role": Role.PROVIDER, "agreement": "urn:uuid:a1", "peer": PEER, "manifest": "a.b.c"}
    base |= {"origin": "hospital.example/ds/1", "chunk_bytes": 262_144, "root": b"\x05" * 32, "leaves": 4097, "size_bytes": 1 << 30}
    base |= {"sequence": 2, "receipt": "d.e.f", "ack": "g.h.i", "ranges": ((1, 65), (80, 96)), "counts": Counts(1 << 40, 7, 1, 3, 250_000)}
    base |= {
        "sent": ((0, 5), (9, 1 << 30)),
        "before": Counts(4, 1),
        "days": ((20_000, Counts(5, 2)), (20_007, Counts(9))),
        "own": Counts(0, 0, 0, 4, 9),
        "asked": True,
    }
    return Metered(**(base | {"transfer": transfer, "credit_bytes": 1 << 26, "attested": "both", "version": 3, "updated": 7.5} | values))


def receipted(transfer: str = "urn:uuid:t1", **values: Any) -> Receipted:
    base: dict[str, Any] = {"sequence": 1, "digest": b"\x04" * 32, "receipt": "d.e.f", "ack": "g.h.i", "at": 1.5}
    return Receipted(**(base | {"transfer": transfer} | values))


def log(origin: str = "hospital.example/ledger", **values: Any) -> Log:
    base: dict[str, Any] = {
        "number": 1,
        "size": 3,
        "frontier": (b"\x06" * 32, b"\x07" * 32),
        "note": "a note\n",
        "sequence": 9,
        "follows": "follows x 1 y",
    }
    return Log(**(base | {"origin": origin, "holder": "one", "epoch": 2, "until": 1030.5, "version": 4, "updated": 1000.5} | values))


def witnessed(peer: str = PEER, **values: Any) -> Witnessed:
    base: dict[str, Any] = {"origin": "hospital.example/ledger", "size": 3, "root": b"\x08" * 32, "note": "a note\n"}
    return Witnessed(**(base | {"peer": peer, "version": 1, "updated": 1000.5} | values))
