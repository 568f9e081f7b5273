"""What is said of terms in Chinese: each form of sentence, what the comparison says of policies by chance, and what control says."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.control.terms import burdens, settle
from connector.odrl import Operand, Options, Policy, PolicyError, Profile, compare, load
from connector.odrl_chinese.decisions import in_chinese
from connector.odrl_chinese.sentences import CUT, told
from connector.odrl_compare.wording import changes
from tests.odrl.cases import PARTIES, leaf, policy, purpose, rule, time
from tests.odrl.drawn import Drawing
from tests.odrl_chinese.test_decisions import ENGLISH, NAMES

BOTH = re.compile(ENGLISH.pattern + r"|\b(asks|that|and|or|with|by|somebody)\b")
DELETE = {"action": "odrl:delete", "constraint": [leaf("odrl:delayPeriod", "lteq", "P30D")]}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (policy(rule(purpose("eq", "a"))), policy(rule(purpose("isAnyOf", ["a", "b"]))),
         ["use 的许可要求用途为以下之一：'a', 'b'，不再要求用途为'a'"]),
        (policy(rule()), policy(rule(time("lteq", "2030-12-31Z"))), ["use 的许可还要求时间不晚于2030-12-31Z"]),
        (policy(rule(leaf("odrl:count", "lteq", "5"))), policy(rule()), ["use 的许可不再要求使用次数不超过5"]),
        (policy(rule()), policy(rule(duty=[DELETE])), ["use 的许可还要求履行 delete 的义务，其条件为：延迟不超过P30D"]),
        (policy(rule(duty=[DELETE])), policy(rule()), ["use 的许可不再要求履行 delete 的义务，其条件为：延迟不超过P30D"]),
        (policy(rule()), policy(rule(), rule(assignee=PARTIES[0], action="odrl:play")), [f"新增 play 的许可（面向 {PARTIES[0]}）"]),
        (policy(rule(), prohibitions=(rule(purpose("eq", "a"), action="odrl:sell"),)), policy(rule()),
         ["缺少 sell 的禁止，其条件为：用途为'a'"]),
        (policy(rule(duty=[DELETE])), policy(rule(duty=[{**DELETE, "constraint": [leaf("odrl:delayPeriod", "lteq", "P7D")]}])),
         ["use 的许可之下 delete 的义务要求延迟不超过P7D，不再要求延迟不超过P30D"]),
        (policy(rule({"or": [purpose("eq", "a"), time("lt", "2030-01-01Z")]})),
         policy(rule({"xone": [purpose("eq", "a"), purpose("eq", "b")]})),
         ["use 的许可不再要求（用途为'a' 或 时间早于2030-01-01Z）", "use 的许可还要求（恰有其一：用途为'a' 与 用途为'b'）"]),
    ],
)  # fmt: skip
def test_what_one_policy_says_otherwise_than_another(before: Policy, after: Policy, says: list[str]):
    said = changes(before, after)
    zh = told(said)
    assert [zh[each] for each in said] == says


def apart(one: Policy, other: Policy) -> str:
    (said,) = settle(one, other, party=PARTIES[0], target="urn:d").says
    return told([said])[said]


def test_how_two_policies_relate():
    assert (
        apart(policy(rule(purpose("eq", "a"))), policy(rule(purpose("eq", "b"))))
        == "在“用途”上二者毫无共同之处：请求：用途为'a'；要约：用途为'b'"
    )
    wide, narrow = policy(rule()), policy(rule(purpose("eq", "a")))
    reason = compare(wide, narrow).reasons["refines"]
    assert told([reason])[reason].startswith("前者允许而后者不允许：某人进行 odrl:use")
    more = policy(rule(duty=[{"action": "odrl:inform"}]))
    assert [*told(burdens(more, wide, PARTIES[0])).values()] == ["对方增加了 odrl:inform 的义务"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64).map(Random))
def test_nothing_that_is_said_of_policies_stays_english(chance: Random):
    pair: list[Policy] = []
    while len(pair) < 2:
        try:
            pair.append(load(Drawing(chance).policy(), strict=False))
        except PolicyError:
            continue
    a, b = pair
    settled = settle(a, b, party=PARTIES[0], target="urn:d:1")
    said = {*settled.says, *settled.instead, *changes(a, b), *burdens(a, b, PARTIES[0]), *compare(a, b).reasons.values()}
    zh = told(said)
    assert zh.keys() == said
    assert not [one for one in zh.values() if BOTH.search(NAMES.sub("", one))]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("the prices are not those that are acceptable without asking", "价格并非无需询问即可接受的价格"),
        ("they permit more than was asked for, and what is used is paid for", "所许可的多于所请求的，而使用须付费"),
        ("agreement `urn:a` from this offer is used up (`odrl:count` and `urn:qiao:byteCount`), and another has a quota of its own",
         "由此要约订立的协议 `urn:a` 的限额（`odrl:count`和`urn:qiao:byteCount`）已用尽，而再订一份会另有限额"),
        ("offer `urn:o` of dataset `urn:d` is not on offer any more: it was withdrawn or replaced",
         "数据集 `urn:d` 的要约 `urn:o` 已撤回或被替换"),
        ("nobody vouches for `did:web:x` any more: it has left the data space, or has no valid key",
         "已无人为 `did:web:x` 担保：它已离开数据空间，或没有有效密钥"),
        ("the agreement was closed: no longer needed", "协议已被关闭：no longer needed"),
        ("nobody decided within 60 s", "60秒内无人作出决定"),
        ("nothing came within 30 s in state REQUESTED", "在状态 REQUESTED 下，30秒内未收到任何消息"),
        ("target is `urn:a`, it has to be `urn:b`", "标的是 `urn:a`，应为 `urn:b`"),
        ("what both permit cannot be written: the two are for different parties", "二者共同允许的内容无法写成策略：二者面向不同的参与方"),
        ("place is counted in <urn:a> and in <urn:b>, and nobody here can convert them",
         "“地点”分别以 <urn:a> 和 <urn:b> 计，此处无法换算"),
    ],
)  # fmt: skip
def test_what_control_says(said: str, says: str):
    assert told([said]) == {said: says}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("purpose 'marketing' is not one of 'research', 'quality'", "用途为以下之一：'research', 'quality'；实际为 'marketing'"),
        ("participant is not one of <did:web:a>", "参与方为以下之一：<did:web:a>"),
        ("count of uses 2 is more than 5 with 4 used", "使用次数不超过5（此前已用4）；实际为 2"),
        ("amount paid 2.5 is more than 5 EUR with 0.5 used", "支付金额不超过5 EUR（此前已用0.5）；实际为 2.5"),
        ("time 2026-06-15T12:00:00Z is after 2026-01-01Z", "时间不晚于2026-01-01Z；实际为 2026-06-15T12:00:00Z"),
        ("elapsed time 3 d 04:05:06 is more than P1D", "已用时长不超过P1D；实际为 3 d 04:05:06"),
        ("amount paid 7 is more than 5 EUR", "支付金额不超过5 EUR；实际为 7"),
    ],
)
def test_what_is_not_met_is_told_without_the_policy_too(said: str, says: str):
    assert told([said]) == {said: f"未满足：{says}"}
    whole = f"Denied: {said} (offer urn:o, /permission/0/constraint/0)."
    assert in_chinese({}, {"reasons": [whole]}) == {whole: f"拒绝：未满足：{says}（要约 urn:o, /permission/0/constraint/0）。"}


@pytest.mark.parametrize(
    "said", ["we do not like it", "", "the permission", "the permission to use asks that", "on fire they have nothing in common"]
)
def test_what_is_not_ours_stays_as_it_was_said(said: str):
    assert told([said]) == {}


def test_a_sentence_that_was_cut_off_ends_where_it_does():
    many = policy(rule(*(purpose("neq", f"purpose-{number}") for number in range(60))))
    (said,) = [each for each in changes(policy(rule(action="odrl:sell")), many) if each.endswith("…")]
    assert told([said])[said].endswith(CUT)


def test_an_operand_of_a_profile_is_called_as_the_profile_says():
    row = Operand("urn:w#station", "station", "站点", "term", "usage", ("eq",), "declared", "declared", "negotiation")
    options = Options(profiles=(Profile(id="weather", version="1", operands=(row,)),))
    said = "the permission to use also asks that station is 'north'"
    assert told([said]) == {}
    assert told([said], options) == {said: "use 的许可还要求站点为'north'"}


@settings(max_examples=200)
@given(st.text())
def test_any_text_is_read_or_left_alone(text: str):
    for said in (text, f"the permission to use also asks that purpose is '{text}'", f"profile {text} instead of none"):
        assert told([said]).keys() <= {said}
