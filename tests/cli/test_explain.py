"""`connector explain`: a decision as a tree that can be read, and what the other side said; against connectors that run here."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connector.cli.explain import ABOUT, GROUPS, MARKS, WHEN, Language, Telling, explained
from connector.client.views import Explained
from connector.dsp.messages import Kind, Role
from connector.odrl import load
from connector.odrl.vocabulary import ODRL
from connector.odrl_forms.plain import plain
from tests import pair
from tests.cli.conftest import Command, Operated
from tests.cli.test_simulate import ENGLISH, NAMES
from tests.fake_connector import FakeConnector, problem
from tests.pair import agreement, fresh, purpose_policy, transfer

NOT_HERE = (404, problem(404, "not-found", "there is no such process"))
KIND = ("GET", "/v1/processes/urn%3Auuid%3An1")
TRANSFER = (200, {"kind": "transfer", "pid": "urn:uuid:n1"})
N, T = "/v1/negotiations/urn%3Auuid%3An1/decision", "/v1/transfers/urn%3Auuid%3An1/decision"
DECISION: dict[str, Any] = {
    "result": "deny",
    "code": "CONSTRAINT_UNSATISFIED",
    "stage": "transfer",
    "at": "2026-06-15T12:00:00.5Z",
    "valid_until": "2027-01-01T00:00:00Z",
    "reason": ["Denied: purpose 'marketing' is not one of 'research', 'quality' (agreement urn:a, /permission/0/constraint/0)."],
    "rules": [
        {
            "path": "/permission/0",
            "kind": "permission",
            "matches": {"action": True, "target": True, "assignee": True},
            "active": False,
            "constraints": [
                {
                    "path": "/permission/0/constraint/0",
                    "left": {"iri": "http://www.w3.org/ns/odrl/2/purpose", "label": "purpose"},
                    "operator": "isAnyOf",
                    "expected": ["research", "quality"],
                    "actual": "marketing",
                    "state": "unsatisfied",
                },
                {
                    "path": "/permission/0/constraint/1",
                    "operator": "or",
                    "state": "unknown",
                    "children": [
                        {
                            "path": "/permission/0/constraint/1/or/0",
                            "left": {"iri": "http://www.w3.org/ns/odrl/2/dateTime", "label": "dateTime"},
                            "operator": "lt",
                            "expected": ["2020-01-01Z"],
                            "actual": "2026-06-15T12:00:00Z",
                            "state": "unsatisfied",
                        },
                        {
                            "path": "/permission/0/constraint/1/or/1",
                            "left": {"iri": "http://www.w3.org/ns/odrl/2/spatial", "label": "spatial"},
                            "operator": "eq",
                            "expected": ["urn:eu"],
                            "actual": None,
                            "state": "unknown",
                        },
                    ],
                },
                {"path": "/permission/0/constraint/2", "left": "", "operator": "", "expected": [], "actual": None, "state": "unknown"},
            ],
        },
        {
            "path": "/permission/1",
            "kind": "permission",
            "matches": {"action": True, "target": False, "assignee": False},
            "active": False,
            "constraints": [],
        },
        {"path": "/prohibition/0", "kind": "prohibition", "matches": {}, "active": False, "constraints": []},
        {"path": "/prohibition/1", "kind": "prohibition", "matches": {}, "active": True, "constraints": []},
        {"path": "/prohibition/2", "kind": "prohibition", "matches": {}, "active": None, "constraints": []},
        {"path": "/obligation/0", "kind": "obligation", "matches": {}, "active": True, "constraints": [], "state": "overdue",
         "deontic": "Violated"},
    ],
    "abridged": True,
    "facts": {
        "http://www.w3.org/ns/odrl/2/purpose": {
            "value": ["marketing"], "source": "declared", "asserted_by": "did:web:biopharma.example", "as_of": "2026-06-15T11:00:00Z",
            "evidence_ref": "urn:e",
        },
        "http://www.w3.org/ns/odrl/2/payAmount http://dbpedia.org/resource/Euro": {"value": ["5"], "source": "meter"},
    },
    "residual": [{"path": "/t", "left": {"iri": "http://www.w3.org/ns/odrl/2/spatial"}, "operator": "eq", "expected": ["urn:eu"]}],
    "obligations_created": [{"path": "/permission/0/duty/2", "when": "post", "action": ["odrl:inform"], "state": "pending"}],
    "duties": [
        {
            "path": "/permission/0/duty/0",
            "when": "post",
            "action": ["http://www.w3.org/ns/odrl/2/delete"],
            "debtor": "did:web:biopharma.example",
            "state": "pending",
            "due_by": "2026-07-15T12:00:00Z",
            "blocking": False,
            "how_to_fulfil": {
                "action": ["http://www.w3.org/ns/odrl/2/delete", "http://www.w3.org/ns/odrl/2/inform"],
                "by": "did:web:biopharma.example",
                "target": ["urn:d"],
                "refinements": [
                    {"path": "/r", "left": {"iri": "http://www.w3.org/ns/odrl/2/media"}, "operator": "eq", "expected": ["disk"]},
                    {"path": "/s"},
                ],
                "with": {"informedParty": "did:web:hospital.example"},
            },
        },
        {"path": "/permission/0/duty/1", "when": "pre", "action": ["odrl:obtainConsent"], "debtor": "", "state": "pending", "due_by": None,
         "blocking": True},
    ],
    "counters": [{"rule": "/permission/0", "operand": "http://www.w3.org/ns/odrl/2/count", "used": 3, "reserved": 1, "limit": 10}],
    "near_misses": [{"path": "/permission/0/constraint/0", "change": "purpose is one of 'research', 'quality'"}],
    "findings": [
        {"code": "ZONE_MISSING", "path": "/permission/0", "message": "it has no time zone", "fix": "write one", "severity": "warning"}
    ],
}  # fmt: skip
REFUSAL = {
    "by": "us",
    "code": "CONSTRAINT_UNSATISFIED",
    "reasons": DECISION["reason"],
    "grounds": [
        {
            "code": "CONSTRAINT_UNSATISFIED",
            "policy": "urn:a",
            "rule": "/permission/0",
            "constraint": "/permission/0/constraint/0",
            "leftOperand": "odrl:purpose",
            "operator": "isAnyOf",
            "expected": ["research", "quality"],
            "actual": ["marketing"],
        },
        {"code": "PROHIBITED", "rule": "/prohibition/1"},
        {"code": "ELSEWHERE"},
    ],
}
PLAIN = {
    "sentences": ["Anybody may use it for “research” or “quality”."],
    "conditions": [{"path": "/permission/0/constraint/0", "text": "x", "held": "declared", "held_text": "declared by the other side"}],
}
VIEW: dict[str, Any] = {
    "kind": "transfer",
    "pid": "urn:uuid:n1",
    "role": "provider",
    "peer": "did:web:biopharma.example",
    "state": "TERMINATED",
    "dataset": "urn:d:1",
    "agreement": "urn:a",
    "decision": DECISION,
    "terms": {"@id": "urn:a", "permission": [{"action": "use"}]},
    "plain": PLAIN,
    "changes": ["the permission to use also asks that purpose is 'x'"],
    "refusal": REFUSAL,
}


def test_everything_that_a_decision_knows_stands_in_a_tree(
    command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]
):
    fake.answers |= {KIND: TRANSFER, ("GET", T): (200, VIEW)}
    golden("explain", command("explain", "urn:uuid:n1").out)
    assert fake.paths() == [" ".join(KIND), f"GET {T}?lang=en"]
    assert json.loads(command("explain", "urn:uuid:n1", "--json").out)["decision"] == DECISION


CHINESE_PLAIN = {
    "sentences": ["任何人可以使用该数据，用于“research”或“quality”。"],
    "conditions": [
        {"path": "/permission/0/constraint/0", "text": "用于“research”或“quality”", "held": "declared", "held_text": "由对方声明"}
    ],
}


def test_in_chinese_all_of_it_is_chinese_but_names_and_what_the_peer_has_said(
    command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]
):
    refused = {
        DECISION["reason"][0]: "拒绝：未满足：用于“research”或“quality”；实际为 marketing（协议 urn:a, /permission/0/constraint/0）。",
        "it has no time zone; write one": "没有时区，按 UTC 处理",
        VIEW["changes"][0]: "use 的许可还要求用途为'x'",
    }
    fake.answers |= {KIND: TRANSFER, ("GET", T): (200, VIEW | {"plain": CHINESE_PLAIN, "told": refused})}
    told = command("explain", "urn:uuid:n1", "--lang", "zh").out
    assert fake.paths() == [" ".join(KIND), f"GET {T}?lang=zh"]
    golden("explain-zh", told)
    english = command("explain", "urn:uuid:n1").out
    assert len(told.splitlines()) == len(english.splitlines())
    ours = [line for line in told.splitlines() if line not in english.splitlines()]
    assert not [line for line in ours if re.search(r"\b(is|was|the|not|of|it|used|found|by|at|next)\b", line)]
    heard = explained(msgspec.convert(VIEW | {"refusal": REFUSAL | {"by": "peer"}, "told": refused}, Explained), "zh")
    assert (1, REFUSAL["reasons"][0]) in list(heard), "what a peer has said stays as it was said"


@pytest.mark.parametrize(
    "phrase",
    [*ABOUT.values(), *GROUPS.values(), *WHEN.values(), *MARKS, "pending", "overdue", "fulfilled", "remediated", "inactive", "provider"],
)
def test_every_word_of_ours_has_a_chinese_one(phrase: str):
    assert not Telling("zh").say(phrase).isascii()
    assert Telling("en").say(phrase) == phrase


def test_text_that_looks_like_a_place_for_a_value_stays_as_it_is():
    assert Telling("zh").say("{0} {x}") == "{0} {x}"


def test_what_is_not_known_yet_has_one_sign_in_the_tree_and_in_the_grounds():
    ground = {"code": "CONSTRAINT_UNSATISFIED", "constraint": "/permission/0/constraint/1/or/1", "leftOperand": "odrl:spatial",
              "operator": "eq", "expected": ["urn:eu"]}  # fmt: skip
    assert "? spatial is urn:eu; not known" in lines()
    found = lines(refusal=REFUSAL | {"grounds": [ground]})
    assert "? spatial is urn:eu (at /permission/0/constraint/1/or/1)" in found
    theirs = lines(decision=None, refusal=REFUSAL | {"by": "peer", "grounds": [ground | {"code": "CONSTRAINT_UNKNOWN"}]})
    assert "? spatial is urn:eu (at /permission/0/constraint/1/or/1)" in theirs


def test_a_pid_that_is_nothing_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[KIND] = NOT_HERE
    ended = command("explain", "urn:uuid:n1")
    assert (ended.code, "no negotiation or transfer `urn:uuid:n1`" in ended.err) == (1, True)


def lines(**changed: Any) -> list[str]:
    return [text for _, text in explained(msgspec.convert(VIEW | changed, Explained))]


def test_what_is_not_there_is_said_instead():
    found = lines(decision=None, refusal=None, terms=None, plain=None, changes=[])
    assert "nothing was decided here, and the peer has given no reason: whether it may be is the peer's to decide" in found
    assert "the terms that were judged are not here any more: their offer was withdrawn or replaced" in found


def test_a_peer_that_gave_strings_only_or_nothing_is_shown_as_well():
    theirs = {"by": "peer", "code": None, "reasons": ["policy mismatch"], "grounds": []}
    assert {"said by did:web:biopharma.example: no code", "policy mismatch"} <= set(lines(refusal=theirs))
    assert "no reason was given" in lines(refusal=theirs | {"reasons": []})


def test_a_message_that_nobody_took_is_why_a_process_stands_still_and_nobodys_refusal():
    unanswered = {"by": None, "code": "no-answer", "reasons": ["the provider is not reached"], "grounds": []}
    found = lines(decision=None, refusal=unanswered)
    assert {"a message of ours was not taken by did:web:biopharma.example: no-answer", "the provider is not reached"} <= set(found)
    assert not any(text.startswith("nothing was decided here") for text in found)


def test_a_decision_of_which_little_was_kept_is_shown_as_far_as_it_goes():
    found = lines(decision={"result": "deny", "code": "POLICY_NOT_UNDERSTOOD", "reason": ["no"], "findings": []}, plain=None)
    assert "✗ deny POLICY_NOT_UNDERSTOOD" in [text.strip() for text in found]
    assert "use" in found, "the terms, in the words of this command"


def test_a_tree_that_is_too_deep_is_cut():
    node: dict[str, Any] = {
        "path": "/x",
        "left": {"iri": "a"},
        "operator": "eq",
        "expected": ["deepest"],
        "actual": None,
        "state": "unknown",
    }
    for _ in range(200):
        node = {"path": "/x", "operator": "and", "state": "unknown", "children": [node]}
    rule = {"path": "/permission/0", "kind": "permission", "active": None, "constraints": [node]}
    found = lines(decision={"result": "unknown", "rules": [rule]})
    assert sum(text == "? all of these" for text in found) == 9
    assert not any("deepest" in text for text in found)


@pytest.mark.asyncio
async def test_a_refusal_explains_itself_on_both_sides(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        dataset = fresh("dataset")
        view = await two.provider.publish(dataset, purpose_policy("research", "quality"))
        offer, body = view["offers"][0]["id"], {"peer": "hospital", "dataset": dataset, "purposes": ["marketing"]}
        begun = await two.consumer.asked("POST", "/negotiations", body, status=201)
        await two.consumer.state(Kind.NEGOTIATION, begun["pid"], "TERMINATED")
        (theirs,) = (await two.provider.asked("GET", "/negotiations"))["items"]

        ours, others = await operated(two.provider, "explain", theirs["pid"]), await operated(two.consumer, "explain", begun["pid"])
        assert ours.code == others.code == 0, (ours.err, others.err)
        sentence = f"Denied: purpose 'marketing' is not one of 'research', 'quality' (offer {offer}, /permission/0/constraint/0)."
        for ended in (ours, others):
            assert sentence in ended.out
            assert (
                f"✗ purpose is one of research, quality; found marketing (rule /permission/0, at /permission/0/constraint/0, {offer})"
                in ended.out
            )
        assert "✗ deny CONSTRAINT_UNSATISFIED" in ours.out
        assert "✗ permission /permission/0 does not grant" in ours.out
        assert "✗ purpose is one of research, quality; found marketing, declared by the other side" in ours.out
        assert "it would be permitted if\n    purpose is one of 'research', 'quality' (/permission/0/constraint/0)" in ours.out
        assert f"we have told {two.consumer.site.id}: CONSTRAINT_UNSATISFIED" in ours.out
        assert "decided here" not in others.out
        assert f"said by {two.provider.site.id}: CONSTRAINT_UNSATISFIED" in others.out
        document = json.loads((await operated(two.consumer, "explain", begun["pid"], "--json")).out)
        assert document["refusal"]["grounds"][0]["actual"] == ["marketing"]


@pytest.mark.asyncio
async def test_in_chinese_nothing_of_a_negotiation_stays_english(tmp_path: Path, operated: Operated):
    async with pair.pair(tmp_path / "x") as two:
        every: list[str] = []
        care, both = purpose_policy("care"), purpose_policy("care", "research")
        until = {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2090-01-01Z", "@type": "xsd:date"}}
        shorter = care | {"permission": [care["permission"][0] | {"constraint": [*care["permission"][0]["constraint"], until]}]}
        for dataset, on_offer, wanted in (
            ("urn:z:over", shorter, both),
            ("urn:z:within", both, care),
            ("urn:z:apart", care, purpose_policy("x")),
        ):
            view = await two.provider.publish(dataset, on_offer, counter="auto-counter")
            asked = {"peer": "hospital", "dataset": dataset, "offer": view["offers"][0]["id"], "policy": wanted}
            begun = await two.consumer.asked("POST", "/negotiations", asked, status=201)
            done = await two.consumer.until(Kind.NEGOTIATION, begun["pid"], lambda process: process.state not in ("INITIAL", "REQUESTED"))
            assert done.peer_pid is not None
            for side, pid in ((two.provider, done.peer_pid), (two.consumer, begun["pid"])):
                told = (await operated(side, "explain", pid, "--lang", "zh")).out
                said = told.partition("的说明")[0]  # what the peer has said stays as it was said
                assert [line for line in said.splitlines() if ENGLISH.search(NAMES.sub("", line))] == [], told
                every.append(told)
        for phrase in (
            "与我方的不同\n  use 的许可",
            "与对方请求的不同\n  use 的许可",
            "use 的许可还要求时间不晚于2090-01-01Z",
            "拒绝：未满足：",
        ):
            assert any(phrase in told for told in every), every


@pytest.mark.asyncio
async def test_a_transfer_is_explained_by_its_agreement(tmp_path: Path, operated: Operated):
    async with pair.desk(tmp_path / "x") as desk:
        agreed = agreement(desk.us, desk.peer, Role.PROVIDER, policy=purpose_policy("care"))
        process = await desk.us.put(transfer(desk.us, desk.peer, "STARTED", Role.PROVIDER, agreed), agreed)
        ended = await operated(desk.us, "explain", process.pid)
        assert ended.code == 0
        assert f"transfer    {process.pid}" in ended.out.splitlines()[0]
        assert "for “care”" in ended.out


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_money_is_told_with_its_currency_by_its_code(lang: Language):
    eur = "http://publications.europa.eu/resource/authority/currency/EUR"
    limit = {"leftOperand": "odrl:payAmount", "operator": "lteq", "rightOperand": "12", "odrl:unit": {"@id": eur}}
    document = {"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": [limit]}]}
    policy = load({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], **document})
    node = {
        "path": "/permission/0/constraint/0",
        "left": {"iri": ODRL + "payAmount"},
        "operator": "lteq",
        "expected": ["12"],
        "actual": "15",
    }
    rule = {"path": "/permission/0", "kind": "permission", "active": False, "constraints": [node | {"state": "unsatisfied"}]}
    found = Explained("transfer", "t", "provider", "did:web:b", "TERMINATED", decision={"result": "deny", "rules": [rule]},
                      terms=document, plain=plain(policy, lang).to_json())  # fmt: skip
    said = "\n".join(text for _, text in explained(found, lang))
    assert "12 EUR" in said
    assert "publications.europa.eu" not in said
    assert {"en": "✗ amount paid is at most 12 EUR; found 15", "zh": "✗ 支付金额不超过12 EUR；实际为 15"}[lang] in said


def test_how_a_duty_that_the_other_side_waits_for_is_fulfilled_is_told_under_its_ground():
    how = DECISION["duties"][0]["how_to_fulfil"]
    ground = {"code": "DUTY_NOT_FULFILLED", "rule": "/permission/0", "path": "/permission/0/duty/0", "how_to_fulfil": how}
    for by in ("us", "peer"):
        found = list(explained(msgspec.convert(VIEW | {"refusal": REFUSAL | {"by": by, "grounds": [ground]}}, Explained), "en"))
        at = found.index((1, "✗ DUTY_NOT_FULFILLED (rule /permission/0, at /permission/0/duty/0)"))
        assert found[at + 1] == (
            2,
            "to be on record: delete and inform where media is disk and a constraint that is not understood (/s) on urn:d"
            " with did:web:hospital.example by did:web:biopharma.example",
        )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_limit_that_counts_from_a_status_is_told_with_it(lang: Language):
    asked = {"operator": "lteq", "expected": ["5"], "status": "4"}
    ground = asked | {"code": "QUOTA_EXHAUSTED", "leftOperand": "odrl:count", "actual": ["2"], "constraint": "/p"}
    leaf = asked | {"path": "/p", "left": {"iri": "http://www.w3.org/ns/odrl/2/count"}, "actual": "2", "state": "unsatisfied"}
    said = {"en": "count <= 5 with 4 used; found 2", "zh": "count <= 5（此前已用4）；实际为 2"}[lang]
    telling = Telling(lang)
    for lines in (telling.grounds([ground], 0), telling._constraint(leaf, 0, 1)):
        ((_, line),) = lines
        assert said in line
