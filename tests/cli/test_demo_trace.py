"""The trace of the demo: spans of two files become one tree in which everything stands below its cause."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector.cli.demo_trace import Branch, Span, rows, spans_of, tree

TRACE = "ab" * 16


def line(id: str, parent: str | None, site: str = "hospital", *, second: float = 0.0, trace: str = TRACE, **members: Any) -> str:
    """A span as a connector writes it."""
    document = {
        "name": "send x",
        "context": {"trace_id": f"0x{trace}", "span_id": id},
        "parent_id": parent,
        "start_time": f"2026-01-31T12:00:{second:09.6f}Z",
        "end_time": f"2026-01-31T12:00:{second + 0.25:09.6f}Z",
        "attributes": {},
        "resource": {"attributes": {"service.name": site}},
    }
    return json.dumps(document | members)


def span(id: str, parent: str | None, began: float = 0.0, site: str = "hospital") -> Span:
    return Span(id, parent, site, f"what {id} did", began, 0.001)


def test_the_spans_of_one_trace_are_picked_out_of_the_lines_of_both():
    lines = [line("1", None, "biopharma", second=1.5), line("2", "1", second=1.75), line("3", None, trace="cd" * 16)]
    found = spans_of(lines, TRACE)
    assert [(each.id, each.parent, each.site, each.seconds) for each in found] == [
        ("1", None, "biopharma", 0.25),
        ("2", "1", "hospital", 0.25),
    ]
    assert found[1].began - found[0].began == 0.25


def test_a_line_that_a_kill_cut_short_is_left_out():
    assert [each.id for each in spans_of([line("1", None), line("2", "1")[:40], ""], TRACE)] == ["1"]


def test_a_span_that_sent_a_message_says_which_with_its_event():
    (found,) = spans_of([line("1", None, attributes={"message": "ContractNegotiationEventMessage:ACCEPTED"})], TRACE)
    assert found.name == "send ContractNegotiationEventMessage:ACCEPTED"


def test_an_address_is_shown_without_what_all_addresses_of_the_protocol_begin_with():
    (found,) = spans_of([line("1", None, name="protocol POST /dsp/2025-1/negotiations/request")], TRACE)
    assert found.name == "protocol POST /negotiations/request"


def test_what_was_caused_stands_below_its_cause_in_order_of_time():
    spans = [span("c", "a", 3.0, "biopharma"), span("b", "a", 2.0), span("a", None, 1.0, "biopharma"), span("d", "b", 2.5)]
    drawn = list(rows(tree(spans), 1.0))
    assert drawn == [
        ("0.0", "1.0", "biopharma", "what a did"),
        ("1000.0", "1.0", "hospital", "├ what b did"),
        ("1500.0", "1.0", "hospital", "│└ what d did"),
        ("2000.0", "1.0", "biopharma", "└ what c did"),
    ]


def test_a_span_whose_cause_was_lost_becomes_a_root():
    assert [branch.span.id for branch in tree([span("b", "lost", 2.0), span("a", None, 1.0)])] == ["a", "b"]


def flat(branches: tuple[Branch, ...]) -> list[Span]:
    return [each for branch in branches for each in (branch.span, *flat(branch.children))]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 100)), max_size=12))
def test_every_span_stands_in_the_tree_once_and_below_its_parent(drawn: list[tuple[int, float]]):
    spans = [span(str(number), str(parent) if parent < number else None, began) for number, (parent, began) in enumerate(drawn)]
    branches = tree(spans)
    assert sorted(flat(branches), key=lambda each: int(each.id)) == spans
    assert len(list(rows(branches, 0.0))) == len(spans)

    def holds(branch: Branch) -> bool:
        starts = [child.span.began for child in branch.children]
        return starts == sorted(starts) and all(child.span.parent == branch.span.id and holds(child) for child in branch.children)

    assert all(holds(branch) for branch in branches)
