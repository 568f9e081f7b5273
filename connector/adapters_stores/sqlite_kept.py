"""Rows that are asked for again and again, kept at hand: for a store that is the only one who writes its file."""

from __future__ import annotations

from collections.abc import Mapping

from connector.adapters_stores.sqlite_statements import Row
from connector.remembered import Remembered

KEPT_MAX = 2_000  # rows: of what is being negotiated, or used
BYTES = (bytes, bytearray)
KEPT_BYTES_MAX = 4 << 20  # of what is JSON or a document in them


class Kept:
    """Rows by the statement that reads them and their key, the second value of a row, as they were written last or read.

    `saved` and `deleted` name the statements that write and delete such rows, each with the one that reads them. A row that is read
    while another write of it is on its way is put right when that one is told of.
    """

    def __init__(self, saved: Mapping[str, str], deleted: Mapping[str, str]) -> None:
        self._saved, self._deleted = saved, deleted
        self._rows: Remembered[tuple[str, str], Row] = Remembered(KEPT_MAX, KEPT_BYTES_MAX)

    def get(self, read: str, key: str) -> Row | None:
        """The row; None if it is not kept."""
        return self._rows.get((read, key))

    def put(self, read: str, row: Row) -> None:
        """Keep a row that was read."""
        size_bytes = 0
        for value in row:
            if isinstance(value, BYTES):
                size_bytes += len(value)
        self._rows.put((read, row[1]), row, size_bytes)

    def written(self, sql: str, values: Row) -> None:
        """Take what a statement has put on the disk."""
        if (read := self._saved.get(sql)) is not None:
            self.put(read, values)
        elif (read := self._deleted.get(sql)) is not None:
            self._rows.forget((read, values[1]))
