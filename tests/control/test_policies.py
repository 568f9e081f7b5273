import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector import odrl, remembered
from connector.control import policies as module
from connector.control.policies import Policies
from connector.errors import PolicyError, Refused, SettingsError
from connector.odrl import Operand, Options, Policy, Profile
from connector.odrl.registry import CHOICE
from connector.odrl_reading.reading import LEAVES_MAX
from connector.records.verdicts import Verdict
from connector.vocabulary import read_profiles
from tests.pair import OPEN, WAIT_SECONDS, only_for, purpose_policy, until_policy

BIO, D = "did:web:bio.example", "urn:d"
NOW = 1_800_000_000.0
UNKNOWN: dict[str, Any] = {
    "@type": "Offer",
    "permission": [{"action": "use", "constraint": [{"leftOperand": "urn:mood", "operator": "eq", "rightOperand": "good"}]}],
}


def instant(seconds_from_now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds_from_now))


def either(*policies: dict[str, Any]) -> dict[str, Any]:
    """One offer with the permissions of all."""
    return {"@type": "Offer", "permission": [rule for policy in policies for rule in policy["permission"]]}


def steps_in_time(steps: int, purposes: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A permission for each second to come, and the purposes of all of them."""
    named = [f"p{number}" for number in range(purposes)]
    limits = purpose_policy(*named)["permission"][0]["constraint"]
    bounds = [until_policy(instant(seconds + 1))["permission"][0]["constraint"] for seconds in range(steps)]
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": limits + bound} for bound in bounds]}, tuple(named)


def decide(policy: dict[str, Any], *purposes: str, now: float = NOW, party: str = BIO) -> Verdict:
    return Policies().decide(policy, party=party, target=D, purposes=purposes, claims={}, now=now, stage="negotiation")


def shows(policy: dict[str, Any], now: float = NOW, party: str = BIO) -> tuple[bool, float | None]:
    return Policies().shows(policy, party=party, target=D, claims={}, now=now)


def test_a_permission_without_end_holds_for_good():
    verdict = decide(OPEN)
    assert (verdict.permitted, verdict.result, verdict.ends) == (True, "permit", None)


def test_a_purpose_is_permitted_refused_with_a_reason_or_missing():
    policy = purpose_policy("research", "quality")
    assert decide(policy, "research").permitted
    refused = decide(policy, "marketing")
    assert (refused.permitted, refused.result) == (False, "deny")
    assert "marketing" in refused.reasons[0]
    assert "research" in refused.reasons[0], "who is refused can read what would have been taken"
    assert not decide(policy).permitted, "a purpose that is not said is not given"
    assert not decide(policy, "research", "marketing").permitted, "every purpose that is asked for has to be permitted"


def test_a_verdict_keeps_the_decision_and_the_facts_it_was_taken_on():
    document = decide(purpose_policy("research"), "marketing").document
    assert document["result"] == "deny"
    assert document["request"]["party"] == BIO
    assert {"value": ["marketing"], "source": "declared", "asserted_by": BIO} in document["facts"].values()
    assert document["rules"], "a reason for every rule"


def test_what_is_known_is_asked_for_with_the_first_policy_and_once():
    asked: list[Options] = []

    def known() -> Options:
        asked.append(Options(conflict="permit"))
        return asked[-1]

    policies = Policies(known)
    assert asked == []
    policies.parse(purpose_policy("research"))
    policies.parse(purpose_policy("quality"))
    assert [each.conflict for each in asked] == [policies.options.conflict] == ["permit"]


def test_no_policy_is_denied_where_nobody_knows_what_it_means(tmp_path: Path):
    """That would end for good what runs under it, and a connector that begins looks at all of it."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("id: mine\nversion: 1")
    policies = Policies(lambda: Options(profiles=read_profiles((tmp_path,))))
    for _ in range(2):
        with pytest.raises(SettingsError, match="cannot be used: mine"):
            policies.decide(OPEN, party=BIO, target=D, purposes=(), claims={}, now=NOW, stage="transfer")


def test_a_decision_has_an_id_and_the_digest_of_its_policy():
    """What is decided again at hand, without the engine, has an id of its own instant too."""
    known, policy = Policies(), purpose_policy("research")

    def asked(*purposes: str, now: float = NOW, of: dict[str, Any] = policy) -> Mapping[str, Any]:
        return known.decide(of, party=BIO, target=D, purposes=purposes, claims={}, now=now, stage="negotiation").document

    first, later, other = asked("research"), asked("research", now=NOW + 1), asked("marketing")
    assert first["id"] == asked("research")["id"] == decide(policy, "research").document["id"]
    assert len({first["id"], later["id"], other["id"], asked("research", of=purpose_policy("research", "quality"))["id"]}) == 4
    assert (first["policy_hash"], len(first["id"])) == (known.read(policy).key.hex(), 32)


def test_what_the_contract_alone_says_is_shown_by_the_agreement():
    liability = Operand("urn:x:liability", "liability", "", "term", "declarative", CHOICE, "contract", "contract-only", "agreement")
    held = {"leftOperand": "urn:x:liability", "operator": "eq", "rightOperand": "full"}
    agreement = {
        "@type": "Agreement", "@id": "urn:a", "target": D, "assigner": "did:web:hospital.example", "assignee": BIO,
        "timestamp": instant(-60), "permission": [{"action": "use", "constraint": [held]}],
    }  # fmt: skip
    options = Options(profiles=(Profile("x", operands=(liability,)),))
    policies = Policies(options)
    found = policies.decide(agreement, party=BIO, target=D, purposes=(), claims={}, now=NOW, stage="transfer")
    assert found.permitted
    assert found.document["facts"] == {
        "urn:x:liability": {
            "value": ["full"], "source": "contract", "asserted_by": "did:web:hospital.example", "evidence_ref": "urn:a",
        },
    }  # fmt: skip
    for number in range(2):
        alike = signed(number, 0, {"permission": agreement["permission"]}, target=D)
        again, anew = (
            each.decide(alike, party=BIO, target=D, purposes=(), claims={}, now=NOW, stage="transfer")
            for each in (policies, Policies(options))
        )
        assert again == anew, "its id is of its own facts"


def test_when_a_permission_ends_is_found_under_the_same_options_as_that_it_is_one():
    begins = {"leftOperand": "odrl:dateTime", "operator": "gteq", "rightOperand": {"@value": instant(35), "@type": "xsd:dateTime"}}
    policy = until_policy(instant(60)) | {"prohibition": [{"action": "use", "constraint": [begins]}]}
    ends = {}
    for conflict in ("prohibit", "permit"):
        asked = {"party": BIO, "target": "urn:d", "purposes": (), "claims": {}, "now": NOW, "stage": "negotiation"}
        ends[conflict] = Policies(Options(conflict=conflict)).decide(policy, **asked).ends
    assert ends == {"prohibit": NOW + 35, "permit": NOW + 60}


def test_a_permission_ends_when_the_last_of_its_rules_does():
    assert decide(until_policy(instant(60))).ends == NOW + 60
    two = either(until_policy(instant(60)), until_policy(instant(120)))
    assert decide(two).ends == NOW + 120, "an instant at which another rule goes on is passed over"
    assert decide(either(OPEN, until_policy(instant(60)))).ends is None
    over = decide(two, now=NOW + 120)
    assert (over.permitted, over.ends) == (False, None)


def test_the_end_is_found_too_where_a_decision_looks_ahead_to_a_part_of_the_instants_only():
    """The engine bounds its own work by constraints and purposes; it then names an instant at which it has to be asked again."""
    policy, purposes = steps_in_time(35, 5)
    assert decide(policy, *purposes).ends == NOW + 35


def test_however_a_policy_is_made_all_the_work_that_a_message_can_ask_for_has_an_end():
    """The most that can be read, for the most purposes: the end that is named may come early, never late."""
    policy, purposes = steps_in_time(35, 15)
    ours, engine = Policies(), list[str]()

    def profile(frame: Any, event: str, _arg: Any) -> None:
        if event == "call":
            engine.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        ours.admit(policy)
        verdict = ours.decide(policy, party=BIO, target=D, purposes=purposes, claims={}, now=NOW, stage="negotiation")
    finally:
        sys.setprofile(None)
    assert verdict.permitted
    assert verdict.ends is not None
    assert NOW < verdict.ends <= NOW + 35
    assert len(engine) < 20_000, "calls of functions: some ten milliseconds"


@pytest.mark.parametrize("parts", [LEAVES_MAX, 20 * LEAVES_MAX])
def test_a_policy_of_a_peer_that_is_too_large_is_refused_and_one_that_just_fits_is_taken(parts: int):
    ours, values = Policies(), [f"p{number}" for number in range(parts)]
    ours.admit(purpose_policy(*values[: LEAVES_MAX - 1]))  # beside the values there is the rule
    with pytest.raises(Refused, match=rf"more than {LEAVES_MAX} constraints and values; split") as refused:
        ours.admit(purpose_policy(*values))
    assert refused.value.code == "policy-too-large"
    assert "/permission/0/constraint/0" in refused.value.reasons[0]
    ours.admit(UNKNOWN)  # is denied where it is met, with its findings on record


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40, unique=True))
def test_the_end_of_a_permission_is_safe(bounds: list[int]):
    """It is never later than the true end; and it is the true end where all steps are looked at together."""
    ends = decide(either(*(until_policy(instant(bound)) for bound in bounds))).ends
    assert ends is not None
    assert ends <= NOW + max(bounds)
    assert ends == NOW + max(bounds)


def test_what_is_not_understood_is_denied_with_pointer_and_remedy():
    verdict = decide(UNKNOWN)
    assert (verdict.permitted, verdict.result, verdict.code) == (False, "deny", "POLICY_NOT_UNDERSTOOD")
    assert verdict.reasons[0].startswith("/permission/0/constraint/0")
    assert "urn:mood" in verdict.reasons[0]
    assert verdict.document["reason"] == list(verdict.reasons)
    errors = [finding for finding in verdict.document["findings"] if finding["severity"] == "error"]
    assert [finding["code"] for finding in errors] == [ground["code"] for ground in verdict.grounds]
    assert shows(UNKNOWN) == (False, None), "and shown to nobody"


def test_parsing_says_what_is_wrong_where_and_how_to_mend_it():
    error = Policies().parse(UNKNOWN)
    assert isinstance(error, PolicyError)
    finding = error.findings[0]
    assert finding.path.startswith("/permission/0/constraint/0/leftOperand")
    assert finding.fix
    assert finding.fix in error.reasons[0]
    assert error.__traceback__ is None, "what is remembered holds on to nothing that a peer sent"


@pytest.mark.parametrize(
    ("policy", "party", "expected"),
    [
        (OPEN, BIO, True),
        (only_for(BIO), BIO, True),
        (only_for("did:web:other.example"), BIO, False),
        (purpose_policy("research"), BIO, True),  # a purpose is said in the request
        (until_policy(instant(-1)), BIO, False),
        ({"@type": "Offer", "permission": []}, BIO, False),
        ({}, BIO, False),
    ],
)
def test_a_catalog_shows_everything_but_a_definite_no(policy: dict[str, Any], party: str, expected: bool):
    assert shows(policy, party=party)[0] is expected


def test_what_is_shown_for_a_time_says_until_when():
    assert shows(until_policy(instant(60))) == (True, NOW + 60)
    assert shows(OPEN) == (True, None)


def test_the_purposes_of_terms_are_what_every_permission_is_limited_to():
    ours = Policies()
    assert ours.purposes(purpose_policy("quality", "research")) == ("quality", "research")
    assert ours.purposes(OPEN) == ()
    assert ours.purposes(either(OPEN, purpose_policy("research"))) == (), "a permission for anything declares nothing"
    assert ours.purposes(UNKNOWN) == ()


def test_terms_are_the_same_whoever_is_named_and_however_they_are_written():
    ours = Policies()
    offered = purpose_policy("a", "b") | {"@id": "urn:offer"}
    agreed = purpose_policy("b", "a") | {"@id": "urn:other", "@type": "Agreement", "target": D, "assigner": "did:x", "assignee": BIO}
    agreed["timestamp"] = "2026-11-24T12:00:00Z"
    assert ours.same(offered, agreed)
    assert ours.differences(offered, agreed) == ()
    assert not ours.same(offered, purpose_policy("a"))
    assert ours.differences(offered, purpose_policy("a"))
    assert not ours.same(UNKNOWN, UNKNOWN), "what is not understood is not the same as anything"
    assert "urn:mood" in ours.differences(offered, UNKNOWN)[0]
    assert "urn:mood" in ours.differences(UNKNOWN, offered)[0]


def test_a_policy_is_parsed_once_in_whatever_order_its_members_stand():
    ours = Policies()
    first = ours.parse(purpose_policy("0"))
    assert ours.parse(dict(reversed(purpose_policy("0").items()))) is first


def signed(number: int, at: float, terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An agreement on these terms with an id and a time of its own."""
    id = f"urn:uuid:0194{number:04x}-0000-7000-8000-0123456789ab"
    return terms | {"@id": id, "@type": "Agreement", "timestamp": instant(at), "assigner": "did:web:p.example", "assignee": BIO} | more


def elapsed(duration: str) -> dict[str, Any]:
    """An offer that ends so long after it was agreed on."""
    limit = {"leftOperand": "odrl:elapsedTime", "operator": "lteq", "rightOperand": {"@value": duration, "@type": "xsd:duration"}}
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [limit]}]}


PARTIES = (BIO, "did:web:other.example")
ASKED: tuple[dict[str, Any], ...] = (
    OPEN,
    purpose_policy("research", "quality"),
    only_for(BIO),
    until_policy(instant(60)),
    either(purpose_policy("research"), until_policy(instant(60))),
    {"@type": "Offer", "permission": [{"action": "use", "duty": [{"action": "inform"}]}]},
    {"@type": "Agreement", "assigner": "did:web:p.example", "assignee": BIO, "target": D, "permission": [{"action": "use"}]},
    *(signed(number, number, purpose_policy("research"), target=D) for number in range(3)),
    *(signed(number, number, OPEN, target=D) for number in range(2)),
    *(signed(number, 60 * number, elapsed("PT1M"), target=D) for number in range(2)),
    *(signed(number, 9, {"permission": [{"action": "use", "duty": [{"action": "inform"}]}]}) for number in range(2)),
    signed(7, 7, {"permission": [{"action": "use", "target": "urn:uuid:01940007-0000-7000-8000-0123456789ab"}]}),
    UNKNOWN,
)


@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(ASKED),
            st.sampled_from(PARTIES),
            st.sampled_from([(), ("research",), ("marketing", "research")]),
            st.sampled_from([{}, {"odrl:purpose": ["research"]}, {"odrl:purpose": ["sale"]}]),
            st.sampled_from([NOW, NOW + 30, NOW + 61]),
            st.sampled_from(["catalog", "negotiation", "transfer"]),
            st.sampled_from([D, "urn:other"]),
            st.sampled_from(ASKED),
        ),
        min_size=2,
        max_size=30,
    )
)
def test_what_is_said_again_is_what_would_be_said_anew(asked: list[Any]):
    policies = Policies()
    for policy, party, purposes, claims, now, stage, target, other in asked:
        about: dict[str, Any] = {"party": party, "target": target, "claims": claims, "now": now}
        more: dict[str, Any] = {"purposes": purposes, "stage": stage}
        assert policies.decide(policy, **about, **more) == Policies().decide(policy, **about, **more)
        assert policies.shows(policy, **about) == Policies().shows(policy, **about)
        assert policies.same(policy, other) == Policies().same(policy, other)
        settled = policies.settle(policy, other, party=party, target=target)
        assert settled == Policies().settle(policy, other, party=party, target=target)


def test_what_a_claim_says_of_one_agreement_it_says_of_no_other():
    policies, agreements = Policies(), [signed(number, 0, purpose_policy("research"), target=D) for number in range(2)]
    about: dict[str, Any] = {"party": BIO, "target": D, "purposes": (), "now": NOW, "stage": "transfer"}
    claims = {"odrl:purpose": [agreements[0]["@id"]]}
    found = [policies.decide(each, claims=claims, **about) for each in agreements]
    assert found == [Policies().decide(each, claims=claims, **about) for each in agreements]
    assert agreements[0]["@id"] in str(found[1].document["facts"])


def test_a_document_that_was_changed_in_place_is_another_document():
    policies, policy = Policies(), purpose_policy("research")
    about: dict[str, Any] = {"party": BIO, "target": D, "claims": {}, "now": NOW, "purposes": ("research",), "stage": "negotiation"}
    assert policies.decide(policy, **about).permitted
    policy["permission"][0]["constraint"][0]["rightOperand"] = ["quality"]
    assert not policies.decide(policy, **about).permitted


def test_the_same_question_is_decided_once_where_time_has_no_say(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *given, **more: made.append(given) or evaluate(*given, **more))
    policies, about = Policies(), {"party": BIO, "target": D, "claims": {}, "now": NOW}
    for number in range(3):
        verdict = policies.decide(signed(number, number, OPEN, target=D), purposes=(), stage="transfer", **about)
        assert f"urn:uuid:0194{number:04x}" in verdict.document["reason"][0], "each agreement is called by its own name"
    assert len(made) == 1, "agreements that differ in nothing but their id and time"
    for policy, times in ((purpose_policy("research"), 1), (until_policy(instant(60)), 3)):
        made.clear()
        for _ in range(3):
            policies.decide(policy, purposes=("research",), stage="catalog", **about)
        assert len(made) == times
        made.clear()
        for _ in range(3):
            policies.shows(policy, **about)
        assert len(made) == times


def large(number: int) -> dict[str, Any]:
    """As much as can be read, in constraints."""
    atomic = [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": f"{number}-{each}"} for each in range(LEAVES_MAX - 2)]
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [{"or": atomic}]}]}


def unreadable(number: int) -> dict[str, Any]:
    """A finding for each of its words."""
    return {"@type": "Offer", "permission": [{"action": "use"} | {f"word{number}-{each}": "x" for each in range(99)}]}


# So many that all of them would take more than twice the bound.
@pytest.mark.parametrize(
    ("made", "count", "bound"),
    [
        (large, 8, 3 << 20),
        (unreadable, 60, 1 << 20),
        (lambda number: purpose_policy(*(f"{number}-{each}" for each in range(LEAVES_MAX - 1))), 30, 1 << 20),
    ],
    ids=["constraints", "findings", "values"],
)
def test_what_is_remembered_of_policies_is_bounded_in_bytes_whatever_peers_send(
    monkeypatch: pytest.MonkeyPatch, made: Any, count: int, bound: int
):
    monkeypatch.setattr(module, "REMEMBERED_BYTES_MAX", bound)
    monkeypatch.setattr(remembered, "SHARE", 1)  # what would never be kept would show nothing
    ours = Policies()
    for number in range(3):
        assert ours.parse(made(number)) is ours.parse(made(number))
    tracemalloc.start()
    try:
        for number in range(3, 3 + count):
            ours.parse(made(number))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < bound


def test_the_largest_policy_that_can_be_read_is_remembered_too():
    ours = Policies()
    assert ours.parse(large(0)) is ours.parse(large(0))
    assert isinstance(ours.parse(large(0)), Policy)


@pytest.mark.asyncio
async def test_differences_of_large_policies_are_not_found_on_the_loop():
    one, other = (purpose_policy_of(rules, shift) for rules, shift in ((200, 0), (200, 1)))
    known = Policies()
    start = time.thread_time()
    expected = known.differences(one, other)
    direct = time.thread_time() - start
    start = time.thread_time()
    assert await known.differences_aside(one, other) == expected
    assert time.thread_time() - start < direct / 2, "what this thread has done itself"
    assert len(expected) > 1
    small = (OPEN, purpose_policy("a"))
    assert await known.differences_aside(*small) == known.differences(*small)
    assert await known.differences_aside(UNKNOWN, one) == known.differences(UNKNOWN, one)


def purpose_policy_of(rules: int, shift: int) -> dict[str, Any]:
    """One permission for each purpose, with an end of its own."""
    ends = [until_policy(instant(seconds + shift + 1))["permission"][0]["constraint"] for seconds in range(rules)]
    named = [purpose_policy(f"p{number}")["permission"][0]["constraint"] for number in range(rules)]
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [*a, *b]} for a, b in zip(named, ends, strict=True)]}


@pytest.mark.asyncio
async def test_of_large_policies_one_is_read_at_a_time_and_each_is_found(monkeypatch: pytest.MonkeyPatch):
    both = threading.Barrier(2)
    apart: list[str] = []
    read: list[str] = []

    def load(document: Any, **more: Any) -> Any:
        read.append(document["@id"])
        try:
            both.wait(0.1)  # until another one is read as well
        except threading.BrokenBarrierError:
            apart.append(document["@id"])
        return odrl.load(document, **more)

    monkeypatch.setattr("connector.control.policies.load", load)
    monkeypatch.setattr("connector.control.policies.ASIDE_BYTES", 0)
    policies, offers = Policies(), [OPEN | {"@id": f"urn:o:{n}"} for n in (1, 2, 2)]
    await asyncio.gather(*(policies.read_aside(offer) for offer in offers))
    assert sorted(read) == sorted(apart) == ["urn:o:1", "urn:o:2"]
    for offer in offers:
        assert not isinstance(policies.parse(offer), PolicyError)
    assert len(read) == 2


@pytest.mark.asyncio
async def test_a_large_policy_is_read_while_all_threads_of_the_loop_wait_for_a_disk(monkeypatch: pytest.MonkeyPatch):
    loop, answers, ready = asyncio.get_running_loop(), threading.Event(), asyncio.Event()
    monkeypatch.setattr("connector.control.policies.ASIDE_BYTES", 0)
    monkeypatch.setattr("connector.control.policies.ASIDE_LEAVES", 0)
    loop.set_default_executor(ThreadPoolExecutor(1))

    def wait() -> None:
        loop.call_soon_threadsafe(ready.set)
        answers.wait()

    disk = loop.run_in_executor(None, wait)
    await ready.wait()
    policies = Policies(Options)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await policies.read_aside(OPEN)
            assert await policies.differences_aside(OPEN, OPEN) == ()
    finally:
        answers.set()
        await disk
