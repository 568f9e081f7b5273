"""That one side has closed an agreement, and when, signed: the closing, as a value and as claims of a JWS. Pure.

From that instant nothing is owed for time any more, so both sides have to go by the same one. Whoever closes signs it in the commit that
closes and tells the other side. Where both do, `first` says which one counts, of the same two on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from connector.metering import claims as read
from connector.metering.chain import AHEAD_SECONDS_MAX, Account
from connector.metering.codes import refused
from connector.metering.counts import NOTHING, Counts
from connector.metering.objects import manifest_of

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


@dataclass(frozen=True, slots=True)
class Closing:
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
