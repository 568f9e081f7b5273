"""Qiao, a data-space connector: two organisations exchange data under a contract that both can prove."""

__version__ = "0.1.0"
__version__ = "0.1.0"
