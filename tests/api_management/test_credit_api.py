"""Credit that is locked by transfers that ended unsigned, over HTTP: what, until when, and its release, which counts at once."""

import pytest

from connector.dsp.messages import Role
from connector.records import Changes
from connector.values import replace
from tests.api.conftest import desk as desk  # noqa: PLC0414 - the fixture
from tests.metering.rig import CHUNK, LAYOUT, MANIFEST, both
from tests.pair import Desk, agreement, negotiation, quoted, transfer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_ended_unsigned_is_shown_and_written_off_with_a_reason(desk: Desk):
    made = agreement(desk.us, desk.peer, Role.PROVIDER)
    await desk.us.put(negotiation(desk.us, desk.peer, "FINALIZED", Role.PROVIDER), made)
    over, runs = (transfer(desk.us, desk.peer, state, Role.PROVIDER, made) for state in ("TERMINATED", "STARTED"))
    await desk.us.put(over)
    await desk.us.put(runs)
    now = desk.us.connector.journal.clock.now()
    signed = replace(both(((1, 3),))[0], agreement=made.id, sent=((0, 6 * CHUNK),), size_bytes=LAYOUT.size_bytes, updated=now)
    rows = replace(signed, transfer=over.pid), replace(signed, transfer=runs.pid, updated=now - 1)  # what is signed for later would count
    assert isinstance(await desk.us.connector.journal.commit(Changes(saves=rows)), tuple)
    path = f"/agreements/{quoted(made.id)}"
    seen = await desk.us.asked("GET", f"{path}/credit")
    assert (seen["locked_bytes"], seen["credit_bytes"]) == (4 * CHUNK, 2 * MANIFEST.credit_bytes)
    assert [(each["transfer"], each["bytes"]) for each in seen["lost"]] == [(over.pid, 4 * CHUNK)]
    assert (await desk.us.asked("POST", f"{path}/release-credit", {"reason": "its disk died"})) == seen
    assert (await desk.us.asked("GET", f"{path}/credit"))["lost"] == []
    assert (await desk.us.manage("POST", f"{path}/release-credit")).status == 409
    facts = [fact for fact in await desk.us.evidence(over.pid) if fact.what == "credit-released"]
    assert [fact.detail for fact in facts] == [{"reason": "its disk died", "bytes": 4 * CHUNK}]


async def test_an_agreement_that_is_not_here_has_none(desk: Desk):
    for method, path in (("GET", "credit"), ("POST", "release-credit")):
        assert (await desk.us.manage(method, f"/agreements/urn:none/{path}")).status == 404
