"""At the end of a transfer, and for a period, both sides sign what it came to; what contradicts itself is said on both."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control_billing import statements, stating
from connector.control_billing.statements import Means
from connector.control_billing.stating import Stating
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, MeterRefused, NotFound, PeerFailed, StoreError
from connector.intake.account import Account
from connector.metering.content import CHUNK_BYTES
from connector.metering.counts import Counts
from connector.metering.objects import Receipt, digest, kept
from connector.metering.statements import Statement
from connector.odrl.operands import BYTE_COUNT
from connector.ports import Reply
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered
from connector.values import replace
from tests import pair
from tests.dataplane.rig import Counted, FakeIdentity, ShiftedClock, some_bytes
from tests.metering import rig
from tests.metering_bills.priced import price
from tests.test_app import pulled

CONTENT = some_bytes(700_000)
DATASET = "urn:test:stated"
PRICED = {"@type": "Offer", "permission": [{"action": "use", "duty": [price("0.5", "megabyte")]}]}
SAID = ("statement-agreed", "statement-disputed")

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stating, "FIRST_PAUSE_SECONDS", 0.01)


async def fact(at: pair.Running, pid: str, *whats: str) -> Evidence:
    """The newest fact of these kinds, once there is one."""
    news = asyncio.Event()
    at.connector.journal.listen(lambda _changes, _evidence: news.set())
    async with asyncio.timeout(pair.WAIT_SECONDS):
        while not (found := [each for each in await at.evidence(pid) if each.what in whats]):
            await news.wait()
            news.clear()
    return found[-1]


async def fetched(both: pair.Pair) -> tuple[str, str, str]:
    """Our pid, the provider's, and the agreement of a transfer by which the data came."""
    await both.provider.publish(DATASET, PRICED, content=CONTENT)
    order = await pulled(both.consumer, "hospital", DATASET)
    assert (order["stage"], order["sha256"]) == ("done", hashlib.sha256(CONTENT).hexdigest()), order
    transfer = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
    assert transfer is not None
    return transfer.pid, transfer.peer_pid or "", transfer.agreement or ""


async def stored(at: pair.Running, pid: str) -> Metered:
    found = await at.connector.store.metered(pid)
    assert found is not None
    return found


async def falsify(at: pair.Running, pid: str, **changed: Any) -> None:
    before = await stored(at, pid)
    after = replace(before, version=before.version + 1, **changed)
    assert isinstance(await at.connector.store.commit(Changes((Expect(Metered, pid, before.version),), (after,))), tuple)


async def test_both_sides_sign_the_same_at_the_end_and_have_both_on_record(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, agreement = await fetched(both)
        mine, other = await fact(both.consumer, ours, *SAID), await fact(both.provider, theirs, *SAID)
        assert (mine.what, other.what) == ("statement-agreed", "statement-agreed")
        signed = await fact(both.consumer, ours, "statement-signed")
        assert signed.entry == other.entry
        assert (await fact(both.provider, theirs, "statement-signed")).entry == mine.entry
        here, there = kept(Statement, signed.entry or ""), kept(Statement, mine.entry or "")
        assert (here.issuer, here.audience) == (there.audience, there.issuer)
        assert (here.flows, here.totals.bytes) == (there.flows, len(CONTENT))
        assert here.flows[0].receipt == digest((await stored(both.consumer, ours)).receipt)
        for at in (both.consumer, both.provider):
            said = await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/usage")
            assert said["disputed"] == []


async def test_clocks_that_are_set_back_before_the_end_make_no_dispute_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The transfer ends an hour before its manifest was signed, as far as anybody can tell."""
    clock = ShiftedClock()
    monkeypatch.setattr("connector.app.SystemClock", lambda: clock)

    def set_back(_changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        if any(each.what == telemetry.MANIFEST_ACCEPTED for each in evidence):
            clock.shift_seconds = -3600.0

    async with pair.pair(tmp_path, store="sqlite") as both:
        both.consumer.connector.journal.listen(set_back)
        ours, theirs, _ = await fetched(both)
        assert clock.shift_seconds == -3600.0
        for at, pid in ((both.consumer, ours), (both.provider, theirs)):
            said = await fact(at, pid, *SAID)
            assert (said.what, said.detail.get("code")) == ("statement-agreed", None)
            assert (await stored(at, pid)).status == "complete"


async def test_time_that_only_the_provider_has_counted_is_said_on_both_sides_and_disputes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stating, "SETTLED_SECONDS", -2)
    monkeypatch.setattr("connector.dataplane.receipts.own_counts", lambda *_: Counts(calls=1, microseconds=3_600_000_000))
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, agreement = await fetched(both)
        for at, pid in ((both.consumer, ours), (both.provider, theirs)):
            said = await fact(at, pid, *SAID)
            assert (said.what, said.detail["code"]) == ("statement-agreed", "statement-time")
            assert (await stored(at, pid)).status == "complete"
        for one in (both.consumer, both.provider):
            told = await one.asked("POST", f"/agreements/{pair.quoted(agreement)}/statement")
            assert (told["outcome"], told["code"]) == ("agreed", "statement-time")


LIES: dict[str, Callable[[Metered], dict[str, Any]]] = {
    "other counts": lambda m: {"counts": replace(m.counts, bytes=m.counts.bytes - 1)},
    "no receipt": lambda m: {"receipt": "", "ack": "", "sequence": 0},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_contradiction_is_disputed_on_both_sides_and_said_in_usage_and_invoice(
    tmp_path: Path, lie: Callable[[Metered], dict[str, Any]]
):
    async with pair.pair(tmp_path, store="sqlite") as both:
        stated = both.provider.connector.states.receipts
        false = stated.state

        async def state(transfer: str) -> None:
            await falsify(both.provider, transfer, **lie(await stored(both.provider, transfer)))
            await false(transfer)

        stated.state = state  # type: ignore[method-assign]
        ours, theirs, agreement = await fetched(both)
        mine, other = await fact(both.consumer, ours, *SAID), await fact(both.provider, theirs, *SAID)
        assert (mine.what, mine.detail["code"]) == ("statement-disputed", "statement-differs")
        assert (other.what, other.detail["code"]) == ("statement-disputed", "statement-differs")
        for at, pid in ((both.consumer, ours), (both.provider, theirs)):
            assert (await stored(at, pid)).status == "disputed"
            said = await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/usage")
            assert (said["disputed"], said["transfers"][0]["status"]) == ([theirs], "disputed")
        said = await both.consumer.asked("GET", f"/agreements/{pair.quoted(agreement)}/invoice")
        assert said["disputed"] == [theirs]


async def test_the_last_ack_that_a_crash_has_kept_from_us_comes_with_the_statement(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        held = asyncio.Event()
        begin = both.consumer.connector.states.stating.settle

        async def settle(pid: str) -> None:
            await held.wait()
            await begin(pid)

        both.consumer.connector.states.stating.settle = settle  # type: ignore[method-assign]
        ours, theirs, _ = await fetched(both)
        whole = await stored(both.consumer, ours)
        rows = await both.consumer.connector.store.receipts(ours)
        await both.consumer.connector.store.commit(Changes(saves=(replace(rows[-1], ack=None),)))
        await falsify(both.consumer, ours, ack="")
        held.set()
        assert (await fact(both.consumer, ours, *SAID)).what == "statement-agreed"
        assert (await stored(both.consumer, ours)).ack == whole.ack == (await stored(both.provider, theirs)).ack
        assert (await both.consumer.connector.store.receipts(ours))[-1].ack == whole.ack


async def lost(both: pair.Pair, *, there: bool) -> tuple[str, str, Metered]:
    """A transfer that is over and not stated, whose last receipt has no ack with us; the provider has it, or the one before. Our pid, the
    provider's, and our account as it was."""
    states, held = both.consumer.connector.states, asyncio.Event()
    begin = states.stating.settle

    async def settle(pid: str) -> None:
        await held.wait()
        await begin(pid)

    states.stating.settle = settle  # type: ignore[method-assign]
    ours, theirs, _ = await fetched(both)
    states.stating.settle = begin  # type: ignore[method-assign]
    await states.stating.close()
    for at, pid in ((both.consumer, ours), (both.provider, theirs)):
        rows, known = await at.connector.store.receipts(pid), await stored(at, pid)
        if at is both.consumer:
            whole = known
            await at.connector.store.commit(Changes(saves=(replace(rows[-1], ack=None),)))
            await falsify(at, pid, ack="")
        elif not there:
            before = kept(Receipt, rows[-2].receipt) if len(rows) > 1 else None
            now = {"ranges": before.ranges, "counts": before.counts} if before else {"ranges": (), "counts": Counts()}
            last = {"receipt": rows[-2].receipt, "ack": rows[-2].ack} if before else {"receipt": "", "ack": ""}
            await at.connector.store.commit(Changes(saves=(replace(rows[-1], ack=None),)))
            await falsify(at, pid, sequence=len(rows) - 1, status="open", **now, **last)
    return ours, theirs, whole


async def test_a_provider_has_the_last_receipt_if_it_has_signed_so_whatever_else_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It denies the receipt in what it has not signed: what the receipt covers must not be signed for a second time."""
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, whole = await lost(both, there=True)
        stating, shown = both.consumer.connector.states.stating, both.provider.connector.states.statements.shown

        async def denies(caller: str, transfer: str) -> Any:
            return {**await shown(caller, transfer), "receipt": None, "ack": None}

        both.provider.connector.states.statements.shown = denies  # type: ignore[method-assign]
        assert await stating.heard(ours)
        assert (await stored(both.consumer, ours)).ack == ""
        with pytest.raises(PeerFailed, match="has signed that it has our last receipt, and has not acknowledged it"):
            await stating.settle(ours)  # who bills has an ack: it is asked for until it is there
        both.provider.connector.states.statements.shown = shown  # type: ignore[method-assign]
        assert await asyncio.gather(stating.heard(ours), stating.heard(ours)) == [True, True]
        assert (await stored(both.consumer, ours)).ack == whole.ack == (await stored(both.provider, theirs)).ack
        assert not await stating.heard("urn:test:never-heard-of")


async def test_a_receipt_that_a_crash_has_left_without_its_ack_has_it_with_the_statement(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, _ = await lost(both, there=True)
        await falsify(both.provider, theirs, ack="")
        rows = await both.provider.connector.store.receipts(theirs)
        await both.provider.connector.store.commit(Changes(saves=(replace(rows[-1], ack=""),)))
        assert await both.consumer.connector.states.stating.heard(ours)
        ack = (await stored(both.consumer, ours)).ack
        assert ack
        assert ack == (await stored(both.provider, theirs)).ack == (await both.provider.connector.store.receipts(theirs))[-1].ack


async def test_a_receipt_that_a_crash_has_kept_from_the_provider_is_posted_after_the_end(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, whole = await lost(both, there=False)
        await falsify(both.provider, theirs, sent=((0, len(CONTENT)),))
        agreement = (await stored(both.provider, theirs)).agreement
        stating = both.consumer.connector.states.stating
        assert await asyncio.gather(stating.heard(ours), stating.heard(ours)) == [True, True]
        mine, other = await stored(both.consumer, ours), await stored(both.provider, theirs)
        assert (mine.receipt, mine.counts) == (whole.receipt, whole.counts) == (other.receipt, other.counts)
        assert mine.ack == other.ack != ""
        assert other.sent == (), "nothing is lost"
        await stating.settle(ours)
        assert {(await fact(at, pid, *SAID)).what for at, pid in ((both.consumer, ours), (both.provider, theirs))} == {"statement-agreed"}
        bills = [
            await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/invoice?to=2040-01-01") for at in (both.provider, both.consumer)
        ]
        assert bills[0]["digest"] == bills[1]["digest"]
        assert bills[0]["counts"]["bytes"] == len(CONTENT)


async def test_a_receipt_that_the_provider_has_signed_not_to_have_counts_no_more_on_either_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What it covers is signed for under another transfer: an ack that comes after all would have it paid for twice."""
    monkeypatch.setattr(statements, "LATE_SECONDS", -60.0)
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, whole = await lost(both, there=False)
        stating, receipts = both.consumer.connector.states.stating, both.provider.connector.states.receipts
        assert await asyncio.gather(stating.heard(ours), stating.heard(ours)) == [False, False]
        said = [each for each in await both.consumer.evidence(ours) if each.what in SAID]
        assert [each.what for each in said] == ["statement-agreed"], "both have signed the transfer without it"
        late = await receipts.take(theirs, whole.receipt, "revoked")
        assert (late.outcome, late.code) == ("refused", "account-stated")

        async def shown(caller: str, transfer: str) -> Any:  # it has it after all, it says
            return {"receipt": whole.receipt, "ack": whole.ack, "statement": said[0].entry}

        both.provider.connector.states.statements.shown = shown  # type: ignore[method-assign]
        assert not await stating.heard(ours)
        await stating.settle(ours)
        assert (await stored(both.consumer, ours)).ack == ""
        agreement = pair.quoted((await stored(both.consumer, ours)).agreement)
        one, other = [await at.asked("GET", f"/agreements/{agreement}/invoice?to=2040-01-01") for at in (both.provider, both.consumer)]
        assert one["digest"] == other["digest"]
        assert one["counts"]["bytes"] < len(CONTENT)


async def test_what_keeps_a_receipt_from_the_provider_keeps_the_statement_for_as_long_as_it_would_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, _ = await lost(both, there=False)
        at = both.consumer.connector.states.stating
        send = at._peer.send

        async def through(method: str, url: str, **more: Any) -> Reply:
            return Reply(403, {}, b"<html>no way</html>") if url.endswith("/receipt") else await send(method, url, **more)

        monkeypatch.setattr(at._peer, "send", through)
        with pytest.raises(PeerFailed, match="403"):
            await at.settle(ours)
        monkeypatch.setattr(stating, "LATE_SECONDS", -60.0)
        await at.settle(ours)
        assert {(await fact(each, pid, *SAID)).what for each, pid in ((both.consumer, ours), (both.provider, theirs))} == {
            "statement-agreed"
        }


CRASHES = ("statement-signed", "statement-agreed")


@pytest.mark.parametrize("at", CRASHES)
async def test_a_crash_on_the_way_is_made_good_at_the_next_start_by_the_same_statement(tmp_path: Path, at: str):
    async with pair.pair(tmp_path, store="sqlite") as both:
        broken = asyncio.Event()

        async def crash(changes: Changes) -> Any:
            if any(each.what == at for each in changes.evidence):
                broken.set()
                await asyncio.Event().wait()  # for ever: the process ends here
            store = both.consumer.connector.store
            return await type(store).commit(store, changes)  # type: ignore[arg-type]

        with both.consumer.commits(crash):
            ours, theirs, _ = await fetched(both)
            async with asyncio.timeout(pair.WAIT_SECONDS):
                await broken.wait()
            await both.consumer.connector.states.stating.close()
        before = [each.entry for each in await both.consumer.evidence(ours) if each.what == "statement-signed"]
        site = both.consumer.site
        await both.consumer.connector.close()
        async with pair.running(site) as again:
            assert (await fact(again, ours, *SAID)).what == "statement-agreed"
            signed = [each.entry for each in await again.evidence(ours) if each.what == "statement-signed"]
            assert len(signed) == 1
            assert before in ([], signed)
            heard = [each for each in await both.provider.evidence(theirs) if each.what in SAID]
            assert [each.entry for each in heard] == signed


REFUSALS = {
    "it takes no statement of ours": MeterRefused("the statement is for a period of which we have signed none", "statement-agreement"),
    "it knows of no such transfer": NotFound("there is no account of a transfer with you"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_what_a_provider_refuses_is_tried_again_until_its_time_is_over_and_then_said_to_a_person(
    refusal: ConnectorError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    errors: list[dict[str, Any]] = []
    monkeypatch.setattr(telemetry.log, "error", lambda event, **said: errors.append({"event": event} | said))
    async with pair.pair(tmp_path, store="sqlite") as both:
        stating_, asked, began = both.consumer.connector.states.stating, 0, asyncio.Event()

        async def refuses(*_: Any) -> Any:
            nonlocal asked
            asked += 1
            began.set()
            if asked == 3:
                monkeypatch.setattr(stating, "SINCE_SECONDS", -1.0)
            raise refusal

        both.provider.connector.states.statements.hear = refuses  # type: ignore[method-assign]
        both.provider.connector.states.statements.shown = (
            refuses if isinstance(refusal, NotFound) else both.provider.connector.states.statements.shown
        )  # type: ignore[method-assign]
        ours, theirs, agreement = await fetched(both)
        async with asyncio.timeout(pair.WAIT_SECONDS):
            await began.wait()
            await asyncio.gather(*stating_._tasks.values())
        assert asked == 3
        (said,) = errors
        assert (said["event"], said["transfer"]) == ("a transfer stays without a statement", ours)
        assert "both sides bill by what was acknowledged" in said["remedy"]
        assert not {each.what for each in await both.consumer.evidence(ours)} & {*SAID}
        bills = [await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/invoice") for at in (both.provider, both.consumer)]
        assert bills[0]["digest"] == bills[1]["digest"]
        assert theirs


async def test_for_a_period_both_sides_sign_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stating, "SETTLED_SECONDS", -2)
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, agreement = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        for one, other in ((both.consumer, both.provider), (both.provider, both.consumer)):
            said = await one.asked("POST", f"/agreements/{pair.quoted(agreement)}/statement")
            assert (said["outcome"], said["code"], said["totals"]["bytes"]) == ("agreed", None, len(CONTENT))
            assert [flow["transfer"] for flow in said["flows"]] == [theirs]
            mine, answer = kept(Statement, said["own"]), kept(Statement, said["theirs"])
            assert (mine.flows, mine.begins, mine.ends) == (answer.flows, answer.begins, answer.ends)
            for at, own, heard in ((one, "own", "theirs"), (other, "theirs", "own")):
                on_record = {(each.what, each.entry) for each in await at.evidence(agreement)}
                assert {("statement-signed", said[own]), ("statement-agreed", said[heard])} <= on_record
        said = await both.consumer.asked("POST", f"/agreements/{pair.quoted(agreement)}/statement?from=2026-01-01&to=2026-01-02")
        assert (said["outcome"], said["flows"], said["totals"]["bytes"]) == ("agreed", [], 0)


async def test_a_period_that_contradicts_disputes_the_account_and_one_that_is_behind_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stating, "SETTLED_SECONDS", -2)
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, agreement = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        rows = await both.provider.connector.store.receipts(theirs)
        path = f"/agreements/{pair.quoted(agreement)}/statement"
        account = await stored(both.provider, theirs)
        behind = replace(account, ack="", version=account.version + 1)  # it has not heard of the last one
        await both.provider.connector.store.commit(Changes(saves=(behind, replace(rows[-1], ack=None))))
        said = await both.consumer.asked("POST", path)
        assert (said["outcome"], said["code"]) == ("disputed", "statement-differs" if len(rows) > 1 else "statement-flow")
        assert (await stored(both.consumer, ours)).status == (await stored(both.provider, theirs)).status == "complete"
        await both.provider.connector.store.commit(Changes(saves=(replace(rows[-1], digest=b"x" * 32),)))
        said = await both.consumer.asked("POST", path)
        assert (said["outcome"], said["code"]) == ("disputed", "statement-differs")
        assert (await stored(both.consumer, ours)).status == (await stored(both.provider, theirs)).status == "disputed"


@pytest.mark.parametrize("body", [b"<html>", b'{"message":"no upstream"}', b"[]", b'"busy"', b"502", b"null"])
async def test_what_a_proxy_says_in_its_own_words_is_asked_again_and_no_defect(body: bytes):
    """A defect would end the attempts: the transfer stayed without a statement until the next start."""
    error = stating.Stating.failed(f"https://hospital.example{stating.PATH}/urn:t", Reply(502, {}, body))
    assert (type(error), error.message) == (PeerFailed, "the other side answered a statement with status 502")
    if body == b"<html>":
        with pytest.raises(PeerFailed, match="cannot be read"):
            stating._disputed(Reply(200, {}, body))
    else:
        assert not stating._disputed(Reply(200, {}, body))


async def test_a_peer_that_does_not_take_who_we_are_is_told_from_one_that_states_nothing(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        _, _, agreement = await fetched(both)
        (both.provider.site.settings.registry.directory / "biopharma.jsonld").unlink()
        await both.provider.asked("POST", "/reload")
        path = f"/agreements/{pair.quoted(agreement)}/statement?from=2020-01-01&to=2020-01-02"
        refused = await both.consumer.manage("POST", path)
        assert refused.status == 502
        assert "with status 401, `unauthenticated`: it does not take who we are; if our key or address is new" in refused.json["detail"]


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("?form=2026-01-01", 400, "a statement takes `from`, `to`"),
        ("?from=2026-01-02&to=2026-01-01", 400, "ends before it begins"),
        ("?to=2999-01-01", 400, "the period is not over"),
    ],
)
async def test_a_period_that_is_none_is_said(tmp_path: Path, query: str, status: int, reason: str):
    async with pair.pair(tmp_path) as both:
        _, _, agreement = await fetched(both)
        answer = await both.consumer.manage("POST", f"/agreements/{pair.quoted(agreement)}/statement{query}")
        assert (answer.status, reason in answer.body.decode()) == (status, True), answer.body
        assert await both.consumer.evidence(agreement) == []


async def test_what_nobody_has_signed_is_compared_with_nobody(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        ours, theirs, _ = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        alone = replace(await stored(both.consumer, ours), transfer="urn:alone", sequence=0, receipt="", ack="", counts=Counts(), version=1)
        await both.consumer.connector.store.commit(Changes(saves=(alone,)))
        await both.consumer.connector.states.stating.settle("urn:alone")
        assert await both.consumer.evidence("urn:alone") == []
        assert (await stored(both.provider, theirs)).role is Role.PROVIDER


async def test_nothing_is_stated_while_what_came_before_the_end_is_still_being_signed_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A transfer that the provider ends in the middle: the last receipt and the statement do not get into each other's way."""
    receipted, go = asyncio.Event(), asyncio.Event()
    last = Account.last

    async def slowly(self: Account, reason: str | None = None) -> None:
        receipted.set()
        await go.wait()
        await last(self, reason)

    monkeypatch.setattr(Account, "last", slowly)
    most = {"leftOperand": BYTE_COUNT, "operator": "lteq", "rightOperand": {"@value": "1500000", "@type": "xsd:integer"}}
    quota = {"action": "use", "duty": [price("1", "megabyte")], "constraint": [most]}
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, {"@type": "Offer", "permission": [quota]}, content=some_bytes(3_000_000))
        order = asyncio.create_task(pulled(both.consumer, "hospital", DATASET))
        await asyncio.wait_for(receipted.wait(), pair.WAIT_SECONDS)
        (process,) = (await both.consumer.connector.store.processes(Kind.TRANSFER, after=None, limit=9, state=None, peer=None)).items
        theirs = process.peer_pid or ""
        await both.provider.state(Kind.TRANSFER, theirs, "TERMINATED")
        await both.consumer.state(Kind.TRANSFER, process.pid, "TERMINATED")
        put_off = await fact(both.provider, theirs, "statement-signed")
        assert kept(Statement, put_off.entry or "").totals.bytes < 1_250_000
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert not {each.what for each in await both.consumer.evidence(process.pid)} & {"statement-signed", *SAID}
        go.set()
        assert (await order)["stage"] == "failed"
        mine = await fact(both.consumer, process.pid, *SAID)
        assert mine.what == "statement-agreed"
        assert kept(Statement, mine.entry or "").totals.bytes == 1_500_000 // CHUNK_BYTES * CHUNK_BYTES


@pytest.mark.parametrize(
    ("changed", "ago", "waits"),
    [
        ({}, 1.0, True),
        ({"status": "complete"}, 1.0, False),
        ({"agreement": "urn:other"}, 1.0, False),
        ({"sequence": 0}, 1.0, False),
        ({}, stating.AWAITED_SECONDS + 1.0, False),
    ],
    ids=["left off", "all signed for", "of another agreement", "never signed", "long ago"],
)
async def test_a_transfer_that_begins_waits_for_what_has_just_ended_and_may_give_money_back(
    changed: dict[str, Any], ago: float, waits: bool
):
    store, clock, stated = MemoryStore(), ShiftedClock(), asyncio.Event()

    class Slow(Stating):
        async def settle(self, pid: str) -> None:
            await stated.wait()

    means = Means(store, Journal(store, clock).decide, FakeIdentity(rig.CONSUMER), clock, Counted(), cast(Any, None))
    slow = Slow(means, cast(Any, None), cast(Any, None), 1.0)
    ended = Process(Kind.TRANSFER, "t1", Role.CONSUMER, rig.PROVIDER, "https://p", "TERMINATED", "t", version=1, updated=clock.now() - ago)
    account = replace(rig.account(Role.CONSUMER), transfer="t1", agreement="urn:a", sequence=1, version=1)
    await store.commit(Changes(saves=(ended, replace(account, **changed))))
    slow.committed(Changes(saves=(ended,)), ())
    begins = asyncio.create_task(slow.stated("urn:a"))
    assert bool((await asyncio.wait({begins}, timeout=0.05))[1]) == waits
    stated.set()
    await begins
    await slow.close()


async def test_where_the_store_cannot_be_read_for_a_moment_a_statement_is_put_off_and_not_given_up(monkeypatch: pytest.MonkeyPatch):
    tries = list[str]()

    class Store(MemoryStore):
        async def process(self, kind: Kind, pid: str) -> Process | None:
            if len(tries) == 1:
                raise StoreError("the store cannot be read: disk I/O error")
            return await super().process(kind, pid)

    async def settle(pid: str) -> None:
        tries.append(pid)
        await means.store.process(Kind.TRANSFER, pid)

    means: Any = SimpleNamespace(store=Store(), clock=ShiftedClock())
    stating = Stating(means, cast(Any, None), cast(Any, None), 0.001)
    monkeypatch.setattr(stating, "settle", settle)
    await stating._settled("urn:t")
    assert tries == ["urn:t"] * 2
