"""What an operator or a program asks of processes: begin, approve, counter, suspend, resume, complete, terminate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from connector import telemetry
from connector.control import negotiate
from connector.control.catalog import PeerCatalogs, base_of
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.policies import Document, Policies, Read
from connector.control.steps import Steps
from connector.control.terms import with_purposes
from connector.control.transfers import Transfers, begin
from connector.control_billing.performed import performance
from connector.dsp import dcat, exchange
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Contradiction, EgressDenied, InvalidRequest, NotFound, PeerFailed, PolicyError
from connector.metering.closing import instant_of, seconds_of
from connector.ports import Act, Identity, Participant
from connector.records import Agreement, Changes, Evidence, Expect, Idempotent, Usage
from connector.values import replace

ACCEPTS = ("same", "permitted", "operator")
PERFORMED_MAX = 1_000  # acts that are kept with an agreement

# What an operator's approval sends, by our role and state.
APPROVALS: dict[tuple[Role, str], Move] = {
    (Role.PROVIDER, "REQUESTED"): Move.CONTRACT_AGREEMENT,
    (Role.CONSUMER, "OFFERED"): Move.ACCEPTED,
}
COUNTERS: dict[tuple[Role, str], Move] = {
    (Role.PROVIDER, "REQUESTED"): Move.CONTRACT_OFFER,
    (Role.CONSUMER, "OFFERED"): Move.CONTRACT_REQUEST,
}


class Operations:
    """Use cases of the management API."""

    def __init__(
        self, journal: Journal, steps: Steps, policies: Policies, catalogs: PeerCatalogs, identity: Identity, transfers: Transfers
    ) -> None:
        self._journal, self._store, self._steps = journal, journal.store, steps
        self._policies, self._catalogs, self._identity = policies, catalogs, identity
        self._negotiations = negotiate.Negotiations(journal.store, policies, identity)
        self._transfers = transfers
        self.sign_closing: Callable[[Agreement], tuple[Evidence, ...]] = lambda _: ()  # what else is on record of one that we close
        self.stated: Callable[[str], Awaitable[None]] | None = None  # waits for what both sides sign of transfers that have just ended

    def participant(self, name: str) -> Participant:
        """The participant with this id or name. Raises NotFound that names those that are known."""
        found = self._identity.find(name)
        if found is None:
            known = ", ".join(f"`{p.name}`" for p in self._identity.participants()[:20]) or "none"
            raise NotFound(f"participant `{name}` is not in the registry; known are {known}; add its self-description, `connector reload`")
        return found

    async def offer_of(self, peer: Participant, dataset: str, offer: str | None, purposes: tuple[str, ...]) -> dict[str, Any]:
        """An offer of the peer for the dataset: the one named, else the first that permits our purposes, else the first."""
        offers = [dict(o) for o in (await self._catalogs.dataset(peer, dataset))["hasPolicy"]]
        if offer is not None:
            offers = [o for o in offers if o["@id"] == offer]
        if not offers:
            raise NotFound(f"`{peer.name}` has no such offer for dataset `{dataset}`")
        now, own = self._journal.clock.now(), self._identity.own
        for one in offers:
            read = await self._policies.read_aside(one)
            verdict = self._policies.decide(
                read, party=own.id, target=dataset, purposes=purposes, claims=own.claims, now=now, stage="negotiation"
            )
            if verdict.permitted:
                return one
            await asyncio.sleep(0)  # a peer may write many large offers, and others wait
        return offers[0]

    async def negotiate(
        self,
        peer: str,
        dataset: str,
        *,
        offer: str | None = None,
        policy: Mapping[str, Any] | None = None,
        purposes: tuple[str, ...] = (),
        accept: str = "permitted",
        acceptance: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        key: Idempotent | None = None,
    ) -> Process:
        """Begin a negotiation as consumer. `policy` are the terms to ask for; without them the peer's offer is fetched and
        narrowed to `purposes`. `acceptance` are the templates (or the one) beyond which nothing is sent or accepted in it.
        Returns the process, in flight, once it is durable. Raises InvalidRequest, NotFound, PolicyError."""
        base_of(participant := self.participant(peer))  # it has a connector
        if accept not in ACCEPTS:
            raise InvalidRequest(f"`accept` is `{accept}`; it is one of {', '.join(ACCEPTS)}", pointer="/accept")
        found = policy if policy is not None else await self.offer_of(participant, dataset, offer, purposes)
        id = offer or found.get("@id")
        if not id:
            raise InvalidRequest("the terms need the id of an offer: give `offer`, or `@id` in `policy`", pointer="/offer")
        if policy is not None:
            self._understood(policy)  # with its own context: the message has ours
        terms = dcat.message_offer(str(id), with_purposes(found, purposes) if policy is None else policy, dataset)
        read = self._understood(await self._policies.read_aside(terms))
        templates = (acceptance,) if isinstance(acceptance, Mapping) else tuple(acceptance)
        self._within(terms, templates, dataset)
        process = negotiate.begin(
            self._steps.ids.new(),
            participant,
            Role.CONSUMER,
            dataset,
            terms,
            accept=accept,
            purposes=purposes or self._policies.purposes(read),
            now=self._journal.clock.now(),
            acceptance=templates,
        )
        return await self._begin(process, Move.CONTRACT_REQUEST, key)

    async def offer(self, peer: str, dataset: str, offer: str, key: Idempotent | None = None) -> Process:
        """Begin a negotiation as provider, with one of our published offers."""
        participant, known = self.participant(peer), await self._store.offer(offer)
        if known is None or known.dataset != dataset:
            raise NotFound(f"offer `{offer}` of dataset `{dataset}` is not published here")
        terms = dcat.message_offer(known.id, known.policy, dataset)
        found = replace(participant, protocol=base_of(participant))
        now = self._journal.clock.now()
        process = negotiate.begin(self._steps.ids.new(), found, Role.PROVIDER, dataset, terms, accept="operator", purposes=(), now=now)
        return await self._begin(replace(process, detail=dict(process.detail) | {"offer": known.id}), Move.CONTRACT_OFFER, key)

    async def transfer(self, agreement: str, format: str, key: Idempotent | None = None) -> Process:
        """Begin a transfer as consumer under a finalized agreement."""
        if self.stated is not None:  # before anything is looked at: it may end meanwhile
            await self.stated(agreement)
        found = await self._store.agreement(agreement)
        if found is None or found.consumer != self._identity.own.id:
            raise NotFound(f"agreement `{agreement}` is not one under which we are the consumer")
        if not found.final:
            raise Contradiction(f"agreement `{agreement}` is not finalized yet")
        now = self._journal.clock.now()
        if found.closed is not None:
            raise Contradiction(f"agreement `{agreement}` was closed{_because(found)}; negotiate a new one")
        if found.ends is not None and found.ends <= now:
            raise Contradiction(f"agreement `{agreement}` has ended; negotiate a new one")
        peer = self.participant(found.peer)
        return await self._begin(begin(self._steps.ids.new(), found, base_of(peer), format, now), Move.TRANSFER_REQUEST, key)

    async def close(self, id: str, reason: str) -> Agreement:
        """Close an agreement, from either side: from the commit on it permits nothing, and what runs under it ends with this reason.
        Closing it again changes nothing. Raises NotFound, and Contradiction while it is not final: then its negotiation can end."""
        closed: Agreement | None = None

        async def step() -> Changes | None:
            nonlocal closed
            closed = before = await self._final(id)
            if before.closed is not None:
                return None
            now = seconds_of(instant_of(self._journal.clock.now()))  # what is signed has it in whole microseconds
            closed = replace(before, closed=now, closed_by="us", reason=reason, version=before.version + 1)
            said = {"agreement": id, "reasons": [reason]}
            evidence = Evidence(telemetry.CLOSED, Kind.NEGOTIATION, before.negotiation, before.peer, None, now, detail=said)
            return Changes((Expect(Agreement, id, before.version),), (closed,), evidence=(evidence, *self.sign_closing(closed)))

        await self._journal.decide(step, id)
        assert closed is not None  # noqa: S101 - `step` sets it or raises
        return closed

    async def perform(
        self, id: str, duty: str, *, action: str | None, at: float | None, by: str | None, amounts: Mapping[str, str]
    ) -> Agreement:
        """Record that a duty of an agreement was performed: `duty` is its pointer or id in the document, `action` which of its actions
        (default: its first), `at` when (POSIX seconds, default now), `by` whom (default: the consumer), `amounts` left operand -> number.
        What runs under it is decided on anew. Raises NotFound, InvalidRequest, and Contradiction while the agreement is not final."""
        kept: Agreement | None = None

        async def step() -> Changes:
            nonlocal kept
            before, now = await self._final(id), self._journal.clock.now()
            policy, by_whom = self._policies.parse(before.document), by or before.consumer
            act = performance(policy, duty, action, now if at is None else at, by_whom, amounts)
            if act["at"] > now:
                raise InvalidRequest("`at` lies ahead: what is recorded has happened", pointer="/at")
            if len(before.performed) >= PERFORMED_MAX:
                raise InvalidRequest(f"{PERFORMED_MAX} acts are recorded for this agreement, and no more are kept", pointer="/duty")
            kept = replace(before, performed=(*before.performed, act), version=before.version + 1)
            said = {"agreement": id} | act
            evidence = Evidence(telemetry.PERFORMED, Kind.NEGOTIATION, before.negotiation, before.peer, None, now, detail=said)
            return Changes((Expect(Agreement, id, before.version),), (kept,), evidence=(evidence,))

        await self._journal.decide(step, id)
        assert kept is not None  # noqa: S101 - `step` sets it or raises
        return kept

    async def _final(self, id: str) -> Agreement:
        """An agreement that counts. Until then its negotiation alone writes it, and expects of it nothing."""
        if (found := await self._store.agreement(id)) is None:
            raise NotFound(f"there is no agreement `{id}`")
        if not found.final:
            raise Contradiction(f"agreement `{id}` is not finalized yet; wait, or terminate negotiation `{found.negotiation}` instead")
        return found

    async def _begin(self, process: Process, move: Move, key: Idempotent | None) -> Process:
        """Commit the first step. The idempotency key is written with it: whoever comes second gets the first one's process."""
        begun = self._steps.changes(None, Reaction(process, Act(move)), self._journal.clock.now(), ask=False)
        earlier: str | None = None

        async def step() -> Changes | None:
            nonlocal earlier
            if key is None:
                return begun
            if (known := await self._store.idempotent(key.key)) is not None:
                earlier = known.answer.decode()
                return None
            expects = (*begun.expects, Expect(Idempotent, key.key, None))
            return replace(begun, expects=expects, saves=(*begun.saves, replace(key, answer=process.pid.encode())))

        changes = await self._journal.decide(step)
        return await self._process(process.kind, earlier) if earlier else self._saved(changes)

    async def approve(self, pid: str) -> Process:
        """Say yes where a negotiation waits for an operator. What is not on offer or not permitted any more is not agreed to:
        then the negotiation ends, with the reason on both sides."""

        async def step() -> Changes:
            now, process = self._journal.clock.now(), await self._process(Kind.NEGOTIATION, pid)
            self._ready(process, self._by(APPROVALS, process, "approve"))
            return self._steps.changes(process, await self._negotiations.approved(process, now), now, ask=False)

        return self._saved(await self._journal.decide(step, pid))

    async def counter(self, pid: str, policy: Mapping[str, Any]) -> Process:
        """Answer a request or an offer with other terms."""

        def propose(process: Process, _now: float) -> tuple[Process, Act]:
            move = self._by(COUNTERS, process, "answer with a counter-offer")
            id = str(policy.get("@id") or self._steps.ids.new())
            self._understood(policy)
            terms = dcat.message_offer(id, policy, process.dataset or "")
            self._understood(terms)
            self._within(terms, process.detail.get("acceptance", ()), process.dataset or "")
            asked = {"asked": terms} if process.role is Role.CONSUMER else {}
            return replace(process, detail=dict(process.detail) | {"terms": terms} | asked), Act(move)

        return await self._act(Kind.NEGOTIATION, pid, propose)

    async def terminate(self, kind: Kind, pid: str, reason: str, code: str = "operator") -> Process:
        """End a process; termination overrules whatever is in flight. `code` says to programs whose decision that was, or why."""
        await self._journal.settled(pid)

        async def step() -> Changes:
            process = await self._process(kind, pid)
            if process.final:
                raise Contradiction(f"{kind} `{pid}` has already ended in {process.state}")
            return self._steps.end(process, code, (reason,), self._journal.clock.now())

        return self._saved(await self._journal.decide(step, pid))

    async def suspend(self, pid: str, reason: str) -> Process:
        """Suspend a transfer that runs. One that is kept suspended until something passes is from now on the operator's to resume."""

        async def step() -> Changes | None:
            process, now = await self._process(Kind.TRANSFER, pid), self._journal.clock.now()
            if process.state != "SUSPENDED" or "held" not in process.detail:
                return None
            detail = _unheld(process) | {"code": "operator", "reasons": [reason], "ended_by": "us"}
            return self._steps.changes(process, Reaction(replace(process, detail=detail)), now, ask=False)

        if (changes := await self._journal.decide(step, pid)) is not None:
            return self._saved(changes)
        return await self._act(Kind.TRANSFER, pid, lambda p, _: (p, Act(Move.SUSPENSION, code="operator", reasons=(reason,))))

    async def resume(self, pid: str) -> Process:
        """Resume a suspended transfer, from either side. Where the peer refused our suspension there is nothing to tell it:
        access is given again, and that is all. Raises Contradiction with the reasons if it is not permitted now."""
        await self._journal.settled(pid)

        async def step() -> Changes:
            process, now = await self._process(Kind.TRANSFER, pid), self._journal.clock.now()
            told = process.halted and process.state == "STARTED" and process.in_flight is None
            if not told:
                self._ready(process, Move.START)
            reaction = await self._transfers.start(process, now)
            if reaction.act is None or reaction.act.move is not Move.START:
                reasons = reaction.act.reasons if reaction.act is not None else ()
                raise Contradiction(f"transfer `{pid}` is not permitted now: {'; '.join(reasons)}", reasons)
            if told:
                reaction = replace(reaction, process=replace(reaction.process, halted=False), act=None)
            return self._steps.changes(process, reaction, now, ask=False)

        return self._saved(await self._journal.decide(step, pid))

    async def complete(self, pid: str) -> Process:
        """Complete a transfer that runs."""
        return await self._act(Kind.TRANSFER, pid, lambda p, _: (p, Act(Move.COMPLETION)))

    async def ask(self, process: Process) -> str | None:
        """The state of a process as the peer sees it, or None if it does not say now. Whoever is asked also learns that we are
        here, and tries again at once what it has to tell us."""
        try:
            return await self._catalogs.state(self.participant(process.peer), process)
        except (NotFound, PeerFailed, EgressDenied):
            return None

    async def _act(self, kind: Kind, pid: str, propose: Any) -> Process:
        await self._journal.settled(pid)

        async def step() -> Changes:
            before, now = await self._process(kind, pid), self._journal.clock.now()
            process, act = propose(before, now)
            self._ready(process, act.move)
            rest = {k: v for k, v in _unheld(process).items() if k != "waiting"}
            return self._steps.changes(before, Reaction(replace(process, detail=rest), act), now, ask=False)

        return self._saved(await self._journal.decide(step, pid))

    async def _process(self, kind: Kind, pid: str) -> Process:
        process = await self._store.process(kind, pid)
        if process is None:
            raise NotFound(f"there is no {kind} `{pid}`")
        return process

    @staticmethod
    def _ready(process: Process, move: Move) -> None:
        """Raises Contradiction if `move` cannot be ours now."""
        if not exchange.legal(process, process.role, move):
            raise Contradiction(f"{process.kind} `{process.pid}` is in state {process.state}; `{move}` is not possible now")
        if process.in_flight:
            raise Contradiction(f"{process.kind} `{process.pid}` waits for the answer to `{process.in_flight}`; try again after it")

    @staticmethod
    def _by(table: Mapping[tuple[Role, str], Move], process: Process, verb: str) -> Move:
        move = table.get((process.role, process.state))
        if move is None:
            raise Contradiction(
                f"negotiation `{process.pid}` is in state {process.state} and we are the {process.role}; there is nothing to {verb}"
            )
        return move

    def _understood(self, terms: Document) -> Read:
        read = self._policies.read(terms)
        if isinstance(read.policy, PolicyError):
            raise read.policy
        return read

    def _within(self, terms: Mapping[str, Any], templates: Sequence[Mapping[str, Any]], dataset: str) -> None:
        """What we say in a negotiation stays within the acceptance templates that it was begun with."""
        for template in templates:
            self._understood(template)
        if not templates:
            return
        settled = self._policies.settle_any(terms, templates, own=self._identity.own.id, target=dataset)
        if settled.kind != "refines":
            raise InvalidRequest("the terms go beyond the acceptance template; narrow them, or widen it", settled.says, "/acceptance")

    @staticmethod
    def _saved(changes: Changes | None) -> Process:
        saved = next((r for r in changes.saves if isinstance(r, Process)), None) if changes else None
        if saved is None:
            raise Contradiction("nothing was changed: the process has ended or moved on meanwhile; look at it and ask again")
        return saved

    async def counters(self, agreement: Agreement) -> list[dict[str, Any]]:
        """What is counted under an agreement of ours as provider, as it stands; empty where nothing is, and where the peer counts."""
        if agreement.provider != self._identity.own.id:
            return []
        return self._policies.counters(agreement.document, await self._store.usage(agreement.id) or Usage(agreement.id))

    async def reusable(self, peer: str, dataset: str, purposes: tuple[str, ...]) -> Agreement | None:
        """A finalized agreement with the peer over the dataset that still permits these purposes, or None."""
        now, own = self._journal.clock.now(), self._identity.own
        page = await self._store.agreements(peer=peer, dataset=dataset, after=None, limit=50)
        for agreement in page.items:
            over = agreement.closed is not None or (agreement.ends is not None and agreement.ends <= now)
            if over or not agreement.final or agreement.consumer != own.id:
                continue
            read = await self._policies.read_aside(agreement.document)
            wanted = purposes or self._policies.purposes(read)
            used = self._policies.unused(read)  # the provider counts; if all is used up it will say so
            verdict = self._policies.decide(
                read, party=own.id, target=dataset, purposes=wanted, claims=own.claims, now=now, stage="transfer", used=used
            )
            if verdict.permitted:
                return agreement
        return None


def _because(agreement: Agreement) -> str:
    return f": {agreement.reason}" if agreement.reason else ""


def _unheld(process: Process) -> dict[str, Any]:
    """The detail of a process that an operator takes in hand: nothing starts it again by itself."""
    return {name: value for name, value in process.detail.items() if name not in ("held", "again")}
