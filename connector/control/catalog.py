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
from functools import partial
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
from connector.control.policies import ASIDE_BYTES, Policies
from connector.dsp import answers, dcat, forms, wire
from connector.dsp.exchange import Process
from connector.dsp.filters import matches, text
from connector.dsp.messages import CONTEXT, PATH_CHARACTERS, Kind
from connector.dsp.schemas import Schemas
from connector.errors import InvalidRequest, NotFound, PeerFailed, PeerRefused, WireError
from connector.lasting import aside
from connector.origins import origin
from connector.ports import Caller, Clock, Expander, Identity, Participant, Peer, Reply
from connector.records import Dataset, Listed
from connector.remembered import Remembered
from connector.values import Value

CATALOG_BYTES_MAX = 10 * 1024 * 1024  # of a peer's page
CATALOG_NODES_MAX = 200_000  # values on it: a page of 1,000 datasets has some 40,000
CATALOG_SIGNS_MAX = 1_000_000  # that may begin or part values, those in texts too: ten megabytes of empty lists take 350 MB and seconds
PAGE_BYTES_MAX, PAGE_VALUES_MAX = 2 * 1024 * 1024, 100_000  # on a page of ours, if it has more than one dataset: below what a peer may take
REMEMBERED_MAX = 200_000  # decisions (dataset, participant), some 200 bytes each
ROWS_READ_MAX = 2_000  # a participant who may see little gets a short page and a next link instead of a long wait
ROWS_COUNTED = 200  # in one go, by who counts
COUNTED_SECONDS, COUNTED_MAX, COUNTED_BYTES_MAX = 300, 1_000, 2 * 1024 * 1024  # how long a place is kept that was counted to, and how many
SEALED_BYTES = 256  # what is sealed is filled up to a multiple, so that its length says nothing of an id

# RFC 8288, 3: targets in angle brackets, each with its parameters; a quoted value may hold commas and semicolons.
PARAMETER = r';\s*[^\s=;,"]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*'
LINK = re.compile(rf"<([^<>]*)>\s*((?:{PARAMETER})*)")


class CatalogPage(Value):
    """A rendered catalog and the cursors of its neighbours."""

    body: bytes
    next: str | None
    previous: str | None
    last: str | None = None  # the cursor of where it ends
    count: int = 0  # of datasets


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
        self._counted: Remembered[tuple[tuple[str, bytes], str, int], tuple[str, float]] = Remembered(COUNTED_MAX, COUNTED_BYTES_MAX)

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
                if document is not None and matches(document, filters):
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
        return CatalogPage(body, following, previous, edge or (shown[-1][0] if shown else None), len(shown))

    async def counted(self, caller: Caller, *, offset: int, limit: int, filters: Sequence[Mapping[str, Any]] = ()) -> CatalogPage:
        """The page that begins behind the first `offset` datasets that the caller may see, for who counts instead of following links, as
        EDC does.

        Where a page ended that was asked for so is remembered for COUNTED_SECONDS: who counts on pays for a page, not for all before it,
        and meets all that stays meanwhile once. Raises InvalidRequest for a place further than ROWS_READ_MAX rows from the begin.
        """
        seen_by, now, asked = _seen_by(caller), self._clock.now(), text(filters)
        place, since = self._counted.get((seen_by, asked, offset)) or (None, now)
        if place is None or not since <= now < since + COUNTED_SECONDS:
            place = await self._behind_first(offset, caller, filters)
        page = await self.page(caller, after=place, before=None, limit=limit, filters=filters)
        if page.last is not None and page.count:
            self._counted.put((seen_by, asked, offset + page.count), (page.last, now), 4 * (len(page.last) + len(asked) + len(seen_by[0])))
        return page

    async def _behind_first(self, offset: int, caller: Caller, filters: Sequence[Mapping[str, Any]]) -> str | None:
        """The cursor behind so many datasets that the caller may see, or behind all if there are fewer; None before the first."""
        seen_by, now = _seen_by(caller), self._clock.now()
        at = seen = None
        read, more = 0, True
        while offset > 0 and more:
            if read >= ROWS_READ_MAX:
                raise InvalidRequest("to begin at this `offset` would take too long; ask from 0 on, or follow the links of a page")
            rows = await self._store.listed_datasets(after=at, before=None, limit=ROWS_COUNTED)
            for dataset in rows.items:
                document = await self._view(dataset, caller, seen_by, now)
                if document is not None and matches(document, filters):
                    seen, offset = dataset.id, offset - 1
                    if not offset:
                        break
                at = dataset.id
            read, more = read + len(rows.items), bool(rows.next)
        return seen

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


class PeerPage(Value):
    """A page of a peer's catalog, the link to the next, and what had to be left out of it, each with `id` and `reasons`."""

    catalog: dict[str, Any]
    next: str | None
    left_out: tuple[dict[str, Any], ...] = ()


class PeerCatalogs:
    """Reads the catalogs of peers, and how they see a process that we share. What is returned of a catalog has been checked: it
    is valid by the schemas of DSP 2025-1, within bounds, whatever form of JSON-LD the peer wrote it in."""

    def __init__(self, peer: Peer, identity: Identity, schemas: Schemas, expander: Expander, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._identity = identity
        self._schemas = schemas
        self._expander = expander

    async def page(self, participant: Participant, link: str | None, filters: Sequence[Any]) -> PeerPage:
        """One page of the peer's catalog. `link` is one that an earlier page gave; it has to lie at the peer's own origin. A dataset that
        is none hides no other one. Raises InvalidRequest, PeerFailed, PeerRefused with the peer's reasons."""
        base = base_of(participant)
        url = link or f"{base}/catalog/request"
        if link is not None and not _same_origin(link, base):
            raise InvalidRequest(f"the cursor `{link}` does not belong to `{participant.name}`", pointer="/after")
        message = {"@context": CONTEXT, "@type": "CatalogRequestMessage"} | ({"filter": list(filters)} if filters else {})
        reply = await self._call("POST", url, participant, orjson.dumps(message))
        document, left_out = await self._read(reply, "Catalog", participant)
        return PeerPage(document, _at_home(next_link(reply.headers.get("link", ""), url), base), left_out)

    async def dataset(self, participant: Participant, id: str) -> dict[str, Any]:
        """One dataset of the peer by id. Raises PeerFailed, PeerRefused with the peer's reasons."""
        reply = await self._call("GET", f"{base_of(participant)}/catalog/datasets/{quote(id, safe='')}", participant, None)
        return (await self._read(reply, "Dataset", participant))[0]

    async def state(self, participant: Participant, process: Process) -> str | None:
        """The state of the process at the peer (GET of DSP 2025-1), or None if it does not say. That we ask also tells it that
        we are here. Raises PeerFailed, PeerRefused."""
        part = "transfers" if process.kind is Kind.TRANSFER else "negotiations"
        url = f"{process.callback}/{part}/{quote(process.peer_pid or '', safe=PATH_CHARACTERS)}"
        state = (wire.object_of((await self._call("GET", url, participant, None)).body) or {}).get("state")
        return state if isinstance(state, str) else None

    async def _call(self, method: str, url: str, participant: Participant, body: bytes | None) -> Reply:
        headers = {
            "Authorization": await self._identity.mint(participant.id),
            "Content-Type": "application/json",
        } | telemetry.trace_header()
        reply = await self._peer.send(method, url, headers=headers, body=body, limit_bytes=CATALOG_BYTES_MAX)
        if reply.status >= 300:  # noqa: PLR2004
            code, reasons = wire.reasons_of(wire.object_of(reply.body))
            words = answers.in_words(reply.status, None, (), reply.headers.get("www-authenticate")).removeprefix(str(reply.status))
            said = "; ".join(reasons) or code or words.removeprefix(": ") or "it does not say why"
            remedy = (answers.MENDED,) if reply.status in answers.NOT_US and answers.MENDED not in said else ()
            apart = answers.by_clocks(reply.status, reply.headers.get("date"), self._clock.now())
            code = answers.CLOCKS_APART if apart else None
            text = f"`{participant.name}` refused with {reply.status}: {said}"
            raise PeerRefused(text, (*(reasons or (said,)), *remedy), reply.status, code)
        return reply

    async def _read(self, reply: Reply, type_: str, participant: Participant) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        body = reply.body
        try:
            large = len(body) > ASIDE_BYTES  # a page of 1,000 datasets takes 70 ms, and one on which each is none a second
            kept, left_out = await aside(self._compact, type_, body) if large else self._compact(type_, body)
            if kept and (not left_out or type_ == "Dataset" or "dataset" in kept):
                return kept, left_out
            try:
                return await self._expander.compact(body, type_, self._identity.own.id), ()
            except WireError:
                if not kept:
                    raise
                return kept, left_out  # a page of which nothing is left: there may be another behind it
        except WireError as e:
            raise PeerFailed(f"`{participant.name}` answered with what is no `{type_}` of DSP 2025-1: {e.message}", e.reasons) from None

    def _compact(self, type_: str, body: bytes) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """What is valid in compact form, and what had to be left out for that; nothing at all where it takes JSON-LD to know. Raises
        WireError for what is not JSON, or goes beyond the limits."""
        if _values_at_most(body) > CATALOG_SIGNS_MAX:
            raise WireError(
                f"the body has more than {CATALOG_SIGNS_MAX} commas and brackets; a page has {CATALOG_NODES_MAX} values at most"
            )
        document = wire.load(body, CATALOG_NODES_MAX)
        if not isinstance(document, dict):
            return {}, ()
        found: dict[str, Any] = {}
        # Some leave what there is none of as an empty list, which the schemas forbid and which says nothing.
        for reading in forms.readings(document, body):
            for found in (reading, dcat.without_empty(reading)):
                if self._schemas.is_valid(type_, found):
                    return found, ()
        kept, left_out = self._without_invalid(type_, found)
        return (kept, left_out) if left_out and self._schemas.is_valid(type_, kept) else ({}, ())

    def _without_invalid(self, type_: str, tidied: dict[str, Any]) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """A catalog, or a dataset, without what would make all of it invalid, and what that is. No dataset at all is left out, too."""
        is_valid, reasons = partial(self._schemas.is_valid, "Dataset"), partial(self._schemas.reasons, "Dataset")
        kept, left_out = dcat.without_invalid(tidied if type_ == "Catalog" else {"dataset": [tidied]}, is_valid, reasons)
        if type_ == "Dataset":
            return next(iter(kept["dataset"]), {}), left_out
        return kept if kept["dataset"] else {name: value for name, value in kept.items() if name != "dataset"}, left_out


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


def _at_home(link: str | None, base: str) -> str | None:
    """A link to the catalog that `base` has, at the origin where we know it: behind a proxy that ends TLS, Eclipse EDC names the scheme and
    the host by which the proxy has found it. Nothing else is ever dialled for it."""
    if link is None or _same_origin(link, base):
        return link
    path, _, query = link.partition("?")
    return f"{base}/catalog/request?{query}" if path.endswith("/catalog/request") else link


def _same_origin(url: str, base: str) -> bool:
    try:
        return origin(url) == origin(base)
    except ValueError:
        return False
