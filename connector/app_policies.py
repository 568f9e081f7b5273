"""A policy before anybody publishes it, read as a connector reads it: what `connector lint` says, with nothing running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from connector.dsp import dcat
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import Schemas
from connector.errors import PolicyError
from connector.odrl import Finding, Options, lint, load
from connector.odrl_forms.locale_forms import Language
from connector.odrl_forms.plain import PlainWords, plain
from connector.odrl_forms.text_form import parse_text
from connector.odrl_forms.validate import from_schema, validate
from connector.odrl_rdf.decoding import decoded, json_of
from connector.vocabulary import read_profiles, read_vocabulary

Format = Literal["json-ld", "turtle", "text"]
TEXT_BYTES_MAX = 1 << 20  # of the text form: as much as a call of the management API may hold
ASSET, SERVICE = "urn:qiao:any-dataset", "urn:qiao:any-service"  # an offer is published within a dataset
WITHIN = "/hasPolicy/0"  # where the schema of a dataset sees it


@dataclass(frozen=True, slots=True)
class Examined:
    """What can be said of a document: every finding, and in plain words what it means, None if it cannot be used."""

    findings: tuple[Finding, ...]
    plain: PlainWords | None

    @property
    def refused(self) -> bool:
        """Whether a connector would not publish it."""
        return any(finding.severity == "error" for finding in self.findings)


def examined(content: bytes, format: Format, language: Language, now: float) -> Examined:
    """Look at the bytes of a policy in `json-ld`, `turtle` or the small `text` form. `now` (POSIX seconds) tells what is over already.

    Never raises for what the bytes say. Raises SettingsError if the profiles of this installation cannot be read.
    """
    options = Options(profiles=read_profiles())
    try:
        document = _document(content, format, options)
        if format == "turtle":
            found = lint(document, format, options=options)
            read = partial(load, document, format, options=options)
        else:
            schema = _schema(document)
            found = validate(document, schema_findings=schema, options=options, now=datetime.fromtimestamp(now, UTC))
            read = partial(load, document, options=options)
        seen = Examined(tuple(found), None)
        return seen if seen.refused else Examined(seen.findings, plain(read(), language))
    except PolicyError as error:
        return Examined(tuple(error.findings), None)


def _document(content: bytes, format: Format, options: Options) -> object:
    """What `load` takes. Raises PolicyError."""
    if format == "text":
        return parse_text(decoded(content, TEXT_BYTES_MAX), options=options)
    return json_of(content) if format == "json-ld" else content


def _schema(document: object) -> list[Finding]:
    """What the schema of the protocol says of it as an offer, for documents in the form of the protocol."""
    if not isinstance(document, Mapping) or "@graph" in document or document.get("@context", CONTEXT) not in (CONTEXT, DSP_CONTEXT):
        return []
    policy: Mapping[str, Any] = document
    offer = dcat.dataset_document(ASSET, ASSET, [(str(policy.get("@id", ASSET)), policy)], SERVICE, media_type="text/plain")
    faults = Schemas(read_vocabulary().schemas).faults("Dataset", {"@context": CONTEXT} | offer)
    return from_schema((pointer.removeprefix(WITHIN), sentence.replace(WITHIN, "")) for pointer, sentence in faults)
