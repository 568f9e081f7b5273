"""`connector transfers` and `cancel`: what runs under an agreement, by hand, and the end of an order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from connector.cli import show
from connector.cli.processes import done, listed, shown, state_of
from connector.cli.session import Common, ask
from connector.client.meant import agreement_of, order_of, process_of
from connector.errors import ConnectorError, InvalidRequest

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import Edr, Pull, Transfer

Action = Literal["show", "start", "address", "suspend", "resume", "complete", "settle"]
TAKES_REASON = ("suspend", "settle")
STARTED_SECONDS = 45.0  # that a transfer is waited for: longer than a refusal is doubted, 30 s unless set; it goes on without who waits


def transfers(
    action: Action | None = None,
    id: str | None = None,
    *,
    reason: str | None = None,
    state: str | None = None,
    peer: str | None = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    common: Common | None = None,
) -> None:
    """List the transfers, newest first, or do something with one; `connector get` does all of it by itself.

    `transfers show PID` shows one in full. `start AGREEMENT` asks for one. `address PID` shows where its data can be fetched by any HTTP
    client. `suspend PID`, `resume PID` and `complete PID` move it; `connector terminate` ends it. `settle PID` ends the dispute about its
    account: the receipt that was accepted counts, and more may follow.

    Parameters
    ----------
    action
        what to do; nothing for the list
    id
        which one: its PID as the list shows it, or the agreement to start one under; `latest` is the newest
    reason
        why it is suspended, which the peer is told; or why the dispute is over, which is put on record
    state
        list only those in this state, such as STARTED
    peer
        list only those with this participant
    watch
        list them, go on, and print what happens
    """
    common = common or Common()
    if action is None:
        listed(common, lambda client: client.transfers(state=state_of(state), peer=peer), "transfer", watch)
        return
    if state is not None or peer is not None or watch:
        raise InvalidRequest(f"`--state`, `--peer` and `--watch` are for the list; leave them out of `transfers {action}`")
    if id is None:
        wanted = "AGREEMENT`; `connector agreements` shows" if action == "start" else "PID`; `connector transfers` shows"
        raise InvalidRequest(f"which one? write `transfers {action} {wanted} them")
    if reason is not None and action not in TAKES_REASON:
        raise InvalidRequest(f"nobody is told a reason by `transfers {action}`; leave `--reason` out")
    DO[action](id, reason, common)


def _show(pid: str, _reason: str | None, common: Common) -> None:
    shown(pid, common, "transfer")


def _start(agreement: str, _reason: str | None, common: Common) -> None:
    async def work(client: ManagementClient) -> Transfer:
        begun = await client.transfer(await agreement_of(client, agreement))
        return await client.transfer_process(begun.pid, wait="started", timeout_seconds=STARTED_SECONDS)

    view = ask(common, work)
    if view.state == "TERMINATED":
        why = view.reasons or ("no reason was given",)
        raise ConnectorError(f"no transfer under `{agreement}` was started", (*why, f"`connector explain {view.pid}` says more"))
    done(view, common)
    if view.state == "STARTED":
        show.note(f"`connector transfers address {view.pid}` shows where its data are, `transfers complete` says that they are fetched")
    elif view.waiting == "us":
        show.note("the peer could not be told; `connector dead-letters` shows what waits to be sent again")
    else:
        show.note(f"it waits for the peer; `connector show {view.pid}` shows how it goes on")


def _address(pid: str, _reason: str | None, common: Common) -> None:
    async def work(client: ManagementClient) -> Edr:
        return await client.edr(await process_of(client, pid, "transfer"))

    found = ask(common, work)
    if common.json:
        show.document(found)
        return
    show.facts({"endpoint": found.endpoint, "token": found.authorization, "expires": show.moment(found.expires)})
    show.note("fetch it with the header `Authorization: Bearer TOKEN`, which is a secret; what no receipt is signed for is provider-only")


def _suspend(pid: str, reason: str | None, common: Common) -> None:
    _move(pid, "suspend", reason, common)


def _resume(pid: str, _reason: str | None, common: Common) -> None:
    _move(pid, "resume", None, common)


def _complete(pid: str, _reason: str | None, common: Common) -> None:
    _move(pid, "complete", None, common)


def _move(pid: str, act: Literal["suspend", "resume", "complete"], reason: str | None, common: Common) -> None:
    async def work(client: ManagementClient) -> Transfer:
        return await client.move_transfer(await process_of(client, pid, "transfer"), act, reason)

    done(ask(common, work), common)


def _settle(pid: str, reason: str | None, common: Common) -> None:
    if not reason or not reason.strip():
        raise InvalidRequest("why is the dispute over? give `--reason`: it is put on record, and is evidence")

    async def work(client: ManagementClient) -> str:
        meant = await process_of(client, pid, "transfer")
        await client.settle_dispute(meant, reason)
        return meant

    settled = ask(common, work)
    if common.json:
        show.document({"settled": settled, "reason": reason})
        return
    show.line(f"the dispute about the account of {settled} is over: the receipt that was accepted counts, and more may follow")


DO: Mapping[Action, Callable[[str, str | None, Common], None]] = {
    "show": _show,
    "start": _start,
    "address": _address,
    "suspend": _suspend,
    "resume": _resume,
    "complete": _complete,
    "settle": _settle,
}


def cancel(id: str, *, reason: str | None = None, common: Common | None = None) -> None:
    """End an order of `connector get`, and the negotiation or transfer that it has begun. What has come stays for the next one.

    Parameters
    ----------
    id
        id of the order, as `connector pulls` shows it, or `latest` for the newest
    reason
        what the peer is told
    """
    common = common or Common()

    async def work(client: ManagementClient) -> Pull:
        return await client.cancel(await order_of(client, id), reason)

    ended = ask(common, work)
    if common.json:
        show.document(ended)
        return
    show.line(f"{ended.id} is cancelled: {show.size(ended.received_bytes)} of `{ended.dataset}` had come")
    if ended.agreement is not None:
        show.note("the next `connector get` into the same file goes on from there, under the same agreement")
