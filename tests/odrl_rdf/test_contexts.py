"""The tables are what the files say, and mean what the vocabulary of ODRL 2.2 and the protocol mean."""

import ast
import json
from pathlib import Path

import pytest

from connector.odrl.operands import CORE_OPERANDS
from connector.odrl.vocabulary import DSP_CONTEXT, EXACT_MATCH, INCLUDED_IN, ODRL, OPERATORS, W3C_CONTEXT
from connector.odrl_rdf import contexts
from connector.odrl_rdf.contexts import CLASSES, CONTEXTS, LOGIC, NODES, PROFILE_CONTEXT, TERMS
from connector.odrl_rdf.expansion import Words
from connector.odrl_reading.parse import FUNCTIONS

FILES = Path(__file__).parents[2] / "vocab" / "context"
W3C = Words().opened(W3C_CONTEXT, "", CONTEXTS)
DSP = Words().opened(DSP_CONTEXT, "", CONTEXTS)


def of_file(name: str) -> dict[str, object]:
    terms: dict[str, object] = json.loads((FILES / name).read_text())["@context"]
    return terms


def test_the_w3c_context_is_the_file_that_is_shipped():
    assert CONTEXTS[W3C_CONTEXT] == {"@context": of_file("w3c-odrl.jsonld")}


def test_the_profile_of_odrl_is_the_file_that_is_shipped():
    assert CONTEXTS[PROFILE_CONTEXT] == {"@context": of_file("odrl.jsonld")}


def test_the_dsp_context_is_the_profile_of_odrl_with_the_prefixes_of_the_protocol():
    prefixes = {name: iri for name, iri in of_file("dspace.jsonld").items() if isinstance(iri, str) and iri.startswith("http")}
    head = {"@version": 1.1, "@protected": True, "timestamp": "dspace:timestamp"}
    assert CONTEXTS[DSP_CONTEXT]["@context"] == {**of_file("odrl.jsonld"), **prefixes, **head}


def test_every_term_of_the_core_vocabulary_stands_bare_under_the_w3c_context():
    iris = [*INCLUDED_IN, *EXACT_MATCH, *(operand.iri for operand in CORE_OPERANDS)]
    names = [iri.removeprefix(ODRL) for iri in iris if iri.startswith(ODRL)]
    for name in [*names, *CLASSES, *NODES, *TERMS, *LOGIC, *OPERATORS, *FUNCTIONS, "policyUsage", "perm", "prohibit", "invalid"]:
        assert W3C.expand(name, vocabulary=True) == ODRL + name
    assert (W3C.keyword("uid"), W3C.keyword("type")) == ("@id", "@type")


@pytest.mark.parametrize(
    "name", ["remedy", "consequence", "refinement", "conflict", "inheritFrom", "unit", "dataType", "status", "dateTime"]
)
def test_these_terms_are_not_in_the_dsp_context(name: str):
    assert name not in DSP.terms
    assert name in W3C.terms


def test_the_two_contexts_agree_wherever_both_know_a_term():
    for name in DSP.terms.keys() & W3C.terms.keys():
        assert (DSP.terms[name].iri, DSP.terms[name].type) == (W3C.terms[name].iri, W3C.terms[name].type), name


def test_both_stand_beside_each_other_in_either_order():
    for named in ([DSP_CONTEXT, W3C_CONTEXT], [W3C_CONTEXT, DSP_CONTEXT]):
        words = Words().opened(named, "", CONTEXTS)
        assert {words.expand(name, vocabulary=True) for name in ("remedy", "use", "dateTime")} == {
            ODRL + name for name in ("remedy", "use", "dateTime")
        }


def test_the_forms_of_a_policy_do_not_ask_for_the_reader_that_asks_for_them():
    """`odrl_reading.parse` has graphs turned into trees: whatever both need stands below them, so neither waits for the other to load."""
    modules = sorted(Path(contexts.__file__).parent.glob("*.py"))
    assert len(modules) > 5
    named = {
        path.name: {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)} for path in modules
    }
    assert [name for name, imported in named.items() if "connector.odrl_reading.parse" in imported] == []
