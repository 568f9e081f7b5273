"""What is dated once, whatever is done to the clock."""

from connector.metering.dating import BELIEVED_SECONDS, Dating


class Clocks:
    """The one on the wall and the machine's own."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 5.0
        self.dating = Dating(lambda: self.wall, lambda: self.steady)

    def passes(self, seconds: float) -> float:
        self.wall += seconds
        self.steady += seconds
        return self.dating.now()


def test_it_is_the_clock_on_the_wall_that_counts_and_no_hour_by_which_it_was_set_ahead():
    at = Clocks()
    assert at.passes(100.0) == 1_000_100.0
    at.wall += 10.0
    assert at.passes(0.0) == 1_000_110.0, "that is no more than any clock may be wrong"
    at.wall += 3600.0
    assert at.passes(60.0) == 1_000_160.0
    at.wall -= 3600.0
    assert at.passes(0.0) == at.wall
    at.wall -= 3600.0
    assert at.passes(0.0) == at.wall, "nothing is dated ahead of any clock"


def test_a_clock_that_the_other_side_bears_out_counts_again_and_one_that_it_does_not_never():
    at = Clocks()
    at.wall += 28_800.0  # a machine that has slept
    at.dating.agreed(at.wall - 3600.0)
    assert at.passes(1.0) == 1_000_001.0
    at.dating.agreed(at.wall - 20.0)
    assert at.passes(1.0) == 1_028_802.0


def test_a_clock_that_stays_ahead_counts_after_a_day_as_nobody_may_bear_it_out_after_a_sleep_of_both_sides():
    at = Clocks()
    at.wall += 28_800.0
    assert at.passes(1.0) == 1_000_001.0
    assert at.passes(BELIEVED_SECONDS - 1.0) == at.wall - 28_800.0
    assert at.passes(1.0) == at.wall
    at.wall += 3600.0
    assert at.passes(60.0) == at.wall - 3600.0, "that was the one before"
    at.wall -= 3600.0
    assert at.passes(BELIEVED_SECONDS) == at.wall
    at.wall += 3600.0
    assert at.passes(60.0) == at.wall - 3600.0, "it came back meanwhile: this is another one"
