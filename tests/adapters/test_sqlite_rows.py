"""Statements and rows: what the planner makes of them, and that every record has its statements."""

from pathlib import Path
from typing import get_args

import orjson
import pytest

from connector.adapters import sqlite
from connector.adapters.sqlite_rows import DELETES, SAVES, VERSIONED, VERSIONS, agreement_of, dataset_of, process_of
from connector.adapters.sqlite_schema import open_database
from connector.records import Record
from connector.records.ledger import Log, Numbered, Subtree, Witnessed
from tests.contracts.samples import agreement, dataset, negotiation


def test_every_record_can_be_saved_and_deleted():
    assert set(SAVES) == set(get_args(Record)) == set(DELETES) | {Log, Numbered, Subtree, Witnessed}  # these are for good
    assert set(VERSIONS) >= VERSIONED


def test_a_row_is_read_in_the_order_in_which_it_was_written():
    process = negotiation(peer_pid="p", due=1.0, last_accepted=b"\x01" * 32, detail={"a": 1})
    (_, values), *rest = SAVES[type(process)](7, process)
    assert rest == []
    assert process_of(values) == process


def test_rows_of_before_are_read_and_expected_as_what_they_were(tmp_path: Path):
    """Agreements had neither an end of their own nor a version, datasets nothing that binds."""
    db = open_database(tmp_path / "old.db", cache_kib=1024)
    for record, read, later in (
        (agreement(final=True), agreement_of, ("closed", "closed_by", "reason", "version")),
        (dataset(), dataset_of, ("binding",)),
    ):
        ((sql, values), *_) = SAVES[type(record)](1, record)
        rest = {name: value for name, value in orjson.loads(values[-1]).items() if name not in later}
        old = (*values[:-1], orjson.dumps(rest))
        assert read(old) == record
        db.execute(sql, old)
        assert db.execute(VERSIONS[type(record)], (1, record.id)).fetchone() == (record.version,)
    db.close()


POINTS = [name for name in vars(sqlite) if name.startswith("READ_")]


@pytest.mark.parametrize(
    "name",
    [
        *POINTS,
        "LIST_DUE",
        "LIST_OPEN_TRANSFERS",
        "LIST_EVENTS",
        "LIST_EVIDENCE_OF",
        "OLD_PROCESSES",
        "OLD_PULLS",
        "OLD_KEYS",
        *DELETES,
        *VERSIONS,
    ],
)
def test_no_statement_of_the_hot_path_walks_a_table(tmp_path: Path, name: str | type):
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    statements = [vars(sqlite)[name]] if isinstance(name, str) else [*DELETES.get(name, ()), *filter(None, [VERSIONS.get(name)])]
    for sql in statements:
        parameters = sql.count("?") if "?1" not in sql else max(int(c) for c in "123" if f"?{c}" in sql)
        plan = [row[3] for row in db.execute(f"explain query plan {sql}", (0,) * parameters)]
        assert plan
        # Only a search by more than the participant is short; the few rows of the outbox may be read whole.
        wide = [step for step in plan if step.endswith("(participant=?)") and "outbox" not in step]
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step or step in wide], (sql, plan)
    db.close()
