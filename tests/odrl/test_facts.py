from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from connector.odrl import PURPOSE, Event, Options, Request, World, evaluate, load
from connector.odrl.facts import ATOMS_MAX, gather, stated, with_this_use
from connector.odrl.model import NEVER, Fact, Policy, Since
from connector.odrl.operands import (
    BYTE_COUNT,
    COUNT,
    DATE_TIME,
    DELAY_PERIOD,
    ELAPSED_TIME,
    METERED_TIME,
    PARTICIPANT,
    PAY_AMOUNT,
    TIME_INTERVAL,
)
from connector.odrl.registry import Operand, Profile
from connector.odrl.values import DAY, microseconds
from connector.values import replace
from tests.odrl.cases import NOW, ODRL, PARTIES, leaf, offer, participant, policy, purpose, request, rule

AT = microseconds(NOW) or 0
MEMBERSHIP = Operand("urn:x:membership", "membership", "成员资格", "term", "subject", frozenset({"isAnyOf"}), "claims", "verified")
ROLE = Operand("urn:x:role", "role", "角色", "term", "subject", frozenset({"isAnyOf"}), "declared", "declared")
PROFILE = Profile("urn:x", operands=(MEMBERSHIP, ROLE))
EUR = "urn:iso:eur"


def number(value: object) -> dict[str, Any]:
    return {"@value": str(value), "@type": "xsd:decimal"}


def known(found: Policy, of: str, asked: Request = request(), world: World = World(NOW), **options: Any) -> Fact | None:  # noqa: B008
    (facts,) = gather(found, asked, world, microseconds(world.now), Options(**options))
    return facts.get(of)


def use(days_ago: float, **more: Any) -> Event:
    return Event(NOW - timedelta(days=days_ago), "use", **more)


def test_declared_values_and_facts_are_joined_and_each_is_an_act_of_its_own() -> None:
    found = policy(rule(purpose("eq", "a"), participant("eq", PARTIES[0])))
    atoms = gather(found, Request(PARTIES[0], params={"odrl:purpose": ("a",), PURPOSE: ("b",)}), World(NOW, {PURPOSE: ("c",)}), 7)
    assert [atom[PURPOSE] for atom in atoms] == ["b", "a", "c"]
    assert all(atom[DATE_TIME] == 7 and atom[PARTICIPANT] == {PARTIES[0]} for atom in atoms)


def test_several_values_of_several_operands_are_every_combination() -> None:
    found = policy(rule(purpose("eq", "a"), leaf("odrl:spatial", "eq", "x")))
    atoms = gather(found, Request(PARTIES[0], params={PURPOSE: ("a", "b"), ODRL + "spatial": ("x", "y")}), World(NOW), 7)
    assert {(atom[PURPOSE], atom[ODRL + "spatial"]) for atom in atoms} == {(p, s) for p in "ab" for s in "xy"}


def test_a_policy_that_asks_for_no_purpose_is_judged_once_and_gathers_nothing_else() -> None:
    assert gather(policy(rule()), request("a", "b"), World(NOW), 7) == ({DATE_TIME: 7},)
    assert gather(policy(rule()), Request(""), World(NOW), None) == ({},)


def test_nobody_is_no_participant() -> None:
    assert known(policy(rule(participant("neq", "did:web:x"))), PARTICIPANT, Request("")) is None


@pytest.mark.parametrize("given", [5.5, None, ("",), ({"x": 1},), (None,), b"research", [["a"]]])
def test_a_value_that_cannot_be_read_is_not_known(given: object) -> None:
    if given == 5.5:
        assert list(stated(PURPOSE, {PURPOSE: given})) == ["5.5"]
        return
    atoms = gather(policy(rule(purpose("eq", "a"))), Request(PARTIES[0], params={PURPOSE: given}), World(NOW), 7)  # type: ignore[dict-item]
    assert [atom.get(PURPOSE) for atom in atoms] == [None]


def test_a_readable_value_beside_an_unreadable_one_hides_nothing() -> None:
    assert list(stated(PURPOSE, {PURPOSE: ("a", None)})) == ["a", None]
    atoms = gather(policy(rule(purpose("neq", "b"))), Request(PARTIES[0], params={PURPOSE: ("a", None)}), World(NOW), 7)
    assert [atom.get(PURPOSE) for atom in atoms] == ["a", None]


def test_a_single_value_needs_no_tuple() -> None:
    assert list(stated(PURPOSE, {PURPOSE: "research"})) == ["research"]
    assert list(stated(PURPOSE, {"odrl:purpose": {"@id": "urn:x"}})) == ["urn:x"]


def test_too_many_purposes_are_no_atoms_at_all() -> None:
    found = policy(rule(purpose("neq", "x")))
    assert len(gather(found, request(*map(str, range(ATOMS_MAX))), World(NOW), 7)) == ATOMS_MAX
    assert gather(found, request(*map(str, range(ATOMS_MAX + 1))), World(NOW), 7) == ()


def test_a_party_has_all_its_values_at_once() -> None:
    found = load(offer(rule(leaf("urn:x:membership", "isAnyOf", ["a"]))), options=Options(profiles=(PROFILE,)))
    assert known(found, "urn:x:membership", world=World(NOW, {"urn:x:membership": ("a", "b")})) == {"a", "b"}
    assert known(found, "urn:x:membership") is None
    assert known(found, "urn:x:membership", world=World(NOW, {"urn:x:membership": ("a", None)})) is None


def test_what_a_credential_has_to_show_nobody_gets_by_declaring_it() -> None:
    asked = Request(PARTIES[0], params={"urn:x:membership": ("a",), "urn:x:role": ("doctor",)})
    found = load(
        offer(rule(leaf("urn:x:membership", "isAnyOf", ["a"]), leaf("urn:x:role", "isAnyOf", ["doctor"]))),
        options=Options(profiles=(PROFILE,)),
    )
    assert known(found, "urn:x:membership", asked) is None
    assert known(found, "urn:x:role", asked) == {"doctor"}


@pytest.mark.parametrize("source", ["clock", "identity", "claims", "agreement", "meter", "log", "contract"])
@pytest.mark.parametrize("kind", ["usage", "subject", "declarative", "quantity"])
def test_only_what_is_declared_is_read_from_what_the_requester_declares(kind: str, source: str) -> None:
    values, said = ("number", {"@value": "1"}) if kind == "quantity" else ("term", "a")
    operators = frozenset({"eq"})
    row = Operand("urn:x:of", "of", "属", values, kind, operators, source, "verified")  # type: ignore[arg-type]
    right = number(1) if kind == "quantity" else "a"
    found = load(offer(rule(leaf("urn:x:of", "eq", right))), options=Options(profiles=(Profile("urn:x", operands=(row,)),)))
    assert known(found, "urn:x:of", Request(PARTIES[0], params={"urn:x:of": (said,)})) is None
    assert known(found, "urn:x:of", world=World(NOW, {"urn:x:of": (said,)})) is not None
    own = replace(row, source="declared")
    open_to_all = load(offer(rule(leaf("urn:x:of", "eq", right))), options=Options(profiles=(Profile("urn:x", operands=(own,)),)))
    assert known(open_to_all, "urn:x:of", Request(PARTIES[0], params={"urn:x:of": (said,)})) is not None


# --- counters


COUNTED = policy(rule(leaf("odrl:count", "lteq", number(10))))


def test_a_count_is_the_uses_before_and_this_one() -> None:
    assert known(COUNTED, COUNT, world=World(NOW, used={COUNT: 3})) == 4
    assert known(COUNTED, COUNT) is None  # nobody counts, and nobody keeps a log
    assert with_this_use(None, 3) == 3


def test_a_count_that_is_no_number_permits_nothing() -> None:
    limit, beyond = (leaf("odrl:count", operator, {"@value": "5", "@type": "xsd:integer"}) for operator in ("lteq", "gt"))
    for found in (policy(rule(limit)), policy(rule(), prohibitions=(rule(beyond),))):
        for key in (COUNT, (found.rules[-1].path, COUNT)):
            for used in map(float, ("nan", "inf", "-inf")):
                decision = evaluate(found, request(), World(NOW, used={COUNT: 0, key: used}))  # type: ignore[dict-item]
                assert (decision.result, decision.failed) == ("deny", "EVALUATION_FAILED")
                assert decision.to_json()["code"] == "EVALUATION_FAILED"


def test_a_count_in_another_type_of_number_is_what_it_is_and_can_be_told() -> None:
    found = policy(rule(leaf("odrl:count", "lteq", {"@value": "5", "@type": "xsd:integer"})))
    for used, result in ((Decimal(4), "permit"), (4.0, "permit"), (Decimal("4.5"), "deny"), (Decimal("NaN"), "deny")):
        decision = evaluate(found, request(), World(NOW, used={COUNT: used}))  # type: ignore[dict-item]
        assert (decision.result, decision.to_json()["result"]) == (result, result)


def test_no_claim_says_what_was_used_up() -> None:
    """A credential that states a low count is no meter."""
    of = World(NOW, {COUNT: ({"@value": "1"},), "odrl:count": ({"@value": "1"},)})
    assert known(COUNTED, COUNT, world=of) is None
    assert known(COUNTED, COUNT, world=replace(of, used={COUNT: 10})) == 11


def test_a_count_nobody_keeps_is_the_uses_in_the_log() -> None:
    uses = (use(3), use(2), use(1))
    assert known(COUNTED, COUNT, world=World(NOW, log=uses)) == 4
    assert known(COUNTED, COUNT, world=World(NOW, log=())) == 1
    assert known(COUNTED, COUNT, world=World(NOW, used={COUNT: 7}, log=uses)) == 8


def test_the_performance_of_a_duty_is_no_use() -> None:
    found = policy(rule(leaf("odrl:count", "lteq", number(10)), duty=[{"action": "odrl:inform"}]))
    log = (use(3), Event(NOW, "odrl:inform"), Event(NOW, "odrl:inform", duty="/permission/0/duty/0"))
    assert known(found, COUNT, world=World(NOW, log=log)) == 2
    assert known(found, COUNT, world=World(NOW, log=(*log, use(2, duty="urn:duty")))) == 3  # it says so, and is a use all the same


def test_amounts_are_summed_and_an_amount_that_is_not_told_is_not_nothing() -> None:
    found = policy(
        rule(leaf(BYTE_COUNT, "lteq", number(100)), leaf("odrl:payAmount", "gteq", number(5)), leaf("odrl:meteredTime", "lteq", "PT1H"))
    )
    log = (use(2, amounts={BYTE_COUNT: 10, METERED_TIME: 60}), use(1, amounts={BYTE_COUNT: 5, METERED_TIME: 30}))
    paid = Event(NOW, "odrl:compensate", amounts={PAY_AMOUNT: Fraction(5, 2)})
    assert known(found, BYTE_COUNT, world=World(NOW, log=log)) == 16
    assert known(found, METERED_TIME, world=World(NOW, log=log)) == 90
    assert known(found, PAY_AMOUNT, world=World(NOW, log=(*log, paid))) == Fraction(5, 2)
    assert known(found, BYTE_COUNT, world=World(NOW, log=(use(1),))) is None
    assert known(found, BYTE_COUNT, world=World(NOW, log=())) == 1
    assert known(found, METERED_TIME, world=World(NOW)) is None


def test_numbers_in_different_units_are_different_facts() -> None:
    found = policy(rule({**leaf("odrl:payAmount", "lteq", number(5)), "odrl:unit": {"@id": EUR}}))
    assert known(found, f"{PAY_AMOUNT} {EUR}", world=World(NOW, used={f"{PAY_AMOUNT} {EUR}": 3})) == 3
    assert known(found, f"{PAY_AMOUNT} {EUR}", world=World(NOW, used={PAY_AMOUNT: 3})) is None
    sized = policy(rule({**leaf("odrl:resolution", "lteq", number(5)), "odrl:unit": {"@id": "urn:dpi"}}))
    asked = Request(PARTIES[0], params={ODRL + "resolution": ({"@value": "300", "unit": "urn:dpi"},)})
    assert known(sized, f"{ODRL}resolution urn:dpi", asked) == 300
    assert known(sized, f"{ODRL}resolution urn:dpi", Request(PARTIES[0], params={"odrl:resolution": ("300",)})) is None


def test_a_number_that_is_stated_twice_and_differently_is_not_known() -> None:
    found = policy(rule(leaf("odrl:resolution", "lteq", number(5))))
    assert known(found, ODRL + "resolution", Request(PARTIES[0], params={"odrl:resolution": (3, {"@value": "3.0"})})) == 3
    assert known(found, ODRL + "resolution", Request(PARTIES[0], params={"odrl:resolution": (3, 4)})) is None
    assert known(found, ODRL + "resolution", Request(PARTIES[0], params={"odrl:resolution": ("three",)})) is None


def test_what_is_measured_is_not_declared() -> None:
    asked = Request(PARTIES[0], params={COUNT: (1,), ELAPSED_TIME: ("PT1S",)})
    assert known(COUNTED, COUNT, asked) is None
    assert known(policy(rule(leaf("odrl:elapsedTime", "lteq", "P1D"))), ELAPSED_TIME, asked) is None


# --- durations


LASTING = policy(rule(leaf("odrl:elapsedTime", "lteq", "P30D")))
OFTEN = policy(rule(leaf("odrl:timeInterval", "gteq", "P1D")))


def signed(days_ago: int) -> Policy:
    return policy(rule(leaf("odrl:elapsedTime", "lteq", "P30D")), timestamp=(NOW - timedelta(days=days_ago)).isoformat())


def ago(days: float) -> Since:
    return Since(AT - int(days * DAY), AT)


def test_a_duration_runs_from_the_anchor_that_the_world_names() -> None:
    assert known(LASTING, ELAPSED_TIME, world=World(NOW, anchors={ELAPSED_TIME: NOW - timedelta(days=2)})) == ago(2)
    assert known(signed(9), ELAPSED_TIME, world=World(NOW, anchors={ELAPSED_TIME: NOW - timedelta(days=2)}, log=(use(5),))) == ago(2)
    assert known(LASTING, ELAPSED_TIME, world=World(NOW, anchors={ELAPSED_TIME: datetime(2026, 1, 1)})) is None  # noqa: DTZ001 - the point


def test_elapsed_time_runs_from_the_signing_of_the_agreement_or_by_option_from_the_first_use() -> None:
    log = (use(4), use(5), use(1))
    assert known(signed(9), ELAPSED_TIME, world=World(NOW, log=log)) == ago(9)
    assert known(signed(9), ELAPSED_TIME, world=World(NOW, log=log), recurrence_anchor="first-use") == ago(5)
    assert known(LASTING, ELAPSED_TIME, world=World(NOW, log=log)) == ago(5)  # an offer was never signed
    assert known(LASTING, ELAPSED_TIME, world=World(NOW, log=())) == 1  # this use is the first, whenever it is
    assert known(LASTING, ELAPSED_TIME) is None


def test_a_use_takes_time_so_that_some_has_elapsed_at_the_first() -> None:
    lasting = load(offer(rule(leaf("odrl:elapsedTime", "lteq", "P30D"), leaf("odrl:delayPeriod", "lteq", "P30D"))))
    assert known(lasting, ELAPSED_TIME, world=World(NOW, log=())) == 1  # a microsecond, the shortest time that is told apart
    assert known(lasting, DELAY_PERIOD, world=World(NOW, log=())) == 0  # no wait is a wait of no time
    begins = World(NOW, anchors={ELAPSED_TIME: NOW})
    assert known(lasting, ELAPSED_TIME, world=begins) == Since(AT, AT + 1)
    assert known(lasting, ELAPSED_TIME, world=World(NOW, anchors={ELAPSED_TIME: NOW - timedelta(days=2)})) == ago(2)
    assert known(lasting, ELAPSED_TIME, world=World(NOW, facts={ELAPSED_TIME: ("PT0S",)})) == 1


def test_a_timestamp_that_is_no_time_anchors_nothing() -> None:
    assert known(policy(rule(leaf("odrl:elapsedTime", "lteq", "P30D")), timestamp="soon"), ELAPSED_TIME) is None


def test_the_interval_runs_from_the_last_use_and_before_the_first_there_was_none_ever() -> None:
    assert known(OFTEN, TIME_INTERVAL, world=World(NOW, log=(use(4), use(1), use(5)))) == ago(1)
    assert known(OFTEN, TIME_INTERVAL, world=World(NOW, log=())) == NEVER
    assert known(OFTEN, TIME_INTERVAL) is None


def test_a_use_at_nobody_knows_what_time_may_have_been_the_last() -> None:
    odd = Event(datetime(2026, 1, 1), "use")  # noqa: DTZ001 - the point
    assert known(OFTEN, TIME_INTERVAL, world=World(NOW, log=(use(1), odd))) is None


def test_metered_time_is_measured_and_does_not_run() -> None:
    found = policy(rule(leaf("odrl:meteredTime", "lteq", "PT1H")))
    assert known(found, METERED_TIME, world=World(NOW, used={METERED_TIME: 5}, anchors={METERED_TIME: NOW})) == 5
    assert known(found, METERED_TIME, world=World(NOW, anchors={METERED_TIME: NOW}, log=(use(1),))) is None


def test_an_event_is_before_during_or_after_as_the_world_says_and_the_use_is_now() -> None:
    found = policy(rule(leaf("odrl:event", "gteq", {"@id": "urn:fair"}), leaf("odrl:event", "eq", {"@id": "odrl:policyUsage"})))
    key = f"{ODRL}event urn:fair"
    assert known(found, key, world=World(NOW, {key: ("after",)})) == "after"
    assert known(found, key, world=World(NOW, {"odrl:event urn:fair": "during"})) == "during"
    assert known(found, key) is None
    assert known(found, f"{ODRL}event {ODRL}policyUsage") == "during"
