"""Whose keys count: those of the file, or those that the verifier has from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

from connector.evidence.case import Case, Narrowed, Trust
from connector.evidence.members import Member
from connector.merkle.notes import read_vkey
from connector.metering.content import read_bytes
from connector.signatures.jws import KEY_BYTES, PublicKey, from_jwk
from connector.values import replace


def pinned(keys: Mapping[str, Sequence[PublicKey]], vkeys: Sequence[str] = ()) -> Trust:
    """What a verifier trusts: keys of participants by id, and verifier keys of logs and witnesses as text (C2SP signed-note).

    Raises ProofRefused for a text that is no such key.
    """
    return Trust(keys, tuple(map(read_vkey, vkeys)))


def check(case: Case, trust: Trust) -> None:
    """Read the identities, compare them with what is trusted, and let their keys count."""
    for member in case.of("identity"):
        id = str(member.value["id"])
        if id in case.keys:
            case.fault("identity-twice", member, "/id")
            continue
        case.keys[id] = tuple(_keys(case, member))
        if trust.keys:
            _trusted(case, member, trust)
    case.notes = trust.notes
    for who in dict.fromkeys((case.provider, case.consumer)):
        if who not in case.keys:
            case.fault("identity-missing", None, who=who)
        if trust.keys and who not in trust.keys:
            case.fault("trust-unknown", None, who=who)
    for who, keys in trust.keys.items():
        said = {key.kid: key for key in case.keys.get(who, ())}
        case.keys[who] = tuple(_narrower(case, key, said.get(key.kid)) for key in keys)


def _keys(case: Case, member: Member) -> list[PublicKey]:
    id, found = member.value["id"], dict[str, PublicKey]()
    for number, said in enumerate(member.value["keys"]):
        at, kid = f"/keys/{number}", said["kid"]
        if kid.partition("#")[0] != id or kid in found:
            case.fault("identity-kid", member, f"{at}/kid")
            continue
        if said["notBefore"] is not None and said["notAfter"] is not None and said["notAfter"] < said["notBefore"]:
            case.fault("identity-validity", member, f"{at}/notAfter")
            continue
        public = _public(said["x"])
        if public is None:
            case.fault("identity-key", member, f"{at}/x")
            continue
        found[kid] = PublicKey(kid, public, said["notBefore"], said["notAfter"])
    return list(found.values())


def _public(x: Any) -> bytes | None:
    try:
        return from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x}) if read_bytes(x, KEY_BYTES) is not None else None
    except ValueError:
        return None


def _trusted(case: Case, member: Member, trust: Trust) -> None:
    """Whether the keys that the file gives a participant are among those that it is trusted with. It may have more of them, or fewer, and
    one may have ended since: the exporter knew it at another time."""
    id = str(member.value["id"])
    known = {key.kid: key for key in trust.keys.get(id, ())}
    if id not in trust.keys:
        if id not in (case.provider, case.consumer):  # of a party that is said once
            case.fault("trust-unknown", member, "/id", who=id)
        return
    for number, key in enumerate(case.keys[id]):
        pinned = known.get(key.kid)
        if pinned is None or pinned.public != key.public:
            case.fault("trust-key", member, f"/keys/{number}", who=id)
        elif _second(pinned.not_before) != _second(key.not_before):
            case.fault("trust-validity", member, f"/keys/{number}", who=id)


def _second(at: float | None) -> int | None:
    """The second in which a key begins: `iat` is in whole ones, so that a key counts from the beginning of its first."""
    return None if at is None else floor(at)


def _narrower(case: Case, key: PublicKey, said: PublicKey | None) -> PublicKey:
    """A trusted key with the earlier of both ends: an end is made earlier and never later, so that one is the newer word."""
    if said is not None and said.not_after != key.not_after:
        case.narrowed.append(Narrowed(key.kid, said.not_after, key.not_after))
    ends = [each.not_after for each in (key, said) if each is not None and each.not_after is not None]
    return replace(key, not_after=min(ends)) if ends else key
