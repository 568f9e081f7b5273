"""Transfers that are cut at offsets of chance, and called to account: `python -m tests.faults --streams 200`."""
