"""Evidence of a real exchange between two connectors: exported on both sides, verified with nothing but the files, and compared."""

import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
import rfc8785
import scitt_cose
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connector.adapters import keys
from connector.api_management import evidence_api
from connector.dsp.messages import Kind
from connector.evidence.bundle import Attestation
from connector.evidence.identities import pinned
from connector.evidence.members import OBJECTS
from connector.evidence.report import Told
from connector.evidence.sealed import sealed
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.merkle.tree import leaf_hash
from connector.metering.content import write_bytes
from connector.metering.objects import digest
from connector.ports import COUNTERSIGNED
from connector.signatures import jws
from connector.signatures.jws import SigningKey
from connector.vocabulary import read_profiles
from tests import pair
from tests.dataplane.rig import some_bytes
from tests.dataplane.test_metered_pair import on_record
from tests.metering_bills.priced import price
from tests.test_app import pulled

pytestmark = pytest.mark.asyncio(loop_scope="module")

METERING = {"leftOperand": "https://w3id.org/qiao/v1/metering", "operator": "eq", "rightOperand": COUNTERSIGNED}
OFFER = {"@type": "Offer", "permission": [{"action": "use", "constraint": [METERING], "duty": [price("0.50", "megabyte")]}]}
CONTENT = some_bytes(3_000_000)


@dataclass
class Exchange:
    """Two connectors after one transfer under an agreement with prices, everything signed and on record."""

    both: pair.Pair
    agreement: str
    transfers: dict[str, str]

    async def export(self, at: pair.Running, **query: str) -> bytes:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        answer = await at.manage("GET", f"/agreements/{pair.quoted(self.agreement)}/evidence{'?' if asked else ''}{asked}")
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    async with pair.pair(tmp_path_factory.mktemp("pair"), store="sqlite") as both:
        await both.provider.publish("urn:test:evident", OFFER, content=CONTENT)
        order = await pulled(both.consumer, "hospital", "urn:test:evident")
        assert order["stage"] == "done", order
        ours = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert ours is not None
        theirs = await both.provider.state(Kind.TRANSFER, ours.peer_pid or "", "COMPLETED")
        await on_record(both.provider, theirs.pid, "statement-agreed")
        await on_record(both.consumer, ours.pid, "statement-agreed")
        for at, other in ((both.provider, both.consumer), (both.consumer, both.provider)):
            known = at.connector.book.witnesses._identity.find(other.site.id)
            assert known is not None
            await at.connector.book.index_of((await at.connector.store.events(0, 500))[-1].sequence)
            assert await at.connector.book.witnesses.ask(known), "each side has the other's cosignature"
        yield Exchange(both, ours.agreement or "", {both.provider.site.name: theirs.pid, both.consumer.site.name: ours.pid})


def told(data: bytes) -> Told:
    report = verify(data, profiles=read_profiles())
    assert not [text for text in report.unproven if "prices of the agreement" in text], "they are compared"
    assert report.sound, report.findings
    assert report.told is not None
    return report.told


def members(data: bytes, kind: str) -> list[dict[str, Any]]:
    return [member for member in map(orjson.loads, data.splitlines()) if member.get("kind") == kind]


async def test_both_sides_export_what_holds_and_tell_the_same(exchange: Exchange):
    one, other = [told(await exchange.export(at)) for at in (exchange.both.provider, exchange.both.consumer)]
    assert compare(one, other) == ()
    assert (one.role, other.role) == ("provider", "consumer")
    for each in (one, other):
        (flow,) = each.flows
        assert (flow.counts.bytes, flow.state, flow.receipts, flow.acknowledged) == (len(CONTENT), "complete", 2, 2)
        assert each.invoice is not None
        assert each.invoice[:2] == ("1.50", "EUR")
        assert len(each.witnesses) == 1, (each.role, each.witnesses)
        (witness,) = each.witnesses
        assert witness[0] in (exchange.both.provider.site.id, exchange.both.consumer.site.id)
        assert witness[0] != each.by
    assert one.statements == other.statements >= 2, "both sides sign what a transfer came to, and have both on record"


async def test_terms_decisions_and_the_agreement_are_those_that_the_ledger_of_either_side_holds(exchange: Exchange):
    for at in (exchange.both.provider, exchange.both.consumer):
        data = await exchange.export(at)
        assert not any("holds no digest" in text for text in verify(data).unproven)
        assert members(data, "decision")
        for kind, name in (("decision", "document"), ("negotiation", "terms")):
            for place, member in enumerate(members(data, kind)):
                body = [orjson.loads(line) for line in data.splitlines()[:-1]]
                body[body.index(member)][name]["odrl:added"] = place
                forged = sealed(b"".join(rfc8785.dumps(each) + b"\n" for each in body))
                found = {each.code for each in verify(forged).findings}
                assert found == {"terms-digest" if name == "terms" else "decision-digest", "attestation-other"}


async def test_the_registry_of_a_participant_proves_who_the_two_are(exchange: Exchange):
    data = await exchange.export(exchange.both.provider)
    identity = exchange.both.consumer.connector.book.witnesses._identity
    trust = pinned({each.id: tuple(identity.keys(each.id)) for each in identity.participants()})  # type: ignore[misc]
    report = verify(data, trust)
    assert report.sound, report.findings
    assert report.trusted


async def test_everything_on_record_of_the_agreement_is_in_the_file_once(exchange: Exchange):
    for at in (exchange.both.provider, exchange.both.consumer):
        data = await exchange.export(at)
        agreement = members(data, "agreement")[0]
        pids = (agreement["negotiation"], exchange.transfers[at.site.name])
        rows = [row for pid in pids for row in await at.evidence(pid)]
        entries = members(data, "entry")
        assert [entry["sequence"] for entry in entries[:-1] if entry["pid"] in pids] == [row.sequence for row in rows]
        counts = [row.sequence for row in await at.evidence(exchange.agreement) if row.what == "evidence-exported"]
        assert entries[-1]["sequence"] == counts[-1], "each export closes with its own count, and has those of before"
        assert len(members(data, "receipt")) == len(members(data, "ack")) == 2
        decided = set(pids) if at is exchange.both.provider else {agreement["negotiation"]}
        assert {each["pid"] for each in members(data, "decision")} == decided
        assert [each["id"] for each in members(data, "identity")] == [exchange.both.provider.site.id, exchange.both.consumer.site.id]
        assert members(data, "evidence")[0]["by"] == at.site.id


async def test_what_an_exporter_with_its_key_leaves_out_is_found_in_that_one_file(exchange: Exchange):
    """Messages by their numbers, and what has none, or none behind it, by the count: how a process ended, stages of an order, requests
    and answers that were signed, statements. A file that is called one of before there were counts is found by the facts that are left."""
    for at in (exchange.both.provider, exchange.both.consumer):
        data, key = await exchange.export(at), keys.Keys(at.site.settings.keys.directory, at.site.id).active(time.time())
        entries = members(data, "entry")[:-1]
        messages = [each for each in entries if each["body"] and '"state":"' in each["body"]]
        others = [each for each in entries if each not in messages]
        ends = [[each for each in messages if each["pid"] == pid][-1] for pid in {each["pid"] for each in messages}]
        assert any("statement" in orjson.loads(each["body"] or "{}").get("what", "statement") for each in others)
        for gone in (*([each] for each in (*ends, *others)), others):
            assert not verify(without(data, gone, key)).sound, gone
            assert not verify(without(data, [*gone, *members(data, "entry")[-1:]], key, version=2)).sound, gone
        for gone in (messages[1:2], messages[2:4]):
            assert "entry-missing" in {each.code for each in verify(without(data, gone, key)).findings}, gone


def without(data: bytes, gone: list[dict[str, Any]], key: SigningKey, version: int = 3) -> bytes:
    """The file without these entries and the objects that they are, counted, attested and sealed anew."""
    names, sequences = {each["jws"] for each in gone} - {None}, {each["sequence"] for each in gone}
    rest = [each for each in map(orjson.loads, data.splitlines()[:-1]) if each.get("sequence") not in sequences]
    rest = [each for each in rest if each["kind"] not in OBJECTS or write_bytes(digest(each["jws"])) not in names]
    rest[0]["version"] = version
    *lines, attestation, end = rest
    body = b"".join(rfc8785.dumps(each) + b"\n" for each in lines)
    claims = Attestation(key.kid.partition("#")[0], int(lines[0]["at"]), sha256(body).digest()).claims()
    attestation["jws"] = jws.sign(claims, key, Attestation.TYP)
    end["members"] = dict(Counter(each["kind"] for each in (*lines, attestation)))
    return sealed(body + b"".join(rfc8785.dumps(each) + b"\n" for each in (attestation, end)))


async def test_no_token_of_the_transfer_leaves_with_the_file(exchange: Exchange):
    data = await exchange.export(exchange.both.consumer) + await exchange.export(exchange.both.provider)
    assert pair.TOKEN.encode() not in data
    assert b"at+jwt" not in data
    assert b"Bearer " not in data


async def test_what_was_erased_is_gone_from_the_next_export_which_still_holds(exchange: Exchange):
    at = exchange.both.consumer
    before = await exchange.export(at)
    entry = next(each for each in members(before, "entry") if each["body"] and each["detail"])
    answer = await at.manage("DELETE", f"/events/{entry['sequence']}/detail")
    assert answer.status == 204
    after = await exchange.export(at)
    (now,) = [each for each in members(after, "entry") if each["sequence"] == entry["sequence"]]
    assert (now["detail"], now["salt"], now["body"], now["index"]) == (None, None, entry["body"], entry["index"])
    assert (told(before).erased, told(after).erased) == (0, 1)
    assert compare(told(before), told(after)) == ()


async def test_a_large_agreement_is_written_in_pieces(exchange: Exchange, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evidence_api, "PIECE_BYTES", 500)
    told(await exchange.export(exchange.both.provider))


async def test_entries_are_exported_as_statements_with_receipts_that_another_implementation_verifies(exchange: Exchange):
    at = exchange.both.provider
    (key,) = members(await exchange.export(at), "identity")[0]["keys"]
    pem = Ed25519PublicKey.from_public_bytes(_bytes(key["x"])).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    rows = await at.evidence(exchange.transfers[at.site.name])
    for row in rows:
        answer = await at.manage("GET", f"/evidence/{row.sequence}/cose")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/cose")
        said = scitt_cose.parse_signed_statement(answer.body, public_key_pem=pem)
        assert said["signature_verified"] is True, said
        assert (said["issuer"], said["subject"]) == (at.site.id, row.pid)
        assert said["content_type"] == ("application/jwt" if row.entry else "application/json")
        assert row.entry is None or said["payload"] == row.entry.encode()
        (receipt,) = scitt_cose.extract_receipts(answer.body)
        result = scitt_cose.verify_receipt(receipt, leaf_entry_hex=said["payload"].hex(), log_public_key_pem=pem)
        assert result.ok, result.errors
        assert result.leaf_index + 1 == row.sequence, "everything of this database is in one log"
        (log,) = await at.connector.store.logs()
        (leaf,) = await at.connector.store.leaves(log.number, result.leaf_index, 1)
        assert leaf == leaf_hash(said["payload"])
        assert not scitt_cose.verify_receipt(receipt, leaf_entry_hex=b"other".hex(), log_public_key_pem=pem).ok
    last = await at.connector.store.events(10_000, 1)
    assert not last
    assert (await at.manage("GET", "/evidence/10000/cose")).status == 404


async def test_the_events_of_a_process_are_listed(exchange: Exchange):
    at = exchange.both.provider
    said = await at.asked("GET", f"/processes/{pair.quoted(exchange.transfers[at.site.name])}/evidence")
    assert [each["what"] for each in said["items"]][:3] == ["message-received", "message-sent", "message-acknowledged"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/agreements/urn%3Ax/evidence", 404, "there is no agreement `urn:x`"),
        ("/agreements/{}/evidence?witnesses=some", 400, "counterparty, all"),
        ("/agreements/{}/evidence?format=zip", 400, "takes `witnesses` alone"),
        ("/evidence/x/cose", 400, "a whole number"),
        ("/evidence/0/cose", 400, "a whole number"),
    ],
)
async def test_what_is_asked_for_wrongly_is_said(exchange: Exchange, path: str, status: int, says: str):
    answer = await exchange.both.provider.manage("GET", path.format(pair.quoted(exchange.agreement)))
    assert (answer.status, says in answer.json["detail"]) == (status, True), answer.body


async def test_nobody_gets_evidence_without_the_admin_token(exchange: Exchange):
    at = exchange.both.provider
    url = f"{at.site.settings.management.url}/v1/agreements/{pair.quoted(exchange.agreement)}/evidence"
    assert (await pair.call(at.http, "GET", url)).status == 401


async def test_a_file_whose_writing_fails_is_cut_and_has_no_seal(exchange: Exchange):
    at = exchange.both.provider
    with _failing(at), pytest.raises(aiohttp.ClientError):
        await exchange.export(at)
    told(await exchange.export(at))


@contextmanager
def _failing(at: pair.Running) -> Iterator[None]:
    """The database goes away before the last entry."""
    store: Any = at.connector.store

    async def broken(*_: Any) -> Any:
        raise OSError("the disk is gone")

    store.entries = broken
    try:
        yield
    finally:
        del store.entries


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


async def test_paths_are_none_of_the_file(exchange: Exchange, tmp_path: Path):
    data = await exchange.export(exchange.both.consumer)
    assert str(exchange.both.consumer.site.root).encode() not in data
