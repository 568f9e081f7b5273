from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp import dcat
from tests.pair import OPEN, SCHEMAS, only_for, purpose_policy

SERVICE = dcat.service_document("urn:service", "https://p.test/dsp")


def dataset(id: str = "urn:d:1", *policies: dict[str, Any], **changed: Any) -> dict[str, Any]:
    offers = [(dcat.offer_id(id, policy), policy) for policy in policies or (OPEN,)]
    return dcat.dataset_document(id, "A title", offers, "urn:service", **({"media_type": "text/csv"} | changed))


def test_a_catalog_of_datasets_is_schema_valid():
    rows = [
        orjson.dumps(dataset(f"urn:d:{n}", OPEN, purpose_policy("research"), size_bytes=10, description="d", keywords=("a", "b")))
        for n in range(3)
    ]
    document = orjson.loads(dcat.catalog("urn:c", "did:web:p", SERVICE, rows, []))
    assert SCHEMAS.reasons("Catalog", document) == []
    assert [d["@id"] for d in document["dataset"]] == ["urn:d:0", "urn:d:1", "urn:d:2"]
    assert document["service"] == [SERVICE]


def test_an_empty_catalog_leaves_its_arrays_out_and_is_schema_valid():
    document = orjson.loads(dcat.catalog("urn:c", "did:web:p", SERVICE, [], []))
    assert SCHEMAS.reasons("Catalog", document) == []
    assert "dataset" not in document
    assert "catalog" not in document


def test_a_nested_catalog_says_where_it_is_served():
    stub = dcat.nested_catalog("urn:c:2", "elsewhere", "https://q.test/dsp", "urn:service:2")
    document = orjson.loads(dcat.catalog("urn:c", "did:web:p", SERVICE, [], [stub]))
    assert SCHEMAS.reasons("Catalog", document) == []
    (nested,) = document["catalog"]
    assert nested["distribution"][0]["accessService"]["endpointURL"] == "https://q.test/dsp"


def test_the_root_form_of_a_dataset_is_schema_valid():
    document = orjson.loads(dcat.root_dataset(orjson.dumps(dataset(properties={"dct:license": "urn:l"}))))
    assert SCHEMAS.reasons("Dataset", document) == []
    assert document["dct:license"] == "urn:l"


def test_an_offer_of_a_catalog_has_no_target_and_that_of_a_message_has_the_dataset():
    policy = OPEN | {"target": "urn:other", "@context": ["x"], "@id": "urn:own"}
    offer = dcat.offer_document("urn:o", policy)
    assert SCHEMAS.reasons("Offer", offer) == []
    assert offer == {"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use"}]}
    message = dcat.message_offer("urn:o", policy, "urn:d:1")
    assert SCHEMAS.reasons("MessageOffer", message) == []
    assert message["target"] == "urn:d:1"


def test_publishing_the_same_again_changes_no_offer_id():
    assert dcat.offer_id("urn:d", OPEN) == dcat.offer_id("urn:d", {"permission": [{"action": "use"}], "@id": "urn:x", "@type": "Offer"})


@given(
    st.text(), st.text(), st.sampled_from([OPEN, purpose_policy("a"), only_for("did:web:x")]), st.sampled_from([OPEN, purpose_policy("b")])
)
def test_no_two_datasets_and_no_two_terms_share_an_offer_id(one: str, other: str, policy: dict[str, Any], another: dict[str, Any]):
    same = (one, policy) == (other, another)
    assert (dcat.offer_id(one, policy) == dcat.offer_id(other, another)) is same


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_hidden_offers_are_gone_and_a_dataset_without_any_too(hidden: int):
    policies = [OPEN, purpose_policy("research")]
    document = orjson.dumps(dataset("urn:d", *policies))
    ids = [dcat.offer_id("urn:d", policy) for policy in policies]
    left = dcat.without_offers(document, frozenset(ids[:hidden]))
    if hidden == 2:
        assert left is None
    else:
        assert left is not None
        assert [o["@id"] for o in orjson.loads(left)["hasPolicy"]] == ids[hidden:]


def test_empty_lists_say_nothing_and_everything_else_stays():
    said = {"@id": "urn:d", "hasPolicy": [{"permission": [{"constraint": []}], "prohibition": []}], "x": [[]], "y": [0, "", {}]}
    left = {"@id": "urn:d", "hasPolicy": [{"permission": [{}]}], "x": [[]], "y": [0, "", {}]}
    assert dcat.without_empty(said) == left
    assert dcat.without_empty(left) == left
