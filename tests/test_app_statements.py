"""What a start makes good of statements, on both sides."""

from pathlib import Path

import pytest

from tests import pair
from tests.control_billing.test_stating import SAID, fact, fetched, quick

__all__ = ["quick"]


@pytest.mark.asyncio
async def test_a_start_states_what_ended_without_a_statement_on_either_side(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        for each in (both.provider, both.consumer):
            each.connector.states.stating._closed = True  # as if both had crashed at that moment

        async def never(transfer: str) -> None:
            """The end of a process that states nothing."""

        both.provider.connector.states.receipts.state = never  # type: ignore[method-assign]
        ours, theirs, _ = await fetched(both)
        assert not [
            each for each in (*await both.provider.evidence(theirs), *await both.consumer.evidence(ours)) if "statement" in each.what
        ]
        sites = both.provider.site, both.consumer.site
        await both.provider.connector.close()
        await both.consumer.connector.close()
        async with pair.running(sites[0]) as provider, pair.running(sites[1]) as consumer:
            assert (await fact(consumer, ours, *SAID)).what == "statement-agreed"
            assert (await fact(provider, theirs, *SAID)).what == "statement-agreed"
