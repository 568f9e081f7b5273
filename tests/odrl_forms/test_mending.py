from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding
from connector.odrl_forms.mending import apply_patch, mended, value_at

TREE: dict[str, Any] = {"a": [1, {"b~/c": "x"}, 3], "d": {"e": None}}


def finding(code: Code, path: str) -> Finding:
    return Finding(code, path, "it is wrong", "mend it")


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ([{"op": "add", "path": "/f", "value": 1}], {**TREE, "f": 1}),
        ([{"op": "add", "path": "/a/1", "value": 2}], {**TREE, "a": [1, 2, {"b~/c": "x"}, 3]}),
        ([{"op": "add", "path": "/a/-", "value": 4}], {**TREE, "a": [*TREE["a"], 4]}),
        ([{"op": "replace", "path": "/a/0", "value": 9}], {**TREE, "a": [9, *TREE["a"][1:]]}),
        ([{"op": "replace", "path": "/a/1/b~0~1c", "value": "y"}], {**TREE, "a": [1, {"b~/c": "y"}, 3]}),
        ([{"op": "remove", "path": "/a/1"}], {**TREE, "a": [1, 3]}),
        ([{"op": "remove", "path": "/d"}], {"a": TREE["a"]}),
        ([{"op": "move", "from": "/d/e", "path": "/e"}, {"op": "remove", "path": "/d"}], {"a": TREE["a"], "e": None}),
        ([{"op": "replace", "path": "", "value": 1}], 1),
    ],
)
def test_a_patch_changes_a_copy(patch: list[dict[str, Any]], expected: object):
    before = repr(TREE)
    assert apply_patch(TREE, patch) == expected
    assert repr(TREE) == before


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"op": "copy", "path": "/a"}, "the step `copy` of a patch is not known"),
        ({"op": "remove", "path": "/z"}, "nothing stands at `/z`"),
        ({"op": "replace", "path": "/a/7", "value": 1}, "nothing stands at `/a/7`"),
        ({"op": "add", "path": "/a/9", "value": 1}, "`/a/9` is no place in the array"),
        ({"op": "add", "path": "/a/-1", "value": 1}, "`/a/-1` is no place in the array"),
        ({"op": "add", "path": "/a/0/x", "value": 1}, "nothing can stand at `/a/0/x`"),
        ({"op": "add", "path": "a", "value": 1}, "`a` is no JSON pointer"),
        ({"op": "move", "from": "/z", "path": "/y"}, "nothing stands at `/z`"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(step: dict[str, Any], expected: str):
    with pytest.raises(PolicyError) as caught:
        apply_patch(TREE, [step])
    assert expected in caught.value.message


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=1))
def test_what_is_removed_and_added_again_is_the_same(tree: dict[str, int]):
    key = next(iter(tree))
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    assert value_at(tree, path) == tree[key]
    assert apply_patch(tree, [{"op": "remove", "path": path}, {"op": "add", "path": path, "value": tree[key]}]) == tree


RULES: dict[str, Any] = {
    "permission": [
        {"action": "use", "constraint": [{"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": 5}]},
        {"action": "use"},
    ],
    "prohibition": {"action": "odrl:sell"},
}


@pytest.mark.parametrize(
    ("code", "path", "patch"),
    [
        (
            Code.MALFORMED,
            "/permission/0/constraint/0",
            {"op": "replace", "path": "/permission/0/constraint/0/rightOperand", "value": {"@value": "5", "@type": "xsd:integer"}},
        ),
        (
            Code.MALFORMED,
            "/permission/0/constraint/0/rightOperand",
            {"op": "replace", "path": "/permission/0/constraint/0/rightOperand", "value": {"@value": "5", "@type": "xsd:integer"}},
        ),
        (Code.MALFORMED, "/prohibition", {"op": "replace", "path": "/prohibition", "value": [{"action": "odrl:sell"}]}),
        (Code.DUPLICATE_RULE, "/permission/1", {"op": "remove", "path": "/permission/1"}),
    ],
)
def test_a_finding_gets_the_patch_that_mends_it(code: Code, path: str, patch: dict[str, Any]):
    assert mended(finding(code, path), RULES).patch == (patch,)


@pytest.mark.parametrize(
    ("code", "path"),
    [
        (Code.MALFORMED, ""),
        (Code.MALFORMED, "/nowhere"),
        (Code.MALFORMED, "line 3, column 5"),
        (Code.REDUNDANT, "/permission/0/constraint/0"),  # its array would be empty, which the wire does not take
        (Code.OPERAND_UNSUPPORTED, "/permission/0"),
    ],
)
def test_what_nobody_can_mend_mechanically_stays_as_it_is(code: Code, path: str):
    one = finding(code, path)
    assert mended(one, RULES) is one or mended(one, RULES) == one


def test_a_patch_that_is_there_is_kept():
    one = Finding(Code.TARGET_IN_RULE, "/permission/0", "m", "f", patch=({"op": "remove", "path": "/x"},))
    assert mended(one, RULES) is one


@pytest.mark.parametrize(
    ("raw", "typed"),
    [
        (5, {"@value": "5", "@type": "xsd:integer"}),
        (0.5, {"@value": "0.5", "@type": "xsd:decimal"}),
        (1e30, {"@value": "1e+30", "@type": "xsd:double"}),
        (True, {"@value": "true", "@type": "xsd:boolean"}),
    ],
)
def test_a_bare_number_becomes_the_literal_that_it_stands_for(raw: object, typed: dict[str, str]):
    document = {"constraint": [{"rightOperand": raw}]}
    (step,) = mended(finding(Code.MALFORMED, "/constraint/0"), document).patch
    assert step["value"] == typed


@pytest.mark.parametrize("raw", [float("nan"), float("inf"), "5", None, ["5"]])
def test_what_is_no_number_becomes_none(raw: object):
    assert mended(finding(Code.MALFORMED, "/constraint/0"), {"constraint": [{"rightOperand": raw}]}).patch == ()
