from connector.odrl.operands import CORE_OPERANDS
from connector.odrl_forms.sayings import SAID, SAYINGS

OPERANDS = {operand.iri: operand for operand in CORE_OPERANDS}


def test_each_saying_is_about_an_operator_that_its_operand_takes():
    for saying in SAYINGS:
        assert saying.operator in OPERANDS[saying.operand].operators


def test_each_saying_has_one_place_for_the_value_in_each_form():
    assert all(form.count("{}") == 1 for saying in SAYINGS for form in saying[2:])


def test_nothing_is_said_twice_but_what_is_also_taken_in_longer_words():
    also = [saying.text for saying in SAYINGS if SAID[saying.operand, saying.operator] is not saying]
    assert also == ["for purpose in {}"]


def test_only_a_list_and_a_single_value_share_a_text_form():
    """The braces of a list tell them apart."""
    shared: dict[str, set[str]] = {}
    for saying in SAYINGS:
        shared.setdefault(saying.text, set()).add(saying.operator)
    assert {frozenset(operators) for operators in shared.values() if len(operators) > 1} == {
        frozenset({"eq", "isAnyOf"}),
        frozenset({"neq", "isNoneOf"}),
    }
