"""`connector participants`, `dead-letters`, `replay`, `discard`, `reload`: who takes part, what got stuck, and going on."""

from __future__ import annotations

from connector.cli import show
from connector.cli.session import Common, ask


def participants(*, common: Common | None = None) -> None:
    """List the participants of the registry."""
    common = common or Common()
    known = ask(common, lambda client: client.participants())
    if common.json:
        show.document({"items": known})
        return
    show.table(("NAME", "ID", "ROLE", "PROTOCOL"), ((p.name, p.id, p.role, p.protocol) for p in known), "nobody is registered")


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


def reload(*, common: Common | None = None) -> None:
    """Let the running connector read registry, keys and settings again."""
    common = common or Common()
    changed = ask(common, lambda client: client.reload())
    if common.json:
        show.document({"changed": changed})
        return
    for change in changed or ("nothing has changed",):
        show.line(change)
