"""Every setting has a documentation, a default where one is safe, and bounds where it is a number."""

import subprocess
import sys
from math import isfinite

import pytest
from msgspec import NODEFAULT

from connector.settings import SECTIONS, Settings, fields

FIELDS = [
    pytest.param(section, spec, id=f"{section}.{spec.name}")
    for section, cls in SECTIONS.items()
    if fields.is_section(cls)
    for spec in fields.fields_of(cls)
]


@pytest.mark.parametrize(("section", "spec"), FIELDS)
def test_a_field_is_documented_bounded_and_has_a_default(section: str, spec: fields.Field):
    assert spec.says.doc
    assert not spec.says.doc.endswith(".")
    assert section == "participant" or spec.default is not NODEFAULT
    if spec.type in (int, float, tuple[int, ...]):
        assert isfinite(spec.says.low)
    if spec.name.endswith(("_seconds", "_days", "_hours")):
        assert spec.type is float


def test_settings_cannot_be_changed():
    own = fields.ParticipantSettings(id="did:web:a", name="a", role="r")
    settings = Settings(participant=own)
    with pytest.raises(AttributeError):
        settings.participant = own
    assert settings.management.tls is False


def test_reading_settings_imports_nothing_heavy():
    program = "import connector.settings, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout.split()
    assert not {"aiohttp", "asyncio", "orjson", "nacl", "cyclopts", "rich", "jsonschema"} & set(loaded)
