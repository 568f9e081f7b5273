"""Exports as they are collected: from all logs, with what came while the accounts were read, bounded in memory, and of what is there."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.adapters.sqlite import SqliteStore
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import NotFound
from connector.evidence.report import Report
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.ledger.collecting import Exports, kind_of
from connector.merkle import checkpoints, notes
from connector.metering.chain import acked, answer, judge
from connector.metering.chain_consumer import issued, receipt_for
from connector.metering.content import Layout, digest_of
from connector.metering.counts import Counts
from connector.metering.credit import finite
from connector.metering.objects import Ack, Checkpoint, ContentLog, Manifest, Receipt, digest
from connector.metering.ranges import Ranges
from connector.records import Agreement, Changes, Evidence
from connector.records.metering import Metered, Receipted
from connector.signatures import jws
from connector.values import replace
from tests.contracts.samples import OWN, PEER
from tests.ledger.rig import Network, Site, key_of

ID, NEGOTIATION, PID = "urn:uuid:a", "urn:uuid:n", "urn:uuid:t"
DOCUMENT: Mapping[str, Any] = {"@id": ID, "@type": "Agreement", "assigner": OWN, "assignee": PEER, "target": "urn:uuid:d"}
AGREEMENT = Agreement(ID, NEGOTIATION, PEER, OWN, PEER, "urn:uuid:d", DOCUMENT, b"d" * 32, final=False, created=1.0)
CHUNK = 65_536
COUNT = 1_000  # receipts, each with its ack


def signed(value: Any) -> str:
    return jws.sign(value.claims(), key_of(value.issuer), value.TYP)


def proven(issuer: str) -> Any:
    return lambda token, typ: jws.read(token, typ, issuer, [key_of(issuer).key], 0.0)


async def nothing(_: str) -> None:
    return None


def exports(site: Site) -> Exports:
    return Exports(site.store, site.book, site.identity, site.clock, nothing)  # type: ignore[arg-type]


async def export(site: Site, **options: Any) -> bytes:
    return b"".join([line async for line in await exports(site).open(ID, **options)])


async def sound(site: Site, **options: Any) -> Report:
    report = verify(await export(site, **options))
    assert report.sound, report.findings
    return report


class Metering:
    """The provider's account of one transfer, as its ledger gets it: manifest, receipts, acks."""

    def __init__(self, site: Site, leaves: int) -> None:
        self.site, self.layout = site, Layout((leaves - 1) * CHUNK, CHUNK)
        now = int(site.clock.now())
        log = ContentLog("hospital.example/log/x", CHUNK, b"r" * 32, self.layout.size_bytes)
        self.manifest = Manifest(
            OWN, PEER, now, now + 10**6, ID, digest_of(DOCUMENT), "urn:uuid:t-c", PID, "urn:uuid:d", "s", log, "none", "https://h.example/r"
        )
        token = signed(self.manifest)
        self.account = Metered(PID, Role.PROVIDER, ID, PEER, token, log.origin, CHUNK, b"r" * 32, self.layout.leaves, log.size, version=1)

    async def begin(self) -> None:
        await self.save("manifest-signed", self.account.manifest)

    async def sign(self, verified: Ranges) -> None:
        """A receipt and its ack."""
        now = self.site.clock.now()
        checkpoint = Checkpoint(self.layout.leaves, b"r" * 32)
        log, id = finite(self.manifest), f"j{self.account.sequence + 1}"
        receipt = signed(receipt_for(self.account, verified, log=log, checkpoint=checkpoint, id=id, now=now, after="fsync"))
        judged = judge(self.account, receipt, proven=proven(PEER), log=log, now=now)
        assert not judged.code, judged
        self.account = replace(judged.account, version=self.account.version + 1)
        (fact,) = await self.save("receipt-accepted", receipt)
        index = (await self.site.book.index_of(fact.sequence)).index
        ack = signed(answer(self.account, now=now, index=index, ledger=await self.site.book.checkpoint()))
        self.account = replace(acked(self.account, ack), version=self.account.version + 1)
        row = Receipted(PID, self.account.sequence, digest(receipt), receipt, ack, now)
        await self.save("ack-signed", ack, row)
        assert issued(self.account, receipt).receipt == receipt

    async def save(self, what: str, token: str, *rows: Receipted) -> tuple[Evidence, ...]:
        fact = Evidence(what, Kind.TRANSFER, PID, PEER, None, self.site.clock.now(), digest=digest(token), entry=token)
        result = await self.site.journal.commit(Changes(saves=(self.account, *rows), evidence=(fact,)))
        assert isinstance(result, tuple)
        return result


async def agreed(site: Site) -> None:
    await site.journal.commit(Changes(saves=(AGREEMENT,)))


@pytest.mark.asyncio
async def test_an_agreement_of_which_nothing_has_come_yet_is_exported_too():
    async with Site(OWN) as site:
        await agreed(site)
        report = await sound(site)
        assert report.told is not None
        assert (report.told.flows, report.told.entries) == ((), 0)
        assert any("nothing in the file is signed" in text for text in report.unproven)


@pytest.mark.asyncio
async def test_a_number_that_no_file_can_hold_keeps_nobody_from_evidence(capsys: pytest.CaptureFixture[str]):
    """Each side signs for its own time, and could sign for more than JSON can add up."""
    decided = {"decision": {"facts": {"claim": 2**54}}}
    async with Site(OWN) as site:
        await agreed(site)
        run = Process(Kind.TRANSFER, PID, Role.PROVIDER, PEER, "https://p.example", "STARTED", "urn:uuid:t-c", agreement=ID, detail=decided)
        await site.journal.commit(Changes(saves=(replace(run, version=1),)))

        async def much(_: str) -> dict[str, Any]:
            return {"counts": {"us": 2**54}}

        of = Exports(site.store, site.book, site.identity, site.clock, much)  # type: ignore[arg-type]
        report = verify(b"".join([line async for line in await of.open(ID)]))
    assert report.sound, report.findings
    said = capsys.readouterr().err
    assert "invoice left out of evidence" in said
    assert "decision left out of evidence" in said


@pytest.mark.asyncio
async def test_what_is_not_here_is_not_found_before_anything_is_written():
    async with Site(OWN) as site:
        with pytest.raises(NotFound, match="there is no agreement"):
            await exports(site).open("urn:uuid:other")


@pytest.mark.asyncio
async def test_what_is_just_written_is_numbered_before_it_is_exported():
    async with Site(OWN) as site:
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        report = await sound(site)
        assert report.told is not None
        assert (report.told.entries, report.told.flows[0].receipts) == (1, 0)


@pytest.mark.asyncio
async def test_what_comes_while_entries_are_counted_is_for_the_next_export_and_both_tell_the_same(monkeypatch: pytest.MonkeyPatch):
    async with Site(OWN) as site:
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        counted = site.book.counted

        async def late(*about: Any) -> Any:
            await metering.sign(())
            return await counted(*about)

        with monkeypatch.context() as patched:
            patched.setattr(site.book, "counted", late)
            first = await sound(site)
        second = await sound(site)
        assert first.told is not None
        assert second.told is not None
        assert (first.told.entries, second.told.entries) == (1, 4), "with the receipt, its ack, and the count of the first"
        assert compare(first.told, replace(second.told, flows=first.told.flows)) == ()


@pytest.mark.asyncio
async def test_a_transfer_whose_process_is_swept_is_known_from_its_account():
    async with Site(OWN) as site:
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        await metering.sign(())
        await metering.sign(((1, 3),))
        member = next(each for each in map(orjson.loads, (await export(site)).splitlines()) if each.get("kind") == "transfer")
        assert (member["state"], member["providerPid"], member["consumerPid"]) == (None, PID, "urn:uuid:t-c")
        process = Process(Kind.TRANSFER, PID, Role.PROVIDER, PEER, "https://x", "STARTED", "urn:uuid:t-c", agreement=ID, created=1.0)
        foreign = replace(process, pid="urn:uuid:other", peer_pid="urn:uuid:o", agreement="urn:uuid:b")
        await site.journal.commit(Changes(saves=(process, foreign)))
        transfers = [each for each in map(orjson.loads, (await export(site)).splitlines()) if each.get("kind") == "transfer"]
        assert [(each["pid"], each["state"]) for each in transfers] == [(PID, "STARTED")]


@pytest.mark.asyncio
async def test_an_own_reason_on_record_that_looks_like_a_token_is_kept_back_and_one_of_the_peer_accuses_it():
    """It was given before such reasons were refused."""
    secret = "Bearer 0123456789abcdef"
    async with Site(OWN) as site:
        now = site.clock.now()
        said = {"agreement": ID, "reasons": [secret]}
        closed = Evidence("agreement-closed", Kind.NEGOTIATION, NEGOTIATION, PEER, None, now, detail=said)
        agreement = replace(AGREEMENT, closed=now, closed_by="us", reason=secret)
        assert isinstance(await site.journal.commit(Changes(saves=(agreement,), evidence=(closed,))), tuple)
        data = await export(site)
        report = verify(data)
        assert report.sound, report.findings
        assert secret.encode() not in data
        assert any("the details of 1 were erased or kept back" in line for line in report.verdict())
        theirs = replace(closed, what="message-received", detail={"reasons": [secret]})
        assert isinstance(await site.journal.commit(Changes(evidence=(theirs,))), tuple)
        report = verify(await export(site))
        assert [(each.code, each.accuses) for each in report.findings] == [("secret-token", True)]


@pytest.mark.asyncio
async def test_an_act_on_record_that_names_a_token_is_kept_back():
    """It was recorded before such acts were refused."""
    act: dict[str, Any] = {"duty": "/obligation/0", "action": "odrl:compensate", "at": 2.0, "by": "Bearer 0123456789abcdef", "amounts": {}}
    async with Site(OWN) as site:
        other = act | {"by": PEER}
        facts = [
            Evidence("duty-performed", Kind.NEGOTIATION, NEGOTIATION, PEER, None, 2.0, detail={"agreement": ID} | each)
            for each in (act, other)
        ]
        saved = replace(AGREEMENT, performed=(act, other))
        assert isinstance(await site.journal.commit(Changes(saves=(saved,), evidence=tuple(facts))), tuple)
        data = await export(site)
        report = verify(data)
        assert report.sound, report.findings
        assert act["by"].encode() not in data
        assert any("duties performed" in text for text in report.unproven)


@pytest.mark.asyncio
async def test_facts_of_a_log_that_is_closed_are_proven_in_that_log():
    async with Site(OWN) as site:
        await agreed(site)
        metering = Metering(site, 9)
        await metering.begin()
        await metering.sign(())
        note = await site.book.checkpoint()
        assert note is not None
        await site.book.sequencer.begin_anew(checkpoints.read(notes.read(note.encode()).text))
        await metering.sign(((1, 4),))
        data = await export(site)
        report = verify(data)
        assert report.sound, report.findings
        logs = {each["log"] for each in map(orjson.loads, data.splitlines()) if each.get("kind") == "entry"}
        assert len(logs) == 2


@pytest.mark.asyncio
async def test_cosignatures_of_others_are_exported_only_when_that_is_asked_for():
    network, third = Network(), "did:web:third.example"
    async with Site(OWN, PEER, third, network=network) as site, Site(PEER, OWN, network=network), Site(third, OWN, network=network):
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        await metering.sign(())
        for who in (PEER, third):
            known = site.identity.find(who)
            assert known is not None
            assert await site.book.witnesses.ask(known)
        few, all_ = await sound(site), await sound(site, everybody=True)
        assert few.told is not None
        assert all_.told is not None
        assert [each[0] for each in few.told.witnesses] == [PEER]
        assert {each[0] for each in all_.told.witnesses} == {PEER, third}


@pytest.mark.asyncio
async def test_a_receipt_that_only_the_table_has_is_exported_and_told_to_be_missing_in_the_ledger():
    async with Site(OWN) as site:
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        await metering.sign(())
        receipt = signed(
            receipt_for(
                metering.account,
                ((1, 2),),
                log=finite(metering.manifest),
                checkpoint=Checkpoint(5, b"r" * 32),
                id="j9",
                now=site.clock.now(),
                after="write",
            )
        )
        judged = judge(metering.account, receipt, proven=proven(PEER), log=finite(metering.manifest), now=site.clock.now())
        row = Receipted(PID, 2, digest(receipt), receipt, None, 1.0)
        await site.journal.commit(Changes(saves=(replace(judged.account, version=9), row)))
        assert {each.code for each in verify(await export(site)).findings} == {"entry-unlogged"}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_thousands_of_entries_are_exported_in_bounded_memory(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(OWN, store=store) as site:
        await agreed(site)
        metering = Metering(site, 5)
        await metering.begin()
        await metering.sign(())
        await _many(metering, COUNT)
        lines = await exports(site).open(ID)
        tracemalloc.start()
        size = most = number = 0
        async for line in lines:
            size, number = size + len(line), number + 1
            if number % 200 == 0:
                most = max(most, tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    await store.close()
    assert size > 2_500 * COUNT > 2_000_000
    assert most < 1_500_000, most


async def _many(metering: Metering, count: int) -> None:
    """Receipts in one go: what they say does not matter for how much is kept of them."""
    facts = []
    for number in range(count):
        receipt = Receipt(PEER, OWN, f"j{number}", 1, bytes(32), number + 2, bytes(32), (), metering.account.counts, None)
        ack = Ack(OWN, PEER, 1, bytes(32), digest(signed(receipt)), number + 2, 1, 0)
        for what, value in (("receipt-accepted", receipt), ("ack-signed", ack)):
            facts.append(Evidence(what, Kind.TRANSFER, PID, PEER, None, 1.0, entry=signed(value)))
    for first in range(0, len(facts), 500):
        assert isinstance(await metering.site.journal.commit(Changes(evidence=tuple(facts[first : first + 500]))), tuple)


def test_what_an_entry_is_is_told_by_its_header():
    assert kind_of(b'{"at":1}') is None
    receipt = Receipt(PEER, OWN, "j", 1, bytes(32), 1, None, (), Counts(), None)
    assert kind_of(signed(receipt).encode()) == "receipt"
    assert kind_of(b"hospital.example/ledger\n1\nx\n") is None
