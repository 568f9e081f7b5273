"""The names of all events, metrics and spans, and how they leave the process.

Every message has a span, whose ids are written beside each event and cross to the peer in the W3C `traceparent` header.
Whether a trace is kept, which is to say exported, is decided where it begins; what a peer wants to be kept, is within the
share that our operator allows. A span that is not kept costs 10 microseconds.
Metric labels come from closed sets only, so that no peer chooses our cardinality. Tokens and personal data have no field.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum, auto
from random import getrandbits
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from connector import telemetry_metrics as metrics
from connector.signatures.credentials import CREDENTIAL, PERHAPS, WHOLE_KEY

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from connector.telemetry_spans import Keeping

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

_messages = metrics.Tallies("qiao_messages", "Protocol messages by type, direction and outcome", ("type", "direction", "outcome"))
_events = metrics.Tallies("qiao_events", "Evidence rows by what they say", ("what",))
commit_seconds = metrics.Durations(
    "qiao_store_commit_seconds", "From asking for a commit to durable", (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1)
)
outbox_open = metrics.Level("qiao_outbox_open", "Deliveries that have no answer yet")
streams_open = metrics.Gauge("qiao_streams_open", "Responses of the data listener that are running")
stream_bytes = metrics.Counter("qiao_stream_bytes", "Bytes sent by the data listener")
streams_cut = metrics.Counter("qiao_streams_cut", "Streams cut because their permit ended, by cause", ("code",))
receipts = metrics.Counter("qiao_receipts", "Receipts of consumers by what became of them", ("outcome",))
receipted_bytes = metrics.Counter("qiao_receipted_bytes", "Bytes for which a consumer has signed")
receipt_seconds = metrics.Histogram(
    "qiao_receipt_seconds", "From a receipt to its durable ack", bounds=(0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5)
)
unreceipted_bytes = metrics.Gauge("qiao_unreceipted_bytes", "Bytes sent on accounts with receipts for which nobody has signed")
credit_waits = metrics.Counter("qiao_credit_waits", "Times that a stream waited for a receipt")
index_seconds = metrics.Histogram("qiao_index_seconds", "Time to index the content of data", bounds=(0.01, 0.1, 1, 10, 100))
hashing_lanes = metrics.Gauge("qiao_hashing_lanes", "Leaves that are hashed at a time in vector registers; 0: one, by hashlib")
index_bytes = metrics.Counter("qiao_index_bytes", "Bytes of data that were indexed")


def count_message(type_: str, direction: str, outcome: str) -> None:
    """Count a message; `type_` is a move, `direction` in or out, `outcome` accepted, replay, refused, unanswered
    (an attempt) or given-up."""
    _messages.counts[type_, direction, outcome] += 1


def count_events(said: Sequence[str]) -> None:
    """Count evidence rows by what they say."""
    for what in said:
        _events.counts[(what,)] += 1


_SECRET_NAMES = frozenset({"authorization", "token", "secret", "password", "key", "credential", "cookie", "set_cookie"})
_SECRET_ENDINGS = ("_token", "_secret", "_password", "_key", "authorization")
_KEYS, _SECRETS = re.compile(WHOLE_KEY), re.compile(f"{PERHAPS}|{CREDENTIAL}")
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
    return _SECRETS.sub(HIDDEN, _KEYS.sub(HIDDEN, text.encode("utf-8", "backslashreplace").decode()))


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


class SpanKind(Enum):
    """Which end of a message a span is."""

    SERVER = auto()
    CLIENT = auto()


class Tracing:
    """Starts spans. `sample_ratio` is the share of traces that begin here and are kept, and the most that is kept of what
    peers begin. Where nothing is kept, ids are all there is, and what keeps spans is not loaded."""

    def __init__(self, service: str, sample_ratio: float, exporters: tuple[SpanExporter, ...] = ()) -> None:
        self._keeping: Keeping | None = None
        if exporters and sample_ratio:
            from connector.telemetry_spans import Keeping

            self._keeping = Keeping(service, sample_ratio, exporters)

    def span(self, name: str, kind: SpanKind, parent: str | None, **attributes: str) -> AbstractContextManager[str]:
        """Run a block as a span below `parent` (a traceparent, or None to begin a trace); yields its own traceparent.

        The parent of a span of kind SERVER is a peer's; of every other kind it is ours. A `parent` that is no traceparent
        begins a trace too. Attributes are from closed sets or process ids: never a URL with a query, a header or a body.
        """
        running = _Running()
        if self._keeping is not None:
            running.header, running.ended = self._keeping.begin(name, kind, parent, attributes)
            return running
        found = TRACEPARENT.fullmatch(parent) if parent else None
        trace = found[1] if found else f"{getrandbits(128) or 1:032x}"
        flags = SAMPLED | NOT_HERE if found and found[3] != "00" and flags_of(found, remote=kind is SpanKind.SERVER) else 0
        running.header, running.ended = f"00-{trace}-{getrandbits(64) or 1:016x}-0{flags}", None
        return running

    def close(self) -> None:
        """Flush what is buffered."""
        if self._keeping is not None:
            self._keeping.close()


class _Running:
    """A span while its block runs. A class, since a generator in its place costs as much again for each message; for the same reason
    it is filled in by whoever makes it."""

    __slots__ = ("_token", "ended", "header")
    header: str
    ended: Callable[[BaseException | None], None] | None

    def __enter__(self) -> str:
        self._token = traceparent.set(self.header)
        return self.header

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _where: TracebackType | None) -> None:
        traceparent.reset(self._token)
        if self.ended is not None:
            self.ended(error)


# W3C Trace Context, 3.2.2 and 4.3: no version ff, no id of zeros; later versions than 00 may add fields behind the four.
TRACEPARENT = re.compile(r"(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]*)?")


def flags_of(found: re.Match[str], *, remote: bool) -> int:
    """The flags of a traceparent. Of those of a peer we know the first."""
    return int(found[3], 16) & (SAMPLED if remote else SAMPLED | NOT_HERE)
