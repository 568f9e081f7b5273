"""`connector statement`: both sides sign what was signed for under an agreement in a period."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from connector.cli import show
from connector.cli.session import Common, ask

FLOWS = ("TRANSFER", "RECEIPTS", "BYTES", "RECORDS", "CALLS")


def statement(
    agreement: str,
    *,
    begins: Annotated[str | None, Parameter(name="--from")] = None,
    ends: Annotated[str | None, Parameter(name="--to")] = None,
    common: Common | None = None,
) -> int:
    """Have both sides sign what each transfer had come to by the end of a period; both statements are on record, and evidence.

    Parameters
    ----------
    agreement
        its id, as `connector agreements` shows it
    begins
        first instant or day of the period (UTC); default: the beginning of the agreement
    ends
        the instant or day at which the period is over, not in it; default: a few seconds ago
    """
    common = common or Common()
    said = ask(common, lambda client: client.statement(agreement, begins=begins, ends=ends))
    agreed = said["outcome"] == "agreed"
    if common.json:
        show.document(said)
        return 0 if agreed else 1
    totals, outcome = said["totals"], "both sides say the same" if agreed else f"disputed: `{said['code']}`"
    period = " to ".join(show.instant(said[name]) for name in ("from", "to"))
    show.facts({"agreement": said["agreement"], "period": period, "outcome": outcome, "signed for": show.size(totals["bytes"])})
    rows = [(flow["transfer"], flow["seq"], flow["bytes"], flow["records"], flow["calls"]) for flow in said["flows"]]
    show.line()
    show.table(FLOWS, rows, "nobody has signed for anything in this period")
    return 0 if agreed else 1
