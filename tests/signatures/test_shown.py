"""A signature with its base is proven to whoever was not there, and nothing of it can be changed."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import SignatureRefused
from connector.signatures import http
from connector.signatures.shown import Shown, show
from connector.values import replace
from tests.signatures.test_http import NOW, PROVIDER, PROVIDERS, Sent

SIGNED = Sent().sign().sign_answer().verify_answer()
BASE, KEYS = SIGNED.base.decode(), (PROVIDERS.key,)


def shown(base: str = BASE, input: str = SIGNED.input, signature: bytes = SIGNED.signature, keys: tuple[http.Key, ...] = KEYS) -> Shown:
    return show(base, input, signature, PROVIDER, keys)


def test_what_an_answer_was_signed_over_is_read_back_without_the_message():
    found = shown()
    assert (found.created, found.tag) == (int(NOW), http.PULL.tag)
    assert found.values['"@status"'] == "206"
    assert found.values['"content-range"'] == "bytes 0-99/1000"
    assert found.values['"@method";req'] == "GET"
    assert found.values['"signature";req'].startswith("dp=:")
    assert "t0ken" not in BASE, "an answer covers the signature of its request, and not what that covers"


@given(st.integers(0, len(BASE) - 1), st.characters(codec="ascii"))
def test_no_character_of_a_base_can_be_another(at: int, other: str):
    changed = BASE[:at] + other + BASE[at + 1 :]
    if changed != BASE:
        with pytest.raises(SignatureRefused):
            shown(changed)


def test_a_line_more_or_less_is_found():
    lines = BASE.split("\n")
    for changed in (lines[1:], [*lines[:-1], lines[0], lines[-1]], lines[:-1], [lines[1], lines[0], *lines[2:]], lines[-1:], [""]):
        with pytest.raises(SignatureRefused):
            shown("\n".join(changed))


@pytest.mark.parametrize(
    ("was", "to"),
    [
        ('"@status"', '"etag"'),
        (f"created={int(NOW)}", f"created={int(NOW) + 1}"),
        (f"created={int(NOW)}", "created=?1"),
        (f";created={int(NOW)}", ""),
        ("ed25519", "rsa-v1_5-sha256"),
        ("dp-pull", "dp-push"),
        ("#k1", "#k2"),
        ("(", "(("),
        ("(", ":"),
    ],
)
def test_parameters_belong_to_the_base(was: str, to: str):
    changed = SIGNED.input.replace(was, to, 1)
    assert changed != SIGNED.input
    with pytest.raises(SignatureRefused):
        shown(BASE.replace(SIGNED.input, changed), changed)
    with pytest.raises(SignatureRefused, match="does not end with the parameters"):
        shown(BASE, changed)


@pytest.mark.parametrize("signature", [b"", b"x" * 64, SIGNED.signature[:-1], SIGNED.signature + b"x", b64encode(SIGNED.signature)])
def test_another_signature_proves_nothing(signature: bytes):
    with pytest.raises(SignatureRefused, match="over another base, or by another key"):
        shown(signature=signature)


def test_only_a_key_of_the_signer_that_counted_then_proves_it():
    ended, begun = (replace(PROVIDERS.key, **{name: NOW + add}) for name, add in (("not_after", -10), ("not_before", 10)))
    for keys in ((), (ended,), (begun,)):
        with pytest.raises(SignatureRefused, match="by no key of its signer that counted then"):
            shown(keys=keys)
    with pytest.raises(SignatureRefused, match="by no key of its signer"):
        show(BASE, SIGNED.input, SIGNED.signature, "did:web:other.example", KEYS)
    assert shown(keys=(ended, replace(PROVIDERS.key, not_before=NOW - 10, not_after=NOW + 10)))
    assert shown(keys=(replace(PROVIDERS.key, not_before=NOW),)), "the signature says a whole second, in which the key began"
