"""The data plane of a connector as it is composed, and a consumer that a test scripts: what is decided there ends streams here."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector import app
from connector.dataplane.edr import read_address
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.records import Agreement, Changes
from connector.settings.fields import EdrSettings
from tests import pair
from tests.dataplane.reader import reading
from tests.dataplane.rig import some_bytes
from tests.faults.patience import own_time

SIZE_BYTES = 8 * 1024 * 1024  # more than both kernels and the readers hold: the stream is in its middle
CUT_SECONDS = 1.0  # the promise


@dataclass
class Transfer:
    """A transfer that we, the provider, have started for the scripted peer."""

    desk: pair.Desk
    pid: str
    peer_pid: str
    document: dict[str, Any]

    @property
    def address(self) -> tuple[str, dict[str, str]]:
        read = read_address(self.document["dataAddress"])
        return read.endpoint, {"Authorization": f"Bearer {read.access_token}"}

    async def say(self, move: Move, **members: Any) -> None:
        body = wire.message(move, consumer_pid=self.peer_pid, provider_pid=self.pid, **members)
        answer = await self.desk.peer.send(self.desk.us, "POST", f"/transfers/{self.pid}/{PATHS[move]}", body)
        assert answer.status == 200, answer.body


PATHS = {Move.SUSPENSION: "suspension", Move.TRANSFER_TERMINATION: "termination", Move.COMPLETION: "completion"}
WORDS = {"code": "X", "reason": ["because"]}


@asynccontextmanager
async def started(root: Path, content: bytes, *, policy: Any = pair.OPEN, **sections: Any) -> AsyncIterator[Transfer]:
    async with pair.desk(root, approver=app.Automatic(0), **sections) as desk:
        await desk.us.publish("urn:test:dataset", policy, content=content)
        agreed: Agreement = pair.agreement(desk.us, desk.peer, Role.PROVIDER, policy=policy)
        await desk.us.connector.journal.commit(Changes(saves=(agreed,)))
        theirs = pair.fresh()
        body = wire.message(
            Move.TRANSFER_REQUEST, consumer_pid=theirs, agreementId=agreed.id, format="HttpData-PULL", callbackAddress=desk.peer.site.base
        )
        answer = await desk.peer.send(desk.us, "POST", "/transfers/request", body)
        assert answer.status == 201, answer.body
        yield Transfer(desk, answer.json["providerPid"], theirs, await desk.peer.heard("/start"))


def soon() -> tuple[Any, float]:
    """A policy that ends soon, and when."""
    end = float(int(time.time()) + 3)
    return pair.until_policy(datetime.fromtimestamp(end, UTC).isoformat().replace("+00:00", "Z")), end


@pytest.mark.parametrize("how", ["the operator suspends", "the peer suspends", "the peer terminates", "the policy ends"])
@pytest.mark.asyncio
async def test_what_ends_a_transfer_at_the_control_plane_cuts_its_stream_within_a_second(how: str, tmp_path: Path):
    policy, end = soon()
    async with started(tmp_path, some_bytes(SIZE_BYTES), policy=policy if how == "the policy ends" else pair.OPEN) as transfer:
        url, authorization = transfer.address
        async with reading(url, authorization) as reader:
            await reader.take(300_000)
            within = own_time()
            match how:
                case "the operator suspends":
                    end = time.time()
                    await transfer.desk.us.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/suspend", {"reason": "audit"})
                case "the peer suspends":
                    await transfer.say(Move.SUSPENSION, **WORDS)
                    end = time.time()
                case "the peer terminates":
                    await transfer.say(Move.TRANSFER_TERMINATION, **WORDS)
                    end = time.time()
            over = await reader.sip_to_the_end()
            assert end <= over <= end + within(CUT_SECONDS)
            assert len(reader.taken) < SIZE_BYTES
        async with reading(url, authorization) as again:
            assert again.status in (401, 403)  # the token itself ends with the policy


@pytest.mark.asyncio
async def test_a_transfer_that_its_consumer_never_completes_is_completed_after_full_coverage_and_a_quiet_time(tmp_path: Path):
    content, quiet = some_bytes(300_000), 0.3
    async with started(tmp_path, content, edr=EdrSettings(quiet_seconds=quiet)) as transfer:
        url, authorization = transfer.address

        async def part(range_: str) -> bytes:
            async with transfer.desk.peer.http.get(url, headers=authorization | {"Range": range_}) as answer:
                return await answer.read()

        assert await part("bytes=0-199999") == content[:200_000]
        assert (await transfer.desk.us.connector.store.process(Kind.TRANSFER, transfer.pid)).state == "STARTED"
        assert await part("bytes=200000-") == content[200_000:]
        last = time.time()
        done: Process = await transfer.desk.us.state(Kind.TRANSFER, transfer.pid, "COMPLETED")
        assert time.time() - last >= quiet * 0.9
        assert await transfer.desk.peer.heard("/completion")
        assert done.final
        with pytest.raises(aiohttp.ClientResponseError, match="403"):
            await transfer.desk.peer.http.get(url, headers=authorization, raise_for_status=True)


@pytest.mark.parametrize("answer", [503, 400])
@pytest.mark.asyncio
async def test_a_suspension_counts_at_once_whatever_the_peer_says_to_it(answer: int, tmp_path: Path):
    def deaf(_method: str, path: str, _document: dict[str, Any]) -> tuple[int, None] | None:
        return (answer, None) if path.endswith("/suspension") else None

    async with started(tmp_path, some_bytes(SIZE_BYTES)) as transfer:
        us, peer = transfer.desk.us, transfer.desk.peer
        peer.script = deaf
        url, authorization = transfer.address
        async with reading(url, authorization) as reader:
            await reader.take(300_000)
            begun, within = time.time(), own_time()
            await us.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/suspend", {"reason": "audit"})
            assert begun <= await reader.sip_to_the_end() <= begun + within(CUT_SECONDS)
        if answer == 400:  # refused for good: the state stays as the standard has it, and the door stays shut
            stays = await us.until(Kind.TRANSFER, transfer.pid, lambda p: p.in_flight is None)
            assert (stays.state, stays.meant) == ("STARTED", "SUSPENDED")
        async with reading(url, authorization) as again:
            assert again.status == 403
        if answer == 400:
            await us.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/resume")
            async with reading(url, authorization) as again:
                assert again.status == 200


@pytest.mark.asyncio
async def test_an_end_counts_at_once_even_if_the_peer_is_away(tmp_path: Path):
    async with started(tmp_path, some_bytes(SIZE_BYTES)) as transfer:
        transfer.desk.peer.script = lambda _method, path, _document: (503, None) if path.endswith("/termination") else None
        url, authorization = transfer.address
        async with reading(url, authorization) as reader:
            await reader.take(300_000)
            begun, within = time.time(), own_time()
            await transfer.desk.us.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/terminate", {"reason": "audit"})
            assert begun <= await reader.sip_to_the_end() <= begun + within(CUT_SECONDS)
        async with reading(url, authorization) as again:
            assert again.status == 403


@pytest.mark.asyncio
async def test_the_rest_of_what_a_consumer_has_already_covers_the_whole(tmp_path: Path):
    """After a restart of ours the first half was sent by nobody that still knows; whoever continues it has it."""
    content = some_bytes(300_000)
    async with started(tmp_path, content, edr=EdrSettings(quiet_seconds=0.2)) as transfer:
        url, authorization = transfer.address
        async with transfer.desk.peer.http.head(url, headers=authorization) as head:
            tag = head.headers["ETag"]
        more = authorization | {"Range": "bytes=200000-", "If-Range": tag}
        async with transfer.desk.peer.http.get(url, headers=more) as answer:
            assert await answer.read() == content[200_000:]
        await transfer.desk.us.state(Kind.TRANSFER, transfer.pid, "COMPLETED")


@pytest.mark.asyncio
async def test_what_is_read_before_our_start_was_answered_counts(tmp_path: Path):
    content = some_bytes(10_000)
    held: list[str] = []

    def slow(_method: str, path: str, _document: dict[str, Any]) -> tuple[int, None] | None:
        if path.endswith("/start") and not held:
            held.append(path)
            return 503, None
        return None

    async with pair.desk(tmp_path, approver=app.Automatic(0), edr=EdrSettings(quiet_seconds=0.2)) as desk:
        await desk.us.publish("urn:test:dataset", content=content)
        agreed = pair.agreement(desk.us, desk.peer, Role.PROVIDER)
        await desk.us.connector.journal.commit(Changes(saves=(agreed,)))
        desk.peer.script = slow
        body = wire.message(
            Move.TRANSFER_REQUEST,
            consumer_pid=pair.fresh(),
            agreementId=agreed.id,
            format="HttpData-PULL",
            callbackAddress=desk.peer.site.base,
        )
        answer = await desk.peer.send(desk.us, "POST", "/transfers/request", body)
        pid = answer.json["providerPid"]
        read = read_address((await desk.peer.heard("/start"))["dataAddress"])
        async with desk.peer.http.get(read.endpoint, headers={"Authorization": f"Bearer {read.access_token}"}) as got:
            assert await got.read() == content
        await desk.us.state(Kind.TRANSFER, pid, "COMPLETED")
