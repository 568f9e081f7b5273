"""A consumer that signs its requests, and believes no answer that contradicts its signature; on real listeners."""

import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from connector import telemetry
from connector.adapters.egress import guard
from connector.adapters.memory import MemoryStore
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams.mover import SpliceMover
from connector.control.journal import Journal
from connector.errors import EgressDenied, PeerFailed, PeerRefused, SettingsError
from connector.intake import patience
from connector.intake.account import Means
from connector.intake.download import Downloads, Metering
from connector.intake.patience import doubtful
from connector.intake.promise import Broken
from connector.intake.signed import SignedPeer, Signing, demanded
from connector.ports import SIGNED_REQUESTS
from connector.records import Agreement, Changes, Evidence, Pull
from connector.signatures import http
from connector.signatures.digests import authorization_digest
from connector.signatures.fields import Item, read_dictionary
from connector.signatures.jws import PublicKey
from connector.signatures.shown import show
from connector.values import replace
from tests.dataplane.reader import a_wire
from tests.dataplane.rig import (
    CONSUMER,
    POLICY,
    PROVIDER,
    STRANGER,
    TRANSFER,
    Counted,
    FakeIdentity,
    Rig,
    ShiftedClock,
    Watcher,
    agreed,
    key_of,
    provider,
    pull,
    serving,
    some_bytes,
)

LARGE = some_bytes(3 * 1024 * 1024 + 17)
POSSESSION = {"leftOperand": "https://w3id.org/qiao/v1/possession", "operator": "eq", "rightOperand": {"@id": SIGNED_REQUESTS}}
HEADERS = {"Authorization": "Bearer t0ken", "Accept": "*/*"}
NAMES = ("Signature-Input", "Signature")


class Side:
    """A consumer, and what it has put on record."""

    def __init__(self, by: str = CONSUMER) -> None:
        self.clock, self.identity, self.store = ShiftedClock(), FakeIdentity(CONSUMER), MemoryStore()
        self.journal = Journal(self.store, self.clock)
        self.peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
        self.signing = Signing(lambda: key_of(by), self.identity.keys, self.clock)

    def signed(self, **options: Any) -> SignedPeer:
        return SignedPeer(self.peer, self.signing, PROVIDER, TRANSFER, decide=self.journal.decide, **options)

    async def legs(self) -> list[Evidence]:
        return [each for each in await self.store.evidence_of(TRANSFER) if each.what == telemetry.LEG]

    def downloads(self, rig: Rig, to: Path) -> Downloads:
        means = Means(self.store, self.journal.decide, self.identity, self.clock, Counted())
        return rig.downloads(to, metering=Metering(means, SpliceMover, "write"), signer=self.signing.signer, patience_seconds=2.0)


@pytest_asyncio.fixture
async def side() -> AsyncIterator[Side]:
    made = Side()
    yield made
    await made.peer.close()


class Provider:
    """An application that says what a test wants: `lie` changes an answer after it was signed."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.ports: list[int] = []  # of the client's connections, by request
        self.signs = True
        self.wants = self.itself = False
        self.status = 200
        self.by = PROVIDER
        self.at = 0.0
        self.lie: Callable[[web.StreamResponse], object] = lambda _response: None
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        assert request.transport is not None
        self.ports.append(request.transport.get_extra_info("peername")[1])
        other = self.itself and '"authorization"' not in request.headers.get("Signature-Input", "")
        if other or (self.wants and "Signature" not in request.headers):
            return web.Response(status=401, headers={"Accept-Signature": http.ask(http.PULL.of_request)})
        return web.Response(status=self.status, body=b"data", headers={"ETag": '"e"'})

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        wanted = http.wanted(request.headers["Accept-Signature"])
        if self.signs and wanted is not None:
            told = http.Request(request.method, str(request.url), lambda name: request.headers.getall(name, ()))
            answer = http.Answer(response.status, lambda name: response.headers.getall(name, ()), told)
            given = http.sign(answer, key_of(self.by), self.at or time.time(), nonce=wanted.nonce)
            response.headers[NAMES[0]], response.headers[NAMES[1]] = given
        self.lie(response)


@asynccontextmanager
async def listening() -> AsyncIterator[Provider]:
    made, app = Provider(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    app.on_response_prepare.append(made.sign)
    async with serving(app) as port:
        made.url = f"http://127.0.0.1:{port}/data/x?y=%20z"
        yield made


async def read(peer: SignedPeer, url: str, headers: dict[str, str] = HEADERS) -> bytes:
    async with peer.stream("GET", url, headers=headers) as incoming:
        return b"".join([piece async for piece in incoming.chunks()])


# ---- when we sign


@pytest.mark.asyncio
async def test_every_request_asks_for_a_signed_answer_and_the_first_is_signed_as_are_all_to_a_provider_that_signs(side: Side):
    async with listening() as there:
        peer = side.signed()
        for _ in range(3):
            assert await read(peer, there.url) == b"data"
        await peer.send("POST", there.url, headers=HEADERS, body=b"x")
        assert all("Signature" in each.headers for each in there.asked)
        assert all(http.wanted(each.headers["Accept-Signature"]) for each in there.asked)
        assert len({each.headers["Signature"] for each in there.asked}) == 4
        for each in there.asked:
            told = http.Request(each.method, there.url, lambda name, each=each: each.headers.getall(name, ()))  # type: ignore[misc]
            http.verify_request(told, CONSUMER, [key_of(CONSUMER).key], time.time())


@pytest.mark.asyncio
async def test_a_provider_that_knows_no_signatures_gets_one_with_each_token_and_none_once_it_cannot_bear_it(side: Side):
    async with listening() as there:
        there.signs = False
        peer, renewed = side.signed(), HEADERS | {"Authorization": "Bearer an0ther"}
        for headers in (HEADERS, HEADERS, renewed, renewed):
            assert await read(peer, there.url, headers) == b"data"
        assert ["Signature" in each.headers for each in there.asked] == [True, False, True, False]
        there.status = 400
        for headers in (HEADERS, renewed):
            await read(peer, there.url, headers)
        assert ["Signature" in each.headers for each in there.asked[4:]] == [True, False]
        assert await side.legs() == []


@pytest.mark.asyncio
async def test_what_the_agreement_demands_is_signed_from_the_first_request_on(side: Side):
    async with listening() as there:
        there.signs = False
        await read(side.signed(demanded=True), there.url)
        assert "Signature" in there.asked[0].headers
        (leg,) = await side.legs()
        assert leg.detail.keys() == {"status", "etag", "request"}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.asyncio
async def test_a_get_that_is_refused_because_it_is_not_signed_is_sent_once_more(side: Side, streamed: bool):
    async with listening() as there:
        there.signs, peer = False, side.signed()
        await read(peer, there.url)
        there.wants = True
        got = await read(peer, there.url) if streamed else (await peer.send("GET", there.url, headers=HEADERS)).body
        assert got == b"data"
        assert ["Signature" in each.headers for each in there.asked] == [True, False, True]


@pytest.mark.asyncio
async def test_what_cannot_be_repeated_is_signed_the_next_time(side: Side):
    async with listening() as there:
        there.signs, peer = False, side.signed()
        await peer.send("POST", there.url, headers=HEADERS, body=b"x")
        there.wants = True
        assert [(await peer.send("POST", there.url, headers=HEADERS, body=b"x")).status for _ in range(2)] == [401, 200]


@pytest.mark.asyncio
async def test_a_refusal_of_something_else_is_not_asked_again(side: Side):
    async with listening() as there:
        there.status = 401
        assert (await side.signed().send("GET", there.url, headers=HEADERS)).status == 401
        assert len(there.asked) == 1


@pytest.mark.asyncio
async def test_nothing_is_signed_for_an_address_that_we_never_dial(side: Side):
    peer = side.signed(demanded=True)
    for url in ("https://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://user@127.0.0.1/"):
        with pytest.raises((EgressDenied, PeerFailed)):
            await peer.send("GET", url, headers=HEADERS)
        with pytest.raises((EgressDenied, PeerFailed)):
            peer.check(url)


# ---- what we believe


def header(name: str, value: str | None) -> Callable[[web.StreamResponse], object]:
    def change(response: web.StreamResponse) -> None:
        if value is None:
            del response.headers[name]
        else:
            response.headers[name] = value

    return change


def also(response: web.StreamResponse) -> None:
    response.headers["Link"] = '<http://127.0.0.1/other>; rel="describedby"; type="application/jwt"'


LIES: dict[str, tuple[str, Callable[[Provider], object]]] = {
    "another tag": ("signature-wrong", lambda p: setattr(p, "lie", header("ETag", '"f"'))),
    "a tag less": ("signature-absent", lambda p: setattr(p, "lie", header("ETag", None))),
    "a link more": ("signature-uncovered", lambda p: setattr(p, "lie", also)),
    "another signature": ("signature-bytes", lambda p: setattr(p, "lie", header("Signature", "dp=:YQ==:"))),
    "half a signature": ("signature-labels", lambda p: setattr(p, "lie", header("Signature", None))),
    "what cannot be read": ("signature-input-malformed", lambda p: setattr(p, "lie", header("Signature-Input", "dp=("))),
    "somebody else's": ("signature-signer", lambda p: setattr(p, "by", STRANGER)),
    "our own": ("signature-signer", lambda p: setattr(p, "by", CONSUMER)),
}


@pytest.mark.parametrize(("code", "tell"), LIES.values(), ids=LIES)
@pytest.mark.parametrize("demanded", [False, True])
@pytest.mark.asyncio
async def test_an_answer_that_contradicts_its_signature_is_none(side: Side, code: str, tell: Callable[[Provider], object], demanded: bool):
    async with listening() as there:
        tell(there)
        peer = side.signed(demanded=demanded)
        for ask in (lambda: read(peer, there.url), lambda: peer.send("GET", there.url, headers=HEADERS)):
            with pytest.raises(Broken, match="the provider's answer does not hold") as broken:
                await ask()
            assert broken.value.code == code
            assert "t0ken" not in broken.value.message
        assert await side.legs() == []


@pytest.mark.parametrize(("code", "seconds"), [("signature-old", -70), ("signature-future", 70)])
@pytest.mark.asyncio
async def test_an_answer_of_another_time_is_a_refusal_that_a_clock_may_mend(side: Side, code: str, seconds: int):
    async with listening() as there:
        peer = side.signed()
        there.at = time.time() + seconds
        for ask in (lambda: read(peer, there.url), lambda: peer.send("GET", there.url, headers=HEADERS)):
            with pytest.raises(PeerRefused, match="the provider's answer does not hold") as refused:
                await ask()
            assert (refused.value.said, doubtful(refused.value)) == (code, True)
        assert await side.legs() == []
        there.at = time.time()
        assert await read(peer, there.url) == b"data"


@pytest.mark.asyncio
async def test_data_without_a_signature_are_refused_once_there_were_some_with_one(side: Side):
    async with listening() as there:
        peer = side.signed()
        assert await read(peer, there.url) == b"data"
        there.signs = False
        for again in (peer, side.signed()):  # the second is one after a restart, which reads what is on record
            again.expect(await side.store.evidence_of(TRANSFER))
            with pytest.raises(Broken, match="without a signature") as broken:
                await read(again, there.url)
            assert broken.value.code == "answer-unsigned"
        assert len(await side.legs()) == 1
        there.status = 503  # a proxy that signs nothing may say that nobody is there
        assert await read(peer, there.url) == b"data"


@pytest.mark.parametrize("demanded", [False, True])
@pytest.mark.asyncio
async def test_an_answer_of_before_is_none_of_now(side: Side, demanded: bool):
    async with listening() as there:
        peer, kept = side.signed(demanded=demanded), list[dict[str, str]]()

        def keep(response: web.StreamResponse) -> None:
            kept.append({name: response.headers[name] for name in NAMES})

        def repeat(response: web.StreamResponse) -> None:
            response.headers.update(kept[0])

        there.signs, other = demanded, side.signed(demanded=demanded)
        for each in (peer, other):  # the first request is signed in any case
            await read(each, there.url)
        there.signs, there.lie = True, keep
        await read(other, there.url)
        there.lie = repeat
        with pytest.raises(Broken) as broken:
            await read(peer, there.url)
        assert broken.value.code == ("signature-wrong" if demanded else "signature-nonce")


@pytest.mark.parametrize(
    ("keys", "code"), [([], "signature-key-unknown"), ([replace(key_of(PROVIDER).key, not_after=1.0)], "signature-key-ended")]
)
@pytest.mark.asyncio
async def test_a_key_that_does_not_count_proves_nothing(side: Side, keys: Sequence[PublicKey], code: str):
    async with listening() as there:
        side.signing = replace(side.signing, keys=lambda _who: keys)
        with pytest.raises(Broken) as broken:
            await read(side.signed(), there.url)
        assert broken.value.code == code


@pytest.mark.asyncio
async def test_without_a_key_of_ours_nothing_is_sent(side: Side):
    def no_key() -> Any:
        raise SettingsError("no key is valid now")

    async with listening() as there:
        side.signing = replace(side.signing, signer=no_key)
        with pytest.raises(SettingsError):
            await read(side.signed(demanded=True), there.url)
        assert there.asked == []


# ---- what is put on record


@pytest.mark.asyncio
async def test_what_both_have_signed_is_on_record_once_for_each_answer_with_data_and_the_token_is_not(side: Side):
    async with listening() as there:
        peer = side.signed(demanded=True)
        await read(peer, there.url)
        await read(peer, there.url)
        await peer.send("GET", there.url, headers=HEADERS)
        there.status = 404
        await read(peer, there.url)
        legs = await side.legs()
        assert len(legs) == 2
        for leg, asked in zip(legs, there.asked, strict=False):
            assert leg.detail["request"] == {"input": asked.headers[NAMES[0]], "signature": asked.headers[NAMES[1]]}
            assert leg.detail["answer"].keys() == {"input", "signature", "digest"}
            assert leg.digest is not None
            assert leg.detail["answer"]["digest"] == leg.digest.hex()
            assert (leg.detail["status"], leg.detail["etag"], leg.peer) == (200, '"e"', PROVIDER)
            shown = orjson.dumps(leg.detail)
            assert b"t0ken" not in shown
            assert there.url.encode() not in shown
            assert len(shown) < 2048


@pytest.mark.asyncio
async def test_what_the_provider_has_signed_of_an_answer_proves_itself_unless_the_address_has_a_query(side: Side):
    async with listening() as there:
        url = there.url.partition("?")[0]
        await read(side.signed(demanded=True), url)
        (leg,) = await side.legs()
        answer = leg.detail["answer"]
        found = show(answer["base"], answer["input"], b64decode(answer["signature"]), PROVIDER, [key_of(PROVIDER).key])
        assert (found.values['"@status"'], found.values['"etag"'], found.values['"@target-uri";req']) == ("200", '"e"', url)
        assert found.values['"signature";req'] == leg.detail["request"]["signature"]
        request = leg.detail["request"]
        sealed = read_dictionary(request["signature"])["dp"]
        assert isinstance(sealed, Item)
        asked = show(request["base"], request["input"].partition("=")[2], sealed.value, CONSUMER, [key_of(CONSUMER).key])  # type: ignore[arg-type]
        assert (asked.values['"@target-uri"'], asked.values['"qiao-authorization-digest"']) == (url, authorization_digest("Bearer t0ken"))
        assert b"t0ken" not in orjson.dumps(leg.detail)
        assert len(orjson.dumps(leg.detail)) < 4096


@pytest.mark.asyncio
async def test_a_token_that_a_provider_wants_covered_itself_is_on_record_nowhere(side: Side):
    async with listening() as there:
        there.itself = True
        await read(side.signed(demanded=True), there.url.partition("?")[0])
        assert [b"t0ken" in base_of(each) for each in there.asked] == [False, True]
        (leg,) = await side.legs()
        assert "base" not in leg.detail["request"]
        assert b"t0ken" not in orjson.dumps(leg.detail)


def base_of(asked: web.Request) -> bytes:
    """What the signature of a request is over."""
    request = http.Request(asked.method, str(asked.url), lambda name: asked.headers.getall(name, ()))
    covers = "qiao-authorization-digest" in asked.headers["Signature-Input"]
    assert covers == ("Qiao-Authorization-Digest" in asked.headers)
    return http.verify_request(request, CONSUMER, [key_of(CONSUMER).key], time.time()).base


@pytest.mark.asyncio
async def test_what_is_on_record_is_there_when_the_answer_has_been_read_also_if_it_broke(side: Side):
    async with listening() as there:
        peer = side.signed(demanded=True)
        with pytest.raises(ZeroDivisionError):
            async with peer.stream("GET", there.url, headers=HEADERS):
                raise ZeroDivisionError
        assert len(await side.legs()) == 1


# ---- whole downloads


def order(to: Path, **changed: Any) -> Pull:
    return pull(to / "file", agreement="urn:agreement", **changed)


async def know(side: Side, document: Any = POLICY) -> Agreement:
    agreement = agreed(document=document)
    await side.store.commit(Changes(saves=(agreement,)))
    return agreement


DEMANDING = {**POLICY, "permission": [{"action": "use", "constraint": [POSSESSION]}]}


@pytest.mark.parametrize("way", ["sendfile", "pieces", "TLS"])
@pytest.mark.parametrize("document", [POLICY, DEMANDING], ids=["unknown to the consumer", "known"])
@pytest.mark.asyncio
async def test_a_download_under_an_agreement_that_demands_signatures_comes_to_its_end(side: Side, way: str, document: Any, tmp_path: Path):
    to, root, clock = tmp_path / "to", tmp_path / "from", ShiftedClock()
    to.mkdir()
    root.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(root / "ca.pem")
    async with a_wire(way, root, authority, clock=clock, ca_file=root / "ca.pem") as wire:
        clock.shift_seconds = side.clock.shift_seconds = 2.0
        digest = await wire.rig.publish(LARGE, stages=wire.stages, demands=frozenset({SIGNED_REQUESTS}))
        await know(side, document)
        done = await side.downloads(wire.rig, to).fetch(order(to), wire.rig.edr(), **Watcher().calls)
    assert (done.sha256, (to / "file").read_bytes()) == (digest, LARGE)
    (leg,) = await side.legs()
    assert {"request", "answer"} <= leg.detail.keys()


@pytest.mark.asyncio
async def test_a_download_leaves_a_request_that_it_has_signed_with_its_provider_though_nothing_demands_it(side: Side, tmp_path: Path):
    to, root, clock = tmp_path / "to", tmp_path / "from", ShiftedClock()
    to.mkdir()
    root.mkdir()
    async with provider(root, clock=clock, metered=True) as rig:
        clock.shift_seconds = side.clock.shift_seconds = 2.0
        await rig.publish(b"small")
        assert rig.metering is not None
        for number in range(2):  # the second time it comes from memory, for another token
            await rig.downloads(to, signer=side.signing.signer).fetch(
                replace(order(to), out=str(to / f"{number}")), rig.edr(), **Watcher().calls
            )
            await rig.metering.accounts.write_now()
            facts = [each for each in await rig.store.evidence_of(TRANSFER) if each.what == telemetry.REQUEST]
            assert [each.peer for each in facts] == [CONSUMER] * (number + 1)


@pytest.mark.asyncio
async def test_tokens_are_renewed_with_signatures(side: Side, tmp_path: Path):
    to, root, clock = tmp_path / "to", tmp_path / "from", ShiftedClock()
    to.mkdir()
    root.mkdir()
    async with provider(root, clock=clock) as rig:
        clock.shift_seconds = side.clock.shift_seconds = 2.0
        await rig.publish(LARGE, demands=frozenset({SIGNED_REQUESTS}))
        await know(side, DEMANDING)
        watcher = Watcher()
        edr = replace(rig.edr(), access_token="ended", expires=side.clock.now() - 1)
        await side.downloads(rig, to).fetch(order(to), edr, **watcher.calls)
    assert len(watcher.edrs) == 1
    assert (to / "file").read_bytes() == LARGE


@pytest.mark.asyncio
async def test_whoever_has_only_the_token_gets_nothing(tmp_path: Path):
    to, root, clock = tmp_path / "to", tmp_path / "from", ShiftedClock()
    to.mkdir()
    root.mkdir()
    thief = Side(by=STRANGER)
    async with provider(root, clock=clock) as rig:
        clock.shift_seconds = thief.clock.shift_seconds = 2.0
        await rig.publish(LARGE, demands=frozenset({SIGNED_REQUESTS}))
        edr = replace(rig.edr(), refresh_token=None)
        for signer in (thief.signing.signer, None):
            with pytest.raises(PeerFailed, match="status 401, `signature-"):
                await rig.downloads(to, signer=signer, patience_seconds=0.1).fetch(order(to), edr, **Watcher().calls)
    assert list(to.iterdir()) == []
    await thief.peer.close()


@pytest.mark.asyncio
async def test_a_lie_that_is_told_again_and_again_ends_the_download_with_its_reason(side: Side, tmp_path: Path):
    async with listening() as there:
        there.lie = header("ETag", '"f"')
        address = {"@type": "DataAddress", "endpointType": "HttpData", "endpoint": there.url, "endpointProperties": []}
        async with provider(tmp_path) as rig:
            await rig.publish(b"x")
            edr = replace(rig.edr(), address=address, refresh_token=None)
            with pytest.raises(Broken) as broken:
                await rig.downloads(tmp_path, signer=side.signing.signer).fetch(order(tmp_path), edr, **Watcher().calls)
        assert broken.value.code == "signature-wrong"
        assert len(there.asked) == len(set(there.ports)) == 1 + patience.AGAIN_MAX, "each over a connection of its own"


def test_whether_an_agreement_demands_it_is_read_however_it_is_written():
    assert demanded(DEMANDING)
    assert demanded({"permission": [{"constraint": [{"leftOperand": "qiao:possession", "rightOperand": "qiao:signed-requests"}]}]})
    assert not demanded(POLICY)
