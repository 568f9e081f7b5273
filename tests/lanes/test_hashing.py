"""Leaf hashes by whatever is fastest: the same always, chosen by what was measured, with hashlib wherever anything is amiss."""

import io
import platform
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector import telemetry
from connector.lanes import hashing, machine
from connector.lanes.hashing import LeafHashing, Unused, lanes_of, spans_of
from connector.lanes.machine import Data, Forbidden, Kernel
from connector.merkle.tree import leaf_hash
from tests.lanes.compiled import kernel_of
from tests.lanes.test_machine import DATA

WAIT_SECONDS = 30.0
LONG = DATA * 8
LENGTHS = st.sampled_from([0, 1, 63, 64, 4095, 4096, 4096, 4096, 5000])


@pytest.fixture
def said() -> Iterator[Callable[[], dict[str, object]]]:
    """What the log says: the only event in it."""
    out = io.StringIO()
    telemetry.configure_logging("info", "json", out)
    yield lambda: orjson.loads(out.getvalue())
    telemetry.configure_logging("info", "json")


def settled(make: Callable[[], Kernel], least: int = 3) -> LeafHashing:
    """After the first leaf, with all that comes of it."""
    found = LeafHashing(make, 1, lambda _: least)
    assert found.leaf_hashes(b"x", [(0, 1)]) == [leaf_hash(b"x")]
    assert found.settled.wait(WAIT_SECONDS)
    return found


class Told:
    """A kernel that hashes by hashlib, and tells how many at a time."""

    lanes = 16

    def __init__(self) -> None:
        self.counts: list[int] = []

    def leaf_hashes(self, data: Data, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        self.counts.append(len(spans))
        return [leaf_hash(data[first:end]) for first, end in spans]

    def line_feeds(self, data: Data, first: int, end: int) -> tuple[int, bool]:
        text = bytes(data[first:end])
        return text.count(b"\n"), text.startswith(b"\n") or b"\n\n" in text or b"\r" in text


@settings(max_examples=50)
@given(spans=st.lists(st.tuples(st.integers(0, len(LONG) - 5000), LENGTHS), max_size=40), least=st.integers(1, 16))
def test_any_leaves_in_any_order_are_hashed_as_hashlib_does(spans: list[tuple[int, int]], least: int):
    ours, cut = settled(lambda: kernel_of(16), least), [(first, first + length) for first, length in spans]
    assert ours.leaf_hashes(LONG, cut) == [leaf_hash(LONG[first:end]) for first, end in cut]


@pytest.mark.parametrize(
    ("count", "taken"), [(0, []), (1, []), (2, []), (3, [3]), (15, [15]), (16, [16]), (18, [16]), (19, [16, 3]), (32, [16, 16])]
)
def test_lanes_take_groups_for_which_they_are_faster(count: int, taken: list[int]):
    told = Told()
    ours = settled(lambda: told)  # type: ignore[arg-type,return-value]
    told.counts.clear()
    data = LONG[: 4096 * count]
    assert ours.leaf_hashes(data, spans_of(len(data), 4096)) == [leaf_hash(data[at : at + 4096]) for at in range(0, len(data), 4096)]
    assert told.counts == taken


@pytest.mark.parametrize(
    ("lengths", "taken"),
    [
        ([4096] * 4 + [100], [4]),
        ([1000] * 16, []),
        ([5000, 4900, 4800], []),
        ([5000, 4900, 4800, 4700], [4]),
        ([4096] * 15 + [16_384] * 3, [16]),
    ],
    ids=["a short one", "small ones", "too few", "of several lengths", "the long ones first"],
)
def test_leaves_of_several_lengths_go_together_where_that_is_faster(lengths: list[int], taken: list[int]):
    """Lanes are busy for as long as the longest: here that has to be a third of all at most."""
    told = Told()
    ours = settled(lambda: told)  # type: ignore[arg-type,return-value]
    told.counts.clear()
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    ours.leaf_hashes(LONG, [(end - length, end) for end, length in zip(ends, lengths, strict=True)])
    assert told.counts == taken


def test_of_many_tiny_leaves_nothing_is_kept_but_their_hashes():
    """As live data have them: a window of lines that are short, of which lanes take none."""
    ours, data = settled(lambda: kernel_of(16)), bytes(32 << 13)
    spans = spans_of(len(data), 32)
    tracemalloc.start()
    try:
        found = ours.leaf_hashes(data, spans)
        now_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [leaf_hash(bytes(32))] * len(spans)
    assert peak_bytes < 1.5 * now_bytes


def test_nobody_waits_for_a_kernel_and_one_is_made_once_it_is_worth_it():
    go, asked = threading.Event(), list[None]()

    def make() -> Kernel:
        asked.append(None)
        assert go.wait(WAIT_SECONDS)
        return kernel_of(16)

    ours = LeafHashing(make, 10, lambda _: 3)
    for _ in range(9):
        ours.leaf_hashes(b"x", [(0, 1)])
    assert not asked
    for _ in range(20):
        assert ours.leaf_hashes(LONG, [(0, 5000)] * 4) == [leaf_hash(LONG[:5000])] * 4
    assert ours.together(16) == 1
    go.set()
    assert ours.settled.wait(WAIT_SECONDS)
    assert (len(asked), ours.together(16), ours.together(3), ours.together(2)) == (1, 16, 16, 1)


@pytest.mark.parametrize("amiss", [(1, False), (0, True)], ids=["one too many", "one that is taken for empty"])
def test_a_kernel_that_counts_lines_wrongly_is_never_used(amiss: tuple[int, bool], said: Callable[[], dict[str, object]]):
    class Wrong(Told):
        def line_feeds(self, data: Data, first: int, end: int) -> tuple[int, bool]:
            found, odd = super().line_feeds(data, first, end)
            return (found + amiss[0], odd or amiss[1]) if end == 2 * 63 else (found, odd)

    ours = settled(Wrong)  # type: ignore[arg-type,return-value]
    assert (ours.together(16), ours.line_feeds(LONG, 0, len(LONG))) == (1, None)
    assert said()["reason"] == "the kernel has counted 63 lines wrongly"


def test_a_kernel_that_sees_no_empty_line_between_two_registers_is_never_used(said: Callable[[], dict[str, object]]):
    class Wrong(Told):
        def line_feeds(self, data: Data, first: int, end: int) -> tuple[int, bool]:
            found = [super(Wrong, self).line_feeds(data, at, min(at + 32, end))[0] for at in range(first, end, 32)]
            text = [b"." * (at > first) + bytes(data[at : at + 32]) for at in range(first, end, 32)]
            return sum(found), any(super(Wrong, self).line_feeds(each, 0, len(each))[1] for each in text)

    ours = settled(Wrong)  # type: ignore[arg-type,return-value]
    assert ours.line_feeds(LONG, 0, len(LONG)) is None
    assert said()["reason"] == "the kernel has not seen what stands behind 31 bytes"


@pytest.mark.parametrize("lane", [0, 7, 15])
def test_a_kernel_that_is_wrong_in_one_lane_is_found_and_never_used(lane: int, said: Callable[[], dict[str, object]]):
    class Wrong(Told):
        def leaf_hashes(self, data: Data, spans: Sequence[tuple[int, int]]) -> list[bytes]:
            found = super().leaf_hashes(data, spans)
            if spans[0] == (0, 118):
                found[lane] = found[lane - 1]
            return found

    assert settled(Wrong).together(16) == 1  # type: ignore[arg-type]
    assert said()["reason"] == "the kernel has hashed 118 bytes wrongly"


def refusing(error: Exception) -> Callable[[], Kernel]:
    def make() -> Kernel:
        raise error

    return make


@pytest.mark.parametrize("error", [Unused("it is so"), Forbidden("it is so")])
def test_the_reason_why_there_is_none_is_logged_once(error: Exception, said: Callable[[], dict[str, object]]):
    ours = settled(refusing(error))
    assert ours.leaf_hashes(LONG, [(0, 5000)] * 16) == [leaf_hash(LONG[:5000])] * 16
    assert (said()["level"], said()["reason"]) == ("info", "it is so")


def test_a_python_that_can_call_no_machine_code_hashes_on(said: Callable[[], dict[str, object]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "connector.lanes.machine", None)
    ours = settled(refusing(KeyError("what")))
    assert (ours.together(16), said()["level"]) == (1, "info")
    assert "calls no machine code" in str(said()["reason"])


def test_a_defect_is_an_error_in_the_log_and_hashlib_goes_on(said: Callable[[], dict[str, object]]):
    ours = settled(refusing(KeyError("what")))
    assert (ours.together(16), said()["level"]) == (1, "error")
    assert "KeyError" in str(said()["exception"])


@pytest.mark.parametrize(("lanes_ns", "one_ns", "least"), [(160, 80, 3), (159, 80, 2), (160, 10, None), (150, 10, 16), (2400, 10, None)])
def test_what_is_faster_is_chosen_by_the_time_that_both_took(lanes_ns: int, one_ns: int, least: int | None):
    """`lanes_ns` for all lanes together, `one_ns` for one leaf by hashlib."""
    begun = (n * 10**6 for n in range(hashing.TIMES))
    ticks = iter([tick for at in begun for tick in (at, at + lanes_ns, at + lanes_ns + 16 * one_ns)])
    if least is None:
        with pytest.raises(Unused, match="hashlib is faster"):
            hashing.timed(Told(), lambda: next(ticks))  # type: ignore[arg-type]
    else:
        assert hashing.timed(Told(), lambda: next(ticks)) == least  # type: ignore[arg-type]


WIDE = [*hashing.WIDE]


@pytest.mark.parametrize(
    ("flags", "lanes"), [(WIDE, 16), ([*WIDE, "sha_ni"], 16), (["avx2"], 8), (["avx2", "sha_ni"], 0), (["sse2"], 0), ([], 0)]
)
def test_the_processor_is_looked_at_first(flags: list[str], lanes: int):
    if lanes:
        assert lanes_of(flags) == lanes
    else:
        with pytest.raises(Unused, match="the processor has"):
            lanes_of(flags)


@pytest.fixture
def able(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with wide vectors, whatever this one has."""
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: fpu {' '.join(WIDE)}\n")
    monkeypatch.setattr(hashing, "CPUINFO", file)


@pytest.mark.usefixtures("able")
def test_without_the_library_nothing_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "find_spec", lambda _: None)
    monkeypatch.setattr(hashing, "COMPILER", "no.such.module")
    with pytest.raises(Unused, match="llvmlite is not installed"):
        hashing.made()


@pytest.mark.usefixtures("able")
def test_where_memory_may_not_be_executed_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch):
    def forbidden(_: bytes) -> None:
        raise Forbidden("no")

    monkeypatch.setattr(machine, "executable", forbidden)
    monkeypatch.setattr(hashing, "COMPILER", "no.such.module")
    with pytest.raises(Forbidden):
        hashing.made()


@pytest.mark.usefixtures("able")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernel is for x86 processors")
def test_what_is_made_as_a_connector_makes_it_hashes_as_hashlib_does():
    kernel = hashing.made()
    hashing.check(kernel)
    assert kernel.lanes == 16


@pytest.mark.usefixtures("able")
def test_a_compiler_that_ends_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "find_spec", lambda _: object())
    monkeypatch.setattr(hashing, "COMPILER", "no.such.module")
    with pytest.raises(Unused, match=r"the compiler ended with 1: .*no\.such"):
        hashing.made()


@pytest.mark.usefixtures("able")
def test_what_else_is_written_to_stdout_is_never_run(monkeypatch: pytest.MonkeyPatch):
    """As by a `sitecustomize`: here all of it is a poem."""
    monkeypatch.setattr(hashing, "find_spec", lambda _: object())
    monkeypatch.setattr(hashing, "COMPILER", "this")
    with pytest.raises(Unused, match="is not code alone"):
        hashing.made()


@pytest.mark.parametrize("said", [b"", hashing.with_digest(b""), b"x" + hashing.with_digest(b"code"), hashing.with_digest(b"code")[:-1]])
def test_code_that_is_not_whole_and_alone_is_refused(said: bytes):
    with pytest.raises(Unused):
        hashing.without_digest(said)


def test_a_system_that_says_nothing_of_its_processor_is_a_reason(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "CPUINFO", tmp_path / "none")
    with pytest.raises(Unused, match="does not say"):
        hashing.made()


@pytest.mark.parametrize(("length", "spans"), [(0, []), (3, [(0, 3)]), (4, [(0, 4)]), (9, [(0, 4), (4, 8), (8, 9)])])
def test_data_are_cut_into_leaves_of_which_the_last_is_shorter(length: int, spans: list[tuple[int, int]]):
    assert spans_of(length, 4) == spans
