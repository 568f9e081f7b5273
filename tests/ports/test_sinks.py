"""The contract of sinks holds for one that is no file."""

import pytest

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
