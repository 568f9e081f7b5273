"""HTTP message signatures: those of the RFC, those of another library, and some fifty ways in which one does not hold."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import http_message_signatures as oracle
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign
from requests.structures import CaseInsensitiveDict

from connector.errors import SignatureRefused
from connector.signatures import digests, http
from connector.signatures.fields import InnerList, read_dictionary, write_inner_list
from connector.signatures.http import Answer, Request
from connector.signatures.jws import SigningKey, signing_key
from connector.values import replace

CONSUMER, PROVIDER = "did:web:bio.example", "did:web:hospital.example"
KEY, OTHER_KEY = signing_key(f"{CONSUMER}#k1", b"c" * 32), signing_key(f"{CONSUMER}#k2", b"d" * 32)
PROVIDERS = signing_key(f"{PROVIDER}#k1", b"p" * 32)
NOW = 1_800_000_000.25
NONCE = "n" * 22
URL = "https://hospital.example/data/urn:uuid:1?x=%20y"
BODY = b'{"hello": "world"}\n'
DIGEST = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"  # of it, by RFC 9530, B.1
DIGEST_512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"  # and by 3
ASKED = {"Authorization": "Bearer t0ken", "Range": "bytes=0-99", "If-Range": '"r.root.262144"', "Content-Digest": DIGEST}
TOLD = {
    "ETag": '"r.root.262144"',
    "Content-Range": "bytes 0-99/1000",
    "Content-Length": "100",
    "Content-Type": "application/octet-stream",
    "Repr-Digest": "sha-256=:AAAA:",
    "Link": '<https://hospital.example/data/urn:uuid:1/manifest>; rel="describedby"',
}


def fields(headers: dict[str, Any]) -> digests.Fields:
    lower = {name.lower(): value if isinstance(value, list) else [value] for name, value in headers.items()}
    return lambda name: lower.get(name, ())


@dataclass
class Sent:
    """A request and its answer as they travel: whatever a test changes in them is changed after they were signed."""

    method: str = "GET"
    url: str = URL
    asked: dict[str, Any] = field(default_factory=lambda: dict(ASKED))
    status: int = 206
    told: dict[str, Any] = field(default_factory=lambda: dict(TOLD))
    now: float = NOW
    keys: list[Any] = field(default_factory=lambda: [KEY.key, OTHER_KEY.key])
    signer: str = CONSUMER

    @property
    def request(self) -> Request:
        return Request(self.method, self.url, fields(self.asked))

    @property
    def answer(self) -> Answer:
        return Answer(self.status, fields(self.told), self.request)

    def sign(self, nonce: str | None = NONCE) -> "Sent":
        self.asked["Signature-Input"], self.asked["Signature"] = http.sign(self.request, KEY, NOW, nonce=nonce)
        return self

    def sign_answer(self, nonce: str | None = None) -> "Sent":
        self.told["Signature-Input"], self.told["Signature"] = http.sign(self.answer, PROVIDERS, NOW, nonce=nonce)
        return self

    def verify(self) -> http.Signed:
        return http.verify_request(self.request, self.signer, self.keys, self.now)

    def verify_answer(self, nonce: str | None = None) -> http.Signed:
        return http.verify_answer(self.answer, PROVIDER, [PROVIDERS.key], self.now, nonce=nonce)


# ---- the RFC and another library


def test_the_signature_of_rfc_9421_appendix_b_2_6_comes_out_and_holds():
    seed = base64.urlsafe_b64decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU=")
    key = signing_key("test-key-ed25519", seed)
    assert base64.urlsafe_b64encode(key.key.public).rstrip(b"=") == b"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"
    headers = {"Host": "example.com", "Date": "Tue, 20 Apr 2021 02:07:55 GMT", "Content-Type": "application/json", "Content-Length": "18"}
    request = Request("POST", "https://example.com/foo?param=Value&Pet=dog", fields(headers))
    names = ("date", "@method", "@path", "@authority", "content-type", "content-length")
    line = write_inner_list([f'"{name}"' for name in names], {"created": 1618884473, "keyid": "test-key-ed25519"})
    assert line == ('("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"')
    signed = http.base([(f'"{name}"', http.value_of((name, False), request) or "") for name in names], line)
    assert signed.decode() == (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n"@authority": example.com\n'
        f'"content-type": application/json\n"content-length": 18\n"@signature-params": {line}'
    )
    signature = base64.b64encode(crypto_sign(signed, key.secret)[:64])
    assert signature == b"wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="


class Resolver(oracle.HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Any:
        return self.resolve_private_key(key_id).public_key()

    def resolve_private_key(self, key_id: str) -> Any:
        return Ed25519PrivateKey.from_private_bytes({KEY.kid: b"c", PROVIDERS.kid: b"p"}[key_id] * 32)


def theirs(sent: Sent, *, answer: bool) -> Any:
    """The message as the other library takes it."""
    request = SimpleNamespace(method=sent.method, url=sent.url, headers=CaseInsensitiveDict(sent.asked), body=BODY)
    if not answer:
        return request
    return SimpleNamespace(status_code=sent.status, url=sent.url, headers=CaseInsensitiveDict(sent.told), request=request)


def their_verdict(message: Any, body: bytes | None = None, tag: str = http.PULL.tag) -> Any:
    verifier = oracle.HTTPMessageVerifier(signature_algorithm=oracle.algorithms.ED25519, key_resolver=Resolver())
    verifier.validate_created_and_expires = lambda *_, **__: None  # our instants are not of today
    return verifier.verify(message, expect_tag=tag, max_age=None, body=body)


def test_another_library_verifies_our_requests_and_answers():
    sent = Sent().sign().sign_answer()
    (found,) = their_verdict(theirs(sent, answer=False), BODY)
    with pytest.raises(oracle.HTTPMessageSignaturesException):
        their_verdict(theirs(sent, answer=False), BODY + b" ")
    covered = {'"@method"', '"@authority"', '"@target-uri"', '"range"', '"if-range"', '"authorization"', '"content-digest"'}
    assert set(found.covered_components) >= covered
    (found,) = their_verdict(theirs(sent, answer=True))
    assert set(found.covered_components) >= {'"@status"', '"etag"', '"link"', '"@method";req', '"signature";req', '"range";req'}


def test_we_verify_what_another_library_has_signed():
    sent = Sent()
    signer = oracle.HTTPMessageSigner(signature_algorithm=oracle.algorithms.ED25519, key_resolver=Resolver())
    created, covered = datetime.fromtimestamp(int(NOW), UTC), [f'"{name}"' for name, _ in http.PULL.of_request]
    message = theirs(sent, answer=False)
    given = {"key_id": KEY.kid, "created": created, "nonce": NONCE, "label": "x", "tag": http.PULL.tag, "covered_component_ids": covered}
    signer.sign(message, **given, use_existing_digest=True)
    sent.asked |= {name: message.headers[name] for name in ("Signature-Input", "Signature")}
    assert sent.verify().nonce == NONCE
    message = theirs(sent, answer=True)
    covered = [f'"{name}";req' if of_request else f'"{name}"' for name, of_request in http.PULL.of_answer]
    signer.sign(message, key_id=PROVIDERS.kid, created=created, label="x", tag=http.PULL.tag, covered_component_ids=covered)
    sent.told |= {name: message.headers[name] for name in ("Signature-Input", "Signature")}
    assert sent.verify_answer().kid == PROVIDERS.kid


# ---- laws


VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.dictionaries(st.sampled_from(sorted(ASKED)), VALUES),
    st.dictionaries(st.sampled_from(sorted(TOLD)), VALUES),
    st.integers(100, 599),
    st.booleans(),
)
def test_what_is_signed_holds_whatever_is_there_and_says_what_it_covers(
    method: str, asked: dict[str, str], told: dict[str, str], status: int, signed: bool
):
    there = {name.lower() for name in told} | {"@status", "@method", "@target-uri"} | ({"range"} & {name.lower() for name in asked})
    sent = Sent(method, asked=asked, told=told, status=status)
    if signed:
        sent.sign()
        assert sent.verify().nonce == NONCE
    found = sent.sign_answer(None if signed else NONCE).verify_answer(None if signed else NONCE)
    covers = read_dictionary(f"x={found.input}")["x"]
    assert isinstance(covers, InnerList)
    assert {str(item.value) for item in covers.items} == there | ({"signature"} if signed else set())


@given(st.sampled_from(sorted(TOLD)), VALUES)
def test_a_field_of_an_answer_that_was_changed_is_noticed(name: str, value: str):
    sent = Sent().sign().sign_answer()
    if sent.told[name] == value:
        return
    sent.told[name] = value
    with pytest.raises(SignatureRefused) as refused:
        sent.verify_answer()
    assert refused.value.code == "signature-wrong"


@given(st.integers(0, 63), st.integers(0, 7))
def test_no_bit_of_a_signature_can_be_another(at: int, bit: int):
    sent = Sent().sign()
    raw = bytearray(base64.b64decode(sent.asked["Signature"].removeprefix("dp=:").removesuffix(":")))
    raw[at] ^= 1 << bit
    sent.asked["Signature"] = f"dp=:{base64.b64encode(raw).decode()}:"
    with pytest.raises(SignatureRefused) as refused:
        sent.verify()
    assert refused.value.code == "signature-wrong"


# ---- what does not hold


def put(name: str, old: str, new: str, part: str = "asked") -> Callable[[Sent], Any]:
    def change(sent: Sent) -> None:
        headers = getattr(sent, part)
        assert old in headers[name]
        headers[name] = headers[name].replace(old, new)

    return change


def of(part: str, **changed: Any) -> Callable[[Sent], Any]:
    """Change headers (underscores are dashes); None takes one away."""

    def change(sent: Sent) -> None:
        headers = getattr(sent, part)
        for name, value in changed.items():
            key = next(
                (each for each in (*headers, *TOLD, *ASKED) if each.lower() == name.replace("_", "-").lower()), name.replace("_", "-")
            )
            if value is None:
                del headers[key]
            else:
                headers[key] = value

    return change


def set_to(**changed: Any) -> Callable[[Sent], Any]:
    return lambda sent: [setattr(sent, name, value) for name, value in changed.items()]


def resigned(old: str, new: str, key: SigningKey = KEY) -> Callable[[Sent], Any]:
    """Sign anew over other parameters or components, as somebody with the key could."""

    def change(sent: Sent) -> None:
        line = sent.asked["Signature-Input"].removeprefix("dp=")
        assert old in line
        line = line.replace(old, new)
        member = read_dictionary(f"dp={line}")["dp"]
        assert isinstance(member, InnerList)
        values = []
        for item in member.items:
            value = http.value_of((str(item.value), bool(item.parameters)), sent.request)
            values.append((f'"{item.value}"', value or ""))
        signature = crypto_sign(http.base(values, line), key.secret)[:64]
        sent.asked |= {"Signature-Input": f"dp={line}", "Signature": f"dp=:{base64.b64encode(signature).decode()}:"}

    return change


def twice(sent: Sent) -> None:
    for name in ("Signature-Input", "Signature"):
        sent.asked[name] = f"{sent.asked[name]}, {sent.asked[name].replace('dp=', 'dq=', 1)}"


REQUESTS: dict[str, tuple[str, Callable[[Sent], Any]]] = {
    "not signed": ("signature-missing", of("asked", Signature=None, Signature_Input=None)),
    "an input alone": ("signature-labels", of("asked", Signature=None)),
    "a signature alone": ("signature-tag", of("asked", Signature_Input=None)),
    "another label": ("signature-labels", put("Signature", "dp=", "dq=")),
    "an input that cannot be read": ("signature-input-malformed", of("asked", Signature_Input="dp=(")),
    "a label twice": ("signature-input-malformed", lambda s: of("asked", Signature_Input=[s.asked["Signature-Input"]] * 2)(s)),
    "a signature that cannot be read": ("signature-malformed", of("asked", Signature="dp=:?:")),
    "a signature that has a twin": ("signature-malformed", put("Signature", "==:", ":")),
    "too long an input": ("signature-long", of("asked", Signature_Input="x" * 9000)),
    "too long a signature": ("signature-long", of("asked", Signature="x" * 9000)),
    "another tag": ("signature-tag", resigned('tag="dp-pull"', 'tag="other"')),
    "no tag": ("signature-tag", resigned(';tag="dp-pull"', "")),
    "a tag that is a token": ("signature-tag", resigned('tag="dp-pull"', "tag=dp-pull")),
    "an item instead of a list": ("signature-tag", of("asked", Signature_Input='dp="@method";tag="dp-pull"')),
    "two signatures": ("signature-several", twice),
    "a signature that is a string": ("signature-bytes", of("asked", Signature='dp="x"')),
    "a short signature": ("signature-bytes", of("asked", Signature="dp=:YQ==:")),
    "a signature with parameters": ("signature-bytes", lambda s: of("asked", Signature=f"{s.asked['Signature']};a")(s)),
    "a component twice": ("signature-components", resigned('"@method"', '"@method" "@method"')),
    "many components": ("signature-components", resigned('("', "(" + " ".join(f'"x{n}"' for n in range(70)) + ' "')),
    "a component that is a token": ("signature-component", resigned('"@method"', "method")),
    "a component in upper case": ("signature-component", resigned('"range"', '"Range"')),
    "a component without a name": ("signature-component", resigned('"range"', '"" "range"')),
    "part of a field": ("signature-component", resigned('"range"', '"range";key="bytes"')),
    "a field as bytes": ("signature-component", resigned('"range"', '"range";bs')),
    "a trailer": ("signature-component", resigned('"range"', '"range";tr')),
    "a component of a request's request": ("signature-component-req", resigned('"range"', '"range";req')),
    "`req` that is not true": ("signature-component-req", resigned('"range"', '"range";req=?0')),
    "a parameter that nobody knows": ("signature-parameter", resigned(";tag=", ";context=1;tag=")),
    "another algorithm": ("signature-alg", resigned('alg="ed25519"', 'alg="hmac-sha256"')),
    "no algorithm": ("signature-alg", resigned(';alg="ed25519"', "")),
    "an algorithm that is a token": ("signature-alg", resigned('alg="ed25519"', "alg=ed25519")),
    "no time": ("signature-created", resigned(";created=1800000000", "")),
    "a time that is a string": ("signature-created", resigned("created=1800000000", 'created="1800000000"')),
    "a time that is a flag": ("signature-created", resigned("created=1800000000", "created")),
    "made in the future": ("signature-future", set_to(now=NOW - 31)),
    "too old": ("signature-old", set_to(now=NOW + 61)),
    "expired": ("signature-expired", resigned(";keyid=", ";expires=1799999999;keyid=")),
    "an end that is a string": ("signature-expired", resigned(";keyid=", ';expires="x";keyid=')),
    "no key id": ("signature-keyid", resigned(f';keyid="{KEY.kid}"', "")),
    "a key id that is a token": ("signature-keyid", resigned(f'keyid="{KEY.kid}"', "keyid=k1")),
    "no nonce": ("signature-nonce", resigned(f';nonce="{NONCE}"', "")),
    "a short nonce": ("signature-nonce", resigned(NONCE, "n" * 15)),
    "a long nonce": ("signature-nonce", resigned(NONCE, "n" * 257)),
    "a nonce that is a number": ("signature-nonce", resigned(f'"{NONCE}"', "1234567890")),
    "the method is not covered": ("signature-uncovered", resigned('"@method" ', "")),
    "the authority is not covered": ("signature-uncovered", resigned('"@authority" ', "")),
    "the target is not covered": ("signature-uncovered", resigned('"@target-uri" ', "")),
    "the range is not covered": ("signature-uncovered", resigned('"range" ', "")),
    "the condition is not covered": ("signature-uncovered", resigned('"if-range" ', "")),
    "the token is not covered": ("signature-uncovered", resigned(' "authorization"', "")),
    "the body is not covered": ("signature-uncovered", resigned(' "content-digest"', "")),
    "another body is named": ("signature-wrong", of("asked", **{"Content-Digest": DIGEST_512})),
    "nothing is covered": ("signature-uncovered", resigned(" ".join(f'"{name}"' for name, _ in http.PULL.of_request), "")),
    "a range that was added": ("signature-uncovered", lambda s: (of("asked", Range=None)(s), s.sign(), of("asked", Range="bytes=1-")(s))),
    "a field that is not there": ("signature-absent", resigned('"range"', '"range" "date"')),
    "a derived part that nobody knows": ("signature-absent", resigned('"range"', '"range" "@signature-params"')),
    "the status of a request": ("signature-absent", resigned('"range"', '"range" "@status"')),
    "a range that was taken away": ("signature-absent", of("asked", Range=None)),
    "a field with a line end": ("signature-value", of("asked", Range="bytes=0-\n")),
    "a field that is not ASCII": ("signature-value", of("asked", Range="bytes=\u00e9")),
    "by another participant": ("signature-signer", set_to(signer=PROVIDER)),
    "by an unknown key": ("signature-key-unknown", set_to(keys=[OTHER_KEY.key])),
    "by a key that has ended": ("signature-key-ended", set_to(keys=[replace(KEY.key, not_after=NOW - 1)])),
    "by a key that is still to come": ("signature-key-ended", set_to(keys=[replace(KEY.key, not_before=NOW + 1)])),
    "dated before its key": ("signature-key-ended", set_to(now=NOW + 20, keys=[replace(KEY.key, not_before=NOW + 10)])),
    "dated after its key": ("signature-key-ended", set_to(now=NOW - 20, keys=[replace(KEY.key, not_after=NOW - 10)])),
    "with another key": ("signature-wrong", resigned("created", "created", OTHER_KEY)),
    "another method": ("signature-wrong", set_to(method="HEAD")),
    "another host": ("signature-wrong", set_to(url=URL.replace("hospital", "stranger"))),
    "another scheme": ("signature-wrong", set_to(url=URL.replace("https", "http"))),
    "another path": ("signature-wrong", set_to(url=URL.replace("uuid:1", "uuid:2"))),
    "another query": ("signature-wrong", set_to(url=URL.replace("%20", "+"))),
    "another range": ("signature-wrong", of("asked", Range="bytes=0-100")),
    "another token": ("signature-wrong", of("asked", Authorization="Bearer other")),
    "another condition": ("signature-wrong", of("asked", If_Range='"x"')),
    "another time": ("signature-wrong", put("Signature-Input", "1800000000", "1800000001")),
    "another nonce": ("signature-wrong", put("Signature-Input", NONCE, NONCE[:-1] + "m")),
    "other order": ("signature-wrong", put("Signature-Input", '"range" "if-range"', '"if-range" "range"')),
}
ANSWERS: dict[str, tuple[str, Callable[[Sent], Any]]] = {
    "not signed": ("signature-missing", of("told", Signature=None, Signature_Input=None)),
    "another status": ("signature-wrong", set_to(status=200)),
    "another root": ("signature-wrong", of("told", ETag='"r.toor.262144"')),
    "other bytes": ("signature-wrong", of("told", Content_Range="bytes 0-99/1001")),
    "another length": ("signature-wrong", of("told", Content_Length="101")),
    "another manifest": ("signature-wrong", of("told", Link="<https://hospital.example/x>")),
    "a digest that was taken away": ("signature-absent", of("told", Repr_Digest=None)),
    "a digest that was added": (
        "signature-uncovered",
        lambda s: (of("told", Repr_Digest=None)(s), s.sign_answer(), of("told", Repr_Digest="sha-256=:AAAB:")(s)),
    ),
    "to another method": ("signature-wrong", set_to(method="HEAD")),
    "to another address": ("signature-wrong", set_to(url=URL.replace("uuid:1", "uuid:2"))),
    "to another range": ("signature-wrong", of("asked", Range="bytes=0-100")),
    "to another request": ("signature-wrong", lambda s: s.sign("m" * 22)),
    "to a request that was not signed": ("signature-absent", of("asked", Signature=None, Signature_Input=None)),
    "by the consumer": (
        "signature-signer",
        lambda s: s.told.update(zip(("Signature-Input", "Signature"), http.sign(s.answer, KEY, NOW), strict=True)),
    ),
    "the request itself, sent back": (
        "signature-uncovered",
        lambda s: s.told.update({n: s.asked[n] for n in ("Signature-Input", "Signature")}),
    ),
    "too old": ("signature-old", set_to(now=NOW + 61)),
}


def test_there_are_many_mutations():
    assert len(REQUESTS) + len(ANSWERS) >= 90


@pytest.mark.parametrize(("code", "change"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_does_not_hold_is_refused_with_its_own_code(code: str, change: Callable[[Sent], Any]):
    sent = Sent().sign()
    sent.verify()
    change(sent)
    with pytest.raises(SignatureRefused) as refused:
        sent.verify()
    assert refused.value.code == code
    assert "t0ken" not in refused.value.message
    assert NONCE not in refused.value.message


@pytest.mark.parametrize(("code", "change"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_does_not_hold_is_refused_with_its_own_code(code: str, change: Callable[[Sent], Any]):
    sent = Sent().sign().sign_answer()
    sent.verify_answer()
    change(sent)
    with pytest.raises(SignatureRefused) as refused:
        sent.verify_answer()
    assert refused.value.code == code


def test_an_answer_repeats_the_nonce_that_was_asked_for():
    assert Sent().sign_answer(NONCE).verify_answer(NONCE).nonce == NONCE
    for told in (None, "m" * 22):
        with pytest.raises(SignatureRefused) as refused:
            Sent().sign_answer(told).verify_answer(NONCE)
        assert refused.value.code == "signature-nonce"


def test_signatures_of_others_may_stand_beside():
    sent = Sent().sign().sign_answer()
    for headers in (sent.asked, sent.told):
        headers["Signature-Input"] = ['proxy=("@method");created=1;tag="edge"', headers["Signature-Input"]]
        headers["Signature"] = ["proxy=:YQ==:", headers["Signature"]]
    assert sent.verify().kid == KEY.kid
    with pytest.raises(SignatureRefused):  # but the request was another one when it was answered
        sent.verify_answer()


def test_lines_of_a_field_are_one_list():
    sent = Sent(told=TOLD | {"Link": ["<a>; rel=x", "  <b>; rel=y "]}).sign().sign_answer()
    sent.told["Link"] = "<a>; rel=x, <b>; rel=y"
    sent.verify_answer()


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("https://Hospital.Example:443/a?b#c", "hospital.example", "https://hospital.example/a?b"),
        ("http://hospital.example:80", "hospital.example", "http://hospital.example/"),
        ("http://hospital.example:443/A%2f", "hospital.example:443", "http://hospital.example:443/A%2f"),
        ("https://[2001:DB8::1]:8443/?q", "[2001:db8::1]:8443", "https://[2001:db8::1]:8443/?q"),
        ("https://hospital.example?q=/x", "hospital.example", "https://hospital.example/?q=/x"),
    ],
)
def test_an_address_has_one_form(url: str, authority: str, target: str):
    assert (http.authority(url), http.target_uri(url)) == (authority, target)


def test_a_signature_is_asked_for_and_understood():
    assert http.wanted(http.ask(http.PULL.of_answer, nonce=NONCE)) == http.Wanted("dp", NONCE)
    assert http.wanted(http.ask(http.PULL.of_answer)) == http.Wanted("dp", None)
    assert http.wanted('other=("@status");tag="x", mine=("@status");created') == http.Wanted("mine")
    assert http.wanted('dp=();tag="dp-pull";nonce="short"') == http.Wanted("dp")
    assert http.wanted(f'{"d" * 65}=();nonce="{NONCE}"') == http.Wanted("dp", NONCE), "what is repeated is bounded"
    assert [http.wanted(text) for text in ("", "dp", "dp=(", 'dp=("x");tag="x"', "x" * 9000)] == [None] * 5


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({}, "signature-missing"),
        ({"Signature": 'keyId="x",signature="y"'}, "signature-tag"),  # an older kind of signature
        ({"Signature-Input": 'a=("@status");tag="x"', "Signature": "a=:YQ==:"}, "signature-tag"),
        ({"Signature-Input": 'a=("@status");tag="x"', "Signature": "("}, "signature-tag"),
        ({"Signature-Input": "(", "Signature": "a=:YQ==:"}, "signature-input-malformed"),
        ({"Signature-Input": 'a=("@status");tag="dp-pull"'}, "signature-labels"),
    ],
)
def test_a_message_without_a_signature_of_its_binding_is_told_apart_from_one_whose_signature_cannot_be_read(
    told: dict[str, str], code: str
):
    sent = Sent()
    sent.told |= told
    with pytest.raises(SignatureRefused) as refused:
        sent.verify_answer()
    assert (refused.value.code, code in http.UNSIGNED) == (code, code in ("signature-missing", "signature-tag"))


# ---- the digest of a token in its place


def test_a_digest_is_covered_in_the_place_of_the_token_and_the_base_can_be_shown():
    sent = Sent()
    sent.asked["Qiao-Authorization-Digest"] = digests.authorization_digest("Bearer t0ken")
    signed = sent.sign().verify()
    assert b"t0ken" not in signed.base
    assert (signed.base, b'"qiao-authorization-digest": sha-256=:' in signed.base) == (
        http.base_of(sent.request, sent.asked["Signature-Input"]),
        True,
    )
    assert b"t0ken" in Sent().sign().verify().base, "whoever names no digest covers the token"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Authorization": "Bearer t0kem"}, "authorization-digest-wrong"),
        ({"Authorization": None}, "authorization-digest-wrong"),
        ({"Authorization": ["Bearer t0ken", "Bearer t0ken"]}, "authorization-digest-wrong"),
        ({"Qiao-Authorization-Digest": None}, "signature-uncovered"),
        ({"Qiao-Authorization-Digest": digests.authorization_digest("Bearer other")}, "signature-wrong"),
    ],
)
def test_a_token_that_its_digest_does_not_name_is_refused(change: dict[str, Any], code: str):
    sent = Sent()
    sent.asked["Qiao-Authorization-Digest"] = digests.authorization_digest("Bearer t0ken")
    sent.sign()
    sent.asked = {name: value for name, value in (sent.asked | change).items() if value is not None}
    with pytest.raises(SignatureRefused) as refused:
        sent.verify()
    assert refused.value.code == code


def test_a_digest_that_is_there_is_covered_even_beside_the_token():
    sent = Sent().sign()
    sent.asked["Qiao-Authorization-Digest"] = digests.authorization_digest("Bearer t0ken")
    with pytest.raises(SignatureRefused) as refused:
        sent.verify()
    assert refused.value.code == "signature-uncovered"
