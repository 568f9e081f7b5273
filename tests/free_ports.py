"""Ports of loopback that are ours alone: no other process that asks here is given one of them, however long it takes until we listen.

The range is cut into blocks. Whoever binds the first port of a block, and keeps it bound, has the others; the kernel takes that back
when the process has ended, however it did. A port that a stranger listens on is passed over.
"""

import itertools
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

# The system gives these to no outgoing connection (those above 32767 any client may take at any moment), nor does `connector demo`.
BELOW = range(10_000, 20_000)
BLOCK = 40
HELD_MAX = 16  # blocks of one process: six hundred ports, after which the first one comes again


class Ports:
    """What one process has of the range. Threads take turns: what is in a row would not be, if another took some of it in between."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []  # to the first port of each block
        self._ports = self._each()
        self._turn = threading.RLock()

    def one(self) -> socket.socket:
        """Bound to a port of ours that nobody listens on; it is free once this is closed."""
        while True:
            with self._turn, suppress(OSError):
                return bound(next(self._ports))

    def row(self, count: int) -> int:
        """The first of `count` ports in a row that nobody listens on."""
        if count >= BLOCK:
            raise ValueError(f"{count} ports are more than a block of {BLOCK} has")
        while True:
            with self._turn, ExitStack() as opened, suppress(OSError):
                first: int = opened.enter_context(self.one()).getsockname()[1]
                for port in range(first + 1, first + count):
                    if next(self._ports) != port:  # another block has begun
                        raise OSError
                    opened.enter_context(bound(port))
                return first

    def close(self) -> None:
        """Leave it to others."""
        for held in self._held:
            held.close()

    def _each(self) -> Iterator[int]:
        while True:
            if len(self._held) < HELD_MAX:
                self._held.append(_block())
                yield from _rest(self._held[-1])
            else:
                for held in itertools.cycle(self._held):
                    yield from _rest(held)


def free_ports(count: int) -> list[int]:
    """`count` different ones."""
    with ExitStack() as held:
        return [held.enter_context(_ours.one()).getsockname()[1] for _ in range(count)]


def free_block(count: int) -> int:
    """The first of `count` ports in a row."""
    return _ours.row(count)


def bound(port: int) -> socket.socket:
    """A socket at this port. Raises OSError if it is taken."""
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except BaseException:
        one.close()
        raise
    return one


def _block() -> socket.socket:
    """Take a block that nobody has. Raises RuntimeError if there is none."""
    firsts = list(BELOW[::BLOCK])
    for first in random.sample(firsts, len(firsts)):
        with suppress(OSError):
            return bound(first)
    raise RuntimeError(f"all {len(firsts)} blocks of ports from {BELOW[0]} to {BELOW[-1]} are taken")


def _rest(held: socket.socket) -> range:
    first: int = held.getsockname()[1]
    return range(first + 1, first + BLOCK)


_ours = Ports()
