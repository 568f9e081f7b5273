"""The demo as a person sees it who starts it: every step of the main job, in two processes, and nothing left behind.

What is run here has fewer patients and a faster line than `make demo`, which CI runs as it is.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from connector.cli import demo

SMALL = """
import functools, sys
from connector.cli import commands, demo
demo.main = functools.partial(demo.main, patients={patients}, line_seconds={line_seconds})
sys.exit(commands.run_command_line({arguments}))
"""
# A demo that is not to come to its end has two patients that no library makes: to import that takes as long as all else until then.
FEW = """
import json
from connector.cli_demo import data
of = [{"reference": f"Patient/{n}"} for n in range(2)]
people = [{"resourceType": "Patient", "id": str(n), "gender": "female", "birthDate": "1976-04-01"} for n in range(2)]
seen = [{"resourceType": "Observation", "subject": each, "valueQuantity": {"value": n}} for each in of for n in range(100)]
coding = [{"code": "E78.00", "display": "Pure hypercholesterolemia"}]
had = [{"resourceType": "Condition", "subject": each, "code": {"coding": coding}} for each in of]
streams = {"Patient": people, "Observation": seen, "Condition": had}
data._cohort = lambda _: {name: "".join(json.dumps(each) + "\\n" for each in stream) for name, stream in streams.items()}
"""
SECONDS = 250  # it takes ten: a machine may be five times slower, and busy
DIGEST = r"[0-9a-f]{64}"
REASON = "Denied: purpose 'marketing' is not one of 'research', 'quality'"


def begin(directory: Path, *arguments: str, patients: int = 2, line_seconds: float = 1.0, before: str = FEW) -> subprocess.Popen[str]:
    """`connector demo` in a process of its own, into a pipe."""
    program = before + SMALL.format(patients=patients, line_seconds=line_seconds, arguments=["demo", *arguments])
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program], cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids(out: str) -> list[int]:
    """Of the connectors, as the table at the start names them."""
    found = re.findall(r"^  (?:hospital|biopharma) +did:web:\S+ +(\d+) ", out, re.MULTILINE)
    assert len(found) == 2, out
    return [int(pid) for pid in found]


@dataclass(frozen=True)
class Played:
    """A demo that went well: what it printed, by the titles of its steps, and what it left because it was asked to."""

    out: str
    home: Path

    def step(self, title: str) -> str:
        """What stands below a title, up to the next one."""
        found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^\S|\Z)", self.out, re.MULTILINE | re.DOTALL)
        assert found, title
        return found[1]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("demo")
    with begin(directory, "--keep", patients=100, line_seconds=1.5, before="") as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, ""), out + err
    (home,) = (directory / "build").iterdir()
    return Played(out, home)


def test_it_can_be_read_in_a_pipe(played: Played):
    lines = played.out.splitlines()
    assert 80 <= max(map(len, lines)) <= 120
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in played.out


def test_two_processes_come_and_go(played: Played):
    assert len(set(pids(played.out))) == 2
    assert not any(map(alive, pids(played.out)))


def test_files_and_a_table_stand_under_policies_and_the_catalog_shows_what_is_for_the_biopharma(played: Played):
    published, catalog = played.step("Publish"), played.step("Catalog")
    assert "use, if purpose is one of [research, quality] and dateTime <= 2030-12-31Z; must not distribute" in " ".join(published.split())
    for dataset in ("urn:demo:observations", "urn:demo:conditions", "urn:demo:patients"):
        assert dataset in published
        assert (dataset in catalog) == (dataset != "urn:demo:patients")
    assert "application/fhir+ndjson" in catalog
    assert "text/csv" in catalog


def test_a_refused_purpose_has_its_reason_on_both_sides(played: Played):
    text = " ".join(played.step("A refused purpose").split())
    biopharma, hospital = re.findall(r"(?:biopharma|hospital) TERMINATED (.*?)(?= hospital TERMINATED|$)", text)
    assert biopharma == hospital
    assert biopharma.startswith(REASON)


def test_the_counter_offer_is_what_was_agreed_to(played: Played):
    text = " ".join(played.step("A negotiation with a counter-offer").split())
    said = re.search(r"asked (.*?) countered (.*?) agreed (.*?) MS ", text)
    assert said
    asked, countered, agreed = said.groups()
    assert "purpose is research" in asked
    assert "2030-12-31" not in asked
    assert "2030-12-31" in countered, "what the hospital changed, in plain words"
    assert "purpose is research" in agreed
    assert "2030-12-31" in agreed
    assert "must not distribute" in agreed
    assert re.findall(r"(?:hospital|biopharma) got (\S+)", text) == list(demo.COUNTERED)


def test_the_pull_shows_its_progress_and_goes_on_where_it_was_cut_twice(played: Played):
    text = played.step("The pull, cut twice")
    shares = [int(share) for share in re.findall(r"\] +(\d+) % ", text)]
    assert shares == sorted(set(shares))
    assert shares[-1] == 100
    assert len(shares) >= 3
    killed = re.findall(r"kill -9 (\d+), the (\w+), at ([\d,]+) of ([\d,]+) bytes", text)
    assert [int(pid) for pid, *_ in killed] == pids(played.out)
    offsets = [int(offset) for offset in re.findall(r"Range: bytes=(\d+)-", text)]
    size = (played.home / "hospital" / "data" / "observations.ndjson").stat().st_size
    assert len(offsets) >= 2
    assert 0 < min(offsets) <= max(offsets) < size
    assert f"for a file of {size:,}" in text


def test_the_digest_is_checked_against_the_source(played: Played):
    here, there = re.findall(rf"(?:biopharma|hospital) +({DIGEST})", played.step("The digest"))
    source, came = played.home / "hospital" / "data" / "observations.ndjson", played.home / "biopharma" / "observations.ndjson"
    assert here == there
    assert source.read_bytes() == came.read_bytes()
    assert json.loads(came.read_text().splitlines()[0])["resourceType"] == "Observation"


def test_the_table_comes_whole(played: Played):
    source, came = played.home / "hospital" / "data" / "conditions.csv", played.home / "biopharma" / "conditions.csv"
    assert source.read_bytes() == came.read_bytes()
    assert "patient,gender,birth_year,code,condition,onset" in played.step("The table, in one call")


def test_both_sides_come_to_the_same_invoice(played: Played):
    found = re.findall(r"(biopharma|hospital) +(\d+) +([\d.]+) +both +(\S+)", played.step("What is owed"))
    digest = found[0][3]
    assert found == [("biopharma", "1", "12.50", digest), ("hospital", "1", "12.50", digest)]


def test_the_examples_name_all_that_it_shows_in_its_order_and_what_it_prints_of_what_is_owed(played: Played):
    told = (Path(__file__).parents[2] / "examples" / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in told.splitlines() if line.startswith("| the main job |")]
    titles = re.findall(r"^(?! )(.+)\n  \S", played.out, re.MULTILINE)
    shown = [title for title in titles if title not in ("Set up", "Publish", "Done", "To look around")]
    assert re.findall(r"`([^`]+)`", row.rpartition("|")[0].rpartition("|")[2]) == shown
    printed = re.sub(r"(both +)(\S{43})$", lambda found: found[1], played.step("What is owed"), flags=re.MULTILINE)
    excerpt = re.sub(
        r"(both +)\(.+\)$", lambda found: found[1], told.partition("```\nWhat is owed\n")[2].partition("```")[0], flags=re.MULTILINE
    )
    assert [line.rstrip() for line in excerpt.split("\n")] == [line.rstrip() for line in printed.rstrip().split("\n")] + [""]


def test_nothing_is_lost_and_nothing_twice(played: Played):
    text = " ".join(played.step("Nothing lost, nothing twice").split())
    assert "3 negotiations (2 finalized, 1 refused), 2 agreements, 2 transfers (completed), no undelivered message" in text


def test_the_trace_is_one_tree_over_both_processes(played: Played):
    text = played.step("The trace of the negotiation")
    trace = re.search(r"one id over both connectors: ([0-9a-f]{32})$", text, re.MULTILINE)
    assert trace
    head, *lines = text[text.index("  AT MS") :].splitlines()
    rows = [(line[head.index("WHO") : head.index("WHAT")].strip(), line[head.index("WHAT") :]) for line in lines if line]
    assert rows[0] == ("biopharma", "management POST /v1/negotiations")
    assert all(re.match(r"[ │]*[├└] ", what) for _, what in rows[1:])  # everything else has a cause
    depths = [len(re.match(r"[ │├└]*", what)[0]) for _, what in rows]  # type: ignore[index]
    assert max(depths) > 8
    sent = [re.search(r"send (\S+)", what) for _, what in rows]
    assert [found[1] for found in sent if found] == list(demo.COUNTERED)
    for name in ("hospital", "biopharma"):
        assert trace[1] in (played.home / name / "spans.jsonl").read_text()


def test_time_and_memory_are_measured_and_said(played: Played):
    text = " ".join(played.step("Done").split())
    seconds = re.search(r"in ([\d.]+) s", text)
    memory = re.search(r"most memory (\d+) MB together, of 300 MB allowed: hospital (\d+) MB, biopharma (\d+) MB", text)
    assert seconds
    assert memory
    assert float(seconds[1]) < 60
    together, hospital, biopharma = map(int, memory.groups())
    assert 20 < hospital < 300
    assert 20 < biopharma < 300
    assert abs(together - hospital - biopharma) <= 1
    assert together < 300


def test_what_is_kept_can_be_looked_at_as_it_says(played: Played):
    text = played.step("To look around")
    for name in ("hospital", "biopharma"):
        assert f"cd {played.home / name} && connector run".replace(" ", "") in re.sub(r"\s", "", text)
        assert {"connector.toml", "connector.log", "connector.db", "spans.jsonl"} <= {each.name for each in (played.home / name).iterdir()}
        assert "Traceback" not in (played.home / name / "connector.log").read_text()


def test_a_step_that_does_not_happen_ends_the_demo_with_what_is_wrong_and_keeps_what_was_done(tmp_path: Path):
    with begin(tmp_path) as process:  # a file so small that it is over before it can be cut
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(r"connector: the demo did not go as it should: the download .*\n", err)
    (home,) = (tmp_path / "build").iterdir()
    assert str(home) in re.sub(r"\s", "", out)
    assert "Done" not in out
    assert not any(map(alive, pids(out)))


@pytest.mark.parametrize(
    ("how", "before"),
    [
        (signal.SIGINT, ""),
        (signal.SIGTERM, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"),
        (signal.SIGHUP, "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"),  # the tests may run under `nohup`
    ],
    ids=["interrupted", "stopped by a script that runs it beside itself", "its terminal was closed"],
)
def test_a_demo_that_is_stopped_takes_its_connectors_with_it(tmp_path: Path, how: signal.Signals, before: str):
    with begin(tmp_path, line_seconds=30.0, before=before + FEW) as process:
        assert process.stdout is not None
        out = ""
        while "The pull" not in out:
            line = process.stdout.readline()
            assert line, out
            out += line
        process.send_signal(how)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert not any(map(alive, pids(out)))
    assert list((tmp_path / "build").iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path):
    (tmp_path / "build").write_text("not a folder")
    with begin(tmp_path) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert err.startswith("connector: the demo needs a folder `build` to write to: File exists")
