"""What the provider says that it keeps of our receipts: taken if it is more than is here, and proven by both."""

from typing import Any

import orjson
import pytest

from connector.dsp.messages import Role
from connector.errors import Unauthenticated
from connector.intake.promise import Broken
from connector.intake_accounts.remembered import remembered
from connector.ports import Participant
from connector.signatures import jws
from tests.metering import rig

NEW = rig.account(Role.CONSUMER)


class Identity:
    """Ours, whose key ended at `ends`."""

    def __init__(self, ends: float | None = None) -> None:
        self._ends = ends

    @property
    def own(self) -> Participant:
        return Participant(rig.CONSUMER, rig.CONSUMER, "role", None, ())

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        if issuer == rig.CONSUMER and self._ends is not None and (at is None or at >= self._ends):
            raise Unauthenticated("the key that has signed this has ended", fault="key-ended")
        return jws.read(token, typ, issuer, [rig.KEYS[issuer].key], rig.NOW if at is None else at)


def told(**said: Any) -> bytes:
    """What a provider says that has one receipt, and its ack."""
    provider, _ = rig.both(((1, 5),))
    return orjson.dumps({"receipt": provider.receipt, "ack": provider.ack} | said)


def take(told: bytes, identity: Identity | None = None) -> Any:
    return remembered(NEW, told, identity or Identity(), rig.NOW)  # type: ignore[arg-type]


def test_more_than_is_here_is_taken_with_its_ack_or_without_it():
    whole, asked = take(told()), take(told(ack=""))
    assert (whole.sequence, whole.ranges, bool(whole.ack), whole.attested) == (1, ((1, 5),), True, "both")
    assert (asked.sequence, asked.ack) == (1, "")
    assert remembered(whole, told(), Identity(), rig.NOW) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [{"receipt": None}, {"receipt": ""}, {"ack": None}])
def test_a_provider_that_keeps_nothing_says_so(said: dict[str, Any]):
    assert take(told(**said)) is None


def test_what_we_signed_by_a_key_that_has_ended_since_is_ours():
    assert take(told(), Identity(rig.NOW + 1)).sequence == 1
    with pytest.raises(Broken, match="does not hold") as caught:
        take(told(), Identity(rig.NOW - 3600))
    assert caught.value.code == "jws-key-ended"


@pytest.mark.parametrize(
    ("said", "code"),
    [(b"no JSON", "receipts-malformed"), (b"[]", "receipts-malformed"), (b"{}", "receipts-malformed"), (told(ack="a.b.c"), "jws-header")],
)
def test_what_makes_no_sense_is_refused(said: bytes, code: str):
    with pytest.raises(Broken) as caught:
        take(said)
    assert caught.value.code == code
