"""What the ledger needs from a store is a part of the port, and both stores have all of it."""

from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.ports import Store
from connector.ports.ledger import LedgerStore


def test_every_store_reads_the_ledger():
    methods = {name for name, value in vars(LedgerStore).items() if callable(value) and not name.startswith("_")}
    assert methods >= {"logs", "leaves", "entries", "erase", "metered", "receipts"}
    for store in (Store, MemoryStore, SqliteStore):
        assert methods <= set(dir(store))
