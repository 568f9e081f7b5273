"""The engine against the naive evaluator: the same result for whatever chance draws."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.odrl import load
from connector.odrl.evaluation import decide
from connector.odrl.model import Constraint, Rule, constraints_of
from tests.odrl import naive, naive_duties
from tests.odrl.drawn import CONCEPTS, OPTIONS, ORDERS, Drawing, as_request, as_world, with_payments_as_conditions
from tests.odrl.naive import USAGE

TRIPLES, PER_POLICY = 20_000, 8
PERMITS = frozenset({"permit", "permit-with"})
Json = dict[str, Any]


def agreed(seed: int, triples: int, *, plain: bool = True) -> Iterator[str]:
    """The results of so many requests in as many worlds under the policy of a seed, on which both sides have to agree."""
    chance = Random(seed)
    drawing, key = Drawing(chance, plain), chance.choice(list(OPTIONS))
    document = drawing.policy()
    policy = load(with_payments_as_conditions(document, chance), options=OPTIONS[key])
    for number in range(triples):
        asked, world = drawing.asked(), drawing.world()
        result = naive.decide(document, asked, world, *key, naive.state if plain else naive_duties.state)
        decision = decide(policy, as_request(asked, chance), as_world(world), OPTIONS[key])
        assert decision.result == result, f"seed {seed}, {number}: {decision.reason('full')}"
        yield result


@pytest.mark.slow
def test_the_engine_agrees_with_a_naive_evaluator_on_twenty_thousand_policies_requests_and_worlds() -> None:
    found = Counter(result for seed in range(TRIPLES // PER_POLICY) for result in agreed(seed, PER_POLICY))
    assert found.total() == TRIPLES
    assert sum(found[result] for result in PERMITS) >= 0.3 * TRIPLES, found
    assert min(found[result] for result in ("permit-with", "unknown")) > 0.01 * TRIPLES, found


def test_it_agrees_too_where_duties_say_all_that_they_can_of_their_time() -> None:
    found = Counter(result for seed in range(300) for result in agreed(seed, PER_POLICY, plain=False))
    assert found["permit-with"] > 0.05 * found.total(), found


def test_the_naive_evaluator_is_read_in_one_sitting_and_knows_nothing_of_the_engine() -> None:
    text = Path(naive.__file__).read_text()
    assert len(text.splitlines()) <= 200
    assert "import connector" not in text
    assert "from connector" not in text


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False], ids=["plain duties", "all duties"])
def test_it_agrees_on_a_new_policy_for_each_request(plain: bool) -> None:
    found = Counter(result for seed in range(10_000, 11_500) for result in agreed(seed, 1, plain=plain))
    assert sum(found[result] for result in PERMITS) >= 0.3 * found.total(), found


@settings(max_examples=100)
@given(st.integers(10**6, 2**64))
def test_it_agrees_wherever_hypothesis_looks(seed: int) -> None:
    assert list(agreed(seed, 2))


def rules_below(rules: tuple[Rule, ...]) -> Iterator[Rule]:
    for rule in rules:
        yield rule
        yield from rules_below(rule.duties)


def test_what_is_drawn_has_everything_that_a_policy_can_have() -> None:
    """A campaign proves nothing about what it does not meet."""
    seen: Counter[str] = Counter()
    for seed in range(600):
        chance = Random(seed)
        drawing = Drawing(chance)
        document = drawing.policy()
        policy = load(document, options=OPTIONS["prohibit", True])
        seen.update({policy.kind, f"conflict {policy.conflict}", "assignees" * bool(policy.assignees)})
        for leaf in constraints_of(policy):
            assert isinstance(leaf, Constraint)
            seen.update({leaf.operand.rpartition("/")[2], leaf.operator, "unit" * bool(leaf.unit)})
        for rule in rules_below(policy.rules):
            scopes = (*rule.targets, *rule.assignees)
            seen.update({rule.kind, rule.when, "several actions" * (len(rule.actions) > 1)})
            seen.update({"collection" * scope.collection for scope in scopes})
            seen.update({"chosen members" * bool(scope.refinements) for scope in scopes})
            seen.update({"refined action" * bool(action.refinements) for action in rule.actions})
        text = repr(document)
        seen.update({kind for kind in ("'and'", "'or'", "'xone'", "'andSequence'", "'odrl:status'", "'status'") if kind in text})
        asked, world = drawing.asked(), drawing.world()
        seen.update({asked["stage"], "several values" * any(len(asked[name]) > 1 for name in USAGE), "log" * bool(world["log"])})
        seen.update({"used up by a rule" * isinstance(key, tuple) for key in world["used"]} | {"anchor" * bool(world["anchors"])})
    wanted = {
        "permission", "prohibition", "obligation", "duty", "remedy", "consequence", "pre", "with", "post", "Set", "Offer", "assignees",
        "conflict permit", "conflict prohibit", "unit", "several actions", "collection", "chosen members", "refined action", "'and'",
        "'or'", "'xone'", "'andSequence'", "'odrl:status'", "'status'", "several values", "log", "used up by a rule", "anchor", "catalog",
        "negotiation", "transfer", "dateTime", "purpose", "spatial", "count", "payAmount", "meteredTime", "elapsedTime", "timeInterval",
        "delayPeriod", "resolution", "urn:qiao:participant", "ns#member",
        *({*CONCEPTS, *ORDERS} - {"isAllOf"}),  # `isAllOf` of what has an order becomes a conjunction; of terms it is itself
    }  # fmt: skip
    assert {word for word in wanted if seen[word] < 5} == set()


def test_a_difference_would_be_seen() -> None:
    """Each clause that is taken out of the naive evaluator shows within the first policies."""
    broken: dict[tuple[Any, str], Any] = {
        (naive, "parts"): lambda rule, policy, act, world: [[[]]],  # whoever does whatever with whatever
        (naive, "state"): lambda duty, path, chain, facts, world: "fulfilled",
        (naive, "performs"): lambda event, duty, path, chain, world: True,
        (naive, "in_order"): lambda node, facts, world: [naive.YES],
        (naive, "later"): lambda start, written: start,
        (naive, "stretch"): lambda written: (naive.NEVER, naive.NEVER),
        (naive, "judged"): lambda rule, policy, asked, facts, world, closed: naive.YES,
        (naive_duties, "until"): lambda node, facts, world: None,
        (naive_duties, "performs"): lambda event, duty, path, chain, world: True,
    }
    for (module, name), instead in broken.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, instead)
            with pytest.raises(AssertionError, match="seed"):
                [list(agreed(seed, PER_POLICY, plain=module is naive)) for seed in range(200)]
