"""Downloads of which each leaf is proven: in any order, over several connections at once, taken up after any cut.

What counts is what was compared with the content log and lies at its place. Nothing is kept beside the part that says so: after a
crash its bytes are read again and compared again, so that what the disk has lost is missed, and what it has need not come again.
A leaf that is wrong is fetched once more; if it is wrong again, the download ends and names it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from connector import telemetry
from connector.errors import ConnectorError, PeerFailed, ProofRefused, SinkFailed
from connector.intake.access import Access
from connector.intake.account import Account
from connector.intake.attempts import PROGRESS_SECONDS, Described, Downloaded, Progress, request_headers, stated
from connector.intake.beside import code_of
from connector.intake.heads import Head, NotNow, Unfit, read_head
from connector.intake.legs import Cut, Leg, Window, leg
from connector.intake.patience import Patience
from connector.intake.promise import Broken, Promise
from connector.lanes.counting import records_in
from connector.lanes.hashing import batch_bytes, leaf_hashes, spans_of
from connector.lasting import stopped
from connector.metering.content import records_of
from connector.metering.ranges import Ranges, covers, union, without
from connector.metering.spans import Part
from connector.ports import Download as Incoming
from connector.ports import Peer
from connector.ports.sinks import Movers, Placed
from connector.records import Pull
from connector.values import Value, replace

AHEAD = 3  # windows that a leg has been given beside the one that arrives: their hashes are here before their bytes
WINDOW_BYTES = 16 * 1024 * 1024  # handed to a leg at once; also the least that one of several legs asks for
READ_BYTES = 1024 * 1024  # of a part that is looked at again
CHEAP_BYTES = 64 * 1024 * 1024  # up to here the digest of the whole is compared too, although every leaf is proven
SOURCE_FAILED = "source-failed"  # the code of an answer to who asks for data that cannot be read, or are not what was published
AT_ONCE_BYTES = 1024 * 1024  # as sockets hold: they have left before a first receipt could be answered
LAST_SECONDS = 5.0  # for a receipt about a wrong leaf: whoever stops does not wait long


class Road(Value):
    """By what the data come: `parallel` connections, each given up after `idle_seconds` without a byte. They are to be `durable` in the
    end: to outlive a loss of power."""

    access: Access
    peer: Peer
    movers: Movers
    parallel: int
    idle_seconds: float
    durable: bool


class Proven:
    """One such download, of a `part` of the data. `held` are leaves that earlier transfers have brought and that were receipted there."""

    def __init__(
        self, pull: Pull, sink: Placed, road: Road, promise: Promise, part: Part, progress: Progress, patience: Patience, held: Ranges
    ) -> None:
        self._pull, self._part = replace(pull, validator=promise.etag, size_bytes=part.length), part
        self._sink, self._road, self._progress, self._patience, self._held = sink, road, progress, patience, held
        self._promise, self._layout = promise, promise.layout
        self._cut = Cut(promise.layout.chunk_bytes, promise.manifest.unit)
        self._expected = stated(pull) if pull.validator == promise.etag else None
        self._verified: Ranges = ()
        self._taken: Ranges = ()  # by a leg that is under way
        self._windows: set[Window] = set()
        self._wrong: set[int] = set()
        self._records: dict[int, int] = {}  # by leaf, as `records_in`
        self._account: Account | None = None
        self._opened = asyncio.Event()
        self._resumed = 0
        self._flowing, self._since, self._nanoseconds = 0, 0, 0

    def records(self, first: int, end: int) -> int:
        """The records that end in these leaves."""
        return records_of((self._records.get(leaf, 0) for leaf in range(first, end)), self._cut.unit)

    def look(self) -> None:
        """Take up what has come by now."""
        for window in tuple(self._windows):
            self._see(window)

    def measured(self) -> int:
        """The microseconds in which data flowed."""
        running = time.monotonic_ns() - self._since if self._flowing else 0
        return (self._nanoseconds + running) // 1000

    async def run(self, account: Account, described: Described | None) -> Downloaded:
        """Returns when every leaf is right and acknowledged, and the file has to be given its name. Raises as `Downloads.fetch`."""
        tasks: list[asyncio.Task[None]] = []
        if described is not None and described.head is not None and described.head.validator == self._promise.etag:
            self._expected = described.head.sha256 if self._part.whole else None
        try:
            await self._look_again()
            await self._sink.reserve(self._bytes(without(self._part.leaves, self._verified)))
            account.verified(self._own)
            writing = asyncio.create_task(self._write(account, self._is_here(described)), name=f"receipts {self._pull.transfer}")
            fetching = asyncio.create_task(self._fetch(described), name=f"data {self._pull.id}")
            tasks = [writing, fetching, asyncio.create_task(self._watch(), name=f"progress {self._pull.id}")]
            await _until(fetching, tasks)
            account.end()
            await writing
            await self._patiently(account.complete)
            if missing := without(self._part.leaves, union(self._held, account.told)):
                raise PeerFailed(f"the leaves {missing} came and were signed for by nobody; the part is kept")
        except ConnectorError as error:
            await self._sign_last(account, tasks, "sink" if isinstance(error, SinkFailed) else None)
            if self._verified:  # the first report of it may have been on its way, and a part of which nobody knows is not kept
                await self._report()
            raise
        except asyncio.CancelledError:
            if self._patience.over:  # the transfer ends, we do not: what has come until now is signed for
                await self._sign_last(account, tasks)
            raise
        finally:
            await stopped(*tasks)
            if described is not None:
                await described.stack.aclose()
            await self._promise.leaves.close()
        await self._report()
        digest, known = await self._digest(), self._expected is not None
        size_bytes, durable, leaves_bytes = self._part.length, self._road.durable, self._bytes(self._part.leaves)
        return Downloaded(size_bytes, digest, True, known, self._resumed, 0, self._promise.etag, durable, leaves_bytes=leaves_bytes)

    async def _patiently(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await step()
            except PeerFailed as failed:
                await self._patience.bear(failed, 0)

    def _is_here(self, described: Described | None) -> bool:
        """Whether all that is missing has come, or is about to, by the answer that there is: one receipt opens the account and says so."""
        missing = without(self._part.leaves, self._verified)
        return described is not None and described.head is not None and self._bytes(missing) <= AT_ONCE_BYTES

    async def _write(self, account: Account, at_once: bool) -> None:
        """Open the account, with the receipt over all that comes `at_once` if it does, and write its receipts."""
        await self._patiently(partial(account.open, first=not at_once))
        self._account = account
        account.verified(self._own)
        self._opened.set()
        await account.run()

    async def _sign_last(self, account: Account, tasks: list[asyncio.Task[None]], reason: str | None = None) -> None:
        """Let the provider hear what was verified until now, which leaf was wrong, or the `reason` why we stop."""
        if tasks:
            writing, *others = tasks
            await stopped(*others)
            account.end()
            if not writing.done():
                await asyncio.wait({writing}, timeout=LAST_SECONDS)
            await stopped(writing)
        if self._opened.is_set():
            await account.last(reason)

    async def _look_again(self) -> None:
        """Compare what an earlier attempt has left. Raises SinkFailed, Broken, PeerFailed."""
        if self._sink.size_bytes > self._layout.size_bytes:
            await self._sink.restart()
        chunk_bytes = self._cut.chunk_bytes
        step = max(batch_bytes(READ_BYTES) // chunk_bytes, 1)
        for low, high in await self._sink.extents():
            first, end = self._layout.held(low, high - low)
            for at in range(first, end, step):
                last = min(at + step, end)
                expected = await self._hashes(at, last)
                body = await self._sink.read(*self._layout.span(at, last))
                spans = spans_of(len(body), chunk_bytes)
                found = await asyncio.to_thread(leaf_hashes, body, spans)
                right = [at + n for n, got in enumerate(found) if got == expected[n]]
                if self._cut.unit != "none":
                    self._records |= {leaf: records_in(body, self._cut.unit, *spans[leaf - at]) for leaf in right}
                self._verified = union(self._verified, ((leaf, leaf + 1) for leaf in right))
        if self._verified:
            self._resumed += 1
            telemetry.log.info("part taken up", pull=self._pull.id, verified_bytes=self._bytes(self._verified))

    async def _fetch(self, described: Described | None) -> None:
        """Let the legs run until nothing is missing."""
        workers = [asyncio.create_task(self._work(n, described if n == 0 else None), name=f"leg {n}") for n in range(self._road.parallel)]
        try:
            for each in asyncio.as_completed(workers):
                await each
        finally:
            await stopped(*workers)

    async def _work(self, number: int, described: Described | None) -> None:
        """One leg after the other, until no leaf is left that no other leg is after."""
        while (span := await self._next(described)) is not None:
            before = self._bytes(self._verified)
            self._taken = union(self._taken, (span,))
            try:
                await self._go(span, described)
            except PeerFailed as failed:
                if isinstance(failed, NotNow) and failed.said == SOURCE_FAILED and (wrong := self._still_wrong()):
                    raise self._not_as_signed(wrong[0], "once", "; the provider has found that its own data are wrong") from None
                hindered = self._account.hindered(failed) if self._account is not None else failed
                await self._patience.bear(hindered, self._bytes(self._verified) - before, number)
            else:
                self._patience.well(number)
                if self._still_wrong():
                    self._road.peer.afresh(self._road.access.endpoint)
            finally:
                self._taken, described = without(self._taken, (span,)), None

    async def _next(self, described: Described | None) -> tuple[int, int] | None:
        """The next leaves to be fetched: first what was receipted and is lost here, as nothing is receipted before it is back. Those that
        flow already are taken while the account is opened, which waits for the disks of both sides; nothing is asked for before."""
        if described is None or described.head is None:
            await self._opened.wait()
        missing = without(without(self._part.leaves, self._verified), self._taken)
        if described is not None and described.head is not None:
            begin = 1 + described.head.first // self._cut.chunk_bytes
            missing = tuple(each for each in missing if each[0] == begin) or missing
        told = self._account.told if self._account is not None else ()
        lost = without(without(told, self._verified), self._taken)
        for first, end in (*lost, *missing):
            return first, min(end, first + self._share(missing))
        return None

    def _share(self, missing: Ranges) -> int:
        """The most leaves that a leg asks for at once: half of its part of what is missing, so that all of them end together after few
        requests."""
        left, legs = sum(end - first for first, end in missing), self._road.parallel
        return left if legs == 1 else max(left // (2 * legs), WINDOW_BYTES // self._cut.chunk_bytes, 1)

    async def _go(self, span: tuple[int, int], described: Described | None) -> None:
        """Fetch some leaves. Raises PeerFailed for a cut, Broken for a leaf that was wrong before."""
        async with self._answer(span, described) as incoming:
            going = leg(incoming, self._sink, self._cut, self._road.movers, self._road.idle_seconds)
            if not self._flowing:
                self._since = time.monotonic_ns()
            self._flowing += 1
            try:
                await self._carry(going, span)
            finally:
                self._flowing -= 1
                if not self._flowing:
                    self._nanoseconds += time.monotonic_ns() - self._since
                await going.close()

    @asynccontextmanager
    async def _answer(self, span: tuple[int, int], described: Described | None) -> AsyncIterator[Incoming]:
        """An answer with these leaves, checked as far as its head goes."""
        offset, length = self._layout.span(*span)
        if described is not None and described.head is not None and described.head.first == offset:
            async with described.stack:
                self._checked(described.head)
                yield described.incoming
            return
        if described is not None:
            await described.stack.aclose()
        last = offset + length - 1
        whole = length == self._layout.size_bytes

        async with AsyncExitStack() as stack:

            async def call(authorization: str | None) -> Incoming:
                headers = request_headers(authorization, None if whole else (f"{offset}-{last}", self._promise.etag))
                opened = self._road.peer.stream("GET", self._road.access.endpoint, headers=headers, idle_seconds=self._road.idle_seconds)
                incoming = await stack.enter_async_context(opened)
                head = read_head(incoming.status, incoming.headers, offset, part=not whole, code=await code_of(incoming))
                self._checked(head)
                if head.first != offset:
                    raise Unfit("the provider sent all from the start instead of the part that was asked for")
                return incoming

            yield await self._road.access.presented(call)

    def _checked(self, head: Head) -> None:
        """Raise Unfit for an answer that is not with these data; whether they are, is for the leaves to say."""
        if head.validator not in (None, self._promise.etag) or head.size_bytes not in (None, self._layout.size_bytes):
            raise Unfit("the data changed at the provider: they are not those of its manifest any more")
        if self._part.whole:  # what is stated is the digest of all of the data
            self._expected = head.sha256 or self._expected

    async def _carry(self, going: Leg, span: tuple[int, int]) -> None:
        """Give the leg its windows, a few ahead, and see what becomes of them."""
        given: deque[Window] = deque()
        first, end = span
        most = max(min(WINDOW_BYTES, self._promise.manifest.window_bytes) // self._cut.chunk_bytes, 1)
        try:
            for at in range(first, end, most):
                last = min(at + most, end)
                expected = await self._hashes(at, last)
                window = going.take(at, expected, *self._layout.span(at, last))
                given.append(window)
                self._windows.add(window)
                if len(given) > AHEAD:
                    await self._settle(given.popleft())
            while given:
                await self._settle(given.popleft())
        finally:
            for window in given:
                self._see(window)
                self._windows.discard(window)

    async def _settle(self, window: Window) -> None:
        try:
            await window.move.finished
        finally:
            self._see(window)
            self._windows.discard(window)
        if window.wrong:
            await self._opened.wait()
        for leaf, got in window.wrong.items():
            self._reject(leaf, got)

    def _reject(self, leaf: int, got: bytes) -> None:
        """Raises Broken for a leaf that was wrong before."""
        if leaf in self._wrong:
            raise self._not_as_signed(leaf, "twice", ": they were changed on the way, or its data are not those of its manifest any more")
        self._wrong.add(leaf)
        if self._account is not None:
            self._account.reject(leaf, got)

    def _still_wrong(self) -> list[int]:
        return [leaf for leaf in sorted(self._wrong) if not covers(self._verified, ((leaf, leaf + 1),))]

    def _not_as_signed(self, leaf: int, often: str, why: str) -> Broken:
        offset, length = self._layout.span(leaf, leaf + 1)
        text = (
            f"leaf {leaf} (bytes {offset} to {offset + length - 1}) came {often} with other bytes than `{self._pull.peer}` has signed{why}"
        )
        return Broken(f"{text}. It has been told; ask it to publish them again. The part is kept", "leaf-wrong")

    def _see(self, window: Window) -> None:
        right = window.look()
        if self._cut.unit != "none":
            self._records |= {leaf: window.move.records[leaf - window.first] for each in right for leaf in range(*each)}
        if right:
            self._verified = union(self._verified, right)
            if self._account is not None:
                self._account.verified(self._own)

    async def _watch(self) -> None:
        """Look at what has come, five times a second."""
        while True:
            await self._report()
            await asyncio.sleep(PROGRESS_SECONDS)
            self.look()

    async def _report(self) -> None:
        received = self._part.bytes_in(self._verified)
        await self._progress(replace(self._pull, sha256=self._expected, stated=True, received_bytes=received))

    async def _hashes(self, first: int, end: int) -> list[bytes]:
        try:
            return await self._promise.leaves.hashes(first, end)
        except ProofRefused as error:
            raise Broken(f"the provider's content log does not hold: {error.message}", error.code) from None

    async def _digest(self) -> bytes:
        """The digest of the whole: what the provider states, compared where that is cheap; ours, if it states none. Raises PeerFailed."""
        if self._expected is not None and self._part.length > CHEAP_BYTES:
            return self._expected
        await self._sink.resume()
        found = self._sink.digest()
        if self._expected not in (None, found):
            await self._sink.discard()
            stated_hex = (self._expected or b"").hex()
            raise PeerFailed(f"the data has SHA-256 {found.hex()}, the provider stated {stated_hex}; nothing was kept")
        return found

    @property
    def _own(self) -> Ranges:
        """What this transfer has brought."""
        return without(self._verified, self._held)

    def _bytes(self, ranges: Ranges) -> int:
        return self._layout.measure(ranges).bytes


async def _until(main: asyncio.Task[None], tasks: list[asyncio.Task[None]]) -> None:
    """Wait for `main`. Raises at once what one of the others raises."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for each in tasks:
        if each.done():
            each.result()
    await main
