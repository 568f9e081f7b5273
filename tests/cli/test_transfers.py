"""`connector transfers` and `cancel`: every move of a transfer by hand, and the end of an order, also against whole connectors."""

import json
from pathlib import Path

import pytest

from connector.dsp.messages import Kind
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.fake_connector import FakeConnector, problem, process_view, pull_view

T = "/v1/transfers/urn%3Auuid%3An1"
EDR = {"endpoint": "http://127.0.0.1:1/data/x", "authorization": "a.secret.token", "expires": "2030-01-01T00:00:00.000Z"}


@pytest.mark.parametrize("action", ["suspend", "resume", "complete"])
def test_a_transfer_is_moved(command: Command, fake: FakeConnector, home: Path, action: str):
    fake.answers[("POST", f"{T}/{action}")] = (200, process_view(state="MOVED"))
    reason = ("--reason", "a pause") if action == "suspend" else ()
    ended = command("transfers", action, "urn:uuid:n1", *reason)
    assert (ended.code, "MOVED" in ended.out) == (0, True)
    assert fake.asked[0].body == ({"reason": "a pause"} if reason else {})
    assert json.loads(command("transfers", action, "urn:uuid:n1", "--json").out)["state"] == "MOVED"


def test_what_the_peer_has_not_answered_yet_is_said_to_count_already(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", f"{T}/suspend")] = (200, process_view(state="STARTED", in_flight="TransferSuspensionMessage"))
    ended = command("transfers", "suspend", "urn:uuid:n1")
    assert ended.err == "what is in flight counts here already; the state follows when the peer has answered\n"


def test_one_is_started_and_waited_for(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {("POST", "/v1/transfers"): (201, process_view()), ("GET", T): (200, process_view(state="STARTED"))}
    ended = command("transfers", "start", "urn:a")
    assert (ended.code, fake.asked[0].body) == (0, {"agreement": "urn:a", "format": "HttpData-PULL"})
    assert fake.asked[1].path == f"{T}?wait=started&timeout_seconds=45.0"
    assert "connector transfers address urn:uuid:n1" in ended.err


@pytest.mark.parametrize(("state", "code", "says"), [("REQUESTED", 0, "waits for the peer"), ("TERMINATED", 1, "the study is over")])
def test_one_that_does_not_start_says_why(command: Command, fake: FakeConnector, home: Path, state: str, code: int, says: str):
    view = process_view(state=state, reasons=["the study is over"] if code else [])
    fake.answers |= {("POST", "/v1/transfers"): (201, process_view()), ("GET", T): (200, view)}
    ended = command("transfers", "start", "urn:a")
    assert (ended.code, says in ended.err) == (code, True)


def test_one_of_which_the_peer_could_not_be_told_names_the_dead_letters_and_nobody_who_ended_it(
    command: Command, fake: FakeConnector, home: Path
):
    view = process_view(state="INITIAL", waiting="us", ended_by="peer", reasons=["nothing runs there"])
    fake.answers |= {("POST", "/v1/transfers"): (201, process_view()), ("GET", T): (200, view)}
    ended = command("transfers", "start", "urn:a")
    assert "`connector dead-letters`" in ended.err
    assert "ended by" not in ended.out


def test_one_that_we_have_suspended_and_the_peer_lets_not_go_on_is_said_to_be_suspended_by_us(
    command: Command, fake: FakeConnector, home: Path
):
    view = process_view(state="SUSPENDED", suspended_by="us", ended_by="peer", reasons=["the dataset is withdrawn"])
    fake.answers[("POST", f"{T}/resume")] = (200, view)
    words = command("transfers", "resume", "urn:uuid:n1").out.split()
    assert "suspended by us refused by peer" in " ".join(words)
    fake.answers[("POST", f"{T}/resume")] = (200, view | {"suspended_by": "peer"})
    words = command("transfers", "resume", "urn:uuid:n1").out.split()
    assert ("suspended by peer" in " ".join(words), "refused" in words) == (True, False)


def test_the_address_is_shown_with_its_token_and_how_to_use_it(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", f"{T}/edr")] = (200, EDR)
    ended = command("transfers", "address", "urn:uuid:n1")
    assert ended.out.split() == ["endpoint", EDR["endpoint"], "token", "a.secret.token", "expires", "2030-01-01", "00:00:00Z"]
    assert "Authorization: Bearer" in ended.err
    assert "a.secret.token" not in ended.err, "notes go to logs"
    assert json.loads(command("transfers", "address", "urn:uuid:n1", "--json").out) == EDR


def test_a_dispute_is_settled_with_a_reason_and_not_without(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", f"{T}/settle-dispute")] = (200, {"transfer": "urn:uuid:n1", "status": "open"})
    for reason in ((), ("--reason", " ")):
        refused = command("transfers", "settle", "urn:uuid:n1", *reason)
        assert (refused.code, "give `--reason`" in refused.err) == (1, True)
    assert fake.asked == []
    assert "is over" in command("transfers", "settle", "urn:uuid:n1", "--reason", "we have met").out
    assert fake.asked[-1].body == {"reason": "we have met"}
    said = json.loads(command("transfers", "settle", "urn:uuid:n1", "--reason", "x", "--json").out)
    assert said == {"settled": "urn:uuid:n1", "reason": "x"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("start",), "transfers start AGREEMENT"),
        (("resume",), "transfers resume PID"),
        (("resume", "x", "--reason", "y"), "leave `--reason` out"),
        (("show", "x", "--state", "STARTED"), "are for the list"),
        (("show", "x", "--watch"), "are for the list"),
    ],
)
def test_what_is_not_meant_is_said_and_nothing_is_asked(
    command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], says: str
):
    ended = command("transfers", *arguments)
    assert (ended.code, says in ended.err, fake.asked) == (1, True, [])


def test_what_it_cannot_do_is_not_understood(command: Command, home: Path):
    ended = command("transfers", "approve", "x")
    assert (ended.code, "`connector transfers --help`" in ended.err) == (2, True)


def test_an_order_is_cancelled_and_what_remains_is_said(command: Command, fake: FakeConnector, home: Path):
    path = ("POST", "/v1/pulls/urn%3Auuid%3Ap1/cancel")
    fake.answers[path] = (200, pull_view("failed", received_bytes=1500, agreement="urn:a"))
    ended = command("cancel", "urn:uuid:p1", "--reason", "not needed")
    assert (ended.code, ended.out) == (0, "urn:uuid:p1 is cancelled: 1.5 kB of `urn:d:1` had come\n")
    assert "goes on from there" in ended.err
    assert fake.asked[0].body == {"reason": "not needed"}
    assert json.loads(command("cancel", "urn:uuid:p1", "--json").out)["stage"] == "failed"
    fake.answers[path] = (409, problem(409, "contradiction", "the order is at `done`"))
    assert (command("cancel", "urn:uuid:p1").code, command("cancel", "urn:uuid:p1").out) == (1, "")


@pytest.mark.asyncio
async def test_one_that_a_peer_refuses_because_it_does_not_know_us_any_more_says_so_and_what_mends_it(operated: Operated, tmp_path: Path):
    async with pair.pair(tmp_path / "x") as both:
        await both.provider.publish("urn:d", content=b"a,b\n")
        agreed = json.loads((await operated(both.consumer, "negotiate", "hospital", "urn:d", "--json")).out)
        known = both.provider.site.root / "registry" / "biopharma.jsonld"
        known.unlink()
        await both.provider.asked("POST", "/reload")
        refused = await operated(both.consumer, "transfers", "start", agreed["agreement"])
        assert refused.code == 1
        assert "404: the peer does not take who we are (" in refused.err
        assert "its operator has to take our self-description (and `connector reload` at a Qiao)" in refused.err


@pytest.mark.asyncio
async def test_a_transfer_goes_by_hand_from_its_start_to_its_end(operated: Operated, tmp_path: Path):
    async with pair.pair(tmp_path / "x") as both:
        await both.provider.publish("urn:d", content=b"a,b\n")
        agreed = json.loads((await operated(both.consumer, "negotiate", "hospital", "urn:d", "--json")).out)
        started = await operated(both.consumer, "transfers", "start", agreed["agreement"], "--json")
        pid = json.loads(started.out)["pid"]
        edr = json.loads((await operated(both.consumer, "transfers", "address", pid, "--json")).out)
        async with both.consumer.http.get(edr["endpoint"], headers={"Authorization": f"Bearer {edr['authorization']}"}) as answer:
            assert await answer.read() == b"a,b\n"
        for action, state in (("suspend", "SUSPENDED"), ("resume", "STARTED"), ("complete", "COMPLETED")):
            assert (await operated(both.consumer, "transfers", action, pid)).code == 0
            await both.consumer.state(Kind.TRANSFER, pid, state)
        over = await operated(both.consumer, "transfers", "address", pid)
        assert (over.code, "in state COMPLETED and has no data address" in over.err) == (1, True)
