"""The management listener over real sockets: every route in one story of two connectors, who is let in, and what is said of
mistakes."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.api.management_api import ManagementApi
from connector.api.middleware import Limits
from connector.dsp.answers import MENDED
from connector.dsp.messages import Kind, Role
from connector.evidence.verify import verify
from tests import pair
from tests.api.conftest import events
from tests.pair import OPEN, TOKEN, Desk, Pair, Running, call, purpose_policy, quoted

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair.pair(tmp_path_factory.mktemp("two") / "x") as made:
        yield made


def table() -> set[str]:
    """The routes as they are registered: method and path."""
    app = web.Application()
    ManagementApi(None, Limits(0, 0)).add_to(app)  # type: ignore[arg-type] - no handler is called
    return {f"{route.method} {route.resource.canonical.removeprefix('/v1')}" for route in app.router.routes() if route.resource}


@dataclass
class Operator:
    """Calls by their route, and remembers which were used."""

    at: Running
    used: set[str] = field(default_factory=set)

    async def __call__(self, route: str, body: Any = None, *, status: int = 200, query: str = "", **ids: str) -> Any:
        self.used.add(route)
        method, path = route.split(" ")
        path = path.format(**{name: quoted(id) for name, id in ids.items()})
        return await self.at.asked(method, path + query, body, status=status)


# ---- every route


async def test_every_route_of_the_table_does_its_part_in_one_story(two: Pair, desk: Desk):
    provider, consumer = Operator(two.provider), Operator(two.consumer)
    research, both = "urn:test:research", purpose_policy("research", "care")
    await two.provider.publish("urn:test:first", content=b"x" * 5000)
    assert (await provider("GET /self"))["id"] == two.provider.site.id
    assert {"method": "GET", "path": "/v1/self", "takes": None} in (await provider("GET "))["items"]
    assert [p["name"] for p in (await consumer("GET /participants"))["items"]] == ["biopharma", "hospital"]

    manifest = {"title": "R", "source": {"type": "file", "path": next(iter((two.provider.site.root / "data").iterdir())).name}}
    published = await provider("PUT /datasets/{id}", manifest | {"policies": [both], "manual": True}, status=201, id=research)
    assert await provider("GET /datasets/{id}", id=research) == published
    assert research in [d["id"] for d in (await provider("GET /datasets"))["items"]]
    found = await consumer("POST /catalog", {"peer": "hospital"})
    assert {d["@id"] for d in found["catalog"]["dataset"]} >= {research, "urn:test:first"}
    dataset = (await consumer("POST /catalog/dataset", {"peer": two.provider.site.id, "dataset": research}))["dataset"]
    assert [o["@id"] for o in dataset["hasPolicy"]] == [o["id"] for o in published["offers"]]

    # a negotiation with a counter-offer, each step by hand
    asked = await consumer(
        "POST /negotiations", {"peer": "hospital", "dataset": research, "purposes": ["research"], "accept": "operator"}, status=201
    )
    (theirs,) = await until(provider, "GET /negotiations", "REQUESTED")
    assert (theirs["waiting"], theirs["peer"], theirs["decision"]["result"]) == ("approval", two.consumer.site.id, "permit")
    await provider("POST /negotiations/{pid}/counter", {"policy": purpose_policy("research")}, pid=theirs["pid"])
    await until(consumer, "GET /negotiations", "OFFERED")
    await consumer("POST /negotiations/{pid}/approve", pid=asked["pid"])
    done = await consumer("GET /negotiations/{pid}", query="?wait=final", pid=asked["pid"])
    assert (done["state"], done["peer_pid"], done["waiting"]) == ("FINALIZED", theirs["pid"], None)
    agreement = await consumer("GET /agreements/{id}", id=done["agreement"])
    assert agreement in (await consumer("GET /agreements", query=f"?dataset={research}&peer=hospital"))["items"]
    assert agreement["document"]["assigner"] == two.provider.site.id

    # one that the provider begins and the consumer declines
    offer = published["offers"][0]["id"]
    await provider("POST /negotiations/offers", {"peer": "biopharma", "dataset": research, "offer": offer}, status=201)
    (offered,) = await until(consumer, "GET /negotiations", "OFFERED")
    await consumer("POST /negotiations/{pid}/terminate", {"reason": "no need"}, pid=offered["pid"])
    (declined,) = await until(provider, "GET /negotiations", "TERMINATED")
    assert declined["reasons"] == ["no need"]

    # what was decided about it, what others would see, and who would lose by other terms
    explained = await provider("GET /negotiations/{pid}/decision", pid=theirs["pid"])
    assert (explained["decision"]["result"], explained["refusal"], explained["peer"]) == ("permit", None, two.consumer.site.id)
    seen = await provider("POST /simulate", {"as": "biopharma", "purposes": ["care"], "dataset": research})
    assert [offer["request"]["result"] for item in seen["items"] for offer in item["offers"]] == ["permit"]
    fewer = await provider("POST /simulate/change", {"offer": offer, "policy": purpose_policy("care")})
    assert [(each["name"], each["effect"]) for each in fewer["items"]] == [("biopharma", "narrower")]
    assert [each["id"] for each in fewer["agreements"]["items"]] == [agreement["id"]]

    # a policy from templates, before it is published
    listed = (await provider("GET /templates"))["items"]
    assert (await provider("GET /templates/{id}", id="count"))["id"] in {each["id"] for each in listed}
    drafted = await provider("POST /policies", {"templates": [{"template": "count", "parameters": {"times": 3}}]})
    assert (drafted["refused"], drafted["document"]["permission"][0]["action"]) == (False, "use")

    # transfers, by hand
    begun = await consumer("POST /transfers", {"agreement": agreement["id"]}, status=201)
    started = await consumer("GET /transfers/{pid}", query="?wait=started", pid=begun["pid"])
    edr = await consumer("GET /transfers/{pid}/edr", pid=begun["pid"])
    (running,) = await until(provider, "GET /transfers", "STARTED")
    judged = await provider("GET /transfers/{pid}/decision", pid=running["pid"])
    assert (judged["kind"], judged["decision"]["result"], judged["terms"]["@id"]) == ("transfer", "permit", agreement["id"])
    read = await call(two.consumer.http, "GET", edr["endpoint"], headers={"Authorization": f"Bearer {edr['authorization']}"})
    assert (started["state"], read.status, len(read.body)) == ("STARTED", 200, 5000)
    await consumer("POST /transfers/{pid}/suspend", {"reason": "lunch"}, pid=begun["pid"])
    await until(consumer, "GET /transfers", "SUSPENDED")
    assert (await two.consumer.manage("GET", f"/transfers/{begun['pid']}/edr")).status == 409
    await consumer("POST /transfers/{pid}/resume", pid=begun["pid"])
    await until(consumer, "GET /transfers", "STARTED")
    await two.consumer.state(Kind.TRANSFER, begun["pid"], "STARTED")
    await consumer("POST /transfers/{pid}/complete", pid=begun["pid"])
    assert (await consumer("GET /transfers/{pid}", query="?wait=final", pid=begun["pid"]))["state"] == "COMPLETED"
    second = await consumer("POST /transfers", {"agreement": agreement["id"]}, status=201)
    await consumer("POST /transfers/{pid}/terminate", pid=second["pid"])
    assert (await consumer("GET /transfers/{pid}", query="?wait=final", pid=second["pid"]))["reasons"] == ["ended by an operator"]

    # what was used of it, and that nothing is owed
    usage = await provider("GET /agreements/{id}/usage", id=agreement["id"])
    assert (usage["role"], usage["cost"]) == ("provider", None)
    assert (await provider("GET /agreements/{id}/credit", id=agreement["id"]))["locked_bytes"] == 0
    nothing = await provider("POST /agreements/{id}/release-credit", status=409, id=agreement["id"])
    assert "no credit" in nothing["detail"]  # tests/api_management/test_credit_api.py has some
    unpriced = await consumer("GET /agreements/{id}/invoice", status=404, id=agreement["id"])
    assert "has no prices" in unpriced["detail"]  # tests/api_management/test_billing_api.py has some
    assert (await consumer("POST /agreements/{id}/statement", id=agreement["id"]))["outcome"] == "agreed"

    # what proves it, which is no JSON: tests/api_management/test_evidence_api.py looks into it
    proof = await two.provider.manage("GET", f"/agreements/{quoted(agreement['id'])}/evidence")
    (_, fact, *_) = await two.consumer.evidence(begun["pid"])
    receipt = await two.consumer.manage("GET", f"/evidence/{fact.sequence}/cose")
    provider.used |= {"GET /agreements/{id}/evidence", "GET /evidence/{sequence}/cose"}
    assert (proof.status, verify(proof.body).sound, receipt.status) == (200, True, 200)

    # and no more of them
    third = await consumer("POST /transfers", {"agreement": agreement["id"]}, status=201)
    await consumer("GET /transfers/{pid}", query="?wait=started", pid=third["pid"])
    no_duty = await provider("POST /agreements/{id}/performances", {"duty": "/obligation/0"}, status=400, id=agreement["id"])
    assert (no_duty["pointer"], "it has none" in no_duty["detail"]) == ("/duty", True)  # tests/control_billing/test_performed.py has one
    closed = await provider("POST /agreements/{id}/close", {"reason": "the study is over"}, id=agreement["id"])
    assert (closed["closed_by"], closed["reason"]) == ("us", "the study is over")
    assert await provider("POST /agreements/{id}/close", {"reason": "again"}, id=agreement["id"]) == closed
    ended = await consumer("GET /transfers/{pid}", query="?wait=final", pid=third["pid"])
    assert (ended["code"], ended["reasons"]) == ("AGREEMENT_CLOSED", ["the agreement was closed: the study is over"])
    refused = await two.consumer.manage("POST", "/transfers", {"agreement": agreement["id"]})
    assert (refused.status, "was closed" in refused.json["detail"]) == (409, True), "who was told does not ask again"

    # one call for all of it, watched
    async with asyncio.timeout(20), events(two.consumer, "?after=now") as feed:
        consumer.used.add("GET /events")
        out = str(two.consumer.site.root / "out" / "pulled")
        order = await consumer("POST /pulls", {"peer": "hospital", "dataset": "urn:test:first", "out": out}, status=201)
        stages = [order["stage"]]
        async for what, event in feed:
            if what == "pull":
                stages.append(event["detail"]["stage"])
                if stages[-1] in ("done", "failed"):
                    break
    assert list(dict.fromkeys(stages)) == ["negotiate", "transfer", "download", "complete", "done"]
    assert await asyncio.to_thread(Path(out).read_bytes) == b"x" * 5000
    pulled = await consumer("GET /pulls/{id}", id=order["id"])
    assert (pulled["received_bytes"], pulled in (await consumer("GET /pulls"))["items"]) == (5000, True)
    assert "is at `done`" in (await consumer("POST /pulls/{id}/end", status=409, id=order["id"]))["detail"]
    assert "is at `done`" in (await consumer("POST /pulls/{id}/cancel", status=409, id=order["id"]))["detail"]
    told = (await consumer("GET /processes/{pid}/evidence", pid=pulled["negotiation"]))["items"]
    assert [e["sequence"] for e in told] == sorted({e["sequence"] for e in told})
    assert {e["pid"] for e in told} == {pulled["negotiation"]}
    kinds = [(await consumer("GET /processes/{id}", id=pulled[kind]))["kind"] for kind in ("negotiation", "transfer")]
    assert kinds == ["negotiation", "transfer"]
    for kind in ("negotiation", "transfer"):  # as a statement, evidence and the operator over there name it
        theirs = (await consumer(f"GET /{kind}s/{{pid}}", pid=pulled[kind]))["peer_pid"]
        assert await consumer("GET /processes/{id}", id=theirs) == {"kind": kind, "pid": pulled[kind]}
    assert "no negotiation or transfer `urn:x`" in (await consumer("GET /processes/{id}", id="urn:x", status=404))["detail"]

    # the ledger of all that: what is in it, the proof, and what may be erased
    (log,) = (await provider("GET /ledger"))["logs"]
    last = (await provider("GET /ledger/entries", query="?first=0&limit=1"))["items"][0]
    assert (last["index"], last["salt"] is not None, log["size"] > 0) == (0, True, True)
    for route, path in (("proof/{index}", "proof/0"), ("tile/{path}", "tile/entries/000.p/1")):
        provider.used.add(f"GET /ledger/{route}")
        assert (await two.provider.manage("GET", f"/ledger/{path}")).status == 200
    await provider("DELETE /events/{sequence}/detail", status=204, sequence=str(last["sequence"]))
    assert (await provider("GET /ledger/entries", query="?first=0&limit=1"))["items"] == [last | {"detail": None, "salt": None}]
    cosigned = await provider("POST /ledger/witnesses/{id}", id="biopharma")
    assert cosigned in (await provider("GET /ledger"))["cosigned"]
    assert cosigned["size"] >= log["size"]
    (held,) = (await consumer("GET /ledger"))["witnessed"]
    assert held["size"] >= cosigned["size"]
    await provider("POST /ledger/witnesses/{id}", status=404, id="nobody")
    await provider("POST /ledger/witnesses/{id}/forgive", status=404, id="biopharma")
    await provider("POST /transfers/{pid}/settle-dispute", status=404, pid="urn:uuid:no-account")

    # letters that the other side will not take: one is sent again, one is given up
    operator = Operator(desk.us)
    for verb in ("replay", "discard"):
        agreed = pair.agreement(desk.us, desk.peer, Role.CONSUMER)
        process = await desk.us.put(pair.transfer(desk.us, desk.peer, "STARTED", Role.CONSUMER, agreed), agreed)
        desk.peer.script = lambda _m, _p, _d: (400, {"code": "no", "reason": ["not now"]})
        await operator("POST /transfers/{pid}/suspend", pid=process.pid)
        (letter,) = await letters(operator)
        assert (letter["pid"], letter["move"], "not now" in letter["error"]) == (process.pid, "TransferSuspensionMessage", True)
        desk.peer.script = lambda _m, _p, _d: None
        if verb == "replay":
            assert await operator("POST /dead-letters/{id}/replay", id=letter["id"]) == {"replayed": letter["id"]}
            await desk.us.state(Kind.TRANSFER, process.pid, "SUSPENDED")
        else:
            await operator("DELETE /dead-letters/{id}", status=204, id=letter["id"])
        assert (await operator("GET /dead-letters"))["items"] == []
    await no_longer_due(desk)

    assert await provider("POST /reload") == {"changed": []}
    await provider("DELETE /datasets/{id}", status=204, id=research)
    assert (await two.provider.manage("GET", f"/datasets/{research}")).status == 404
    assert provider.used | consumer.used | operator.used == table()


async def no_longer_due(desk: Desk) -> None:
    """A letter whose process has ended, or waits for the answer to another message, says so when it is replayed."""
    desk.peer.script = lambda _m, path, _d: (400, {"code": "no"}) if path.endswith("/suspension") else (503, None)
    agreed = pair.agreement(desk.us, desk.peer, Role.CONSUMER)
    process = await desk.us.put(pair.transfer(desk.us, desk.peer, "STARTED", Role.CONSUMER, agreed), agreed)
    await desk.us.asked("POST", f"/transfers/{process.pid}/suspend", {})
    (letter,) = await letters(Operator(desk.us))
    await desk.us.asked("POST", f"/transfers/{process.pid}/complete", {})
    waiting = await desk.us.asked("POST", f"/dead-letters/{letter['id']}/replay", status=409)
    assert waiting["detail"] == "`TransferCompletionMessage` of its transfer has no answer yet; replay it when that has one"
    desk.peer.script = lambda _m, _p, _d: None
    await desk.us.state(Kind.TRANSFER, process.pid, "COMPLETED")
    over = await desk.us.asked("POST", f"/dead-letters/{letter['id']}/replay", status=409)
    assert over["detail"].startswith("its transfer is COMPLETED now, where `TransferSuspensionMessage` has no place; `connector discard ")


async def until(operator: Operator, route: str, state: str) -> list[Any]:
    """The processes in `state` with nothing in flight, as soon as there are any."""
    async with asyncio.timeout(10), events(operator.at) as feed:
        async for _ in feed:
            items = [p for p in (await operator(route, query=f"?state={state}"))["items"] if p["in_flight"] is None]
            if items:
                return items
    raise AssertionError("the feed ended")


async def letters(operator: Operator) -> list[Any]:
    """The dead letters, as soon as there are any."""
    async with asyncio.timeout(10), events(operator.at) as feed:
        async for _ in feed:
            if items := (await operator("GET /dead-letters"))["items"]:
                return list(items)
    raise AssertionError("the feed ended")


# ---- who is let in


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        TOKEN,
        "Bearer ü",
    ],
)
async def test_without_the_admin_token_every_address_says_the_same(desk: Desk, said: str | None):
    url = f"http://127.0.0.1:{desk.us.connector.ports['management']}"
    headers = {"Authorization": said} if said is not None else {}
    found = []
    for method, path in (
        ("GET", "/v1/self"),
        ("GET", "/v1/datasets/x"),
        ("POST", "/v1/reload"),
        ("GET", "/nothing"),
        ("PATCH", "/v1/self"),
    ):
        answer = await call(desk.us.http, method, url + path, b"{}" if method == "POST" else None, headers)
        found.append((answer.status, {k: v for k, v in answer.json.items() if k != "trace"}, answer.headers["WWW-Authenticate"]))
    assert all(each == found[0] for each in found)
    assert found[0][0] == 401
    assert "`connector init` or `connector token`" in found[0][1]["detail"]


async def test_bytes_that_are_no_text_are_no_token(desk: Desk):
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.us.connector.ports["management"])
    writer.write(b"GET /v1/self HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_the_token_stands_nowhere_in_the_clear(desk: Desk):
    held = [path.read_bytes() for path in desk.us.site.root.rglob("*") if path.is_file()]
    assert held
    assert not any(TOKEN.encode() in content for content in held)


async def test_the_listener_is_on_loopback(desk: Desk):
    assert desk.us.site.settings.management.host == "127.0.0.1"
    with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable: whichever, nobody is there
        await asyncio.open_connection("127.0.0.2", desk.us.connector.ports["management"])


# ---- mistakes


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/datasets/x", None, 404, "`x` is not published here"),
        ("DELETE", "/datasets/x", None, 404, "`x` is not published here"),
        ("PUT", "/datasets/x", {"title": "t", "source": {"type": "file"}, "policies": []}, 400, "needs at least one policy"),
        ("PUT", "/datasets/x", {"title": "t", "source": {"type": "ftp"}, "policies": [OPEN]}, 400, "known are file, http"),
        ("PUT", "/datasets/x", {"title": "t", "source": {"type": "file", "path": "none"}, "policies": [OPEN]}, 502, "none"),
        ("PUT", "/datasets/x", {"title": "t", "source": {"type": "file", "path": "../keys"}, "policies": [OPEN]}, 400, "without it"),
        ("PUT", "/datasets/x", {"title": "t", "source": {}, "policies": [{"permission": [{"action": "eat"}]}]}, 422, "write"),
        ("POST", "/catalog", {"peer": "nobody"}, 404, "known are `biopharma`, `hospital`, `stranger`"),
        ("POST", "/catalog", {"peer": "biopharma", "after": "http://[::1"}, 400, "does not belong to"),
        ("POST", "/catalog", {"peer": "biopharma", "after": "http://evil.test/dsp"}, 400, "does not belong to"),
        ("POST", "/negotiations", {"peer": "nobody", "dataset": "d"}, 404, "known are"),
        ("POST", "/negotiations", {"peer": "biopharma", "dataset": "d", "policy": OPEN}, 400, "give `offer`"),
        (
            "POST",
            "/negotiations",
            {"peer": "biopharma", "dataset": "d", "offer": "o", "policy": OPEN, "accept": "all"},
            400,
            "same, permitted",
        ),
        ("POST", "/negotiations/offers", {"peer": "biopharma", "dataset": "d", "offer": "o"}, 404, "not published here"),
        ("GET", "/negotiations/x", None, 404, "no negotiation `x`"),
        ("GET", "/negotiations/x?wait=final", None, 404, "no negotiation `x`"),
        ("GET", "/negotiations/x?wait=soon", None, 400, "`final` or `started`"),
        ("GET", "/negotiations?limit=0", None, 400, "from 1 to 500"),
        ("GET", "/negotiations?limit=501", None, 400, "from 1 to 500"),
        ("GET", f"/datasets?limit={'9' * 5000}", None, 400, "from 1 to 500"),
        ("GET", "/negotiations?after=xyz", None, 400, "not a cursor of this list"),
        ("GET", "/negotiations?peer=nobody", None, 404, "known are"),
        ("POST", "/negotiations/x/approve", None, 404, "no negotiation `x`"),
        ("POST", "/agreements/x/performances", {}, 400, "missing required field `duty`"),
        ("POST", "/negotiations/x/counter", {}, 400, "missing required field `policy`"),
        ("GET", "/agreements/x", None, 404, "no agreement `x`"),
        ("GET", "/agreements/x/usage", None, 404, "no agreement `x`"),
        ("GET", "/agreements/x/invoice?format=pdf", None, 400, "one of json, csv, html"),
        ("POST", "/transfers", {"agreement": "x"}, 404, "not one under which we are the consumer"),
        ("GET", "/transfers/x/edr", None, 404, "no transfer `x`"),
        ("POST", "/pulls", {"peer": "biopharma", "dataset": "d", "out": "/etc/passwd"}, 400, "director"),
        ("POST", "/pulls", {"peer": "biopharma", "dataset": "d", "out": "a\0b"}, 400, "control characters"),
        ("GET", "/pulls/x", None, 404, "no pull `x`"),
        ("GET", "/negotiations/x/decision", None, 404, "no negotiation `x`; `GET /v1/negotiations` lists what is"),
        ("GET", "/transfers/x/decision", None, 404, "no transfer `x`; `GET /v1/transfers` lists what is"),
        ("GET", "/negotiations/x/decision?lang=fr", None, 400, "one of en, zh"),
        ("POST", "/simulate", {}, 400, "say who"),
        ("POST", "/simulate", {"as": "nobody"}, 404, "known are `biopharma`, `hospital`, `stranger`"),
        ("POST", "/simulate", {"as": "biopharma", "at": "soon"}, 400, "write it as 2030-12-31T18:00:00Z"),
        ("POST", "/simulate", {"as": "biopharma", "at": "2030-12-31T18:00:00"}, 400, "with its zone"),
        ("POST", "/simulate", {"as": "biopharma", "at": "9999-12-31T23:59:59.999999-23:59"}, 400, "which is no instant"),
        ("POST", "/simulate", {"as": "biopharma", "dataset": "urn:none"}, 404, "`GET /v1/datasets` lists what is"),
        ("POST", "/simulate", {"as": "biopharma", "limit": 0}, 400, "from 1 to 500"),
        ("POST", "/simulate", {"as": "biopharma", "until": "x"}, 400, "unknown field `until`"),
        ("POST", "/simulate/change", {"dataset": "d"}, 400, "missing required field `policy`"),
        ("POST", "/simulate/change", {"policy": OPEN}, 400, "`offer` or `dataset`"),
        ("POST", "/simulate/change", {"policy": OPEN, "offer": "urn:none"}, 404, "`GET /v1/datasets` lists what is"),
        ("GET", "/events?after=then", None, 400, "whole number"),
        ("GET", f"/events?after={2**63}", None, 400, "whole number"),
        ("GET", f"/events?after={'9' * 5000}", None, 400, "whole number"),
        ("POST", "/dead-letters/x/replay", None, 409, "no dead letter `x`"),
        ("DELETE", "/dead-letters/x", None, 404, "no dead letter `x`"),
        ("GET", "/nothing", None, 404, "nothing at this address"),
    ],
)
async def test_a_mistake_is_a_problem_that_says_what_would_be_right(desk: Desk, method: str, path: str, body: Any, status: int, says: str):
    answer = await desk.us.manage(method, path, body)
    problem = answer.json
    assert (answer.status, problem["status"]) == (status, status), problem
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert says in problem["detail"] + " ".join(problem["reasons"])
    assert len(problem["trace"]) == 32


async def test_a_problem_points_to_its_place(desk: Desk):
    source = {"type": "file", "path": "x"}
    for body, pointer in (
        ({"title": 1}, "/title"),
        ({"title": "t", "source": source, "policies": [OPEN, 1]}, "/policies/1"),
        ({"title": "t", "source": {"type": "ftp"}, "policies": [OPEN]}, "/source/type"),
        ({"title": "t", "source": source, "policies": [OPEN], "properties": {"bare": 1}}, "/properties"),
    ):
        assert (await desk.us.manage("PUT", "/datasets/x", body)).json["pointer"] == pointer


async def test_methods_media_and_sizes_have_their_statuses(desk: Desk):
    wrong = await desk.us.manage("DELETE", "/datasets")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET")
    assert (await desk.us.manage("POST", "/pulls", b"{}", **{"Content-Type": "text/plain"})).status == 415
    assert (await desk.us.manage("POST", "/pulls", b"{}", **{"Content-Encoding": "gzip"})).status == 415
    assert (await desk.us.manage("POST", "/pulls", b" " * (1 << 20))).status == 400
    async with desk.us.http.post(
        f"http://127.0.0.1:{desk.us.connector.ports['management']}/v1/pulls",
        data=io.BytesIO(b" " * (1 << 21)),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    ) as answer:
        assert (answer.status, (await answer.json())["type"]) == (413, "urn:qiao:problem:too-large")


async def test_a_peer_that_fails_is_told_from_one_that_refuses(desk: Desk):
    desk.peer.script = lambda _m, _p, _d: (403, {"@type": "CatalogError", "code": "no", "reason": ["not for you"]})
    refused = await desk.us.manage("POST", "/catalog", {"peer": "biopharma"})
    assert (refused.status, refused.json["type"]) == (502, "urn:qiao:problem:peer-refused")
    assert refused.json["reasons"] == ["not for you", MENDED], "what the peer says, and what may mend it"
    desk.peer.script = lambda _m, _p, _d: (200, None)
    failed = await desk.us.manage("POST", "/catalog", {"peer": "biopharma"})
    assert (failed.status, failed.json["type"]) == (502, "urn:qiao:problem:peer-failed")
    desk.peer.script = lambda _m, _p, _d: None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["biopharma", "urn:o", "Offer", "use"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["peer", "dataset", "offer", "policy", "policies", "source", "out", "title", "permission", "@id"]), below
        )
    ),
    max_leaves=12,
)
POSTS = [route.split(" ") for route in sorted(table()) if route.startswith(("POST", "PUT"))]


@settings(max_examples=150)
@given(st.sampled_from(POSTS), JSON | st.binary(max_size=50), st.text(st.characters(codec="utf-8"), max_size=12))
async def test_no_call_breaks_the_connector(desk: Desk, route: list[str], body: Any, id: str):
    method, path = route
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await desk.us.manage(method, path.replace("{id}", quoted(id)).replace("{pid}", quoted(id)), data)
    assert answer.status < 500 or answer.json["type"].startswith("urn:qiao:problem:peer"), (route, body, answer.body)
