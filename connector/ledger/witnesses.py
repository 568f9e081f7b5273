"""Our log before its witnesses: every counterparty is asked to cosign our newest checkpoint, while there is something between us.

Nothing is stored for it: whom we deal with stands in the facts, what he has cosigned in his `Witnessed`. After a crash both say who is
still to be asked. A peer without such an endpoint is left alone for an hour, unless an operator asks, and so is one that refuses our
checkpoint; one that only does not take who we are (its registry has our key of yesterday) is asked again soon. Who was away is asked again
without anything new between us, ever more rarely: else what we did last would stay without a witness. Operators see for whom we wait, and
why. One that remembers more of our log than our database has, and can show our signature for it, is believed, and a new log begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from urllib.parse import quote

import orjson

from connector import telemetry
from connector.errors import ConnectorError, Contradiction, EgressDenied, NotFound, PeerFailed, PeerRefused, ProofRefused, StoreError
from connector.evidence.case import AHEAD_SECONDS
from connector.lasting import stopped
from connector.ledger.reading import log_of, prove_consistency
from connector.ledger.sequencer import Commit, Sequencer
from connector.merkle import checkpoints, notes, witness
from connector.ports import Clock, Identity, Participant, Peer, Reply, Store
from connector.records import Changes, Conflict, Evidence, Expect
from connector.records.ledger import Witnessed
from connector.remembered import pause_seconds
from connector.telemetry_metrics import Gauge
from connector.values import Value

PROTOCOL_PATH = "/dsp/2025-1"  # below the same base as the protocol stands the ledger
LEDGER_PATH = "/ledger"
SETTLE_SECONDS = 1.0  # what is said between two connectors comes in bursts: one checkpoint for all of it
PAUSE_SECONDS = 60.0  # between two checkpoints for one peer
FOREIGN_SECONDS = 3600.0  # between two looks at whether a peer has learned to witness
RECENT = 1_000  # facts that are read at the start, for whom they are about
ANSWER_BYTES_MAX = 64 * 1024
OK, CONFLICT, UNPROCESSABLE, SERVER_ERROR = 200, 409, 422, 500  # RFC 9110
LATER = frozenset({408, 425, 429})
NO_DOOR = frozenset({404, 405, 410, 501})  # nothing is there, or nothing that takes checkpoints
OTHER_TREE = frozenset({CONFLICT, UNPROCESSABLE})  # it has seen another tree of ours
NOT_US = frozenset({401, 403})  # it is there, and does not take who we are
WORDS_MAX = 200  # characters of what a peer says that are repeated
AGAIN_SECONDS_MAX = 3840.0  # before somebody is asked again of whom nothing new came
OWN = frozenset({telemetry.WITNESSED, telemetry.CONTRADICTED, telemetry.LEDGER_BEGUN})  # what exchanging says calls for no exchange

cosigned_at = Gauge("qiao_ledger_last_cosignature_timestamp_seconds", "When a peer last cosigned our ledger")


class Waiting(Value):
    """Why a peer has not cosigned what it was asked to: the `reason`, `since` when (POSIX seconds), and after how many `times`."""

    since: float
    reason: str
    times: int


class Witnesses:
    """Asks peers for cosignatures of our log, while it is `on`."""

    def __init__(self, store: Store, commit: Commit, clock: Clock, identity: Identity, peer: Peer, sequencer: Sequencer) -> None:
        self._store, self._commit, self._clock, self._identity = store, commit, clock, identity
        self._peer, self._sequencer = peer, sequencer
        self._due: dict[str, float] = {}  # participant -> when, on the loop's clock
        self._newest: dict[str, int] = {}  # participant -> the last fact that its checkpoint has to be over
        self._last = 0  # fact of all
        self._not_before: dict[str, float] = {}
        self._asked: dict[str, list[asyncio.Future[bool]]] = {}  # by operators, who wait for what becomes of it
        self._changed = asyncio.Event()
        self.waiting: dict[str, Waiting] = {}  # participant -> why it has not cosigned
        self.on = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find out who was still to be asked when an earlier process ended, and begin."""
        logs = await self._store.logs()
        newest = logs[-1] if logs else None
        if newest is not None and newest.size:
            known = {row.peer: row.size for row in await self._store.witnesses() if row.origin == newest.origin}
            facts = await self._store.events(max(0, newest.sequence - RECENT), RECENT)
            self._note(facts)
            for peer in [peer for peer in self._due if known.get(peer) == newest.size]:
                del self._due[peer]
        self._task = asyncio.create_task(self._work(), name="witnesses")

    def committed(self, _changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Told by the journal after each commit."""
        self._note(evidence)

    def _note(self, facts: Sequence[Evidence]) -> None:
        for fact in facts:
            self._last = fact.sequence
            if fact.peer is None or fact.what in OWN or not self.on:
                continue
            self._newest[fact.peer] = fact.sequence
            at = max(asyncio.get_running_loop().time() + SETTLE_SECONDS, self._not_before.get(fact.peer, 0.0))
            if at < self._due.get(fact.peer, inf):
                self._due[fact.peer] = at
                self._changed.set()

    async def exchange(self, peer: Participant) -> Witnessed:
        """Have `peer` cosign our newest checkpoint now, in turn with what comes by itself; returns what it has cosigned. Raises
        Contradiction if that is switched off, or nothing was cosigned because it is no witness, a new log has begun, or nothing is in
        ours yet; PeerRefused if it takes checkpoints and not ours, PeerFailed, EgressDenied, StoreError."""
        if not self.on:
            raise Contradiction("checkpoints are not exchanged here: `ledger.witness` is false in the settings")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._asked.setdefault(peer.id, []).append(done)
        self._newest[peer.id], self._due[peer.id] = self._last, loop.time()
        self._changed.set()
        if not await done:
            raise Contradiction(f"`{peer.name}` cosigns no ledgers: it has no such address, or has that switched off")
        logs = await self._store.logs()
        row = await self._store.witnessed(peer.id, logs[-1].origin) if logs else None
        if row is None:
            raise Contradiction(f"`{peer.name}` has cosigned nothing: our ledger is empty, or has just begun anew")
        return row

    async def close(self) -> None:
        await stopped(self._task)
        _tell([done for asked in self._asked.values() for done in asked], StoreError("the ledger is closed"))
        self._asked.clear()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            ready = [peer for peer, at in self._due.items() if at <= loop.time()]
            for id in ready:
                del self._due[id]
                self._not_before[id] = loop.time() + PAUSE_SECONDS
                pause = await self._pause_after(id)
                self._not_before[id] = loop.time() + pause
                if (waiting := self.waiting.get(id)) is not None and self.on:
                    again = loop.time() + max(pause, pause_seconds(waiting.times, PAUSE_SECONDS, AGAIN_SECONDS_MAX))
                    self._due[id] = min(again, self._due.get(id, inf))
            try:
                async with asyncio.timeout_at(min(self._due.values(), default=None)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _pause_after(self, id: str) -> float:
        """Ask one peer, and tell operators who wait for it; how many seconds it is to be left alone from now on."""
        asked = self._asked.pop(id, [])
        outcome: bool | Exception = StoreError("the ledger is closed")
        try:
            outcome = await self._over_all(id)
        except PeerRefused as error:
            log = telemetry.log.error if error.status in OTHER_TREE else telemetry.log.warning
            log("ledger refused by a witness", peer=id, status=error.status, reason=error.message)
            outcome = error
            return PAUSE_SECONDS if error.status in NOT_US else FOREIGN_SECONDS
        except (PeerFailed, EgressDenied) as error:
            telemetry.log.info("ledger not cosigned", peer=id, reason=error.message)
            outcome = error
        except Exception as error:
            telemetry.log.error("witness failed", peer=id, exc_info=error)
            outcome = error
        finally:
            self._remember(id, outcome)
            _tell(asked, outcome)
        return FOREIGN_SECONDS if outcome is False else PAUSE_SECONDS

    def _remember(self, id: str, outcome: bool | Exception) -> None:
        before = self.waiting.pop(id, None)
        if isinstance(outcome, Exception):
            reason = getattr(outcome, "message", f"{type(outcome).__name__}; the log has the details")
            self.waiting[id] = Waiting(before.since if before else self._clock.now(), reason, before.times + 1 if before else 1)

    async def _over_all(self, id: str) -> bool:
        """Ask a peer for a cosignature over all that there is between us; whether it is a witness at all. Raises as `ask`."""
        known = self._identity.find(id)
        if known is None or base_of(known) is None or id == self._identity.own.id:
            return False
        if (newest := self._newest.pop(id, None)) is not None:
            with suppress(NotFound):  # from before the ledger
                await self._sequencer.index_of(newest)
        return await self.ask(known)

    async def ask(self, peer: Participant) -> bool:
        """Have `peer` cosign our newest checkpoint; whether it is a witness at all. Raises PeerRefused if it is one and does not take us or
        our checkpoint, PeerFailed, EgressDenied, StoreError."""
        note = await self._sequencer.checkpoint(fresh_seconds=0.0)
        if note is None:
            return True
        ours = checkpoints.read(notes.read(note.encode()).text)
        log = await log_of(self._store, ours.origin)
        row = await self._store.witnessed(peer.id, ours.origin)
        old = row.size if row else 0
        if old == ours.size:
            return True
        for _ in range(2):  # a second time if the peer remembers another checkpoint than we do
            proof = await prove_consistency(self._store, log, old, ours.size)
            reply = await self._send("POST", peer, "/witness/add-checkpoint", witness.write(old, proof, note.encode()))
            if reply.status == OK:
                await self._keep(peer, ours, note, reply.body, row)
                return True
            if reply.status in LATER or reply.status >= SERVER_ERROR:
                raise PeerFailed(f"`{peer.name}` answers a checkpoint with {reply.status}")
            if reply.status in NO_DOOR:
                telemetry.log.info("no witness", peer=peer.id, status=reply.status)
                return False
            size = _size(reply)
            if size is None:
                raise _refused(peer, reply)
            if size > ours.size:
                await self._look_back(peer, ours)
                return True
            old = size
        return True

    async def _keep(self, peer: Participant, ours: checkpoints.Checkpoint, note: str, answer: bytes, row: Witnessed | None) -> None:
        keys = [notes.VerifierKey(peer.id, key.public, notes.Kind.COSIGNATURE) for key in self._identity.keys(peer.id)]
        now = self._clock.now()
        try:
            cosigned = witness.cosigned(note.encode(), answer, keys).decode()
            self._demand_now(peer, notes.verify(notes.read(cosigned.encode()), keys), now)
        except ProofRefused as refused:
            fix = "; read its self-description again, it may have a new key" if refused.code == "signature-untrusted" else ""
            raise PeerFailed(f"`{peer.name}` answers a checkpoint with what is no cosignature of it: {refused.message}{fix}") from refused
        later = Witnessed(peer.id, ours.origin, ours.size, ours.root, cosigned, None, row.version + 1 if row else 1, now)
        expect = Expect(Witnessed, later.key, row.version if row else None)
        if not isinstance(await self._commit(Changes(expects=(expect,), saves=(later,))), Conflict):
            cosigned_at.set(now)

    def _demand_now(self, peer: Participant, found: Sequence[notes.Verified], now: float) -> None:
        """Raise ProofRefused for a cosignature of another time than `now`, or by a key that did not count then: evidence of ours with it
        would be refused, so a peer could spoil that."""
        for each in found:
            at = each.at or 0
            second = (at, at + 1)  # a whole one, in which it was made
            if abs(at - now) > AHEAD_SECONDS:
                raise ProofRefused(f"it says a time {at - now:+.0f} s from ours; compare the clocks of both sides", "cosignature-time")
            if not any(key.public == each.key.public and any(map(key.valid, second)) for key in self._identity.keys(peer.id)):
                raise ProofRefused("the key that it is by does not count now", "cosignature-ended")

    async def _look_back(self, peer: Participant, ours: checkpoints.Checkpoint) -> None:
        """A peer says that our log was larger once. If it can show that we have signed that, the database is older than what we have told:
        a new log begins."""
        reply = await self._send("GET", peer, f"/witness/checkpoint?origin={quote(ours.origin, safe='')}", None)
        try:
            signed = self._sequencer.read_own(reply.body)
        except ProofRefused as refused:
            raise PeerFailed(
                f"`{peer.name}` says that it knows a larger ledger of ours and does not show it: {refused.message}"
            ) from refused
        if signed.origin == ours.origin and signed.size > (await log_of(self._store, ours.origin)).size:
            await self._sequencer.begin_anew(signed)

    async def _send(self, method: str, peer: Participant, path: str, body: bytes | None) -> Reply:
        headers = {"authorization": await self._identity.mint(peer.id)}
        if body is not None:
            headers["content-type"] = witness.TEXT_TYPE
        return await self._peer.send(method, f"{base_of(peer)}{path}", headers=headers, body=body, limit_bytes=ANSWER_BYTES_MAX)


def _tell(asked: Sequence[asyncio.Future[bool]], outcome: bool | Exception) -> None:
    for done in asked:
        if done.done():
            continue  # who asked is gone
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)


def base_of(participant: Participant) -> str | None:
    """Where the ledger of a participant stands, if its connector may be one of ours."""
    protocol = participant.protocol or ""
    return protocol.removesuffix(PROTOCOL_PATH) + LEDGER_PATH if protocol.endswith(PROTOCOL_PATH) else None


def _refused(peer: Participant, reply: Reply) -> PeerRefused:
    words = _words(reply)
    said = f": {words}" if words else ""
    if reply.status in NOT_US:
        text = f"`{peer.name}` does not take who we are (status {reply.status}{said}); have its operator read our self-description again"
    else:
        text = f"`{peer.name}` cosigns ledgers, and refuses this checkpoint of ours (status {reply.status}{said})"
        if reply.status in OTHER_TREE:
            text += (
                "; what it has seen of our ledger is not what we have, as after a database was restored together with the file of the last"
                " checkpoint (`.ledger` beside it): a start without that file begins a new log, which it takes; if it suspects us, its"
                " operator has to forgive that (`connector ledger forgive`)"
            )
    return PeerRefused(text, status=reply.status)


def _words(reply: Reply) -> str:
    """What a peer says in an answer: the `detail` of a problem document (RFC 9457), or plain text."""
    try:
        said = orjson.loads(reply.body)
        text = said.get("detail", "") if isinstance(said, dict) else ""
    except orjson.JSONDecodeError:
        text = reply.body.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in str(text)[:WORDS_MAX]).strip()


def _size(reply: Reply) -> int | None:
    """The size that a witness says it knows (409 with `text/x.tlog.size`), or None."""
    if reply.status != CONFLICT or reply.headers.get("content-type", "").partition(";")[0].strip() != witness.SIZE_TYPE:
        return None
    try:
        return checkpoints.read_decimal(reply.body.decode("ascii").removesuffix("\n"), "witness-size", "the size")
    except (ConnectorError, UnicodeDecodeError):
        return None
