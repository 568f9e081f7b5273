"""`connector participants`, `usage`, `invoice`, `statement`, `evidence`, `ledger`, `erase`, `dead-letters`, `replay`, `discard`, `reload`:
who takes part, what was used and is owed, what is on record and proves it, what got stuck, and going on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from connector.cli import show
from connector.cli.session import Common, ask
from connector.cli_billing.owed import show_invoice, show_usage
from connector.client.meant import agreement_of
from connector.errors import ConnectorError

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import AgreementUsage, Credit


def participants(*, common: Common | None = None) -> None:
    """List the participants of the registry."""
    common = common or Common()
    known = ask(common, lambda client: client.participants())
    if common.json:
        show.document({"items": known})
        return
    show.table(("NAME", "ID", "ROLE", "PROTOCOL"), ((p.name, p.id, p.role, p.protocol) for p in known), "nobody is registered")


def usage(agreement: str, *, common: Common | None = None) -> None:
    """Show what was used under an agreement, by whom it is attested, and what it costs so far.

    Parameters
    ----------
    agreement
        its id, as `connector agreements` shows it, or `latest` for the newest
    """
    common = common or Common()

    async def work(client: ManagementClient) -> tuple[AgreementUsage, Credit | None]:
        view = await client.usage(await agreement_of(client, agreement))
        return view, await client.credit(view.agreement) if view.role == "provider" else None

    view, credit = ask(common, work)
    if common.json:
        show.document(view)
        return
    show_usage(view, credit)


def invoice(
    agreement: str,
    *,
    begins: Annotated[str | None, Parameter(name="--from")] = None,
    ends: Annotated[str | None, Parameter(name="--to")] = None,
    format: Literal["text", "json", "csv", "html"] = "text",
    out: Path | None = None,
    common: Common | None = None,
) -> None:
    """Show or write the invoice of an agreement: both sides come to the same one, down to its digest, where receipts were signed.

    Parameters
    ----------
    agreement
        its id, as `connector agreements` shows it, or `latest` for the newest
    begins
        first instant or day of the period (UTC); default: the signing
    ends
        the instant or day at which the period is over, not in it; default: after the last acknowledged receipt, to which both
        sides come whenever they ask, or now if there is none. Of a period that is not over yet more may come
    format
        text for people, or json, csv, html (a page to print)
    out
        a new file to write it into; without it, it is printed
    """
    common = common or Common()
    wanted = "json" if format == "text" or common.json else format

    async def work(client: ManagementClient) -> bytes:
        return await client.invoice(await agreement_of(client, agreement), wanted, begins=begins, ends=ends)

    content = ask(common, work)
    if out is not None:
        try:
            show.put(out, content)
        except OSError as error:
            raise ConnectorError(f"`{out}` cannot be written: {error.strerror}; give `--out` the name of a new file") from None
        show.note(f"written to {out}")
    elif wanted != "json":
        show.text(content.decode())
    else:
        said = json.loads(content)
        if format == "json" or common.json:
            show.document(said)
        else:
            show_invoice(said)
        if ends is None:
            show.note(f"it goes up to {said['to']}: the last acknowledged receipt, or now if there is none; `--to` asks for another end")
        elif datetime.fromisoformat(said["to"]) > datetime.now(UTC):
            show.note("the period is not over yet: what comes until its end will be added, and the digest will be another")


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
        its id, as `connector agreements` shows it, or `latest` for the newest
    begins
        first instant or day of the period (UTC); default: the beginning of the agreement
    ends
        the instant or day at which the period is over, not in it; default: a few seconds ago
    """
    from connector.cli_evidence.stating import show_statement

    common = common or Common()

    async def work(client: ManagementClient) -> dict[str, Any]:
        return await client.statement(await agreement_of(client, agreement), begins=begins, ends=ends)

    said = ask(common, work)
    (show.document if common.json else show_statement)(said)
    if ends is None:
        show.note("it goes up to some seconds ago, of which both sides have all; what was signed for since then is in the next one")
    return 0 if said["outcome"] == "agreed" else 1


def evidence(
    action: Literal["export", "verify"],
    subject: str,
    other: Path | None = None,
    *,
    out: Path | None = None,
    cose: Path | None = None,
    witnesses: Literal["counterparty", "all"] = "counterparty",
    trust: Path | None = None,
    common: Common | None = None,
) -> int:
    """Export what proves an agreement into one file, or verify such a file, which needs nothing else.

    `connector evidence export AGREEMENT` writes agreement, identities, decisions, manifests, receipts, acks and proofs.
    `connector evidence verify FILE [FILE]` checks all of it without network, database and settings, and names the byte that was
    altered; of the exports of both sides it says whether they tell the same. It ends with 0 if all is well, else with 1.

    Parameters
    ----------
    action
        export or verify
    subject
        the id of an agreement, as `connector agreements` shows it, or `latest` for the newest; or an evidence file
    other
        the export of the other side, to compare
    out
        a new file to export into; default: one that is named as the agreement
    cose
        a folder for the entries of the ledger as COSE receipts (RFC 9942) beside the export
    witnesses
        whose cosignatures are exported; `all` tells the reader with whom else we deal
    trust
        keys to verify by, instead of those in the file: a folder of self-descriptions, one of them, or a file with verifier keys
    """
    common = common or Common()
    if action == "export":
        if other is not None or trust is not None:
            raise ConnectorError("`evidence export` takes an agreement, `--out`, `--cose` and `--witnesses`")
        return _export_evidence(subject, out, cose, witnesses, common)
    if out is not None or cose is not None or witnesses != "counterparty":
        raise ConnectorError("`evidence verify` takes one file or two, and `--trust`")
    from connector.cli_evidence.verifying import check

    checked = check([Path(subject), *([other] if other is not None else [])], trust)
    if common.json:
        show.document(checked.to_json())
        return 0 if checked.good else 1
    for name, report in checked.reports.items():
        if len(checked.reports) > 1:
            show.line(f"{name}:")
        for said in report.verdict():
            show.line(said)
    if checked.differences is not None:
        show.line("Both files tell the same." if not checked.differences else "The files do NOT tell the same:")
        for said in checked.differences:
            show.line(f"- {said}", indent=2)
    return 0 if checked.good else 1


def _export_evidence(agreement: str, out: Path | None, cose: Path | None, witnesses: Literal["counterparty", "all"], common: Common) -> int:
    from connector.cli_evidence.exporting import export, named

    async def work(client: ManagementClient) -> tuple[str, Path, int, int]:
        id = await agreement_of(client, agreement)
        path = out or named(id)
        return id, path, *await export(client, id, path, witnesses, cose)

    id, path, size_bytes, receipts = ask(common, work)
    if common.json:
        show.document({"agreement": id, "file": str(path), "size_bytes": size_bytes, "receipts": receipts})
        return 0
    show.line(f"{path} holds the evidence of {id} ({show.size(size_bytes)}); `connector evidence verify` checks it anywhere")
    if cose is not None:
        show.line(f"{cose} holds {receipts} entries of the ledger with their COSE receipts")
    return 0


def dead_letters(*, common: Common | None = None) -> None:
    """List the messages that could not be delivered."""
    common = common or Common()
    page = ask(common, lambda client: client.dead_letters())
    if common.json:
        show.document(page)
        return
    rows = [(d.id, d.kind, d.pid, d.peer, d.move, show.moment(d.created), d.error) for d in page.items]
    show.table(("ID", "KIND", "PID", "PEER", "MOVE", "SINCE", "ERROR"), rows, "no dead letters")
    if page.next is not None:
        show.note(f"only the newest {len(page.items)} are listed")


def replay(id: str, *, common: Common | None = None) -> None:
    """Deliver a dead letter again.

    Parameters
    ----------
    id
        as `connector dead-letters` shows it
    """
    common = common or Common()
    ask(common, lambda client: client.replay(id))
    if common.json:
        show.document({"replayed": id})
        return
    show.line(f"{id} is on its way again")


def discard(id: str, *, common: Common | None = None) -> None:
    """Drop a dead letter; what it was about ends by its deadline, or by `connector terminate`.

    Parameters
    ----------
    id
        as `connector dead-letters` shows it
    """
    common = common or Common()
    ask(common, lambda client: client.discard(id))
    if common.json:
        show.document({"discarded": id})
        return
    show.line(f"{id} is dropped")


def erase(event: int, *, common: Common | None = None) -> None:
    """Take away for good what an event of the record says in detail; its entry in the ledger, and every proof of it, stays valid.

    Parameters
    ----------
    event
        its number, as `connector show PID` lists it under RECORD
    """
    common = common or Common()
    ask(common, lambda client: client.erase(event))
    if common.json:
        show.document({"erased": event})
        return
    show.line(f"the details of event {event} are erased; that it was, and when, stays on record")


def reload(*, common: Common | None = None) -> None:
    """Let the running connector read registry, keys and settings again."""
    common = common or Common()
    changed = ask(common, lambda client: client.reload())
    if common.json:
        show.document({"changed": changed})
        return
    for change in changed or ("nothing has changed",):
        show.line(change)


def ledger(
    action: Literal["show", "verify", "witness", "forgive"] = "show", peer: str | None = None, *, common: Common | None = None
) -> None:
    """Show the ledger and who has witnessed it, compute all of it anew, have a participant cosign it, or trust one's ledger again.

    Parameters
    ----------
    action
        `verify` reads every entry and compares the tree with the signed checkpoint and with what peers have cosigned; `witness` has
        one of them cosign the newest checkpoint, as comes by itself once a minute while there is something between us;
        `forgive` says that we have looked at what a ledger of theirs contradicts: what they signed last counts from now on
    peer
        of `witness` and `forgive`: a participant, by name or id
    """
    common = common or Common()
    if (action in ("witness", "forgive")) != (peer is not None):
        raise ConnectorError("name a participant with `ledger witness` or `ledger forgive`, and with nothing else")
    if peer is not None and action == "forgive":
        ask(common, lambda client: client.forgive(peer))
        (show.document if common.json else show.line)({"forgiven": peer} if common.json else f"what {peer} signed last counts from now on")
        return
    if peer is not None:
        cosigned = ask(common, lambda client: client.witness(peer))
        if common.json:
            show.document({"cosigned": cosigned})
            return
        show.line(f"{cosigned['origin']}: {cosigned['peer']} has cosigned {cosigned['size']} entries")
        return
    if action == "verify":
        checked = ask(common, _verified)
        if common.json:
            show.document({"verified": checked})
            return
        for log in checked:
            show.line(f"{log['origin']}: {log['size']} entries are those of its signed checkpoint, and of {log['cosigned']} cosigned ones")
        return
    found = ask(common, lambda client: client.ledger())
    if common.json:
        show.document(found)
        return
    logs = [
        (log["origin"], log["size"], show.moment(log["updated"]), (log["follows"] or "").removeprefix("follows ")) for log in found.logs
    ]
    show.table(("LOG", "ENTRIES", "SIGNED", "TAKES THE PLACE OF"), logs, "nothing has been written to the ledger yet")
    seen = [(row["peer"], row["origin"], row["size"], show.moment(row["updated"]), "cosigned ours") for row in found.cosigned]
    seen += [
        (row["peer"], row["origin"], row["size"], show.moment(row["updated"]), "contradicts itself" if row["conflict"] else "grows")
        for row in found.witnessed
    ]
    show.line()
    show.table(("PEER", "LOG", "ENTRIES", "SINCE", ""), seen, "nobody has witnessed it yet")
    for row in found.witnessed:
        if row["conflict"]:
            fix = f"ask its operator what has happened, then `connector ledger forgive {row['peer']}` takes it up again"
            show.note(f"{row['peer']} has signed two checkpoints that contradict each other, and nothing is acknowledged to it: {fix}")
    for row in found.waiting:
        show.note(f"{row['peer']} has not cosigned since {show.moment(row['since'])}, and is asked again: {row['reason']}")
    if found.fault:
        show.note(found.fault)


async def _verified(client: ManagementClient) -> list[dict[str, Any]]:
    """Every log of the connector, computed anew from its entries. Raises ProofRefused that names what differs."""
    from connector.evidence.whole_log import WholeLog

    found, checked = await client.ledger(), []
    for log in (log for log in found.logs if log["size"]):
        cosigned = [row["note"].encode() for row in found.cosigned if row["origin"] == log["origin"]]
        whole = WholeLog(log["origin"], log["checkpoint"].encode(), log["keys"], cosigned)
        for tile, bundle in whole.wanted():
            whole.take(bundle, *[await client.ledger_tile(path, whole.origin) for path in (tile, bundle)])
        checked.append({"origin": whole.origin, "size": whole.size, "cosigned": len(cosigned)})
    return checked
