"""The seven rules of the meter, each with a test, and the mutations of receipts that are refused with a code of their own."""

import base64
import json
from functools import partial
from typing import Any

import orjson
import pytest
from nacl.signing import SigningKey

from connector.dsp.messages import Role
from connector.metering.chain import Outcome, acked, answer, judge
from connector.metering.chain_consumer import issued, judge_ack
from connector.metering.content import Sealed
from connector.metering.counts import Counts
from connector.metering.credit import Log, allowance, finite
from connector.metering.objects import Ack, Checkpoint, ContentLog, Receipt, Rejected, digest
from connector.metering.ranges import union
from connector.metering.statements import Flow, flow_of
from connector.records.metering import Receipted
from connector.signatures import jws
from connector.values import replace
from tests.metering.rig import (
    CHECKPOINT,
    CHUNK,
    CONSUMER,
    KEYS,
    LAYOUT,
    MANIFEST,
    NOW,
    PROVIDER,
    ROOT,
    STRANGER,
    WINDOW,
    account,
    both,
    exchange,
    judged,
    leaf,
    log,
    proven,
    raw,
    receipt,
    signed,
)

LEAVES = LAYOUT.leaves
WHOLE = LAYOUT.whole


# The rules ------------------------------------------------------------------------------------------------------------------------


def test_rule_1_no_more_than_the_credit_leaves_beyond_the_last_acknowledged_receipt():
    provider, consumer = both()
    sent = allowance(provider.credit_bytes, log().measure, provider.ranges, (), 1, LEAVES)
    assert sent == 0  # before the account is open
    provider, consumer = exchange(provider, consumer, ())
    assert provider.credit_bytes == consumer.credit_bytes == 4 * WINDOW
    out, rounds = (), 0
    while (next_ := out[-1][1] if out else 1) < LEAVES:
        many = allowance(provider.credit_bytes, log().measure, provider.ranges, out, next_, LEAVES)
        out = union(out, ((next_, next_ + many),))
        assert log().measure(out).bytes - provider.counts.bytes <= MANIFEST.credit_bytes
        provider, consumer = exchange(
            provider, consumer, union(consumer.ranges, ((1, min(consumer.counts.bytes // CHUNK + 5, out[-1][1])),))
        )
        rounds += 1
    assert rounds > 4
    assert judged(provider, signed(receipt(consumer, WHOLE, state="complete"))).outcome is Outcome.ACCEPTED


def test_rule_2_receipts_are_cumulative_chained_and_monotonic():
    provider, consumer = both((), ((1, 5),), ((1, 5), (9, 12)))
    first, last = provider, consumer
    assert provider.ranges == ((1, 5), (9, 12))
    assert provider.counts == Counts(bytes=7 * CHUNK, calls=1)
    token = signed(receipt(last, ((5, 9),)))
    verdict = judged(first, token)
    assert verdict.receipt is not None
    assert verdict.receipt.previous == digest(first.receipt)
    assert (verdict.account.sequence, verdict.account.ranges, verdict.account.receipt) == (4, ((1, 12),), token)
    # A receipt supersedes those before it: the last one alone says all of it.
    assert judged(verdict.account, first.receipt).outcome is Outcome.STALE
    assert judged(verdict.account, token).outcome is Outcome.DUPLICATE


def test_rule_2_a_repeated_receipt_has_the_same_answer_and_changes_nothing():
    provider, consumer = both((), ((1, 5),))
    again = judged(provider, consumer.receipt)
    assert (again.outcome, again.account, again.ack) == (Outcome.DUPLICATE, provider, provider.ack)
    # Between its acceptance and its ack: it is not accepted twice, and the ack is made now.
    waiting = judged(provider, signed(receipt(consumer, ((1, 9),)))).account
    verdict = judged(waiting, waiting.receipt)
    assert (verdict.outcome, verdict.account, verdict.ack) == (Outcome.DUPLICATE, waiting, "")
    # One that was accepted earlier is known by what was kept, and stale without it.
    earlier = Receipted("t", 1, digest(both(())[0].receipt), both(())[0].receipt, "its ack", NOW)
    old = judged(provider, earlier.receipt, known=[earlier])
    assert (old.outcome, old.account, old.ack) == (Outcome.DUPLICATE, provider, "its ack")
    stale = judged(provider, earlier.receipt)
    assert (stale.outcome, stale.code, stale.account, stale.ack) == (Outcome.STALE, "sequence-stale", provider, provider.ack)


@pytest.mark.parametrize("earlier", [False, True])
def test_rule_2_two_receipts_with_one_number_are_evidence_and_close_the_account(earlier: bool):
    provider, consumer = both((), ((1, 5),))
    before, _ = both(()) if earlier else (provider, consumer)
    other = signed(replace(Receipt.of(jws.claims_of(before.receipt)), id="another"))
    known = [Receipted("t", before.sequence, digest(before.receipt), before.receipt, before.ack, NOW)]
    verdict = judged(provider, other, known=known)
    assert (verdict.outcome, verdict.code) == (Outcome.CONFLICT, "sequence-conflict")
    assert verdict.account == replace(provider, status="disputed")
    assert verdict.receipt is not None
    assert judged(verdict.account, other, known=known).outcome is Outcome.CONFLICT
    assert judged(verdict.account, provider.receipt).outcome is Outcome.DUPLICATE
    after = judged(verdict.account, signed(receipt(consumer, ((1, 6),))))
    assert (after.outcome, after.code, after.account) == (Outcome.REFUSED, "account-disputed", verdict.account)


def test_rule_3_unique_bytes_are_billed_however_often_they_are_sent():
    provider, consumer = both((), ((1, 9),))
    before = provider.counts
    provider, consumer = exchange(provider, consumer, ((3, 7),))
    assert provider.counts == consumer.counts == before
    provider, consumer = exchange(provider, consumer, ((5, 12),))
    assert provider.counts == Counts(bytes=11 * CHUNK, calls=1)
    assert provider.ranges == ((1, 12),)
    provider, consumer = exchange(provider, consumer, WHOLE, state="complete")
    assert provider.counts == consumer.counts == Counts(LAYOUT.size_bytes, 0, 1, 1)


def test_rule_4_counts_follow_from_the_ranges_by_the_unit_of_the_manifest():
    manifest = replace(MANIFEST, unit="line")
    knows = finite(manifest, records=lambda first, last: 10 * (last - first))
    provider, consumer = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    right = receipt(consumer, ((2, 5),), log=knows)
    assert right.counts == Counts(bytes=3 * CHUNK, records=30, calls=1)
    assert judged(provider, signed(right), log=knows).account.counts == right.counts
    wrong = judged(provider, signed(replace(right, counts=Counts(3 * CHUNK, 31, calls=1))), log=knows)
    assert (wrong.code, wrong.message) == ("records-differ", "the receipt's `records` are not the 30 that its ranges come to")
    # Where the provider counts no records itself, the consumer's count stands, and never shrinks.
    blind = judged(provider, signed(replace(right, counts=Counts(3 * CHUNK, 31, calls=1))), log=finite(manifest))
    assert blind.account.counts.records == 31
    fewer = replace(right, sequence=2, previous=digest(blind.account.receipt), id="j2", counts=Counts(3 * CHUNK, 30, calls=1))
    assert judged(blind.account, signed(fewer), log=finite(manifest)).code == "counts-shrunk"


def test_rule_4_a_live_log_is_counted_by_the_list_of_its_leaves():
    manifest = replace(MANIFEST, log=ContentLog("hospital.example/ds/live", CHUNK), unit="line")
    sealed = Sealed()
    for length, records in ((CHUNK, 7), (100, 2), (CHUNK, 0), (5, 1)):
        sealed.append(length, records)
    roots = {3: b"3" * 32, 5: b"5" * 32}
    growing = Log(sealed.leaves, sealed.measure, roots.get, leaf, ended=False)
    provider, consumer = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    provider, consumer = exchange(provider, consumer, (), log=growing, checkpoint=None)
    provider, consumer = exchange(provider, consumer, ((1, 3),), log=growing, checkpoint=Checkpoint(3, roots[3]))
    assert provider.counts == consumer.counts == Counts(bytes=CHUNK + 100, records=9, calls=1)
    token = signed(receipt(consumer, ((1, 5),), log=growing, checkpoint=Checkpoint(5, roots[5]), state="complete"))
    assert judged(provider, token, log=growing).code == "complete-early"
    assert judged(provider, token, log=replace(growing, ended=True)).account.counts == Counts(2 * CHUNK + 105, 10, calls=1)
    beyond = signed(receipt(consumer, ((1, 5),), log=growing, checkpoint=Checkpoint(3, roots[3])))
    assert judged(provider, beyond, log=growing).code == "ranges-outside"
    for checkpoint, code in (
        (None, "checkpoint-older"),
        (Checkpoint(4, roots[3]), "checkpoint-other"),
        (Checkpoint(9, ROOT), "checkpoint-other"),
    ):
        assert judged(provider, signed(receipt(consumer, (), log=growing, checkpoint=checkpoint)), log=growing).code == code
    first = account(Role.CONSUMER, manifest)
    unchecked = signed(receipt(first, ((1, 2),), log=growing, checkpoint=None))
    assert judged(account(Role.PROVIDER, manifest), unchecked, log=growing).code == "checkpoint-missing"
    older = signed(replace(receipt(consumer, (), log=growing), checkpoint=Checkpoint(2, ROOT)))
    assert judged(provider, older, log=replace(growing, root=lambda _: ROOT)).code == "checkpoint-older"


def test_rule_5_neither_side_can_make_what_the_other_has_to_sign():
    provider, consumer = both(())
    invented = receipt(consumer, WHOLE)
    forged = judged(provider, signed(invented, by=PROVIDER))
    assert (forged.outcome, forged.code, forged.account) == (Outcome.REFUSED, "jws-kid", provider)
    made_up = answer(provider, now=NOW, index=1)
    got = judge_ack(replace(consumer, ack=""), signed(made_up, by=CONSUMER), proven=proven(PROVIDER), now=NOW)
    assert (got.outcome, got.code) == (Outcome.REFUSED, "jws-kid")
    # What the consumer holds names all that the provider has promised and got.
    ack = Ack.of(jws.claims_of(consumer.ack))
    assert (ack.manifest, ack.receipt, ack.index) == (digest(consumer.manifest), digest(consumer.receipt), 1)


def test_rule_5_garbage_cannot_be_billed():
    provider, consumer = both((), ((1, 5),))
    before = provider.counts
    provider, consumer = exchange(provider, consumer, ((1, 5),), state="rejected", rejected=Rejected(5, b"x" * 32))
    assert (provider.status, consumer.status) == ("rejected", "rejected")
    assert provider.counts == before
    lie = signed(receipt(consumer, (), state="rejected", rejected=Rejected(6, leaf(6))))
    assert judged(provider, lie).code == "rejected-true"
    provider, consumer = exchange(provider, consumer, ((1, 6),))  # it came right when it was fetched again
    assert provider.status == "open"


def test_rule_6_without_a_receipt_the_meter_is_the_providers_alone():
    provider, _ = both()
    assert (provider.attested, provider.receipt) == ("provider-only", "")
    served = replace(provider, counts=Counts(bytes=500))
    assert flow_of(served) == Flow("urn:uuid:provider-pid", digest(provider.manifest), 0, None, "provider-only", Counts(bytes=500))
    provider, consumer = both(())
    assert (provider.attested, consumer.attested) == ("both", "both")
    assert flow_of(provider) == flow_of(consumer)
    assert flow_of(provider).attested == "both"


def test_rule_7_in_push_the_same_objects_go_the_other_way():
    """The provider PUTs windows; the answer to each is the receipt, and the next request carries its ack."""
    provider, consumer = both(())
    stored: set[int] = set()
    ack = ""
    while provider.status != "complete":
        first = provider.ranges[-1][1] if provider.ranges else 1
        many = min(4, allowance(provider.credit_bytes, log().measure, provider.ranges, (), first, LEAVES))
        if ack:
            consumer = judge_ack(consumer, ack, proven=proven(PROVIDER), now=NOW).account
        stored |= set(range(first, first + many))
        state = "complete" if len(stored) == LEAVES - 1 else "partial"
        answered = signed(receipt(consumer, union(((first, first + many),)), state=state))
        consumer = issued(consumer, answered)
        verdict = judged(provider, answered)
        assert verdict.outcome is Outcome.ACCEPTED
        ack = signed(answer(verdict.account, now=NOW, index=None))
        provider = acked(verdict.account, ack)
    assert provider.counts == consumer.counts == Counts(LAYOUT.size_bytes, 0, 1, 1)


def test_an_abort_ends_nothing_and_a_complete_account_takes_no_more():
    provider, consumer = both((), ((1, 5),))
    provider, consumer = exchange(provider, consumer, (), state="aborted", reason="sink")
    assert provider.status == "aborted"
    provider, consumer = exchange(provider, consumer, WHOLE, state="complete")
    assert provider.status == "complete"
    more = replace(Receipt.of(jws.claims_of(provider.receipt)), sequence=5, previous=digest(provider.receipt), id="j5")
    verdict = judged(provider, signed(more))
    assert (verdict.outcome, verdict.code, verdict.account) == (Outcome.REFUSED, "account-complete", provider)


def test_data_of_no_bytes_are_complete_at_once():
    manifest = replace(MANIFEST, log=ContentLog("hospital.example/ds/empty", CHUNK, ROOT, 0))
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    provider, consumer = exchange(*pair, (), log=finite(manifest), state="complete", checkpoint=Checkpoint(1, ROOT))
    assert provider.counts == consumer.counts == Counts(items=1)


@pytest.mark.parametrize(
    ("state", "limit", "credit"),
    [
        ("ok", None, 8 * CHUNK + 4 * WINDOW),
        ("ok", 0, 8 * CHUNK + 4 * WINDOW),
        ("revoked", None, 8 * CHUNK),
        ("suspended", None, 8 * CHUNK),
        ("quota", 10 * CHUNK, 10 * CHUNK),
        ("quota", 0, 8 * CHUNK),
        ("quota", 99 * CHUNK, 8 * CHUNK + 4 * WINDOW),
    ],
)
def test_an_ack_grants_what_was_promised_or_says_why_not(state: str, limit: int | None, credit: int):
    provider, consumer = both(())
    token = signed(receipt(consumer, ((1, 9),)))
    provider, consumer = judged(provider, token).account, issued(consumer, token)
    ack = signed(answer(provider, now=NOW + 0.9, index=None, state=state, limit_bytes=limit, own=Counts(calls=3, microseconds=4)))
    read = Ack.of(jws.claims_of(ack))
    assert (read.state, read.credit_bytes, read.calls, read.microseconds, read.issued) == (state, credit, 3, 4, NOW)
    got = judge_ack(consumer, ack, proven=proven(PROVIDER), now=NOW)
    assert (got.outcome, got.account.credit_bytes) == (Outcome.ACCEPTED, credit)
    assert acked(provider, ack).credit_bytes == credit


# The mutations --------------------------------------------------------------------------------------------------------------------

AT, BY = both((), ((1, 5), (9, 12)))  # where the provider and the consumer stand when a mutation comes
GOOD = receipt(BY, ((1, 7),))
TOKEN = signed(GOOD)
CLAIMS = GOOD.claims()
PARTS = TOKEN.split(".")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_is(payload: bytes, header: bytes | None = None) -> str:
    """The consumer's true signature over a payload, and a header, of any bytes."""
    head = b64(header or orjson.dumps({"alg": "EdDSA", "typ": Receipt.TYP, "kid": KEYS[CONSUMER].kid}))
    signing = f"{head}.{b64(payload)}"
    return f"{signing}.{b64(SigningKey(KEYS[CONSUMER].secret[:32]).sign(signing.encode()).signature)}"


def claims(**changed: Any) -> str:
    return raw({**CLAIMS, **changed}, CONSUMER, Receipt.TYP)


def without(*names: str) -> str:
    return raw({name: value for name, value in CLAIMS.items() if name not in names}, CONSUMER, Receipt.TYP)


def text(old: str, new: str) -> str:
    """The claims with a text in their JSON exchanged: what no encoder would write."""
    payload = orjson.dumps(CLAIMS).decode()
    assert old in payload
    return as_is(payload.replace(old, new, 1).encode())


def said(**changed: Any) -> str:
    """A receipt with fields changed, whose counts are those of the former ranges."""
    return signed(replace(GOOD, **changed))


def over(*ranges: tuple[int, int], **changed: Any) -> str:
    """A receipt over these ranges alone, whose bytes are right."""
    size = LAYOUT.measure(ranges).bytes if ranges and ranges[-1][1] <= LEAVES else 0
    return said(ranges=ranges, counts=replace(GOOD.counts, bytes=size), **changed)


HEADER = {"alg": "EdDSA", "typ": Receipt.TYP, "kid": KEYS[CONSUMER].kid}
UNKNOWN = jws.signing_key(f"{CONSUMER}#k9", bytes([2]) * 32)
OTHER_FLOW = signed(replace(MANIFEST, provider_pid="urn:uuid:other"))
HUGE = "123456789012345678901234567890"

MUTATIONS: dict[str, tuple[str, str]] = {
    # forged
    "nothing": ("", "jws-parts"),
    "signed by the provider": (signed(GOOD, by=PROVIDER), "jws-kid"),
    "signed by a stranger": (signed(GOOD, by=STRANGER), "jws-kid"),
    "signed by a stranger under the consumer's name": (
        jws.sign(CLAIMS, replace(KEYS[STRANGER], key=KEYS[CONSUMER].key), Receipt.TYP),
        "jws-signature",
    ),
    "signed by a key that nobody has published": (jws.sign(CLAIMS, UNKNOWN, Receipt.TYP), "jws-key-unknown"),
    "the signature of another receipt": (".".join([*PARTS[:2], AT.receipt.split(".")[2]]), "jws-signature"),
    "the payload of another receipt": (".".join([PARTS[0], AT.receipt.split(".")[1], PARTS[2]]), "jws-signature"),
    "other letters in the payload": (f"{PARTS[0]}.{PARTS[1][:40].swapcase()}{PARTS[1][40:]}.{PARTS[2]}", "jws-signature"),
    "no signature": (f"{PARTS[0]}.{PARTS[1]}.", "jws-signature"),
    "an empty signature": (f"{PARTS[0]}.{PARTS[1]}.{b64(bytes(64))}", "jws-signature"),
    "a short signature": (TOKEN[:-8], "jws-signature"),
    "a signature in other bits": (f"{TOKEN[:-1]}{chr(ord(TOKEN[-1]) + 1)}", "jws-signature"),
    "truncated in the payload": (TOKEN[: len(PARTS[0]) + 100], "jws-parts"),
    "truncated in the header": (TOKEN[:20], "jws-parts"),
    "a part more": (f"{TOKEN}.AA", "jws-parts"),
    "white space behind it": (TOKEN + "\n", "jws-signature"),
    "too long": (TOKEN + "A" * 65_536, "jws-length"),
    "an ack in its place": (AT.ack, "jws-typ"),
    "a manifest in its place": (AT.manifest, "jws-typ"),
    "an identity token in its place": (raw(CLAIMS, CONSUMER, "JWT"), "jws-typ"),
    "a typ in capitals": (raw(CLAIMS, CONSUMER, "DP-RECEIPT+JWT"), "jws-typ"),
    "an ack's claims as a receipt": (raw(jws.claims_of(AT.ack), CONSUMER, Receipt.TYP), "jws-issuer"),
    "algorithm none": (as_is(orjson.dumps(CLAIMS), orjson.dumps({**HEADER, "alg": "none"})), "jws-alg"),
    "algorithm HS256": (as_is(orjson.dumps(CLAIMS), orjson.dumps({**HEADER, "alg": "HS256"})), "jws-alg"),
    "a key in the header": (as_is(orjson.dumps(CLAIMS), orjson.dumps({**HEADER, "jwk": {}})), "jws-header"),
    "a header member twice": (as_is(orjson.dumps(CLAIMS), orjson.dumps(HEADER)[:-1] + b',"alg":"EdDSA"}'), "jws-header"),
    "no kid": (as_is(orjson.dumps(CLAIMS), orjson.dumps({"alg": "EdDSA", "typ": Receipt.TYP})), "jws-kid"),
    "a payload that is no JSON": (as_is(b"receipt"), "jws-payload"),
    "a payload that is an array": (as_is(b"[]"), "jws-payload"),
    "a payload cut short": (as_is(orjson.dumps(CLAIMS)[:-1]), "jws-payload"),
    "a claim twice": (as_is(orjson.dumps(CLAIMS)[:-1] + b',"seq":3}'), "jws-payload"),
    "a claim twice in other letters": (as_is(orjson.dumps(CLAIMS)[:-1] + b',"\\u0073eq":9}'), "jws-payload"),
    "a member twice in a claim": (text('"size":41', '"size":41,"size":42'), "jws-payload"),
    "a lone surrogate": (text('"j3"', '"\\ud800"'), "jws-payload"),
    "issued by somebody else": (claims(iss=STRANGER), "jws-issuer"),
    "issued by nobody": (claims(iss=None), "jws-issuer"),
    # claims
    "no issuer": (without("iss"), "jws-issuer"),
    **{f"no {name}": (without(name), "claims-missing") for name in CLAIMS if name != "iss"},
    "no claims but the issuer": (raw({"iss": CONSUMER}, CONSUMER, Receipt.TYP), "claims-missing"),
    "one claim more": (claims(exp=NOW + 60), "claims-unknown"),
    "a nonce more": (claims(**{"": 0}), "claims-unknown"),
    "for a number": (claims(aud=5), "claim-aud"),
    "for several": (claims(aud=[PROVIDER]), "claim-aud"),
    "an empty id": (claims(jti=""), "claim-jti"),
    "an id that is a number": (claims(jti=3), "claim-jti"),
    "a long id": (claims(jti="j" * 129), "claim-jti"),
    "an instant with a fraction": (claims(iat=NOW + 0.5), "claim-iat"),
    "an instant as a float": (claims(iat=float(NOW)), "claim-iat"),
    "an instant that is true": (claims(iat=True), "claim-iat"),
    "an instant as a text": (claims(iat=str(NOW)), "claim-iat"),
    "an instant before 1970": (claims(iat=-1), "claim-iat"),
    "an instant that is NaN": (text(f'"iat":{NOW}', '"iat":NaN'), "jws-payload"),
    "an instant without end": (text(f'"iat":{NOW}', '"iat":1e999'), "jws-payload"),
    "a manifest that is no digest": (claims(man="AAAA"), "claim-man"),
    "a manifest in hexadecimal": (claims(man="0" * 64), "claim-man"),
    "a manifest in other bits": (claims(man="A" * 42 + "B"), "claim-man"),
    "number 0": (claims(seq=0), "claim-seq"),
    "a negative number": (claims(seq=-3), "claim-seq"),
    "a number that is true": (claims(seq=True), "claim-seq"),
    "a number as a float": (claims(seq=3.0), "claim-seq"),
    "a number as a text": (claims(seq="3"), "claim-seq"),
    "a number beyond 2^53": (claims(seq=2**53), "claim-seq"),
    "a number of thirty digits": (text('"seq":3', f'"seq":{HUGE}'), "claim-seq"),
    "a former receipt that is no digest": (claims(prev="x"), "claim-prev"),
    "a third receipt without a former one": (claims(prev=None), "claim-prev"),
    "a first receipt with a former one": (claims(seq=1), "claim-prev"),
    "ranges that are null": (claims(ranges=None), "claim-ranges"),
    "ranges as an object": (claims(ranges={"1": 7}), "claim-ranges"),
    "ranges as texts": (claims(ranges=[["1", "7"]]), "claim-ranges"),
    "ranges as floats": (claims(ranges=[[1.0, 7.0]]), "claim-ranges"),
    "ranges that are true": (claims(ranges=[[True, 7]]), "claim-ranges"),
    "ranges of three": (claims(ranges=[[1, 7, 9]]), "claim-ranges"),
    "ranges that are negative": (claims(ranges=[[-1, 7]]), "claim-ranges"),
    "ranges that are huge": (claims(ranges=[[1, 2**60]]), "claim-ranges"),
    "too many ranges": (claims(ranges=[[2 * n, 2 * n + 1] for n in range(1, 258)]), "claim-ranges"),
    "a range of nothing": (claims(ranges=[[1, 7], [9, 9]]), "ranges-empty"),
    "a range backwards": (claims(ranges=[[7, 1]]), "ranges-empty"),
    "the header in the ranges": (claims(ranges=[[0, 7], [9, 12]]), "ranges-header"),
    "unsorted ranges": (claims(ranges=[[9, 12], [1, 7]]), "ranges-unsorted"),
    "overlapping ranges": (claims(ranges=[[1, 10], [9, 12]]), "ranges-overlap"),
    "a range within a range": (claims(ranges=[[1, 12], [9, 10]]), "ranges-overlap"),
    "the same range twice": (claims(ranges=[[1, 12], [1, 12]]), "ranges-overlap"),
    "ranges that touch": (claims(ranges=[[1, 9], [9, 12]]), "ranges-adjacent"),
    "negative bytes": (claims(bytes=-1), "claim-bytes"),
    "bytes as a float": (claims(bytes=float(GOOD.counts.bytes)), "claim-bytes"),
    "bytes that are NaN": (text(f'"bytes":{GOOD.counts.bytes}', '"bytes":NaN'), "jws-payload"),
    "bytes beyond 2^53": (claims(bytes=2**53), "claim-bytes"),
    "bytes that are null": (claims(bytes=None), "claim-bytes"),
    "records that are true": (claims(records=True), "claim-records"),
    "records in an array": (claims(records=[0]), "claim-records"),
    "items as a text": (claims(items="0"), "claim-items"),
    "negative items": (claims(items=-1), "claim-items"),
    "calls as a float": (claims(calls=3.5), "claim-calls"),
    "negative time": (claims(us=-5), "claim-us"),
    "time with a fraction": (claims(us=0.5), "claim-us"),
    "a checkpoint as a text": (claims(cp="41"), "claim-cp"),
    "a checkpoint of no leaves": (claims(cp={**CHECKPOINT.claims(), "size": 0}), "claim-cp"),
    "a checkpoint with more": (claims(cp={**CHECKPOINT.claims(), "origin": "x"}), "claim-cp"),
    "a checkpoint without a root": (claims(cp={"size": LEAVES}), "claim-cp"),
    "a checkpoint with a short root": (claims(cp={"size": LEAVES, "root": "AAAA"}), "claim-cp"),
    "another state": (claims(st="finished"), "claim-st"),
    "a state in an array": (claims(st=["partial"]), "claim-st"),
    "the state of an ack": (claims(st="ok"), "claim-st"),
    "after nothing": (claims(after="none"), "claim-after"),
    "after null": (claims(after=None), "claim-after"),
    "a rejection without a leaf": (claims(st="rejected"), "claim-rej"),
    "a leaf without a rejection": (claims(rej={"leaf": 8, "got": b64(bytes(32))}), "claim-rej"),
    "a rejection without a hash": (claims(st="rejected", rej={"leaf": 8}), "claim-rej"),
    "a rejection of half a leaf": (claims(st="rejected", rej={"leaf": 8.5, "got": b64(bytes(32))}), "claim-rej"),
    "a reason for nothing": (claims(why="sink"), "claim-why"),
    "a reason in sentences": (claims(st="aborted", why="The disk of Dr. X is full."), "claim-why"),
    "a long reason": (claims(st="aborted", why="x" * 65), "claim-why"),
    "a note without an end": (claims(led="p.example"), "claim-led"),
    "a note of megabytes": (claims(led="x" * 5000 + "\n"), "claim-led"),
    # its place in the chain
    "for another provider": (said(audience=STRANGER), "receipt-audience"),
    "for the consumer itself": (said(audience=CONSUMER), "receipt-audience"),
    "for another manifest": (said(manifest=bytes(32)), "receipt-manifest"),
    "for the manifest of another flow": (said(manifest=digest(OTHER_FLOW)), "receipt-manifest"),
    "one number left out": (said(sequence=4), "sequence-gap"),
    "many numbers left out": (said(sequence=2**53 - 1), "sequence-gap"),
    "another former receipt": (said(previous=bytes(32)), "previous-other"),
    "the former but one": (said(previous=GOOD.previous and Receipt.of(jws.claims_of(AT.receipt)).previous), "previous-other"),
    "the manifest as former receipt": (said(previous=digest(AT.manifest)), "previous-other"),
    "from the future": (said(issued=NOW + 301), "receipt-ahead"),
    "from the far future": (said(issued=2**53 - 1), "receipt-ahead"),
    "in milliseconds": (said(issued=NOW * 1000), "receipt-ahead"),
    "before its manifest": (said(issued=MANIFEST.issued - 301), "receipt-before"),
    "from 1970": (said(issued=0), "receipt-before"),
    "with the id of the one before": (said(id="j2"), "receipt-id-used"),
    # what it counts
    "leaves that the log does not have": (over((1, 7), (9, 12), (40, 42)), "ranges-outside"),
    "leaves far beyond the log": (over((1, 2**40)), "ranges-outside"),
    "fewer leaves than before": (over((1, 5)), "ranges-shrunk"),
    "no leaves any more": (over(), "ranges-shrunk"),
    "one leaf given back": (over((2, 7), (9, 12)), "ranges-shrunk"),
    "other leaves than before": (over((20, 30)), "ranges-shrunk"),
    "one byte more": (said(counts=replace(GOOD.counts, bytes=GOOD.counts.bytes + 1)), "bytes-differ"),
    "one byte less": (said(counts=replace(GOOD.counts, bytes=GOOD.counts.bytes - 1)), "bytes-differ"),
    "no bytes": (said(counts=replace(GOOD.counts, bytes=0)), "bytes-differ"),
    "the bytes of the receipt before": (said(counts=replace(GOOD.counts, bytes=AT.counts.bytes)), "bytes-differ"),
    "the last leaf as a full one": (
        said(ranges=((1, 41),), counts=replace(GOOD.counts, bytes=40 * CHUNK, items=1), state="complete"),
        "bytes-differ",
    ),
    "records where none are counted": (said(counts=replace(GOOD.counts, records=1)), "records-differ"),
    "an item that is not whole": (said(counts=replace(GOOD.counts, items=1)), "items-differ"),
    "no item where all is there": (over((1, LEAVES), state="complete"), "items-differ"),
    "a checkpoint that is null": (said(checkpoint=None), "checkpoint-older"),
    "a checkpoint with another root": (said(checkpoint=Checkpoint(LEAVES, bytes(32))), "checkpoint-other"),
    "a checkpoint with more leaves": (said(checkpoint=Checkpoint(LEAVES + 1, ROOT)), "checkpoint-other"),
    "a checkpoint with fewer leaves": (said(checkpoint=Checkpoint(LEAVES - 1, ROOT)), "checkpoint-older"),
    "two calls for one transfer": (said(counts=replace(GOOD.counts, calls=2)), "calls-differ"),
    "no call though bytes came": (said(counts=replace(GOOD.counts, calls=0)), "calls-differ"),
    "complete with holes": (said(state="complete"), "complete-early"),
    "complete but for the last leaf": (over((1, LEAVES - 1), state="complete"), "complete-early"),
    "a rejection of a leaf that is not there": (said(state="rejected", rejected=Rejected(LEAVES, bytes(32))), "rejected-outside"),
    "a rejection of a leaf that is covered": (said(state="rejected", rejected=Rejected(3, b"x" * 32)), "rejected-covered"),
    "a rejection with the right hash": (said(state="rejected", rejected=Rejected(20, leaf(20))), "rejected-true"),
}  # fmt: skip


def test_the_receipt_that_is_mutated_would_be_accepted():
    assert judged(AT, TOKEN).outcome is Outcome.ACCEPTED
    assert len(MUTATIONS) >= 120


@pytest.mark.parametrize(("token", "code"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_mutated_receipt_is_refused_with_its_code_and_changes_nothing(token: str, code: str):
    before = replace(AT)
    verdict = judged(AT, token)
    assert (verdict.outcome, verdict.code) == (Outcome.REFUSED, code)
    assert verdict.account is AT
    assert before == AT
    assert verdict.ack == AT.ack
    assert verdict.message
    # And whoever sends the right one afterwards is served.
    assert judged(verdict.account, TOKEN).outcome is Outcome.ACCEPTED


def test_a_receipt_signed_by_a_key_that_has_ended_is_refused_now_and_was_good_then():
    ended = replace(KEYS[CONSUMER].key, not_after=float(NOW))
    for at, code in ((NOW, ""), (NOW + 1, "jws-key-ended")):
        assert judged(AT, TOKEN, proven=partial(jws.read, issuer=CONSUMER, keys=[ended], at=at)).code == code


def test_what_was_verified_until_the_manifest_ended_is_receipted_at_any_time():
    late = MANIFEST.expires + 1_000_000
    before, after = (signed(receipt(BY, ((1, 7),), now=MANIFEST.expires + more)) for more in (0, 1))
    assert judged(AT, before, now=late).outcome is Outcome.ACCEPTED
    assert judged(AT, after, now=late).code == "manifest-ended"


def test_no_more_time_is_signed_for_than_has_passed_and_a_day_by_which_a_clock_may_have_been_set_back():
    """Two receipts of as much as a claim can say would be a sum that no JSON carries, and evidence would have none of it. In evidence the
    instant is that of the receipt itself, and proves nothing of that."""
    for beyond, code in ((0, ""), (1, "time-ahead")):
        microseconds = (NOW - MANIFEST.issued + 86_400) * 1_000_000 + beyond
        token = signed(replace(GOOD, counts=replace(GOOD.counts, microseconds=microseconds)))
        assert judged(AT, token, watched=True).code == code
        assert judged(AT, token).code == ""


def test_there_are_no_more_records_than_bytes_whoever_counts_them():
    """Where the data are not at hand any more nobody here has counted them. In evidence a receipt that was accepted before is as good as
    it was."""
    unknown = replace(log(), measure=lambda ranges: replace(log().measure(ranges), records=None))
    for records, code in ((GOOD.counts.bytes, ""), (GOOD.counts.bytes + 1, "records-differ")):
        token = signed(replace(GOOD, counts=replace(GOOD.counts, records=records)))
        assert judge(AT, token, proven=proven(CONSUMER), log=unknown, now=NOW, watched=True).code == code
        assert judge(AT, token, proven=proven(CONSUMER), log=unknown, now=NOW).code == ""


def test_counts_that_follow_from_no_leaves_never_shrink():
    provider, consumer = both((), ((1, 5),))
    provider, consumer = exchange(provider, consumer, ((1, 5),), microseconds=4)
    token = signed(replace(receipt(consumer, ((1, 6),)), counts=Counts(bytes=5 * CHUNK, calls=1, microseconds=3)))
    assert judged(provider, token).code == "counts-shrunk"


def test_a_transfer_that_has_brought_nothing_is_no_call_and_calls_that_were_told_before_never_shrink():
    provider, consumer = both(())
    lie = judged(provider, signed(replace(receipt(consumer), counts=Counts(calls=1))))
    assert (lie.code, lie.message) == (
        "calls-differ",
        "the receipt's `calls` are not the 0 that its ranges come to: one, once there are bytes",
    )
    told = [replace(each, counts=replace(each.counts, calls=4)) for each in both((), ((1, 5),))]  # by other rules than these
    provider, consumer = exchange(told[0], told[1], ((1, 6),))
    assert provider.counts == consumer.counts == Counts(bytes=5 * CHUNK, calls=4)


def test_a_receipt_of_another_consumer_does_not_fit_whoever_signed_it():
    """The caller has read it with the keys of the wrong participant: the manifest says for whom it is."""
    other = signed(replace(GOOD, issuer=STRANGER))
    verdict = judge(AT, other, proven=proven(STRANGER), log=log(), now=NOW)
    assert (verdict.outcome, verdict.code) == (Outcome.REFUSED, "receipt-issuer")


def test_receipts_out_of_order_are_refused_and_taken_in_order():
    provider, consumer = both(())
    tokens: list[str] = []
    at = provider
    for n in range(3):
        tokens.append(signed(receipt(consumer, ((1, 3 + n),))))
        at = judged(at, tokens[-1]).account
        ack = signed(answer(at, now=NOW, index=None))
        at, consumer = acked(at, ack), judge_ack(issued(consumer, tokens[-1]), ack, proven=proven(PROVIDER), now=NOW).account
    assert [judged(provider, token).code for token in tokens] == ["", "sequence-gap", "sequence-gap"]
    assert [judged(at, token).outcome for token in tokens] == [Outcome.STALE, Outcome.STALE, Outcome.DUPLICATE]


def test_a_live_log_opens_without_a_checkpoint_and_a_finite_one_does_not():
    consumer = account(Role.CONSUMER)
    assert judged(account(Role.PROVIDER), signed(receipt(consumer, checkpoint=None))).code == "checkpoint-missing"


def test_the_json_of_a_receipt_is_the_one_that_the_design_draws():
    assert json.loads(base64.urlsafe_b64decode(PARTS[1] + "==")) == {
        "iss": CONSUMER,
        "aud": PROVIDER,
        "jti": "j3",
        "iat": NOW,
        "man": b64(digest(AT.manifest)),
        "seq": 3,
        "prev": b64(digest(AT.receipt)),
        "ranges": [[1, 7], [9, 12]],
        "bytes": 9 * CHUNK,
        "records": 0,
        "items": 0,
        "calls": 1,
        "us": 0,
        "cp": {"size": LEAVES, "root": b64(ROOT)},
        "st": "partial",
        "after": "fsync",
        "rej": None,
        "why": None,
        "led": None,
    }
