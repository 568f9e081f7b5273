import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl.model import Span
from connector.odrl_forms.locale_forms import length, listed, number, span, time


@pytest.mark.parametrize(
    ("text", "en", "zh"),
    [
        ("2026-12-31Z", "31 Dec 2026 (UTC)", "2026年12月31日（UTC）"),
        ("2026-12-31", "31 Dec 2026 (UTC)", "2026年12月31日（UTC）"),
        ("2026-02-01+08:00", "1 Feb 2026 (UTC+08:00)", "2026年2月1日（UTC+08:00）"),
        ("2026-12-31T18:00:00Z", "31 Dec 2026, 18:00 UTC", "2026年12月31日 18:00（UTC）"),
        ("2026-12-31T23:30:05+08:00", "31 Dec 2026, 15:30:05 UTC", "2026年12月31日 15:30:05（UTC）"),
        ("2026-12-31T00:00:00.250Z", "31 Dec 2026, 00:00:00.25 UTC", "2026年12月31日 00:00:00.25（UTC）"),
        ("soon", "soon", "soon"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_an_instant_is_told_in_utc(text: str, en: str, zh: str):
    assert time(text, "en") == en
    assert time(text, "zh") == zh


@pytest.mark.parametrize(
    ("text", "en", "zh"),
    [
        ("P30D", "30 days", "30天"),
        ("P1D", "1 day", "1天"),
        ("P4W", "28 days", "28天"),
        ("P18M", "1 year 6 months", "1年6个月"),
        ("PT90M", "1 hour 30 minutes", "1小时30分钟"),
        ("PT0.5S", "0.5 seconds", "0.5秒"),
        ("PT0S", "0 seconds", "0秒"),
        ("P1Y2M3DT4H5M6S", "1 year 2 months 3 days 4 hours 5 minutes 6 seconds", "1年2个月3天4小时5分钟6秒"),
        ("a while", "a while", "a while"),
    ],
)
def test_a_duration_is_told_in_its_largest_whole_units(text: str, en: str, zh: str):
    assert length(text, "en") == en
    assert length(text, "zh") == zh


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10000", "10,000"),
        ("999", "999"),
        ("-1234567.50", "-1,234,567.50"),
        ("+5", "5"),
        ("0.0200", "0.0200"),
        ("1e3", "1e3"),
        (".5", ".5"),
        ("", ""),
    ],
)
def test_numbers_are_grouped_and_never_rounded(text: str, said: str):
    assert number(text) == said


@given(st.integers(min_value=0, max_value=10**20))
def test_a_number_without_its_commas_is_the_number(of: int):
    assert int(number(str(of)).replace(",", "")) == of


def test_lists_end_with_their_joint_and_long_ones_are_counted():
    assert listed([], "en", "or") == ""
    assert listed(["a"], "zh", "and") == "a"
    assert listed(["a", "b", "c"], "en", "or") == "a, b or c"
    assert listed(["a", "b", "c"], "en", "and") == "a, b and c"
    assert listed(["a", "b", "c"], "zh", "or") == "a、b或c"
    assert listed(["a", "b"], "zh", "and") == "a和b"
    assert listed([str(n) for n in range(9)], "en", "or") == "0, 1, 2, 3, 4, 5 or 3 more"
    assert listed([str(n) for n in range(9)], "zh", "or") == "0、1、2、3、4、5等9项"


def test_a_span_of_nothing_is_no_time():
    assert span(Span(0, 0), "en") == "0 seconds"
