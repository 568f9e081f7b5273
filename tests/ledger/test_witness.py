"""A peer's log is cosigned as long as it only grows; what contradicts itself is kept, and trusted no more."""

import asyncio

import pytest

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.errors import NotFound
from connector.ledger.book import signer_of
from connector.ledger.witness import AT_ONCE
from connector.merkle import checkpoints, notes, witness
from connector.merkle.tree import consistency, nodes_of, root_of
from connector.records.ledger import Witnessed
from tests.contracts.samples import OTHER_PEER, OWN, PEER
from tests.ledger.rig import Site, key_of
from tests.metrics import sample

pytestmark = pytest.mark.asyncio
ORIGIN = "pharma.example/ledger"
LEAVES = [bytes([number]) * 32 for number in range(40)]


def note_of(leaves: list[bytes], *lines: str, origin: str = ORIGIN, peer: str = PEER) -> bytes:
    checkpoint = checkpoints.Checkpoint(origin, len(leaves), root_of(leaves), lines)
    return checkpoints.sign(checkpoint, (signer_of(key_of(peer), origin),))


def request(old: int, leaves: list[bytes], *lines: str, origin: str = ORIGIN, peer: str = PEER) -> bytes:
    proof = consistency(old, len(leaves), nodes_of(leaves)) if old <= len(leaves) else ()
    return witness.write(old, proof, note_of(leaves, *lines, origin=origin, peer=peer))


async def facts(site: Site) -> list[str]:
    return [event.what for event in await site.store.events(0, 100)]


async def test_a_log_that_grows_is_cosigned_by_our_key_and_every_checkpoint_is_on_record():
    async with Site(OWN, PEER) as site:
        for old, size in ((0, 3), (3, 4), (4, 40)):
            answer = await site.book.witness.add(PEER, request(old, LEAVES[:size]))
            assert answer.status == 200
            key = notes.VerifierKey(OWN, key_of(OWN).key.public, notes.Kind.COSIGNATURE)
            cosigned = witness.cosigned(note_of(LEAVES[:size]), answer.body, [key])
            theirs = notes.VerifierKey(ORIGIN, key_of(PEER).key.public)
            assert checkpoints.open(cosigned, ORIGIN, [theirs], [key], 1).cosignatures[0].at == 1_764_000_000
            known = await site.store.witnessed(PEER, ORIGIN)
            assert known is not None
            assert (known.size, known.root, known.note.encode()) == (size, root_of(LEAVES[:size]), note_of(LEAVES[:size]))
        assert await facts(site) == [telemetry.WITNESSED] * 3
        assert (await site.store.events(2, 1))[0].entry == note_of(LEAVES).decode()
        assert await site.book.witness.shown(PEER, ORIGIN) == note_of(LEAVES).decode()
        assert not site.book.suspected(PEER)


async def test_the_same_checkpoint_again_is_cosigned_again_and_nothing_is_written():
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        again = await site.book.witness.add(PEER, request(3, LEAVES[:3]))
        assert again.status == 200
        assert await facts(site) == [telemetry.WITNESSED]


async def test_a_log_that_grows_too_often_does_not_fill_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.ledger.witness.SECONDS", 3600.0)  # however long it takes to sign them
    leaves = [bytes([number]) * 32 for number in range(AT_ONCE + 2)]
    async with Site(OWN, PEER, OTHER_PEER) as site:
        for size in range(1, AT_ONCE + 1):
            assert (await site.book.witness.add(PEER, request(size - 1, leaves[:size]))).status == 200
        answer = await site.book.witness.add(PEER, request(AT_ONCE, leaves))
        assert (answer.status, answer.code) == (429, "witness-too-often")
        assert len(await facts(site)) == AT_ONCE
        assert not site.book.suspected(PEER)
        other = request(0, LEAVES[:3], origin="other.example/ledger", peer=OTHER_PEER)
        assert (await site.book.witness.add(OTHER_PEER, other)).status == 200


async def test_a_log_that_remembers_another_checkpoint_than_we_is_told_ours():
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:9]))
        for body in (request(0, LEAVES[:12]), request(12, LEAVES[:20]), request(3, LEAVES[:4])):
            answer = await site.book.witness.add(PEER, body)
            assert (answer.status, answer.body, answer.media_type) == (409, b"9\n", witness.SIZE_TYPE)
        assert not site.book.suspected(PEER)
        assert await facts(site) == [telemetry.WITNESSED]


@pytest.mark.parametrize(
    ("status", "code", "body"),
    [
        (400, "witness-separator", b"old 0\n"),
        (400, "witness-size", witness.write(0, (), note_of(LEAVES[:3], "x" * 17_000))),
        (403, "signature-untrusted", request(0, LEAVES[:3], peer=OTHER_PEER)),
        (404, "witness-origin", request(0, LEAVES[:3], origin="hospital.example/ledger")),
        (422, "consistency-length", witness.write(0, (bytes(32),), note_of(LEAVES[:3]))),
    ],
)
async def test_what_is_no_sound_request_is_refused_and_changes_nothing(status: int, code: str, body: bytes):
    async with Site(OWN, PEER, OTHER_PEER) as site:
        (said,) = await site.say()
        await site.book.index_of(said.sequence)  # so that the log `hospital.example/ledger` is ours
        answer = await site.book.witness.add(PEER, body)
        assert (answer.status, answer.code) == (status, code)
        assert await site.store.witnesses() == []
        assert len(await facts(site)) == 1


async def test_who_is_unknown_is_no_log_of_ours():
    async with Site(OWN, PEER) as site:
        assert (await site.book.witness.add(OTHER_PEER, request(0, LEAVES[:3], peer=OTHER_PEER))).code == "witness-origin"


OTHERS = [bytes([number + 100]) * 32 for number in range(40)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (request(3, OTHERS[:3]), "witness-forked"),
        (witness.write(3, (bytes(32),), note_of(OTHERS[:3])), "witness-forked"),
        (request(0, LEAVES[:9], origin="pharma.example/ledger/9"), "witness-successor"),
        (request(0, OTHERS[:9], f"follows {ORIGIN} 2 {'A' * 43}=", origin="pharma.example/ledger/9"), "witness-successor"),
        (request(0, OTHERS[:9], f"follows {ORIGIN} 3 {'A' * 43}=", origin="pharma.example/ledger/9"), "witness-successor"),
        (request(0, OTHERS[:9], f"follows other.example 9 {'A' * 43}=", origin="pharma.example/ledger/9"), "witness-successor"),
        (request(0, OTHERS[:9], f"follows {ORIGIN} x {'A' * 43}=", origin="pharma.example/ledger/9"), "witness-successor"),
    ],
)
async def test_what_contradicts_itself_is_an_alarm_both_notes_are_kept_and_nothing_more_is_signed(body: bytes, code: str):
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        counted = sample("qiao_ledger_consistency_failures_total")
        answer = await site.book.witness.add(PEER, body)
        assert (answer.code, answer.status >= 400) == (code, True)
        assert site.book.suspected(PEER)
        assert sample("qiao_ledger_consistency_failures_total") == counted + 1
        known = await site.store.witnessed(PEER, ORIGIN)
        assert known is not None
        assert known.note.encode() == note_of(LEAVES[:3])
        assert known.conflict is not None
        assert known.conflict.encode() == witness.read(body).note
        last = (await site.store.events(0, 10))[-1]
        assert (last.what, last.peer, last.entry) == (telemetry.CONTRADICTED, PEER, known.conflict)
        sound = await site.book.witness.add(PEER, request(3, LEAVES[:5]))
        assert (sound.status, sound.code) == (409, "witness-contradicted")
    async with Site(OWN, PEER, store=site.store, anchor=site.anchor) as again:  # a restart forgives nothing
        assert again.book.suspected(PEER)
        assert not again.book.suspected(OTHER_PEER)
        await again.book.witness.forgive(PEER)
        assert not again.book.suspected(PEER)
        after = witness.read(body).checkpoint
        leaves = OTHERS if after.root == root_of(OTHERS[: after.size]) else LEAVES
        line = after.extensions
        grown = await again.book.witness.add(PEER, request(after.size, leaves[: after.size + 1], *line, origin=after.origin))
        assert grown.status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (witness.write(3, consistency(3, 9, nodes_of(OTHERS[:9])), note_of(LEAVES[:9])), "consistency-old-mismatch"),
        (witness.write(3, consistency(3, 9, nodes_of(OTHERS[:9])), note_of(OTHERS[:9])), "consistency-old-mismatch"),
        (witness.write(3, consistency(3, 7, nodes_of(LEAVES[:7])), note_of(LEAVES[:8])), "consistency-mismatch"),
    ],
)
async def test_a_proof_that_does_not_hold_proves_nothing_against_whose_checkpoint_it_is(body: bytes, code: str):
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        answer = await site.book.witness.add(PEER, body)
        assert (answer.status, answer.code) == (422, code)
        assert not site.book.suspected(PEER)
        known = await site.store.witnessed(PEER, ORIGIN)
        assert known is not None
        assert (known.note.encode(), known.conflict) == (note_of(LEAVES[:3]), None)
        assert await facts(site) == [telemetry.WITNESSED]
        assert (await site.book.witness.add(PEER, request(3, LEAVES[:9]))).status == 200


async def test_there_is_nothing_to_forgive_where_nothing_contradicts_itself():
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        with pytest.raises(NotFound, match="contradicts"):
            await site.book.witness.forgive(PEER)


@pytest.mark.parametrize("size", [3, 7])
async def test_a_log_that_says_it_follows_all_that_we_have_seen_takes_the_place_of_the_other(size: int):
    async with Site(OWN, PEER) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        cited = note_of(LEAVES[:size]).decode().splitlines()
        line = f"follows {' '.join(cited[:3])}"
        successor = "pharma.example/ledger/9"
        answer = await site.book.witness.add(PEER, request(0, OTHERS[:2], line, origin=successor))
        assert answer.status == 200
        assert not site.book.suspected(PEER)
        assert (await site.book.witness.add(PEER, request(2, OTHERS[:5], line, origin=successor))).status == 200


async def test_of_two_checkpoints_at_once_both_are_judged_against_what_is_stored():
    class Slow(MemoryStore):
        async def witnessed(self, peer: str, origin: str) -> Witnessed | None:
            found = await super().witnessed(peer, origin)
            await asyncio.sleep(0)
            return found

    async with Site(OWN, PEER, store=Slow()) as site:
        await site.book.witness.add(PEER, request(0, LEAVES[:3]))
        first, second = await asyncio.gather(
            site.book.witness.add(PEER, request(3, LEAVES[:9])), site.book.witness.add(PEER, request(3, LEAVES[:5]))
        )
        assert sorted((first.status, second.status)) == [200, 409]
        known = await site.store.witnessed(PEER, ORIGIN)
        assert known is not None
        assert known.size == (9 if first.status == 200 else 5)


async def test_what_was_never_witnessed_cannot_be_shown():
    async with Site(OWN, PEER) as site:
        with pytest.raises(NotFound):
            await site.book.witness.shown(PEER, ORIGIN)
