"""What is transferred and where it is cut: all of it follows from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connector.metering.content import CHUNK_BYTES
from connector.values import replace

MIB: Final = 1 << 20
LARGEST_BYTES: Final = 200 * MIB
# Whatever has no data at all comes with so many bytes: heads, a manifest, a checkpoint, an ack. A first cut lies before them.
DOWN_AT_LEAST, UP_AT_LEAST = 2_000, 1_500
SOURCE_KILLED, POWER_LOST = "source killed", "power lost"
# How a transfer is cut, and how often that is drawn.
HOW: Final[Mapping[str, int]] = {
    "client reset": 3,  # the provider sees a reset, the consumer an orderly end
    "server reset": 3,
    "both reset": 3,
    "orderly end": 3,  # of both sides, in the middle of whatever they say
    "link down": 2,  # all connections at once, and no new one for a while
    "stall": 2,  # nothing moves for a while, then a reset
    "silence": 1,  # nothing moves any more, and nobody says so
    "consumer killed": 5,
    "provider killed": 5,
    "both killed": 2,
}
# And of data without an end: their source dies, or the provider's machine with all that it has not flushed.
HOW_LIVE: Final[Mapping[str, int]] = HOW | {SOURCE_KILLED: 3, POWER_LOST: 3}
KILLS: Final[Mapping[str, tuple[str, ...]]] = {
    SOURCE_KILLED: (),
    POWER_LOST: ("provider",),
    "consumer killed": ("consumer",),
    "provider killed": ("provider",),
    "both killed": ("consumer", "provider"),
}
# Who is cut, in the words of the promise.
WHO: Final[Mapping[str, tuple[str, ...]]] = {
    "by the client": ("client reset",),
    "by the server": ("server reset",),
    "by the link": ("both reset", "orderly end", "link down", "stall", "silence"),
    "by kill -9": (*KILLS,),
}
MORE_CUTS: Final = (0, 0, 0, 1, 1, 2)  # of a transfer after its first one; they count if they are reached


@dataclass(frozen=True, slots=True)
class Road:
    """Between which connectors: `window_bytes` of the provider's manifests, `after` of the consumer's receipts. What is `pushed` the
    provider brings to the consumer's data listener; else the consumer fetches it from the provider's. What is `live` has no end."""

    name: str
    tls: bool
    after: str
    window_bytes: int
    pushed: bool = False
    live: bool = False


ROADS: Final = (
    Road("plain, fsync, 16 MiB windows", False, "fsync", 16 * MIB),
    Road("plain, write, 1 MiB windows", False, "write", MIB),
    Road("TLS, fsync, 4 MiB windows", True, "fsync", 4 * MIB),
)
PUSHED: Final = (
    Road("pushed, write, 1 MiB windows", False, "write", MIB, pushed=True),
    Road("pushed, TLS, fsync, 4 MiB", True, "fsync", 4 * MIB, pushed=True),
)
LIVE: Final = (
    Road("live, fsync, 16 MiB windows", False, "fsync", 16 * MIB, live=True),
    Road("live, TLS, write, 1 MiB", True, "write", MIB, live=True),
)
ALL: Final = (*ROADS, *PUSHED, *LIVE)


@dataclass(frozen=True, slots=True)
class Cut:
    """After `at` bytes that went `way` ("down" to the consumer, "up" to the provider) since the cut before, in all connections together.
    What is broken stays so for `pause_seconds`."""

    how: str
    way: str
    at: int
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Errand:
    """One transfer. `lines` says whether its data are lines, which are counted; `demanded` whether its policy demands receipts; `parallel`
    over how many connections, 0: as the connector sees fit. Data without an end are lines or events of `record_bytes` and more, one each
    `record_seconds` (0: as fast as they are taken), and so many of them as come to `size_bytes` or more."""

    number: int
    road: Road
    size_bytes: int
    lines: bool
    demanded: bool
    parallel: int
    cuts: tuple[Cut, ...]
    record_bytes: int = 0
    record_seconds: float = 0.0


def errands(count: int, seed: int, roads: Sequence[Road] = ROADS, first: int = 0) -> list[Errand]:
    """So many, on these roads in turn, numbered from `first` on. Every way of being cut is drawn before one is drawn again out of its
    turn."""
    chance = random.Random(seed)
    kinds = HOW_LIVE if roads[0].live else HOW
    ways = [how for how, weight in kinds.items() for _ in range(weight)]
    deck: list[str] = []
    edges: dict[Road, list[int]] = {road: [] for road in roads}
    found = []
    for number in range(count):
        if not deck:
            deck = [*chance.sample(list(kinds), len(kinds)), *chance.sample(ways, len(ways))]
        road = roads[number % len(roads)]
        size = int(2 ** chance.uniform(16, 25)) if road.live else _size(chance, road, edges[road])
        cut = _cut(chance, deck.pop(0), size)
        others = [_cut(chance, chance.choice(ways), size) for _ in range(chance.choice(MORE_CUTS))]
        lines = chance.random() < (0.5 if road.live else 0.25) and size > 0
        errand = Errand(first + number, road, size, lines, chance.random() < 0.5, 0 if road.live else chance.randrange(5), (cut, *others))
        found.append(replace(errand, **_records(chance, size)) if road.live else errand)
    return found


def _records(chance: random.Random, size: int) -> dict[str, Any]:
    """Small or large ones; half of the streams are slow, and take some seconds."""
    if size < 8 * MIB and chance.random() < 0.5:
        return {"record_bytes": max(chance.choice((50, 1000, 20_000)), size // 1000), "record_seconds": 0.004}
    return {"record_bytes": chance.choice((50, 1000, 20_000)), "record_seconds": 0.0}


def _size(chance: random.Random, road: Road, edges: list[int]) -> int:
    """The edges of leaves and windows, each before one comes again; small ones of all orders of magnitude, and some large ones."""
    kind = chance.random()
    if kind < 0.35:
        if not edges:
            bases = (CHUNK_BYTES, 2 * CHUNK_BYTES, road.window_bytes, min(4 * road.window_bytes, 64 * MIB))
            edges += {0, 1} | {base + beside for base in bases for beside in (-1, 0, 1)}
            chance.shuffle(edges)
        return edges.pop()
    if kind < 0.8:
        return int(2 ** chance.uniform(0, 24))
    if kind < 0.97:
        return chance.randrange(16 * MIB, 64 * MIB)
    return chance.randrange(64 * MIB, LARGEST_BYTES)


def _cut(chance: random.Random, how: str, size: int) -> Cut:
    pause = chance.uniform(0.05, 0.8)
    if chance.random() < 0.12:
        return Cut(how, "up", chance.randrange(UP_AT_LEAST), pause)
    return Cut(how, "down", chance.randrange(DOWN_AT_LEAST + size), pause)
