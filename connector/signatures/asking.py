"""Whoever asks with signatures (RFC 9421): requests as they go out, and what their answers have to be signed over.

Pure: clock, keys and chance are given. Every request asks for a signed answer. It is signed itself where that is demanded, once the other
side has shown that it knows signatures, by one of its answers or by asking for ours, and if it is the first with its token: whoever keeps
such a one can show later who has asked, and to whoever knows none it is one field more. An answer that is signed has to hold.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence

from connector.errors import SignatureRefused
from connector.signatures import http
from connector.signatures.digests import AUTHORIZATION, authorization_digest, content_digest
from connector.signatures.jws import SigningKey
from connector.values import Value

REFUSALS = frozenset({400, 401, 403, 431})  # by which a request may be refused for what nobody has asked to be in it
ITSELF = '"authorization"'  # in an `Accept-Signature`: the token, and not its digest
NONCE_BYTES = 16  # 128 bits: never drawn twice


class Means(Value):
    """How we sign: `signer` returns the key that signs now, `keys` those known of a participant, `now` the time in POSIX seconds, `random`
    so many bytes that nobody can guess."""

    signer: Callable[[], SigningKey]
    keys: Callable[[str], Sequence[http.Key]]
    now: Callable[[], float]
    random: Callable[[int], bytes]


class Asked(Value):
    """A request as it goes out. `nonce` is what the answer has to repeat; None if it covers our signature instead."""

    request: http.Request
    headers: Mapping[str, str]
    signed: bool
    nonce: str | None


class Asking:
    """Requests to `other` (a participant id) under one binding. `signs` is whether all from now on are signed, and not only the first with
    each token; `answered` whether `other` has signed an answer before. A token is covered by its digest, unless `other` asks for itself."""

    def __init__(self, means: Means, other: str, binding: http.Binding, *, signs: bool = False) -> None:
        self._means, self._other, self._binding = means, other, binding
        self.signs, self.answered, self._digests = signs, False, True
        self._offers = True  # signatures that nobody has asked for
        self._offered: str | None = ""  # with which token the last one was

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Asked:
        """The request to send. A `body` that is at hand is covered by its `Content-Digest`. Raises SignatureRefused for a header that
        nobody could sign."""
        nonce = urlsafe_b64encode(self._means.random(NONCE_BYTES)).rstrip(b"=").decode("ascii")
        out, binding = dict(headers), self._binding
        token = out.get("Authorization")
        signs = self.signs or (self._offers and token != self._offered)
        asks = http.ask(binding.of_answer, nonce=None if signs else nonce, binding=binding)
        out["Accept-Signature"] = asks
        if body is not None:
            out["Content-Digest"] = content_digest(body)
        lower = {name.lower(): (value,) for name, value in out.items()}
        request = http.Request(method, url, lambda name: lower.get(name, ()), binding)
        if signs:
            if self._digests and (carried := lower.get("authorization")):
                lower[AUTHORIZATION] = (authorization_digest(carried[0]),)
                out["Qiao-Authorization-Digest"] = lower[AUTHORIZATION][0]
            given = http.sign(request, self._means.signer(), self._means.now(), nonce=nonce)
            out["Signature-Input"], out["Signature"] = given
            self._offered = token
            lower |= {http.INPUT: (given[0],), http.SIGNATURE: (given[1],)}
        return Asked(request, out, signs, None if signs else nonce)

    def look(self, asked: Asked, status: int, headers: Mapping[str, str]) -> http.Signed | None:
        """The signature of an answer with these `headers` (lower-case names); None if there is none. Raises SignatureRefused for one that
        does not hold: then the answer is none either."""

        def fields(name: str) -> Sequence[str]:
            return () if (value := headers.get(name)) is None else (value,)

        if self._refuses_digest(asked, status, headers):
            self._digests = False
        self._offers = self._offers and not (asked.signed and status in REFUSALS)  # who cannot bear it has the next one without
        self.signs = self.signs or http.wanted(headers.get(http.ACCEPT, ""), self._binding) is not None
        answer = http.Answer(status, fields, asked.request)
        means = self._means
        try:
            found = http.verify_answer(answer, self._other, means.keys(self._other), means.now(), nonce=asked.nonce)
        except SignatureRefused as refused:
            if refused.code in http.UNSIGNED:
                return None
            raise
        self.signs = self.answered = True
        return found

    def wants(self, asked: Asked, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer refuses a request because it is not signed, or not as `other` has it, and the same one, signed so, is meant."""
        unsigned = status == 401 and not asked.signed  # noqa: PLR2004
        wanted = http.wanted(headers.get(http.ACCEPT, ""), self._binding) is not None
        return wanted and (unsigned or self._refuses_digest(asked, status, headers))

    @staticmethod
    def _refuses_digest(asked: Asked, status: int, headers: Mapping[str, str]) -> bool:
        """Whether the token itself is asked for where its digest was covered: by who does not know that."""
        return status == 401 and bool(asked.request.fields(AUTHORIZATION)) and ITSELF in headers.get(http.ACCEPT, "")  # noqa: PLR2004
