"""What looks like a secret, and whose words it is in."""

from typing import Any

import pytest

from connector.evidence.secrecy import own_secrets, tells_secret

SECRET = "Bearer 0123456789abcdef"


@pytest.mark.parametrize("value", [SECRET, [{"deep": SECRET}], {"password": 1}, {"kty": "oct", "k": "y"}])
def test_a_secret_is_told_wherever_it_stands(value: Any):
    assert tells_secret(value)
    assert not tells_secret({"reason": "the bearer of bad news", "kid": "k"})


def test_what_a_peer_gave_is_none_of_the_own_words():
    said = {"code": SECRET, "reasons": [SECRET], "request": {"base": SECRET}, "answer": {"base": SECRET}}
    assert [pointer for pointer, _ in own_secrets("message-received", said, at_provider=True)] == ["/answer/base"]
    assert [pointer for pointer, _ in own_secrets("message-sent", said, at_provider=False)] == ["/code", "/reasons/0", "/request/base"]
