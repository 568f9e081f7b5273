"""Whatever a transfer goes by may change while its data flow: the losers are cut within a second, told why, and nobody else is.

Real listeners, and readers that are slow and in the middle of the stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import trustme

from connector.client.transport import ManagementError
from connector.dataplane.flows import GRACE_SECONDS
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move
from connector.records import Agreement
from connector.signatures.jws import signing_key, to_jwk
from tests.control.running import CUT_SECONDS, SIZE_BYTES, Live, T, in_a_moment, live
from tests.dataplane.reader import Reader, reading
from tests.dataplane.rig import CONSUMER, STRANGER, some_bytes
from tests.faults import home
from tests.faults.patience import own_time
from tests.faults.side import Side
from tests.pair import OPEN, Pair, only_for, pair, until_policy


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


SOON_SECONDS = 1.0  # ahead, where time cuts: by then the stream has to run, on a busy machine too


def in_the_industry(*names: str) -> dict[str, Any]:
    """Terms that depend on a claim."""
    constraint = {"leftOperand": "odrl:industry", "operator": "isAnyOf", "rightOperand": list(names)}
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [constraint]}]}


HEALTH: Mapping[str, Any] = {"odrl:industry": ("health",)}


@dataclass(frozen=True)
class Cause:
    """Something that changes: under which terms it counts, what happens, what is said then and with which code, and how it is undone, if
    it can be."""

    policy: Mapping[str, Any]
    happens: Callable[[Live, Agreement], Awaitable[None]]
    move: Move
    code: str
    undone: Callable[[Live], Awaitable[None]] | None = None


async def closed(at: Live, agreement: Agreement) -> None:
    await at.operations.close(agreement.id, "the study is over")


async def replaced(at: Live, _agreement: Agreement) -> None:
    await at.publish(only_for(STRANGER), binding=at.now())


async def withdrawn(at: Live, _agreement: Agreement) -> None:
    await at.withdraw()


async def left(at: Live, _agreement: Agreement) -> None:
    at.identity.say(CONSUMER, None)


async def back(at: Live) -> None:
    at.identity.say(CONSUMER, HEALTH)


async def turned(at: Live, _agreement: Agreement) -> None:
    at.identity.say(CONSUMER, {"odrl:industry": ("arms",)})


async def unsaid(at: Live, _agreement: Agreement) -> None:
    at.identity.say(CONSUMER, {})


SUSPENDED, TERMINATED = Move.SUSPENSION, Move.TRANSFER_TERMINATION
CAUSES: dict[str, Cause] = {
    "the agreement is closed": Cause(OPEN, closed, TERMINATED, "AGREEMENT_CLOSED"),
    "other terms are binding": Cause(OPEN, replaced, TERMINATED, "POLICY_REPLACED"),
    "the dataset is withdrawn": Cause(OPEN, withdrawn, SUSPENDED, "dataset-withdrawn", Live.publish),
    "the peer leaves": Cause(OPEN, left, SUSPENDED, "CREDENTIAL_REVOKED", back),
    "the peer is something else": Cause(in_the_industry("health"), turned, TERMINATED, "CONSTRAINT_UNSATISFIED"),
    "nobody knows what the peer is": Cause(in_the_industry("health"), unsaid, SUSPENDED, "CONSTRAINT_UNKNOWN", back),
}


@asynccontextmanager
async def streaming(at: Live, policy: Mapping[str, Any], **agreed: Any) -> AsyncIterator[tuple[Any, Any, Reader]]:
    """A transfer that runs, its agreement, and a reader in the middle of its data."""
    agreement = await at.agree(policy, **agreed)
    process = await at.answer((await at.begin(agreement)).pid)
    async with at.reading(process) as reader:
        assert (reader.status, reader.announced) == (200, SIZE_BYTES)
        await reader.take(300_000)
        assert at.rig.flows.seen(process.pid).running == 1
        yield process, agreement, reader


async def cut(reader: Reader, since: float) -> None:
    """What this process, both sides and all readers, waits for a processor that others have is not its own time."""
    within = own_time()
    over = await reader.sip_to_the_end()
    assert over - since <= within(CUT_SECONDS), f"the reader still got data {over - since:.2f} s after it had no right to it any more"
    assert len(reader.taken) < SIZE_BYTES
    assert some_bytes(SIZE_BYTES).startswith(reader.taken), "what came before the cut is not the data"


# All of them on the way that most data take; one that ends and one that suspends on the others; the rest in the long run.
QUICK = [("pieces", "the agreement is closed"), ("TLS", "the peer leaves")]
WAYS = [
    pytest.param(kind, name, marks=() if kind == "sendfile" or (kind, name) in QUICK else pytest.mark.slow)
    for kind in ("sendfile", "pieces", "TLS")
    for name in CAUSES
]


@pytest.mark.parametrize(("kind", "name"), WAYS)
@pytest.mark.asyncio
async def test_a_change_cuts_the_stream_within_a_second_and_the_peer_is_told_why(
    kind: str, name: str, tmp_path: Path, authority: trustme.CA
):
    cause = CAUSES[name]
    async with live(tmp_path, authority, kind) as at:
        at.identity.claims |= {CONSUMER: HEALTH, STRANGER: HEALTH}
        async with (
            streaming(at, cause.policy) as (process, agreement, reader),
            streaming(at, OPEN, peer=STRANGER, dataset=at.elsewhere) as (other, _, untouched),
        ):
            since = time.time()
            await cause.happens(at, agreement)
            await cut(reader, since)
            message = await at.said(process.pid, cause.move)
            assert (message["code"], bool(message["reason"])) == (cause.code, True)
            decided = await at.process(process.pid)
            assert (decided.detail["decision"]["code"], decided.detail["decision"]["result"]) == (cause.code, "deny")
            assert decided.meant == ("SUSPENDED" if cause.move is SUSPENDED else "TERMINATED")
            async with at.reading(process) as again:
                assert again.status in (401, 403), "and a new request is refused"
            assert at.rig.flows.seen(other.pid).running == 1
            assert await untouched.all() == some_bytes(SIZE_BYTES), "nobody else is"
        await at.answer(process.pid)
        if cause.undone is not None:
            await cause.undone(at)
            await at.said(process.pid, Move.START, 2)
            async with at.reading(await at.answer(process.pid)) as resumed:
                assert await resumed.all() == some_bytes(SIZE_BYTES), "what may come back comes back by itself"


@pytest.mark.parametrize("kind", ["sendfile", pytest.param("pieces", marks=pytest.mark.slow), pytest.param("TLS", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["a bound of the policy", "the end of the agreement", "claims that lapse"])
@pytest.mark.asyncio
async def test_an_instant_cuts_the_stream_on_time(kind: str, name: str, tmp_path: Path, authority: trustme.CA):
    async with live(tmp_path, authority, kind) as at:
        at.identity.claims[CONSUMER] = HEALTH
        instant = at.now() + SOON_SECONDS
        policy, agreed, move, code = OPEN, {}, TERMINATED, "EXPIRED"
        match name:
            case "a bound of the policy":
                policy = until_policy(in_a_moment(SOON_SECONDS))
            case "the end of the agreement":
                agreed = {"ends": instant}
            case _:
                at.identity.lapse[CONSUMER] = instant
                policy, move, code = in_the_industry("health"), SUSPENDED, "CONSTRAINT_UNKNOWN"
        async with streaming(at, policy, **agreed) as (process, _, reader):
            assert time.time() < instant
            await cut(reader, instant)
            assert time.time() >= instant - 0.01
            assert (await at.said(process.pid, move))["code"] == code


@pytest.mark.asyncio
async def test_of_a_hundred_transfers_exactly_the_fifty_losers_are_cut_within_a_second(tmp_path: Path, authority: trustme.CA):
    """All of one agreement's dataset, by two peers and under two kinds of terms: one reload of the registry parts them."""
    async with live(tmp_path, authority) as at, AsyncExitStack() as readers:
        at.identity.claims |= {CONSUMER: HEALTH, STRANGER: HEALTH}
        crowd: list[tuple[Process, Reader, bool]] = []
        for number in range(100):
            loses = number % 4 < 2
            peer = CONSUMER if number % 4 in (0, 2) else STRANGER
            process = await at.run(in_the_industry("health") if loses else OPEN, peer=peer)
            reader = await readers.enter_async_context(at.reading(process))
            await reader.take(100_000)
            crowd.append((process, reader, loses))
        since = time.time()
        for peer in (CONSUMER, STRANGER):
            at.identity.say(peer, {"odrl:industry": ("arms",)})
        await asyncio.gather(*(cut(reader, since) for _, reader, loses in crowd if loses))
        ended = {process.pid for process, *_ in crowd if (await at.process(process.pid)).meant == "TERMINATED"}
        assert ended == {process.pid for process, _, loses in crowd if loses}
        for process, reader, loses in crowd:
            if not loses:
                assert at.rig.flows.seen(process.pid).running == 1
                await reader.take(1_000)
        assert all([(await at.said(pid, TERMINATED))["code"] == "CONSTRAINT_UNSATISFIED" for pid in ended])


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_stream_outlives_the_instant_at_which_its_claims_would_have_lapsed_if_somebody_vouches_again(
    tmp_path: Path, authority: trustme.CA
):
    async with live(tmp_path, authority) as at:
        at.identity.claims[CONSUMER] = HEALTH
        at.identity.lapse[CONSUMER] = instant = at.now() + SOON_SECONDS
        async with streaming(at, in_the_industry("health")) as (process, _, reader):
            at.identity.lapse[CONSUMER] = instant + 3600.0
            await at.until(lambda: at.process(process.pid), lambda p: p.detail["claims_expire"] > instant)
            await asyncio.sleep(max(0.0, instant + GRACE_SECONDS + 0.1 - time.time()))
            assert await reader.all() == some_bytes(SIZE_BYTES)
        assert [row.move for row in at.sent[process.pid]] == [Move.START]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_wall_clock_that_is_set_forward_is_noticed_within_a_second_and_one_that_is_set_back_gives_the_time_back(
    tmp_path: Path, authority: trustme.CA
):
    async with live(tmp_path, authority) as at:
        async with streaming(at, until_policy(in_a_moment(3600.0))) as (process, _, reader):
            at.rig.clock.shift_seconds, since, within = 3601.0, time.time(), own_time()
            assert (await at.said(process.pid, TERMINATED))["code"] == "EXPIRED"
            noticed = time.time()
            assert noticed - since < within(1.0)
            await cut(reader, noticed)
        at.rig.clock.shift_seconds = 0.0
        async with streaming(at, until_policy(in_a_moment(1.2))) as (process, _, reader):
            at.rig.clock.shift_seconds = -3600.0
            await asyncio.sleep(1.5)
            assert at.rig.flows.seen(process.pid).running == 1
            assert await reader.all() == some_bytes(SIZE_BYTES)


# Two connectors, and the registry of one of them


def without(_description: dict[str, Any]) -> None:
    return None


def with_a_key_that_is_over(description: dict[str, Any]) -> dict[str, Any]:
    keys = [key | {"notAfter": "2020-01-01T00:00:00Z"} for key in description["keys"]]
    return description | {"keys": keys}


def with_another_key(description: dict[str, Any]) -> dict[str, Any]:
    fresh_key = {"@id": f"{description['@id']}#next", "@type": "JsonWebKey", "publicKeyJwk": to_jwk(signing_key("k", bytes(32)).key.public)}
    return description | {"keys": [fresh_key]}


REREAD = [
    pytest.param(without, True, id="it is not in it any more"),
    pytest.param(with_a_key_that_is_over, True, id="its key is revoked", marks=pytest.mark.slow),
    pytest.param(with_another_key, False, id="its key is another one"),
]


@pytest.mark.parametrize(("changed", "loses"), REREAD)
@pytest.mark.asyncio
async def test_a_registry_that_is_read_again_takes_access_away_and_gives_it_back(tmp_path: Path, changed: Any, loses: bool):
    async with pair(tmp_path) as two:
        await two.provider.publish("urn:d", content=some_bytes(SIZE_BYTES))
        begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
        agreed = (await two.consumer.state(Kind.NEGOTIATION, begun["pid"], "FINALIZED")).agreement
        pid = (await two.consumer.asked("POST", "/transfers", {"agreement": agreed}, status=201))["pid"]
        theirs = str((await two.consumer.state(T, pid, "STARTED")).peer_pid)
        await two.provider.state(T, theirs, "STARTED")
        file = two.provider.site.settings.registry.directory / "biopharma.jsonld"
        before = file.read_bytes()
        async with fetching(two, pid) as reader:
            await reader.take(300_000)
            description = changed(orjson.loads(before))
            file.unlink() if description is None else file.write_bytes(orjson.dumps(description))
            since = time.time()
            await two.provider.asked("POST", "/reload", {})
            if not loses:
                assert await reader.all() == some_bytes(SIZE_BYTES), "which of its keys vouches for it is no matter"
                return
            await cut(reader, since)
        held = await two.consumer.state(T, pid, "SUSPENDED")
        assert (held.detail["code"], held.detail["ended_by"]) == ("CREDENTIAL_REVOKED", "peer")
        file.write_bytes(before)
        await two.provider.asked("POST", "/reload", {})
        await two.consumer.state(T, pid, "STARTED")
        async with fetching(two, pid) as reader:
            assert await reader.all() == some_bytes(SIZE_BYTES)


@asynccontextmanager
async def fetching(two: Pair, pid: str) -> AsyncIterator[Reader]:
    edr = await two.consumer.asked("GET", f"/transfers/{pid}/edr")
    async with reading(edr["endpoint"], {"Authorization": f"Bearer {edr['authorization']}"}) as reader:
        assert reader.status == 200
        yield reader


# A kill between the cause and the cut


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_cause_that_was_written_before_a_kill_counts_from_the_first_moment_of_the_next_life(tmp_path: Path):
    """The provider dies in the commit that closes the agreement: nobody has been told, and nothing has been cut but by the kill."""
    homes = home.make(tmp_path, ("provider", "consumer"))
    provider, consumer = Side(homes["provider"]), Side(homes["consumer"])
    try:
        for side in (provider, consumer):
            await side.open()
        await asyncio.gather(provider.start(kill={"after COMMIT [agreement-closed, closing-signed]": 1}), consumer.start())
        (provider.home.directory / "data" / "d").write_bytes(some_bytes(SIZE_BYTES))
        said = {"title": "d", "source": {"type": "file", "path": "d"}, "policies": [{"permission": [{"action": "use"}]}]}
        await provider.insist(lambda client: client.publish("urn:d", said))
        negotiation = await consumer.insist(lambda client: client.negotiate("provider", "urn:d"))
        agreed = await consumer.until(negotiation.pid, lambda client: client.negotiation(negotiation.pid), lambda n: n.state == "FINALIZED")
        transfer = await consumer.insist(lambda client: client.transfer(agreed.agreement or ""))
        pid = transfer.pid
        await consumer.until(pid, lambda client: client.transfer_process(pid), lambda t: t.state == "STARTED")
        edr = await consumer.insist(lambda client: client.edr(pid))
        headers = {"Authorization": f"Bearer {edr.authorization}"}
        async with reading(edr.endpoint, headers) as reader:
            await reader.take(300_000)
            with pytest.raises(ManagementError):
                await provider.once(lambda client: client.close_agreement(agreed.agreement or "", "the study is over"))
            await provider.dead.wait()
            await reader.sip_to_the_end()
            assert (len(reader.taken) < SIZE_BYTES, provider.died_at) == (True, "after COMMIT [agreement-closed, closing-signed]")
        assert (await consumer.insist(lambda client: client.transfer_process(pid))).state == "STARTED", "nobody was told"
        answers: list[int] = []

        async def knock() -> None:
            async with aiohttp.ClientSession(headers=headers) as http:
                while True:
                    try:
                        async with http.get(edr.endpoint) as again:
                            answers.append(again.status)
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.005)  # nobody listens yet

        knocking = asyncio.create_task(knock())
        await provider.start()
        ended = await consumer.until(pid, lambda client: client.transfer_process(pid), lambda t: t.state == "TERMINATED")
        knocking.cancel()
        with suppress(asyncio.CancelledError):
            await knocking
        assert (ended.code, ended.reasons) == ("AGREEMENT_CLOSED", ("the agreement was closed: the study is over",))
        assert answers
        assert set(answers) <= {401, 403}, "no stream of it was served, not even before it was decided on"
        known = [
            await side.until(agreed.agreement or "", lambda client: client.agreement(agreed.agreement or ""), lambda a: a.closing == "both")
            for side in (provider, consumer)
        ]
        assert known[0].closed == known[1].closed, "what was signed in the commit is told by the next life"
    finally:
        for side in (provider, consumer):
            await side.close()
