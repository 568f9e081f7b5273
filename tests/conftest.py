"""What all tests share: how hypothesis searches, how long they may take, whom they believe, and that an interruption interrupts."""

import gc
import os
import random
import signal
from collections.abc import Generator

import pytest
from aiohttp import web_app
from hypothesis import settings

from connector.lanes import hashing

# No deadline: on shared cores the time of one example says nothing. In CI the search is the same each time, so that red
# means that the change is at fault; at a developer's desk it looks for something new, and prints how to see it again.
settings.register_profile("desk", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# What hangs fails with a stack. Of whole programs, each of which has bounds and patience of its own, a minute is less than a machine
# takes that is five times slower and busy.
SLOW_SECONDS = 300

# No test believes an authority of the public web, and to read all of them takes each connector that starts, and each interpreter that
# imports aiohttp, some 27 ms.
os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

# No test has a kernel compiled by how much others have hashed before it: threads and descriptors are counted.
hashing.HASHING = hashing.LeafHashing(hashing.made, 1 << 62)  # type: ignore[misc]

# A shell starts what runs in its background with SIGINT ignored, and programs inherit that: those that tests interrupt would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Sixteen thousand tests stay to the end: they are looked through for garbage neither while they are found nor ever after."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_connector_outlives_its_module() -> Generator[None]:
    """A cache of aiohttp keeps the last thousand handlers, and by them a hundred and more whole connectors that have ended: half of the
    memory of these tests, and each search for garbage would go through it. What they have open is closed with them, here and not in the
    middle of a test that counts what is open."""
    yield
    web_app._cached_build_middleware.cache_clear()
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In a fresh clone the asserts of each module are rewritten where it is found first, and kept: workers that look through it in
    orders of their own do that once for all of them."""
    report = yield
    worker = getattr(collector.config, "workerinput", None)
    if worker is not None and isinstance(collector, pytest.Directory):
        random.Random(worker["workerid"] + collector.nodeid).shuffle(report.result)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parts)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
