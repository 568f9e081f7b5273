"""Everything the use cases need from the world, as protocols whose docstrings are contracts.

A port is here because two implementations of it matter: SQLite and memory (later PostgreSQL) for `Store`; a registry and,
later, verifiable credentials for `Identity`; files, HTTP and later object stores for `Source`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.odrl.counters import Tally
from connector.ports.ledger import LedgerStore
from connector.records import (
    Agreement,
    Changes,
    Conflict,
    Dataset,
    Edr,
    Evidence,
    Idempotent,
    Inbox,
    Listed,
    Offer,
    Open,
    Outbound,
    Page,
    Pull,
    Usage,
)
from connector.values import Value, field

R = TypeVar("R")
# Gets every byte of a source that is being indexed, in order, in pieces that are its own until it returns; in a thread, one by one.
Along = Callable[[memoryview], None]
# Timers follow the monotonic clock, what they wait for the wall clock, which may be set: whoever waits looks at it so often.
CLOCK_CHECK_SECONDS = 0.5


class Clock(Protocol):
    """Wall time. Only adapters read the system's clock."""

    def now(self) -> float:
        """POSIX seconds, UTC."""


class Ids(Protocol):
    """New identifiers."""

    def new(self) -> str:
        """A fresh `urn:uuid:` of version 7: ordered by time so that new rows share pages, 74 random bits."""


class Participant(Value):
    """A participant as the identity layer knows it. `id` is a DID, `protocol` the base URL of its connector (the `<base>` of DSP 2025-1),
    `origins` are the scheme-host-port triples at which it may ask to be called back, `claims` what the trust framework says about it."""

    id: str
    name: str
    role: str
    protocol: str | None
    origins: tuple[str, ...]
    claims: Mapping[str, Any] = field(default_factory=dict)


class Caller(Value):
    """Who sent a message: the participant, its claims, and the instant until which both are proven (POSIX seconds)."""

    participant: Participant
    claims: Mapping[str, Any]
    expires: float


class VerificationKey(Protocol):
    """An Ed25519 key by which a participant's signatures are verified. `kid` is a DID URL, `public` has 32 bytes, the times are POSIX
    seconds or None for no bound (inclusive)."""

    @property
    def kid(self) -> str: ...
    @property
    def public(self) -> bytes: ...
    @property
    def not_before(self) -> float | None: ...
    @property
    def not_after(self) -> float | None: ...

    def valid(self, at: float) -> bool:
        """Whether signatures of this key count at that instant."""


class Identity(Protocol):
    """Who is speaking, and how we say who we are."""

    @property
    def own(self) -> Participant:
        """This connector's participant."""

    async def verify(self, authorization: str | None) -> Caller:
        """Check the value of an `Authorization` header. A token is good once. Raises Unauthenticated, which says what
        is wrong with the token without repeating it."""

    async def mint(self, audience: str) -> str:
        """A fresh value for the `Authorization` header of one delivery attempt to participant `audience`."""

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """A compact JWS of kind `typ` over `claims`, by our key of now. `claims["iss"]` is our id."""

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        """The claims of a JWS of kind `typ` and at most `jws.OBJECT_CHARACTERS_MAX` characters that participant `issuer` (an id, ours
        too) signed, by a key of it that was valid at `at` (POSIX seconds; None: now). Their `iss` is the issuer; nothing else of them
        is judged. It may be read any number of times. Raises Unauthenticated, whose `fault` names what is wrong: length, parts,
        header, alg, typ, kid, key-unknown, key-ended, signature, payload or issuer. No I/O."""

    def keys(self, participant: str) -> Sequence[VerificationKey]:
        """All keys known of a participant (an id, ours too), those that have ended too, with the times within which they sign: what
        evidence is verified by later. Empty if nobody vouches for it. No I/O."""

    def find(self, name: str) -> Participant | None:
        """The participant with this id or registered name, or None."""

    def participants(self) -> Sequence[Participant]:
        """All participants known, ordered by id."""

    def standing(self, participant: str, claims: Mapping[str, Any], expires: float) -> Caller | None:
        """What holds now of what this participant (an id) has proven: `claims`, which were vouched for until `expires` (POSIX
        seconds). Returns the claims of now and until when they hold; claims that have lapsed are left out. None if nobody vouches for
        it any more: it has left, or its keys or credentials were revoked or have ended. Asked at every decision: no I/O."""

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call `changed` with the id of a participant whenever what `standing` says of it may be another, other than by the
        instant that it named. It must not block."""


class Store(LedgerStore, Protocol):
    """What is remembered. Every key carries this connector's own participant, so that several may share a database.

    Reads see what is committed. All methods raise StoreError if the store is unusable; an error while writing is fatal:
    the process ends, and start-up is recovery.
    """

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        """Write all of `changes` or nothing. Returns the evidence with its sequence numbers once it is durable
        (survives `kill -9` and loss of power), or the Conflict of the first expectation that did not hold."""

    async def process(self, kind: Kind, pid: str) -> Process | None: ...
    async def process_of_peer(self, kind: Kind, peer: str, peer_pid: str) -> Process | None:
        """The process that this peer began, by the pid it chose: how a repeated first message finds its process."""

    async def processes(self, kind: Kind, *, after: str | None, limit: int, state: str | None, peer: str | None) -> Page[Process]:
        """Newest first. `after` is a cursor of an earlier page."""

    async def due(self, before: float, limit: int) -> Sequence[Process]:
        """Processes whose `due` is at or before that instant, earliest first."""

    async def next_due(self) -> float | None:
        """The earliest `due` of all processes."""

    async def open_transfers(self) -> Sequence[Open]:
        """All transfers that have not ended, on either side."""

    async def last_answer(self, pid: str) -> Inbox | None:
        """The inbox row of the last accepted message in process `pid`: its answer serves a replay."""

    async def agreement(self, id: str) -> Agreement | None: ...
    async def agreements(self, *, peer: str | None, dataset: str | None, after: str | None, limit: int) -> Page[Agreement]: ...

    async def usage(self, agreement: str) -> Usage | None: ...
    async def open_usage(self) -> Sequence[Usage]:
        """What agreements have used of which something is reserved: read once at start."""

    async def dataset(self, id: str) -> Dataset | None: ...
    async def offer(self, id: str) -> Offer | None: ...
    async def datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Dataset]:
        """In order of id. `after` and `before` are ids (exclusive); with `before` the page ends just before it. Where
        they are large it may have fewer than `limit`, of those that there are."""

    async def listed_dataset(self, id: str) -> Listed | None: ...
    async def listed_datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Listed]:
        """As `datasets`, for who may have no need of their terms."""

    async def edr(self, transfer: str) -> Edr | None: ...
    async def pull(self, id: str) -> Pull | None: ...
    async def pulls(self, *, open_only: bool, after: str | None, limit: int) -> Page[Pull]: ...
    async def idempotent(self, key: str) -> Idempotent | None: ...

    async def outbound(self, id: str) -> Outbound | None: ...
    async def open_outbox(self) -> Sequence[Outbound]:
        """All rows that are neither settled nor dead, oldest first: read once at start."""

    async def dead_letters(self, *, after: str | None, limit: int) -> Page[Outbound]: ...

    async def events(self, after: int, limit: int) -> Sequence[Evidence]:
        """Evidence with a sequence number greater than `after`, in order. Nothing is ever inserted below a number that was returned."""

    async def evidence_of(self, pid: str) -> Sequence[Evidence]:
        """All evidence of one process, in order."""

    async def sweep(self, *, inbox_before: float, processes_before: float, keys_before: float, limit: int) -> Mapping[str, int]:
        """Retention: delete at most `limit` rows each of inbox rows of final processes, final processes themselves
        without a row in the outbox (agreements and evidence stay), finished pulls, and idempotency keys, all older than their
        instants; pulls go with processes, but for one that has left a part, of which nobody else would know. Returns counts by table."""

    async def close(self) -> None: ...


class Reply(Value):
    """What a peer answered. `headers` has lower-case names; `body` is at most the limit that the caller set."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Detached(Value):
    """A connection that was taken out of the HTTP client. `descriptor` is its socket, which does not block and belongs to the holder from
    now on; `ahead` are bytes of the body that have been read already, `left` how many more there are to come. `where` is the
    peer's origin."""

    descriptor: int
    ahead: bytes
    left: int
    where: str


class Download(Protocol):
    """An answer whose body is still arriving. `headers` has lower-case names."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, once, in the pieces in which the network delivers it. Raises PeerFailed if it ends before its
        announced length, or if nothing arrives for the idle time."""

    def detach(self) -> Detached | None:
        """The connection itself, for somebody who moves the rest of the body without copying it, instead of `chunks`. None where the bytes
        on the wire are not those of the body (TLS, transfer codings), or where it has no announced length."""


class Peer(Protocol):
    """The network towards other connectors and HTTP sources, behind the egress guard."""

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        """One request, no redirects, no retries. Raises PeerFailed if there was no complete answer in time, EgressDenied
        if the address is not one we dial."""

    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], idle_seconds: float = 30.0
    ) -> AbstractAsyncContextManager[Download]:
        """One request whose answer is read piece by piece: no bound on its size or whole time, `idle_seconds` on each
        wait for the head or for more bytes. No redirects, no retries. Leaving the context before the end closes the
        connection. Raises PeerFailed and EgressDenied as `send` does."""

    def check(self, url: str) -> None:
        """Whether the form of `url` (scheme, port, no userinfo, no fragment) is one that would be dialled: what a peer names is judged when
        it arrives, and again by `send` and `stream` at each use. Raises EgressDenied."""

    def afresh(self, url: str) -> None:
        """Let the next call to the origin of `url` dial it anew: what it said was garbled, as the connection may be, or a proxy in it."""

    async def close(self) -> None: ...


class Stat(Value):
    """A source as it stands. `version` changes whenever the bytes do; `sha256` is None if it was never indexed."""

    size_bytes: int | None
    version: str
    sha256: bytes | None
    media_type: str
    counted: bool = False  # whether its records have a signed count, once it is indexed


# Media types of which a line is a record: what is counted as records is the lines that have begun to leave.
RECORD_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/fhir+ndjson"}
)


def counts_records(media_type: str) -> bool:
    """Whether the records of data of this media type can be counted while they leave."""
    return media_type.partition(";")[0].strip().lower() in RECORD_TYPES


class Source(Protocol):
    """The bytes behind one dataset, pinned to what was published."""

    async def stat(self) -> Stat:
        """Raises SourceFailed if the source is gone or is not what was published."""

    def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """Bytes from `offset`, `length` of them or all the rest, in pieces of 256 KiB to 1 MiB. Raises SourceFailed."""

    def fileno(self) -> int | None:
        """A file descriptor to send from without copying, or None. It belongs to the source and ends with `close`."""

    async def close(self) -> None: ...


class Sources(Protocol):
    """Opens and indexes sources of one kind (`file`, `http`); the private address says which."""

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        """Read the source once, at publication: returns the address pinned to what was read, and its size and digest. `along` reads
        the same bytes beside the digest. Raises InvalidRequest for an address that is not allowed, SourceFailed if it cannot be
        read, and what `along` raises."""

    async def open(self, address: Mapping[str, Any]) -> Source:
        """Open what `index` pinned. Raises SourceFailed."""


class Stage(Protocol):
    """One transformation of the bytes on their way from source to wire (filter, de-identify, sign, meter)."""

    name: str

    def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Deterministic for the same input, so that a range of the output can be produced again."""


# What an agreement can demand of a stream (`policies/profiles/qiao.yaml`): receipts that the consumer signs, requests that it signs.
COUNTERSIGNED, SIGNED_REQUESTS = "https://w3id.org/qiao/v1/countersigned", "https://w3id.org/qiao/v1/signed-requests"


class TransferView(Value):
    """What the data plane has to know of a transfer.

    `peer` is the counterparty's participant id, `generation` the number of starts that we have committed (tokens carry it),
    `agreement_ends` and `bound` (of the policy, as decided now) are POSIX seconds or None, `source` is the dataset's pinned
    private address, `stages` what its bytes pass on the way out, `tallies` what is counted of this use, up to the instant
    `counted_until`. `withheld` is the code of the decision of now if it is a refusal. `proven_until` (POSIX seconds) is the instant
    up to which somebody vouches for the peer. `demands` are the IRIs of what the agreement demands of a stream, known or not.
    """

    pid: str
    role: Role
    state: str
    peer: str
    generation: int
    agreement: str
    agreement_final: bool
    agreement_ends: float | None
    bound: float | None
    dataset: str
    source: Mapping[str, Any]
    stages: tuple[Stage, ...] = ()
    tallies: tuple[Tally, ...] = ()
    withheld: str | None = None
    proven_until: float | None = None
    counted_until: float | None = None
    demands: frozenset[str] = frozenset()


class Transfers(Protocol):
    """Where the data plane learns about transfers."""

    async def lookup(self, pid: str) -> TransferView | None:
        """The transfer with this pid of ours as it is committed, or None if there is none, or no dataset behind it any more."""

    async def demands(self, pid: str) -> frozenset[str] | None:
        """What its agreement demands of a stream, as IRIs, with or without a dataset behind it; None if one of the two is not stored."""


class Expander(Protocol):
    """JSON-LD that is not in compact form, handled in a worker with limits of time and memory."""

    async def compact(self, body: bytes, expected: str, sender: str) -> dict[str, Any]:
        """Return the schema-valid compact form of a message of `@type` `expected`. What waits is served in turn by `sender`, a
        participant id. Raises WireError with explanations, TooMany if this sender has more waiting than its share, Busy if the
        worker is stopping or cannot be started."""

    async def close(self) -> None: ...


class Act(Value):
    """What we should do next in a process: send `move` after `delay_seconds`, with `reasons` if it is a refusal; `grounds` are the same
    reasons as data."""

    move: Any
    delay_seconds: float = 0.0
    code: str | None = None
    reasons: tuple[str, ...] = ()
    grounds: tuple[Mapping[str, Any], ...] = ()


class Approver(Protocol):
    """Who decides when the protocol asks us to act and policy has permitted it."""

    def next_act(self, process: Process, proposed: Act | None) -> Act | None:
        """`proposed` is what the use case would do now (None: nothing). Return it, another act, or None to wait for an
        operator. Pure: called again after a crash it must say the same."""
