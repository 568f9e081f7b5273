"""Downloads in order, from a provider that proves nothing but, at best, a digest of the whole.

A cut download goes on where it stopped, by `Range` with `If-Range` on the strong validator that the first answer gave
(RFC 9110, 13.1.5); if the data changed meanwhile it begins again, and says so. Memory does not grow with the size: pieces are
written and hashed in a thread while the next ones arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus

from connector import telemetry
from connector.errors import ConnectorError, Contradiction, PeerFailed, PeerRefused
from connector.intake.access import Access
from connector.intake.beside import code_of
from connector.intake.heads import FRAMED, Head, Unfit, manifest_url, read_head
from connector.intake.patience import Patience
from connector.metering.content import read_etag
from connector.ports import Download as Incoming
from connector.ports import Peer
from connector.ports.sinks import Sink
from connector.records import Pull
from connector.values import Value, replace

BATCH_BYTES = 1024 * 1024  # handed to the thread at once: below, the hop costs more than the work
RESTARTS_MAX = 5  # data that changes more often than it can be read is no dataset
PROGRESS_SECONDS = 0.2  # between two reports: five a second look smooth

Progress = Callable[[Pull], Awaitable[None]]

OPEN_ENDED = "the transfer is over, and the provider has not signed that this is all of the data"


class Downloaded(Value):
    """What a download came to. `verified` says that the provider stated a digest and the file has it, or that a content log proves it;
    without one only the size was compared, if even that was stated. `resumed` counts the continuations after a cut, `restarted`
    beginnings from zero. `sha256` is what the provider states if `stated`, else what the file has.
    A file that need not outlive a loss of power is not `durable`. Data without an end that are `open_ended` ended with their transfer, and
    nobody has signed that this is all of them. `leaves_bytes` are those of the leaves that hold a range, `lost_bytes` came and are not in
    the file, as nobody had signed for them when the transfer ended."""

    size_bytes: int
    sha256: bytes
    verified: bool
    stated: bool
    resumed: int
    restarted: int
    validator: str | None
    durable: bool = True
    open_ended: bool = False
    leaves_bytes: int | None = None
    lost_bytes: int = 0


class Described(Value):
    """An answer that names a manifest at `url`. Its body has not been read; `stack` closes it. An answer that refuses data before the
    first receipt has no `head`, and its manifest is where it always is (`url` None)."""

    url: str | None
    head: Head | None
    incoming: Incoming
    stack: AsyncExitStack


def stated(pull: Pull) -> bytes | None:
    """The digest that the provider has stated, as far as the order knows."""
    return pull.sha256 if pull.stated else None


def request_headers(authorization: str | None, span: tuple[str, str] | None) -> dict[str, str]:
    """The head of a request for data: all, or `span`, a range and the entity tag that it is meant for."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | telemetry.trace_header()
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers if span is None else headers | {"Range": f"bytes={span[0]}", "If-Range": span[1]}


class Attempts:
    """One download in order: requests until the part is whole, then the check. With `proven` it ends at the first answer that names a
    manifest: then there is more to go by."""

    def __init__(
        self,
        pull: Pull,
        sink: Sink,
        access: Access,
        peer: Peer,
        progress: Progress,
        patience: Patience,
        idle_seconds: float,
        *,
        proven: bool,
    ) -> None:
        self._pull, self._sink, self._access, self._peer, self._progress = pull, sink, access, peer, progress
        self._patience, self._idle_seconds, self._proven = patience, idle_seconds, proven
        self._expected = stated(pull)
        self._whole = False
        self._inherited = False
        self._gaps = False
        self._resumed = self._restarted = 0
        self._reported = 0.0

    async def run(self) -> Downloaded | Described:
        """Returns when the data is right, and has to be given its name; or, with the first answer that names a manifest, that answer.
        Raises as `Downloads.fetch`."""
        if self._pull.validator is None:
            await self._sink.restart()
        elif read_etag(self._pull.validator) is not None:
            self._gaps = self._sink.size_bytes > 0  # what is written by a content log lies where it belongs, not in a row
        else:
            self._inherited = await self._sink.resume() > 0
        try:
            if (described := await self._fetch_right()) is not None:
                return described
        except ConnectorError:
            if not self._sink.size_bytes:  # a part without a byte is of no use to anybody
                with suppress(ConnectorError):
                    await self._sink.discard()
            raise
        verified = self._expected is not None
        return Downloaded(
            self._sink.size_bytes, self._sink.digest(), verified, verified, self._resumed, self._restarted, self._pull.validator
        )

    async def _fetch_right(self) -> Described | None:
        """Fetch until size and digest are right."""
        while True:
            if (described := await self._fetch_all()) is not None:
                return described
            try:
                self._demand_digest()
            except PeerFailed as error:
                if not self._inherited:
                    await self._sink.discard()
                    raise
                # A part from before a loss of power may hold what never reached the disk: that is ours to mend, once.
                self._inherited = False
                await self._restart(error.message)
            else:
                return None

    async def _fetch_all(self) -> Described | None:
        """Request after request, until the part is whole."""
        self._whole = not self._gaps and self._sink.size_bytes > 0 and self._sink.size_bytes == self._pull.size_bytes
        while not self._whole:
            before = self._sink.size_bytes
            try:
                if (described := await self._access.presented(self._request)) is not None:
                    return described
            except PeerFailed as failed:
                refused = isinstance(failed, PeerRefused) and failed.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                if refused and before:
                    await self._restart("the provider has less data now than it had")
                    continue
                await self._patience.bear(failed, self._sink.size_bytes - before)
        return None

    def _next(self) -> int:
        """Where the next request begins: where the part ends; of a part with gaps at a leaf from which something may be missing."""
        if not self._gaps:
            return self._sink.size_bytes
        tag = read_etag(self._pull.validator)
        chunk_bytes = tag[1] if tag is not None else 1
        last = max(0, (self._pull.size_bytes or self._sink.size_bytes) - 1)
        return min(self._sink.size_bytes, last) // chunk_bytes * chunk_bytes

    async def _request(self, authorization: str | None) -> Described | None:
        """One GET from where the part ends. Raises as `read_head`, PeerFailed for a cut."""
        if self._sink.size_bytes and self._pull.validator is None:
            await self._restart("the provider gave no strong entity tag, so what is here cannot be continued")
        offset = self._next()
        asked = request_headers(authorization, None if self._pull.validator is None or not offset else (f"{offset}-", self._pull.validator))
        async with AsyncExitStack() as stack:
            opened = self._peer.stream("GET", self._access.endpoint, headers=asked, idle_seconds=self._idle_seconds)
            incoming = await stack.enter_async_context(opened)
            code = await code_of(incoming)
            if self._proven and incoming.status == HTTPStatus.FORBIDDEN and code == "receipt-required":
                return Described(None, None, incoming, stack.pop_all())
            head = read_head(incoming.status, incoming.headers, offset, code=code)
            if self._proven and (url := manifest_url(incoming.headers, self._access.endpoint)) is not None:
                return Described(url, head, incoming, stack.pop_all())
            if self._gaps:
                await self._leave_gaps(head)
            await (self._continue(head) if head.first else self._begin(head))
            if self._pull.size_bytes is None and self._expected is None and not incoming.headers.keys() & FRAMED:
                raise Unfit("the provider says neither how much comes nor its digest, so that nobody could tell the end from a cut")
            if self._pull.size_bytes is not None:
                await self._sink.reserve(self._pull.size_bytes - self._sink.size_bytes)
            await self._report(force=True)
            await self._copy(incoming)
        if self._pull.size_bytes is not None and self._sink.size_bytes != self._pull.size_bytes:
            raise PeerFailed(f"the provider sent {self._sink.size_bytes} of the {self._pull.size_bytes} bytes that it had announced")
        self._whole = True
        return None

    async def _leave_gaps(self, head: Head) -> None:
        """A part that was written by a content log means nothing to whoever has none. Raises PeerFailed if the answer goes on with it."""
        self._gaps = False
        await self._restart("the provider proves nothing of the data any more, so what is here cannot be continued")
        if head.first:
            self._pull, self._expected = replace(self._pull, validator=None, size_bytes=None), None
            raise PeerFailed("the provider proves nothing of the data any more")

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
