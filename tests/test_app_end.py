"""The end of a connector, in this process and as a process of its own: what runs finishes, what waits goes home, nothing is lost."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from connector import app
from connector.app_end import DATA, drain, until
from connector.dataplane.flows import Flows
from connector.dsp.messages import Kind, Role
from connector.errors import ProfilesUnread, Withdrawn
from connector.settings.fields import LimitsSettings, MeteringSettings
from connector.values import replace
from tests import pair
from tests.api.conftest import DOOR
from tests.control.orders import BIG, under_way, upstream
from tests.dataplane.reader import connected, head, reading, request
from tests.dataplane.rig import ShiftedClock, some_bytes
from tests.dataplane.test_composed import CUT_SECONDS, SIZE_BYTES, started
from tests.faults.patience import own_time
from tests.pair import TOKEN, Site, call, running, site
from tests.test_app import ended, listening
from tests.test_app_settings import toml


async def only_ops(at: Site) -> None:
    """Wait until no door but `ops` takes anybody."""
    async with asyncio.timeout(20):
        while listening(at) != ["ops"]:  # noqa: ASYNC110 - the sockets of another process have no event
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_an_order_that_was_taken_while_it_stopped_is_done_after_the_next_start(tmp_path: Path):
    one, other = (site(tmp_path / name, name, store="sqlite") for name in ("hospital", "biopharma"))
    one.meet(other)
    body = json.dumps({"peer": "hospital", "dataset": "urn:test:late", "out": str(other.root / "out" / "late")}).encode()
    async with running(one) as provider:
        await provider.publish("urn:test:late", content=b"late")
        connector = await app.start(other.settings)
        async with slow_call(other, "POST", "/v1/pulls", body) as (finish, answer):
            closing = asyncio.create_task(connector.close())
            await only_ops(other)
            finish()
            assert b"201 Created" in await answer()
            await asyncio.wait_for(closing, 5)
        assert not (other.root / "out" / "late").exists()
        async with running(other) as consumer:
            (order,) = (await consumer.asked("GET", "/pulls"))["items"]
            assert (await ended(consumer, order["id"]))["stage"] == "done"
    assert (other.root / "out" / "late").read_bytes() == b"late"


@asynccontextmanager
async def slow_call(at: Site, method: str, path: str, body: bytes) -> AsyncIterator[tuple[Any, Any]]:
    """A management call whose head was taken and whose body has only begun: how to send the rest, and how to get the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", at.settings.management.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    assert b"100 Continue" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)  # the handler runs and waits for the body
    writer.write(body[:1])
    try:
        yield lambda: writer.write(body[1:]), lambda: asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_nobody_who_waits_or_watches_holds_up_the_end(tmp_path: Path):
    at = site(tmp_path / "a", "hospital")
    connector = await app.start(at.settings)
    peer = pair.Process(
        Kind.NEGOTIATION, "urn:p", Role.PROVIDER, "did:web:x.example", "http://127.0.0.1:9", "REQUESTED", "urn:t", version=1
    )
    await connector.journal.commit(pair.Changes(saves=(peer,)))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        url = f"{at.settings.management.url}/v1"
        feed = await http.get(f"{url}/events")
        await feed.content.readuntil(b"\n\n")
        waiting = asyncio.create_task(call(http, "GET", f"{url}/negotiations/urn:p?wait=final&timeout_seconds=300"))
        assert (await call(http, "GET", f"{url}/self")).status == 200
        async with asyncio.timeout(20):
            await connector.close()
            assert (await waiting).json["state"] == "REQUESTED"
            assert await feed.content.read() is not None


# ---- streams at the end


async def readiness(at: Site) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as http:
        answer = await call(http, "GET", f"{at.settings.ops.url}/readyz")
    return answer.status, list(answer.json["faults"])


@pytest.mark.asyncio
async def test_a_stream_that_runs_at_the_end_may_finish_and_readiness_goes_first(tmp_path: Path):
    content = some_bytes(SIZE_BYTES)
    async with started(tmp_path, content) as transfer:
        us = transfer.desk.us
        async with reading(*transfer.address) as reader:
            await reader.take(300_000)
            assert await readiness(us.site) == (200, [])
            closing = asyncio.create_task(us.connector.close())
            await asyncio.sleep(0)
            assert us.connector.ops.phase == "draining"
            await only_ops(us.site)
            assert await readiness(us.site) == (503, ["draining"])
            assert await reader.all() == content
        await asyncio.wait_for(closing, 5)


@pytest.mark.asyncio
async def test_a_stream_that_is_too_long_for_the_end_is_cut_after_its_time(tmp_path: Path):
    drain = 0.4
    async with started(tmp_path, some_bytes(SIZE_BYTES), limits=LimitsSettings(drain_seconds=drain)) as transfer:
        us = transfer.desk.us
        async with reading(*transfer.address) as reader:
            await reader.take(300_000)
            begun, within = time.monotonic(), own_time()
            closing = asyncio.create_task(us.connector.close())
            await reader.sip_to_the_end()
            assert drain * 0.9 < time.monotonic() - begun < drain + within(CUT_SECONDS)
            assert len(reader.taken) < SIZE_BYTES
        await asyncio.wait_for(closing, 5)


@pytest.mark.asyncio
async def test_a_suspension_cuts_a_stream_during_the_end_too(tmp_path: Path):
    async with started(tmp_path, some_bytes(SIZE_BYTES)) as transfer:
        us = transfer.desk.us
        async with reading(*transfer.address) as reader:
            await reader.take(300_000)
            closing = asyncio.create_task(us.connector.close())
            await only_ops(us.site)
            begun, within = time.time(), own_time()
            await us.connector.operations.suspend(transfer.pid, "stop")
            assert await reader.sip_to_the_end() - begun < within(CUT_SECONDS)
            assert len(reader.taken) < SIZE_BYTES
        await asyncio.wait_for(closing, 5)


@pytest.mark.asyncio
async def test_a_stream_that_is_signed_for_on_its_way_may_finish_as_its_reader_can_still_sign(tmp_path: Path):
    """The credit is a quarter of what is still to come."""
    small = {"metering": MeteringSettings(window_bytes=262_144, credit_windows=2), "limits": LimitsSettings(drain_seconds=5.0)}
    async with upstream() as source, pair.pair(tmp_path, provider=small) as both:
        order, us = await under_way(both, source), both.provider
        closing = asyncio.create_task(us.connector.close())
        await only_ops(us.site)
        source.go_on.set()
        async with asyncio.timeout(20):
            await closing
            while (await both.consumer.asked("GET", f"/pulls/{order.id}"))["received_bytes"] < len(BIG):  # noqa: ASYNC110 - no commit
                await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_by_a_connection_that_is_open_at_the_end_no_other_stream_begins(tmp_path: Path):
    async with started(tmp_path, some_bytes(SIZE_BYTES)) as transfer:
        us, (url, authorization) = transfer.desk.us, transfer.address
        async with connected(url) as (stream, writer), reading(url, authorization) as reader:
            await reader.take(300_000)
            writer.write(request("HEAD", url, authorization))
            assert (await head(stream))[0] == 200
            closing = asyncio.create_task(us.connector.close())
            await only_ops(us.site)
            writer.write(request("GET", url, authorization))
            status, headers = await head(stream)
            assert (status, "retry-after" in headers) == (503, True)
            await reader.all()
        await asyncio.wait_for(closing, 5)


@pytest.mark.asyncio
async def test_the_door_of_the_data_has_what_its_streams_have_left_of_the_time():
    flows, left = Flows(ShiftedClock(), lambda _: None), list[float]()

    async def copy() -> None:
        with flows.running("urn:a", None, ""):
            await asyncio.Event().wait()

    async def finish(seconds: float) -> None:
        left.append(seconds)

    copying = asyncio.create_task(copy())
    await asyncio.sleep(0)
    data: Any = SimpleNamespace(door=replace(DOOR, name=DATA), drain=finish)
    lives: Any = SimpleNamespace(transfers=())
    await asyncio.wait_for(drain([data], flows, lives, 0.01), 5)
    with pytest.raises(Withdrawn):
        await copying
    assert left == [0.0], "the streams had all of it"


# ---- a process


@contextmanager
def process(path: Path, log: Path, program: tuple[str, str] = ("-m", "connector")) -> Iterator[subprocess.Popen[bytes]]:
    """`connector run` with these settings, its standard error in `log`."""
    with log.open("wb") as err:
        made = subprocess.Popen([sys.executable, *program, "run", "--config", str(path)], stderr=err, stdout=err)
        try:
            yield made
        finally:
            made.kill()
            made.wait()


def read_lines(log: Path) -> list[str]:
    return log.read_text().splitlines()


async def logged(log: Path, event: str, count: int = 1) -> dict[str, Any]:
    """The `count`-th event of that name, as soon as it is there."""
    async with asyncio.timeout(20):
        while True:
            lines = [json.loads(line) for line in await asyncio.to_thread(read_lines, log) if line.startswith("{") and line.endswith("}")]
            if len(found := [line for line in lines if line["event"] == event]) >= count:
                return dict(found[count - 1])
            await asyncio.sleep(0.02)  # a file has no event to wait for


@pytest.mark.asyncio
async def test_sigterm_lets_what_runs_finish_refuses_what_is_new_and_ends_with_zero(tmp_path: Path):
    at, log = site(tmp_path / "a", "hospital"), tmp_path / "log"
    (at.root / "data" / "f").write_text("data")
    body = json.dumps({"title": "t", "source": {"type": "file", "path": "f"}, "policies": [pair.OPEN]}).encode()
    with process(toml(at, store=f'kind = "sqlite"\npath = "{at.settings.store.path}"'), log) as running_process:
        assert (await logged(log, "ready"))["ports"]["protocol"] == at.settings.protocol.port
        async with slow_call(at, "PUT", "/v1/datasets/urn:test:drain", body) as (finish, answer), aiohttp.ClientSession() as http:
            running_process.send_signal(signal.SIGTERM)
            await logged(log, "draining")
            await only_ops(at)
            ready = await call(http, "GET", f"{at.settings.ops.url}/readyz")
            assert (ready.status, list(ready.json["faults"])) == (503, ["draining"])
            assert running_process.poll() is None
            finish()
            assert b"201 Created" in await answer()
        assert await asyncio.to_thread(running_process.wait, 10) == 0
    async with running(at.changed(store=replace(at.settings.store, kind="sqlite"))) as again:
        assert (await again.asked("GET", "/datasets/urn:test:drain"))["title"] == "t"
    assert "Traceback" not in log.read_text()


@pytest.mark.asyncio
async def test_sighup_reads_again_and_a_mistake_changes_nothing_and_ends_nothing(tmp_path: Path):
    at, other, log = site(tmp_path / "a", "hospital"), site(tmp_path / "b", "biopharma"), tmp_path / "log"
    with process(toml(at), log) as running_process:
        await logged(log, "ready")
        (at.settings.registry.directory / "biopharma.jsonld").write_bytes(other.description())
        running_process.send_signal(signal.SIGHUP)
        assert (await logged(log, "reloaded"))["changed"] == ["added `did:web:biopharma.example` (`biopharma`)"]
        (at.settings.registry.directory / "biopharma.jsonld").write_text("{")
        (at.root / "connector.toml").write_text("[particpant]")
        running_process.send_signal(signal.SIGHUP)
        refused = await logged(log, "reload refused, nothing changed")
        assert "particpant" in str(refused["reasons"])
        async with aiohttp.ClientSession() as http:
            found = await call(http, "GET", f"{at.settings.management.url}/v1/participants", headers={"Authorization": f"Bearer {TOKEN}"})
        assert [p["name"] for p in found.json["items"]] == ["biopharma", "hospital"]
        running_process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(running_process.wait, 10) == 0


TOLD_TO_RELOAD_AS_IT_STARTS = """
import os, signal, sys
import connector.app
from connector.__main__ import main
start = connector.app.start

async def told(settings, *, path, environ):
    path.write_text("[particpant]")
    os.kill(os.getpid(), signal.SIGHUP)
    return await start(settings, path=path, environ=environ)

connector.app.start = told
main()
"""


@pytest.mark.asyncio
async def test_sighup_before_a_connector_is_ready_waits_until_it_is_and_does_not_end_it(tmp_path: Path):
    at, log = site(tmp_path / "a", "hospital"), tmp_path / "log"
    with process(toml(at), log, ("-c", TOLD_TO_RELOAD_AS_IT_STARTS)) as running_process:
        assert "particpant" in str((await logged(log, "reload refused, nothing changed"))["reasons"])
        await logged(log, "ready")
        running_process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running_process.wait, 10) == 0


def test_every_mistake_of_the_settings_is_reported_at_once_and_nothing_starts(tmp_path: Path):
    at, log = site(tmp_path / "a", "hospital"), tmp_path / "log"
    path = toml(at, participant='id = "hospital"\nname = "-x"\nrole = "hospital"', limits="catalog_page = 0\nbody_second = 1")
    at.settings.management.token_hash_file.unlink()
    with process(path, log) as made:
        assert made.wait(20) == 1
    said = log.read_text()
    for field, remedy in (
        ("participant.id", "write it as did:web:hospital.example"),
        ("participant.name", "a letter or digit first"),
        ("limits.catalog_page", "from 1 to 1000"),
        ("limits.body_second", "did you mean `body_seconds`?"),
        ("management.token_hash_file", "run `connector token`"),
    ):
        assert f"`{field}`" in said
        assert remedy in " ".join(said.split())
    assert "Traceback" not in said
    assert listening(at) == []


@pytest.mark.asyncio
async def test_who_is_to_stop_does_not_wait_for_what_is_made_ahead():
    stop, never, given_up = asyncio.Event(), asyncio.Event(), list[bool]()

    async def work() -> None:
        stop.set()
        try:
            await never.wait()
        finally:
            given_up.append(True)

    async with asyncio.timeout(20):
        await until(stop, work())
    assert given_up == [True]


@pytest.mark.asyncio
async def test_what_cannot_be_made_ahead_is_said_at_once_and_what_can_ends_nothing():
    async def broken() -> None:
        raise ProfilesUnread("mine.yaml#/version: it is no text")

    async def sound() -> None:
        asyncio.get_running_loop().call_soon(stop.set)

    stop = asyncio.Event()
    async with asyncio.timeout(20):
        with pytest.raises(ProfilesUnread, match="it is no text"):
            await until(stop, broken())
        await until(stop, sound())
    assert stop.is_set()
