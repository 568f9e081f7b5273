"""What goes on for as long as the connector runs: work, which whatever it meets does not end silently, and values of files that
somebody else renews."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from connector import telemetry
from connector.remembered import FIRST_PAUSE_SECONDS, pause_seconds

AGAIN_SECONDS = 60.0  # what was refused may hold by now although its files are the same: a certificate begins to be valid
T = TypeVar("T")
_ASIDE = ThreadPoolExecutor(2, thread_name_prefix="aside")


class Lasting:
    """Runs `turn`, then `wait`, then `turn` again, until it is closed. An error of either is logged and followed by a pause;
    `fault` says what is wrong from then on until a turn succeeds."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[None]],
        wait: Callable[[], Awaitable[None]],
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._name = name
        self._turn = turn
        self._wait = wait
        self._first_pause_seconds = first_pause_seconds
        self._task: asyncio.Task[None] | None = None
        self.fault: str | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        await stopped(self._task)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._turn()
                self.fault, failures = None, 0
                await self._wait()
            except Exception as error:
                failures += 1
                self.fault = f"{self._name} fails, {failures} in a row: {type(error).__name__}; the log has the details"
                telemetry.log.error(f"{self._name} failed", failures=failures, exc_info=error)
                await asyncio.sleep(pause_seconds(failures, self._first_pause_seconds))


async def stopped(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks, those that are not None, and return once none of them runs any more. What they raise is nobody's matter then."""
    ending = [task for task in tasks if task is not None]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def aside(work: Callable[..., T], *args: Any) -> T:
    """What `work` returns, which would keep the loop for milliseconds, and waits for nothing. It has threads of its own: those of
    `asyncio.to_thread` may all wait for a disk that does not answer, and what a peer says has nothing to do with that."""
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, work, *args)


def since_boot() -> float:
    """Seconds since the machine has started, also those for which it slept, by a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class OfFiles(Generic[T]):
    """A value made of files: `make()` reads `paths` and returns it, or raises. It is called at once; what it raises then is raised
    here. `name` says in the log what it is. `changed(value, others)` is called once another value is in use, with the paths whose content
    is another: a file that changes between this look at it and `make` is another at the next look.

    A look at the files goes before each use: a few calls of `stat(2)`, some 5 microseconds beside a TLS handshake of a thousand. So
    the next connection has the new certificate, on every file system, also where Kubernetes swaps a directory behind a link; nothing
    polls, and nothing has to be told.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], make: Callable[[], T], changed: Callable[[T, frozenset[Path]], None] = lambda *_: None
    ) -> None:
        self._name, self._paths, self._make, self._told = name, tuple(paths), make, changed
        # Looked at before they are read: what changes in between is found at the next look.
        self._seen, self._content = self._look(), self._read()
        self._value = make()
        self._refused_at: float | None = None

    def renew(self) -> bool:
        """Make the value again if the content of the files is another. Returns whether it was. Raises what `make` raises, and keeps
        the former value."""
        self._seen, content = self._look(), self._read()
        if content == self._content:
            self._refused_at = None  # it is what is in use, perhaps again
            return False
        self._refused_at = time.monotonic()
        self._value = self._make()
        others = frozenset(path for path, was, now in zip(self._paths, self._content, content, strict=True) if was != now)
        self._refused_at, self._content = None, content
        telemetry.log.info("files loaded again", of=self._name)
        self._told(self._value, others)
        return True

    def now(self) -> T:
        """The value of the files as they are now. Files that `make` cannot use are said once, and the former value stays."""
        if self._paths and self._changed():
            try:
                self.renew()
            except Exception as error:
                reasons = list(getattr(error, "reasons", (type(error).__name__,)))
                telemetry.log.error("files refused, the former ones stay", of=self._name, reasons=reasons)
        return self._value

    def _changed(self) -> bool:
        refused = self._refused_at is not None and time.monotonic() - self._refused_at > AGAIN_SECONDS
        return refused or self._look() != self._seen

    def _look(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_stat(path) for path in self._paths)

    def _read(self) -> tuple[bytes, ...]:
        return tuple(_digest(path) for path in self._paths)


def revoke(context: ssl.SSLContext, lists: Path) -> str | None:
    """Let `context` refuse chains with a certificate that `lists` (PEM, one of each authority) name, and those of which they cannot tell.
    Returns what is wrong with the file, or None."""
    before, why = context.cert_store_stats(), "it has no list"
    try:
        context.load_verify_locations(lists)
    except OSError as error:
        why = str(error)
    after = context.cert_store_stats()
    if after["x509"] != before["x509"]:  # OpenSSL would have trusted them like those of authorities
        return "it has certificates"
    if after["crl"] == before["crl"]:
        return why
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN  # an authority between may be revoked, too
    return None


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()  # `make` says what is wrong with it
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
