"""The parties of an agreement: a file of the consumer is as good as one of the provider, and old refusals have no policy."""

from typing import Any

import pytest

from connector.values import replace
from tests.evidence.rig import CONSUMER, SOUND, TRANSFER, Story, decision


def test_a_decision_for_which_no_policy_was_needed_is_one():
    draft = SOUND.copy()
    refusal: dict[str, Any] = {"result": "deny", "code": "AGREEMENT_CLOSED", "stage": "transfer", "reason": ["the agreement was closed"]}
    draft.one("decision", 1)["document"] = refusal
    assert draft.codes() == {"decision-digest"}, "it is not the one that the ledger holds, and nothing else is wrong with it"


def test_the_negotiation_may_have_judged_the_offer_or_the_agreement():
    draft = SOUND.copy()
    draft.one("decision")["document"] = draft.one("decision", 1)["document"]
    assert draft.codes() == {"decision-digest"}
    draft.one("decision", 1)["document"] = decision("urn:uuid:offer")
    assert draft.codes() == {"decision-digest", "decision-policy"}, "a transfer runs under the agreement alone"


def test_a_process_that_is_not_stored_any_more_is_not_missed():
    draft = SOUND.copy()
    draft.drop("negotiation")
    draft.drop("decision")
    draft.one("transfer").update(state=None, created=None)
    assert draft.codes() == set()


@pytest.mark.parametrize("state", ["VERIFIED", "FINALIZED"])
def test_an_agreement_is_final_for_its_provider_before_the_consumer_has_heard_it(state: str):
    draft = Story(finalized=state).draft()
    draft.one("negotiation")["state"] = state
    assert draft.codes() == set()


def test_pids_are_those_of_the_side_that_exports():
    draft = SOUND.copy()
    draft.one("transfer").update(consumerPid=TRANSFER, providerPid="urn:uuid:x")
    assert "transfer-pids" in draft.codes()
    assert "manifest-audience" in Story({"manifest": lambda each: replace(each, audience=CONSUMER + "x")}).draft().codes()
