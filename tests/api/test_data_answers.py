"""What all routes of the data listener share: who presents no token is told how, and an error has its answer."""

import asyncio
import hashlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import nacl.bindings
import orjson
import pytest
import trustme
from aiohttp import web
from yarl import URL

from connector import telemetry
from connector.api.data_answers import Signing, answered, bearer, not_allowed, not_found
from connector.errors import ConnectorError, RangeNotSatisfiable, SettingsError, SourceFailed, TokenRefused, Withdrawn
from connector.ports import SIGNED_REQUESTS
from connector.signatures import digests, http
from connector.signatures.fields import InnerList, Item, read_dictionary, write_bare
from connector.signatures.shown import show
from tests.api.conftest import spoken
from tests.dataplane.reader import a_wire
from tests.dataplane.rig import (
    CONSUMER,
    PROVIDER,
    STRANGER,
    TRANSFER,
    FakeIdentity,
    Rig,
    ShiftedClock,
    key_of,
    provider,
    serving,
    some_bytes,
)


async def answer(error: Exception | None, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
    async def handle(_request: web.Request) -> web.StreamResponse:
        if error is not None:
            raise error
        return web.Response(body=b"{}")

    tracing = telemetry.Tracing("test", 0.0)
    app = web.Application()
    app.router.add_get("/", answered(tracing, "GET /", handle))
    app.router.add_route("*", "/", not_allowed("GET, HEAD"))
    app.router.add_route("*", "/{rest:.*}", not_found)
    async with serving(app) as port, aiohttp.request(method, f"http://127.0.0.1:{port}/", headers=headers) as got:
        status, told, body = got.status, {name.lower(): value for name, value in got.headers.items()}, await got.read()
    tracing.close()
    return status, told, dict(orjson.loads(body or b"{}"))


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 5000, "abc", "a.b", "a.b.c.d", ".." + "x" * 5000]
)
def test_what_is_no_bearer_token_is_refused_with_how_to_send_one(value: str | None):
    with pytest.raises(TokenRefused, match="Authorization: Bearer"):
        bearer(value)


def test_clients_of_edc_that_present_the_token_without_a_scheme_are_heard():
    assert bearer("head.claims.signature") == "head.claims.signature"


def test_the_scheme_is_written_as_one_likes():
    assert bearer("bearer abc") == bearer("BEARER abc") == "abc"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TokenRefused("no"), 401, "token-refused"),
        (Withdrawn("over", "agreement-ended"), 403, "agreement-ended"),
        (SourceFailed("`/secret/place` is gone"), 502, "source-failed"),
        (RangeNotSatisfiable("outside", 7), 416, "range-not-satisfiable"),
        (ZeroDivisionError("a defect"), 500, "internal"),
    ],
)
@pytest.mark.asyncio
async def test_an_error_is_a_problem_that_names_no_place_of_ours(error: Exception, status: int, code: str):
    got, headers, body = await answer(error)
    assert (got, body["type"], headers["content-type"]) == (status, f"urn:qiao:problem:{code}", "application/problem+json")
    assert "secret" not in str(body)
    assert "a defect" not in str(body)
    if isinstance(error, ConnectorError):
        assert headers["cache-control"] == "no-store"


@pytest.mark.asyncio
async def test_data_of_ours_that_cannot_be_read_are_a_warning_to_our_operator_and_a_wrong_token_is_none(log: io.StringIO):
    await answer(SourceFailed("`table.csv` changed since it was published: publish it again"))
    await answer(TokenRefused("no"))
    assert [orjson.loads(line)["level"] for line in log.getvalue().splitlines()] == ["warning", "info"]


@pytest.mark.asyncio
async def test_a_challenge_names_the_error_only_to_who_presented_a_token():
    _, bare, _ = await answer(TokenRefused("no"))
    _, told, _ = await answer(TokenRefused("no `x`"), Authorization="Bearer abc")
    assert bare["www-authenticate"] == "Bearer"
    assert told["www-authenticate"] == 'Bearer error="invalid_token", error_description="no \'x\'"'


@pytest.mark.asyncio
async def test_a_range_outside_says_how_much_there_is_and_a_method_which_are_taken():
    _, headers, _ = await answer(RangeNotSatisfiable("outside", 7))
    assert headers["content-range"] == "bytes */7"
    status, headers, _ = await answer(None, "PUT")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


# ---- signatures, on real listeners, whichever way the bytes take


NONCE, OTHER_NONCE = "n" * 22, "m" * 22
LARGE = some_bytes(1024 * 1024)
WAYS = ("sendfile", "pieces", "TLS")
ASKING = {"Accept-Signature": http.ask(http.PULL.of_answer, nonce=NONCE)}


def signed(method: str, url: str, headers: dict[str, str], *, by: str = CONSUMER, nonce: str = NONCE, at: float = 0.0) -> dict[str, str]:
    """The headers with a signature."""
    lower = {name.lower(): (value,) for name, value in headers.items()}
    request = http.Request(method, url, lambda name: lower.get(name, ()))
    given = http.sign(request, key_of(by), at or time.time(), nonce=nonce)
    return headers | {"Signature-Input": given[0], "Signature": given[1]}


def held(method: str, url: str, asked: dict[str, str], status: int, told: Mapping[str, str], nonce: str | None) -> set[str]:
    """What the signature of an answer covers, which has to hold."""
    lower = {name.lower(): (value,) for name, value in asked.items()}
    request = http.Request(method, url, lambda name: lower.get(name, ()))
    lines = {name.lower(): (value,) for name, value in told.items()}
    answer = http.Answer(status, lambda name: lines.get(name, ()), request)
    found = http.verify_answer(answer, PROVIDER, [key_of(PROVIDER).key], time.time(), nonce=nonce)
    member = read_dictionary(f"x={found.input}")["x"]
    assert isinstance(member, InnerList)
    return {str(item.value) for item in member.items}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


# asked with -> status, and what is covered beside what always is
ASKED: dict[str, tuple[str, dict[str, str], int, set[str]]] = {
    "all": ("GET", {}, 200, {"etag", "content-length", "content-type", "repr-digest"}),
    "a part": (
        "GET",
        {"Range": "bytes=10-99999"},
        206,
        {"etag", "content-range", "content-length", "content-type", "repr-digest", "range"},
    ),
    "the head": ("HEAD", {}, 200, {"etag", "content-length", "content-type", "repr-digest"}),
    "if it is another": ("GET", {"If-None-Match": "*"}, 304, {"etag", "repr-digest"}),
    "if it is the same": ("GET", {"If-Match": '"x"'}, 412, {"content-length", "content-type"}),
    "too far": ("GET", {"Range": "bytes=99999999-"}, 416, {"content-range", "content-length", "content-type", "range"}),
    "with a wrong token": ("GET", {"Authorization": "Bearer x"}, 401, {"content-length", "content-type"}),
    "with a wrong method": ("DELETE", {}, 405, {"content-length", "content-type"}),
}
ALWAYS = {"@status", "@method", "@target-uri"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [100_001, len(LARGE)], ids=["small", "large"])
@pytest.mark.asyncio
async def test_every_answer_is_signed_and_bound_to_its_request_and_has_the_same_bytes(
    way: str, size: int, tmp_path: Path, authority: trustme.CA
):
    content = LARGE[:size]
    async with a_wire(way, tmp_path, authority) as wire, aiohttp.ClientSession() as session:
        await wire.rig.publish(content, stages=wire.stages)
        url = wire.rig.endpoint
        for method, headers, status, covered in ASKED.values():
            plain = wire.rig.authorization() | headers
            for asked, nonce, more in (
                (signed(method, url, plain), None, {"signature"}),
                (plain | ASKING, NONCE, set[str]()),
                (signed(method, url, plain) | ASKING, NONCE, {"signature"}),
            ):
                async with session.request(method, url, headers=asked, ssl=wire.tls or True) as answer:
                    body = await answer.read()
                assert answer.status == status
                assert held(method, url, asked, status, answer.headers, nonce) == ALWAYS | covered | more
                if status in (200, 206) and method == "GET":
                    assert body == (content if status == 200 else content[10:100_000])
            async with session.request(method, url, headers=plain, ssl=wire.tls or True) as answer:
                assert answer.status == status
                assert "Signature" not in answer.headers, "nobody has asked"


@pytest.mark.asyncio
async def test_an_answer_from_memory_is_signed_for_each_who_asks_and_for_nobody_else(tmp_path: Path):
    async with provider(tmp_path) as rig, aiohttp.ClientSession() as session:
        await rig.publish(b"small")
        asked: dict[str, str]
        for number in range(6):
            asked = rig.authorization() | ({"Accept-Signature": f'x=();nonce="{number:022}";tag="dp-pull"'} if number % 2 else {})
            async with session.get(rig.endpoint, headers=asked) as answer:
                assert await answer.read() == b"small"
            assert ("Signature" in answer.headers) == bool(number % 2)
            if number % 2:
                assert answer.headers["Signature"].startswith("x=:")
                held("GET", rig.endpoint, asked, 200, answer.headers, f"{number:022}")


@pytest.mark.asyncio
async def test_who_asks_for_a_whole_address_has_signed_for_the_same_path(tmp_path: Path):
    async with provider(tmp_path) as rig:
        await rig.publish(b"small")
        url = urlsplit(rig.endpoint)
        for target in (url.path, rig.endpoint, rig.endpoint.replace("http", "HTTP")):
            asked = signed("GET", rig.endpoint, rig.authorization() | {"Host": url.netloc, "Connection": "close"})
            lines = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
            head, _, body = (await spoken(url.port or 0, f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())).partition(b"\r\n\r\n")
            assert body == b"small"
            told = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            assert held("GET", rig.endpoint, asked, 200, told, None) >= ALWAYS


@pytest.mark.asyncio
async def test_a_wish_that_cannot_be_read_is_met_with_what_there_is(tmp_path: Path):
    async with provider(tmp_path) as rig, aiohttp.ClientSession() as session:
        await rig.publish(b"small")
        asked = rig.authorization() | {"Accept-Signature": "((("}
        async with session.get(rig.endpoint, headers=asked) as answer:
            held("GET", rig.endpoint, asked, 200, answer.headers, None)


@pytest.mark.asyncio
async def test_what_lies_beside_the_data_and_what_is_nowhere_is_signed_too(tmp_path: Path):
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True) as rig, aiohttp.ClientSession() as session:
        await rig.publish(LARGE)
        for path, status in (
            ("/manifest", 200),
            ("/checkpoint", 200),
            ("/header", 200),
            ("/tile/0/000.p/5", 200),
            ("/tile/0/009", 404),
            ("/x", 404),
        ):
            url = f"{rig.endpoint}{path}"
            asked = signed("GET", url, rig.authorization())
            async with session.get(url, headers=asked) as answer:
                assert answer.status == status
                assert held("GET", url, asked, status, answer.headers, None) >= ALWAYS | {"signature", "content-length"}
        async with session.get(rig.endpoint, headers=(asked := signed("GET", rig.endpoint, rig.authorization()))) as answer:
            assert "link" in held("GET", rig.endpoint, asked, 200, answer.headers, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio
async def test_where_it_is_demanded_nobody_reads_without_a_signature(way: str, tmp_path: Path, authority: trustme.CA):
    clock = ShiftedClock()
    async with a_wire(way, tmp_path, authority, clock=clock) as wire, aiohttp.ClientSession() as session:
        clock.shift_seconds = 2.0
        await wire.rig.publish(LARGE, stages=wire.stages, demands=frozenset({SIGNED_REQUESTS}))
        url, token = wire.rig.endpoint, wire.rig.authorization()
        part = token | {"Range": "bytes=5-", "If-Range": '"x"'}

        async def got(headers: dict[str, str]) -> tuple[int, str, Mapping[str, str]]:
            async with session.get(url, headers=headers, ssl=wire.tls or True) as answer:
                body = await answer.read()
                return answer.status, orjson.loads(body)["type"] if answer.status != 200 else str(len(body)), answer.headers

        status, code, headers = await got(part)
        assert (status, code) == (401, "urn:qiao:problem:signature-missing")
        covered = [each for each in http.PULL.of_request if each[0] != digests.DIGEST]
        assert headers["Accept-Signature"] == http.ask(covered), "what this request has to cover"
        assert "signs" in headers["WWW-Authenticate"]
        now = clock.now()
        first = signed("GET", url, part, at=now)
        assert (await got(first))[:2] == (200, str(len(LARGE)))
        for wrong, code in (
            (first, "signature-used"),
            (signed("GET", url, part, by=STRANGER, nonce=OTHER_NONCE, at=now), "signature-signer"),
            (signed("GET", url, part, nonce=OTHER_NONCE, at=now - 61), "signature-old"),
            (signed("GET", url, token, nonce=OTHER_NONCE, at=now) | {"Range": "bytes=5-"}, "signature-uncovered"),
            (signed("GET", f"{url}?x", token, nonce=OTHER_NONCE, at=now), "signature-wrong"),
        ):
            assert (await got(wrong))[:2] == (401, f"urn:qiao:problem:{code}")
        assert (await got(signed("GET", url, token, nonce=OTHER_NONCE, at=now)))[0] == 200, "none of these has used it up"


@pytest.mark.asyncio
async def test_renewals_and_receipts_are_asked_to_be_signed(tmp_path: Path):
    clock = ShiftedClock()
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, clock=clock) as rig, aiohttp.ClientSession() as session:
        clock.shift_seconds = 2.0
        await rig.publish(LARGE, demands=frozenset({SIGNED_REQUESTS}))
        refresh = urlencode({"grant_type": "refresh_token", "refresh_token": rig.edr().refresh_token or ""}).encode()
        for method, url, data in (
            ("POST", f"{rig.url}/token", refresh),
            ("POST", f"{rig.endpoint}/receipts", b"x"),
            ("GET", f"{rig.endpoint}/receipts", None),
            ("GET", f"{rig.endpoint}/manifest", None),
        ):
            for sign in (False, True):
                bearer = await rig.consumer.mint(PROVIDER) if url.endswith("/token") else rig.authorization()["Authorization"]
                asked = {"Authorization": bearer} | ({"Content-Digest": digests.content_digest(data)} if data and sign else {})
                asked = signed(method, url, asked, nonce=f"{method}{url[-20:]}", at=clock.now()) if sign else asked
                asked |= {"Content-Type": "application/x-www-form-urlencoded" if url.endswith("/token") else "application/jwt"}
                async with session.request(method, url, headers=asked, data=data) as answer:
                    assert (answer.status == 401) is not sign, await answer.read()
                    assert ("Accept-Signature" in answer.headers) is not sign
                    assert ('"content-digest"' in answer.headers.get("Accept-Signature", "")) is (not sign and data is not None)


@pytest.mark.asyncio
@pytest.mark.parametrize("demanded", [True, False])
@pytest.mark.parametrize("where", ["receipts", "token"])
async def test_another_body_than_the_one_that_was_named_is_refused_with_its_own_code(tmp_path: Path, where: str, demanded: bool):
    clock = ShiftedClock()
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, clock=clock) as rig, aiohttp.ClientSession() as session:
        clock.shift_seconds = 2.0
        await rig.publish(LARGE, demands=frozenset({SIGNED_REQUESTS}) if demanded else frozenset())
        url, body, kind = f"{rig.endpoint}/receipts", b"a.b.c", "application/jwt"
        if where == "token":
            url, kind = f"{rig.url}/token", "application/x-www-form-urlencoded"
            body = urlencode({"grant_type": "refresh_token", "refresh_token": rig.edr().refresh_token or ""}).encode()

        async def told(number: int, digest: str | None, sent: bytes) -> tuple[int, dict[str, Any]]:
            bearer = rig.authorization()["Authorization"] if where == "receipts" else await rig.consumer.mint(PROVIDER)
            asked = {"Authorization": bearer} | ({"Content-Digest": digest} if digest is not None else {})
            headers = signed("POST", url, asked, nonce=f"{NONCE}{number}", at=clock.now()) | {"Content-Type": kind}
            async with session.post(url, headers=headers, data=sent) as answer:
                return answer.status, orjson.loads(await answer.read())

        right, other = digests.content_digest(body), body + b"&x=y"
        for number, (digest, sent, code) in enumerate(
            (
                (right, other, "content-digest-wrong"),
                (digests.content_digest(other), body, "content-digest-wrong"),
                ("md5=:AAAA:", body, "content-digest-unknown"),
                (None, body, "content-digest-missing" if demanded else None),
                (right, body, None),
            )
        ):
            status, said = await told(number, digest, sent)
            if code is None:  # it is read, for whatever it is
                assert status == (200 if where == "token" else 409), said
            else:
                told_code = {"error": "invalid_client"} if where == "token" else {"type": f"urn:qiao:problem:{code}"}
                assert (status, said | told_code) == (401, said)


@pytest.mark.asyncio
async def test_behind_a_proxy_the_address_that_counts_is_the_one_that_others_use():
    clock, identity = ShiftedClock(), FakeIdentity(PROVIDER)
    signing = Signing("https://hospital.example/space", lambda: key_of(PROVIDER), identity.keys, clock)
    clock.shift_seconds = 2.0
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        signing.proof(request).demand(CONSUMER)
        seen.append(request.raw_path)
        return web.Response(body=b"{}")

    app = web.Application()
    app.router.add_get("/data/{pid}", handle)
    app.on_response_prepare.append(signing.sign)
    url = "https://hospital.example/space/data/urn:uuid:1?a=%20b"
    asked = signed("GET", url, {"Authorization": "Bearer x"}, at=clock.now())
    async with serving(app) as port, aiohttp.ClientSession() as session:
        inside = URL(f"http://127.0.0.1:{port}/data/urn:uuid:1?a=%20b", encoded=True)
        async with session.get(inside, headers=asked | {"Host": "10.0.0.1"}) as answer:
            assert answer.status == 200
            held("GET", url, asked, 200, answer.headers, None)
    assert seen == ["/data/urn:uuid:1?a=%20b"]


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_signed_leaves_without_a_signature():
    def no_key() -> Any:
        raise SettingsError("no key is valid now")

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    app = web.Application()
    app.router.add_get("/", handle)
    app.on_response_prepare.append(Signing("https://hospital.example", no_key, FakeIdentity(PROVIDER).keys, ShiftedClock()).sign)
    async with serving(app) as port, aiohttp.request("GET", f"http://127.0.0.1:{port}/", headers=ASKING) as answer:
        assert answer.status == 200
        assert "Signature" not in answer.headers


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT hospital.example:99999999999",
        "GET http://hospital.example:99999999999/data/x",
        "GET http://[x/data/x",
        "OPTIONS *",
        "GET //[/data/x?:99999999999",
        "GET /data/x%00\u00e9",
        "GET /data/x#y",
    ],
)
@pytest.mark.asyncio
async def test_a_target_that_nobody_can_mean_is_answered_all_the_same(line: str, tmp_path: Path):
    async with provider(tmp_path) as rig:
        headers = "".join(f"{name}: {value}\r\n" for name, value in (ASKING | {"Signature": "x", "Range": "\u00e9"}).items())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(rig.url.rpartition(":")[2]))
        writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode("latin-1"))
        got = await asyncio.wait_for(reader.read(), 5.0)
        writer.close()
        assert got.split(b" ")[1][:1] == b"4", got


# ---- what a consumer has signed of its requests, on record


def with_digest(rig: Rig, nonce: str, token: dict[str, str], **more: str) -> dict[str, str]:
    """A signed request that covers the digest of the token, as ours do."""
    asked = token | {"Qiao-Authorization-Digest": digests.authorization_digest(token["Authorization"])} | more
    return signed("GET", rig.endpoint, asked, nonce=nonce, at=rig.clock.now())


@pytest.mark.asyncio
async def test_the_first_signed_request_with_each_token_is_on_record_by_a_commit_that_is_made_anyway(tmp_path: Path):
    async with provider(tmp_path, metered=True) as rig, aiohttp.ClientSession() as session:
        assert rig.metering is not None
        await rig.publish(LARGE)
        rig.clock.shift_seconds += 1.0  # what was signed in the second in which a process begins may be from before
        first, second = rig.authorization(), rig.authorization()
        steps = (
            (first, 0),  # who signs nothing leaves nothing
            (with_digest(rig, NONCE, first, Range="bytes=100000-199999"), 1),
            (with_digest(rig, OTHER_NONCE, first, Range="bytes=200000-299999"), 1),
            (with_digest(rig, OTHER_NONCE, second, Range="bytes=300000-399999"), 2),
            (signed("GET", rig.endpoint, rig.authorization() | {"Range": "bytes=400000-499999"}, nonce="x" * 22), 2),  # the token is in it
            (with_digest(rig, NONCE, rig.authorization(), Range="bytes=500000-599999") | {"Signature": "dp=:YWJj:"}, 2),  # not demanded
        )
        for headers, count in steps:
            async with session.get(rig.endpoint, headers={"Range": "bytes=0-99999"} | headers) as answer:
                assert (answer.status, len(await answer.read())) == (206, 100_000)
            await rig.metering.accounts.write_now()
            facts = [each for each in await rig.store.evidence_of(TRANSFER) if each.what == telemetry.REQUEST]
            assert len(facts) == count, headers
        for fact, asked in zip(facts, ("bytes=100000-199999", "bytes=300000-399999"), strict=True):
            said = fact.detail["request"]
            sealed = read_dictionary(said["signature"])["dp"]
            assert isinstance(sealed, Item)
            assert isinstance(sealed.value, bytes)
            shown = show(said["base"], said["input"].removeprefix("dp="), sealed.value, CONSUMER, [key_of(CONSUMER).key])
            assert (shown.values['"range"'], shown.values['"@target-uri"'], fact.peer) == (asked, rig.endpoint, CONSUMER)
            assert fact.digest == hashlib.sha256(said["base"].encode()).digest()
            assert "Bearer" not in str(fact.detail)


def covering(rig: Rig, name: str, **more: str) -> dict[str, str]:
    """A signed request that covers one more field than its binding names."""
    asked = with_digest(rig, NONCE, rig.authorization()) | more
    lower = {each.lower(): (text,) for each, text in asked.items()}
    request = http.Request("GET", rig.endpoint, lambda each: lower.get(each, ()))
    line = asked["Signature-Input"].removeprefix("dp=").replace(")", f' "{name}")', 1)
    covered = [(f'"{each}"', http.value_of((each, False), request) or "") for each in line[2 : line.index(")") - 1].split('" "')]
    sealed = nacl.bindings.crypto_sign(http.base(covered, line), key_of(CONSUMER).secret)[:64]
    return asked | {"Signature-Input": f"dp={line}", "Signature": f"dp={write_bare(sealed)}"}


@pytest.mark.asyncio
async def test_of_a_signed_request_nothing_is_on_record_that_is_secret_or_without_end_or_there_already(tmp_path: Path):
    async with provider(tmp_path, metered=True) as rig, aiohttp.ClientSession() as session:
        assert rig.metering is not None
        await rig.publish(LARGE)
        rig.clock.shift_seconds -= 1.0  # the second in which the process has begun may be over by now
        before = with_digest(rig, NONCE, rig.authorization(), Range="bytes=0-99999")
        rig.clock.shift_seconds += 2.0
        once, other = with_digest(rig, OTHER_NONCE, rig.authorization(), Range="bytes=0-99999"), rig.authorization()
        steps = (
            (before, 0),  # another process may have it on record
            (covering(rig, "cookie", Cookie="patient=42"), 0),
            (covering(rig, "authorization"), 0),
            (with_digest(rig, "l" * 22, rig.authorization(), **{"If-Range": f'"{"x" * 5000}"'}), 0),
            (once, 1),
            (with_digest(rig, "o" * 22, other, Range="bytes=0-99999"), 2),
            (once, 2),
        )
        for headers, count in steps:
            async with session.get(rig.endpoint, headers=headers) as answer:
                assert answer.status in (200, 206)
                await answer.read()
            await rig.metering.accounts.write_now()
            facts = [each for each in await rig.store.evidence_of(TRANSFER) if each.what == telemetry.REQUEST]
            assert len(facts) == count, headers
