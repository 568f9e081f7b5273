"""A command line with its own small connector: settings in a directory, and behind them a fake management listener, or a whole
connector."""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from connector.cli.commands import run_command_line
from tests import pair
from tests.fake_connector import TOKEN, FakeConnector, serving


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@contextmanager
def no_file_over(size_bytes: int) -> Iterator[None]:
    """As on a disk that is full: what is written to a file beyond that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


Command = Callable[..., Ended]
Operated = Callable[..., Awaitable[Ended]]


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
def operated(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """Runs one command against a connector that runs in this process: `await operated(connector, "explain", pid)`."""
    monkeypatch.setenv("QIAO_TOKEN", pair.TOKEN)
    monkeypatch.delenv("QIAO_CONFIG", raising=False)

    async def run(at: pair.Running, *arguments: str) -> Ended:
        settings = tmp_path / f"{at.site.name}.toml"
        settings.write_text(
            f'[participant]\nid = "{at.site.id}"\nname = "{at.site.name}"\nrole = "x"\n'
            f'[egress]\nhttp = true\n[management]\nurl = "{at.site.settings.management.url}"\n'
        )
        return await asyncio.to_thread(command, *arguments, "--config", str(settings))

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
