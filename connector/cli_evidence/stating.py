"""Shows what both sides have signed for under an agreement in a period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.cli import show

FLOWS = ("TRANSFER", "RECEIPTS", "BYTES", "RECORDS", "CALLS")


def show_statement(said: Mapping[str, Any]) -> None:
    """Write a statement for people, and whether the other side says the same."""
    outcome = "both sides say the same" if said["outcome"] == "agreed" else f"disputed: `{said['code']}`"
    if said["outcome"] == "agreed" and said["code"]:
        outcome += ", and the provider has counted more time than they do, which is billed as its word alone"
    period = " to ".join(show.instant(said[name]) for name in ("from", "to"))
    totals = show.size(said["totals"]["bytes"])
    show.facts({"agreement": said["agreement"], "period": period, "outcome": outcome, "signed for": totals})
    rows = [(flow["transfer"], flow["seq"], flow["bytes"], flow["records"], flow["calls"]) for flow in said["flows"]]
    show.line()
    show.table(FLOWS, rows, "nobody has signed for anything in this period")
