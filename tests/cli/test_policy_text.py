"""A policy in one line: what it says, in words; anything at all can be given without an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.cli.policy_text import summary

PURPOSE = {"leftOperand": "purpose", "operator": "eq", "rightOperand": "https://w3id.org/dpv#AcademicResearch"}
UNTIL = {"leftOperand": "dateTime", "operator": "lteq", "rightOperand": {"@value": "2027-01-01T00:00:00Z", "@type": "xsd:dateTime"}}


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
