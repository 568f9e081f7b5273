"""Downloads: from a provider's data listener to a file that takes its name when all of it is right.

If the first answer names a signed manifest, each leaf of the data is proven, and receipted (`proven`); else the data come in order, and
size and digest are compared, as far as the provider states them (`attempts`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from connector import telemetry
from connector.dataplane.edr import read_address
from connector.dsp.messages import Kind, Role
from connector.errors import PeerFailed, PolicyError
from connector.intake.access import Access
from connector.intake.account import Account, Means
from connector.intake.attempts import OPEN_ENDED, Attempts, Described, Downloaded, Progress, stated
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
from connector.metering import live
from connector.metering.chain_consumer import Terms
from connector.metering.content import digest_of, read_etag
from connector.metering.objects import Read
from connector.metering.ranges import covers
from connector.ports import Clock, Identity, Peer
from connector.ports.pushed import Receptions
from connector.ports.sinks import Enough, Movers, Sink, Sinks
from connector.records import Edr, Pull
from connector.records.metering import Metered
from connector.signatures.jws import SigningKey, claims_of

IDLE_SECONDS = 30.0  # without a byte: the connection is given up and resumed
PATIENCE_SECONDS = 900.0  # without a byte, over all attempts: a provider that restarts or moves is back by then
ONLY_SIZE = "the provider stated no SHA-256 digest (`Repr-Digest`): only the size was checked"
HAVE_AN_END = "these data have an end, and bounds of bytes or time are for data without one; order them without `--max-bytes` and `--for`"
DIGEST_TAG = re.compile(r'"([0-9a-f]{64})"')  # our own entity tags are the digest
NOWHERE: Final = {"endpoint": "https://sink.invalid/"}  # beside data of which nobody says where they come from
PARALLEL_PLAIN, PARALLEL_TLS = 1, 2  # connections for one order that names no number: with TLS one of them decrypts while another waits


@dataclass(slots=True)
class Metering:
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
        if (found := await self._finished(pull)) is not None:
            return found
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
        place = partial(self._sinks.open, pull.out, _part_of(pull), overwrite=overwrite)
        keeper = asyncio.create_task(access.keep(), name=f"token {edr.transfer}")
        seen = pull

        async def noted(now: Pull) -> None:
            nonlocal seen
            seen = now
            await progress(now)

        async def waits(why: str) -> None:
            await progress(replace(seen, reasons=(*seen.reasons, why)))

        async def obtained(sink: Sink) -> Downloaded:
            found = await self._obtain(seen, sink, access, noted, patience, enough)
            await _give_name(sink, pull, found, noted)
            return found

        def all_wanted() -> bool:
            return enough.reached(self._clock.now())

        seconds = self._patience_seconds
        patience = Patience(pull.id, seconds, over, waits, partial(peer.afresh, access.endpoint))
        try:
            result = await with_room(place, obtained, lambda: seen.size_bytes, patience, seconds, waits, all_wanted)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        return _done(pull, result)

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
        known = await metering.means.store.metered(pull.transfer or "") if metering is not None else None
        if metering is not None and known is None and pushed is None:
            attempts = Attempts(pull, sink, access, access.peer, progress, patience, self._idle_seconds, proven=True)
            outcome = await attempts.run()
            if isinstance(outcome, Downloaded):
                return outcome
            described = outcome
        try:
            if metering is not None:
                promise, terms = await self._promised(pull, access, patience, metering, known, described)
                if isinstance(promise, Unending):
                    return await self._follow(pull, sink, access, progress, patience, metering, promise, terms, described, enough)
                if known is None and not (pull.most_bytes is None and pull.until is None):  # part of them would be billed and be no file
                    raise Broken(HAVE_AN_END, "data-have-end")
                return await self._prove(pull, sink, access, progress, patience, metering, promise, terms, described)
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
        parallel = (
            1
            if isinstance(access.peer, PushPeer)
            else pull.parallel or (PARALLEL_TLS if access.endpoint.startswith("https:") else PARALLEL_PLAIN)
        )
        road = Road(access, access.peer, metering.movers, parallel, self._idle_seconds, metering.after == "fsync")
        held = await earlier.held(metering.means, pull.earlier, promise.root, patience)
        download = Proven(pull, sink, road, promise, progress, patience, held)
        account = _account(metering, promise, access, sink, terms, download.measured, download.records, download.look)
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
        accounts = [await metering.means.store.metered(transfer) for transfer in pull.earlier]
        before_bytes = sum(each.counts.bytes for each in accounts if each is not None)
        promise, keys = LivePromise(unending), partial(self._identity.keys, pull.peer)
        flow = (pull, sink, promise, access, access.peer, keys, self._clock.now, progress, patience, enough)
        download = Following(*flow, before_bytes=before_bytes, durable=metering.after == "fsync")
        account = _account(metering, promise, access, sink, terms, download.measured)
        return await download.run(account, described)

    async def finish(self, pull: Pull, *, progress: Progress, completed: bool = False) -> Pull | None:
        """What `fetch` would return, if all of the data is here already; nobody is asked for more. None if something is missing
        or wrong: then whatever is here stays for the next `fetch`. Raises SinkFailed, InvalidRequest, Contradiction."""
        if (found := await self._finished(pull)) is not None:
            return found
        if live.read_etag(pull.validator) is not None:
            return await self._finish_live(pull, progress, completed)
        expected, proven = stated(pull), read_etag(pull.validator) is not None
        sink = await self._sinks.open(pull.out, _part_of(pull), overwrite=False)
        try:
            size_bytes = await sink.resume()
            by_size = pull.validator is not None and size_bytes == pull.size_bytes
            if proven and expected is None:  # what was written in any order may have gaps, whatever its size
                by_size = by_size and await self._receipted(pull)
            whole = by_size if expected is None else sink.digest() == expected
            known = expected is not None
            result = Downloaded(size_bytes, sink.digest(), proven or known, known, 0, 0, pull.validator)
            if whole:
                await _give_name(sink, pull, result, progress)
            elif not size_bytes:
                await sink.discard()
        finally:
            await sink.close()
        return _done(pull, result) if whole else None

    async def _finish_live(self, pull: Pull, progress: Progress, completed: bool) -> Pull | None:
        """Data without an end end with what was signed for. Who has `completed` their transfer does not say that this is all of them."""
        metered = [await self.metering.means.store.metered(each) for each in (*pull.earlier, pull.transfer or "")] if self.metering else []
        size_bytes = sum(each.counts.bytes for each in metered if each is not None)
        sink = await self._sinks.open(pull.out, _part_of(pull), overwrite=False)
        try:
            await sink.cut(size_bytes)
            result = Downloaded(await sink.resume(), sink.digest(), True, False, 0, 0, pull.validator, open_ended=completed)
            await _give_name(sink, pull, result, progress)
        finally:
            await sink.close()
        return _done(pull, result)

    async def _receipted(self, pull: Pull) -> bool:
        """Whether we have signed for all of the data, and what we have signed for outlives a loss of power."""
        account = await self.metering.means.store.metered(pull.transfer or "") if self.metering is not None else None
        if account is None or account.role is not Role.CONSUMER or not earlier.durable(account):
            return False
        return covers(account.ranges, ((1, account.leaves or 0),) if account.size_bytes else ())

    async def _finished(self, pull: Pull) -> Pull | None:
        """The order as done, if a crash came between giving the file its name and saying so. Only a digest proves that."""
        tag = DIGEST_TAG.fullmatch(pull.validator or "")
        expected = pull.sha256 or (bytes.fromhex(tag[1]) if tag else None)
        found = await self._sinks.existing(pull.out, _part_of(pull)) if expected else None
        if found is None or found[1] != expected:
            return None
        proven = read_etag(pull.validator) is not None or live.read_etag(pull.validator) is not None
        return _done(pull, Downloaded(found[0], found[1], pull.stated or proven, pull.stated, 0, 0, pull.validator))


def _account(
    metering: Metering,
    promise: Promised,
    access: Access,
    sink: Sink,
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


def _part_of(pull: Pull) -> str:
    return pull.part or pull.id


async def _give_name(sink: Sink, pull: Pull, result: Downloaded, progress: Progress) -> None:
    """Let the part be the file. Only a digest can prove after a crash that the file of that name is the one that came: if the
    provider stated none, ours is kept first."""
    if not result.stated:
        whole = replace(pull, validator=result.validator, size_bytes=result.size_bytes, received_bytes=result.size_bytes)
        await progress(replace(whole, sha256=result.sha256, stated=False))
    await sink.commit(durable=result.durable)


def _done(pull: Pull, result: Downloaded) -> Pull:
    telemetry.log.info("downloaded", pull=pull.id, size_bytes=result.size_bytes, verified=result.verified, resumed=result.resumed)
    return replace(
        pull,
        validator=result.validator,
        size_bytes=result.size_bytes,
        sha256=result.sha256,
        received_bytes=result.size_bytes,
        stated=result.stated,
        reasons=(() if result.verified else (ONLY_SIZE,)) + ((OPEN_ENDED,) if result.open_ended else ()),
    )
