"""Provider and consumer over a line that loses, repeats and reorders, with crashes between any two writes: both end with equal counts,
nothing is billed that was not verified, nothing is billed twice, and no more than the credit is ever open."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connector.dsp.messages import Role
from connector.metering.chain import Outcome, acked, answer
from connector.metering.chain_consumer import issued, judge_ack, restored
from connector.metering.counts import Counts
from connector.metering.credit import allowance, open_to
from connector.metering.ranges import Ranges, covers, union, without
from connector.records.metering import Metered
from connector.values import replace
from tests.metering.rig import CONSUMER, LAYOUT, MANIFEST, NOW, PROVIDER, STRANGER, account, judged, log, proven, receipt, signed

MEASURE = log().measure
assert LAYOUT.size_bytes > 2 * MANIFEST.credit_bytes  # so that a transfer needs several receipts
LEAVES = LAYOUT.leaves
PLACES = st.integers(1, LEAVES)


class Line(RuleBasedStateMachine):
    """Two durable accounts, what is only in memory beside them, and messages that may be delivered at any time or never."""

    receipts: Bundle[str] = Bundle("receipts")
    acks: Bundle[str] = Bundle("acks")

    @initialize()
    def begin(self) -> None:
        self.provider: Metered = account(Role.PROVIDER)
        self.consumer: Metered = account(Role.CONSUMER)
        self.sent: Ranges = ()  # by this life of the provider's process
        self.verified: Ranges = ()  # on the consumer's disk
        self.ever: Ranges = ()  # was verified at some time
        self.bytes_on_wire = 0
        self.calls = 0

    # data

    @rule(first=PLACES, many=st.integers(1, 24), arrived=st.integers(0, 24))
    def a_range_is_fetched_and_perhaps_cut(self, first: int, many: int, arrived: int) -> None:
        """Fetched again as it comes: nobody looks at what was fetched before."""
        last = min(first + many, LEAVES)
        allowed = allowance(self.provider.credit_bytes, MEASURE, self.provider.ranges, self.sent, first, last)
        self.sent = union(self.sent, ((first, first + allowed),))
        got = ((first, first + min(arrived, allowed)),)
        self.calls += 1
        self.bytes_on_wire += MEASURE(union(got)).bytes
        self.verified, self.ever = union(self.verified, got), union(self.ever, got)

    # messages

    @precondition(lambda self: bool(self.consumer.ack or not self.consumer.receipt) and self.consumer.status != "complete")
    @rule(target=receipts, aborts=st.booleans(), stored_only=st.booleans())
    def a_receipt_is_signed(self, aborts: bool, stored_only: bool) -> str:
        state = "aborted" if aborts else "complete" if union(self.verified, self.consumer.ranges) == LAYOUT.whole else "partial"
        token = signed(receipt(self.consumer, self.verified, state=state, id=f"{self.consumer.sequence}-{self.calls}"))
        self.consumer = issued(self.consumer, token)  # a crash after this write: the receipt is there and was not sent
        return "" if stored_only else token

    @precondition(lambda self: self.consumer.receipt and not self.consumer.ack)
    @rule(target=receipts)
    def the_receipt_is_sent_again(self) -> str:
        return self.consumer.receipt

    @rule(target=acks, token=receipts, crash=st.sampled_from(["no", "before the ack", "after the ack"]))
    def a_receipt_arrives(self, token: str, crash: str) -> str:
        return self._provider_takes(token, crash)

    @rule(target=acks, token=consumes(receipts))
    def a_receipt_arrives_for_the_last_time(self, token: str) -> str:
        return self._provider_takes(token, "no")

    def _provider_takes(self, token: str, crash: str) -> str:
        if not token:
            return ""
        verdict = judged(self.provider, token)
        assert verdict.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.STALE), verdict
        if verdict.outcome is not Outcome.ACCEPTED:
            assert verdict.account is self.provider
        self.provider = verdict.account
        if crash == "before the ack":
            self.sent = ()
            return ""
        if verdict.outcome is Outcome.STALE:
            return verdict.ack
        if not self.provider.ack:
            self.provider = acked(self.provider, signed(answer(self.provider, now=NOW, index=self.provider.sequence)))
        if crash == "after the ack":
            self.sent = ()
            return ""
        return self.provider.ack

    @rule(token=acks)
    def an_ack_arrives(self, token: str) -> None:
        if token:
            verdict = judge_ack(self.consumer, token, proven=proven(PROVIDER), now=NOW)
            assert verdict.outcome is not Outcome.CONFLICT
            self.consumer = verdict.account

    @rule(token=receipts, by=st.sampled_from([PROVIDER, STRANGER]), cut=st.integers(1, 100))
    def something_forged_arrives(self, token: str, by: str, cut: int) -> None:
        for forged in (signed(receipt(replace(self.consumer, ack="x", status="open"), LAYOUT.whole), by=by), token[:-cut]):
            verdict = judged(self.provider, forged)
            assert (verdict.outcome, verdict.account is self.provider) == (Outcome.REFUSED, True)
            got = judge_ack(self.consumer, forged, proven=proven(PROVIDER), now=NOW)
            assert (got.outcome, got.account is self.consumer) == (Outcome.REFUSED, True)

    # crashes

    @rule()
    def the_provider_restarts(self) -> None:
        self.sent = ()

    @rule(kept=st.integers(0, 10))
    def the_consumer_loses_what_was_not_durable(self, kept: int) -> None:
        self.verified = self.verified[:kept]

    @precondition(lambda self: self.consumer.receipt == self.provider.receipt and self.provider.receipt)
    @rule()
    def the_consumer_loses_its_disk(self) -> None:
        """All of it; it takes up what the provider has kept. Only then is no receipt under way that it would not know of."""
        self.verified = ()
        lost = account(Role.CONSUMER)
        self.consumer = restored(lost, self.provider.receipt, self.provider.ack, own=proven(CONSUMER), proven=proven(PROVIDER), now=NOW)

    # what always holds

    @invariant()
    def nothing_is_billed_but_what_was_verified_and_that_once(self) -> None:
        for side in (self.provider, self.consumer):
            assert covers(self.ever, side.ranges)
            assert side.counts.bytes == MEASURE(side.ranges).bytes <= MEASURE(self.ever).bytes <= LAYOUT.size_bytes
        assert self.provider.counts.within(self.consumer.counts)
        assert self.provider.counts.bytes <= self.bytes_on_wire

    @invariant()
    def the_consumer_is_at_most_one_receipt_ahead(self) -> None:
        assert self.consumer.sequence - self.provider.sequence in (0, 1)
        assert self.provider.status != "disputed"
        if self.consumer.sequence == self.provider.sequence:
            assert (self.consumer.receipt, self.consumer.ranges, self.consumer.counts) == (
                self.provider.receipt,
                self.provider.ranges,
                self.provider.counts,
            )

    @invariant()
    def no_more_than_the_credit_is_open(self) -> None:
        assert MEASURE(open_to(self.provider.ranges, self.sent)).bytes <= MANIFEST.credit_bytes
        assert self.provider.sequence or not self.sent

    def teardown(self) -> None:
        """The line is good again: the transfer goes to its end, and both have the same."""
        if not hasattr(self, "provider"):
            return
        for _ in range(2 * LEAVES):
            if self.consumer.receipt and not self.consumer.ack:
                self.an_ack_arrives(self._provider_takes(self.consumer.receipt, "no"))
            if self.consumer.status == "complete":
                break
            missing = without(LAYOUT.whole, union(self.verified, self.consumer.ranges))
            for first, last in (*open_to(self.provider.ranges, self.sent), *missing):
                self.a_range_is_fetched_and_perhaps_cut(first, last - first, last - first)
            self.a_receipt_is_signed(aborts=False, stored_only=True)
        assert self.provider.status == self.consumer.status == "complete"
        assert self.provider.counts == self.consumer.counts
        assert self.provider.counts == Counts(LAYOUT.size_bytes, 0, 1, 1)
        assert self.provider.receipt == self.consumer.receipt
        assert self.provider.ack == self.consumer.ack
        self.nothing_is_billed_but_what_was_verified_and_that_once()


Line.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TestLine = Line.TestCase


@pytest.mark.slow
def test_a_campaign_of_long_runs():
    run_state_machine_as_test(Line, settings=settings(Line.TestCase.settings, max_examples=80, stateful_step_count=80))
