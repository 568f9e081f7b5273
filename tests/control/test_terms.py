"""That what we ask for is the offer, narrowed to our purposes and to nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.control.policies import Policies
from connector.control.terms import Alike, alike_of, demands, with_purposes
from connector.errors import PolicyError
from connector.odrl import PURPOSE, Options, load
from connector.ports import COUNTERSIGNED, SIGNED_REQUESTS
from connector.vocabulary import read_profiles
from tests.pair import OPEN, SCHEMAS, purpose_policy, until_policy

POLICIES = Policies()
BEFORE = until_policy("2030-01-01T00:00:00Z")["permission"][0]["constraint"][0]
WORDS = st.sampled_from(["urn:p:research", "urn:p:care", "urn:p:teaching", "quality control"])


def purpose(*values: Any, left: str = "odrl:purpose") -> dict[str, Any]:
    return {"leftOperand": left, "operator": "isAnyOf", "rightOperand": list(values)}


def offer(*constraints: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": each} for each in constraints]}


def forms(word: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([word, {"@id": word}, {"@value": word}] if ":" in word else [word, {"@value": word}])


CONSTRAINTS = st.lists(
    st.one_of(
        st.just(BEFORE),
        st.builds(lambda values, left: purpose(*values, left=left), st.lists(WORDS.flatmap(forms), min_size=1, max_size=3),
                  st.sampled_from(["odrl:purpose", PURPOSE])),
    ),
    max_size=3,
)  # fmt: skip
OFFERS = st.lists(CONSTRAINTS, min_size=1, max_size=3).map(lambda all_: offer(*all_))
PURPOSES = st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple)


@given(OFFERS, PURPOSES)
def test_every_permission_asks_for_exactly_our_purposes_and_keeps_whatever_else_it_demands(
    terms: dict[str, Any], purposes: tuple[str, ...]
):
    asked = with_purposes(terms, purposes)
    assert POLICIES.purposes(asked) == tuple(sorted(purposes))
    assert len(asked["permission"]) == len(terms["permission"])
    for before, after in zip(terms["permission"], asked["permission"], strict=True):
        others = [c for c in before["constraint"] if c == BEFORE]
        assert [c for c in after["constraint"] if c == BEFORE] == others
        assert len(after["constraint"]) == len(others) + 1
        assert after["action"] == before["action"]
    assert {k: v for k, v in asked.items() if k != "permission"} == {k: v for k, v in terms.items() if k != "permission"}


@given(OFFERS, PURPOSES)
def test_terms_of_ours_are_a_valid_message_and_are_narrowed_once_and_for_all(terms: dict[str, Any], purposes: tuple[str, ...]):
    asked = with_purposes(terms, purposes)
    message = {
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "ContractRequestMessage",
        "consumerPid": "urn:c",
        "callbackAddress": "https://c.test",
        "offer": asked | {"target": "urn:d"},
    }
    assert SCHEMAS.reasons("ContractRequestMessage", message) == []
    assert with_purposes(asked, purposes) == asked


@given(OFFERS)
def test_without_a_purpose_of_ours_we_ask_for_the_offer_as_it_is(terms: dict[str, Any]):
    assert with_purposes(terms, ()) == terms


def test_the_offer_itself_is_not_changed():
    terms = purpose_policy("urn:p:care", "urn:p:research")
    with_purposes(terms, ("urn:p:care",))
    assert terms == purpose_policy("urn:p:care", "urn:p:research")


def test_what_the_offer_demands_for_all_its_purposes_is_what_we_ask_for():
    terms = purpose_policy("urn:p:care", "urn:p:research")
    assert POLICIES.same(with_purposes(terms, ("urn:p:research", "urn:p:care")), terms)
    assert not POLICIES.same(with_purposes(terms, ("urn:p:care",)), terms)


def test_a_permission_that_leaves_the_purpose_open_gets_ours():
    asked = with_purposes(OPEN, ("urn:p:care",))
    assert asked["permission"] == [
        {"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "urn:p:care"}]}
    ]


@pytest.mark.parametrize("form", ["urn:p:care", {"@id": "urn:p:care"}, {"@value": "urn:p:care", "@type": "xsd:string"}])
def test_a_purpose_keeps_the_form_in_which_the_offer_has_it(form: Any):
    asked = with_purposes(offer([purpose("urn:p:research", form)]), ("urn:p:care",))
    assert asked["permission"][0]["constraint"][0]["rightOperand"] == form


def test_a_prohibition_is_not_touched():
    terms = OPEN | {"prohibition": [{"action": "use", "constraint": [purpose("urn:p:teaching")]}]}
    assert with_purposes(terms, ("urn:p:care",))["prohibition"] == terms["prohibition"]


METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
POSSESSION = {"leftOperand": "https://w3id.org/qiao/v1/possession", "operator": "eq", "rightOperand": {"@id": SIGNED_REQUESTS}}


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ([], frozenset()),
        ([METERING], {COUNTERSIGNED}),
        ([METERING, POSSESSION], {COUNTERSIGNED, SIGNED_REQUESTS}),
        ([{"or": [METERING, POSSESSION]}], {COUNTERSIGNED, SIGNED_REQUESTS}),
        ([METERING | {"rightOperand": "https://w3id.org/qiao/v1/weighed"}], {"https://w3id.org/qiao/v1/weighed"}),
    ],
)
def test_what_terms_demand_of_a_stream_is_read_from_wherever_it_stands(constraints: list[Any], expected: set[str]):
    policies = Policies(Options(profiles=read_profiles()))
    terms = OPEN | {"@id": "urn:terms", "target": "urn:data", "permission": [{"action": "use", "constraint": constraints}]}
    assert demands(policies.parse(terms)) == expected
    assert demands(policies.parse({"@type": "Offer", "permission": "no policy"})) == frozenset()


FIRST, SECOND = (f"urn:uuid:0197f0a0-0000-7000-8000-00000000000{digit}" for digit in (1, 2))


def agreement(id: str = FIRST, at: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    parties = {"target": "urn:d", "assigner": "did:web:a.example", "assignee": "did:web:b.example"}
    return {"@id": id, "@type": "Agreement", "timestamp": at, **parties, "permission": [{"action": "use"}], **more}


def alike() -> tuple[Alike, list[int]]:
    """A reader, and a list that grows with each policy that it reads by its words and keeps."""
    kept: list[int] = []

    def size_bytes(parts: int, text_bytes: int) -> int:
        kept.append(parts)
        return text_bytes

    return Alike(Options(), size_bytes), kept


@given(st.lists(CONSTRAINTS, min_size=1, max_size=3), st.lists(CONSTRAINTS, max_size=2), st.sampled_from(["Z", "+01:00", "", "nonsense"]))
def test_an_agreement_that_differs_in_id_and_time_from_one_that_was_read_means_what_its_words_mean(
    permitted: list[list[dict[str, Any]]], forbidden: list[list[dict[str, Any]]], zone: str
):
    rules = {"permission": [{"action": "use", "constraint": each} for each in permitted]}
    if forbidden:
        rules["prohibition"] = [{"action": "odrl:distribute", "constraint": each} for each in forbidden]
    reader, kept = alike()
    one, other = agreement(**rules), agreement(SECOND, f"2026-02-02T12:00:00{zone}", **rules)
    assert reader.load(one) == load(one)
    again = reader.load(other)
    assert again == load(other)
    assert (again.document, again.memo.keys() - {Alike}, kept) == (other, set(), kept[:1])
    assert alike_of(again) == alike_of(reader.load(one)) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"target": "urn:e"},
        {"assigner": "did:web:c.example"},
        {"assignee": "did:web:c.example"},
        {"permission": [{"action": "odrl:read"}]},
        {"permission": [{"action": "use", "constraint": [BEFORE]}]},
        {"prohibition": [{"action": "odrl:distribute"}]},
    ],
    ids=str,
)
def test_an_agreement_that_differs_in_anything_else_is_read_by_its_words(more: dict[str, Any]):
    reader, kept = alike()
    reader.load(agreement())
    other = agreement(SECOND, **more)
    assert reader.load(other) == load(other) != reader.load(agreement(SECOND))
    assert len(kept) == 2
    assert alike_of(reader.load(other)) != alike_of(reader.load(agreement()))


@pytest.mark.parametrize(
    "document",
    [
        agreement(permission=[{"@id": f"{FIRST}#1", "action": "use"}]),
        agreement("urn:agreement:1"),
        agreement(**{"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"]}),
        {**agreement(), "@type": "Offer"},
    ],
    ids=["its id stands in a rule", "an id of another kind", "another property", "no agreement"],
)
def test_what_is_not_plain_is_never_kept(document: dict[str, Any]):
    reader, kept = alike()
    for _ in range(2):
        assert reader.load(document) == load(document)
    assert kept == []
    assert alike_of(reader.load(document)) is None


@pytest.mark.parametrize("more", [{"timestamp": ""}, {"timestamp": 5}, {"@id": 5}, {"@type": 5}], ids=str)
def test_an_agreement_whose_id_time_or_type_is_no_text_is_refused_as_ever(more: dict[str, Any]):
    reader, _ = alike()
    reader.load(agreement())
    with pytest.raises(PolicyError) as expected:
        load(agreement(SECOND) | more)
    with pytest.raises(PolicyError) as found:
        reader.load(agreement(SECOND) | more)
    assert (found.value.message, found.value.findings) == (expected.value.message, expected.value.findings)
