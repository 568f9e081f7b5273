from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl import Alias, Code, Operand, Options, PolicyError, Profile, Request, Vocabulary, World, compare, evaluate, lint, load
from connector.odrl.model import DEFAULT_OPTIONS
from connector.odrl.operands import CORE_OPERANDS
from connector.odrl.registry import CHOICE, CONCEPT, ORDER, Label, registry_of
from connector.odrl.vocabulary import EXACT_MATCH, INCLUDED_IN, ODRL
from connector.values import replace
from tests.odrl.cases import NOW, leaf, offer, request, rule, world

X = "https://x.example/ns#"
MOOD = Operand(X + "mood", "mood", "心情", "term", "usage", CONCEPT, "declared", "declared")
PROFILE = Profile(
    "x",
    "2026.1",
    iris=(X, "https://x.example/old"),
    prefixes={"x": X},
    operands=(MOOD,),
    aliases=(Alias(X + "until", ODRL + "dateTime", {"eq": "lteq"}),),
    actions={X + "teach": ODRL + "use", X + "teachWell": X + "teach", X + "watch": ""},
    duties={X + "teach": "post"},
    vocabulary=Vocabulary("v", broader={"calm": ("good",), "good": ("mood",)}, disjoint=(("good", "bad"),), same=(("still", "calm"),)),
    labels={X + "teach": Label("teach with {}", "用{}授课")},
)
OURS = Options(profiles=(PROFILE,))
CORE = registry_of(DEFAULT_OPTIONS)
OWN = registry_of(OURS)


def test_the_same_options_have_one_registry() -> None:
    assert registry_of(Options()) is CORE
    assert registry_of(Options(profiles=(PROFILE,), conflict="permit")) is OWN
    assert registry_of(Options(profiles=(PROFILE,), vocabularies=(Vocabulary("w"),))) is not OWN
    for number in range(70):
        registry_of(Options(vocabularies=(Vocabulary(f"v{number}"),)))
    assert registry_of(Options()) is CORE  # however many others came after it


@pytest.mark.parametrize("operand", CORE_OPERANDS, ids=lambda each: each.iri.rpartition("/")[2])
def test_every_core_operand_is_found_in_full_and_in_short(operand: Operand) -> None:
    assert CORE.operands[operand.iri] is operand
    assert CORE.operands[operand.iri.replace(ODRL, "odrl:")] is operand


def test_every_core_action_is_found_in_full_and_in_short_and_only_use_by_its_bare_word() -> None:
    for iri in (*INCLUDED_IN, *EXACT_MATCH):
        now = EXACT_MATCH.get(iri, iri)
        assert CORE.actions[iri] == CORE.actions[iri.replace(ODRL, "odrl:")] == now
    assert CORE.actions["use"] == ODRL + "use"
    assert "read" not in CORE.actions


def test_an_action_is_within_itself_and_all_above() -> None:
    assert CORE.action_within("odrl:display") == {ODRL + "display", ODRL + "play", ODRL + "use"}
    assert CORE.action_within("odrl:write") == {ODRL + "modify", ODRL + "use"}
    assert CORE.action_within("cx-policy:access") == frozenset()
    assert CORE.action_within("") == frozenset()
    assert OWN.action_within("x:teachWell") == {X + "teachWell", X + "teach", ODRL + "use"}
    assert OWN.action_within(X + "watch") == {X + "watch"}


def test_a_profile_adds_what_it_names_by_every_spelling_and_changes_nothing_else() -> None:
    assert OWN.operands["x:mood"] is OWN.operands[X + "mood"] is MOOD
    assert OWN.aliases["x:until"].operand == ODRL + "dateTime"
    assert OWN.profiles >= {X, "https://x.example/old", ODRL + "core"}
    assert (OWN.versions, OWN.labels[X + "teach"].zh) == ({"x": "2026.1"}, "用{}授课")
    assert (OWN.duties[X + "teach"], OWN.duties[ODRL + "delete"], OWN.duties[ODRL + "anonymize"]) == ("post", "post", "with")
    assert "x:mood" not in CORE.operands
    assert set(CORE.operands) < set(OWN.operands)
    assert CORE.versions == {}


def test_concepts_lie_below_each_other_through_steps_and_sameness() -> None:
    assert OWN.below("calm", "mood")
    assert OWN.below("still", "mood")
    assert OWN.below("unheard", "unheard")
    assert not OWN.below("mood", "calm")
    assert not CORE.below("calm", "good")


def test_concepts_are_apart_only_where_somebody_says_so() -> None:
    assert OWN.apart("calm", "bad")
    assert OWN.apart("bad", "still")
    assert not OWN.apart("mood", "bad")
    assert not OWN.apart("calm", "unheard")


def test_several_vocabularies_are_joined() -> None:
    one = Vocabulary("1", broader={"a": ("b",)}, parts={"x": ("y",)})
    other = Vocabulary("2", broader={"a": ("c",), "b": ("d",)}, parts={"y": ("z",)})
    joined = registry_of(Options(vocabularies=(one, other)))
    assert joined.above["a"] == {"a", "b", "c", "d"}
    assert joined.part_of("x", "z")
    assert not joined.part_of("z", "x")


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.sampled_from("abcde"), max_size=3).map(tuple)))
def test_a_hierarchy_is_reflexive_and_transitive_even_with_loops(steps: dict[str, tuple[str, ...]]) -> None:
    found = registry_of(Options(vocabularies=(Vocabulary("v", broader=steps),)))
    for a in "abcde":
        assert found.below(a, a)
        assert all(found.below(a, b) for b in steps.get(a, ()))
        for b in found.above.get(a, ()):
            assert all(found.below(a, c) for c in found.above.get(b, ()))


def test_the_operators_of_a_sort_of_values() -> None:
    assert CHOICE < CONCEPT
    assert CHOICE | {"isAllOf"} == ORDER & CONCEPT
    assert len(CONCEPT | ORDER) == 12


def test_what_a_foreign_caller_registers_is_decided_by() -> None:
    document = offer(rule(leaf("x:mood", "isA", "good"), leaf("x:until", "eq", "2026-12-31Z"), action="x:teach"), profile=X)
    found = load(document, options=OURS)
    assert not found.refused
    for mood, result in (("calm", "permit"), ("bad", "deny")):
        asked = Request("did:web:a", "x:teachWell", params={X + "mood": (mood,)})
        assert evaluate(found, asked, world(), options=OURS).result == result
    late = Request("did:web:a", "x:teach", params={"x:mood": ("calm",)})
    assert evaluate(found, late, World(NOW.replace(year=2027)), options=OURS).code != "PERMITTED"


def test_a_policy_that_was_read_without_a_profile_is_read_again_under_it_and_the_other_way_round_stays() -> None:
    document = offer(rule(leaf(X + "mood", "eq", "calm")))
    without = load(document, strict=False)
    asked = request(stage="catalog", party="did:web:a")
    assert evaluate(without, asked, world()).code == "OPERAND_UNSUPPORTED"
    assert evaluate(without, asked, world(), options=OURS).result == "unknown"
    assert evaluate(without, asked, world(), options=OURS).case.policy is evaluate(without, asked, world(), options=OURS).case.policy
    assert evaluate(load(document, options=OURS), asked, world()).result == "unknown"


def test_options_take_any_sequence_of_profiles() -> None:
    listed: Any = [PROFILE]
    assert registry_of(Options(profiles=listed)) is registry_of(OURS)
    document = offer(rule(leaf(X + "mood", "eq", "calm")))
    found = load(document, options=Options(profiles=listed, vocabularies=listed[:0]))
    assert lint(document, options=Options(profiles=listed)) == list(found.findings)
    assert compare(found, found, options=Options(profiles=listed)).equivalent == "yes"


COUNT = CORE.operands[ODRL + "count"]


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        (Profile("theirs", operands=(replace(COUNT, kind="usage", source="declared", check="declared"),)), "odrl:count"),
        (Profile("theirs", aliases=(Alias(COUNT.iri, X + "mood", {"lteq": "eq"}),)), "odrl:count"),
        (Profile("theirs", actions={ODRL + "distribute": ""}), "odrl:distribute"),
        (Profile("theirs", actions={ODRL + "write": ODRL + "use"}), "odrl:write"),
    ],
    ids=["operand", "alias", "action", "deprecated action"],
)
def test_no_profile_of_a_foreign_caller_gives_a_core_word_another_meaning(profile: Profile, word: str) -> None:
    options, document = Options(profiles=(PROFILE, profile)), offer(rule(leaf("odrl:count", "lteq", "5")))
    for ask in (lambda: registry_of(options), lambda: load(document, options=options)):
        with pytest.raises(PolicyError, match=f"the profile `theirs` gives `{word}` another meaning"):
            ask()
    assert [finding.code for finding in lint(document, options=options)] == [Code.CONFLICTING_TERMS]
    assert not evaluate(load(document), request(), world(), options=options).permitted
    assert registry_of(Options(profiles=(Profile("theirs", actions={ODRL + "distribute": ODRL + "use"}),))), "the same again is no other"
