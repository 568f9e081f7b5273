"""A database as a source, in one file: a row is a dataset, and another row under its name is another dataset."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from connector.errors import InvalidRequest, SourceFailed
from connector.ports import Along, Source, Stat

SCHEMA = "create table if not exists dataset (id integer primary key autoincrement, name text unique, content blob not null)"
MEMBERS = frozenset({"type", "name", "media_type", "row", "size_bytes", "sha256"})
PIECE_BYTES = 1024 * 1024


class SqliteSources:
    def __init__(self, database: Path) -> None:
        self._database = database

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        if unknown := sorted(address.keys() - MEMBERS):
            raise InvalidRequest(f"an SQLite source has no member `{unknown[0]}`; it has `name`", pointer=f"/source/{unknown[0]}")
        return await asyncio.to_thread(self._index, address, along)

    async def open(self, address: Mapping[str, Any]) -> Source:
        await (source := SqliteSource(self._blob, address)).stat()
        return source

    def _index(self, address: Mapping[str, Any], along: Along | None) -> tuple[Mapping[str, Any], Stat]:
        digest, size_bytes, row = hashlib.sha256(), 0, self._row(address)
        while piece := self._blob({**address, "row": row}, size_bytes, PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
            if along is not None:
                along(memoryview(piece))
        pinned = {"media_type": "application/octet-stream", **address, "row": row, "size_bytes": size_bytes, "sha256": digest.hexdigest()}
        return pinned, _stat(pinned)

    def _row(self, address: Mapping[str, Any]) -> int:
        with closing(sqlite3.connect(self._database)) as db:
            found = db.execute("select id from dataset where name = ?", (address.get("name"),)).fetchone()
        if found is None:
            raise SourceFailed("there is no such row any more: publish it again")
        return int(found[0])

    def _blob(self, address: Mapping[str, Any], offset: int, length: int) -> bytes:
        try:
            with closing(sqlite3.connect(self._database)) as db, db.blobopen("dataset", "content", address["row"], readonly=True) as blob:
                blob.seek(min(offset, len(blob)))
                return blob.read(length)
        except sqlite3.Error:
            raise SourceFailed("the row changed since it was published: publish it again") from None


class SqliteSource:
    def __init__(self, blob: Callable[[Mapping[str, Any], int, int], bytes], address: Mapping[str, Any]) -> None:
        self._blob, self._address = blob, address

    async def stat(self) -> Stat:
        await asyncio.to_thread(self._blob, self._address, 0, 0)
        return _stat(self._address)

    async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._address["size_bytes"] if length is None else offset + length
        while piece := await asyncio.to_thread(self._blob, self._address, offset, max(0, min(end - offset, PIECE_BYTES))):
            yield piece
            offset += len(piece)

    def fileno(self) -> int | None:
        return None

    async def close(self) -> None: ...


def _stat(pinned: Mapping[str, Any]) -> Stat:
    return Stat(pinned["size_bytes"], str(pinned["row"]), bytes.fromhex(pinned["sha256"]), pinned["media_type"])
