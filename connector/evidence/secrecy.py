"""What looks like a token, a secret or a private key: it is in no evidence file by the words of its exporter. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from connector.signatures.credentials import ANNOUNCED, ANNOUNCED_LEAST, CREDENTIAL, KEY

TOKEN: Final = re.compile(CREDENTIAL)
PRIVATE: Final = re.compile(KEY)
NAMES: Final = frozenset(
    {
        "authorization", "token", "access_token", "accesstoken", "refresh_token", "refreshtoken", "secret", "client_secret", "password",
        "passphrase", "credential", "cookie", "set-cookie",
    }
)  # fmt: skip
TYPES: Final = ("OKP", "EC", "RSA", "oct")
RECEIVED: Final = "message-received"  # (`connector.telemetry`, which a verifier does without)
GIVEN: Final = ("/reasons/", "/code")  # in the fact of a message of the peer, what it gave
ASKED: Final = ("/request/", "/sink/")  # what the consumer has signed, in facts of requests and of answers to them
ANSWERED: Final = ("/answer/", "/etag", "/content-range")  # what the provider has


def secrets_in(value: Any, pointer: str = "", *, signed: bool = False) -> Iterator[tuple[str, str]]:
    """The place (RFC 6901, below `pointer`) and the code of whatever in a JSON value looks like a secret. The `jws` of a member that is
    `signed` is no token, though it looks like one."""
    if isinstance(value, str):
        if _has_token(value):
            yield pointer, "secret-token"
        if "KEY-----" in value and PRIVATE.search(value):
            yield pointer, "secret-key"
    elif isinstance(value, dict):
        if value.get("kty") in TYPES and ("d" in value or "k" in value):
            yield pointer, "secret-key"
        for name, each in value.items():
            if _has_token(name):
                yield f"{pointer}/{_escaped(name)}", "secret-token"
            if name.lower() in NAMES:
                yield f"{pointer}/{_escaped(name)}", "secret-name"
            if not (signed and name == "jws") and _may_tell(each):
                yield from secrets_in(each, f"{pointer}/{_escaped(name)}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            if _may_tell(each):
                yield from secrets_in(each, f"{pointer}/{number}")


def _may_tell(value: Any) -> bool:
    """What most values are is told at once: a file has thousands of hashes."""
    if isinstance(value, str):
        return _may_be(value)
    return isinstance(value, dict | list)


def _has_token(text: str) -> bool:
    return _may_be(text) and TOKEN.search(text) is not None


def _may_be(text: str) -> bool:
    """Whether a closer look is worth while, which takes ten times as long. Written out, as a file has ten thousand texts for each MB."""
    plain = text.lower()
    return (
        ("eyj" in plain or "earer" in plain or "dpop" in plain or "basic" in plain or "key-----" in plain or "authorization" in plain)
        or ("token" in plain or "secret" in plain or "password" in plain or "api_key" in plain)
        or ("@" in plain and "://" in plain)
        or (len(text) >= ANNOUNCED_LEAST and any(map(text.__contains__, ANNOUNCED)))
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def own_secrets(what: object, detail: Any, *, at_provider: bool) -> list[tuple[str, str]]:
    """The same of the detail of a fact `what`, but for the words of the peer that stand in it: a provider has those of the consumer, and
    the other way round."""
    theirs = (*(GIVEN if what == RECEIVED else ()), *(ASKED if at_provider else ANSWERED))
    return [(pointer, code) for pointer, code in secrets_in(detail) if not pointer.startswith(theirs)]


def tells_secret(value: Any) -> bool:
    """Whether anything in a JSON value looks like a secret."""
    return next(secrets_in(value), None) is not None
