"""Streamed HTTP resources as sources without an end: lines of JSON, and events that a server sends.

What goes on is whole records in one spelling: a line ends with a line feed and is not empty; an event has its fields in lines that end
with a line feed, data among them, and one empty line behind (WHATWG HTML, 9.2). What keeps a connection alive is no record. Where to go on
after a cut is said by the last event's id (`Last-Event-ID`), or by a member of the last line that a parameter of the query repeats. Without
either it is asked once for a transfer, which ends as its answer does: a table that is exported, or the result of a query. A last line needs
no line feed then.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson
from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from connector.adapters.http_source import MEDIA_TYPE, URL_CHARACTERS_MAX
from connector.adapters_streams.events import Another, Events, demand_room
from connector.adapters_streams.http_wire import Wire
from connector.errors import EgressDenied, InvalidRequest, PeerFailed, SourceFailed
from connector.lanes.counting import may_be_empty
from connector.ports import Along, Download, Stat
from connector.ports.live import BATCH_BYTES, POSITION_BYTES_MAX, Dials, LiveSource, Records, unit_of

ANSWERS: Final = "answers"  # of an address that was published: the media type by which its server called what it sent then
MEMBERS: Final = frozenset({"type", "url", "credential", "media_type", "since", ANSWERS})
SINCE: Final = frozenset({"parameter", "member"})
IDLE_SECONDS: Final = 3600.0  # a source may be quiet; one that is gone without a word is found out by then
LOOK_SECONDS: Final = 10.0  # for the head of the answer at publication
NAMED_CHARACTERS_MAX: Final = 64
AGAIN: Final = (
    "the source sends again the line that it was asked to go on behind, which was delivered; let it send what follows the value of `since`"
)
OBJECT: Final = Decoder(dict[str, Raw])
NUMBER: Final = re.compile(rb"-?[0-9][0-9.eE+-]*")
THREADS: Final = 16  # of all streams together; one is held for as long as something comes, and not longer than a batch takes


class Cutter(Protocol):
    """Turns what the network delivers into whole records."""

    @property
    def position(self) -> str | None:
        """Where to go on after the last one."""

    def take(self, piece: bytes | bytearray, size: int | None = None) -> bytes:
        """The records that end in its first `size` bytes (None: all). Raises SourceFailed for one that is too large."""

    def last(self) -> bytes:
        """The record that the end of the answer has ended; b"" if there is none."""


class HttpStreams:
    """Streams behind `peer`, the guarded client. `credential(name)` is the value of the `Authorization` header that the settings hold
    under that name, or None."""

    def __init__(self, peer: Dials, credential: Callable[[str], str | None]) -> None:
        self._peer, self._credential = peer, credential
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="live-source")

    async def index(self, address: Mapping[str, Any], _along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        """Look at the head of the answer. See `connector.ports.live.LiveSources`."""
        self._demand_allowed(address)
        address = {name: value for name, value in address.items() if name != ANSWERS}
        media_type, said = await HttpStream(address, self._get, str(address.get("media_type") or "")).look()
        if unit_of(media_type) == "none":
            said = "; name one of them as the source's `media_type` if that is what it sends" if not address.get("media_type") else ""
            raise InvalidRequest(
                f"`{media_type}` is no media type of records: a live source sends `application/x-ndjson` or `text/event-stream`{said}",
                pointer="/source/media_type",
            )
        if "since" in address and unit_of(media_type) != "line":
            raise InvalidRequest("`since` is for lines of JSON; events are followed by their ids", pointer="/source/since")
        kept = {**address, "media_type": media_type} | ({ANSWERS: said} if said else {})
        return kept, Stat(None, orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode(), None, media_type)

    async def open(self, address: Mapping[str, Any]) -> LiveSource:
        """See `connector.ports.live.LiveSources`."""
        try:
            self._demand_allowed(address)
        except InvalidRequest as error:
            raise SourceFailed(f"the source is not what was published: {error.message}") from None
        return HttpStream(address, self._get, address["media_type"])

    def _demand_allowed(self, address: Mapping[str, Any]) -> None:
        if unknown := sorted(address.keys() - MEMBERS):
            known = ", ".join(f"`{each}`" for each in sorted(MEMBERS - {"type", ANSWERS}))
            raise InvalidRequest(f"an HTTP stream has no member `{unknown[0]}`; it has {known}", pointer=f"/source/{unknown[0]}")
        url = address.get("url")
        if not isinstance(url, str) or not 0 < len(url) <= URL_CHARACTERS_MAX or not all("!" <= c <= "~" for c in url):
            text = f"the source's `url` is not a URL of 1 to {URL_CHARACTERS_MAX} visible ASCII characters; percent-encode the others"
            raise InvalidRequest(text, pointer="/source/url")
        try:
            self._peer.check(url)
        except EgressDenied as error:
            raise InvalidRequest(f"the source's `url` cannot be used: {error.message}", pointer="/source/url") from None
        name = address.get("credential")
        if name is not None and (not isinstance(name, str) or self._credential(name) is None):
            text = "the source's `credential` is not a name in the settings' section `credentials`"
            raise InvalidRequest(text, pointer="/source/credential")
        if "since" in address and not _is_since(address["since"]):
            text = "`since` names the `parameter` of the query and the `member` of each line whose value it takes, both short texts"
            raise InvalidRequest(text, pointer="/source/since")

    @asynccontextmanager
    async def _get(
        self, address: Mapping[str, Any], headers: Mapping[str, str], query: Mapping[str, str], idle_seconds: float
    ) -> AsyncIterator[Answer]:
        sent = {"Accept-Encoding": "identity", "Cache-Control": "no-store", **headers}
        if (name := address.get("credential")) is not None:
            if (secret := self._credential(name)) is None:
                raise SourceFailed("the credential of the source cannot be read any more; look after the settings' section `credentials`")
            sent["Authorization"] = secret
        url = _with(address["url"], query)
        if (unread := await self._peer.unread(url, headers=sent, idle_seconds=idle_seconds)) is not None:
            with closing(Wire(unread, self._threads)) as wire:
                yield wire
        else:
            async with self._peer.stream("GET", url, headers=sent, idle_seconds=idle_seconds) as download:
                yield download


Answer = Wire | Download
Get = Callable[[Mapping[str, Any], Mapping[str, str], Mapping[str, str], float], AbstractAsyncContextManager[Answer]]


class HttpStream:
    """One stream. `get` asks for it."""

    def __init__(self, address: Mapping[str, Any], get: Get, media_type: str) -> None:
        self._address, self._get, self._media_type = address, get, media_type
        self._seen_id = False
        self._another: str | None = None  # the position behind which something else came than before

    @property
    def waits(self) -> bool:
        """See the port. A server that has sent no id yet is not known to take one."""
        return "since" in self._address or self._seen_id

    async def look(self) -> tuple[str, str]:
        """The media type of what answers, and the essence of what the server calls it. Raises SourceFailed."""
        try:
            async with self._get(self._address, {"Accept": self._media_type or "*/*"}, {}, LOOK_SECONDS) as answer:
                self._demand_stream(answer)
                said = answer.headers.get("content-type", "").strip()
        except (PeerFailed, EgressDenied) as error:
            raise SourceFailed(f"the upstream of the source cannot be read: {error.message}") from None
        return self._media_type or (said if MEDIA_TYPE.fullmatch(said) else "application/octet-stream"), _essence(said)

    async def follow(self, position: str | None, take: Callable[[Records], None] | None = None) -> AsyncGenerator[Records, None]:
        """See the port."""
        headers, query = {"Accept": self._media_type}, {}
        cutter: Cutter
        if unit_of(self._media_type) == "line":
            since = self._address.get("since")
            if position is not None and not since:  # it was published anew; what it sends from its start has been delivered
                raise SourceFailed(
                    "the source has no `since` any more, by which it was followed; publish it with that, or end the transfer"
                )
            cutter = Lines(since["member"] if since else None, position)
            if since and position is not None:
                query[since["parameter"]] = position
        else:
            cutter = events = Events(position, again=position is None or position != self._another)
            if events.id is not None:
                headers["Last-Event-ID"] = events.id

        def taken(piece: bytearray, size: int) -> Records:
            found = Records(cutter.take(piece, size), cutter.position, taken=take is not None)
            if take is not None and found.data:
                take(found)
            return found

        try:
            async with self._get(self._address, headers, query, IDLE_SECONDS) as answer:
                self._demand_stream(answer)
                come = answer.each(taken, BATCH_BYTES, IDLE_SECONDS) if isinstance(answer, Wire) else _cut(answer, cutter)
                async with aclosing(come) as batches:
                    async for found in batches:
                        if found.data:
                            self._seen_id = found.position is not None
                            yield found
                self._demand_whole(answer)
                if not self.waits and (rest := cutter.last()):
                    yield Records(rest, cutter.position)
                if isinstance(cutter, Events) and _has_end(answer) and (rest := cutter.unrepeated()):
                    yield Records(rest, cutter.position)
                if isinstance(cutter, Events) and position is None and not cutter.found:
                    raise SourceFailed("the upstream of the source ended its answer before its first event")  # which may have an id
        except Another:
            self._another = position
            raise
        except (PeerFailed, EgressDenied) as error:
            raise SourceFailed(f"the upstream of the source cannot be read: {error.message}") from None

    async def close(self) -> None:
        """Nothing stays open when nobody follows."""

    def _demand_stream(self, answer: Answer) -> None:
        if answer.status != HTTPStatus.OK:
            raise SourceFailed(f"the upstream of the source answered with status {answer.status} instead of 200")
        if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise SourceFailed("the upstream of the source sent a content encoding that was not asked for")
        said, before = _essence(answer.headers.get("content-type", "")), self._address.get(ANSWERS)
        if before is not None and said != before:  # a page to log in at, or that says that all is being mended, has lines, too
            text = f"the upstream of the source answers with `{said or 'no media type'}`, and when it was published it was `{before}`"
            raise SourceFailed(f"{text}; publish it anew if that is what it sends now")

    def _demand_whole(self, answer: Answer) -> None:
        """Raises SourceFailed for an answer that ended with its connection, of which nobody can say whether that was all of it."""
        if not (self.waits or _has_end(answer)):
            raise SourceFailed("the upstream of the source closed the connection, and had not said where its answer ends")


def _essence(said: str) -> str:
    """A media type without its parameters (RFC 9110, 8.3.1); "" if it is none."""
    return said.partition(";")[0].strip().lower() if MEDIA_TYPE.fullmatch(said.strip()) else ""


def _has_end(answer: Answer) -> bool:
    """Whether it says where it ends, so that a cut is none."""
    return "content-length" in answer.headers or "transfer-encoding" in answer.headers


async def _cut(download: Download, cutter: Cutter) -> AsyncGenerator[Records, None]:
    """The records of what only the event loop reads."""
    async for piece in download.chunks():
        for at in range(0, len(piece), BATCH_BYTES):
            yield Records(cutter.take(piece[at : at + BATCH_BYTES]), cutter.position)


class Lines:
    """Lines of JSON; `member` of each says where to go on after it, if it has one name."""

    def __init__(self, member: str | None, position: str | None) -> None:
        self._member, self.position = member, position
        self._asked = position if member is not None else None  # until the first line has come
        self._rest = b""

    def take(self, piece: bytes | bytearray, size: int | None = None) -> bytes:
        """See `Cutter`."""
        view, end = memoryview(piece)[:size], piece.rfind(b"\n", 0, size) + 1
        whole = b"".join((self._rest, view[:end])) if end else b""  # one copy of it, as this is done to every byte that comes
        self._rest = bytes(view[end:]) if end else self._rest + view
        demand_room(self._rest)
        # CPython goes over lines by `memchr`, in a fifth of the time in which it, or a regular expression, finds two line feeds.
        if may_be_empty(whole) and (b"\n" in BytesIO(whole) or (b"\r" in whole and b"\r\n" in BytesIO(whole))):
            whole = b"".join(line for line in whole.splitlines(keepends=True) if line.strip(b"\r\n"))
        if whole and self._member is not None:
            if self._asked is not None and _position(whole[: whole.find(b"\n") + 1], self._member) == self._asked:
                raise SourceFailed(AGAIN)
            self._asked = None
            self.position = _position(whole[whole.rfind(b"\n", 0, -1) + 1 :], self._member)
        return whole

    def last(self) -> bytes:
        """See `Cutter`."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest.strip(b"\r\n") else b""


def _position(line: bytes, member: str) -> str | None:
    """The value of a member of a line: a text or a number, with all of its digits, as another number would have records come again. Raises
    SourceFailed if it has none, as nothing could go on after it."""
    try:
        said = bytes(OBJECT.decode(line)[member])
        value = said.decode() if NUMBER.fullmatch(said) else orjson.loads(said)
    except (ValueError, KeyError, DecodeError, RecursionError):
        value = None
    if not isinstance(value, str) or len(value.encode()) > POSITION_BYTES_MAX:
        raise SourceFailed(f"a line of the source is no JSON object with a text or number `{member}`, by which it would be followed")
    return value


def _is_since(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == SINCE
        and all(isinstance(each, str) and 0 < len(each) <= NAMED_CHARACTERS_MAX for each in value.values())
    )


def _with(url: str, query: Mapping[str, str]) -> str:
    """The URL with more parameters."""
    if not query:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))
