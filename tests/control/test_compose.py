"""That a decision to act becomes the right message to the right place, the row that delivers it, and the records that belong to it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from connector.control.compose import Sender, Times, agreement_of, due_of, faults, outgoing
from connector.control.policies import Policies
from connector.dsp import dcat, wire
from connector.dsp.exchange import INITIAL, TABLES, Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import IllegalMessage
from connector.ports import Act
from connector.records import Agreement
from connector.values import replace
from tests.metering_bills.priced import count, leaf, money, price
from tests.odrl_forms.shipped import options
from tests.pair import OPEN, SCHEMAS, purpose_policy

C, P = Role.CONSUMER, Role.PROVIDER
N, T = Kind.NEGOTIATION, Kind.TRANSFER
NOW = 1_800_000_000.5
TIMES = Times(delivery_seconds=100, step_seconds=200, approval_seconds=300)
US = Sender("did:web:us.example", "https://us.test/dsp", TIMES)
TERMS = OPEN | {"@id": "urn:o", "target": "urn:d"}
CALLBACK = "callbackAddress"


def process(kind: Kind, state: str, role: Role, **changed: Any) -> Process:
    detail = {"terms": TERMS, "format": dcat.FORMAT_PULL}
    made = Process(
        kind, "urn:ours", role, "did:web:peer.example", "https://peer.test/x", state, "urn:theirs",
        dataset="urn:d", agreement="urn:a", detail=detail, version=4,
    )  # fmt: skip
    return replace(made, **changed)


def compose(at: Process, act: Act) -> Any:
    return outgoing(at, act, US, id="urn:row", now=NOW, trace="trace", version=at.version + 1)


SENDABLE = [
    pytest.param(kind, state, role, move, id=f"{state}-{role}-{move}")
    for kind, table in TABLES.items()
    for state, row in table.items()
    for role, move in row
]


@pytest.mark.parametrize(("kind", "state", "role", "move"), SENDABLE)
def test_every_move_of_ours_becomes_a_valid_message_to_its_place(kind: Kind, state: str, role: Role, move: Move):
    first = state == INITIAL
    at = process(kind, state, role, peer_pid=None if first else "urn:theirs")
    out = compose(at, Act(move, code="X", reasons=("because",)))
    document = orjson.loads(out.outbound.body)
    if move is Move.START and role is P:  # the data address is minted for each attempt and added then
        document |= {"dataAddress": {"@type": "DataAddress", "endpointType": "urn:t", "endpoint": "https://us.test"}}
    assert SCHEMAS.reasons(move.type, document) == []
    assert (document.get("eventType"), document.get(CALLBACK)) == (move.event, US.callback if first else None)
    assert (document.get("consumerPid"), document.get("providerPid")) == (at.consumer_pid, at.provider_pid)
    row = out.outbound
    assert (row.id, row.pid, row.kind, row.peer, row.act, row.move) == ("urn:row", at.pid, kind, at.peer, "deliver", move)
    assert ("urn:theirs" in row.path) != first
    assert (row.due, row.deadline, row.created, row.trace) == (NOW, NOW + 100, NOW, "trace")
    assert (out.members["in_flight"], out.members["in_flight_id"], "state" in out.members) == (move, "urn:row", False)


@pytest.mark.parametrize("move", [Move.CONTRACT_TERMINATION, Move.TRANSFER_TERMINATION, Move.SUSPENSION])
def test_reasons_go_out_with_the_message_that_needs_them(move: Move):
    at = process(move.kind, "REQUESTED" if move is not Move.SUSPENSION else "STARTED", P)
    document = orjson.loads(compose(at, Act(move, code="X", reasons=("because",))).outbound.body)
    assert (document["code"], document["reason"]) == ("X", ["because"])
    bare = orjson.loads(compose(at, Act(move)).outbound.body)
    assert "code" not in bare
    assert "reason" not in bare, "an empty list is not valid"


def test_what_the_peer_is_told_at_the_end_is_what_an_operator_reads_here():
    out = compose(process(N, "OFFERED", C), Act(Move.CONTRACT_TERMINATION, code="X", reasons=("because",)))
    assert {k: out.members["detail"][k] for k in ("code", "reasons", "ended_by")} == {"code": "X", "reasons": ["because"], "ended_by": "us"}


def test_a_move_that_the_table_forbids_is_not_composed():
    with pytest.raises(IllegalMessage):
        compose(process(N, "REQUESTED", P), Act(Move.FINALIZED))
    with pytest.raises(IllegalMessage, match="still without an answer"):
        compose(process(T, "STARTED", P, in_flight=Move.SUSPENSION, in_flight_id="x"), Act(Move.COMPLETION))


def test_an_agreement_says_who_gives_what_to_whom_on_which_terms_and_when():
    terms = TERMS | {"prohibition": [{"action": "use"}], "assigner": "did:web:nobody", "@context": ["x"], "timestamp": "never"}
    out = compose(process(N, "ACCEPTED", P, detail={"terms": terms, "ends": 9.0}), Act(Move.CONTRACT_AGREEMENT))
    document = orjson.loads(out.outbound.body)["agreement"]
    assert document == {
        "@id": "urn:row",
        "@type": "Agreement",
        "target": "urn:d",
        "assigner": US.participant,
        "assignee": "did:web:peer.example",
        "timestamp": "2027-01-15T08:00:00Z",
        "permission": OPEN["permission"],
        "prohibition": [{"action": "use"}],
    }
    (agreed,) = out.saves
    assert isinstance(agreed, Agreement)
    assert (agreed.id, agreed.negotiation, agreed.peer, agreed.final) == ("urn:row", "urn:ours", "did:web:peer.example", False)
    assert (agreed.provider, agreed.consumer, agreed.dataset) == (US.participant, "did:web:peer.example", "urn:d")
    assert (agreed.document, agreed.digest, agreed.ends, agreed.created) == (document, wire.digest(document), 9.0, NOW)
    assert out.members["agreement"] == "urn:row"


def test_an_agreement_that_a_provider_sent_names_the_two_as_it_does():
    document = {"@id": "urn:a", "assigner": "did:web:peer.example", "assignee": US.participant, "target": "urn:d"}
    agreed = agreement_of(document, process(N, "AGREED", C), NOW, None)
    assert (agreed.provider, agreed.consumer, agreed.peer) == ("did:web:peer.example", US.participant, "did:web:peer.example")


def test_each_start_of_a_provider_ends_the_tokens_of_the_one_before():
    begun = process(T, "REQUESTED", P)
    first = replace(begun, **compose(begun, Act(Move.START)).members)
    assert first.detail["generation"] == 1
    again = compose(replace(first, state="SUSPENDED", in_flight=None), Act(Move.START)).members["detail"]
    assert again["generation"] == 2
    assert "detail" not in compose(process(T, "SUSPENDED", C), Act(Move.START)).members


def test_an_act_that_is_put_off_is_a_row_to_decide_and_changes_nothing_yet():
    at = process(N, "REQUESTED", P)
    out = compose(at, Act(Move.CONTRACT_TERMINATION, 7.0, "X", ("because",)))
    assert out.members == {"version": 5, "updated": NOW}, "but that it was written"
    assert out.saves == ()
    row = out.outbound
    assert (row.act, row.move, row.due, row.deadline) == ("decide", Move.CONTRACT_TERMINATION, NOW + 7, NOW + 107)
    assert orjson.loads(row.body) == {"version": 5, "code": "X", "reasons": ["because"], "grounds": []}


@pytest.mark.parametrize(
    ("at", "due"),
    [
        pytest.param(process(N, "OFFERED", C, detail={"waiting": "approval"}), NOW + 300, id="our operator's turn"),
        pytest.param(process(N, "REQUESTED", P, detail={"waiting": "approval"}), NOW + 300, id="or as provider"),
        pytest.param(process(N, "OFFERED", P), NOW + 300 + 200, id="the peer's operator may decide, and then its word has to come here"),
        pytest.param(process(N, "REQUESTED", C), NOW + 300 + 200, id="or as consumer"),
        pytest.param(process(T, "REQUESTED", C), NOW + 300 + 200, id="also about the start of a transfer"),
        pytest.param(process(N, "ACCEPTED", C), NOW + 200, id="who offered has decided"),
        pytest.param(process(N, "AGREED", P), NOW + 200, id="a verification is a machine's"),
        pytest.param(process(N, "VERIFIED", C), NOW + 200, id="and so is the end"),
        pytest.param(process(N, "OFFERED", P, in_flight=Move.CONTRACT_OFFER), None, id="in flight: the row has a deadline"),
        pytest.param(process(N, "FINALIZED", P), None, id="over"),
        *(
            pytest.param(process(kind, state, role), NOW + 300, id=f"a dead letter of the {role} in {state} {kind}")
            for kind, state, role in (
                (N, "INITIAL", C),
                (N, "INITIAL", P),
                (N, "REQUESTED", P),
                (N, "OFFERED", C),
                (N, "ACCEPTED", P),
                (N, "AGREED", C),
                (N, "VERIFIED", P),
                (T, "INITIAL", C),
                (T, "REQUESTED", P),
            )
        ),
        pytest.param(process(T, "STARTED", P), None, id="a transfer without a bound runs"),
        pytest.param(process(T, "STARTED", P, detail={"ends": 9.0}), 9.0, id="to the bound of its policy"),
        pytest.param(process(T, "STARTED", P, detail={"ends": 9.0, "covered": 8.0}), 8.0, id="or to its quiet time"),
        pytest.param(
            process(T, "SUSPENDED", P, detail={"ends": 9.0, "covered": 8.0}), 9.0, id="which does not count while it is suspended"
        ),
        pytest.param(
            process(T, "STARTED", P, detail={"ends": 9.0, "claims_expire": 7.0}), 7.0, id="or while somebody vouches for the peer"
        ),
        pytest.param(process(T, "SUSPENDED", P, detail={"ends": 9.0, "claims_expire": 7.0}), 9.0, id="which matters while it runs"),
        pytest.param(process(T, "SUSPENDED", P, detail={"ends": 9.0, "returns": 6.0}), 6.0, id="it may come back"),
        pytest.param(process(T, "STARTED", P, detail={"ends": 9.0, "returns": 6.0}), 9.0, id="if it is away"),
        pytest.param(process(T, "STARTED", P, halted=True, detail={"claims_expire": 7.0, "again": 5.0}), 5.0, id="something is to be said"),
        pytest.param(
            process(T, "SUSPENDED", P, in_flight=Move.START, detail={"ends": 9.0, "claims_expire": 7.0, "again": 5.0}),
            7.0,
            id="a start on its way gives access already; what is to be said after it waits for it",
        ),
        pytest.param(process(T, "REQUESTED", P, in_flight=Move.START, detail={"ends": 9.0}), 9.0, id="the first one too"),
        pytest.param(
            process(T, "STARTED", P, in_flight=Move.COMPLETION, detail={"ends": 9.0}), None, id="an end on its way needs no other"
        ),
        pytest.param(process(T, "STARTED", C, detail={"ends": 9.0}), None, id="the provider minds the bound"),
    ],
)
def test_somebody_looks_again_when_a_step_has_taken_its_time(at: Process, due: float | None):
    assert due_of(at, TIMES, NOW) == due


CARE, STUDY = "urn:p:care", "urn:p:study"
ASKED = purpose_policy(CARE)
END = leaf("odrl:dateTime", "lt", {"@value": "2027-01-01T00:00:00Z", "@type": "xsd:dateTime"})


def found(agreed: dict[str, Any], *, asked: dict[str, Any] = ASKED, **detail: Any) -> tuple[str, ...]:
    """What is wrong about an agreement over `agreed`, after a request for `asked`."""
    said = {"terms": asked | {"@id": "urn:o", "@type": "Offer", "target": "urn:d"}, "accept": "permitted"} | detail
    parties = {"target": "urn:d", "assigner": "did:web:peer.example", "assignee": US.participant, "timestamp": "2026-11-27T12:00:00Z"}
    policies = Policies(options())
    read = policies.read(parties | agreed | {"@id": "urn:a", "@type": "Agreement"})
    began = datetime(2026, 11, 27, 9, tzinfo=UTC).timestamp()
    return asyncio.run(faults(process(N, "REQUESTED", C, detail=said, created=began), read, policies, US.participant, began + 86_400))


WIDER = [purpose_policy(CARE, STUDY), OPEN]


@pytest.mark.parametrize("agreed", [ASKED, *WIDER])
def test_where_whatever_permits_will_do_so_will_an_agreement_that_gives_more_than_was_asked_for(agreed: dict[str, Any]):
    assert found(agreed) == ()


@pytest.mark.parametrize("accept", ["same", "operator"])
@pytest.mark.parametrize("agreed", WIDER)
def test_who_wanted_the_same_or_to_be_asked_gets_nothing_else(agreed: dict[str, Any], accept: str):
    assert found(agreed, accept=accept)[0] == "the terms differ from the last offer"
    assert found(ASKED, accept=accept) == ()


@pytest.mark.parametrize(
    "agreed",
    [
        purpose_policy(STUDY),
        OPEN | {"prohibition": [{"action": "use"}]},
        OPEN | {"obligation": [{"action": "odrl:delete"}]},
        {"permission": [{"action": "use", "duty": [{"action": "odrl:inform"}]}]},
        {"permission": [{"action": "odrl:read"}]},
        {"permission": [{"action": "use", "constraint": [{"leftOperand": "edc:location", "operator": "eq", "rightOperand": "EU"}]}]},
        purpose_policy(CARE)
        | {"permission": purpose_policy(CARE)["permission"] + [{"action": "use", "target": "urn:x"}], "profile": "urn:y"},
    ],
    ids=["less", "a prohibition", "an obligation", "a duty", "another action", "what is not understood", "an unknown profile"],
)
def test_an_agreement_that_gives_less_or_asks_more_is_refused_with_the_difference(agreed: dict[str, Any]):
    assert found(agreed)[0] == "the terms differ from the last offer"


BARRED = OPEN | {"prohibition": [{"action": "odrl:distribute"}]}


def test_a_remedy_that_was_not_asked_for_is_one_thing_more_that_we_would_owe():
    owing = {"prohibition": [{"action": "odrl:distribute", "odrl:remedy": [{"action": "odrl:delete"}]}]}
    assert found(OPEN | owing, asked=BARRED)[0] == "the terms differ from the last offer"
    assert found(OPEN, asked=BARRED) == ()


@pytest.mark.parametrize("bound", [money("9", operator="lteq"), count("lteq", 9), END], ids=["a budget", "a quota", "an end"])
def test_where_what_is_used_is_paid_for_an_agreement_keeps_the_bound_of_what_we_may_owe(bound: dict[str, Any]):
    def at_a_price(*constraints: dict[str, Any]) -> dict[str, Any]:
        return {"permission": [{"action": "use", "constraint": list(constraints), "duty": [price("1", "record")]}]}

    asked = at_a_price(bound)
    assert found(at_a_price(), asked=asked)[0] == "the terms differ from the last offer"
    assert found(asked, asked=asked) == ()


def test_an_agreement_that_gives_more_stays_within_the_acceptance_templates():
    assert found(WIDER[0], acceptance=[OPEN | {"@id": "urn:t", "@type": "Offer"}]) == ()
    assert found(WIDER[0], acceptance=[ASKED | {"@id": "urn:t", "@type": "Offer"}])[0] == "the terms differ from the last offer"


def test_whoever_and_whatever_it_is_about_is_ours_also_where_it_gives_more():
    said = found(OPEN | {"target": "urn:other", "assignee": "did:web:stranger.example", "timestamp": "today"})
    assert [each.split(" ")[0] for each in said[:2]] == ["target", "assignee"]
    assert said[2] == "the agreement has no timestamp in the form of an XSD dateTime"


@pytest.mark.parametrize(
    ("timestamp", "good"),
    [
        ("2026-11-27T09:00:00Z", True),
        ("2026-11-28T08:59:59.5Z", True),
        ("2026-11-27T17:00:00+08:00", True),
        ("2026-11-27T23:00:00", True),  # of whatever zone
        ("2026-11-26T10:00:00Z", True),
        ("2026-11-25T10:00:00Z", False),
        ("2026-11-29T10:00:00Z", False),
        ("1900-01-01T00:00:00Z", False),
        ("2099-01-01T00:00:00Z", False),
        ("99999-01-01T00:00:00Z", False),
        ("-0001-01-01T00:00:00Z", False),
        ("2026-11-31T00:00:00Z", False),
    ],
)
def test_an_agreement_is_dated_between_the_begin_of_its_negotiation_and_now(timestamp: str, good: bool):
    said = found(ASKED | {"timestamp": timestamp})
    assert said == (() if good else (f"the agreement is dated `{timestamp}`, and was made between the begin of its negotiation and now",))
