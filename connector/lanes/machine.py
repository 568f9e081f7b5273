"""A kernel as machine code in this process, and leaf hashes by it."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final

from connector.lanes import kernel, lines

PREFIX: Final = b"\0"  # of a leaf (RFC 6962, 2.1)
END: Final = b"\x80"  # of a message (FIPS 180-4, 5.1.1)
LENGTH: Final = struct.Struct(">Q")
HEAD_BYTES: Final = kernel.BLOCK_BYTES - len(PREFIX)  # of a leaf in the first block
TABLE: Final = struct.pack(f"={len(kernel.TABLE)}I", *kernel.TABLE)
HASH: Final = struct.Struct(">8I")
MOST: Final = struct.Struct(f"={kernel.PARTS}Q")
READ, EXECUTE = 1, 4  # of mprotect(2)
CONTIGUOUS: Final = 0  # PyBUF_SIMPLE

Data = bytes | bytearray | memoryview  # of bytes, in one piece


class Forbidden(Exception):
    """The system lets no memory that was written be executed, and what it says."""


class _View(ctypes.Structure):
    """`Py_buffer`, which is part of the stable interface from Python 3.11 on."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes, _get.restype = (ctypes.py_object, ctypes.POINTER(_View), ctypes.c_int), ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes, _release.restype = (ctypes.POINTER(_View),), None
_CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)  # lets go of the interpreter's lock
_COUNT = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint8, ctypes.c_uint8, ctypes.c_void_p)
FEED, BACK = ord("\n"), ord("\r")


def executable(code: bytes) -> mmap.mmap:
    """Memory with this code, which can be run and no longer written. Raises Forbidden if the system allows no such thing, as one that
    systemd (MemoryDenyWriteExecute) or SELinux (execmem) guards."""
    memory = mmap.mmap(-1, len(code), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(code)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(_address(memory), len(code), READ | EXECUTE):
        raise Forbidden(f"the system does not let memory be executed: {os.strerror(ctypes.get_errno())}")
    return memory


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def joined(leaves: bytes, feeds: bytes) -> bytes:
    """The code of both functions, as one."""
    return LENGTH.pack(len(leaves)) + leaves + feeds


class Kernel:
    """Machine code of `kernel.text(lanes)` and of `lines.TEXT`, `joined`. Raises Forbidden."""

    def __init__(self, code: bytes, lanes: int) -> None:
        self.lanes = lanes
        border = LENGTH.size + LENGTH.unpack_from(code)[0]
        self._memory, self._counting = executable(code[LENGTH.size : border]), executable(code[border:])
        self._call, self._count = _CALL(_address(self._memory)), _COUNT(_address(self._counting))
        self._begin = struct.pack(f"={8 * lanes}I", *(word for word in kernel.BEGIN for _ in range(lanes)))
        self._words = struct.Struct(f"={8 * lanes}I")
        self._from = struct.Struct(f"={kernel.PARTS * lanes}Q")
        self._blocks = struct.Struct(f"={kernel.PARTS * lanes}I")

    def leaf_hashes(self, data: Data, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The leaf hash of each [from, to) of `data`. What each has more than the shortest is copied. Raises ValueError
        for more of them than there are lanes, or for what is not in `data`."""
        view = _View()
        _get(data, view, CONTIGUOUS)
        try:
            if not 0 < len(spans) <= self.lanes or not all(0 <= first <= end <= view.length for first, end in spans):
                raise ValueError(f"{len(spans)} leaves are too many, or not in {view.length} bytes")
            return self._hashed(memoryview(data), view.address or 0, spans)
        finally:
            _release(view)

    def line_feeds(self, data: Data, first: int, end: int) -> tuple[int, bool]:
        """How many line feeds stand in the bytes [first, end) of `data`, and whether a line in them may be empty, if one begins with the
        first: a feed follows another, or there is a carriage return. Raises ValueError for what is not in `data`."""
        view = _View()
        _get(data, view, CONTIGUOUS)
        try:
            if not 0 <= first <= end <= view.length:
                raise ValueError(f"the bytes are not in {view.length}")
            odd, count = ctypes.c_uint8(0), (end - first) // lines.STEP_BYTES * lines.STEP_BYTES
            found = self._count((view.address or 0) + first, count, FEED, BACK, ctypes.addressof(odd)) if count else 0
            rest = bytes(memoryview(data)[first + count : end])
            before = bytes(memoryview(data)[first + count - 1 : first + count]) if count else b"\n"
            return found + rest.count(b"\n"), bool(odd.value) or b"\r" in rest or b"\n\n" in before + rest
        finally:
            _release(view)

    def _hashed(self, data: memoryview, base: int, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        # The prefix moves a leaf against the blocks: the first is put together apart, and so is the end, with the padding.
        shortest = min(end - first for first, end in spans)
        head = HEAD_BYTES if shortest >= HEAD_BYTES else 0
        body = (shortest - head) // kernel.BLOCK_BYTES
        common = head + body * kernel.BLOCK_BYTES
        lanes = range(len(spans))
        parts: list[bytes | memoryview] = [PREFIX + data[first : first + head] for first, _ in spans] if head else []
        paddings = [_padding(len(PREFIX) + end - first) for first, end in spans]
        before = b"" if head else PREFIX
        blocks = [
            (len(before) + end - first - common + len(padding)) // kernel.BLOCK_BYTES
            for (first, end), padding in zip(spans, paddings, strict=True)
        ]
        ends, place = [0] * len(spans), len(parts) * kernel.BLOCK_BYTES
        for n in sorted(lanes, key=blocks.__getitem__):  # the longest is the last: every lane can be read for as long as that one
            first, end = spans[n]
            parts += before, data[first + common : end], paddings[n]
            ends[n], place = place, place + blocks[n] * kernel.BLOCK_BYTES
        edges = b"".join(parts)
        at = ctypes.cast(ctypes.c_char_p(edges), ctypes.c_void_p).value or 0
        heads = [at + n * kernel.BLOCK_BYTES for n in lanes]
        idle = self.lanes - len(spans)  # lanes that read what the first one does
        rows = (heads, [base + first + head for first, _ in spans], [at + each for each in ends])
        places = self._from.pack(*(place for row in rows for place in (*row, *(row[0],) * idle)))
        most = (1 if head else 0, body, max(blocks))
        counts = self._blocks.pack(*(most[0],) * self.lanes, *(body,) * self.lanes, *blocks, *(0,) * idle)
        state = ctypes.create_string_buffer(self._begin, len(self._begin))
        self._call(state, TABLE, places, counts, MOST.pack(*most))
        words = self._words.unpack(state)
        return [HASH.pack(*words[n :: self.lanes]) for n in lanes]


def _padding(length: int) -> bytes:
    """What a message of so many bytes has behind it (FIPS 180-4, 5.1.1)."""
    return END + bytes(-(length + len(END) + LENGTH.size) % kernel.BLOCK_BYTES) + LENGTH.pack(8 * length)
