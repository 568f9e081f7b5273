"""The receipt that counted at an instant is found among any number of them, in as many looks as the number has binary digits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.control_billing.receipted import accepted, last_before
from connector.dsp.messages import Role
from connector.metering.objects import digest
from connector.records import Changes
from connector.records.metering import Metered, Receipted
from connector.values import replace
from tests.metering.rig import ACK, RECEIPT, account, signed

TRANSFER = "urn:uuid:transfer"


class Counting(MemoryStore):
    """Counts how often it is asked."""

    asked = 0

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        self.asked += 1
        return await super().receipts(transfer, first, end)


def row(sequence: int, at: int | None) -> Receipted:
    """A receipt that was acknowledged at an instant; None: it was not yet."""
    token = signed(replace(RECEIPT, sequence=sequence, previous=None if sequence == 1 else bytes(32), id=f"j{sequence}"))
    ack = "" if at is None else signed(replace(ACK, issued=at, sequence=sequence, receipt=digest(token)))
    return Receipted(TRANSFER, sequence, digest(token), token, ack, float(at or 0))


async def kept(*rows: Receipted, sequence: int | None = None) -> tuple[Counting, Metered]:
    store = Counting()
    await store.commit(Changes(saves=rows))
    last = max((each.sequence for each in rows), default=0) if sequence is None else sequence
    return store, replace(account(Role.PROVIDER), transfer=TRANSFER, sequence=last)


@given(
    st.lists(st.integers(0, 30), max_size=20).map(sorted), st.booleans(), st.integers(-1, 31) | st.just(float("inf")), st.integers(1, 25)
)
def test_it_is_the_last_one_of_before_however_many_there_are(instants: list[int], pending: bool, before: float, below: int):
    rows = [row(number, at) for number, at in enumerate([*instants, *([None] if pending else [])], 1)]

    async def work() -> None:
        store, stored = await kept(*rows)
        for bound in (None, below):
            store.asked = 0
            fitting = [each for each in rows if each.ack and each.at < before and (bound is None or each.sequence < bound)]
            assert await last_before(store, stored, before, bound) == (fitting[-1] if fitting else None)
            assert store.asked <= len(rows).bit_length() + 1

    asyncio.run(work())


@pytest.mark.asyncio
async def test_of_two_with_one_number_the_one_that_was_accepted_counts_and_of_lost_ones_those_that_are_here():
    forged = replace(row(2, 5), digest=b"f" * 32, ack=None)
    store, stored = await kept(row(1, 3), forged, row(2, 5))
    found = await accepted(store, TRANSFER, 2)
    assert found is not None
    assert found.digest == row(2, 5).digest
    assert await last_before(store, stored) == found
    store, stored = await kept(row(7, 5))
    assert await last_before(store, stored) == row(7, 5)
    assert await last_before(store, stored, 5.0) is None
    store, stored = await kept(row(1, 3), row(2, 5), sequence=1_000)
    assert await last_before(store, stored) == row(2, 5), "those that came after them are lost"
