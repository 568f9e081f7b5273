"""Calls and the event stream: what arrives, what an error says, and how a lost stream comes back."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connector.client import transport
from connector.client.transport import ManagementError, Transport, failure
from connector.client.views import Event
from tests.fake_connector import TOKEN, FakeConnector, event, problem, serving


@pytest.mark.asyncio
async def test_a_call_carries_token_body_query_and_key():
    with serving(FakeConnector({("POST", "/v1/x%2Fy"): (200, {"ok": True})})) as fake:
        client = Transport(fake.url + "/", TOKEN, None)
        answer = await client.call("POST", "/v1/x%2Fy", body={"a": "ü"}, query={"q": "a b&c", "none": None}, key="k1")
        await client.close()
    assert answer == b'{"ok": true}'
    (asked,) = fake.asked
    assert asked.path == "/v1/x%2Fy?q=a+b%26c"
    assert asked.body == {"a": "ü"}
    assert asked.headers["Idempotency-Key"] == "k1"
    assert asked.headers["Content-Type"] == "application/json"


@pytest.mark.asyncio
async def test_a_problem_becomes_an_error_with_all_its_members():
    refusal = problem(400, "invalid-request", "`limit` is `x`", ("`limit` is `x`",), pointer="/limit", trace="abc")
    with serving(FakeConnector({("GET", "/v1/x"): (400, refusal)})) as fake:
        client = Transport(fake.url, TOKEN, None)
        with pytest.raises(ManagementError) as caught:
            await client.call("GET", "/v1/x")
        await client.close()
    error = caught.value
    assert (error.status, error.code, error.message, error.pointer, error.trace) == (
        400,
        "invalid-request",
        "`limit` is `x`",
        "/limit",
        "abc",
    )


@pytest.mark.asyncio
async def test_a_connector_that_does_not_run_is_one_clear_error():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = Transport(f"http://127.0.0.1:{closed.getsockname()[1]}", TOKEN, None)
        with pytest.raises(ManagementError, match=r"\(connection refused\); start it with `connector run`") as caught:
            await client.call("GET", "/v1/self")
        await client.close()
    assert (caught.value.status, caught.value.code) == (0, "unreachable")


@asynccontextmanager
async def forgetful() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A connector whose connections end as their second request is on its way; keeps the first lines of all."""
    asked = list[bytes]()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b" HTTP")[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            asked.append((await reader.readuntil(b"\r\n\r\n")).partition(b" HTTP")[0])
        except asyncio.IncompleteReadError:
            pass  # the client has closed it first
        finally:
            writer.close()  # not every Python 3.11 does that for a handler that fails

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.asyncio
@pytest.mark.parametrize(("method", "key"), [("POST", "k1"), ("GET", None), ("DELETE", None)])
async def test_a_call_whose_connection_ends_is_made_once_more_if_that_does_no_harm(method: str, key: str | None):
    async with forgetful() as (url, asked):
        client = Transport(url, TOKEN, None)
        assert await client.call("GET", "/v1/first") == b"{}"
        assert await client.call(method, "/v1/x", key=key) == b"{}"
        await client.close()
        assert asked == [b"GET /v1/first", *[f"{method} /v1/x".encode()] * 2]


@pytest.mark.asyncio
async def test_a_call_that_might_be_heard_twice_is_not(monkeypatch: pytest.MonkeyPatch):
    async with forgetful() as (url, asked):
        client = Transport(url, TOKEN, None)
        await client.call("GET", "/v1/first")
        with pytest.raises(ManagementError) as caught:
            await client.call("POST", "/v1/x")
        await client.close()
        assert (caught.value.code, asked) == ("unreachable", [b"GET /v1/first", b"POST /v1/x"])
        monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
        client = Transport(url, TOKEN, None)
        await client.call("GET", "/v1/first")
        await client.call("POST", "/v1/x")  # on a connection of its own: the other one was idle for too long
        await client.close()


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"", b"[1]", b'{"detail": 5}', b"\xff\xfe"])
def test_an_answer_that_is_no_problem_is_still_an_error(body: bytes):
    error = failure(502, body)
    assert error.status == 502
    assert error.code == "not-understood"
    assert "status 502" in error.message


OTHERS = {
    "another listener of a connector": (
        404,
        b'{"type":"urn:qiao:problem:http-404","detail":"there is nothing at this address","trace":null}',
    ),
    "another program": (403, b"<html>forbidden</html>"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.asyncio
async def test_whoever_is_no_management_listener_is_named_with_what_to_look_at(name: str):
    with serving(FakeConnector({("GET", "/v1/first"): OTHERS[name]})) as fake:
        client = Transport(fake.url, TOKEN, None)
        with pytest.raises(ManagementError, match=r"does not answer as the management listener.*; check management\.url") as error:
            await client.call("GET", "/v1/first")
        await client.close()
    assert (fake.url in error.value.message, error.value.status) == (True, OTHERS[name][0])


@pytest.mark.asyncio
async def test_a_lost_stream_is_opened_again_where_it_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "FIRST_RETRY_SECONDS", 0.001)
    streams = [[event(4, "a"), event(5, "b"), b"id: 6\ndata: {"], [event(6, "c")]]
    with serving(FakeConnector(streams=streams)) as fake:
        client = Transport(fake.url, TOKEN, None)
        seen = []
        async for found in client.stream(3):
            seen.append(found.sequence if isinstance(found, Event) else found)
            if seen[-1] == 6:
                break
        await client.close()
    assert seen == [None, 4, 5, None, 6]
    assert [asked.path for asked in fake.asked] == ["/v1/events?after=3", "/v1/events?after=5"]


@pytest.mark.asyncio
async def test_a_stream_from_now_asks_for_no_history():
    with serving(FakeConnector(streams=[[]])) as fake:
        client = Transport(fake.url, TOKEN, None)
        async for found in client.stream(None):
            assert found is None
            break
        await client.close()
    assert fake.paths() == ["GET /v1/events?after=now"]


@pytest.mark.asyncio
async def test_a_stream_that_is_refused_is_not_tried_again():
    with serving(FakeConnector()) as fake:
        client = Transport(fake.url, "wrong", None)
        with pytest.raises(ManagementError, match="admin token"):
            await anext(client.stream(None))
        await client.close()
    assert len(fake.asked) == 1


@pytest.mark.asyncio
async def test_a_stream_gives_up_when_the_connector_stays_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(transport, "FIRST_RETRY_SECONDS", 0.005)
    with serving(FakeConnector({("GET", "/v1/events"): (503, problem(503, "busy", "draining"))})) as fake:
        client = Transport(fake.url, TOKEN, None)
        with pytest.raises(ManagementError, match=r"no answer from the connector .*draining"):
            await anext(client.stream(0))
        await client.close()
    assert len(fake.asked) > 1


@pytest.mark.asyncio
async def test_a_stream_of_somebody_else_is_an_error():
    with serving(FakeConnector(streams=[[b"id: 1\ndata: hello\n\n"]])) as fake:
        client = Transport(fake.url, TOKEN, None)
        stream = client.stream(0)
        assert await anext(stream) is None
        with pytest.raises(ManagementError, match="is not a connector's"):
            await anext(stream)
        await client.close()
