"""What lies beside the data is asked for with the data's token, bounded, and refused by its status."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest

from connector.errors import PeerFailed, PeerRefused
from connector.intake.access import Access
from connector.intake.beside import Beside, code_of, problem_code
from connector.intake.heads import NotNow, Unfit
from connector.merkle.tiles import Tile
from connector.ports import Reply
from connector.records import Edr
from tests.dataplane.rig import CONSUMER, PROVIDER, FakeIdentity, ShiftedClock

pytestmark = pytest.mark.asyncio


@dataclass
class Peer:
    """Answers as it is told, and keeps what it was asked."""

    replies: list[Reply] = field(default_factory=list)
    asked: list[tuple[str, str, Mapping[str, str], bytes | None, int | None]] = field(default_factory=list)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        self.asked.append((method, url, headers, body, limit_bytes))
        return self.replies.pop(0)


def beside(peer: Peer, endpoint: str = "https://p.example/data/1?secret=2", renewals: str | None = None) -> Beside:
    address = {"@type": "DataAddress", "endpointType": "HttpData", "endpoint": endpoint, "endpointProperties": []}
    edr = Edr("t", address, "token", "refresh" if renewals else None, renewals, None)

    async def renewed(_edr: Edr) -> None:
        """Nothing is stored here."""

    return Beside(Access(edr, PROVIDER, peer=peer, identity=FakeIdentity(CONSUMER), clock=ShiftedClock(), renewed=renewed), peer)  # type: ignore[arg-type]


async def test_each_has_its_place_below_the_data_and_a_bound_on_its_size():
    peer = Peer([Reply(200, {}, b"x")] * 6)
    at = beside(peer)
    assert await at.manifest() == "x"
    await at.manifest("https://p.example/elsewhere")
    await at.header()
    await at.checkpoint()
    await at.tile(Tile(1, 1234))
    await at.receipts("https://p.example/r")
    assert [url.removeprefix("https://p.example") for _, url, *_ in peer.asked] == [
        "/data/1/manifest", "/elsewhere", "/data/1/header", "/data/1/checkpoint", "/data/1/tile/1/x001/234", "/r",
    ]  # fmt: skip
    assert {headers["Authorization"] for _, _, headers, *_ in peer.asked} == {"Bearer token"}
    assert all(limit is not None and limit <= 131_072 for *_, limit in peer.asked)


@pytest.mark.parametrize(("status", "error"), [(404, PeerRefused), (401, PeerRefused), (206, PeerRefused), (503, NotNow), (429, NotNow)])
async def test_what_is_not_there_or_not_now_is_said(status: int, error: type[PeerFailed]):
    peer = Peer([Reply(status, {"retry-after": "7"}, b"")])
    with pytest.raises(error, match=f"status {status}") as caught:
        await beside(peer).header()
    assert getattr(caught.value, "retry_after_seconds", 7.0) == 7.0


@pytest.mark.parametrize("status", [200, 404, 409, 422])
async def test_an_answer_to_a_receipt_is_an_answer_whatever_it_says(status: int):
    peer = Peer([Reply(status, {}, b"said")])
    reply = await beside(peer).post("https://p.example/r", "a.b.c")
    assert (reply.status, reply.body) == (status, b"said")
    method, url, headers, body, _ = peer.asked[0]
    assert (method, url, headers["Content-Type"], body) == ("POST", "https://p.example/r", "application/jwt", b"a.b.c")


@pytest.mark.parametrize(("status", "error"), [(503, NotNow), (401, PeerRefused)])
async def test_a_receipt_that_was_not_looked_at_is_no_answer(status: int, error: type[PeerFailed]):
    with pytest.raises(error):
        await beside(Peer([Reply(status, {}, b"")])).post("https://p.example/r", "a.b.c")


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_refusal_says_the_code_that_the_provider_gave(status: int):
    said = b'{"type":"urn:qiao:problem:signature-old"}'
    with pytest.raises(PeerFailed, match=f"status {status}, `signature-old`"):
        await beside(Peer([Reply(status, {}, said)])).header()


class Incoming:
    """A streamed answer whose body a test gives."""

    def __init__(self, status: int, *pieces: bytes | Exception) -> None:
        self.status, self.headers, self._pieces = status, {}, pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.mark.parametrize(
    ("incoming", "code"),
    [
        (Incoming(403, b'{"code":', b'"receipt-required"}'), "receipt-required"),
        (Incoming(200, b'{"code":"data"}'), None),
        (Incoming(403, b" " * 20_000, b'{"code":"late"}'), None),
        (Incoming(403, b'{"code":"cut"}', PeerFailed("cut")), None),
    ],
)
async def test_the_code_of_a_streamed_refusal_is_read_within_bounds(incoming: Incoming, code: str | None):
    assert await code_of(incoming) == code  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["https://p.example/r", "https://p.example:443/r"])
async def test_the_origin_of_the_data_gets_the_token(url: str):
    beside(Peer([])).demand_here(url, "a place")


@pytest.mark.parametrize("url", ["https://q.example/r", "http://p.example/r", "https://p.example:444/r"])
async def test_no_other_origin_gets_the_token(url: str):
    with pytest.raises(Unfit, match="names a place at another origin"):
        beside(Peer([])).demand_here(url, "a place")


async def test_a_token_that_has_ended_is_renewed_once():
    fresh = b'{"access_token":"fresh","token_type":"Bearer","expires_in":300}'
    peer = Peer([Reply(401, {}, b""), Reply(200, {}, fresh), Reply(200, {}, b"header")])
    assert await beside(peer, renewals="https://p.example/token").header() == b"header"
    assert [headers["Authorization"] for _, url, headers, *_ in peer.asked if url.endswith("/header")] == ["Bearer token", "Bearer fresh"]


async def test_a_manifest_of_other_characters_is_none():
    with pytest.raises(PeerFailed, match="not a JWS"):
        await beside(Peer([Reply(200, {}, "é".encode())])).manifest()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"code":"sequence-gap","type":"urn:x:other"}', "sequence-gap"),
        (b'{"type":"urn:qiao:problem:receipt-required"}', "receipt-required"),
        (b'{"type":"about:blank","code":7}', None),
        (b'{"type":"about:blank","status":404}', None),
        (b'{"type":"https://p.example/urn:qiao:problem:gone"}', None),
        (b'{"code":"404"}', None),
        (b'{"code":"A B"}', None),
        (b'{"code":"' + b"x" * 65 + b'"}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"", None),
        (b"{}", None),
    ],
)
async def test_the_code_of_a_refusal_is_read_if_it_is_one(body: bytes, code: str | None):
    assert problem_code(body) == code
