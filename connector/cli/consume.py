"""`connector catalog`, `negotiate`, `get` and `pulls`: see what a peer offers, agree on terms, and have it in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from connector.cli import policy_text, show
from connector.cli.publish import read_policy
from connector.cli.session import Common, ask
from connector.cli_billing.fetched import cost, signed, used_under
from connector.client.meant import order_of
from connector.errors import ConnectorError, InvalidRequest

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import AgreementUsage, CatalogPage, Negotiation, Pull

CATALOG_DEPTH = 8  # of catalogs within catalogs that are shown
USAGE_SECONDS = 1.0  # between two looks at what was signed for and what it costs, while data come
SETTLED_SECONDS = 60.0  # that a negotiation is waited for; it goes on without anybody who waits
LOOKING = "looking for a contract"  # one that there is, or an offer to negotiate
STAGES = {
    "negotiate": "negotiating the contract",
    "transfer": "asking for the transfer",
    "download": "downloading",
    "complete": "checked, completing",
    "done": "done",
    "failed": "failed",
}


def catalog(peer: str, *, all: Annotated[bool, Parameter(negative=())] = False, common: Common | None = None) -> None:
    """Show what a peer offers.

    Parameters
    ----------
    peer
        id or name of a participant in the registry
    all
        every page, not the first only
    """
    common = common or Common()

    async def work(client: ManagementClient) -> list[CatalogPage]:
        found = [await client.catalog(peer)]
        while all and found[-1].next is not None:
            found.append(await client.catalog(peer, after=found[-1].next))
        return found

    pages = ask(common, work)
    more, left_out = pages[-1].next is not None, [each for page in pages for each in page.left_out]
    if common.json:
        show.document({"catalogs": [page.catalog for page in pages], "more": more, "left_out": left_out})
        return
    rows = [row for page in pages for row in _datasets(page.catalog, CATALOG_DEPTH)]
    show.table(("DATASET", "TITLE", "SIZE", "OFFERS"), rows, f"{peer} offers us nothing")
    if more:
        show.note("there is more; `--all` shows it")
    for each in left_out:
        show.note(": ".join((f"not shown of `{each.get('id')}`, as it is not valid", *map(str, each.get("reasons", ())))))


def get(
    peer: str,
    dataset: str,
    *,
    out: Path,
    purpose: Annotated[list[str] | None, Parameter(negative=())] = None,
    acceptance: Annotated[list[Path] | None, Parameter(negative=())] = None,
    parallel: Annotated[int | None, Parameter(validator=Number(gte=1, lte=16))] = None,
    push: Annotated[bool, Parameter(negative=())] = False,
    span: Annotated[str | None, Parameter(name="--range", allow_leading_hyphen=True)] = None,
    follow: Annotated[bool, Parameter(negative=())] = False,
    max_bytes: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    seconds: Annotated[float | None, Parameter(name="--for", validator=Number(gt=0, lte=1e9))] = None,
    common: Common | None = None,
) -> int:
    """Fetch a dataset into a file: finds the offer, negotiates or reuses a contract, transfers, checks, signs for it, completes.

    The own connector does the work and goes on if this command is interrupted.

    Parameters
    ----------
    peer
        id or name of a participant in the registry
    dataset
        id of the dataset, as `connector catalog` shows it
    out
        the file to write, as the connector sees the file system
    purpose
        what the data is for; may be given several times; narrows what the offer allows
    acceptance
        file of the widest terms that we accept; may be given several times, then they all count. A contract is negotiated within them
        first, and the data is fetched under it
    parallel
        connections to fetch it with at the same time, 1 to 16, from a provider that signs what it serves; default: one, or two with TLS
    push
        let the provider bring them to our data listener, instead of fetching them from its
    span
        fetch these bytes alone, both ends included, as HTTP names them: `0-99`, `100-` to the end, `-100` the last 100. The leaves that
        hold them (256 KiB each, as a rule) come whole and are proven, signed for and paid whole, with each record that ends in them; a
        budget has to pay for all of the data as the transfer starts, as its provider does not know of the range, and has the rest back
    follow
        of data without an end take what comes until this command is interrupted, and then complete the order
    max_bytes
        of data without an end take no more once there are so many bytes
    seconds
        of data without an end take what comes in so many seconds
    """
    common = common or Common()
    if out.is_dir():
        raise InvalidRequest(f"`--out` is `{out}`, a directory; name the file in it")

    target, limits = str(out.absolute()), [read_policy(path) for path in acceptance or ()]

    async def work(client: ManagementClient) -> tuple[Pull, AgreementUsage | None]:
        import asyncio

        if limits:
            _agreed(await _settled(client, await client.negotiate(peer, dataset, purposes=purpose or (), acceptance=limits)))
        order = await client.pull(
            peer, dataset, target, purposes=purpose or [], parallel=parallel, range=span, most_bytes=max_bytes, seconds=seconds,
            push=push or None,
        )  # fmt: skip
        if not follow:
            return await _follow(client, order)
        try:
            return await _follow(client, order, ends=True)
        except asyncio.CancelledError:  # Ctrl-C: there is enough
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            return await _follow(client, await _enough(client, order.id))

    return _ended(*ask(common, work), common)


async def _enough(client: ManagementClient, id: str) -> Pull:
    """Take no more of data without an end: what has come is all of it. An order that fetches nothing yet is cancelled, or nobody would
    ever end it."""
    from connector.client.transport import ManagementError

    try:
        return await client.enough(id)
    except ManagementError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
    found = await client.pull_order(id)
    return await client.cancel(id, "it was interrupted before any data had come") if found.stage in ("negotiate", "transfer") else found


def negotiate(
    peer: str,
    dataset: str,
    *,
    offer: str | None = None,
    policy: Path | None = None,
    acceptance: Annotated[list[Path] | None, Parameter(negative=())] = None,
    purpose: Annotated[list[str] | None, Parameter(negative=())] = None,
    accept: Literal["same", "permitted", "operator"] | None = None,
    common: Common | None = None,
) -> int:
    """Negotiate a contract, and wait until it is agreed, refused, or an operator of either side has to decide.

    Parameters
    ----------
    peer
        id or name of a participant in the registry
    dataset
        id of the dataset, as `connector catalog` shows it
    offer
        id of the peer's offer; default: the first that allows the purposes
    policy
        file of terms of our own to ask for, in any form that `connector publish` takes; default: those of the offer
    acceptance
        file of the widest terms that we accept; may be given several times, then they all count
    purpose
        what the data is for; may be given several times; narrows what the offer allows
    accept
        which terms that come back are taken without asking: `same` as we asked for, all that are `permitted` (the default), or none,
        which leaves it to an `operator`
    """
    common = common or Common()
    terms = read_policy(policy) if policy is not None else None
    limits = [read_policy(path) for path in acceptance or ()]

    async def work(client: ManagementClient) -> Negotiation:
        begun = await client.negotiate(peer, dataset, offer=offer, policy=terms, purposes=purpose or (), accept=accept, acceptance=limits)
        return await _settled(client, begun)

    found = ask(common, work)
    if common.json:
        show.document(found)
    if found.state == "TERMINATED":
        _agreed(found)
    if not common.json:
        show.facts(
            {
                "negotiation": found.pid,
                "state": found.state,
                "agreement": found.agreement,
                "waits for": found.waiting,
                "terms": policy_text.labelled(found.terms) if found.terms is not None else None,
            }
        )
        for change in found.changes:
            show.line(f"changed: {change}")
    if found.waiting == "approval":
        show.note(f"it waits for us: `connector approve {found.pid}`, `counter` or `terminate`")
    elif found.state != "FINALIZED":
        show.note(f"it waits for the peer; `connector show {found.pid}` shows how it goes on")
    return 0


async def _settled(client: ManagementClient, begun: Negotiation) -> Negotiation:
    return await client.negotiation(begun.pid, wait="final", timeout_seconds=SETTLED_SECONDS)


def _agreed(found: Negotiation) -> None:
    """Raise ConnectorError for a negotiation that has not led to an agreement."""
    if found.state != "FINALIZED":
        why = found.reasons or ((f"it is in state {found.state} and waits for {found.waiting or 'the peer'}",))
        raise ConnectorError(f"no contract over `{found.dataset}` was agreed", (*why, f"`connector explain {found.pid}` says more"))


def pulls(id: str | None = None, *, common: Common | None = None) -> int:
    """List the orders that `connector get` made, or follow one to its end.

    Parameters
    ----------
    id
        id of the order to follow, or `latest` for the newest
    """
    common = common or Common()
    if id is None:
        page = ask(common, lambda client: client.pulls())
        if common.json:
            show.document(page)
            return 0
        rows = [
            (p.id, p.stage, p.peer, p.dataset, *map(show.size, (p.received_bytes, p.size_bytes, p.part_bytes)), "; ".join(p.reasons))
            for p in page.items
        ]
        show.table(("ID", "STAGE", "PEER", "DATASET", "RECEIVED", "SIZE", "PART LEFT", "REASONS"), rows, "no orders")
        return 0

    async def work(client: ManagementClient) -> tuple[Pull, AgreementUsage | None]:
        return await _follow(client, await client.pull_order(await order_of(client, id)))

    return _ended(*ask(common, work), common)


async def _follow(client: ManagementClient, order: Pull, *, ends: bool = False) -> tuple[Pull, AgreementUsage | None]:
    """Show the order until it is over, and return its last view, with what was used under its agreement, if there is one. `ends` says that
    it ends with whoever looks."""
    last, used, looked = order, None, monotonic()  # not at once: of data that have just begun to come nobody has signed for any
    try:
        with _progress() as update:
            update(order, None)
            if not order.is_over:
                async for last in client.follow(order.id):
                    if last.stage == "download" and last.agreement is not None and monotonic() - looked >= USAGE_SECONDS:
                        used, looked = await used_under(client, last.agreement), monotonic()
                    update(last, used)
    finally:
        if not last.is_over and not ends:
            show.note(f"the connector goes on with it; `connector pulls {order.id}` follows it, `connector cancel {order.id}` ends it")
            if last.size_bytes is None and last.received_bytes:
                show.note("the data may have no end, and what comes is signed for; the same `get` with `--follow` takes it until Ctrl-C")
    return last, await used_under(client, last.agreement) if last.is_over and last.agreement is not None else None


@contextmanager
def _progress() -> Iterator[Callable[[Pull, AgreementUsage | None], None]]:
    """On a terminal a bar with the rate, and below it what is proven, signed for and owed, or waited for; a line for each new stage
    otherwise. Both where the result is not."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.spinner import Spinner
    from rich.table import Column
    from rich.text import Text

    output = show.console(stderr=True)
    if not output.is_terminal:
        shown = ""

        def say(pull: Pull, _used: AgreementUsage | None) -> None:
            nonlocal shown
            if not shown.startswith(doing := _doing(pull)) and not pull.is_over:  # what it waits for comes and goes with each attempt
                show.note(doing)
                shown = doing

        yield say
        return
    whole = Column(no_wrap=True)  # of a narrow terminal the bar gives way
    columns = (DownloadColumn(table_column=whole), TransferSpeedColumn(table_column=whole), TimeRemainingColumn(table_column=whole))
    bar = Progress(TextColumn("{task.description}", table_column=whole), BarColumn(None), *columns, expand=True)
    task, waits = bar.add_task("", total=None), Spinner("dots")
    with Live(waits, console=output, transient=True) as live:

        def draw(pull: Pull, used: AgreementUsage | None) -> None:
            doing = _at(pull)
            bar.update(task, description=doing, completed=pull.received_bytes, total=pull.size_bytes)
            if pull.size_bytes is None and pull.received_bytes:  # of data without an end there is no part of the whole
                speed = f" at {show.size(round(rate))}/s" if (rate := bar.tasks[task].speed) else ""
                doing = f"{doing}: {show.size(pull.received_bytes)}{speed}"
            waits.update(text=doing)
            below = "; ".join(map(show.clean, (*signed(pull, used), *pull.reasons)))
            live.update(Group(waits if pull.size_bytes is None else bar, Text(below, style="dim")))

        yield draw


def _doing(pull: Pull) -> str:
    """The stage, and what it waits for."""
    return f"{_at(pull)} ({'; '.join(pull.reasons)})" if pull.reasons else _at(pull)


def _at(pull: Pull) -> str:
    """The stage: until there is a negotiation, none may be needed."""
    return LOOKING if pull.stage == "negotiate" and pull.negotiation is None else STAGES.get(pull.stage, pull.stage)


def _ended(pull: Pull, used: AgreementUsage | None, common: Common) -> int:
    if common.json:
        show.document(pull)
        return 0 if pull.stage == "done" else 1
    if pull.stage != "done":
        if said := signed(pull, used):  # it has not come, and is to be paid for as far as it did
            show.note("; ".join(said))
        process = pull.transfer or pull.negotiation
        more = (f"`connector explain {process}` says more" if process else f"`connector catalog {pull.peer}` shows what it offers us",)
        raise ConnectorError(f"`{pull.dataset}` of `{pull.peer}` was not fetched", (*(pull.reasons or ("no reason was given",)), *more))
    agreement = f"{pull.agreement} (reused)" if pull.reused else pull.agreement
    size_bytes = f"{pull.size_bytes} bytes" if pull.size_bytes is not None else None
    for reason in pull.reasons:  # what had to be begun again, what could not be checked
        show.note(reason)
    account = next((each for each in used.transfers if each["transfer"] == pull.transfer), None) if used is not None else None
    show.facts(
        {
            "file": pull.out,
            "size": size_bytes,
            "sha256": pull.sha256,
            "agreement": agreement,
            "transfer": pull.transfer,
            "attested": account["attested"] if account is not None else "provider-only",
            "signed for": f"{account['counts']['bytes']} bytes" if account is not None and account["attested"] == "both" else None,
            "cost so far": f"{amount}, of the agreement" if used is not None and (amount := cost(used)) is not None else None,
        }
    )
    return 0


def _datasets(page: dict[str, Any], depth: int) -> Iterator[tuple[Any, ...]]:
    for dataset in _objects(page.get("dataset")):
        sizes = [_number(d.get("dcat:byteSize")) for d in _objects(dataset.get("distribution"))]
        offers = [policy_text.labelled(offer) for offer in _objects(dataset.get("hasPolicy"))]
        yield dataset.get("@id"), _plain(dataset.get("dct:title")), show.size(next(iter(sizes), None)), " | ".join(offers)
    for nested in _objects(page.get("catalog")):
        if depth > 0:
            yield nested.get("@id"), _plain(nested.get("dct:title")), "-", "a catalog of its own"
            yield from _datasets(nested, depth - 1)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _plain(value: Any) -> Any:
    """A literal of JSON-LD, whichever form it has."""
    if isinstance(value, list):
        return " / ".join(str(_plain(item)) for item in value)
    return value.get("@value", "") if isinstance(value, dict) else value


def _number(value: Any) -> int | None:
    text = str(_plain(value))
    return int(text) if text.isdecimal() and text.isascii() else None
