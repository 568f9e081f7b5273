"""Options that every command takes: where the settings are, and where the admin token comes from."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.fake_connector import TOKEN, FakeConnector

EMPTY = (200, {"items": [], "next": None})


@pytest.fixture(autouse=True)
def answering(fake: FakeConnector, home: Path) -> None:
    fake.answers[("GET", "/v1/participants")] = EMPTY


def saved(path: Path, mode: int = 0o600, token: str = TOKEN) -> Path:
    path.write_text(f"{token}\n")
    path.chmod(mode)
    return path


def test_the_token_comes_from_the_environment(command: Command, fake: FakeConnector):
    assert command("participants").code == 0
    assert fake.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_the_token_comes_from_the_file_that_init_saved(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("QIAO_TOKEN")
    saved(home / "admin-token")
    assert command("participants").code == 0


def test_a_named_token_file_goes_before_the_environment(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIAO_TOKEN", "another")
    assert command("participants", "--token-file", str(saved(home / "t"))).code == 0


def test_without_a_token_the_remedy_is_said(command: Command, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("QIAO_TOKEN")
    ended = command("participants")
    assert ended.code == 1
    assert ended.err == "connector: no admin token; set QIAO_TOKEN to the one that `connector init` showed, or give --token-file\n"
    assert fake.asked == []


@pytest.mark.parametrize(
    ("content", "mode", "says"), [(TOKEN, 0o644, "chmod 600"), ("", 0o600, "holds no admin token"), ("a\nb", 0o600, "holds no admin token")]
)
def test_a_token_file_that_cannot_be_right_is_refused(
    command: Command, home: Path, fake: FakeConnector, content: str, mode: int, says: str
):
    ended = command("participants", "--token-file", str(saved(home / "t", mode, content)))
    assert ended.code == 1
    assert says in ended.err
    assert TOKEN not in ended.err
    assert fake.asked == []


def test_a_wrong_token_is_said_with_the_remedy(command: Command, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIAO_TOKEN", "wrong")
    ended = command("participants")
    remedy = "give it the one that `connector init` showed, in QIAO_TOKEN or with --token-file"
    assert (ended.code, ended.err) == (1, f"connector: `{fake.url}` does not take our admin token; {remedy}\n")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_settings_may_be_elsewhere(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch, how: str):
    (home / "else").mkdir()
    elsewhere = (home / "connector.toml").rename(home / "else" / "c.toml")
    if how == "environment":
        monkeypatch.setenv("QIAO_CONFIG", str(elsewhere))
        assert command("participants").code == 0
    else:
        assert command("participants", "--config", str(elsewhere)).code == 0


def test_missing_settings_are_one_line_with_the_remedy(command: Command):
    ended = command("participants", "--config", "nowhere.toml")
    assert ended.code == 1
    assert ended.err == "connector: there are no settings at `nowhere.toml`; run `connector init`, or name the file with `--config`\n"


def test_mistakes_in_the_settings_are_listed(command: Command, home: Path):
    with (home / "connector.toml").open("a") as file:
        file.write("[store]\nkind = 'x'\n[edr]\ntoken_seconds = 0\n")
    ended = command("participants")
    assert ended.code == 1
    assert (
        "  - `store.kind` is `x`; choose one of sqlite, memory\n  - `edr.token_seconds` is 0; write a number from 1 to 86400\n" in ended.err
    )


def test_a_port_that_nobody_knows_is_said(command: Command, home: Path):
    text = (home / "connector.toml").read_text()
    (home / "connector.toml").write_text(text.replace("url =", "port = 0 #"))
    assert "set QIAO_MANAGEMENT_URL" in command("participants").err


def test_a_connector_that_does_not_run_is_said(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIAO_MANAGEMENT_URL", "http://127.0.0.1:1")
    ended = command("participants")
    assert ended.code == 1
    assert "start it with `connector run`" in ended.err
    assert ended.err.count("\n") == 1
