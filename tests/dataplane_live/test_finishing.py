"""Who ends a transfer does so until it has ended, and is known to be at it meanwhile."""

import asyncio
from typing import Any

import pytest

from connector.dataplane_live import finishing
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.finishing import Finishing
from connector.errors import Contradiction, NotFound, StoreError

TRANSFER = "urn:t"

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "pause_seconds", lambda _failures: 0.0)


@pytest.mark.parametrize("last", [None, Contradiction("it is over"), NotFound("it is gone")])
async def test_a_transfer_is_ended_until_it_has_ended(last: Exception | None):
    said, errors = list[tuple[Any, ...]](), [StoreError("busy"), RuntimeError("a defect"), last]

    async def complete(*about: Any) -> None:
        said.append(about)
        if (error := errors.pop(0)) is not None:
            raise error

    await Finishing(None, complete).finish(TRANSFER, Ending.ENDED)
    assert said == [(TRANSFER, Ending.ENDED.reason, Ending.ENDED)] * 3


async def test_it_is_known_which_one_is_being_ended_and_not_any_more_once_nobody_is_at_it():
    begun = asyncio.Event()

    async def over(*_about: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    ends = Finishing(over, None)
    work = asyncio.create_task(ends.finish(TRANSFER, Ending.UNTAKEN))
    await begun.wait()
    assert ends.transfers == {TRANSFER}
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert ends.transfers == set()
