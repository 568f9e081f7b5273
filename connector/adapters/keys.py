"""Our own signing keys: a directory with one file for each Ed25519 key.

A file is `<fragment>.key`, a JSON object of mode 0600; the key's `kid` is `<our DID>#<fragment>`. The newest key that is valid
now signs. Every key stands in our self-description with the times at which it counts: others take tokens of the old key while they
learn the new one, and what a key has signed before its end can be verified for ever, so its file is never removed: once it has ended
its public half `x` takes the place of the `seed`, since nobody who gets hold of the file later shall date a signature back. To rotate:
make a key whose `notBefore` lies after the time by which peers will have read our new self-description, then give the old one a
`notAfter`, then reload.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from math import floor
from pathlib import Path
from typing import Any

import orjson

from connector.errors import SettingsError
from connector.signatures.jws import KEY_BYTES, PublicKey, SigningKey, from_jwk, signing_key, to_jwk

SUFFIX = ".key"
MODE = 0o600
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
FRAGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # a file name, and a DID URL's fragment without escapes
FILE_BYTES_MAX = 4096  # ours have about 150
MEMBERS = frozenset({"seed", "x", "created", "notBefore", "notAfter"})
Half = SigningKey | PublicKey  # a key of ours, or what is left of one that has ended


class Keys:
    """The keys of participant `did` in `directory`. Raises SettingsError if one of them cannot be used; nothing it says or
    shows contains a secret."""

    def __init__(self, directory: Path, did: str) -> None:
        self._directory = directory
        self._did = did
        self._newest_first = _load(directory, did)

    def active(self, now: float) -> SigningKey:
        """The key that signs at `now` (POSIX seconds). Raises SettingsError if none is valid."""
        for key in self._newest_first:
            if isinstance(key, SigningKey) and key.key.valid(now):
                return key
        raise SettingsError(f"no key in `{self._directory}` is valid now; make a new one, or move its `notBefore` and `notAfter`")

    def public(self) -> tuple[PublicKey, ...]:
        """The keys for our self-description, newest first: those in use, those to come, and those that have ended."""
        return tuple(map(_public, self._newest_first))

    def secret(self) -> frozenset[str]:
        """The `kid` of each key whose secret is still in its file."""
        return frozenset(key.kid for key in self._newest_first if isinstance(key, SigningKey))

    def reload(self) -> list[str]:
        """Read the directory again and return what changed. Raises SettingsError and keeps the former keys if one file is wrong."""
        before = {key.kid: _public(key) for key in self._newest_first}
        loaded = _load(self._directory, self._did)
        after = {key.kid: _public(key) for key in loaded}
        self._newest_first = loaded
        return [
            *(f"added key `{kid}`" for kid in after.keys() - before.keys()),
            *(f"changed key `{kid}`" for kid in after.keys() & before.keys() if after[kid] != before[kid]),
            *(f"removed key `{kid}`" for kid in before.keys() - after.keys()),
        ]

    def __repr__(self) -> str:
        return f"Keys({[key.kid for key in self._newest_first]})"


def generate(directory: Path, now: float, not_before: float | None = None) -> str:
    """Make a key in `directory` and return its fragment. `not_before` (POSIX seconds) is when it starts to sign. The
    directory is made with mode 0700 if it is not there. Raises SettingsError if it cannot be written."""
    fragment = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"
    document = {"seed": urlsafe_b64encode(os.urandom(KEY_BYTES)).rstrip(b"=").decode("ascii"), "created": _text(now)}
    if not_before is not None:
        document["notBefore"] = _text(not_before)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / f"{fragment}{SUFFIX}", _bytes(document))
    except OSError as error:
        raise SettingsError(f"no key can be written to `{directory}`: {error.strerror}; the folder must be ours to write") from None
    return fragment


def retire(directory: Path, fragment: str, not_after: float) -> None:
    """End a key at `not_after` (POSIX seconds): it does not sign from then on. Raises SettingsError if there is no such key, or if it
    cannot be written."""
    path = directory / f"{fragment}{SUFFIX}"
    if not FRAGMENT.fullmatch(fragment) or not path.is_file():
        raise SettingsError(f"there is no key `{fragment}` in `{directory}`; name one of its files without `{SUFFIX}`")
    replace_file(path, _bytes({**_read(path), "notAfter": _text(not_after)}))


def forget(directory: Path, did: str, now: float) -> list[str]:
    """Keep only the public half of the keys that have ended by `now` (POSIX seconds), and return their fragments. Nothing is forgotten
    while no other key signs: then it is rather the clock that is wrong. Raises SettingsError."""
    held, forgotten = Keys(directory, did), []
    for key in held.public():
        if key.kid in held.secret() and key.not_after is not None and key.not_after <= now and _another(held, key.kid, now):
            path = directory / f"{key.kid.partition('#')[2]}{SUFFIX}"
            times = {name: value for name, value in _read(path).items() if name != "seed"}
            replace_file(path, _bytes({"x": to_jwk(key.public)["x"], **times}))
            forgotten.append(path.stem)
    return forgotten


def keep_lost(directory: Path, described: Iterable[PublicKey], now: float) -> list[str]:
    """Keep the public half of the keys in our self-description of which there is no file any more, and return their fragments: what they
    have signed can be verified still. They end at `now` (POSIX seconds), where they have not before. Raises SettingsError."""
    kept = []
    for key in described:
        fragment = key.kid.partition("#")[2]
        path = directory / f"{fragment}{SUFFIX}"
        begins = now if key.not_before is None else key.not_before
        if begins > now or not FRAGMENT.fullmatch(fragment) or path.exists():  # one that was yet to come has signed nothing
            continue
        ends = now if key.not_after is None else min(key.not_after, now)
        times = {"created": begins, "notAfter": ends} | ({} if key.not_before is None else {"notBefore": begins})
        replace_file(path, _bytes({"x": to_jwk(key.public)["x"], **{name: _text(at) for name, at in times.items()}}))
        kept.append(fragment)
    return kept


@contextmanager
def changing(directory: Path, *, make: bool = False) -> Iterator[None]:
    """Change keys alone: of two who each end a key because the other one stays, the second waits and looks again. What somebody who was
    killed has left half written is removed, since a seed may be in it. A directory that is not there is made if `make`. Raises
    SettingsError."""
    with ExitStack() as stack:
        try:
            if make:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(alone(directory))
            for left in directory.glob(f".*{SUFFIX}.*"):
                left.unlink()
        except OSError as error:
            raise SettingsError(f"the keys in `{directory}` cannot be changed: {error.strerror}; it must be ours to write") from None
        yield


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until nobody else changes keys or other secrets in `directory`. Raises SettingsError."""
    with ExitStack() as stack:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise SettingsError(f"`{directory}` cannot be locked: {error.strerror}; it must be ours to read") from None
        yield


def _another(held: Keys, kid: str, now: float) -> bool:
    """Whether another key than this one signs now."""
    return any(key.kid != kid and key.kid in held.secret() and key.valid(now) for key in held.public())


def _public(key: Half) -> PublicKey:
    return key.key if isinstance(key, SigningKey) else key


def _load(directory: Path, did: str) -> tuple[Half, ...]:
    loaded: list[tuple[float, Half]] = []
    problems: list[str] = []
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise SettingsError(f"the keys in `{directory}` cannot be read ({error.strerror}); it must be ours to read") from None
    for path in paths:
        try:
            loaded.append(_parse(path, _read(path), did))
        except SettingsError as error:
            problems.append(error.message)
    if not paths:
        problems.append(f"there is no key in `{directory}`; restore it from a backup, or make a new one with `connector keys new`")
    if problems:
        raise SettingsError(f"the keys in `{directory}` cannot be used", tuple(problems))
    return tuple(key for _, key in sorted(loaded, key=lambda pair: (pair[0], pair[1].kid), reverse=True))


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file whose open mode was checked on the open file itself, so that it cannot change in between."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & GROUP_AND_OTHERS:
                raise SettingsError(f"`{path}` has mode {stat.S_IMODE(mode):04o}, others can read the key; run `chmod 600 {path}`")
            document = orjson.loads(file.read(FILE_BYTES_MAX))
    except OSError as error:
        raise SettingsError(f"`{path}` cannot be read: {error.strerror}; the file must be ours to read") from None
    except orjson.JSONDecodeError:
        raise SettingsError(
            f"`{path}` is not a JSON object with `seed` (or `x`) and `created`; restore it from a backup or remove it"
        ) from None
    if not isinstance(document, dict) or not document.keys() <= MEMBERS:
        raise SettingsError(f"`{path}` is not a JSON object with {', '.join(f'`{m}`' for m in sorted(MEMBERS))} only; take out the others")
    return document


def _parse(path: Path, document: Mapping[str, Any], did: str) -> tuple[float, Half]:
    """(created, key) of one file."""
    if not FRAGMENT.fullmatch(path.stem):
        raise SettingsError(f"`{path}` has a name that cannot be a key's fragment; use letters, digits, dots, dashes and underscores")
    created, not_before, not_after = (_instant(path, document, name) for name in ("created", "notBefore", "notAfter"))
    if not_before is not None:
        not_before = float(floor(not_before))  # `iat` is in whole seconds: what is signed in the first one is no older than its key
    if created is None:
        raise SettingsError(f"`{path}` has no `created`; write when the key was made, for example 2026-01-31T12:00:00Z")
    kid = f"{did}#{path.stem}"
    if "x" in document:
        return created, PublicKey(kid, _ended(path, document, not_after), not_before, not_after)
    seed = b""
    with suppress(ValueError, TypeError, AttributeError):
        seed = urlsafe_b64decode(document["seed"].encode("ascii") + b"=") if "seed" in document else b""
    if len(seed) != KEY_BYTES:
        raise SettingsError(f"`{path}` has a `seed` that is not base64url of {KEY_BYTES} bytes; restore it from a backup or remove it")
    return created, signing_key(kid, seed, not_before, not_after)


def _ended(path: Path, document: Mapping[str, Any], not_after: float | None) -> bytes:
    """The public half that is all that is left of a key."""
    if "seed" in document or not_after is None:
        raise SettingsError(f"`{path}` has an `x`, which takes the place of `seed` once a key has ended; write its `notAfter`")
    try:
        return from_jwk({"kty": "OKP", "crv": "Ed25519", "x": document["x"]})
    except ValueError as error:
        raise SettingsError(f"`{path}` {error}; restore it from a backup") from None


def _instant(path: Path, document: Mapping[str, Any], name: str) -> float | None:
    if document.get(name) is None:
        return None
    with suppress(ValueError, TypeError):
        at = datetime.fromisoformat(document[name])
        if at.tzinfo is not None:
            return at.timestamp()
    raise SettingsError(f"`{path}` has a `{name}` that is no instant; write it as 2026-01-31T12:00:00Z")


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def replace_file(path: Path, content: bytes, mode: int = MODE) -> None:
    """Put what takes the place of a key, of another secret, or of our self-description, whole and durable, never open to others than by
    its `mode` in between. Raises SettingsError: then the file is as it was, or it says that a loss of power could undo it."""
    try:
        _write(path, content, mode)
    except OSError as error:
        raise SettingsError(f"`{path}` cannot be written: {error.strerror}; it is as it was, its folder must be ours to write") from None


def _bytes(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, content: bytes, mode: int = MODE) -> None:
    """Put the file in place whole and durable, with its mode from its first byte on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # ahead of all else: where it cannot be opened nothing has changed
    try:
        temporary.unlink(missing_ok=True)  # of somebody who was killed: in a container the next one has the same number
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        try:
            os.fsync(folder)  # a loss of power must not bring back the file that was there
        except OSError as error:
            text = f"`{path}` is written, and its folder cannot be made durable ({error.strerror}): a loss of power could undo it"
            raise SettingsError(f"{text}; look at the disk, and see what is there before you say it again") from None
    finally:
        os.close(folder)
