"""Statements over the client: the period is the query, and what is no statement is said."""

from typing import Any

import pytest

from connector.client.management import ManagementClient, ManagementError
from tests.fake_connector import TOKEN, FakeConnector, serving

SAID = {"agreement": "a/b", "outcome": "agreed", "code": None, "totals": {"bytes": 1}, "flows": []}


@pytest.mark.parametrize(
    ("period", "query"),
    [
        ({}, ""),
        ({"begins": "2026-01-01"}, "?from=2026-01-01"),
        ({"begins": "2026-01-01", "ends": "2026-02-01"}, "?from=2026-01-01&to=2026-02-01"),
    ],
)
@pytest.mark.asyncio
async def test_a_statement_is_of_a_period(period: dict[str, Any], query: str):
    with serving(FakeConnector({("POST", "/v1/agreements/a%2Fb/statement"): (200, SAID)})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            assert await client.statement("a/b", **period) == SAID
        assert fake.paths() == [f"POST /v1/agreements/a%2Fb/statement{query}"]


@pytest.mark.asyncio
async def test_an_answer_that_is_none_is_said():
    with serving(FakeConnector({("POST", "/v1/agreements/a/statement"): (200, ["no"])})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            with pytest.raises(ManagementError, match="is not a connector's"):
                await client.statement("a")


@pytest.mark.asyncio
async def test_a_dispute_is_settled_with_a_reason():
    said = {"transfer": "t/1", "status": "open"}
    with serving(FakeConnector({("POST", "/v1/transfers/t%2F1/settle-dispute"): (200, said)})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            await client.settle_dispute("t/1", "we have met")
        assert fake.paths() == ["POST /v1/transfers/t%2F1/settle-dispute"]
