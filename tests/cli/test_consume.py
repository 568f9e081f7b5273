"""`connector catalog`, `get`, `pulls`: what a peer offers, one call to have it, and an exit code that can be relied on."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from connector.cli import consume, show
from connector.client.views import AgreementUsage, Pull
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.fake_connector import FakeConnector, event, moving, problem, pull_view

PID = "urn:uuid:p1"
PATH = "/v1/pulls/urn%3Auuid%3Ap1"
USAGE = {
    "agreement": "urn:a",
    "role": "consumer",
    "at": "2026-11-26T00:00:00Z",
    "counts": {"bytes": 400_000},
    "signed": {"bytes": 400_000},
    "cost": {"currency": "EUR", "amount": "1.25", "signed": "1.25"},
    "transfers": [{"transfer": "urn:t", "attested": "both", "counts": {"bytes": 400_000}}],
}
PURPOSE = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
RESEARCH = {"permission": [{"action": "use", "constraint": [PURPOSE]}]}


def catalog_page(first: int, count: int) -> dict[str, Any]:
    size = {"@value": "1440000", "@type": "xsd:nonNegativeInteger"}
    datasets = [
        {
            "@id": f"urn:d:{n}",
            "@type": "Dataset",
            "dct:title": f"Set {n}",
            "hasPolicy": [{"@id": f"o{n}", **RESEARCH}],
            "distribution": [{"dcat:byteSize": size}],
        }
        for n in range(first, first + count)
    ]
    return {"@id": "c", "@type": "Catalog", "dataset": datasets}


def stage(sequence: int, stage: str) -> bytes:
    return event(sequence, "pull", detail={"pull": PID, "stage": stage, "reasons": []})


def test_a_catalog_is_listed(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    page = catalog_page(1, 2)
    page["dataset"].append({"@id": "urn:\x1b[31mevil", "dct:title": {"@value": "two\nlines [bold]", "@language": "en"}, "hasPolicy": []})
    page["catalog"] = [{"@id": "urn:c:2", "dct:title": "Nested", "dataset": [{"@id": "urn:d:9"}]}]
    fake.answers[("POST", "/v1/catalog")] = (200, {"catalog": page, "next": "token"})
    ended = command("catalog", "hospital")
    assert ended.code == 0
    golden("catalog", ended.out)
    assert ended.err == "there is more; `--all` shows it\n"
    assert fake.bodies("POST", "/v1/catalog") == [{"peer": "hospital"}]


def test_all_pages_are_listed_when_asked_for(command: Command, fake: FakeConnector, home: Path):
    answers = [(200, {"catalog": catalog_page(n, 1), "next": following}) for n, following in ((1, "t1"), (2, "t2"), (3, None))]
    fake.answers[("POST", "/v1/catalog")] = answers
    ended = command("catalog", "hospital", "--all", "--json")
    assert [page["dataset"][0]["@id"] for page in json.loads(ended.out)["catalogs"]] == ["urn:d:1", "urn:d:2", "urn:d:3"]
    assert [body.get("after") for body in fake.bodies("POST", "/v1/catalog")] == [None, "t1", "t2"]


@pytest.mark.parametrize(
    "catalog", [{}, {"dataset": "x"}, {"dataset": [1, None], "catalog": {"catalog": 5}}, {"dataset": {"hasPolicy": "x", "distribution": 3}}]
)
def test_a_strange_catalog_is_shown_as_far_as_it_goes(command: Command, fake: FakeConnector, home: Path, catalog: dict[str, Any]):
    fake.answers[("POST", "/v1/catalog")] = (200, {"catalog": catalog, "next": None})
    assert command("catalog", "hospital").code == 0


def test_what_is_not_shown_of_a_catalog_is_said_with_its_reason(command: Command, fake: FakeConnector, home: Path):
    left_out = [{"id": "urn:d:3", "reasons": ["`/hasPolicy/0` has no rule"]}, {"id": "urn:d:4", "reasons": []}]
    fake.answers[("POST", "/v1/catalog")] = (200, {"catalog": catalog_page(1, 2), "next": None, "left_out": left_out})
    ended = command("catalog", "hospital")
    said = "not shown of `urn:d:3`, as it is not valid: `/hasPolicy/0` has no rule\nnot shown of `urn:d:4`, as it is not valid\n"
    assert (ended.code, ended.err) == (0, said)


def test_an_unknown_peer_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/catalog")] = (404, problem(404, "not-found", "no participant `hosptal`; did you mean `hospital`?"))
    ended = command("catalog", "hosptal")
    assert (ended.code, ended.err) == (1, "connector: no participant `hosptal`; did you mean `hospital`?\n")


def test_get_is_one_call_and_follows_it_to_the_end(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("negotiate"))
    done = pull_view(
        "done", received_bytes=9, size_bytes=9, sha256="cd" * 32, agreement="urn:a:1", transfer="urn:t:1", out="/data/x.csv", reused=True
    )
    fake.answers[("GET", PATH)] = [(200, pull_view("transfer")), (200, pull_view("download")), (200, done)]
    fake.streams = [[stage(2, "download"), moving(pull_view("download", received_bytes=5, size_bytes=9)), stage(3, "done")]]
    fake.answers[("GET", "/v1/agreements/urn%3Aa%3A1/usage")] = (
        200,
        USAGE | {"transfers": [USAGE["transfers"][0] | {"transfer": "urn:t:1"}]},
    )
    ended = command("get", "hospital", "urn:d:1", "--out", "in/x.csv", "--purpose", "research", "--purpose", "quality")
    assert ended.code == 0, ended.err
    golden("get", ended.out)
    assert ended.err == "looking for a contract\nasking for the transfer\ndownloading\n", "nobody negotiates what there is already"
    body = {"peer": "hospital", "dataset": "urn:d:1", "out": str(home / "in" / "x.csv"), "purposes": ["research", "quality"]}
    assert fake.bodies("POST", "/v1/pulls") == [body]
    assert fake.paths() == ["POST /v1/pulls", "GET /v1/events?after=now", *[f"GET {PATH}"] * 3, "GET /v1/agreements/urn%3Aa%3A1/usage"]


def test_data_without_an_end_are_taken_as_far_as_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("done"))
    ended = command("get", "hospital", "urn:d:1", "--out", "x", "--follow", "--max-bytes", "1000", "--for", "2.5")
    assert ended.code == 0, ended.err
    body = {"peer": "hospital", "dataset": "urn:d:1", "out": str(home / "x"), "most_bytes": 1000, "seconds": 2.5}
    assert fake.bodies("POST", "/v1/pulls") == [body]


def test_an_interruption_is_enough_of_data_without_an_end(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("download"))
    fake.answers[("POST", f"{PATH}/end")] = (200, pull_view("download"))
    fake.answers[("GET", PATH)] = (200, pull_view("download"))

    def interrupt() -> None:
        while not any("events" in path for path in fake.paths()):
            time.sleep(0.01)
        fake.answers[("GET", PATH)] = (200, pull_view("done", received_bytes=9, size_bytes=9))
        os.kill(os.getpid(), signal.SIGINT)

    fake.streams = [[moving(pull_view("download", received_bytes=5))], [stage(3, "done")], []]
    threading.Thread(target=interrupt, daemon=True).start()
    ended = command("get", "hospital", "urn:d:1", "--out", "x", "--follow")
    assert ended.code == 0, ended.err
    assert len(fake.bodies("POST", f"{PATH}/end")) == 1
    assert "goes on with it" not in ended.err


def test_an_interruption_before_anything_has_come_cancels_what_nobody_would_ever_end(command: Command, fake: FakeConnector, home: Path):
    fake.answers |= {
        ("POST", "/v1/pulls"): (201, pull_view("negotiate")),
        ("POST", f"{PATH}/end"): (409, problem(409, "contradiction", "the order is at `negotiate`")),
        ("POST", f"{PATH}/cancel"): (200, pull_view("failed", reasons=["it was interrupted"])),
        ("GET", PATH): (200, pull_view("negotiate")),
    }

    def interrupt() -> None:
        while not any("events" in path for path in fake.paths()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    fake.streams = [[], []]
    threading.Thread(target=interrupt, daemon=True).start()
    ended = command("get", "hospital", "urn:d:1", "--out", "x", "--follow")
    assert (ended.code, "it was interrupted" in ended.err) == (1, True)
    assert fake.bodies("POST", f"{PATH}/cancel") == [{"reason": "it was interrupted before any data had come"}]


@pytest.mark.parametrize("bound", [("--max-bytes", "0"), ("--for", "0"), ("--for", "-1"), ("--for", "inf"), ("--for", "1e12")])
def test_a_bound_of_nothing_or_behind_all_calendars_is_a_mistake(command: Command, fake: FakeConnector, home: Path, bound: tuple[str, str]):
    ended = command("get", "hospital", "urn:d:1", "--out", "x", "--follow", *bound)
    assert (ended.code, f"for {bound[0]}. Must be" in ended.err) == (2, True), ended.err
    assert fake.bodies("POST", "/v1/pulls") == []


def test_what_an_order_waits_for_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("negotiate"))
    fake.answers[("GET", PATH)] = [(200, pull_view("negotiate")), (200, pull_view("done"))]
    fake.streams = [[moving(pull_view("negotiate", reasons=["no connection to `http://peer` could be made"])), stage(2, "done")]]
    ended = command("get", "hospital", "urn:d:1", "--out", str(home / "x"))
    assert ended.code == 0
    assert ended.err == "looking for a contract\nlooking for a contract (no connection to `http://peer` could be made)\n"


def test_that_a_contract_is_negotiated_is_said_once_it_is(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("negotiate"))
    fake.answers[("GET", PATH)] = [(200, pull_view("negotiate", negotiation="urn:n:1")), (200, pull_view("done"))]
    fake.streams = [[stage(2, "done")]]
    assert command("get", "hospital", "urn:d:1", "--out", str(home / "x")).err == "looking for a contract\nnegotiating the contract\n"


def test_what_an_order_waits_for_again_and_again_is_said_once(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("download"))
    fake.answers[("GET", PATH)] = [(200, pull_view("download")), (200, pull_view("done"))]
    away = moving(pull_view("download", reasons=["no connection"]))
    fake.streams = [[away, moving(pull_view("download")), away, moving(pull_view("download")), stage(2, "done")]]
    assert command("get", "hospital", "urn:d:1", "--out", str(home / "x")).err == "downloading\ndownloading (no connection)\n"


def test_what_a_fetch_that_failed_has_come_to_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", PATH)] = (
        200,
        pull_view("failed", reasons=["the disk is full"], agreement="urn:a", transfer="urn:t", received_bytes=400_000),
    )
    fake.answers[("GET", "/v1/agreements/urn%3Aa/usage")] = (200, USAGE)
    ended = command("pulls", PID)
    assert (ended.code, ended.out) == (1, "")
    assert "proven 400.0 kB, signed for 400.0 kB; the agreement comes to 1.25 EUR so far\nconnector: `urn:d:1`" in ended.err


def test_a_refusal_shows_the_reasons_of_the_peer_and_ends_with_1(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("negotiate"))
    fake.answers[("GET", PATH)] = (
        200,
        pull_view("failed", reasons=["purpose `resale` is not among `research`\x1b[2J", "ask the data office"]),
    )
    fake.streams = [[]]
    ended = command("get", "hospital", "urn:d:1", "--out", "x.csv")
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines()[1:] == [
        "connector: `urn:d:1` of `did:web:hospital.example` was not fetched",
        "  - purpose `resale` is not among `research`",
        "  - ask the data office",
        "  - `connector catalog did:web:hospital.example` shows what it offers us",
    ]


def test_a_fetch_that_was_refused_says_where_more_is_told(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("failed", reasons=["Denied: no"], negotiation="urn:uuid:n1"))
    ended = command("get", "hospital", "urn:d:1", "--out", "x")
    assert ended.err.splitlines()[-2:] == ["  - Denied: no", "  - `connector explain urn:uuid:n1` says more"]


def test_what_an_order_had_to_begin_again_is_said_when_it_is_done(command: Command, fake: FakeConnector, home: Path):
    why = "the provider completed transfer `t` before all of the data had come"
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("done", reasons=[why]))
    ended = command("get", "hospital", "urn:d:1", "--out", str(home / "x"))
    assert (ended.code, why in ended.err, why in ended.out) == (0, True, False)


@pytest.mark.parametrize(("last", "code"), [("done", 0), ("failed", 1)])
def test_json_has_the_order_and_the_same_exit_code(command: Command, fake: FakeConnector, home: Path, last: str, code: int):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view(last, reasons=["why"]))
    ended = command("get", "hospital", "urn:d:1", "--out", "x.csv", "--json")
    assert ended.code == code
    assert json.loads(ended.out)["stage"] == last


def test_a_connector_that_goes_away_ends_with_1_and_says_how_to_go_on(
    command: Command, fake: FakeConnector, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("connector.client.transport.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("connector.client.transport.FIRST_RETRY_SECONDS", 0.02)
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("negotiate"))
    fake.answers[("GET", "/v1/events")] = (503, problem(503, "busy", "draining"))
    ended = command("get", "hospital", "urn:d:1", "--out", "x.csv")
    assert ended.code == 1
    assert f"`connector pulls {PID}` follows it" in ended.err
    assert "no answer from the connector" in ended.err


@pytest.mark.parametrize("size_bytes", [None, 9])
def test_who_looks_away_from_data_that_may_have_no_end_is_told_so(
    command: Command, fake: FakeConnector, home: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int | None
):
    monkeypatch.setattr("connector.client.transport.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("connector.client.transport.FIRST_RETRY_SECONDS", 0.02)
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("download", received_bytes=5, size_bytes=size_bytes))
    fake.answers[("GET", "/v1/events")] = (503, problem(503, "busy", "draining"))
    ended = command("get", "hospital", "urn:d:1", "--out", "x.csv")
    assert ("may have no end" in ended.err and "the same `get` with `--follow`" in ended.err) is (size_bytes is None)


def test_a_directory_is_no_place_for_a_download(command: Command, fake: FakeConnector, home: Path):
    ended = command("get", "hospital", "urn:d:1", "--out", ".")
    assert ended.code == 1
    assert "name the file in it" in ended.err
    assert fake.asked == []


def test_orders_are_listed(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    items = [
        pull_view("download", received_bytes=720_000, size_bytes=1_440_000),
        pull_view("failed", id="urn:uuid:p0", reasons=["no", "never"]),
    ]
    fake.answers[("GET", "/v1/pulls")] = (200, {"items": items, "next": None})
    golden("pulls", command("pulls").out)
    assert len(json.loads(command("pulls", "--json").out)["items"]) == 2


def test_an_order_can_be_followed_later(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", PATH)] = [(200, pull_view("download")), (200, pull_view("done", received_bytes=9, size_bytes=9))]
    fake.streams = [[]]
    ended = command("pulls", PID)
    assert ended.code == 0
    assert ended.out.startswith("file  /data/x.csv\n") or "file" in ended.out
    assert ended.err == "downloading\n"


def test_on_a_terminal_a_bar_moves(monkeypatch: pytest.MonkeyPatch):
    written = StringIO()
    terminal = Console(file=written, force_terminal=True, width=120, markup=False)
    monkeypatch.setattr(show, "console", lambda *, stderr: terminal)
    with consume._progress() as update:
        update(msgspec.convert(pull_view("negotiate"), Pull), None)
        loading = msgspec.convert(pull_view("download", received_bytes=500_000, size_bytes=1_000_000, transfer="urn:t"), Pull)
        update(loading, None)
        update(loading, msgspec.convert(USAGE, AgreementUsage))
    assert "downloading" in written.getvalue()
    assert "0.5/1.0 MB" in written.getvalue()
    assert "proven 500.0 kB, signed for 400.0 kB; the agreement comes to 1.25 EUR so far" in written.getvalue()


def test_of_data_without_an_end_no_part_of_a_whole_is_shown(monkeypatch: pytest.MonkeyPatch):
    written = StringIO()
    terminal = Console(file=written, force_terminal=True, width=80, markup=False)
    monkeypatch.setattr(show, "console", lambda *, stderr: terminal)
    with consume._progress() as update:
        update(msgspec.convert(pull_view("download", received_bytes=4_400, transfer="urn:t"), Pull), None)
    assert "downloading: 4.4 kB" in written.getvalue()
    assert "?" not in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", written.getvalue())


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_bar_stands_in_one_line_of_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: int):
    written = StringIO()
    terminal = Console(file=written, force_terminal=True, width=columns, markup=False)
    monkeypatch.setattr(show, "console", lambda *, stderr: terminal)
    with consume._progress() as update:
        loading = pull_view("download", received_bytes=230_200_000, size_bytes=500_000_000, transfer="urn:t")
        update(msgspec.convert(loading, Pull), msgspec.convert(USAGE, AgreementUsage))
    lines = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", written.getvalue()).splitlines()
    assert max(map(len, lines)) <= columns
    (bar,) = (line for line in lines if "downloading" in line)
    assert columns == 40 or "230.2/500.0 MB" in bar


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("attested", ["both", "consumer-only"])
def test_what_was_fetched_is_shown_with_who_attests_it_and_what_it_costs(
    command: Command, fake: FakeConnector, home: Path, usage: bool, attested: str
):
    fake.answers[("GET", PATH)] = (200, pull_view("done", agreement="urn:a", transfer="urn:t"))
    if usage:
        transfers = [each | {"attested": attested} for each in USAGE["transfers"]]
        fake.answers[("GET", "/v1/agreements/urn%3Aa/usage")] = (200, USAGE | {"transfers": transfers})
    ended = command("pulls", PID)
    assert ended.code == 0, ended.err
    shown = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in ended.out.splitlines()}
    assert shown["attested"] == (attested if usage else "provider-only")
    assert shown.get("signed for") == ("400000 bytes" if usage and attested == "both" else None)
    assert shown.get("cost so far") == ("1.25 EUR, of the agreement" if usage else None)


def test_the_number_of_connections_goes_along(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("done"))
    assert command("get", "hospital", "urn:d:1", "--out", "x.csv", "--parallel", "3").code == 0
    assert fake.bodies("POST", "/v1/pulls")[-1]["parallel"] == 3
    assert command("get", "hospital", "urn:d:1", "--out", "x.csv", "--parallel", "17").code != 0


@pytest.mark.parametrize("said", ["5-9", "5-", "-9"])
def test_a_range_goes_along_as_it_was_said(command: Command, fake: FakeConnector, home: Path, said: str):
    fake.answers[("POST", "/v1/pulls")] = (201, pull_view("done"))
    ended = command("get", "hospital", "urn:d:1", "--range", said, "--out", "x.csv")
    assert ended.code == 0, ended.err
    assert fake.bodies("POST", "/v1/pulls")[-1]["range"] == said


# ---- negotiate


def terms(*purposes: str) -> str:
    return f"offer\n  permit use\n    for {{{', '.join(purposes)}}}\n  forbid distribute\n  on conflict forbid\n"


@pytest.mark.asyncio
async def test_a_contract_is_negotiated_with_terms_and_limits_of_our_own(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        dataset = pair.fresh("dataset")
        for name, purposes in (("offer", ("care", "research")), ("narrow", ("research",)), ("other", ("care",))):
            (tmp_path / f"{name}.odrl").write_text(terms(*purposes))
        offer, narrow, other = (str(tmp_path / f"{name}.odrl") for name in ("offer", "narrow", "other"))
        data = two.provider.site.root / "data" / "d.csv"
        data.write_text("1\n")
        assert (await operated(two.provider, "publish", str(data), "--id", dataset, "--policy", offer)).code == 0
        (id,) = [each["id"] for each in (await two.provider.asked("GET", f"/datasets/{pair.quoted(dataset)}"))["offers"]]

        options = ("--offer", id, "--policy", narrow, "--acceptance", offer, "--acceptance", narrow, "--accept", "same")
        agreed = await operated(two.consumer, "negotiate", "hospital", dataset, *options)
        assert agreed.code == 0, agreed.err
        assert "FINALIZED" in agreed.out
        assert "purpose is one of [research] [declared]" in agreed.out
        document = json.loads((await operated(two.consumer, "negotiate", "hospital", dataset, "--purpose", "care", "--json")).out)
        assert document["state"] == "FINALIZED"

        beyond = await operated(two.consumer, "negotiate", "hospital", dataset, "--acceptance", other)
        assert (beyond.code, "beyond the acceptance" in beyond.err) == (1, True)
        refused = await operated(two.consumer, "negotiate", "hospital", dataset, "--purpose", "marketing")
        assert refused.code == 1
        assert refused.err.startswith(f"connector: no contract over `{dataset}` was agreed\n  - Denied: purpose 'marketing'")

        out = two.consumer.site.root / "out" / "d.csv"
        held_back = await operated(two.consumer, "get", "hospital", dataset, "--out", str(out), "--acceptance", other)
        assert (held_back.code, out.exists()) == (1, False)
        done = await operated(two.consumer, "get", "hospital", dataset, "--out", str(out), "--acceptance", offer)
        assert done.code == 0, done.err
        assert out.read_text() == "1\n"


@pytest.mark.asyncio
async def test_a_negotiation_that_waits_for_somebody_says_for_whom(tmp_path: Path, operated: Operated, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.cli.consume.SETTLED_SECONDS", 0.2)
    async with pair.pair(tmp_path / "x") as two:
        dataset = pair.fresh("dataset")
        await two.provider.publish(dataset, pair.purpose_policy("care"), manual=True)
        begun = await operated(two.consumer, "negotiate", "hospital", dataset, "--accept", "operator")
        assert begun.code == 0
        assert "it waits for the peer; `connector show " in begun.err
        (theirs,) = (await two.provider.asked("GET", "/negotiations"))["items"]
        (tmp_path / "p.odrl").write_text(terms("care"))
        assert (await operated(two.provider, "counter", theirs["pid"], "--policy", str(tmp_path / "p.odrl"))).code == 0
