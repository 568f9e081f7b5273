"""Two connectors whose agreement demands signed requests: the consumer gets its data, and its token is of no use to anybody else."""

import hashlib
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from connector import telemetry
from connector.adapters import keys
from connector.evidence.verify import verify
from connector.ports import COUNTERSIGNED, SIGNED_REQUESTS
from connector.records import Edr
from connector.signatures import http
from tests import pair
from tests.dataplane.rig import some_bytes
from tests.test_app import pulled

POSSESSION = {"leftOperand": "https://w3id.org/qiao/v1/possession", "operator": "eq", "rightOperand": {"@id": SIGNED_REQUESTS}}
METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": {"@id": COUNTERSIGNED}}
CONTENT = some_bytes(3_000_000)
DATASET = "urn:test:signed"


def offered(*constraints: Any) -> dict[str, Any]:
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": list(constraints)}]}


@pytest.mark.parametrize("policy", [offered(POSSESSION), offered(POSSESSION, METERING)], ids=["signed", "signed and receipted"])
@pytest.mark.asyncio
async def test_a_token_is_its_consumers_alone(policy: dict[str, Any], tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, policy, content=CONTENT)
        edrs: list[Edr] = []
        both.consumer.connector.journal.listen(lambda changes, _: edrs.extend(each for each in changes.saves if isinstance(each, Edr)))
        order = await pulled(both.consumer, "hospital", DATASET)
        assert (order["stage"], order["sha256"]) == ("done", hashlib.sha256(CONTENT).hexdigest()), order
        token, endpoint = edrs[0].access_token or "", edrs[0].address["endpoint"]
        async with aiohttp.request("GET", endpoint, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert (answer.status, orjson.loads(await answer.read())["type"]) == (401, "urn:qiao:problem:signature-missing")
            assert http.wanted(answer.headers["Accept-Signature"]) is not None
        legs = [each for each in await both.consumer.evidence(order["transfer"]) if each.what == telemetry.LEG]
        assert legs
        for leg in legs:
            assert {"request", "answer"} <= leg.detail.keys()
            assert token.encode() not in orjson.dumps(leg.detail)
            assert leg.detail["request"]["base"].startswith('"@method": GET\n')
            assert leg.detail["answer"]["base"].startswith('"@status": 200\n')
        exported = await both.consumer.manage("GET", f"/agreements/{pair.quoted(order['agreement'])}/evidence")
        report = verify(exported.body)
        assert report.findings == ()
        assert report.to_json()["agreement"]["answers"] == {"signed": len(legs), "requests_signed": len(legs)}
        assert not any("requests for data" in text or "of which transfer" in text for text in report.unproven)
        assert not any("answers with data: what it has signed" in text for text in report.unproven)


@pytest.mark.asyncio
async def test_where_nothing_is_demanded_answers_are_signed_all_the_same(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, pair.OPEN, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        legs = [each for each in await both.consumer.evidence(order["transfer"]) if each.what == telemetry.LEG]
        assert [leg.detail["status"] for leg in legs][:1] == [200]
        assert all("answer" in leg.detail for leg in legs)


@pytest.mark.asyncio
async def test_what_a_key_has_signed_is_proven_after_it_has_ended_and_only_its_public_half_is_left(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, pair.OPEN, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        for side in (both.provider, both.consumer):
            folder, own = side.site.settings.keys.directory, side.site.id
            (old,) = keys.Keys(folder, own).public()
            keys.generate(folder, time.time())
            keys.retire(folder, old.kid.partition("#")[2], time.time())
            assert keys.forget(folder, own, time.time() + 1) == [old.kid.partition("#")[2]]
            assert (await side.manage("POST", "/reload")).status == 200
        both.provider.site.meet(both.consumer.site)  # each has read the other's self-description of now
        for side in (both.provider, both.consumer):
            assert (await side.manage("POST", "/reload")).status == 200
        again = await pulled(both.consumer, "hospital", DATASET, name="again")
        assert again["stage"] == "done"
        for side in (both.provider, both.consumer):
            exported = await side.manage("GET", f"/agreements/{pair.quoted(order['agreement'])}/evidence")
            report = verify(exported.body)
            assert report.findings == ()
            assert report.told is not None
            assert report.told.counts.bytes >= len(CONTENT)
