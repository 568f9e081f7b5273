"""An operator says that there is enough of an order, or cancels it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from connector.dsp.exchange import Process
from connector.records import Changes, Pull
from tests import pair
from tests.control.orders import BIG, CONTENT, D, T, order, place, settled

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


async def test_an_order_that_has_all_of_its_data_is_not_shown_as_fetching_them_while_the_provider_is_slow_to_hear_it(tmp_path: Path):
    heard = asyncio.Event()
    async with pair.pair(tmp_path) as both:
        store = both.provider.connector.store

        async def slow(changes: Changes) -> Any:
            if any(isinstance(record, Process) and record.kind is T and record.state == "COMPLETED" for record in changes.saves):
                await heard.wait()
            return await type(store).commit(store, changes)

        await both.provider.publish(D, content=CONTENT)
        with both.provider.commits(slow):
            ordered = await order(both.consumer)
            await settled(both.consumer, ordered["id"], "complete")
            view = await both.consumer.asked("GET", f"/pulls/{ordered['id']}")
            assert (view["stage"], view["received_bytes"]) == ("complete", len(CONTENT))
            assert (await both.consumer.asked("GET", "/pulls"))["items"] == [view]
            heard.set()
            assert (await settled(both.consumer, ordered["id"])).stage == "done"


async def test_a_range_is_ordered_proven_and_counted_on_both_sides_by_the_leaves_that_hold_it(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        await both.provider.publish(D, pair.OPEN, content=BIG)
        wish = {"peer": "hospital", "dataset": D, "out": str(place(both.consumer)), "range": "300000-999999"}
        ordered = await both.consumer.asked("POST", "/pulls", wish, status=201)
        assert ordered["range"] == "300000-999999"
        done = await settled(both.consumer, ordered["id"])
        assert (done.stage, done.size_bytes, place(both.consumer).read_bytes() == BIG[300_000:1_000_000]) == ("done", 700_000, True)
        said = "signed for and counted is the whole of the leaves that hold it, 786432 bytes"
        assert done.reasons == (f"the range `300000-999999` is 700000 bytes; {said}",)
        ours = await both.consumer.state(T, done.transfer or "", "COMPLETED")
        await both.provider.state(T, ours.peer_pid or "", "COMPLETED")
        for us in (both.provider, both.consumer):
            usage = await us.asked("GET", f"/agreements/{pair.quoted(done.agreement or '')}/usage")
            assert (usage["counts"]["bytes"], usage["signed"]["bytes"]) == (786_432, 786_432)

        late = await both.consumer.asked(
            "POST", "/pulls", wish | {"out": str(place(both.consumer, "late")), "range": "4194304-"}, status=201
        )
        failed = await settled(both.consumer, late["id"])
        assert (failed.stage, "`0-4194303` is all of them" in failed.reasons[-1]) == ("failed", True)
        for mistake in ({"range": "9-5"}, {"push": True}, {"seconds": 3}):
            answer = await both.consumer.manage("POST", "/pulls", wish | mistake)
            assert (answer.status, answer.json["pointer"]) == (400, "/range")
