"""One fingerprint for one meaning, whatever the protocol sets and however it is written; another one for another meaning."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connector.odrl import fingerprint, load
from tests.odrl.cases import offer, participant, purpose, rule, time

ROOT = Path(__file__).parents[2]
BASE = offer(rule(purpose("isAnyOf", ["research", "quality"]), time("lteq", "2030-12-31T00:00:00Z")))


def of(document: dict[str, Any]) -> str:
    return fingerprint(load(document))


def test_it_is_a_sha_256():
    assert re.fullmatch(r"[0-9a-f]{64}", of(BASE))


def test_it_is_the_same_in_every_process():
    program = "from tests.odrl_forms.test_fingerprint import BASE, of; print(of(BASE))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {of(BASE)}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "@id": "urn:o2"},
        {**BASE, "target": "urn:d"},
        {**BASE, "@type": "Agreement", "target": "urn:d", "assigner": "did:web:a.example", "assignee": "did:web:b.example"},
        offer(rule(time("lteq", "2030-12-31T02:00:00+02:00"), purpose("isAnyOf", ["quality", "research"]))),
        offer(rule({"and": [time("lteq", "2030-12-31T00:00:00Z")]}, purpose("isAnyOf", ["quality", "research", "quality"]))),
        offer(rule(purpose("isAnyOf", ["research", "quality"]), time("lteq", "2030-12-31T00:00:00Z"), **{"@id": "urn:r"})),
        offer(*BASE["permission"], *BASE["permission"]),
    ],
    ids=["id", "target", "parties", "zone and order", "nesting and repetition", "id of a rule", "a rule twice"],
)
def test_what_changes_no_term_changes_nothing(other: dict[str, Any]):
    assert of(other) == of(BASE)


@pytest.mark.parametrize(
    "other",
    [
        offer(rule(purpose("isAnyOf", ["research"]), time("lteq", "2030-12-31T00:00:00Z"))),
        offer(rule(purpose("isNoneOf", ["research", "quality"]), time("lteq", "2030-12-31T00:00:00Z"))),
        offer(rule(purpose("isAnyOf", ["research", "quality"]), time("lt", "2030-12-31T00:00:00Z"))),
        offer(rule(purpose("isAnyOf", ["research", "quality"]))),
        offer(rule(*BASE["permission"][0]["constraint"], participant("eq", "did:web:a.example"))),
        offer(rule(*BASE["permission"][0]["constraint"], action="odrl:read")),
        offer(rule(*BASE["permission"][0]["constraint"], assignee="did:web:a.example")),
        offer(rule(*BASE["permission"][0]["constraint"], duty=[{"action": "odrl:delete"}])),
        offer(*BASE["permission"], prohibitions=(rule(action="odrl:distribute"),)),
        {**BASE, "odrl:conflict": "odrl:perm"},
    ],
)
def test_what_changes_a_term_changes_it(other: dict[str, Any]):
    assert of(other) != of(BASE)
