"""`connector run` by the shortest way: it is told what the tree of commands would be told; what it does not understand is the tree's."""

import subprocess
import sys
from pathlib import Path

import pytest

from connector.cli import run
from connector.cli.commands import run_command_line
from connector.cli_run import serving


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
