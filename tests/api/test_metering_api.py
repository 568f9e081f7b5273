"""The routes beside the bytes, asked as a consumer does: promise, proof, and receipts against acks."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.merkle import checkpoints, notes
from connector.merkle.tiles import CheckedTiles, edge, over
from connector.merkle.tree import leaf_hash
from connector.metering import chain, chain_consumer, credit
from connector.metering.content import CHUNK_BYTES, read_etag, read_header
from connector.metering.objects import Checkpoint
from connector.records.metering import Counts
from connector.values import replace
from tests.dataplane.reader import Same
from tests.dataplane.rig import CONSUMER, PROVIDER, STRANGER, TRANSFER, Rig, key_of, provider, some_bytes
from tests.dataplane.signing import JWT, WINDOW, Consumer
from tests.dataplane_live.test_flow import Upper

LARGE = some_bytes(6 * CHUNK_BYTES + 12_345)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, **WINDOW) as one:
        await one.publish(LARGE)
        yield one


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture
async def consumer(rig: Rig, http: aiohttp.ClientSession) -> Consumer:
    return Consumer(rig, http)


# --- promise and proof


@pytest.mark.asyncio
async def test_the_bytes_lead_to_the_manifest_and_their_tag_is_the_root(consumer: Consumer):
    status, body, headers = await consumer.get()
    assert (status, body) == (200, LARGE)
    assert headers["Link"] == f'<{consumer.rig.endpoint}/manifest>; rel="describedby"; type="application/jwt"'
    manifest = await consumer.begin()
    assert read_etag(headers["ETag"]) == (manifest.log.root, CHUNK_BYTES)
    assert (manifest.log.size, manifest.window_bytes, manifest.credit_windows, manifest.required) == (len(LARGE), CHUNK_BYTES, 2, False)
    assert manifest.receipts == f"{consumer.rig.endpoint}/receipts"


@pytest.mark.asyncio
async def test_every_leaf_is_proven_by_tiles_under_the_signed_checkpoint(consumer: Consumer):
    manifest = await consumer.begin()
    _, note, _ = await consumer.get("/checkpoint")
    opened = checkpoints.open(note, manifest.log.origin, [notes.VerifierKey(manifest.log.origin, key_of(PROVIDER).key.public)]).checkpoint
    assert opened.root == manifest.log.root
    _, header, _ = await consumer.get("/header")
    assert read_header(header).size_bytes == len(LARGE)
    tiles = CheckedTiles(opened.size, opened.root)
    tiles.enter({tile: (await consumer.get(f"/{tile.path}"))[1] for tile in edge(opened.size)})
    (tile,) = over(0, opened.size, opened.size)
    hashes = tiles.take(tile, (await consumer.get(f"/{tile.path}"))[1])
    chunks = [LARGE[at : at + CHUNK_BYTES] for at in range(0, len(LARGE), CHUNK_BYTES)]
    assert hashes == b"".join(map(leaf_hash, [header, *chunks]))


@pytest.mark.asyncio
async def test_the_checkpoint_names_the_stages_whose_output_it_is_of(consumer: Consumer):
    for stages, lines in (((Upper(),), ("stage upper",)), ((Same(), Upper()), ("stage same", "stage upper")), ((), ())):
        await consumer.rig.publish(b"a line\nanother\n", media_type="application/x-ndjson", stages=stages)
        _, body, headers = await consumer.get()
        assert body == (b"A LINE\nANOTHER\n" if stages else b"a line\nanother\n")
        _, note, _ = await consumer.get("/checkpoint")
        signed = checkpoints.read(notes.read(note).text)
        assert (signed.extensions, read_etag(headers["ETag"])) == (lines, (signed.root, CHUNK_BYTES))


@pytest.mark.asyncio
async def test_a_tile_that_the_log_does_not_have_is_not_found(consumer: Consumer):
    for path in ("0/001", "0/000", "0/000.p/9", "1/000.p/1", "entries/000.p/8", "0/x000/000", "a", "63/000"):
        status, body, _ = await consumer.get(f"/tile/{path}")
        assert (status, orjson.loads(body)["type"]) == (404, "urn:qiao:problem:not-found"), path


@pytest.mark.asyncio
async def test_all_of_it_is_behind_the_gate_of_the_bytes(consumer: Consumer):
    right = consumer.headers
    for path in ("/manifest", "/checkpoint", "/header", "/tile/0/000.p/8", "/receipts"):
        consumer.headers = {"Authorization": "Bearer forged"}
        assert (await consumer.get(path))[0] == 401, path
        consumer.headers = {}
        assert (await consumer.get(path))[0] == 401, path
    assert (await consumer.post("a.b.c"))[0] == 401
    consumer.headers = right
    consumer.rig.change(state="SUSPENDED")
    for path in ("/manifest", "/checkpoint", "/header", "/tile/0/000.p/8"):
        assert (await consumer.get(path))[0] == 403, path


@pytest.mark.asyncio
async def test_a_head_says_what_a_get_would_and_other_methods_are_not_taken(consumer: Consumer):
    for path in ("/manifest", "/checkpoint", "/header", "/tile/0/000.p/8"):
        _, body, _ = await consumer.get(path)
        async with consumer.http.head(f"{consumer.rig.endpoint}{path}", headers=consumer.headers) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(body)))
        async with consumer.http.delete(f"{consumer.rig.endpoint}{path}", headers=consumer.headers) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.asyncio
async def test_a_manifest_is_durable_before_it_is_seen_and_the_same_for_all_who_ask(consumer: Consumer):
    seen = await asyncio.gather(*(consumer.get("/manifest") for _ in range(5)))
    (token,) = {body.decode() for _, body, _ in seen}
    stored = await consumer.rig.store.metered(TRANSFER)
    assert stored is not None
    assert stored.manifest == token
    facts = [(fact.what, fact.entry) for fact in await consumer.rig.store.evidence_of(TRANSFER)]
    assert facts == [("manifest-signed", token)]


# --- receipts and acks


@pytest.mark.asyncio
async def test_a_receipt_is_answered_by_an_ack_and_both_are_on_record(consumer: Consumer):
    await consumer.begin()
    opening = await consumer.sign()
    assert (opening.sequence, opening.credit_bytes, opening.state) == (1, 2 * CHUNK_BYTES, "ok")
    ack = await consumer.sign((1, 3))
    assert (ack.sequence, ack.credit_bytes) == (2, 4 * CHUNK_BYTES)
    stored = await consumer.rig.store.metered(TRANSFER)
    assert stored is not None
    assert (stored.sequence, stored.ranges, stored.counts.bytes, stored.attested) == (2, ((1, 3),), 2 * CHUNK_BYTES, "both")
    rows = await consumer.rig.store.receipts(TRANSFER)
    assert [(row.sequence, bool(row.ack)) for row in rows] == [(1, True), (2, True)]
    facts = [fact.what for fact in await consumer.rig.store.evidence_of(TRANSFER)]
    assert facts == ["manifest-signed", "receipt-accepted", "ack-signed", "receipt-accepted", "ack-signed"]


@pytest.mark.asyncio
async def test_what_is_sent_again_gets_the_same_ack(consumer: Consumer):
    await consumer.begin()
    await consumer.sign()
    token = consumer.receipt((1, 2))
    answers = [await consumer.post(token) for _ in range(3)]
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    at_once = await asyncio.gather(*(consumer.post(token) for _ in range(4)))
    assert {body for _, body in at_once} == {answers[0][1]}
    assert len(await consumer.rig.store.receipts(TRANSFER)) == 2


@pytest.mark.asyncio
async def test_an_older_one_that_was_accepted_gets_its_ack_and_another_with_its_number_is_proof(consumer: Consumer):
    await consumer.begin()
    first = consumer.receipt()
    _, ack = await consumer.post(first)
    consumer.account = chain.acked(chain_consumer.issued(consumer.account, first), ack.decode())
    await consumer.sign((1, 2))
    assert await consumer.post(first) == (200, ack)
    consumer.account = replace(consumer.account, sequence=0, receipt="", ack="", ranges=(), counts=Counts(), status="open")
    status, body = await consumer.post(consumer.receipt((1, 3)))
    problem = orjson.loads(body)
    assert (status, problem["code"]) == (409, "sequence-conflict")
    stored = await consumer.rig.store.metered(TRANSFER)
    assert stored is not None
    assert (stored.status, problem["ack"]) == ("disputed", stored.ack)
    assert [row.ack is None for row in await consumer.rig.store.receipts(TRANSFER)] == [False, True, False]
    assert (await consumer.rig.store.evidence_of(TRANSFER))[-1].what == "receipt-conflict"
    status, body, _ = await consumer.get()
    assert (status, orjson.loads(body)["type"]) == (403, "urn:qiao:problem:account-disputed")


REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "sequence-gap": (409, {"sequence": 5}),
    "previous-other": (409, {"previous": b"x" * 32}),
    "bytes-differ": (422, {"counts": Counts(bytes=5)}),
    "receipt-manifest": (422, {"manifest": b"m" * 32}),
    "receipt-audience": (422, {"audience": STRANGER}),
    "jws-issuer": (422, {"issuer": STRANGER}),
    "checkpoint-other": (422, {"checkpoint": Checkpoint(8, b"r" * 32)}),
    "complete-early": (422, {"state": "complete"}),
}


@pytest.mark.asyncio
async def test_what_does_not_hold_is_refused_with_its_code_and_the_latest_ack_and_changes_nothing(consumer: Consumer):
    await consumer.begin()
    await consumer.sign((1, 2))
    before = await consumer.rig.store.metered(TRANSFER)
    assert before is not None
    for code, (status, said) in REFUSALS.items():
        got, body = await consumer.post(consumer.receipt((1, 3), **said))
        problem = orjson.loads(body)
        assert (got, problem["code"], problem["type"]) == (status, code, f"urn:qiao:problem:{code}")
        assert problem["ack"] == before.ack
        assert await consumer.rig.store.metered(TRANSFER) == before
    assert (await consumer.sign((1, 3))).sequence == 2


BODIES: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 422),
    (b"not a jws", {}, 422),
    ("ä.b.c".encode(), {}, 422),
    (b"a.b.c", {"Content-Type": "application/json"}, 415),
    (b"a.b.c", {"Content-Encoding": "gzip"}, 415),
    (b"x" * 70_000, {}, 413),
]


@pytest.mark.asyncio
async def test_a_body_that_is_no_receipt_is_refused(consumer: Consumer):
    await consumer.begin()
    for body, headers, status in BODIES:
        sent = consumer.headers | JWT | headers
        async with consumer.http.post(f"{consumer.rig.endpoint}/receipts", headers=sent, data=body) as answer:
            assert answer.status == status, body[:10]


@pytest.mark.asyncio
async def test_a_receipt_of_a_transfer_without_a_manifest_is_told_to_get_one(consumer: Consumer):
    status, body = await consumer.post("a.b.c")
    assert (status, orjson.loads(body)["code"]) == (409, "manifest-missing")


@pytest.mark.asyncio
@pytest.mark.parametrize("left", [b"", None], ids=["cut short", "gone"])
async def test_the_last_receipt_is_taken_though_the_index_of_its_data_is_not_what_it_was_any_more(consumer: Consumer, left: bytes | None):
    lines = b"a line\n" * 100_000
    await consumer.rig.publish(lines, "lines.ndjson", "application/x-ndjson")
    manifest = await consumer.begin()
    assert (await consumer.get())[1] == lines
    logs = consumer.rig.logs
    assert logs is not None
    for index in logs.folder.glob("*.log"):
        os.truncate(index, 0)
        if left is None:
            index.unlink()
    consumer.log = credit.finite(manifest, records=lambda _first, _end: 100_000)
    await consumer.sign((1, consumer.log.leaves), state="complete")
    assert consumer.account.status == "complete"


@pytest.mark.asyncio
async def test_who_has_lost_everything_takes_up_again_what_was_signed_last(consumer: Consumer):
    assert (await consumer.get("/receipts"))[0] == 404
    await consumer.begin()
    await consumer.sign((1, 4))
    before = consumer.account
    _, body, _ = await consumer.get("/receipts")
    found = orjson.loads(body)
    assert found == {"manifest": before.manifest, "receipt": before.receipt, "ack": before.ack, "statement": None}
    await consumer.begin()
    own = lambda token, typ: consumer.identity.read(token, typ, CONSUMER)  # noqa: E731
    consumer.account = chain_consumer.restored(
        consumer.account, found["receipt"], found["ack"], own=own, proven=consumer.proven, now=consumer.rig.clock.now()
    )
    assert (await consumer.sign((1, 5))).sequence == 2


# --- clients that know nothing of it


@pytest.mark.asyncio
async def test_ranges_conditions_resumption_and_parallel_parts_are_as_ever(consumer: Consumer):
    _, _, headers = await consumer.get(Range="bytes=0-0")
    etag = headers["ETag"]
    async with consumer.http.head(consumer.rig.endpoint, headers=consumer.headers) as answer:
        assert (answer.status, answer.headers["Content-Length"], answer.headers["ETag"]) == (200, str(len(LARGE)), etag)
        assert "Link" in answer.headers
    assert (await consumer.get(**{"If-None-Match": etag}))[0] == 304
    assert (await consumer.get(**{"If-Match": '"other"'}))[0] == 412
    assert (await consumer.get(Range=f"bytes={len(LARGE)}-"))[0] == 416
    status, body, headers = await consumer.get(Range="bytes=300000-", **{"If-Range": etag})
    assert (status, body, headers["Content-Range"]) == (206, LARGE[300_000:], f"bytes 300000-{len(LARGE) - 1}/{len(LARGE)}")
    status, body, _ = await consumer.get(Range="bytes=300000-", **{"If-Range": f'"{hashlib.sha256(LARGE).hexdigest()}"'})
    assert (status, body) == (200, LARGE)
    step = 200_000
    spans = [f"bytes={at}-{at + step - 1}" for at in range(0, len(LARGE), step)]
    parts = await asyncio.gather(*(consumer.get(Range=span, **{"If-Range": etag}) for span in spans))
    assert b"".join(body for _, body, _ in parts) == LARGE
    assert consumer.rig.covered == [TRANSFER]


@pytest.mark.asyncio
async def test_data_that_were_published_before_there_were_content_logs_get_theirs_at_first_need(tmp_path: Path):
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data") as before:
        await before.publish(LARGE)
        old = before.transfers.views[TRANSFER]
    async with provider(tmp_path / "data", metered=True, **WINDOW) as rig, aiohttp.ClientSession() as http:
        rig.transfers.views[TRANSFER] = old
        consumer = Consumer(rig, http)
        assert (await consumer.get())[1] == LARGE
        manifest = await consumer.begin()
        assert manifest.log.size == len(LARGE)


@pytest.mark.asyncio
async def test_who_comes_while_the_content_log_is_made_is_told_when_to_come_back(consumer: Consumer):
    opened = consumer.rig.transfers.views[TRANSFER]
    consumer.rig.transfers.views[TRANSFER] = replace(opened, stages=(Slow(),))
    consumer.rig.flows.look_again()
    logs = consumer.rig.logs
    assert logs is not None
    logs._patience_seconds = 0.01
    status, body, headers = await consumer.get()
    assert (status, orjson.loads(body)["type"], headers["Retry-After"]) == (503, "urn:qiao:problem:busy", "5")
    Slow.go.set()
    logs._patience_seconds = 10.0
    assert (await consumer.get())[1] == LARGE


class Slow:
    """A stage that waits until it may go on."""

    name, go = "slow", asyncio.Event()

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            await self.go.wait()
            yield piece
