"""Policies before they are published, over sockets: the library of templates, and what a policy in any form comes to."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests import pair
from tests.pair import Desk, fresh, purpose_policy

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHOICE = [{"template": "purpose", "parameters": {"purposes": ["research"]}}, {"template": "count", "parameters": {"times": 3}}]
TEXT = "offer\n  permit use\n    for {research}\n    at most 3 times\n  forbid distribute\n  on conflict forbid\n"
TURTLE = (
    "@prefix odrl: <http://www.w3.org/ns/odrl/2/> . <urn:o> a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:target <urn:d> ] ."
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with pair.desk(tmp_path_factory.mktemp("policies") / "x") as made:
        yield made


async def test_the_library_says_what_a_form_needs(desk: Desk):
    items = (await desk.us.asked("GET", "/templates"))["items"]
    assert len(items) == 83
    assert all(each["label"]["en"] and each["label"]["zh"] for each in items)
    count = next(each for each in items if each["id"] == "count")
    (times,) = count["parameters"]
    assert (times["name"], times["type"], times["required"], times["low"]) == ("times", "integer", times["default"] is None, 1)
    assert "cases" not in count
    shown = await desk.us.asked("GET", "/templates/count")
    assert {each["result"] for each in shown["cases"]} >= {"permit", "deny"}
    every = [parameter for each in items for parameter in each["parameters"]]
    assert all(isinstance(bound, int | float) for each in every for bound in (each["low"], each["high"]) if bound is not None)


async def test_a_template_that_is_none_is_said_with_the_nearest(desk: Desk):
    answer = await desk.us.manage("GET", "/templates/purposes")
    assert (answer.status, "did you mean `purpose`?" in answer.json["detail"]) == (404, True)
    assert "`connector templates` lists them, as `GET /v1/templates` does" in (await desk.us.manage("GET", "/templates/zzz")).json["detail"]


async def test_every_form_comes_to_the_document_that_can_be_published(desk: Desk):
    chosen = await desk.us.asked("POST", "/policies", {"templates": CHOICE})
    text = await desk.us.asked("POST", "/policies", {"text": TEXT})
    turtle = await desk.us.asked("POST", "/policies", {"turtle": TURTLE})
    document = await desk.us.asked("POST", "/policies", {"document": purpose_policy("care"), "lang": "zh"})
    assert [each["refused"] for each in (chosen, text, turtle, document)] == [False] * 4
    assert chosen["document"]["permission"] == text["document"]["permission"]
    assert turtle["document"]["permission"] == [{"action": "use"}]
    assert "用于" in document["plain"]["sentences"][0]
    dataset = fresh("dataset")
    view = await desk.us.publish(dataset, chosen["document"], templates=[chosen["template"]])
    kept = view["offers"][0]["template"]
    assert kept == chosen["template"]
    again = await desk.us.asked("POST", "/policies", kept)
    assert (again["document"], again["template"]) == (chosen["document"], kept), "the form can be opened again"


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"templates": [{"template": "count", "parameters": {"times": 0}}]}, "/0/parameters/times", "too small"),
        ({"templates": [{"template": "counts"}]}, "/0/template", ""),
        ({"templates": [7]}, "/0", ""),
        ({"templates": []}, "", "no template is chosen"),
        ({"text": "offer\n  permit use\n    fro {x}\n"}, "line 3", ""),
        ({"document": {"permission": [{"action": "dance"}]}}, "/permission/0/action", "dance"),
        ({"turtle": "nonsense"}, "", ""),
    ],
)
async def test_a_mistake_is_a_finding_with_its_place(desk: Desk, body: Any, path: str, says: str):
    found = await desk.us.asked("POST", "/policies", body)
    assert (found["refused"], found["document"], found["plain"]) == (True, None, None)
    assert any(path in finding["path"] and finding["fix"] for finding in found["findings"]), found["findings"]
    assert says in json.dumps(found["findings"])


@pytest.mark.parametrize("body", [{}, {"text": TEXT, "templates": CHOICE}, {"text": TEXT, "lang": "fr"}, {"policy": {}}])
async def test_a_call_that_says_no_policy_or_several_is_refused(desk: Desk, body: Any):
    assert (await desk.us.manage("POST", "/policies", body)).status == 400
