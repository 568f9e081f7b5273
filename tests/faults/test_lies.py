"""Every lie that is told at a real listener is refused with the code that is its own, and changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from connector.intake import account, patience
from connector.intake.promise import Broken
from connector.merkle.tiles import read_path, write_tile
from connector.merkle.tree import leaf_hash
from connector.metering.codes import CODES
from connector.metering.content import CHUNK_BYTES
from connector.metering.objects import Ack, Checkpoint, Manifest, Receipt, kept
from connector.records.metering import Counts
from connector.signatures import jws
from connector.values import replace
from tests.dataplane.rig import CONSUMER, PROVIDER, TRANSFER, provider, some_bytes
from tests.dataplane.signing import WINDOW, Consumer
from tests.faults.lies import LIES, LIES_OF, Lie, Truth, lines
from tests.intake.signed_provider import CHUNK, SignedProvider, both
from tests.merkle.test_refusals import TABLES

SENT = some_bytes(6 * CHUNK_BYTES + 12_345)
FETCHED = some_bytes(4 * CHUNK + 5)
LARGE = some_bytes(257 * CHUNK)  # so that a whole tile lies below the edge
ABOUT_A_PROVIDER = [about for about in LIES_OF if "receipt" not in about]
# Refusals of signed objects that no single lie at a door can meet: of time, of order, of what is not asked for there.
ELSEWHERE = {
    "claim-v", "claim-iss", "claim-at", "claim-from", "claim-to", "claim-flows", "claim-totals", "claim-peer", "claim-clos",
    "claim-ends", "claim-own", "claim-lines", "jws-length",
    "jws-key-ended", "manifest-issuer", "receipt-issuer", "receipt-pending", "sequence-stale", "sequence-conflict",
    "account-complete", "account-disputed", "records-differ", "ack-issuer", "ack-stale", "ack-conflict", "restored-behind",
    "totals-differ", "flows-twice", "header-length",
}  # fmt: skip


def test_more_than_two_hundred_are_told_and_no_refusal_of_the_product_is_left_out():
    assert len(LIES) > 400
    promised = ("receipt", "first receipt", "checkpoint", "tile", "lower tile")
    assert sum(len(LIES_OF[about]) for about in promised) >= 200
    assert len({(lie.about, lie.code) for lie in LIES if lie.about in promised}) >= 75
    assert list(lines())[-1].startswith(f"{len(LIES)} lies, ")
    assert len({(lie.about, lie.name) for lie in LIES}) == len(LIES)
    told = {lie.code for lie in LIES}
    assert len(told) > 100
    ours = {code for code in CODES if not code.startswith(("statement-", "list-", "closing-"))}
    assert ours - told == ELSEWHERE - {"claim-v"}
    assert told - ours <= {code for rows in TABLES.values() for _, code in rows.values()} | {
        "header-other",
        "header-leaf",
        "checkpoint-other-tree",
        "receipts-origin",
    }


@pytest.mark.slow
@pytest.mark.asyncio
async def test_what_a_consumer_lies_about_is_refused_and_its_account_stays_as_it_was(tmp_path: Path):
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, **WINDOW) as rig, aiohttp.ClientSession() as http:
        await rig.publish(SENT)
        consumer = Consumer(rig, http)
        await consumer.begin()
        first = Truth(jws.claims_of(consumer.receipt()), CONSUMER, Receipt.TYP)
        wrong = [*await _told(consumer, LIES_OF["first receipt"], first)]
        await consumer.sign()
        await consumer.sign((1, 3), microseconds=10)
        before = await rig.store.metered(TRANSFER)
        assert before is not None
        true = consumer.receipt((1, 4), microseconds=20)
        fifth = leaf_hash(SENT[4 * CHUNK_BYTES : 5 * CHUNK_BYTES])
        wrong += await _told(consumer, LIES_OF["receipt"], Truth(jws.claims_of(true), CONSUMER, Receipt.TYP, before.receipt, root=fifth))
        assert wrong == []
        assert len(await rig.store.receipts(TRANSFER)) == 2
        assert (await consumer.post(true))[0] == 200, "the truth is taken all the same"


async def _told(consumer: Consumer, lies: Sequence[Lie], truth: Truth) -> list[str]:
    """Tell them, and say which were not refused as they have to be."""
    store, wrong = consumer.rig.store, list[str]()
    before = await store.metered(TRANSFER)
    assert before is not None
    for lie in lies:
        status, body = await consumer.post(lie.told(truth).decode("latin-1"))
        told = orjson.loads(body)
        if status not in (409, 422) or told["code"] != lie.code or told["type"] != f"urn:qiao:problem:{lie.code}":
            wrong.append(f"{lie.name}: {status} `{told.get('code')}`, not `{lie.code}`")
        elif told["ack"] != (before.ack or None):
            wrong.append(f"{lie.name}: refused without the latest ack")
        if await store.metered(TRANSFER) != before:
            return [*wrong, f"{lie.name}: it has changed the account"]
    return wrong


@pytest.mark.slow
@pytest.mark.asyncio
async def test_receipts_that_are_replayed_reordered_or_contradict_each_other(tmp_path: Path):
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, **WINDOW) as rig, aiohttp.ClientSession() as http:
        await rig.publish(SENT)
        consumer = Consumer(rig, http)
        await consumer.begin()
        acks = [(await _sent(consumer)), (await _sent(consumer, (1, 2))), (await _sent(consumer, (1, 3)))]
        for token, ack in acks:
            assert await consumer.post(token) == (200, ack), "a replay is answered as the first time, and counts for nothing"
        before = await rig.store.metered(TRANSFER)
        assert before is not None
        assert before.counts.bytes == 2 * CHUNK_BYTES
        at = consumer.account
        fourth = consumer.receipt((1, 4))
        consumer.account = replace(at, sequence=4, receipt=fourth, ack="x", ranges=((1, 4),))
        fifth = consumer.receipt((1, 5))
        assert _refused(await consumer.post(fifth)) == (409, "sequence-gap"), "the fifth before the fourth"
        consumer.account = replace(at, sequence=1, receipt=acks[0][0], ranges=(), counts=Counts())
        contradiction = consumer.receipt((1, 3))
        assert _refused(await consumer.post(contradiction)) == (409, "sequence-conflict")
        assert _refused(await consumer.post(fourth)) == (409, "account-disputed")
        after = await rig.store.metered(TRANSFER)
        assert after is not None
        assert (after.counts, after.ranges, after.status) == (before.counts, before.ranges, "disputed")


async def _sent(consumer: Consumer, *verified: tuple[int, int]) -> tuple[str, bytes]:
    await consumer.sign(*verified)
    return consumer.account.receipt, consumer.account.ack.encode()


def _refused(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], orjson.loads(answer[1])["code"]


@pytest.mark.slow
@pytest.mark.parametrize("about", ABOUT_A_PROVIDER)
@pytest.mark.asyncio
async def test_what_a_provider_lies_about_is_refused_and_nothing_is_kept_or_signed_for(
    about: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.05)
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 0.05)
    monkeypatch.setattr(account, "FIRST_PAUSE_SECONDS", 0.001)
    wrong: list[str] = []
    for number, lie in enumerate(LIES_OF[about]):
        (tmp_path / str(number)).mkdir()
        content, opened_first = LARGE if about == "lower tile" else FETCHED, about == "ack"
        async with both(tmp_path / str(number), content, after="write", required=opened_first) as (one, consumer):
            one.lies["receipts" if about == "ack" else about.rsplit(maxsplit=1)[-1]] = _telling(lie)
            if about == "ack":
                one.lies["ack"] = one.lies.pop("receipts")
            try:
                await consumer.fetch()
            except Broken as error:
                if error.code != lie.code:
                    wrong.append(f"{lie.name}: `{error.code}`, not `{lie.code}`: {error.message}")
            except Exception as error:
                wrong.append(f"{lie.name}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{lie.name}: it was believed")
            opened = [receipt for receipt in one.receipts if about != "ack" or receipt.sequence > 2]
            if consumer.out.exists() or any(receipt.ranges for receipt in opened):
                wrong.append(f"{lie.name}: something of it was kept or signed for")
    assert wrong == []


def _telling(lie: Lie) -> Callable[[SignedProvider, web.Request], web.Response | None]:
    def tell(one: SignedProvider, request: web.Request) -> web.Response | None:
        truth = _truth(lie.about, one, request)
        return None if truth is None else web.Response(body=lie.told(truth))

    return tell


def _truth(about: str, one: SignedProvider, request: web.Request) -> Truth | None:
    shape: Mapping[str, Any] = {"by": PROVIDER, "origin": one.manifest.log.origin, "size": one.layout.leaves, "root": one.root}
    match about:
        case "manifest":
            return Truth(one.manifest.claims(), typ=Manifest.TYP, **shape)
        case "ack":
            if len(one.receipts) < 2:
                return None
            return Truth(kept(Ack, one.account.ack).claims(), typ=Ack.TYP, **shape)
        case "header":
            return Truth({}, entry=one.header.entry, **shape)
        case "checkpoint":
            assert Checkpoint(one.layout.leaves, one.root).size == shape["size"]
            return Truth({}, **shape)
    tile = read_path(request.match_info["path"])
    if about == "lower tile" and (tile.level, tile.width) != (0, 256):
        return None
    return Truth({}, entry=write_tile(tile, lambda *node: one.nodes[node]), **shape)
