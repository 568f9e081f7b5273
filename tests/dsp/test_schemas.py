import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.messages import CONTEXT, DSP_CONTEXT, Move
from connector.dsp.schemas import (
    DETAIL_MAX_VALUES,
    ECHO_MAX_CHARS,
    REASON_MAX_CHARS,
    REASONS_MAX,
    SCHEMA_OF,
    TOO_DEEP,
    Schemas,
    Violation,
    pointer,
    quoted,
    sentences,
)
from connector.vocabulary import read_vocabulary

DOCUMENTS = read_vocabulary().schemas
SCHEMAS = Schemas(DOCUMENTS)

ATOMIC = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
OFFER: dict[str, Any] = {
    "@id": "urn:o:1",
    "@type": "Offer",
    "target": "urn:ds:1",
    "permission": [{"action": "use", "constraint": [ATOMIC]}],
}
REQUEST: dict[str, Any] = {
    "@context": CONTEXT,
    "@type": "ContractRequestMessage",
    "consumerPid": "urn:uuid:c",
    "callbackAddress": "https://c.test/dsp",
    "offer": OFFER,
}


def request(**changes: Any) -> dict[str, Any]:
    """The request with members replaced, or left out where the value is Ellipsis."""
    return {name: value for name, value in (REQUEST | changes).items() if value is not ...}


def offer(**changes: Any) -> dict[str, Any]:
    return request(offer={name: value for name, value in (OFFER | changes).items() if value is not ...})


def constraint(*constraints: Any) -> dict[str, Any]:
    return offer(permission=[{"action": "use", "constraint": list(constraints)}])


def test_every_message_of_the_protocol_has_a_shape():
    assert {move.type for move in Move} <= SCHEMA_OF.keys()


def test_a_valid_message_has_no_reasons():
    assert SCHEMAS.is_valid("ContractRequestMessage", REQUEST)
    assert SCHEMAS.reasons("ContractRequestMessage", REQUEST) == []


def test_a_message_is_valid_only_as_its_own_type():
    assert [type_ for type_ in SCHEMA_OF if SCHEMAS.is_valid(type_, REQUEST)] == ["ContractRequestMessage"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (request(consumerPid=...), "the document lacks `consumerPid`"),
        (request(consumerPid=5), "`/consumerPid` must be a string, not a number"),
        (request(consumerPid=None), "`/consumerPid` must be a string, not null"),
        (request(**{"@type": "ContractOfferMessage"}), "`/@type` must be `ContractRequestMessage`, not `ContractOfferMessage`"),
        (request(**{"@context": DSP_CONTEXT}), "`/@context` must be an array, not a string"),
        (request(**{"@context": ["https://other.test/"]}), f"`/@context` must contain `{DSP_CONTEXT}`"),
        (request(providerPid="urn:p"), "the document must hold exactly one of its alternatives, but holds more"),
        (request(callbackAddress=...), "the document must hold exactly one of `callbackAddress` or `providerPid`"),
        (offer(**{"@id": ...}), "`/offer` lacks `@id`"),
        (offer(permission=...), "`/offer` must hold at least one of `permission` or `prohibition`"),
        (offer(permission=[]), "`/offer/permission` must hold at least 1 entry; leave the property out if there is none"),
        (offer(permission={}), "`/offer/permission` must be an array, not an object"),
        (offer(profile=True), "`/offer/profile` must be a string or an array, not a boolean"),
        (constraint({**ATOMIC, "rightOperand": 5}), "`/offer/permission/0/constraint/0/rightOperand` must be"),
        (constraint({**ATOMIC, "operator": "=="}), "`term-lteq`, not `==`"),
        (constraint(ATOMIC, {"leftOperand": "a", "operator": "eq"}), "`/offer/permission/0/constraint/1` lacks `rightOperand`"),
        (
            constraint({"or": [{"and": [{**ATOMIC, "operator": 5}]}]}),
            "`/offer/permission/0/constraint/0/or/0/and/0/operator` must be one of",
        ),
        (constraint({"or": [], "and": []}), "`/offer/permission/0/constraint/0` must hold exactly one of its alternatives, but holds more"),
        (constraint("x"), "`/offer/permission/0/constraint/0` must be an object, not a string"),
        ([REQUEST], "the document must be an object, not an array"),
    ],
    ids=str,
)
def test_a_reason_says_what_is_wrong_and_where(document: Any, reason: str):
    assert not SCHEMAS.is_valid("ContractRequestMessage", document)
    reasons = SCHEMAS.reasons("ContractRequestMessage", document)
    assert any(reason in found for found in reasons), reasons


def test_reasons_for_other_shapes():
    assert SCHEMAS.reasons("Offer", OFFER) == ["the document must not hold `target`"]
    agreement = {**OFFER, "@type": "Agreement", "assigner": "did:web:p.test", "assignee": "did:web:c.test", "timestamp": "today"}
    assert SCHEMAS.reasons("Agreement", agreement) == ["`/timestamp` has the value `today`, which does not match its pattern"]
    distribution = {"format": "HttpData-PULL", "accessService": {"@id": "urn:s", "@type": "DataService"}}
    dataset = {"@context": CONTEXT, "@id": "urn:ds", "hasPolicy": [{**OFFER, "target": "urn:x"}], "distribution": [distribution]}
    assert set(SCHEMAS.reasons("Dataset", dataset)) == {
        "`/distribution/0/accessService` lacks `endpointURL`",
        "`/hasPolicy/0` must not hold `target`",
    }
    dataset["distribution"] = [{"format": "HttpData-PULL", "accessService": 5}]
    assert "`/distribution/0/accessService` must be a string or an object, not a number" in SCHEMAS.reasons("Dataset", dataset)


def test_an_unknown_type_has_no_valid_documents_and_says_so():
    assert not SCHEMAS.is_valid("Greeting", {})
    assert SCHEMAS.reasons("Greeting", {}) == ["`Greeting` is not a message type of DSP 2025-1"]


def test_reasons_are_bounded_in_number():
    document = constraint(*({**ATOMIC, "rightOperand": number} for number in range(REASONS_MAX * 2)))
    assert len(SCHEMAS.reasons("ContractRequestMessage", document)) == REASONS_MAX


def test_a_large_invalid_document_is_refused_at_once_with_one_general_reason():
    document = constraint(*[{"or": [{}] * 100}] * 100)
    started = time.thread_time()
    reasons = SCHEMAS.reasons("ContractRequestMessage", document)
    assert time.thread_time() - started < 0.1
    assert reasons == ["the document does not fit the schema of `ContractRequestMessage`; it is too large to say here where"]


def test_a_document_just_within_the_bound_is_explained():
    document = offer(permission=[{"action": "use"}] * (DETAIL_MAX_VALUES // 2 - 20), **{"@id": 5})
    assert SCHEMAS.reasons("ContractRequestMessage", document) == ["`/offer/@id` must be a string, not a number"]


def test_a_long_value_is_not_echoed():
    reasons = SCHEMAS.reasons("ContractRequestMessage", request(**{"@type": "x" * 5000}))
    assert reasons == ["`/@type` must be `ContractRequestMessage`, not a text of 5000 characters"]


def test_a_value_of_the_wrong_kind_is_not_echoed_for_it_may_be_a_secret():
    address = {
        "@type": "DataAddress",
        "endpointType": "urn:t",
        "endpointProperties": [{"@type": "EndpointProperty", "name": "token", "value": 424242}],
    }
    assert SCHEMAS.reasons("DataAddress", address) == ["`/endpointProperties/0/value` must be a string, not a number"]


def nested(levels: int, innermost: Any) -> dict[str, Any]:
    for _ in range(levels):
        innermost = {"and": [innermost]}
    return constraint(innermost)


def test_deep_nesting_has_a_verdict_and_a_reason():
    assert SCHEMAS.is_valid("ContractRequestMessage", nested(500, ATOMIC))  # orjson ends at 1024 levels of objects and arrays
    assert not SCHEMAS.is_valid("ContractRequestMessage", nested(500, {}))
    assert SCHEMAS.reasons("ContractRequestMessage", nested(150, {})) == [TOO_DEEP]


def test_text_that_is_not_unicode_is_invalid_not_an_error():
    document = request(**{"@type": "\ud800"})
    assert not SCHEMAS.is_valid("ContractRequestMessage", document)
    assert SCHEMAS.reasons("ContractRequestMessage", document) == [TOO_DEEP]


def test_a_broken_schema_is_an_error_at_once():
    broken = {id_: {**document, "type": "nothing"} for id_, document in DOCUMENTS.items()}
    with pytest.raises(ValueError, match="nothing"):
        Schemas(broken)
    with pytest.raises(ValueError, match="common/context-schema"):
        Schemas({id_: document for id_, document in DOCUMENTS.items() if "common/context-schema" not in id_})


def test_all_validators_are_built_in_thirty_milliseconds():
    def build() -> float:
        started = time.thread_time()
        Schemas(DOCUMENTS)
        return time.thread_time() - started

    assert min(build() for _ in range(5)) < 0.03


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=100),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*REQUEST, *OFFER, "and", "or", *ATOMIC]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(SCHEMA_OF)), JSON, st.sampled_from([*REQUEST, *OFFER, ""]))
def test_reasons_exist_exactly_for_the_invalid_and_stay_within_their_bounds(type_: str, value: Any, place: str):
    document = {**REQUEST, **OFFER, place: value} if place else value
    reasons = SCHEMAS.reasons(type_, document)
    assert bool(reasons) is not SCHEMAS.is_valid(type_, document)
    assert len(reasons) <= REASONS_MAX
    assert all(len(reason) <= REASON_MAX_CHARS and reason.isprintable() for reason in reasons)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.text()))
def test_a_quoted_value_is_short_and_printable(value: Any):
    text = quoted(value)
    assert text.isprintable()
    assert len(text) <= ECHO_MAX_CHARS + 2


def test_a_pointer_escapes_as_rfc_6901_says():
    assert pointer(("a/b", 0, "c~d")) == "/a~1b/0/c~0d"


def test_a_sentence_is_cut_at_its_bound():
    (sentence,) = sentences([Violation(("x",), "enum", ["y" * 70] * 9, "z")])
    assert len(sentence) == REASON_MAX_CHARS
    assert sentence.endswith("…")


def test_a_keyword_without_a_sentence_of_its_own_is_named():
    assert sentences([Violation((), "uniqueItems", True, [])]) == ["the document breaks the rule `uniqueItems` of its schema"]


def test_each_fault_has_the_pointer_of_what_it_is_about():
    wrong = {**OFFER, "permission": [{"action": "use", "constraint": [{**ATOMIC, "operator": "equals"}, {**ATOMIC, "rightOperand": 5}]}]}
    pointers = [path for path, _ in SCHEMAS.faults("MessageOffer", wrong)]
    assert pointers == ["/permission/0/constraint/0/operator", "/permission/0/constraint/1/rightOperand"]
    assert [sentence for _, sentence in SCHEMAS.faults("MessageOffer", wrong)] == SCHEMAS.reasons("MessageOffer", wrong)
    assert SCHEMAS.faults("MessageOffer", {"@type": "Offer"}) == [
        ("", "the document lacks `@id`"),
        ("", "the document must hold at least one of `permission` or `prohibition`"),
    ]


def test_a_valid_document_has_no_faults_and_one_that_is_too_large_one():
    assert SCHEMAS.faults("MessageOffer", OFFER) == []
    large = {**OFFER, "permission": [{"constraint": [ATOMIC] * DETAIL_MAX_VALUES}]}
    assert [path for path, _ in SCHEMAS.faults("MessageOffer", large)] == [""]
    assert SCHEMAS.faults("Nothing", OFFER) == [("", "`Nothing` is not a message type of DSP 2025-1")]
