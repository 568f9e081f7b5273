"""Who is speaking: self-issued identity tokens of participants in a registry (port `Identity`).

A token is a JWT that its sender signs itself: `iss` and `sub` are its DID, `aud` is the receiver's, 60 seconds of life, one use.
What the sender is, the registry says, not the token.

Single use is kept in memory, by the time at which the tokens end, so memory is bounded by the rate of calls times their life; a clock that
is set ahead and comes back makes it forget nothing. What a process has taken the next one finds in a file, as far as it would count by the
clock of its start: tokens of a sender whose clock runs ahead, and all of a time in which ours did. A token whose `iat` lies before the
start is refused besides, without any leeway, since a loss of power may have taken the end of that file. `iat` carries fractions of a
second, so this costs a sender whose clock agrees with ours nothing but a retry of what was in flight at the restart; one whose clock is n
seconds behind is refused for the first n seconds. Where our clock is set back to before the start, the start moves with it, and what counts
again is looked for in the file: else nobody would be taken for all that time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from math import inf, nextafter
from time import monotonic
from typing import Any, Protocol

from connector.errors import Unauthenticated
from connector.ports import Caller, Clock, Participant
from connector.signatures.jws import SKEW_SECONDS, PublicKey, SigningKey, check, open, read, sign
from connector.signatures.used import Kept, UsedIds

TYP = "JWT"
SCHEME = "Bearer"
LIFE_SECONDS = 60.0  # longer than a request may take to arrive, short enough to be worth little
CLAIMS_SECONDS = 86_400.0  # how long what the registry said counts after it was read: a stream may outlive the token that began it
JTI_BYTES = 16  # 128 bits: never drawn twice


class Members(Protocol):
    """The registry: participants by id or name, their keys by `kid` or owner, and who changes at a reload."""

    def find(self, name: str) -> Participant | None: ...
    def participants(self) -> Sequence[Participant]: ...
    def key(self, kid: str) -> PublicKey | None: ...
    def keys(self, id: str) -> Sequence[PublicKey]: ...
    def listen(self, changed: Callable[[str], None]) -> None: ...


class Signer(Protocol):
    """Our own keys: the one that signs now, and the public halves of all that have not ended by then."""

    def active(self, now: float) -> SigningKey: ...
    def public(self) -> Sequence[PublicKey]: ...


class RegistryIdentity:
    """The port `Identity` for the participants of `members`, with `signer` holding the keys of `own`."""

    def __init__(
        self,
        own: Participant,
        members: Members,
        signer: Signer,
        clock: Clock,
        *,
        random: Callable[[int], bytes] = os.urandom,
        claims_seconds: float = CLAIMS_SECONDS,
        used: Kept | None = None,
    ) -> None:
        self._own = own
        self._members = members
        self._signer = signer
        self._clock = clock
        self._random = random
        self._claims_seconds = claims_seconds
        self._started = clock.now()
        self._used = UsedIds(monotonic, kept=used)
        self._used.recall(self._started)

    @property
    def own(self) -> Participant:
        return self._own

    async def mint(self, audience: str) -> str:
        """A fresh header value for one delivery attempt to participant `audience`."""
        now = self._clock.now()
        claims = {
            "iss": self._own.id,
            "sub": self._own.id,
            "aud": audience,
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "jti": self._random(JTI_BYTES).hex(),
        }
        return f"{SCHEME} {sign(claims, self._signer.active(now), TYP)}"

    async def verify(self, authorization: str | None) -> Caller:
        """See the port. The token is used up only if everything else about it is right."""
        if not authorization:
            raise Unauthenticated("there is no `Authorization` header; send `Bearer` and an identity token")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != SCHEME.lower():
            raise Unauthenticated("the `Authorization` header is not of scheme `Bearer`")
        now, key = self._clock.now(), None

        def public(kid: str) -> bytes:
            nonlocal key
            key = self._key(kid, now)
            return key.public

        kid, claims = open(token, public, TYP)
        issuer = kid.partition("#")[0]
        if claims.get("iss") != issuer:
            raise Unauthenticated("the token's `iss` is not the participant whose key signed it")
        if claims.get("sub") != issuer:
            raise Unauthenticated("the token's `sub` is not its `iss`")
        issued, ends = check(claims, audience=self._own.id, now=now)
        if now < self._started:  # the clock was set back since: nobody could have a fresher one for all that time
            self._used.recall(now)
            self._started = now  # only now: where that cannot be read nobody is heard
        if issued < self._started:
            before = f"the token was issued {self._started - issued:.0f} s before this connector started"
            raise Unauthenticated(f"{before}; send a fresh one, and if it is one compare the clocks of both sides")
        if not self._used.take(issuer, claims["jti"], ends + SKEW_SECONDS, now):
            raise Unauthenticated("the token was used before; send a fresh one for each request")
        participant = self._members.find(issuer)
        if participant is None or key is None:
            raise Unauthenticated("the token's issuer is not a participant of our registry")
        until = now + self._claims_seconds
        return Caller(participant, participant.claims, until if key.not_after is None else min(until, key.not_after))

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """See the port."""
        return sign(claims, self._signer.active(self._clock.now()), typ)

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        """See the port."""
        return read(token, typ, issuer, self.keys(issuer), self._clock.now() if at is None else at)

    def keys(self, participant: str) -> Sequence[PublicKey]:
        """Our own are those that we hold, whether or not the registry has our self-description."""
        return self._signer.public() if participant == self._own.id else self._members.keys(participant)

    def find(self, name: str) -> Participant | None:
        if name in (self._own.id, self._own.name):
            return self._own
        return self._members.find(name)

    def participants(self) -> Sequence[Participant]:
        return self._members.participants()

    def standing(self, participant: str, claims: Mapping[str, Any], expires: float) -> Caller | None:
        """What the registry says now, whatever it said when the participant last spoke, while one of its keys is valid: which one is
        no matter, so that a key can be replaced while data flow."""
        now = self._clock.now()
        if participant == self._own.id:
            return Caller(self._own, self._own.claims, now + self._claims_seconds)
        known = self._members.find(participant)
        valid = [key for key in self._members.keys(participant) if key.valid(now)]
        if known is None or not valid:
            return None
        last = max(inf if key.not_after is None else nextafter(key.not_after, inf) for key in valid)
        return Caller(known, known.claims, min(now + self._claims_seconds, last))

    def listen(self, changed: Callable[[str], None]) -> None:
        self._members.listen(changed)

    def _key(self, kid: str, now: float) -> PublicKey:
        key = self._members.key(kid)
        if key is None:
            if self._members.find(kid.partition("#")[0]) is None:
                raise Unauthenticated("the token's issuer is not a participant of our registry")
            raise Unauthenticated("the token's `kid` is not a key that its issuer's self-description names")
        if not key.valid(now):
            raise Unauthenticated("the token's key is not valid at this time; see `notBefore` and `notAfter` in the self-description")
        return key
