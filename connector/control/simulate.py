"""What a participant would see, and who would lose or gain by other terms: this connector's own decisions, taken for somebody else, at
another instant, or under terms that nobody has published. Nothing is written and nothing is said to anybody.

There is no second truth here: what is hidden is what `Catalog.hidden` hides, and what a request is answered is what `Negotiations.answer`
says, the functions that decide when the participant really asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from connector.control.catalog import Catalog
from connector.control.negotiate import Negotiations, envelope_of
from connector.control.policies import USE, Policies
from connector.control.rights import Rights
from connector.control.terms import with_purposes
from connector.dsp import dcat
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.dsp.transfer import State
from connector.errors import InvalidRequest, NotFound, PolicyError
from connector.odrl import Decision, Options, load
from connector.odrl_forms.locale_forms import Language
from connector.odrl_forms.plain import plain
from connector.ports import Caller, Identity, Participant, Store
from connector.records import Agreement, Dataset, Offer, Page
from connector.records.verdicts import Verdict, not_understood
from connector.values import Value, replace

RUNNING = (State.STARTED, State.SUSPENDED)
TRANSFERS_READ = 200  # at once
PURPOSES_MAX = 64  # that are tried; terms that name more of them are a list of a thing, and the first stand for the others
FOREVER = float("inf")

Effect = Literal["loses", "gains", "narrower", "wider", "other", "same"]
Purposes = tuple[str, ...]  # that are declared together; (): those that the terms name


class Sight(Value):
    """One offer as a participant would meet it. `seen` is the decision of the catalog; `asked` what a request for it would be answered,
    None where the offer is hidden: then nobody may ask."""

    offer: Offer
    shown: bool
    seen: Decision | PolicyError
    asked: Verdict | None

    @property
    def decision(self) -> Mapping[str, Any]:
        """The decision of the catalog in plain JSON."""
        return not_understood(self.seen).document if isinstance(self.seen, PolicyError) else self.seen.to_json()

    @property
    def grounds(self) -> Sequence[Mapping[str, Any]]:
        """Why it is hidden or undecided, as data."""
        return not_understood(self.seen).grounds if isinstance(self.seen, PolicyError) else self.seen.grounds("full")


class View(Value):
    """One dataset with all its offers; it is in the participant's catalog if one of them is shown."""

    dataset: Dataset
    offers: tuple[Sight, ...]

    @property
    def shown(self) -> bool:
        return any(sight.shown for sight in self.offers)

    @property
    def changes(self) -> float | None:
        """The next instant (POSIX seconds) at which something of it may be decided otherwise."""
        found = [s.seen.valid_until.timestamp() for s in self.offers if isinstance(s.seen, Decision) and s.seen.valid_until is not None]
        return min(found, default=None)


class Access(Value):
    """What somebody has of a dataset: whether it stands in their catalog, and for which purposes a request would be permitted; () is a
    request on the terms of an offer as it is."""

    sees: bool
    acts: frozenset[Purposes]


class Affected(Value):
    """A participant for whom other terms would change something; `reasons` are why it would not have, or has not now, what it loses or
    gains, for the operator's eyes."""

    id: str
    name: str
    known: bool
    effect: Effect
    before: Access
    after: Access
    reasons: tuple[str, ...]


class Bound(Value):
    """An agreement over the dataset. What is published leaves it as it is, unless it is published as binding. `verdict` is whether it
    permits its use now, `bound` whether it would if it were bound by the new terms too, `differences` what those say otherwise, `transfers`
    the pids of those that run."""

    agreement: Agreement
    verdict: Verdict
    bound: Verdict
    differences: tuple[str, ...]
    transfers: tuple[str, ...]


class Change(Value):
    """What other terms would do. `replaced` are the offers that they would stand for, `differences` what they say otherwise than each,
    `tried` the purposes that were tried, of `purposes` in all."""

    dataset: Dataset
    tried: tuple[str, ...]
    purposes: int
    replaced: tuple[Offer, ...]
    differences: tuple[tuple[str, ...], ...]
    affected: Page[Affected]
    unchanged: int
    agreements: Page[Bound]


class Simulation:
    """The use cases. `catalog`, `negotiations` and `rights` are those that decide about the participants themselves."""

    def __init__(
        self, store: Store, policies: Policies, catalog: Catalog, negotiations: Negotiations, rights: Rights, identity: Identity
    ) -> None:
        self._store, self._policies, self._identity = store, policies, identity
        self._catalog, self._negotiations, self._rights = catalog, negotiations, rights

    @property
    def options(self) -> Options:
        """The profiles by which policies are read here."""
        return self._policies.options

    def caller(self, name: str | None, claims: Mapping[str, Any] | None) -> Caller:
        """Somebody who might ask: a participant of the registry by id or name, with other `claims` if they are given; with `claims` also
        an id that nobody has yet, or nobody in particular. Raises NotFound, InvalidRequest."""
        if name is None and claims is None:
            raise InvalidRequest(
                "say who: `as` with the id or name of a participant, or `claims` of somebody who is none yet", pointer="/as"
            )
        found = self._identity.find(name) if name is not None else None
        if found is None and claims is None:
            known = ", ".join(f"`{each.name}`" for each in self._identity.participants()[:20]) or "none"
            raise NotFound(f"participant `{name}` is not in the registry; known are {known}; for somebody who is none yet give `claims`")
        if found is None:
            found = Participant(name or "", name or "", "", None, (), {})
        return Caller(found, found.claims if claims is None else claims, FOREVER)

    async def page(
        self,
        caller: Caller,
        at: float,
        *,
        purposes: Purposes = (),
        action: str = USE,
        after: str | None = None,
        limit: int,
        dataset: str | None = None,
    ) -> Page[View]:
        """The catalog as the caller would see it at that instant (POSIX seconds), with what it would not see: at most `limit` datasets in
        order of their ids, or `dataset` alone. Raises NotFound for a dataset that is not published, InvalidRequest for an action that
        nobody knows."""
        self._policies.demand_action(action)
        if dataset is not None:
            found = await self._dataset(dataset)
            return Page((await self._view(found, caller, at, purposes, action),))
        rows = await self._store.datasets(after=after, before=None, limit=limit)
        views = []
        for row in rows.items:
            views.append(await self._view(row, caller, at, purposes, action))
        return Page(tuple(views), rows.next)

    async def _view(self, dataset: Dataset, caller: Caller, at: float, purposes: Purposes, action: str) -> View:
        hidden, _ = self._catalog.hidden(dataset, caller, at)
        sights = []
        for offer in dataset.offers:
            shown = offer.id not in hidden
            policy = {**offer.policy, "@id": offer.id}
            seen = self._policies.look(policy, party=caller.participant.id, target=dataset.id, claims=caller.claims, now=at)
            await asyncio.sleep(0)  # many large policies, and others wait
            asked = await self._answer(offer, caller, at, purposes, action) if shown else None
            sights.append(Sight(offer, shown, seen, asked))
        return View(dataset, tuple(sights))

    async def _answer(
        self, offer: Offer, caller: Caller, at: float, purposes: Purposes, action: str = USE, alike: Purposes = ()
    ) -> Verdict:
        """What is answered to a request for the offer as it is, or narrowed to `purposes` as our own consumer does it. Of `alike`, which
        published terms name, the first stands for each in those terms: they differ in its name alone, and are read once."""
        told = alike[:1] if len(purposes) == 1 and purposes[0] in alike else purposes
        asked = dcat.message_offer(offer.id, with_purposes(offer.policy, told), offer.dataset)
        meant = purposes if told != purposes else None
        return await self._negotiations.answer(offer, asked, caller.participant.id, caller.claims, at, action, meant)

    # ---- other terms

    async def change(
        self,
        policy: Mapping[str, Any],
        at: float,
        *,
        dataset: str | None = None,
        offer: str | None = None,
        envelope: Mapping[str, Any] | None = None,
        purposes: Purposes = (),
        after: str | None = None,
        agreements_after: str | None = None,
        limit: int,
    ) -> Change:
        """What would follow if `policy` stood for one offer, or for all offers of a dataset.

        Every participant of the registry is looked at, and everybody with an agreement; purposes are tried one by one, those that the
        terms name before or after and the given ones. `after` and `agreements_after` are cursors of earlier answers. Raises NotFound,
        InvalidRequest, and PolicyError for terms that could not be published.
        """
        found, replaced = await self._replaced(dataset, offer)
        for name, document in (("policy", policy), ("envelope", envelope)):
            if document is not None:
                await self._demand(document, name, found)
        terms = {name: value for name, value in policy.items() if name not in ("@context", "target")}
        new = replace(replaced[0], policy=terms, envelope=envelope, template=None)
        gone = {each.id for each in replaced}
        now_there = replace(found, offers=(*(each for each in found.offers if each.id not in gone), new))
        named, alike = self._named((*found.offers, new), purposes), self._named((*found.offers, new), ())
        acts = ((), *((purpose,) for purpose in named[:PURPOSES_MAX]))  # an offer as it is, and each purpose alone
        affected, unchanged = [], 0
        for caller, known in await self._everybody(found):
            if (each := await self._affected(caller, known, found, now_there, acts, at, alike)).effect == "same":
                unchanged += 1
            else:
                affected.append(each)
            await asyncio.sleep(0)
        rest = [each for each in affected if after is None or each.id > after]
        page = Page(tuple(rest[:limit]), rest[limit - 1].id if len(rest) > limit else None)
        differences = tuple([await self._policies.differences_aside(each.policy, terms) for each in replaced])
        agreements = await self._agreements(now_there, new, at, agreements_after, limit)
        return Change(found, named[:PURPOSES_MAX], len(named), replaced, differences, page, unchanged, agreements)

    async def _demand(self, policy: Mapping[str, Any], name: str, of: Dataset) -> None:
        """Raise PolicyError that points into the call for terms that `publish` would not take."""
        try:
            self._policies.demand_measured(policy, of.media_type, counted=await self._policies.counted(of))
        except PolicyError as error:
            first = next((finding for finding in error.findings if finding.severity == "error"), None)
            raise PolicyError(error.message, error.findings, f"/{name}{first.path if first else ''}") from None

    async def _replaced(self, dataset: str | None, offer: str | None) -> tuple[Dataset, tuple[Offer, ...]]:
        if dataset is None and offer is None:
            raise InvalidRequest("say which terms would change: `offer` or `dataset` with an id", pointer="/offer")
        named = await self._store.offer(offer) if offer is not None else None
        if offer is not None and (named is None or dataset not in (None, named.dataset)):
            of = f" of dataset `{dataset}`" if dataset is not None else ""
            raise NotFound(f"offer `{offer}`{of} is not published here; `GET /v1/datasets` lists what is")
        found = await self._dataset(named.dataset if named is not None else str(dataset))
        return found, (named,) if named is not None else found.offers

    async def _dataset(self, id: str) -> Dataset:
        found = await self._store.dataset(id)
        if found is None:
            raise NotFound(f"dataset `{id}` is not published here; `GET /v1/datasets` lists what is")
        return found

    def _named(self, offers: Sequence[Offer], purposes: Purposes) -> Purposes:
        """The given purposes, and all that the offers name."""
        named = (purpose for offer in offers for purpose in self._policies.purposes(offer.policy))
        return tuple(dict.fromkeys((*purposes, *named)))

    async def _everybody(self, dataset: Dataset) -> list[tuple[Caller, bool]]:
        """All participants but us, and all with an agreement over the dataset, in order of id, and whether the registry knows them."""
        own = self._identity.own.id
        found = {each.id: each for each in self._identity.participants() if each.id != own}
        known, cursor = set(found), None
        while True:
            page = await self._store.agreements(peer=None, dataset=dataset.id, after=cursor, limit=TRANSFERS_READ)
            for agreement in (each for each in page.items if each.provider == own):
                found.setdefault(agreement.peer, Participant(agreement.peer, agreement.peer, "", None, (), {}))
            if (cursor := page.next) is None:
                return [(Caller(found[id], found[id].claims, FOREVER), id in known) for id in sorted(found)]

    async def _affected(
        self, caller: Caller, known: bool, before: Dataset, after: Dataset, acts: Sequence[Purposes], at: float, alike: Purposes
    ) -> Affected:
        old, new = [await self._access(dataset, caller, acts, at, alike) for dataset in (before, after)]
        effect = _effect(old, new)
        reasons: tuple[str, ...] = ()
        if effect != "same":
            worse = effect in ("loses", "narrower", "other")
            lost = (old.acts - new.acts) if worse else (new.acts - old.acts)
            reasons = await self._reasons(after if worse else before, caller, min(lost, default=()), at)
        return Affected(caller.participant.id, caller.participant.name, known, effect, old, new, reasons)

    async def _access(self, dataset: Dataset, caller: Caller, acts: Sequence[Purposes], at: float, alike: Purposes) -> Access:
        hidden, _ = self._catalog.hidden(dataset, caller, at)
        shown = [offer for offer in dataset.offers if offer.id not in hidden]
        permitted = set()
        for act in acts:
            if any([(await self._answer(offer, caller, at, act, alike=alike)).permitted for offer in shown]):
                permitted.add(act)
            await asyncio.sleep(0)
        return Access(bool(shown), frozenset(permitted))

    async def _reasons(self, dataset: Dataset, caller: Caller, act: Purposes, at: float) -> tuple[str, ...]:
        """Why the caller does not have this act of the dataset: what its offers say, one after the other."""
        hidden, _ = self._catalog.hidden(dataset, caller, at)
        said: list[str] = []
        for offer in dataset.offers:
            if offer.id in hidden:
                policy = {**offer.policy, "@id": offer.id}
                seen = self._policies.look(policy, party=caller.participant.id, target=dataset.id, claims=caller.claims, now=at)
                said += seen.reasons if isinstance(seen, PolicyError) else seen.reason("full")
            elif not (verdict := await self._answer(offer, caller, at, act)).permitted:
                said += verdict.document["reason"]
        return tuple(dict.fromkeys(said))

    async def _agreements(self, dataset: Dataset, new: Offer, at: float, after: str | None, limit: int) -> Page[Bound]:
        """The agreements over a dataset with new terms that are in force, newest first."""
        page = await self._store.agreements(peer=None, dataset=dataset.id, after=after, limit=limit)
        own, found = self._identity.own.id, []
        running: dict[str, dict[str, list[str]]] = {}
        for agreement in page.items:
            over = agreement.closed is not None or (agreement.ends is not None and agreement.ends <= at)
            if agreement.provider != own or not agreement.final or over:
                continue
            if agreement.peer not in running:
                running[agreement.peer] = await self._running(agreement.peer)
            ruling = await self._rights.under(agreement, {}, at, at)
            claims, verdict = ruling.claims or {}, ruling.verdict
            bound = self._rights.bound(verdict, agreement, dataset, claims, at) if verdict.permitted else verdict
            differences = await self._policies.differences_aside(agreement.document, new.policy)
            found.append(Bound(agreement, verdict, bound, differences, tuple(running[agreement.peer].get(agreement.id, ()))))
            await asyncio.sleep(0)
        return Page(tuple(found), page.next)

    async def _running(self, peer: str) -> dict[str, list[str]]:
        """The transfers of a peer that run or are suspended: agreement -> pids."""
        found: dict[str, list[str]] = {}
        for state in RUNNING:
            cursor: str | None = None
            while True:
                page = await self._store.processes(Kind.TRANSFER, after=cursor, limit=TRANSFERS_READ, state=state, peer=peer)
                for process in page.items:
                    found.setdefault(process.agreement or "", []).append(process.pid)
                if (cursor := page.next) is None:
                    break
        return found

    # ---- what was decided

    def plain(self, document: Mapping[str, Any], language: Language, names: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Terms in plain words, with who holds each of their conditions; `names` are what people call participants and assets, by id. What
        is not understood is told as far as it can be; None for what cannot even be read."""
        policy = self._policies.parse(document)
        try:
            known = load(document, options=self.options, strict=False) if isinstance(policy, PolicyError) else policy
        except PolicyError:
            return None
        return plain(known, language, names=names).to_json()

    async def judged(self, process: Process) -> Mapping[str, Any] | None:
        """The document that the stored decision of a process judged: the agreement of a transfer, the terms on the table, or an offer of
        ours; the terms on the table where nothing was decided. None if it is not here any more: an offer that was withdrawn or replaced."""
        if process.kind is Kind.TRANSFER:
            agreement = await self._store.agreement(process.agreement or "")
            return agreement.document if agreement is not None else None
        terms: Mapping[str, Any] | None = process.detail.get("terms")
        judged = process.detail.get("decision", {}).get("policy_hash")
        if judged is None or process.role is Role.CONSUMER:
            return terms
        offer = await self._store.offer(process.detail.get("offer", ""))
        candidates = [process.detail.get("judged"), terms, *([] if offer is None else [envelope_of(offer)])]
        return next((each for each in candidates if each is not None and self._policies.hash_of(each) == judged), None)


def _effect(before: Access, after: Access) -> Effect:
    if before == after:
        return "same"
    if (before.sees and not after.sees) or (before.acts and not after.acts):
        return "loses"
    if (after.sees and not before.sees) or (after.acts and not before.acts):
        return "gains"
    if after.acts < before.acts:
        return "narrower"
    return "wider" if after.acts > before.acts else "other"
