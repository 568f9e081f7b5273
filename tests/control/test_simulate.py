"""What a simulation shows is what the participant gets: the same catalog, the same answers, the same reasons, and who would lose or gain by
other terms is who does once they are published."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.control.catalog import Catalog
from connector.control.journal import Journal
from connector.control.negotiate import Negotiations
from connector.control.policies import Policies
from connector.control.rights import Rights
from connector.control.simulate import Access, Simulation, _effect
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import InvalidRequest, NotFound, PolicyError
from connector.ports import Caller, Participant
from connector.records import Changes, Dataset
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.odrl import cases
from tests.pair import OPEN, Pair, agreement, dataset_record, desk, fresh, only_for, pair, purpose_policy, transfer, until_policy

OWN = "did:web:own.example"
NOW = cases.NOW.timestamp()
SERVICE = {"@id": "urn:service", "@type": "DataService", "endpointURL": "https://own.example"}


class Members:
    """An identity layer that knows the participants of `tests.odrl.cases`, and us."""

    def __init__(self, **claims: Mapping[str, Any]) -> None:
        self.own = Participant(OWN, "own", "", None, (), {})
        names = {id: id.removeprefix("did:web:").partition(".")[0] for id in cases.PARTIES}
        self._all = [self.own, *(Participant(id, name, "", None, (), claims.get(name, {})) for id, name in names.items())]

    def find(self, name: str) -> Participant | None:
        return next((each for each in self._all if name in (each.id, each.name)), None)

    def participants(self) -> list[Participant]:
        return self._all


class Bench:
    """A store in memory, what answers real participants, and the simulation beside it."""

    def __init__(self, **claims: Mapping[str, Any]) -> None:
        self.store, self.clock, self.policies = MemoryStore(), SetClock(), Policies()
        self.identity: Any = Members(**claims)
        self.catalog = Catalog(Journal(self.store, self.clock), self.policies, OWN, "urn:catalog", SERVICE, [])
        negotiations = Negotiations(self.store, self.policies, self.identity)
        rights = Rights(self.store, self.policies, self.identity)
        self.simulation = Simulation(self.store, self.policies, self.catalog, negotiations, rights, self.identity)

    async def publish(self, id: str, *policies: Mapping[str, Any]) -> Dataset:
        record = dataset_record(id, *({k: v for k, v in policy.items() if k != "@id"} for policy in policies))
        await self.store.commit(Changes(saves=(replace(record, updated=self.clock.now()),)))
        return record

    async def real(self, caller: Caller, at: float) -> dict[str, set[str]]:
        """What the participant gets: dataset -> its offers, over all pages."""
        self.clock.at = at
        found: dict[str, set[str]] = {}
        after: str | None = None
        while True:
            page = await self.catalog.page(caller, after=after, before=None, limit=2)
            for dataset in orjson.loads(page.body).get("dataset", ()):
                found[dataset["@id"]] = {offer["@id"] for offer in dataset["hasPolicy"]}
            if (after := page.next) is None:
                return found

    async def simulated(self, caller: Caller, at: float) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        after: str | None = None
        while True:
            page = await self.simulation.page(caller, at, after=after, limit=2)
            for view in page.items:
                if view.shown:
                    found[view.dataset.id] = {sight.offer.id for sight in view.offers if sight.shown}
            if (after := page.next) is None:
                return found


# ---- the same catalog


CLAIMS = st.sampled_from([{}, {"odrl:purpose": ["research"]}, {"odrl:purpose": ["quality", "marketing"]}, {"role": "x"}])


@pytest.mark.asyncio
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**64).map(Random),
    looks=st.lists(st.tuples(st.sampled_from([*cases.PARTIES, "did:web:new.example"]), CLAIMS, cases.nows), min_size=1, max_size=4),
)
async def test_a_simulation_shows_exactly_the_catalog_that_the_participant_gets_at_that_instant(
    seed: Random, looks: list[tuple[str, dict[str, Any], datetime]]
):
    bench = Bench()
    for number in range(seed.randint(1, 5)):
        offers = [cases.an_offer(seed) for _ in range(seed.randint(1, 3))]
        await bench.publish(f"urn:d:{number}", *{orjson.dumps(each, option=orjson.OPT_SORT_KEYS): each for each in offers}.values())
    for id, claims, instant in sorted(looks, key=lambda look: look[2]):  # a real clock goes forward, and answers are remembered
        caller, at = bench.simulation.caller(id, claims), instant.timestamp()
        assert await bench.simulated(caller, at) == await bench.real(caller, at)
        for view in (await bench.simulation.page(caller, at, limit=500)).items:
            for sight in view.offers:
                assert sight.shown is (sight.decision["result"] != "deny"), "what is hidden is hidden by the decision that is shown"
                assert (sight.asked is None) is not sight.shown
                if not sight.shown:
                    assert sight.decision["reason"]
                    assert sight.grounds


@pytest.mark.asyncio
@settings(max_examples=60)
@given(seed=st.integers(0, 2**64).map(Random), instant=cases.nows, who=st.sampled_from(cases.PARTIES))
async def test_before_the_next_change_nothing_changes(seed: Random, instant: datetime, who: str):
    bench = Bench()
    await bench.publish("urn:d", cases.an_offer(seed))
    caller, at = bench.simulation.caller(who, None), instant.timestamp()
    (view,) = (await bench.simulation.page(caller, at, limit=1)).items
    changes = view.changes
    assert changes is None or changes > at
    end = at + 10 * 86_400 if changes is None else changes
    for share in (0.01, 0.5, 0.99):
        between = at + (end - at) * share
        if at < between < end - 1e-3:  # a float of seconds is not exact to the microsecond
            (then,) = (await bench.simulation.page(caller, between, limit=1)).items
            assert [s.decision["result"] for s in then.offers] == [s.decision["result"] for s in view.offers]


@pytest.mark.asyncio
async def test_a_policy_that_is_not_understood_hides_its_offer_and_says_why():
    bench = Bench()
    strange = {"leftOperand": "urn:mood", "operator": "eq", "rightOperand": "good"}
    await bench.publish("urn:d", {"@type": "Offer", "permission": [{"action": "use", "constraint": [strange]}]})
    (view,) = (await bench.simulation.page(bench.simulation.caller("a", None), NOW, limit=1)).items
    (sight,) = view.offers
    assert (view.shown, sight.shown, sight.decision["code"]) == (False, False, "POLICY_NOT_UNDERSTOOD")
    assert sight.decision["findings"][0]["path"].startswith("/permission/0/constraint/0")
    assert sight.grounds[0]["path"].startswith("/permission/0/constraint/0")


def test_who_is_meant_is_found_by_id_or_name_or_made_of_claims():
    simulation = Bench(a={"role": "nurse"}).simulation
    assert simulation.caller("a", None).claims == {"role": "nurse"}
    assert simulation.caller(cases.PARTIES[0], None).participant.name == "a"
    assert simulation.caller("a", {"role": "x"}).claims == {"role": "x"}
    assert simulation.caller("did:web:new", {}).participant.id == "did:web:new"
    assert simulation.caller(None, {"role": "x"}).participant.id == ""
    with pytest.raises(NotFound, match="known are `own`, `a`, `b`, `c`"):
        simulation.caller("nobody", None)
    with pytest.raises(InvalidRequest, match="say who"):
        simulation.caller(None, None)


def test_terms_that_were_read_are_not_read_again_for_their_words(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    bench.policies.read(MARKETING)
    monkeypatch.setattr("connector.odrl_reading.parse._policy", None)
    words = bench.simulation.plain(MARKETING, "en", {})
    assert words is not None
    assert len(words["conditions"]) == 1


# ---- the same answers


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair(tmp_path_factory.mktemp("simulate") / "x") as made:
        yield made


MARKETING: dict[str, Any] = {
    "@type": "Offer",
    "permission": [{"action": "use"}],
    "prohibition": [{"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "marketing"}]}],
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("purpose", ["research", "marketing", None])
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(OPEN, id="open"),
        pytest.param(purpose_policy("research", "care"), id="for a purpose"),
        pytest.param(MARKETING, id="not for marketing"),
        pytest.param(until_policy("2999-01-01T00:00:00Z"), id="until"),
        pytest.param(until_policy("2001-01-01T00:00:00Z"), id="over"),
        pytest.param(only_for("did:web:biopharma.example"), id="for the one who asks"),
        pytest.param(only_for("did:web:other.example"), id="for another"),
    ],
)
async def test_what_a_request_would_be_answered_is_what_it_is_answered(two: Pair, policy: dict[str, Any], purpose: str | None):
    dataset, purposes = fresh("dataset"), [purpose] if purpose else []
    await two.provider.publish(dataset, policy)
    page = await two.provider.asked("POST", "/simulate", {"as": "biopharma", "dataset": dataset, "purposes": purposes})
    ((offer,),) = [item["offers"] for item in page["items"]]
    seen = await two.consumer.manage("POST", "/catalog/dataset", {"peer": "hospital", "dataset": dataset})
    assert (seen.status == 200) is offer["shown"] is page["items"][0]["shown"]
    if not offer["shown"]:
        assert offer["request"] is None
        return
    body = {"peer": "hospital", "dataset": dataset, "purposes": purposes}
    begun = await two.consumer.asked("POST", "/negotiations", body, status=201)
    done = await two.consumer.asked("GET", f"/negotiations/{begun['pid']}?wait=final")
    theirs = await two.provider.asked("GET", f"/negotiations/{done['peer_pid']}")
    assert (theirs["state"] == "TERMINATED") is (offer["request"]["result"] == "deny")
    denied = ("reason", "rules", "near_misses", "policy_hash")  # of a yes, they are those of the agreement, which was decided on after it
    for member in ("result", "code", *(denied if offer["request"]["result"] == "deny" else ())):
        assert theirs["decision"].get(member) == offer["request"].get(member), member


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_gets_the_catalog_that_its_simulation_shows(two: Pair):
    chance, shown = Random(7), set()
    for number in range(12):
        dataset = f"urn:same:{number:02}"
        offers = [{k: v for k, v in cases.an_offer(chance).items() if k != "@id"} for _ in range(chance.randint(1, 2))]
        await two.provider.publish(dataset, *{orjson.dumps(each, option=orjson.OPT_SORT_KEYS): each for each in offers}.values())
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await two.provider.asked("POST", "/simulate", {"as": "biopharma", "after": page["next"] or None, "limit": 5})
        shown |= {(item["id"], o["id"]) for item in page["items"] for o in item["offers"] if o["shown"]}
    real, cursor = set[tuple[str, str]](), None
    while True:
        answer = await two.consumer.asked("POST", "/catalog", {"peer": "hospital"} | ({"after": cursor} if cursor else {}))
        real |= {(d["@id"], o["@id"]) for d in answer["catalog"].get("dataset", ()) for o in d["hasPolicy"]}
        if (cursor := answer["next"]) is None:
            break
    assert shown == real
    assert any(dataset.startswith("urn:same:") for dataset, _ in shown)


# ---- other terms


async def effects(bench: Bench, policy: Mapping[str, Any], **named: Any) -> dict[str, Any]:
    change = await bench.simulation.change(policy, NOW, limit=500, **named)
    return {each.name: each for each in change.affected.items}


@pytest.mark.asyncio
async def test_who_loses_and_who_gains_is_told_with_the_reason():
    bench = Bench()
    a, b, c = cases.PARTIES
    await bench.publish("urn:d", only_for(a, b))
    found = await effects(bench, only_for(b, c), dataset="urn:d")
    assert {name: each.effect for name, each in found.items()} == {"a": "loses", "c": "gains"}
    assert "is not one of" in found["a"].reasons[0]
    assert a in found["a"].reasons[0]
    assert c in found["c"].reasons[0], "why it does not have it now"
    assert (found["a"].before.sees, found["a"].after.sees) == (True, False)


@pytest.mark.asyncio
async def test_a_purpose_less_is_narrower_and_one_more_is_wider():
    bench = Bench()
    await bench.publish("urn:d", purpose_policy("care", "research"))
    narrower = await effects(bench, purpose_policy("care"), dataset="urn:d")
    assert {each.effect for each in narrower.values()} == {"narrower"}
    assert narrower["a"].after.acts == {(), ("care",)}
    assert "purpose 'research' is not one of 'care'" in narrower["a"].reasons[0]
    wider = await effects(bench, OPEN, dataset="urn:d", purposes=("marketing",))
    assert {each.effect for each in wider.values()} == {"wider"}
    other = await effects(bench, purpose_policy("care", "marketing"), dataset="urn:d")
    assert {each.effect for each in other.values()} == {"other"}


@pytest.mark.asyncio
async def test_one_of_several_offers_takes_nothing_from_whom_another_still_permits():
    bench = Bench()
    a, _, c = cases.PARTIES
    record = await bench.publish("urn:d", OPEN, only_for(c))
    found = await effects(bench, only_for(a), offer=record.offers[1].id)
    assert found == {}
    assert {each.effect for each in (await effects(bench, only_for(a), offer=record.offers[0].id)).values()} == {"loses"}


@pytest.mark.asyncio
@settings(max_examples=40)
@given(seed=st.integers(0, 2**64).map(Random), instant=cases.nows)
async def test_what_would_change_is_what_does_change_once_the_terms_are_published(seed: Random, instant: datetime):
    bench, at = Bench(), instant.timestamp()
    old, new = cases.an_offer(seed), cases.an_offer(seed)
    await bench.publish("urn:d", old)
    change = await bench.simulation.change(new, at, dataset="urn:d", limit=500)
    before = {id: await bench.real(bench.simulation.caller(id, None), at) for id in cases.PARTIES}
    bench.clock.at = at + 1e-3  # published anew
    await bench.publish("urn:d", new)
    after = {id: await bench.real(bench.simulation.caller(id, None), at) for id in cases.PARTIES}
    affected = {each.id: each for each in change.affected.items}
    assert len(affected) + change.unchanged == len(cases.PARTIES)
    for id in cases.PARTIES:
        if bool(before[id]) is not bool(after[id]):
            assert affected[id].effect == ("loses" if before[id] else "gains")
        if id in affected:
            assert (affected[id].before.sees, affected[id].after.sees) == (bool(before[id]), bool(after[id]))
            assert affected[id].reasons or affected[id].effect == "other"


@pytest.mark.asyncio
async def test_those_who_are_affected_come_in_pages_in_order_of_their_ids():
    bench = Bench()
    await bench.publish("urn:d", OPEN)
    seen, after = [], None
    while True:
        change = await bench.simulation.change(only_for("did:web:nobody"), NOW, dataset="urn:d", after=after, limit=1)
        seen += [each.id for each in change.affected.items]
        if (after := change.affected.next) is None:
            break
    assert seen == sorted(cases.PARTIES)


@pytest.mark.asyncio
@settings(max_examples=60)
@given(seed=st.integers(0, 2**64).map(Random))
async def test_what_is_told_of_each_purpose_is_what_a_request_narrowed_to_it_is_answered(seed: Random):
    """Of purposes that terms name only the first is written into them and read; the answers to the others are theirs all the same."""
    bench = Bench()
    await bench.publish("urn:d", *(cases.an_offer(seed) for _ in range(seed.randint(1, 2))))
    change = await bench.simulation.change(cases.an_offer(seed), NOW, dataset="urn:d", purposes=("urn:given",), limit=500)
    for each in change.affected.items:
        caller, permitted = bench.simulation.caller(each.id, None), set()
        for act in ((), *((purpose,) for purpose in change.tried)):
            (view,) = (await bench.simulation.page(caller, NOW, purposes=act, dataset="urn:d", limit=1)).items
            if any(sight.asked is not None and sight.asked.permitted for sight in view.offers):
                permitted.add(act)
        assert each.before.acts == permitted


@pytest.mark.asyncio
async def test_of_very_many_purposes_the_first_and_the_given_are_tried_and_the_rest_is_counted():
    bench = Bench()
    await bench.publish("urn:d", purpose_policy(*(f"p{number:03}" for number in range(200))))
    change = await bench.simulation.change(OPEN, NOW, dataset="urn:d", purposes=("other",), limit=1)
    assert (len(change.tried), change.tried[0], change.purposes) == (64, "other", 201)
    assert {each.effect for each in change.affected.items} == {"wider"}


@pytest.mark.asyncio
async def test_terms_that_could_not_be_published_are_refused_with_their_place():
    bench = Bench()
    record = await bench.publish("urn:d", OPEN)
    strange = {"permission": [{"action": "eat"}]}
    for named in ({"policy": strange}, {"policy": OPEN, "envelope": strange}):
        with pytest.raises(PolicyError) as refused:
            await bench.simulation.change(named.pop("policy"), NOW, dataset="urn:d", limit=1, **named)
        assert refused.value.pointer in ("/policy/permission/0/action", "/envelope/permission/0/action")
    for missing in ({"dataset": "urn:none"}, {"offer": "urn:none"}, {"offer": record.offers[0].id, "dataset": "urn:other"}):
        with pytest.raises(NotFound, match="not published here"):
            await bench.simulation.change(OPEN, NOW, limit=1, **missing)
    with pytest.raises(InvalidRequest, match="`offer` or `dataset`"):
        await bench.simulation.change(OPEN, NOW, limit=1)


@pytest.mark.asyncio
async def test_agreements_that_are_in_force_are_shown_with_what_runs_and_what_differs(tmp_path: Path):
    async with desk(tmp_path / "x") as at:
        dataset = fresh("dataset")
        await at.us.publish(dataset, purpose_policy("care"))
        made = [
            agreement(at.us, at.peer, Role.PROVIDER, policy=purpose_policy("care"), dataset=dataset),
            agreement(at.us, at.peer, Role.PROVIDER, policy=purpose_policy("care"), dataset=dataset, final=False),
            agreement(at.us, at.peer, Role.PROVIDER, policy=purpose_policy("care"), dataset=dataset, ends=1.0),
            agreement(at.us, at.peer, Role.CONSUMER, policy=purpose_policy("care"), dataset=dataset),
        ]
        runs = await at.us.put(transfer(at.us, at.peer, "STARTED", Role.PROVIDER, made[0]), *made)
        rests = await at.us.put(transfer(at.us, at.peer, "SUSPENDED", Role.PROVIDER, made[0]))
        await at.us.put(transfer(at.us, at.peer, "COMPLETED", Role.PROVIDER, made[0]))
        answer = await at.us.asked("POST", "/simulate/change", {"dataset": dataset, "policy": purpose_policy("research")})
        (bound,) = answer["agreements"]["items"]
        assert (bound["id"], bound["peer"], bound["permitted"], bound["bound"]) == (made[0].id, at.peer.id, True, False)
        assert set(bound["transfers"]) == {runs.pid, rests.pid}
        assert bound["differences"]
        assert "purpose 'care' is not one of 'research'" in " ".join(bound["reasons"])
        wider = await at.us.asked("POST", "/simulate/change", {"dataset": dataset, "policy": purpose_policy("care", "research")})
        assert (wider["agreements"]["items"][0]["bound"], wider["agreements"]["items"][0]["reasons"]) == (True, [])
        assert {each["name"] for each in answer["items"]} == {"biopharma", "stranger"}


@pytest.mark.asyncio
@pytest.mark.parametrize(("purpose", "goes_on"), [("care", True), ("research", False)])
async def test_what_terms_would_end_if_they_were_binding_is_what_they_end(tmp_path: Path, purpose: str, goes_on: bool):
    async with desk(tmp_path / "x") as at:
        dataset = fresh("dataset")
        await at.us.publish(dataset, purpose_policy("care"))
        made = agreement(at.us, at.peer, Role.PROVIDER, policy=purpose_policy("care"), dataset=dataset)
        runs = await at.us.put(transfer(at.us, at.peer, "STARTED", Role.PROVIDER, made), made)
        answer = await at.us.asked("POST", "/simulate/change", {"dataset": dataset, "policy": purpose_policy(purpose)})
        assert [bound["bound"] for bound in answer["agreements"]["items"]] == [goes_on]
        await at.us.publish(dataset, purpose_policy(purpose), binding=True)
        if goes_on:
            assert (await at.us.asked("GET", f"/transfers/{runs.pid}"))["state"] == "STARTED"
            return
        told = await at.peer.heard(f"/transfers/{runs.peer_pid}/termination")
        assert told["code"] == "POLICY_REPLACED"
        explained = await at.us.asked("GET", f"/transfers/{runs.pid}/decision")
        assert (explained["decision"]["code"], explained["refusal"]["by"]) == ("POLICY_REPLACED", "us")


ACTS = st.frozensets(st.sampled_from([(), ("a",), ("b",)]))


@given(ACTS, ACTS, st.booleans(), st.booleans())
def test_an_effect_is_told_from_its_reverse(one: frozenset[Any], other: frozenset[Any], sees: bool, saw: bool):
    before, after = Access(saw or bool(one), one), Access(sees or bool(other), other)
    reverse = {"loses": "gains", "gains": "loses", "narrower": "wider", "wider": "narrower", "other": "other", "same": "same"}
    assert _effect(after, before) == reverse[_effect(before, after)]


# ---- what was judged


@pytest.mark.asyncio
async def test_the_terms_that_were_judged_are_found_or_said_to_be_gone():
    bench = Bench()
    record = await bench.publish("urn:d", purpose_policy("care"))
    offer = record.offers[0]
    judged = {**offer.policy, "@id": offer.id}
    hash, terms = bench.policies.hash_of(judged), {"@id": offer.id, "permission": [{"action": "use"}]}

    def process(role: Role, **detail: Any) -> Process:
        return Process(Kind.NEGOTIATION, "urn:n", role, "did:web:p", "https://p.test", detail={"terms": terms} | detail)

    provider = process(Role.PROVIDER, offer=offer.id, decision={"policy_hash": hash})
    assert await bench.simulation.judged(provider) == judged
    assert await bench.simulation.judged(process(Role.CONSUMER, decision={"policy_hash": hash})) == terms
    assert await bench.simulation.judged(process(Role.PROVIDER)) == terms
    on_table = process(Role.PROVIDER, offer=offer.id, decision={"policy_hash": bench.policies.hash_of(terms)})
    assert await bench.simulation.judged(on_table) == terms
    await bench.store.commit(Changes(deletes=((Dataset, "urn:d"),)))
    assert await bench.simulation.judged(provider) is None
    of_no_agreement = Process(Kind.TRANSFER, "urn:t", Role.PROVIDER, "did:web:p", "https://p.test", agreement="x")
    assert await bench.simulation.judged(of_no_agreement) is None
