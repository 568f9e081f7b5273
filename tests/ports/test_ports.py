"""Ports are given to one process alone, long before anybody listens on them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from tests.faults.home import ROOT
from tests.free_ports import BELOW, BLOCK, HELD_MAX, Ports, bound, free_block, free_ports

ANOTHER = """
import sys
from tests.free_ports import free_block, free_ports
print(*free_ports(200), *(first + n for first in map(free_block, [8] * 20) for n in range(8)), flush=True)
sys.stdin.read()
"""


def test_ports_are_different_and_can_be_listened_on():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with bound(port) as one:
            one.listen()


def test_a_block_lies_in_a_row_and_passes_over_what_is_taken():
    first = free_block(3)
    with bound(first + 4) as taken:
        taken.listen()
        for start in (free_block(4), free_block(4)):
            assert taken.getsockname()[1] not in range(start, start + 4)


def test_programs_that_run_at_a_time_are_never_given_the_same_port_though_nobody_listens():
    with ExitStack() as running:
        programs = [
            running.enter_context(
                subprocess.Popen([sys.executable, "-c", ANOTHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(3)
        ]
        given = [port for program in programs if program.stdout for port in program.stdout.readline().split()]
    assert len(given) == 3 * 360
    assert len(set(given)) == len(given)


def test_threads_that_take_blocks_side_by_side_get_none_twice():
    with closing(Ports()) as ports, ThreadPoolExecutor(8) as threads:
        firsts = list(threads.map(ports.row, [4] * 100))
    given = [first + number for first in firsts for number in range(4)]
    assert len(set(given)) == len(given)


def test_a_process_that_asks_for_ever_comes_back_to_its_own_ports():
    seen: list[int] = []
    with closing(Ports()) as ports:
        for _ in range(2 * HELD_MAX * BLOCK):
            with ports.one() as one:
                seen.append(one.getsockname()[1])
    assert set(seen) <= set(BELOW)
    assert len(set(seen)) >= HELD_MAX * (BLOCK - 2)
    assert len({(port - BELOW[0]) // BLOCK for port in seen}) == HELD_MAX
    assert all((port - BELOW[0]) % BLOCK for port in seen), "the first one of a block is what keeps it"


def test_more_in_a_row_than_a_block_has_are_an_error():
    with pytest.raises(ValueError, match="40 ports are more than a block of 40 has"):
        free_block(BLOCK)
