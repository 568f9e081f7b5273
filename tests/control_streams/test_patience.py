"""How long a peer that cannot be reached is asked again, and what is not asked twice."""

import asyncio

import pytest

from connector.control_streams import patience
from connector.control_streams.patience import patiently
from connector.errors import PeerFailed, PeerRefused

pytestmark = pytest.mark.asyncio


class Peer:
    """Answers after so many failures."""

    def __init__(self, *failures: PeerFailed) -> None:
        self.failures, self.asked = list(failures), 0

    async def ask(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "here"


async def test_it_is_asked_until_it_answers_and_each_failure_is_heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    peer, heard = Peer(PeerFailed("away"), PeerRefused("not now", status=503)), list[str]()
    assert await patiently(peer.ask, lambda error: heard.append(error.message)) == "here"
    assert (peer.asked, heard) == (3, ["away", "not now"])


async def test_a_refusal_is_not_asked_again():
    peer, heard = Peer(PeerRefused("no", status=404)), list[PeerFailed]()
    with pytest.raises(PeerRefused, match="no"):
        await patiently(peer.ask, heard.append)
    assert (peer.asked, heard) == (1, [])


async def test_patience_has_an_end_and_it_is_later_with_a_clock_that_was_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    away, apart = PeerFailed("away"), PeerRefused("who?", status=401, said="clocks-apart")
    peer, heard = Peer(apart, apart, away), list[PeerFailed]()
    with pytest.raises(PeerFailed, match="away"):
        await patiently(peer.ask, heard.append)
    assert (peer.asked, heard) == (3, [apart, apart])
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 0.0)
    with pytest.raises(PeerRefused, match="who"):
        await patiently(Peer(apart).ask, heard.append)


async def test_a_peer_whose_clock_was_set_right_has_all_the_time_to_come_back(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]

    async def passes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", passes)
    apart = [PeerRefused("who?", status=401, said="clocks-apart") for _ in range(60)]
    peer, heard = Peer(*apart, *[PeerFailed("away")] * 100), list[PeerFailed]()
    assert await patiently(peer.ask, heard.append) == "here"
    assert len(heard) == len(apart) + 100
    assert now[0] > 2 * patience.PATIENCE_SECONDS


async def test_who_waits_for_a_clock_for_a_day_asks_once_a_minute_and_for_a_restart_every_five_seconds(monkeypatch: pytest.MonkeyPatch):
    slept = list[float]()

    async def noted(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", noted)
    apart = [PeerRefused("who?", status=401, said="clocks-apart") for _ in range(20)]
    assert await patiently(Peer(*apart, PeerFailed("away"), PeerFailed("away")).ask, lambda _: None) == "here"
    assert all(30 <= each <= 60 for each in slept[10:20])
    assert slept[-1] <= 5
