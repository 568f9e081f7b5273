"""Digests that a signature covers in the place of what they are of: a body (RFC 9530), and the token of a request.

Pure. A signature base that has the digest of a token and not the token can be shown to anybody: the digest tells as little as the token is
long, as the `ath` of RFC 9449 does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256, sha512
from typing import Final

from connector.errors import SignatureRefused
from connector.signatures.fields import Item, Member, read_dictionary, write_bare

DIGEST: Final = "content-digest"
AUTHORIZATION: Final = "qiao-authorization-digest"  # of the value of `Authorization`, in the form of `Content-Digest`
FIELD_CHARACTERS_MAX: Final = 8192  # of each field that is read: ours have some 500
DIGESTS: Mapping[str, Callable[[bytes], bytes]] = {  # RFC 9530, 5: those that are active
    "sha-256": lambda body: sha256(body).digest(),
    "sha-512": lambda body: sha512(body).digest(),
}

Fields = Callable[[str], Sequence[str]]  # the lines of a field, by its lower-case name; () if it is not there


def content_digest(body: bytes) -> str:
    """The value of the `Content-Digest` of a body (RFC 9530, 2), by which a signature covers it."""
    return f"sha-256={write_bare(DIGESTS['sha-256'](body))}"


def check_content(fields: Fields, body: bytes) -> None:
    """Raise SignatureRefused unless all digests in `Content-Digest` that are known here are those of this body, and one of them is."""
    _check(fields, DIGEST, body, "Content-Digest", "body")


def authorization_digest(value: str) -> str:
    """The digest of the value of an `Authorization`, by which a signature covers it. Raises ValueError for one that is not ASCII."""
    return content_digest(value.encode("ascii"))


def check_authorization(fields: Fields) -> None:
    """Raise SignatureRefused if a request names another token than the one that it carries."""
    if fields(AUTHORIZATION):
        carried = ", ".join(line.strip(" \t") for line in fields("authorization"))
        _check(fields, AUTHORIZATION, carried.encode(errors="surrogateescape"), "Qiao-Authorization-Digest", "authorization")


def dictionary_of(fields: Fields, name: str) -> dict[str, Member]:
    """A field that is a dictionary. Raises SignatureRefused; its text never repeats the field."""
    value = ", ".join(line.strip(" \t") for line in fields(name))
    if len(value) > FIELD_CHARACTERS_MAX:
        raise SignatureRefused(f"`{name}` is longer than {FIELD_CHARACTERS_MAX} characters", "signature-long")
    try:
        return read_dictionary(value)
    except ValueError as error:
        raise SignatureRefused(f"`{name}` is no dictionary of structured fields: {error}", f"{name}-malformed") from None


def _check(fields: Fields, name: str, data: bytes, called: str, what: str) -> None:
    code = "content-digest" if name == DIGEST else "authorization-digest"
    known = {each: member for each, member in dictionary_of(fields, name).items() if each in DIGESTS}
    if not known:
        raise SignatureRefused(f"`{called}` has none of {', '.join(DIGESTS)}", f"{code}-unknown")
    for each, member in known.items():
        if not isinstance(member, Item) or member.value != DIGESTS[each](data):
            raise SignatureRefused(f"the {what} is another than the one that `{called}` names", f"{code}-wrong")
