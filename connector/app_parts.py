"""Small parts of the composition root that stand for themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from connector.adapters.keys import Keys
from connector.adapters.peer_http import HttpPeer
from connector.app_memory import gather
from connector.app_settings import keep
from connector.control.journal import Journal
from connector.control.operate import Operations
from connector.control.watch import Retention
from connector.control_streams.concluding import complete
from connector.control_streams.parts import Parts
from connector.dataplane.accounts import Accounts
from connector.dataplane.flows import Flows
from connector.dataplane.logs import Logs
from connector.dataplane.receipts import Receipts
from connector.dataplane_accounts.indexed import Indexed
from connector.dataplane_accounts.rejected import Rejections
from connector.dataplane_disk.disks import DATABASE, FULL_BYTES, Disks, Reserve, look
from connector.dataplane_live.lives import Lives
from connector.dsp.messages import Kind
from connector.errors import SettingsError, Unauthenticated
from connector.intake_files.finishing import forget
from connector.ports import Sources, Store
from connector.ports.live import LiveSources
from connector.ports.sinks import Sinks
from connector.settings import Settings
from connector.values import Value
from connector.vocabulary import read_profiles


class Together(Value):
    """Routes that share a door."""

    parts: Sequence[Any]

    def add_to(self, app: web.Application) -> None:
        for part in self.parts:
            part.add_to(app)


async def prepared(settings: Settings, peer: HttpPeer) -> None:
    """Make what the first policy and the first connection over TLS would else wait for, and lay together the memory of what stays, beside
    the loop. Raises SettingsError; ProfilesUnread for profile packs that cannot be used."""
    await asyncio.to_thread(read_profiles)
    if not settings.egress.http:
        await peer.prepare()
    await asyncio.to_thread(gather)


async def store_fault(store: Store) -> str | None:
    """What is wrong with the store, for the readiness of the connector."""
    try:
        await store.next_due()
    except Exception as e:
        return f"the store does not answer: {type(e).__name__}"
    return None


def own_key(keys: Keys, kid: str, now: float) -> bytes:
    """The public half of a key of ours that is valid at `now`. Raises Unauthenticated."""
    for key in keys.public():
        if key.kid == kid and key.valid(now):
            return key.public
    raise Unauthenticated("the token was signed by a key that is not ours now")


def look_into(receipts: Receipts, sources: Mapping[str, Sources], store: Store, logs: Logs, flows: Flows) -> None:
    """Have it looked at leaves that a consumer has rejected, and into the logs of data that nobody has asked for since the start."""
    receipts.look_at, receipts.indexed = Rejections(sources, logs, flows.look_again).look_at, Indexed(store, logs).of


def retaining(settings: Settings, journal: Journal, sinks: Sinks, logs: Logs) -> Retention:
    """The job that deletes what has been kept long enough, parts of orders that were left in `sinks`, and replaced indexes of `logs`."""
    return Retention(journal, keep(settings), parts=Parts(journal, partial(forget, sinks)).sweep, indexes=logs.expire)


def kept_room(settings: Settings) -> Reserve | None:
    """The file that is kept for a full disk, given up at once if it is: the store needs room to be opened. None with a store in memory.
    Raises SettingsError."""
    if settings.store.kind == "memory":
        return None
    path = settings.store.path.resolve()
    try:
        reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        if reserve.held and look(path.parent).free_bytes < FULL_BYTES:
            reserve.give_up()
    except OSError as error:
        raise SettingsError(f"`{path.parent}` cannot be used: {error.strerror}; name a directory of ours in `store.path`") from error
    return reserve


async def kept_lives(
    settings: Settings,
    folder: Path,
    kinds: Mapping[str, LiveSources],
    flows: Flows,
    operations: Operations,
    journal: Journal,
    stack: AsyncExitStack,
) -> Lives:
    """The live transfers, those that have to end begun with, kept until `stack` ends."""
    metering = settings.metering
    limits = {"spool_bytes": metering.spool_bytes, "untaken_seconds": metering.untaken_seconds}
    ends = {"over": operations.terminate, "complete": partial(complete, operations, journal.store)}
    lives = Lives(folder, kinds, flows.cut, **limits, **ends)  # type: ignore[arg-type]
    journal.listen(lives.committed, Kind.TRANSFER)
    stack.push_async_callback(lives.close)
    await lives.sweep(journal.store)
    return lives


async def watched_disks(
    settings: Settings, reserve: Reserve | None, logs: Logs, lives: Lives, accounts: Accounts, stack: AsyncExitStack
) -> Disks:
    """What serving writes to, watched until `stack` ends: transfers are admitted by what is free."""
    folders = {"index": logs.folder, "spool": logs.folder / "live"}
    if reserve is not None:
        folders[DATABASE] = settings.store.path.resolve().parent
    disks = Disks(folders, settings.store.free_percent, reserve, lives.halt)
    accounts.admit = disks.admit
    lives.admit = lambda new: disks.admit() if new else disks.admit_data()
    await disks.start()
    stack.push_async_callback(disks.close)
    return disks
