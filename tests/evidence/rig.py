"""A small agreement with everything that belongs to it, made by keys of its own, and the file of it: to be altered, and sealed anew."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from connector.dsp.messages import Kind, Move
from connector.evidence.bundle import COUNT, Attestation, Counting
from connector.evidence.members import FORMAT, VERSION
from connector.evidence.sealed import sealed
from connector.evidence.verify import verify
from connector.ledger.book import signer_of
from connector.merkle import checkpoints, notes, witness
from connector.merkle.tree import consistency, inclusion, leaf_hash, nodes_of, root_of
from connector.metering.closing import Closing, ClosingAck
from connector.metering.content import Layout, canonical, digest_of, write_bytes
from connector.metering.counts import Counts
from connector.metering.objects import Ack, Checkpoint, ContentLog, Manifest, Receipt, digest
from connector.metering.statements import Flow, Statement
from connector.metering_bills.invoice import Parties, Reading, invoice_of
from connector.metering_bills.plans import plan_of
from connector.odrl import load
from connector.records import Evidence
from connector.records.ledger import entry_of, hidden_of
from connector.signatures import jws
from connector.values import replace
from tests.metering_bills.priced import price
from tests.odrl_forms.shipped import options

PROVIDER, CONSUMER, STRANGER = "did:web:hospital.example", "did:web:biopharma.example", "did:web:stranger.example"
KEYS = {who: jws.signing_key(f"{who}#k1", hashlib.sha256(who.encode()).digest()) for who in (PROVIDER, CONSUMER, STRANGER)}
OLD = jws.signing_key(f"{CONSUMER}#k0", hashlib.sha256(b"old").digest(), not_after=1_000.0)
LOGS = {PROVIDER: "hospital.example/ledger", CONSUMER: "biopharma.example/ledger"}
NOW = 1_800_000_000
CHUNK = 65_536
LAYOUT = Layout(3 * CHUNK + 5, CHUNK)  # 5 leaves with the header
ROOT = bytes(range(32))
AGREEMENT, NEGOTIATION, TRANSFER, DATASET = "urn:uuid:a", "urn:uuid:n-p", "urn:uuid:t-p", "urn:uuid:d"
LATER = "urn:uuid:later"  # one that goes on where TRANSFER was lost
THEIRS = {NEGOTIATION: "urn:uuid:n-c", TRANSFER: "urn:uuid:t-c"}
DOCUMENT: dict[str, Any] = {
    "@id": AGREEMENT,
    "@type": "Agreement",
    "assigner": PROVIDER,
    "assignee": CONSUMER,
    "target": DATASET,
    "timestamp": "2027-01-15T08:00:00Z",
    "permission": [{"action": "use", "duty": [price("0.25", "megabyte"), price("5.20", "subscription")]}],
}
MANIFEST = Manifest(
    issuer=PROVIDER,
    audience=CONSUMER,
    issued=NOW,
    expires=NOW + 86_400,
    agreement=AGREEMENT,
    policy=digest_of(DOCUMENT),
    consumer_pid=THEIRS[TRANSFER],
    provider_pid=TRANSFER,
    dataset=DATASET,
    snapshot="s1",
    log=ContentLog("hospital.example/log/s1", CHUNK, ROOT, LAYOUT.size_bytes),
    unit="none",
    receipts="https://hospital.example/data/t/receipts",
    window_bytes=CHUNK,
    credit_windows=4,
)
COUNTS = Counts(LAYOUT.size_bytes, 0, 1, 1, 7)
Change = Callable[[Any], Any]


def policy_hash(document: dict[str, Any]) -> str:
    """What a decision says of the document that it judged."""
    return blake2b(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), digest_size=32).hexdigest()


def signed(value: Any, by: jws.SigningKey | None = None) -> str:
    """The JWS over an object by its issuer, or by another key."""
    return jws.sign(value.claims(), by or KEYS[value.issuer], value.TYP)


def note_over(leaves: Sequence[bytes], owner: str = PROVIDER, by: jws.SigningKey | None = None, origin: str | None = None) -> str:
    """The signed checkpoint over leaves."""
    origin = origin or LOGS[owner]
    said = checkpoints.Checkpoint(origin, len(leaves), root_of(leaves))
    return checkpoints.sign(said, (signer_of(by or KEYS[owner], origin),)).decode()


def cosigned(note: str, by: str = CONSUMER, at: int = NOW + 30, key: jws.SigningKey | None = None) -> str:
    """The note with the line of a witness."""
    signer = signer_of(key or KEYS[by], by, notes.Kind.COSIGNATURE)
    line = notes.sign(notes.read(note.encode()).text, signer, at).line
    return witness.cosigned(note.encode(), line.encode(), [signer.key]).decode()


def key_of(key: jws.PublicKey) -> dict[str, Any]:
    return {"kid": key.kid, "x": write_bytes(key.public), "notBefore": key.not_before, "notAfter": key.not_after}


def identity(who: str, *keys: jws.PublicKey) -> dict[str, Any]:
    host = who.removeprefix("did:web:")
    known = [key_of(key) for key in keys or (KEYS[who].key,)]
    return {"id": who, "name": host.partition(".")[0], "role": "x", "protocol": f"https://{host}/dsp", "keys": known}


def fact(
    what: str, pid: str, move: Move | None = None, *, at: float = NOW, peer: str = CONSUMER, state: str | None = "COMPLETED", **detail: Any
) -> Evidence:
    kind = Kind.NEGOTIATION if pid == NEGOTIATION else Kind.TRANSFER
    return Evidence(what, kind, pid, peer, state, at, move, detail=detail)


@dataclass
class Story:
    """How it went. `change` alters objects before they are signed, by their names (manifest, receipt 1, ack 2, ...): what a party could
    do with its own key. `extra` facts come last into the ledger; `rewritten` are leaves that the provider has put in the place of others
    after the counterparty has cosigned them. The agreement is closed by what its parties have signed of it, `closings`."""

    change: dict[str, Change] = field(default_factory=dict)
    extra: tuple[tuple[Evidence, dict[str, Any]], ...] = ()
    rewritten: dict[int, bytes] = field(default_factory=dict)
    invoice: bool = True
    document: dict[str, Any] = field(default_factory=lambda: DOCUMENT)
    counts: Counts = field(default_factory=lambda: COUNTS)
    finalized: str = "FINALIZED"  # the state in which the provider is when it says so
    statements: tuple[Change, ...] = ()  # what others are made of the provider's
    closings: tuple[Closing, ...] = ()  # in the order in which they come to the provider's ledger; the first of them counts
    answers: tuple[ClosingAck, ...] = ()  # to them
    counted: dict[str, Any] = field(default_factory=dict)  # what the ledger's count of all says otherwise

    def changed(self, name: str, value: Any) -> Any:
        return self.change.get(name, lambda each: each)(value)

    def draft(self) -> Draft:
        """The provider's export."""
        entries: list[tuple[bytes, str, dict[str, Any]]] = []
        signed_objects: list[tuple[str, str]] = []

        def say(what: str, pid: str, move: Move | None = None, **more: Any) -> None:
            put(fact(what, pid, move, **more))

        def put(said: Evidence) -> None:
            detail, salt = orjson.dumps(said.detail) if said.detail else b"", hashlib.sha256(b"salt %d" % len(entries)).digest()[:16]
            body = entry_of(said, hidden_of(salt, detail))
            more = {"body": body.decode(), "jws": None, "detail": detail.decode(), "salt": salt.hex()}
            entries.append((body, said.pid or "", more))

        def sign(kind: str, name: str, value: Any, pid: str = TRANSFER) -> str:
            token = signed(self.changed(name, value))
            signed_objects.append((kind, token))
            entries.append((token.encode(), pid, {"body": None, "jws": write_bytes(digest(token)), "detail": None, "salt": None}))
            return token

        def leaves() -> list[bytes]:
            return [leaf_hash(body) for body, _, _ in entries]

        def ledger(owner: str = PROVIDER) -> str:
            return note_over(leaves() if owner == PROVIDER else [leaf_hash(b"theirs %d" % n) for n in range(len(entries))], owner)

        put(fact("message-received", "urn:uuid:other"))
        offered = {"terms": named(negotiation()["terms"]), "decision": named(decision("urn:uuid:offer"))}
        say("message-received", NEGOTIATION, Move.CONTRACT_REQUEST, at=NOW - 6, state="REQUESTED", trace="00ff", digests=offered)
        say("message-sent", NEGOTIATION, Move.CONTRACT_AGREEMENT, at=NOW - 5, state="AGREED", digests={"agreement": named(self.document)})
        say("message-received", NEGOTIATION, Move.VERIFICATION, at=NOW - 4, state="VERIFIED")
        say("message-sent", NEGOTIATION, Move.FINALIZED, at=NOW - 4, state=self.finalized)
        say("message-received", TRANSFER, Move.TRANSFER_REQUEST, state="REQUESTED")
        hashed = {"policy_hash": policy_hash(self.document)}
        started = {"decision": named(decision(AGREEMENT) | hashed)}
        say("message-sent", TRANSFER, Move.START, state="STARTED", reason="it was agreed", digests=started)
        manifest = sign("manifest", "manifest", replace(MANIFEST, policy=digest_of(self.document)))
        parties = CONSUMER, PROVIDER
        first = Receipt(*parties, "j1", NOW + 10, digest(manifest), 1, None, (), Counts(), Checkpoint(LAYOUT.leaves, ROOT))
        one = sign("receipt", "receipt 1", first)
        answered = Ack(PROVIDER, CONSUMER, NOW + 11, digest(manifest), digest(one), 1, 8, 4 * CHUNK, "ok", 1, 5, ledger())
        sign("ack", "ack 1", answered)
        counts = self.counts
        second = replace(
            first, id="j2", issued=NOW + 20, sequence=2, previous=digest(one), ranges=((1, 5),), counts=counts, state="complete",
            ledger=ledger(CONSUMER),
        )  # fmt: skip
        two = sign("receipt", "receipt 2", second)
        credit = LAYOUT.size_bytes + 4 * CHUNK
        again = replace(answered, issued=NOW + 21, receipt=digest(two), sequence=2, index=10, credit_bytes=credit, ledger=ledger())
        last = sign("ack", "ack 2", again)
        seen = cosigned(ledger())
        told = Flow(TRANSFER, digest(manifest), 2, digest(two), "both", counts)
        stated = Statement(PROVIDER, CONSUMER, "s1", NOW + 25, AGREEMENT, NOW, NOW + 25, (told,), ledger(), ledger(CONSUMER))
        sign("statement", "statement", stated)
        for number, change in enumerate(self.statements, 1):
            sign("statement", f"statement {number}", change(stated))
        say("message-received", TRANSFER, Move.COMPLETION, at=NOW + 25, state="COMPLETED")
        for number, closing in enumerate(self.closings, 1):
            if closing.issuer == PROVIDER:
                say("agreement-closed", NEGOTIATION, at=closing.seconds, state=None, agreement=AGREEMENT, reasons=[])
            sign("closing", f"closing {number}", closing, AGREEMENT)
        for number, answer in enumerate(self.answers, 1):
            sign("closing-ack", f"closing-ack {number}", answer, AGREEMENT)
        for said, _ in self.extra:
            put(said)
        for place, body in self.rewritten.items():
            entries[place] = (body, entries[place][1], entries[place][2] | {"body": body.decode()})

        subjects = NEGOTIATION, AGREEMENT, TRANSFER, LATER
        counting, places = Counting(), len(entries)
        for body, pid, _ in entries:
            if pid in subjects:
                counting.take(leaf_hash(body))
        sizes, about = counting.detail({LOGS[PROVIDER]: places}), (COUNT, None, AGREEMENT, CONSUMER, None, NOW + 60)
        put(Evidence(*about, digest=counting.digest, detail=sizes | self.counted))
        newest = ledger()
        members: list[tuple[str, dict[str, Any]]] = [
            (
                "evidence",
                {"format": FORMAT, "version": VERSION, "agreement": AGREEMENT, "by": PROVIDER, "role": "provider", "at": NOW + 60},
            ),
            ("identity", identity(PROVIDER)),
            ("identity", identity(CONSUMER, OLD.key, KEYS[CONSUMER].key)),
            ("agreement", agreement(self.document) | closed(self.closings)),
            ("negotiation", negotiation()),
            ("transfer", transfer(two, last, counts)),
            ("decision", {"pid": NEGOTIATION, "document": decision("urn:uuid:offer")}),
            ("decision", {"pid": TRANSFER, "document": decision(AGREEMENT) | hashed}),
            *([("invoice", {"document": invoice(self.document, manifest, two, counts)})] if self.invoice else []),
            ("checkpoint", {"of": PROVIDER, "note": newest}),
            ("checkpoint", {"of": PROVIDER, "note": seen}),
            ("checkpoint", {"of": CONSUMER, "note": note_over([leaf_hash(b"theirs %d" % n) for n in range(20)], CONSUMER)}),
        ]
        size, nodes, tokens = len(entries), nodes_of(leaves()), dict(reversed(each) for each in signed_objects)
        for old in (9, 11, 12):
            members.append(
                ("consistency", {"log": LOGS[PROVIDER], "old": old, "size": size, "proof": hashes(consistency(old, size, nodes))})
            )
        for index, (body, pid, more) in enumerate(entries):
            if pid not in subjects:
                continue
            if (kind := tokens.get(body.decode())) is not None:
                members.append((kind, {"jws": body.decode(), "transfer": pid}))
            place = {"log": LOGS[PROVIDER], "index": index, "sequence": index + 1, "pid": pid}
            members.append(("entry", place | more | {"proof": hashes(inclusion(index, size, nodes))}))
        return Draft(members)


def named(document: dict[str, Any]) -> str:
    """The digest of a document as the ledger holds it."""
    return write_bytes(digest_of(document))


def agreement(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": AGREEMENT, "document": document, "policy": write_bytes(digest_of(document)), "provider": PROVIDER, "consumer": CONSUMER,
        "dataset": DATASET, "negotiation": NEGOTIATION, "created": NOW - 5, "final": True, "ends": None, "closed": None, "closedBy": None,
        "reason": None, "performed": [],
    }  # fmt: skip


def closed(closings: Sequence[Closing]) -> dict[str, Any]:
    """What an agreement says of its end."""
    return {"closed": closings[0].seconds, "closedBy": "us" if closings[0].issuer == PROVIDER else "peer"} if closings else {}


def negotiation() -> dict[str, Any]:
    pids = {"pid": NEGOTIATION, "consumerPid": THEIRS[NEGOTIATION], "providerPid": NEGOTIATION}
    terms = {"@id": "urn:uuid:offer", "@type": "Offer", "permission": [{"action": "use"}]}
    return pids | {"state": "FINALIZED", "agreement": AGREEMENT, "terms": terms, "created": NOW - 6, "updated": NOW - 4}


def transfer(receipt: str, ack: str, counts: Counts) -> dict[str, Any]:
    signed_for = {"sequence": 2, "receipt": write_bytes(digest(receipt)), "ack": write_bytes(digest(ack))}
    account = signed_for | {"status": "complete", "attested": "both", "counts": counts.claims()}
    pids = {"pid": TRANSFER, "consumerPid": THEIRS[TRANSFER], "providerPid": TRANSFER, "agreement": AGREEMENT}
    return pids | {"state": "COMPLETED", "code": None, "created": NOW, "updated": NOW + 25, "account": account}


def decision(policy: str) -> dict[str, Any]:
    request = {"party": CONSUMER, "action": "odrl:use", "target": DATASET}
    return {"result": "permit", "code": "PERMITTED", "stage": "transfer", "policy": policy, "request": request, "reason": ["Permitted."]}


def invoice(document: dict[str, Any], manifest: str, receipt: str, counts: Counts) -> dict[str, Any]:
    """What is owed by the prices of a document for all that the receipt is for."""
    plan = plan_of(load(document, options=options()))
    assert plan is not None
    parties = Parties(AGREEMENT, digest_of(document), DATASET, PROVIDER, CONSUMER)
    reading = Reading(TRANSFER, NOW + 21, counts, 2, digest(manifest), digest(receipt))
    return invoice_of(parties, plan, [reading], NOW, NOW + 22).to_json()


def billed(said: dict[str, Any]) -> dict[str, Any]:
    """The invoice with its digest."""
    rest = {name: value for name, value in said.items() if name != "digest"}
    return rest | {"digest": write_bytes(hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).digest())}


def hashes(proof: Sequence[bytes]) -> list[str]:
    return [b64encode(node).decode() for node in proof]


@dataclass
class Draft:
    """The members of a file, to be altered. `data` is the file, attested by its exporter, unless it is so already or by `attest` of nobody,
    and sealed anew."""

    members: list[tuple[str, dict[str, Any]]]
    ending: dict[str, int] | None = None
    lines: dict[int, bytes] = field(default_factory=dict)
    attest: bool = True

    def copy(self) -> Draft:
        return Draft(deepcopy(self.members))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [value for each, value in self.members if each == kind]

    def one(self, kind: str, number: int = 0) -> dict[str, Any]:
        """The member of a kind with this number, from 0; from the end if it is negative."""
        return self.all(kind)[number]

    def place(self, kind: str, number: int = 0) -> int:
        """Where it stands."""
        return [at for at, (each, _) in enumerate(self.members) if each == kind][number]

    def drop(self, kind: str, number: int = 0) -> None:
        del self.members[self.place(kind, number)]

    def put(self, kind: str, value: dict[str, Any], before: str = "entry") -> None:
        self.members.insert(self.place(before), (kind, value))

    def entry_of(self, token: str) -> dict[str, Any]:
        """The entry that is this signed object."""
        return next(entry for entry in self.all("entry") if entry["jws"] == write_bytes(digest(token)))

    def uncounted(self) -> Draft:
        """The file as programs wrote it before the ledger counted what is in a file."""
        older = self.copy()
        older.one("evidence")["version"] = 2
        older.drop("entry", -1)
        return older

    def move(self, move: str) -> dict[str, Any]:
        """The entry of a message."""
        return next(entry for entry in self.all("entry") if entry["body"] and json.loads(entry["body"])["move"] == move)

    def resigned(self, kind: str, number: int, by: jws.SigningKey, typ: str | None = None, **claims: Any) -> None:
        """Let somebody sign other claims in the place of an object."""
        member = self.one(kind, number)
        header, payload = (orjson.loads(urlsafe_b64decode(part + "==")) for part in member["jws"].split(".")[:2])
        member["jws"] = jws.sign(payload | claims, by, typ or header["typ"])

    def text(self, *, end: bool = True) -> Iterator[bytes]:
        counts, hashed, kinds = dict[str, int](), hashlib.sha256(), {kind for kind, _ in self.members}

        def line(kind: str, value: dict[str, Any]) -> bytes:
            at, counts[kind] = sum(counts.values()), counts.get(kind, 0) + 1
            text = self.lines.get(at) or canonical({"kind": kind, **value})
            hashed.update(text + b"\n")
            return text

        for kind, value in self.members:
            yield line(kind, value)
        if self.attest and self.members and not kinds & {"attestation", "end"}:
            yield line("attestation", self.attestation(hashed.digest()))
        if end and "end" not in kinds:
            yield line("end", {"members": dict(counts) if self.ending is None else self.ending})

    def attestation(self, lines: bytes, **changed: Any) -> dict[str, Any]:
        """What the exporter signs of lines with this SHA-256."""
        by = next((value.get("by") for kind, value in self.members if kind == "evidence"), None)
        said = Attestation(by if by in list(KEYS) else PROVIDER, NOW + 60, lines)
        return {"jws": signed(replace(said, **changed))}

    @property
    def data(self) -> bytes:
        return sealed(b"".join(line + b"\n" for line in self.text()))

    def codes(self) -> set[str]:
        """What is found of the file."""
        return {each.code for each in verify(self.data).findings}


def after(*facts: Evidence, **agreement: Any) -> Draft:
    """The file with more facts at the end of the ledger, of which its agreement says this, and with no count of them."""
    draft = Story(extra=tuple((each, {}) for each in facts)).draft().uncounted()
    draft.one("agreement").update(agreement)
    return draft


SOUND = Story().draft()
