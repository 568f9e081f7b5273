"""Downloads from a provider of ours over real connections: checked, renamed, cut, resumed, begun again, in constant memory."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from connector.errors import Contradiction, PeerFailed, PeerRefused
from connector.intake import attempts
from connector.intake import patience as module
from connector.records import Pull
from connector.values import replace
from tests.dataplane.reader import a_wire
from tests.dataplane.rig import (
    TRANSFER,
    CuttingProxy,
    Rig,
    Watcher,
    provider,
    pull,
    some_bytes,
    view,
)

HEAD_BYTES_MAX = 1000  # of an answer of ours


@dataclass
class Desk:
    """A provider, and the place of one file at the consumer."""

    rig: Rig
    out: Path
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def part(self) -> Path:
        return self.out.with_name("file.urn-pull.part")

    @property
    def port(self) -> int:
        return int(self.rig.url.rpartition(":")[2])

    async def fetch(self, order: Pull | None = None, *, over: str | None = None, overwrite: bool = False, **options: Any) -> Pull:
        downloads = self.rig.downloads(self.out.parent, **options)
        return await downloads.fetch(order or pull(self.out), self.rig.edr(endpoint=over), overwrite=overwrite, **self.watcher.calls)

    async def gives_up_after(self, count: int) -> None:
        """Fetch over a link that breaks after so many bytes and does not come back."""
        async with CuttingProxy(self.port, [count, *[0] * 1000]).listening() as over:
            with pytest.raises(PeerFailed, match="the part is kept"):
                await self.fetch(over=over, patience_seconds=0.1)


@asynccontextmanager
async def a_desk(root: Path, **options: Any) -> AsyncIterator[Desk]:
    for name in ("in", "out"):
        (root / name).mkdir(exist_ok=True)
    async with provider(root / "in", **options) as rig:
        yield Desk(rig, root / "out" / "file")


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as one:
        yield one


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other sooner than in the field."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)


def memory_bytes() -> int:
    """What this process holds that is not a file: RssAnon and shared memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# --- the plain way


@pytest.mark.parametrize("content", [b"", b"x", some_bytes(3_000_000)], ids=["nothing", "a byte", "3 MB"])
@pytest.mark.asyncio
async def test_a_download_is_checked_and_takes_its_name(content: bytes, desk: Desk):
    await desk.rig.publish(content)
    done = await desk.fetch()
    assert desk.out.read_bytes() == content
    assert (done.size_bytes, done.received_bytes, done.sha256, done.reasons) == (len(content), len(content), digest(content), ())
    assert done.validator == f'"{digest(content).hex()}"'
    assert os.listdir(desk.out.parent) == ["file"]


@pytest.mark.asyncio
async def test_until_it_is_whole_there_is_nothing_under_its_name(desk: Desk):
    await desk.rig.publish(some_bytes(5_000_000))
    seen: list[tuple[int, bool, bool]] = []
    desk.watcher.on_report = lambda at: seen.append((at.received_bytes, desk.out.exists(), desk.part.exists()))
    await desk.fetch()
    assert len(seen) >= 2
    assert {(there, part) for _, there, part in seen} == {(False, True)}
    assert [at for at, _, _ in seen] == sorted(at for at, _, _ in seen)
    first = desk.watcher.reports[0]  # what must survive a crash is told before the first byte
    assert (first.received_bytes, first.size_bytes, first.validator is not None) == (0, 5_000_000, True)


@pytest.mark.asyncio
async def test_a_name_that_is_taken_is_left_alone_unless_overwriting_is_asked_for(desk: Desk):
    await desk.rig.publish(b"new")
    desk.out.write_bytes(b"old")
    with pytest.raises(Contradiction, match="exists already"):
        await desk.fetch()
    with pytest.raises(Contradiction, match="exists already"):
        await desk.rig.downloads(desk.out.parent).check_out(str(desk.out), "urn:pull")
    assert desk.out.read_bytes() == b"old"
    await desk.fetch(overwrite=True)
    assert desk.out.read_bytes() == b"new"


@pytest.mark.asyncio
async def test_a_pull_longer_than_ten_token_lives_needs_no_hand(desk: Desk, quick: None):
    content = some_bytes(2_400_000)
    await desk.rig.publish(content)

    def most_of_a_life_passes(_: Pull) -> None:
        desk.rig.clock.shift_seconds += 290  # at each of the twelve connections at least

    desk.watcher.on_report = most_of_a_life_passes
    async with CuttingProxy(desk.port, [200_000] * 12).listening() as over:
        await desk.fetch(over=over)
    assert desk.out.read_bytes() == content
    assert desk.rig.clock.shift_seconds > 10 * 300
    tokens = [edr.access_token for edr in desk.watcher.edrs]
    assert len(set(tokens)) == len(tokens) >= 10  # each was stored before it was used


@pytest.mark.asyncio
async def test_a_token_that_ended_unnoticed_is_renewed_on_the_refusal(desk: Desk):
    await desk.rig.publish(b"data")
    edr = desk.rig.edr()
    desk.rig.clock.shift_seconds = 1000
    never = replace(edr, expires=None)  # the provider did not say how long it lives
    await desk.rig.downloads(desk.out.parent).fetch(pull(desk.out), never, **desk.watcher.calls)
    assert desk.out.read_bytes() == b"data"
    assert len(desk.watcher.edrs) == 1


@pytest.mark.asyncio
async def test_data_comes_over_tls_and_not_from_whom_nobody_vouches_for(tmp_path: Path):
    authority, content = trustme.CA(), some_bytes(3_000_000)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "out").mkdir()
    for trusted in (True, False):
        (tmp_path / str(trusted)).mkdir()
        ca_file = tmp_path / "ca.pem" if trusted else None
        async with a_wire("TLS", tmp_path / str(trusted), authority, ca_file=ca_file) as wire:
            await wire.rig.publish(content)
            desk = Desk(wire.rig, tmp_path / "out" / str(trusted))
            if trusted:
                assert (await desk.fetch()).sha256 == digest(content)
            else:
                with pytest.raises(PeerFailed, match="not by an authority that we trust"):
                    await desk.fetch(patience_seconds=0.1)
    assert sorted(os.listdir(tmp_path / "out")) == ["True"]


@pytest.mark.asyncio
async def test_memory_does_not_grow_with_300_mb_on_either_side(desk: Desk):
    size_bytes, limit_bytes = 300_000_000, 40_000_000
    with (desk.rig.root / "large").open("wb") as file:
        file.truncate(size_bytes)
    address, stat = await desk.rig.sources["file"].index({"type": "file", "path": "large"})
    desk.rig.transfers.views[TRANSFER] = view(address)
    before, peak = memory_bytes(), 0
    ballast = bytearray(b"x") * (2 * limit_bytes)
    assert memory_bytes() - before > limit_bytes, "the measure would not see it"
    del ballast
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, memory_bytes())
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    fetched = await desk.fetch()
    done.set()
    await watching
    assert (fetched.size_bytes, fetched.sha256) == (size_bytes, stat.sha256)
    assert peak - before < limit_bytes
    desk.out.unlink()


# --- cut and resumed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.asyncio
async def test_a_link_that_breaks_at_random_places_costs_no_byte_twice(seed: int, desk: Desk, quick: None):
    content = some_bytes(3_000_000, seed)
    await desk.rig.publish(content)
    places = random.Random(seed)
    cuts = [places.randrange(1, 900_000) for _ in range(6)] + [0]
    proxy = CuttingProxy(desk.port, list(cuts))
    async with proxy.listening() as over:
        done = await desk.fetch(over=over)
    assert (desk.out.read_bytes(), done.sha256) == (content, digest(content))
    tag, offsets = f'If-Range: "{digest(content).hex()}"'.encode(), list[int]()
    for head in proxy.heads:
        asked = head.partition(b"Range: bytes=")[2]
        offsets.append(int(asked.partition(b"-")[0]) if asked else 0)
        assert (tag in head) is (offsets[-1] > 0)
    assert len(offsets) >= 4
    for cut, before, after in zip(cuts, offsets, offsets[1:], strict=False):
        assert max(0, cut - HEAD_BYTES_MAX) <= after - before <= cut  # all that the link delivered was kept


@pytest.mark.asyncio
async def test_a_pull_goes_on_where_it_stopped_after_both_sides_were_restarted(tmp_path: Path):
    content = some_bytes(6_000_000)
    async with a_desk(tmp_path) as desk:
        await desk.rig.publish(content)
        transfer = desk.rig.transfers.views[TRANSFER]
        await desk.gives_up_after(2_500_000)
        stored = desk.watcher.reports[-1]
        kept = desk.part.stat().st_size
        assert not desk.out.exists()
        assert 1_000_000 < kept <= 2_500_000  # what came before the cut is kept
    async with a_desk(tmp_path) as desk:
        desk.rig.transfers.views[TRANSFER] = transfer
        done = await desk.fetch(stored)
        assert desk.out.read_bytes() == content
        assert done.sha256 == digest(content)
        assert desk.rig.flows.seen(TRANSFER).sent_bytes == len(content) - kept


@pytest.mark.asyncio
async def test_a_provider_that_is_away_for_a_while_is_waited_for(desk: Desk):
    content = some_bytes(2_000_000)
    await desk.rig.publish(content)
    async with CuttingProxy(desk.port, [900_000, 0, 0, 0]).listening() as over:
        await desk.fetch(over=over)
    assert desk.out.read_bytes() == content


@pytest.mark.asyncio
async def test_patience_has_an_end_and_the_part_is_kept(desk: Desk):
    content = some_bytes(2_000_000)
    await desk.rig.publish(content)
    async with CuttingProxy(desk.port, [900_000, *[0] * 1000]).listening() as over:
        with pytest.raises(PeerFailed, match=r"nothing came for 0\.5 s: .*the part is kept"):
            await desk.fetch(over=over, patience_seconds=0.5)
    assert not desk.out.exists()
    assert content.startswith(desk.part.read_bytes())
    await desk.fetch(desk.watcher.reports[-1])
    assert desk.out.read_bytes() == content


@pytest.mark.asyncio
async def test_data_that_changed_meanwhile_begins_again_and_says_so(desk: Desk, capsys: pytest.CaptureFixture[str]):
    old, new = some_bytes(2_000_000, 1), some_bytes(1_500_000, 2)
    await desk.rig.publish(old)
    await desk.gives_up_after(900_000)
    assert desk.part.stat().st_size > 0
    await desk.rig.publish(new, name="new.bin")
    done = await desk.fetch(desk.watcher.reports[-1])
    assert desk.out.read_bytes() == new
    assert (done.size_bytes, done.sha256) == (len(new), digest(new))
    said = capsys.readouterr()
    assert "download starts again from zero" in said.out + said.err
    assert "the data changed at the provider" in said.out + said.err


@pytest.mark.asyncio
async def test_data_that_shrank_below_the_part_begins_again(desk: Desk):
    await desk.rig.publish(some_bytes(300_000))
    desk.part.write_bytes(some_bytes(300_000))
    short = some_bytes(1000, 3)
    await desk.rig.publish(short, name="short.bin")
    await desk.fetch(pull(desk.out, validator=f'"{digest(short).hex()}"'))  # a part that is longer than the whole: 416
    assert desk.out.read_bytes() == short


@pytest.mark.asyncio
async def test_a_part_that_lost_what_it_held_is_mended_once(desk: Desk):
    """After a loss of power a part may have its size and not its bytes."""
    content = some_bytes(400_000)
    await desk.rig.publish(content)
    desk.part.write_bytes(bytes(150_000))
    done = await desk.fetch(pull(desk.out, validator=f'"{digest(content).hex()}"', size_bytes=len(content)))
    assert desk.out.read_bytes() == content
    assert done.sha256 == digest(content)


@pytest.mark.asyncio
async def test_a_crash_after_the_file_has_its_name_fetches_nothing_again(desk: Desk):
    content = some_bytes(100_000)
    await desk.rig.publish(content)
    done = await desk.fetch()
    desk.rig.change(state="TERMINATED")  # nothing could be fetched any more
    again = await desk.fetch(pull(desk.out, validator=done.validator))
    assert (again.size_bytes, again.sha256, again.received_bytes) == (len(content), digest(content), len(content))


@pytest.mark.asyncio
async def test_a_cancelled_download_keeps_its_part_and_lets_go_of_it(desk: Desk):
    await desk.rig.publish(some_bytes(20_000_000))
    begun = asyncio.Event()
    desk.watcher.on_report = lambda _: begun.set()
    fetching = asyncio.create_task(desk.fetch())
    await begun.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert desk.part.exists()
    assert not desk.out.exists()
    await desk.fetch(desk.watcher.reports[-1])  # it is not locked any more


@pytest.mark.asyncio
async def test_once_the_transfer_is_over_what_runs_may_end_and_a_cut_is_the_last_one(desk: Desk):
    content = some_bytes(2_000_000)
    await desk.rig.publish(content)
    downloads = desk.rig.downloads(desk.out.parent)
    proxy = CuttingProxy(desk.port, [900_000, 900_000])
    async with proxy.listening() as over:
        with pytest.raises(PeerFailed, match=r"the transfer is over and not all of the data has come: .*; the part is kept"):
            await downloads.fetch(pull(desk.out), desk.rig.edr(endpoint=over), over=lambda: True, **desk.watcher.calls)
    assert proxy.connections == 1
    assert desk.part.stat().st_size > 0
    await downloads.fetch(desk.watcher.reports[-1], desk.rig.edr(), over=lambda: True, **desk.watcher.calls)
    assert desk.out.read_bytes() == content


@pytest.mark.asyncio
async def test_what_is_here_is_finished_without_the_provider_exactly_if_it_is_whole_and_right(desk: Desk):
    content = some_bytes(300_000)
    order = pull(desk.out, validator=f'"{digest(content).hex()}"', size_bytes=len(content), sha256=digest(content))
    downloads = desk.rig.downloads(desk.out.parent)
    for part in (b"", content[:-1], b"x" + content[1:], content + b"x"):
        desk.part.write_bytes(part)
        assert await downloads.finish(order, progress=desk.watcher.progress) is None
        assert (desk.part.read_bytes() if part else desk.part.exists()) == (part or False), "it stays, if it is anything"
        assert not desk.out.exists()
    desk.part.write_bytes(content)
    nothing_known = replace(order, validator=None, sha256=None)
    assert await downloads.finish(nothing_known, progress=desk.watcher.progress) is None, "its size alone proves nothing"
    for _ in range(2):  # the second time the file has its name already
        done = await downloads.finish(order, progress=desk.watcher.progress)
        assert done is not None
        assert (done.size_bytes, done.sha256, done.reasons) == (len(content), digest(content), ())
    assert desk.out.read_bytes() == content
    assert os.listdir(desk.out.parent) == ["file"]


@pytest.mark.asyncio
async def test_a_download_that_is_cancelled_again_and_again_lets_go_of_its_part_and_writes_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    """A suspension and a stop may both end it, while it is still clearing up."""
    monkeypatch.setattr(attempts, "PROGRESS_SECONDS", 0.0)
    content = some_bytes(20_000_000)
    await desk.rig.publish(content)
    for bytes_before in (0, 2_000_000, 6_000_000):
        begun = asyncio.Event()
        desk.watcher.on_report = lambda at, begun=begun, least=bytes_before: at.received_bytes >= least and begun.set()
        fetching = asyncio.create_task(desk.fetch(desk.watcher.reports[-1] if desk.watcher.reports else None))
        await begun.wait()
        while not fetching.done():
            fetching.cancel()
            await asyncio.sleep(0)
        size = desk.part.stat().st_size
        assert content.startswith(desk.part.read_bytes())
        await asyncio.sleep(0.01)
        assert desk.part.stat().st_size == size
    desk.watcher.on_report = None
    await desk.fetch(desk.watcher.reports[-1])
    assert desk.out.read_bytes() == content


# --- permission


@pytest.mark.asyncio
async def test_a_suspension_stops_a_pull_and_what_came_is_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.3)
    content = some_bytes(20_000_000)
    await desk.rig.publish(content)
    desk.watcher.on_report = lambda _: desk.rig.change(state="SUSPENDED")
    with pytest.raises(PeerRefused) as refused:
        await desk.fetch()
    assert refused.value.status == 403
    assert not desk.out.exists()
    assert content.startswith(desk.part.read_bytes())


@pytest.mark.asyncio
async def test_a_refusal_that_was_only_early_is_got_over(desk: Desk):
    """The start of a transfer and its data may cross: a refusal is believed after a time."""
    await desk.rig.publish(b"data", state="REQUESTED")
    fetching = asyncio.create_task(desk.fetch())
    while desk.rig.transfers.lookups == 0:  # noqa: ASYNC110 - nobody tells when a request arrives
        await asyncio.sleep(0.01)
    desk.rig.change(state="STARTED")
    await fetching
    assert desk.out.read_bytes() == b"data"
