"""The process that compiles: what comes out of it, and what it says when nothing does."""

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connector.lanes import compiling, hashing
from tests.lanes.compiled import code_of

ROOT = Path(__file__).parents[2]


def ran(text: str, *, before: str = "") -> subprocess.CompletedProcess[str]:
    """The program, with this for the text of the kernel."""
    text_of = f"from connector.lanes import compiling, kernel\nkernel.text = lambda lanes: {text!r}"
    program = f"import sys\n{before}\n{text_of}\nsys.exit(compiling.main(16))"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)


def test_code_comes_out_that_refers_to_nothing():
    code = code_of(16)
    assert len(code) > 4_000
    assert len(code) < 100_000


@pytest.mark.parametrize(
    ("text", "before", "says"),
    [
        ("this is no module", "", "LLVM refuses the kernel"),
        ("@k = constant i32 7\ndefine i32 @f() {\n%v = load i32, ptr @k\nret i32 %v\n}", "", "refers to something beside itself"),
        ("declare void @g()\ndefine void @f() {\ncall void @g()\nret void\n}", "", "refers to something beside itself"),
        ("", "", "refers to something beside itself"),
        ("define void @f() {\nret void\n}", "sys.modules['llvmlite'] = None", "llvmlite cannot be used"),
    ],
    ids=["no text", "a constant", "a function of others", "nothing", "no library"],
)
def test_what_cannot_be_put_anywhere_is_refused_with_a_reason(text: str, before: str, says: str):
    done = ran(text, before=before)
    assert done.returncode == compiling.REFUSED
    assert says in done.stderr
    assert not done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is one of x86 processors")
def test_code_that_this_processor_cannot_run_ends_its_compiler_and_nobody_else():
    done = ran("declare void @llvm.trap()\ndefine void @leaves() {\ncall void @llvm.trap()\nret void\n}")
    assert (done.returncode, done.stdout) == (-signal.SIGILL, "")


def test_code_that_hashes_wrongly_does_not_come_out():
    done = ran("define void @leaves() {\nret void\n}")
    assert (done.returncode, done.stdout) == (compiling.REFUSED, "")
    assert done.stderr == "the kernel has hashed 0 bytes wrongly"


@pytest.mark.skipif(not compiling.OOM_SCORE.exists(), reason="this system does not choose by a score")
def test_where_memory_is_short_the_compiler_ends_and_not_the_connector():
    done = ran("no module", before=f"import atexit\natexit.register(lambda: print(open('{compiling.OOM_SCORE}').read()))")
    assert done.stdout.strip() == "1000"


def test_it_is_the_program_that_is_called():
    assert compiling.__name__ == hashing.COMPILER
