"""The contract of sources holds for a database in one file, and such a source is published, served and proven like any other."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.metering.content import write_etag
from tests.contracts.source_contract import CONTENT, Place, SourceContract
from tests.contracts.sqlite_source import SCHEMA, SqliteSources
from tests.dataplane.rig import TRANSFER, provider, view
from tests.dataplane.signing import Consumer


class Table(Place):
    """A row under a name, which gives way to another."""

    def __init__(self, database: Path) -> None:
        self.sources, self._database = SqliteSources(database), database
        self._do(SCHEMA)

    def put(self, content: bytes) -> Mapping[str, Any]:
        self._do("insert or replace into dataset (name, content) values ('patients', ?)", content)
        return {"type": "sqlite", "name": "patients"}

    def remove(self) -> None:
        self._do("delete from dataset")

    def _do(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self._database)) as db, db:
            db.execute(sql, values)


class TestContract(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Table:
        return Table(tmp_path / "data.db")


@pytest.mark.asyncio
async def test_what_lies_in_a_database_is_served_proven_and_receipted_like_a_file(tmp_path: Path):
    (tmp_path / "files").mkdir()
    async with provider(tmp_path / "files", metered=True) as rig, aiohttp.ClientSession() as http:
        table = Table(tmp_path / "data.db")
        rig.sources["sqlite"] = rig.logs.indexing(table.sources)
        address, _ = await rig.sources["sqlite"].index(table.put(CONTENT))
        rig.transfers.views[TRANSFER] = view(address)
        rig.flows.look_again()
        consumer = Consumer(rig, http)
        manifest = await consumer.begin()
        await consumer.sign()
        status, body, headers = await consumer.get(Range="bytes=1000-1999999")
        assert (status, body) == (206, CONTENT[1000:2_000_000])
        assert write_etag(manifest.log.root, manifest.log.chunk) == headers["ETag"]
        ack = await consumer.sign((1, consumer.log.leaves), state="complete")
        stored = await rig.store.metered(TRANSFER)
        assert stored is not None
        assert (ack.sequence, stored.status, stored.counts.bytes) == (2, "complete", len(CONTENT))
