"""The values that a store keeps, and the one value by which anything is written: `Changes`.

A write is a value. It says what it expects to find, what it saves, which effects go out and what is put on record; a
store takes all of it in one transaction or none (a compare-and-set over several rows). Side effects are rows, so that a
crash after the commit loses nothing and a crash before it has said nothing. Times are POSIX seconds in UTC.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Generic, NamedTuple, TypeVar

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move
from connector.errors import InvalidRequest
from connector.records.ledger import Log, Numbered, Subtree, Witnessed
from connector.records.metering import Metered, Receipted
from connector.values import Value, field, replace


class Dataset(Value):
    """A published dataset. `document` is its DCAT description in compact JSON-LD bytes, offers and distributions
    included, as catalogs carry it; `source` says where the bytes are (never leaves this connector); `offers` its offers.
    Agreements from before `binding` (POSIX seconds, or None) are held to the offers too: they permit nothing that no offer does."""

    id: str
    document: bytes
    source: Mapping[str, Any]
    offers: tuple[Offer, ...]
    size_bytes: int | None = None
    sha256: bytes | None = None
    version: int = 0
    updated: float = 0.0
    binding: float | None = None

    @property
    def media_type(self) -> str:
        """What its bytes are, by the source; "" if that does not say."""
        return str(self.source.get("media_type", ""))


class Listed(Value):
    """A dataset as catalogs carry it (`document`), with what stands beside that unread: `read` makes the whole of it. `terms` is a hash
    with a key of this process: while it is the same for an id, so are the offers."""

    id: str
    document: bytes
    terms: int
    read: Callable[[], Dataset]


class Offer(Value):
    """An offer of exactly one dataset. `policy` is the ODRL document, without target; `manual` leaves each request to
    an operator.

    `envelope` is the widest policy under which an agreement is made without asking anybody, where it is not the offer itself. A request
    that overlaps it is answered by `counter`: `auto-counter` with what both have in common, `approve` by an operator. `template` is what
    the policy was made from (templates and parameters), so that a form can be opened again."""

    id: str
    dataset: str
    policy: Mapping[str, Any]
    manual: bool = False
    counter: str = "auto-counter"
    envelope: Mapping[str, Any] | None = None
    template: Mapping[str, Any] | None = None


class Agreement(Value):
    """A contract agreement. `document` is the ODRL Agreement; `ends` the instant after which it permits nothing, if its
    policy has one; `final` once both sides know it as finalized. `closed` is the instant from which it permits nothing any
    more, whatever its policy says; `closed_by` is `us` or `peer`, `reason` what was said. `performed` are the acts that fulfil
    its duties, as an operator has recorded them: `duty` (its pointer in the document), `action`, `at` (POSIX seconds), `by`
    (participant id), `amounts` (left operand -> number as text)."""

    id: str
    negotiation: str
    peer: str
    provider: str
    consumer: str
    dataset: str
    document: Mapping[str, Any]
    digest: bytes
    final: bool = False
    ends: float | None = None
    created: float = 0.0
    closed: float | None = None
    closed_by: str | None = None
    reason: str | None = None
    version: int = 0
    performed: tuple[Mapping[str, Any], ...] = ()


class Edr(Value):
    """An endpoint data reference that a provider gave us for a transfer: the address and the secrets to use it."""

    transfer: str
    address: Mapping[str, Any]
    access_token: str | None
    refresh_token: str | None
    refresh_endpoint: str | None
    expires: float | None
    updated: float = 0.0


class Pull(Value):
    """A consumer's order to fetch a dataset into a file. `stage` is one of negotiate, transfer, download, complete, done, cancel, failed;
    everything needed to go on after a crash is here. `validator` is the strong ETag that a resumed download insists on. `sha256` is the
    provider's word if `stated`, else what we counted over the whole file. `part` is the id under which the part stands: the order's own
    (None), or that of a failed order whose part it goes on with. `transfers` counts those that ended before all of the data had come;
    `reasons` say so, and why it failed. `earlier` are the transfers (our pids) that have brought some of the part before the present one.
    `parallel` connections are used at once, 0: as many as seems good. Of data without an end the order takes `most_bytes`, or what comes
    `until` an instant (POSIX seconds), of others a `range` of bytes (`metering.spans`); None for no bound. With `push` they are brought."""

    id: str
    peer: str
    dataset: str
    out: str
    stage: str
    purposes: tuple[str, ...] = ()
    negotiation: str | None = None
    agreement: str | None = None
    transfer: str | None = None
    validator: str | None = None
    size_bytes: int | None = None
    sha256: bytes | None = None
    received_bytes: int = 0
    reasons: tuple[str, ...] = ()
    stated: bool = True
    part: str | None = None
    transfers: int = 0
    earlier: tuple[str, ...] = ()
    parallel: int = 0
    most_bytes: int | None = None
    until: float | None = None
    push: bool = False
    range: str | None = None
    version: int = 0
    created: float = 0.0
    updated: float = 0.0


class Idempotent(Value):
    """The answer to a management call that came with an idempotency key; `digest` is the SHA-256 of its body."""

    key: str
    digest: bytes
    answer: bytes
    created: float


class Reservation(Value):
    """An amount that a transfer has set aside before it is used: it will be posted, as far as it was used, and else voided.

    `rule` is the path of the rule under which it counts, `operand` the left operand (full IRI) that says what is counted, `amount`
    whole units of it (uses, bytes, records, microseconds). What is set aside together has the same `id`.
    """

    id: str
    transfer: str
    rule: str
    operand: str
    amount: int
    at: float


class Usage(Value):
    """What an agreement has used up: `posted` for good, as (rule, operand, amount) in order, and `open`, what is reserved. Used is both
    together, at every instant. One record for each agreement, whatever it counts: an agreement has one assignee, and all its transfers
    and connectors share the counters."""

    agreement: str
    posted: tuple[tuple[str, str, int], ...] = ()
    open: tuple[Reservation, ...] = ()
    version: int = 0
    updated: float = 0.0

    def spent(self, rule: str, operand: str) -> int:
        """What was used for good."""
        return sum(amount for of, what, amount in self.posted if (of, what) == (rule, operand))

    def reserved(self, rule: str, operand: str) -> int:
        """What is set aside."""
        return sum(max(0, each.amount) for each in self.open if (each.rule, each.operand) == (rule, operand))

    def reserve(self, reservations: Sequence[Reservation], now: float) -> Usage:
        """The same with more set aside."""
        return replace(self, open=(*self.open, *reservations), version=self.version + 1, updated=now)

    def settle(self, id: str, spent: Mapping[str, int] | None, now: float) -> Usage:
        """The same with the reservations of this id settled. `spent` says how much of each was used, by operand; what it does not name
        was not; None: all of it was. Raises ValueError for more than was reserved."""
        posted = {(rule, operand): amount for rule, operand, amount in self.posted}
        for each in self.open:
            used = 0 if each.id != id else each.amount if spent is None else spent.get(each.operand, 0)
            if not 0 <= used <= max(0, each.amount):
                raise ValueError(f"{used} of {each.amount} reserved for `{each.transfer}` cannot be posted")
            if used:
                posted[each.rule, each.operand] = posted.get((each.rule, each.operand), 0) + used
        left = tuple(each for each in self.open if each.id != id)
        rows = tuple((rule, operand, amount) for (rule, operand), amount in sorted(posted.items()))
        return replace(self, posted=rows, open=left, version=self.version + 1, updated=now)


class Inbox(Value):
    """The last accepted message of a peer in our process `pid`, and the answer it got: no earlier one can come again. It is kept with
    its process, and not without one."""

    pid: str
    move: Move
    digest: bytes
    body: bytes
    status: int
    answer: bytes
    at: float


class Outbound(Value):
    """An effect that is due: a message to deliver (`act` is "deliver") or a decision to take (`act` is "decide").

    `due` is the earliest instant, `deadline` the last; after it the row is dead and an operator sees it. `body` is the
    message's bytes, without what is minted for each attempt. `claimed_by, epoch, until` are a lease for replicas: a
    claim is a hint, the effect is idempotent and every settling write is fenced by the process's version.
    """

    id: str
    pid: str
    kind: Kind
    peer: str
    act: str
    move: Move
    path: str
    body: bytes
    due: float
    deadline: float
    created: float
    attempts: int = 0
    dead: bool = False
    error: str | None = None
    trace: str | None = None
    claimed_by: str | None = None
    epoch: int = 0
    until: float = 0.0


class Evidence(Value):
    """One fact for the record and the event feed. `what` is from a closed set (`connector.telemetry`); `sequence` is
    given by the store. `detail` is plain JSON without secrets or personal data, and can be erased. `entry` is what the ledger holds of it
    if that is a signed object (JWS), verbatim; None: the fact itself (`records.ledger`)."""

    what: str
    kind: Kind | None
    pid: str | None
    peer: str | None
    state: str | None
    at: float
    move: Move | None = None
    digest: bytes | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    entry: str | None = None

    def numbered(self, sequence: int) -> Evidence:
        """The same with its number. Written out, because each commit does it for each row."""
        return Evidence(
            self.what, self.kind, self.pid, self.peer, self.state, self.at, self.move, self.digest, self.detail, sequence, self.entry
        )  # fmt: skip

    def saying(self, more: Mapping[str, Any]) -> Evidence:
        """The same with more in its detail. Written out, because each step does it for each row."""
        return Evidence(
            self.what, self.kind, self.pid, self.peer, self.state, self.at, self.move, self.digest, {**self.detail, **more}, 0, self.entry
        )  # fmt: skip


T = TypeVar("T")
Record = (
    Process | Dataset | Agreement | Usage | Edr | Pull | Idempotent | Inbox | Metered | Receipted | Log | Numbered | Subtree | Witnessed
)


class Expect(Value):
    """What must be true at the moment of the write: the record of type `of` under `key` has this `version`; None means
    that there is none. `key` is the record's id, for `Process` by peer it is (kind, peer, peer pid). An `Outbound` has
    its `epoch` for a version; of a record without one (offer, EDR, idempotency key) any number means that it is there."""

    of: type[Any]
    key: str | tuple[str, str, str]
    version: int | None


class Open(NamedTuple):
    """A transfer that has not ended, by what may change about it."""

    pid: str
    peer: str
    agreement: str | None
    dataset: str | None


class Conflict(Value):
    """The write found something else than expected and changed nothing. Read again and decide again. `expect` is the first of `expects`
    that did not hold; only if all of them did, the first of what the write expects unsaid, in the order of `saves`.

    Two things every write expects, said or not: no other process of the kind has the same peer and peer pid, and no
    other dataset has an offer of the same id. Broken, they come back as that expectation (`version` None); the same
    write will not do better the next time.
    """

    expect: Expect


class Changes(Value):
    """All that one step writes.

    `saves` are inserted or replaced under their key (a saved record's `version` is the new one). `deletes` are (type, key): a dataset
    goes with its offers, a process with its inbox, an agreement with its usage, an account (`Metered`) with its receipts; of the ledger
    nothing is ever deleted.
    `outbox` rows are new or replace the row of the same id; `settled` are ids of outbox rows that are done. Removals come
    first, so that an id that is both settled and written stays: an effect may happen twice, but is never lost.
    """

    expects: tuple[Expect, ...] = ()
    saves: tuple[Record, ...] = ()
    deletes: tuple[tuple[type[Any], str], ...] = ()
    outbox: tuple[Outbound, ...] = ()
    settled: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def implied(changes: Changes) -> list[tuple[Expect, str]]:
    """What `changes` expects without saying so, each with the one record (pid, dataset) that may have the key already.
    Raises ValueError if two records of one write claim the same."""
    found: list[tuple[Expect, str]] = []
    for record in changes.saves:
        if isinstance(record, Process):
            if record.peer_pid is not None:
                found.append((Expect(Process, (record.kind, record.peer, record.peer_pid), None), record.pid))
        elif isinstance(record, Dataset):
            found += [(Expect(Offer, offer.id, None), record.id) for offer in record.offers]
    if len(found) > 1:
        keys = [expect.key for expect, _ in found]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"two records of one write claim `{twice}`; each process has a peer pid and each offer an id of its own")
    return found


class Page(Value, Generic[T]):
    """A page of a list. `next` and `previous` are opaque cursors, None where there is no such page; of datasets they are
    ids, `next` for `after` and `previous` for `before`."""

    items: tuple[T, ...]
    next: str | None = None
    previous: str | None = None


class Cursor(Value):
    """A place in a list that is ordered by (instant, id), and the way to walk from there. Texts of it are opaque to
    whoever pages: base64url of JSON."""

    forward: bool
    at: float
    id: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.forward, float(self.at), self.id]).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Raises InvalidRequest for a text that no page has carried."""
        try:
            match json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)):
                case [bool() as forward, float() as at, str() as id] if isfinite(at):
                    id.encode()  # half a surrogate pair has no UTF-8, and is in no list
                    return cls(forward, at, id)
        except (ValueError, RecursionError):  # what is no base64, no JSON or no UTF-8 are all of them ValueErrors
            pass
        raise InvalidRequest("`after` is not a cursor of this list; take `next` or `previous` of a page, or leave it out to begin")


def paged(found: Sequence[T], limit: int, *, forward: bool, behind: bool, cursor: Callable[[T, bool], str]) -> Page[T]:
    """Make a page of what a walk found.

    Parameters: `found` in the order of the walk, one more than `limit` if there is more; `behind` says whether there is
    something on the other side of where the walk began; `cursor(item, forward)` names the place of an item.
    """
    more, items = len(found) > limit, tuple(found[:limit]) if forward else tuple(reversed(found[:limit]))
    later, earlier = (more, behind) if forward else (behind, more)
    return Page(items, cursor(items[-1], True) if items and later else None, cursor(items[0], False) if items and earlier else None)
