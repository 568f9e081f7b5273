"""What a transfer process asks of us: the reaction of either side to each message, and how we begin one.

Like `connector.control.negotiate`: reactions read and decide; the caller commits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from connector.control.compose import SAID, saying
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.rights import WITHDRAWN, Rights, Ruling, charge, outcome, refuse
from connector.control.steps import Steps
from connector.control_billing.affording import BUDGET_SHORT, about_to_return
from connector.dataplane.edr import Tokens, grant_for, read_address
from connector.dsp import dcat, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Message, Move, Role
from connector.dsp.transfer import State
from connector.errors import EgressDenied, Refused, SourceFailed, WireError, Withdrawn
from connector.odrl import Code
from connector.odrl.counters import Tally
from connector.ports import Act, Caller, Clock, Store, TransferView
from connector.records import Agreement, Changes, Edr, Expect, Outbound, Usage
from connector.values import replace

FORMATS = frozenset({dcat.FORMAT_PULL, dcat.FORMAT_PUSH})
AWAITED_SECONDS: Final = 5.0  # that a request waits for what a transfer before it gives back
LOOK_SECONDS: Final = 0.1  # between two looks at that, as it changes with each window of any stream under the agreement
WAITING_MAX: Final = 8  # requests of one participant that wait so at once: each of them looks


class Transfers:
    """The reactions of a transfer process. `check` raises EgressDenied for an address that we never dial."""

    def __init__(self, store: Store, rights: Rights, check: Callable[[str], None]) -> None:
        self._store = store
        self._rights = rights
        self._check = check
        self._waiting: Counter[str] = Counter()  # by participant, requests that wait for what is about to be given back
        self.news: Callable[[str], asyncio.Event] | None = None  # set by the next change of what an agreement has used

    async def settled(self, document: Mapping[str, Any], caller: Caller, clock: Callable[[], float]) -> None:
        """Provider: a request is about to be decided. Where it would be denied for what another transfer that has just ended is about to
        give back, return once that is there, or after AWAITED_SECONDS. Whoever asks need not know that the other one is not settled. Of one
        participant WAITING_MAX requests wait at once; more are decided as it stands."""
        agreement, peer = await self._store.agreement(document["agreementId"]), caller.participant.id
        if self.news is None or agreement is None or agreement.peer != peer or not await self._rights.counts(agreement):
            return
        if self._waiting[peer] >= WAITING_MAX:
            return
        ends = asyncio.get_running_loop().time() + AWAITED_SECONDS
        self._waiting[peer] += 1
        try:
            while True:
                news = self.news(agreement.id)
                if not await self._denied_for_now(agreement, document["consumerPid"], caller, clock()):
                    return
                try:
                    async with asyncio.timeout_at(ends):
                        await asyncio.sleep(LOOK_SECONDS)
                        await news.wait()
                except TimeoutError:
                    return
        finally:
            self._waiting -= Counter((peer,))  # forgets who waits no more

    async def _denied_for_now(self, agreement: Agreement, starts: str, caller: Caller, now: float) -> bool:
        """Whether a request would be denied for what is about to be given back."""
        usage = await self._store.usage(agreement.id)
        if usage is None or not await about_to_return(self._store, usage, now):
            return False
        ruling = await self._rights.under(agreement, caller.claims, caller.expires, now, starts=starts)
        return ruling.verdict.code in (BUDGET_SHORT, Code.QUOTA_EXHAUSTED)

    async def react(self, process: Process, message: Message, caller: Caller, now: float) -> Reaction:
        """React to an accepted message; `process` is already in the state that follows it. Raises Refused if its content
        cannot be accepted; then nothing has happened."""
        document = message.document
        match message.move:
            case Move.TRANSFER_REQUEST:
                return await self._requested(process, document, caller, now)
            case Move.START if process.role is Role.CONSUMER:
                return self._started(process, document.get("dataAddress"), now)
            case Move.START:
                return await self._resumed(process, caller, now)
            case Move.SUSPENSION | Move.TRANSFER_TERMINATION:
                return await self._ended(process, document, now)
            case _:
                return Reaction(process)

    async def _requested(self, process: Process, document: Mapping[str, Any], caller: Caller, now: float) -> Reaction:
        """Provider: DSP 2025-1, transfer request message. A foreign agreement answers like an unknown one."""
        agreement = await self._store.agreement(document["agreementId"])
        if agreement is None or agreement.peer != process.peer or agreement.consumer != process.peer or not agreement.final:
            raise Refused(
                f"agreement `{document['agreementId']}` is not one that you may use: it is unknown, not finalized, or not with you",
                code="unknown-agreement",
            )
        if document["format"] not in FORMATS:
            offered = ", ".join(f"`{f}`" for f in sorted(FORMATS))
            raise Refused(f"format `{document['format']}` is not one of the dataset's distributions: {offered}", code="format-not-offered")
        ruling = await self._rights.under(agreement, caller.claims, caller.expires, now, starts=process.pid)
        if ruling.verdict.code == WITHDRAWN:
            # The agreement stays in force, but there is nothing to start: say so instead of being silent until it is published again.
            raise Refused(ruling.verdict.reasons[0], code=WITHDRAWN)
        sink: tuple[Edr, ...] = ()
        if document["format"] == dcat.FORMAT_PUSH:
            if ruling.dataset is not None and ruling.dataset.size_bytes is None:
                raise Refused("these data have no end, and are not pushed; ask for them as `HttpData-PULL`", code="format-not-offered")
            if (address := document.get("dataAddress")) is None:
                raise Refused("a request for push carries the `dataAddress` of the sink", code="address-missing")
            sink = (self._address(process.pid, address, now),)
        detail = dict(process.detail) | {"format": document["format"]}
        asked = replace(process, dataset=agreement.dataset, agreement=agreement.id, detail=detail)
        reaction = _answer(asked, ruling, now)
        return replace(reaction, saves=(*reaction.saves, *sink))

    async def _resumed(self, process: Process, caller: Caller, now: float) -> Reaction:
        """Provider: the consumer resumes. Only a start of ours can carry a fresh data address, so we send one. While it is refused
        for a reason that may pass, the transfer stays suspended."""
        agreement = await self._store.agreement(process.agreement or "")
        if agreement is None:
            raise Refused(f"agreement `{process.agreement}` is no longer stored", code="unknown-agreement")
        counted = process.detail.get("counted", ())
        paid = bool(process.detail.get("aside"))
        ruling = await self._rights.under(agreement, caller.claims, caller.expires, now, counted=counted, starts=process.pid, paid=paid)
        if ruling.passing:
            raise Refused("; ".join(ruling.verdict.reasons), ruling.verdict.reasons, code=ruling.verdict.code)
        return _answer(process, ruling, now)

    async def start(self, process: Process, now: float) -> Reaction:
        """A start that was put off, or is asked for by an operator, as it is decided now. Where we consume nothing is to decide."""
        ruling = await self._rights.of(process, now, more=True, starts=True)
        return Reaction(process, Act(Move.START)) if ruling is None else _answer(process, ruling, now)

    async def _ended(self, process: Process, document: Mapping[str, Any], now: float) -> Reaction:
        """The peer suspends or ends it. A provider that says so of the agreement itself is believed: nothing is to be had there."""
        code, reasons, grounds = wire.said_of(document)
        kept = replace(process, detail=saying(process.detail, "peer", code, reasons, grounds))
        closing = process.role is Role.CONSUMER and process.final and code == Code.AGREEMENT_CLOSED
        agreement = await self._store.agreement(process.agreement or "") if closing else None
        if agreement is not None and agreement.closed_by == "us":  # it has heard so from us, and knows less than we why
            why = f"the agreement was closed: {agreement.reason}" if agreement.reason else "; ".join(reasons)
            return Reaction(replace(process, detail=saying(process.detail, "us", code, (why,), grounds)))
        if agreement is None or agreement.reason is not None:
            return Reaction(kept)
        at = now if agreement.closed is None else agreement.closed  # what the peer has signed of it says when, and not why
        closed = replace(agreement, closed=at, closed_by="peer", reason="; ".join(reasons), version=agreement.version + 1)
        return Reaction(kept, saves=(closed,), expects=(Expect(Agreement, agreement.id, agreement.version),))

    def _started(self, process: Process, address: Mapping[str, Any] | None, now: float) -> Reaction:
        """Consumer: keep the data address, and no longer what was said when it was suspended, unless it is we who are saying so. A pull
        transfer cannot do without an address (DSP 2025-1, transfer start message). One that we would never dial is refused now, while its
        sender can still do something about it."""
        if process.in_flight is None and not process.halted:
            process = replace(process, detail={name: value for name, value in process.detail.items() if name not in SAID})
        return Reaction(process) if address is None else Reaction(process, saves=(self._address(process.pid, address, now),))

    def _address(self, pid: str, address: Mapping[str, Any], now: float) -> Edr:
        """A data address of the peer, to be kept. Raises WireError for one that cannot be read, Refused for one that we never dial."""
        try:
            read = read_address(address)
        except ValueError as e:
            raise WireError(f"the data address cannot be used: {e}") from e
        for name, url in (("endpoint", read.endpoint), ("refreshEndpoint", read.refresh_endpoint)):
            try:
                if url is not None:
                    self._check(url)
            except EgressDenied as e:
                said = f"the data address cannot be used, its `{name}` is not one that we dial: {e.message}"
                raise Refused(said, code="address-denied") from e
        expires = now + read.expires_seconds if read.expires_seconds is not None else None
        return Edr(pid, address, read.access_token, read.refresh_token, read.refresh_endpoint, expires, now)


class Marks:
    """What becomes of a transfer that has used up what its last decision let it use."""

    def __init__(self, journal: Journal, steps: Steps, rights: Rights) -> None:
        self._journal, self._steps, self._rights = journal, steps, rights

    async def reached(self, pid: str) -> tuple[Tally, ...] | None:
        """Decide anew. Where the policy permits it nevertheless (another permission, another branch of a choice), the transfer
        goes on: returns what is counted from here on. Else it ends with the decision's code and reasons on both sides, since what
        is used up never comes back under this agreement: returns None."""
        on: tuple[Tally, ...] | None = None

        async def step() -> Changes | None:
            nonlocal on
            now = self._journal.clock.now()
            process, on = await self._journal.store.process(Kind.TRANSFER, pid), None
            if process is None or process.meant != State.STARTED:
                return None
            ruling = await self._rights.of(process, now, more=True)
            if ruling is not None and ruling.permitted and ruling.agreement is not None:
                usage = ruling.usage or Usage(ruling.agreement.id)
                ahead = (each.beyond(usage.spent(each.rule, each.operand)) for each in ruling.tallies)
                on = tuple(tally for tally in ahead if tally.rule in ruling.verdict.charged)
            return outcome(self._steps, process, ruling, now) if ruling is not None else None

        await self._journal.decide(step, pid)
        return on


class Views:
    """Transfers as the data plane sees them, and the data address of a start. `refused` is told the pid of a transfer that is
    refused although nobody has taken its access away yet."""

    def __init__(self, store: Store, rights: Rights, tokens: Tokens, clock: Clock, refused: Callable[[str], None]) -> None:
        self._store = store
        self._rights = rights
        self._tokens = tokens
        self._clock = clock
        self._refused = refused

    async def lookup(self, pid: str) -> TransferView | None:
        """The transfer as it is committed and as we mean it: a start of ours that has no answer yet counts, since who holds its
        token has taken it, and so does a suspension or an end. Whether it may be read is decided anew, so nothing is served on what
        held once, least of all after a start."""
        process = await self._store.process(Kind.TRANSFER, pid)
        return await self._view(process) if process else None

    async def demands(self, pid: str) -> frozenset[str] | None:
        """What the agreement of a transfer demands of a stream, also once it is over or the dataset withdrawn; None if there is no such
        transfer or agreement."""
        process = await self._store.process(Kind.TRANSFER, pid)
        agreement = await self._store.agreement(process.agreement or "") if process else None
        return await self._rights.demanded(agreement) if agreement else None

    async def _view(self, process: Process) -> TransferView | None:
        ruling = await self._rights.of(process, self._clock.now())
        if ruling is None or (agreement := ruling.agreement) is None:
            return None
        dataset = ruling.dataset or await self._store.dataset(process.dataset or "")
        if dataset is None:
            return None
        if not ruling.permitted and process.meant == State.STARTED:
            self._refused(process.pid)
        charged = process.detail.get("charged", ())
        return TransferView(
            pid=process.pid,
            role=process.role,
            state=process.meant,
            peer=process.peer,
            generation=process.detail.get("generation", 0),
            agreement=agreement.id,
            agreement_final=agreement.final,
            agreement_ends=agreement.ends,
            bound=ruling.ends,
            dataset=dataset.id,
            source=dataset.source,
            tallies=tuple(tally for tally in ruling.tallies if tally.rule in charged),  # all that its rules look at
            withheld=None if ruling.permitted else ruling.verdict.code,
            proven_until=ruling.expires,
            counted_until=ruling.looks,
            demands=await self._rights.demanded(agreement),
        )

    async def address(self, row: Outbound, process: Process) -> Mapping[str, Any]:
        """What a start message of ours carries beyond its pids: the data address, minted for this attempt; of a transfer that is pushed
        it is the consumer's request that carries one. A consumer's start carries none."""
        push = process.detail.get("format") == dcat.FORMAT_PUSH
        if process.role is Role.CONSUMER:
            agreement = await self._store.agreement(process.agreement or "")
            if not push or row.move is not Move.TRANSFER_REQUEST or agreement is None:
                return {}
            return {"dataAddress": self._tokens.sink_address(process.pid, process.peer, agreement.id, agreement.dataset, agreement.ends)}
        view = await self._view(process)
        if view is None:
            raise SourceFailed(f"dataset `{process.dataset}` is no longer published; the start waits until it is, or is terminated")
        if view.withheld is not None:  # it goes out when it is given back, or never
            raise Withdrawn(f"the start is held back: {view.withheld}", view.withheld)
        return {} if push else {"dataAddress": self._tokens.data_address(grant_for(view))}


def begin(pid: str, agreement: Agreement, callback: str, format: str, now: float) -> Process:
    """A transfer of ours, as consumer, before its first message."""
    return Process(
        Kind.TRANSFER,
        pid,
        Role.CONSUMER,
        agreement.peer,
        callback,
        dataset=agreement.dataset,
        agreement=agreement.id,
        detail={"format": format},
        created=now,
        updated=now,
    )


def _answer(process: Process, ruling: Ruling, now: float) -> Reaction:
    """Start, or end with the reason."""
    detail = {name: value for name, value in ruling.kept(process, now).items() if name not in (*SAID, "held", "again")}
    decided = replace(process, detail=detail)
    if not ruling.permitted:
        return Reaction(decided, refuse(Move.TRANSFER_TERMINATION, ruling))
    return replace(charge(decided, ruling, now), act=Act(Move.START))
