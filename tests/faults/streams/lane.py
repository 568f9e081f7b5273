"""Two connectors with a wire between them, on one road: they transfer what they are told to while they are cut and killed."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import trustme

from connector.client.management import ManagementClient
from connector.client.views import AgreementUsage, Pull, Transfer
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.ports import COUNTERSIGNED
from tests.bench.connectors import LISTENERS
from tests.dataplane_live import upstream
from tests.dataplane_live.test_live_pair import power_gone
from tests.dataplane_live.upstream import Upstream
from tests.faults.home import Home, make, with_values
from tests.faults.ledger import CONSUMER, PROVIDER, SIDES
from tests.faults.patience import patience
from tests.faults.side import Side
from tests.faults.streams.plan import KILLS, MIB, POWER_LOST, SOURCE_KILLED, Cut, Errand, Road
from tests.faults.streams.wire import DOWN, Wire
from tests.free_ports import free_ports

PATIENCE_SECONDS = 120.0  # for a transfer: the longest pauses between receipts are 30 s
IDLE_SECONDS = 3.0  # without a byte: in the field it is 30, and nothing depends on how long it is
TOKEN_SECONDS = 10.0  # a machine that answers later than a token lives refuses every one; those of three seconds are killed elsewhere
ORDER = {"watched": False, "idle_seconds": IDLE_SECONDS}
STOP_SECONDS = 30.0
METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
SINCE: dict[str, Any] = {"parameter": "since", "member": "n"}  # of the lines of `tests.dataplane_live.upstream`
OPEN: dict[str, Any] = {"@type": "Offer", "permission": [{"action": "use"}]}
DEMANDING: dict[str, Any] = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING]}]}


@dataclass
class Done:
    """What became of an errand. `wrong` are complaints of ours, `cuts` what was really cut, each while data came over
    so many `legs`; `brought_bytes` came down the wire, for
    a file of `size_bytes`."""

    errand: Errand
    cuts: list[Cut] = field(default_factory=list)
    legs: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    brought_bytes: int = 0
    records: int = 0
    agreement: str = ""
    order: str = ""
    size_bytes: int = 0


class Lane:
    """An asynchronous context manager around a pair below `root`. `wire` is before the data listener of the side that is dialled. The
    provider takes a transfer for complete that was quiet for `quiet_seconds`."""

    def __init__(self, root: Path, road: Road, rate: float | None = None, quiet_seconds: float = 60.0) -> None:
        self.root, self.road, self._rate, self._quiet_seconds = root.resolve(), road, rate, quiet_seconds
        self.done: list[Done] = []
        self._striking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        shutil.rmtree(self.root, ignore_errors=True)
        self.homes = await asyncio.to_thread(make, self.root, SIDES)
        self._dialled, self._dials = (CONSUMER, PROVIDER) if self.road.pushed else (PROVIDER, CONSUMER)
        data = self.homes[self._dialled].port + LISTENERS.index("data")
        (public,) = free_ports(1)
        self._write_settings(public)
        self.sides = {name: Side(home) for name, home in self.homes.items()}
        async with AsyncExitStack() as stack:
            self.wire = await stack.enter_async_context(Wire(public, data, self._rate, pushed=self.road.pushed))
            for side in self.sides.values():
                stack.push_async_callback(side.close)
                await side.open()
            await asyncio.gather(*(side.start(**ORDER) for side in self.sides.values()))
            if self.road.live:
                self.upstream = Upstream(free_ports(1)[0])
                stack.push_async_callback(self.upstream.kill)
                await self.upstream.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _write_settings(self, public: int) -> None:
        """The data listener of the side that is dialled is where the wire listens."""
        scheme, certificate = "http", {}
        if self.road.tls:
            authority = trustme.CA()
            made, folder = authority.issue_cert("127.0.0.1"), self.homes[self._dialled].directory
            (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
            (folder / "key.pem").write_bytes(made.private_key_pem.bytes())
            (folder / "key.pem").chmod(0o600)
            authority.cert_pem.write_to_path(self.homes[self._dials].directory / "ca.pem")
            scheme, certificate = "https", {"data.certificate": "chain.pem", "data.key": "key.pem"}
            _write(self.homes[self._dials], {}, ('ca_file = ""', 'ca_file = "ca.pem"'))
        _write(self.homes[self._dialled], {"data.url": f"{scheme}://127.0.0.1:{public}"} | certificate)
        lives = {"edr.token_seconds": TOKEN_SECONDS, "edr.quiet_seconds": self._quiet_seconds}
        _write(self.homes[PROVIDER], {"metering.window_bytes": self.road.window_bytes} | lives)
        _write(self.homes[CONSUMER], {"receipts.after": self.road.after})

    @property
    def consumer(self) -> Side:
        return self.sides[CONSUMER]

    @property
    def provider(self) -> Side:
        return self.sides[PROVIDER]

    def queued_seconds(self) -> float:
        """How long both were in the queue for a processor."""
        return sum(side.queued_seconds() for side in self.sides.values())

    async def strike(self, cut: Cut) -> None:
        """Kill, and start again after a while."""
        names = KILLS[cut.how]
        for name in names:
            await self.sides[name].kill()
        if cut.how == SOURCE_KILLED:
            await self.upstream.kill()
        async with self._striking:
            if cut.how == POWER_LOST and self.sides[PROVIDER].dead.is_set():
                await asyncio.to_thread(self._lose_power)
            await asyncio.sleep(cut.pause_seconds)
            if cut.how == SOURCE_KILLED:
                await self.upstream.start()
            await asyncio.gather(*(self.sides[name].start(**ORDER) for name in names if self.sides[name].dead.is_set()))

    def _lose_power(self) -> None:
        """Take from the provider what its machine would lose: what it has not flushed of data without an end."""
        for live in self.homes[PROVIDER].directory.rglob("live"):
            power_gone(live, bytes_too=True)

    async def run(self, errand: Errand) -> Done:
        """Publish, order, cut, and look at what has come."""
        return await (self._run_live(errand) if errand.road.live else self._run_finite(errand))

    async def _run_live(self, errand: Errand) -> Done:
        """The same of data without an end, up to so many bytes."""
        kind, make = ("lines", upstream.line) if errand.lines else ("events", upstream.event)
        done, out, dataset = Done(errand), self._out(str(errand.number)), f"urn:streams:{errand.number}"
        self.done.append(done)
        url = f"{self.upstream.url}/{kind}?size={errand.record_bytes}&pause={errand.record_seconds}"
        source = {"type": "http-stream", "url": url} | ({"since": SINCE} if errand.lines else {})
        await self.publish(dataset, source, errand.demanded)
        pull = await self._cut(done, dataset, out, most_bytes=errand.size_bytes)
        if self._came(done, pull, out):
            done.size_bytes = (await asyncio.to_thread(out.stat)).st_size
            expected = await asyncio.to_thread(upstream.whole, make, errand.record_bytes, done.size_bytes)
            done.records = len(expected)
            if done.size_bytes < errand.size_bytes:
                done.wrong.append(f"the file has {done.size_bytes} bytes, fewer than the {errand.size_bytes} that were ordered")
            done.wrong += await asyncio.to_thread(_compared, out, done.size_bytes, hashlib.sha256(b"".join(expected)).digest())
            await self._billed(done, pull)
        out.unlink(missing_ok=True)
        return done

    async def _run_finite(self, errand: Errand) -> Done:
        done, name = Done(errand), f"{errand.number}.{'ndjson' if errand.lines else 'bin'}"
        self.done.append(done)
        file, out, dataset = self.homes[PROVIDER].directory / "data" / name, self._out(name), f"urn:streams:{errand.number}"
        digest, done.records = await asyncio.to_thread(_make, file, errand)
        done.size_bytes = errand.size_bytes
        source = {"type": "file", "path": name} | ({"media_type": "application/x-ndjson"} if errand.lines else {})
        await self.publish(dataset, source, errand.demanded)
        how = {"push": True} if self.road.pushed else {"parallel": errand.parallel or None}
        pull = await self._cut(done, dataset, out, **how)
        if self._came(done, pull, out):
            done.wrong += await asyncio.to_thread(_compared, out, errand.size_bytes, digest)
            await self._billed(done, pull)
        for each in (file, out):
            each.unlink(missing_ok=True)
        return done

    def _out(self, name: str) -> Path:
        folder = self.homes[CONSUMER].directory / "out"
        folder.mkdir(exist_ok=True)
        return folder / name

    async def _cut(self, done: Done, dataset: str, out: Path, **how: Any) -> Pull:
        """Order it and cut it, up to its end; whoever was killed runs again."""
        began = time.monotonic()
        self.wire.arm(done.errand.cuts, self.strike)
        pull = await self.pulled(dataset, out, **how)
        done.cuts, done.order, done.agreement = self.wire.disarm(), pull.id, pull.agreement or ""
        done.legs, done.brought_bytes, done.seconds = self.wire.legs, self.wire.passed[DOWN], time.monotonic() - began
        await self.wire.settled()
        return pull

    @staticmethod
    def _came(done: Done, pull: Pull, out: Path) -> bool:
        """Whether the file has come and something was cut; else it is noted."""
        if not done.cuts:
            done.wrong.append("nothing was cut: the first cut lies beyond everything that came")
        if pull.stage != "done":
            done.wrong.append(f"the order ended in `{pull.stage}`: {'; '.join(pull.reasons) or 'nobody says why'}")
        elif not out.exists():
            done.wrong.append("the order is done and there is no file")
        return pull.stage == "done" and out.exists()

    async def publish(self, dataset: str, source: dict[str, Any], demanded: bool) -> None:
        """Publish, with receipts `demanded` or not."""
        body = {"title": dataset, "source": source, "policies": [DEMANDING if demanded else OPEN]}
        await self.provider.insist(lambda client: client.publish(dataset, body))

    async def ordered(self, dataset: str, out: Path, **how: Any) -> Pull:
        """Order it into a file."""
        return await self.consumer.insist(lambda client: client.pull(PROVIDER, dataset, str(out), key=f"order-{out.name}", **how))

    async def pulled(self, dataset: str, out: Path, **how: Any) -> Pull:
        """Order it and wait for the end, which comes by itself, or as it stands after PATIENCE_SECONDS."""
        pull = await self.ordered(dataset, out, **how)
        found: list[Pull] = []

        def over(seen: Pull) -> bool:
            found.append(seen)
            return seen.is_over

        try:
            async with patience(PATIENCE_SECONDS, self.queued_seconds):
                return await self.consumer.until(pull.id, lambda client: client.pull_order(pull.id), over)
        except TimeoutError:
            return found[-1]

    async def _billed(self, done: Done, pull: Pull) -> None:
        """Wait until the provider knows of the end, compare both bills with what lies on the disk, and check the evidence of both."""
        mine = await self.consumer.insist(lambda client: client.transfer_process(pull.transfer or ""))
        try:
            async with patience(PATIENCE_SECONDS, self.queued_seconds):
                await self.provider.until(mine.peer_pid or "", _transfer(mine.peer_pid or ""), lambda seen: seen.state == "COMPLETED")
        except TimeoutError:
            done.wrong.append("the provider never learned that the transfer is completed")
        for side in self.sides.values():
            used = await side.insist(_usage(done.agreement))
            counted = done.errand.lines or done.errand.road.live
            expected = {"bytes": done.size_bytes} | ({"records": done.records} if counted else {})
            for kind, counts in (("counted", used.counts), ("signed for", used.signed)):
                if (got := {unit: counts[unit] for unit in expected}) != expected:
                    done.wrong.append(f"the {side.name} has {kind} {got}, not {expected}")
        reports = {name: verify(await side.insist(_evidence(done.agreement))) for name, side in self.sides.items()}
        for name, report in reports.items():
            done.wrong += [f"the evidence of the {name} does not hold: {found.code}: {found.says}" for found in report.findings]
        told = [report.told for report in reports.values() if report.told is not None]
        if len(told) == len(SIDES):
            done.wrong += [f"the evidence of both sides differs: {text}" for text in compare(*told)]

    async def stop(self) -> list[str]:
        """Stop both connectors as an operator would; returns what they complained of."""
        for side in self.sides.values():
            async with patience(STOP_SECONDS, side.queued_seconds):
                await side.kill(signal.SIGTERM)
        return [f"{name}: {what} ({count} times)" for name, side in self.sides.items() for what, count in side.complaints.items()]


def _write(home: Home, values: dict[str, Any], *replaced: tuple[str, str]) -> None:
    text = with_values(home.settings.read_text(), values)
    for old, new in replaced:
        text = text.replace(old, new)
    home.settings.write_text(text)


def _usage(agreement: str) -> Any:
    async def ask(client: ManagementClient) -> AgreementUsage:
        return await client.usage(agreement)

    return ask


def _evidence(agreement: str) -> Any:
    async def ask(client: ManagementClient) -> bytes:
        return b"".join([piece async for piece in client.agreement_evidence(agreement)])

    return ask


def _transfer(pid: str) -> Any:
    async def ask(client: ManagementClient) -> Transfer:
        return await client.transfer_process(pid)

    return ask


def _make(file: Path, errand: Errand) -> tuple[bytes, int]:
    """Write data of chance; returns their SHA-256 and how many line feeds they have."""
    chance, digest, records, left = random.Random(errand.number), hashlib.sha256(), 0, errand.size_bytes
    with file.open("wb") as out:
        while left:
            piece = chance.randbytes(min(left, MIB))
            if errand.lines:  # a line has some hundred bytes, and the last one ends the file
                piece = piece.replace(b"\n", b".").replace(b"\x01", b"\n")
                piece = piece if left > len(piece) else piece[:-1] + b"\n"
            out.write(piece)
            digest.update(piece)
            records += piece.count(b"\n")
            left -= len(piece)
    return digest.digest(), records


def _compared(file: Path, size_bytes: int, digest: bytes) -> list[str]:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").digest()
    size = file.stat().st_size
    return [
        *([f"the file has {size} bytes, not {size_bytes}"] if size != size_bytes else []),
        *(["the file has another SHA-256"] if found != digest else []),
    ]
