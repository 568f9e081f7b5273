"""The protocol listener over real sockets: every endpoint in both roles, every cell of the state tables, and who is hidden from
whom. What happens to input that is wrong stands in `test_bad_input`."""

import gzip
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import aiohttp
import orjson
import pytest

from connector.adapters import keys, registry
from connector.api.dsp_api import ROUTES, version_document
from connector.app import Automatic
from connector.control.publish import ID_IN_ADDRESS_MAX
from connector.dsp import exchange, wire
from connector.dsp.exchange import INITIAL, TABLES, Process
from connector.dsp.filters import FILTER_CHARACTERS_MAX
from connector.dsp.filters import text as filter_text
from connector.dsp.messages import OTHER, PATHS, Kind, Move, Role, path_of
from connector.odrl_reading import parse
from connector.records import Agreement
from connector.signatures.jws import sign
from connector.values import replace
from tests import pair
from tests.api.conftest import DATASET, OFFER, everything, first_request, spoken, valid
from tests.pair import OPEN, Answer, Desk, call, document_of, fresh, only_for, quoted
from tests.vocab import corpus

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUEST, TRANSFER = "/negotiations/request", "/transfers/request"
DSP = "https://w3id.org/dspace/2025/1/"


# ---- what needs no identity


async def test_the_version_document_leads_to_the_base_whoever_asks(desk: Desk):
    url = f"{desk.us.site.settings.protocol.url}/.well-known/dspace-version"
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        answer = await call(desk.peer.http, "GET", url, headers=headers)
        (entry,) = valid("VersionResponse", answer.json)["protocolVersions"]
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert (entry["version"], entry["binding"]) == ("2025-1", "HTTPS")
    assert entry["identifierType"] == "did:web"
    assert version_document("urn:service", "did:key:z6Mk").count(b'"identifierType":"did:key"') == 1
    base = desk.us.site.settings.protocol.url + entry["path"]
    assert (await desk.peer.send(desk.us, "GET", f"{base}/catalog/request")).status == 200


async def test_who_asks_for_a_whole_address_as_of_a_proxy_is_answered_as_every_other(desk: Desk):
    await desk.us.publish("urn:test:whole")
    port, host = desk.us.connector.ports["protocol"], desk.us.site.settings.protocol.url
    for path, status in (("/.well-known/dspace-version", 200), ("/dsp/2025-1/catalog/datasets/urn%3Atest%3Awhole", 200), ("//", 404)):
        for target in (path, host + path, host.upper().replace("HTTP", "HtTp") + path):
            head = f"Host: x\r\nConnection: close\r\nAuthorization: {await desk.peer.identity.mint(desk.us.site.id)}"
            answer = await spoken(port, f"GET {target} HTTP/1.1\r\n{head}\r\n\r\n".encode())
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (target, answer)


async def test_the_self_description_is_what_a_registry_takes(desk: Desk):
    answer = await call(desk.peer.http, "GET", f"{desk.us.site.settings.protocol.url}/.well-known/participant.jsonld")
    member, findings = registry.parse(answer.json)
    assert (answer.status, answer.headers["Content-Type"], findings) == (200, "application/ld+json", [])
    assert member is not None
    assert (member.participant.id, member.participant.protocol) == (desk.us.site.id, desk.us.site.base)
    assert [key.kid for key in member.keys] == [k.kid for k in keys.Keys(desk.us.site.settings.keys.directory, desk.us.site.id).public()]


@pytest.mark.parametrize("name", ["dspace-version", "participant.jsonld"])
async def test_what_is_there_for_everybody_has_a_head(desk: Desk, name: str):
    url = f"{desk.us.site.settings.protocol.url}/.well-known/{name}"
    whole, head = await call(desk.peer.http, "GET", url), await call(desk.peer.http, "HEAD", url)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))


# ---- the catalog


async def pages(desk: Desk, path: str, body: Any = None) -> list[tuple[list[str], Answer]]:
    """The ids on each page, from the one at `path` on along `next`."""
    found = []
    link: str | None = path
    while link is not None:
        answer = await desk.peer.send(desk.us, "POST" if body else "GET", link, body)
        assert answer.status == 200, answer.body
        found.append(([d["@id"] for d in valid("Catalog", answer.json).get("dataset", [])], answer))
        link, body = links(answer).get("next"), None
    return found


def links(answer: Answer) -> dict[str, str]:
    """Relation -> target below the base."""
    made = {}
    for header in answer.headers.getall("Link", []):  # type: ignore[attr-defined]
        target, _, relation = header.partition(">; rel=")
        made[relation.strip('"')] = urljoin("/catalog/request", target.removeprefix("<"))
    return made


CATALOG_REQUEST = {"@context": corpus.CONTEXT, "@type": "CatalogRequestMessage"}


async def test_the_catalog_is_paged_by_links_and_every_dataset_stands_on_one_page(desk: Desk):
    ids = [f"urn:test:page:{n}" for n in range(5)]
    for id in ids:
        await desk.us.publish(id, keywords=["paged"])
    hidden = fresh("hidden")
    await desk.us.publish(hidden, only_for(desk.stranger.id), keywords=["paged"])
    body = CATALOG_REQUEST | {"filter": [{"property": "dcat:keyword", "operator": "eq", "value": "paged"}]}
    walked = await pages(desk, "/catalog/request", body)
    assert [page for page, _ in walked] == [ids[:2], ids[2:4], ids[4:]]
    assert [sorted(links(answer)) for _, answer in walked] == [["next"], ["next", "previous"], ["previous"]]
    back = await desk.peer.send(desk.us, "GET", links(walked[2][1])["previous"])
    assert [d["@id"] for d in back.json["dataset"]] == ids[2:4]
    catalog = walked[0][1].json
    assert catalog["participantId"] == desk.us.site.id
    assert catalog["service"][0]["endpointURL"] == desk.us.site.base
    assert all("target" not in offer for dataset in catalog["dataset"] for offer in dataset["hasPolicy"])


async def test_a_catalog_without_anything_to_show_has_no_dataset_member(desk: Desk):
    nothing = CATALOG_REQUEST | {"filter": [{"property": "@id", "operator": "eq", "value": "nothing"}]}
    answer = await desk.peer.send(desk.us, "POST", "/catalog/request", nothing)
    assert (answer.status, "dataset" in valid("Catalog", answer.json)) == (200, False)


@pytest.mark.parametrize(
    "bad", ['["a"]', "5", "true", '"x"', '{"property":"@id"}', '[{"property":"a","operator":"like","value":"b"}]', "["]
)
async def test_a_filter_that_is_not_supported_is_refused(desk: Desk, bad: str):
    got = await desk.peer.send(desk.us, "GET", f"/catalog/request?filter={quoted(bad)}")
    assert (got.status, valid("CatalogError", got.json)["@type"]) == (400, "CatalogError")
    assert "a filter is a list of objects with `property`" in got.json["reason"][0], "a request by GET has no body that could be wrong"
    posted = await desk.peer.send(
        desk.us, "POST", "/catalog/request", orjson.dumps(CATALOG_REQUEST)[:-1] + b',"filter":' + bad.encode() + b"}"
    )
    assert (posted.status, posted.json["@type"]) == (400, "CatalogError")


@pytest.mark.parametrize(("count", "letters"), [(11, 1), (1, 2_000), (1_000, 1)])
async def test_a_filter_that_takes_long_or_that_no_link_could_carry_is_refused(desk: Desk, count: int, letters: int):
    filters = [{"property": "@id", "operator": "contains", "value": "u" * letters}] * count
    answer = await desk.peer.send(desk.us, "POST", "/catalog/request", CATALOG_REQUEST | {"filter": filters})
    assert (answer.status, valid("CatalogError", answer.json)["@type"]) == (400, "CatalogError")
    assert answer.json["reason"] == ["this filter is too long: 10 objects at most, of 2048 characters in an address"]


async def test_the_longest_filter_is_carried_by_the_links(desk: Desk):
    for n in range(3):
        await desk.us.publish(f"urn:test:{n}:" + "\u60a3" * 400)
    filters = [{"property": "@id", "operator": "contains", "value": ""}]
    while len(filter_text(filters)) <= FILTER_CHARACTERS_MAX - len(quoted("\u60a3")):
        filters[0]["value"] += "\u60a3"
    walked = await pages(desk, "/catalog/request", CATALOG_REQUEST | {"filter": filters})
    assert [len(page) for page, _ in walked] == [2, 1]


async def test_the_longest_ids_leave_room_in_a_link_for_a_sealed_place_and_the_longest_filter(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.control.catalog.ROWS_READ_MAX", 1)
    ids = [f"{n}" + "\U0001f3e5" * ((ID_IN_ADDRESS_MAX - 1) // 12) for n in range(8)]
    for id in ids:
        await desk.us.publish(id, OPEN if id in (ids[0], ids[-1]) else only_for(desk.stranger.id))
    filters = [{"property": "@id", "operator": "contains", "value": "\U0001f3e5" * ((FILTER_CHARACTERS_MAX - 100) // 12)}]
    walked = await pages(desk, "/catalog/request", CATALOG_REQUEST | {"filter": filters})
    assert [id for page, _ in walked for id in page] == [ids[0], ids[-1]]
    assert 7_500 < max(len(link) for _, answer in walked for link in links(answer).values()) < 7_900, "of 8,190, with the path of a proxy"


async def test_absent_and_empty_filters_are_alike(desk: Desk):
    bodies = [CATALOG_REQUEST, CATALOG_REQUEST | {"filter": []}]
    one, other = [(await desk.peer.send(desk.us, "POST", "/catalog/request", body)).body for body in bodies]
    assert one == other


async def test_edc_gets_the_catalog_with_the_query_that_it_always_sends_and_counts_on_in_it(desk: Desk):
    """What EDC 0.14 sends to a connector of this version, whatever its user asks for: two contexts, and a `QuerySpec`."""
    ids = [f"urn:test:edc:{n}" for n in range(4)]
    for id in ids:
        await desk.us.publish(id, keywords=["edc"])
    contexts = {"@context": [*corpus.CONTEXT, "https://w3id.org/edc/dspace/v0.0.1"]}
    criterion = {"@type": "Criterion", "operandLeft": "http://www.w3.org/ns/dcat#keyword", "operator": "=", "operandRight": "edc"}

    async def counted(**query: Any) -> Answer:
        query = {"@type": "QuerySpec", "limit": 50, "offset": 0, "sortOrder": "ASC", "filterExpression": []} | query
        return await desk.peer.send(desk.us, "POST", "/catalog/request", CATALOG_REQUEST | contexts | {"filter": [query]})

    everything = await counted()
    assert everything.status == 200
    assert set(ids) <= {d["@id"] for d in valid("Catalog", everything.json)["dataset"]}
    found = [await counted(limit=3, offset=offset, filterExpression=[criterion]) for offset in (0, 3, 4)]
    assert [[d["@id"] for d in valid("Catalog", each.json).get("dataset", [])] for each in found] == [ids[:3], ids[3:], []]
    refused = await counted(filterExpression=[criterion | {"operator": "like"}])
    assert (refused.status, valid("CatalogError", refused.json)["@type"]) == (400, "CatalogError")
    both = await desk.peer.send(desk.us, "POST", "/catalog/request?after=urn:x", CATALOG_REQUEST | {"filter": [{"offset": 1}]})
    assert (both.status, valid("CatalogError", both.json)["@type"]) == (400, "CatalogError")


async def test_a_dataset_is_found_by_any_id_and_a_hidden_one_looks_like_none(desk: Desk):
    odd = "https://hospital.example/data-sets/1?a=b&c=%2F#ü"
    await desk.us.publish(odd)
    answer = await desk.peer.send(desk.us, "GET", f"/catalog/datasets/{quoted(odd)}")
    assert (answer.status, valid("Dataset", answer.json)["@id"]) == (200, odd)
    secret = fresh("secret")
    await desk.us.publish(secret, only_for(desk.stranger.id))
    assert (await desk.stranger.send(desk.us, "GET", f"/catalog/datasets/{secret}")).status == 200
    hidden, none = [await desk.peer.send(desk.us, "GET", f"/catalog/datasets/{id}") for id in (secret, "urn:none")]
    assert (hidden.status, none.status) == (404, 404)
    assert hidden.body.replace(secret.encode(), b"") == none.body.replace(b"urn:none", b"")
    valid("CatalogError", hidden.json)


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, gzip;q=0.5", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("deflate", None),
        ("GZIP;Q=1.0", "gzip"),
        ("gzip;q=0.000", None),
    ],
)
async def test_answers_are_compressed_for_who_can_read_it(desk: Desk, accept: str, encoding: str | None):
    big = "urn:test:big"
    await desk.us.publish(big, description="words " * 400)
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        said = {"Authorization": await desk.peer.identity.mint(desk.us.site.id), "Accept-Encoding": accept}
        answer = await call(http, "GET", f"{desk.us.site.base}/catalog/datasets/{big}", headers=said)
    assert (answer.headers.get("Content-Encoding"), answer.headers["Vary"]) == (encoding, "Accept-Encoding")
    body = gzip.decompress(answer.body) if encoding else answer.body
    assert valid("Dataset", orjson.loads(body))["@id"] == big


async def test_a_large_page_is_compressed_while_others_have_their_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Two megabytes take 40 ms."""
    digits = "".join(map(str, range(12_000)))
    await desk.us.publish(
        "urn:test:large", keywords=["large"], properties={f"dct:{name}": digits for name in ("abstract", "source", "type")}
    )
    packers, at = [], threading.get_ident()

    def packer(*said: int) -> Any:
        packers.append(threading.get_ident())
        return zlib.compressobj(*said)

    monkeypatch.setattr("connector.api.dsp_api.zlib", SimpleNamespace(compressobj=packer, DEFLATED=zlib.DEFLATED))
    large = CATALOG_REQUEST | {"filter": [{"property": "dcat:keyword", "operator": "eq", "value": "large"}]}
    answer = await desk.peer.send(desk.us, "POST", "/catalog/request", large)
    assert [d["@id"] for d in valid("Catalog", answer.json)["dataset"]] == ["urn:test:large"]
    assert len(packers) == 1
    assert at not in packers


@pytest.mark.parametrize("members", [{"target": DATASET}, {}], ids=["whole", "without its target, which is that of the offer"])
async def test_a_large_policy_of_a_message_is_read_while_others_have_their_turn(
    desk: Desk, members: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """One of 800 parts takes 20 ms and more."""
    threads, before = [], parse._policy
    constraints = [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": f"study-{n}-{len(members)}"} for n in range(300)]
    terms = {"@id": OFFER, "@type": "Offer", "permission": [{"action": "use", "constraint": constraints}]} | members

    def policy(document: Any, *more: Any) -> Any:
        if document in (terms, terms | {"target": DATASET}):
            threads.append(threading.get_ident())
        return before(document, *more)

    monkeypatch.setattr(parse, "_policy", policy)
    answer = await desk.peer.send(desk.us, "POST", REQUEST, first_request(callbackAddress=desk.peer.site.base, offer=terms))
    assert (answer.status, len(threads)) == (201, 1 if members else 2), answer.body
    assert threading.get_ident() not in threads


async def test_a_large_message_is_parsed_while_others_have_their_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """The largest take 30 ms."""
    threads, parsing = [], wire.parse
    monkeypatch.setattr(wire, "parse", lambda *asked: (threads.append(threading.get_ident()), parsing(*asked))[1])
    process, agreed = await stage(desk, Kind.TRANSFER, Role.PROVIDER, "STARTED")
    for reasons in (1, 40):
        document = document_of(Move.TRANSFER_TERMINATION, process, agreed) | {"reason": ["x" * 500] * reasons}
        assert (await desk.peer.send(desk.us, "POST", f"/transfers/{process.pid}/termination", document)).status == (
            200 if reasons == 1 else 400
        )
    assert [each == threading.get_ident() for each in threads] == [True, False]


# ---- negotiations and transfers: the tables, over HTTP


async def stage(desk: Desk, kind: Kind, role: Role, state: str) -> tuple[Process, Agreement]:
    """A process of the peer in `state` with an agreement that fits."""
    agreed = pair.agreement(desk.us, desk.peer, role, final=kind is Kind.TRANSFER, dataset=DATASET)
    if kind is Kind.TRANSFER:
        process = pair.transfer(desk.us, desk.peer, state, role, agreed)
    else:
        known = state in ("AGREED", "VERIFIED", "FINALIZED")
        process = pair.negotiation(desk.us, desk.peer, state, role, agreement=agreed.id if known else None)
        agreed = replace(agreed, negotiation=process.pid)
        if not known:
            return await desk.us.put(process), agreed
    return await desk.us.put(process, agreed), agreed


CELLS = [
    pytest.param(kind, state, sender, id=f"{kind}-{state}-{sender}")
    for kind, table in TABLES.items()
    for state in table
    if state != INITIAL
    for sender in Role
]


@pytest.mark.parametrize(("kind", "state", "sender"), CELLS)
async def test_each_message_is_taken_or_refused_as_the_table_says(desk: Desk, kind: Kind, state: str, sender: Role):
    """Every endpoint below a process, in both roles; a refusal is 400 with the error object, and the state stays."""
    for move in (m for m in Move if m.kind is kind and PATHS[m][1]):
        process, agreed = await stage(desk, kind, OTHER[sender], state)
        expected = TABLES[kind][state].get((sender, move))
        answer = await desk.peer.send(desk.us, "POST", path_of(move, process.pid), document_of(move, process, agreed))
        asked = await desk.peer.send(desk.us, "GET", f"/{kind}s/{process.pid}")
        shape = "ContractNegotiation" if kind is Kind.NEGOTIATION else "TransferProcess"
        now = valid(shape, asked.json)
        assert (answer.status, now["state"]) == ((400, state) if expected is None else (200, expected)), (move, answer.body)
        assert (now["consumerPid"], now["providerPid"]) == (process.consumer_pid, process.provider_pid)
        if expected is None:
            error = valid(shape.replace("Process", "") + "Error", answer.json)
            assert (error["code"], error["consumerPid"]) == ("illegal-message", process.consumer_pid)
            assert f"state {state}" in error["reason"][0]


async def test_every_endpoint_of_the_binding_has_a_route():
    ours = {path for path, _ in ROUTES}
    assert ours == {path.replace("{}", "{pid}") for both in PATHS.values() for path in both if path}


@pytest.mark.parametrize(
    ("path", "state", "shape"),
    [
        (REQUEST, "REQUESTED", "ContractNegotiation"),
        ("/negotiations/offers", "OFFERED", "ContractNegotiation"),
        (TRANSFER, "REQUESTED", "TransferProcess"),
    ],
)
async def test_a_first_message_creates_its_process_once_however_often_it_comes(desk: Desk, path: str, state: str, shape: str):
    theirs, callback = fresh(), desk.peer.site.base + "/"
    document = first_request(consumerPid=theirs, callbackAddress=callback)
    name = "consumerPid"
    if path == TRANSFER:
        agreed = pair.agreement(desk.us, desk.peer, Role.PROVIDER, dataset=DATASET)
        await desk.us.put((await stage(desk, Kind.TRANSFER, Role.PROVIDER, "STARTED"))[0], agreed)
        document = {k: v for k, v in document.items() if k != "offer"} | {"@type": "TransferRequestMessage", "agreementId": agreed.id}
        document["format"] = "HttpData-PULL"
    elif path.endswith("offers"):
        name = "providerPid"
        document = {k: v for k, v in document.items() if k != "consumerPid"} | {"@type": "ContractOfferMessage", name: theirs}
    answers = [await desk.peer.send(desk.us, "POST", path, document) for _ in range(3)]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    made = valid(shape, answers[0].json)
    assert (made["state"], made[name]) == (state, theirs)
    assert len({made["consumerPid"], made["providerPid"]}) == 2
    other = await desk.peer.send(desk.us, "POST", path, document | {"urn:test:more": "x"})
    assert (other.status, other.json["code"]) == (400, "pid-taken")
    again = await desk.stranger.send(desk.us, "POST", path, document | {"callbackAddress": desk.stranger.site.base})
    if path != TRANSFER:
        assert again.status == 201, "pids belong to whoever chose them"
        assert again.json != made
    else:
        assert (again.status, again.json["code"]) == (400, "unknown-agreement")


async def test_a_replay_gets_the_stored_answer_and_changes_nothing(desk: Desk):
    process, agreed = await stage(desk, Kind.TRANSFER, Role.PROVIDER, "STARTED")
    said = document_of(Move.SUSPENSION, process, agreed)
    first = await desk.peer.send(desk.us, "POST", path_of(Move.SUSPENSION, process.pid), said)
    before = await everything(desk)
    again = await desk.peer.send(desk.us, "POST", path_of(Move.SUSPENSION, process.pid), dict(reversed(said.items())))
    assert (first.status, again.status, first.body) == (200, 200, again.body)
    assert await everything(desk) == before


# ---- who is calling


def plain(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    """What can be told apart from outside, but for the time, what was wrong with a token, and whether the body had arrived."""
    ignored = ("Date", "WWW-Authenticate", "Connection")
    return answer.status, answer.body, {k: v for k, v in answer.headers.items() if k not in ignored}


@pytest.mark.parametrize("kind", list(Kind))
async def test_foreign_unknown_and_malformed_pids_get_one_and_the_same_answer(desk: Desk, kind: Kind):
    process, agreed = await stage(desk, kind, Role.PROVIDER, "REQUESTED")
    begun, _ = await stage(desk, kind, Role.CONSUMER, INITIAL)
    move = Move.TRANSFER_TERMINATION if kind is Kind.TRANSFER else Move.CONTRACT_TERMINATION
    said, part, before = document_of(move, process, agreed), f"/{kind}s", await everything(desk)
    tail = PATHS[move][1].rpartition("/")[2]
    found = []
    for body in (said, b"{", b"x" * 1000, said | {"consumerPid": "urn:other"}):
        found += [await desk.stranger.send(desk.us, "POST", f"{part}/{process.pid}/{tail}", body)]
        pids = (fresh(), "%00", "a%2Fb", "x" * 3000, "..%5C", "%ff", begun.pid)
        found += [await desk.peer.send(desk.us, "POST", f"{part}/{pid}/{tail}", body) for pid in pids]
        found += [await desk.peer.send(desk.us, "POST", f"{part}/{process.pid}/{tail}", body, anonymous=True)]
        # Who cannot say who it is gets the challenge with it, at each of these addresses.
        strange = [
            await desk.peer.send(desk.us, "POST", f"{part}/{pid}/{tail}", body, anonymous=True) for pid in (*pids, "a/b", "a;b", "..")
        ]
        assert len({str((plain(answer), answer.headers.get("WWW-Authenticate"))) for answer in [found[-1], *strange]}) == 1
        found += strange
        assert "WWW-Authenticate" not in (await desk.peer.send(desk.us, "POST", f"{part}/a;b/{tail}", body)).headers
    assert {str(plain(answer)) for answer in found} == {str((404, b"", {"Content-Length": "0"}))}
    asked = [await desk.peer.send(desk.us, "GET", f"{part}/{pid}") for pid in (fresh(), "%00", begun.pid)]
    asked += [await desk.stranger.send(desk.us, "GET", f"{part}/{process.pid}")]
    assert {str(plain(answer)) for answer in asked} == {str(plain(found[0]))}
    assert await everything(desk) == before


async def test_pids_that_contradict_the_path_are_an_error_for_the_counterparty_only(desk: Desk):
    process, agreed = await stage(desk, Kind.NEGOTIATION, Role.PROVIDER, "OFFERED")
    said = document_of(Move.ACCEPTED, process, agreed)
    for wrong in ({"consumerPid": "urn:other"}, {"providerPid": "urn:other"}):
        answer = await desk.peer.send(desk.us, "POST", path_of(Move.ACCEPTED, process.pid), said | wrong)
        assert (answer.status, valid("ContractNegotiationError", answer.json)["code"]) == (400, "malformed-message")
        assert "pids" in answer.json["reason"][0]


async def test_an_error_about_what_is_no_message_names_both_pids_of_its_process(desk: Desk):
    process, _ = await stage(desk, Kind.NEGOTIATION, Role.PROVIDER, "OFFERED")
    answer = await desk.peer.send(desk.us, "POST", path_of(Move.ACCEPTED, process.pid), b"{")
    said = valid("ContractNegotiationError", answer.json)
    assert (answer.status, said["consumerPid"], said["providerPid"]) == (400, process.peer_pid, process.pid)


async def bearer(desk: Desk, **claims: Any) -> str:
    """A token of the peer that says something else than it would."""
    now = time.time()
    said = {"iss": desk.peer.id, "sub": desk.peer.id, "aud": desk.us.site.id, "iat": now, "exp": now + 60, "jti": fresh("jti")} | claims
    key = keys.Keys(desk.peer.site.settings.keys.directory, desk.peer.id).active(now)
    return f"Bearer {sign(said, key, 'JWT')}"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"aud": "did:web:other.example"}, "aud"),
        ({"iat": 1.0, "exp": 61.0}, "expired"),
        ({"exp": time.time() + 1e6}, "lives longer"),
        ({"iss": "did:web:stranger.example", "sub": "did:web:stranger.example"}, "iss"),
        ({"jti": ""}, "jti"),
    ],
)
async def test_a_token_that_proves_nothing_opens_nothing(desk: Desk, claims: Mapping[str, Any], says: str):
    before, url = await everything(desk), desk.us.site.base
    said = {"Authorization": await bearer(desk, **claims)}
    catalog = await call(desk.peer.http, "POST", f"{url}/catalog/request", CATALOG_REQUEST, said)
    assert (catalog.status, valid("CatalogError", catalog.json)["code"]) == (401, "unauthenticated")
    negotiation = await call(desk.peer.http, "POST", f"{url}{REQUEST}", first_request(callbackAddress=desk.peer.site.base), said)
    assert (negotiation.status, negotiation.body) == (404, b"")
    for answer in (catalog, negotiation):
        assert says in answer.headers["WWW-Authenticate"]
        assert said["Authorization"].rpartition(".")[2] not in str(answer.headers)
    assert await everything(desk) == before


async def test_a_token_is_good_for_one_request(desk: Desk):
    said = {"Authorization": await bearer(desk)}
    one, two = [await call(desk.peer.http, "GET", f"{desk.us.site.base}/catalog/request", headers=said) for _ in range(2)]
    assert (one.status, two.status) == (200, 401)
    assert "used before" in two.json["reason"][0]


# ---- contexts


async def test_other_contexts_beside_the_standards_are_ignored_and_never_fetched(desk: Desk):
    context = f"{desk.peer.site.settings.protocol.url}/edc.jsonld"
    document = first_request(**{"@context": [context, *corpus.CONTEXT], "callbackAddress": desk.peer.site.base, "edc:tag": "x"})
    answer = await desk.peer.send(desk.us, "POST", REQUEST, document)
    assert (answer.status, answer.json["state"]) == (201, "REQUESTED")
    assert [path for _, path, _ in desk.peer.calls if path.endswith("edc.jsonld")] == []


EXPANDED = {
    "@type": [f"{DSP}ContractNegotiationTerminationMessage"],
    f"{DSP}code": [{"@value": "X"}],
    f"{DSP}reason": [{"@value": "because"}],
}


@pytest.mark.parametrize("form", ["a bare context", "prefixes", "expanded", "an inline context", "one of several nodes"])
async def test_any_other_form_of_a_message_is_expanded_with_the_bundled_contexts(desk: Desk, form: str):
    process, _ = await stage(desk, Kind.NEGOTIATION, Role.PROVIDER, "REQUESTED")
    pids = {"consumerPid": process.consumer_pid, "providerPid": process.provider_pid}
    terms = {"@type": "ContractNegotiationTerminationMessage"} | pids | {"reason": ["because"]}
    forms: dict[str, Any] = {
        "a bare context": {"@context": corpus.CONTEXT[0]} | terms,
        "prefixes": {"@context": corpus.CONTEXT, "@type": "dspace:ContractNegotiationTerminationMessage"}
        | {f"dspace:{name}": {"@id": pid} for name, pid in pids.items()},
        "expanded": [EXPANDED | {DSP + name: [{"@id": pid}] for name, pid in pids.items()}],
        "an inline context": {"@context": [*corpus.CONTEXT, {"why": "dspace:code"}]} | terms | {"why": "X"},
        "one of several nodes": {"@context": corpus.CONTEXT, "@graph": [terms]},
    }
    answer = await desk.peer.send(desk.us, "POST", path_of(Move.CONTRACT_TERMINATION, process.pid), forms[form])
    assert (answer.status, answer.json.get("state")) == (200, "TERMINATED"), answer.body


async def test_an_unknown_context_outside_of_the_compact_form_is_refused_and_not_fetched(desk: Desk):
    process, agreed = await stage(desk, Kind.NEGOTIATION, Role.PROVIDER, "REQUESTED")
    context = f"{desk.peer.site.settings.protocol.url}/unknown.jsonld"
    said = document_of(Move.CONTRACT_TERMINATION, process, agreed) | {"@context": context}
    before = await everything(desk)
    answer = await desk.peer.send(desk.us, "POST", path_of(Move.CONTRACT_TERMINATION, process.pid), said)
    assert (answer.status, valid("ContractNegotiationError", answer.json)["code"]) == (400, "malformed-message")
    assert "unknown.jsonld" in str(answer.json["reason"])
    assert [path for _, path, _ in desk.peer.calls if path.endswith("unknown.jsonld")] == []
    assert await everything(desk) == before


# ---- a connector that decides by itself


async def test_a_term_that_only_a_foreign_context_defines_is_a_finding_and_a_refusal(tmp_path: Path):
    async with pair.desk(tmp_path / "x", approver=Automatic(0.0)) as made:
        await made.us.publish(DATASET, OPEN | {"@id": OFFER})
        constraint = {"leftOperand": "region", "operator": "eq", "rightOperand": "eu"}
        terms = {"@id": OFFER, "@type": "Offer", "target": DATASET, "permission": [{"action": "use", "constraint": [constraint]}]}
        document = first_request(
            **{"@context": ["https://edc.example/context.jsonld", *corpus.CONTEXT], "callbackAddress": made.peer.site.base, "offer": terms}
        )
        answer = await made.peer.send(made.us, "POST", REQUEST, document)
        assert answer.status == 201
        refusal = await made.peer.heard("/termination")
        assert refusal["code"] == "POLICY_NOT_UNDERSTOOD"
        assert "region" in str(refusal["reason"])
        ended = await made.us.state(Kind.NEGOTIATION, answer.json["providerPid"], exchange.TERMINATED)
        texts = [item for item in refusal["reason"] if isinstance(item, str)]
        assert ended.detail["decision"]["reason"] == texts


@pytest.mark.parametrize("path", ["/catalog/request", "/catalog/datasets/urn:none", REQUEST])
async def test_what_the_first_policy_needs_is_read_while_others_have_their_turn(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch):
    """The profiles take 40 ms and more, and a peer may ask before they are there."""
    threads = []
    monkeypatch.setattr("connector.app.read_profiles", lambda: threads.append(threading.get_ident()) or ())
    async with pair.desk(tmp_path / "x") as made:
        document = first_request(callbackAddress=made.peer.site.base) if path == REQUEST else None
        assert (await made.peer.send(made.us, "POST" if document else "GET", path, document)).status in (200, 400, 404)
    assert len(threads) == 1
    assert threads != [threading.get_ident()]
