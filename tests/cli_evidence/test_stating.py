"""`connector statement`: what both sides have signed, or that they have not signed the same."""

import json
from pathlib import Path

import pytest

from connector.control_billing import stating
from tests.cli.conftest import Command, Operated
from tests.cli.conftest import command as command  # noqa: PLC0414 - the fixture
from tests.cli.conftest import fake as fake  # noqa: PLC0414 - the fixture
from tests.cli.conftest import home as home  # noqa: PLC0414 - the fixture
from tests.cli.conftest import operated as operated  # noqa: PLC0414 - the fixture
from tests.cli_evidence.test_exporting import agreed_pair
from tests.fake_connector import FakeConnector

FLOW = {"transfer": "urn:t", "seq": 3, "bytes": 5_000_000, "records": 7, "calls": 2}
SAID = {"agreement": "urn:a", "from": 0, "to": 86_400, "outcome": "agreed", "code": None, "totals": {"bytes": 5_000_000}, "flows": [FLOW]}


def test_what_both_have_signed_is_shown(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/agreements/urn%3Aa/statement")] = (200, SAID)
    ended = command("statement", "urn:a", "--from", "1970-01-01", "--to", "1970-01-02")
    assert ended.code == 0
    for text in ("both sides say the same", "1970-01-01 00:00:00Z to 1970-01-02 00:00:00Z", "urn:t"):
        assert text in ended.out
    assert fake.paths() == ["POST /v1/agreements/urn%3Aa/statement?from=1970-01-01&to=1970-01-02"]


def test_time_that_nobody_has_signed_for_is_said_and_is_no_dispute(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/agreements/urn%3Aa/statement")] = (200, SAID | {"code": "statement-time"})
    ended = command("statement", "urn:a")
    assert (ended.code, "the provider has counted more time than they do" in ended.out) == (0, True)


def test_a_dispute_is_said_and_is_no_success(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/agreements/urn%3Aa/statement")] = (200, SAID | {"outcome": "disputed", "code": "statement-differs"})
    ended = command("statement", "urn:a")
    assert (ended.code, "disputed: `statement-differs`" in ended.out) == (1, True)
    ended = command("statement", "urn:a", "--json")
    assert (ended.code, json.loads(ended.out)["code"]) == (1, "statement-differs")


@pytest.mark.asyncio
async def test_two_connectors_sign_for_a_period_and_it_is_evidence(operated: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stating, "SETTLED_SECONDS", -2)
    async with agreed_pair(tmp_path) as (both, agreement):
        ended = await operated(both.consumer, "statement", agreement, "--json")
        assert ended.code == 0, ended.err
        said = json.loads(ended.out)
        files = []
        for at in (both.provider, both.consumer):
            files.append(tmp_path / f"{at.site.name}.jsonl")
            assert (await operated(at, "evidence", "export", agreement, "--out", str(files[-1]))).code == 0
            members = [json.loads(line) for line in files[-1].read_bytes().splitlines()]
            signed = {member["jws"] for member in members if member.get("kind") == "statement"}
            assert {said["own"], said["theirs"]} <= signed
        ended = await operated(both.provider, "evidence", "verify", *map(str, files))
        assert ended.code == 0, ended.out
