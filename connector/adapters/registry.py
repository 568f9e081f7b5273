"""Who takes part: a directory with one JSON-LD self-description for each participant.

The same document is what a connector serves at `/.well-known/participant.jsonld`, so a closed data space is set up by copying
files. It is valid JSON-LD with the DSP context and one inline context, which is fixed: a document with another one could
mean anything. Membership is what the directory says now: `reload` takes all of a changed directory, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from connector.dsp.messages import DSP_CONTEXT
from connector.errors import SettingsError
from connector.origins import origin
from connector.ports import Participant
from connector.signatures.jws import PublicKey, from_jwk, to_jwk
from connector.values import Value

SUFFIX = ".jsonld"
FILE_BYTES_MAX = 1_048_576  # ours begin with about 1.5 KiB, and each key that ever was adds a third of one
DID = re.compile(r"did:[a-z0-9]+:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2}|:)*[A-Za-z0-9._-]")  # W3C DID Core 1.0, 3.1
DID_CHARACTERS_MAX = 512  # a `kid` has to fit a token's header
NAME = re.compile(r"\w[\w.-]{0,63}")  # an argument of the command line; no colon, so that it is never taken for a DID
FRAGMENT = re.compile(r"[A-Za-z0-9._~-]{1,64}")
TEXT_CHARACTERS_MAX = 64

CONTEXT: list[Any] = [
    DSP_CONTEXT,
    {
        "@version": 1.1,
        "schema": "https://schema.org/",
        "sec": "https://w3id.org/security#",
        "Participant": "http://purl.org/dc/terms/Agent",
        "JsonWebKey": "sec:JsonWebKey",
        "name": "schema:name",
        "role": "schema:roleName",
        "endpoints": "https://www.w3.org/ns/did#service",
        "protocol": {"@id": "dcat:endpointURL", "@type": "@id"},
        "data": {"@id": "dcat:accessURL", "@type": "@id"},
        "callbacks": {"@id": "dspace:callbackAddress", "@type": "@id", "@container": "@set"},
        "keys": {"@id": "sec:verificationMethod", "@container": "@set"},
        "publicKeyJwk": {"@id": "sec:publicKeyJwk", "@type": "@json"},
        "notBefore": {"@id": "schema:validFrom", "@type": "xsd:dateTime"},
        "notAfter": {"@id": "schema:validThrough", "@type": "xsd:dateTime"},
    },
]


class Member(Value):
    """One self-description: the participant, the base URL of its data listener if it names one, and its keys."""

    participant: Participant
    data: str | None
    keys: tuple[PublicKey, ...]


class Registry:
    """The participants of a directory. Raises SettingsError with every mistake of every file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listeners: list[Callable[[str], None]] = []
        self._take(_load(directory))

    def find(self, name: str) -> Participant | None:
        """The participant with this id or registered name."""
        member = self._by_id.get(name) or self._by_name.get(name)
        return member.participant if member else None

    def participants(self) -> Sequence[Participant]:
        """All, ordered by id."""
        return self._participants

    def key(self, kid: str) -> PublicKey | None:
        """The key with this DID URL, whether valid now or not."""
        return self._keys.get(kid)

    def keys(self, id: str) -> Sequence[PublicKey]:
        """The keys of the participant with this id, whether valid now or not."""
        member = self._by_id.get(id)
        return member.keys if member else ()

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call `changed` with the id of each participant that a reload has added, changed or removed."""
        self._listeners.append(changed)

    def reload(self) -> list[str]:
        """Read the directory again and return what changed, a line for each participant. Raises SettingsError with every
        mistake and changes nothing if there is one."""
        before, after = self._by_id, _load(self._directory)
        self._take(after)
        for id in sorted(id for id in before.keys() | after.keys() if before.get(id) != after.get(id)):
            for listener in self._listeners:
                listener(id)
        return [
            *(f"added `{id}` (`{after[id].participant.name}`)" for id in sorted(after.keys() - before.keys())),
            *(f"changed `{id}`{_lost(before[id], after[id])}" for id in sorted(after.keys() & before.keys()) if after[id] != before[id]),
            *(f"removed `{id}`" for id in sorted(before.keys() - after.keys())),
        ]

    def _take(self, members: Mapping[str, Member]) -> None:
        self._by_id = members
        self._by_name = {member.participant.name: member for member in members.values()}
        self._participants = tuple(members[id].participant for id in sorted(members))
        self._keys = {key.kid: key for member in members.values() for key in member.keys}


def _lost(before: Member, after: Member) -> str:
    """The keys that a self-description names no more, and what that means."""
    gone = ", ".join(f"`{kid}`" for kid in sorted({key.kid for key in before.keys} - {key.kid for key in after.keys}))
    return f"; nothing that {gone} has signed can be verified any more: ask for a self-description with its `notAfter`" if gone else ""


def own_description(own: Participant, data: str | None, keys: Iterable[PublicKey]) -> dict[str, Any]:
    """The self-description of participant `own` with its data listener's base URL and the keys that others may meet."""
    endpoints: dict[str, Any] = {"protocol": own.protocol}
    if data:
        endpoints["data"] = data
    if extra := [each for each in own.origins if own.protocol is None or each != origin(own.protocol)]:
        endpoints["callbacks"] = extra
    return {
        "@context": CONTEXT,
        "@id": own.id,
        "@type": "Participant",
        "name": own.name,
        "role": own.role,
        "endpoints": endpoints,
        "keys": [_key_document(key) for key in keys],
    }


def participant(id: str, name: str, role: str, protocol: str, callbacks: Iterable[str] = ()) -> Participant:
    """The participant that a self-description with these values speaks of. Raises ValueError for a URL that has no origin."""
    origins = tuple(dict.fromkeys(origin(url) for url in (protocol, *callbacks)))
    return Participant(id, name, role, protocol, origins, {"id": id, "name": name, "role": role})


def parse(document: object) -> tuple[Member | None, list[str]]:
    """Turn a self-description into a member, or into every finding about it; a finding names the field and the remedy."""
    if not isinstance(document, Mapping):
        return None, ["the document is not a JSON object; copy it from `/.well-known/participant.jsonld` of the participant"]
    found: list[str] = []
    _members("", document, {"@context", "@id", "@type", "name", "role", "endpoints", "keys"}, found)
    if document.get("@context") != CONTEXT:
        found.append("`@context` is not the one of a self-description; copy it unchanged from a connector's own document")
    if document.get("@type") != "Participant":
        found.append('`@type` is not "Participant"; write "Participant"')
    id = document.get("@id")
    if not isinstance(id, str) or len(id) > DID_CHARACTERS_MAX or not DID.fullmatch(id):
        found.append("`@id` is not a DID; write it as did:web:hospital.example")
        id = ""
    name, role = document.get("name"), document.get("role")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        found.append("`name` is not a short name; use 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first")
    if not isinstance(role, str) or not role.strip() or not role.isprintable() or len(role) > TEXT_CHARACTERS_MAX:
        found.append(f"`role` is not a role; use 1 to {TEXT_CHARACTERS_MAX} printable characters, for example hospital")
    endpoints = _endpoints(document.get("endpoints"), found)
    keys = _keys(document.get("keys"), id, found)
    if found:
        return None, found
    someone = participant(id, str(name), str(role), endpoints["protocol"], endpoints.get("callbacks", ()))
    return Member(someone, endpoints.get("data"), keys), []


def _load(directory: Path) -> dict[str, Member]:
    members: dict[str, Member] = {}
    seen: dict[str, Path] = {}
    problems: list[str] = []
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise SettingsError(f"the registry `{directory}` cannot be read ({error.strerror}); it must be there, and ours to read") from None
    for path in paths:
        try:
            member, found = parse(_read(path))
        except ValueError as error:
            member, found = None, [str(error)]
        problems += [f"`{path.name}`: {finding}" for finding in found]
        if member is None:
            continue
        for field, value in (("@id", member.participant.id), ("name", member.participant.name)):
            if first := seen.get(value):
                problems.append(f"`{path.name}`: `{field}` is `{value}`, which `{first.name}` has already; remove one of the files")
            seen.setdefault(value, path)
        members[member.participant.id] = member
    if problems:
        raise SettingsError(f"the registry `{directory}` cannot be used", tuple(problems))
    return members


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; it must be a file, and ours to read") from None
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"is larger than {FILE_BYTES_MAX} bytes; a self-description begins with about 1,500")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}; fetch it again from `/.well-known/participant.jsonld` of the participant") from None


def _members(where: str, document: Mapping[str, Any], known: set[str], found: list[str]) -> None:
    """Members outside `known` are mistakes, except prefixed ones (`dct:description`), which JSON-LD lets anybody add."""
    for member in document:
        if member not in known and ":" not in member:
            close = get_close_matches(member, known, 1)
            found.append(f"`{where}{member[:TEXT_CHARACTERS_MAX]}` is not a member; " + (f"write `{close[0]}`" if close else "take it out"))


def _endpoints(value: object, found: list[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        found.append('`endpoints` is not an object; write {"protocol": "https://..."}')
        return {}
    _members("endpoints.", value, {"protocol", "data", "callbacks"}, found)
    result: dict[str, Any] = {"protocol": _base_url("endpoints.protocol", value.get("protocol"), found)}
    if value.get("data") is not None:
        result["data"] = _base_url("endpoints.data", value["data"], found)
    callbacks = value.get("callbacks", [])
    if not isinstance(callbacks, list):
        found.append("`endpoints.callbacks` is not an array; write the further origins at which callbacks may arrive, or leave it out")
        return result
    result["callbacks"] = [_base_url(f"endpoints.callbacks[{n}]", each, found) for n, each in enumerate(callbacks)]
    return result


def _base_url(where: str, value: object, found: list[str]) -> str:
    remedy = "write it as https://connector.hospital.example/dsp/2025-1"
    if not isinstance(value, str):
        found.append(f"`{where}` is missing; {remedy}")
        return ""
    try:
        origin(value)
    except ValueError as error:
        found.append(f"`{where}` {error}; {remedy}")
        return ""
    if (parts := urlsplit(value)).query or parts.fragment or "?" in value or "#" in value:
        found.append(f"`{where}` has a query or a fragment; {remedy}")
    return value.rstrip("/")


def _keys(value: object, id: str, found: list[str]) -> tuple[PublicKey, ...]:
    if not isinstance(value, list) or not value:
        found.append("`keys` is not an array with at least one key; copy it from the participant's own document")
        return ()
    keys: dict[str, PublicKey] = {}
    for number, entry in enumerate(value):
        where = f"keys[{number}]"
        if not isinstance(entry, Mapping):
            found.append(f'`{where}` is not an object; write {{"@id": "<DID>#<name>", "@type": "JsonWebKey", "publicKeyJwk": ...}}')
            continue
        _members(f"{where}.", entry, {"@id", "@type", "publicKeyJwk", "notBefore", "notAfter"}, found)
        kid = entry.get("@id")
        subject, _, fragment = kid.partition("#") if isinstance(kid, str) else ("", "", "")
        if not isinstance(kid, str) or subject != id or not FRAGMENT.fullmatch(fragment):
            found.append(f"`{where}.@id` is not a key of this participant; write its `@id`, a hash sign and a name of the key")
            continue
        if kid in keys:
            found.append(f"`{where}.@id` is there twice; give each key its own name")
        if entry.get("@type") != "JsonWebKey":
            found.append(f'`{where}.@type` is not "JsonWebKey"; write "JsonWebKey"')
        not_before, not_after = (_instant(f"{where}.{name}", entry.get(name), found) for name in ("notBefore", "notAfter"))
        if not_before is not None and not_after is not None and not_after < not_before:
            found.append(f"`{where}.notAfter` lies before `notBefore`; the key would never be valid")
        try:
            keys[kid] = PublicKey(kid, from_jwk(entry.get("publicKeyJwk")), not_before, not_after)
        except ValueError as error:
            found.append(f"`{where}.publicKeyJwk` {error}")
    return tuple(keys.values())


def _key_document(key: PublicKey) -> dict[str, Any]:
    document: dict[str, Any] = {"@id": key.kid, "@type": "JsonWebKey", "publicKeyJwk": to_jwk(key.public)}
    for name, at in (("notBefore", key.not_before), ("notAfter", key.not_after)):
        if at is not None:
            document[name] = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return document


def _instant(where: str, value: object, found: list[str]) -> float | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        found.append(f"`{where}` is no instant; write it as 2026-01-31T12:00:00Z")
        return None
    return at.timestamp()
