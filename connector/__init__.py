"""Qiao, a data-space connector: two organisations exchange data under a contract that both can prove."""
