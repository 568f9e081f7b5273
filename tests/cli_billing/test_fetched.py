import pytest

from connector.cli_billing.fetched import cost, signed, used_under
from connector.client.management import ManagementClient
from connector.client.views import AgreementUsage, Pull
from tests.fake_connector import TOKEN, FakeConnector, problem, serving

ORDER = Pull("urn:p", "download", "h", "urn:d", "/x", received_bytes=5000, transfer="urn:t")


def usage(attested: str, amount: str | None) -> AgreementUsage:
    transfers = ({"transfer": "urn:t", "attested": attested, "counts": {"bytes": 4000}},)
    owed = {"amount": amount, "currency": "EUR"} if amount else {"reasons": ["no prices"]}
    return AgreementUsage("urn:a", "consumer", "2026-11-27T00:00:00Z", {}, {}, transfers=transfers, cost=owed)


def test_what_is_proven_signed_for_and_owed_is_said_as_far_as_both_know_it():
    assert signed(ORDER, usage("both", "1.25")) == ["proven 5.0 kB, signed for 4.0 kB", "the agreement comes to 1.25 EUR so far"]
    assert signed(ORDER, usage("provider-only", None)) == signed(ORDER, None) == []
    assert cost(usage("both", None)) is None


@pytest.mark.asyncio
async def test_a_connector_that_does_not_count_is_no_fault():
    with serving(FakeConnector({("GET", "/v1/agreements/urn%3Aa/usage"): (404, problem(404, "not-found", "no"))})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            assert await used_under(client, "urn:a") is None
