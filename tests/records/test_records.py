"""Values of a store: cursors, pages, and what a write expects without saying so."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import InvalidRequest
from connector.records import Changes, Cursor, Expect, Offer, Page, Reservation, Usage, implied, paged
from tests.contracts.samples import BYTES, COUNT, OTHER_PEER, PEER, agreement, dataset, negotiation


@given(st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_a_cursor_is_read_as_it_was_written(forward: bool, at: float, id: str):
    cursor = Cursor(forward, at, id)
    assert Cursor.read(str(cursor)) == cursor
    assert "=" not in str(cursor)


def test_an_instant_without_a_fraction_makes_a_cursor_too():
    assert Cursor.read(str(Cursor(True, 5, "x"))) == Cursor(True, 5.0, "x")


def as_text(value: Any) -> str:
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        *["", "=", "é", "\ud800", "a b", "////", "A"],
        *[as_text(value) for value in (b"", b"\xff\xfe", b"[", b"[" * 5000, None, 1, [], {}, "x", [True, 1.5], [1, 1.5, "x"])],
        *[as_text(value) for value in ([True, 1, "x"], [True, 1.5, 2], [True, 1.5, "x", 1], [True, None, "x"], [True, 1.5, "\ud800"])],
        *[as_text(text.encode()) for text in ('[true, NaN, "x"]', '[true, Infinity, "x"]', '[true, 1e999, "x"]')],
    ],
)
def test_a_text_that_no_page_has_carried_is_refused(text: str):
    with pytest.raises(InvalidRequest, match="not a cursor of this list; take `next` or `previous`"):
        Cursor.read(text)


@given(st.text())
def test_any_text_is_a_cursor_or_an_invalid_request(text: str):
    with suppress(InvalidRequest):  # anything else is a defect
        cursor = Cursor.read(text)
        assert Cursor.read(str(cursor)) == cursor


def name(item: str, forward: bool) -> str:
    return f"{'>' if forward else '<'}{item}"


@pytest.mark.parametrize(
    ("found", "forward", "behind", "page"),
    [
        ([], True, False, Page(())),
        ([], False, True, Page(())),
        (["a"], True, False, Page(("a",))),
        (["a", "b"], True, True, Page(("a", "b"), None, "<a")),
        (["a", "b", "c"], True, False, Page(("a", "b"), ">b", None)),
        (["a", "b", "c"], True, True, Page(("a", "b"), ">b", "<a")),
        (["c", "b", "a"], False, True, Page(("b", "c"), ">c", "<b")),
        (["b", "a"], False, True, Page(("a", "b"), ">b", None)),
        (["b", "a"], False, False, Page(("a", "b"), None, None)),
    ],
)
def test_a_page_is_in_the_order_of_the_list_whichever_way_it_was_walked(found: list[str], forward: bool, behind: bool, page: Page[str]):
    assert paged(found, 2, forward=forward, behind=behind, cursor=name) == page


def test_a_write_expects_peer_pids_and_offers_to_be_its_own():
    changes = Changes(saves=(negotiation("n", peer_pid="p"), negotiation("m"), agreement(), dataset("d", ("o",))))
    assert implied(changes) == [(Expect(Process, (Kind.NEGOTIATION, PEER, "p"), None), "n"), (Expect(Offer, "o", None), "d")]


def test_a_write_that_claims_a_key_twice_contradicts_itself():
    with pytest.raises(ValueError, match="two records of one write claim"):
        implied(Changes(saves=(negotiation("n", peer_pid="p"), negotiation("m", peer_pid="p"))))
    assert len(implied(Changes(saves=(negotiation("n", peer_pid="p"), negotiation("m", peer=OTHER_PEER, peer_pid="p"))))) == 2


RULE = "/permission/0"


def set_aside(id: str, amount: int, operand: str = BYTES) -> Reservation:
    return Reservation(id, "urn:uuid:t1", RULE, operand, amount, 1.0)


def test_what_was_used_of_a_reservation_is_posted_and_the_rest_is_free_again():
    usage = Usage("a").reserve([set_aside("r1", 100), set_aside("r1", 1, COUNT), set_aside("r2", 50)], 2.0)
    assert (usage.reserved(RULE, BYTES), usage.reserved(RULE, COUNT), usage.spent(RULE, BYTES)) == (150, 1, 0)
    settled = usage.settle("r1", {BYTES: 30}, 3.0)
    assert settled.posted == ((RULE, BYTES, 30),)
    assert settled.open == (set_aside("r2", 50),)
    assert (settled.version, settled.updated) == (2, 3.0)
    assert settled.settle("r2", None, 4.0).posted == ((RULE, BYTES, 80),), "of what nobody can say more, all was used"


def test_a_reservation_that_is_not_there_settles_nothing():
    usage = Usage("a").reserve([set_aside("r1", 100)], 2.0)
    assert usage.settle("other", None, 3.0).open == usage.open


@pytest.mark.parametrize("spent", [-1, 101])
def test_more_than_was_reserved_cannot_be_posted(spent: int):
    with pytest.raises(ValueError, match="of 100 reserved"):
        Usage("a").reserve([set_aside("r1", 100)], 2.0).settle("r1", {BYTES: spent}, 3.0)
