"""A command line with its own small connector: settings in a directory, and a fake management listener behind them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connector.cli.commands import run_command_line
from tests.fake_connector import TOKEN, FakeConnector, serving


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def fake() -> Iterator[FakeConnector]:
    with serving(FakeConnector()) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, fake: FakeConnector, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a connector whose management listener is the fake; it is the working directory."""
    (tmp_path / "connector.toml").write_text(
        f'[participant]\nid = "did:web:biopharma.example"\nname = "biopharma"\nrole = "biopharma"\n'
        f'[egress]\nhttp = true\n[management]\nurl = "{fake.url}"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QIAO_TOKEN", TOKEN)
    monkeypatch.delenv("QIAO_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one command in this process."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run_command_line(arguments)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares what was printed with a file of `golden/`; GOLDEN=write writes the file anew, to be read and committed."""

    def compare(name: str, printed: str) -> None:
        path = Path(__file__).parent / "golden" / f"{name}.txt"
        if os.environ.get("GOLDEN") == "write":
            path.write_text(printed)
        assert printed == path.read_text()

    return compare
