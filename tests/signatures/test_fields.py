"""Structured fields: what is read is what was written, one spelling each, and nothing that two readers could read in two ways."""

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.signatures.fields import InnerList, Item, Token, read_dictionary, write_bare, write_inner_list, write_item

KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
STRINGS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
TOKENS = st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,8}", fullmatch=True).map(Token)
BARE = st.one_of(st.integers(-999_999_999_999_999, 999_999_999_999_999), STRINGS, TOKENS, st.binary(max_size=12), st.booleans())
PARAMETERS = st.dictionaries(KEYS, BARE, max_size=3)
ITEMS = st.builds(Item, BARE, PARAMETERS)
MEMBERS = st.one_of(ITEMS, st.builds(InnerList, st.lists(ITEMS, max_size=4).map(tuple), PARAMETERS))


def written(member: Any) -> str:
    return write_item(member) if isinstance(member, Item) else write_inner_list(map(write_item, member.items), member.parameters)


def plain(value: Any) -> Any:
    """A value as the other library has it."""
    return str(value) if isinstance(value, http_sf.Token) else value


@given(st.dictionaries(KEYS, MEMBERS, max_size=4))
def test_what_is_written_is_read_back_with_its_types(members: dict[str, Item | InnerList]):
    found = read_dictionary(", ".join(f"{key}={written(each)}" for key, each in members.items()))
    assert found == members
    assert [written(each) for each in found.values()] == [written(each) for each in members.values()], "a token stays one"


@given(st.dictionaries(KEYS, MEMBERS, max_size=4))
def test_another_library_reads_the_same(members: dict[str, Item | InnerList]):
    text = ", ".join(f"{key}={written(each)}" for key, each in members.items())
    theirs: Any = http_sf.parse(text.encode(), tltype="dictionary")
    for key, mine in members.items():
        value, parameters = theirs[key]
        assert {name: plain(each) for name, each in parameters.items()} == mine.parameters
        if isinstance(mine, Item):
            assert plain(value) == mine.value
        else:
            assert [(plain(each), {n: plain(p) for n, p in own.items()}) for each, own in value] == [
                (each.value, each.parameters) for each in mine.items
            ]


@given(st.text(st.sampled_from('ab=();",:?1-.*\\ \t/A'), max_size=24))
def test_what_is_taken_is_taken_by_another_library_too(text: str):
    try:
        found = read_dictionary(text)
    except ValueError:
        return
    theirs: Any = http_sf.parse(text.encode(), tltype="dictionary")
    assert found.keys() == theirs.keys()


def test_what_is_spelled_otherwise_than_canonically_is_read_as_rfc_9651_says():
    assert read_dictionary('  a=( "x"   "y";req ); b=1;  c ,\t d , e=?0  ') == {
        "a": InnerList((Item("x"), Item("y", {"req": True})), {"b": 1, "c": True}),
        "d": Item(True),
        "e": Item(False),
    }
    assert read_dictionary("") == {}


UNREADABLE = {
    "a key twice": 'a="x", a="y"',
    "a parameter twice": "a=1;b;b",
    "a comma at the end": "a=1,",
    "a comma too many": "a=1,, b=2",
    "no comma": "a=1 b=2",
    "a key in upper case": "A=1",
    "no key": "=1",
    "no value": "a=",
    "a string without end": 'a="x',
    "a wrong escape": r'a="\x"',
    "a tab in a string": 'a="\t"',
    "a letter that is not ASCII": 'a="\u00e9"',
    "a decimal": "a=1.5",
    "too many digits": "a=1234567890123456",
    "a date": "a=@1659578233",
    "a display string": 'a=%"x"',
    "bytes without padding": "a=:YQ:",
    "bytes with unused bits": "a=:YR==:",
    "bytes of base64url": "a=:-_-_:",
    "bytes without end": "a=:YQ==",
    "another boolean": "a=?2",
    "a list without end": 'a=("x"',
    "a list in a list": 'a=(("x"))',
    "items without space": 'a=("x""y")',
    "a tab between items": 'a=("x"\t"y")',
    "a space before a parameter": "a=1 ;b",
    "an empty parameter": "a=1;",
    "a line end": "a=1\n",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_structured_field_is_refused(text: str):
    with pytest.raises(ValueError, match=r"stands twice|ends with a comma|fits nothing|canonical spelling"):
        read_dictionary(text)


@pytest.mark.parametrize("value", [10**15, "\u00e9", "\n", Token("1a"), Token("")])
def test_a_value_that_cannot_be_written_is_refused(value: Any):
    with pytest.raises(ValueError, match=r"digits|visible ASCII|token"):
        write_bare(value)
