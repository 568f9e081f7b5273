"""Small parts of the composition root that stand for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from connector.adapters.keys import Keys
from connector.errors import Unauthenticated
from connector.ports import Store


@dataclass(frozen=True, slots=True)
class Together:
    """Routes that share a door."""

    parts: Sequence[Any]

    def add_to(self, app: web.Application) -> None:
        for part in self.parts:
            part.add_to(app)


async def store_fault(store: Store) -> str | None:
    """What is wrong with the store, for the readiness of the connector."""
    try:
        await store.next_due()
    except Exception as e:
        return f"the store does not answer: {type(e).__name__}"
    return None


def own_key(keys: Keys, kid: str, now: float) -> bytes:
    """The public half of a key of ours that is valid at `now`. Raises Unauthenticated."""
    for key in keys.public(now):
        if key.kid == kid:
            return key.public
    raise Unauthenticated("the token was signed by a key that is not ours")
