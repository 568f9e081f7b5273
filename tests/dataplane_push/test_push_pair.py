"""Two connectors: the order asks for push, the provider brings the data, both have the same on record."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from connector import telemetry
from connector.dataplane.edr import Address, read_address
from connector.dataplane_push.pusher import Pusher
from connector.dsp.messages import CONTEXT, Kind, Role
from connector.evidence.verify import verify
from connector.intake import download
from connector.intake.account import Account
from connector.ports import COUNTERSIGNED, SIGNED_REQUESTS
from connector.ports.pushed import Brought, Reception
from connector.records import Changes, Edr
from tests import pair
from tests.control.orders import restartable, settled
from tests.dataplane.rig import some_bytes
from tests.dataplane_live import test_live_pair as live_pair
from tests.dataplane_live import upstream
from tests.test_app import ended

CONTENT = some_bytes(3_000_000)
DATASET = "urn:test:pushed"
METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
POSSESSION = {"leftOperand": "https://w3id.org/qiao/v1/possession", "operator": "eq", "rightOperand": {"@id": SIGNED_REQUESTS}}
DEMANDING = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING]}]}
SIGNED = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING, POSSESSION]}]}

pytestmark = pytest.mark.asyncio


async def wished(at: pair.Running) -> str:
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(at.site.root / "out" / "file"), "push": True}
    return str((await at.asked("POST", "/pulls", wish, status=201))["id"])


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once an order waits for a provider that begins."""
    waits, begun = asyncio.Event(), download.begun

    async def seen(reception: Reception, over: Callable[[], bool], patience_seconds: float) -> Brought:
        waits.set()
        return await begun(reception, over, patience_seconds)

    monkeypatch.setattr(download, "begun", seen)
    return waits


async def ordered(at: pair.Running) -> dict[str, object]:
    return await ended(at, await wished(at))


@pytest.mark.parametrize("policy", [DEMANDING, SIGNED, pair.OPEN], ids=["demanded", "demanded and signed", "offered"])
async def test_an_order_for_push_is_brought_completed_and_counted_the_same_on_both_sides(policy: dict[str, object], tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, policy, content=CONTENT)
        order = await ordered(both.consumer)
        assert (order["stage"], order["sha256"]) == ("done", hashlib.sha256(CONTENT).hexdigest()), order
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, str(order["transfer"]))
        assert transfer is not None
        done = await both.provider.state(Kind.TRANSFER, transfer.peer_pid or "", "COMPLETED")
        theirs, ours = await both.provider.connector.store.metered(done.pid), await both.consumer.connector.store.metered(transfer.pid)
        assert theirs is not None
        assert ours is not None
        assert (theirs.status, theirs.attested, theirs.counts.bytes) == ("complete", "both", len(CONTENT))
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)
        signs = [each for each in await both.provider.evidence(done.pid) if each.what == telemetry.LEG]
        assert [each.detail["sink"].keys() for each in signs] == [{"input", "signature", "base"}]
        exported = await both.provider.manage("GET", f"/agreements/{pair.quoted(str(order['agreement']))}/evidence")
        report = verify(exported.body)
        assert report.findings == ()
        assert [each["transfer"] for each in report.to_json()["agreement"]["sinks"]] == [done.pid]


async def test_under_an_agreement_that_demands_signed_requests_the_address_of_a_sink_is_its_providers_alone(tmp_path: Path):
    edrs: list[Edr] = []
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, SIGNED, content=CONTENT)
        both.provider.connector.journal.listen(lambda changes, _: edrs.extend(each for each in changes.saves if isinstance(each, Edr)))
        order = await ordered(both.consumer)
        assert order["stage"] == "done", order
        sink = read_address(edrs[0].address)
        said = {"Authorization": f"Bearer {sink.access_token}"}
        async with aiohttp.ClientSession() as http, http.put(sink.endpoint, data=b"x", headers=said) as answer:
            assert (answer.status, (await answer.json())["type"]) == (401, "urn:qiao:problem:signature-missing")
            assert 'tag="dp-push"' in answer.headers["Accept-Signature"]


@pytest.mark.parametrize(
    ("format", "address", "code"),
    [
        ("HttpData-PUSH", None, "address-missing"),
        ("HttpData-PUSH", {"@type": "DataAddress", "endpointType": "x", "endpoint": "http://10.0.0.1/sink"}, "address-denied"),
        ("AmazonS3-PUSH", None, "format-not-offered"),
    ],
)
async def test_a_request_that_names_no_place_that_we_dial_is_refused(
    tmp_path: Path, format: str, address: dict[str, object] | None, code: str
):
    async with pair.desk(tmp_path) as desk:
        await desk.us.publish("urn:test:dataset", content=CONTENT)
        agreed = pair.agreement(desk.us, desk.peer, Role.PROVIDER, dataset="urn:test:dataset")
        await desk.us.connector.store.commit(Changes(saves=(agreed,)))
        document = {
            "@context": CONTEXT,
            "@type": "TransferRequestMessage",
            "consumerPid": pair.fresh("theirs"),
            "agreementId": agreed.id,
            "format": format,
            "callbackAddress": desk.peer.site.base,
        } | ({"dataAddress": address} if address else {})
        answer = await desk.peer.send(desk.us, "POST", "/transfers/request", document)
        assert (answer.status, answer.json["code"]) == (400, code), answer.body


async def test_a_request_that_is_sent_again_with_an_address_minted_anew_is_the_same_transfer(tmp_path: Path):
    async with pair.desk(tmp_path) as desk:
        await desk.us.publish("urn:test:dataset", content=CONTENT)
        agreed = pair.agreement(desk.us, desk.peer, Role.PROVIDER, dataset="urn:test:dataset")
        await desk.us.connector.store.commit(Changes(saves=(agreed,)))
        told = {"@context": CONTEXT, "@type": "TransferRequestMessage", "consumerPid": pair.fresh("theirs"), "agreementId": agreed.id}
        told |= {"format": "HttpData-PUSH", "callbackAddress": desk.peer.site.base}
        places = [{"@type": "DataAddress", "endpointType": "x", "endpoint": f"{desk.peer.site.base}/sink/{name}"} for name in "ab"]
        answers = [await desk.peer.send(desk.us, "POST", "/transfers/request", told | {"dataAddress": place}) for place in places]
        assert answers[0].status == 201, answers[0].body
        assert answers[1].status in (200, 201), answers[1].body
        assert len({answer.json["providerPid"] for answer in answers}) == 1
        other = await desk.peer.send(desk.us, "POST", "/transfers/request", told | {"dataAddress": places[0], "format": "HttpData-PULL"})
        assert (other.status, other.json["code"]) == (400, "pid-taken")


async def test_data_with_an_end_are_offered_both_ways(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        await both.provider.publish(DATASET, content=CONTENT)
        stored = await both.provider.connector.store.dataset(DATASET)
        assert stored is not None
        assert [stored.document.count(format) for format in (b"HttpData-PULL", b"HttpData-PUSH")] == [1, 1]


async def test_data_without_an_end_are_offered_to_be_fetched_only_and_an_order_to_have_them_brought_says_why_it_failed(tmp_path: Path):
    async with live_pair.both(tmp_path) as two:
        stored = await two.provider.connector.store.dataset(live_pair.DATASET)
        assert stored is not None
        assert [stored.document.count(format) for format in (b"HttpData-PULL", b"HttpData-PUSH")] == [1, 0]
        wish = {"peer": "hospital", "dataset": live_pair.DATASET, "out": str(two.consumer.site.root / "out" / "file"), "push": True}
        order = await two.consumer.asked("POST", "/pulls", wish, status=201)
        order = await ended(two.consumer, order["id"])
        assert order["stage"] == "failed"
        assert "these data have no end, and are not pushed; ask for them as `HttpData-PULL`" in order["reasons"][-1]
        assert list((two.consumer.site.root / "out").iterdir()) == []


async def test_data_that_have_no_end_any_more_once_their_push_was_agreed_to_end_the_transfer_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    going, pushed = asyncio.Event(), Pusher.push

    async def later(of: Pusher, transfer: str, sink: Address) -> None:
        await going.wait()
        await pushed(of, transfer, sink)

    monkeypatch.setattr(Pusher, "push", later)
    async with upstream.running() as url, pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(live_pair.DATASET, content=CONTENT)
        wish = {"peer": "hospital", "dataset": live_pair.DATASET, "out": str(both.consumer.site.root / "out" / "file"), "push": True}
        order = await both.consumer.asked("POST", "/pulls", wish, status=201)
        async with asyncio.timeout(20):
            while (await both.consumer.asked("GET", f"/pulls/{order['id']}"))["stage"] != "download":  # noqa: ASYNC110 - as whoever asks
                await asyncio.sleep(0.01)
        body = {"title": "live", "source": {"type": "http-stream", "url": f"{url}/lines?size=500"}, "policies": [pair.OPEN]}
        await both.provider.asked("PUT", f"/datasets/{pair.quoted(live_pair.DATASET)}", body)
        going.set()
        seen = await ended(both.consumer, order["id"])
        assert seen["stage"] == "failed"
        assert "no end" in " ".join(seen["reasons"])


@pytest.mark.parametrize("end", ["complete", "terminate"])
async def test_an_order_whose_data_were_signed_for_before_a_kill_is_done_once_its_transfer_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: asyncio.Event, end: str
):
    whole, unnamed = asyncio.Event(), download.give_name
    killed, pushed = asyncio.Event(), Pusher.push

    async def stops(*_: object) -> None:
        whole.set()
        await asyncio.Event().wait()

    async def once(of: Pusher, transfer: str, sink: Address) -> None:
        if killed.is_set():  # it has the last receipt, and nothing to bring
            await asyncio.Event().wait()
        await pushed(of, transfer, sink)

    monkeypatch.setattr(download, "give_name", stops)
    monkeypatch.setattr(Pusher, "push", once)
    async with restartable(tmp_path) as (provider, site), asyncio.timeout(30):
        await provider.publish(DATASET, DEMANDING, content=CONTENT)
        async with pair.running(site) as consumer:
            id = await wished(consumer)
            await whole.wait()
            killed.set()
        monkeypatch.setattr(download, "give_name", unnamed)
        begins.clear()
        async with pair.running(site) as consumer:
            await begins.wait()
            order = await consumer.connector.store.pull(id)
            transfer = await consumer.connector.store.process(Kind.TRANSFER, order.transfer)
            await provider.asked("POST", f"/transfers/{pair.quoted(transfer.peer_pid)}/{end}", {})
            done = await settled(consumer, id)
            assert (done.stage, done.transfers, done.sha256) == ("done", 0, hashlib.sha256(CONTENT).digest()), done
            assert (site.root / "out" / "file").read_bytes() == CONTENT


async def test_an_order_all_of_whose_bytes_had_come_before_a_kill_waits_for_nobody_who_brings_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, post, has_come = asyncio.Event(), Account._post, Reception.has_come

    async def first_alone(account: Account) -> None:
        if here.is_set():
            await asyncio.Event().wait()
        await post(account)

    async def come(reception: Reception, brought: Brought) -> None:
        here.set()
        await has_come(reception, brought)

    monkeypatch.setattr(Account, "_post", first_alone)
    monkeypatch.setattr(Reception, "has_come", come)
    small = CONTENT[:200_000]
    async with restartable(tmp_path) as (provider, site), asyncio.timeout(30):
        await provider.publish(DATASET, DEMANDING, content=small)
        async with pair.running(site) as consumer:
            id = await wished(consumer)
            await here.wait()
            async with asyncio.timeout(10):
                while (await consumer.asked("GET", f"/pulls/{id}"))["received_bytes"] < len(small):  # noqa: ASYNC110 - as whoever asks
                    await asyncio.sleep(0.02)
        monkeypatch.setattr(Account, "_post", post)
        async with pair.running(site) as consumer:
            done = await settled(consumer, id)
            assert (done.stage, done.transfers, done.sha256) == ("done", 0, hashlib.sha256(small).digest()), done
            theirs = [each for each in (await provider.connector.store.metered_of(done.agreement)) if each.counts]
            assert [(each.status, each.counts.bytes) for each in theirs] == [("complete", len(small))]


async def test_an_order_of_which_nothing_came_before_the_provider_completed_its_transfer_has_it_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: asyncio.Event
):
    pushed, late = Pusher.push, list[str]()

    async def later(of: Pusher, transfer: str, sink: Address) -> None:
        if transfer in late or not late:
            late.append(transfer)
            await asyncio.Event().wait()
        await pushed(of, transfer, sink)

    monkeypatch.setattr(Pusher, "push", later)
    async with pair.pair(tmp_path, store="sqlite") as both, asyncio.timeout(30):
        await both.provider.publish(DATASET, content=CONTENT)
        id = await wished(both.consumer)
        await begins.wait()
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, (await both.consumer.connector.store.pull(id)).transfer)
        await both.provider.state(Kind.TRANSFER, transfer.peer_pid, "STARTED")
        await both.provider.asked("POST", f"/transfers/{pair.quoted(transfer.peer_pid)}/complete", {})
        done = await settled(both.consumer, id)
        assert (done.stage, done.transfers) == ("done", 1), done
        assert "before all of the data had come; the rest comes by another one" in done.reasons[0]
