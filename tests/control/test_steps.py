"""That one step of a process is one value, whoever asks for it, and that an approver has its say exactly where it has one."""

from typing import Any

import orjson
import pytest

from connector import telemetry
from connector.control.compose import Sender, Times
from connector.control.negotiate import Reaction
from connector.control.steps import Steps, fact
from connector.dsp.exchange import INITIAL, Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import IllegalMessage
from connector.metering.content import digest_of, write_bytes
from connector.ports import Act
from connector.records import Agreement, Changes, Edr, Expect, Inbox
from connector.values import replace
from tests.dataplane.rig import Counted
from tests.pair import OPEN

C, P = Role.CONSUMER, Role.PROVIDER
N, T = Kind.NEGOTIATION, Kind.TRANSFER
NOW = 1_800_000_000.5
TIMES = Times(delivery_seconds=100, step_seconds=200, approval_seconds=300)


class Says:
    """An approver with a fixed answer, that remembers what it was asked."""

    def __init__(self, *answers: Act | None) -> None:
        self.answers, self.asked = list(answers), list[Act | None]()

    def next_act(self, _process: Process, proposed: Act | None) -> Act | None:
        self.asked.append(proposed)
        return self.answers.pop(0) if self.answers else proposed


def steps(approver: Says | None = None) -> Steps:
    return Steps(approver or Says(), Counted(), Sender("did:web:us.example", "https://us.test/dsp", TIMES))


def process(kind: Kind = N, state: str = "REQUESTED", role: Role = P, **changed: Any) -> Process:
    detail = {"terms": OPEN | {"@id": "urn:o", "target": "urn:d"}, "format": "HttpData-PULL"}
    made = Process(
        kind, "urn:ours", role, "did:web:peer.example", "https://peer.test", state, "urn:theirs",
        dataset="urn:d", agreement="urn:a", detail=detail, version=4,
    )  # fmt: skip
    return replace(made, **changed)


def saved(changes: Changes) -> Process:
    (found,) = [each for each in changes.saves if isinstance(each, Process)]
    return found


def test_a_step_expects_what_it_was_decided_on_and_saves_the_next_version():
    before = process()
    changes = steps().changes(before, Reaction(before), NOW)
    assert changes.expects == (Expect(Process, "urn:ours", 4),)
    assert (saved(changes).version, saved(changes).updated) == (5, NOW)
    new = steps().changes(None, Reaction(process(version=0)), NOW)
    assert new.expects == (Expect(Process, "urn:ours", None),)
    assert saved(new).version == 1


def test_everything_of_a_step_is_in_one_value():
    before, other = process(), Expect(Agreement, "urn:x", None)
    inbox = Inbox("urn:ours", Move.CONTRACT_REQUEST, b"d", b"body", 200, b"answer", NOW)
    note = fact(telemetry.RECEIVED, before, NOW)
    reaction = Reaction(before, Act(Move.CONTRACT_AGREEMENT), expects=(other,))
    changes = steps().changes(before, reaction, NOW, evidence=(note,), settled=("urn:row", None), inbox=inbox)
    assert changes.expects[1:] == (other,)
    (row,) = changes.outbox
    assert [type(each) for each in changes.saves] == [Process, Agreement, Inbox]
    assert saved(changes).in_flight_id == row.id
    assert changes.settled == ("urn:row",)
    assert [(e.what, e.move) for e in changes.evidence] == [(telemetry.RECEIVED, None), (telemetry.SENT, Move.CONTRACT_AGREEMENT)]


def test_an_approver_sees_what_is_proposed_and_its_word_counts():
    before, proposed = process(), Act(Move.CONTRACT_AGREEMENT)
    approver = Says(Act(Move.CONTRACT_OFFER))
    changes = steps(approver).changes(before, Reaction(before, proposed), NOW)
    assert approver.asked == [proposed]
    assert saved(changes).in_flight is Move.CONTRACT_OFFER
    held = steps(Says(None)).changes(before, Reaction(before, proposed), NOW)
    assert (saved(held).in_flight, held.outbox) == (None, ())


@pytest.mark.parametrize(
    ("at", "ask"),
    [
        pytest.param(process(), False, id="operators and timers have been asked already"),
        pytest.param(process(state="FINALIZED"), True, id="what is over needs no act"),
        pytest.param(process(in_flight=Move.CONTRACT_OFFER, in_flight_id="x"), True, id="something is in flight"),
    ],
)
def test_an_approver_is_not_asked_where_it_has_no_say(at: Process, ask: bool):
    approver = Says(Act(Move.CONTRACT_TERMINATION))
    changes = steps(approver).changes(at, Reaction(at), NOW, ask=ask)
    assert approver.asked == []
    assert changes.outbox == ()


def test_an_approver_that_says_what_the_table_forbids_changes_nothing():
    with pytest.raises(IllegalMessage):
        steps(Says(Act(Move.FINALIZED))).changes(process(), Reaction(process()), NOW)


def test_a_refusal_is_explained_on_both_sides():
    before = process()
    changes = steps().changes(before, Reaction(before, Act(Move.CONTRACT_TERMINATION, code="X", reasons=("because",))), NOW)
    message = orjson.loads(changes.outbox[0].body)
    assert (message["code"], message["reason"]) == ("X", ["because"])
    after = saved(changes)
    assert (after.detail["code"], after.detail["reasons"], after.detail["ended_by"]) == ("X", ["because"], "us")
    assert changes.evidence[-1].detail == {"code": "X", "reasons": ["because"], "nth": 1, "evidence": 3}


def test_waiting_for_an_operator_is_put_on_record_once_and_has_its_deadline():
    before = process()
    waiting = replace(before, detail=dict(before.detail) | {"waiting": "approval"})
    changes = steps().changes(before, Reaction(waiting), NOW)
    assert [e.what for e in changes.evidence] == [telemetry.WAITING]
    assert saved(changes).due == NOW + 300
    assert steps().changes(waiting, Reaction(waiting), NOW).evidence == ()


def test_what_we_put_off_ourselves_is_not_time_that_the_peer_took():
    before = process()
    changes = steps().changes(before, Reaction(before, Act(Move.CONTRACT_AGREEMENT, 50.0)), NOW)
    assert changes.outbox[0].act == "decide"
    assert changes.evidence == (), "nothing has been said yet"
    assert saved(changes).due == NOW + 50 + 300
    assert orjson.loads(changes.outbox[0].body)["version"] == saved(changes).version, "it counts as long as nothing has changed"


@pytest.mark.parametrize("kind", list(Kind))
def test_an_end_from_this_side_overrules_what_is_in_flight_and_says_why(kind: Kind):
    state, flying = ("REQUESTED", Move.CONTRACT_OFFER) if kind is N else ("STARTED", Move.SUSPENSION)
    before = process(kind, state, in_flight=flying, in_flight_id="urn:flying")
    before = replace(before, detail=dict(before.detail) | {"waiting": "approval"})
    changes = steps().end(before, "deadline", "it took too long", NOW)
    assert changes.settled == ("urn:flying",)
    (row,) = changes.outbox
    assert row.move.termination
    assert (orjson.loads(row.body)["code"], orjson.loads(row.body)["reason"]) == ("deadline", ["it took too long"])
    after = saved(changes)
    assert (after.in_flight, after.detail["code"], after.detail["reasons"]) == (row.move, "deadline", ["it took too long"])
    assert "waiting" not in after.detail


def test_a_process_that_no_peer_knows_of_just_ends_here():
    before = process(state=INITIAL, role=C, peer_pid=None, in_flight=Move.CONTRACT_REQUEST, in_flight_id="urn:flying")
    changes = steps().end(before, "operator", "never mind", NOW)
    assert (saved(changes).state, saved(changes).in_flight, changes.outbox) == ("TERMINATED", None, ())
    assert changes.settled == ("urn:flying",)
    assert [(e.what, e.detail["code"]) for e in changes.evidence] == [(telemetry.ENDED, "operator")]
    assert saved(changes).due is None


def test_evidence_carries_the_trace_of_what_caused_it():
    token = telemetry.traceparent.set(f"00-{'a' * 32}-{'b' * 16}-01")
    try:
        before = process()
        changes = steps().changes(before, Reaction(before, Act(Move.CONTRACT_AGREEMENT)), NOW, evidence=(fact("x", before, NOW),))
    finally:
        telemetry.traceparent.reset(token)
    assert [e.detail["trace"] for e in changes.evidence] == ["a" * 32] * 2
    assert changes.outbox[0].trace == f"00-{'a' * 32}-{'b' * 16}-01"
    assert fact("x", before, NOW).detail == {}


@pytest.mark.parametrize(
    ("kind", "role", "state", "gone"),
    [
        (T, C, "COMPLETED", True),
        (T, C, "TERMINATED", True),
        (T, C, "SUSPENDED", False),
        (T, C, "STARTED", False),
        (T, P, "COMPLETED", False),
        (N, C, "FINALIZED", False),
    ],
)
def test_the_tokens_of_a_transfer_go_with_the_step_that_ends_it(kind: Kind, role: Role, state: str, gone: bool):
    before = process(kind, "STARTED" if kind is T else "VERIFIED", role)
    changes = steps().changes(before, Reaction(replace(before, state=state)), NOW)
    assert changes.deletes == (((Edr, before.pid),) if gone else ())


def test_the_first_fact_of_a_step_holds_the_digests_of_what_the_step_has_put_on_record():
    before = process()
    decision = {"result": "permit", "until": 1.0}
    decided = replace(before, detail=dict(before.detail) | {"decision": decision})
    note = fact(telemetry.RECEIVED, before, NOW, code="x")
    changes = steps().changes(before, Reaction(decided, Act(Move.CONTRACT_AGREEMENT)), NOW, evidence=(note,))
    (agreement,) = [each for each in changes.saves if isinstance(each, Agreement)]
    digests = {"decision": write_bytes(digest_of(decision)), "agreement": write_bytes(digest_of(agreement.document))}
    first, *others = changes.evidence
    assert first == replace(note, detail={"code": "x", "digests": digests, "nth": 1, "evidence": 3})
    assert [each.what for each in others] == [telemetry.SENT]
    assert "digests" not in others[0].detail
    begun = steps().changes(None, Reaction(before, Act(Move.CONTRACT_OFFER)), NOW)
    assert begun.evidence[0].detail["digests"] == {"terms": write_bytes(digest_of(before.detail["terms"]))}


def test_a_decision_that_changes_alone_is_a_fact_and_what_is_as_it_was_is_none():
    before = process(T, "STARTED", detail={"decision": {"result": "permit"}})
    assert steps().changes(before, Reaction(replace(before, detail=dict(before.detail) | {"x": 1})), NOW).evidence == ()
    after = replace(before, detail={"decision": {"result": "deny"}})
    (told,) = steps().changes(before, Reaction(after), NOW, ask=False).evidence
    assert (told.what, told.detail) == (
        telemetry.DECIDED_AGAIN,
        {"digests": {"decision": write_bytes(digest_of({"result": "deny"}))}, "nth": 1, "evidence": 3},
    )
    (ended,) = steps().end(after, "DENIED", "no", NOW, stored=before).evidence
    assert ended.detail["digests"] == told.detail["digests"], "a transfer that ends by a new decision is bound to that"


def test_what_jcs_cannot_say_has_no_digest_and_stops_no_step():
    before = process()
    after = replace(before, detail=dict(before.detail) | {"decision": {"n": 2**53}})
    assert steps().changes(before, Reaction(after), NOW).evidence == ()


def test_the_facts_of_a_process_are_numbered_from_step_to_step_and_those_of_a_step_that_led_to_its_end_too():
    before = process(detail={"terms": OPEN})
    first = steps().changes(before, Reaction(before), NOW, evidence=(fact(telemetry.RECEIVED, before, NOW),) * 2)
    assert [each.detail["nth"] for each in first.evidence] == [1, 2]
    quiet = saved(steps().changes(saved(first), Reaction(saved(first)), NOW))
    decided = replace(quiet, detail=quiet.detail | {"decision": {"result": "deny"}})
    ended = steps().end(decided, "deadline", "late", NOW, stored=quiet, because=(fact(telemetry.EXPIRED, quiet, NOW),))
    assert [(each.what, each.detail["nth"]) for each in ended.evidence] == [(telemetry.EXPIRED, 3), (telemetry.SENT, 4)]
    assert saved(ended).detail["facts"] == 4
