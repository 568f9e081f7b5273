"""An operator says that there is enough of an order, or cancels it."""

import time
from pathlib import Path

import pytest

from connector.records import Changes, Pull
from tests import pair

pytestmark = pytest.mark.asyncio


async def test_an_order_that_is_not_there_or_does_not_fetch_cannot_be_stopped(tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        assert (await us.manage("POST", "/pulls/none/end")).status == 404
        await us.connector.store.commit(Changes(saves=(Pull("urn:p", "did:web:x", "urn:d", "x", "done", version=1),)))
        answer = await us.manage("POST", f"/pulls/{pair.quoted('urn:p')}/end")
        assert (answer.status, "the order is at `done`" in answer.json["detail"]) == (409, True)


async def test_an_order_that_fetches_ends_now_also_if_nobody_fetches_at_the_moment(tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        await us.connector.store.commit(Changes(saves=(Pull("urn:p", "did:web:x", "urn:d", "x", "download", version=1),)))
        view = await us.asked("POST", f"/pulls/{pair.quoted('urn:p')}/end")
        assert view["until"] is not None
        stored = await us.connector.store.pull("urn:p")
        assert stored is not None
        assert (stored.until or 0) <= time.time()


async def test_an_order_is_cancelled_with_a_reason_or_without(tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        for id, body, reason in (("urn:p", None, "ended by an operator"), ("urn:q", {"reason": "not needed"}, "not needed")):
            await us.connector.store.commit(Changes(saves=(Pull(id, "did:web:x", "urn:d", f"/x/{id}", "download", version=1),)))
            view = await us.asked("POST", f"/pulls/{pair.quoted(id)}/cancel", body)
            assert (view["stage"], view["reasons"]) == ("failed", [reason])
            again = await us.manage("POST", f"/pulls/{pair.quoted(id)}/cancel", body)
            assert (again.status, "at `failed`: it is over, and nothing is left to cancel" in again.json["detail"]) == (409, True)
        await us.connector.store.commit(Changes(saves=(Pull("urn:s", "did:web:x", "urn:d", "/x/s", "complete", version=1),)))
        late = await us.manage("POST", "/pulls/urn:s/cancel")
        assert (late.status, "all of its data has come" in late.json["detail"]) == (409, True)
        answer = await us.manage("POST", "/pulls/urn:r/cancel", {"why": "x"})
        assert (answer.status, "why" in answer.json["detail"]) == (400, True)


@pytest.mark.parametrize("bound", [{"most_bytes": 0}, {"most_bytes": "x"}, {"seconds": 0}, {"seconds": -1}])
async def test_a_bound_of_nothing_is_refused(tmp_path: Path, bound: dict[str, object]):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        wish = {"peer": "x", "dataset": "urn:d", "out": "/x"}
        assert (await us.manage("POST", "/pulls", wish | bound)).status == 400
