"""A provider's data plane with a real listener on loopback, the guarded client towards it, and the fakes around both."""

import asyncio
import hashlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiohttp import web
from nacl.bindings import crypto_sign

from connector import telemetry
from connector.adapters.egress import guard
from connector.adapters.file_sink import FileSinks
from connector.adapters.file_source import FileSources
from connector.adapters.http_source import HttpSources
from connector.adapters.memory import MemoryStore
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams.http_stream import HttpStreams
from connector.api.connections import Connection, Entrance
from connector.api.data_answers import Signing
from connector.api.data_api import DataApi
from connector.api.metering_api import Metering
from connector.control.journal import Journal
from connector.dataplane.accounts import Accounts
from connector.dataplane.edr import Tokens, grant_for, read_address
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate
from connector.dataplane.logs import Logs
from connector.dataplane.meter import Meters
from connector.dataplane.quotas import Ledger
from connector.dataplane.receipts import Receipts
from connector.dataplane_live.lives import Lives
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import Unauthenticated
from connector.intake.download import Downloads
from connector.merkle import notes
from connector.odrl.counters import Tally
from connector.ports import Caller, Participant, Store, TransferView
from connector.ports.ledger import Ledger as PortOfLedger
from connector.records import Agreement, Changes, Edr, Pull
from connector.records.metering import Metered
from connector.signatures import jws
from connector.signatures.jws import PublicKey, SigningKey, signing_key
from connector.values import replace

PROVIDER, CONSUMER, STRANGER = "did:web:hospital.example", "did:web:biopharma.example", "did:web:stranger.example"
TRANSFER = "urn:uuid:01890000-0000-7000-8000-000000000001"
KEY = signing_key(f"{PROVIDER}#key", b"k" * 32)
POLICY = {"@id": "urn:agreement", "@type": "Agreement", "permission": [{"action": "use"}]}


@lru_cache
def key_of(name: str) -> SigningKey:
    """The key of a participant: of its own for each name, and the same in each run."""
    return signing_key(f"{name}#key", hashlib.sha256(name.encode()).digest())


class ShiftedClock:
    """Wall time that a test can move by hand, and let stand: no bound overtakes what has to happen before it."""

    def __init__(self, *, stands: bool = False) -> None:
        self.shift_seconds = 0.0
        self._stands_at: float | None = None
        if stands:
            self.stand()

    def now(self) -> float:
        return (time.time() if self._stands_at is None else self._stands_at) + self.shift_seconds

    def stand(self) -> None:
        """Wait for `go`."""
        self._stands_at = time.time()

    def go(self) -> None:
        """Go on from where it stands."""
        assert self._stands_at is not None
        self.shift_seconds -= time.time() - self._stands_at
        self._stands_at = None


class Counted:
    """Identifiers one after the other."""

    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"urn:uuid:{self.count:08d}"


@dataclass
class FakeIdentity:
    """Tokens are `Bearer <issuer> for <audience> <number>` and good once."""

    name: str
    used: set[str] = field(default_factory=set)
    minted: int = 0

    @property
    def own(self) -> Participant:
        return Participant(self.name, self.name, "role", None, ())

    async def verify(self, authorization: str | None) -> Caller:
        parts = (authorization or "").split()
        if len(parts) != 5 or parts[3] != self.name or authorization in self.used:
            raise Unauthenticated("the token is not an identity token for us, or was used before")
        self.used.add(authorization or "")
        return Caller(Participant(parts[1], parts[1], "role", None, ()), {}, time.time() + 60)

    async def mint(self, audience: str) -> str:
        self.minted += 1
        return f"Bearer {self.name} for {audience} {self.minted}"

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        return jws.sign(claims, key_of(self.name), typ)

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        return jws.read(token, typ, issuer, self.keys(issuer), time.time() if at is None else at)

    def keys(self, participant: str) -> list[PublicKey]:
        return [] if participant == STRANGER else [key_of(participant).key]

    def find(self, name: str) -> Participant | None:
        return None

    def participants(self) -> list[Participant]:
        return []


class FakeTransfers:
    """Transfers in a dict; counts how often it is asked."""

    def __init__(self) -> None:
        self.views: dict[str, TransferView] = {}
        self.lookups = 0

    async def lookup(self, pid: str) -> TransferView | None:
        self.lookups += 1
        return self.views.get(pid)


def view(source: Mapping[str, Any], **changed: Any) -> TransferView:
    """A transfer that runs."""
    running = TransferView(TRANSFER, Role.PROVIDER, "STARTED", CONSUMER, 1, "urn:agreement", True, None, None, "urn:dataset", source)
    return replace(running, **changed)


def process(state: str, pid: str = TRANSFER) -> Process:
    """What the control side hands to `Flows.changed`."""
    return Process(Kind.TRANSFER, pid, Role.PROVIDER, CONSUMER, "https://consumer.example", state, peer_pid="urn:uuid:consumer", version=1)


@dataclass
class Marks:
    """What control says of a transfer that has come to a mark: what is counted from there on, by its pid; by itself, that it is over.
    Then its view is TERMINATED."""

    transfers: FakeTransfers
    flows: Flows
    beyond: dict[str, tuple[Tally, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def reached(self, pid: str) -> tuple[Tally, ...] | None:
        self.asked.append(pid)
        if pid not in self.beyond and (known := self.transfers.views.get(pid)) is not None:
            self.transfers.views[pid] = replace(known, state="TERMINATED")
            self.flows.changed(replace(process("TERMINATED", pid), detail={"code": "QUOTA_EXHAUSTED"}))
        return self.beyond.get(pid)


@dataclass
class Rig:
    """One provider. `address` is the pinned source of the only dataset."""

    root: Path
    clock: ShiftedClock
    tokens: Tokens
    transfers: FakeTransfers
    flows: Flows
    gate: Gate
    peer: HttpPeer
    sources: dict[str, Any]
    url: str
    covered: list[str]
    identity: FakeIdentity
    consumer: FakeIdentity
    store: Store
    ledger: Ledger
    marks: Marks
    metering: Metering | None = None
    logs: Logs | None = None

    async def publish(self, content: bytes, name: str = "data.bin", media_type: str | None = None, **changed: Any) -> bytes:
        """Make `content` the dataset behind the transfer; returns its SHA-256."""
        (self.root / name).write_bytes(content)
        said = {"media_type": media_type} if media_type else {}
        address, stat = await self.sources["file"].index({"type": "file", "path": name} | said)
        self.transfers.views[TRANSFER] = view(address, **changed)
        self.flows.look_again()
        assert stat.sha256 == hashlib.sha256(content).digest()
        return stat.sha256

    async def publish_live(self, url: str, **members: Any) -> None:
        """Make what comes from `url` the dataset behind the transfer."""
        address, _ = await HttpStreams(self.peer, {}.get).index({"type": "http-stream", "url": url} | members)
        self.transfers.views[TRANSFER] = view(address)
        self.flows.look_again()

    def change(self, **changed: Any) -> None:
        """Commit a change of the transfer."""
        self.transfers.views[TRANSFER] = changed_view = replace(self.transfers.views[TRANSFER], **changed)
        self.flows.changed(process(changed_view.state))

    def edr(self, *, endpoint: str | None = None) -> Edr:
        """The data address as the consumer stores it; `endpoint` leads over a proxy instead."""
        document = self.tokens.data_address(grant_for(self.transfers.views[TRANSFER]))
        if endpoint is not None:
            document["endpoint"] = document["endpoint"].replace(self.url, endpoint)
        read, now = read_address(document), self.clock.now()
        expires = now + (read.expires_seconds or 0)
        return Edr(TRANSFER, document, read.access_token, read.refresh_token, read.refresh_endpoint, expires, now)

    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.access(grant_for(self.transfers.views[TRANSFER]))[0]}"}

    @property
    def endpoint(self) -> str:
        return f"{self.url}/data/{TRANSFER}"

    def downloads(self, to: Path, **changed: Any) -> Downloads:
        return Downloads(self.peer, self.consumer, FileSinks([to]), self.clock, **changed)


def free_socket() -> socket.socket:
    """A socket bound to a free port of loopback: the port is known before anything listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


@asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext | None = None, at: socket.socket | None = None) -> AsyncIterator[int]:
    """Serve `app` on loopback, with the connections of our own listeners."""
    at = at or free_socket()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    serve = runner.server
    assert serve is not None
    entrance = Entrance(
        "test",
        lambda patience, lost: Connection(serve, patience, lost, access_log=None, auto_decompress=False),
        lambda: tls,
        unread_seconds=60.0,
        connections=1_000,
        per_address=1_000,
        handshake_seconds=10.0,
    )
    server = await asyncio.get_running_loop().create_server(entrance, sock=at)
    try:
        yield at.getsockname()[1]
    finally:
        server.close()
        await runner.cleanup()
        await entrance.end()


@asynccontextmanager
async def provider(
    root: Path,
    *,
    tls: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
    token_seconds: float = 300.0,
    stall_seconds: float = 60.0,
    clock: ShiftedClock | None = None,
    store: Store | None = None,
    bulk_threads: int = 4,
    metered: bool = False,
    facts: PortOfLedger | None = None,
    live: Mapping[str, Any] | None = None,
    front: str | None = None,
    **promised: int,
) -> AsyncIterator[Rig]:
    """A provider that serves files below `root`, and counts in `store` what is used up. With `metered` it has content logs, and accounts
    with windows and credit as `promised`; acks wait for `facts`. `live` are the limits of live data. `front` is its URL as
    others use it, where something stands before it."""
    clock, transfers, covered = clock or ShiftedClock(), FakeTransfers(), list[str]()
    peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]), ca_file=ca_file)
    sources = {"file": FileSources([root]), "http": HttpSources(peer, {"upstream": "Bearer upstream-secret"}.get)}
    streams = HttpStreams(peer, {"upstream": "Bearer upstream-secret"}.get)
    flows = Flows(clock, covered.append)
    identity = FakeIdentity(PROVIDER)
    at = free_socket()
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    url = f"{scheme}://{host}:{at.getsockname()[1]}"
    tokens = Tokens(PROVIDER, url, signer=lambda: KEY, key_of=_key_of, clock=clock, ids=Counted(), token_seconds=token_seconds)
    gate = Gate(tokens, transfers, flows, clock)
    tracing = telemetry.Tracing("test", 0.0)
    store, marks = store or MemoryStore(), Marks(transfers, flows)
    journal = Journal(store, clock)
    ledger = Ledger(store, journal.decide, clock, Counted(), marks.reached, flows.cut)
    app = web.Application()
    logs: Logs | None = None
    metering: Metering | None = None
    if metered:
        logs = Logs(root.with_name(f"{root.name}.logs"))
        sources = {kind: logs.indexing(each) for kind, each in sources.items()}
        lives = Lives(root.with_name(f"{root.name}.live"), {"http-stream": streams}, flows.cut, **(live or {}))
        accounts = Accounts(store, journal.decide, identity, clock, front or url, _note_signer, **promised)
        receipts = Receipts(store, journal.decide, identity, clock, Counted(), accounts, flows, facts, live=lives.log_of)
        journal.listen(receipts.committed, Kind.TRANSFER, Metered)
        journal.listen(lives.committed)
        metering = Metering(accounts, receipts, url, lives)
        if await store.agreement("urn:agreement") is None:
            await store.commit(Changes(saves=(agreed(), process("STARTED"))))
    options: dict[str, Any] = {"stall_seconds": stall_seconds, "bulk_threads": bulk_threads, "logs": logs, "metering": metering}
    signing = Signing(url, lambda: key_of(PROVIDER), identity.keys, clock)
    DataApi(gate, flows, tokens, identity, sources, tracing, Meters(ledger), signing=signing, **options).add_to(app)
    try:
        async with serving(app, tls, at):
            known = (root, clock, tokens, transfers, flows, gate, peer, sources, url, covered, identity, FakeIdentity(CONSUMER))
            yield Rig(*known, store, ledger, marks, metering, logs)
    finally:
        if metering is not None and logs is not None:
            await metering.receipts.close()
            await metering.accounts.close()
            await logs.close()
            if metering.lives is not None:
                await metering.lives.close()
        await ledger.close()
        await peer.close()
        tracing.close()


def agreed(**changed: Any) -> Agreement:
    """The agreement that the transfer is under."""
    parties = {"peer": CONSUMER, "provider": PROVIDER, "consumer": CONSUMER, "dataset": "urn:dataset"}
    made = Agreement(
        "urn:agreement", "urn:negotiation", **parties, document=POLICY, digest=b"\1" * 32, final=True, created=1000.0, version=1
    )
    return replace(made, **changed)


def _note_signer(origin: str) -> notes.Signer:
    key = key_of(PROVIDER)
    return notes.Signer(notes.VerifierKey(origin, key.key.public), lambda message: crypto_sign(message, key.secret)[:64])


def _key_of(kid: str) -> bytes:
    if kid != KEY.kid:
        raise Unauthenticated("not a key of ours")
    return KEY.key.public


def pull(out: Path, **changed: Any) -> Pull:
    """An order to fetch the dataset into `out`."""
    return replace(Pull("urn:pull", PROVIDER, "urn:dataset", str(out), "download", transfer=TRANSFER), **changed)


class Watcher:
    """Keeps what a download reports."""

    def __init__(self) -> None:
        self.reports: list[Pull] = []
        self.edrs: list[Edr] = []
        self.on_report: Callable[[Pull], None] | None = None

    async def progress(self, pull: Pull) -> None:
        self.reports.append(pull)
        if self.on_report is not None:
            self.on_report(pull)

    async def renewed(self, edr: Edr) -> None:
        self.edrs.append(edr)

    @property
    def calls(self) -> dict[str, Any]:
        return {"progress": self.progress, "renewed": self.renewed}


class CuttingProxy:
    """TCP between client and server that breaks a connection after so many bytes from the server; `cuts` holds one limit for
    each connection to come, after the last one nothing is cut. `heads` holds the head of each first request, and `before_cut`
    is awaited before a connection breaks."""

    def __init__(self, port: int, cuts: list[int], before_cut: Callable[[], Awaitable[object]] | None = None) -> None:
        self._port, self._cuts, self._before_cut = port, cuts, before_cut
        self.connections = 0
        self.heads: list[bytes] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[Any]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            limit = self._cuts.pop(0) if self._cuts else None
            self.connections += 1
            try:
                await self._carry(reader, writer, limit)
            except asyncio.CancelledError:
                return
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def upward() -> None:
            head = True
            while data := await reader.read(65536):
                if head:
                    self.heads.append(data)
                head = False
                up_writer.write(data)
                await up_writer.drain()

        sending = asyncio.create_task(upward())
        try:
            while (limit is None or limit > 0) and (data := await up_reader.read(65536)):
                data = data if limit is None else data[:limit]
                limit = None if limit is None else limit - len(data)
                writer.write(data)
                await writer.drain()
            if limit == 0 and self._before_cut is not None:
                await self._before_cut()
        except ConnectionError:
            return
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            up_writer.close()


@lru_cache(maxsize=8)  # drawing megabytes takes a tenth of a second, and a test compares with them again and again
def some_bytes(count: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere and are the same each time."""
    return random.Random(seed).randbytes(count)
