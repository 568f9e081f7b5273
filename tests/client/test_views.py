"""Answers as types: unknown members pass, missing ones have a default, wrong ones are an error."""

import msgspec
import pytest

from connector.client.views import Dataset, Negotiation, Page, Pull
from tests.fake_connector import process_view, pull_view


def test_an_answer_of_a_newer_connector_is_still_read():
    page = msgspec.json.decode(msgspec.json.encode({"items": [process_view(brand_new=1)], "next": "c", "more": {}}), type=Page[Negotiation])
    assert page.next == "c"
    assert page.items[0].pid == "urn:uuid:n1"


@pytest.mark.parametrize(
    ("stage", "over"),
    [("negotiate", False), ("transfer", False), ("download", False), ("complete", False), ("done", True), ("failed", True)],
)
def test_a_pull_knows_when_it_is_over(stage: str, over: bool):
    assert msgspec.json.decode(msgspec.json.encode(pull_view(stage)), type=Pull).is_over is over


def test_what_is_not_an_answer_is_an_error():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id": 5}', type=Dataset)
