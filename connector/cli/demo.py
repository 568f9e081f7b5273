"""`connector demo`: a hospital and a biopharma, two connectors in two processes, exchange real data on this machine.

Every step is checked; the first that does not happen as it should ends the demo with what is wrong and a non-zero code.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from connector.cli import demo_screen, policy_text, show
from connector.cli.demo_screen import Screen
from connector.cli_demo import data
from connector.cli_demo.site import Line, Site
from connector.cli_evidence.exporting import export
from connector.cli_evidence.verifying import check
from connector.client.management import ManagementClient
from connector.client.views import Event, Negotiation, Pull
from connector.errors import ConnectorError
from connector.values import Value

PATIENTS = 300
DEMO_SECONDS_MAX = 180.0  # it takes 15; what takes so much longer does not go on at all
LINE_SECONDS = 4.0  # how long the file takes over the slow line: long enough to be cut twice
FIRST_CUT, SECOND_CUT = 0.3, 0.6  # share of the bytes that is there when a process is killed
CUTS = 2
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


class Stage(Value):
    """Where the demo plays: the screen, both connectors with their clients, what is exchanged, and the line between them."""

    screen: Screen
    hospital: Site
    biopharma: Site
    provider: ManagementClient
    consumer: ManagementClient
    datasets: list[data.Prepared]
    line: Line


def main(*, keep: bool = False, patients: int = PATIENTS, line_seconds: float = LINE_SECONDS) -> int:
    """Run the demo and return its exit code; `keep` leaves both connectors' folders. Raises ConnectorError that names the
    first step that went wrong."""
    _stopped_as_interrupted()
    screen = Screen()
    try:
        Path("build").mkdir(exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix="demo-", dir="build")).absolute()
    except OSError as error:
        raise ConnectorError(f"the demo needs a folder `build` to write to: {error.strerror}; run it where there may be one") from None
    try:
        asyncio.run(_play(screen, home, patients, line_seconds))
    except KeyboardInterrupt:
        shutil.rmtree(home, ignore_errors=True)  # what was begun in it may still end
        raise
    except BaseException:
        screen.title("It did not go as it should", f"what happened until then is in {home}")
        raise
    if keep:
        _how_to_look_around(screen, home)
    else:
        shutil.rmtree(home)
        screen.say("`connector demo --keep` leaves both connectors to look around in")
    return 0


def _stopped_as_interrupted() -> None:
    """A demo that is stopped, or whose terminal is closed, takes its connectors with it, as one that is interrupted: that ends the loop
    between two steps, and not in one. A script ignores SIGINT for what it runs beside itself, and `nohup` SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        if each is signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda *_: signal.raise_signal(signal.SIGINT))


async def _play(screen: Screen, home: Path, patients: int, line_seconds: float) -> None:
    began = time.perf_counter()
    hospital, biopharma = Site("hospital", home / "hospital"), Site("biopharma", home / "biopharma")
    try:
        async with asyncio.timeout(DEMO_SECONDS_MAX), AsyncExitStack() as stack:
            stage = await _set_up(screen, stack, hospital, biopharma, patients, line_seconds)
            await _publish(stage)
            await _catalog(stage)
            await _refused(stage)
            agreed = await _negotiate(stage)
            pull = await _pull(stage)
            _check_digest(stage, pull)
            await _signed(stage, pull)
            await _owed(stage, await _table(stage))
            await _nothing_twice(stage)
            await _trace(stage, agreed)
            hospital.measure()
            biopharma.measure()
    except TimeoutError:
        raise ConnectorError(f"the demo was not over after {DEMO_SECONDS_MAX:g} s") from None
    _sum_up(screen, hospital, biopharma, time.perf_counter() - began)


async def _set_up(screen: Screen, stack: AsyncExitStack, hospital: Site, biopharma: Site, patients: int, line_seconds: float) -> Stage:
    screen.title("Set up", "two connectors, each a process of its own on this machine, and a cohort")
    await asyncio.gather(hospital.init(), biopharma.init())
    hospital.meet(biopharma)
    biopharma.meet(hospital)
    screen.say("connector init, twice; each has the other's self-description in its registry")
    datasets = await asyncio.to_thread(data.prepare, hospital.directory / "data", patients, biopharma.id)
    screen.say(f"carebundle made {patients} patients, the same at every run: {', '.join(each.path.name for each in datasets)}")
    line = await stack.enter_async_context(Line(hospital.data_port, datasets[0].path.stat().st_size / line_seconds))
    for site in (hospital, biopharma):
        site.environment = {
            "QIAO_TELEMETRY_SPANS_FILE": str(site.spans_file),
            "QIAO_TELEMETRY_SAMPLE_RATIO": "1",
            "OTEL_BSP_SCHEDULE_DELAY": SPANS_MILLISECONDS,
        }
        stack.push_async_callback(site.stop)
    hospital.environment["QIAO_DATA_URL"] = f"http://127.0.0.1:{line.port}"
    seconds = await asyncio.gather(hospital.start(), biopharma.start())
    screen.table(
        ("WHO", "PARTICIPANT", "PROCESS", "READY AFTER"),
        [(site.name, site.id, str(site.pid), f"{took:.2f} s") for site, took in zip((hospital, biopharma), seconds, strict=True)],
    )
    provider, consumer = [await stack.enter_async_context(site.client()) for site in (hospital, biopharma)]
    return Stage(screen, hospital, biopharma, provider, consumer, datasets, line)


async def _publish(stage: Stage) -> None:
    stage.screen.title("Publish", "the hospital puts each file under a policy")
    rows = []
    for each in stage.datasets:
        view = await stage.provider.publish(each.id, each.body)
        _demand(view.sha256 == _sha256(each.path), f"the digest of `{each.id}` is not that of its file")
        rows.append((each.id, show.size(view.size_bytes), policy_text.summary(view.offers[0].policy)))
    stage.screen.table(("DATASET", "SIZE", "TERMS"), rows)


async def _catalog(stage: Stage) -> None:
    stage.screen.title("Catalog", "what the biopharma sees: the names of the patients are offered to somebody else")
    found = (await stage.consumer.catalog("hospital")).catalog["dataset"]
    ids = {dataset["@id"] for dataset in found}
    rows = [(dataset["@id"], dataset["distribution"][0]["dcat:mediaType"], str(dataset["dct:title"])) for dataset in found]
    stage.screen.table(("DATASET", "TYPE", "TITLE"), rows)
    _demand(ids == {data.OBSERVATIONS, data.CONDITIONS}, f"the catalog shows {sorted(ids)}")


async def _refused(stage: Stage) -> None:
    stage.screen.title("A refused purpose", "the biopharma asks for the observations for marketing; both sides hold the reason")
    begun = await stage.consumer.negotiate("hospital", data.OBSERVATIONS, purposes=["marketing"])
    ours, theirs = await _both(stage, begun.pid)
    sides = ((stage.biopharma, ours), (stage.hospital, theirs))
    stage.screen.table(("WHO", "STATE", "REASON"), [(site.name, view.state, "; ".join(view.reasons)) for site, view in sides])
    for site, view in sides:
        _demand(view.state == "TERMINATED" and bool(view.reasons), f"{site.name} holds {view.state} with the reasons {view.reasons}")
    _demand(ours.reasons == theirs.reasons, "the two sides hold different reasons")
    _demand(ours.ended_by == "peer" and theirs.agreement is None, "the refusal was not the hospital's")


async def _negotiate(stage: Stage) -> Negotiation:
    stage.screen.title(
        "A negotiation with a counter-offer",
        "the biopharma asks for research alone, and for good; the hospital counters with what both have in common",
    )
    begun = await stage.consumer.negotiate("hospital", data.OBSERVATIONS, policy=data.study_terms())
    ours, theirs = await _both(stage, begun.pid)
    asked, agreed = policy_text.summary(begun.terms or {}), policy_text.summary(ours.terms or {})
    stage.screen.facts({"asked": asked, "countered": "; ".join(theirs.instead), "agreed": agreed})
    stage.screen.say()
    rows = [(site, event) for site, event in await _record(stage, ours) if event.what == "message-received"]
    first = rows[0][1].at or 0.0
    shown = [(f"{((event.at or 0.0) - first) * 1000:.1f}", f"{site} got", event.move or "", event.state or "") for site, event in rows]
    stage.screen.table(("MS", "RECORD", "MESSAGE", "STATE"), shown)
    for site, view in ((stage.biopharma, ours), (stage.hospital, theirs)):
        _demand(view.state == "FINALIZED", f"{site.name} holds {view.state}, not FINALIZED: {'; '.join(view.reasons)}")
    _demand(ours.agreement is not None and ours.agreement == theirs.agreement, "the two sides hold different agreements")
    _demand(tuple(event.move for _, event in rows) == COUNTERED, f"the messages were {[event.move for _, event in rows]}")
    _demand(bool(theirs.instead) and asked != agreed, f"what was agreed is not what the hospital countered with: {agreed}")
    _demand("2030-12-31" in agreed and "quality" not in agreed, f"what was agreed is not what both have in common: {agreed}")
    return ours


async def _pull(stage: Stage) -> Pull:
    size_bytes = stage.datasets[0].path.stat().st_size
    stage.screen.title("The pull, cut twice", f"{show.size(size_bytes)} over a slow line; SIGKILL for the hospital, then for the biopharma")
    out = stage.biopharma.directory / "observations.ndjson"
    last = await stage.consumer.pull("hospital", data.OBSERVATIONS, str(out), purposes=["research"])
    cuts = [(FIRST_CUT, stage.hospital), (SECOND_CUT, stage.biopharma)]
    with stage.screen.progress(size_bytes) as update:
        async for seen in stage.consumer.follow(last.id):
            update(seen.received_bytes)
            if cuts and seen.stage == "download" and seen.received_bytes >= cuts[0][0] * size_bytes:
                await _cut(stage, cuts.pop(0)[1], seen)
            last = seen
    _demand(last.stage == "done", f"the pull ended as {last.stage}: {'; '.join(last.reasons)}")
    _demand(last.reused, "the agreement was not reused")
    _demand(not cuts, f"the download was over before {len(cuts)} of 2 cuts")
    carried, resumed_at = stage.line.carried_bytes, stage.line.resumed_at
    for offset in resumed_at:
        stage.screen.say(f"after a cut it went on where it stopped: Range: bytes={offset}-")
    _demand(len(resumed_at) >= CUTS and min(resumed_at) > 0, "the download did not go on where it stopped")
    _demand(carried <= CARRIED_MAX * size_bytes, f"{carried} bytes went over the line for a file of {size_bytes}")
    stage.screen.say(f"{carried:,} bytes went over the line for a file of {size_bytes:,}; the agreement was reused")
    for client, pid in ((stage.consumer, last.transfer), (stage.provider, None)):
        state = (await client.transfer_process(pid)).state if pid else (await client.transfers()).items[0].state
        _demand(state == "COMPLETED", f"a transfer ended as {state}, not COMPLETED")
    return last


async def _cut(stage: Stage, site: Site, at: Pull) -> None:
    stage.screen.say(f"kill -9 {site.pid}, the {site.name}, at {at.received_bytes:,} of {at.size_bytes:,} bytes")
    await site.kill()
    stage.line.cut()
    seconds = await site.start()
    stage.screen.say(f"{site.name} runs again after {seconds:.2f} s; nobody tells it what to do")


def _check_digest(stage: Stage, pull: Pull) -> None:
    source = stage.datasets[0].path
    stage.screen.title("The digest", f"SHA-256 of {source.name}: what came, and the source")
    came = Path(pull.out)
    here, there = _sha256(came), _sha256(source)
    stage.screen.facts({"biopharma": here, "hospital": there})
    lines = came.read_text(encoding="utf-8").splitlines()
    stage.screen.say(f"{len(lines):,} FHIR resources, the first of them:")
    stage.screen.crop(lines[0])
    _demand(here == there == pull.sha256, "the file is not the source")


async def _signed(stage: Stage, pull: Pull) -> None:
    agreement, sites = pull.agreement or "", ((stage.biopharma, stage.consumer), (stage.hospital, stage.provider))
    stage.screen.title("What both have signed", "the counts of the pull, and the evidence of each side checked without either of them")
    counts = [(await client.usage(agreement)).signed for _, client in sites]
    stage.screen.facts(
        {site.name: f"{count['bytes']:,} bytes, {count['records']:,} records" for (site, _), count in zip(sites, counts, strict=True)}
    )
    _demand(counts[0] == counts[1] and counts[0]["bytes"] == pull.size_bytes, f"signed for are {counts}, and came {pull.size_bytes} bytes")
    files = [site.directory / "agreement.evidence.jsonl" for site, _ in sites]
    for file, (_, client) in zip(files, sites, strict=True):
        await export(client, agreement, file, "counterparty", None)
    checked = await asyncio.to_thread(check, files, stage.biopharma.directory / "participants")
    _demand(checked.good, f"the evidence does not hold: {checked.to_json()}")
    sizes = " and ".join(show.size(file.stat().st_size) for file in files)
    stage.screen.say(f"connector evidence export, on both sides: {sizes}; verify: both are sound, and tell the same")
    forged = bytearray(files[1].read_bytes())
    forged[len(forged) // 2] ^= 1
    (report,) = (
        await asyncio.to_thread(check, [_written(stage.hospital.directory / "forged.jsonl", bytes(forged))], None)
    ).reports.values()
    stage.screen.say(f"with one bit turned over: {report.findings[0].says}")
    _demand(report.findings[0].offset == len(forged) // 2, "the byte that was altered was not found")


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


async def _table(stage: Stage) -> Pull:
    source = stage.datasets[1].path
    stage.screen.title("The table, in one call", f"connector get hospital {data.CONDITIONS} --out {source.name}")
    out = stage.biopharma.directory / source.name
    began = time.perf_counter()
    last = await stage.consumer.pull("hospital", data.CONDITIONS, str(out))
    if not last.is_over:
        async for seen in stage.consumer.follow(last.id):
            last = seen
    took = time.perf_counter() - began
    _demand(last.stage == "done", f"the pull ended as {last.stage}: {'; '.join(last.reasons)}")
    _demand(_sha256(out) == _sha256(source), "the table is not the source")
    rows = out.read_text(encoding="utf-8").splitlines()
    stage.screen.say(f"negotiated, fetched, checked and completed in {took * 1000:.0f} ms: {len(rows) - 1} rows")
    for row in rows[:3]:
        stage.screen.crop(row)
    return last


async def _owed(stage: Stage, pull: Pull) -> None:
    stage.screen.title("What is owed", f"{data.PRICE} EUR for each delivery of the table; each side makes its own invoice")
    invoices = []
    for site, client in ((stage.biopharma, stage.consumer), (stage.hospital, stage.provider)):
        said = json.loads(await client.invoice(pull.agreement or ""))
        (line,) = said["lines"]
        invoices.append((site.name, str(line["quantity"]), said["total"], said["attested"], said["digest"]))
    stage.screen.table(("WHO", "DELIVERIES", "EUR", "ATTESTED BY", "DIGEST OF THE INVOICE"), invoices)
    _demand(invoices[0][1:] == invoices[1][1:], f"the two invoices differ: {invoices}")
    _demand(invoices[0][1:4] == ("1", data.PRICE, "both"), f"the invoice says {invoices[0]}")


async def _nothing_twice(stage: Stage) -> None:
    stage.screen.title("Nothing lost, nothing twice", "what both sides hold after two deaths")
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
    stage.screen.say("both: 3 negotiations (2 finalized, 1 refused), 2 agreements, 2 transfers (completed), no undelivered message")


async def _trace(stage: Stage, agreed: Negotiation) -> None:
    trace = next((event.detail["trace"] for _, event in await _record(stage, agreed) if "trace" in (event.detail or {})), "")
    stage.screen.title("The trace of the negotiation", f"one id over both connectors: {trace}")
    spans: list[demo_screen.Span] = []
    waited_until = time.perf_counter() + TRACE_SECONDS
    while {span.site for span in spans} != {"hospital", "biopharma"} and time.perf_counter() < waited_until:
        files = [site.spans_file for site in (stage.hospital, stage.biopharma) if site.spans_file.exists()]
        spans = demo_screen.spans_of([line for file in files for line in file.read_text(encoding="utf-8").splitlines()], trace)
        await asyncio.sleep(0.05)
    _demand({span.site for span in spans} == {"hospital", "biopharma"}, "the trace does not reach over both connectors")
    branches = demo_screen.tree(spans)
    stage.screen.table(("AT MS", "TOOK MS", "WHO", "WHAT"), demo_screen.rows(branches, branches[0].span.began), crop=True)


def _sum_up(screen: Screen, hospital: Site, biopharma: Site, seconds: float) -> None:
    together = hospital.peak_bytes + biopharma.peak_bytes
    screen.title("Done", f"in {seconds:.1f} s")
    screen.facts(
        {
            "most memory": f"{together / 1e6:.0f} MB together, of {MEMORY_BYTES_MAX / 1e6:.0f} MB allowed: "
            f"hospital {hospital.peak_bytes / 1e6:.0f} MB, biopharma {biopharma.peak_bytes / 1e6:.0f} MB"
        }
    )
    _demand(0 < together < MEMORY_BYTES_MAX, f"both connectors together took {together} bytes of memory")


def _how_to_look_around(screen: Screen, home: Path) -> None:
    screen.title("To look around", "run both again, each in a terminal of its own, and ask in a third one")
    for name in ("hospital", "biopharma"):
        screen.say(f"cd {home / name} && connector run")
    screen.say(f"cd {home / 'biopharma'}")
    for command in ("negotiations", "transfers", "pulls", "catalog hospital"):
        screen.say(f"connector {command}")
    screen.say("each folder holds connector.toml, connector.log, connector.db and spans.jsonl")


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ConnectorError(f"the demo did not go as it should: {otherwise}")
