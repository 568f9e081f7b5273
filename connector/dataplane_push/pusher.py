"""Bringing the data of a transfer to the consumer's sink (`HttpData-PUSH`).

A sink of a connector like this one is asked what it wants (`HEAD`), is told where the manifest is, and gets a window at a time: `PUT` with
`Content-Range`, whose answer is the receipt; the next request carries its ack. What it has verified it does not ask for again, so a cut
costs what was under way. Any other sink gets all of the data in one `PUT`; what it took is counted by us alone.

The account, its credit and the judgement of receipts are those of every other way out, and so is what cuts it: a transfer that is suspended
or ends, a bound of its policy, a quota. Requests and answers are signed as `signed` says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from http import HTTPStatus
from typing import Any, Final

import orjson

from connector import telemetry
from connector.dataplane.accounts import Accounts
from connector.dataplane.edr import Address, Tokens, grant_for
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate, Permit
from connector.dataplane.meter import Meter, Meters
from connector.dataplane.opened import OpenSources
from connector.dataplane.ranges import Span, write_repr_digest
from connector.dataplane.receipts import Receipts
from connector.dataplane.stream import Representation, Representations, pieces
from connector.dataplane_accounts.account import Account
from connector.dataplane_push.signed import SignedUploads, Sinks, Uploads
from connector.errors import ConnectorError, PeerFailed, PeerRefused, Withdrawn
from connector.metering.chain import Outcome
from connector.metering.objects import Receipt, kept
from connector.ports import SIGNED_REQUESTS, Reply, Source, Transfers
from connector.signatures.digests import content_digest
from connector.values import Value

RECEIPTS_RELATION: Final = "https://w3id.org/qiao/v1/receipts"  # of a sink that answers with them
OFFSET, ACK, JWT = "Upload-Offset", "Qiao-Ack", "application/jwt"
IDLE_SECONDS: Final = 60.0
IDLE_MAX: Final = 3  # answers in a row to which neither bytes nor a new receipt belong: a sink that has no other is asked again later
ANSWER_BYTES_MAX: Final = 64 * 1024
DIGITS_MAX: Final = 18
AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})  # the last: no room, for now (RFC 4918, 11.5)


class Data(Value):
    """What is pushed of one transfer."""

    permit: Permit
    source: Source
    representation: Representation
    account: Account
    meter: Meter | None
    uploads: SignedUploads
    still: Callable[[], None]


class _Given:
    """How many bytes of a request were handed over to be sent."""

    count_bytes = 0


class Pusher:
    """Pushes. `transfers` looks them up, `opened` and `representations` are those of the bytes, `sinks` says which sinks sign."""

    def __init__(
        self,
        gate: Gate,
        transfers: Transfers,
        tokens: Tokens,
        opened: OpenSources[Any],
        representations: Representations,
        accounts: Accounts,
        receipts: Receipts,
        flows: Flows,
        meters: Meters,
        uploads: Uploads,
        sinks: Sinks,
        link: Callable[[str], str],
    ) -> None:
        self._gate, self._transfers, self._tokens = gate, transfers, tokens
        self._opened, self._representations = opened, representations
        self._accounts, self._receipts, self._flows, self._meters = accounts, receipts, flows, meters
        self._uploads, self._sinks, self._link = uploads, sinks, link

    async def push(self, transfer: str, sink: Address) -> None:
        """Returns when the sink has all of it, and has signed for it if it signs. Raises Withdrawn if nothing may leave (any more),
        SourceFailed, PeerFailed (then it may be called again, and goes on), PeerRefused if the sink does not take it."""
        permit = await self._gate.own(transfer)
        if not self._opened.reads(permit):  # it was published anew since the push was agreed to
            text = "these data have no end any more, and are not pushed; ask for them as `HttpData-PULL`"
            raise PeerRefused(text, status=HTTPStatus.GONE)
        async with self._opened.use(permit) as (source, stat):
            representation = await self._representations.of(permit, source, stat)
            if representation.log is None:
                raise PeerRefused("these data have no content log", status=HTTPStatus.NOT_FOUND)
            account = await self._accounts.of(permit, representation.log)
            await self._accounts.manifest(account)
            size_bytes, media_type = representation.size_bytes, representation.media_type
            at = representation.etag, 0
            meter = self._meters.meter(permit, size_bytes, media_type, account.calls, at) if permit.tallies else None
            try:
                async with meter or nullcontext():
                    bounds = (permit.not_after, permit.not_after_code, permit.counted_until, permit.agreement)
                    with self._flows.running(transfer, *bounds) as running, account.running():
                        demanded = SIGNED_REQUESTS in permit.demands
                        asking = await self._sinks.asking(transfer, permit.consumer, demanded=demanded)
                        uploads = SignedUploads(self._uploads, asking, transfer)
                        data = Data(permit, source, representation, account, meter, uploads, running.demand)
                        await self._bring(sink, data)
            finally:
                self._accounts.written_soon(account)

    async def _bring(self, sink: Address, data: Data) -> None:
        asked = await data.uploads.head(sink.endpoint, headers=_headers(sink), limit_bytes=ANSWER_BYTES_MAX)
        if data.uploads.answered:
            await self._sinks.signs(data.permit.transfer, data.permit.consumer, data.uploads.shown)
        if asked.status in AGAIN:  # it will say what kind of sink it is
            raise _refusal(asked)
        if SIGNED_REQUESTS in data.permit.demands:
            data.uploads.demand()
            if asked.status >= HTTPStatus.BAD_REQUEST:  # who signs that is no sink that only knows no `HEAD`
                raise _refusal(asked)
        if RECEIPTS_RELATION in asked.headers.get("link", ""):
            await self._by_windows(sink, data)
        else:
            await self._at_once(sink, data)

    async def _at_once(self, sink: Address, data: Data) -> None:
        """All of the data in one request, to a sink that signs nothing. What it says beside its status is its own."""
        data.account.demand()
        whole = Span(0, data.representation.size_bytes, data.representation.size_bytes)
        given = _Given()
        reply = await self._put(sink, data, whole, {}, given, None)
        if reply.status // 100 != 2:  # noqa: PLR2004 - a class of statuses
            raise _refusal(reply)
        if given.count_bytes < whole.length:  # it signs nothing that would say what it has
            raise PeerFailed(f"the sink answered with status {reply.status} before all of the data had been sent")

    async def _by_windows(self, sink: Address, data: Data) -> None:
        """A window after the other, each answered by its receipt."""
        view = await self._transfers.lookup(data.permit.transfer)
        if view is None:
            raise Withdrawn("what the transfer is about is not published any more", "dataset-withdrawn")
        told = orjson.dumps({"dataAddress": self._tokens.data_address(grant_for(view))})
        size = data.representation.size_bytes
        opening = {"Content-Range": f"bytes */{size}", "Content-Type": "application/json", "Content-Digest": content_digest(told)}
        reply = await data.uploads.upload(
            sink.endpoint, _once(told), len(told), headers=_headers(sink) | opening, idle_seconds=IDLE_SECONDS, limit_bytes=ANSWER_BYTES_MAX
        )
        idle = 0
        while True:
            data.still()
            if reply.status == HTTPStatus.NO_CONTENT and OFFSET.lower() not in reply.headers:
                return  # it has everything, and we have its receipts
            if reply.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.CONFLICT):
                raise _refusal(reply)
            more, full, new = dict[str, str](), False, False
            if reply.status == HTTPStatus.OK:
                more[ACK], full, new = await self._acknowledged(data.permit.transfer, reply)
            offset = _offset(reply, size)
            length = 0 if full else min(self._accounts.window_bytes, size - offset)
            if length:
                length = await data.account.allow(offset, length)
            idle = 0 if length or new else idle + 1
            if idle > IDLE_MAX:
                raise PeerFailed("the sink takes no more data and signs for none")
            reply = await self._put(sink, data, Span(offset, length, size), more, _Given())

    async def _acknowledged(self, transfer: str, reply: Reply) -> tuple[str, bool, bool]:
        """The ack of the receipt in an answer; whether the sink says in it that it takes no more now: then the ack goes alone; and whether
        it is a new one. Raises PeerFailed for one that does not hold: it is on record, and nothing follows."""
        token = reply.body.decode("ascii", "replace").strip()
        answered = await self._receipts.take(transfer, token, "ok")
        if answered.outcome not in (Outcome.ACCEPTED, Outcome.DUPLICATE):
            raise PeerRefused(f"the receipt of the sink does not hold: {answered.message}", status=reply.status)
        return answered.ack, kept(Receipt, token).state == "aborted", answered.outcome is Outcome.ACCEPTED

    async def _put(
        self, sink: Address, data: Data, span: Span, more: dict[str, str], given: _Given, limit_bytes: int | None = ANSWER_BYTES_MAX
    ) -> Reply:
        """Bring these bytes; none of them carries an ack alone. `given` says how many were handed over; see `Uploads` for the limit."""
        representation = data.representation
        headers = _headers(sink) | {"Content-Type": representation.media_type, "ETag": representation.etag, **more}
        headers["Link"] = self._link(data.permit.transfer)
        headers["Content-Range"] = span.content_range if span.length else f"bytes */{span.size_bytes}"
        if representation.sha256 is not None:
            headers["Repr-Digest"] = write_repr_digest(representation.sha256)
        async with aclosing(self._body(data, span, given)) as body:
            return await data.uploads.upload(
                sink.endpoint, body, span.length, headers=headers, idle_seconds=IDLE_SECONDS, limit_bytes=limit_bytes
            )

    async def _body(self, data: Data, span: Span, given: _Given) -> Any:
        """The bytes, as far as they may leave."""
        if not span.length:
            return
        offset = span.first
        if data.meter is not None:
            data.meter.seek(offset)
        async with aclosing(pieces(data.source, data.permit.stages, span)) as output:
            async for piece in output:
                rest = piece
                while rest:
                    data.still()
                    count = await data.account.allow(offset, len(rest)) if span.whole else len(rest)
                    count = count if data.meter is None else await data.meter.allow(count, rest[:count])
                    given.count_bytes += count
                    yield rest[:count]
                    self._flows.sent(data.permit.transfer, data.representation.etag, offset, count, span.size_bytes)
                    data.account.sent(offset, count)
                    offset, rest = offset + count, rest[count:]


def _headers(sink: Address) -> dict[str, str]:
    headers = {"Accept": "*/*"} | telemetry.trace_header()
    return headers if sink.access_token is None else headers | {"Authorization": f"Bearer {sink.access_token}"}


def _offset(reply: Reply, size_bytes: int) -> int:
    """Where the sink wants to go on. Raises PeerFailed if it names no place in the data."""
    said = reply.headers.get(OFFSET.lower(), "")
    if not (said.isascii() and said.isdigit() and len(said) <= DIGITS_MAX and int(said) <= size_bytes):
        raise PeerFailed("the sink does not say with which byte to go on")
    return int(said)


def _refusal(reply: Reply) -> ConnectorError:
    text = f"the sink answered with status {reply.status}"
    return PeerFailed(text) if reply.status in AGAIN else PeerRefused(text, status=reply.status)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
