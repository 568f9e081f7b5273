import asyncio

import pytest

from connector.lasting import PAUSE_SECONDS_MAX, Lasting, pause_seconds
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


def test_the_pause_doubles_up_to_a_limit_however_often_it_failed():
    pauses = [pause_seconds(failures) for failures in range(1, 12)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert sorted(pauses) == pauses
    assert pauses[-1] == pause_seconds(10**9) == PAUSE_SECONDS_MAX
