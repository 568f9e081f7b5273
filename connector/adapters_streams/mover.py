"""Bytes from a connection into a file without a copy in this process, and their hashes: three threads for each connection.

One thread moves what has arrived from the socket through a pipe into the file (`splice`); two others read it from the page cache and
hash it, while more arrives (without the interpreter's lock). Where there is no `splice`, or a file system does not take
it, pieces are read and written. The event loop hears of a move when it is over, and sees its hashes as they come.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Final

from msgspec import Struct

from connector.adapters_streams.buffers import Buffers
from connector.errors import ConnectorError, PeerFailed, SinkFailed
from connector.lanes import hashing
from connector.lanes.counting import records_in
from connector.ports import Detached
from connector.ports.sinks import Move
from connector.values import Value, field

PIPE_BYTES: Final = 1 << 20  # what a user may have; also the most that one step moves
READ_BYTES: Final = 1 << 20  # handed over and read back for hashing at once: below, the hop, and the lock of the interpreter, cost more
STILL_MS, LATE_SECONDS = 5, 0.05  # where leaves are hashed many at a time: without more, or enough, it is those that are there
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SPLICE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
HASHING: Final = 2  # threads for each connection: one alone takes longer than all the rest
STOPPED: Final = "the download was stopped"
SPLICES: Final = hasattr(os, "splice")
BUFFERS: Final = Buffers()
TURN_SECONDS: Final = 0.0002  # that the event loop keeps the lock from a thread that waits for it, while bytes move


class _Job(Struct, eq=False):
    """A move as it was asked for, and how it stands: `chunks` of it were handed over, and no more are once it is `over`; `cut` says why
    that was before its end, `failed` why some cannot be hashed. `hashed` waits for what comes before it: by the number of its first chunk,
    what was counted in each and its hash."""

    move: Move
    offset: int
    length: int
    chunk_bytes: int
    unit: str
    chunks: int = 0
    over: bool = False
    cut: ConnectorError | None = None
    failed: ConnectorError | None = None
    hashed: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)


class _Come(Value):
    """`length` bytes of a job lie at their place, from its chunk number `first` on."""

    job: _Job
    first: int
    length: int


class SpliceMover:
    """See the ports `Movers` and `Mover`. Raises PeerFailed if the system has no thread for it; the connection is closed then."""

    def __init__(self, detached: Detached, into: int, idle_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(fileno=detached.descriptor)
        self._socket.setblocking(False)
        self._where, self._into, self._idle_seconds = detached.where, into, idle_seconds
        self._ahead, self._left = memoryview(detached.ahead), detached.left
        self._closed = False
        self._open: set[Move] = set()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._come: SimpleQueue[_Come | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        _Turns.more(1)
        self._lock = threading.Lock()
        try:
            self._ended = [self._thread(self._move_all, "move"), *(self._thread(self._hash_all, "hash") for _ in range(HASHING))]
        except RuntimeError:
            self._unbegun()
            raise PeerFailed(f"`{self._where}` cannot be read: the system starts no more threads; allow this process more tasks") from None

    def move(self, offset: int, length: int, chunk_bytes: int, unit: str = "none") -> Move:
        """See the port."""
        move = Move(self._loop.create_future())
        self._open.add(move)
        move.finished.add_done_callback(partial(self._over, move))
        self._jobs.put(_Job(move, offset, length, chunk_bytes, unit))
        return move

    async def close(self) -> None:
        """See the port."""
        if not self._closed:
            self._closed = True
            _Turns.more(-1)
            with suppress(OSError):  # the peer was faster
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for more
            self._jobs.put(None)
        try:
            await _to_their_end(self._ended)
        finally:
            for thread in self._threads:
                thread.join()  # its last act was to say so
            self._socket.close()
            if not _Turns.movers:
                BUFFERS.let_go()

    def _unbegun(self) -> None:
        """End those threads that have begun: there is nothing to do for them, and whoever tries again would leave more of them."""
        _Turns.more(-1)
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _over(self, move: Move, future: asyncio.Future[None]) -> None:
        self._open.discard(move)
        if not future.cancelled():
            future.exception()  # nobody may wait for it any more

    def _thread(self, work: Callable[[], None], name: str) -> asyncio.Future[None]:
        ended = self._loop.create_future()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # a defect: whoever waits for a move would wait for ever
                self._tell(ended, error)
                self._loop.call_soon_threadsafe(self._broke, error)
            else:
                self._tell(ended, None)

        thread = threading.Thread(target=run, name=f"{name} {self._where}", daemon=True)
        thread.start()
        self._threads.append(thread)
        return ended

    def _tell(self, future: asyncio.Future[None], error: BaseException | None) -> None:
        self._loop.call_soon_threadsafe(_settle, future, error)

    def _broke(self, error: BaseException) -> None:
        for move in tuple(self._open):
            _settle(move.finished, error)

    # The thread that moves.

    def _move_all(self) -> None:
        broken: ConnectorError | None = None
        try:
            with closing(_Way(self._socket, self._into, self._idle_seconds)) as way:
                while (job := self._jobs.get()) is not None:
                    broken = broken or self._move_one(job, way)
                    with self._lock:
                        job.over, job.cut = True, broken
                        self._settle_if_over(job)
        finally:  # whatever it was: whoever closes waits for those that hash
            for _ in range(HASHING):
                self._come.put(None)

    def _move_one(self, job: _Job, way: _Way) -> ConnectorError | None:
        """Returns what ended it before its end."""
        at = job.offset
        end = job.offset + job.length
        late = monotonic() + LATE_SECONDS
        try:
            while at < end:
                moved = self._step(at, end - at, way)
                at += moved or 0
                if moved is None and self._waits(job, at, late) and way.more_comes(STILL_MS):
                    continue
                if self._hand_over(job, at, whatever=moved is None or at == end):
                    late = monotonic() + LATE_SECONDS
                if moved is None and not way.more_comes():
                    raise PeerFailed(f"`{self._where}` stopped sending in the middle of its answer")
        except ConnectorError as error:
            self._hand_over(job, at, whatever=True)
            return error
        return None

    def _waits(self, job: _Job, end: int, late: float) -> bool:
        """Whether what has come up to `end` waits for more: all lanes together take as long as one of them."""
        some = end - job.offset - job.chunks * job.chunk_bytes
        return some > 0 and hashing.batch_bytes(READ_BYTES) > READ_BYTES and monotonic() < late

    def _hand_over(self, job: _Job, end: int, *, whatever: bool) -> bool:
        """Let those chunks be hashed that have come up to `end` and are whole, `whatever` it is or as many as are hashed at once. Returns
        whether there were any."""
        chunk_bytes, before = job.chunk_bytes, job.chunks
        most_bytes = max(hashing.batch_bytes(READ_BYTES) // chunk_bytes, 1) * chunk_bytes
        while (begin := job.offset + job.chunks * chunk_bytes) < end:
            come = end - begin if end == job.offset + job.length else (end - begin) // chunk_bytes * chunk_bytes
            length = min(come, most_bytes)
            if not length or (length < most_bytes and not whatever):
                break
            self._come.put(_Come(job, job.chunks, length))
            job.chunks += -(-length // chunk_bytes)
        return job.chunks > before

    def _step(self, offset: int, count: int, way: _Way) -> int | None:
        """Move what is there, up to `count` bytes; None if there is nothing yet. Raises PeerFailed if nothing comes any more."""
        if self._closed:
            raise PeerFailed(STOPPED)
        if self._ahead:
            piece, self._ahead = self._ahead[:count], self._ahead[count:]
            _write(self._into, offset, piece)
            return len(piece)
        try:
            moved = way.step(offset, min(count, self._left)) if self._left else 0
        except BlockingIOError:
            return None
        except OSError as error:  # also for a network that was cut, or that says there is no way to the peer
            if error.errno in NO_SPLICE:
                raise
            moved = 0
        if not moved and self._closed:  # between the look at it and the wait for more: the end is ours, not the peer's
            raise PeerFailed(STOPPED)
        if not moved:
            raise PeerFailed(f"`{self._where}` closed the connection in the middle of its answer")
        self._left -= moved
        return moved

    # The threads that hash.

    def _hash_all(self) -> None:
        while (come := self._come.get()) is not None:
            failed: ConnectorError | None = None
            hashed: list[tuple[int, bytes]] = []
            try:
                if self._closed:
                    raise PeerFailed(STOPPED)
                self._hash(come, hashed)
            except ConnectorError as error:
                failed = error
            job, move = come.job, come.job.move
            with self._lock:
                job.failed = job.failed or failed
                job.hashed[come.first] = hashed
                while part := job.hashed.pop(len(move.hashes), None):
                    move.records += [records for records, _ in part]
                    move.hashes += [leaf for _, leaf in part]
                self._settle_if_over(job)

    def _hash(self, come: _Come, hashed: list[tuple[int, bytes]]) -> None:
        job, chunk_bytes = come.job, come.job.chunk_bytes
        spans = hashing.spans_of(come.length, chunk_bytes)
        with BUFFERS.lent(come.length) as buffer:
            got = _read(self._into, job.offset + come.first * chunk_bytes, come.length, buffer)
            leaves = hashing.leaf_hashes(got, spans)
            hashed += [(records_in(buffer, job.unit, *span), leaf) for span, leaf in zip(spans, leaves, strict=True)]

    def _settle_if_over(self, job: _Job) -> None:
        """By whichever thread comes last."""
        if job.over and (job.failed or len(job.move.hashes) == job.chunks):
            self._tell(job.move.finished, job.failed or job.cut)


class _Turns:
    """How long threads keep the interpreter's lock from each other. Ours need it for microseconds between two pieces; at the usual 5 ms
    they stood still for most of what the event loop did meanwhile: a sixteenth of the time. A loop alone is faster with the usual."""

    movers = 0
    usual_seconds = sys.getswitchinterval()

    @classmethod
    def more(cls, movers: int) -> None:
        """So many more movers run, or fewer."""
        cls.movers += movers
        sys.setswitchinterval(TURN_SECONDS if cls.movers else cls.usual_seconds)


class _Way:
    """From a socket into a file: through a pipe if it can be, else through a buffer."""

    def __init__(self, sock: socket.socket, into: int, idle_seconds: float) -> None:
        self._socket, self._into, self._idle_ms = sock, into, int(idle_seconds * 1000)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._buffer = memoryview(b"")
        self._pipe: tuple[int, int] | None = None
        if SPLICES:
            # There may be no descriptor left: then it is a buffer; or this user may have no more: then it is a smaller pipe.
            with suppress(OSError):
                self._pipe = os.pipe()
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def more_comes(self, wait_ms: int | None = None) -> bool:
        """Wait for more, or the end; False if neither comes in time."""
        return bool(self._poll.poll(self._idle_ms if wait_ms is None else wait_ms))

    def step(self, offset: int, count: int) -> int:
        """Move up to `count` bytes to `offset`; 0 if there are no more. Raises BlockingIOError if there is nothing yet, OSError,
        SinkFailed."""
        return self._splice(self._pipe, offset, count) if self._pipe is not None else self._copy(offset, count)

    def _splice(self, pipe: tuple[int, int], offset: int, count: int) -> int:
        moved = os.splice(self._socket.fileno(), pipe[1], min(count, PIPE_BYTES), flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        done = 0
        while done < moved:
            try:
                done += os.splice(pipe[0], self._into, moved - done, offset_dst=offset + done, flags=os.SPLICE_F_MOVE)
            except OSError as error:
                if error.errno not in NO_SPLICE:
                    raise _disk(error) from None
                _write(self._into, offset + done, os.read(pipe[0], moved - done))  # what is in the pipe is all in one piece
                self._close_pipe()
                return moved
        return moved

    def _copy(self, offset: int, count: int) -> int:
        if not self._buffer:
            self._buffer = memoryview(bytearray(READ_BYTES))
        got = self._socket.recv_into(self._buffer[: min(count, READ_BYTES)])
        _write(self._into, offset, self._buffer[:got])
        return got

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    def close(self) -> None:
        self._close_pipe()


def _write(into: int, offset: int, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            written = os.pwrite(into, rest, offset)
            offset, rest = offset + written, rest[written:]
    except OSError as error:
        raise _disk(error) from None


def _read(into: int, offset: int, length: int, buffer: bytearray) -> memoryview:
    """What lies there, in `buffer`. Read, not mapped: a file that somebody truncates under us must not end the process."""
    view, have = memoryview(buffer)[:length], 0
    while have < length:
        try:
            got = os.preadv(into, [view[have:]], offset + have)
        except OSError as error:
            raise _disk(error) from None
        if not got:
            raise SinkFailed("the part was made shorter while it was written")
        have += got
    return view


def _disk(error: OSError) -> SinkFailed:
    if error.errno in FULL:
        return SinkFailed("the disk is full; the part is kept, free some space and ask again", full=True)
    return SinkFailed(f"the part cannot be written: {error.strerror}; it is kept")


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


async def _to_their_end(ending: Sequence[asyncio.Future[None]]) -> None:
    """Wait for all, also if we are cancelled meanwhile or one has a defect: nothing is closed under a thread, nor is one joined that works.
    Raises what the first of them has raised."""
    try:
        await asyncio.wait(ending)
    except asyncio.CancelledError:
        while not all(each.done() for each in ending):
            with suppress(asyncio.CancelledError):
                await asyncio.wait(ending)
        raise
    if defects := [error for each in ending if (error := each.exception()) is not None]:
        raise defects[0]
