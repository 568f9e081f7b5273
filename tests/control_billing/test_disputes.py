"""The way back from a dispute, on either side: what was accepted counts again, and what contradicts itself stays on record."""

from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control_billing.disputes import settle
from connector.dsp.messages import Role
from connector.errors import Contradiction, NotFound
from connector.records import Changes
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.metering.rig import account, both

pytestmark = pytest.mark.asyncio


async def journal(*saves: Any) -> Journal:
    store = MemoryStore()
    assert isinstance(await store.commit(Changes(saves=saves)), tuple)
    return Journal(store, SetClock())


@pytest.mark.parametrize("side", [0, 1], ids=["provider", "consumer"])
async def test_an_account_is_taken_up_where_it_was_and_who_has_settled_it_is_on_record(side: int):
    signed = both(((1, 3),), ((3, 5),))[side]
    found = await journal(replace(signed, status="disputed", version=4))
    settled = await settle(found, signed.transfer, "we have met")
    assert settled == replace(signed, status="open", version=5, updated=settled.updated) == await found.store.metered(signed.transfer)
    (fact,) = await found.store.evidence_of(signed.transfer)
    assert (fact.what, fact.peer, fact.detail) == ("dispute-settled", signed.peer, {"reason": "we have met"})
    with pytest.raises(Contradiction, match="is open, not disputed"):
        await settle(found, signed.transfer, "again")
    assert len(await found.store.evidence_of(signed.transfer)) == 1


async def test_one_without_a_receipt_is_open_and_one_that_is_not_there_is_not_settled():
    unsigned = replace(account(Role.PROVIDER), status="disputed")
    found = await journal(unsigned)
    assert (await settle(found, unsigned.transfer, "")).status == "open"
    with pytest.raises(NotFound, match="`urn:uuid:other`"):
        await settle(found, "urn:uuid:other", "")
