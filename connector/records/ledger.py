"""The values that are stored about the ledger: what a fact's entry is, the log that holds it, and what others have seen of logs.

Every fact (`Evidence`) is an entry of the participant's log (RFC 6962). A signed object is its own entry, verbatim; any other
fact is the JSON of what it says, in canonical form (JCS, RFC 8785). What may have to be erased some day is not in it: `detail`
stands there as SHA-256(salt ‖ detail), so that the entry stays what it is when detail and salt are gone. The salt also keeps whoever
sees the hashes of a log from guessing entries that are not his.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from connector.values import Value

if TYPE_CHECKING:
    from connector.records import Evidence

ENTRY_BYTES_MAX = 0xFFFF  # an entry bundle counts in 16 bits (C2SP tlog-tiles)
SALT_BYTES = 16  # 128 bits that nobody guesses
TILE_LEVELS = 8  # nodes of every eighth level are kept: the others are computed from a tile of 256


def hidden_of(salt: bytes, detail: bytes) -> bytes:
    """What an entry holds in place of `detail`, the bytes of its JSON (none if it is empty)."""
    return hashlib.sha256(salt + detail).digest()


def entry_of(fact: Evidence, hidden: bytes) -> bytes:
    """The entry of a fact: exact bytes. `hidden` is what `hidden_of` makes of its detail.

    Raises ValueError if it is larger than an entry may be; UnicodeEncodeError or TypeError for half a surrogate pair.
    """
    if fact.entry is not None:
        entry = fact.entry.encode()
    else:
        at = float(fact.at)
        said = {  # in the order of RFC 8785, 3.2.3; orjson writes strings, and numbers of this size, as 3.2.2 says
            "at": int(at) if at.is_integer() else at,
            "detail": hidden.hex(),
            "digest": None if fact.digest is None else fact.digest.hex(),
            "kind": fact.kind,
            "move": fact.move,
            "peer": fact.peer,
            "pid": fact.pid,
            "state": fact.state,
            "v": 1,
            "what": fact.what,
        }
        entry = orjson.dumps(said)
    if len(entry) > ENTRY_BYTES_MAX:
        raise ValueError(f"an entry of the ledger has {ENTRY_BYTES_MAX} bytes at most, not {len(entry)}; keep what is larger outside")
    return entry


class Log(Value):
    """One append-only log of this participant, and who extends it. The one with the highest `number` (1, 2, ...) grows, the others
    are closed for good.

    `origin` names it in its checkpoints, `follows` is a line of each of them: which log this one takes the place of ("" for the first).
    `size` entries are in it, `frontier` are the full subtrees of the tree over them (largest
    first), `note` is the signed checkpoint of just this tree ("" while it is empty). `sequence` is the number of the last evidence
    row that is in it or comes before it. `holder` may extend it until `until` (POSIX seconds); each taking over makes one more
    `epoch`. Every write expects the `version` that it has read: who lost the lease meanwhile writes nothing.
    """

    origin: str
    number: int
    follows: str = ""
    size: int = 0
    frontier: tuple[bytes, ...] = ()
    note: str = ""
    sequence: int = 0
    holder: str = ""
    epoch: int = 0
    until: float = 0.0
    version: int = 0
    updated: float = 0.0


class Place(Value):
    """Where an entry stands: `index` in the log `origin`."""

    origin: str
    index: int


class Numbered(Value):
    """Entries of log `log` from index `first` on: they are the `count` evidence rows from `sequence` on."""

    log: int
    first: int
    sequence: int
    count: int


class Subtree(Value):
    """A full subtree of log `log`: `hash` is the node (`level`, `index`), of 2^level leaves; levels are multiples of TILE_LEVELS, the
    leaves themselves (level 0) are with the evidence."""

    log: int
    level: int
    index: int
    hash: bytes


class Witnessed(Value):
    """The newest checkpoint of log `origin` about which `peer` and we agree. Of the peer's log: that we have seen and found consistent;
    of ours: that the peer has cosigned, and `note` carries its line. `conflict` is a signed checkpoint that contradicts it, if the peer
    ever showed one: nothing is signed for that peer any more."""

    peer: str
    origin: str
    size: int
    root: bytes
    note: str
    conflict: str | None = None
    version: int = 0
    updated: float = 0.0

    @property
    def key(self) -> str:
        """What tells it from others: neither a DID nor an origin has a space."""
        return f"{self.peer} {self.origin}"


class Entry(Value):
    """One entry as it stands in a log. `detail` (bytes of JSON) and `salt` are None when they were erased, or are no part of it because
    the entry is a signed object; `peer` is whom the fact is about, `pid` the process, both None for what concerns nobody else."""

    index: int
    sequence: int
    body: bytes
    leaf: bytes
    pid: str | None
    peer: str | None
    detail: bytes | None
    salt: bytes | None
