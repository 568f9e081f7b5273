"""What the hospital of the demo has: a seeded cohort as FHIR NDJSON, a table made of it, and the terms of each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connector.errors import ConnectorError
from connector.values import Value

SEED = 20261124  # the same patients at every run
OBSERVATIONS, CONDITIONS, PATIENTS = "urn:demo:observations", "urn:demo:conditions", "urn:demo:patients"
PRICE = "12.50"  # in EURO, for each delivery of the table
EURO = {"@id": "http://publications.europa.eu/resource/authority/currency/EUR"}
COLUMNS = ("patient", "gender", "birth_year", "code", "condition", "onset")


class Prepared(Value):
    """A dataset ready to be published: its id, its file, and the body of the call that publishes it."""

    id: str
    path: Path
    body: Mapping[str, Any]


def prepare(directory: Path, patients: int, partner: str) -> list[Prepared]:
    """Write the data of a cohort of `patients` into `directory` and return the datasets; `partner` is the participant whom
    the table is offered to. Raises ConnectorError if the library that makes the patients is not installed."""
    streams = _cohort(patients)
    files = {
        "observations.ndjson": streams["Observation"],
        "conditions.csv": conditions_table(streams["Patient"], streams["Condition"]),
        "patients.ndjson": streams["Patient"],
    }
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    fhir = "application/fhir+ndjson"
    return [
        _dataset(
            OBSERVATIONS, directory / "observations.ndjson", f"Laboratory and vital signs of {patients} patients", fhir, research_terms()
        ),
        _dataset(
            CONDITIONS, directory / "conditions.csv", "Conditions, one row each", "text/csv", sold(partner_terms("conditions", partner))
        ),
        _dataset(
            PATIENTS, directory / "patients.ndjson", "Who the patients are", fhir, partner_terms("patients", "did:web:clinic.example")
        ),
    ]


def conditions_table(patients: str, conditions: str) -> str:
    """One CSV row for each FHIR Condition of `conditions` with its Patient of `patients`; both are NDJSON."""
    known = {patient["id"]: patient for patient in map(json.loads, patients.splitlines())}
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for condition in map(json.loads, conditions.splitlines()):
        patient = known[condition["subject"]["reference"].removeprefix("Patient/")]
        coding = condition["code"]["coding"][0]
        onset = condition.get("onsetDateTime", "")
        rows.writerow((patient["id"], patient["gender"], patient["birthDate"][:4], coding["code"], coding["display"], onset))
    return out.getvalue()


def research_terms() -> dict[str, Any]:
    """For research or quality assurance, until the end of 2030; nobody may pass the data on."""
    return {
        "@id": "urn:demo:offer:research",
        "@type": "Offer",
        "permission": [
            {
                "action": "use",
                "constraint": [
                    {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": ["research", "quality"]},
                    {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2030-12-31Z", "@type": "xsd:date"}},
                ],
            }
        ],
        "prohibition": [{"action": "odrl:distribute"}],
    }


def study_terms() -> dict[str, Any]:
    """What the biopharma asks for: research alone, and for good."""
    research = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
    return {"@id": "urn:demo:offer:research", "@type": "Offer", "permission": [{"action": "use", "constraint": [research]}]}


def partner_terms(name: str, participant: str) -> dict[str, Any]:
    """For one participant, for anything but passing it on. `name` makes the id of the offer."""
    one = {"leftOperand": "urn:qiao:participant", "operator": "eq", "rightOperand": participant}
    terms = {"@id": f"urn:demo:offer:{name}", "@type": "Offer", "permission": [{"action": "use", "constraint": [one]}]}
    return terms | {"prohibition": [{"action": "odrl:distribute"}]}


def sold(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The same terms at a price: PRICE euros for each delivery, to be paid afterwards."""
    refinements = [
        {"leftOperand": "odrl:payAmount", "operator": "eq", "rightOperand": {"@value": PRICE, "@type": "xsd:decimal"}, "odrl:unit": EURO},
        {"leftOperand": "odrl:unitOfCount", "operator": "eq", "rightOperand": {"@id": "https://w3id.org/qiao/v1/call"}},
    ]
    afterwards = {"leftOperand": "odrl:event", "operator": "gt", "rightOperand": {"@id": "odrl:policyUsage"}}
    action = {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": refinements}
    (permission,) = terms["permission"]
    return {**terms, "permission": [permission | {"duty": [{"action": action, "constraint": [afterwards]}]}]}


def _dataset(id: str, path: Path, title: str, media_type: str, terms: Mapping[str, Any]) -> Prepared:
    source = {"type": "file", "path": str(path)}
    return Prepared(id, path, {"title": title, "source": source, "media_type": media_type, "policies": [terms]})


def _cohort(patients: int) -> dict[str, str]:
    """Resource type -> NDJSON."""
    try:
        from carebundle import generate_cohort, to_ndjson
    except ImportError:
        raise ConnectorError(
            "the demo makes its patients with the library `carebundle`, which is not installed; "
            "run `make setup`, or `pip install 'qiao[demo]'`"
        ) from None
    streams: dict[str, str] = to_ndjson(generate_cohort(count=patients, seed=SEED))
    return streams
