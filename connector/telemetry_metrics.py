"""Metrics: numbers that are kept here, and shown by the library of Prometheus (exposition format 0.0.4).

The library brings a web server along, so it is loaded for whoever asks first and not at the start; and its own numbers take two
microseconds each time they change, of which a negotiation has twenty. Names, labels and what is shown are as if they were the library's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import accumulate
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # of a histogram that names none
Sample = tuple[str, dict[str, str], float]  # what follows the name of the metric, its labels, the number

_all: list[Metric] = []


class Metric:
    """Something that is counted or measured, and shown from now on: `says` what it is, to a person."""

    kind = ""  # as the format calls it

    def __init__(self, name: str, says: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.says, self.labels = name, says, labels
        _all.append(self)

    def samples(self) -> Iterable[Sample]:
        """All numbers of it, as they are now."""
        return ()

    def labelled(self, values: tuple[str, ...]) -> dict[str, str]:
        """The labels with their values, in the order in which the library shows them."""
        return dict(sorted(zip(self.labels, values, strict=True)))


class Tallies(Metric):
    """A counter for the event loop alone, with labels: their values -> how often."""

    kind = "counter"

    def __init__(self, name: str, says: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, says, labels)
        self.counts: Counts[tuple[str, ...]] = Counts()

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        return (("_total", self.labelled(values), count) for values, count in self.counts.items())


class Level(Metric):
    """A gauge for the event loop alone."""

    kind = "gauge"

    def __init__(self, name: str, says: str) -> None:
        super().__init__(name, says)
        self.value = 0

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        return (("", {}, self.value),)


class Durations(Metric):
    """A histogram of seconds, for the event loop alone. `bounds` are the upper ones of its buckets, in order."""

    kind = "histogram"

    def __init__(self, name: str, says: str, bounds: tuple[float, ...] = BOUNDS_SECONDS) -> None:
        super().__init__(name, says)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        *within, total = accumulate(self._counts)
        for bound, count in zip((*map(float, self._bounds), "+Inf"), (*within, total), strict=True):
            yield "_bucket", {"le": str(bound)}, count
        yield "_count", {}, total
        yield "_sum", {}, self._sum


class _OfThreads(Metric):
    """Numbers that any thread may change, one for all values of the labels. Without labels there is one from the beginning."""

    ending = ""

    def __init__(self, name: str, says: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, says, labels)
        self._lock = Lock()
        self._numbers: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def inc(self, amount: float = 1, *values: str) -> None:
        """Add to the number of these values of the labels."""
        with self._lock:
            self._numbers[values] = self._numbers.get(values, 0.0) + amount

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        with self._lock:
            numbers = tuple(self._numbers.items())
        return ((self.ending, self.labelled(values), number) for values, number in numbers)


class Counter(_OfThreads):
    """Counts what only grows."""

    kind, ending = "counter", "_total"


class Gauge(_OfThreads):
    """Shows what goes up and down."""

    kind = "gauge"
    _asked: Callable[[], float] | None = None

    def dec(self) -> None:
        """Take one away."""
        self.inc(-1)

    def set(self, number: float, *values: str) -> None:
        """Show this number for these values of the labels."""
        with self._lock:
            self._numbers[values] = number

    def set_function(self, asked: Callable[[], float]) -> None:
        """Show what `asked()` returns whenever it is shown."""
        self._asked = asked

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        return super().samples() if self._asked is None else (("", {}, self._asked()),)


class Histogram(Durations):
    """As `Durations`, for any thread."""

    def __init__(self, name: str, says: str, bounds: tuple[float, ...] = BOUNDS_SECONDS) -> None:
        super().__init__(name, says, bounds)
        self._lock = Lock()

    def observe(self, seconds: float) -> None:
        """Count one."""
        with self._lock:
            super().observe(seconds)

    def samples(self) -> Iterable[Sample]:
        """See `Metric`."""
        with self._lock:
            return tuple(super().samples())

    @contextmanager
    def time(self) -> Iterator[None]:
        """Count how long a block runs."""
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - began)


def load() -> None:
    """Have the library at hand: 20 ms the first time, for a thread."""
    import_module("prometheus_client")


def exposition() -> bytes:
    """All metrics in the text format of Prometheus."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Ours(Collector):
        def collect(self) -> Iterator[Family]:
            return map(_family, _all)

    registry = CollectorRegistry()
    registry.register(Ours())
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    from prometheus_client.metrics_core import Metric as Family

    family = Family(metric.name, metric.says, metric.kind)
    for ending, labels, number in metric.samples():
        family.add_sample(f"{metric.name}{ending}", labels, number)
    return family
