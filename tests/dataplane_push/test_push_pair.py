"""Two connectors: the order asks for push, the provider brings the data, both have the same on record."""

import hashlib
from pathlib import Path

import pytest

from connector.dsp.messages import CONTEXT, Kind, Role
from connector.ports import COUNTERSIGNED
from connector.records import Changes
from tests import pair
from tests.dataplane.rig import some_bytes
from tests.test_app import ended

CONTENT = some_bytes(3_000_000)
DATASET = "urn:test:pushed"
METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
DEMANDING = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING]}]}

pytestmark = pytest.mark.asyncio


async def ordered(at: pair.Running, **more: object) -> dict[str, object]:
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(at.site.root / "out" / "file"), "push": True}
    order = await at.asked("POST", "/pulls", wish | more, status=201)
    return await ended(at, order["id"])


@pytest.mark.parametrize("policy", [DEMANDING, pair.OPEN], ids=["demanded", "offered"])
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


async def test_data_with_an_end_are_offered_both_ways(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        await both.provider.publish(DATASET, content=CONTENT)
        stored = await both.provider.connector.store.dataset(DATASET)
        assert stored is not None
        assert [stored.document.count(format) for format in (b"HttpData-PULL", b"HttpData-PUSH")] == [1, 1]
