from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from connector.control_billing.measured import MEASURED, counters, demand_measured, measuring, unused, used_of, used_up
from connector.errors import PolicyError
from connector.metering_bills.budgets import tallies
from connector.metering_bills.currencies import CURRENCY
from connector.odrl import Code, Operand, Options, Policy, load
from connector.odrl.counters import Tally
from connector.odrl.operands import BYTE_COUNT, CORE_OPERANDS, COUNT, METERED_TIME, PARTICIPANT, PAY_AMOUNT, PERCENTAGE, TIME_INTERVAL
from connector.odrl.vocabulary import ODRL
from connector.records import Reservation, Usage
from tests.control_billing.test_affording import Log
from tests.metering_bills.priced import agreement, count, money, price
from tests.odrl_forms.shipped import options


def test_what_was_used_so_far_is_within_a_quota_that_is_just_used_up_and_more_is_not():
    tallies = tuple(Tally("/permission/0", operand, (10,)) for operand in (COUNT, BYTE_COUNT, METERED_TIME))
    usage = Usage("urn:a", tuple(("/permission/0", operand, 10) for operand in (BYTE_COUNT, COUNT, METERED_TIME)))
    rule = "/permission/0"
    assert used_of(usage, tallies, (rule,), "text/csv", True) == {(rule, COUNT): 9, (rule, BYTE_COUNT): 10, (rule, METERED_TIME): 11}
    assert used_of(usage, tallies, (rule,), "text/csv", False) == {(rule, COUNT): 9, (rule, BYTE_COUNT): 9, (rule, METERED_TIME): 10}
    assert used_of(Usage("urn:a"), tallies, (), "text/csv", False)[rule, BYTE_COUNT] == 0


EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"
RULE = "/permission/0"


def budget(*duties: dict[str, Any], limit: str = "5") -> Policy:
    document = agreement(*duties)
    document["permission"][0]["constraint"] = [money(limit, operator="lteq"), count("lteq", 3)]
    return load(document, options=options())


def test_what_a_use_costs_is_told_as_money_with_what_is_paid_once():
    policy = budget(price("0.02", "record"), price("1", "subscription"))
    usage = Usage("urn:a", ((RULE, EUR, 100), (RULE, COUNT, 2)), (Reservation("r", "t", RULE, EUR, 25, 0.0),))
    assert counters(policy, usage) == [
        {"rule": RULE, "operand": PAY_AMOUNT, "used": "3.00", "reserved": "0.50", "limit": "5.00", "currency": "EUR"},
        {"rule": RULE, "operand": COUNT, "used": 2, "reserved": 0, "limit": 3},
    ]
    assert unused(policy) == {(RULE, EUR): 1, (RULE, COUNT): 0}
    found = tallies(policy)
    assert used_of(usage, found, (), "application/x-ndjson", True)[RULE, EUR] == Fraction(302, 100), "with one record more"
    assert used_of(usage, found, (), "application/x-ndjson", False)[RULE, EUR] == 3


@pytest.mark.parametrize(("spent", "full"), [(0, ()), (497, ()), (498, (PAY_AMOUNT,)), (500, (PAY_AMOUNT,))])
def test_a_budget_is_used_up_when_one_use_more_would_cost_more(spent: int, full: tuple[str, ...]):
    policy = budget(price("0.02", "record"), price("0.01", "call"))
    assert used_up(policy, Usage("urn:a", ((RULE, EUR, spent),))) == full
    assert used_up(policy, Usage("urn:a", ((RULE, COUNT, 3),))) == (COUNT,)


def test_a_budget_is_used_up_when_it_does_not_pay_for_all_of_the_data_any_more():
    policy, whole = budget(price("0.02", "record")), Log()
    assert used_up(policy, Usage("urn:a", ((RULE, EUR, 210),)), whole) == ()
    assert used_up(policy, Usage("urn:a", ((RULE, EUR, 211),)), whole) == (PAY_AMOUNT,)
    assert used_up(policy, Usage("urn:a", ((RULE, EUR, 211),))) == (), "of data that have no end some more is to be had"


def test_budgets_with_prices_are_measured_and_others_are_not():
    own = Options(profiles=options().profiles, measured=MEASURED)
    assert measuring(budget(price("1", "record")), own).measured == MEASURED | {EUR}
    assert measuring(budget(), own) is own
    assert measuring(budget(price("1", "record")), options()).measured is None, "nobody asks who measures"


def test_events_have_a_price_where_they_are_counted_and_not_in_a_file_whose_leaves_do_not_say_where_they_end():
    policy = budget(price("1", "record"))
    demand_measured(policy, "text/event-stream", counted=True)
    says = ("does not end with one empty line", "streams of events only")
    for media_type, counted, said in (("text/event-stream", False, says[0]), ("application/pdf", True, says[1])):
        with pytest.raises(PolicyError, match="does not measure") as caught:
            demand_measured(policy, media_type, counted=counted)
        assert said in caught.value.findings[0].message


RIGHT = {
    "instant": {"@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime"},
    "duration": {"@value": "P30D", "@type": "xsd:duration"},
    "number": {"@value": "50", "@type": "xsd:integer"},
    "term": "x",
    "event": {"@id": "urn:event:fair"},
}
REFUSED = {PAY_AMOUNT: "the policy has no prices", PERCENTAGE: "of what it is a share", TIME_INTERVAL: "nobody keeps when"}


@pytest.mark.parametrize("row", CORE_OPERANDS, ids=lambda row: row.label)
def test_of_the_left_operands_of_the_core_those_that_nobody_here_can_know_are_refused_with_why_and_what_instead(row: Operand):
    leaf = {"leftOperand": row.iri, "operator": "eq", "rightOperand": RIGHT[row.values]}
    policy = load({"@type": "Offer", "@id": "urn:o", "permission": [{"action": "use", "constraint": [leaf]}]})
    if row.iri not in REFUSED:
        demand_measured(policy, "application/x-ndjson", counted=True)
        return
    with pytest.raises(PolicyError) as caught:
        demand_measured(policy, "application/x-ndjson", counted=True)
    (finding,) = caught.value.findings
    assert (finding.code, finding.path) == (Code.OPERAND_UNSUPPORTED, "/permission/0/constraint/0/leftOperand")
    assert REFUSED[row.iri] in finding.message
    assert finding.fix


def test_a_table_says_of_every_left_operand_of_the_core_who_knows_it():
    text = (Path(__file__).parents[2] / "policies" / "README.md").read_text()
    table = text[text.index("## Who knows a left operand") : text.index("All of them can be read, compared")]
    positions = {
        f"{start}{kind}" for start in ("absolute", "relative") for kind in ("Position", "SpatialPosition", "TemporalPosition", "Size")
    }
    named = {row.iri.removeprefix(ODRL) for row in CORE_OPERANDS} - positions - {PARTICIPANT}
    assert {name for name in named if f"`{name}`" not in table} == set()
