"""What the checks of an evidence file share: the members by kind, whose keys count, and what was found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from msgspec import Struct

from connector.errors import MeterRefused, Unauthenticated
from connector.evidence.members import Finding, Member, finding
from connector.merkle.checkpoints import Checkpoint
from connector.merkle.notes import Kind, Note, VerifierKey, key_id
from connector.metering.objects import Read, Signed, digest, opened
from connector.odrl.model import DEFAULT_OPTIONS, Options
from connector.signatures import jws
from connector.values import Value, field

S = TypeVar("S", bound=Signed)
Place = tuple[str, str, int]  # whose ledger, its origin, its size
FEW: Final = 8  # keys of one participant; a self-description has room for thousands
AHEAD_SECONDS: Final = 300  # how far the clocks of two participants, or of one before and after it was set, may be apart


class Trust(Value):
    """What a verifier knows without the file: the `keys` of participants (by id), and `notes`, verifier keys of logs and of witnesses.
    Where a participant is named here nothing else counts for it."""

    keys: Mapping[str, Sequence[jws.PublicKey]] = field(default_factory=dict)
    notes: tuple[VerifierKey, ...] = ()

    @property
    def given(self) -> bool:
        """Whether it says who anybody is: keys of logs and witnesses say nothing of the participants, whom a file may have invented."""
        return bool(self.keys)


class Object(Value):
    """A signed object that was read: where it stands, what it is named by, and what it says."""

    member: Member
    digest: bytes
    value: Any

    @property
    def token(self) -> str:
        return str(self.member.value["jws"])

    @property
    def transfer(self) -> str:
        return str(self.member.value["transfer"])


class Narrowed(Value):
    """A key whose end (POSIX seconds, None for none) the file has as `said` and the verifier as `trusted`; the earlier one counts."""

    kid: str
    said: float | None
    trusted: float | None


class Case(Struct):
    """One file under examination. `header` and `agreement` are its members of that kind; `keys` are those that count, by participant;
    `notes` the verifier keys of `Trust`, `narrowed` those whose end is not told alike; `found` takes what does not hold; `options` are
    those by which policies are read."""

    members: Mapping[str, Sequence[Member]]
    header: Member
    agreement: Member
    found: list[Finding]
    keys: dict[str, tuple[jws.PublicKey, ...]] = field(default_factory=dict)
    notes: tuple[VerifierKey, ...] = ()
    narrowed: list[Narrowed] = field(default_factory=list)
    options: Options = DEFAULT_OPTIONS
    _genuine: set[tuple[str, str, bytes]] = field(default_factory=set)

    @property
    def provider(self) -> str:
        return str(self.agreement.value["provider"])

    @property
    def consumer(self) -> str:
        return str(self.agreement.value["consumer"])

    @property
    def exporter(self) -> str:
        return str(self.header.value["by"])

    @property
    def counterparty(self) -> str:
        return self.consumer if self.exporter == self.provider else self.provider

    def of(self, kind: str) -> Sequence[Member]:
        """The members of a kind, in the order of the file."""
        return self.members.get(kind, ())

    def fault(self, code: str, at: Member | None = None, pointer: str = "", **values: object) -> None:
        """Say that something does not hold."""
        self.found.append(finding(code, at, pointer, values))

    def accuse(self, code: str, at: Member, **values: object) -> None:
        """Say that a party has signed what contradicts itself."""
        self.found.append(finding(code, at, "", values, accuses=True))

    def refused(self, code: str, says: str, at: Member, pointer: str = "", *, accuses: bool = False) -> None:
        """Say what an object, a note or a proof says wrong, with its own code."""
        self.found.append(Finding(code, says, at.line, at.offset, pointer, accuses))

    def reads(self, issuer: str) -> Read:
        """Reads what a participant has signed, by the keys that counted when it says that it did. A signature is looked at once, though an
        object is read alone and in its chain."""

        def read(token: str, typ: str) -> Mapping[str, Any]:
            if (name := (issuer, typ, digest(token))) in self._genuine:
                return jws.claims_of(token)
            at = jws.claims_of(token).get("iat")
            if not isinstance(at, int | float):
                raise Unauthenticated("the object's `iat` is not a number of seconds", fault="payload")
            claims = jws.read(token, typ, issuer, self.keys.get(issuer, ()), float(at))
            self._genuine.add(name)
            return claims

        return read

    def object(self, kind: type[S], issuer: str, at: Member) -> Object | None:
        """The object of a member; None, and a finding, if it does not hold."""
        token = str(at.value["jws"])
        try:
            return Object(at, digest(token), opened(kind, token, self.reads(issuer)))
        except UnicodeEncodeError:
            self.refused("jws-parts", "the object is not a compact JWS of three parts", at, "/jws")
        except MeterRefused as refused:
            self.refused(refused.code, refused.message, at, "/jws")
        return None

    def log_keys(self, owner: str, origin: str, shown: float, note: Note) -> tuple[VerifierKey, ...]:
        """The keys that can have signed for a log what was `shown` then (POSIX seconds) as `note`: those that are pinned for it, else those
        of its owner that had begun. One that had ended may have signed it before: a log that rests has an old checkpoint. Of many keys
        those that the note names: each is looked at closely, for each log anew."""
        pinned = tuple(key for key in self.notes if key.kind is Kind.ED25519 and key.name == origin)
        begun = [key for key in self.keys.get(owner, ()) if key.not_before is None or key.not_before <= shown + AHEAD_SECONDS]
        return pinned or tuple(_verifier_key(origin, key.public, Kind.ED25519) for key in _named(note, origin, begun, Kind.ED25519))

    def witness_keys(self, owner: str, note: Note) -> tuple[VerifierKey, ...]:
        """The keys of all who may have cosigned a log of `owner` as `note`; of many those that it names."""
        pinned = {key.name: key for key in self.notes if key.kind is Kind.COSIGNATURE}
        others = [
            _verifier_key(id, key.public, Kind.COSIGNATURE)
            for id, keys in self.keys.items()
            if id != owner and id not in pinned
            for key in _named(note, id, keys, Kind.COSIGNATURE)
        ]
        return (*pinned.values(), *others)


class Cosigned(Value):
    """A checkpoint of the exporter's ledger that somebody else has cosigned: `by` (participant or name of a pinned key), at `at` (POSIX
    seconds)."""

    origin: str
    size: int
    by: str
    at: int


class Fact(Value):
    """What an entry that is no signed object says of a process: when (POSIX seconds), in which state, by which move. `detail` is None where
    it was erased."""

    sequence: int
    at: float
    what: str
    state: str | None
    move: str | None
    detail: Mapping[str, Any] | None
    member: Member
    digest: str | None = None

    @property
    def code(self) -> str | None:
        """Why a process was stopped by it."""
        code = (self.detail or {}).get("code")
        return code if isinstance(code, str) else None


class Ledgers(Struct):
    """What was found of ledgers. `newest` is the newest checkpoint of each log of the exporter; `seen` are the roots that were signed, each
    with the member that says so; `entries` how many entries there are, `erased` of them without their detail; `places` where the
    signed objects stand, `standing` of which pid each entry is, by log and index. `facts` are those of each pid, in their order;
    `digests` those that the ledger holds last, by pid and by what they are of, each with its sequence; `blank` is the last sequence of a
    pid whose detail is gone; `last` the latest instant that an entry says, `set_back` before which entries (log, index) the clock went
    back, and by how many seconds; `unheld` what nothing in the ledger says; `taken_over` the transfers that go on where another one was
    lost (the provider's pids), behind so many leaves, and by which receipt; `unknown` the extension lines of checkpoints that say what is
    not known here, by whose they are. `answers` of the provider with data are proven to be its own, `asked` of them with the requests of
    the consumer, `unshown` are not, and of `unplaced` it is not of which transfer. `bases` are what they are over. `requests` of the
    consumer for data, and answers of its `sinks`, are proven to be its own: of which transfer, and when (POSIX seconds). `numbered` are
    the pids of processes of which no fact is missing before another one, `dated` is the latest instant that another has signed. `leaves`
    are the hashes of the entries in the order of the file; `counted` says at which place (log, index) the exporter's ledger has how many
    they are, among the first so many entries of its logs."""

    newest: dict[str, Checkpoint] = field(default_factory=dict)
    seen: dict[Place, tuple[bytes, Member]] = field(default_factory=dict)
    cosigned: list[Cosigned] = field(default_factory=list)
    entries: dict[str, list[int]] = field(default_factory=dict)
    erased: int = 0
    places: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    standing: dict[tuple[str, int], str] = field(default_factory=dict)
    facts: dict[str, list[Fact]] = field(default_factory=dict)
    digests: dict[tuple[str, str], tuple[int, object]] = field(default_factory=dict)
    blank: dict[str, int] = field(default_factory=dict)
    unheld: list[str] = field(default_factory=list)
    last: float = float("-inf")
    set_back: list[tuple[str, int, float]] = field(default_factory=list)
    taken_over: list[tuple[str, str, int, int]] = field(default_factory=list)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    answers: int = 0
    asked: int = 0
    unshown: int = 0
    unplaced: int = 0
    requests: list[tuple[str, int]] = field(default_factory=list)
    sinks: list[tuple[str, int]] = field(default_factory=list)
    bases: set[str] = field(default_factory=set)
    numbered: set[str] = field(default_factory=set)
    dated: float = float("-inf")
    own: float = float("-inf")
    leaves: list[bytes] = field(default_factory=list)
    counted: tuple[str, int, int, Mapping[str, int]] | None = None
    _cited: list[tuple[str, Checkpoint, Member, str]] = field(default_factory=list)
    _notes: dict[tuple[str, str], Place | None] = field(default_factory=dict)

    def moves(self, pid: str) -> set[str]:
        """The moves of a process that are on record."""
        return {fact.move for fact in self.facts.get(pid, ()) if fact.move is not None}


def _named(note: Note, name: str, keys: Sequence[jws.PublicKey], kind: Kind) -> Sequence[jws.PublicKey]:
    ids = {each.key_id for each in note.signatures if each.name == name} if len(keys) > FEW else set()
    return [key for key in keys if key_id(name, key.public, kind) in ids] if len(keys) > FEW else keys


@lru_cache(maxsize=1024)  # a key is looked at closely once, and stands under thousands of notes
def _verifier_key(name: str, public: bytes, kind: Kind) -> VerifierKey:
    return VerifierKey(name, public, kind)
