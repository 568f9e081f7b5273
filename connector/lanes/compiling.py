"""A process of its own in which LLVM makes machine code of a kernel, to stdout, behind its
SHA-256: `python -m connector.lanes.compiling LANES`.

LLVM ends the process that it is in when something goes wrong, and stays in its memory when it is done. Here neither matters to a
connector. What comes out has no reference to anything, so that it can be put anywhere; what has one is refused. It was run here: an
instruction that this processor does not have ends no other process.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from connector.lanes import hashing, kernel, lines
from connector.lanes.machine import Forbidden, Kernel, joined

CPU_SECONDS: Final = 60
REFUSED: Final = 3  # exit status; the reason stands in stderr
OPTIMISED: Final = 2  # of 0 to 3: 0 has half the speed where there are few registers, and 3 no more than this
NICE: Final = 10  # nobody waits for it
OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
ENDS_FIRST: Final = "1000"  # where memory is short, as it takes 100 MB for a moment: not the connector


class Uncompiled(Exception):
    """There is no such code, and why."""


def compiled(text: str, processor: str = "", features: str = "") -> bytes:
    """The machine code of a module with one function in LLVM's intermediate representation, for a `processor` by LLVM's name with these
    `features`, or, without a name, for the one that this is. Raises Uncompiled."""
    try:
        from llvmlite import binding
    except (ImportError, OSError) as error:
        raise Uncompiled(f"llvmlite cannot be used: {error}") from None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    if not processor:
        processor, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    try:
        module = binding.parse_assembly(text)
        module.verify()
        target = binding.Target.from_default_triple()
        machine = target.create_target_machine(cpu=processor, features=features, opt=OPTIMISED, reloc="pic", codemodel="small")
        file = binding.ObjectFileRef.from_data(machine.emit_object(module))
        code, names = list[bytes](), list[str]()
        for section in file.sections():  # each is gone with the next
            names.append((section.name() or b"").decode())
            if section.is_text() and section.size():
                code.append(bytes(section.data()))
    except (RuntimeError, ValueError) as error:
        raise Uncompiled(f"LLVM refuses the kernel: {error}") from None
    if len(code) != 1 or any(name.startswith((".rodata", ".rela.text", ".rel.text")) for name in names):
        raise Uncompiled("the code for this processor refers to something beside itself")
    return code[0]


def main(lanes: int) -> int:
    """Returns the exit status."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    with suppress(OSError):
        OOM_SCORE.write_text(ENDS_FIRST)
    try:
        code = joined(compiled(kernel.text(lanes)), compiled(lines.TEXT))
        hashing.check(Kernel(code, lanes))
    except (Uncompiled, hashing.Unused, Forbidden) as refused:
        sys.stderr.write(str(refused))
        return REFUSED
    sys.stdout.buffer.write(hashing.with_digest(code))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
