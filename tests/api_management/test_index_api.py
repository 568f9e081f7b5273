"""Who writes a program finds all calls at one address, each with the body that it takes."""

from pathlib import Path

import pytest

from tests import pair

pytestmark = pytest.mark.asyncio


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
