"""What a transfer process asks of us: the reaction of either side to each message, and how we begin one.

Like `connector.control.negotiate`: reactions read and decide; the caller commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from connector.control.negotiate import Reaction
from connector.control.policies import Policies, Verdict
from connector.dataplane.edr import Tokens, grant_for, read_address
from connector.dsp import dcat, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Message, Move, Role
from connector.errors import EgressDenied, Refused, SourceFailed, WireError
from connector.ports import Act, Store, TransferView
from connector.records import Agreement, Edr, Outbound

FORMATS = frozenset({dcat.FORMAT_PULL})


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
                code, reasons = wire.reasons_of(document)
                return Reaction(
                    replace(process, detail=dict(process.detail) | {"code": code, "reasons": list(reasons), "ended_by": "peer"})
                )
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
        await self._demand_published(agreement)
        verdict = self.verdict(agreement, claims, now)
        kept = replace(
            process, dataset=agreement.dataset, agreement=agreement.id, detail=_keep(process, document["format"], verdict, claims)
        )
        return Reaction(kept, _act(verdict))

    async def _resumed(self, process: Process, claims: Mapping[str, Any], now: float) -> Reaction:
        """Provider: the consumer resumes. Only a start of ours can carry a fresh data address, so we send one."""
        agreement = await self._store.agreement(process.agreement or "")
        if agreement is None:
            raise Refused(f"agreement `{process.agreement}` is no longer stored", code="unknown-agreement")
        await self._demand_published(agreement)
        verdict = self.verdict(agreement, claims, now)
        return Reaction(replace(process, detail=_keep(process, process.detail["format"], verdict, claims)), _act(verdict))

    async def _demand_published(self, agreement: Agreement) -> None:
        """The agreement stays in force when its dataset is withdrawn, but there is nothing to start: say so instead of being
        silent until somebody publishes it again."""
        if await self._store.dataset(agreement.dataset) is None:
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

    def verdict(self, agreement: Agreement, claims: Mapping[str, Any], now: float) -> Verdict:
        """Whether the agreement permits its consumer the use it was made for, now."""
        return self._policies.decide(
            agreement.document,
            party=agreement.consumer,
            target=agreement.dataset,
            purposes=self._policies.purposes(agreement.document),
            claims=claims,
            now=now,
            stage="transfer",
        )


class Views:
    """Transfers as the data plane sees them, and the data address of a start."""

    def __init__(self, store: Store, tokens: Tokens) -> None:
        self._store = store
        self._tokens = tokens

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
        )

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
    return {k: v for k, v in process.detail.items() if k not in ("reasons", "code", "ended_by")} | kept


def _act(verdict: Verdict) -> Act:
    if verdict.permitted:
        return Act(Move.START)
    return Act(Move.TRANSFER_TERMINATION, code=verdict.code, reasons=verdict.reasons)
