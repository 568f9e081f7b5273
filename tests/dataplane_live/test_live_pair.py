"""Two connectors, and a source in a process of its own that never ends: stopped, suspended, cut and killed, and both counts agree."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.dsp.messages import Kind
from connector.records import Changes, Evidence
from connector.records.metering import Metered
from tests import pair
from tests.dataplane_live import upstream
from tests.free_ports import free_ports
from tests.test_app import ended

DATASET = "urn:test:live"
SINCE = {"parameter": "since", "member": "n"}

pytestmark = pytest.mark.asyncio


async def publish(at: pair.Running, url: str, **members: Any) -> None:
    body = {"title": "live", "source": {"type": "http-stream", "url": url} | members, "policies": [pair.OPEN]}
    await at.asked("PUT", f"/datasets/{pair.quoted(DATASET)}", body, status=201)


async def follow(at: pair.Running, name: str = "file", **bounds: float) -> str:
    """Order it; returns the id of the order."""
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(at.site.root / "out" / name)}
    return str((await at.asked("POST", "/pulls", wish | bounds, status=201))["id"])


@asynccontextmanager
async def both(tmp_path: Path, path: str = "/lines?size=500", **members: Any) -> AsyncIterator[pair.Pair]:
    async with upstream.running(free_ports(1)[0]) as url, pair.pair(tmp_path, store="sqlite") as two:
        await publish(two.provider, url + path, **({"since": SINCE} if path.startswith("/lines") else {}) | members)
        yield two


def numbers(at: pair.Running, name: str = "file") -> list[int]:
    lines = (at.site.root / "out" / name).read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return [json.loads(line)["n"] for line in lines]


async def accounts(two: pair.Pair, transfer: str) -> tuple[Metered, Metered]:
    process = await two.consumer.connector.store.process(Kind.TRANSFER, transfer)
    assert process is not None
    ours = await two.consumer.connector.store.metered(transfer)
    theirs = await two.provider.connector.store.metered(process.peer_pid or "")
    assert ours is not None
    assert theirs is not None
    return ours, theirs


async def until_receipts(at: pair.Running, count: int) -> None:
    """Wait until so many more receipts of ours are acknowledged."""
    left, done = count, asyncio.Event()

    def heard(_changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        nonlocal left
        left -= sum(fact.what == "receipt-acknowledged" for fact in evidence)
        if left <= 0:
            done.set()

    at.connector.journal.listen(heard)
    async with asyncio.timeout(20):
        await done.wait()


async def test_what_never_ends_is_taken_until_there_is_enough_and_both_counts_are_what_is_on_the_disk(tmp_path: Path):
    async with both(tmp_path) as two:
        order = await ended(two.consumer, await follow(two.consumer, most_bytes=3_000_000))
        assert order["stage"] == "done", order
        found = numbers(two.consumer)
        assert found == list(range(1, len(found) + 1))
        ours, theirs = await accounts(two, order["transfer"])
        size = (two.consumer.site.root / "out" / "file").stat().st_size
        assert ours.counts == theirs.counts
        assert (ours.counts.bytes, ours.counts.records, order["size_bytes"]) == (size, len(found), size)
        assert size >= 3_000_000
        assert (ours.attested, theirs.attested) == ("both", "both")
        await two.provider.until(Kind.TRANSFER, theirs.transfer, lambda p: p.state == "COMPLETED")
