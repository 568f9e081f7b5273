"""Our contexts mean what the official ones mean: every document expands, and compacts, to the same."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from pyld import jsonld
from pyld.context_resolver import ContextResolver

from connector.dsp.jsonld import with_imports
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import SCHEMA_OF, Schemas
from connector.odrl.vocabulary import W3C_CONTEXT
from connector.vocabulary import CONTEXTS, read_vocabulary
from tests.vocab.corpus import ODRL_PROFILE, examples, mutations, official_contexts

MUTATED_OF_A_SHAPE = 20

OURS = read_vocabulary()
OFFICIAL = official_contexts()
EXAMPLES = [(file, document) for file, _, document in examples()]
DID_V1 = {"https://www.w3.org/ns/did/v1": {"@context": {"id": "@id", "type": "@type"}}}  # as much of it as the DID examples need

DSP_TERMS: dict[str, Any] = OFFICIAL[DSP_CONTEXT]["@context"]
ODRL_TERMS: dict[str, Any] = OFFICIAL[ODRL_PROFILE]["@context"]
CLASSES = [name for name, definition in DSP_TERMS.items() if isinstance(definition, dict)]
VALUES: tuple[Any, ...] = (
    "urn:x:y", "relative", "use", "REQUESTED", "odrl:read", "_:b", 5, True, ["a", "b"], [], {"@id": "urn:z"}, {"@value": "v"},
    {"@value": "v", "@type": "xsd:date"},
)  # fmt: skip


def options(contexts: Mapping[str, Any]) -> dict[str, Any]:
    """A closed loader; imports are resolved beforehand, for the library takes the result of one for that of the next. What it has read it
    keeps: the contexts stay the same."""
    return _options(contexts is OFFICIAL)


@cache
def _options(official: bool) -> dict[str, Any]:
    contexts = OFFICIAL if official else OURS.contexts
    known = {**{url: _without_imports(url, official) for url in contexts}, **DID_V1}

    def load(url: str, _options: object) -> dict[str, Any]:
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": known[url]}

    return {"base": None, "documentLoader": load, "contextResolver": ContextResolver({}, load)}


@cache
def _without_imports(url: str, official: bool) -> Any:
    contexts = OFFICIAL if official else OURS.contexts
    return with_imports(contexts[url], contexts)


def meaning(document: Any, contexts: Mapping[str, Any]) -> Any:
    """What a document expands to and what that compacts to, or the code of the error."""
    try:
        expanded = jsonld.expand(document, options(contexts))
        return expanded, jsonld.compact(expanded, {"@context": CONTEXT}, {**options(contexts), "skipExpansion": True})
    except jsonld.JsonLdError as error:
        while isinstance(error.__cause__, jsonld.JsonLdError):
            error = error.__cause__
        return error.code


def assert_same_meaning(document: Any) -> Any:
    ours, official = meaning(document, OURS.contexts), meaning(document, OFFICIAL)
    assert ours == official, document
    return ours


def test_the_contexts_of_the_protocol_are_known_by_their_official_urls():
    assert CONTEXTS.keys() == OURS.contexts.keys() == OFFICIAL.keys() | {W3C_CONTEXT}


@pytest.mark.parametrize("document", [document for _, document in EXAMPLES], ids=[file for file, _ in EXAMPLES])
def test_an_official_example_has_the_same_meaning(document: Any):
    expanded, _ = assert_same_meaning(document)
    assert expanded or "protocolVersions" in document or document["type"] == "DataService"  # neither of these two is JSON-LD


@pytest.mark.slow
@pytest.mark.parametrize("shape", [shape for shape in SCHEMA_OF if shape in CLASSES])
def test_valid_mutated_messages_have_the_same_meaning(shape: str):
    schemas, compared = Schemas(OURS.schemas), 0
    for document in mutations(shape, MUTATED_OF_A_SHAPE):
        if schemas.is_valid(shape, document):
            document["@context"] = CONTEXT  # the mutations name contexts of others too
            assert_same_meaning(document)
            compared += 1
    assert compared >= MUTATED_OF_A_SHAPE * 0.3


def names(terms: Mapping[str, Any]) -> list[str]:
    return [term for term in terms if not term.startswith("@")]


@pytest.mark.slow
@pytest.mark.parametrize("class_", CLASSES)
def test_each_term_with_each_kind_of_value_means_the_same_in_each_class(class_: str):
    own = names(DSP_TERMS[class_].get("@context", {}))
    everywhere = [term for term in [*names(ODRL_TERMS), *names(DSP_TERMS)] if term not in own]
    for value in VALUES:
        assert_same_meaning({"@context": CONTEXT, "@type": class_, **dict.fromkeys(own, value)})
    below = [dict.fromkeys(everywhere, value) for value in VALUES]
    for member in ("urn:x:below", "offer", "agreement", "hasPolicy", "distribution"):
        assert_same_meaning({"@context": CONTEXT, "@type": class_, member: below})
    assert_same_meaning({"@context": CONTEXT, "@type": class_, **dict.fromkeys(everywhere, "urn:x:y")})


@pytest.mark.slow
@pytest.mark.parametrize("class_", CLASSES)
def test_each_class_means_the_same_within_each_other(class_: str):
    inner = [{"@type": name, **dict.fromkeys(names(DSP_TERMS[name].get("@context", {})), "urn:x:y")} for name in CLASSES]
    assert_same_meaning({"@context": CONTEXT, "@type": class_, "urn:x:inner": [{**node, "urn:x:below": node} for node in inner]})


@pytest.mark.parametrize("class_", CLASSES)
def test_the_same_terms_are_protected(class_: str):
    own = names(DSP_TERMS[class_].get("@context", {}))
    outcomes = [assert_same_meaning({"@context": [*CONTEXT, None], "@type": class_})]
    for term in [*own, "use", "dspace", "ACCEPTED", class_]:
        theirs = {term: "urn:other:meaning"}
        outcomes.append(assert_same_meaning({"@context": [*CONTEXT, theirs], "@type": class_, term: "x"}))
        outcomes.append(assert_same_meaning({"@context": CONTEXT, "@type": class_, "urn:x:below": {"@context": theirs, term: "x"}}))
    assert "protected term redefinition" in outcomes
    assert "invalid context nullification" in outcomes
