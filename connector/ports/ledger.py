"""What the ledger and the meter need from the store: the part of the port `Store` that is theirs.

What they write goes through `Store.commit` as everything does; these are the readings, and the one write that takes away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from connector.dsp.messages import Role
from connector.records import Evidence
from connector.records.ledger import Entry, Log, Numbered, Place, Witnessed
from connector.records.metering import Metered, Receipted


class LedgerStore(Protocol):
    """Logs, their entries and nodes, and the accounts of metered transfers. All methods raise StoreError."""

    async def metered(self, transfer: str) -> Metered | None: ...
    async def metered_of(self, agreement: str) -> Sequence[Metered]:
        """The accounts of all transfers under an agreement, in order of the transfers' ids."""

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        """The receipts of a transfer whose numbers are in [`first`, `end`), all from `first` on without it, in order of sequence and of
        time. A long transfer has 10^5: read them in pieces."""

    async def newest_fact(self, pid: str, what: str) -> Evidence | None:
        """The newest fact `what` about a process or an agreement; None if there is none."""

    async def unstated(self, role: Role, whats: Collection[str], since: float) -> Sequence[str]:
        """Our pids of the transfers with an account in `role` that ended at `since` (POSIX seconds) or later and about which there is no
        fact of one of `whats`, in order."""

    async def untold(self) -> Sequence[str]:
        """The ids of the agreements that we have signed to be closed (`closing-signed`), of which the other side has not been told
        (`closing-told`), in order."""

    async def logs(self) -> Sequence[Log]:
        """All logs of this participant, in order of their numbers: the last one grows."""

    async def unnumbered(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """(evidence sequence, leaf hash) of rows whose sequence is greater than `after`, in order; none of those from before the ledger."""

    async def numbered(self, sequence: int) -> tuple[int, int] | None:
        """(number of the log, index in it) of the evidence row `sequence`; None if it is in no log yet, or is from before the first."""

    async def newest_numbered(self, log: int) -> Numbered | None:
        """The last run of entries in a log: one that is saved again with a larger count has become longer."""

    async def leaves(self, log: int, first: int, limit: int) -> Sequence[bytes]:
        """Leaf hashes from index `first` on, at most `limit` (1 to 10,000)."""

    async def subtrees(self, log: int, level: int, first: int, limit: int) -> Sequence[bytes]:
        """The nodes of a level (a multiple of 8, from 8) from `first` on, as far as they follow each other."""

    async def entries(self, log: int, first: int, limit: int) -> Sequence[Entry]:
        """Entries from index `first` on."""

    async def entries_of(self, pid: str, after: int, limit: int) -> Sequence[tuple[int, Entry]]:
        """(number of the log, entry) of the facts about one process whose sequence is greater than `after`, in order; those only that are
        in a log by now."""

    async def erase(self, sequence: int) -> bool:
        """Take away the `detail` of an evidence row and the salt of its entry, for good; the entry, and so the log, stays what it is. True
        once they are gone, False if there is no such row."""

    async def witnessed(self, peer: str, origin: str) -> Witnessed | None: ...
    async def witnesses(self) -> Sequence[Witnessed]:
        """Everything that is witnessed, in order of peer and origin."""


class Ledger(Protocol):
    """What those who acknowledge something need of the ledger."""

    async def index_of(self, sequence: int) -> Place:
        """The place of the evidence row `sequence` (as `commit` has returned it), once that is durable; somebody who waits is served at
        once. Raises StoreError if the ledger cannot be extended: nothing may be acknowledged then."""

    async def checkpoint(self) -> str | None:
        """Our newest signed checkpoint that may be shown to others, at most a second older than the newest of all; None if nothing is in
        the ledger yet. Raises StoreError."""

    def behind(self) -> bool:
        """Whether the ledger could not be extended when it should have been: who acknowledges then waits for it (`index_of`)."""

    def suspected(self, peer: str) -> bool:
        """Whether this participant has signed checkpoints of its ledger that contradict each other: nothing is acknowledged to it."""


class Anchor(Protocol):
    """What has been signed last, kept apart from the database: so that one that was restored from a backup is noticed. Both methods may
    wait for a disk, and raise StoreError."""

    def read(self) -> Sequence[bytes] | None:
        """The newest notes that stand there, in the order in which they were put there, and perhaps torn; none if nothing was signed yet;
        None if there is no such place, which is made then."""

    def write(self, note: bytes, *, durable: bool) -> None:
        """Put a note there. It survives the end of the process; with `durable` also the loss of power, when this returns."""
