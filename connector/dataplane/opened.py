"""Sources that are open, one for each transfer and shared by its requests: small reads would spend their time on opening.

An idle source is closed soon. Sharing is safe because a source is pinned to what was published and judges itself each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

from connector.dataplane.gate import Permit
from connector.errors import SourceFailed
from connector.lasting import stopped
from connector.ports import Source, Sources, Stat

IDLE_SECONDS = 5.0  # a client that reads a file in many requests asks again at once; a descriptor is not ours to hoard
OPEN_MAX = 256  # shared ones; beyond, a request opens its own
K = TypeVar("K")


class _Opened(Generic[K]):
    __slots__ = ("address", "kept", "source", "used", "users")

    def __init__(self, address: Mapping[str, Any], source: Source) -> None:
        self.address, self.source = address, source
        self.users = 0
        self.used = 0.0
        self.kept: K | None = None


class OpenSources(Generic[K]):
    """Opens sources by the kind in their address (`kinds`: type -> Sources) and keeps them for a moment, and with each of them
    one value of the caller that holds as long as the source is what was published."""

    def __init__(self, kinds: Mapping[str, Sources], idle_seconds: float = IDLE_SECONDS) -> None:
        self._kinds = kinds
        self._idle_seconds = idle_seconds
        self._shared: dict[str, _Opened[K]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def use(self, permit: Permit) -> Use[K]:
        """A context manager that gives the source of a permit and how it stands. Raises SourceFailed if it is not what was
        published."""
        return Use(self, permit)

    async def kept(self, permit: Permit) -> K | None:
        """What `Use.keep` was given for the source of a permit, if that is open and still what was published."""
        opened = self._shared.get(permit.transfer)
        if opened is None or opened.kept is None or opened.address is not permit.source:
            return None
        opened.used = asyncio.get_running_loop().time()
        try:
            await opened.source.stat()
        except SourceFailed:
            return None
        return opened.kept

    async def close(self) -> None:
        """Close what nobody uses; the rest closes with its last user."""
        await stopped(self._sweeper)
        shared, self._shared = self._shared, {}
        for opened in shared.values():
            if opened.users == 0:
                await opened.source.close()

    async def _take(self, permit: Permit) -> _Opened[K]:
        opened = self._shared.get(permit.transfer)
        if opened is not None and opened.address is not permit.source:
            if opened.address == permit.source:
                opened.address, opened.kept = permit.source, None  # looked up again, and what was kept with it may have changed
            else:
                del self._shared[permit.transfer]
                if opened.users == 0:
                    await opened.source.close()
                opened = None
        if opened is None:
            opened = await self._open(permit)
        opened.users += 1
        return opened

    def reads(self, permit: Permit) -> bool:
        """Whether its source is of a kind that is read here; those without an end are read elsewhere."""
        return str(permit.source.get("type")) in self._kinds

    async def _open(self, permit: Permit) -> _Opened[K]:
        """Open the source of a permit, and share it unless somebody who came at the same time shares theirs."""
        kind = self._kinds.get(str(permit.source.get("type")))
        if kind is None:
            raise SourceFailed(f"the dataset's source is of type `{permit.source.get('type')}`, which this connector does not read")
        opened: _Opened[K] = _Opened(permit.source, await kind.open(permit.source))
        if permit.transfer not in self._shared and len(self._shared) < OPEN_MAX:
            self._shared[permit.transfer] = opened
            if self._sweeper is None or self._sweeper.done():
                self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="idle sources")
        return opened

    async def _give(self, transfer: str, opened: _Opened[K], *, failed: bool) -> None:
        opened.users -= 1
        if self._shared.get(transfer) is opened:
            if not failed:
                opened.used = asyncio.get_running_loop().time()
                return
            del self._shared[transfer]
        if opened.users == 0:
            await opened.source.close()

    async def _sweep(self) -> None:
        """Close what was idle for the time; ends when nothing is shared."""
        while self._shared:
            await asyncio.sleep(self._idle_seconds)
            before = asyncio.get_running_loop().time() - self._idle_seconds
            idle = [transfer for transfer, opened in self._shared.items() if opened.users == 0 and opened.used <= before]
            for opened in [self._shared.pop(transfer) for transfer in idle]:
                await opened.source.close()


class Use(Generic[K]):
    """See `OpenSources.use`."""

    __slots__ = ("_opened", "_owner", "_permit")

    def __init__(self, owner: OpenSources[K], permit: Permit) -> None:
        self._owner, self._permit = owner, permit

    async def __aenter__(self) -> tuple[Source, Stat]:
        self._opened = await self._owner._take(self._permit)
        try:
            return self._opened.source, await self._opened.source.stat()
        except BaseException:
            await self._owner._give(self._permit.transfer, self._opened, failed=True)
            raise

    def keep(self, value: K) -> None:
        """Keep a value with the open source: see `OpenSources.kept`."""
        self._opened.kept = value

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        await self._owner._give(self._permit.transfer, self._opened, failed=isinstance(error, SourceFailed))
