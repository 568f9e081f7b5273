"""The ledger over sockets: what a participant sees of another's log, witnessing between two connectors, and the operators' view."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio

from connector.dsp.messages import Kind, Move
from connector.ledger import witnesses
from connector.merkle import checkpoints, notes, proofs, tiles, witness
from connector.merkle.tree import leaf_hash, verify_consistency
from connector.records import Changes, Evidence
from tests import pair
from tests.pair import Desk

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with pair.desk(tmp_path_factory.mktemp("ledger") / "x") as made:
        await say(made, 300, made.peer.id)
        await say(made, 1, made.stranger.id)
        yield made


def ledger(desk: Desk, path: str) -> str:
    return f"{desk.us.site.settings.protocol.url}/ledger/{path}"


async def say(desk: Desk, count: int, peer: str | None) -> int:
    """Facts about `peer` that are in the log on return; the index of the last one."""
    facts = tuple(
        Evidence("message-received", Kind.NEGOTIATION, f"urn:uuid:{n}", peer, "REQUESTED", 1.0, Move.CONTRACT_REQUEST, detail={"n": n})
        for n in range(count)
    )
    written = await desk.us.connector.journal.commit(Changes(evidence=facts))
    assert isinstance(written, tuple)
    return (await desk.us.connector.book.index_of(written[-1].sequence)).index


async def the_log(desk: Desk) -> dict[str, object]:
    return dict((await desk.us.asked("GET", "/ledger"))["logs"][-1])


async def test_who_proves_who_it_is_reads_checkpoints_tiles_and_proofs(desk: Desk):
    shown = await desk.peer.send(desk.us, "GET", ledger(desk, "checkpoint"))
    assert (shown.status, shown.headers["Content-Type"], shown.headers["Cache-Control"]) == (200, "text/plain; charset=utf-8", "no-store")
    log = await the_log(desk)
    origin = str(log["origin"])
    keys = [notes.read_vkey(key) for key in log["keys"]]  # type: ignore[attr-defined]
    said = checkpoints.open(shown.body, origin, keys).checkpoint
    assert said.size >= 301
    checked = tiles.CheckedTiles(said.size, said.root)
    edge = {tile: (await desk.peer.send(desk.us, "GET", ledger(desk, tile.path))).body for tile in tiles.edge(said.size)}
    checked.enter(edge)
    full = tiles.tile_of(0, 0, said.size)
    answer = await desk.peer.send(desk.us, "GET", ledger(desk, full.path))
    assert "immutable" in answer.headers["Cache-Control"]
    leaves = checked.take(full, answer.body)
    proven = proofs.read((await desk.peer.send(desk.us, "GET", ledger(desk, "proof/17"))).body)
    proofs.verify(proven, leaves[17 * 32 : 18 * 32], origin, keys)
    lines = (await desk.peer.send(desk.us, "GET", ledger(desk, f"consistency/256/{said.size}"))).body.decode().splitlines()
    hashes = proofs.read_hashes(lines, 63, "proof-hash", "proof-many")
    old = (await desk.peer.send(desk.us, "GET", ledger(desk, "tile/1/000.p/1"))).body
    verify_consistency(256, old, said.size, said.root, hashes)


async def test_an_entry_is_shown_to_whom_it_is_about_and_is_not_there_for_others(desk: Desk):
    ours = await desk.peer.send(desk.us, "GET", ledger(desk, "entries/5"))
    assert ours.status == 200
    assert orjson.loads(ours.body)["peer"] == desk.peer.id
    leaves = (await desk.peer.send(desk.us, "GET", ledger(desk, "tile/0/000"))).body
    assert leaf_hash(ours.body) == leaves[5 * 32 : 6 * 32]
    elsewhere = await desk.peer.send(desk.us, "GET", ledger(desk, "entries/300"))
    nowhere = await desk.peer.send(desk.us, "GET", ledger(desk, "entries/999999"))
    assert (elsewhere.status, nowhere.status) == (404, 404)
    masked = [answer.body.replace(index, b"N") for answer, index in ((elsewhere, b"300"), (nowhere, b"999999"))]
    assert orjson.loads(masked[0])["detail"] == orjson.loads(masked[1])["detail"]
    assert elsewhere.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/0/000", "proof/1", "consistency/1/2", "entries/1", "witness/checkpoint?origin=x", "witness/add-checkpoint"]
)
async def test_who_does_not_prove_who_it_is_sees_nothing(desk: Desk, path: str):
    method = "POST" if path.endswith("add-checkpoint") else "GET"
    answer = await desk.peer.send(desk.us, method, ledger(desk, path), anonymous=True)
    assert (answer.status, answer.json["type"]) == (401, "urn:qiao:problem:unauthenticated")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tile/entries/000", 404),
        ("tile/0/001.p/200", 404),
        ("tile/0/0", 404),
        ("tile/0/000.p/256", 404),
        ("proof/400000", 404),
        ("proof/x", 400),
        ("proof/-1", 400),
        ("consistency/9/8", 404),
        ("consistency/0/99999999", 404),
        ("entries/one", 400),
        ("checkpoint?origin=elsewhere.example", 404),
        ("witness/checkpoint", 400),
        ("witness/checkpoint?origin=elsewhere.example", 404),
        ("elsewhere", 404),
    ],
)
async def test_what_is_not_there_or_not_understood_is_said(desk: Desk, path: str, status: int):
    answer = await desk.peer.send(desk.us, "GET", ledger(desk, path))
    assert answer.status == status, answer.body
    assert answer.json["status"] == status


async def test_a_log_that_has_forgotten_its_checkpoint_gets_it_from_its_witness(desk: Desk):
    key = desk.peer.identity.keys(desk.peer.id)[0]
    origin = f"{desk.peer.site.name}.example/ledger"
    signer = witness_signer(desk, origin)
    assert signer.key.public == key.public
    note = checkpoints.sign(checkpoints.Checkpoint(origin, 1, leaf_hash(b"x")), (signer,))
    answer = await desk.peer.send(
        desk.us, "POST", ledger(desk, "witness/add-checkpoint"), witness.write(0, (), note), **{"Content-Type": "text/plain"}
    )
    assert answer.status == 200, answer.body
    ours = [notes.VerifierKey(desk.us.site.id, each.public, notes.Kind.COSIGNATURE) for each in desk.peer.identity.keys(desk.us.site.id)]
    assert len(notes.read(witness.cosigned(note, answer.body, ours)).signatures) == 2
    shown = await desk.peer.send(desk.us, "GET", ledger(desk, f"witness/checkpoint?origin={origin.replace('/', '%2F')}"))
    assert shown.body == note
    view = await desk.us.asked("GET", "/ledger")
    assert [(row["peer"], row["origin"], row["size"], row["conflict"]) for row in view["witnessed"]] == [(desk.peer.id, origin, 1, None)]
    forked = checkpoints.sign(checkpoints.Checkpoint(origin, 1, leaf_hash(b"y")), (signer,))
    answer = await desk.peer.send(
        desk.us, "POST", ledger(desk, "witness/add-checkpoint"), witness.write(1, (), forked), **{"Content-Type": "text/plain"}
    )
    assert (answer.status, answer.body.partition(b":")[0]) == (409, b"witness-forked")
    assert desk.us.connector.book.suspected(desk.peer.id)
    (row,) = (await desk.us.asked("GET", "/ledger"))["witnessed"]
    assert (row["note"].encode(), row["conflict"].encode()) == (note, forked)
    path = f"/ledger/witnesses/{desk.peer.id}/forgive"
    assert await desk.us.asked("POST", path) == {"forgiven": desk.peer.id}
    assert not desk.us.connector.book.suspected(desk.peer.id)
    assert (await desk.us.manage("POST", path)).status == 404


def witness_signer(desk: Desk, origin: str) -> notes.Signer:
    import time

    from connector.adapters.keys import Keys
    from connector.ledger.book import signer_of

    return signer_of(Keys(desk.peer.site.settings.keys.directory, desk.peer.id).active(time.time()), origin)


async def test_a_checkpoint_of_another_media_type_is_refused_unread(desk: Desk):
    answer = await desk.peer.send(desk.us, "POST", ledger(desk, "witness/add-checkpoint"), b"old 0\n\n", **{"Content-Type": "text/html"})
    assert answer.status == 415


async def test_operators_see_the_whole_log_and_what_stands_outside_of_it(desk: Desk):
    log = await the_log(desk)
    size = int(str(log["size"]))
    entries: list[bytes] = []
    for index in range(-(-size // 256)):
        tile = tiles.tile_of(tiles.ENTRIES, index, size)
        entries += tiles.read_bundle(tile, (await desk.us.manage("GET", f"/ledger/{tile.path}")).body)
    assert len(entries) == size
    page = await desk.us.asked("GET", "/ledger/entries?first=5&limit=2")
    assert [item["index"] for item in page["items"]] == [5, 6]
    item = page["items"][0]
    assert item["entry"].encode() == entries[5]
    assert orjson.loads(item["detail"]) == {"n": 5}
    assert len(bytes.fromhex(item["salt"])) == 16
    proof = proofs.read((await desk.us.manage("GET", f"/ledger/proof/{size - 1}")).body)
    proofs.verify(proof, leaf_hash(entries[-1]), str(log["origin"]), [notes.read_vkey(key) for key in log["keys"]])  # type: ignore[attr-defined]


async def test_an_operator_erases_what_an_event_says_in_detail(desk: Desk):
    index = await say(desk, 1, None)
    sequence = (await desk.us.asked("GET", f"/ledger/entries?first={index}&limit=1"))["items"][0]["sequence"]
    before = (await desk.us.manage("GET", f"/ledger/proof/{index}")).body
    assert (await desk.us.manage("DELETE", f"/events/{sequence}/detail")).status == 204
    (item,) = (await desk.us.asked("GET", f"/ledger/entries?first={index}&limit=1"))["items"]
    assert (item["detail"], item["salt"]) == (None, None)
    assert proofs.read((await desk.us.manage("GET", f"/ledger/proof/{index}")).body).hashes == proofs.read(before).hashes
    assert leaf_hash(item["entry"].encode()).hex() == item["leaf"]
    assert (await desk.us.manage("DELETE", "/events/99999999/detail")).status == 404
    assert (await desk.us.manage("DELETE", "/events/x/detail")).status == 400


async def test_two_connectors_that_deal_with_each_other_witness_each_other(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(witnesses, "SETTLE_SECONDS", 0.05)
    async with pair.pair(tmp_path_factory.mktemp("two") / "x") as both_sides:
        provider, consumer = both_sides.provider, both_sides.consumer
        changed = asyncio.Event()
        for each in (provider, consumer):
            each.connector.journal.listen(lambda _changes, _evidence: changed.set())
        dataset = pair.fresh("dataset")
        await provider.publish(dataset)
        begun = await consumer.asked("POST", "/negotiations", {"peer": provider.site.name, "dataset": dataset}, status=201)
        await consumer.state(Kind.NEGOTIATION, begun["pid"], "FINALIZED")

        async def both() -> bool:
            views = [await each.asked("GET", "/ledger") for each in (provider, consumer)]
            return all(view["cosigned"] and view["witnessed"] for view in views)

        async with asyncio.timeout(pair.WAIT_SECONDS):
            while not await both():
                await changed.wait()
                changed.clear()
        for us, them in ((provider, consumer), (consumer, provider)):
            (row,) = (await us.asked("GET", "/ledger"))["cosigned"]
            (log,) = (await us.asked("GET", "/ledger"))["logs"]
            (held,) = (await them.asked("GET", "/ledger"))["witnessed"]
            assert (row["peer"], row["origin"], held["peer"]) == (them.site.id, log["origin"], us.site.id)
            assert held["size"] >= row["size"] > 0
            assert held["note"] == row["note"][: len(held["note"])] or held["size"] > row["size"]
            assert log["origin"] == us.site.settings.protocol.url.removeprefix("http://") + "/ledger"
