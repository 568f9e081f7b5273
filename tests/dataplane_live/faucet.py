"""A live source that gives what a test pours into it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from connector.errors import SourceFailed
from connector.ports import Stat
from connector.ports.live import LiveSource, Records

MEDIA_TYPE = "application/x-ndjson"


class Faucet:
    """The port `LiveSource`. `followed` are the positions from which it was followed; what was poured is handed on once."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.followed: list[str | None] = []
        self.poured: asyncio.Queue[Records | SourceFailed | None] = asyncio.Queue()
        self.taken = asyncio.Event()
        self.open = 0

    def pour(self, data: bytes, position: str | None = None) -> None:
        self.poured.put_nowait(Records(data, position))

    def fail(self) -> None:
        self.poured.put_nowait(SourceFailed("the source has failed"))

    async def follow(self, position: str | None, _take: object = None) -> AsyncGenerator[Records, None]:
        self.followed.append(position)
        self.open += 1
        try:
            while (found := await self.poured.get()) is not None:
                if isinstance(found, SourceFailed):
                    raise found
                self.taken.set()
                yield found
        finally:
            self.open -= 1

    async def close(self) -> None:
        self.waits = False


class Faucets:
    """The port `LiveSources` over one faucet."""

    def __init__(self, faucet: Faucet) -> None:
        self.faucet = faucet

    async def index(self, address: Mapping[str, Any]) -> tuple[Mapping[str, Any], Stat]:
        return address, Stat(None, "1", None, MEDIA_TYPE)

    async def open(self, _address: Mapping[str, Any]) -> LiveSource:
        return self.faucet
