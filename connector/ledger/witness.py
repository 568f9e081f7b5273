"""We as a witness: we vouch that a peer's log only grows (C2SP tlog-witness, `add-checkpoint`), and keep what it has signed.

Of each peer we know one log, and one newest checkpoint of it. Its next one has to continue that; a log that takes the place of
another has to say so, with all that we have seen of it. What contradicts itself is kept, both sides of it, and from then on
nothing is acknowledged to that peer until an operator has looked at it. Only two notes that the peer has signed prove that, to anybody:
a proof of consistency is signed by nobody and may be of any bytes, so one that does not hold is refused, and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from connector import telemetry
from connector.errors import Contradiction, NotFound, ProofRefused
from connector.ledger.sequencer import Commit
from connector.merkle import checkpoints, notes, witness
from connector.merkle.succession import read_follows
from connector.ports import Clock, Identity, Store
from connector.records import Changes, Conflict, Evidence, Expect
from connector.records.ledger import Witnessed
from connector.remembered import Paces
from connector.telemetry_metrics import Counter
from connector.values import replace

CONTRADICTIONS = frozenset({"witness-forked", "witness-successor"})
UNCONTINUED = frozenset({"consistency-length", "consistency-mismatch", "consistency-old-mismatch"})  # proves nothing, and is told
ATTEMPTS_MAX = 8  # two checkpoints of one log at once come from two replicas; more in a row are a defect
NOT_FOUND, CONTRADICTED, TOO_OFTEN = 404, 409, 429  # RFC 9110, RFC 6585
AT_ONCE, SECONDS = 64, 1.0  # checkpoints of one peer that are new; each is an entry of our own ledger, and ours come once a minute
PEERS_MAX = 10_000
NOTE_BYTES_MAX = 16 * 1024  # it becomes an entry of our own ledger; a checkpoint with three witnesses has 700

consistency_failures = Counter("qiao_ledger_consistency_failures", "Checkpoints of peers that contradict what they signed before")


class Witness:
    """Judges and cosigns the checkpoints of peers, while it is `on`. `signer` gives our key of now for cosignatures, under our id."""

    def __init__(self, store: Store, commit: Commit, clock: Clock, identity: Identity, signer: Callable[[], notes.Signer]) -> None:
        self._store, self._commit, self._clock, self._identity, self._signer = store, commit, clock, identity, signer
        self._suspects: set[str] = set()
        self._paces: Paces[str] = Paces(AT_ONCE, SECONDS, PEERS_MAX)
        self.on = True

    async def start(self) -> None:
        """Remember whom an earlier process has found out."""
        self._suspects = {row.peer for row in await self._store.witnesses() if row.conflict is not None}

    def suspected(self, peer: str) -> bool:
        """Whether this participant has signed what contradicts itself."""
        return peer in self._suspects

    async def add(self, peer: str, body: bytes) -> witness.Answer:
        """Judge what `peer` posts as `add-checkpoint`, remember it, and only then answer with our cosignature."""
        if not self.on:
            return witness.Answer(NOT_FOUND, b"witness-off: this participant witnesses no ledgers of others\n", code="witness-off")
        try:
            request = witness.read(body)
            if len(request.note) > NOTE_BYTES_MAX:
                raise ProofRefused(f"a checkpoint of more than {NOTE_BYTES_MAX} bytes is not kept here", "witness-size")
            origin = request.checkpoint.origin
            if origin in {log.origin for log in await self._store.logs()}:
                raise ProofRefused("this log is ours", "witness-origin")
            keys = [notes.VerifierKey(origin, key.public) for key in self._identity.keys(peer)]
        except ProofRefused as refused:
            return witness.refusal(refused, witness.Seen())
        for _ in range(ATTEMPTS_MAX):
            known = await self._store.witnessed(peer, origin)
            if peer in self._suspects:
                reason = "this participant has signed checkpoints that contradict each other; its operator has to explain that to ours"
                return witness.Answer(CONTRADICTED, f"witness-contradicted: {reason}\n".encode(), code="witness-contradicted")
            seen = witness.Seen(known.size, known.root) if known else witness.Seen()
            now = self._clock.now()
            answer = witness.add_checkpoint(body, keys, seen, self._signer(), int(now))
            held = known
            if answer.seen is not None and known is None:
                held, answer = await self._succession(peer, request.checkpoint, answer)
            if answer.code in CONTRADICTIONS and held is not None:
                changes = self._contradiction(held, request, now)
            elif answer.seen is None or answer.seen == seen:
                if answer.code in UNCONTINUED:
                    telemetry.log.warning("ledger of a peer does not continue", peer=peer, log=origin, code=answer.code, known=seen.size)
                return answer
            elif not self._paces.take(peer, monotonic()):
                reason = "checkpoints of this participant come faster than they are remembered here; send fewer"
                return witness.Answer(TOO_OFTEN, f"witness-too-often: {reason}\n".encode(), code="witness-too-often")
            else:
                changes = self._continuation(known, peer, request, now)
            if not isinstance(await self._commit(changes), Conflict):
                if answer.code:
                    self._suspects.add(peer)
                    consistency_failures.inc()
                    fix = "nothing is acknowledged to it: ask its operator why, then `connector ledger forgive` takes it up again"
                    telemetry.log.error("ledger of a peer contradicts itself", peer=peer, log=origin, code=answer.code, fix=fix)
                return answer
        raise RuntimeError(f"{ATTEMPTS_MAX} conflicts in a row over one checkpoint")

    async def shown(self, peer: str, origin: str) -> str:
        """The newest checkpoint of its log that we have of `peer`, as it signed it: for a log that has lost it. Raises NotFound."""
        found = await self._store.witnessed(peer, origin)
        if found is None:
            raise NotFound("no checkpoint of this log has been witnessed here")
        return found.note

    async def forgive(self, peer: str) -> None:
        """An operator has looked at what contradicts itself and trusts the peer again: what it signed last counts from now on. Both notes
        stay on record. Raises NotFound if there is nothing to forgive, Contradiction if that changes just now."""
        rows = [row for row in await self._store.witnesses() if row.peer == peer and row.conflict is not None]
        if not rows:
            raise NotFound(f"nothing that `{peer}` has signed contradicts itself")
        now = self._clock.now()
        for row in rows:
            if isinstance(await self._commit(await self._forgiven(row, now)), Conflict):
                raise Contradiction(f"what is known of `{peer}` has just changed; look at it again")
        self._suspects.discard(peer)

    async def _forgiven(self, row: Witnessed, now: float) -> Changes:
        """The checkpoint that was refused becomes the one that is known, of this log or of the one that it began."""
        note = row.conflict or ""
        said = checkpoints.read(notes.read(note.encode()).text)
        cleared = replace(row, conflict=None, version=row.version + 1, updated=now)
        known = cleared if said.origin == row.origin else await self._store.witnessed(row.peer, said.origin)
        version = known.version if known is cleared else known.version + 1 if known else 1
        fresh = Witnessed(row.peer, said.origin, said.size, said.root, note, None, version, now)
        saves = (fresh,) if known is cleared else (cleared, fresh)
        expects = (Expect(Witnessed, row.key, row.version),)
        return Changes(expects=expects, saves=saves, evidence=(self._said(row.peer, fresh, now),))

    async def _succession(
        self, peer: str, checkpoint: checkpoints.Checkpoint, answer: witness.Answer
    ) -> tuple[Witnessed | None, witness.Answer]:
        """Whether a log of which nothing was known takes the place of the peer's other one, as it has to say in its own checkpoints."""
        ours = {log.origin for log in await self._store.logs()}
        theirs = [row for row in await self._store.witnesses() if row.peer == peer and row.origin not in ours]
        if not theirs:
            return None, answer
        newest = max(theirs, key=lambda row: row.updated)
        if any(_covers(line, newest) for line in checkpoint.extensions):
            return None, answer
        reason = f"the log `{newest.origin}` was known here with {newest.size} entries, and this one does not say that it follows it"
        return newest, witness.refusal(ProofRefused(reason, "witness-successor"), witness.Seen())

    def _continuation(self, known: Witnessed | None, peer: str, request: witness.Request, now: float) -> Changes:
        checkpoint = request.checkpoint
        version = known.version if known else 0
        later = Witnessed(peer, checkpoint.origin, checkpoint.size, checkpoint.root, request.note.decode(), None, version + 1, now)
        expect = Expect(Witnessed, later.key, known.version if known else None)
        return Changes(expects=(expect,), saves=(later,), evidence=(self._said(peer, later, now),))

    def _contradiction(self, held: Witnessed, request: witness.Request, now: float) -> Changes:
        other = replace(held, conflict=request.note.decode(), version=held.version + 1, updated=now)
        detail = {"log": request.checkpoint.origin, "size": request.checkpoint.size, "known": held.size}
        fact = Evidence(telemetry.CONTRADICTED, None, None, held.peer, None, now, detail=detail, entry=request.note.decode())
        return Changes(expects=(Expect(Witnessed, held.key, held.version),), saves=(other,), evidence=(fact,))

    def _said(self, peer: str, row: Witnessed, now: float) -> Evidence:
        detail = {"log": row.origin, "size": row.size}
        return Evidence(telemetry.WITNESSED, None, None, peer, None, now, detail=detail, entry=row.note)


def _covers(line: str, known: Witnessed) -> bool:
    """Whether the line `follows <origin> <size> <root>` speaks of all that is known of that log."""
    try:
        cited = read_follows(line)
    except ProofRefused:
        return False
    return cited.origin == known.origin and (cited.size > known.size or (cited.size, cited.root) == (known.size, known.root))
