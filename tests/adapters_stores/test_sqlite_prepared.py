"""What changes ask of the database before they write: a step of one process nothing of its own, everything else all that it expects."""

import pytest

from connector.adapters.sqlite_rows import SAVE_INBOX, SAVE_PROCESS
from connector.adapters_stores.sqlite_prepared import everything, prepare
from connector.dsp.exchange import Process
from connector.records import Changes, Expect, Offer
from connector.values import replace
from tests.contracts.samples import dataset, fact, inbox, negotiation

PROCESS = negotiation("n", peer_pid="theirs", version=3)
OF_OFFER = Expect(Offer, "urn:offer", 0)
OF_PROCESS = Expect(Process, "n", 2)


def test_a_step_of_one_process_asks_only_for_what_else_it_expects():
    prepared = prepare(1, Changes((OF_PROCESS, OF_OFFER), (PROCESS, inbox("n"))))
    assert (prepared.step is not None, prepared.before) == (True, 2)
    assert [expect for expect, _, _ in prepared.asked.expects] == [OF_OFFER]
    assert prepared.asked.claims == ()


@pytest.mark.parametrize(
    "changes",
    {
        "nothing is expected of it": Changes((OF_OFFER,), (PROCESS,)),
        "something is expected of another": Changes((Expect(Process, "m", 2),), (PROCESS,)),
        "there are two": Changes((OF_PROCESS,), (PROCESS, negotiation("m", peer_pid="others"))),
        "a dataset has its offers": Changes((OF_PROCESS,), (PROCESS, dataset())),
        "another goes": Changes((OF_PROCESS,), (PROCESS,), deletes=((Process, "m"),)),
    }.values(),
)
def test_whatever_is_no_step_of_one_process_asks_for_all_that_has_to_hold(changes: Changes):
    prepared = prepare(1, changes)
    assert prepared.step is None
    assert prepared.asked == everything(1, changes)
    assert prepared.asked.claims


def test_the_last_message_of_a_process_is_written_after_the_process():
    statements = [sql for sql, _ in prepare(1, Changes(saves=(inbox("n"), PROCESS))).writes]
    assert statements == [SAVE_PROCESS, SAVE_INBOX]


def test_each_fact_of_a_commit_has_a_salt_of_its_own():
    rows = prepare(1, Changes(evidence=tuple(fact() for _ in range(3)))).evidence_rows
    salts = [bytes(row[-1]) for row in rows]
    assert ([len(salt) for salt in salts], len(set(salts))) == ([16] * 3, 3)


@pytest.mark.parametrize("name", ["pid", "peer", "state"])
def test_what_no_row_can_hold_of_a_signed_fact_is_found_before_the_group(name: str):
    signed = replace(fact(), entry="eyJhbGciOiJFZERTQSJ9.e30.AA")
    with pytest.raises(UnicodeEncodeError):
        prepare(1, Changes(evidence=(replace(signed, **{name: "half \ud800"}),)))
