"""Statements are put together from constants, and rows hold plain JSON only."""

import sqlite3
from contextlib import closing
from types import MappingProxyType

import pytest

from connector.adapters_stores.sqlite_statements import NULL, blob, bytes_of, hex_of, insert, json_of, select, upsert


def test_a_statement_binds_as_many_values_as_it_has_columns():
    assert insert("a", "x, y") == "insert into a(x, y) values (?, ?)"
    assert select("a", "x, y") == "select x, y from a"


def test_what_replaces_a_row_leaves_its_key():
    assert upsert("a", "p, x, y", "p, x") == "insert into a(p, x, y) values (?, ?, ?) on conflict(p, x) do update set y = excluded.y"


def test_what_hot_rows_bind_is_null_and_a_blob_also_where_null_is_forbidden():
    with closing(sqlite3.connect(":memory:")) as db:
        assert db.execute("select typeof(?), ?, typeof(?)", (NULL, NULL, blob(b"x"))).fetchone() == ("null", None, "blob")
        db.execute("create table a(x real not null)")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("insert into a values (?)", (NULL,))


def test_any_mapping_is_json_and_nothing_else_is():
    assert json_of({"a": MappingProxyType({"b": (1, 2)})}) == b'{"a":{"b":[1,2]}}'
    with pytest.raises(TypeError, match="not JSON serializable: bytes"):
        json_of({"a": b"x"})


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff"])
def test_bytes_survive_as_digits(value: bytes | None):
    assert bytes_of(hex_of(value)) == value
