"""Ports of loopback that nobody listened on a moment ago."""

import itertools
import random
import socket
from contextlib import ExitStack, suppress

BELOW = range(10_000, 32_000)  # the system gives these to no outgoing connection: those above any client may take at any moment
# Each once, from somewhere on: two tests of a run never get the same, and two runs at a time hardly ever.
_ports = itertools.islice(itertools.cycle(BELOW), random.choice(range(len(BELOW))), None)


def free_ports(count: int) -> list[int]:
    """`count` different ones."""
    with ExitStack() as held:
        return [held.enter_context(_free()).getsockname()[1] for _ in range(count)]


def free_block(count: int) -> int:
    """The first of `count` ports in a row."""
    while True:
        with ExitStack() as held:
            first: int = held.enter_context(_free()).getsockname()[1]
            try:
                for port in range(first + 1, first + count):
                    next(_ports)
                    held.enter_context(_bound(port))
            except OSError:  # one is taken
                continue
            return first


def _free() -> socket.socket:
    while True:
        with suppress(OSError):
            return _bound(next(_ports))


def _bound(port: int) -> socket.socket:
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except BaseException:
        one.close()
        raise
    return one
