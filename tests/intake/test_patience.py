"""How long attempts are repeated, and with which pauses."""

import asyncio
import inspect
from collections.abc import Callable

import pytest

from connector.dataplane_accounts.account import CREDIT_SECONDS
from connector.errors import PeerFailed, PeerRefused
from connector.intake import patience as module
from connector.intake.download import Downloads
from connector.intake.heads import NotNow, Unfit, read_head
from connector.intake.patience import AGAIN_MAX, PROGRESS_BYTES, Patience, back_off_seconds, of_clocks
from connector.intake.promise import Broken

CUT = PeerFailed("cut")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses, none of which is made."""
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return pauses


class Hand:
    """A loop's clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        loop = asyncio.get_running_loop()
        real: Callable[[], float] = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.seconds)


def test_the_first_repetition_comes_at_once_and_the_pauses_double_up_to_a_bound():
    assert back_off_seconds(1) == 0
    for failures in range(2, 60):
        longest = min(module.PAUSE_SECONDS_MAX, module.FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 2, 16))
        assert longest / 2 <= back_off_seconds(failures) <= longest


@pytest.mark.asyncio
async def test_an_attempt_that_brought_much_counts_as_the_first_failure_again(slept: list[float]):
    patience = Patience("p", 900, lambda: False)
    for moved in (0, 0, 0, PROGRESS_BYTES, PROGRESS_BYTES - 1):
        await patience.bear(CUT, moved)
    assert [pause > 0 for pause in slept] == [False, True, True, False, True]


@pytest.mark.asyncio
async def test_whoever_watches_hears_why_there_is_a_pause_and_nothing_of_single_cuts(slept: list[float]):
    heard: list[str] = []

    async def waits(why: str) -> None:
        heard.append(why)

    patience = Patience("p", 900, lambda: False, waits)
    await patience.bear(CUT, 0)
    assert heard == []
    await patience.bear(CUT, 0)
    assert heard == [CUT.message]


@pytest.mark.asyncio
async def test_a_provider_that_asks_for_time_gets_it_within_bounds(slept: list[float]):
    patience = Patience("p", 900, lambda: False)
    await patience.bear(NotNow(503, 7.0), 0)
    await patience.bear(NotNow(503, 7000.0), PROGRESS_BYTES)
    assert slept == [7.0, module.PAUSE_SECONDS_MAX]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (PeerRefused("no", status=403), 30.0),  # by a proxy, as far as anybody can tell
        (PeerRefused("no", status=401, said="signature-old"), 86_400.0),
        (Broken("no", "manifest-ahead"), 86_400.0),
        (PeerRefused("no", status=403, said="transfer-suspended"), 3.0),
        (Unfit("nonsense"), 3.0),
    ],
    ids=["refused", "by a clock", "by a clock here", "with a reason", "unfit"],
)
async def test_a_refusal_is_believed_when_it_has_lasted(
    slept: list[float], monkeypatch: pytest.MonkeyPatch, error: PeerFailed, seconds: float
):
    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False)
    await patience.bear(error, 0)  # for one that a clock has, longer than for a provider that says nothing at all
    hand.seconds += seconds / 2
    await patience.bear(error, 0)
    hand.seconds += seconds / 2
    await patience.bear(CUT, 1)  # something else came between: it may be about to change
    await patience.bear(error, 0)
    hand.seconds += seconds
    with pytest.raises(Broken if of_clocks(error) else type(error)) as raised:
        await patience.bear(error, 0)
    assert raised.value.message == error.message


@pytest.mark.asyncio
async def test_a_clock_that_was_wrong_before_makes_no_refusal_believed_sooner(slept: list[float], monkeypatch: pytest.MonkeyPatch):
    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False)
    await patience.bear(PeerRefused("no", status=401, said="signature-old"), 0)
    hand.seconds += 3600
    await patience.bear(PeerRefused("no", status=401, said="signature-old"), 0)  # it is there, and says something
    await patience.bear(PeerRefused("no", status=403), 0)
    hand.seconds += 29
    await patience.bear(PeerRefused("no", status=403), 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("code", ["jws-signature", "signature-wrong", "note-unsigned", "checkpoint-size", "tile-root", "header-json"])
async def test_what_one_flipped_bit_makes_of_an_answer_is_asked_for_again_so_often_and_no_more(slept: list[float], code: str):
    afresh = list[int]()
    patience, last = Patience("p", 900, lambda: False, afresh=lambda: afresh.append(1)), Broken("the last", code)
    for moved in (0, 0, PROGRESS_BYTES, *[0] * (AGAIN_MAX - 1)):
        await patience.bear(Broken("does not hold", "list-length"), moved)
    with pytest.raises(Broken) as raised:
        await patience.bear(last, 0)
    assert raised.value is last
    patience.well()
    await patience.bear(last, 0)
    await patience.bear(PeerRefused("no", status=403), 0)
    await patience.bear(CUT, 0)
    assert len(afresh) == 2 + AGAIN_MAX + 1, "each time over another connection"


@pytest.mark.asyncio
async def test_each_leg_has_its_tries_and_none_is_saved_by_what_another_has_brought(slept: list[float]):
    patience, last = Patience("p", 900, lambda: False), Broken("the last", "signature-wrong")
    for leg in (0, 1, None) * AGAIN_MAX:
        await patience.bear(Broken("does not hold", "signature-wrong"), 0, leg)
    patience.well(1)
    await patience.bear(last, 0, 1)
    for leg in (0, None):
        with pytest.raises(Broken) as raised:
            await patience.bear(last, PROGRESS_BYTES - 1, leg)
        assert raised.value is last
    await patience.bear(last, PROGRESS_BYTES, 0)


@pytest.mark.asyncio
async def test_a_refusal_is_no_refusal_as_long_as_another_leg_comes(slept: list[float], monkeypatch: pytest.MonkeyPatch):
    """The provider may have no room for one more."""
    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False)
    for _ in range(5):
        await patience.bear(PeerRefused("no", status=403), 0, 1)
        hand.seconds += 29
        patience.well(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("code", ["leaf-wrong", "ack-credit", "manifest-audience", "bytes-differ", "account-disputed", "claims-unknown"])
async def test_what_its_signer_says_is_believed_at_once(slept: list[float], code: str):
    with pytest.raises(Broken):
        await Patience("p", 900, lambda: False).bear(Broken("no", code), 0)
    assert slept == []


@pytest.mark.asyncio
async def test_after_an_attempt_that_did_not_fail_everything_counts_anew(slept: list[float], monkeypatch: pytest.MonkeyPatch):
    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False)
    for error in (PeerRefused("no", status=403), PeerRefused("no", status=403, said="transfer-suspended"), CUT):
        await patience.bear(error, 0)
        hand.seconds += 901
        patience.well()


@pytest.mark.asyncio
async def test_without_a_byte_it_ends_and_says_why(slept: list[float], monkeypatch: pytest.MonkeyPatch):
    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False)
    hand.seconds += 899
    await patience.bear(CUT, 1)
    hand.seconds += 899
    await patience.bear(CUT, 0)
    hand.seconds += 2
    with pytest.raises(PeerFailed, match=r"nothing came for 900 s: cut; the part is kept"):
        await patience.bear(CUT, 0)


@pytest.mark.asyncio
async def test_once_the_transfer_is_over_a_cut_is_the_last(slept: list[float]):
    patience = Patience("p", 900, lambda: True)
    with pytest.raises(PeerFailed, match="the transfer is over and not all of the data has come: cut; the part is kept"):
        await patience.bear(CUT, PROGRESS_BYTES)
    assert slept == []


@pytest.mark.asyncio
async def test_credit_that_is_used_up_is_no_refusal_and_whoever_watches_hears_of_it(slept: list[float], monkeypatch: pytest.MonkeyPatch):
    """Other transfers of the agreement may have all of it for longer than a refusal takes to be believed."""
    heard: list[str] = []

    async def waits(why: str) -> None:
        heard.append(why)

    hand, patience = Hand(monkeypatch), Patience("p", 900, lambda: False, waits)
    for _ in range(3):
        hand.seconds += CREDIT_SECONDS
        with pytest.raises(PeerRefused) as refused:
            read_head(403, {}, 0, code="credit-exhausted")
        await patience.bear(refused.value, 0)
    assert set(heard) == {"the provider's data listener answered with status 403, `credit-exhausted`"}


def test_who_waits_for_credit_is_answered_before_it_gives_up():
    idle = inspect.signature(Downloads.__init__).parameters["idle_seconds"].default
    assert idle > CREDIT_SECONDS
