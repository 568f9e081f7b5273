"""The settings of the pair are those of `connector init` with other values."""

import tomllib
from pathlib import Path

import pytest

from connector.cli.init import render
from tests.faults.home import SETTINGS, SETTINGS_OF, with_values


def test_only_the_named_fields_get_other_values(tmp_path: Path):
    plain = render({"participant.id": "did:web:a.example", "participant.name": "a", "participant.role": "hospital"})
    changed = with_values(plain, SETTINGS | SETTINGS_OF["consumer"])
    before, after = tomllib.loads(plain), tomllib.loads(changed)
    fields = {f"{section}.{field}": value for section in after for field, value in after[section].items()}
    differing = {name for name, value in fields.items() if before[name.split(".")[0]].get(name.split(".")[1]) != value}
    assert differing <= set(SETTINGS | SETTINGS_OF["consumer"])
    assert {name: fields[name] for name in SETTINGS} == SETTINGS
    assert after["approval"]["delay_seconds"] == 0.02


def test_a_field_that_does_not_exist_is_an_error():
    with pytest.raises(KeyError, match=r"edr\.colour"):
        with_values("[edr]\nquiet_seconds = 60\n", {"edr.colour": 1})
