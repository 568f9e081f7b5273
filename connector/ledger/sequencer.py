"""The one sequencer: it puts facts in order, extends the tree over their entries, and signs it.

Facts are durable before it sees them, with the hash of their entry: whoever waits for a number waits for one more commit, everybody
else for nothing. A lease says who numbers, so that replicas do not compete, and the version of the log's row is what makes sure: a
write of one who lost the lease meets a Conflict. It signs nothing smaller than what it signed before, as the file beside the
database (the anchor) remembers it: a database that is older than that begins a log of another name, which cites the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter

from connector import telemetry
from connector.errors import ConnectorError, NotFound, ProofRefused, StoreError
from connector.lasting import stopped
from connector.ledger.reading import check_tail, tree_of
from connector.merkle import checkpoints, notes
from connector.merkle.succession import follows
from connector.merkle.tree import Frontier
from connector.ports import Clock, Identity, Store
from connector.ports.ledger import Anchor
from connector.records import Changes, Conflict, Evidence, Expect
from connector.records.ledger import TILE_LEVELS, Log, Numbered, Place, Subtree
from connector.remembered import pause_seconds
from connector.telemetry_metrics import Counter, Gauge, Histogram
from connector.values import replace

GROUP_AT_MOST = 256  # entries to a commit: one tile
LINGER_SECONDS = 0.25  # how long entries wait for more of them; who needs a number (an ack, a witness) does not wait for that
APART_SECONDS = 1.0  # between two extensions for which nobody waits: each costs as much as two of the commits that it numbers
LEASE_SECONDS = 2.0  # a write makes it anew; who holds it and is gone delays the next one for so long
ASK_SECONDS = 0.05  # between two looks at a log that another one extends, while somebody waits
FRESH_SECONDS = 1.0  # a checkpoint that is shown to others may be so old: each newer one costs a flush of the anchor

entries_total = Counter("qiao_ledger_entries", "Entries numbered into the ledger")
commit_seconds = Histogram("qiao_ledger_commit_seconds", "One extension of the ledger")
commit_failures = Counter("qiao_ledger_commit_failures", "Extensions of the ledger that failed")
tree_size = Gauge("qiao_ledger_tree_size", "Entries in the log that grows")
checkpoint_at = Gauge("qiao_ledger_checkpoint_timestamp_seconds", "When the newest checkpoint was signed")

Commit = Callable[[Changes], Awaitable[tuple[Evidence, ...] | Conflict]]


class Sequencer:
    """Numbers the facts of one participant. `origin` is the name of its first log, `signer` gives the key of now under a log's name,
    `holder` is who competes for the lease: the same for a process that has the store for itself, else one for each replica."""

    def __init__(
        self,
        store: Store,
        commit: Commit,
        clock: Clock,
        identity: Identity,
        anchor: Anchor,
        signer: Callable[[str], notes.Signer],
        origin: str,
        holder: str,
    ) -> None:
        self._store, self._commit, self._clock, self._identity = store, commit, clock, identity
        self._anchor, self._signer, self._origin, self._holder = anchor, signer, origin, holder
        self._log: Log | None = None  # as we have written it; None: somebody else may have
        self._run: Numbered | None = None
        self._epoch: int | None = None
        self._waiting: dict[int, asyncio.Future[Place]] = {}
        self._pending = 0
        self._remembered = ""
        self._extended_at = -APART_SECONDS  # by `perf_counter`
        self._woken, self._urgent = asyncio.Event(), asyncio.Event()
        self._published: tuple[str, float] | None = None
        self._publishing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.fault: str | None = None

    async def start(self) -> None:
        """Look at what is there, begin a new log if the newest is older than what was signed, and go on where a crash has stopped it.
        Raises StoreError if the rows are not what was signed."""
        logs = await self._store.logs()
        newest = logs[-1] if logs else None
        if newest is not None:
            await check_tail(self._store, newest)
        stands = await asyncio.to_thread(self._anchor.read)
        signed = self._newest_of(stands or ())
        if not await self._continues(newest, signed, lost=stands is None or (bool(stands) and signed is None)):
            await self.begin_anew(signed)
        self._task = asyncio.create_task(self._work(), name="ledger")
        self._woken.set()

    def committed(self, _changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Told by the journal after each commit."""
        if evidence:
            self._pending += len(evidence)
            self._woken.set()
            if self._pending >= GROUP_AT_MOST:
                self._urgent.set()

    async def index_of(self, sequence: int) -> Place:
        """The place of the evidence row `sequence`, as soon as it is durable: at once if somebody has not to be waited for. Raises
        StoreError if the ledger cannot be extended: nothing may be acknowledged then; NotFound for a row from before the ledger."""
        if self._closed:
            raise StoreError("the ledger is closed")
        if self._log is not None and sequence <= self._log.sequence:
            return await self._found(sequence)
        future = self._waiting.get(sequence)
        if future is None:
            future = self._waiting[sequence] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_looked_at)
        self._urgent.set()
        self._woken.set()
        return await asyncio.shield(future)

    async def checkpoint(self, fresh_seconds: float = FRESH_SECONDS) -> str | None:
        """The newest signed checkpoint that may be shown: once it was, no smaller one is ever signed, whatever happens to the database.
        At most `fresh_seconds` older than the newest; None if nothing is in the ledger yet. Raises StoreError."""
        async with self._publishing:
            # A commit is in the database before it is known here, and that of another replica is known here much later.
            log = (self._log if fresh_seconds else None) or await self._newest()
            if log is None or not log.note:
                return None
            now = asyncio.get_running_loop().time()
            if self._published is not None:
                note, at = self._published
                if note == log.note or (now - at < fresh_seconds and note.startswith(f"{log.origin}\n")):
                    return note
            await asyncio.to_thread(self._anchor.write, log.note.encode(), durable=True)
            self._published = log.note, now
            return log.note

    async def begin_anew(self, signed: checkpoints.Checkpoint | None) -> None:
        """Close the log that grows and begin one of another name, which cites what was signed of the old one last: `signed`, or what the
        database has. For a database that lacks what others have seen. Raises StoreError."""
        old = await self._newest()
        kept = checkpoints.read(notes.read(old.note.encode()).text) if old is not None and old.note else None
        cited = signed if kept is None or (signed is not None and (signed.origin != kept.origin or signed.size > kept.size)) else kept
        if cited is None:
            raise StoreError("there is no log whose place a new one could take")
        now = self._clock.now()
        number, sequence = (old.number + 1, old.sequence) if old else (1, 0)
        taken, stamp = {cited.origin, *(log.origin for log in await self._store.logs())}, int(now)
        while (origin := f"{self._origin}/{stamp}") in taken:
            stamp += 1
        log = Log(origin, number, follows(cited), sequence=sequence, version=1, updated=now)
        text = f'{{"follows":{_json(cited)},"kept":{_json(kept)},"origin":"{log.origin}","v":1,"what":"{telemetry.LEDGER_BEGUN}"}}'
        fact = Evidence(
            telemetry.LEDGER_BEGUN, None, None, None, None, now, detail={"log": log.origin, "follows": cited.origin}, entry=text
        )
        expects = (Expect(Log, log.origin, None), *((Expect(Log, old.origin, old.version),) if old else ()))
        closed = (replace(old, version=old.version + 1, updated=now),) if old else ()  # who is extending it meets a conflict
        if isinstance(await self._commit(Changes(expects=expects, saves=(*closed, log), evidence=(fact,))), Conflict):
            raise StoreError("the log was extended at the moment at which a new one was to begin; try again")
        self._log = self._run = None
        telemetry.log.error("ledger begun anew", log=log.origin, follows=cited.origin, signed=cited.size, kept=kept.size if kept else 0)

    async def close(self) -> None:
        """Number what is left, then stop; who still waits is told that the ledger is closed."""
        self._closed = True
        await stopped(self._task)
        try:
            while await self._extend():
                pass
        except ConnectorError as error:  # the next start goes on with it
            telemetry.log.warning("ledger left behind", reason=error.message)
        self._refuse(StoreError("the ledger is closed"))

    # what was signed before

    def _newest_of(self, stands: Sequence[bytes]) -> checkpoints.Checkpoint | None:
        """The checkpoint of ours that was signed last, among notes in the order of writing that may be torn."""
        found = []
        for note in stands:
            try:
                found.append(self.read_own(note))
            except ProofRefused as refused:
                telemetry.log.warning("ledger anchor torn", reason=refused.message)
        return max((each for each in found if each.origin == found[-1].origin), key=lambda each: each.size, default=None)

    def keys(self) -> list[bytes]:
        """Our public keys, those that have ended too: what the checkpoints of our logs are verified by."""
        return [key.public for key in self._identity.keys(self._identity.own.id)]

    def read_own(self, note: bytes) -> checkpoints.Checkpoint:
        """What a checkpoint says that one of our keys has signed. Raises ProofRefused."""
        origin = notes.read(note).text.partition("\n")[0]
        return checkpoints.open(note, origin, [notes.VerifierKey(origin, key) for key in self.keys()]).checkpoint

    async def _continues(self, log: Log | None, signed: checkpoints.Checkpoint | None, *, lost: bool) -> bool:
        """Whether what the database has continues everything that was ever signed, as far as anybody here knows."""
        if log is None or not log.size:
            return signed is None or (log is not None and bool(log.follows) and log.follows == follows(signed))
        if signed is None:
            return not lost
        if signed.origin != log.origin:
            return log.follows == follows(signed)
        return signed.size <= log.size and (await tree_of(self._store, log, signed.size)).root == signed.root

    # numbering

    async def _work(self) -> None:
        failures = 0
        while True:
            await self._woken.wait()
            await self._linger(max(LINGER_SECONDS, self._extended_at + APART_SECONDS - perf_counter()))
            self._woken.clear()
            self._urgent.clear()
            try:
                while await self._extend():
                    pass
                self.fault, failures = None, 0
            except Exception as error:
                failures += 1
                commit_failures.inc()
                self._log = None
                self.fault = f"the ledger cannot be extended: {type(error).__name__}; the log has the details"
                telemetry.log.error("ledger failed", failures=failures, exc_info=error)
                self._refuse(StoreError("the ledger cannot be extended now, so nothing is acknowledged; try again later"))
                self._woken.set()
                await self._linger(pause_seconds(failures))

    async def _linger(self, seconds: float) -> None:
        """Wait for more to come, but for nobody who waits for a number."""
        try:
            async with asyncio.timeout(seconds):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _extend(self) -> bool:
        """Number the next rows; whether there may be more of them."""
        started, log = perf_counter(), self._log or await self._newest()
        now = self._clock.now()
        if log is None:
            log = Log(self._origin, 1)
        elif log.holder not in ("", self._holder) and now < log.until:
            await self._watch(log, log.until - now)
            return False
        rows = await self._store.unnumbered(log.sequence, GROUP_AT_MOST)
        if not rows:
            await self._remember(log)
            self._pending, self._log = 0, log if log.version else None
            await self._tell(log, {})
            return False
        later, subtrees = self._extended(log, rows, now)
        runs = await self._runs(log, [sequence for sequence, _ in rows])
        expect = Expect(Log, log.origin, log.version or None)
        if isinstance(await self._store.commit(Changes(expects=(expect,), saves=(later, *runs, *subtrees))), Conflict):
            self._log = self._run = None  # somebody else was here: look again
            return True
        await self._remember(later)
        self._log, self._run, self._epoch = later, runs[-1], later.epoch
        self._pending = max(0, self._pending - len(rows))
        entries_total.inc(len(rows))
        tree_size.set(later.size)
        checkpoint_at.set(now)
        self._extended_at = perf_counter()
        commit_seconds.observe(self._extended_at - started)
        await self._tell(later, {sequence: index for index, (sequence, _) in enumerate(rows, log.size)} if self._waiting else {})
        return len(rows) == GROUP_AT_MOST

    def _extended(self, log: Log, rows: Sequence[tuple[int, bytes]], now: float) -> tuple[Log, list[Subtree]]:
        """The log with these rows, signed, and the nodes that became full."""
        subtrees: list[Subtree] = []

        def keep(level: int, index: int, node: bytes) -> None:
            if level and level % TILE_LEVELS == 0:
                subtrees.append(Subtree(log.number, level, index, node))

        tree = Frontier(log.size, log.frontier).extend((leaf for _, leaf in rows), keep)
        checkpoint = checkpoints.Checkpoint(log.origin, tree.size, tree.root, (log.follows,) if log.follows else ())
        note = checkpoints.sign(checkpoint, (self._signer(log.origin),)).decode()
        held = log.holder == self._holder and log.epoch == self._epoch
        return replace(
            log,
            size=tree.size,
            frontier=tree.hashes,
            note=note,
            sequence=rows[-1][0],
            holder=self._holder,
            epoch=log.epoch if held else log.epoch + 1,
            until=now + LEASE_SECONDS,
            version=log.version + 1,
            updated=now,
        ), subtrees

    async def _runs(self, log: Log, sequences: Sequence[int]) -> list[Numbered]:
        """The runs that these rows make, the last known one made longer where they follow it."""
        last = self._run if self._log is not None else await self._store.newest_numbered(log.number)
        if last is not None and (last.log != log.number or last.sequence + last.count != sequences[0]):
            last = None
        run, runs = last or Numbered(log.number, log.size, sequences[0], 0), []
        count = run.count
        for index, sequence in enumerate(sequences, log.size):
            if run.sequence + count != sequence:
                runs.append(replace(run, count=count))
                run, count = Numbered(log.number, index, sequence, 0), 0
            count += 1
        return [*runs, replace(run, count=count)]

    async def _newest(self) -> Log | None:
        logs = await self._store.logs()
        return logs[-1] if logs else None

    async def _watch(self, log: Log, seconds: float) -> None:
        """Somebody else extends the log: see how far it is, and come back when the lease is over, or sooner if somebody waits."""
        self._log = None
        await self._remember(log)
        await self._tell(log, {})
        later = min(seconds, ASK_SECONDS) if self._waiting else seconds
        asyncio.get_running_loop().call_later(max(later, ASK_SECONDS), self._woken.set)

    async def _remember(self, log: Log) -> None:
        """Before anybody hears of a place in this log: the file beside the database knows that the log is so long. Raises StoreError."""
        if log.note and log.note != self._remembered:
            await asyncio.to_thread(self._anchor.write, log.note.encode(), durable=False)
            self._remembered = log.note

    async def _tell(self, log: Log, indexes: Mapping[int, int]) -> None:
        """Tell those who wait for what is in the log now. `indexes` are those of the facts that have just come into it."""
        for sequence in [sequence for sequence in self._waiting if sequence <= log.sequence]:
            try:
                place = Place(log.origin, indexes[sequence]) if sequence in indexes else await self._found(sequence)
            except NotFound as error:
                self._waiting.pop(sequence).set_exception(error)
            else:
                self._waiting.pop(sequence).set_result(place)

    async def _found(self, sequence: int) -> Place:
        found = await self._store.numbered(sequence)
        if found is None:
            raise NotFound(f"the fact {sequence} is from before the ledger")
        number, index = found
        return Place(next(log.origin for log in await self._store.logs() if log.number == number), index)

    def _refuse(self, error: StoreError) -> None:
        for future in self._waiting.values():
            future.set_exception(error)
        self._waiting.clear()


def _json(cited: checkpoints.Checkpoint | None) -> str:
    return "null" if cited is None else f'{{"origin":"{cited.origin}","root":"{cited.root.hex()}","size":{cited.size}}}'


def _looked_at(future: asyncio.Future[Place]) -> None:
    """Whoever waited may be gone; the error is logged where it happens."""
    if not future.cancelled():
        future.exception()
