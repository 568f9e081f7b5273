"""`connector publish`: manifests and options become what the API takes; mistakes are said before anything is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.fake_connector import FakeConnector, problem

POLICY = {"permission": [{"action": "use", "constraint": [{"leftOperand": "purpose", "operator": "eq", "rightOperand": "research"}]}]}
VIEW = {
    "id": "urn:d:1",
    "title": "Cohort",
    "size_bytes": 1_440_000,
    "sha256": "ab" * 32,
    "offers": [{"id": "urn:o:1", "policy": POLICY, "manual": True}],
    "version": 1,
    "updated": "2026-01-31T12:00:00.000Z",
}


@pytest.fixture(autouse=True)
def answering(fake: FakeConnector, home: Path) -> Path:
    fake.answers[("PUT", "/v1/datasets/urn%3Ad%3A1")] = (201, VIEW)
    fake.answers[("PUT", "/v1/datasets/b")] = (201, VIEW | {"id": "b"})
    (home / "policy.json").write_text(json.dumps(POLICY))
    return home


def sent(fake: FakeConnector, id: str = "urn%3Ad%3A1") -> list[Any]:
    return fake.bodies("PUT", f"/v1/datasets/{id}")


def test_a_file_is_published_under_its_policy(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    options = ("--title", "Cohort", "--manual", "--binding", "--keyword", "a", "--keyword", "b", "--media-type", "text/csv")
    options += ("--description", "d")
    ended = command("publish", "data/x.csv", "--id", "urn:d:1", "--policy", "policy.json", *options)
    assert ended.code == 0, ended.err
    golden("publish", ended.out)
    source = {"type": "file", "path": str(home / "data" / "x.csv")}
    rest = {"manual": True, "binding": True, "description": "d", "keywords": ["a", "b"], "media_type": "text/csv"}
    assert sent(fake) == [{"title": "Cohort", "source": source, "policies": [POLICY], **rest}]


def test_the_title_is_the_name_of_the_file_unless_given(command: Command, fake: FakeConnector):
    assert command("publish", "data/x.csv", "--id", "urn:d:1", "--policy", "policy.json").code == 0
    assert sent(fake)[0].keys() == {"title", "source", "policies"}
    assert sent(fake)[0]["title"] == "x.csv"


@pytest.mark.parametrize("name", ["m.json", "m.toml"])
def test_a_manifest_says_it_all_and_its_paths_start_at_it(command: Command, fake: FakeConnector, home: Path, name: str):
    (home / "sets").mkdir()
    (home / "sets" / "p.json").write_text(json.dumps(POLICY))
    manifest = {"id": "urn:d:1", "title": "Cohort", "source": {"type": "file", "path": "x.csv"}, "policies": ["p.json"], "manual": True}
    toml = 'id = "urn:d:1"\ntitle = "Cohort"\nsource = {type = "file", path = "x.csv"}\npolicies = ["p.json"]\nmanual = true\n'
    (home / "sets" / name).write_text(json.dumps(manifest) if name.endswith("json") else toml)
    ended = command("publish", f"sets/{name}")
    assert ended.code == 0, ended.err
    source = {"type": "file", "path": str(home / "sets" / "x.csv")}
    assert sent(fake) == [{"title": "Cohort", "source": source, "policies": [POLICY], "manual": True}]


def test_a_manifest_may_have_several_datasets(command: Command, fake: FakeConnector, home: Path):
    one = {"title": "t", "source": {"type": "http", "url": "https://x.example"}, "policies": [POLICY]}
    (home / "m.json").write_text(json.dumps({"datasets": [one | {"id": "urn:d:1"}, one | {"id": "b"}]}))
    ended = command("publish", "m.json", "--json")
    assert [item["id"] for item in json.loads(ended.out)["items"]] == ["urn:d:1", "b"]
    assert sent(fake) == [one]
    assert sent(fake, "b") == [one]


@pytest.mark.parametrize(
    ("arguments", "files", "says"),
    [
        (("x.csv",), {}, "to publish it as data give `--id`"),
        (("x.csv", "--id", "a"), {}, "give `--policy FILE`"),
        (("x.csv", "--id", "a", "--policy", "no.json"), {}, "`no.json` cannot be read: No such file"),
        (("x.csv", "--id", "a", "--policy", "bad.json"), {"bad.json": "{"}, "`bad.json` is not JSON"),
        (("x.csv", "--id", "a", "--policy", "list.json"), {"list.json": "[]"}, "is not an object"),
        (("x.csv", "--id", "a", "--policy", "p.toml"), {"p.toml": ""}, "an ODRL policy is a JSON document"),
        (("m.json", "--title", "t"), {"m.json": "{}"}, "--title describe a data file, which needs `--id`"),
        (("m.json",), {"m.json": "{}"}, "dataset 0 of `m.json` has no `id`"),
        (("m.json",), {"m.json": '{"datasets": [], "id": "a"}'}, "write one dataset, or only [[datasets]]"),
        (("m.json",), {"m.json": '{"datasets": {}}'}, "not as a list"),
        (("m.toml",), {"m.toml": "id ="}, "`m.toml` is not TOML"),
        (("m.json",), {}, "`m.json` cannot be read"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_sent(
    command: Command, fake: FakeConnector, home: Path, arguments: tuple[str, ...], files: dict[str, str], says: str
):
    for name, content in files.items():
        (home / name).write_text(content)
    ended = command("publish", *arguments)
    assert ended.code == 1
    assert says in ended.err
    assert fake.asked == []


def test_a_policy_that_is_not_understood_comes_back_with_its_findings(command: Command, fake: FakeConnector):
    reasons = ("`/permission/0/constraint/0/leftOperand` is `mood`", "`/prohibition` is not supported")
    fake.answers[("PUT", "/v1/datasets/urn%3Ad%3A1")] = (
        422,
        problem(422, "policy-not-understood", "the policy is not understood", reasons),
    )
    ended = command("publish", "x.csv", "--id", "urn:d:1", "--policy", "policy.json")
    assert ended.code == 1
    assert ended.err == f"connector: the policy is not understood\n  - {reasons[0]}\n  - {reasons[1]}\n"
