import base64
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as Reference

from connector.errors import Unauthenticated
from connector.signatures import jws
from connector.values import replace

SEED = bytes(range(32))
KID = "did:web:hospital.example#k1"
KEY = jws.signing_key(KID, SEED)
NOW = 1_800_000_000.25
CLAIMS = {"iss": "did:web:hospital.example", "aud": "did:web:bio.example", "iat": NOW, "exp": NOW + 60, "jti": "0" * 32}


def public_of(kid: str) -> bytes:
    if kid != KID:
        raise Unauthenticated("no such key")
    return KEY.key.public


def test_a_token_says_who_signed_what():
    assert jws.open(jws.sign(CLAIMS, KEY, "JWT"), public_of, "JWT") == (KID, CLAIMS)


def test_a_token_is_a_plain_jws_that_another_library_verifies():
    header, payload, signature = jws.sign(CLAIMS, KEY, "JWT").split(".")
    plain = [base64.urlsafe_b64decode(part + "==") for part in (header, payload, signature)]
    Reference(SEED).verify_key.verify(f"{header}.{payload}".encode(), plain[2])
    assert json.loads(plain[0]) == {"alg": "EdDSA", "typ": "JWT", "kid": KID}
    assert json.loads(plain[1]) == CLAIMS


def test_the_signature_of_rfc_8037_appendix_a_verifies():
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    public = jws.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    assert jws.signing_key(KID, seed).key.public == public
    signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    signature = base64.urlsafe_b64encode(Reference(seed).sign(signed.encode()).signature).rstrip(b"=").decode()
    assert signature == expected


def test_a_token_of_one_kind_is_none_of_another():
    with pytest.raises(Unauthenticated, match="`typ` is not `at\\+jwt`"):
        jws.open(jws.sign(CLAIMS, KEY, "JWT"), public_of, "at+jwt")


def test_the_new_name_of_the_algorithm_is_taken_too():
    header = base64.urlsafe_b64encode(orjson.dumps({"alg": "Ed25519", "typ": "JWT", "kid": KID})).rstrip(b"=").decode()
    payload = jws.sign(CLAIMS, KEY, "JWT").split(".")[1]
    signature = Reference(SEED).sign(f"{header}.{payload}".encode()).signature
    token = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert jws.open(token, public_of, "JWT")[1] == CLAIMS


TOKEN = jws.sign(CLAIMS, KEY, "JWT")
CHARACTERS = st.one_of(st.characters(), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ "))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The token with characters replaced, put in, taken out, or parts exchanged."""
    text = TOKEN
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["replace", "insert", "delete", "cut", "swap"])):
            case "replace":
                text = text[:at] + draw(CHARACTERS) + text[at + 1 :]
            case "insert":
                text = text[:at] + draw(CHARACTERS) + text[at:]
            case "delete":
                text = text[:at] + text[at + 1 :]
            case "cut":
                text = text[:at]
            case "swap":
                text = ".".join(draw(st.permutations(text.split("."))))
    return text


@given(mutated())
def test_no_mutation_of_a_token_is_a_token(text: str):
    if text == TOKEN:
        return
    with pytest.raises(Unauthenticated) as caught:
        jws.open(text, public_of, "JWT")
    assert TOKEN.split(".")[2] not in str(caught.value)


def test_every_other_spelling_of_the_last_character_is_refused():
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in set(alphabet) - {TOKEN[-1]}:
        with pytest.raises(Unauthenticated):
            jws.open(TOKEN[:-1] + last, public_of, "JWT")


@given(st.text() | st.builds("{}.{}.{}".format, st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)))
def test_no_text_is_a_token_by_chance(text: str):
    with pytest.raises(Unauthenticated):
        jws.open(text, public_of, "JWT")


def test_check_returns_the_times():
    assert jws.check(CLAIMS, audience="did:web:bio.example", now=NOW) == (NOW, NOW + 60)
    assert jws.check({**CLAIMS, "aud": ["did:web:bio.example"]}, audience="did:web:bio.example", now=NOW) == (NOW, NOW + 60)


@pytest.mark.parametrize("offset", [-30.0, 0.0, 60.0, 90.0])
def test_both_sides_of_every_time_bound_are_where_they_should_be(offset: float):
    jws.check(CLAIMS, audience="did:web:bio.example", now=NOW + offset)
    if offset in (-30.0, 90.0):
        with pytest.raises(Unauthenticated):
            jws.check(CLAIMS, audience="did:web:bio.example", now=NOW + offset + (0.001 if offset > 0 else -0.001))


def test_a_secret_is_in_no_text_of_a_key():
    assert KEY.secret.hex() not in repr(KEY)
    assert "secret" not in repr(KEY)
    assert str(KEY.secret) not in str(KEY)


def test_a_key_is_valid_between_its_bounds():
    key = replace(KEY.key, not_before=10.0, not_after=20.0)
    assert [key.valid(at) for at in (9.9, 10.0, 20.0, 20.1)] == [False, True, True, False]


def test_a_public_key_survives_its_json_form():
    assert jws.from_jwk(jws.to_jwk(KEY.key.public)) == KEY.key.public


X = jws.to_jwk(KEY.key.public)["x"]


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({}, "not an Ed25519 key"),
        ({"kty": "EC", "crv": "P-256", "x": X}, "not an Ed25519 key"),
        ({"kty": "OKP", "crv": "X25519", "x": X}, "not an Ed25519 key"),
        ({"kty": "OKP", "crv": "Ed25519"}, "base64url of 32 bytes"),
        ({"kty": "OKP", "crv": "Ed25519", "x": X + "="}, "base64url of 32 bytes"),
        ({"kty": "OKP", "crv": "Ed25519", "x": X[:-1]}, "base64url of 32 bytes"),
        ({"kty": "OKP", "crv": "Ed25519", "x": 7}, "base64url of 32 bytes"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}, "no Ed25519 public key"),  # a point of small order: signs anything
        ({"kty": "OKP", "crv": "Ed25519", "x": X, "d": X}, "private key"),
    ],
)
def test_a_json_key_that_is_none_is_refused_with_its_reason(jwk: object, problem: str):
    with pytest.raises(ValueError, match=problem):
        jws.from_jwk(jwk)


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        jws.signing_key(KID, b"short")


OTHER = jws.signing_key("did:web:bio.example#k1", bytes(32))
ENDED = jws.signing_key(f"{CLAIMS['iss']}#k0", bytes([1]) * 32, not_after=NOW)
OBJECT = jws.sign(CLAIMS, KEY, "dp-receipt+jwt")


def read(token: str, at: float = NOW) -> dict[str, object]:
    return jws.read(token, "dp-receipt+jwt", str(CLAIMS["iss"]), [ENDED.key, KEY.key], at)


def test_an_object_is_read_with_the_keys_of_its_issuer_as_often_as_wanted():
    assert read(OBJECT) == read(OBJECT) == CLAIMS


def test_an_object_may_be_longer_than_a_token():
    longer = {"iss": CLAIMS["iss"], "text": "x" * 40_000}
    assert read(jws.sign(longer, KEY, "dp-receipt+jwt")) == longer
    with pytest.raises(Unauthenticated, match="longer than 65535 characters"):
        read(jws.sign({**longer, "more": "x" * 20_000}, KEY, "dp-receipt+jwt"))


def test_what_a_key_signed_while_it_was_valid_counts_after_its_end_too():
    token = jws.sign(CLAIMS, ENDED, "dp-receipt+jwt")
    assert read(token, NOW) == CLAIMS
    with pytest.raises(Unauthenticated) as refused:
        read(token, NOW + 1)
    assert refused.value.fault == "key-ended"


FORGED = {
    "another's key": (jws.sign(CLAIMS, OTHER, "dp-receipt+jwt"), "kid"),
    "a key nobody knows": (jws.sign(CLAIMS, jws.signing_key(f"{CLAIMS['iss']}#k9", SEED), "dp-receipt+jwt"), "key-unknown"),
    "another key under this name": (jws.sign(CLAIMS, jws.signing_key(KID, bytes(32)), "dp-receipt+jwt"), "signature"),
    "an issuer beside the key": (jws.sign({**CLAIMS, "iss": "did:web:bio.example"}, KEY, "dp-receipt+jwt"), "issuer"),
    "another kind": (jws.sign(CLAIMS, KEY, "dp-ack+jwt"), "typ"),
    "two parts": (OBJECT.rpartition(".")[0], "parts"),
    "padding": (OBJECT + "==", "signature"),
    "an algorithm of its own": (base64.urlsafe_b64encode(orjson.dumps({"alg": "none"})).rstrip(b"=").decode() + ".e30.AA", "alg"),
    "a payload that is no object": (jws.sign([], KEY, "dp-receipt+jwt"), "payload"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("token", "fault"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_object_is_refused_with_what_is_wrong(token: str, fault: str):
    with pytest.raises(Unauthenticated) as refused:
        read(token)
    assert refused.value.fault == fault
