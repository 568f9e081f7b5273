"""Statements over HTTP: who is asked for a name first, and what is no statement is refused before anybody looks at it."""

from pathlib import Path

import orjson
import pytest
from aiohttp import hdrs

from connector.api_streams import statements_api
from connector.api_streams.statements_api import PATH
from tests import pair
from tests.control_billing.test_statements import ask
from tests.control_billing.test_stating import SAID, fact, fetched, quick

__all__ = ["quick"]
pytestmark = pytest.mark.asyncio


async def test_whoever_says_not_who_he_is_hears_nothing(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        url = f"{both.provider.connector.settings.protocol.url}{PATH}"
        for method, path in (("GET", "/x"), ("POST", "/x"), ("POST", "")):
            answer = await pair.call(both.consumer.http, method, url + path, b"x" if method == "POST" else None)
            assert (answer.status, orjson.loads(answer.body)["type"]) == (401, "urn:qiao:problem:unauthenticated")


async def test_only_a_signed_object_is_read_and_no_answer_is_stored_on_the_way(tmp_path: Path):
    async with pair.pair(tmp_path) as both:
        ours, theirs, _ = await fetched(both)
        await fact(both.consumer, ours, *SAID)
        identity = both.consumer.connector.states.stating._means.identity
        headers = {"Authorization": await identity.mint(both.provider.connector.settings.participant.id)}
        url = f"{both.provider.connector.settings.protocol.url}{PATH}/{pair.quoted(theirs)}"
        assert (await pair.call(both.consumer.http, "POST", url, {"x": 1}, headers)).status == 415
        shown = await ask(both.consumer, both.provider, "GET", f"/{pair.quoted(theirs)}")
        assert (shown.status, shown.headers[hdrs.CACHE_CONTROL]) == (200, "no-store")
        assert orjson.loads(shown.body).keys() == {"manifest", "receipt", "ack", "statement"}


async def test_a_peer_that_sends_them_faster_than_they_are_needed_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statements_api, "AT_ONCE", 2)
    monkeypatch.setattr(statements_api, "SECONDS", 3600.0)
    async with pair.pair(tmp_path) as both:
        answers = [await ask(both.consumer, both.provider, "POST", "", "a.b.c") for _ in range(3)]
        assert [each.status for each in answers] == [422, 422, 429]
        assert int(answers[2].headers["Retry-After"]) >= 1
