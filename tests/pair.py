"""Connectors in this process with real listeners on loopback, and a peer that a test scripts, with keys of its own."""

import asyncio
import hashlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from connector import app
from connector.adapters import keys
from connector.adapters.clock import SystemClock
from connector.adapters.registry import Registry, own_description, participant
from connector.adapters.tokens import RegistryIdentity
from connector.api.dsp_api import PATH
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.dsp.schemas import Schemas
from connector.ports import Act
from connector.records import Agreement, Changes, Dataset, Evidence, Offer
from connector.settings import ListenerSettings, ManagementSettings, Settings
from connector.settings.fields import (
    DeliverySettings,
    EgressSettings,
    KeysSettings,
    ParticipantSettings,
    PullsSettings,
    RegistrySettings,
    SourcesSettings,
    StoreSettings,
    TelemetrySettings,
)
from connector.values import replace
from connector.vocabulary import read_vocabulary
from tests.free_ports import free_ports

Seen = TypeVar("Seen")
TOKEN = "the-admin-token-of-the-test"
SCHEMAS = Schemas(read_vocabulary().schemas)
OPEN: dict[str, Any] = {"@type": "Offer", "permission": [{"action": "use"}]}
WAIT_SECONDS = 30.0  # for an event that comes at once unless something is broken
_numbers = itertools.count(1)


def fresh(what: str = "pid") -> str:
    """An identifier that no other test has."""
    return f"urn:test:{what}:{next(_numbers)}"


def purpose_policy(*purposes: str) -> dict[str, Any]:
    """An offer for these purposes only."""
    constraint = {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": list(purposes)}
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [constraint]}]}


def only_for(*participants: str) -> dict[str, Any]:
    """An offer for these participants only."""
    constraint = {"leftOperand": "urn:qiao:participant", "operator": "isAnyOf", "rightOperand": list(participants)}
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [constraint]}]}


def until_policy(instant: str) -> dict[str, Any]:
    """An offer that ends at that instant (XSD dateTime)."""
    right = {"@value": instant, "@type": "xsd:dateTime"}
    return {
        "@type": "Offer",
        "permission": [{"action": "use", "constraint": [{"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": right}]}],
    }


class Never:
    """The approver of tests that want no move of the connector's own."""

    def next_act(self, _process: Process, _proposed: Act | None) -> Act | None:
        return None


@dataclass
class Site:
    """The files and the settings of one participant."""

    root: Path
    settings: Settings

    @property
    def id(self) -> str:
        return self.settings.participant.id

    @property
    def name(self) -> str:
        return self.settings.participant.name

    @property
    def base(self) -> str:
        return self.settings.protocol.url + PATH

    def description(self) -> bytes:
        """The self-description that others get."""
        own = participant(self.id, self.name, self.settings.participant.role, self.base)
        public = keys.Keys(self.settings.keys.directory, self.id).public()
        return orjson.dumps(own_description(own, self.settings.data.url, public))

    def meet(self, *others: "Site") -> None:
        """Learn the self-descriptions of others, and give them ours."""
        for other in others:
            (self.settings.registry.directory / f"{other.name}.jsonld").write_bytes(other.description())
            (other.settings.registry.directory / f"{self.name}.jsonld").write_bytes(self.description())

    def changed(self, **sections: Any) -> "Site":
        """The same with other settings."""
        return Site(self.root, replace(self.settings, **sections))


def site(root: Path, name: str, *, store: str = "memory", scheme: str = "http", **sections: Any) -> Site:
    """Make the directory of a participant: keys, a registry that knows only itself, the hash of the admin token."""
    root.mkdir(parents=True)
    for each in ("registry", "data", "out"):
        (root / each).mkdir()
    keys.generate(root / "keys", time.time())
    (root / "token.sha256").write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    protocol, data, management, ops = free_ports(4)
    host = "127.0.0.1" if scheme == "http" else "localhost"
    values: dict[str, Any] = {
        "participant": ParticipantSettings(id=f"did:web:{name}.example", name=name, role=name),
        "keys": KeysSettings(directory=root / "keys"),
        "registry": RegistrySettings(directory=root / "registry"),
        "protocol": ListenerSettings(host=host, port=protocol, url=f"{scheme}://{host}:{protocol}"),
        "data": ListenerSettings(host=host, port=data, url=f"{scheme}://{host}:{data}"),
        "management": ManagementSettings(port=management, url=f"http://127.0.0.1:{management}", token_hash_file=root / "token.sha256"),
        "ops": ListenerSettings(port=ops, url=f"http://127.0.0.1:{ops}"),
        "store": StoreSettings(kind=store, path=root / "connector.db"),
        "egress": EgressSettings(allow=("127.0.0.0/8", "::1/128"), http=True, ports=()),
        "sources": SourcesSettings(roots=(root / "data",)),
        "pulls": PullsSettings(roots=(root / "out",)),
        "delivery": DeliverySettings(first_retry_seconds=0.02, retry_seconds_max=0.1, doubt_seconds=0.3),
        "telemetry": TelemetrySettings(sample_ratio=0.0),
    }
    made = Site(root, Settings(**(values | sections)))
    (root / "registry" / f"{name}.jsonld").write_bytes(made.description())
    return made


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Running:
    """A connector that runs, with ways to speak to its doors as an operator."""

    site: Site
    connector: app.Connector
    http: aiohttp.ClientSession

    async def manage(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A call of the management API with the admin token."""
        url = f"{self.site.settings.management.url}/v1{path}"
        return await call(self.http, method, url, body, {"Authorization": f"Bearer {TOKEN}"} | headers)

    async def asked(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """The JSON of a management call that has to answer with `status`."""
        answer = await self.manage(method, path, body, **headers)
        assert answer.status == status, (answer.status, answer.body)
        return answer.json if answer.body else None

    async def publish(self, dataset: str, *policies: Mapping[str, Any], content: bytes = b"data\n", **members: Any) -> dict[str, Any]:
        """Publish a file as `dataset`; returns the dataset's view."""
        name = f"{hashlib.sha256(dataset.encode()).hexdigest()[:16]}.bin"
        (self.site.root / "data" / name).write_bytes(content)
        body = {"title": dataset, "source": {"type": "file", "path": name}, "policies": list(policies) or [OPEN]} | members
        answer = await self.manage("PUT", f"/datasets/{quoted(dataset)}", body)
        assert answer.status in (200, 201), answer.body
        return dict(answer.json)

    async def until(self, kind: Kind, pid: str, holds: Callable[[Process], bool]) -> Process:
        """Wait for a commit after which `holds`; fails with the state of the process after WAIT_SECONDS."""
        found = await self._committed(lambda: self.connector.store.process(kind, pid), lambda seen: seen is not None and holds(seen))
        assert found is not None
        return found

    async def delivered(self) -> None:
        """Wait until everything that was to be said has been said, and that it arrived is on record."""
        await self._committed(self.connector.store.open_outbox, lambda rows: not rows)

    async def _committed(self, look: Callable[[], Awaitable[Seen]], holds: Callable[[Seen], bool]) -> Seen:
        """What `look` finds after the first commit with which it `holds`."""
        changed = asyncio.Event()
        seen: Seen | None = None

        def listener(_changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
            changed.set()

        self.connector.journal.listen(listener)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not holds(seen := await look()):
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise AssertionError(f"it did not come to that: {seen}") from None
        return seen

    async def state(self, kind: Kind, pid: str, state: str) -> Process:
        """Wait until the process is in `state` with nothing in flight."""
        return await self.until(kind, pid, lambda p: p.state == state and p.in_flight is None)

    async def put(self, process: Process, *agreements: Agreement) -> Process:
        """Make a process stand as if it had come so far."""
        stored = replace(process, version=process.version + 1)
        assert isinstance(await self.connector.journal.commit(Changes(saves=(stored, *agreements))), tuple)
        return stored

    async def evidence(self, pid: str) -> list[Evidence]:
        return list(await self.connector.store.evidence_of(pid))

    @contextmanager
    def commits(self, instead: Callable[[Changes], Awaitable[Any]]) -> Iterator[None]:
        """Let `instead` stand for the store's commit, for faults that no file system can be made to have at will. The real
        one is `type(store).commit`."""
        store: Any = self.connector.store
        store.commit = instead
        try:
            yield
        finally:
            del store.commit


async def call(http: aiohttp.ClientSession, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One HTTP request. `body` is bytes as they are, or something that becomes JSON."""
    data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    typed = {"Content-Type": "application/json"} if data is not None else {}
    async with http.request(
        method, URL(url, encoded=True), data=data, headers=typed | dict(headers or {}), allow_redirects=False
    ) as response:
        return Answer(response.status, response.headers, await response.read())


def quoted(text: str) -> str:
    """An id as one segment of a path."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-._~" else "".join(f"%{b:02X}" for b in c.encode()) for c in text)


Reply = tuple[int, dict[str, Any] | None] | tuple[int, dict[str, Any] | None, dict[str, str]]  # status, document, headers
Script = Callable[[str, str, dict[str, Any]], "Reply | Awaitable[Reply | None] | None"]


@dataclass
class Scripted:
    """A participant whose every word is a test's. Messages to it are kept in `calls` and answered as the standard asks,
    unless `script(method, path, document)` says otherwise, at once or when it is awaited: (status, document), or None for the
    usual answer."""

    site: Site
    http: aiohttp.ClientSession
    identity: RegistryIdentity
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    script: Script = lambda _method, _path, _document: None
    states: dict[str, str] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.site.id

    async def send(self, to: Running, method: str, path: str, body: Any = None, *, anonymous: bool = False, **headers: str) -> Answer:
        """A request of this participant to the protocol listener of `to`; `path` lies below its base."""
        said = {} if anonymous else {"Authorization": await self.identity.mint(to.site.id)}
        url = path if path.startswith("http") else f"{to.site.base}{path}"
        return await call(self.http, method, url, body, said | headers)

    async def heard(self, ending: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th message whose path ends so; returns its document."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while len(found := [document for _, path, document in self.calls if path.endswith(ending)]) < count:
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError:
            raise AssertionError(f"`{ending}` was not heard {count} times: {[(m, p) for m, p, _ in self.calls]}") from None
        return found[count - 1]

    async def handle(self, request: web.Request) -> web.Response:
        if request.path.startswith("/ledger/"):
            return web.Response(status=404)  # a peer that keeps no ledger: many do not
        body = await request.read()
        document = orjson.loads(body) if body else {}
        path = request.path.removeprefix(PATH)
        self.calls.append((request.method, path, document))
        self.headers.append(request.headers)
        self._news.set()
        said = self.script(request.method, path, document)
        status, answer, *more = (await said if isinstance(said, Awaitable) else said) or self._usual(request.method, path, document)
        body = answer if isinstance(answer, bytes) else orjson.dumps(answer) if answer is not None else b""
        return web.Response(status=status, body=body, content_type="application/json", headers=more[0] if more else None)

    def _usual(self, method: str, path: str, document: dict[str, Any]) -> Reply:
        kind = Kind.TRANSFER if path.startswith("/transfers") else Kind.NEGOTIATION
        first = path.endswith(("/negotiations/request", "/negotiations/offers", "/transfers/request"))
        if method == "GET":
            pid = path.rpartition("/")[2]
            return (200, wire.process_document(kind, pid, pid, self.states[pid])) if pid in self.states else (404, None)
        if not first:
            return 200, None
        state = "OFFERED" if path.endswith("/offers") else "REQUESTED"
        consumer, provider = document.get("consumerPid") or fresh(), document.get("providerPid") or fresh()
        return 201, wire.process_document(kind, consumer, provider, state)


@asynccontextmanager
async def running(
    at: Site, *, approver: Any = None, path: Path | None = None, trust: ssl.SSLContext | bool = True
) -> AsyncIterator[Running]:
    """Run the connector of a site. `trust` is whom the operator's own calls trust."""
    connector = await app.start(at.settings, path=path, replaced=app.Replaced(approver=approver))
    try:
        # A connection that was idle for ten seconds the connector may end as the next POST is on its way, which nobody repeats.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, keepalive_timeout=5.0)) as http:
            yield Running(at, connector, http)
    finally:
        await connector.close()


@asynccontextmanager
async def scripted(at: Site) -> AsyncIterator[Scripted]:
    """Let a site be a scripted peer instead of a connector. Others have to have met it before."""
    own = participant(at.id, at.name, at.settings.participant.role, at.base)
    identity = RegistryIdentity(own, Registry(at.settings.registry.directory), keys.Keys(at.settings.keys.directory, at.id), SystemClock())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=5.0)) as http:
        peer = Scripted(at, http, identity)
        server = web.Application()
        server.router.add_route("*", "/{path:.*}", peer.handle)
        runner = web.AppRunner(server, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, at.settings.protocol.host, at.settings.protocol.port).start()
            yield peer
        finally:
            await runner.cleanup()


@dataclass
class Desk:
    """One connector that never acts by itself, its scripted counterparty, and a third participant."""

    us: Running
    peer: Scripted
    stranger: Scripted


@asynccontextmanager
async def desk(root: Path, *, approver: Any = None, store: str = "memory", **sections: Any) -> AsyncIterator[Desk]:
    """`approver` None is one that never acts."""
    ours, theirs, third = (
        site(root / name, name, store=store if name == "hospital" else "memory") for name in ("hospital", "biopharma", "stranger")
    )
    ours = ours.changed(**sections)
    ours.meet(theirs, third)
    theirs.meet(third)
    async with AsyncExitStack() as stack:
        us = await stack.enter_async_context(running(ours, approver=approver or Never()))
        peers = [await stack.enter_async_context(scripted(each)) for each in (theirs, third)]
        yield Desk(us, *peers)


@dataclass
class Pair:
    """Two connectors."""

    provider: Running
    consumer: Running


@asynccontextmanager
async def pair(
    root: Path, *, store: str = "memory", provider: Mapping[str, Any] | None = None, consumer: Mapping[str, Any] | None = None
) -> AsyncIterator[Pair]:
    """`provider` and `consumer` are sections of settings that differ."""
    one = site(root / "hospital", "hospital", store=store, **(provider or {}))
    other = site(root / "biopharma", "biopharma", store=store, **(consumer or {}))
    one.meet(other)
    async with running(one) as first, running(other) as second:
        yield Pair(first, second)


def negotiation(us: Running, peer: Scripted, state: str, role: Role, **changed: Any) -> Process:
    """A negotiation with the scripted peer in `state`, with everything that the state implies."""
    dataset = changed.pop("dataset", "urn:test:dataset")
    terms = changed.pop("terms", OPEN | {"@id": "urn:test:offer", "target": dataset})
    now = time.time()
    detail = {"terms": terms, "asked": terms, "accept": "operator", "purposes": [], "offer": terms["@id"]}
    process = Process(
        Kind.NEGOTIATION,
        fresh("ours"),
        role,
        peer.id,
        peer.site.base,
        state,
        fresh("theirs"),
        dataset=dataset,
        detail=detail,
        created=now,
        updated=now,
    )
    return replace(process, **changed)


def agreement(
    us: Running, peer: Scripted, role: Role, *, final: bool = True, policy: Mapping[str, Any] = OPEN, **changed: Any
) -> Agreement:
    """An agreement with the scripted peer; `role` is ours."""
    provider, consumer = (us.site.id, peer.id) if role is Role.PROVIDER else (peer.id, us.site.id)
    id = changed.pop("id", None) or fresh("agreement")
    dataset = changed.pop("dataset", "urn:test:dataset")
    document = {
        "@id": id,
        "@type": "Agreement",
        "target": dataset,
        "assigner": provider,
        "assignee": consumer,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "permission": policy["permission"],
    }
    made = Agreement(
        id, changed.pop("negotiation", fresh("negotiation")), peer.id, provider, consumer, dataset, document, wire.digest(document), final
    )
    return replace(made, **changed)


def transfer(us: Running, peer: Scripted, state: str, role: Role, agreed: Agreement, **changed: Any) -> Process:
    """A transfer with the scripted peer in `state`."""
    now = time.time()
    detail = {"format": "HttpData-PULL", "generation": 1}
    process = Process(
        Kind.TRANSFER, fresh("ours"), role, peer.id, peer.site.base, state, fresh("theirs"),
        dataset=agreed.dataset, agreement=agreed.id, detail=detail, created=now, updated=now,
    )  # fmt: skip
    return replace(process, **changed)


def dataset_record(id: str, *policies: Mapping[str, Any], source: Mapping[str, Any] | None = None) -> Dataset:
    """A dataset as the store has it, for tests that do not publish."""
    from connector.dsp import dcat

    offers = tuple(Offer(dcat.offer_id(id, policy), id, policy) for policy in policies or (OPEN,))
    document = dcat.dataset_document(id, id, [(o.id, o.policy) for o in offers], "urn:service", media_type="text/plain", size_bytes=5)
    return Dataset(id, orjson.dumps(document), source or {"type": "file", "path": "none"}, offers, 5, bytes(32), 1, 1.0)


ADDRESS = {
    "@type": "DataAddress",
    "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
    "endpoint": "http://127.0.0.1:9/data/x",
    "endpointProperties": [
        {"@type": "EndpointProperty", "name": "authorization", "value": "secret-token"},
        {"@type": "EndpointProperty", "name": "authType", "value": "bearer"},
    ],
}


def document_of(move: Move, process: Process, agreed: Agreement | None = None) -> dict[str, Any]:
    """A message that says `move` in this process, with a content that could be accepted."""
    first = {"callbackAddress": process.callback}
    members: dict[str, Any] = {
        Move.CONTRACT_REQUEST: {"offer": process.detail.get("terms")},
        Move.CONTRACT_OFFER: {"offer": process.detail.get("terms")},
        Move.CONTRACT_AGREEMENT: {"agreement": agreed.document if agreed else None},
        Move.START: {"dataAddress": ADDRESS} if process.role is Role.CONSUMER else {},
        Move.TRANSFER_REQUEST: {"agreementId": process.agreement, "format": "HttpData-PULL"} | first,
        Move.CONTRACT_TERMINATION: {"code": "X", "reason": ["because"]},
        Move.TRANSFER_TERMINATION: {"code": "X", "reason": ["because"]},
        Move.SUSPENSION: {"code": "X", "reason": ["because"]},
    }.get(move, {})
    return wire.message(move, consumer_pid=process.consumer_pid, provider_pid=process.provider_pid, **members)
