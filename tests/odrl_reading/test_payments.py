"""What a duty to pay says of the payment is what has to be paid, wherever it stands; nobody uses for nothing what somebody wanted paid."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, Event, World, evaluate, fingerprint, lint, load
from connector.odrl.operands import PAY_AMOUNT
from connector.values import replace
from tests.odrl.cases import leaf, offer, purpose, request, rule, time
from tests.odrl_reading.pointers import patched

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
EUR, USD = "urn:x:EUR", "urn:x:USD"
PAID = f"{PAY_AMOUNT} {EUR}"


def amount(operator: str = "eq", value: str = "5", unit: str = EUR) -> dict[str, Any]:
    return leaf("odrl:payAmount", operator, {"@value": value, "@type": "xsd:decimal"}) | {"odrl:unit": {"@id": unit}}


def condition(*constraints: dict[str, Any], action: object = "odrl:compensate") -> dict[str, Any]:
    return offer(rule(duty=[{"action": action, "constraint": list(constraints)}]))


def refinement(*refinements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return offer(rule(duty=[{"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": list(refinements)}, **more}]))


def paid(number: float, key: str = PAID) -> World:
    return World(NOW, log=(Event(NOW, "odrl:compensate", "did:web:x", amounts={key: Fraction(number)}),))


WORLDS = {
    "nobody keeps a log": World(NOW),
    "nothing was paid": World(NOW, log=()),
    "nothing is used up": World(NOW, used={PAID: 0}),
    "less was paid": paid(3),
    "it was paid": paid(5),
    "more was paid": paid(7),
    "it was paid in another currency": paid(5, f"{PAY_AMOUNT} {USD}"),
}
AMOUNTS = {
    "eq": ((amount(),), {"it was paid"}),
    "gteq": ((amount("gteq"),), {"it was paid", "more was paid"}),
    "a list": ((amount("isAnyOf", "5"),), {"it was paid"}),
    "in an and": (({"and": [amount("gteq"), amount("lt", "6")]},), {"it was paid"}),
    "in an or": (({"or": [amount("eq", "7"), amount(unit=USD)]},), {"more was paid", "it was paid in another currency"}),
    "two of them": ((amount("gteq", "3"), amount("lteq", "5")), {"less was paid", "it was paid"}),
}


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize("world", WORLDS)
def test_an_amount_beside_a_duty_to_pay_has_to_be_paid_before_the_use(name: str, world: str):
    amounts, enough = AMOUNTS[name]
    for document in (condition(*amounts), refinement(*amounts)):
        decision = evaluate(load(document), request(), WORLDS[world])
        assert decision.permitted == (world in enough), (document, decision.reason("full"))
        assert [duty.state for duty in decision.duties] == ["fulfilled" if world in enough else "pending"]


def test_both_forms_mean_one_thing():
    assert fingerprint(load(condition(amount()))) == fingerprint(load(refinement(amount())))
    (one,), (other,) = (load(document).permissions[0].duties for document in (condition(amount()), refinement(amount())))
    assert (one.constraints, one.actions[0].refinements[0].path) == (other.constraints, "/permission/0/duty/0/constraint/0")


def test_what_is_no_payment_stays_a_condition():
    (duty,) = load(condition(amount(), purpose("eq", "a"), time("lteq", "2026-07-01Z"))).permissions[0].duties
    assert [node.path.rpartition("/")[2] for node in duty.constraints] == ["1", "2"]
    (free,) = load(condition(leaf("odrl:count", "gt", "5"))).permissions[0].duties  # the first five are free
    assert [node.path for node in free.constraints] == ["/permission/0/duty/0/constraint/0"]
    assert evaluate(load(condition(leaf("odrl:count", "gt", "5"))), request(), World(NOW, log=())).permitted


@pytest.mark.parametrize("action", ["odrl:inform", "odrl:acceptTracking"])
def test_where_nobody_owes_a_payment_an_amount_is_a_condition(action: str):
    policy = load(condition(amount(), action=action))
    assert not policy.permissions[0].duties[0].refinements
    assert Code.PAYMENT_AS_CONDITION not in {finding.code for finding in policy.findings}


def test_of_several_actions_only_those_that_pay_are_narrowed():
    (duty,) = load(condition(amount(), action=[{"@id": "odrl:inform"}, {"@id": "odrl:compensate"}])).permissions[0].duties
    assert [(act.iri.rpartition("/")[2], len(act.refinements)) for act in duty.actions] == [("inform", 0), ("compensate", 1)]


@pytest.mark.parametrize("kind", ["or", "xone", "andSequence"])
def test_a_choice_between_paying_and_something_else_is_refused(kind: str):
    document = condition({kind: [amount(), purpose("eq", "a")]})
    with pytest.raises(PolicyError, match="how much is to be paid, and when it is due, stand in one choice"):
        load(document)
    assert not evaluate(load(document, strict=False), request(), World(NOW, log=())).permitted


def test_a_unit_beside_it_belongs_to_the_price():
    """As a condition, whoever declares another unit would owe nothing."""
    unit = leaf("odrl:unitOfCount", "eq", {"@id": "urn:unit:record"})
    policy = load(condition(amount(), unit))
    (duty,) = policy.permissions[0].duties
    assert (duty.constraints, len(duty.refinements)) == ((), 2)
    declared = replace(request(), params={"odrl:unitOfCount": ({"@id": "urn:unit:other"},)})
    assert not evaluate(policy, declared, World(NOW, log=())).permitted


def test_a_budget_of_the_whole_policy_is_no_payment_of_its_obligation():
    document = offer(rule(), constraint=[amount("lteq", "100")]) | {"obligation": [{"action": "odrl:compensate"}]}
    (duty,) = load(document, strict=False).obligations
    assert ([node.path for node in duty.constraints], duty.refinements) == (["/constraint/0"], ())


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ({"obligation": [{"action": "odrl:compensate", "constraint": [amount()]}]}, "/obligation/0"),
        (
            {"prohibition": [rule(action="odrl:sell", **{"odrl:remedy": [{"action": "odrl:compensate", "constraint": [amount()]}]})]},
            "/prohibition/0/odrl:remedy/0",
        ),
        (
            {"obligation": [{"action": "odrl:delete", "odrl:consequence": [{"action": "odrl:pay", "constraint": [amount()]}]}]},
            "/obligation/0/odrl:consequence/0",
        ),
    ],
)
def test_every_duty_to_pay_is_read_so(rules: dict[str, Any], place: str):
    policy = load(offer(rule()) | rules)
    waiting = list(policy.rules)
    found = {each.path: each for each in waiting} | {below.path: below for each in waiting for below in each.duties}
    assert (found[place].constraints, len(found[place].refinements)) == ((), 1)
    assert [one.path for one in policy.findings if one.code is Code.PAYMENT_AS_CONDITION] == [f"{place}/constraint/0"]


def test_the_warning_says_what_is_meant_and_its_patch_writes_it_so():
    (finding,) = [one for one in lint(condition(amount(), purpose("eq", "a"))) if one.code is Code.PAYMENT_AS_CONDITION]
    assert (
        finding.message == "`odrl:payAmount` of a duty to pay is what has to be paid: as a condition, it would be due only once it was paid"
    )
    assert Code.EQ_AS_LIMIT not in {one.code for one in lint(condition(amount()))}  # an amount that is owed is no limit
    mended = patched(condition(amount(), purpose("eq", "a")), finding.patch)
    assert mended == refinement(amount(), constraint=[purpose("eq", "a")])
    assert fingerprint(load(mended)) == fingerprint(load(condition(amount(), purpose("eq", "a"))))
    (nested,) = [one for one in lint(condition({"and": [amount(), purpose("eq", "a")]})) if one.code is Code.PAYMENT_AS_CONDITION]
    assert nested.patch == ()  # what stands deeper is for its author to move
