"""`connector evidence export`: one new file, or none; and receipts beside it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import cbor2
import pytest

from connector.cli_evidence.exporting import named
from connector.dsp.messages import Kind
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.cli.conftest import command as command  # noqa: PLC0414 - the fixture
from tests.cli.conftest import fake as fake  # noqa: PLC0414 - the fixture
from tests.cli.conftest import home as home  # noqa: PLC0414 - the fixture
from tests.cli.conftest import operated as operated  # noqa: PLC0414 - the fixture
from tests.dataplane.test_metered_pair import on_record
from tests.test_app import pulled


@asynccontextmanager
async def agreed_pair(root: Path) -> AsyncIterator[tuple[pair.Pair, str]]:
    """Two connectors after a transfer with receipts, and its agreement."""
    async with pair.pair(root / "pair") as both:
        await both.provider.publish("urn:test:exported", content=b"data\n" * 1000)
        order = await pulled(both.consumer, "hospital", "urn:test:exported")
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert transfer is not None
        ended = await both.provider.state(Kind.TRANSFER, transfer.peer_pid or "", "COMPLETED")
        await on_record(both.provider, ended.pid, "statement-agreed")
        yield both, transfer.agreement or ""


@pytest.mark.asyncio
async def test_an_agreement_is_exported_and_verified_from_the_command_line(operated: Operated, tmp_path: Path):
    async with agreed_pair(tmp_path) as (both, agreement):
        files = {}
        for at in (both.provider, both.consumer):
            files[at.site.name] = tmp_path / f"{at.site.name}.jsonl"
            receipts = tmp_path / "cose" / at.site.name
            ended = await operated(at, "evidence", "export", agreement, "--out", str(files[at.site.name]), "--cose", str(receipts))
            assert (ended.code, ended.err) == (0, "")
            entries = [m for m in map(json.loads, files[at.site.name].read_bytes().splitlines()) if m.get("kind") == "entry"]
            assert sorted(path.name for path in receipts.iterdir()) == sorted(f"{entry['sequence']:012d}.cose" for entry in entries)
            for path in receipts.iterdir():
                assert cbor2.loads(path.read_bytes()).tag == 18
            again = await operated(at, "evidence", "export", agreement, "--out", str(files[at.site.name]))
            assert again.code == 1
            assert "give the name of a new file" in again.err
        ended = await operated(both.provider, "evidence", "verify", *map(str, files.values()))
        assert ended.code == 0, ended.out
        assert ended.out.splitlines()[-1] == "Both files tell the same."
        ended = await operated(both.provider, "evidence", "export", "urn:none", "--out", str(tmp_path / "none"))
        assert (ended.code, (tmp_path / "none").exists()) == (1, False)
        assert "there is no agreement" in ended.err
        said = await operated(both.consumer, "evidence", "export", agreement, "--out", str(tmp_path / "x"), "--json", "--witnesses", "all")
        assert json.loads(said.out)["size_bytes"] == (tmp_path / "x").stat().st_size


def test_a_file_is_named_as_its_agreement():
    assert str(named("urn:uuid:01a2-b")) == "01a2-b.evidence.jsonl"
    assert str(named("https://x.example/../a b")) == "https---x-example----a-b.evidence.jsonl"
    assert len(str(named("urn:" + "x" * 500))) < 120


def test_options_of_the_one_are_none_of_the_other(command: Command, home: Path):
    for arguments in (
        ("export", "urn:a", "--trust", "x"),
        ("export", "urn:a", "b"),
        ("verify", "x", "--out", "y"),
        ("verify", "x", "--cose", "y"),
    ):
        ended = command("evidence", *arguments)
        assert ended.code == 1
        assert "evidence" in ended.err
    assert command("evidence", "burn", "x").code == 2


def test_what_cannot_be_written_leaves_nothing(command: Command, home: Path, fake: Callable[..., object]):
    assert command("evidence", "export", "urn:a", "--out", str(home / "none" / "x")).code == 1
    ended = command("evidence", "export", "urn:a", "--out", str(home / "x"))
    assert ended.code == 1
    assert not (home / "x").exists()
