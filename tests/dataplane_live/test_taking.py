"""What a consumer has of a log whose source has ended: it is waited for as long as somebody may need something of it."""

import asyncio
from typing import Any

import pytest

from connector.dataplane_live import taking as takings
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.rest import Rest
from connector.dataplane_live.taking import Taking

pytestmark = pytest.mark.asyncio


class Log:
    etag, end = '"x"', 4


def taking(*, lost: bool = False) -> Taking:
    log: Any = Log()
    found = Taking(log)
    found.lost = lost
    found.signed_for(4)
    return found


async def test_who_asks_for_the_end_has_time_to_say_itself_that_it_has_all_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(takings, "ASK_SECONDS", 0.03)
    one, other = taking(), taking()
    other.asks_end()
    ending, waits = (asyncio.create_task(each.over(Ending.ENDED)) for each in (one, other))
    async with asyncio.timeout(10):
        assert await ending is Ending.ENDED, "it asks for none"
    assert not waits.done()
    waits.cancel()
    monkeypatch.setattr(takings, "TOLD_SECONDS", 0.0)
    assert await other.over(Ending.ENDED) is Ending.ENDED


async def test_where_there_was_more_nobody_is_to_say_that_it_has_all_of_it():
    async with asyncio.timeout(10):
        assert await taking().over(Ending.LEFT) is Ending.LEFT
        assert await taking(lost=True).over(Ending.ENDED) is Ending.BROKE_OFF


async def test_what_is_read_again_is_no_more_of_it():
    log: Any = Log()
    found = Taking(log, Rest(1.0, waited_seconds=2.0))
    found.left(1, 2)
    found.rest = Rest(1.0, waited_seconds=2.0)
    for first, length in ((1, 1), (2, 1), (0, 0)):
        found.left(first, length)
    assert await found.over(Ending.ENDED) is Ending.UNTAKEN
    found.left(0, 2)
    found.left(3, 1)
    ending = asyncio.create_task(found.over(Ending.ENDED))
    await asyncio.wait({ending}, timeout=0.02)
    assert not ending.done(), "each byte of it has left"
    ending.cancel()
