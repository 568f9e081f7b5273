"""odrl.md 1.8: the points that ODRL leaves open, one test for each row, named after the choice that is made here."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connector.odrl import Code, Event, Operand, Options, Policy, Profile, Request, World, evaluate, lint, load
from connector.odrl.duties import deadline_of, performs
from connector.odrl.operands import COUNT
from connector.odrl.results import owed
from connector.odrl.vocabulary import ODRL
from connector.values import replace
from tests.odrl.cases import NOW, PARTIES, leaf, offer, participant, policy, purpose, request, rule, time, world

W3C = "http://www.w3.org/ns/odrl.jsonld"
PAY = {"@id": "urn:pay", "action": "odrl:compensate"}
DELETE = {"@id": "urn:delete", "action": "odrl:delete"}


def result(found: Policy, asked: Request = request(), now: World = world(), **options: Any) -> str:  # noqa: B008
    return evaluate(found, asked, now, options=Options(**options)).result.value


def w3c(**more: object) -> Policy:
    return load({"@context": W3C, "uid": "urn:s", **more})


def codes(found: object) -> set[str]:
    return {finding.code.value for finding in lint(found)}


def paid(days_ago: float = 1, **more: Any) -> Event:
    return Event(NOW - timedelta(days=days_ago), "odrl:compensate", **more)


def test_row_1_an_unset_conflict_is_decided_by_the_prohibition_and_by_option_voids_the_policy() -> None:
    found = policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),))
    assert [result(found, request(of)) for of in ("research", "marketing")] == ["permit", "deny"]
    assert [result(found, request(of), conflict="permit") for of in ("research", "marketing")] == ["permit", "permit"]
    strict = evaluate(found, request("research"), world(), options=Options(conflict="invalid"))
    assert (strict.result, strict.code) == ("deny", "POLICY_VOID_CONFLICT")
    said = policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),), **{"odrl:conflict": "odrl:invalid"})
    assert result(said, request("research"), conflict="permit") == "deny"
    assert "POLICY_VOID_CONFLICT" in evaluate(said, request("research"), world()).code


def test_row_2_a_conflict_is_an_overlap_of_actions_targets_parties_and_what_both_ask_for() -> None:
    for permission, prohibition, clash in (
        (rule(), rule(action="odrl:distribute"), True),
        (rule(action="odrl:read"), rule(action="odrl:distribute"), False),
        (rule(purpose("eq", "a")), rule(purpose("eq", "b")), False),
        (rule(assignee=PARTIES[0]), rule(assignee=PARTIES[1]), False),
        (rule(time("lt", "2027-01-01Z"), action="odrl:read"), rule(time("gteq", "2027-01-01Z"), action="odrl:read"), False),
        (rule(time("lt", "2027-01-01Z"), action="odrl:read"), rule(time("gteq", "2026-12-31Z"), action="odrl:read"), True),
    ):
        asked = request("a", action="odrl:read")
        found = policy(permission, prohibitions=(prohibition,))
        assert result(found, asked, conflict="invalid") == ("deny" if clash else "permit")


def test_row_3_a_duty_before_the_use_blocks_while_it_is_neither_done_nor_late_and_by_option_does_not() -> None:
    found = policy(rule(duty=[PAY]))
    for stage, strict in (("catalog", "permit-with"), ("negotiation", "permit-with"), ("transfer", "deny")):
        assert result(found, request(stage=stage)) == strict
        assert result(found, request(stage=stage), duty_mode="solid") == "permit-with"
    assert evaluate(found, request(), world()).code == "PREDUTY_OPEN"
    assert result(found, now=World(NOW, log=(paid(),))) == "permit"
    after = policy(rule(duty=[DELETE]))
    assert result(after) == "permit-with"
    late = policy(rule(duty=[{**DELETE, "constraint": [time("lt", "2026-06-01Z")]}]))
    for mode in ("strict", "solid"):
        assert evaluate(late, request(), world(), options=Options(duty_mode=mode)).code == "OBLIGATION_OVERDUE"  # type: ignore[arg-type]


def test_row_4_both_are_told_what_a_rule_speaks_about_and_whether_it_is_active() -> None:
    found = policy(rule(purpose("eq", "a")), rule(assignee=PARTIES[1]), rule(action="odrl:sell"))
    rules = evaluate(found, request("a"), world()).rules
    assert [(each.action, each.target, each.assignee, each.active, each.control) for each in rules] == [
        (True, True, True, True, "permit"),
        (True, True, False, False, "deny"),
        (False, True, True, False, "deny"),
    ]


def test_row_5_where_nothing_applies_nothing_is_permitted() -> None:
    for found in (policy(rule(action="odrl:read")), policy(prohibitions=(rule(action="odrl:read"),)), policy(rule(assignee=PARTIES[1]))):
        assert {result(found, request(stage=stage)) for stage in ("catalog", "negotiation", "transfer")} == {"deny"}


def test_row_6_a_missing_fact_is_unknown_and_closes_where_it_is_enforced() -> None:
    """Neither false, nor the empty string, nor left out: a negation on it does not hold either."""
    for found in (policy(rule(purpose("neq", "a"))), policy(rule(), prohibitions=(rule(purpose("eq", "a")),))):
        assert [result(found, request(stage=stage)) for stage in ("catalog", "negotiation", "transfer")] == ["unknown", "deny", "deny"]
    counted = policy(rule(leaf("odrl:count", "lteq", "10")))
    assert [result(counted, request(stage=stage)) for stage in ("catalog", "negotiation", "transfer")] == ["unknown", "permit", "deny"]


def test_row_7_a_rule_without_an_action_is_about_any_with_a_warning_and_in_the_protocol_an_error() -> None:
    found = w3c(permission=[{"target": "urn:d"}])
    for action in ("use", "odrl:sell", "urn:unheard-of"):
        assert result(found, request(action=action, target="urn:d")) == "permit"
    assert codes(found) == {"ACTION_MISSING"}
    assert "MALFORMED" in codes(offer({"constraint": []}))


def test_row_8_what_is_included_in_an_action_is_that_action_in_duties_too_and_not_the_other_way_round() -> None:
    found = policy(rule(action="odrl:play", duty=[{"@id": "urn:d", "action": "odrl:use"}]))
    duty = found.permissions[0].duties[0]
    assert [performs(found, duty, Event(NOW, f"odrl:{name}")) for name in ("use", "read", "sell")] == [True, True, False]
    assert [result(found, request(action=f"odrl:{name}"), duty_mode="solid") for name in ("display", "use")] == ["permit-with", "deny"]


def test_row_8b_use_reaches_to_distribution_which_is_warned_of_and_a_prohibition_of_use_spares_the_duties() -> None:
    bare = policy(rule())
    assert result(bare, request(action="odrl:distribute")) == "permit"
    assert "USE_IMPLIES_DISTRIBUTE" in codes(bare)
    barred = policy(rule(), prohibitions=(rule(action="odrl:distribute"),))
    assert [result(barred, request(action=f"odrl:{name}")) for name in ("distribute", "read")] == ["deny", "permit"]
    assert "USE_IMPLIES_DISTRIBUTE" not in codes(barred)
    ended = policy(rule(duty=[DELETE]), prohibitions=(rule(time("gteq", "2026-01-01Z")),))
    assert [result(ended, request(action=f"odrl:{name}")) for name in ("read", "delete")] == ["deny", "permit-with"]
    forbidden = policy(rule(duty=[DELETE]), prohibitions=(rule(action="odrl:delete"),))
    assert result(forbidden, request(action="odrl:delete")) == "deny"  # by its own name
    assert "PROHIBITION_OF_USE" in codes(policy(rule(), prohibitions=(rule(),)))


def test_row_9_what_an_action_implies_decides_nothing() -> None:
    """The core asserts no `implies`; a profile that includes one action in another says so by inclusion, which does."""
    taught = Options(profiles=(Profile("x", actions={"urn:x:teach": ODRL + "use", "urn:x:copy": ""}),))
    found = load(offer(rule(), prohibitions=(rule(action="urn:x:copy"),)), options=taught)
    assert evaluate(found, Request(PARTIES[0], "urn:x:teach"), world(), options=taught).result == "permit"
    assert evaluate(found, Request(PARTIES[0], "urn:x:copy"), world(), options=taught).result == "deny"
    assert load(offer(rule(**{"odrl:implies": "odrl:read"})), strict=False).refused


def test_row_10_a_duty_is_done_once_for_its_uid_however_often_the_data_is_used_and_however_many_permissions_share_it() -> None:
    found = policy(rule(duty=[PAY]), rule(action="odrl:read", duty=[PAY]))
    done = World(NOW, log=(paid(9), Event(NOW - timedelta(days=5), "use"), Event(NOW - timedelta(days=1), "use")))
    assert [result(found, request(action=f"odrl:{name}"), done) for name in ("use", "read")] == ["permit", "permit"]
    told = World(NOW, duties={"urn:pay": "fulfilled"})
    assert [result(found, request(action=f"odrl:{name}"), told) for name in ("use", "read")] == ["permit", "permit"]


def test_row_11_a_constraint_of_the_policy_counts_for_each_rule_with_a_warning() -> None:
    document = {"@context": W3C, "uid": "urn:s", "constraint": [leaf("purpose", "eq", "a")], "permission": [rule(), rule(action="read")]}
    found = load(document)
    assert [result(found, request(of, action="odrl:read")) for of in "ab"] == ["permit", "deny"]
    assert codes(document) >= {"POLICY_CONSTRAINT"}


def test_row_12_an_obligation_without_a_deadline_is_pending_for_ever_with_a_warning() -> None:
    open_end, dated = (
        load(offer(rule(action="odrl:read"), obligation=[{**DELETE, "constraint": list(limit)}]))
        for limit in ((), (time("lteq", "2026-12-31Z"),))
    )  # fmt: skip
    assert codes(open_end) == {"OBLIGATION_NO_DEADLINE"}
    assert codes(dated) == set()
    much_later = World(datetime(9000, 1, 1, tzinfo=UTC))
    at = request(action="odrl:read")
    assert [result(found, at, much_later) for found in (open_end, dated)] == ["permit-with", "deny"]
    assert deadline_of(open_end.obligations[0], much_later) is None
    assert result(open_end, at, replace(much_later, duties={"urn:delete": "overdue"})) == "deny"  # as whoever closes the agreement judges


def test_row_13_the_debtor_is_the_assignee_and_anybody_may_pay() -> None:
    found = policy(rule(duty=[PAY], assignee=PARTIES[0]))
    (due,) = owed(found, found.permissions[0], World(NOW), 0, {}, Options(), "transfer")
    assert due.debtor == PARTIES[0]
    assert result(found, now=World(NOW, log=(paid(party="did:web:bank"),))) == "permit"
    named = policy(rule(duty=[{**PAY, "assignee": "did:web:payer"}], assignee=PARTIES[0]))
    assert [result(named, now=World(NOW, log=(paid(party=who),))) for who in ("did:web:bank", "did:web:payer")] == ["deny", "permit"]


@pytest.mark.parametrize("operator", ["eq", "neq", "lt", "lteq", "gt", "gteq"])
def test_row_14_several_values_of_an_operator_for_one_are_an_error(operator: str) -> None:
    left = "odrl:purpose" if operator in ("eq", "neq") else "odrl:count"
    document = offer(rule(leaf(left, operator, ["5", "6"]), action="odrl:read"))
    assert codes(document) == {"TYPE_MISMATCH"}
    assert evaluate(load(document, strict=False), request(), world()).result == "deny"


def test_row_15_an_operand_that_is_missing_matters_only_where_it_decides() -> None:
    there, missing = participant("eq", PARTIES[0]), purpose("eq", "a")
    elsewhere = participant("eq", PARTIES[1])
    table = {
        "or": ((there, "permit"), (elsewhere, "unknown")),
        "and": ((there, "unknown"), (elsewhere, "deny")),
        "xone": ((there, "unknown"), (elsewhere, "unknown")),
    }
    for kind, rows in table.items():
        for known, expected in rows:
            assert result(policy(rule({kind: [known, missing]})), request(stage="catalog")) == expected
    assert result(policy(rule({"xone": [there, there, missing]})), request(stage="catalog")) == "deny"  # two hold, whatever is missing


def test_the_rows_hold_for_operands_of_a_profile_too() -> None:
    """Row 6 for a subject, of whom several values are known at once: what is unreadable beside them leaves all unknown."""
    member = Operand("urn:x:member", "member", "成员", "term", "subject", frozenset({"isNoneOf"}), "claims", "verified")
    options = Options(profiles=(Profile("x", operands=(member,)),))
    found = load(offer(rule(leaf("urn:x:member", "isNoneOf", ["banned"]), action="odrl:read")), options=options)
    asked = Request(PARTIES[0], "odrl:read")
    for told, expected in ((("partner",), "permit"), (("partner", "banned"), "deny"), ((), "deny"), (("partner", None), "deny")):
        assert evaluate(found, asked, World(NOW, {"urn:x:member": told}), options=options).result == expected
    assert evaluate(found, replace(asked, stage="catalog"), World(NOW), options=options).result == "unknown"


def test_a_count_before_the_use_includes_the_use_itself() -> None:
    """odrl.md 1.7: `lteq 10` are ten uses, `lt 10` nine; counting only earlier uses would let eleven through."""
    for operator, uses in (("lteq", 10), ("lt", 9), ("eq", None)):
        found = policy(rule(leaf("odrl:count", operator, "10")))
        allowed = [used for used in range(13) if result(found, now=World(NOW, used={COUNT: used})) == "permit"]
        assert allowed == (list(range(uses)) if uses is not None else [9])
    assert evaluate(policy(rule(leaf("odrl:count", "lteq", "1"))), request(), World(NOW, used={COUNT: 1})).code == Code.QUOTA_EXHAUSTED
