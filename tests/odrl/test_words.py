from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl import load
from connector.odrl.model import NEVER, Constraint, Fact, Since
from connector.odrl.registry import CONCEPT, ORDER
from connector.odrl.values import SECOND, stretch
from connector.odrl.words import (
    PHRASES,
    SENTENCE_CHARS_MAX,
    acts,
    asked,
    fact,
    failed,
    held,
    place,
    quoted,
    seconds,
    shown,
    texts,
    unstated,
    value,
)
from tests.odrl.cases import leaf, participant, policy, purpose, rule, time


def node(written: dict[str, object]) -> Constraint:
    found = policy(rule(written)).permissions[0].constraints[0]
    assert isinstance(found, Constraint)
    return found


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (purpose("eq", "research"), "purpose is 'research'"),
        (purpose("neq", "research"), "purpose is not 'research'"),
        (purpose("isAnyOf", ["a", {"@id": "https://x.example/b"}]), "purpose is one of 'a', <https://x.example/b>"),
        (purpose("isNoneOf", ["a", "b"]), "purpose is none of 'a', 'b'"),
        (participant("eq", "did:web:a.example"), "participant is <did:web:a.example>"),
        (time("lt", "2026-01-01Z"), "time is before 2026-01-01Z"),
        (time("lteq", "2026-01-01Z"), "time is not after 2026-01-01Z"),
        (time("gt", "2026-01-01Z"), "time is after 2026-01-01Z"),
        (time("gteq", "2026-01-01Z"), "time is not before 2026-01-01Z"),
        (time("eq", "2026-01-01Z"), "time is 2026-01-01Z"),
        (time("neq", "2026-01-01Z"), "time is not 2026-01-01Z"),
    ],
)
def test_every_operator_has_words(written: dict[str, object], words: str) -> None:
    assert asked(node(written)) == words


def test_a_logical_constraint_is_read_aloud() -> None:
    both = (
        policy(rule({"or": [purpose("eq", "a"), {"and": [purpose("eq", "b"), time("lt", "2026-01-01Z")]}]})).permissions[0].constraints[0]
    )
    assert asked(both) == "(purpose is 'a' or (purpose is 'b' and time is before 2026-01-01Z))"


def test_a_failure_names_what_was_found_unless_that_is_not_told() -> None:
    wants = node(purpose("isAnyOf", ["research", "quality"]))
    assert failed(wants, "'marketing'") == "purpose 'marketing' is not one of 'research', 'quality'"
    assert failed(wants, None) == "purpose is not one of 'research', 'quality'"
    assert held(wants, "'research'") == "purpose 'research' is one of 'research', 'quality'"
    assert unstated(wants) == "the purpose is not known, and it matters whether purpose is one of 'research', 'quality'"


def test_long_lists_are_cut_and_counted() -> None:
    assert asked(node(purpose("isAnyOf", [str(n) for n in range(10)]))).endswith("'5' and 4 more")


@given(st.text(max_size=300))
def test_whatever_a_peer_wrote_is_one_short_printable_line(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 80
    assert value(text or "x").isprintable()


def test_a_readable_text_stays_as_it_is() -> None:
    assert shown("数据集 42, Dätä") == "数据集 42, Dätä"


def test_a_place_names_document_and_pointer() -> None:
    found = policy(rule())
    assert place(found, "/permission/0") == "offer urn:o1, /permission/0"
    assert place(found, "") == "offer urn:o1"
    assert place(load({"permission": [rule()]}), "/permission/0") == "offer, /permission/0"


def test_a_deep_constraint_is_still_one_sentence() -> None:
    deep = leaf("odrl:purpose", "isAnyOf", ["x" * 200] * 10)
    wide: dict[str, object] = {"or": [{"and": [deep] * 7}] * 7}
    assert len(asked(policy(rule(wide)).permissions[0].constraints[0])) <= SENTENCE_CHARS_MAX


NOON = stretch("2026-06-15T12:00:00Z").start


@pytest.mark.parametrize(
    ("written", "of", "plain", "read"),
    [
        (purpose("eq", "a"), "b", "b", "'b'"),
        (purpose("eq", "a"), "urn:b", "urn:b", "<urn:b>"),
        (participant("eq", "x"), frozenset({"b", "a"}), "a, b", "'a', 'b'"),
        (time("lt", "2026-01-01Z"), NOON, "2026-06-15T12:00:00Z", "2026-06-15T12:00:00Z"),
        (time("lt", "2026-01-01Z"), 10**20, "beyond the calendar", "beyond the calendar"),
        (leaf("odrl:count", "lt", "5"), 6, "6", "6"),
        (leaf("odrl:payAmount", "lt", "5"), Fraction(1, 2), "0.5", "0.5"),
        (leaf("odrl:payAmount", "lt", "5"), Fraction(150000001, 50000000), "3.00000002", "3.00000002"),
        (leaf("odrl:payAmount", "lt", "5"), Fraction(-20), "-20", "-20"),
        (leaf("odrl:payAmount", "lt", "5"), Fraction(-1, 16), "-0.0625", "-0.0625"),
        (leaf("odrl:payAmount", "lt", "5"), Fraction(1, 3), "1/3", "1/3"),
        (leaf("odrl:elapsedTime", "lt", "P1D"), Since(0, 90_061 * SECOND), "1 d 01:01:01", "1 d 01:01:01"),
        (leaf("odrl:meteredTime", "lt", "P1D"), 61 * SECOND, "00:01:01", "00:01:01"),
        (leaf("odrl:timeInterval", "gt", "P1D"), NEVER, "never", "never"),
    ],
)
def test_what_was_found_is_text(written: dict[str, object], of: Fact, plain: str, read: str) -> None:
    assert (fact(node(written), of), quoted(node(written), of)) == (plain, read)


def test_several_values_are_several_texts() -> None:
    assert texts(frozenset({"b", "a"})) == ["a", "b"]
    assert texts(5) == ["5"]
    assert seconds(0) == "00:00:00"
    assert [seconds(4 * SECOND + more) for more in (1, 500_000, -100_000)] == ["00:00:04.000001", "00:00:04.5", "00:00:03.9"]


def test_every_operator_of_every_sort_of_values_reads_in_two_languages() -> None:
    assert PHRASES["term"].keys() == CONCEPT
    for sort in ("instant", "number", "duration", "event"):
        assert PHRASES[sort].keys() == ORDER - {"isAnyOf", "isNoneOf", "isAllOf"}  # which are read as a choice of each value
    for phrases in PHRASES.values():
        for phrase in phrases.values():
            assert len(set(phrase)) == 3


def test_a_duty_says_what_it_asks_to_do() -> None:
    found = policy(rule(duty=[{"action": ["odrl:delete", "odrl:archive"]}]))
    assert acts(found.permissions[0].duties[0]) == "delete or archive"


@pytest.mark.parametrize(
    ("unit", "reads"),
    [
        ("http://publications.europa.eu/resource/authority/currency/CNY", "12 CNY"),
        ("urn:iso:std:iso:4217:EUR", "12 EUR"),
        ("http://qudt.org/vocab/currency/JPY", "12 JPY"),
        ("https://evil.example/currency/EUR", "12 <https://evil.example/currency/EUR>"),
        ("urn:iso:std:iso:4217:EUR or nothing", "12 <urn:iso:std:iso:4217:EUR or nothing>"),
        ("urn:iso:std:iso:4217:eur", "12 <urn:iso:std:iso:4217:eur>"),
    ],
)
def test_a_currency_reads_as_its_code_and_nothing_else_does(unit: str, reads: str):
    paid = node({**leaf("odrl:payAmount", "lteq", "12"), "odrl:unit": unit})
    assert failed(paid, "12.5").endswith(f"is more than {reads}")
    assert asked(paid).endswith(f"is at most {reads}")
