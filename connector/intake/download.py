"""Downloads: from a provider's data listener to a file that takes its name when size and digest are right.

A cut download goes on where it stopped, by `Range` with `If-Range` on the strong validator that the first answer gave
(RFC 9110, 13.1.5); if the data changed meanwhile it begins again, and says so. Memory does not grow with the size: pieces are
written and hashed in a thread while the next ones arrive.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus

from connector import telemetry
from connector.errors import ConnectorError, Contradiction, PeerFailed, PeerRefused
from connector.intake.access import Access
from connector.intake.heads import Head, NotNow, Unfit, read_head
from connector.ports import Clock, Identity, Peer
from connector.ports import Download as Incoming
from connector.ports_sinks import Sink, Sinks
from connector.records import Edr, Pull

BATCH_BYTES = 1024 * 1024  # handed to the thread at once: below, the hop costs more than the work
IDLE_SECONDS = 30.0  # without a byte: the connection is given up and resumed
FIRST_PAUSE_SECONDS = 0.2  # before the third attempt in a row; the second one comes at once, most cuts are single
PAUSE_SECONDS_MAX = 30.0
REFUSED_SECONDS = 3.0  # a refusal is believed after this time: messages about the same transfer may be on their way
RESTARTS_MAX = 5  # data that changes more often than it can be read is no dataset
PATIENCE_SECONDS = 900.0  # without a byte, over all attempts: a provider that restarts or moves is back by then
PROGRESS_SECONDS = 0.2  # between two reports: five a second look smooth
ONLY_SIZE = "the provider stated no SHA-256 digest (`Repr-Digest`): only the size was checked"
DIGEST_TAG = re.compile(r'"([0-9a-f]{64})"')  # our own entity tags are the digest

Progress = Callable[[Pull], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What a download came to. `verified` says that the provider stated a digest and the file has it; without one only the
    size was compared, if even that was stated. `resumed` counts the continuations after a cut, `restarted` beginnings from zero."""

    size_bytes: int
    sha256: bytes
    verified: bool
    resumed: int
    restarted: int
    validator: str | None


class Downloads:
    """Fetches what orders ask for into files of `sinks`."""

    def __init__(
        self,
        peer: Peer,
        identity: Identity,
        sinks: Sinks,
        clock: Clock,
        *,
        idle_seconds: float = IDLE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._peer, self._identity, self._sinks, self._clock = peer, identity, sinks, clock
        self._idle_seconds, self._patience_seconds = idle_seconds, patience_seconds

    def check_out(self, out: str, id: str) -> None:
        """Raises InvalidRequest, Contradiction or SinkFailed if a download of order `id` may not go to this path."""
        self._sinks.check(out, id, overwrite=False)

    async def fetch(
        self,
        pull: Pull,
        edr: Edr,
        *,
        renewed: Callable[[Edr], Awaitable[None]],
        progress: Progress,
        over: Callable[[], bool] = lambda: False,
        overwrite: bool = False,
    ) -> Pull:
        """Download, resume, check and rename; returns the order with validator, size, digest and bytes received.

        `renewed` stores a renewed data address; `progress` gets the order with what has to survive a crash (validator, size, and
        the digest) as soon as it is known, and then with the bytes received. Once `over` says so there is no further request: what
        runs may end, a cut is the last one. If the provider stated no digest, `reasons` says that only the size was checked.
        Raises PeerRefused, PeerFailed (also if size or digest are wrong: nothing is left then), SinkFailed, InvalidRequest,
        Contradiction. After any other failure, and after a cancellation, the part is kept for the next call, unless nothing has
        come yet.
        """
        if (found := await self._finished(pull)) is not None:
            return found
        access = Access(edr, pull.peer, peer=self._peer, identity=self._identity, clock=self._clock, renewed=renewed)
        sink = await self._sinks.open(pull.out, _part_of(pull), overwrite=overwrite)
        keeper = asyncio.create_task(access.keep(), name=f"token {edr.transfer}")
        try:
            attempt = Attempts(pull, sink, access, self._peer, progress, over, self._idle_seconds, self._patience_seconds)
            result = await attempt.run()
        finally:
            keeper.cancel()
            try:
                await asyncio.gather(keeper, return_exceptions=True)
            finally:  # whoever cancels may do it here, too: the place is let go in any case
                await sink.close()
        return _done(pull, result)

    async def finish(self, pull: Pull, *, progress: Progress) -> Pull | None:
        """What `fetch` would return, if all of the data is here already; nobody is asked for more. None if something is missing
        or wrong: then whatever is here stays for the next `fetch`. Raises SinkFailed, InvalidRequest, Contradiction."""
        if (found := await self._finished(pull)) is not None:
            return found
        expected = _stated(pull)
        sink = await self._sinks.open(pull.out, _part_of(pull), overwrite=False)
        try:
            size_bytes = await sink.resume()
            by_size = pull.validator is not None and size_bytes == pull.size_bytes
            whole = by_size if expected is None else sink.digest() == expected
            if whole:
                await _give_name(sink, pull, expected is not None, progress)
            elif not size_bytes:
                await sink.discard()
        finally:
            await sink.close()
        return _done(pull, Downloaded(size_bytes, sink.digest(), expected is not None, 0, 0, pull.validator)) if whole else None

    async def _finished(self, pull: Pull) -> Pull | None:
        """The order as done, if a crash came between giving the file its name and saying so. Only a digest proves that."""
        tag = DIGEST_TAG.fullmatch(pull.validator or "")
        expected = pull.sha256 or (bytes.fromhex(tag[1]) if tag else None)
        found = await self._sinks.existing(pull.out, _part_of(pull)) if expected else None
        if found is None or found[1] != expected:
            return None
        return _done(pull, Downloaded(found[0], found[1], pull.stated, 0, 0, pull.validator))


def _part_of(pull: Pull) -> str:
    return pull.part or pull.id


def _stated(pull: Pull) -> bytes | None:
    """The digest that the provider has stated, as far as the order knows."""
    return pull.sha256 if pull.stated else None


async def _give_name(sink: Sink, pull: Pull, verified: bool, progress: Progress) -> None:
    """Let the part be the file. Only a digest can prove after a crash that the file of that name is the one that came: if the
    provider stated none, ours is kept first."""
    if not verified:
        await progress(replace(pull, sha256=sink.digest(), stated=False, received_bytes=sink.size_bytes))
    await sink.commit()


def _done(pull: Pull, result: Downloaded) -> Pull:
    telemetry.log.info("downloaded", pull=pull.id, size_bytes=result.size_bytes, verified=result.verified, resumed=result.resumed)
    return replace(
        pull,
        validator=result.validator,
        size_bytes=result.size_bytes,
        sha256=result.sha256,
        received_bytes=result.size_bytes,
        stated=result.verified,
        reasons=() if result.verified else (ONLY_SIZE,),
    )


class Attempts:
    """One download: requests until the part is whole, then the check."""

    def __init__(
        self,
        pull: Pull,
        sink: Sink,
        access: Access,
        peer: Peer,
        progress: Progress,
        over: Callable[[], bool],
        idle_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._pull, self._sink, self._access, self._peer, self._progress, self._over = pull, sink, access, peer, progress, over
        self._idle_seconds, self._patience_seconds = idle_seconds, patience_seconds
        self._expected = _stated(pull)
        self._whole = False
        self._inherited = False
        self._resumed = self._restarted = 0
        self._reported = 0.0

    async def run(self) -> Downloaded:
        """Returns when the file has its name. Raises as `Downloads.fetch`."""
        if self._pull.validator is None:
            await self._sink.restart()
        else:
            self._inherited = await self._sink.resume() > 0
        try:
            await self._fetch_right()
        except ConnectorError:
            if not self._sink.size_bytes:  # a part without a byte is of no use to anybody
                with suppress(ConnectorError):
                    await self._sink.discard()
            raise
        verified = self._expected is not None
        await _give_name(self._sink, self._pull, verified, self._progress)
        return Downloaded(self._sink.size_bytes, self._sink.digest(), verified, self._resumed, self._restarted, self._pull.validator)

    async def _fetch_right(self) -> None:
        """Fetch until size and digest are right."""
        while True:
            await self._fetch_all()
            try:
                return self._demand_digest()
            except PeerFailed as error:
                if not self._inherited:
                    await self._sink.discard()
                    raise
                # A part from before a loss of power may hold what never reached the disk: that is ours to mend, once.
                self._inherited = False
                await self._restart(error.message)

    async def _fetch_all(self) -> None:
        """Request after request, until the part is whole."""
        loop = asyncio.get_running_loop()
        failures, last_byte, refused_since = 0, loop.time(), float("inf")
        self._whole = self._sink.size_bytes > 0 and self._sink.size_bytes == self._pull.size_bytes
        while not self._whole:
            before, pause = self._sink.size_bytes, 0.0
            try:
                await self._authorized_request()
                continue
            except (PeerRefused, Unfit) as refused:
                if isinstance(refused, PeerRefused) and refused.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                    await self._restart("the provider has less data now than it had")
                    continue
                refused_since = min(refused_since, loop.time())
                if loop.time() - refused_since >= REFUSED_SECONDS:
                    raise
                error = refused.message
            except PeerFailed as failed:
                refused_since = float("inf")
                pause = failed.retry_after_seconds if isinstance(failed, NotNow) else 0.0
                error = failed.message
            moved = self._sink.size_bytes - before
            last_byte = loop.time() if moved > 0 else last_byte
            failures = 1 if moved >= BATCH_BYTES else failures + 1
            if loop.time() - last_byte > self._patience_seconds:
                raise PeerFailed(f"nothing came for {self._patience_seconds:g} s: {error}; the part is kept")
            telemetry.log.info("download cut", pull=self._pull.id, reason=error, received_bytes=self._sink.size_bytes, failures=failures)
            if not self._over():
                await asyncio.sleep(max(min(pause, PAUSE_SECONDS_MAX), back_off_seconds(failures)))
            if self._over():
                raise PeerFailed(f"the transfer is over and not all of the data has come: {error}; the part is kept")

    async def _authorized_request(self) -> None:
        """A request with a token that holds; if it is refused all the same, once more with a new one."""
        token = await self._access.token()
        try:
            await self._request(token)
        except PeerRefused as refused:
            if refused.status != HTTPStatus.UNAUTHORIZED or not self._access.renewable:
                raise
            await self._access.renew(token)
            await self._request(await self._access.token())

    async def _request(self, token: str | None) -> None:
        """One GET from where the part ends. Raises as `read_head`, PeerFailed for a cut."""
        if self._sink.size_bytes and self._pull.validator is None:
            await self._restart("the provider gave no strong entity tag, so what is here cannot be continued")
        offset = self._sink.size_bytes
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | telemetry.trace_header()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if offset and self._pull.validator is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": self._pull.validator}
        async with self._peer.stream("GET", self._access.endpoint, headers=headers, idle_seconds=self._idle_seconds) as incoming:
            head = read_head(incoming.status, incoming.headers, offset)
            await (self._continue(head) if head.first else self._begin(head))
            if self._pull.size_bytes is not None:
                await self._sink.reserve(self._pull.size_bytes - self._sink.size_bytes)
            await self._report(force=True)
            await self._copy(incoming)
        if self._pull.size_bytes is not None and self._sink.size_bytes != self._pull.size_bytes:
            raise PeerFailed(f"the provider sent {self._sink.size_bytes} of the {self._pull.size_bytes} bytes that it had announced")
        self._whole = True

    async def _begin(self, head: Head) -> None:
        """Take an answer that starts at zero. If a part was to be continued it is another representation, or a provider that
        knows no ranges."""
        same = head.validator is not None and head.validator == self._pull.validator
        if self._sink.size_bytes:
            await self._restart("the provider sent all from the start instead of the rest" if same else "the data changed at the provider")
        self._expected = head.sha256 or (self._expected if same else None)
        self._pull = replace(self._pull, validator=head.validator, size_bytes=head.size_bytes)

    async def _continue(self, head: Head) -> None:
        """Take an answer that continues the part. Raises PeerFailed, and starts again, if it contradicts what it continues."""
        known = self._pull
        other = head.validator not in (None, known.validator)
        if other or (None not in (head.size_bytes, known.size_bytes) and head.size_bytes != known.size_bytes):
            self._pull, self._expected = replace(known, validator=None, size_bytes=None), None
            await self._restart("the provider continued with other data than it began with")
            raise PeerFailed("the provider continued with other data than it began with")
        self._resumed += 1
        self._expected = head.sha256 or self._expected
        self._pull = replace(known, size_bytes=head.size_bytes if known.size_bytes is None else known.size_bytes)

    async def _copy(self, incoming: Incoming) -> None:
        """Write what arrives while more arrives. What came before a cut is kept. Raises PeerFailed, and starts again, if more
        arrives than there can be: such a body may have no end."""
        room = float("inf") if self._pull.size_bytes is None else self._pull.size_bytes - self._sink.size_bytes
        batch: list[bytes] = []
        batch_bytes = 0
        writing: asyncio.Task[None] | None = None
        try:
            async for piece in incoming.chunks():
                if (room := room - len(piece)) < 0:
                    break
                batch.append(piece)
                batch_bytes += len(piece)
                if batch_bytes >= BATCH_BYTES:
                    if writing is not None:
                        await writing
                    await self._report()
                    writing = asyncio.create_task(self._sink.append(batch))
                    batch, batch_bytes = [], 0
        except asyncio.CancelledError:
            batch.clear()  # whoever cancels does not wait for more than what is being written
            raise
        finally:
            if writing is not None:
                await _to_its_end(writing)
            if batch:
                await self._sink.append(batch)
        if room < 0:
            await self._restart("the provider sent more than it had announced")
            raise PeerFailed("the provider sent more than it had announced")
        await self._report(force=True)

    def _demand_digest(self) -> None:
        if self._expected is not None and (found := self._sink.digest()) != self._expected:
            raise PeerFailed(f"the data has SHA-256 {found.hex()}, the provider stated {self._expected.hex()}; nothing was kept")

    async def _restart(self, reason: str) -> None:
        telemetry.log.warning("download starts again from zero", pull=self._pull.id, reason=reason, lost_bytes=self._sink.size_bytes)
        self._restarted += 1
        if self._restarted > RESTARTS_MAX:
            raise Contradiction(f"the download had to start again {RESTARTS_MAX} times: {reason}; ask when the data is at rest")
        await self._sink.restart()

    async def _report(self, *, force: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if force or now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            await self._progress(replace(self._pull, sha256=self._expected, stated=True, received_bytes=self._sink.size_bytes))


async def _to_its_end(writing: asyncio.Task[None]) -> None:
    """Wait for what is being written, also if we are cancelled meanwhile: nothing is closed under it."""
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        while not writing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        raise


def back_off_seconds(failures: int) -> float:
    """The pause after so many failed attempts in a row: none after the first, then doubling, with full jitter above a half."""
    if failures <= 1:
        return 0.0
    longest: float = min(PAUSE_SECONDS_MAX, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 2, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
