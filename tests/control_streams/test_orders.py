from typing import Any

import pytest

from connector.control_streams import orders
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import InvalidRequest, PeerFailed, PeerRefused, SinkFailed
from connector.odrl import Code
from connector.records import Pull
from connector.values import replace

ORDER = Pull("urn:pull", "did:web:a", "urn:dataset", "x", "download", transfer="urn:t2", earlier=("urn:t1",))
RUNNING = Process(Kind.TRANSFER, "urn:t2", Role.CONSUMER, "did:web:a", "https://a", "STARTED", peer_pid="urn:p", version=1)


def test_the_next_transfer_knows_all_that_have_brought_something_and_why_it_was_begun():
    assert orders.next_transfer(ORDER, "it ended") == {
        "transfer": None,
        "transfers": 1,
        "reasons": ("it ended",),
        "earlier": ("urn:t1", "urn:t2"),
    }
    assert orders.brought(replace(ORDER, transfer="urn:t1")) == ("urn:t1",)


def test_an_order_takes_over_what_one_that_failed_has_left_and_believes_no_digest_that_nobody_stated():
    left = replace(ORDER, stage="failed", validator='"v"', size_bytes=9, sha256=b"s", stated=False)
    taken = {"part": "urn:pull", "validator": '"v"', "size_bytes": 9, "earlier": ("urn:t1", "urn:t2")}
    assert orders.inherited(left) == taken | {"sha256": None}
    assert orders.inherited(replace(left, part="urn:first", stated=True)) == taken | {"part": "urn:first", "sha256": b"s"}


def test_the_record_has_the_name_of_the_file_and_not_its_place():
    said = orders.on_record(replace(ORDER, out="/disks/secret/x.bin", reasons=("why",)))
    assert said == {"pull": "urn:pull", "stage": "download", "dataset": "urn:dataset", "file": "x.bin", "reasons": ["why"]}


def test_an_order_of_a_range_is_another_than_that_of_the_whole_and_its_part_is_no_part_of_it():
    ranged = orders.ranged(ORDER, "bytes=05-9")
    assert (ranged.range, orders.ranged(ORDER, None)) == ("5-9", ORDER)
    assert orders.same(ranged, orders.ranged(ORDER, "5-9"))
    assert not orders.same(ranged, ORDER)
    assert len({orders.left_by(each) for each in (ORDER, ranged, orders.ranged(ORDER, "5-"))}) == 3


@pytest.mark.parametrize(
    ("said", "changed", "why"),
    [
        ("9-5", {}, "before it begins"),
        ("x", {}, "as in HTTP"),
        ("5-9", {"push": True}, "leave out"),
        ("5-9", {"most_bytes": 7}, "leave out"),
        ("5-9", {"until": 7.0}, "leave out"),
    ],
)
def test_what_is_no_range_or_goes_with_none_is_refused_with_its_field(said: str, changed: dict[str, Any], why: str):
    with pytest.raises(InvalidRequest, match=why) as refused:
        orders.ranged(replace(ORDER, **changed), said)
    assert refused.value.pointer == "/range"


@pytest.mark.parametrize(
    ("detail", "says"),
    [
        ({}, ("the transfer ended in TERMINATED and the peer gave no reason",)),
        ({"reasons": ["a"]}, ("a",)),
        ({"reasons": ["a"], "code": Code.QUOTA_EXHAUSTED}, ("a", "agreement `urn:g` is used up; no other is asked for unbidden")),
    ],
)
def test_an_order_that_fails_with_its_transfer_says_why(detail: dict[str, object], says: tuple[str, ...]):
    error = orders.failed_with("transfer", replace(RUNNING, state="TERMINATED", agreement="urn:g", detail=detail))
    assert len(error.reasons) == len(says)
    assert all(reason.startswith(said) for reason, said in zip(error.reasons, says, strict=True))


def test_who_has_suspended_the_transfer_of_an_order_is_not_who_has_refused_to_let_it_go_on():
    suspended = replace(RUNNING, state="SUSPENDED", detail={"ended_by": "peer", "reasons": ["a pause"]})
    assert orders.paused(suspended) == ("the provider has suspended the transfer: a pause",)
    ours = replace(suspended, halted=True)
    assert orders.paused(ours) == ("we have suspended the transfer, and the provider does not let it go on: a pause",)
    assert orders.paused(replace(ours, detail={})) == ("we have suspended the transfer: no reason was given",)
    assert orders.paused(RUNNING) == orders.paused(None) == ()


def test_parts_are_found_again_by_peer_dataset_and_file():
    keys = [orders.left_by(each) for each in (ORDER, replace(ORDER, out="y"), replace(ORDER, peer="b"), replace(ORDER, dataset="c"))]
    assert len(set(keys)) == 4
    assert orders.left_by(replace(ORDER, id="other", transfer=None)) == keys[0]


@pytest.mark.parametrize("name", ["peer", "dataset", "out", "purposes", "most_bytes", "until"])
def test_an_order_is_another_if_it_asks_for_something_else_and_not_if_it_asks_otherwise(name: str):
    assert orders.same(ORDER, replace(ORDER, id="other", parallel=4, stage="negotiate", transfer=None))
    assert not orders.same(ORDER, replace(ORDER, **{name: "another"}))


@pytest.mark.parametrize(
    ("changed", "stops"),
    [({}, False), ({"state": "SUSPENDED"}, True), ({"state": "TERMINATED"}, True), ({"last_accepted": "another"}, True)],
)
def test_a_download_stops_with_its_transfer_or_its_address(changed: dict[str, str], stops: bool):
    assert orders.moved_on(RUNNING, replace(RUNNING, **changed)) is stops  # type: ignore[arg-type]


def test_only_a_transfer_that_ended_by_its_quota_is_used_up():
    ended = replace(RUNNING, state="TERMINATED", detail={"code": Code.QUOTA_EXHAUSTED})
    assert orders.used_up(ended)
    assert not orders.used_up(replace(ended, detail={}))
    assert not orders.used_up(replace(ended, state="STARTED"))


def test_the_provider_hears_what_it_did_and_nothing_of_our_files():
    assert "no bytes" in orders.told(PeerFailed("no bytes"))
    assert "secret" not in orders.told(SinkFailed("disk of secret"))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (PeerFailed("x"), True),
        (PeerRefused("x", status=503), True),
        (PeerRefused("x", status=401, said="clocks-apart"), True),
        (PeerRefused("x", status=401), False),
        (PeerRefused("x", status=404), False),
    ],
)
def test_a_peer_that_may_answer_otherwise_is_asked_again(error: PeerFailed, passes: bool):
    assert orders.passes(error) is passes
