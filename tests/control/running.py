"""Transfers that run at a real data listener, and everything that they run by, for a test to change under them."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from connector.adapters.clock import TimeOrderedIds
from connector.control.compose import Sender, Times
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.operate import Operations
from connector.control.policies import Policies
from connector.control.rights import Rights
from connector.control.steps import Steps
from connector.control.transfers import Transfers, Views
from connector.control.watch import Watch
from connector.dataplane.edr import grant_for
from connector.dsp import exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.ports import Store, TransferView
from connector.records import Agreement, Changes, Dataset, Evidence, Offer, Outbound
from connector.values import replace
from tests.control.stand import Standing
from tests.dataplane.reader import Reader, a_wire, reading
from tests.dataplane.rig import CONSUMER, PROVIDER, some_bytes
from tests.pair import OPEN, WAIT_SECONDS, Never, fresh

T = Kind.TRANSFER
SIZE_BYTES = 8 * 1024 * 1024  # more than both kernels and the readers hold: a stream is in its middle
CUT_SECONDS = 1.0  # the promise
DATASET = "urn:test:running"


@dataclass
class Live:
    """A provider without its doors to peers: what it would send stands in `sent`, by transfer."""

    rig: Any
    store: Store
    identity: Standing
    journal: Journal
    steps: Steps
    rights: Rights
    watch: Watch
    views: Views
    transfers: Transfers
    operations: Operations
    elsewhere: str = "urn:test:elsewhere"  # another dataset
    tls: ssl.SSLContext | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    sent: dict[str, list[Outbound]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return self.rig.clock.now()

    async def publish(self, *policies: Mapping[str, Any], dataset: str = DATASET, binding: float | None = None) -> None:
        """Put the data on offer under other terms."""
        before = await self.store.dataset(dataset)
        offers = tuple(Offer(f"{dataset}:offer:{number}", dataset, policy) for number, policy in enumerate(policies or (OPEN,)))
        version = before.version + 1 if before else 1
        record = Dataset(dataset, b"{}", self.source, offers, SIZE_BYTES, None, version, self.now(), binding)
        await self.journal.commit(Changes(saves=(record,)))

    async def withdraw(self, dataset: str = DATASET) -> None:
        await self.journal.commit(Changes(deletes=((Dataset, dataset),)))

    async def agree(self, policy: Mapping[str, Any] = OPEN, *, peer: str = CONSUMER, dataset: str = DATASET, **changed: Any) -> Agreement:
        """An agreement of a peer under a policy."""
        id = fresh("agreement")
        rules = {name: rule for name, rule in policy.items() if name in ("permission", "prohibition")}
        document = {"@id": id, "@type": "Agreement", "target": dataset, "assigner": PROVIDER, "assignee": peer} | rules
        made = Agreement(id, fresh("negotiation"), peer, PROVIDER, peer, dataset, document, b"", final=True, created=self.now())
        made = replace(made, **changed)
        made = made if made.digest else replace(made, digest=wire.digest(made.document))
        await self.journal.commit(Changes(saves=(made,)))
        return made

    async def begin(self, agreement: Agreement) -> Process:
        """A transfer that has been started, by the decision of now; the peer has not answered yet."""
        now = self.now()
        asked = Process(
            T, fresh("transfer"), Role.PROVIDER, agreement.peer, "https://peer.test", "REQUESTED", fresh("theirs"),
            dataset=agreement.dataset, agreement=agreement.id, detail={"format": "HttpData-PULL"}, created=now, updated=now,
        )  # fmt: skip
        reaction = await self.transfers.start(asked, now)
        await self.journal.commit(self.steps.changes(None, reaction, now, ask=False))
        return await self.process(asked.pid)

    async def run(self, policy: Mapping[str, Any] = OPEN, **agreed: Any) -> Process:
        """A transfer that runs."""
        begun = await self.begin(await self.agree(policy, **agreed))
        return await self.answer(begun.pid)

    async def answer(self, pid: str, settle: Callable[[Process, str], Process] = exchange.answered) -> Process:
        """The peer takes what we have said last, or settles it otherwise."""

        async def step() -> Changes:
            process = await self.process(pid)
            after = settle(process, process.in_flight_id or "")
            return self.steps.changes(process, Reaction(after), self.now(), settled=(process.in_flight_id,), ask=False)

        await self.journal.decide(step, pid)
        return await self.process(pid)

    async def process(self, pid: str) -> Process:
        process = await self.store.process(T, pid)
        assert process is not None
        return process

    async def said(self, pid: str, move: Move, count: int = 1) -> dict[str, Any]:
        """Wait until we have said that about a transfer, so often; returns the message."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(rows := [row for row in self.sent.get(pid, ()) if row.move is move]) < count:
                await self.news.wait()
                self.news.clear()
        return wire.load(rows[-1].body)  # type: ignore[no-any-return]

    async def until(self, look: Callable[[], Awaitable[Process]], holds: Callable[[Process], bool]) -> Process:
        """Look after each commit until it is so."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds(found := await look()):
                await self.news.wait()
                self.news.clear()
        return found

    async def quiet(self) -> None:
        """Let the watch come to the end of what it has to do."""
        for _ in range(20):
            await asyncio.sleep(0)
            await self.watch._turn()
            if not self.watch._causes and not self.watch._suspects and not await self.store.due(self.now(), 1):
                return
        raise AssertionError("the watch comes to no end")

    async def authorization(self, process: Process) -> dict[str, str]:
        """A token as the peer has got it with the last start."""
        process = await self.process(process.pid)
        grant = grant_for(TransferView(
            process.pid, Role.PROVIDER, "STARTED", process.peer, process.detail["generation"], process.agreement or "", True, None, None,
            process.dataset or "", {},
        ))  # fmt: skip
        return {"Authorization": f"Bearer {self.rig.tokens.access(grant)[0]}"}

    @asynccontextmanager
    async def reading(self, process: Process) -> AsyncIterator[Reader]:
        async with reading(f"{self.rig.url}/data/{process.pid}", await self.authorization(process), tls=self.tls) as reader:
            yield reader

    def _heard(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        for row in changes.outbox:
            self.sent.setdefault(row.pid, []).append(row)
        self.news.set()


async def owes_nothing(_transfer: str) -> bool:
    """As of a consumer that signs nothing."""
    return False


def assembled(rig: Any, store: Store, **more: Any) -> Live:
    """Everything that decides about transfers around a data plane: `rig` has `clock`, `flows` and `tokens`."""
    identity, policies, journal, ids = Standing(PROVIDER, now=rig.clock.now), Policies(), Journal(store, rig.clock), TimeOrderedIds()
    identity.claims[CONSUMER] = {}
    steps = Steps(Never(), ids, Sender(PROVIDER, "https://own.test", Times(10, 3600, 604800)))
    rights = Rights(store, policies, identity)  # type: ignore[arg-type]
    last_access = lambda pid: seen.last_access if (seen := rig.flows.seen(pid)) else None  # noqa: E731
    watch = Watch(journal, steps, rights, last_access, 60.0, owes_nothing)
    journal.listen(rig.flows.committed)
    views = Views(store, rights, rig.tokens, rig.clock, watch.suspect)
    transfers = Transfers(store, rights, lambda _: None)
    operations = Operations(journal, steps, policies, None, identity, transfers)  # type: ignore[arg-type]
    at = Live(rig, store, identity, journal, steps, rights, watch, views, transfers, operations, **more)
    journal.listen(at._heard)

    def known_otherwise(participant: str) -> None:
        rig.flows.look_again()
        watch.reconsider(participant)

    identity.listen(known_otherwise)
    return at


@asynccontextmanager
async def live(root: Path, authority: trustme.CA, kind: str = "sendfile") -> AsyncIterator[Live]:
    """At a real listener; `kind` is how the bytes go out: see `a_wire`."""
    async with a_wire(kind, root, authority) as wire_:
        rig = wire_.rig
        at = assembled(rig, rig.store, tls=wire_.tls)

        async def lookup(pid: str) -> TransferView | None:
            found = await at.views.lookup(pid)
            return replace(found, stages=wire_.stages) if found else None

        rig.transfers.lookup = lookup  # type: ignore[method-assign]
        (root / "running.bin").write_bytes(some_bytes(SIZE_BYTES))
        at.source, _ = await rig.sources["file"].index({"type": "file", "path": "running.bin"})
        await at.publish()
        await at.publish(dataset=at.elsewhere)
        await at.watch.start()
        try:
            yield at
        finally:
            await at.watch.close()


def in_a_moment(seconds: float) -> str:
    """An instant to come (XSD dateTime)."""
    at = time.time() + seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06}Z"
