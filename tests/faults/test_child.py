"""The program that forks connectors: COMMITs are points before and after, and the chosen passage is the last."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from connector.adapters_stores.sqlite_prepared import prepare
from connector.records import Agreement, Changes, Evidence, Expect, Usage
from tests.faults.child import Committing, Passages, commit_of
from tests.faults.home import ROOT


def fact(what: str, **detail: str) -> Evidence:
    return Evidence(what, None, None, None, None, 1.0, detail=detail)


class Db:
    def __init__(self) -> None:
        self.said: list[str] = []

    def execute(self, sql: str, *_: Any) -> str:
        self.said.append(sql)
        return "cursor"


def test_each_change_of_a_commit_is_a_point_before_and_one_after_it():
    db, passed = Db(), []
    watched = Committing(db, lambda name: (passed.append(name), db.said.append(name)))
    records = ((fact("b"), fact("a")), (fact("pull", stage="done"),))
    changes = [Changes(evidence=evidence) for evidence in records] + [Changes((Expect(Usage, "urn:agreement", 1),))]
    groups = [SimpleNamespace(prepared=prepare(1, each)) for each in changes]
    watched.writer = SimpleNamespace(_committing=groups)  # type: ignore[assignment]
    assert watched.execute("insert") == watched.execute("commit") == "cursor"
    assert passed == [f"{when} COMMIT [{what}]" for when in ("before", "after") for what in ("a, b", "pull done", "usage")]
    assert db.said == ["insert", *passed[:3], "commit", *passed[3:]]


def test_changes_that_put_nothing_on_record_have_a_name_too():
    assert commit_of(()) == "nothing on record"
    assert commit_of((), [(Expect(Usage, "a", 1), "sql", ())]) == "usage"
    assert commit_of([fact("b")], [(Expect(Usage, "a", 1), "sql", ()), (Expect(Agreement, "a", 0), "sql", ())]) == "b, usage"


def test_the_first_chosen_passage_of_a_chosen_point_is_the_last():
    program = (
        "from tests.faults.child import Passages\n"
        "passages = Passages({'here': 2, 'never': 1, 'there': 2})\n"
        "for name in ('here', 'there', 'here', 'never'): passages.passed(name)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert json.loads(ended.stderr) == {"event": "passed", "died_at": "here", "counts": {"here": 2, "there": 1}}


def test_passages_are_told_in_their_order_and_counted_anew(capsys: pytest.CaptureFixture[str]):
    passages = Passages({})
    for name in ("b", "a", "b"):
        passages.passed(name)
    passages.say()
    passages.say()
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert list(first["counts"].items()) == [("b", 2), ("a", 1)]
    assert (second["counts"], second["died_at"]) == ({}, None)
    assert os.getpid(), "nobody was killed"
