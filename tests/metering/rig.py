"""A provider, a consumer and a flow between them, as values: what the tests of the meter share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from connector.metering.content import Known, Layout
from connector.metering.counts import Counts
from connector.metering.objects import Ack, Checkpoint, ContentLog, Manifest, Read, Receipt
from connector.metering.ranges import Ranges
from connector.signatures import jws

PROVIDER, CONSUMER, STRANGER = "did:web:hospital.example", "did:web:bio.example", "did:web:stranger.example"
KEYS = {who: jws.signing_key(f"{who}#k1", bytes([n]) * 32) for n, who in enumerate((PROVIDER, CONSUMER, STRANGER), 1)}
NOW = 1_800_000_000
CHUNK = 65_536
WINDOW = 4 * CHUNK
ROOT = bytes(range(32))
LAYOUT = Layout(40 * CHUNK - 1000, CHUNK)  # 41 leaves, the last of data is short
MANIFEST = Manifest(
    issuer=PROVIDER,
    audience=CONSUMER,
    issued=NOW - 60,
    expires=NOW + 86_400,
    agreement="urn:uuid:agreement",
    policy=bytes(32),
    consumer_pid="urn:uuid:consumer-pid",
    provider_pid="urn:uuid:provider-pid",
    dataset="urn:uuid:dataset",
    snapshot="s1",
    log=ContentLog("hospital.example/ds/s1", CHUNK, ROOT, LAYOUT.size_bytes),
    unit="none",
    receipts="https://hospital.example/data/provider-pid/receipts",
    window_bytes=WINDOW,
    credit_windows=4,
    required=True,
    prices=b"p" * 32,
)
CHECKPOINT = Checkpoint(LAYOUT.leaves, ROOT)


def signed(value: Any, by: str | None = None) -> str:
    """The JWS over an object by its issuer, or by somebody else."""
    return jws.sign(value.claims(), KEYS[by or value.issuer], value.TYP)


def raw(claims: Mapping[str, Any] | list[Any], by: str, typ: str) -> str:
    """A true signature over whatever a test puts into it."""
    return jws.sign(claims, KEYS[by], typ)  # type: ignore[arg-type]


def proven(issuer: str, at: float = NOW) -> Read:
    """Reads what `issuer` has signed."""
    return lambda token, typ: jws.read(token, typ, issuer, [KEYS[issuer].key], at)


class KnownLog:
    """A finite log of which everything is known: the layout, one root, and leaves whose hash is their number."""

    def __init__(self, layout: Layout = LAYOUT, root: bytes = ROOT) -> None:
        self.layout, self._root = layout, root

    @property
    def leaves(self) -> int:
        return self.layout.leaves

    def measure(self, ranges: Ranges) -> Known:
        return replace(self.layout.measure(ranges), records=0)

    def root(self, size: int) -> bytes | None:
        return self._root if size == self.layout.leaves else None

    def leaf(self, index: int) -> bytes | None:
        return index.to_bytes(32, "big")


RECEIPT = Receipt(
    issuer=CONSUMER,
    audience=PROVIDER,
    id="j1",
    issued=NOW,
    manifest=bytes(32),
    sequence=1,
    previous=None,
    ranges=((1, 3),),
    counts=Counts(bytes=2 * CHUNK, calls=1, microseconds=5),
    checkpoint=CHECKPOINT,
)
ACK = Ack(PROVIDER, CONSUMER, NOW, bytes(32), bytes(32), 1, 7, 6 * CHUNK, "ok", 1, 9, "a note\n")
