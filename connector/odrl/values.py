"""Right operands: what the author wrote -> values that can be compared, or the reason why they cannot.

The wire form of a right operand is a string, {"@value", "@type"}, {"@id"}, or an array (or "@list") of these (DSP 2025-1, contract schema).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from connector.errors import PolicyError
from connector.odrl.vocabulary import ABSOLUTE, XSD, expand

SECOND: Final = 1_000_000  # microseconds, the unit of every instant here
DAY: Final = 86_400 * SECOND
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)

# xsd:date and xsd:dateTime; the seconds may be missing, as in the official examples of DSP 2025-1 ("2023-12-31T06:00Z").
_LEXICAL: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,18}))?)?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_STRING: Final = XSD + "string"  # the datatype of a plain string (RDF 1.1)
_DAY_TYPES: Final = frozenset({_STRING, XSD + "date"})
_INSTANT_TYPES: Final = frozenset({_STRING, XSD + "dateTime", XSD + "dateTimeStamp"})
_ZONE_MINUTES_MAX: Final = 14 * 60  # XSD 1.1: no time zone lies further from UTC


class Span(NamedTuple):
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
    """The instant as an aware datetime in UTC; None beyond the year 9999."""
    try:
        return EPOCH + timedelta(microseconds=at_microseconds)
    except OverflowError:
        return None


def items(raw: object) -> list[object] | None:
    """The members of an array or of {"@list": [...]}; None for a single value. An array of one is that one, as in JSON-LD."""
    if isinstance(raw, dict) and raw.keys() == {"@list"}:
        raw = raw["@list"]
    return list(raw) if isinstance(raw, list | tuple) else None


def span(raw: object) -> Span:
    """Read an xsd:date (a day) or an xsd:dateTime (an instant), plain or typed; without a zone it is UTC.

    Raises PolicyError, whose text says what would do.
    """
    text, datatype = _literal(raw)
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
        return Span(days * DAY - shift, (days + 1) * DAY - shift, text, zone is not None)
    clock = (int(hour) * 3600 + int(minute) * 60 + int(second or 0)) * SECOND
    parts = int((fraction or "0").ljust(6, "0")[:6])
    whole_day = clock + parts == DAY and int(fraction or 0) == 0
    if not whole_day and (int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59):  # noqa: PLR2004 - the clock face
        raise PolicyError("there is no such time of day")
    start = days * DAY + clock + parts - shift
    return Span(start, start + 1, text, zone is not None)


def term(raw: object) -> str:
    """Read a concept or a participant: an IRI, or a string, which names the IRI if it is an absolute one and else only itself.

    So `https://w3id.org/dpv#ResearchAndDevelopment` is one purpose in both forms, and "Research" never equals an IRI that ends so.
    Raises PolicyError, whose text says what would do.
    """
    if isinstance(raw, dict) and raw.keys() == {"@id"}:
        return _iri(raw["@id"])
    text, datatype = _literal(raw)
    if datatype != _STRING:
        raise PolicyError('its `@type` does not fit; write a string, or an IRI as {"@id": "https://..."}')
    return text


def spells_an_iri(raw: object) -> bool:
    """Whether a value is a string literal that is taken as the IRI that it spells."""
    return isinstance(raw, str) and raw.startswith(ABSOLUTE)


def _literal(raw: object) -> tuple[str, str]:
    """The text of a literal and its datatype as full IRI."""
    text, datatype = raw, None
    if isinstance(raw, dict):
        if not {"@value"} <= raw.keys() <= {"@value", "@type"}:
            raise PolicyError('write a string, {"@value": ..., "@type": ...} or {"@id": ...}')
        text, datatype = raw["@value"], raw.get("@type")
    if not isinstance(text, str) or not text:
        raise PolicyError("write it as a string that is not empty")
    if datatype is None:
        return text, _STRING
    if not isinstance(datatype, str):
        raise PolicyError("write its `@type` as a string, like `xsd:dateTime`")
    return text, expand(datatype) or datatype


def _iri(raw: object) -> str:
    full = expand(raw) if isinstance(raw, str) else None
    if full is None:
        raise PolicyError("its `@id` is no absolute IRI, and only the prefixes of the DSP context are known; write the IRI in full")
    return full


def _zone_minutes(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    if minutes > _ZONE_MINUTES_MAX or int(zone[4:6]) > 59:  # noqa: PLR2004 - the clock face
        raise PolicyError("there is no such time zone")
    return -minutes if zone[0] == "-" else minutes
