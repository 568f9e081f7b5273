import pytest

from connector.odrl.vocabulary import EXACT_MATCH, INCLUDED_IN, ODRL, OPERATOR_NAMES, OPERATORS, compact, expand


def test_the_actions_of_the_odrl_core_are_known_with_what_includes_them() -> None:
    above = {iri.removeprefix(ODRL): up.removeprefix(ODRL) for iri, up in INCLUDED_IN.items()}
    assert len(above) == 51
    assert [name for name, up in above.items() if not up] == ["use", "transfer"]
    assert [name for name, up in above.items() if up == "transfer"] == ["give", "sell"]
    assert (above["display"], above["extract"]) == ("play", "reproduce")


def test_a_deprecated_action_means_one_of_today() -> None:
    assert EXACT_MATCH[ODRL + "write"] == ODRL + "modify"
    assert set(EXACT_MATCH.values()) <= INCLUDED_IN.keys()
    assert EXACT_MATCH.keys().isdisjoint(INCLUDED_IN)


def test_every_operator_has_three_spellings() -> None:
    assert len(OPERATORS) == 12
    assert len(OPERATOR_NAMES) == 36


@pytest.mark.parametrize(
    ("word", "iri"),
    [
        ("odrl:purpose", ODRL + "purpose"),
        (ODRL + "purpose", ODRL + "purpose"),
        ("urn:qiao:participant", "urn:qiao:participant"),
        ("purpose", None),
        ("edc:inForceDate", None),
        ("_:b0", None),
        ("", None),
    ],
)
def test_only_the_prefixes_of_the_dsp_context_are_known(word: str, iri: str | None) -> None:
    assert expand(word) == iri


def test_compact_is_the_inverse_of_expand() -> None:
    assert compact(ODRL + "purpose") == "odrl:purpose"
    assert compact("urn:x") == "urn:x"


def test_the_stray_operator_of_the_schema_is_not_one() -> None:
    assert "term-lteq" not in OPERATOR_NAMES
    assert OPERATOR_NAMES["odrl:isAnyOf"] == OPERATOR_NAMES["isAnyOf"] == "isAnyOf"
