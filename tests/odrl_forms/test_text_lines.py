import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.odrl_forms.text_lines import Mistakes, Token, angled, bare, quoted, read_lines


def tokens(text: str) -> list[Token]:
    mistakes = Mistakes()
    lines = read_lines(text, mistakes)
    mistakes.done()
    return [token for line in lines for token in line.tokens]


def test_a_line_is_words_texts_iris_and_marks_with_their_columns():
    assert tokens('for {a, "b c"} <https://x.example/#y> z # said') == [
        Token("word", "for", 1),
        Token("mark", "{", 5),
        Token("word", "a", 6),
        Token("mark", ",", 7),
        Token("text", "b c", 9),
        Token("mark", "}", 14),
        Token("iri", "https://x.example/#y", 16),
        Token("word", "z", 39),
    ]


def test_what_is_indented_deeper_belongs_to_the_line_above():
    mistakes = Mistakes()
    (top,) = read_lines("a\n   b\n     c\n\n   d\n  e\n", mistakes)
    assert [(line.number, line.tokens[0].text) for line in top.below] == [(2, "b"), (5, "d"), (6, "e")]
    assert [line.tokens[0].text for line in top.below[0].below] == ["c"]
    assert top.below[0].place() == "line 2, column 4"
    assert top.below[0].place(9) == "line 2, column 5"
    assert mistakes.findings == []


def test_a_hash_within_a_word_is_no_comment():
    assert [token.text for token in tokens("a#b #c d")] == ["a#b"]


@given(st.text())
def test_a_text_in_quotes_reads_back(text: str):
    assert tokens(f"x {quoted(text)} y") == [Token("word", "x", 1), Token("text", text, 3), Token("word", "y", 4 + len(quoted(text)))]


@given(st.text())
def test_an_iri_in_angles_reads_back(iri: str):
    assert [token.text for token in tokens(f"x {angled(iri)} y")] == ["x", iri, "y"]


@given(st.text())
def test_a_word_that_can_stand_bare_reads_back(text: str):
    if bare(text):
        assert tokens(text) == [Token("word", text, 1)]


@pytest.mark.parametrize("text", ["", " ", "a b", "#a", "a,", "{", '"a"', "<a>", "a\n", "a\u2028", "\ufeff\n"])
def test_what_would_not_read_back_is_not_bare(text: str):
    assert not bare(text)


def test_a_text_without_an_end_says_where_it_begins():
    with pytest.raises(PolicyError, match=r'line 2, column 3: `"b` does not end; write a text as "\.\.\." and an IRI as <\.\.\.>'):
        tokens('a\n  "b')
