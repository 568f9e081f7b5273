"""What serving needs of disks: room for the ledger, for indexes and for what is spooled. It is watched, and ends before they do.

With less free than a share of one of them, no new transfer is served; those that run go on to their ends. When the database's is all but
full, a file that was kept for this is given up, so that receipts, terminations and the ledger can still be written; transfers that write
data themselves (live ones) stop then. The file is taken back once there is room for it and for new transfers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from connector import telemetry
from connector.errors import DiskShort
from connector.lasting import stopped
from connector.telemetry_metrics import Gauge
from connector.values import Value, replace

RESERVE_BYTES: Final = 64 * 1024 * 1024  # some 20,000 receipts with their acks
FULL_BYTES: Final = 16 * 1024 * 1024  # free at the database: with less, what is kept is given up
EVERY_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 60
DATABASE: Final = "database"

free_bytes = Gauge("qiao_disk_free_bytes", "Free space of the disks that serving writes to", ("purpose",))


class Space(Value):
    """A disk: what of its `size_bytes` is free for us, and how much of the files that there may be."""

    free_bytes: int
    size_bytes: int
    files_percent: float = 100.0

    @property
    def percent(self) -> float:
        """What is free: of that which is shorter."""
        return min(self._bytes_percent, self.files_percent)

    @property
    def lacks(self) -> str:
        """What is said of which is shorter: `df` shows its user bytes, and of files nothing unless it is asked (`-i`)."""
        return " by inodes" if self.files_percent < self._bytes_percent else ""

    @property
    def _bytes_percent(self) -> float:
        return 100.0 * self.free_bytes / self.size_bytes if self.size_bytes else 0.0


def look(folder: Path) -> Space:
    """The disk of a folder. Raises OSError."""
    found = os.statvfs(folder)
    files_percent = 100.0 * found.f_favail / found.f_files if found.f_files else 100.0  # without a number there is no bound
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files_percent)


class Reserve:
    """A file at `path` that is there to be given up: of RESERVE_BYTES, and on a small disk of a tenth of it. Raises OSError."""

    def __init__(self, path: Path, *, look: Callable[[Path], Space] = look) -> None:
        self._path, self.size_bytes = path, min(RESERVE_BYTES, look(path.parent).size_bytes // 10)

    @property
    def held(self) -> bool:
        """Whether all of it is there."""
        with suppress(OSError):
            found = self._path.stat()
            return found.st_size == self.size_bytes and found.st_blocks * 512 >= self.size_bytes
        return False

    def take(self) -> None:
        """Have it. Raises OSError if there is no room: then nothing is there."""
        try:
            with self._path.open("wb") as file:
                self._path.chmod(0o600)
                os.posix_fallocate(file.fileno(), 0, self.size_bytes)
        except OSError:
            self.give_up()
            raise

    def give_up(self) -> None:
        """Let others have its room. Raises OSError."""
        self._path.unlink(missing_ok=True)


class Disks:
    """Watches `folders` (by purpose). With less than `percent` free of one of them it is `short`; `stop(code)` ends what writes data when
    the database's is `full`. Without a `reserve` nothing is kept."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        percent: float,
        reserve: Reserve | None,
        stop: Callable[[str], Awaitable[None]],
        *,
        look: Callable[[Path], Space] = look,
        full_bytes: int = FULL_BYTES,
    ) -> None:
        self.percent = percent
        self._folders, self._reserve, self._stop, self._look, self._full_bytes = dict(folders), reserve, stop, look, full_bytes
        self.short: tuple[str, ...] = ()
        self.full = False
        self._unseen: tuple[str, ...] = ()
        self._to_stop = False  # what writes data: it is full, and that was not done
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, and go on to."""
        await self.watch()
        self._task = asyncio.create_task(self._work(), name="disks")

    async def close(self) -> None:
        """Look no more, and keep nothing from others: the next start takes it again. Raises OSError."""
        await stopped(self._task)
        if self._reserve is not None:
            self._reserve.give_up()

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.watch()
            except Exception as error:  # a watch that ends would let everything through
                telemetry.log.error("disks not watched", exc_info=error)

    async def watch(self) -> None:
        """Look at all of them, and act on what there is."""
        found, unseen = await asyncio.to_thread(self._see)
        for purpose, space in found.items():
            free_bytes.set(space.free_bytes, purpose)
        before = self.short, self.full
        if DATABASE in found:
            found[DATABASE] = self._bare(found[DATABASE])
            await asyncio.to_thread(self._keep, found[DATABASE])
        self.short = tuple(f"{purpose}{space.lacks}" for purpose, space in found.items() if space.percent < self.percent)
        self._unseen = unseen
        if (self.short, self.full) != before:
            say = telemetry.log.error if self.short or self.full else telemetry.log.info
            say(
                "disks", short=list(self.short), full=self.full, beside_what_is_kept={name: each.free_bytes for name, each in found.items()}
            )
        self._to_stop = self.full and (self._to_stop or not before[1])
        if self._to_stop:
            await self._stop("disk-full")
            self._to_stop = False

    def _see(self) -> tuple[dict[str, Space], tuple[str, ...]]:
        found, unseen = {}, []
        for purpose, folder in self._folders.items():
            try:
                found[purpose] = self._look(folder)
            except OSError:
                unseen.append(purpose)
        return found, tuple(unseen)

    def _keep(self, bare: Space) -> None:
        """Give up what is kept, or take it back. `bare` is what would be free beside it."""
        limit = min(self._full_bytes, bare.size_bytes * self.percent / 200)  # of a small disk, half of what makes it short
        self.full = bare.free_bytes < limit
        if self._reserve is None:
            return
        try:
            if self.full and self._reserve.held:
                self._reserve.give_up()
            elif bare.percent >= self.percent and not self._reserve.held:
                self._reserve.take()
        except OSError as error:
            telemetry.log.error("nothing kept for a full disk", reason=str(error.strerror))

    def _bare(self, space: Space) -> Space:
        """What is free beside what is kept, be it there or not."""
        missing = self._reserve.size_bytes if self._reserve is not None and not self._reserve.held else 0
        return replace(space, free_bytes=space.free_bytes - missing)

    def admit(self) -> None:
        """Raise DiskShort for a transfer that begins now."""
        if self.short or self.full:
            named = ", ".join(self.short) or DATABASE
            text = (
                f"the provider's disk ({named}) has less than {self.percent:g} % free: no transfer begins until its operator has made room"
            )
            raise DiskShort(text, retry_seconds=RETRY_SECONDS)

    def admit_data(self) -> None:
        """Raise DiskShort for a transfer that goes on and writes data here."""
        if self.full:
            text = "a disk of the provider is full: data that would be kept there wait until there is room again"
            raise DiskShort(text, retry_seconds=RETRY_SECONDS)

    async def fault(self) -> str | None:
        """What is wrong, for the readiness of the connector."""
        if self._unseen:
            return f"the disk of {', '.join(self._unseen)} cannot be looked at"
        if self.full:
            return "the disk of the database is full: what was kept for that is given up, and no data are written; make room"
        if self.short:
            return f"the disk of {', '.join(self.short)} has less than {self.percent:g} % free: no new transfer is served; make room"
        return None
