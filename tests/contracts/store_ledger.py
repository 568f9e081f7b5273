"""What every `Store` owes to the ledger and the meter: entries, logs, nodes, accounts, and erasure that leaves the log valid."""

import asyncio
from typing import Any

import orjson
import pytest

from connector.dsp.messages import Kind, Move, Role
from connector.errors import InvalidRequest
from connector.merkle.tree import leaf_hash
from connector.ports import Store
from connector.records import Changes, Conflict, Expect
from connector.records.ledger import ENTRY_BYTES_MAX, Log, Numbered, Subtree, Witnessed, hidden_of
from connector.records.metering import Metered
from connector.values import replace
from tests.contracts.samples import OTHER_PEER, PEER, agreement, fact, log, metered, receipted, transfer, witnessed


async def numbered(store: Store, log: int = 1, *runs: tuple[int, int, int]) -> None:
    """Put runs (first, sequence, count) of evidence into a log."""
    await store.commit(Changes(saves=tuple(Numbered(log, *run) for run in runs)))


class StoreLedger:
    """The part `LedgerStore` of the port."""

    @pytest.mark.parametrize("record", [metered(), log(), witnessed()], ids=lambda record: type(record).__name__)
    async def test_what_is_written_of_the_ledger_expects_the_version_that_was_read(self, stores: Any, record: Any):
        store: Store = stores.open()
        key = {Metered: "transfer", Log: "origin", Witnessed: "key"}[type(record)]
        absent = Expect(type(record), getattr(record, key), None)
        assert await store.commit(Changes(expects=(absent,), saves=(record,))) == ()
        assert await store.commit(Changes(expects=(absent,), saves=(record,))) == Conflict(absent)
        present = Expect(type(record), getattr(record, key), record.version)
        later = replace(record, version=record.version + 1)
        assert await store.commit(Changes(expects=(present,), saves=(later,))) == ()
        assert await store.commit(Changes(expects=(present,), saves=(record,))) == Conflict(present)
        found = {
            Metered: await store.metered("urn:uuid:t1"),
            Log: next(iter(await store.logs()), None),
            Witnessed: await store.witnessed(PEER, "hospital.example/ledger"),
        }
        assert found[type(record)] == later

    async def test_accounts_come_back_with_every_field_and_by_agreement(self, stores: Any):
        store: Store = stores.open()
        assert await store.metered("urn:uuid:t1") is None
        assert await store.metered_of("urn:uuid:a1") == []
        whole, live = metered("urn:uuid:t2"), metered(root=None, leaves=None, size_bytes=None, ranges=(), receipt="", ack="")
        await store.commit(Changes(saves=(whole, live, metered("urn:uuid:t0", agreement="urn:uuid:a2"))))
        assert [*await store.metered_of("urn:uuid:a1")] == [live, whole]
        assert await store.metered("urn:uuid:t2") == whole

    async def test_what_nobody_has_stated_is_found_once_it_is_over(self, stores: Any):
        store: Store = stores.open()
        over = transfer("urn:uuid:t1", state="COMPLETED", role=Role.PROVIDER, updated=50.0)
        others = (
            replace(over, pid="urn:uuid:t2", peer_pid="2", state="STARTED"),
            replace(over, pid="urn:uuid:t3", peer_pid="3", role=Role.CONSUMER),
            replace(over, pid="urn:uuid:t4", peer_pid="4", updated=9.0),
            replace(over, pid="urn:uuid:t5", peer_pid="5"),
            replace(over, pid="urn:uuid:t6", peer_pid="6", state="TERMINATED"),
        )
        saves = (over, *others, *(metered(f"urn:uuid:t{n}") for n in (1, 2, 3, 4, 6)))
        await store.commit(Changes(saves=saves, evidence=(fact(what="manifest-signed", pid="urn:uuid:t1"),)))
        said = ("statement-signed", "statement-agreed")
        assert [*await store.unstated(Role.PROVIDER, said, 10.0)] == ["urn:uuid:t1", "urn:uuid:t6"]
        assert [*await store.unstated(Role.CONSUMER, said, 10.0)] == ["urn:uuid:t3"]
        await store.commit(Changes(evidence=(fact(what="statement-agreed", pid="urn:uuid:t1"),)))
        assert [*await store.unstated(Role.PROVIDER, said, 10.0)] == ["urn:uuid:t6"]

    async def test_closings_that_nobody_was_told_of_are_found(self, stores: Any):
        store: Store = stores.open()
        said, told = "closing-signed", "closing-told"
        assert [*await store.untold()] == []
        facts = [fact(what=said, pid=f"urn:uuid:a{n}") for n in (3, 1, 2, 1)]
        await store.commit(Changes(evidence=(*facts, fact(what=told, pid="urn:uuid:a2"), fact(what="closing-taken", pid="urn:uuid:a4"))))
        assert [*await store.untold()] == ["urn:uuid:a1", "urn:uuid:a3"]
        await store.commit(Changes(evidence=(fact(what=told, pid="urn:uuid:a1"),)))
        assert [*await store.untold()] == ["urn:uuid:a3"]

    async def test_receipts_are_kept_as_they_came_two_of_a_number_beside_each_other(self, stores: Any):
        store: Store = stores.open()
        first, second = receipted(), receipted(sequence=2, at=2.0, digest=b"\x02" * 32)
        forged = receipted(sequence=2, at=3.0, digest=b"\x03" * 32, ack=None)
        await store.commit(Changes(saves=(forged, second, first, receipted("urn:uuid:t2"))))
        await store.commit(Changes(saves=(replace(second, ack="the ack again"),)))
        assert [*await store.receipts("urn:uuid:t1")] == [first, replace(second, ack="the ack again"), forged]
        await store.commit(Changes(saves=(metered(),), deletes=((Metered, "urn:uuid:t1"),)))
        assert [*await store.receipts("urn:uuid:t1")] == []
        assert len(await store.receipts("urn:uuid:t2")) == 1

    async def test_receipts_are_read_in_pieces_by_their_numbers(self, stores: Any):
        store: Store = stores.open()
        rows = [receipted(sequence=number, at=float(number), digest=bytes([number]) * 32) for number in range(1, 8)]
        twice = receipted(sequence=3, at=9.0, digest=b"\x09" * 32, ack=None)
        await store.commit(Changes(saves=(*rows, twice, receipted("urn:uuid:t2", sequence=3))))
        assert [*await store.receipts("urn:uuid:t1", 3, 5)] == [rows[2], twice, rows[3]]
        assert [*await store.receipts("urn:uuid:t1", 6)] == rows[5:]
        assert [*await store.receipts("urn:uuid:t1", 8, 9)] == [*await store.receipts("urn:uuid:t1", 5, 5)] == []
        assert len(await store.receipts("urn:uuid:t1", -1, 2**70)) == 8

    async def test_the_newest_fact_of_a_kind_is_found(self, stores: Any):
        store: Store = stores.open()
        assert await store.newest_fact("urn:uuid:n1", "statement-signed") is None
        said = [fact(what="statement-signed", entry=f"e{number}") for number in range(2)]
        await store.commit(Changes(evidence=(*said, fact(what="ack-signed"), fact(what="statement-signed", pid="urn:uuid:n2"))))
        found = await store.newest_fact("urn:uuid:n1", "statement-signed")
        assert found == replace(said[1], sequence=2)
        assert await store.newest_fact("urn:uuid:n1", "other") is None

    async def test_accounts_and_receipts_outlive_retention(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(saves=(agreement(), metered(), receipted(), witnessed(), log()), evidence=(fact(),)))
        await store.sweep(inbox_before=9e9, processes_before=9e9, keys_before=9e9, limit=100)
        assert await store.metered("urn:uuid:t1") == metered()
        assert [*await store.receipts("urn:uuid:t1")] == [receipted()]
        assert [*await store.witnesses()] == [witnessed()]
        assert [*await store.logs()] == [log()]

    @pytest.mark.parametrize("of", [Log, Numbered, Subtree, Witnessed])
    async def test_of_the_ledger_nothing_can_be_deleted(self, stores: Any, of: type[Any]):
        with pytest.raises(TypeError, match="deleted"):
            await stores.open().commit(Changes(deletes=((of, "x"),)))

    async def test_what_is_witnessed_is_told_apart_by_peer_and_by_log(self, stores: Any):
        store: Store = stores.open()
        rows = [witnessed(), witnessed(OTHER_PEER, conflict="other note"), witnessed(origin="pharma.example/ledger")]
        await store.commit(Changes(saves=tuple(rows)))
        assert await store.witnessed(OTHER_PEER, "hospital.example/ledger") == rows[1]
        assert [*await store.witnesses()] == sorted(rows, key=lambda row: row.key)

    async def test_every_fact_has_an_entry_from_the_transaction_on_that_wrote_it(self, stores: Any):
        store: Store = stores.open()
        facts = (fact(detail={"why": "because"}), fact(state="AGREED", move=Move.CONTRACT_AGREEMENT, digest=b"\x07" * 32), fact(at=1000.25))
        await store.commit(Changes(evidence=facts))
        leaves = [*await store.unnumbered(0, 10)]
        await numbered(store, 1, (0, 1, 3))
        entries = [*await store.entries(1, 0, 10)]
        assert leaves == [(entry.sequence, entry.leaf) for entry in entries]
        assert [entry.leaf for entry in entries] == [leaf_hash(entry.body) for entry in entries]
        assert [(entry.index, entry.sequence, entry.pid, entry.peer) for entry in entries] == [
            (index, index + 1, "urn:uuid:n1", PEER) for index in range(3)
        ]
        said = orjson.loads(entries[1].body)
        assert {name: said[name] for name in ("what", "state", "move", "digest", "kind")} == {
            "what": "message-received",
            "state": "AGREED",
            "move": "ContractAgreementMessage",
            "digest": "07" * 32,
            "kind": "negotiation",
        }
        for entry, given in zip(entries, facts, strict=True):
            assert entry.salt is not None
            assert entry.detail is not None
            assert (orjson.loads(entry.detail) if entry.detail else {}) == given.detail
            assert orjson.loads(entry.body)["detail"] == hidden_of(entry.salt, entry.detail).hex()

    async def test_the_entries_of_one_process_are_told_page_by_page_from_all_logs(self, stores: Any):
        store: Store = stores.open()
        facts = [fact(pid="urn:uuid:a" if number % 2 else "urn:uuid:b", at=float(number)) for number in range(8)]
        await store.commit(Changes(evidence=tuple(facts)))
        assert [*await store.entries_of("urn:uuid:a", 0, 10)] == [], "nothing is in a log yet"
        await numbered(store, 1, (0, 1, 3))
        await numbered(store, 2, (0, 4, 2), (2, 6, 2))
        found = [*await store.entries_of("urn:uuid:a", 0, 10)]
        assert [(log, entry.index, entry.sequence) for log, entry in found] == [(1, 1, 2), (2, 0, 4), (2, 2, 6)]
        assert [entry for _, entry in found] == [(await store.entries(log, entry.index, 1))[0] for log, entry in found]
        assert [*await store.entries_of("urn:uuid:a", 2, 1)] == found[1:2]
        assert [*await store.entries_of("urn:uuid:a", -5, 2)] == found[:2]
        assert [*await store.entries_of("urn:uuid:c", 0, 10)] == []
        await store.erase(4)
        assert [entry.salt is None for _, entry in await store.entries_of("urn:uuid:a", 0, 10)] == [False, True, False]

    async def test_two_facts_that_say_the_same_have_entries_that_nobody_can_guess(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(evidence=(fact(), fact())))
        assert len({leaf for _, leaf in await store.unnumbered(0, 10)}) == 2

    async def test_a_signed_object_is_its_own_entry(self, stores: Any):
        store: Store = stores.open()
        signed = fact("receipt", entry="eyJhbGciOiJFZERTQSJ9.e30.c2ln", detail={"note": "beside it"})
        (written,) = await store.commit(Changes(evidence=(signed,)))
        assert written == replace(signed, sequence=1)
        assert [*await store.events(0, 10)] == [written]
        await numbered(store, 1, (0, 1, 1))
        (entry,) = await store.entries(1, 0, 10)
        assert entry.body == b"eyJhbGciOiJFZERTQSJ9.e30.c2ln"
        assert entry.leaf == leaf_hash(entry.body)
        assert (entry.detail, entry.salt) == (None, None)

    @pytest.mark.parametrize("too_much", [{"entry": "e" * (ENTRY_BYTES_MAX + 1)}, {"pid": "p" * ENTRY_BYTES_MAX}, {"entry": "\ud800"}])
    async def test_what_no_entry_can_hold_is_refused_before_anything_is_written(self, stores: Any, too_much: dict[str, str]):
        store: Store = stores.open()
        with pytest.raises(ValueError, match=r"65535 bytes at most|surrogates"):
            await store.commit(Changes(saves=(metered(),), evidence=(fact(), fact(**too_much))))
        assert await store.metered("urn:uuid:t1") is None
        assert [*await store.events(0, 10)] == []

    async def test_erasure_takes_the_detail_and_leaves_the_entry(self, stores: Any):
        store: Store = stores.open()
        detail = {"why": "because of somebody"}
        await store.commit(Changes(evidence=(fact(detail=detail), fact(detail=detail), fact(entry="a.b.c", detail=detail), fact())))
        await numbered(store, 1, (0, 1, 4))
        before = [*await store.entries(1, 0, 10)]
        for sequence in (1, 3, 4):
            assert await store.erase(sequence)
            assert await store.erase(sequence)
        after = [*await store.entries(1, 0, 10)]
        assert [(entry.body, entry.leaf) for entry in after] == [(entry.body, entry.leaf) for entry in before]
        assert [entry.detail for entry in after] == [None, before[1].detail, None, None]
        assert [entry.salt for entry in after] == [None, before[1].salt, None, None]
        assert [event.detail for event in await store.events(0, 10)] == [{}, detail, {}, {}]

    @pytest.mark.parametrize("sequence", [0, -1, 2, 1 << 70])
    async def test_what_is_not_there_is_not_erased(self, stores: Any, sequence: int):
        store: Store = stores.open()
        await store.commit(Changes(evidence=(fact(detail={"a": 1}),)))
        assert not await store.erase(sequence)
        assert [event.detail for event in await store.events(0, 10)] == [{"a": 1}]

    async def test_a_log_may_be_made_of_several_runs_and_places_are_found_both_ways(self, stores: Any):
        store: Store = stores.open()
        await store.commit(Changes(evidence=tuple(fact(pid=f"urn:uuid:{number}") for number in range(1, 13))))
        assert await store.newest_numbered(1) is None
        leaves = dict(await store.unnumbered(0, 100))
        await numbered(store, 1, (0, 2, 1), (3, 7, 2))
        await numbered(store, 1, (0, 2, 3))
        await numbered(store, 2, (0, 10, 3))
        assert await store.newest_numbered(1) == Numbered(1, 3, 7, 2)
        places = {sequence: await store.numbered(sequence) for sequence in range(14)}
        assert {sequence: place for sequence, place in places.items() if place} == {
            2: (1, 0), 3: (1, 1), 4: (1, 2), 7: (1, 3), 8: (1, 4), 10: (2, 0), 11: (2, 1), 12: (2, 2)
        }  # fmt: skip
        assert [*await store.leaves(1, 0, 100)] == [leaves[sequence] for sequence in (2, 3, 4, 7, 8)]
        assert [*await store.leaves(1, 2, 2)] == [leaves[4], leaves[7]]
        assert [entry.sequence for entry in await store.entries(1, 1, 3)] == [3, 4, 7]
        assert [*await store.leaves(1, 5, 10)] == []
        assert [*await store.leaves(3, 0, 10)] == []
        await store.commit(Changes(evidence=tuple(fact() for _ in range(3))))
        assert [sequence for sequence, _ in await store.unnumbered(8, 2)] == [9, 10]
        assert [sequence for sequence, _ in await store.unnumbered(13, 10)] == [14, 15]

    async def test_subtrees_are_read_as_far_as_they_follow_each_other(self, stores: Any):
        store: Store = stores.open()
        rows = [Subtree(1, 8, index, bytes([index]) * 32) for index in (0, 1, 2, 4)] + [Subtree(1, 16, 0, b"\x99" * 32)]
        await store.commit(Changes(saves=tuple(rows)))
        assert [*await store.subtrees(1, 8, 0, 10)] == [bytes([index]) * 32 for index in (0, 1, 2)]
        assert [*await store.subtrees(1, 8, 1, 1)] == [b"\x01" * 32]
        assert [*await store.subtrees(1, 8, 3, 10)] == []
        assert [*await store.subtrees(1, 16, 0, 10)] == [b"\x99" * 32]
        assert [*await store.subtrees(2, 8, 0, 10)] == []

    @pytest.mark.parametrize("limit", [0, 10_001])
    async def test_a_reading_of_the_log_has_a_bound(self, stores: Any, limit: int):
        store: Store = stores.open()
        await store.commit(Changes(evidence=(fact(),)))
        await numbered(store, 1, (0, 1, 1))
        for reading in (store.unnumbered(0, limit), store.leaves(1, 0, limit), store.entries(1, 0, limit), store.subtrees(1, 8, 0, limit)):
            with pytest.raises(InvalidRequest, match="`limit`"):
                await reading

    async def test_facts_written_at_the_same_time_all_have_their_entry(self, stores: Any):
        store: Store = stores.open()
        await asyncio.gather(*(store.commit(Changes(evidence=(fact(kind=Kind.TRANSFER, pid=f"t{n}"), fact()))) for n in range(40)))
        leaves = [leaf for _, leaf in await store.unnumbered(0, 100)]
        await numbered(store, 1, (0, 1, 80))
        entries = [*await store.entries(1, 0, 100)]
        assert [leaf_hash(entry.body) for entry in entries] == leaves
        assert [entry.pid for entry in entries] == [event.pid for event in await store.events(0, 100)]
