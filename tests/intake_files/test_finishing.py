"""What has all come is the file, whatever becomes of its transfer. Of proven data see `tests/intake/test_proven.py`, of ranges
`test_ranged.py`."""

import hashlib

import pytest

from connector.adapters.memory import MemoryStore
from connector.intake.attempts import Downloaded
from connector.intake_files import finishing
from connector.metering import live
from connector.records import Changes, Pull
from connector.records.metering import Counts
from connector.values import replace
from tests.contracts.memory_sinks import MemorySinks
from tests.metering.rig import both

ORDER = Pull("urn:p", "did:web:x", "urn:d", "/out/x", "download", part="urn:first")
pytestmark = pytest.mark.asyncio


async def test_the_file_has_no_more_than_its_download_came_to_and_its_digest_is_kept_first():
    sinks, kept = MemorySinks(), []

    async def progress(seen: Pull) -> None:
        assert not sinks.files
        kept.append((seen.size_bytes, seen.sha256, seen.stated))

    sink = await sinks.open(ORDER.out, finishing.part_of(ORDER), overwrite=False)
    await sink.write(0, b"the file, and what lies behind it")
    digest = hashlib.sha256(b"the file").digest()
    await finishing.give_name(sink, ORDER, Downloaded(8, digest, True, False, 0, 0, '"v"'), progress)
    assert (sinks.files, kept) == ({ORDER.out: b"the file"}, [(8, digest, False)])


@pytest.mark.parametrize("more", [b"", b" and what was proven"])
async def test_what_of_live_data_had_come_and_was_not_signed_for_at_a_kill_is_told_to_who_has_lost_it(more: bytes):
    sinks, store = MemorySinks(), MemoryStore()
    account = replace(both(((1, 2),))[1], transfer="urn:t", counts=Counts(bytes=10))
    await store.commit(Changes(saves=(account,)))
    sink = await sinks.open(ORDER.out, finishing.part_of(ORDER), overwrite=False)
    await sink.append([b"signed for", more])
    await sink.close()
    order = replace(ORDER, transfer="urn:t", validator=live.write_etag(bytes(32)))

    async def progress(_seen: Pull) -> None:
        pass

    done = await finishing.finish(sinks, store, order, progress, completed=False)
    assert sinks.files == {ORDER.out: b"signed for"}
    assert done is not None
    told = [f"{len(more)} bytes more had come, which were not signed for when the transfer ended; they are not in the file"]
    assert list(done.reasons) == (told if more else [])


async def test_of_what_nobody_states_a_digest_only_the_size_was_checked():
    found = finishing.done(ORDER, Downloaded(8, b"d", False, False, 0, 0, None))
    assert (found.size_bytes, found.received_bytes, found.reasons) == (8, 8, (finishing.ONLY_SIZE,))


async def test_where_nothing_is_signed_nothing_was_signed_for():
    assert await finishing.signed_bytes(None, ("urn:t",)) == 0
