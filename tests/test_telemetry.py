"""What leaves the process about itself: one JSON object a line, never a secret; traces that cross to peers; metrics with closed labels."""

import ast
import asyncio
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from connector import telemetry
from connector.records import Changes, Edr
from connector.settings.fields import TelemetrySettings
from connector.signatures.jws import sign, signing_key
from tests.pair import TOKEN, call, desk, pair

SECRET = "s3cret-value-0123456789"
KEY = signing_key("did:web:a.example#k", b"k" * 32)
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEPT, LOST = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where a log in JSON goes, at level debug."""
    written = io.StringIO()
    telemetry.configure_logging("debug", "json", written)
    yield written
    telemetry.configure_logging("info", "json")


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_object_on_one_line(out: io.StringIO):
    telemetry.log.info("negotiation ended", pid="urn:x", reasons=["two\nlines", "ü"], count=3, share=0.5, none=None, sure=True)
    telemetry.log.warning("second")
    first, second = lines(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("at"))
    said = {"pid": "urn:x", "reasons": ["two\nlines", "ü"], "count": 3, "share": 0.5, "none": None, "sure": True}
    assert first == {"level": "info", "event": "negotiation ended"} | said
    assert (second["level"], second["event"]) == ("warning", "second")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_lies_below_the_level_is_not_written(level: str):
    out = io.StringIO()
    telemetry.configure_logging(level.upper(), "json", out)
    try:
        for each in telemetry.LEVELS:
            getattr(telemetry.log, each)(each)
    finally:
        telemetry.configure_logging("info", "json")
    order = list(telemetry.LEVELS)
    assert [line["event"] for line in lines(out)] == order[order.index(level) :]


def test_a_console_line_has_the_same_and_no_line_breaks():
    out = io.StringIO()
    telemetry.configure_logging("info", "console", out)
    try:
        telemetry.log.info("refused", reason="two\nlines\x1b[31m", token=SECRET, text=f"Bearer {SECRET}")
    finally:
        telemetry.configure_logging("info", "json")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    assert r"reason='two\nlines\x1b[31m' token='***' text='Bearer ***'" in out.getvalue()


def test_without_a_place_of_its_own_a_log_goes_to_stderr(capsys: pytest.CaptureFixture[str]):
    telemetry.log.info("here")
    assert '"event":"here"' in capsys.readouterr().err


def test_an_error_stands_with_its_traceback_and_without_its_secrets(out: io.StringIO):
    try:
        raise ValueError(f"the header was Authorization: Bearer {SECRET}")
    except ValueError as error:
        telemetry.log.error("defect", exc_info=error)
    (line,) = lines(out)
    assert "Traceback" in line["exception"]
    assert "ValueError: the header was Authorization: Bearer ***" in line["exception"]
    assert SECRET not in out.getvalue()


JWT = sign({"iss": "did:web:a.example", "sub": "did:web:a.example", "aud": "did:web:b.example", "jti": "x"}, KEY, "JWT")
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\nline\n-----END PRIVATE KEY-----"
LOOKS_LIKE_ONE = [
    *[
        f"Bearer {SECRET}",
        f"bearer {SECRET}",
        f"BEARER  {SECRET}",
        f"Basic {SECRET}==",
        f"DPoP {SECRET}",
        f"the header was `Bearer {SECRET}`",
    ],
    *[f"{{'Authorization': 'Bearer {SECRET}'}}", f"{{'authorization': '{SECRET}'}}", f'{{"access_token":"{SECRET}","expires_in":3}}'],
    *[f"refresh_token={SECRET}&grant_type=x", f"https://x.example/a?access_token={SECRET}", f"https://x/a?X-Amz-Signature={SECRET}&a=b"],
    *[f"https://user:p@{SECRET}@x.example/a", f"https://user:{SECRET}@x.example/a", f"the address `ftp://{SECRET}@x` is not one"],
    *[f"https://x.blob.example/a?sv=1&sig={SECRET}", f"client_secret={SECRET}", f"password={SECRET}", PEM, f"key: {PEM}"],
]
PLACES = [
    lambda text: {"reason": text},
    lambda text: {"reasons": [text, ("x", text)]},
    lambda text: {"detail": {"deep": {"deeper": [{"x": text}]}}},
    lambda text: {"detail": {text: 1}},
    lambda text: {"body": text.encode()},
    lambda text: {"error": ValueError(text)},
    lambda text: {"path": Path(text)},
    lambda text: {"far": [[[[[[[[{"x": text}]]]]]]]]},
    lambda text: {"some": {text}},
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", [*LOOKS_LIKE_ONE, JWT, f"got {JWT} from a peer"], ids=lambda text: text[:24].splitlines()[0])
def test_what_looks_like_a_credential_is_written_nowhere(out: io.StringIO, text: str, place: Any):
    telemetry.log.error("refused", **place(text))
    (line,) = lines(out)
    assert "***" in json.dumps(line)
    for secret in (SECRET, *JWT.split(".")):
        assert secret not in out.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *["authorization", "Authorization", "Proxy-Authorization", "token", "access_token", "refresh-token", "secret", "client_secret"],
        *["password", "db_password", "key", "api_key", "X-Api-Key", "credential", "cookie", "Set-Cookie"],
    ],
)
@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET], {"x": SECRET}, 5])
def test_what_goes_by_the_name_of_one_is_written_nowhere_either(out: io.StringIO, name: str, value: Any):
    telemetry.log.info("x", **{name: value})
    telemetry.log.info("x", headers={name: value}, more=[{name: value}])
    first, second = lines(out)
    assert first[name] == second["headers"][name] == second["more"][0][name] == "***"
    assert SECRET not in out.getvalue()


def test_what_is_none_is_written_as_it_is(out: io.StringIO):
    """Reasons are for people: a word that a credential has in common with them stays."""
    harmless = [
        *["the token is not for this participant", "the key `did:web:a#k` is not known", "the bearer", "a secret: none", "password"],
        *["tokens 5", "eyJ", "eye", "urn:uuid:01890000-0000-7000-8000-000000000001", "https://x.example/a?b=c", "sha256=ab", "signed"],
    ]
    telemetry.log.info("x", reasons=harmless)
    assert lines(out)[0]["reasons"] == harmless


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just("\ud800\udcff"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=12,
)


@given(st.text(), st.dictionaries(st.text(min_size=1).filter(lambda name: name not in ("event", "self")), anything, max_size=4))
def test_whatever_is_logged_becomes_a_line_of_json(event: str, fields: dict[str, Any]):
    out = io.StringIO()
    telemetry.configure_logging("debug", "json", out)
    try:
        telemetry.log.info(event, **fields)
    finally:
        telemetry.configure_logging("info", "json")
    assert out.getvalue().count("\n") == 1
    json.loads(out.getvalue())


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_breaks_nothing():
    closed = io.StringIO()
    closed.close()
    for place in (Broken(), closed):
        telemetry.configure_logging("debug", "json", place)
        try:
            telemetry.log.error("x", y=1)
        finally:
            telemetry.configure_logging("info", "json")


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
    with kept[0].span("outer", SpanKind.SERVER, None, route="POST /x") as outer:
        assert telemetry.trace_header() == {"traceparent": outer}
        with kept[0].span("inner", SpanKind.CLIENT, outer) as inner:
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
    with kept[0].span("x", SpanKind.SERVER, header) as own:
        pass
    assert own[:35] == f"00-{TRACE}"
    assert own[36:52] != SPAN
    assert own[-2:] == "01"
    assert spans(kept)["x"].parent.span_id == int(SPAN, 16)


@pytest.mark.parametrize("header", [LOST, KEPT[:-2] + "02", "cc" + LOST[2:], "cc" + LOST[2:] + "-x"])
def test_a_trace_that_a_peer_does_not_keep_has_its_spans_too_and_still_crosses(kept: Any, out: io.StringIO, header: str):
    with kept[0].span("x", SpanKind.SERVER, header) as own:
        assert telemetry.trace_header() == {"traceparent": own}
        telemetry.log.info("inside")
        with kept[0].span("y", SpanKind.CLIENT, own) as inner:
            pass
    assert (own[:35], own[-2:], inner[:35], inner[-2:]) == (LOST[:35], "00", LOST[:35], "00")
    assert len({SPAN, own[36:52], inner[36:52]}) == 3
    assert (lines(out)[0]["trace"], lines(out)[0]["span"]) == (TRACE, own[36:52])
    assert spans(kept) == {}


def exported(ratio: float, flags: Iterable[str]) -> int:
    """How many spans are kept of messages of a peer that wants these kept."""
    exporter = InMemorySpanExporter()
    tracing = telemetry.Tracing("x", ratio, (exporter,))
    for number, flag in enumerate(flags):
        with tracing.span("x", SpanKind.SERVER, f"00-{TRACE}-{number + 1:016x}-{flag}") as own, tracing.span("y", SpanKind.CLIENT, own):
            pass
        assert own[3:35] == TRACE, "whatever we keep, the trace goes on"
    tracing.close()
    return len([span for span in exporter.get_finished_spans() if span.name == "x"])


def test_no_peer_makes_us_keep_more_than_the_share_that_our_operator_allows():
    assert exported(0.01, ["01"] * 2_000) == pytest.approx(telemetry.KEPT_FOR_PEERS_MAX + 20, abs=1)
    assert exported(0.0, ["01"] * 200) == 0
    assert exported(0.01, ["03"] * 200) == exported(0.01, ["ff"] * 200) == telemetry.KEPT_FOR_PEERS_MAX + 1
    assert exported(1.0, ["01"] * 300) == 300


def test_a_trace_that_others_keep_is_not_cut_by_one_that_does_not(kept: Any):
    """It began here and is kept; it comes back through a connector that has nobody to tell, and through that one's outbox."""
    elsewhere = telemetry.Tracing("x", 0.0)
    with kept[0].span("ours", SpanKind.CLIENT, None):
        header = telemetry.trace_header()["traceparent"]
    with elsewhere.span("received", SpanKind.SERVER, header) as stored:
        assert telemetry.trace_header()["traceparent"][-2:] == "01"
    with elsewhere.span("sent later", SpanKind.CLIENT, stored):
        header = telemetry.trace_header()["traceparent"]
    elsewhere.close()
    assert (header[3:35], header[-2:]) == (stored[3:35], "01")
    with kept[0].span("back", SpanKind.SERVER, header):
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
    with kept[0].span("x", SpanKind.SERVER, header) as own:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", own)
        assert own[3:35] not in (TRACE, "0" * 32)
    assert spans(kept)["x"].parent is None


@given(st.text(alphabet="0123456789abcdef-gX", max_size=60) | st.text())
def test_no_header_of_a_peer_breaks_a_span_or_travels_on_as_it_is(header: str):
    tracing = telemetry.Tracing("x", 0.0)
    with tracing.span("x", SpanKind.SERVER, header) as own:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", telemetry.trace_header()["traceparent"])
        assert own[:53] == telemetry.trace_header()["traceparent"][:53]
    tracing.close()


def test_without_anyone_to_tell_no_trace_is_kept_but_each_has_an_id(out: io.StringIO):
    tracing = telemetry.Tracing("x", 1.0)
    with tracing.span("x", SpanKind.SERVER, None) as own:
        telemetry.log.info("inside")
    telemetry.log.info("outside")
    assert own.endswith("-00")
    inside, outside = lines(out)
    assert inside["trace"] == own[3:35]
    assert "trace" not in outside


def test_a_span_that_ends_in_an_error_names_its_kind_and_not_its_text(kept: Any):
    with pytest.raises(ValueError, match="x"), kept[0].span("x", SpanKind.CLIENT, KEPT):
        raise ValueError(f"x Bearer {SECRET}")
    assert telemetry.traceparent.get() is None
    span = spans(kept)["x"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert SECRET not in span.to_json()


@pytest.mark.asyncio
async def test_tasks_that_run_at_once_have_each_their_trace(kept: Any):
    async def work(n: int) -> tuple[str, str | None]:
        with kept[0].span(f"{n}", SpanKind.SERVER, None) as own:
            await asyncio.sleep(0)
            return own, telemetry.traceparent.get()

    found = await asyncio.gather(*(work(n) for n in range(20)))
    assert all(own == seen for own, seen in found)
    assert len({own[3:35] for own, _ in found}) == 20


def read_spans(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.asyncio
async def test_one_trace_runs_through_a_whole_exchange_and_no_secret_with_it(tmp_path: Path, out: io.StringIO):
    """From the call of an operator over every message on both sides to the bytes; nowhere in logs or spans is a token."""
    files = {name: tmp_path / f"{name}.spans" for name in ("hospital", "biopharma")}
    sections = {name: {"telemetry": TelemetrySettings(sample_ratio=1.0, spans_file=file)} for name, file in files.items()}
    async with pair(tmp_path, provider=sections["hospital"], consumer=sections["biopharma"]) as both:
        await both.provider.publish("urn:d", content=b"x" * 100_000)
        order = {"peer": "hospital", "dataset": "urn:d", "out": str(both.consumer.site.root / "out/d")}
        done, secrets = asyncio.Event(), [TOKEN, "eyJ", "Bearer e"]

        def listener(changes: Changes, _evidence: Any) -> None:
            secrets.extend(token for each in changes.saves if isinstance(each, Edr) for token in (each.access_token, each.refresh_token))
            done.set()

        both.consumer.connector.journal.listen(listener)
        pull = (await both.consumer.asked("POST", "/pulls", order, status=201))["id"]
        async with asyncio.timeout(20):
            while (stood := await both.consumer.asked("GET", f"/pulls/{pull}"))["stage"] not in ("done", "failed"):
                await done.wait()
                done.clear()
        assert stood["stage"] == "done", stood
    assert len(secrets) >= 5
    found = {name: read_spans(file) for name, file in files.items()}
    order_span = next(span for span in found["biopharma"] if span["name"] == "management POST /v1/pulls")
    trace = order_span["context"]["trace_id"]
    by_site = {name: [span for span in spans if span["context"]["trace_id"] == trace] for name, spans in found.items()}
    sent = [(site, span) for site, spans in by_site.items() for span in spans if span["name"].startswith("send ")]
    kinds = [(site, span["name"].removeprefix("send ")) for site, span in sent]
    assert sorted(kinds) == [
        *[("biopharma", f"{name}Message") for name in ("ContractAgreementVerification", "ContractRequest", "TransferCompletion")],
        ("biopharma", "TransferRequestMessage"),
        *[("hospital", f"{name}Message") for name in ("ContractAgreement", "ContractNegotiationEvent", "TransferStart")],
    ]
    parents = {name: {span["parent_id"] for span in spans} for name, spans in by_site.items()}
    for site, span in sent:  # each message is a span on either side, one below the other
        other = "hospital" if site == "biopharma" else "biopharma"
        assert span["context"]["span_id"] in parents[other], span["name"]
    assert "data GET /data/{pid}" in {span["name"] for span in by_site["hospital"]}
    written = out.getvalue() + "".join(file.read_text() for file in files.values())
    for secret in secrets:
        assert secret not in written
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}, "with whom we deal is nobody else's business"


OUTCOMES = {"accepted", "replay", "refused", "unanswered", "given-up"} | {"duplicate", "stale", "conflict"}  # of messages, and of receipts


@pytest.mark.asyncio
async def test_no_peer_chooses_the_labels_of_our_metrics(tmp_path: Path, out: io.StringIO):
    async with desk(tmp_path) as d:
        for n in range(5):
            body = {"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": f"Made{n}Message", "x": f"value{n}"}
            for path in ("/negotiations/request", f"/negotiations/urn:made:{n}/events", f"/made{n}/up"):
                await d.peer.send(d.us, "POST", path, body, traceparent=f"00-made{n}")
        ops = f"http://127.0.0.1:{d.us.connector.ports['ops']}/metrics"
        text = (await call(d.us.http, "GET", ops)).body.decode()
    assert "made" not in text.lower()
    assert d.peer.id not in text
    labels = set(re.findall(r'(\w+)="', text))
    assert labels <= {"type", "direction", "outcome", "what", "code", "le", "purpose"}
    assert set(re.findall(r'what="([^"]*)"', text)) <= set(telemetry.WHATS)
    assert set(re.findall(r'direction="([^"]*)"', text)) <= {"in", "out"}
    assert set(re.findall(r'outcome="([^"]*)"', text)) <= OUTCOMES


def value(sample: str) -> float:
    """Of one sample in the exposition, 0 if it is not there."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", telemetry.exposition().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_is_counted_is_shown():
    message = 'qiao_messages_total{direction="in",outcome="replay",type="dspace-test"}'
    event = f'qiao_events_total{{what="{telemetry.DIVERGED}"}}'
    before = value(message), value(event)
    for _ in range(3):
        telemetry.count_message("dspace-test", "in", "replay")
    telemetry.count_events([telemetry.DIVERGED])
    assert (value(message), value(event)) == (before[0] + 3, before[1] + 1)


def test_the_words_of_evidence_are_different_ones():
    assert len(set(telemetry.WHATS)) == len(telemetry.WHATS)
    tree = ast.parse(Path(telemetry.__file__).read_text())
    words = {ast.unparse(n.targets[0]): n.value.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)}
    assert set(telemetry.WHATS) == {word for name, word in words.items() if isinstance(word, str) and name not in ("HIDDEN",)}
