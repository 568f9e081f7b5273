from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl import Options, Policy, load
from connector.odrl.operands import CORE_ALIASES, CORE_OPERANDS
from connector.odrl.registry import ORDER, Operand
from connector.odrl.vocabulary import INCLUDED_IN, ODRL
from connector.odrl_forms.plain import HELD, plain
from connector.odrl_forms.templates import instantiate
from tests.odrl.cases import leaf, offer, rule
from tests.odrl_forms.shipped import library, options

VALUES: dict[str, Any] = {
    "instant": "2026-12-31T18:00:00Z",
    "duration": {"@value": "P30D", "@type": "xsd:duration"},
    "number": {"@value": "1234", "@type": "xsd:integer"},
    "term": {"@id": "https://things.example/one"},
    "event": {"@id": ODRL + "policyUsage"},
}
LISTS = {"isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart"}
PAIRS = [(operand, operator) for operand in CORE_OPERANDS for operator in sorted(operand.operators)]
NAMES = {"did:web:c.example": "Company C", "urn:ds:42": "Dataset 42"}


def read(*permissions: dict[str, Any], prohibitions: tuple[dict[str, Any], ...] = (), **more: Any) -> Policy:
    return load(offer(*permissions, prohibitions=prohibitions, **more), options=options(), strict=False)


def english(policy: Policy, **more: Any) -> list[str]:
    return list(plain(policy, "en", **more).sentences)


def chinese(policy: Policy, **more: Any) -> list[str]:
    return list(plain(policy, "zh", **more).sentences)


@pytest.mark.parametrize(("operand", "operator"), PAIRS, ids=lambda of: of.iri.rpartition("/")[2] if isinstance(of, Operand) else of)
def test_every_core_operand_with_every_operator_has_a_sentence_in_both_languages(operand: Operand, operator: str):
    value = VALUES[operand.values]
    right = [value, value] if operator in LISTS and operand.values == "term" else [value] if operator in LISTS else value
    policy = load(offer(rule(leaf(operand.iri, operator, right))), strict=False)
    if operand.values == "event" and operator in LISTS:
        assert policy.refused or policy.permissions[0].constraints
    for language in ("en", "zh"):
        words = plain(policy, language)  # type: ignore[arg-type]
        assert words.sentences
        (condition,) = words.conditions
        assert condition.text in words.sentences[0]
        assert condition.held == (operand.check if not policy.refused else "not-checked")
        assert condition.held_text == HELD[condition.held][language]  # type: ignore[index]
        assert condition.text.isascii() == (language == "en")
        assert "{" not in condition.text


def test_no_two_operators_of_an_operand_sound_alike():
    for operand in CORE_OPERANDS:
        single = [operator for operator in operand.operators if operator not in LISTS or operand.values == "term"]
        for language in ("en", "zh"):
            texts = set()
            for operator in single:
                right = [VALUES[operand.values], {"@id": "urn:two"}] if operator in LISTS else VALUES[operand.values]
                texts.add(plain(load(offer(rule(leaf(operand.iri, operator, right))), strict=False), language).conditions[0].text)  # type: ignore[arg-type]
            assert len(texts) == len(single), operand.iri


def test_the_example_of_the_reference():
    policy = read(
        rule(
            leaf("odrl:purpose", "isAnyOf", ["research", "quality"]),
            leaf("odrl:dateTime", "lteq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
            leaf("odrl:count", "lteq", {"@value": "100", "@type": "xsd:integer"}),
            assignee="did:web:c.example",
            duty=[
                {
                    "action": "odrl:delete",
                    "constraint": [
                        leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"}),
                        leaf("odrl:delayPeriod", "lteq", VALUES["duration"]),
                    ],
                }
            ],
        ),
        prohibitions=(rule(action="odrl:distribute", assignee="did:web:c.example"),),
        target="urn:ds:42",
        **{"odrl:conflict": {"@id": "odrl:prohibit"}},
    )
    used = {ODRL + "count": 12}
    assert english(policy, names=NAMES, used=used) == [
        "Company C may use Dataset 42 for “research” or “quality”, until 31 Dec 2026 (UTC), at most 100 times per agreement (12 used).",
        "Afterwards, they must delete Dataset 42 within 30 days.",
        "Company C must not distribute Dataset 42.",
        "If rules clash, prohibitions win.",
    ]
    assert chinese(policy, names=NAMES, used=used) == [
        "Company C可以使用《Dataset 42》，用于“research”或“quality”，至2026年12月31日（UTC）为止，每份协议最多100次（已用12次）。".replace(
            "12次）", "12）"
        ),
        "使用后，使用方须删除《Dataset 42》，在30天内。",
        "Company C不得分发《Dataset 42》。",
        "规则冲突时以禁止为准。",
    ]


@pytest.mark.parametrize(
    ("conflict", "en", "zh"),
    [
        ("odrl:prohibit", "If rules clash, prohibitions win.", "规则冲突时以禁止为准。"),
        ("odrl:perm", "If rules clash, permissions win.", "规则冲突时以允许为准。"),
        ("odrl:invalid", "If rules clash, the whole policy is void.", "规则冲突时整个策略无效。"),
        (None, "If rules clash, prohibitions win: the policy does not say so, this connector holds it so.", "本连接器"),
    ],
)
def test_who_wins_is_said_where_rules_can_clash(conflict: str | None, en: str, zh: str):
    more = {"odrl:conflict": {"@id": conflict}} if conflict else {}
    policy = read(rule(), prohibitions=(rule(action="odrl:sell"),), **more)
    assert english(policy)[-1] == en
    assert zh in chinese(policy)[-1]
    assert english(read(rule(), **more)) == ["Anybody may use it."]


def test_duties_say_when_they_are_due_and_what_follows():
    duty = {"action": "odrl:obtainConsent", "odrl:consentingParty": "did:web:c.example"}
    late = {"action": "odrl:compensate", "constraint": [leaf("odrl:dateTime", "lteq", "2026-12-31Z")]}
    policy = read(
        rule(duty=[duty, {"action": "odrl:anonymize"}, {"action": "odrl:delete", "odrl:consequence": [late]}]),
        prohibitions=(rule(action="odrl:sell", **{"odrl:remedy": [{"action": "odrl:delete"}]}),),
        obligation=[{"action": "odrl:inform", "assignee": "did:web:c.example", "constraint": late["constraint"]}],
    )
    assert english(policy, names=NAMES)[:-1] == [
        "Anybody may use it.",
        "Before that, they must obtain consent to the use of it, consent of Company C.",
        "With the use, they must anonymise it.",
        "Afterwards, they must delete it.",
        "If that is not done in time, they must also pay by 31 Dec 2026 (UTC).",
        "Nobody may sell it.",
        "If that happens all the same, they must delete it.",
        "Company C must inform about the use of it by 31 Dec 2026 (UTC).",
    ]
    assert chinese(policy, names=NAMES)[:-1] == [
        "任何人可以使用该数据。",
        "使用前，使用方须取得对使用该数据的同意，同意方为Company C。",
        "使用时，使用方须对该数据进行匿名化。",
        "使用后，使用方须删除该数据。",
        "逾期未履行的，使用方还须付费，最迟至2026年12月31日（UTC）。",
        "任何人不得出售该数据。",
        "如有违反，使用方须删除该数据。",
        "Company C须告知该数据的使用情况，最迟至2026年12月31日（UTC）。",
    ]


def test_logic_is_said_with_its_parts_in_brackets():
    research, company = leaf("odrl:purpose", "eq", "research"), leaf("urn:qiao:participant", "eq", "did:web:c.example")
    wait = leaf("odrl:delayPeriod", "gteq", VALUES["duration"])
    policy = read(
        rule({"or": [research, {"and": [company, wait]}]}),
        rule({"xone": [research, company]}),
        rule({"andSequence": {"@list": [research, wait]}}),
    )
    assert english(policy, names=NAMES) == [
        "Anybody may use it (for “research” or (participant is Company C and after waiting 30 days)).",
        "Anybody may use it, exactly one of these holds: (for “research”) or (participant is Company C).",
        "Anybody may use it (for “research”, and then after waiting 30 days).",
    ]
    assert chinese(policy, names=NAMES)[0] == "任何人可以使用该数据，（用于“research”或（参与方为Company C和等待30天之后））。"


def test_an_operand_that_nobody_knows_prints_its_iri_and_that_it_is_not_checked():
    policy = read(rule(leaf("https://strange.example/moon", "eq", "full")))
    assert english(policy) == [
        "This connector permits nothing under this policy, because it does not understand all of it.",
        "Anybody may use it, a condition that is not understood: <https://strange.example/moon> eq (not checked by this connector).",
    ]
    assert "<https://strange.example/moon> eq（本连接器不检查）" in chinese(policy)[1]
    assert plain(policy).conditions[0].held == "not-checked"
    assert plain(policy, "zh").conditions[0].held_text == "本连接器不检查"


def test_each_condition_says_who_holds_it():
    chosen = ["cx-member", "purpose", "count", "cx-liability"]
    document = instantiate(library(), [{"template": name, "parameters": library()[name].cases[0].parameters} for name in chosen])
    words = plain(load(document, options=options()))
    assert [(one.path, one.held) for one in words.conditions] == [
        ("/permission/0/constraint/0", "verified"),
        ("/permission/0/constraint/1", "declared"),
        ("/permission/0/constraint/2", "measured"),
        ("/permission/0/constraint/3", "contract-only"),
    ]
    assert words.to_json()["conditions"][3] == {
        "path": "/permission/0/constraint/3",
        "text": "liability is “cx.grossNegligence:1”",
        "held": "contract-only",
        "held_text": "held by the contract alone",
    }


def test_refinements_collections_and_targets_are_said():
    document = {
        "@context": "http://www.w3.org/ns/odrl.jsonld",
        "@type": "Set",
        "uid": "urn:p",
        "permission": {
            "action": [{"rdf:value": {"@id": "odrl:print"}, "refinement": [leaf("resolution", "lteq", "1200")]}, "display"],
            "target": {"@type": "AssetCollection", "source": "urn:ds:42", "refinement": [leaf("language", "eq", "de")]},
            "assignee": {"@type": "PartyCollection", "source": "did:web:c.example"},
        },
    }
    (sentence,) = english(load(document, options=options()), names=NAMES)
    thing = "members of Dataset 42 (so that language is “de”)"
    assert sentence == f"members of Company C may print {thing} (so that resolution is at most 1,200) or display {thing}."
    conditions = plain(load(document, options=options())).conditions
    assert [one.text for one in conditions] == ["resolution is at most 1,200", "language is “de”"]


def test_each_action_of_the_core_and_of_the_packs_has_its_place_for_the_thing():
    actions = [*INCLUDED_IN, *(action for profile in options().profiles for action in profile.actions)]
    for action in actions:
        english_text, chinese_text = english(read(rule(action=action)))[0], chinese(read(rule(action=action)))[0]
        assert english_text.startswith("Anybody may ")
        assert "{}" not in english_text + chinese_text
        assert "http" not in english_text + chinese_text


def test_without_a_profile_an_action_is_called_by_its_word():
    assert list(plain(load(offer(rule(action="odrl:read")))).sentences) == ["Anybody may read it."]
    ours = Options()
    assert list(plain(load(offer(rule(action="odrl:textToSpeech")), options=ours), "zh").sentences) == ["任何人可以textToSpeech该数据。"]


@given(st.text(max_size=300), st.text(min_size=1, max_size=300))
def test_whatever_a_peer_writes_is_one_short_line(purpose: str, party: str):
    document = offer(rule(leaf("odrl:purpose", "eq", purpose or "x"), assignee=party), target="urn:t")
    for sentence in (*english(load(document, strict=False)), *chinese(load(document, strict=False))):
        assert sentence.isprintable()
        assert len(sentence) < 400


def test_the_aliases_of_the_core_speak_of_what_they_stand_for():
    for alias in CORE_ALIASES:
        assert english(read(rule(leaf(alias.iri, "eq", "x")))) == ["Anybody may use it, if device or system is “x”."]


def test_every_sort_of_values_of_the_core_is_among_those_tested():
    assert {operand.values for operand in CORE_OPERANDS} == set(VALUES)
    assert all(operator in ORDER | LISTS for operand in CORE_OPERANDS for operator in operand.operators)


@pytest.mark.parametrize(
    ("template", "parameters", "en", "zh"),
    [
        ("unit-price", {}, "pay 0.02 EUR for each record.", "按每记录0.02 EUR付费。"),
        ("unit-price-beyond", {}, "pay 0.02 EUR for each record beyond the first 1,000.", "按每记录0.02 EUR付费（超出前1,000的部分）。"),
        ("persons", {"persons": 12, "price": "2.50"}, "pay 2.50 EUR for each person, 12 of them.", "按每人2.50 EUR付费（共12）。"),
        (
            "subscription",
            {},
            "pay 100 EUR for each subscription (so that billing period is 1 month).",
            "按每订阅100 EUR付费（要求计费周期为1个月）。",
        ),
    ],
)
def test_a_price_is_said_as_so_much_for_each_unit(template: str, parameters: dict[str, Any], en: str, zh: str):
    found = load(instantiate(library(), [{"template": template, "parameters": parameters}]), options=options())
    assert f"Afterwards, they must {en}" in plain(found, "en").sentences[1]
    assert f"使用后，使用方须{zh}" in plain(found, "zh").sentences[1]


def test_a_payment_for_nothing_in_particular_stays_one():
    found = load(instantiate(library(), [{"template": "sale", "parameters": {"amount": "500"}}]), options=options())
    assert "must pay (so that amount paid is at least 500 Euro)" in plain(found, "en").sentences[1] + plain(found, "en").sentences[0]


@pytest.mark.parametrize(("used", "en", "zh"), [(None, "4 used", "已用4"), ("0.5", "4.5 used", "已用4.5"), ("0", "4 used", "已用4")])
def test_what_was_used_up_before_a_policy_was_written_is_said(used: str | None, en: str, zh: str):
    limit = leaf("odrl:payAmount", "lteq", VALUES["number"]) | {
        "odrl:unit": {"@id": "http://cvx.iptc.org/iso4217a/EUR"},
        "odrl:status": "4",
    }
    policy = load(offer(rule(limit)), options=options())
    counted = {} if used is None else {f"{ODRL}payAmount http://cvx.iptc.org/iso4217a/EUR": Fraction(used)}
    (first, *_), (other, *_) = english(policy, used=counted), chinese(policy, used=counted)
    assert f"({en})" in first
    assert f"（{zh}）" in other
