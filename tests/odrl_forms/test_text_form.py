import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.dsp.schemas import Schemas
from connector.errors import PolicyError
from connector.odrl import load
from connector.odrl.registry import registry_of
from connector.odrl.vocabulary import DSP_CONTEXT, W3C_CONTEXT
from connector.odrl_forms.templates import instantiate
from connector.odrl_forms.text_form import KINDS, RDF_VALUE, parse_text, render_text
from connector.vocabulary import read_vocabulary
from tests.odrl.cases import leaf, offer, rule
from tests.odrl_forms.drawn import Drawing, meaning
from tests.odrl_forms.shipped import library, options

EXAMPLE = """\
offer for urn:ds:42
  permit use
    for {research, quality}
    until 2026-12-31Z
    at most 100 times
    must delete
      after event odrl:policyUsage
      within 30 days
  forbid distribute
  on conflict forbid
"""
SCHEMAS = Schemas(read_vocabulary().schemas)
SUITE = Path(__file__).parents[1] / "data" / "odrl" / "solidlab"


def mistakes(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_text(text, options=options())
    return [str(finding) for finding in caught.value.findings]


def test_the_example_is_an_offer_of_the_protocol():
    tree = parse_text(EXAMPLE)
    assert tree == {
        "@context": [DSP_CONTEXT],
        "@type": "Offer",
        "target": "urn:ds:42",
        "permission": [
            {
                "action": "use",
                "constraint": [
                    leaf("odrl:purpose", "isAnyOf", ["research", "quality"]),
                    leaf("odrl:dateTime", "lteq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
                    leaf("odrl:count", "lteq", {"@value": "100", "@type": "xsd:integer"}),
                ],
                "duty": [
                    {
                        "action": "odrl:delete",
                        "constraint": [
                            leaf("odrl:event", "gt", {"@id": "http://www.w3.org/ns/odrl/2/policyUsage"}),
                            leaf("odrl:delayPeriod", "lteq", {"@value": "P30D", "@type": "xsd:duration"}),
                        ],
                    }
                ],
            }
        ],
        "prohibition": [{"action": "odrl:distribute"}],
        "odrl:conflict": {"@id": "odrl:prohibit"},
    }
    assert SCHEMAS.reasons("MessageOffer", {"@id": "urn:o1", **tree}) == []
    policy = load(tree)
    assert policy.findings == ()
    assert render_text(policy) == EXAMPLE


def test_people_may_join_with_and_leave_lines_empty_and_comment():
    text = """
    offer for urn:ds:42   # what it is about

        permit use
            for {research, quality} and until 2026-12-31Z and at most 100 times
            must delete
                after event odrl:policyUsage and within P30D
        # nobody else
        forbid distribute
        on conflict forbid
    """
    assert parse_text(text) == parse_text(EXAMPLE)


@given(st.integers(min_value=0, max_value=2**32))
@settings(max_examples=100, deadline=None)
def test_the_text_of_a_policy_reads_back_to_it(seed: int):
    policy = load(Drawing(seed, registry_of(options())).policy(), options=options(), strict=False)
    if policy.refused:
        return
    text = render_text(policy)
    back = load(parse_text(text, options=options()), options=options())
    assert meaning(back) == meaning(policy), text
    assert render_text(back) == text


@pytest.mark.slow
@given(st.integers(min_value=0, max_value=2**64))
@settings(max_examples=800, deadline=None)
def test_the_text_of_eight_hundred_policies_reads_back_to_them(seed: int):
    test_the_text_of_a_policy_reads_back_to_it.hypothesis.inner_test(seed)  # type: ignore[attr-defined]


def test_most_policies_that_are_drawn_have_a_text():
    drawn = [load(Drawing(seed, registry_of(options())).policy(), options=options(), strict=False) for seed in range(100)]
    assert sum(not policy.refused for policy in drawn) > 90
    assert {policy.kind for policy in drawn} >= {"Set", "Offer", "Agreement", "Request"}


def test_what_is_nothing_but_a_rule_with_an_id_reads_back_to_it():
    for document in (SUITE / "policies/policy-1.ttl", SUITE / "policies/policy-2.ttl"):
        policy = load(document.read_bytes(), "turtle")
        assert meaning(load(parse_text(render_text(policy)))) == meaning(policy)
    text = "set\n  permit use\n    must anything as urn:duty\n  must anything as urn:obligation\n"
    assert render_text(load(parse_text(text))) == text


@pytest.mark.parametrize("value", ["urn:{}", "urn:a\\b", "urn:\u00a0x", "javascript:x", "https://x.example/<y>"])
def test_a_string_that_begins_as_an_iri_and_is_none_reads_back_to_itself(value: str):
    policy = load(offer(rule(leaf("odrl:purpose", "isNoneOf", [value, "a"]))))
    assert meaning(load(parse_text(render_text(policy)))) == meaning(policy)


def test_the_text_of_a_policy_of_five_hundred_conditions_with_ids_reads_back_to_it():
    policy = load((SUITE / "policies/policy-20.ttl").read_bytes(), "turtle")
    assert meaning(load(parse_text(render_text(policy)))) == meaning(policy)


@pytest.mark.parametrize("name", library())
def test_each_template_has_a_text_that_says_the_same(name: str):
    document = instantiate(library(), [{"template": name, "parameters": library()[name].cases[0].parameters}])
    policy = load(document, options=options())
    tree = parse_text(render_text(policy), options=options())
    assert meaning(load(tree, options=options())) == meaning(policy)
    assert tree["@context"] == [DSP_CONTEXT]
    assert SCHEMAS.reasons("MessageOffer", {"@id": "urn:o1", **tree}) == []


def test_what_an_offer_of_the_protocol_cannot_say_is_said_under_the_context_of_the_w3c():
    for text in (
        "set\n  permit use",
        "offer\n  permit use\n    asset urn:a",
        "offer\n  permit use, odrl:read",
        "offer\n  permit\n    action print\n      resolution is at most 1200",
        "offer\n  permit anything",
        "offer\n  must inform",
        "agreement\n  permit use",
    ):
        tree = parse_text(text)
        assert tree["@context"] == W3C_CONTEXT
        assert not load(tree).refused
    agreement = parse_text("agreement urn:a for urn:ds\n  by did:web:p\n  to did:web:c\n  permit use")
    assert agreement["@context"] == [DSP_CONTEXT]
    assert SCHEMAS.reasons("Agreement", agreement) == []


def test_all_parts_of_a_rule_have_a_place():
    text = """\
agreement urn:a for urn:ds:42
  by did:web:p.example
  to did:web:c.example
  signed 2026-01-01T00:00:00Z
  profile https://hds.example/ns/1.0#profile
  permit as urn:r1
    action print
      resolution is at most 1200
    action display
    asset members of urn:collection
      language is one of {de, en}
    to members of urn:group
    any of as urn:l1
      exactly one of
        participant is did:web:c.example as urn:c1
        for "two words"
      in this order
        from 2026-01-01Z
        after waiting 2 days
    payAmount is at most 5.50 unit http://dbpedia.org/resource/Euro with 0.25 used
    must obtainConsent
      consentingParty did:web:owner.example
      must compensate
        until 2026-12-31Z
  forbid sell
    must delete
  must hds:reportUsage
    to did:web:c.example
    until 2026-12-31Z
  on conflict void
"""
    policy = load(parse_text(text, options=options()), options=options())
    assert render_text(policy) == text
    permission = policy.permissions[0]
    assert [action.iri.rpartition("/")[2] for action in permission.actions] == ["print", "display"]
    assert permission.targets[0].collection
    assert permission.duties[0].duties[0].kind == "consequence"
    assert policy.prohibitions[0].duties[0].kind == "remedy"
    assert policy.conflict == "invalid"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_has_a_head(kind: str):
    assert parse_text(f"{kind.lower()} urn:p for urn:a\n  permit use")["@type"] == kind


def test_a_refined_action_of_a_duty_stays_on_the_wire_of_the_protocol():
    tree = parse_text("offer\n  permit use\n    must\n      action compensate\n        payAmount is at least 5")
    assert tree["@context"] == [DSP_CONTEXT]
    assert tree["permission"][0]["duty"][0]["action"][RDF_VALUE] == {"@id": "odrl:compensate"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["line 1, column 1: there is nothing; begin with `offer`, and indent all else below it"]),
        ("offer\noffer", ["line 2, column 1: a text is one policy; begin with `offer`, and indent all else below it"]),
        ("ofer\n  permit use", ["line 1, column 1: `ofer` is no kind of policy; write `offer`"]),
        ("offer a b c\n  must pay", ["line 1, column 9: it has more than a kind, an id and a target; write like"]),
        ("offer urn:o1", ["line 1, column 13: it has no rule; write one below it, like `permit use`"]),
        ("offer\n  permit use\n  permitt use", ["line 3, column 3: `permitt use` has no meaning here; did you mean `permit`?"]),
        ("offer\n  permit use\n  on conflict maybe", ["line 3, column 3: `on conflict maybe` has no meaning here; write `permit`"]),
        ("offer\n  permit", ["line 2, column 3: it does not say what; write what: `permit use`, or `anything`"]),
        ("offer\n  permit use distribute", ["line 2, column 3: it is no list; write names with a comma between them"]),
        ("offer\n  permit distribte", ["line 2, column 10: `distribte` is no action that is known here; did you mean `distribute`?"]),
        (
            "offer\n  permit use\n    untill 2026-12-31\n    purpos is research",
            [
                "line 3, column 5: `untill 2026-12-31` is no condition that is known here; did you mean `until ...`?",
                "line 4, column 5: `purpos is research` is no condition that is known here; did you mean `purpose ...`?",
            ],
        ),
        ("offer\n  permit use\n    spatial has DE", ["line 3, column 5: no operator follows `spatial`; write one of `is`, `is not`"]),
        ("offer\n  permit use\n    resolution is high", ["`high` is no value that `resolution is` takes; write digits like `100`"]),
        ("offer\n  permit use\n    dateTime is soon", ["`soon` is no value that `dateTime is` takes; write a day `2026-12-31Z`"]),
        ("offer\n  permit use\n    purpose is one of {a, }", ["`{ a , }` is no value that `purpose is one of` takes"]),
        ("offer\n  permit use\n    purpose is {a, b}", ["`{ a , b }` is no value that `purpose is` takes"]),
        ("offer\n  permit use\n    any of", ["line 3, column 5: nothing stands below it; indent the conditions that it is about"]),
        ("offer\n  permit use\n    for a\n      for b", ["line 4, column 7: nothing can stand below a condition; indent it like"]),
        ("offer\n  permit use\n    for a and", ["line 3, column 5: there is no condition; write one like `until 2026-12-31Z`"]),
        ("offer\n  forbid use\n    must delete\n      must pay", ["line 4, column 7: nothing follows from a remedy or a consequence"]),
        ("offer\n  permit use\n    to members of a, b", ["line 3, column 5: a line with `members of` or conditions names one"]),
        ('offer\n  permit use\n    for "research', ["line 3, column 9: `\"research` does not end; write a text as \"...\""]),
        ('offer\n  permit use\n    for "a\\q"', ["has an escape that JSON does not know"]),
        ("offer\n  permit use\n\tpermit use", ["it is indented with something else than spaces; use spaces"]),
        ("offer\n  permit use\n    at most 5 times with many used", ["line 3, column 5: `many` is no number; write digits"]),
    ],
)  # fmt: skip
def test_each_mistake_is_named_by_line_and_column(text: str, expected: list[str]):
    found = mistakes(text)
    assert len(found) == len(expected), found
    assert all(part in mistake for part, mistake in zip(expected, found, strict=True)), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("offer\n" + "x" * 100_000, "the text has 100006 characters; write 100000 at most"),
        ("offer\n  permit use\n    for {" + "a, " * 10_000 + "a}", "line 3, column 1: there are more than 5000 words; split the policy"),
        (
            "offer\n permit use\n" + "".join(f"{' ' * depth}any of\n" for depth in range(2, 60)),
            "it is nested more than 40 deep; write it flat",
        ),
        ("offer\n  permit use\n    for a" + " and for a" * 900, "line 3, column 5: there are more than 800 conditions; split the policy"),
        ("offer\n" + "  x\n" * 500, "line 2, column 3: `x` has no meaning here"),
        ('"' * 99_999, "line 1, column 1: there are more than 5000 words"),
        ("offer\n  permit use\n" + "\n".join("    " + "x" * 450 for _ in range(99)), "is no condition that is known here"),
    ],
    ids=["long", "wide", "deep", "many", "wrong", "quotes", "long words"],
)
def test_a_hostile_text_is_refused_quickly(text: str, expected: str):
    start = time.process_time()
    found = mistakes(text)
    assert any(expected in mistake for mistake in found), found[0]
    assert time.process_time() - start < 1  # some 50 ms on a machine that does nothing else


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str):
    for whole in (text, f"offer\n  permit use\n    {text}"):
        try:
            tree: Any = parse_text(whole)
        except PolicyError as error:
            found = error.findings
        else:
            found = ()
            load(tree, strict=False)
        assert all(finding.path.startswith("line ") for finding in found)


def test_a_policy_that_is_not_understood_or_inherits_has_no_text():
    unknown = load(offer(rule(leaf("https://strange.example/moon", "eq", "full"))), strict=False)
    with pytest.raises(PolicyError, match=r"it says something that is not understood; show its document instead"):
        render_text(unknown)
    parent = offer(rule())
    child = load({**offer(rule()), "@id": "urn:child", "odrl:inheritFrom": {"@id": "urn:o1"}}, parents={"urn:o1": parent})
    with pytest.raises(PolicyError, match=r"it inherits from another policy; show its document instead"):
        render_text(child)
