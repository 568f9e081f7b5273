"""What the management API answers with, as types. Members that this version does not know are ignored.

Instants are RFC 3339 in UTC, sizes are bytes, digests are hexadecimal SHA-256. Documents of the standards (policies,
catalogs, agreements) stay plain JSON objects.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

T = TypeVar("T")
Document = dict[str, Any]
OVER = ("done", "failed")  # the last stages of a pull


class Page(Struct, Generic[T], frozen=True):
    """One page of a list; `next` is the cursor of the following one."""

    items: tuple[T, ...]
    next: str | None = None


class Own(Struct, frozen=True):
    """The connector itself: its participant, and the base URLs that peers use."""

    id: str
    name: str
    role: str
    protocol: str
    data: str
    version: str


class Participant(Struct, frozen=True):
    """A participant of the registry."""

    id: str
    name: str
    role: str
    protocol: str | None = None


class Offer(Struct, frozen=True):
    """An offer of a published dataset; `manual` leaves each request for it to an operator, `counter` says what is done with one that asks
    for something else, `envelope` is the widest that is accepted."""

    id: str
    policy: Document
    manual: bool = False
    counter: str = "auto-counter"
    envelope: Document | None = None
    template: Document | None = None


class Dataset(Struct, frozen=True):
    """A published dataset with its offers."""

    id: str
    title: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    offers: tuple[Offer, ...] = ()
    updated: str | None = None


class CatalogPage(Struct, frozen=True):
    """A page of a peer's catalog; `next` is its token for the following one. `left_out` are datasets and offers that are none, each with
    `id` and `reasons`."""

    catalog: Document
    next: str | None = None
    left_out: tuple[Document, ...] = ()


class CatalogDataset(Struct, frozen=True):
    """One dataset of a peer's catalog."""

    dataset: Document


class Negotiation(Struct, frozen=True):
    """A contract negotiation as this side sees it. `waiting` says whose turn it is: approval (an operator
    of ours decides), us (put off, or a dead letter) or peer. `changes` are what the peer said otherwise than is on offer here (to the
    consumer: than it asked), or what parts the two, a sentence for each axis; `instead` is what we offered otherwise than was asked.
    `grounds` are the `reasons` as data, where whoever stopped it gave any: which rule and constraint, and how a duty can be fulfilled."""

    pid: str
    role: str
    peer: str
    state: str
    peer_pid: str | None = None
    dataset: str | None = None
    agreement: str | None = None
    waiting: str | None = None
    code: str | None = None
    reasons: tuple[str, ...] = ()
    grounds: tuple[Document, ...] = ()
    ended_by: str | None = None
    terms: Document | None = None
    changes: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    decision: Any = None
    in_flight: str | None = None
    last_error: str | None = None
    due: str | None = None
    created: str | None = None
    updated: str | None = None


class Agreement(Struct, frozen=True):
    """A contract agreement; `document` is the ODRL Agreement, `ends` the instant after which it permits nothing, `closed` the one from
    which it does not because `closed_by` (us or peer) has closed it for `reason`. Of one that is asked for by itself `closing` says by
    whose word that instant stands (both, provider-only or consumer-only), `closing_refused` why (`code`, `says`) the other side does not
    take ours if it does not, and `counters` say what was used up: `rule`, `operand`, `used`,
    `reserved`, `limit`; those of money are decimal texts and have a `currency`."""

    id: str
    peer: str
    dataset: str
    provider: str
    consumer: str
    document: Document
    negotiation: str | None = None
    ends: str | None = None
    closed: str | None = None
    closed_by: str | None = None
    closing: str | None = None
    closing_refused: dict[str, str] | None = None
    reason: str | None = None
    final: bool = False
    counters: list[Document] = []


class AgreementUsage(Struct, frozen=True):
    """What was used under an agreement up to `at`: `counts` in all and, of them, what the consumer has `signed` for (bytes, records, items,
    calls, us); where we consume, `counts` and `cost` go as far as what has come, of transfers without receipts by our own word alone
    (`consumer-only`). `cost` has `currency`, `amount` and `signed`, or `reasons` for which nobody can say it; None without prices.
    `counters` are those of its quotas, where we count them; each of `transfers` has its `counts`, `attested`, its last `receipt`, and its
    `status`: open; ended, if the transfer is over and nobody has signed how; complete, rejected, aborted, disputed. Of those `disputed`
    (the provider's pids) the two sides have signed what contradicts itself."""

    agreement: str
    role: str
    at: str
    counts: dict[str, int]
    signed: dict[str, int]
    cost: Document | None = None
    counters: list[Document] = []
    transfers: list[Document] = []
    disputed: list[str] = []


class Credit(Struct, frozen=True):
    """What of the credit of an agreement (`credit_bytes`; None where nothing is locked) is `locked_bytes` by transfers that have ended
    without signing for all that had left: `lost` has `transfer`, `bytes`, and `until` when they count. It binds where the agreement demands
    receipts."""

    agreement: str
    locked_bytes: int
    credit_bytes: int | None = None
    lost: list[Document] = []


class Transfer(Struct, frozen=True):
    """A transfer process as this side sees it. `suspended_by` says by whose word it stands still (us or peer), `ended_by` who spoke last to
    stop it: the peer, where we have suspended it and it refuses to go on. `reasons` are the latter's."""

    pid: str
    role: str
    peer: str
    state: str
    peer_pid: str | None = None
    agreement: str | None = None
    dataset: str | None = None
    waiting: str | None = None
    code: str | None = None
    reasons: tuple[str, ...] = ()
    grounds: tuple[Document, ...] = ()
    suspended_by: str | None = None
    ended_by: str | None = None
    decision: Any = None
    in_flight: str | None = None
    last_error: str | None = None
    format: str | None = None
    ends: str | None = None
    due: str | None = None
    created: str | None = None
    updated: str | None = None


class Known(Struct, frozen=True):
    """What a process is."""

    kind: Literal["negotiation", "transfer"]
    pid: str


class Edr(Struct, frozen=True):
    """Where and with which token the data of a started transfer can be fetched."""

    endpoint: str
    authorization: str
    expires: str | None = None


class Pull(Struct, frozen=True):
    """An order to fetch a dataset, or a `range` of its bytes, into a file. `stage`: negotiate, transfer, download, complete, done, cancel
    or failed. `part_bytes` is what one that failed or was cancelled has left in a part beside its file, None where there is none."""

    id: str
    stage: str
    peer: str
    dataset: str
    out: str
    size_bytes: int | None = None
    received_bytes: int = 0
    part_bytes: int | None = None
    sha256: str | None = None
    agreement: str | None = None
    negotiation: str | None = None
    transfer: str | None = None
    purposes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    reused: bool = False
    range: str | None = None
    created: str | None = None
    updated: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.stage in OVER


class DeadLetter(Struct, frozen=True):
    """A message that could not be delivered in its time."""

    id: str
    pid: str
    kind: str
    peer: str
    move: str | None = None
    error: str | None = None
    created: str | None = None
    deadline: str | None = None


class Event(Struct, frozen=True):
    """One fact of the record, in the order of `sequence`; `at` is in POSIX seconds."""

    sequence: int
    what: str
    kind: str | None = None
    pid: str | None = None
    peer: str | None = None
    state: str | None = None
    move: str | None = None
    at: float | None = None
    detail: Any = None


class Explained(Struct, frozen=True):
    """What was decided about a process here, and why: the whole `decision`, the `terms` that it judged, in `plain` words too
    (`sentences` and `conditions`), how the other side's terms differed (`changes`) and what we offered `instead`, and who has ended or
    stopped it (`refusal`: `by` us or peer, or None where a message of ours was answered by nobody, `code`, `reasons` and the same as data,
    `grounds`). None where there is none. `told` has sentences of ours in the language that was asked for."""

    kind: str
    pid: str
    role: str
    peer: str
    state: str
    dataset: str | None = None
    agreement: str | None = None
    decision: Document | None = None
    terms: Document | None = None
    plain: Document | None = None
    changes: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    refusal: Document | None = None
    told: dict[str, str] = {}


class Simulated(Struct, frozen=True, rename={"who": "as"}):
    """A page of the catalog as `who` (id, name, claims) would see it at `at`: datasets with all offers, those that are hidden too, each
    with the `decision` of the catalog, its `grounds`, and what a `request` would be answered. `next_change` is the next instant at
    which something on the page may be decided otherwise."""

    who: Document
    at: str
    items: tuple[Document, ...]
    next: str | None = None
    next_change: str | None = None


class Template(Struct, frozen=True, rename={"stands_for": "class"}):
    """A policy template: what people call it (`label`: en, zh), what it stands for in its source, and its `parameters` (name, type, label,
    many, required, default, choices, low, high). `cases`, of one that is asked for by itself, are its meaning."""

    id: str
    version: str
    label: Document
    parameters: tuple[Document, ...]
    stands_for: str = ""
    profile: str | None = None
    cases: tuple[Document, ...] = ()


class Drafted(Struct, frozen=True):
    """What a policy in any form comes to before it is published: the `document` of the offer, the `template` to keep beside it, `findings`,
    `plain` words; no document where it is `refused`."""

    refused: bool
    findings: tuple[Document, ...] = ()
    plain: Document | None = None
    document: Document | None = None
    template: Document | None = None


class OtherTerms(Struct, frozen=True):
    """What other terms would do: the offers `replaced` with the differences, the participants for whom something changes (`effect`: loses,
    gains, narrower, wider, other), how many are `unchanged`, and a page of the `agreements` that go on under terms of their own. `told` has
    the sentences in the language that was asked for."""

    dataset: str
    at: str
    replaced: tuple[Document, ...]
    items: tuple[Document, ...]
    agreements: Page[Document]
    unchanged: int = 0
    tried: tuple[str, ...] = ()
    untried: int = 0
    next: str | None = None
    told: dict[str, str] = {}


class Ledgers(Struct, frozen=True):
    """The ledger: all `logs` (origin, size, follows, checkpoint, updated, keys), the newest last; what peers have `cosigned` of them, and
    what was `witnessed` of theirs (peer, origin, size, note, conflict, updated); who is `waiting` to be asked again (peer, since, reason);
    `fault`, if it cannot be extended now."""

    logs: tuple[Document, ...]
    cosigned: tuple[Document, ...] = ()
    witnessed: tuple[Document, ...] = ()
    waiting: tuple[Document, ...] = ()
    fault: str | None = None


class Reloaded(Struct, frozen=True):
    """What a reload changed."""

    changed: tuple[str, ...] = ()
