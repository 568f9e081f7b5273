"""Whole logs: each act as it was when it happened, each duty as it stands at the end."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random
from time import thread_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.odrl import Event, Options, Policy, Report, Request, World, evaluate, load, replay
from connector.odrl.counters import charged, tallies
from connector.odrl.duties import duty_actions, performs
from connector.odrl.model import Rule
from connector.odrl.operands import COUNT, METERED_TIME
from connector.values import replace
from tests.odrl.cases import NOW, ODRL, offer, purpose, rule
from tests.odrl.drawn import MEMBER, OPTIONS, Drawing, as_event, as_world
from tests.odrl.test_laws import events as hostile_events
from tests.odrl.test_laws import hostile_worlds, policies

Json = dict[str, Any]
A, B = "did:web:a.example", "did:web:b.example"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def leaf(left: str, operator: str, right: object, **more: object) -> Json:
    return {"leftOperand": f"odrl:{left}", "operator": operator, "rightOperand": right, **more}


def number(left: str, operator: str, value: str, **more: object) -> Json:
    return leaf(left, operator, {"@value": value, "@type": "xsd:decimal"}, **more)


def after(duration: str) -> list[Json]:
    """Within this time from the use on."""
    return [leaf("event", "gt", {"@id": "odrl:policyUsage"}), leaf("delayPeriod", "lteq", duration)]


def policy(*permissions: Json, prohibitions: tuple[Json, ...] = (), **more: object) -> Policy:
    return load(offer(*permissions, prohibitions=prohibitions, **more))


def at(hours: float, action: str = "use", party: str = A, **more: Any) -> Event:
    return Event(NOW + hours * HOUR, action if action == "use" else f"odrl:{action}", party, **more)


def verdicts(report: Report) -> list[str]:
    return [act.verdict for act in report.acts]


def codes(report: Report) -> list[str]:
    return ["" if act.code is None else act.code.value for act in report.acts]


def states(report: Report) -> dict[str, str]:
    return {duty.path: duty.state for duty in report.duties}


# acts, and what was used up before them


@pytest.mark.parametrize(("operator", "most"), [("lteq", 10), ("lt", 9)])
def test_at_most_ten_uses_are_ten_and_not_eleven(operator: str, most: int) -> None:
    report = replay(policy(rule(number("count", operator, "10"))), [at(hour) for hour in range(12)])
    assert codes(report) == ["PERMITTED"] * most + ["QUOTA_EXHAUSTED"] * (12 - most)


def test_status_is_what_was_used_up_when_the_policy_was_written() -> None:
    report = replay(
        policy(rule(number("count", "lteq", "10", **{"odrl:status": {"@value": "7", "@type": "xsd:integer"}}))), map(at, range(5))
    )
    assert codes(report) == ["PERMITTED"] * 3 + ["QUOTA_EXHAUSTED"] * 2


def test_what_was_used_up_before_the_log_counts() -> None:
    world = World(NOW, used={ODRL + "count": 8})
    assert (
        codes(replay(policy(rule(number("count", "lteq", "10"))), map(at, range(4)), world=world))
        == ["PERMITTED"] * 2 + ["QUOTA_EXHAUSTED"] * 2
    )


def test_permissions_count_each_for_itself() -> None:
    """The key of a counter is the rule (odrl.md 1.7): five reads leave the plays alone."""
    found = policy(rule(number("count", "lteq", "2"), action="odrl:read"), rule(number("count", "lteq", "1"), action="odrl:play"))
    report = replay(found, [at(0, "read"), at(1, "read"), at(2, "play"), at(3, "read"), at(4, "play")])
    assert verdicts(report) == ["permitted", "permitted", "permitted", "violation", "violation"]


def test_an_act_that_a_permission_does_not_allow_anyway_uses_nothing_up() -> None:
    found = policy(rule(purpose("eq", "research"), number("count", "lteq", "1")))
    report = replay(
        found,
        [
            at(0, params={"odrl:purpose": ("ads",)}),
            at(1, params={"odrl:purpose": ("research",)}),
            at(2, params={"odrl:purpose": ("research",)}),
        ],
    )
    assert codes(report) == ["CONSTRAINT_UNSATISFIED", "PERMITTED", "QUOTA_EXHAUSTED"]


def test_amounts_are_summed_and_the_act_counts_with_its_own() -> None:
    volume = {"leftOperand": "urn:qiao:byteCount", "operator": "lteq", "rightOperand": {"@value": "1000", "@type": "xsd:integer"}}
    report = replay(policy(rule(volume)), [at(n, amounts={"urn:qiao:byteCount": size}) for n, size in enumerate((400, 600, 1, 0))])
    assert verdicts(report) == ["permitted", "permitted", "violation", "violation"]


def test_an_act_whose_size_nobody_tells_is_not_permitted_once_it_matters() -> None:
    volume = {"leftOperand": "urn:qiao:byteCount", "operator": "lteq", "rightOperand": {"@value": "1000", "@type": "xsd:integer"}}
    report = replay(policy(rule(volume)), [at(0), at(1), at(2)])
    assert codes(report) == ["PERMITTED", "CONSTRAINT_UNKNOWN", "CONSTRAINT_UNKNOWN"]


def test_payments_are_counted_whoever_they_are_for_and_in_their_unit() -> None:
    found = policy(rule(number("payAmount", "gteq", "5", **{"odrl:unit": "urn:x:EUR"})))
    paid = {ODRL + "payAmount urn:x:EUR": Fraction(5, 2)}
    report = replay(found, [at(0, amounts=paid), at(1, amounts={ODRL + "payAmount": 100}), at(2, amounts=paid)])
    assert verdicts(report) == ["violation", "violation", "permitted"]


# time


def test_durations_run_from_the_first_use_and_recurrence_from_the_last() -> None:
    month = replay(policy(rule(leaf("elapsedTime", "lteq", "P1D"))), [at(0), at(24), at(24.5)])
    assert verdicts(month) == ["permitted", "permitted", "violation"]
    daily = replay(policy(rule(leaf("timeInterval", "eq", "P1D"))), [at(0), at(23), at(46), at(71), at(95)])
    assert verdicts(daily) == ["permitted", "violation", "violation", "permitted", "permitted"], "a use that was not allowed was a use"


def test_a_rate_is_a_count_and_the_time_between_two_uses() -> None:
    """So many in all, and none sooner than that after the one before. ODRL 2.2 has no words for a count that begins again with each period:
    that takes windows of `dateTime`, or an operand of a profile."""
    found = policy(rule(number("count", "lteq", "3"), leaf("timeInterval", "gteq", "PT1H")))
    report = replay(found, [at(0), at(0.5), at(1.5), at(2.5), at(3.5)])
    assert codes(report) == ["PERMITTED", "CONSTRAINT_UNSATISFIED", "PERMITTED", "PERMITTED", "QUOTA_EXHAUSTED"]
    assert [finding.path for finding in found.findings if finding.code == "INTERVAL_AS_WINDOW"] == ["/permission/0/constraint/1"]
    for alone in (number("count", "lteq", "3"), leaf("timeInterval", "gteq", "PT1H")):
        assert "INTERVAL_AS_WINDOW" not in {finding.code for finding in policy(rule(alone)).findings}


def test_events_are_taken_in_the_order_of_time_and_those_of_one_instant_as_they_stand() -> None:
    found = policy(rule(number("count", "lteq", "1")))
    report = replay(found, [at(5, id="late"), at(0, id="first"), at(5, id="later")])
    assert [(act.event.id, act.verdict) for act in report.acts] == [("first", "permitted"), ("late", "violation"), ("later", "violation")]
    assert report.at == NOW + 5 * HOUR


def test_an_event_without_a_time_that_is_known_stays_where_it_stands_and_time_permits_nothing_to_it() -> None:
    naive = Event(datetime(2026, 1, 1), "use", A, id="naive")  # noqa: DTZ001 - the point
    report = replay(policy(rule(leaf("dateTime", "lt", "2027-01-01Z"))), [naive, at(1), naive, at(0)])
    assert [(act.event.id, act.verdict) for act in report.acts] == [
        ("naive", "violation"),
        ("", "permitted"),
        ("", "permitted"),
        ("naive", "repeated"),
    ]


# duties


PAY = {"action": "odrl:compensate", "@id": "urn:duty:pay"}


def test_a_duty_before_the_use_has_to_be_done_before_it() -> None:
    found = policy(rule(duty=[PAY]))
    report = replay(found, [at(0), at(1, "compensate"), at(2), at(3)])
    assert codes(report) == ["PREDUTY_OPEN", "", "PERMITTED", "PERMITTED"]
    assert report.acts[1].performs == ("/permission/0/duty/0",)
    assert states(report) == {"/permission/0/duty/0": "fulfilled"}
    assert not report.compliant


def test_a_duty_is_due_once_for_all_permissions_that_name_it() -> None:
    found = policy(rule(action="odrl:read", duty=[PAY]), rule(action="odrl:play", duty=[PAY]))
    report = replay(found, [at(0, "compensate", duty="urn:duty:pay"), at(1, "read"), at(2, "play"), at(3, "play")])
    assert verdicts(report) == ["duty", "permitted", "permitted", "permitted"]
    assert report.acts[0].performs == ("/permission/0/duty/0", "/permission/1/duty/0")
    assert report.compliant


@pytest.mark.parametrize(
    ("events", "state", "late"),
    [
        ([at(0)], "pending", False),
        ([at(0), at(24, "delete")], "fulfilled", False),
        ([at(-1, "delete"), at(0)], "pending", False),
        ([at(-1, "delete"), at(0), at(24 * 30, "delete")], "fulfilled", False),
        ([at(0), at(24 * 30 + 1, "delete")], "overdue", True),
        ([at(0), at(24, "delete"), at(48), at(24 * 40)], "fulfilled", False),
        ([at(0), at(24 * 31)], "overdue", True),
    ],
)
def test_a_duty_after_the_use_runs_from_the_first_one(events: list[Event], state: str, late: bool) -> None:
    found = policy(rule(duty=[{"action": "odrl:delete", "constraint": after("P30D")}]))
    report = replay(found, events)
    (duty,) = report.duties
    assert (duty.state, duty.deadline) == (state, NOW + 30 * DAY + timedelta(microseconds=1))
    assert report.compliant is not late


def test_a_duty_of_several_actions_is_done_when_each_of_them_is() -> None:
    three = {"action": ["odrl:compensate", "odrl:obtainConsent", "odrl:reviewPolicy"]}
    found = policy(rule(duty=[three]), obligation=[{"action": ["odrl:inform", "odrl:delete"]}])
    begun = [at(0, "compensate"), at(1, "obtainConsent"), at(2), at(3, "compensate")]
    report = replay(found, [*begun, at(4, "reviewPolicy"), at(5), at(6, "compensate"), at(7), at(8, "inform")])
    assert codes(report) == ["", "", "CONSENT_MISSING", "", "", "PERMITTED", "", "PERMITTED", ""]
    assert states(report) == {"/obligation/0": "pending", "/permission/0/duty/0": "fulfilled"}
    closed = {hours: states(replay(found, [*begun, at(4, "inform"), at(8, "delete")], closed_at=NOW + hours * HOUR)) for hours in (7, 9)}
    assert [closed[hours]["/obligation/0"] for hours in (7, 9)] == ["overdue", "fulfilled"]


def test_a_duty_of_a_permission_that_nobody_made_use_of_is_none() -> None:
    found = policy(rule(duty=[{"action": "odrl:delete", "constraint": [leaf("dateTime", "lteq", "2026-06-14Z")]}]))
    assert states(replay(found, [])) == {"/permission/0/duty/0": "inactive"}


def test_the_breach_of_a_duty_blocks_the_next_use_until_it_is_made_good() -> None:
    """Late, the duty and all of its consequences have to be done after it was violated (ODRL 2.2 IM, 2.6.4)."""
    fine = {"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [number("payAmount", "gteq", "100")]}}
    found = policy(rule(duty=[{"action": "odrl:inform", "constraint": after("P1D"), "odrl:consequence": [fine]}]))
    fined = {ODRL + "payAmount": 100}
    early = at(1, "compensate", amounts=fined)
    log = [at(0), early, at(48), at(49, "inform"), at(50), at(51, "compensate", amounts={ODRL + "payAmount": 99}), at(52)]
    report = replay(found, log)
    assert codes(report) == ["PERMITTED", "", "OBLIGATION_OVERDUE", "", "OBLIGATION_OVERDUE", "", "OBLIGATION_OVERDUE"]
    assert states(report) == {"/permission/0/duty/0": "overdue", "/permission/0/duty/0/odrl:consequence/0": "pending"}
    assert report.acts[5].performs == (), "a payment that is too small performs nothing, and is no use either"
    mended = replay(found, [*log, at(53, "compensate", amounts=fined), at(54)])
    assert (codes(mended)[-1], states(mended)) == (
        "PERMITTED",
        {"/permission/0/duty/0": "remediated", "/permission/0/duty/0/odrl:consequence/0": "fulfilled"},
    )


# remedies


def test_only_what_is_done_after_the_infringement_makes_it_good() -> None:
    found = policy(
        rule(), prohibitions=(rule(action="odrl:distribute", **{"odrl:remedy": [{"action": "odrl:anonymize"}, {"action": "odrl:inform"}]}),)
    )
    before = [at(0, "anonymize"), at(1, "inform"), at(2, "distribute", id="x")]
    report = replay(found, before)
    (infringement,) = report.infringements
    assert (report.acts[2].verdict, report.acts[2].code, report.acts[2].infringes) == ("violation", "PROHIBITED", ("/prohibition/0",))
    assert (infringement.path, infringement.event.id, infringement.remedied) == ("/prohibition/0", "x", False)
    assert [remedy.state for remedy in infringement.remedies] == ["pending", "pending"]
    half = replay(found, [*before, at(3, "inform")])
    assert ([remedy.state for remedy in half.infringements[0].remedies], half.compliant) == (["pending", "fulfilled"], False)
    whole = replay(found, [*before, at(3, "inform"), at(4, "anonymize")])
    assert (whole.infringements[0].remedied, whole.compliant, len(whole.violations)) == (True, True, 1)
    again = replay(found, [*before, at(3, "inform"), at(4, "anonymize"), at(5, "distribute")])
    assert [one.remedied for one in again.infringements] == [True, False]


def test_at_the_same_instant_what_stands_behind_comes_after() -> None:
    found = policy(rule(), prohibitions=(rule(action="odrl:distribute", **{"odrl:remedy": [{"action": "odrl:inform"}]}),))
    assert not replay(found, [at(0, "inform"), at(0, "distribute")]).compliant
    assert replay(found, [at(0, "distribute"), at(0, "inform")]).compliant


def test_a_prohibition_without_remedies_cannot_be_made_good_and_a_missing_permission_neither() -> None:
    forbidden = policy(rule(), prohibitions=(rule(action="odrl:distribute"),))
    assert not replay(forbidden, [at(0, "distribute"), at(1, "inform")]).compliant
    missing = replay(policy(rule(action="odrl:read")), [at(0, "play")])
    assert (missing.compliant, missing.infringements, codes(missing)) == (False, (), ["ACTION_NOT_COVERED"])


def test_where_permissions_win_nothing_is_infringed() -> None:
    found = policy(rule(), prohibitions=(rule(action="odrl:distribute"),), **{"odrl:conflict": "odrl:perm"})
    report = replay(found, [at(0, "distribute")])
    assert (report.compliant, report.infringements) == (True, ())


# obligations, and the end of an agreement


OBLIGED: Json = {"action": "odrl:inform"}


@pytest.mark.parametrize(
    ("duty", "events", "closed", "state"),
    [
        (OBLIGED, [], None, "pending"),
        (OBLIGED, [], 10, "overdue"),
        (OBLIGED, [at(1, "inform")], 10, "fulfilled"),
        (OBLIGED, [at(11, "inform")], 10, "overdue"),
        ({**OBLIGED, "odrl:consequence": [{"action": "odrl:compensate"}]}, [at(11, "inform"), at(12, "compensate")], 10, "remediated"),
        ({**OBLIGED, "odrl:consequence": [{"action": "odrl:compensate"}]}, [at(1, "compensate"), at(11, "inform")], 10, "overdue"),
        ({**OBLIGED, "constraint": [leaf("dateTime", "lteq", "2026-06-20Z")]}, [], 10, "pending"),
        ({**OBLIGED, "constraint": [leaf("dateTime", "lteq", "2026-06-14Z")]}, [], 10, "overdue"),
        ({**OBLIGED, "constraint": [leaf("dateTime", "gteq", "2026-06-20Z")]}, [], 10, "inactive"),
    ],
)
def test_an_obligation_without_a_deadline_is_judged_when_the_agreement_is_closed(
    duty: Json, events: list[Event], closed: float | None, state: str
) -> None:
    found = policy(rule(), obligation=[duty])
    report = replay(found, events, world=World(NOW), closed_at=None if closed is None else NOW + closed * HOUR)
    assert states(report)["/obligation/0"] == state
    assert report.closed is (closed is not None)
    assert report.compliant is (state != "overdue")


def test_after_the_end_nothing_is_permitted() -> None:
    report = replay(policy(rule()), [at(0), at(9.999), at(10), at(11)], closed_at=NOW + 10 * HOUR)
    assert codes(report) == ["PERMITTED", "PERMITTED", "AGREEMENT_CLOSED", "AGREEMENT_CLOSED"]
    assert report.acts[3].reason("peer") == ["Denied: the agreement was closed before."]
    assert report.acts[3].reason("none") == []


def test_duties_are_judged_at_the_end_of_the_log_or_when_the_world_says() -> None:
    found = policy(rule(), obligation=[{**OBLIGED, "constraint": [leaf("dateTime", "lt", "2026-06-15T18:00:00Z")]}])
    assert states(replay(found, [at(0)])) == {"/obligation/0": "pending"}
    assert states(replay(found, [at(0)], world=World(NOW + 6 * HOUR))) == {"/obligation/0": "overdue"}
    assert codes(replay(found, [at(0), at(7)])) == ["PERMITTED", "OBLIGATION_OVERDUE"]
    nothing = replay(found, [])
    assert (nothing.at, states(nothing)) == (None, {"/obligation/0": "pending"})


def test_an_end_without_a_time_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        replay(policy(rule()), [], closed_at=datetime(2026, 1, 1))  # noqa: DTZ001 - the point


# what comes twice


def test_an_event_that_comes_again_counts_once() -> None:
    found = policy(rule(number("count", "lteq", "2")))
    twice = [at(0, id="a"), at(0, id="a"), at(1, id="b"), at(1, id="b"), at(2, id="c")]
    assert verdicts(replay(found, twice)) == ["permitted", "repeated", "permitted", "repeated", "violation"]
    without_ids = [replace(event, id="") for event in twice]
    assert Counter(verdicts(replay(found, without_ids))) == {"permitted": 2, "violation": 3}, "who gives no id says that these are two"


def test_a_use_under_a_borrowed_id_is_judged_nevertheless() -> None:
    report = replay(policy(rule(action="odrl:read")), [at(0, "read", id="a"), at(1, "play", id="a")])
    assert verdicts(report) == ["permitted", "violation"]


def test_a_payment_is_not_made_twice_under_one_id() -> None:
    found = policy(rule(), prohibitions=(rule(action="odrl:distribute", **{"odrl:remedy": [{"action": "odrl:compensate"}]}),))
    receipt = at(0, "compensate", id="receipt")
    report = replay(found, [receipt, at(1, "distribute"), replace(receipt, at=NOW + 2 * HOUR), receipt])
    assert (verdicts(report), report.compliant) == (["duty", "repeated", "violation", "repeated"], False)


def test_who_says_that_an_act_is_a_duty_that_is_none_has_said_nothing() -> None:
    found = policy(rule(number("count", "lteq", "1"), action="odrl:read"))
    report = replay(found, [at(0, "read", duty="urn:nothing"), at(1, "read", duty="urn:nothing"), at(2, "play", duty="/permission/0")])
    assert verdicts(report) == ["permitted", "violation", "violation"]


def test_two_agreements_for_one_asset_have_each_its_own_account() -> None:
    terms = rule(number("count", "lteq", "1"))
    one, other = (
        {**offer(terms), "@id": f"urn:a:{n}", "@type": "Agreement", "target": "urn:d", "assigner": B, "assignee": A} for n in (1, 2)
    )
    use = at(0, target="urn:d")
    for document in (one, other):
        assert verdicts(replay(load(document), [use, replace(use, at=NOW + HOUR)])) == ["permitted", "violation"]


# the law: a log replayed is a log that was decided as it happened


def online(policy: Policy, events: list[Event], options: Options, world: World) -> Iterator[tuple[str, list[Event]]]:
    """What a connector says that is asked before each act, and the log that it has so far: an act that it does not permit does not happen.
    What is used up it counts under the rules that the engine names."""
    used: dict[Any, Any] = {(tally.rule, tally.operand): 0 for tally in tallies(policy)}
    log: list[Event] = []
    for event in sorted(events, key=lambda one: one.at):
        so_far = replace(world, now=event.at, used=dict(used), log=tuple(log))
        decision = evaluate(policy, Request(event.party, event.action, event.target, event.params), so_far, options=options)
        owed = policy.registry.actions.get(event.action) in duty_actions(policy)
        if any(performs(policy, one, event, world) for one in every_duty(policy.rules)):
            verdict = "duty"
        elif decision.permitted:
            verdict = "permitted"
        else:
            verdict = "duty" if owed and decision.code != "PROHIBITED" else "violation"
        yield verdict, [*log, event]
        if verdict != "violation":
            log.append(event)
        for path, operand in list(used) if verdict == "permitted" else ():
            if path in charged(decision.case):
                used[path, operand] += operand == COUNT
                if operand == METERED_TIME:
                    del used[path, operand]  # how long it took nobody tells


def every_duty(rules: Iterable[Rule]) -> Iterator[Rule]:
    for one in rules:
        yield from [one] if one.kind not in ("permission", "prohibition") else []
        yield from every_duty(one.duties)


def drawn(seed: int) -> tuple[Policy, list[Event], Options, World]:
    """A policy whose permissions alone count, and only uses: what a connector does not permit does not happen to it, and is not counted."""
    chance = Random(seed)
    drawing, key = Drawing(chance), chance.choice(list(OPTIONS))
    policy, world = load(drawing.policy(), options=OPTIONS[key]), drawing.world()
    actions = [*drawing.owed, "use", "use", "read", "play", "distribute"]
    events = []
    for number in range(chance.randint(1, 12)):
        event = drawing.event(world["now"]) | {"action": chance.choice(actions), "duty": ""}
        purposes = tuple(chance.sample(("urn:p:health", "urn:p:cancer", "urn:p:ads"), chance.randint(0, 2)))
        hours = timedelta(hours=chance.choice((0, 1, 12, 24, 24 * 30)))
        events.append(
            replace(as_event(event), at=world["now"] + number * hours, params={"odrl:purpose": purposes, "odrl:spatial": ("urn:l:de",)})
        )
    return policy, events, OPTIONS[key], replace(as_world(world), used={}, log=None, anchors={}, duties={})


def test_a_log_replayed_says_of_each_act_what_was_said_when_it_happened() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        policy, events, options, world = drawn(seed)
        for verdict, log in online(policy, events, options, world):
            assert verdicts(replay(policy, log, options=options, world=world))[-1] == verdict, seed
            seen[verdict] += 1
    assert min(seen[verdict] for verdict in ("permitted", "violation", "duty")) > 120, seen


def test_a_replay_in_pieces_is_the_replay_of_the_whole() -> None:
    """What an act is does not depend on what comes after it."""
    for seed in range(120):
        policy, events, options, world = drawn(seed)
        whole = verdicts(replay(policy, events, options=options, world=world))
        for count in range(len(events)):
            assert (
                verdicts(replay(policy, sorted(events, key=lambda one: one.at)[:count], options=options, world=world)) == whole[:count]
            ), seed


def test_the_order_in_which_a_log_is_given_changes_nothing_where_times_differ() -> None:
    for seed in range(120):
        policy, events, options, world = drawn(seed)
        apart = [replace(event, at=event.at + number * timedelta(microseconds=1)) for number, event in enumerate(events)]
        mixed = Random(seed).sample(apart, len(apart))
        one, other = (replay(policy, given, options=options, world=world) for given in (apart, mixed))
        assert one.to_json() == other.to_json(), seed


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(policies, st.lists(hostile_events, max_size=6), hostile_worlds, st.none() | st.datetimes(timezones=st.just(UTC)))
def test_whatever_a_log_holds_is_judged(policy: Policy, events: list[Event], world: World, closed: datetime | None) -> None:
    report = replay(policy, events, options=OPTIONS["prohibit", True], world=world, closed_at=closed)
    assert len(report.acts) == len(events)
    assert json.loads(json.dumps(report.to_json()))["compliant"] is report.compliant


def test_a_policy_that_is_refused_permits_nothing_of_a_log() -> None:
    refused = load(offer(rule(leaf("nonsense", "eq", "1"))), strict=False)
    assert codes(replay(refused, [at(0), at(1)])) == ["OPERAND_UNSUPPORTED"] * 2


def test_a_policy_is_read_under_the_profiles_of_the_options() -> None:
    found = load(offer(rule({"leftOperand": MEMBER, "operator": "eq", "rightOperand": "urn:m:gold"})), strict=False)
    world = World(NOW, {MEMBER: ("urn:m:gold",)})
    assert verdicts(replay(found, [at(0)], world=world)) == ["violation"]
    assert verdicts(replay(found, [at(0)], options=OPTIONS["prohibit", True], world=world)) == ["permitted"]


def test_a_long_log_takes_time_in_proportion_to_its_length() -> None:
    delete = {"action": "odrl:delete", "constraint": after("P999D")}
    found = policy(rule(number("count", "lteq", "100000"), leaf("timeInterval", "gteq", "PT1M"), duty=[PAY, delete]))

    def seconds(count: int) -> float:
        log = [at(n, "compensate" if n % 2 else "use", amounts={ODRL + "payAmount": n}) for n in range(count)]
        start = thread_time()
        assert Counter(verdicts(replay(found, log))) == {"duty": count // 2, "permitted": count // 2 - 1, "violation": 1}
        return thread_time() - start

    short, long = min(seconds(300) for _ in range(2)), seconds(2_400)
    assert long < 25 * short, "eight times as long; a quadratic replay takes 64 times as long"
