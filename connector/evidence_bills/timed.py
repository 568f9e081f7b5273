"""What an invoice bills by time alone, such as a subscription, against what the file has of the time. Nothing flows for it, so no receipt
says that a period of it has begun: its end is the word of who exports, unless another has signed something later. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from connector.evidence.case import AHEAD_SECONDS, Case, Ledgers
from connector.evidence.flows import Flows
from connector.evidence.report import rfc3339
from connector.evidence_bills.priced import agreed_by


def check(case: Case, found: Flows, logs: Ledgers) -> None:
    """Whether the invoice is of no time that is later than everything in the file: no program bills what is yet to come. An ack may be of
    a clock that was ahead, and so may what another has signed."""
    latest = max(case.header.value["at"], logs.last, logs.dated, *(float(each.value.issued) for each in found.acks))
    for member in case.of("invoice"):
        ends = _ends(member.value["document"].get("to"))
        if ends is not None and ends > latest + AHEAD_SECONDS:
            case.fault("invoice-ahead", member, "/document/to")


def texts(case: Case, found: Flows, logs: Ledgers) -> Iterator[str]:
    """What is not proven of an invoice that was compared with the prices of the agreement: that the time has come for which it bills more
    than by the last instant that another has signed; and what is owed by time after its end."""
    for member in case.of("invoice"):
        said = member.value["document"]
        if found.plan is None or (ends := _ends(said.get("to"))) is None:
            continue
        if logs.dated < ends and agreed_by(said, found.plan, logs.dated) != agreed_by(said, found.plan, ends):
            least = "in the file another has signed no instant"
            if logs.dated > 0:
                least = f"the latest instant that another has signed in the file is {rfc3339(logs.dated)}"
            yield (
                f"that the time has come up to which the invoice bills what is paid for by time: it says {said['to']}, and {least}; a"
                f" statement of {case.counterparty} for the period would"
            )
        if (at := case.header.value["at"]) > ends and agreed_by(said, found.plan, at) != agreed_by(said, found.plan, ends):
            yield f"what is owed for the time from {said['to']} on, by what is paid for by time: the invoice in the file goes up to there"


def _ends(text: object) -> float | None:
    """POSIX seconds; None for what is no instant."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except (OverflowError, ValueError):
        return None
