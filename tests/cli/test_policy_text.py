"""A policy in one line: what it says, in words; anything at all can be given without an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.cli.policy_text import labelled, summary

PURPOSE = {"leftOperand": "purpose", "operator": "eq", "rightOperand": "https://w3id.org/dpv#AcademicResearch"}
UNTIL = {"leftOperand": "dateTime", "operator": "lteq", "rightOperand": {"@value": "2027-01-01T00:00:00Z", "@type": "xsd:dateTime"}}


PRICE = {
    "action": {
        "http://www.w3.org/1999/02/22-rdf-syntax-ns#value": {"@id": "odrl:compensate"},
        "odrl:refinement": [
            {
                "leftOperand": "odrl:payAmount",
                "operator": "eq",
                "rightOperand": {"@value": "0.02", "@type": "xsd:decimal"},
                "odrl:unit": {"@id": "http://publications.europa.eu/resource/authority/currency/EUR"},
            },
            {"leftOperand": "odrl:unitOfCount", "operator": "eq", "rightOperand": {"@id": "https://w3id.org/qiao/v1/megabyte"}},
        ],
    }
}


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({}, "nothing is permitted"),
        ({"permission": [{"action": "use"}]}, "use"),
        (
            {"permission": {"action": "odrl:use", "constraint": [PURPOSE, UNTIL]}},
            "use, if purpose is AcademicResearch and dateTime <= 2027-01-01T00:00:00Z",
        ),
        (
            {"permission": [{"action": "use", "constraint": [{"or": [PURPOSE, UNTIL]}]}]},
            "use, if (purpose is AcademicResearch or dateTime <= 2027-01-01T00:00:00Z)",
        ),
        ({"permission": [{"action": "use", "duty": [{"action": "delete"}]}]}, "use, and then must delete"),
        (
            {"permission": [{"action": "use", "duty": [PRICE]}]},
            "use, and then must pay 0.02 EUR for each megabyte",
        ),
        ({"prohibition": [{"action": "sell"}], "obligation": [{"action": "attribute"}]}, "must not sell; must attribute"),
        (
            {
                "permission": [
                    {"action": {"@id": "odrl:use"}, "constraint": [{"leftOperand": "a", "operator": "isAnyOf", "rightOperand": ["x", "y"]}]}
                ]
            },
            "use, if a is one of [x, y]",
        ),
        ({"permission": [{"action": "use", "constraint": [{"and": {"@list": [PURPOSE]}}]}]}, "use, if (purpose is AcademicResearch)"),
    ],
)
def test_a_policy_reads_as_a_sentence(policy: dict[str, Any], text: str):
    assert summary(policy) == text


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"operator": "lteq"}, "compensate (payAmount <= 0.02 EUR [measured] and unitOfCount is megabyte [contract only])"),
        ({}, "pay 0.02 EUR for each megabyte [measured]"),
    ],
)
def test_only_so_much_for_each_of_a_unit_reads_as_a_price_and_says_that_it_is_measured(more: dict[str, str], text: str):
    amount, unit = PRICE["action"]["odrl:refinement"]
    action = PRICE["action"] | {"odrl:refinement": [amount | more, unit]}
    after = {"leftOperand": "odrl:event", "operator": "gt", "rightOperand": {"@id": "odrl:policyUsage"}}
    assert f"must {text}" in labelled({"permission": [{"action": "use", "duty": [{"action": action, "constraint": [after]}]}]})


def test_a_unit_that_only_ends_as_one_of_ours_reads_as_no_price():
    amount, unit = PRICE["action"]["odrl:refinement"]
    other = unit | {"rightOperand": {"@id": "https://elsewhere.example/megabyte"}}
    action = PRICE["action"] | {"odrl:refinement": [amount, other]}
    text = "compensate (payAmount is 0.02 EUR [measured] and unitOfCount is megabyte [contract only])"
    assert text in labelled({"permission": [{"action": "use", "duty": [{"action": action}]}]})


COUNT = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "3", "@type": "xsd:integer"}}
DECLARED = PURPOSE | {"leftOperand": "odrl:purpose"}
NAMED = {"leftOperand": "urn:qiao:participant", "operator": "eq", "rightOperand": "did:web:x"}
DUTY = {"action": "odrl:delete", "constraint": [NAMED]}


def test_each_condition_says_by_whom_it_is_held():
    rule = {"action": "use", "constraint": [DECLARED, {"or": {"@list": [COUNT, {"or": [DECLARED, COUNT]}]}}], "duty": DUTY}
    text = labelled({"permission": [rule], "prohibition": [{"action": "odrl:distribute", "constraint": [COUNT]}]})
    count, purpose = "count <= 3 [measured]", "purpose is AcademicResearch [declared]"
    assert text == (
        f"use, if {purpose} and ({count} or ({purpose} or {count})), and then must delete, if participant is did:web:x [verified]; "
        f"must not distribute, if {count}"
    )


def test_what_is_not_understood_is_checked_by_nobody():
    assert labelled({"permission": [{"action": "use", "constraint": [PURPOSE]}]}).endswith("[not checked]")
    assert labelled({"permission": {"action": "use", "constraint": [DECLARED]}}).endswith("[not checked]"), "it cannot even be read"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["@id", "@value", "@list", "and", "or", "action", "constraint", "duty", "leftOperand", "rightOperand", "operator"]
            ),
            x,
            max_size=3,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["permission", "prohibition", "obligation"]), JSON, max_size=3))
def test_whatever_a_peer_sends_is_shown(policy: dict[str, Any]):
    assert isinstance(summary(policy), str)


def test_depth_is_bounded():
    condition: dict[str, Any] = PURPOSE
    for _ in range(5000):
        condition = {"and": [condition]}
    assert "..." in summary({"permission": [{"action": "use", "constraint": [condition]}]})
