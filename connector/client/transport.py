"""HTTP to the management API: one JSON call, and the event stream that opens itself again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from random import random
from ssl import SSLContext
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
from yarl import URL

from connector.client.events import EventReader
from connector.client.views import Event, Pull
from connector.errors import ConnectorError
from connector.remembered import pause_seconds

CALL_SECONDS = 60.0  # a call may make the connector ask a peer, which has its own, shorter limit
CONNECT_SECONDS = 5.0  # it is our own connector, on this machine or near
SILENCE_SECONDS = 60.0  # an event stream that says nothing for so long is opened again
PATIENCE_SECONDS = 30.0  # how long a lost event stream is tried again: longer than a restart takes
FIRST_RETRY_SECONDS, RETRY_SECONDS_MAX = 0.05, 2.0  # between two of these attempts
CLIENT_ERROR = 400  # RFC 9110: from here on a status is a failure
SERVER_ERROR = 500
IDLE_SECONDS = 5.0  # that a connection is used again: a connector keeps it for 10, and may end it as the next call is on its way
NO_SUCH_ADDRESS = "http-404"  # what a listener of a connector says of an address that it does not have
PLAIN_CHARACTERS = 200  # shown of an answer that is no problem document


class ManagementError(ConnectorError):
    """A call that did not succeed.

    `status` is the HTTP status, 0 if there was no answer; `code` the stable code of the problem; `pointer` the RFC 6901
    place of a fault in the body; `trace` the id under which the connector's log speaks of it.
    """

    def __init__(
        self, message: str, reasons: tuple[str, ...] = (), *, status: int = 0, code: str = "unreachable", pointer: str = "", trace: str = ""
    ) -> None:
        super().__init__(message, reasons)
        self.status = status
        self.code = code
        self.pointer = pointer
        self.trace = trace


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, with the members that the connector adds."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    reasons: tuple[str, ...] = ()
    pointer: str = ""
    trace: str | None = None


class Transport:
    """One session with one connector. `tls` is what to trust where the URL is https; None trusts the system's authorities."""

    def __init__(self, url: str, token: str, tls: SSLContext | None) -> None:
        self._base = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}", "User-Agent": "qiao-client"},
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0, keepalive_timeout=IDLE_SECONDS),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int | float | None] | None = None,
        key: str | None = None,
        hold_seconds: float = 0.0,
    ) -> bytes:
        """Return the body of a good answer.

        `path` is percent-encoded, `key` the idempotency key, `hold_seconds` how long the connector is asked to wait before
        it answers. A call whose connection ends without an answer is made once more, on another one, if that does no harm: with a key it
        does not (and what is idempotent aiohttp repeats). Raises ManagementError.
        """
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS + hold_seconds, sock_connect=CONNECT_SECONDS)
        headers = {"Accept": "application/json"} | ({"Idempotency-Key": key} if key else {})
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        again = key is not None
        while True:
            try:
                async with self._session.request(method, self._url(path, query), data=data, headers=headers, timeout=timeout) as response:
                    answer = await response.read()
                break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if not again or not isinstance(error, aiohttp.ServerDisconnectedError):
                    raise self._unreachable(error) from error
                again = False
        if response.status >= CLIENT_ERROR:
            raise self._failure(response.status, answer)
        return answer

    async def pieces(self, path: str, query: Mapping[str, str | int | float | None] | None = None) -> AsyncGenerator[bytes]:
        """Yield the body of a good answer piece by piece, however large it is. Raises ManagementError, also for one that was cut."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=CALL_SECONDS)
        try:
            async with self._session.get(self._url(path, query), timeout=timeout) as response:
                if response.status >= CLIENT_ERROR:
                    raise self._failure(response.status, await response.read())
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def stream(self, after: int | None) -> AsyncGenerator[Event | Pull | None]:
        """Yield what the event feed says: the record after that sequence (None: from now on), then live, and between it pulls
        that move on. None stands for a new connection: what happened before it may have been missed.

        Raises ManagementError once the connector cannot be reached for PATIENCE_SECONDS, or refuses.
        """
        reader = EventReader(last=after)
        failing_since, failures = None, 0
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        while True:
            reader = EventReader(last=reader.last)
            try:
                async with self._session.get(
                    self._url("/v1/events", {"after": "now" if reader.last is None else reader.last}), timeout=timeout
                ) as response:
                    if response.status >= CLIENT_ERROR:
                        raise self._failure(response.status, await response.read())
                    failing_since, failures = None, 0
                    opened = False
                    async for piece in response.content.iter_any():
                        if not opened:  # with its first bytes the connector says that it misses nothing from here on
                            yield None
                        opened = True
                        for event in reader.feed(piece):
                            yield event
                cause: Exception = ConnectionResetError("the event stream ended")
            except ManagementError as error:
                if error.status < SERVER_ERROR:
                    raise
                cause = error
            except (ValueError, msgspec.MsgspecError) as error:
                raise ManagementError(f"the event stream at `{self._base}` is not a connector's: {error}", code="not-understood") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                cause = error
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > PATIENCE_SECONDS:
                raise self._unreachable(cause) from cause
            failures += 1
            await asyncio.sleep(pause_seconds(failures, FIRST_RETRY_SECONDS, RETRY_SECONDS_MAX, chance=random()))  # noqa: S311 - spreads load

    def _url(self, path: str, query: Mapping[str, str | int | float | None] | None) -> URL:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return URL(self._base + path, encoded=True).with_query(given)

    def _failure(self, status: int, body: bytes) -> ManagementError:
        """What an answer means, and where from: one that is no problem document, or that knows no such address, is of another listener or
        another program."""
        error = failure(status, body)
        if error.code not in ("not-understood", NO_SUCH_ADDRESS):
            return error
        where = f"`{self._base}` does not answer as the management listener of this connector"
        message = f"{where} ({error.message}); check management.url, and the version that runs there"
        return ManagementError(message, status=status, code=error.code, trace=error.trace)

    def _unreachable(self, error: Exception) -> ManagementError:
        if isinstance(error, aiohttp.ClientSSLError):  # it is an OSError as well, whose number means nothing
            cause = getattr(getattr(error, "certificate_error", error), "verify_message", "") or str(error)
            return ManagementError(
                f"no TLS with the connector at `{self._base}` ({cause}); `management.certificate` in the settings has to be the certificate"
                " with which it runs, or one whose authority this system trusts, and valid for management.url"
            )
        number = error.errno if isinstance(error, OSError) else None
        cause = os.strerror(number).lower() if number is not None and number > 0 else str(error) or type(error).__name__
        remedy = "start it with `connector run`, or check management.url"
        if self._base.startswith("https:") and not isinstance(
            error, aiohttp.ClientConnectorError
        ):  # TLS 1.3: who shows none is cut off after it
            remedy += "; if it asks for a certificate of clients, give `--client-certificate`, or put `admin.pem` beside the settings"
        return ManagementError(f"no answer from the connector at `{self._base}` ({cause}); {remedy}")


def failure(status: int, body: bytes) -> ManagementError:
    """The error that an answer with this status means; its body is a problem document, or anything."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        text = body[:PLAIN_CHARACTERS].decode(errors="replace")
        return ManagementError(f"the answer was status {status}: {text}", status=status, code="not-understood")
    message = problem.detail or problem.title or f"the answer was status {status}"
    code = problem.type.rpartition(":")[2]
    return ManagementError(message, problem.reasons, status=status, code=code, pointer=problem.pointer, trace=problem.trace or "")


def new_key() -> str:
    """An idempotency key for a call that is made once."""
    return uuid4().hex
