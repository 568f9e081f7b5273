"""The files are whole: digests, the official copy untouched, the README true."""

import hashlib
from pathlib import Path

import pytest

from connector.dsp.schemas import BASE
from connector.vocabulary import CONTEXTS, read_vocabulary
from tests.vocab.corpus import OFFICIAL

VOCAB = Path(__file__).parents[2] / "vocab"


@pytest.mark.parametrize("folder", [VOCAB, OFFICIAL], ids=["ours", "official"])
def test_each_file_has_its_digest_and_each_digest_its_file(folder: Path):
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.suffix in (".json", ".jsonld")
    }
    assert found == listed


def test_a_schema_stands_where_its_id_says():
    for id_ in read_vocabulary().schemas:
        assert (VOCAB / id_.removeprefix(BASE)).is_file()


def test_the_folders_are_those_of_the_standard():
    assert {path.name for path in VOCAB.iterdir() if path.is_dir()} == {"catalog", "common", "context", "negotiation", "transfer"}


def test_the_readme_names_each_context():
    text = (VOCAB / "README.md").read_text()
    assert all(url in text or url.removeprefix(BASE) in text for url in CONTEXTS)


def test_ours_are_shorter_than_the_official_ones():
    def lines(folder: Path) -> int:
        return sum(len(path.read_text().splitlines()) for path in folder.glob("*/*-schema.json"))

    assert lines(VOCAB) < lines(OFFICIAL) / 2
