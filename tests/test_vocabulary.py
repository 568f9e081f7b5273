import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from connector import vocabulary
from connector.dsp.messages import DSP_CONTEXT
from connector.dsp.schemas import BASE, SCHEMA_OF
from connector.errors import ProfilesUnread, SettingsError
from connector.odrl.registry import Profile
from connector.vocabulary import (
    CONTEXTS,
    DATA_BYTES_MAX,
    POLICY_PLACES,
    read_data,
    read_profiles,
    read_template_library,
    read_vocabulary,
)


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


def read(root: Path, text: str | bytes) -> object:
    root.joinpath("a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_data(root)["a.yaml"]


def test_a_data_file_holds_texts_whole_numbers_and_booleans_and_bends_nothing(tmp_path: Path):
    text = """
    version: 2.10
    day: 2026-12-31
    price: 0.0200
    country: NO
    answer: yes
    count: 12
    code: 007
    quoted: "12"
    odd: !!str 5
    flag: true
    none: null
    empty:
    list: [odrl:use, https://a.example/b#c, $end]
    """
    assert read(tmp_path, text) == {
        "version": "2.10",
        "day": "2026-12-31",
        "price": "0.0200",
        "country": "NO",
        "answer": "yes",
        "count": 12,
        "code": "007",
        "quoted": "12",
        "odd": "5",
        "flag": True,
        "none": None,
        "empty": None,
        "list": ["odrl:use", "https://a.example/b#c", "$end"],
    }
    assert read(tmp_path, "") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "cannot be read as YAML"),
        ("a: 1\nb: 2\na: 3", r"line 3 has `a` a second time"),
        ("a: &x [1]\nb: *x", r"line 1 is used a second time; write it out, there are no anchors"),
        ("a: &x\n  b: *x", r"is used a second time"),
        (
            "a: !!python/object/apply:os.system ['true']",
            r"line 1 has the tag `tag:yaml.org,2002:python/object/.*`; data needs none",
        ),
        ("? [a]\n: b", r"line 1 has a key that is no word"),
        (b"\xff\xfe\xff", "cannot be read as YAML"),
        ("[" * 100_000, "nested too deeply|cannot be read as YAML"),
        ("a" * (DATA_BYTES_MAX + 1), "is larger than"),
    ],
)
def test_a_data_file_that_cannot_be_read_says_where(tmp_path: Path, text: str | bytes, expected: str):
    with pytest.raises(SettingsError, match=expected):
        read(tmp_path, text)


def test_what_policies_need_is_read_from_the_first_place_that_exists(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"the folder of policies is missing: looked for `.*/gone`; reinstall"):
        read_profiles((tmp_path / "gone",))
    assert read_profiles((tmp_path / "gone", tmp_path)) == ()
    assert {"health", "dpv"} <= {profile.id for profile in read_profiles()}
    assert read_template_library((tmp_path,)) == {}
    assert "scenario" in read_template_library()


def test_a_wrong_pack_is_named_with_its_file(tmp_path: Path):
    planted(tmp_path, {"profiles/mine.yaml": "id: mine\nversion: 1"})
    with pytest.raises(ProfilesUnread, match=r"the profile packs cannot be used: mine\.yaml#/version: it is no text") as raised:
        read_profiles((tmp_path,))
    assert len(raised.value.reasons) > 1


def test_packs_are_read_once_whoever_asks_meanwhile(monkeypatch: pytest.MonkeyPatch):
    """One who reads stays with it until another has come to it too, or a while is over in which nobody has."""
    read, another = list[Path](), Event()

    def slowly(folder: Path) -> dict[str, object]:
        read.append(folder)
        if len(read) == 1:
            another.wait(0.2)
        else:
            another.set()
        return {}

    monkeypatch.setattr(vocabulary, "read_data", slowly)
    places, together = (POLICY_PLACES[0] / "nowhere", *POLICY_PLACES), Barrier(4)

    def ask(_: int) -> tuple[Profile, ...]:
        together.wait()
        return read_profiles(places)

    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(ask, range(4))
    assert len(read) == 1
    assert all(each is first for each in others)
