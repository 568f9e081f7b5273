"""`make tck`: the official kit against the product. The closing line of a clean run is `65 passed, 0 failed, 2 skipped`.

Options: `--only CN:01-02` runs one test; `--self-check` runs all against an address where nobody listens and demands 65
failures, which shows that this harness can be red.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.free_ports import free_ports
from tests.tck import config, kit, report

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "tck"
READY = "ready"  # the line by which the system under test says that its listeners are up
READY_SECONDS = 30
STOP_SECONDS = 20  # after SIGTERM: the product drains
NOBODY = "0 passed, 65 failed, 2 skipped"


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 for a clean run, or for a skip outside CI; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.tck", description="runs the official DSP compatibility kit against the product")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--only", metavar="TEST", help="one test, such as CN:01-02")
    choice.add_argument("--self-check", action="store_true", help="against nobody: 65 failures are right")
    options = parser.parse_args(arguments)
    if reason := kit.missing():
        print(f"skipped: {reason}")
        return 1 if os.environ.get("CI") else 0
    try:
        if options.only:
            kit.method(options.only)  # a mistyped name should not cost a start of everything
        kit.fetch(BUILD / "lib")
        ports = config.Ports(*free_ports(3))
        if options.self_check:
            return _run(ports, expected=NOBODY)
        with system_under_test(ports):
            return _run(ports, only=options.only)
    except (kit.KitError, subprocess.TimeoutExpired) as error:
        print(f"failed: {error}")
        return 1


def _run(ports: config.Ports, only: str | None = None, expected: str = report.CLEAN) -> int:
    found = report.read(kit.run(BUILD / "lib", BUILD, config.properties(config.settings(ports)), only))
    for failure in found.failures:
        print(f"FAILED {failure.name} | {failure.message}")
    print(found.line)
    if only:
        return int(not (found.passed or found.skipped) or bool(found.failed))
    if found.line != expected:
        print(f"expected: {expected}; logs in {BUILD.relative_to(ROOT)}", file=sys.stderr)
    return int(found.line != expected)


@contextmanager
def system_under_test(ports: config.Ports) -> Iterator[None]:
    """Run `tests.tck.cut` with a fresh state directory while the body runs. Raises KitError if it does not say that it is
    ready, or if it does not end in order when asked to."""
    state, log = BUILD / "state", BUILD / "connector.log"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "tests.tck.cut", "--directory", str(state), "--port", str(ports.protocol)),
        *("--initiate-port", str(ports.initiate), "--kit", ports.kit_address),
    ]
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT) as child:
        try:
            _await_ready(child, log)
            yield
            child.terminate()
            if code := child.wait(STOP_SECONDS):
                raise kit.KitError(f"the system under test ended with {code} after SIGTERM, not with 0; see {log}")
        finally:
            if child.poll() is None:
                child.kill()


def _await_ready(child: "subprocess.Popen[str]", log: Path) -> None:
    """Wait for the line. A thread goes on reading afterwards, so that the child never blocks on a full pipe."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def drain() -> None:
        for line in child.stdout or ():
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=drain, daemon=True).start()
    try:
        while (line := lines.get(timeout=READY_SECONDS)) != READY:
            if line is None:
                raise kit.KitError(f"the system under test ended before it was ready:\n{log.read_text()[-2000:]}")
    except queue.Empty:
        raise kit.KitError(f"the system under test was not ready within {READY_SECONDS} s:\n{log.read_text()[-2000:]}") from None


if __name__ == "__main__":
    sys.exit(main())
