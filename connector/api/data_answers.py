"""What all routes of the data listener share: the token, signatures, and errors as answers. Not the middleware of the other listeners:
small reads are many, and need neither its look at paths nor at bodies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from aiohttp import hdrs, web
from multidict import istr

from connector import telemetry
from connector.api.connections import cut
from connector.api.middleware import again, problem, target_of
from connector.dataplane.gate import Permit
from connector.dataplane.meter import Meter
from connector.dataplane.possession import Possession, Proof
from connector.dataplane_accounts.account import Account
from connector.dsp.messages import Kind
from connector.errors import (
    Busy,
    ConnectorError,
    RangeNotSatisfiable,
    SignatureRefused,
    SourceFailed,
    TokenRefused,
    TooMany,
    Withdrawn,
    answer_to,
    told,
)
from connector.metering import credit
from connector.odrl.codes import Code
from connector.ports import Clock, VerificationKey
from connector.records import Evidence
from connector.signatures import http
from connector.signatures.asking import Means
from connector.signatures.digests import AUTHORIZATION, DIGEST
from connector.signatures.fields import write_bare
from connector.signatures.jws import SigningKey
from connector.signatures.used import Kept, UsedIds

BEARER_CHARACTERS_MAX = 4096
JWS_DOTS = 2  # of the compact form (RFC 7515, 3.1)
BASE_BYTES_MAX = 4096  # of a signature on record: a ledger has no room for whatever a client puts into its fields
SINK = "/sink/"  # the path below which data are brought
TRACEPARENT = istr("traceparent")
AUTHORIZATION_DIGEST = istr(AUTHORIZATION)
SIGNATURE, SIGNATURE_INPUT, ACCEPT_SIGNATURE = istr("Signature"), istr("Signature-Input"), istr("Accept-Signature")
NO_STORE = {hdrs.CACHE_CONTROL: "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answered(tracing: telemetry.Tracing, name: str, handler: Handler) -> Handler:
    """`handler` with its errors as answers. Not the middleware of the other listeners: small reads are many, and need
    neither its look at paths nor at bodies. A trace that the consumer began goes on here; a read begins none."""
    span = tracing.span

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if (parent := request.headers.get(TRACEPARENT)) is None:
                return await handler(request)
            with span(f"data {name}", telemetry.SpanKind.SERVER, parent, route=name):
                return await handler(request)
        except ConnectorError as error:
            return refusal(request, name, error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            telemetry.log.error("defect", door="data", route=name, error=type(error).__name__, exc_info=error)
            return problem(request, ConnectorError("an error of this connector"), 500, "internal")

    return handle


class Signing:
    """Signs the answers to whoever signs its request or asks for it, and looks at the signatures of requests (RFC 9421).

    `url` is the listener's own address as others use it: behind a proxy that is what they sign, and not what arrives here. `signer`
    returns the key that signs now, `keys` those known of a participant; `used` remembers what was used for the next process.
    """

    def __init__(
        self,
        url: str,
        signer: Callable[[], SigningKey],
        keys: Callable[[str], Sequence[VerificationKey]],
        clock: Clock,
        used: Kept | None = None,
    ) -> None:
        self._url, self._signer, self._clock = url, signer, clock
        self._possession = Possession(keys, clock, used)
        self._started, self._noted = clock.now(), UsedIds(monotonic)
        self.means = Means(signer, keys, clock.now, os.urandom)  # the same for what we ask ourselves

    def proof(self, request: web.Request) -> Proof:
        """What the request proves beside its token."""
        return Proof(self._possession, self._request(request))

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Sign an answer whose head is about to leave, which is all that a signature covers: whichever way its body takes.
        One that cannot be signed leaves without, and is worth as much to whoever insists."""
        asked, headers = request.headers, response.headers
        if not signs(request):
            return
        wanted = http.wanted(", ".join(asked.getall(ACCEPT_SIGNATURE, ())), binding_of(request)) or http.Wanted()
        answer = http.Answer(response.status, lambda name: headers.getall(name, ()), self._request(request))
        try:
            given = http.sign(answer, self._signer(), self._clock.now(), nonce=wanted.nonce, label=wanted.label)
        except ConnectorError as error:
            telemetry.log.warning("answer not signed", door="data", status=response.status, reason=error.message)
            return
        headers[SIGNATURE_INPUT], headers[SIGNATURE] = given

    def note(self, request: web.Request, permit: Permit, account: Account) -> None:
        """Have what the consumer has signed in its first request for data with each token put on record, by the next commit about the
        account, which is made anyway: it proves that the consumer has asked. Nothing is kept of a request that covers more than its binding
        names (the token itself, a cookie), is longer than any of ours, or has a query, which may be what opens it: nobody could be shown
        that. Nor of one that may be on record already: where nothing is demanded, a client can send the same again, also to the next
        process."""
        token = request.headers.get(AUTHORIZATION_DIGEST)
        if token is None or token == account.asked_with or "?" in request.raw_path:
            return
        account.asked_with, now, asking = token, self._clock.now(), self._request(request)
        self._started = min(self._started, now)  # the clock was set back since
        try:
            signed = http.verify_request(asking, permit.consumer, self.means.keys(permit.consumer), now)
            if signed.created < self._started or len(signed.base) > BASE_BYTES_MAX or not http.covers_only(asking, signed):
                return
            if not self._noted.take(permit.consumer, signed.nonce or "", signed.created + http.AGE_SECONDS_MAX, now):
                return
        except (SignatureRefused, TooMany) as refused:
            telemetry.log.info("signed request not put on record", transfer=permit.transfer, reason=refused.message)
            return
        label, signature = f"{http.LABEL}=", write_bare(signed.signature)
        asked = {"input": f"{label}{signed.input}", "signature": f"{label}{signature}", "base": signed.base.decode("ascii")}
        fact = telemetry.REQUEST, Kind.TRANSFER, permit.transfer, permit.consumer, None, now
        account.ask(Evidence(*fact, digest=signed.digest, detail={"request": asked}))

    def _request(self, request: web.Request) -> http.Request:
        headers, path = request.headers, target_of(request)
        url = f"{self._url}{path}" if path.startswith("/") else f"{self._url}/{path}"  # `*`, or a host: none that could be signed for
        return http.Request(request.method, url, lambda name: headers.getall(name, ()), binding_of(request))


def signs(request: web.Request) -> bool:
    """Whether the client signs what it says, or asks for signatures: such a one signs receipts, too, as far as anybody knows yet."""
    return SIGNATURE in request.headers or ACCEPT_SIGNATURE in request.headers


def proof_of(signing: Signing | None, request: web.Request) -> Proof | None:
    """What a request proves beside its token, where signatures are looked at."""
    return None if signing is None else signing.proof(request)


def binding_of(request: web.Request) -> http.Binding:
    """What signatures of a request, and of its answer, have to cover: at a sink data are brought, elsewhere fetched."""
    return http.PUSH if request.path.startswith(SINK) else http.PULL


def to_sign(request: web.Request) -> str:
    """The `Accept-Signature` by which a request is asked for with a signature (RFC 9421, 5.1)."""
    binding, there = binding_of(request), request.headers
    body = {DIGEST} if request.body_exists else set()
    components = http.to_cover(http.Request(request.method, request.path, lambda name: there.getall(name, ()), binding))
    names = (each for each in components if each[0].startswith("@") or each[0] in there or each[0] in body)
    return http.ask(names, binding=binding)


def bearer(authorization: str | None) -> str:
    """The token of an `Authorization` header (RFC 6750, 2.1). Clients of Eclipse EDC present what they were given as `authorization` as the
    whole value: a JWS is taken so, too. Raises TokenRefused."""
    said = authorization or ""
    scheme, _, token = said.partition(" ") if " " in said or said.count(".") != JWS_DOTS else ("bearer", "", said)
    if scheme.lower() != "bearer" or not token or len(token) > BEARER_CHARACTERS_MAX:
        raise TokenRefused("send the access token as `Authorization: Bearer ...`")
    return token.strip()


def refusal(request: web.Request, name: str, error: ConnectorError) -> web.Response:
    status, code = answer_to(error)
    say = telemetry.log.warning if isinstance(error, SourceFailed) else telemetry.log.info  # it is our operator who has to do something
    say("refused", door="data", route=name, status=status, code=code, reason=error.message)
    error = told(error)
    response = again(problem(request, error, status, code), error)
    response.headers.update(NO_STORE)
    if isinstance(error, TokenRefused | SignatureRefused):
        # RFC 6750, 3.1: no error code for a request without any token.
        presented = request.headers.get(hdrs.AUTHORIZATION)
        challenge = f'Bearer error="invalid_token", error_description="{error.message}"' if presented else "Bearer"
        response.headers[hdrs.WWW_AUTHENTICATE] = challenge.replace("`", "'")
    if isinstance(error, SignatureRefused):
        response.headers[ACCEPT_SIGNATURE] = to_sign(request)
    if isinstance(error, RangeNotSatisfiable):
        response.headers[hdrs.CONTENT_RANGE] = f"bytes */{error.size_bytes}"
    return response


def cut_short(
    request: web.Request, response: web.StreamResponse, permit: Permit, error: Exception, meter: Meter | None
) -> web.StreamResponse:
    """End the connection short of what was announced. The copy has let go of the transport by now; what still waits in its
    buffer and in the kernel's is dropped, so that a slow reader gets nothing more either. Only what was charged before a quota
    or a credit was used up, or held by others, is the reader's, however slow it is: the connection closes behind it."""
    code = error.code if isinstance(error, Withdrawn) else type(error).__name__
    if isinstance(error, ConnectorError | ConnectionError):
        telemetry.log.info("stream cut", transfer=permit.transfer, code=code, reason=str(error))
    else:
        telemetry.log.error("defect", door="data", route="GET /data/{pid}", error=code, transfer=permit.transfer, exc_info=error)
    used_up = meter is not None and meter.waits and (meter.asks or code == Code.QUOTA_EXHAUSTED or isinstance(error, Busy))
    if not used_up and code != credit.EXHAUSTED:
        cut(request.transport)
    response.force_close()
    return response


def not_allowed(allow: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        response = problem(request, ConnectorError(f"this method is not taken here; taken are {allow}"), 405, "http-405")
        response.headers[hdrs.ALLOW] = allow
        response.force_close()
        return response

    return handle


async def not_found(request: web.Request) -> web.Response:
    response = problem(request, ConnectorError("there is nothing at this address"), 404, "http-404")
    response.force_close()
    return response
