"""SHA-256 (FIPS 180-4) of as many messages as a vector register has lanes of 32 bits, as text for LLVM. Pure.

All messages take the same steps at the same time: lane i of each register belongs to message i, and one that has no more blocks
stays as it is. The code refers to nothing but its arguments, no constant of its own included: it runs wherever its bytes are put.

    void leaves(uint32_t state[8][lanes], const uint32_t table[], const void *from[3][lanes], const uint32_t blocks[3][lanes],
                const uint64_t most[3])

For each of three parts, which is as many as a leaf hash needs (what stands before a leaf moves it out of step with the blocks),
`blocks` of 64 bytes follow each other at the address that `from` has for each lane. As many as `most` can be read for every lane.
`table` is `TABLE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Final

NAME: Final = "leaves"
PARTS: Final = 3
BLOCK_BYTES: Final = 64
WORDS: Final = 16  # of a block
ROUNDS: Final = 64
WORD_BITS: Final = 32
WORD_BYTES: Final = 4
TERNARY: Final = "@llvm.x86.avx512.pternlog.d.512"
SHUFFLE: Final = {8: "@llvm.x86.avx2.pshuf.b", 16: "@llvm.x86.avx512.pshuf.b.512"}  # of bytes, within 128 bits
QUARTER: Final = 4  # words in 128 bits, within which a register is shuffled for little


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % each for each in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


MASK: Final = (1 << WORD_BITS) - 1
# The first 32 bits of the fractions of the cube roots of the first 64 primes (4.2.2), and of the square roots of the first 8 (5.3.3).
K: Final = tuple(_cube_root(prime << 3 * WORD_BITS) & MASK for prime in _primes(ROUNDS))
BEGIN: Final = tuple(isqrt(prime << 2 * WORD_BITS) & MASK for prime in _primes(8))
TURNED: Final = (0x00010203, 0x04050607, 0x08090A0B, 0x0C0D0E0F)  # which byte stands where, in 128 bits whose words are turned round
TABLE: Final = (*K, *TURNED)
WIDE: Final = 16  # lanes of 512 bits, where any function of three bits is one instruction
MAJORITY: Final = 0b11101000  # by the three bits as a number


class _Text:
    """Instructions that work on registers of so many lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.vector = lanes, f"<{lanes} x i32>"
        self.lines: list[str] = []
        self._names = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def let(self, value: str) -> str:
        self._names += 1
        self.lines.append(f"%v{self._names} = {value}")
        return f"%v{self._names}"

    def all_of(self, number: int) -> str:
        return f"<{', '.join([f'i32 {number}'] * self.lanes)}>"

    def binary(self, what: str, one: str, *others: str) -> str:
        for other in others:
            one = self.let(f"{what} {self.vector} {one}, {other}")
        return one

    def rotated(self, word: str, right: int) -> str:
        shift = self.all_of(WORD_BITS - right)
        name = f"@llvm.fshl.v{self.lanes}i32"
        return self.let(f"call {self.vector} {name}({self.vector} {word}, {self.vector} {word}, {self.vector} {shift})")

    def mixed(self, word: str, *rights: int, shifted: int = 0) -> str:
        """The functions of 4.1.2: rotations of a word, or all but the last, which is shifted."""
        parts = [self.rotated(word, right) for right in rights]
        if shifted:
            parts.append(self.binary("lshr", word, self.all_of(shifted)))
        return self.binary("xor", *parts)

    def majority(self, one: str, two: str, three: str) -> str:
        """The third function of 4.1.2. LLVM takes three instructions for it, or four, and hashing is as fast as instructions are few."""
        if self.lanes == WIDE:
            words = ", ".join(f"{self.vector} {each}" for each in (one, two, three))
            return self.let(f"call {self.vector} {TERNARY}({words}, i32 {MAJORITY})")
        differ = self.binary("and", self.binary("xor", one, two), self.binary("xor", two, three))  # the second is the first of before
        return self.binary("xor", two, differ)

    def turned_round(self, word: str, order: str) -> str:
        """The bytes of each word in the other order."""
        bytes_ = f"<{self.lanes * WORD_BYTES} x i8>"
        given = self.let(f"bitcast {self.vector} {word} to {bytes_}")
        turned = self.let(f"call {bytes_} {SHUFFLE[self.lanes]}({bytes_} {given}, {bytes_} {order})")
        return self.let(f"bitcast {bytes_} {turned} to {self.vector}")

    def order(self) -> str:
        """What `turned_round` goes by, out of the table: a constant of the code's own would be a reference."""
        quarter = self.let(f"load <{QUARTER} x i32>, ptr {self.let(f'getelementptr i32, ptr %table, i64 {ROUNDS}')}, align 4")
        mask = ", ".join(f"i32 {place % QUARTER}" for place in range(self.lanes))
        words = self.let(f"shufflevector <{QUARTER} x i32> {quarter}, <{QUARTER} x i32> poison, <{self.lanes} x i32> <{mask}>")
        return self.let(f"bitcast {self.vector} {words} to <{self.lanes * WORD_BYTES} x i8>")

    def constant(self, place: int) -> str:
        """A word of the table in each lane."""
        return self.everywhere(self.let(f"load i32, ptr {self.let(f'getelementptr i32, ptr %table, i64 {place}')}, align 4"))

    def everywhere(self, word: str) -> str:
        one = self.let(f"insertelement {self.vector} poison, i32 {word}, i64 0")
        return self.let(f"shufflevector {self.vector} {one}, {self.vector} poison, {self.vector} zeroinitializer")

    def picked(self, one: str, other: str, places: Sequence[int]) -> str:
        mask = ", ".join(f"i32 {place}" for place in places)
        return self.let(f"shufflevector {self.vector} {one}, {self.vector} {other}, {self.vector} <{mask}>")


def text(lanes: int) -> str:
    """The function for 8 or 16 lanes, as a module of LLVM's intermediate representation."""
    of = _Text(lanes)
    vector = of.vector
    of.say(f"declare {vector} @llvm.fshl.v{lanes}i32({vector}, {vector}, {vector})")
    bytes_ = f"<{lanes * WORD_BYTES} x i8>"
    of.say(f"declare {bytes_} {SHUFFLE[lanes]}({bytes_}, {bytes_})")
    if lanes == WIDE:
        of.say(f"declare {vector} {TERNARY}({vector}, {vector}, {vector}, i32)")
    of.say(f"define void @{NAME}(ptr %state, ptr noalias %table, ptr noalias %from, ptr noalias %blocks, ptr noalias %most) nounwind {{")
    of.say("entry: br label %part")
    of.say("part:")
    of.say("%p = phi i64 [0, %entry], [%p1, %next]")
    of.say("%p1 = add i64 %p, 1")
    most = of.let(f"load i64, ptr {of.let('getelementptr i64, ptr %most, i64 %p')}, align 8")
    counts = of.let(f"load {vector}, ptr {of.let(f'getelementptr {vector}, ptr %blocks, i64 %p')}, align 4")
    row = of.let(f"getelementptr [{lanes} x ptr], ptr %from, i64 %p")
    bases = [of.let(f"load ptr, ptr {of.let(f'getelementptr ptr, ptr {row}, i64 {n}')}, align 8") for n in range(lanes)]
    places = [of.let(f"getelementptr {vector}, ptr %state, i64 {n}") for n in range(len(BEGIN))]
    begun = [of.let(f"load {vector}, ptr {place}, align 4") for place in places]
    of.say(f"br i1 {of.let(f'icmp eq i64 {most}, 0')}, label %next, label %block")
    of.say("block:")
    of.say("%n = phi i64 [0, %part], [%n1, %block]")
    state = [f"%s{n}" for n in range(len(BEGIN))]
    for n, name in enumerate(state):
        of.say(f"{name} = phi {vector} [{begun[n]}, %part], [%t{n}, %block]")
    _compress(of, bases, counts, state)
    of.say("%n1 = add i64 %n, 1")
    of.say(f"br i1 {of.let(f'icmp eq i64 %n1, {most}')}, label %done, label %block")
    of.say("done:")
    for n, place in enumerate(places):
        of.say(f"store {vector} %t{n}, ptr {place}, align 4")
    of.say("br label %next")
    of.say("next:")
    of.say(f"br i1 {of.let(f'icmp eq i64 %p1, {PARTS}')}, label %end, label %part")
    of.say("end: ret void")
    of.say("}")
    return "\n".join(of.lines) + "\n"


def _compress(of: _Text, bases: Sequence[str], counts: str, state: Sequence[str]) -> None:
    """A block of each message that has so many (6.2.2): its number is `%n`, and what comes of `state` is `%t0` to `%t7`."""
    number = of.everywhere(of.let("trunc i64 %n to i32"))
    has = of.let(f"icmp ult {of.vector} {number}, {counts}")
    at = of.let(f"shl i64 %n, {BLOCK_BYTES.bit_length() - 1}")
    words = _words(of, [of.let(f"getelementptr i8, ptr {base}, i64 {at}") for base in bases])
    a, b, c, d, e, f, g, h = state
    for t in range(ROUNDS):
        if t >= WORDS:
            old, new = words[t - 15], words[t - 2]
            more = of.mixed(old, 7, 18, shifted=3), words[t - 7], of.mixed(new, 17, 19, shifted=10)
            words.append(of.binary("add", words[t - 16], *more))
        chosen = of.binary("xor", g, of.binary("and", e, of.binary("xor", f, g)))
        one = of.binary("add", h, words[t], of.constant(t), of.mixed(e, 6, 11, 25), chosen)
        two = of.binary("add", of.mixed(a, 2, 13, 22), of.majority(a, b, c))
        a, b, c, d, e, f, g, h = of.binary("add", one, two), a, b, c, of.binary("add", d, one), e, f, g
    for n, (before, after) in enumerate(zip(state, (a, b, c, d, e, f, g, h), strict=True)):
        of.say(f"%t{n} = select <{of.lanes} x i1> {has}, {of.vector} {of.binary('add', before, after)}, {of.vector} {before}")


def _words(of: _Text, blocks: Sequence[str]) -> list[str]:
    """The words of these blocks: word i of all of them in register i, read as big-endian."""
    order = of.order()
    words: list[str] = []
    for first in range(0, WORDS, of.lanes):
        rows = []
        for block in blocks:
            place = of.let(f"getelementptr i32, ptr {block}, i64 {first}")
            rows.append(of.let(f"load {of.vector}, ptr {place}, align 1"))
        words += _turned(of, rows)
    return [of.turned_round(word, order) for word in words]


def _turned(of: _Text, rows: Sequence[str]) -> list[str]:
    """As many rows as there are lanes, as columns: first within each 128 bits, then these."""
    lanes = of.lanes
    quarters = range(0, lanes, QUARTER)
    low = [place for q in quarters for place in (q, lanes + q, q + 1, lanes + q + 1)]
    high = [place + 2 for place in low]
    left = [place for q in quarters for place in (q, q + 1, lanes + q, lanes + q + 1)]
    right = [place + 2 for place in left]
    columns: list[list[str]] = [[] for _ in range(QUARTER)]  # by the place within 128 bits
    for n in range(0, lanes, QUARTER):
        one, two, three, four = rows[n : n + QUARTER]
        lows, highs = (of.picked(one, two, low), of.picked(three, four, low)), (of.picked(one, two, high), of.picked(three, four, high))
        for column, (pair, mask) in zip(columns, ((lows, left), (lows, right), (highs, left), (highs, right)), strict=True):
            column.append(of.picked(*pair, mask))
    evens = [place for base in (0, lanes) for q in range(base, base + lanes, 2 * QUARTER) for place in range(q, q + QUARTER)]
    odds = [place + QUARTER for place in evens]
    for _ in range((lanes // QUARTER).bit_length() - 1):
        columns = [
            [of.picked(column[n], column[n + 1], mask) for mask in (evens, odds) for n in range(0, len(column), 2)] for column in columns
        ]
    return [columns[k][q] for q in range(lanes // QUARTER) for k in range(QUARTER)]
