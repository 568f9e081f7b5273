import pytest

from connector.odrl.model import Policy
from connector.odrl.operands import (
    BYTE_COUNT,
    CORE_ALIASES,
    CORE_OPERANDS,
    COUNT,
    DATE_TIME,
    ELAPSED_TIME,
    PARTICIPANT,
    RECORD_COUNT,
    timeless,
)
from connector.odrl.registry import CONCEPT, Operand
from connector.odrl.vocabulary import ODRL, OPERATORS
from connector.odrl_reading.parse import load

# ODRL 2.2 vocabulary, left operands of the core, but for the two that are deprecated.
NAMES = [
    "absolutePosition",
    "absoluteSize",
    "absoluteSpatialPosition",
    "absoluteTemporalPosition",
    "count",
    "dateTime",
    "delayPeriod",
    "deliveryChannel",
    "elapsedTime",
    "event",
    "fileFormat",
    "industry",
    "language",
    "media",
    "meteredTime",
    "payAmount",
    "percentage",
    "product",
    "purpose",
    "recipient",
    "relativePosition",
    "relativeSize",
    "relativeSpatialPosition",
    "relativeTemporalPosition",
    "resolution",
    "spatial",
    "spatialCoordinates",
    "systemDevice",
    "timeInterval",
    "unitOfCount",
    "version",
    "virtualLocation",
]


def row(iri: str) -> Operand:
    return next(each for each in CORE_OPERANDS if each.iri == iri)


def test_every_left_operand_of_the_core_has_its_row_and_three_names_are_ours() -> None:
    assert {each.iri for each in CORE_OPERANDS} == {ODRL + name for name in NAMES} | {PARTICIPANT, BYTE_COUNT, RECORD_COUNT}
    assert len(NAMES) == 32


@pytest.mark.parametrize("operand", CORE_OPERANDS, ids=lambda each: each.iri.rpartition("/")[2])
def test_every_row_is_whole(operand: Operand) -> None:
    assert operand.label
    assert operand.label_zh
    assert operand.label_zh != operand.label
    assert operand.operators
    assert operand.operators <= set(OPERATORS)
    assert operand.operators <= CONCEPT or operand.values != "term"
    assert operand.low is None or operand.high is None or operand.low < operand.high


@pytest.mark.parametrize(
    ("source", "check"),
    [
        ("clock", {"measured"}),
        ("meter", {"measured"}),
        ("log", {"measured"}),
        ("identity", {"verified"}),
        ("declared", {"declared", "contract-only"}),
    ],
)
def test_who_knows_a_fact_says_how_a_constraint_on_it_is_held(source: str, check: set[str]) -> None:
    assert {each.check for each in CORE_OPERANDS if each.source == source} <= check


def test_counters_are_known_when_they_are_measured_and_step_by_one_where_they_count_things() -> None:
    assert {each.stage for each in CORE_OPERANDS if each.kind == "counter"} == {"transfer"}
    assert {each.iri for each in CORE_OPERANDS if each.step} == {COUNT, BYTE_COUNT, RECORD_COUNT, ELAPSED_TIME}
    assert {each.iri for each in CORE_OPERANDS if each.step and not each.integral} == {ELAPSED_TIME}  # the least that a use takes


def test_the_domains_of_the_axes_are_those_of_the_vocabulary() -> None:
    assert (row(ODRL + "percentage").low, row(ODRL + "percentage").high) == (0, 100)
    assert not row(ODRL + "resolution").low_in
    assert not row(ODRL + "absoluteSize").low_in
    assert (row(DATE_TIME).low, row(DATE_TIME).high) == (None, None)


def test_the_deprecated_operands_are_the_one_of_today_with_every_operator() -> None:
    assert {alias.iri: alias.operand for alias in CORE_ALIASES} == dict.fromkeys((ODRL + "device", ODRL + "system"), ODRL + "systemDevice")
    assert all(alias.operators == {name: name for name in CONCEPT} for alias in CORE_ALIASES)


def policy(*constraints: dict[str, object], **more: object) -> Policy:
    return load({"@type": "Offer", "permission": [{"action": "use", "constraint": list(constraints)} | more]}, strict=False)


def constraint(operand: str, operator: str, right: object) -> dict[str, object]:
    return {"leftOperand": operand, "operator": operator, "rightOperand": right}


PURPOSE = constraint("odrl:purpose", "eq", "research")
AFTER = constraint("odrl:dateTime", "gteq", {"@value": "2020-01-01T00:00:00Z", "@type": "xsd:dateTime"})


def test_a_policy_is_timeless_if_neither_its_constraints_nor_its_duties_speak_of_time() -> None:
    assert timeless(policy())
    assert timeless(policy(PURPOSE, constraint("odrl:count", "lteq", {"@value": "5", "@type": "xsd:integer"})))
    assert not timeless(policy(PURPOSE, AFTER)), "although it holds for good by now, its explanation names the instant"
    assert not timeless(policy({"or": [PURPOSE, {"and": [PURPOSE, AFTER]}]}))
    assert not timeless(policy(constraint("odrl:elapsedTime", "lteq", {"@value": "P30D", "@type": "xsd:duration"})))
    assert not timeless(policy(PURPOSE, duty=[{"action": "inform"}])), "a duty falls due"
    assert not timeless(policy(constraint("urn:mood", "eq", "good"))), "nobody here knows what it speaks of"
