"""Whoever asks with signatures: when a request is signed, and which answers hold. Under the binding for data that are brought."""

import itertools
from typing import Any

import http_message_signatures as oracle
import pytest

from connector.errors import SignatureRefused
from connector.signatures import digests, http
from connector.signatures.asking import Asked, Asking, Means
from tests.signatures.test_http import BODY, CONSUMER, KEY, NOW, PROVIDER, PROVIDERS, Sent, fields, their_verdict, theirs

URL = "https://bio.example/sink/urn:uuid:1"
SAID = {
    "Authorization": "Bearer t0ken",
    "Content-Range": "bytes 0-99/1000",
    "Content-Type": "text/csv",
    "ETag": '"r.root.262144"',
    "Repr-Digest": "sha-256=:AAAA:",
    "Link": '<https://hospital.example/data/urn:uuid:1/manifest>; rel="describedby"',
    "Qiao-Ack": "a.b.c",
}
TOLD = {"upload-offset": "100", "content-length": "19", "content-type": "application/jwt", "content-digest": digests.content_digest(BODY)}
KEYS = {CONSUMER: [KEY.key], PROVIDER: [PROVIDERS.key]}


def asking(*, signs: bool = False, binding: http.Binding = http.PUSH) -> Asking:
    """A provider that asks the sink of its consumer; each nonce is another."""
    numbers = itertools.count()
    means = Means(lambda: PROVIDERS, lambda who: KEYS[who], lambda: NOW, lambda count: next(numbers).to_bytes(count))
    return Asking(means, CONSUMER, binding, signs=signs)


def request_of(asked: Asked, **changed: str | None) -> http.Request:
    headers = {name: value for name, value in (dict(asked.headers) | changed).items() if value is not None}
    return http.Request(asked.request.method, asked.request.url, fields(headers), http.PUSH)


def answered(asked: Asked, told: dict[str, str] = TOLD, status: int = 200, key: Any = KEY) -> dict[str, str]:
    """What the consumer says to it, signed."""
    wish = http.wanted(asked.headers["Accept-Signature"], http.PUSH)
    assert wish is not None
    answer = http.Answer(status, fields(told), request_of(asked))
    given = http.sign(answer, key, NOW, nonce=wish.nonce)
    return told | {http.INPUT: given[0], http.SIGNATURE: given[1]}


def test_the_first_request_with_each_token_is_signed_whoever_the_other_side_is():
    at, renewed = asking(), SAID | {"Authorization": "Bearer an0ther"}
    asked = [at.ask(method, URL, said) for said in (SAID, renewed) for method in ("HEAD", "PUT", "PUT")]
    assert [each.signed for each in asked] == [True, False, False] * 2
    for each in asked[::3]:
        http.verify_request(request_of(each), PROVIDER, KEYS[PROVIDER], NOW)
    assert at.ask("PUT", URL, {}).signed, "without a token, too"
    assert not at.ask("PUT", URL, {}).signed


@pytest.mark.parametrize("status", [400, 401, 403, 431])
def test_who_refuses_what_it_did_not_ask_for_gets_no_more_of_it_until_it_asks(status: int):
    at = asking()
    assert at.look(at.ask("PUT", URL, SAID), status, {}) is None
    renewed = at.ask("PUT", URL, SAID | {"Authorization": "Bearer an0ther"})
    assert (renewed.signed, renewed.nonce is None) == (False, False)
    assert at.look(renewed, 401, {http.ACCEPT: http.ask(http.PUSH.of_request, binding=http.PUSH)}) is None
    assert at.ask("PUT", URL, SAID).signed


def test_every_request_is_signed_once_the_other_side_has_shown_that_it_signs():
    at = asking()
    at.ask("HEAD", URL, SAID)
    first = at.ask("HEAD", URL, SAID)
    assert (first.signed, at.answered, "Signature" in first.headers) == (False, False, False)
    assert at.look(first, 204, {}) is None
    assert not at.ask("HEAD", URL, SAID).signed
    assert at.look(first, 200, answered(first)) is not None
    second = at.ask("PUT", URL, SAID, BODY)
    assert (second.signed, at.answered, second.nonce) == (True, True, None)
    signed = http.verify_request(request_of(second), PROVIDER, KEYS[PROVIDER], NOW)
    assert set(signed.input.partition(")")[0].strip("(").split()) >= {
        '"content-range"', '"content-type"', '"etag"', '"repr-digest"', '"link"', '"qiao-ack"',
        '"qiao-authorization-digest"', '"content-digest"',
    }  # fmt: skip
    assert signed.nonce != first.nonce
    assert b"t0ken" not in signed.base


def test_who_asks_for_a_signature_gets_it_the_next_time_and_is_told_apart_from_who_refuses_something_else():
    at = asking()
    first = at.ask("HEAD", URL, SAID)
    wish = {http.ACCEPT: http.ask(http.PUSH.of_request, binding=http.PUSH)}
    assert [at.wants(first, status, headers) for status, headers in ((401, wish), (403, wish), (401, {}))] == [True, False, False]
    assert at.look(first, 401, wish) is None
    second = at.ask("HEAD", URL, SAID)
    assert second.signed
    wish = {http.ACCEPT: http.ask(http.to_cover(request_of(second)), binding=http.PUSH)}
    assert not at.wants(second, 401, wish), "it was signed, and refused for something else"


def test_a_wish_for_the_other_binding_is_none():
    at = asking()
    first = at.ask("HEAD", URL, SAID)
    at.look(first, 401, {http.ACCEPT: http.ask(http.PULL.of_request)})
    assert not at.ask("HEAD", URL, SAID).signed


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("changed", ["other", None])
def test_what_a_push_says_of_its_bytes_cannot_be_changed_or_left_out(name: str, changed: str | None):
    asked = asking(signs=True).ask("PUT", URL, SAID)
    http.verify_request(request_of(asked), PROVIDER, KEYS[PROVIDER], NOW)
    with pytest.raises(SignatureRefused) as refused:
        http.verify_request(request_of(asked, **{name: changed}), PROVIDER, KEYS[PROVIDER], NOW)
    token = "authorization-digest-wrong" if name == "Authorization" else None
    assert refused.value.code == (token or ("signature-wrong" if changed else "signature-absent"))


@pytest.mark.parametrize("name", SAID)
def test_nothing_can_be_added_to_a_push_either(name: str):
    asked = asking(signs=True).ask("PUT", URL, {other: value for other, value in SAID.items() if other != name})
    with pytest.raises(SignatureRefused) as refused:
        http.verify_request(request_of(asked, **{name: SAID[name]}), PROVIDER, KEYS[PROVIDER], NOW)
    assert refused.value.code == "signature-uncovered"


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("signs", [False, True])
def test_an_answer_that_was_changed_is_none(name: str, signs: bool):
    at = asking(signs=signs)
    asked = at.ask("PUT", URL, SAID)
    told = answered(asked)
    with pytest.raises(SignatureRefused, match="another answer"):
        at.look(asked, 200, told | {name: "other"})
    with pytest.raises(SignatureRefused, match="another answer"):
        at.look(asked, 204, told)
    assert not at.answered


@pytest.mark.parametrize("signs", [False, True])
def test_an_answer_belongs_to_its_request_and_to_its_signer(signs: bool):
    at = asking(signs=signs)
    first, second = at.ask("PUT", URL, SAID), at.ask("PUT", URL, SAID)
    with pytest.raises(SignatureRefused):
        at.look(second, 200, answered(first))
    with pytest.raises(SignatureRefused, match="not signed by the participant"):
        at.look(first, 200, answered(first, key=PROVIDERS))


def test_a_signature_for_data_that_are_fetched_opens_nothing_that_is_brought():
    asked = asking(signs=True, binding=http.PULL).ask("PUT", URL, SAID)
    with pytest.raises(SignatureRefused) as refused:
        http.verify_request(request_of(asked), PROVIDER, KEYS[PROVIDER], NOW)
    assert refused.value.code == "signature-tag"


def test_another_library_verifies_what_is_brought_and_the_answer_to_it():
    at = asking(signs=True)
    asked = at.ask("PUT", URL, SAID, BODY)
    sent = Sent("PUT", URL, dict(asked.headers), 200, answered(asked))
    (found,) = their_verdict(theirs(sent, answer=False), BODY, tag=http.PUSH.tag)
    assert len(found.covered_components) > len(SAID)
    (found,) = their_verdict(theirs(sent, answer=True), BODY, tag=http.PUSH.tag)
    assert set(found.covered_components) >= {'"upload-offset"', '"content-digest"', '"signature";req', '"content-range";req'}
    sent.asked["Content-Range"] = "bytes 1-100/1000"
    with pytest.raises(oracle.HTTPMessageSignaturesException):
        their_verdict(theirs(sent, answer=False), BODY, tag=http.PUSH.tag)


def test_who_asks_for_the_token_itself_gets_it_covered_and_who_knows_its_digest_does_not():
    for of_request, repeats in ((http.PUSH.of_request, True), (http.to_cover(request_of(asking(signs=True).ask("PUT", URL, SAID))), False)):
        at = asking(signs=True)
        first = at.ask("PUT", URL, SAID)
        wish = {http.ACCEPT: http.ask(of_request, binding=http.PUSH)}
        assert at.look(first, 401, wish) is None
        assert at.wants(first, 401, wish) == repeats
        second = at.ask("PUT", URL, SAID)
        signed = http.verify_request(request_of(second), PROVIDER, KEYS[PROVIDER], NOW)
        assert (b"t0ken" in signed.base) == repeats
        assert not at.wants(second, 401, wish)
