"""Requests to a provider's data listener that we sign, and its answers, whose signatures are looked at (RFC 9421).

Every request asks for a signed answer. The first with each token is signed itself, and all of them once the provider has shown that it
knows signatures, by one of its answers or by asking for ours, or if the agreement demands it. An answer that is signed has to hold: one
that contradicts what its provider has signed is none, nor is one with data and no signature after others that had one. What both sides
have signed of an answer with data is put on record beside it.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any

import orjson

from connector import telemetry
from connector.dsp.messages import Kind
from connector.errors import PeerRefused, SignatureRefused
from connector.intake.patience import CLOCKS
from connector.intake.promise import Broken
from connector.ports import Clock, Download, Peer, Reply, VerificationKey
from connector.records import Changes, Evidence
from connector.signatures import http
from connector.signatures.asking import Asked, Asking, Means
from connector.signatures.digests import AUTHORIZATION
from connector.signatures.jws import SigningKey
from connector.values import Value

DATA = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
DEMANDED = b"signed-requests"  # the last part of `ports.SIGNED_REQUESTS`, whichever prefix a policy writes before it
SHOWN_CHARACTERS_MAX = 256
SHOWN = ("etag", "content-range")  # of an answer, on record beside its signature
UNSIGNED = (
    "the provider has signed answers of this transfer before, and this one with data came without a signature:"
    " whoever took that off may have changed the answer"
)

Decide = Callable[[Callable[[], Awaitable[Changes | None]], str], Awaitable[Changes | None]]


class Signing(Value):
    """How a consumer signs: `signer` returns the key that signs now, `keys` those known of a participant."""

    signer: Callable[[], SigningKey]
    keys: Callable[[str], Sequence[VerificationKey]]
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    @property
    def means(self) -> Means:
        """The same for whoever knows no ports."""
        return Means(self.signer, self.keys, self.clock.now, self.random)


class SignedPeer:
    """The port `Peer` towards the data listener of `provider` (a participant id), for one transfer. With `decide` (`Journal.decide`)
    signatures of answers with data are put on record. All methods raise Broken for an answer that contradicts its signature, and
    PeerRefused for one that holds at another time: a clock may have been set."""

    def __init__(
        self, peer: Peer, signing: Signing, provider: str, transfer: str, *, demanded: bool = False, decide: Decide | None = None
    ) -> None:
        self._peer, self._signing, self._provider, self._transfer = peer, signing, provider, transfer
        self._decide = decide
        self._asking = Asking(signing.means, provider, http.PULL, signs=demanded)

    def expect(self, facts: Iterable[Evidence]) -> None:
        """Take from what is on record of the transfer whether its provider has signed answers with data before."""
        self._asking.answered |= any(fact.what == telemetry.LEG and "answer" in fact.detail for fact in facts)

    def check(self, url: str) -> None:
        """See the port."""
        self._peer.check(url)

    def afresh(self, url: str) -> None:
        """See the port."""
        self._peer.afresh(url)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        """See the port. A GET that is refused because it is not signed is sent once more, signed; anything else is for its sender to
        repeat, who has to make it anew."""
        while True:
            asked = self._ask(method, url, headers, body)
            reply = await self._peer.send(method, url, headers=asked.headers, body=body, limit_bytes=limit_bytes)
            self._look(asked, reply.status, reply.headers)
            if method != "GET" or not self._asking.wants(asked, reply.status, reply.headers):
                return reply

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str], idle_seconds: float = 30.0) -> AsyncIterator[Download]:
        """See the port, and `send`."""
        async with AsyncExitStack() as stack:
            while True:
                asked = self._ask(method, url, headers)
                incoming = await stack.enter_async_context(self._peer.stream(method, url, headers=asked.headers, idle_seconds=idle_seconds))
                signed = self._look(asked, incoming.status, incoming.headers)
                if signed is None and self._asking.answered and incoming.status in DATA:
                    telemetry.log.warning("answer without signature refused", transfer=self._transfer, status=incoming.status)
                    raise Broken(UNSIGNED, "answer-unsigned")
                if method != "GET" or not self._asking.wants(asked, incoming.status, incoming.headers):
                    break
                await stack.aclose()
            keeping: asyncio.Task[None] | None = None
            if self._decide is not None and incoming.status in DATA and (signed is not None or (asked.signed and self._asking.signs)):
                keeping = asyncio.create_task(self._keep(self._decide, asked, incoming, signed), name=f"evidence {self._transfer}")
            try:
                yield incoming
            finally:
                if keeping is not None:  # it was written while the data came
                    await asyncio.shield(keeping)

    async def close(self) -> None:
        """See the port: the connections are those of the peer that was given, and stay."""

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Asked:
        self._peer.check(url)
        return self._asking.ask(method, url, headers, body)

    def _look(self, asked: Asked, status: int, headers: Mapping[str, str]) -> http.Signed | None:
        """The signature of an answer. Raises Broken for one that does not hold; None if there is none."""
        try:
            return self._asking.look(asked, status, headers)
        except SignatureRefused as refused:
            telemetry.log.warning("signature of an answer refused", transfer=self._transfer, status=status, code=refused.code)
            text = f"the provider's answer does not hold: {refused.message}"
            if refused.code in CLOCKS:
                raise PeerRefused(text, status=status, said=refused.code) from None
            raise Broken(text, refused.code) from None

    async def _keep(self, decide: Decide, asked: Asked, incoming: Download, signed: http.Signed | None) -> None:
        """Put on record what both sides have signed, with what their signatures cover, which proves it to anybody: of the token its digest
        alone, and of an address with a query only what a digest tells."""
        shown = {name: incoming.headers[name][:SHOWN_CHARACTERS_MAX] for name in SHOWN if name in incoming.headers}
        detail: dict[str, Any] = {"status": int(incoming.status)} | shown
        if asked.signed:
            lines = {name: asked.request.fields(name)[0] for name in (http.INPUT, http.SIGNATURE)}
            detail["request"] = {"input": lines[http.INPUT], "signature": lines[http.SIGNATURE]}
            if "?" not in asked.request.url and asked.request.fields(AUTHORIZATION):  # a query may be what opens it, as a token is
                detail["request"]["base"] = http.base_of(asked.request, lines[http.INPUT]).decode("ascii")
        if signed is not None:
            signature = b64encode(signed.signature).decode("ascii")
            detail["answer"] = {"input": signed.input, "signature": signature, "digest": signed.digest.hex()}
            if "?" not in asked.request.url:
                detail["answer"]["base"] = signed.base.decode("ascii")
        digest = signed.digest if signed is not None else None
        now = self._signing.clock.now()
        fact = Evidence(telemetry.LEG, Kind.TRANSFER, self._transfer, self._provider, None, now, digest=digest, detail=detail)

        async def step() -> Changes:
            return Changes(evidence=(fact,))

        await decide(step, self._transfer)


def demanded(document: Mapping[str, Any]) -> bool:
    """Whether an agreement names signed requests, wherever that stands in it: to sign once too often does nobody harm, and a provider that
    asks for it is heard in any case."""
    return DEMANDED in orjson.dumps(document)
