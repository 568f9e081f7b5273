"""By whose word an agreement is closed: what each side has signed says it, and nothing else."""

from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control_billing.closed import closed_of, own_closing
from connector.metering.closing import Closing, ClosingAck, instant_of
from connector.metering.objects import digest
from connector.metering_bills.invoice import Closed
from connector.records import Agreement, Changes, Evidence
from connector.values import replace
from tests.dataplane.rig import FakeIdentity
from tests.metering.rig import CONSUMER, NOW, PROVIDER

AT = NOW + 0.25
AGREEMENT = Agreement("urn:uuid:a", "urn:n", CONSUMER, PROVIDER, CONSUMER, "urn:d", {}, bytes(32), final=True, created=NOW - 9.0)
OURS = Closing(PROVIDER, CONSUMER, "c1", NOW + 1, AGREEMENT.id, instant_of(AT))
THEIRS = replace(OURS, issuer=CONSUMER, audience=PROVIDER, at=instant_of(AT + 5), issued=NOW + 9)


def fact(what: str, said: Closing | ClosingAck | None, **detail: Any) -> Evidence:
    token = None if said is None else FakeIdentity(said.issuer).sign(said.claims(), said.TYP)
    name = None if token is None else digest(token)
    return Evidence(what, None, AGREEMENT.id, CONSUMER, None, AT, digest=name, detail=detail, entry=token)


ACK = ClosingAck(CONSUMER, PROVIDER, "a1", NOW + 2, AGREEMENT.id, fact("", OURS).digest or b"", ends=OURS.at)
SIGNED, TAKEN, TOLD = fact("closing-signed", OURS), fact("closing-taken", THEIRS), fact("closing-told", ACK)
EARLIER = fact("closing-told", replace(ACK, ends=OURS.at - 9, own="a.b.c"))  # by a closing of its own that was not taken here
UNSIGNED, REFUSED = fact("closing-told", None), fact("closing-told", None, code="closing-twice")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("closed_by", "facts", "by", "attested"),
    [
        ("us", (), PROVIDER, "provider-only"),
        ("peer", (), CONSUMER, "provider-only"),
        ("us", (SIGNED,), PROVIDER, "provider-only"),
        ("us", (SIGNED, UNSIGNED), PROVIDER, "provider-only"),
        ("us", (SIGNED, REFUSED), PROVIDER, "provider-only"),
        ("us", (SIGNED, TOLD), PROVIDER, "both"),
        ("us", (SIGNED, EARLIER), PROVIDER, "provider-only"),
        ("us", (SIGNED, TAKEN), PROVIDER, "provider-only"),
        ("us", (SIGNED, TAKEN, TOLD), PROVIDER, "both"),
        ("peer", (TAKEN,), CONSUMER, "both"),
        ("peer", (SIGNED, TAKEN, REFUSED), CONSUMER, "both"),
    ],
)
async def test_an_end_is_attested_by_both_where_the_other_side_has_signed_it(closed_by: Any, facts: Any, by: str, attested: str):
    store = MemoryStore()
    agreement = replace(AGREEMENT, closed=AT, closed_by=closed_by)
    await store.commit(Changes(saves=(agreement,), evidence=facts))
    assert await closed_of(store, agreement, PROVIDER) == Closed(AT, by, attested)
    assert await closed_of(store, AGREEMENT, PROVIDER) is None
    assert (await own_closing(store, AGREEMENT.id) is not None) is (SIGNED in facts and REFUSED not in facts)
