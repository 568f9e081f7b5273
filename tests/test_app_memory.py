"""The memory of a connector that has started."""

import subprocess
import sys
from pathlib import Path

import pytest

from connector import app_memory

ROOT = Path(__file__).parents[1]
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Two mappings of 10 MiB: one is full, of the other every second page is there. In a process of its own, which is small, and whose memory
# comes in small pages also where the system gives everybody huge ones.
MOVED = """
import ctypes, mmap, re
from connector.app_memory import gather

SIZE, PAGE = 10 << 20, mmap.PAGESIZE

def made(step):
    mapping = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, SIZE, step):
        mapping[at] = at // PAGE % 251
    return mapping

def kept(mapping, step):
    return all(mapping[at] == at // PAGE % 251 for at in range(0, SIZE, step))

def kib(name):
    return sum(map(int, re.findall(rf"^{name}: +([0-9]+) kB", open("/proc/self/smaps").read(), re.M)))

thp_disable = 41  # prctl(2)
ctypes.CDLL(None).prctl(thp_disable, 1, 0, 0, 0)
full, holes = made(PAGE), made(2 * PAGE)
ctypes.CDLL(None).prctl(thp_disable, 0, 0, 0, 0)
before = kib("Rss")
moved = gather()
grown, huge = kib("Rss") - before, kib("AnonHugePages")
print(moved, huge // 2048, grown, kept(full, PAGE) and kept(holes, 2 * PAGE))
"""


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this kernel gives no huge pages")
def test_what_is_full_is_moved_into_huge_pages_and_nothing_becomes_resident_for_it():
    ran = subprocess.run([sys.executable, "-c", MOVED], cwd=ROOT, capture_output=True, text=True, check=True)
    moved, huge, grown_kib, same = ran.stdout.split()
    assert same == "True"
    assert int(grown_kib) < 2048, "ctypes is new, and a sixteenth of a huge page at most; what has holes would be 5 MiB more"
    # Before Linux 6.1, or in a sandbox that has no pagemap, none is; where memory is in pieces not all are, and some may have been before.
    assert int(moved) <= int(huge)


def test_a_system_that_does_not_say_what_is_where_keeps_it_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app_memory, "SELF", tmp_path)
    assert app_memory.gather() == 0


def test_a_system_that_says_less_than_it_has_and_names_files_in_another_encoding_keeps_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app_memory, "SELF", tmp_path)
    (tmp_path / "maps").write_bytes(
        b"7f0000000000-7f0000800000 rw-p 00000000 00:00 0 \n7f0000900000-7f0000901000 r--p 00000000 08:01 7 /lib/caf\xe9.so\n"
    )
    (tmp_path / "pagemap").write_bytes(b"")
    assert app_memory.gather() == 0


def test_a_python_without_ctypes_keeps_it_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app_memory, "_full", lambda: iter([0]))
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert app_memory.gather() == 0


SETTLED = """
import gc, weakref
from connector.app_memory import settle

class Ring:
    pass

def dropped():
    ring = Ring()
    ring.itself = ring
    return weakref.ref(ring)

gc.disable()
imported = dropped()
gc.freeze()
started = dropped()
settle()
assert started() is None, "what the start has left is gone"
assert imported() is not None, "and what was imported was not looked through"
assert gc.get_freeze_count() > 0
"""


def test_what_was_imported_is_not_looked_through_before_a_connector_is_ready():
    subprocess.run([sys.executable, "-c", SETTLED], cwd=ROOT, check=True)
