import pytest

from connector.dsp.messages import Role
from connector.intake.live_promise import LivePromise, State, told_of
from connector.intake.promise import Broken, Unending
from connector.metering.content import CHUNK_BYTES, SIZE_MAX, Header, Known
from connector.metering.counts import Counts
from connector.metering.objects import Checkpoint, ContentLog, Manifest, Receipt
from connector.records.metering import Metered
from tests.dataplane.rig import CONSUMER, PROVIDER, FakeIdentity

HEADER = Header(CHUNK_BYTES, None, "text/event-stream", "message", b"s" * 32)
MANIFEST = Manifest(
    PROVIDER, CONSUMER, 1, 2, "urn:a", b"p" * 32, "urn:c", "urn:p", "urn:d", "s", ContentLog("x/log", CHUNK_BYTES), "message", "https://p/r"
)
SIGNED = Checkpoint(5, b"r" * 32)


def account(ranges: tuple[tuple[int, int], ...], checkpoint: Checkpoint | None) -> Metered:
    counts = Counts(100, 7)
    receipt = Receipt(CONSUMER, PROVIDER, "id", 1, b"m" * 32, 1, None, ranges, counts, checkpoint)
    token = FakeIdentity(CONSUMER).sign(receipt.claims(), Receipt.TYP)
    shape = ("urn:c", Role.CONSUMER, "urn:a", PROVIDER, "manifest", "x/log", CHUNK_BYTES)
    return Metered(*shape, sequence=1, receipt=token, ranges=ranges, counts=counts)


def test_what_a_receipt_covers_is_where_it_goes_on():
    assert told_of(account(((1, 5),), SIGNED)) == (State(5, 100, 7), SIGNED)
    assert told_of(account(((1, 4),), SIGNED)) == (State(4, 100, 7), SIGNED)
    assert told_of(account((), None)) is None


@pytest.mark.parametrize(
    ("ranges", "checkpoint"), [(((1, 3), (4, 5)), SIGNED), (((2, 5),), SIGNED), (((1, 6),), SIGNED)], ids=["gap", "late", "unsigned"]
)
def test_a_receipt_over_anything_else_is_not_of_such_a_log(ranges: tuple[tuple[int, int], ...], checkpoint: Checkpoint):
    with pytest.raises(Broken, match="another kind of log"):
        told_of(account(ranges, checkpoint))


def test_an_account_learns_what_is_proven_up_to_a_place_and_that_there_is_no_end():
    promise = LivePromise(Unending("token", MANIFEST, HEADER))
    promise.states[5] = State(5, 100, 7, SIGNED)
    log = promise.known(None)
    assert (log.ended, log.measure(()), log.measure(((1, 5),))) == (False, Known(0, 0, 0), Known(100, 7, 0))
    assert (promise.signed(()), promise.signed(((1, 5),))) == (None, SIGNED)
    promise.newest = Checkpoint(9, b"n" * 32)
    assert promise.signed(((1, 5),)) == promise.signed(()) == promise.newest
    assert promise.form == (CHUNK_BYTES, None, None, None)
    assert promise.whole == ((1, SIZE_MAX),)
