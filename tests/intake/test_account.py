"""Receipts: stored before they are posted, posted until they are acknowledged, taken up after any loss on either side, never twice."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from connector import telemetry
from connector.adapters.egress import guard
from connector.adapters.memory import MemoryStore
from connector.adapters.peer_http import HttpPeer
from connector.errors import PeerFailed, PeerRefused, Unauthenticated
from connector.intake import account, patience, proven
from connector.intake.account import Account
from connector.intake.beside import PROBLEM
from connector.intake.promise import Broken
from connector.intake_accounts.earlier import durable
from connector.metering.objects import Ack, Manifest, Receipt, digest, kept
from connector.ports import Reply
from connector.records import Changes, Conflict, Expect
from connector.records.metering import Metered, Receipted
from connector.signatures import jws
from connector.values import replace
from tests.contracts.memory_sinks import MemorySink, MemorySinks
from tests.dataplane.rig import CONSUMER, PROVIDER, STRANGER, FakeIdentity, key_of, some_bytes
from tests.faults.patience import own_patience
from tests.intake.signed_provider import CHUNK, Consumer, SignedProvider, both, of_both

CONTENT = some_bytes(40 * CHUNK + 4321)
TIGHT = {"required": True, "window_bytes": 4 * CHUNK, "credit_windows": 2}  # many receipts

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.05)
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 0.05)
    monkeypatch.setattr(account, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(proven, "WINDOW_BYTES", 4 * CHUNK)


def at_receipt(number: int, told: Callable[[SignedProvider], web.Response | None]) -> Callable[..., web.Response | None]:
    """A lie in place of the ack of that receipt, each time it is asked for."""
    return lambda provider, _request: told(provider) if len(provider.receipts) == number else None


async def test_each_receipt_is_on_record_with_its_ack_and_evidence_of_both(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        await consumer.fetch()
        rows = await consumer.store.receipts(provider.pid)
        assert [row.sequence for row in rows] == list(range(1, len(provider.receipts) + 1))
        assert [kept(Ack, row.ack or "").receipt for row in rows] == [row.digest for row in rows]
        facts = await consumer.store.evidence_of(provider.pid)
        entries = [(fact.what, fact.entry) for fact in facts]
        expected: list[tuple[str, str | None]] = [(telemetry.MANIFEST_ACCEPTED, provider.token)]
        for row in rows:
            expected += [(telemetry.RECEIPT_SIGNED, row.receipt), (telemetry.RECEIPT_ACKNOWLEDGED, row.ack)]
        assert entries == expected
        assert all(fact.digest == digest(fact.entry or "") for fact in facts)


async def test_an_ack_that_whoever_states_the_end_has_put_on_record_is_there_once(tmp_path: Path):
    taken: list[Metered] = []

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        save = Account._save

        async def late(self: Account, account: Metered, *objects: tuple[str, str]) -> None:
            if self._unsaved and not taken:  # the ack is here, and somebody else is quicker to write it
                taken.append(replace(self._account, version=self._account.version + 1, updated=1.0))
                row = Receipted(taken[0].transfer, taken[0].sequence, digest(taken[0].receipt), taken[0].receipt, taken[0].ack, 1.0)
                facts = (self._fact(telemetry.RECEIPT_ACKNOWLEDGED, taken[0].ack, 1.0),)
                expects = (Expect(Metered, taken[0].transfer, self._account.version),)
                assert not isinstance(await consumer.store.commit(Changes(expects, (taken[0], row), evidence=facts)), Conflict)
            await save(self, account, *objects)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Account, "_save", late)
            await consumer.fetch()
        assert len(taken) == 1
        of_both(provider, await consumer.account())
        acks = [fact.entry for fact in await consumer.store.evidence_of(provider.pid) if fact.what == telemetry.RECEIPT_ACKNOWLEDGED]
        assert len(acks) == len(set(acks)) == len(provider.receipts)


async def test_an_account_that_somebody_else_has_changed_is_not_written_over(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (_provider, consumer):
        save = Account._save

        async def late(self: Account, account: Metered, *objects: tuple[str, str]) -> None:
            if account.sequence == 3 and account.status == "open" and (stored := await consumer.store.metered(account.transfer)):
                other = replace(stored, status="disputed", version=stored.version + 1)
                await consumer.store.commit(Changes((Expect(Metered, other.transfer, stored.version),), (other,)))
            await save(self, account, *objects)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Account, "_save", late)
            with pytest.raises(Broken, match="changed meanwhile") as caught:
                await consumer.fetch()
        assert caught.value.code == "account-changed"
        assert (await consumer.account()).status == "disputed"


@pytest.mark.parametrize("status", [503, 507])
async def test_an_ack_that_was_lost_comes_for_the_same_receipt_again(tmp_path: Path, status: int):
    lost = [True, True, True]

    def loses(_provider: SignedProvider) -> web.Response | None:
        return web.json_response({"type": f"{PROBLEM}sink-failed"}, status=status) if lost and lost.pop() else None

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(3, loses)
        await consumer.fetch()
        assert lost == []
        assert provider.asked["POST receipts"] == len(provider.receipts) + 3
        of_both(provider, await consumer.account())


async def test_an_order_whose_provider_cannot_write_ends_in_time_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(account, "PAUSE_SECONDS_MAX", 0.05)
    full = {"type": f"{PROBLEM}sink-failed"}
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(3, lambda _: web.json_response(full, status=507))
        with pytest.raises(PeerFailed, match=r"nothing came for 1 s: .* status 507, `sink-failed`: it cannot write .* its disk"):
            async with asyncio.timeout(20):
                await consumer.fetch(patience_seconds=1.0, idle_seconds=0.3)


async def test_acks_are_asked_for_again_after_longer_and_longer_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds in (2.0, 4.0, 8.0, 16.0, 30.0):
            pauses.append(seconds)
            seconds = 0
        await sleep(seconds)

    monkeypatch.setattr(account, "FIRST_PAUSE_SECONDS", 2.0)
    monkeypatch.setattr(asyncio, "sleep", noted)
    left = [None] * 6
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(3, lambda _: web.Response(status=503) if left and left.pop() is None else None)
        await consumer.fetch()
        assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize("over", [False, True], ids=["patience", "over"])
async def test_who_has_everything_waits_for_the_ack_of_a_provider_that_is_gone_as_long_as_for_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: bool
):
    monkeypatch.setattr(account, "PAUSE_SECONDS_MAX", 0.1)
    async with both(tmp_path, CONTENT, **TIGHT | {"credit_windows": 11}) as (provider, consumer):
        provider.lies["ack"] = at_receipt(2, lambda _: web.Response(status=503))
        provider.cuts = [30 * CHUNK + 9]  # the rest once the receipt is there whose ack never comes
        provider.lies[""] = lambda at, _: web.Response(status=503) if at.ranges and len(at.receipts) < 2 else None
        asking = consumer.downloads(patience_seconds=900.0 if over else 1.0).fetch(
            consumer.order(), consumer.edr(), **consumer.watcher.calls, over=lambda: over and len(provider.ranges) == 2
        )
        with pytest.raises(PeerFailed, match="transfer is over" if over else "nothing came for 1 s"):
            async with asyncio.timeout(10):
                await asking
        assert ((await consumer.account()).sequence, (await consumer.account()).ack) == (2, "")


async def test_an_order_whose_wrong_leaf_cannot_be_told_to_a_provider_that_is_gone_ends_with_a_reason_and_tells_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(account, "PAUSE_SECONDS_MAX", 0.05)
    async with both(tmp_path, CONTENT, **TIGHT | {"credit_windows": 11}) as (provider, consumer):
        provider.corrupt = {7: 1, 23: 1}
        provider.lies["ack"] = lambda at, _: web.Response(status=503) if at.receipts[-1].state == "rejected" else None
        with pytest.raises(PeerFailed, match=r"nothing came for 1 s: .* status 503.*; the part is kept"):
            async with asyncio.timeout(10):
                await consumer.fetch(patience_seconds=1.0)
        provider.lies.clear()
        await consumer.fetch()
        assert next(each.rejected.leaf for each in provider.receipts if each.rejected) == 7
        assert provider.account.counts.bytes == len(CONTENT)
        of_both(provider, await consumer.account())


FALSE: list[tuple[str, Callable[[Ack], dict[str, Any]]]] = [
    ("ack-receipt", lambda _: {"receipt": bytes(32)}),
    ("ack-manifest", lambda _: {"manifest": bytes(32)}),
    ("ack-credit", lambda ack: {"credit_bytes": ack.credit_bytes + 1}),
    ("ack-gap", lambda ack: {"sequence": ack.sequence + 1}),
    ("ack-ahead", lambda ack: {"issued": ack.issued + 1000}),  # for longer than a clock may be wrong
    ("ack-audience", lambda _: {"audience": STRANGER}),
]


@pytest.mark.parametrize(("code", "changed"), FALSE, ids=[code for code, _ in FALSE])
async def test_an_ack_that_does_not_hold_ends_the_download(tmp_path: Path, code: str, changed: Callable[[Ack], dict[str, Any]]):
    def false(provider: SignedProvider) -> web.Response:
        ack = replace(kept(Ack, provider.account.ack), **changed(kept(Ack, provider.account.ack)))
        return web.Response(text=jws.sign(ack.claims(), key_of(PROVIDER), Ack.TYP), content_type="application/jwt")

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(3, false)
        with pytest.raises(Broken, match="the provider's ack does not hold") as caught:
            await consumer.fetch()
        assert caught.value.code == code
        assert (await consumer.account()).ack == ""  # what was signed waits for an ack that holds
        del provider.lies["ack"]
        await consumer.fetch()
        of_both(provider, await consumer.account())


@pytest.mark.parametrize(("told", "code"), [(b"", "jws-parts"), ("é".encode(), "jws-parts"), (b"a.b.c", "jws-header")])
async def test_an_answer_that_is_no_ack_ends_it(tmp_path: Path, told: bytes, code: str):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(2, lambda _: web.Response(body=told))
        with pytest.raises(Broken) as caught:
            await consumer.fetch()
        assert caught.value.code == code


async def test_an_ack_of_somebody_else_is_none(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(
            2, lambda p: web.Response(text=jws.sign(kept(Ack, p.account.ack).claims(), key_of(STRANGER), Ack.TYP))
        )
        with pytest.raises(Broken) as caught:
            await consumer.fetch()
        assert caught.value.code == "jws-kid"


async def test_an_ack_that_is_late_is_waited_past(tmp_path: Path):
    earlier: list[str] = []

    def late(provider: SignedProvider) -> web.Response | None:
        return web.Response(text=earlier.pop()) if earlier else None

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):

        def lie(told: SignedProvider, _request: web.Request) -> web.Response | None:
            if len(told.receipts) == 2:
                earlier.append(told.account.ack)
            return late(told) if len(told.receipts) == 3 else None

        provider.lies["ack"] = lie
        await consumer.fetch()
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("body", [{"code": "bytes-differ"}, {"type": "urn:qiao:problem:bytes-differ"}])
async def test_a_receipt_that_is_refused_ends_it_with_the_code_of_the_refusal(tmp_path: Path, body: dict[str, str]):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(2, lambda _: web.Response(status=422, body=orjson.dumps(body)))
        with pytest.raises(Broken, match="the provider refused receipt 2: `bytes-differ`") as caught:
            await consumer.fetch()
        assert caught.value.code == "bytes-differ"


@pytest.mark.parametrize("code", ["account-credited", "account-stated"])
async def test_a_receipt_that_comes_too_late_is_a_refusal_whose_reason_may_be_on_its_way(tmp_path: Path, code: str):
    """The transfer is over there. Its order asks whether it is, and goes on by another one."""
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        late = orjson.dumps({"code": code})
        provider.lies["receipts"] = lambda _, request: web.Response(status=409, body=late) if request.method == "POST" else None
        with pytest.raises(PeerRefused) as caught:
            await consumer.fetch()
        assert caught.value.said == code


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_provider_that_takes_no_receipts_is_refused_by_its_status(tmp_path: Path, method: str):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies["receipts"] = lambda _, request: web.Response(status=404) if request.method == method else None
        with pytest.raises(PeerRefused, match="status 404"):
            await consumer.fetch()


HTML = {"text": "<html><title>404 Not Found</title></html>", "content_type": "text/html"}


@pytest.mark.parametrize("status", [400, 403, 404, 413])
@pytest.mark.parametrize("number", [0, 3])
async def test_a_stray_answer_to_a_receipt_ends_nothing(tmp_path: Path, status: int, number: int, monkeypatch: pytest.MonkeyPatch):
    """A proxy that restarts says anything, and not that the provider wants no receipt."""
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 30.0)
    stray = [status]

    def lie(told: SignedProvider, request: web.Request) -> web.Response | None:
        due = request.method == "POST" and len(told.receipts) == number and stray
        return web.Response(status=stray.pop(), **HTML) if due else None

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["receipts"] = lie
        await consumer.fetch()
        assert (stray, consumer.out.read_bytes()) == ([], CONTENT)
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("refusal", ["", "receipt-ahead", "time-ahead"])
async def test_a_clock_that_is_wrong_for_a_moment_ends_nothing(tmp_path: Path, refusal: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 30.0)
    left = [True]

    def wrong(provider: SignedProvider) -> web.Response | None:
        if not left or not left.pop():
            return None
        if refusal:
            return web.Response(status=422, body=orjson.dumps({"type": f"urn:qiao:problem:{refusal}"}))
        ack = kept(Ack, provider.account.ack)
        return web.Response(text=jws.sign(replace(ack, issued=ack.issued + 1000).claims(), key_of(PROVIDER), Ack.TYP))

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        provider.lies["ack"] = at_receipt(3, wrong)
        await consumer.fetch()
        assert left == []
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("seconds", [3000.0, -3000.0])
@pytest.mark.parametrize("side", ["here", "there", "both"])
async def test_a_clock_that_is_set_in_the_middle_ends_nothing_and_is_mended(
    tmp_path: Path, side: str, seconds: float, monkeypatch: pytest.MonkeyPatch
):
    """What the provider has dated that was ahead is taken once we have come so far; of ours nothing is."""
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 7200.0)

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        refusals = [0]

        def set_clocks(told: SignedProvider, _request: web.Request) -> None:
            if len(told.receipts) == 3 and not refusals[0]:
                for clock in [consumer.clock] * (side != "there") + [provider.clock] * (side != "here"):
                    clock.shift_seconds = seconds
            if side != "both" and told.asked["POST receipts"] > 2 + len(told.receipts):
                refusals[0] = told.asked["POST receipts"] - len(told.receipts)
                consumer.clock.shift_seconds = provider.clock.shift_seconds = max(0.0, seconds)

        provider.lies["receipts"] = provider.lies["ack"] = set_clocks
        await consumer.fetch(patience_seconds=30.0)
        assert consumer.out.read_bytes() == CONTENT
        of_both(provider, await consumer.account())
        assert side != "there" or seconds < 0 or refusals[0], "it was a hindrance"
        assert side != "here" or seconds < 0 or not refusals[0], "it was none"
        dates = [receipt.issued for receipt in provider.receipts]
        assert min(dates) >= provider.manifest.issued, "nothing is dated before its manifest: it would be refused for ever"


async def test_after_a_sleep_of_the_machine_receipts_and_acks_are_dated_by_what_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One that is dated before it would accuse whoever has shown all that he had in between."""
    slept, clock, plain = 1200.0, time.CLOCK_BOOTTIME, time.clock_gettime
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):

        def sleep(told: SignedProvider, _request: web.Request) -> None:
            if len(told.receipts) == 3 and not consumer.clock.shift_seconds:
                consumer.clock.shift_seconds = provider.clock.shift_seconds = slept
                monkeypatch.setattr(time, "clock_gettime", lambda which: plain(which) + slept * (which == clock))

        provider.lies["ack"] = sleep
        await consumer.fetch()
        since = [receipt.issued - provider.manifest.issued for receipt in provider.receipts]
        assert [seconds > slept / 2 for seconds in since] == [False] * 3 + [True] * (len(since) - 3)
        assert len(since) > 4


async def test_an_order_whose_clock_was_set_back_goes_on_by_the_manifest_that_it_has_accepted(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        await interrupted(provider, consumer)
        consumer.clock.shift_seconds = -3600.0
        await consumer.fetch()
        assert consumer.out.read_bytes() == CONTENT
        of_both(provider, await consumer.account())


async def test_whether_the_provider_remembers_receipts_no_stray_answer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever has lost its own would sign another first one, and contradict itself."""
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 30.0)
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        await interrupted(provider, consumer)
        consumer.store = MemoryStore()
        await consumer.know()
        stray = [404]
        provider.lies["receipts"] = lambda _, request: (
            web.Response(status=stray.pop(), **HTML) if stray and request.method == "GET" else None
        )
        await consumer.fetch()
        assert stray == []
        of_both(provider, await consumer.account())


async def interrupted(provider: SignedProvider, consumer: Consumer) -> None:
    """Fetch about half of it."""
    provider.cuts = [20 * CHUNK + 9, *[0] * 1000]
    with pytest.raises(PeerFailed, match="the part is kept"):
        await consumer.fetch(patience_seconds=0.2)
    provider.cuts = []


async def test_a_consumer_that_has_lost_its_memory_takes_it_up_from_the_provider(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        await interrupted(provider, consumer)
        before = len(provider.receipts)
        assert before > 2
        consumer.store = MemoryStore()
        await consumer.know()
        await consumer.fetch()
        assert [each.sequence for each in provider.receipts] == list(range(1, len(provider.receipts) + 1))
        assert provider.account.counts.bytes == len(CONTENT)
        of_both(provider, await consumer.account())
        record = [(each.what, each.digest) for each in await consumer.store.evidence_of(consumer.provider.pid)]
        back = await consumer.store.receipts(consumer.provider.pid, before, before + 1)
        known = [(row.digest, digest(row.ack)) for row in back if row.ack]
        assert known, "what came back is kept"
        assert record[1:3] == [("receipt-signed", known[0][0]), ("receipt-acknowledged", known[0][1])], "and is on record, with its ack"


class Later(FakeIdentity):
    """Our key of until now has ended, and the one by which the provider signed its manifest is known no more."""

    def keys(self, participant: str) -> list[jws.PublicKey]:
        found = super().keys(participant)
        return [replace(each, not_after=self.ends) for each in found] if participant == self.name else found

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        if typ == Manifest.TYP:
            raise Unauthenticated("the object's `kid` is not a key that its issuer is known to have", fault="key-unknown")
        return super().read(token, typ, issuer, at=at)

    ends = 0.0


async def test_keys_may_be_replaced_while_a_download_is_under_way(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        await interrupted(provider, consumer)
        consumer.identity = Later(CONSUMER)
        consumer.identity.ends = time.time()
        await consumer.fetch()
        assert provider.account.counts.bytes == len(CONTENT)
        of_both(provider, await consumer.account())


async def test_a_consumer_whose_memory_is_of_yesterday_goes_on_from_the_provider_s(tmp_path: Path):
    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        commits: list[Changes] = []
        commit = consumer.store.commit

        async def noted(changes: Changes) -> Any:
            commits.append(changes)
            return await commit(changes)

        consumer.store.commit = noted  # type: ignore[method-assign]
        await interrupted(provider, consumer)
        old = MemoryStore()  # as a backup had it that was made after two receipts
        consumer.store = old
        await consumer.know()
        for changes in commits:  # an ack has a commit of its own, where nothing followed it for a second
            if any(isinstance(each, Metered) and each.sequence > 2 for each in changes.saves):
                break
            await old.commit(changes)
        assert (await consumer.account()).sequence == 2
        await consumer.fetch()
        assert provider.account.counts.bytes == len(CONTENT)
        of_both(provider, await consumer.account())


@pytest.mark.parametrize("posted", [False, True])
async def test_a_crash_after_a_receipt_was_stored_sends_the_same_one_again(tmp_path: Path, posted: bool):
    """Whether the provider has got it before or not."""

    class Gone(Exception):
        """The process ends here."""

    async with both(tmp_path, CONTENT, **TIGHT) as (provider, consumer):
        commit, seen = consumer.store.commit, 0

        async def dies(changes: Changes) -> Any:
            nonlocal seen
            whats = [fact.what for fact in changes.evidence]
            seen += telemetry.RECEIPT_SIGNED in whats
            if posted and seen == 4:  # the ack of the third is on record with the fourth
                raise Gone
            result = await commit(changes)
            if not posted and seen == 3:
                raise Gone
            return result

        consumer.store.commit = dies  # type: ignore[method-assign]
        with pytest.raises(Gone):
            await consumer.fetch()
        consumer.store.commit = commit  # type: ignore[method-assign]
        waiting = await consumer.account()
        assert (waiting.sequence, waiting.ack, len(provider.receipts)) == (3, "", 3 if posted else 2)
        await consumer.fetch()
        assert kept(Receipt, waiting.receipt) in provider.receipts
        assert [each.sequence for each in provider.receipts] == list(range(1, len(provider.receipts) + 1))
        of_both(provider, await consumer.account())


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (b"[]", "receipts-malformed"),
        (b"no JSON", "receipts-malformed"),
        (b'{"receipt": "a.b.c", "ack": "a.b.c"}', "jws-header"),
    ],
)
async def test_a_memory_that_makes_no_sense_is_not_taken(tmp_path: Path, told: bytes, code: str):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies["receipts"] = lambda _, request: web.Response(body=told) if request.method == "GET" else None
        with pytest.raises(Broken) as caught:
            await consumer.fetch()
        assert caught.value.code == code


async def test_another_manifest_for_the_same_transfer_is_refused(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await interrupted(provider, consumer)
        stored = await consumer.account()
        provider.manifest_changes = {"snapshot": "s2"}
        provider.begin()
        await consumer.store.commit(Changes((), (replace(stored, manifest=provider.token, version=stored.version + 1),)))
        with pytest.raises(Broken) as caught:
            await consumer.fetch()
        assert caught.value.code in ("receipt-manifest", "manifest-changed", "sequence-gap")


async def test_only_what_was_synced_is_said_to_outlive_a_loss_of_power(tmp_path: Path):
    for after in ("fsync", "write"):
        (tmp_path / after).mkdir()
        async with both(tmp_path / after, CONTENT, after=after) as (_, consumer):
            await consumer.fetch()
            assert durable(await consumer.account()) is (after == "fsync")
            assert not durable(replace(await consumer.account(), receipt=""))


class Gate(MemorySinks):
    """Its parts let all but two windows in only once a receipt for them is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.posted, self.synced = asyncio.Event(), asyncio.Event()

    async def open(self, out: str, part: str, *, overwrite: bool) -> "Gated":
        await super().open(out, part, overwrite=overwrite)
        return Gated(self, out, part, overwrite)


class Gated(MemorySink):
    def __init__(self, gate: Gate, out: str, part: str, overwrite: bool) -> None:
        super().__init__(gate, out, part, overwrite)
        self._gate = gate

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        if offset >= 8 * CHUNK:
            await self._gate.posted.wait()
        await super().write(offset, piece)

    async def sync(self) -> None:
        if self._gate.posted.is_set():
            self._gate.synced.set()
        await super().sync()


class Slow(HttpPeer):
    """Receipt 2, the first that covers anything, is under way until the disk has been given more."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(guard(["127.0.0.0/8"], http=True, ports=[]))
        self._gate, self._posts = gate, 0

    async def send(self, method: str, url: str, **rest: Any) -> Reply:
        self._posts += method == "POST"
        if method == "POST" and self._posts == 2:
            self._gate.posted.set()
            await asyncio.wait_for(self._gate.synced.wait(), 10)
        return await super().send(method, url, **rest)


async def test_the_disk_is_given_the_next_window_while_a_receipt_is_under_way(tmp_path: Path):
    gate = Gate()
    async with both(tmp_path, CONTENT, sinks=gate, required=True, window_bytes=4 * CHUNK, credit_windows=4) as (provider, consumer):
        await consumer.peer.close()
        consumer.peer = Slow(gate)
        await consumer.fetch()
        assert gate.synced.is_set()
        of_both(provider, await consumer.account())


async def test_who_waits_for_less_than_half_of_the_credit_has_a_receipt_for_each_window_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some of it is lost, or a live source keeps less: no receipt is due by half of it there, and each of eight had come after a while."""
    monkeypatch.setattr(account, "QUIET_SECONDS", 1.0)
    async with both(tmp_path, CONTENT, lost_bytes=11 * CHUNK, required=True) as (provider, consumer):
        async with own_patience(4.0):
            await consumer.fetch()
        assert provider.account.counts.bytes == len(CONTENT)


async def test_the_newest_checkpoint_of_our_ledger_goes_along(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        downloads = consumer.downloads()
        assert downloads.metering is not None

        async def newest() -> str:
            return "bio.example/ledger\n1\nAAAA\n\n"

        downloads.metering.means = replace(downloads.metering.means, ledger=newest)
        consumer.downloads = lambda **_: downloads  # type: ignore[method-assign]
        await consumer.fetch()
        assert {each.ledger for each in provider.receipts} == {"bio.example/ledger\n1\nAAAA\n\n"}
