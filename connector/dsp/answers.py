"""What an HTTP status in answer to a message of ours means: taken, not now, in doubt, or refused for good. No I/O, no clock.

DSP 2025-1 fixes 2xx, 400 and 404; the rest follows RFC 9110 and what stands between two connectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

from msgspec import Struct

from connector.dsp.exchange import Process
from connector.dsp.messages import ERROR_TYPE, Kind, Move

# "Not now": time-outs, overload, a proxy in front of a peer that restarts. So are all from 500 on.
LATER = frozenset({408, 425, 429})
ERROR, SERVER_ERROR, BAD_REQUEST = 300, 500, 400
# Statuses that are final only when repeated, and for which share of the time given: 401, 403 and 404 come from proxies and
# clocks as well as from peers; 400 and 409 also from two messages that crossed, which is over as soon as either is answered.
DOUBTFUL: dict[int, float] = {400: 1 / 15, 401: 1.0, 403: 1.0, 404: 1.0, 409: 1 / 15}
REFUSALS_MIN = 5  # in that time, too: a peer that was away for most of it has not been asked
CROSSED = frozenset({BAD_REQUEST, 409})
NOT_US, NOT_FOUND = frozenset({401, 403}), 404
DESCRIPTION = re.compile(r'error_description="([^"]*)"')
DESCRIPTION_CHARACTERS_MAX = 200
MENDED = "if our key or address is new to it, its operator has to take our self-description (and `connector reload` at a Qiao)"
RETRY_AFTER_DIGITS_MAX = 9
CLOCKS_APART = "clocks-apart"  # the code of a refusal that `by_clocks` tells
APART_SECONDS = 60.0  # beyond which a token of one side is not taken by the other


def taken(status: int) -> bool:
    """Whether the peer has acknowledged the message."""
    return status < ERROR


class Doubts(Struct):
    """The refusals that one message has met. `seconds` is how long one has to be repeated that need not be the peer's own."""

    seconds: float
    count: int = 0
    since: float = 0.0

    def over(self, status: int, move: Move, process: Process, now: float) -> bool:
        """Note an error answer at the instant `now` (seconds of any clock that only grows) and return whether it ends the
        attempts. Nothing crosses the first message of a process, or a termination; who does not take who we are has not been told
        of one, and is until its time is over."""
        if status >= SERVER_ERROR or status in LATER or (move.termination and status in NOT_US):
            return False
        if status not in DOUBTFUL or (status in CROSSED and move.termination) or (status == BAD_REQUEST and process.peer_pid is None):
            return True
        self.since = now if self.count == 0 else self.since
        self.count += 1
        return self.count >= REFUSALS_MIN and now - self.since >= DOUBTFUL[status] * self.seconds

    def crossed(self, now: float) -> bool:
        """Whether the refusals so far may come from two messages that crossed, of which the peer's has not been answered: then what it says
        of its state is as old."""
        return self.count > 0 and now - self.since < DOUBTFUL[BAD_REQUEST] * self.seconds


def told_by(status: int, document: object, kind: Kind) -> int:
    """The status by what it means: a 404 that carries the error object of a process (Eclipse EDC says so that it knows no such agreement)
    is no proxy's but the peer's own word, as a 400 is."""
    own = isinstance(document, Mapping) and document.get("@type") == ERROR_TYPE[kind]
    return BAD_REQUEST if status == NOT_FOUND and own else status


def in_words(status: int, code: str | None, reasons: Sequence[str], challenge: str | None) -> str:
    """What an error answer says: its code and reasons; without any (a 404 of the DSP has an empty body, whoever is asked and whatever the
    reason) what its status and its `challenge` (`WWW-Authenticate`, RFC 6750) mean, and how that is mended."""
    if said := " ".join(part for part in (code or "", "; ".join(reasons)) if part):
        return f"{status} {said}"
    described = DESCRIPTION.search(challenge or "")
    if status in NOT_US or (status == NOT_FOUND and challenge is not None):
        why = f" ({''.join(c for c in described[1] if c.isprintable())[:DESCRIPTION_CHARACTERS_MAX]})" if described else ""
        return f"{status}: the peer does not take who we are{why}; {MENDED}"
    if status == NOT_FOUND:
        return f"{status}: the peer has nothing at this address, or does not say it to whom it does not know; {MENDED}"
    return str(status)


def apart_seconds(date: str | None, now: float) -> float:
    """How far the clock of whoever answered, by its `Date` (RFC 9110, 6.6.1), is from `now` (POSIX seconds), either way; 0 if it says none.
    Nobody has signed that: it tells why we are not taken for who we are, and nothing follows from it but patience."""
    try:
        return abs(parsedate_to_datetime(date or "").timestamp() - now)
    except (ValueError, OverflowError):  # a year of thirty digits is none
        return 0.0


def by_clocks(status: int, date: str | None, now: float) -> bool:
    """Whether an answer does not take who we are, by a clock so far from ours (`now`, POSIX seconds) that it could not: it is right again,
    if only once an operator has seen it."""
    return status in NOT_US and apart_seconds(date, now) > APART_SECONDS


def retry_after(value: str | None) -> float:
    """`Retry-After` in seconds (RFC 9110, 10.2.3), 0 where none is named; a date counts as none."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) <= RETRY_AFTER_DIGITS_MAX else 0.0
