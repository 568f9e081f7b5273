from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connector.odrl import Code, Event, Options, Result, World, evaluate, load
from connector.odrl.duties import (
    deadline_of,
    doubtful,
    duty_actions,
    exercises,
    gate,
    has_deadline,
    performs,
    said_of,
    signed,
    state_of,
    turns_of,
)
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Facts, Policy, Rule
from connector.odrl.operands import DELAY_PERIOD, PAY_AMOUNT, PURPOSE
from connector.odrl.registry import DUTY_TIME
from connector.odrl.results import owed
from connector.odrl.values import DAY, microseconds
from connector.odrl.vocabulary import ODRL
from tests.odrl.cases import NOW, PARTIES, leaf, offer, policy, purpose, request, rule, time

AT = microseconds(NOW) or 0
EUR = "urn:iso:eur"


def number(value: object) -> dict[str, Any]:
    return {"@value": str(value), "@type": "xsd:decimal"}


def used(operator: str) -> dict[str, Any]:
    return leaf("odrl:event", operator, {"@id": "odrl:policyUsage"})


def dutiful(action: Any = "odrl:delete", *constraints: dict[str, Any], **more: Any) -> Policy:
    """An offer with a permission that has one duty."""
    return policy(rule(duty=[{"@id": "urn:duty", "action": action, **({"constraint": list(constraints)} if constraints else {}), **more}]))


def duty_of(found: Policy) -> Rule:
    return found.permissions[0].duties[0]


def act(days_ago: float = 0, action: str = "odrl:delete", **more: Any) -> Event:
    return Event(NOW - timedelta(days=days_ago), action, **more)


def state(found: Policy, *log: Event, now: datetime = NOW, facts: Facts | None = None, **world: Any) -> str:
    at = microseconds(now)
    return state_of(found, duty_of(found), World(now, log=log, **world), at, {ODRL + "dateTime": at or 0, **(facts or {})})


# --- the states


def test_a_duty_waits_until_it_is_done() -> None:
    assert state(dutiful()) == "pending"
    assert state(dutiful(), act()) == "fulfilled"
    assert state_of(dutiful(), duty_of(dutiful()), World(NOW), AT, {}) == "pending"  # nobody keeps a log


def test_what_happens_later_has_not_been_done() -> None:
    assert state(dutiful(), act(-1)) == "pending"


def test_a_duty_is_none_while_its_constraints_do_not_hold() -> None:
    found = dutiful("odrl:delete", purpose("eq", "a"))
    assert [state(found, facts=facts) for facts in ({PURPOSE: "a"}, {PURPOSE: "b"}, {})] == ["pending", "inactive", "pending"]
    either = dutiful("odrl:delete", {"or": [purpose("eq", "a"), purpose("eq", "b")]})
    assert [state(either, facts={PURPOSE: of}) for of in "abc"] == ["pending", "pending", "inactive"]


@pytest.mark.parametrize("around", [lambda *c: c, lambda *c: ({"and": list(c)},), lambda *c: ({"andSequence": {"@list": list(c)}},)])
def test_an_upper_bound_of_time_is_a_deadline_and_no_condition_wherever_it_stands(around: Any) -> None:
    found = dutiful("odrl:delete", *around(time("lteq", "2026-06-14Z"), purpose("eq", "a")))
    facts = {PURPOSE: "a"}
    assert deadline_of(duty_of(found), World(NOW)) == microseconds(datetime(2026, 6, 15, tzinfo=UTC))
    assert state(found, facts=facts, now=datetime(2026, 6, 14, 12, tzinfo=UTC)) == "pending"
    assert state(found, facts=facts) == "overdue"
    assert state(found, act(1), facts=facts) == "fulfilled"
    assert state(found, act(0.4), facts=facts) == "overdue"  # late
    assert state(found, facts={PURPOSE: "b"}) == "inactive"


def test_the_last_instant_is_in_time() -> None:
    found = dutiful("odrl:delete", time("lteq", "2026-06-15T12:00:00Z"))
    assert state(found) == "pending"
    assert state(found, now=NOW + timedelta(microseconds=1)) == "overdue"
    assert state(found, act(), now=NOW + timedelta(days=1)) == "fulfilled"
    before = dutiful("odrl:delete", time("lt", "2026-06-15T12:00:00Z"))
    assert state(before) == "overdue"


def test_a_window_has_a_beginning_and_its_end_is_the_deadline() -> None:
    for window in ([time("gteq", "2026-06-16Z"), time("lteq", "2026-06-16Z")], [time("eq", "2026-06-16Z")]):
        found = dutiful("odrl:delete", *window)
        states = [state(found, now=datetime(2026, 6, day, 12, tzinfo=UTC)) for day in (15, 16, 17)]
        assert states == ["inactive", "pending", "overdue"]


def test_a_negated_window_is_a_condition_and_no_deadline() -> None:
    found = dutiful("odrl:delete", time("neq", "2026-06-15Z"))
    assert not has_deadline(duty_of(found))
    assert state(found, facts={ODRL + "dateTime": AT}) == "inactive"


def test_of_several_deadlines_the_earliest_counts() -> None:
    found = dutiful("odrl:delete", time("lteq", "2026-12-31Z"), time("lt", "2026-06-01Z"))
    assert deadline_of(duty_of(found), World(NOW)) == microseconds(datetime(2026, 6, 1, tzinfo=UTC))


def test_a_clock_that_is_none_leaves_a_duty_waiting() -> None:
    found = dutiful("odrl:delete", time("lteq", "2026-01-01Z"))
    assert state_of(found, duty_of(found), World(datetime(2027, 1, 1)), None, {}) == "pending"  # noqa: DTZ001 - the point


def test_what_the_world_says_of_a_duty_goes_before_the_log() -> None:
    found = dutiful()
    assert state(found, act(), duties={"urn:duty": "overdue"}) == "overdue"
    assert state(found, duties={"/permission/0/duty/0": "fulfilled"}) == "fulfilled"


LAPSES = [
    [leaf("odrl:elapsedTime", "lteq", "P30D")],
    [{"or": [time("lteq", "2026-06-30Z"), time("lteq", "2026-07-01Z")]}],
    [leaf("odrl:dateTime", "isAnyOf", [{"@value": f"2026-06-{day}", "@type": "xsd:date"} for day in ("02Z", "30Z")])],
    [{"xone": [time("lteq", "2026-06-30Z"), time("lteq", "2026-07-01Z")]}],
]


@pytest.mark.parametrize("bound", LAPSES)
@pytest.mark.parametrize("kind", ["duty", "obligation"])
def test_no_duty_lapses_because_its_time_is_over(kind: str, bound: list[dict[str, Any]]) -> None:
    told = [{"action": "odrl:compensate", "constraint": bound}]
    signed_at = {"timestamp": "2026-06-01T00:00:00Z"}
    found = policy(rule(duty=told), **signed_at) if kind == "duty" else policy(rule(), obligation=told, **signed_at)
    june, august = datetime(2026, 6, 10, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
    assert evaluate(found, request(), World(june, log=())).result == ("deny" if kind == "duty" else "permit-with")
    assert evaluate(found, request(), World(august, log=())).result == "deny"
    paid = (Event(june, "odrl:compensate"),)
    assert evaluate(found, request(), World(august, log=paid)).result == "permit"


def test_of_the_deadlines_in_an_or_the_latest_counts_that_is_not_void() -> None:
    february, march = time("lteq", "2026-02-28Z"), time("lteq", "2026-03-31Z")
    found = dutiful("odrl:delete", {"or": [february, {"and": [march, purpose("eq", "a")]}]})
    ends = [deadline_of(duty_of(found), World(NOW), found, {PURPOSE: of}) for of in "ab"]
    assert ends == [microseconds(datetime(2026, month, 1, tzinfo=UTC)) for month in (4, 3)]
    assert has_deadline(duty_of(found))
    unbound = dutiful("odrl:delete", {"or": [february, purpose("eq", "a")]})
    assert [deadline_of(duty_of(unbound), World(NOW), unbound, {PURPOSE: of}) for of in "ab"] == [None, ends[1]]
    assert not has_deadline(duty_of(unbound))


def test_an_elapsed_time_runs_from_the_signing_or_from_the_first_use() -> None:
    found = policy(
        rule(duty=[{"action": "odrl:delete", "constraint": [leaf("odrl:elapsedTime", "lteq", "P30D")]}]), timestamp="2026-06-01T00:00:00Z"
    )
    first = World(NOW, log=(act(1, "use"),))
    for anchor, begun in (("agreement", datetime(2026, 6, 1, tzinfo=UTC)), ("first-use", NOW - timedelta(days=1))):
        decision = evaluate(found, request(), first, options=Options(recurrence_anchor=anchor))  # type: ignore[arg-type]
        assert [duty.deadline for duty in decision.duties] == [begun + timedelta(days=30, microseconds=1)]


def test_a_state_that_is_none_lets_nobody_in() -> None:
    found = dutiful()
    for told in ("violated", "Fulfilled", ""):
        assert state(found, act(), duties={"urn:duty": told}) == "overdue"
        assert evaluate(found, request(), World(NOW, duties={"urn:duty": told})).result == "deny"  # type: ignore[dict-item]


# --- delays


def test_a_delay_runs_from_the_anchor_that_the_world_names() -> None:
    found = dutiful("odrl:delete", leaf("odrl:delayPeriod", "lteq", "P30D"))
    for name in ("urn:duty", "/permission/0/duty/0", DELAY_PERIOD):
        world = World(NOW, anchors={name: NOW - timedelta(days=29)})
        assert deadline_of(duty_of(found), world, found) == AT + DAY + 1
    for days, then in ((29, "pending"), (30, "pending"), (31, "overdue")):
        assert state(found, anchors={"urn:duty": NOW - timedelta(days=days)}) == then


def test_a_delay_of_a_duty_that_follows_the_use_runs_from_the_first_use_once_for_all() -> None:
    found = dutiful("odrl:delete", used("gt"), leaf("odrl:delayPeriod", "lteq", "P30D"))
    assert state(found) == "pending"
    assert state(found, act(29, "use")) == "pending"
    assert state(found, act(31, "use"), act(1, "use")) == "overdue"
    assert state(found, act(31, "use"), act(2)) == "fulfilled"  # odrl.md 1.8, row 10: once for each uid


def test_any_other_delay_runs_from_the_signing_of_the_agreement() -> None:
    constraint = [leaf("odrl:delayPeriod", "lteq", "P30D")]
    found = policy(rule(duty=[{"action": "odrl:delete", "constraint": constraint}]), timestamp="2026-06-01T00:00:00Z")
    assert signed(found) == microseconds(datetime(2026, 6, 1, tzinfo=UTC))
    assert deadline_of(duty_of(found), World(NOW), found) == microseconds(datetime(2026, 7, 1, tzinfo=UTC) + timedelta(microseconds=1))
    assert deadline_of(duty_of(found), World(NOW)) is None
    assert deadline_of(duty_of(dutiful("odrl:delete", *constraint)), World(NOW), dutiful()) is None


def test_a_delay_that_has_to_go_by_is_a_condition() -> None:
    found = dutiful("odrl:delete", leaf("odrl:delayPeriod", "gteq", "P30D"))
    for days, then in ((29, "inactive"), (30, "pending"), (900, "pending")):
        assert state(found, anchors={"urn:duty": NOW - timedelta(days=days)}) == then
    both = dutiful("odrl:delete", leaf("odrl:delayPeriod", "gteq", "P30D"), leaf("odrl:delayPeriod", "lteq", "P31D"))
    states = [state(both, anchors={"urn:duty": NOW - timedelta(days=days)}) for days in (29, 30, 31, 32)]
    assert states == ["inactive", "pending", "pending", "overdue"]


def test_a_duty_turns_where_its_delays_do() -> None:
    found = dutiful("odrl:delete", leaf("odrl:delayPeriod", "gteq", "P1D"), leaf("odrl:delayPeriod", "lteq", "P2D"))
    world = World(NOW, anchors={"urn:duty": NOW})
    assert list(turns_of(duty_of(found), world, found)) == [AT + DAY, AT + DAY + 1, AT + 2 * DAY, AT + 2 * DAY + 1]
    assert list(turns_of(duty_of(found), World(NOW), found)) == []


# --- being late


def late(**more: Any) -> Policy:
    return dutiful("odrl:delete", time("lt", "2026-06-10Z"), **more)


def test_a_late_act_does_not_mend_a_breach_by_itself() -> None:
    assert state(late(), act(1)) == "overdue"


def test_late_and_all_consequences_are_a_remedy() -> None:
    found = late(**{"odrl:consequence": [{"action": "odrl:compensate"}, {"action": "odrl:inform"}]})
    paid, told = act(2, "odrl:compensate"), act(1, "odrl:inform")
    assert state(found, act(3), paid) == "overdue"
    assert state(found, paid, told) == "overdue"  # what was to be done is not done
    assert state(found, act(3), act(9, "odrl:compensate"), told) == "overdue"  # an earlier payment does not count
    assert state(found, act(3), paid, told) == "remediated"
    assert state(found, act(9)) == "fulfilled"


def test_consequences_are_owed_once_the_duty_is_overdue() -> None:
    found = late(**{"odrl:consequence": [{"action": "odrl:compensate", "assignee": "did:web:payer"}]})
    two = owed(
        found, found.permissions[0], World(NOW, log=(act(1, "odrl:compensate", party="did:web:payer"),)), AT, {}, Options(), "transfer"
    )
    assert [(each.kind, each.state, each.debtor, each.blocking) for each in two] == [
        ("duty", "overdue", "", True),
        ("consequence", "fulfilled", "did:web:payer", False),
    ]
    early = datetime(2026, 6, 1, tzinfo=UTC)
    (one,) = owed(found, found.permissions[0], World(early), microseconds(early), {}, Options(), "transfer")
    assert one.kind == "duty"
    assert one.deadline == datetime(2026, 6, 10, tzinfo=UTC)


# --- what performs a duty


@pytest.mark.parametrize(
    ("duty", "event", "does"),
    [
        ("odrl:use", act(action="odrl:read"), True),
        ("odrl:read", act(action="odrl:use"), False),
        ("odrl:modify", act(action="odrl:write"), True),
        ("odrl:delete", act(duty="urn:duty"), True),
        ("odrl:delete", act(action="odrl:inform", duty="urn:duty"), False),
        ("odrl:delete", act(duty="urn:another"), False),
        ("odrl:delete", act(action="urn:unknown"), False),
    ],
)
def test_an_act_of_the_action_or_one_below_it_performs_unless_it_names_another_duty(duty: str, event: Event, does: bool) -> None:
    found = dutiful(duty)
    assert performs(found, duty_of(found), event) is does


def test_each_of_several_actions_has_to_be_done_on_each_of_several_targets() -> None:
    found = dutiful(["odrl:delete", "odrl:archive"], target=["urn:a", "urn:b"])
    acts = [act(action=f"odrl:{name}", target=f"urn:{of}") for name in ("delete", "archive") for of in "ab"]
    assert all(performs(found, duty_of(found), one) for one in acts)
    assert not performs(found, duty_of(found), act(action="odrl:inform", target="urn:a"))
    assert state(found, *acts) == "fulfilled"
    for left_out in acts:
        assert state(found, *(one for one in acts if one is not left_out)) == "pending"


def test_what_is_done_on_another_dataset_or_by_another_party_performs_nothing() -> None:
    duty = {"@id": "urn:duty", "action": "odrl:obtainConsent"}
    for found in (
        policy(rule(duty=[duty], assignee=PARTIES[0]), target="urn:d"),
        policy(rule(duty=[duty]), target="urn:d", assignee=PARTIES[0]),
    ):
        for party, target, does in (
            (PARTIES[0], "urn:d", True),
            (PARTIES[1], "urn:d", False),
            (PARTIES[0], "urn:e", False),
            ("", None, True),  # the log is that of the policy
        ):
            for name in ("", "urn:duty"):
                event = act(action="odrl:obtainConsent", party=party, target=target, duty=name)
                assert performs(found, duty_of(found), event) is does


def test_a_payer_is_free_but_not_where_the_duty_names_one() -> None:
    duty = {"action": "odrl:compensate"}
    bank = act(action="odrl:compensate", party="did:web:bank")
    free = policy(rule(duty=[duty], assignee=PARTIES[0]))
    assert performs(free, duty_of(free), bank)
    bound = policy(rule(duty=[{**duty, "assignee": PARTIES[0]}]))
    assert not performs(bound, duty_of(bound), bank)


def test_the_refinements_of_a_target_and_of_a_debtor_have_to_hold() -> None:
    for name, told in (("target", {"target": "urn:all"}), ("assignee", {"party": "urn:all"})):
        what = "AssetCollection" if name == "target" else "PartyCollection"
        scope = {"@type": f"odrl:{what}", "odrl:source": "urn:all", "odrl:refinement": [purpose("eq", "a")]}
        found = dutiful(**{name: scope})
        assert [performs(found, duty_of(found), act(params={"odrl:purpose": (of,)}, **told)) for of in "ab"] == [True, False]


def test_a_name_does_not_make_too_little_enough() -> None:
    found = paying({**leaf("odrl:payAmount", "gteq", number(5)), "odrl:unit": {"@id": EUR}})
    pay = f"{PAY_AMOUNT} {EUR}"
    named = [act(action="odrl:compensate", duty="urn:duty", amounts={pay: amount}) for amount in (4, 5)]
    assert [performs(found, duty_of(found), event) for event in named] == [False, True]


def test_the_target_and_the_debtor_have_to_be_those_of_the_duty_or_in_its_collections() -> None:
    found = dutiful(target="urn:all", assignee="urn:partners")
    world = World(NOW, member_of={PARTIES[0]: frozenset({"urn:partners"}), "urn:d": frozenset({"urn:all"})})
    mine = act(party=PARTIES[0], target="urn:d")
    assert performs(found, duty_of(found), mine, world)
    assert not performs(found, duty_of(found), mine)
    assert not performs(found, duty_of(found), act(party=PARTIES[1], target="urn:d"), world)
    assert not performs(found, duty_of(found), act(party=PARTIES[0]), world)
    assert performs(found, duty_of(found), act(party="urn:partners", target="urn:all"))


def test_anybody_may_pay_where_the_duty_names_nobody() -> None:
    found = dutiful("odrl:compensate")
    assert performs(found, duty_of(found), act(action="odrl:compensate", party="did:web:bank"))


def paying(*refinements: dict[str, Any]) -> Policy:
    return dutiful({"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": list(refinements)})


def test_an_act_has_to_be_as_the_refinements_say() -> None:
    found = paying({**leaf("odrl:payAmount", "gteq", number(5)), "odrl:unit": {"@id": EUR}})
    pay = f"{PAY_AMOUNT} {EUR}"
    for event, does in (
        (act(action="odrl:compensate", amounts={pay: 5}), True),
        (act(action="odrl:compensate", amounts={pay: 4}), False),
        (act(action="odrl:compensate", amounts={PAY_AMOUNT: 5}), False),
        (act(action="odrl:compensate", params={"odrl:payAmount": ({"@value": "5.0", "unit": EUR},)}), True),
        (act(action="odrl:compensate", params={"odrl:payAmount": ({"@value": "much", "unit": EUR},)}), False),
        (act(action="odrl:compensate"), False),
    ):
        assert performs(found, duty_of(found), event) is does


@pytest.mark.parametrize(
    ("constraint", "params", "does"),
    [
        (purpose("eq", "a"), {"odrl:purpose": ("a",)}, True),
        (purpose("eq", "a"), {ODRL + "purpose": ("b",)}, False),
        (purpose("neq", "a"), {}, False),
        (leaf("odrl:meteredTime", "lteq", "PT1H"), {"odrl:meteredTime": ("PT30M",)}, True),
        (leaf("odrl:meteredTime", "lteq", "PT1H"), {"odrl:meteredTime": ("P1M",)}, False),
        (time("lteq", "2026-06-15Z"), {}, True),
        (time("lt", "2026-06-15Z"), {}, False),
    ],
)
def test_refinements_are_judged_by_what_the_act_was(constraint: dict[str, Any], params: dict[str, Any], does: bool) -> None:
    found = paying(constraint)
    assert performs(found, duty_of(found), act(action="odrl:compensate", params=params)) is does


def test_uses_are_the_acts_that_are_no_duties() -> None:
    found = policy(
        rule(duty=[{"action": "odrl:inform", "odrl:consequence": [{"action": "odrl:compensate"}]}]), obligation=[{"action": "odrl:delete"}]
    )
    assert duty_actions(found) == {ODRL + name for name in ("inform", "compensate", "delete")}
    log = tuple(act(action=f"odrl:{name}") for name in ("read", "inform", "delete", "compensate", "use"))
    assert [event.action for event in exercises(found, World(NOW, log=log))] == ["odrl:read", "odrl:use"]
    assert exercises(found, World(NOW)) == []


@pytest.mark.parametrize("named", ["", "/obligation/0", "urn:none"])
def test_what_a_permission_names_is_a_use_though_it_be_a_duty_too_whatever_it_says_of_itself(named: str) -> None:
    counted = rule(leaf("odrl:count", "lteq", {"@value": "2", "@type": "xsd:integer"}), action="odrl:modify")
    found = policy(counted, obligation=[{"action": "odrl:modify"}])
    log = tuple(act(day, "odrl:modify", duty=named) for day in range(5))
    assert len(exercises(found, World(NOW, log=log))) == 5
    assert evaluate(found, request(action="odrl:modify"), World(NOW, log=log)).code == "QUOTA_EXHAUSTED"


# --- when a duty is due, and whom it stops


@pytest.mark.parametrize(
    ("action", "constraints", "when"),
    [
        ("odrl:compensate", (), "pre"),
        ("odrl:obtainConsent", (), "pre"),
        ("odrl:reviewPolicy", (), "pre"),
        ("odrl:anonymize", (), "with"),
        ("odrl:attribute", (), "with"),
        ("odrl:nextPolicy", (), "with"),
        ("odrl:delete", (), "post"),
        ("odrl:inform", (), "post"),
        ("odrl:uninstall", (), "post"),
        ("odrl:inform", (used("lt"),), "pre"),
        ("odrl:compensate", (used("gt"),), "post"),
        ("odrl:compensate", (used("gteq"),), "post"),
        ("odrl:compensate", (used("eq"),), "with"),
        ("odrl:compensate", (leaf("odrl:delayPeriod", "lteq", "P30D"),), "post"),
        ("odrl:compensate", (leaf("odrl:event", "gt", {"@id": "urn:fair"}),), "post"),
        ("odrl:compensate", (time("lteq", "2027-01-01Z"),), "pre"),
    ],
)
def test_a_duty_comes_before_with_or_after_the_use(action: str, constraints: tuple[dict[str, Any], ...], when: str) -> None:
    assert duty_of(dutiful(action, *constraints)).when == when


@pytest.mark.parametrize(
    ("duty", "more", "when"),
    [
        ({"action": "odrl:anonymize"}, {}, "with"),
        ({"action": "odrl:anonymize", "assignee": PARTIES[0]}, {}, "with"),
        ({"action": "odrl:anonymize", "assignee": PARTIES[0]}, {"assignee": PARTIES[1]}, "pre"),
        ({"action": "odrl:watermark", "assignee": "did:web:p"}, {}, "pre"),
        ({"action": "odrl:delete", "assignee": "did:web:p"}, {}, "post"),
        ({"action": "odrl:compensate", "assignee": "did:web:p", "constraint": [used("eq")]}, {}, "with"),
    ],
)
def test_what_shapes_the_data_and_is_not_for_who_uses_them_comes_before_they_leave(duty: Any, more: Any, when: str) -> None:
    """`more` is what the permission says itself: its own assignees go before those of the policy."""
    found = policy(rule(duty=[duty], **more), assignee=PARTIES[0])
    assert found.permissions[0].duties[0].when == when


SHAPING = sorted(name for name, when in DUTY_TIME.items() if when == "with")


@pytest.mark.parametrize("action", SHAPING)
@pytest.mark.parametrize(
    ("more", "rules", "waits"),
    [
        ({}, [{}], False),  # whoever uses them
        ({"assignee": PARTIES[0]}, [{}], False),
        ({"assignee": "did:web:p"}, [{}], True),
        ({"assignee": PARTIES[0]}, [{"assignee": PARTIES[1]}], True),
        ({"assignee": PARTIES[0]}, [{}, {"assignee": PARTIES[1]}], True),  # somebody else uses them, too
        ({"assignee": "did:web:p", "constraint": [time("gteq", "2027-01-01Z")]}, [{}], False),  # not due yet
    ],
)
def test_no_use_passes_an_obligation_of_somebody_else_to_shape_the_data(action: str, more: Any, rules: Any, waits: bool) -> None:
    found = policy(*(rule(**one) for one in rules), assignee=PARTIES[0], obligation=[{"action": action, **more}])
    asks = rules[-1].get("assignee", PARTIES[0])
    told = "first it is a duty of <{}> to {}, and nothing shows that this was done"
    for mode, stops in (("strict", waits), ("solid", False)):
        for stage in ("catalog", "negotiation", "transfer"):
            options = Options(duty_mode=mode)  # type: ignore[arg-type]
            decision = evaluate(found, request(party=asks, stage=stage), World(NOW), options=options)
            assert decision.permitted is not (stops and stage == "transfer")
            assert [duty.blocking for duty in decision.duties] in ([stops and stage == "transfer"], [])
            if not decision.permitted:
                assert decision.code is Code.PREDUTY_OPEN
                assert told.format(more["assignee"], action.removeprefix(ODRL)) in decision.reason()[0]
                assert [miss.path for miss in decision.near_misses] == ["/obligation/0"]
    done = World(NOW, duties={"/obligation/0": "fulfilled"})
    assert evaluate(found, request(party=asks), done).result is Result.PERMIT


def test_what_is_late_and_what_is_only_open_are_told_apart() -> None:
    late = {"action": "odrl:compensate", "constraint": [time("lt", "2026-01-01Z")]}
    found = policy(rule(duty=[{"action": "odrl:reviewPolicy"}, late]))
    decision = evaluate(found, request(), World(NOW))
    assert decision.code is Code.OBLIGATION_OVERDUE
    assert [reason.partition(" (")[0] for reason in decision.reason()] == [
        "Denied: the duty to compensate is overdue",
        "Denied: first it is a duty to reviewPolicy, and nothing shows that this was done",
    ]


STOPS = [
    # when, state, strict, solid: whether it stops a transfer
    ("odrl:compensate", "pending", True, False),
    ("odrl:compensate", "fulfilled", False, False),
    ("odrl:compensate", "remediated", False, False),
    ("odrl:compensate", "inactive", False, False),
    ("odrl:compensate", "overdue", True, True),
    ("odrl:anonymize", "pending", False, False),
    ("odrl:anonymize", "overdue", True, True),
    ("odrl:delete", "pending", False, False),
    ("odrl:delete", "overdue", True, True),
]


@pytest.mark.parametrize(("action", "told", "strict", "solid"), STOPS)
def test_who_has_to_wait_for_a_duty(action: str, told: Any, strict: bool, solid: bool) -> None:
    found = dutiful(action)
    world = World(NOW, duties={"urn:duty": told})
    for mode, stops in (("strict", strict), ("solid", solid)):
        options = Options(duty_mode=mode)  # type: ignore[arg-type]
        assert gate(found, found.permissions[0], world, AT, {}, options, "transfer") == (FALSE if stops else TRUE)
        early = gate(found, found.permissions[0], world, AT, {}, options, "negotiation")
        assert early == (FALSE if told == "overdue" else TRUE)  # the agreement binds, and the gate is at the transfer


def test_a_duty_that_is_perhaps_none_leaves_the_use_unknown() -> None:
    found = dutiful("odrl:compensate", purpose("eq", "a"))
    states = {}
    for facts in ({PURPOSE: "a"}, {PURPOSE: "b"}, {}):
        states[facts.get(PURPOSE)] = gate(found, found.permissions[0], World(NOW), AT, facts, Options(), "transfer")
        assert doubtful(found, duty_of(found), World(NOW), AT, facts) is (not facts)
    assert states == {"a": FALSE, "b": TRUE, None: UNKNOWN}
    told = World(NOW, duties={"urn:duty": "pending"})
    assert gate(found, found.permissions[0], told, AT, {}, Options(), "transfer") == FALSE


def test_the_debtor_is_whom_the_duty_names_or_else_the_assignee() -> None:
    def debtors(*permissions: dict[str, Any], **more: Any) -> list[str]:
        found = policy(*permissions, **more)
        return [each.debtor for each in owed(found, found.permissions[0], World(NOW), AT, {}, Options(), "transfer")]

    duty = {"action": "odrl:delete"}
    assert debtors(rule(duty=[{**duty, "assignee": "did:web:payer"}], assignee=PARTIES[0])) == ["did:web:payer"]
    assert debtors(rule(duty=[duty], assignee=PARTIES[0]), assignee=PARTIES[1]) == [PARTIES[0]]
    assert debtors(rule(duty=[duty]), assignee=PARTIES[1]) == [PARTIES[1]]
    assert debtors(rule(duty=[duty])) == [""]


def test_an_obligation_is_owed_by_itself_and_an_inactive_duty_is_not_owed() -> None:
    found = load(offer(rule(duty=[{"action": "odrl:inform", "constraint": [purpose("eq", "a")]}]), obligation=[{"action": "odrl:delete"}]))
    (obligation,) = owed(found, found.obligations[0], World(NOW), AT, {}, Options(), "transfer")
    assert (obligation.kind, obligation.path, obligation.actions) == ("obligation", "/obligation/0", (ODRL + "delete",))
    assert not [*owed(found, found.permissions[0], World(NOW), AT, {PURPOSE: "b"}, Options(), "transfer")]


def test_a_world_may_tell_the_state_of_the_duties_before_the_use_of_a_policy_of_which_it_names_none() -> None:
    """As the suite of SolidLab does; what follows the use, and an obligation, is none of these, and a name goes before."""
    gate, after = {"action": "odrl:compensate", "@id": "urn:pay"}, {"action": "odrl:delete"}
    found = load(offer(rule(duty=[gate, after])) | {"obligation": [{"action": "odrl:obtainConsent"}]})
    facts: dict[str, Any] = {}

    def states(**told: str) -> list[str | None]:
        world = World(NOW, duties={name.replace("_", ":"): state for name, state in told.items()} | {"": "fulfilled"}, log=())
        return [said_of(found, duty, world) for duty in (*found.permissions[0].duties, *found.obligations)]

    assert states() == states(urn_other="overdue") == ["fulfilled", None, None]
    assert states(urn_pay="pending") == ["pending", None, None]
    world = World(NOW, duties={"": "fulfilled", "/permission/0/duty/1": "pending"}, log=())  # it names one, and so tells of each
    assert [said_of(found, duty, world) for duty in found.permissions[0].duties] == [None, "pending"]
    assert state_of(found, found.permissions[0].duties[0], World(NOW, duties={"": "done"}), None, facts) == "overdue"  # what is no state
