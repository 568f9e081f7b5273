"""What a transfer process asks of us: the reaction of either side to each message, and how we begin one.

Like `connector.control.negotiate`: reactions read and decide; the caller commits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from connector.control.compose import SAID, saying
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.control.policies import Policies, Used, Verdict, measured
from connector.control.steps import Steps
from connector.dataplane.edr import Tokens, grant_for, read_address
from connector.dsp import dcat, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Message, Move, Role
from connector.dsp.transfer import State
from connector.errors import EgressDenied, Refused, SourceFailed, WireError
from connector.odrl.core import COUNT, METERED_TIME
from connector.odrl.counters import Tally
from connector.odrl.model import Number
from connector.ports import Act, Store, TransferView
from connector.records import Agreement, Changes, Dataset, Edr, Expect, Outbound, Reservation, Usage

FORMATS = frozenset({dcat.FORMAT_PULL})


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision about a use of an agreement, and what it was counted by: no `tallies` and no `usage` where nothing is counted."""

    verdict: Verdict
    tallies: tuple[Tally, ...] = ()
    usage: Usage | None = None


class Transfers:
    """The reactions of a transfer process. `check` raises EgressDenied for an address that we never dial."""

    def __init__(self, store: Store, policies: Policies, check: Callable[[str], None]) -> None:
        self._store = store
        self._policies = policies
        self._check = check

    async def react(self, process: Process, message: Message, claims: Mapping[str, Any], now: float) -> Reaction:
        """React to an accepted message; `process` is already in the state that follows it. Raises Refused if its content
        cannot be accepted; then nothing has happened."""
        document = message.document
        match message.move:
            case Move.TRANSFER_REQUEST:
                return await self._requested(process, document, claims, now)
            case Move.START if process.role is Role.CONSUMER:
                return self._started(process, document.get("dataAddress"), now)
            case Move.START:
                return await self._resumed(process, claims, now)
            case Move.SUSPENSION | Move.TRANSFER_TERMINATION:
                said = saying(process.detail, "peer", *wire.reasons_of(document), wire.grounds_of(document))
                return Reaction(replace(process, detail=said))
            case _:
                return Reaction(process)

    async def _requested(self, process: Process, document: Mapping[str, Any], claims: Mapping[str, Any], now: float) -> Reaction:
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
        dataset = await self._published(agreement)
        judged = await self.judge(process, agreement, dataset, claims, now)
        process = replace(process, dataset=agreement.dataset, agreement=agreement.id)
        return charge(replace(process, detail=_keep(process, document["format"], judged.verdict, claims)), judged, now)

    async def _resumed(self, process: Process, claims: Mapping[str, Any], now: float) -> Reaction:
        """Provider: the consumer resumes. Only a start of ours can carry a fresh data address, so we send one."""
        agreement = await self._store.agreement(process.agreement or "")
        if agreement is None:
            raise Refused(f"agreement `{process.agreement}` is no longer stored", code="unknown-agreement")
        dataset = await self._published(agreement)
        judged = await self.judge(process, agreement, dataset, claims, now)
        return charge(replace(process, detail=_keep(process, process.detail["format"], judged.verdict, claims)), judged, now)

    async def _published(self, agreement: Agreement) -> Dataset:
        """The agreement stays in force when its dataset is withdrawn, but there is nothing to start: say so instead of being
        silent until somebody publishes it again."""
        if (dataset := await self._store.dataset(agreement.dataset)) is not None:
            return dataset
        raise Refused(f"dataset `{agreement.dataset}` is not published any more; ask its provider", code="dataset-withdrawn")

    def _started(self, process: Process, address: Mapping[str, Any] | None, now: float) -> Reaction:
        """Consumer: keep the data address. A pull transfer cannot do without one (DSP 2025-1, transfer start message). One that
        we would never dial is refused now, while its sender can still do something about it."""
        if address is None:
            return Reaction(process)
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
        return Reaction(
            process, saves=(Edr(process.pid, address, read.access_token, read.refresh_token, read.refresh_endpoint, expires, now),)
        )

    async def judge(self, process: Process, agreement: Agreement, dataset: Dataset | None, claims: Mapping[str, Any], now: float) -> Judged:
        """Whether the agreement permits its consumer the use it was made for, now, by what was used up so far. A transfer that
        counts as a use already is not counted against itself."""
        document, tallies = agreement.document, self._policies.tallies(agreement.document)
        usage = (await self._store.usage(agreement.id) or Usage(agreement.id)) if tallies else None
        media_type = dataset.media_type if dataset else ""
        verdict = self._policies.decide(
            document,
            party=agreement.consumer,
            target=agreement.dataset,
            purposes=self._policies.purposes(document),
            claims=claims,
            now=now,
            stage="transfer",
            used=used_of(usage, tallies, process.detail.get("counted", ()), media_type) if usage else None,
        )
        if usage:
            counters = self._policies.counters(document, usage)
            verdict = replace(verdict, document=dict(verdict.document) | {"counters": counters})
        return Judged(verdict, tallies, usage)


def used_of(usage: Usage, tallies: tuple[Tally, ...], counted: Collection[str], media_type: str) -> Used:
    """What was used up, for a decision about using more. Uses count from the moment they are reserved, and those under the rules
    `counted` once less: they are the transfer's own. Bytes, records and time count when they are posted, as more of them has to
    be reserved anyway. What nobody here measures is not known, which denies."""
    able, used = measured(media_type), dict[str | tuple[str, str], Number]()
    for rule, operand, _ in tallies:
        if operand in able:
            own = usage.reserved(rule, operand) - (rule in counted) if operand == COUNT else 0
            least = 1 if operand == METERED_TIME else 0  # the engine adds one to what is counted in whole units, and nothing to time
            used[rule, operand] = usage.spent(rule, operand) + own + least
    return used


def charge(process: Process, judged: Judged, now: float) -> Reaction:
    """The reaction to a decision about `process`, which carries it already: a start, which counts as a use under each rule that
    it has not counted under before, or the end."""
    verdict, usage = judged.verdict, judged.usage
    if usage is None or not verdict.permitted:
        return Reaction(process, _act(verdict))
    counted = tuple(process.detail.get("counted", ()))
    new = [t.rule for t in judged.tallies if t.operand == COUNT and t.rule in verdict.charged and t.rule not in counted]
    kept = replace(process, detail=dict(process.detail) | {"charged": list(verdict.charged), "counted": [*counted, *new]})
    if not new:
        return Reaction(kept, _act(verdict))
    rows = [Reservation(process.pid, process.pid, rule, COUNT, 1, now) for rule in new]
    expects = (Expect(Usage, usage.agreement, usage.version or None),)
    return Reaction(kept, _act(verdict), (usage.reserve(rows, now),), expects)


class Marks:
    """What becomes of a transfer that has used up what its last decision let it use."""

    def __init__(self, journal: Journal, steps: Steps, transfers: Transfers) -> None:
        self._journal, self._steps, self._transfers = journal, steps, transfers

    async def reached(self, pid: str) -> tuple[Tally, ...] | None:
        """Decide anew. Where the policy permits it nevertheless (another permission, another branch of a choice), the transfer
        goes on: returns what is counted from here on. Else it ends with the decision's code and reasons on both sides, since what
        is used up never comes back under this agreement: returns None."""
        on: tuple[Tally, ...] | None = None

        async def step() -> Changes | None:
            nonlocal on
            store, now = self._journal.store, self._journal.clock.now()
            process, on = await store.process(Kind.TRANSFER, pid), None
            agreement = await store.agreement(process.agreement or "") if process else None
            if process is None or agreement is None or process.meant != State.STARTED:
                return None
            dataset, claims = await store.dataset(agreement.dataset), process.detail.get("claims", {})
            judged = await self._transfers.judge(process, agreement, dataset, claims, now)
            verdict = judged.verdict
            decided = replace(process, detail=_keep(process, process.detail["format"], verdict, claims))
            if not verdict.permitted:
                return self._steps.end(decided, verdict.code, verdict.reasons, now, verdict.grounds)
            usage = judged.usage or Usage(agreement.id)
            ahead = (t._replace(marks=tuple(mark for mark in t.marks if mark > usage.spent(t.rule, t.operand))) for t in judged.tallies)
            on = tuple(tally for tally in ahead if tally.rule in verdict.charged)
            reaction = charge(decided, judged, now)
            return self._steps.changes(process, replace(reaction, act=None), now, ask=False)

        await self._journal.decide(step, pid)
        return on


class Views:
    """Transfers as the data plane sees them, and the data address of a start."""

    def __init__(self, store: Store, tokens: Tokens, policies: Policies) -> None:
        self._store = store
        self._tokens = tokens
        self._policies = policies

    async def lookup(self, pid: str) -> TransferView | None:
        """The transfer as it is committed and as we mean it: a start of ours that has no answer yet counts, since who holds its
        token has taken it, and so does a suspension or an end."""
        process = await self._store.process(Kind.TRANSFER, pid)
        agreement = await self._store.agreement(process.agreement or "") if process else None
        dataset = await self._store.dataset(process.dataset or "") if process else None
        if process is None or agreement is None or dataset is None:
            return None
        return TransferView(
            pid=process.pid,
            role=process.role,
            state=process.meant,
            peer=process.peer,
            generation=process.detail.get("generation", 0),
            agreement=agreement.id,
            agreement_final=agreement.final,
            agreement_ends=agreement.ends,
            bound=process.detail.get("ends"),
            dataset=dataset.id,
            source=dataset.source,
            tallies=self._counted(process, agreement),
        )

    def _counted(self, process: Process, agreement: Agreement) -> tuple[Tally, ...]:
        """What is counted of this use: all that the rules look at under which it was permitted."""
        charged = process.detail.get("charged", ())
        return tuple(tally for tally in self._policies.tallies(agreement.document) if tally.rule in charged)

    async def address(self, _row: Outbound, process: Process) -> Mapping[str, Any]:
        """What a start message of ours carries beyond its pids: the data address, minted for this attempt. A consumer's
        start carries none."""
        if process.role is Role.CONSUMER:
            return {}
        view = await self.lookup(process.pid)
        if view is None:
            raise SourceFailed(f"dataset `{process.dataset}` is no longer published; terminate transfer `{process.pid}`")
        return {"dataAddress": self._tokens.data_address(grant_for(view))}


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


def _keep(process: Process, format: str, verdict: Verdict, claims: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"format": format, "decision": verdict.document, "claims": dict(claims), "ends": verdict.ends}
    return {k: v for k, v in process.detail.items() if k not in SAID} | kept


def _act(verdict: Verdict) -> Act:
    if verdict.permitted:
        return Act(Move.START)
    return Act(Move.TRANSFER_TERMINATION, code=verdict.code, reasons=verdict.reasons, grounds=verdict.grounds)
