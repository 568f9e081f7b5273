"""What a signature covers by its digest: bodies (RFC 9530), and the token of a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import SignatureRefused
from connector.signatures import digests
from tests.signatures.test_http import BODY, DIGEST, DIGEST_512, fields


def test_the_digest_of_a_body_is_that_of_the_standard():
    assert digests.content_digest(BODY) == DIGEST


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (DIGEST, None),
        (DIGEST_512, None),
        (f"{DIGEST}, {DIGEST_512}", None),
        ([DIGEST, "crc32c=:AAAAAA==:"], None),
        ("crc32c=:AAAAAA==:", "content-digest-unknown"),
        ("", "content-digest-unknown"),
        (digests.content_digest(b""), "content-digest-wrong"),
        (f"{DIGEST_512}, {digests.content_digest(b'')}", "content-digest-wrong"),
        (f'sha-256="{DIGEST[9:-1]}"', "content-digest-wrong"),
        (f"sha-256=({DIGEST[8:]})", "content-digest-wrong"),
        ("sha-256", "content-digest-wrong"),
        (f"{DIGEST}, {DIGEST}", "content-digest-malformed"),
        ("sha-256=:!:", "content-digest-malformed"),
        ("x" * 9000, "signature-long"),
    ],
)
def test_a_body_is_the_one_that_is_named_or_refused_with_its_own_code(said: Any, code: str | None):
    if code is None:
        digests.check_content(fields({"Content-Digest": said}), BODY)
        return
    with pytest.raises(SignatureRefused) as refused:
        digests.check_content(fields({"Content-Digest": said}), BODY)
    assert refused.value.code == code


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_every_body_has_a_digest_of_its_own(one: bytes, other: bytes):
    said = fields({"Content-Digest": digests.content_digest(one)})
    digests.check_content(said, one)
    if other != one:
        with pytest.raises(SignatureRefused, match="another than the one"):
            digests.check_content(said, other)


def test_a_token_is_named_by_a_digest_in_the_same_form():
    said = digests.authorization_digest("Bearer t0ken")
    assert said == digests.content_digest(b"Bearer t0ken")
    digests.check_authorization(fields({"Authorization": " Bearer t0ken", "Qiao-Authorization-Digest": said}))
    digests.check_authorization(fields({"Authorization": "Bearer t0ken"}))
    for wrong, code in ((digests.authorization_digest("x"), "wrong"), ("crc32c=:AAAAAA==:", "unknown")):
        with pytest.raises(SignatureRefused) as refused:
            digests.check_authorization(fields({"Authorization": "Bearer t0ken", "Qiao-Authorization-Digest": wrong}))
        assert refused.value.code == f"authorization-digest-{code}"
