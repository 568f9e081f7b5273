"""The order of the run: skip, red in CI, and a system under test that does not come up or does not go down in order."""

import sys

import pytest

from tests.tck import __main__ as tck
from tests.tck import kit
from tests.tck.config import Ports

PORTS = Ports(1, 2, 3)


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Returns a function that makes a Python program stand in for the system under test."""
    monkeypatch.setattr(tck, "BUILD", tmp_path / "build")

    def stand_in(program: str) -> None:
        wrapper = tmp_path / "python"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
        wrapper.chmod(0o755)
        monkeypatch.setattr(tck.sys, "executable", str(wrapper))

    return stand_in


def test_without_java_it_is_skipped_with_the_reason_and_red_in_ci(monkeypatch, capsys):
    monkeypatch.setattr(kit, "missing", lambda: "`java` not found")
    monkeypatch.delenv("CI", raising=False)
    assert tck.main([]) == 0
    assert capsys.readouterr().out == "skipped: `java` not found\n"
    monkeypatch.setenv("CI", "true")
    assert tck.main([]) == 1


def test_a_child_that_is_ready_and_ends_in_order_is_fine(child):
    child("import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('noise'); print('ready', flush=True); signal.pause()")
    with tck.system_under_test(PORTS):
        assert (tck.BUILD / "state").is_dir()


def test_a_child_that_dies_before_it_is_ready_is_an_error_with_its_last_words(child):
    child("raise SystemExit('no settings')")
    with pytest.raises(kit.KitError, match="ended before it was ready:\nno settings"), tck.system_under_test(PORTS):
        pytest.fail("the body ran")


def test_a_child_that_does_not_get_ready_in_time_is_an_error_and_is_stopped(child, monkeypatch):
    monkeypatch.setattr(tck, "READY_SECONDS", 0.2)
    child("import signal; signal.pause()")
    with pytest.raises(kit.KitError, match=r"not ready within 0\.2 s"), tck.system_under_test(PORTS):
        pytest.fail("the body ran")


def test_a_child_that_does_not_end_with_zero_after_sigterm_is_an_error(child):
    child("import signal; print('ready', flush=True); signal.pause()")
    with pytest.raises(kit.KitError, match="ended with -15 after SIGTERM, not with 0"), tck.system_under_test(PORTS):
        pass
