"""Two exports of one agreement, as the two sides make them: whether they tell the same, and where not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from connector.evidence.report import FlowTold, Told, exactly

NAMES = ("agreement", "provider", "consumer", "dataset", "policy")  # what cannot be told differently of one agreement


def compare(one: Told, other: Told) -> tuple[str, ...]:
    """Where two sound files tell something else, as sentences; none if they tell the same. What one side has not got yet, and what it was
    never sent, is said too."""
    return tuple(_differences(one, other))


def _differences(one: Told, other: Told) -> Iterator[str]:
    for name in NAMES:
        if getattr(one, name) != getattr(other, name):
            yield f"the {name} is another in the first file than in the second"
    flows = [{(flow.transfer, flow.objects["manifest"]): flow for flow in told.flows} for told in (one, other)]
    for key in sorted(flows[0].keys() | flows[1].keys()):
        first, second = (each.get(key) for each in flows)
        if first is None or second is None:
            present = first or second
            if present is not None and (present.receipts or all(key[0] != flow.transfer for flow in (other if first else one).flows)):
                yield f"transfer {key[0]} is in the {'first' if first else 'second'} file alone, with {present.counts.bytes} bytes"
            continue
        yield from _flow(first, second)
    if one.closed != other.closed:
        yield f"the agreement is {_closed(one)} in the first file, {_closed(other)} in the second"
    yield from _ended(one, other)
    if one.by != other.by and one.invoice is not None and other.invoice is not None and one.invoice[:2] != other.invoice[:2]:
        yield f"the first file says {' '.join(one.invoice[:2])} are owed, the second {' '.join(other.invoice[:2])}"


def _ended(one: Told, other: Told) -> Iterator[str]:
    """Which closing, and which answer to one, only one side shows: the other has not got it, or keeps it back."""
    told = [{(each.by, each.at): each for each in of.closings} for of in (one, other)]
    for key in sorted(told[0].keys() | told[1].keys()):
        first, second = (each.get(key) for each in told)
        said = f"the closing by {key[0]} at {exactly(key[1])}"
        if first is None or second is None:
            yield f"{said} is in the {'first' if first else 'second'} file alone"
        elif first.answer != second.answer:
            yield f"{said}: by the first file {first.answer}; by the second {second.answer}"


def _closed(told: Told) -> str:
    """To the millisecond: two clocks that have each seen the end of it may be no further apart."""
    at = told.closed
    return "not closed" if at is None else f"closed at {datetime.fromtimestamp(at, UTC).isoformat(timespec='milliseconds')}"


def _flow(first: FlowTold, second: FlowTold) -> Iterator[str]:
    both = first.objects.keys() & second.objects.keys()
    for name in sorted(both, key=_order):
        if first.objects[name] != second.objects[name]:
            yield f"{name} of transfer {first.transfer} is another in the first file than in the second"
    for here, there, where in ((first, second, "first"), (second, first, "second")):
        alone = sorted(here.objects.keys() - there.objects.keys(), key=_order)
        if alone:
            yield f"{', '.join(alone)} of transfer {here.transfer} {'is' if len(alone) == 1 else 'are'} in the {where} file alone"
    if first.counts != second.counts:
        yield f"transfer {first.transfer} comes to {first.counts.bytes} bytes in the first file, to {second.counts.bytes} in the second"


def _order(name: str) -> tuple[int, str]:
    return (int(name.split()[1]), name) if " " in name else (0, name)
