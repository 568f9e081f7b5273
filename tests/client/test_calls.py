"""What every call of the client shares: names as one segment of a path, members that are given, answers that are ours."""

from urllib.parse import unquote

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from connector.client.calls import given, part
from connector.client.management import ManagementClient, ManagementError
from tests.fake_connector import TOKEN, FakeConnector, serving


@examples(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_any_name_is_one_segment_and_comes_back(name: str):
    segment = part(name)
    assert not set(segment) & set("/?#;:@&=+$, %") - {"%"}
    assert unquote(segment) == name


def test_only_members_with_a_value_are_sent():
    assert given(a=None, b=0, c="", d=[1]) == {"b": 0, "c": "", "d": [1]}


@pytest.mark.asyncio
async def test_an_answer_of_somebody_else_is_an_error():
    with serving(FakeConnector({("GET", "/v1/self"): (200, {"hello": "world"})})) as fake:
        async with ManagementClient(fake.url, TOKEN) as client:
            with pytest.raises(ManagementError, match="is not a connector's"):
                await client.own()
