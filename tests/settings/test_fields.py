"""Every setting has a documentation, a default where one is safe, and bounds where it is a number."""

import dataclasses
import subprocess
import sys

import pytest

from connector.settings import SECTIONS, Settings, fields

FIELDS = [
    pytest.param(section, spec, id=f"{section}.{spec.name}")
    for section, cls in SECTIONS.items()
    if dataclasses.is_dataclass(cls)
    for spec in dataclasses.fields(cls)
]


@pytest.mark.parametrize(("section", "spec"), FIELDS)
def test_a_field_is_documented_bounded_and_has_a_default(section: str, spec: dataclasses.Field):
    assert spec.metadata["doc"]
    assert not spec.metadata["doc"].endswith(".")
    assert section == "participant" or spec.default is not dataclasses.MISSING
    if spec.type in ("int", "float", "tuple[int, ...]"):
        assert spec.metadata["low"] is not None
    if spec.name.endswith(("_seconds", "_days", "_hours")):
        assert spec.type == "float"


def test_settings_cannot_be_changed():
    own = fields.ParticipantSettings(id="did:web:a", name="a", role="r")
    settings = Settings(participant=own)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.participant = own
    assert settings.management.tls is False


def test_reading_settings_imports_nothing_heavy():
    program = "import connector.settings, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout.split()
    assert not {"aiohttp", "asyncio", "msgspec", "orjson", "nacl", "cyclopts", "rich", "jsonschema"} & set(loaded)
