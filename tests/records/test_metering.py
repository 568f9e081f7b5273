"""The values that are stored about metered transfers."""

from connector.dsp.messages import Role
from connector.records.metering import Counts, Metered
from connector.values import replace


def test_an_account_begins_with_nothing_signed_by_the_consumer():
    account = Metered("urn:uuid:1", Role.PROVIDER, "urn:uuid:2", "did:web:c.example", "jws", "p.example/ds/1", 262_144)
    assert (account.sequence, account.receipt, account.counts, account.attested) == (0, "", Counts(), "provider-only")
    assert replace(account, counts=Counts(bytes=5)).counts.bytes == 5
