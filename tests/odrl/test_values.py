from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.odrl.model import Span
from connector.odrl.values import (
    DAY,
    DIGITS_MAX,
    SECOND,
    after,
    bounds,
    exact,
    in_seconds,
    instant,
    length,
    literal,
    microseconds,
    number,
    spells_an_iri,
    stretch,
    term,
)

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
        ({"@value": "Forschung", "@language": "de"}, "Forschung"),
        ({"@value": True, "@type": "xsd:boolean"}, "true"),
        ({"@value": "true", "@type": "xsd:boolean"}, "true"),
        (5, "5"),
        (2.5, "2.5"),
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
        None,
        {"x": 1},
        ["a"],
    ],
)
def test_what_is_no_term_is_refused(written: object) -> None:
    with pytest.raises(PolicyError):
        term(written)


def test_a_string_may_spell_an_iri() -> None:
    assert spells_an_iri("https://w3id.org/dpv#X")
    assert not spells_an_iri("research")
    assert not spells_an_iri({"@id": "https://w3id.org/dpv#X"})


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0.10", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1e3", 1000),
        ("2.0", 2),
        (5, 5),
        (0.1, Fraction(1, 10)),
        ({"@value": "5", "@type": "xsd:integer"}, 5),
        ({"@value": 5, "@type": XSD + "decimal"}, 5),
        ({"@value": "0.1", "@type": "xsd:double"}, Fraction(1, 10)),
    ],
)
def test_a_number_is_exact_in_every_form(written: object, value: object) -> None:
    found, _ = number(written)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "written",
    ["", "five", "0x10", "1_000", "1,5", "inf", "nan", " 5", "٥", "1e999", "5" * (DIGITS_MAX + 1), {"@id": "urn:5"}, None, [5],
     {"@value": "5", "@type": "xsd:date"}, {"@value": True}, {"@value": 10**400}, True],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_a_remedy(written: object) -> None:
    with pytest.raises(PolicyError, match=r"write|does not fit|digits"):
        number(written)


@pytest.mark.parametrize(
    ("written", "span"),
    [
        ("P1Y", Span(12, 0)),
        ("P2M", Span(2, 0)),
        ("P1Y2M", Span(14, 0)),
        ("P1W", Span(0, 7 * DAY)),
        ("P30D", Span(0, 30 * DAY)),
        ("PT12H", Span(0, DAY // 2)),
        ("PT60M", Span(0, 3600 * SECOND)),
        ("P60M", Span(60, 0)),
        ("PT0.5S", Span(0, SECOND // 2)),
        ("P1M1DT1H1M1.000001S", Span(1, DAY + 3661 * SECOND + 1)),
        ("P0D", Span(0, 0)),
        ("-P0D", Span(0, 0)),
        ({"@value": "P30D", "@type": "xsd:dayTimeDuration"}, Span(0, 30 * DAY)),
    ],
)
def test_a_duration_keeps_months_and_seconds_apart(written: object, span: Span) -> None:
    assert length(written)[0] == span


@pytest.mark.parametrize(
    "written", ["", "P", "PT", "P1DT", "1D", "P1H", "PT1D", "-P1D", "P1.5D", "P1S", "30 days", "P" + "9" * 50 + "D", 30, None,
                {"@value": "P1D", "@type": "xsd:integer"}],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_a_remedy(written: object) -> None:
    with pytest.raises(PolicyError, match=r"write|does not fit|negative|digits"):
        length(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [({"@value": "1800", "@type": "xsd:integer"}, "PT1800S"), (90, "PT90S"), ({"@value": "1.5", "@type": "xsd:decimal"}, "PT1.5S"),
     ("60", "PT60S"), ("PT60S", "PT60S"), ({"@value": "60", "@type": "xsd:date"}, {"@value": "60", "@type": "xsd:date"}), ("-5", "-5"),
     ({"@value": "P1D", "@type": "xsd:duration"}, {"@value": "P1D", "@type": "xsd:duration"})],
)  # fmt: skip
def test_a_plain_number_may_be_so_many_seconds(written: object, read: object) -> None:
    assert in_seconds(written) == read


def test_a_duration_that_is_a_fact_has_no_months() -> None:
    assert exact("P1DT1S") == DAY + SECOND
    with pytest.raises(PolicyError, match="write it in days"):
        exact("P1M")


@pytest.mark.parametrize(
    ("start", "written", "end"),
    [
        ((2026, 1, 31), "P1M", (2026, 2, 28)),
        ((2024, 1, 31), "P1M", (2024, 2, 29)),
        ((2026, 1, 31), "P2M", (2026, 3, 31)),
        ((2026, 12, 15), "P1M", (2027, 1, 15)),
        ((2024, 2, 29), "P1Y", (2025, 2, 28)),
        ((2026, 1, 31), "P1MT24H", (2026, 3, 1)),
        ((2026, 1, 1), "P30D", (2026, 1, 31)),
    ],
)
def test_months_are_added_by_the_calendar_and_then_the_rest(start: tuple[int, int, int], written: str, end: tuple[int, int, int]) -> None:
    assert after(at(*start), length(written)[0]) == at(*end)


def test_beyond_the_calendar_no_duration_ends() -> None:
    assert after(at(9999, 6, 1), Span(12, 0)) is None
    assert after(10**20, Span(1, 0)) is None


@given(st.integers(0, 4000), st.integers(0, 400 * DAY), st.integers(0, 20_000 * DAY))
def test_a_duration_from_anywhere_lies_within_its_bounds(months: int, rest: int, start: int) -> None:
    span = Span(months, rest)
    end = after(start, span)
    low, high = bounds(span)
    assert end is not None
    assert low <= end - start <= high
    assert (low == high) is (months == 0)


@pytest.mark.parametrize(("raw", "found"), [("a", ("a", XSD + "string")), ({"@value": "a", "@type": "xsd:date"}, ("a", XSD + "date")),
                                            ({"@value": False}, ("false", XSD + "boolean"))])  # fmt: skip
def test_a_literal_is_a_text_with_its_datatype(raw: object, found: tuple[str, str]) -> None:
    assert literal(raw) == found
