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
from connector.settings_fields import EdrSettings
from tests import pair
from tests.dataplane.reader import reading
from tests.dataplane.rig import some_bytes

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
    end = float(int(time.time()) + 2)
    return pair.until_policy(datetime.fromtimestamp(end, UTC).isoformat().replace("+00:00", "Z")), end


@pytest.mark.parametrize("how", ["the operator suspends", "the peer suspends", "the peer terminates", "the policy ends"])
@pytest.mark.asyncio
async def test_what_ends_a_transfer_at_the_control_plane_cuts_its_stream_within_a_second(how: str, tmp_path: Path):
    policy, end = soon()
    async with started(tmp_path, some_bytes(SIZE_BYTES), policy=policy if how == "the policy ends" else pair.OPEN) as transfer:
        url, authorization = transfer.address
        async with reading(url, authorization) as reader:
            await reader.take(300_000)
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
            assert end <= over <= end + CUT_SECONDS
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
