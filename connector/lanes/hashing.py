"""Leaf hashes of many leaves, by whatever is fastest here: hashlib, or the lanes of vector registers.

Once so much was hashed that it is worth it, a kernel is compiled in a process of its own, compared with hashlib, and timed against it;
nobody waits for that, and until then, and wherever it comes to nothing, hashlib does all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import connector
from connector import telemetry
from connector.merkle.tree import leaf_hash

if TYPE_CHECKING:
    from connector.lanes.machine import Data, Kernel

COMPILER: Final = "connector.lanes.compiling"
COMPILE_SECONDS: Final = 120  # on a machine that has much else to do; nobody waits
WORTH_BYTES: Final = 64 << 20  # what hashlib does in the time of a core that compiling takes
LEAF_BYTES_MIN: Final = 4096  # of a leaf that lanes take up: below, what Python does for it takes longer
BATCH_BYTES: Final = 4 << 20  # sixteen leaves of ours
CPUINFO: Final = Path("/proc/cpuinfo")
WIDE = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
TIMED_BYTES, TIMES = 32 << 10, 5  # of each leaf that both are timed by
TRIED_LINES: Final = (b"", b"\r", b".", b"\x8a" * 30)  # the first two of which are empty
TRIED_PLACES: Final = 96  # of one line end, or two: each in a register, and between two of them
# Lengths around each border: of the first block, of the last one, and of the room for the padding.
TRIED_BYTES: Final = (0, 1, 54, 55, 62, 63, 64, 117, 118, 119, 127, 4096)


class Unused(Exception):
    """hashlib does all, and why."""


def lanes_of(flags: Iterable[str]) -> int:
    """How many lanes are worth a kernel on an x86 processor with these flags, as Linux names them. Raises Unused."""
    has = frozenset(flags)
    if has >= WIDE:
        return 16
    if "sha_ni" in has:
        raise Unused("the processor has instructions for SHA-256")
    if "avx2" not in has:
        raise Unused("the processor has no vectors of 256 bits")
    return 8


def made() -> Kernel:
    """The kernel for this machine, compiled now. Raises Unused, and Forbidden of `machine`."""
    try:
        lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise Unused(f"the system does not say what the processor can do: {error.strerror}") from None
    lanes = lanes_of(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))
    if find_spec("llvmlite") is None:
        raise Unused("llvmlite is not installed; install qiao[lanes]")
    from connector.lanes import machine

    machine.executable(b"\0")  # before all that work
    environment = {"PYTHONPATH": str(Path(connector.__file__).parent.parent), "LC_ALL": "C.UTF-8"}  # no settings, no secrets
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    command = (sys.executable, "-P", "-s", "-m", COMPILER, str(lanes))
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unused(f"the compiler cannot be run: {error}") from None
    if done.returncode:
        raise Unused(f"the compiler ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-200:]}")
    return machine.Kernel(without_digest(done.stdout), lanes)


def with_digest(code: bytes) -> bytes:
    """As the compiler says it: whatever an installation of Python writes to stdout by itself must not be run."""
    return hashlib.sha256(code).digest() + code


def without_digest(said: bytes) -> bytes:
    """The code that the compiler has said. Raises Unused if it has said anything else."""
    code = said[hashlib.sha256().digest_size :]
    if not code or with_digest(code) != said:
        raise Unused("what the compiler has written is not code alone")
    return code


def check(kernel: Kernel) -> None:
    """Compare it with hashlib, each lane with other data. Raises Unused."""
    data = os.urandom(2 * kernel.lanes + max(TRIED_BYTES))
    for length in TRIED_BYTES:
        for more in (0, 1):  # alike, and each longer than the one before
            spans = [(n, n + length + more * n) for n in range(kernel.lanes)]
            if kernel.leaf_hashes(data, spans) != _by_hashlib(data, spans):
                raise Unused(f"the kernel has hashed {length} bytes wrongly")
        for line in TRIED_LINES:
            text = (line + b"\n") * length
            if kernel.line_feeds(text, 0, len(text)) != (length, bool(length and line in TRIED_LINES[:2])):
                raise Unused(f"the kernel has counted {length} lines wrongly")
    for place in range(TRIED_PLACES):
        for found, line in ((1, b"\n"), (2, b"\n\n"), (0, b"\r")):
            text = line.rjust(place + len(line), b".").ljust(TRIED_PLACES + len(line), b".")
            if kernel.line_feeds(text, 0, len(text)) != (found, found != 1 or not place):
                raise Unused(f"the kernel has not seen what stands behind {place} bytes")


def timed(kernel: Kernel, clock: Callable[[], int] = time.thread_time_ns) -> int:
    """From how many leaves on all lanes together take less time than hashlib does. Raises Unused if hashlib is always faster."""
    data = bytes(kernel.lanes * TIMED_BYTES)
    spans = spans_of(len(data), TIMED_BYTES)
    lanes, one = [], []
    for _ in range(TIMES):
        begun = clock()
        kernel.leaf_hashes(data, spans)
        between = clock()
        _by_hashlib(data, spans)
        lanes.append(between - begun)
        one.append(clock() - between)
    least = kernel.lanes * min(lanes) // min(one) + 1
    if least > kernel.lanes:
        raise Unused("hashlib is faster")
    return least


class LeafHashing:
    """`make` gives a kernel, in a thread, once `worth_bytes` were hashed without. `settled` is set when there is nothing to come."""

    def __init__(self, make: Callable[[], Kernel], worth_bytes: int = WORTH_BYTES, time: Callable[[Kernel], int] = timed) -> None:
        self._make, self._left, self._timed = make, worth_bytes, time
        self._lock = threading.Lock()
        self._begun = False
        self._using: tuple[Kernel, int] | None = None
        self.settled = threading.Event()

    def together(self, count: int) -> int:
        """How many of `count` leaves are hashed at a time: 1 by hashlib."""
        kernel, least = self._using or (None, 0)
        return kernel.lanes if kernel is not None and count >= least else 1

    def leaf_hashes(self, data: Data, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The leaf hash (RFC 6962, 2.1) of each [from, to) of `data`."""
        if self._using is None:
            if not self._begun:
                self._count(sum(end - first for first, end in spans))
            return _by_hashlib(data, spans)
        kernel, least = self._using
        if len(spans) < least:
            return _by_hashlib(data, spans)
        lengths = {n: end - first for n, (first, end) in enumerate(spans) if end - first >= LEAF_BYTES_MIN}
        hashes = dict[int, bytes]()
        longest = sorted(lengths, key=lengths.__getitem__, reverse=True)
        for at in range(0, len(longest), kernel.lanes):
            numbers = longest[at : at + kernel.lanes]  # which are about as long
            if sum(lengths[n] for n in numbers) >= least * lengths[numbers[0]]:
                hashes.update(zip(numbers, kernel.leaf_hashes(data, [spans[n] for n in numbers]), strict=True))
        view = memoryview(data)
        return [hashes.get(n) or leaf_hash(view[first:end]) for n, (first, end) in enumerate(spans)]

    def line_feeds(self, data: Data, first: int, end: int) -> tuple[int, bool] | None:
        """As `Kernel.line_feeds`; None where there is no kernel, or too little for it."""
        kernel, _ = self._using or (None, 0)
        return kernel.line_feeds(data, first, end) if kernel is not None and end - first >= LEAF_BYTES_MIN else None

    def _count(self, more_bytes: int) -> None:
        with self._lock:
            self._left -= more_bytes
            if self._begun or self._left > 0:
                return
            self._begun = True
        try:
            threading.Thread(target=self._settle, name="lanes", daemon=True).start()
        except RuntimeError:  # the system starts no more threads
            telemetry.log.warning("leaves are hashed one by one", reason="there is no thread for more")
            self.settled.set()

    def _settle(self) -> None:
        try:
            from connector.lanes.machine import Forbidden
        except ImportError as error:  # a Python that was built without libffi
            telemetry.log.info("leaves are hashed one by one", reason=f"this Python calls no machine code: {error}")
            self.settled.set()
            return
        try:
            kernel = self._make()
            check(kernel)
            least = self._timed(kernel)
        except (Unused, Forbidden) as unused:
            telemetry.log.info("leaves are hashed one by one", reason=str(unused))
        except Exception as error:  # a defect: hashlib goes on
            telemetry.log.error("leaves are hashed one by one", exc_info=error)
        else:
            self._using = kernel, least
            telemetry.hashing_lanes.set(kernel.lanes)
            telemetry.log.info("leaves are hashed many at a time", lanes=kernel.lanes, from_leaves=least)
        self.settled.set()


def _by_hashlib(data: Data, spans: Iterable[tuple[int, int]]) -> list[bytes]:
    view = memoryview(data)
    return [leaf_hash(view[first:end]) for first, end in spans]


def spans_of(length: int, leaf_bytes: int) -> list[tuple[int, int]]:
    """A length of data as leaves, the last of them shorter."""
    return [(first, min(first + leaf_bytes, length)) for first in range(0, length, leaf_bytes)]


HASHING: Final = LeafHashing(made)  # one for each process: a kernel is good for all that is hashed in it


def leaf_hashes(data: Data, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The leaf hash (RFC 6962, 2.1) of each [from, to) of `data`; lets go of the interpreter's lock where there are many, or long ones."""
    return HASHING.leaf_hashes(data, spans)


def line_feeds(data: Data, first: int, end: int) -> tuple[int, bool] | None:
    """See `LeafHashing.line_feeds`."""
    return HASHING.line_feeds(data, first, end)


def together(count: int) -> int:
    """How many of `count` leaves are hashed at a time: 1 by hashlib."""
    return HASHING.together(count)


def batch_bytes(usual: int) -> int:
    """How much is best handed over at once: `usual` where hashlib does it, or enough for all lanes."""
    return max(usual, BATCH_BYTES) if HASHING.together(BATCH_BYTES) > 1 else usual
