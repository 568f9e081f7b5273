"""An agreement that one side closes, or both at once, ends at one instant on both sides, and both make the same invoice of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.keys import generate, retire
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control_billing.closed import closed_of
from connector.control_billing.closings import Closings, Heard
from connector.control_billing.statements import Means
from connector.dsp.messages import Kind
from connector.errors import MeterRefused, PeerFailed, PeerRefused, StoreError, TooMany, Unauthenticated
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.metering.closing import LATE_SECONDS, Closing, ClosingAck, instant_of
from connector.metering.codes import CODES
from connector.metering.content import write_bytes
from connector.metering.objects import digest, kept
from connector.metering_bills.invoice import Closed
from connector.ports import Reply
from connector.records import Agreement, Changes, Evidence
from connector.signatures import jws
from connector.values import replace
from tests import pair
from tests.control_billing.test_stating import fact, quick
from tests.dataplane.rig import Counted, FakeIdentity
from tests.metering.rig import CONSUMER, PROVIDER
from tests.metering_bills.priced import every, price
from tests.test_app import pulled

__all__ = ["quick"]
DAY = 86_400
DATASET = "urn:test:daily"
SUBSCRIBED = {"@type": "Offer", "permission": [{"action": "use", "duty": [price("9.99", "subscription", every("P1D"))]}]}
SAID = ("closing-signed", "closing-taken", "closing-answered", "closing-refused", "closing-told")


async def subscribed(both: pair.Pair) -> str:
    """An agreement with a price for each day, under which data have come."""
    await both.provider.publish(DATASET, SUBSCRIBED, content=b"1\n2\n")
    order = await pulled(both.consumer, "hospital", DATASET)
    assert order["stage"] == "done", order
    transfer = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
    assert transfer is not None
    await both.provider.state(Kind.TRANSFER, transfer.peer_pid or "", "COMPLETED")
    return transfer.agreement or ""


async def close(at: pair.Running, agreement: str, reason: str = "the study is over") -> dict[str, Any]:
    return dict(await at.asked("POST", f"/agreements/{pair.quoted(agreement)}/close", {"reason": reason}))


async def shown(at: pair.Running, agreement: str) -> dict[str, Any]:
    return dict(await at.asked("GET", f"/agreements/{pair.quoted(agreement)}"))


async def invoice(at: pair.Running, agreement: str, days: int = 10) -> dict[str, Any]:
    """The invoice of an agreement up to some days after it was made, which both sides ask for in the same words."""
    begins = int(at.connector.journal.clock.now()) // 3600 * 3600 - 3600
    said = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each)) for each in (begins, begins + days * DAY)]
    return dict(await at.asked("GET", f"/agreements/{pair.quoted(agreement)}/invoice?from={said[0]}&to={said[1]}"))


async def facts(at: pair.Running, agreement: str) -> list[str]:
    return [each.what for each in await at.evidence(agreement) if each.what in SAID]


async def same(both: pair.Pair, agreement: str, by: pair.Running) -> None:
    """Both sides bill by one instant, of a closing by this one, and the evidence of both holds and tells the same."""
    here, there = [await both_.connector.store.agreement(agreement) for both_ in (both.provider, both.consumer)]
    assert here is not None
    assert there is not None
    assert here.closed == there.closed
    assert here.closed is not None
    one, other = [await invoice(at, agreement) for at in (both.provider, both.consumer)]
    assert one == other
    assert (one["total"], one["attested"]) == ("9.99", "both")
    assert (one["closed"]["by"], one["closed"]["attested"]) == (by.site.id, "both")
    told = []
    for at in (both.provider, both.consumer):
        assert (await shown(at, agreement))["closing"] == "both"
        file = await at.manage("GET", f"/agreements/{pair.quoted(agreement)}/evidence")
        report = verify(file.body)
        assert report.sound, report.findings
        assert report.told is not None
        told.append(report.told)
        assert any(line.startswith(b'{"jws"') and b'"kind":"closing"' in line for line in file.body.splitlines())
    assert not [each for each in compare(*told) if "closed" in each or "owed" in each]


async def say(one: pair.Running, other: pair.Running, token: str | None) -> pair.Answer:
    """What `other` answers to a closing that `one` sends."""
    identity = one.connector.states.stating._means.identity
    headers = {"Authorization": await identity.mint(other.site.id), "Content-Type": "application/jwt"}
    return await pair.call(one.http, "POST", f"{other.site.settings.protocol.url}/ledger/closings", (token or "").encode(), headers)


def closing(one: pair.Running, other: pair.Running, agreement: str, at: int, **changed: Any) -> str:
    """A closing by `one` of this instant (microseconds), in its own hand."""
    claims = Closing(one.site.id, other.site.id, pair.fresh(), int(time.time()), agreement, at).claims() | changed
    return str(one.connector.states.stating._means.identity.sign(claims, Closing.TYP))


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["provider", "consumer"])
async def test_whoever_closes_both_bill_by_the_same_instant(tmp_path: Path, who: str):
    async with pair.pair(tmp_path, store="sqlite") as both:
        by, other = (both.provider, both.consumer) if who == "provider" else (both.consumer, both.provider)
        agreement = await subscribed(both)
        before = [await invoice(at, agreement) for at in (both.provider, both.consumer)]
        assert (before[0], before[0]["total"]) == (before[1], "99.90")
        closed = await close(by, agreement)
        assert (closed["closed_by"], closed["closing"]) == ("us", "both")
        assert ((await shown(other, agreement))["closed_by"], (await shown(by, agreement))["closing"]) == ("peer", "both")
        await same(both, agreement, by)
        assert (await facts(by, agreement), await facts(other, agreement)) == (
            ["closing-signed", "closing-told"],
            ["closing-taken", "closing-answered"],
        )
        ours, theirs = [[each.entry for each in await at.evidence(agreement) if each.what == SAID[n]] for at, n in ((by, 4), (other, 2))]
        assert ours == theirs, "both have the answer on record"
        again = await close(other, agreement, "as well")
        assert (again["closed_by"], again["closed"]) == ("peer", closed["closed"])
        assert await facts(other, agreement) == ["closing-taken", "closing-answered"]


@pytest.mark.asyncio
async def test_what_runs_ends_at_the_provider_when_the_consumer_has_closed(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        transfer = await both.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
        ours = await both.consumer.state(Kind.TRANSFER, transfer["pid"], "STARTED")
        token = closing(both.consumer, both.provider, agreement, instant_of(time.time()))
        assert (await say(both.consumer, both.provider, token)).status == 200
        ended = await both.provider.state(Kind.TRANSFER, ours.peer_pid or "", "TERMINATED")
        assert ended.detail["code"] == "AGREEMENT_CLOSED"
        assert (await both.provider.connector.store.agreement(agreement)).closed_by == "peer"  # type: ignore[union-attr]


@pytest.mark.asyncio
@pytest.mark.parametrize("ended_first", [True, False], ids=["the end of a transfer first", "the closing as soon"])
async def test_what_a_provider_says_in_the_end_of_a_transfer_is_why_and_what_it_has_signed_is_when(tmp_path: Path, *, ended_first: bool):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement, go = await subscribed(both), asyncio.Event()
        transfer = await both.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
        await both.consumer.state(Kind.TRANSFER, transfer["pid"], "STARTED")
        ask = both.provider.connector.states.stating.ask

        async def held(*args: Any) -> Reply:
            await go.wait()
            return await ask(*args)

        if ended_first:
            both.provider.connector.states.stating.ask = held  # type: ignore[method-assign]
        await both.provider.connector.operations.close(agreement, "no more")
        await both.consumer.state(Kind.TRANSFER, transfer["pid"], "TERMINATED")
        if ended_first:
            view, said = await shown(both.consumer, agreement), await invoice(both.consumer, agreement)
            assert (view["closed_by"], view["closing"], said["closed"]["by"]) == ("peer", "consumer-only", both.provider.site.id)
            assert said["attested"] == "in-part"
        go.set()
        await fact(both.provider, agreement, "closing-told")
        assert (await shown(both.consumer, agreement))["reason"] == "the agreement was closed: no more"
        await same(both, agreement, both.provider)


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["provider", "consumer"])
async def test_where_both_close_at_once_the_earlier_one_counts_on_both(tmp_path: Path, who: str):
    async with pair.pair(tmp_path, store="sqlite") as both:
        by, other = (both.provider, both.consumer) if who == "provider" else (both.consumer, both.provider)
        agreement = await subscribed(both)
        go = asyncio.Event()
        for at in (by, other):
            ask = at.connector.states.stating.ask

            async def held(*args: Any, ask: Any = ask) -> Reply:
                await go.wait()
                return await ask(*args)

            at.connector.states.stating.ask = held  # type: ignore[method-assign]
            told = await at.connector.operations.close(agreement, f"{at.site.name} is through")
            assert told.closed_by == "us"
        one, two = [await invoice(at, agreement) for at in (by, other)]
        assert (one["closed"]["by"], two["closed"]["by"]) == (by.site.id, other.site.id)
        assert {one["attested"], two["attested"]} == {"in-part"}
        go.set()
        for at in (by, other):
            await fact(at, agreement, "closing-told")
            await fact(at, agreement, "closing-taken")
            assert sorted(await facts(at, agreement)) == ["closing-answered", "closing-signed", "closing-taken", "closing-told"]
        await same(both, agreement, by)


@pytest.mark.asyncio
async def test_a_peer_that_is_down_is_told_once_it_is_back_and_until_then_it_is_one_sides_word(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        await both.consumer.connector.close()
        closed = await close(both.provider, agreement)
        assert (closed["closing"], await facts(both.provider, agreement)) == ("provider-only", ["closing-signed"])
        alone = await invoice(both.provider, agreement)
        assert (alone["total"], alone["attested"], alone["closed"]["attested"]) == ("9.99", "in-part", "provider-only")
        async with pair.running(both.consumer.site) as consumer:
            await fact(both.provider, agreement, "closing-told")
            await same(pair.Pair(both.provider, consumer), agreement, both.provider)


@pytest.mark.asyncio
async def test_what_a_crash_has_kept_from_the_peer_is_told_by_the_next_start_signed_anew_if_the_key_has_ended(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        both.consumer.connector.states.closings._over = True  # the end of the process lies between the commit and the telling
        closed = await close(both.consumer, agreement)
        assert (closed["closing"], await facts(both.consumer, agreement)) == ("consumer-only", ["closing-signed"])
        await both.consumer.connector.close()
        site, now = both.consumer.site, time.time()
        (old,) = {path.stem for path in site.settings.keys.directory.glob("*.key")}
        generate(site.settings.keys.directory, now - 1)
        retire(site.settings.keys.directory, old, now)
        (both.provider.site.settings.registry.directory / f"{site.name}.jsonld").write_bytes(site.description())
        await both.provider.asked("POST", "/reload")
        async with pair.running(site) as consumer:
            await fact(consumer, agreement, "closing-told")
            assert await facts(consumer, agreement) == ["closing-signed", "closing-signed", "closing-told"]
            first, second = [kept(Closing, each.entry or "") for each in await consumer.evidence(agreement) if each.what == SAID[0]]
            assert (first.at, first.id == second.id) == (second.at, False)
            await same(pair.Pair(both.provider, consumer), agreement, consumer)


@pytest.mark.asyncio
async def test_a_closing_that_does_not_hold_is_refused_and_changes_nothing(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement, now = await subscribed(both), instant_of(time.time())
        one, other = both.consumer, both.provider
        lies = {
            "jws-header": "a.b.c",
            "claim-at": closing(one, other, agreement, now + 30_000_000),
            "claims-unknown": closing(one, other, agreement, now, why="x"),
            "closing-ahead": closing(one, other, agreement, now + 310_000_000, iat=int(time.time()) + 311),
            "closing-parties": closing(one, other, agreement, now, aud=one.site.id),
            "jws-typ": (await fact(one, (await one.connector.store.metered_of(agreement))[0].transfer, "receipt-signed")).entry,
            "jws-kid": closing(other, one, agreement, now, iss=one.site.id),
        }
        for code, lie in lies.items():
            answer = await say(one, other, lie)
            assert (answer.status, orjson.loads(answer.body)["type"]) == (422, f"urn:qiao:problem:{code}")
        assert (await say(one, other, closing(one, other, "urn:uuid:none", now))).status == 404
        assert (await say(other, other, closing(other, other, agreement, now))).status == 404
        stored = await other.connector.store.agreement(agreement)
        assert stored is not None
        assert (stored.closed, await facts(other, agreement)) == (None, [])
        await other.connector.store.commit(Changes(saves=(replace(stored, final=False),)))
        assert (await say(one, other, closing(one, other, agreement, now))).status == 409
        await other.connector.store.commit(Changes(saves=(stored,)))
        # a consumer that lays it before what it has signed for since
        await other.connector.store.commit(Changes(saves=(replace(stored, created=stored.created - DAY),)))
        answer = await say(one, other, closing(one, other, agreement, now - 400_000_000))
        assert (answer.status, orjson.loads(answer.body)["type"]) == (422, "urn:qiao:problem:closing-before")
        # the first counts, however often it is said
        token, answers = closing(one, other, agreement, now), []
        for _ in range(2):
            answer = await say(one, other, token)
            assert answer.status == 200
            answers.append(answer.body.decode())
        assert answers[0] == answers[1], "it is answered alike"
        said = kept(ClosingAck, answers[0])
        assert (said.issuer, said.audience, said.state, said.own, said.ends) == (other.site.id, one.site.id, "taken", None, now)
        second = closing(one, other, agreement, now - 1)
        for _ in range(2):
            answer = await say(one, other, second)
            document = orjson.loads(answer.body)
            assert (answer.status, document["type"], document["code"]) == (422, "urn:qiao:problem:closing-twice", "closing-twice")
            refusal = kept(ClosingAck, document["ack"])
            assert (refusal.closing, refusal.state, refusal.why, refusal.ends) == (digest(second), "refused", "closing-twice", now)
        whats = ("closing-refused", "closing-taken", "closing-refused")
        assert await facts(other, agreement) == [each for what in whats for each in (what, "closing-answered")]
        assert instant_of((await other.connector.store.agreement(agreement)).closed) == now  # type: ignore[union-attr, arg-type]


@pytest.mark.asyncio
async def test_one_that_the_peer_refuses_for_good_stays_our_word_and_is_not_told_again(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        earlier = closing(both.consumer, both.provider, agreement, instant_of(time.time()))
        assert (await say(both.consumer, both.provider, earlier)).status == 200
        closed = await close(both.consumer, agreement)
        told = await fact(both.consumer, agreement, "closing-told")
        assert (told.detail, closed["closing"]) == ({"code": "closing-twice"}, "consumer-only")
        assert kept(ClosingAck, told.entry or "").why == "closing-twice", "it has signed that it refuses it"
        view = await shown(both.consumer, agreement)
        assert view["closing_refused"] == {"code": "closing-twice", "says": CODES["closing-twice"]}
        assert (await shown(both.provider, agreement))["closing_refused"] is None
        report = verify((await both.provider.manage("GET", f"/agreements/{pair.quoted(agreement)}/evidence")).body)
        assert report.sound, report.findings
        assert [each.code for each in report.findings] == ["closing-twice"], "two closings by one side accuse it"
        assert any("has signed that it refuses that (`closing-twice`" in line for line in report.verdict())
        assert await both.consumer.connector.store.untold() == []
        assert (await invoice(both.consumer, agreement))["attested"] == "in-part"


@pytest.mark.asyncio
async def test_of_a_closing_that_a_peer_has_no_place_for_the_bill_says_whose_word_it_is(tmp_path: Path):
    async with pair.desk(tmp_path, store="sqlite") as at:
        agreement = await _standing(at)
        closed = await close(at.us, agreement)
        assert (closed["closing"], await facts(at.us, agreement)) == ("provider-only", ["closing-signed"])
        assert [*at.us.connector.states.closings._tasks] == [agreement], "a proxy may have said so: it is told again"
        said = await invoice(at.us, agreement)
        assert (said["closed"]["by"], said["closed"]["attested"], said["attested"]) == (at.us.site.id, "provider-only", "in-part")
        page = (await at.us.manage("GET", f"/agreements/{pair.quoted(agreement)}/invoice?to={said['to']}&format=html")).body.decode()
        assert "the provider’s word alone" in page


async def _standing(at: pair.Desk) -> str:
    """A final agreement of ours with the scripted peer, with a price for each day."""
    document = {**SUBSCRIBED, "@type": "Agreement", "@id": pair.fresh("agreement"), "assigner": at.us.site.id, "assignee": at.peer.id}
    document |= {"target": DATASET, "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    parties = at.us.site.id, at.peer.id
    made = Agreement(document["@id"], pair.fresh(), at.peer.id, *parties, DATASET, document, bytes(32), final=True, created=time.time())
    await at.us.connector.store.commit(Changes(saves=(made,)))
    return made.id


@pytest.mark.asyncio
async def test_a_consumer_does_not_date_its_closing_back_to_owe_nothing_for_months(tmp_path: Path):
    """Nothing was signed for in that time, in which the data could have been had at any hour."""
    async with pair.pair(tmp_path, store="sqlite") as both:
        one, other, now = both.consumer, both.provider, time.time()
        created, id = now - 180 * DAY, pair.fresh("agreement")
        document = {**SUBSCRIBED, "@type": "Agreement", "@id": id, "assigner": other.site.id, "assignee": one.site.id, "target": DATASET}
        document |= {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))}
        parties = other.site.id, one.site.id
        made = Agreement(id, pair.fresh(), one.site.id, *parties, DATASET, document, bytes(32), final=True, created=created)
        await other.connector.store.commit(Changes(saves=(made,)))
        await one.connector.store.commit(Changes(saves=(replace(made, peer=other.site.id),)))
        assert (await say(one, other, closing(one, other, id, instant_of(now - LATE_SECONDS - 60)))).status == 200
        there = await other.connector.store.agreement(id)
        assert there is not None
        assert there.closed_by == "us"
        assert there.closed is not None
        assert now <= there.closed <= time.time(), "it ends when the provider hears of it, and not before"
        await fact(other, id, "closing-told")
        here = await one.connector.store.agreement(id)
        assert here is not None
        assert (here.closed, here.closed_by) == (there.closed, "peer")
        bills = [await at.asked("GET", f"/agreements/{pair.quoted(id)}/invoice?to=2040-01-01") for at in (one, other)]
        assert bills[0] == bills[1]
        assert (bills[0]["closed"]["attested"], bills[0]["closed"]["by"]) == ("both", other.site.id)


@pytest.mark.asyncio
async def test_a_closing_that_a_provider_hears_of_too_late_ends_by_the_providers_on_both(tmp_path: Path):
    """The provider was away for eight days, and nobody bills by another instant than the other for ever."""
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        both.consumer.connector.states.closings._over = True  # nobody is told now
        await close(both.consumer, agreement)
        for at in (both.consumer, both.provider):
            past = await at.connector.store.agreement(agreement)
            assert past is not None
            closed = None if past.closed is None else past.closed - 8 * DAY
            await at.connector.store.commit(Changes(saves=(replace(past, created=past.created - 9 * DAY, closed=closed),)))
        late = closing(both.consumer, both.provider, agreement, instant_of(time.time() - 8 * DAY))
        signed = Evidence("closing-signed", None, agreement, both.provider.site.id, None, time.time(), digest=digest(late), entry=late)
        await both.consumer.connector.store.commit(Changes(evidence=(signed,)))
        assert (await say(both.consumer, both.provider, late)).status == 200
        await fact(both.provider, agreement, "closing-told")
        assert await facts(both.provider, agreement) == ["closing-taken", "closing-signed", "closing-answered", "closing-told"]
        file = await both.provider.manage("GET", f"/agreements/{pair.quoted(agreement)}/evidence")
        assert not [each for each in verify(file.body).findings if "clos" in str(each)]


@pytest.mark.asyncio
async def test_an_agreement_that_was_closed_before_there_were_closings_has_one_as_soon_as_it_is_looked_at(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        operations = both.consumer.connector.operations
        signs, operations.sign_closing = operations.sign_closing, lambda _: ()
        await both.consumer.connector.operations.close(agreement, "of old")
        assert await facts(both.consumer, agreement) == []
        operations.sign_closing = signs
        assert (await shown(both.consumer, agreement))["closed_by"] == "us"
        await fact(both.consumer, agreement, "closing-told")
        assert await facts(both.consumer, agreement) == ["closing-signed", "closing-told"]
        await same(both, agreement, both.consumer)


@pytest.mark.asyncio
async def test_a_closing_that_was_refused_counts_no_more_once_the_other_side_has_closed(tmp_path: Path):
    """It stays one side's word, and a person's to look at; then both go by what the other has signed."""
    async with pair.pair(tmp_path, store="sqlite") as both:
        agreement = await subscribed(both)
        there = await both.provider.connector.store.agreement(agreement)
        assert there is not None
        await both.provider.connector.store.commit(Changes(saves=(replace(there, created=there.created + DAY),)))
        await close(both.consumer, agreement)
        assert (await fact(both.consumer, agreement, "closing-told")).detail == {"code": "closing-before"}
        assert (await shown(both.consumer, agreement))["closing"] == "consumer-only"
        await both.provider.connector.store.commit(Changes(saves=(there,)))
        await close(both.provider, agreement)
        await fact(both.provider, agreement, "closing-told")
        ours, theirs = [await at.connector.store.agreement(agreement) for at in (both.consumer, both.provider)]
        assert ours is not None
        assert theirs is not None
        assert (ours.closed, ours.closed_by) == (theirs.closed, "peer")
        bills = [await invoice(at, agreement) for at in (both.consumer, both.provider)]
        assert bills[0] == bills[1]
        assert bills[0]["closed"]["attested"] == "both"
        report = verify((await both.consumer.manage("GET", f"/agreements/{pair.quoted(agreement)}/evidence")).body)
        assert report.sound, report.findings


@pytest.mark.asyncio
async def test_a_peer_without_a_place_for_a_closing_is_told_for_a_month_and_then_it_is_on_record_that_it_was_not():
    now = float(int(time.time()))
    one, _ = await sides(now)
    asked = 0

    async def nowhere(*_: Any) -> Reply:
        nonlocal asked
        asked += 1
        one.clock.at += 10 * DAY
        raise PeerRefused("no such place", status=404)

    one.ask, one.pause_seconds_max = nowhere, 0.0  # type: ignore[method-assign]
    await one.close()
    one.closings._begin("urn:uuid:agreement")
    await one.closings._tasks["urn:uuid:agreement"]
    told = await one.store.newest_fact("urn:uuid:agreement", "closing-told")
    assert told is not None
    assert (told.detail, asked) == ({"code": "closing-unheard"}, 4)
    assert await one.store.untold() == []
    assert await closed_of(one.store, await one.agreement(), PROVIDER) == Closed(now, PROVIDER, "provider-only")


@pytest.mark.asyncio
async def test_where_the_store_cannot_be_read_for_a_moment_a_closing_is_put_off_and_not_given_up():
    one, _ = await sides(float(int(time.time())))
    read, asked = one.store.agreement, 0

    async def unreadable(_: str) -> Agreement | None:
        one.store.agreement = read  # type: ignore[method-assign]
        raise StoreError("the store cannot be read: disk I/O error")

    async def nowhere(*_: Any) -> Reply:
        nonlocal asked
        asked += 1
        if asked == 1:
            one.store.agreement = unreadable  # type: ignore[method-assign]
        raise PeerRefused("no such place", status=404 if asked == 1 else None)

    one.ask, one.pause_seconds_max = nowhere, 0.0  # type: ignore[method-assign]
    await one.close()
    one.closings._begin("urn:uuid:agreement")
    await one.closings._tasks["urn:uuid:agreement"]
    assert asked == 2


# ---- whatever the order


class Watchless:
    """A clock that is set by hand (POSIX seconds)."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


@dataclass
class Side:
    """One side with a store of its own, whose words reach the other when a test lets them."""

    name: str
    clock: Watchless
    pause_seconds_max: float = 1.0
    other: "Side | None" = None
    lost: bool = False  # the other side hears it, and its answer does not come back
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.journal = Journal(self.store, self.clock)

        async def note() -> None:
            return None

        self.means = Means(self.store, self.journal.decide, FakeIdentity(self.name), self.clock, Counted(), note)
        self.closings = Closings(self.means, self)  # type: ignore[arg-type]

    def place(self, _peer: str, path: str) -> str:
        return path

    async def ask(self, _method: str, _url: str, _peer: str, token: str, _taken: object) -> Reply:
        assert self.other is not None
        try:
            heard = await self.other.closings.hear(self.name, token)
        except MeterRefused as error:
            raise PeerFailed("refused", (error.code,)) from error
        if self.lost:
            raise PeerFailed("the answer is lost")
        return self.answers(heard)

    @staticmethod
    def answers(heard: Heard) -> Reply:
        if not heard.code:
            return Reply(200, {}, heard.ack.encode())
        return Reply(422, {}, orjson.dumps({"type": f"urn:qiao:problem:{heard.code}", "ack": heard.ack}))

    @staticmethod
    def failed(_url: str, reply: Reply) -> PeerFailed:
        return PeerFailed(f"status {reply.status}")

    async def close(self) -> None:
        agreement = await self.agreement()
        if agreement.closed is None:
            after = replace(agreement, closed=self.clock.at, closed_by="us", version=agreement.version + 1)
            await self.store.commit(Changes(saves=(after,), evidence=self.closings.sign(after)))

    async def tell(self, *, lost: bool) -> None:
        self.lost = lost
        try:
            await self.closings.tell("urn:uuid:agreement")
        except PeerFailed:
            assert lost

    async def agreement(self) -> Agreement:
        found = await self.store.agreement("urn:uuid:agreement")
        assert found is not None
        return found


async def sides(now: float) -> tuple[Side, Side]:
    pair_ = Side(PROVIDER, Watchless(now)), Side(CONSUMER, Watchless(now))
    for side, other in (pair_, pair_[::-1]):
        side.other = other
        parties = other.name, PROVIDER, CONSUMER
        agreement = Agreement("urn:uuid:agreement", "urn:n", *parties, DATASET, {}, bytes(32), final=True, created=now - DAY)
        await side.store.commit(Changes(saves=(agreement,)))
    return pair_


STEPS = st.lists(st.tuples(st.sampled_from(["close", "tell", "lose"]), st.integers(0, 1), st.integers(-3, 3)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_in_whatever_order_both_close_and_hear_of_it_they_come_to_the_earlier_instant(steps: Sequence[tuple[str, int, int]]):
    async def run() -> None:
        now = float(int(time.time()))
        both, signed = await sides(now), set()
        for what, who, tick in steps:
            side = both[who]
            side.clock.at = max(side.clock.at + tick * 0.25, now - 60)  # clocks that are set back now and then
            if what == "close":
                await side.close()
            else:
                await side.tell(lost=what == "lose")
        for side in both:
            await side.tell(lost=False)
            if (own := await side.store.newest_fact("urn:uuid:agreement", "closing-signed")) is not None:
                signed.add(kept(Closing, own.entry or "").at)
        here, there = [await side.agreement() for side in both]
        assert here.closed == there.closed
        assert (None if here.closed is None else instant_of(here.closed)) == min(signed, default=None)
        assert here.closed is None or {here.closed_by, there.closed_by} == {"us", "peer"}

    asyncio.run(run())


@pytest.mark.asyncio
async def test_a_provider_that_has_taken_a_closing_in_time_does_not_lengthen_a_subscription_by_a_later_one_of_its_own():
    provider, consumer = await sides(1_800_000_000.0)
    await consumer.close()
    await consumer.tell(lost=False)
    before = await consumer.agreement()
    for side in (provider, consumer):
        side.clock.at += 30 * DAY
    forgets = replace(await provider.agreement(), closed=provider.clock.at, closed_by="us")
    await provider.store.commit(Changes(saves=(forgets,), evidence=provider.closings.sign(forgets)))
    await provider.tell(lost=False)
    told = await provider.store.newest_fact(before.id, "closing-told")
    assert told is not None
    assert told.detail == {"code": "closing-heard"}
    assert await consumer.agreement() == before
    closed = await closed_of(consumer.store, before, CONSUMER)
    assert closed is not None
    assert (closed.at, closed.attested) == (before.closed, "both")


LIES: list[tuple[str, dict[str, Any]]] = [
    ("closing-ack-parties", {"agr": "urn:uuid:another"}),
    ("closing-ack-closing", {"clos": write_bytes(b"x" * 32)}),
    ("closing-ack-ends", {"ends": 1}),
    ("closing-ack-ahead", {"iat": 1_800_000_301}),
    ("closing-ack-why", {"st": "refused", "why": "closing-before"}),
    ("closing-ack-why", {"st": "refused", "why": "closing-heard"}),
    ("claim-why", {"why": "closing-before"}),
    ("claim-ends", {"ends": None}),
    ("claims-unknown", {"more": 1}),
    ("claim-own", {"own": "x"}),
    ("jws-alg", {"own": "e30.e30.e30"}),
    ("jws-issuer", {"iss": PROVIDER}),
    ("jws-signature", {}),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("code", "changed"), LIES, ids=[f"{n} {code}" for n, (code, _) in enumerate(LIES)])
async def test_an_answer_that_does_not_hold_is_none_and_the_closing_is_told_again(code: str, changed: dict[str, Any]):
    provider, consumer = await sides(1_800_000_000.0)
    await provider.close()
    as_it_is = Side.answers

    def lied(heard: Heard) -> Reply:
        claims = jws.claims_of(heard.ack) | changed
        token = consumer.means.identity.sign(claims, ClosingAck.TYP) if changed else heard.ack[:-8] + "AAAAAAAA"
        return Reply(200, {}, token.encode())

    provider.answers = lied  # type: ignore[method-assign]
    with pytest.raises(PeerFailed) as failed:
        await provider.closings.tell("urn:uuid:agreement")
    assert failed.value.reasons == (code,)
    assert await provider.store.untold() == ["urn:uuid:agreement"]
    closed = await closed_of(provider.store, await provider.agreement(), PROVIDER)
    assert closed is not None
    assert closed.attested == "provider-only"
    provider.answers = as_it_is  # type: ignore[method-assign]
    await provider.tell(lost=False)
    closed = await closed_of(provider.store, await provider.agreement(), PROVIDER)
    assert closed is not None
    assert closed.attested == "both"


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [False, True], ids=["nothing", "its own closing"])
async def test_a_peer_that_signs_no_answer_is_told_and_it_stays_our_word(*, own: bool):
    provider, consumer = await sides(1_800_000_000.0)
    for side in (provider, consumer) if own else (provider,):
        await side.close()
    theirs = await consumer.store.newest_fact("urn:uuid:agreement", "closing-signed")
    provider.answers = lambda _: Reply(200, {}, (theirs.entry if theirs and theirs.entry else "").encode())  # type: ignore[method-assign]
    await provider.tell(lost=False)
    assert await provider.store.untold() == []
    closed = await closed_of(provider.store, await provider.agreement(), PROVIDER)
    assert closed is not None
    assert (closed.by, closed.attested) == (PROVIDER, "provider-only")
    taken = await provider.store.newest_fact("urn:uuid:agreement", "closing-taken")
    assert (taken is not None) is own


class Rotated(FakeIdentity):
    """The consumer has another key since `ended` (POSIX seconds)."""

    ended = 0.0

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        claims = super().read(token, typ, issuer, at=at)
        if issuer == CONSUMER and at is not None and claims["iat"] < self.ended <= at:
            raise Unauthenticated("the key has ended", fault="key-ended")
        return claims


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [False, True], ids=["it is open there", "it is closed there, too"])
async def test_an_answer_that_was_lost_is_signed_anew_if_the_key_has_ended_since(*, own: bool):
    now = 1_800_000_000.0
    both = provider, consumer = await sides(now)
    for side in both:
        side.means = replace(side.means, identity=Rotated(side.name))
        side.closings = Closings(side.means, side)  # type: ignore[arg-type]
    for side in both if own else (provider,):
        await side.close()
    await provider.tell(lost=True)
    if own:
        await consumer.tell(lost=False)
    for side in both:
        side.clock.at, side.means.identity.ended = now + 7200, now + 3600  # type: ignore[attr-defined]
    for _ in range(2):
        await provider.tell(lost=False)
        assert await provider.store.untold() == []
    closed = await closed_of(provider.store, await provider.agreement(), PROVIDER)
    assert closed is not None
    assert closed.attested == "both"
    given = [each.what for each in await consumer.store.evidence_of("urn:uuid:agreement")]
    assert (given.count("closing-answered"), given.count("closing-signed")) == (2, 2 if own else 0)


@pytest.mark.asyncio
async def test_a_peer_that_closes_again_and_again_leaves_no_record_without_end():
    now = 1_800_000_000.0
    provider, consumer = await sides(now)
    said = Closing(CONSUMER, PROVIDER, "c0", int(now), "urn:uuid:agreement", instant_of(now))
    tokens = [consumer.means.identity.sign(replace(said, id=f"c{n}", at=said.at - n % 2).claims(), Closing.TYP) for n in range(100)]
    first = await provider.closings.hear(CONSUMER, tokens[0])
    heard = [await provider.closings.hear(CONSUMER, each) for each in tokens[:32]]
    assert {each.code for each in heard} == {"", "closing-twice"}
    for each in tokens[32:]:
        with pytest.raises(TooMany, match="32 closings"):
            await provider.closings.hear(CONSUMER, each)
    assert await provider.closings.hear(CONSUMER, tokens[0]) == first
    assert len(await provider.store.evidence_of("urn:uuid:agreement")) == 1 + 32 + 16


@pytest.mark.asyncio
async def test_who_learns_that_its_earlier_closing_is_refused_goes_by_the_later_one_that_it_has_taken():
    now = 1_800_000_000.0
    provider, consumer = await sides(now)
    consumer.clock.at = now - 2 * DAY  # before the agreement was made
    await consumer.close()
    consumer.clock.at = now
    await provider.close()
    with pytest.raises(PeerFailed, match="goes by a closing of its own"):
        await provider.closings.tell("urn:uuid:agreement")
    assert await provider.store.untold() == ["urn:uuid:agreement"]
    await consumer.tell(lost=False)
    told = await consumer.store.newest_fact("urn:uuid:agreement", "closing-told")
    assert told is not None
    assert told.detail == {"code": "closing-before"}
    await provider.tell(lost=False)
    for side in (provider, consumer):
        assert await closed_of(side.store, await side.agreement(), side.name) == Closed(now, PROVIDER, "both")
        assert await side.store.untold() == []
