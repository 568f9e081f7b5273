"""HTTP message signatures (RFC 9421) with Ed25519: requests for data and their answers, which are bound to them.

Pure: no clock, no randomness. There are two bindings, by their tags: `dp-pull` for data that are fetched, `dp-push` for those that are
brought. What a binding names is covered wherever it is there, and a signature that leaves some of that out proves nothing. Its parameters
are `created`, `keyid` (a DID URL), `alg`, `tag`, and for requests `nonce`. An answer covers the signature of its request, or, where there
is none, the nonce that was asked for (`Accept-Signature`). Of a token a digest may be covered in its place (`digests.AUTHORIZATION`).
What is missing here (other algorithms, parts of structured fields, trailers, query parameters) is refused, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol
from urllib.parse import urlsplit

from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from connector.errors import SignatureRefused
from connector.signatures.digests import AUTHORIZATION, DIGEST, FIELD_CHARACTERS_MAX, Fields, check_authorization, dictionary_of
from connector.signatures.fields import Bare, InnerList, Item, Member, read_dictionary, write_bare, write_inner_list
from connector.signatures.jws import SIGNATURE_BYTES, SKEW_SECONDS, SigningKey
from connector.values import Value

CLOCKS: Final = frozenset({"signature-old", "signature-future", "signature-expired"})  # what a clock says that was set wrong
LABEL, ALGORITHM = "dp", "ed25519"
INPUT, SIGNATURE, ACCEPT = "signature-input", "signature", "accept-signature"
UNSIGNED: Final = frozenset({"signature-missing", "signature-tag"})  # what is refused of a message that has no signature of its binding
AGE_SECONDS_MAX = 60.0
COMPONENTS_MAX = 64  # each is looked up
NONCE_CHARACTERS = range(16, 257)  # 16 of base64url have 96 bits
LABEL_CHARACTERS_MAX = 64  # it is repeated
DEFAULT_PORTS = {"http": 80, "https": 443}
PARAMETERS = frozenset({"created", "expires", "keyid", "alg", "nonce", "tag"})  # RFC 9421, 2.3

Component = tuple[str, bool]  # name, and whether it is that of the request (`;req`)


class Binding(Value):
    """What is covered wherever it is there, in requests and in answers to them, under a tag of its own."""

    tag: str
    of_request: tuple[Component, ...]
    of_answer: tuple[Component, ...]


def _named(names: str, *, of_request: bool = False) -> tuple[Component, ...]:
    return tuple((name, of_request) for name in names.split())


PULL: Final = Binding(
    "dp-pull",
    _named(f"@method @authority @target-uri range if-range authorization {DIGEST}"),
    _named("@status etag content-range content-length content-type repr-digest link")
    + _named("@method @target-uri range signature", of_request=True),
)
# Here the request says what the bytes are. Its body is proven by the leaves of the log that the entity tag names, or by `repr-digest`.
PUSH: Final = Binding(
    "dp-push",
    _named(f"@method @authority @target-uri content-range content-type etag repr-digest link qiao-ack authorization {DIGEST}"),
    _named(f"@status upload-offset content-length content-type link {DIGEST}")
    + _named("@method @target-uri content-range signature", of_request=True),
)


class Key(Protocol):
    """A key that verifies: see `jws.PublicKey`."""

    @property
    def kid(self) -> str: ...
    @property
    def public(self) -> bytes: ...
    def valid(self, at: float) -> bool: ...


class Request(Value):
    """A request as its sender means it: `url` is the target URI that it dials, whatever proxies make of it."""

    method: str
    url: str
    fields: Fields
    binding: Binding = PULL


class Answer(Value):
    """An answer, with the request that it belongs to."""

    status: int
    fields: Fields
    request: Request

    @property
    def binding(self) -> Binding:
        """That of its request."""
        return self.request.binding


Message = Request | Answer


class Signed(Value):
    """A signature that holds, over `base`. `input` is what it covers and says of itself, as in `Signature-Input` (without label). The base
    of a request has its token in it."""

    kid: str
    created: int
    nonce: str | None
    input: str
    signature: bytes
    base: bytes

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the base."""
        return sha256(self.base).digest()


class Wanted(Value):
    """What a signature that was asked for is to be called, and to repeat."""

    label: str = LABEL
    nonce: str | None = None


def sign(message: Message, key: SigningKey, now: float, *, nonce: str | None = None, label: str = LABEL) -> tuple[str, str]:
    """Return the values of `Signature-Input` and `Signature` (RFC 9421, 4) over all of the binding that is present.

    Raises SignatureRefused for a value that a signature base cannot have, ValueError for a nonce that is no string of a structured field.
    """
    present = [(_identifier(each), value) for each in to_cover(message) if (value := value_of(each, message)) is not None]
    named = "" if nonce is None else f";nonce={write_bare(nonce)}"
    parameters = f';created={int(now)};keyid={write_bare(key.kid)};alg="{ALGORITHM}"{named};tag="{message.binding.tag}"'
    line = f"({' '.join([identifier for identifier, _ in present])}){parameters}"
    signature = crypto_sign(base(present, line), key.secret)[:SIGNATURE_BYTES]
    return f"{label}={line}", f"{label}={write_bare(signature)}"


def verify_request(request: Request, signer: str, keys: Iterable[Key], now: float) -> Signed:
    """The signature of a request by participant `signer` (a DID) with one of its `keys`. Whether its nonce is new is for the caller to say.

    Raises SignatureRefused with a code for each rule; its text never repeats the message.
    """
    signed = _verified(request, signer, keys, now)
    check_authorization(request.fields)
    if signed.nonce is None or len(signed.nonce) not in NONCE_CHARACTERS:
        low, high = NONCE_CHARACTERS[0], NONCE_CHARACTERS[-1]
        raise SignatureRefused(f"the request's signature has no `nonce` of {low} to {high} characters", "signature-nonce")
    return signed


def verify_answer(answer: Answer, signer: str, keys: Iterable[Key], now: float, *, nonce: str | None) -> Signed:
    """The signature of an answer by participant `signer`, bound to its request; `nonce` is what it has to repeat, if any was asked for.
    Raises as `verify_request`."""
    signed = _verified(answer, signer, keys, now)
    if nonce is not None and signed.nonce != nonce:
        raise SignatureRefused("the answer's signature does not repeat the `nonce` that was asked for", "signature-nonce")
    return signed


def base_of(message: Message, input: str) -> bytes:
    """The base of a signature that `sign` has made of a message; `input` is the value of its `Signature-Input`."""
    return base(
        ((_identifier(each), value_of(each, message) or "") for each in to_cover(message) if value_of(each, message) is not None),
        input.partition("=")[2],
    )


def to_cover(message: Message) -> tuple[Component, ...]:
    """What a signature of a message has to cover, as far as it is there."""
    if isinstance(message, Answer):
        return message.binding.of_answer
    return _digested(message.binding.of_request) if message.fields(AUTHORIZATION) else message.binding.of_request


def covers_only(message: Message, signed: Signed) -> bool:
    """Whether the signature of a message covers nothing beside its binding: other fields may hold what is nobody else's business."""
    known = {_identifier(each).encode() for each in to_cover(message)}
    return all(line.partition(b": ")[0] in known for line in signed.base.split(b"\n")[:-1])


@lru_cache(maxsize=8)
def _digested(components: tuple[Component, ...]) -> tuple[Component, ...]:
    return tuple((AUTHORIZATION if name == "authorization" else name, of_request) for name, of_request in components)


def ask(components: Iterable[Component], *, nonce: str | None = None, binding: Binding = PULL) -> str:
    """The value of an `Accept-Signature` (RFC 9421, 5.1): sign all of this that is there."""
    parameters: dict[str, Bare] = {"created": True, "alg": ALGORITHM}
    if nonce is not None:
        parameters["nonce"] = nonce
    return f"{LABEL}={write_inner_list((_identifier(each) for each in components), parameters | {'tag': binding.tag})}"


@lru_cache(maxsize=64)  # most who ask say the same each time
def wanted(value: str, binding: Binding = PULL) -> Wanted | None:
    """What an `Accept-Signature` asks of a binding: the first of its members that names its tag, or none. None if it asks for
    others only, or cannot be read: a wish that nobody understands is nobody's."""
    try:
        members = read_dictionary(value) if len(value) <= FIELD_CHARACTERS_MAX else {}
    except ValueError:
        return None
    for label, member in members.items():
        nonce = _string(member.parameters.get("nonce"))
        if isinstance(member, InnerList) and member.parameters.get("tag", binding.tag) == binding.tag:
            named = label if len(label) <= LABEL_CHARACTERS_MAX else LABEL
            return Wanted(named, nonce if nonce is not None and len(nonce) in NONCE_CHARACTERS else None)
    return None


def base(components: Iterable[tuple[str, str]], parameters: str) -> bytes:
    """The signature base (RFC 9421, 2.5) of components, each with its identifier as written and its value. Raises SignatureRefused."""
    lines = [f"{identifier}: {value}" for identifier, value in components]
    lines.append(f'"@signature-params": {parameters}')
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1 or "\r" in text or not text.isascii():
        raise SignatureRefused("a field that the signature covers has characters that none can have", "signature-value")
    return text.encode("ascii")


@lru_cache(maxsize=256)  # the same transfers are asked for again and again
def authority(url: str) -> str:
    """The authority of a target URI in its normal form (RFC 9421, 2.2.3): lower case, without the scheme's own port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


@lru_cache(maxsize=256)
def target_uri(url: str) -> str:
    """A target URI (RFC 9421, 2.2.2) with its scheme and authority in their normal form; path and query stay to the letter."""
    parts = urlsplit(url)
    rest = url.partition("#")[0].partition("://")[2]
    at = min((n for n in (rest.find("/"), rest.find("?")) if n >= 0), default=len(rest))
    path = rest[at:] if rest[at : at + 1] == "/" else f"/{rest[at:]}"
    return f"{parts.scheme.lower()}://{authority(url)}{path}"


# What a message is, beside its fields (RFC 9421, 2.2), for requests; answers have their status only.
DERIVED: Mapping[str, Callable[[Request], str]] = {
    "@method": lambda request: request.method,
    "@authority": lambda request: authority(request.url),
    "@target-uri": lambda request: target_uri(request.url),
    "@scheme": lambda request: urlsplit(request.url).scheme,
    "@path": lambda request: urlsplit(request.url).path or "/",
    "@query": lambda request: f"?{urlsplit(request.url).query}",
}


def value_of(component: Component, message: Message) -> str | None:
    """What a component of a message stands for; None if it is not there."""
    name, of_request = component
    if of_request:
        if isinstance(message, Request):
            return None
        message = message.request
    if name.startswith("@"):
        if isinstance(message, Answer):
            return f"{message.status:03d}" if name == "@status" else None
        return derived(message) if (derived := DERIVED.get(name)) is not None else None
    lines = message.fields(name)
    return None if not lines else lines[0].strip(" \t") if len(lines) == 1 else ", ".join([line.strip(" \t") for line in lines])


@lru_cache(maxsize=256)
def _identifier(component: Component) -> str:
    name, of_request = component
    return f'"{name}";req' if of_request else f'"{name}"'


def _verified(message: Message, signer: str, keys: Iterable[Key], now: float) -> Signed:
    what = "request" if isinstance(message, Request) else "answer"
    member, signature = _chosen(message, what)
    covered = [_component(item, what) for item in member.items]
    if len(covered) > COMPONENTS_MAX or len(set(covered)) != len(covered):
        raise SignatureRefused(f"the {what}'s signature covers a component twice, or more than {COMPONENTS_MAX}", "signature-components")
    created, kid, nonce = _parameters(member.parameters, now, what)
    for each in to_cover(message):
        if each not in covered and value_of(each, message) is not None:
            raise SignatureRefused(f"the {what}'s signature does not cover `{_identifier(each)}`, which is there", "signature-uncovered")
    values: list[tuple[str, str]] = []
    for each in covered:
        if (value := value_of(each, message)) is None:
            raise SignatureRefused(f"the {what}'s signature covers a component that is not there", "signature-absent")
        values.append((_identifier(each), value))
    line = write_inner_list([identifier for identifier, _ in values], member.parameters)
    signed = base(values, line)
    key = _key(kid, signer, keys, (now, created), what)
    try:
        crypto_sign_open(signature + signed, key.public)
    except BadSignatureError:
        raise SignatureRefused(
            f"the {what}'s signature is not by the key that `keyid` names, or over another {what}", "signature-wrong"
        ) from None
    return Signed(kid, created, nonce, line, signature, signed)


def _chosen(message: Message, what: str) -> tuple[InnerList, bytes]:
    """The one signature of its binding. Those of others, such as a proxy's, may stand beside it."""
    tag = message.binding.tag
    if not message.fields(INPUT) and not message.fields(SIGNATURE):
        raise SignatureRefused(f"the {what} is not signed; sign it as RFC 9421 says, with the tag `{tag}`", "signature-missing")
    inputs = dictionary_of(message.fields, INPUT)
    ours = _ours(inputs, tag)
    if not ours:
        raise SignatureRefused(f"no signature of the {what} has the tag `{tag}`", "signature-tag")
    signatures = dictionary_of(message.fields, SIGNATURE)
    if inputs.keys() != signatures.keys():
        raise SignatureRefused("`Signature-Input` and `Signature` do not have the same labels", "signature-labels")
    if len(ours) > 1:
        raise SignatureRefused(f"more than one signature of the {what} has the tag `{tag}`", "signature-several")
    (label, member), *_ = ours.items()
    sealed = signatures[label]
    if not isinstance(sealed, Item) or not isinstance(sealed.value, bytes) or sealed.parameters or len(sealed.value) != SIGNATURE_BYTES:
        raise SignatureRefused(f"the {what}'s `Signature` is not a byte sequence of {SIGNATURE_BYTES}", "signature-bytes")
    return member, sealed.value


def _ours(inputs: Mapping[str, Member], tag: str) -> dict[str, InnerList]:
    return {label: each for label, each in inputs.items() if isinstance(each, InnerList) and _string(each.parameters.get("tag")) == tag}


def _component(item: Item, what: str) -> Component:
    name = _string(item.value)
    if not name or name != name.lower() or not item.parameters.keys() <= {"req"}:
        raise SignatureRefused(
            f"the {what}'s signature covers a component that is not taken here; take no part of a field", "signature-component"
        )
    if item.parameters and (item.parameters["req"] is not True or what == "request"):
        raise SignatureRefused(f"the {what}'s signature has `req` where it has no meaning", "signature-component-req")
    return name, bool(item.parameters)


def _parameters(parameters: Mapping[str, Bare], now: float, what: str) -> tuple[int, str, str | None]:
    """(`created`, `keyid`, `nonce`), all in order."""
    if not parameters.keys() <= PARAMETERS:
        raise SignatureRefused(f"the {what}'s signature has parameters that RFC 9421 does not know", "signature-parameter")
    if _string(parameters.get("alg")) != ALGORITHM:
        raise SignatureRefused(f"the {what}'s signature is not of `alg` `{ALGORITHM}`", "signature-alg")
    created, expires = parameters.get("created"), parameters.get("expires", now)
    if isinstance(created, bool) or not isinstance(created, int):
        raise SignatureRefused(f"the {what}'s signature has no `created` in whole seconds", "signature-created")
    if created > now + SKEW_SECONDS:
        raise SignatureRefused(f"the {what}'s signature was made in the future; compare the clocks of both sides", "signature-future")
    if created + AGE_SECONDS_MAX < now:
        text = f"the {what}'s signature is older than {AGE_SECONDS_MAX:g} s; compare the clocks of both sides if it is fresh"
        raise SignatureRefused(text, "signature-old")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or expires < now:
        raise SignatureRefused(f"the {what}'s signature has expired", "signature-expired")
    kid, nonce = _string(parameters.get("keyid")), _string(parameters.get("nonce"))
    if kid is None:
        raise SignatureRefused(f"the {what}'s signature has no `keyid`; write the DID URL of the signing key", "signature-keyid")
    if nonce is None and "nonce" in parameters:
        raise SignatureRefused(f"the {what}'s signature has a `nonce` that is no string", "signature-nonce")
    return created, kid, nonce


def _string(value: Bare | None) -> str | None:
    """A string; a token is none, whatever it spells."""
    return value if type(value) is str else None


def _key(kid: str, signer: str, keys: Iterable[Key], at: tuple[float, int], what: str) -> Key:
    """The key that counts now, and counted in the second in which the signature says it was made: on record it is looked at by that."""
    if kid.partition("#")[0] != signer:
        raise SignatureRefused(f"the {what} is not signed by the participant that it has to be by", "signature-signer")
    key = next((each for each in keys if each.kid == kid), None)
    if key is None:
        raise SignatureRefused(f"the {what}'s `keyid` is not a key that its signer is known to have", "signature-key-unknown")
    now, created = at
    if not key.valid(now) or not (key.valid(created) or key.valid(created + 1)):
        said = f"the {what}'s key is not valid now, or was not when it signed; see its `notBefore` and `notAfter`"
        raise SignatureRefused(said, "signature-key-ended")
    return key
