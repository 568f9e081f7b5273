"""HTTP at the data listener: what RFC 9110 promises readers, who may not read, and renewals. Hostile clients: `test_data_hostile`."""

import hashlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from connector.dataplane.edr import grant_for
from tests.dataplane.reader import Same, connected, head, reading, request
from tests.dataplane.rig import CONSUMER, PROVIDER, STRANGER, TRANSFER, FakeIdentity, Rig, provider, some_bytes

SMALL, LARGE = b"0123456789", some_bytes(300_000)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as one:
        await one.publish(SMALL)
        yield one


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Answer:
    """What came back over HTTP."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body))


async def ask(http: aiohttp.ClientSession, url: str, headers: Any, *, method: str = "GET", body: bytes | None = None) -> Answer:
    async with http.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
        return Answer(response.status, response.headers, await response.read())


async def get(http: aiohttp.ClientSession, rig: Rig, *headers: tuple[str, str], method: str = "GET") -> Answer:
    """A request of the consumer; a header may come several times."""
    return await ask(http, rig.endpoint, CIMultiDict([*rig.authorization().items(), *headers]), method=method)


def tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


# --- reading

CONTENTS = pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["nothing", "small", "large"])


@CONTENTS
@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.asyncio
async def test_a_get_has_all_bytes_with_digest_and_a_strong_tag(
    content: bytes, staged: bool, rig: Rig, http: aiohttp.ClientSession
) -> None:
    await rig.publish(content, stages=(Same(),) if staged else ())
    for _ in range(2):  # the second one may come from memory
        answer = await get(http, rig)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (200, content, tag(content))
        assert answer.headers["Repr-Digest"] == f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"
        assert (answer.headers["Accept-Ranges"], answer.headers["Cache-Control"]) == ("bytes", "no-store")
        assert answer.headers["Content-Type"] == "application/octet-stream"


@CONTENTS
@pytest.mark.asyncio
async def test_a_head_says_what_a_get_would_and_ignores_a_range(content: bytes, rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(content)
    whole, asked = await get(http, rig), await get(http, rig, ("Range", "bytes=0-1"), method="HEAD")
    told = {name: value for name, value in asked.headers.items() if name != "Date"}
    assert (asked.status, asked.body) == (200, b"")
    assert told == {name: value for name, value in whole.headers.items() if name != "Date"}
    assert asked.headers["Content-Length"] == str(len(content))


E = tag(LARGE)
# (headers, status, first and length of the body or None). 300,000 bytes are there.
CASES: list[tuple[list[tuple[str, str]], int, tuple[int, int] | None]] = [
    ([("Range", "bytes=0-0")], 206, (0, 1)),
    ([("Range", "bytes=1000-199999")], 206, (1000, 199_000)),
    ([("Range", "bytes=299999-")], 206, (299_999, 1)),
    ([("Range", "bytes=-5")], 206, (299_995, 5)),
    ([("Range", "bytes=-999999999")], 206, (0, 300_000)),
    ([("Range", "bytes=5-999999999999999999999")], 206, (5, 299_995)),
    ([("Range", "bytes=300000-")], 416, None),
    ([("Range", "bytes=-0")], 416, None),
    ([("Range", "bytes=" + "9" * 3000 + "-")], 416, None),
    ([("Range", "bytes=0-1,5-6")], 200, (0, 300_000)),  # RFC 9110, 14.2: several may be ignored
    ([("Range", "bytes=0-1"), ("Range", "bytes=5-6")], 200, (0, 300_000)),
    ([("Range", "bytes=5-2")], 200, (0, 300_000)),
    ([("Range", "lines=1-2")], 200, (0, 300_000)),
    ([("Range", "bytes=٣-")], 200, (0, 300_000)),
    ([("Range", "bytes=0-9"), ("If-Range", E)], 206, (0, 10)),
    ([("Range", "bytes=0-9"), ("If-Range", '"other"')], 200, (0, 300_000)),
    ([("Range", "bytes=0-9"), ("If-Range", f"W/{E}")], 200, (0, 300_000)),
    ([("Range", "bytes=0-9"), ("If-Range", "Tue, 24 Nov 2026 12:00:00 GMT")], 200, (0, 300_000)),
    ([("Range", "bytes=300000-"), ("If-Range", '"other"')], 200, (0, 300_000)),
    ([("If-None-Match", E)], 304, None),
    ([("If-None-Match", f'"x", W/{E}')], 304, None),
    ([("If-None-Match", "*")], 304, None),
    ([("If-None-Match", '"x"'), ("Range", "bytes=0-9")], 206, (0, 10)),
    ([("If-Match", '"x"'), ("If-Match", E)], 200, (0, 300_000)),
    ([("If-Match", '"x"')], 412, None),
    ([("If-Match", f"W/{E}")], 412, None),
    ([("If-Match", '"x"'), ("If-None-Match", E)], 412, None),
    ([("If-Match", E), ("If-None-Match", E)], 304, None),
]


@pytest.mark.asyncio
async def test_ranges_and_conditions_are_answered_as_rfc_9110_says(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LARGE)
    for headers, status, part in CASES:
        answer = await get(http, rig, *headers)
        assert answer.status == status, headers
        if part is None:
            assert LARGE not in answer.body, headers
        else:
            first, length = part
            assert answer.body == LARGE[first : first + length], headers
        content_range = None if status not in (206, 416) else f"bytes {first}-{first + length - 1}/300000" if part else "bytes */300000"
        assert answer.headers.get("Content-Range") == content_range, headers
        if status in (304, 206):
            assert answer.headers["ETag"] == E
        if status in (412, 416):
            assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.asyncio
async def test_data_published_anew_is_served_under_its_own_tag_at_once(rig: Rig, http: aiohttp.ClientSession):
    assert (await get(http, rig)).body == SMALL
    await rig.publish(b"other data", name="other.bin")
    answer = await get(http, rig)
    assert (answer.body, answer.headers["ETag"]) == (b"other data", tag(b"other data"))


@pytest.mark.asyncio
async def test_what_changed_since_it_was_published_is_not_served_and_the_answer_shows_no_path(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LARGE)
    assert (await get(http, rig)).status == 200
    (rig.root / "data.bin").write_bytes(b"somebody wrote into it")
    answer = await get(http, rig)
    assert (answer.status, answer.json["type"]) == (502, "urn:qiao:problem:source-failed")
    assert b"data.bin" not in answer.body
    assert str(rig.root).encode() not in answer.body


@pytest.mark.asyncio
async def test_requests_on_one_connection_come_one_after_the_other_whatever_came_before(rig: Rig):
    """Errors, parts, heads and files: none of them leaves bytes behind that would be taken for the next answer."""
    await rig.publish(LARGE)
    good = rig.authorization()
    async with connected(rig.url) as (stream, writer):
        for method, headers, status, body in [
            ("GET", good | {"Range": "bytes=300000-"}, 416, None),
            ("GET", {}, 401, None),
            ("HEAD", good, 200, b""),
            ("GET", good | {"If-None-Match": E}, 304, b""),
            ("GET", good, 200, LARGE),
            ("GET", good | {"If-Match": '"x"'}, 412, None),
            ("GET", good | {"Range": "bytes=7-9"}, 206, LARGE[7:10]),
        ]:
            writer.write(request(method, rig.endpoint, headers))
            answered, told = await head(stream)
            assert answered == status
            found = b"" if body == b"" else await stream.readexactly(int(told["content-length"]))
            assert body is None or found == body


class Breaks:
    """A stage with a defect that shows after some bytes."""

    name = "breaks"

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = None
        self._coming = error

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        count = 0
        async for piece in pieces:
            count += 1
            if count == 3 and self.error is not None:
                raise self.error
            yield piece
        self.error = self._coming  # only after it was measured


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(5, "Input/output error"), TimeoutError()], ids=repr)
@pytest.mark.asyncio
async def test_a_defect_in_the_middle_breaks_the_stream_and_puts_nothing_of_its_own_into_it(error: Exception, rig: Rig):
    content = some_bytes(5_000_000)
    await rig.publish(content, stages=(Breaks(error),))
    async with reading(rig.endpoint, rig.authorization()) as reader:
        await reader.sip_to_the_end()
        assert len(reader.taken) < reader.announced
        assert content.startswith(reader.taken)


# --- who may not read


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"Authorization": "Basic YWI6Y2Q="}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer not.a.token"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer " + "a" * 5000}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer \xff\xfe.\xfd.\xfc"}, 'Bearer error="invalid_token"'),
    ],
    ids=["none", "basic", "empty", "garbage", "huge", "no ascii"],
)
@pytest.mark.asyncio
async def test_without_a_token_that_holds_it_is_401_with_a_challenge(headers: dict[str, str], challenge: str, rig: Rig):
    async with reading(rig.endpoint, headers) as reader:
        assert reader.status == 401
        assert reader.headers["www-authenticate"].startswith(challenge)
        assert reader.headers["cache-control"] == "no-store"
        assert orjson.loads(await reader.all())["type"] == "urn:qiao:problem:token-refused"


@pytest.mark.asyncio
async def test_an_unknown_transfer_answers_like_a_foreign_one(rig: Rig, http: aiohttp.ClientSession):
    answers = [await ask(http, f"{rig.url}/data/{pid}", rig.authorization()) for pid in ("urn:nobody", "x", TRANSFER + "0")]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}


@pytest.mark.asyncio
async def test_a_permission_that_ended_says_so_with_its_code(rig: Rig, http: aiohttp.ClientSession):
    authorization = rig.authorization()
    for changed, code in [
        ({"state": "SUSPENDED"}, "transfer-suspended"),
        ({"state": "STARTED", "agreement_ends": time.time() - 1}, "agreement-ended"),
        ({"agreement_ends": None, "agreement_final": False}, "agreement-not-final"),
    ]:
        rig.change(**changed)
        answer = await ask(http, rig.endpoint, authorization)
        assert (answer.status, answer.json["type"]) == (403, f"urn:qiao:problem:{code}")


# --- renewal


def renewal(rig: Rig, **changed: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": rig.tokens.refresh(grant_for(rig.transfers.views[TRANSFER]))} | changed


async def renewed(http: aiohttp.ClientSession, rig: Rig, form: Any, who: str = CONSUMER, *, query: str = "") -> Answer:
    body = form.encode() if isinstance(form, str) else urlencode(form).encode()
    rig.consumer.minted += 1  # an identity token is good once
    identity = await FakeIdentity(who, minted=rig.consumer.minted).mint(PROVIDER)
    return await ask(http, f"{rig.url}/token{query}", FORM | {"Authorization": identity}, method="POST", body=body)


@pytest.mark.parametrize("where", ["body", "query"])
@pytest.mark.asyncio
async def test_a_renewed_token_reads_and_the_old_one_lives_on_to_its_end(where: str, rig: Rig, http: aiohttp.ClientSession):
    old = rig.authorization()
    form = renewal(rig)
    answer = await (renewed(http, rig, form) if where == "body" else renewed(http, rig, "", query=f"?{urlencode(form)}"))
    assert (answer.status, answer.json["token_type"], answer.headers["Cache-Control"]) == (200, "Bearer", "no-store")
    for authorization in (old, {"Authorization": f"Bearer {answer.json['access_token']}"}):
        assert (await ask(http, rig.endpoint, authorization)).body == SMALL


@pytest.mark.asyncio
async def test_a_renewal_that_is_refused_is_answered_in_the_words_of_oauth(rig: Rig, http: aiohttp.ClientSession):
    good = renewal(rig)
    for form, who, status, error in [
        (good | {"refresh_token": "forged"}, CONSUMER, 400, "invalid_grant"),
        (good, STRANGER, 400, "invalid_grant"),
        (good | {"grant_type": "password"}, CONSUMER, 400, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, CONSUMER, 400, "invalid_request"),
        (urlencode(good) + "&refresh_token=another", CONSUMER, 400, "invalid_request"),
        ("&".join(f"a{n}=b" for n in range(100)), CONSUMER, 400, "invalid_request"),
        ("grant_type", CONSUMER, 400, "invalid_request"),
        ("grant_type=\xff", CONSUMER, 400, "invalid_request"),
        ("a" * 20_000, CONSUMER, 400, "invalid_request"),
        ("", CONSUMER, 400, "invalid_request"),
    ]:
        answer = await renewed(http, rig, form, who)
        assert (answer.status, answer.json["error"]) == (status, error), form
        assert "access_token" not in answer.json
    unsigned = await ask(http, f"{rig.url}/token", FORM, method="POST", body=urlencode(good).encode())
    assert (unsigned.status, unsigned.json["error"], unsigned.headers["WWW-Authenticate"]) == (401, "invalid_client", "Bearer")
    wrong_type = await ask(http, f"{rig.url}/token", {"Content-Type": "application/json"}, method="POST", body=b"{}")
    assert (wrong_type.status, wrong_type.json["error"]) == (400, "invalid_request")
    rig.change(state="TERMINATED")
    assert (await renewed(http, rig, renewal(rig, again="x"))).json["error"] == "invalid_grant"
