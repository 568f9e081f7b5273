"""What a program does with the management API: it walks along cursors, waits, and calls twice."""

import asyncio

import aiohttp
import pytest

from connector.dsp import negotiation as negotiations
from connector.dsp import transfer as transfers
from connector.dsp.messages import Role
from tests.pair import OPEN, Answer, Desk, agreement, fresh, negotiation, quoted

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---- lists, waiting


async def test_a_walk_along_the_cursors_meets_each_item_once_newest_first(desk: Desk):
    made = [(await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.PROVIDER, created=float(n)))).pid for n in range(5)]
    seen: list[str] = []
    query = "?limit=2&peer=biopharma&state=REQUESTED"
    page = await desk.us.asked("GET", f"/negotiations{query}")
    while True:
        assert len(page["items"]) <= 2
        seen += [p["pid"] for p in page["items"]]
        if page["next"] is None:
            break
        page = await desk.us.asked("GET", f"/negotiations{query}&after={page['next']}")
    assert [pid for pid in seen if pid in made] == made[::-1]
    assert len(seen) == len(set(seen))


async def test_an_agreement_is_found_by_whatever_id_its_provider_gave_it(desk: Desk):
    for id in ("https://provider.example/agreements/1?a=b", "urn:x:a;b/c//d", "50%/%2F", "{", "a{b}", "\\"):
        agreed = agreement(desk.us, desk.peer, Role.CONSUMER, id=id)
        await desk.us.put(negotiation(desk.us, desk.peer, "FINALIZED", Role.CONSUMER), agreed)
        assert (await desk.us.asked("GET", f"/agreements/{quoted(id)}"))["id"] == id


async def test_a_process_is_found_by_whatever_pid_its_peer_gave_it(desk: Desk):
    for theirs in ("https://peer.example/transfers/1?a=b", "urn:x:a;b/c//d", "50%/%2F", "a{b}", "\\"):
        ours = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.PROVIDER, peer_pid=theirs))
        assert await desk.us.asked("GET", f"/processes/{quoted(theirs)}") == {"kind": "negotiation", "pid": ours.pid}


async def test_of_a_pid_of_somebody_else_it_is_said_that_there_is_none_whatever_is_in_it(desk: Desk):
    for kind, step in (("negotiation", "/approve"), ("transfer", "/suspend"), ("transfer", ""), ("pull", "/cancel"), ("pull", "")):
        said = await desk.us.asked("POST" if step else "GET", f"/{kind}s/{quoted('https://peer.example/1;2')}{step}", status=404)
        assert "`https://peer.example/1;2`" in said["detail"], "and not that there is no such address"


async def test_a_pid_that_two_peers_use_names_neither_process_and_both_are_told(desk: Desk):
    ours = [
        await desk.us.put(negotiation(desk.us, peer, "REQUESTED", Role.PROVIDER, peer_pid="urn:the-same"))
        for peer in (desk.peer, desk.stranger)
    ]
    said = (await desk.us.asked("GET", "/processes/urn:the-same", status=409))["detail"]
    assert all(f"`{process.pid}`" in said for process in ours)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("negotiations?state=BLA", "`state` is `BLA`; it is one of INITIAL, REQUESTED, OFFERED, ACCEPTED, AGREED, VERIFIED"),
        ("transfers?state=FINALIZED", "`state` is `FINALIZED`; it is one of INITIAL, REQUESTED, STARTED, SUSPENDED, COMPLETED, TERMINATED"),
        ("transfers?state=started", "`state` is `started`; it is one of INITIAL, REQUESTED, STARTED"),
        ("pulls?open=yes", "`open` is `yes`; it is one of true, false"),
        ("pulls?state=done", "`state` is not known here; the list of orders takes `after`, `limit`, `open`"),
        ("negotiations?stat=AGREED", "`stat` is not known here; the list of negotiations takes `after`, `limit`, `peer`, `state`"),
        ("agreements?state=FINALIZED", "`state` is not known here; the list of agreements takes `after`, `dataset`, `limit`, `peer`"),
        ("datasets?peer=biopharma", "`peer` is not known here; the list of datasets takes `after`, `limit`"),
        ("participants?role=x", "`role` is not known here; the list of participants takes no parameters"),
        ("dead-letters?peer=x", "`peer` is not known here; the list of dead letters takes `after`, `limit`"),
        ("transfers/urn:x?wiat=final", "`wiat` is not known here; one transfer takes `timeout_seconds`, `wait`"),
        ("transfers?state=STARTED&state=SUSPENDED", "`state` stands twice in the query; say it once"),
    ],
)  # fmt: skip
async def test_a_filter_that_nothing_can_pass_is_refused_and_not_taken_for_an_empty_list(desk: Desk, query: str, says: str):
    answer = await desk.us.manage("GET", f"/{query}")
    assert answer.status == 400
    assert says in answer.json["detail"]


@pytest.mark.parametrize("kind", ["negotiations", "transfers"])
async def test_every_state_of_the_standard_is_a_filter(desk: Desk, kind: str):
    for state in {"negotiations": negotiations, "transfers": transfers}[kind].State:
        assert "items" in await desk.us.asked("GET", f"/{kind}?state={state}")


async def test_datasets_are_walked_in_order_of_their_ids(desk: Desk):
    ids = [f"urn:test:walk:{n}" for n in range(3)]
    for id in reversed(ids):
        await desk.us.publish(id)
    one = await desk.us.asked("GET", "/datasets?limit=2&after=urn:test:walk")
    rest = await desk.us.asked("GET", f"/datasets?limit=2&after={quoted(one['next'])}")
    assert [d["id"] for d in one["items"] + rest["items"]][:3] == ids


async def test_who_waits_is_answered_at_the_change_or_when_the_time_is_over(desk: Desk):
    process = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.PROVIDER))
    path = f"/negotiations/{process.pid}"
    assert (await desk.us.asked("GET", f"{path}?wait=final&timeout_seconds=0"))["state"] == "REQUESTED"
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(desk.us.asked("GET", f"{path}?wait=final&timeout_seconds=60"))
        await desk.us.asked("GET", "/self")
        assert not waiting.done()
        await desk.us.asked("POST", f"{path}/terminate", {"reason": "enough"})
        assert (await waiting)["state"] == "TERMINATED"
    waits = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.PROVIDER, detail={"waiting": "approval"}))
    answer = await desk.us.asked("GET", f"/negotiations/{waits.pid}?wait=final&timeout_seconds=60")
    assert answer["waiting"] == "approval", "only an operator can go on here: waiting on would be for nothing"


# ---- calls that come twice


@pytest.mark.parametrize("count", [1, 8])
async def test_one_key_is_one_negotiation_however_often_it_is_called(desk: Desk, count: int):
    key, body = {"Idempotency-Key": fresh("key")}, {"peer": "biopharma", "dataset": "d", "offer": fresh("offer"), "policy": OPEN}
    first: list[Answer] = await asyncio.gather(*(desk.us.manage("POST", "/negotiations", body, **key) for _ in range(count)))
    again = await desk.us.manage("POST", "/negotiations", body, **key)
    assert {answer.status for answer in (*first, again)} == {201}
    (pid,) = {answer.json["pid"] for answer in (*first, again)}
    assert again.headers["Location"] == f"/v1/negotiations/{pid}"
    assert await desk.peer.heard("/negotiations/request")
    found = [d for _, path, d in desk.peer.calls if path.endswith("/negotiations/request") and d["offer"]["@id"] == body["offer"]]
    assert len({d["consumerPid"] for d in found}) <= 1


async def test_one_key_is_one_pull(desk: Desk):
    key, body = {"Idempotency-Key": fresh("key")}, {"peer": "biopharma", "dataset": "d", "out": str(desk.us.site.root / "out" / "one")}
    answers = [await desk.us.manage("POST", "/pulls", body, **key) for _ in range(2)]
    assert [a.status for a in answers] == [201, 201]
    assert len({a.json["id"] for a in answers}) == 1


async def test_a_key_with_another_body_or_at_another_call_is_a_conflict(desk: Desk):
    key, body = {"Idempotency-Key": fresh("key")}, {"peer": "biopharma", "dataset": "d", "offer": "urn:o", "policy": OPEN}
    assert (await desk.us.manage("POST", "/negotiations", body, **key)).status == 201
    other = await desk.us.manage("POST", "/negotiations", body | {"dataset": "e"}, **key)
    elsewhere = await desk.us.manage("POST", "/transfers", {"agreement": "x"}, **key)
    for answer in (other, elsewhere):
        assert (answer.status, answer.json["type"]) == (409, "urn:qiao:problem:idempotency-conflict")
        assert "use a new key" in answer.json["detail"]


async def test_a_call_that_failed_uses_up_no_key(desk: Desk):
    key, body = {"Idempotency-Key": fresh("key")}, {"peer": "biopharma", "dataset": "d", "policy": OPEN}
    assert (await desk.us.manage("POST", "/negotiations", body, **key)).status == 400
    assert (await desk.us.manage("POST", "/negotiations", body | {"offer": "urn:o"}, **key)).status == 201


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
async def test_a_key_is_short_and_printable(desk: Desk, key: str):
    body = {"peer": "biopharma", "dataset": "d", "offer": "urn:o", "policy": OPEN}
    try:
        answer = await desk.us.manage("POST", "/negotiations", body, **{"Idempotency-Key": key})
    except (ValueError, aiohttp.ClientError):
        pytest.fail("the client refused to send it")
    assert (answer.status, "1 to 200 printable" in answer.json["detail"]) == (400, True)
