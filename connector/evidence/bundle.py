"""Writes an evidence file line by line, with its end and its seal, and keeps nothing of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.evidence.members import FORMAT, VERSION, write
from connector.evidence.sealed import Sealing


class Bundle:
    """One file that is being written. What each call returns are the next bytes of it."""

    def __init__(self) -> None:
        self._sealing = Sealing()
        self._counts: dict[str, int] = {}

    def header(self, agreement: str, by: str, role: str, at: float) -> bytes:
        """The first line: who exports which agreement, in which role, and when (POSIX seconds)."""
        return self.add("evidence", {"format": FORMAT, "version": VERSION, "agreement": agreement, "by": by, "role": role, "at": at})

    def add(self, kind: str, value: Mapping[str, Any]) -> bytes:
        """The line of a member. Raises ValueError for one that is not of its kind (`members.KINDS`)."""
        line = write(kind, value)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return self._sealing.add(line)

    def close(self) -> bytes:
        """The end and the seal."""
        end = write("end", {"members": self._counts})
        self._sealing.add(end)
        return end + self._sealing.seal
