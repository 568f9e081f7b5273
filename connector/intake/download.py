"""Downloads: from a provider's data listener to a file that takes its name when all of it is right.

If the first answer names a signed manifest, each leaf of the data is proven, and receipted (`proven`); else the data come in order, and
size and digest are compared, as far as the provider states them (`attempts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from connector.dataplane.edr import read_address
from connector.dsp.messages import Kind
from connector.errors import ConnectorError, PeerFailed, PeerRefused, PolicyError
from connector.intake.access import Access
from connector.intake.account import Account, Means
from connector.intake.attempts import Attempts, Described, Downloaded, Progress
from connector.intake.beside import Beside
from connector.intake.live import Following
from connector.intake.live_promise import LivePromise
from connector.intake.patience import Patience
from connector.intake.promise import Broken, Promise, Promised, Unending, obtain
from connector.intake.proven import Proven, Road
from connector.intake.pushed import PushPeer, begun
from connector.intake.room import with_room
from connector.intake.signed import SignedPeer, Signing, demanded
from connector.intake_accounts import earlier
from connector.intake_accounts.addressed import demand_own, place_of
from connector.intake_files import finishing
from connector.intake_files.finishing import done, give_name, part_of, signed_bytes
from connector.intake_files.ranged import RangedSink
from connector.lasting import stopped
from connector.metering.chain_consumer import Terms
from connector.metering.content import digest_of
from connector.metering.objects import Read
from connector.metering.spans import Part, read_span
from connector.ports import Clock, Identity, Peer, Store
from connector.ports.pushed import Receptions
from connector.ports.sinks import Enough, Movers, Placed, Sink, Sinks
from connector.records import Edr, Pull
from connector.records.metering import Metered
from connector.signatures.jws import SigningKey, claims_of
from connector.values import replace

IDLE_SECONDS = 30.0  # without a byte: the connection is given up and resumed
PATIENCE_SECONDS = 900.0  # without a byte, over all attempts: a provider that restarts or moves is back by then
RANGE_UNPROVEN = "the provider signs nothing of its data, so no part of them can be checked alone; order them without a range"
RANGE_LIVE = "these data have no end, and a range is for data with one; take a part of them by `--max-bytes` or `--for`"
HAVE_AN_END = "these data have an end, and bounds of bytes or time are for data without one; order them without `--max-bytes` and `--for`"
NOWHERE: Final = {"endpoint": "https://sink.invalid/"}  # beside data of which nobody says where they come from
PARALLEL_PLAIN, PARALLEL_TLS = 1, 2  # connections for one order that names no number: with TLS one of them decrypts while another waits


class Metering(Struct):
    """How a consumer that signs receipts does so: `after` is `write` or `fsync`, what was done with the data before it signs;
    `prices(document)` names the prices of an agreement, as a manifest does."""

    means: Means
    movers: Movers
    after: str = "fsync"
    prices: Callable[[Mapping[str, Any]], bytes | None] = lambda _: None


class Downloads:
    """Fetches what orders ask for into files of `sinks`. Without `metering` manifests are not looked at, and nothing is receipted;
    `signer` returns the key that signs requests now; without it none is signed, and signatures of answers are not looked at."""

    def __init__(
        self,
        peer: Peer,
        identity: Identity,
        sinks: Sinks,
        clock: Clock,
        *,
        metering: Metering | None = None,
        signer: Callable[[], SigningKey] | None = None,
        idle_seconds: float = IDLE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._peer, self._identity, self._sinks, self._clock, self.metering = peer, identity, sinks, clock, metering
        self._signing = None if signer is None else Signing(signer, identity.keys, clock)
        self._idle_seconds, self._patience_seconds = idle_seconds, patience_seconds
        self.receptions = Receptions()

    async def check_out(self, out: str, id: str) -> None:
        """Raises InvalidRequest, Contradiction or SinkFailed if a download of order `id` may not go to this path."""
        await self._sinks.check(out, id, overwrite=False)

    async def fetch(
        self,
        pull: Pull,
        edr: Edr | None,
        *,
        renewed: Callable[[Edr], Awaitable[None]],
        progress: Progress,
        over: Callable[[], bool] = lambda: False,
        enough: Enough | None = None,
        overwrite: bool = False,
    ) -> Pull:
        """Download, resume, check, receipt and rename; returns the order with validator, size, digest and bytes received.

        `renewed` stores a renewed data address; `progress` gets the order with what has to survive a crash (validator, size, and
        the digest) as soon as it is known, and then with the bytes received; while it waits, `reasons` says for what. Once `over` says so
        there is no further request: what runs may end, a cut is the last one. Data without an end come until there is `enough`. If the
        provider stated no digest, `reasons` says that only the size was checked. Raises PeerRefused, PeerFailed (also if size or digest
        are wrong: nothing is left then), SinkFailed, InvalidRequest, Contradiction. After any other failure, and after a cancellation, the
        part is kept for the next call, unless nothing has come yet.
        """
        if (found := await finishing.named(self._sinks, pull)) is not None:
            return found
        if pull.range is not None and pull.sha256 is not None and (found := await self.finish(pull, progress=progress)) is not None:
            return found  # it had all come, and lost what its leaves have beside it
        if edr is None:
            return await self._receive(pull, renewed, progress, over, overwrite=overwrite)
        return await self._fetch(pull, edr, await self._signed(pull), renewed, progress, over, enough or Enough(), overwrite=overwrite)

    async def _receive(
        self, pull: Pull, renewed: Callable[[Edr], Awaitable[None]], progress: Progress, over: Callable[[], bool], *, overwrite: bool
    ) -> Pull:
        """The same of what the provider brings."""
        async with self.receptions.waiting(pull.transfer or "") as reception:
            address = (await begun(reception, over, self._patience_seconds)).address
            peer = PushPeer(await self._signed(pull), reception, proves=address is not None)
            try:
                read = read_address(address or NOWHERE)
                peer.check(read.endpoint)
            except ValueError as error:
                raise PeerFailed(f"the provider's data address cannot be used: {error}") from None
            expires = self._clock.now() + read.expires_seconds if read.expires_seconds is not None else None
            tokens = (read.access_token, read.refresh_token, read.refresh_endpoint, expires, self._clock.now())
            edr = Edr(pull.transfer or "", address or NOWHERE, *tokens)
            return await self._fetch(pull, edr, peer, renewed, progress, over, Enough(), overwrite=overwrite)

    async def _fetch(
        self,
        pull: Pull,
        edr: Edr,
        peer: Peer,
        renewed: Callable[[Edr], Awaitable[None]],
        progress: Progress,
        over: Callable[[], bool],
        enough: Enough,
        *,
        overwrite: bool,
    ) -> Pull:
        access = Access(edr, pull.peer, peer=peer, identity=self._identity, clock=self._clock, renewed=renewed)
        if self._store is not None:
            await demand_own(self._store, pull, access.endpoint, "the data address")
        place = partial(self._sinks.open, pull.out, part_of(pull), overwrite=overwrite)
        keeper = asyncio.create_task(access.keep(), name=f"token {edr.transfer}")
        seen = pull

        async def noted(now: Pull) -> None:
            nonlocal seen
            seen = now
            await progress(now)

        async def waits(why: str) -> None:
            await progress(replace(seen, reasons=(*seen.reasons, why)))

        async def full(why: str) -> None:
            if isinstance(peer, PushPeer):  # what it brought all the same would be counted, and kept by nobody
                peer.hold()
            await waits(why)

        async def obtained(sink: Sink) -> Downloaded:
            if isinstance(peer, PushPeer):
                peer.go_on()
            try:
                found = await self._obtain(seen, sink, access, noted, patience, enough)
            except PeerFailed:
                if not sink.size_bytes:  # nobody but the same order would look for such a part, and one of a wrong range is not repeated
                    with suppress(ConnectorError):
                        await sink.discard()
                raise
            await give_name(sink, pull, found, noted)
            return found

        def all_wanted() -> bool:
            return enough.reached(self._clock.now())

        seconds = self._patience_seconds
        patience = Patience(pull.id, seconds, over, waits, partial(peer.afresh, access.endpoint))
        try:
            result = await with_room(place, obtained, lambda: seen.size_bytes, patience, seconds, full, all_wanted)
        finally:
            await stopped(keeper)
        return done(pull, result)

    async def _signed(self, pull: Pull) -> Peer:
        """The network towards the provider of this order, with signatures if we have any."""
        if self._signing is None:
            return self._peer
        means = self.metering.means if self.metering is not None else None
        agreement = await means.store.agreement(pull.agreement or "") if means is not None else None
        asked = agreement is not None and demanded(agreement.document)
        decide = means.decide if means is not None else None
        signed = SignedPeer(self._peer, self._signing, pull.peer, pull.transfer or "", demanded=asked, decide=decide)
        if means is not None:
            signed.expect(await means.store.evidence_of(pull.transfer or ""))
        return signed

    async def _obtain(self, pull: Pull, sink: Sink, access: Access, progress: Progress, patience: Patience, enough: Enough) -> Downloaded:
        """Have all of the data at its place, right."""
        pushed = access.peer if isinstance(access.peer, PushPeer) else None
        metering, described = None if pushed is not None and not pushed.proves else self.metering, None
        if metering is None and pull.range is not None:
            raise Broken(RANGE_UNPROVEN, "range-unproven")
        known = await metering.means.store.metered(pull.transfer or "") if metering is not None else None
        if metering is not None and known is None and pushed is None and pull.range is None:  # of a range nothing is asked for unseen
            attempts = Attempts(pull, sink, access, access.peer, progress, patience, self._idle_seconds, proven=True)
            outcome = await attempts.run()
            if isinstance(outcome, Downloaded):
                return outcome
            described = outcome
        try:
            if metering is not None:
                promise, terms = await self._promised(pull, access, patience, metering, known, described)
                if isinstance(promise, Unending):
                    if pull.range is not None:
                        raise Broken(RANGE_LIVE, "range-live")
                    return await self._follow(pull, sink, access, progress, patience, metering, promise, terms, described, enough)
                if known is None and not (pull.most_bytes is None and pull.until is None):  # part of them would be billed and be no file
                    raise Broken(HAVE_AN_END, "data-have-end")
                return await self._prove(pull, sink, access, progress, patience, metering, promise, terms, described)
        except PeerRefused as refused:
            if pull.range is None or known is not None or refused.status != HTTPStatus.NOT_FOUND:
                raise
            raise PeerRefused(f"{RANGE_UNPROVEN} ({refused.message})", status=refused.status, said="range-unproven") from None
        finally:
            if described is not None:
                await described.stack.aclose()
        outcome = await Attempts(pull, sink, access, access.peer, progress, patience, self._idle_seconds, proven=False).run()
        if isinstance(outcome, Described):
            raise AssertionError("manifests were not to be looked at")
        return outcome

    async def _promised(
        self, pull: Pull, access: Access, patience: Patience, metering: Metering, known: Metered | None, described: Described | None
    ) -> tuple[Promise | Unending, Terms]:
        """What the provider has signed of this transfer. Raises Broken, and as `Patience.bear`."""
        store = metering.means.store
        process = await store.process(Kind.TRANSFER, pull.transfer or "")
        agreement = await store.agreement(pull.agreement or "")
        if process is None or process.peer_pid is None or agreement is None:
            raise PeerFailed("the transfer of this order, or its agreement, is not stored any more")
        try:
            prices = metering.prices(agreement.document)
        except PolicyError as error:
            text = f"what the agreement says of prices is not understood here, so nobody could say what is owed: {error.reasons[0]}"
            raise Broken(text, "prices-unreadable") from None
        ids = process.pid, process.peer_pid, pull.dataset
        terms = Terms(pull.peer, self._identity.own.id, agreement.id, digest_of(agreement.document), *ids, prices)
        beside = Beside(access, access.peer)
        proven: Read = lambda token, typ: self._identity.read(token, typ, pull.peer)  # noqa: E731 - one of two
        if known is not None:  # it was proven before it was stored, by a key that may have been replaced since
            proven = lambda token, _: claims_of(token)  # noqa: E731
        while True:
            try:
                promise = await obtain(
                    beside,
                    url=described.url if described is not None else None,
                    known=known.manifest if known is not None else None,
                    terms=terms,
                    proven=proven,
                    keys=self._identity.keys(pull.peer),
                    now=self._clock.now(),
                )
            except PeerFailed as failed:
                await patience.bear(failed, 0)
            else:
                await demand_own(store, pull, place_of(promise.manifest.receipts), "the place for receipts")
                return promise, terms

    async def _prove(
        self,
        pull: Pull,
        sink: Sink,
        access: Access,
        progress: Progress,
        patience: Patience,
        metering: Metering,
        promise: Promise,
        terms: Terms,
        described: Described | None,
    ) -> Downloaded:
        part = _wanted(pull, promise)
        most = pull.parallel or (PARALLEL_TLS if access.endpoint.startswith("https:") else PARALLEL_PLAIN)
        parallel = 1 if isinstance(access.peer, PushPeer) else most
        road = Road(access, access.peer, metering.movers, parallel, self._idle_seconds, metering.after == "fsync")
        held = await earlier.held(metering.means, pull.earlier, promise.root, patience)
        place = RangedSink(sink, part) if pull.range is not None else sink
        download = Proven(pull, place, road, promise, part, progress, patience, held)
        account = _account(metering, promise, access, place, terms, download.measured, download.records, download.look)
        return await download.run(account, described)

    async def _follow(
        self,
        pull: Pull,
        sink: Sink,
        access: Access,
        progress: Progress,
        patience: Patience,
        metering: Metering,
        unending: Unending,
        terms: Terms,
        described: Described | None,
        enough: Enough,
    ) -> Downloaded:
        """Data without an end."""
        before_bytes = await signed_bytes(metering.means.store, pull.earlier)
        promise, keys = LivePromise(unending), partial(self._identity.keys, pull.peer)
        flow = (pull, sink, promise, access, access.peer, keys, self._clock.now, progress, patience, enough)
        download = Following(*flow, before_bytes=before_bytes, durable=metering.after == "fsync")
        account = _account(metering, promise, access, sink, terms, download.measured)
        return await download.run(account, described)

    async def finish(self, pull: Pull, *, progress: Progress, completed: bool = False) -> Pull | None:
        """What `fetch` would return, if all of the data is here already; nobody is asked for more. None if something is missing
        or wrong: then whatever is here stays for the next `fetch`. Raises SinkFailed, InvalidRequest, Contradiction."""
        return await finishing.finish(self._sinks, self._store, pull, progress, completed)

    async def forget(self, pull: Pull) -> None:
        """See the port. Raises InvalidRequest, SinkFailed."""
        await finishing.forget(self._sinks, pull)

    @property
    def _store(self) -> Store | None:
        """Where what was signed for is kept, if anything is signed."""
        return self.metering.means.store if self.metering is not None else None


def _wanted(pull: Pull, promise: Promise) -> Part:
    """What of the data an order wants. Raises Broken if there is nothing of it."""
    layout = promise.layout
    if pull.range is None:
        return Part(layout, 0, layout.size_bytes)
    if (part := read_span(pull.range).of(layout)) is None:
        last = f"`0-{layout.size_bytes - 1}` is all of them" if layout.size_bytes else "order them without a range"
        raise Broken(f"the range `{pull.range}` lies outside of the {layout.size_bytes} bytes that there are; {last}", "range-beyond-end")
    return part


def _account(
    metering: Metering,
    promise: Promised,
    access: Access,
    sink: Placed,
    terms: Terms,
    measured: Callable[[], int],
    records: Callable[[int, int], int] = lambda _first, _end: 0,
    look: Callable[[], None] = lambda: None,
) -> Account:
    return Account(
        metering.means,
        promise,
        Beside(access, access.peer),
        sink,
        transfer=terms.consumer_pid,
        peer=terms.provider,
        agreement=terms.agreement,
        after=metering.after,
        records=records,
        measured=measured,
        look=look,
    )
