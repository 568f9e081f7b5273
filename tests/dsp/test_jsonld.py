import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pyld import jsonld as library

from connector.dsp.jsonld import CONTEXTS_MAX, DEPTH_MAX, ODRL, compact, iri_of, with_imports
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import Schemas
from connector.errors import WireError
from connector.vocabulary import read_vocabulary
from tests.vocab.corpus import ODRL_PROFILE, examples

VOCABULARY = read_vocabulary()
CONTEXTS = VOCABULARY.contexts
SCHEMAS = Schemas(VOCABULARY.schemas)
DSPACE = "https://w3id.org/dspace/2025/1/"
OTHER_PREFIXES = {"@context": {"d": DSPACE, "o": ODRL, "c": "http://www.w3.org/ns/dcat#", "t": "http://purl.org/dc/terms/"}}

EXAMPLES = [(file, document) for file, shape, document in examples() if shape not in ("VersionResponse", "DidService")]
# In this one, dataset and offer share an `@id`: written as a graph they are one object of two types, which is no offer.
NOT_A_GRAPH = "catalog/example/catalog.json"

PURPOSE = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
REQUEST: dict[str, Any] = {
    "@context": CONTEXT,
    "@type": "ContractRequestMessage",
    "consumerPid": "urn:uuid:c",
    "callbackAddress": "https://c.test/dsp",
    "offer": {"@id": "urn:o:1", "@type": "Offer", "target": "urn:ds:1", "permission": [{"action": "use", "constraint": [PURPOSE]}]},
}


def options() -> dict[str, Any]:
    known = with_imports(dict(CONTEXTS), CONTEXTS)

    def load(url: str, _options: object) -> dict[str, Any]:
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": known[url]}

    return {"base": None, "documentLoader": load}


def request(context: Any = CONTEXT, **offer: Any) -> dict[str, Any]:
    return {**REQUEST, "@context": context, "offer": {**REQUEST["offer"], **offer}}


def rule(**members: Any) -> list[dict[str, Any]]:
    return [{"action": "use", **members}]


def compacted(document: Any, expected: str = "ContractRequestMessage", contexts: Mapping[str, Any] = CONTEXTS) -> dict[str, Any]:
    result = compact(document, expected, contexts)
    assert SCHEMAS.reasons(expected, result) == []
    return result


FORMS = {
    "itself": lambda document: document,
    "the context as a string": lambda document: {**document, "@context": DSP_CONTEXT},
    "expanded": lambda document: library.expand(document, options()),
    "prefixed": lambda document: library.compact(document, OTHER_PREFIXES, options()),
    "a graph": lambda document: library.flatten(document, None, options()),
    "a prefixed graph": lambda document: library.flatten(document, OTHER_PREFIXES, options()),
}


CASES = [(form, file, document) for form in FORMS for file, document in EXAMPLES if file != NOT_A_GRAPH or "graph" not in form]


@pytest.mark.parametrize(("form", "document"), [(form, document) for form, _, document in CASES], ids=[f"{c[1]}-{c[0]}" for c in CASES])
def test_every_form_of_an_official_example_compacts_to_the_example(form: str, document: Any):
    foreign = FORMS[form](document)
    before = copy.deepcopy(foreign)
    assert compacted(foreign, document["@type"]) == document
    assert foreign == before


def test_a_graph_in_which_two_objects_have_one_id_is_not_valid():
    example = dict(EXAMPLES)[NOT_A_GRAPH]
    merged = compact(FORMS["a graph"](example), "Catalog", CONTEXTS)
    assert SCHEMAS.reasons("Catalog", merged) == ["`/dataset/0/hasPolicy/0/@type` must be `Offer`, not an array"]


def test_terms_of_the_senders_own_are_translated():
    own = {"d": DSPACE, "o": ODRL, "type": "@type", "may": {"@id": "o:permission"}, "does": {"@id": "o:action", "@type": "@vocab"}}
    own |= {"what": "d:offer", "me": {"@id": "d:consumerPid", "@type": "@id"}, "answerTo": "d:callbackAddress"}
    foreign = {
        "@context": own,
        "type": "d:ContractRequestMessage",
        "me": "urn:uuid:c",
        "answerTo": "https://c.test/dsp",
        "what": {"@id": "urn:o:1", "type": "o:Offer", "may": {"does": "o:use"}, "o:target": {"@id": "urn:ds:1"}},
    }
    assert compacted(foreign) == request(permission=rule())


@pytest.mark.parametrize("group", ["and", "or", "xone", "andSequence"])
def test_a_group_of_one_stays_an_array(group: str):
    document = request(permission=rule(constraint=[{group: [PURPOSE]}]))
    assert compacted(document) == document


def test_a_group_written_as_a_list_keeps_its_order():
    members = [{**PURPOSE, "rightOperand": str(number)} for number in range(5)]
    document = request(permission=rule(constraint=[{"andSequence": {"@list": members}}]))
    assert compacted(document)["offer"]["permission"][0]["constraint"] == [{"andSequence": members}]


def test_single_values_become_the_arrays_that_the_schemas_demand():
    document = request(permission={"action": "use", "constraint": PURPOSE})
    assert compacted(document) == REQUEST


def test_identifiers_without_coercion_may_be_references():
    document = {**REQUEST, "https://w3id.org/dspace/2025/1/callbackAddress": {"@id": REQUEST["callbackAddress"]}}
    del document["callbackAddress"]
    assert compacted(document) == REQUEST


def test_a_string_typed_as_xsd_string_is_a_string():
    document = {**REQUEST, "callbackAddress": {"@value": REQUEST["callbackAddress"], "@type": "xsd:string"}}
    assert compacted(document) == REQUEST


def test_a_json_literal_is_left_as_it_is():
    literal = {"@type": "@json", "@value": {"or": "x", "dataset": {"@id": "urn:d"}, "text": {"@type": "xsd:string", "@value": "y"}}}
    document = {"@context": CONTEXT, "@type": "TransferTerminationMessage", "consumerPid": "urn:c", "providerPid": "urn:p"}
    assert compacted(document | {"reason": ["no", literal]}, "TransferTerminationMessage")["reason"] == ["no", literal]


def test_a_typed_right_operand_keeps_its_type():
    typed = {**PURPOSE, "rightOperand": {"@value": "5", "@type": "xsd:integer"}}
    document = request([*CONTEXT], permission=rule(constraint=[typed]))
    assert compacted(document) == document


def test_relative_references_stay_as_they_are():
    document = request(permission=rule(constraint=[{**PURPOSE, "leftOperand": "spatial"}]), target="dataset-1")
    assert compacted(document) == document


def test_a_property_with_a_meaning_of_its_own_stays_under_its_iri():
    assert compacted({**REQUEST, "dct:title": "x"})["dct:title"] == "x"
    beside = compacted(request(**{"http://example.org/limit": "5"}))
    assert beside["offer"]["http://example.org/limit"] == "5"


@pytest.mark.parametrize(
    "document",
    [
        request([*CONTEXT, "https://unknown.test/context"]),
        request("https://unknown.test/context"),
        request([*CONTEXT, {"x": {"@id": "urn:x", "@context": "https://unknown.test/context"}}]),
        request([*CONTEXT, {"@import": "https://unknown.test/context"}]),
        request(**{"@context": "https://unknown.test/context"}),
    ],
    ids=["beside", "alone", "scoped", "imported", "within"],
)
def test_an_unknown_context_is_named_and_never_fetched(document: Any):
    with pytest.raises(WireError, match=r"the context `https://unknown.test/context` is not known here; contexts are never fetched"):
        compact(document, "ContractRequestMessage", CONTEXTS)


@pytest.mark.parametrize(
    ("document", "term"),
    [
        (request(permission=rule(refinement=[PURPOSE])), "refinement"),
        (request(permission=rule(constraint=[{**PURPOSE, "unit": "EUR"}])), "unit"),
        (request(atMost="5"), "atMost"),
        (request([*CONTEXT, {"atMost": None}], atMost="5"), "a term that its context maps to null"),
        (
            {"@context": {"o": ODRL, "d": DSPACE}, "@graph": [{"@type": "d:ContractRequestMessage"}, {"o:action": "o:use", "atMost": "5"}]},
            "atMost",
        ),
    ],
    ids=["rule", "constraint", "offer", "null", "graph"],
)
def test_an_undefined_term_in_a_policy_is_refused_for_it_may_be_a_condition(document: Any, term: str):
    with pytest.raises(WireError, match=r"what is not understood in a policy is refused") as refused:
        compact(document, "ContractRequestMessage", CONTEXTS)
    assert term in refused.value.message


def test_an_undefined_term_outside_of_a_policy_is_dropped_as_json_ld_says():
    assert compacted({**REQUEST, "title": "x"}) == REQUEST
    dataset = {
        "@context": DSP_CONTEXT,
        "@type": "Dataset",
        "@id": "urn:ds:1",
        "title": "x",
        "hasPolicy": [{"@id": "urn:o:1", "@type": "Offer", "permission": rule()}],
        "distribution": [{"@type": "Distribution", "format": "HttpData-PULL", "accessService": {"@id": "urn:s"}, "size": "5"}],
    }
    result = compacted(dataset, "Dataset")
    assert "title" not in result
    assert result["distribution"] == [{"@type": "Distribution", "format": "HttpData-PULL", "accessService": "urn:s"}]


def test_a_protected_term_cannot_be_given_another_meaning():
    with pytest.raises(WireError, match=r"not valid JSON-LD: .*protected"):
        compact(request([*CONTEXT, {"Catalog": "urn:x:Catalog"}]), "ContractRequestMessage", CONTEXTS)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (5, "a message is a JSON object"),
        (None, "a message is a JSON object"),
        ({}, "holds 0"),
        ([], "holds 0"),
        ({"@type": "ContractRequestMessage"}, "holds 0"),
        ({**REQUEST, "@type": "ContractOfferMessage"}, "holds 0"),
        ([REQUEST, {**REQUEST, "consumerPid": "urn:uuid:d"}], "holds 2"),
        ({**REQUEST, "@id": 5}, "not valid JSON-LD"),
        ({**REQUEST, "@context": 5}, "not valid JSON-LD"),
        ({**REQUEST, "@context": [*CONTEXT, {"@version": 1.0}]}, "not valid JSON-LD"),
    ],
    ids=str,
)
def test_what_is_not_one_object_of_the_type_is_refused(document: Any, message: str):
    with pytest.raises(WireError, match=message):
        compact(document, "ContractRequestMessage", CONTEXTS)


def test_the_types_that_were_found_are_named():
    with pytest.raises(WireError) as refused:
        compact({**REQUEST, "@type": "CatalogError"}, "ContractRequestMessage", CONTEXTS)
    said = f"the body must hold one object of type `ContractRequestMessage`, holds 0: its objects have the types `{DSPACE}CatalogError`"
    assert refused.value.reasons == (said,)


def test_a_type_without_a_class_in_the_context_is_refused():
    with pytest.raises(WireError, match="`VersionResponse` is not a type of the DSP context"):
        compact(REQUEST, "VersionResponse", CONTEXTS)


def test_depth_and_number_of_contexts_are_bounded_before_anything_is_expanded():
    deep: Any = {}
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WireError, match=f"more than {DEPTH_MAX} levels"):
        compact({**REQUEST, "x": deep}, "ContractRequestMessage", CONTEXTS)
    while deep:
        deep = deep[0]  # taken apart by hand: the interpreter would recurse
    many = request([*CONTEXT, *[{"x": "urn:x"}] * CONTEXTS_MAX])
    with pytest.raises(WireError, match=f"more than {CONTEXTS_MAX} contexts"):
        compact(many, "ContractRequestMessage", CONTEXTS)


def test_one_message_leaves_nothing_behind_for_the_next():
    before = json.dumps(CONTEXTS)
    agreement = next(document for file, document in EXAMPLES if file.endswith("agreement-message-full.json"))
    for document in (REQUEST, agreement, request([*CONTEXT, {"x": "urn:x:1"}], x="1"), REQUEST):
        compacted(document, document["@type"])
    assert compacted(request([*CONTEXT, {"x": "urn:x:2"}], x="1"))["offer"]["urn:x:2"] == "1"
    assert json.dumps(CONTEXTS) == before


def test_imports_are_merged_under_what_stands_beside_them():
    contexts = {"urn:a": {"@context": {"x": "urn:a:x", "y": "urn:a:y"}}}
    document = {"@context": [{"@import": "urn:a", "y": "urn:b:y"}], "@import": "urn:not-a-context"}
    assert with_imports(document, contexts) == {"@context": [{"x": "urn:a:x", "y": "urn:b:y"}], "@import": "urn:not-a-context"}


def test_each_class_that_imports_the_odrl_profile_keeps_its_own_terms():
    merged = with_imports(CONTEXTS[DSP_CONTEXT], CONTEXTS)["@context"]
    profile = CONTEXTS[ODRL_PROFILE]["@context"]
    for class_ in ("ContractRequestMessage", "ContractOfferMessage", "ContractAgreementMessage", "Dataset"):
        own = CONTEXTS[DSP_CONTEXT]["@context"][class_]["@context"]
        assert merged[class_]["@context"] == {**profile, **{key: value for key, value in own.items() if key != "@import"}}


def test_the_iri_of_a_class_follows_its_prefix():
    assert iri_of("Dataset", CONTEXTS[DSP_CONTEXT]) == "http://www.w3.org/ns/dcat#Dataset"
    assert iri_of("TransferError", CONTEXTS[DSP_CONTEXT]) == f"{DSPACE}TransferError"
