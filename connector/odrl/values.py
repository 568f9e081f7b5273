"""Right operands: what the author wrote -> values that can be compared, or the reason why they cannot.

The wire form of a right operand is a string, {"@value", "@type"}, {"@id"}, or an array (or "@list") of these (DSP 2025-1, contract schema);
other forms of ODRL have numbers and booleans too.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Final, NamedTuple

from connector.errors import PolicyError
from connector.odrl.model import Number, Span
from connector.odrl.vocabulary import ABSOLUTE, XSD, expand

SECOND: Final = 1_000_000  # microseconds, the unit of every instant here
DAY: Final = 86_400 * SECOND
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DIGITS_MAX: Final = 40  # of a number: no quantity in the world needs more, and a longer one is a way to burn time
MONTH_DAYS: Final = (28, 31)  # the shortest and the longest month
CHARS_MAX: Final = 2_000  # of an IRI or a term; a URL that every browser and proxy takes
# Of no word: controls, separators of lines, half characters, and what makes a text read in another order than it stands in.
_MISLEADING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_IN_IRI: Final = re.compile(r'[<>"{}|\\^`]')
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SCRIPTS: Final = frozenset({"javascript:", "vbscript:", "data:"})
_EPOCH_DAY: Final = EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)

# xsd:date and xsd:dateTime; the seconds may be missing, as in the official examples of DSP 2025-1 ("2023-12-31T06:00Z").
_LEXICAL: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,18}))?)?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_DURATION: Final = re.compile(
    r"(-)?P(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)(?:\.([0-9]{1,9}))?S)?)?"
)
_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]{1,9})?")
STRING: Final = XSD + "string"  # the datatype of a plain string (RDF 1.1)
_DAY_TYPES: Final = frozenset({STRING, XSD + "date"})
_INSTANT_TYPES: Final = frozenset({STRING, XSD + "dateTime", XSD + "dateTimeStamp"})
_NUMBER_TYPES: Final = frozenset(
    {STRING}
    | {
        XSD + name
        for name in (
            "integer", "decimal", "double", "float", "long", "int", "short", "byte", "nonNegativeInteger", "positiveInteger",
            "nonPositiveInteger", "negativeInteger", "unsignedLong", "unsignedInt", "unsignedShort", "unsignedByte",
        )
    }
)  # fmt: skip
_DURATION_TYPES: Final = frozenset({STRING, XSD + "duration", XSD + "dayTimeDuration", XSD + "yearMonthDuration"})
_TERM_TYPES: Final = frozenset({STRING} | {XSD + name for name in ("anyURI", "boolean", "token", "normalizedString", "language")})
_ZONE_MINUTES_MAX: Final = 14 * 60  # XSD 1.1: no time zone lies further from UTC


class Stretch(NamedTuple):
    """A right operand in time: the half-open interval of microseconds since 1970 that it covers. An instant covers one microsecond."""

    start: int
    end: int
    text: str
    zoned: bool


def microseconds(at: datetime) -> int | None:
    """The instant as microseconds since 1970; None for a naive one, which is no instant."""
    if at.tzinfo is None or at.utcoffset() is None:
        return None
    return (at - EPOCH) // _MICROSECOND


def instant(at_microseconds: int) -> datetime | None:
    """The instant as an aware datetime in UTC; None beyond the years 1 to 9999."""
    try:
        return EPOCH + timedelta(microseconds=at_microseconds)
    except OverflowError:
        return None


def stretch(raw: object) -> Stretch:
    """Read an xsd:date (a day) or an xsd:dateTime (an instant), plain or typed; without a zone it is UTC.

    Raises PolicyError, whose text says what would do.
    """
    text, datatype = literal(raw)
    match = _LEXICAL.fullmatch(text)
    if match is None:
        raise PolicyError("it is no date or instant; write it like `2026-12-31` or `2026-12-31T18:00:00Z`")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    if datatype not in (_DAY_TYPES if hour is None else _INSTANT_TYPES):
        raise PolicyError("its `@type` does not fit; a day is an `xsd:date`, an instant an `xsd:dateTime`")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        raise PolicyError("there is no such day") from None
    shift = _zone_minutes(zone) * 60 * SECOND
    if hour is None:
        return Stretch(days * DAY - shift, (days + 1) * DAY - shift, text, zone is not None)
    clock = (int(hour) * 3600 + int(minute) * 60 + int(second or 0)) * SECOND
    parts = int((fraction or "0").ljust(6, "0")[:6])
    whole_day = clock + parts == DAY and int(fraction or 0) == 0
    if not whole_day and (int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59):  # noqa: PLR2004 - the clock face
        raise PolicyError("there is no such time of day")
    start = days * DAY + clock + parts - shift
    return Stretch(start, start + 1, text, zone is not None)


def number(raw: object) -> tuple[Number, str]:
    """Read a number, as a literal of a numeric XSD type, as a plain string or as a JSON number, with the text of it.

    Exact: a fraction stays one, and a JSON float is read by its shortest text. Raises PolicyError, whose text says what would do.
    """
    text, datatype = literal({"@value": raw} if isinstance(raw, int | float) else raw)
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise PolicyError('it is no number; write it like {"@value": "5", "@type": "xsd:integer"}')
    if datatype not in _NUMBER_TYPES:
        raise PolicyError("its `@type` does not fit; a number is an `xsd:integer` or an `xsd:decimal`")
    if len(text) > DIGITS_MAX:
        raise PolicyError(f"it has more than {DIGITS_MAX} digits; no quantity needs them")
    found = Fraction(text)
    return (found.numerator if found.denominator == 1 else found), text


def length(raw: object) -> tuple[Span, str]:
    """Read an xsd:duration, which is not negative here, with the text of it.

    Months and seconds stay apart, because a month has no length of its own. Raises PolicyError, whose text says what would do.
    """
    text, datatype = literal(raw)
    match = _DURATION.fullmatch(text) if text[-1:] not in "PT" else None
    if match is None:
        raise PolicyError("it is no duration; write it like `P30D`, `PT12H` or `P6M` (six months)")
    if datatype not in _DURATION_TYPES:
        raise PolicyError("its `@type` does not fit; a duration is an `xsd:duration`")
    sign, *parts, fraction = match.groups()
    if len(text) > DIGITS_MAX:
        raise PolicyError(f"it has more than {DIGITS_MAX} digits; no time needs them")
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in parts)
    whole = ((weeks * 7 + days) * 86_400 + hours * 3600 + minutes * 60 + seconds) * SECOND + int((fraction or "0").ljust(6, "0")[:6])
    if sign and (years or months or whole):
        raise PolicyError("it is negative; a duration here is the time that has gone by")
    return Span(years * 12 + months, whole), text


def in_seconds(raw: object) -> object:
    """A plain number that is not negative as the duration of so many seconds; anything else as it is. Raises PolicyError for no literal."""
    text, datatype = literal({"@value": raw} if isinstance(raw, int | float) else raw)
    return f"PT{text}S" if datatype in _NUMBER_TYPES and _SECONDS.fullmatch(text) else raw


def exact(raw: object) -> int:
    """Read a duration that is a fact, in microseconds. One in months has no length of its own, and is none. Raises PolicyError."""
    span, _ = length(raw)
    if span.months:
        raise PolicyError("a duration in months is no fact; write it in days")
    return span.microseconds


def after(start: int, span: Span) -> int | None:
    """The instant `span` after `start` by the calendar of UTC: months first, the last day of a shorter month, then the rest.

    None beyond the calendar.
    """
    if not span.months:
        return start + span.microseconds
    at = instant(start)
    if at is None:
        return None
    months = at.year * 12 + at.month - 1 + span.months
    year, month = divmod(months, 12)
    if not 1 <= year < 9999:  # noqa: PLR2004 - the calendar of datetime
        return None
    following = date(year + (month == 11), (month + 1) % 12 + 1, 1)  # noqa: PLR2004 - months counted from 0
    last = (following - timedelta(days=1)).day
    moved = microseconds(at.replace(year=year, month=month + 1, day=min(at.day, last)))
    return None if moved is None else moved + span.microseconds


def bounds(span: Span) -> tuple[int, int]:
    """The shortest and the longest that a span can be, in microseconds; equal unless it counts months."""
    short, long = (span.months * days * DAY + span.microseconds for days in MONTH_DAYS)
    return short, long


def term(raw: object) -> str:
    """Read a concept or a participant: an IRI, or a string, which names the IRI if it is an absolute one and else only itself.

    So `https://w3id.org/dpv#ResearchAndDevelopment` is one purpose in both forms, and "Research" never equals an IRI that ends so.
    Raises PolicyError, whose text says what would do.
    """
    if isinstance(raw, dict) and raw.keys() == {"@id"}:
        return _iri(raw["@id"])
    if isinstance(raw, int | float):
        raw = {"@value": raw}
    elif isinstance(raw, dict) and raw.keys() == {"@value", "@language"}:
        raw = {"@value": raw["@value"]}  # a language tag names the same word
    text, datatype = literal(raw)
    if datatype not in _TERM_TYPES:
        raise PolicyError('its `@type` does not fit; write a string, or an IRI as {"@id": "https://..."}')
    if len(text) > CHARS_MAX:
        raise PolicyError(f"it has more than {CHARS_MAX} characters; name it by an IRI")
    return text


def tellable(text: str) -> bool:
    """Whether a string can be told to anybody as the name of something: without controls, and of a length that is read."""
    return len(text) <= CHARS_MAX and text.isprintable()


def misleads(text: str) -> bool:
    """Whether a string reads otherwise than it is compared: whoever approves terms has to see the words that are agreed on."""
    return _MISLEADING.search(text) is not None


def spoils(text: str) -> bool:
    """Whether a string begins as an IRI and must be none: it breaks out of the place in which an IRI is written (RFC 3987 has no quotes,
    brackets and backslashes), or runs as a script where somebody opens it."""
    scheme = _SCHEME.match(text)
    return scheme is not None and (not in_iri(text) or scheme[0].lower() in _SCRIPTS)


def in_iri(text: str) -> bool:
    """Whether a string has only characters of an IRI: RFC 3987 has no quotes and brackets in it. Spaces, which it has not either, are
    common in the names that people give, and every reader takes them."""
    return _NOT_IN_IRI.search(text) is None


def spells_an_iri(raw: object) -> bool:
    """Whether a value is a string literal that is taken as the IRI that it spells."""
    return isinstance(raw, str) and raw.startswith(ABSOLUTE)


def literal(raw: object) -> tuple[str, str]:
    """The text of a literal and its datatype as full IRI. Raises PolicyError, whose text says what would do."""
    text, datatype = raw, None
    if isinstance(raw, dict):
        if not {"@value"} <= raw.keys() <= {"@value", "@type"}:
            raise PolicyError('write a string, {"@value": ..., "@type": ...} or {"@id": ...}')
        text, datatype = raw["@value"], raw.get("@type")
        if isinstance(text, bool):
            return ("true" if text else "false"), XSD + "boolean"
        if isinstance(text, int | float):
            if isinstance(text, int) and text.bit_length() > DIGITS_MAX * 4:
                raise PolicyError(f"it has more than {DIGITS_MAX} digits; no quantity needs them")
            text = repr(text)
    if not isinstance(text, str) or not text:
        raise PolicyError("write it as a string that is not empty")
    if datatype is None:
        return text, STRING
    if not isinstance(datatype, str):
        raise PolicyError("write its `@type` as a string, like `xsd:dateTime`")
    return text, expand(datatype) or datatype


def _iri(raw: object) -> str:
    full = expand(raw) if isinstance(raw, str) and tellable(raw) and not spoils(raw) else None
    if full is None:
        raise PolicyError("its `@id` is no absolute IRI, and only the prefixes of the context are known; write the IRI in full")
    return full


def _zone_minutes(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    if minutes > _ZONE_MINUTES_MAX or int(zone[4:6]) > 59:  # noqa: PLR2004 - the clock face
        raise PolicyError("there is no such time zone")
    return -minutes if zone[0] == "-" else minutes
