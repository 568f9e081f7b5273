"""Calls both connectors to account, from what they have on disk: every receipt is judged again, every count summed up anew.

Nothing here asks a connector. What a transfer brought is the union of the leaves that its receipts cover, and an order may have needed
several transfers: together they have to come to the size of the data, once. What the leaves of data without an end are, the provider's log
says, which is on the disk as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from connector.adapters.clock import SystemClock
from connector.adapters.keys import Keys
from connector.adapters.registry import Registry
from connector.adapters.sqlite import SqliteStore
from connector.adapters.tokens import RegistryIdentity
from connector.dataplane_live.lives import Lives
from connector.dsp.messages import Kind, Role
from connector.metering import chain, chain_consumer
from connector.metering.chain import Outcome
from connector.metering.counts import Counts
from connector.metering.credit import Log, finite
from connector.metering.objects import Manifest, Receipt, kept
from connector.records.metering import Metered, Receipted
from connector.values import replace
from tests.faults.home import Home
from tests.faults.ledger import CONSUMER, PROVIDER

SAME: Final = ("manifest", "root", "size_bytes", "sequence", "receipt", "ack", "ranges", "counts", "status", "attested")


class Ordered(Protocol):
    """An order that is done: its id, the size of its file, and what is `wrong` with it, to which is added."""

    @property
    def order(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def wrong(self) -> list[str]: ...


@dataclass
class Book:
    """The database of one side, how its signatures and those of its peer are read, and its logs of data without an end."""

    store: Any
    identity: Any
    lives: Lives | None


@dataclass
class Summed:
    """What the books of a lane came to: orders, transfers, receipts, and bytes by the provider's and by the consumer's receipts."""

    orders: int = 0
    transfers: int = 0
    receipts: int = 0
    provider_bytes: int = 0
    consumer_bytes: int = 0
    wrong: list[str] | None = None


def opened(home: Home) -> Book:
    """Open the books of a connector that does not run."""
    registry, keys = Registry(home.directory / "participants"), Keys(home.directory / "keys", f"did:web:{home.name}.example")
    own = registry.find(f"did:web:{home.name}.example")
    if own is None:
        raise RuntimeError(f"{home.directory} does not know itself")
    found = next(home.directory.rglob("live"), None)
    lives = Lives(found, {}, lambda *_: None) if found is not None else None
    return Book(SqliteStore(home.database, own.id), RegistryIdentity(own, registry, keys, SystemClock()), lives)


async def summed(homes: Mapping[str, Home], done: Sequence[Ordered]) -> Summed:
    """Sum up these orders. Both connectors have ended."""
    consumer, provider = opened(homes[CONSUMER]), opened(homes[PROVIDER])
    found = Summed(wrong=[])
    try:
        for each in done:
            await _order(each, consumer, provider, found)
    finally:
        await consumer.store.close()
        await provider.store.close()
    return found


async def _order(done: Ordered, consumer: Book, provider: Book, found: Summed) -> None:
    pull = await consumer.store.pull(done.order)
    if pull is None:
        done.wrong.append("the order is not in the books")
        return
    found.orders += 1
    accounts: list[tuple[Metered | None, Metered | None]] = []
    for pid in dict.fromkeys((*pull.earlier, pull.transfer)):
        process = await consumer.store.process(Kind.TRANSFER, pid) if pid is not None else None
        mine = await consumer.store.metered(pid)
        theirs = await provider.store.metered(process.peer_pid) if process is not None and process.peer_pid else None
        found.transfers += 1
        accounts.append((mine, theirs))
        done.wrong += [f"transfer {pid}: {text}" for text in differences(mine, theirs)]
        with ExitStack() as stack:
            log = None
            if theirs is not None and provider.lives is not None:
                log = stack.enter_context(provider.lives.log_of(theirs.transfer))
            for role, account, book, other in (("provider", theirs, provider, consumer), ("consumer", mine, consumer, provider)):
                if account is not None:
                    rows = await book.store.receipts(account.transfer)
                    found.receipts += len(rows) if role == PROVIDER else 0
                    wrong = replayed(account, rows, book, other, log.known(kept(Manifest, account.manifest)) if log is not None else None)
                    done.wrong += [f"transfer {pid}, {role}: {text}" for text in wrong]
    sums = [sum(account.counts.bytes for account in side if account is not None) for side in zip(*accounts, strict=True)]
    found.consumer_bytes, found.provider_bytes = found.consumer_bytes + sums[0], found.provider_bytes + sums[1]
    if sums != [done.size_bytes] * 2:
        done.wrong.append(f"the file has {done.size_bytes} bytes, the consumer has signed for {sums[0]}, the provider bills {sums[1]}")


def differences(mine: Metered | None, theirs: Metered | None) -> list[str]:
    """In what the accounts of both sides differ."""
    if mine is None or theirs is None:
        return [] if mine is theirs else [f"only the {'provider' if mine is None else 'consumer'} has an account"]
    return [
        f"`{name}` is {_short(getattr(mine, name))} for the consumer and {_short(getattr(theirs, name))} for the provider"
        for name in SAME
        if getattr(mine, name) != getattr(theirs, name)
    ]


def replayed(account: Metered, rows: Sequence[Receipted], own: Book, other: Book, growing: Log | None = None) -> list[str]:
    """What is wrong with a chain of receipts, judged from its beginning with nothing but the manifest and the keys of both; of data without
    an end also with the log that has grown."""
    provides = account.role is Role.PROVIDER
    consumer, provider = (other.identity, own.identity) if provides else (own.identity, other.identity)
    of_consumer, of_provider = consumer.own.id, provider.own.id
    blank = replace(account, sequence=0, receipt="", ack="", ranges=(), counts=Counts(), credit_bytes=0, status="open", version=0)
    manifest = kept(Manifest, account.manifest)
    log = growing or finite(manifest)
    state = blank
    # The last one of a transfer is accepted before its ack is signed: a kill in between leaves none, and both state what it came to.
    open_ended = next((row for row in rows if not row.ack and row.receipt == account.receipt), None)
    accepted = sorted((row for row in rows if row.ack is not None or row is open_ended), key=lambda row: row.sequence)
    wrong = [f"receipt {row.sequence} came twice, and was another" for row in rows if row.ack is None and row is not open_ended]
    for row in accepted:
        now = float(kept(Receipt, row.receipt).issued)

        def proven(token: str, typ: str, at: float = now) -> Any:
            return own.identity.read(token, typ, of_consumer, at=at)

        def answered(token: str, typ: str, at: float = now) -> Any:
            return own.identity.read(token, typ, of_provider, at=at)

        judged = chain.judge(state, row.receipt, proven=proven, log=log, now=now)
        if judged.outcome is not Outcome.ACCEPTED:
            return [*wrong, f"receipt {row.sequence} does not follow: {judged.code}"]
        if row is open_ended:
            state = judged.account
            continue
        acked = chain_consumer.judge_ack(judged.account, row.ack or "", proven=answered, now=now + chain.AHEAD_SECONDS_MAX)
        if acked.outcome is not Outcome.ACCEPTED:
            return [*wrong, f"the ack of receipt {row.sequence} does not hold: {acked.code}"]
        state = acked.account
    for name in ("sequence", "ranges", "counts", "status"):
        if getattr(state, name) != getattr(account, name):
            wrong.append(f"`{name}` is {_short(getattr(account, name))}, and its receipts come to {_short(getattr(state, name))}")
    if account.status != (ended := "complete" if growing is None else "open"):
        wrong.append(f"the account is {account.status}, not {ended}")
    return wrong


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
