"""Which of two closings counts, and which one lies before what was signed for since."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.messages import Role
from connector.errors import MeterRefused
from connector.metering.closing import (
    LATE_SECONDS,
    Closing,
    ClosingAck,
    demand_after,
    demand_answer,
    demand_unheard,
    first,
    instant_of,
    is_late,
    is_new,
    seconds_of,
)
from connector.metering.counts import Counts
from connector.metering.objects import digest
from connector.values import replace
from tests.metering.rig import CONSUMER, MANIFEST, NOW, PROVIDER, WINDOW, account

CLOSING = Closing(CONSUMER, PROVIDER, "urn:uuid:1", NOW, "urn:uuid:agreement", NOW * 1_000_000)
CREDIT = MANIFEST.credit_bytes


@given(st.integers(0, 2**53 - 1))
def test_an_instant_is_the_same_in_an_agreement_and_in_what_was_signed(microseconds: int):
    assert instant_of(seconds_of(microseconds)) == microseconds or microseconds > 2**52


@given(st.lists(st.tuples(st.sampled_from([PROVIDER, CONSUMER]), st.integers(0, 3)), max_size=4), st.randoms())
def test_the_earlier_closing_counts_in_whatever_order_they_are_known(said: list[tuple[str, int]], random: object):
    closings = [replace(CLOSING, issuer=issuer, at=at) for issuer, at in said]
    found = first(closings, PROVIDER)
    random.shuffle(closings)  # type: ignore[attr-defined]
    assert first(closings, PROVIDER) == found
    if found is None:
        assert not closings
    else:
        assert found.at == min(each.at for each in closings)
        assert found.issuer == PROVIDER or all(each.issuer == CONSUMER for each in closings if each.at == found.at)


def test_what_is_signed_comes_back_and_an_instant_after_its_signing_is_none():
    assert Closing.of(CLOSING.claims()) == CLOSING
    assert Closing.of(replace(CLOSING, at=CLOSING.at + 999_999).claims()).at == CLOSING.at + 999_999
    for lie, code in (
        ({"at": CLOSING.at + 1_000_000}, "claim-at"),
        ({"at": -1}, "claim-at"),
        ({"at": 1.5}, "claim-at"),
        ({"agr": ""}, "claim-agr"),
        ({"why": "x"}, "claims-unknown"),
    ):
        with pytest.raises(MeterRefused) as refused:
            Closing.of(CLOSING.claims() | lie)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("then", "counts", "issued", "refused"),
    [
        (None, Counts(), NOW, False),
        (None, Counts(bytes=CREDIT), NOW, False),
        (None, Counts(bytes=CREDIT + 1), NOW, True),
        (Counts(bytes=WINDOW), Counts(bytes=WINDOW + CREDIT), NOW, False),
        (Counts(bytes=WINDOW), Counts(bytes=WINDOW + CREDIT + 1), NOW, True),
        (Counts(microseconds=5), Counts(microseconds=300_000_005), NOW, False),
        (Counts(microseconds=5), Counts(microseconds=300_000_006), NOW, True),
        (None, Counts(), NOW + 300, False),
        (None, Counts(), NOW + 301, True),
    ],
)
def test_a_closing_is_before_what_was_signed_for_if_that_is_more_than_was_on_its_way(
    then: Counts | None, counts: Counts, issued: int, *, refused: bool
):
    manifest = replace(MANIFEST, issued=issued, expires=issued + 60)
    kept = replace(account(Role.PROVIDER, manifest), counts=counts, sequence=1)
    if not refused:
        demand_after(CLOSING, kept, then)
        return
    with pytest.raises(MeterRefused) as error:
        demand_after(CLOSING, kept, then)
    assert error.value.code == "closing-before"
    demand_after(CLOSING, replace(kept, sequence=0), then)  # nobody has signed for it


def test_the_first_closing_of_a_side_counts_and_one_that_is_for_another_or_in_the_future_does_not():
    assert is_new(CLOSING, PROVIDER, None, NOW - 300)
    assert not is_new(replace(CLOSING, id="urn:uuid:2", issued=NOW + 9), PROVIDER, CLOSING, NOW)
    for code, lie, before, now in (
        ("closing-ahead", CLOSING, None, NOW - 301),
        ("closing-twice", replace(CLOSING, at=CLOSING.at - 1), CLOSING, NOW),
        ("closing-parties", replace(CLOSING, audience=CONSUMER), None, NOW),
    ):
        with pytest.raises(MeterRefused) as refused:
            is_new(lie, PROVIDER, before, now)
        assert refused.value.code == code


@pytest.mark.parametrize(("seconds", "late"), [(LATE_SECONDS, False), (LATE_SECONDS + 1, True)])
def test_a_closing_of_a_consumer_that_lies_more_than_a_week_before_the_providers_does_not_count(seconds: float, *, late: bool):
    assert is_late(CLOSING, NOW + seconds) is late
    instead = replace(CLOSING, issuer=PROVIDER, audience=CONSUMER, at=CLOSING.at + round(seconds * 1_000_000))
    assert first((CLOSING, instead), PROVIDER) == (instead if late else CLOSING)
    assert first((CLOSING,), PROVIDER) == CLOSING
    other_way = [replace(each, issuer=each.audience, audience=each.issuer) for each in (CLOSING, instead)]
    assert first(other_way, PROVIDER) == other_way[0], "a provider that says an earlier instant asks for less"


def test_a_provider_that_has_taken_a_closing_in_time_asks_for_no_more_by_one_of_its_own():
    after = LATE_SECONDS + 9
    instead = replace(CLOSING, issuer=PROVIDER, audience=CONSUMER, at=CLOSING.at + round(after * 1_000_000))
    with pytest.raises(MeterRefused) as refused:
        demand_unheard(instead, CLOSING, NOW + LATE_SECONDS)
    assert refused.value.code == "closing-heard"
    demand_unheard(instead, CLOSING, NOW + LATE_SECONDS + 1)  # it was late
    demand_unheard(replace(instead, at=CLOSING.at - 1), CLOSING, NOW + 1)  # an earlier instant asks for less


TOKEN = "e30.e30.e30"
ACK = ClosingAck(PROVIDER, CONSUMER, "urn:uuid:3", NOW + 1, CLOSING.agreement, digest(TOKEN), ends=CLOSING.at)
OWN = replace(CLOSING, issuer=PROVIDER, audience=CONSUMER, id="urn:uuid:4", at=CLOSING.at - 5)


def test_an_answer_comes_back_as_it_was_signed_and_says_why_a_closing_is_refused_and_only_then():
    for ack in (ACK, replace(ACK, own=TOKEN), replace(ACK, state="refused", why="closing-twice", ends=None)):
        assert ClosingAck.of(ack.claims()) == ack
    for lie, code in (
        ({"why": "closing-twice"}, "claim-why"),
        ({"st": "refused"}, "claim-why"),
        ({"st": "refused", "why": "closing-ahead"}, "claim-why"),
        ({"st": "ok"}, "claim-st"),
        ({"ends": None}, "claim-ends"),
        ({"clos": "x"}, "claim-clos"),
        ({"own": "a.b"}, "claim-own"),
    ):
        with pytest.raises(MeterRefused) as refused:
            ClosingAck.of(ACK.claims() | lie)
        assert refused.value.code == code


def test_an_answer_is_by_the_other_side_to_this_closing_and_says_the_end_that_follows():
    demand_answer(ACK, TOKEN, CLOSING, None, PROVIDER, NOW)
    demand_answer(replace(ACK, ends=OWN.at), TOKEN, CLOSING, OWN, PROVIDER, NOW)
    demand_answer(replace(ACK, state="refused", why="closing-twice", ends=7), TOKEN, CLOSING, None, PROVIDER, NOW)
    heard, own = replace(OWN, at=CLOSING.at + 9), CLOSING
    refusal = replace(ACK, issuer=CONSUMER, audience=PROVIDER, state="refused", why="closing-heard")
    demand_answer(refusal, TOKEN, heard, own, PROVIDER, NOW)
    for code, ack, closing, of in (
        ("closing-ack-parties", replace(ACK, issuer=CONSUMER), CLOSING, None),
        ("closing-ack-parties", replace(ACK, agreement="urn:uuid:b"), CLOSING, None),
        ("closing-ack-ahead", replace(ACK, issued=NOW + 301), CLOSING, None),
        ("closing-ack-closing", replace(ACK, closing=digest("another")), CLOSING, None),
        ("closing-ack-own", replace(ACK, ends=OWN.at), CLOSING, CLOSING),
        ("closing-ack-own", replace(ACK, ends=OWN.at), CLOSING, replace(OWN, agreement="urn:uuid:b")),
        ("closing-ack-ends", replace(ACK, ends=CLOSING.at + 1), CLOSING, None),
        ("closing-ack-ends", ACK, CLOSING, OWN),
        ("closing-ack-why", refusal, heard, None),
        ("closing-ack-why", refusal, replace(heard, at=own.at), own),
        ("closing-ack-why", replace(ACK, state="refused", why="closing-heard"), CLOSING, OWN),
    ):
        with pytest.raises(MeterRefused) as refused:
            demand_answer(ack, TOKEN, closing, of, PROVIDER, NOW)
        assert refused.value.code == code
