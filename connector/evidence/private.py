"""Whether anything is in a file that must not leave its owner: tokens, secrets, private keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from connector.evidence.case import Case
from connector.evidence.members import OBJECTS, Member

TOKEN: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|\b[Bb]earer\s+[A-Za-z0-9._~+/-]{8,}")
KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
NAMES: Final = frozenset(
    {
        "authorization", "token", "access_token", "accesstoken", "refresh_token", "refreshtoken", "secret", "client_secret", "password",
        "passphrase", "credential", "cookie", "set-cookie",
    }
)  # fmt: skip
REASONS: Final = "/detail/reasons/"  # what a peer gave for a reason, in the fact of its message
RECEIVED: Final = "message-received"  # (`connector.telemetry`, which a verifier does without)
TYPES: Final = ("OKP", "EC", "RSA", "oct")


def check(case: Case) -> None:
    """Look at every text of every member but what is signed, the kinds of which are known, each with nothing but its own claims. What a
    peer gave for a reason may look like anything: it accuses the peer, which could spoil a file else."""
    for kind, members in case.members.items():
        for member in members:
            parsed = {name: _parsed(member.value[name]) for name in ("body", "detail")} if kind == "entry" else {}
            for pointer, code in _found(member.value, "", skip=kind in (*OBJECTS, "attestation")):
                if parsed.get(pointer[1:]) is None:  # else the same is found where it stands
                    _say(case, member, pointer, code, theirs=pointer == "/reason" and member.value.get("closedBy") == "peer")
            came = isinstance(body := parsed.get("body"), dict) and body.get("what") == RECEIVED
            for name, said in parsed.items():
                for pointer, code in _found(said, f"/{name}"):
                    _say(case, member, pointer, code, theirs=came and pointer.startswith(REASONS))


def _say(case: Case, member: Member, pointer: str, code: str, *, theirs: bool) -> None:
    if theirs:
        case.accuse(code, member)
    else:
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
            if TOKEN.search(name):
                yield at, "secret-token"
            if name.lower() in NAMES:
                yield at, "secret-name"
            if not (skip and name == "jws"):
                yield from _found(each, at)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _found(each, f"{pointer}/{number}")
