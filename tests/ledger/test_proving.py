"""Many proofs of a log: each is what one made alone is, and tiles are read once."""

import pytest

from connector.errors import NotFound
from connector.ledger import proving
from connector.ledger.proving import Proving
from connector.ledger.reading import prove_consistency, prove_inclusion
from tests.contracts.samples import OWN
from tests.ledger.rig import Site


@pytest.mark.asyncio
async def test_each_proof_is_the_one_that_is_made_alone(monkeypatch: pytest.MonkeyPatch):
    async with Site(OWN) as site:
        await site.say(600)
        await site.book.index_of(600)
        (log,) = await site.store.logs()
        reads: list[tuple[int, int]] = []
        leaves = site.store.leaves

        async def counted(number: int, first: int, limit: int) -> object:
            reads.append((first, limit))
            return await leaves(number, first, limit)

        monkeypatch.setattr(site.store, "leaves", counted)
        many = Proving(site.store)
        found = [await many.inclusion(log, index, 600) for index in range(0, 600, 7)]
        continued = [await many.consistency(log, old, 600) for old in range(1, 601, 13)]
        assert len(reads) == len(set(reads)) <= 3, "each tile is read once"
        assert found == [await prove_inclusion(site.store, log, index, 600) for index in range(0, 600, 7)]
        assert continued == [await prove_consistency(site.store, log, old, 600) for old in range(1, 601, 13)]
        for wrong in (many.inclusion(log, 600, 600), many.inclusion(log, 0, 601), many.consistency(log, 2, 1)):
            with pytest.raises(NotFound):
                await wrong


@pytest.mark.asyncio
async def test_what_is_at_hand_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proving, "TILES_MAX", 2)
    monkeypatch.setattr(proving, "NODES_MAX", 30)
    async with Site(OWN) as site:
        await site.say(520)
        await site.book.index_of(520)
        (log,) = await site.store.logs()
        many = Proving(site.store)
        for index in range(0, 520, 31):
            assert await many.inclusion(log, index, 520) == await prove_inclusion(site.store, log, index, 520)
            assert len(many._tiles) <= 2 + 4
            assert len(many._nodes) <= 30 + 20
