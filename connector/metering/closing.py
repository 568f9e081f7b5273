"""That one side has closed an agreement, and when, signed: the closing, and the answer to it, as values and as claims of a JWS. Pure.

From that instant nothing is owed for time any more, so both sides have to go by the same one. Whoever closes signs it in the commit that
closes and tells the other side, which signs that it has taken that, or refuses it, and by which instant it goes. Where both close, `first`
says which one counts, of the same two on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Self

from connector.metering import claims as read
from connector.metering.chain import AHEAD_SECONDS_MAX, Account
from connector.metering.codes import refused
from connector.metering.content import write_bytes
from connector.metering.counts import NOTHING, Counts
from connector.metering.objects import digest, manifest_of
from connector.values import Value

MICROSECONDS: Final = 1_000_000
LATE_SECONDS: Final = 7 * 86_400.0  # that a consumer's closing may lie back: for so long one side may be away
LATE: Final = int(LATE_SECONDS) * MICROSECONDS
CLOSING: Final[read.Table] = {
    "iss": read.did,
    "aud": read.did,
    "jti": read.jti,
    "iat": read.number,
    "agr": read.id_,
    "at": read.number,
}
TAKEN, REFUSED = "taken", "refused"
REFUSALS: Final = ("closing-before", "closing-twice", "closing-heard")  # for good, whenever it is told again: so they are signed
CLOSING_ACK: Final[read.Table] = {
    "iss": read.did,
    "aud": read.did,
    "jti": read.jti,
    "iat": read.number,
    "agr": read.id_,
    "clos": read.digest,
    "st": read.one_of(TAKEN, REFUSED),
    "why": read.optional(read.one_of(*REFUSALS)),
    "own": read.optional(read.text(re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}"), 4096)),
    "ends": read.optional(read.number),
}


class Closing(Value):
    """The word of `issuer` that it has closed an agreement at the instant `at` (microseconds since 1970). `issued` (POSIX seconds) is when
    it was signed: later than that only where the key of then has ended before the other side could be told."""

    TYP: ClassVar[str] = "dp-closing+jwt"

    issuer: str
    audience: str
    id: str
    issued: int
    agreement: str
    at: int

    @property
    def seconds(self) -> float:
        """The instant in POSIX seconds, as an agreement has it in `closed`."""
        return seconds_of(self.at)

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "jti": self.id,
            "iat": self.issued,
            "agr": self.agreement,
            "at": self.at,
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of a closing. Raises MeterRefused."""
        got = read.read(claims, CLOSING)
        if got["at"] // MICROSECONDS > got["iat"]:
            raise refused("claim-at")
        return cls(*got.values())


class ClosingAck(Value):
    """The word of `issuer` that it has the closing of the other side whose digest is `closing`: it has taken it, or refuses it for the
    code `why`. `own` is its own closing (JWS) if it has signed one that counts, `ends` the instant (microseconds since 1970) at which the
    agreement ends for it, None as long as it has not."""

    TYP: ClassVar[str] = "dp-closing-ack+jwt"

    issuer: str
    audience: str
    id: str
    issued: int
    agreement: str
    closing: bytes
    state: str = TAKEN
    why: str | None = None
    own: str | None = None
    ends: int | None = None

    @property
    def said(self) -> tuple[object, ...]:
        """What it says, whenever it was signed."""
        return self.closing, self.state, self.why, self.own, self.ends

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "jti": self.id,
            "iat": self.issued,
            "agr": self.agreement,
            "clos": write_bytes(self.closing),
            "st": self.state,
            "why": self.why,
            "own": self.own,
            "ends": self.ends,
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of the answer to a closing. Raises MeterRefused."""
        got = read.read(claims, CLOSING_ACK)
        if (got["st"] == REFUSED) != (got["why"] is not None):
            raise refused("claim-why")
        if got["st"] == TAKEN and got["ends"] is None:
            raise refused("claim-ends")
        return cls(*got.values())


def demand_answer(ack: ClosingAck, token: str, closing: Closing, own: Closing | None, provider: str, now: float) -> None:
    """Whether an answer is one to this `closing`, as it was signed (JWS `token`), and says what follows from that, `now` (POSIX seconds)
    or before; `own` is the closing that is in it.

    Raises MeterRefused with a `closing-ack-` code.
    """
    parties = ack.issuer, ack.audience, ack.agreement
    if parties != (closing.audience, closing.issuer, closing.agreement):
        raise refused("closing-ack-parties")
    if ack.issued > now + AHEAD_SECONDS_MAX:
        raise refused("closing-ack-ahead")
    if ack.closing != digest(token):
        raise refused("closing-ack-closing")
    if own is not None and (own.issuer, own.audience, own.agreement) != parties:
        raise refused("closing-ack-own")
    counts = first((closing,) if own is None else (closing, own), provider)
    if ack.state == TAKEN and counts is not None and ack.ends != counts.at:
        raise refused("closing-ack-ends")
    if ack.why == "closing-heard" and (own is None or closing.issuer != provider or closing.at <= own.at):
        raise refused("closing-ack-why")


def instant_of(seconds: float) -> int:
    """POSIX seconds in microseconds, the nearest."""
    return round(seconds * MICROSECONDS)


def seconds_of(microseconds: int) -> float:
    """The other way round."""
    return microseconds / MICROSECONDS


def first(closings: Iterable[Closing], provider: str) -> Closing | None:
    """The closing that counts: the earlier one, and of two of the same instant the provider's; None if there is none. A consumer's that
    lies more than LATE_SECONDS before the provider's does not count: the provider has heard of it too late, and has closed instead."""
    found = sorted(closings, key=lambda each: (each.at, each.issuer != provider))
    granted = next((each.at for each in found if each.issuer == provider), 0) - LATE
    return next((each for each in found if each.issuer == provider or each.at >= granted), None)


def is_new(closing: Closing, own: str, before: Closing | None, now: float) -> bool:
    """Whether a closing that was sent to us, `own`, is another than the one that this side has sent `before`. One that was signed anew, and
    says the same instant, is the same.

    Raises MeterRefused with the code `closing-parties`, `closing-twice` or `closing-ahead`.
    """
    if closing.audience != own:
        raise refused("closing-parties")
    if before is not None:
        if before.at != closing.at:
            raise refused("closing-twice")
        return False
    if closing.seconds > now + AHEAD_SECONDS_MAX:
        raise refused("closing-ahead")
    return True


def is_late(closing: Closing, now: float) -> bool:
    """Whether a consumer's closing is laid so far back that months of a subscription would be owed no more, in which the data could be
    had at any hour. When it was signed is its own word. A provider that has not closed the agreement closes it then, and `first` counts."""
    return instant_of(now) - closing.at > LATE


def demand_unheard(closing: Closing, own: Closing, told: float) -> None:
    """Whether a provider, which has taken our `own` closing at `told` (POSIX seconds), asks for more by one that lies after that: it has
    done so in time, and so has no reason to close instead. Raises MeterRefused with the code `closing-heard`."""
    if not is_late(own, told) and closing.seconds > told:
        raise refused("closing-heard")


def demand_after(closing: Closing, account: Account, before: Counts | None) -> None:
    """Whether a consumer's closing is not laid before what it has signed of a transfer since, by which it would owe less for time than it
    has used. `before` is what was signed for up to the closing and what two clocks may be apart, None if that was nothing.

    What was on its way is signed for later, by days if one side was away: so it is no matter when the last receipts came, but that there
    is no more in them than can have been on its way, which is the credit, and no more time than two clocks explain.

    Raises MeterRefused with the code `closing-before`.
    """
    manifest, then, counts = manifest_of(account.manifest), before or NOTHING, account.counts
    late = counts.bytes - then.bytes > manifest.credit_bytes or counts.microseconds - then.microseconds > AHEAD_SECONDS_MAX * MICROSECONDS
    if account.sequence and (late or manifest.issued > closing.seconds + AHEAD_SECONDS_MAX):
        raise refused("closing-before")
