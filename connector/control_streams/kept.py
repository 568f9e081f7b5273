"""Orders as they are kept: each step of one is a commit that names what the next one needs, and what was begun for it is noted with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from connector import telemetry
from connector.control.journal import Journal
from connector.control_streams import orders
from connector.metering.content import write_bytes
from connector.metering.objects import Receipt, digest, kept, manifest_of
from connector.records import Changes, Conflict, Evidence, Expect, Idempotent, Pull
from connector.values import replace

PAGE: Final = 200
DONE, FAILED, CANCEL = "done", "failed", "cancel"  # stages
CANCELLABLE = ("negotiate", "transfer", "download")  # then all of the data is there


class Kept:
    """Reads and writes orders by way of the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._store = journal, journal.store

    async def open(self) -> AsyncIterator[Pull]:
        """Every order that is not over."""
        after = None
        while True:
            page = await self._store.pulls(open_only=True, after=after, limit=PAGE)
            for pull in page.items:
                yield pull
            if (after := page.next) is None:
                return

    async def save(self, pull: Pull, **changed: Any) -> Pull:
        """Commit an order with these attributes changed, and return it. Where it begins to fetch by another transfer than before, the fact
        of that stage cites what was signed for by the one before, if those were live data: there the new log takes over."""
        saved = self.next(pull, **changed)
        begins = saved.stage == "download" and pull.stage != saved.stage and saved.earlier
        cited = await self._cited(saved.earlier[-1]) if begins and saved.transfer != saved.earlier[-1] else None
        await self._journal.commit(self.write(pull, saved, cited))
        return saved

    async def _cited(self, transfer: str) -> dict[str, Any] | None:
        """The last checkpoint for which a transfer of ours was signed for, as a fact says it: None where nothing was, or of finite data,
        whose every transfer has the same log."""
        stored = await self._store.metered(transfer)
        if stored is None or not stored.receipt or manifest_of(stored.manifest).log.root is not None:
            return None
        point = kept(Receipt, stored.receipt).checkpoint
        if point is None:
            return None
        return {"transfer": transfer, "receipt": write_bytes(digest(stored.receipt)), "leaves": point.size, "root": write_bytes(point.root)}

    async def inherit(self, pull: Pull) -> Pull:
        """Go on with the part that a failed order has left, if it was to fetch the same into the same file. One order alone does."""
        if pull.part is not None or pull.validator is not None:
            return pull
        known = await self._store.idempotent(orders.left_by(pull))
        left = await self._store.pull(known.answer.decode()) if known else None
        if known is None or left is None or left.stage != FAILED:
            return pull
        saved = self.next(pull, **orders.inherited(left))
        given = replace(left, validator=None, version=left.version + 1)  # it has no part any more
        changes = self.write(pull, saved)
        changes = replace(
            changes,
            expects=(*changes.expects, Expect(Pull, left.id, left.version)),
            saves=(*changes.saves, given),
            deletes=((Idempotent, known.key),),
        )
        if isinstance(await self._journal.commit(changes), Conflict):
            return pull  # another order has taken it, or this one is being ended
        telemetry.log.info("going on with the part of another order", pull=pull.id, left_by=left.id)
        return saved

    def next(self, pull: Pull, **changed: Any) -> Pull:
        """The next version of an order."""
        return replace(pull, version=pull.version + 1, updated=self._journal.clock.now(), **changed)

    def write(self, before: Pull | None, pull: Pull, cited: Mapping[str, Any] | None = None) -> Changes:
        """What is written for an order that was `before` (None: it is new): a stage that it has come to is a fact, with what it takes over
        from, if that is `cited`; and the part that one leaves that failed is found by the next one for the same file."""
        evidence: tuple[Evidence, ...] = ()
        left: tuple[Idempotent, ...] = ()
        began = before is not None and (
            before.stage in ("download", CANCEL) or (before.stage in CANCELLABLE and pull.validator is not None)  # it asked for another one
        )
        if began and pull.stage == FAILED:
            left = (Idempotent(orders.left_by(pull), b"", pull.id.encode(), pull.updated),)
        if before is None or before.stage != pull.stage:
            process, detail = pull.transfer or pull.negotiation, orders.on_record(pull) | ({"takes_over": cited} if cited else {})
            evidence = (Evidence(telemetry.PULL, None, process, pull.peer, None, pull.updated, detail=detail),)
        return Changes((Expect(Pull, pull.id, before.version if before else None),), (pull, *left), evidence=evidence)

    def key(self, pull: Pull, what: str) -> Idempotent:
        """Beginning a process and noting its pid are two commits; this key, written with the first, makes them one."""
        return Idempotent(f"pull:{pull.id}:{what}", b"", b"", self._journal.clock.now())

    async def noted(self, pull: Pull, what: str) -> str | None:
        """The pid of the process that was begun under a `key`, None if none was."""
        known = await self._store.idempotent(self.key(pull, what).key)
        return known.answer.decode() if known else None
