"""What a witness of a lacking duty has to be: the first permits there, and no permission of the second does without something more."""

from typing import Any

import pytest

from connector.odrl import Policy, Verdict, compare
from connector.odrl.registry import registry_of
from connector.odrl_compare.boxes import TooComplex, Work
from connector.odrl_compare.comparing import Comparison
from connector.odrl_compare.lacking import SEARCH_STEPS, Lack, acts, shown_by
from connector.odrl_compare.regions import Reader
from tests.odrl.cases import leaf, offer, purpose, rule
from tests.odrl_compare.cases import EUR, OPTIONS, read, separates

AFTER_USE = leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"})
PAID, TOLD, CONSENTED, DELETED = ({"action": f"odrl:{name}"} for name in ("compensate", "inform", "obtainConsent", "delete"))


def asking(*duties: dict[str, Any], action: str = "use", where: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return rule(*where, action=action, **({"duty": list(duties)} if duties else {}))


def paying(operator: str, value: str) -> dict[str, Any]:
    amount = leaf("odrl:payAmount", operator, {"@value": value, "@type": "xsd:decimal"}) | {"odrl:unit": EUR}
    return {"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [amount]}}


def compared(one: list[dict[str, Any]], other: list[dict[str, Any]], **more: Any) -> tuple[Policy, Policy, Verdict]:
    first, second = read(offer(*one)), read(offer(*other, **more))
    return first, second, compare(first, second, options=OPTIONS)


def where(duty: dict[str, Any], *constraints: dict[str, Any]) -> dict[str, Any]:
    return {**duty, "constraint": list(constraints)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # what is not due there is not done there: it is what another permission of the second waits for
        ([asking(where(PAID, purpose("eq", "urn:t:marketing")))], [asking(TOLD), asking(PAID)]),
        # nor is what may be done after the use
        ([asking(TOLD, where(CONSENTED, AFTER_USE), action="odrl:play")], [asking(DELETED), asking(CONSENTED)]),
        # of what may be paid an amount is, that no permission of the second waits for
        ([asking(paying("gteq", "0"))], [asking(CONSENTED), asking(paying("lteq", "1"))]),
        # who knows that a duty was done would know of an amount that nobody states
        (
            [asking(where(PAID, purpose("eq", "urn:t:marketing")))],
            [asking(where=(leaf("odrl:payAmount", "gteq", {"@value": "0"}) | {"odrl:unit": EUR},)), asking(TOLD)],
        ),
        # what is done and is a use begins no time for the rest
        (
            [asking({"action": "odrl:display"}, where(PAID, leaf("odrl:elapsedTime", "lt", "PT0S")), action="odrl:display")],
            [asking(CONSENTED)],
        ),
        # and of a duty of two actions both are done
        ([asking({"action": ["odrl:obtainConsent", "odrl:compensate"]})], [asking({"action": "odrl:reviewPolicy"})]),
    ],
)
def test_where_a_duty_is_lacking_a_state_of_the_world_separates_the_two(one: list[dict[str, Any]], other: list[dict[str, Any]]):
    first, second, verdict = compared(one, other)
    assert verdict.refines == "no"
    assert separates(first, second, verdict, "refines")


def test_no_state_of_the_world_shows_it_where_one_permission_asks_for_the_same_and_sooner():
    """The other lacks a notice; but who has consent may have had it by then."""
    sooner = where(CONSENTED, leaf("odrl:elapsedTime", "lt", "P1D"))
    *_, verdict = compared([asking(CONSENTED)], [asking(TOLD), asking(sooner)])
    assert verdict.refines == "unknown"
    assert verdict.reasons["refines"].startswith("only the time for it")
    *_, verdict = compared([asking(CONSENTED)], [asking(TOLD)])
    assert verdict.refines == "no"


def test_an_obligation_is_lacking_where_it_is_due():
    owed = where(TOLD, purpose("eq", "urn:t:cancer"))
    first, second, verdict = compared([asking()], [asking()], obligation=[owed])
    assert verdict.refines == "no"
    assert verdict.witnesses["refines"].values["http://www.w3.org/ns/odrl/2/purpose"] == "urn:t:cancer"
    assert separates(first, second, verdict, "refines")


def test_an_obligation_that_is_always_done_before_the_use_is_lacking_and_no_use_shows_it():
    *_, verdict = compared([asking(CONSENTED)], [asking(CONSENTED)], obligation=[CONSENTED])
    assert verdict.refines == "no"
    assert (
        verdict.reasons["refines"] == "the second asks for the obligation to odrl:obtainConsent, and the first for nothing that covers it"
    )
    assert "refines" not in verdict.witnesses


def of(*duties: dict[str, Any]) -> tuple[Any, ...]:
    return read(offer(asking(*duties))).permissions[0].duties


def test_what_comes_after_the_use_is_left_open_unless_it_may_be_late():
    reader = Reader(registry_of(OPTIONS), Work(), {})
    open_end, ends = where(CONSENTED, AFTER_USE), where(CONSENTED, AFTER_USE, leaf("odrl:delayPeriod", "lteq", "P1D"))
    assert acts(reader, of(CONSENTED), of(CONSENTED), {}) is None
    assert acts(reader, of(open_end), of(CONSENTED), {}) == ()
    assert acts(reader, of(ends), of(CONSENTED), {}) is None
    assert [duty.path for duty, _ in acts(reader, of(ends, PAID), of(DELETED), {}) or ()] == [
        "/permission/0/duty/0",
        "/permission/0/duty/1",
    ]


def test_a_search_leaves_time_for_what_else_is_asked():
    reader = Reader(registry_of(OPTIONS), Work(), {})
    before, first = reader.work.left, Lack({}, of(TOLD), None)

    def never_ends(within: Reader, *found: Lack):
        yield from found
        while True:
            within.work.spend(7)

    with pytest.raises(TooComplex):
        shown_by(reader, never_ends)
    assert shown_by(reader, lambda within: never_ends(within, first)) is first
    assert before - reader.work.left == 2 * SEARCH_STEPS
    assert shown_by(reader, lambda _: [first, first._replace(acts=())]) == first._replace(acts=())
    assert Comparison(read(offer(asking())), read(offer(asking(TOLD))), OPTIONS).refines().answer == "no"
