import json
from pathlib import Path

import pytest

from connector.dsp.messages import DSP_CONTEXT
from connector.dsp.schemas import BASE, SCHEMA_OF
from connector.errors import SettingsError
from connector.vocabulary import CONTEXTS, read_vocabulary


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CONTEXT_FILES = dict.fromkeys(CONTEXTS.values(), '{"@context": {}}')


def test_the_checkout_holds_every_schema_and_context():
    vocabulary = read_vocabulary()
    assert {BASE + place.partition("#")[0] for place in SCHEMA_OF.values()} <= vocabulary.schemas.keys()
    assert vocabulary.contexts.keys() == CONTEXTS.keys()
    assert "ContractRequestMessage" in vocabulary.contexts[DSP_CONTEXT]["@context"]


def test_the_first_place_that_exists_is_read(tmp_path: Path):
    for place in ("wheel", "checkout"):
        planted(tmp_path / place, {**CONTEXT_FILES, "common/a-schema.json": json.dumps({"$id": place})})
    assert read_vocabulary((tmp_path / "none", tmp_path / "wheel", tmp_path / "checkout")).schemas.keys() == {"wheel"}


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"looked for `.*/gone`; reinstall"):
        read_vocabulary((tmp_path / "gone",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "cannot be read as JSON"), ("[]", "is not a JSON object"), ("{}", "has no `\\$id`"), ('{"$id": 1}', "has no `\\$id`")],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, complaint: str):
    planted(tmp_path, {**CONTEXT_FILES, "common/a-schema.json": text})
    with pytest.raises(SettingsError, match=f"a-schema.json` {complaint}"):
        read_vocabulary((tmp_path,))


def test_a_missing_context_is_named(tmp_path: Path):
    planted(tmp_path, {"common/a-schema.json": '{"$id": "a"}'})
    with pytest.raises(SettingsError, match=r"dspace.jsonld` cannot be read"):
        read_vocabulary((tmp_path,))
