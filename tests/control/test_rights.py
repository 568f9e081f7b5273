"""The decision on a transfer and what follows from it: each cause by itself, each state that it may come in, and any order of both."""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.control.negotiate import Reaction
from connector.control.policies import Policies
from connector.control.rights import Rights, Ruling, charge, follow
from connector.control.transfers import Views
from connector.control_billing.affording import RETURNS
from connector.dataplane.edr import Tokens
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate
from connector.dsp import exchange
from connector.dsp.exchange import Process
from connector.dsp.messages import Message, Move, Role
from connector.errors import ConnectorError, Contradiction, Refused, TokenRefused, Withdrawn
from connector.odrl import Options, load
from connector.odrl.counters import Pricing, Tally
from connector.odrl.operands import BYTE_COUNT, COUNT
from connector.ports import SIGNED_REQUESTS, Caller, Participant
from connector.records import Agreement, Changes, Conflict, Dataset, Expect, Reservation, Usage
from connector.records.aside import TAKEN_MAX, taken_id
from connector.records.verdicts import Verdict
from connector.values import replace
from connector.vocabulary import read_profiles
from tests.contracts.identity_contract import SetClock
from tests.control.running import DATASET, Live, assembled
from tests.control.test_rights_running import HEALTH, in_the_industry
from tests.dataplane.rig import CONSUMER, KEY, PROVIDER, STRANGER, Counted
from tests.metering_bills.priced import money, price
from tests.pair import OPEN, fresh, only_for

START, SUSPENSION, COMPLETION, TERMINATION = Move.START, Move.SUSPENSION, Move.COMPLETION, Move.TRANSFER_TERMINATION
ARMS: Mapping[str, Any] = {"odrl:industry": ("arms",)}
T0 = SetClock().at


def at(seconds: float) -> str:
    return datetime.fromtimestamp(T0 + seconds, UTC).isoformat().replace("+00:00", "Z")


def constraint(left: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def instant(operator: str, seconds: float) -> dict[str, Any]:
    return constraint("odrl:dateTime", operator, {"@value": at(seconds), "@type": "xsd:dateTime"})


def permission(*constraints: Mapping[str, Any]) -> dict[str, Any]:
    return {"action": "use"} | ({"constraint": list(constraints)} if constraints else {})


def terms(*permissions: Mapping[str, Any]) -> dict[str, Any]:
    return {"@type": "Offer", "permission": list(permissions)}


def until(seconds: float) -> dict[str, Any]:
    return terms(permission(instant("lt", seconds)))


def between(start: float, end: float) -> dict[str, Any]:
    return terms(permission(instant("gteq", start), instant("lt", end)))


def times(count: int, *more: Mapping[str, Any]) -> dict[str, Any]:
    return permission(constraint("odrl:count", "lteq", {"@value": str(count), "@type": "xsd:integer"}), *more)


def bench() -> Live:
    """Transfers without a listener, on a clock that a test sets, and a gate before them."""
    clock = SetClock()
    flows = Flows(clock, lambda _: None)
    tokens = Tokens(
        PROVIDER, "https://data.example", signer=lambda: KEY, key_of=lambda _: KEY.key.public, clock=clock, ids=Counted(), token_seconds=300
    )
    rig = SimpleNamespace(clock=clock, flows=flows, tokens=tokens)
    made = assembled(rig, MemoryStore())
    rig.gate = Gate(tokens, made.views, flows, clock)
    return made


async def opened(*policies: Mapping[str, Any]) -> Live:
    made = bench()
    await made.publish(*policies)
    return made


async def ruled(made: Live, agreement: Agreement, **options: Any) -> Ruling:
    return await made.rights.under(agreement, {}, made.now(), made.now(), **options)


# The ruling


@pytest.mark.parametrize(
    ("policy", "seconds", "code", "ends", "returns", "passing"),
    [
        pytest.param(OPEN, 0, "PERMITTED", None, None, False, id="for anything"),
        pytest.param(until(10), 0, "PERMITTED", 10, None, False, id="for a time"),
        pytest.param(until(10), 10, "EXPIRED", None, None, False, id="that is over"),
        pytest.param(between(10, 20), 0, "NOT_YET_VALID", None, 10, True, id="that is to come"),
        pytest.param(terms(permission(instant("lt", 10)), permission(instant("gteq", 20))), 10, None, None, 20, True, id="in two parts"),
        pytest.param(terms(permission(instant("lt", 10)), permission(instant("lt", 20))), 0, "PERMITTED", 20, None, False, id="the longer"),
        pytest.param(in_the_industry("health"), 0, "CONSTRAINT_UNKNOWN", None, None, True, id="for those of whom something is known"),
        pytest.param(only_for(STRANGER), 0, "CONSTRAINT_UNSATISFIED", None, None, False, id="for others"),
        pytest.param(
            {"permission": [{"action": "use", "mood": "good"}]}, 0, "POLICY_NOT_UNDERSTOOD", None, None, True, id="in other words"
        ),
    ],
)
@pytest.mark.asyncio
async def test_a_refusal_passes_if_it_has_a_date_or_if_something_is_missing(
    policy: Mapping[str, Any], seconds: float, code: str | None, ends: float | None, returns: float | None, passing: bool
):
    made = await opened()
    agreement = await made.agree(policy)
    made.rig.clock.at = T0 + seconds
    ruling = await ruled(made, agreement)
    assert code in (None, ruling.verdict.code)
    assert (ruling.permitted, ruling.passing) == (code == "PERMITTED", passing)
    assert [None if each is None else each - T0 for each in (ruling.ends, ruling.returns)] == [ends, returns]


@pytest.mark.parametrize("policy", [OPEN, until(20)])
@pytest.mark.asyncio
async def test_the_end_of_the_agreement_is_a_bound_beside_those_of_its_policy(policy: Mapping[str, Any]):
    made = await opened()
    agreement = await made.agree(policy, ends=T0 + 10)
    assert (await ruled(made, agreement)).ends == T0 + 10
    made.rig.clock.at = T0 + 10
    over = await ruled(made, agreement)
    assert (over.verdict.code, over.verdict.reasons, over.passing) == ("EXPIRED", ("the agreement has ended",), False)


@pytest.mark.asyncio
async def test_a_peer_for_whom_nobody_vouches_has_no_right_whatever_the_policy_says_until_the_agreement_ends():
    made = await opened()
    agreement = await made.agree(OPEN, ends=T0 + 10)
    made.identity.say(CONSUMER, None)
    ruling = await ruled(made, agreement)
    assert (ruling.verdict.code, ruling.passing, ruling.ends, ruling.claims) == ("CREDENTIAL_REVOKED", True, T0 + 10, None)
    assert CONSUMER in ruling.verdict.reasons[0]


@pytest.mark.asyncio
async def test_claims_that_have_lapsed_are_not_known_and_count_only_where_the_policy_asks_for_them():
    made = await opened()
    made.identity.claims[CONSUMER], made.identity.lapse[CONSUMER] = HEALTH, T0 + 5
    careful, open_to_all = await made.agree(in_the_industry("health")), await made.agree(OPEN)
    assert (await ruled(made, careful)).expires == T0 + 5
    made.rig.clock.at = T0 + 5
    ruling = await ruled(made, careful)
    assert (ruling.verdict.code, ruling.passing, ruling.claims) == ("CONSTRAINT_UNKNOWN", True, {})
    assert (await ruled(made, open_to_all)).permitted


@pytest.mark.asyncio
async def test_a_closed_agreement_permits_nothing_and_says_who_said_why():
    made = await opened()
    agreement = await made.agree(OPEN)
    closed = await made.operations.close(agreement.id, "the study is over")
    ruling = await ruled(made, closed)
    assert (ruling.verdict.code, ruling.passing) == ("AGREEMENT_CLOSED", False)
    assert ruling.verdict.reasons == ("the agreement was closed: the study is over",)
    assert ruling.verdict.document["reason"] == list(ruling.verdict.reasons)


@pytest.mark.asyncio
async def test_nothing_runs_under_an_agreement_that_was_altered_or_of_whose_prices_nobody_could_say_what_is_owed():
    live = bench()
    await live.publish()
    priced = terms(permission() | {"duty": [price("0.5", "megabyte")]})
    good = await live.agree(priced)
    now = live.now()
    assert (await live.rights.under(good, {}, now + 60, now)).permitted
    for document in (
        {**good.document, "permission": [permission() | {"duty": [price("0.05", "megabyte")]}]},
        {**good.document, "permission": [permission()]},
    ):
        altered = await live.rights.under(replace(good, document=document, version=9), {}, now + 60, now)
        assert (altered.permitted, altered.verdict.code, altered.passing) == (False, "agreement-altered", False)
        assert "restore it from the ledger or a backup" in altered.verdict.reasons[0]
    unknown = await live.agree(terms(permission() | {"duty": [price("0.5", "furlong")]}))
    assert (ruling := await live.rights.under(unknown, {}, now + 60, now)).verdict.code == "prices-unreadable"
    assert (ruling.passing, len(ruling.verdict.reasons)) == (True, 2), "a profile may be loaded that knows the unit"
    process = await live.begin(good)
    altered_now = replace(good, document={**good.document, "permission": [permission()]}, version=good.version + 1)
    await live.journal.commit(Changes(saves=(altered_now,)))
    view = await live.views.lookup(process.pid)
    assert (view.withheld if view is not None else None) == "agreement-altered", "nothing leaves, also of what runs"


@pytest.mark.asyncio
async def test_data_that_are_not_published_cannot_be_used_now():
    made = bench()
    ruling = await ruled(made, await made.agree(OPEN))
    assert (ruling.verdict.code, ruling.passing, ruling.dataset) == ("dataset-withdrawn", True, None)


@pytest.mark.parametrize(
    ("offers", "age", "code", "ends"),
    [
        pytest.param([only_for(STRANGER)], 0, "POLICY_REPLACED", None, id="no offer permits it"),
        pytest.param([only_for(STRANGER), OPEN], 0, "PERMITTED", 30, id="another does"),
        pytest.param([until(10), until(20)], 0, "PERMITTED", 20, id="the longest counts"),
        pytest.param([until(40)], 0, "PERMITTED", 30, id="and the agreement's own bound"),
        pytest.param([terms(times(1))], 0, "PERMITTED", 30, id="what offers count is not counted"),
        pytest.param([only_for(STRANGER)], -1, "PERMITTED", 30, id="an agreement made after them is on its own"),
    ],
)
@pytest.mark.asyncio
async def test_binding_offers_count_for_agreements_made_before(offers: list[Any], age: float, code: str, ends: float | None):
    made = bench()
    agreement = await made.agree(until(30), created=T0 - age)
    await made.publish(*offers, binding=T0)
    ruling = await ruled(made, agreement)
    assert (ruling.verdict.code, ruling.ends) == (code, None if ends is None else T0 + ends)
    if code == "POLICY_REPLACED":
        assert f"dataset `{DATASET}`" in ruling.verdict.reasons[0]
        assert len(ruling.verdict.reasons) == 1, "what is meant for others says nothing to it"
        (kept,) = ruling.verdict.document["offers"]
        assert (kept["code"], STRANGER in str(kept["reason"])) == ("CONSTRAINT_UNSATISFIED", True), "its operator reads all"


@pytest.mark.asyncio
async def test_of_new_terms_a_peer_reads_those_that_its_catalog_shows_wherever_they_stand():
    made = bench()
    agreement = await made.agree(OPEN, created=T0 - 1)
    await made.publish(only_for(STRANGER), terms(permission(constraint("odrl:purpose", "eq", "health"))), binding=T0)
    ruling = await ruled(made, agreement)
    assert ruling.verdict.code == "POLICY_REPLACED"
    assert "purpose" in ruling.verdict.reasons[1]
    assert STRANGER not in str((ruling.verdict.reasons, ruling.verdict.grounds))
    assert [each["offer"] for each in ruling.verdict.document["offers"]] == [offer.id for offer in ruling.dataset.offers]


@pytest.mark.parametrize("policy", [until(10), terms(permission(instant("lt", 10), constraint("odrl:industry", "eq", "health")))])
@pytest.mark.asyncio
async def test_an_agreement_that_ends_by_its_own_terms_names_the_rule_and_the_value(policy: Mapping[str, Any]):
    made = await opened()
    agreement = await made.agree(policy, ends=T0 + 10)
    made.rig.clock.at = T0 + 10
    ruling = await ruled(made, agreement)
    assert (ruling.verdict.code, ruling.passing) == ("EXPIRED", False)
    assert at(10) in " ".join(ruling.verdict.reasons)
    assert ruling.verdict.grounds[0]["constraint"].startswith("/permission/0/constraint/0")


@pytest.mark.asyncio
async def test_a_large_agreement_is_read_while_others_have_their_turn(monkeypatch: pytest.MonkeyPatch):
    """One of 800 parts takes 25 ms and more, and the first transfer under it is asked for long after it was made."""
    threads: list[int] = []
    for module in ("policies", "terms"):
        monkeypatch.setattr(f"connector.control.{module}.load", lambda *a, **k: (threads.append(threading.get_ident()), load(*a, **k))[1])
    monkeypatch.setattr("connector.control.policies.ASIDE_BYTES", 0)
    made = await opened()
    agreement = await made.agree(until(10))
    threads.clear()
    fresh_rights = [Rights(made.store, Policies(), made.identity) for _ in range(3)]  # type: ignore[arg-type]
    await fresh_rights[0].under(agreement, {}, made.now(), made.now())
    await fresh_rights[1].counts(agreement)
    await fresh_rights[2].demanded(agreement)
    assert len(threads) == 3
    assert threading.get_ident() not in threads


@pytest.mark.asyncio
async def test_a_transfer_under_an_agreement_that_is_not_stored_has_no_right():
    made = await opened()
    process = await made.run(OPEN)
    ruling = await made.rights.of(replace(process, agreement="urn:nothing"), T0)
    assert ruling is not None
    assert (ruling.verdict.code, ruling.passing) == ("unknown-agreement", False)


@pytest.mark.parametrize(("by", "known"), [(None, False), ("peer", False), ("us", True)])
@pytest.mark.asyncio
async def test_where_we_consume_there_is_nothing_to_say_unless_we_have_closed_the_agreement(by: str | None, known: bool):
    made = await opened()
    agreement = await made.agree(OPEN, closed=T0 if by else None, closed_by=by)
    ruling = await made.rights.of(replace(transfer_of(agreement), role=Role.CONSUMER), T0)
    assert (ruling is not None) is known


def transfer_of(agreement: Agreement, state: str = "STARTED", **changed: Any) -> Process:
    made = Process(
        exchange.Kind.TRANSFER, "urn:t", Role.PROVIDER, CONSUMER, "https://peer.test", state, "urn:theirs",
        dataset=DATASET, agreement=agreement.id, detail={"format": "HttpData-PULL"},
    )  # fmt: skip
    return replace(made, **changed)


# What is kept of it


@pytest.mark.asyncio
async def test_an_equal_ruling_changes_nothing_and_an_early_look_does_not_move_the_instant_at_which_claims_lapse():
    made = await opened()
    made.identity.claims[CONSUMER], made.identity.lapse[CONSUMER] = HEALTH, T0 + 10
    process = await made.run(in_the_industry("health"))
    assert process.detail["claims_expire"] == process.due == T0 + 10
    made.rig.clock.at, made.identity.lapse[CONSUMER] = T0 + 1, T0 + 11  # as a registry has it
    ruling = await made.rights.of(process, made.now())
    assert ruling is not None
    assert follow(process, ruling, made.now()) is None
    assert ruling.kept(process, T0 + 10)["claims_expire"] == T0 + 11, "once they would lapse it is"
    made.identity.lapse[CONSUMER] = T0 + 5
    sooner = await made.rights.of(process, made.now())
    assert sooner is not None
    assert sooner.kept(process, made.now())["claims_expire"] == T0 + 5, "and at once if they lapse sooner"


@pytest.mark.asyncio
async def test_the_time_for_what_a_use_obliges_to_runs_from_the_first_decision_and_not_from_the_last():
    made = await opened()
    month = constraint("odrl:delayPeriod", "lteq", {"@value": "P30D", "@type": "xsd:duration"})
    after = [constraint("odrl:event", "gt", {"@id": "odrl:policyUsage"}), month]
    process = await made.run(terms(permission() | {"duty": [{"action": "odrl:delete", "constraint": after}]}))
    (owed,) = process.detail["decision"]["obligations_created"]
    assert owed["due_by"] == at(30 * 86_400 + 1e-6), "the instant from which it is overdue"
    made.rig.clock.at = T0 + 86_400
    ruling = await Rights(made.store, Policies(), made.identity).of(process, made.now())  # those of another life, who remember nothing
    assert ruling is not None
    assert follow(process, ruling, made.now()) is None


@pytest.mark.asyncio
async def test_a_start_is_not_written_on_an_agreement_or_a_dataset_that_is_another_meanwhile():
    made = await opened()
    agreement = await made.agree(OPEN)
    reaction = await made.transfers.start(transfer_of(agreement, "REQUESTED"), T0)
    assert set(reaction.expects) == {Expect(Agreement, agreement.id, 0), Expect(Dataset, DATASET, 1)}
    await made.operations.close(agreement.id, "over")
    written = await made.journal.commit(Changes(expects=reaction.expects, saves=(reaction.process,)))
    assert written == Conflict(Expect(Agreement, agreement.id, 0))


# What follows from it: of every state, message in flight, and mark that a transfer of ours can have

PERMITTED = Ruling(Verdict(True, "permit", "PERMITTED", (), None, {"result": "permit"}), None)
PASSING = Ruling(Verdict(False, "deny", "CONSTRAINT_UNKNOWN", ("not known",), None, {"result": "deny"}), None)
ENDED = Ruling(Verdict(False, "deny", "PROHIBITED", ("no",), None, {"result": "deny"}), None)
HELD = {"held": "CONSTRAINT_UNKNOWN"}
AGAIN = HELD | {"again": T0}

# state, in flight, halted, marks, ruling -> act, meant, halted, marks; None: nothing follows but that it is kept
FOLLOWS = [
    ("STARTED", None, False, {}, PERMITTED, None, "STARTED", False, {}),
    ("STARTED", None, False, {}, PASSING, SUSPENSION, "SUSPENDED", True, HELD),
    ("STARTED", None, False, {}, ENDED, TERMINATION, "TERMINATED", False, {}),
    # our suspension is on its way, or was refused: access is taken away already
    ("STARTED", SUSPENSION, True, HELD, PASSING, None, "SUSPENDED", True, HELD),
    ("STARTED", SUSPENSION, True, HELD, PERMITTED, None, "SUSPENDED", True, AGAIN),
    ("STARTED", SUSPENSION, True, HELD, ENDED, TERMINATION, "TERMINATED", True, HELD),
    ("STARTED", None, True, HELD, PASSING, None, "SUSPENDED", True, HELD),
    ("STARTED", None, True, HELD, PERMITTED, None, "STARTED", False, {}),
    # it was suspended by us, and waits
    ("SUSPENDED", None, True, HELD, PASSING, None, "SUSPENDED", True, HELD),
    ("SUSPENDED", None, True, HELD, PERMITTED, START, "STARTED", False, {}),
    ("SUSPENDED", None, True, AGAIN, PERMITTED, START, "STARTED", False, {}),
    ("SUSPENDED", None, True, HELD, ENDED, TERMINATION, "TERMINATED", True, HELD),
    # somebody else has suspended it: nothing starts it again by itself
    ("SUSPENDED", None, False, {}, PERMITTED, None, "SUSPENDED", False, {}),
    ("SUSPENDED", None, True, {}, PERMITTED, None, "SUSPENDED", True, {}),
    ("SUSPENDED", None, False, {}, PASSING, None, "SUSPENDED", False, {}),
    ("SUSPENDED", None, False, {}, ENDED, TERMINATION, "TERMINATED", False, {}),
    # a start is on its way: it may have arrived, so the suspension has to follow it
    ("SUSPENDED", START, False, {}, PASSING, None, "SUSPENDED", True, AGAIN),
    ("REQUESTED", START, False, {}, PASSING, None, "SUSPENDED", True, AGAIN),
    ("SUSPENDED", START, True, AGAIN, PASSING, None, "SUSPENDED", True, AGAIN),
    ("SUSPENDED", START, True, AGAIN, PERMITTED, None, "STARTED", False, {}),
    ("STARTED", None, True, AGAIN, PASSING, SUSPENSION, "SUSPENDED", True, HELD),
    ("STARTED", None, True, AGAIN, PERMITTED, None, "STARTED", False, {}),
    ("REQUESTED", START, False, {}, ENDED, TERMINATION, "TERMINATED", False, {}),
    # it has not begun
    ("REQUESTED", None, False, {}, PASSING, None, "REQUESTED", False, {}),
    ("REQUESTED", None, False, {}, ENDED, TERMINATION, "TERMINATED", False, {}),
    # it is over, or will be
    ("STARTED", COMPLETION, False, {}, PASSING, None, "COMPLETED", False, {}),
    ("STARTED", COMPLETION, False, {}, ENDED, None, "COMPLETED", False, {}),
    ("STARTED", TERMINATION, False, {}, ENDED, None, "TERMINATED", False, {}),
]  # fmt: skip


@pytest.mark.parametrize(("state", "flying", "halted", "marks", "ruling", "move", "meant", "stays", "left"), FOLLOWS)
def test_each_ruling_has_one_consequence_in_each_state(
    state: str, flying: Move | None, halted: bool, marks: dict[str, Any], ruling: Ruling, move: Any, meant: str, stays: bool, left: Any
):
    made = bench()
    before = transfer_of(
        Agreement("urn:a", "", "", "", "", "", {}, b""), state, in_flight=flying, in_flight_id="urn:o" if flying else None, halted=halted,
        detail={"format": "x", "ends": None, "returns": None, "decision": {"result": "?"}} | marks,
    )  # fmt: skip
    reaction = follow(before, ruling, T0)
    if meant in ("COMPLETED", "TERMINATED") and move is None:
        assert reaction is None, "what is over is not decided on"
        return
    assert reaction is not None
    assert (reaction.act.move if reaction.act else None) is move
    if move is not None and move is not START:
        assert (reaction.act.code, reaction.act.reasons) == (ruling.verdict.code, ruling.verdict.reasons)
    if move is TERMINATION:
        after = next(each for each in made.steps.end(reaction.process, "x", ("y",), T0).saves if isinstance(each, Process))
    else:
        after = next(each for each in made.steps.changes(before, reaction, T0, ask=False).saves if isinstance(each, Process))
    assert (after.meant, after.halted, after.detail["decision"]) == (meant, stays, ruling.verdict.document)
    assert {name: value for name, value in after.detail.items() if name in ("held", "again")} == left
    assert follow(replace(after, version=before.version), ruling, T0) is None, "and once is enough"


# What is used up


@pytest.mark.asyncio
async def test_a_transfer_that_has_had_all_bytes_of_its_quota_is_left_to_end_by_itself():
    made = await opened()
    limit = constraint("urn:qiao:byteCount", "lteq", {"@value": "100", "@type": "xsd:integer"})
    process = await made.run(terms(permission(limit)))
    await made.journal.commit(Changes(saves=(Usage(process.agreement or "", (("/permission/0", BYTE_COUNT, 100),), version=1),)))
    made.watch.suspect(process.pid)
    await made.quiet()
    assert (await made.process(process.pid)).meant == "STARTED"
    begun = await made.begin(await made.agree(terms(permission(limit))))
    assert begun.meant == "STARTED", "another agreement counts for itself"
    await made.journal.commit(Changes(saves=(Usage(begun.agreement or "", (("/permission/0", BYTE_COUNT, 101),), version=1),)))
    made.watch.suspect(begun.pid)
    await made.quiet()
    assert (await made.process(begun.pid)).detail["code"] == "QUOTA_EXHAUSTED", "what is over it is not"


@pytest.mark.parametrize(("left", "meant"), [(1, "STARTED"), (0, "TERMINATED")])
@pytest.mark.asyncio
async def test_a_transfer_that_goes_on_under_another_rule_counts_as_a_use_of_that_one(left: int, meant: str):
    made = await opened()
    policy = terms(times(5, instant("lt", 10)), times(left, instant("gteq", 5)))
    process = await made.run(policy)
    assert (process.detail["counted"], process.due) == (["/permission/0"], T0 + 5), "from then on another rule permits it too"
    await made.quiet()
    for seconds in (5, 10):
        made.rig.clock.at = T0 + seconds
        await made.quiet()
    after = await made.process(process.pid)
    assert after.meant == meant
    usage = await made.store.usage(process.agreement or "")
    assert usage is not None
    assert usage.reserved("/permission/1", COUNT) == left
    if left:
        assert (after.detail["counted"], after.detail["charged"]) == (["/permission/0", "/permission/1"], ["/permission/1"])
    else:
        assert after.detail["code"] == "QUOTA_EXHAUSTED"


@pytest.mark.asyncio
async def test_a_decision_that_is_remembered_is_that_of_now_whatever_it_depends_on():
    made = await opened()
    agreement = await made.agree(terms(permission(constraint("odrl:industry", "isAnyOf", ["health"]), instant("lt", 10)), times(2)))

    async def code(**options: Any) -> str:
        return (await ruled(made, agreement, **options)).verdict.code

    made.identity.claims[CONSUMER] = HEALTH
    assert [await code() for _ in range(2)] == ["PERMITTED"] * 2
    first = (await ruled(made, agreement)).verdict.document
    assert (await ruled(made, agreement)).verdict.document["at"] == first["at"], "it is not taken twice"
    made.identity.claims[CONSUMER] = ARMS
    assert (await ruled(made, agreement)).verdict.charged == ("/permission/1",)
    await made.journal.commit(Changes(saves=(Usage(agreement.id, (("/permission/1", COUNT, 2),), version=1),)))
    assert await code() == "QUOTA_EXHAUSTED"
    made.identity.claims[CONSUMER] = HEALTH
    assert await code() == "PERMITTED"
    made.rig.clock.at = T0 + 10
    assert await code() == "QUOTA_EXHAUSTED"
    made.rig.clock.at = T0 - 5
    assert await code() == "PERMITTED", "and a clock that is set back is believed"


def test_what_counts_already_is_not_counted_twice():
    usage = Usage("urn:a", open=(Reservation("urn:t", "urn:t", "/permission/0", COUNT, 1, T0),), version=3)
    verdict = Verdict(True, "permit", "PERMITTED", (), None, {}, ("/permission/0",))
    ruling = Ruling(verdict, None, tallies=(Tally("/permission/0", COUNT, (5,)),), usage=usage)
    process = transfer_of(Agreement("urn:a", "", "", "", "", "", {}, b""), detail={"counted": ["/permission/0"]})
    assert charge(process, ruling, T0).saves == ()
    again = charge(replace(process, detail={}), ruling, T0)
    assert (len(again.saves), again.expects) == (1, (Expect(Usage, "urn:a", 3),))


@pytest.mark.asyncio
async def test_who_is_refused_while_a_budget_is_on_its_way_back_is_told_to_order_again():
    made = await opened()
    agreement = await made.agree(terms(permission(money("2", operator="lteq")) | {"duty": [price("0.5", "megabyte")]}))
    (tally,) = [each for each in (await ruled(made, agreement)).tallies if each.pricing is not None]
    limit = max(tally.marks)
    takes = Reservation(taken_id("urn:t"), "urn:t", tally.rule, tally.operand, -limit, T0)
    usage = Usage(agreement.id, ((tally.rule, tally.operand, limit),), (takes,), version=1)
    ended = transfer_of(agreement, "TERMINATED", updated=made.now() - 5.0, version=1)
    await made.journal.store.commit(Changes(saves=(usage, ended)))  # the ledger does not hear of it
    refused = (await ruled(made, agreement, starts="urn:other")).verdict
    assert (refused.code, refused.reasons[-1]) == ("QUOTA_EXHAUSTED", RETURNS)
    assert RETURNS not in (await ruled(made, agreement)).verdict.reasons, "who runs is not told so"
    made.rig.clock.at += 120.0
    assert RETURNS not in (await ruled(made, agreement, starts="urn:other")).verdict.reasons, "it does not come back so soon any more"


def test_a_transfer_says_whether_what_it_takes_of_budgets_is_noted():
    verdict = Verdict(True, "permit", "PERMITTED", (), None, {}, ("/permission/0",))
    budget = Tally("/permission/0", "money", (9,), Pricing(1, 0, ((BYTE_COUNT, 1),)))
    ruling = Ruling(verdict, None, tallies=(budget,), usage=Usage("urn:a"))
    process = transfer_of(Agreement("urn:a", "", "", "", "", "", {}, b""), detail={})
    begun = charge(process, ruling, T0)
    (usage,) = begun.saves
    assert isinstance(usage, Usage)
    assert (begun.process.detail["taken"], [each.id for each in usage.open]) == (True, [taken_id(process.pid)])
    full = replace(
        usage, open=tuple(replace(each, id=taken_id(f"t{n}"), transfer=f"t{n}") for n in range(TAKEN_MAX) for each in usage.open)
    )
    assert "taken" not in charge(process, replace(ruling, usage=full), T0).process.detail
    other = replace(ruling, verdict=replace(verdict, charged=("/permission/1",)), usage=usage)
    changed = charge(begun.process, other, T0)
    assert (changed.process.detail["taken"], changed.saves[0].open) == (False, ())


# What passes


@pytest.mark.asyncio
async def test_a_right_that_comes_back_at_an_instant_is_suspended_until_then():
    made = await opened()
    process = await made.run(terms(permission(instant("lt", 10)), permission(instant("gteq", 20), instant("lt", 30))))
    assert process.due == T0 + 10
    made.rig.clock.at = T0 + 10
    await made.quiet()
    held = await made.answer(process.pid)
    assert (held.state, held.due) == ("SUSPENDED", T0 + 20)
    made.rig.clock.at = T0 + 20
    await made.quiet()
    again = await made.answer(process.pid)
    assert (again.state, again.due, again.detail["generation"]) == ("STARTED", T0 + 30, 2)
    assert not {"held", "again", "code", "reasons", "ended_by"} & set(again.detail)
    made.rig.clock.at = T0 + 30
    await made.quiet()
    assert (await made.process(process.pid)).detail["code"] == "EXPIRED"
    assert [row.move for row in made.sent[process.pid]] == [START, SUSPENSION, START, TERMINATION]


@pytest.mark.asyncio
async def test_a_start_that_is_taken_while_it_is_held_gives_no_access_and_the_suspension_follows_it():
    made = await opened()
    begun = await made.begin(await made.agree(OPEN))
    await made.withdraw()
    await made.quiet()
    held = await made.process(begun.pid)
    assert (held.meant, held.in_flight, held.due) == ("SUSPENDED", START, None)
    with pytest.raises(ConnectorError, match="no longer published"):
        await made.views.address(made.sent[begun.pid][0], held)
    taken = await made.answer(begun.pid)
    assert (taken.state, taken.meant, taken.due) == ("STARTED", "SUSPENDED", made.now())
    await made.quiet()
    assert [row.move for row in made.sent[begun.pid]] == [START, SUSPENSION]
    await made.publish()
    await made.quiet()
    assert (await made.process(begun.pid)).in_flight is SUSPENSION, "which has to arrive first"
    await made.answer(begun.pid)
    await made.quiet()
    assert (await made.answer(begun.pid)).meant == "STARTED"


@pytest.mark.asyncio
async def test_a_suspension_that_the_peer_refuses_takes_access_away_all_the_same_and_is_not_said_again():
    made = await opened()
    process = await made.run(OPEN)
    await made.withdraw()
    await made.quiet()
    refused = await made.answer(process.pid, exchange.refused)
    assert (refused.state, refused.meant) == ("STARTED", "SUSPENDED")
    made.watch.suspect(process.pid)
    await made.quiet()
    assert [row.move for row in made.sent[process.pid]] == [START, SUSPENSION]
    await made.publish()
    await made.quiet()
    assert ((await made.process(process.pid)).meant, len(made.sent[process.pid])) == ("STARTED", 2)


@pytest.mark.asyncio
async def test_what_an_agreement_demands_of_a_stream_it_demands_until_it_is_forgotten():
    made = await opened()
    rights = Rights(made.store, Policies(Options(profiles=read_profiles())), made.identity)  # type: ignore[arg-type]
    views = Views(made.store, rights, made.rig.tokens, made.rig.clock, lambda _: None)
    process = await made.run(terms(permission(constraint("https://w3id.org/qiao/v1/possession", "eq", SIGNED_REQUESTS))))
    seen = await views.lookup(process.pid)
    assert seen is not None
    assert seen.demands == {SIGNED_REQUESTS}
    await made.operations.close(process.agreement or "", "the study is over")
    closed = await views.lookup(process.pid)
    assert closed is not None
    assert (closed.withheld, closed.demands) == ("AGREEMENT_CLOSED", {SIGNED_REQUESTS})
    await made.withdraw()
    assert await views.lookup(process.pid) is None
    assert await views.demands(process.pid) == {SIGNED_REQUESTS}
    assert await views.demands("urn:uuid:unknown") is None
    strange = await made.agree({"permission": [{"action": "use", "mood": "good"}]})
    assert await rights.demanded(strange) == {SIGNED_REQUESTS}, "whoever does not understand terms does not take them to demand nothing"


# Operators, peers, and what is between them


@pytest.mark.asyncio
async def test_what_an_operator_takes_in_hand_is_not_started_by_anybody_else():
    made = await opened()
    process = await made.run(OPEN)
    await made.withdraw()
    await made.quiet()
    held = await made.answer(process.pid)
    assert (held.state, held.detail["held"], held.detail["ended_by"]) == ("SUSPENDED", "dataset-withdrawn", "us")
    with pytest.raises(Contradiction, match="is not permitted now: dataset `urn:test:running` is not published any more"):
        await made.operations.resume(process.pid)
    taken = await made.operations.suspend(process.pid, "we look into it")
    assert (taken.detail["reasons"], "held" in taken.detail, taken.in_flight) == (["we look into it"], False, None)
    await made.publish()
    await made.quiet()
    assert (await made.process(process.pid)).state == "SUSPENDED"
    assert (await made.operations.resume(process.pid)).in_flight is START


@pytest.mark.asyncio
async def test_a_consumer_cannot_resume_what_is_held_and_it_stays_so():
    made = await opened()
    process = await made.run(OPEN)
    await made.withdraw()
    await made.quiet()
    held = await made.answer(process.pid)
    caller = Caller(Participant(CONSUMER, "c", "r", None, ()), {}, T0 + 60)
    message = Message(START, held.consumer_pid, held.provider_pid, {}, b"d")
    resumed = exchange.receive(held, message).process
    with pytest.raises(Refused, match="not published any more") as refused:
        await made.transfers.react(resumed, message, caller, T0)
    assert refused.value.code == "dataset-withdrawn"
    await made.publish()
    assert (await made.transfers.react(resumed, message, caller, T0)).act.move is START


@pytest.mark.asyncio
async def test_a_start_that_was_put_off_is_decided_when_it_is_made():
    made = await opened()
    agreement = await made.agree(OPEN)
    asked = transfer_of(agreement, "REQUESTED")
    assert (await made.transfers.start(asked, T0)).act.move is START
    await made.operations.close(agreement.id, "over")
    refused = await made.transfers.start(asked, T0)
    assert (refused.act.move, refused.act.code) == (TERMINATION, "AGREEMENT_CLOSED")


@pytest.mark.asyncio
async def test_closing_is_for_good_on_record_once_and_only_for_what_is_final():
    made = await opened()
    agreement = await made.agree(OPEN)
    first = await made.operations.close(agreement.id, "first")
    assert (first.closed, first.closed_by, first.reason, first.version) == (T0, "us", "first", 1)
    assert await made.operations.close(agreement.id, "second") == first
    facts = [row for row in await made.store.evidence_of(agreement.negotiation) if row.what == telemetry.CLOSED]
    assert [row.detail for row in facts] == [{"agreement": agreement.id, "reasons": ["first"]}]
    open_one = await made.agree(OPEN, final=False)
    with pytest.raises(Contradiction, match=f"terminate negotiation `{open_one.negotiation}` instead"):
        await made.operations.close(open_one.id, "early")
    with pytest.raises(Contradiction, match="is not finalized yet"):  # its negotiation would write over what is recorded
        await made.operations.perform(open_one.id, "/obligation/0", action=None, at=None, by=None, amounts={})
    with pytest.raises(ConnectorError, match="there is no agreement `urn:nothing`"):
        await made.operations.close("urn:nothing", "why")


@pytest.mark.asyncio
async def test_closing_ends_transfers_on_our_side_whichever_that_is_and_those_that_nobody_knows_of():
    made = await opened()
    agreement = await made.agree(OPEN)
    runs = await made.answer((await made.begin(agreement)).pid)
    consumer = transfer_of(agreement, pid="urn:ours", role=Role.CONSUMER, peer_pid="urn:provider", version=1)
    unheard = transfer_of(agreement, "INITIAL", pid="urn:new", role=Role.CONSUMER, peer_pid=None, version=1)
    other = await made.run(OPEN)
    await made.journal.commit(Changes(saves=(consumer, unheard)))
    await made.operations.close(agreement.id, "over")
    await made.quiet()
    for pid in (runs.pid, consumer.pid, unheard.pid):
        assert ((await made.process(pid)).meant, (await made.process(pid)).detail["code"]) == ("TERMINATED", "AGREEMENT_CLOSED")
    assert (await made.process(other.pid)).meant == "STARTED"
    what = [(row.what, row.detail.get("code")) for row in await made.store.evidence_of(runs.pid)]
    assert (telemetry.DECIDED_AGAIN, "AGREEMENT_CLOSED") in what


@pytest.mark.asyncio
async def test_what_is_said_of_a_peer_between_a_decision_and_its_commit_is_not_overlooked():
    made = await opened()
    agreement = await made.agree(OPEN)
    reaction = await made.transfers.start(transfer_of(agreement, "REQUESTED"), T0)
    made.identity.say(CONSUMER, None)
    await made.quiet()  # there is no such transfer yet
    await made.journal.commit(made.steps.changes(None, reaction, T0, ask=False))
    await made.quiet()
    assert (await made.process("urn:t")).halted


@pytest.mark.asyncio
async def test_what_the_gate_refuses_before_anybody_has_looked_is_looked_at():
    made = await opened()
    process = await made.run(until(10))
    made.rig.clock.at = T0 + 11  # the timer has not come
    with pytest.raises(Withdrawn) as refused:
        await made.rig.gate.permit((await made.authorization(process))["Authorization"].split()[1], process.pid)
    assert refused.value.code == "EXPIRED"
    await made.quiet()
    assert (await made.process(process.pid)).meant == "TERMINATED"


# Any order of everything


@dataclass
class Promise:
    """An agreement, and in plain words of this test what it permits: to whom, of which industry, and when."""

    peer: str
    industry: str | None = None
    times: tuple[tuple[float, float], ...] = ((-1.0, 1e9),)
    policy: Mapping[str, Any] = None  # type: ignore[assignment]
    agreement: Agreement = None  # type: ignore[assignment]


def promises() -> list[Promise]:
    health = constraint("odrl:industry", "isAnyOf", ["health"])
    return [
        Promise(CONSUMER, policy=OPEN),
        Promise(CONSUMER, "health", policy=terms(permission(health))),
        Promise(STRANGER, times=((-1, 30),), policy=until(30)),
        Promise(
            STRANGER,
            "health",
            ((-1, 10), (20, 50)),
            terms(permission(health, instant("lt", 10)), permission(health, instant("gteq", 20), instant("lt", 50))),
        ),
    ]


OFFERS = {"open": OPEN, "health": in_the_industry("health"), "consumer": only_for(CONSUMER)}
PEERS, CLAIMS = st.sampled_from([CONSUMER, STRANGER]), st.sampled_from(["health", "arms", "nothing", "gone"])
NUMBERS = st.integers(0, 3)
ACTS = st.one_of(
    st.tuples(st.just("claims"), PEERS, CLAIMS),
    st.tuples(st.just("close"), NUMBERS, st.none()),
    st.tuples(st.just("withdraw"), st.none(), st.none()),
    st.tuples(st.just("publish"), st.sampled_from(sorted(OFFERS)), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0, 25.0]), st.none()),
    st.tuples(st.sampled_from(["begin", "answer", "refuse", "peer starts", "peer suspends", "suspend", "resume"]), NUMBERS, st.none()),
)


class Story:
    """What has happened, in the words of the test, beside the connector to which it happened."""

    def __init__(self, made: Live) -> None:
        self.made = made
        self.promises = promises()
        self.claims: dict[str, str] = {CONSUMER: "health", STRANGER: "health"}
        self.published: str | None = "open"
        self.binding = False
        self.closed: set[int] = set()
        self.pids: dict[int, str] = {}
        self.streams: dict[str, asyncio.Task[None]] = {}

    def allowed(self, number: int) -> bool:
        """The naive decision."""
        promise, now = self.promises[number], self.made.now() - T0
        claim = self.claims[promise.peer]
        fits = promise.industry in (None, claim) and any(start <= now < end for start, end in promise.times)
        offer = {"open": True, "health": claim == "health", "consumer": promise.peer == CONSUMER}[self.published or "open"]
        return number not in self.closed and claim != "gone" and self.published is not None and fits and (offer or not self.binding)

    async def act(self, what: str, one: Any, other: Any) -> None:
        made = self.made
        match what:
            case "claims":
                self.claims[one] = other
                said = {"health": HEALTH, "arms": ARMS, "nothing": {}, "gone": None}[other]
                made.identity.say(one, said)
            case "close":
                await made.operations.close(self.promises[one].agreement.id, "over")
                self.closed.add(one)
            case "withdraw" if self.published:
                await made.withdraw()
                self.published, self.binding = None, False
            case "publish":
                before = await made.store.dataset(DATASET)
                binding = made.now() if other else before.binding if before else None
                await made.publish(OFFERS[one], binding=binding)
                self.published, self.binding = one, binding is not None
            case "wait":
                made.rig.clock.at += one
            case "begin" if one not in self.pids or (await made.process(self.pids[one])).final:
                self.pids[one] = (await made.begin(self.promises[one].agreement)).pid
            case "answer" | "refuse" if one in self.pids:
                await self._settle(self.pids[one], exchange.answered if what == "answer" else exchange.refused)
            case "peer starts" | "peer suspends" if one in self.pids:
                await self._peer(self.pids[one], START if what == "peer starts" else SUSPENSION)
            case "suspend" | "resume" if one in self.pids:
                with suppress(Contradiction):  # not possible in this state, or not permitted
                    await (made.operations.suspend(self.pids[one], "x") if what == "suspend" else made.operations.resume(self.pids[one]))

    async def _settle(self, pid: str, settle: Any) -> None:
        process = await self.made.process(pid)
        if process.in_flight is not None:
            after = settle(process, process.in_flight_id)
            changes = self.made.steps.changes(process, Reaction(after), self.made.now(), settled=(process.in_flight_id,), ask=False)
            await self.made.journal.commit(changes)

    async def _peer(self, pid: str, move: Move) -> None:
        """What the peer says, if it can prove who it is."""
        made, process = self.made, await self.made.process(pid)
        caller = made.identity.standing(process.peer, {}, 0.0)
        message = Message(move, process.consumer_pid, process.provider_pid, {"code": "x", "reason": ["y"]}, fresh("digest").encode())
        if caller is None:
            return
        try:
            received = exchange.receive(process, message).process
            reaction = await made.transfers.react(received, message, caller, made.now())
        except ConnectorError:
            return
        await made.journal.commit(made.steps.changes(process, reaction, made.now(), settled=(process.in_flight_id,), ask=False))

    async def check(self) -> None:
        """What runs is what a fresh and naive decision permits, and what it permits is not kept from anybody."""
        await self.made.quiet()
        await asyncio.sleep(0)
        for number, pid in self.pids.items():
            process, allowed = await self.made.process(pid), self.allowed(number)
            serves = await self._serves(process)
            assert not serves or allowed, "something is served that is not permitted"
            assert allowed or process.meant != "STARTED"
            assert serves == (process.meant == "STARTED"), "what runs is not served"
            kept = allowed and process.meant == "SUSPENDED" and "held" in process.detail
            assert not kept or process.in_flight is SUSPENSION, "it is kept suspended for nothing"
            stream = self.streams.get(pid)
            assert stream is None or stream.done() or allowed, "a stream runs without a right"
            if serves and (stream is None or stream.done()):
                self.streams[pid] = asyncio.create_task(self._stream(pid))
                await asyncio.sleep(0)

    async def _serves(self, process: Process) -> bool:
        if not process.detail.get("generation"):
            return False
        try:
            await self.made.rig.gate.permit((await self.made.authorization(process))["Authorization"].split()[1], process.pid)
        except (Withdrawn, TokenRefused):
            return False
        return True

    async def _stream(self, pid: str) -> None:
        process = await self.made.process(pid)
        permit = await self.made.rig.gate.permit((await self.made.authorization(process))["Authorization"].split()[1], pid)
        with suppress(Withdrawn), self.made.rig.flows.running(pid, permit.not_after, permit.not_after_code):
            await asyncio.Event().wait()


async def told(acts: list[tuple[str, Any, Any]]) -> None:
    story = Story(await opened(OPEN))
    for peer in (CONSUMER, STRANGER):
        story.made.identity.say(peer, HEALTH)
    for number, promise in enumerate(story.promises):
        promise.agreement = await story.made.agree(promise.policy, peer=promise.peer)
        await story.act("begin", number, None)
        await story.act("answer", number, None)
    try:
        await story.check()
        for act in acts:
            await story.act(*act)
            await story.check()
    finally:
        for stream in story.streams.values():
            stream.cancel()
        await asyncio.gather(*story.streams.values(), return_exceptions=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=14))
def test_whatever_happens_in_whatever_order_what_runs_is_what_a_fresh_decision_permits(acts: list[tuple[str, Any, Any]]):
    asyncio.run(told(acts))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.lists(ACTS, max_size=40))
def test_and_in_long_stories(acts: list[tuple[str, Any, Any]]):
    asyncio.run(told(acts))
