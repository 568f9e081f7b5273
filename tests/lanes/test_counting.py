"""Records are counted as they are without lanes, and without looking at each line."""

import pytest

from connector.adapters_streams import http_stream
from connector.adapters_streams.http_stream import Lines
from connector.lanes import counting, hashing
from connector.metering import content, live
from tests.lanes.compiled import by_lanes

TEXT = b"".join(b"x" * (n % 97 + 1) + b"\n" for n in range(400))


@pytest.fixture(params=[False, True], ids=["without lanes", "by lanes"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(hashing, "HASHING", by_lanes() if request.param else hashing.LeafHashing(hashing.made, 1 << 60))
    return bool(request.param)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("unit", ["line", "message", "none"])
@pytest.mark.parametrize("span", [(0, len(TEXT)), (1, len(TEXT) - 1), (5, 5000), (7, 7), (100, 200)])
def test_records_are_those_that_are_there(unit: str, span: tuple[int, int]):
    for data in (TEXT, TEXT.replace(b"y\n", b"\n"), TEXT + b"\n\n", TEXT.replace(b"\n", b"\n\n")):
        for piece in (data, bytearray(data), memoryview(data)):
            assert counting.records_in(piece, unit, *span) == content.records_in(data, unit, *span)
        expected = live.records(data, unit, *span, b"\n")
        assert counting.live_records(data, unit, *span, b"\n") == counting.live_records(memoryview(data), unit, *span, b"\n") == expected
        if unit == "line":
            assert counting.records_in(data, unit, *span) == data.count(b"\n", *span)


def test_lines_of_which_none_is_empty_are_not_looked_at_one_by_one(lanes: bool, monkeypatch: pytest.MonkeyPatch):
    looked = list[bytes]()

    def one_by_one(lines: bytes) -> list[bytes]:
        looked.append(lines)
        return lines.splitlines(keepends=True)

    monkeypatch.setattr(http_stream, "BytesIO", one_by_one)
    assert Lines(None, None).take(bytearray(TEXT)) == TEXT
    assert looked == ([] if lanes else [TEXT])
    for empty in (b"\n", b"\r\n"):
        assert Lines(None, None).take(bytearray(TEXT + empty + TEXT)) == TEXT + TEXT
        assert Lines(None, None).take(bytearray(empty + TEXT)) == TEXT
