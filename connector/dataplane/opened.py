"""Sources that are open, one for each transfer and shared by its requests: small reads would spend their time on opening.

An idle source is closed soon. Sharing is safe because a source is pinned to what was published and judges itself each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from connector.dataplane.gate import Permit
from connector.errors import SourceFailed
from connector.ports import Source, Sources, Stat

IDLE_SECONDS = 5.0  # a client that reads a file in many requests asks again at once; a descriptor is not ours to hoard
OPEN_MAX = 256  # shared ones; beyond, a request opens its own


class _Shared:
    __slots__ = ("address", "source", "timer", "users")

    def __init__(self, address: Mapping[str, Any], source: Source) -> None:
        self.address, self.source = address, source
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None


class OpenSources:
    """Opens sources by the kind in their address (`kinds`: type -> Sources) and keeps them for a moment."""

    def __init__(self, kinds: Mapping[str, Sources], idle_seconds: float = IDLE_SECONDS) -> None:
        self._kinds = kinds
        self._idle_seconds = idle_seconds
        self._shared: dict[str, _Shared] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, permit: Permit) -> AsyncIterator[tuple[Source, Stat]]:
        """The source of a permit and how it stands. Raises SourceFailed if it is not what was published."""
        shared = self._shared.get(permit.transfer)
        if shared is None or shared.address != permit.source:
            shared = await self._open(permit)
        shared.users += 1
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None
        try:
            try:
                stat = await shared.source.stat()
            except SourceFailed:
                self._forget(permit.transfer, shared)
                raise
            yield shared.source, stat
        finally:
            shared.users -= 1
            if shared.users == 0:
                await self._rest(permit.transfer, shared)

    async def _open(self, permit: Permit) -> _Shared:
        kind = self._kinds.get(str(permit.source.get("type")))
        if kind is None:
            raise SourceFailed(f"the dataset's source is of type `{permit.source.get('type')}`, which this connector does not read")
        opened = _Shared(permit.source, await kind.open(permit.source))
        present = self._shared.get(permit.transfer)
        if (present is None and len(self._shared) < OPEN_MAX) or (present is not None and present.users == 0):
            if present is not None:
                self._forget(permit.transfer, present)
                await present.source.close()
            self._shared[permit.transfer] = opened
        return opened

    def _forget(self, transfer: str, shared: _Shared) -> None:
        if self._shared.get(transfer) is shared:
            del self._shared[transfer]
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None

    async def _rest(self, transfer: str, shared: _Shared) -> None:
        """Nobody uses it now: keep it for a moment if it is the shared one."""
        if self._shared.get(transfer) is shared:
            shared.timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, transfer, shared)
        else:
            await shared.source.close()

    def _retire(self, transfer: str, shared: _Shared) -> None:
        self._forget(transfer, shared)
        task = asyncio.get_running_loop().create_task(shared.source.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close what nobody uses; the rest closes with its last user."""
        for transfer, shared in tuple(self._shared.items()):
            self._forget(transfer, shared)
            if shared.users == 0:
                await shared.source.close()
        await asyncio.gather(*self._closing)
