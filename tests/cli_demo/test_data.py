"""What the hospital of the demo has: real FHIR of at least 300 patients, the same at every run, under terms that we understand."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from connector.cli import demo
from connector.cli_demo import data
from connector.errors import ConnectorError
from connector.odrl import load

PATIENTS = 12
PARTNER = "did:web:biopharma.example"


def ndjson(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, data.Prepared]:
    return {each.id: each for each in data.prepare(tmp_path_factory.mktemp("data"), PATIENTS, PARTNER)}


def test_the_cohort_has_at_least_300_patients():
    assert demo.PATIENTS >= 300


def test_every_patient_is_one_fhir_resource_and_nobody_comes_twice(prepared: dict[str, data.Prepared]):
    patients = ndjson(prepared[data.PATIENTS].path)
    assert {each["resourceType"] for each in patients} == {"Patient"}
    assert len({each["id"] for each in patients}) == len(patients) == PATIENTS


def test_every_observation_is_a_fhir_resource_about_a_patient_of_the_cohort(prepared: dict[str, data.Prepared]):
    known = {f"Patient/{each['id']}" for each in ndjson(prepared[data.PATIENTS].path)}
    observations = ndjson(prepared[data.OBSERVATIONS].path)
    assert {each["resourceType"] for each in observations} == {"Observation"}
    assert {each["subject"]["reference"] for each in observations} == known


def test_the_same_seed_makes_the_same_bytes(prepared: dict[str, data.Prepared], tmp_path: Path):
    for again in data.prepare(tmp_path, PATIENTS, PARTNER):
        assert again.path.read_bytes() == prepared[again.id].path.read_bytes()


def test_the_table_has_a_row_for_each_condition_and_no_name_of_a_patient(prepared: dict[str, data.Prepared]):
    text = prepared[data.CONDITIONS].path.read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    patients = {each["id"]: each for each in ndjson(prepared[data.PATIENTS].path)}
    assert rows
    for row in rows:
        patient = patients[row["patient"]]
        assert (row["gender"], row["birth_year"]) == (patient["gender"], patient["birthDate"][:4])
    assert not [each["name"][0]["family"] for each in patients.values() if each["name"][0]["family"] in text]


def test_a_table_cell_keeps_its_commas():
    patient = json.dumps({"id": "p1", "gender": "female", "birthDate": "1976-04-01"})
    coding = {"code": "E78.00", "display": "Pure hypercholesterolemia, unspecified"}
    condition = json.dumps({"subject": {"reference": "Patient/p1"}, "code": {"coding": [coding]}})
    text = data.conditions_table(patient, f"{condition}\n{condition}\n")
    row = {"patient": "p1", "gender": "female", "birth_year": "1976", "code": "E78.00", "condition": coding["display"], "onset": ""}
    assert list(csv.DictReader(io.StringIO(text))) == [row, row]


def test_the_terms_are_understood_without_a_finding_and_each_offer_has_its_own_id(prepared: dict[str, data.Prepared]):
    policies = [policy for each in prepared.values() for policy in each.body["policies"]]
    context = ["https://w3id.org/dspace/2025/1/context.jsonld"]
    assert [load({"@context": context, **policy}).findings for policy in policies] == [()] * len(prepared)
    assert len({policy["@id"] for policy in policies}) == len(prepared)


def test_without_the_library_that_makes_patients_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "carebundle", None)
    with pytest.raises(ConnectorError, match="make setup"):
        data.prepare(tmp_path, PATIENTS, PARTNER)
    assert list(tmp_path.iterdir()) == []
