"""Which one is meant: by an id, or by the word that stands for the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from connector.errors import ConnectorError

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import Known

LATEST: Final = "latest"  # no IRI is a word alone
NOT_FOUND: Final = 404  # RFC 9110
Kind = Literal["negotiation", "transfer"]


async def agreement_of(client: ManagementClient, said: str) -> str:
    """The id of an agreement; LATEST stands for the newest. Raises ConnectorError if there is none, ManagementError."""
    if said != LATEST:
        return said
    page = await client.agreements(limit=1)
    if not page.items:
        raise ConnectorError("there is no agreement yet; `connector get` or `negotiate` makes one")
    return page.items[0].id


async def order_of(client: ManagementClient, said: str) -> str:
    """The id of an order of `connector get`; LATEST stands for the newest. Raises ConnectorError if there is none, ManagementError."""
    if said != LATEST:
        return said
    page = await client.pulls(limit=1)
    if not page.items:
        raise ConnectorError("there is no order yet; `connector get` makes one")
    return page.items[0].id


async def process_of(client: ManagementClient, said: str, *kinds: Kind) -> str:
    """The pid of a process; LATEST stands for the newest of these kinds (of all without any). Raises ConnectorError if there is none,
    ManagementError."""
    if said != LATEST:
        return said
    found = [await (client.transfers(limit=1) if kind == "transfer" else client.negotiations(limit=1)) for kind in kinds or get_args(Kind)]
    newest = max((page.items[0] for page in found if page.items), key=lambda view: view.created or "", default=None)
    if newest is None:
        raise ConnectorError(f"there is no {' or '.join(kinds or get_args(Kind))} yet; `connector get` begins both")
    return newest.pid


async def known(client: ManagementClient, pid: str) -> Known:
    """The process with this pid, which may be the peer's. Raises ConnectorError if there is none, ManagementError."""
    from connector.client.transport import ManagementError  # the command line is loaded faster without HTTP

    try:
        return await client.process(pid)
    except ManagementError as error:
        if error.status != NOT_FOUND:
            raise
    raise ConnectorError(f"there is no negotiation or transfer `{pid}`; `connector negotiations` and `transfers` list ours")
