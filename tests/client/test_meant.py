"""Which one is meant by the word that stands for the newest; the commands that take it are in tests/cli/test_processes.py."""

import pytest

from connector.client.management import ManagementClient, ManagementError
from connector.client.meant import agreement_of, known, order_of, process_of
from connector.errors import ConnectorError
from tests.fake_connector import TOKEN, FakeConnector, problem, process_view, serving

pytestmark = pytest.mark.asyncio


async def test_an_id_is_itself_and_nobody_is_asked():
    with serving(FakeConnector()) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            assert [await each(client, "urn:x") for each in (agreement_of, order_of, process_of)] == ["urn:x"] * 3
        assert fake.asked == []


@pytest.mark.parametrize(("negotiated", "begun", "newest"), [("01", "02", "t"), ("02", "01", "n"), ("01", None, "n"), (None, "01", "t")])
async def test_the_newest_of_both_kinds_is_the_one_that_was_begun_last(negotiated: str | None, begun: str | None, newest: str):
    def listed(pid: str, at: str | None) -> tuple[int, object]:
        return 200, {"items": [process_view(pid=pid, created=f"2026-01-{at}T00:00:00.000Z")] if at else [], "next": None}

    answers = {("GET", "/v1/negotiations"): listed("n", negotiated), ("GET", "/v1/transfers"): listed("t", begun)}
    with serving(FakeConnector(answers)) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            assert await process_of(client, "latest") == newest
        assert fake.paths() == ["GET /v1/negotiations?limit=1", "GET /v1/transfers?limit=1"]


async def test_what_a_process_is_is_asked_and_an_error_that_says_something_else_is_not_taken_for_none():
    at = ("GET", "/v1/processes/n")
    with serving(FakeConnector({at: [(404, problem(404, "not-found", "none")), (503, problem(503, "busy", "stopping"))]})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            with pytest.raises(ConnectorError, match="there is no negotiation or transfer `n`; `connector negotiations`"):
                await known(client, "n")
            with pytest.raises(ManagementError, match="stopping"):
                await known(client, "n")
