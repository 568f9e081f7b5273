"""The content log of what a transfer is of, as it is published now."""

from pathlib import Path

import pytest

from connector.adapters.memory import MemoryStore
from connector.dataplane_accounts.indexed import Indexed, nothing_indexed
from connector.records import Changes, Dataset
from connector.values import replace
from tests.dataplane.rig import TRANSFER, process
from tests.dataplane.test_receipts import metered


@pytest.mark.asyncio
async def test_the_log_of_a_transfer_is_that_of_its_dataset_while_that_is_published(tmp_path: Path):
    async with metered(tmp_path) as (rig, _):
        await rig.publish(b"a\n" * 9)
        assert rig.logs is not None
        source, store = rig.transfers.views[TRANSFER].source, MemoryStore()
        indexed = Indexed(store, rig.logs)
        assert await indexed.of(TRANSFER) is None
        await store.commit(Changes(saves=(replace(process("STARTED"), dataset="urn:d"),)))
        assert await indexed.of(TRANSFER) is None, "it was withdrawn"
        await store.commit(Changes(saves=(Dataset("urn:d", b"{}", source, (), version=1),)))
        found = await indexed.of(TRANSFER)
        assert found is not None
        assert found is await rig.logs.at_hand(source)
    assert await nothing_indexed(TRANSFER) is None
