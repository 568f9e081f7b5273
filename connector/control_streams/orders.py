"""What is said about orders, and what follows from how a transfer of one goes. No I/O.

Whoever carries them out is `connector.control.pulls`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import PurePath
from typing import Any

from connector.control_billing.affording import BUDGET_SHORT
from connector.dsp.answers import CLOCKS_APART, LATER
from connector.dsp.exchange import Process
from connector.errors import Contradiction, InvalidRequest, PeerFailed, PeerRefused
from connector.metering.live import LOST
from connector.metering.spans import read_span
from connector.odrl import Code
from connector.records import Pull
from connector.values import replace

SHOWN_CHARACTERS = 40  # of a range that is none


def left_by(pull: Pull) -> str:
    """The key under which stands which order has last left a part of this dataset, or of this range of it, beside this file."""
    what = (pull.peer, pull.dataset, pull.out, *((pull.range,) if pull.range else ()))
    place = hashlib.sha256("\0".join(what).encode()).hexdigest()
    return f"pull:part:{place}"


def ranged(pull: Pull, said: str | None) -> Pull:
    """The order, of a range of bytes if one is `said`. Raises InvalidRequest for what is none, and beside what goes with no range."""
    if said is None:
        return pull
    if pull.push or pull.most_bytes is not None or pull.until is not None:
        why = "a range is fetched from data with an end, and goes with no `push`, `most_bytes` or `seconds`; leave out one or the other"
        raise InvalidRequest(f"`range` is `{said[:SHOWN_CHARACTERS]}`: {why}", pointer="/range")
    try:
        return replace(pull, range=str(read_span(said)))
    except ValueError as error:
        raise InvalidRequest(f"`range` is `{said[:SHOWN_CHARACTERS]}`: {error}", pointer="/range") from None


def same(one: Pull, other: Pull) -> bool:
    """Whether two orders ask for the same data in the same file, over however many connections."""
    return all(
        getattr(one, name) == getattr(other, name) for name in ("peer", "dataset", "out", "purposes", "most_bytes", "until", "range")
    )


def part_bytes(pull: Pull) -> int | None:
    """How much of the data an order that is over has left in a part beside its file (bytes); None where there is none."""
    return pull.received_bytes if pull.stage == "failed" and pull.validator is not None else None


def brought(pull: Pull) -> tuple[str, ...]:
    """The transfers that have brought something of the part, so that nothing is signed for under two of them."""
    return joined(pull.earlier, (pull.transfer,) if pull.transfer else ())


def inherited(left: Pull) -> dict[str, Any]:
    """What an order takes over with the part of one that failed."""
    known = {"part": left.part or left.id, "validator": left.validator, "size_bytes": left.size_bytes}
    return known | {"sha256": left.sha256 if left.stated else None, "earlier": brought(left)}


def next_transfer(pull: Pull, why: str) -> dict[str, Any]:
    more = {"transfer": None, "transfers": pull.transfers + 1, "reasons": joined(pull.reasons, (why,))}
    return more | {"earlier": brought(pull)}


def joined(known: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Both, and nothing twice."""
    return tuple(dict.fromkeys((*known, *more)))


def on_record(pull: Pull) -> dict[str, Any]:
    """What the record says of an order that comes to another stage: of the file its name alone."""
    file = PurePath(pull.out).name
    return {"pull": pull.id, "stage": pull.stage, "dataset": pull.dataset, "file": file, "reasons": list(pull.reasons)}


def failed_with(what: str, process: Process) -> Contradiction:
    """That the `what` of an order (negotiation, transfer) has ended without what it was for, and why."""
    reasons = tuple(process.detail.get("reasons") or (f"the {what} ended in {process.state} and the peer gave no reason",))
    reasons += _exhausted(process)
    return Contradiction(f"the {what} ended in {process.state}: {'; '.join(reasons)}", reasons)


def ended_by_peer(process: Process) -> tuple[str, ...]:
    """Why the provider ended the transfer of an order that is done all the same: of data without an end nothing else says that more would
    have come. Nothing if it did not."""
    if process.state != "TERMINATED" or process.detail.get("ended_by") != "peer":
        return ()
    why = "; ".join(process.detail.get("reasons") or ("it gave no reason",))
    return f"the provider ended the transfer: {why}", *_exhausted(process)


def paused(process: Process | None) -> tuple[str, ...]:
    """Why nothing comes while the transfer of an order is suspended, in the words of whoever spoke last: who has suspended it, or the
    provider that does not let it go on. Nothing if it is not suspended."""
    if process is None or process.state != "SUSPENDED":
        return ()
    refused = process.halted and process.detail.get("ended_by") == "peer"
    who = "we have" if process.halted else "the provider has"
    more = ", and the provider does not let it go on" if refused else ""
    why = "; ".join(process.detail.get("reasons") or ("no reason was given",))
    return (f"{who} suspended the transfer{more}: {why}",)


def _exhausted(process: Process) -> tuple[str, ...]:
    if not process.final or process.detail.get("code") != Code.QUOTA_EXHAUSTED:
        return ()
    return (f"agreement `{process.agreement}` is used up; no other is asked for unbidden: negotiate one, or ask the provider",)


def told(error: Exception) -> str:
    """What the provider reads of an order that failed: what it did itself. Our files and disks are our operator's."""
    if isinstance(error, PeerFailed):
        return f"the consumer could not fetch the data: {error.message}"
    return "the consumer cannot go on, for reasons of its own; its operator knows them"


def moved_on(begun: Process, process: Process) -> bool:
    """Whether a download has to stop: its transfer is not running any more, or the provider has started it again. Then there
    is another data address, and the tokens of the one before have ended."""
    return process.final or process.state == "SUSPENDED" or process.last_accepted not in (None, begun.last_accepted)


def used_up(process: Process) -> bool:
    """Whether a transfer ended because its agreement allows no more. A new agreement would allow as much again, which is not for a
    machine to take: a quota would bind nobody."""
    return process.final and process.detail.get("code") in (Code.QUOTA_EXHAUSTED, BUDGET_SHORT)


def log_lost(error: Exception) -> bool:
    """Whether the provider's log of live data has ended for good, with what was signed for: another transfer has another one."""
    return isinstance(error, PeerRefused) and error.said == LOST


def passes(error: PeerFailed) -> bool:
    """Whether the peer may answer otherwise soon: it gave no answer, or one that says "not now", or its clock or ours is wrong."""
    if not isinstance(error, PeerRefused) or error.said == CLOCKS_APART:
        return True
    return error.status in LATER or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
