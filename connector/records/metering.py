"""The values that are stored about metered transfers: what both sides have signed, and how far each has got."""

from __future__ import annotations

from connector.dsp.messages import Role
from connector.metering.counts import NOTHING
from connector.metering.counts import Counts as Counts  # noqa: PLC0414 - whoever takes the records takes it from here too
from connector.values import Value


class Metered(Value):
    """How far the metering of one transfer has got, on either side.

    `manifest` is the provider's JWS. `origin`, `root` and `leaves` name the content log (`leaves` counts the header; root and leaves are
    None while a live log grows), `chunk_bytes` and `size_bytes` its form. `sequence`, `receipt` and `ack` are of the last receipt that was
    accepted ("" and 0 before the first), `ranges` the union of leaves that it covers, each [from, to), and `counts` what they come to.
    `credit_bytes` is the offset up to which the provider sends. `status` is open, complete, rejected, aborted or disputed; `attested`
    is both or provider-only. Of a consumer that signs nothing, `sent` are the bytes that went out, each [from, to), `before` what `counts`
    holds of other data that were published under the same transfer before these, and `days` what the counts had come to by the end of each
    day on which there was something to count (days since 1970, UTC): nothing else says when it was, once it is billed. Of one that signs,
    `own` are the calls and the time that the provider has counted itself by its last receipt; `asked` says before the first one that it
    means to sign: it has asked for the manifest, or has had to do with signatures.
    """

    transfer: str
    role: Role
    agreement: str
    peer: str
    manifest: str
    origin: str
    chunk_bytes: int
    root: bytes | None = None
    leaves: int | None = None
    size_bytes: int | None = None
    sequence: int = 0
    receipt: str = ""
    ack: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    counts: Counts = NOTHING
    credit_bytes: int = 0
    status: str = "open"
    attested: str = "provider-only"
    version: int = 0
    updated: float = 0.0
    sent: tuple[tuple[int, int], ...] = ()
    before: Counts = NOTHING
    days: tuple[tuple[int, Counts], ...] = ()
    own: Counts = NOTHING
    asked: bool = False

    @property
    def silent(self) -> bool:
        """Whether nothing says so far that the consumer signs."""
        return not self.asked and not self.sequence


class Receipted(Value):
    """One receipt as it came (JWS), and the ack that it got (None: it was kept as evidence and not accepted). Unique on (transfer,
    sequence, digest); `digest` is the SHA-256 of the receipt."""

    transfer: str
    sequence: int
    digest: bytes
    receipt: str
    ack: str | None
    at: float
