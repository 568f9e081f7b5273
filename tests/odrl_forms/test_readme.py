"""What policies/README.md shows is so."""

import json
import re
from pathlib import Path

from connector.odrl import load
from connector.odrl.operands import CORE_OPERANDS
from connector.odrl_forms.packs import read_pack
from connector.odrl_forms.plain import plain
from connector.odrl_forms.templates import instantiate
from connector.odrl_forms.text_form import parse_text, render_text
from connector.vocabulary import read_data
from tests.odrl_forms.shipped import POLICIES, library, options

README = (POLICIES / "README.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]  # type: ignore[index]


def test_the_choice_of_templates_makes_the_text_but_for_its_duty():
    made = load(instantiate(library(), json.loads(block("json"))), options=options())
    shown = load(parse_text(block("text")))
    assert [node.expected for node in made.permissions[0].constraints] == [node.expected for node in shown.permissions[0].constraints]  # type: ignore[union-attr]
    assert made.prohibitions == shown.prohibitions


def test_the_text_says_what_the_plain_words_say():
    policy = load(parse_text(block("text")), options=options())
    assert render_text(policy).replace("\n    at most", " and at most") == block("text")
    flat = " ".join(README.replace("\n> ", " ").split())
    assert " ".join(plain(policy, "en").sentences) in flat
    assert "".join(plain(policy, "zh").sentences) in flat


def test_the_pack_is_a_pack(tmp_path: Path):
    (tmp_path / "weather.yaml").write_text(block("yaml"))
    assert read_pack(read_data(tmp_path)["weather.yaml"]).id == "weather"


def test_every_file_and_every_pack_with_its_version_is_named():
    for path in POLICIES.rglob("*.*"):
        if path.suffix in (".json", ".yaml") and path.parent.name != "profiles":
            assert f"`{path.relative_to(POLICIES).as_posix()}`" in README
    for profile in options().profiles:
        assert f"| `{profile.id}` | {profile.version} |" in README


def test_the_numbers_are_right():
    assert f"{len(library())} templates" in README
    assert f"all {sum(operand.iri.startswith('http') for operand in CORE_OPERANDS) + 2} left operands" in README  # two are aliases
    dpv = next(profile.vocabulary for profile in options().profiles if profile.id == "dpv")
    assert dpv is not None
    assert f"all {len(dpv.broader)} purposes" in README
    assert f"{sum(name.startswith('DUO_') for name in library())} codes" in README
