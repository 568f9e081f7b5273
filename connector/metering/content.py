"""The content log: the bytes of a flow as leaves of a Merkle tree (RFC 6962), and where each byte is among them. Pure.

Leaf 0 is the header: the parameters of the log and a salt, as JCS JSON. It binds them into the root, and nobody who sees the root of
a small payload can guess it. Chunk i of the data is leaf i+1; its hash is over the bytes as they lie in the file and go over the wire,
so nothing is framed and any HTTP client can read them.

A chunk of finite data is full but for the last. A live log seals a chunk that is not full when its time is up; then a list beside the
log says how long each leaf is. A wrong length makes the hash fail, so the list needs no signature.
"""

from __future__ import annotations

import hashlib
import re
import struct
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import rfc8785

from connector.merkle.tree import leaf_hash
from connector.metering.codes import refused
from connector.metering.ranges import Ranges
from connector.values import Value

VERSION: Final = 1
ALGORITHM: Final = "sha256"
CHUNK_BYTES: Final = 262_144  # small enough that a bad one costs little, large enough that Python's part of the work is below a tenth
CHUNKS_BYTES: Final = tuple(2**power for power in range(16, 23))  # 64 KiB to 4 MiB
SALT_BYTES: Final = 32
HASH_BYTES: Final = 32
SIZE_MAX: Final = 2**53 - 1  # bytes; every reader of JSON counts so far without loss (RFC 8785, 3.2.2.3)
HEADER_BYTES_MAX: Final = 4096  # ours have about 200
MEDIA_TYPE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
# What a record is. A line counts in the leaf in which its line feed is, so what leaves count can be added in any order; a last line
# without one is no record. A message of finite data is an event that a server sends, and ends with an empty line: it counts in the leaf in
# which its second line feed is, if the first one is there as well, be it in the leaf before.
UNITS: Final = ("none", "line", "message", "row")
SEPARATORS: Final[Mapping[str, bytes]] = {"line": b"\n", "message": b"\n\n"}
BEGINS, ENDS, FLAGS = 2, 1, 2  # beside the number of events in a leaf: whether it begins and ends with a line feed
MEMBERS: Final = frozenset({"v", "alg", "chunk", "size", "mediaType", "recordUnit", "salt"})
ETAG: Final = re.compile(r'"r\.([A-Za-z0-9_-]{43})\.([1-9][0-9]{4,6})"')
# What JCS may spell or order otherwise than sorted JSON: a number with a fraction, an exponent or 16 digits, behind what may stand before a
# number; a character beyond the BMP.
NUMBERS: Final = tuple(re.compile(rb"%s-?\d(?:\d*[.eE]|\d{15})" % before) for before in (rb'":(?=[-\d])(?<!\\":)', rb"\[", rb","))
BEYOND: Final = re.compile(rb"[\xf0-\xf4]")
URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/", b"+/!!")  # of both alphabets only one counts
FEEDS_BYTES, LOOK_BYTES, SHORT_BYTES = 16_384, 1024, 40  # a part whose line feeds are counted, a first look, and lines that are short
SEALED: Final = struct.Struct(">II")  # length in bytes, records: one leaf in the list of a live log


@dataclass(frozen=True, slots=True)
class Header:
    """Leaf 0. `size_bytes` is None for live data, `salt` are 32 random bytes that are drawn once for each log."""

    chunk_bytes: int
    size_bytes: int | None
    media_type: str
    record_unit: str
    salt: bytes = field(repr=False)

    @property
    def entry(self) -> bytes:
        """The bytes of the leaf (RFC 8785)."""
        return rfc8785.dumps(
            {
                "v": VERSION,
                "alg": ALGORITHM,
                "chunk": self.chunk_bytes,
                "size": self.size_bytes,
                "mediaType": self.media_type,
                "recordUnit": self.record_unit,
                "salt": write_bytes(self.salt),
            }
        )

    @property
    def hash(self) -> bytes:
        """The hash of the leaf."""
        return leaf_hash(self.entry)


def read_header(entry: bytes) -> Header:
    """Read leaf 0. Raises MeterRefused with a `header-` code: there is one spelling of each header, and nothing else is one."""
    if len(entry) > HEADER_BYTES_MAX:
        raise refused("header-length")
    try:
        document = orjson.loads(entry)
    except ValueError:
        raise refused("header-json") from None
    if not isinstance(document, dict):
        raise refused("header-json")
    if document.keys() != MEMBERS:
        raise refused("header-members")
    checks = (
        ("header-version", type(document["v"]) is int and document["v"] == VERSION),
        ("header-alg", document["alg"] == ALGORITHM),
        ("header-chunk", is_chunk(document["chunk"])),
        ("header-size", document["size"] is None or is_count(document["size"])),
        ("header-media", isinstance(document["mediaType"], str) and MEDIA_TYPE.fullmatch(document["mediaType"]) is not None),
        ("header-unit", document["recordUnit"] in UNITS),
        ("header-salt", (salt := read_bytes(document["salt"], SALT_BYTES)) is not None),
    )
    for code, right in checks:
        if not right:
            raise refused(code)
    header = Header(document["chunk"], document["size"], document["mediaType"], document["recordUnit"], salt or b"")
    if header.entry != entry:
        raise refused("header-spelling")
    return header


class Known(Value):
    """What a set of leaves comes to: `bytes`, and `records` and `items`, each None if this side does not know."""

    bytes: int
    records: int | None = None
    items: int | None = None


class Layout(Value):
    """The leaves of `size_bytes` of finite data in chunks of `chunk_bytes`. All leaf numbers are of the log: data begin with leaf 1."""

    size_bytes: int
    chunk_bytes: int = CHUNK_BYTES

    @property
    def leaves(self) -> int:
        """How many leaves the log has, the header included."""
        return 1 + -(-self.size_bytes // self.chunk_bytes)

    @property
    def whole(self) -> Ranges:
        """All leaves of data."""
        return ((1, self.leaves),) if self.size_bytes else ()

    def span(self, first: int, last: int) -> tuple[int, int]:
        """(offset, length) in bytes of the leaves [first, last) of data. What is behind the end has no bytes."""
        begin = min((first - 1) * self.chunk_bytes, self.size_bytes)
        return begin, min((last - 1) * self.chunk_bytes, self.size_bytes) - begin

    def touched(self, offset: int, length: int) -> tuple[int, int]:
        """The leaves [first, last) that have at least one of `length` bytes from `offset`."""
        begin, end = min(offset, self.size_bytes), min(offset + length, self.size_bytes)
        first = 1 + begin // self.chunk_bytes
        return first, 1 + -(-end // self.chunk_bytes) if begin < end else first

    def held(self, offset: int, length: int) -> tuple[int, int]:
        """The leaves [first, last) that lie wholly within `length` bytes from `offset`."""
        end = min(offset + length, self.size_bytes)
        first = 1 + -(-min(offset, self.size_bytes) // self.chunk_bytes)
        last = self.leaves if end == self.size_bytes else 1 + end // self.chunk_bytes
        return first, max(first, last)

    def measure(self, ranges: Ranges) -> Known:
        """What these leaves come to. Finite data are one item, which counts when all of it is there; no records are known."""
        return Known(sum(self.span(*each)[1] for each in ranges), None, int(ranges == self.whole))


class Sealed:
    """The list beside a log whose leaves are not all full, or whose records are counted: (length in bytes, records) of each leaf of data.

    It grows by `append`. `leaves` counts the header, as everywhere.
    """

    def __init__(self) -> None:
        self._bytes, self._records = array("Q", (0,)), array("Q", (0,))  # sums up to each leaf, so that a range costs two look-ups

    @property
    def leaves(self) -> int:
        return len(self._bytes)

    @property
    def size_bytes(self) -> int:
        """The length of the data so far."""
        return self._bytes[-1]

    def append(self, length_bytes: int, records: int) -> None:
        """Take up the next leaf."""
        self._bytes.append(self._bytes[-1] + length_bytes)
        self._records.append(self._records[-1] + records)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """(offset, length) in bytes of the leaves [first, last) of data. Raises IndexError for leaves that are not there."""
        begin = self._bytes[first - 1]
        return begin, self._bytes[last - 1] - begin

    def measure(self, ranges: Ranges) -> Known:
        """What these leaves come to; what an item is, a live log does not say. Raises IndexError for leaves that are not there."""
        size = sum(self.span(*each)[1] for each in ranges)
        return Known(size, sum(self._records[last - 1] - self._records[first - 1] for first, last in ranges))

    def write(self, first: int = 1, last: int | None = None) -> bytes:
        """The list of the leaves [first, last) as it goes over the wire: two unsigned numbers of 32 bits for each, big-endian."""
        leaves = range(first, self.leaves if last is None else last)
        sums = (self._bytes, self._records)
        return b"".join(SEALED.pack(*(each[leaf] - each[leaf - 1] for each in sums)) for leaf in leaves)


def read_sealed(data: bytes, chunk_bytes: int, sealed: Sealed | None = None) -> Sealed:
    """Read a list, or go on with `sealed`, which changes only if all of it is right.

    Raises MeterRefused with a `list-` code: a leaf has 1 to `chunk_bytes` bytes, and not more records than bytes.
    """
    sealed = Sealed() if sealed is None else sealed
    if len(data) % SEALED.size:
        raise refused("list-length")
    read = list(SEALED.iter_unpack(data))
    for leaf, (length, records) in enumerate(read, sealed.leaves):
        if not 1 <= length <= chunk_bytes:
            raise refused("list-chunk", leaf=leaf)
        if records > length:
            raise refused("list-records", leaf=leaf)
    for length, records in read:
        sealed.append(length, records)
    return sealed


class Leaf(Value):
    """A chunk that is sealed: its hash, its length in bytes, and the records that end in it."""

    hash: bytes
    length: int
    records: int


def records_in(piece: bytes | bytearray, unit: str, first: int = 0, last: int | None = None) -> int:
    """What the bytes [first, last) of a piece, a whole leaf of finite data, hold of records of a unit: one number, for `records_of`."""
    last = len(piece) if last is None else last
    if (separator := SEPARATORS.get(unit)) is None or first >= last:
        return 0
    if unit == "line":
        return feeds(piece, first, last)
    count = piece.count(separator, first, last)
    feed = separator[0]
    return count << FLAGS | (BEGINS if piece[first] == feed else 0) | (ENDS if piece[last - 1] == feed else 0)


def feeds(piece: bytes | bytearray, first: int, last: int) -> int:
    """How many line feeds stand in the bytes [first, last) of a piece: this is done to every byte, with the interpreter's lock held.

    CPython takes a byte away by `memchr`, and counts it by a loop, in three to six times the time; but where lines are short, up to
    fourteen times as fast. So it looks at how long they are, and goes by each part for the next one; but whoever chooses the data knows
    that, so by a part in which they were short all of a sudden it goes for good."""
    found, sudden = 0, False
    short = piece.count(b"\n", first, min(first + LOOK_BYTES, last)) > LOOK_BYTES // SHORT_BYTES
    for at in range(first, last, FEEDS_BYTES):
        end = min(at + FEEDS_BYTES, last)
        here = piece.count(b"\n", at, end) if short else end - at - len(piece[at:end].replace(b"\n", b""))
        dense = here > FEEDS_BYTES // SHORT_BYTES
        sudden = sudden or dense > short
        short, found = dense or sudden, found + here
    return found


def records_of(found: Iterable[int], unit: str) -> int:
    """How many records end in leaves that follow each other, of each of which `records_in` is known."""
    if unit != "message":
        return sum(found)
    count, ends = 0, 0
    for each in found:
        count += (each >> FLAGS) + (1 if ends and each & BEGINS else 0)
        ends = each & ENDS
    return count


def write_etag(root: bytes, chunk_bytes: int) -> str:
    """The strong entity tag of finite data, quotes included (RFC 9110, 8.8.3): the root and the chunk say all that it depends on."""
    return f'"r.{write_bytes(root)}.{chunk_bytes}"'


def read_etag(value: str | None) -> tuple[bytes, int] | None:
    """(root, chunk in bytes) of an entity tag of ours in its only spelling; None for another one, which belongs to no content log."""
    found = ETAG.fullmatch(value) if value else None
    root = read_bytes(found[1], HASH_BYTES) if found else None
    return (root, int(found[2])) if found and root is not None and int(found[2]) in CHUNKS_BYTES else None


def is_chunk(value: object) -> bool:
    """Whether that is the size of a chunk: a power of two from 64 KiB to 4 MiB."""
    return type(value) is int and value in CHUNKS_BYTES


def is_count(value: object) -> bool:
    """Whether that is a number of bytes or of anything else that is counted: whole, from 0 to 2^53-1, and no truth value."""
    return type(value) is int and 0 <= value <= SIZE_MAX


def write_bytes(data: bytes) -> str:
    """base64url without padding (RFC 7515, 2)."""
    return b2a_base64(data, newline=False).translate(URL_SAFE).rstrip(b"=").decode("ascii")


def read_bytes(text: object, length: int) -> bytes | None:
    """The `length` bytes of base64url without padding in its only spelling, or None."""
    if not isinstance(text, str) or len(text) != -(-length * 4 // 3) or not text.isascii():
        return None
    try:
        spelled = text.encode("ascii").translate(FROM_URL_SAFE) + b"=" * (-len(text) % 4)
        data = a2b_base64(spelled)
    except ValueError:
        return None
    return data if len(data) == length and b2a_base64(data, newline=False) == spelled else None


def digest_of(document: Mapping[str, Any]) -> bytes:
    """SHA-256 of a JSON document's JCS form (RFC 8785): of a policy, of price terms. Raises ValueError for what has no such form."""
    return hashlib.sha256(rfc8785.dumps(dict(document))).digest()


def digest_of_json(document: Mapping[str, Any]) -> bytes:
    """`digest_of` a document that is JSON already, at a tenth of the price. Raises ValueError alike."""
    return hashlib.sha256(canonical(document)).digest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """The JCS form (RFC 8785) of a document that is JSON already: of most it is sorted JSON, which is written in C. Raises ValueError for
    what has no such form, and for more levels than can be written: whoever reads that would have to be ready for it wherever he writes."""
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # a number beyond 64 bits, half a surrogate pair, 254 levels
        raise ValueError(str(error)) from None
    plain = (text.isascii() or not BEYOND.search(text)) and b'\\\\"' not in text and not any(each.search(text) for each in NUMBERS)
    return text if plain else rfc8785.dumps(orjson.loads(text))
