"""What an order comes to while it is fetched, and once it is over: how much is proven and signed for, and what that costs."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from connector.cli import show

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import AgreementUsage, Pull


async def used_under(client: ManagementClient, agreement: str) -> AgreementUsage | None:
    """What was used under an agreement; None from a connector that does not count."""
    from connector.client.transport import ManagementError

    try:
        return await client.usage(agreement)
    except ManagementError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def signed(pull: Pull, used: AgreementUsage | None) -> list[str]:
    """How much of this order's transfer is proven, and what we have signed for; and what the agreement has cost so far."""
    if used is None:
        return []
    counts = next((each["counts"] for each in used.transfers if each["transfer"] == pull.transfer and each["attested"] == "both"), None)
    said = [f"proven {show.size(pull.received_bytes)}, signed for {show.size(counts['bytes'])}"] if counts is not None else []
    return said + ([f"the agreement comes to {amount} so far"] if (amount := cost(used)) is not None else [])


def cost(used: AgreementUsage) -> str | None:
    """What all that was used under the agreement costs, as far as anybody can say it."""
    return f"{used.cost['amount']} {used.cost['currency']}" if used.cost is not None and "amount" in used.cost else None
