import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as Signature

from connector.adapters import tokens
from connector.adapters.tokens import RegistryIdentity
from connector.adapters_stores.used_file import UsedFile
from connector.errors import StoreError, TooMany, Unauthenticated
from connector.ports import Participant
from connector.signatures.jws import PublicKey, SigningKey, sign, signing_key
from connector.signatures.used import UsedIds
from connector.values import replace
from tests.contracts.identity_contract import IdentityContract, SetClock

HOSPITAL = "did:web:hospital.example"
BIO = "did:web:bio.example"
SEED = bytes(range(32))
BIO_KEY = signing_key(f"{BIO}#k1", SEED)
HOSPITAL_KEY = signing_key(f"{HOSPITAL}#k1", bytes(32))


def someone(id: str) -> Participant:
    name = id.removeprefix("did:web:").partition(".")[0]
    return Participant(id, name, "role", f"https://{name}.example/dsp/2025-1", (f"https://{name}.example",), {"id": id, "name": name})


class Members:
    """A registry that a test fills."""

    def __init__(self, *keys: PublicKey) -> None:
        self.known = {key.kid: key for key in keys}
        self.listeners: list[Callable[[str], None]] = []
        self.members = {id: someone(id) for id in {key.kid.partition("#")[0] for key in keys}}

    def find(self, name: str) -> Participant | None:
        return next((each for each in self.members.values() if name in (each.id, each.name)), None)

    def participants(self) -> Sequence[Participant]:
        return [self.members[id] for id in sorted(self.members)]

    def key(self, kid: str) -> PublicKey | None:
        return self.known.get(kid)

    def keys(self, id: str) -> Sequence[PublicKey]:
        return [key for kid, key in self.known.items() if kid.partition("#")[0] == id]

    def listen(self, changed: Callable[[str], None]) -> None:
        self.listeners.append(changed)


class Signer:
    def __init__(self, key: SigningKey) -> None:
        self.key = key

    def active(self, now: float) -> SigningKey:
        return self.key

    def public(self) -> Sequence[PublicKey]:
        return [self.key.key]


def identity(id: str, key: SigningKey, members: Members, clock: SetClock, used: UsedFile | None = None) -> RegistryIdentity:
    return RegistryIdentity(someone(id), members, Signer(key), clock, used=used)


def pair(clock: SetClock) -> tuple[RegistryIdentity, RegistryIdentity, Members]:
    """The hospital, which verifies, the biopharma company, which calls, and the registry of the hospital."""
    members = Members(BIO_KEY.key, HOSPITAL_KEY.key)
    return identity(HOSPITAL, HOSPITAL_KEY, members, clock), identity(BIO, BIO_KEY, Members(HOSPITAL_KEY.key), clock), members


class TestRegistryIdentity(IdentityContract):
    def build(self, clock: SetClock) -> tuple[RegistryIdentity, RegistryIdentity, RegistryIdentity]:
        hospital, bio, _ = pair(clock)
        stranger = identity("did:web:stranger.example", signing_key("did:web:stranger.example#k1", bytes([7]) * 32), Members(), clock)
        return hospital, bio, stranger


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


NOW = SetClock().at
HEADER = {"alg": "EdDSA", "typ": "JWT", "kid": BIO_KEY.kid}
CLAIMS: dict[str, Any] = {"iss": BIO, "sub": BIO, "aud": HOSPITAL, "iat": NOW, "exp": NOW + 60, "jti": "j1"}


def forged(header: Any = HEADER, claims: Any = CLAIMS, seed: bytes = SEED) -> str:
    """A token with a true signature over whatever a test puts into it; bytes are taken as they are."""
    parts = [b64(part if isinstance(part, bytes) else orjson.dumps(part)) for part in (header, claims)]
    return ".".join([*parts, b64(Signature(seed).sign(".".join(parts).encode()).signature)])


def with_header(**members: Any) -> str:
    return forged({name: value for name, value in {**HEADER, **members}.items() if value is not None})


def with_claims(**claims: Any) -> str:
    return forged(claims={name: value for name, value in {**CLAIMS, **claims}.items() if value is not None})


GOOD = forged()
PARTS = GOOD.split(".")
HMAC = b64(orjson.dumps({**HEADER, "alg": "HS256"}))

BAD = {
    "nothing": ("", "three parts"),
    "too long": ("a" * 5000, "longer than"),
    "one part": (PARTS[0], "three parts"),
    "two parts": (".".join(PARTS[:2]), "three parts"),
    "four parts": (GOOD + "." + PARTS[2], "three parts"),
    "five parts of a JWE": (".".join([*PARTS, "a", "b"]), "three parts"),
    "no signature": (".".join([*PARTS[:2], ""]), "signature is not base64url"),
    "padding": (GOOD + "==", "signature is not base64url"),
    "padded payload": (f"{PARTS[0]}.{PARTS[1]}=.{PARTS[2]}", "payload is not base64url"),
    "plus and slash": (f"{PARTS[0]}.{PARTS[1]}.{'+/' + PARTS[2][2:]}", "signature is not base64url"),
    "white space": (GOOD + " ", "signature is not base64url"),
    "line end": (f"{PARTS[0]}.\n{PARTS[1]}.{PARTS[2]}", "payload is not base64url"),
    "leading space": (" " + GOOD, "header is not base64url"),
    "unused bits": (GOOD[:-1] + chr(ord(GOOD[-1]) + 1), "base64url|not by the key"),
    "not ASCII": (f"{PARTS[0]}.é.{PARTS[2]}", "payload is not base64url"),
    "short signature": (f"{PARTS[0]}.{PARTS[1]}.{b64(b'x' * 63)}", "64 bytes"),
    "long signature": (f"{PARTS[0]}.{PARTS[1]}.{b64(b'x' * 65)}", "64 bytes"),
    "zero signature": (f"{PARTS[0]}.{PARTS[1]}.{b64(bytes(64))}", "not by the key"),
    "other payload": (f"{PARTS[0]}.{b64(orjson.dumps({**CLAIMS, 'jti': 'j2'}))}.{PARTS[2]}", "not by the key"),
    "other key": (forged(seed=bytes(32)), "not by the key"),
    "header too long": (with_header(kid=BIO + "#" + "k" * 1200), "header is longer"),
    "header no JSON": (forged(b"alg"), "header is not JSON"),
    "header no object": (forged(b"[]"), "not a JSON object"),
    "header twice alg": (forged(b'{"alg":"none","alg":"EdDSA","typ":"JWT","kid":"%s"}' % BIO_KEY.kid.encode()), "each name once"),
    "header twice kid": (forged(b'{"kid":"x","alg":"EdDSA","typ":"JWT","kid":"%s"}' % BIO_KEY.kid.encode()), "each name once"),
    "alg escaped twice": (forged(b'{"alg":"none","\\u0061lg":"EdDSA","typ":"JWT","kid":"%s"}' % BIO_KEY.kid.encode()), "each name once"),
    "byte order mark": (forged(b"\xef\xbb\xbf" + orjson.dumps(HEADER)), "header is not JSON"),
    "alg none": (with_header(alg="none"), "`alg` is not"),
    "alg None": (f"{b64(orjson.dumps({**HEADER, 'alg': 'None'}))}.{PARTS[1]}.", "`alg` is not"),
    "alg HS256": (f"{HMAC}.{PARTS[1]}.{PARTS[2]}", "`alg` is not"),
    "alg ES256": (with_header(alg="ES256"), "`alg` is not"),
    "alg eddsa": (with_header(alg="eddsa"), "`alg` is not"),
    "alg list": (with_header(alg=["EdDSA"]), "`alg` is not"),
    "alg missing": (with_header(alg=None), "`alg` is not"),
    "typ missing": (with_header(typ=None), "`typ` is not"),
    "typ of an access token": (with_header(typ="at+jwt"), "`typ` is not"),
    "crit": (with_header(crit=["exp"]), "`crit`"),
    "b64": (with_header(b64=False), "`b64`"),
    "jku": (with_header(jku="https://evil.example/jwks"), "`jku`"),
    "jwk": (with_header(jwk={"kty": "OKP"}), "`jwk`"),
    "x5u": (with_header(x5u="https://evil.example"), "`x5u`"),
    "x5c": (with_header(x5c=["MII"]), "`x5c`"),
    "zip": (with_header(zip="DEF"), "`zip`"),
    "unknown header": (with_header(foo=1), "more than `alg`"),
    "kid missing": (with_header(kid=None), "`kid` is missing"),
    "kid a number": (with_header(kid=1), "`kid` is missing"),
    "kid unknown": (with_header(kid=f"{BIO}#k9"), "`kid` is not a key that its issuer"),
    "kid without fragment": (with_header(kid=BIO), "`kid` is not a key that its issuer"),
    "kid relative": (with_header(kid="#k1"), "not a participant"),
    "kid of a stranger": (with_header(kid="did:web:evil.example#k1"), "not a participant"),
    "kid with a path": (with_header(kid=f"{BIO}/../x#k1"), "not a participant"),
    "kid of another member": (with_header(kid=HOSPITAL_KEY.kid), "not by the key"),
    "payload no JSON": (forged(claims=b"x"), "payload is not JSON"),
    "payload no object": (forged(claims=b'["a"]'), "not a JSON object"),
    "payload twice aud": (forged(claims=orjson.dumps(CLAIMS)[:-1] + b',"aud":"%s"}' % HOSPITAL.encode()), "each name once"),
    "payload NaN": (forged(claims=orjson.dumps(CLAIMS)[:-1] + b',"x":NaN}'), "payload is not JSON"),
    "lone surrogate": (forged(claims=orjson.dumps(CLAIMS)[:-1] + b',"x":"\\ud800"}'), "payload is not JSON"),
    "deep payload": (forged(claims=b'{"x":' + b"[" * 1000 + b"]" * 1000 + b"}"), "payload is not JSON"),
    "iss missing": (with_claims(iss=None), "`iss`"),
    "iss another": (with_claims(iss=HOSPITAL), "`iss`"),
    "iss a list": (with_claims(iss=[BIO]), "`iss`"),
    "sub missing": (with_claims(sub=None), "`sub`"),
    "sub another": (with_claims(sub=HOSPITAL), "`sub`"),
    "aud missing": (with_claims(aud=None), "`aud`"),
    "aud another": (with_claims(aud=BIO), "`aud`"),
    "aud of two": (with_claims(aud=[HOSPITAL, BIO]), "`aud`"),
    "aud twice the same": (with_claims(aud=[HOSPITAL, HOSPITAL]), "`aud`"),
    "aud empty": (with_claims(aud=[]), "`aud`"),
    "aud in other case": (with_claims(aud=HOSPITAL.upper()), "`aud`"),
    "exp missing": (with_claims(exp=None), "`exp` is not a number"),
    "exp a string": (with_claims(exp=str(NOW + 60)), "`exp` is not a number"),
    "exp true": (with_claims(exp=True), "`exp` is not a number"),
    "exp huge": (forged(claims=orjson.dumps(CLAIMS).replace(b'"exp":1800000060.25', b'"exp":1e300')), "`exp` is not a number"),
    "exp infinite": (forged(claims=orjson.dumps(CLAIMS).replace(b'"exp":1800000060.25', b'"exp":1e999')), "payload is not JSON|`exp`"),
    "exp negative": (with_claims(exp=-1), "`exp` is not a number"),
    "iat missing": (with_claims(iat=None), "`iat` is not a number"),
    "iat false": (with_claims(iat=False), "`iat` is not a number"),
    "exp before iat": (with_claims(exp=NOW - 1), "not after its `iat`"),
    "lives too long": (with_claims(exp=NOW + 301), "lives longer than 300"),
    "expired": (with_claims(iat=NOW - 200, exp=NOW - 31), "has expired 31 s ago by the clock of who was asked; compare the clocks"),
    "from the future": (
        with_claims(iat=NOW + 31, exp=NOW + 60),
        "lies 31 s in the future by the clock of who was asked; compare the clocks",
    ),
    "nbf in the future": (with_claims(nbf=NOW + 31), "`nbf` lies in the future"),
    "nbf a string": (with_claims(nbf="now"), "`nbf` is not a number"),
    "jti missing": (with_claims(jti=None), "`jti`"),
    "jti empty": (with_claims(jti=""), "`jti`"),
    "jti a number": (with_claims(jti=1), "`jti`"),
    "jti too long": (with_claims(jti="j" * 257), "`jti`"),
    "a presentation": (with_claims(vp={}), "`vp`"),
    "a credential": (with_claims(vc={}), "`vc`"),
    "issued before the start": (with_claims(iat=NOW - 1), "issued 1 s before this connector started; .* compare the clocks"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused_with_its_reason_and_not_repeated(name: str):
    token, reason = BAD[name]
    hospital, _, _ = pair(SetClock())
    with pytest.raises(Unauthenticated, match=reason) as caught:
        await hospital.verify(f"Bearer {token}")
    assert not [part for part in token.split(".") if len(part) > 8 and part in str(caught.value)]
    await hospital.verify(f"Bearer {GOOD}")  # a refused token uses nothing up


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "token",
    [with_claims(aud=[HOSPITAL]), with_claims(nbf=NOW), with_claims(other={"a": 1}), with_claims(iat=int(NOW) + 1, exp=int(NOW) + 61)],
)
async def test_what_other_honest_senders_write_is_taken(token: str):
    await pair(SetClock())[0].verify(f"Bearer {token}")


@pytest.mark.asyncio
async def test_the_scheme_is_case_insensitive():
    await pair(SetClock())[0].verify(f"bEARER {GOOD}")


@given(at=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 6))
def test_no_bit_of_a_token_can_be_turned(at: int, bit: int):
    text = GOOD[:at] + chr(ord(GOOD[at]) ^ (1 << bit)) + GOOD[at + 1 :]
    with pytest.raises(Unauthenticated):
        asyncio.run(pair(SetClock())[0].verify(f"Bearer {text}"))


@pytest.mark.asyncio
async def test_old_and_new_key_overlap_until_the_old_one_ends():
    clock = SetClock()
    hospital, bio, members = pair(clock)
    new = signing_key(f"{BIO}#k2", bytes([9]) * 32)
    rotated = identity(BIO, new, Members(HOSPITAL_KEY.key), clock)
    with pytest.raises(Unauthenticated, match="`kid` is not a key"):
        await hospital.verify(await rotated.mint(HOSPITAL))
    members.known[new.kid] = new.key
    members.known[BIO_KEY.kid] = replace(BIO_KEY.key, not_after=clock.at + 100)
    await hospital.verify(await rotated.mint(HOSPITAL))
    await hospital.verify(await bio.mint(HOSPITAL))
    clock.at += 101
    await hospital.verify(await rotated.mint(HOSPITAL))
    with pytest.raises(Unauthenticated, match="not valid at this time"):
        await hospital.verify(await bio.mint(HOSPITAL))


@pytest.mark.asyncio
async def test_a_key_that_is_not_yet_valid_proves_nothing():
    hospital, bio, members = pair(SetClock())
    members.known[BIO_KEY.kid] = replace(BIO_KEY.key, not_before=NOW + 1)
    with pytest.raises(Unauthenticated, match="not valid at this time"):
        await hospital.verify(await bio.mint(HOSPITAL))


@pytest.mark.asyncio
async def test_claims_come_from_the_registry_and_end_with_the_key():
    clock = SetClock()
    hospital, bio, members = pair(clock)
    caller = await hospital.verify(await bio.mint(HOSPITAL))
    assert (caller.participant, caller.claims) == (someone(BIO), {"id": BIO, "name": "bio"})
    assert caller.expires == clock.at + tokens.CLAIMS_SECONDS
    members.known[BIO_KEY.kid] = replace(BIO_KEY.key, not_after=clock.at + 500)
    assert (await hospital.verify(await bio.mint(HOSPITAL))).expires == clock.at + 500


def test_who_stands_in_the_registry_has_a_standing_as_long_as_one_of_its_keys_is_valid():
    clock = SetClock()
    hospital, _, members = pair(clock)

    def until() -> float | None:
        caller = hospital.standing(BIO, {"id": "whatever was said then"}, 0.0)
        return None if caller is None else caller.expires - NOW

    assert until() == tokens.CLAIMS_SECONDS, "the registry says it again each time"
    found = hospital.standing(BIO, {}, 0.0)
    assert found is not None
    assert (found.participant, found.claims) == (someone(BIO), someone(BIO).claims)
    members.known[BIO_KEY.kid] = replace(BIO_KEY.key, not_after=NOW + 100)
    last = until()
    assert last is not None
    assert last == pytest.approx(100)
    clock.at = NOW + 100
    assert until() == last, "the last instant counts"
    assert last > 100, "and it is before the claims lapse: who looks again then finds another answer"
    new = signing_key(f"{BIO}#k2", bytes([9]) * 32, not_before=NOW + 50, not_after=NOW + 500)
    members.known[new.kid] = new.key
    assert until() == pytest.approx(500), "a key that takes over"
    clock.at = NOW + 501
    assert until() is None
    members.known[BIO_KEY.kid] = BIO_KEY.key
    assert until() == 501 + tokens.CLAIMS_SECONDS
    members.known = {}
    assert until() is None, "revoked"
    del members.members[BIO]
    members.known[BIO_KEY.kid] = BIO_KEY.key
    assert until() is None, "gone"


def test_whoever_listens_to_the_identity_hears_what_the_registry_says():
    hospital, _, members = pair(SetClock())
    heard: list[str] = []
    hospital.listen(heard.append)
    for listener in members.listeners:
        listener(BIO)
    assert heard == [BIO]


@pytest.mark.asyncio
async def test_a_participant_that_left_the_registry_is_refused_at_once():
    hospital, bio, members = pair(SetClock())
    await hospital.verify(await bio.mint(HOSPITAL))
    del members.members[BIO], members.known[BIO_KEY.kid]
    with pytest.raises(Unauthenticated, match="not a participant of our registry"):
        await hospital.verify(await bio.mint(HOSPITAL))


@pytest.mark.asyncio
async def test_a_used_token_is_refused_as_long_as_it_lives():
    clock = SetClock()
    hospital, bio, _ = pair(clock)
    header = await bio.mint(HOSPITAL)
    await hospital.verify(header)
    for step in (0.0, 29.0, 29.0, 29.0, 2.999):
        clock.at += step
        with pytest.raises(Unauthenticated, match="used before"):
            await hospital.verify(header)
    clock.at += 0.01
    with pytest.raises(Unauthenticated, match="expired"):
        await hospital.verify(header)


@pytest.mark.asyncio
async def test_the_same_id_of_two_issuers_is_two_ids():
    hospital, _, _ = pair(SetClock())
    await hospital.verify(f"Bearer {GOOD}")
    own = {**CLAIMS, "iss": HOSPITAL, "sub": HOSPITAL}
    await hospital.verify(f"Bearer {forged({**HEADER, 'kid': HOSPITAL_KEY.kid}, own, bytes(32))}")


@pytest.mark.asyncio
async def test_the_same_id_in_another_token_is_refused():
    hospital, _, _ = pair(SetClock())
    await hospital.verify(f"Bearer {GOOD}")
    with pytest.raises(Unauthenticated, match="used before"):
        await hospital.verify(f"Bearer {with_claims(exp=NOW + 250)}")


@pytest.mark.asyncio
async def test_after_a_restart_no_token_of_before_is_taken_and_fresh_ones_are():
    clock = SetClock()
    hospital, bio, members = pair(clock)
    used, unused = await bio.mint(HOSPITAL), await bio.mint(HOSPITAL)
    await hospital.verify(used)
    clock.at += 0.000_5
    restarted = identity(HOSPITAL, HOSPITAL_KEY, members, clock)
    for header in (used, unused):
        with pytest.raises(Unauthenticated, match="before this connector started; send a fresh one"):
            await restarted.verify(header)
    await restarted.verify(await bio.mint(HOSPITAL))


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_token_that_was_used_while_both_clocks_were_ahead_is_used_also_after_a_restart_and_both_set_back(tmp_path: Path, when: str):
    clock, members, file = SetClock(), Members(BIO_KEY.key, HOSPITAL_KEY.key), UsedFile(tmp_path / "used")
    clock.at += 3600
    hospital, bio = identity(HOSPITAL, HOSPITAL_KEY, members, clock, file), identity(BIO, BIO_KEY, Members(HOSPITAL_KEY.key), clock)
    used, unused = await bio.mint(HOSPITAL), await bio.mint(HOSPITAL)
    await hospital.verify(used)
    if when == "before":
        clock.at -= 3600
    else:
        clock.at += 1
    file.close()
    file = UsedFile(tmp_path / "used")
    restarted = identity(HOSPITAL, HOSPITAL_KEY, members, clock, file)
    if when == "after":
        clock.at -= 3601
    await restarted.verify(await bio.mint(HOSPITAL))
    clock.at += 3600
    with pytest.raises(Unauthenticated, match="used before"):
        await restarted.verify(used)
    await restarted.verify(unused)
    file.close()


@pytest.mark.asyncio
async def test_a_token_of_a_sender_whose_clock_is_ahead_is_used_also_after_a_restart(tmp_path: Path):
    clock, ahead, members, file = SetClock(), SetClock(), Members(BIO_KEY.key, HOSPITAL_KEY.key), UsedFile(tmp_path / "used")
    ahead.at += 20
    bio = identity(BIO, BIO_KEY, Members(HOSPITAL_KEY.key), ahead)
    used = await bio.mint(HOSPITAL)
    await identity(HOSPITAL, HOSPITAL_KEY, members, clock, file).verify(used)
    clock.at += 5
    with pytest.raises(Unauthenticated, match="used before"):
        await identity(HOSPITAL, HOSPITAL_KEY, members, clock, file).verify(used)
    file.close()


@pytest.mark.asyncio
async def test_while_what_was_used_cannot_be_read_nobody_is_heard_whose_token_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock, members, file = SetClock(), Members(BIO_KEY.key, HOSPITAL_KEY.key), UsedFile(tmp_path / "used")
    bio = identity(BIO, BIO_KEY, Members(HOSPITAL_KEY.key), clock)
    used = await bio.mint(HOSPITAL)
    await identity(HOSPITAL, HOSPITAL_KEY, members, clock, file).verify(used)
    clock.at += 3600
    restarted = identity(HOSPITAL, HOSPITAL_KEY, members, clock, file)
    clock.at -= 3600
    with monkeypatch.context() as patched:
        patched.setattr(UsedFile, "read", unreadable)
        for _ in range(2):
            with pytest.raises(StoreError):
                await restarted.verify(used)
    with pytest.raises(Unauthenticated, match="used before"):
        await restarted.verify(used)
    file.close()


def unreadable(*_: object) -> None:
    raise StoreError("no descriptor is left")


@pytest.mark.asyncio
async def test_a_clock_that_is_set_back_to_before_the_start_shuts_nobody_out_and_forgets_nothing():
    clock = SetClock()
    hospital, bio, _ = pair(clock)
    used = await bio.mint(HOSPITAL)
    await hospital.verify(used)
    clock.at -= 3600
    await hospital.verify(await bio.mint(HOSPITAL))
    clock.at += 3600
    with pytest.raises(Unauthenticated, match="used before"):
        await hospital.verify(used)


@pytest.mark.asyncio
async def test_a_clock_that_jumps_ahead_and_comes_back_makes_no_token_good_twice():
    clock = SetClock()
    hospital, bio, _ = pair(clock)
    used = await bio.mint(HOSPITAL)
    await hospital.verify(used)
    clock.at += 3600
    await hospital.verify(await bio.mint(HOSPITAL))
    clock.at -= 3600
    with pytest.raises(Unauthenticated, match="used before"):
        await hospital.verify(used)


@pytest.mark.asyncio
async def test_a_member_that_uses_up_its_part_is_told_so_and_the_others_are_heard():
    clock = SetClock()
    hospital, bio, _ = pair(clock)
    hospital._used = UsedIds(lambda: 0.0, capacity=4)
    own = {**CLAIMS, "iss": HOSPITAL, "sub": HOSPITAL}
    for _ in range(2):
        await hospital.verify(await bio.mint(HOSPITAL))
    with pytest.raises(TooMany):
        await hospital.verify(await bio.mint(HOSPITAL))
    await hospital.verify(f"Bearer {forged({**HEADER, 'kid': HOSPITAL_KEY.kid}, own, bytes(32))}")


@pytest.mark.asyncio
async def test_minted_tokens_are_never_alike():
    _, bio, _ = pair(SetClock())
    assert len({await bio.mint(HOSPITAL) for _ in range(200)}) == 200


def test_a_token_signed_without_the_adapter_is_the_same_thing():
    assert sign({"a": 1}, BIO_KEY, "JWT") == forged(claims={"a": 1})


def test_we_find_ourselves_by_id_and_name():
    hospital, _, _ = pair(SetClock())
    assert hospital.find(HOSPITAL) == hospital.find("hospital") == hospital.own
