from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from connector.odrl import evaluate, load
from connector.odrl.values import length, number
from connector.odrl_compare.boxes import Work
from connector.odrl_compare.shapes import shape_of
from connector.odrl_compare.witness import NOW, SOMEBODY, Witness, length_text, number_text, witness
from tests.odrl.cases import leaf, offer, participant, purpose, rule, time
from tests.odrl_compare.cases import EUR, OPTIONS


def of(*constraints: dict, action: str = "use", **more: object) -> tuple[Witness, object]:
    policy = load(offer(rule(*constraints, action=action), **more), options=OPTIONS)
    work = Work()
    (grant,) = shape_of(policy, work, {}, OPTIONS).grants
    return witness(grant.region[0], work.axes, grant.rule), policy


def amount(left: str, operator: str, value: str, unit: str = "") -> dict:
    return leaf(left, operator, {"@value": value, "@type": "xsd:decimal"}) | ({"odrl:unit": unit} if unit else {})


@pytest.mark.parametrize(
    "constraints",
    [
        [],
        [purpose("isNoneOf", ["urn:example:something-else", "b"])],
        [time("gt", "2026-12-31Z"), time("lt", "2027-01-02Z")],
        [time("lt", "2020-01-01Z")],
        [participant("isNoneOf", [SOMEBODY])],
        [amount("odrl:count", "gt", "3"), amount("odrl:percentage", "gt", "3"), amount("odrl:percentage", "lt", "3.5")],
        [amount("odrl:payAmount", "gteq", "2.50", EUR), amount("odrl:resolution", "lt", "0.1", "urn:dpi")],
        [amount("urn:t:age", "gt", "17")],
        [leaf("odrl:elapsedTime", "gt", "P10D"), leaf("odrl:meteredTime", "gteq", "PT36H")],
        [leaf("odrl:elapsedTime", "gt", "PT1H"), leaf("odrl:meteredTime", "gteq", "PT36H")],
        [{"andSequence": [time("gteq", "2027-05-01Z"), purpose("eq", "a")]}],
        [leaf("urn:t:role", "isAllOf", ["x", "y"]), leaf("urn:t:role", "isNoneOf", ["z"])],
        [leaf("odrl:event", "gt", {"@id": "urn:t:congress"})],
        [leaf("odrl:spatial", "isPartOf", "urn:t:france")],
    ],
)
def test_a_witness_is_a_request_that_lies_in_its_box(constraints: list[dict]):
    found, policy = of(*constraints)
    assert evaluate(policy, found.request, found.world, options=OPTIONS).result == "permit"
    assert str(found) == found.sentence
    assert found.to_json()["values"] == dict(found.values)


def test_a_witness_of_a_target_a_party_and_collections():
    group = {"@type": "odrl:PartyCollection", "odrl:source": "urn:g"}
    found, policy = of(target="urn:d")
    assert (found.target, found.party, found.world.member_of) == ("urn:d", SOMEBODY, {})
    policy = load(offer(rule(assignee=group)))
    work = Work()
    (grant,) = shape_of(policy, work, {}, OPTIONS).grants
    found = witness(grant.region[0], work.axes, grant.rule)
    assert found.world.member_of == {SOMEBODY: frozenset({"urn:g"})}
    assert evaluate(policy, found.request, found.world).result == "permit"


def test_a_witness_is_called_by_the_action_of_the_rule():
    found, _ = of(action="odrl:play")
    assert found.action == "http://www.w3.org/ns/odrl/2/play"
    assert found.sentence == "odrl:play by somebody"


def test_the_time_is_a_plain_one_where_any_will_do():
    assert of()[0].world.now == NOW
    assert of(time("gteq", "2027-05-01Z"))[0].world.now == datetime(2027, 5, 1, tzinfo=UTC)
    assert of(time("lt", "2020-01-01Z"))[0].world.now == datetime(2020, 1, 1, tzinfo=UTC) - timedelta(seconds=1)


@pytest.mark.parametrize("value", [0, 7, -3, Fraction(5, 2), Fraction(-1, 8), Fraction(1, 100)])
def test_a_number_is_written_as_it_is_read(value):
    assert number({"@value": number_text(value), "@type": "xsd:decimal"})[0] == value


@pytest.mark.parametrize("value", [0, 1, 1_000_000, 86_400_000_000, 90_061_500_000])
def test_a_length_of_time_is_written_as_it_is_read(value: int):
    assert length(length_text(value))[0] == (0, value) or length(length_text(value))[0].microseconds == value
