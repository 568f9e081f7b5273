"""What is known of data without an end: how far they are proven, what the provider has signed up to there, and what has come behind it."""

from __future__ import annotations

from collections.abc import Callable

from connector.intake.promise import Broken, Unending
from connector.metering import credit
from connector.metering.content import SIZE_MAX, Known
from connector.metering.objects import Checkpoint, Receipt, kept
from connector.metering.ranges import Ranges
from connector.records.metering import Metered
from connector.values import Value

GROWS_BYTES_MIN, GROWS_BYTES_MAX = 64 * 1024, 4 * 1024 * 1024  # by which the room for a window grows, as more of it comes at once


class State(Value):
    """How far it is proven: so many leaves, bytes and records, and what was signed of them (None: nothing yet)."""

    leaves: int = 1
    size_bytes: int = 0
    records: int = 0
    checkpoint: Checkpoint | None = None


class Goal(Value):
    """The next leaves: how long each is, by what the provider says, and what it has signed of the log with them."""

    lengths: tuple[int, ...]
    size_bytes: int
    checkpoint: Checkpoint


class Held:
    """What has come and is not proven yet, also over a cut: a line that breaks within each window gets on, too. One buffer for all windows:
    the pages of one that is made anew cost more than the copy does. It grows with what comes, not by what a provider says of its windows:
    most live data are few bytes a second, and need no room for a window."""

    def __init__(self) -> None:
        self._buffer, self.size_bytes = bytearray(), 0

    def add(self, piece: bytes | memoryview) -> None:
        """Hold more."""
        end = self.size_bytes + len(piece)
        if end > (room := len(self._buffer)):
            grown = bytearray(max(end, room + min(max(room, GROWS_BYTES_MIN), GROWS_BYTES_MAX)))
            grown[: self.size_bytes] = memoryview(self._buffer)[: self.size_bytes]
            self._buffer = grown
        memoryview(self._buffer)[self.size_bytes : end] = piece  # a rest may overlap its new place, which a bytearray would not see
        self.size_bytes = end

    def cut(self, size_bytes: int) -> tuple[memoryview, memoryview]:
        """The first bytes, and the rest. None of them is held from now on; they stay as they are until something is added."""
        whole, self.size_bytes = memoryview(self._buffer)[: self.size_bytes], 0
        return whole[:size_bytes], whole[size_bytes:]


class LivePromise:
    """What an account has to know of data without an end: see `connector.intake.promise.Promised`. `states` are those since the last
    receipt; no receipt names an older checkpoint than `newest`, which may be further than what is proven: a leaf of it was rejected."""

    def __init__(self, promise: Unending) -> None:
        self.token, self.manifest, self.header = promise.token, promise.manifest, promise.header
        self.states: dict[int, State] = {1: State()}
        self.newest: Checkpoint | None = None

    @property
    def form(self) -> tuple[int, None, None, None]:
        return self.manifest.log.chunk, None, None, None

    @property
    def whole(self) -> Ranges:
        return ((1, SIZE_MAX),)  # there is no end that could have come

    def known(self, _records: Callable[[int, int], int] | None) -> credit.Log:
        return credit.Log(1, self._measure, lambda _: None, ended=False)

    def signed(self, ranges: Ranges) -> Checkpoint | None:
        found = self._at(ranges).checkpoint
        return self.newest if found is None or (self.newest is not None and found.size < self.newest.size) else found

    def _measure(self, ranges: Ranges) -> Known:
        state = self._at(ranges)
        return Known(state.size_bytes, state.records, 0)

    def _at(self, ranges: Ranges) -> State:
        return self.states[ranges[-1][1]] if ranges else State()  # of nothing, whatever is not needed any more by then


def told_of(stored: Metered) -> tuple[State, Checkpoint] | None:
    """What the last receipt of an account of ours covers, and the checkpoint that it names, of at least as many leaves. None if it covers
    nothing. Raises Broken if it is of another kind of log."""
    if not stored.receipt or not stored.ranges:
        return None
    receipt = kept(Receipt, stored.receipt)
    end = stored.ranges[-1][1]
    if stored.ranges != ((1, end),) or receipt.checkpoint is None or receipt.checkpoint.size < end:
        raise Broken("our last receipt is of another kind of log", "restored-other")
    return State(end, stored.counts.bytes, stored.counts.records), receipt.checkpoint
