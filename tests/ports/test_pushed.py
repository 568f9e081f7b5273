"""Where requests that bring data meet whoever waits for them: whatever comes first, nobody waits for ever."""

import asyncio

import pytest

from connector.errors import Busy, Contradiction, PeerFailed
from connector.ports import pushed
from connector.ports.pushed import Answer, Brought, Reception, Receptions

pytestmark = pytest.mark.asyncio


async def nothing():
    for piece in tuple[bytes]():
        yield piece


def brought(first: int = 0, length: int = 0, **more: object) -> Brought:
    return Brought(first, length, 100, nothing(), **more)  # type: ignore[arg-type]


async def soon(coroutine):
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_receipt_answers_the_request_that_is_read_and_the_next_one_carries_its_ack():
    reception = Reception()
    window = brought(0, 10)
    taking, signing = await soon(reception.take(window)), await soon(reception.sign("receipt"))
    assert not taking.done(), "its bytes have not come yet"
    await reception.has_come(window)
    assert await taking == Answer("receipt", 10)
    again = await soon(reception.take(brought(10, 10, ack="ack")))
    assert await signing == "ack"
    assert not again.done()
    again.cancel()


async def test_a_receipt_that_waits_is_the_answer_to_whatever_comes_without_its_ack():
    reception = Reception()
    signing = await soon(reception.sign("receipt"))
    assert await reception.take(brought()) == Answer("receipt", 0)
    assert await reception.take(brought(20, 5)) == Answer("receipt", 20)
    signing.cancel()


async def test_with_a_receipt_that_waits_goes_what_is_wanted_so_that_nothing_is_brought_twice():
    reception = Reception()
    wanting = await soon(reception.bytes_from(50, 5.0))
    signing = await soon(reception.sign("receipt"))
    assert await reception.take(brought(address={})) == Answer("receipt", 50)
    for each in (wanting, signing):
        each.cancel()


async def test_while_there_is_no_room_who_brings_something_is_sent_away_and_an_ack_is_taken_all_the_same():
    reception = Reception()
    window = brought(0, 10)
    taking = await soon(reception.take(window))
    await reception.has_come(window)
    signing = await soon(reception.sign("aborted"))
    assert await taking == Answer("aborted", 10)
    alone = await soon(reception.take(brought(ack="ack")))
    assert (await signing, alone.done()) == ("ack", False)
    reception.hold()
    for coming in (alone, reception.take(brought(10, 10))):
        with pytest.raises(Busy, match="no room"):
            await coming
    assert (reception.full, reception.wanted) == (True, None)
    reception.go_on()
    again = await soon(reception.take(brought(address={})))
    wanting = await soon(reception.bytes_from(0, 5.0))
    assert (await again, reception.full) == (Answer(wanted=0), False)
    wanting.cancel()


async def test_a_request_with_other_bytes_hears_what_is_wanted():
    reception = Reception()
    wanting = await soon(reception.bytes_from(50, 5.0))
    assert await reception.take(brought(20, 5)) == Answer(wanted=50, conflict=True)
    assert await reception.take(brought()) == Answer(wanted=50)
    window = brought(50, 5)
    taking = await soon(reception.take(window))
    assert await wanting is window
    taking.cancel()


async def test_a_new_request_takes_the_place_of_one_that_is_still_there():
    reception = Reception()
    first = await soon(reception.take(brought(0, 5)))
    second = await soon(reception.take(brought(0, 5)))
    with pytest.raises(Contradiction, match="has taken the place"):
        await first
    second.cancel()


async def test_only_a_request_that_opens_begins_and_others_are_sent_back():
    reception = Reception()
    begun = await soon(reception.begun(5.0))
    assert await reception.take(brought(0, 5)) == Answer(conflict=True)
    assert await reception.take(brought(0, 100, ack="x")) == Answer(conflict=True)
    opening = brought(address={"endpoint": "x"})
    taking = await soon(reception.take(opening))
    assert await begun is opening
    taking.cancel()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushed, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(pushed, "ACK_SECONDS", 0.01)
    reception = Reception()
    with pytest.raises(Busy):
        await reception.take(brought(0, 5))
    with pytest.raises(PeerFailed, match="no ack"):
        await reception.sign("receipt")
    with pytest.raises(PeerFailed, match="brings no more"):
        await reception.bytes_from(5, 0.01)
    with pytest.raises(PeerFailed, match="brings nothing"):
        await reception.begun(0.01)


async def test_a_receipt_waits_for_the_request_that_is_there_and_not_for_one_that_may_never_come(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushed, "ALONE_SECONDS", 0.01)
    reception = Reception()
    window = brought(0, 10)
    taking = await soon(reception.take(window))
    assert await reception.bytes_from(0, 5.0) is window
    signing = await soon(reception.sign("receipt"))
    await asyncio.sleep(0.05)
    assert not signing.done(), "its bytes are on their way"
    assert not taking.done(), "somebody reads them"
    await reception.has_come(window)
    assert await taking == Answer("receipt", 10)
    with pytest.raises(PeerFailed, match="no ack"):
        await signing
    assert await reception.take(brought(20, 5)) == Answer("receipt", 10)
    reception.settled("another")
    assert await reception.take(brought(20, 5)) == Answer("receipt", 10)
    reception.settled("receipt")
    taking = await soon(reception.take(brought(20, 5)))
    assert not taking.done()
    taking.cancel()


async def test_bytes_that_nobody_reads_keep_no_receipt_waiting_and_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushed, "ALONE_SECONDS", 0.05)
    reception = Reception()
    opening = await soon(reception.sign("first"))
    assert await reception.take(brought(address={})) == Answer("first", 0)
    in_vain = await soon(reception.take(brought(0, 100, ack="ack")))  # it was told to begin, and all is here already
    assert await opening == "ack"
    signing = asyncio.create_task(reception.sign("last"))
    async with asyncio.timeout(20):
        assert await in_vain == Answer("last", 100), "nothing more is wanted"
    ending = await soon(reception.take(brought(ack="ack of the last")))
    assert await signing == "ack of the last"
    await reception.finish()
    assert await ending == Answer()


async def test_an_end_says_done_and_a_failure_does_not():
    receptions = Receptions()
    async with receptions.waiting("urn:t") as reception:
        assert receptions.of("urn:t") is reception
        taking = await soon(reception.take(brought(ack="last")))
    assert await taking == Answer()
    assert receptions.of("urn:t") is None
    taken: list[asyncio.Task[Answer]] = []

    async def fails() -> None:
        async with receptions.waiting("urn:t") as reception:
            taken.append(await soon(reception.take(brought(ack="last"))))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fails()
    with pytest.raises(Busy, match="nobody waits"):
        await taken[0]
