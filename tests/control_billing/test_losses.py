"""What a transfer had not signed for when it ended is written off: nothing of it counts any more, and who did that is on record."""

from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control_billing.losses import write_off
from connector.dataplane_accounts.opens import unsigned
from connector.dsp.messages import Role
from connector.errors import Contradiction, NotFound
from connector.records import Changes
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.dataplane.rig import process
from tests.metering.rig import CHUNK, LAYOUT, account, both

pytestmark = pytest.mark.asyncio


async def journal(*saves: Any) -> Journal:
    store = MemoryStore()
    assert isinstance(await store.commit(Changes(saves=saves)), tuple)
    return Journal(store, SetClock())


async def test_what_was_on_its_way_counts_no_more_and_what_was_signed_for_stays():
    signed = replace(both(((1, 3),))[0], sent=((0, 5 * CHUNK),), size_bytes=LAYOUT.size_bytes, version=4, updated=7.0)
    found = await journal(signed, process("TERMINATED", signed.transfer))
    assert unsigned(signed).size_bytes == 3 * CHUNK
    await write_off(found, signed.agreement, {signed.transfer: 3 * CHUNK}, "its disk died")
    stored = await found.store.metered(signed.transfer)
    assert stored == replace(signed, sent=(), version=5), "when it ended stays as well"
    assert unsigned(stored).size_bytes == 0
    (fact,) = await found.store.evidence_of(signed.transfer)
    assert (fact.what, fact.peer, fact.detail) == ("credit-released", signed.peer, {"reason": "its disk died", "bytes": 3 * CHUNK})


async def test_of_one_that_runs_nothing_is_written_off_nor_of_what_we_consume():
    signed = replace(both(((1, 3),))[0], sent=((0, 5 * CHUNK),), size_bytes=LAYOUT.size_bytes, version=4)
    ours = replace(account(Role.CONSUMER), transfer="ours")
    found = await journal(signed, ours, process("SUSPENDED", signed.transfer))
    with pytest.raises(Contradiction, match="is in state SUSPENDED"):
        await write_off(found, signed.agreement, {signed.transfer: 1}, "")
    for transfer in ("ours", "none"):
        with pytest.raises(NotFound, match="as its provider"):
            await write_off(found, signed.agreement, {transfer: 1}, "")
    assert await found.store.metered(signed.transfer) == signed


async def test_of_several_all_or_nothing_is_written_off_in_one_write():
    signed = replace(both(((1, 3),))[0], sent=((0, 5 * CHUNK),), size_bytes=LAYOUT.size_bytes, version=4, updated=7.0)
    other = replace(signed, transfer="urn:other")
    found = await journal(
        signed, other, process("TERMINATED", signed.transfer), replace(process("SUSPENDED", other.transfer), peer_pid="o")
    )
    commits, commit = [], found.store.commit

    async def counted(changes: Changes) -> Any:
        commits.append(changes)
        return await commit(changes)

    found.store.commit = counted  # type: ignore[method-assign]
    lost = {signed.transfer: 3 * CHUNK, other.transfer: 3 * CHUNK}
    with pytest.raises(Contradiction, match="urn:other"):
        await write_off(found, signed.agreement, lost, "")
    assert (commits, await found.store.metered(signed.transfer)) == ([], signed), "nothing of the first, as the second runs"
    await commit(Changes(saves=(replace(process("TERMINATED", other.transfer), peer_pid="o", version=2),)))
    await write_off(found, signed.agreement, lost, "their disks died")
    assert len(commits) == 1
    assert [await found.store.metered(each) for each in lost] == [replace(each, sent=(), version=5) for each in (signed, other)]
