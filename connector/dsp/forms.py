"""Forms that JSON-LD processors give to what the schemas of the protocol have in one form only, brought into that one.

The context of DSP 2025-1 has no `@set` for the groups of a logical constraint, so whoever compacts with it writes a group of one as an
object; and Eclipse EDC keeps a right operand of several values, or an IRI, as the text of its expanded form. What is none of these forms
stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

# The groups of a logical constraint have no `@set` in the context, but the schema demands arrays.
GROUPS = ("and", "andSequence", "or", "xone")
# Properties that hold an identifier but that the context leaves without `"@type": "@id"`: a sender of RDF has a node there.
IDENTIFIERS = ("accessService", "callbackAddress", "endpoint", "endpointURL", "providerPid", "consumerPid", "dataset")
# Arrays of at least one entry by the schemas, which some write where there is none: to JSON-LD they say nothing. What narrows a policy is
# not among them, as whom an empty list means there is for `odrl_reading` to say.
MAY_BE_EMPTY = frozenset({"permission", "prohibition", "obligation", "reason", "endpointProperties"})
TEXT_OF_VALUES = b'{\\"@'  # how a body looks that has `[{"@value":"a"},{"@value":"b"}]`, or `{"@id":"urn:a"}`, as a string


def readings(document: dict[str, Any], body: bytes) -> Iterator[dict[str, Any]]:
    """What the document may be in the form that the schemas have, for whoever looks which one is valid; `body` is its text. One that is
    the expanded form of a string is no object in that form, and none of these."""
    if TEXT_OF_VALUES not in body:  # else it is a mere string to the schemas, and would be valid as it stands
        yield document
    tidied = tidy(document)
    if isinstance(tidied, dict):
        yield tidied


def tidy(value: Any) -> Any:
    """What compaction with the DSP context leaves different from the schemas, as they have it: groups, references, typed strings, lists
    of nothing, and right operands that are the text of values. Recursive, for documents of bounded depth."""
    if isinstance(value, list):
        return [tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("@type") == "@json":  # a literal: what looks like a term in it is none
        return value
    if value.keys() == {"@type", "@value"} and value["@type"] == "xsd:string":  # RDF 1.1: the same as a plain string
        return value["@value"]
    return {key: tidy(_as_schema_has_it(key, inner)) for key, inner in value.items() if inner != [] or key not in MAY_BE_EMPTY}


def _as_schema_has_it(key: str, value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else ()
    if key in GROUPS:
        members = value["@list"] if keys == {"@list"} else value
        return members if isinstance(members, list) else [members]
    if key == "rightOperand" and isinstance(value, str):
        return _values_of(value)
    return value["@id"] if key in IDENTIFIERS and keys == {"@id"} else value


def _values_of(text: str) -> Any:
    """The values whose expanded form (JSON-LD 1.1, 9.5 and 9.1) the text is; any other text as it is.

    Read as a mere string it would be one purpose of a strange name: `isNoneOf` would hold whatever the purpose is.
    """
    if not text.startswith(('[{"@', '{"@')):
        return text
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    several = found if isinstance(found, list) else [found]
    if not all(isinstance(each, dict) and _is_value(each) for each in several):
        return text
    values = [each["@value"] if each.keys() == {"@value"} else each for each in several]
    return values if isinstance(found, list) else values[0]


def _is_value(node: dict[str, Any]) -> bool:
    said = node.keys() in ({"@id"}, {"@value"}, {"@value", "@type"})
    return said and all(isinstance(inner, str) for inner in node.values())
