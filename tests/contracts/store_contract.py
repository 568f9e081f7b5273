"""What every `Store` owes to its callers: one suite, run on each implementation.

A test module of an implementation subclasses `StoreContract` and gives it the fixture `stores`.
"""

import asyncio
from collections.abc import Callable
from itertools import permutations
from typing import Any, Protocol

import pytest

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import StoreError
from connector.ports import Store
from connector.records import Agreement, Changes, Conflict, Dataset, Edr, Evidence, Expect, Idempotent, Inbox, Offer, Outbound, Pull, Usage
from connector.values import replace
from tests.contracts.samples import (
    OTHER_PEER,
    OWN,
    PEER,
    agreement,
    dataset,
    edr,
    fact,
    idempotent,
    inbox,
    negotiation,
    outbound,
    pull,
    transfer,
    usage,
)
from tests.contracts.store_ledger import StoreLedger
from tests.contracts.store_lists import StoreLists

N, T = Kind.NEGOTIATION, Kind.TRANSFER


class Stores(Protocol):
    """Opens stores for a test, and closes them after it."""

    def open(self, participant: str = OWN) -> Store:
        """A store in the test's database."""

    def fresh(self) -> Store:
        """A store in a database of its own."""


async def contents(store: Store) -> dict[str, Any]:
    """Everything that the ports of `store` show, to see that nothing has changed."""
    anything: dict[str, Any] = {"after": None, "limit": 1000}
    processes = [*(await store.processes(N, state=None, peer=None, **anything)).items]
    processes += (await store.processes(T, state=None, peer=None, **anything)).items
    datasets = (await store.datasets(before=None, **anything)).items
    return {
        "process": processes,
        "inbox": [await store.last_answer(pid) for pid in ("urn:uuid:n1", "urn:uuid:n2", "urn:uuid:t1")],
        "agreement": (await store.agreements(peer=None, dataset=None, **anything)).items,
        "usage": [*(await store.open_usage()), *[await store.usage(id) for id in ("urn:uuid:a1", "urn:uuid:a2")]],
        "dataset": datasets,
        "offer": [await store.offer(name) for name in ("urn:dataset:d1:offer", "urn:dataset:d2:offer")],
        "edr": [await store.edr(id) for id in ("urn:uuid:t1", "urn:uuid:t2")],
        "pull": (await store.pulls(open_only=False, **anything)).items,
        "idempotent": [await store.idempotent(key) for key in ("key-1", "key-2")],
        "outbox": [*await store.open_outbox()],
        "dead": (await store.dead_letters(**anything)).items,
        "evidence": [*await store.events(0, 1000)],
    }


EVERYTHING = Changes(
    saves=(negotiation(), transfer(), inbox(), agreement(), usage(), dataset(), edr(), pull(), idempotent()),
    outbox=(outbound(), outbound("urn:uuid:o2", dead=True)),
    evidence=(fact(),),
)


class StoreContract(StoreLists, StoreLedger):
    """Writing, expectations, and reading by key. Lists, feeds and retention are in `StoreLists`, the ledger in `StoreLedger`."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize(
        ("record", "read"),
        [
            (negotiation(), lambda s: s.process(N, "urn:uuid:n1")),
            (negotiation(), lambda s: s.process_of_peer(N, PEER, "urn:uuid:theirs")),
            (transfer(), lambda s: s.process(T, "urn:uuid:t1")),
            (inbox(), lambda s: s.last_answer("urn:uuid:n1")),
            (agreement(), lambda s: s.agreement("urn:uuid:a1")),
            (usage(), lambda s: s.usage("urn:uuid:a1")),
            (dataset(), lambda s: s.dataset("urn:dataset:d1")),
            (dataset(), lambda s: s.offer("urn:dataset:d1:offer")),
            (edr(), lambda s: s.edr("urn:uuid:t1")),
            (pull(), lambda s: s.pull("urn:uuid:p1")),
            (idempotent(), lambda s: s.idempotent("key-1")),
            (outbound(), lambda s: s.outbound("urn:uuid:o1")),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_what_is_not_there_is_none_and_what_is_saved_is_found(self, stores: Stores, record: Any, read: Callable[[Store], Any]):
        store = stores.open()
        assert await read(store) is None
        saved = replace(record, peer_pid="urn:uuid:theirs") if isinstance(record, Process) else record
        its = (saved, negotiation()) if isinstance(saved, Inbox) else (saved,)  # whatever their order
        rows = Changes(outbox=(saved,)) if isinstance(saved, Outbound) else Changes(saves=its)
        await store.commit(rows)
        found = await read(store)
        assert found == (saved.offers[0] if isinstance(found, Offer) else saved)

    async def test_a_process_comes_back_with_every_field(self, stores: Stores):
        store = stores.open()
        whole = negotiation(
            role=Role.CONSUMER,
            state="OFFERED",
            peer_pid="urn:uuid:theirs",
            in_flight=Move.ACCEPTED,
            in_flight_id="urn:uuid:o9",
            last_accepted=b"\x00\xff" * 16,
            resumed=True,
            dataset="urn:dataset:d1",
            agreement="urn:uuid:a1",
            detail={"terms": {"a": [1, 2.5, None, True, "ü"]}, "reasons": []},
            due=1234.5678901,
            created=1.25,
            updated=1764000000.123456,
            version=41,
        )
        await store.commit(Changes(saves=(whole,)))
        found = await store.process(N, "urn:uuid:n1")
        assert found == whole
        assert found is not None
        assert (type(found.kind), type(found.role), type(found.in_flight)) == (Kind, Role, Move)

    async def test_an_outbox_row_comes_back_with_every_field(self, stores: Stores):
        store = stores.open()
        whole = outbound(
            body=b"\x00\xff", due=1.5, deadline=2.5, created=0.5, attempts=3, dead=True, error="no answer", trace="00-ab-cd-01", until=9.5
        )
        whole = replace(whole, claimed_by="replica-1", epoch=7, act="decide")
        await store.commit(Changes(outbox=(whole,)))
        assert await store.outbound(whole.id) == whole

    async def test_a_pull_an_agreement_and_a_dataset_come_back_with_every_field(self, stores: Stores):
        store = stores.open()
        order = pull(negotiation="n", agreement="a", transfer="t", validator='"x"', size_bytes=1 << 40, sha256=b"\x09" * 32)
        order = replace(order, received_bytes=1 << 39, reasons=("cut", "again"), updated=7.5)
        ended = {"closed": 98.5, "closed_by": "us", "reason": "over", "version": 3}
        deal = agreement(final=True, ends=99.5, **ended, document={"@id": "a", "permission": [{"action": "use"}]})
        await store.commit(Changes(saves=(order, deal, bound := dataset(binding=97.5))))
        assert await store.dataset(bound.id) == bound
        assert await store.pull(order.id) == order
        assert await store.agreement(deal.id) == deal

    async def test_of_what_is_used_that_is_open_of_which_something_is_reserved(self, stores: Stores):
        store = stores.open()
        used, settled = usage(), usage("urn:uuid:a2", open=())
        await store.commit(Changes(saves=(used, settled)))
        assert [*await store.open_usage()] == [used]
        over = used.settle("urn:uuid:r1", None, 1001.0)
        await store.commit(Changes(expects=(Expect(Usage, "urn:uuid:a1", 1),), saves=(over,)))
        assert [*await store.open_usage()] == []
        assert await store.usage("urn:uuid:a1") == over
        assert await store.commit(Changes(expects=(Expect(Usage, "urn:uuid:a1", 1),), saves=(used,))) == Conflict(
            Expect(Usage, "urn:uuid:a1", 1)
        )
        await store.commit(Changes(deletes=((Usage, "urn:uuid:a1"),)))
        assert await store.usage("urn:uuid:a1") is None

    async def test_of_many_reservations_each_is_kept(self, stores: Stores):
        store, held = stores.open(), usage(open=())

        async def reserve(number: int) -> None:
            while True:
                seen = await store.usage(held.agreement)
                row = replace(usage().open[0], id=f"r{number}")
                more = seen.reserve((row,), float(number)) if seen else replace(held, open=(row,))
                expect = Expect(Usage, held.agreement, seen.version if seen else None)
                if not isinstance(await store.commit(Changes(expects=(expect,), saves=(more,))), Conflict):
                    return

        await asyncio.gather(*(reserve(number) for number in range(50)))
        found = await store.usage(held.agreement)
        assert sorted(each.id for each in found.open) == sorted(f"r{number}" for number in range(50))
        assert found.version == 50

    async def test_saving_again_replaces_the_record(self, stores: Stores):
        store = stores.open()
        await store.commit(EVERYTHING)
        later = negotiation(state="AGREED", peer_pid="urn:uuid:theirs", due=5.0, version=2)
        await store.commit(Changes(saves=(later, replace(edr(), access_token="new"), replace(agreement(), final=True))))
        assert await store.process(N, later.pid) == later
        assert (await store.edr("urn:uuid:t1")).access_token == "new"
        assert (await store.agreement("urn:uuid:a1")).final
        assert len((await contents(store))["process"]) == 2

    async def test_a_process_is_found_only_as_what_it_is(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(peer_pid="p"),)))
        assert await store.process(T, "urn:uuid:n1") is None
        assert await store.process_of_peer(T, PEER, "p") is None
        assert await store.process_of_peer(N, OTHER_PEER, "p") is None

    async def test_expecting_the_version_that_is_there_holds(self, stores: Stores):
        store = stores.open()
        await store.commit(EVERYTHING)
        expects = (
            Expect(Process, "urn:uuid:n1", 1),
            Expect(Dataset, "urn:dataset:d1", 1),
            Expect(Pull, "urn:uuid:p1", 1),
            Expect(Outbound, "urn:uuid:o1", 0),
        )
        assert await store.commit(Changes(expects=expects, saves=(negotiation(version=2),))) == ()
        assert (await store.process(N, "urn:uuid:n1")).version == 2

    @pytest.mark.parametrize(
        "expect",
        [
            Expect(Process, "urn:uuid:n1", 0),
            Expect(Process, "urn:uuid:n1", 2),
            Expect(Process, "urn:uuid:n1", None),
            Expect(Process, "urn:uuid:unknown", 1),
            Expect(Process, (N, PEER, "urn:uuid:theirs"), None),
            Expect(Process, (N, PEER, "urn:uuid:unknown"), 1),
            Expect(Dataset, "urn:dataset:d1", 7),
            Expect(Dataset, "urn:dataset:d1", None),
            Expect(Dataset, "urn:dataset:unknown", 1),
            Expect(Offer, "urn:dataset:d1:offer", None),
            Expect(Offer, "urn:offer:unknown", 0),
            Expect(Pull, "urn:uuid:p1", 2),
            Expect(Pull, "urn:uuid:p1", None),
            Expect(Agreement, "urn:uuid:a1", 1),
            Expect(Agreement, "urn:uuid:a1", None),
            Expect(Agreement, "urn:uuid:unknown", 0),
            Expect(Edr, "urn:uuid:t1", None),
            Expect(Edr, "urn:uuid:unknown", 0),
            Expect(Idempotent, "key-1", None),
            Expect(Idempotent, "key-unknown", 0),
            Expect(Outbound, "urn:uuid:o1", 1),
            Expect(Outbound, "urn:uuid:o1", None),
            Expect(Outbound, "urn:uuid:unknown", 0),
        ],
        ids=lambda expect: f"{expect.of.__name__}-{'peer' if isinstance(expect.key, tuple) else expect.key[9:]}-{expect.version}",
    )
    async def test_a_conflict_names_the_expectation_and_changes_nothing(self, stores: Stores, expect: Expect):
        store = stores.open()
        await store.commit(replace(EVERYTHING, saves=(*EVERYTHING.saves[1:], negotiation(peer_pid="urn:uuid:theirs"))))
        before = await contents(store)
        wide = Changes(
            expects=(Expect(Process, "urn:uuid:n1", 1), expect, Expect(Pull, "urn:uuid:p1", 1)),
            saves=(negotiation(version=2), negotiation("urn:uuid:n2"), inbox("urn:uuid:n2"), agreement("urn:uuid:a2"), edr("urn:uuid:t2")),
            deletes=((Dataset, "urn:dataset:d1"), (Process, "urn:uuid:t1")),
            outbox=(outbound("urn:uuid:o3"), outbound("urn:uuid:o1", attempts=9)),
            settled=("urn:uuid:o2",),
            evidence=(fact("message-sent"),),
        )
        wide = replace(wide, saves=(*wide.saves, dataset("urn:dataset:d2"), pull("urn:uuid:p2"), idempotent("key-2")))
        assert await store.commit(wide) == Conflict(expect)
        assert await contents(store) == before

    @pytest.mark.parametrize(
        "expect",
        [
            Expect(Process, "urn:uuid:n1", None),
            Expect(Process, (N, PEER, "urn:uuid:theirs"), None),
            Expect(Dataset, "urn:dataset:d1", None),
            Expect(Offer, "urn:dataset:d1:offer", None),
            Expect(Pull, "urn:uuid:p1", None),
            Expect(Agreement, "urn:uuid:a1", None),
            Expect(Edr, "urn:uuid:t1", None),
            Expect(Idempotent, "key-1", None),
            Expect(Outbound, "urn:uuid:o1", None),
        ],
        ids=lambda expect: expect.of.__name__,
    )
    async def test_expecting_absence_holds_once(self, stores: Stores, expect: Expect):
        store = stores.open()
        first = replace(EVERYTHING, expects=(expect,), saves=(*EVERYTHING.saves[1:], negotiation(peer_pid="urn:uuid:theirs")))
        assert not isinstance(await store.commit(first), Conflict)
        assert await store.commit(first) == Conflict(expect)

    async def test_a_process_found_by_its_peer_pid_can_be_expected_in_a_version(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(peer_pid="p", version=3),)))
        key = (N, PEER, "p")
        assert await store.commit(Changes(expects=(Expect(Process, key, 2),))) == Conflict(Expect(Process, key, 2))
        assert await store.commit(Changes(expects=(Expect(Process, key, 3),))) == ()

    @pytest.mark.parametrize("version", [0, 1, 17])
    async def test_a_record_without_versions_is_expected_by_any_number(self, stores: Stores, version: int):
        store = stores.open()
        await store.commit(EVERYTHING)
        keys = [(Offer, "urn:dataset:d1:offer"), (Edr, "urn:uuid:t1"), (Idempotent, "key-1")]
        assert await store.commit(Changes(expects=tuple(Expect(of, key, version) for of, key in keys))) == ()

    async def test_the_first_broken_expectation_is_the_one_reported(self, stores: Stores):
        store = stores.open()
        first, second = Expect(Process, "urn:uuid:x", 1), Expect(Process, "urn:uuid:y", 1)
        assert await store.commit(Changes(expects=(Expect(Edr, "none", None), first, second))) == Conflict(first)

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    async def test_a_step_reports_the_first_broken_one_too_before_what_nobody_has_said(self, stores: Stores, order: tuple[int, ...]):
        """A step of one process is what is written most: whichever way a store takes with it, it names the same."""
        store = stores.open()
        taken = negotiation("urn:uuid:n2", peer_pid="p")
        await store.commit(Changes(saves=(negotiation(), taken, dataset("urn:dataset:d1", ("o",)))))
        broken = (Expect(Process, "urn:uuid:n1", 7), Expect(Pull, "urn:uuid:p1", 1), Expect(Agreement, "urn:uuid:a1", 1))
        expects = tuple(broken[each] for each in order)
        step = Changes(expects, (negotiation(version=8, peer_pid="p"), dataset("urn:dataset:d2", ("o",))))
        assert await store.commit(step) == Conflict(expects[0])
        rest = tuple(each for each in expects if each.of is not Process)
        known = replace(step, expects=(*rest, Expect(Process, "urn:uuid:n1", 1)))
        assert await store.commit(known) == Conflict(rest[0])
        said = replace(step, expects=(Expect(Process, "urn:uuid:n1", 1),))
        assert await store.commit(said) == Conflict(Expect(Process, (N, PEER, "p"), None)), "of what nobody has said, in the order of saves"
        offers = replace(said, saves=(negotiation(version=8), dataset("urn:dataset:d2", ("o",))))
        assert await store.commit(offers) == Conflict(Expect(Offer, "o", None))

    async def test_no_two_processes_have_the_same_peer_pid_even_if_nobody_said_so(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(peer_pid="p"), negotiation("urn:uuid:n2"))))
        before = await contents(store)
        twin = Changes(saves=(agreement(), negotiation("urn:uuid:n2", peer_pid="p", version=2)), evidence=(fact(),))
        expected = Conflict(Expect(Process, (N, PEER, "p"), None))
        assert await store.commit(twin) == expected
        assert await store.commit(replace(twin, expects=(Expect(Process, "urn:uuid:n2", 1),))) == expected
        assert await contents(store) == before

    async def test_the_same_peer_pid_of_another_peer_or_kind_is_another_process(self, stores: Stores):
        store = stores.open()
        processes = (negotiation(peer_pid="p"), negotiation("urn:uuid:n2", peer=OTHER_PEER, peer_pid="p"), transfer(peer_pid="p"))
        assert await store.commit(Changes(saves=processes)) == ()
        assert await store.process_of_peer(N, OTHER_PEER, "p") == processes[1]
        assert await store.process_of_peer(T, PEER, "p") == processes[2]

    async def test_an_offer_stays_with_its_dataset_even_if_nobody_said_so(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(dataset("urn:dataset:d1", ("o",)),)))
        assert await store.commit(Changes(saves=(agreement(), dataset("urn:dataset:d2", ("o",))))) == Conflict(Expect(Offer, "o", None))
        assert await store.agreement("urn:uuid:a1") is None
        assert (await store.offer("o")).dataset == "urn:dataset:d1"
        assert await store.commit(Changes(saves=(dataset("urn:dataset:d1", ("o", "o2"), version=2),))) == ()

    async def test_one_write_that_claims_a_key_twice_is_refused_before_it_begins(self, stores: Stores):
        store = stores.open()
        for saves in [
            (negotiation(peer_pid="p"), negotiation("urn:uuid:n2", peer_pid="p")),
            (dataset(offers=("o",)), dataset("urn:dataset:d2", ("o",))),
            (dataset(offers=("o", "o")),),
        ]:
            with pytest.raises(ValueError, match="two records of one write claim"):
                await store.commit(Changes(saves=(agreement(), *saves)))
        assert await store.agreement("urn:uuid:a1") is None

    @pytest.mark.parametrize(
        "changes",
        [
            Changes(saves=(agreement(), negotiation(detail={"x": object()}))),
            Changes(saves=(agreement(), negotiation(detail={1: "a key that is no text"}))),
            Changes(saves=(agreement(), negotiation(detail={"x": 1 << 70}))),
            Changes(saves=(agreement(), negotiation(detail={"x": "\ud800"}))),
            Changes(saves=(agreement(),), evidence=(fact(detail={"x": {1, 2}}),)),
            Changes(saves=(agreement(),), deletes=((Evidence, "1"),)),
            Changes(saves=(agreement(),), deletes=((Outbound, "urn:uuid:o1"),)),
            Changes(saves=(agreement(),), expects=(Expect(Inbox, "urn:uuid:n1", 1),)),
        ],
    )
    async def test_what_no_row_can_hold_is_refused_before_anything_is_written(self, stores: Stores, changes: Changes):
        store = stores.open()
        with pytest.raises((TypeError, ValueError)):
            await store.commit(changes)
        assert await store.agreement("urn:uuid:a1") is None
        assert await store.commit(EVERYTHING) != ()

    async def test_an_empty_write_is_no_conflict(self, stores: Stores):
        assert await stores.open().commit(Changes()) == ()

    async def test_of_many_writes_on_one_version_exactly_one_wins(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(version=0),)))
        won: list[int] = []

        async def step(task: int) -> None:
            while True:
                seen = await store.process(N, "urn:uuid:n1")
                later = replace(seen, version=seen.version + 1, detail={"by": task})
                done = await store.commit(
                    Changes(expects=(Expect(Process, seen.pid, seen.version),), saves=(later,), evidence=(fact(detail={"by": task}),))
                )
                if not isinstance(done, Conflict):
                    won.append(later.version)
                    return

        await asyncio.gather(*(step(task) for task in range(200)))
        assert sorted(won) == list(range(1, 201))
        assert (await store.process(N, "urn:uuid:n1")).version == 200
        facts = await store.events(0, 1000)
        assert len(facts) == 200
        assert {each.detail["by"] for each in facts} == set(range(200))

    async def test_of_many_equal_first_messages_exactly_one_makes_a_process(self, stores: Stores):
        store = stores.open()
        expect = Expect(Process, (N, PEER, "p"), None)
        writes = [
            Changes(expects=(expect,), saves=(negotiation(f"urn:uuid:n{task}", peer_pid="p"),), evidence=(fact(),)) for task in range(50)
        ]
        done = await asyncio.gather(*(store.commit(write) for write in writes))
        assert sum(not isinstance(each, Conflict) for each in done) == 1
        assert len((await contents(store))["process"]) == 1
        assert len(await store.events(0, 100)) == 1

    async def test_evidence_returns_with_the_numbers_under_which_it_stands(self, stores: Stores):
        store = stores.open()
        one = await store.commit(Changes(evidence=(fact("message-received"), fact("message-sent"))))
        two = await store.commit(
            Changes(evidence=(fact("message-acknowledged", digest=b"\x07" * 32, move=Move.FINALIZED, detail={"a": [1]}),))
        )
        assert [each.sequence for each in (*one, *two)] == [1, 2, 3]
        assert [*await store.events(0, 10)] == [*one, *two]

    async def test_a_fact_may_be_about_no_process(self, stores: Stores):
        store = stores.open()
        about_nothing = Evidence("dataset-published", None, None, None, None, 5.0)
        await store.commit(Changes(evidence=(about_nothing,)))
        assert [*await store.events(0, 10)] == [replace(about_nothing, sequence=1)]

    async def test_deleting_removes_the_record_and_what_belongs_to_it(self, stores: Stores):
        store = stores.open()
        await store.commit(EVERYTHING)
        keys = ((Process, "urn:uuid:n1"), (Dataset, "urn:dataset:d1"), (Agreement, "urn:uuid:a1"), (Edr, "urn:uuid:t1"))
        await store.commit(Changes(deletes=(*keys, (Pull, "urn:uuid:p1"), (Idempotent, "key-1"), (Process, "urn:uuid:unknown"))))
        left = await contents(store)
        assert left["process"] == [transfer()]
        assert not any((*left["inbox"], *left["agreement"], *left["usage"], *left["dataset"], *left["offer"], *left["edr"], *left["pull"]))
        assert left["idempotent"] == [None, None]
        assert len(left["evidence"]) == 1

    async def test_a_key_that_is_deleted_and_saved_in_one_write_is_there_anew(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(dataset(offers=("old",)), negotiation(), inbox())))
        await store.commit(
            Changes(
                deletes=((Dataset, "urn:dataset:d1"), (Process, "urn:uuid:n1")), saves=(dataset(offers=("new",)), negotiation(version=9))
            )
        )
        assert await store.offer("old") is None
        assert (await store.offer("new")).id == "new"
        assert (await store.process(N, "urn:uuid:n1")).version == 9
        assert await store.last_answer("urn:uuid:n1") is None

    async def test_the_last_accepted_message_has_the_answer(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(), inbox(answer=b"1", at=9.0), negotiation("urn:uuid:n2"))))
        await store.commit(Changes(saves=(inbox(answer=b"2", at=3.0), inbox("urn:uuid:n2", answer=b"other"))))
        assert (await store.last_answer("urn:uuid:n1")).answer == b"2"
        assert (await store.last_answer("urn:uuid:n2")).answer == b"other"

    async def test_an_answer_stays_with_its_process_and_goes_with_it(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(negotiation(), inbox(answer=b"1"), inbox("urn:uuid:n2"))))
        await store.commit(Changes(saves=(negotiation(version=2, state="AGREED"),)))
        assert (await store.last_answer("urn:uuid:n1")).answer == b"1"
        assert await store.last_answer("urn:uuid:n2") is None
        await store.commit(Changes(deletes=((Process, "urn:uuid:n1"),), saves=(negotiation("urn:uuid:n2"),)))
        await store.commit(Changes(saves=(negotiation(),)))
        assert [await store.last_answer(pid) for pid in ("urn:uuid:n1", "urn:uuid:n2")] == [None, None]

    async def test_withdrawing_an_offer_leaves_the_others_of_its_dataset(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=(dataset(offers=("a", "b")),)))
        await store.commit(Changes(saves=(dataset(offers=("b",), version=2),)))
        assert await store.offer("a") is None
        assert (await store.offer("b")).dataset == "urn:dataset:d1"

    async def test_an_outbox_row_is_put_in_replaced_and_settled(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(outbox=(outbound("a", created=1.0), outbound("b", created=2.0))))
        await store.commit(Changes(outbox=(outbound("a", created=1.0, attempts=1, error="no answer", due=50.0),)))
        assert [(row.id, row.attempts) for row in await store.open_outbox()] == [("a", 1), ("b", 0)]
        await store.commit(Changes(settled=("a", "unknown")))
        assert [row.id for row in await store.open_outbox()] == ["b"]
        assert await store.outbound("a") is None

    async def test_a_dead_letter_leaves_the_open_ones_and_can_be_replayed(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(outbox=(outbound("a"),)))
        await store.commit(Changes(outbox=(outbound("a", dead=True, error="deadline"),)))
        assert [*await store.open_outbox()] == []
        assert [row.id for row in (await store.dead_letters(after=None, limit=10)).items] == ["a"]
        await store.commit(Changes(expects=(Expect(Outbound, "a", 0),), outbox=(outbound("a", epoch=1),)))
        assert [row.id for row in await store.open_outbox()] == ["a"]
        assert (await store.dead_letters(after=None, limit=10)).items == ()

    async def test_an_effect_that_is_settled_and_written_at_once_is_not_lost(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(outbox=(outbound("a"),)))
        await store.commit(Changes(outbox=(outbound("a", attempts=1),), settled=("a",)))
        assert [row.attempts for row in await store.open_outbox()] == [1]

    async def test_a_lease_is_taken_once(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(outbox=(outbound("a"),)))
        claims = [
            Changes(expects=(Expect(Outbound, "a", 0),), outbox=(outbound("a", claimed_by=name, epoch=1, until=9.0),)) for name in "xyz"
        ]
        done = await asyncio.gather(*(store.commit(claim) for claim in claims))
        assert [isinstance(each, Conflict) for each in done] == [False, True, True]
        assert (await store.outbound("a")).claimed_by == "x"

    async def test_participants_do_not_see_each_others_rows(self, stores: Stores):
        ours, theirs = stores.open(OWN), stores.open(PEER)
        nothing = await contents(theirs)
        await ours.commit(replace(EVERYTHING, saves=(*EVERYTHING.saves[1:], negotiation(peer_pid="p", due=5.0, state="FINALIZED"))))
        assert await contents(theirs) == nothing
        assert await theirs.process_of_peer(N, PEER, "p") is None
        assert await theirs.next_due() is None
        assert [*await theirs.due(1e12, 10), *await theirs.evidence_of("urn:uuid:n1")] == []
        assert await theirs.outbound("urn:uuid:o1") is None

    async def test_participants_write_the_same_keys_without_meeting(self, stores: Stores):
        ours, theirs = stores.open(OWN), stores.open(PEER)
        write = replace(EVERYTHING, expects=(Expect(Process, "urn:uuid:n1", None), Expect(Offer, "urn:dataset:d1:offer", None)))
        one, two = await asyncio.gather(ours.commit(write), theirs.commit(write))
        assert [[each.sequence for each in facts] for facts in (one, two)] == [[1], [1]]
        before = await contents(ours)
        await theirs.commit(
            Changes(saves=(negotiation(version=2),), deletes=((Dataset, "urn:dataset:d1"),), settled=("urn:uuid:o1",), evidence=(fact(),))
        )
        await theirs.sweep(inbox_before=1e12, processes_before=1e12, keys_before=1e12, limit=100)
        assert await contents(ours) == before

    async def test_big_values_come_back_whole(self, stores: Stores):
        store = stores.open()
        mebibyte = bytes(range(256)) * 4096
        records = (negotiation(detail={"x": "y" * 300_000}), inbox(body=mebibyte, answer=mebibyte), dataset(document=mebibyte))
        await store.commit(Changes(saves=records, outbox=(outbound(body=mebibyte),), evidence=(fact(detail={"x": ["z"] * 50_000}),)))
        assert await store.process(N, "urn:uuid:n1") == records[0]
        assert await store.last_answer("urn:uuid:n1") == records[1]
        assert await store.dataset("urn:dataset:d1") == records[2]
        assert (await store.outbound("urn:uuid:o1")).body == mebibyte
        assert (await store.events(0, 1))[0].detail == {"x": ["z"] * 50_000}

    @pytest.mark.parametrize("text", ["桥", "🏥" * 50, "a\x00b", "' or 1=1; --", "%_*?", "e\u0301 is not é", "\u202egnirts", ""])
    async def test_any_text_can_be_a_key(self, stores: Stores, text: str):
        store = stores.open()
        process = negotiation(text, peer=text, peer_pid=text, detail={text: text})
        await store.commit(Changes(saves=(process, dataset(text, (text,)), idempotent(text)), outbox=(outbound(text, text, error=text),)))
        assert await store.process(N, text) == process
        assert await store.process_of_peer(N, text, text) == process
        assert (await store.offer(text)).dataset == text
        assert (await store.idempotent(text)).key == text
        assert (await store.outbound(text)).error == text

    async def test_a_text_that_no_key_can_be_is_not_found(self, stores: Stores):
        store = stores.open()
        assert await store.process(N, "\ud800") is None
        assert await store.dataset("\udfff") is None

    async def test_keys_differ_by_case_and_by_trailing_space(self, stores: Stores):
        store = stores.open()
        await store.commit(Changes(saves=tuple(dataset(id, ()) for id in ("a", "A", "a "))))
        assert [each.id for each in (await store.datasets(after=None, before=None, limit=9)).items] == ["A", "a", "a "]

    async def test_changing_a_document_that_was_saved_or_read_changes_nothing_stored(self, stores: Stores):
        store = stores.open()
        mine: dict[str, Any] = {"list": [1]}
        await store.commit(Changes(saves=(negotiation(detail=mine), dataset(source=mine)), evidence=(fact(detail=mine),)))
        mine["list"].append(2)
        for read in (store.process(N, "urn:uuid:n1"), store.process(N, "urn:uuid:n1")):
            found = await read
            assert found.detail == {"list": [1]}
            found.detail["list"].append(3)
        (await store.dataset("urn:dataset:d1")).source["list"].append(3)
        (await store.events(0, 1))[0].detail["list"].append(3)
        assert (await store.dataset("urn:dataset:d1")).source == {"list": [1]}
        assert (await store.events(0, 1))[0].detail == {"list": [1]}

    async def test_whoever_stops_waiting_does_not_stop_the_write(self, stores: Stores):
        store = stores.open()
        waiting = asyncio.ensure_future(store.commit(Changes(saves=(negotiation(),))))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        await store.commit(Changes(evidence=(fact(),)))
        assert await store.process(N, "urn:uuid:n1") is not None

    async def test_a_closed_store_says_so(self, stores: Stores):
        store = stores.open()
        await store.commit(EVERYTHING)
        await store.close()
        for call in (store.commit(EVERYTHING), store.process(N, "urn:uuid:n1"), store.events(0, 1), store.next_due()):
            with pytest.raises(StoreError, match="closed"):
                await call
