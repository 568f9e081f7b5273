"""`connector publish`: manifests and options become what the API takes; mistakes are said before anything is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import pair
from tests.cli.conftest import Command, Operated
from tests.fake_connector import FakeConnector, problem

POLICY = {"permission": [{"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}]}]}
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
    source = {"type": "file", "path": str(home / "data" / "x.csv"), "media_type": "text/csv"}
    rest = {"manual": True, "binding": True, "description": "d", "keywords": ["a", "b"], "media_type": "text/csv"}
    assert sent(fake) == [{"title": "Cohort", "source": source, "policies": [POLICY], **rest}]


def test_an_offer_that_is_over_is_published_with_the_reason_why_nobody_sees_it(command: Command, fake: FakeConnector):
    until = [{"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2020-12-31", "@type": "xsd:date"}}]
    over = {"@type": "Offer", "permission": [{"action": "use", "constraint": until}]}
    for policy, said in ((over, True), (POLICY, False)):
        fake.answers[("PUT", "/v1/datasets/urn%3Ad%3A1")] = (201, VIEW | {"offers": [{"id": "urn:o:1", "policy": policy}]})
        ended = command("publish", "data/x.csv", "--id", "urn:d:1", "--policy", "policy.json")
        assert ended.code == 0
        assert ("the time of the permission to use is over, and nobody is shown" in ended.err) is said


def test_what_is_published_is_listed_page_by_page(command: Command, fake: FakeConnector):
    fake.answers[("GET", "/v1/datasets")] = [(200, {"items": [VIEW], "next": "c"}), (200, {"items": [VIEW | {"id": "b"}], "next": None})]
    ended = command("datasets")
    assert ended.code == 0
    assert [line.split("  ")[0] for line in ended.out.splitlines()] == ["DATASET", "urn:d:1"]
    assert "use, if purpose is research" in ended.out
    assert ended.err == "there is more; `--all` shows it\n"
    fake.answers[("GET", "/v1/datasets")] = [(200, {"items": [VIEW], "next": "c"}), (200, {"items": [VIEW | {"id": "b"}], "next": None})]
    assert [each["id"] for each in json.loads(command("datasets", "--all", "--json").out)["items"]] == ["urn:d:1", "b"]
    assert fake.asked[-1].path == "/v1/datasets?after=c"
    fake.answers[("GET", "/v1/datasets")] = (200, {"items": [], "next": None})
    assert command("datasets").err == "nothing is published\n"


def test_a_dataset_is_withdrawn(command: Command, fake: FakeConnector):
    fake.answers[("DELETE", "/v1/datasets/urn%3Ad%3A1")] = (204, None)
    ended = command("datasets", "withdraw", "urn:d:1")
    assert (ended.code, ended.out) == (0, "urn:d:1 is withdrawn; `connector publish` brings it back\n")
    assert json.loads(command("datasets", "withdraw", "urn:d:1", "--json").out) == {"withdrawn": "urn:d:1"}
    assert "which one? write `datasets withdraw ID`" in command("datasets", "withdraw").err
    fake.answers[("DELETE", "/v1/datasets/none")] = (404, problem(404, "not-found", "dataset `none` is not published here"))
    assert "dataset `none` is not published here" in command("datasets", "withdraw", "none").err


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
        (("x.csv", "--id", "a", "--policy", "bad.json"), {"bad.json": "{"}, "`bad.json` cannot be used: "),
        (("x.csv", "--id", "a", "--policy", "list.json"), {"list.json": "[]"}, "no template is chosen; choose one at least"),
        (("x.csv", "--id", "a", "--policy", "p.toml"), {"p.toml": ""}, "a policy is JSON (.json), Turtle (.ttl) or the text form (.odrl)"),
        (("x.csv", "--id", "a", "--policy", "bad.odrl"), {"bad.odrl": "offer\n  permit use\n    fro {x}\n"}, "line 3"),
        (("x.csv", "--id", "a", "--policy", "bad.ttl"), {"bad.ttl": "nonsense"}, "`bad.ttl` cannot be used: "),
        (
            ("x.csv", "--id", "a", "--policy", "t.json"),
            {"t.json": '[{"template": "count", "parameters": {"times": "x"}}]'},
            "/0/parameters/times",
        ),
        (
            ("m.json",),
            {"m.json": '{"id": "a", "policies": [[{"template": "count", "parameters": {"times": "x"}}]]}'},
            "/0/parameters/times",
        ),
        (("m.json", "--title", "t"), {"m.json": "{}"}, "what --title says of a data file needs `--id`"),
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


TEXT = "offer\n  permit use\n    for {research}\n    at most 100 times\n  forbid distribute\n  on conflict forbid\n"
TURTLE = """@prefix odrl: <http://www.w3.org/ns/odrl/2/> .
<urn:o> a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:target <urn:d> ; odrl:constraint [
  odrl:leftOperand odrl:purpose ; odrl:operator odrl:eq ; odrl:rightOperand "research" ] ] ."""
CHOICE = [{"template": "purpose", "parameters": {"purposes": ["research"]}}, {"template": "count", "parameters": {"times": 100}}]
KEPT = {
    "templates": [
        {"template": "purpose", "version": "1.0", "parameters": {"purposes": ["research"]}},
        {"template": "count", "version": "1.0", "parameters": {"times": 100}},
    ]
}


def test_each_form_of_a_policy_is_published_as_an_offer_and_templates_are_kept_beside_it(command: Command, fake: FakeConnector, home: Path):
    (home / "p.odrl").write_text(TEXT)
    (home / "p.ttl").write_text(TURTLE)
    (home / "t.json").write_text(json.dumps(CHOICE))
    files = [option for name in ("p.odrl", "p.ttl", "t.json") for option in ("--policy", name)]
    ended = command("publish", "x.csv", "--id", "urn:d:1", *files, "--envelope", "p.odrl")
    assert ended.code == 0, ended.err
    (body,) = sent(fake)
    text, turtle, chosen = body["policies"]
    assert text["permission"] == chosen["permission"], "the text and the templates say the same"
    constraint = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
    assert turtle == {
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "Offer",
        "@id": "urn:o",
        "permission": [{"action": "use", "constraint": [constraint]}],
    }
    assert body["templates"] == [None, None, KEPT]
    assert body["envelope"] == text


def test_a_manifest_takes_every_form_too_and_templates_within_it(command: Command, fake: FakeConnector, home: Path):
    (home / "p.odrl").write_text(TEXT)
    manifest = {"id": "urn:d:1", "title": "t", "source": {"type": "file", "path": "x.csv"}, "policies": ["p.odrl", CHOICE, POLICY]}
    (home / "m.json").write_text(json.dumps(manifest | {"envelope": CHOICE}))
    ended = command("publish", "m.json")
    assert ended.code == 0, ended.err
    (body,) = sent(fake)
    assert body["policies"][0]["permission"] == body["policies"][1]["permission"] == body["envelope"]["permission"]
    assert (body["policies"][2], body["templates"]) == (POLICY, [None, KEPT, None])


@pytest.mark.parametrize(
    ("name", "options", "media_type"),
    [
        ("x.ndjson", (), "application/x-ndjson"),
        ("x.JSONL", (), "application/x-ndjson"),
        ("x.txt", ("--media-type", "application/x-ndjson"), "application/x-ndjson"),
        ("x.ndjson", ("--media-type", "text/plain"), "text/plain"),
    ],
)
def test_what_the_data_is_goes_to_the_source_that_is_measured(
    command: Command, fake: FakeConnector, name: str, options: tuple[str, ...], media_type: str
):
    assert command("publish", name, "--id", "urn:d:1", "--policy", "policy.json", *options).code == 0
    (body,) = sent(fake)
    assert (body["media_type"], body["source"]["media_type"]) == (media_type, media_type)


@pytest.mark.parametrize(
    ("said", "source", "media_type"),
    [
        ({}, {"path": "x.jsonl"}, "application/x-ndjson"),
        ({"media_type": "application/x-ndjson"}, {"path": "x"}, "application/x-ndjson"),
        ({"media_type": "text/plain"}, {"path": "x", "media_type": "text/csv"}, "text/csv"),
        ({"media_type": "text/csv"}, {"url": "https://x.example"}, "text/csv"),
        ({}, {"path": "x.csv"}, None),
    ],
)
def test_a_manifest_says_it_to_the_source_too(
    command: Command, fake: FakeConnector, home: Path, said: Any, source: Any, media_type: str | None
):
    (home / "m.json").write_text(json.dumps({"id": "urn:d:1", "title": "t", "source": source, "policies": [POLICY]} | said))
    assert command("publish", "m.json").code == 0
    assert sent(fake)[0]["source"].get("media_type") == media_type


@pytest.mark.asyncio
async def test_records_are_counted_of_lines_of_json_that_were_published_by_name(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        data = two.provider.site.root / "data"
        (data / "rows.ndjson").write_text('{"a": 1}\n{"a": 2}\n')
        quota = {"leftOperand": "urn:qiao:recordCount", "operator": "lteq", "rightOperand": {"@value": "5", "@type": "xsd:integer"}}
        (tmp_path / "q.json").write_text(json.dumps({"@type": "Offer", "permission": [{"action": "use", "constraint": [quota]}]}))
        (tmp_path / "t.json").write_text(json.dumps(CHOICE))
        files = ("--policy", str(tmp_path / "q.json"), "--policy", str(tmp_path / "t.json"))
        ended = await operated(two.provider, "publish", str(data / "rows.ndjson"), "--id", "urn:d:rows", *files)
        assert ended.code == 0, ended.err
        published = await two.provider.asked("GET", "/datasets/urn:d:rows")
        assert [offer.get("template") for offer in published["offers"]] == [None, KEPT], "the form can be opened again"


TEMPLATE = {
    "id": "count", "version": "1.0", "label": {"en": "A number of uses", "zh": "使用次数"}, "class": "IDS 10",
    "parameters": [
        {"name": "times", "type": "integer", "label": {"en": "times", "zh": "次数"}, "many": False, "required": True, "default": None,
         "choices": [], "low": 1, "high": None},
        {"name": "kinds", "type": "term", "label": {"en": "kinds", "zh": "种类"}, "many": True, "required": False, "default": ["甲"],
         "choices": ["甲", "乙"], "low": None, "high": None},
    ],
}  # fmt: skip


def test_the_templates_are_listed_and_one_is_shown_with_its_meaning(command: Command, fake: FakeConnector):
    case = {"say": "the third use", "parameters": {}, "result": "permit"}
    fake.answers |= {
        ("GET", "/v1/templates"): (200, {"items": [TEMPLATE], "next": None}),
        ("GET", "/v1/templates/count"): (200, TEMPLATE | {"cases": [case]}),
    }
    listed = command("templates")
    assert "count  A number of uses  times (integer), kinds? (term ...)  IDS 10" in listed.out
    shown = command("templates", "count", "--lang", "zh")
    assert shown.out.splitlines()[-3:] == [
        "times (integer): 次数 (at least 1)",
        'kinds? (term ...): 种类 (default ["甲"]; one of 甲, 乙)',
        "  permit: the third use",
    ]
    assert json.loads(command("templates", "--json").out)["items"][0]["class"] == "IDS 10"
    assert json.loads(command("templates", "count", "--json").out)["cases"] == [case]


@pytest.mark.asyncio
async def test_the_templates_of_a_running_connector_are_shown(tmp_path: Path, operated: Operated):
    async with pair.desk(tmp_path / "x") as desk:
        listed = await operated(desk.us, "templates")
        assert len(listed.out.splitlines()) == 84
        shown = await operated(desk.us, "templates", "purpose")
        assert "purposes (term ...)" in shown.out
        missing = await operated(desk.us, "templates", "purposes")
        assert (missing.code, "did you mean `purpose`?" in missing.err) == (1, True)
