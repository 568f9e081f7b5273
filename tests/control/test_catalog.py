import asyncio
import json
import pickle
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.control.catalog import CATALOG_BYTES_MAX, CATALOG_NODES_MAX, ROWS_READ_MAX, Catalog, CatalogPage, next_link
from connector.control.journal import Journal
from connector.control.policies import Policies
from connector.dsp import wire
from connector.dsp.answers import MENDED
from connector.dsp.forms import tidy
from connector.dsp.messages import CONTEXT
from connector.errors import NotFound, PeerFailed
from connector.ports import Caller, Participant
from connector.records import Changes, Dataset, Listed, Page
from connector.settings.fields import CatalogSettings, LimitsSettings
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.pair import OPEN, SCHEMAS, Answer, Desk, dataset_record, desk, only_for, pair, purpose_policy, quoted, until_policy

BIO, OTHER = "did:web:bio.example", "did:web:other.example"
HIDDEN = only_for(OTHER)
IDS = [f"urn:d:{letter}" for letter in "abcdefghijkl"]

EDC_SAID: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/edc/messages.json").read_text())


def caller(id: str = BIO, **claims: Any) -> Caller:
    return Caller(Participant(id, "bio", "role", None, (), {}), claims, 1e12)


def catalog(store: MemoryStore, clock: SetClock | None = None) -> Catalog:
    stub = {"@id": "urn:elsewhere", "@type": "Catalog"}
    service = {"@id": "urn:service", "@type": "DataService", "endpointURL": "https://own.example"}
    return Catalog(Journal(store, clock or SetClock()), Policies(), "did:web:own.example", "urn:catalog", service, [stub])


async def put(store: MemoryStore, id: str, *policies: dict[str, Any]) -> None:
    await store.commit(Changes(saves=(dataset_record(id, *policies),)))


def ids_of(page: CatalogPage) -> list[str]:
    document = orjson.loads(page.body)
    assert SCHEMAS.reasons("Catalog", document) == []
    return [each["@id"] for each in document.get("dataset", ())]


class Walk:
    """A consumer that follows the cursors of a catalog. `between` runs after each page."""

    def __init__(self, ours: Catalog, limit: int, between: Callable[[], Awaitable[None]] | None = None) -> None:
        self._ours, self._limit, self._between = ours, limit, between
        self.pages: list[CatalogPage] = []

    async def _page(self, after: str | None, before: str | None) -> CatalogPage:
        page = await self._ours.page(caller(), after=after, before=before, limit=self._limit)
        self.pages.append(page)
        if self._between is not None:
            await self._between()
        return page

    async def forward(self) -> list[str]:
        page = await self._page(None, None)
        met = ids_of(page)
        while page.next is not None:
            page = await self._page(page.next, None)
            met += ids_of(page)
        return met

    async def back(self) -> list[str]:
        """From the page where `forward` ended."""
        page = self.pages[-1]
        met = ids_of(page)[::-1]
        while page.previous is not None:
            page = await self._page(None, page.previous)
            met += ids_of(page)[::-1]
        return met


some_visible = st.dictionaries(st.sampled_from(IDS), st.booleans(), max_size=len(IDS))


@pytest.mark.asyncio
@settings(max_examples=60)
@given(published=some_visible, limit=st.integers(1, 5))
async def test_links_lead_to_every_visible_dataset_once_forward_and_back(published: dict[str, bool], limit: int):
    store = MemoryStore()
    for id, visible in published.items():
        await put(store, id, OPEN if visible else HIDDEN)
    walk = Walk(catalog(store), limit)
    expected = sorted(id for id, visible in published.items() if visible)
    assert await walk.forward() == expected
    assert all(len(ids_of(page)) == limit for page in walk.pages[:-1]), "no page is short for what is hidden"
    assert all(ids_of(page) for page in walk.pages) or not expected, "no link leads to nothing"
    pages = len(walk.pages)
    assert await walk.back() == expected[::-1]
    assert {cursor for page in walk.pages for cursor in (page.next, page.previous)} <= {*expected, None}, "no link names what is hidden"
    assert len(walk.pages) <= 2 * pages
    assert orjson.loads(walk.pages[-1].body)["catalog"], "the walk back ends on the first page"


@pytest.mark.asyncio
@settings(max_examples=60)
@example(start=dict.fromkeys(IDS[:5], True), changes=[(IDS[4], None), (IDS[8], None)])  # the last page is empty when it is asked for
@given(start=some_visible, changes=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from([OPEN, HIDDEN, None])), max_size=12))
async def test_what_stands_all_the_time_is_met_once_while_others_come_and_go(
    start: dict[str, bool], changes: list[tuple[str, dict[str, Any] | None]]
):
    store, pending = MemoryStore(), list(changes)
    for id, visible in start.items():
        await put(store, id, OPEN if visible else HIDDEN)

    async def change() -> None:
        if pending:
            id, policy = pending.pop()
            await (store.commit(Changes(deletes=((Dataset, id),))) if policy is None else put(store, id, policy))

    walk = Walk(catalog(store), 2, change)
    touched = {id for id, _ in changes}
    standing = sorted(id for id, visible in start.items() if visible and id not in touched)
    for met in (await walk.forward(), (await walk.back())[::-1]):
        assert [id for id in met if id not in touched] == standing
        assert met == sorted(set(met)), "nothing comes twice"


@pytest.mark.asyncio
async def test_hidden_datasets_before_the_first_visible_one_leave_no_trace():
    store = MemoryStore()
    await put(store, "urn:d:a", HIDDEN)
    await put(store, "urn:d:b")
    page = await catalog(store).page(caller(), after=None, before=None, limit=5)
    assert (page.previous, page.next) == (None, None)
    assert orjson.loads(page.body)["catalog"] == [{"@id": "urn:elsewhere", "@type": "Catalog"}]
    assert b"urn:d:a" not in page.body


@pytest.mark.asyncio
async def test_who_may_see_little_gets_short_pages_and_a_link_on():
    """The work of one page is bounded, whatever the share that is hidden."""
    store = MemoryStore()
    many = [f"urn:d:{number:05}" for number in range(ROWS_READ_MAX + 500)]
    await store.commit(Changes(saves=tuple(dataset_record(id, HIDDEN) for id in many)))
    await put(store, "urn:d:99999")
    walk = Walk(catalog(store), 499)
    assert await walk.forward() == ["urn:d:99999"]
    assert len(walk.pages) == 2
    assert await walk.back() == ["urn:d:99999"]


@pytest.mark.asyncio
async def test_pages_of_large_descriptions_are_short_enough_for_who_reads_them():
    """A peer like us takes 10 MB."""
    store, text = MemoryStore(), "x" * 1_000_000
    for id in IDS:
        large = dataset_record(id)
        document = orjson.dumps(orjson.loads(large.document) | {"dct:description": text * (3 if id == IDS[3] else 1)})
        await store.commit(Changes(saves=(replace(large, document=document),)))
    walk = Walk(catalog(store), 100)
    assert await walk.forward() == IDS
    assert [len(ids_of(page)) for page in walk.pages] == [2, 1, 1, 2, 2, 2, 2]
    assert await walk.back() == IDS[::-1]
    assert max(len(page.body) for page in walk.pages) < CATALOG_BYTES_MAX / 3


@pytest.mark.asyncio
async def test_pages_of_many_short_values_are_short_enough_for_who_reads_them():
    """A peer like us takes 200,000 on a page."""
    store, words = MemoryStore(), [f"A{n}" for n in range(30_000)]
    for id in IDS:
        short = dataset_record(id)
        document = orjson.dumps(orjson.loads(short.document) | {"dcat:keyword": words if id < IDS[9] else words[:9]})
        await store.commit(Changes(saves=(replace(short, document=document),)))
    walk = Walk(catalog(store), 100)
    assert await walk.forward() == IDS
    assert [len(ids_of(page)) for page in walk.pages] == [3, 3, 6]
    assert await walk.back() == IDS[::-1]
    for page in walk.pages:
        wire.load(page.body, CATALOG_NODES_MAX)


@pytest.mark.asyncio
async def test_offers_are_shown_to_those_whom_their_policy_admits():
    store = MemoryStore()
    await put(store, "urn:d:a", only_for(BIO), only_for(OTHER), purpose_policy("research"))
    ours = catalog(store)
    bio, other, third = [
        orjson.loads(await ours.dataset(caller(id), "urn:d:a"))["hasPolicy"] for id in (BIO, OTHER, "did:web:third.example")
    ]
    assert [len(each) for each in (bio, other, third)] == [2, 2, 1], "a purpose is said later, so it hides nothing"
    assert {offer["@id"] for offer in bio} & {offer["@id"] for offer in other} == {third[0]["@id"]}


@pytest.mark.asyncio
async def test_a_dataset_by_id_is_visible_exactly_if_the_catalog_has_it():
    store = MemoryStore()
    await put(store, "urn:d:a")
    await put(store, "urn:d:b", HIDDEN)
    ours = catalog(store)
    document = orjson.loads(await ours.dataset(caller(), "urn:d:a"))
    assert SCHEMAS.reasons("Dataset", document) == []
    assert document["@context"] == CONTEXT
    said = []
    for id in ("urn:d:b", "urn:d:unknown"):
        with pytest.raises(NotFound) as caught:
            await ours.dataset(caller(), id)
        said.append(caught.value.message.replace(id, "X"))
    assert said[0] == said[1], "hidden and absent look the same"


@pytest.mark.asyncio
async def test_an_offer_disappears_at_the_instant_at_which_it_ends():
    clock, store = SetClock(), MemoryStore()
    await put(store, "urn:d:a", until_policy("2027-01-15T08:01:00Z"))  # a minute after the clock of the test
    ours = catalog(store, clock)
    for seconds, shown in ((0, 1), (59, 1), (61, 0)):
        clock.at = SetClock.at + seconds
        assert len(ids_of(await ours.page(caller(), after=None, before=None, limit=5))) == shown


@pytest.mark.asyncio
async def test_an_offer_that_has_yet_to_begin_is_hidden_again_when_the_clock_is_set_back():
    clock, store = SetClock(), MemoryStore()
    begins = {
        "leftOperand": "odrl:dateTime",
        "operator": "gteq",
        "rightOperand": {"@value": "2027-01-15T08:01:00Z", "@type": "xsd:dateTime"},
    }
    await put(store, "urn:d:a", {"@type": "Offer", "permission": [{"action": "use", "constraint": [begins]}]})
    ours = catalog(store, clock)
    for seconds, shown in ((61, 1), (0, 0), (61, 1)):
        clock.at = SetClock.at + seconds
        assert len(ids_of(await ours.page(caller(), after=None, before=None, limit=5))) == shown


class Unread(MemoryStore):
    """Says whose terms were read of what it lists."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def listed_datasets(self, **ends: Any) -> Page[Listed]:
        def noted(each: Listed) -> Listed:
            return replace(each, read=lambda: (self.read.append(each.id), each.read())[1])

        page = await super().listed_datasets(**ends)
        return replace(page, items=tuple(noted(each) for each in page.items))


@pytest.mark.asyncio
async def test_a_page_reads_the_terms_that_are_new_to_who_asks_and_no_others():
    store = Unread()
    for id in IDS[:3]:
        await put(store, id, only_for(BIO))
    ours = catalog(store)
    for id, read, seen in ((BIO, IDS[:3], IDS[:3]), (BIO, [], IDS[:3]), (OTHER, IDS[:3], []), (OTHER, [], [])):
        store.read.clear()
        assert ids_of(await ours.page(caller(id), after=None, before=None, limit=5)) == seen
        assert store.read == read
    await put(store, IDS[1], only_for(OTHER))
    assert ids_of(await ours.page(caller(), after=None, before=None, limit=5)) == [IDS[0], IDS[2]]
    assert store.read == IDS[1:2]


@pytest.mark.asyncio
async def test_others_have_their_turn_while_terms_are_read_that_nobody_has_read():
    store, turns = MemoryStore(), 0
    for number in range(50):
        await put(store, f"urn:d:{number}", until_policy(f"{2040 + number}-01-01Z"))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await catalog(store).page(caller(), after=None, before=None, limit=50)
    beside.cancel()
    assert turns > 40


@pytest.mark.asyncio
async def test_what_is_remembered_of_a_sight_is_short_however_long_the_claims_are():
    store = MemoryStore()
    await put(store, IDS[0], OPEN)
    ours = catalog(store)
    for number in range(10):
        await ours.dataset(caller(number=number, text="x" * 10_000), IDS[0])
    assert len(pickle.dumps(tuple(ours._judged.items()))) < 10_000


@pytest.mark.asyncio
async def test_a_dataset_published_again_after_withdrawal_is_judged_anew():
    """Its version begins at 1 again, so the version alone does not say what was decided about it."""
    store = MemoryStore()
    first, second = dataset_record("urn:d:a"), dataset_record("urn:d:a", HIDDEN)
    ours = catalog(store)
    await store.commit(Changes(saves=(first,)))
    assert ids_of(await ours.page(caller(), after=None, before=None, limit=5)) == ["urn:d:a"]
    await store.commit(Changes(deletes=((Dataset, "urn:d:a"),)))
    await store.commit(Changes(saves=(Dataset(second.id, second.document, {}, second.offers, version=first.version, updated=2.0),)))
    assert ids_of(await ours.page(caller(), after=None, before=None, limit=5)) == []


@pytest.mark.asyncio
async def test_what_cannot_be_understood_is_shown_to_nobody():
    store = MemoryStore()
    strange = {"@type": "Offer", "permission": [{"action": "use", "constraint": [{"leftOperand": "urn:x", "operator": "eq"}]}]}
    await put(store, "urn:d:a", strange)
    assert ids_of(await catalog(store).page(caller(), after=None, before=None, limit=5)) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('</c?after=2>; rel="next"', "https://peer.test/c?after=2"),
        ('</c?before=1>; rel="previous", </c?after=2>; rel="next"', "https://peer.test/c?after=2"),
        ('</c?after=2>; rel="next", </c?before=1>; rel="previous"', "https://peer.test/c?after=2"),
        ('<https://peer.test/x?a=,<b>; rel="previous",</y>; rel=NEXT', "https://peer.test/y"),
        ('<?page=2>; title="a, b; rel=last"; rel="next last"', "https://peer.test/dsp/catalog/request?page=2"),
        ('</c>; title="; rel=next"; rel="last"', None),
        ('</c>; rel="previous"', None),
        ("", None),
        ("<" * 8000, None),
    ],
)
def test_the_next_page_is_read_from_a_link_header_as_rfc_8288_has_it(header: str, expected: str | None):
    assert next_link(header, "https://peer.test/dsp/catalog/request") == expected


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """Seven datasets on pages of three; the fourth is for others."""
    shown = {"limits": LimitsSettings(catalog_page=3), "catalog": CatalogSettings(nested=("stranger",))}
    async with desk(tmp_path, **shown) as made:
        for number in range(7):
            policy = only_for(made.stranger.id) if number == 3 else OPEN
            await made.us.publish(f"urn:d:{number}", policy, keywords=["even" if number % 2 == 0 else "odd"])
        yield made


async def pages(at: Desk, method: str, filters: list[Any] | None = None) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Every page, by following `next`, as (catalog, links by relation)."""
    body = {"@context": CONTEXT, "@type": "CatalogRequestMessage"}
    path: str | None = "/catalog/request"
    found: list[tuple[dict[str, Any], dict[str, str]]] = []
    if filters is not None:
        body["filter"] = filters
    while path is not None:
        answer = await at.peer.send(at.us, method, path, body if method == "POST" else None)
        assert answer.status == 200, answer.body
        assert SCHEMAS.reasons("Catalog", answer.json) == []
        found.append((answer.json, links(answer)))
        path = found[-1][1].get("next")
    return found


def links(answer: Answer) -> dict[str, str]:
    lines = answer.headers.getall("Link", [])  # type: ignore[attr-defined]
    return {line.partition('rel="')[2].rstrip('"'): urljoin("/catalog/request", line[1:].partition(">")[0]) for line in lines}


def names(document: dict[str, Any]) -> list[str]:
    return [each["@id"].removeprefix("urn:d:") for each in document.get("dataset", ())]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.asyncio
async def test_a_peer_walks_the_pages_by_their_links(at: Desk, method: str):
    found = await pages(at, method)
    assert [names(document) for document, _ in found] == [["0", "1", "2"], ["4", "5", "6"]]
    assert [sorted(each) for _, each in found] == [["next"], ["previous"]]
    back = await at.peer.send(at.us, "GET", found[1][1]["previous"])
    assert back.json == found[0][0]


@pytest.mark.asyncio
async def test_a_link_keeps_its_filter_for_who_posts_to_it_without_one(at: Desk):
    bare = {"@context": CONTEXT, "@type": "CatalogRequestMessage"}
    even = [{"property": "dcat:keyword", "operator": "eq", "value": "even"}]
    first = await at.peer.send(at.us, "POST", "/catalog/request", bare | {"filter": even})
    second = await at.peer.send(at.us, "POST", links(first)["next"], bare)
    assert (names(first.json), names(second.json)) == (["0", "2", "4"], ["6"])


@pytest.mark.asyncio
async def test_nested_catalogs_say_where_they_are_served_and_stand_on_the_first_page(at: Desk):
    (first, _), (second, _) = await pages(at, "POST")
    service = first["catalog"][0]["distribution"][0]["accessService"]
    assert service["endpointURL"] == at.stranger.site.base
    assert "catalog" not in second


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ({"property": "@id", "operator": "eq", "value": "urn:d:5"}, ["5"]),
        ({"property": "dcat:keyword", "operator": "eq", "value": "even"}, ["0", "2", "4", "6"]),
        ({"property": "dct:title", "operator": "contains", "value": "D:4"}, ["4"]),
        ({"property": "@id", "operator": "eq", "value": "urn:d:3"}, []),
        ({"property": "dct:nothing", "operator": "contains", "value": ""}, []),
    ],
)
@pytest.mark.asyncio
async def test_a_filter_selects_and_stays_in_the_links(at: Desk, one: dict[str, str], expected: list[str]):
    found = await pages(at, "POST", [one])
    assert [name for document, _ in found for name in names(document)] == expected
    for document, following in found[:-1]:
        by_get = await at.peer.send(at.us, "GET", following["next"])
        assert names(by_get.json) == expected[len(names(document)) :], "a link followed by GET keeps the filter"


@pytest.mark.asyncio
async def test_all_filters_have_to_hold(at: Desk):
    two = [{"property": "dcat:keyword", "operator": "eq", "value": v} for v in ("even", "odd")]
    assert names((await pages(at, "POST", two))[0][0]) == []
    assert len(await pages(at, "POST", [])) == 2


@pytest.mark.asyncio
async def test_a_refused_filter_is_a_400_with_a_catalog_error(at: Desk):
    body = {"@context": CONTEXT, "@type": "CatalogRequestMessage", "filter": ["select *"]}
    for answer in (
        await at.peer.send(at.us, "POST", "/catalog/request", body),
        await at.peer.send(at.us, "GET", f"/catalog/request?filter={quoted('5')}"),
        await at.peer.send(at.us, "GET", f"/catalog/request?filter={quoted('[')}"),
        await at.peer.send(at.us, "GET", "/catalog/request?after=a&before=b"),
    ):
        assert answer.status == 400, answer.body
        assert SCHEMAS.reasons("CatalogError", answer.json) == []


@pytest.mark.asyncio
async def test_a_page_is_compressed_for_those_who_ask(at: Desk):
    plain = await at.peer.send(at.us, "GET", "/catalog/request", **{"Accept-Encoding": "identity"})
    token = await at.peer.identity.mint(at.us.site.id)
    headers = {"Authorization": token, "Accept-Encoding": "gzip"}
    async with at.us.http.get(f"{at.us.site.base}/catalog/request", headers=headers, auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert zlib.decompress(await response.read(), 31) == plain.body


@pytest.mark.asyncio
async def test_an_operator_pages_through_the_catalog_of_a_peer(tmp_path: Path):
    async with pair(tmp_path, provider={"limits": LimitsSettings(catalog_page=2)}) as both:
        for number in range(5):
            await both.provider.publish(f"urn:d:{number}")
        met: list[str] = []
        said = await both.consumer.asked("POST", "/catalog", {"peer": "hospital"})
        met += names(said["catalog"])
        while said["next"] is not None:
            said = await both.consumer.asked("POST", "/catalog", {"peer": "hospital", "after": said["next"]})
            met += names(said["catalog"])
        assert met == ["0", "1", "2", "3", "4"]
        found = await both.consumer.asked("POST", "/catalog/dataset", {"peer": "hospital", "dataset": "urn:d:3"})
        assert found["dataset"]["@id"] == "urn:d:3"
        elsewhere = await both.consumer.manage("POST", "/catalog", {"peer": "hospital", "after": "http://127.0.0.1:9/catalog"})
        assert (elsewhere.status, elsewhere.json["detail"]) == (
            400,
            "the cursor `http://127.0.0.1:9/catalog` does not belong to `hospital`",
        )


@pytest.mark.asyncio
async def test_what_a_peer_says_about_its_catalog_comes_back(at: Desk):
    answers: dict[str, tuple[int, Any]] = {
        "refused": (400, {"@context": CONTEXT, "@type": "CatalogError", "code": "no", "reason": ["not for you"]}),
        "broken": (200, None),
        "list": (200, []),
        "no catalog": (200, {"@context": CONTEXT, "@type": "Catalog", "@id": "urn:c", "dataset": [{"@id": "urn:d"}]}),
        "deep": (200, b'{"catalog":[' * 300 + b"{}" + b"]}" * 300),
    }
    no_catalog = "`biopharma` answered with what is no `Catalog` of DSP 2025-1: "
    for what, status, detail in (
        ("refused", 502, "`biopharma` refused with 400: not for you"),
        ("broken", 502, f"{no_catalog}the body is not JSON"),
        ("list", 502, f"{no_catalog}the body must hold one object of type `Catalog`"),
        ("no catalog", 502, f"{no_catalog}the body is not a valid `Catalog`"),
        ("deep", 502, f"{no_catalog}the body is nested deeper than 32 levels"),
    ):
        at.peer.script = lambda _m, _p, _d, what=what: answers[what]  # type: ignore[misc]
        answer = await at.us.manage("POST", "/catalog", {"peer": "biopharma"})
        assert answer.status == status
        assert answer.json["detail"].startswith(detail)
        assert ("`/dataset/0` lacks `hasPolicy` and `distribution`" in answer.json["reasons"]) == (what == "no catalog")
    stranger = {"@context": CONTEXT, "@type": "CatalogError", "code": "unauthenticated", "reason": ["who are you?"]}
    at.peer.script = lambda _m, _p, _d: (401, stranger)
    answer = await at.us.manage("POST", "/catalog", {"peer": "biopharma"})
    assert answer.json["detail"] == "`biopharma` refused with 401: who are you?"
    assert answer.json["reasons"] == ["who are you?", MENDED], "what is to be done about it"
    at.peer.script = lambda _m, _p, _d: (404, None)
    answer = await at.us.manage("POST", "/catalog", {"peer": "biopharma"})
    assert answer.json["detail"].startswith("`biopharma` refused with 404: the peer has nothing at this address, or does not say it")
    at.peer.script = lambda _m, _p, _d: (503, None)
    assert (await at.us.manage("POST", "/catalog", {"peer": "biopharma"})).json[
        "detail"
    ] == "`biopharma` refused with 503: it does not say why"
    at.peer.script = lambda _m, _p, _d: (401, None)
    assert str((await at.us.manage("POST", "/catalog", {"peer": "biopharma"})).json["reasons"]).count(MENDED) == 1


@pytest.mark.asyncio
async def test_a_page_of_edc_behind_a_proxy_that_ends_tls_is_followed_at_the_address_that_we_know(at: Desk):
    link = '<http://10.0.0.7:8282/protocol/2025-1/catalog/request?continuationToken=eyJAdHlwZSI6Imh0dHBz==>; rel="next"'
    at.peer.script = lambda _m, _p, _d: (200, EDC_SAID["catalog-with-lists-and-groups"], {"Link": link})
    first = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    assert first["next"] == f"{at.peer.site.base}/catalog/request?continuationToken=eyJAdHlwZSI6Imh0dHBz=="
    await at.us.asked("POST", "/catalog", {"peer": "biopharma", "after": first["next"]})
    at.peer.script = lambda _m, _p, _d: (
        200,
        EDC_SAID["catalog-with-lists-and-groups"],
        {"Link": '<http://10.0.0.7/elsewhere?x>; rel="next"'},
    )
    strange = (await at.us.asked("POST", "/catalog", {"peer": "biopharma"}))["next"]
    assert (await at.us.manage("POST", "/catalog", {"peer": "biopharma", "after": strange})).status == 400, "it is not its catalog"


@pytest.mark.asyncio
async def test_an_offer_of_edc_without_any_rule_hides_nothing_else_of_its_catalog(at: Desk):
    said = EDC_SAID["catalog-with-an-empty-offer"]
    at.peer.script = lambda _m, _p, _d: (200, said)
    shown = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    assert len(said["dataset"]) == 4
    assert [each["@id"] for each in shown["catalog"]["dataset"]] == ["urn:edc:assigned", "urn:edc:edcterm", "urn:edc:open"]
    reason = "`/hasPolicy/0` must hold at least one of `permission` or `prohibition`"
    assert shown["left_out"] == [{"id": "urn:edc:empty", "reasons": [reason]}]


@pytest.mark.asyncio
async def test_an_offer_without_any_rule_hides_no_other_one_of_its_dataset(at: Desk):
    (dataset,) = [each for each in EDC_SAID["catalog-with-an-empty-offer"]["dataset"] if each["@id"] == "urn:edc:open"]
    offers = [{"@id": "urn:o:1", "@type": "Offer"}, *dataset["hasPolicy"]]
    at.peer.script = lambda _m, _p, _d: (200, EDC_SAID["catalog-with-an-empty-offer"] | {"dataset": [dataset | {"hasPolicy": offers}]})
    shown = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    assert [each["hasPolicy"] for each in shown["catalog"]["dataset"]] == [dataset["hasPolicy"]]
    assert [each["id"] for each in shown["left_out"]] == ["urn:edc:open"]
    at.peer.script = lambda _m, _p, _d: (200, EDC_SAID["catalog-with-an-empty-offer"] | {"dataset": [dataset | {"hasPolicy": offers[:1]}]})
    nothing = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    assert "dataset" not in nothing["catalog"]
    assert [each["id"] for each in nothing["left_out"]] == ["urn:edc:open"], "there may be another page"
    alone = {"@context": EDC_SAID["catalog-with-an-empty-offer"]["@context"]} | dataset
    at.peer.script = lambda _m, _p, _d: (200, alone | {"hasPolicy": offers})
    asked = {"peer": "biopharma", "dataset": "urn:edc:open"}
    assert (await at.us.asked("POST", "/catalog/dataset", asked))["dataset"]["hasPolicy"] == dataset["hasPolicy"]
    at.peer.script = lambda _m, _p, _d: (200, alone | {"hasPolicy": offers[:1]})
    assert (await at.us.manage("POST", "/catalog/dataset", asked)).status == 502


@pytest.mark.asyncio
async def test_a_large_page_of_a_peer_is_read_while_others_have_their_turn(at: Desk, monkeypatch: pytest.MonkeyPatch):
    """One of 1,000 datasets takes 100 ms, and one on which each is none seconds."""
    threads: list[int] = []
    monkeypatch.setattr("connector.dsp.forms.tidy", lambda value: (threads.append(threading.get_ident()), tidy(value))[1])
    page = EDC_SAID["catalog-with-an-empty-offer"]
    at.peer.script = lambda _m, _p, _d: (200, page | {"dataset": page["dataset"] + [{"@id": f"urn:none:{n}"} for n in range(1_000)]})
    shown = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    assert len(shown["left_out"]) > 1_000
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.asyncio
async def test_a_catalog_of_edc_with_a_list_and_a_group_of_one_is_read(at: Desk):
    at.peer.script = lambda _m, _p, _d: (200, EDC_SAID["catalog-with-lists-and-groups"])
    shown = await at.us.asked("POST", "/catalog", {"peer": "biopharma"})
    rules = {each["@id"]: each["hasPolicy"][0]["permission"][0]["constraint"][0] for each in shown["catalog"]["dataset"]}
    assert [each["rightOperand"] for each in rules["urn:edc:or1"]["or"]] == ["research"]
    assert rules["urn:edc:purposes"]["rightOperand"] == ["research", "quality"]
    assert shown["left_out"] == []


def test_a_link_of_a_peer_that_is_no_address_is_the_peers_failure():
    with pytest.raises(PeerFailed, match="no address"):
        next_link('<http://[::1>; rel="next"', "https://peer.test/dsp/catalog/request")
