"""The end of downloads: what is here already is the file, and nobody is asked for more; and how a part gets its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from connector import telemetry
from connector.dsp.messages import Role
from connector.intake.attempts import OPEN_ENDED, Downloaded, Progress, stated
from connector.intake_accounts import earlier
from connector.metering import live
from connector.metering.content import Layout, read_etag
from connector.metering.ranges import covers
from connector.metering.spans import Part, Span, read_span
from connector.ports import Store
from connector.ports.sinks import Sink, Sinks
from connector.records import Pull
from connector.records.metering import Metered
from connector.values import replace

ONLY_SIZE: Final = "the provider stated no SHA-256 digest (`Repr-Digest`): only the size was checked"
DIGEST_TAG: Final = re.compile(r'"([0-9a-f]{64})"')  # our own entity tags are the digest


async def finish(sinks: Sinks, store: Store | None, pull: Pull, progress: Progress, completed: bool) -> Pull | None:
    """What a download would return, if all of the data is here already; None if something is missing or wrong: then whatever is here
    stays. `store` has what was signed for. `completed` says that the transfer was, and not merely ended. Raises SinkFailed,
    InvalidRequest, Contradiction."""
    if (found := await named(sinks, pull)) is not None:
        return found
    if live.read_etag(pull.validator) is not None:
        return await _finish_live(sinks, store, pull, progress, completed)
    expected, proven = stated(pull), read_etag(pull.validator) is not None
    sink = await sinks.open(pull.out, part_of(pull), overwrite=False)
    try:
        if pull.range is not None:
            return await _finish_range(sink, store, pull, progress)
        size_bytes = await sink.resume()
        by_size = pull.validator is not None and size_bytes == pull.size_bytes
        if proven and expected is None:  # what was written in any order may have gaps, whatever its size
            by_size = by_size and await _signed_for(store, pull, None) is not None
        whole = by_size if expected is None else sink.digest() == expected
        known = expected is not None
        result = Downloaded(size_bytes, sink.digest(), proven or known, known, 0, 0, pull.validator)
        if whole:
            await give_name(sink, pull, result, progress)
        elif not size_bytes:
            await sink.discard()
    finally:
        await sink.close()
    return done(pull, result) if whole else None


async def named(sinks: Sinks, pull: Pull) -> Pull | None:
    """The order as done, if a crash came between giving the file its name and saying so. Only a digest proves that."""
    tag = DIGEST_TAG.fullmatch(pull.validator or "")
    expected = pull.sha256 or (bytes.fromhex(tag[1]) if tag else None)
    found = await sinks.existing(pull.out, part_of(pull)) if expected else None
    if found is None or found[1] != expected:
        return None
    proven = read_etag(pull.validator) is not None or live.read_etag(pull.validator) is not None
    return done(pull, Downloaded(found[0], found[1], pull.stated or proven, pull.stated, 0, 0, pull.validator))


async def give_name(sink: Sink, pull: Pull, result: Downloaded, progress: Progress) -> None:
    """Let the part be the file. Only a digest can prove after a crash that the file of that name is the one that came: if the
    provider stated none, ours is kept first. What lies behind the file is of no use from then on."""
    if not result.stated:
        whole = replace(pull, validator=result.validator, size_bytes=result.size_bytes, received_bytes=result.size_bytes)
        await progress(replace(whole, sha256=result.sha256, stated=False))
    await sink.cut(result.size_bytes)
    await sink.commit(durable=result.durable)


def done(pull: Pull, result: Downloaded) -> Pull:
    """The order, with what its download has come to."""
    telemetry.log.info("downloaded", pull=pull.id, size_bytes=result.size_bytes, verified=result.verified, resumed=result.resumed)
    return replace(
        pull,
        validator=result.validator,
        size_bytes=result.size_bytes,
        sha256=result.sha256,
        received_bytes=result.size_bytes,
        stated=result.stated,
        reasons=tuple(_reasons(pull, result)),
    )


def _reasons(pull: Pull, result: Downloaded) -> Iterator[str]:
    """What has to be said of it."""
    if not result.verified:
        yield ONLY_SIZE
    if result.open_ended:
        yield OPEN_ENDED
    if result.lost_bytes:
        yield f"{result.lost_bytes} bytes more had come, which were not signed for when the transfer ended; they are not in the file"
    if pull.range is not None and result.leaves_bytes not in (None, result.size_bytes):
        whole = f"signed for and counted is the whole of the leaves that hold it, {result.leaves_bytes} bytes"
        yield f"the range `{pull.range}` is {result.size_bytes} bytes; {whole}"


def part_of(pull: Pull) -> str:
    """The id under which the part of an order stands."""
    return pull.part or pull.id


async def forget(sinks: Sinks, pull: Pull) -> None:
    """Remove the part of an order, if it is there. Raises InvalidRequest, SinkFailed."""
    sink = await sinks.open(pull.out, part_of(pull), overwrite=True)
    try:
        await sink.discard()
    finally:
        await sink.close()


async def signed_bytes(store: Store | None, transfers: Iterable[str]) -> int:
    """How many bytes were signed for under these transfers."""
    metered = [await store.metered(each) for each in transfers] if store is not None else []
    return sum(each.counts.bytes for each in metered if each is not None)


async def _finish_range(sink: Sink, store: Store | None, pull: Pull, progress: Progress) -> Pull | None:
    """A range is all there if we have kept its digest, or have signed for all that holds it."""
    size_bytes = await sink.resume()
    if pull.sha256 is not None and (size_bytes, sink.digest()) == (pull.size_bytes, pull.sha256):
        result = Downloaded(size_bytes, pull.sha256, True, False, 0, 0, pull.validator)
    else:
        part = await _signed_for(store, pull, read_span(pull.range or ""))
        if part is None or size_bytes < part.length:
            return None
        await sink.cut(part.length)
        held = part.layout.measure(part.leaves).bytes
        result = Downloaded(await sink.resume(), sink.digest(), True, False, 0, 0, pull.validator, leaves_bytes=held)
    await give_name(sink, pull, result, progress)
    return done(pull, result)


async def _finish_live(sinks: Sinks, store: Store | None, pull: Pull, progress: Progress, completed: bool) -> Pull:
    """Data without an end end with what was signed for. Who has `completed` their transfer does not say that this is all of them."""
    sink = await sinks.open(pull.out, part_of(pull), overwrite=False)
    try:
        signed = await signed_bytes(store, (*pull.earlier, pull.transfer or ""))
        lost = max(0, sink.size_bytes - signed)
        await sink.cut(signed)
        known = True, False, 0, 0, pull.validator
        result = Downloaded(await sink.resume(), sink.digest(), *known, open_ended=completed, lost_bytes=lost)
        await give_name(sink, pull, result, progress)
    finally:
        await sink.close()
    return done(pull, result)


async def _signed_for(store: Store | None, pull: Pull, span: Span | None) -> Part | None:
    """All of the data, or what of them is in `span`, if we have signed for it, and what we have signed for outlives a loss of power."""
    account = await store.metered(pull.transfer or "") if store is not None else None
    if account is None or account.role is not Role.CONSUMER or not earlier.durable(account) or account.size_bytes is None:
        return None
    part = _part(account, account.size_bytes, span)
    return part if part is not None and covers(account.ranges, part.leaves) else None


def _part(account: Metered, size_bytes: int, span: Span | None) -> Part | None:
    layout = Layout(size_bytes, account.chunk_bytes)
    return Part(layout, 0, size_bytes) if span is None else span.of(layout)
