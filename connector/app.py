"""The composition root: settings in, running connector out. The only file that knows every class."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, field

import connector
from connector import app_settings as parts
from connector import telemetry
from connector.adapters.clock import SystemClock, TimeOrderedIds
from connector.adapters.expander import Expander
from connector.adapters.file_sink import FileSinks
from connector.adapters.file_source import FileSources
from connector.adapters.http_source import HttpSources
from connector.adapters.peer_http import HttpPeer
from connector.adapters.registry import own_description, participant
from connector.adapters.tokens import RegistryIdentity
from connector.adapters_streams.http_stream import HttpStreams
from connector.adapters_streams.mover import SpliceMover
from connector.api import data_answers, dsp_api, ledger_api, metering_api, middleware
from connector.api.data_api import DataApi
from connector.api.listener import Listening, listen
from connector.api.management_api import ManagementApi, authorized
from connector.api.ops_api import OpsApi
from connector.api_management.doors import Doors
from connector.api_streams.sink_api import SinkApi
from connector.api_streams.statements_api import StatementsApi
from connector.app_end import drain, end, spawn, until
from connector.app_memory import settle
from connector.app_parts import Together, kept_lives, kept_room, look_into, own_key, prepared, retaining, store_fault, watched_disks
from connector.app_statements import Stated, stated
from connector.control.catalog import Catalog, PeerCatalogs
from connector.control.compose import Sender
from connector.control.journal import Feed, Journal
from connector.control.negotiate import Negotiations
from connector.control.operate import Operations
from connector.control.outbox import Outbox
from connector.control.policies import Policies
from connector.control.publish import Publishing
from connector.control.pulls import Pulls
from connector.control.receive import Receiver
from connector.control.rights import Rights
from connector.control.simulate import Simulation
from connector.control.steps import DeadLetters, Steps
from connector.control.transfers import Marks, Transfers, Views
from connector.control.watch import Watch
from connector.control_billing.affording import reckoning
from connector.control_billing.bills import Bills
from connector.control_streams.pushing import Pushing
from connector.dataplane.accounts import Accounts
from connector.dataplane.edr import Tokens
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate
from connector.dataplane.logs import Sweeping
from connector.dataplane.meter import Meters
from connector.dataplane.opened import OpenSources
from connector.dataplane.quotas import Ledger
from connector.dataplane.receipts import Receipts
from connector.dataplane.stream import Representations
from connector.dataplane_disk.disks import Disks
from connector.dataplane_push.pusher import Pusher
from connector.dataplane_push.signed import Sinks
from connector.dsp import dcat
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move
from connector.dsp.schemas import Schemas
from connector.errors import SettingsError
from connector.intake.account import Means
from connector.intake.download import Downloads, Metering
from connector.ledger.book import Book, signer_of
from connector.odrl import Options
from connector.ports import Act, Approver, Identity, Sources, Store
from connector.records import Agreement, Dataset, Evidence
from connector.records.metering import Metered
from connector.settings import Settings, load
from connector.settings.live import taken
from connector.values import replace
from connector.vocabulary import read_profiles, read_vocabulary


class Automatic:
    """The approver of a connector that agrees to what policy permits, after `delay_seconds`."""

    def __init__(self, delay_seconds: float) -> None:
        self.delay_seconds = delay_seconds

    def next_act(self, _process: Process, proposed: Act | None) -> Act | None:
        """See the port."""
        if proposed is None or self.delay_seconds == 0 or proposed.delay_seconds:
            return proposed
        return replace(proposed, delay_seconds=self.delay_seconds)


class Replaced(Struct):
    """What a caller brings instead of what the settings say: an identity layer, an approver."""

    identity: Identity | None = None
    approver: Approver | None = None


class Connector(Struct):
    """A running connector. `settings` are those in force, `token_hash` is the SHA-256 of the admin token, `ports` are the
    listeners' real ports by name; `prepare` makes ahead what the first requests would else make; `close` drains and ends it."""

    settings: Settings
    store: Store
    operations: Operations
    publishing: Publishing
    journal: Journal
    book: Book
    states: Stated
    disks: Disks
    ops: OpsApi
    stack: AsyncExitStack
    reload: Callable[[], Any]
    prepare: Callable[[], Awaitable[None]]
    token_hash: bytes
    ports: dict[str, int] = field(default_factory=dict)

    async def close(self) -> None:
        """Stop listening, let requests and streams finish, stop the workers. Whatever is open goes on at the next start.
        `/readyz` says so from the first moment until the very end."""
        self.ops.phase = "draining"
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
        tracing = telemetry.Tracing(settings.participant.name, settings.telemetry.sample_ratio, parts.exporters(settings, stack))
        stack.callback(tracing.close)

        keys, registry, token_hash = parts.opened(settings)
        own = participant(
            settings.participant.id, settings.participant.name, settings.participant.role, settings.protocol.url + dsp_api.PATH
        )
        kept = kept_room(settings)
        store = parts.store_of(settings, own.id, stack)
        stack.push_async_callback(store.close)
        used = parts.kept_ids(settings, stack)
        identity = instead.identity or RegistryIdentity(own, registry, keys, clock, used=used)
        ca_file, certificate, key, crl_file = parts.client_files(settings)
        peer = HttpPeer(parts.guard(settings), ca_file=ca_file, certificate=certificate, key=key, crl_file=crl_file)
        stack.push_async_callback(peer.close)

        journal = Journal(store, clock)
        policies = Policies(lambda: Options(profiles=read_profiles()))
        automatic = Automatic(settings.approval.delay_seconds)
        steps = Steps(instead.approver or automatic, ids, Sender(own.id, own.protocol or "", parts.times(settings)))
        tokens = Tokens(
            own.id,
            settings.data.url,
            signer=lambda: keys.active(clock.now()),
            key_of=lambda kid: own_key(keys, kid, clock.now()),
            clock=clock,
            ids=ids,
            token_seconds=settings.edr.token_seconds,
        )
        rights = Rights(store, policies, identity)
        watch = Watch(
            journal,
            steps,
            rights,
            lambda pid: seen.last_access if (seen := flows.seen(pid)) else None,
            settings.edr.quiet_seconds,
            lambda pid: receipts.owing(pid),  # noqa: PLW0108 - they are made further down
        )
        background: set[asyncio.Task[None]] = set()
        flows = Flows(clock, lambda pid: spawn(background, watch.covered(pid)))
        journal.listen(flows.committed, Kind.TRANSFER, Dataset, Agreement)
        views = Views(store, rights, tokens, clock, watch.suspect)
        negotiations, transfers = Negotiations(store, policies, identity), Transfers(store, rights, peer.check)
        ledger = Ledger(store, journal.decide, clock, ids, Marks(journal, steps, rights).reached, flows.cut)
        transfers.news = ledger.news
        journal.listen(ledger.committed, Kind.TRANSFER, telemetry.STATEMENT_AGREED)
        stack.push_async_callback(ledger.close)
        book = Book(
            store, journal.commit, clock, identity, peer, parts.anchor_of(settings), lambda: keys.active(clock.now()),
            parts.log_of(settings), own.id,
        )  # fmt: skip
        journal.listen(book.committed, Evidence)
        book.exchange(settings.ledger.witness)
        await book.start()
        stack.push_async_callback(book.close)
        anew = {Move.CONTRACT_AGREEMENT: negotiations.agree_now, Move.START: transfers.start}
        outbox = Outbox(
            journal, steps, anew, peer, identity, tracing, views.address,
            first_retry_seconds=settings.delivery.first_retry_seconds,
            retry_seconds_max=settings.delivery.retry_seconds_max,
            doubt_seconds=settings.delivery.doubt_seconds,
        )  # fmt: skip
        feed = Feed(journal)  # whoever watches is told after those that act
        receiver, catalogs = Receiver(journal, steps, negotiations, transfers), PeerCatalogs(peer, identity, schemas, expander, clock)
        service, nested = f"{own.id}#connector", parts.nested(settings, identity)
        catalog = Catalog(journal, policies, own.id, f"{own.id}#catalog", dcat.service_document(service, own.protocol or ""), nested)
        operations = Operations(journal, steps, policies, catalogs, identity, transfers)
        files, sinks = FileSources(settings.sources.roots), FileSinks(settings.pulls.roots, parts.own_places(settings))

        def credential(name: str) -> str | None:
            return parts.credential(running.settings, name)

        sources: dict[str, Sources] = {"file": files, "http": HttpSources(peer, credential)}
        streams = {"http-stream": HttpStreams(peer, credential)}
        logs = parts.content_logs(settings, stack)
        policies.extents = logs.at_hand
        ledger.rest, ledger.owed = reckoning(store, logs.at_hand, lambda document: policies.read(document).policy)
        await ledger.recover()
        stack.push_async_callback(logs.close)
        sweeping = Sweeping(logs, store)
        journal.listen(sweeping.committed, Dataset)
        stack.push_async_callback(sweeping.close)
        accounts = Accounts(
            store, journal.decide, identity, clock, settings.data.url, lambda name: signer_of(keys.active(clock.now()), name),
            prices=policies.prices, window_bytes=settings.metering.window_bytes, credit_windows=settings.metering.credit_windows,
        )  # fmt: skip
        ledger.written = accounts.write_now
        stack.push_async_callback(accounts.close)
        lives = await kept_lives(settings, logs.folder / "live", streams, flows, operations, journal, stack)
        disks = await watched_disks(settings, kept, logs, lives, accounts, stack)
        receipts = Receipts(store, journal.decide, identity, clock, ids, accounts, flows, book, live=lives.log_of)
        look_into(receipts, sources, store, logs, flows)
        journal.listen(receipts.committed, Kind.TRANSFER, Metered)
        stack.push_async_callback(receipts.close)
        states = stated(journal, identity, ids, book, receipts, peer, stack, settings.delivery.retry_seconds_max, operations)
        publishing = Publishing(journal, policies, schemas, {**{k: logs.indexing(each) for k, each in sources.items()}, **streams}, service)
        means = Means(store, journal.decide, identity, clock, ids, book.checkpoint, states.stating.heard)
        metering = Metering(means, SpliceMover, settings.receipts.after, policies.prices)
        downloads = Downloads(peer, identity, sinks, clock, metering=metering, signer=lambda: keys.active(clock.now()))
        pulls = Pulls(journal, feed, operations, downloads, ids)
        outbox.unheard = pulls.unheard
        retention = retaining(settings, journal, sinks, logs)
        ops = OpsApi(
            (("store", lambda: store_fault(store)), ("disk", disks.fault), ("ledger", book.fault), ("watch", watch.fault),
             ("retention", retention.fault))
        )  # fmt: skip

        async def reload() -> list[str]:
            """Registry, keys, certificates, the admin token, and what settings can change while running; the others are named.
            Raises SettingsError. All that can be wrong is looked at first: nothing has changed then."""
            inside = partial(parts.mistakes, now=clock.now())
            found = load(path, environ or {}, contents=inside) if path is not None else running.settings
            now, said = taken(running.settings, found)
            guard, (_, _, hashed) = parts.guard(now), parts.opened(now)
            renewed = [*peer.renew(), *(line for each in listeners for line in each.renew())]
            changed = [*registry.reload(), *keys.reload(), *renewed, *said]
            running.settings, running.token_hash, peer.guard = now, hashed, guard
            catalog.nested = parts.nested(now, identity)
            tokens.forget()
            if said:
                apply(now)
            if changed:
                telemetry.log.info("reloaded", changed=changed)
            return changed

        def apply(now: Settings) -> None:
            """Give each component what it holds of the settings that may change (`connector.settings.live`)."""
            files.roots, sinks.roots, metering.after = now.sources.roots, now.pulls.roots, now.receipts.after
            automatic.delay_seconds = now.approval.delay_seconds
            steps.sender = replace(steps.sender, times=parts.times(now))
            outbox.first_retry_seconds, outbox.retry_seconds_max = now.delivery.first_retry_seconds, now.delivery.retry_seconds_max
            states.stating.pause_seconds_max = now.delivery.retry_seconds_max
            outbox.doubt_seconds = now.delivery.doubt_seconds
            tokens.token_seconds, watch.quiet_seconds = now.edr.token_seconds, now.edr.quiet_seconds
            accounts.window_bytes, accounts.credit_windows = now.metering.window_bytes, now.metering.credit_windows
            lives.spool_bytes, lives.untaken_seconds = now.metering.spool_bytes, now.metering.untaken_seconds
            book.exchange(now.ledger.witness)
            disks.percent = now.store.free_percent
            retention.keep = parts.keep(now)
            limits.body_bytes, operator_limits.body_bytes = now.limits.message_bytes, now.limits.management_bytes
            limits.body_seconds = operator_limits.body_seconds = now.limits.body_seconds
            protocol.page_datasets = now.limits.catalog_page
            telemetry.configure_logging(now.telemetry.log_level, now.telemetry.log_format)

        description = dsp_api.Description(
            dsp_api.version_document(service, own.id), lambda: own_description(own, settings.data.url, keys.public())
        )
        limits = middleware.Limits(settings.limits.message_bytes, settings.limits.body_seconds)
        operator_limits = middleware.Limits(settings.limits.management_bytes, settings.limits.body_seconds)
        protocol = dsp_api.DspApi(receiver, catalog, outbox, identity, schemas, expander, limits, settings.limits.catalog_page, description)
        protocol.admit, protocol.ready, protocol.read_ahead = disks.admit, policies.ready, policies.read_aside
        doors = Doors(
            store, journal, feed, outbox, DeadLetters(journal, steps, anew), operations, catalogs, publishing, pulls,
            Simulation(store, policies, catalog, negotiations, rights, identity), parts.library, parts.examined, identity, reload,
            {"data": settings.data.url, "version": connector.__version__}, book,
            Bills(store, policies, clock, lambda: identity.own.id, states.stating, pulls.live, states.closings),
        )  # fmt: skip
        management = ManagementApi(doors, operator_limits)
        gate, bulk_threads = Gate(tokens, views, flows, clock), settings.limits.bulk_threads
        metered, meters = metering_api.Metering(accounts, receipts, settings.data.url, lives), Meters(ledger)
        served = (gate, flows, tokens, identity, sources, tracing, meters)
        signing = data_answers.Signing(settings.data.url, lambda: keys.active(clock.now()), identity.keys, clock, used)
        data = DataApi(*served, bulk_threads=bulk_threads, logs=logs, metering=metered, signing=signing)
        of_pushed = OpenSources[Any](sources)
        stack.push_async_callback(of_pushed.close)
        bytes_ = (gate, views, tokens, of_pushed, Representations(of_pushed, logs), accounts, receipts, flows, meters)
        pushing = Pushing(journal, operations, Pusher(*bytes_, peer, Sinks(signing.means, store, journal.decide), metered.link).push)
        journal.listen(pushing.committed, Kind.TRANSFER)
        sink = SinkApi(tokens, store, downloads.receptions, tracing, signing, views.demands)

        prepare = partial(prepared, settings, peer)
        running = Connector(settings, store, operations, publishing, journal, book, states, disks, ops, stack, reload, prepare, token_hash)
        guards = {name: middleware.guard(tracing, name, middleware.problem) for name in ("ops", "management")}
        guards["protocol"] = middleware.guard(tracing, "protocol", ledger_api.rendered(dsp_api.render), protocol.nowhere)
        beside = ledger_api.LedgerApi(book, protocol.caller, limits)
        on_statements = StatementsApi(states.statements, states.closings, protocol.caller, limits)
        doors_open: tuple[tuple[str, Any, Any, list[Any]], ...] = (
            ("ops", settings.ops, ops, [guards["ops"]]),
            ("management", settings.management, management, [guards["management"], authorized(lambda: running.token_hash)]),
            ("data", settings.data, Together((sink, data)), []),
            ("protocol", settings.protocol, Together((protocol, beside, on_statements)), [guards["protocol"]]),
        )
        listeners: list[Listening] = []
        for name, at, routes, middlewares in doors_open:
            listeners.append(await listen(parts.door(name, at, settings.limits), routes.add_to, middlewares, stack))
            running.ports[name] = listeners[-1].port
        stack.push_async_callback(end, background)

        def known_otherwise(participant: str) -> None:
            """A participant is not what it was: the next request of it is judged anew at once, and what runs as soon as can be."""
            flows.look_again()
            watch.reconsider(participant)

        identity.listen(known_otherwise)
        await watch.start()
        stack.push_async_callback(watch.close)
        retention.start()
        sweeping.start()
        stack.push_async_callback(retention.close)
        await states.recover()
        recovered = await outbox.recover()
        stack.push_async_callback(outbox.close)
        await pulls.recover()
        await pushing.recover()
        # The end, from below: no new connections anywhere, nobody waits any longer, no order of ours or push goes on before the next start,
        # and what runs at each door but `ops` finishes.
        stack.push_async_callback(drain, listeners[1:], flows, lives, settings.limits.drain_seconds)
        stack.callback(feed.close)
        stack.push_async_callback(pulls.close)
        stack.push_async_callback(pushing.close)
        for each in listeners[1:]:
            stack.callback(each.refuse)
        running.stack = stack.pop_all()
        ops.phase = "running"
        telemetry.log.info("ready", participant=own.id, ports=running.ports, recovered=recovered)
        return running
    raise AssertionError("unreachable")


async def serve(
    settings: Settings, *, path: Path | None = None, environ: dict[str, str] | None = None, ready: Callable[[Connector], None] | None = None
) -> None:
    """Run until SIGTERM or SIGINT, then drain. SIGHUP reloads, once it is ready."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    started, reloads = loop.create_future(), set[asyncio.Task[None]]()
    for number in (signal.SIGTERM, signal.SIGINT):  # from the first moment: who reads `ready` may say so at once
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: spawn(reloads, _reload(started)))
    running = await start(settings, path=path, environ=environ)
    started.set_result(running)
    settle()
    if ready is not None:
        ready(running)
    try:
        await until(stop, running.prepare())
        telemetry.log.info("draining")
    finally:
        await running.close()


async def _reload(started: asyncio.Future[Connector]) -> None:
    try:
        await (await started).reload()
    except SettingsError as e:
        telemetry.log.error("reload refused, nothing changed", reasons=list(e.reasons))


def run(settings: Settings, **options: Any) -> None:
    """Run a connector to its end: what `connector run` does."""
    telemetry.configure_logging(settings.telemetry.log_level, settings.telemetry.log_format)
    asyncio.run(serve(settings, **options))
