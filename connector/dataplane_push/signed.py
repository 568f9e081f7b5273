"""Requests to a sink that we sign, and its answers, whose signatures are looked at (RFC 9421).

As with requests for data (`connector.intake.signed`) every request asks for a signed answer; the first is signed, which brings no data, and
all of them once the sink has shown that it knows signatures. Where an agreement demands signed requests it holds of both sides, since here
they have changed places: each of ours is signed, and nothing leaves before the consumer has signed that the sink is its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Final, Protocol

from connector import telemetry
from connector.dataplane.quotas import Decide
from connector.dsp.messages import Kind
from connector.errors import PeerRefused, SignatureRefused
from connector.ports import Reply, Store
from connector.records import Changes, Evidence
from connector.remembered import Remembered
from connector.signatures.asking import Asked, Asking, Means
from connector.signatures.digests import DIGEST, check_content
from connector.signatures.fields import write_bare
from connector.signatures.http import PUSH, Answer, Signed, covers_only

SINK: Final = "sink"  # what the record says of it
KNOWN_MAX: Final = 65_536  # transfers of whose sinks it is at hand whether they sign
KNOWN_BYTES: Final = 256  # that this takes of one
BASE_BYTES_MAX: Final = 4096  # of a signature on record: a ledger has no room for whatever a sink puts into its fields
DONE: Final = 2  # the class of statuses that say so
UNPROVEN: Final = (
    "the agreement demands signatures (RFC 9421), and the sink has not signed its answer: nobody has proven that it is the consumer's;"
    " have it answer `Accept-Signature`, or fetch the data as `HttpData-PULL`"
)
UNSIGNED: Final = "the sink has signed answers before, and this one came without a signature: whoever took that off may have changed it"
UNNAMED: Final = "the sink has signed an answer without its body; name that in `Content-Digest`"


class Uploads(Protocol):
    """The way to a sink, behind the egress guard."""

    def check(self, url: str) -> None:
        """Raises EgressDenied for an address that is never dialled."""

    def afresh(self, url: str) -> None:
        """See the port `connector.ports.Peer`."""

    async def send(self, method: str, url: str, *, headers: dict[str, str], limit_bytes: int | None = None) -> Reply: ...

    async def upload(
        self, url: str, body: AsyncIterator[bytes], length: int, *, headers: dict[str, str], idle_seconds: float, limit_bytes: int | None
    ) -> Reply:
        """One PUT of `length` bytes; of an answer without `limit_bytes` nothing is kept but the head. Raises PeerFailed if nothing moves
        for `idle_seconds`, EgressDenied, and what `body` raises."""


class Sinks:
    """Of which transfers the sinks sign, as the record has it: once one has, an answer of it without a signature is none, in whichever
    attempt and after whichever start of ours."""

    def __init__(self, means: Means, store: Store, decide: Decide) -> None:
        self._means, self._store, self._decide = means, store, decide
        self._known: Remembered[str, bool] = Remembered(KNOWN_MAX, KNOWN_MAX * KNOWN_BYTES)

    async def asking(self, transfer: str, consumer: str, *, demanded: bool) -> Asking:
        """Asks the sink of a transfer; each request is signed where that is `demanded`, or it has signed before."""
        if (known := self._known.get(transfer)) is None:
            known = any(fact.what == telemetry.LEG and SINK in fact.detail for fact in await self._store.evidence_of(transfer))
            self._known.put(transfer, known, KNOWN_BYTES)
        asking = Asking(self._means, consumer, PUSH, signs=demanded or known)
        asking.answered = known
        return asking

    async def signs(self, transfer: str, consumer: str, shown: Mapping[str, str] | None) -> None:
        """Put on record that it does, if that is not known yet, with what its consumer has signed, as far as that is to be `shown`."""
        if self._known.get(transfer):
            return
        fact = Evidence(telemetry.LEG, Kind.TRANSFER, transfer, consumer, None, self._means.now(), detail={SINK: shown or "signs"})

        async def step() -> Changes:
            return Changes(evidence=(fact,))

        await self._decide(step, transfer)
        self._known.put(transfer, True, KNOWN_BYTES)


class SignedUploads:
    """The way to the sink of one transfer, over `uploads`; `asking` signs, and is what knows of the sink's signatures. All methods raise
    PeerRefused for an answer that contradicts its signature, with its code as `said`; what is asked next goes over a new connection."""

    def __init__(self, uploads: Uploads, asking: Asking, transfer: str) -> None:
        self._uploads, self._asking, self._transfer = uploads, asking, transfer
        self.shown: Mapping[str, str] | None = None  # of the first answer that was signed: that the consumer wants the data brought

    @property
    def answered(self) -> bool:
        """Whether the sink has signed an answer."""
        return self._asking.answered

    def demand(self) -> None:
        """Raise PeerRefused unless the sink has signed an answer."""
        if not self.answered:
            raise PeerRefused(UNPROVEN, status=HTTPStatus.UNAUTHORIZED)

    async def head(self, url: str, *, headers: dict[str, str], limit_bytes: int) -> Reply:
        """Ask what is wanted; once more, signed, if that is refused without."""
        self._uploads.check(url)
        while True:
            asked = self._asking.ask("HEAD", url, headers)
            reply = await self._uploads.send("HEAD", url, headers=dict(asked.headers), limit_bytes=limit_bytes)
            self._look(asked, reply)
            if not self._asking.wants(asked, reply.status, reply.headers):
                return reply

    async def upload(
        self, url: str, body: AsyncIterator[bytes], length: int, *, headers: dict[str, str], idle_seconds: float, limit_bytes: int | None
    ) -> Reply:
        """See `Uploads`. What the body is has to stand in `headers`: it may be too much to be looked at before it leaves."""
        self._uploads.check(url)
        asked = self._asking.ask("PUT", url, headers)
        sent = dict(asked.headers)
        reply = await self._uploads.upload(url, body, length, headers=sent, idle_seconds=idle_seconds, limit_bytes=limit_bytes)
        self._look(asked, reply, kept=limit_bytes is not None)
        return reply

    def _look(self, asked: Asked, reply: Reply, *, kept: bool = True) -> None:
        """Believe what is said, or raise PeerRefused. An error without a signature may be a proxy's, and moves nothing; nor does a body
        that was not `kept`."""
        try:
            signed = self._asking.look(asked, reply.status, reply.headers)
            if signed is not None and kept and DIGEST in reply.headers:
                check_content(lambda name: [reply.headers[name]], reply.body)
            elif signed is not None and reply.body and reply.status // 100 == DONE:
                raise SignatureRefused(UNNAMED, "content-digest-missing")
            moves = reply.status // 100 == DONE or reply.status == HTTPStatus.CONFLICT
            if signed is None and self._asking.answered and moves:
                raise SignatureRefused(UNSIGNED, "answer-unsigned")
        except SignatureRefused as refused:
            telemetry.log.warning("signature of an answer refused", transfer=self._transfer, status=reply.status, code=refused.code)
            self._uploads.afresh(asked.request.url)
            raise PeerRefused(f"the sink's answer does not hold: {refused.message}", status=reply.status, said=refused.code) from None
        if signed is not None and self.shown is None:
            self.shown = _shown(asked, signed)


def _shown(asked: Asked, signed: Signed) -> Mapping[str, str] | None:
    """What of an answer anybody can be shown; None of one that covers more than its binding names, is longer than any of ours, or is to an
    address with a query, which may be what opens it."""
    only = covers_only(Answer(HTTPStatus.OK, lambda _: (), asked.request), signed)
    if not only or len(signed.base) > BASE_BYTES_MAX or "?" in asked.request.url:
        return None
    return {"input": signed.input, "signature": write_bare(signed.signature), "base": signed.base.decode("ascii")}
