"""The names of all events, metrics and spans, and how they leave the process.

Every message has a span, whose ids are written beside each event and cross to the peer in the W3C `traceparent` header.
Whether a trace is kept, which is to say exported, is decided where it begins; what a peer wants to be kept, is within the
share that our operator allows. A span that is not kept costs 10 microseconds.
Metric labels come from closed sets only, so that no peer chooses our cardinality. Tokens and personal data have no field.
"""

from __future__ import annotations

import collections
import re
import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import accumulate
from random import getrandbits
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import orjson
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

# What an evidence row can say. The event feed shows the same words.
RECEIVED = "message-received"  # a peer's message was accepted; the state after it
SENT = "message-sent"  # a message of ours is due for delivery
ACKNOWLEDGED = "message-acknowledged"  # the peer took our message; the state after it
REFUSED = "message-refused"  # the peer refused our message for good
UNANSWERED = "message-unanswered"  # nobody took our message in its time; whether the peer has seen it is unknown
IMPLIED = "message-implied"  # the peer's next message, or its state, proved that it had taken ours
DEAD = "dead-letter"  # a delivery ran out of time or was refused; an operator has to look
REPLAYED = "dead-letter-replayed"
DISCARDED = "dead-letter-discarded"
DIVERGED = "states-diverged"  # both sides hold states that no message in flight explains
WAITING = "waiting-for-approval"
EXPIRED = "deadline-passed"
ENDED = "ended-here"  # this side ended the process without a message
DECIDED_AGAIN = "decided-again"  # the decision on a transfer is another one than before
CLOSED = "agreement-closed"  # an operator of ours closed an agreement
PERFORMED = "duty-performed"  # an operator of ours recorded an act that fulfils a duty
COVERED = "fully-delivered"  # every byte of the dataset went out at least once
PUBLISHED = "dataset-published"
WITHDRAWN = "dataset-withdrawn"
PULL = "pull"  # a stage of an order to fetch a dataset
MANIFEST_ACCEPTED = "manifest-accepted"  # what a provider has signed of a transfer of ours is what was agreed
RECEIPT_SIGNED = "receipt-signed"  # we have signed for what was verified
LEG = "leg-signed"  # what both sides have signed of a request for data and of its answer
RECEIPT_ACKNOWLEDGED = "receipt-acknowledged"  # the provider has signed that it has our receipt
REQUEST = "request-signed"  # the first request for data with each token that its consumer has signed
MANIFEST = "manifest-signed"  # what we promise of the data of a transfer
RECEIPT = "receipt-accepted"  # a consumer has signed what it has verified
RECEIPT_CONFLICT = "receipt-conflict"  # a consumer has signed two receipts with the same number
ACK = "ack-signed"  # our answer to a receipt
STATEMENT = "statement-signed"  # what a transfer came to, or what was signed for in a period
STATEMENT_AGREED = "statement-agreed"  # the other side has signed the same as we
STATEMENT_DISPUTED = "statement-disputed"  # the other side has signed what contradicts ours
CLOSING = "closing-signed"  # we have closed an agreement, and when
CLOSING_TAKEN = "closing-taken"  # the other side has signed that it has closed an agreement, and when
CLOSING_REFUSED = "closing-refused"  # a closing of the other side that is refused for good
CLOSING_ANSWERED = "closing-answered"  # our answer to a closing of the other side
CLOSING_TOLD = "closing-told"  # the other side has our closing, or has refused it for good
DISPUTE_SETTLED = "dispute-settled"  # an operator has ended the dispute about an account
CREDIT_RELEASED = "credit-released"  # an operator has written off what a transfer had not signed for when it ended
EXPORTED = "evidence-exported"  # how many entries of an agreement an export has, and which
LEDGER_BEGUN = "ledger-begun"  # a log that takes the place of one of which the database lacks what was signed
WITNESSED = "checkpoint-witnessed"  # a peer's checkpoint continues the one that we knew
CONTRADICTED = "checkpoint-contradicted"  # a peer has signed a checkpoint that contradicts the one that we knew
WHATS = (
    RECEIVED, SENT, ACKNOWLEDGED, REFUSED, IMPLIED, DEAD, REPLAYED, DISCARDED, DIVERGED, WAITING, EXPIRED, ENDED,
    DECIDED_AGAIN, CLOSED, PERFORMED, COVERED, PUBLISHED, WITHDRAWN, PULL, MANIFEST, RECEIPT, RECEIPT_CONFLICT, ACK,
    STATEMENT, STATEMENT_AGREED, STATEMENT_DISPUTED, CLOSING, CLOSING_TAKEN, CLOSING_REFUSED,
    CLOSING_ANSWERED, CLOSING_TOLD, DISPUTE_SETTLED,
    CREDIT_RELEASED, REQUEST, MANIFEST_ACCEPTED, RECEIPT_SIGNED, LEG, RECEIPT_ACKNOWLEDGED, LEDGER_BEGUN, WITNESSED,
    CONTRADICTED, UNANSWERED, EXPORTED,
)  # fmt: skip

registry = CollectorRegistry()


class _Tallies(Collector):
    """A counter for the event loop alone. The library's own is safe for threads, at some two microseconds each time, and a
    negotiation counts twenty times."""

    def __init__(self, name: str, says: str, labels: tuple[str, ...]) -> None:
        self.counts: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._about = name, says, labels
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See `Collector`."""
        name, says, labels = self._about
        family = CounterMetricFamily(name, says, labels=labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class _Level(Collector):
    """A gauge for the event loop alone."""

    def __init__(self, name: str, says: str) -> None:
        self.value = 0
        self._about = name, says
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector`."""
        yield GaugeMetricFamily(*self._about, self.value)


class _Durations(Collector):
    """A histogram of seconds, for the event loop alone."""

    def __init__(self, name: str, says: str, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._about = name, says
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See `Collector`."""
        name, says = self._about
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        yield HistogramMetricFamily(name, says, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


_messages = _Tallies("qiao_messages", "Protocol messages by type, direction and outcome", ("type", "direction", "outcome"))
_events = _Tallies("qiao_events", "Evidence rows by what they say", ("what",))
commit_seconds = _Durations(
    "qiao_store_commit_seconds", "From asking for a commit to durable", (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1)
)
outbox_open = _Level("qiao_outbox_open", "Deliveries that have no answer yet")
streams_open = Gauge("qiao_streams_open", "Responses of the data listener that are running", registry=registry)
stream_bytes = Counter("qiao_stream_bytes", "Bytes sent by the data listener", registry=registry)
streams_cut = Counter("qiao_streams_cut", "Streams cut because their permit ended, by cause", ["code"], registry=registry)
receipts = Counter("qiao_receipts", "Receipts of consumers by what became of them", ["outcome"], registry=registry)
receipted_bytes = Counter("qiao_receipted_bytes", "Bytes for which a consumer has signed", registry=registry)
receipt_seconds = Histogram(
    "qiao_receipt_seconds", "From a receipt to its durable ack", buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5), registry=registry
)
unreceipted_bytes = Gauge("qiao_unreceipted_bytes", "Bytes sent on accounts with receipts for which nobody has signed", registry=registry)
credit_waits = Counter("qiao_credit_waits", "Times that a stream waited for a receipt", registry=registry)
index_seconds = Histogram("qiao_index_seconds", "Time to index the content of data", buckets=(0.01, 0.1, 1, 10, 100), registry=registry)
index_bytes = Counter("qiao_index_bytes", "Bytes of data that were indexed", registry=registry)


def count_message(type_: str, direction: str, outcome: str) -> None:
    """Count a message; `type_` is a move, `direction` in or out, `outcome` accepted, replay, refused, unanswered
    (an attempt) or given-up."""
    _messages.counts[type_, direction, outcome] += 1


def count_events(said: Sequence[str]) -> None:
    """Count evidence rows by what they say."""
    for what in said:
        _events.counts[(what,)] += 1


def exposition() -> bytes:
    """All metrics in the text format of Prometheus."""
    return generate_latest(registry)


_SECRET_NAMES = frozenset({"authorization", "token", "secret", "password", "key", "credential", "cookie", "set_cookie"})
_SECRET_ENDINGS = ("_token", "_secret", "_password", "_key", "authorization")
# What credentials look like wherever they stand: the value after a scheme of `Authorization`, the user of an address, a JSON web token, a
# private key in PEM form, and a value that is called a token, a secret or a signature in a query, a form, a document or a `repr`.
_SECRETS = re.compile(
    r"(?i:(?<=\bbearer )|(?<=\bbasic )|(?<=\bdpop )) *[\w.~+/=-]+"
    r"|(?:(?<=://)|(?<=:/))[^\s/?#]+(?=@)"
    r"|\beyJ[\w-]{4,}(?:\.[\w-]*)*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*"
    r"""|(?i:(?<=token)|(?<=authorization)|(?<=secret)|(?<=password)|(?<=signature)|(?<=\bsig)|(?<=api_key))(?:=|['"]\s*:\s*['"])[^\s&'"]+""",
    re.DOTALL,
)
HIDDEN = "***"
DEPTH_MAX = 5  # of documents inside a field; below, they are text
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Structured events, one a line, to one stream. Written here and not taken from a library because those at hand cost a
    tenth of the memory that this process may have at rest, for features that a machine-read log does not use."""

    def __init__(self) -> None:
        self._level = LEVELS["info"]
        self._format = "json"
        self._out: TextIO | None = None

    def configure(self, level: str, fmt: str, out: TextIO | None) -> None:
        self._level, self._format, self._out = LEVELS[level], fmt, out

    def debug(self, event: str, **fields: Any) -> None:
        """As the others; each message has its lines, which nearly nobody wants."""
        if self._level <= LEVELS["debug"]:
            self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """As the others; `exc_info` takes an exception whose traceback is to stand in the event."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] < self._level:
            return
        error = fields.pop("exc_info", None)
        if isinstance(error, BaseException):
            fields["exception"] = "".join(traceback.format_exception(error))
        if (parent := traceparent.get()) is not None:
            fields |= {"trace": parent[3:35], "span": parent[36:52]}
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = {name: _shown(name, value) for name, value in fields.items()}
        out = self._out or sys.stderr
        if self._format == "json":
            line = orjson.dumps({"at": at, "level": level, "event": event} | shown).decode()
        else:
            line = f"{at} {level:7} {event:30} " + " ".join(f"{name}={value!r}" for name, value in shown.items())
        with suppress(OSError, ValueError):  # a full disk or a closed pipe must not break what the line is about
            out.write(line + "\n")
            out.flush()


def _shown(name: str, value: Any, depth: int = 0) -> Any:
    """`value` as JSON that can always be written. Last line of defence: what stands under the name of a secret, or looks like
    one, never reaches the log, however deep it lies."""
    known = name.lower().replace("-", "_")
    if known in _SECRET_NAMES or known.endswith(_SECRET_ENDINGS):
        return HIDDEN
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        return {_text(each): _shown(str(each), inner, depth + 1) for each, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH_MAX:
        return [_shown("", inner, depth + 1) for inner in value]
    return _text(value)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return _SECRETS.sub(HIDDEN, text.encode("utf-8", "backslashreplace").decode())


log = Log()


def configure_logging(level: str, fmt: str, out: TextIO | None = None) -> None:
    """Set up the log: `level` debug, info, warning or error; `fmt` json (one object a line) or console; to stderr, or `out`."""
    log.configure(level.lower(), fmt, out)


# The span that the running task is in, as a W3C traceparent: "00-<32 hex>-<16 hex>-<flags>". The first bit of the flags says, as
# in the standard, that the trace is kept somewhere; the second, which never leaves this connector, that it is not kept here.
SAMPLED, NOT_HERE = 1, 2
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def trace_header() -> dict[str, str]:
    """The header that carries the running trace to a peer; empty outside of a trace."""
    trace = traceparent.get()
    return {"traceparent": f"{trace[:-1]}{int(trace[-1]) & SAMPLED}"} if trace else {}


KEPT_FOR_PEERS_MAX = 100  # spans at once, saved up while peers wanted less than their share: some ten exchanges


class Share(Sampler):
    """Decides about messages of peers. What is kept elsewhere is kept here too, so that a trace is whole, but of all messages
    no more than `ratio`: our exporter and its disk are no peer's to fill."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._left = KEPT_FOR_PEERS_MAX if ratio else 0.0

    def should_sample(self, parent_context: Context | None, *_args: Any, **_more: Any) -> SamplingResult:
        """See `Sampler`. Called for every message that carries a trace."""
        self._left = min(KEPT_FOR_PEERS_MAX, self._left + self._ratio)
        if self._left < 1 or not otel.get_current_span(parent_context).get_span_context().trace_flags.sampled:
            return SamplingResult(Decision.DROP)
        self._left -= 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return f"Share({self._ratio:g})"


class Tracing:
    """Starts spans. `sample_ratio` is the share of traces that begin here and are kept, and the most that is kept of what
    peers begin."""

    def __init__(self, service: str, sample_ratio: float, exporters: tuple[SpanExporter, ...] = ()) -> None:
        ratio = sample_ratio if exporters else 0.0
        share = Share(ratio)
        sampler = ParentBased(TraceIdRatioBased(ratio), remote_parent_sampled=share, remote_parent_not_sampled=share)
        self._provider = TracerProvider(sampler, Resource.create({"service.name": service}))
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("connector") if ratio else None  # where nothing is kept, ids are all there is

    def span(self, name: str, kind: SpanKind, parent: str | None, **attributes: str) -> AbstractContextManager[str]:
        """Run a block as a span below `parent` (a traceparent, or None to begin a trace); yields its own traceparent.

        The parent of a span of kind SERVER is a peer's; of every other kind it is ours. A `parent` that is no traceparent
        begins a trace too. Attributes are from closed sets or process ids: never a URL with a query, a header or a body.
        """
        running = _Running()
        if self._tracer is None:
            found = _TRACEPARENT.fullmatch(parent) if parent else None
            trace = found[1] if found else f"{getrandbits(128) or 1:032x}"
            flags = SAMPLED | NOT_HERE if found and found[3] != "00" and _flags(found, remote=kind is SpanKind.SERVER) else 0
            running.header, running.span = f"00-{trace}-{getrandbits(64) or 1:016x}-0{flags}", None
            return running
        above = _read(parent, remote=kind is SpanKind.SERVER)
        running.span = span = self._tracer.start_span(name, above.context if above else None, kind, attributes)
        running.header = _header(span.get_span_context(), wanted=above is not None and above.flags > 0)
        return running

    def close(self) -> None:
        """Flush what is buffered."""
        self._provider.shutdown()


class _Running:
    """A span while its block runs. A class, since a generator in its place costs as much again for each message; for the same reason
    it is filled in by whoever makes it."""

    __slots__ = ("_token", "header", "span")
    header: str
    span: otel.Span | None

    def __enter__(self) -> str:
        self._token = traceparent.set(self.header)
        return self.header

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _where: TracebackType | None) -> None:
        traceparent.reset(self._token)
        if self.span is not None:
            if error is not None:
                self.span.set_status(StatusCode.ERROR, type(error).__name__)
            self.span.end()


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


# W3C Trace Context, 3.2.2 and 4.3: no version ff, no id of zeros; later versions than 00 may add fields behind the four.
_TRACEPARENT = re.compile(r"(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]*)?")


def _read(parent: str | None, *, remote: bool) -> _Above | None:
    """What a traceparent says, or None for what is none."""
    found = _TRACEPARENT.fullmatch(parent) if parent else None
    return _Above(found[1], found[2], _flags(found, remote=remote), remote) if found else None


def _flags(found: re.Match[str], *, remote: bool) -> int:
    """Of the flags of a peer we know the first."""
    return int(found[3], 16) & (SAMPLED if remote else SAMPLED | NOT_HERE)
