"""Rules over several settings, and over the files that they name."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.errors import SettingsError
from connector.metering.credit import due_bytes
from connector.settings import load
from connector.settings.rules import is_loopback, live_room

SETTINGS = """
[participant]
id = "did:web:hospital.example"
name = "hospital"
role = "hospital"
[egress]
http = true
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory in which nothing is missing."""
    for folder in ("keys", "participants", "data"):
        (tmp_path / folder).mkdir()
    key = tmp_path / "keys" / "k1.key"
    key.write_text("{}")
    key.chmod(0o600)
    (tmp_path / "admin-token.sha256").write_text("0" * 64)
    (tmp_path / "connector.toml").write_text(SETTINGS)
    return tmp_path


def mistakes(home: Path, more: str = "") -> list[str]:
    (home / "connector.toml").write_text(SETTINGS + more)
    try:
        load(home / "connector.toml", {})
    except SettingsError as error:
        return list(error.reasons)
    return []


def test_a_complete_directory_has_no_mistake(home: Path):
    assert mistakes(home) == []


def test_missing_keys_name_the_command_that_makes_them(home: Path):
    (home / "keys" / "k1.key").unlink()
    remedy = "restore it from a backup, or make a new key with `connector keys new`"
    assert mistakes(home) == [f"`keys.directory` is `{home}/keys`, which has no file <kid>.key; {remedy}"]
    (home / "keys").rmdir()
    assert mistakes(home) == [f"`keys.directory` is `{home}/keys`, which is not a directory; {remedy}"]


def test_keys_of_somebody_else_are_not_said_to_be_missing(home: Path, monkeypatch: pytest.MonkeyPatch):
    read = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "keys":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # who may do anything is refused nothing
    said = f"`keys.directory` is `{home}/keys`, which cannot be read (Permission denied); it must be ours to read"
    assert mistakes(home) == [said]


def test_a_key_that_others_can_read_is_refused(home: Path):
    (home / "keys" / "k1.key").chmod(0o640)
    assert mistakes(home) == [f"`keys.directory` has `{home}/keys/k1.key`, which others can read; run `chmod 600 {home}/keys/k1.key`"]


def test_each_missing_file_is_named_at_once(home: Path):
    (home / "admin-token.sha256").unlink()
    (home / "participants").rmdir()
    (home / "data").rmdir()
    more = (
        "ca_file = 'ca.pem'\ncertificate = 'c.pem'\nkey = 'k.pem'\ncrl_file = 'crl.pem'\n"
        "[protocol]\ncertificate = 'c.pem'\nkey = 'k.pem'\nclient_ca = 'ca.pem'\nclient_crl = 'crl.pem'\n[pulls]\nroots = ['in']\n"
        "[store]\npath = 'no/such/db'\n[credentials]\nw = 'w.secret'\n"
    )
    fields = {reason.split("`")[1] for reason in mistakes(home, more)}
    assert fields == {
        "management.token_hash_file",
        "registry.directory",
        "sources.roots",
        "pulls.roots",
        "egress.ca_file",
        "egress.certificate",
        "egress.key",
        "egress.crl_file",
        "protocol.certificate",
        "protocol.key",
        "protocol.client_ca",
        "protocol.client_crl",
        "store.path",
        "credentials.w",
    }


def test_a_secret_that_others_can_read_is_refused(home: Path):
    (home / "w.secret").write_text("secret")
    (home / "w.secret").chmod(0o644)
    (found,) = mistakes(home, "[credentials]\nw = 'w.secret'\n")
    assert "others can read" in found
    assert "secret value" not in found
    (home / "w.secret").chmod(0o600)
    assert mistakes(home, "[credentials]\nw = 'w.secret'\n") == []


@pytest.mark.parametrize("path", ["data", "nowhere/spans.jsonl"])
def test_spans_go_into_a_file_that_can_be_written(home: Path, path: str):
    (found,) = mistakes(home, f"[telemetry]\nspans_file = '{path}'\n")
    assert "`telemetry.spans_file`" in found
    assert mistakes(home, "[telemetry]\nspans_file = 'spans.jsonl'\n") == []


@pytest.mark.parametrize("place", ["a-file", "a-file/below"])
def test_hashes_are_kept_in_a_directory_that_is_there_or_can_be_made(home: Path, place: str):
    (home / "a-file").touch()
    (found,) = mistakes(home, f"[metering]\ndirectory = '{place}'\n")
    assert found == f"`metering.directory` is `{home}/{place}`, where nothing can be kept; name a directory of ours"
    assert mistakes(home, "[metering]\ndirectory = 'new/place'\n") == []


@pytest.mark.parametrize(
    ("windows", "spool", "least"), [(4, 50_331_648, None), (4, 50_331_647, 50_331_648), (1, 33_554_432, None), (64, 33_554_432, 50_331_648)]
)
def test_live_data_have_room_for_what_is_on_its_way_until_it_is_signed_for(home: Path, windows: int, spool: int, least: int | None):
    found = mistakes(home, f"[metering]\ncredit_windows = {windows}\nspool_bytes = {spool}\n")
    if least is None:
        assert found == []
    else:
        assert found == [
            f"`metering.spool_bytes` is {spool}, less than live data need to flow: a receipt is due after {2 * 16_777_216} bytes, and a"
            " window of 16777216 is on its way meanwhile, so their source would wait for a second after each spoolful;"
            f" write {least} or more, or make metering.window_bytes smaller"
        ]


@pytest.mark.parametrize("windows", [1, 2, 3, 4, 64])
def test_that_room_is_what_a_consumer_has_verified_when_its_receipt_is_due_and_a_window_more(windows: int):
    assert live_room(262_144, windows) == due_bytes(262_144, windows * 262_144, live=True) + 262_144


def test_a_caller_of_the_connector_need_not_see_its_files(tmp_path: Path):
    (tmp_path / "connector.toml").write_text(SETTINGS)
    assert load(tmp_path / "connector.toml", {}, look_at_files=False).participant.name == "hospital"


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - a name to be judged
        ("::", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_told_from_everything_else(host: str, answer: bool):
    assert is_loopback(host) is answer
