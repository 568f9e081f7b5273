"""The catalog: what each participant may see of ours, and what we see of a peer's.

Provider: a page costs what is on it, never what the store holds; who may see an offer is decided once for each offer and
participant and remembered until the answer may change. A single dataset is visible exactly if it stands in the catalog.

A cursor is the id of a dataset that its holder has seen. Where a page had to end among those that it may not see, the place
goes with it sealed: nobody reads an id out of it, and nobody can make one up.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import inf
from typing import Any
from urllib.parse import quote, urljoin

import orjson
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from connector import telemetry
from connector.control.journal import Journal
from connector.control.policies import Policies
from connector.dsp import answers, dcat, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import CONTEXT, PATH_CHARACTERS, Kind
from connector.dsp.schemas import Schemas
from connector.errors import InvalidRequest, NotFound, PeerFailed, PeerRefused, WireError
from connector.origins import origin
from connector.ports import Caller, Clock, Expander, Identity, Participant, Peer, Reply
from connector.records import Dataset, Listed
from connector.values import Value

CATALOG_BYTES_MAX = 10 * 1024 * 1024  # of a peer's page
CATALOG_NODES_MAX = 200_000  # values on it: a page of 1,000 datasets has some 40,000
PAGE_BYTES_MAX, PAGE_VALUES_MAX = 2 * 1024 * 1024, 100_000  # on a page of ours, if it has more than one dataset: below what a peer may take
REMEMBERED_MAX = 200_000  # decisions (dataset, participant), some 200 bytes each
ROWS_READ_MAX = 2_000  # a participant who may see little gets a short page and a next link instead of a long wait
FILTER = (
    "a filter is a list of objects with `property` (such as `@id`, `dct:title`, `dcat:keyword`), `operator` (`eq` or `contains`) and "
    "`value`, all strings"
)
FILTERS_MAX = 10  # each is held against up to ROWS_READ_MAX datasets, while everybody else waits
FILTER_CHARACTERS_MAX = 2_048  # of all of them in an address: that is where the links of a page have them, beside a cursor
SEALED_BYTES = 256  # what is sealed is filled up to a multiple, so that its length says nothing of an id

# RFC 8288, 3: targets in angle brackets, each with its parameters; a quoted value may hold commas and semicolons.
PARAMETER = r';\s*[^\s=;,"]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*'
LINK = re.compile(rf"<([^<>]*)>\s*((?:{PARAMETER})*)")


class CatalogPage(Value):
    """A rendered catalog and the cursors of its neighbours."""

    body: bytes
    next: str | None
    previous: str | None


class Judged(Value):
    """The ids of the offers of a dataset that somebody does not see, from `since` on and before `until` (POSIX seconds)."""

    hidden: frozenset[str]
    since: float
    until: float


class Catalog:
    """Our own catalog. `service` is our data service, `nested` are stubs of catalogs that are served elsewhere."""

    def __init__(
        self, journal: Journal, policies: Policies, own: str, id: str, service: Mapping[str, Any], nested: Sequence[Mapping[str, Any]]
    ) -> None:
        self._store = journal.store
        self._clock = journal.clock
        self._policies = policies
        self._own = own
        self._id = id
        self._service = service
        self.nested = tuple(nested)
        self._places = _Places()
        self._judged: OrderedDict[tuple[str, int, tuple[str, bytes]], Judged] = OrderedDict()

    async def page(
        self, caller: Caller, *, after: str | None, before: str | None, limit: int, filters: Sequence[Mapping[str, Any]] = ()
    ) -> CatalogPage:
        """A page of at most `limit` datasets that the caller may see, in order of id, after or before the cursor.

        One that would be larger than PAGE_BYTES_MAX, or have more than PAGE_VALUES_MAX values, has fewer. It has a neighbour exactly if
        there is something to see there, and no cursor names a dataset that the caller may not see. After ROWS_READ_MAX rows a page ends as
        it is: from a short one, or an empty one, it can be told that many are hidden or were filtered out, but not which.
        """
        after = after or None
        backwards, cursor = before is not None, before if before is not None else after
        shown: list[tuple[str, bytes]] = []
        at, edge, read, size_bytes, values = self._places.read(cursor), None, 0, 0, 0
        seen_by, now = _seen_by(caller), self._clock.now()
        while edge is None:
            rows = await self._store.listed_datasets(after=None if backwards else at, before=at if backwards else None, limit=limit + 1)
            for dataset in reversed(rows.items) if backwards else rows.items:
                document = await self._view(dataset, caller, seen_by, now)
                if document is not None and _matches(document, filters):
                    size_bytes, values = size_bytes + len(document), values + _values_at_most(document)
                    if len(shown) == limit or (shown and (size_bytes > PAGE_BYTES_MAX or values > PAGE_VALUES_MAX)):
                        edge = shown[-1][0]  # this one begins the next page
                        break
                    shown.append((dataset.id, document))
                at = dataset.id
            if not (rows.previous if backwards else rows.next):
                break
            read += len(rows.items)
            if read >= ROWS_READ_MAX and edge is None and at is not None:
                edge = self._places.seal(shown[-1][0] if shown else cursor, at)
        # What stood here may be gone by now: from an empty page, the ways lead on from what was seen last.
        previous: str | None
        following: str | None
        if backwards:
            shown.reverse()
            previous, following = edge, shown[-1][0] if shown else ""
        else:
            previous, following = shown[0][0] if shown and after is not None else _behind(after), edge
        nested = list(self.nested) if previous is None and (backwards or after is None) else []
        body = dcat.catalog(self._id, self._own, self._service, [document for _, document in shown], nested)
        return CatalogPage(body, following, previous)

    async def dataset(self, caller: Caller, id: str) -> bytes:
        """The root form of one dataset. Raises NotFound if it does not stand in the caller's catalog."""
        dataset = await self._store.listed_dataset(id)
        document = await self._view(dataset, caller, _seen_by(caller), self._clock.now()) if dataset else None
        if document is None:
            raise NotFound(f"dataset `{id}` is not in your catalog")
        return dcat.root_dataset(document)

    async def _view(self, dataset: Listed, caller: Caller, seen_by: tuple[str, bytes], now: float) -> bytes | None:
        """The dataset as this caller (`_seen_by`) sees it, or None. An offer that is certainly denied is absent, without a word."""
        # A dataset that was withdrawn and published again begins at version 1 again: its terms tell the two apart.
        key = (dataset.id, dataset.terms, seen_by)
        judged = self._judged.get(key)
        if judged is None or not judged.since <= now < judged.until:  # before `since`: the clock was set back
            hidden, until = self.hidden(dataset.read(), caller, now)
            judged = self._judged[key] = Judged(hidden, now, inf if until is None else until)
            if len(self._judged) > REMEMBERED_MAX:
                self._judged.popitem(last=False)
            await asyncio.sleep(0)  # a page of terms that nobody has read takes long, and others wait
        return dataset.document if not judged.hidden else dcat.without_offers(dataset.document, judged.hidden)

    def hidden(self, dataset: Dataset, caller: Caller, now: float) -> tuple[frozenset[str], float | None]:
        """The ids of the offers that this caller does not see at that instant (POSIX seconds), and until when that is so, None for good. A
        dataset all of whose offers are hidden is not in its catalog."""
        hidden, until = set(), None
        for offer in dataset.offers:
            shown, ends = self._policies.shows(offer.policy, party=caller.participant.id, target=dataset.id, claims=caller.claims, now=now)
            if not shown:
                hidden.add(offer.id)
            if ends is not None:
                until = min(until or ends, ends)
        return frozenset(hidden), until


def _values_at_most(document: bytes) -> int:
    """No JSON of these bytes has more values: one for each sign that begins some or parts them. Those in its texts count, too."""
    return document.count(b",") + document.count(b"[") + document.count(b"{") + 1


def _seen_by(caller: Caller) -> tuple[str, bytes]:
    """What makes one view of the catalog differ from another: the participant and a digest of its claims, which may be long."""
    return caller.participant.id, sha256(orjson.dumps(caller.claims, option=orjson.OPT_SORT_KEYS)).digest()


def _behind(cursor: str | None) -> str | None:
    """The cursor before which lies what was seen last, itself included: no id stands between the two."""
    seen = (cursor or "").partition(" ")[0]
    return f"{seen} " if seen else None


class _Places:
    """Places in the catalog as cursors. The key is of this process: a seal of an earlier one cannot be opened, and then what
    was seen last, which stands beside it in clear, is the place. Some rows are read again, nothing is missed."""

    def __init__(self) -> None:
        self._box = SecretBox(random(SecretBox.KEY_SIZE))

    def seal(self, cursor: str | None, at: str) -> str:
        """The cursor of the place `at`, for somebody who stood at `cursor`; the two are apart by a space, which no id has."""
        seen = (cursor or "").partition(" ")[0]
        place = at.encode()
        filled = place.ljust(-(-len(place) // SEALED_BYTES) * SEALED_BYTES, b"\0")
        return f"{seen} {urlsafe_b64encode(self._box.encrypt(filled)).decode()}"

    def read(self, cursor: str | None) -> str | None:
        """The place that a cursor means."""
        seen, _, sealed = (cursor or "").partition(" ")
        if not sealed:
            return cursor
        try:
            return self._box.decrypt(urlsafe_b64decode(sealed)).rstrip(b"\0").decode()
        except (CryptoError, ValueError):
            return seen


def read_filters(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Check the `filter` of a catalog request: a list of {property, operator eq or contains, value}, all of which must hold.

    DSP 2025-1 leaves filters to implementations and asks for 400 where one is not supported: raises InvalidRequest that
    says what is, also for more or longer ones than a link could carry on. Absent and empty mean no filter.
    """
    filters = tuple(value) if isinstance(value, list) else (value,) if value is not None else ()
    for one in filters:
        known = isinstance(one, Mapping) and set(one) == {"property", "operator", "value"}
        if not known or one["operator"] not in ("eq", "contains") or not all(isinstance(v, str) for v in one.values()):
            raise InvalidRequest(f"this filter is not supported; {FILTER}")
    if len(filters) > FILTERS_MAX or len(filter_text(filters)) > FILTER_CHARACTERS_MAX:
        raise InvalidRequest(f"this filter is too long: {FILTERS_MAX} objects at most, of {FILTER_CHARACTERS_MAX} characters in an address")
    return filters


def filter_text(filters: Sequence[Mapping[str, Any]]) -> str:
    """Filters as they stand in an address."""
    return quote(orjson.dumps(filters), safe="")


def read_filter_text(text: str) -> tuple[Mapping[str, Any], ...]:
    """The same of a filter that stands as JSON in an address, where the links of our pages put it."""
    try:
        return read_filters(wire.load(text.encode()))
    except WireError as error:
        raise InvalidRequest(
            f"the `filter` of the address is not JSON (UTF-8, finite numbers, each name once, not too deep); {FILTER}"
        ) from error


def _matches(document: bytes, filters: Sequence[Mapping[str, Any]]) -> bool:
    if not filters:
        return True
    parsed = orjson.loads(document)
    return all(_holds(parsed.get(f["property"]), f["operator"], f["value"]) for f in filters)


def _holds(value: Any, operator: str, wanted: str) -> bool:
    values = [
        str(v.get("@value") or v.get("@id")) if isinstance(v, Mapping) else str(v) for v in (value if isinstance(value, list) else [value])
    ]
    if value is None:
        return False
    return wanted in values if operator == "eq" else any(wanted.casefold() in v.casefold() for v in values)


class PeerCatalogs:
    """Reads the catalogs of peers, and how they see a process that we share. What is returned of a catalog has been checked: it
    is valid by the schemas of DSP 2025-1, within bounds, whatever form of JSON-LD the peer wrote it in."""

    def __init__(self, peer: Peer, identity: Identity, schemas: Schemas, expander: Expander, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._identity = identity
        self._schemas = schemas
        self._expander = expander

    async def page(self, participant: Participant, link: str | None, filters: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
        """One page of the peer's catalog and the link to the next. `link` is one that an earlier page gave; it has to lie at
        the peer's own origin. Raises InvalidRequest, PeerFailed, PeerRefused with the peer's reasons."""
        base = base_of(participant)
        url = link or f"{base}/catalog/request"
        if link is not None and not _same_origin(link, base):
            raise InvalidRequest(f"the cursor `{link}` does not belong to `{participant.name}`", pointer="/after")
        message = {"@context": CONTEXT, "@type": "CatalogRequestMessage"} | ({"filter": list(filters)} if filters else {})
        reply = await self._call("POST", url, participant, orjson.dumps(message))
        return await self._read(reply, "Catalog", participant), next_link(reply.headers.get("link", ""), url)

    async def dataset(self, participant: Participant, id: str) -> dict[str, Any]:
        """One dataset of the peer by id. Raises PeerFailed, PeerRefused with the peer's reasons."""
        reply = await self._call("GET", f"{base_of(participant)}/catalog/datasets/{quote(id, safe='')}", participant, None)
        return await self._read(reply, "Dataset", participant)

    async def state(self, participant: Participant, process: Process) -> str | None:
        """The state of the process at the peer (GET of DSP 2025-1), or None if it does not say. That we ask also tells it that
        we are here. Raises PeerFailed, PeerRefused."""
        part = "transfers" if process.kind is Kind.TRANSFER else "negotiations"
        url = f"{process.callback}/{part}/{quote(process.peer_pid or '', safe=PATH_CHARACTERS)}"
        document = _json((await self._call("GET", url, participant, None)).body)
        state = document.get("state") if isinstance(document, dict) else None
        return state if isinstance(state, str) else None

    async def _call(self, method: str, url: str, participant: Participant, body: bytes | None) -> Reply:
        headers = {
            "Authorization": await self._identity.mint(participant.id),
            "Content-Type": "application/json",
        } | telemetry.trace_header()
        reply = await self._peer.send(method, url, headers=headers, body=body, limit_bytes=CATALOG_BYTES_MAX)
        if reply.status >= 300:  # noqa: PLR2004
            code, reasons = wire.reasons_of(_json(reply.body))
            words = answers.in_words(reply.status, None, (), reply.headers.get("www-authenticate")).removeprefix(str(reply.status))
            said = "; ".join(reasons) or code or words.removeprefix(": ") or "it does not say why"
            remedy = (answers.MENDED,) if reply.status in answers.NOT_US and answers.MENDED not in said else ()
            apart = answers.by_clocks(reply.status, reply.headers.get("date"), self._clock.now())
            code = answers.CLOCKS_APART if apart else None
            text = f"`{participant.name}` refused with {reply.status}: {said}"
            raise PeerRefused(text, (*(reasons or (said,)), *remedy), reply.status, code)
        return reply

    async def _read(self, reply: Reply, type_: str, participant: Participant) -> dict[str, Any]:
        try:
            document = wire.load(reply.body, CATALOG_NODES_MAX)
            # Some leave what there is none of as an empty list, which the schemas forbid and which says nothing.
            for found in (document, dcat.without_empty(document)):
                if isinstance(found, dict) and self._schemas.is_valid(type_, found):
                    return found
            return await self._expander.compact(reply.body, type_, self._identity.own.id)
        except WireError as e:
            raise PeerFailed(f"`{participant.name}` answered with what is no `{type_}` of DSP 2025-1: {e.message}", e.reasons) from None


def _json(body: bytes) -> Any:
    try:
        return wire.load(body)
    except WireError:
        return None


def base_of(participant: Participant) -> str:
    """The base URL of a participant's connector; raises NotFound if its self-description has none."""
    if not participant.protocol:
        raise NotFound(f"the self-description of `{participant.name}` names no protocol endpoint")
    return participant.protocol


def next_link(header: str, base: str) -> str | None:
    """The target of `rel="next"` in a Link header (RFC 8288), absolute. Raises PeerFailed for one that is no address."""
    for target, parameters in LINK.findall(header):
        named = (each.lstrip("; ").partition("=") for each in re.findall(PARAMETER, parameters))
        relations = [value.strip(' "').lower().split() for name, _, value in named if name.strip().lower() == "rel"]
        if relations and "next" in relations[0]:
            try:
                return str(urljoin(base, target))
            except ValueError:
                raise PeerFailed(f"the link to the next page of the peer's catalog is no address: `{target[:200]}`") from None
    return None


def _same_origin(url: str, base: str) -> bool:
    try:
        return origin(url) == origin(base)
    except ValueError:
        return False
