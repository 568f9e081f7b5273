"""The consumer's side: manifests and acks that are refused with a code of their own, and what a consumer signs and takes up again."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from connector.dsp.messages import Role
from connector.errors import MeterRefused
from connector.metering.chain import Outcome, acked, answer
from connector.metering.chain_consumer import NOT_READ, Terms, accept, issued, judge_ack, restored
from connector.metering.counts import Counts
from connector.metering.credit import finite
from connector.metering.objects import Ack, Checkpoint, Manifest, Receipt, digest
from connector.records.metering import Metered
from connector.signatures import jws
from connector.values import replace
from tests.metering.rig import (
    CHUNK,
    CONSUMER,
    KEYS,
    LAYOUT,
    MANIFEST,
    NOW,
    PROVIDER,
    STRANGER,
    WINDOW,
    account,
    both,
    exchange,
    judged,
    proven,
    raw,
    receipt,
    signed,
)

IDS = MANIFEST.consumer_pid, MANIFEST.provider_pid, MANIFEST.dataset
TERMS = Terms(PROVIDER, CONSUMER, MANIFEST.agreement, MANIFEST.policy, *IDS, MANIFEST.prices)
CLAIMS = MANIFEST.claims()
LOG = CLAIMS["log"]


def promised(**changed: Any) -> str:
    return signed(replace(MANIFEST, **changed), by=PROVIDER)


def claims(**changed: Any) -> str:
    return raw({**CLAIMS, **changed}, PROVIDER, Manifest.TYP)


def without(name: str) -> str:
    return raw({each: value for each, value in CLAIMS.items() if each != name}, PROVIDER, Manifest.TYP)


MANIFESTS: dict[str, tuple[str, str]] = {
    "nothing": ("", "jws-parts"),
    "by the consumer": (signed(MANIFEST, by=CONSUMER), "jws-kid"),
    "by a stranger": (signed(MANIFEST, by=STRANGER), "jws-kid"),
    "by a stranger in its name": (jws.sign(CLAIMS, replace(KEYS[STRANGER], key=KEYS[PROVIDER].key), Manifest.TYP), "jws-signature"),
    "a receipt in its place": (raw(CLAIMS, PROVIDER, Receipt.TYP), "jws-typ"),
    "truncated": (signed(MANIFEST)[:-10], "jws-signature"),
    "issued by another": (claims(iss=STRANGER), "jws-issuer"),
    **{f"no {name}": (without(name), "claims-missing") for name in CLAIMS if name != "iss"},
    "one claim more": (claims(x=None), "claims-unknown"),
    "version 2": (claims(v=2), "claim-v"),
    "version true": (claims(v=True), "claim-v"),
    "an audience that is no DID": (claims(aud="bio"), "claim-aud"),
    "an instant as a float": (claims(iat=1e9), "claim-iat"),
    "no end": (claims(exp=None), "claim-exp"),
    "an end before its beginning": (claims(exp=MANIFEST.issued), "claim-exp"),
    "an agreement with spaces": (claims(agr="a b"), "claim-agr"),
    "a policy that is no digest": (claims(pol={}), "claim-pol"),
    "one pid": (claims(tp={"consumerPid": "x"}), "claim-tp"),
    "a pid that is a number": (claims(tp={"consumerPid": "x", "providerPid": 1}), "claim-tp"),
    "a dataset that is null": (claims(ds=None), "claim-ds"),
    "a snapshot of no name": (claims(snap=""), "claim-snap"),
    "no log": (claims(log=None), "claim-log"),
    "a log without an algorithm": (claims(log={**LOG, "alg": "md5"}), "claim-log"),
    "a log with odd chunks": (claims(log={**LOG, "chunk": 100_000}), "claim-log"),
    "a log with true chunks": (claims(log={**LOG, "chunk": True}), "claim-log"),
    "a log with a root and no size": (claims(log={**LOG, "size": None}), "claim-log"),
    "a log with a size and no root": (claims(log={**LOG, "root": None}), "claim-log"),
    "a log of negative size": (claims(log={**LOG, "size": -1}), "claim-log"),
    "a log of a name with a plus": (claims(log={**LOG, "origin": "a+b"}), "claim-log"),
    "a log with a line end in its name": (claims(log={**LOG, "origin": "a\nb"}), "claim-log"),
    "a log with more": (claims(log={**LOG, "leaves": 41}), "claim-log"),
    "another unit": (claims(unit="byte"), "claim-unit"),
    "no window": (claims(window=0), "claim-window"),
    "a window that ends within a leaf": (claims(window=WINDOW + 1), "claim-window"),
    "a window that cannot be counted": (claims(window=2**52, credit=64), "claim-window"),
    "no credit": (claims(credit=0), "claim-credit"),
    "credit for ever": (claims(credit=65), "claim-credit"),
    "required by 1": (claims(required=1), "claim-required"),
    "receipts to a file": (claims(receipts="file:///etc/passwd"), "claim-receipts"),
    "receipts with a fragment": (claims(receipts="https://x.example/r#1"), "claim-receipts"),
    "prices in words": (claims(prices="1 EUR"), "claim-prices"),
    "for another consumer": (promised(audience=STRANGER), "manifest-audience"),
    "for another agreement": (promised(agreement="urn:uuid:other"), "manifest-agreement"),
    "under another policy": (promised(policy=b"x" * 32), "manifest-policy"),
    "for another transfer of ours": (promised(consumer_pid="urn:uuid:other"), "manifest-transfer"),
    "for another transfer of theirs": (promised(provider_pid="urn:uuid:other"), "manifest-transfer"),
    "pids exchanged": (promised(consumer_pid=MANIFEST.provider_pid, provider_pid=MANIFEST.consumer_pid), "manifest-transfer"),
    "for another dataset": (promised(dataset="urn:uuid:other"), "manifest-dataset"),
    "for other prices": (promised(prices=b"x" * 32), "manifest-prices"),
    "for no prices": (promised(prices=None), "manifest-prices"),
    "from the future": (promised(issued=NOW + 301), "manifest-ahead"),
    "one that has ended": (promised(expires=NOW - 1), "manifest-ended"),
}


def test_the_manifest_that_is_mutated_is_accepted():
    assert accept(signed(MANIFEST), TERMS, proven=proven(PROVIDER), now=NOW) == MANIFEST


@pytest.mark.parametrize(("token", "code"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_mutated_manifest_is_refused_with_its_code(token: str, code: str):
    with pytest.raises(MeterRefused) as refused:
        accept(token, TERMS, proven=proven(PROVIDER), now=NOW)
    assert refused.value.code == code


def test_whoever_cannot_read_the_prices_takes_the_manifest_by_its_policy():
    terms = replace(TERMS, prices=NOT_READ)
    assert accept(promised(prices=b"x" * 32), terms, proven=proven(PROVIDER), now=NOW).prices == b"x" * 32


def test_a_manifest_of_another_provider_is_refused_whoever_vouches_for_it():
    with pytest.raises(MeterRefused) as refused:
        accept(signed(replace(MANIFEST, issuer=STRANGER)), TERMS, proven=proven(STRANGER), now=NOW)
    assert refused.value.code == "manifest-issuer"


# A consumer that waits for the ack of its third receipt, the provider that has taken it, and that ack.
_PROVIDER, _CONSUMER = both((), ((1, 5),))
_TOKEN = signed(receipt(_CONSUMER, ((1, 9),)))
WAITING = issued(_CONSUMER, _TOKEN)
TAKEN = judged(_PROVIDER, _TOKEN).account
ACK = answer(TAKEN, now=NOW, index=17)
GOOD = signed(ACK)


def ack(**changed: Any) -> str:
    return signed(replace(ACK, **changed), by=PROVIDER)


def acked_with(**changed: Any) -> str:
    return raw({**ACK.claims(), **changed}, PROVIDER, Ack.TYP)


def lacking(name: str) -> str:
    return raw({each: value for each, value in ACK.claims().items() if each != name}, PROVIDER, Ack.TYP)


ACKS: dict[str, tuple[str, str]] = {
    "nothing": ("", "jws-parts"),
    "by the consumer itself": (signed(ACK, by=CONSUMER), "jws-kid"),
    "by a stranger": (signed(ACK, by=STRANGER), "jws-kid"),
    "by a stranger in its name": (jws.sign(ACK.claims(), replace(KEYS[STRANGER], key=KEYS[PROVIDER].key), Ack.TYP), "jws-signature"),
    "truncated": (GOOD[:-5], "jws-signature"),
    "the receipt itself": (_TOKEN, "jws-typ"),
    "the manifest": (WAITING.manifest, "jws-typ"),
    "claims twice": (GOOD + "." + GOOD, "jws-parts"),
    **{f"no {name}": (lacking(name), "claims-missing") for name in ACK.claims() if name != "iss"},
    "one claim more": (acked_with(jti="x"), "claims-unknown"),
    "an instant that is true": (acked_with(iat=True), "claim-iat"),
    "number 0": (acked_with(seq=0), "claim-seq"),
    "a negative index": (acked_with(idx=-1), "claim-idx"),
    "an index as a text": (acked_with(idx="17"), "claim-idx"),
    "an index with a fraction": (acked_with(idx=17.5), "claim-idx"),
    "credit as a float": (acked_with(credit=float(ACK.credit_bytes)), "claim-credit"),
    "negative credit": (acked_with(credit=-1), "claim-credit"),
    "credit without end": (acked_with(credit=2**53), "claim-credit"),
    "another state": (acked_with(st="fine"), "claim-st"),
    "calls that are null": (acked_with(calls=None), "claim-calls"),
    "time in seconds": (acked_with(us=0.5), "claim-us"),
    "a receipt that is no digest": (acked_with(rcpt=""), "claim-rcpt"),
    "a note that is none": (acked_with(led=""), "claim-led"),
    "for another consumer": (ack(audience=STRANGER), "ack-audience"),
    "for another manifest": (ack(manifest=bytes(32)), "ack-manifest"),
    "from the future": (ack(issued=NOW + 301), "ack-ahead"),
    "of a receipt that was not signed yet": (ack(sequence=4), "ack-gap"),
    "of another receipt with this number": (ack(receipt=bytes(32)), "ack-receipt"),
    "of the former receipt under this number": (ack(receipt=digest(_CONSUMER.receipt)), "ack-receipt"),
    "less credit than promised": (ack(credit_bytes=ACK.credit_bytes - 1), "ack-credit"),
    "more credit than promised": (ack(credit_bytes=ACK.credit_bytes + 1), "ack-credit"),
    "a quota below what was acknowledged": (ack(state="quota", credit_bytes=8 * CHUNK - 1), "ack-credit"),
    "a suspension with more credit than there was": (ack(state="suspended", credit_bytes=ACK.credit_bytes + 1), "ack-credit"),
}


def test_the_ack_that_is_mutated_is_accepted_once_and_known_afterwards():
    got = judge_ack(WAITING, GOOD, proven=proven(PROVIDER), now=NOW)
    assert (got.outcome, got.account) == (
        Outcome.ACCEPTED,
        replace(WAITING, ack=GOOD, credit_bytes=8 * CHUNK + 4 * WINDOW, attested="both"),
    )
    again = judge_ack(got.account, GOOD, proven=proven(PROVIDER), now=NOW)
    assert (again.outcome, again.account) == (Outcome.DUPLICATE, got.account)
    other = judge_ack(got.account, ack(index=18), proven=proven(PROVIDER), now=NOW)
    assert (other.outcome, other.code, other.account) == (Outcome.REFUSED, "ack-conflict", got.account)


@pytest.mark.parametrize(("token", "code"), ACKS.values(), ids=ACKS.keys())
def test_a_mutated_ack_is_refused_with_its_code_and_changes_nothing(token: str, code: str):
    before = replace(WAITING)
    verdict = judge_ack(WAITING, token, proven=proven(PROVIDER), now=NOW)
    assert (verdict.outcome, verdict.code, verdict.account is WAITING) == (Outcome.REFUSED, code, True)
    assert before == WAITING
    assert judge_ack(WAITING, GOOD, proven=proven(PROVIDER), now=NOW).outcome is Outcome.ACCEPTED


def test_an_ack_that_comes_late_changes_nothing():
    verdict = judge_ack(WAITING, _CONSUMER.ack, proven=proven(PROVIDER), now=NOW)
    assert (verdict.outcome, verdict.code, verdict.account) == (Outcome.STALE, "ack-stale", WAITING)


def test_an_ack_of_another_provider_is_refused_whoever_vouches_for_it():
    other = signed(replace(ACK, issuer=STRANGER))
    assert judge_ack(WAITING, other, proven=proven(STRANGER), now=NOW).code == "ack-issuer"


def test_no_second_receipt_is_signed_while_one_waits_for_its_ack():
    with pytest.raises(MeterRefused) as refused:
        receipt(WAITING, ((1, 12),))
    assert refused.value.code == "receipt-pending"
    assert WAITING.receipt == _TOKEN  # this one is sent again, as it is


@pytest.mark.parametrize(("status", "code"), [("complete", "account-complete"), ("disputed", "account-disputed")])
def test_nothing_follows_the_end(status: str, code: str):
    with pytest.raises(MeterRefused) as refused:
        receipt(replace(_CONSUMER, status=status), ((1, 12),))
    assert refused.value.code == code


def test_a_receipt_covers_what_the_last_one_covered_though_it_was_lost_since():
    provider, consumer = exchange(_PROVIDER, _CONSUMER, ((20, 22),), microseconds=9)
    again = receipt(consumer, ((1, 3), (30, 31)), microseconds=1)
    assert again.ranges == ((1, 5), (20, 22), (30, 31))
    assert again.counts == Counts(bytes=7 * CHUNK, calls=1, microseconds=9)
    assert judged(provider, signed(again)).outcome is Outcome.ACCEPTED


def test_of_too_many_pieces_the_largest_are_told_and_none_that_was_told_before_is_missing():
    layout = replace(LAYOUT, size_bytes=5000 * CHUNK)
    manifest = replace(MANIFEST, log=replace(MANIFEST.log, size=layout.size_bytes))
    at, checkpoint = finite(manifest), Checkpoint(layout.leaves, MANIFEST.log.root or b"")
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    single = tuple((2 * n, 2 * n + 1) for n in range(1, 300))
    provider, consumer = exchange(*pair, single[:40], log=at, checkpoint=checkpoint)
    large = tuple((1000 + 4 * n, 1002 + 4 * n) for n in range(230))
    provider, consumer = exchange(provider, consumer, (*single, *large), log=at, checkpoint=checkpoint)
    assert len(provider.ranges) == 256
    assert set(single[:40]) <= set(provider.ranges)
    assert len(set(provider.ranges) & set(large)) == 216


LOST = account(Role.CONSUMER)
KEPT = acked(TAKEN, GOOD)


def test_a_consumer_that_has_lost_its_account_takes_it_up_from_the_provider():
    back = restored(LOST, KEPT.receipt, KEPT.ack, own=proven(CONSUMER), proven=proven(PROVIDER), now=NOW)
    assert back == replace(
        LOST,
        sequence=3,
        receipt=_TOKEN,
        ack=GOOD,
        ranges=((1, 9),),
        counts=Counts(bytes=8 * CHUNK, calls=1),
        credit_bytes=KEPT.credit_bytes,
        attested="both",
    )
    provider, consumer = exchange(KEPT, back, ((1, 3),))  # fetched again from the front: nothing is billed for it
    assert provider.counts == consumer.counts == KEPT.counts


def test_a_receipt_without_an_ack_is_taken_up_and_sent_again():
    back = restored(LOST, TAKEN.receipt, "", own=proven(CONSUMER), proven=proven(PROVIDER), now=NOW)
    assert (back.receipt, back.ack) == (_TOKEN, "")
    assert judged(KEPT, back.receipt).outcome is Outcome.DUPLICATE


def _restored(at: Metered = LOST, receipt_: str = KEPT.receipt, ack_: str = KEPT.ack) -> Metered:
    return restored(at, receipt_, ack_, own=proven(CONSUMER), proven=proven(PROVIDER), now=NOW)


OTHER_FLOW = replace(LOST, manifest=signed(replace(MANIFEST, snapshot="s2")))
RESTORATIONS: dict[str, tuple[Callable[[], Metered], str]] = {
    "older than what is here": (lambda: _restored(WAITING), "restored-behind"),
    "a receipt that we have not signed": (lambda: _restored(receipt_=signed(Receipt.of(jws.claims_of(_TOKEN)), by=PROVIDER)), "jws-kid"),
    "a receipt of another flow": (lambda: _restored(OTHER_FLOW), "receipt-manifest"),
    "the ack of another receipt": (lambda: _restored(ack_=_CONSUMER.ack), "ack-stale"),
    "a receipt and a later ack": (lambda: _restored(receipt_=_CONSUMER.receipt), "ack-gap"),
    "an ack that we have signed": (lambda: _restored(ack_=signed(ACK, by=CONSUMER)), "jws-kid"),
    "no receipt": (lambda: _restored(receipt_=""), "jws-parts"),
}


@pytest.mark.parametrize(("attempt", "code"), RESTORATIONS.values(), ids=RESTORATIONS.keys())
def test_what_is_not_ours_is_not_taken_up(attempt: Callable[[], Metered], code: str):
    with pytest.raises(MeterRefused) as refused:
        attempt()
    assert refused.value.code == code


def test_objects_are_json_that_every_reader_reads_alike():
    for token in (signed(MANIFEST), _TOKEN, GOOD):
        payload = jws.claims_of(token)
        assert orjson.loads(orjson.dumps(payload)) == payload
