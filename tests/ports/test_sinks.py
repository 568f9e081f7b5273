"""The contract of sinks holds for one that is no file."""

import asyncio

import pytest

from connector.ports.sinks import Enough
from tests.contracts.memory_sinks import MemorySinks
from tests.contracts.sink_contract import Shelf, SinkContract


class Memory(Shelf):
    def __init__(self) -> None:
        self.sinks: MemorySinks = MemorySinks()

    def under(self, name: str) -> bytes | None:
        return self.sinks.files.get(name)

    def put(self, name: str, content: bytes) -> None:
        self.sinks.files[name] = content

    def parts(self) -> int:
        return len(self.sinks.kept)


class TestContract(SinkContract):
    @pytest.fixture
    def shelf(self) -> Memory:
        return Memory()


@pytest.mark.asyncio
@pytest.mark.parametrize("set_by", [-3600.0, 0.0, 3600.0])
async def test_a_clock_that_is_set_makes_no_order_longer_and_what_is_enough_is_so_at_once(monkeypatch: pytest.MonkeyPatch, set_by: float):
    monkeypatch.setattr("connector.ports.sinks.LOOK_SECONDS", 0.01)
    clock, enough = [1_000_000.0], Enough(until=1_000_000.05)
    waiting = asyncio.create_task(enough.wait(lambda: clock[0]))
    await asyncio.sleep(0)
    clock[0] += set_by
    async with asyncio.timeout(10):
        await waiting
    endless = Enough()
    endless.said.set()
    await endless.wait(lambda: clock[0])
