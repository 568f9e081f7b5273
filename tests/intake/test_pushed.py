"""Requests that bring data as answers to requests that were never sent."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from connector.errors import Busy, EgressDenied, PeerFailed
from connector.intake.pushed import PushPeer
from connector.ports import Reply, pushed
from connector.ports.pushed import Answer, Brought, Reception
from tests.dataplane.rig import some_bytes

CONTENT = some_bytes(1000)

pytestmark = pytest.mark.asyncio


class Refusing:
    """A peer that dials nobody."""

    def check(self, _url: str) -> None:
        raise EgressDenied("not one that we dial")

    async def send(self, method: str, url: str, **_: Any) -> Any:
        raise PeerFailed(f"{method} {url}")


async def body(*pieces: bytes, cut: bool = False) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if cut:
        raise ConnectionResetError


def window(first: int, *pieces: bytes, cut: int = 0) -> Brought:
    length = sum(map(len, pieces)) + cut
    return Brought(first, length, len(CONTENT), body(*pieces, cut=cut > 0), {"etag": '"tag"', "content-type": "text/csv", "host": "x"})


def over(reception: Reception) -> PushPeer:
    return PushPeer(Refusing(), reception, proves=True)  # type: ignore[arg-type]


async def test_a_part_is_read_over_several_requests_once_each_is_answered():
    reception = Reception()
    taken = []

    async def provider() -> None:
        for first in range(200, 1000, 400):
            taken.append(await reception.take(window(first, CONTENT[first : first + 100], CONTENT[first + 100 : first + 400])))

    async def signing() -> None:
        while len(taken) < 2:
            await asyncio.sleep(0)
            if (now := reception._now) is not None and now.read:
                now.answer(Answer("receipt"))

    tasks = [asyncio.create_task(provider()), asyncio.create_task(signing())]
    async with over(reception).stream("GET", "x", headers={"Range": "bytes=200-999"}, idle_seconds=5.0) as incoming:
        assert (incoming.status, incoming.headers["content-range"], incoming.headers["etag"]) == (206, "bytes 200-999/1000", '"tag"')
        assert "host" not in incoming.headers
        assert incoming.detach() is None
        assert b"".join([piece async for piece in incoming.chunks()]) == CONTENT[200:]
    await asyncio.gather(*tasks)


async def test_who_stops_reading_in_the_middle_lets_the_request_go():
    reception = Reception()
    taking = asyncio.create_task(reception.take(window(0, CONTENT[:100], CONTENT[100:])))
    async with over(reception).stream("GET", "x", headers={}, idle_seconds=5.0) as incoming:
        async for _ in incoming.chunks():
            break
    with pytest.raises(Busy, match="nobody reads"):
        await taking
    reception.read_no_more()


async def test_all_of_it_has_a_length_and_what_is_cut_fails_on_both_sides():
    reception = Reception()
    taking = asyncio.create_task(reception.take(window(0, CONTENT[:100], cut=900)))
    async with over(reception).stream("GET", "x", headers={}, idle_seconds=5.0) as incoming:
        assert (incoming.status, incoming.headers["content-length"]) == (200, "1000")
        with pytest.raises(PeerFailed, match="in the middle"):
            [piece async for piece in incoming.chunks()]
    with pytest.raises(PeerFailed):
        await taking


async def test_a_receipt_that_nobody_comes_for_is_posted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushed, "ALONE_SECONDS", 0.01)
    reception, dialled = Reception(), []

    class Answering(Refusing):
        async def send(self, method: str, url: str, *, body: bytes | None = None, **_: Any) -> Reply:
            dialled.append((method, url, body))
            return Reply(200 if len(dialled) > 1 else 503, {}, b"ack")

    peer = PushPeer(Answering(), reception, proves=True)  # type: ignore[arg-type]
    post = partial(peer.send, "POST", "https://p/data/x/receipts", headers={}, body=b"receipt")
    assert (await post()).status == 503
    monkeypatch.setattr(pushed, "ALONE_SECONDS", 60.0)  # not again: whoever asks has another token, and asks at once
    assert (await reception.take(Brought(0, 0, 5, body()))).receipt == "receipt", "it waits still"
    async with asyncio.timeout(20):
        assert (await post()).body == b"ack"
    assert dialled == [("POST", "https://p/data/x/receipts", b"receipt")] * 2
    taking = asyncio.create_task(reception.take(Brought(0, 5, 5, body())))
    await asyncio.wait({taking}, timeout=0.05)
    assert not taking.done(), "nothing waits any more"
    taking.cancel()


async def test_a_receipt_is_an_answer_and_anything_else_is_asked_for_as_ever():
    reception = Reception()
    signing = asyncio.create_task(over(reception).send("POST", "https://p/data/x/receipts", headers={}, body=b"receipt"))
    taken = await reception.take(Brought(0, 0, 5, body()))
    assert taken.receipt == "receipt"
    acking = asyncio.create_task(reception.take(Brought(0, 0, 5, body(), ack="ack")))
    assert (await signing).body == b"ack"
    acking.cancel()
    with pytest.raises(PeerFailed, match="GET https://p/data/x/header"):
        await over(reception).send("GET", "https://p/data/x/header", headers={})
    with pytest.raises(EgressDenied):
        over(reception).check("https://p")
