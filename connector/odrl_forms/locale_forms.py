"""Times, durations, numbers and lists as people read them, in English and Chinese. Instants are in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.model import Span
from connector.odrl.words import VALUES_SHOWN_MAX, shown

Language = Literal["en", "zh"]

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNITS: Final = (
    (86_400 * values.SECOND, "day", "天"),
    (3_600 * values.SECOND, "hour", "小时"),
    (60 * values.SECOND, "minute", "分钟"),
)
_DAY_CHARS: Final = 10  # of `2026-12-31`


def time(text: str, language: Language) -> str:
    """An xsd:date or xsd:dateTime: `31 Dec 2026 (UTC)`, `31 Dec 2026, 18:00 UTC`; one that cannot be read stays as it is."""
    try:
        stretch = values.stretch(text)
    except PolicyError:
        return shown(text)
    if "T" not in text:
        year, month, day = (int(part) for part in text[:_DAY_CHARS].split("-"))
        zone = text[_DAY_CHARS:]
        name = "UTC" if zone in ("", "Z") else f"UTC{zone}"
        return f"{year}年{month}月{day}日（{name}）" if language == "zh" else f"{day} {_MONTHS[month - 1]} {year} ({name})"
    at = values.instant(stretch.start)
    if at is None:
        return shown(text)
    clock = f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"
    if at.microsecond:
        clock += f".{at.microsecond:06}".rstrip("0")
    if language == "zh":
        return f"{at.year}年{at.month}月{at.day}日 {clock}（UTC）"
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}, {clock} UTC"


def length(text: str, language: Language) -> str:
    """An xsd:duration: `30 days`, `1 year 6 months`; one that cannot be read stays as it is."""
    try:
        return span(values.length(text)[0], language)
    except PolicyError:
        return shown(text)


def span(of: Span, language: Language) -> str:
    """A length of time in its largest whole units."""
    years, months = divmod(of.months, 12)
    parts = [(years, "year", "年"), (months, "month", "个月")]
    rest = of.microseconds
    for size, english, chinese in _UNITS:
        count, rest = divmod(rest, size)
        parts.append((count, english, chinese))
    found = [_counted(str(count), english, chinese, language) for count, english, chinese in parts if count]
    if rest or not found:
        seconds, fraction = divmod(rest, values.SECOND)
        text = f"{seconds}.{fraction:06}".rstrip("0") if fraction else str(seconds)
        found.append(_counted(text, "second", "秒", language))
    return "".join(found) if language == "zh" else " ".join(found)


def _counted(count: str, english: str, chinese: str, language: Language) -> str:
    return f"{count}{chinese}" if language == "zh" else f"{count} {english}{'' if count == '1' else 's'}"


def number(text: str) -> str:
    """Digits in groups of three: `10,000`, `0.02`; a number with an exponent stays as it is."""
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    whole, point, rest = digits.partition(".")
    if not whole.isdecimal() or not (rest.isdecimal() or not rest):
        return shown(text)
    return f"{sign.removeprefix('+')}{int(whole):,}{point if rest else ''}{rest}"


def listed(parts: Sequence[str], language: Language, joint: Literal["or", "and"]) -> str:
    """`a, b or c`; of a long list the first and how many there are."""
    if len(parts) > VALUES_SHOWN_MAX:
        more = len(parts) - VALUES_SHOWN_MAX
        first = parts[:VALUES_SHOWN_MAX]
        return f"{'、'.join(first)}等{len(parts)}项" if language == "zh" else f"{', '.join(first)} {joint} {more} more"
    if len(parts) < 2:  # noqa: PLR2004 - one or none needs no joint
        return "".join(parts)
    if language == "zh":
        return f"{'、'.join(parts[:-1])}{'或' if joint == 'or' else '和'}{parts[-1]}"
    return f"{', '.join(parts[:-1])} {joint} {parts[-1]}"
