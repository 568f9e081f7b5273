"""Where an agreement demands signatures a push has them on both sides: a token is of no use without its provider's key, no byte leaves
before the sink has proven whose it is, and whoever changes what either of them says is found."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from connector import telemetry
from connector.dataplane.ranges import write_repr_digest
from connector.dataplane_push.signed import SignedUploads
from connector.errors import PeerFailed, PeerRefused
from connector.metering.objects import Receipt, kept
from connector.ports import Reply
from connector.signatures import digests, http
from connector.signatures.asking import Asked, Asking, Means
from connector.signatures.fields import Item, read_dictionary
from connector.signatures.shown import show
from tests.dataplane.rig import CONSUMER, PROVIDER, STRANGER, TRANSFER, key_of, some_bytes
from tests.dataplane_push.stand import OURS, Lie, Stand, stand
from tests.dataplane_push.test_pusher import Cutting, both, plain, pushed

CHUNK = 262_144
CONTENT = some_bytes(5 * CHUNK + 4321)
WINDOW = 2 * CHUNK
PROMISED = {"window_bytes": WINDOW, "credit_windows": 2}

pytestmark = pytest.mark.asyncio


class Seen:
    """Between both: keeps the requests."""

    def __init__(self) -> None:
        self.asked: list[http.Request] = []

    @property
    def middleware(self) -> Callable[..., Any]:
        @web.middleware
        async def see(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
            headers = request.headers.copy()
            self.asked.append(http.Request(request.method, str(request.url), lambda name: headers.getall(name, ()), http.PUSH))
            return await handler(request)

        return see


# ---- what the provider says


async def test_every_request_of_a_push_is_signed_and_the_data_are_counted_the_same_on_both_sides(tmp_path: Path):
    seen = Seen()
    async with stand(tmp_path, CONTENT, seen.middleware, **PROMISED) as at:
        at.demand_signatures()
        await both(at)
        assert (at.root / "file").read_bytes() == CONTENT
        ours, theirs = await at.accounts()
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)
        assert (theirs.status, theirs.attested, theirs.counts.bytes) == ("complete", "both", len(CONTENT))
        assert {each.method for each in seen.asked} == {"HEAD", "PUT"}
        signed = [http.verify_request(each, PROVIDER, [key_of(PROVIDER).key], at.rig.clock.now()) for each in seen.asked]
        assert len({each.nonce for each in signed}) == len(signed)


async def test_where_nothing_is_demanded_every_request_is_signed_all_the_same(tmp_path: Path):
    seen = Seen()
    async with stand(tmp_path, CONTENT, seen.middleware, **PROMISED) as at:
        await both(at)
        signed = [bool(each.fields("signature")) for each in seen.asked]
        assert len(signed) > 4
        assert all(signed)
        (leg,) = (each for each in await at.rig.store.evidence_of(TRANSFER) if each.what == telemetry.LEG)
        said = leg.detail["sink"]
        sealed = read_dictionary(f"x={said['signature']}")["x"]
        assert isinstance(sealed, Item)
        assert isinstance(sealed.value, bytes)
        shown = show(said["base"], said["input"], sealed.value, CONSUMER, [key_of(CONSUMER).key])
        assert (shown.values['"@target-uri";req'], shown.values['"@method";req'], leg.peer) == (at.endpoint, "HEAD", CONSUMER)
        assert "Bearer" not in str(leg.detail)


@pytest.mark.parametrize("seed", range(2))
async def test_a_cut_costs_a_push_with_signatures_no_more_than_one_without(tmp_path: Path, seed: int):
    cutting = Cutting(seed)
    async with stand(tmp_path, CONTENT, cutting.middleware, **PROMISED) as at:
        at.demand_signatures()
        await both(at)
        assert cutting.cuts >= 3
        assert (at.root / "file").read_bytes() == CONTENT
        ours, theirs = await at.accounts()
        assert (ours.counts.bytes, theirs.counts.bytes, theirs.status) == (len(CONTENT), len(CONTENT), "complete")


# ---- what the sink demands


def asking(at: Stand, by: str = PROVIDER, binding: http.Binding = http.PUSH, *, signs: bool = True) -> Asking:
    return Asking(Means(lambda: key_of(by), at.rig.consumer.keys, at.rig.clock.now, some_bytes_anew()), CONSUMER, binding, signs=signs)


def some_bytes_anew() -> Callable[[int], bytes]:
    numbers = iter(range(1 << 20))
    return lambda count: f"{next(numbers):0{count}}".encode()


async def bring(at: Stand, headers: Mapping[str, str], body: bytes = b"", method: str = "PUT") -> tuple[int, Mapping[str, str], str]:
    """Status, headers and code of what the sink answers."""
    async with aiohttp.ClientSession(skip_auto_headers=("Content-Type", "Accept", "User-Agent")) as session:
        sent = {**headers, "Content-Length": str(len(body))} if method == "PUT" else headers
        async with session.request(method, at.endpoint, data=io.BytesIO(body) if method == "PUT" else None, headers=sent) as answer:
            said = await answer.read()
            return answer.status, answer.headers, orjson.loads(said)["type"].rpartition(":")[2] if answer.status >= 400 and said else ""


async def waited(at: Stand) -> asyncio.Task[Any]:
    task = asyncio.create_task(at.receive())
    async with asyncio.timeout(10):
        while at.downloads.receptions.of(OURS) is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    return task


async def gone(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


SIZE = {"Content-Range": "bytes */1000"}


def altered(asked: Asked, **changed: str) -> dict[str, str]:
    return dict(asked.headers) | {name.replace("_", "-"): value for name, value in changed.items()}


THEFTS: dict[str, tuple[str, Callable[[Stand], Mapping[str, str]]]] = {
    "without a signature": ("signature-missing", lambda at: at.headers() | SIZE),
    "signed by who knows nobody": (
        "signature-signer",
        lambda at: asking(at, STRANGER).ask("PUT", at.endpoint, at.headers() | SIZE).headers,
    ),
    "signed by the consumer": ("signature-signer", lambda at: asking(at, CONSUMER).ask("PUT", at.endpoint, at.headers() | SIZE).headers),
    "signed for fetching": ("signature-tag", lambda at: asking(at, binding=http.PULL).ask("PUT", at.endpoint, at.headers() | SIZE).headers),
    "signed for another method": ("signature-wrong", lambda at: asking(at).ask("POST", at.endpoint, at.headers() | SIZE).headers),
    "signed for another sink": ("signature-wrong", lambda at: asking(at).ask("PUT", f"{at.endpoint}x", at.headers() | SIZE).headers),
    "with another place": (
        "signature-wrong",
        lambda at: altered(asking(at).ask("PUT", at.endpoint, at.headers() | SIZE), Content_Range="bytes */1001"),
    ),
    "with an ack": (
        "signature-uncovered",
        lambda at: altered(asking(at).ask("PUT", at.endpoint, at.headers() | SIZE), Qiao_Ack="a.b.c"),
    ),
}


@pytest.mark.parametrize(("code", "request_of"), THEFTS.values(), ids=THEFTS)
async def test_a_token_is_of_no_use_to_who_has_not_the_key(tmp_path: Path, code: str, request_of: Callable[[Stand], Mapping[str, str]]):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        task = await waited(at)
        status, headers, said = await bring(at, request_of(at))
        assert (status, said) == (401, code)
        assert http.wanted(headers["Accept-Signature"], http.PUSH) is not None
        assert not task.done()
        await gone(task)


async def test_a_signature_is_good_once_and_one_from_before_the_start_is_put_off(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        task = await waited(at)
        asked = asking(at).ask("HEAD", at.endpoint, at.headers())
        assert [(await bring(at, asked.headers, method="HEAD"))[0] for _ in range(2)] == [204, 401]
        at.rig.clock.shift_seconds -= 5.0
        early = asking(at).ask("HEAD", at.endpoint, at.headers())
        at.rig.clock.shift_seconds += 5.0
        assert (await bring(at, early.headers, method="HEAD"))[0] == 503
        await gone(task)


async def test_whether_a_transfer_runs_is_not_told_to_a_thief(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        assert (await bring(at, at.headers() | SIZE))[2] == "signature-missing", "and not that nobody waits"


async def test_an_address_is_signed_with_its_body(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        task = await waited(at)
        told = at.headers() | SIZE | {"Content-Type": "application/json"}
        body = b'{"dataAddress": {"endpoint": "http://127.0.0.1:1/data/x"}}'
        ask = asking(at)
        assert (await bring(at, ask.ask("PUT", at.endpoint, told).headers, body))[2] == "content-digest-missing"
        assert (await bring(at, ask.ask("PUT", at.endpoint, told, body).headers, body.replace(b"/x", b"/y")))[2] == "content-digest-wrong"
        assert not task.done()
        await gone(task)


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
async def test_data_that_come_all_at_once_are_signed_with_their_digest_and_are_those(tmp_path: Path, name: str):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        task, ask = await waited(at), asking(at)
        status, headers, code = await bring(at, ask.ask("PUT", at.endpoint, at.headers()).headers, CONTENT)
        assert (status, code) == (401, "content-digest-missing")
        wanted = http.wanted(headers["Accept-Signature"], http.PUSH)
        assert wanted is not None
        assert '"content-digest"' in headers["Accept-Signature"]
        digest = {name: write_repr_digest(digests.DIGESTS["sha-256"](CONTENT))}
        assert (await bring(at, ask.ask("PUT", at.endpoint, at.headers() | digest).headers, CONTENT))[0] == 204
        assert (await task).stated
        assert (at.root / "file").read_bytes() == CONTENT


async def test_data_that_come_all_at_once_and_are_not_those_that_were_signed_get_no_name(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        task = await waited(at)
        digest = {"Content-Digest": digests.content_digest(CONTENT)}
        asked = asking(at).ask("PUT", at.endpoint, at.headers() | digest)
        assert (await bring(at, asked.headers, b"X" + CONTENT[1:]))[0] != 204
        with pytest.raises(PeerFailed):
            await task
        assert list(at.root.iterdir()) == []


# ---- what the sink answers


async def test_a_sink_that_proves_nothing_gets_nothing(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at, plain() as (sink, address):
        at.demand_signatures()
        with pytest.raises(PeerRefused, match="nobody has proven that it is the consumer's"):
            await at.pusher.push(TRANSFER, address)
        assert sink.got == []


async def test_a_sink_that_refuses_and_signs_that_is_believed(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        at.demand_signatures()
        with pytest.raises(PeerRefused, match="status 401") as refused:
            await at.pusher.push(TRANSFER, at.sink().__class__(f"{at.endpoint}?x", "not-its-token", None, None, None))
        assert refused.value.status == 401


def header(name: str, value: str) -> Lie:
    def lie(_request: web.Request, response: web.StreamResponse) -> None:
        if name in response.headers and response.status != 503:
            response.headers[name] = value

    return lie


def unsigned(request: web.Request, response: web.StreamResponse) -> None:
    if request.method == "PUT":
        for name in ("Signature", "Signature-Input"):
            response.headers.pop(name, None)


def another_receipt(_request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(response, web.Response) and response.content_type == "application/jwt" and isinstance(response.body, bytes):
        response._body = b"x" + response.body[1:]


LIES: dict[str, tuple[str, Lie]] = {
    "another place to go on": ("another answer", header("Upload-Offset", "7")),
    "another digest": ("another answer", header("Content-Digest", digests.content_digest(b"x"))),
    "no signature any more": ("whoever took that off", unsigned),
    "another receipt": ("the body is another", another_receipt),
    "half a signature": ("do not have the same labels", lambda _request, response: response.headers.pop("Signature", None)),
}


@pytest.mark.parametrize(("said", "lie"), LIES.values(), ids=LIES)
@pytest.mark.parametrize("demanded", [True, False], ids=["demanded", "offered"])
async def test_whoever_changes_an_answer_of_the_sink_gets_no_further_byte(tmp_path: Path, said: str, lie: Lie, demanded: bool):
    async with stand(tmp_path, CONTENT, **PROMISED) as at:
        if demanded:
            at.demand_signatures()
        at.lies.append(lie)
        receiving = await waited(at)
        with pytest.raises(PeerRefused, match=said) as refused:
            async with asyncio.timeout(20):
                await pushed_until_refused(at)
        assert refused.value.said, "by its code it is told from what only a clock says"
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        assert all(each.counts.bytes == 0 for each in receipts)
        await gone(receiving)


class Garbling:
    """A way to a sink on which each answer has half a signature, and that notes where it is dialled anew."""

    def __init__(self) -> None:
        self.anew: list[str] = []

    def check(self, url: str) -> None: ...

    def afresh(self, url: str) -> None:
        self.anew.append(url)

    async def send(self, *_: Any, **__: Any) -> Reply:
        return Reply(204, {"signature-input": 'dp=();tag="dp-push"'}, b"")

    async def upload(self, _url: str, body: AsyncIterator[bytes], *_: Any, **__: Any) -> Reply:
        async for _piece in body:
            pass
        return await self.send()


async def test_after_an_answer_that_does_not_hold_its_sink_is_dialled_anew():
    way, url = Garbling(), "https://bio.example/sink/1"
    means = Means(lambda: key_of(PROVIDER), lambda who: [key_of(who).key], lambda: 1.0, some_bytes_anew())
    uploads = SignedUploads(way, Asking(means, CONSUMER, http.PUSH), TRANSFER)
    for ask in (
        uploads.head(url, headers={}, limit_bytes=1),
        uploads.upload(url, nothing(), 0, headers={}, idle_seconds=1.0, limit_bytes=1),
    ):
        with pytest.raises(PeerRefused) as refused:
            await ask
        assert refused.value.said == "signature-labels"
    assert way.anew == [url, url]


async def nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes]():
        yield piece


@pytest.mark.parametrize("restarted", [False, True], ids=["goes on", "starts anew"])
@pytest.mark.parametrize("method", ["HEAD", "PUT"])
async def test_a_sink_that_has_signed_before_a_cut_is_believed_without_a_signature_no_more_after_it(
    tmp_path: Path, method: str, restarted: bool
):
    puts, cut = 0, False

    @web.middleware
    async def once(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        nonlocal puts, cut
        response, puts = await handler(request), puts + (request.method == "PUT")
        if puts == 2 and not cut and request.transport is not None:
            cut = True
            request.transport.abort()
        return response

    def without(request: web.Request, response: web.StreamResponse) -> None:
        if cut and request.method == method:
            unsigned(SimpleNamespace(method="PUT"), response)  # type: ignore[arg-type]

    async with stand(tmp_path, CONTENT, once, **PROMISED) as at:
        at.lies.append(without)
        receiving = await waited(at)
        with pytest.raises(PeerRefused, match="whoever took that off") as refused:
            async with asyncio.timeout(20):
                await pushed_until_refused(at, restarted=restarted)
        assert (cut, refused.value.said) == (True, "answer-unsigned")
        await gone(receiving)


async def pushed_until_refused(at: Stand, *, restarted: bool = False) -> None:
    while True:
        try:
            await at.push()
        except PeerRefused:
            raise
        except PeerFailed:
            await asyncio.sleep(0.02)
            if restarted:
                at.pusher._sinks = at.sinks()


async def test_a_provider_that_is_told_to_sign_does_so(tmp_path: Path):
    """The sink demands what the provider does not know of."""
    async with stand(tmp_path, CONTENT, **PROMISED) as at:
        at.demanded.add("https://w3id.org/qiao/v1/signed-requests")
        async with asyncio.timeout(30):
            await asyncio.gather(at.receive(), pushed(at))
        assert (at.root / "file").read_bytes() == CONTENT
