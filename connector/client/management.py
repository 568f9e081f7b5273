"""The client of a connector's own management API: one call, one method; used by the command line and by programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import msgspec

from connector.client.billing import Billing
from connector.client.transport import ManagementError, Transport, new_key
from connector.client.views import (
    OVER,
    Agreement,
    AgreementUsage,
    CatalogDataset,
    CatalogPage,
    Dataset,
    DeadLetter,
    Document,
    Drafted,
    Edr,
    Event,
    Explained,
    Ledgers,
    Negotiation,
    OtherTerms,
    Own,
    Page,
    Participant,
    Pull,
    Reloaded,
    Simulated,
    Template,
    Transfer,
)

__all__ = ["ManagementClient", "ManagementError"]

T = TypeVar("T")
WAIT_SECONDS = 30.0  # how long a wait is held open unless said otherwise


class ManagementClient(Billing):
    """Speaks to one connector; an asynchronous context manager. Every method raises ManagementError.

    `url` is the base of the management listener, `token` the admin token, `tls` what to trust if the URL is https
    (default: the system's authorities). Calls that begin something carry an idempotency key, one of their own unless given.
    """

    def __init__(self, url: str, token: str, *, tls: SSLContext | None = None) -> None:
        self._opening = (url, token, tls)
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        self._transport = Transport(*self._opening)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    # who and what

    async def own(self) -> Own:
        """The connector itself."""
        return await self._call("GET", "/v1/self", Own)

    async def participants(self) -> tuple[Participant, ...]:
        """All participants of the registry."""
        return (await self._call("GET", "/v1/participants", Page[Participant])).items

    async def reload(self) -> tuple[str, ...]:
        """Read registry and settings again; returns what changed."""
        return (await self._call("POST", "/v1/reload", Reloaded, {})).changed

    async def ledger(self) -> Ledgers:
        """The logs of the connector, who has cosigned them, and what it has witnessed."""
        return await self._call("GET", "/v1/ledger", Ledgers)

    async def ledger_tile(self, path: str, origin: str) -> bytes:
        """A tile of hashes or a bundle of entries of the log `origin`, by its path in C2SP tlog-tiles."""
        return await self._open.call("GET", f"/v1/ledger/{path}", query={"origin": origin})

    # datasets and catalogs

    async def publish(self, id: str, dataset: Mapping[str, Any]) -> Dataset:
        """Publish or replace the dataset `id`: title, source, policies and so on, as the API takes them."""
        return await self._call("PUT", f"/v1/datasets/{_part(id)}", Dataset, dataset)

    async def datasets(self, *, after: str | None = None, limit: int | None = None) -> Page[Dataset]:
        """A page of the published datasets, in order of their ids."""
        return await self._call("GET", "/v1/datasets", Page[Dataset], query={"after": after, "limit": limit})

    async def dataset(self, id: str) -> Dataset:
        """One published dataset."""
        return await self._call("GET", f"/v1/datasets/{_part(id)}", Dataset)

    async def withdraw(self, id: str) -> None:
        """Take a dataset out of the catalog."""
        await self._open.call("DELETE", f"/v1/datasets/{_part(id)}")

    async def catalog(self, peer: str, *, after: str | None = None, filter: Sequence[Any] = ()) -> CatalogPage:
        """A page of the catalog of `peer` (id or name)."""
        return await self._call("POST", "/v1/catalog", CatalogPage, _given(peer=peer, after=after, filter=list(filter) or None))

    async def catalog_dataset(self, peer: str, dataset: str) -> Document:
        """One dataset of the catalog of `peer`."""
        return (await self._call("POST", "/v1/catalog/dataset", CatalogDataset, {"peer": peer, "dataset": dataset})).dataset

    # negotiations and agreements

    async def negotiate(
        self,
        peer: str,
        dataset: str,
        *,
        offer: str | None = None,
        policy: Document | None = None,
        purposes: Sequence[str] = (),
        accept: Literal["same", "permitted", "operator"] | None = None,
        acceptance: Sequence[Document] = (),
        key: str | None = None,
    ) -> Negotiation:
        """Request a contract for `dataset`; by default on exactly the terms of the peer's offer. Nothing is sent or accepted beyond all of
        `acceptance`. Equal `key`, same call."""
        limits = acceptance[0] if len(acceptance) == 1 else list(acceptance) or None
        more = _given(offer=offer, policy=policy, purposes=list(purposes) or None, accept=accept, acceptance=limits)
        body = {"peer": peer, "dataset": dataset} | more
        return await self._call("POST", "/v1/negotiations", Negotiation, body, key=key or new_key())

    async def offer(self, peer: str, dataset: str, offer: str, *, key: str | None = None) -> Negotiation:
        """Send an offer of ours to `peer` without having been asked. Equal `key`, same call."""
        body = {"peer": peer, "dataset": dataset, "offer": offer}
        return await self._call("POST", "/v1/negotiations/offers", Negotiation, body, key=key or new_key())

    async def negotiations(
        self, *, state: str | None = None, peer: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Page[Negotiation]:
        """A page of the negotiations, newest first."""
        query = {"state": state, "peer": peer, "after": after, "limit": limit}
        return await self._call("GET", "/v1/negotiations", Page[Negotiation], query=query)

    async def negotiation(self, pid: str, *, wait: Literal["final"] | None = None, timeout_seconds: float = WAIT_SECONDS) -> Negotiation:
        """One negotiation; with `wait` once it is final or waits for an operator, or as it stands when the time is over."""
        return await self._process("negotiations", pid, Negotiation, wait, timeout_seconds)

    async def approve(self, pid: str) -> Negotiation:
        """Agree to what the peer has asked for (provider) or offered (consumer)."""
        return await self._call("POST", f"/v1/negotiations/{_part(pid)}/approve", Negotiation, {})

    async def counter(self, pid: str, policy: Document) -> Negotiation:
        """Answer with other terms."""
        return await self._call("POST", f"/v1/negotiations/{_part(pid)}/counter", Negotiation, {"policy": policy})

    async def terminate_negotiation(self, pid: str, reason: str | None = None) -> Negotiation:
        """End a negotiation; the peer is told `reason`."""
        return await self._call("POST", f"/v1/negotiations/{_part(pid)}/terminate", Negotiation, _given(reason=reason))

    async def agreements(
        self, *, peer: str | None = None, dataset: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Page[Agreement]:
        """A page of the agreements, newest first."""
        query = {"peer": peer, "dataset": dataset, "after": after, "limit": limit}
        return await self._call("GET", "/v1/agreements", Page[Agreement], query=query)

    async def agreement(self, id: str) -> Agreement:
        """One agreement."""
        return await self._call("GET", f"/v1/agreements/{_part(id)}", Agreement)

    async def close_agreement(self, id: str, reason: str | None = None) -> Agreement:
        """Close an agreement; what runs under it ends, and the peer is told `reason`. A closed one stays as it is."""
        return await self._call("POST", f"/v1/agreements/{_part(id)}/close", Agreement, _given(reason=reason))

    async def usage(self, agreement: str) -> AgreementUsage:
        """What was used under an agreement so far, and what it costs."""
        return await self._call("GET", f"/v1/agreements/{_part(agreement)}/usage", AgreementUsage)

    def agreement_evidence(self, agreement: str, *, witnesses: Literal["counterparty", "all"] = "counterparty") -> AsyncGenerator[bytes]:
        """The evidence file of an agreement, piece by piece, with the cosignatures of its other party or of all witnesses."""
        return self._open.pieces(f"/v1/agreements/{_part(agreement)}/evidence", {"witnesses": witnesses})

    async def transparent(self, sequence: int) -> bytes:
        """The ledger's entry of an event as a signed statement with its COSE receipt (RFC 9942)."""
        return await self._open.call("GET", f"/v1/evidence/{sequence}/cose")

    async def perform(
        self, id: str, duty: str, *, action: str | None = None, at: str | None = None, by: str | None = None,
        amounts: Mapping[str, str] | None = None,
    ) -> Agreement:  # fmt: skip
        """Record that a duty of an agreement (its pointer or id in the document) was performed; what runs is decided on anew."""
        body = {"duty": duty} | _given(action=action, at=at, by=by, amounts=dict(amounts) if amounts else None)
        return await self._call("POST", f"/v1/agreements/{_part(id)}/performances", Agreement, body)

    # transfers and pulls

    async def transfer(self, agreement: str, *, format: str = "HttpData-PULL", key: str | None = None) -> Transfer:
        """Request a transfer under an agreement."""
        body = {"agreement": agreement, "format": format}
        return await self._call("POST", "/v1/transfers", Transfer, body, key=key or new_key())

    async def transfers(
        self, *, state: str | None = None, peer: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Page[Transfer]:
        """A page of the transfers, newest first."""
        query = {"state": state, "peer": peer, "after": after, "limit": limit}
        return await self._call("GET", "/v1/transfers", Page[Transfer], query=query)

    async def transfer_process(
        self, pid: str, *, wait: Literal["started", "final"] | None = None, timeout_seconds: float = WAIT_SECONDS
    ) -> Transfer:
        """One transfer; with `wait` once it is there, or as it stands when the time is over."""
        return await self._process("transfers", pid, Transfer, wait, timeout_seconds)

    async def move_transfer(
        self, pid: str, act: Literal["suspend", "resume", "complete", "terminate"], reason: str | None = None
    ) -> Transfer:
        """Suspend, resume, complete or terminate a transfer."""
        return await self._call("POST", f"/v1/transfers/{_part(pid)}/{act}", Transfer, _given(reason=reason))

    async def edr(self, pid: str) -> Edr:
        """Address and token of a started transfer on the consumer's side."""
        return await self._call("GET", f"/v1/transfers/{_part(pid)}/edr", Edr)

    async def pull(self, peer: str, dataset: str, out: str, *, purposes: Sequence[str] = (), key: str | None = None, **bounds: Any) -> Pull:
        """Order a dataset into the file `out` (absolute, as the connector sees it). `bounds`: `parallel` connections; of data without an
        end `most_bytes`, or what comes in so many `seconds`."""
        body = _given(peer=peer, dataset=dataset, out=out, purposes=list(purposes) or None, **bounds)
        return await self._call("POST", "/v1/pulls", Pull, body, key=key or new_key())

    async def enough(self, id: str) -> Pull:
        """Take no more of data without an end."""
        return await self._call("POST", f"/v1/pulls/{_part(id)}/end", Pull)

    async def pulls(self, *, after: str | None = None, limit: int | None = None) -> Page[Pull]:
        """A page of the pulls, newest first."""
        return await self._call("GET", "/v1/pulls", Page[Pull], query={"after": after, "limit": limit})

    async def pull_order(self, id: str) -> Pull:
        """One pull."""
        return await self._call("GET", f"/v1/pulls/{_part(id)}", Pull)

    async def follow(self, id: str) -> AsyncGenerator[Pull]:
        """Yield the pull as it goes on; the last one is over. Survives a restart of the connector."""
        async with aclosing(self._open.stream(None)) as stream:
            async for event in stream:
                if isinstance(event, Pull):
                    if event.id == id:
                        yield event
                    continue
                detail = event.detail if event is not None and isinstance(event.detail, dict) else {}
                if event is not None and detail.get("pull") != id:
                    continue
                pull = await self.pull_order(id)  # the stream tells that something happened; what is true stands there
                if detail.get("stage") in OVER and not pull.is_over:  # the record has it, the live view is a moment behind
                    pull = msgspec.structs.replace(pull, stage=detail["stage"], reasons=tuple(detail.get("reasons", ())))
                yield pull
                if pull.is_over:
                    return

    # what was decided, and what would be

    async def decision(self, collection: Literal["negotiations", "transfers"], pid: str, *, language: str = "en") -> Explained:
        """Why a process was decided as it was; plain words in `language` (en, zh)."""
        return await self._call("GET", f"/v1/{collection}/{_part(pid)}/decision", Explained, query={"lang": language})

    async def simulate(
        self,
        participant: str | None = None,
        *,
        claims: Document | None = None,
        at: str | None = None,
        purposes: Sequence[str] = (),
        dataset: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Simulated:
        """A page of our catalog as a participant (id or name) or somebody with these `claims` would see it, at an instant (RFC 3339)."""
        more = _given(claims=claims, at=at, purposes=list(purposes) or None, dataset=dataset, after=after, limit=limit)
        return await self._call("POST", "/v1/simulate", Simulated, ({"as": participant} if participant is not None else {}) | more)

    async def what_if(
        self,
        policy: Document,
        *,
        offer: str | None = None,
        dataset: str | None = None,
        at: str | None = None,
        purposes: Sequence[str] = (),
        after: str | None = None,
        agreements_after: str | None = None,
    ) -> OtherTerms:
        """Who would lose or gain if `policy` stood for an offer of ours, or for all offers of a dataset."""
        body = _given(offer=offer, dataset=dataset, at=at, purposes=list(purposes) or None, after=after, agreements_after=agreements_after)
        return await self._call("POST", "/v1/simulate/change", OtherTerms, body | {"policy": policy})

    # policies before they are published

    async def templates(self) -> tuple[Template, ...]:
        """All policy templates."""
        return (await self._call("GET", "/v1/templates", Page[Template])).items

    async def template(self, id: str) -> Template:
        """One policy template with its cases."""
        return await self._call("GET", f"/v1/templates/{_part(id)}", Template)

    async def draft(
        self,
        *,
        templates: Sequence[Document] | None = None,
        text: str | None = None,
        turtle: str | None = None,
        document: Document | None = None,
        language: str = "en",
    ) -> Drafted:
        """What a policy comes to: one of a choice of templates, the text form, Turtle, JSON-LD."""
        chosen = list(templates) if templates is not None else None
        body = _given(templates=chosen, text=text, turtle=turtle, document=document, lang=language)
        return await self._call("POST", "/v1/policies", Drafted, body)

    # the record

    async def events(self, after: int = 0) -> AsyncGenerator[Event | Pull]:
        """Yield the record after that sequence and then what happens, with pulls that move on between; reconnects."""
        async with aclosing(self._open.stream(after)) as stream:
            async for event in stream:
                if event is not None:
                    yield event

    async def live(self) -> AsyncGenerator[Event]:
        """Yield what happens from now on; reconnects, and misses nothing once something has happened."""
        async with aclosing(self._open.stream(None)) as stream:
            async for event in stream:
                if isinstance(event, Event):
                    yield event

    async def evidence(self, pid: str) -> tuple[Event, ...]:
        """The record of one process."""
        return (await self._call("GET", f"/v1/processes/{_part(pid)}/evidence", Page[Event])).items

    async def dead_letters(self, *, after: str | None = None, limit: int | None = None) -> Page[DeadLetter]:
        """A page of the messages that could not be delivered."""
        return await self._call("GET", "/v1/dead-letters", Page[DeadLetter], query={"after": after, "limit": limit})

    async def replay(self, id: str) -> None:
        """Deliver a dead letter again."""
        await self._open.call("POST", f"/v1/dead-letters/{_part(id)}/replay", body={})

    async def discard(self, id: str) -> None:
        """Forget a dead letter."""
        await self._open.call("DELETE", f"/v1/dead-letters/{_part(id)}")

    @property
    def _open(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("the client is closed; use it inside `async with`")
        return self._transport

    async def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int | float | None] | None = None,
        key: str | None = None,
        hold_seconds: float = 0.0,
    ) -> T:
        content = await self._open.call(method, path, body=body, query=query, key=key, hold_seconds=hold_seconds)
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.MsgspecError as error:
            raise ManagementError(f"the answer to {method} {path} is not a connector's: {error}", code="not-understood") from error

    async def _process(self, collection: str, pid: str, answer: type[T], wait: str | None, timeout_seconds: float) -> T:
        if wait is None:
            return await self._call("GET", f"/v1/{collection}/{_part(pid)}", answer)
        query: dict[str, str | float] = {"wait": wait, "timeout_seconds": timeout_seconds}
        return await self._call("GET", f"/v1/{collection}/{_part(pid)}", answer, query=query, hold_seconds=timeout_seconds)


def _part(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
