"""The typed JSON of the management API: what a call may say, what is said of a mistake, and what the client reads of a view."""

from contextlib import suppress
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.api import management_shapes as shapes
from connector.client import views
from connector.dsp.exchange import INITIAL, Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import InvalidRequest, TellsSecret, answer_to
from connector.ports import Participant
from connector.records import Agreement, Evidence, Outbound, Pull
from connector.values import replace
from tests.pair import OPEN, dataset_record

BODIES: list[type[Any]] = [
    shapes.Publish, shapes.CatalogQuery, shapes.DatasetQuery, shapes.Negotiate, shapes.MakeOffer, shapes.Counter, shapes.Reason,
    shapes.Transfer, shapes.OrderPull,
]  # fmt: skip


# ---- what a call may say


@pytest.mark.parametrize("shape", [shapes.Negotiate, shapes.OrderPull])
def test_an_empty_purpose_is_a_mistake_that_says_what_would_be_right(shape: type[Any]):
    for empty in ("", " \t"):
        body = {"peer": "h", "dataset": "urn:d", "purposes": ["research", empty]} | ({"out": "/x"} if shape is shapes.OrderPull else {})
        with pytest.raises(InvalidRequest, match="leave it out") as refused:
            shapes.decode(orjson.dumps(body), shape)
        assert refused.value.pointer == "/purposes/1"


@pytest.mark.parametrize("shape", [shapes.Reason, shapes.Settled, shapes.Released])
def test_a_reason_that_looks_like_a_token_is_refused_and_not_repeated(shape: type[Any]):
    for secret in ("we gave Bearer 0123456789abcdef", "eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ12.c2ln", "-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(TellsSecret, match="say it without that") as refused:
            shapes.decode(orjson.dumps({"reason": secret}), shape)
        assert (refused.value.pointer, answer_to(refused.value)) == ("/reason", (422, "tells-secret"))
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "pointer"), [({"by": "SECRET"}, "/by"), ({"action": "SECRET"}, "/action"), ({"amounts": {"SECRET": "1"}}, "/amounts")]
)
def test_an_act_that_names_a_token_is_refused_and_not_repeated(said: dict[str, Any], pointer: str):
    secret = "Bearer 0123456789abcdef"
    body = orjson.dumps({"duty": "/obligation/0"} | said).replace(b"SECRET", secret.encode())
    with pytest.raises(TellsSecret, match="say it without that") as refused:
        shapes.decode(body, shapes.Performance)
    assert (refused.value.pointer, answer_to(refused.value)) == (pointer, (422, "tells-secret"))
    assert secret not in str(refused.value)


def test_a_body_is_read_with_its_defaults():
    read = shapes.decode(b'{"peer":"hospital","dataset":"urn:d"}', shapes.Negotiate)
    assert (read.peer, read.dataset, read.offer, read.policy, read.purposes, read.accept) == (
        "hospital",
        "urn:d",
        None,
        None,
        (),
        "permitted",
    )
    assert shapes.decode(b"", shapes.Reason).reason == "ended by an operator"


@pytest.mark.parametrize(
    ("shape", "body", "pointer", "says"),
    [
        (shapes.OrderPull, {"peer": 1, "dataset": "d", "out": "o"}, "/peer", "expected `str`, got `int` at `/peer`"),
        (shapes.OrderPull, {"peer": "p", "dataset": "d", "out": None}, "/out", "got `null`"),
        (shapes.OrderPull, {"peer": "p", "dataset": "d", "out": "o", "purposes": ["a", 2]}, "/purposes/1", "expected `str`"),
        (shapes.OrderPull, {"peer": "p", "dataset": "d"}, "", "missing required field `out`"),
        (shapes.OrderPull, {"peer": "p", "dataset": "d", "out": "o", "ouput": "x"}, "", "unknown field `ouput`"),
        (shapes.Publish, {"title": "t", "source": {}, "policies": [{}, []]}, "/policies/1", "expected `object`, got `array`"),
        (shapes.Publish, {"title": "t", "source": {}, "policies": [], "manual": "yes"}, "/manual", "expected `bool`"),
        (shapes.Negotiate, [], "", "expected `object`, got `array`"),
        (shapes.Negotiate, None, "", "expected `object`, got `null`"),
    ],
)
def test_a_mistake_is_named_with_its_place(shape: type[Any], body: Any, pointer: str, says: str):
    with pytest.raises(InvalidRequest) as refused:
        shapes.decode(orjson.dumps(body), shape)
    assert refused.value.pointer == pointer
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"peer":NaN}', "is not JSON"),
        (b'{"reason":"\\ud800"}', "is not JSON"),
        (b'{"policy":1e999}', "is not JSON"),
        (b'{"policy":{"a":' + b"[" * 40 + b"]" * 40 + b"}}", "nested deeper"),
        (b'{"policy":' + b"[" * 100_000, "is not JSON"),
        (b'{"reason":"' + b"x" * 70_000 + b'"}', "longer than"),
        (b'{"reason":"a","reason":"b"}', "stands twice"),
        (b'{"policy":[' + b"0," * 25_000 + b"0]}", "more than"),
    ],
)
def test_what_is_no_message_for_a_peer_is_none_for_us(body: bytes, says: str):
    with pytest.raises(InvalidRequest, match=says):
        shapes.decode(body, shapes.Reason)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda b: st.lists(b) | st.dictionaries(st.text(), b)))
def test_any_body_is_read_or_refused_and_what_was_read_can_be_written(body: Any):
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    for shape in BODIES:
        with suppress(InvalidRequest):
            orjson.dumps(msgspec.to_builtins(shapes.decode(data, shape)))


@given(st.integers(-(10**30), 10**30), st.integers(0, 600), st.integers(0, 600))
def test_a_number_of_a_query_is_taken_within_its_bounds(number: int, low: int, high: int):
    if low <= number <= high:
        assert shapes.number_of("limit", str(number), low, high) == number
    else:
        with pytest.raises(InvalidRequest, match=f"it is a whole number from {low} to {high}"):
            shapes.number_of("limit", str(number), low, high)


@pytest.mark.parametrize("said", ["", " 1", "+1", "1.0", "0x1", "1e1", "٣", "²", "1" * 5000, "-0"])
def test_what_is_no_plain_number_is_refused(said: str):
    with pytest.raises(InvalidRequest):
        shapes.number_of("limit", said, 0, 2**63 - 1)


@pytest.mark.parametrize(("said", "seconds"), [(None, shapes.WAIT_SECONDS), ("0", 0), ("0.5", 0.5), ("300", 300)])
def test_a_call_waits_as_long_as_it_says(said: str | None, seconds: float):
    assert shapes.seconds_of(said) == seconds


@pytest.mark.parametrize("said", ["-1", "301", "nan", "inf", "soon", ""])
def test_a_time_to_wait_has_bounds(said: str):
    with pytest.raises(InvalidRequest, match="from 0 to 300"):
        shapes.seconds_of(said)


# ---- what is shown

NEGOTIATION = Process(Kind.NEGOTIATION, "ours", Role.CONSUMER, "did:web:peer", "https://peer.test", "REQUESTED", "theirs", created=1.5)
TRANSFER = replace(NEGOTIATION, kind=Kind.TRANSFER, detail={"format": "HttpData-PULL", "ends": 0.0})


@pytest.mark.parametrize(
    ("process", "waiting"),
    [
        (NEGOTIATION, "peer"),
        (replace(NEGOTIATION, state=INITIAL, in_flight=Move.CONTRACT_REQUEST), "peer"),
        (replace(NEGOTIATION, state=INITIAL), "us"),
        (replace(NEGOTIATION, state="OFFERED"), "us"),
        (replace(NEGOTIATION, state="OFFERED", in_flight=Move.ACCEPTED), "peer"),
        (replace(TRANSFER, role=Role.PROVIDER), "us"),
        (replace(NEGOTIATION, detail={"waiting": "approval"}), "approval"),
        (replace(NEGOTIATION, state="FINALIZED"), None),
        (replace(NEGOTIATION, state="TERMINATED"), None),
        (TRANSFER, "peer"),
        (replace(TRANSFER, state="STARTED"), None),
        (replace(TRANSFER, state="SUSPENDED"), None),
        (replace(TRANSFER, state="COMPLETED"), None),
    ],
)
def test_a_process_says_whose_turn_it_is(process: Process, waiting: str | None):
    assert shapes.process_view(process, None)["waiting"] == waiting


def test_a_process_shows_what_happened_to_it():
    detail = {"code": "X", "reasons": ["because"], "ended_by": "peer", "terms": OPEN, "decision": {"result": "deny"}, "claims": {"a": 1}}
    detail["grounds"] = [{"code": "X", "how_to_fulfil": {"action": ["odrl:inform"]}}]
    view = shapes.process_view(replace(NEGOTIATION, detail=detail, in_flight=Move.ACCEPTED, due=60.0), "502 bad gateway")
    assert (view["code"], view["reasons"], view["ended_by"], view["terms"]) == ("X", ["because"], "peer", OPEN)
    assert (view["grounds"], shapes.process_view(TRANSFER, None)["grounds"]) == (detail["grounds"], [])
    assert (view["decision"], view["claims"], view["last_error"]) == ({"result": "deny"}, {"a": 1}, "502 bad gateway")
    assert (view["in_flight"], view["due"], view["created"]) == (str(Move.ACCEPTED), "1970-01-01T00:01:00.000Z", "1970-01-01T00:00:01.500Z")
    assert shapes.process_view(TRANSFER, None)["ends"] == "1970-01-01T00:00:00.000Z", "an instant of zero is an instant"


@pytest.mark.parametrize(
    ("changed", "by"),
    [
        ({"state": "SUSPENDED", "halted": True, "detail": {"ended_by": "peer"}}, "us"),  # and the peer refused to let it go on
        ({"state": "STARTED", "halted": True, "detail": {"ended_by": "peer"}}, "us"),  # or to be suspended
        ({"state": "SUSPENDED", "detail": {"ended_by": "peer"}}, "peer"),
        ({"state": "SUSPENDED", "in_flight": Move.START}, None),
        ({"state": "TERMINATED", "halted": True}, None),
        ({"state": "STARTED"}, None),
    ],
)
def test_a_transfer_says_by_whose_word_it_stands_still_whoever_spoke_last(changed: dict[str, Any], by: str | None):
    assert shapes.process_view(replace(TRANSFER, **changed), None)["suspended_by"] == by


def test_an_order_without_an_end_in_any_calendar_is_shown_as_others_are():
    pull = Pull("urn:p", "did:web:x", "urn:d", "/x", "download", until=1e300, version=1)
    assert shapes.pull_view(pull)["until"] == "9999-12-31T23:59:59.000Z"


def test_instants_are_utc_with_milliseconds_and_none_stays_none():
    assert shapes.instant(1_790_000_000.5) == "2026-09-21T14:13:20.500Z"
    assert shapes.instant(None) is None


PULL = Pull(
    "urn:p", "did:web:peer", "urn:d", "out/file", "download", ("research",), "n", "a", "t", '"e"', 10, bytes(32), 5, ("r",), 3, 1.0, 2.0
)
AGREED = Agreement("urn:a", "n", "did:web:peer", "did:web:peer", "did:web:us", "urn:d", OPEN, bytes(32), True, 5.0, 1.0)
FACT = Evidence(
    "message-received", Kind.NEGOTIATION, "ours", "did:web:peer", "REQUESTED", 1.0, Move.CONTRACT_REQUEST, bytes(32), {"a": 1}, 7
)
ROW = Outbound("urn:o", "ours", Kind.TRANSFER, "did:web:peer", "deliver", Move.START, "/x", b"{}", 1.0, 9.0, 1.0, 3, True, "503")


@pytest.mark.parametrize(
    ("view", "read"),
    [
        (shapes.participant_view(Participant("did:web:p", "p", "hospital", "https://p.test", ())), views.Participant),
        (shapes.dataset_view(dataset_record("urn:d")), views.Dataset),
        (shapes.process_view(NEGOTIATION, None), views.Negotiation),
        (shapes.process_view(TRANSFER, "x"), views.Transfer),
        (shapes.agreement_view(AGREED) | {"counters": []}, views.Agreement),  # which stand where one is shown
        (shapes.pull_view(PULL), views.Pull),
        (shapes.event_view(FACT), views.Event),
        (shapes.letter_view(ROW), views.DeadLetter),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_client_reads_every_view(view: dict[str, Any], read: type[Any]):
    sent = msgspec.json.decode(orjson.dumps(view), type=read)
    for name in read.__struct_fields__:
        assert name in view, "what the client expects, the API sends"
    assert sent is not None


def test_a_pull_says_whether_it_used_an_agreement_that_was_there():
    assert shapes.pull_view(replace(PULL, negotiation=None))["reused"]
    assert not shapes.pull_view(PULL)["reused"]
    assert not shapes.pull_view(replace(PULL, negotiation=None, agreement=None))["reused"]


def test_an_event_is_one_server_sent_event():
    lines = shapes.event_lines(replace(FACT, detail={"said": "two\nlines"})).decode()
    assert lines.startswith("id: 7\nevent: message-received\ndata: {")
    assert lines.endswith("}\n\n")
    assert lines.count("\n") == 4, "a line break inside would end the event"
    assert orjson.loads(lines.partition("data: ")[2])["digest"] == "00" * 32
