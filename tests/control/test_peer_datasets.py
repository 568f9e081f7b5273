"""What peers say about their datasets: whatever is wrong with it is theirs and comes with reasons, whatever form it has is read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from connector.dsp.messages import CONTEXT
from tests.pair import SCHEMAS, Desk, desk, purpose_policy

D = "urn:test:dataset"


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as made:
        yield made


def described(*offers: Any, **members: Any) -> dict[str, Any]:
    """The dataset as a peer describes it."""
    distribution = {"@type": "Distribution", "format": "HttpData-PULL", "accessService": "urn:service"}
    return {"@context": CONTEXT, "@id": D, "@type": "Dataset", "hasPolicy": list(offers), "distribution": [distribution]} | members


RULE: dict[str, Any] = {"action": "use"}
MALFORMED: dict[str, Any] = {
    "a number for offers": described() | {"hasPolicy": 5},
    "no offers": described(),
    "a rule that is a word": described({"@id": "urn:o", "permission": ["x"]}),
    "half a constraint": described({"@id": "urn:o", "permission": [RULE | {"constraint": [{"leftOperand": "odrl:purpose"}]}]}),
    "no distribution": described({"@id": "urn:o", "permission": [RULE]}, distribution=[]),
    "a list": [described({"@id": "urn:o", "permission": [RULE]}, distribution="x")],
    "too deep": b'{"dct:x":' * 300 + b"1" + b"}" * 300,
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.asyncio
async def test_a_dataset_that_a_peer_describes_wrongly_is_the_peers_failure_with_reasons(at: Desk, name: str):
    at.peer.script = lambda method, path, _: (200, MALFORMED[name]) if "/catalog/datasets/" in path else None
    for path, body in (("/negotiations", {"purposes": ["research"]}), ("/catalog/dataset", {})):
        answer = await at.us.manage("POST", path, {"peer": "biopharma", "dataset": D} | body)
        assert (answer.status, answer.json["title"]) == (502, "peer failed")
        assert "no `Dataset` of DSP 2025-1" in answer.json["detail"]
        assert answer.json["reasons"]


@pytest.mark.asyncio
async def test_what_would_take_a_hundred_times_its_bytes_to_be_read_is_not_read(at: Desk, monkeypatch: pytest.MonkeyPatch):
    """Three megabytes of empty lists take 100 MB, and each answer to a message may be one."""
    read: list[int] = []
    loads = orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda body: (read.append(len(body)), loads(body))[1])
    lists = b'{"x":[' + b"[]," * 500_000 + b"[]]}"
    at.peer.script = lambda method, path, _: (200 if "/catalog/datasets/" in path else 400, lists)
    for path, asked in (("/catalog/dataset", {"peer": "biopharma", "dataset": D}), ("/catalog", {"peer": "biopharma"})):
        assert (await at.us.manage("POST", path, asked)).status == 502
    assert len(lists) not in read


@pytest.mark.asyncio
async def test_a_peer_that_answers_and_writes_with_the_expanded_form_of_a_string_is_told_so(at: Desk):
    text = {"@type": "xsd:string", "@value": "x"}
    at.peer.script = lambda _m, _p, _d: (200, text)
    for path, asked in (("/catalog/dataset", {"peer": "biopharma", "dataset": D}), ("/catalog", {"peer": "biopharma"})):
        assert (await at.us.manage("POST", path, asked)).status == 502
    assert (await at.peer.send(at.us, "POST", "/negotiations/request", text)).status == 400


SINGLE = {"@id": "urn:o1", "@type": "Offer", "permission": purpose_policy("research")["permission"][0]}
FORMS: dict[str, Any] = {
    "single values": described() | {"@context": CONTEXT[0], "hasPolicy": SINGLE},
    "empty lists": described(purpose_policy("research") | {"@id": "urn:o1", "prohibition": [], "obligation": []}, **{"dcat:keyword": []}),
    "a context of its own": described(purpose_policy("research") | {"@id": "urn:o1"}, **{"@context": [*CONTEXT, "https://own.example/"]}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.asyncio
async def test_a_dataset_in_another_form_means_the_same(at: Desk, name: str):
    at.peer.script = lambda method, path, _: (200, FORMS[name]) if "/catalog/datasets/" in path else None
    await at.us.asked("POST", "/negotiations", {"peer": "biopharma", "dataset": D, "purposes": ["research"]}, status=201)
    asked = await at.peer.heard("/negotiations/request")
    assert SCHEMAS.reasons("ContractRequestMessage", asked) == []
    assert (asked["offer"]["@id"], asked["offer"]["target"]) == ("urn:o1", D)


@pytest.mark.asyncio
async def test_a_logical_constraint_that_names_a_purpose_beside_it_breaks_nothing(at: Desk):
    """Valid by the schema, which looks at `or` only."""
    odd = {"or": purpose_policy("research")["permission"][0]["constraint"], "leftOperand": "odrl:purpose"}
    document = described({"@id": "urn:o1", "@type": "Offer", "permission": [RULE | {"constraint": [odd]}]})
    at.peer.script = lambda method, path, _: (200, document) if "/catalog/datasets/" in path else None
    await at.us.asked("POST", "/negotiations", {"peer": "biopharma", "dataset": D, "purposes": ["quality"]}, status=201)
    (constraint,) = (await at.peer.heard("/negotiations/request"))["offer"]["permission"][0]["constraint"]
    assert (constraint["operator"], constraint["rightOperand"]) == ("eq", "quality")


@pytest.mark.asyncio
async def test_what_json_ld_takes_for_a_property_of_its_own_is_not_asked_for(at: Desk):
    """A number is no constraint; for readers of RDF it still says something about the rule."""
    document = described({"@id": "urn:o1", "@type": "Offer", "permission": [RULE | {"constraint": 7}]})
    at.peer.script = lambda method, path, _: (200, document) if "/catalog/datasets/" in path else None
    answer = await at.us.manage("POST", "/negotiations", {"peer": "biopharma", "dataset": D})
    assert answer.status == 422, answer.body
    assert answer.json["reasons"][0].startswith("/permission/0/odrl:constraint: it is no array")
