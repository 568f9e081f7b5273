import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.app import Automatic
from connector.control.publish import Manifest
from connector.dsp import wire
from connector.dsp.messages import Kind, Move, Role
from connector.metering.claims import ID_CHARACTERS_MAX
from connector.records import Changes, Dataset
from tests.pair import OPEN, SCHEMAS, Answer, Desk, agreement, desk, fresh, only_for, purpose_policy, quoted

D = "urn:test:dataset"
SOURCE = {"type": "file", "path": "data.bin"}
UNKNOWN: dict[str, Any] = {
    "@type": "Offer",
    "permission": [{"action": "use", "constraint": [{"leftOperand": "urn:mood", "operator": "eq", "rightOperand": "good"}]}],
}


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, approver=Automatic(0.0)) as made:
        (made.us.site.root / "data" / "data.bin").write_bytes(b"0123456789")
        yield made


async def put(at: Desk, *policies: Any, id: str = D, **members: Any) -> Answer:
    body = {"title": "a title", "source": SOURCE, "policies": list(policies)} | members
    return await at.us.manage("PUT", f"/datasets/{quoted(id)}", body)


async def offers(at: Desk, id: str = D) -> list[dict[str, Any]]:
    """The offers of a dataset as the peer sees them; [] if it does not see the dataset."""
    answer = await at.peer.send(at.us, "GET", f"/catalog/datasets/{quoted(id)}")
    return answer.json["hasPolicy"] if answer.status == 200 else []


async def request(at: Desk, offer: str) -> Answer:
    """The peer asks for an offer as it stands in the catalog."""
    terms = OPEN | {"@id": offer, "target": D}
    message = wire.message(Move.CONTRACT_REQUEST, consumer_pid=fresh(), provider_pid=None, offer=terms, callbackAddress=at.peer.site.base)
    return await at.peer.send(at.us, "POST", "/negotiations/request", message)


async def transfer_request(at: Desk, agreed: str) -> Answer:
    message = wire.message(
        Move.TRANSFER_REQUEST, consumer_pid=fresh(), provider_pid=None, agreementId=agreed, format="HttpData-PULL",
        callbackAddress=at.peer.site.base,
    )  # fmt: skip
    return await at.peer.send(at.us, "POST", "/transfers/request", message)


async def running(at: Desk) -> tuple[str, dict[str, Any]]:
    """A transfer of the dataset that runs: its pid and its data address."""
    agreed = agreement(at.us, at.peer, Role.PROVIDER, dataset=D)
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    answer = await transfer_request(at, agreed.id)
    pid = answer.json["providerPid"]
    await at.us.state(Kind.TRANSFER, pid, "STARTED")
    return pid, (await at.peer.heard("/start"))["dataAddress"]


async def read(at: Desk, address: dict[str, Any], **headers: str) -> tuple[int, bytes, str]:
    token = next(p["value"] for p in address["endpointProperties"] if p["name"] == "authorization")
    async with at.us.http.get(address["endpoint"], headers={"Authorization": f"Bearer {token}"} | headers) as response:
        return response.status, await response.read(), response.headers.get("ETag", "")


@pytest.mark.asyncio
async def test_a_dataset_is_pinned_described_and_offered(at: Desk):
    answer = await put(
        at, OPEN, purpose_policy("research"), description="what it is", keywords=["a", "b"], properties={"dct:license": "CC0"}
    )
    assert answer.status == 201
    view = answer.json
    assert (view["size_bytes"], view["sha256"], view["version"]) == (10, hashlib.sha256(b"0123456789").hexdigest(), 1)
    seen = (await at.peer.send(at.us, "GET", f"/catalog/datasets/{quoted(D)}")).json
    assert SCHEMAS.reasons("Dataset", seen) == []
    assert (seen["dct:title"], seen["dct:description"], seen["dcat:keyword"], seen["dct:license"]) == (
        "a title", "what it is", ["a", "b"], "CC0",
    )  # fmt: skip
    assert [o["@id"] for o in seen["hasPolicy"]] == [o["id"] for o in view["offers"]]
    assert all("target" not in offer for offer in seen["hasPolicy"]), "the dataset around it is the target"
    assert b"data.bin" not in (await at.peer.send(at.us, "GET", "/catalog/request")).body, "where the bytes lie is nobody's business"
    assert [row.what for row in await at.us.connector.store.events(0, 9)] == ["dataset-published"]


@pytest.mark.asyncio
async def test_what_a_dataset_is_said_to_be_its_bytes_are_too_unless_the_source_says_otherwise(at: Desk):
    lines, table = "application/x-ndjson", "text/csv"
    for source, expected in ((SOURCE, lines), (SOURCE | {"media_type": table}, table)):
        assert (await put(at, OPEN, source=source, media_type=lines)).status in (200, 201)
        stored = await at.us.connector.store.dataset(D)
        assert stored is not None
        assert stored.media_type == expected


@pytest.mark.asyncio
async def test_publishing_the_same_again_changes_no_offer(at: Desk):
    first, second = await put(at, OPEN, purpose_policy("x")), await put(at, purpose_policy("x"), OPEN)
    assert (first.status, second.status) == (201, 200)
    assert sorted(o["id"] for o in first.json["offers"]) == sorted(o["id"] for o in second.json["offers"])
    assert second.json["version"] == 2


@pytest.mark.asyncio
async def test_publications_that_cross_both_count_one_after_the_other(at: Desk):
    answers = await asyncio.gather(*(put(at, OPEN, title=f"title {number}") for number in range(6)))
    assert sorted(answer.json["version"] for answer in answers) == [1, 2, 3, 4, 5, 6]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
    last = max(answers, key=lambda answer: answer.json["version"]).json
    stored = await at.us.asked("GET", f"/datasets/{quoted(D)}")
    assert stored["title"] == last["title"]


@pytest.mark.asyncio
async def test_as_many_as_want_to_publish_a_dataset_or_withdraw_it_at_once_take_turns(tmp_path: Path):
    async with desk(tmp_path, store="sqlite") as at:
        (at.us.site.root / "data" / "data.bin").write_bytes(b"0123456789")
        publishing, many = at.us.connector.publishing, 12
        manifest = Manifest(D, "a title", SOURCE, [OPEN])
        published = await asyncio.gather(*(publishing.publish(manifest) for _ in range(many)))
        assert sorted(dataset.version for dataset, _ in published) == list(range(1, many + 1))
        withdrawn = await asyncio.gather(*(publishing.withdraw(D) for _ in range(many)), return_exceptions=True)
        assert sorted(type(each).__name__ for each in withdrawn) == ["NoneType", *["NotFound"] * (many - 1)]


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no policy": ({"policies": []}, "/policies", "at least one policy"),
    "twice the same": ({"policies": [OPEN, OPEN]}, "/policies", "an offer's id is unique"),
    "twice an id": (
        {"policies": [OPEN | {"@id": "urn:o"}, purpose_policy("x") | {"@id": "urn:o"}]},
        "/policies",
        "an offer's id is unique",
    ),
    "a bare property": ({"policies": [OPEN], "properties": {"license": "x"}}, "/properties", "`license` have no prefix"),
    "offers beside the offers": ({"policies": [OPEN], "properties": {"odrl:hasPolicy": [OPEN]}}, "/properties", "made of `policies`"),
    "distributions": ({"policies": [OPEN], "properties": {"http://www.w3.org/ns/dcat#distribution": []}}, "/properties", "of `source`"),
    "an unknown source": ({"policies": [OPEN], "source": {"type": "ftp"}}, "/source/type", "known are file, http"),
    "no source type": ({"policies": [OPEN], "source": {}}, "/source/type", "known are file, http"),
    "a source outside": ({"policies": [OPEN], "source": {"type": "file", "path": "../token.sha256"}}, "/source/path", ""),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.asyncio
async def test_a_mistake_is_said_with_its_place_and_nothing_is_published(at: Desk, what: str):
    members, pointer, text = WRONG[what]
    answer = await put(at, **members)
    assert (answer.status, answer.json["pointer"]) == (400, pointer), answer.body
    assert text in answer.json["detail"]
    assert (await at.us.manage("GET", f"/datasets/{quoted(D)}")).status == 404
    assert list(await at.us.connector.store.events(0, 9)) == []


@pytest.mark.parametrize(
    "id", ["a b", "x" * (ID_CHARACTERS_MAX + 1), "a\u202eb", "a\nb", "urn:x:<a>", "a\u00a0b", 'a"b', "a\\b", "a\ud7ff\x7fb"]
)
@pytest.mark.asyncio
async def test_an_id_that_no_peer_could_name_is_refused(at: Desk, id: str):
    answer = await put(at, OPEN, id=id)
    assert (answer.status, answer.json["pointer"]) == (400, "/id")
    if len(id) < ID_CHARACTERS_MAX:
        answer = await put(at, OPEN, OPEN | {"@id": id})
        assert answer.status in (400, 422)
        assert answer.json["pointer"].startswith("/policies/1") if answer.status == 400 else answer.json["reasons"]


@pytest.mark.asyncio
async def test_what_is_nested_deeper_than_a_peer_reads_in_a_catalog_is_refused(at: Desk):
    """One such dataset would end the catalog for who reads as we do: a page has it a level deeper than the order to publish it."""
    value: Any = "x"
    for _ in range(26):
        value = [value]
    taken = []
    for _ in range(6):
        answer = await put(at, OPEN, properties={"dct:subject": value})
        taken.append(answer.status)
        wire.load((await at.peer.send(at.us, "GET", "/catalog/request")).body)
        value = [value]
    assert taken == [201, 200, 200, 200, 400, 400]
    assert (answer.status, "deeper than 32 levels" in answer.json["detail"]) == (400, True)


@pytest.mark.parametrize(("letter", "many"), [("\u00e9", 512), ("\u6c49", 426), ("\U0001f3e5", 320)])
@pytest.mark.asyncio
async def test_an_id_has_as_many_letters_of_whatever_script_as_the_links_of_a_catalog_have_room_for(at: Desk, letter: str, many: int):
    assert (await put(at, OPEN, id=letter * many)).status == 201
    answer = await put(at, OPEN, id=letter * (many + 1))
    assert (answer.status, answer.json["pointer"]) == (400, "/id")


@pytest.mark.asyncio
async def test_a_policy_that_is_not_understood_is_refused_with_pointer_and_remedy(at: Desk):
    await put(at, OPEN)
    answer = await put(at, purpose_policy("research"), UNKNOWN)
    assert (answer.status, answer.json["title"]) == (422, "policy not understood")
    assert answer.json["reasons"][0].startswith("/permission/0/constraint/0/leftOperand: ")
    assert "urn:mood" in answer.json["reasons"][0]
    assert "; " in answer.json["reasons"][0], "what is wrong; what would be right"
    assert (await at.us.asked("GET", f"/datasets/{quoted(D)}"))["version"] == 1, "what was published stands"


@pytest.mark.asyncio
async def test_an_offer_belongs_to_one_dataset(at: Desk):
    """A request names an offer only by its id, so a second one of that name would be anybody's guess."""
    named = OPEN | {"@id": "urn:the-offer"}
    assert (await put(at, named)).status == 201
    assert (await put(at, named)).status == 200, "its own dataset keeps it"
    other = await put(at, named, id="urn:other")
    assert other.status == 400
    assert (other.json["pointer"], "urn:the-offer" in other.json["detail"]) == ("/policies/0", True)
    assert (await at.us.manage("DELETE", f"/datasets/{quoted(D)}")).status == 204
    assert (await put(at, named, id="urn:other")).status == 201, "what was withdrawn is free"


@pytest.mark.asyncio
async def test_a_source_that_cannot_be_read_changes_nothing(at: Desk):
    await put(at, OPEN)
    answer = await put(at, OPEN, source={"type": "file", "path": "missing.bin"})
    assert answer.status == 502
    assert (await at.us.asked("GET", f"/datasets/{quoted(D)}"))["version"] == 1


@pytest.mark.asyncio
async def test_terms_that_were_replaced_are_not_on_offer_and_agreements_keep_theirs(at: Desk):
    await put(at, OPEN)
    (old,) = await offers(at)
    answer = await request(at, old["@id"])
    assert answer.status == 201
    kept = (await at.us.state(Kind.NEGOTIATION, answer.json["providerPid"], "AGREED")).agreement
    await put(at, purpose_policy("research"))
    assert [o["@id"] for o in await offers(at)] != [old["@id"]]
    refused = await request(at, old["@id"])
    assert (refused.status, refused.json["code"]) == (400, "unknown-offer")
    assert (await at.us.connector.store.agreement(kept)).document["permission"] == OPEN["permission"]


@pytest.mark.asyncio
async def test_a_running_transfer_goes_on_with_the_data_that_is_published_now(at: Desk):
    """What a consumer has of the old data is not mixed with the new: its next request begins again."""
    await put(at, OPEN)
    _, address = await running(at)
    status, body, tag = await read(at, address, Range="bytes=0-3")
    assert (status, body) == (206, b"0123")
    (at.us.site.root / "data" / "new.bin").write_bytes(b"abcdefghijkl")
    await put(at, OPEN, source={"type": "file", "path": "new.bin"})
    status, body, new_tag = await read(at, address, Range="bytes=4-", **{"If-Range": tag})
    assert (status, body, new_tag != tag) == (200, b"abcdefghijkl", True)


@pytest.mark.asyncio
async def test_a_file_that_changed_without_being_published_is_not_served(at: Desk):
    await put(at, OPEN)
    _, address = await running(at)
    (at.us.site.root / "data" / "data.bin").write_bytes(b"something else")
    assert (await read(at, address))[0] == 502
    await put(at, OPEN)
    assert (await read(at, address))[:2] == (200, b"something else")


@pytest.mark.asyncio
async def test_what_is_withdrawn_is_seen_read_and_asked_for_no_more_and_agreements_stay(at: Desk):
    await put(at, OPEN)
    (offer,) = await offers(at)
    pid, address = await running(at)
    assert (await read(at, address))[0] == 200
    agreed = (await at.us.connector.store.process(Kind.TRANSFER, pid)).agreement
    assert (await at.us.manage("DELETE", f"/datasets/{quoted(D)}")).status == 204
    assert await offers(at) == []
    refused = await request(at, offer["@id"])
    assert (refused.status, refused.json["code"]) == (400, "unknown-offer")
    assert (await read(at, address))[0] in (401, 403)
    assert await at.us.connector.store.agreement(agreed) is not None
    what = [row.what for row in await at.us.connector.store.events(0, 99) if row.pid is None]
    assert what == ["dataset-published", "dataset-withdrawn"]


@pytest.mark.asyncio
async def test_a_transfer_of_what_is_withdrawn_is_refused_with_its_reason_until_it_is_published_again(at: Desk):
    """Its agreement is in force, so the peer asks in good faith and has to learn why nothing comes."""
    await put(at, OPEN)
    agreed = agreement(at.us, at.peer, Role.PROVIDER, dataset=D)
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    await at.us.manage("DELETE", f"/datasets/{quoted(D)}")
    refused = await transfer_request(at, agreed.id)
    assert (refused.status, refused.json["code"]) == (400, "dataset-withdrawn")
    assert SCHEMAS.reasons("TransferError", refused.json) == []
    await put(at, OPEN)
    answer = await transfer_request(at, agreed.id)
    assert answer.status == 201
    await at.us.state(Kind.TRANSFER, answer.json["providerPid"], "STARTED")


@pytest.mark.asyncio
async def test_a_transfer_that_runs_is_suspended_while_its_data_are_withdrawn(at: Desk):
    await put(at, OPEN)
    pid, _ = await running(at)
    await at.us.manage("DELETE", f"/datasets/{quoted(D)}")
    said = await at.peer.heard("/suspension")
    assert (said["code"], said["reason"]) == ("dataset-withdrawn", [f"dataset `{D}` is not published any more; ask its provider"])
    await at.us.state(Kind.TRANSFER, pid, "SUSPENDED")
    refused = await at.us.manage("POST", f"/transfers/{pid}/resume", {})
    assert (refused.status, "is not permitted now" in refused.json["detail"]) == (409, True)
    await put(at, OPEN)
    address = (await at.peer.heard("/start", 2))["dataAddress"]
    await at.us.state(Kind.TRANSFER, pid, "STARTED")
    assert (await read(at, address))[:2] == (200, b"0123456789")


@pytest.mark.asyncio
async def test_other_terms_end_what_they_do_not_permit_only_where_they_are_said_to_be_binding(at: Desk):
    await put(at, OPEN)
    pid, address = await running(at)
    await put(at, only_for("did:web:somebody.else"))
    assert (await read(at, address))[0] == 200, "an agreement keeps its terms"
    view = (await put(at, only_for("did:web:somebody.else"), binding=True)).json
    assert view["binding"] == view["updated"]
    said = await at.peer.heard("/termination")
    assert said["code"] == "POLICY_REPLACED"
    assert f"the provider has replaced the terms of dataset `{D}`, also for agreements made before" in str(said["reason"])
    ended = await at.us.state(Kind.TRANSFER, pid, "TERMINATED")
    again = await put(at, only_for("did:web:somebody.else"))
    assert again.json["binding"] == view["binding"], "what is published next does not take it back"
    refused = await transfer_request(at, ended.agreement or "")
    await at.us.state(Kind.TRANSFER, refused.json["providerPid"], "TERMINATED")
    published = [row.detail for row in await at.us.connector.store.events(0, 99) if row.what == "dataset-published"]
    assert [detail.get("binding") for detail in published] == [None, None, True, None]
    await at.us.manage("DELETE", f"/datasets/{quoted(D)}")
    assert (await put(at, OPEN)).json["binding"] is None, "a dataset that was withdrawn comes back as a new one"


@pytest.mark.asyncio
async def test_withdrawing_what_is_not_published_is_said(at: Desk):
    answer = await at.us.manage("DELETE", f"/datasets/{quoted(D)}")
    assert (answer.status, answer.json["detail"]) == (404, f"dataset `{D}` is not published here")


@pytest.mark.asyncio
async def test_withdrawals_that_cross_are_one_withdrawal(at: Desk):
    await put(at, OPEN)
    answers = await asyncio.gather(*(at.us.manage("DELETE", f"/datasets/{quoted(D)}") for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [204, 404, 404, 404]
    assert await at.us.connector.store.dataset(D) is None
    assert isinstance(await at.us.connector.journal.commit(Changes(deletes=((Dataset, D),))), tuple)


@pytest.mark.asyncio
@pytest.mark.parametrize("title", ["two\nlines", "a\x1b[31mred", "nul\x00", "\x9bcsi", "next\u2028line", "turned \u202egpj.exe"], ids=ascii)
async def test_a_title_is_one_line_of_what_is_written(at: Desk, title: str):
    answer = await put(at, OPEN, title=title)
    assert (answer.status, answer.json["pointer"]) == (400, "/title"), answer.body
    assert "write it in one line" in answer.json["detail"]
    assert (await at.us.manage("GET", f"/datasets/{quoted(D)}")).status == 404
    assert (await put(at, OPEN, title="Herzfrequenzen “ä” — 心率 \U0001f493\u200d")).status == 201


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "said", [5, "", "csv", "text/", "text/csv\r\nX-Forged: yes", "text/csv\n", "text/\u00e4", "a/b/c", ["text/csv"], "x/" + "y" * 300]
)
async def test_what_no_header_could_carry_is_no_media_type(at: Desk, said: Any):
    for members, pointer in (({"source": SOURCE | {"media_type": said}}, "/source/media_type"), ({"media_type": said}, "/media_type")):
        answer = await put(at, OPEN, **members)
        assert answer.status == 400, answer.body
        assert answer.json["pointer"] == pointer
        assert (await at.us.manage("GET", f"/datasets/{quoted(D)}")).status == 404
