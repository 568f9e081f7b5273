"""Who writes a program finds all calls at one address, each with the body that it takes."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests import pair

pytestmark = pytest.mark.asyncio

# Method, path and shape of a call, and a body of that shape whose last member has a value that the call refuses.
REFUSED: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("PUT", "/datasets/urn:x", "Publish", {"title": "x", "source": {}, "policies": [{}], "counter": "never"}),
    ("POST", "/negotiations", "Negotiate", {"peer": "hospital", "dataset": "urn:x", "accept": "all"}),
    ("POST", "/pulls", "OrderPull", {"peer": "hospital", "dataset": "urn:x", "out": "x", "purposes": [" "]}),
    ("POST", "/pulls", "OrderPull", {"peer": "hospital", "dataset": "urn:x", "out": "x", "seconds": 1e12}),  # ends after the year 9999
    ("POST", "/simulate", "Simulate", {"claims": {}, "limit": 0}),
    ("POST", "/simulate/change", "OtherTerms", {"policy": {}, "dataset": "urn:x", "limit": 501}),
)


async def test_each_call_is_listed_with_the_body_that_it_takes_and_no_other(tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        found = await us.asked("GET", "")
        listed = {(each["method"], each["path"]): each["takes"] for each in found["items"]}
        assert ("GET", "/v1") in listed
        assert listed["PUT", "/v1/datasets/{id}"] == {"$ref": "#/$defs/Publish"}
        assert found["$defs"]["Publish"]["required"] == ["title", "source", "policies"]
        for (method, path), takes in listed.items():
            if method != "GET":
                at = path.removeprefix("/v1").replace("{pid}", "urn:x").replace("{id}", "urn:x").replace("{sequence}", "1")
                answer = await us.manage(method, at, {"nonsense": 1})
                refused = b"unknown field" in answer.body
                assert refused is (takes is not None), (method, path, answer.body)
        assert ("GET", "/v1/ledger/tile/{path}") in listed  # and none as only our router reads it
        assert not [each for each in found["$defs"].values() if "\n" in each["description"] or "Raises" in each["description"]]


async def test_what_a_call_refuses_for_one_value_its_schema_refuses_too(tmp_path: Path):
    async with pair.running(pair.site(tmp_path / "hospital", "hospital")) as us:
        found = await us.asked("GET", "")
        for method, at, shape, body in REFUSED:
            assert not Draft202012Validator({"$ref": f"#/$defs/{shape}", "$defs": found["$defs"]}).is_valid(body), body
            answer = await us.manage(method, at, body)
            assert (answer.status, f'"/{list(body)[-1]}'.encode() in answer.body) == (400, True), (body, answer.body)
        assert (await us.manage("GET", "/pulls")).status == 200
