"""Checks evidence files with nothing but the files: no settings, no network, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from connector.adapters.registry import FILE_BYTES_MAX, SUFFIX, Registry, parse
from connector.errors import ConnectorError, ProofRefused
from connector.evidence.case import Trust
from connector.evidence.identities import pinned
from connector.evidence.report import Report
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.values import Value


class Checked(Value):
    """The reports of one file or of two, and where two sound ones tell something else."""

    reports: Mapping[str, Report]
    differences: tuple[str, ...] | None = None

    @property
    def good(self) -> bool:
        """Whether every file is sound, and two tell the same."""
        return all(report.sound for report in self.reports.values()) and not self.differences

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: of one file its report, of two both and whether they tell the same."""
        files = [{"file": name} | report.to_json() for name, report in self.reports.items()]
        if len(files) == 1:
            return files[0]
        return {"files": files, "same": self.differences == (), "differences": list(self.differences or ())}


def check(paths: Sequence[Path], trust: Path | None) -> Checked:
    """Check one file, or two of one agreement against each other. `trust` is a folder of self-descriptions, one of them, or a file with
    verifier keys. Prices are read by the profiles of this installation. Raises ConnectorError for what cannot be read."""
    from connector.vocabulary import read_profiles

    known = trusted(trust) if trust is not None else Trust()
    profiles = read_profiles()
    reports = {str(path): verify(_read(path), known, profiles) for path in paths}
    told = [report.told for report in reports.values() if report.sound]
    if len(told) < 2:  # noqa: PLR2004 - there is nothing to compare
        return Checked(reports)
    one, other = (each for each in told if each is not None)
    return Checked(reports, compare(one, other))


def trusted(path: Path) -> Trust:
    """The keys that stand at a path. Raises ConnectorError that says what is wrong with it."""
    if path.is_dir():
        registry = Registry(path)
        return pinned({each.id: registry.keys(each.id) for each in registry.participants()})
    data = _read(path, FILE_BYTES_MAX)
    if path.suffix == SUFFIX:
        try:
            member, findings = parse(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise ConnectorError(f"`{path}` is not JSON: {error}; give the self-description of a participant") from None
        if member is None:
            raise ConnectorError(f"`{path}` is no self-description that can be used", tuple(findings))
        return pinned({member.participant.id: member.keys})
    try:
        return pinned({}, [line for line in data.decode().splitlines() if line.strip()])
    except (ProofRefused, UnicodeDecodeError) as error:
        raise ConnectorError(
            f"`{path}` holds no verifier keys: {getattr(error, 'message', 'it is not UTF-8')}; give a folder of self-descriptions,"
            f" one that ends in `{SUFFIX}`, or a file with a key `<name>+<id>+<base64>` in each line"
        ) from None


def _read(path: Path, most: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise ConnectorError(f"`{path}` cannot be read: {error.strerror}") from None
    if most is not None and len(data) > most:
        raise ConnectorError(f"`{path}` is larger than {most} bytes, which keys never are")
    return data
