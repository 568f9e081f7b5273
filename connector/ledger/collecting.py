"""What there is of an agreement, as an evidence file: read from the store page by page, proven in the ledger, and written as it is read.

What is said beside the ledger is read as it stood at one fact (`telling`), and everything up to that is numbered: so whatever the file says
of itself is in it. What comes later is for the next export. The entries are counted, the ledger gets the count as one more, and the file
has this as its last, and the checkpoint over it: so what is left out of a file shows.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode, urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from connector import telemetry
from connector.dsp.messages import Role
from connector.errors import NotFound, ProofRefused
from connector.evidence.bundle import Bundle, Counting
from connector.evidence.secrecy import own_secrets
from connector.ledger.book import Book
from connector.ledger.proving import Proving
from connector.ledger.reading import read_entry
from connector.ledger.telling import Invoiced, Telling, Told, agreement_member, negotiation_member, transfer_member
from connector.merkle import checkpoints, notes
from connector.merkle.checkpoints import Checkpoint
from connector.metering.closing import Closing, ClosingAck
from connector.metering.content import write_bytes
from connector.metering.objects import Ack, Manifest, Receipt, digest
from connector.metering.statements import Statement
from connector.ports import Clock, Identity, Participant, Store
from connector.records.ledger import Entry, Log, Place, Witnessed
from connector.records.metering import Receipted
from connector.signatures import jws
from connector.values import Value, replace

PAGE = 200  # entries at once: 400 kB of signed objects
KINDS = {
    Manifest.TYP: "manifest",
    Receipt.TYP: "receipt",
    Ack.TYP: "ack",
    Statement.TYP: "statement",
    Closing.TYP: "closing",
    ClosingAck.TYP: "closing-ack",
}


class _Ledger(Value):
    """Our logs at one moment: each with its signed checkpoint and what is proven with it; how many entries of each are looked through;
    what others have seen of them; and how a checkpoint of ours is read."""

    logs: Mapping[int, tuple[Log, str, int]]  # by number: the log, its note, the size that this signs for
    through: Mapping[int, int]
    seen: tuple[Witnessed, ...]
    proving: Proving
    read_own: Callable[[bytes], Checkpoint]

    @property
    def ours_seen(self) -> list[Witnessed]:
        """What others have cosigned of ours."""
        ours = {log.origin for log, _, _ in self.logs.values()}
        return [row for row in self.seen if row.origin in ours]

    @property
    def others_seen(self) -> list[Witnessed]:
        """What we have seen of others."""
        ours = {log.origin for log, _, _ in self.logs.values()}
        return [row for row in self.seen if row.origin not in ours]


class Exports:
    """Writes evidence files. `invoiced` gives the invoice of an agreement as JSON, None where it has no prices."""

    def __init__(self, store: Store, book: Book, identity: Identity, clock: Clock, invoiced: Invoiced) -> None:
        self._store, self._book, self._identity, self._clock = store, book, identity, clock
        self._telling = Telling(store, invoiced)

    async def open(self, id: str, *, everybody: bool = False) -> AsyncIterator[bytes]:
        """The lines of the file of agreement `id`, one after the other. The cosignatures in it are those of the counterparty; with
        `everybody` those of all witnesses, which tells the reader with whom else we deal. Before the first it puts the count of all on
        record. Raises NotFound, Busy for an agreement that changes faster than it can be read, StoreError."""
        agreement = await self._store.agreement(id)
        if agreement is None:
            raise NotFound(f"there is no agreement `{id}`")
        seen = tuple(row for row in await self._store.witnesses() if everybody or row.peer == agreement.peer)
        told, last = await self._telling.settled(agreement)
        ledger = await self._numbered(seen, last)
        at = self._clock.now()
        counting = Counting()
        for pid in told.subjects:
            async for _, entry in self._entries(pid, ledger):
                counting.take(entry.leaf)
        sizes = {log.origin: ledger.through[number] for number, (log, _, _) in ledger.logs.items()}
        counted = await self._book.counted(agreement, counting, sizes, at)
        return self._lines(told, await self._shown(seen, ledger.through, counted), counted, at)

    async def _numbered(self, seen: tuple[Witnessed, ...], last: int) -> _Ledger:
        """Our logs, looked through as far as the fact `last` (a sequence)."""
        place = await self._book.index_of(last) if last else None
        shown = await self._shown(seen)
        through, whole = dict(shown.through), place is not None
        for number, (log, _, _) in sorted(shown.logs.items()):
            if place is not None and log.origin == place.origin:
                through[number], whole = place.index + 1, False
            elif not whole:
                through[number] = 0
        return replace(shown, through=through)

    async def _shown(self, seen: tuple[Witnessed, ...], through: Mapping[int, int] | None = None, beyond: Place | None = None) -> _Ledger:
        """Our logs by their newest checkpoints, over the entry `beyond` too. Looked through they are as far as these go, or as before."""
        found = {}
        for each in await self._store.logs():
            if each.size:
                more = beyond.index if beyond is not None and beyond.origin == each.origin else each.size - 1
                log, note = await self._book.shown(each.origin, beyond=more)
                found[log.number] = log, note, size_of(note)
        sizes = {number: size for number, (_, _, size) in found.items()} if through is None else through
        return _Ledger(found, sizes, seen, Proving(self._store), self._book.sequencer.read_own)

    async def _entries(self, pid: str, ledger: _Ledger) -> AsyncIterator[tuple[int, Entry]]:
        """The entries about a process, or about the agreement itself, and the numbers of their logs."""
        after = 0
        while page := await self._store.entries_of(pid, after, PAGE):
            for number, entry in page:
                if entry.index < ledger.through.get(number, 0):
                    yield number, entry
            after = page[-1][1].sequence

    async def _lines(self, told: Told, ledger: _Ledger, counted: Place, at: float) -> AsyncIterator[bytes]:
        bundle = Bundle()
        attest = self._book.attesting(at)
        for line in self._head(bundle, told, ledger, at):
            yield line
        own = self._identity.own.id
        writing = _Writing(bundle, ledger, own, at_provider=told.agreement.provider == own)
        for row in ledger.ours_seen:
            async for line in writing.continued(row.note):
                yield line
        for pid in told.subjects:
            async for number, entry in self._entries(pid, ledger):
                async for line in writing.entry(pid, number, entry):
                    yield line
                await asyncio.sleep(0)  # half a millisecond of work for each: nobody else has to wait for all of them
            account = told.accounts.get(pid)
            if account is not None and account.receipt and digest(account.receipt) not in writing.written:
                for each in await self._store.receipts(pid):  # what the counterparty had kept for us, and our ledger has not
                    for line in writing.receipted(pid, each):
                        yield line
        log = next(log for log, _, _ in ledger.logs.values() if log.origin == counted.origin)
        async for line in writing.entry(told.agreement.id, log.number, await read_entry(self._store, log, counted.index)):
            yield line
        yield bundle.add("attestation", {"jws": attest(bundle.sha256)})
        yield bundle.close()

    def _head(self, bundle: Bundle, told: Told, ledger: _Ledger, at: float) -> Iterator[bytes]:
        """All that stands before the ledger."""
        own, agreement = self._identity.own.id, told.agreement
        role = Role.PROVIDER if agreement.provider == own else Role.CONSUMER
        yield bundle.header(agreement.id, own, str(role), at)
        cosigners = [row.peer for row in ledger.ours_seen]
        for who in dict.fromkeys((agreement.provider, agreement.consumer, *cosigners)):
            yield bundle.add("identity", _identity(who, self._identity))
        yield bundle.add("agreement", agreement_member(agreement))
        if told.negotiation is not None:
            yield bundle.add("negotiation", negotiation_member(told.negotiation))
        for pid in told.pids:
            yield bundle.add("transfer", transfer_member(pid, agreement.id, told.transfers.get(pid), told.accounts.get(pid)))
        for process in (told.negotiation, *map(told.transfers.get, told.pids)):
            if process is not None and (decided := process.detail.get("decision")) is not None:
                yield from _sayable(bundle, "decision", {"pid": process.pid, "document": decided})
        if told.invoice is not None:
            yield from _sayable(bundle, "invoice", {"document": told.invoice})
        for of, note in dict.fromkeys(_checkpoints(own, ledger)):
            yield bundle.add("checkpoint", {"of": of, "note": note})


class _Writing:
    """The entries of a file, with the objects that they are, each once. `written` are the digests of these."""

    def __init__(self, bundle: Bundle, ledger: _Ledger, own: str, *, at_provider: bool) -> None:
        self._bundle, self._ledger, self._own, self._at_provider = bundle, ledger, own, at_provider
        self._proven = {(log.origin, size) for log, _, size in ledger.logs.values()}
        self.written: set[bytes] = set()

    async def entry(self, pid: str, number: int, entry: Entry) -> AsyncIterator[bytes]:
        """An entry of the log `number`, with the object that it is, and with the proof that the checkpoint in that is one of our log."""
        log, _, size = self._ledger.logs[number]
        text, kind = entry.body.decode(), kind_of(entry.body)
        if kind is not None:
            for line in self.object(kind, pid, text):
                yield line
            claims = jws.claims_of(text)
            shown = claims.get("led") if claims["iss"] == self._own else self._genuine(claims.get("peer"))
            if shown is not None:
                async for line in self.continued(shown):
                    yield line
        proof = await self._ledger.proving.inclusion(log, entry.index, size)
        shown = kind is not None or not self._tells_secret(text, entry.detail)
        yield self._bundle.add(
            "entry",
            {
                "log": log.origin,
                "index": entry.index,
                "sequence": entry.sequence,
                "pid": pid,
                "body": text if kind is None else None,
                "jws": None if kind is None else write_bytes(digest(text)),
                "detail": entry.detail.decode() if entry.detail is not None and shown else None,
                "salt": entry.salt.hex() if entry.salt is not None and shown else None,
                "proof": _hashes(proof),
            },
        )

    def object(self, kind: str, transfer: str, token: str) -> Iterator[bytes]:
        """A signed object, if it is not in the file yet."""
        if (name := digest(token)) not in self.written:
            self.written.add(name)
            yield self._bundle.add(kind, {"jws": token, "transfer": transfer})

    def receipted(self, transfer: str, each: Receipted) -> Iterator[bytes]:
        """A stored receipt and its ack."""
        yield from self.object("receipt", transfer, each.receipt)
        if each.ack:
            yield from self.object("ack", transfer, each.ack)

    def _tells_secret(self, body: str, detail: bytes | None) -> bool:
        """Whether words of our own in the detail of a fact look like a secret, from before they were refused: it is kept back, as if it
        were erased. What a peer gave stays, and accuses it."""
        said = orjson.loads(detail) if detail else None
        return bool(own_secrets(orjson.loads(body)["what"], said, at_provider=self._at_provider))

    def _genuine(self, note: str | None) -> str | None:
        """What the other side shows as a checkpoint of ours, if we have signed it: it may say anything, and a file proves what we said."""
        if note is None:
            return None
        try:
            self._ledger.read_own(note.encode())
        except (ProofRefused, UnicodeEncodeError):
            return None
        return note

    async def continued(self, note: str) -> AsyncIterator[bytes]:
        """The proof that a checkpoint of ours is the beginning of the newest, if it is not in the file yet."""
        said = checkpoints.read(notes.read(note.encode()).text)
        found = next(((log, size) for log, _, size in self._ledger.logs.values() if log.origin == said.origin), None)
        if found is None or (said.origin, said.size) in self._proven or said.size > found[1]:
            return
        log, size = found
        self._proven.add((said.origin, said.size))
        proof = await self._ledger.proving.consistency(log, said.size, size)
        yield self._bundle.add("consistency", {"log": said.origin, "old": said.size, "size": size, "proof": _hashes(proof)})


def _sayable(bundle: Bundle, kind: str, value: Mapping[str, Any]) -> Iterator[bytes]:
    """A member that a file can do without, unless no file can hold it: each side signs for its own time, and may have signed for more than
    JSON adds up; and of a decision with such a number the ledger has no digest either."""
    try:
        yield bundle.add(kind, value)
    except ValueError as error:
        telemetry.log.error(f"{kind} left out of evidence", reason=str(error))


def kind_of(entry: bytes) -> str | None:
    """Which signed object an entry of the ledger is; None for a fact."""
    if not entry.startswith(b"eyJ"):
        return None
    header = entry.partition(b".")[0].decode("ascii")
    return KINDS.get(orjson.loads(urlsafe_b64decode(header + "=="))["typ"])


def size_of(note: str) -> int:
    """Of how many entries a checkpoint is."""
    return checkpoints.read(notes.read(note.encode()).text).size


def _checkpoints(own: str, ledger: _Ledger) -> Iterator[tuple[str, str]]:
    """Of whom, and the note: our newest, those that others have cosigned, those of others."""
    yield from ((own, note) for _, note, _ in ledger.logs.values())
    yield from ((own, row.note) for row in ledger.ours_seen)
    for row in ledger.others_seen:
        yield row.peer, row.note
        if row.conflict is not None:
            yield row.peer, row.conflict


def _identity(who: str, identity: Identity) -> dict[str, Any]:
    known: Participant | None = identity.own if who == identity.own.id else identity.find(who)
    keys = [
        {"kid": key.kid, "x": write_bytes(key.public), "notBefore": key.not_before, "notAfter": key.not_after} for key in identity.keys(who)
    ]
    more = {"name": known.name, "role": known.role, "protocol": known.protocol} if known else dict.fromkeys(("name", "role", "protocol"))
    return {"id": who, **more, "keys": keys}


def _hashes(proof: Iterable[bytes]) -> list[str]:
    return [b64encode(node).decode("ascii") for node in proof]
