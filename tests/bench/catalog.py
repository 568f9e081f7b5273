"""Measures pages of a catalog of 10,000 datasets: the first and the last, under shared policies and under one for each."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urljoin

import aiohttp
import orjson

from connector.adapters.clock import SystemClock
from connector.adapters.keys import Keys
from connector.adapters.registry import Registry
from connector.adapters.sqlite_schema import number_of, open_database
from connector.adapters.sqlite_write import Group
from connector.adapters.tokens import RegistryIdentity
from connector.adapters_stores.sqlite_prepared import prepare
from connector.dsp import dcat
from connector.records import Changes, Conflict, Dataset, Offer
from tests.bench.connectors import Connector, Pair, pair, session
from tests.bench.load import PAUSE_SECONDS, Echo, echo
from tests.bench.rows import Found
from tests.bench.size import Size

DATASETS, POLICIES, PAGE = 10_000, 100, 100
PAGES, ECHOES = 40, 100  # in a round
CACHE_KIB = 65_536
KINDS = {"catalog": POLICIES, "catalog-own-policies": DATASETS}  # prefix of the rows -> distinct policies
NEXT = re.compile(r'<([^>]*)>; rel="next"')
REQUEST = orjson.dumps({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"})
MS = 1e3


def policy(number: int) -> dict[str, Any]:
    """One of many policies that differ in a bound: purpose, time and participant."""
    return {
        "permission": [
            {
                "action": "use",
                "constraint": [
                    {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": ["research", f"study-{number}"]},
                    {
                        "leftOperand": "odrl:dateTime",
                        "operator": "lteq",
                        "rightOperand": {"@value": f"{2040 + number % 50}-12-31Z", "@type": "xsd:date"},
                    },
                ],
            }
        ],
        "prohibition": [
            {"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": f"marketing-{number}"}]}
        ],
    }


def fill(provider: Connector, datasets: int, policies: int) -> None:
    """Write `datasets` datasets under `policies` distinct policies into the database of a provider that does not run."""
    with closing(open_database(provider.database, cache_kib=CACHE_KIB)) as db:
        number = number_of(db, provider.id)
        db.execute("begin immediate")
        group = Group(db, number)
        for index in range(datasets):
            if isinstance(conflict := group.apply(prepare(number, Changes(saves=(_dataset(index, policies),)))), Conflict):
                raise RuntimeError(f"dataset {index} cannot be stored: {conflict}")
        db.execute("commit")


def _dataset(index: int, policies: int) -> Dataset:
    id = f"urn:bench:dataset:{index:06}"
    terms = policy(index % policies)
    offer = Offer(dcat.offer_id(id, terms), id, terms)
    document = dcat.dataset_document(
        id,
        f"Observations, part {index}",
        [(offer.id, offer.policy)],
        "did:web:provider.example#connector",
        media_type="application/fhir+ndjson",
        size_bytes=1_000_000 + index,
        description="Laboratory observations of one ward, one line for each",
        keywords=("laboratory", "observation"),
    )
    source = {"type": "file", "path": f"{index}.ndjson"}
    return Dataset(id, orjson.dumps(document), source, (offer,), 1_000_000 + index, bytes(32), 1, time.time())


class Reader:
    """The consumer as the provider sees it: calls with tokens that its keys sign."""

    def __init__(self, http: aiohttp.ClientSession, both: Pair) -> None:
        self._http, self._provider = http, both.provider
        registry = Registry(both.consumer.folder / "participants")
        own = registry.find(both.consumer.id)
        assert own is not None
        self._identity = RegistryIdentity(own, registry, Keys(both.consumer.folder / "keys", own.id), SystemClock())

    async def page(self, link: str | None) -> tuple[float, str | None]:
        """Fetch a page, the first without `link`; returns the seconds (minting the token not counted) and the next link."""
        headers = {"Authorization": await self._identity.mint(self._provider.id), "Accept-Encoding": "identity"}
        headers["Content-Type"] = "application/json"
        url = urljoin(f"{self._provider.url('protocol')}/dsp/2025-1/catalog/request", link or "")
        begun = time.perf_counter()
        async with self._http.request("GET" if link else "POST", url, headers=headers, data=None if link else REQUEST) as response:
            body = await response.read()
            seconds = time.perf_counter() - begun
            response.raise_for_status()
            found = NEXT.search(response.headers.get("Link", ""))
        if len(datasets := orjson.loads(body)["dataset"]) != PAGE:
            raise RuntimeError(f"a page has {len(datasets)} datasets instead of {PAGE}")
        return seconds, found[1] if found else None

    async def walk(self) -> tuple[list[float], str]:
        """Go to the last page; returns the seconds of each page and the link of the last."""
        seconds: list[float] = []
        link, last = None, ""
        while True:
            took, following = await self.page(link)
            seconds.append(took)
            if following is None:
                return seconds, last
            link = last = following

    async def median(self, link: str | None) -> float:
        """The median seconds of one page."""
        seconds = []
        for _ in range(PAGES):
            seconds.append((await self.page(link))[0])
            await asyncio.sleep(PAUSE_SECONDS)
        return statistics.median(seconds)


async def measure(size: Size) -> dict[str, Found]:
    """Both catalogs, one after the other, each round beside the echo."""
    found: dict[str, Found] = {}
    async with echo() as bare:
        for name, policies in KINDS.items():
            found |= await _catalog(size, bare, name, policies)
    return found


async def _catalog(size: Size, bare: Echo, name: str, policies: int) -> Mapping[str, Found]:
    with pair(name) as both:
        fill(both.provider, size.of(DATASETS), policies)
        both.provider.start()
        async with session() as http:
            reader = Reader(http, both)
            walked, last = await reader.walk()
            echoes: dict[str, list[float]] = {"first": [], "last": []}
            pages: dict[str, list[float]] = {"first": [], "last": []}
            for _ in range(size.rounds):
                for which, link in (("first", None), ("last", last)):
                    echoes[which].append(statistics.median(await bare.idle(ECHOES)) * MS)
                    pages[which].append(await reader.median(link) * MS)
    notes = {
        "first": f"the very first request {walked[0] * MS:.1f} ms",
        "last": f"on the first walk over all {len(walked)} pages {statistics.median(walked) * MS:.1f} ms a page, "
        f"at most {max(walked) * MS:.1f}",
    }
    short = f"only {size.of(DATASETS):,} datasets" if size.of(DATASETS) < DATASETS else ""
    return {f"{name}-{which}-page": Found(pages[which], echoes[which], notes[which], short) for which in pages}
