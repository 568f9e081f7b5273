"""What is paid for under an agreement, of the management API: a part of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from connector.client.transport import ManagementError, Transport


class Billing:
    """The calls about invoices and statements. Every method raises ManagementError."""

    if TYPE_CHECKING:

        @property
        def _open(self) -> Transport: ...

    async def invoice(self, agreement: str, format: str = "json", *, begins: str | None = None, ends: str | None = None) -> bytes:
        """The invoice of an agreement for the period [`begins`, `ends`) (RFC 3339; default: from the signing, up to the last
        acknowledged receipt, or to now if there is none), as `json`, `csv` or `html`."""
        query = {"format": format, "from": begins, "to": ends}
        return await self._open.call("GET", f"{_of(agreement)}/invoice", query=query)

    async def statement(self, agreement: str, *, begins: str | None = None, ends: str | None = None) -> dict[str, Any]:
        """Have both sides sign what was signed for in the period [`begins`, `ends`) (RFC 3339; default: from the beginning, up to a moment
        ago): `outcome` is agreed, or disputed with a `code`; `totals` and `flows`; `own` and `theirs` are the two statements (JWS)."""
        path = f"{_of(agreement)}/statement"
        content = await self._open.call("POST", path, query={"from": begins, "to": ends})
        try:
            return msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ManagementError(f"the answer to POST {path} is not a connector's: {error}", code="not-understood") from error

    async def settle_dispute(self, transfer: str, reason: str) -> None:
        """End the dispute about the account of a transfer (our pid): what was accepted counts, and more may follow. `reason` is put on
        record."""
        await self._open.call("POST", f"/v1/transfers/{quote(transfer, safe='')}/settle-dispute", body={"reason": reason})


def _of(agreement: str) -> str:
    return f"/v1/agreements/{quote(agreement, safe='')}"
