"""Writes what the own connector has of an agreement into a new file, and its ledger's entries as COSE receipts beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import orjson

from connector.errors import ConnectorError

if TYPE_CHECKING:
    from connector.client.management import ManagementClient

SUFFIX = ".evidence.jsonl"
Witnesses = Literal["counterparty", "all"]


def named(agreement: str) -> Path:
    """The file into which an agreement goes if nobody says another."""
    return Path("".join(c if c.isalnum() else "-" for c in agreement.removeprefix("urn:uuid:"))[-80:] + SUFFIX)


async def export(client: ManagementClient, agreement: str, out: Path, witnesses: Witnesses, cose: Path | None) -> tuple[int, int]:
    """Write the evidence file of an agreement to `out`, and each entry in it to the folder `cose`; returns bytes and entries written.
    What was begun and cannot be finished is taken away. Raises ConnectorError."""
    written = 0
    with _new(out) as file:
        async for piece in client.agreement_evidence(agreement, witnesses=witnesses):
            written += file.write(piece)
    return written, 0 if cose is None else await _receipts(client, out, cose)


async def _receipts(client: ManagementClient, out: Path, folder: Path) -> int:
    count = 0
    _make(folder)
    with out.open("rb") as file:
        for line in file:
            member = orjson.loads(line)
            if member.get("kind") == "entry":
                statement = await client.transparent(member["sequence"])
                with _new(folder / f"{member['sequence']:012d}.cose") as receipt:
                    receipt.write(statement)
                count += 1
    return count


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("xb")
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with file:
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from None
        raise


def _unwritable(path: Path, error: OSError) -> ConnectorError:
    return ConnectorError(f"`{path}` cannot be written: {error.strerror}; give the name of a new file in a folder that is there")
