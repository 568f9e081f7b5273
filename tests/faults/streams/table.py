"""What the run prints and keeps: a line for each way of being cut, one for each revocation, and a closing line. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.faults.streams.books import Summed
from tests.faults.streams.lane import Done
from tests.faults.streams.plan import ALL, HOW_LIVE, WHO
from tests.faults.streams.revocation import Revoked


@dataclass
class Report:
    """Everything that a run found."""

    done: list[Done] = field(default_factory=list)
    books: list[Summed] = field(default_factory=list)
    ledgers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    revoked: list[Revoked] = field(default_factory=list)

    @property
    def good(self) -> bool:
        wrong = any(each.wrong for each in self.done) or any(each.wrong for each in self.revoked)
        return bool(self.done) and not wrong and not self.complaints and not any(said.startswith("BAD") for said in self.ledgers)


def lines(report: Report) -> Iterator[str]:
    """The table and what follows it. `on legs` are cuts while data came over several connections."""
    yield f"{'cut by':<28} {'transfers':>9} {'cuts':>5} {'on legs':>7} {'bytes':>14} {'came again':>10} {'seconds':>13} {'wrong':>5}"
    for how in HOW_LIVE:
        yield _row(how, [each for each in report.done if any(cut.how == how for cut in each.cuts)], how)
    for who, hows in WHO.items():
        yield _row(who, [each for each in report.done if any(cut.how in hows for cut in each.cuts)], *hows)
    for road in ALL:
        yield _row(road.name, [each for each in report.done if each.errand.road == road])
    yield _row("all", report.done)
    yield ""
    heads = f"{'last byte after':>15} {'in a queue':>10} {'bytes after':>12} {'signed for':>12} {'wrong':>5}"
    yield f"{'revoked':<18} {'over':<13} {'legs':>4} {'demanded':>8} {heads}"
    for each in report.revoked:
        yield (
            f"{each.how:<18} {each.road:<13} {each.parallel:>4} {'yes' if each.demanded else 'no':>8} {each.seconds * 1000:>12.0f} ms"
            f" {each.queued * 1000:>7.0f} ms {each.bytes:>12,} {each.signed:>12,} {len(each.wrong):>5}"
        )
    yield ""
    for said in report.ledgers:
        yield f"ledger: {said}"
    for number, text in ((each.errand.number, text) for each in report.done for text in each.wrong):
        yield f"WRONG {number}: {text}"
    for one, text in ((each, text) for each in report.revoked for text in each.wrong):
        yield f"WRONG {one.how}, {one.road}, {one.parallel} legs: {text}"
    for complaint in report.complaints:
        yield f"COMPLAINT {complaint}"
    yield closing(report)


def closing(report: Report) -> str:
    """One line that says it all."""
    whole = sum(not each.wrong for each in report.done)
    bytes_ = [sum(book.provider_bytes for book in report.books), sum(book.consumer_bytes for book in report.books)]
    on_disk, cuts = sum(each.size_bytes for each in report.done), sum(len(each.cuts) for each in report.done)
    return (
        f"{'GOOD' if report.good else 'BAD'}: {whole} of {len(report.done)} transfers whole after {cuts} cuts;"
        f" {on_disk:,} bytes on disk, {bytes_[0]:,} metered by providers, {bytes_[1]:,} by consumers,"
        f" difference {max(abs(each - on_disk) for each in bytes_):,}; {sum(book.receipts for book in report.books)} receipts judged again;"
        f" {len(report.revoked)} revoked, the last byte after {max((r.seconds for r in report.revoked), default=0) * 1000:.0f} ms at most,"
        f" {max((r.bytes for r in report.revoked), default=0):,} bytes after it at most; {len(report.complaints)} complaints"
    )


def document(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "good": report.good,
        "closing": closing(report),
        "transfers": [
            {
                "number": each.errand.number,
                "road": each.errand.road.name,
                "size_bytes": each.size_bytes,
                "parallel": each.errand.parallel,
                "demanded": each.errand.demanded,
                "cuts": [[cut.how, cut.way, cut.at, legs] for cut, legs in zip(each.cuts, each.legs, strict=True)],
                "brought_bytes": each.brought_bytes,
                "seconds": round(each.seconds, 2),
                "wrong": each.wrong,
            }
            for each in report.done
        ],
        "revoked": [
            {"how": each.how, "road": each.road, "parallel": each.parallel, "seconds": round(each.seconds, 3), "bytes": each.bytes}
            | {"queued": round(each.queued, 3)}
            | {"signed": each.signed, "wrong": each.wrong}
            for each in report.revoked
        ],
        "ledgers": report.ledgers,
        "complaints": report.complaints,
    }


def _row(name: str, of: list[Done], *hows: str) -> str:
    done = [legs for each in of for cut, legs in zip(each.cuts, each.legs, strict=True) if not hows or cut.how in hows]
    cuts, several = len(done), sum(legs > 1 for legs in done)
    size, brought = sum(each.size_bytes for each in of), sum(each.brought_bytes for each in of)
    seconds = sorted(each.seconds for each in of)
    took = f"{median(seconds):.1f}/{seconds[-1]:.1f}" if seconds else "-"
    again = f"{brought / size - 1:.1%}" if size else "-"
    return f"{name:<28} {len(of):>9} {cuts:>5} {several:>7} {size:>14,} {again:>10} {took:>13} {sum(bool(each.wrong) for each in of):>5}"
