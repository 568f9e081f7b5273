from connector.control_billing.measured import used_of
from connector.odrl.counters import Tally
from connector.odrl.operands import BYTE_COUNT, COUNT, METERED_TIME
from connector.records import Usage


def test_what_was_used_so_far_is_within_a_quota_that_is_just_used_up_and_more_is_not():
    tallies = tuple(Tally("/permission/0", operand, (10,)) for operand in (COUNT, BYTE_COUNT, METERED_TIME))
    usage = Usage("urn:a", tuple(("/permission/0", operand, 10) for operand in (BYTE_COUNT, COUNT, METERED_TIME)))
    rule = "/permission/0"
    assert used_of(usage, tallies, (rule,), "text/csv", True) == {(rule, COUNT): 9, (rule, BYTE_COUNT): 10, (rule, METERED_TIME): 11}
    assert used_of(usage, tallies, (rule,), "text/csv", False) == {(rule, COUNT): 9, (rule, BYTE_COUNT): 9, (rule, METERED_TIME): 10}
    assert used_of(Usage("urn:a"), tallies, (), "text/csv", False)[rule, BYTE_COUNT] == 0
