"""Two exports of one agreement, as the two sides make them: whether they tell the same, and where not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from connector.evidence.case import AHEAD_SECONDS
from connector.evidence.report import FlowTold, Told, exactly, rfc3339

INDEXES_MAX = 10  # entries that are named by their places
REMOVED = ", unless it was removed for the other because its time to be kept was over"
BEGUN = frozenset({"ContractRequestMessage", "ContractOfferMessage", "TransferRequestMessage"})  # moves with which processes begin
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
                what = f"with {present.counts.bytes} bytes" if present.receipts else "and its consumer has signed for nothing of it"
                yield f"transfer {key[0]} is in the {'first' if first else 'second'} file alone, {what}"
                yield from _own(present, tuple(present.objects), other if first else one)
            continue
        yield from _flow(first, second, one, other)
    if one.closed != other.closed:
        yield f"the agreement is {_closed(one)} in the first file, {_closed(other)} in the second"
    yield from _ended(one, other)
    if one.by == other.by:
        yield from _entries(one, other)
    else:
        yield from _messages(one, other)
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


def _entries(one: Told, other: Told) -> Iterator[str]:
    """Which entries only one of two exports of one side has, though its ledger was as long when the other was written. A log only grows, so
    who has signed of both that they are all there is has signed once what is not so."""
    names = {process.pid: name for told in (one, other) for name, process in told.processes.items()}
    kept = [{process.pid for process in told.processes.values()} for told in (one, other)]
    for log in sorted({log for log, _ in one.standing.keys() | other.standing.keys()}):
        for here, there, known, where in ((one, other, kept[1], "first"), (other, one, kept[0], "second")):
            alone: dict[str, list[int]] = {}
            shown = dict(here.standing)
            if here.counted is not None:
                shown[here.counted[0], here.counted[1]] = here.agreement
            for (of, index), pid in sorted(shown.items()):
                if of == log and index < there.reach(log) and (of, index) not in there.standing:
                    alone.setdefault(pid, []).append(index)
            for pid, indexes in alone.items():
                said = "" if there.attested is None else f", and {there.by} has signed at {rfc3339(there.attested)} that the other is all"
                gone = "" if pid in known else REMOVED
                yield f"{_places(indexes)} of {log}, about {names.get(pid, pid)}, stand in the {where} file alone{said}{gone}"


def _messages(one: Told, other: Told) -> Iterator[str]:
    """Which messages only one side has on record: the other one keeps something back, or has not got it. Of processes from their beginning
    on; of what a side has from before its ledger nothing is known to be otherwise."""
    flows = {f"transfer {flow.transfer}" for flow in (*one.flows, *other.flows)}  # of which it is told by what was signed
    for name in sorted(one.processes.keys() | other.processes.keys()):
        first, second = (told.processes.get(name) for told in (one, other))
        if first is None or second is None:
            alone = first or second
            if alone is not None and alone.moves & BEGUN and name not in flows:
                yield f"{name} is in the {'first' if first else 'second'} file alone{REMOVED}"
        elif first.moves & BEGUN and second.moves & BEGUN:
            for move in sorted(first.moves ^ second.moves):
                yield f"{move} of {name} is on record in the {'first' if move in first.moves else 'second'} file alone"


def _own(flow: FlowTold, names: Sequence[str], lacking: Told) -> Iterator[str]:
    """What `lacking` has not, though its exporter has itself signed it, and later that the file is all that it has."""
    if (at := lacking.attested) is None:
        return
    signed = [(name, *flow.signed[name]) for name in sorted(names, key=_order)]
    if before := [name for name, by, issued in signed if by == lacking.by and issued < at - AHEAD_SECONDS]:
        yield (
            f"{lacking.by} has signed {', '.join(before)} of transfer {flow.transfer} itself, and at {rfc3339(at)} that"
            " its file has everything: it keeps something back, or has lost it"
        )


def _places(indexes: Sequence[int]) -> str:
    more = f" and {len(indexes) - INDEXES_MAX} more" if len(indexes) > INDEXES_MAX else ""
    return f"entries {', '.join(map(str, indexes[:INDEXES_MAX]))}{more}"


def _flow(first: FlowTold, second: FlowTold, one: Told, other: Told) -> Iterator[str]:
    both = first.objects.keys() & second.objects.keys()
    for name in sorted(both, key=_order):
        if first.objects[name] != second.objects[name]:
            yield f"{name} of transfer {first.transfer} is another in the first file than in the second"
    for here, there, where, lacking in ((first, second, "first", other), (second, first, "second", one)):
        alone = sorted(here.objects.keys() - there.objects.keys(), key=_order)
        if alone:
            yield f"{', '.join(alone)} of transfer {here.transfer} {'is' if len(alone) == 1 else 'are'} in the {where} file alone"
            yield from _own(here, alone, lacking)
    if first.counts != second.counts:
        yield f"transfer {first.transfer} comes to {first.counts.bytes} bytes in the first file, to {second.counts.bytes} in the second"


def _order(name: str) -> tuple[int, str]:
    return (int(name.split()[1]), name) if " " in name else (0, name)
