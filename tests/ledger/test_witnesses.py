"""Our log before its counterparties: who is asked when, what is kept of the answers, and what a larger memory than ours means."""

import asyncio
import shutil
from pathlib import Path

import pytest

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.adapters_stores.anchor import MemoryAnchor
from connector.errors import Contradiction, PeerFailed, PeerRefused, StoreError
from connector.ledger import witnesses as module
from connector.ledger.book import signer_of
from connector.ledger.witnesses import base_of
from connector.merkle import checkpoints, notes
from connector.ports import Participant, Reply
from tests.contracts.samples import OTHER_PEER, OWN, PEER
from tests.ledger.rig import Network, Site, key_of, participant
from tests.metrics import sample

pytestmark = pytest.mark.asyncio
ORIGIN = "hospital.example/ledger"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


async def until_cosigned(site: Site, peer: str, size: int) -> None:
    async with asyncio.timeout(20):
        while True:
            site.changed.clear()
            origins = [log.origin for log in await site.store.logs()]
            if any((row.peer, row.origin) == (peer, origins[-1]) and row.size >= size for row in await site.store.witnesses()):
                return
            await site.changed.wait()


async def until_begun_anew(site: Site) -> None:
    """By what its own exchange with a peer has shown: one that a test had beside that would begin one more."""
    async with asyncio.timeout(20):
        while True:
            site.changed.clear()
            if (await site.store.logs())[-1].origin != ORIGIN:
                return
            await site.changed.wait()


async def test_whom_we_deal_with_cosigns_our_log_and_both_keep_it():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network) as other:
        await site.say(3)
        await until_cosigned(site, PEER, 3)
        row = await site.store.witnessed(PEER, ORIGIN)
        assert row is not None
        ours = notes.VerifierKey(ORIGIN, key_of(OWN).key.public)
        theirs = notes.VerifierKey(PEER, key_of(PEER).key.public, notes.Kind.COSIGNATURE)
        assert checkpoints.open(row.note.encode(), ORIGIN, [ours], [theirs], 1).checkpoint.size == 3
        held = await other.store.witnessed(OWN, ORIGIN)
        assert held is not None
        assert (held.size, held.root) == (3, row.root)
        assert [event.what for event in await other.store.events(0, 10)] == [telemetry.WITNESSED]
        assert sample("qiao_ledger_last_cosignature_timestamp_seconds") == 1_764_000_000


async def test_who_exchanges_no_checkpoints_asks_nobody_and_cosigns_nothing():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network) as other:
        other.book.exchange(False)
        await other.say(2, peer=OWN)
        await site.say(1)
        async with asyncio.timeout(20):
            await network.heard.wait()
        assert [(method, url.rpartition("/")[2]) for method, url, _ in network.sent] == [("POST", "add-checkpoint")]
        assert await other.store.witnesses() == [] == await site.store.witnesses()
        assert not other.book.witnesses._due
        answer = await other.book.witness.add(OWN, network.sent[0][2] or b"")
        assert (answer.status, answer.code) == (404, "witness-off")
        other.book.exchange(True)
        assert (await other.book.witness.add(OWN, network.sent[0][2] or b"")).status == 200


async def test_exchanging_checkpoints_calls_for_no_exchange_of_checkpoints():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network) as other:
        await site.say(1)
        await until_cosigned(site, PEER, 1)
        await asyncio.sleep(0.1)
        assert len(network.sent) == 1
        assert not other.book.witnesses._due


async def test_a_peer_is_asked_once_in_a_while_however_much_there_is_between_us(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.2)
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network):
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            while len(network.sent) < 4:
                await site.say(1)
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began >= 3 * 0.2


async def test_an_operator_has_a_peer_asked_at_once_though_it_is_to_be_left_alone():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network):
        await site.say(1)
        await until_cosigned(site, PEER, 1)
        await site.say(2)
        first, second = await asyncio.gather(*(site.book.witnesses.exchange(participant(PEER)) for _ in range(2)))
        assert first == second == await site.store.witnessed(PEER, ORIGIN)
        assert (first.size, len(network.sent)) == (3, 2), "both have waited for one exchange"
        assert await site.book.witnesses.exchange(participant(PEER)) == first
        assert len(network.sent) == 2, "there is nothing new"


async def test_what_keeps_a_peer_from_cosigning_is_said_to_the_operator_who_asked():
    network = Network()
    async with Site(OWN, PEER, network=network) as site:
        with pytest.raises(Contradiction, match="our ledger is empty"):
            await site.book.witnesses.exchange(participant(PEER))
        await site.say(1, peer=OTHER_PEER)
        with pytest.raises(PeerFailed, match=r"nobody answers at `pharma\.example`"):
            await site.book.witnesses.exchange(participant(PEER))
        network.answers["pharma.example"] = Reply(404, {}, b"")
        with pytest.raises(Contradiction, match="cosigns no ledgers: it has no such address"):
            await site.book.witnesses.exchange(participant(PEER))
        assert site.book.witnesses._not_before[PEER] - asyncio.get_running_loop().time() > module.PAUSE_SECONDS
        site.book.exchange(False)
        with pytest.raises(Contradiction, match=r"`ledger\.witness` is false"):
            await site.book.witnesses.exchange(participant(PEER))


async def test_an_operator_who_waits_when_the_connector_stops_is_told(monkeypatch: pytest.MonkeyPatch):
    network = Network()
    for started in (False, True):
        silent, reached = asyncio.Event(), asyncio.Event()

        async def never(*_: object, silent: asyncio.Event = silent, reached: asyncio.Event = reached, **__: object) -> Reply:
            reached.set()
            await silent.wait()
            raise AssertionError

        monkeypatch.setattr(network, "send", never)
        async with Site(OWN, PEER, network=network) as site:
            await site.say(1)
            waits = [asyncio.create_task(site.book.witnesses.exchange(participant(PEER)))]
            await asyncio.wait_for(reached.wait(), 5)
            if started:  # one more, which has to wait until the first one has its answer
                waits.append(asyncio.create_task(site.book.witnesses.exchange(participant(PEER))))
                await asyncio.sleep(0)
        for wait in waits:
            with pytest.raises(StoreError, match="the ledger is closed"):
                await wait


async def test_an_operator_who_has_gone_keeps_nobody_from_being_asked():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network):
        await site.say(1, peer=OTHER_PEER)
        gone = asyncio.create_task(site.book.witnesses.exchange(participant(PEER)))
        await asyncio.sleep(0)
        gone.cancel()
        await until_cosigned(site, PEER, 1)


async def test_a_second_checkpoint_continues_the_first():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network):
        for size in (1, 2, 300):
            count = size - len(await site.store.events(0, 1000))
            facts = await site.say(count)
            await site.book.index_of(facts[-1].sequence)
            assert await site.book.witnesses.ask(participant(PEER))
            await until_cosigned(site, PEER, size)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(404, {}, b""),
        Reply(405, {}, b""),
        Reply(422, {}, b"{}"),
        Reply(409, {"content-type": "text/plain"}, b"7"),
        Reply(409, {"content-type": "text/x.tlog.size"}, b"x\n"),
    ],
)
async def test_who_is_no_witness_is_left_alone_for_long(answer: Reply):
    network = Network()
    network.answers["pharma.example"] = answer
    async with Site(OWN, PEER, network=network) as site:
        await site.say(1)
        await asyncio.wait_for(network.heard.wait(), 5)
        assert await site.book.witnesses._pause_after(PEER) == module.FOREIGN_SECONDS
        assert await site.book.witnesses._pause_after("did:web:nobody.example") == module.FOREIGN_SECONDS
        assert len(network.sent) == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_who_does_not_take_who_we_are_is_asked_again_soon_and_the_operator_hears_that_it_refused_us(status: int):
    network = Network()
    network.answers["pharma.example"] = Reply(status, {}, b'{"detail":"the key is not\\nknown here"}')
    async with Site(OWN, PEER, network=network) as site:
        await site.say(1)
        await asyncio.wait_for(network.heard.wait(), 5)
        assert await site.book.witnesses._pause_after(PEER) == module.PAUSE_SECONDS
        with pytest.raises(PeerRefused, match=rf"does not take who we are \(status {status}: the key is not known here\)") as refused:
            await site.book.witnesses.exchange(participant(PEER))
        assert refused.value.status == status
        assert site.book.witnesses._not_before[PEER] - asyncio.get_running_loop().time() <= module.PAUSE_SECONDS
        del network.answers["pharma.example"]  # it has read our self-description meanwhile
        async with Site(PEER, OWN, network=network):
            assert (await site.book.witnesses.exchange(participant(PEER))).size == 1


@pytest.mark.parametrize(("status", "code"), [(409, "witness-contradicted"), (422, "consistency-old-mismatch")])
async def test_who_cosigns_ledgers_and_not_this_checkpoint_says_why_and_what_is_to_be_done(status: int, code: str):
    network = Network()
    network.answers["pharma.example"] = Reply(status, {}, f"{code}: explain that\n".encode())
    async with Site(OWN, PEER, network=network) as site:
        await site.say(1)
        with pytest.raises(PeerRefused, match=rf"refuses this checkpoint of ours \(status {status}: {code}: explain that\)"):
            await site.book.witnesses.exchange(participant(PEER))
        assert "a start without that file begins a new log" in site.book.witnesses.waiting[PEER].reason


@pytest.mark.parametrize("answer", [PeerFailed("no answer"), Reply(503, {}, b"{}"), Reply(429, {}, b""), Reply(500, {}, b"")])
async def test_who_does_not_answer_or_cannot_now_is_asked_again_later(answer: Reply | Exception):
    network = Network()
    network.answers["pharma.example"] = answer
    async with Site(OWN, PEER, network=network) as site:
        await site.say(1)
        await asyncio.wait_for(network.heard.wait(), 5)
        assert await site.book.witnesses._pause_after(PEER) == module.PAUSE_SECONDS
        left = site.book.witnesses._not_before[PEER] - asyncio.get_running_loop().time()
        assert 50 < left <= module.PAUSE_SECONDS


async def test_who_was_away_is_asked_again_without_anything_new_and_the_operator_sees_for_whom_we_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    network = Network()
    network.answers["pharma.example"] = PeerFailed("nobody answers there")
    async with Site(OWN, PEER, network=network) as site:
        await site.say(2)
        async with asyncio.timeout(10):
            while len(network.sent) < 3:
                network.heard.clear()
                await network.heard.wait()
        waiting = site.book.witnesses.waiting[PEER]
        assert (waiting.reason, waiting.since, waiting.times >= 2) == ("nobody answers there", site.clock.now(), True)
        async with Site(PEER, OWN, network=network):
            del network.answers["pharma.example"]
            await until_cosigned(site, PEER, 2)
        async with asyncio.timeout(10):
            while site.book.witnesses.waiting:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)


async def test_who_is_away_for_long_is_asked_ever_more_rarely_and_at_once_when_there_is_something_new():
    network = Network()
    network.answers["pharma.example"] = PeerFailed("nobody answers there")
    async with Site(OWN, PEER, network=network) as site:
        asking, loop = site.book.witnesses, asyncio.get_running_loop()
        asking.waiting[PEER] = module.Waiting(1.0, "nobody answers there", 40)
        await site.say(1)
        async with asyncio.timeout(10):
            while asking.waiting[PEER].times < 41 or PEER not in asking._due:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        assert 3_500 < asking._due[PEER] - loop.time() <= 3_840
        assert asking.waiting[PEER].since == 1.0
        await site.say(1)
        assert asking._due[PEER] - loop.time() <= module.PAUSE_SECONDS


async def test_a_cosignature_by_a_key_that_is_not_known_here_says_what_to_do():
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network) as other:
        new = key_of(PEER, 2)
        other.book.witness._signer = lambda: signer_of(new, PEER, notes.Kind.COSIGNATURE)
        await site.say(1)
        with pytest.raises(PeerFailed, match="read its self-description again, it may have a new key"):
            await site.book.witnesses.exchange(participant(PEER))
        assert "new key" in site.book.witnesses.waiting[PEER].reason


@pytest.mark.parametrize("forged", [b"nonsense", "— did:web:pharma.example AAAAAAAA\n".encode(), b""])
async def test_an_answer_that_is_no_cosignature_is_not_kept(forged: bytes):
    network = Network()
    network.answers["pharma.example"] = Reply(200, {}, forged)
    async with Site(OWN, PEER, network=network) as site:
        facts = await site.say(1)
        await site.book.index_of(facts[0].sequence)
        with pytest.raises(PeerFailed, match="no cosignature"):
            await site.book.witnesses.ask(participant(PEER))
        assert await site.store.witnesses() == []


async def test_after_a_crash_those_are_asked_who_were_not_yet():
    network, store, anchor = Network(), MemoryStore(), MemoryAnchor()
    async with Site(OWN, PEER, OTHER_PEER, store=store, anchor=anchor) as alone:  # nobody can be reached
        facts = [*await alone.say(2), *await alone.say(1, peer=OTHER_PEER)]
        await alone.book.index_of(facts[-1].sequence)
    async with (
        Site(PEER, OWN, network=network) as peer,
        Site(OTHER_PEER, OWN, network=network),
        Site(OWN, PEER, OTHER_PEER, store=store, anchor=anchor, network=network) as site,
    ):
        await until_cosigned(site, PEER, 3)
        await until_cosigned(site, OTHER_PEER, 3)
        assert (await peer.store.witnessed(OWN, ORIGIN)) is not None
        sent = len(network.sent)
    async with Site(OWN, PEER, OTHER_PEER, store=store, anchor=anchor, network=network):
        await asyncio.sleep(0.05)
        assert len(network.sent) == sent  # everybody has seen all of it


async def test_a_peer_that_shows_our_signature_for_a_larger_log_is_believed_and_a_new_log_begins(tmp_path: Path):
    """Database and the file beside it were both restored from the same backup: only others know better."""
    network = Network()
    async with Site(PEER, OWN, network=network) as other:
        store, anchor = SqliteStore(tmp_path / "q.db", OWN), MemoryAnchor()
        async with Site(OWN, PEER, store=store, anchor=anchor, network=network) as site:
            await site.say(2)
            await until_cosigned(site, PEER, 2)
        await store.close()
        shutil.copy(tmp_path / "q.db", tmp_path / "backup.db")
        backed_up = MemoryAnchor()
        backed_up._notes = tuple(anchor.read() or ())
        store = SqliteStore(tmp_path / "q.db", OWN)
        async with Site(OWN, PEER, store=store, anchor=anchor, network=network) as site:
            facts = await site.say(5)
            await site.book.index_of(facts[-1].sequence)
            assert await site.book.witnesses.ask(participant(PEER))
            await until_cosigned(site, PEER, 7)
        await store.close()
        shutil.copy(tmp_path / "backup.db", tmp_path / "q.db")
        store = SqliteStore(tmp_path / "q.db", OWN)
        async with Site(OWN, PEER, store=store, anchor=backed_up, network=network) as site:
            facts = await site.say(1)
            assert (await site.book.index_of(facts[0].sequence)).origin == ORIGIN  # it knows no better
            await until_begun_anew(site)
            facts = await site.say(1)
            place = await site.book.index_of(facts[0].sequence)
            assert place.origin == f"{ORIGIN}/1764000000"
            log = (await site.store.logs())[-1]
            assert log.follows.startswith(f"follows {ORIGIN} 7 ")
            assert await site.book.witnesses.ask(participant(PEER))
            await until_cosigned(site, PEER, log.size)
            assert not other.book.suspected(OWN)
        await store.close()


async def test_a_peer_that_only_says_that_our_log_was_larger_is_not_believed():
    network = Network()
    network.answers["pharma.example"] = Reply(409, {"content-type": "text/x.tlog.size"}, b"900\n")
    async with Site(OWN, PEER, network=network) as site:
        facts = await site.say(1)
        await site.book.index_of(facts[0].sequence)
        with pytest.raises(PeerFailed, match="does not show it"):
            await site.book.witnesses.ask(participant(PEER))
        assert [log.origin for log in await site.store.logs()] == [ORIGIN]


@pytest.mark.parametrize(
    ("protocol", "base"),
    [
        ("https://a.example/dsp/2025-1", "https://a.example/ledger"),
        ("https://a.example/behind/dsp/2025-1", "https://a.example/behind/ledger"),
        ("https://a.example/api/v1/dsp", None),
        (None, None),
    ],
)
async def test_the_ledger_stands_beside_the_protocol_of_a_connector_of_our_kind(protocol: str | None, base: str | None):
    assert base_of(Participant("did:web:a.example", "a", "hospital", protocol, ())) == base


@pytest.mark.parametrize("seconds", [-3_600, 3_600, 4_000_000_000])
async def test_a_cosignature_of_another_time_is_refused_since_our_own_evidence_would_be_with_it(seconds: int):
    network = Network()
    async with Site(OWN, PEER, network=network) as site, Site(PEER, OWN, network=network) as other:
        other.clock.at += seconds
        facts = await site.say(1)
        await site.book.index_of(facts[0].sequence)
        with pytest.raises(PeerFailed, match="compare the clocks"):
            await site.book.witnesses.ask(participant(PEER))
        assert await site.store.witnessed(PEER, ORIGIN) is None
        other.clock.at = site.clock.at + 60
        assert await site.book.witnesses.ask(participant(PEER))
        assert await site.store.witnessed(PEER, ORIGIN) is not None
