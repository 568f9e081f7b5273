import asyncio
import selectors
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.dataplane.edr import grant_for
from connector.records import Edr
from connector.values import replace
from tests.dataplane.rig import (
    PROVIDER,
    STRANGER,
    TRANSFER,
    CuttingProxy,
    FakeIdentity,
    Rig,
    ShiftedClock,
    Watcher,
    provider,
    pull,
    some_bytes,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as made:
        await made.publish(b"data")
        yield made


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Consumer:
    """What a consumer can say to the token endpoint and to the data."""

    def __init__(self, rig: Rig, http: aiohttp.ClientSession) -> None:
        self.rig, self.http = rig, http
        self.refresh_token = rig.tokens.refresh(grant_for(rig.transfers.views[TRANSFER]))

    async def post(self, body: bytes, *, query: str = "", **headers: str) -> tuple[int, Any, dict[str, Any]]:
        async with self.http.post(f"{self.rig.url}/token{query}", data=body, headers=FORM | headers) as response:
            return response.status, response.headers, orjson.loads(await response.read())

    async def renew(self, refresh_token: str | None = None, *, authorization: str | None = None) -> tuple[int, dict[str, Any]]:
        """Renew as the consumer of the transfer unless other words are put into the header."""
        said = authorization if authorization is not None else await self.rig.consumer.mint(PROVIDER)
        form = aiohttp.FormData({"grant_type": "refresh_token", "refresh_token": refresh_token or self.refresh_token})
        headers = {"Authorization": said} if said else {}
        async with self.http.post(f"{self.rig.url}/token", data=form, headers=headers) as response:
            assert response.headers["Cache-Control"] == "no-store"  # RFC 6749, 5.1
            assert (response.status == 401) == ("WWW-Authenticate" in response.headers)
            return response.status, orjson.loads(await response.read())

    async def read(self, token: str) -> int:
        async with self.http.get(self.rig.endpoint, headers={"Authorization": f"Bearer {token}"}) as response:
            assert (await response.read() == b"data") == (response.status == 200)
            return response.status


@pytest.fixture
def consumer(rig: Rig, http: aiohttp.ClientSession) -> Consumer:
    return Consumer(rig, http)


@pytest.mark.asyncio
async def test_a_renewal_gives_a_new_token_and_the_old_one_lives_on_to_its_short_end(rig: Rig, consumer: Consumer):
    old = rig.tokens.access(grant_for(rig.transfers.views[TRANSFER]))[0]
    rig.clock.shift_seconds += 240
    status, answer = await consumer.renew()
    assert (status, answer["token_type"], answer["expires_in"]) == (200, "Bearer", 300)
    assert answer["access_token"] != old
    assert await consumer.read(old) == await consumer.read(answer["access_token"]) == 200
    rig.clock.shift_seconds += 61
    assert (await consumer.read(old), await consumer.read(answer["access_token"])) == (401, 200)


@pytest.mark.asyncio
async def test_an_answer_that_is_lost_costs_nothing(rig: Rig, consumer: Consumer):
    _, lost = await consumer.renew()
    status, answer = await consumer.renew()
    assert status == 200
    assert await consumer.read(answer["access_token"]) == await consumer.read(lost["access_token"]) == 200
    for token in (lost["refresh_token"], answer["refresh_token"]):
        assert (await consumer.renew(token))[0] == 200


@pytest.mark.asyncio
async def test_a_refresh_token_outlives_many_access_tokens(rig: Rig, consumer: Consumer):
    rig.clock.shift_seconds += 100 * 300
    status, answer = await consumer.renew()
    assert status == 200
    assert await consumer.read(answer["access_token"]) == 200


@pytest.mark.asyncio
async def test_the_refresh_token_alone_is_worth_nothing(rig: Rig, consumer: Consumer):
    used = await rig.consumer.mint(PROVIDER)
    assert (await consumer.renew(authorization=used))[0] == 200
    for authorization in (
        "",
        "Bearer",
        f"Bearer {consumer.refresh_token}",
        rig.authorization()["Authorization"],
        await rig.consumer.mint(STRANGER),  # meant for somebody else
        used,  # a second time
    ):
        status, answer = await consumer.renew(authorization=authorization)
        assert (status, answer["error"], set(answer)) == (401, "invalid_client", {"error", "error_description"})


@pytest.mark.asyncio
async def test_a_stranger_with_a_stolen_refresh_token_gets_what_a_forger_gets(rig: Rig, consumer: Consumer):
    stranger = FakeIdentity(STRANGER)
    grant = grant_for(rig.transfers.views[TRANSFER])
    rig.transfers.views["urn:consumed"] = replace(rig.transfers.views[TRANSFER], pid="urn:consumed", agreement="urn:other")
    answers = {
        "stolen": await consumer.renew(authorization=await stranger.mint(PROVIDER)),
        "forged": await consumer.renew(consumer.refresh_token[:-4] + "AAAA"),
        "no token": await consumer.renew("opaque"),
        "an access token": await consumer.renew(rig.tokens.access(grant)[0]),
        "of another consumer": await consumer.renew(rig.tokens.refresh(replace(grant, consumer=STRANGER))),
        "of a transfer that is not there": await consumer.renew(rig.tokens.refresh(replace(grant, transfer="urn:none"))),
        "of another agreement": await consumer.renew(rig.tokens.refresh(replace(grant, transfer="urn:consumed"))),
        "of an earlier start": await consumer.renew(rig.tokens.refresh(replace(grant, generation=0))),
    }
    assert len({str(each) for each in answers.values()}) == 1, answers
    assert answers["forged"][0] == 400
    assert answers["forged"][1]["error"] == "invalid_grant"
    assert (await consumer.renew())[0] == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["SUSPENDED", "COMPLETED", "TERMINATED", "REQUESTED"])
async def test_a_transfer_that_does_not_run_renews_nothing(rig: Rig, consumer: Consumer, state: str):
    rig.change(state=state)
    status, answer = await consumer.renew()
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert state in answer["error_description"]


@pytest.mark.asyncio
async def test_a_start_ends_the_refresh_tokens_of_the_one_before(rig: Rig, consumer: Consumer):
    rig.change(state="SUSPENDED")
    rig.change(state="STARTED", generation=2)
    assert (await consumer.renew())[1]["error"] == "invalid_grant"
    consumer.refresh_token = rig.tokens.refresh(grant_for(rig.transfers.views[TRANSFER]))
    assert (await consumer.renew())[0] == 200


@pytest.mark.asyncio
async def test_no_renewal_reaches_beyond_the_agreement(rig: Rig, consumer: Consumer):
    rig.change(agreement_ends=rig.clock.now() + 100.9)
    status, answer = await consumer.renew()
    assert (status, answer["expires_in"]) == (200, 100)  # rounded down: too early loses nothing
    rig.clock.shift_seconds += 101
    assert await consumer.read(answer["access_token"]) == 401
    assert (await consumer.renew())[1]["error"] == "invalid_grant"
    assert (await consumer.renew(answer["refresh_token"]))[1]["error"] == "invalid_grant"


# The form, with R for the true refresh token -> the error of RFC 6749, 5.2, or None if it is granted.
FORMS = {
    "grant_type=refresh_token&refresh_token=R": None,
    "refresh_token=R&grant_type=refresh_token": None,
    "grant_type=refresh_token&refresh_token=R&scope=read&client_id=me": None,
    "": "invalid_request",
    "grant_type=refresh_token": "invalid_request",
    "refresh_token=R": "invalid_request",
    "grant_type=refresh_token&refresh_token=": "invalid_request",
    "grant_type=&refresh_token=R": "unsupported_grant_type",
    "grant_type=password&refresh_token=R": "unsupported_grant_type",
    "grant_type=client_credentials": "unsupported_grant_type",
    "grant_type=Refresh_Token&refresh_token=R": "unsupported_grant_type",
    "grant_type=refresh_token&grant_type=refresh_token&refresh_token=R": "invalid_request",
    "grant_type=refresh_token&refresh_token=R&refresh_token=R": "invalid_request",
    "grant_type=refresh_token&refresh_token=%FF": "invalid_request",
    "grant_type=refresh_token&refresh_token=R&broken": "invalid_request",
    "grant_type=refresh_token&refresh_token=R\u00e9": "invalid_request",
    "grant_type=refresh_token&refresh_token=R" + "&x=1" * 20: "invalid_request",
    "grant_type=refresh_token&refresh_token=R&x=" + "a" * 20_000: "invalid_request",
    '{"grant_type": "refresh_token"}': "invalid_request",
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("form", "error"), FORMS.items(), ids=[name[:60] for name in FORMS])
async def test_a_form_is_answered_as_rfc_6749_says(rig: Rig, consumer: Consumer, form: str, error: str | None):
    body = form.replace("=R", f"={consumer.refresh_token}").encode()
    status, headers, answer = await consumer.post(body, Authorization=await rig.consumer.mint(PROVIDER))
    assert (status, answer.get("error")) == ((200, None) if error is None else (400, error))
    assert headers["Content-Type"].startswith("application/json")
    assert consumer.refresh_token.encode() not in orjson.dumps(answer.get("error_description", ""))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("refresh_token=R", "`grant_type` is missing; it is `refresh_token`"),
        ("grant_type=refresh_token&grant_type=refresh_token&refresh_token=R", "`grant_type` and `refresh_token` are each said once"),
        ("grant_type=refresh_token", "`refresh_token` is missing"),
        ("grant_type", "at most 16 pairs `name=value`"),
        ("grant_type=refresh_token" + "&x=1" * 20, "at most 16 pairs `name=value`"),
    ],
)
async def test_a_form_that_is_refused_is_told_what_is_wrong_with_it(rig: Rig, consumer: Consumer, form: str, says: str):
    _, _, answer = await consumer.post(form.encode(), Authorization=await rig.consumer.mint(PROVIDER))
    assert says in answer["error_description"]


@pytest.mark.asyncio
async def test_parameters_may_stand_in_the_query_and_not_in_both(rig: Rig, consumer: Consumer):
    query = f"?grant_type=refresh_token&refresh_token={consumer.refresh_token}"
    assert (await consumer.post(b"", query=query, Authorization=await rig.consumer.mint(PROVIDER)))[0] == 200
    status, _, answer = await consumer.post(query[1:].encode(), query=query, Authorization=await rig.consumer.mint(PROVIDER))
    assert (status, answer["error"]) == (400, "invalid_request")


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [{"Content-Type": "application/json"}, {"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}])
async def test_a_body_that_is_no_form_is_refused(rig: Rig, consumer: Consumer, headers: dict[str, str]):
    body = f"grant_type=refresh_token&refresh_token={consumer.refresh_token}".encode()
    async with consumer.http.post(f"{rig.url}/token", data=body, headers=FORM | headers) as response:
        assert (response.status, orjson.loads(await response.read())["error"]) == (400, "invalid_request")


PACE = 5.0  # how much faster than on the wall time goes in the test below


class HastySelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / PACE)


class HastyLoop(asyncio.SelectorEventLoop):
    """A second of its timers takes a fifth of one."""

    def __init__(self) -> None:
        super().__init__(HastySelector())

    def time(self) -> float:
        return super().time() * PACE


class HastyClock(ShiftedClock):
    """Wall time at the pace of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._begun, self._began = time.time(), time.monotonic()

    def now(self) -> float:
        return self._begun + PACE * (time.monotonic() - self._began) + self.shift_seconds


LIFE_SECONDS = 1.0
CUTS = 14  # one after each renewal, and a renewal comes after four fifths of a life
PIECE = 5 * 2**18  # more than what counts as progress: after that a cut is followed by the next request at once


def test_a_pull_longer_than_ten_token_lives_needs_no_hand(tmp_path: Path):
    """The connection breaks again and again, each time after the token of its request has been replaced by a newer one: only a
    consumer that renews while it reads, and asks with what it got, comes to the end."""

    async def run() -> None:
        root, out = tmp_path / "provider", tmp_path / "consumer"
        root.mkdir()
        out.mkdir()
        clock, content = HastyClock(), some_bytes((CUTS + 1) * PIECE)
        async with provider(root, token_seconds=LIFE_SECONDS, clock=clock) as rig:
            sha256 = await rig.publish(content)
            watcher, began, first = Watcher(), clock.now(), rig.authorization()
            news = asyncio.Condition()

            async def renewed(edr: Edr) -> None:
                async with news:
                    await watcher.renewed(edr)
                    news.notify_all()

            async def next_renewal() -> None:
                before = len(watcher.edrs)
                async with news:
                    await news.wait_for(lambda: len(watcher.edrs) > before)

            proxy = CuttingProxy(int(rig.url.rpartition(":")[2]), [PIECE] * CUTS, next_renewal)
            async with proxy.listening() as through, asyncio.timeout(30 * PACE):
                order, edr = pull(out / "data.bin"), rig.edr(endpoint=through)
                done = await rig.downloads(out).fetch(order, edr, renewed=renewed, progress=watcher.progress)
            assert clock.now() - began > 10 * LIFE_SECONDS
            assert (done.sha256, (out / "data.bin").read_bytes() == content) == (sha256, True)
            assert rig.covered == [TRANSFER]
            shown = [head.partition(b"Authorization: ")[2].partition(b"\r\n")[0] for head in proxy.heads]
            assert len(shown) == len(set(shown)) == CUTS + 1  # each request with a token of its own
            async with aiohttp.ClientSession() as http, http.get(rig.endpoint, headers=first) as response:
                assert response.status == 401  # what it began with has ended long ago

    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        runner.run(run())
