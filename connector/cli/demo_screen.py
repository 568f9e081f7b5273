"""What the demo shows, so that it can be read on a terminal of 80 columns and in a file alike; and one trace over both connectors,
read from the spans that they write, as the rows of a tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from connector.cli import show
from connector.cli.init import DSP_PATH
from connector.values import Value

COLUMNS, COLUMNS_MAX = 100, 120  # where there is no terminal, and on the widest one: longer lines are hard to read
INDENT, GAP = 2, 2
BAR_COLUMNS = 40
NUMBERS = ("SIZE", "MS", "AT MS", "TOOK MS")  # columns that stand to the right


class Screen:
    """Prints to `console`, or to standard output. Text from outside is shown as text, whatever it contains."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(markup=False, highlight=False, emoji=False)
        self._console.width = min(self._console.width, COLUMNS_MAX) if self._console.is_terminal else COLUMNS

    def title(self, title: str, what: str = "") -> None:
        """Begin a step, with a sentence on what is to be seen."""
        self._put(Text(f"\n{title}", "bold cyan"))
        if what:
            self._put(self._indented(Text(what, "dim")))

    def say(self, text: str = "") -> None:
        """A paragraph."""
        self._put(self._indented(Text(show.clean(text))))

    def crop(self, text: str) -> None:
        """The beginning of a line of data, as far as there is room."""
        self._put(self._indented(Text(show.clean(text), no_wrap=True, overflow="ellipsis")))

    def facts(self, pairs: Mapping[str, str]) -> None:
        """Names and values; a long value goes on below itself."""
        self._rows(("", ""), pairs.items(), show_header=False)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]], *, crop: bool = False) -> None:
        """Rows under their heads. Only the last column gives way where there is no room: it is folded, or cropped."""
        self._rows(heads, rows, crop=crop)

    @contextmanager
    def progress(self, size_bytes: int) -> Iterator[Callable[[int], None]]:
        """Yields what is told how many of the bytes are there: it moves a bar on a terminal, and elsewhere prints one
        whenever another tenth has come. Other lines may be printed meanwhile."""
        if self._console.is_terminal:
            columns = (TextColumn(" "), BarColumn(BAR_COLUMNS), DownloadColumn(), TransferSpeedColumn())
            with Progress(*columns, console=self._console) as bar:
                task = bar.add_task("", total=size_bytes)
                yield lambda done_bytes: bar.update(task, completed=done_bytes)
            return
        tenths = 0

        def say(done_bytes: int) -> None:
            nonlocal tenths
            if done_bytes * 10 // size_bytes > tenths:
                tenths = done_bytes * 10 // size_bytes
                done = f"{'#' * (done_bytes * BAR_COLUMNS // size_bytes):.<{BAR_COLUMNS}}"
                says = f"[{done}] {done_bytes * 100 // size_bytes:>3} %  {show.size(done_bytes)} of {show.size(size_bytes)}"
                self._put(self._indented(Text(says)))

        yield say

    def _rows(self, heads: Sequence[str], rows: Iterable[Sequence[str]], *, show_header: bool = True, crop: bool = False) -> None:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False, show_header=show_header)
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if crop else "fold"
        cells = [[Text(_cell(cell), no_wrap=crop, overflow=overflow) for cell in row] for row in rows]
        for number, head in enumerate(heads):
            last = number + 1 == len(heads)
            wide = None if last else max(Text(head).cell_len, *(row[number].cell_len for row in cells))
            justify: Literal["left", "right"] = "right" if head in NUMBERS else "left"
            table.add_column(Text(head), justify=justify, min_width=wide, no_wrap=not last, overflow=overflow)
        for row in cells:
            table.add_row(*row)
        self._put(self._indented(table))

    def _indented(self, what: RenderableType) -> Padding:
        return Padding(what, (0, 0, 0, INDENT))

    def _put(self, what: RenderableType) -> None:
        """Print; into a file without the blanks that fill lines up."""
        if self._console.is_terminal:
            self._console.print(what)  # its own way, as a bar may stand below
            return
        with self._console.capture() as captured:
            self._console.print(what)
        for line in captured.get().splitlines():
            self._console.file.write(f"{line.rstrip()}\n")
        self._console.file.flush()


def _cell(cell: str) -> str:
    """One line, its leading blanks kept."""
    return " " * (len(cell) - len(cell.lstrip(" "))) + show.clean(cell)


class Span(Value):
    """One span: which connector worked on what, from when (POSIX seconds) for how long."""

    id: str
    parent: str | None
    site: str
    name: str
    began: float
    seconds: float


class Branch(Value):
    """A span with what it caused, in order of time."""

    span: Span
    children: tuple[Branch, ...]


def spans_of(lines: Iterable[str], trace: str) -> list[Span]:
    """The spans of the trace (32 hexadecimal digits) among `lines`, one JSON object each. A half-written last line is left
    out: its writer may have been killed."""
    found = []
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if document["context"]["trace_id"].removeprefix("0x") == trace:
            began, ended = (datetime.fromisoformat(document[name]).timestamp() for name in ("start_time", "end_time"))
            site = document["resource"]["attributes"]["service.name"]
            name = _name(document["name"], document["attributes"].get("message"))
            found.append(Span(document["context"]["span_id"], document["parent_id"], site, name, began, ended - began))
    return found


def tree(spans: Iterable[Span]) -> tuple[Branch, ...]:
    """The spans as trees: those whose parent is not among them are roots."""
    ordered = sorted(spans, key=lambda span: span.began)
    known = {span.id for span in ordered}

    def below(parent: str | None) -> tuple[Branch, ...]:
        return tuple(Branch(span, below(span.id)) for span in ordered if span.parent == parent)

    return tuple(Branch(span, below(span.id)) for span in ordered if span.parent not in known)


def rows(branches: Sequence[Branch], began: float) -> Iterator[tuple[str, str, str, str]]:
    """The trees as rows: milliseconds since `began`, how long, which connector, and what, drawn below its cause."""
    for root in branches:
        yield from _rows(root, began, "", "")


def _rows(branch: Branch, began: float, before: str, below: str) -> Iterator[tuple[str, str, str, str]]:
    """`before` stands before what this span did, `below` before what it caused."""
    span = branch.span
    yield f"{(span.began - began) * 1000:.1f}", f"{span.seconds * 1000:.1f}", span.site, f"{before}{span.name}"
    for number, child in enumerate(branch.children, 1):
        last = number == len(branch.children)
        yield from _rows(child, began, below + ("└ " if last else "├ "), below + (" " if last else "│"))


def _name(name: str, message: str | None) -> str:
    """What a span is called here: the message with the event it carries, an address without what all of them begin with."""
    return f"send {message}" if message else name.replace(DSP_PATH, "")
