import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.dsp import jsonld, wire
from connector.dsp.messages import CONTEXT, DSP_CONTEXT, Kind, Move
from connector.errors import WireError
from connector.vocabulary import read_vocabulary
from tests.pair import OPEN, SCHEMAS
from tests.vocab import corpus

CONTEXTS = read_vocabulary().contexts

OFFER = OPEN | {"@id": "urn:o:1", "target": "urn:d:1"}
REQUEST: dict[str, Any] = {
    "@context": CONTEXT,
    "@type": "ContractRequestMessage",
    "consumerPid": "urn:uuid:c",
    "callbackAddress": "https://c.test/dsp",
    "offer": OFFER,
}
EDC = "https://w3id.org/edc/dspace/v0.0.1"
FIRST = (Move.CONTRACT_REQUEST,)
EVENTS = (Move.ACCEPTED, Move.FINALIZED)
MEMBERS: dict[Move, dict[str, Any]] = {
    Move.CONTRACT_REQUEST: {"offer": OFFER},
    Move.CONTRACT_OFFER: {"offer": OFFER},
    Move.CONTRACT_AGREEMENT: {
        "agreement": OFFER | {"@type": "Agreement", "assigner": "did:web:p", "assignee": "did:web:c", "timestamp": "2026-11-24T00:00:00Z"}
    },
    Move.TRANSFER_REQUEST: {"agreementId": "urn:a", "format": "HttpData-PULL", "callbackAddress": "https://c.test"},
}


def parsed(document: Any, expected: tuple[Move, ...] = FIRST) -> Any:
    found = wire.parse(orjson.dumps(document), expected[0].type, SCHEMAS)
    return found if isinstance(found, wire.NeedsExpansion) else wire.read(found, expected)


def scopes(context: Any) -> Iterator[dict[str, Any]]:
    """The terms of a context, and of each context that one of them opens."""
    for terms in context if isinstance(context, list) else [context]:
        if isinstance(terms, dict):
            yield {term: value for term, value in terms.items() if value is not None}
            for value in terms.values():
                if isinstance(value, dict):
                    yield from scopes(value.get("@context"))


def without(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (REQUEST | changes).items() if v is not None}


@pytest.mark.parametrize("move", list(Move))
def test_what_is_built_is_valid_and_reads_back_as_the_same_move(move: Move):
    provider_pid = None if move is Move.TRANSFER_REQUEST else "urn:p"
    document = wire.message(move, consumer_pid="urn:c", provider_pid=provider_pid, **MEMBERS.get(move, {}))
    assert SCHEMAS.reasons(move.type, document) == []
    read = parsed(document, EVENTS if move in EVENTS else (move,))
    assert (read.move, read.consumer_pid, read.provider_pid) == (move, "urn:c", provider_pid)
    assert read.document == document


def test_members_that_are_none_are_left_out():
    assert wire.message(Move.START, consumer_pid="c", provider_pid="p", dataAddress=None).keys() == {
        "@context", "@type", "consumerPid", "providerPid",
    }  # fmt: skip


@pytest.mark.parametrize("contexts", [[*CONTEXT, EDC], [EDC, *CONTEXT], [EDC, *CONTEXT, "https://other.example/context"]])
def test_further_context_urls_beside_the_one_of_dsp_keep_the_fast_path(contexts: list[Any]):
    assert parsed(without(**{"@context": contexts})).move is Move.CONTRACT_REQUEST


@pytest.mark.parametrize(
    "document",
    [
        without(**{"@context": DSP_CONTEXT}),
        without(**{"@context": ["https://other.example/context"]}),
        without(**{"@context": None}),
        without(**{"@context": [*CONTEXT, {"x": "urn:x"}]}),  # the schema has URLs only
        without(**{"@type": ["ContractRequestMessage"]}),
        without(**{"@type": "dspace:ContractRequestMessage"}),
        without(providerPid="urn:uuid:p"),  # both `callbackAddress` and `providerPid`
        without(offer=OFFER | {"permission": {"action": "use"}}),  # expansion makes it a list
        without(consumerPid={"@value": "urn:uuid:c"}),
        without(consumerPid=5),
        without(callbackAddress=None, **{"dspace:callbackAddress": "https://c.test/dsp"}),
        without(offer={name: OFFER[name] for name in ("@id", "@type", "target")}, **{"@included": [OFFER]}),
        [REQUEST],
        "text",
        None,
        7,
    ],
)
def test_what_is_not_compact_needs_expansion(document: Any):
    assert parsed(document) == wire.NeedsExpansion("ContractRequestMessage")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (without(consumerPid=None), "the document lacks `consumerPid`"),
        (without(consumerPid=None, offer=5), "`/offer` must be an object, not a number"),  # what else there is
        (without(callbackAddress=None, **{"@context": [EDC, *CONTEXT]}), "one of `callbackAddress` or `providerPid`"),
        (without(offer=OFFER | {"permission": [{}]}), "`/offer/permission/0` lacks `action`"),
    ],
)
def test_a_mistake_in_the_compact_form_is_explained_at_once(document: Any, reason: str):
    with pytest.raises(WireError, match="not a valid `ContractRequestMessage`") as refused:
        parsed(document)
    assert reason in str(refused.value.reasons)


@pytest.mark.parametrize("contexts", [CONTEXT, [*CONTEXT, EDC]])
def test_a_list_of_nothing_says_nothing_where_the_schemas_want_an_entry(contexts: list[str]):
    """As some programs write what there is none of."""
    empty = {"prohibition": [], "obligation": []}
    message = parsed(REQUEST | {"@context": contexts, "offer": OFFER | empty})
    assert message.document == REQUEST | {"@context": contexts}
    assert message.digest == wire.digest(REQUEST | {"@context": contexts})
    assert jsonld.compact(REQUEST | {"offer": OFFER | empty}, "ContractRequestMessage", CONTEXTS) == REQUEST
    ended = {"@context": contexts, "@type": "TransferTerminationMessage", "consumerPid": "urn:c", "providerPid": "urn:p", "reason": []}
    assert "reason" not in parsed(ended, (Move.TRANSFER_TERMINATION,)).document


@pytest.mark.parametrize("narrows", [{"odrl:assignee": []}, {"permission": [{"action": "use", "constraint": [{"and": []}]}]}])
def test_a_list_of_nothing_that_narrows_a_policy_stays_for_who_judges_it(narrows: dict[str, Any]):
    offer = OFFER | narrows
    found = wire.parse(orjson.dumps(REQUEST | {"offer": offer | {"prohibition": []}}), "ContractRequestMessage", SCHEMAS)
    assert isinstance(found, wire.NeedsExpansion) or found["offer"] == offer
    compacted = jsonld.compact(REQUEST | {"offer": offer | {"prohibition": []}}, "ContractRequestMessage", CONTEXTS)
    assert not SCHEMAS.is_valid("ContractRequestMessage", compacted) or b"[]" in orjson.dumps(compacted["offer"])


@pytest.mark.parametrize("type_", ["ContractRequestMessage", "TransferStartMessage", "ContractNegotiationTerminationMessage"])
def test_what_is_refused_without_expansion_is_what_no_expansion_could_mend(type_: str):
    """The truth is the library for JSON-LD and the official schema, on mutated messages."""
    at_once = 0
    for document in corpus.mutations(type_, 1_500):
        try:
            wire.parse(orjson.dumps(document), type_, SCHEMAS)
            continue
        except WireError as error:
            if "not a valid" not in error.message:
                continue
        at_once += 1
        try:
            mended = jsonld.compact(document, type_, CONTEXTS)
        except WireError:
            continue
        assert not corpus.oracle()[type_].is_valid(mended), document
    assert at_once >= 5


@pytest.mark.parametrize("context", CONTEXTS.values())
def test_no_context_that_we_know_gives_one_thing_two_bare_names(context: Any):
    """Otherwise a member that is missing could be there under its other name."""
    for terms in scopes(context["@context"]):
        names = [value["@id"] if isinstance(value, dict) else value for term, value in terms.items() if not term.startswith("@")]
        assert len(set(names)) == len(names)
        assert {term for term, value in terms.items() if value in ("@id", "@type")} <= wire.ALIASES


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nul", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b"{'a': 1}", b"\xef\xbb\xbf{}", b'{"a":"\xed\xa0\x80"}']
)
def test_what_is_not_json_is_refused(body: bytes):
    with pytest.raises(WireError, match="not JSON"):
        wire.load(body)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (nested(wire.DEPTH_MAX + 2), "deeper"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper"),
        (orjson.dumps([1] * (wire.NODES_MAX + 1)), "values"),
        (orjson.dumps("x" * (wire.STRING_CHARACTERS_MAX + 1)), "string of"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_body_beyond_a_limit_is_refused_with_the_limit(body: bytes, said: str):
    with pytest.raises(WireError, match=said):
        wire.load(body)


def test_the_names_of_a_body_beyond_a_limit_are_not_looked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "NAME_ENDS", None)
    with pytest.raises(WireError, match="values"):
        wire.load(orjson.dumps([1] * (wire.NODES_MAX + 1)))


def test_a_body_at_the_limits_is_read():
    assert wire.load(nested(wire.DEPTH_MAX))
    assert len(wire.load(orjson.dumps([1] * (wire.NODES_MAX - 1)))) == wire.NODES_MAX - 1
    assert wire.load(orjson.dumps("x" * wire.STRING_CHARACTERS_MAX))


def test_an_event_that_the_endpoint_does_not_take_is_named():
    document = wire.message(Move.ACCEPTED, consumer_pid="c", provider_pid="p")
    with pytest.raises(WireError, match=r"`ContractNegotiationEventMessage` with event `ACCEPTED`.*FINALIZED"):
        wire.read(document, (Move.FINALIZED,))


WORDS = st.text(max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=5))
def test_the_digest_does_not_depend_on_the_order_of_members(document: dict[str, Any]):
    turned = dict(reversed(list(document.items())))
    assert wire.digest(turned) == wire.digest(document)


@given(st.dictionaries(WORDS, JSON, max_size=4), st.dictionaries(WORDS, JSON, max_size=4))
def test_two_documents_have_one_digest_exactly_if_they_say_the_same(one: dict[str, Any], other: dict[str, Any]):
    same = orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    assert (wire.digest(one) == wire.digest(other)) is same


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body: bytes):
    with suppress(WireError):  # anything else is a defect
        wire.parse(body, "ContractNegotiationEventMessage", SCHEMAS)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("state", ["REQUESTED", "TERMINATED"])
def test_the_acknowledgement_is_schema_valid(kind: Kind, state: str):
    document = wire.process_document(kind, "c", "p", state)
    assert SCHEMAS.reasons(document["@type"], document) == []


@pytest.mark.parametrize("kind", [*Kind, None])
@pytest.mark.parametrize("reasons", [(), ("one",), ("one", "two")])
def test_every_error_object_is_schema_valid_and_has_a_reason_where_one_is_demanded(kind: Kind | None, reasons: tuple[str, ...]):
    document = wire.error_document(kind, "a-code", reasons, "c", "p")
    assert SCHEMAS.reasons(document["@type"], document) == []
    if kind is not None:
        assert document["reason"]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"code": "x", "reason": ["a", {"@value": "b", "@language": "en"}, {"c": 1}]}, ("x", ("a", "b", '{"c":1}'))),
        ({"reason": "alone"}, (None, ("alone",))),
        ({"code": 7}, ("7", ())),
        ([], (None, ())),
        (None, (None, ())),
    ],
)
def test_what_a_peer_gives_as_reason_is_read_as_text(document: Any, found: tuple[str | None, tuple[str, ...]]):
    assert wire.reasons_of(document) == found


@given(JSON, JSON)
def test_reasons_of_a_peer_are_bounded_whatever_they_are(code: Any, reason: Any):
    said, reasons = wire.reasons_of({"code": code, "reason": reason})
    assert said is None or len(said) <= 100
    assert len(reasons) <= 10
    assert all(len(text) <= 500 for text in reasons)


GROUND = {
    "code": "CONSTRAINT_UNSATISFIED",
    "policy": "urn:o1",
    "rule": "/permission/0",
    "constraint": "/permission/0/constraint/0",
    "leftOperand": "odrl:purpose",
    "operator": "isAnyOf",
    "expected": ["research", "quality"],
    "actual": ["marketing"],
}
HOW = {
    "action": ["odrl:compensate"],
    "by": "did:web:c.example",
    "target": ["urn:d"],
    "refinements": [
        {"path": "/p/0", "left": {"iri": "odrl:payAmount", "label": "the amount"}, "operator": "eq", "expected": ["5.00"], "unit": "EUR"},
        {"path": "/p/1", "operator": "or", "id": "urn:r"},
        {"path": "/p/2", "left": {"iri": "odrl:count", "label": "uses"}, "operator": "eq", "expected": ["7"], "status": "4"},
    ],
    "with": {"compensatedParty": "did:web:p.example"},
}
DUTY = {"code": "DUTY_NOT_FULFILLED", "rule": "/permission/0", "path": "/permission/0/duty/0", "how_to_fulfil": HOW}
USED_UP = GROUND | {"code": "QUOTA_EXHAUSTED", "leftOperand": "odrl:count", "operator": "lteq", "expected": ["5"], "status": "4"}
REFUSALS = [move for move in Move if move.termination or move is Move.SUSPENSION]


@pytest.mark.parametrize("move", REFUSALS)
@pytest.mark.parametrize("grounds", [(), (GROUND,), (GROUND, {"code": "PROHIBITED", "rule": "/prohibition/0"}), (DUTY,), (USED_UP,)])
def test_a_refusal_carries_its_sentences_and_then_the_same_as_data(move: Move, grounds: tuple[dict[str, Any], ...]):
    reason = wire.reason_items(("Denied: no.", "And why."), grounds)
    document = wire.message(move, consumer_pid="c", provider_pid="p", code="CONSTRAINT_UNSATISFIED", reason=reason)
    body = orjson.dumps(document)
    assert wire.parse(body, document["@type"], SCHEMAS) == document, "it is a compact message, and no expansion is needed"
    assert [e.message for e in corpus.oracle()[move.type].iter_errors(document)] == []
    assert document["reason"][:2] == ["Denied: no.", "And why."]
    assert wire.reasons_of(document) == ("CONSTRAINT_UNSATISFIED", ("Denied: no.", "And why."))
    assert wire.grounds_of(document) == grounds


@pytest.mark.parametrize("move", REFUSALS)
def test_data_survives_a_reader_that_expands(move: Move):
    document = wire.message(
        move, consumer_pid="urn:c", provider_pid="urn:p", code="X", reason=wire.reason_items(("Denied.",), (GROUND, DUTY))
    )
    expanded = jsonld.compact(document, move.type, CONTEXTS)
    assert (wire.reasons_of(expanded), wire.grounds_of(expanded)) == (("X", ("Denied.",)), (GROUND, DUTY))
    assert SCHEMAS.is_valid(move.type, expanded)


@pytest.mark.parametrize(
    ("reason", "texts", "grounds"),
    [
        (["policy mismatch"], ("policy mismatch",), ()),
        ([{"message": "no", "code": "E1"}], ('{"message":"no","code":"E1"}',), ()),
        ([{"@type": "@json", "@value": [1]}], ('{"@type":"@json","@value":[1]}',), ()),
        ([{"@type": "@json", "@value": {"message": "no"}}], ('{"@type":"@json","@value":{"message":"no"}}',), ()),
        ([{"@type": "@json", "@value": {"code": "E1"}}], ('{"@type":"@json","@value":{"code":"E1"}}',), ({"code": "E1"},)),
        (
            ["no", {"@type": "@json", "@value": {"code": "E1", "expected": "a", "actual": 5, "else": 1}}],
            ("no",),
            ({"code": "E1", "expected": ["a"], "actual": ["5"]},),
        ),
    ],
    ids=["a string", "an object", "a list", "an object without a code", "data alone", "one value for a list"],
)
def test_what_other_connectors_give_as_reason_is_kept_as_well_as_it_goes(
    reason: list[Any], texts: tuple[str, ...], grounds: tuple[dict[str, Any], ...]
):
    assert wire.reasons_of({"reason": reason})[1] == texts
    assert wire.grounds_of({"reason": reason}) == grounds


DUTIES = st.dictionaries(
    st.sampled_from([*HOW, "x"]), JSON | st.lists(st.dictionaries(st.sampled_from(["path", "left", "operator", "expected", "x"]), JSON))
)
LITERALS = st.builds(
    lambda value, how: {"@type": "@json", "@value": value | how},
    st.dictionaries(st.sampled_from([*GROUND, "x"]), JSON),
    st.dictionaries(st.just("how_to_fulfil"), JSON | DUTIES),
)


@example([{"@type": "@json", "@value": {"code": "x" * 600, "path": {"a": "y" * 600}, "expected": [5, {"b": "z" * 600}] * 20}}], 40)
@settings(max_examples=50)
@given(st.lists(LITERALS | JSON, max_size=4), st.sampled_from((1, 3, 10)))
def test_grounds_of_a_peer_are_bounded_text_whatever_they_are(items: list[Any], times: int):
    items = items * times  # up to 40: drawing so many took nearly all of the time
    grounds = wire.grounds_of({"reason": items})
    assert len(grounds) <= 10
    for ground in grounds:
        assert ground.keys() <= GROUND.keys() | {"path", "how_to_fulfil"}
        how = ground.pop("how_to_fulfil", HOW)
        assert how
        assert how.keys() <= HOW.keys()
        assert len(orjson.dumps(how)) < 60_000
        for name, value in ground.items():
            listed = name in ("expected", "actual")
            assert isinstance(value, list) is listed
            assert all(isinstance(text, str) and len(text) <= 500 for text in (value if listed else [value]))
            assert len(value) <= 20 or not listed
    assert items == [] or wire.reasons_of({"reason": items})[1], "a reason is never empty because of its form"


NAMES = st.sampled_from(["a", "a:", ":", '"', "\\", 'a":', "", "é"])
VALUES = st.recursive(
    st.none() | NAMES | st.integers(0, 9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=4),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_whatever_says_each_name_once_is_taken_however_it_is_written(value: Any, spread: bool):
    text = json.dumps(value, ensure_ascii=spread, indent=1 if spread else None, separators=(" , ", "\t:\r\n") if spread else None)
    assert wire.load(text.encode()) == value


@given(VALUES, st.integers(1, 12))
def test_limits_count_alike_however_it_is_written(value: Any, most: int):
    def judged(text: bytes) -> tuple[Any, str]:
        try:
            return wire.load(text, most), ""
        except WireError as error:
            return None, error.message

    assert judged(orjson.dumps(value)) == judged(json.dumps(value, indent=1).encode())


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=4, unique_by=lambda pair: pair[0]), st.data())
def test_a_name_that_stands_twice_is_refused_wherever_it_stands(pairs: list[tuple[str, Any]], data: st.DataObject):
    twice = data.draw(st.sampled_from(pairs))[0]
    space = data.draw(st.sampled_from(["", " ", "\n\t"]))
    members = [*pairs, (twice, data.draw(VALUES))]
    text = "{" + ",".join(f"{json.dumps(name)}{space}:{json.dumps(value)}" for name, value in members) + "}"
    for body in (text, f'[{{":":{text}}}]'):
        with pytest.raises(WireError, match="stands twice"):
            wire.load(body.encode())


def test_an_answer_is_an_object_or_nothing():
    assert wire.object_of(b'{"state":"FINALIZED"}') == {"state": "FINALIZED"}
    assert [wire.object_of(body) for body in (b"", b"[]", b"{", b'{"a":1,"a":2}')] == [None] * 4
    assert wire.object_of(b'{"state":"FINALIZED"}' + b" " * 262_144) is None, "it is not even looked at"


@pytest.mark.parametrize("value", ["x", 1, None, [1]])
def test_the_expanded_form_of_a_string_is_no_message_in_compact_form(value: Any):
    body = orjson.dumps({"@type": "xsd:string", "@value": value})
    assert wire.parse(body, "TransferStartMessage", SCHEMAS) == wire.NeedsExpansion("TransferStartMessage")


def test_texts_that_look_like_nothing_but_names_take_no_more_memory_than_others(monkeypatch: pytest.MonkeyPatch):
    """A peer's page of ten megabytes of these took 230 MB, and the interpreter from everybody else for a second."""
    document = {"x": ['":' * 20_000] * 16}
    body = orjson.dumps(document)
    monkeypatch.setattr(orjson, "loads", lambda _: document)  # which reserves room by the size alone
    tracemalloc.start()
    try:
        wire.load(body)
        taken_bytes, most_bytes = tracemalloc.get_traced_memory()[1], 5 * len(body)
    finally:
        tracemalloc.stop()
    assert taken_bytes < most_bytes
