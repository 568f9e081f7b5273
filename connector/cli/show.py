"""How things look on a terminal and in a pipe. Text from others can neither move the cursor nor pose as ours."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from connector.errors import ConnectorError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Sequences that a terminal obeys: CSI, OSC (up to BEL or ST), other strings, and two-character escapes (ECMA-48).
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL)
# Control characters, and those that are invisible or reorder the text around them (Unicode categories Cc and Cf).
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
BLANKS = re.compile(r"[\t\n\r ]+")
PIPE_COLUMNS = 10_000  # a pipe has no width: one row stays one line
GAP = 2  # blanks between the columns of a table
PROSE_COLUMNS = 30  # the last column may say long things; narrower than this they cannot be read
BYTES_STEP = 1000
Cell = str | int | float | bool | None


def take_anything() -> None:
    """Let both outputs take any text: what a terminal without Unicode does not have becomes a question mark, and what is written to an
    output that whoever began us has closed goes nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def clean(text: object) -> str:
    """`text` as one line that a terminal only prints: no escape sequences, no control, invisible or reordering characters."""
    seen = UNSEEN.sub(lambda found: " " if found[0] in "\t\n\r" else "", ESCAPES.sub("", str(text)))
    return BLANKS.sub(" ", seen).strip()  # after the unseen, which may have stood between blanks


def document(value: Any) -> None:
    """Print a value as JSON, the same members as the management API has."""
    import msgspec

    plain = (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8")  # a question mark would be another value
    text = json.dumps(msgspec.to_builtins(value), ensure_ascii=plain, indent=2)
    print(re.sub(UNSEEN, lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text))


def text(content: str) -> None:
    """Print a text of several lines as it is, without what a terminal would obey."""
    print(re.sub(UNSEEN, lambda found: found[0] if found[0] in "\r\n" else "", content), end="")


def line(text: object = "", *, indent: int = 0) -> None:
    """Print one line."""
    print(f"{' ' * indent}{clean(text)}")


def note(text: object, *, indent: int = 0) -> None:
    """Print one line that is not the result, where it does not mix with it."""
    print(f"{' ' * indent}{clean(text)}", file=sys.stderr, flush=True)


def put(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a new file, which has its `mode` (less the umask) from its first byte on. Raises OSError, with the name of the file: then there
    is none, and who has made room can say the same again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def unwritten(error: OSError) -> None:
    """Say that the output could not be written, of which nothing more is tried. Raises the error if it is about anything else."""
    if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else what is left of it fails again as the process ends
    if error.errno == errno.ENOSPC:  # and of a broken pipe whoever read it (`head`) has enough
        note(f"connector: the output cannot be written: {error.strerror}; make room, or send it elsewhere")


def failure(error: ConnectorError) -> None:
    """Print what went wrong and every reason that says more."""
    message = clean(error.message)
    note(f"connector: {message}")
    for reason in error.reasons:
        if clean(reason) not in message:
            note(f"- {clean(reason)}", indent=2)
    if pointer := getattr(error, "pointer", ""):
        note(f"at {clean(pointer)}", indent=2)
    if (trace := clean(getattr(error, "trace", ""))) and trace not in message:
        note(f"trace {trace}", indent=2)


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], nothing: str) -> None:
    """Print rows under their heads, or the line `nothing`. In a pipe a row is a line; on a terminal that is too narrow for
    that, it is a block of lines, so that an id can still be read and copied whole."""
    listed = [[clean("" if cell is None else cell) for cell in row] for row in rows]
    if not listed:
        note(nothing)
        return
    output = console()
    if output.is_terminal and not _fits(heads, listed, output.width):
        for number, row in enumerate(listed):
            if number:
                print()
            facts(dict(zip(heads, row, strict=True)))
        return
    with output.capture() as captured:
        output.print(_grid(heads, listed))
    print("\n".join(text.rstrip() for text in captured.get().splitlines()))


def _fits(heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> bool:
    """Whether a table stands in so many columns with only its last one folded, and that one still readable."""
    from rich.cells import cell_len

    *firsts, last = (max(map(cell_len, cells)) for cells in zip(heads, *rows, strict=True))
    return sum(firsts) + GAP * len(firsts) + min(last, PROSE_COLUMNS) <= columns


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if head in ("SIZE", "RECEIVED") else "left"
        shown.add_column(Text(head), overflow="fold", justify=justify, no_wrap=number + 1 < len(heads))
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def facts(pairs: Mapping[str, Cell]) -> None:
    """Print names and values, one pair a line; pairs without a value are left out."""
    known = {name: clean(value) for name, value in pairs.items() if value not in (None, "")}
    from rich.cells import cell_len

    width = max(map(cell_len, known), default=0)
    for name, value in known.items():
        print(f"{name}{' ' * (width - cell_len(name))}  {value}")


def console(*, stderr: bool = False) -> Console:
    """The terminal or pipe behind an output stream; nothing in a text is taken as markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_COLUMNS, markup=False, highlight=False, emoji=False)


def size(size_bytes: int | None) -> str:
    """Bytes in decimal units, as in 1.4 MB; a dash if not known."""
    if size_bytes is None:
        return "-"
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < BYTES_STEP:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= BYTES_STEP
    return f"{value:.1f} TB"


def moment(text: str | None) -> str:
    """An RFC 3339 instant to the second, for people."""
    return re.sub(r"\.\d+", "", text or "").replace("T", " ")


def instant(at: float | None) -> str:
    """POSIX seconds as `moment` shows an instant."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}" if at is not None else "-"
