"""How `make setup` installs: by uv from where pip is told to, by pip where uv cannot, and never without hashes."""

import os
import sys
from pathlib import Path

import pytest

from tests import install_packages

TOLD = {
    "PIP_INDEX_URL": "https://index.example/python",
    "PIP_EXTRA_INDEX_URL": "https://a.example/python https://b.example/python",
    "PIP_TRUSTED_HOST": "index.example",
    "PIP_CLIENT_CERT": "/etc/ours.pem",
    "PIP_PROXY": "http://proxy.example:3128",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pip is told nothing; both programs write down how they were called, and do what the file `uv` or `pip` says."""
    for name in ("index-url", "extra-index-url", "trusted-host", "cert", "client-cert", "proxy", "find-links", "no-index"):
        monkeypatch.delenv(f"PIP_{name.upper().replace('-', '_')}", raising=False)
    for name in ("UV_DEFAULT_INDEX", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # and no other file is read
    for name in ("uv", "python"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $* $UV_DEFAULT_INDEX $SSL_CERT_FILE" >> {tmp_path}/calls\nexit "$(cat {program}.code)"\n'
        )
        program.chmod(0o755)
        (tmp_path / f"{name}.code").write_text("0")
    monkeypatch.setattr(install_packages, "UV", tmp_path / "uv")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def words() -> dict[str, str]:
    return install_packages.environment(install_packages.told())


def calls(machine: Path) -> list[str]:
    return (machine / "calls").read_text().splitlines()


def test_uv_looks_where_pip_does_by_whatever_pip_was_told_it(machine: Path, monkeypatch: pytest.MonkeyPatch):
    (machine / "pip.conf").write_text("[global]\nindex-url = https://file.example/python\ncert = /etc/authorities.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(machine / "pip.conf"))
    assert install_packages.main("lock.txt") == 0
    (call,) = calls(machine)
    assert call.endswith("-r lock.txt https://file.example/python /etc/authorities.pem")
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{machine} {machine}/none https://links.example/")
    assert words() == {
        "UV_DEFAULT_INDEX": TOLD["PIP_INDEX_URL"],
        "UV_INDEX": TOLD["PIP_EXTRA_INDEX_URL"],
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{machine},https://links.example/",
        "UV_INSECURE_HOST": TOLD["PIP_TRUSTED_HOST"],
        "SSL_CERT_FILE": "/etc/authorities.pem",
        "SSL_CLIENT_CERT": TOLD["PIP_CLIENT_CERT"],
        "HTTP_PROXY": TOLD["PIP_PROXY"],
        "HTTPS_PROXY": TOLD["PIP_PROXY"],
    }


def test_where_pip_is_told_nothing_uv_is_told_no_place(machine: Path):
    assert words() == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_where_pip_may_use_no_index_uv_uses_none(machine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert install_packages.main("lock.txt") == 0
    assert "--no-index" in calls(machine)[0].split()


@pytest.mark.parametrize("gone", [False, True], ids=["fails", "is not there"])
def test_where_uv_cannot_pip_does_it_and_says_whether_it_could(machine: Path, capfd: pytest.CaptureFixture[str], gone: bool):
    (machine / "uv.code").write_text("1")
    (machine / "python.code").write_text("7")
    if gone:
        (machine / "uv").unlink()
    assert install_packages.main("lock.txt") == 7
    assert calls(machine)[-1].startswith("python -m pip install --quiet --require-hashes")
    assert "pip does it" in capfd.readouterr().err


def test_neither_installs_what_has_no_hash(machine: Path):
    (machine / "uv.code").write_text("1")
    install_packages.main("lock.txt")
    assert [("--require-hashes" in call) for call in calls(machine)] == [True, True]
