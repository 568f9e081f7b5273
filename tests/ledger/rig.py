"""Ledgers in this process: a store, a journal, keys, and a network that carries notes from one to the other."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from connector.adapters.memory import MemoryStore
from connector.adapters_stores.anchor import FileAnchor, MemoryAnchor
from connector.control.journal import Journal
from connector.errors import NotFound, PeerFailed
from connector.ledger.book import Book
from connector.ports import Caller, Participant, Reply, Store
from connector.ports.ledger import Anchor
from connector.records import Changes, Evidence
from connector.signatures.jws import PublicKey, SigningKey, signing_key
from tests.contracts.samples import OWN, PEER, fact


class Clock:
    """Wall time that a test sets."""

    def __init__(self, at: float = 1_764_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


def key_of(participant: str, generation: int = 1) -> SigningKey:
    """The key of a participant; always the same."""
    seed = hashlib.sha256(f"{participant} {generation}".encode()).digest()
    return signing_key(f"{participant}#{generation}", seed)


def participant(id: str) -> Participant:
    host = id.removeprefix("did:web:")
    return Participant(id, host.partition(".")[0], "hospital", f"https://{host}/dsp/2025-1", (f"https://{host}",))


class FakeIdentity:
    """Participants whose keys are known; a token is the id of who sends it."""

    def __init__(self, own: str, *others: str) -> None:
        self._known = {id: participant(id) for id in (own, *others)}
        self.own = self._known[own]
        self.generations: dict[str, int] = {}

    def keys(self, participant: str) -> Sequence[PublicKey]:
        if participant not in self._known:
            return ()
        return [key_of(participant, generation).key for generation in range(1, self.generations.get(participant, 1) + 1)]

    def find(self, name: str) -> Participant | None:
        return self._known.get(name)

    def participants(self) -> Sequence[Participant]:
        return tuple(self._known.values())

    async def mint(self, audience: str) -> str:
        return f"Bearer {self.own.id} {audience}"

    async def verify(self, authorization: str | None) -> Caller:
        raise AssertionError("the ledger does not ask for this")

    def sign(self, claims: Any, typ: str) -> str:
        raise AssertionError("the ledger does not ask for this")

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        raise AssertionError("the ledger does not ask for this")

    def standing(self, participant: str, claims: Any, expires: float) -> Caller | None:
        raise AssertionError("the ledger does not ask for this")

    def listen(self, changed: Callable[[str], None]) -> None:
        raise AssertionError("the ledger does not ask for this")


class Network:
    """Carries requests to the witnesses of other ledgers; `answers` scripts hosts that are none of ours."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.answers: dict[str, Reply | Exception] = {}
        self.sent: list[tuple[str, str, bytes | None]] = []
        self.heard = asyncio.Event()

    async def send(self, method: str, url: str, *, headers: Any, body: bytes | None = None, limit_bytes: int | None = None) -> Reply:
        self.sent.append((method, url, body))
        self.heard.set()
        parts = urlsplit(url)
        scripted = self.answers.get(parts.netloc)
        if isinstance(scripted, Exception):
            raise scripted
        if scripted is not None:
            return scripted
        book, caller = self.books.get(parts.netloc), headers["authorization"].split()[1]
        if book is None:
            raise PeerFailed(f"nobody answers at `{parts.netloc}`")
        if method == "POST" and parts.path == "/ledger/witness/add-checkpoint":
            answer = await book.witness.add(caller, body or b"")
            return Reply(answer.status, {"content-type": answer.media_type}, answer.body)
        try:
            note = await book.witness.shown(caller, unquote(parts.query.removeprefix("origin=")))
        except NotFound:
            return Reply(404, {}, b"")
        return Reply(200, {}, note.encode())

    def stream(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the ledger does not ask for this")

    def check(self, url: str) -> None:
        raise AssertionError("the ledger does not ask for this")

    async def close(self) -> None:
        raise AssertionError("the ledger does not ask for this")


class Site:
    """One participant: its store, its journal and its ledger. `store` and `anchor` outlive the `Site`, as a disk does a process."""

    def __init__(
        self,
        own: str = OWN,
        *others: str,
        store: Store | None = None,
        anchor: Anchor | None = None,
        network: Network | None = None,
        clock: Clock | None = None,
        holder: str = "alone",
    ) -> None:
        self.store: Store = store or MemoryStore()
        self.anchor = anchor or MemoryAnchor()
        self.clock = clock or Clock()
        self.network = network or Network()
        self.identity = FakeIdentity(own, *(others or (PEER if own != PEER else OWN,)))
        self.journal = Journal(self.store, self.clock)
        host = own.removeprefix("did:web:")
        self.origin = f"{host}/ledger"
        self.book = Book(
            self.store,
            self.journal.commit,
            self.clock,
            self.identity,
            self.network,
            self.anchor,
            lambda: key_of(own, self.identity.generations.get(own, 1)),
            self.origin,
            holder,
        )
        self.journal.listen(self.book.committed)
        self.changed = asyncio.Event()
        self.journal.listen(lambda _changes, _evidence: self.changed.set())
        self.network.books[host] = self.book

    async def __aenter__(self) -> "Site":
        await self.book.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.book.close()

    async def say(self, count: int = 1, **values: Any) -> tuple[Evidence, ...]:
        """Write facts, in one commit."""
        facts = tuple(fact(**({"pid": f"urn:uuid:{number}"} | values)) for number in range(count))
        result = await self.journal.commit(Changes(evidence=facts))
        assert isinstance(result, tuple)
        return result


def disk(folder: Path) -> FileAnchor:
    return FileAnchor(folder / "q.db.ledger")
