"""The reasons of decisions in Chinese: every code, every sentence of the engine, and what chance draws."""

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.odrl import Code, Options, PolicyError, Request, World, evaluate, load
from connector.odrl_chinese.decisions import CODES, in_chinese
from connector.odrl_forms.plain import plain
from tests.odrl.cases import NOW, PARTIES, leaf, offer, policy, purpose, request, rule, time, world
from tests.odrl.drawn import OPTIONS, Drawing, as_request, as_world

ENGLISH = re.compile(r"\b(is|was|are|the|not|of|it|to|no|first|nothing|constraint|permission|known|Denied|Permitted|Undecided)\b")
NAMES = re.compile(r"`[^`]*`|<[^>]*>|'[^']*'|“[^”]*”|/[\w/~-]+|odrl:\w+|urn:[\w:.-]+")
PAY = {"action": "odrl:compensate"}


def told(found: Any, asked: Request = request(), now: World | None = None, **options: Any) -> list[str]:  # noqa: B008
    decision = evaluate(found, asked, now or world(), options=Options(**options)).to_json()
    texts = {one["path"]: one["text"] for one in plain(found, "zh").to_json()["conditions"]}
    said = in_chinese(decision, texts=texts)
    return [said[reason] for reason in decision["reason"]]


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_chinese_sentence_of_its_own(code: Code):
    assert re.search("[一-鿿]", CODES[code])
    assert [one for one, said in CODES.items() if said == CODES[code]] == [code]


@pytest.mark.parametrize(
    ("found", "asked", "now", "says"),
    [
        (policy(rule()), request(), world(), "允许（要约 urn:o1, /permission/0）。"),
        (policy(rule(time("lt", "2030-01-01Z"))), request(), world(), "允许，至 2030-01-01T00:00:00Z（要约 urn:o1, /permission/0）。"),
        (policy(rule(purpose("isAnyOf", ["a", "b"]))), request("c"), world(),
         "拒绝：未满足：用于“a”或“b”；实际为 c（要约 urn:o1, /permission/0/constraint/0）。"),
        (policy(rule(purpose("eq", "a"))), request(), world(),
         "拒绝：尚不可知是否满足：用于“a”（要约 urn:o1, /permission/0/constraint/0）。"),
        (policy(rule(purpose("eq", "a"))), request(stage="catalog"), world(),
         "未定：尚不可知是否满足：用于“a”（要约 urn:o1, /permission/0/constraint/0）。"),
        (policy(rule(), prohibitions=(rule(),)), request(), world(), "拒绝：禁止 `use`（要约 urn:o1, /prohibition/0）。"),
        (policy(rule(), prohibitions=(rule(purpose("eq", "x")),)), request("x"), world(),
         "拒绝：禁止 `use`，因为：用于“x”（要约 urn:o1, /prohibition/0/constraint/0）。"),
        (policy(rule(duty=[PAY])), request(), world(),
         "拒绝：须先履行 compensate 的义务，而没有任何记录表明已履行（要约 urn:o1, /permission/0/duty/0）。"),
        (policy(rule(duty=[{"action": "odrl:anonymize", "assignee": "did:web:p"}])), request(), world(),
         "拒绝：须先由 <did:web:p> 履行 anonymize 的义务，而没有任何记录表明已履行（要约 urn:o1, /permission/0/duty/0）。"),
        (policy(rule(duty=[PAY])), request(), World(NOW, duties={"/permission/0/duty/0": "overdue"}),
         "拒绝：compensate 的义务已逾期（要约 urn:o1, /permission/0/duty/0）。"),
        (policy(prohibitions=(rule(),)), request(action="odrl:transfer"), world(), "拒绝：策略中没有许可（要约 urn:o1）。"),
        (policy(rule()), request(action="odrl:sell"), world(), "拒绝：没有许可涵盖行为 `odrl:sell`（要约 urn:o1, /permission）。"),
        (policy(rule(), target="urn:d"), request(target="urn:e"), world(), "拒绝：不涉及 `urn:e`（要约 urn:o1, /target）。"),
        (policy(rule(assignee=PARTIES[1])), request(), world(),
         f"拒绝：没有面向 `{PARTIES[0]}` 的 `use` 许可（要约 urn:o1, /permission）。"),
        (policy(rule(), prohibitions=(rule(),), **{"odrl:conflict": {"@id": "odrl:invalid"}}), request(), world(),
         "拒绝：它可能禁止 /permission/0 所允许的，因此整个策略无效（要约 urn:o1, /prohibition/0）。"),
        (policy(rule(purpose("eq", "a"))), request(*map(str, range(20))), world(), "拒绝：声明的值超过16个（要约 urn:o1）。"),
        (policy(rule({"xone": [purpose("eq", "a"), purpose("eq", "b")]})), request("c"), world(),
         "拒绝：未满足：用于“a”，用于“b”（要约 urn:o1, /permission/0/constraint/0）。"),
    ],
)  # fmt: skip
def test_each_sentence_of_the_engine_has_its_chinese_one(found: Any, asked: Request, now: World, says: str):
    assert told(found, asked, now)[0] == says


@settings(max_examples=200)
@given(st.integers(0, 2**64).map(Random), st.sampled_from(list(OPTIONS.values())))
def test_nothing_that_the_engine_says_stays_english(chance: Random, options: Options):
    drawing = Drawing(chance)
    try:
        found = load(drawing.policy(), options=options)
    except PolicyError:
        return
    decision = evaluate(found, as_request(drawing.asked(), chance), as_world(drawing.world()), options=options).to_json()
    texts = {one["path"]: one["text"] for one in plain(found, "zh").to_json()["conditions"]}
    for known in (texts, {}):  # the terms may be gone
        said = in_chinese(decision, texts=known)
        assert said.keys() >= {*decision["reason"], *(miss["change"] for miss in decision.get("near_misses", ()))}
        assert not [one for one in said.values() if ENGLISH.search(NAMES.sub("", one))]


def test_what_refuses_a_policy_is_told_by_the_codes_of_its_findings():
    found = load(offer(rule(leaf("urn:x:unheard-of", "eq", "a"), leaf("odrl:count", "lteq", "many"))), strict=False)
    decision = evaluate(found, request(), world()).to_json()
    said = in_chinese(decision)
    assert [said[reason] for reason in decision["reason"]] == [
        f"拒绝：{CODES[Code.OPERAND_UNSUPPORTED]}（要约 urn:o1, /permission/0/constraint/0/leftOperand）。",
        f"拒绝：{CODES[Code.TYPE_MISMATCH]}（要约 urn:o1, /permission/0/constraint/1/rightOperand）。",
    ]
    first = found.findings[0]
    assert said[str(first)] == f"{first.path}：{CODES[first.code]}"
    assert said[f"{first.message}; {first.fix}"] == CODES[first.code]


def test_a_sentence_of_somebody_else_is_told_by_its_code_or_stays():
    decision = evaluate(policy(rule()), request(), world()).to_json()
    revoked = {"code": "CREDENTIAL_REVOKED", "reasons": ["nobody vouches for `x` any more"]}
    assert in_chinese(decision, revoked)["nobody vouches for `x` any more"] == CODES[Code.CREDENTIAL_REVOKED]
    assert "we do not like it" not in in_chinese(decision, {"code": "own-word", "reasons": ["we do not like it"]})
    assert in_chinese({}, {"code": None, "reasons": None}) == {}
    failed = {"code": "EVALUATION_FAILED", "reason": ["Denied: the policy could not be evaluated; this is a fault of the connector."]}
    assert list(in_chinese(failed).values()) == [CODES[Code.EVALUATION_FAILED]]
