"""Which duty covers which: one row for each way in which it can."""

from typing import Any

import pytest

from connector.odrl import load
from connector.odrl.registry import registry_of
from connector.odrl_compare.boxes import Work
from connector.odrl_compare.covering import all_covered, clears, covers, described, idle, spared
from connector.odrl_compare.regions import Reader
from tests.odrl.cases import leaf, offer, purpose, rule, time
from tests.odrl_compare.cases import EUR, OPTIONS, USD


def reader() -> Reader:
    return Reader(registry_of(OPTIONS), Work(), {})


def duty(action: Any = "odrl:inform", *constraints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"action": action, **({"constraint": list(constraints)} if constraints else {}), **more}


def of(document: dict[str, Any]):
    return load(offer(rule(duty=[document])), options=OPTIONS).permissions[0].duties[0]


def paying(operator: str, value: str, unit: str = EUR) -> dict[str, Any]:
    return leaf("odrl:payAmount", operator, {"@value": value, "@type": "xsd:decimal"}) | {"odrl:unit": unit}


def within(length: str) -> dict[str, Any]:
    return leaf("odrl:delayPeriod", "lteq", length)


def after_use(*constraints: dict[str, Any]) -> dict[str, Any]:
    return duty("odrl:delete", leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"}), *constraints)


def refined(action: str, *constraints: dict[str, Any]) -> dict[str, Any]:
    return duty({"rdf:value": {"@id": action}, "odrl:refinement": list(constraints)})


@pytest.mark.parametrize(
    ("one", "other", "there", "back"),
    [
        (duty(), duty(), "yes", "yes"),
        (duty("odrl:inform"), duty("odrl:delete"), "no", "no"),
        (duty("odrl:display"), duty("odrl:play"), "yes", "no"),
        (duty(target="urn:d"), duty(), "yes", "no"),
        (duty(assignee="did:web:x"), duty(assignee="did:web:y"), "no", "no"),
        (duty(**{"odrl:informedParty": "did:web:x"}), duty(), "yes", "no"),
        # deadlines
        (duty("odrl:inform", time("lteq", "2026-06-01Z")), duty("odrl:inform", time("lteq", "2026-07-01Z")), "yes", "no"),
        (duty("odrl:inform", time("lteq", "2026-06-01Z")), duty(), "yes", "no"),
        (after_use(within("P10D")), after_use(within("P30D")), "yes", "no"),
        (after_use(within("P30D")), after_use(within("P1M")), "unknown", "unknown"),
        (after_use(within("P28D")), after_use(within("P1M")), "yes", "unknown"),
        (after_use(within("P2M")), after_use(within("P30D")), "no", "yes"),
        (after_use(within("P1D")), after_use(time("lteq", "2026-07-01Z")), "unknown", "unknown"),
        # amounts: who has paid at least 10 has paid at least 5, and not exactly 5
        (duty("odrl:compensate", paying("gteq", "10")), duty("odrl:compensate", paying("gteq", "5")), "yes", "no"),
        (duty("odrl:compensate", paying("eq", "10")), duty("odrl:compensate", paying("gteq", "5")), "yes", "no"),
        (duty("odrl:compensate", paying("eq", "10")), duty("odrl:compensate", paying("eq", "5")), "no", "no"),
        # of a duty that is none to pay, an amount is a condition: what is due at more amounts is due more often
        (duty("odrl:inform", paying("gteq", "5")), duty("odrl:inform", paying("gteq", "10")), "yes", "no"),
        (duty("odrl:compensate", paying("eq", "5")), duty("odrl:compensate", paying("eq", "5", USD)), "unknown", "unknown"),
        (duty("odrl:compensate", paying("eq", "5")), duty("odrl:compensate"), "yes", "no"),
        # conditions: what is due more often covers
        (duty(), duty("odrl:inform", purpose("eq", "a")), "yes", "no"),
        (duty("odrl:inform", purpose("isAnyOf", ["a", "b"])), duty("odrl:inform", purpose("eq", "a")), "yes", "no"),
        # refinements: what is done more narrowly covers
        (refined("odrl:compensate", paying("gteq", "10")), refined("odrl:compensate", paying("gteq", "5")), "yes", "no"),
        (refined("odrl:compensate", paying("eq", "10")), duty("odrl:compensate"), "yes", "no"),
        # consequences
        (after_use(within("P1D")) | {"odrl:consequence": [duty("odrl:compensate")]}, after_use(within("P1D")), "yes", "no"),
        # before the use is not after it
        (duty("odrl:delete", leaf("odrl:event", "lt", {"@id": "odrl:policyUsage"})), after_use(), "no", "no"),
    ],
)  # fmt: skip
def test_a_duty_covers_another(one: dict[str, Any], other: dict[str, Any], there: str, back: str):
    assert covers(reader(), of(one), of(other)) == there
    assert covers(reader(), of(other), of(one)) == back


def test_each_of_the_others_is_covered_by_one_of_ours():
    ours, theirs = (of(duty("odrl:inform")), of(duty("odrl:delete"))), (of(duty("odrl:delete")), of(duty("odrl:compensate")))
    assert all_covered(reader(), ours, theirs[:1]) == ("yes", None)
    assert all_covered(reader(), ours, theirs) == ("no", theirs[1])
    assert all_covered(reader(), (), ()) == ("yes", None)


def test_nothing_more_is_owed_where_no_duty_is_due():
    surely, perhaps = spared(reader(), (), (of(duty("odrl:inform", purpose("eq", "a"))),))
    assert surely == perhaps
    assert [box["http://www.w3.org/ns/odrl/2/purpose"].negated for box in surely or []] == [True]
    assert idle(reader(), of(duty("odrl:inform", purpose("eq", "a")))) == surely
    assert idle(reader(), of(duty())) == []
    assert spared(reader(), (of(duty()),), (of(duty()),)) == (None, None)
    assert spared(reader(), (), (of(duty()),)) == ([], [])


def test_a_prohibition_that_can_be_bought_off_is_none_that_cannot():
    def forbids(remedy: list[dict[str, Any]]):
        more = {"odrl:remedy": remedy} if remedy else {}
        return load(offer(rule(), prohibitions=(rule(action="odrl:sell", **more),)), options=OPTIONS)

    never, cheap, dear = forbids([]), forbids([duty("odrl:inform")]), forbids([duty("odrl:inform"), duty("odrl:compensate")])
    assert clears(reader(), never, cheap) == ("yes", None)
    assert clears(reader(), cheap, never)[0] == "no"
    assert clears(reader(), cheap, dear)[0] == "no"
    assert clears(reader(), dear, cheap) == ("yes", None)


def test_a_duty_in_words():
    assert described(of(duty("odrl:delete"))) == "the duty to odrl:delete"


def test_a_duty_of_two_actions_is_two_duties():
    def read(action: Any) -> Any:
        return load(offer(rule(duty=[duty(action)]))).permissions[0].duties[0]

    both, one, two = read(["odrl:delete", "odrl:inform"]), read("odrl:delete"), read("odrl:inform")
    assert [covers(reader(), *pair) for pair in ((both, one), (both, two), (one, both), (both, both))] == ["yes", "yes", "no", "yes"]
    assert all_covered(reader(), (one, two), (both,)) == ("yes", None)
    assert all_covered(reader(), (one,), (both,))[0] == "no"


def test_a_choice_between_deadlines_is_kept_for_certain_only_by_the_same():
    def until(*days: str) -> Any:
        return load(offer(rule(duty=[duty("odrl:inform", {"or": [time("lteq", day) for day in days]})]))).permissions[0].duties[0]

    early, late = until("2026-01-01Z", "2026-02-01Z"), until("2026-03-01Z", "2026-04-01Z")
    assert [covers(reader(), *pair) for pair in ((early, early), (late, early), (early, late))] == ["yes", "unknown", "unknown"]
