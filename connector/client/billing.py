"""What was used and is paid for under an agreement, of the management API: a part of its client."""

from __future__ import annotations

from typing import Any

from connector.client.calls import Calls, given, part
from connector.client.views import AgreementUsage, Credit


class Billing(Calls):
    """The calls about usage, credit, invoices and statements. Every method raises ManagementError."""

    async def usage(self, agreement: str) -> AgreementUsage:
        """What was used under an agreement so far, and what it costs."""
        return await self._call("GET", f"{_of(agreement)}/usage", AgreementUsage)

    async def invoice(self, agreement: str, format: str = "json", *, begins: str | None = None, ends: str | None = None) -> bytes:
        """The invoice of an agreement for the period [`begins`, `ends`) (RFC 3339; default: from the signing, up to the last
        acknowledged receipt, or to now if there is none), as `json`, `csv` or `html`."""
        query = {"format": format, "from": begins, "to": ends}
        return await self._open.call("GET", f"{_of(agreement)}/invoice", query=query)

    async def statement(self, agreement: str, *, begins: str | None = None, ends: str | None = None) -> dict[str, Any]:
        """Have both sides sign what was signed for in the period [`begins`, `ends`) (RFC 3339; default: from the beginning, up to a moment
        ago): `outcome` is agreed, or disputed with a `code` (`statement-time`: agreed, and the provider alone has counted more time);
        `totals` and `flows`; `own` and `theirs` are the two statements (JWS)."""
        return await self._call("POST", f"{_of(agreement)}/statement", dict[str, Any], query={"from": begins, "to": ends})

    async def credit(self, agreement: str) -> Credit:
        """What of the credit of an agreement is locked by transfers that ended and had not signed for it."""
        return await self._call("GET", f"{_of(agreement)}/credit", Credit)

    async def release_credit(self, agreement: str, reason: str | None = None) -> Credit:
        """Write that off; returns what was. `reason` is put on record."""
        return await self._call("POST", f"{_of(agreement)}/release-credit", Credit, given(reason=reason))

    async def settle_dispute(self, transfer: str, reason: str) -> None:
        """End the dispute about the account of a transfer (our pid): what was accepted counts, and more may follow. `reason` is put on
        record."""
        await self._open.call("POST", f"/v1/transfers/{part(transfer)}/settle-dispute", body={"reason": reason})


def _of(agreement: str) -> str:
    return f"/v1/agreements/{part(agreement)}"
