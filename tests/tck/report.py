"""Reads the JUnit report of the kit. Passed means: the numbers are exactly those of a clean run, not merely no failure."""

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

CLEAN = "65 passed, 0 failed, 2 skipped"
MESSAGE_LENGTH = 200  # characters of a failure's message that are shown


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed: `name` as the kit displays it (`CN:02-01: Verify ...`), `message` its first line."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one run came to."""

    passed: int
    failed: int
    skipped: int
    failures: tuple[Failure, ...]

    @property
    def line(self) -> str:
        """The closing line, `65 passed, 0 failed, 2 skipped`."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    @property
    def clean(self) -> bool:
        return self.line == CLEAN


def read(path: Path) -> Report:
    """Return the report in `path` (`TEST-junit-jupiter.xml`). Raises FileNotFoundError, and ValueError if the counts in
    its head are not those of the cases below it: then one of the two is not to be trusted."""
    suite = ElementTree.parse(path).getroot()
    tests, skipped, failed = (int(suite.get(key, "0")) for key in ("tests", "skipped", "failures"))
    failed += int(suite.get("errors", "0"))  # most failures of a connector end as exceptions, not as assertions
    cases = suite.findall("testcase")
    failures = tuple(sorted((failure for case in cases if (failure := _failure(case))), key=lambda failure: failure.name))
    counted = (len(cases), len(failures), sum(case.find("skipped") is not None for case in cases))
    if counted != (tests, failed, skipped):
        raise ValueError(f"`{path.name}` announces {(tests, failed, skipped)} tests, failures, skips but lists {counted}")
    return Report(tests - failed - skipped, failed, skipped, failures)


def _failure(case: ElementTree.Element) -> Failure | None:
    for tag in ("failure", "error"):
        found = case.find(tag)
        if found is not None:
            output = "\n".join(element.text or "" for element in case.findall("system-out"))
            shown = re.search(r"^display-name: (.*)$", output, re.MULTILINE)
            name = shown[1].strip() if shown else f"{case.get('classname')}#{case.get('name')}"
            message = (found.get("message") or found.get("type") or found.text or "no message").strip()
            return Failure(name, message.splitlines()[0][:MESSAGE_LENGTH])
    return None
