"""One trace over both connectors of the demo: their spans, read from the files they write, as one tree. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


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
            found.append(Span(document["context"]["span_id"], document["parent_id"], site, document["name"], began, ended - began))
    return found


def tree(spans: Iterable[Span]) -> tuple[Branch, ...]:
    """The spans as trees: those whose parent is not among them are roots."""
    ordered = sorted(spans, key=lambda span: span.began)
    known = {span.id for span in ordered}

    def below(parent: str | None) -> tuple[Branch, ...]:
        return tuple(Branch(span, below(span.id)) for span in ordered if span.parent == parent)

    return tuple(Branch(span, below(span.id)) for span in ordered if span.parent not in known)


def rows(branches: Iterable[Branch], began: float, depth: int = 0) -> Iterator[tuple[str, str, str, str]]:
    """The trees as rows: milliseconds since `began`, how long, which connector, and what, indented by cause."""
    for branch in branches:
        span = branch.span
        yield f"{(span.began - began) * 1000:.1f}", f"{span.seconds * 1000:.1f}", span.site, f"{'  ' * depth}{span.name}"
        yield from rows(branch.children, began, depth + 1)
