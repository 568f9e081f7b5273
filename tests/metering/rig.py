"""A provider, a consumer and a flow between them, as values: what the tests of the meter share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.dsp.messages import Role
from connector.metering.chain import Judged, Outcome, acked, answer, judge
from connector.metering.chain_consumer import issued, judge_ack, receipt_for
from connector.metering.content import Layout
from connector.metering.counts import Counts
from connector.metering.credit import Log, finite
from connector.metering.objects import Ack, Checkpoint, ContentLog, Manifest, Read, Receipt
from connector.metering.ranges import Ranges
from connector.records.metering import Metered
from connector.signatures import jws
from connector.values import replace

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


def leaf(index: int) -> bytes:
    """The hash of a leaf of the flow."""
    return index.to_bytes(32, "big")


def log() -> Log:
    """What both sides know of it: everything."""
    return finite(MANIFEST, leaf=leaf)


def account(role: Role, manifest: Manifest = MANIFEST) -> Metered:
    """An account in which nothing was signed yet but the manifest."""
    peer = CONSUMER if role is Role.PROVIDER else PROVIDER
    return Metered("urn:uuid:transfer", role, manifest.agreement, peer, signed(manifest), manifest.log.origin, manifest.log.chunk)


def receipt(at: Metered, verified: Ranges = (), **changed: Any) -> Receipt:
    """The receipt that a consumer would sign next; what is changed need not fit."""
    said: dict[str, Any] = {"checkpoint": CHECKPOINT, "id": f"j{at.sequence + 1}", "now": NOW, "after": "fsync"}
    said |= {name: changed.pop(name) for name in [*changed] if name in SAID}
    return replace(receipt_for(at, verified, **({"log": log()} | said)), **changed)


SAID = {"log", "checkpoint", "id", "now", "after", "state", "microseconds", "rejected", "reason"}


def judged(at: Metered, token: str, now: float = NOW, **more: Any) -> Judged[Metered]:
    """What the provider makes of a receipt."""
    return judge(at, token, **({"proven": proven(CONSUMER, now), "log": log(), "now": now} | more))


def exchange(provider: Metered, consumer: Metered, verified: Ranges, **changed: Any) -> tuple[Metered, Metered]:
    """One receipt and its ack, without any fault."""
    at, when = changed.get("log", log()), changed.pop("acked", changed.get("now", NOW))
    own = changed.pop("own", None)
    token = signed(receipt(consumer, verified, **changed))
    consumer = issued(consumer, token)
    verdict = judged(provider, token, when, log=at)
    assert verdict.outcome is Outcome.ACCEPTED, verdict
    ack = signed(answer(verdict.account, now=when, index=verdict.account.sequence, own=own))
    got = judge_ack(consumer, ack, proven=proven(PROVIDER), now=when)
    assert got.outcome is Outcome.ACCEPTED, got
    return acked(verdict.account, ack), got.account


def both(*steps: Ranges, manifest: Manifest = MANIFEST) -> tuple[Metered, Metered]:
    """Provider and consumer after a receipt for each step."""
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    for verified in steps:
        pair = exchange(*pair, verified)
    return pair


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
