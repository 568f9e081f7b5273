"""`connector evidence verify`: needs the file and nothing else, says what is wrong and where, and compares two."""

import json
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from connector.adapters.registry import own_description, participant
from connector.cli_evidence.verifying import check, trusted
from connector.errors import ConnectorError
from connector.ledger.book import signer_of
from connector.signatures.jws import PublicKey
from tests.cli.conftest import Command
from tests.cli.conftest import command as command  # noqa: PLC0414 - the fixture
from tests.evidence.forgeries import other as changed
from tests.evidence.rig import CONSUMER, KEYS, LOGS, OLD, PROVIDER, SOUND, STRANGER, Story
from tests.evidence_bills.test_priced import billed_otherwise, draft_of

ROOT = Path(__file__).parents[2]
# Whatever opens a socket or a database ends the program with 99; so does whatever reads settings.
ALONE = """
import sys, os
def hook(event, args):
    if event.startswith(("socket.", "sqlite3.")) or (event == "open" and str(args[0]).endswith((".toml", ".db"))):
        os._exit(99)
sys.addaudithook(hook)
from connector.cli.commands import run_command_line
code = run_command_line(sys.argv[1:])
sys.stdout.flush(); sys.stderr.flush()
os._exit(code)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.jsonl"
    path.write_bytes(SOUND.data)
    return path


def alone(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ALONE, "evidence", "verify", *arguments],
        cwd=place,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_file_is_verified_in_an_empty_place_without_sockets_settings_and_database(tmp_path: Path, file: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = alone(empty, str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The file is sound")
    assert list(empty.iterdir()) == []
    data = bytearray(SOUND.data)
    data[1234] ^= 1
    file.write_bytes(data)
    done = alone(empty, str(file), "--json")
    assert done.returncode == 1
    assert (json.loads(done.stdout)["findings"][0]["code"], json.loads(done.stdout)["findings"][0]["offset"]) == ("byte-altered", 1234)


def test_whoever_would_open_a_socket_there_would_be_caught(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "participants"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "QIAO_TOKEN": "x"},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 99


def test_two_files_are_compared(command: Command, tmp_path: Path, file: Path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(SOUND.data)
    ended = command("evidence", "verify", str(file), str(other))
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "Both files tell the same."
    other.write_bytes(Story({"receipt 1": changed(after="write")}).draft().data)
    ended = command("evidence", "verify", str(file), str(other))
    assert ended.code == 1
    assert "The files do NOT tell the same:\n  - " in ended.out
    assert "- receipt 1 of transfer urn:uuid:t-p is another in the first file than in the second" in ended.out
    said = json.loads(command("evidence", "verify", str(file), str(other), "--json").out)
    assert (said["same"], [each["sound"] for each in said["files"]]) == (False, [True, True])


def test_a_file_that_is_not_sound_is_compared_with_nothing(command: Command, tmp_path: Path, file: Path):
    other = tmp_path / "other.jsonl"
    other.write_bytes(SOUND.data[:-1])
    ended = command("evidence", "verify", str(file), str(other))
    assert ended.code == 1
    assert "tell the same" not in ended.out


def description(who: str, *keys: PublicKey) -> bytes:
    host = who.removeprefix("did:web:")
    someone = participant(who, host.partition(".")[0], "hospital", f"https://{host}/dsp/2025-1")
    return orjson.dumps(own_description(someone, None, keys or (KEYS[who].key,)))


def folder(place: Path) -> Path:
    registry = place / "registry"
    registry.mkdir()
    (registry / "one.jsonld").write_bytes(description(PROVIDER))
    (registry / "two.jsonld").write_bytes(description(CONSUMER, OLD.key, KEYS[CONSUMER].key))
    return registry


def test_a_folder_of_self_descriptions_is_trusted(command: Command, tmp_path: Path, file: Path):
    ended = command("evidence", "verify", str(file), "--trust", str(folder(tmp_path)))
    assert ended.code == 0, ended.out
    assert "--trust" not in ended.out


def test_one_self_description_speaks_for_one(command: Command, tmp_path: Path, file: Path):
    ended = command("evidence", "verify", str(file), "--trust", str(folder(tmp_path) / "one.jsonld"))
    assert ended.code == 1
    assert f"Fault trust-unknown: `{CONSUMER}` is not among the participants that are trusted." in ended.out


def test_a_file_with_verifier_keys_speaks_for_logs(command: Command, tmp_path: Path, file: Path):
    keys = tmp_path / "keys"
    keys.write_text(signer_of(KEYS[PROVIDER], LOGS[PROVIDER]).key.vkey + "\n")
    assert command("evidence", "verify", str(file), "--trust", str(keys)).code == 0
    keys.write_text(signer_of(KEYS[STRANGER], LOGS[PROVIDER]).key.vkey + "\n")
    ended = command("evidence", "verify", str(file), "--trust", str(keys))
    assert ended.code == 1
    assert "signature-untrusted" in ended.out


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.jsonld", b"{", "is not JSON"),
        ("x.jsonld", b"{}", "no self-description"),
        ("keys", b"hospital", "holds no verifier keys"),
        ("keys", b"\xff", "it is not UTF-8"),
        ("keys", b"x" * 1_100_000, "larger than"),
    ],
)
def test_what_holds_no_keys_is_said(tmp_path: Path, name: str, content: bytes, says: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConnectorError, match=says):
        trusted(tmp_path / name)


def test_what_is_not_there_is_said(tmp_path: Path, file: Path, command: Command):
    for paths, trust in (([tmp_path / "none"], None), ([file], tmp_path / "none"), ([tmp_path], None)):
        with pytest.raises(ConnectorError, match="cannot be read"):
            check(paths, trust)
    ended = command("evidence", "verify", str(tmp_path / "none"))
    assert (ended.code, ended.out) == (1, "")


def test_a_verdict_cannot_pose_as_something_else(command: Command, tmp_path: Path):
    """What a file says goes to a terminal: it may neither move the cursor nor begin a line of its own."""
    draft = SOUND.copy()
    name = "urn:uuid:x\x1b[2J\nThe file is sound"
    draft.members.append(("end", {"members": {name: 1}}))
    path = tmp_path / "x"
    path.write_bytes(draft.data)
    ended = command("evidence", "verify", str(path))
    assert ended.code == 1
    assert "\x1b" not in ended.out
    assert not any(line.startswith("The file is sound") for line in ended.out.splitlines())


def test_prices_are_compared_by_the_profiles_of_this_installation(tmp_path: Path):
    """A subscription for each month is of a profile that comes with the connector."""
    path = tmp_path / "priced.jsonl"
    draft = draft_of("subscription")
    path.write_bytes(draft.data)
    assert check([path], None).good
    billed_otherwise(draft, 0, unit_price="10.40", amount="10.40")
    path.write_bytes(draft.data)
    (report,) = check([path], None).reports.values()
    assert [each.code for each in report.findings] == ["invoice-price"]
