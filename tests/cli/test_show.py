"""Output: foreign text is only ever text, tables line up, JSON stays JSON."""

import json
import sys
import unicodedata
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from connector.cli import show
from connector.client.transport import ManagementError
from connector.errors import ConnectorError


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ends", ""),
        ("\x9b31mred", "red"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1b(0lqk", "lqk"),
        ("\x1bcreset", "reset"),
        ("over\rwritten", "over written"),
        ("two\nlines", "two lines"),
        ("back\x08space\x7f\x00", "backspace"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("桥 [red]not markup[/red] :smile:", "桥 [red]not markup[/red] :smile:"),
    ],
)
def test_a_terminal_has_nothing_to_obey(text: str, cleaned: str):
    assert show.clean(text) == cleaned


@given(st.text(st.characters(categories=["Cc", "Cf", "Lu", "Nd", "Ps", "Po"]) | st.sampled_from("\x1b\x9b[]m;\\\x07"), max_size=40))
@example("0\n\x1f\n0")
def test_whatever_comes_in_no_control_character_comes_out(text: str):
    assert not [c for c in show.clean(text) if unicodedata.category(c) == "Cc" or c in "\u202e\u2066\u200b"]
    assert show.clean(show.clean(text)) == show.clean(text)


def test_json_keeps_foreign_text_but_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]):
    value = {"title": "桥\x1b[31m\x9b31m\u202e\nend"}
    show.document(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "桥" in printed
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed)


def test_json_is_the_same_value_on_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch):
    printed = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(printed, encoding="latin-1", errors="replace"))
    show.document({"title": "心率 \U0001f493 é"})
    sys.stdout.flush()
    assert json.loads(printed.getvalue().decode("ascii")) == {"title": "心率 \U0001f493 é"}


def test_a_table_in_a_pipe_has_one_line_for_a_row(capsys: pytest.CaptureFixture[str]):
    show.table(("ID", "SIZE", "NOTE"), [("a" * 200, "1 B", "[b]x[/b]\x1b[1m\ny"), ("桥", None, True)], "nothing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ID{' ' * 198}  SIZE  NOTE"
    assert lines[1] == f"{'a' * 200}   1 B  [b]x[/b] y"
    assert lines[2] == f"桥{' ' * 198}        True"


PROCESS = (("PID", "STATE", "NOTE"), [("urn:uuid:" + "1" * 36, "REQUESTED", "a long reason " * 9), ("urn:uuid:2", "FINALIZED", "")])


def on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a table on a terminal of that width, without their styles."""
    terminal = Console(file=StringIO(), force_terminal=True, width=columns, no_color=True, color_system=None)
    monkeypatch.setattr(show, "console", lambda: terminal)
    show.table(*PROCESS, "nothing")
    return show.ESCAPES.sub("", capsys.readouterr().out).splitlines()


def test_a_table_on_a_terminal_folds_only_its_last_column(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lines = on_a_terminal(100, monkeypatch, capsys)
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["PID", "STATE", "NOTE"]
    assert lines[1].startswith(f"urn:uuid:{'1' * 36}  REQUESTED  a long reason")
    assert lines[2].startswith(" " * lines[0].index("NOTE") + "a long reason")
    assert lines[-1] == f"urn:uuid:2{' ' * 37}FINALIZED"


def test_on_a_terminal_that_is_too_narrow_each_row_is_a_block_with_its_id_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    reason = ("a long reason " * 9).strip()
    first = [f"PID    urn:uuid:{'1' * 36}", "STATE  REQUESTED", f"NOTE   {reason}"]
    assert on_a_terminal(80, monkeypatch, capsys) == [*first, "", "PID    urn:uuid:2", "STATE  FINALIZED"]


def test_an_empty_table_says_so_beside_the_output(capsys: pytest.CaptureFixture[str]):
    show.table(("ID",), [], "no orders")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "no orders\n")


def test_facts_line_up_and_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]):
    show.facts({"pid": "p\x1b[1m", "peer's pid": "q", "due": None, "note": "", "received": 0})
    assert capsys.readouterr().out == "pid         p\npeer's pid  q\nreceived    0\n"


def test_a_failure_says_each_reason_once(capsys: pytest.CaptureFixture[str]):
    show.failure(ConnectorError("it is `x`; write `y`"))
    show.failure(ManagementError("refused", ("refused", "purpose is \x1b[31mresale"), pointer="/policy", trace="abc"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "connector: it is `x`; write `y`\nconnector: refused\n  - purpose is resale\n  at /policy\n  trace abc\n"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_440_000, "1.4 MB"), (5 * 10**9, "5.0 GB"), (2 * 10**15, "2000.0 TB")],
)
def test_sizes_are_readable(size_bytes: int | None, text: str):
    assert show.size(size_bytes) == text


def test_instants_are_shown_to_the_second():
    assert show.moment("2026-01-31T12:00:00.123Z") == "2026-01-31 12:00:00Z"
    assert show.moment(None) == ""
    assert show.instant(0.0) == "1970-01-01 00:00:00Z"
    assert show.instant(None) == "-"


def test_a_text_is_printed_with_its_lines_and_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]):
    show.text("a,b\r\n1,\x1b[2J2\r\n")
    assert capsys.readouterr().out == "a,b\r\n1,[2J2\r\n"
