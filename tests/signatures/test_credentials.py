"""One rule of what a credential looks like: what no evidence may have is hidden in every log, and what people write is neither."""

import io
import json
from time import process_time

import pytest

from connector import telemetry
from connector.evidence.secrecy import tells_secret

CREDENTIALS = [
    "Bearer opensesame1",
    '{"x-forwarded": "Bearer opensesame"}',
    "the header was `Bearer opensesame`",
    "we sent Authorization: Bearer opensesame to them",
    "authorization:basic opensesame",
    "we gave BEARER 0123456789abcdef",
    "DPoP 0123456789abcdef",
    "Basic dXNlcjpvcGVuc2VzYW1l",
    "it was Basic dXNlcjpvcGVuc2VzYW1lMQ==, or Basic dXNlcjpvcGVuc2VzYW1l.",
    "see https://user:opensesame@store.example/a",
    "https://store.example/a?access_token=opensesame",
    "client_secret=opensesame",
    'it answered {"password": "opensesame"}',
    "password=none-of-your-business, and token=NonePizza1",
    "Bearer COVID-19aB3dE, and the longer Bearer ab-12-cd-34-ef-56-gh",
    "Bearer QXTF-1A6U-X27C",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmVk",
    *(
        text.format(beginning + rest)
        for beginning, rest in {
            "AKIA": "IOSFODNN7EXAMPLE",
            "ASIA": "IOSFODNN7EXAMPLE",
            "ghp_": "16C7e42F292c6912E7710c838347Ae178B4a",
            "github_pat_": "11ABCDEFG0123456789abc_" + "aB3" * 19 + "xy",
            "glpat-": "nRzb-A1cGYqMrJr2_Vxk",
            "xoxb-": "123456789012-1234567890123-abcdEFGH",
            "xapp-": "1-A0123456789-1234567890123-abcdef",
            "AIza": "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
            "sk_live_": "4eC39HqLyjWDarjtT1zdp7dc",
            "hvs.": "CAESIJlU02LQZq-6cb_dVoHbSBDs",
        }.items()
        for text in ("it was {}.", "https://store.example/a?X-Amz-Credential={}%2F20261127", "该患者的{}")
    ),
]
SENTENCES = [
    "the bearer of bad news",
    "the card's bearer requested its deletion. Bearer authentication, and Bearer certificates, go on",
    "Bearer withdrew",
    "Bearer deceased.",
    "basic PostgreSQL, and basic OpenStack and JavaScript",
    "basic ICD-10-GM codes, and basic HbA1c and SpO2measurements, are all there is",
    "the bearer COVID-19, or bearer SARS-CoV-2; bearer 2026-11-27.",
    'it answered 401 with `WWW-Authenticate: Bearer resource_metadata="https://store.example/a"`',
    "password=none, token=expired; secret=REVOKED&x=1, {'password': 'required'}, and authorization=granted",
    "no token, no password: none is needed; the secret is out, and authorization: pending",
    "see https://store.example/a@b?x=1, and write to did:web:h.example#1",
    "AKIA and ASIA begin what AWS gives, ghp_ and github_pat_ what GitHub does, xoxb-, AIza, hvs. and sk_live_ what others do",
    "ghp_7e42F292c6912E7710c838347Ae178B4a_xYzaB AIzaSyD9tSrke72PouQMnMXa7eZSW0jkFMBWYaB3 aAKIAIOSFODNN7EXAMPLE begin so by chance",
    "did:web:hvs.universitaetsklinikum-am-see.example publishes sk_test_hospitaladmissions2026 and glpat-diagnoses-2026-quarter-1",
    "该患者撤回了同意，编号 eyJ-2026，见 urn:uuid:a",
]


@pytest.mark.parametrize("text", CREDENTIALS)
def test_a_credential_is_told_in_evidence_and_hidden_in_logs(text: str):
    assert tells_secret({"deep": [text]})
    out, log = io.StringIO(), telemetry.Log()
    log.configure("info", "json", out)
    log.info("x", text=text)
    said = json.loads(out.getvalue())["text"]
    assert telemetry.HIDDEN in said
    assert not tells_secret(said), "nothing is left of it"


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_for_people_is_no_credential(text: str):
    assert not tells_secret(text)


@pytest.mark.parametrize(
    "word", ["eyJ-", "eyJ-eyJ.", "bearer ", "bearer\t\t", "://a:", "authorization: basic ", "password' ", "token=", "glpat-."]
)
def test_a_text_that_repeats_a_beginning_is_looked_at_once(word: str):
    """A forged file may have lines of 16 MiB."""
    text, began = word * 20_000, process_time()
    tells_secret(text)
    assert process_time() - began < 1, "the square of its length would take minutes"
