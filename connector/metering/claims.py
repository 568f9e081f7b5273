"""Claims of signed objects read strictly: a table says how each claim of a kind is read, and nothing else may be there. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from connector.metering.codes import refused
from connector.metering.content import HASH_BYTES, SIZE_MAX, is_count, read_bytes
from connector.metering.ranges import Ranges

T = TypeVar("T")
# Reads one claim. Raises ValueError if it is not what `codes.CLAIMS` says, MeterRefused if there is more to say.
Reads = Callable[[object], Any]
Table = Mapping[str, Reads]

RANGES_MAX: Final = 256  # pairs: 5 KiB at most; whoever has more holes than that tells of the largest pieces first
ID_CHARACTERS_MAX: Final = 512  # of a DID, a pid, a dataset
URL_CHARACTERS_MAX: Final = 2048
NOTE_CHARACTERS_MAX: Final = 4096  # a checkpoint has about 200, each cosignature 150 more
DID: Final = re.compile(r"did:[a-z0-9]+:[\x21-\x22\x24-\x7e]+")
ID: Final = re.compile(r"[\x21-\x7e]{1,512}")
DATASET: Final = re.compile(r"[^\s\x00-\x20\x7f-\xa0<>\"{}|\\^`]{1,512}")  # what RFC 3987 leaves to an IRI, of whatever script
JTI: Final = re.compile(r"[\x21-\x7e]{1,128}")
URL: Final = re.compile(r"https?://[^\s/?#@]+(?:[/?][\x21-\x22\x24-\x7e]*)?", re.ASCII)
WHY: Final = re.compile(r"[a-z0-9-]{1,64}")
ORIGIN: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")  # a key name of a signed note (C2SP signed-note)
PAIR: Final = 2


def read(claims: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """Return the claims of an object as values, read by their rows of `table`. Raises MeterRefused: `claims-missing`, `claims-unknown`,
    `claim-<name>`, or the code of a row that says more."""
    if table.keys() - claims.keys():
        raise refused("claims-missing")
    if claims.keys() - table.keys():
        raise refused("claims-unknown")
    values = {}
    for name, reads in table.items():
        try:
            values[name] = reads(claims[name])
        except ValueError:
            raise refused(f"claim-{name}") from None
    return values


def part(table: Table, build: Callable[..., T]) -> Callable[[object], T]:
    """Reads an object within a claim: its members by `table`, handed by name to `build`. Any fault of it is the claim's."""

    def reads(value: object) -> T:
        if not isinstance(value, Mapping) or value.keys() != table.keys():
            raise ValueError
        return build(**{name: reads(value[name]) for name, reads in table.items()})

    return reads


def optional(reads: Callable[[object], T]) -> Callable[[object], T | None]:
    """Reads null as None."""
    return lambda value: None if value is None else reads(value)


def one_of(*words: str) -> Callable[[object], str]:
    """Reads one of these words."""

    def reads(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return reads


def text(pattern: re.Pattern[str], characters_max: int = ID_CHARACTERS_MAX) -> Callable[[object], str]:
    """Reads a text that matches as a whole."""

    def reads(value: object) -> str:
        if not isinstance(value, str) or len(value) > characters_max or not pattern.fullmatch(value):
            raise ValueError
        return value

    return reads


did: Final = text(DID)
id_: Final = text(ID)
dataset: Final = text(DATASET)
jti: Final = text(JTI)
url: Final = text(URL, URL_CHARACTERS_MAX)
note: Final = text(re.compile(r"[^\x00-\x09\x0b-\x1f]+\n"), NOTE_CHARACTERS_MAX)


def number(value: object) -> int:
    """A whole number from 0 that JSON carries without loss."""
    if not isinstance(value, int) or not is_count(value):
        raise ValueError
    return value


def between(least: int, most: int = SIZE_MAX) -> Callable[[object], int]:
    """Reads a whole number within bounds, both inclusive."""

    def reads(value: object) -> int:
        if not least <= number(value) <= most:
            raise ValueError
        return number(value)

    return reads


def flag(value: object) -> bool:
    """True or false, not 1 or 0."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def digest(value: object) -> bytes:
    """The 32 bytes of a SHA-256 in base64url."""
    data = read_bytes(value, HASH_BYTES)
    if data is None:
        raise ValueError
    return data


def ranges(value: object) -> Ranges:
    """Ranges of leaves in their only spelling. Raises ValueError, or MeterRefused with the rule of `ranges` that is broken."""
    if not isinstance(value, list) or len(value) > RANGES_MAX:
        raise ValueError
    read_: list[tuple[int, int]] = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != PAIR:
            raise ValueError
        read_.append((number(pair[0]), number(pair[1])))
    for at, (first, last) in enumerate(read_):
        if first >= last:
            raise refused("ranges-empty")
        if first == 0:
            raise refused("ranges-header")
        before = read_[at - 1] if at else (0, 0)
        if first < before[0]:
            raise refused("ranges-unsorted")
        if first < before[1]:
            raise refused("ranges-overlap")
        if first == before[1]:
            raise refused("ranges-adjacent")
    return tuple(read_)
