"""`connector negotiations`, `agreements`, `show`, `approve`, `counter`, `terminate`: whose turn it is, and taking ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from connector.cli import policy_text, show
from connector.cli.explain import STEP, Telling
from connector.cli.publish import read_policy
from connector.cli.session import Common, ask
from connector.client.meant import agreement_of, known, process_of
from connector.errors import ConnectorError, InvalidRequest

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.meant import Kind
    from connector.client.views import Agreement, Credit, Event, Negotiation, Page, Transfer

HEADS = ("PID", "STATE", "ROLE", "PEER", "DATASET", "WAITS FOR", "NOTE")
AGREEMENT_HEADS = ("ID", "STATE", "PEER", "DATASET", "ENDS", "REASON")


def negotiations(
    action: str | None = None,
    pid: str | None = None,
    *,
    state: str | None = None,
    peer: str | None = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    common: Common | None = None,
) -> None:
    """List the negotiations, newest first; `negotiations show PID` shows one in full.

    Parameters
    ----------
    action
        show
    pid
        the one to show, or `latest` for the newest
    state
        only those in this state, such as REQUESTED
    peer
        only those with this participant
    watch
        go on and print what happens
    """
    common = common or Common()
    if _one(action, pid):
        shown(pid or "", common, "negotiation")
        return
    listed(common, lambda client: client.negotiations(state=state_of(state), peer=peer), "negotiation", watch)


def agreements(
    action: str | None = None,
    id: str | None = None,
    *,
    duty: str | None = None,
    by: str | None = None,
    amount: Annotated[list[str] | None, Parameter(negative=())] = None,
    reason: str | None = None,
    peer: str | None = None,
    dataset: str | None = None,
    common: Common | None = None,
) -> None:
    """List the agreements, newest first; `agreements show ID` shows one, `agreements close ID` ends it and all that runs under it,
    `agreements perform ID --duty POINTER` records that a duty of it was done. `agreements release ID` writes off what its transfers that
    ended had not signed for: else that is no credit of it for a day.

    Parameters
    ----------
    action
        show, close, perform or release
    id
        which one, or `latest` for the newest
    duty
        the duty that was performed: its pointer in the agreement, such as /permission/0/duty/0
    by
        who performed it; default: the consumer
    amount
        what it came to, as OPERAND=NUMBER; may be given several times
    reason
        why it is closed; the peer is told. Or why credit is released, which is put on record
    peer
        only those with this participant
    dataset
        only those over this dataset
    """
    common = common or Common()
    if action is None:
        page = ask(common, lambda client: client.agreements(peer=peer, dataset=dataset))
        if common.json:
            show.document(page)
            return
        show.table(
            AGREEMENT_HEADS, ((a.id, _standing(a), a.peer, a.dataset, show.moment(a.ends), a.reason) for a in page.items), "no agreements"
        )
        if page.next is not None:
            show.note(f"only the newest {len(page.items)} are listed")
        return
    if action not in ("show", "close", "perform", "release") or id is None:
        known = "`show ID`, `close ID`, `perform ID`, `release ID`"
        raise InvalidRequest(f"`{action}` is not understood; write {known}, or nothing for the list")
    if action == "release":
        _release(id, reason, common)
        return
    if action == "perform" and duty is None:
        raise InvalidRequest("which duty was performed? give `--duty POINTER`; `agreements show ID` shows the document")
    meant, amounts = id, dict(_amount(each) for each in amount or ())

    async def work(client: ManagementClient) -> Agreement:
        wanted = await agreement_of(client, meant)
        if action == "perform":
            return await client.perform(wanted, duty or "", by=by, amounts=amounts)
        return await (client.agreement(wanted) if action == "show" else client.close_agreement(wanted, reason))

    view = ask(common, work)
    if common.json:
        show.document(view)
        return
    counters = "; ".join(map(_counter, view.counters))
    show.facts(
        {
            "agreement": view.id,
            "state": _standing(view),
            "peer": view.peer,
            "dataset": view.dataset,
            "provider": view.provider,
            "consumer": view.consumer,
            "terms": policy_text.labelled(view.document),
            "used": counters,
            "ends": show.moment(view.ends),
            "closed": show.moment(view.closed),
            "closed by": view.closed_by,
            "closing": _closing(view),
            "reason": view.reason,
            "negotiation": view.negotiation,
        }
    )


def _release(said: str, reason: str | None, common: Common) -> None:
    async def work(client: ManagementClient) -> Credit:
        return await client.release_credit(await agreement_of(client, said), reason)

    found = ask(common, work)
    if common.json:
        show.document(found)
        return
    show.line(f"{show.size(found.locked_bytes)} of the credit of {found.agreement} are released; what was signed for stays as it is")


def _amount(said: str) -> tuple[str, str]:
    operand, equals, number = said.rpartition("=")
    if not equals or not operand:
        raise InvalidRequest(f"`--amount {said}` is not understood; write OPERAND=NUMBER, with the operand as full IRI")
    return operand, number


def _standing(agreement: Agreement) -> str:
    """Whether an agreement can be used."""
    if agreement.closed is not None:
        return "closed"
    if agreement.ends is not None and datetime.fromisoformat(agreement.ends) <= datetime.now(UTC):
        return "ended"
    return "final" if agreement.final else "not final"


def _closing(agreement: Agreement) -> str | None:
    """Whether the other side goes by the same end."""
    if agreement.closing is None or agreement.closing == "both":
        return None if agreement.closing is None else "both sides have it in writing, and bill by the same instant"
    if agreement.closed_by == "peer":
        return "the peer has said so and signed no instant: this one is by our clock"
    if (refused := agreement.closing_refused) is not None:
        why = f"the peer does not take it ({refused.get('code')}: {refused.get('says')})"
        return f"{why}: this instant is our word alone, and it is not told again; agree with its operator, and have it close the agreement"
    return "the peer has not signed that it has taken it: this instant is our word alone; it is told again, if that has not come through"


def _counter(counter: Mapping[str, Any]) -> str:
    """What was used up of one quota, as in: count 3 of 10, 1 reserved (/permission/0)."""
    limit = f" of {counter['limit']}" if counter.get("limit") is not None else ""
    reserved = f", {counter['reserved']} reserved" if float(counter.get("reserved") or 0) else ""
    money = f" {counter['currency']}" if "currency" in counter else ""
    return f"{policy_text.short(counter.get('operand'))} {counter.get('used', 0)}{limit}{money}{reserved} ({counter.get('rule', '')})"


def show_process(pid: str, *, common: Common | None = None) -> None:
    """Show a negotiation or a transfer in full, with its reasons and its record.

    Parameters
    ----------
    pid
        as the lists show it, or `latest` for the newest
    """
    shown(pid, common or Common())


def shown(said: str, common: Common, *kinds: Kind) -> None:
    """Print a process of one of these kinds (of any without) in full. Raises ConnectorError."""

    async def work(client: ManagementClient) -> tuple[Negotiation | Transfer, tuple[Event, ...]]:
        found = await known(client, await process_of(client, said, *kinds))
        view = await (client.transfer_process(found.pid) if found.kind == "transfer" else client.negotiation(found.pid))
        return view, await client.evidence(view.pid)

    view, record = ask(common, work)
    if common.json:
        show.document({"process": view, "evidence": record})
        return
    _print(view)
    print()
    rows = [(event.sequence, show.instant(event.at), event.what, event.move or _stage(event), event.state) for event in record]
    show.table(("RECORD", "AT", "WHAT", "WHICH", "STATE"), rows, "nothing is on record")


def approve(pid: str, *, common: Common | None = None) -> int:
    """Agree to the negotiation that waits for us. Ends with 1 where that ended it: what is not permitted any more is not agreed to.

    Parameters
    ----------
    pid
        as `connector negotiations` shows it, or `latest` for the newest
    """
    common = common or Common()

    async def work(client: ManagementClient) -> Negotiation:
        return await client.approve(await process_of(client, pid, "negotiation"))

    view = ask(common, work)
    if common.json:
        show.document(view)
    if view.state == "TERMINATED" or view.ended_by is not None:
        why = view.reasons or tuple(_refusal(view.decision)) or ("no reason was given",)
        raise ConnectorError(
            f"negotiation `{view.pid}` was not agreed to, it was ended", (*why, f"`connector explain {view.pid}` says more")
        )
    if not common.json:
        _print(view)
    return 0


def counter(pid: str, *, policy: Path, common: Common | None = None) -> None:
    """Answer a request or an offer with other terms.

    Parameters
    ----------
    pid
        as `connector negotiations` shows it, or `latest` for the newest
    policy
        file of the terms, in any form that `connector publish` takes
    """
    common = common or Common()
    terms = read_policy(policy)

    async def work(client: ManagementClient) -> Negotiation:
        return await client.counter(await process_of(client, pid, "negotiation"), terms)

    done(ask(common, work), common)


def terminate(pid: str, *, reason: str | None = None, common: Common | None = None) -> None:
    """End a negotiation or a transfer; a stream of it is cut.

    Parameters
    ----------
    pid
        as the lists show it, or `latest` for the newest
    reason
        what the peer is told
    """
    common = common or Common()

    async def work(client: ManagementClient) -> Negotiation | Transfer:
        found = await known(client, await process_of(client, pid))
        if found.kind == "transfer":
            return await client.move_transfer(found.pid, "terminate", reason)
        return await client.terminate_negotiation(found.pid, reason)

    done(ask(common, work), common)


def _one(action: str | None, pid: str | None) -> bool:
    """Whether one process is asked for."""
    if action is None:
        return False
    if action != "show" or pid is None:
        raise InvalidRequest(f"`{action}` is not understood; write `show PID`, or nothing for the list")
    return True


def state_of(state: str | None) -> str | None:
    """A state as the protocol writes it, however it was typed."""
    return state.upper() if state is not None else None


def listed(common: Common, fetch: Callable[[ManagementClient], Awaitable[Page[Any]]], kind: str, watch: bool) -> None:
    """Print a list of processes of a kind (negotiation, transfer), and what happens from then on if it is to be watched."""

    async def work(client: ManagementClient) -> None:
        page = await fetch(client)
        if common.json:
            show.document(page)
        else:
            show.table(HEADS, (_row(view) for view in page.items), f"no {kind}s")
            if page.next is not None:
                show.note(f"only the newest {len(page.items)} are listed")
        if watch:
            await _watch(client, kind, common.json)

    ask(common, work)


async def _watch(client: ManagementClient, kind: str, as_json: bool) -> None:
    async for event in client.live():
        if event.kind != kind:
            continue
        if as_json:
            show.document(event)
        else:
            show.line(f"{show.instant(event.at)}  {event.pid}  {event.state or '-'}  {event.what}  {event.move or ''}  {event.peer or ''}")


def _row(view: Negotiation | Transfer) -> tuple[str | None, ...]:
    return (
        view.pid,
        view.state,
        view.role,
        view.peer,
        view.dataset,
        view.waiting,
        "; ".join(view.reasons or _refusal(view.decision)) or view.last_error,
    )


def done(view: Negotiation | Transfer, common: Common) -> None:
    """Print a process as it is after what was done to it."""
    if common.json:
        show.document(view)
        return
    _print(view)
    if view.in_flight is not None:
        show.note("what is in flight counts here already; the state follows when the peer has answered")


def _print(view: Negotiation | Transfer) -> None:
    terms = getattr(view, "terms", None)
    show.facts(
        {
            "pid": view.pid,
            "state": view.state,
            "role": view.role,
            "peer": view.peer,
            "peer's pid": view.peer_pid,
            "dataset": view.dataset,
            "agreement": view.agreement,
            "waits for": view.waiting,
            "in flight": view.in_flight,
            "last error": view.last_error,
            "terms": policy_text.labelled(terms) if isinstance(terms, dict) else None,
            "ended by": view.ended_by if view.state == "TERMINATED" else None,  # else whoever refused a message has ended nothing
            "suspended by": (by := getattr(view, "suspended_by", None)),
            "refused by": view.ended_by if by == "us" and view.ended_by == "peer" else None,  # to be suspended, or to go on after it
            "deadline": show.moment(view.due),
            "created": show.moment(view.created),
            "updated": show.moment(view.updated),
        }
    )
    for reason in view.reasons:
        show.line(f"reason: {reason}")
    for depth, said in Telling().grounds(view.grounds, 1):
        show.line(said, indent=STEP * depth)
    if isinstance(view.decision, dict):
        show.line(f"decision: {view.decision.get('result')} ({view.decision.get('code')})")
        for reason in _sentences(view.decision):
            show.line(reason, indent=2)


def _stage(event: Event) -> str | None:
    """How far a pull had come, where the record is about one."""
    stage = event.detail.get("stage") if isinstance(event.detail, dict) else None
    return stage if isinstance(stage, str) else None


def _refusal(decision: Any) -> list[str]:
    """Why our own policy did not permit; nothing where it did."""
    return _sentences(decision) if isinstance(decision, dict) and decision.get("result") not in ("permit", "permit-with") else []


def _sentences(decision: dict[str, Any]) -> list[str]:
    reason = decision.get("reason")
    return [str(sentence) for sentence in reason] if isinstance(reason, list) else []
