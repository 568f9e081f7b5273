"""The reader of the kit's report: what it counts, and that it can say no."""

from pathlib import Path

import pytest

from tests.tck.report import CLEAN, Failure, read

PASSED = '<testcase name="met_01_01" classname="kit.Met"><system-out>display-name: MET:01-01: Verify</system-out></testcase>'
SKIPPED = '<testcase name="tp_02_04" classname="kit.Tp"><skipped>disabled</skipped></testcase>'
BROKEN = (
    '<testcase name="cn_01_01" classname="kit.Cn"><error message="java.net.ConnectException: refused&#10;more" type="x"/>'
    "<system-out>unique-id: 7\ndisplay-name: CN:01-01: Verify contract request\n</system-out></testcase>"
)
DENIED = '<testcase name="cat_01_01" classname="kit.Cat"><failure type="java.lang.AssertionError"/></testcase>'


def written(tmp_path: Path, cases: list[str], **counts: int) -> Path:
    head = " ".join(f'{key}="{value}"' for key, value in ({"tests": len(cases), "skipped": 0, "failures": 0, "errors": 0} | counts).items())
    path = tmp_path / "TEST-junit-jupiter.xml"
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?><testsuite name="JUnit Jupiter" {head}>{"".join(cases)}</testsuite>')
    return path


def test_a_clean_run_is_sixty_five_passed_none_failed_two_skipped(tmp_path):
    report = read(written(tmp_path, [PASSED] * 65 + [SKIPPED] * 2, skipped=2))
    assert report.clean
    assert report.line == CLEAN == "65 passed, 0 failed, 2 skipped"
    assert report.failures == ()


@pytest.mark.parametrize(
    ("cases", "counts"),
    [
        ([PASSED] * 64 + [SKIPPED] * 2, {"skipped": 2}),
        ([PASSED] * 66 + [SKIPPED] * 2, {"skipped": 2}),
        ([PASSED] * 65 + [SKIPPED] * 3, {"skipped": 3}),
        ([PASSED] * 65, {}),
        ([PASSED] * 64 + [BROKEN] + [SKIPPED] * 2, {"skipped": 2, "errors": 1}),
        ([], {}),
    ],
)
def test_any_other_count_is_not_clean(tmp_path, cases, counts):
    assert not read(written(tmp_path, cases, **counts)).clean


def test_assertions_and_exceptions_both_count_as_failed_and_are_named(tmp_path):
    report = read(written(tmp_path, [PASSED, BROKEN, DENIED], failures=1, errors=1))
    assert report.line == "1 passed, 2 failed, 0 skipped"
    assert report.failures == (
        Failure("CN:01-01: Verify contract request", "java.net.ConnectException: refused"),
        Failure("kit.Cat#cat_01_01", "java.lang.AssertionError"),
    )


def test_a_report_whose_head_contradicts_its_cases_is_refused(tmp_path):
    path = written(tmp_path, [PASSED, BROKEN])
    with pytest.raises(ValueError, match=r"announces \(2, 0, 0\).* but lists \(2, 1, 0\)"):
        read(path)
