from typing import Any

import pytest

from connector.odrl import load
from connector.odrl.model import Constraint, Window
from connector.odrl.operands import CORE_OPERANDS
from connector.odrl.registry import Operand, registry_of
from connector.odrl_forms.sayings import SAYINGS
from connector.odrl_forms.text_lines import Mistakes, read_lines
from connector.odrl_forms.text_phrases import constraint_text, id_text, iri_text, operand_word, read_constraint, term_text
from tests.odrl.cases import leaf, offer, rule
from tests.odrl_forms.shipped import options
from tests.odrl_forms.test_plain import LISTS, VALUES

REGISTRY = registry_of(options())
PAIRS = [(operand, operator) for operand in CORE_OPERANDS for operator in sorted(operand.operators)]


def read(text: str) -> dict[str, Any] | None:
    mistakes = Mistakes()
    (line,) = read_lines(text, mistakes)
    found = read_constraint(line.tokens, line, REGISTRY, mistakes)
    mistakes.done()
    return found


def constraint(left: str, operator: str, right: Any, **more: Any) -> Constraint:
    found = load(offer(rule({**leaf(left, operator, right), **more})), options=options()).permissions[0].constraints[0]
    assert isinstance(found, Constraint)
    return found


@pytest.mark.parametrize(("operand", "operator"), PAIRS, ids=lambda of: of.iri.rpartition("/")[2] if isinstance(of, Operand) else of)
def test_every_core_operand_with_every_operator_has_a_phrase_that_reads_back(operand: Operand, operator: str):
    value = VALUES[operand.values]
    if operator in LISTS and operand.values != "term":
        return  # a list on an axis is a group of single conditions
    found = constraint(operand.iri, operator, [value, "b"] if operator in LISTS else value)
    tree = read(constraint_text(found, REGISTRY))
    assert tree is not None
    assert constraint(tree["leftOperand"], tree["operator"], tree["rightOperand"]) == found


@pytest.mark.parametrize(
    ("text", "left", "operator", "right"),
    [
        ("for research", "odrl:purpose", "eq", "research"),
        ("for {research}", "odrl:purpose", "isAnyOf", ["research"]),
        ("not for {a, b}", "odrl:purpose", "isNoneOf", ["a", "b"]),
        ("for kinds of dpv:Marketing", "odrl:purpose", "isA", [{"@id": "https://w3id.org/dpv#Marketing"}]),
        ("for at", "odrl:purpose", "eq", "at"),
        ("for at most 3 months", "odrl:elapsedTime", "lteq", {"@value": "P3M", "@type": "xsd:duration"}),
        ("for at most 2 hours of use", "odrl:meteredTime", "lteq", {"@value": "PT2H", "@type": "xsd:duration"}),
        ("within P1Y6M", "odrl:delayPeriod", "lteq", {"@value": "P1Y6M", "@type": "xsd:duration"}),
        ("until 2026-12-31T18:00:00Z", "odrl:dateTime", "lteq", {"@value": "2026-12-31T18:00:00Z", "@type": "xsd:dateTime"}),
        ("at most 5 bytes", "urn:qiao:byteCount", "lteq", {"@value": "5", "@type": "xsd:integer"}),
        ("exactly 7 records", "urn:qiao:recordCount", "eq", {"@value": "7", "@type": "xsd:integer"}),
        ("in {DE, FR}", "odrl:spatial", "isAnyOf", ["DE", "FR"]),
        ("before event urn:fair", "odrl:event", "lt", {"@id": "urn:fair"}),
        ("participant is one of {did:web:a.example}", "urn:qiao:participant", "isAnyOf", [{"@id": "did:web:a.example"}]),
        ("hds:minCohortSize is at least 10", "https://hds.example/ns/1.0#minCohortSize", "gteq", {"@value": "10", "@type": "xsd:integer"}),
        ("cx-policy:Membership is active", "https://w3id.org/catenax/2025/9/policy/Membership", "eq", "active"),
        ("MembershipCredential is active", "MembershipCredential", "eq", "active"),
        ("<http://www.w3.org/ns/odrl/2/language> is de", "odrl:language", "eq", "de"),
        ('language is "not"', "odrl:language", "eq", "not"),
    ],
)
def test_a_phrase_is_one_operator_of_one_operand(text: str, left: str, operator: str, right: object):
    assert read(text) == leaf(left, operator, right)


def test_unit_status_and_id_stand_behind():
    assert read("payAmount is at most 5.50 unit http://dbpedia.org/resource/Euro with 2 used as urn:c1") == {
        **leaf("odrl:payAmount", "lteq", {"@value": "5.50", "@type": "xsd:decimal"}),
        "odrl:unit": {"@id": "http://dbpedia.org/resource/Euro"},
        "odrl:status": {"@value": "2", "@type": "xsd:integer"},
        "@id": "urn:c1",
    }


def test_what_was_used_before_is_told_from_the_limit():
    found = constraint(
        "odrl:count", "lteq", {"@value": "10", "@type": "xsd:integer"}, **{"odrl:status": {"@value": "2.5", "@type": "xsd:decimal"}}
    )
    assert isinstance(found.test, Window)
    assert constraint_text(found, REGISTRY) == "at most 10 times with 2.5 used"


def test_words_that_could_be_mistaken_stand_in_quotes():
    assert term_text("research", REGISTRY) == "research"
    for word in ("not", "and", "one", "unit", "two words", "ex:a", "odrl:use", "#x", "a,b"):
        assert term_text(word, REGISTRY) == f'"{word}"'
    assert term_text("https://w3id.org/dpv#Marketing", REGISTRY) == "dpv:Marketing"
    assert term_text("https://a.example/x,y", REGISTRY) == "<https://a.example/x,y>"


def test_ids_stand_bare_where_they_read_as_themselves():
    assert id_text("urn:ds:42", REGISTRY) == "urn:ds:42"
    assert id_text("policy-7", REGISTRY) == "policy-7"
    assert id_text("odrl:use", REGISTRY) == '"odrl:use"'
    assert id_text("as", REGISTRY) == '"as"'


def test_operands_and_iris_take_their_shortest_name():
    assert operand_word("http://www.w3.org/ns/odrl/2/purpose", REGISTRY) == "purpose"
    assert operand_word("urn:qiao:byteCount", REGISTRY) == "byteCount"
    assert operand_word("https://hds.example/ns/1.0#rate", REGISTRY) == "hds:rate"
    assert operand_word("$.credentialSubject.gx:vatID", REGISTRY) == "$.credentialSubject.gx:vatID"
    assert iri_text("https://things.example/one", REGISTRY) == "https://things.example/one"


def test_no_saying_is_hidden_by_another_one():
    for saying in SAYINGS:
        operand = REGISTRY.operands[saying.operand]
        value = {"instant": "2026-12-31Z", "duration": "P30D", "number": "5", "term": "x", "event": "urn:x"}[operand.values]
        listed = "{" + value + "}" if saying.operator in LISTS else value
        found = read(saying.text.replace("{}", listed))
        assert found is not None
        assert (found["leftOperand"].replace("odrl:", "http://www.w3.org/ns/odrl/2/"), found["operator"]) == (
            saying.operand,
            saying.operator,
        )
