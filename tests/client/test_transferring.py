"""Orders over the client: one call is one order, and whoever follows it sees it to its end, also over a restart."""

import pytest

from connector.client import transport
from connector.client.management import ManagementClient, ManagementError
from tests.fake_connector import TOKEN, FakeConnector, event, moving, problem, pull_view, serving


@pytest.mark.asyncio
async def test_two_orders_have_two_keys_and_a_repeated_one_its_own():
    with serving(FakeConnector({("POST", "/v1/pulls"): (201, pull_view("negotiate"))})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            for key in (None, None, "mine"):
                await client.pull("h", "d", "/x", key=key)
    first, second, third = (asked.headers["Idempotency-Key"] for asked in fake.asked)
    assert first != second
    assert third == "mine"


def stage(sequence: int, stage: str, pull: str = "urn:uuid:p1") -> bytes:
    return event(sequence, "pull", pid="urn:uuid:t1", detail={"pull": pull, "stage": stage, "reasons": ["why"]})


@pytest.mark.asyncio
async def test_a_pull_is_followed_to_its_end_without_polling():
    others = [stage(1, "done", "urn:uuid:other"), moving(pull_view("download", id="urn:uuid:other", received_bytes=1))]
    own = [stage(2, "download"), moving(pull_view("download", received_bytes=5, size_bytes=9)), stage(3, "done")]
    views = [(200, pull_view("transfer")), (200, pull_view("download")), (200, pull_view("done", received_bytes=9))]
    with serving(FakeConnector({("GET", "/v1/pulls/urn%3Auuid%3Ap1"): views}, [[*others, *own]])) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            seen = [(pull.stage, pull.received_bytes) async for pull in client.follow("urn:uuid:p1")]
    assert seen == [("transfer", 0), ("download", 0), ("download", 5), ("done", 9)]
    assert fake.paths() == ["GET /v1/events?after=now", *["GET /v1/pulls/urn%3Auuid%3Ap1"] * 3]


@pytest.mark.asyncio
async def test_a_pull_that_ended_while_the_connector_was_away_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "FIRST_RETRY_SECONDS", 0.001)
    views = [(200, pull_view("download")), (200, pull_view("failed", reasons=["gone"]))]
    with serving(FakeConnector({("GET", "/v1/pulls/urn%3Auuid%3Ap1"): views}, [[], []])) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            seen = [pull async for pull in client.follow("urn:uuid:p1")]
    assert [pull.stage for pull in seen] == ["download", "failed"]
    assert seen[-1].reasons == ("gone",)


@pytest.mark.asyncio
async def test_the_record_is_believed_before_the_live_view():
    views = [(200, pull_view("download"))]
    with serving(FakeConnector({("GET", "/v1/pulls/urn%3Auuid%3Ap1"): views}, [[stage(3, "failed")]])) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            seen = [pull async for pull in client.follow("urn:uuid:p1")]
    assert (seen[-1].stage, seen[-1].reasons) == ("failed", ("why",))


@pytest.mark.asyncio
async def test_following_a_pull_that_is_not_there_is_an_error():
    refusal = problem(404, "not-found", "there is no pull `x`")
    with serving(FakeConnector({("GET", "/v1/pulls/x"): (404, refusal)}, [[]])) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            with pytest.raises(ManagementError, match="there is no pull"):
                await anext(client.follow("x"))
