import pytest

from connector.metering.content import SEPARATORS, UNITS
from connector.ports.live import unit_of


@pytest.mark.parametrize(
    ("media_type", "unit"),
    [
        ("application/x-ndjson", "line"),
        ("application/fhir+ndjson; fhirVersion=4.0", "line"),
        ("text/event-stream", "message"),
        ("Text/Event-Stream; charset=utf-8", "message"),
        ("application/octet-stream", "none"),
        ("", "none"),
    ],
)
def test_what_a_record_is_follows_from_the_media_type(media_type: str, unit: str):
    assert unit_of(media_type) == unit
    assert unit in UNITS
    assert unit == "none" or unit in SEPARATORS
