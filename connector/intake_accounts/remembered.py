"""What the provider keeps of our receipts, for a consumer that has less: after a loss, or with the store of yesterday."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from connector.errors import MeterRefused, Unauthenticated
from connector.intake.promise import Broken
from connector.metering import chain_consumer as chain
from connector.metering.objects import Read, Receipt, kept, pending
from connector.ports import Identity
from connector.records.metering import Metered


def remembered(account: Metered, told: bytes, identity: Identity, now: float) -> Metered | None:
    """`account` as the provider has `told` it: JSON with the last receipt and its ack, as JWS. None if that is no more than is here.
    Raises Broken for what cannot be read, or does not hold."""
    try:
        document = orjson.loads(told)
        receipt, ack = document["receipt"], document["ack"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Broken("the provider's memory of receipts cannot be read", "receipts-malformed") from None
    if not isinstance(receipt, str) or not isinstance(ack, str) or not receipt:
        return None
    try:
        return chain.restored(account, receipt, ack, own=_ours(identity), proven=theirs(identity, account.peer, now), now=now)
    except MeterRefused as error:
        if error.code == "restored-behind":
            return None
        raise Broken(f"what the provider remembers of our receipts does not hold: {error.message}", error.code) from None


def theirs(identity: Identity, peer: str, now: float) -> Read:
    """Reads what `peer` has signed, also if it was on its way while a key was replaced."""

    def read(token: str, typ: str) -> dict[str, Any]:
        return dict(pending(lambda at: identity.read(token, typ, peer, at=at), token, now))

    return read


def _ours(identity: Identity) -> Read:
    """Reads what we have signed, by a key that counted then: it may have been replaced since."""

    def read(token: str, typ: str) -> Mapping[str, Any]:
        try:
            return identity.read(token, typ, identity.own.id)
        except Unauthenticated as error:
            if error.fault != "key-ended":
                raise
        return identity.read(token, typ, identity.own.id, at=kept(Receipt, token).issued)

    return read
