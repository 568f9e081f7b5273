"""The composition root: settings in, running connector out. The only file that knows every class."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import connector
from connector import telemetry
from connector.adapters.clock import SystemClock, TimeOrderedIds
from connector.adapters.egress import guard as egress_guard
from connector.adapters.expander import Expander
from connector.adapters.file_sink import FileSinks
from connector.adapters.file_source import FileSources
from connector.adapters.http_source import HttpSources
from connector.adapters.keys import Keys
from connector.adapters.peer_http import HttpPeer
from connector.adapters.registry import Registry, own_description, participant
from connector.adapters.sqlite import SqliteStore
from connector.adapters.tokens import RegistryIdentity
from connector.api import dsp_api, middleware
from connector.api.data_api import DataApi
from connector.api.listener import Door, listen, tls_context
from connector.api.management_api import Doors, ManagementApi, authorized
from connector.api.ops_api import OpsApi
from connector.control.catalog import Catalog, PeerCatalogs, base_of
from connector.control.compose import Sender, Times
from connector.control.feed import Feed
from connector.control.journal import Journal
from connector.control.negotiate import Negotiations
from connector.control.operate import Operations
from connector.control.outbox import Outbox
from connector.control.policies import Policies
from connector.control.publish import Publishing
from connector.control.pulls import Pulls
from connector.control.receive import Receiver
from connector.control.retention import Keep, Retention
from connector.control.steps import Steps
from connector.control.transfers import Transfers, Views
from connector.control.watch import Watch
from connector.dataplane.download import Downloads
from connector.dataplane.edr import Tokens
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate
from connector.dsp import dcat
from connector.dsp.exchange import Process
from connector.dsp.schemas import Schemas
from connector.errors import SettingsError, Unauthenticated
from connector.ports import Act, Approver, Identity, Sources, Store
from connector.settings import ListenerSettings, ManagementSettings, Settings, load
from connector.settings_fields import LimitsSettings
from connector.vocabulary import read_vocabulary

DAY, HOUR = 86_400.0, 3_600.0
RENDERS = {"ops": middleware.problem, "management": middleware.problem, "protocol": dsp_api.render}  # how each door words its errors
GC_THRESHOLD = 20_000  # allocations before a young collection: messages make few cycles


class Automatic:
    """The approver of a connector that agrees to what policy permits, after `delay_seconds`."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds

    def next_act(self, _process: Process, proposed: Act | None) -> Act | None:
        """See the port."""
        if proposed is None or self._delay_seconds == 0 or proposed.delay_seconds:
            return proposed
        return Act(proposed.move, self._delay_seconds, proposed.code, proposed.reasons)


@dataclass(slots=True)
class Replaced:
    """What a caller brings instead of what the settings say: an identity layer, an approver."""

    identity: Identity | None = None
    approver: Approver | None = None


@dataclass(slots=True)
class Connector:
    """A running connector. `ports` are the listeners' real ports by name; `close` drains and ends it."""

    settings: Settings
    store: Store
    operations: Operations
    publishing: Publishing
    journal: Journal
    ops: OpsApi
    stack: AsyncExitStack
    reload: Callable[[], Any]
    ports: dict[str, int] = field(default_factory=dict)

    async def close(self) -> None:
        """Stop listening, let requests finish, stop the workers. Whatever is open goes on at the next start."""
        self.ops.draining = True
        await self.stack.aclose()


async def start(  # noqa: PLR0915 - the wiring is one list, read from top to bottom
    settings: Settings, *, path: Path | None = None, environ: dict[str, str] | None = None, replaced: Replaced | None = None
) -> Connector:
    """Build and start a connector. `path` and `environ` are where a reload reads the settings again.

    Raises SettingsError or StoreError; then nothing listens.
    """
    instead = replaced or Replaced()
    clock, ids = SystemClock(), TimeOrderedIds()
    async with AsyncExitStack() as stack:
        vocabulary = read_vocabulary()
        schemas = Schemas(vocabulary.schemas)
        expander = Expander(vocabulary.schemas, vocabulary.contexts)
        stack.push_async_callback(expander.close)
        tracing = telemetry.Tracing(settings.participant.name, settings.telemetry.sample_ratio, _exporters(settings))
        stack.callback(tracing.close)

        keys = Keys(settings.keys.directory, settings.participant.id)
        registry = Registry(settings.registry.directory)
        own = participant(
            settings.participant.id, settings.participant.name, settings.participant.role, settings.protocol.url + dsp_api.PATH
        )
        identity = instead.identity or RegistryIdentity(own, registry, keys, clock)
        store = _store(settings, own.id)
        stack.push_async_callback(store.close)
        peer = HttpPeer(egress_guard(settings.egress.allow, settings.egress.http, settings.egress.ports), ca_file=settings.egress.ca_file)
        stack.push_async_callback(peer.close)

        journal = Journal(store, clock)
        policies = Policies()
        feed = Feed(journal)
        times = Times(
            settings.delivery.deadline_seconds, settings.delivery.step_deadline_seconds, settings.delivery.approval_deadline_seconds
        )
        steps = Steps(instead.approver or Automatic(settings.approval.delay_seconds), ids, Sender(own.id, own.protocol or "", times))
        tokens = Tokens(
            own.id,
            settings.data.url,
            signer=lambda: keys.active(clock.now()),
            key_of=lambda kid: _own_key(keys, kid, clock.now()),
            clock=clock,
            ids=ids,
            token_seconds=settings.edr.token_seconds,
        )
        views = Views(store, tokens)
        background: set[asyncio.Task[None]] = set()
        flows = Flows(clock, lambda pid: _spawn(background, watch.covered(pid)))
        watch = Watch(journal, steps, lambda pid: seen.last_access if (seen := flows.seen(pid)) else None, settings.edr.quiet_seconds)
        journal.listen(flows.committed)
        outbox = Outbox(
            journal,
            steps,
            peer,
            identity,
            tracing,
            views.address,
            first_retry_seconds=settings.delivery.first_retry_seconds,
            retry_seconds_max=settings.delivery.retry_seconds_max,
        )
        negotiations, transfers = Negotiations(store, policies, own.id), Transfers(store, policies)
        receiver = Receiver(journal, steps, negotiations, transfers)
        service = f"{own.id}#connector"
        nested = [
            dcat.nested_catalog(f"{each.id}#catalog", each.name, base_of(each), f"{each.id}#connector")
            for name in settings.catalog.nested
            if (each := identity.find(name)) is not None
        ]
        catalog = Catalog(journal, policies, own.id, f"{own.id}#catalog", dcat.service_document(service, own.protocol or ""), nested)
        catalogs = PeerCatalogs(peer, identity)
        operations = Operations(journal, steps, policies, catalogs, identity)
        sources: dict[str, Sources] = {
            "file": FileSources(settings.sources.roots),
            "http": HttpSources(peer, lambda name: _credential(settings, name)),
        }
        publishing = Publishing(journal, policies, schemas, sources, service)
        downloads = Downloads(peer, identity, FileSinks(settings.pulls.roots), clock)
        pulls = Pulls(journal, feed, operations, downloads, ids)
        retention = Retention(
            journal,
            Keep(settings.retention.inbox_days * DAY, settings.retention.processes_days * DAY, settings.retention.keys_hours * HOUR),
        )
        ops = OpsApi((("store", lambda: _store_fault(store)),))

        async def reload() -> list[str]:
            """Registry, keys, and those settings that can change while running; the others are named."""
            changed = [*registry.reload(), *keys.reload()]
            tokens.forget()
            if path is not None:
                changed += _apply(settings, load(path, environ or {}))
            if changed:
                telemetry.log.info("reloaded", changed=changed)
            return changed

        description = dsp_api.Description(
            dsp_api.version_document(service), lambda: own_description(own, settings.data.url, keys.public(clock.now()))
        )
        limits = middleware.Limits(settings.limits.message_bytes, settings.limits.body_seconds)
        protocol = dsp_api.DspApi(receiver, catalog, outbox, identity, schemas, expander, limits, settings.limits.catalog_page, description)
        doors = Doors(
            store, journal, feed, outbox, operations, catalogs, publishing, pulls, identity, reload,
            {"data": settings.data.url, "version": connector.__version__},
        )  # fmt: skip
        management = ManagementApi(doors, middleware.Limits(settings.limits.management_bytes, settings.limits.body_seconds))
        data = DataApi(Gate(tokens, views, flows, clock), flows, tokens, identity, sources, clock, tracing)

        running = Connector(settings, store, operations, publishing, journal, ops, stack, reload)
        limits_of = settings.limits
        middleware_of = {name: middleware.guard(tracing, name, render) for name, render in RENDERS.items()}
        doors_open: tuple[tuple[str, Any, Any, list[Any]], ...] = (
            ("ops", settings.ops, ops, [middleware_of["ops"]]),
            ("management", settings.management, management, [middleware_of["management"], authorized(_token_hash(settings))]),
            ("data", settings.data, data, []),
            ("protocol", settings.protocol, protocol, [middleware_of["protocol"]]),
        )
        for name, at, routes, middlewares in doors_open:
            running.ports[name] = await listen(_door(name, at, limits_of), routes.add_to, middlewares, stack)
        stack.push_async_callback(_end, background)
        stack.callback(flows.cut_everything, "shutdown")
        stack.callback(feed.close)

        await watch.start()
        stack.push_async_callback(watch.close)
        retention.start()
        stack.push_async_callback(retention.close)
        recovered = await outbox.recover()
        stack.push_async_callback(outbox.close)
        await pulls.recover()
        stack.push_async_callback(pulls.close)
        running.stack = stack.pop_all()
        telemetry.log.info("ready", participant=own.id, ports=running.ports, recovered=recovered)
        return running
    raise AssertionError("unreachable")


def check_tls(settings: Settings, name: str) -> None:
    """Load the certificate of listener `name`, as a start would. Raises SettingsError."""
    tls_context(_door(name, getattr(settings, name), settings.limits))


def _door(name: str, at: ListenerSettings | ManagementSettings, limits: LimitsSettings) -> Door:
    idle_seconds = min(limits.keepalive_seconds, limits.header_seconds)
    return Door(name, at.host, at.port, at.certificate, at.key, idle_seconds, limits.connections, limits.management_bytes)


def _store(settings: Settings, participant: str) -> Store:
    if settings.store.kind == "memory":
        from connector.adapters.memory import MemoryStore

        return MemoryStore()
    return SqliteStore(settings.store.path, participant)


def _spawn(tasks: set[asyncio.Task[None]], work: Any) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _store_fault(store: Store) -> str | None:
    try:
        await store.next_due()
    except Exception as e:
        return f"the store does not answer: {type(e).__name__}"
    return None


def _own_key(keys: Keys, kid: str, now: float) -> bytes:
    for key in keys.public(now):
        if key.kid == kid:
            return key.public
    raise Unauthenticated("the token was signed by a key that is not ours")


def _credential(settings: Settings, name: str) -> str | None:
    path = settings.credentials.get(name)
    return path.read_text().strip() if path else None


def _token_hash(settings: Settings) -> bytes:
    file = settings.management.token_hash_file
    try:
        return bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as e:
        raise SettingsError(
            f"`management.token_hash_file` `{file}` cannot be read as a SHA-256 in hexadecimal: {e}; run `connector init`"
        ) from e


def _exporters(settings: Settings) -> tuple[Any, ...]:
    exporters: list[Any] = []
    if settings.telemetry.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporters.append(OTLPSpanExporter(endpoint=f"{settings.telemetry.otlp_endpoint.rstrip('/')}/v1/traces"))
    if settings.telemetry.spans_file is not None:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        out = settings.telemetry.spans_file.open("a", encoding="utf-8")
        exporters.append(ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n"))
    return tuple(exporters)


def _apply(old: Settings, new: Settings) -> list[str]:
    """Apply what can change while running; name what cannot."""
    changed: list[str] = []
    if new.telemetry.log_level != old.telemetry.log_level or new.telemetry.log_format != old.telemetry.log_format:
        telemetry.configure_logging(new.telemetry.log_level, new.telemetry.log_format)
        changed.append(f"telemetry: log_level {new.telemetry.log_level}, log_format {new.telemetry.log_format}")
    for section in Settings.__dataclass_fields__:
        if section != "telemetry" and getattr(new, section) != getattr(old, section):
            changed.append(f"{section}: differs from the running settings; restart to apply it")
    return changed


async def serve(
    settings: Settings, *, path: Path | None = None, environ: dict[str, str] | None = None, ready: Callable[[Connector], None] | None = None
) -> None:
    """Run until SIGTERM or SIGINT, then drain. SIGHUP reloads."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    running = await start(settings, path=path, environ=environ)
    reloads: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _spawn(reloads, _reload(running)))
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    if ready is not None:
        ready(running)
    try:
        await stop.wait()
        telemetry.log.info("draining")
    finally:
        await running.close()


async def _reload(running: Connector) -> None:
    try:
        await running.reload()
    except SettingsError as e:
        telemetry.log.error("reload refused, nothing changed", reasons=list(e.reasons))


def run(settings: Settings, **options: Any) -> None:
    """Run a connector to its end: what `connector run` does."""
    telemetry.configure_logging(settings.telemetry.log_level, settings.telemetry.log_format)
    asyncio.run(serve(settings, **options))
