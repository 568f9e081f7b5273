"""`connector init`: a connector that can start, secrets that only their owner reads, and nothing overwritten. `connector token`: a lost
admin token has a successor, the one before ends, and nobody else reads it."""

import fcntl
import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from connector.adapters.keys import Keys, replace_file
from connector.adapters.registry import Registry
from connector.api import dsp_api
from connector.app_settings import token_hash
from connector.cli.init import DSP_PATH
from connector.settings import SECTIONS, load
from connector.settings.fields import fields_of, is_section
from tests.cli.conftest import Command, Ended, no_file_over

OWN = ("--name", "hospital", "--id", "did:web:hospital.example", "--role", "hospital")


@pytest.fixture
def made(command: Command, tmp_path: Path) -> tuple[Path, Ended]:
    ended = command("init", *OWN, "--directory", str(tmp_path / "h"), "--development")
    assert ended.code == 0, ended.err
    return tmp_path / "h", ended


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def token_in(printed: str) -> str:
    found = re.search(r"admin token, shown this once: (\S+)", printed)
    assert found
    return found[1]


def test_what_is_written_can_be_loaded_and_used(made: tuple[Path, Ended]):
    home, _ = made
    settings = load(home / "connector.toml", {})
    assert (settings.participant.id, settings.participant.name, settings.participant.role) == (
        "did:web:hospital.example",
        "hospital",
        "hospital",
    )
    key = Keys(settings.keys.directory, settings.participant.id).active(2e9)
    member = Registry(settings.registry.directory).find("hospital")
    assert member is not None
    assert member.protocol == "http://127.0.0.1:8080/dsp/2025-1"
    assert Registry(settings.registry.directory).key(key.key.kid) == key.key


def test_secrets_are_readable_by_their_owner_only(made: tuple[Path, Ended]):
    home, _ = made
    (key,) = (home / "keys").glob("*.key")
    assert (mode(key), mode(home / "keys"), mode(home / "admin-token.sha256")) == (0o600, 0o700, 0o600)
    assert mode(home / "connector.toml") == 0o644


def test_secrets_are_safe_whatever_the_umask_is(command: Command, tmp_path: Path):
    before = os.umask(0)
    try:
        assert command("init", *OWN, "--directory", str(tmp_path / "h"), "--development", "--save-token").code == 0
    finally:
        os.umask(before)
    assert {mode(path) for path in [*(tmp_path / "h" / "keys").iterdir(), *(tmp_path / "h").glob("admin-token*")]} == {0o600}
    assert {mode(tmp_path / "h" / name) for name in (".", "participants", "data")} == {0o755}, "who writes there says whom we trust"


def test_the_token_is_shown_once_and_only_its_hash_is_kept(made: tuple[Path, Ended]):
    home, ended = made
    token = token_in(ended.out)
    assert ended.out.count(token) == 1
    assert (home / "admin-token.sha256").read_text() == f"{hashlib.sha256(token.encode()).hexdigest()}\n"
    assert not [path for path in home.rglob("*") if path.is_file() and token in path.read_text()]


def test_the_token_is_saved_when_asked_for(command: Command, tmp_path: Path):
    ended = command("init", *OWN, "--directory", str(tmp_path), "--development", "--save-token")
    assert (tmp_path / "admin-token").read_text().strip() == token_in(ended.out)
    assert mode(tmp_path / "admin-token") == 0o600


def test_what_the_disk_did_not_take_is_named_and_the_next_time_finds_nothing_in_its_way(command: Command, tmp_path: Path):
    at = ("init", *OWN, "--directory", str(tmp_path / "h"), "--development")
    with no_file_over(1000):  # the key is shorter, the self-description is not
        ended = command(*at)
    assert (ended.code, f"`{tmp_path}/h/participants/hospital.jsonld` cannot be written: File too large" in ended.err) == (1, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert command(*at).code == 0


def test_each_connector_has_its_own_token_and_key(command: Command, tmp_path: Path):
    tokens = {token_in(command("init", *OWN, "--development", "--directory", str(tmp_path / n)).out) for n in "ab"}
    seeds = {json.loads(path.read_text())["seed"] for path in tmp_path.rglob("*.key")}
    assert len(tokens) == len(seeds) == 2


def test_the_file_has_every_setting_with_its_documentation(made: tuple[Path, Ended]):
    text = (made[0] / "connector.toml").read_text()
    document = tomllib.loads(text)
    for section, cls in SECTIONS.items():
        assert section in document
        for spec in fields_of(cls) if is_section(cls) else ():
            assert spec.name in document[section]
            assert f"  # {spec.says.doc}\n" in text


@pytest.mark.parametrize("there", ["connector.toml", "admin-token.sha256", "participants/hospital.jsonld", "keys/old.key"])
def test_nothing_is_overwritten(command: Command, tmp_path: Path, there: str):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    ended = command("init", *OWN, "--directory", str(tmp_path), "--development")
    assert ended.code == 1
    assert f"`{path}` exists" in ended.err
    assert path.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--name", "a/b", "--id", "did:web:h.example", "--role", "r", "--development"), "`participant.name` is `a/b`"),
        (("--name", "a", "--id", "h.example", "--role", "r", "--development"), "`participant.id` is `h.example`, not a DID"),
        (("--name", "a", "--id", "did:key:z6Mk", "--role", "r"), "give `--host`"),
        ((*OWN, "--port", "65533"), "give one from 1 to 65532"),
        ((*OWN, "--port", "0"), "give one from 1 to 65532"),
        ((*OWN, "--development", "--host", "h.example"), "plain http is for loopback only"),
        ((*OWN, "--host", "h.example/x?y"), "`protocol.url`"),
    ],
)
def test_a_mistake_is_said_and_writes_nothing(command: Command, tmp_path: Path, arguments: tuple[str, ...], says: str):
    ended = command("init", *arguments, "--directory", str(tmp_path / "h"))
    assert ended.code == 1
    assert says in ended.err
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    ("did", "host", "url"),
    [
        ("did:web:hospital.example", (), "https://hospital.example:9000"),
        ("did:web:hospital.example%3A8443:path", (), "https://hospital.example:9000"),
        ("did:key:z6Mk", ("--host", "gw.example"), "https://gw.example:9000"),
    ],
)
def test_outside_of_development_peers_use_https(command: Command, tmp_path: Path, did: str, host: tuple[str, ...], url: str):
    assert command("init", "--name", "h", "--id", did, "--role", "r", "--port", "9000", *host, "--directory", str(tmp_path)).code == 0
    settings = load(tmp_path / "connector.toml", {})
    assert settings.protocol.url == url
    assert (settings.data.port, settings.management.port, settings.ops.port) == (9001, 9002, 9003)
    assert not settings.egress.http
    assert settings.egress.allow == ()


def test_text_with_quotes_and_other_alphabets_survives(command: Command, tmp_path: Path):
    role = 'klinik "桥" \\ 🏥'
    assert command("init", "--name", "krankenhaus_桥", "--id", "did:web:h.example", "--role", role, "--directory", str(tmp_path)).code == 0
    settings = load(tmp_path / "connector.toml", {})
    assert (settings.participant.name, settings.participant.role) == ("krankenhaus_桥", role)


def test_json_has_everything_that_a_program_needs(command: Command, tmp_path: Path):
    said = json.loads(command("init", *OWN, "--directory", str(tmp_path), "--json").out)
    assert Path(said["settings"]).is_file()
    assert Path(said["description"]).is_file()
    assert hashlib.sha256(said["token"].encode()).hexdigest() == (tmp_path / "admin-token.sha256").read_text().strip()


def test_a_directory_that_cannot_be_made_is_said(command: Command, tmp_path: Path):
    (tmp_path / "file").write_text("")
    ended = command("init", *OWN, "--development", "--directory", str(tmp_path / "file" / "h"))
    assert ended.code == 1
    assert "choose another `--directory`" in ended.err


def test_our_description_names_the_path_that_the_protocol_listener_serves():
    assert DSP_PATH == dsp_api.PATH


# ---- another token

AT = ("--config", "x/connector.toml")


@pytest.fixture
def shown(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new connector, whose token was shown and not saved."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QIAO_CONFIG", raising=False)
    assert command("init", *OWN, "--directory", "x", "--development").code == 0
    return tmp_path / "x"


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def counts(shown: Path, token: str) -> bool:
    """Whether the connector takes this token once it has read its files."""
    return token_hash(load(shown / "connector.toml", {})) == hashlib.sha256(token.encode()).digest()


def test_another_token_takes_the_place_of_one_that_was_lost(command: Command, shown: Path):
    lost = (shown / "admin-token.sha256").read_text()
    ended = command("token", *AT)
    token = ended.out.removeprefix("admin token, shown this once: ").rstrip()
    assert (ended.code, "SIGHUP" in ended.err, counts(shown, token)) == (0, True, True)
    assert (shown / "admin-token.sha256").read_text() != lost
    assert not [path for path in shown.rglob("*") if path.is_file() and token in path.read_text()]


def test_where_the_hash_is_gone_too_the_remedy_that_is_named_is_one(command: Command, shown: Path):
    (shown / "admin-token.sha256").unlink()
    assert "run `connector token`" in command("check", *AT).err
    assert command("token", *AT).code == 0
    assert command("check", *AT).code == 0


def test_a_token_that_was_saved_is_not_left_beside_the_one_that_counts(command: Command, shown: Path):
    for more in (("--save-token",), ()):
        token = json.loads(command("token", "--json", *more, *AT).out)["token"]
        assert ((shown / "admin-token").read_text(), counts(shown, token)) == (f"{token}\n", True)


def test_of_two_tokens_that_are_made_at_once_the_one_that_counts_is_the_one_that_is_saved(
    command: Command, shown: Path, monkeypatch: pytest.MonkeyPatch
):
    replaced = list[str]()

    def with_another_in_between(path: Path, content: bytes) -> None:
        replaced.append(path.name)
        with suppress(BlockingIOError), open_folder(shown) as other:  # who makes another token waits here
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pytest.fail(f"another token could have been made ahead of `{path.name}`")
        replace_file(path, content)

    monkeypatch.setattr("connector.adapters.keys.replace_file", with_another_in_between)
    assert command("token", "--save-token", *AT).code == 0
    assert replaced == ["admin-token.sha256", "admin-token"]
    with open_folder(shown) as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_somebody_who_was_killed_left_half_written_is_not_in_the_way_of_who_has_the_same_number(command: Command, shown: Path):
    (left := shown / f".admin-token.sha256.{os.getpid()}").write_text("half")
    assert (command("token", *AT).code, left.exists()) == (0, False)


def test_only_its_owner_reads_it_whatever_the_umask_is(command: Command, shown: Path):
    before = os.umask(0)
    try:
        assert command("token", "--save-token", *AT).code == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in shown.glob("*admin-token*")] == [0o600, 0o600]


def test_a_loss_of_power_does_not_bring_the_token_before_back(command: Command, shown: Path, monkeypatch: pytest.MonkeyPatch):
    synced, fsync = list[str](), os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    assert command("token", *AT).code == 0
    assert synced[-1] == str(shown.resolve()), "the folder, with the name that it has given to another file"


def test_where_nothing_can_be_written_the_token_before_stays(command: Command, shown: Path):
    hashed = shown / "admin-token.sha256"
    hashed.unlink()
    hashed.mkdir()
    (hashed / "kept").touch()
    ended = command("token", *AT)
    assert (ended.code, ended.out, "cannot be written" in ended.err) == (1, "", True)
    assert [path.name for path in shown.glob("*admin-token*")] == ["admin-token.sha256"]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_token_whose_copy_cannot_be_written_is_shown_nonetheless_as_it_is_the_one_that_counts(
    command: Command, shown: Path, form: tuple[str, ...]
):
    (shown / "admin-token").mkdir()
    ended = command("token", *form, *AT)
    token = json.loads(ended.out)["token"] if form else token_in(ended.out)
    assert (ended.code, counts(shown, token), "it is also in" in ended.out) == (1, True, False)
