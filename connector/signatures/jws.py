"""Signed tokens: compact JWS (RFC 7515) with Ed25519 (RFC 8037) and JWT claims (RFC 7519), and nothing that can be left out.

Pure: no clock, no randomness. One signature scheme, three header members, one spelling for each token. What is missing here
(`none`, HMAC, keys in headers, critical extensions, compression, unencoded payloads) is what JOSE verifiers get wrong.
`open` proves who wrote a token and of which kind it is; `check` judges its claims for one audience at one instant. Every
token that the connector takes goes through both. An object (a manifest, a receipt) is a token that is kept: `read` proves that one
participant signed it, by a key that counted at a given instant, and whoever knows what it is judges its claims.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from connector.errors import Unauthenticated
from connector.values import Value

TOKEN_CHARACTERS_MAX = 4096  # ours have about 500; more is work for nothing
OBJECT_CHARACTERS_MAX = 65_535  # an entry of a log has a length of 16 bits (C2SP tlog-tiles, entry bundles)
HEADER_CHARACTERS_MAX = 1024  # holds a DID URL; parsed before anything is proven
SIGNATURE_BYTES = 64  # RFC 8032
KEY_BYTES = 32  # RFC 8032: seed and public key
SKEW_SECONDS = 30.0  # how far the clocks of two honest participants may be apart
LIFE_SECONDS_MAX = 300.0  # `exp - iat`: bounds how long the ids of used tokens have to be remembered
JTI_CHARACTERS_MAX = 256  # each one is hashed; a UUID has 36
TIME_MAX = float(2**53)  # seconds that a double still counts one by one
# RFC 4648, 5; `base64` does the same more slowly. What is no character of base64url is one of no base64 either.
TO_URL, FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_+/=", b"+/---")
ALGORITHMS = ("EdDSA", "Ed25519")  # RFC 9864 renames the first, which everybody still sends, to the second
HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
REFUSED_MEMBERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "zip", "cty", "enc"})
FOREIGN_CLAIMS = frozenset({"vp", "vc"})  # a credential or a presentation is signed by the same keys and is not a token

# The 32-byte public key of a `kid`, if it is valid now. Raises Unauthenticated with the reason why there is none.
KeyOf = Callable[[str], bytes]


class PublicKey(Value):
    """An Ed25519 key that verifies. `kid` is a DID URL, the times are POSIX seconds or None for no bound (inclusive)."""

    kid: str
    public: bytes
    not_before: float | None = None
    not_after: float | None = None

    def valid(self, at: float) -> bool:
        """Whether signatures of this key count at that instant."""
        return (self.not_before is None or self.not_before <= at) and (self.not_after is None or at <= self.not_after)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key that signs: its public half, and the secret, which no text shows."""

    key: PublicKey
    secret: bytes = field(repr=False, compare=False)

    @property
    def kid(self) -> str:
        return self.key.kid


def signing_key(kid: str, seed: bytes, not_before: float | None = None, not_after: float | None = None) -> SigningKey:
    """The key pair of a seed of 32 bytes (RFC 8032, 5.1.5). Raises ValueError for another length."""
    if len(seed) != KEY_BYTES:
        raise ValueError(f"a seed has {KEY_BYTES} bytes, not {len(seed)}")
    public, secret = crypto_sign_seed_keypair(seed)
    return SigningKey(PublicKey(kid, public, not_before, not_after), secret)


def sign(claims: Mapping[str, Any], key: SigningKey, typ: str) -> str:
    """Return a compact JWS of kind `typ` over `claims`."""
    signing_input = _header_segment(key.key.kid, typ) + _encode(orjson.dumps(claims))
    signature = crypto_sign(signing_input, key.secret)[:SIGNATURE_BYTES]
    return (signing_input + b"." + _encode(signature)).decode("ascii")


def open(token: str, key_of: KeyOf, typ: str) -> tuple[str, dict[str, Any]]:
    """Return the `kid` and the claims of a token that a key of `key_of` signed and whose kind is `typ`.

    Says nothing yet about audience and time: that is `check`. Raises Unauthenticated; its text never repeats the token.
    """
    return _opened(token, key_of, typ, TOKEN_CHARACTERS_MAX)


def read(token: str, typ: str, issuer: str, keys: Iterable[PublicKey], at: float) -> dict[str, Any]:
    """Return the claims of an object of kind `typ` that participant `issuer` (a DID) signed, by one of its `keys` that was valid at `at`
    (POSIX seconds), and whose `iss` it is. Raises Unauthenticated with its `fault`; its text never repeats the object."""

    def public(kid: str) -> bytes:
        if kid.partition("#")[0] != issuer:
            raise Unauthenticated("the object's `kid` is not a key of the participant that it should be by", fault="kid")
        key = next((each for each in keys if each.kid == kid), None)
        if key is None:
            raise Unauthenticated("the object's `kid` is not a key that its issuer is known to have", fault="key-unknown")
        if not key.valid(at):
            raise Unauthenticated("the object's key was not valid at that time; see its `notBefore` and `notAfter`", fault="key-ended")
        return key.public

    _, claims = _opened(token, public, typ, OBJECT_CHARACTERS_MAX)
    if claims.get("iss") != issuer:
        raise Unauthenticated("the object's `iss` is not the participant whose key signed it", fault="issuer")
    return claims


def claims_of(token: str) -> dict[str, Any]:
    """The claims of an object that was read before it was stored, without looking at its signature again. Raises Unauthenticated."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515, 3.1
        raise Unauthenticated("the token is not a compact JWS of three parts", fault="parts")
    return _object(_decode(parts[1], "payload"), "payload")


def check(
    claims: Mapping[str, Any],
    *,
    audience: str,
    now: float,
    skew_seconds: float = SKEW_SECONDS,
    life_seconds_max: float = LIFE_SECONDS_MAX,
) -> tuple[float, float]:
    """Return (`iat`, `exp`) of claims that are meant for `audience` and valid at `now` (POSIX seconds).

    `aud` is one participant, `iat` and `exp` are finite numbers at most `life_seconds_max` apart, `nbf` may be there, `jti` must be.
    Claims that RFC 7519 leaves to others are not judged. Raises Unauthenticated with the claim at fault.
    """
    if claims.get("aud") not in (audience, [audience]):
        raise Unauthenticated("the token's `aud` is not this participant alone")
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if expires <= issued:
        raise Unauthenticated("the token's `exp` is not after its `iat`")
    if expires - issued > life_seconds_max:
        raise Unauthenticated(f"the token lives longer than {life_seconds_max:g} seconds from `iat` to `exp`")
    if issued > now + skew_seconds:
        ahead = f"the token's `iat` lies {issued - now:.0f} s in the future by the clock of who was asked"
        raise Unauthenticated(f"{ahead}; compare the clocks of both sides")
    if expires + skew_seconds < now:
        late = f"the token has expired {now - expires:.0f} s ago by the clock of who was asked"
        raise Unauthenticated(f"{late}; compare the clocks of both sides if it is fresh")
    if "nbf" in claims and _time(claims, "nbf") > now + skew_seconds:
        raise Unauthenticated("the token's `nbf` lies in the future")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= JTI_CHARACTERS_MAX:
        raise Unauthenticated(f"the token's `jti` is not a text of 1 to {JTI_CHARACTERS_MAX} characters")
    if not FOREIGN_CLAIMS.isdisjoint(claims):
        raise Unauthenticated("the token carries a credential (`vp`, `vc`), which is not an identity token")
    return issued, expires


def to_jwk(public: bytes) -> dict[str, str]:
    """A public key as JSON Web Key (RFC 8037, 2)."""
    return {"kty": "OKP", "crv": "Ed25519", "x": _encode(public).decode("ascii")}


def from_jwk(jwk: object) -> bytes:
    """The public key in a JSON Web Key (RFC 8037, 2). Raises ValueError with what is wrong and what would be right."""
    if not isinstance(jwk, Mapping):
        raise ValueError('is not an object; write {"kty": "OKP", "crv": "Ed25519", "x": ...}')
    if "d" in jwk:
        raise ValueError("contains a private key (`d`); take it out and make a new key pair, this one is no longer secret")
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise ValueError('is not an Ed25519 key; write "kty": "OKP" and "crv": "Ed25519"')
    x = jwk.get("x")
    try:
        public = _decode(x, "key") if isinstance(x, str) else b""
    except Unauthenticated:
        public = b""
    if len(public) != KEY_BYTES:
        raise ValueError(f"has an `x` that is not base64url of {KEY_BYTES} bytes without padding")
    if not crypto_core_ed25519_is_valid_point(public):
        raise ValueError("has an `x` that is no Ed25519 public key")
    return public


def _opened(token: str, key_of: KeyOf, typ: str, characters_max: int) -> tuple[str, dict[str, Any]]:
    if len(token) > characters_max:
        raise Unauthenticated(f"the token is longer than {characters_max} characters", fault="length")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515, 3.1
        raise Unauthenticated("the token is not a compact JWS of three parts", fault="parts")
    header, payload, sealed = parts
    kid = _kid(header, typ)
    signature = _decode(sealed, "signature")
    if len(signature) != SIGNATURE_BYTES:
        raise Unauthenticated(f"the token's signature does not have {SIGNATURE_BYTES} bytes", fault="signature")
    body = _decode(payload, "payload")
    public = key_of(kid)
    try:
        crypto_sign_open(signature + f"{header}.{payload}".encode("ascii"), public)
    except BadSignatureError:
        raise Unauthenticated("the token's signature is not by the key that `kid` names", fault="signature") from None
    return kid, _object(body, "payload")


@lru_cache(maxsize=64)
def _header_segment(kid: str, typ: str) -> bytes:
    return _encode(orjson.dumps({"alg": "EdDSA", "typ": typ, "kid": kid})) + b"."


@lru_cache(maxsize=1024)  # one entry for each key of each peer: a peer's header is the same on every token
def _kid(segment: str, typ: str) -> str:
    """The `kid` of a header that has nothing but `alg`, `kid` and `typ`."""
    if len(segment) > HEADER_CHARACTERS_MAX:
        raise Unauthenticated(f"the token's header is longer than {HEADER_CHARACTERS_MAX} characters", fault="header")
    header = _object(_decode(segment, "header"), "header")
    if named := sorted(REFUSED_MEMBERS & header.keys()):
        raise Unauthenticated(f"the token's header has `{named[0]}`; it may have `alg`, `kid` and `typ` only", fault="header")
    if header.keys() - HEADER_MEMBERS:
        raise Unauthenticated("the token's header has more than `alg`, `kid` and `typ`", fault="header")
    if header.get("alg") not in ALGORITHMS:
        raise Unauthenticated("the token's `alg` is not `EdDSA`", fault="alg")
    if header.get("typ") != typ:
        raise Unauthenticated(f"the token's `typ` is not `{typ}`", fault="typ")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise Unauthenticated("the token's `kid` is missing; write the DID URL of the signing key", fault="kid")
    return kid


def _decode(segment: str, what: str) -> bytes:
    """base64url without padding (RFC 7515, 2) in its only spelling: unused bits are zero, so that no text has a twin."""
    try:
        spelled = segment.encode("ascii").translate(FROM_URL) + b"=" * (-len(segment) % 4)
        data = a2b_base64(spelled)
    except ValueError:  # characters that are not ASCII, or not enough of them
        spelled = data = b""
    if not data or b2a_base64(data, newline=False) != spelled:
        raise Unauthenticated(f"the token's {what} is not base64url without padding", fault=what)
    return data


def _encode(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(TO_URL).rstrip(b"=")


def _object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object as strict as orjson (no NaN, no lone surrogates) in which no name stands twice."""
    try:
        value = orjson.loads(data)
        if orjson.dumps(value) != data:  # written back to the letter, it has lost nothing, and most tokens are
            json.loads(data, object_pairs_hook=_without_twins)
    except (ValueError, TypeError, RecursionError):  # a TypeError of orjson's: too deep to be written back
        raise Unauthenticated(f"the token's {what} is not JSON with each name once", fault=what) from None
    if not isinstance(value, dict):
        raise Unauthenticated(f"the token's {what} is not a JSON object", fault=what)
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value: Any = claims.get(name)
    if type(value) not in (int, float) or not 0 <= value <= TIME_MAX:  # what is no number is not in between either
        raise Unauthenticated(f"the token's `{name}` is not a number of seconds")
    return float(value)
