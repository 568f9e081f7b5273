"""A connector that cannot be started is an error that says where to look, and there is nobody to kill."""

from pathlib import Path

import pytest

from tests.faults.home import Home
from tests.faults.side import Side


@pytest.mark.asyncio
async def test_where_nothing_could_be_started_nothing_is_killed(tmp_path: Path):
    (tmp_path / "admin-token").write_text("x" * 40)
    side = Side(Home("consumer", tmp_path, 1), bug="one that nobody has planted")  # which ends the program that forks
    try:
        await side.open()
        with pytest.raises(RuntimeError, match=r"the program that forks connectors has ended; see .*/log"):
            await side.start()
        assert not await side.kill()
    finally:
        await side.close()
    assert "invalid choice" in (tmp_path / "log").read_text()
