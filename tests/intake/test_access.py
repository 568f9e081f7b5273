import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from connector.dataplane.edr import ENDPOINT_TYPE
from connector.errors import PeerFailed, PeerRefused, StoreError
from connector.intake.access import PAUSE_SECONDS_MIN, RENEW_AT, Access
from connector.ports import Reply
from connector.records import Edr
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.dataplane.rig import CONSUMER, PROVIDER, TRANSFER, FakeIdentity

LIFE = 300.0
ADDRESS = {"@type": "DataAddress", "endpointType": ENDPOINT_TYPE, "endpoint": "https://p.example/data/1"}
Answer = Reply | Exception


def answered(status: int = 200, **members: Any) -> Reply:
    return Reply(status, {}, orjson.dumps(members))


@dataclass
class FakePeer:
    """The provider's token endpoint: answers `token-1`, `token-2`, ... unless `answers` holds others; `before` runs first."""

    clock: SetClock
    answers: list[Answer] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    requests: list[tuple[str, str, Mapping[str, str], bytes | None]] = field(default_factory=list)
    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        self.requests.append((method, url, headers, body))
        number = len(self.requests)
        self.asked.release()
        await self.go_on.wait()
        self.before()
        answer = self.answers.pop(0) if self.answers else answered(access_token=f"token-{number}", expires_in=LIFE)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stream(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is streamed here")

    def check(self, url: str) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass
class Desk:
    """One consumer's access on a clock that stands."""

    clock: SetClock = field(default_factory=SetClock)
    stored: list[Edr] = field(default_factory=list)
    identity: FakeIdentity = field(default_factory=lambda: FakeIdentity(CONSUMER))
    fails: Exception | None = None
    renewal: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.peer = FakePeer(self.clock)
        now = self.clock.now()
        self.edr = Edr(TRANSFER, ADDRESS, "token-0", "refresh-0", "https://p.example/token", now + LIFE, now)

    async def renewed(self, edr: Edr) -> None:
        if self.fails is not None:
            raise self.fails
        self.stored.append(edr)
        self.renewal.set()

    def access(self, **changed: Any) -> Access:
        edr = replace(self.edr, **changed)
        return Access(edr, PROVIDER, peer=self.peer, identity=self.identity, clock=self.clock, renewed=self.renewed)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.asyncio
async def test_a_token_is_renewed_when_most_of_its_life_is_over_and_not_before(desk: Desk):
    access = desk.access()
    desk.clock.at += RENEW_AT * LIFE - 0.25
    assert await access.token() == "token-0"
    assert desk.peer.requests == []
    desk.clock.at += 0.25
    assert await access.token() == "token-1"
    assert await access.token() == "token-1"
    assert (len(desk.peer.requests), access.renewals) == (1, 1)


@pytest.mark.asyncio
async def test_a_renewal_is_a_form_of_rfc_6749_with_a_fresh_identity_token_for_the_provider(desk: Desk):
    access = desk.access(refresh_token="a+b/c=&d e")
    await access.renew("token-0")
    await access.renew("token-1")
    method, url, headers, body = desk.peer.requests[0]
    assert (method, url) == ("POST", "https://p.example/token")
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs((body or b"").decode(), strict_parsing=True) == {"grant_type": ["refresh_token"], "refresh_token": ["a+b/c=&d e"]}
    minted = [headers["Authorization"] for _, _, headers, _ in desk.peer.requests]
    assert all(f"{CONSUMER} for {PROVIDER}" in each for each in minted)
    assert len(set(minted)) == 2


@pytest.mark.asyncio
async def test_requests_that_need_a_new_token_at_once_share_one_renewal(desk: Desk):
    access = desk.access()
    desk.clock.at += LIFE
    desk.peer.go_on.clear()
    waiting = [asyncio.create_task(access.token()) for _ in range(8)] + [asyncio.create_task(access.renew("token-0")) for _ in range(3)]
    await desk.peer.asked.acquire()
    desk.peer.go_on.set()
    assert [await each for each in waiting] == ["token-1"] * 8 + [None] * 3
    assert len(desk.peer.requests) == 1


@pytest.mark.asyncio
async def test_what_a_renewal_brought_is_stored_before_it_is_used(desk: Desk):
    access = desk.access()
    desk.clock.at += RENEW_AT * LIFE
    desk.fails = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await access.renew("token-0")
    assert await access.token() == "token-0"
    desk.fails = None
    assert await access.token() == "token-3"
    assert [edr.access_token for edr in desk.stored] == ["token-3"]


@pytest.mark.asyncio
async def test_the_life_of_a_token_counts_from_the_asking(desk: Desk):
    access, asked = desk.access(), desk.clock.now()

    def slowly() -> None:
        desk.clock.at += 40

    desk.peer.before = slowly
    await access.renew("token-0")
    assert (desk.stored[0].updated, desk.stored[0].expires) == (asked, asked + LIFE)


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [PeerFailed("no answer in time"), answered(503), answered(400, error="invalid_grant")])
async def test_a_renewal_that_fails_does_no_harm_while_the_token_holds(desk: Desk, answer: Answer):
    access = desk.access()
    desk.peer.answers = [answer, answer]
    desk.clock.at += 0.9 * LIFE
    assert await access.token() == "token-0"
    desk.clock.at += 0.1 * LIFE
    with pytest.raises(PeerFailed):
        await access.token()
    assert await access.token() == "token-3"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "final"),
    [
        (400, True),
        (401, True),
        (403, True),
        (404, True),
        (408, False),
        (425, False),
        (429, False),
        (500, False),
        (503, False),
        (302, False),
    ],
)
async def test_a_refusal_is_final_and_a_fault_is_not(desk: Desk, status: int, final: bool):
    desk.peer.answers = [answered(status, error="invalid_grant")]
    with pytest.raises(PeerFailed, match=f"status {status}, `invalid_grant`") as failed:
        await desk.access().renew("token-0")
    assert isinstance(failed.value, PeerRefused) == final
    assert getattr(failed.value, "status", None) == (status if final else None)
    assert desk.stored == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("seconds", "said"), [(3600.0, "clocks-apart"), (-3600.0, "clocks-apart"), (30.0, "invalid_client")])
async def test_a_provider_that_does_not_take_who_we_are_by_another_clock_says_so(desk: Desk, seconds: float, said: str):
    """A clock is right again; who is not known stays so."""
    refused = answered(401, error="invalid_client")
    desk.peer.answers = [replace(refused, headers={"date": formatdate(desk.clock.now() + seconds, usegmt=True)})]
    with pytest.raises(PeerRefused) as raised:
        await desk.access().renew("token-0")
    assert (raised.value.said, raised.value.status) == (said, 401)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [b"", b"token", b"[]", b"null", b"{}", b'{"access_token": null}', b'{"access_token": ""}', b'{"access_token": 5}']
    + [orjson.dumps({"access_token": token}) for token in ("a b", "a\r\nX: y", "\u00e9", "a\x7f")],
)
async def test_an_answer_without_a_token_that_can_be_presented_is_a_fault(desk: Desk, body: bytes):
    desk.peer.answers = [Reply(200, {}, body)]
    with pytest.raises(PeerFailed, match="access_token"):
        await desk.access().renew("token-0")
    assert desk.stored == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (60, 60.0),
        (0.5, 0.5),
        ("60", 60.0),
        (None, None),
        (0, None),
        (-1, None),
        (True, None),
        ("", None),
        ("-5", None),
        ("soon", None),
        ([60], None),
        ("9" * 11, None),
        ("\u0661", None),
    ],
)
async def test_the_life_of_a_new_token_is_as_told_or_not_known(desk: Desk, expires_in: object, life: float | None):
    desk.peer.answers = [answered(access_token="new", expires_in=expires_in)]
    access = desk.access()
    await access.renew("token-0")
    assert desk.stored[0].expires == (None if life is None else desk.clock.now() + life)
    assert await access.token() == "new"


@pytest.mark.asyncio
@pytest.mark.parametrize(("told", "kept"), [("refresh-1", "refresh-1"), (None, "refresh-0"), ("", "refresh-0"), (5, "refresh-0")])
async def test_the_refresh_token_stays_unless_another_one_came(desk: Desk, told: object, kept: str):
    desk.peer.answers = [answered(access_token="new", refresh_token=told)]
    await desk.access().renew("token-0")
    assert desk.stored[0] == replace(desk.edr, access_token="new", refresh_token=kept, expires=None)


@pytest.mark.asyncio
@pytest.mark.parametrize("missing", [{"refresh_token": None}, {"refresh_endpoint": None}])
async def test_a_token_that_cannot_be_renewed_is_used_until_it_is_refused(desk: Desk, missing: dict[str, None]):
    access = desk.access(**missing)
    assert not access.renewable
    desk.clock.at += 2 * LIFE
    assert await access.token() == "token-0"
    with pytest.raises(PeerRefused, match="named no way to renew it") as refused:
        await access.renew("token-0")
    assert refused.value.status == 401
    await access.renew("an older one")  # somebody got another one meanwhile: nothing to do
    assert desk.peer.requests == []


EDC = "https://w3id.org/edc/v0.0.1/ns/"
BY_EDC = {
    "@type": "DataAddress",
    "endpointType": ENDPOINT_TYPE,
    "endpointProperties": [
        {"@type": "EndpointProperty", "name": f"{EDC}{name}", "value": value}
        for name, value in (("endpoint", "https://p.example/public"), ("authType", "bearer"), ("authorization", "token-0"))
    ],
}


class Door:
    """A data listener that takes one value of `Authorization` and refuses every other one with `status`."""

    def __init__(self, takes: str, status: int = 403) -> None:
        self.takes, self.status, self.shown = takes, status, list[str | None]()

    async def __call__(self, authorization: str | None) -> str:
        self.shown.append(authorization)
        if authorization != self.takes:
            raise PeerRefused("not so", status=self.status)
        return "data"


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [401, 403])
async def test_the_data_plane_of_edc_is_shown_the_token_alone_once_it_has_refused_it_as_bearer(desk: Desk, status: int):
    door, access = Door("token-0", status), desk.access(address=BY_EDC, refresh_token=None)
    assert [await access.presented(door) for _ in range(2)] == ["data", "data"]
    assert door.shown == ["Bearer token-0", "token-0", "token-0"]


@pytest.mark.asyncio
async def test_who_takes_a_bearer_under_the_names_of_edc_is_shown_nothing_else(desk: Desk):
    door, access = Door("Bearer token-0"), desk.access(address=BY_EDC, refresh_token=None)
    assert [await access.presented(door) for _ in range(2)] == ["data", "data"]
    assert door.shown == ["Bearer token-0"] * 2


@pytest.mark.asyncio
async def test_a_token_that_has_ended_at_such_a_provider_is_renewed_and_shown_as_before(desk: Desk):
    door, access = Door("Bearer token-1", 401), desk.access(address=BY_EDC)
    assert await access.presented(door) == "data"
    assert door.shown == ["Bearer token-0", "token-0", "Bearer token-1"]


@pytest.mark.asyncio
async def test_everybody_else_is_shown_a_bearer_and_nothing_else(desk: Desk):
    door, access = Door("token-0"), desk.access(refresh_token=None)
    with pytest.raises(PeerRefused, match="not so"):
        await access.presented(door)
    assert door.shown == ["Bearer token-0"]


@pytest.mark.asyncio
async def test_a_provider_that_asks_for_no_token_gets_none(desk: Desk):
    assert await desk.access(access_token=None, refresh_token=None, refresh_endpoint=None, expires=None).token() is None


@pytest.mark.parametrize("endpoint", [None, "file:///etc/passwd", "https://p.example/a b"])
def test_an_address_that_cannot_be_used_is_the_providers_fault(desk: Desk, endpoint: str | None):
    with pytest.raises(PeerFailed, match="the data address of the provider cannot be used"):
        desk.access(address=ADDRESS | {"endpoint": endpoint})


@pytest.mark.asyncio
async def test_it_keeps_a_token_fresh_without_any_request_until_it_is_told_to_stop(desk: Desk):
    access = desk.access()

    def the_time_passes() -> None:
        desk.clock.at += LIFE  # each token is old when it comes, so that nothing has to be waited for

    desk.peer.before = the_time_passes
    desk.clock.at += LIFE
    keeping = asyncio.create_task(access.keep())
    async with asyncio.timeout(20):
        for _ in range(4):
            await desk.peer.asked.acquire()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert access.renewals >= 3
    assert [edr.access_token for edr in desk.stored] == [f"token-{number + 1}" for number in range(access.renewals)]


@pytest.mark.asyncio
async def test_keeping_leaves_a_token_alone_that_somebody_has_renewed_meanwhile(desk: Desk):
    desk.clock.at += LIFE + 1
    access = desk.access()
    keeper = asyncio.create_task(access.keep())
    await asyncio.sleep(0)  # it waits for its turn
    assert await access.token() == "token-1"
    await asyncio.sleep(4 * PAUSE_SECONDS_MIN)
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    assert len(desk.stored) == 1


@pytest.mark.asyncio
async def test_keeping_survives_a_renewal_that_fails(desk: Desk):
    access = desk.access()
    desk.peer.answers = [PeerFailed("no answer in time")]
    desk.clock.at += LIFE
    keeping = asyncio.create_task(access.keep())
    async with asyncio.timeout(10):
        await desk.renewal.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert [edr.access_token for edr in desk.stored] == ["token-2"]


@pytest.mark.asyncio
@pytest.mark.parametrize("edr", [{"refresh_token": None}, {"expires": None}])
async def test_there_is_nothing_to_keep_where_no_end_or_no_way_is_known(desk: Desk, edr: dict[str, None]):
    async with asyncio.timeout(20):
        await desk.access(**edr).keep()
    assert desk.peer.requests == []
