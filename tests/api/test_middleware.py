"""What every request meets: the limits of a body, paths that mean something else, a trace, and one form for each error."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from connector import errors, telemetry
from connector.api.middleware import Handler, Limits, Running, Straight, Whole, guard, problem, read_body
from connector.errors import ANSWERS, ConnectorError, InvalidRequest, NotAuthorized, PolicyError, Refused
from connector.odrl import Code, Finding
from tests.api.conftest import Routes, opened, spoken
from tests.pair import Answer, call

pytestmark = pytest.mark.asyncio
LIMITS = Limits(1000, 0.2)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
SECRET = "file-of-the-operator"
CRLF = "\r\n"


async def bodied(request: web.Request) -> web.Response:
    return web.Response(body=await read_body(request, LIMITS))


async def whole(_request: web.Request) -> web.Response:
    return Whole(b'{"a": 1}', 201, {"Location": "/v1/a"})


async def same(_request: web.Request) -> web.Response:
    return web.Response(body=b'{"a": 1}', status=201, headers={"Location": "/v1/a"}, content_type="application/json")


async def split(_request: web.Request) -> web.Response:
    return Whole(b"{}", 201, {"Location": "/v1/a\r\nSet-Cookie: b=c"})


async def told(request: web.Request) -> web.Response:
    return web.json_response({"trace": telemetry.traceparent.get(), **request.match_info})


def routes(app: web.Application) -> None:
    app.router.add_post("/body", bodied)
    app.router.add_get("/told", told)
    for name, handler in (("whole", whole), ("same", same), ("split", split)):
        app.router.add_post(f"/{name}", handler)
    app.router.add_get("/things/{id}", told)
    app.router.add_get("/datasets/{id}", told)
    app.router.add_get("/agreements/{id}", told)
    app.router.add_get("/agreements/{id}/usage", told)
    app.router.add_get("/things/{id}/usage", told)


def failing(error: BaseException) -> Routes:
    async def fail(_request: web.Request) -> web.Response:
        raise error

    return lambda app: app.router.add_get("/", fail) and None


async def asked(method: str, path: str, data: Any = None, *, routes: Routes = routes, **headers: str) -> Answer:
    middleware = guard(telemetry.Tracing("test", 0.0), "management", problem)
    async with opened(routes, [middleware]) as door, aiohttp.ClientSession() as http:
        return await call(http, method, f"http://127.0.0.1:{door.port}{path}", data, headers)


# ---- bodies


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/ld+json", 200),
        ("APPLICATION/JSON", 200),
        ("application/jsonx", 415),
        ("text/json", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        (";;", 415),
    ],
)
async def test_json_and_its_kin_are_taken_and_nothing_else(type_: str, status: int):
    answer = await asked("POST", "/body", b"{}", **{"Content-Type": type_})
    assert answer.status == status
    if status == 415:
        assert "send application/json or application/ld+json" in answer.json["detail"]


@pytest.mark.parametrize(
    ("encoding", "status"), [("identity", 200), ("Identity", 200), ("gzip", 415), ("br", 415), ("gzip, identity", 415)]
)
async def test_bodies_come_as_they_are(encoding: str, status: int):
    assert (await asked("POST", "/body", b"{}", **{"Content-Encoding": encoding})).status == status


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(LIMITS.body_bytes, 200), (LIMITS.body_bytes + 1, 413), (300_000, 413)])
async def test_a_body_is_counted_by_what_arrives(size: int, status: int, chunked: bool):
    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, size, 997):
            yield b"x" * min(997, size - begin)

    async with opened(routes, [guard(telemetry.Tracing("test", 0.0), "protocol", problem)]) as door, aiohttp.ClientSession() as http:
        data = pieces() if chunked else b"x" * size
        said = {"Content-Type": "application/json"}
        async with http.post(f"http://127.0.0.1:{door.port}/body", data=data, headers=said) as answer:
            body = await answer.read()
    assert answer.status == status
    assert len(body) == size if status == 200 else f"limit of {LIMITS.body_bytes}" in body.decode()


async def test_a_body_has_its_time_however_it_drips():
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    async with opened(routes, [guard(telemetry.Tracing("test", 0.0), "protocol", problem)]) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        started = time.monotonic()
        writer.write(head)

        async def dripping() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(LIMITS.body_seconds / 3)

        task = asyncio.create_task(dripping())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        task.cancel()
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"Connection: close" in answer
    assert LIMITS.body_seconds * 0.9 < time.monotonic() - started < 3


async def test_what_was_refused_unread_is_not_taken_for_the_next_request():
    """Otherwise a body could carry a request of its own past whoever stands in front (request smuggling)."""
    hidden = b"GET /told HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /things/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    async with opened(routes, [guard(telemetry.Tracing("test", 0.0), "protocol", problem)]) as door:
        answer = await spoken(door.port, head + hidden)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 405")


@pytest.mark.parametrize(
    ("version", "header", "said"),
    [
        ("1.1", "Connection: close\r\n", b"HTTP/1.1 201 Created, Connection: close"),
        ("1.0", "", b"HTTP/1.0 201 Created"),
        ("1.0", "Connection: keep-alive\r\n", b"HTTP/1.0 201 Created, Connection: keep-alive"),
    ],
)
async def test_a_whole_answer_says_what_becomes_of_the_connection_and_nothing_of_its_software(version: str, header: str, said: bytes):
    first = f"POST /whole HTTP/{version}\r\nHost: x\r\n{header}\r\n".encode()
    last = b"POST /whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" if b"keep-alive" in said else b""
    async with opened(routes, [guard(telemetry.Tracing("test", 0.0), "protocol", problem)]) as door:
        answer = await spoken(door.port, first + last)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert b", ".join(line for line in lines if not line.startswith((b"Content-", b"Date: ", b"Location: "))) == said
    assert {b"Content-Type: application/json", b"Content-Length: 8", b"Location: /v1/a"} < set(lines)
    assert body[:8] == b'{"a": 1}'
    assert body.count(b"HTTP/1.1 201") == (1 if last else 0)


async def test_a_whole_answer_is_what_aiohttp_makes_of_the_same_and_one_that_a_header_would_split_does_not_leave():
    last = b"POST /same HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    asking = ("", "Connection: close", "Connection: keep-alive", "Accept-Encoding: gzip", "Cookie: a=b", "Expect: 100-continue")
    async with opened(routes, [guard(telemetry.Tracing("test", 0.0), "protocol", problem)]) as door:
        for version, header, body in product(("1.0", "1.1"), asking, ("", "abc")):
            rest = f" HTTP/{version}\r\nHost: x\r\n{header}{header and CRLF}Content-Length: {len(body)}\r\n\r\n{body}".encode()
            answers = [await spoken(door.port, b"POST /" + name + rest + last) for name in (b"whole", b"same")]
            whole_, same_ = (sorted(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")) for answer in answers)
            assert whole_ == same_, (version, header, body)
        assert await spoken(door.port, b"POST /split HTTP/1.1\r\nHost: x\r\n\r\n") == b""


# ---- paths


@pytest.mark.parametrize(
    "path",
    ["//told", "/things/a%2Fb", "/things/a%2fb", "/things/%5c", "/things/a;b", "/things/%00", "/x/../told", "/./told", "/things/a//b"],
)
async def test_a_path_that_others_read_differently_leads_nowhere(path: str):
    assert (await asked("GET", path)).status == 404


async def test_only_ids_that_others_choose_may_carry_an_escaped_slash():
    for before, behind in (("/datasets/", ""), ("/agreements/", ""), ("/agreements/", "/usage")):
        answer = await asked("GET", f"{before}https%3A%2F%2Fa%2Fb%3Bc{behind}")
        assert (answer.status, answer.json["id"]) == (200, "https://a/b;c")
        for path in ("a%00b", "a/b", "a//b", "..", "/x", "."):
            assert (await asked("GET", f"{before}{path}{behind or '/'}")).status == 404, path
    assert (await asked("GET", "/things/a%2Fb/usage")).status == 404


async def test_a_door_may_have_a_word_first_where_nothing_is():
    async def who_asks(request: web.Request) -> None:
        if "Authorization" not in request.headers:
            raise NotAuthorized("say who you are")

    middleware = guard(telemetry.Tracing("test", 0.0), "protocol", problem, who_asks)
    async with opened(routes, [middleware]) as door, aiohttp.ClientSession() as http:
        for path in ("/nothing", "/things/a;b", "/things/a/b"):
            said = [await call(http, "GET", f"http://127.0.0.1:{door.port}{path}", headers=h) for h in ({}, {"Authorization": "x"})]
            assert [answer.status for answer in said] == [401, 404], path
        assert (await call(http, "GET", f"http://127.0.0.1:{door.port}/told")).status == 200


async def test_nothing_and_the_wrong_method_are_problems_too():
    nothing, method = await asked("GET", "/nothing"), await asked("DELETE", "/told")
    assert (nothing.status, nothing.json["type"]) == (404, "urn:qiao:problem:http-404")
    said = "this method is not taken here; taken are GET, HEAD"
    assert (method.status, method.headers["Allow"], method.json["detail"]) == (405, "GET,HEAD", said)


# ---- errors


def made(cls: type[ConnectorError]) -> ConnectorError:
    if cls is errors.RangeNotSatisfiable:
        return errors.RangeNotSatisfiable("no such bytes", 5)
    return cls("what is wrong; what to do")


@pytest.mark.parametrize("cls", list(ANSWERS), ids=lambda c: c.__name__)
async def test_each_error_of_the_tree_is_a_problem_with_its_status_code_and_trace(cls: type[ConnectorError], log: io.StringIO):
    error = made(cls)
    answer = await asked("GET", "/", routes=failing(error), traceparent=TRACE)
    status, code = errors.answer_to(error)
    said = answer.json
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert (answer.status, said["status"], said["type"]) == (status, status, f"urn:qiao:problem:{code}")
    assert (said["detail"], said["reasons"]) == (error.message, list(error.reasons))
    assert said["trace"] == TRACE[3:35]
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert answer.headers.get("Retry-After") == ("1" if isinstance(error, errors.Busy) else None)
    assert '"event":"refused"' in log.getvalue()


async def test_a_source_of_ours_that_fails_is_a_warning_and_a_wrong_request_is_none(log: io.StringIO):
    await asked("GET", "/", routes=failing(errors.SourceFailed("it has changed: publish it again")))
    await asked("GET", "/", routes=failing(errors.Refused("no")))
    assert [orjson.loads(line)["level"] for line in log.getvalue().splitlines()] == ["warning", "info"]


async def test_what_is_wrong_with_the_form_of_a_message_stands_in_the_log_too(log: io.StringIO):
    await asked("GET", "/", routes=failing(errors.WireError("not valid", ("`/a` is missing",))))
    await asked("GET", "/", routes=failing(errors.Refused("refused", ("of a person",))))
    form, content = log.getvalue().splitlines()
    assert "`/a` is missing" in form
    assert "of a person" not in content


async def test_a_problem_points_to_the_fault_and_carries_every_reason():
    pointed = await asked("GET", "/", routes=failing(InvalidRequest("no title", pointer="/title")))
    assert pointed.json["pointer"] == "/title"
    findings = tuple(Finding(Code.MALFORMED, path, "it is wrong", "mend it") for path in ("/one", "/two"))
    many = await asked("GET", "/", routes=failing(PolicyError("not understood", findings)))
    assert (many.status, many.json["reasons"]) == (422, [str(finding) for finding in findings])
    assert many.json["findings"] == [finding.to_json() for finding in findings]
    assert "pointer" not in many.json
    within = await asked("GET", "/", routes=failing(PolicyError("not understood", findings, pointer="/policy/one")))
    assert within.json["pointer"] == "/policy/one"
    assert (await asked("GET", "/", routes=failing(Refused("no", code="pid-taken")))).json["title"] == "pid taken"
    assert (await asked("GET", "/", routes=failing(NotAuthorized("no")))).headers["WWW-Authenticate"] == "Bearer"


async def test_a_defect_is_logged_whole_and_answered_without_a_word_of_it(log: io.StringIO):
    answer = await asked("GET", "/", routes=failing(ValueError(f"cannot read {SECRET}")), traceparent=TRACE)
    assert (answer.status, answer.json["type"]) == (500, "urn:qiao:problem:internal")
    assert SECRET not in answer.body.decode()
    assert TRACE[3:35] in answer.json["detail"]
    (line,) = [orjson.loads(each) for each in log.getvalue().splitlines() if '"event":"defect"' in each]
    assert (line["route"], line["error"], line["trace"]) == ("GET /", "ValueError", TRACE[3:35])
    assert SECRET in line["exception"]


# ---- traces


async def test_a_trace_goes_on_and_one_begins_where_there_is_none():
    assert (await asked("GET", "/told", traceparent=TRACE)).json["trace"][3:35] == TRACE[3:35]
    begun = [
        (await asked("GET", "/told", **said)).json["trace"] for said in ({}, {"traceparent": "x" * 55}, {"traceparent": "00-" + "0" * 52})
    ]
    assert len({trace[3:35] for trace in begun}) == 3
    assert all(int(trace[3:35], 16) for trace in begun)


WAYS = (
    ("GET", "/{any}/b"),  # before those that begin the same as a path for longer, which are found first
    ("POST", "/a/b"),
    ("GET", "/a/{pid}"),
    ("POST", "/a/{pid}"),
    ("POST", "/a/{pid}/sent"),
    ("POST", "/a/{pid}/{other}"),
    ("PUT", r"/a/b/{number:\d+}"),
    ("PUT", "/a/{pid}/{other}"),
)
SEGMENTS = ("a", "b", "sent", "12", "urn:x", "a%2Fb", "")


async def reached(request: web.Request) -> web.Response:
    return web.json_response({"at": request.path, **request.match_info})


def ways(app: web.Application) -> None:
    for method, path in WAYS:
        app.router.add_route(method, path, reached)


async def test_the_straight_way_leads_nowhere_but_where_aiohttp_leads():
    app = web.Application()
    ways(app)
    straight = Straight(app, [], reached, Running())
    paths = ["/" + "/".join(segments) for count in range(1, 4) for segments in product(SEGMENTS, repeat=count) if segments[0]]
    for method, path in product(("GET", "HEAD", "POST", "PUT"), paths):
        theirs = await app.router.resolve(cast(web.Request, SimpleNamespace(method=method, rel_url=URL(path, encoded=True))))
        if (found := straight.find(method, path)) is None:
            assert theirs.http_exception is not None or "%" in path, f"{method} {path}"
        else:
            assert (found[0].route, found[1]) == (theirs.route, dict(theirs)), f"{method} {path}"


@pytest.mark.parametrize("path", ["/a/x/sent", "/a/%78/sent", "/a/b", "/a/x/sent?y=/a/b", "http://x/a/x/sent"])
@pytest.mark.parametrize("header", ["", "Expect: 100-continue\r\n"])
async def test_every_way_leads_through_all_middlewares_from_the_outermost_on(path: str, header: str):
    seen: list[str] = []

    def noting(name: str) -> Any:
        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            seen.append(f"{name} {request.match_info.get('pid')}")
            return await handler(request)

        return note

    async with opened(ways, [noting("outer"), noting("inner")]) as listening:
        answer = await spoken(listening.port, f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode())
    pid = "x" if "sent" in path else None
    told = b"HTTP/1.1 100 Continue\r\n\r\n" if header else b""
    assert answer.startswith(told + b"HTTP/1.1 200"), "who waits to be told to go on is told"
    assert seen == [f"outer {pid}", f"inner {pid}"]
    assert orjson.loads(answer.rpartition(b"\r\n")[2]) == {"at": "/a/x/sent" if pid else "/a/b"} | ({"pid": pid} if pid else {})
