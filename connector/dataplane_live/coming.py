"""What a source has sent and is in no leaf yet: while some of it is hashed and written, more comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from connector.metering.content import CHUNK_BYTES
from connector.ports.live import Records

HOP_BYTES: Final = 1024 * 1024  # hashed in a thread at once: below, the way there and back costs more than the hashing
LINGER_SECONDS: Final = 0.01  # that more than a chunk waits for more of a hop


class Coming:
    """Whole records in order. Something is due once there are HOP_BYTES of it, a chunk that LINGER_SECONDS added no more to, or
    `seal_seconds` after its first byte came."""

    def __init__(self, seal_seconds: float) -> None:
        self._seal_seconds = seal_seconds
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._position: str | None = None
        self._due, self._room = asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = self._lingers = False

    async def fill(self, batches: AsyncGenerator[Records, None]) -> None:
        """Take what comes up to its end, at most a hop ahead. Raises what `batches` does; what came before is not lost by that."""
        try:
            async for batch in batches:
                self._add(batch)
                while self._kept_bytes >= HOP_BYTES:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._due.set()

    async def next(self) -> tuple[bytes, str | None] | None:
        """What is due, once it is, and the position behind it. None behind the last."""
        await self._due.wait()
        if not self._kept:
            return None
        kept, self._kept, self._kept_bytes, self._lingers = self._kept, [], 0, False
        self._disarm()
        if not self._ended:
            self._due.clear()
        self._room.set()
        return (b"".join(kept) if len(kept) > 1 else kept[0]), self._position

    def _add(self, batch: Records) -> None:
        if not self._kept:
            self._timer = self._loop.call_later(self._seal_seconds, self._due.set)
        self._kept.append(batch.data)
        self._kept_bytes, self._position = self._kept_bytes + len(batch.data), batch.position
        if self._kept_bytes >= HOP_BYTES:
            self._due.set()
        elif self._kept_bytes >= CHUNK_BYTES and not self._lingers:
            self._lingers = True
            self._disarm()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._due.set)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
