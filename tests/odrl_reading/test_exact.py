"""A policy that is understood can be signed for: it has a digest."""

from typing import Any

import pytest

from connector.errors import PolicyError
from connector.metering.content import digest_of
from connector.odrl import load
from connector.odrl_reading.exact import PARTS_MAX
from tests.odrl.cases import leaf, offer, rule

LARGEST = 2**53 - 1


def limited(written: object, **more: Any) -> dict[str, Any]:
    return offer(rule(leaf("odrl:count", "lteq", written)), **more)


@pytest.mark.parametrize("number", [LARGEST + 1, -LARGEST - 1, 2**63])
def test_a_number_of_json_that_has_no_digest_is_refused_where_it_stands(number: int):
    typed = {"@value": number, "@type": "xsd:integer"}
    written = {"@value": "5", "@type": "xsd:integer"}
    for document, path in (
        (limited(typed), "/permission/0/constraint/0/rightOperand/@value"),
        (limited(written, **{"dct:title": number}), "/dct:title"),
        (limited(written, **{"dct:title": [{"a/b": number}]}), "/dct:title/0/a~1b"),
    ):
        with pytest.raises(ValueError, match="exceeds"):
            digest_of(document)
        with pytest.raises(PolicyError) as refused:
            load(document)
        assert ("MALFORMED", path) in {(each.code.value, each.path) for each in refused.value.findings}


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, str(LARGEST + 2)])
def test_all_others_are_taken(value: object):
    document = limited({"@value": value, "@type": "xsd:integer"}, **{"dct:title": True})
    load(document)
    assert digest_of(document)


def test_it_ends_with_a_title_that_has_no_end():
    title: list[Any] = [1]
    title += [title, [title]]
    load(limited({"@value": "5", "@type": "xsd:integer"}, **{"dct:title": title}))
    with pytest.raises(PolicyError, match="/dct:title/3"):
        load(limited({"@value": "5", "@type": "xsd:integer"}, **{"dct:title": [*title, LARGEST + 1]}))


def test_what_has_more_parts_than_any_policy_is_not_looked_through():
    with pytest.raises(PolicyError) as refused:
        load(limited({"@value": "5", "@type": "xsd:integer"}, **{"dct:title": [[number] for number in range(PARTS_MAX)]}))
    assert [each.code.value for each in refused.value.findings if each.severity == "error"] == ["LIMIT_EXCEEDED"]
