from typing import Any

import pytest

from connector.errors import MeterRefused
from connector.metering.counts import Counts
from connector.metering.objects import opened
from connector.metering.statements import FLOWS_MAX, Flow, Statement, agreed_in, compare, compare_time, contradicted, flow_of
from connector.values import replace
from tests.metering.rig import ACK, CONSUMER, NOW, PROVIDER, RECEIPT, both, proven, signed

BOTH = Flow("urn:uuid:1", bytes(32), 3, b"r" * 32, "both", Counts(100, 10, 1, 2, 3))
ALONE = Flow("urn:uuid:2", None, 0, None, "provider-only", Counts(50, 5, 0, 1, 1))
STATEMENT = Statement(PROVIDER, CONSUMER, "s1", NOW, "urn:uuid:agreement", NOW - 86_400, NOW, (BOTH, ALONE), "own\n", None)


def test_a_statement_sums_its_flows_and_comes_back():
    assert STATEMENT.totals == Counts(150, 15, 1, 3, 4)
    assert opened(Statement, signed(STATEMENT), proven(PROVIDER)) == STATEMENT
    assert Statement.of(replace(STATEMENT, flows=()).claims()).totals == Counts()


def test_a_statement_of_many_flows_fits_an_object():
    flows = tuple(
        replace(BOTH, transfer=f"urn:uuid:01890000-0000-7000-8000-{n:012d}", counts=Counts(*[2**40] * 5)) for n in range(FLOWS_MAX)
    )
    assert opened(Statement, signed(replace(STATEMENT, flows=flows)), proven(PROVIDER)).flows == flows


def changed(**claims: Any) -> dict[str, Any]:
    return {**STATEMENT.claims(), **claims}


def flow(**claims: Any) -> dict[str, Any]:
    return changed(flows=[{**BOTH.claims(), **claims}, ALONE.claims()])


WRONG = {
    "other totals": (changed(totals={**STATEMENT.totals.claims(), "bytes": 151}), "totals-differ"),
    "totals without a count": (changed(totals={"bytes": 150}), "claim-totals"),
    "a flow twice": (changed(flows=[BOTH.claims(), BOTH.claims()]), "flows-twice"),
    "too many flows": (changed(flows=[BOTH.claims()] * 129), "claim-flows"),
    "flows as an object": (changed(flows={}), "claim-flows"),
    "a flow that says both without a receipt": (flow(rcpt=None), "claim-flows"),
    "a flow with a receipt and no number": (flow(seq=0), "claim-flows"),
    "a flow with a receipt and no manifest": (flow(man=None), "claim-flows"),
    "a signed flow that says provider-only": (flow(attested="provider-only"), "claim-flows"),
    "a flow attested by somebody": (flow(attested="somebody"), "claim-flows"),
    "a flow with a float": (flow(bytes=100.0), "claim-flows"),
    "a flow with more": (flow(x=1), "claim-flows"),
    "an end before its beginning": (changed(to=NOW - 86_401), "claim-to"),
    "an issuer that is no DID": (changed(iss="hospital"), "claim-iss"),
    "a beginning in words": (changed(**{"from": "yesterday"}), "claim-from"),
    "an instant with a fraction": (changed(iat=NOW + 0.5), "claim-iat"),
    "an agreement that is no id": (changed(agr="a b"), "claim-agr"),
    "a note that does not end": (changed(led="own"), "claim-led"),
    "a note that is a number": (changed(peer=5), "claim-peer"),
    "one claim more": (changed(x=1), "claims-unknown"),
    "one claim less": ({name: value for name, value in STATEMENT.claims().items() if name != "led"}, "claims-missing"),
}


@pytest.mark.parametrize(("claims", "code"), WRONG.values(), ids=WRONG.keys())
def test_a_statement_that_does_not_hold_is_refused(claims: dict[str, Any], code: str):
    with pytest.raises(MeterRefused) as refused:
        Statement.of(claims)
    assert refused.value.code == code


OWN = replace(STATEMENT, issuer=CONSUMER, audience=PROVIDER, id="c1")


def test_both_sides_say_the_same_of_what_both_have_signed():
    compare(STATEMENT, OWN)
    compare(STATEMENT, replace(OWN, flows=(replace(ALONE, counts=Counts(49)), BOTH)))  # what nobody has signed is not compared
    compare(STATEMENT, replace(OWN, flows=(BOTH,)))  # nor need a consumer have heard of it
    assert contradicted(STATEMENT, OWN) == ()


DIFFERENT = {
    "of another participant": (replace(OWN, issuer="did:web:other.example"), "statement-parties"),
    "of this side": (STATEMENT, "statement-parties"),
    "of another agreement": (replace(OWN, agreement="urn:uuid:other"), "statement-agreement"),
    "of another period": (replace(OWN, ends=NOW + 1), "statement-agreement"),
    "without a flow": (replace(OWN, flows=(ALONE,)), "statement-flow"),
    "with a flow more": (replace(OWN, flows=(*OWN.flows, replace(BOTH, transfer="urn:uuid:3"))), "statement-flow"),
    "with other bytes": (replace(OWN, flows=(replace(BOTH, counts=Counts(101, 10, 1, 2, 3)), ALONE)), "statement-differs"),
    "with an earlier receipt": (replace(OWN, flows=(replace(BOTH, sequence=2, receipt=b"q" * 32), ALONE)), "statement-differs"),
    "under another manifest": (replace(OWN, flows=(replace(BOTH, manifest=b"m" * 32), ALONE)), "statement-differs"),
    "that knows of no receipt": (replace(OWN, flows=(replace(ALONE, transfer="urn:uuid:1"), ALONE)), "statement-differs"),
}


@pytest.mark.parametrize(("other", "code"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_differs_is_named(other: Statement, code: str):
    with pytest.raises(MeterRefused) as refused:
        compare(STATEMENT, other)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("flow", "found"),
    [
        (replace(BOTH, counts=Counts(101, 10, 1, 2, 3)), ("urn:uuid:1",)),
        (replace(BOTH, receipt=b"q" * 32), ("urn:uuid:1",)),
        (replace(BOTH, sequence=2, receipt=b"q" * 32), ()),  # it has not heard of the last one yet
        (replace(ALONE, transfer="urn:uuid:1"), ()),
        (replace(BOTH, transfer="urn:uuid:3"), ()),
    ],
)
def test_who_is_behind_contradicts_nobody(flow: Flow, found: tuple[str, ...]):
    other = replace(OWN, flows=(flow, ALONE))
    assert contradicted(STATEMENT, other) == contradicted(other, STATEMENT) == found


def test_a_flow_is_what_an_account_says():
    provider, consumer = both((), ((1, 5),))
    flow = flow_of(provider)
    assert flow == flow_of(consumer) == Flow("urn:uuid:provider-pid", flow.manifest, 2, flow.receipt, "both", provider.counts)


@pytest.mark.parametrize(
    ("signs", "counts", "apart"),
    [(0, 1_000_000, False), (0, 1_000_001, True), (100_000_000, 102_000_000, False), (100_000_000, 102_000_001, True), (9, 0, False)],
)
def test_two_clocks_may_be_a_second_or_a_fiftieth_apart_before_a_statement_says_so(signs: int, counts: int, apart: bool):
    receipt, ack = replace(RECEIPT, counts=Counts(microseconds=signs)), replace(ACK, microseconds=counts)
    if not apart:
        compare_time(receipt, ack)
        return
    with pytest.raises(MeterRefused) as refused:
        compare_time(receipt, ack)
    assert refused.value.code == "statement-time"


def test_two_statements_of_a_period_contradict_each_other_if_and_only_if_what_is_compared_of_them_differs():
    more, later = replace(BOTH, counts=Counts(101, 10, 1, 2, 3)), replace(BOTH, transfer=ALONE.transfer)
    said = [replace(STATEMENT, flows=flows) for flows in ((), (BOTH,), (ALONE, BOTH), (ALONE,), (more,), (later, BOTH), (later,))]
    said += [replace(STATEMENT, agreement="urn:uuid:other"), replace(STATEMENT, audience="did:web:other.example")]
    for own in said:
        for other in said:
            theirs = replace(other, issuer=CONSUMER, audience=PROVIDER if other.audience == CONSUMER else other.audience)
            apart = False
            try:
                compare(theirs, own)
            except MeterRefused:
                apart = True
            assert (agreed_in(theirs) != agreed_in(own)) is apart
