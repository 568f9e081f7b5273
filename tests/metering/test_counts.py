from connector.metering.counts import COUNTS, NOTHING, Counts, counts_of, total


def test_counts_add_and_compare_member_by_member():
    one, other = Counts(1, 2, 3, 4, 5), Counts(10, 20, 30, 40, 50)
    assert one + other == total([one, other]) == Counts(11, 22, 33, 44, 55)
    assert total([]) == NOTHING
    assert one.within(other)
    assert not Counts(11, 0, 0, 0, 0).within(other)
    assert not Counts(0, 0, 0, 0, 51).within(other)


def test_counts_come_back_from_their_claims():
    counts = Counts(1, 2, 3, 4, 5)
    assert counts.claims() == {"bytes": 1, "records": 2, "items": 3, "calls": 4, "us": 5}
    assert counts.claims().keys() == COUNTS.keys()
    assert counts_of(counts.claims()) == counts
