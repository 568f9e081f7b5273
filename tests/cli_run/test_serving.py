"""`connector run` by the shortest way: it is told what the tree of commands would be told; what it does not understand is the tree's."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.cli import run
from connector.cli.commands import run_command_line
from connector.cli_run import serving
from tests.free_ports import free_block


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["run"], None),
        (["run"], "of/the variable.toml"),
        (["run", "--config", "a b.toml"], None),
        (["run", "--config", "./~/x"], "of the variable"),
        (["run", "--config", ""], None),
        (["run", "--config=a.toml"], None),
        (["run", "--config", "a", "--json"], None),
        (["run", "--config", "--json"], None),
        (["run", "--config"], None),
        (["run", "--help"], None),
        (["run", "a"], None),
        (["check"], None),
    ],
)
def test_who_is_told_where_the_settings_are_is_told_the_same_as_by_the_tree(
    arguments: list[str], variable: str | None, monkeypatch: pytest.MonkeyPatch
):
    by_the_tree: list[Path] = []
    monkeypatch.setattr(run, "serve", by_the_tree.append)
    monkeypatch.delenv("QIAO_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("QIAO_CONFIG", variable)
    found = serving.told(arguments, {} if variable is None else {"QIAO_CONFIG": variable})
    run_command_line(arguments)
    assert found is None or by_the_tree == [found]


@pytest.mark.parametrize("arguments", [["run"], ["run", "--config", "x"]])
def test_who_runs_a_connector_as_everybody_does_needs_no_tree(arguments: list[str]):
    assert serving.told(arguments, {}) is not None


LOADED = """
import gc, ssl
from connector.cli_run.serving import loading
before = ssl.create_default_context().cert_store_stats()
with loading():
    off = not gc.isenabled()
    import aiohttp.connector as library
theirs = [each.cert_store_stats()["x509"] for each in (library._SSL_CONTEXT_VERIFIED, library._SSL_CONTEXT_UNVERIFIED)]
assert (theirs, library._SSL_CONTEXT_VERIFIED.verify_mode) == ([0, 0], ssl.CERT_REQUIRED), "what nobody uses believes nobody"
assert ssl.create_default_context().cert_store_stats() == before, "and what is made from then on believes whom the system does"
assert (off, gc.isenabled(), gc.get_freeze_count() > 0) == (True, True, True)
"""


def test_a_start_spends_no_time_on_garbage_and_on_authorities_for_nobody():
    subprocess.run([sys.executable, "-c", LOADED], check=True)


FEW = """
import resource
from connector.cli_run.serving import _open_as_many_files_as_may_be
for hard in (4096, 256):
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    _open_as_many_files_as_may_be()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_a_connector_may_open_as_many_files_as_its_system_lets_it():
    subprocess.run([sys.executable, "-c", FEW], check=True)


# What is not Python's own and a connector needs before it is ready; whatever else is loaded for the first that uses it.
# fmt: off
NEEDED = {
    "aiohttp", "aiohappyeyeballs", "aiosignal", "attr", "frozenlist", "multidict", "propcache", "typing_extensions", "yarl", "idna",  # HTTP
    "jsonschema_rs", "msgspec", "orjson", "_orjson",  # messages
    "nacl", "_cffi_backend", "cbor2", "_cbor2", "rfc8785",  # what is signed
    "aiodns", "backports", "brotli", "brotlicffi", "org",  # which others look for, and go without
}
# fmt: on


def of_the_interpreter() -> set[str]:
    """What this installation of Python loads by itself, whatever it runs (Debian's reports crashes by a module of its own)."""
    ran = subprocess.run([sys.executable, "-X", "importtime", "-c", ""], stderr=subprocess.PIPE, text=True, check=True)
    return {name.partition(".")[0] for name in names(ran.stderr.splitlines())}


def test_a_connector_that_is_ready_has_loaded_what_it_needs_and_nothing_else(tmp_path: Path):
    """A real one, of which Python says what it loads as it does."""
    own = ("--name", "hospital", "--id", "did:web:hospital.example", "--role", "hospital", "--development")
    assert run_command_line(["init", *own, "--directory", str(tmp_path), "--port", str(free_block(4))]) == 0
    command = [sys.executable, "-X", "importtime", "-m", "connector", "run", "--config", str(tmp_path / "connector.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ, QIAO_TELEMETRY_LOG_FORMAT="json")) as process:
        try:
            assert process.stderr is not None
            loaded = ready(process.stderr)
            assert {"connector.app"} <= loaded
            assert "connector.cli.commands" not in loaded
            assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"connector"} - of_the_interpreter() <= NEEDED
            assert "yaml" in names(process.stderr), "and what reads the words of policies comes before the first policy does"
            process.send_signal(signal.SIGTERM)
            assert not process.stderr.read().count("Traceback")
            assert process.wait() == 0
        finally:
            process.kill()


def ready(lines: Iterator[str]) -> set[str]:
    """What is loaded until the connector says that it is ready."""
    found = set()
    for line in lines:
        if '"event":"ready"' in line:
            return found
        found.update(IMPORTED.findall(line))
    raise AssertionError("it has ended")


def names(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield from IMPORTED.findall(line)


IMPORTED = re.compile(r"import time:[ 0-9|]+ ([\w.]+)$", re.MULTILINE)
