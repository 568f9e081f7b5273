"""A provider that signs what it serves, on a real listener, and tells any lie that a test wants; and a consumer with a store."""

import asyncio
import hashlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import trustme
from aiohttp import web

from connector.adapters.egress import guard
from connector.adapters.file_sink import FileSinks
from connector.adapters.memory import MemoryStore
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams.mover import SpliceMover
from connector.control.journal import Journal
from connector.dataplane import ranges
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.intake.account import Means
from connector.intake.download import Downloads, Metering
from connector.merkle import checkpoints, notes
from connector.merkle.tiles import read_path, write_tile
from connector.merkle.tree import Frontier, leaf_hash
from connector.metering.chain import Outcome, acked, answer, judge
from connector.metering.content import Header, Layout, digest_of, write_etag
from connector.metering.credit import finite
from connector.metering.objects import Ack, ContentLog, Manifest, Receipt, digest, kept
from connector.metering.ranges import union, without
from connector.ports.sinks import Sinks
from connector.records import Agreement, Changes, Edr, Pull
from connector.records.metering import Metered
from connector.signatures import jws
from connector.values import replace
from tests.dataplane.rig import CONSUMER, PROVIDER, TRANSFER, Counted, FakeIdentity, ShiftedClock, Watcher, key_of, serving

CHUNK = 64 * 1024
AGREEMENT = "urn:uuid:agreement"
DOCUMENT = {"@type": "Agreement", "@id": AGREEMENT, "target": "urn:dataset"}
PEER_PID = "urn:uuid:provider-pid"
PIECE_BYTES = 32 * 1024
Lie = Callable[["SignedProvider", web.Request], web.Response | None]


@lru_cache(maxsize=8)
def told_of(content: bytes) -> tuple[bytes, tuple[bytes, ...], tuple[int, ...]]:
    """Its SHA-256, and the hash and the number of lines of each leaf: many tests serve the same, and serve it many times."""
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    return hashlib.sha256(content).digest(), tuple(map(leaf_hash, chunks)), tuple(chunk.count(b"\n") for chunk in chunks)


@dataclass
class SignedProvider:
    """Serves `content`. `receipts` are those that it has accepted; `asked` counts requests by the last part of their path.

    Of its lies: `corrupt` are leaves whose bytes are wrong so many times; `cuts` break the data's connections after so many bytes, one
    each; `lies` answer a route in its place, by the first part below the transfer ("" are the data).
    """

    content: bytes
    required: bool = False
    window_bytes: int = 4 * CHUNK
    credit_windows: int = 4
    lost_bytes: int = 0  # of the credit, by transfers before
    media_type: str = "application/octet-stream"
    stated: bool = True
    pid: str = TRANSFER
    manifest_changes: dict[str, Any] = field(default_factory=dict)
    corrupt: dict[int, int] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    lies: dict[str, Lie] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    sent_bytes: int = 0
    url: str = ""
    barrier: asyncio.Barrier | asyncio.Event | None = None  # before a byte of an answer
    clock: ShiftedClock = field(default_factory=ShiftedClock)

    def __post_init__(self) -> None:
        unit = "line" if self.media_type == "application/x-ndjson" else "none"
        self.layout = Layout(len(self.content), CHUNK)
        self.header = Header(CHUNK, len(self.content), self.media_type, unit, b"s" * 32)
        self.digest, leaves, lines = told_of(self.content)
        self.nodes: dict[tuple[int, int], bytes] = {}
        hashes = [self.header.hash, *leaves]
        self.nodes |= {(0, n): each for n, each in enumerate(hashes)}
        self.root = Frontier().extend(hashes, lambda level, index, node: self.nodes.__setitem__((level, index), node)).root
        self.lines = [0, *lines]
        self.etag = write_etag(self.root, CHUNK)
        self.news = asyncio.Event()
        self.out: set[int] = set()

    def begin(self) -> None:
        """Sign the manifest, once the address is known."""
        now = int(self.clock.now())
        self.manifest = Manifest(
            **{
                "issuer": PROVIDER,
                "audience": CONSUMER,
                "issued": now,
                "expires": now + 3600,
                "agreement": AGREEMENT,
                "policy": digest_of(DOCUMENT),
                "consumer_pid": self.pid,
                "provider_pid": PEER_PID,
                "dataset": "urn:dataset",
                "snapshot": "s1",
                "log": ContentLog("hospital.example/ds/s1", CHUNK, self.root, len(self.content)),
                "unit": self.header.record_unit,
                "receipts": f"{self.url}/data/{self.pid}/receipts",
                "window_bytes": self.window_bytes,
                "credit_windows": self.credit_windows,
                "required": self.required,
                **self.manifest_changes,
            }
        )
        self.token = jws.sign(self.manifest.claims(), key_of(PROVIDER), Manifest.TYP)
        self.log = finite(
            self.manifest,
            records=(lambda first, last: sum(self.lines[first:last])) if self.header.record_unit == "line" else None,
            leaf=lambda leaf: self.nodes[0, leaf],
        )
        self.account = Metered(self.pid, Role.PROVIDER, AGREEMENT, CONSUMER, self.token, self.manifest.log.origin, CHUNK)
        self.out.clear()  # what other transfers have brought is no credit of this one

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        what = path.split("/")[0]
        if (cookie := request.headers.get("Authorization")) != "Bearer token":
            return web.Response(status=401, text=str(cookie))
        self.asked[f"{request.method} {what}"] += 1
        if (lie := self.lies.get(what)) is not None and (told := lie(self, request)) is not None:
            return told
        match what:
            case "":
                return await self._data(request)
            case "manifest":
                return web.Response(text=self.token, content_type="application/jwt")
            case "header":
                return web.Response(body=self.header.entry)
            case "checkpoint":
                return web.Response(body=self.checkpoint())
            case "tile":
                return web.Response(body=write_tile(read_path(path), lambda *node: self.nodes[node]))
            case "receipts" if request.method == "GET":
                return web.json_response({"receipt": self.account.receipt or None, "ack": self.account.ack or None})
            case "receipts":
                return await self._take(request)
        return web.Response(status=404)

    def checkpoint(self, **changed: Any) -> bytes:
        """The signed checkpoint of the content log."""
        origin = self.manifest.log.origin
        said = {"origin": origin, "size": self.layout.leaves, "root": self.root} | changed
        key = key_of(PROVIDER)
        signer = notes.Signer(notes.VerifierKey(said["origin"], key.key.public), lambda text: jws.crypto_sign(text, key.secret)[:64])
        return checkpoints.sign(checkpoints.Checkpoint(**said), [signer])

    async def _data(self, request: web.Request) -> web.StreamResponse:
        if self.required and not self.account.sequence:
            body = orjson.dumps({"type": "urn:qiao:problem:receipt-required"})
            return web.Response(status=403, body=body, content_type="application/problem+json")
        asked = request.headers.get("Range")
        self.ranges.append(asked or "")
        plan = ranges.plan(len(self.content), self.etag, range_=asked, if_range=request.headers.get("If-Range"))
        headers = {"ETag": self.etag, "Link": f'</data/{self.pid}/manifest>; rel="describedby"; type="application/jwt"'}
        if self.stated:
            headers["Repr-Digest"] = ranges.write_repr_digest(self.digest)
        if plan.status == 206:
            headers["Content-Range"] = plan.span.content_range
        response = web.StreamResponse(status=plan.status, headers=headers)
        response.content_length = plan.span.length
        await response.prepare(request)
        left = self.cuts.pop(0) if self.cuts else None
        at, end = plan.span.first, plan.span.first + plan.span.length
        if (barrier := self.barrier) is not None:
            await barrier.wait()
            self.barrier = None
        while at < end:
            leaf = 1 + at // CHUNK
            await self._allow(leaf)
            piece = bytearray(self.content[at : min(at + PIECE_BYTES, end, leaf * CHUNK)])
            if self.corrupt.get(leaf, 0) and at % CHUNK == 0:
                self.corrupt[leaf] -= 1
                piece[0] ^= 1
            if left is not None and (left := left - len(piece)) < 0:
                assert request.transport is not None
                await response.write(bytes(piece[:left]))
                request.transport.close()
                return response
            await response.write(bytes(piece))
            self.sent_bytes += len(piece)
            at += len(piece)
        await response.write_eof()
        return response

    async def _allow(self, leaf: int) -> None:
        """Never more than the credit beyond what was acknowledged."""
        while self.account.sequence or self.required:
            self.out.add(leaf)
            new = without(union((each, each + 1) for each in self.out), self.account.ranges)
            if self.layout.measure(new).bytes <= self.manifest.credit_bytes - self.lost_bytes:
                return
            self.out.discard(leaf)
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/jwt"
        verdict = judge(self.account, await request.text(), proven=self.reads(CONSUMER), log=self.log, now=self.clock.now())
        if verdict.outcome is Outcome.ACCEPTED:
            self.account = verdict.account
            signed = answer(self.account, now=self.clock.now(), index=len(self.receipts))
            self.account = acked(self.account, jws.sign(signed.claims(), key_of(PROVIDER), Ack.TYP))
            assert verdict.receipt is not None
            self.receipts.append(verdict.receipt)
            self.news.set()
        elif verdict.outcome is not Outcome.DUPLICATE:
            document = {"code": verdict.code, "ack": verdict.ack}
            return web.Response(status=409, body=orjson.dumps(document), content_type="application/problem+json")
        lost = self.lies.get("ack")
        return (lost(self, request) if lost is not None else None) or web.Response(text=self.account.ack, content_type="application/jwt")

    @staticmethod
    def reads(issuer: str) -> Callable[[str, str], Mapping[str, Any]]:
        return lambda token, typ: jws.read(token, typ, issuer, [key_of(issuer).key], ShiftedClock().now())


@dataclass
class Consumer:
    """What fetches, and what it remembers."""

    provider: SignedProvider
    directory: Path
    sinks: Sinks
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    identity: FakeIdentity = field(default_factory=lambda: FakeIdentity(CONSUMER))
    ids: Counted = field(default_factory=Counted)
    watcher: Watcher = field(default_factory=Watcher)
    after: str = "fsync"
    peer: HttpPeer = field(default_factory=lambda: HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[])))

    @property
    def out(self) -> Path:
        return self.directory / "file"

    @property
    def part(self) -> Path:
        return self.directory / "file.urn-pull.part"

    def order(self, **changed: Any) -> Pull:
        said = Pull("urn:pull", PROVIDER, "urn:dataset", str(self.out), "download", agreement=AGREEMENT, transfer=self.provider.pid)
        return replace(said, **changed)

    def downloads(self, **options: Any) -> Downloads:
        means = Means(self.store, Journal(self.store, self.clock).decide, self.identity, self.clock, self.ids)
        return Downloads(self.peer, self.identity, self.sinks, self.clock, metering=Metering(means, SpliceMover, self.after), **options)

    async def know(self, pid: str = TRANSFER, peer_pid: str = PEER_PID) -> None:
        """Have the transfer and its agreement stored, as control does."""
        process = Process(Kind.TRANSFER, pid, Role.CONSUMER, PROVIDER, "http://p", "STARTED", peer_pid, agreement=AGREEMENT, version=1)
        agreement = Agreement(AGREEMENT, "urn:n", PROVIDER, PROVIDER, CONSUMER, "urn:dataset", DOCUMENT, bytes(32), True, version=1)
        await self.store.commit(Changes((), (process, agreement)))

    def edr(self, over: str | None = None) -> Edr:
        """Where the data are, and the token for them; `over` is another address for the same provider."""
        address = {
            "@type": "DataAddress",
            "endpointType": "HttpData",
            "endpoint": f"{over or self.provider.url}/data/{self.provider.pid}",
            "endpointProperties": [],
        }
        return Edr(self.provider.pid, address, "token", None, None, None)

    async def fetch(self, order: Pull | None = None, *, over: str | None = None, **options: Any) -> Pull:
        return await self.downloads(**options).fetch(order or self.order(), self.edr(over), **self.watcher.calls)

    async def account(self) -> Metered:
        found = await self.store.metered(self.provider.pid)
        assert found is not None
        return found

    async def signed(self) -> list[Receipt]:
        """The receipts that this side has stored."""
        return [kept(Receipt, each.receipt) for each in await self.store.receipts(self.provider.pid)]


@asynccontextmanager
async def listening(provider: SignedProvider, tls: ssl.SSLContext | None = None) -> AsyncIterator[SignedProvider]:
    app = web.Application()
    app.router.add_route("*", "/data/{pid}{slash:/?}{path:.*}", provider.serve)
    async with serving(app, tls) as port:
        provider.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        provider.begin()
        yield provider


@asynccontextmanager
async def both(
    root: Path, content: bytes, *, sinks: Sinks | None = None, after: str = "fsync", authority: trustme.CA | None = None, **options: Any
) -> AsyncIterator[tuple[SignedProvider, Consumer]]:
    """Both sides, with a directory for the file; with an `authority` over TLS."""
    directory = root / "out"
    directory.mkdir(exist_ok=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if authority is not None else None
    if authority is not None and tls is not None:
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        authority.cert_pem.write_to_path(str(root / "ca.pem"))
    async with listening(SignedProvider(content, **options), tls) as provider:
        peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]), ca_file=root / "ca.pem" if tls else None)
        consumer = Consumer(provider, directory, sinks or FileSinks([directory]), after=after, peer=peer)
        await consumer.know()
        try:
            yield provider, consumer
        finally:
            await consumer.peer.close()


def of_both(provider: SignedProvider, mine: Metered) -> None:
    """Assert that both sides have the same account."""
    theirs = provider.account
    same = ("sequence", "receipt", "ack", "ranges", "counts", "credit_bytes", "status", "attested")
    assert {name: getattr(mine, name) for name in same} == {name: getattr(theirs, name) for name in same}
    assert digest(mine.receipt) == digest(theirs.receipt)
