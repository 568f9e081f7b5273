"""Spans that are kept, in the exporter that they are handed to."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from connector import telemetry
from connector.telemetry_spans import KEPT_FOR_PEERS_MAX

SECRET = "s3cret-value-0123456789"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEPT, LOST = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def kept() -> Iterator[tuple[telemetry.Tracing, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracing = telemetry.Tracing("hospital", 1.0, (exporter,))
    yield tracing, exporter
    tracing.close()


def spans(kept: tuple[telemetry.Tracing, InMemorySpanExporter]) -> dict[str, Any]:
    kept[0].close()
    return {span.name: span for span in kept[1].get_finished_spans()}


def test_a_trace_begins_here_and_goes_on_in_what_it_causes(kept: Any):
    with kept[0].span("outer", telemetry.SpanKind.SERVER, None, route="POST /x") as outer:
        assert telemetry.trace_header() == {"traceparent": outer}
        with kept[0].span("inner", telemetry.SpanKind.CLIENT, outer) as inner:
            assert telemetry.trace_header() == {"traceparent": inner}
        assert telemetry.traceparent.get() == outer
    assert telemetry.trace_header() == {}
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", outer)
    assert outer[3:35] == inner[3:35]
    assert outer[36:52] != inner[36:52]
    found = spans(kept)
    assert found["inner"].parent.span_id == found["outer"].context.span_id == int(outer[36:52], 16)
    assert found["outer"].parent is None
    assert found["outer"].kind is SpanKind.SERVER
    assert dict(found["outer"].attributes) == {"route": "POST /x"}
    assert found["outer"].resource.attributes["service.name"] == "hospital"


@pytest.mark.parametrize("header", [KEPT, KEPT[:-2] + "03", KEPT[:-2] + "ff", "cc" + KEPT[2:], "01" + KEPT[2:] + "-more-fields"])
def test_a_trace_that_a_peer_keeps_goes_on_here(kept: Any, header: str):
    with kept[0].span("x", telemetry.SpanKind.SERVER, header) as own:
        pass
    assert own[:35] == f"00-{TRACE}"
    assert own[36:52] != SPAN
    assert own[-2:] == "01"
    assert spans(kept)["x"].parent.span_id == int(SPAN, 16)


@pytest.mark.parametrize("header", [LOST, KEPT[:-2] + "02", "cc" + LOST[2:], "cc" + LOST[2:] + "-x"])
def test_a_trace_that_a_peer_does_not_keep_has_its_spans_too_and_still_crosses(kept: Any, header: str):
    with kept[0].span("x", telemetry.SpanKind.SERVER, header) as own:
        assert telemetry.trace_header() == {"traceparent": own}
        with kept[0].span("y", telemetry.SpanKind.CLIENT, own) as inner:
            pass
    assert (own[:35], own[-2:], inner[:35], inner[-2:]) == (LOST[:35], "00", LOST[:35], "00")
    assert len({SPAN, own[36:52], inner[36:52]}) == 3
    assert spans(kept) == {}


def exported(ratio: float, flags: Iterable[str]) -> int:
    """How many spans are kept of messages of a peer that wants these kept."""
    exporter = InMemorySpanExporter()
    tracing = telemetry.Tracing("x", ratio, (exporter,))
    for number, flag in enumerate(flags):
        with (
            tracing.span("x", telemetry.SpanKind.SERVER, f"00-{TRACE}-{number + 1:016x}-{flag}") as own,
            tracing.span("y", telemetry.SpanKind.CLIENT, own),
        ):
            pass
        assert own[3:35] == TRACE, "whatever we keep, the trace goes on"
    tracing.close()
    return len([span for span in exporter.get_finished_spans() if span.name == "x"])


def test_no_peer_makes_us_keep_more_than_the_share_that_our_operator_allows():
    assert exported(0.01, ["01"] * 2_000) == pytest.approx(KEPT_FOR_PEERS_MAX + 20, abs=1)
    assert exported(0.0, ["01"] * 200) == 0
    assert exported(0.01, ["03"] * 200) == exported(0.01, ["ff"] * 200) == KEPT_FOR_PEERS_MAX + 1
    assert exported(1.0, ["01"] * 300) == 300


def test_a_trace_that_others_keep_is_not_cut_by_one_that_does_not(kept: Any):
    """It began here and is kept; it comes back through a connector that has nobody to tell, and through that one's outbox."""
    elsewhere = telemetry.Tracing("x", 0.0)
    with kept[0].span("ours", telemetry.SpanKind.CLIENT, None):
        header = telemetry.trace_header()["traceparent"]
    with elsewhere.span("received", telemetry.SpanKind.SERVER, header) as stored:
        assert telemetry.trace_header()["traceparent"][-2:] == "01"
    with elsewhere.span("sent later", telemetry.SpanKind.CLIENT, stored):
        header = telemetry.trace_header()["traceparent"]
    elsewhere.close()
    assert (header[3:35], header[-2:]) == (stored[3:35], "01")
    with kept[0].span("back", telemetry.SpanKind.SERVER, header):
        pass
    found = spans(kept)
    assert found["back"].parent.span_id == int(header[36:52], 16)
    assert found["back"].context.trace_id == found["ours"].context.trace_id


def test_what_a_peer_keeps_within_that_share_is_kept_here_too_so_that_traces_are_whole():
    assert exported(0.01, (["01"] + ["00"] * 99) * 20) == 20
    assert exported(0.01, ["00"] * 100) == 0


FOREIGN = [
    *["", "-", "00", "garbage", "00-x-y-01", KEPT.upper(), KEPT[:-1], KEPT + "0", KEPT + "-", KEPT + "-00", " " + KEPT, KEPT + "\n"],
    *["ff" + KEPT[2:], "0" + KEPT, f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{'0' * 16}-00"],
    *[f"00-{'0' * 32}-{SPAN}-00", f"00-{TRACE[:-1]}-{SPAN}-01"],
    *[f"00-{TRACE}-{SPAN}-0x", f"00_{TRACE}_{SPAN}_01", f"00-{TRACE}-{SPAN}-01, {KEPT}", KEPT.replace("0", "٠"), "cc" + KEPT[2:] + "x"],
    *["cc" + KEPT[2:] + "-\r\nX: y", "\udcff" * 55, "0" * 10_000],
]


@pytest.mark.parametrize("header", FOREIGN, ids=lambda header: repr(header[:60]))
def test_what_is_no_traceparent_begins_a_trace_of_our_own(kept: Any, header: str):
    with kept[0].span("x", telemetry.SpanKind.SERVER, header) as own:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", own)
        assert own[3:35] not in (TRACE, "0" * 32)
    assert spans(kept)["x"].parent is None


def test_a_span_that_ends_in_an_error_names_its_kind_and_not_its_text(kept: Any):
    with pytest.raises(ValueError, match="x"), kept[0].span("x", telemetry.SpanKind.CLIENT, KEPT):
        raise ValueError(f"x Bearer {SECRET}")
    assert telemetry.traceparent.get() is None
    span = spans(kept)["x"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert SECRET not in span.to_json()
