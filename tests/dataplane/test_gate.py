import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.dataplane.edr import Grant, Tokens, grant_for
from connector.dataplane.flows import GRACE_SECONDS, Flows
from connector.dataplane.gate import Gate
from connector.dsp.messages import Role
from connector.dsp.transfer import State
from connector.errors import TokenRefused, Unauthenticated, Withdrawn
from connector.odrl.counters import Tally
from connector.odrl.operands import BYTE_COUNT, COUNT
from connector.ports import TransferView
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.dataplane.rig import (
    CONSUMER,
    KEY,
    PROVIDER,
    STRANGER,
    TRANSFER,
    Counted,
    FakeTransfers,
    Rig,
    process,
    provider,
    some_bytes,
    view,
)

SOURCE = {"type": "file", "path": "data.bin"}
NOT_STARTED = [state for state in State if state is not State.STARTED]


class Door:
    """A gate without a listener, on a clock that a test sets."""

    def __init__(self) -> None:
        self.clock, self.transfers = SetClock(), FakeTransfers()
        self.flows = Flows(self.clock, lambda _: None)
        self.tokens = Tokens(
            PROVIDER, "https://data.example", signer=lambda: KEY, key_of=_key_of, clock=self.clock, ids=Counted(), token_seconds=300
        )
        self.gate = Gate(self.tokens, self.transfers, self.flows, self.clock)
        self.transfers.views[TRANSFER] = view(SOURCE)

    @property
    def view(self) -> TransferView:
        return self.transfers.views[TRANSFER]

    def commit(self, **changed: Any) -> None:
        self.transfers.views[TRANSFER] = replace(self.view, **changed)
        self.flows.changed(process(self.view.state))

    def token(self, **changed: Any) -> str:
        return self.tokens.access(replace(grant_for(self.view), **changed))[0]

    def refresh(self, **changed: Any) -> str:
        return self.tokens.refresh(replace(grant_for(self.view), **changed))


def _key_of(kid: str) -> bytes:
    if kid != KEY.kid:
        raise Unauthenticated("not a key of ours")
    return KEY.key.public


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.asyncio
async def test_a_permit_says_what_may_be_streamed_and_until_when(door: Door):
    door.commit(agreement_ends=door.clock.now() + 20, bound=door.clock.now() + 30)
    permit = await door.gate.permit(door.token(), TRANSFER)
    assert (permit.transfer, permit.agreement, permit.consumer, permit.dataset) == (TRANSFER, "urn:agreement", CONSUMER, "urn:dataset")
    assert (permit.source, permit.stages) == (SOURCE, ())
    assert (permit.not_after, permit.not_after_code) == (door.clock.now() + 20, "agreement-ended")
    door.commit(bound=door.clock.now() + 10)
    permit = await door.gate.permit(door.token(), TRANSFER)
    assert (permit.not_after, permit.not_after_code) == (door.clock.now() + 10, "policy-bound-passed")
    door.commit(agreement_ends=None, bound=None)
    assert (await door.gate.permit(door.token(), TRANSFER)).not_after is None
    door.commit(bound=door.clock.now() + 10, proven_until=door.clock.now() + 5)
    permit = await door.gate.permit(door.token(), TRANSFER)
    assert (permit.not_after, permit.not_after_code) == (door.clock.now() + 5 + GRACE_SECONDS, "claims-lapsed")


@pytest.mark.parametrize(("operand", "counts"), [(BYTE_COUNT, True), (COUNT, False)])
@pytest.mark.asyncio
async def test_what_a_stream_uses_up_is_counted_by_the_same_rules_until_it_ends(door: Door, operand: str, counts: bool):
    tallies = (Tally("/permission/0", operand, (10,)),)
    door.commit(tallies=tallies, bound=door.clock.now() + 10, counted_until=door.clock.now() + 3)
    permit = await door.gate.permit(door.token(), TRANSFER)
    expected = (door.clock.now() + 3, "counted-anew") if counts else (door.clock.now() + 10, "policy-bound-passed")
    assert (permit.not_after, permit.not_after_code) == expected
    assert (permit.tallies, permit.counted_until) == ((tallies, door.clock.now() + 3) if counts else ((), None))


@pytest.mark.asyncio
async def test_what_the_decision_of_now_refuses_is_withheld_with_its_code(door: Door):
    token, refresh = door.token(), door.refresh()
    await door.gate.permit(token, TRANSFER)
    door.commit(withheld="AGREEMENT_CLOSED")
    for refused in (door.gate.permit(token, TRANSFER), door.gate.renewable(refresh, CONSUMER)):
        with pytest.raises(Withdrawn, match="permits no access now") as withdrawn:
            await refused
        assert withdrawn.value.code == "AGREEMENT_CLOSED"
    door.commit(withheld=None)
    assert await door.gate.permit(token, TRANSFER)


@pytest.mark.asyncio
async def test_what_stays_true_until_the_next_commit_is_looked_up_once(door: Door):
    token = door.token()
    permits = [await door.gate.permit(token, TRANSFER) for _ in range(5)]
    assert door.transfers.lookups == 1
    assert not permits[0].lease.stale
    door.commit()
    assert permits[0].lease.stale
    await door.gate.permit(token, TRANSFER)
    assert door.transfers.lookups == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("state", NOT_STARTED)
@pytest.mark.parametrize("known", [False, True])
async def test_only_a_started_transfer_serves(door: Door, state: State, known: bool):
    token, refresh = door.token(), door.refresh()
    if known:
        await door.gate.permit(token, TRANSFER)
    door.commit(state=str(state))
    for refused in (door.gate.permit(token, TRANSFER), door.gate.renewable(refresh, CONSUMER)):
        with pytest.raises(Withdrawn, match=f"the transfer is {state}") as withdrawn:
            await refused
        assert withdrawn.value.code == f"transfer-{state.lower()}"
    door.commit(state="STARTED")
    assert await door.gate.permit(token, TRANSFER)


@pytest.mark.asyncio
async def test_an_agreement_that_is_not_final_permits_nothing(door: Door):
    door.commit(agreement_final=False)
    with pytest.raises(Withdrawn) as withdrawn:
        await door.gate.permit(door.token(), TRANSFER)
    assert withdrawn.value.code == "agreement-not-final"


@pytest.mark.asyncio
@pytest.mark.parametrize(("bound", "code"), [("agreement_ends", "agreement-ended"), ("bound", "policy-bound-passed")])
async def test_time_is_judged_at_each_request_and_what_is_over_is_looked_up_again(door: Door, bound: str, code: str):
    token, refresh = door.token(), door.refresh()
    door.commit(**{bound: door.clock.now() + 10})
    await door.gate.permit(token, TRANSFER)
    door.clock.at += 9.75
    await door.gate.permit(token, TRANSFER)
    await door.gate.renewable(refresh, CONSUMER)
    lookups = door.transfers.lookups
    door.clock.at += 0.25
    for refused in (door.gate.permit(token, TRANSFER), door.gate.renewable(refresh, CONSUMER)):
        with pytest.raises(Withdrawn, match="permits no access at this time") as withdrawn:
            await refused
        assert withdrawn.value.code == code
    assert door.transfers.lookups == lookups + 2
    door.transfers.views[TRANSFER] = replace(door.view, **{bound: door.clock.now() + 10})  # the decision of now may be another
    assert await door.gate.permit(token, TRANSFER)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "changed",
    [{"agreement": "urn:agreement:of-another"}, {"consumer": STRANGER}, {"transfer": "urn:other"}],
    ids=["agreement", "consumer", "transfer"],
)
async def test_a_token_that_is_bound_to_another_is_refused_as_if_it_were_forged(door: Door, changed: dict[str, Any]):
    with pytest.raises(TokenRefused) as forged:
        await door.gate.permit("forged", TRANSFER)
    with pytest.raises(TokenRefused) as foreign:
        await door.gate.permit(door.token(**changed), TRANSFER)
    with pytest.raises(TokenRefused) as renewed:
        await door.gate.renewable(door.refresh(**changed), changed.get("consumer", CONSUMER))
    assert forged.value.reasons == foreign.value.reasons == renewed.value.reasons


@pytest.mark.asyncio
async def test_a_transfer_that_does_not_exist_or_is_ours_to_consume_looks_like_a_forged_token(door: Door):
    with pytest.raises(TokenRefused) as forged:
        await door.gate.permit("forged", "urn:none")
    with pytest.raises(TokenRefused) as unknown:
        await door.gate.permit(door.token(transfer="urn:none"), "urn:none")
    door.commit(role=Role.CONSUMER)
    with pytest.raises(TokenRefused) as consuming:
        await door.gate.permit(door.token(), TRANSFER)
    token = door.token()
    del door.transfers.views[TRANSFER]
    door.flows.look_again()
    with pytest.raises(TokenRefused) as withdrawn:
        await door.gate.permit(token, TRANSFER)
    assert forged.value.reasons == unknown.value.reasons == consuming.value.reasons == withdrawn.value.reasons


@pytest.mark.asyncio
@pytest.mark.parametrize("generation", [0, 2, 4, 99])
async def test_a_start_ends_the_tokens_of_the_one_before(door: Door, generation: int):
    door.commit(generation=3)
    assert await door.gate.permit(door.token(), TRANSFER)
    for refused in (
        door.gate.permit(door.token(generation=generation), TRANSFER),
        door.gate.renewable(door.refresh(generation=generation), CONSUMER),
    ):
        with pytest.raises(TokenRefused, match="replaced when the transfer was started again"):
            await refused


@pytest.mark.asyncio
async def test_a_suspension_and_a_new_start_end_the_old_token_but_not_the_new_one(door: Door):
    old, old_refresh = door.token(), door.refresh()
    door.commit(state="SUSPENDED")
    door.commit(state="STARTED", generation=2)
    with pytest.raises(TokenRefused):
        await door.gate.permit(old, TRANSFER)
    with pytest.raises(TokenRefused):
        await door.gate.renewable(old_refresh, CONSUMER)
    assert await door.gate.permit(door.token(), TRANSFER)


@pytest.mark.asyncio
async def test_an_expired_token_is_refused_before_anything_is_looked_up(door: Door):
    token = door.token()
    door.clock.at += 300
    with pytest.raises(TokenRefused, match="renew it"):
        await door.gate.permit(token, TRANSFER)
    assert door.transfers.lookups == 0


@pytest.mark.asyncio
async def test_what_may_be_renewed_is_what_the_transfer_permits_now(door: Door):
    refresh = door.refresh()
    door.commit(bound=door.clock.now() + 10)
    grant = await door.gate.renewable(refresh, CONSUMER)
    assert grant == Grant(TRANSFER, CONSUMER, "urn:agreement", "urn:dataset", 1, door.clock.now() + 10)


class SlowTransfers(FakeTransfers):
    """Reads, and then waits until a test lets it answer with what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go_on = asyncio.Event(), asyncio.Event()

    async def lookup(self, pid: str) -> TransferView | None:
        found = await super().lookup(pid)
        self.reading.set()
        await self.go_on.wait()
        return found


@pytest.mark.asyncio
async def test_a_commit_during_the_look_up_is_seen(door: Door):
    slow = SlowTransfers()
    slow.views = door.transfers.views
    door.gate = Gate(door.tokens, slow, door.flows, door.clock)
    asking = asyncio.create_task(door.gate.permit(door.token(), TRANSFER))
    await slow.reading.wait()
    door.commit(state="TERMINATED")
    slow.go_on.set()
    with pytest.raises(Withdrawn) as withdrawn:
        await asking
    assert withdrawn.value.code == "transfer-terminated"
    assert slow.lookups == 2


# From here on through a real listener.

LARGE = some_bytes(24 * 1024 * 1024)  # more than all buffers between two sockets of loopback hold


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), read_bufsize=2**16) as session:
        yield session


async def answer(http: aiohttp.ClientSession, rig: Rig, headers: dict[str, str], path: str = f"/data/{TRANSFER}") -> tuple[int, Any, bytes]:
    async with http.get(rig.url + path, headers=headers) as response:
        return response.status, response.headers, await response.read()


@pytest.mark.asyncio
async def test_the_token_is_checked_at_every_request_even_on_one_connection(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"small")
    held = rig.authorization()
    assert (await answer(http, rig, held))[0] == 200
    assert (await answer(http, rig, held))[2] == b"small"
    assert (await answer(http, rig, {}))[0] == 401
    assert (await answer(http, rig, {"Authorization": held["Authorization"] + "x"}))[0] == 401
    assert (await answer(http, rig, held))[0] == 200
    rig.clock.shift_seconds += 301
    status, headers, body = await answer(http, rig, held)
    assert (status, headers["WWW-Authenticate"]) == (
        401,
        'Bearer error="invalid_token", error_description="the access token has expired; renew it"',
    )
    assert b"small" not in body
    assert (await answer(http, rig, rig.authorization()))[0] == 200


@pytest.mark.asyncio
async def test_the_expiry_of_a_token_cuts_nothing_and_refuses_the_next_request(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LARGE)
    held = rig.authorization()
    async with http.get(rig.endpoint, headers=held) as response:
        first = await response.content.readexactly(1000)
        assert (seen := rig.flows.seen(TRANSFER)) is not None
        assert (seen.running, seen.covered) == (1, False)
        rig.clock.shift_seconds += 301
        assert first + await response.read() == LARGE
    assert (await answer(http, rig, held | {"Range": "bytes=0-9"}))[0] == 401
    assert (await answer(http, rig, rig.authorization() | {"Range": "bytes=0-9"}))[2] == LARGE[:10]


@pytest.mark.asyncio
async def test_over_the_wire_foreign_forged_and_unknown_tokens_look_alike(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"small")
    grant = grant_for(rig.transfers.views[TRANSFER])
    held = rig.tokens.access(grant)[0]
    rig.transfers.views["urn:other"] = replace(rig.transfers.views[TRANSFER], pid="urn:other", peer=STRANGER)
    asked = {
        "forged": (held[:-4] + "AAAA", TRANSFER),
        "no token at all": ("opaque", TRANSFER),
        "a refresh token": (rig.tokens.refresh(grant), TRANSFER),
        "of another transfer": (held, "urn:other"),
        "of another consumer": (rig.tokens.access(replace(grant, consumer=STRANGER))[0], TRANSFER),
        "for a transfer that is not there": (rig.tokens.access(replace(grant, transfer="urn:none"))[0], "urn:none"),
        "forged, for a transfer that is not there": (held[:-4] + "AAAA", "urn:none"),
    }
    answers = {}
    for name, (token, transfer) in asked.items():
        status, headers, body = await answer(http, rig, {"Authorization": f"Bearer {token}"}, f"/data/{transfer}")
        shown = {k: v for k, v in headers.items() if k != "Date"}
        answers[name] = (status, sorted(shown.items()), body)
        assert token.encode() not in body
    assert len({str(each) for each in answers.values()}) == 1, answers
    assert answers["forged"][0] == 401
    assert orjson.loads(answers["forged"][2])["type"] == "urn:qiao:problem:token-refused"
    assert (await answer(http, rig, {"Authorization": f"Bearer {held}"}))[0] == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "token", "Bearer " + "a" * 5000])
async def test_a_request_without_a_bearer_token_is_told_what_to_send(rig: Rig, http: aiohttp.ClientSession, said: str | None):
    await rig.publish(b"small")
    status, headers, body = await answer(http, rig, {} if said is None else {"Authorization": said})
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert ("error=" in headers["WWW-Authenticate"]) == bool(said)  # RFC 6750, 3.1
    assert "Authorization: Bearer" in orjson.loads(body)["detail"]
