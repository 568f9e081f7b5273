"""`connector negotiations`, `transfers`, `show`, `approve`, `terminate`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.dsp.messages import Kind
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.fake_connector import FakeConnector, event, problem, process_view, pull_view

KIND = ("GET", "/v1/processes/urn%3Auuid%3An1")
N, T = "/v1/negotiations/urn%3Auuid%3An1", "/v1/transfers/urn%3Auuid%3An1"
EVIDENCE = "/v1/processes/urn%3Auuid%3An1/evidence"
NEGOTIATION, TRANSFER = ((200, {"kind": kind, "pid": "urn:uuid:n1"}) for kind in ("negotiation", "transfer"))


def record(*events: bytes) -> tuple[int, dict[str, object]]:
    return 200, {"items": [json.loads(e.partition(b"data: ")[2]) for e in events], "next": None}


@pytest.mark.parametrize("collection", ["negotiations", "transfers"])
def test_a_list_says_whose_turn_it_is_and_why(
    command: Command, fake: FakeConnector, home: Path, collection: str, golden: Callable[[str, str], None]
):
    items = [
        process_view(role="provider", waiting="approval"),
        process_view(pid="urn:uuid:n0", state="TERMINATED", waiting=None, reasons=["purpose `resale` is not allowed"], dataset=None),
        process_view(
            pid="urn:uuid:n3", state="TERMINATED", waiting=None, decision={"result": "unknown", "reason": ["`mood` is not known"]}
        ),
        process_view(pid="urn:uuid:n4", decision={"result": "permit", "reason": ["permitted"]}),
        process_view(pid="urn:uuid:n2", last_error="connection refused\x1b[31m"),
    ]
    fake.answers[("GET", f"/v1/{collection}")] = (200, {"items": items, "next": "c"})
    ended = command(collection, "--state", "requested", "--peer", "hospital")
    golden("processes", ended.out)
    assert ended.err == "only the newest 5 are listed\n"
    assert fake.asked[0].path == f"/v1/{collection}?state=REQUESTED&peer=hospital"
    assert len(json.loads(command(collection, "--json").out)["items"]) == 5


def test_an_empty_list_says_so(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", "/v1/transfers")] = (200, {"items": [], "next": None})
    assert command("transfers").err == "no transfers\n"


def agreement_view(**changed: object) -> dict[str, object]:
    sides = {"peer": "did:web:hospital.example", "provider": "did:web:hospital.example", "consumer": "did:web:biopharma.example"}
    terms = {"document": {"permission": [{"action": "use"}]}, "ends": "2031-01-01T00:00:00.000Z"}
    state = {"final": True, "closed": None, "closed_by": None, "reason": None}
    return {"id": "urn:uuid:a1", "dataset": "urn:d", "negotiation": "urn:uuid:n1"} | sides | terms | state | changed


CLOSED = agreement_view(closed="2030-01-01T00:00:00.000Z", closed_by="us", reason="the study is over")


def test_agreements_are_listed_shown_and_closed_with_a_reason(
    command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]
):
    items = [agreement_view(id="urn:uuid:a3", final=False, ends=None), agreement_view(), CLOSED]
    fake.answers |= {
        ("GET", "/v1/agreements"): (200, {"items": items, "next": "c"}),
        ("GET", "/v1/agreements/urn%3Auuid%3Aa1"): (200, agreement_view()),
        ("POST", "/v1/agreements/urn%3Auuid%3Aa1/close"): (200, CLOSED),
    }
    listed = command("agreements", "--peer", "hospital", "--dataset", "urn:d")
    assert (fake.asked[-1].path, listed.err) == ("/v1/agreements?peer=hospital&dataset=urn:d", "only the newest 3 are listed\n")
    shown, closed = (
        command("agreements", "show", "urn:uuid:a1"),
        command("agreements", "close", "urn:uuid:a1", "--reason", "the study is over"),
    )
    assert fake.asked[-1].body == {"reason": "the study is over"}
    golden("agreements", listed.out + "\n" + shown.out + "\n" + closed.out)
    assert json.loads(command("agreements", "close", "urn:uuid:a1", "--json").out)["closed_by"] == "us"
    assert len(json.loads(command("agreements", "--json").out)["items"]) == 3


@pytest.mark.parametrize(
    ("by", "closing", "refused", "says"),
    [
        ("us", "both", None, "both sides have it in writing"),
        ("peer", "both", None, "both sides have it in writing"),
        ("us", "provider-only", None, "the peer has not signed that it has taken it: this instant is our word alone"),
        ("us", "consumer-only", {"code": "closing-twice", "says": "no"}, "the peer does not take it (closing-twice: no): this instant"),
        ("peer", "consumer-only", None, "the peer has said so and signed no instant"),
    ],
)
def test_who_closes_reads_whether_the_peer_has_been_told(
    command: Command, fake: FakeConnector, home: Path, by: str, closing: str, refused: object, says: str
):
    fake.answers[("POST", "/v1/agreements/urn%3Auuid%3Aa1/close")] = (
        200,
        CLOSED | {"closed_by": by, "closing": closing, "closing_refused": refused},
    )
    assert says in command("agreements", "close", "urn:uuid:a1").out


def test_a_performed_duty_is_recorded_with_what_it_came_to(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {("POST", "/v1/agreements/urn%3Auuid%3Aa1/performances"): (201, agreement_view())}
    paid = ("--duty", "/permission/0/duty/0", "--by", "did:web:b", "--amount", "urn:x=5.00")
    assert command("agreements", "perform", "urn:uuid:a1", *paid).code == 0
    assert fake.asked[-1].body == {"duty": "/permission/0/duty/0", "by": "did:web:b", "amounts": {"urn:x": "5.00"}}


@pytest.mark.parametrize(
    ("arguments", "remedy"), [((), "--duty POINTER"), (("--duty", "/obligation/0", "--amount", "5.00"), "OPERAND=NUMBER")]
)
def test_a_performance_that_is_not_understood_is_said_and_nothing_is_asked(
    command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], remedy: str
):
    ended = command("agreements", "perform", "urn:uuid:a1", *arguments)
    assert (ended.code, remedy in ended.err, fake.asked) == (1, True, [])


@pytest.mark.parametrize("arguments", [("end", "urn:uuid:a1"), ("close",), ("show",)])
def test_an_act_on_agreements_that_is_none_is_said_and_nothing_is_asked(
    command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...]
):
    ended = command("agreements", *arguments)
    assert (ended.code, "write `show ID`, `close ID`" in ended.err, fake.asked) == (1, True, [])


@pytest.mark.parametrize(
    "arguments", [("show", "urn:uuid:n1"), ("negotiations", "show", "urn:uuid:n1"), ("transfers", "show", "urn:uuid:n1")]
)
def test_a_process_is_shown_in_full(
    command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], golden: Callable[[str, str], None]
):
    view = process_view(
        state="TERMINATED",
        waiting=None,
        ended_by="peer",
        reasons=["purpose `resale` is not allowed", "see \x1b[1mour terms"],
        terms={"permission": [{"action": "use"}]},
        decision={"result": "deny", "code": "CONSTRAINT_UNSATISFIED", "reason": ["purpose is not research"], "rules": [{}]},
    )
    fake.answers |= {KIND: (200, {"kind": "negotiation", "pid": "urn:uuid:n1"}), ("GET", N): (200, view)}
    fake.answers[("GET", EVIDENCE)] = record(
        event(7, "message-sent", state="REQUESTED", move="request"),
        event(8, "message-received", state="TERMINATED"),
        event(9, "pull", detail={"pull": "urn:uuid:p1", "stage": "failed"}),
    )
    ended = command(*arguments)
    assert ended.code == 0
    golden("show", ended.out)
    assert json.loads(command(*arguments, "--json").out)["process"]["ended_by"] == "peer"


def test_a_process_that_waits_for_a_duty_shows_how_it_is_fulfilled(command: Command, fake: FakeConnector, home: Path):
    how = {"action": ["http://www.w3.org/ns/odrl/2/inform"], "by": "did:web:bio.example", "target": ["urn:d"]}
    grounds = [{"code": "DUTY_NOT_FULFILLED", "rule": "/permission/0", "path": "/permission/0/duty/0", "how_to_fulfil": how}]
    view = process_view(state="TERMINATED", waiting=None, ended_by="peer", reasons=["first inform"], grounds=grounds)
    fake.answers |= {KIND: (200, {"kind": "negotiation", "pid": "urn:uuid:n1"}), ("GET", N): (200, view), ("GET", EVIDENCE): record()}
    assert "    to be on record: inform on urn:d by did:web:bio.example\n" in command("negotiations", "show", "urn:uuid:n1").out
    assert json.loads(command("show", "urn:uuid:n1", "--json").out)["process"]["grounds"] == grounds


def test_a_transfer_is_shown_without_a_call_that_is_refused(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {KIND: TRANSFER, ("GET", T): (200, process_view(state="STARTED")), ("GET", EVIDENCE): record()}
    assert "STARTED" in command("show", "urn:uuid:n1").out
    assert fake.paths() == ["GET /v1/processes/urn%3Auuid%3An1", f"GET {T}", f"GET {EVIDENCE}"]


def test_a_pid_that_is_nothing_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[KIND] = (404, problem(404, "not-found", "there is no negotiation or transfer `urn:uuid:n1`"))
    ended = command("show", "urn:uuid:n1")
    assert ended.code == 1
    assert ended.err.startswith("connector: there is no negotiation or transfer `urn:uuid:n1`; ")


@pytest.mark.parametrize("arguments", [("negotiations", "list"), ("negotiations", "show")])
def test_what_is_not_understood_names_what_is(command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...]):
    ended = command(*arguments)
    assert ended.code == 1
    assert "write `show PID`" in ended.err
    assert fake.asked == []


def test_approve_is_one_call(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", f"{N}/approve")] = (200, process_view(state="AGREED"))
    ended = command("approve", "urn:uuid:n1")
    assert "AGREED" in ended.out
    assert fake.paths() == [f"POST {N}/approve"]


def test_what_cannot_be_approved_says_why(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", f"{N}/approve")] = (
        409,
        problem(409, "contradiction", "negotiation `urn:uuid:n1` is FINALIZED and waits for nobody"),
    )
    ended = command("approve", "urn:uuid:n1")
    assert (ended.code, ended.err) == (1, "connector: negotiation `urn:uuid:n1` is FINALIZED and waits for nobody\n")


def test_terminate_tells_the_reason(command: Command, fake: FakeConnector, home: Path):
    fake.answers[KIND] = NEGOTIATION
    fake.answers[("POST", f"{N}/terminate")] = (200, process_view(state="TERMINATED"))
    assert command("terminate", "urn:uuid:n1", "--reason", "withdrawn").code == 0
    assert fake.bodies("POST", f"{N}/terminate") == [{"reason": "withdrawn"}]


def test_terminate_finds_a_transfer(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {KIND: TRANSFER, ("POST", f"{T}/terminate"): (200, process_view(state="TERMINATED"))}
    assert json.loads(command("terminate", "urn:uuid:n1", "--json").out)["state"] == "TERMINATED"
    assert fake.bodies("POST", f"{T}/terminate") == [{}]
    assert fake.bodies("POST", f"{N}/terminate") == [], "nothing that is refused is asked on the way"


def test_terminate_does_not_go_on_after_another_error(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {KIND: NEGOTIATION, ("POST", f"{N}/terminate"): (409, problem(409, "contradiction", "it is over"))}
    assert command("terminate", "urn:uuid:n1").code == 1
    assert fake.paths()[1:] == [f"POST {N}/terminate"]


SIDES = ("id", "peer", "dataset", "provider", "consumer")
LATEST = {
    ("GET", "/v1/negotiations"): (200, {"items": [process_view(pid="n9", created="2026-01-31T12:00:01.000Z")], "next": "c"}),
    ("GET", "/v1/transfers"): (200, {"items": [process_view(pid="t9", created="2026-01-31T12:00:02.000Z")], "next": "c"}),
    ("GET", "/v1/agreements"): (200, {"items": [dict.fromkeys(SIDES, "a9") | {"document": {}}]}),
    ("GET", "/v1/pulls"): (200, {"items": [pull_view("download", id="p9")], "next": None}),
    ("GET", "/v1/processes/n9"): (200, {"kind": "negotiation", "pid": "n9"}),
    ("GET", "/v1/processes/t9"): (200, {"kind": "transfer", "pid": "t9"}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("show", "latest"), "GET /v1/transfers/t9"),
        (("negotiations", "show", "latest"), "GET /v1/negotiations/n9"),
        (("transfers", "show", "latest"), "GET /v1/transfers/t9"),
        (("explain", "latest"), "GET /v1/transfers/t9/decision?lang=en"),
        (("approve", "latest"), "POST /v1/negotiations/n9/approve"),
        (("terminate", "latest"), "POST /v1/transfers/t9/terminate"),
        (("transfers", "address", "latest"), "GET /v1/transfers/t9/edr"),
        (("transfers", "suspend", "latest"), "POST /v1/transfers/t9/suspend"),
        (("transfers", "resume", "latest"), "POST /v1/transfers/t9/resume"),
        (("transfers", "complete", "latest"), "POST /v1/transfers/t9/complete"),
        (("transfers", "settle", "latest", "--reason", "x"), "POST /v1/transfers/t9/settle-dispute"),
        (("agreements", "show", "latest"), "GET /v1/agreements/a9"),
        (("agreements", "close", "latest"), "POST /v1/agreements/a9/close"),
        (("pulls", "latest"), "GET /v1/pulls/p9"),
        (("cancel", "latest"), "POST /v1/pulls/p9/cancel"),
    ],
)
def test_the_newest_need_not_be_named(command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], asked: str):
    fake.answers |= LATEST
    command(*arguments)
    assert fake.paths()[-1] == asked, "what is asked last is about it, and is not here"
    assert all("latest" not in path for path in fake.paths())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "latest"), "there is no negotiation or transfer yet"),
        (("transfers", "complete", "latest"), "there is no transfer yet"),
        (("approve", "latest"), "there is no negotiation yet"),
        (("cancel", "latest"), "there is no order yet"),
        (("agreements", "show", "latest"), "there is no agreement yet"),
    ],
)
def test_that_there_is_none_yet_is_said(command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], says: str):
    fake.answers |= {
        ("GET", f"/v1/{each}"): (200, {"items": [], "next": None}) for each in ("negotiations", "transfers", "agreements", "pulls")
    }
    ended = command(*arguments)
    assert (ended.code, says in ended.err) == (1, True)


@pytest.mark.parametrize("as_json", [True, False])
def test_watch_prints_what_happens_to_this_kind_only(
    command: Command, fake: FakeConnector, home: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
):
    monkeypatch.setattr("connector.client.transport.PATIENCE_SECONDS", 0.0)
    fake.answers[("GET", "/v1/negotiations")] = (200, {"items": [], "next": None})
    first = [
        event(5, "message-sent", kind="negotiation", pid="n5", state="AGREED", peer="h"),
        event(6, "message-sent", kind="transfer", pid="t6"),
    ]
    fake.streams = [first, [b"id: 7\ndata: the end of this test\n\n"]]
    ended = command("negotiations", "--watch", *(["--json"] if as_json else []))
    assert "n5" in ended.out
    assert "t6" not in ended.out
    assert ended.code == 1


def test_what_was_used_up_is_shown_and_an_agreement_past_its_end_is_over(command: Command, fake: FakeConnector, home: Path):
    counters = [
        {"rule": "/permission/0", "operand": "http://www.w3.org/ns/odrl/2/count", "used": 3, "reserved": 1, "limit": 10},
        {"rule": "/permission/1", "operand": "urn:qiao:byteCount", "used": 700, "reserved": 0, "limit": None},
        {
            "rule": "/permission/2",
            "operand": "http://www.w3.org/ns/odrl/2/payAmount",
            "used": "1.50",
            "reserved": "0.00",
            "limit": "20.00",
            "currency": "EUR",
        },
    ]
    constraint = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "10", "@type": "xsd:integer"}}
    document = {"permission": [{"action": "use", "constraint": [constraint]}]}
    past = agreement_view(ends="2020-01-01T00:00:00.000Z", counters=counters, document=document)
    fake.answers |= {
        ("GET", "/v1/agreements"): (200, {"items": [past], "next": None}),
        ("GET", "/v1/agreements/urn%3Auuid%3Aa1"): (200, past),
    }
    shown = {line[:12].strip(): line[12:].strip() for line in command("agreements", "show", "urn:uuid:a1").out.splitlines()}
    used = "count 3 of 10, 1 reserved (/permission/0); byteCount 700 (/permission/1); payAmount 1.50 of 20.00 EUR (/permission/2)"
    assert shown["used"] == used
    assert shown["state"] == "ended"
    assert shown["terms"] == "use, if count <= 10 [measured]"
    assert command("agreements").out.splitlines()[1].split()[1] == "ended"


@pytest.mark.parametrize("as_json", [True, False])
def test_an_approval_that_ended_the_negotiation_is_a_failure_with_the_reason(
    command: Command, fake: FakeConnector, home: Path, as_json: bool
):
    ended_view = process_view(state="REQUESTED", ended_by="us", in_flight="ContractNegotiationTerminationMessage", reasons=["it is over"])
    fake.answers[("POST", f"{N}/approve")] = (200, ended_view)
    ended = command("approve", "urn:uuid:n1", *(["--json"] if as_json else []))
    assert ended.code == 1
    assert ended.err.startswith("connector: negotiation `urn:uuid:n1` was not agreed to, it was ended\n  - it is over\n")
    assert (ended.out != "") is as_json


def test_a_counter_offer_is_one_call_with_terms_in_any_form(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", f"{N}/counter")] = (200, process_view(state="OFFERED"))
    (home / "p.odrl").write_text("offer\n  permit use\n    for {research}\n")
    ended = command("counter", "urn:uuid:n1", "--policy", "p.odrl")
    assert "OFFERED" in ended.out
    (body,) = fake.bodies("POST", f"{N}/counter")
    assert body["policy"]["permission"][0]["constraint"][0]["leftOperand"] == "odrl:purpose"
    assert command("counter", "urn:uuid:n1", "--policy", "none.odrl").code == 1


@pytest.mark.asyncio
async def test_an_approval_of_what_is_not_permitted_any_more_ends_with_1(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        dataset = pair.fresh("dataset")
        await two.provider.publish(dataset, pair.purpose_policy("research"), manual=True)
        begun = await two.consumer.asked(
            "POST", "/negotiations", {"peer": "hospital", "dataset": dataset, "purposes": ["research"]}, status=201
        )
        await two.consumer.state(Kind.NEGOTIATION, begun["pid"], "REQUESTED")
        (theirs,) = (await two.provider.asked("GET", "/negotiations"))["items"]
        await two.provider.asked("DELETE", f"/datasets/{pair.quoted(dataset)}", status=204)
        ended = await operated(two.provider, "approve", theirs["pid"])
        assert (ended.code, "was not agreed to, it was ended" in ended.err) == (1, True)
