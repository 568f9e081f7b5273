"""Everything that can be said against a policy document, in four layers and one form: the schema of the protocol, words that JSON-LD would
lose, what the model of ODRL does not allow or this connector does not know, and what the policy says that can hardly be meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding
from connector.odrl.model import DEFAULT_OPTIONS, Options, Policy
from connector.odrl_compare.checking import check
from connector.odrl_forms.mending import mended
from connector.odrl_reading.parse import load
from connector.values import replace

_WORDS: Final = frozenset({Code.TERM_DROPPED, Code.IRI_AS_STRING})


def lint(
    subject: object,
    format: str = "json-ld",
    *,
    options: Options = DEFAULT_OPTIONS,
    now: datetime | None = None,
    id: str | None = None,
) -> list[Finding]:
    """All findings of a Policy or of a document as `load` takes it, errors and warnings: what is not understood, what is easily misread,
    and, of a policy that is understood, what can hardly be meant, with a request that shows it (odrl.md 4.4). `now` (aware) adds what is
    over by then. Takes a bounded time and never raises.
    """
    if isinstance(subject, Policy):
        return [*subject.findings, *_sense(subject, options, now)]
    try:
        policy = load(subject, format, options=options, strict=False, id=id)
    except PolicyError as error:
        return list(error.findings)
    return [*policy.findings, *_sense(policy, options, now)]


def _sense(policy: Policy, options: Options, now: datetime | None) -> list[Finding]:
    """What the semantic check adds to what the reader has said already."""
    if policy.refused:
        return []
    found = check(policy, options=options, now=now)
    return [one for one in found if not any(one.code is other.code and _same_fault(one, other) for other in policy.findings)]


def validate(
    document: object,
    *,
    schema_findings: Sequence[Finding] = (),
    options: Options = DEFAULT_OPTIONS,
    now: datetime | None = None,
) -> list[Finding]:
    """All findings of a document: the schema's, then words, model and sense; none twice, each with the patch that mends it, if one does.

    `document` is what `load` takes as `json-ld`; `schema_findings` is what the schema of its type says of it (`from_schema`), `()` if it
    is valid or has none. What it says can hardly be meant is only looked for in a policy that is understood; `now` (aware) adds what is
    over by then. Never raises.
    """
    try:
        policy = load(document, options=options, strict=False)
    except PolicyError as error:
        found: list[Finding] = list(error.findings)
        sense: list[Finding] = []
    else:
        found = list(policy.findings)
        sense = _sense(policy, options, now)
    schema, found = _told_once(schema_findings, found)
    words = [finding for finding in found if finding.code in _WORDS]
    model = [finding for finding in found if finding.code not in _WORDS]
    ordered = [*schema, *words, *model, *sense]
    return [mended(finding, document) for finding in ordered]


def from_schema(faults: Iterable[tuple[str, str]]) -> list[Finding]:
    """What a JSON Schema says of a document, as findings. `faults` are (RFC 6901 pointer, sentence), the deepest fault of each branch."""
    fix = "write it as the schema of DSP 2025-1 describes it"
    return [Finding(Code.MALFORMED, pointer, sentence, fix) for pointer, sentence in dict.fromkeys(faults)]


def _told_once(schema: Sequence[Finding], model: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Both without what one fault made each of them say: the deeper pointer is kept, with the remedy of the model."""
    kept, rest = [], list(model)
    for finding in schema:
        twin = next((other for other in rest if other.severity == "error" and _same_fault(finding, other)), None)
        if twin is None:
            kept.append(finding)
        elif twin.code is Code.MALFORMED and len(finding.path) > len(twin.path):
            rest[rest.index(twin)] = replace(finding, fix=twin.fix, patch=twin.patch)
    return kept, rest


def _same_fault(one: Finding, other: Finding) -> bool:
    """Whether one pointer leads to where the other does, or into it; of the whole document they must speak of the same word."""
    if not one.path or not other.path:
        return one.path == other.path and bool(_words_of(one) & _words_of(other))
    return one.path == other.path or one.path.startswith(f"{other.path}/") or other.path.startswith(f"{one.path}/")


def _words_of(finding: Finding) -> set[str]:
    return {*f"{finding.message} {finding.fix}".split("`")[1::2]}
