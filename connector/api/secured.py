"""TLS for the connections of a listener: a transport over one non-blocking `SSLSocket`, which can be lent to a thread.

asyncio's own TLS encrypts into memory on the event loop and reads files 16 KiB at a time; its SSL object belongs to a protocol that
touches it from many places, so nobody else could ever use it safely. Here the socket has one owner at a time: the loop, or a
thread that sends a file through it as `SSLSocket.sendall` does. While it is lent, nothing here touches it but `shutdown(2)`, which
is safe from outside and ends whatever the thread is at.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar

READ_BYTES = 256 * 1024
RECORDS_BYTES = 256 * 1024  # encrypted in one step: some 0.1 ms of the loop, and what is unsent is known that exactly
HIGH_BYTES = 64 * 1024  # as asyncio has it, until somebody sets other limits
T = TypeVar("T")


class Secured(asyncio.Transport):
    """The server's side of one connection. `sock` becomes its own. The handshake begins with `begin` and has `handshake_seconds`;
    the goodbye at the end has `linger_seconds`. `failed(error)` is called if there is no handshake, instead of
    `connection_lost`, and never both."""

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLContext,
        *,
        handshake_seconds: float,
        linger_seconds: float,
        failed: Callable[[OSError | None], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._descriptor = self._sock.fileno()
        super().__init__({"peername": _named(self._sock.getpeername), "sockname": _named(self._sock.getsockname)})
        self._extra |= {"socket": self._sock, "ssl_object": self._sock, "sslcontext": tls}  # type: ignore[attr-defined]
        self._loop = asyncio.get_running_loop()
        self._linger_seconds, self._failed = linger_seconds, failed
        self._protocol: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(handshake_seconds, self.abort)
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._nothing_unsent = asyncio.Event()
        self._nothing_unsent.set()
        self._open = self._closing = self._ended = self._lent = self._heard_all = False
        self._reading_paused = self._writing_paused = False

    def begin(self, protocol: asyncio.Protocol) -> None:
        """Shake hands; `protocol` hears of the connection once that is done."""
        self._protocol = protocol
        self._shake()

    @property
    def certified(self) -> bool:
        """Whether the peer has shown a certificate, which was believed, or may yet: it shakes hands."""
        return not self._ended and (not self._open or self._sock.getpeercert(binary_form=True) is not None)

    # ---- what asyncio says of a transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("this transport speaks to an asyncio.Protocol")
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        if self._protocol is None:
            raise RuntimeError("the connection is over")
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        self._reading_paused = True
        self._watch()

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._watch()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def can_write_eof(self) -> bool:
        return False  # TLS closes both ways together

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        view = memoryview(bytes(data))  # OpenSSL wants to see the same bytes again if it could not send them
        first = not self._unsent
        self._unsent.extend(view[at : at + RECORDS_BYTES] for at in range(0, len(view), RECORDS_BYTES))
        self._unsent_bytes += len(view)
        self._nothing_unsent.clear()
        if first:
            self._flush()
        self._mind_limits()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._descriptor)
            if not self._open:
                self._end(None)
            elif not self._lent and not self._unsent:
                self._say_goodbye()

    def abort(self) -> None:
        self._end(None)

    # ---- lending

    async def lend(self, work: Callable[[ssl.SSLSocket], T], threads: Executor) -> T:
        """Run `work` in one of `threads` with the connection as a blocking socket, once all that was written before is with the
        kernel. Nothing is read meanwhile.

        If this is cancelled, the connection is over at once: what `work` is at fails, and the cancellation goes on when it has
        let go of the socket, never before. Raises ConnectionError if the connection is over already, and what `work` raises.
        """
        while self._unsent:
            await self._nothing_unsent.wait()
        if self._closing or self._lent:
            raise ConnectionResetError("the client is gone")
        self._lent = True
        self._watch()
        self._sock.setblocking(True)
        running = self._loop.run_in_executor(threads, work, self._sock)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._sever()
            while not running.done():
                with suppress(asyncio.CancelledError):  # again: it is on its way out already
                    await asyncio.wait({running})
            with suppress(Exception):
                running.result()  # that it failed is what was wanted
            raise
        finally:
            self._take_back()

    def _take_back(self) -> None:
        self._lent = False
        if self._ended:
            self._loop.call_soon(self._tell, None)
            return
        self._sock.setblocking(False)
        self._watch()
        if self._unsent:
            self._flush()
        elif self._closing:
            self._say_goodbye()

    def _sever(self) -> None:
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # `SSLSocket.shutdown` would go on in the clear

    # ---- one step each, when the socket is ready for it

    def _shake(self) -> None:
        self._loop.remove_writer(self._descriptor)
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(self._descriptor, self._shake)
        except ssl.SSLWantWriteError:
            self._loop.remove_reader(self._descriptor)
            self._loop.add_writer(self._descriptor, self._shake)
        except OSError as error:
            self._end(error)
        else:
            self._stop_timer()
            self._open = True
            if self._protocol is not None:
                self._protocol.connection_made(self)
            self._watch()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:  # TLS itself has to answer first
            self._loop.remove_reader(self._descriptor)
            self._loop.add_writer(self._descriptor, self._writable)
            return
        except OSError as error:
            self._end(error)
            return
        if self._protocol is None:
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._heard_all = True
            self._watch()
            if not self._protocol.eof_received():
                self.close()

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._flush()
        self._watch()

    def _flush(self) -> None:
        """Give the kernel what it takes."""
        if self._lent or self._ended or not self._open:
            return
        while self._unsent:
            try:
                self._sock.send(self._unsent[0])
            except ssl.SSLWantWriteError:
                self._loop.add_writer(self._descriptor, self._writable)
                break
            except OSError as error:
                self._end(error)
                return
            self._unsent_bytes -= len(self._unsent.popleft())
        else:
            self._nothing_unsent.set()
            if self._closing:
                self._say_goodbye()
        self._mind_limits()

    def _mind_limits(self) -> None:
        if self._protocol is None or not self._open:
            return
        if not self._writing_paused and self._unsent_bytes > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif self._writing_paused and self._unsent_bytes <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()

    def _watch(self) -> None:
        """Read if somebody is to hear of it."""
        if self._closing or not self._open:
            return
        if self._reading_paused or self._lent or self._heard_all:
            self._loop.remove_reader(self._descriptor)
        else:
            self._loop.add_reader(self._descriptor, self._read)

    def _say_goodbye(self) -> None:
        """Say that this is all (RFC 8446, 6.1), then wait a moment: closing a socket with something unread in it would make the
        kernel take back what the peer has not read yet."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._linger_seconds, self._end, None)
        try:
            self._sock.unwrap()
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._descriptor, self._say_goodbye)
            return
        except (OSError, ValueError):
            pass  # the peer has not said it yet, or is gone
        self._loop.remove_writer(self._descriptor)
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
        except OSError:
            self._end(None)
        else:
            self._loop.add_reader(self._descriptor, self._drop)

    def _drop(self) -> None:
        try:
            dropped = socket.socket.recv(self._sock, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            dropped = b""
        if not dropped:
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        if self._ended:
            return
        self._ended = self._closing = True
        self._stop_timer()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._nothing_unsent.set()
        if self._lent:
            self._sever()  # the number of a socket that a thread uses must not become another's: `_take_back` closes it
        else:
            self._loop.call_soon(self._tell, error)

    def _tell(self, error: OSError | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            if not self._open:
                self._failed(error)
            elif protocol is not None:
                protocol.connection_lost(error)
        finally:
            self._sock.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _named(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError:
        return None  # it is gone already
