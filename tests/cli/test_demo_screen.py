"""What the demo shows fits on 80 columns and into a file, and text from outside stays text; spans of two files become one tree in which
everything stands below its cause."""

import json
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from connector.cli import show
from connector.cli.demo_screen import COLUMNS, COLUMNS_MAX, Branch, Screen, Span, rows, spans_of, tree

TRACE = "ab" * 16
TREE = [("0.0", "hospital", "└ send ContractAgreementVerificationMessage and " + "more " * 20)]


def printed(columns: int | None = None) -> tuple[Screen, StringIO]:
    """A screen, and what is written: to a terminal of so many columns, or to a file."""
    out = StringIO()
    console = Console(file=out, width=columns, force_terminal=columns is not None, color_system=None, markup=False, highlight=False)
    return Screen(console), out


def lines(out: StringIO) -> list[str]:
    return show.ESCAPES.sub("", out.getvalue()).splitlines()


def everything(screen: Screen) -> None:
    screen.title("A step", "what is to be seen in it, " * 8)
    screen.say("a paragraph that goes on and on, " * 8)
    screen.facts({"asked": "use, if " * 30, "agreed": "use"})
    screen.table(("WHO", "SIZE", "TERMS"), [("hospital", "1.0 MB", "use, if " * 40), ("biopharma", "2 B", "")])
    screen.table(("AT MS", "WHO", "WHAT"), TREE, crop=True)
    screen.crop('{"resourceType":"Observation",' * 20)


@pytest.mark.parametrize(("columns", "most"), [(None, COLUMNS), (80, 80), (120, 120), (300, COLUMNS_MAX)])
def test_nothing_is_wider_than_it_should_be(columns: int | None, most: int):
    screen, out = printed(columns)
    everything(screen)
    assert most - 30 < max(map(len, lines(out))) <= most <= 120


def test_a_file_has_no_blanks_at_the_ends_of_its_lines():
    screen, out = printed()
    everything(screen)
    assert [line for line in lines(out) if line != line.rstrip()] == []


def test_only_the_last_column_of_a_table_gives_way():
    screen, out = printed(80)
    screen.table(("DATASET", "TERMS"), [("urn:demo:observations", "use, if " * 20)])
    head, first, second, *_ = lines(out)
    assert first.startswith("  urn:demo:observations  use, if")
    assert head.index("TERMS") == len(second) - len(second.lstrip()) == 25


def test_a_row_of_a_tree_stays_one_line():
    screen, out = printed(80)
    screen.table(("AT MS", "WHO", "WHAT"), TREE * 2, crop=True)
    assert len(lines(out)) == 3
    assert lines(out)[1].startswith("    0.0  hospital  └ send ContractAgreement")
    assert lines(out)[1].rstrip().endswith("…")


def test_text_from_outside_moves_nothing_and_is_no_markup():
    screen, out = printed()
    screen.say("[bold]x\x1b[2J\ry")
    screen.table(("REASON",), [("two\nlines \x1b]0;title\x07[red]",)])
    screen.crop("\x1b[1mfirst\nsecond")
    assert lines(out) == ["  [bold]x y", "  REASON", "  two lines [red]", "  first second"]
    assert "\x1b" not in out.getvalue()


def test_progress_in_a_file_is_a_line_whenever_another_tenth_has_come():
    screen, out = printed()
    with screen.progress(1_000_000) as update:
        for done in (0, 50_000, 100_000, 150_000, 199_999, 420_000, 425_000, 1_000_000, 1_000_000):
            update(done)
    said = lines(out)
    assert [line.partition("]")[2].split("%")[0].strip() for line in said] == ["10", "42", "100"]
    assert said[0] == f"  [####{'.' * 36}]  10 %  100.0 kB of 1.0 MB"
    assert "." * 5 not in said[-1]


def test_progress_on_a_terminal_is_a_bar_that_other_lines_pass():
    screen, out = printed(80)
    with screen.progress(1_000_000) as update:
        update(300_000)
        screen.say("kill -9")
        update(1_000_000)
    assert "1.0/1.0 MB" in out.getvalue()
    assert "  kill -9" in "\n".join(lines(out))


# ---- the trace


def span_line(id: str, parent: str | None, site: str = "hospital", *, second: float = 0.0, trace: str = TRACE, **members: Any) -> str:
    """A span as a connector writes it."""
    document = {
        "name": "send x",
        "context": {"trace_id": f"0x{trace}", "span_id": id},
        "parent_id": parent,
        "start_time": f"2026-01-31T12:00:{second:09.6f}Z",
        "end_time": f"2026-01-31T12:00:{second + 0.25:09.6f}Z",
        "attributes": {},
        "resource": {"attributes": {"service.name": site}},
    }
    return json.dumps(document | members)


def span(id: str, parent: str | None, began: float = 0.0, site: str = "hospital") -> Span:
    return Span(id, parent, site, f"what {id} did", began, 0.001)


def test_the_spans_of_one_trace_are_picked_out_of_the_lines_of_both():
    lines = [span_line("1", None, "biopharma", second=1.5), span_line("2", "1", second=1.75), span_line("3", None, trace="cd" * 16)]
    found = spans_of(lines, TRACE)
    assert [(each.id, each.parent, each.site, each.seconds) for each in found] == [
        ("1", None, "biopharma", 0.25),
        ("2", "1", "hospital", 0.25),
    ]
    assert found[1].began - found[0].began == 0.25


def test_a_line_that_a_kill_cut_short_is_left_out():
    assert [each.id for each in spans_of([span_line("1", None), span_line("2", "1")[:40], ""], TRACE)] == ["1"]


def test_a_span_that_sent_a_message_says_which_with_its_event():
    (found,) = spans_of([span_line("1", None, attributes={"message": "ContractNegotiationEventMessage:ACCEPTED"})], TRACE)
    assert found.name == "send ContractNegotiationEventMessage:ACCEPTED"


def test_an_address_is_shown_without_what_all_addresses_of_the_protocol_begin_with():
    (found,) = spans_of([span_line("1", None, name="protocol POST /dsp/2025-1/negotiations/request")], TRACE)
    assert found.name == "protocol POST /negotiations/request"


def test_what_was_caused_stands_below_its_cause_in_order_of_time():
    spans = [span("c", "a", 3.0, "biopharma"), span("b", "a", 2.0), span("a", None, 1.0, "biopharma"), span("d", "b", 2.5)]
    drawn = list(rows(tree(spans), 1.0))
    assert drawn == [
        ("0.0", "1.0", "biopharma", "what a did"),
        ("1000.0", "1.0", "hospital", "├ what b did"),
        ("1500.0", "1.0", "hospital", "│└ what d did"),
        ("2000.0", "1.0", "biopharma", "└ what c did"),
    ]


def test_a_span_whose_cause_was_lost_becomes_a_root():
    assert [branch.span.id for branch in tree([span("b", "lost", 2.0), span("a", None, 1.0)])] == ["a", "b"]


def flat(branches: tuple[Branch, ...]) -> list[Span]:
    return [each for branch in branches for each in (branch.span, *flat(branch.children))]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 100)), max_size=12))
def test_every_span_stands_in_the_tree_once_and_below_its_parent(drawn: list[tuple[int, float]]):
    spans = [span(str(number), str(parent) if parent < number else None, began) for number, (parent, began) in enumerate(drawn)]
    branches = tree(spans)
    assert sorted(flat(branches), key=lambda each: int(each.id)) == spans
    assert len(list(rows(branches, 0.0))) == len(spans)

    def holds(branch: Branch) -> bool:
        starts = [child.span.began for child in branch.children]
        return starts == sorted(starts) and all(child.span.parent == branch.span.id and holds(child) for child in branch.children)

    assert all(holds(branch) for branch in branches)
