"""The ledger's tables in memory; what they owe is in the contract of all stores (`tests/adapters/test_memory.py`)."""

from connector.adapters_stores.memory_ledger import Entered, LedgerTables
from connector.records.ledger import hidden_of
from tests.contracts.samples import fact, metered, negotiation


def test_only_what_is_of_the_ledger_or_the_meter_is_kept_here():
    tables = LedgerTables()
    assert tables.keep(metered())
    assert not tables.keep(negotiation())


def test_what_was_erased_once_stays_as_it_is():
    entered = Entered.of(fact(detail={"a": 1}))
    gone = entered.erased()
    assert (gone.detail, gone.salt, gone.leaf) == (None, None, entered.leaf)
    assert entered.salt is not None
    assert gone.hidden == hidden_of(entered.salt, b'{"a":1}')
    assert gone.erased() is gone
