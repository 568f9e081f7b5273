"""Options that every command takes: where the settings are, and where the admin token comes from."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from connector.values import replace
from tests import pair
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
    remedy = "set QIAO_TOKEN to the one that `connector init` showed, or give --token-file; `connector token` makes another one"
    assert ended.err == f"connector: no admin token; {remedy}\n"
    assert fake.asked == []


@pytest.mark.asyncio
async def test_a_listener_with_another_certificate_than_that_of_the_settings_is_not_one_that_does_not_run(
    asking: tuple[Path, trustme.CA], command: Command
):
    settings, _operators = asking
    trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(settings.parent / "chain.pem")  # renewed, and not yet in use
    ended = await asyncio.to_thread(command, "participants", "--config", str(settings))
    assert ended.code == 1
    assert "no TLS with the connector at `https://127.0.0.1:" in ended.err
    assert "`management.certificate` in the settings has to be the certificate with which it runs" in ended.err


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


def test_a_token_file_that_is_not_there_is_said_with_the_remedy(command: Command, home: Path, fake: FakeConnector):
    ended = command("participants", "--token-file", str(home / "none"))
    why = "cannot be read: No such file or directory; name the file that it is in, or set QIAO_TOKEN"
    assert (ended.code, ended.err) == (1, f"connector: the admin token in `{home / 'none'}` {why}\n")
    assert fake.asked == []


@pytest.mark.parametrize("said", ["one\ntwo", "tok\u00e9n", "\x1b[0mtoken"])
def test_a_token_of_the_environment_that_cannot_be_one_is_said_and_not_shown(
    command: Command, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch, said: str
):
    monkeypatch.setenv("QIAO_TOKEN", said)
    ended = command("participants")
    why = "QIAO_TOKEN holds no admin token; set it to the one that `connector init` showed, which is one word"
    assert (ended.code, ended.err, fake.asked) == (1, f"connector: {why}\n", [])


def test_a_saved_token_that_is_there_and_cannot_be_read_is_not_said_to_be_missing(
    command: Command, home: Path, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("QIAO_TOKEN", raising=False)
    (home / "admin-token").unlink(missing_ok=True)
    (home / "admin-token").mkdir(mode=0o700)
    assert "`admin-token` cannot be read: Is a directory" in command("participants").err.replace(f"{home}/", "")


def test_a_wrong_token_is_said_with_the_remedy(command: Command, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIAO_TOKEN", "wrong")
    ended = command("participants")
    remedy = (
        "give it the last one that `connector init` or `connector token` showed, in QIAO_TOKEN or with --token-file; it reads one that was"
        " made while it ran at SIGHUP"
    )
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


# ---- a management listener under TLS that asks for a certificate


def show_also(path: Path, authority: trustme.CA, mode: int = 0o600) -> Path:
    """A certificate of the operator and its key in one file."""
    authority.issue_cert("operator@example.org").private_key_and_cert_chain_pem.write_to_path(path)
    path.chmod(mode)
    return path


@pytest_asyncio.fixture
async def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Path, trustme.CA]]:
    """The settings of a connector that runs and asks its operator for a certificate, and who vouches for those."""
    servers, operators = trustme.CA(), trustme.CA()
    at = pair.site(tmp_path / "x", "hospital")
    made = servers.issue_cert("localhost", "127.0.0.1")
    (at.root / "chain.pem").write_bytes(made.cert_chain_pems[0].bytes())
    made.private_key_pem.write_to_path(at.root / "key.pem")
    operators.cert_pem.write_to_path(at.root / "operators.pem")
    files = {"certificate": at.root / "chain.pem", "key": at.root / "key.pem", "client_ca": at.root / "operators.pem"}
    url = at.settings.management.url.replace("http:", "https:")
    settings = at.root / "connector.toml"
    settings.write_text(
        f'[participant]\nid = "{at.id}"\nname = "{at.name}"\nrole = "x"\n[egress]\nhttp = true\n'
        f'[management]\nurl = "{url}"\ncertificate = "chain.pem"\nkey = "key.pem"\nclient_ca = "operators.pem"\n'
    )
    monkeypatch.setenv("QIAO_TOKEN", pair.TOKEN)
    async with pair.running(at.changed(management=replace(at.settings.management, url=url, **files)), trust=False):
        yield settings, operators


@pytest.mark.parametrize("how", ["option", "environment", "beside the settings"])
@pytest.mark.asyncio
async def test_a_certificate_is_shown_where_it_is_asked_for(
    asking: tuple[Path, trustme.CA], command: Command, monkeypatch: pytest.MonkeyPatch, how: str
):
    settings, operators = asking
    named = show_also(settings.parent / ("admin.pem" if how == "beside the settings" else "operator.pem"), operators)
    if how == "environment":
        monkeypatch.setenv("QIAO_CLIENT_CERTIFICATE", str(named))
    options = ["--client-certificate", str(named)] if how == "option" else []
    ended = await asyncio.to_thread(command, "participants", "--config", str(settings), *options)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.asyncio
async def test_without_the_right_certificate_or_with_the_wrong_token_nothing_is_answered(
    asking: tuple[Path, trustme.CA], command: Command, monkeypatch: pytest.MonkeyPatch
):
    settings, operators = asking
    foreign, right = show_also(settings.parent / "foreign.pem", trustme.CA()), show_also(settings.parent / "right.pem", operators)
    for options in ([], ["--client-certificate", str(foreign)]):
        ended = await asyncio.to_thread(command, "participants", "--config", str(settings), *options)
        assert ended.code == 1
        assert "no answer from the connector at `https://127.0.0.1:" in ended.err
        assert "if it asks for a certificate of clients, give `--client-certificate`" in ended.err
    monkeypatch.setenv("QIAO_TOKEN", "wrong")
    ended = await asyncio.to_thread(command, "participants", "--config", str(settings), "--client-certificate", str(right))
    assert (ended.code, "does not take our admin token" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("words", 0o600, "cannot be shown as our certificate"),
        (None, 0o600, "cannot be shown as our certificate"),
        ("words", 0o640, "chmod 600"),
    ],
)
def test_a_certificate_file_that_cannot_be_right_is_refused(command: Command, home: Path, content: str | None, mode: int, says: str):
    if content is not None:
        (home / "c.pem").write_text(content)
        (home / "c.pem").chmod(mode)
    text = (home / "connector.toml").read_text()
    (home / "connector.toml").write_text(text.replace('url = "http:', 'url = "https:'))
    ended = command("participants", "--client-certificate", str(home / "c.pem"))
    assert ended.code == 1
    assert says in ended.err
