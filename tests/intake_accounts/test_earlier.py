"""An order that goes on in another transfer: every byte of the file is signed for once, whatever was on its way as the first one ended."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.dsp.messages import Role
from connector.errors import MeterRefused, PeerFailed, PeerRefused
from connector.intake import account, patience, proven
from connector.intake.account import Means
from connector.intake.patience import Patience
from connector.intake_accounts.earlier import held
from connector.metering.content import CHUNK_BYTES
from connector.metering.objects import digest
from connector.metering.ranges import Ranges
from connector.records import Changes, Usage
from connector.records.metering import Receipted
from connector.settings.fields import MeteringSettings
from connector.values import replace
from tests import pair
from tests.control_billing.test_streams import COUNTERSIGNED
from tests.dataplane.rig import Counted, FakeIdentity, some_bytes
from tests.free_ports import free_ports
from tests.metering import rig
from tests.metering_bills.priced import money, price
from tests.test_app import ended

TRANSFER = rig.account(Role.CONSUMER).transfer
CONTENT = some_bytes(12 * CHUNK_BYTES + 4321)
DATASET = "urn:test:goes-on"
PIECE_BYTES, PIECE_SECONDS = 64 * 1024, 0.002

pytestmark = pytest.mark.asyncio


class Slow:
    """TCP to the data door at `port`: data come slowly, and stop where they are told to; receipts, or their acks, never arrive while they
    are `lost`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.lost, self.losing = "", asyncio.Event()
        self._passed, self._limit = 0, float("inf")
        self._stopped, self._moved = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def after(self, size_bytes: int) -> None:
        """Return once so many bytes more have come, and no more come."""
        self._allow(self._passed + size_bytes)
        await self._stopped.wait()

    async def lose(self, what: str) -> None:
        """Return once one of these is lost, with two windows more at the most."""
        self.lost = what
        self._allow(self._passed + 2 * CHUNK_BYTES)
        await self.losing.wait()

    def go_on(self) -> None:
        self.lost = ""
        self.losing.clear()
        self._allow(float("inf"))

    def _allow(self, limit: float) -> None:
        self._limit = limit
        self._stopped.clear()
        self._moved.set()
        self._moved.clear()

    async def _data(self, count: int) -> None:
        await asyncio.sleep(PIECE_SECONDS)
        while self._passed + count > self._limit:
            self._stopped.set()
            await self._moved.wait()
        self._passed += count

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server = await asyncio.open_connection("127.0.0.1", self._port)
        posted = asyncio.Event()
        upward = asyncio.create_task(self._up(reader, server, posted))
        try:
            came = 0
            while data := await server_reader.read(PIECE_BYTES):
                if (came := came + len(data)) > CHUNK_BYTES // 2:  # so many are data, and not what is said of them
                    await self._data(len(data))
                if self.lost == "ack" and posted.is_set():
                    self.losing.set()
                    continue
                writer.write(data)
                await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            return
        finally:
            self._tasks.discard(task)
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            server.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, posted: asyncio.Event) -> None:
        while data := await reader.read(PIECE_BYTES):
            if b"POST " in data:
                if self.lost == "receipt":
                    self.losing.set()
                    return
                posted.set()
            server.write(data)
            await server.drain()


@asynccontextmanager
async def slowly(root: Path) -> AsyncIterator[tuple[pair.Pair, Slow]]:
    """Two connectors, with a slow way to the data."""
    metering = MeteringSettings(window_bytes=CHUNK_BYTES, credit_windows=4)
    one, other = (
        pair.site(root / "hospital", "hospital", store="sqlite", metering=metering),
        pair.site(root / "biopharma", "biopharma", store="sqlite"),
    )
    (front,) = free_ports(1)
    data = one.settings.data
    one = one.changed(data=replace(data, url=f"http://127.0.0.1:{front}"))
    one.meet(other)
    slow = Slow(data.port)
    async with pair.running(one) as first, pair.running(other) as second, slow.listening(front):
        yield pair.Pair(first, second), slow


async def goes_on(both: pair.Pair, slow: Slow, chance: random.Random, lost: str) -> str:
    """Order a file, cancel that twice, and let it come to its end; returns the agreement."""
    us, out = both.consumer, both.consumer.site.root / "out" / f"file-{lost}"
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(out)}
    come = 0
    for _ in range(2):
        order = await us.asked("POST", "/pulls", wish, status=201)
        await slow.after(chance.randrange(2 * CHUNK_BYTES, 4 * CHUNK_BYTES))
        while (seen := (await us.asked("GET", f"/pulls/{order['id']}"))["received_bytes"]) <= come:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # progress is no commit, and nobody is told of it but who looks
        come = seen
        if lost:
            await slow.lose(lost)
        view = await us.asked("POST", f"/pulls/{order['id']}/cancel", {"reason": "enough for now"})
        assert (view["stage"], view["reasons"]) == ("failed", ["enough for now"])
        left = await us.connector.store.metered(view["transfer"])
        assert left is not None
        assert lost or (left.ack and left.counts.bytes), "what had come was signed for before the transfer ended, where that could be"
        slow.go_on()
    done = await ended(us, (await us.asked("POST", "/pulls", wish, status=201))["id"])
    assert done["stage"] == "done", done
    assert out.read_bytes() == CONTENT
    return str(done["agreement"])


async def balanced(us: pair.Running, agreement: str) -> Usage:
    """What the provider's budget has spent, once both sides have signed what each transfer came to."""
    changed = asyncio.Event()
    us.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(pair.WAIT_SECONDS):
        while (usage := await us.connector.store.usage(agreement)) is None or usage.open:
            await changed.wait()
            changed.clear()
    return usage


async def test_what_cancelled_orders_have_left_is_signed_for_once_and_costs_the_budget_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with slowly(tmp_path) as (both, slow):
        rule = {"action": "use", "constraint": [money("99", operator="lteq")], "duty": [price("1", "megabyte")]}
        await both.provider.publish(DATASET, {"@type": "Offer", "permission": [rule]}, content=CONTENT)
        for seed, lost in enumerate(("", "receipt", "ack")):
            for module in (proven, account):  # whoever hears nothing is not waited for
                monkeypatch.setattr(module, "LAST_SECONDS", 0.1 if lost else 10.0)
            agreement = await goes_on(both, slow, random.Random(seed), lost)
            for at in (both.provider, both.consumer):
                said = await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/usage")
                assert said["signed"]["bytes"] == (1 + seed) * len(CONTENT), (lost, said)
        (spent,) = (await balanced(both.provider, agreement)).posted
        assert spent[2] == 3 * len(CONTENT), "what was on its way and signed for by nobody has gone back"
        place = f"/agreements/{pair.quoted(agreement)}"
        bills = [await at.asked("GET", f"{place}/invoice?from=2020-01-01&to=2100-01-01") for at in (both.provider, both.consumer)]
        assert bills[0] == bills[1], "what left before a first receipt that was lost is not billed beside what was signed for it later"
        assert (await both.provider.asked("GET", f"{place}/usage"))["counts"]["bytes"] == 3 * len(CONTENT)


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
async def test_an_order_right_after_a_cancelled_one_is_not_denied_for_what_is_on_its_way_back(tmp_path: Path, foreign: bool):
    """All of it had left, and paid for by the last of the budget: until both have signed what came nothing of that is free. Our own orders
    wait for that, and who does not is made to wait by the provider."""
    content = CONTENT[: 3 * CHUNK_BYTES]
    async with slowly(tmp_path) as (both, slow):
        budget = [money(f"{len(content) / 10**6}", operator="lteq"), COUNTERSIGNED]
        rule = {"action": "use", "constraint": budget, "duty": [price("1", "megabyte")]}
        await both.provider.publish(DATASET, {"@type": "Offer", "permission": [rule]}, content=content)
        us, spent = both.consumer, asyncio.Event()
        if foreign:
            us.connector.operations.stated = None

        def look(changes: Changes, _evidence: Any) -> None:
            if any(each.spent(*each.posted[0][:2]) == len(content) for each in changes.saves if isinstance(each, Usage) and each.posted):
                spent.set()

        both.provider.connector.journal.listen(look)
        wish = {"peer": "hospital", "dataset": DATASET, "out": str(us.site.root / "out" / "file")}
        order = await us.asked("POST", "/pulls", wish, status=201)
        await slow.after(CHUNK_BYTES)
        async with asyncio.timeout(pair.WAIT_SECONDS):
            await spent.wait()
        await us.asked("POST", f"/pulls/{order['id']}/cancel", {"reason": "enough for now"})
        slow.go_on()
        done = await ended(us, (await us.asked("POST", "/pulls", wish, status=201))["id"])
        assert done["stage"] == "done", done
        assert (us.site.root / "out" / "file").read_bytes() == content


async def left(*, acked: bool, heard: Callable[[str], Awaitable[bool]] | None = None) -> Means:
    """A consumer that has signed three receipts under a transfer, over a leaf more each; the last of them has its ack or not."""
    store, provider, at, rows = MemoryStore(), rig.account(Role.PROVIDER), rig.account(Role.CONSUMER), []
    for number in range(1, 4):
        provider, after = rig.exchange(provider, at, ((1, 1 + number),))
        at = after if number < 3 or acked else replace(after, ack="")
        rows.append(Receipted(at.transfer, number, digest(at.receipt), at.receipt, at.ack or None, 0.0))
    await store.commit(Changes((), (replace(at, root=rig.ROOT, version=1), *rows)))
    clock = SystemClock()
    return Means(store, Journal(store, clock).decide, FakeIdentity(rig.CONSUMER), clock, Counted(), heard=heard)


def answers(*told: bool | Exception) -> Callable[[str], Awaitable[bool]]:
    left = list(told)

    async def heard(transfer: str) -> bool:
        assert transfer == TRANSFER
        if isinstance(each := left.pop(0), Exception):
            raise each
        return each

    return heard


LAST, BEFORE = ((1, 4),), ((1, 3),)
CASES: dict[str, tuple[bool, Callable[[str], Awaitable[bool]] | None, Ranges]] = {
    "it has its ack": (True, answers(), LAST),
    "the provider has it": (False, answers(True), LAST),
    "the provider has signed that it does not have it": (False, answers(False), BEFORE),
    "the provider says without a signature that it has nothing": (False, answers(*[PeerRefused("no such place", status=404)] * 1000), LAST),
    "the provider takes no statements": (False, answers(PeerRefused("it has no address")), LAST),
    "what the provider has signed does not hold": (False, answers(MeterRefused("another's", "jws-signature")), LAST),
    "a proxy says something else": (False, answers(PeerRefused("no such place", status=404), True), LAST),
    "the provider is away for a moment": (False, answers(PeerFailed("away"), PeerFailed("away"), True), LAST),
    "nobody is asked": (False, None, LAST),
}


@pytest.mark.parametrize(("acked", "heard", "ranges"), CASES.values(), ids=CASES)
async def test_what_was_signed_for_once_is_signed_for_again_only_if_the_provider_has_signed_not_to_have_it(
    acked: bool, heard: Callable[[str], Awaitable[bool]] | None, ranges: Ranges, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.05)
    means = await left(acked=acked, heard=heard)
    assert await held(means, ("never heard of", TRANSFER), rig.ROOT, Patience("p", 900, lambda: False)) == ranges
    assert await held(means, (TRANSFER,), b"o" * 32, Patience("p", 900, lambda: False)) == (), "of other data nothing is held"


async def test_while_the_provider_does_not_say_what_it_has_nothing_is_signed_for_a_second_time():
    means = await left(acked=False, heard=answers(PeerFailed("away")))
    with pytest.raises(PeerFailed, match="the transfer is over"):
        await held(means, (TRANSFER,), rig.ROOT, Patience("p", 900, lambda: True))
