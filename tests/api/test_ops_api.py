"""Alive, ready, and what there is to count."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector import telemetry
from connector.api.ops_api import OpsApi
from tests.api.conftest import opened
from tests.pair import Answer, call

pytestmark = pytest.mark.asyncio


async def asked(api: OpsApi, path: str) -> Answer:
    async with opened(api.add_to, name="ops") as door, aiohttp.ClientSession() as http:
        return await call(http, "GET", f"http://127.0.0.1:{door.port}{path}")


def running(*checks: tuple[str, Any]) -> OpsApi:
    api = OpsApi(checks)
    api.phase = "running"
    return api


async def sound() -> str | None:
    return None


async def broken() -> str | None:
    return "the store does not answer: StoreError"


async def test_ready_is_who_has_no_fault():
    answer = await asked(running(("store", sound)), "/readyz")
    assert (answer.status, answer.json) == (200, {"ready": True, "faults": {}})


async def test_each_fault_is_named_and_one_is_enough():
    answer = await asked(running(("store", broken), ("other", sound)), "/readyz")
    assert (answer.status, answer.json) == (503, {"ready": False, "faults": {"store": "the store does not answer: StoreError"}})


@pytest.mark.parametrize("phase", ["starting", "draining"])
async def test_who_starts_or_drains_is_alive_but_not_ready(phase: str):
    api = running(("store", sound))
    api.phase = phase
    assert (await asked(api, "/livez")).status == 200
    answer = await asked(api, "/readyz")
    assert (answer.status, list(answer.json["faults"])) == (503, [phase])


async def test_nobody_is_ready_before_it_is_said():
    assert (await asked(OpsApi(()), "/readyz")).status == 503


async def test_alive_asks_nobody():
    """A store that hangs must not get the process killed: only a restart would come of it."""

    async def hanging() -> str | None:
        await asyncio.Event().wait()
        return None

    async with asyncio.timeout(20):
        answer = await asked(OpsApi((("store", hanging),)), "/livez")
    assert (answer.status, answer.body) == (200, b"alive\n")


async def test_metrics_are_what_prometheus_reads():
    before = await counted()
    telemetry.count_message("TransferStartMessage", "in", "refused")
    telemetry.count_events([telemetry.DEAD])
    after = await counted()
    message = ("qiao_messages_total", ("in", "refused", "TransferStartMessage"))
    assert after[message] == before.get(message, 0) + 1
    assert after["qiao_events_total", (telemetry.DEAD,)] == before.get(("qiao_events_total", (telemetry.DEAD,)), 0) + 1
    assert {name for name, _ in after} >= {
        "qiao_store_commit_seconds_count",
        "qiao_outbox_open",
        "qiao_streams_open",
        "qiao_stream_bytes_total",
    }


async def test_metrics_are_shown_while_every_thread_has_work():
    held, api = Event(), OpsApi(())
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        await counted(api)
        working = asyncio.ensure_future(asyncio.to_thread(held.wait))
        try:
            async with asyncio.timeout(5):
                assert await counted(api)
        finally:
            held.set()
            await working


async def counted(api: OpsApi | None = None) -> dict[tuple[str, tuple[str, ...]], float]:
    """Metric and its labels -> value."""
    answer = await asked(api or OpsApi(()), "/metrics")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, tuple(value for _, value in sorted(s.labels.items()))): s.value for family in families for s in family.samples}
