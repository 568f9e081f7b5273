"""A signature that was put on record with what it covers (RFC 9421), for whoever was not there. Pure.

The base of an answer's signature has no secret in it: it covers the signature of the request, and not what this covers. Nor has the base of
a request's signature, if it covers the digest of the token and not the token (`digests.AUTHORIZATION`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from connector.errors import SignatureRefused
from connector.signatures.fields import InnerList, read_dictionary
from connector.signatures.http import ALGORITHM, Key
from connector.signatures.jws import SIGNATURE_BYTES
from connector.values import Value

PARAMETERS = '"@signature-params"'


class Shown(Value):
    """What a signature covers: `values` by the components' identifiers as written, such as `"@method";req`. `created` is when it was made
    (POSIX seconds), `tag` that of its binding."""

    values: Mapping[str, str]
    created: int
    tag: str | None


def show(base: str, input: str, signature: bytes, signer: str, keys: Iterable[Key]) -> Shown:
    """Read a base that participant `signer` (a DID) has signed with one of its `keys` that counted then. `input` is what
    `Signature-Input` said of it, without label. Raises SignatureRefused."""
    *lines, last = base.split("\n")
    if last != f"{PARAMETERS}: {input}":
        raise SignatureRefused("the signature base does not end with the parameters of the signature", "base-parameters")
    try:
        member = read_dictionary(f"x={input}")["x"]
    except (ValueError, KeyError):
        raise SignatureRefused("the parameters of the signature cannot be read", "base-parameters") from None
    if not isinstance(member, InnerList):
        raise SignatureRefused("the parameters of the signature are no list of components", "base-parameters")
    named = [line.partition(": ") for line in lines]
    covered = [f'"{item.value!s}"{";req" if item.parameters.get("req") is True else ""}' for item in member.items]
    if [name for name, _, _ in named] != covered or len(set(covered)) != len(covered):
        raise SignatureRefused("the signature base has other components than the parameters of the signature name", "base-components")
    created, kid, tag = (member.parameters.get(name) for name in ("created", "keyid", "tag"))
    if isinstance(created, bool) or not isinstance(created, int) or member.parameters.get("alg") != ALGORITHM:
        raise SignatureRefused(f"the signature is not of `alg` `{ALGORITHM}`, or says no instant", "base-parameters")
    second = (created, created + 1)  # a whole one, in which it was made
    key = next((each for each in keys if each.kid == kid and any(map(each.valid, second))), None)
    if key is None or not isinstance(kid, str) or kid.partition("#")[0] != signer:
        raise SignatureRefused("the signature is by no key of its signer that counted then", "base-key")
    try:
        if len(signature) != SIGNATURE_BYTES:
            raise BadSignatureError
        crypto_sign_open(signature + base.encode("ascii"), key.public)
    except (BadSignatureError, UnicodeEncodeError):
        raise SignatureRefused("the signature is over another base, or by another key", "base-signature") from None
    return Shown({name: value for name, _, value in named}, created, tag if isinstance(tag, str) else None)
