"""What a contract negotiation asks of us: the reaction of either side to each message, and how we begin one.

Reactions read and decide; they write nothing and send nothing. What they return is committed by the caller together with
the message that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connector.control.compose import agreement_of, faults, saying
from connector.control.policies import PERMITS, USE, Document, Policies
from connector.control.terms import Settlement
from connector.dsp import dcat, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Message, Move, Role
from connector.dsp.negotiation import State
from connector.errors import NotFound, PolicyError, Refused, UnknownOffer
from connector.odrl import Code
from connector.odrl.vocabulary import compact
from connector.ports import Act, Caller, Identity, Participant, Store
from connector.records import Agreement, Dataset, Expect, Offer, Record
from connector.records.verdicts import Verdict, not_understood
from connector.values import Value, replace

APPROVAL = "approval"


class Reaction(Value):
    """The process with what we keep of the message, what we propose to do, and what else is saved with it."""

    process: Process
    act: Act | None = None
    saves: tuple[Record, ...] = ()
    expects: tuple[Expect, ...] = ()


class Negotiations:
    """The reactions of a negotiation."""

    def __init__(self, store: Store, policies: Policies, identity: Identity) -> None:
        self._store = store
        self._policies = policies
        self._identity = identity
        self._own = identity.own.id

    async def react(self, process: Process, message: Message, caller: Caller, now: float) -> Reaction:
        """React to an accepted message; `process` is already in the state that follows it. Raises Refused if its content
        cannot be accepted; then nothing has happened."""
        document, claims = message.document, caller.claims
        match message.move:
            case Move.CONTRACT_REQUEST:
                return await self._requested(process, document["offer"], claims, now)
            case Move.CONTRACT_OFFER:
                return await self._offered(process, document["offer"], now)
            case Move.ACCEPTED:
                return await self.agree(process, claims, now)
            case Move.CONTRACT_AGREEMENT:
                return await self._agreed(process, document["agreement"], now)
            case Move.VERIFICATION:
                return await self._verified(process)
            case Move.FINALIZED:
                return await self._finalized(process)
            case _:
                return self._terminated(process, document)

    async def _requested(self, process: Process, terms: Mapping[str, Any], claims: Mapping[str, Any], now: float) -> Reaction:
        """Provider: the consumer states the terms it would accept (DSP 2025-1, contract request message)."""
        read = self._policies.read(terms)
        self._policies.admit(read)
        offer = await self._store.offer(terms["@id"])
        if offer is None and process.detail.get("offer"):  # a counter-request may carry an offer of the consumer's own making
            offer = await self._store.offer(process.detail["offer"])
        if offer is None or not self.visible(offer, process.peer, claims, now):
            raise UnknownOffer(f"offer `{terms['@id']}` is not on offer to you: it is unknown, withdrawn, lapsed or meant for others")
        target = terms.get("target", offer.dataset)
        if target != offer.dataset or (process.dataset and process.dataset != offer.dataset):
            raise UnknownOffer(f"offer `{terms['@id']}` belongs to dataset `{offer.dataset}`, not to `{target}`")
        asked = read if "target" in terms else await self._policies.read_aside(dict(terms) | {"target": offer.dataset})
        envelope = await self._policies.read_aside(envelope_of(offer))
        settled = self._policies.settle(asked, envelope, party=process.peer, target=offer.dataset)
        verdict = await self._answer(offer, envelope, asked, process.peer, claims, now)
        if not verdict.permitted and settled.common is not None:
            # They ask for something that nobody may have, beside something that they may: what both have in common is decided on.
            common = await self._answer(offer, envelope, settled.common, process.peer, claims, now)
            verdict = common if common.permitted else verdict
        detail = self._keep(process, asked.document, verdict, claims) | {"offer": offer.id, "offered": self._policies.hash_of(envelope)}
        if settled.says or not verdict.permitted:
            detail |= {"changes": list(settled.says), "judged": envelope.document}
        kept = replace(process, dataset=offer.dataset, detail=detail)
        if not verdict.permitted:
            return Reaction(kept, _refuse(Move.CONTRACT_TERMINATION, verdict))
        if offer.manual:
            return _wait(kept)
        if (why := await self._used_up(offer, envelope, process.peer, now)) is not None:
            return _wait(replace(kept, detail=detail | {"changes": [why, *settled.says]}))
        match settled.kind:
            case "refines":
                if (expects := await self._on_offer(offer)) is None:
                    return await self._requested(process, terms, claims, now)
                return Reaction(kept, Act(Move.CONTRACT_AGREEMENT), expects=expects)
            case "disjoint":
                return Reaction(kept, Act(Move.CONTRACT_TERMINATION, code="terms-disjoint", reasons=settled.says))
            case "overlaps" if offer.counter == "auto-counter" and settled.common is not None:
                counter = dcat.message_offer(offer.id, settled.common, offer.dataset)
                return Reaction(
                    replace(kept, detail=detail | {"terms": counter, "instead": list(settled.instead)}), Act(Move.CONTRACT_OFFER)
                )
        return _wait(kept)

    async def answer(
        self,
        offer: Offer,
        asked: Document,
        peer: str,
        claims: Mapping[str, Any],
        now: float,
        action: str = USE,
        purposes: tuple[str, ...] | None = None,
    ) -> Verdict:
        """Provider: whether an offer of ours permits the peer what it asks for, whatever else its terms say. `purposes` stand for those
        that the terms name."""
        return await self._answer(offer, envelope_of(offer), asked, peer, claims, now, action, purposes)

    async def _answer(
        self,
        offer: Offer,
        envelope: Document,
        asked: Document,
        peer: str,
        claims: Mapping[str, Any],
        now: float,
        action: str = USE,
        purposes: tuple[str, ...] | None = None,
    ) -> Verdict:
        asked = self._policies.read(asked)
        return await self._unmeasured(asked, offer) or self._decide(envelope, peer, offer.dataset, asked, claims, now, action, purposes)

    async def _used_up(self, offer: Offer, envelope: Document, peer: str, now: float) -> str | None:
        """Provider: why a person decides on another agreement from an offer with a quota: the peer has used one up. Each has a quota of its
        own, so that a yes to each would be a yes to any amount. One whose negotiation is not stored any more counts."""
        if not self._policies.tallies(envelope):
            return None
        after: str | None = None
        while True:
            page = await self._store.agreements(peer=peer, dataset=offer.dataset, after=after, limit=200)
            for agreement in page.items:
                over = agreement.closed is not None or (agreement.ends is not None and agreement.ends <= now)
                if over or not agreement.final or agreement.consumer != peer:
                    continue
                made = await self._store.process(Kind.NEGOTIATION, agreement.negotiation)
                usage = await self._store.usage(agreement.id)
                if usage is None or (made is not None and made.detail.get("offer", offer.id) != offer.id):
                    continue
                read = await self._policies.read_aside(agreement.document)
                full = await self._policies.used_up(read, usage, await self._store.dataset(offer.dataset))
                if full:
                    what = " and ".join(f"`{compact(operand)}`" for operand in full)
                    return f"agreement `{agreement.id}` from this offer is used up ({what}), and another has a quota of its own"
            if (after := page.next) is None:
                return None

    async def agree(self, process: Process, claims: Mapping[str, Any], now: float) -> Reaction:
        """Provider: make the agreement over the terms on the table. They were decided on when they came or went, which may be
        days ago: an offer that has been withdrawn since, or that permits it no more, ends the negotiation with the reason."""
        terms, id = process.detail["terms"], process.detail.get("offer")
        offer = await self._store.offer(id or "")
        if offer is None or offer.dataset != process.dataset:
            reason = f"offer `{id}` of dataset `{process.dataset}` is not on offer any more: it was withdrawn or replaced"
            return Reaction(_decided(process), Act(Move.CONTRACT_TERMINATION, code="offer-withdrawn", reasons=(reason,)))
        # In ACCEPTED the last word on the terms was ours, and an operator may have said more than is published. If something else is
        # published by now, under the same id, nobody has said that word of it.
        envelope, said = envelope_of(offer), process.detail.get("offered")
        replaced = process.state == State.ACCEPTED and said is not None and said != self._policies.hash_of(envelope)
        if replaced and not self._still(process, terms, offer, claims, now):
            reason = f"offer `{id}` of dataset `{process.dataset}` says something else by now, and these terms do not lie within it"
            return Reaction(_decided(process), Act(Move.CONTRACT_TERMINATION, code="offer-withdrawn", reasons=(reason,)))
        asked = await self._policies.read_aside(terms)
        policies = (asked, await self._policies.read_aside(envelope)) if process.state == State.REQUESTED else (asked,)
        unable = await self._unmeasured(asked, offer)
        verdicts = [unable or self._decide(policy, process.peer, offer.dataset, asked, claims, now) for policy in policies]
        verdict = next((each for each in verdicts if not each.permitted), verdicts[-1])
        # The agreement ends when its own terms do: an operator may have agreed to more than is on offer.
        kept = replace(process, detail=self._keep(process, terms, verdict, claims) | {"ends": verdicts[0].ends})
        if not verdict.permitted:
            return Reaction(kept, _refuse(Move.CONTRACT_TERMINATION, verdict))
        if (expects := await self._on_offer(offer)) is None:
            return await self.agree(process, claims, now)
        return Reaction(kept, Act(Move.CONTRACT_AGREEMENT), expects=expects)

    async def _on_offer(self, offer: Offer) -> tuple[Expect, ...] | None:
        """An agreement is written only while its offer is as it was read: it may be withdrawn or replaced between our reading and the
        write. None if it is already: then it is decided anew."""
        dataset = await self._store.dataset(offer.dataset)
        return None if dataset is None or offer not in dataset.offers else (Expect(Dataset, dataset.id, dataset.version),)

    def _still(self, process: Process, terms: Mapping[str, Any], offer: Offer, claims: Mapping[str, Any], now: float) -> bool:
        """Whether an offer that was replaced since still lets these terms through."""
        settled = self._policies.settle(terms, envelope_of(offer), party=process.peer, target=offer.dataset)
        return settled.kind == "refines" and self.visible(offer, process.peer, claims, now)

    async def agree_now(self, process: Process, now: float) -> Reaction:
        """`agree` by what is known now of the consumer, who may have spoken days ago."""
        detail = process.detail
        caller = self._identity.standing(process.peer, detail.get("claims", {}), detail.get("claims_expire", now))
        if caller is None:
            reason = f"nobody vouches for `{process.peer}` any more: it has left the data space, or has no valid key"
            return Reaction(_decided(process), Act(Move.CONTRACT_TERMINATION, code=Code.CREDENTIAL_REVOKED, reasons=(reason,)))
        return await self.agree(process, caller.claims, now)

    async def approved(self, process: Process, now: float) -> Reaction:
        """An operator says yes to what it has read. If that was permitted and is not any more, the negotiation ends with the
        reason; terms that were not permitted when they came are the operator's to accept, those that nobody here understands are not."""
        detail = process.detail
        if process.role is Role.PROVIDER:
            return await self.agree_now(process, now)
        if isinstance(unknown := self._policies.parse(detail["terms"]), PolicyError):
            raise unknown
        purposes = tuple(detail.get("purposes", ()))
        verdict = self._policies.decide(
            detail["terms"], party=self._own, target=process.dataset or "", purposes=purposes, claims={}, now=now, stage="negotiation"
        )
        settled = self._settled(process, detail["terms"])
        if settled.kind != "refines":
            reasons = ("these terms go beyond the acceptance template that this negotiation was begun with", *settled.says)
            raise Refused(f"{reasons[0]}; terminate it, or begin another with a wider template", reasons, code="beyond-acceptance")
        if not verdict.permitted and detail.get("decision", {}).get("result") in PERMITS:
            return Reaction(_decided(process), _refuse(Move.CONTRACT_TERMINATION, verdict))
        return Reaction(_decided(process), Act(Move.ACCEPTED))

    def _settled(self, process: Process, terms: Mapping[str, Any]) -> Settlement:
        """How the peer's terms relate to the acceptance templates of this negotiation, if it has any."""
        templates = process.detail.get("acceptance", ())
        if not templates:
            return Settlement("refines")
        return self._policies.settle_any(terms, templates, own=self._own, target=process.dataset or "")

    async def _offered(self, process: Process, terms: Mapping[str, Any], now: float) -> Reaction:
        """Consumer: the provider offers terms. They are accepted if they are what we asked for, or if they still permit
        what we want and we said that this is enough; everything else is an operator's to decide, and so is a duty that we did
        not ask for, and more to pay for. What goes beyond our acceptance templates is never accepted: what has nothing in common
        with any of them ends the negotiation, saying why."""
        self._policies.admit(terms)
        wanted, accept = process.detail.get("asked"), process.detail.get("accept", "operator")
        purposes = tuple(process.detail.get("purposes", ()))
        verdict = self._policies.decide(
            terms, party=self._own, target=terms["target"], purposes=purposes, claims={}, now=now, stage="negotiation"
        )
        kept = replace(process, dataset=process.dataset or terms["target"], detail=self._keep(process, terms, verdict, {}))
        if kept.dataset != terms["target"]:
            reason = f"the offer is for dataset `{terms['target']}`, the negotiation for `{kept.dataset}`"
            return Reaction(kept, Act(Move.CONTRACT_TERMINATION, code="wrong-dataset", reasons=(reason,)))
        settled = self._settled(kept, terms)
        if settled.kind == "disjoint":
            return Reaction(kept, Act(Move.CONTRACT_TERMINATION, code="terms-disjoint", reasons=settled.says))
        same = wanted is not None and self._policies.same(wanted, terms)
        more: tuple[str, ...] = ()
        if wanted is not None and not same:
            more = self._policies.burdens(terms, wanted, own=self._own, target=terms["target"])
            changes = dict.fromkeys((*await self._policies.differences_aside(wanted, terms), *more))
            kept = replace(kept, detail=dict(kept.detail) | {"changes": list(changes)})
        if settled.kind != "refines":
            return _wait(kept)
        if process.detail.get("acceptance"):
            more = ()  # then the templates say which duties we take on
        if accept == "operator" or more or not (same or (accept == "permitted" and verdict.permitted)):
            return _wait(kept)
        return Reaction(kept, Act(Move.ACCEPTED))

    async def _agreed(self, process: Process, document: Mapping[str, Any], now: float) -> Reaction:
        """Consumer: the agreement must be what is on the table, or more, between the two of us, with all that the text demands."""
        read = self._policies.read(document)
        if found := await faults(process, read, self._policies, self._own, now):
            return Reaction(process, Act(Move.CONTRACT_TERMINATION, code="agreement-incorrect", reasons=found))
        verdict = self._policies.decide(
            read,
            party=self._own,
            target=document["target"],
            purposes=self._policies.purposes(read),
            claims={},
            now=now,
            stage="transfer",
            used=self._policies.unused(read),
        )
        agreement = agreement_of(document, process, now, verdict.ends)
        detail = dict(process.detail) | {"decision": verdict.document}
        if not self._policies.same(process.detail["terms"], read):  # then whoever looks is told what was agreed otherwise than asked for
            detail["changes"] = list(await self._policies.differences_aside(process.detail["terms"], read))
        kept = replace(process, agreement=agreement.id, detail=detail)
        return Reaction(kept, Act(Move.VERIFICATION), (agreement,), (Expect(Agreement, agreement.id, None),))

    async def _verified(self, process: Process) -> Reaction:
        """Provider: the agreement counts from the moment we say so; the consumer may use it before it has answered us."""
        agreement = await self._agreement(process)
        return Reaction(process, Act(Move.FINALIZED), (replace(agreement, final=True),))

    async def _finalized(self, process: Process) -> Reaction:
        agreement = await self._agreement(process)
        return Reaction(process, saves=(replace(agreement, final=True),))

    async def _agreement(self, process: Process) -> Agreement:
        agreement = await self._store.agreement(process.agreement or "")
        if agreement is None:
            raise NotFound(f"agreement `{process.agreement}` of negotiation `{process.pid}` is not stored")
        return agreement

    def _terminated(self, process: Process, document: Mapping[str, Any]) -> Reaction:
        detail = {k: v for k, v in process.detail.items() if k != "waiting"}
        return Reaction(replace(process, detail=saying(detail, "peer", *wire.said_of(document))))

    def visible(self, offer: Offer, peer: str, claims: Mapping[str, Any], now: float) -> bool:
        """Whether a catalog shows this offer to that participant: everything but a definite no is shown."""
        return self._policies.shows(offer.policy, party=peer, target=offer.dataset, claims=claims, now=now)[0]

    async def _unmeasured(self, terms: Document, offer: Offer) -> Verdict | None:
        """The denial of terms that count what nobody here measures of this data: an agreement on them would permit nothing."""
        if not self._policies.counts(terms):
            return None
        dataset = await self._store.dataset(offer.dataset)
        try:
            counted = dataset is not None and await self._policies.counted(dataset)
            self._policies.demand_measured(terms, dataset.media_type if dataset else "", counted=counted)
        except PolicyError as error:
            return not_understood(error)
        return None

    def _decide(
        self,
        policy: Document,
        peer: str,
        dataset: str,
        terms: Document,
        claims: Mapping[str, Any],
        now: float,
        action: str = USE,
        purposes: tuple[str, ...] | None = None,
    ) -> Verdict:
        asked = self._policies.read(terms)
        if isinstance(asked.policy, PolicyError):
            return not_understood(asked.policy)
        purposes = self._policies.purposes(asked) if purposes is None else purposes
        return self._policies.decide(
            policy, party=peer, target=dataset, purposes=purposes, claims=claims, now=now, stage="negotiation", action=action
        )

    @staticmethod
    def _keep(process: Process, terms: Mapping[str, Any], verdict: Verdict, claims: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored with the state: the terms on the table, the decision, and the claims it was taken on."""
        rest = {k: v for k, v in process.detail.items() if k != "waiting"}
        return rest | {"terms": terms, "decision": verdict.document, "claims": dict(claims), "ends": verdict.ends}


def begin(
    pid: str,
    peer: Participant,
    role: Role,
    dataset: str,
    terms: Mapping[str, Any],
    *,
    accept: str,
    purposes: tuple[str, ...],
    now: float,
    acceptance: Sequence[Mapping[str, Any]] = (),
) -> Process:
    """A negotiation of ours before its first message. `accept` says which offers we take without an operator: `same`
    (only what we asked for), `permitted` (whatever still permits `purposes`), or `operator` (none); `acceptance` are the
    templates beyond which none is ever taken."""
    detail: dict[str, Any] = {"terms": terms, "asked": terms, "accept": accept, "purposes": list(purposes)}
    if acceptance:
        detail["acceptance"] = [dict(template) for template in acceptance]
    return Process(Kind.NEGOTIATION, pid, role, peer.id, peer.protocol or "", dataset=dataset, detail=detail, created=now, updated=now)


def _decided(process: Process) -> Process:
    """The process, waiting for an operator no longer."""
    return replace(process, detail={k: v for k, v in process.detail.items() if k != "waiting"})


def envelope_of(offer: Offer) -> dict[str, Any]:
    """The widest terms of an offer that nobody has to be asked about. A refusal says which offer it is about, also where its policy
    has no id."""
    return {**(offer.policy if offer.envelope is None else offer.envelope), "@id": offer.id}


def _wait(process: Process) -> Reaction:
    return Reaction(replace(process, detail=dict(process.detail) | {"waiting": APPROVAL}))


def _refuse(move: Move, verdict: Verdict) -> Act:
    return Act(move, code=verdict.code, reasons=verdict.reasons, grounds=verdict.grounds)
