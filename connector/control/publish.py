"""Publishing: a dataset with its source and its offers becomes one record that catalogs and negotiations read.

What is published is pinned: the source is read once for its size and digest, the description is rendered once, and a policy
that says anything we do not understand is refused here, with its findings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from connector import telemetry
from connector.control.journal import Journal
from connector.control.policies import Policies
from connector.dsp import dcat, wire
from connector.dsp.messages import CONTEXT
from connector.dsp.schemas import Schemas
from connector.errors import InvalidRequest, NotFound, PolicyError, WireError
from connector.metering.claims import DATASET, ID_CHARACTERS_MAX
from connector.ports import Sources
from connector.ports.live import LiveSources
from connector.records import Changes, Dataset, Evidence, Expect, Offer
from connector.values import Value, field

# Members that the description has by other names. Said once more, they would be offers that nobody can take and that nobody is spared.
WRITTEN_HERE = {
    "odrl:hasPolicy": "policies",
    "http://www.w3.org/ns/odrl/2/hasPolicy": "policies",
    "dcat:distribution": "source",
    "http://www.w3.org/ns/dcat#distribution": "source",
}
COUNTERS = ("auto-counter", "approve")
# Of a dataset's id, escapes and all. The link to the next page has it beside a sealed place (some 1,800) and a filter, in a line of 8,190.
ID_IN_ADDRESS_MAX = 3_840
# RFC 9110, 8.3.1, and RFC 6838, 4.2 for the length: it stands in a header of each answer to a consumer.
MEDIA_TYPE = re.compile(r"[!#$&^_.+0-9A-Za-z-]{1,127}/[!#$&^_.+0-9A-Za-z-]{1,127}(?:[ \t]*;[\t -~]{0,200})?")

# Control characters, ends of lines, and what turns the direction of text around: a catalog shows a title among others.
NO_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Manifest(Value):
    """What an operator says about a dataset. `source` is a private address with a `type`; `policies` are ODRL documents,
    each of which becomes one offer; `properties` are further members of the description with prefixed keys. `counter` and `envelope` say
    what is done with a request for other terms (see `Offer`); `templates` are what each policy was made from, in their order. With
    `binding` the policies count for agreements made before as well: what none of them permits ends."""

    id: str
    title: str
    source: Mapping[str, Any]
    policies: Sequence[Mapping[str, Any]]
    description: str | None = None
    keywords: tuple[str, ...] = ()
    media_type: str | None = None
    manual: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)
    counter: str = "auto-counter"
    envelope: Mapping[str, Any] | None = None
    templates: Sequence[Mapping[str, Any] | None] = ()
    binding: bool = False


class Publishing:
    """Publishes and withdraws datasets. `sources` maps a source type to what opens it, `service` is our data service's id."""

    def __init__(
        self, journal: Journal, policies: Policies, schemas: Schemas, sources: Mapping[str, Sources | LiveSources], service: str
    ) -> None:
        self._journal = journal
        self._policies = policies
        self._schemas = schemas
        self._sources = sources
        self._service = service

    async def publish(self, manifest: Manifest) -> tuple[Dataset, bool]:
        """Publish or replace. Returns the record and whether it is new. Raises InvalidRequest, PolicyError, SourceFailed;
        nothing has changed then. Agreements made before keep the terms they were made on, unless the operator says that the new ones
        are binding for them too; that stays so until the dataset is withdrawn."""
        offers = self._offers(manifest)
        _demand_title(manifest.title)
        _demand_media_type(manifest.media_type, "/media_type")
        _demand_media_type(manifest.source.get("media_type"), "/source/media_type")
        kind = str(manifest.source.get("type", ""))
        if kind not in self._sources:
            raise InvalidRequest(f"source type `{kind}` is not known; known are {', '.join(sorted(self._sources))}", pointer="/source/type")
        # What a dataset is said to be its bytes are, too, unless the source says otherwise: records are counted by it.
        said_of_bytes = {"media_type": manifest.media_type} if manifest.media_type is not None else {}
        address, stat = await self._sources[kind].index(said_of_bytes | dict(manifest.source))
        for policy in (*manifest.policies, *([manifest.envelope] if manifest.envelope is not None else [])):
            self._policies.demand_measured(policy, stat.media_type, counted=stat.counted or stat.size_bytes is None)
        document = dcat.dataset_document(
            manifest.id,
            manifest.title,
            [(offer.id, offer.policy) for offer in offers],
            self._service,
            media_type=manifest.media_type or stat.media_type,
            size_bytes=stat.size_bytes,
            description=manifest.description,
            keywords=manifest.keywords,
            properties=manifest.properties,
        )
        if reasons := self._schemas.reasons("Dataset", {"@context": CONTEXT} | document):
            raise InvalidRequest("the description is not a valid dataset", tuple(reasons))
        rendered = orjson.dumps(document)
        try:
            wire.load(dcat.catalog("", "", {}, [rendered], []))
        except WireError as e:
            raise InvalidRequest(f"no peer that reads as we do would take a catalog with this dataset: {e.message}") from None
        new, record = True, Dataset(manifest.id, rendered, address, offers)

        async def step() -> Changes:
            nonlocal new, record
            now = self._journal.clock.now()
            before = await self._journal.store.dataset(manifest.id)
            await self._unclaimed(offers)
            new = before is None
            version = before.version if before else None
            binding = now if manifest.binding else before.binding if before else None
            record = Dataset(manifest.id, rendered, address, offers, stat.size_bytes, stat.sha256, (version or 0) + 1, now, binding)
            said = {"dataset": manifest.id, "offers": [o.id for o in offers]} | ({"binding": True} if manifest.binding else {})
            evidence = Evidence(telemetry.PUBLISHED, None, None, None, None, now, detail=said)
            return Changes((Expect(Dataset, manifest.id, version),), (record,), evidence=(evidence,))

        await self._journal.decide(step, manifest.id)
        return record, new

    def _offers(self, manifest: Manifest) -> tuple[Offer, ...]:
        _demand_id(manifest.id, "a dataset", "/id")
        if (characters := len(quote(manifest.id, safe=""))) > ID_IN_ADDRESS_MAX:
            raise InvalidRequest(
                f"the id of a dataset has {ID_IN_ADDRESS_MAX} characters at most where it stands in an address, and this one {characters}:"
                " letters beyond ASCII are six to twelve there",
                pointer="/id",
            )
        if not manifest.policies:
            raise InvalidRequest("a dataset needs at least one policy: without an offer nobody may ask for it", pointer="/policies")
        bare = [key for key in manifest.properties if ":" not in key]
        if bare:
            raise InvalidRequest(
                f"the properties {', '.join(f'`{b}`' for b in bare)} have no prefix and would be dropped by JSON-LD readers;"
                " write `dct:`, `dcat:` or a full IRI",
                pointer="/properties",
            )
        for name in manifest.properties:
            if name in WRITTEN_HERE:
                raise InvalidRequest(f"`{name}` is made of `{WRITTEN_HERE[name]}`; say there what it has to be", pointer="/properties")
        if manifest.counter not in COUNTERS:
            raise InvalidRequest(f"`counter` is `{manifest.counter}`; it is one of {', '.join(COUNTERS)}", pointer="/counter")
        if manifest.envelope is not None and isinstance(envelope := self._policies.parse(manifest.envelope), PolicyError):
            raise envelope
        templates = [*manifest.templates, *[None] * len(manifest.policies)]
        offers: list[Offer] = []
        for policy, template in zip(manifest.policies, templates, strict=False):
            id = policy.get("@id") or dcat.offer_id(manifest.id, policy)
            terms = {k: v for k, v in policy.items() if k not in ("@context", "target")}
            offer = Offer(str(id), manifest.id, terms, manifest.manual, manifest.counter, manifest.envelope, template)
            parsed = self._policies.parse(policy)
            if isinstance(parsed, PolicyError):
                raise parsed
            _demand_id(str(id), "an offer", f"/policies/{len(offers)}/@id")
            offers.append(offer)
        if len({offer.id for offer in offers}) < len(offers):
            raise InvalidRequest("two policies have the same id or say the same; an offer's id is unique", pointer="/policies")
        return tuple(offers)

    async def _unclaimed(self, offers: Sequence[Offer]) -> None:
        """Raise InvalidRequest if one of the ids is that of another dataset's offer: a request that names it means that one."""
        for number, offer in enumerate(offers):
            known = await self._journal.store.offer(offer.id)
            if known is not None and known.dataset != offer.dataset:
                raise InvalidRequest(
                    f"`{offer.id}` is an offer of dataset `{known.dataset}`, and an offer belongs to one dataset; give this policy an"
                    " `@id` of its own, or none: then one is made for each dataset",
                    pointer=f"/policies/{number}",
                )

    async def withdraw(self, id: str) -> None:
        """Take a dataset out of the catalog. Raises NotFound. Agreements stay in force, and new ones cannot be made; transfers are
        suspended until it is published again."""

        async def step() -> Changes:
            before = await self._journal.store.dataset(id)
            if before is None:
                raise NotFound(f"dataset `{id}` is not published here")
            evidence = Evidence(telemetry.WITHDRAWN, None, None, None, None, self._journal.clock.now(), detail={"dataset": id})
            return Changes((Expect(Dataset, id, before.version),), deletes=((Dataset, id),), evidence=(evidence,))

        await self._journal.decide(step, id)


def _demand_title(title: str) -> None:
    """Raise InvalidRequest for a title that would not stand in one line of a catalog, in the order in which it is written."""
    if (found := NO_LINE.search(title)) is not None:
        character = f"the character U+{ord(found[0]):04X} at place {found.start() + 1}, which ends a line or controls how it is shown"
        raise InvalidRequest(f"`title` has {character}; write it in one line, without control characters", pointer="/title")


def _demand_media_type(said: object, pointer: str) -> None:
    if said is not None and not (isinstance(said, str) and MEDIA_TYPE.fullmatch(said)):
        raise InvalidRequest("the media type is none; write it as `text/csv` or `text/csv; charset=utf-8`", pointer=pointer)


def _demand_id(id: str, of: str, pointer: str) -> None:
    """Raise InvalidRequest for an id that no peer could name: it travels in JSON-LD, in addresses and in manifests."""
    if not id.isprintable() or not DATASET.fullmatch(id):
        raise InvalidRequest(
            f'the id of {of} has {ID_CHARACTERS_MAX} characters at most, none of them a space or one of <>"{{}}|\\^`; '
            "write for example urn:hospital:outpatients-2026",
            pointer=pointer,
        )
