"""Two connectors, and data that never end: what a consumer had signed when it was killed is signed for after the end of its transfer."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.dataplane import accounts
from connector.dataplane.edr import Tokens
from connector.dsp.messages import Kind
from connector.errors import StoreError, TokenRefused
from tests import pair
from tests.dataplane_live import upstream
from tests.dataplane_live.child import Child
from tests.dataplane_live.test_live_pair import SINCE, follow, publish, settled, until


def ended_token(*_: Any) -> Any:
    raise TokenRefused("the access token has expired; renew it")


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_receipt_that_nobody_heard_before_a_kill_is_taken_after_the_end_without_the_token_of_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, other = (
        pair.site(tmp_path / "hospital", "hospital", store="sqlite"),
        pair.site(tmp_path / "biopharma", "biopharma", store="sqlite"),
    )
    one.meet(other)
    monkeypatch.setattr(accounts, "ENDED_MAX", 0)  # so long after the end that its log has to be opened again
    async with upstream.running() as url, pair.running(one) as provider, aiohttp.ClientSession() as http:
        consumer, receipts, posted = Child(other, http), provider.connector.states.receipts, asyncio.Event()

        async def unheard(*_: Any) -> Any:
            posted.set()
            raise StoreError("nothing can be written now")

        try:
            await consumer.start()
            await publish(provider, url + "/lines?pause=0.005&size=4000", since=SINCE)
            id = await follow(consumer)
            await until(provider, "ack-signed", 2)
            with monkeypatch.context() as deaf:
                deaf.setattr(receipts, "take", unheard)
                await posted.wait()
                await consumer.kill()
            (transfer,) = await provider.connector.store.open_transfers()
            before = await provider.connector.store.metered(transfer.pid)
            await provider.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/terminate", {"reason": "enough"})
            monkeypatch.setattr(Tokens, "check_access", ended_token)
            agreed = asyncio.create_task(until(provider, "statement-agreed"))
            await consumer.start()
            order = await settled(consumer, id)
            await agreed
            await provider.state(Kind.TRANSFER, transfer.pid, "TERMINATED")
            after = await provider.connector.store.metered(transfer.pid)
            assert receipts._accounts.at_hand(transfer.pid) is None
            used = await consumer.asked("GET", f"/agreements/{pair.quoted(order['agreement'])}/usage")
        finally:
            await consumer.kill()
    assert before is not None
    assert after is not None
    assert after.sequence == before.sequence + 1
    assert used["transfers"][0]["counts"]["bytes"] == after.counts.bytes > before.counts.bytes
    assert all(first >= after.counts.bytes for first, _ in after.sent), "only what was on the wire is lost"
