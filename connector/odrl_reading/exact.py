"""Numbers of JSON that not every reader has exactly: where a policy has one nobody can sign for it, as there is no digest of it. Pure."""

from __future__ import annotations

from typing import Final

from connector.odrl.codes import Code
from connector.odrl_reading.reading import Reading

EXACT_MAX: Final = 2**53 - 1  # the largest whole number that every reader of JSON has exactly (RFC 8259, 6), and RFC 8785 writes
PARTS_MAX: Final = 20_000  # values of a document, also where nobody looks at what they say
STRING: Final = 'write it as a string, like {"@value": "9007199254740993", "@type": "xsd:integer"}'


def fails(document: object, reading: Reading) -> bool:
    """Whether there is such a number anywhere in a document that is understood; the first one is noted. So is that it has too many parts
    to be looked at."""
    rest, seen, parts = [document], set[int](), 0
    while rest:  # each policy that is read comes by, and hardly any has one
        value = rest.pop()
        if isinstance(value, (dict, list)):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if (parts := parts + len(value)) > PARTS_MAX:
                reading.note(Code.LIMIT_EXCEEDED, "", f"it has more than {PARTS_MAX} parts", "write fewer")
                return True
            inside = value.values() if isinstance(value, dict) else value
            rest += [each for each in inside if type(each) is not str]  # most are
        elif isinstance(value, int) and abs(value) > EXACT_MAX:
            fault = "a number of JSON beyond 2^53 is another one to some readers, and cannot be signed for"
            reading.note(Code.MALFORMED, _place(document, value), fault, STRING)
            return True
    return False


def _place(document: object, number: int) -> str:
    """Where in a document a number stands (RFC 6901)."""
    rest, seen = [("", document)], set[int]()
    while rest:
        path, value = rest.pop()
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            rest += [(f"{path}/{str(name).replace('~', '~0').replace('/', '~1')}", each) for name, each in inside]
        elif value == number:
            return path
    raise AssertionError("it is in the document")
