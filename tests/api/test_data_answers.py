"""What all routes of the data listener share: who presents no token is told how, and an error has its answer."""

import aiohttp
import orjson
import pytest
from aiohttp import web

from connector import telemetry
from connector.api.data_answers import answered, bearer, not_allowed, not_found
from connector.errors import ConnectorError, RangeNotSatisfiable, SourceFailed, TokenRefused, Withdrawn
from tests.dataplane.rig import serving


async def answer(error: Exception | None, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
    async def handle(_request: web.Request) -> web.StreamResponse:
        if error is not None:
            raise error
        return web.Response(body=b"{}")

    tracing = telemetry.Tracing("test", 0.0)
    app = web.Application()
    app.router.add_get("/", answered(tracing, "GET /", handle))
    app.router.add_route("*", "/", not_allowed("GET, HEAD"))
    app.router.add_route("*", "/{rest:.*}", not_found)
    async with serving(app) as port, aiohttp.request(method, f"http://127.0.0.1:{port}/", headers=headers) as got:
        status, told, body = got.status, {name.lower(): value for name, value in got.headers.items()}, await got.read()
    tracing.close()
    return status, told, dict(orjson.loads(body or b"{}"))


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 5000])
def test_what_is_no_bearer_token_is_refused_with_how_to_send_one(value: str | None):
    with pytest.raises(TokenRefused, match="Authorization: Bearer"):
        bearer(value)


def test_the_scheme_is_written_as_one_likes():
    assert bearer("bearer abc") == bearer("BEARER abc") == "abc"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TokenRefused("no"), 401, "token-refused"),
        (Withdrawn("over", "agreement-ended"), 403, "agreement-ended"),
        (SourceFailed("`/secret/place` is gone"), 502, "source-failed"),
        (RangeNotSatisfiable("outside", 7), 416, "range-not-satisfiable"),
        (ZeroDivisionError("a defect"), 500, "internal"),
    ],
)
@pytest.mark.asyncio
async def test_an_error_is_a_problem_that_names_no_place_of_ours(error: Exception, status: int, code: str):
    got, headers, body = await answer(error)
    assert (got, body["type"], headers["content-type"]) == (status, f"urn:qiao:problem:{code}", "application/problem+json")
    assert "secret" not in str(body)
    assert "a defect" not in str(body)
    if isinstance(error, ConnectorError):
        assert headers["cache-control"] == "no-store"


@pytest.mark.asyncio
async def test_a_challenge_names_the_error_only_to_who_presented_a_token():
    _, bare, _ = await answer(TokenRefused("no"))
    _, told, _ = await answer(TokenRefused("no `x`"), Authorization="Bearer abc")
    assert bare["www-authenticate"] == "Bearer"
    assert told["www-authenticate"] == 'Bearer error="invalid_token", error_description="no \'x\'"'


@pytest.mark.asyncio
async def test_a_range_outside_says_how_much_there_is_and_a_method_which_are_taken():
    _, headers, _ = await answer(RangeNotSatisfiable("outside", 7))
    assert headers["content-range"] == "bytes */7"
    status, headers, _ = await answer(None, "PUT")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
