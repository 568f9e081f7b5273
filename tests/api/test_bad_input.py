"""Input that is wrong in every way that we could think of, over real sockets: a clear 4xx, never a 5xx, never a hang, and nothing
changes."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.api.dsp_api import ROUTES
from connector.odrl_reading.reading import LEAVES_MAX
from tests.api.conftest import DATASET, LIMIT_BYTES, OFFER, everything, first_request, valid
from tests.pair import OPEN, Desk, purpose_policy, quoted
from tests.vocab import corpus

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUEST = "/negotiations/request"
JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"and": [value]}
    return value


def body(**changed: Any) -> bytes:
    return orjson.dumps(first_request(**changed))


GOOD = body()
BAD: dict[str, tuple[bytes, Mapping[str, str], int]] = {
    "empty": (b"", JSON, 400),
    "cut": (GOOD[:-1], JSON, 400),
    "two documents": (GOOD + GOOD, JSON, 400),
    "null": (b"null", JSON, 400),
    "a list": (b"[]", JSON, 400),
    "a number of 10,000 digits": (b"1" * 10_000, JSON, 400),
    "a number beyond floating point": (GOOD[:-1] + b',"n":1e999}', JSON, 400),
    "not a number": (GOOD[:-1] + b',"n":NaN}', JSON, 400),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, JSON, 400),
    "no UTF-8": (GOOD.replace(b"urn:test:offer", b"urn:\xff\xfe"), JSON, 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), JSON, 400),
    "half a surrogate pair": (GOOD[:-1] + b',"s":"\\ud800"}', JSON, 400),
    "a name twice": (GOOD[:-1] + b',"consumerPid":"urn:x"}', JSON, 400),
    "a name twice deep down": (GOOD.replace(b'"action":"use"', b'"action":"use","acti\\u006fn" :"use"'), JSON, 400),
    "NUL in a pid": (body(consumerPid="a\0b"), JSON, 400),
    "a pid that fits into no address": (body(consumerPid="x" * 256), JSON, 400),
    "a pid with a line break": (body(consumerPid="a\r\nX: y"), JSON, 400),
    "too deep": (body(deep=nested(20)), JSON, 400),
    "100,000 brackets": (b"[" * 50_000, JSON, 400),
    "a constraint too deep": (
        body(offer={"@id": OFFER, "@type": "Offer", "permission": [{"action": "use", "constraint": [nested(14)]}]}),
        JSON,
        400,
    ),
    "too wide": (body(wide=[0] * 21_000), JSON, 400),
    "too large": (b" " * (LIMIT_BYTES + 1), JSON, 413),
    "another message": (body().replace(b"ContractRequest", b"ContractOffer"), JSON, 400),
    "no message": (b'{"@context":["https://w3id.org/dspace/2025/1/context.jsonld"],"@type":"Nothing"}', JSON, 400),
    "both addresses": (body(providerPid="urn:p"), JSON, 400),
    "no callback": (orjson.dumps({k: v for k, v in first_request().items() if k != "callbackAddress"}), JSON, 400),
    "an offer of nobody": (body(offer=OPEN | {"@id": "urn:nothing", "target": DATASET}), JSON, 400),
    "a context of contexts": (b'{"@context":' + b'{"@context":' * 15 + b"{}" + b"}" * 15 + b"}", JSON, 400),
    "plain text": (GOOD, {"Content-Type": "text/plain"}, 415),
    "a form": (GOOD, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "no type": (GOOD, {"Content-Type": ""}, 415),
    "gzip": (gzip.compress(GOOD), JSON | {"Content-Encoding": "gzip"}, 415),
    "a gzip bomb": (gzip.compress(b" " * 20_000_000), JSON | {"Content-Encoding": "gzip"}, 415),
    "said to be gzip": (GOOD, JSON | {"Content-Encoding": "gzip"}, 415),
    "an encoding of nobody": (GOOD, JSON | {"Content-Encoding": "x" * 500}, 415),
    **{
        f"called back at {address}": (body(callbackAddress=address), JSON, 400)
        for address in ("", "x", "http://[::1", "http://169.254.169.254/", "file:///etc/passwd", "http://127.0.0.1:1@evil.test/", "\0")
    },
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_with_its_reason_and_changes_nothing(desk: Desk, name: str):
    content, headers, status = BAD[name]
    if b"127.0.0.1:1/" in content:  # all but the fault is right
        content = content.replace(b"http://127.0.0.1:1/", desk.peer.site.base.encode())
    before = await everything(desk)
    async with asyncio.timeout(20):
        answer = await desk.peer.send(desk.us, "POST", REQUEST, content, **headers)
    assert answer.status == status, answer.body
    assert valid("ContractNegotiationError", answer.json)["reason"]
    assert await everything(desk) == before


@pytest.mark.parametrize("malformed", [{"@type": "nonsense"}, {"@context": corpus.CONTEXT, "@type": "ContractRequestMessage"}])
async def test_many_malformed_messages_at_once_are_each_refused_with_a_reason(desk: Desk, malformed: dict[str, Any]):
    sending = (desk.peer.send(desk.us, "POST", REQUEST, malformed | {"number": number}) for number in range(40))
    answers = await asyncio.gather(*sending)
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(400, "malformed-message")}


async def test_a_peer_that_floods_us_is_slowed_down_and_no_other_is(desk: Desk):
    """A hundred and fifty bodies that take JSON-LD to know, at once; meanwhile another participant speaks in expanded form."""
    flood = [asyncio.create_task(desk.peer.send(desk.us, "POST", REQUEST, {"@type": "nonsense", "number": n})) for n in range(150)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    foreign = first_request(callbackAddress=desk.stranger.site.base) | {"@context": corpus.CONTEXT[0]}
    answer = await desk.stranger.send(desk.us, "POST", REQUEST, foreign)
    flooding = [task for task in flood if not task.done()]
    assert answer.status == 201, answer.body
    assert flooding, "it did not wait for all of the others"
    answers = await asyncio.gather(*flood)
    assert {answer.status for answer in answers} == {400, 429}
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}
    late = [answer for answer in answers if answer.status == 429]
    assert all(valid("ContractNegotiationError", answer.json)["code"] == "too-many" for answer in late)
    assert all(answer.headers["Retry-After"] == "1" for answer in late)


@pytest.mark.parametrize("path", ["/negotiations/request", "/negotiations/offers"])
async def test_a_policy_beyond_what_is_read_is_refused_with_the_limit_and_the_remedy(desk: Desk, path: str):
    terms = purpose_policy(*(f"p{number}" for number in range(3_000))) | {"@id": OFFER, "target": DATASET}
    message = first_request(offer=terms, callbackAddress=desk.peer.site.base)
    if path.endswith("offers"):
        message = message | {"@type": "ContractOfferMessage", "providerPid": message.pop("consumerPid")}
    before = await everything(desk)
    answer = await desk.peer.send(desk.us, "POST", path, message)
    assert (answer.status, answer.json["code"]) == (400, "policy-too-large")
    assert f"more than {LEAVES_MAX} constraints and values; split the policy into several offers" in answer.json["reason"][0]
    assert await everything(desk) == before


async def test_a_body_without_end_is_refused_at_the_limit(desk: Desk):
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            yield b" " * 8192
            sent += 8192

    said = JSON | {"Authorization": await desk.peer.identity.mint(desk.us.site.id)}
    async with desk.peer.http.post(desk.us.site.base + REQUEST, data=endless(), headers=said) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, "too-large")
    assert sent < 100 * LIMIT_BYTES


async def test_a_body_that_does_not_come_is_waited_for_no_longer_than_its_time(desk: Desk):
    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    said = JSON | {"Authorization": await desk.peer.identity.mint(desk.us.site.id)}
    async with asyncio.timeout(20), desk.peer.http.post(desk.us.site.base + REQUEST, data=trickle(), headers=said) as answer:
        assert (answer.status, (await answer.json())["code"]) == (408, "too-slow")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/negotiations/x", "GET"), ("PUT", "/negotiations/x/request", "POST"), ("PATCH", "/catalog/request", "GET,POST")],
)
async def test_a_method_that_is_not_taken_is_named_with_those_that_are(desk: Desk, method: str, path: str, allowed: str):
    answer = await desk.peer.send(desk.us, method, path)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == set(allowed.split(","))


async def test_mutations_of_good_messages_are_judged_and_never_break_anything(desk: Desk):
    """What the schema accepts may be refused for its content; what it refuses is refused."""
    seen = set()
    for document in corpus.mutations("ContractRequestMessage", 150):
        answer = await desk.peer.send(desk.us, "POST", REQUEST, document)
        seen.add(answer.status)
        assert answer.status in (201, 400), (document, answer.body)
    assert 400 in seen


@settings(max_examples=60)
@given(data=st.binary(max_size=300), path=st.sampled_from([p.replace("{pid}", "x") for p, _ in ROUTES] + ["/catalog/request"]))
async def test_whatever_bytes_come_are_refused(desk: Desk, data: bytes, path: str):
    answer = await desk.peer.send(desk.us, "POST", path, data)
    assert 400 <= answer.status < 500


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
async def test_whatever_address_is_asked_for_is_answered(desk: Desk, text: str):
    for path in (
        f"/{quoted(text)}",
        f"/negotiations/{quoted(text)}",
        f"/catalog/datasets/{quoted(text)}",
        f"/catalog/request?after={quoted(text)}",
    ):
        answer = await desk.peer.send(desk.us, "GET", path)
        assert answer.status in (200, 404), path
