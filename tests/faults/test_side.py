"""A connector that cannot be started is an error that says where to look, and there is nobody to kill."""

import sys
from pathlib import Path

import pytest

from tests.faults import nursery
from tests.faults.home import Home
from tests.faults.ledger import SIDES
from tests.faults.side import Side


@pytest.mark.asyncio
async def test_where_nothing_could_be_started_nothing_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nursery, "COMMAND", (sys.executable, "-c", "raise SystemExit('imports nothing')"))
    (tmp_path / "admin-token").write_text("x" * 40)
    side = Side(Home("consumer", tmp_path, 1))
    try:
        await side.open()
        with pytest.raises(RuntimeError, match="the program that forks connectors has ended"):
            await side.start()
        assert not await side.kill()
    finally:
        await side.close()


@pytest.mark.asyncio
async def test_one_program_forks_the_connectors_of_all_homes_and_what_each_of_them_says_is_in_its_own_log(tmp_path: Path):
    sides = []
    for name in SIDES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "admin-token").write_text("x" * 40)
        sides.append(Side(Home(name, tmp_path / name, 1)))
    try:
        for side in sides:
            await side.open()
        for side in sides:
            with pytest.raises(RuntimeError, match=f"the {side.name} has ended by itself before it was ready; see .*/{side.name}/log"):
                await side.start()
    finally:
        for side in sides:
            await side.close()
    for name in SIDES:
        assert f"{name}/connector.toml" in (tmp_path / name / "log").read_text()
