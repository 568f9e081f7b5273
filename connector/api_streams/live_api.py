"""Live data over HTTP: `GET /data/{transfer pid}` that does not end, and what lies beside it.

The bytes are those of the log, with nothing framed. A range that ends at 2^53-1 has no end yet (RFC 8673), and `bytes=N-` means the same
here; a reader that was cut goes on with the byte that it lacks and `If-Range`. What it has signed for is dropped, and is not to be had
again. A checkpoint is had for a place (`?after=N`): one of more than N leaves, and at most a window beyond them, as soon as there is one,
or, who asks for that too (`?after=N&end`), the one of N leaves that says that the source has ended, and sent no more; how long the
leaves are, and how many records end in each, is listed at `sealed/{first}-{end}`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict

from connector.api.bulk_door import unpace
from connector.api.data_answers import NO_STORE, cut_short
from connector.api.outlet import HttpOutlet, attended
from connector.dataplane.accounts import Accounts
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Permit
from connector.dataplane.meter import Meters
from connector.dataplane.ranges import Span
from connector.dataplane.stream import STALL_SECONDS, stream
from connector.dataplane_accounts.account import Account
from connector.dataplane_live.flow import Flow
from connector.dataplane_live.lives import Lives
from connector.errors import InvalidRequest, NotFound, RangeNotSatisfiable
from connector.metering.live import LAST
from connector.metering.objects import WINDOW_BYTES, manifest_of

RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?", re.ASCII)
NUMBER: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
LISTED_MAX: Final = 65_536  # leaves in one list: 512 KiB
PATIENCE_SECONDS: Final = 8.0  # that a request waits for a checkpoint: less than any client waits for an answer
# For a consumer that signs, to prove and sign what has left of a quota that is used up, before that ends the transfer: a receipt takes a
# second, a checkpoint another one. Nothing more leaves meanwhile.
SIGNED_SECONDS: Final = 10.0
OCTETS, NOTE = "application/octet-stream", "text/plain"

Ask = Callable[[], Awaitable[Permit]]


class LiveApi:
    """The handlers; whoever calls them has asked the gate. `link(transfer)` is the `Link` header of an answer with data, `note` has what a
    consumer has signed put on record."""

    def __init__(
        self,
        lives: Lives,
        accounts: Accounts,
        flows: Flows,
        meters: Meters,
        link: Callable[[str], str],
        note: Callable[[web.Request, Permit, Account], None] | None = None,
        *,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._lives, self._accounts, self._flows, self._meters, self._link = lives, accounts, flows, meters, link
        self._note = note
        self._stall_seconds = stall_seconds

    def serves(self, permit: Permit) -> bool:
        """Whether the data of a transfer are live."""
        return self._lives.serves(permit.source)

    async def read(self, request: web.Request, ask: Ask, permit: Permit) -> web.StreamResponse:
        """What comes of a transfer, from a place that the client names or from the oldest that is still here."""
        flow, account = await self.account(permit)
        headers = CIMultiDict(
            {
                hdrs.CONTENT_TYPE: flow.log.media_type,
                hdrs.ETAG: flow.log.etag,
                hdrs.ACCEPT_RANGES: "bytes",
                hdrs.CACHE_CONTROL: "no-store",
                hdrs.LINK: self._link(permit.transfer),
            }
        )
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=headers)
        first, end, status = _asked(request, flow)
        if status == 206:  # noqa: PLR2004 - a status
            headers[hdrs.CONTENT_RANGE] = f"bytes {first}-{end - 1 if end < LAST else LAST}/*"
        elif first:
            del headers[hdrs.ETAG]  # these are not the bytes that it names, but those from some place on
        account.demand()
        if self._note is not None:
            self._note(request, permit, account)
        await flow.mend(first)  # of a client that signs nothing, or nothing yet, only its request says what it needs
        await self._accounts.manifest(account)  # a ledger that cannot be written stops the transfer before its first byte
        response = web.StreamResponse(status=status, headers=headers)
        if end < LAST:
            response.content_length = end - first
        return await self._send(request, ask, permit, flow, account, response, Span(first, end - first, LAST))

    async def account(self, permit: Permit) -> tuple[Flow, Account]:
        """The flow of a transfer, and its account, which tells the flow what is needed no more."""
        flow = await self._lives.of(permit)
        account = await self._accounts.of(permit, flow.log)
        if flow.closed:  # meanwhile, and the account of whoever reads would be of a log that grows no more
            flow = await self._lives.of(permit)
            account = await self._accounts.of(permit, flow.log)
        account.heard, flow.taking.means = flow.heard, lambda: account.signs
        if account.stored is not None:
            flow.heard(account.stored)
        if account.opened:
            await flow.mend(flow.free)
        return flow, account

    async def _send(
        self, request: web.Request, ask: Ask, permit: Permit, flow: Flow, account: Account, response: web.StreamResponse, span: Span
    ) -> web.StreamResponse:
        unpace(request.transport)
        outlet = LiveOutlet(request, response)

        def sent(first: int, length: int) -> None:
            self._flows.sent(permit.transfer, flow.log.etag, first, length, LAST)
            account.sent(first, length)
            flow.left(first, length)
            if not account.opened:
                flow.release(first + length - self._lives.spool_bytes // 2)  # the rest is there for one who was cut
                self._accounts.written_soon(account)

        at = flow.log.etag, span.first
        meter = self._meters.meter(permit, span.length, flow.log.media_type, account.calls, at) if permit.tallies else None

        async def before_end(ended: float | None) -> None:
            if account.signs:
                with account.still(ended):  # by the minute nobody pays for what he waits for
                    await flow.taking.signed_as_left(SIGNED_SECONDS)

        if meter is not None:
            meter.before_end = before_end
        try:
            async with meter or nullcontext():
                if permit.lease.stale:
                    permit = await ask()
                bounds = (permit.not_after, permit.not_after_code, permit.counted_until, permit.agreement)
                with self._flows.running(permit.transfer, *bounds) as running, attended(request, running.leave):
                    await response.prepare(request)
                    await _send_head(response)
                    async with aclosing(flow.pieces(span.first, span.first + span.length)) as output:
                        copy = partial(stream, still=running.demand, sent=sent, stall_seconds=self._stall_seconds, meter=meter)
                        with account.running(), flow.reading(), suppress(StopAsyncIteration):  # the log has ended, and so does this
                            await copy(permit, None, span, outlet, output, credit=account)
                    await response.write_eof()
        except Exception as error:  # whatever it is: an answer of its own would stand in the middle of what has gone out
            if not response.prepared:
                raise
            return cut_short(request, response, permit, error, meter)
        finally:
            self._accounts.written_soon(account)
        return response

    async def checkpoint(self, request: web.Request, permit: Permit) -> web.Response:
        """The newest signed checkpoint; with `after`, the next one for somebody who has so many leaves, or 204 if there is none yet; with
        `end`, also that there is none any more."""
        flow, account = await self.account(permit)
        asked = request.query.get("after")
        if asked is None:
            size: int | None = flow.signed
        elif NUMBER.fullmatch(asked) is None:
            raise InvalidRequest("`after` is the number of leaves that somebody has, the header included")
        else:
            # By one over more than there is credit for nothing could be proven, hence nothing be signed for, and nothing more would leave.
            window_bytes = manifest_of(account.stored.manifest).window_bytes if account.stored is not None else WINDOW_BYTES
            window_bytes, end = min(window_bytes, WINDOW_BYTES), "end" in request.query
            size = await flow.checkpoint_after(int(asked), PATIENCE_SECONDS, window_bytes, end=end, left=bool(permit.tallies))
        if size is None:
            return web.Response(status=204, headers=NO_STORE)
        note = self._accounts.checkpoint(account.log, flow.stages, size, end=size == flow.whole)
        return web.Response(body=note, content_type=NOTE, headers=NO_STORE)

    async def sealed(self, request: web.Request, permit: Permit) -> web.Response:
        """How long leaves are, and how many records end in them."""
        flow, _ = await self.account(permit)
        first, end = (int(request.match_info[name]) for name in ("first", "end"))
        if not 1 <= first < end <= flow.signed or end - first > LISTED_MAX:
            raise NotFound(f"the log has checkpoints up to {flow.signed} leaves, and a list is of {LISTED_MAX} of them at most")
        return web.Response(body=flow.log.sealed(first, end), content_type=OCTETS, headers=NO_STORE)


class LiveOutlet(HttpOutlet):
    """The way out of live data: a piece goes out from where it lies. aiohttp would copy it, to write it with the frame of its chunk, and
    the event loop what the kernel does not take at once."""

    async def write(self, piece: bytes) -> None:
        transport = self._request.transport
        if self._response.headers.get(hdrs.TRANSFER_ENCODING) != "chunked" or transport is None or transport.is_closing():
            await self._response.write(memoryview(piece))
            return
        for part in (b"%x\r\n" % len(piece), memoryview(piece), b"\r\n"):
            transport.write(part)
        await self._request.writer.drain()


def _asked(request: web.Request, flow: Flow) -> tuple[int, int, int]:
    """(first byte, end, status). Raises RangeNotSatisfiable for bytes that are dropped, or that lie ahead."""
    log, dropped = flow.log, flow.oldest
    found = RANGE.fullmatch(request.headers.get(hdrs.RANGE, "").replace(" ", ""))
    if_range = request.headers.get(hdrs.IF_RANGE)
    if found is None or (found[2] and int(found[2]) < int(found[1])) or if_range not in (None, log.etag):
        return (log.span(log.held(dropped, 0)[0], log.held(dropped, 0)[0])[0] if dropped else 0), LAST, 200
    first, end = int(found[1]), min(int(found[2]) + 1, LAST) if found[2] else LAST
    if first < dropped:
        text = f"the bytes before {dropped} of this log are dropped, as they were acknowledged; what comes after them is to be had"
        raise RangeNotSatisfiable(text, log.end)
    if first > log.end:
        raise RangeNotSatisfiable(f"the log has {log.end} bytes so far; ask for those from {log.end} on, and wait for them", log.end)
    return first, end, 206


async def _send_head(response: web.StreamResponse) -> None:
    """Let the client have the head now: the first byte of the body may be long in coming."""
    writer = response._payload_writer
    if writer is not None:
        writer.send_headers()
        await writer.drain()
