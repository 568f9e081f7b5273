"""One trace over both connectors of the demo: their spans, read from the files they write, as one tree. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from connector.cli.init import DSP_PATH


@dataclass(frozen=True, slots=True)
class Span:
    """One span: which connector worked on what, from when (POSIX seconds) for how long."""

    id: str
    parent: str | None
    site: str
    name: str
    began: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Branch:
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
