"""Fetches the kit, checks it against `jars.sha256`, and runs it. No word of the product here."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
DIGESTS = HERE / "jars.sha256"
JAVA_AT_LEAST = 17  # what JUnit 6 needs
FETCH_SECONDS = 300  # for 21 MB from Maven Central
RUN_SECONDS = 900  # the clean run takes one to three minutes; each failing wait adds `config.WAIT_SECONDS`
PACKAGE = "org.eclipse.dataspacetck.dsp.verification"


class KitError(Exception):
    """The kit could not be fetched, is not the one we know, or did not run."""


def missing() -> str | None:
    """Return why the kit cannot run on this machine, or None if it can."""
    absent = [program for program in ("java", "mvn") if not shutil.which(program)]
    if absent:
        return f"{' and '.join(f'`{program}`' for program in absent)} not found: install a Java runtime >= {JAVA_AT_LEAST} and Maven"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) < JAVA_AT_LEAST:
        return f"Java {version[1] if version else '?'} is too old: the kit needs >= {JAVA_AT_LEAST}"
    return None


def fetch(lib: Path) -> None:
    """Bring the jars into `lib`, unless they are there already. Raises KitError if Maven fails or a digest differs."""
    wanted = digests(DIGESTS.read_text())
    if not differences(lib, wanted):
        return
    shutil.rmtree(lib, ignore_errors=True)
    command = ["mvn", "-B", "-ntp", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={lib}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    if done.returncode:
        raise KitError(f"Maven could not fetch the kit:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    if wrong := differences(lib, wanted):
        raise KitError("the jars are not those of `jars.sha256`, so nothing was run:\n" + "\n".join(wrong))


def digests(text: str) -> dict[str, str]:
    """Return file name -> SHA-256 (hex) from the lines of `sha256sum`."""
    return {name: digest for digest, name in (line.split() for line in text.splitlines())}


def differences(lib: Path, wanted: dict[str, str]) -> list[str]:
    """Return how the jars in `lib` differ from `wanted`, one line each; empty if they are exactly those."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in lib.glob("*.jar")}
    return [
        f"{name}: {'missing' if name not in found else 'not expected' if name not in wanted else 'another digest'}"
        for name in sorted(wanted | found)
        if wanted.get(name) != found.get(name)
    ]


def method(test: str) -> str:
    """Return the kit's method for a test as it is displayed: `CN_C:01-02` -> `cn_c_01_02`. Raises KitError for other forms."""
    if not re.fullmatch(r"(MET|CAT|CN|CN_C|TP|TP_C):\d\d-\d\d", test):
        raise KitError(f"`{test}` is no test of the kit: it must look like CN_C:01-02")
    return test.lower().translate({ord(":"): "_", ord("-"): "_"})


def run(lib: Path, directory: Path, properties: str, only: str | None = None) -> Path:
    """Run the kit and return its JUnit report.

    Parameters: `lib` the jars; `directory` for configuration, log and report (an old report is removed first);
    `properties` the configuration; `only` one test such as `CN:01-02`, or None for all. Raises KitError if there is no
    report afterwards.
    """
    conf, reports, log = directory / "conf", directory / "report", directory / "kit.log"
    shutil.rmtree(reports, ignore_errors=True)
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "junit-platform.properties").write_text(properties, encoding="latin-1")
    select = ["--select-package", PACKAGE, "--include-classname", ".*Test"]
    if only:
        select += ["--include-methodname", f".*#{method(only)}"]
    command = [
        *("java", "-cp", f"{conf}:{lib}/*", "org.junit.platform.console.ConsoleLauncher", "execute"),
        *("--disable-banner", "--disable-ansi-colors", "--details=tree", "--fail-if-no-tests", "--reports-dir", str(reports)),
        *select,
    ]
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=RUN_SECONDS, check=False).returncode
    report = reports / "TEST-junit-jupiter.xml"
    if not report.exists():
        raise KitError(f"the kit ended with {code} and left no report; the end of {log}:\n{log.read_text()[-2000:]}")
    return report
