"""Data without an end: what comes is hashed leaf by leaf, compared with the tree that the provider signs, and appended to a file.

The tree grows here from our own hashes alone: its next signed state has to be the one that we come to, which proves the bytes and that the
log goes on as it was. After a restart we go on behind what we have signed for. Whatever lies in the file behind that comes again; and the
tree begins anew with hashes that the provider keeps, and that have to give the root of our last receipt. Nothing is kept beside the file.

What has come and is not proven yet is held back, at most a window of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from itertools import accumulate
from typing import Any, Final

from connector import telemetry
from connector.errors import ConnectorError, MeterRefused, PeerFailed, ProofRefused, SinkFailed
from connector.intake.access import Access
from connector.intake.account import Account
from connector.intake.attempts import PROGRESS_SECONDS, Described, Downloaded, Progress, request_headers
from connector.intake.beside import Beside, code_of
from connector.intake.heads import Unfit, read_head
from connector.intake.live_promise import Goal, Held, LivePromise, State, told_of
from connector.intake.patience import Patience
from connector.intake.promise import Broken
from connector.lanes.counting import live_records
from connector.lanes.hashing import leaf_hashes
from connector.lasting import stopped
from connector.merkle import checkpoints
from connector.merkle.notes import VerifierKey
from connector.merkle.tiles import CheckedTiles, Tile, edge, needed, nodes_from
from connector.merkle.tree import Frontier, frontier_at
from connector.metering import live, passed
from connector.metering.content import read_sealed
from connector.metering.objects import WINDOW_BYTES, Checkpoint, Manifest
from connector.metering.ranges import covers
from connector.ports import Download as Incoming
from connector.ports import Peer, VerificationKey
from connector.ports.sinks import Enough, Sink
from connector.records import Pull
from connector.values import replace

IDLE_SECONDS: Final = 86_400.0  # of the bytes: a source may be quiet. Whether the provider is there is heard from its checkpoints
SIGNED_SECONDS: Final = 30.0  # without a byte of what the provider has signed, and so has sent: then the line is one that nobody closes
LAST_SECONDS: Final = 5.0  # for a receipt that is under way as we stop
HELD_BYTES_MAX: Final = 64 * 1024 * 1024  # of a window, whatever the provider signs: it is held in memory, for each transfer
WRONG_MAX: Final = 2  # times that the same leaves may come with other bytes than were signed


class Following:
    """One such download, into `sink` behind `before_bytes` that earlier transfers have brought. `keys` are the provider's of now."""

    def __init__(
        self,
        pull: Pull,
        sink: Sink,
        promise: LivePromise,
        access: Access,
        peer: Peer,
        keys: Callable[[], Iterable[VerificationKey]],
        now: Callable[[], float],
        progress: Progress,
        patience: Patience,
        enough: Enough,
        *,
        before_bytes: int,
        durable: bool,
    ) -> None:
        self._pull, self._sink, self._promise, self._access, self._peer = pull, sink, promise, access, peer
        self._beside, self._keys, self._now = Beside(access, peer), keys, now
        self._progress, self._patience, self._enough, self._durable = progress, patience, enough, durable
        enough.keep = self._keep
        self._base = before_bytes
        self._etag = live.write_etag(promise.header.hash, promise.header.chunk_bytes)
        self._state, self._frontier = State(), Frontier().append(promise.header.hash)
        self._last = b""
        self._held = Held()
        self._wrong = self._resumed = 0
        self._since, self._nanoseconds, self._reported = 0, 0, 0.0
        self._stages: tuple[str, ...] | None = None  # that the data pass at the provider, once it has said so
        self._account: Account | None = None
        self._heard = False  # from the provider, by what it signs: a source may be quiet for any time
        self._ends_at: int | None = None  # so many leaves, by what it has signed: then this is all
        self._cut_off = False  # by the end of the transfer, and nobody has signed that this is all

    def measured(self) -> int:
        """The microseconds in which data flowed."""
        running = time.monotonic_ns() - self._since if self._since else 0
        return (self._nanoseconds + running) // 1000

    async def run(self, account: Account, described: Described | None) -> Downloaded:
        """Returns once enough has come, or no more comes; all of it is signed for. Raises as `Downloads.fetch`."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open(account)
            writing = asyncio.create_task(account.run(), name=f"receipts {self._pull.transfer}")
            following = asyncio.create_task(self._follow(described), name=f"data {self._pull.id}")
            tasks = [writing, following, asyncio.create_task(self._enough.wait(self._now), name=f"end {self._pull.id}")]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._sign_last(account, tasks)
            while not self._signed_for(account):
                try:
                    await account.complete()
                except PeerFailed as failed:
                    await self._patience.bear(failed, 0)
        except ConnectorError as error:
            await self._sign_last(account, tasks, "sink" if isinstance(error, SinkFailed) else None)
            raise
        except asyncio.CancelledError:
            if self._patience.over:  # the transfer ends, we do not: what has come until now is signed for
                await self._sign_last(account, tasks)
            raise
        finally:
            await stopped(*tasks)
            if described is not None:
                await described.stack.aclose()
        await self._sink.cut(self._end)
        await self._report(force=True)
        await self._sink.resume()
        known = self._sink.digest(), True, False, self._resumed, 0, self._etag, self._durable
        return Downloaded(self._end, *known, open_ended=self._cut_off)

    async def _keep(self) -> None:
        if self._account is not None and self._state.leaves > 1:
            await self._account.signed(((1, self._state.leaves),))

    def _signed_for(self, account: Account) -> bool:
        """Whether both sides have a receipt for all that stays in the file: its token ends with the transfer."""
        stored, all_of_it = account.stored, ((1, self._state.leaves),) if self._state.leaves > 1 else ()
        return covers(account.told, all_of_it) and bool(stored.ack or not stored.receipt)

    @property
    def _end(self) -> int:
        """Where the proven part of the file ends."""
        return self._base + self._state.size_bytes

    async def _open(self, account: Account) -> None:
        """Take up the account, the tree and the file where they stand."""
        while True:
            try:
                await account.open()
                await self._take_up(account)
            except PeerFailed as failed:
                await self._patience.bear(failed, 0)
            else:
                self._account = account
                return

    async def _take_up(self, account: Account) -> None:
        if (told := told_of(account.stored)) is not None:
            state, signed = told
            self._frontier = await self._grown(state.leaves, signed)
            self._state = replace(state, checkpoint=Checkpoint(state.leaves, self._frontier.root))
            self._promise.newest = signed
            self._promise.states[state.leaves] = self._state
        state = self._state
        if self._sink.size_bytes < self._end:
            lost = self._end - self._sink.size_bytes
            telemetry.log.warning("live data lost", pull=self._pull.id, lost_bytes=lost, reason="signed for, and not in the file any more")
            self._base = self._sink.size_bytes - state.size_bytes
        self._resumed += state.leaves > 1
        self._last = await self._sink.read(self._end - 1, 1) if state.size_bytes and self._end else b""
        await self._sink.cut(self._end)
        if state.leaves > 1:
            account.verified(((1, state.leaves),))
        await self._report(force=True)

    async def _grown(self, leaves: int, signed: Checkpoint) -> Frontier:
        """The tree of the first leaves of the one that we have signed for, from the provider's tiles. Raises Broken if they are of another
        one."""
        checked, found = CheckedTiles(signed.size, signed.root), dict[Tile, bytes]()
        try:
            edges = edge(signed.size)
            found |= dict(zip(edges, await asyncio.gather(*(self._beside.tile(tile) for tile in edges)), strict=True))
            checked.enter(found)
            for wanted in needed(signed.size, lambda nodes: frontier_at(leaves, nodes)):
                for tile in checked.way(wanted):
                    found[tile] = checked.take(tile, await self._beside.tile(tile))
            return frontier_at(leaves, nodes_from(signed.size, found.__getitem__))
        except ProofRefused as error:
            raise Broken(f"the provider's log does not begin with what it had signed before: {error.message}", error.code) from None

    async def _follow(self, described: Described | None) -> None:
        """One answer after the other. Returns once enough has come, or the transfer is over."""
        while not self._has_enough:
            before, self._heard = self._state.size_bytes + self._held.size_bytes, False
            try:
                await self._go(described)
            except PeerFailed as failed:
                if self._patience.over and not isinstance(failed, Broken):
                    self._cut_off = True
                    return
                moved_bytes = self._state.size_bytes + self._held.size_bytes - before
                hindered = self._account.hindered(failed) if self._account is not None else failed
                await self._patience.bear(hindered, max(moved_bytes, int(self._heard)))
            finally:
                described = None

    @property
    def _has_enough(self) -> bool:
        most = self._enough.most_bytes
        return self._ends_at == self._state.leaves or (most is not None and self._end >= most)

    async def _go(self, described: Described | None) -> None:
        """Read one answer. Raises PeerFailed for a cut, Broken."""
        async with self._answer(described) as incoming:
            self._since = time.monotonic_ns()
            coming: asyncio.Future[bytes] | None = None
            ahead: asyncio.Task[Goal | None] = asyncio.create_task(self._next(self._state), name="checkpoint")
            goal: Goal | None = None
            try:
                pieces = incoming.chunks()
                while not self._has_enough:
                    waits: set[asyncio.Future[Any]] = {ahead} if goal is None else set()
                    if self._held.size_bytes < (WINDOW_BYTES if goal is None else goal.size_bytes):
                        coming = coming or asyncio.ensure_future(anext(pieces, b""))
                        waits.add(coming)
                    timeout = None if goal is None else SIGNED_SECONDS
                    done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        raise PeerFailed(f"what the provider has signed did not come for {SIGNED_SECONDS:g} s")
                    if goal is None and ahead.done():
                        goal = ahead.result()
                        at = self._state if goal is None else replace(self._state, leaves=goal.checkpoint.size, checkpoint=goal.checkpoint)
                        ahead = asyncio.create_task(self._next(at), name="checkpoint")
                    if coming is not None and coming.done():
                        piece, coming = coming.result(), None
                        if not piece:
                            raise PeerFailed("the provider ended its answer, which has no end")
                        self._held.add(piece)
                    if goal is not None and self._held.size_bytes >= goal.size_bytes:
                        body, rest = self._held.cut(goal.size_bytes)  # what is wrong comes again
                        await self._prove(body, goal)
                        self._held.add(rest)
                        goal = None
            finally:
                self._nanoseconds, self._since = self._nanoseconds + time.monotonic_ns() - self._since, 0
                await stopped(ahead, coming)

    @asynccontextmanager
    async def _answer(self, described: Described | None) -> AsyncIterator[Incoming]:
        """An answer with the bytes behind those that are here."""
        offset = self._state.size_bytes + self._held.size_bytes
        if described is not None and described.head is not None and described.head.first == offset == 0:
            async with described.stack:
                if described.head.validator == self._etag:
                    yield described.incoming
                    return
        elif described is not None:
            await described.stack.aclose()

        async with AsyncExitStack() as stack:

            async def call(authorization: str | None) -> Incoming:
                headers = request_headers(authorization, (f"{offset}-{live.LAST}", self._etag))
                opened = self._peer.stream("GET", self._access.endpoint, headers=headers, idle_seconds=IDLE_SECONDS)
                incoming = await stack.enter_async_context(opened)
                if incoming.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._held.size_bytes:
                    self._held.cut(0)
                    raise PeerFailed("the provider has lost what it had sent and not signed; it comes again")
                head = read_head(incoming.status, incoming.headers, offset, part=True, code=await code_of(incoming))
                if head.validator != self._etag or head.first != offset:
                    raise Unfit("the provider answered with other data than those that its manifest promises, or from another place")
                return incoming

            yield await self._access.presented(call)

    async def _next(self, state: State) -> Goal | None:
        """What the provider signs next. None if it has nothing to sign yet. Raises PeerFailed, Broken."""
        note = await self._beside.checkpoint_after(state.leaves)
        self._heard = True
        if note is None:
            return None
        origin = self._promise.manifest.log.origin
        try:
            verifiers = [VerifierKey(origin, key.public) for key in self._keys() if key.valid(self._now())]
            found = checkpoints.open(note, origin, verifiers).checkpoint
            stages = passed.read(found.extensions)
            if self._stages not in (None, stages):
                raise ProofRefused("the data have passed other stages than those before them in the same log", "checkpoint-stage")
            self._stages = stages
            if found.size == state.leaves and passed.ends(found.extensions):
                self._end_at(state, found)
                return None
            if found.size <= state.leaves:
                raise ProofRefused("the checkpoint has no more leaves than the one before", "checkpoint-older")
            listed = await self._beside.sealed(state.leaves, found.size)
            sealed = read_sealed(listed, self._promise.header.chunk_bytes)
        except (MeterRefused, ProofRefused) as error:
            raise Broken(f"what the provider has signed does not hold: {error.message}", error.code) from None
        count = found.size - state.leaves
        if sealed.leaves - 1 != count or sealed.size_bytes > min(max(self._manifest.window_bytes, WINDOW_BYTES), HELD_BYTES_MAX):
            raise Broken("the list of leaves is not that of the checkpoint, or longer than a window", "list-other")
        lengths = tuple(sealed.span(leaf, leaf + 1)[1] for leaf in range(1, count + 1))
        return Goal(lengths, sealed.size_bytes, Checkpoint(found.size, found.root))

    def _end_at(self, state: State, found: checkpoints.Checkpoint) -> None:
        """Nothing more comes behind these leaves. Raises ProofRefused if they are others."""
        known = state.checkpoint.root if state.checkpoint is not None else self._frontier.root
        if found.root != known:
            raise ProofRefused("the checkpoint that says that there is no more is of another tree", "checkpoint-other-tree")
        self._ends_at = state.leaves

    @property
    def _manifest(self) -> Manifest:
        return self._promise.manifest

    async def _prove(self, body: memoryview, goal: Goal) -> None:
        """Compare what has come with what was signed, and write it. Raises PeerFailed the first time that it is wrong, then Broken."""
        hashes, records = await asyncio.to_thread(_hashed, body, goal.lengths, self._manifest.unit, self._last)
        grown = self._frontier.extend(hashes)
        if grown.root != goal.checkpoint.root:
            await self._wrong_leaf(hashes, goal)
        await self._sink.write(self._end, body)
        state = State(goal.checkpoint.size, self._state.size_bytes + len(body), self._state.records + records, goal.checkpoint)
        self._state, self._frontier, self._last, self._wrong = state, grown, bytes(body[-1:]), 0
        told = self._account.told[-1][1] if self._account is not None and self._account.told else 1
        self._promise.states = {end: each for end, each in self._promise.states.items() if end >= told} | {state.leaves: state}
        if self._account is not None:
            self._account.verified(((1, state.leaves),))
        self._patience.well()
        await self._report()

    async def _wrong_leaf(self, hashes: list[bytes], goal: Goal) -> None:
        """Say which leaf is not the one that was signed. Raises PeerFailed, Broken."""
        self._wrong += 1
        first = self._state.leaves
        expected = await self._beside.leaves(first, goal.checkpoint.size)
        wrong = next((n for n, (got, right) in enumerate(zip(hashes, expected, strict=False)) if got != right), None)
        if wrong is not None and self._frontier.extend(expected).root == goal.checkpoint.root and self._account is not None:
            self._promise.newest = goal.checkpoint
            self._account.reject(first + wrong, hashes[wrong])
        text = f"leaf {first + (wrong or 0)} or one behind it is not what the provider has signed"
        if self._wrong >= WRONG_MAX:
            raise Broken(f"{text}, twice; the part is kept", "leaf-wrong")
        raise PeerFailed(text)

    async def _sign_last(self, account: Account, tasks: list[asyncio.Task[None]], reason: str | None = None) -> None:
        """Let the provider hear what was proven until now, or the `reason` why we stop."""
        if self._account is None:
            return
        await stopped(*tasks[1:])
        account.end()
        if tasks:
            await asyncio.wait(tasks[:1], timeout=LAST_SECONDS)
            await stopped(*tasks[:1])
        await account.last(reason)

    async def _report(self, *, force: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if force or now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            await self._progress(replace(self._pull, validator=self._etag, received_bytes=self._end))


def _hashed(body: memoryview, lengths: tuple[int, ...], unit: str, last: bytes) -> tuple[list[bytes], int]:
    """The hash of each leaf, and how many records there are."""
    ends = tuple(accumulate(lengths))
    spans = tuple(zip((0, *ends), ends, strict=False))
    records = 0
    for first, end in spans:
        records += live_records(body, unit, first, end, last)
        last = bytes(body[end - 1 : end])
    return leaf_hashes(body, spans), records
