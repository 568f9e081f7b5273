"""The memory of a connector that has started: what stays is looked through no more, and laid together in huge pages.

A message touches objects all over what was loaded: far more pages of 4 KiB than a core keeps the addresses of, and on a virtual machine
each one that it looks up anew costs two walks. In pages of 2 MiB a negotiation takes some 3 % less CPU. Only what is full is moved, so that
nothing becomes resident for it, and the kernel may take all of it apart again.
"""

from __future__ import annotations

import gc
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

GC_THRESHOLD = 20_000  # allocations before a young collection: messages make few cycles
SELF = Path("/proc/self")
HUGE_BYTES = 2 << 20  # where they have another size the kernel refuses, and nothing is lost
PAGES = HUGE_BYTES // mmap.PAGESIZE
PRESENT_MIN = PAGES * 15 // 16  # of a huge page: the others become ours with it
PRESENT = 1 << 63  # the highest bit of the 8 bytes in `pagemap` for each page (Linux, admin-guide/mm/pagemap)
ENTRY_BYTES = 8
NAMES = ("", "[heap]")  # of a mapping that is nothing but memory
MADV_COLLAPSE = 25  # madvise(2), from Linux 6.1 on


def settle() -> None:
    """Look for garbage once among what the start has made, and seldom from now on. What was imported is not looked through
    (`cli_run.serving.loading`): that takes a tenth of the start, and finds 400 kB."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


def gather() -> int:
    """Move the memory of this process into huge pages; returns how many of its pages are huge then: 0 where the system or this Python has
    no such thing, or does not let us. Takes a millisecond or two for each, and no lock of the interpreter."""
    try:
        if not (full := list(_full())):
            return 0
        import ctypes  # for this alone: a Python that was built without libffi has none

        madvise = ctypes.CDLL(None).madvise
    except (OSError, ImportError):
        return 0
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return sum(madvise(each, HUGE_BYTES, MADV_COLLAPSE) == 0 for each in full)


def _full() -> Iterator[int]:
    """Where huge pages could begin whose small ones are nearly all there. Raises OSError if the system does not say."""
    with (SELF / "pagemap").open("rb", buffering=0) as pages:
        for line in (SELF / "maps").read_text(errors="replace").splitlines():  # names of files are in any encoding
            where, may, _, _, _, *name = line.split(maxsplit=5)
            if may != "rw-p" or "".join(name) not in NAMES:
                continue
            begin, end = (int(each, 16) for each in where.split("-"))
            for at in range(-(-begin // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES):
                pages.seek(at // mmap.PAGESIZE * ENTRY_BYTES)
                read = pages.read(PAGES * ENTRY_BYTES)  # less where the system says nothing of an address
                if sum(entry >= PRESENT for (entry,) in struct.iter_unpack("=Q", read)) >= PRESENT_MIN:
                    yield at
