"""Writes an evidence file line by line, with what its exporter counts and signs of it, end and seal, and keeps nothing of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar, Final, Self

from connector.evidence.members import FORMAT, VERSION, write
from connector.evidence.sealed import Sealing
from connector.metering import claims as read
from connector.metering.content import write_bytes
from connector.values import Value

ATTESTATION: Final[read.Table] = {"iss": read.did, "iat": read.number, "lines": read.digest}


COUNT: Final = "evidence-exported"  # the name of the fact that counts (`connector.telemetry`, which a verifier does without)
FORM: Final = "evidence"  # in the detail of a numbered fact: the version of the files that its program writes (`control.steps`)


class Attestation(Value):
    """The word of `issuer` that the lines of a file with this SHA-256 (`lines`) are all that it has of an agreement, up to the checkpoints
    of its own ledger among them. Whoever has no key of it can leave nothing out but with this word, by calling it a file of the version
    without one; itself it signs what its other exports, and those of the other side, can show to be false (`compared`)."""

    TYP: ClassVar[str] = "dp-evidence+jwt"

    issuer: str
    issued: int
    lines: bytes

    def claims(self) -> dict[str, Any]:
        return {"iss": self.issuer, "iat": self.issued, "lines": write_bytes(self.lines)}

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of an attestation. Raises MeterRefused."""
        return cls(*read.read(claims, ATTESTATION).values())


class Counting:
    """The entries of a file, taken in its order by their leaf hashes (RFC 6962), with nothing of them kept.

    Whoever has the exporter's key can attest a file that lacks some. But the last entry of a file is one of the ledger, under its signed
    checkpoint, and has number and hash of all others: who leaves one out would have to keep a ledger that says so falsely, for ever and
    before all to whom it shows its checkpoints. The hash stands in the entry itself, and so outlives the detail.
    """

    def __init__(self) -> None:
        self.entries = 0
        self._hashed = sha256()

    def take(self, leaf: bytes) -> None:
        """The next entry."""
        self.entries += 1
        self._hashed.update(leaf)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the leaf hashes so far, one after the other."""
        return self._hashed.digest()

    def detail(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The detail of the count, which is of the first `sizes` entries of the exporter's logs, by their origins."""
        return {"entries": self.entries, "logs": dict(sizes)}


class Bundle:
    """One file that is being written. What each call returns are the next bytes of it."""

    def __init__(self) -> None:
        self._sealing = Sealing()
        self._counts: dict[str, int] = {}

    @property
    def sha256(self) -> bytes:
        """Of all lines so far."""
        return self._sealing.sha256

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
