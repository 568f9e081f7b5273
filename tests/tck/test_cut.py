"""The system under test, with a stand-in for the kit: it is the product, it does what the script says and nothing else."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Unauthenticated
from connector.ports import Act
from tests.free_ports import free_ports
from tests.tck import config, cut, script
from tests.tck.__main__ import READY

ANSWER_SECONDS = 20.0  # for a message that has to come; the scripted delay is half a second
HEADERS = {"Authorization": config.AUTHORIZATION}
PID = "urn:uuid:00000000-0000-4000-8000-000000000001"


@dataclass
class Kit:
    """Takes any message, keeps it, and acknowledges it as a counterparty would."""

    address: str = ""
    received: "asyncio.Queue[tuple[str, dict[str, Any]]]" = field(default_factory=asyncio.Queue)

    async def handle(self, request: web.Request) -> web.Response:
        document = orjson.loads(await request.read())
        await self.received.put((request.path, document))
        state, kind = ("STARTED", "TransferProcess") if "/transfers" in request.path else ("REQUESTED", "ContractNegotiation")
        pids = {name: document.get(name, PID) for name in ("consumerPid", "providerPid")}
        return web.Response(body=orjson.dumps({"@context": document["@context"], "@type": kind, "state": state} | pids))

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self.received.get()


@dataclass(frozen=True)
class Meeting:
    """The stand-in, a client that speaks for it, and where the two listeners of the system under test are."""

    kit: Kit
    client: aiohttp.ClientSession
    protocol: str
    initiate: str


@asynccontextmanager
async def meeting(directory) -> AsyncIterator[Meeting]:
    kit, app = Kit(), web.Application()
    app.router.add_post("/{path:.*}", kit.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kit.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    port, initiate = free_ports(2)
    try:
        async with cut.running(directory, port, initiate, kit.address), aiohttp.ClientSession(headers=HEADERS) as client:
            yield Meeting(kit, client, f"http://127.0.0.1:{port}{config.DSP_PATH}", f"http://127.0.0.1:{initiate}")
    finally:
        await runner.cleanup()


def process(state: str = "REQUESTED", **members: Any) -> Process:
    return Process(Kind.NEGOTIATION, "p", Role.PROVIDER, script.KIT, "http://127.0.0.1", state=state, **members)


@pytest.mark.asyncio
async def test_the_catalog_has_what_the_kit_looks_for_and_not_what_it_must_not_find(tmp_path):
    async with meeting(tmp_path) as met:
        async with met.client.get(f"{met.protocol}/catalog/request") as answer:
            datasets = {each["@id"]: each["hasPolicy"][0]["@id"] for each in orjson.loads(await answer.read())["dataset"]}
        assert datasets == {dataset: script.offer_id(dataset) for dataset in script.DATASETS}
        async with met.client.get(f"{met.protocol}/catalog/datasets/CAT0103") as answer:
            assert answer.status == 404
        async with met.client.get(f"{met.protocol}/catalog/request", headers={"Authorization": "Bearer other"}) as answer:
            assert answer.status == 401


@pytest.mark.asyncio
async def test_a_request_is_answered_with_the_scripted_move_and_its_state_is_the_machine_s_own(tmp_path):
    async with meeting(tmp_path) as met:
        request = {
            "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
            "@type": "ContractRequestMessage",
            "consumerPid": PID,
            "offer": {"@id": script.offer_id("ACN0201"), "@type": "Offer", "target": "ACN0201"} | cut.USE,
            "callbackAddress": met.kit.address,
        }
        async with met.client.post(f"{met.protocol}/negotiations/request", json=request) as answer:
            assert answer.status == 201
            ours = orjson.loads(await answer.read())
        assert ours["state"] == "REQUESTED"
        path, message = await met.kit.next()
        assert path == f"/negotiations/{PID}/termination"
        assert message["providerPid"] == ours["providerPid"]


@pytest.mark.asyncio
async def test_the_initiate_routes_make_us_the_consumer_under_the_ids_that_the_kit_gave(tmp_path):
    async with meeting(tmp_path) as met:
        asked = {"providerId": script.KIT, "offerId": "offerACNC0201", "datasetId": "ACNC0201", "connectorAddress": met.kit.address}
        async with met.client.post(met.initiate + config.NEGOTIATIONS_PATH, json=asked) as answer:
            assert answer.status == 200
        path, message = await met.kit.next()
        assert path == "/negotiations/request"
        assert (message["offer"]["@id"], message["offer"]["target"]) == ("offerACNC0201", "ACNC0201")
        assert message["callbackAddress"] == met.protocol
        assert "providerPid" not in message
        asked = {"providerId": script.KIT, "agreementId": "ATPC0101", "format": script.FORMAT, "connectorAddress": met.kit.address}
        async with met.client.post(met.initiate + config.TRANSFERS_PATH, json=asked) as answer:
            assert answer.status == 200
        path, message = await met.kit.next()
        assert (path, message["agreementId"], message["format"]) == ("/transfers/request", "ATPC0101", script.FORMAT)


@pytest.mark.asyncio
async def test_only_the_kit_s_header_is_the_kit():
    identity = cut.ScriptedIdentity("http://127.0.0.1:1")
    assert (await identity.verify(config.AUTHORIZATION)).participant.id == script.KIT
    for other in (None, "", "Bearer", config.AUTHORIZATION.lower()):
        with pytest.raises(Unauthenticated):
            await identity.verify(other)


def test_the_approver_puts_the_scripted_move_off_and_leaves_a_refusal_of_policy_as_it_is():
    approver = cut.ScriptedApprover()
    agreed = Act(Move.CONTRACT_AGREEMENT)
    assert approver.next_act(process(dataset="ACN0101"), agreed) == Act(Move.CONTRACT_OFFER, script.DELAY_SECONDS)
    assert approver.next_act(process(dataset="ACN0202"), agreed) is None
    refused = Act(Move.CONTRACT_TERMINATION, code="denied", reasons=("not for you",))
    assert approver.next_act(process(dataset="ACN0101"), refused) is refused
    with pytest.raises(KeyError):
        approver.next_act(process(dataset="other"), None)


def test_it_says_that_it_is_ready_and_ends_with_zero_when_asked_to(tmp_path):
    port, initiate, kit = free_ports(3)
    command = [sys.executable, "-m", "tests.tck.cut", "--directory", str(tmp_path), "--port", str(port)]
    command += ["--initiate-port", str(initiate), "--kit", f"http://127.0.0.1:{kit}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline().strip() == READY, child.stderr.read()
        child.terminate()
        output, errors = child.communicate(timeout=ANSWER_SECONDS)
    assert (child.returncode, output) == (0, ""), errors
