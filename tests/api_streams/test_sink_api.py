"""The sink's door: who may bring what, and everything else is refused before a byte of it is kept."""

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.api_streams import sink_api
from connector.dataplane.edr import Grant
from connector.dsp.messages import Kind
from connector.errors import EgressDenied
from connector.records import Changes
from connector.values import replace
from tests.dataplane.rig import PROVIDER, STRANGER, some_bytes
from tests.dataplane_push.stand import OURS, Stand, stand

CONTENT = some_bytes(300_000)
ADDRESS = {"Content-Range": f"bytes */{len(CONTENT)}", "Content-Type": "application/json"}

pytestmark = pytest.mark.asyncio


async def ask(
    at: Stand, method: str = "PUT", body: bytes = b"", *, token: bool = True, **headers: str
) -> tuple[int, Mapping[str, str], Any]:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as http:
        sent = (at.headers() if token else {}) | said
        async with http.request(method, at.endpoint, data=io.BytesIO(body), headers=sent) as answer:
            return answer.status, answer.headers, await answer.json() if answer.content_type.endswith("json") else None


async def waited(at: Stand) -> asyncio.Task[Any]:
    """An order that waits for what is brought."""
    task = asyncio.create_task(at.receive())
    async with asyncio.timeout(10):
        while at.downloads.receptions.of(OURS) is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    return task


async def gone(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_sink_that_nobody_waits_at_asks_for_patience(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        status, headers, _ = await ask(at, "HEAD")
        assert (status, headers["Retry-After"]) == (503, "2")


async def test_a_token_opens_the_sink_of_its_transfer_to_its_provider_and_nothing_else(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        task = await waited(at)
        grant = Grant(OURS, STRANGER, "urn:agreement", "urn:dataset", 0)
        other = Grant("urn:uuid:other", PROVIDER, "urn:agreement", "urn:dataset", 0)
        for wrong in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": f"Bearer {at.tokens.access(grant)[0]}"},
            {"Authorization": f"Bearer {at.tokens.access(other)[0]}"},
            {"Authorization": f"Bearer {at.tokens.refresh(Grant(OURS, PROVIDER, 'urn:agreement', 'urn:dataset', 0))}"},
            at.rig.authorization(),
        ):
            status, _, _ = await ask(at, "HEAD", token=False, **wrong)
            assert status == 401, wrong
        status, headers, _ = await ask(at, "HEAD")
        assert (status, sink_api.RECEIPTS_RELATION in headers["Link"]) == (204, True)
        await gone(task)


BAD: list[tuple[str, bytes, dict[str, str], int]] = [
    ("a coding", b"x", {"Content_Encoding": "gzip"}, 415),
    ("a range of another length", b"xyz", {"Content_Range": "bytes 0-1/10"}, 400),
    ("a range that is none", b"xyz", {"Content_Range": "bytes x-y/z"}, 400),
    ("a size that is none", b"", {"Content_Range": "bytes */x"}, 400),
    ("a size that is too long", b"", {"Content_Range": "bytes */" + "9" * 30}, 400),
    ("a size in digits that nobody counts with", b"", {"Content_Range": "bytes */\u00b2"}, 400),
    ("an ack in letters that no ack has", b"", {"Content_Range": "bytes */10", "Qiao_Ack": "\u00e4.b.c"}, 400),
    ("an address that is no JSON", b"xyz", ADDRESS, 400),
    ("an address of nothing", b"{}", ADDRESS, 400),
    ("an address that is a text", b'{"dataAddress": "x"}', ADDRESS, 400),
    ("an address of another kind", b"{}", ADDRESS | {"Content-Type": "text/plain"}, 415),
    ("an address that is too large", b"x" * 20_000, ADDRESS, 413),
    ("an address that is not the one that was named", b"{}", ADDRESS | {"Content-Digest": "sha-256=:AAAA:"}, 401),
    ("an ack that is too long", b"", {"Content_Range": "bytes */10", "Qiao_Ack": "x" * 70_000}, 400),
]


@pytest.mark.parametrize(("_what", "body", "headers", "status"), BAD, ids=[each[0] for each in BAD])
async def test_what_is_no_request_to_a_sink_is_refused(tmp_path: Path, _what: str, body: bytes, headers: dict[str, str], status: int):
    async with stand(tmp_path, CONTENT) as at:
        task = await waited(at)
        found, _, _ = await ask(at, body=body, **headers)
        assert found == status
        assert not task.done()
        await gone(task)


async def test_a_body_of_unknown_length_is_refused(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        task = await waited(at)

        async def endless() -> Any:
            yield b"x"

        async with aiohttp.ClientSession() as http, http.put(at.endpoint, data=endless(), headers=at.headers()) as answer:
            assert answer.status == 400
        await gone(task)


async def test_an_address_that_we_do_not_dial_ends_the_order_and_nothing_is_kept(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        task = await waited(at)
        body = b'{"dataAddress": {"endpoint": "http://10.1.2.3/data/x"}}'
        status, _, _ = await ask(at, body=body, **ADDRESS)
        assert status == 503
        with pytest.raises(EgressDenied, match="not at a public address"):
            await task
        assert list(at.root.glob("*")) == []


async def test_a_transfer_that_does_not_run_takes_nothing(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        task = await waited(at)
        process = await at.store.process(Kind.TRANSFER, OURS)
        assert process is not None
        await at.store.commit(Changes(saves=(replace(process, state="SUSPENDED", version=process.version + 1),)))
        status, _, _ = await ask(at, "HEAD")
        assert status == 403
        await gone(task)


async def test_other_methods_are_not_taken(tmp_path: Path):
    async with stand(tmp_path, CONTENT) as at:
        for method in ("GET", "DELETE", "PATCH"):
            status, headers, _ = await ask(at, method)
            assert (status, headers["Allow"]) == (405, "HEAD, PUT")
