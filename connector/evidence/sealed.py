"""The seal at the end of an evidence file: says whether the file is whole and, of a file in which one byte was altered, which one.

A digest says that something is wrong and not where. Two sums say where: of the bytes b(i) of the body, S = sum b(i) and M = sum (i+1)*b(i).
If one byte was altered by d at offset k, then S differs by d and M by (k+1)*d; so k follows, and what stood there. That it is so, and
nothing else, is proven by the digest of the body with that byte put back. Whatever is not one byte is said to be more than that.

The seal has a fixed length, so that damage cannot hide where it begins, and stands in one spelling: of a seal that was altered the
body tells which byte.
"""

from __future__ import annotations

import hashlib
import json
from itertools import count
from math import isqrt
from operator import mul
from typing import Final

from connector.values import Value

_SEAL: Final = '{{"seal":{{"bytes":"{size:016d}","sha256":"{digest}","sum":"{total:020d}","moment":"{moment:036d}"}}}}\n'
SEAL_BYTES: Final = len(_SEAL.format(size=0, digest="0" * 64, total=0, moment=0))


class Altered(Value):
    """What happened to a file. `offset` is the byte at fault (from 0) and `was` what stood there, both None if it is not exactly one;
    `says` is the sentence for a person."""

    says: str
    offset: int | None = None
    was: int | None = None


class Sealing:
    """The seal of a body that is written piece by piece, and of which nothing is kept."""

    def __init__(self) -> None:
        self._size, self._sum, self._moment, self._hashed = 0, 0, 0, hashlib.sha256()

    def add(self, piece: bytes) -> bytes:
        """Take the next piece; returns it."""
        total, moment = _sums(piece)
        self._sum += total
        self._moment += self._size * total + moment
        self._size += len(piece)
        self._hashed.update(piece)
        return piece

    @property
    def sha256(self) -> bytes:
        """Of all pieces so far."""
        return self._hashed.digest()

    @property
    def seal(self) -> bytes:
        """The seal over all pieces so far."""
        return _SEAL.format(size=self._size, digest=self._hashed.hexdigest(), total=self._sum, moment=self._moment).encode()


def sealed(body: bytes) -> bytes:
    """`body` with its seal."""
    return body + _seal(body)


def unsealed(data: bytes) -> bytes | Altered:
    """The body of a sealed file that is whole, else what was altered. No error: damage is what it is there to tell."""
    body, seal = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    expected = _seal(body)
    if seal == expected:
        return body
    if len(data) <= SEAL_BYTES:
        return Altered(f"the file has {len(data)} bytes: it was cut, or it is no evidence file")
    differing = [at for at in range(SEAL_BYTES) if seal[at] != expected[at]]
    if len(differing) == 1:  # two seals over different bodies differ in their digests by far more
        return _one(len(body) + differing[0], seal[differing[0]], expected[differing[0]])
    fields = _fields(seal)
    if fields is None:
        return Altered("the seal at the end is not one: the file was cut, or more than one byte of it was altered")
    size, digest, total, moment = fields
    if size != len(body):
        return Altered(f"the file has {len(data)} bytes where {size + SEAL_BYTES} were sealed: some were taken out or put in")
    by, weighed = (found - said for found, said in zip(_sums(body), (total, moment), strict=True))
    at, rest = divmod(weighed, by) if by else (0, 1)
    if rest == 0 and 1 <= at <= len(body) and 0 <= body[at - 1] - by <= 0xFF:  # noqa: PLR2004 - a byte
        was = body[at - 1] - by
        hashed = hashlib.sha256(body[: at - 1])
        hashed.update(bytes((was,)))
        hashed.update(body[at:])
        if hashed.hexdigest() == digest:
            return _one(at - 1, body[at - 1], was)
    return Altered("more than one byte was altered")


def _seal(body: bytes) -> bytes:
    sealing = Sealing()
    sealing.add(body)
    return sealing.seal


def _sums(body: bytes) -> tuple[int, int]:
    """The sum of b(i), and that of (i+1)*b(i). By rows and columns of a square: a sum of bytes is a fifth of the work of a product for
    each."""
    width = isqrt(len(body)) + 1
    rows = [sum(body[at : at + width]) for at in range(0, len(body), width)]
    columns: int = sum(map(mul, count(1), (sum(body[at::width]) for at in range(width))))
    return sum(rows), width * sum(map(mul, count(0), rows)) + columns


def _fields(seal: bytes) -> tuple[int, str, int, int] | None:
    try:
        match json.loads(seal):
            case {"seal": {"bytes": str() as size, "sha256": str() as digest, "sum": str() as total, "moment": str() as moment}}:
                return int(size), digest, int(total), int(moment)
    except ValueError:
        pass
    return None


def _one(offset: int, found: int, was: int) -> Altered:
    return Altered(f"byte {offset} was altered: it is 0x{found:02x}, and was 0x{was:02x} when the file was sealed", offset, was)
