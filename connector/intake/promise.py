"""What the provider has signed before the first byte: the manifest of a transfer, and the content log that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from connector.errors import MeterRefused, PeerFailed, ProofRefused
from connector.intake.beside import Beside
from connector.intake.heads import Unfit
from connector.intake.leaves import Leaves
from connector.merkle import checkpoints
from connector.merkle.notes import VerifierKey
from connector.metering import credit, passed
from connector.metering.chain import dated
from connector.metering.chain_consumer import Terms, accept
from connector.metering.content import Header, Layout, read_header, write_etag
from connector.metering.objects import Checkpoint, Manifest, Read, manifest_of
from connector.metering.ranges import Ranges
from connector.ports import VerificationKey
from connector.values import Value


class Broken(PeerFailed):
    """What the provider has signed, or what should follow from it, does not hold. `code` is stable: asking again changes nothing."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Promise(Value):
    """Finite data as the provider has promised it: `token` is the manifest's JWS, `leaves` the hashes of its log."""

    token: str
    manifest: Manifest
    header: Header
    layout: Layout
    root: bytes
    leaves: Leaves

    @property
    def form(self) -> tuple[int, bytes | None, int | None, int | None]:
        """Chunk in bytes, root, leaves and size in bytes, as an account has them."""
        return self.layout.chunk_bytes, self.root, self.layout.leaves, self.layout.size_bytes

    @property
    def whole(self) -> Ranges:
        """All leaves of data."""
        return self.layout.whole

    def known(self, records: Callable[[int, int], int] | None) -> credit.Log:
        """What the content log is to a receipt; `records(first, end)` end in these leaves, where they are counted."""
        return credit.finite(self.manifest, records=records)

    def signed(self, _ranges: Ranges) -> Checkpoint | None:
        """By which leaves are verified."""
        return Checkpoint(self.layout.leaves, self.root)

    @property
    def etag(self) -> str:
        """The entity tag that answers with these data have."""
        return write_etag(self.root, self.layout.chunk_bytes)


class Unending(Value):
    """Data without an end as the provider has promised them."""

    token: str
    manifest: Manifest
    header: Header


class Promised(Protocol):
    """What an account has to know of a promise: see `Promise`."""

    @property
    def token(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def form(self) -> tuple[int, bytes | None, int | None, int | None]: ...
    @property
    def whole(self) -> Ranges: ...
    def known(self, records: Callable[[int, int], int] | None) -> credit.Log: ...
    def signed(self, ranges: Ranges) -> Checkpoint | None: ...


async def obtain(
    beside: Beside, *, url: str | None, known: str | None, terms: Terms, proven: Read, keys: Iterable[VerificationKey], now: float
) -> Promise | Unending:
    """Fetch manifest, header, checkpoint and the edge of the tree, and check that they are one promise for this very transfer.

    `url` is that of the manifest, `known` the one that was accepted before, if any: whether it lies ahead is not asked again. `keys` are
    the provider's. Of live data there are the manifest and the header; what they promise is checked as it comes. Raises Broken with the
    code of the rule that does not hold, PeerFailed if something cannot be fetched.
    """
    token = known or await beside.manifest(url)
    try:
        manifest = accept(token, terms, proven=proven, now=now if known is None else dated(manifest_of(known), now))
        beside.demand_here(manifest.receipts, "a place for receipts")
        if (layout := manifest.log.layout) is None or (root := manifest.log.root) is None:
            return Unending(token, manifest, _header(await beside.header(), manifest))
        leaves = Leaves(layout.leaves, root, beside.tile)
        entry, note, _ = await asyncio.gather(beside.header(), beside.checkpoint(), leaves.bring())
        header = _header(entry, manifest)
        origin = manifest.log.origin
        verifiers = [VerifierKey(origin, key.public) for key in keys if key.valid(now)]
        signed = checkpoints.open(note, origin, verifiers).checkpoint
        if (signed.size, signed.root) != (layout.leaves, root):
            raise ProofRefused("the checkpoint of the content log is of another tree than the manifest", "checkpoint-other-tree")
        passed.read(signed.extensions)
        await leaves.enter(header.hash)
    except (MeterRefused, ProofRefused) as error:
        raise Broken(f"what the provider has signed does not hold: {error.message}", error.code) from None
    except Unfit as error:
        raise Broken(error.message, "receipts-origin") from None
    return Promise(token, manifest, header, layout, root, leaves)


def _header(entry: bytes, manifest: Manifest) -> Header:
    """The header leaf, which says the same as the manifest. Raises MeterRefused, ProofRefused."""
    header = read_header(entry)
    if (header.chunk_bytes, header.size_bytes, header.record_unit) != (manifest.log.chunk, manifest.log.size, manifest.unit):
        raise ProofRefused("the header of the content log says something else than the manifest", "header-other")
    return header
