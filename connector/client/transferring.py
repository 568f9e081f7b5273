"""Transfers, and the orders that fetch a dataset into a file, of the management API: a part of its client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from connector.client.calls import WAIT_SECONDS, Calls, given, part
from connector.client.transport import new_key
from connector.client.views import OVER, Edr, Page, Pull, Transfer


class Transferring(Calls):
    """The calls about transfers and orders. Every method raises ManagementError."""

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
        return await self._call("POST", f"/v1/transfers/{part(pid)}/{act}", Transfer, given(reason=reason))

    async def edr(self, pid: str) -> Edr:
        """Address and token of a started transfer on the consumer's side."""
        return await self._call("GET", f"/v1/transfers/{part(pid)}/edr", Edr)

    async def pull(self, peer: str, dataset: str, out: str, *, purposes: Sequence[str] = (), key: str | None = None, **bounds: Any) -> Pull:
        """Order a dataset into the file `out` (absolute, as the connector sees it). `bounds`: `parallel` connections; of data without an
        end `most_bytes`, or what comes in so many `seconds`; of others a `range` of bytes, as HTTP spells one."""
        body = given(peer=peer, dataset=dataset, out=out, purposes=list(purposes) or None, **bounds)
        return await self._call("POST", "/v1/pulls", Pull, body, key=key or new_key())

    async def enough(self, id: str) -> Pull:
        """Take no more of data without an end."""
        return await self._call("POST", f"/v1/pulls/{part(id)}/end", Pull)

    async def cancel(self, id: str, reason: str | None = None) -> Pull:
        """End an order that is not over, and the negotiation or transfer that it has begun; the peer is told `reason`."""
        return await self._call("POST", f"/v1/pulls/{part(id)}/cancel", Pull, given(reason=reason))

    async def pulls(self, *, after: str | None = None, limit: int | None = None) -> Page[Pull]:
        """A page of the pulls, newest first."""
        return await self._call("GET", "/v1/pulls", Page[Pull], query={"after": after, "limit": limit})

    async def pull_order(self, id: str) -> Pull:
        """One pull."""
        return await self._call("GET", f"/v1/pulls/{part(id)}", Pull)

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
