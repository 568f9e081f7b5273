"""Changes as what SQLite is asked and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from connector.adapters.sqlite_rows import DELETES, PROCESS_OF_PEER, SAVES, SETTLE, VERSIONS, save_outbound, values_of_process
from connector.adapters_stores.sqlite_ledger import values_of_evidence
from connector.adapters_stores.sqlite_statements import Row, Statement
from connector.dsp.exchange import Process
from connector.records import Changes, Dataset, Expect, Inbox, implied
from connector.values import Value

T = TypeVar("T")


class Questions(Value):
    """What has to hold: what changes expect, each with the statement that tells, and what they claim without saying so."""

    expects: tuple[tuple[Expect, str, Row], ...] = ()
    claims: tuple[tuple[Expect, str], ...] = ()


NOTHING = Questions()  # what most steps ask beside the one about their process


class Prepared(Value):
    """Changes turned into what SQLite is asked and told. All that can be wrong with the values was found by then, but for texts that
    have no UTF-8 and integers beyond 64 bits.

    `asked` comes before the first write. A step of one process, begun or moved on from the version `before`, is that write, and itself
    finds out whether what is expected of the process holds: where it does, there is one statement instead of three. Where it writes
    nothing, all that `changes` expect has to hold."""

    asked: Questions
    writes: Sequence[Statement]
    changes: Changes = Changes()
    evidence_rows: Sequence[list[Any]] = ()
    step: Row | None = None
    before: int | None = None


def prepare(number: int, changes: Changes) -> Prepared:
    """Turn `changes` into statements of participant `number`. Raises TypeError or ValueError for values that no row can hold."""
    writes: list[Statement] = []  # put together by loops: most have one turn, or none, and a comprehension is a call of its own
    for id in changes.settled:
        writes.append((SETTLE, (number, id)))
    for of, id in changes.deletes:
        for sql in _of(DELETES, of, "deleted"):
            writes.append((sql, (number, id)))
    process, expected = _step(changes)
    inbox: list[Statement] = []  # after its process
    for record in changes.saves:
        if record is not process:
            of = type(record)
            (inbox if of is Inbox else writes).extend(_of(SAVES, of, "saved")(number, record))
    writes += inbox
    for row in changes.outbox:
        writes.append(save_outbound(number, row))
    evidence_rows = values_of_evidence(number, changes.evidence)
    if process is None or expected is None:
        return Prepared(everything(number, changes), writes, changes, evidence_rows)
    asked = NOTHING
    if len(changes.expects) > 1:
        asked = Questions(tuple([(expect, *_question(number, expect)) for expect in changes.expects if expect is not expected]))
    return Prepared(asked, writes, changes, evidence_rows, values_of_process(number, process), expected.version)


def _step(changes: Changes) -> tuple[Process, Expect] | tuple[None, None]:
    """The process of `changes` and what they expect of it, if they have to do with one and no other, and claim nothing beside it."""
    process: Process | None = None
    for record in changes.saves:
        of = type(record)
        if of is Dataset or (of is Process and process is not None):
            return None, None
        if isinstance(record, Process):
            process = record
    if process is None:
        return None, None
    found: Expect | None = None
    for expect in changes.expects:
        if expect.of is Process:
            if found is not None or expect.key != process.pid:
                return None, None
            found = expect
    for of, _ in changes.deletes:
        if of is Process:
            return None, None
    return (process, found) if found is not None else (None, None)


def everything(number: int, changes: Changes) -> Questions:
    """All that has to hold. Raises ValueError if two records claim the same."""
    return Questions(tuple([(expect, *_question(number, expect)) for expect in changes.expects]), tuple(implied(changes)))


def _of(table: dict[type[Any], T], of: type[Any], done: str) -> T:
    try:
        return table[of]
    except KeyError:
        raise TypeError(f"a `{of.__name__}` cannot be {done} by itself") from None


def _question(number: int, expect: Expect) -> Statement:
    if isinstance(expect.key, tuple):
        return PROCESS_OF_PEER, (number, *(str(part) for part in expect.key))
    return _of(VERSIONS, expect.of, "expected"), (number, expect.key)
