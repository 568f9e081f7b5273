"""What the demo shows fits on 80 columns and into a file, and text from outside stays text."""

from io import StringIO

import pytest
from rich.console import Console

from connector.cli import show
from connector.cli.demo_screen import COLUMNS, COLUMNS_MAX, Screen

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
