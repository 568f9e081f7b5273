from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.odrl.values import DAY, SECOND, instant, items, microseconds, spells_an_iri, stretch, term

XSD = "http://www.w3.org/2001/XMLSchema#"


def at(*parts: int) -> int:
    found = microseconds(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type,misc]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("2026-06-15T12:00:00Z", at(2026, 6, 15, 12)),
        ("2026-06-15T14:00:00+02:00", at(2026, 6, 15, 12)),
        ("2026-06-15T07:30:00-04:30", at(2026, 6, 15, 12)),
        ("2026-06-15T12:00:00", at(2026, 6, 15, 12)),
        ("2023-12-31T06:00Z", at(2023, 12, 31, 6)),
        ("2026-06-15T12:00:00.5Z", at(2026, 6, 15, 12) + SECOND // 2),
        ("2026-06-15T12:00:00.123456789Z", at(2026, 6, 15, 12) + 123_456),
        ("2026-06-15T24:00:00Z", at(2026, 6, 16)),
        ("1969-12-31T23:59:59Z", -SECOND),
        ({"@value": "2026-06-15T12:00:00Z", "@type": "xsd:dateTime"}, at(2026, 6, 15, 12)),
        ({"@value": "2026-06-15T12:00:00Z", "@type": XSD + "dateTimeStamp"}, at(2026, 6, 15, 12)),
        ({"@value": "2026-06-15T12:00:00Z"}, at(2026, 6, 15, 12)),
    ],
)
def test_an_instant_covers_one_microsecond(written: object, start: int) -> None:
    assert stretch(written)[:2] == (start, start + 1)


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("2026-06-15", at(2026, 6, 15)),
        ("2026-06-15Z", at(2026, 6, 15)),
        ("2026-06-15+02:00", at(2026, 6, 14, 22)),
        ("2026-06-15-14:00", at(2026, 6, 15, 14)),
        ({"@value": "2026-06-15", "@type": "xsd:date"}, at(2026, 6, 15)),
        ("9999-12-31Z", at(9999, 12, 31)),
    ],
)
def test_a_date_covers_its_whole_day(written: object, start: int) -> None:
    assert stretch(written)[:2] == (start, start + DAY)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "soon",
        "2026-02-30",
        "2026-13-01",
        "0000-01-01",
        "12026-01-01",
        "-0044-03-15",
        "2026-06-15T25:00:00Z",
        "2026-06-15T24:00:01Z",
        "2026-06-15T24:00:00.1Z",
        "2026-06-15T12:60:00Z",
        "2026-06-15T12:00:60Z",
        "2026-06-15T12:00:00+15:00",
        "2026-06-15T12:00:00+01:60",
        "2026-06-15 12:00:00Z",
        "２０２６-06-15",
        "2026-06-15\n",
        " 2026-06-15",
        "contractAgreement+30d",
        20260615,
        None,
        {"@id": "2026-06-15"},
        {"@value": 20260615},
        {"@value": "2026-06-15", "@language": "en"},
        {"@value": "2026-06-15", "@type": 1},
        {"@value": "2026-06-15", "@type": "xsd:dateTime"},
        {"@value": "2026-06-15T12:00:00Z", "@type": "xsd:date"},
        {"@value": "2026-06-15", "@type": "ex:date"},
        {},
        [],
    ],
)
def test_what_is_no_time_is_refused_with_a_remedy(written: object) -> None:
    with pytest.raises(PolicyError, match=r"write|there is no such|does not fit"):
        stretch(written)


def test_a_time_says_whether_it_had_a_zone() -> None:
    assert stretch("2026-06-15Z").zoned
    assert not stretch("2026-06-15").zoned


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9))])))
def test_an_instant_survives_its_text(moment: datetime) -> None:
    expected = microseconds(moment)
    assert stretch(moment.isoformat()).start == expected
    assert expected is not None
    again = instant(expected)
    assert again is None or again == moment


def test_a_naive_time_is_no_instant() -> None:
    assert microseconds(datetime(2026, 1, 1)) is None  # noqa: DTZ001 - the point of the test


def test_beyond_the_calendar_there_is_no_instant() -> None:
    assert instant(stretch("9999-12-31Z").end) is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("research", "research"),
        ({"@value": "research"}, "research"),
        ({"@value": "research", "@type": "xsd:string"}, "research"),
        ({"@id": "https://w3id.org/dpv#X"}, "https://w3id.org/dpv#X"),
        ("https://w3id.org/dpv#X", "https://w3id.org/dpv#X"),
        ({"@id": "dct:title"}, "http://purl.org/dc/terms/title"),
        ("dct:title", "dct:title"),
    ],
)
def test_a_term_is_a_string_or_an_iri(written: object, value: str) -> None:
    assert term(written) == value


@pytest.mark.parametrize(
    "written",
    [
        "",
        {"@id": "research"},
        {"@id": "dpv:Research"},
        {"@id": "_:b0"},
        {"@id": 1},
        {"@value": "5", "@type": "xsd:integer"},
        5,
        None,
        {"x": 1},
    ],
)
def test_what_is_no_term_is_refused(written: object) -> None:
    with pytest.raises(PolicyError):
        term(written)


@pytest.mark.parametrize(
    ("written", "members"), [("a", None), (["a"], ["a"]), ({"@list": ["a", "b"]}, ["a", "b"]), ({"@list": "a"}, None), ([], []), ({}, None)]
)
def test_arrays_and_lists_have_members(written: Any, members: list[object] | None) -> None:
    assert items(written) == members


def test_a_string_may_spell_an_iri() -> None:
    assert spells_an_iri("https://w3id.org/dpv#X")
    assert not spells_an_iri("research")
    assert not spells_an_iri({"@id": "https://w3id.org/dpv#X"})
