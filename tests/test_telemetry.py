"""What leaves the process about itself: one JSON object a line, never a secret; traces that cross to peers; metrics with closed labels."""

import ast
import asyncio
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector import telemetry
from connector.records import Changes, Edr
from connector.settings.fields import TelemetrySettings
from connector.signatures.jws import sign, signing_key
from tests.metrics import sample
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
        f"令牌Bearer {SECRET}",
        f"原令牌eyJ{SECRET}",
    ],
    *[f"{{'Authorization': 'Bearer {SECRET}'}}", f"{{'authorization': '{SECRET}'}}", f'{{"access_token":"{SECRET}","expires_in":3}}'],
    *[f"refresh_token={SECRET}&grant_type=x", f"https://x.example/a?access_token={SECRET}", f"https://x/a?X-Amz-Signature={SECRET}&a=b"],
    *[f"https://user:p@{SECRET}@x.example/a", f"https://user:{SECRET}@x.example/a", f"the address `ftp://{SECRET}@x` is not one"],
    *[f"https://x.blob.example/a?sv=1&sig={SECRET}", f"client_secret={SECRET}", f"password={SECRET}", PEM, f"key: {PEM}"],
    *[f'{{"secret":"{PEM}"}}', f"token={PEM}", f"we gave Bearer {PEM}"],
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


@given(st.text(alphabet="0123456789abcdef-gX", max_size=60) | st.text())
def test_no_header_of_a_peer_breaks_a_span_or_travels_on_as_it_is(header: str):
    tracing = telemetry.Tracing("x", 0.0)
    with tracing.span("x", telemetry.SpanKind.SERVER, header) as own:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", telemetry.trace_header()["traceparent"])
        assert own[:53] == telemetry.trace_header()["traceparent"][:53]
    tracing.close()


def test_without_anyone_to_tell_no_trace_is_kept_but_each_has_an_id(out: io.StringIO):
    tracing = telemetry.Tracing("x", 1.0)
    with tracing.span("x", telemetry.SpanKind.SERVER, None) as own:
        telemetry.log.info("inside")
    telemetry.log.info("outside")
    assert own.endswith("-00")
    inside, outside = lines(out)
    assert (inside["trace"], inside["span"]) == (own[3:35], own[36:52])
    assert "trace" not in outside


@pytest.mark.asyncio
async def test_tasks_that_run_at_once_have_each_their_trace():
    tracing = telemetry.Tracing("x", 0.0)

    async def work(n: int) -> tuple[str, str | None]:
        with tracing.span(f"{n}", telemetry.SpanKind.SERVER, None) as own:
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


def test_what_is_counted_is_shown():
    def counted() -> tuple[float, float]:
        message = sample("qiao_messages_total", direction="in", outcome="replay", type="dspace-test")
        return message, sample("qiao_events_total", what=telemetry.DIVERGED)

    before = counted()
    for _ in range(3):
        telemetry.count_message("dspace-test", "in", "replay")
    telemetry.count_events([telemetry.DIVERGED])
    assert counted() == (before[0] + 3, before[1] + 1)


def test_the_words_of_evidence_are_different_ones():
    assert len(set(telemetry.WHATS)) == len(telemetry.WHATS)
    tree = ast.parse(Path(telemetry.__file__).read_text())
    words = {ast.unparse(n.targets[0]): n.value.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)}
    assert set(telemetry.WHATS) == {word for name, word in words.items() if isinstance(word, str) and name not in ("HIDDEN",)}
