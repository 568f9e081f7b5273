"""`connector run`, `check`, `demo`: what they hand over, and what they find before."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme

from tests.cli.conftest import Command

OWN = ("--name", "hospital", "--id", "did:web:hospital.example", "--role", "hospital", "--development")


@pytest.fixture
def home(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert command("init", *OWN, "--directory", str(tmp_path)).code == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_in_order_are_said_to_be(command: Command, home: Path):
    ended = command("check")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "the settings at connector.toml are in order: hospital (did:web:hospital.example)\n"
    assert json.loads(command("check", "--json").out)["mistakes"] == []


def test_mistakes_in_files_are_all_reported(command: Command, home: Path):
    (key,) = (home / "keys").glob("*.key")
    key.write_text("{}")
    (home / "participants" / "peer.jsonld").write_text("[")
    (home / "c.pem").write_text("not a certificate")
    text = (
        (home / "connector.toml")
        .read_text()
        .replace('certificate = ""', 'certificate = "c.pem"', 1)
        .replace('key = ""', 'key = "c.pem"', 1)
    )
    (home / "connector.toml").write_text(text)
    ended = command("check")
    assert ended.code == 1
    for says in (key.name, "`peer.jsonld`: is not JSON", "c.pem"):
        assert says in ended.err


def test_a_self_description_that_peers_are_given_and_that_is_of_before_is_reported(command: Command, home: Path):
    """Its file was written by `init`; what the settings or the keys say by now is what a running connector says of itself."""
    settings, path = home / "connector.toml", home / "participants" / "hospital.jsonld"
    settings.write_text(settings.read_text().replace('url = ""', 'url = "https://dsp.hospital.example"', 1))
    known = json.loads(path.read_text())
    was, (key,) = known["endpoints"]["protocol"], known["keys"]
    path.write_text(json.dumps(known | {"keys": [key | {"@id": f"{known['@id']}#another"}]}))
    ended = command("check")
    assert ended.code == 1
    assert f"has `{was}` for `endpoints.protocol`, and it is `https://dsp.hospital.example/dsp/2025-1`; put what" in ended.err
    assert f"has `another` for `keys`, and it is `{key['@id'].partition('#')[2]}`; put what" in ended.err
    path.unlink()
    assert command("check").code == 0, "whether ours is there is nobody's business but ours"


def test_a_catalog_of_somebody_unknown_that_ours_is_to_point_to_is_reported(command: Command, home: Path):
    settings = home / "connector.toml"
    text = settings.read_text()
    assert text.count("nested = []") == 1
    settings.write_text(text.replace("nested = []", 'nested = ["hospital", "labb"]'))
    ended = command("check")
    assert ended.code == 1
    assert "`catalog.nested` names `labb`, which is no participant of the registry; put its self-description into" in ended.err
    assert "names `hospital`" not in ended.err


def test_a_certificate_that_is_not_for_the_address_that_is_dialled_is_told_and_no_mistake(command: Command, home: Path):
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(home / "pair.pem"))
    settings, (own,) = home / "connector.toml", (home / "participants").iterdir()
    text = settings.read_text().replace('certificate = ""', 'certificate = "pair.pem"', 3).replace('key = ""', 'key = "pair.pem"', 3)
    settings.write_text(text.replace('url = ""', 'url = "https://localhost:8080"', 1))
    own.unlink()
    ended = command("check")
    assert (ended.code, "are in order" in ended.out) == (0, True), ended.err
    told = [line.partition(",")[0] for line in ended.err.splitlines()]
    assert told == [f"warning: `{name}.url` is `https://127.0.0.1:{port}`" for name, port in (("data", 8081), ("management", 8082))]
    assert "is not for `127.0.0.1` but for `localhost`" in ended.err
    assert json.loads(command("check", "--json").out)["warnings"] == [line.removeprefix("warning: ") for line in ended.err.splitlines()]


@pytest.mark.parametrize("name", ["check", "run"])
def test_mistakes_in_fields_and_in_files_are_one_round(command: Command, home: Path, name: str):
    """Each line of the answer is a mistake of its own, and each mistake is there once."""
    (key,) = (home / "keys").glob("*.key")
    key.write_text("{}")
    (home / "participants" / "peer.jsonld").write_text("[")
    (home / "admin-token.sha256").write_text("no hash")
    (home / "ca.pem").write_text("no certificate")
    settings = home / "connector.toml"
    text = settings.read_text().replace('ca_file = ""', 'ca_file = "ca.pem"').replace("catalog_page = 100", "catalog_page = 0")
    settings.write_text(f"{text}\n[limit]\n")
    ended = command(name)
    assert ended.code == 1
    said = [line for line in ended.err.splitlines() if line.startswith("  - ")]
    for says in ("`limit` is not a section", "`limits.catalog_page`", key.name, "`peer.jsonld`", "token_hash_file", "`egress.ca_file`"):
        assert len([line for line in said if says in line]) == 1, (says, ended.err)
    assert len(said) == 6


@pytest.mark.parametrize("name", ["check", "run"])
def test_the_files_of_a_field_that_is_wrong_itself_are_left_alone(command: Command, home: Path, name: str):
    """They would be those of the default, of which nobody has spoken."""
    (key,) = (home / "keys").glob("*.key")
    key.write_text("{}")
    (home / "participants" / "peer.jsonld").write_text("[")
    settings = home / "connector.toml"
    settings.write_text(settings.read_text().replace('directory = "keys"', "directory = 5"))
    ended = command(name)
    assert "`keys.directory` is 5" in ended.err
    assert "`peer.jsonld`" in ended.err
    assert key.name not in ended.err


@pytest.mark.parametrize("name", ["check", "run"])
def test_settings_that_cannot_work_start_nothing(command: Command, home: Path, name: str):
    (home / "admin-token.sha256").unlink()
    ended = command(name)
    assert ended.code == 1
    assert "`management.token_hash_file`" in ended.err
    assert "run `connector token`" in ended.err


def test_run_hands_settings_and_their_origin_to_the_product(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch):
    given: dict[str, Any] = {}
    app = ModuleType("connector.app")
    app.run = lambda settings, **options: given.update(options, settings=settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "connector.app", app)
    monkeypatch.setattr(sys.modules["connector"], "app", app, raising=False)
    monkeypatch.setenv("QIAO_OPS_PORT", "9999")
    assert command("run").code == 0
    assert given["settings"].participant.name == "hospital"
    assert given["settings"].ops.port == 9999
    assert given["path"] == Path("connector.toml")
    assert given["environ"]["QIAO_OPS_PORT"] == "9999"


@pytest.mark.parametrize(("arguments", "keep"), [((), False), (("--keep",), True)])
def test_the_demo_gets_its_option_and_gives_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], keep: bool
):
    given: list[bool] = []

    def main(*, keep: bool) -> int:
        given.append(keep)
        return 3

    demo = ModuleType("connector.cli.demo")
    demo.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "connector.cli.demo", demo)
    assert command("demo", *arguments).code == 3
    assert given == [keep]
