"""When an agreement was closed, and by whose word: read from what both sides have signed of it."""

from __future__ import annotations

from typing import Final

from connector import telemetry
from connector.metering.closing import REFUSALS, Closing, ClosingAck, first
from connector.metering.codes import CODES
from connector.metering.objects import kept
from connector.metering_bills.invoice import Closed
from connector.ports import Store
from connector.records import Agreement, Evidence

FINAL: Final = frozenset({"closing-parties", *REFUSALS})  # what stays refused; that of a closing between others nobody signs
UNHEARD: Final = "closing-unheard"  # the peer has had no place for it for as long as it is told
REFUSED: Final = {code: CODES[code] for code in FINAL} | {UNHEARD: "the other side has had no place for a closing for a month"}


async def own_closing(store: Store, id: str) -> Evidence | None:
    """The closing of an agreement that we have signed; None for one that the other side has refused for good."""
    told = await store.newest_fact(id, telemetry.CLOSING_TOLD)
    return None if told is not None and told.detail.get("code") in FINAL else await store.newest_fact(id, telemetry.CLOSING)


async def refused_for(store: Store, id: str) -> str | None:
    """The code of REFUSED for which the other side of an agreement does not take our closing; None if it has not said so."""
    told = await store.newest_fact(id, telemetry.CLOSING_TOLD)
    code = None if told is None else told.detail.get("code")
    return code if code in REFUSED else None


async def closed_of(store: Store, agreement: Agreement, own: str) -> Closed | None:
    """When an agreement was closed, by whom, and by whose word: both sides' once the other has signed the closing that counts, or that it
    has taken that and goes by it. A peer that has only ended what ran, and said that it has closed the agreement, has signed no instant:
    that is our own clock's. None for an agreement that is not closed. `own` is our participant id."""
    if agreement.closed is None:
        return None
    role = "provider" if agreement.provider == own else "consumer"
    theirs = await store.newest_fact(agreement.id, telemetry.CLOSING_TAKEN)
    ours = await (own_closing(store, agreement.id) if theirs is not None else store.newest_fact(agreement.id, telemetry.CLOSING))
    known = [kept(Closing, fact.entry or "") for fact in (ours, theirs) if fact is not None]
    counts = first(known, agreement.provider)
    if counts is None:
        by = own if agreement.closed_by == "us" else agreement.peer
        return Closed(agreement.closed, by, f"{role}-only")
    told = await store.newest_fact(agreement.id, telemetry.CLOSING_TOLD)
    ack = None if told is None or told.entry is None or told.detail.get("code") else kept(ClosingAck, told.entry)
    both = counts.issuer != own or (ack is not None and ack.ends == counts.at)
    return Closed(agreement.closed, counts.issuer, "both" if both else f"{role}-only")
