"""What has all come is the file, whatever becomes of its transfer. Of proven data see `tests/intake/test_proven.py`, of ranges
`test_ranged.py`."""

import hashlib

import pytest

from connector.intake.attempts import Downloaded
from connector.intake_files import finishing
from connector.records import Pull
from tests.contracts.memory_sinks import MemorySinks

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


async def test_of_what_nobody_states_a_digest_only_the_size_was_checked():
    found = finishing.done(ORDER, Downloaded(8, b"d", False, False, 0, 0, None))
    assert (found.size_bytes, found.received_bytes, found.reasons) == (8, 8, (finishing.ONLY_SIZE,))


async def test_where_nothing_is_signed_nothing_was_signed_for():
    assert await finishing.signed_bytes(None, ("urn:t",)) == 0
