"""What a provider has signed is one promise for this very transfer, or it is refused with the code of the rule that it breaks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from connector.intake import account, patience
from connector.intake.beside import Beside
from connector.intake.promise import Broken
from connector.merkle import checkpoints, notes
from connector.merkle.tiles import read_path, write_tile
from connector.metering.content import Header
from connector.metering.objects import ContentLog, Manifest
from connector.signatures import jws
from tests.dataplane.rig import PROVIDER, STRANGER, key_of, some_bytes
from tests.intake.signed_provider import CHUNK, SignedProvider, both, of_both

CONTENT = some_bytes(4 * CHUNK + 5)

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.05)
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 0.05)


CHANGED: list[tuple[str, Callable[[SignedProvider], dict[str, Any]]]] = [
    ("manifest-issuer", lambda _: {"issuer": STRANGER}),
    ("manifest-audience", lambda _: {"audience": STRANGER}),
    ("manifest-agreement", lambda _: {"agreement": "urn:uuid:other"}),
    ("manifest-policy", lambda _: {"policy": bytes(32)}),
    ("manifest-transfer", lambda _: {"consumer_pid": "urn:uuid:other"}),
    ("manifest-transfer", lambda _: {"provider_pid": "urn:uuid:other"}),
    ("manifest-dataset", lambda _: {"dataset": "urn:other"}),
    ("manifest-prices", lambda _: {"prices": bytes(32)}),
    ("receipts-origin", lambda p: {"receipts": "http://127.0.0.1:9/data/1/receipts"}),
    ("manifest-ahead", lambda p: {"issued": p.manifest.issued + 1000, "expires": p.manifest.expires + 1000}),
    ("manifest-ended", lambda p: {"issued": p.manifest.issued - 1000, "expires": p.manifest.issued - 10}),
    ("header-other", lambda p: {"log": ContentLog(p.manifest.log.origin, CHUNK, p.root, len(CONTENT) + 1)}),
    ("header-other", lambda p: {"unit": "line"}),
    ("checkpoint-other-tree", lambda p: {"log": ContentLog(p.manifest.log.origin, CHUNK, bytes(32), len(CONTENT))}),
    ("checkpoint-other-origin", lambda p: {"log": ContentLog("hospital.example/ds/s2", CHUNK, p.root, len(CONTENT))}),
]


@pytest.mark.parametrize(("code", "changed"), CHANGED, ids=[f"{n} {code}" for n, (code, _) in enumerate(CHANGED)])
async def test_a_manifest_that_is_not_the_one_of_this_transfer_is_refused(
    tmp_path: Path, code: str, changed: Callable[[SignedProvider], dict[str, Any]]
):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        note = provider.checkpoint()
        provider.manifest_changes = changed(provider)
        provider.begin()
        if code == "checkpoint-other-origin":
            provider.lies["checkpoint"] = lambda *_: web.Response(body=_of_another_log(provider))
        elif code.startswith("checkpoint"):
            provider.lies["checkpoint"] = lambda *_: web.Response(body=note)
        with pytest.raises(Broken) as caught:
            await consumer.fetch()
        assert caught.value.code in (code, "jws-issuer")
        assert provider.receipts == []
        assert not consumer.out.exists()


async def test_header_checkpoint_and_edge_are_asked_for_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    together = asyncio.Barrier(3)

    def meets(ask: Callable[..., Any]) -> Callable[..., Any]:
        async def asked(*whom: Any) -> bytes:
            await together.wait()
            found: bytes = await ask(*whom)
            return found

        return asked

    for name in ("header", "checkpoint", "tile"):
        monkeypatch.setattr(Beside, name, meets(getattr(Beside, name)))
    async with both(tmp_path, CONTENT) as (provider, consumer), asyncio.timeout(20):
        await consumer.fetch()
        of_both(provider, await consumer.account())


def _of_another_log(provider: SignedProvider) -> bytes:
    """Signed for under the name that is asked for, and about another."""
    key, name = key_of(PROVIDER), provider.manifest.log.origin
    text = checkpoints.Checkpoint("hospital.example/ds/s1", provider.layout.leaves, provider.root).text
    signer = notes.Signer(notes.VerifierKey(name, key.key.public), lambda message: jws.crypto_sign(message, key.secret)[:64])
    return notes.signed(text, [signer])


def _flip(data: bytes, at: int = 40) -> bytes:
    changed = bytearray(data)
    changed[at % len(changed)] ^= 1
    return bytes(changed)


def _signed(claims: dict[str, Any]) -> bytes:
    return jws.sign(claims, key_of(PROVIDER), Manifest.TYP).encode()


LIES: list[tuple[str, str, Callable[[SignedProvider], bytes], tuple[str, ...]]] = [
    ("forged manifest", "manifest", lambda p: _flip(p.token.encode(), -3), ("jws-signature",)),
    ("foreign manifest", "manifest", lambda p: jws.sign(p.manifest.claims(), key_of(STRANGER), Manifest.TYP).encode(), ("jws-kid",)),
    ("other kind", "manifest", lambda p: jws.sign(p.manifest.claims(), key_of(PROVIDER), "dp-receipt+jwt").encode(), ("jws-typ",)),
    (
        "more claims",
        "manifest",
        lambda p: jws.sign(p.manifest.claims() | {"x": 1}, key_of(PROVIDER), Manifest.TYP).encode(),
        ("claims-unknown",),
    ),
    ("no manifest", "manifest", lambda _: b"", ("jws-parts",)),
    ("other salt", "header", lambda p: Header(CHUNK, len(CONTENT), p.media_type, "none", b"t" * 32).entry, ("header-leaf",)),
    ("no header", "header", lambda _: b"{}", ("header-members",)),
    ("forged checkpoint", "checkpoint", lambda p: _flip(p.checkpoint(), 30), ("note-signature", "checkpoint-root", "signature")),
    ("smaller tree", "checkpoint", lambda p: p.checkpoint(size=2), ("checkpoint-other-tree",)),
    ("no checkpoint", "checkpoint", lambda _: b"", ("note",)),
    ("forged tile", "tile", lambda _: bytes(6 * 32), ("tile-root",)),
    ("short tile", "tile", lambda _: bytes(31), ("tile-length",)),
]


@pytest.mark.parametrize(("name", "what", "told", "codes"), LIES, ids=[name for name, *_ in LIES])
async def test_what_does_not_follow_from_a_signature_is_refused(
    tmp_path: Path, name: str, what: str, told: Callable[[SignedProvider], bytes], codes: tuple[str, ...]
):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies[what] = lambda *_: web.Response(body=told(provider))
        with pytest.raises(Broken, match="what the provider has signed does not hold") as caught:
            await consumer.fetch()
        assert any(code in caught.value.code for code in codes), (name, caught.value.code)
        assert provider.receipts == []


@pytest.mark.parametrize("what", ["manifest", "header", "checkpoint", "tile", "ack"])
async def test_what_came_with_a_flipped_bit_comes_right_when_it_is_asked_for_again(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(account, "FIRST_PAUSE_SECONDS", 0.01)
    async with both(tmp_path, CONTENT) as (provider, consumer):
        flips = [400, -3]  # in the middle of what is signed, and in the signature

        def flipped(_: SignedProvider, request: web.Request) -> web.Response | None:
            if not flips:
                return None
            bodies = {
                "manifest": provider.token.encode,
                "header": lambda: provider.header.entry,
                "checkpoint": provider.checkpoint,
                "tile": lambda: write_tile(read_path(request.match_info["path"]), lambda level, n: provider.nodes[level, n]),
                "ack": provider.account.ack.encode,
            }
            return web.Response(body=_flip(bodies[what](), flips.pop()))

        provider.lies[what] = flipped
        await consumer.fetch()
        assert (flips, consumer.out.read_bytes() == CONTENT) == ([], True)
        of_both(provider, await consumer.account())


async def test_a_manifest_that_lies_ahead_is_asked_for_again_until_the_clocks_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "CLOCK_SECONDS", 3600.0)
    async with both(tmp_path, CONTENT) as (provider, consumer):
        now, asked = provider.manifest.issued, provider.asked
        provider.manifest_changes = {"issued": now + 3600, "expires": now + 7200}
        provider.begin()

        def mended(*_: object) -> None:
            if asked["GET manifest"] == 3:
                provider.manifest_changes = {}
                provider.begin()

        provider.lies["manifest"] = mended
        await consumer.fetch()
        assert asked["GET manifest"] == 3
        of_both(provider, await consumer.account())


async def test_what_is_not_there_yet_is_waited_for(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        missing = ["manifest", "header", "checkpoint", "tile", "receipts"]

        def later(what: str) -> Callable[..., web.Response | None]:
            return lambda *_: web.Response(status=503) if what in missing and not missing.remove(what) else None  # type: ignore[func-returns-value]

        for what in tuple(missing):
            provider.lies[what] = later(what)
        await consumer.fetch()
        assert (missing, consumer.out.read_bytes() == CONTENT) == ([], True)


async def test_data_that_change_under_a_manifest_are_not_taken_for_what_it_names(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.etag = provider.etag.replace("r.", "r.A")
        with pytest.raises(Exception, match="changed at the provider"):
            await consumer.fetch(patience_seconds=0.05)
        assert not consumer.out.exists()
