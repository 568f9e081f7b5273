from fractions import Fraction
from typing import Any

import pytest

from connector.odrl import Alias, Operand, Options, Profile, load
from connector.odrl.model import DEFAULT_OPTIONS, FALSE, TRUE, UNKNOWN, Constraint, Lapse, Logic, Members, Node, Opaque, Span, Window
from connector.odrl.operands import COUNT, DATE_TIME, ELAPSED_TIME, PURPOSE
from connector.odrl.registry import registry_of
from connector.odrl.values import DAY, stretch
from connector.odrl.vocabulary import ODRL, XSD
from connector.odrl_reading.constraints import DEPTH_MAX, nodes
from connector.odrl_reading.reading import Dialect, Reading
from tests.odrl.cases import leaf, offer, purpose, rule, time

X = "https://x.example/"
PROFILE = Profile(
    "x",
    prefixes={"x": X},
    operands=(
        Operand(X + "term", "term", "条款", "term", "declarative", frozenset({"eq", "isAllOf"}), "contract", "contract-only", "agreement"),
    ),
    aliases=(
        Alias(X + "until", ODRL + "dateTime", {"eq": "lteq"}),
        Alias(X + "days", ODRL + "elapsedTime", {"eq": "lteq"}, value="P{}D"),
        Alias(X + "inForce", ODRL + "elapsedTime", {"lteq": "lteq", "gteq": "gteq"}, offset=True, otherwise=ODRL + "dateTime"),
        Alias(X + "partners", "urn:qiao:participant", {"eq": "isAnyOf"}, separator=","),
        Alias(X + "lost", X + "nowhere", {"eq": "eq"}),
    ),
)
OURS = Options(profiles=(PROFILE,))


def read(*raw: object, dialect: Dialect = "dsp", options: Options = DEFAULT_OPTIONS, **more: Any) -> tuple[tuple[Node, ...], Reading]:
    reading = Reading(registry_of(options), dialect, **more)
    return nodes(list(raw), "/c", reading), reading


def atom(raw: dict[str, Any], **more: Any) -> Constraint:
    (found,), reading = read(raw, **more)
    assert [finding for finding in reading.findings if finding.severity == "error"] == []
    assert isinstance(found, Constraint)
    return found


def refused(raw: object, **more: Any) -> list[tuple[str, str]]:
    _, reading = read(raw, **more)
    return [(finding.code.value, finding.path) for finding in reading.findings if finding.severity == "error"]


# --- the three parts


@pytest.mark.parametrize("left", ["odrl:purpose", ODRL + "purpose", {"@id": "odrl:purpose"}])
@pytest.mark.parametrize("operator", ["eq", "odrl:eq", ODRL + "eq", {"@id": "odrl:eq"}])
@pytest.mark.parametrize("right", ["a", ["a"], {"@value": "a"}, {"@list": ["a"]}, {"@value": "a", "@type": "xsd:string"}])
def test_the_parts_of_a_constraint_have_many_spellings(left: object, operator: object, right: object) -> None:
    found = atom({"leftOperand": left, "operator": operator, "rightOperand": right})
    assert (found.operand, found.operator, found.test) == (PURPOSE, "eq", Members(frozenset({"a"}), "eq"))


def test_under_the_context_of_the_w3c_operands_and_numbers_stand_bare() -> None:
    found = atom({"uid": "urn:c", "leftOperand": "count", "operator": "lteq", "rightOperand": 5}, dialect="odrl")
    assert (found.operand, found.test, found.id, found.label) == (COUNT, Window(None, (5, 1)), "urn:c", "count of uses")


@pytest.mark.parametrize(
    ("left", "right", "test"),
    [
        ("odrl:count", {"@value": "5", "@type": "xsd:integer"}, Window(None, (5, 1))),
        ("odrl:payAmount", "0.1", Window(None, (Fraction(1, 10), 1))),
        ("odrl:elapsedTime", "P1M", Lapse(None, Span(1, 0))),
        ("odrl:dateTime", "2026-06-15Z", Window(None, (stretch("2026-06-16T00:00:00Z").start, 0))),
    ],
)
def test_a_bound_is_of_the_sort_of_its_operand(left: str, right: object, test: object) -> None:
    assert atom(leaf(left, "lteq", right)).test == test


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("odrl:count", "five"),
        ("odrl:count", "P5D"),
        ("odrl:elapsedTime", "5"),
        ("odrl:dateTime", "5"),
        ("odrl:dateTime", {"@id": "urn:noon"}),
        ("odrl:purpose", {"@value": "5", "@type": "xsd:integer"}),
        ("odrl:purpose", {"@id": "relative"}),
    ],
)
def test_a_value_of_another_sort_is_refused(left: str, right: object) -> None:
    operator = "eq" if left == "odrl:purpose" else "lteq"
    assert refused(leaf(left, operator, right)) == [("TYPE_MISMATCH", "/c/0/rightOperand")]


@pytest.mark.parametrize("operator", ["eq", "neq", "isAnyOf", "isNoneOf"])
@pytest.mark.parametrize(
    "text",
    [
        '[{"@value":"marketing"}]', '{"@id":"urn:marketing"}', "[{@value={chars=a, string=a, valueType=STRING}}]",
        ' [ {"@value": "marketing"} ]', ' { "@id": "urn:marketing"}', '["marketing"]',
    ],
)  # fmt: skip
def test_the_text_of_values_is_no_value_for_nobody_has_it_and_is_none_of_it(operator: str, text: str):
    assert refused(purpose(operator, text)) == [("TYPE_MISMATCH", "/c/0/rightOperand")]


def test_a_value_in_braces_is_one():
    assert refused(purpose("isNoneOf", "{a}")) == []


@pytest.mark.parametrize(
    "raw",
    [
        {"operator": "eq", "rightOperand": "a"},
        {"leftOperand": "odrl:purpose", "rightOperand": "a"},
        {"leftOperand": "odrl:purpose", "operator": "eq"},
        leaf("odrl:count", "eq", 5),
        leaf("odrl:purpose", "eq", True),
        {"leftOperand": ["odrl:purpose"], "operator": "eq", "rightOperand": "a"},
        {**purpose("eq", "a"), "and": []},
        {"and": [], "or": []},
        {},
        "x",
    ],
)
def test_what_is_no_constraint_is_malformed(raw: object) -> None:
    assert [code for code, _ in refused(raw)] == ["MALFORMED"]


# --- dataType, unit, status, references


@pytest.mark.parametrize("datatype", ["xsd:date", {"@id": "xsd:date"}, XSD + "date"])
def test_a_data_type_types_plain_values(datatype: object) -> None:
    assert atom({**time("lteq", "2026-06-15"), "odrl:dataType": datatype}).test == atom(time("lteq", "2026-06-15Z")).test
    assert refused({**time("lteq", "2026-06-15T12:00:00Z"), "odrl:dataType": datatype}) == [("TYPE_MISMATCH", "/c/0/rightOperand")]
    typed = {**time("lteq", {"@value": "2026-06-15T12:00:00Z", "@type": "xsd:dateTime"}), "odrl:dataType": datatype}
    assert atom(typed).test == atom(time("lteq", "2026-06-15T12:00:00Z")).test  # the value's own type goes before


def test_a_data_type_types_each_value_of_a_list() -> None:
    found = atom({**purpose("isAnyOf", ["a", {"@id": "urn:b"}]), "odrl:dataType": "xsd:string"})
    assert found.test == Members(frozenset({"a", "urn:b"}), "isAnyOf")
    assert refused({**purpose("isAnyOf", ["a"]), "odrl:dataType": "xsd:integer"}) == [("TYPE_MISMATCH", "/c/0/rightOperand")]


@pytest.mark.parametrize("unit", ["urn:eur", {"@id": "urn:eur"}])
def test_a_number_has_a_unit_and_is_known_in_it_alone(unit: object) -> None:
    found = atom({**leaf("odrl:payAmount", "lteq", "5"), "odrl:unit": unit})
    assert (found.unit, found.fact) == ("urn:eur", f"{ODRL}payAmount urn:eur")
    assert [found.judge(facts) for facts in ({found.fact: 5}, {ODRL + "payAmount": 5})] == [TRUE, UNKNOWN]


@pytest.mark.parametrize("raw", [purpose("eq", "a"), time("lt", "2026-01-01Z"), leaf("odrl:event", "lt", {"@id": "urn:fair"})])
def test_what_is_no_amount_has_no_unit(raw: dict[str, Any]) -> None:
    assert refused({**raw, "odrl:unit": "urn:eur"}) == [("UNIT_MISMATCH", "/c/0/odrl:unit")]


CONTROLS = ("a\nb", "a\x1b[2J", "a\x85b", "a\u2028b", "a\u202etxt.exe", "a\u2066b", "a\ud800")


@pytest.mark.parametrize("text", CONTROLS)
@pytest.mark.parametrize("written", ["{}", "urn:{}"])
def test_a_string_that_reads_otherwise_than_it_is_compared_is_a_finding_at_its_place(text: str, written: str) -> None:
    name = written.format(text)
    for right, at in ((name, ""), ({"@value": name}, ""), (["b", name], "/1")):
        _, reading = read(purpose("isAnyOf", right))
        found = [(finding.code.value, finding.path) for finding in reading.findings if finding.severity == "error"]
        assert found == [("TYPE_MISMATCH", f"/c/0/rightOperand{at}")]
        assert all(str(finding).isprintable() for finding in reading.findings)


@pytest.mark.parametrize("text", ["研究\u3000教育", "na\u00efve", "a\u200db", "\u0645\u0631\u062d\u0628\u0627", "two words\u00a0more"])
def test_every_script_that_people_write_is_a_word(text: str) -> None:
    assert atom(purpose("eq", text)).expected == (text,)


@pytest.mark.parametrize("text", CONTROLS)
def test_a_unit_is_an_iri_that_can_be_told(text: str) -> None:
    for unit in (f"urn:{text}", {"@id": f"urn:{text}"}):
        _, reading = read(leaf("odrl:payAmount", "lteq", {"@value": "5", "@type": "xsd:decimal"}) | {"odrl:unit": unit})
        assert ("TYPE_MISMATCH", "/c/0/odrl:unit") in [(finding.code.value, finding.path) for finding in reading.findings]


def test_a_status_is_what_was_used_up_before() -> None:
    found = atom({**leaf("odrl:count", "lteq", "10"), "odrl:status": {"@value": "4", "@type": "xsd:integer"}})
    assert found.test == Window(None, (6, 1))
    assert found.expected == ("10",)
    exact = atom({**leaf("odrl:count", "eq", "10"), "odrl:status": "4"})
    assert exact.test == Window((6, 0), (6, 1))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({**leaf("odrl:count", "lteq", "10"), "odrl:status": "some"}, "TYPE_MISMATCH"),
        ({**leaf("odrl:count", "lteq", "10"), "odrl:status": "-90"}, "TYPE_MISMATCH"),
        ({**leaf("odrl:count", "lteq", "10"), "odrl:status": {"@value": "-0.5", "@type": "xsd:decimal"}}, "TYPE_MISMATCH"),
        ({**purpose("eq", "a"), "odrl:status": "4"}, "TERM_UNSUPPORTED"),
        ({**leaf("odrl:elapsedTime", "lteq", "P1D"), "odrl:status": "4"}, "TERM_UNSUPPORTED"),
    ],
)
def test_a_status_that_means_nothing_is_refused(raw: dict[str, Any], code: str) -> None:
    assert refused(raw) == [(code, "/c/0/odrl:status")]


def test_a_reference_is_resolved_from_what_is_at_hand_and_nothing_else() -> None:
    raw = {"leftOperand": "odrl:count", "operator": "lteq", "odrl:rightOperandReference": {"@id": "urn:max"}}
    assert atom(raw, references={"urn:max": "7"}).test == Window(None, (7, 1))
    several = {**purpose("isAnyOf", []), "odrl:rightOperandReference": ["urn:one", "urn:two"]}
    del several["rightOperand"]
    assert atom(several, references={"urn:one": "a", "urn:two": "b"}).test == Members(frozenset("ab"), "isAnyOf")
    assert refused(raw) == [("REFERENCE_UNRESOLVED", "/c/0/odrl:rightOperandReference")]
    assert refused({**raw, "rightOperand": "5"}, references={"urn:max": "7"}) == [
        ("REFERENCE_UNRESOLVED", "/c/0/odrl:rightOperandReference")
    ]


def test_a_finding_about_a_referenced_value_points_at_the_reference_and_mends_nothing() -> None:
    raw = {"leftOperand": "odrl:dateTime", "operator": "lteq", "odrl:rightOperandReference": "urn:end"}
    _, reading = read(raw, references={"urn:end": "2026-06-15"})
    assert [(each.code, each.path, each.patch) for each in reading.findings] == [("ZONE_MISSING", "/c/0/odrl:rightOperandReference", ())]


# --- lists


def test_several_values_need_a_list_operator() -> None:
    assert refused(purpose("eq", ["a", "b"])) == [("TYPE_MISMATCH", "/c/0/rightOperand")]
    assert refused(leaf("odrl:count", "lteq", ["5", "6"])) == [("TYPE_MISMATCH", "/c/0/rightOperand")]
    for operator in ("isAnyOf", "isNoneOf", "isA", "isPartOf", "hasPart"):
        assert atom(purpose(operator, ["a", "b", "a"])).test == Members(frozenset("ab"), operator)
    assert refused(purpose("isAnyOf", [])) == [("EMPTY_SET", "/c/0/rightOperand")]


@pytest.mark.parametrize(
    ("operator", "kind", "states"),
    [("isAnyOf", "or", (TRUE, TRUE, FALSE)), ("isNoneOf", "and", (FALSE, FALSE, TRUE)), ("isAllOf", "and", (FALSE, FALSE, FALSE))],
)
def test_a_list_of_numbers_is_a_choice_of_each(operator: str, kind: str, states: tuple[int, ...]) -> None:
    (found,), _ = read(leaf("odrl:count", operator, ["5", "6"]))
    assert isinstance(found, Logic)
    assert (found.kind, [part.path for part in found.parts]) == (kind, ["/c/0/rightOperand/0", "/c/0/rightOperand/1"])
    assert tuple(found.judge({COUNT: value}) for value in (5, 6, 7)) == states
    assert found.judge({}) == UNKNOWN
    assert refused(leaf("odrl:count", operator, ["5", "many"])) == [("TYPE_MISMATCH", "/c/0/rightOperand/1")]
    assert refused(leaf("odrl:count", operator, [])) == [("EMPTY_SET", "/c/0/rightOperand")]


def test_an_interval_recurs() -> None:
    """odrl.md 1.7: `timeInterval eq d` is satisfied that long after the last use, and later."""
    day = Span(0, DAY)
    assert atom(leaf("odrl:timeInterval", "eq", "P1D")).test == Lapse(day, None)
    assert atom(leaf("odrl:timeInterval", "neq", "P1D")).test == Lapse(None, day, end_in=False)
    assert atom(leaf("odrl:elapsedTime", "eq", "P1D")).test == Lapse(day, day)


# --- logic


@pytest.mark.parametrize("kind", ["and", "or", "xone", "andSequence"])
def test_constraints_are_joined(kind: str) -> None:
    (found,), reading = read({kind: [purpose("eq", "a"), purpose("eq", "b")], "@id": "urn:l"})
    assert isinstance(found, Logic)
    assert (found.kind, found.id) == (kind, "urn:l")
    assert [part.path for part in found.parts] == [f"/c/0/{kind}/0", f"/c/0/{kind}/1"]
    assert reading.leaves == 3


def test_a_list_of_parts_keeps_its_order_and_its_pointers() -> None:
    (found,), reading = read({"andSequence": {"@list": [purpose("eq", "a"), purpose("eq", "b")]}})
    assert isinstance(found, Logic)
    assert [part.path for part in found.parts] == ["/c/0/andSequence/@list/0", "/c/0/andSequence/@list/1"]
    assert reading.findings == []


def test_logic_of_nothing_says_nothing_and_is_unknown() -> None:
    for kind in ("and", "or", "xone", "andSequence"):
        (found,), _ = read({kind: []})
        assert isinstance(found, Opaque)
        assert found.judge({}) == UNKNOWN
        assert refused({kind: []}) == [("EMPTY_SET", f"/c/0/{kind}")]


def test_under_the_context_of_dsp_parts_stand_in_an_array() -> None:
    assert refused({"and": purpose("eq", "a")}) == [("MALFORMED", "/c/0/and")]
    (found,), _ = read({"and": leaf("purpose", "eq", "a")}, dialect="odrl")
    assert [part.path for part in found.parts] == ["/c/0/and"]  # type: ignore[union-attr]


def test_constraints_nest_as_deep_as_anybody_needs() -> None:
    deep = purpose("eq", "a")
    for _ in range(DEPTH_MAX):
        deep = {"and": [deep]}
    assert load(offer(rule(deep))).permissions


@pytest.mark.parametrize("around", ["and", "or", "xone"])
def test_what_is_not_understood_is_unknown_and_never_left_out(around: str) -> None:
    (found,), _ = read({around: [purpose("eq", "a"), leaf("urn:mood", "eq", "good")]})
    assert found.judge({PURPOSE: "b"}) == (FALSE if around == "and" else UNKNOWN)
    assert found.judge({PURPOSE: "a"}) == (TRUE if around == "or" else UNKNOWN)


# --- aliases


@pytest.mark.parametrize(
    ("raw", "same"),
    [
        (leaf("x:until", "eq", "2026-12-31Z"), time("lteq", "2026-12-31Z")),
        (leaf(X + "days", "eq", "30"), leaf("odrl:elapsedTime", "lteq", "P30D")),
        (leaf("x:days", "eq", {"@value": "30", "@type": "xsd:integer"}), leaf("odrl:elapsedTime", "lteq", "P30D")),
        (leaf("x:inForce", "lteq", "contractAgreement+30d"), leaf("odrl:elapsedTime", "lteq", "P30D")),
        (leaf("x:inForce", "lteq", "contractAgreement+12h"), leaf("odrl:elapsedTime", "lteq", "PT12H")),
        (leaf("x:inForce", "gteq", "2026-01-01T00:00:00Z"), time("gteq", "2026-01-01T00:00:00Z")),
        (leaf("x:partners", "eq", "did:web:a, did:web:b"), leaf("urn:qiao:participant", "isAnyOf", ["did:web:a", "did:web:b"])),
        (leaf("odrl:device", "eq", "urn:d"), leaf("odrl:systemDevice", "eq", "urn:d")),
    ],
)
def test_an_alias_is_what_it_stands_for(raw: dict[str, Any], same: dict[str, Any]) -> None:
    found, other = atom(raw, options=OURS), atom(same, options=OURS)
    assert (found.operand, found.operator, found.test) == (other.operand, other.operator, other.test)


@pytest.mark.parametrize(
    ("raw", "code", "at"),
    [
        (leaf("x:until", "lt", "2026-12-31Z"), "OPERATOR_UNSUPPORTED", "operator"),
        (leaf("x:days", "eq", "many"), "TYPE_MISMATCH", "rightOperand"),
        (leaf("x:inForce", "lteq", "contractAgreement+soon"), "TYPE_MISMATCH", "rightOperand"),
        (leaf("x:partners", "eq", " , "), "EMPTY_SET", "rightOperand"),
        (leaf("x:lost", "eq", "a"), "OPERAND_UNSUPPORTED", "leftOperand"),
    ],
)
def test_an_alias_that_cannot_be_meant_is_refused(raw: dict[str, Any], code: str, at: str) -> None:
    assert refused(raw, options=OURS) == [(code, f"/c/0/{at}")]


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("purpose", "write `odrl:purpose`"),
        ("purpos", "write `odrl:purpose` if that is meant"),
        ("lost:thing", "write it with a prefix that the DSP context has, such as `odrl:`, or as a full IRI"),
    ],
)
def test_a_left_operand_that_no_context_has_is_mended_by_what_it_may_mean(word: str, fix: str) -> None:
    _, reading = read(leaf(word, "eq", "a"))
    assert (reading.findings[0].code, reading.findings[0].fix) == ("TERM_DROPPED", fix)


def test_an_operator_that_does_not_apply_names_those_that_do() -> None:
    _, reading = read(leaf("x:until", "lt", "2026-12-31Z"), options=OURS)
    assert reading.findings[0].message == "`lt` does not apply to `x:until`"
    assert (reading.findings[0].expected, reading.findings[0].found) == (("eq",), "lt")
    _, reading = read(purpose("like", "a"))
    assert reading.findings[0].message == "`like` is no operator of ODRL"


# --- what is gathered on the way


def test_a_reading_knows_what_its_constraints_look_at() -> None:
    _, reading = read(purpose("eq", "a"), time("lteq", "2026-06-15Z"), {**leaf("odrl:payAmount", "lteq", "5"), "odrl:unit": "urn:eur"},
                      leaf("odrl:elapsedTime", "lteq", "P1D"))  # fmt: skip
    assert reading.usage == {PURPOSE}
    assert reading.measures == {(ODRL + "payAmount", "urn:eur"), (ELAPSED_TIME, "")}
    assert reading.instants == {stretch("2026-06-16T00:00:00Z").start}
    assert reading.leaves == 4
    assert DATE_TIME not in {operand for operand, _ in reading.measures}
