"""Accounts: what is on its way beyond what was signed for never exceeds the credit, whatever is asked for, and whatever is killed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector import telemetry
from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane.index import Log, Writing
from connector.dataplane_accounts import account as accounting
from connector.dataplane_accounts.account import Account
from connector.dataplane_accounts.opens import Held, Open
from connector.dataplane_live.growing import Growing
from connector.dsp.messages import Role
from connector.errors import Withdrawn
from connector.metering import credit
from connector.metering.content import CHUNK_BYTES, Header, Layout, Leaf
from connector.metering.objects import ContentLog, Manifest
from connector.metering.ranges import Ranges, union, without
from connector.ports import COUNTERSIGNED
from connector.records.metering import Counts, Metered
from connector.values import replace
from tests.dataplane.rig import CONSUMER, PROVIDER, TRANSFER, FakeIdentity, some_bytes

LARGE = some_bytes(6 * CHUNK_BYTES + 12_345)
NOT_YET_SECONDS = 0.05  # what is not to come has not come by then
CREDIT_BYTES = 3 * CHUNK_BYTES


def account_of(log: Log, size_bytes: int, open_: Open | None = None, demands: frozenset[str] = frozenset(), pid: str = TRANSFER) -> Account:
    permit = Permit(pid, "urn:agreement", CONSUMER, "urn:dataset", {}, (), None, "", Lease(), demands=demands)
    content = ContentLog("p.example/log", CHUNK_BYTES, log.root, size_bytes)
    ids = ("urn:agreement", b"p" * 32, "urn:c", TRANSFER, "urn:dataset", "snap")
    manifest = Manifest(PROVIDER, CONSUMER, 1, 2, *ids, content, "none", "https://p.example/receipts", CHUNK_BYTES, 3)
    token = FakeIdentity(PROVIDER).sign(manifest.claims(), Manifest.TYP)
    shape = (TRANSFER, Role.PROVIDER, "urn:agreement", CONSUMER, token, "p.example/log", CHUNK_BYTES)
    stored = Metered(*shape, log.root, log.leaves, size_bytes, sequence=1, receipt="r", attested="both", credit_bytes=3 * CHUNK_BYTES)
    return Account(permit, log, stored, open_)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("law")
    with Writing(folder, counts=False) as writing:
        writing.update(memoryview(LARGE))
        return writing.finish("law.log", b"k" * 32, lambda size: Header(CHUNK_BYTES, size, "text/csv", "none", b"s" * 32))


@given(st.lists(st.tuples(st.integers(0, len(LARGE) - 1), st.integers(1, len(LARGE)), st.sets(st.integers(1, 7))), max_size=25))
def test_whatever_is_asked_for_in_whatever_order_the_credit_holds(log: Log, asks: list[tuple[int, int, set[int]]]):
    async def story() -> None:
        account, layout = account_of(log, len(LARGE)), Layout(len(LARGE))
        stored = account.stored
        assert stored is not None
        sent: Ranges = ()
        for offset, asked, signed in asks:
            length = min(asked, len(LARGE) - offset)
            first, last = layout.touched(offset, length)
            expected = credit.allowance(stored.counts.bytes + 3 * CHUNK_BYTES, layout.measure, stored.ranges, sent, first, last)
            try:
                async with asyncio.timeout(0):
                    allowed = await account.allow(offset, length)
            except TimeoutError:
                allowed = 0
            end = first + expected
            assert allowed == (min(length, sum(layout.span(first, end)) - offset) if expected else 0)
            sent = union(sent, ((first, end),))
            assert account.out_bytes <= 3 * CHUNK_BYTES
            held = union(stored.ranges, ((leaf, leaf + 1) for leaf in signed if any(a <= leaf < b for a, b in sent)))
            stored = replace(stored, ranges=held, counts=Counts(layout.measure(held).bytes))
            account.acknowledged(stored)

    asyncio.run(story())


@pytest.mark.parametrize("demands", [frozenset(), frozenset({COUNTERSIGNED})])
@pytest.mark.asyncio
async def test_more_transfers_bring_no_more_credit_where_receipts_are_demanded(log: Log, demands: frozenset[str]):
    under = Open()
    flows = [account_of(log, len(LARGE), under, demands, f"urn:t:{number}") for number in range(3)]
    for each in flows[:2]:
        await each.allow_all(0, 3 * CHUNK_BYTES)
    third = asyncio.create_task(flows[2].allow(0, 3 * CHUNK_BYTES))
    done, _ = await asyncio.wait({third}, timeout=NOT_YET_SECONDS)
    assert bool(done) is not bool(demands)
    stored = flows[0].stored
    assert stored is not None
    flows[0].acknowledged(replace(stored, ranges=((1, 3),), counts=Counts(2 * CHUNK_BYTES)))
    assert await third == (2 if demands else 3) * CHUNK_BYTES


def beginning(log: Log, *, asked: bool) -> Account:
    """An account without a receipt; no more than 3 leaves may leave early."""
    account = account_of(log, len(LARGE))
    assert account.stored is not None
    account.stored = replace(account.stored, sequence=0, receipt="", attested="provider-only", credit_bytes=0, asked=asked)
    return account


@pytest.mark.asyncio
async def test_who_means_to_sign_is_waited_for_after_as_much_as_its_first_receipt_may_come_late(log: Log, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.dataplane_accounts.account.EARLY_BYTES", 1)
    account, waited = beginning(log, asked=True), list[str]()
    assert account.stored is not None
    assert await account.allow(0, CHUNK_BYTES) == CHUNK_BYTES
    assert await account.allow(CHUNK_BYTES, len(LARGE)) == 2 * CHUNK_BYTES
    account.sent(0, CREDIT_BYTES)
    waiting = asyncio.create_task(account.allow(CREDIT_BYTES, CHUNK_BYTES, lambda: waited.append("pushed")))
    await asyncio.sleep(0)
    assert (waited, waiting.done()) == (["pushed"], False)
    account.acknowledged(replace(account.stored, sequence=1, receipt="r", ranges=((1, 4),), counts=Counts(CREDIT_BYTES)))
    assert await waiting == CHUNK_BYTES


@pytest.mark.asyncio
@pytest.mark.parametrize("asked", [False, True])
async def test_what_was_let_go_before_the_first_receipt_and_is_lost_is_sent_again_without_credit(log: Log, asked: bool):
    account = beginning(log, asked=asked)
    assert account.stored is not None
    assert await account.allow(0, CREDIT_BYTES) == CREDIT_BYTES  # and the receipt comes before any of that was sent
    account.acknowledged(replace(account.stored, sequence=1, receipt="r", ranges=((1, 2),), counts=Counts(CHUNK_BYTES)))
    assert account.out_bytes == CREDIT_BYTES - CHUNK_BYTES
    assert await account.allow(CREDIT_BYTES, len(LARGE)) == CHUNK_BYTES, "all of the credit is on its way"
    assert await account.allow(CHUNK_BYTES, len(LARGE)) == CREDIT_BYTES


@pytest.mark.asyncio
async def test_who_signs_nothing_after_all_has_waited_once(log: Log, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.dataplane_accounts.account.EARLY_BYTES", 1)
    monkeypatch.setattr("connector.dataplane_accounts.account.EARLY_SECONDS", NOT_YET_SECONDS)
    account, waits = beginning(log, asked=True), list[int]()
    await account.allow_all(0, CREDIT_BYTES)
    for offset in range(CREDIT_BYTES, len(LARGE), CHUNK_BYTES):
        assert await account.allow(offset, CHUNK_BYTES, lambda offset=offset: waits.append(offset)) == CHUNK_BYTES
    assert waits == [CREDIT_BYTES]


@pytest.mark.asyncio
async def test_who_never_said_that_it_signs_is_not_waited_for_and_who_did_is_not_asked_anew_after_a_restart(
    log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("connector.dataplane_accounts.account.EARLY_BYTES", 1)
    assert await beginning(log, asked=False).allow(0, len(LARGE)) == len(LARGE)
    again = beginning(log, asked=True)
    assert again.stored is not None
    stored = replace(again.stored, sent=((0, 2 * CHUNK_BYTES),), counts=Counts(2 * CHUNK_BYTES))
    assert await Account(again.permit, log, stored).allow(0, len(LARGE)) == CHUNK_BYTES, "what has left in an earlier life counts"


@pytest.mark.asyncio
async def test_leaves_that_left_before_a_first_receipt_and_that_the_disk_has_not_kept_are_on_their_way_no_more(log: Log, tmp_path: Path):
    before = Growing.begin(tmp_path / "log", "one", Header(CHUNK_BYTES, None, "application/x-ndjson", "line", b"s" * 32))
    before.append([Leaf(b"h" * 32, 100, 1), Leaf(b"i" * 32, 100, 1)], "1")
    before.show()
    shown = beginning(log, asked=True)
    assert shown.stored is not None
    account = Account(shown.permit, before, replace(shown.stored, root=None, origin=f"p.example/log/{before.snapshot}"))
    assert await account.allow(0, 200) == 200
    after = Growing(tmp_path / "log", "another one")
    assert after.leaves == 1
    account.follow(shown.permit, after)
    after.append([Leaf(b"k" * 32, 300, 1)], "2")
    after.show()
    assert await account.allow(0, 300) == 300
    assert account.reserve(account.stored or shown.stored, ahead=False) == ((0, 300),)
    for each in (before, after):
        each.close(durable=False)


@pytest.mark.asyncio
async def test_a_disputed_account_lets_nothing_more_leave(log: Log):
    account = account_of(log, len(LARGE))
    assert account.stored is not None
    await account.allow_all(0, 3 * CHUNK_BYTES)
    waiting = asyncio.create_task(account.allow(3 * CHUNK_BYTES, 1))
    await asyncio.sleep(0)
    account.acknowledged(replace(account.stored, status="disputed"))
    with pytest.raises(Withdrawn) as caught:
        await waiting
    assert caught.value.code == "account-disputed"


@dataclass
class Lives:
    """One account over several lives of its process. `stored` is all that is left of it by a kill, `ever` all leaves that have left."""

    log: Log
    stored: Metered
    account: Account
    ever: Ranges = ()

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new process, over what is stored."""
        self.account = Account(self.account.permit, self.log, self.stored)
        self.account.note = self.note

    async def note(self) -> None:
        self.write(replace(self.stored, sent=self.account.reserve(self.stored)))

    def write(self, stored: Metered) -> None:
        self.stored = stored
        self.account.noted(stored.sent)

    async def ask(self, offset: int, length: int) -> int:
        """What leaves of a range, at once."""
        try:
            async with asyncio.timeout(0):
                allowed = await self.account.allow(offset, length)
        except TimeoutError:
            return 0
        self.ever = union(self.ever, (self.log.layout.touched(offset, allowed),))
        return allowed

    def sign(self, leaves: Ranges) -> None:
        """The consumer signs for these beside what it has signed for, and the receipt is stored as `Receipts` does."""
        held = union(self.stored.ranges, leaves)
        after = replace(self.stored, ranges=held, counts=Counts(self.log.layout.measure(held).bytes))
        self.write(replace(after, sent=self.account.reserve(after)))
        self.account.acknowledged(self.stored)


SIZE = len(LARGE)
STEPS = st.lists(
    st.tuples(st.just("ask"), st.integers(0, SIZE - 1), st.integers(1, SIZE))
    | st.tuples(st.just("sign"), st.sets(st.integers(1, 7)), st.booleans())
    | st.tuples(st.just("kill"), st.none(), st.none()),
    max_size=30,
)


@given(STEPS)
def test_however_often_it_is_killed_no_more_than_one_credit_is_ever_unsigned_and_nobody_is_locked_out(
    log: Log, steps: list[tuple[str, ...]]
):
    async def story() -> None:
        stored = account_of(log, SIZE).stored
        assert stored is not None
        lives = Lives(log, stored, account_of(log, SIZE))
        for what, one, other in steps:
            if what == "kill":
                lives.begin()
            elif what == "ask":
                await lives.ask(int(one), min(int(other), SIZE - int(one)))
            else:
                lives.sign(union((leaf, leaf + 1) for leaf in one if any(a <= int(leaf) < b for a, b in lives.ever)))  # type: ignore[misc]
            unsigned = log.layout.measure(without(lives.ever, lives.stored.ranges)).bytes
            assert unsigned <= CREDIT_BYTES
            assert unsigned <= lives.account.out_bytes <= CREDIT_BYTES
        for _ in range(2 * log.leaves):  # a consumer that fetches what it lacks, wherever that is let, and signs for it, gets all of it
            lacking = without(log.layout.whole, lives.stored.ranges)
            if not lacking:
                break
            got = [leaf for a, b in lacking for leaf in range(a, b) if await lives.ask(*log.layout.span(leaf, leaf + 1))]
            assert got
            lives.sign(union((leaf, leaf + 1) for leaf in got))
            if _ % 2:
                lives.begin()
        assert lives.stored.ranges == log.layout.whole

    asyncio.run(story())


@pytest.mark.asyncio
async def test_who_is_locked_out_by_what_others_have_lost_is_told_so_and_so_is_the_operator(log: Log, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accounting, "CREDIT_SECONDS", 0.01)
    under = Open()
    for pid in ("one", "two"):
        under.hold(pid, Held(CREDIT_BYTES))
        under.end(pid, 100.0)
    account = account_of(log, len(LARGE), under, frozenset({COUNTERSIGNED}))
    warnings = list[tuple[str, dict[str, object]]]()
    monkeypatch.setattr(telemetry.log, "warning", lambda event, **said: warnings.append((event, said)))
    with pytest.raises(Withdrawn, match=f"{2 * CREDIT_BYTES} bytes of it were not signed for") as caught:
        await account.allow(0, CHUNK_BYTES)
    assert caught.value.code == credit.EXHAUSTED
    assert warnings == [("credit locked", {"agreement": "urn:agreement", "bytes": 2 * CREDIT_BYTES})]
