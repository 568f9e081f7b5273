"""What every part of the client of the management API is made of: a call whose answer is one of its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from connector.client.transport import ManagementError
from connector.errors import InvalidRequest

if TYPE_CHECKING:
    from connector.client.transport import Transport

T = TypeVar("T")
WAIT_SECONDS = 30.0  # how long a wait is held open unless said otherwise


class Calls:
    """Calls of one connector, over the transport that the whole client has open. Every method raises ManagementError."""

    if TYPE_CHECKING:

        @property
        def _open(self) -> Transport: ...

    async def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int | float | None] | None = None,
        key: str | None = None,
        hold_seconds: float = 0.0,
    ) -> T:
        content = await self._open.call(method, path, body=body, query=query, key=key, hold_seconds=hold_seconds)
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.MsgspecError as error:
            raise ManagementError(f"the answer to {method} {path} is not a connector's: {error}", code="not-understood") from error

    async def _process(self, collection: str, pid: str, answer: type[T], wait: str | None, timeout_seconds: float) -> T:
        if wait is None:
            return await self._call("GET", f"/v1/{collection}/{part(pid)}", answer)
        query: dict[str, str | float] = {"wait": wait, "timeout_seconds": timeout_seconds}
        return await self._call("GET", f"/v1/{collection}/{part(pid)}", answer, query=query, hold_seconds=timeout_seconds)


def part(name: str) -> str:
    """A name as one segment of a path. Dots alone are a segment that those on the way take for a step (RFC 3986, 5.2.4), so they are
    escaped too, and a name is any text. Raises InvalidRequest for none, such as a script's that is not set: that is no segment."""
    if not name:
        raise InvalidRequest("the id is empty, and names nothing; the lists show the ids that there are")
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def given(**members: Any) -> dict[str, Any]:
    """The members that have a value, as a body says them."""
    return {name: value for name, value in members.items() if value is not None}
