"""What every `Store` owes to its callers, second half: lists and their pages, feeds, deadlines, retention."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.dsp.messages import Kind, Role
from connector.errors import InvalidRequest
from connector.ports import Store
from connector.records import Changes, Conflict, Cursor, Open, Page
from connector.values import replace
from tests.contracts.samples import (
    OTHER_PEER,
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
)

N, T = Kind.NEGOTIATION, Kind.TRANSFER
Listing = Callable[[str | None, int], Awaitable[Page[Any]]]

few_examples = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
# Instants that are often equal, ids that sort in every way a text can.
places = st.lists(
    st.tuples(st.sampled_from([0.0, 1.5, 1e9 + 0.1, 1e9 + 0.3]), st.text("aA~é桥🏥\x00", max_size=4)),
    max_size=14,
    unique_by=lambda place: place[1],
)


async def forward(listing: Listing, limit: int) -> list[Page[Any]]:
    pages = [await listing(None, limit)]
    while (cursor := pages[-1].next) is not None:
        pages.append(await listing(cursor, limit))
    return pages


async def check_pages(listing: Listing, expected: list[Any], limit: int) -> None:
    """The pages forward and the pages backward are both the whole list, and none is empty unless the list is."""
    pages = await forward(listing, limit)
    assert [item for page in pages for item in page.items] == expected
    assert all(len(page.items) == limit for page in pages[:-1])
    assert pages[-1].items or not expected
    assert [page.previous is None for page in pages] == [True] + [False] * (len(pages) - 1)
    page, backward = pages[-1], list(pages[-1].items)
    while page.previous is not None:
        page = await listing(page.previous, limit)
        assert page.next is not None
        backward = [*page.items, *backward]
    assert backward == expected


class StoreLists:
    """Lists and their pages, feeds, deadlines, retention."""

    @few_examples
    @given(places=places, limit=st.integers(1, 5))
    async def test_pages_of_processes_put_together_are_the_list_newest_first(
        self, stores: Any, places: list[tuple[float, str]], limit: int
    ):
        store: Store = stores.fresh()
        rows = [negotiation(id, created=at) for at, id in places]
        await store.commit(Changes(saves=(*rows, transfer("another kind"))))
        expected = sorted(rows, key=lambda row: (row.created, row.pid), reverse=True)
        await check_pages(lambda after, limit: store.processes(N, after=after, limit=limit, state=None, peer=None), expected, limit)

    @few_examples
    @given(places=places, limit=st.integers(1, 5))
    async def test_pages_of_agreements_put_together_are_the_list_newest_first(
        self, stores: Any, places: list[tuple[float, str]], limit: int
    ):
        store: Store = stores.fresh()
        rows = [agreement(id, created=at) for at, id in places]
        await store.commit(Changes(saves=tuple(rows)))
        expected = sorted(rows, key=lambda row: (row.created, row.id), reverse=True)
        await check_pages(lambda after, limit: store.agreements(peer=None, dataset=None, after=after, limit=limit), expected, limit)

    @few_examples
    @given(places=places, limit=st.integers(1, 5))
    async def test_pages_of_pulls_and_of_dead_letters_put_together_are_the_lists(
        self, stores: Any, places: list[tuple[float, str]], limit: int
    ):
        store: Store = stores.fresh()
        rows = [pull(id, created=at) for at, id in places]
        dead = [outbound(id, created=at, dead=True) for at, id in places]
        await store.commit(Changes(saves=tuple(rows), outbox=(*dead, outbound("alive"))))
        rows.sort(key=lambda row: (row.created, row.id), reverse=True)
        dead.sort(key=lambda row: (row.created, row.id), reverse=True)
        await check_pages(lambda after, limit: store.pulls(open_only=False, after=after, limit=limit), rows, limit)
        await check_pages(lambda after, limit: store.dead_letters(after=after, limit=limit), dead, limit)

    @few_examples
    @given(places=places, limit=st.integers(1, 5))
    async def test_pages_of_datasets_put_together_are_the_list_by_id(self, stores: Any, places: list[tuple[float, str]], limit: int):
        store: Store = stores.fresh()
        rows = sorted((dataset(id) for _, id in places), key=lambda row: row.id)
        await store.commit(Changes(saves=tuple(rows)))
        pages = await forward(lambda after, limit: store.datasets(after=after, before=None, limit=limit), limit)
        assert [item for page in pages for item in page.items] == rows
        page, backward = pages[-1], list(pages[-1].items)
        while page.previous is not None:
            page = await store.datasets(after=None, before=page.previous, limit=limit)
            assert page.next == page.items[-1].id
            backward = [*page.items, *backward]
        assert backward == rows

    async def test_a_page_of_datasets_ends_just_before_where_it_was_asked_to(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(saves=tuple(dataset(id) for id in "abcdef")))
        page = await store.datasets(after=None, before="e", limit=2)
        assert ([row.id for row in page.items], page.previous, page.next) == (["c", "d"], "c", "d")
        between = await store.datasets(after="a", before="d", limit=5)
        assert [row.id for row in between.items] == ["b", "c"]
        beyond = await store.datasets(after="x", before=None, limit=5)
        assert beyond == Page(())

    async def test_a_dataset_is_listed_as_it_is_published(self, stores: Any):
        store: Store = stores.open()
        rows = tuple(dataset(id) for id in "abcde")
        await store.commit(Changes(saves=rows))
        for ends in ({"after": None, "before": None}, {"after": "a", "before": None}, {"after": None, "before": "d"}):
            whole, listed = await store.datasets(**ends, limit=3), await store.listed_datasets(**ends, limit=3)
            assert (listed.previous, listed.next) == (whole.previous, whole.next)
            assert tuple(each.read() for each in listed.items) == whole.items
            assert [(each.id, each.document) for each in listed.items] == [(each.id, each.document) for each in whole.items]
            for each in listed.items:
                alone = await store.listed_dataset(each.id)
                assert (alone.id, alone.document, alone.terms, alone.read()) == (each.id, each.document, each.terms, each.read())
        assert await store.listed_dataset("f") is None

    async def test_what_is_listed_tells_other_terms_apart_whatever_else_is_the_same(self, stores: Any):
        store: Store = stores.open()
        first = dataset(offers=("o",))
        second = replace(first, offers=(replace(first.offers[0], policy={"permission": [{"action": "read"}]}),))
        terms = []
        for each in (first, second, first):
            await store.commit(Changes(saves=(each,)))
            terms.append((await store.listed_datasets(after=None, before=None, limit=5)).items[0].terms)
            assert (await store.listed_dataset(first.id)).terms == terms[-1]
        assert terms[0] == terms[2] != terms[1]

    async def test_an_empty_list_is_one_empty_page(self, stores: Any):
        store: Store = stores.open()
        assert await store.processes(N, after=None, limit=5, state=None, peer=None) == Page(())
        assert await store.datasets(after=None, before=None, limit=5) == Page(())

    async def test_a_list_that_grows_keeps_the_pages_that_were_begun(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(saves=tuple(negotiation(f"n{n}", created=float(n)) for n in range(6))))
        first = await store.processes(N, after=None, limit=3, state=None, peer=None)
        await store.commit(Changes(saves=(negotiation("newer", created=99.0),)))
        second = await store.processes(N, after=first.next, limit=3, state=None, peer=None)
        assert [row.pid for row in (*first.items, *second.items)] == ["n5", "n4", "n3", "n2", "n1", "n0"]
        newest = await store.processes(N, after=second.previous, limit=9, state=None, peer=None)
        assert [row.pid for row in newest.items] == ["newer", "n5", "n4", "n3"]

    async def test_processes_are_filtered_by_state_and_peer(self, stores: Any):
        store: Store = stores.open()
        rows = [
            negotiation(f"{state}-{peer}-{n}", state=state, peer=peer, created=float(n))
            for n in range(3)
            for state in ("REQUESTED", "FINALIZED")
            for peer in (PEER, OTHER_PEER)
        ]
        await store.commit(Changes(saves=tuple(rows)))

        async def pids(state: str | None, peer: str | None) -> list[str]:
            pages = await forward(lambda after, limit: store.processes(N, after=after, limit=limit, state=state, peer=peer), 2)
            return [row.pid for page in pages for row in page.items]

        assert await pids("FINALIZED", PEER) == [f"FINALIZED-{PEER}-{n}" for n in (2, 1, 0)]
        assert len(await pids("FINALIZED", None)) == 6
        assert len(await pids(None, OTHER_PEER)) == 6
        assert await pids("OFFERED", None) == []

    async def test_agreements_are_filtered_by_peer_and_dataset(self, stores: Any):
        store: Store = stores.open()
        rows = [agreement(f"{peer}-{name}", peer=peer, dataset=name) for peer in (PEER, OTHER_PEER) for name in ("d1", "d2")]
        await store.commit(Changes(saves=tuple(rows)))
        found = await store.agreements(peer=PEER, dataset="d2", after=None, limit=9)
        assert [row.id for row in found.items] == [f"{PEER}-d2"]
        assert len((await store.agreements(peer=None, dataset="d1", after=None, limit=9)).items) == 2
        assert len((await store.agreements(peer=OTHER_PEER, dataset=None, after=None, limit=9)).items) == 2

    async def test_open_pulls_are_those_that_go_on(self, stores: Any):
        store: Store = stores.open()
        stages = ("negotiate", "transfer", "download", "complete", "done", "failed")
        await store.commit(Changes(saves=tuple(pull(stage, stage=stage) for stage in stages)))
        found = await store.pulls(open_only=True, after=None, limit=9)
        assert {row.id for row in found.items} == set(stages[:4])
        await store.commit(Changes(saves=(pull("download", stage="done", version=2),)))
        assert len((await store.pulls(open_only=True, after=None, limit=9)).items) == 3

    @pytest.mark.parametrize(
        "text", ["", "x", "é", "🏥", "bm9uZQ", "W10", "WzEsMiwzXQ", "W3RydWUsMSwieCJd", "W3RydWUsMS4wLDJd", "a" * 5000, "\ud800"]
    )
    async def test_a_text_that_is_no_cursor_is_refused(self, stores: Any, text: str):
        store: Store = stores.open()
        for listing in (
            store.processes(N, after=text, limit=5, state=None, peer=None),
            store.agreements(peer=None, dataset=None, after=text, limit=5),
            store.pulls(open_only=False, after=text, limit=5),
            store.dead_letters(after=text, limit=5),
        ):
            with pytest.raises(InvalidRequest, match="not a cursor"):
                await listing

    async def test_a_cursor_says_the_same_after_a_round_trip(self, stores: Any):
        for cursor in (Cursor(True, 0.1 + 0.2, "桥"), Cursor(False, -1e300, "\x00?/+")):
            assert Cursor.read(str(cursor)) == cursor
            assert str(cursor).replace("-", "").replace("_", "").isalnum()

    @pytest.mark.parametrize("limit", [0, -1, 10_001, 1 << 70])
    async def test_a_limit_that_is_no_size_of_a_page_is_refused(self, stores: Any, limit: int):
        store: Store = stores.open()
        await store.commit(Changes(saves=(negotiation(), dataset()), evidence=(fact(),)))
        for call in (
            store.processes(N, after=None, limit=limit, state=None, peer=None),
            store.datasets(after=None, before=None, limit=limit),
            store.events(0, limit),
            store.due(1e12, limit),
            store.sweep(inbox_before=0.0, processes_before=0.0, keys_before=0.0, limit=limit),
        ):
            with pytest.raises(InvalidRequest, match="`limit`"):
                await call

    @few_examples
    @given(sizes=st.lists(st.integers(0, 4), max_size=8), limit=st.integers(1, 6))
    async def test_the_feed_tells_everything_once_and_in_order(self, stores: Any, sizes: list[int], limit: int):
        store: Store = stores.fresh()
        told: list[Any] = []
        for number, size in enumerate(sizes):
            facts = await store.commit(Changes(evidence=tuple(fact(detail={"n": number}) for _ in range(size))))
            assert not isinstance(facts, Conflict)
            told += facts
        heard: list[Any] = []
        while batch := await store.events(heard[-1].sequence if heard else 0, limit):
            heard += batch
        assert heard == told
        assert [each.sequence for each in heard] == list(range(1, sum(sizes) + 1))

    async def test_the_feed_takes_any_number(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(evidence=(fact(), fact())))
        assert len(await store.events(-(1 << 70), 9)) == 2
        assert [*await store.events(1 << 70, 9)] == []

    async def test_the_evidence_of_one_process_is_in_order(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(evidence=(fact("a", pid="x"), fact("b", pid="y"), fact("c", pid="x"))))
        assert [each.what for each in await store.evidence_of("x")] == ["a", "c"]
        assert [*await store.evidence_of("unknown")] == []

    async def test_due_processes_come_earliest_first_and_only_when_due(self, stores: Any):
        store: Store = stores.open()
        rows = (negotiation("c", due=30.0), negotiation("a", due=10.0), transfer("b", due=20.0), negotiation("never"))
        await store.commit(Changes(saves=rows))
        assert await store.next_due() == 10.0
        assert [row.pid for row in await store.due(20.0, 9)] == ["a", "b"]
        assert [row.pid for row in await store.due(1e12, 2)] == ["a", "b"]
        assert [*await store.due(9.999, 9)] == []
        await store.commit(Changes(saves=(negotiation("a", due=None, version=2), transfer("b", due=40.0, version=2))))
        assert await store.next_due() == 30.0

    async def test_open_transfers_are_all_that_have_not_ended_with_what_they_go_by(self, stores: Any):
        store: Store = stores.open()
        about = {"agreement": "urn:uuid:a1", "dataset": "urn:dataset:d1"}
        states = ("INITIAL", "REQUESTED", "STARTED", "SUSPENDED", "COMPLETED", "TERMINATED")
        rows = [transfer(state, state=state, role=role, **about) for state, role in zip(states, (*Role, *Role, *Role), strict=True)]
        await store.commit(Changes(saves=(*rows, negotiation("n"), transfer("bare", state="STARTED"))))
        found = sorted(await store.open_transfers(), key=lambda row: row.pid)
        known = [Open(state, PEER, "urn:uuid:a1", "urn:dataset:d1") for state in states[:4]]
        assert found == [*known, Open("bare", PEER, None, None)]
        assert [*await stores.fresh().open_transfers()] == []

    async def test_nothing_is_due_where_nothing_waits(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(saves=(negotiation(),)))
        assert await store.next_due() is None

    async def test_the_open_outbox_is_oldest_first(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(outbox=(outbound("z", created=3.0), outbound("y", created=1.0), outbound("x", created=2.0, dead=True))))
        assert [row.id for row in await store.open_outbox()] == ["y", "z"]

    async def test_retention_removes_what_is_over_and_old_and_nothing_else(self, stores: Any):
        store: Store = stores.open()
        await store.commit(
            Changes(
                saves=(
                    negotiation("over", state="FINALIZED", updated=10.0, created=1.0),
                    transfer("over-t", state="COMPLETED", updated=10.0, created=1.0),
                    edr("over-t"),
                    negotiation("open", state="AGREED", updated=10.0, created=1.0),
                    transfer("open-t", state="STARTED", updated=10.0, created=1.0),
                    edr("open-t"),
                    negotiation("young", state="TERMINATED", updated=100.0, created=1.0),
                    inbox("over", at=10.0),
                    inbox("open", at=10.0),
                    inbox("young", at=10.0),
                    inbox("young", at=100.0),
                    agreement("deal", negotiation="over"),
                    pull("done", stage="done", created=1.0, updated=10.0, validator='"v"'),
                    pull("failed", stage="failed", created=1.0, updated=10.0),
                    pull("part", stage="failed", created=1.0, updated=10.0, validator='"v"'),
                    pull("running", stage="download", created=1.0, updated=10.0),
                    pull("recent", stage="done", created=1.0, updated=100.0),
                    idempotent("old", created=10.0),
                    idempotent("new", created=100.0),
                ),
                evidence=(fact(pid="over"),),
            )
        )
        counts = await store.sweep(inbox_before=50.0, processes_before=50.0, keys_before=50.0, limit=100)
        assert counts == {"inbox": 1, "process": 2, "pull": 2, "idempotent": 1}
        gone = [await store.pull(id) is None for id in ("done", "failed", "running", "recent", "part")]
        assert gone == [True, True, False, False, False], "of what it has left on a disk nobody else knows"
        assert [await store.process(N, pid) is None for pid in ("over", "open", "young")] == [True, False, False]
        assert [await store.process(T, pid) is None for pid in ("over-t", "open-t")] == [True, False]
        assert [await store.edr(pid) is None for pid in ("over-t", "open-t")] == [True, False]
        assert [await store.last_answer(pid) is None for pid in ("over", "open", "young")] == [True, False, False]
        assert await store.agreement("deal") is not None
        assert len(await store.events(0, 9)) == 1
        assert [await store.idempotent(key) is None for key in ("old", "new")] == [True, False]
        again = await store.sweep(inbox_before=50.0, processes_before=50.0, keys_before=50.0, limit=100)
        assert again == {"inbox": 0, "process": 0, "pull": 0, "idempotent": 0}

    async def test_retention_takes_the_oldest_first_and_not_more_than_it_may(self, stores: Any):
        store: Store = stores.open()
        names = [f"n{n:03}" for n in range(130)]
        await store.commit(
            Changes(saves=tuple(negotiation(name, state="FINALIZED", created=float(n), updated=float(n)) for n, name in enumerate(names)))
        )
        await store.commit(Changes(saves=tuple(idempotent(name, created=float(n)) for n, name in enumerate(names))))
        await store.commit(Changes(saves=tuple(inbox(name, at=float(n)) for n, name in enumerate(names))))
        done = [pull(name, stage="done", created=float(n), updated=float(n)) for n, name in enumerate(names)]
        await store.commit(Changes(saves=tuple(done)))
        counts = await store.sweep(inbox_before=1e9, processes_before=1e9, keys_before=1e9, limit=120)
        assert counts == {"inbox": 120, "process": 120, "pull": 120, "idempotent": 120}
        assert [await store.pull(name) is None for name in (names[119], names[120])] == [True, False]
        left = await store.processes(N, after=None, limit=1000, state=None, peer=None)
        assert {row.pid for row in left.items} == set(names[120:])
        assert [await store.idempotent(name) is None for name in (names[119], names[120])] == [True, False]

    async def test_retention_leaves_a_process_whose_dead_letter_waits_for_an_operator(self, stores: Any):
        store: Store = stores.open()
        await store.commit(
            Changes(saves=(negotiation("n", state="TERMINATED", created=1.0, updated=1.0),), outbox=(outbound("o", "n", dead=True),))
        )
        old = {"inbox_before": 50.0, "processes_before": 50.0, "keys_before": 50.0, "limit": 9}
        assert (await store.sweep(**old))["process"] == 0
        await store.commit(Changes(settled=("o",)))
        assert (await store.sweep(**old))["process"] == 1
