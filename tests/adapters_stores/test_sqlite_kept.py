"""Rows at hand are as they were written last; the store with them is in `tests/adapters/test_sqlite.py`."""

from connector.adapters_stores.sqlite_kept import KEPT_BYTES_MAX, Kept
from connector.remembered import SHARE


def test_a_row_is_kept_as_it_was_read_or_written_last_until_it_is_deleted():
    kept = Kept({"save a": "read a", "save b": "read b"}, {"delete a": "read a"})
    assert kept.get("read a", "x") is None
    kept.put("read a", (1, "x", b"1"))
    kept.put("read b", (1, "x", b"b"))
    assert (kept.get("read a", "x"), kept.get("read b", "x")) == ((1, "x", b"1"), (1, "x", b"b"))
    for sql, row in (("save a", (1, "x", b"2")), ("save c", (1, "y", b"3")), ("save a", (1, "z", b"4"))):
        kept.written(sql, row)
    assert [kept.get("read a", key) for key in "xyz"] == [(1, "x", b"2"), None, (1, "z", b"4")]
    for sql, row in (("delete a", (1, "x")), ("delete a", (1, "none")), ("delete b", (1, "x"))):
        kept.written(sql, row)
    assert (kept.get("read a", "x"), kept.get("read b", "x")) == (None, (1, "x", b"b"))


def test_a_row_is_as_large_as_what_is_bytes_in_it():
    kept = Kept({"save": "read"}, {})
    kept.put("read", (1, "small", b"1"))
    kept.written("save", (1, "small", bytes(KEPT_BYTES_MAX // SHARE // 2), "text", bytes(KEPT_BYTES_MAX // SHARE // 2 + 1)))
    assert kept.get("read", "small") is None, "neither the large row nor the one of before"
