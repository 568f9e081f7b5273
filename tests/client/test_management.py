"""The management client: each method is the call that the API documents, and its answer typed."""

import json
import re
from typing import Any

import pytest

from connector.client.management import ManagementClient, ManagementError
from connector.client.views import Event, Pull
from tests.api.test_management_api import table
from tests.fake_connector import TOKEN, FakeConnector, event, moving, problem, process_view, pull_view, serving

PAGE: dict[str, Any] = {"items": [], "next": None}
N, T = process_view(), process_view(pid="urn:uuid:t1")
DATASET = {"id": "a/b", "title": "A", "offers": [{"id": "o", "policy": {}, "manual": True}]}
AGREEMENT = {"id": "g", "peer": "p", "dataset": "d", "provider": "p", "consumer": "c", "document": {}}
USAGE: dict[str, Any] = {"agreement": "g", "role": "provider", "at": "2026-01-01T00:00:00.000Z", "counts": {}, "signed": {}, "cost": None}
EXPLAINED = {"kind": "negotiation", "pid": "n", "role": "consumer", "peer": "did:web:h", "state": "TERMINATED"}
SIMULATED: dict[str, Any] = {"as": {"id": "did:web:h"}, "at": "2030-01-01T00:00:00.000Z", "items": [], "next": None}
OTHER_TERMS: dict[str, Any] = {"dataset": "d", "at": "2030-01-01T00:00:00.000Z", "replaced": [], "items": [], "agreements": PAGE}
PID = "urn%3Auuid%3An1"

# (method of the client, arguments, the call, its path, its body, the answer)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], str, str, Any, Any]] = [
    ("own", (), {}, "GET", "/v1/self", None, {"id": "did:web:a", "name": "a", "role": "r", "protocol": "u", "data": "d", "version": "1"}),
    ("participants", (), {}, "GET", "/v1/participants", None, {"items": [{"id": "did:web:a", "name": "a", "role": "r"}], "next": None}),
    ("reload", (), {}, "POST", "/v1/reload", {}, {"changed": ["x"]}),
    ("ledger", (), {}, "GET", "/v1/ledger", None, {"logs": []}),
    ("witness", ("did:web:a%3A1",), {}, "POST", "/v1/ledger/witnesses/did%3Aweb%3Aa%253A1", {}, {"peer": "did:web:a%3A1"}),
    ("ledger_tile", ("tile/0/000", "h/ledger"), {}, "GET", "/v1/ledger/tile/0/000?origin=h/ledger", None, {}),
    ("publish", ("a/b", {"title": "A"}), {}, "PUT", "/v1/datasets/a%2Fb", {"title": "A"}, DATASET),
    ("dataset", ("a/b",), {}, "GET", "/v1/datasets/a%2Fb", None, DATASET),
    ("datasets", (), {"after": "c", "limit": 2}, "GET", "/v1/datasets?after=c&limit=2", None, PAGE),
    ("withdraw", ("a/b",), {}, "DELETE", "/v1/datasets/a%2Fb", None, None),
    ("catalog", ("hospital",), {"after": "t"}, "POST", "/v1/catalog", {"peer": "hospital", "after": "t"}, {"catalog": {}, "next": None}),
    ("catalog_dataset", ("h", "d"), {}, "POST", "/v1/catalog/dataset", {"peer": "h", "dataset": "d"}, {"dataset": {"@id": "d"}}),
    ("negotiate", ("h", "d"), {"purposes": ["p"]}, "POST", "/v1/negotiations", {"peer": "h", "dataset": "d", "purposes": ["p"]}, N),
    ("offer", ("h", "d", "o"), {}, "POST", "/v1/negotiations/offers", {"peer": "h", "dataset": "d", "offer": "o"}, N),
    ("negotiations", (), {"state": "AGREED"}, "GET", "/v1/negotiations?state=AGREED", None, PAGE),
    ("negotiation", ("urn:uuid:n1",), {}, "GET", f"/v1/negotiations/{PID}", None, N),
    ("negotiation", ("n",), {"wait": "final", "timeout_seconds": 5.0}, "GET", "/v1/negotiations/n?wait=final&timeout_seconds=5.0", None, N),
    ("approve", ("n",), {}, "POST", "/v1/negotiations/n/approve", {}, N),
    ("counter", ("n", {"permission": []}), {}, "POST", "/v1/negotiations/n/counter", {"policy": {"permission": []}}, N),
    ("terminate_negotiation", ("n", "why"), {}, "POST", "/v1/negotiations/n/terminate", {"reason": "why"}, N),
    ("agreements", (), {"dataset": "d"}, "GET", "/v1/agreements?dataset=d", None, PAGE),
    ("agreement", ("g",), {}, "GET", "/v1/agreements/g", None, AGREEMENT),
    ("close_agreement", ("g", "why"), {}, "POST", "/v1/agreements/g/close", {"reason": "why"}, AGREEMENT),
    ("perform", ("g", "/d"), {"by": "p"}, "POST", "/v1/agreements/g/performances", {"duty": "/d", "by": "p"}, AGREEMENT),
    ("usage", ("a/b",), {}, "GET", "/v1/agreements/a%2Fb/usage", None, USAGE),
    ("credit", ("a/b",), {}, "GET", "/v1/agreements/a%2Fb/credit", None, {"agreement": "a/b", "locked_bytes": 0}),
    (
        "release_credit",
        ("g", "why"),
        {},
        "POST",
        "/v1/agreements/g/release-credit",
        {"reason": "why"},
        {"agreement": "g", "locked_bytes": 9},
    ),
    ("invoice", ("g",), {}, "GET", "/v1/agreements/g/invoice?format=json", None, {"total": "1.00"}),
    (
        "invoice",
        ("g", "csv"),
        {"begins": "2026-01-01", "ends": "2026-02-01"},
        "GET",
        "/v1/agreements/g/invoice?format=csv&from=2026-01-01&to=2026-02-01",
        None,
        {"total": "1.00"},
    ),
    ("transfer", ("g",), {}, "POST", "/v1/transfers", {"agreement": "g", "format": "HttpData-PULL"}, T),
    ("transfers", (), {"peer": "h"}, "GET", "/v1/transfers?peer=h", None, PAGE),
    ("transfer_process", ("t",), {"wait": "started"}, "GET", "/v1/transfers/t?wait=started&timeout_seconds=30.0", None, T),
    ("move_transfer", ("t", "suspend"), {}, "POST", "/v1/transfers/t/suspend", {}, T),
    *(("move_transfer", ("t", act), {}, "POST", f"/v1/transfers/t/{act}", {}, T) for act in ("resume", "complete", "terminate")),
    ("edr", ("t",), {}, "GET", "/v1/transfers/t/edr", None, {"endpoint": "u", "authorization": "x", "expires": None}),
    ("process", ("urn:uuid:n1",), {}, "GET", f"/v1/processes/{PID}", None, {"kind": "transfer", "pid": "urn:uuid:n1"}),
    ("pull", ("h", "d", "/x"), {}, "POST", "/v1/pulls", {"peer": "h", "dataset": "d", "out": "/x"}, pull_view("negotiate")),
    ("pulls", (), {}, "GET", "/v1/pulls", None, PAGE),
    ("cancel", ("p", "why"), {}, "POST", "/v1/pulls/p/cancel", {"reason": "why"}, pull_view("failed")),
    ("enough", ("p",), {}, "POST", "/v1/pulls/p/end", None, pull_view("download")),
    ("pull_order", ("p",), {}, "GET", "/v1/pulls/p", None, pull_view("done")),
    ("decision", ("negotiations", "n"), {"language": "zh"}, "GET", "/v1/negotiations/n/decision?lang=zh", None, EXPLAINED),
    ("decision", ("transfers", "t"), {}, "GET", "/v1/transfers/t/decision?lang=en", None, EXPLAINED),
    (
        "simulate",
        ("h",),
        {"at": "2030-01-01", "purposes": ["p"]},
        "POST",
        "/v1/simulate",
        {"as": "h", "at": "2030-01-01", "purposes": ["p"]},
        SIMULATED,
    ),
    (
        "simulate",
        (),
        {"claims": {"role": "x"}},
        "POST",
        "/v1/simulate",
        {"claims": {"role": "x"}},
        SIMULATED,
    ),
    (
        "what_if",
        ({"permission": []},),
        {"offer": "o", "agreements_after": "c"},
        "POST",
        "/v1/simulate/change",
        {"policy": {"permission": []}, "offer": "o", "agreements_after": "c"},
        OTHER_TERMS,
    ),
    (
        "negotiate",
        ("h", "d"),
        {"acceptance": [{"a": 1}], "accept": "operator"},
        "POST",
        "/v1/negotiations",
        {"peer": "h", "dataset": "d", "acceptance": {"a": 1}, "accept": "operator"},
        N,
    ),
    (
        "negotiate",
        ("h", "d"),
        {"acceptance": [{"a": 1}, {"b": 2}]},
        "POST",
        "/v1/negotiations",
        {"peer": "h", "dataset": "d", "acceptance": [{"a": 1}, {"b": 2}]},
        N,
    ),
    ("templates", (), {}, "GET", "/v1/templates", None, PAGE),
    ("template", ("a/b",), {}, "GET", "/v1/templates/a%2Fb", None, {"id": "a/b", "version": "1", "label": {}, "parameters": []}),
    ("draft", (), {"text": "offer", "language": "zh"}, "POST", "/v1/policies", {"text": "offer", "lang": "zh"}, {"refused": True}),
    ("draft", (), {"templates": []}, "POST", "/v1/policies", {"templates": [], "lang": "en"}, {"refused": True}),
    ("transparent", (7,), {}, "GET", "/v1/evidence/7/cose", None, {}),
    ("erase", (7,), {}, "DELETE", "/v1/events/7/detail", None, None),
    ("statement", ("a/b",), {}, "POST", "/v1/agreements/a%2Fb/statement", None, {"outcome": "agreed"}),
    ("settle_dispute", ("a/b", "why"), {}, "POST", "/v1/transfers/a%2Fb/settle-dispute", {"reason": "why"}, {"status": "open"}),
    ("evidence", ("n",), {}, "GET", "/v1/processes/n/evidence", None, PAGE),
    ("dead_letters", (), {}, "GET", "/v1/dead-letters", None, PAGE),
    ("replay", ("x",), {}, "POST", "/v1/dead-letters/x/replay", {}, {"replayed": "x"}),
    ("discard", ("x",), {}, "DELETE", "/v1/dead-letters/x", None, None),
]


@pytest.mark.asyncio
async def test_each_method_makes_its_call():
    answers = {(method, path.partition("?")[0]): (200, answer) for _, _, _, method, path, _, answer in CALLS}
    with serving(FakeConnector(answers)) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            for name, arguments, options, method, path, body, _ in CALLS:
                fake.asked.clear()
                await getattr(client, name)(*arguments, **options)
                (asked,) = fake.asked
                assert (asked.method, asked.path, asked.body) == (method, path, body)
                assert ("Idempotency-Key" in asked.headers) is (name in ("negotiate", "offer", "transfer", "pull"))


def test_each_method_is_tested():
    public = {name for name in dir(ManagementClient) if not name.startswith("_")}
    assert public - {name for name, *_ in CALLS} == {"follow", "events", "live", "agreement_evidence", "forgive"}


# Of the API, what programs ask for that read whole logs, and what `agreement_evidence` and `events` ask for (tested below).
BY_OTHERS = {
    "GET ",  # for who writes a program
    "GET /ledger/entries",
    "GET /ledger/proof/{index}",
    "POST /ledger/witnesses/{id}/forgive",
    "GET /agreements/{id}/evidence",
    "GET /events",
}


def test_each_call_of_the_api_has_a_method():
    asked = {f"{method} {path.partition('?')[0].removeprefix('/v1')}" for _, _, _, method, path, _, _ in CALLS}
    assert {route for route in table() - BY_OTHERS if not any(matches(route, call) for call in asked)} == set()


def matches(route: str, call: str) -> bool:
    return re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^ ]+", re.escape(route)), call) is not None


@pytest.mark.asyncio
async def test_a_peer_is_forgiven_by_name_or_id():
    answers = {("GET", "/v1/participants"): (200, {"items": [{"id": "did:web:a", "name": "a", "role": "r"}], "next": None})}
    path = "/v1/ledger/witnesses/did%3Aweb%3Aa/forgive"
    with serving(FakeConnector(answers | {("POST", path): (200, {"forgiven": "did:web:a"})})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            await client.forgive("a")
            await client.forgive("did:web:a")
    assert fake.paths() == ["GET /v1/participants", f"POST {path}"] * 2


@pytest.mark.asyncio
async def test_evidence_comes_piece_by_piece_or_says_why_not():
    path = "/v1/agreements/urn%3Aa/evidence"
    answers = [(200, {"kind": "evidence"}), (404, problem(404, "not-found", "there is no agreement"))]
    with serving(FakeConnector({("GET", path): answers})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            pieces = [piece async for piece in client.agreement_evidence("urn:a", witnesses="all")]
            assert json.loads(b"".join(pieces)) == {"kind": "evidence"}
            with pytest.raises(ManagementError, match="there is no agreement"):
                await anext(client.agreement_evidence("urn:a"))
    assert fake.paths() == [f"GET {path}?witnesses=all", f"GET {path}?witnesses=counterparty"]


@pytest.mark.asyncio
async def test_a_closed_client_says_so():
    client = ManagementClient("http://127.0.0.1:1", TOKEN)
    with pytest.raises(RuntimeError, match="async with"):
        await client.own()


@pytest.mark.asyncio
async def test_events_give_the_record_and_what_moves():
    with serving(FakeConnector(streams=[[event(5, "message-sent"), moving(pull_view("download"))]])) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            events = client.events(4)
            first, second = await anext(events), await anext(events)
            await events.aclose()
    assert isinstance(first, Event)
    assert isinstance(second, Pull)
    assert fake.paths() == ["GET /v1/events?after=4"]
