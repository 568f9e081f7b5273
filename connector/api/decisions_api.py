"""Decisions shown, at the management listener alone: what was decided and why, what somebody would see, and who would lose by other terms.

What is here is for the eyes of the operator: it tells everything that a decision knows. What a peer is told went out with the message.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, cast

import msgspec
import orjson
from aiohttp import web

from connector.api.management_shapes import Limit, Performance, Purposed, agreement_view, answer, decode, instant, read_instant
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management.doors import Doors
from connector.control.policies import USE
from connector.control.simulate import Access, Affected, Bound, Change, Purposes, Sight, View
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import InvalidRequest, NotFound
from connector.odrl_forms.locale_forms import Language
from connector.records.verdicts import Verdict

PAGE, PAGE_MAX = 50, 500  # items on a page, unless asked, and at most
LANGUAGES = ("en", "zh")
MARK_BYTES = 6  # of a cursor: what tells it from a text that somebody made up
EXACT = ("rules", "facts")  # what of a decision only the look at one dataset shows: the rest fits a list


class Simulate(Purposed):
    """POST /v1/simulate. `as` is a participant by id or name; `claims` stand for those of the registry, or for somebody who is none yet."""

    participant: str | None = msgspec.field(name="as", default=None)
    claims: dict[str, Any] | None = None
    at: str | None = None
    action: str = USE
    dataset: str | None = None
    after: str | None = None
    limit: Limit = PAGE
    lang: Language = "en"


class OtherTerms(Purposed):
    """POST /v1/simulate/change. `policy` stands for one `offer`, or for all offers of a `dataset`."""

    policy: dict[str, Any]
    offer: str | None = None
    dataset: str | None = None
    envelope: dict[str, Any] | None = None
    at: str | None = None
    after: str | None = None
    agreements_after: str | None = None
    limit: Limit = PAGE
    lang: Language = "en"


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""
    api = _Decisions(doors, limits)
    return (
        ("GET", "/negotiations/{pid}/decision", api.decision(Kind.NEGOTIATION)),
        ("GET", "/transfers/{pid}/decision", api.decision(Kind.TRANSFER)),
        ("POST", "/simulate", api.simulate),
        ("POST", "/simulate/change", api.change),
        ("POST", "/agreements/{id}/performances", api.perform),
    )


class _Decisions:
    def __init__(self, doors: Doors, limits: Limits) -> None:
        self._d, self._limits = doors, limits

    def decision(self, kind: Kind) -> Handler:
        """The stored decision of a process in full, the terms that it judged, in plain words too, and who ended it and why."""

        async def handle(request: web.Request) -> web.Response:
            pid, language = request.match_info["pid"], request.query.get("lang", "en")
            if language not in LANGUAGES:
                raise InvalidRequest(f"`lang` is `{language[:40]}`; it is one of {', '.join(LANGUAGES)}")
            await self._d.journal.settled(pid)
            process = await self._d.store.process(kind, pid)
            if process is None:
                raise NotFound(f"there is no {kind} `{pid}`; `GET /v1/{kind}s` lists what is")
            terms = await self._d.simulation.judged(process)
            return answer(self._explained(process, terms, cast(Language, language)))

        return handle

    def _explained(self, process: Process, terms: Mapping[str, Any] | None, language: Language) -> dict[str, Any]:
        detail, identity = process.detail, self._d.identity
        names = {each.id: each.name for each in (identity.own, *identity.participants())}
        said = {name: detail.get(name) for name in ("code", "reasons")} | {"by": detail.get("ended_by")}
        refusal = said if said["by"] or said["code"] else None  # who gave no answer has refused nothing, and it is why it stands still
        plain = None if terms is None else self._d.simulation.plain(terms, language, names)
        texts = {one["path"]: one["text"] for one in plain["conditions"]} if plain is not None else {}
        ours = refusal if detail.get("ended_by") == "us" else None  # what a peer has said stays as it was said
        changes, instead = detail.get("changes", []), detail.get("instead", [])
        return {
            "kind": process.kind,
            "pid": process.pid,
            "role": process.role,
            "peer": process.peer,
            "state": process.state,
            "dataset": process.dataset,
            "agreement": process.agreement,
            "decision": detail.get("decision"),
            "terms": terms,
            "plain": plain,
            "changes": changes,
            "instead": instead,
            "refusal": None if refusal is None else refusal | {"grounds": detail.get("grounds", [])},
            "told": {} if language == "en" else self._in_chinese(detail.get("decision") or {}, ours, texts, (*changes, *instead)),
        }

    def _in_chinese(
        self, decision: Mapping[str, Any], refusal: Mapping[str, Any] | None, texts: Mapping[str, str], others: Iterable[str] = ()
    ) -> dict[str, str]:
        from connector.odrl_chinese.decisions import in_chinese  # its tables take time at start, and only who reads Chinese needs them

        return in_chinese(decision, refusal, texts, others, self._d.simulation.options)

    async def simulate(self, request: web.Request) -> web.Response:
        """The catalog as somebody would see it at an instant."""
        said: Simulate = await self._body(request, Simulate)
        caller, at = self._d.simulation.caller(said.participant, said.claims), self._at(said.at)
        page = await self._d.simulation.page(
            caller,
            at,
            purposes=said.purposes,
            action=said.action,
            after=_after(said.after, "after"),
            limit=_limit(said.limit),
            dataset=said.dataset,
        )
        who = caller.participant
        document = {
            "as": {"id": who.id, "name": who.name, "claims": caller.claims},
            "at": instant(at),
            "purposes": said.purposes,
            "items": [await self._view(view, said.lang, exact=said.dataset is not None) for view in page.items],
            "next": _cursor(page.next),
            "next_change": instant(min((view.changes for view in page.items if view.changes is not None), default=None)),
        }
        return answer(document)

    async def change(self, request: web.Request) -> web.Response:
        """Who would lose or gain by other terms."""
        said: OtherTerms = await self._body(request, OtherTerms)
        at = self._at(said.at)
        change = await self._d.simulation.change(
            said.policy,
            at,
            dataset=said.dataset,
            offer=said.offer,
            envelope=said.envelope,
            purposes=said.purposes,
            after=_after(said.after, "after"),
            agreements_after=_after(said.agreements_after, "agreements_after"),
            limit=_limit(said.limit),
        )
        replaced = zip(change.replaced, change.differences, strict=True)
        document = {
            "dataset": change.dataset.id,
            "at": instant(at),
            "tried": change.tried,
            "untried": change.purposes - len(change.tried),
            "replaced": [{"offer": offer.id, "differences": differences} for offer, differences in replaced],
            "items": [_affected(each) for each in change.affected.items],
            "next": _cursor(change.affected.next),
            "unchanged": change.unchanged,
            "agreements": {"items": [_bound(each) for each in change.agreements.items], "next": _cursor(change.agreements.next)},
        }
        return answer(document | {"told": self._told_of(change) if said.lang == "zh" else {}})

    def _told_of(self, change: Change) -> dict[str, str]:
        """What is said about other terms, in Chinese."""
        bound = change.agreements.items
        said = [text for texts in (*change.differences, *(each.differences for each in bound)) for text in texts]
        reasons = [text for each in change.affected.items for text in each.reasons]
        reasons += [text for each in bound if not each.bound.permitted for text in each.bound.document["reason"]]
        return self._in_chinese({}, {"reasons": reasons}, {}, said)

    async def perform(self, request: web.Request) -> web.Response:
        """POST /v1/agreements/{id}/performances: an act that fulfils a duty goes on record, and what runs is decided on anew."""
        said: Performance = await self._body(request, Performance)
        at = None if said.at is None else self._at(said.at)
        kept = await self._d.operations.perform(
            request.match_info["id"], said.duty, action=said.action, at=at, by=said.by, amounts=said.amounts
        )
        return answer(agreement_view(kept), 201)

    async def _view(self, view: View, language: Language, *, exact: bool) -> dict[str, Any]:
        offers = []
        for sight in view.offers:
            await asyncio.sleep(0)  # explanations of many large policies, each after its decision, and others wait
            offers.append(self._sight(sight, language, exact=exact))
        return {
            "id": view.dataset.id,
            "title": orjson.loads(view.dataset.document).get("dct:title"),
            "shown": view.shown,
            "next_change": instant(view.changes),
            "offers": offers,
        }

    def _sight(self, sight: Sight, language: Language, *, exact: bool) -> dict[str, Any]:
        """An offer: the decision of the catalog and its grounds, what a request for it would be answered, and who holds each condition,
        by its path. In another language than English also what each condition says, and sentence by sentence what is `told`."""
        plain = self._d.simulation.plain({**sight.offer.policy, "@id": sight.offer.id}, language, {}) or {"conditions": []}
        texts = {one["path"]: one["text"] for one in plain["conditions"]}
        seen = sight.decision
        decisions = [seen] if sight.asked is None else [seen, sight.asked.document]
        told = {said: zh for each in decisions for said, zh in self._in_chinese(each, None, texts).items()} if language == "zh" else {}
        return {
            "id": sight.offer.id,
            "manual": sight.offer.manual,
            "shown": sight.shown,
            "decision": _decision(seen, exact=exact),
            "grounds": sight.grounds,
            "request": None if sight.asked is None else _decision(sight.asked.document, exact=exact),
            "held": {condition["path"]: condition["held_text"] for condition in plain["conditions"]},
        } | ({"texts": texts, "told": told} if language == "zh" else {})

    async def _body(self, request: web.Request, shape: type[Any]) -> Any:
        return decode(await read_body(request, self._limits) if request.can_read_body else b"", shape)

    def _at(self, said: str | None) -> float:
        """An instant as POSIX seconds; now, if none is given."""
        if said is None:
            return self._d.journal.clock.now()
        return read_instant(said, "at")


def _cursor(place: str | None) -> str | None:
    """The place behind the last item of a page, in a form that nobody writes by hand: an id alone would take every text for a place."""
    if place is None:
        return None
    text = place.encode()
    return urlsafe_b64encode(blake2b(text, digest_size=MARK_BYTES).digest() + text).decode().rstrip("=")


def _after(said: str | None, name: str) -> str | None:
    """The place that a cursor of an earlier page stands for. Raises InvalidRequest for one that no page gave."""
    if said is None:
        return None
    try:
        read = urlsafe_b64decode(said + "=" * (-len(said) % 4))
        place = read[MARK_BYTES:].decode()
    except ValueError:
        place = ""
    if _cursor(place) != said:
        raise InvalidRequest(f"`{name}` is `{said[:40]}`, which no page gave; take it from `next`, or leave it out", pointer=f"/{name}")
    return place


def _limit(said: int) -> int:
    if not 1 <= said <= PAGE_MAX:
        raise InvalidRequest(f"`limit` is {said}; it is a whole number from 1 to {PAGE_MAX}", pointer="/limit")
    return said


def _decision(document: Mapping[str, Any], *, exact: bool) -> Mapping[str, Any]:
    return document if exact else {name: value for name, value in document.items() if name not in EXACT}


def _affected(each: Affected) -> dict[str, Any]:
    return {
        "id": each.id,
        "name": each.name,
        "known": each.known,
        "effect": each.effect,
        "before": _access(each.before),
        "after": _access(each.after),
        "reasons": each.reasons,
    }


def _access(access: Access) -> dict[str, Any]:
    """`as_offered` says that a request on the terms as they are would be permitted, `purposes` for which purposes alone one would."""
    alone: list[Purposes] = sorted(act for act in access.acts if act)
    return {"sees": access.sees, "as_offered": () in access.acts, "purposes": [purpose for (purpose,) in alone]}


def _bound(each: Bound) -> dict[str, Any]:
    """`permitted` is whether the agreement permits its use now, `bound` whether it would if the new terms were published as binding; the
    reasons are those of the first no."""
    verdict: Verdict = each.bound
    return {
        "id": each.agreement.id,
        "peer": each.agreement.peer,
        "ends": instant(each.agreement.ends),
        "transfers": each.transfers,
        "differences": each.differences,
        "permitted": each.verdict.permitted,
        "bound": verdict.permitted,
        "code": verdict.code,
        "reasons": [] if verdict.permitted else verdict.document["reason"],
    }
