"""The ledger as a whole: the port `Ledger` over sequencer, witness and witnesses, with one start and one end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from nacl.bindings import crypto_sign

from connector import telemetry
from connector.errors import NotFound, StoreError
from connector.evidence.bundle import Attestation, Counting
from connector.ledger.reading import log_of, prove_inclusion, read_entry
from connector.ledger.sequencer import Commit, Sequencer
from connector.ledger.witness import Witness
from connector.ledger.witnesses import Witnesses
from connector.merkle import checkpoints, cose, notes
from connector.metering.dating import SET_SECONDS
from connector.ports import Clock, Identity, Peer, Store
from connector.ports.ledger import Anchor
from connector.records import Agreement, Changes, Conflict, Evidence
from connector.records.ledger import Log, Place
from connector.signatures import jws
from connector.signatures.jws import SIGNATURE_BYTES, SigningKey
from connector.values import replace


class Book:
    """One participant's ledger. `key` gives the key that signs now; the other parameters are those of the parts."""

    def __init__(
        self,
        store: Store,
        commit: Commit,
        clock: Clock,
        identity: Identity,
        peer: Peer,
        anchor: Anchor,
        key: Callable[[], SigningKey],
        origin: str,
        holder: str,
    ) -> None:
        self.store = store
        self._clock, self._commit = clock, commit
        self._key = key
        self.sequencer = Sequencer(store, commit, clock, identity, anchor, lambda log: signer_of(key(), log), origin, holder)
        self._own = own = identity.own.id
        self.witness = Witness(store, commit, clock, identity, lambda: signer_of(key(), own, notes.Kind.COSIGNATURE))
        self.witnesses = Witnesses(store, commit, clock, identity, peer, self.sequencer)

    async def start(self) -> None:
        """Raises StoreError if what is stored is not what was signed."""
        self._told(max((log.updated for log in await self.store.logs()), default=0.0))
        await self.sequencer.start()
        await self.witness.start()
        await self.witnesses.start()

    def _told(self, newest: float) -> None:
        """Tell an operator of a clock that is behind what is on record, the newest of which is of `newest` (POSIX seconds). Nothing is
        refused for it, as nobody here knows which of the two was wrong; but a start forgets the used ids of a time that comes again."""
        if (seconds := newest - self._clock.now()) > SET_SECONDS:
            why = "it was ahead before, or it is wrong now; what was signed then may be taken once more when that time comes"
            telemetry.log.warning("clock behind the ledger", seconds=round(seconds), why=why)

    def exchange(self, on: bool) -> None:
        """Whether checkpoints are exchanged with counterparties: ours shown to them for cosignatures, and theirs cosigned."""
        self.witness.on = self.witnesses.on = on

    async def close(self) -> None:
        await self.witnesses.close()
        await self.sequencer.close()

    def committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Told by the journal after each commit."""
        self.sequencer.committed(changes, evidence)
        self.witnesses.committed(changes, evidence)

    async def fault(self) -> str | None:
        """What is wrong with the ledger, for the readiness of the connector."""
        return self.sequencer.fault

    async def index_of(self, sequence: int) -> Place:
        """See the port."""
        return await self.sequencer.index_of(sequence)

    async def checkpoint(self) -> str | None:
        """See the port."""
        return await self.sequencer.checkpoint()

    async def shown(self, origin: str | None, beyond: int = -1) -> tuple[Log, str]:
        """A log (the one that grows unless `origin` says another) and its newest checkpoint that may be shown; over the entry `beyond` too,
        if there is one already. The log has all that the checkpoint is over. Raises NotFound, StoreError."""
        growing = await self.sequencer.checkpoint()
        log = await log_of(self.store, origin)  # after it: what is signed later may be over more than was read before
        if growing is None or not growing.startswith(f"{log.origin}\n"):
            return log, log.note  # a log that is closed has been shown as it is
        if int(growing.split("\n", 2)[1]) <= beyond < log.size:
            growing = await self.sequencer.checkpoint(fresh_seconds=0.0) or growing
            log = await log_of(self.store, log.origin)
        return log, growing

    async def transparent(self, sequence: int, now: float) -> bytes:
        """The entry of the evidence row `sequence` as a signed statement with its COSE receipt (RFC 9943, RFC 9942), both by our key of
        `now` (POSIX seconds). The receipt is of the statement's payload: the entry as it stands in the log. Raises NotFound, StoreError."""
        if not [row for row in await self.store.events(sequence - 1, 1) if row.sequence == sequence]:
            raise NotFound(f"there is no event {sequence}")
        place = await self.index_of(sequence)
        index = place.index
        log, note = await self.shown(place.origin, beyond=index)
        size = checkpoints.read(notes.read(note.encode()).text).size
        entry, proof = await read_entry(self.store, log, index), await prove_inclusion(self.store, log, index, size)
        key = self._key()
        said = cose.Statement(key.kid, log.origin, entry.pid or log.origin, int(now))
        sign = signer_of(key, log.origin).sign
        receipt = cose.inclusion_receipt(said, entry.leaf, index, size, proof, sign)
        media_type = "application/jwt" if entry.body.startswith(b"eyJ") else "application/json" if entry.body[:1] == b"{" else "text/plain"
        by = replace(said, issuer=self._own)
        return cose.transparent_statement(by, entry.body, media_type, [receipt], sign)

    def attesting(self, at: float) -> Callable[[bytes], str]:
        """Signs the SHA-256 of the lines of an evidence file that is begun at `at` (POSIX seconds), by our key of now: they are all that we
        have."""
        key = self._key()
        return lambda lines: jws.sign(Attestation(self._own, int(at), lines).claims(), key, Attestation.TYP)

    async def counted(self, agreement: Agreement, counting: Counting, sizes: Mapping[str, int], at: float) -> Place:
        """Put on record (POSIX seconds `at`) which entries an export of an agreement has, all that there are among the first `sizes` of our
        logs; returns where that stands. Raises StoreError: without it nothing would show what a file lacks."""
        about = None, agreement.id, agreement.peer, None, at
        fact = Evidence(telemetry.EXPORTED, *about, digest=counting.digest, detail=counting.detail(sizes))
        rows = await self._commit(Changes(evidence=(fact,)))
        if isinstance(rows, Conflict):
            raise StoreError("the count of an export cannot be put on record")
        return await self.index_of(rows[0].sequence)

    def behind(self) -> bool:
        """See the port."""
        return self.sequencer.fault is not None

    def suspected(self, peer: str) -> bool:
        """See the port."""
        return self.witness.suspected(peer)


@lru_cache(maxsize=16)  # a key is looked at closely once: that costs as much as four signatures
def signer_of(key: SigningKey, name: str, kind: notes.Kind = notes.Kind.ED25519) -> notes.Signer:
    """A key of ours as the signer of notes, under a log's name or, for cosignatures, under our own."""
    return notes.Signer(notes.VerifierKey(name, key.key.public, kind), lambda message: crypto_sign(message, key.secret)[:SIGNATURE_BYTES])
