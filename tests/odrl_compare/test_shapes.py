from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.odrl import Options, evaluate, load
from connector.odrl.codes import Code
from connector.odrl.evaluation import under
from connector.odrl_compare.axes import ACTION, PARTY, TARGET
from connector.odrl_compare.boxes import Work
from connector.odrl_compare.comparing import Comparison
from connector.odrl_compare.shapes import KEPT_BOXES_MAX, months_of, shape_of
from tests.odrl.cases import leaf, offer, purpose, rule
from tests.odrl_compare.cases import OPTIONS, PROFILE, a_request, an_offer, holds, read, seeds


def boxes(policy, **more):
    return shape_of(policy, Work(200_000), {}, OPTIONS, **more).boxes


@settings(max_examples=150)
@given(seeds)
def test_a_request_is_permitted_in_the_shape_and_nowhere_else(chance: Random):
    policy = read(an_offer(chance, duties=False))
    found = boxes(policy)
    for _ in range(8):
        request, world = a_request(chance)
        decision = evaluate(policy, request, world, options=OPTIONS)
        head = {ACTION: policy.registry.actions[request.action], TARGET: request.target, PARTY: request.party}
        inside = any(
            all(holds(side, {**facts, **head}.get(key)) for key, side in box.items()) for facts in decision.case.atoms[:1] for box in found
        )
        if len(decision.case.atoms) == 1:
            assert inside == decision.permitted


def test_a_shape_is_kept_with_its_policy_computed_once_and_counts_each_time():
    policy = load(offer(rule(purpose("eq", "a"))), options=OPTIONS)
    first = Work()
    one = shape_of(policy, first, {}, OPTIONS)
    again = Work()
    assert shape_of(policy, again, {}, OPTIONS) is one
    assert again.left == first.left  # and counts as much
    assert again.axes.keys() == one.axes.keys()


@settings(max_examples=60)
@given(seeds, st.sampled_from((5, 10, 20, 40, 80, 160)))
def test_what_two_policies_are_to_each_other_does_not_depend_on_what_was_asked_of_them_before(chance: Random, steps: int):
    one, other = (read(an_offer(chance)) for _ in range(2))
    asked = [Comparison(*pair, OPTIONS, bare=True, steps=steps).refines().answer for pair in ((one, other), (other, one)) * 3]
    assert asked == asked[:2] * 3


def test_a_large_shape_is_not_kept():
    many = [rule(leaf("odrl:purpose", "eq", f"v{n}"), leaf("odrl:spatial", "eq", f"v{n}")) for n in range(KEPT_BOXES_MAX + 1)]
    policy = load(offer(*many), options=OPTIONS)
    shape_of(policy, Work(), {}, OPTIONS)
    assert policy.memo[shape_of] == {}


def test_a_policy_in_conflict_with_itself_is_void_where_it_says_so():
    clash = offer(rule(), prohibitions=(rule(purpose("eq", "a")),))
    assert boxes(load(clash))
    assert boxes(load({**clash, "odrl:conflict": {"@id": "odrl:invalid"}})) == []
    assert len(boxes(load({**clash, "odrl:conflict": {"@id": "odrl:perm"}}))) == 1
    void = shape_of(load(clash), Work(), {}, Options(conflict="invalid"))
    assert void.boxes == []


def test_what_has_to_be_done_is_forbidden_only_by_its_name():
    duties = offer(rule(duty=[{"action": "odrl:delete"}]), prohibitions=(rule(purpose("eq", "a"), action="use"),))
    names = {name for box in boxes(load(duties)) if "http://www.w3.org/ns/odrl/2/purpose" not in box for name in box[ACTION].values}
    assert names == {"http://www.w3.org/ns/odrl/2/delete"}


def test_target_and_assignees_are_left_out_of_a_bare_shape():
    policy = load(offer(rule(), target="urn:d", assignee="did:web:x"))
    assert boxes(policy)[0].keys() == {ACTION, TARGET, PARTY}
    assert boxes(policy, bare=True)[0].keys() == {ACTION}


def test_months_are_counted_where_they_run_by_the_calendar():
    lasts = leaf("odrl:elapsedTime", "lteq", "P3M")
    metered = leaf("odrl:meteredTime", "lteq", "P5M")
    assert months_of(load(offer(rule({"or": [lasts, metered]}), prohibitions=(rule(leaf("odrl:delayPeriod", "lt", "P1Y")),)))) == {3, 12}


def test_a_policy_is_read_again_under_profiles_that_it_was_not_read_under():
    document = offer(rule(leaf("urn:t:role", "eq", "x")))
    policy = load(document, strict=False)
    assert Code.OPERAND_UNSUPPORTED in {finding.code for finding in policy.findings}
    again = under(policy, Options(profiles=(PROFILE,)))
    assert not again.refused
    assert under(policy, Options(profiles=(PROFILE,))) is again
    assert under(policy, Options()) is policy
