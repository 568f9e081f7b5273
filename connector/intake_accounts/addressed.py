"""Whether an address is of this transfer and of no other of ours with the same provider.

Both sides sign the addresses that are asked, and whoever checks the evidence of an agreement takes the transfer that an address names for
the one that an answer is of. A provider that gave one transfer the address of another could spoil its consumer's evidence so.
"""

from __future__ import annotations

from urllib.parse import unquote

from connector.dsp.messages import Kind
from connector.intake.promise import Broken
from connector.metering.objects import manifest_of
from connector.ports import Store
from connector.records import Pull

CODE = "address-other-transfer"


async def demand_own(store: Store, pull: Pull, url: str, what: str) -> None:
    """Raise Broken if `url`, that of `what`, names another transfer than that of the order, by its pid or as the place beside which the
    receipts of another one are taken. One that names ours is ours, and one that names none is nobody else's."""
    place = url.partition("?")[0]
    segments = dict.fromkeys(map(unquote, place.split("/")[3:]))
    process = await store.process(Kind.TRANSFER, pull.transfer or "")
    if process is None or process.peer_pid in segments:
        return
    for segment in segments:
        other = await store.process_of_peer(Kind.TRANSFER, pull.peer, segment)
        if other is not None and other.pid != process.pid:
            raise _other(what, f"`{segment}`")
    for account in await store.metered_of(pull.agreement or ""):
        if account.transfer != process.pid and place == place_of(manifest_of(account.manifest).receipts):
            raise _other(what, f"ours `{account.transfer}`")


def place_of(receipts: str) -> str:
    """The address of the data beside which receipts are taken."""
    return receipts.rpartition("/")[0]


def _other(what: str, transfer: str) -> Broken:
    text = f"{what} that the provider gave is that of another transfer, {transfer}; nothing is fetched there: ask the provider to mend it"
    return Broken(text, CODE)
