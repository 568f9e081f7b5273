from hashlib import sha256
from typing import Any

import pytest

from connector.errors import MeterRefused
from connector.metering import objects
from connector.metering.counts import Counts
from connector.metering.objects import (
    PENDING_SECONDS,
    Ack,
    ContentLog,
    Manifest,
    Read,
    Receipt,
    Rejected,
    digest,
    kept,
    manifest_of,
    opened,
    pending,
)
from connector.signatures import jws
from connector.values import replace
from tests.metering.rig import ACK, CONSUMER, KEYS, MANIFEST, NOW, PROVIDER, RECEIPT, proven, signed

LIVE = replace(MANIFEST, log=ContentLog("hospital.example/ds/live", 65_536), required=False, prices=None, unit="line")
VALUES: dict[str, Any] = {
    "manifest": MANIFEST,
    "manifest of live data": LIVE,
    "receipt": RECEIPT,
    "first receipt of a live flow": replace(RECEIPT, ranges=(), counts=Counts(), checkpoint=None, after="write"),
    "receipt that rejects": replace(RECEIPT, sequence=2, previous=bytes(32), state="rejected", rejected=Rejected(9, bytes(32))),
    "receipt that aborts": replace(RECEIPT, state="aborted", reason="sink", ledger="own\n"),
    "ack": ACK,
    "ack without a ledger": replace(ACK, index=None, ledger=None, state="quota"),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_an_object_comes_back_from_its_jws(value: Any):
    token = signed(value)
    assert opened(type(value), token, proven(value.issuer)) == value
    assert kept(type(value), token) == value
    assert len(token) < 1200


@pytest.mark.parametrize(
    ("ended", "now", "fault"),
    [
        (10.0, NOW + 5, None),  # it is valid
        (0.0, NOW + 5, None),  # it was when this was signed
        (0.0, NOW + PENDING_SECONDS, None),
        (0.0, NOW + PENDING_SECONDS + 1, "key-ended"),  # it may be in other hands since
        (-1.0, NOW + 5, "key-ended"),  # it was not
    ],
)
def test_an_object_that_was_on_its_way_while_its_key_was_replaced_holds_for_a_while(ended: float, now: float, fault: str | None):
    token = signed(RECEIPT)
    key = replace(KEYS[CONSUMER].key, not_after=NOW + ended)
    proven: Read = lambda token, typ: pending(lambda at: jws.read(token, typ, CONSUMER, [key], at), token, now)  # noqa: E731
    if fault is None:
        assert opened(Receipt, token, proven) == RECEIPT
        with pytest.raises(MeterRefused) as forged:
            opened(Receipt, signed(RECEIPT).rpartition(".")[0] + "." + "A" * 86, proven)
        assert forged.value.code == "jws-signature"
        return
    with pytest.raises(MeterRefused) as refused:
        opened(Receipt, token, proven)
    assert refused.value.code == f"jws-{fault}"


def test_what_was_stored_is_read_without_looking_at_the_signature():
    token = signed(MANIFEST)
    assert manifest_of(token) == manifest_of(token.rpartition(".")[0] + ".AAAA") == MANIFEST
    with pytest.raises(MeterRefused):
        manifest_of("no token")
    with pytest.raises(MeterRefused):
        kept(Receipt, token)


def test_an_object_is_named_by_what_was_signed():
    assert digest(signed(RECEIPT)) == digest(signed(RECEIPT)) != digest(signed(replace(RECEIPT, id="j2")))
    assert len(digest("a.b.c")) == 32


def test_an_object_is_hashed_once_however_often_it_is_named(monkeypatch: pytest.MonkeyPatch):
    hashed: list[bytes] = []
    monkeypatch.setattr(objects, "sha256", lambda data: hashed.append(data) or sha256(data))
    assert {digest("named.many.times") for _ in range(8)} == {sha256(b"named.many.times").digest()}
    assert hashed == [b"named.many.times"]


def test_the_longest_receipt_fits():
    ranges = tuple((10**9 + 2 * n, 10**9 + 2 * n + 1) for n in range(256))
    value = replace(RECEIPT, ranges=ranges, counts=Counts(*[2**53 - 1] * 5), ledger="n" * 4000 + "\n")
    assert opened(Receipt, signed(value), proven(CONSUMER)) == value


def test_a_manifest_says_how_much_may_be_open_and_where_the_bytes_lie():
    assert MANIFEST.credit_bytes == 4 * MANIFEST.window_bytes
    assert MANIFEST.log.layout is not None
    assert MANIFEST.log.layout.leaves == 41
    assert LIVE.log.layout is None
    assert opened(Ack, signed(ACK), proven(PROVIDER)).credit_bytes == ACK.credit_bytes
    assert Manifest.TYP == "dp-manifest+jwt"
