from typing import Any

import orjson
import pytest

from connector.dsp import filters
from connector.dsp.filters import Asked
from connector.errors import InvalidRequest

EDC = "https://w3id.org/edc/v0.0.1/ns/"
NOTHING = {"@type": "QuerySpec", "limit": 50, "offset": 0, "sortOrder": "ASC", "filterExpression": []}  # of a request that asks for nothing
CRITERION = {"@type": "Criterion", "operandLeft": f"{EDC}id", "operator": "=", "operandRight": "urn:d:1"}
ONE = {"property": "@id", "operator": "eq", "value": "urn:d:1"}


@pytest.mark.parametrize(
    "value",
    [
        [{"property": "@id", "operator": "like", "value": "x"}],
        [{"property": "@id", "operator": "eq"}],
        [{"property": "@id", "operator": "eq", "value": 5}],
        [{"property": "@id", "operator": "eq", "value": "x", "more": "y"}],
        ["@id eq x"],
        [[]],
        {"property": "@id", "operator": "eq", "value": "x", "other": 1},
        5,
        0,
        True,
        "x",
    ],
)
def test_a_filter_that_is_not_supported_is_refused_with_what_is(value: Any):
    with pytest.raises(InvalidRequest, match=r"a filter is a list of objects with `property`.*`eq` or `contains`"):
        filters.read(value)


@pytest.mark.parametrize("value", [None, []])
def test_no_filter_and_an_empty_one_are_the_same(value: Any):
    assert filters.read(value) == Asked()


@pytest.mark.parametrize(
    "query",
    [
        NOTHING,
        {"limit": 50},
        {
            "@type": f"{EDC}QuerySpec",
            "@id": "_:b0",
            f"{EDC}limit": 50,
            f"{EDC}offset": 0,
            f"{EDC}sortOrder": "ASC",
            f"{EDC}sortField": None,
        },
        {"edc:limit": {"@value": 50, "@type": "xsd:integer"}, "edc:offset": 0, "edc:sortOrder": "DESC"},
    ],
)
def test_a_query_of_edc_without_criteria_asks_for_so_many(query: dict[str, Any]):
    assert filters.read([query]) == Asked(limit=50)
    assert filters.read([query | {"offset": 7}] if "offset" in query else [{"limit": 50, "offset": 7}]) == Asked(offset=7, limit=50)
    assert filters.read_text(orjson.dumps([query]).decode()) == Asked(limit=50)


def test_a_query_of_edc_for_all_gets_a_page_of_so_many_as_we_give_at_most():
    assert filters.read([NOTHING | {"limit": 2**31 - 1}]) == Asked(limit=filters.LIMIT_MAX)
    assert filters.read([{"@type": "QuerySpec"}]) == Asked()


@pytest.mark.parametrize(
    ("left", "name"),
    [
        ("id", "@id"),
        ("@id", "@id"),
        ("edc:id", "@id"),
        (f"{EDC}id", "@id"),
        ("dct:title", "dct:title"),
        ("http://purl.org/dc/terms/title", "dct:title"),
        ("http://www.w3.org/ns/dcat#keyword", "dcat:keyword"),
    ],
)
def test_a_criterion_that_means_the_same_here_is_a_condition(left: str, name: str):
    condition = {"property": name, "operator": "eq", "value": "urn:d:1"}
    for said in ({"operandLeft": left}, {"operandLeft": {"@value": left}}):
        for expression in (CRITERION | said, [CRITERION | said]):
            assert filters.read([NOTHING | {"filterExpression": expression}]).conditions == (condition,)
    long = {f"{EDC}{name}": value for name, value in (CRITERION | {"operandLeft": left}).items() if name[0] != "@"}
    assert filters.read([ONE, {f"{EDC}filterExpression": long}]).conditions == (ONE, condition)


@pytest.mark.parametrize(
    "query",
    [
        NOTHING | {"offset": -1},
        NOTHING | {"limit": 0},
        NOTHING | {"limit": "50"},
        NOTHING | {"limit": True},
        NOTHING | {"offset": 1.0},
        NOTHING | {"sortField": "id"},
        NOTHING | {"sortOrder": "RANDOM"},
        NOTHING | {"page": 1},
        NOTHING | {"filterExpression": "id = 1"},
        NOTHING | {"filterExpression": [CRITERION | {"operator": "like"}]},
        NOTHING | {"filterExpression": [CRITERION | {"operandLeft": "https://example.org/ns/id"}]},
        NOTHING | {"filterExpression": [CRITERION | {"operandLeft": "privateProperties.id"}]},
        NOTHING | {"filterExpression": [CRITERION | {"operandRight": ["a"]}]},
        NOTHING | {"filterExpression": [CRITERION | {"negated": "yes"}]},
        NOTHING | {"filterExpression": [CRITERION, 5]},
    ],
)
def test_a_query_of_edc_that_means_something_else_is_refused_with_what_can_be_asked(query: dict[str, Any]):
    with pytest.raises(InvalidRequest, match=r"`QuerySpec` of EDC with `offset`, `limit` and `filterExpression`"):
        filters.read([query])


def test_two_queries_of_edc_are_refused():
    with pytest.raises(InvalidRequest, match="more than one `QuerySpec`"):
        filters.read([NOTHING, NOTHING])
