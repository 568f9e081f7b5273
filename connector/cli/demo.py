"""`connector demo`: a hospital and a biopharma, two connectors in two processes, exchange real data on this machine.

Every step is checked; the first that does not happen as it should ends the demo with what is wrong and a non-zero code.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from connector.cli import demo_data, demo_trace, policy_text, show
from connector.cli.demo_line import Line
from connector.cli.demo_site import Site
from connector.client.management import ManagementClient
from connector.client.views import Event, Negotiation, Pull
from connector.errors import ConnectorError

PATIENTS = 300
COLUMNS = 120  # of the output where no terminal says otherwise
LINE_SECONDS = 4.0  # how long the file takes over the slow line: long enough to be cut twice
FIRST_CUT, SECOND_CUT = 0.3, 0.6  # share of the bytes that is there when a process is killed
CARRIED_MAX = 1.2  # bytes over the line for each byte of the file; a download from zero after a cut would need 1.3 or more
MEMORY_BYTES_MAX = 300_000_000  # both connectors together
SPANS_MILLISECONDS = "100"  # how often spans are written: a killed connector should leave what it did
TRACE_SECONDS = 10.0  # until the spans of both are there
COUNTERED = (  # the messages of a negotiation with one counter-offer, as their receivers record them
    "ContractRequestMessage",
    "ContractOfferMessage",
    "ContractNegotiationEventMessage:ACCEPTED",
    "ContractAgreementMessage",
    "ContractAgreementVerificationMessage",
    "ContractNegotiationEventMessage:FINALIZED",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays: the screen, both connectors with their clients, and the line between them."""

    screen: Console
    hospital: Site
    biopharma: Site
    provider: ManagementClient
    consumer: ManagementClient
    line: Line


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code. Raises ConnectorError that names the first step that went wrong."""
    said = _parser().parse_args(arguments)
    Path("build").mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir="build")).absolute()
    screen = Console(width=None if Console().is_terminal else COLUMNS, markup=False, highlight=False, emoji=False)
    try:
        asyncio.run(_play(screen, home))
    except BaseException:
        screen.print(f"\nwhat happened until then is in {home}")
        raise
    if said.keep:
        _how_to_look_around(screen, home)
    else:
        shutil.rmtree(home)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("connector demo", description="A hospital and a biopharma exchange real data on this machine.")
    parser.add_argument("--keep", action="store_true", help="keep both connectors' folders, and say how to look around in them")
    return parser


async def _play(screen: Console, home: Path) -> None:
    began = time.perf_counter()
    hospital, biopharma = Site("hospital", home / "hospital"), Site("biopharma", home / "biopharma")
    screen.print(f"Two connectors on this machine, each a process of its own, in {home}")
    _title(screen, "Set up", "connector init, twice; each gets the other's self-description")
    await asyncio.gather(hospital.init(), biopharma.init())
    hospital.meet(biopharma)
    biopharma.meet(hospital)
    datasets = await asyncio.to_thread(demo_data.prepare, hospital.directory / "data", PATIENTS, biopharma.id)
    size_bytes = datasets[0].path.stat().st_size
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(Line(hospital.data_port, size_bytes / LINE_SECONDS))
        for site in (hospital, biopharma):
            site.environment = {
                "QIAO_TELEMETRY_SPANS_FILE": str(site.spans_file),
                "QIAO_TELEMETRY_SAMPLE_RATIO": "1",
                "OTEL_BSP_SCHEDULE_DELAY": SPANS_MILLISECONDS,
            }
            stack.push_async_callback(site.stop)
        hospital.environment["QIAO_DATA_URL"] = f"http://127.0.0.1:{line.port}"
        for site, seconds in zip((hospital, biopharma), await asyncio.gather(hospital.start(), biopharma.start()), strict=True):
            screen.print(f"  {site.name:<10} {site.id}, ready after {seconds:.2f} s")
        provider, consumer = [await stack.enter_async_context(site.client()) for site in (hospital, biopharma)]
        stage = Stage(screen, hospital, biopharma, provider, consumer, line)
        await _publish(stage, datasets)
        await _catalog(stage)
        await _refused(stage)
        agreed = await _negotiate(stage)
        pull = await _pull(stage, size_bytes)
        _check_digest(stage, pull, datasets[0].path)
        await _table(stage, datasets[1].path)
        await _nothing_twice(stage)
        await _trace(stage, agreed)
        hospital.measure()
        biopharma.measure()
    _sum_up(screen, hospital, biopharma, time.perf_counter() - began)


async def _publish(stage: Stage, datasets: list[demo_data.Prepared]) -> None:
    _title(stage.screen, "Publish", "the hospital puts data of a seeded cohort under policies")
    rows = []
    for each in datasets:
        view = await stage.provider.publish(each.id, each.body)
        _demand(view.sha256 == _sha256(each.path), f"the digest of `{each.id}` is not that of its file")
        rows.append((each.id, show.size(view.size_bytes), policy_text.summary(view.offers[0].policy)))
    _print(stage.screen, ("DATASET", "SIZE", "TERMS"), rows)


async def _catalog(stage: Stage) -> None:
    _title(stage.screen, "Catalog", "the biopharma sees what may be for it; the patients' names are offered to somebody else")
    found = (await stage.consumer.catalog("hospital")).catalog["dataset"]
    ids = {dataset["@id"] for dataset in found}
    _print(stage.screen, ("DATASET", "TITLE"), [(dataset["@id"], str(dataset["dct:title"])) for dataset in found])
    _demand(ids == {demo_data.OBSERVATIONS, demo_data.CONDITIONS}, f"the catalog shows {sorted(ids)}")


async def _refused(stage: Stage) -> None:
    _title(stage.screen, "A refused purpose", "the biopharma asks for the observations for marketing")
    begun = await stage.consumer.negotiate("hospital", demo_data.OBSERVATIONS, purposes=["marketing"])
    ours, theirs = await _both(stage, begun.pid)
    sides = ((stage.biopharma, ours), (stage.hospital, theirs))
    _print(stage.screen, ("SIDE", "STATE", "REASON"), [(site.name, view.state, "; ".join(view.reasons)) for site, view in sides])
    for site, view in sides:
        _demand(view.state == "TERMINATED" and bool(view.reasons), f"{site.name} holds {view.state} with the reasons {view.reasons}")
    _demand(ours.ended_by == "peer" and theirs.agreement is None, "the refusal was not the hospital's")


async def _negotiate(stage: Stage) -> Negotiation:
    _title(stage.screen, "A negotiation with a counter-offer", "asked for research only; the hospital offers its own terms; they suffice")
    begun = await stage.consumer.negotiate("hospital", demo_data.OBSERVATIONS, purposes=["research"])
    stage.screen.print(f"  asked      {_terms(begun)}")
    ours, theirs = await _both(stage, begun.pid)
    stage.screen.print(f"  agreed     {_terms(ours)}\n")
    rows = [(site, event) for site, event in await _record(stage, ours) if event.what == "message-received"]
    first = rows[0][1].at or 0.0
    shown = [(f"{((event.at or 0.0) - first) * 1000:.1f}", f"{site} got", event.move or "", event.state or "") for site, event in rows]
    _print(stage.screen, ("MS", "RECORD OF", "MESSAGE", "STATE"), shown)
    for site, view in ((stage.biopharma, ours), (stage.hospital, theirs)):
        _demand(view.state == "FINALIZED", f"{site.name} holds {view.state}, not FINALIZED: {'; '.join(view.reasons)}")
    _demand(ours.agreement is not None and ours.agreement == theirs.agreement, "the two sides hold different agreements")
    _demand(tuple(event.move for _, event in rows) == COUNTERED, f"the messages were {[event.move for _, event in rows]}")
    return ours


async def _pull(stage: Stage, size_bytes: int) -> Pull:
    _title(
        stage.screen, "The pull, cut twice", f"{show.size(size_bytes)} over a slow line; the hospital dies by SIGKILL, then the biopharma"
    )
    out = stage.biopharma.directory / "observations.ndjson"
    last = await stage.consumer.pull("hospital", demo_data.OBSERVATIONS, str(out), purposes=["research"])
    cuts = [(FIRST_CUT, stage.hospital), (SECOND_CUT, stage.biopharma)]
    with _progress(stage.screen, size_bytes) as update:
        async for seen in stage.consumer.follow(last.id):
            update(seen)
            if cuts and seen.stage == "download" and seen.received_bytes >= cuts[0][0] * size_bytes:
                await _cut(stage, cuts.pop(0)[1], seen)
            last = seen
    _demand(last.stage == "done", f"the pull ended as {last.stage}: {'; '.join(last.reasons)}")
    _demand(last.reused, "the agreement was not reused")
    _demand(not cuts, f"the download was over before {len(cuts)} of 2 cuts")
    carried = stage.line.carried_bytes
    for number, offset in enumerate(stage.line.resumed_at, 1):
        stage.screen.print(f"  request {number} after a cut: Range: bytes={offset}-")
    _demand(len(stage.line.resumed_at) >= 2 and min(stage.line.resumed_at) > 0, "the download did not go on where it stopped")  # noqa: PLR2004
    _demand(carried <= CARRIED_MAX * size_bytes, f"{carried} bytes went over the line for a file of {size_bytes}")
    stage.screen.print(f"  {carried:,} bytes went over the line for a file of {size_bytes:,}; the agreement was reused")
    for client, pid in ((stage.consumer, last.transfer), (stage.provider, None)):
        state = (await client.transfer_process(pid)).state if pid else (await client.transfers()).items[0].state
        _demand(state == "COMPLETED", f"a transfer ended as {state}, not COMPLETED")
    return last


async def _cut(stage: Stage, site: Site, at: Pull) -> None:
    stage.screen.print(f"  kill -9 {site.name} at {at.received_bytes:,} of {at.size_bytes:,} bytes")
    await site.kill()
    stage.line.cut()
    seconds = await site.start()
    stage.screen.print(f"  {site.name} runs again after {seconds:.2f} s; nobody tells it what to do")


def _check_digest(stage: Stage, pull: Pull, source: Path) -> None:
    _title(stage.screen, "The digest", "of the file that came, and of the source")
    here, there = _sha256(Path(pull.out)), _sha256(source)
    stage.screen.print(f"  biopharma  {here}  {Path(pull.out).name}\n  hospital   {there}  {source.name}")
    _demand(here == there == pull.sha256, "the file is not the source")


async def _table(stage: Stage, source: Path) -> None:
    _title(stage.screen, "The table, in one call", "connector get hospital urn:demo:conditions --out conditions.csv")
    out = stage.biopharma.directory / "conditions.csv"
    began = time.perf_counter()
    last = await stage.consumer.pull("hospital", demo_data.CONDITIONS, str(out))
    if not last.is_over:
        async for seen in stage.consumer.follow(last.id):
            last = seen
    _demand(last.stage == "done", f"the pull ended as {last.stage}: {'; '.join(last.reasons)}")
    _demand(_sha256(out) == _sha256(source), "the table is not the source")
    rows = out.read_text(encoding="utf-8").splitlines()
    stage.screen.print(
        f"  negotiated, fetched, checked and completed in {(time.perf_counter() - began) * 1000:.0f} ms: {len(rows) - 1} rows"
    )
    for row in rows[:3]:
        stage.screen.print(f"    {row}")


async def _nothing_twice(stage: Stage) -> None:
    _title(stage.screen, "Nothing lost, nothing twice", "what both sides hold after two deaths")
    counted = []
    for client in (stage.consumer, stage.provider):
        negotiations, agreements, transfers = await client.negotiations(), await client.agreements(), await client.transfers()
        letters = await client.dead_letters()
        counted.append(
            (
                sorted(each.state for each in negotiations.items),
                sorted(each.id for each in agreements.items),
                sorted(each.state for each in transfers.items),
                len(letters.items),
            )
        )
    states, agreements_held, transfers_held, dead = counted[0]
    _demand(counted[0] == counted[1], f"the two sides differ: {counted}")
    _demand(states == ["FINALIZED", "FINALIZED", "TERMINATED"], f"the negotiations are {states}")
    _demand(len(agreements_held) == 2 and transfers_held == ["COMPLETED"] * 2 and not dead, f"held is {counted[0]}")  # noqa: PLR2004
    stage.screen.print("  both: 3 negotiations (2 finalized, 1 refused), 2 agreements, 2 transfers (completed), no undelivered message")


async def _trace(stage: Stage, agreed: Negotiation) -> None:
    trace = next((event.detail["trace"] for _, event in await _record(stage, agreed) if "trace" in (event.detail or {})), "")
    _title(stage.screen, "The trace of the negotiation", f"one id over both connectors: {trace}")
    spans: list[demo_trace.Span] = []
    waited_until = time.perf_counter() + TRACE_SECONDS
    while {span.site for span in spans} != {"hospital", "biopharma"} and time.perf_counter() < waited_until:
        files = [site.spans_file for site in (stage.hospital, stage.biopharma) if site.spans_file.exists()]
        spans = demo_trace.spans_of([line for file in files for line in file.read_text(encoding="utf-8").splitlines()], trace)
        await asyncio.sleep(0.05)
    _demand({span.site for span in spans} == {"hospital", "biopharma"}, "the trace does not reach over both connectors")
    branches = demo_trace.tree(spans)
    _print(stage.screen, ("AT MS", "TOOK MS", "WHO", "WHAT"), demo_trace.rows(branches, branches[0].span.began))


def _sum_up(screen: Console, hospital: Site, biopharma: Site, seconds: float) -> None:
    _title(screen, "Done", "")
    together = hospital.peak_bytes + biopharma.peak_bytes
    screen.print(
        f"  {seconds:.1f} s in all; memory at most {hospital.peak_bytes / 1e6:.0f} MB (hospital) and "
        f"{biopharma.peak_bytes / 1e6:.0f} MB (biopharma), {together / 1e6:.0f} MB together"
    )
    _demand(0 < together < MEMORY_BYTES_MAX, f"both connectors together took {together} bytes of memory")


def _how_to_look_around(screen: Console, home: Path) -> None:
    screen.print(f"\nkept in {home}. To look around, run both again, each in a terminal of its own:")
    for name in ("hospital", "biopharma"):
        screen.print(f"  cd {home / name} && connector run")
    screen.print(f"and in a third one: cd {home / 'biopharma'}, then for example")
    for command in ("connector negotiations", "connector transfers", "connector catalog hospital", "connector pulls"):
        screen.print(f"  {command}")
    screen.print("hospital/ and biopharma/ hold connector.toml, connector.log, connector.db and spans.jsonl")


async def _both(stage: Stage, pid: str) -> tuple[Negotiation, Negotiation]:
    """A negotiation once it has ended, as each side holds it: ours (consumer), theirs (provider)."""
    ours = await stage.consumer.negotiation(pid, wait="final")
    _demand(ours.peer_pid is not None, f"the hospital never answered: {ours.last_error}")
    return ours, await stage.provider.negotiation(ours.peer_pid or "", wait="final")


async def _record(stage: Stage, ours: Negotiation) -> list[tuple[str, Event]]:
    """The evidence of both sides about a negotiation, in order of time."""
    sides = ((stage.biopharma, stage.consumer, ours.pid), (stage.hospital, stage.provider, ours.peer_pid or ""))
    rows = [(site.name, event) for site, client, pid in sides for event in await client.evidence(pid)]
    return sorted(rows, key=lambda row: row[1].at or 0.0)


def _terms(view: Negotiation) -> str:
    return policy_text.summary(view.terms or {})


@contextmanager
def _progress(screen: Console, size_bytes: int) -> Iterator[Callable[[Pull], None]]:
    """A bar on a terminal, elsewhere a line whenever another tenth of the bytes is there."""
    if not screen.is_terminal:
        shown = 0

        def say(pull: Pull) -> None:
            nonlocal shown
            tenths = pull.received_bytes * 10 // size_bytes
            if tenths > shown and pull.stage == "download":
                screen.print(f"  {tenths * 10:>3} %  {show.size(pull.received_bytes)}")
            shown = max(shown, tenths)

        yield say
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=size_bytes)
        yield lambda pull: bar.update(task, description=pull.stage, completed=pull.received_bytes)


def _title(screen: Console, title: str, what: str) -> None:
    screen.print(Text.assemble("\n", (title, "bold cyan"), f"  {what}" if what else ""))


def _print(screen: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for head in ("", *heads):
        table.add_column(head, justify="right" if head in ("SIZE", "MS", "AT MS", "TOOK MS") else "left", overflow="fold")
    for row in rows:
        table.add_row("", *(Text(_cell(cell)) for cell in row))
    screen.print(table)


def _cell(cell: str) -> str:
    """A text from outside as one line, its leading blanks kept: they show depth."""
    return " " * (len(cell) - len(cell.lstrip(" "))) + show.clean(cell)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ConnectorError(f"the demo did not go as it should: {otherwise}")
