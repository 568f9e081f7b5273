"""What looks like a secret, and whose words it is in."""

from typing import Any

import pytest

from connector.evidence.secrecy import own_secrets, tells_secret

SECRET = "Bearer 0123456789abcdef"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmVk"


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        "Bearer aBcdefghij",
        f"bearer {'x' * 20}",
        f"令牌{SECRET}",
        f"原令牌{JWT}已过期",
        [{"deep": SECRET}],
        {"password": 1},
        {"kty": "oct", "k": "y"},
    ],
)
def test_a_secret_is_told_wherever_it_stands(value: Any):
    assert tells_secret(value)
    assert not tells_secret({"reason": "the bearer of bad news", "kid": "k"})
    assert not tells_secret("the card's bearer requested its deletion. Bearer authentication, and Bearer certificates, go on")
    assert not tells_secret("该患者撤回了同意，编号 eyJ-2026，见 urn:uuid:a")


def test_what_a_peer_gave_is_none_of_the_own_words():
    said = {"code": SECRET, "reasons": [SECRET], "request": {"base": SECRET}, "answer": {"base": SECRET}}
    assert [pointer for pointer, _ in own_secrets("message-received", said, at_provider=True)] == ["/answer/base"]
    assert [pointer for pointer, _ in own_secrets("message-sent", said, at_provider=False)] == ["/code", "/reasons/0", "/request/base"]
