"""Downloads, and where they go: the ports `Downloads`, `Sinks` and `Sink`, and `Movers`, for sinks that have a file descriptor.

Files implement them; an object store is one adapter more, which passes `tests/contracts/sink_contract.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from msgspec import Struct, field

from connector.ports import Detached
from connector.records import Edr, Pull

LOOK_SECONDS: Final = 60.0  # at most between two looks at a clock that somebody may set
KEEP_SECONDS: Final = 10.0  # for a receipt before whoever has enough is answered


class Placed(Protocol):
    """Where what a content log proves piece by piece goes, each piece where it belongs, in any order. All methods raise SinkFailed; what is
    there is kept then. Those that write at offsets, read and sync may run at the same time, the others one after the other."""

    @property
    def size_bytes(self) -> int:
        """Where the part ends now."""

    def digest(self) -> bytes:
        """SHA-256 of what was appended since the beginning, what `resume` has found included."""

    async def resume(self) -> int:
        """Take up the part of an earlier attempt in order: hashes it and returns its size in bytes."""

    async def restart(self) -> None:
        """Throw away what is there and begin at zero."""

    async def extents(self) -> Sequence[tuple[int, int]]:
        """Which bytes an earlier attempt may have written, each [from, to), in order: what lies in none of them was not."""

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        """Write a piece where it belongs; on return it can be read, and outlives the process. The part may have gaps."""

    async def read(self, offset: int, length: int) -> bytes:
        """What the part has there, shorter if it ends before. A gap reads as zeros."""

    async def sync(self) -> None:
        """Make all that was written before durable: on return it outlives a loss of power. Once it has failed it fails until somebody opens
        the part again: what a disk did not keep the next call would take for kept."""

    def fileno(self) -> int | None:
        """A file descriptor into which whoever moves bytes without copying may write at offsets instead of `write`, or None. It belongs
        to the sink and ends with `close`."""

    async def reserve(self, more_bytes: int) -> None:
        """Say how much is still to come. Raises SinkFailed if there is plainly no space for it."""

    async def discard(self) -> None:
        """Remove the part; nothing stands under either name."""


class Sink(Placed, Protocol):
    """Where one download goes: a part that takes its name only when it is whole. What comes in order is appended, and hashed as it
    grows; what is proven is `Placed`. All methods raise SinkFailed; the part is kept then."""

    async def append(self, pieces: Sequence[bytes]) -> None:
        """Write and hash pieces, in order; when it returns they may be forgotten."""

    async def cut(self, size_bytes: int) -> None:
        """Let the part end there, where it is longer."""

    async def commit(self, *, durable: bool = True) -> None:
        """Give the part its name in one step; before, make it durable, unless it need only outlive the process. Raises Contradiction, and
        keeps the part, if something took that name meanwhile and was not to be overwritten."""

    async def close(self) -> None:
        """Let go; the part stays for a later attempt. What was not made durable may be found not to be kept only now."""


class Sinks(Protocol):
    """Opens places for downloads below the directories that the operator allows."""

    async def check(self, out: str, part: str, *, overwrite: bool) -> None:
        """Whether `open` would give this place now. Raises what it would."""

    async def open(self, out: str, part: str, *, overwrite: bool) -> Sink:
        """Open the part `part` (an order's id) of the file `out`: the one that an earlier attempt under this id has left, else
        a new one. Each id has a part of its own, under a name that carries it; what others keep beside `out` is never touched.
        Raises InvalidRequest for a place that is not allowed, Contradiction if something has that name already and
        `overwrite` is false, SinkFailed if it cannot be written or another download to `out` is open."""

    async def existing(self, out: str, part: str) -> tuple[int, bytes] | None:
        """Size in bytes and SHA-256 of the file that already has this name, or None; a part that a crash has left as a second
        name of it is gone then. Raises InvalidRequest, SinkFailed."""


class Move(Struct, eq=False):
    """Bytes on their way. `hashes` grows while they arrive: the leaf hash (RFC 6962) of each chunk that lies at its place, in order; and
    before it `records`, what is counted in it (`connector.metering.content.records_in`). `finished` ends with the last one, or raises
    PeerFailed for a cut and SinkFailed; what came before it is in `hashes` then, too."""

    finished: asyncio.Future[None]
    hashes: list[bytes] = field(default_factory=list)
    records: list[int] = field(default_factory=list)


class Mover(Protocol):
    """Moves the body of one answer into a file, beside the event loop."""

    def move(self, offset: int, length: int, chunk_bytes: int, unit: str = "none") -> Move:
        """Let the next `length` bytes of the body go to `offset`, and hash them in chunks of `chunk_bytes`, the last one shorter, as they
        lie there, counting records of a `unit`. Moves that were asked for before go first."""

    async def close(self) -> None:
        """Stop at once, also in the middle of a move, and let go of the connection. No thread and no descriptor is left."""


class Movers(Protocol):
    """Makes movers."""

    def __call__(self, detached: Detached, into: int, idle_seconds: float) -> Mover:
        """A mover from that connection, which is its from now on, into the file descriptor `into`, which stays the caller's. It gives up
        once nothing has arrived for `idle_seconds`."""


async def nothing_came() -> None:
    """Nothing that would have to be signed for has come."""


class Enough:
    """How much is wanted of data that have no end: the leaf with byte number `most_bytes` is the last, or what has come at `until` (POSIX
    seconds); None for no bound. `said` is set once nothing more is wanted at all."""

    def __init__(self, most_bytes: int | None = None, until: float | None = None) -> None:
        self.most_bytes, self.until = most_bytes, until
        self.said = asyncio.Event()
        self.keep: Callable[[], Awaitable[object]] = nothing_came  # set by whoever takes the data: has all signed for that is here by now

    def reached(self, now: float) -> bool:
        """Whether nothing more is wanted at all at this time (POSIX seconds)."""
        return self.said.is_set() or (self.until is not None and self.until <= now)

    async def wait(self, now: Callable[[], float]) -> None:
        """Return once nothing more is wanted at all. A clock on the wall (`now`, POSIX seconds) that is set back meanwhile makes that no
        later: what comes is paid for."""
        own = asyncio.get_running_loop().time
        until, behind = self.until, now() - own()
        while until is None or (left := until - max(now(), own() + behind)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if until is None else min(left, LOOK_SECONDS)):
                    await self.said.wait()
                return

    async def kept(self) -> None:
        """Return once all is signed for that has come by now, and that is durable: so whoever has been shown it, and says that it is
        enough, has it after a crash. If a receipt before is not acknowledged within KEEP_SECONDS no other can be signed, and it returns."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEP_SECONDS):
                await self.keep()


class Downloads(Protocol):
    """Fetches what orders ask for to where they say."""

    async def check_out(self, out: str, id: str) -> None:
        """Raise InvalidRequest if a download of order `id` may not go to this path."""

    async def fetch(
        self,
        pull: Pull,
        edr: Edr | None,
        *,
        renewed: Callable[[Edr], Awaitable[None]],
        progress: Callable[[Pull], Awaitable[None]],
        over: Callable[[], bool],
        enough: Enough,
    ) -> Pull:
        """Download, resume, check and rename. Returns the order with size, digest and bytes received. `progress` is called
        with what has to survive a crash (validator, size, digest) and for whoever watches. Once `over` says so a request that
        runs may end, and there is none after it. Of data without an end `enough` says where they end. What
        the provider brings has no `edr`. Raises ConnectorError."""

    async def finish(self, pull: Pull, *, progress: Callable[[Pull], Awaitable[None]], completed: bool = False) -> Pull | None:
        """What `fetch` would return if all of the data is here already, without asking anybody; None if it is not, and what is
        here stays. Of data without an end whose transfer was `completed` that says that more may have come. Raises ConnectorError."""

    async def forget(self, pull: Pull) -> None:
        """Remove what an order that is ending has left beside its file, if anything. Raises ConnectorError."""
