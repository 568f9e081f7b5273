"""A kernel as machine code in this process, and leaf hashes by it."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final

from connector.lanes import kernel

PREFIX: Final = b"\0"  # of a leaf (RFC 6962, 2.1)
END: Final = b"\x80"  # of a message (FIPS 180-4, 5.1.1)
LENGTH: Final = struct.Struct(">Q")
HEAD_BYTES: Final = kernel.BLOCK_BYTES - len(PREFIX)  # of a leaf in the first block
TABLE: Final = struct.pack(f"={len(kernel.TABLE)}I", *kernel.TABLE)
HASH: Final = struct.Struct(">8I")
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
_CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)  # lets go of the interpreter's lock


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


class Kernel:
    """Machine code of `kernel.text(lanes)`. Raises Forbidden."""

    def __init__(self, code: bytes, lanes: int) -> None:
        self.lanes = lanes
        self._memory = executable(code)
        self._call = _CALL(_address(self._memory))
        self._begin = struct.pack(f"={8 * lanes}I", *(word for word in kernel.BEGIN for _ in range(lanes)))
        self._words = struct.Struct(f"={8 * lanes}I")
        self._from = struct.Struct(f"={kernel.PARTS * lanes}Q")
        self._blocks = struct.Struct(f"={kernel.PARTS}Q")

    def leaf_hashes(self, data: Data, firsts: Sequence[int], length: int) -> list[bytes]:
        """The leaf hash of each `length` bytes that begin at these places of `data`. Raises ValueError for more of them than there are
        lanes, or places that are not all in `data`."""
        view = _View()
        _get(data, view, CONTIGUOUS)
        try:
            if not 0 < len(firsts) <= self.lanes or min(firsts) < 0 or max(firsts) + length > view.length:
                raise ValueError(f"{len(firsts)} leaves of {length} bytes are not in {view.length} bytes")
            return self._hashed(memoryview(data), view.address or 0, firsts, length)
        finally:
            _release(view)

    def _hashed(self, data: memoryview, base: int, firsts: Sequence[int], length: int) -> list[bytes]:
        # The prefix moves a leaf against the blocks: the first is put together apart, and so are the last, with the padding.
        head = HEAD_BYTES if length >= HEAD_BYTES else 0
        body, rest = divmod(length - head, kernel.BLOCK_BYTES)
        zeros = -(len(PREFIX) + length + len(END) + LENGTH.size) % kernel.BLOCK_BYTES
        padding = END + bytes(zeros) + LENGTH.pack(8 * (len(PREFIX) + length))
        parts = [b"".join((PREFIX, data[at : at + head], data[at + length - rest : at + length], padding)) for at in firsts]
        edges, each = b"".join(parts), len(parts[0])
        edge = ctypes.cast(edges, ctypes.c_void_p).value or 0
        heads = [edge + each * n for n in range(len(firsts))]
        tail = kernel.BLOCK_BYTES if head else 0
        starts = (heads, [base + at + head for at in firsts], [at + tail for at in heads])
        idle = self.lanes - len(firsts)  # lanes that do what the first one does
        places = self._from.pack(*(at for row in starts for at in (*row, *(row[0],) * idle)))
        state = ctypes.create_string_buffer(self._begin, len(self._begin))
        self._call(state, TABLE, places, self._blocks.pack(1 if head else 0, body, (each - tail) // kernel.BLOCK_BYTES))
        words = self._words.unpack(state)
        return [HASH.pack(*words[n :: self.lanes]) for n in range(len(firsts))]
