"""What is counted is shown as the library of Prometheus shows it, and read by its parser."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import prometheus_client as library
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector import telemetry_metrics as ours

BOUNDS = (0.0005, 0.001, 1, 8)
SECONDS = (0.0001, 0.0005, 0.0006, 0.3, 1, 7, 1e9)
ODD = 'a "quoted" \\ and\nbroken text'


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ours, "_all", [])


def read(text: bytes) -> dict[str, Any]:
    """Name of a metric -> its type, what it says, its samples; without the moments at which the library has made each."""
    families = [each for each in text_string_to_metric_families(text.decode()) if not each.name.endswith("_created")]
    return {
        each.name: (each.type, each.documentation, {(s.name, tuple(sorted(s.labels.items()))): s.value for s in each.samples})
        for each in families
    }


def by_the_library(made: Callable[[library.CollectorRegistry], object]) -> dict[str, Any]:
    registry = library.CollectorRegistry()
    made(registry)
    return read(library.generate_latest(registry))


def test_a_counter_is_as_the_librarys():
    def model(registry: library.CollectorRegistry) -> None:
        library.Counter("some", "Some things", registry=registry).inc(3)
        more = library.Counter("more", "More", ["one", "another"], registry=registry)
        more.labels("x", ODD).inc()
        more.labels("y", "").inc(2.5)
        library.Counter("none", "Not any", registry=registry)
        library.Counter("quiet", "Not any of any kind", ["one"], registry=registry)

    ours.Counter("some", "Some things").inc(3)
    more = ours.Counter("more", "More", ("one", "another"))
    more.inc(1, "x", ODD)
    more.inc(2.5, "y", "")
    ours.Counter("none", "Not any")
    ours.Counter("quiet", "Not any of any kind", ("one",))
    assert read(ours.exposition()) == by_the_library(model)


def test_a_tally_of_the_loop_is_as_a_counter_of_the_librarys():
    def model(registry: library.CollectorRegistry) -> None:
        library.Counter("said", "What was said", ["zeta", "alpha"], registry=registry).labels("1", "2").inc(7)

    ours.Tallies("said", "What was said", ("zeta", "alpha")).counts["1", "2"] += 7
    assert read(ours.exposition()) == by_the_library(model)
    assert b'said_total{alpha="2",zeta="1"} 7.0\n' in ours.exposition(), "its labels in the order of the library"


def test_a_gauge_is_as_the_librarys():
    def model(registry: library.CollectorRegistry) -> None:
        up = library.Gauge("up", "Up and down", registry=registry)
        up.inc()
        up.dec()
        up.dec()
        library.Gauge("room", "Room", ["where"], registry=registry).labels("here").set(6e15)
        library.Gauge("asked", "Asked", registry=registry).set_function(lambda: 4)
        library.Gauge("level", "Level", registry=registry).set(2)

    up = ours.Gauge("up", "Up and down")
    up.inc()
    up.dec()
    up.dec()
    ours.Gauge("room", "Room", ("where",)).set(6e15, "here")
    ours.Gauge("asked", "Asked").set_function(lambda: 4)
    ours.Level("level", "Level").value += 2
    assert read(ours.exposition()) == by_the_library(model)


@pytest.mark.parametrize("kind", [ours.Durations, ours.Histogram])
def test_a_histogram_is_as_the_librarys(kind: type[ours.Durations]):
    def model(registry: library.CollectorRegistry) -> None:
        some = library.Histogram("some", "Some", buckets=BOUNDS, registry=registry)
        usual = library.Histogram("usual", "As usual", registry=registry)
        for seconds in SECONDS:
            some.observe(seconds)
            usual.observe(seconds)

    some, usual = kind("some", "Some", BOUNDS), kind("usual", "As usual")
    for seconds in SECONDS:
        some.observe(seconds)
        usual.observe(seconds)
    assert read(ours.exposition()) == by_the_library(model)


def test_a_block_is_timed_also_if_it_fails():
    timed = ours.Histogram("timed", "Timed", (60,))
    with pytest.raises(KeyError), timed.time():
        raise KeyError
    assert read(ours.exposition())["timed"][2]["timed_bucket", (("le", "60.0"),)] == 1


def test_no_thread_loses_what_another_counts():
    counter, gauge, histogram = ours.Counter("c", "c"), ours.Gauge("g", "g"), ours.Histogram("h", "h", (1,))

    def work(_number: int) -> None:
        for _ in range(500):
            counter.inc()
            gauge.inc()
            histogram.observe(0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    shown = read(ours.exposition())
    assert (shown["c"][2]["c_total", ()], shown["g"][2]["g", ()], shown["h"][2]["h_count", ()]) == (4000, 4000, 4000)
