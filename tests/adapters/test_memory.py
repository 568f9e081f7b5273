"""The store in memory keeps the contract of all stores."""

from collections.abc import AsyncIterator

import pytest_asyncio

from connector.adapters.memory import MemoryStore
from tests.contracts.samples import OWN
from tests.contracts.store_contract import StoreContract


class MemoryStores:
    """Each participant has a database of its own."""

    def open(self, participant: str = OWN) -> MemoryStore:
        return MemoryStore()

    def fresh(self) -> MemoryStore:
        return MemoryStore()


@pytest_asyncio.fixture
async def stores() -> AsyncIterator[MemoryStores]:
    yield MemoryStores()


class TestMemory(StoreContract):
    """The whole contract."""
