"""The audit sees every row that is missing and every row too many, in made-up books."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.sqlite import SqliteStore
from connector.dsp.exchange import Process as Record
from connector.dsp.messages import Kind, Move, Role
from connector.records import Changes, Evidence, Reservation
from connector.records import Usage as Used
from connector.records.ledger import Log
from connector.records.ledger import Witnessed as Seen
from connector.values import replace
from tests.faults import ledger
from tests.faults.audit import (
    CLOSED,
    DOUBLED,
    LOST,
    RECEIVED,
    SENT,
    STAGES,
    Agreement,
    Book,
    Fact,
    Process,
    Pull,
    Usage,
    Witnessed,
    audit,
    read,
)
from tests.faults.ledger import CONSUMER, NEGOTIATION, OTHER, PROVIDER, SIDES, TRANSFER, Cosigned, Ledger, Moves, Order, Promise, Quota

COMPLETED = (*ledger.STARTED, (CONSUMER, "TransferCompletionMessage"))
Books = dict[str, Book]


def exchange(books: Books, kind: str, pid: str, moves: Moves, state: str) -> None:
    """Write an exchange that went well into both books."""
    pids = {CONSUMER: pid, PROVIDER: f"{pid}-theirs"}
    for side in SIDES:
        books[side].processes.append(Process(kind, pids[side], pids[OTHER[side]], state))
        if state == "FINALIZED":
            books[side].agreements.append(Agreement(f"{pid}-agreement", pids[side], "digest", True))
    for number, (sender, move) in enumerate(moves):
        books[sender].facts += [Fact(SENT, pids[sender], move), Fact(CLOSED[number % 2], pids[sender], move)]
        books[OTHER[sender]].facts.append(Fact(RECEIVED, pids[OTHER[sender]], move))


def sound() -> tuple[Ledger, Books]:
    """A negotiation, a refused one, a transfer and a pull, all of them as promised."""
    books = {side: Book() for side in SIDES}
    promised = Ledger(datasets=[("job", "urn:d")], orders=[Order("pull", "order", "out", "sha")])
    for pid, kind, moves, state in (
        ("n1", NEGOTIATION, ledger.REQUESTED + ledger.AGREED, "FINALIZED"),
        ("n2", NEGOTIATION, ledger.REQUESTED + ledger.REFUSED, "TERMINATED"),
        ("t1", TRANSFER, COMPLETED, "COMPLETED"),
    ):
        promised.promises.append(Promise("job", CONSUMER, kind, pid, moves, state))
        exchange(books, kind, pid, moves, state)
    exchange(books, NEGOTIATION, "n3", ledger.REQUESTED + ledger.AGREED, "FINALIZED")
    exchange(books, TRANSFER, "t3", COMPLETED, "COMPLETED")
    books[CONSUMER].pulls.append(Pull("order", "done", "n3", "t3"))
    books[CONSUMER].facts += [Fact("pull", "n3", None, "order", stage) for stage in STAGES]
    books[CONSUMER].files["out"] = "sha"
    books[PROVIDER].datasets.append("urn:d")
    return promised, books


def rows() -> Iterator[tuple[str, str, int]]:
    _, books = sound()
    for side in SIDES:
        for table in ("processes", "agreements", "facts", "pulls"):
            yield from ((side, table, number) for number in range(len(getattr(books[side], table))))


def test_books_that_hold_what_was_promised_have_no_finding():
    assert audit(*sound()) == []


@pytest.mark.parametrize(("side", "table", "number"), list(rows()))
def test_every_single_row_that_is_missing_is_a_loss(side: str, table: str, number: int):
    promised, books = sound()
    gone = getattr(books[side], table).pop(number)
    found = audit(promised, books)
    overruled = table == "facts" and gone.what in CLOSED and gone.pid.startswith("n2")  # the termination may do that
    assert any(finding.kind == LOST for finding in found) != overruled, gone


@pytest.mark.parametrize(("side", "table", "number"), list(rows()))
def test_every_single_row_too_many_is_a_doubling(side: str, table: str, number: int):
    promised, books = sound()
    again = getattr(books[side], table)[number]
    if table in ("processes", "pulls"):  # a second one has an id of its own
        again = again._replace(**{"pid" if table == "processes" else "id": "another"})
    getattr(books[side], table).append(again)
    assert any(finding.kind == DOUBLED for finding in audit(promised, books)), again


def state_of(books: Books, side: str, **changed: Any) -> None:
    books[side].processes[0] = books[side].processes[0]._replace(**changed)


WRONGS: dict[str, tuple[str, Callable[[Ledger, Books], object]]] = {
    "an earlier state": (LOST, lambda _, books: state_of(books, PROVIDER, state="VERIFIED")),
    "a message that is still in flight": (LOST, lambda _, books: state_of(books, CONSUMER, in_flight="X")),
    "a row in the outbox": (LOST, lambda _, books: books[PROVIDER].outbox.append(("n1-theirs", "X"))),
    "an agreement that one side alone holds for final": (
        LOST,
        lambda _, books: books[CONSUMER].agreements.__setitem__(0, books[CONSUMER].agreements[0]._replace(final=False)),
    ),
    "two agreements over one negotiation": (
        DOUBLED,
        lambda _, books: books[CONSUMER].agreements.__setitem__(0, books[CONSUMER].agreements[0]._replace(digest="other")),
    ),
    "a pull that failed": (LOST, lambda _, books: books[CONSUMER].pulls.__setitem__(0, Pull("order", "failed", "n3", "t3"))),
    "a file with other bytes": (LOST, lambda _, books: books[CONSUMER].files.update(out="other")),
    "a file that is not there": (LOST, lambda _, books: books[CONSUMER].files.clear()),
    "a dataset that is not there": (LOST, lambda _, books: books[PROVIDER].datasets.clear()),
    "a damaged database": (LOST, lambda _, books: setattr(books[PROVIDER], "damage", "row 7 missing from index")),
    "a call of which nothing is left": (LOST, lambda promised, _: promised.promises.append(replace(promised.promises[0], pid="n9"))),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_in_another_way_is_found_too(wrong: str):
    promised, books = sound()
    kind, make = WRONGS[wrong]
    make(promised, books)
    assert [finding for finding in audit(promised, books) if finding.kind == kind]


def test_a_finding_names_the_job_that_it_happened_in():
    promised, books = sound()
    books[CONSUMER].outbox.append(("t3", "TransferCompletionMessage"))
    assert {finding.job for finding in audit(promised, books)} == {"pull"}


def test_a_transfer_that_the_provider_completed_first_is_as_good():
    promised, books = sound()
    for side, new in ((CONSUMER, RECEIVED), (PROVIDER, SENT)):
        pid = {CONSUMER: "t3", PROVIDER: "t3-theirs"}[side]
        facts = [fact for fact in books[side].facts if (fact.pid, fact.move) != (pid, "TransferCompletionMessage")]
        books[side].facts = [*facts, Fact(new, pid, "TransferCompletionMessage")]
    books[PROVIDER].facts.append(Fact(CLOSED[0], "t3-theirs", "TransferCompletionMessage"))
    assert audit(promised, books) == []


@pytest.mark.parametrize("heard", [(CONSUMER,), (PROVIDER,), SIDES])
def test_a_transfer_may_be_completed_by_both_at_once_and_by_nobody_who_has_heard_of_it(heard: tuple[str, ...]):
    promised, books = sound()
    pids, move = {CONSUMER: "t3", PROVIDER: "t3-theirs"}, "TransferCompletionMessage"
    for side in SIDES:
        books[side].facts = [fact for fact in books[side].facts if (fact.pid, fact.move) != (pids[side], move)]
        books[side].facts += [Fact(SENT, pids[side], move), Fact("message-implied", pids[side], move)]
        books[side].facts += [Fact(RECEIVED, pids[side], move)] if side in heard else []
    assert audit(promised, books) == []
    for side in heard:
        books[side].facts.insert(0, books[side].facts.pop())
        assert DOUBLED in {finding.kind for finding in audit(promised, books)}
    for side in SIDES:
        books[side].facts = [fact for fact in books[side].facts if (fact.what, fact.pid) != (RECEIVED, pids[side])]
    assert LOST in {finding.kind for finding in audit(promised, books)}, "one of them has to have heard it"


def test_a_message_that_a_termination_overruled_may_be_sent_once_and_not_be_received():
    ended = (*ledger.STARTED, (CONSUMER, "TransferTerminationMessage"))
    completion = Fact(SENT, "t-theirs", "TransferCompletionMessage")
    books = {side: Book() for side in SIDES}
    exchange(books, TRANSFER, "t", ended, "TERMINATED")
    books[PROVIDER].facts.append(completion)
    promise = Promise("job", CONSUMER, TRANSFER, "t", ended, "TERMINATED")
    allowed = replace(promise, overruled=((PROVIDER, "TransferCompletionMessage"),))
    assert [finding.kind for finding in audit(Ledger([promise]), books)] == [DOUBLED]
    assert audit(Ledger([allowed]), books) == []
    books[PROVIDER].facts.append(completion)
    assert DOUBLED in {finding.kind for finding in audit(Ledger([allowed]), books)}
    books[PROVIDER].facts.pop()
    books[CONSUMER].facts.append(Fact(RECEIVED, "t", "TransferCompletionMessage"))
    assert [finding.kind for finding in audit(Ledger([allowed]), books)] == [DOUBLED]


QUOTA = Quota("job", "a", 2, 1000, starts=2, received=900, ended=True)
USED = Usage({"count": 2, "byteCount": 1000}, 0)


@pytest.mark.parametrize(
    ("quota", "usage", "kinds"),
    [
        (QUOTA, USED, set()),
        (replace(QUOTA, ended=False), USED._replace(posted={"count": 2, "byteCount": 950}), set()),
        (replace(QUOTA, starts=0, received=0, ended=False), None, set()),
        (QUOTA, None, {LOST}),
        (QUOTA, USED._replace(open=1), {LOST}),
        (QUOTA, USED._replace(posted={"count": 3, "byteCount": 1000}), {DOUBLED}),
        (QUOTA, USED._replace(posted={"count": 1, "byteCount": 1000}), {LOST}),
        (QUOTA, USED._replace(posted={"count": 2, "byteCount": 1001}), {DOUBLED}),
        (QUOTA, USED._replace(posted={"count": 2, "byteCount": 950}), {LOST}),
        (replace(QUOTA, received=1001), USED, {LOST}),
    ],
)
def test_what_was_used_is_counted_and_not_more_than_is_allowed_and_nothing_stays_open(quota: Quota, usage: Usage | None, kinds: set[str]):
    promised, books = sound()
    promised.quotas.append(quota)
    if usage is not None:
        books[PROVIDER].usage["a"] = usage
    found = audit(promised, books)
    assert {finding.kind for finding in found} == kinds
    assert {finding.job for finding in found} <= {"job"}


@pytest.mark.parametrize(
    ("consumer", "provider", "kinds"),
    [
        (Witnessed("log", 7), Witnessed("log", 7), set()),
        (Witnessed("log", 9), Witnessed("log", 8), set()),
        (Witnessed("log", 6), Witnessed("log", 7), {LOST}),
        (Witnessed("log", 7), Witnessed("other", 7), {LOST}),
        (None, Witnessed("log", 7), {LOST}),
        (Witnessed("log", 7), Witnessed("log", 7, True), {DOUBLED}),
    ],
)
def test_what_was_cosigned_stands_on_both_sides_and_contradicts_nothing(consumer: Witnessed | None, provider: Witnessed, kinds: set[str]):
    promised, books = sound()
    promised.cosigned.append(Cosigned("job", CONSUMER, "log", 7))
    books[CONSUMER].witnessed += [consumer] if consumer else []
    books[PROVIDER].witnessed.append(provider)
    assert {finding.kind for finding in audit(promised, books)} == kinds


def test_a_second_log_is_a_finding_as_a_kill_loses_nothing_that_was_signed():
    promised, books = sound()
    books[CONSUMER].logs += ["log", "log/1764000000"]
    assert [finding.kind for finding in audit(promised, books)] == [LOST]


@pytest.mark.asyncio
async def test_a_book_is_read_from_the_database_of_a_connector(tmp_path: Path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "file").write_bytes(b"")
    store = SqliteStore(tmp_path / "connector.db", "did:web:a.example")
    process = Record(Kind.TRANSFER, "t1", Role.CONSUMER, "did:web:b.example", "http://b", "STARTED", "t2", Move.COMPLETION, "row")
    facts = (
        Evidence(SENT, Kind.TRANSFER, "t1", "did:web:b.example", "STARTED", 1.0, Move.COMPLETION),
        Evidence("pull", None, "t1", "did:web:b.example", None, 1.0, detail={"pull": "order", "stage": "done"}),
    )
    rule, held = "/permission/0", Reservation("r", "t1", "/permission/0", "urn:qiao:byteCount", 5, 1.0)
    used = Used("a1", ((rule, "http://www.w3.org/ns/odrl/2/count", 2), (rule, "urn:qiao:byteCount", 7)), (held,), 3)
    logs = (Log("a/ledger", 1, size=2, version=1), Seen("did:web:b.example", "b/ledger", 5, b"r" * 32, "note", "other note", 1, 1.0))
    await store.commit(Changes(saves=(process, used, *logs), evidence=facts))
    await store.close()
    book = read(tmp_path / "connector.db", tmp_path / "downloads")
    assert book.processes == [Process(TRANSFER, "t1", "t2", "STARTED", "TransferCompletionMessage")]
    assert book.facts == [Fact(SENT, "t1", "TransferCompletionMessage"), Fact("pull", "t1", None, "order", "done")]
    assert (book.outbox, book.agreements, book.pulls, book.damage) == ([], [], [], "")
    assert book.usage == {"a1": Usage({"count": 2, "byteCount": 7}, 1)}
    assert (book.logs, book.witnessed) == (["a/ledger"], [Witnessed("b/ledger", 5, True)])
    assert list(book.files) == [str(tmp_path / "downloads" / "file")]


def test_a_database_that_is_not_there_is_no_empty_book(tmp_path: Path):
    with pytest.raises(sqlite3.OperationalError):
        read(tmp_path / "connector.db", tmp_path)
