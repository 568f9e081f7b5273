import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector import lasting, telemetry
from connector.lasting import Lasting, OfFiles
from tests.pair import WAIT_SECONDS


class Work:
    """Turns that end as they are told to: with an error where `ends` has one. `turns` counts them."""

    def __init__(self, *ends: Exception | None, waits: Exception | None = None) -> None:
        self._ends = list(ends)
        self._waits = waits
        self.turns = 0
        self.faults: list[str | None] = []
        self.idle = asyncio.Event()
        self.go_on = asyncio.Event()
        self.loop = Lasting("sweeping", self._turn, self._wait, first_pause_seconds=0.001)

    async def _turn(self) -> None:
        self.turns += 1
        self.faults.append(self.loop.fault)
        if self._ends and (error := self._ends.pop(0)) is not None:
            raise error

    async def _wait(self) -> None:
        if self._waits is not None:
            error, self._waits = self._waits, None
            raise error
        self.idle.set()
        await self.go_on.wait()
        self.go_on.clear()

    async def until_idle(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await self.idle.wait()
        self.idle.clear()


@pytest.mark.asyncio
async def test_work_goes_on_after_errors_that_are_loud_and_says_what_is_wrong_until_it_succeeds(capfd: pytest.CaptureFixture[str]):
    work = Work(None, RuntimeError("first"), KeyError("second"), None)
    work.loop.start()
    try:
        await work.until_idle()
        assert (work.turns, work.loop.fault) == (1, None)
        work.go_on.set()
        await work.until_idle()
    finally:
        await work.loop.close()
    assert work.turns == 4
    assert work.faults[:2] == [None, None]
    assert [fault and fault.partition(";")[0] for fault in work.faults[2:]] == [
        "sweeping fails, 1 in a row: RuntimeError",
        "sweeping fails, 2 in a row: KeyError",
    ]
    assert work.loop.fault is None, "a turn that succeeds is the end of it"
    logged = capfd.readouterr().err
    assert logged.count('"level":"error"') == 2
    assert "RuntimeError" in logged
    assert "Traceback" in logged


@pytest.mark.asyncio
async def test_an_error_while_it_waits_is_one_like_any_other():
    work = Work(waits=RuntimeError("while waiting"))
    work.loop.start()
    await work.until_idle()
    await work.loop.close()
    assert work.turns == 2


@pytest.mark.asyncio
async def test_it_ends_when_it_is_closed_also_between_two_attempts():
    work = Work(*[RuntimeError("always")] * 1000)
    work.loop = Lasting("sweeping", work._turn, work._wait, first_pause_seconds=3600.0)
    work.loop.start()
    async with asyncio.timeout(WAIT_SECONDS):
        while work.loop.fault is None:  # noqa: ASYNC110 - the first turn has no event of its own
            await asyncio.sleep(0)
        await work.loop.close()
    assert work.turns == 1, "it did not spin"
    await Lasting("never started", work._turn, work._wait).close()


# ---- values of files


class Unusable(Exception):
    """What `make` says of files that it cannot use."""

    reasons = ("`!` is in it",)


def joined(*paths: Path) -> OfFiles[str]:
    """The texts of these files one after the other; `!` in one of them cannot be used."""

    def make() -> str:
        text = "".join(path.read_text() for path in paths)
        if "!" in text:
            raise Unusable
        return text

    return OfFiles("joined", paths, make)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure_logging("info", "json", out)
    yield out
    telemetry.configure_logging("info", "json")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    other.write_text("b")
    return one, other


def replace(path: Path, text: str) -> None:
    """Put another file in its place, as whoever renews certificates does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_files_that_stay_are_read_once(files: tuple[Path, Path]):
    made = joined(*files)
    assert made.now() == made.now() == "ab"
    assert not made.renew()


@pytest.mark.parametrize("which", [0, 1])
def test_another_file_gives_another_value(files: tuple[Path, Path], which: int):
    asked, told = joined(*files), joined(*files)
    replace(files[which], "c")
    assert asked.now() == ("cb", "ac")[which]
    assert not asked.renew(), "it is up to date"
    assert told.renew()
    assert told.now() == ("cb", "ac")[which]


def test_a_file_behind_a_link_whose_directory_is_swapped_is_another(tmp_path: Path):
    """Kubernetes: `file` -> `..data/file`, `..data` -> a directory with a time in its name, replaced as a whole."""
    for name, text in (("..1", "a"), ("..2", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    made = joined(tmp_path / "file")
    (tmp_path / "..data.new").symlink_to("..2")
    os.replace(tmp_path / "..data.new", tmp_path / "..data")
    assert made.now() == "b"


def test_what_cannot_be_used_is_said_once_and_the_former_value_stays(files: tuple[Path, Path], log: io.StringIO):
    made = joined(*files)
    replace(files[0], "!")
    for _ in range(3):
        assert made.now() == "ab"
    assert log.getvalue().count("files refused") == 1
    assert '"reasons":["`!` is in it"]' in log.getvalue()
    for _ in range(2):  # whoever asks for it in words is told each time
        with pytest.raises(Unusable):
            made.renew()
        assert made.now() == "ab"
    replace(files[0], "c")
    assert made.now() == "cb"


def test_what_was_refused_is_tried_again_after_a_while(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    valid = False

    def make() -> bool:
        if not valid and files[0].read_text() == "not yet":
            raise Unusable
        return valid

    made = OfFiles("date", files, make)
    replace(files[0], "not yet")
    assert made.now() is False
    valid = True
    assert made.now() is False, "the files are the same"
    monkeypatch.setattr(lasting, "AGAIN_SECONDS", 0.0)
    assert made.now() is True


def test_a_file_that_is_gone_is_a_change_and_one_that_is_back_is_none(files: tuple[Path, Path]):
    made = joined(*files)
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        made.renew()
    assert made.now() == "ab"
    replace(files[0], "a")
    assert not made.renew()
    assert made.now() == "ab"


@pytest.mark.parametrize("which", [0, 1])
def test_which_files_are_others_is_said_once_the_value_that_is_made_of_them_is_in_use(files: tuple[Path, Path], which: int):
    told: list[tuple[str, frozenset[Path]]] = []
    made = OfFiles("one", files, lambda: "".join(path.read_text() for path in files), lambda value, others: told.append((value, others)))
    assert told == []
    replace(files[which], "c")
    assert made.now() == ("cb", "ac")[which]
    assert told == [(made.now(), frozenset({files[which]}))]


def test_a_file_that_changes_while_the_value_is_made_is_another_at_the_next_look(files: tuple[Path, Path]):
    """Whoever acts on a change must not miss one: connections that came in by a former list of revoked certificates would stay."""
    told: list[tuple[str, frozenset[Path]]] = []
    meanwhile = ["", "", "d"]

    def make() -> str:
        text = files[0].read_text()
        if (next_text := meanwhile.pop(0) if meanwhile else "") and text:
            replace(files[0], next_text)
        return text

    made = OfFiles("one", files, make, lambda value, others: told.append((value, others)))
    for text in ("b", "c"):
        replace(files[0], text)
        made.now()
    assert (made.now(), made.now()) == ("d", "d")
    assert told == [(text, frozenset({files[0]})) for text in ("b", "c", "d")]


def test_a_file_that_is_only_touched_makes_nothing_anew(files: tuple[Path, Path]):
    made = joined(*files)
    before = made.now()
    os.utime(files[0], ns=(1, 1))
    assert made.now() is before


def test_what_cannot_be_used_from_the_first_is_said_at_once(files: tuple[Path, Path]):
    files[0].write_text("!")
    with pytest.raises(Unusable):
        joined(*files)
