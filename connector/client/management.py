"""The client of a connector's own management API: one call, one method; used by the command line and by programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self

from connector.client.billing import Billing
from connector.client.calls import WAIT_SECONDS, given, part
from connector.client.transferring import Transferring
from connector.client.transport import ManagementError, Transport, new_key
from connector.client.views import (
    Agreement,
    CatalogDataset,
    CatalogPage,
    Dataset,
    DeadLetter,
    Document,
    Drafted,
    Event,
    Explained,
    Known,
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
)

__all__ = ["ManagementClient", "ManagementError"]


class ManagementClient(Billing, Transferring):
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

    async def witness(self, peer: str) -> Document:
        """Have a peer (id or name) cosign our newest checkpoint now; what it has cosigned, as in `ledger`."""
        return await self._call("POST", f"/v1/ledger/witnesses/{part(peer)}", dict[str, Any], {})

    async def forgive(self, peer: str) -> None:
        """Trust the ledger of a peer (id or name) again that has contradicted itself: what it signed last counts from now on."""
        known = {each.name: each.id for each in await self.participants()}
        await self._open.call("POST", f"/v1/ledger/witnesses/{part(known.get(peer, peer))}/forgive", body={})

    async def ledger_tile(self, path: str, origin: str) -> bytes:
        """A tile of hashes or a bundle of entries of the log `origin`, by its path in C2SP tlog-tiles."""
        return await self._open.call("GET", f"/v1/ledger/{path}", query={"origin": origin})

    # datasets and catalogs

    async def publish(self, id: str, dataset: Mapping[str, Any]) -> Dataset:
        """Publish or replace the dataset `id`: title, source, policies and so on, as the API takes them."""
        return await self._call("PUT", f"/v1/datasets/{part(id)}", Dataset, dataset)

    async def datasets(self, *, after: str | None = None, limit: int | None = None) -> Page[Dataset]:
        """A page of the published datasets, in order of their ids."""
        return await self._call("GET", "/v1/datasets", Page[Dataset], query={"after": after, "limit": limit})

    async def dataset(self, id: str) -> Dataset:
        """One published dataset."""
        return await self._call("GET", f"/v1/datasets/{part(id)}", Dataset)

    async def withdraw(self, id: str) -> None:
        """Take a dataset out of the catalog."""
        await self._open.call("DELETE", f"/v1/datasets/{part(id)}")

    async def catalog(self, peer: str, *, after: str | None = None, filter: Sequence[Any] = ()) -> CatalogPage:
        """A page of the catalog of `peer` (id or name)."""
        return await self._call("POST", "/v1/catalog", CatalogPage, given(peer=peer, after=after, filter=list(filter) or None))

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
        more = given(offer=offer, policy=policy, purposes=list(purposes) or None, accept=accept, acceptance=limits)
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
        return await self._call("POST", f"/v1/negotiations/{part(pid)}/approve", Negotiation, {})

    async def counter(self, pid: str, policy: Document) -> Negotiation:
        """Answer with other terms."""
        return await self._call("POST", f"/v1/negotiations/{part(pid)}/counter", Negotiation, {"policy": policy})

    async def terminate_negotiation(self, pid: str, reason: str | None = None) -> Negotiation:
        """End a negotiation; the peer is told `reason`."""
        return await self._call("POST", f"/v1/negotiations/{part(pid)}/terminate", Negotiation, given(reason=reason))

    async def agreements(
        self, *, peer: str | None = None, dataset: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Page[Agreement]:
        """A page of the agreements, newest first."""
        query = {"peer": peer, "dataset": dataset, "after": after, "limit": limit}
        return await self._call("GET", "/v1/agreements", Page[Agreement], query=query)

    async def agreement(self, id: str) -> Agreement:
        """One agreement."""
        return await self._call("GET", f"/v1/agreements/{part(id)}", Agreement)

    async def close_agreement(self, id: str, reason: str | None = None) -> Agreement:
        """Close an agreement; what runs under it ends, and the peer is told `reason`. A closed one stays as it is."""
        return await self._call("POST", f"/v1/agreements/{part(id)}/close", Agreement, given(reason=reason))

    def agreement_evidence(self, agreement: str, *, witnesses: Literal["counterparty", "all"] = "counterparty") -> AsyncGenerator[bytes]:
        """The evidence file of an agreement, piece by piece, with the cosignatures of its other party or of all witnesses. The connector
        puts on record what it counts in it."""
        return self._open.pieces(f"/v1/agreements/{part(agreement)}/evidence", {"witnesses": witnesses})

    async def transparent(self, sequence: int) -> bytes:
        """The ledger's entry of an event as a signed statement with its COSE receipt (RFC 9942)."""
        return await self._open.call("GET", f"/v1/evidence/{sequence}/cose")

    async def perform(
        self, id: str, duty: str, *, action: str | None = None, at: str | None = None, by: str | None = None,
        amounts: Mapping[str, str] | None = None,
    ) -> Agreement:  # fmt: skip
        """Record that a duty of an agreement (its pointer or id in the document) was performed; what runs is decided on anew."""
        body = {"duty": duty} | given(action=action, at=at, by=by, amounts=dict(amounts) if amounts else None)
        return await self._call("POST", f"/v1/agreements/{part(id)}/performances", Agreement, body)

    # what was decided, and what would be

    async def decision(self, collection: Literal["negotiations", "transfers"], pid: str, *, language: str = "en") -> Explained:
        """Why a process was decided as it was; plain words in `language` (en, zh)."""
        return await self._call("GET", f"/v1/{collection}/{part(pid)}/decision", Explained, query={"lang": language})

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
        language: str | None = None,
    ) -> Simulated:
        """A page of our catalog as a participant (id or name) or somebody with these `claims` would see it, at an instant (RFC 3339)."""
        more = given(claims=claims, at=at, purposes=list(purposes) or None, dataset=dataset, after=after, limit=limit)
        more |= given(lang=language)
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
        language: str | None = None,
    ) -> OtherTerms:
        """Who would lose or gain if `policy` stood for an offer of ours, or for all offers of a dataset."""
        body = given(offer=offer, dataset=dataset, at=at, purposes=list(purposes) or None, after=after, agreements_after=agreements_after)
        body |= given(lang=language)
        return await self._call("POST", "/v1/simulate/change", OtherTerms, body | {"policy": policy})

    # policies before they are published

    async def templates(self) -> tuple[Template, ...]:
        """All policy templates."""
        return (await self._call("GET", "/v1/templates", Page[Template])).items

    async def template(self, id: str) -> Template:
        """One policy template with its cases."""
        return await self._call("GET", f"/v1/templates/{part(id)}", Template)

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
        body = given(templates=chosen, text=text, turtle=turtle, document=document, lang=language)
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

    async def erase(self, sequence: int) -> None:
        """Take away for good what an event says in detail; its entry in the ledger stays valid."""
        await self._open.call("DELETE", f"/v1/events/{sequence}/detail")

    async def process(self, pid: str) -> Known:
        """What a process is, of whose pid nobody remembers that."""
        return await self._call("GET", f"/v1/processes/{part(pid)}", Known)

    async def evidence(self, pid: str) -> tuple[Event, ...]:
        """The record of one process."""
        return (await self._call("GET", f"/v1/processes/{part(pid)}/evidence", Page[Event])).items

    async def dead_letters(self, *, after: str | None = None, limit: int | None = None) -> Page[DeadLetter]:
        """A page of the messages that could not be delivered."""
        return await self._call("GET", "/v1/dead-letters", Page[DeadLetter], query={"after": after, "limit": limit})

    async def replay(self, id: str) -> None:
        """Deliver a dead letter again."""
        await self._open.call("POST", f"/v1/dead-letters/{part(id)}/replay", body={})

    async def discard(self, id: str) -> None:
        """Forget a dead letter."""
        await self._open.call("DELETE", f"/v1/dead-letters/{part(id)}")

    @property
    def _open(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("the client is closed; use it inside `async with`")
        return self._transport
