"""Whether anything is in a file that must not leave its owner: tokens, secrets, private keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from connector.evidence.case import Case
from connector.evidence.members import OBJECTS

TOKEN: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|\b[Bb]earer\s+[A-Za-z0-9._~+/-]{8,}")
KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
NAMES: Final = frozenset(
    {
        "authorization", "token", "access_token", "accesstoken", "refresh_token", "refreshtoken", "secret", "client_secret", "password",
        "passphrase", "credential", "cookie", "set-cookie",
    }
)  # fmt: skip
TYPES: Final = ("OKP", "EC", "RSA", "oct")


def check(case: Case) -> None:
    """Look at every text of every member but what is signed, the kinds of which are known, each with nothing but its own claims."""
    for kind, members in case.members.items():
        for member in members:
            for pointer, code in _found(member.value, "", skip=kind in (*OBJECTS, "attestation")):
                case.fault(code, member, pointer)
            if kind == "entry":
                for name in ("body", "detail"):
                    for pointer, code in _found(_parsed(member.value[name]), f"/{name}"):
                        case.fault(code, member, pointer)


def _parsed(text: str | None) -> Any:
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None  # as a text it was looked at with its member


def _found(value: Any, pointer: str, *, skip: bool = False) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if TOKEN.search(value):
            yield pointer, "secret-token"
        if KEY.search(value):
            yield pointer, "secret-key"
    elif isinstance(value, dict):
        if value.get("kty") in TYPES and ("d" in value or "k" in value):
            yield pointer, "secret-key"
        for name, each in value.items():
            at = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if name.lower() in NAMES:
                yield at, "secret-name"
            if not (skip and name == "jws"):
                yield from _found(each, at)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _found(each, f"{pointer}/{number}")
