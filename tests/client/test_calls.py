"""What every call of the client shares: names as one segment of a path, members that are given, answers that are ours."""

from pathlib import Path
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from connector.client.calls import given, part
from connector.client.management import ManagementClient, ManagementError
from connector.dsp.messages import Role
from connector.errors import InvalidRequest
from tests.fake_connector import TOKEN, FakeConnector, serving
from tests.pair import TOKEN as ADMIN
from tests.pair import agreement, desk, negotiation


@examples(st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1))
def test_any_name_is_one_segment_and_comes_back(name: str):
    segment = part(name)
    assert not set(segment) & set("/?#;:@&=+$, %") - {"%"}
    assert unquote(segment) == name


@pytest.mark.asyncio
async def test_an_empty_id_is_a_mistake_and_no_other_address():
    with serving(FakeConnector({})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            for call in (client.cancel(""), client.agreement(""), client.process(""), client.withdraw("")):
                with pytest.raises(InvalidRequest, match="the id is empty"):
                    await call
        assert fake.paths() == []


def test_only_members_with_a_value_are_sent():
    assert given(a=None, b=0, c="", d=[1]) == {"b": 0, "c": "", "d": [1]}


@pytest.mark.asyncio
async def test_an_answer_of_somebody_else_is_an_error():
    with serving(FakeConnector({("GET", "/v1/self"): (200, {"hello": "world"})})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            with pytest.raises(ManagementError, match="is not a connector's"):
                await client.own()


# What a peer may have called an agreement: every reserved and every unusual character of an IRI (RFC 3987), and what looks like a route.
ODD = (
    "https://hospital.example/agreements/1?of=a&b#c", "urn:x:a%2Fb", "urn:x:a;b=c,d", "urn:x/../y", "a/", "/usage", "a/usage", "urn:协议:ü",
    "urn:x:a+b c", "urn:x:~'()*!$@[]", "a%", "%00", ".", "..", "...", "{", "{id}", "{a}/b", "\\", "a\\b", "a|b^`<>\"", " ",
)  # fmt: skip


@pytest.mark.asyncio
async def test_every_call_about_an_agreement_finds_it_whatever_it_is_called(tmp_path: Path):
    async with desk(tmp_path) as at, ManagementClient(at.us.site.settings.management.url, ADMIN) as client:
        for id in ODD:
            made = agreement(at.us, at.peer, Role.PROVIDER, id=id)
            await at.us.put(negotiation(at.us, at.peer, "FINALIZED", Role.PROVIDER), made)
            assert (await client.agreement(id)).id == id
            assert (await client.usage(id)).agreement == id
            assert orjson.dumps(id) in b"".join([piece async for piece in client.agreement_evidence(id)])
            for call in (client.invoice(id), client.statement(id), client.perform(id, "/nothing")):
                with pytest.raises(ManagementError) as refused:
                    await call
                assert "there is nothing at this address" not in refused.value.message, id
            assert (await client.close_agreement(id, "over")).closed is not None
