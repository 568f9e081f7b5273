"""Where the requests that bring data meet whoever waits for them: a listener takes them, a download reads them.

One request at a time; a new one takes the place of one that is still there. A receipt is the answer to the request whose bytes it covers,
and the next request carries its ack.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from msgspec import Struct

from connector.errors import Busy, Contradiction, PeerFailed
from connector.values import Value, field

ACK_SECONDS: Final = 60.0  # for the next request, which carries the ack
ALONE_SECONDS: Final = 1.0  # of them without any request: the provider was cut off, or brings nothing any more
ANSWER_SECONDS: Final = 60.0  # until a request is answered whose bytes have come
FULL_SECONDS: Final = 30  # after which another try makes sense where there was no room


class Answer(Value):
    """What a request is answered with: a receipt, and the byte that is `wanted` next; neither once nothing more is. `conflict` says that it
    brought other bytes."""

    receipt: str | None = None
    wanted: int | None = None
    conflict: bool = False


class Brought(Struct, eq=False):
    """A request: `length` bytes from `first` of `size_bytes`, or none. `address` is where the provider's manifest is to be had, in the one
    that opens; `ack` that of the receipt before. `headers` has lower-case names."""

    first: int
    length: int
    size_bytes: int | None
    body: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    address: Mapping[str, Any] | None = None
    ack: str | None = None
    read: bool = False  # all of its body
    answered: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def alone(self) -> bool:
        """Whether it is all that there is, by somebody who names no manifest."""
        return self.length == self.size_bytes and self.ack is None and "describedby" not in self.headers.get("link", "")

    def answer(self, answer: Answer) -> None:
        """Answer it, if it is not answered yet."""
        if not self.answered.done():
            self.answered.set_result(answer)


def no_room() -> Busy:
    """What is said to whoever brings something that there is no room for."""
    return Busy("there is no room for more of these data at the moment; come back", retry_seconds=FULL_SECONDS)


class Reception:
    """What is brought of one transfer; nothing more is wanted once it is `over`."""

    def __init__(self, *, over: bool = False) -> None:
        self._now: Brought | None = None
        self._reading: Brought | None = None  # the one whose body somebody reads
        self._news = asyncio.Condition()
        self._wanted: int | None = None
        self._receipt = ""  # that waits for its ack
        self._ack: asyncio.Future[str] | None = None
        self._over = over
        self._full = False

    @property
    def wanted(self) -> int | None:
        """The byte that is wanted next, if that is known by now."""
        return self._wanted

    @property
    def full(self) -> bool:
        """Whether there is no room for more at the moment."""
        return self._full

    def hold(self) -> None:
        """There is no room: until `go_on` nothing is wanted, and whoever brings something is told to come back. What has come and was not
        kept is wanted again."""
        self._full, self._wanted = True, None
        if self._now is not None:
            self.fail(self._now, no_room())

    def go_on(self) -> None:
        """There is room again."""
        self._full = False

    async def take(self, brought: Brought) -> Answer:
        """Take a request; returns what it is answered with. Raises Busy if there is no answer in time, Contradiction if another request
        takes its place, PeerFailed for what was wrong with it."""
        async with self._news:
            if (before := self._now) is not None and not before.answered.done():
                before.answered.set_exception(Contradiction("another request has taken the place of this one"))
                before.answered.exception()
            self._now = brought
            if brought.ack is not None and self._ack is not None and not self._ack.done():
                self._ack.set_result(brought.ack)
                self._receipt, self._ack = "", None
            if self._receipt:  # signed while nobody was there; what is wanted is better known by who waits than by who comes
                brought.answer(Answer(self._receipt, brought.first if self._wanted is None else self._wanted))
            elif self._over:
                brought.answer(Answer())
            elif self._full:
                self.fail(brought, no_room())
            elif not brought.length and self._wanted is not None and brought.ack is None:
                brought.answer(Answer(wanted=self._wanted))
            self._news.notify_all()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(brought.answered)
        except TimeoutError:
            raise Busy("what was brought is not dealt with yet; come back and ask what is wanted") from None

    async def begun(self, idle_seconds: float) -> Brought:
        """The request that opens: one with an address, or one that brings everything at once and knows nothing of windows. Others go on
        with what is not known here any more, and are told so. Raises PeerFailed if none comes."""
        try:
            async with asyncio.timeout(idle_seconds), self._news:
                while True:
                    if (now := self._now) is not None and not now.answered.done():
                        if now.address is not None or now.alone:
                            return now
                        now.answer(Answer(conflict=True))
                    await self._news.wait()
        except TimeoutError:
            raise PeerFailed("the provider brings nothing") from None

    async def sign(self, receipt: str) -> str:
        """Answer with a receipt; returns its ack, which the next request carries. Raises PeerFailed if none does; ALONE_SECONDS without a
        request are enough for that: whoever has a receipt may have another way to the provider. A request whose bytes nobody reads by
        then has come in vain, since all is here already, and is answered all the same."""
        loop = asyncio.get_running_loop()
        async with self._news:
            self._receipt, self._ack = receipt, loop.create_future()
            acknowledged, ends = self._ack, loop.time() + ACK_SECONDS
            self._say()
        while not acknowledged.done():
            await asyncio.wait({acknowledged}, timeout=ALONE_SECONDS)
            if acknowledged.done():
                break
            now = self._now
            if now is None or now.answered.done() or loop.time() > ends:
                raise PeerFailed("the provider brought no ack of the last receipt")
            if now.length and now is not self._reading:
                now.answer(Answer(receipt, now.first if now.size_bytes is None else now.size_bytes))
        return await acknowledged

    def settled(self, receipt: str) -> None:
        """A receipt has reached the provider by another way."""
        if self._receipt == receipt:
            self._receipt, self._ack = "", None

    def _say(self) -> None:
        """Answer with the receipt that waits, once all that was brought has come."""
        now = self._now
        if now is not None and self._receipt and (now.read or not now.length):
            now.answer(Answer(self._receipt, now.first + now.length))

    async def has_come(self, brought: Brought) -> None:
        """All of a request has been read."""
        async with self._news:
            brought.read, self._wanted = True, brought.first + brought.length
            self._say()

    async def bytes_from(self, offset: int, idle_seconds: float) -> Brought:
        """The request that brings the bytes from `offset`. Others are told what is wanted. Raises PeerFailed if none comes."""
        try:
            async with asyncio.timeout(idle_seconds), self._news:
                self._wanted = offset
                while True:
                    now = self._now
                    if now is not None and not now.answered.done():
                        if now.length and now.first == offset and not now.read:
                            self._reading = now
                            return now
                        if self._receipt:
                            now.answer(Answer(self._receipt, offset))
                        elif not now.read or not now.length:
                            now.answer(Answer(wanted=offset, conflict=now.length > 0))
                    await self._news.wait()
        except TimeoutError:
            raise PeerFailed("the provider brings no more") from None

    def read_no_more(self) -> None:
        """Whoever has read stops, perhaps in the middle of a request: that is answered then, and does not keep anybody waiting."""
        self._reading, now = None, self._now
        if now is not None and now.length and not now.read and not now.answered.done():
            self.fail(now, Busy("nobody reads these data at the moment; come back"))

    async def finish(self) -> None:
        """Nothing more is wanted."""
        async with self._news:
            self._over, self._wanted, self._receipt = True, None, ""
            if self._now is not None:
                self._now.answer(Answer())
            self._news.notify_all()

    def abandon(self) -> None:
        """Nobody waits any more, and not all has come."""
        if self._now is not None and not self._now.answered.done():
            self._now.answered.set_exception(Busy("nobody waits for these data at the moment; come back"))
            self._now.answered.exception()

    def fail(self, brought: Brought, error: PeerFailed | Busy) -> None:
        """Something was wrong with a request."""
        if not brought.answered.done():
            brought.answered.set_exception(error)
            brought.answered.exception()


class Receptions:
    """Those of all transfers for which somebody waits."""

    def __init__(self) -> None:
        self._open: dict[str, Reception] = {}

    def of(self, transfer: str) -> Reception | None:
        """That of a transfer, or None if nobody waits for it now."""
        return self._open.get(transfer)

    @asynccontextmanager
    async def waiting(self, transfer: str) -> AsyncIterator[Reception]:
        """Around whoever waits for what is brought of a transfer."""
        reception = self._open[transfer] = Reception()
        try:
            yield reception
        except BaseException:
            reception.abandon()
            raise
        else:
            await reception.finish()
        finally:
            if self._open.get(transfer) is reception:
                del self._open[transfer]
