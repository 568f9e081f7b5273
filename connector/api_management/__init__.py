"""Calls of the management listener beside those of `api/management_api.py`, which has the table of all of them."""
