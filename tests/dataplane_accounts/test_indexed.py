"""The content log of what an account is of, as it is published or was until lately."""

from pathlib import Path

import orjson
import pytest

from connector.adapters.memory import MemoryStore
from connector.dataplane_accounts.indexed import Indexed, nothing_indexed
from connector.metering import credit
from connector.metering.content import CHUNK_BYTES
from connector.records import Changes, Dataset
from connector.values import replace
from tests.dataplane.rig import TRANSFER, process
from tests.dataplane.test_receipts import LINES, NDJSON, metered


@pytest.mark.asyncio
async def test_the_log_of_an_account_is_that_of_its_dataset_while_that_is_published_as_it_was(tmp_path: Path):
    async with metered(tmp_path) as (rig, consumer):
        await rig.publish(b"a\n" * 9)
        await consumer.begin()
        account = await rig.store.metered(TRANSFER)
        assert rig.logs is not None
        assert account is not None
        source, store = rig.transfers.views[TRANSFER].source, MemoryStore()
        indexed = Indexed(store, rig.logs)
        await store.commit(Changes(saves=(replace(process("STARTED"), dataset="urn:d"), Dataset("urn:d", b"{}", source, (), version=1))))
        found = await indexed.of(account)
        assert found is not None
        assert found is await rig.logs.at_hand(source)
        other = replace(account, root=b"x" * 32)
        assert [await indexed.of(each) for each in (other, replace(account, root=None))] == [None, None]
        assert await nothing_indexed(account) is None


@pytest.mark.asyncio
@pytest.mark.parametrize("swept", [True, False], ids=["swept", "not yet swept"])
async def test_records_of_data_that_were_published_anew_are_those_that_we_have_counted_also_after_a_start(tmp_path: Path, swept: bool):
    store = MemoryStore()
    async with metered(tmp_path, store) as (rig, consumer):
        await rig.publish(LINES, media_type=NDJSON)
        ends = [LINES[at : at + CHUNK_BYTES].count(b"\n") for at in range(0, len(LINES), CHUNK_BYTES)]
        manifest = await consumer.begin()
        consumer.log = credit.finite(manifest, records=lambda first, last: sum(ends[first - 1 : last - 1]))
        await consumer.sign((1, 2))
        await rig.publish(b"other\n", media_type=NDJSON)
        view = rig.transfers.views[TRANSFER]
    async with metered(tmp_path, store, before=view) as (rig, again):
        assert rig.metering is not None
        assert rig.logs is not None
        if swept:
            rig.logs.sweep([view.source])
        rig.metering.receipts.indexed = Indexed(store, rig.logs).of
        again.account, again.count = consumer.account, consumer.count
        again.log = credit.finite(manifest, records=lambda first, last: ends[0] if first == 1 else 0)
        status, body = await again.post(again.receipt((1, 3)))
        assert status == 422
        assert orjson.loads(body)["code"] == "records-differ"
        again.log = consumer.log
        await again.sign((1, 3))
