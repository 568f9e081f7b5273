import pytest

from connector.odrl.vocabulary import ACTION_WITHIN, ACTIONS, ODRL, OPERATOR_NAMES, compact, expand


def test_the_three_spellings_of_use_are_one_action() -> None:
    assert {ACTIONS["use"], ACTIONS["odrl:use"], ACTIONS[ODRL + "use"]} == {ODRL + "use"}


def test_no_other_action_is_known_by_its_bare_word() -> None:
    assert "read" not in ACTIONS
    assert ACTIONS["odrl:read"] == ODRL + "read"


def test_forty_actions_of_the_odrl_core_are_known() -> None:
    assert len(ACTION_WITHIN) == 42
    assert sum(ODRL + "use" in above for above in ACTION_WITHIN.values()) == 39
    assert sum(ODRL + "transfer" in above for above in ACTION_WITHIN.values()) == 3


def test_an_action_is_within_itself_and_all_above() -> None:
    assert ACTION_WITHIN[ODRL + "display"] == {ODRL + "display", ODRL + "play", ODRL + "use"}


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
