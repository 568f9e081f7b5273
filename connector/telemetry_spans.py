"""Spans that are kept: OpenTelemetry makes them, and hands them to exporters. Loaded only where one is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased

from connector.telemetry import NOT_HERE, SAMPLED, TRACEPARENT, SpanKind, flags_of

KEPT_FOR_PEERS_MAX = 100  # spans at once, saved up while peers wanted less than their share: some ten exchanges
KINDS = {SpanKind.SERVER: otel.SpanKind.SERVER, SpanKind.CLIENT: otel.SpanKind.CLIENT}


class Share(Sampler):
    """Decides about messages of peers. What is kept elsewhere is kept here too, so that a trace is whole, but of all messages
    no more than `ratio`: our exporter and its disk are no peer's to fill."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._left = float(KEPT_FOR_PEERS_MAX)

    def should_sample(self, parent_context: Context | None, *_args: Any, **_more: Any) -> SamplingResult:
        """See `Sampler`. Called for every message that carries a trace."""
        self._left = min(KEPT_FOR_PEERS_MAX, self._left + self._ratio)
        if self._left < 1 or not otel.get_current_span(parent_context).get_span_context().trace_flags.sampled:
            return SamplingResult(Decision.DROP)
        self._left -= 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return f"Share({self._ratio:g})"


class Keeping:
    """Begins spans of which some are kept, and hands those to `exporters`; `ratio` as that of `Tracing`, more than 0."""

    def __init__(self, service: str, ratio: float, exporters: tuple[SpanExporter, ...]) -> None:
        share = Share(ratio)
        sampler = ParentBased(TraceIdRatioBased(ratio), remote_parent_sampled=share, remote_parent_not_sampled=share)
        self._provider = TracerProvider(sampler, Resource.create({"service.name": service}))
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("connector")

    def begin(
        self, name: str, kind: SpanKind, parent: str | None, attributes: Mapping[str, str]
    ) -> tuple[str, Callable[[BaseException | None], None]]:
        """Begin a span as `Tracing.span` does; returns its traceparent, and what ends it with the error that it has met, or None."""
        above = _read(parent, remote=kind is SpanKind.SERVER)
        span = self._tracer.start_span(name, above.context if above else None, KINDS[kind], attributes)
        return _header(span.get_span_context(), wanted=above is not None and above.flags > 0), partial(_end, span)

    def close(self) -> None:
        """Flush what is buffered."""
        self._provider.shutdown()


def _end(span: otel.Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_status(otel.StatusCode.ERROR, type(error).__name__)
    span.end()


def _header(own: otel.SpanContext, *, wanted: bool) -> str:
    flags = SAMPLED if own.trace_flags.sampled else SAMPLED | NOT_HERE if wanted else 0
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-0{flags}"


class _Above(NamedTuple):
    """What a traceparent says: ids in hexadecimal; `flags` are not 0 if anybody keeps the trace."""

    trace: str
    span: str
    flags: int
    remote: bool

    @property
    def context(self) -> Context:
        kept = otel.TraceFlags(self.flags == SAMPLED)
        above = otel.SpanContext(int(self.trace, 16), int(self.span, 16), is_remote=self.remote, trace_flags=kept)
        return otel.set_span_in_context(otel.NonRecordingSpan(above))


def _read(parent: str | None, *, remote: bool) -> _Above | None:
    """What a traceparent says, or None for what is none."""
    found = TRACEPARENT.fullmatch(parent) if parent else None
    return _Above(found[1], found[2], flags_of(found, remote=remote), remote) if found else None
