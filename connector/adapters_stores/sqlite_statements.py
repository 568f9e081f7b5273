"""How statements of the SQLite store are put together, and JSON as its rows hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

Row = tuple[Any, ...]
Statement = tuple[str, Row]
blob = bytearray  # how hot rows bind bytes: of `bytes` sqlite3 asks first whether somebody adapts them, which costs ten times the copy
NULL = float("nan")  # how hot rows bind None, of which it asks that too: SQLite takes a number that is none for null (sqlite3_bind_double)


def insert(table: str, columns: str) -> str:
    """An insertion into all `columns` (names, separated by a comma and a space)."""
    names = columns.split(", ")
    return f"insert into {table}({columns}) values ({', '.join('?' * len(names))})"  # noqa: S608 - names from constants


def upsert(table: str, columns: str, key: str) -> str:
    """An insertion that replaces the row of the same `key`."""
    others = [name for name in columns.split(", ") if name not in key.split(", ")]
    return f"{insert(table, columns)} on conflict({key}) do update set {', '.join(f'{name} = excluded.{name}' for name in others)}"


def select(table: str, columns: str) -> str:
    return f"select {columns} from {table}"  # noqa: S608 - names from constants


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a `{type(value).__name__}` is not plain JSON and cannot be stored")


# The bytes of plain JSON. Raises TypeError for anything else, before any statement has run.
json_of: Callable[[Any], bytes] = partial(orjson.dumps, default=_plain)


def hex_of(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def bytes_of(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)
