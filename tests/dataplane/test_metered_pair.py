"""Two connectors, one of which signs for what the other sends: the whole of it, as both have it on record."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from connector.dsp.messages import Kind
from connector.metering.objects import Ack, Manifest, Receipt, kept
from connector.metering.statements import Statement
from connector.metering_bills.terms import name_of
from connector.odrl import load
from connector.ports import COUNTERSIGNED
from connector.records import Evidence
from tests import pair
from tests.dataplane.rig import some_bytes
from tests.metering_bills.priced import price
from tests.odrl_forms.shipped import options
from tests.test_app import pulled

METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
DEMANDING = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING]}]}
CONTENT = some_bytes(3_000_000)
DATASET = "urn:test:metered"


@pytest.mark.parametrize("policy", [DEMANDING, pair.OPEN], ids=["demanded", "offered"])
@pytest.mark.asyncio
async def test_both_sides_come_to_the_same_count_with_everything_on_record(policy: dict[str, Any], tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, policy, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        assert (order["stage"], order["sha256"]) == ("done", hashlib.sha256(CONTENT).hexdigest()), order
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert transfer is not None
        ended = await both.provider.state(Kind.TRANSFER, transfer.peer_pid or "", "COMPLETED")
        theirs = await both.provider.connector.store.metered(ended.pid)
        ours = await both.consumer.connector.store.metered(transfer.pid)
        assert theirs is not None
        assert ours is not None
        assert (theirs.status, theirs.attested, theirs.counts.bytes) == ("complete", "both", len(CONTENT))
        assert (ours.manifest, ours.receipt, ours.ack, ours.counts) == (theirs.manifest, theirs.receipt, theirs.ack, theirs.counts)
        assert kept(Manifest, theirs.manifest).required is (policy is DEMANDING)
        assert kept(Receipt, theirs.receipt).state == "complete"
        assert kept(Ack, theirs.ack).index is not None
        signed = await on_record(both.provider, ended.pid, "statement-signed")
        assert kept(Statement, signed.entry or "").totals == theirs.counts


@pytest.mark.asyncio
async def test_the_manifest_names_the_prices_that_were_agreed(tmp_path: Path):
    duties = [price("0.0333", "megabyte")]
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, {"@type": "Offer", "permission": [{"action": "use", "duty": duties}]}, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        assert order["stage"] == "done", order
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert transfer is not None
        theirs = await both.provider.connector.store.metered(transfer.peer_pid or "")
        assert theirs is not None
        agreement = await both.consumer.connector.store.agreement(theirs.agreement)
        assert agreement is not None
        named = name_of(load(agreement.document, options=options()))
        assert named is not None
        assert kept(Manifest, theirs.manifest).prices == named


async def on_record(at: pair.Running, pid: str, what: str) -> Evidence:
    """The newest fact of this kind about a process, once there is one."""
    news = asyncio.Event()
    at.connector.journal.listen(lambda _changes, _evidence: news.set())
    async with asyncio.timeout(pair.WAIT_SECONDS):
        while not (found := [fact for fact in await at.evidence(pid) if fact.what == what]):
            await news.wait()
            news.clear()
    return found[-1]
