"""How much may be on its way: the credit window, and what is known of the content log that it is counted in. Pure.

Credit is a volume, not a position. A provider that sends from the front to the back stops at an offset; one that serves several ranges at
once has no such offset. What bounds the dispute is how much *distinct* content a consumer may hold without having signed for it. So with
U what is acknowledged and S what was sent, both sets of leaves:

    bytes(S \\ U) <= K·W        and hence        bytes(S | U) <= bytes(U) + K·W = the credit that an ack names

A leaf of which a part was sent counts as sent: whoever has most of it may know all of it. A leaf that is sent again counts once, so the
rest of a cut window costs no credit. If U is the front of the log, the credit is the offset up to which the provider sends. W is a
multiple of the chunk, so credit never ends within a leaf, and a consumer that has verified what it got can always sign.

What was sent and got lost stays open, as nobody can tell a consumer that has lost it from one that does not want to sign for it. It is not
stuck: S can be fetched again without credit, so a consumer that waits for credit fetches first what is `open_to` it, and signs.

S lives as long as the process that sends. Whoever forgets it in a crash may send up to K·W that were on their way before: the bound is
K·W for each life of a process between two receipts, unless S is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connector.metering.content import Known, Layout
from connector.metering.counts import Counts, call
from connector.metering.objects import Manifest
from connector.metering.ranges import Ranges, union, without
from connector.values import Value, replace

SNAPSHOT_CHANGED: Final = "snapshot-changed"  # the code of an end: of what was published anew nothing leaves by an account of before
EXHAUSTED: Final = "credit-exhausted"  # the code of an answer to who has used it up: it comes again with what is signed for
Measure = Callable[[Ranges], Known]


class Log(Value):
    """What one side knows of a content log: how many `leaves` it has by now, the header included; what a set of leaves comes to
    (`measure`); the root over its first leaves, None where that is no checkpoint of it (`root`); the hash of a leaf, None where it is not
    known (`leaf`); and whether no more leaves will come (`ended`)."""

    leaves: int
    measure: Measure
    root: Callable[[int], bytes | None]
    leaf: Callable[[int], bytes | None] = lambda _: None
    ended: bool = True


def finite(
    manifest: Manifest, *, records: Callable[[int, int], int] | None = None, leaf: Callable[[int], bytes | None] = lambda _: None
) -> Log:
    """The log of finite data as its manifest describes it. `records(first, last)` are the records that end in the leaves [first, last), if
    this side counts them. Raises ValueError for a live log."""
    layout, root = manifest.log.layout, manifest.log.root
    if layout is None:
        raise ValueError("a live log has no layout; say what is known of it by now")
    return Log(layout.leaves, _measure(layout, manifest.unit, records), {layout.leaves: root}.get, leaf)


def _measure(layout: Layout, unit: str, records: Callable[[int, int], int] | None) -> Measure:
    def measure(ranges: Ranges) -> Known:
        known = layout.measure(ranges)
        if unit == "none":
            return replace(known, records=0)
        return known if records is None else replace(known, records=sum(records(*each) for each in ranges))

    return measure


def counted(measure: Measure, ranges: Ranges, calls: int = 0, microseconds: int = 0) -> Counts:
    """What a set of leaves comes to, `calls` told before and none below; and the time, which follows from no leaves. What is not known
    counts 0."""
    known = measure(ranges)
    return Counts(known.bytes, known.records or 0, known.items or 0, max(calls, call(known.bytes)), microseconds)


def credit(manifest: Manifest, counts: Counts) -> int:
    """Up to how many distinct bytes the provider sends in all, once a receipt over `counts` is acknowledged."""
    return counts.bytes + manifest.credit_bytes


def allowance(credit_bytes: int, measure: Measure, acknowledged: Ranges, sent: Ranges, first: int, last: int) -> int:
    """How many of the leaves [first, last) may be sent now, from the first on, when `sent` are on their way already.

    Leaves that were acknowledged or sent before cost nothing. 0 means: wait for a receipt.
    """
    out = union(acknowledged, sent)
    least, most = 0, max(0, last - first)
    while least < most:  # what is out grows with each leaf, so the last that fits is found by halving
        middle = (least + most + 1) // 2
        new = without(((first, first + middle),), out)
        if measure(out).bytes + measure(new).bytes <= credit_bytes:
            least = middle
        else:
            most = middle - 1
    return least


def open_to(acknowledged: Ranges, sent: Ranges) -> Ranges:
    """What uses up credit: the leaves that were sent and not acknowledged, which may be fetched again at any time."""
    return without(sent, acknowledged)


def due(manifest: Manifest, counts: Counts, measure: Measure, verified: Ranges, *, each_window: bool = False) -> bool:
    """Whether a consumer has verified so much more than it has signed for that its next receipt is due: half of the credit, of one to four
    windows. While it is under way the other half flows, and fewer receipts are less work for both: each costs some five milliseconds, as
    much as hashing half a window. Of live data two windows are the most: their source would wait before more, for its spool, of which
    nobody but its provider knows. `each_window`: a provider waits for one after each window."""
    live = manifest.log.layout is None
    least = manifest.window_bytes if each_window else due_bytes(manifest.window_bytes, manifest.credit_bytes, live=live)
    return measure(verified).bytes - counts.bytes >= least


def due_bytes(window_bytes: int, credit_bytes: int, *, live: bool) -> int:
    """So much is verified before a receipt is due, where nobody waits for one."""
    return max(window_bytes, min(credit_bytes // 2, (2 if live else 4) * window_bytes))
