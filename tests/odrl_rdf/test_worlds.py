"""Requests and worlds are what their documents say, in both vocabularies; what is said twice, or half, is a finding."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, Event, Policy, Request, Stage, World, evaluate, load
from connector.odrl.vocabulary import ODRL, W3C_CONTEXT
from connector.odrl_rdf.contexts import W3C_REQUEST_CONTEXT, W3C_WORLD_CONTEXT
from connector.odrl_rdf.worlds import COLLECTIONS_MAX, load_request, load_world

HEAD = f"""@prefix odrl: <{ODRL}> . @prefix sotw: <https://w3id.org/force/sotw#> . @prefix fs: <https://w3id.org/odrl-fs#> .
@prefix report: <https://w3id.org/force/compliance-report#> . @prefix dct: <http://purl.org/dc/terms/> .
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> . @prefix a: <urn:a:> .
@prefix pay: <https://www.epimorphics.com/guide-to-the-payments-ontology/> .
"""
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
INTEGER = "http://www.w3.org/2001/XMLSchema#integer"


def request(text: str, **more: Any) -> Request:
    return load_request(HEAD + text, "turtle", **more)


def world(text: str, now: datetime | None = NOW) -> World:
    return load_world(HEAD + text, "turtle", now=now)


def test_a_request_of_odrl_is_its_one_permission():
    found = request("a:q a odrl:Request ; odrl:permission a:r . a:r odrl:assignee a:alice ; odrl:action odrl:read ; odrl:target a:x .")
    assert found == Request("urn:a:alice", ODRL + "read", "urn:a:x", id="urn:a:q", rule="urn:a:r")
    assert request("[] a odrl:Request ; odrl:permission [ odrl:action odrl:use ] .", stage=Stage.CATALOG) == Request(
        "", ODRL + "use", None, stage=Stage.CATALOG
    )


def test_what_a_request_declares_are_its_parameters():
    found = request(
        """a:q a odrl:Request ; odrl:permission [ odrl:assignee a:alice ;
             odrl:action [ rdf:value odrl:print ;
               odrl:refinement [ odrl:leftOperand odrl:resolution ; odrl:operator odrl:eq ; odrl:rightOperand 1200 ; odrl:unit a:dpi ] ] ;
             odrl:constraint [ odrl:leftOperand odrl:purpose ; odrl:operator odrl:eq ; odrl:rightOperand a:research , "quality" ] ] ."""
    )
    assert found.action == ODRL + "print"
    assert found.params == {
        ODRL + "resolution": ({"@value": "1200", "@type": INTEGER, "unit": "urn:a:dpi"},),
        ODRL + "purpose": ({"@id": "urn:a:research"}, "quality"),
    }


@pytest.mark.parametrize("space", ["sotw", "fs"])
def test_an_evaluation_request_has_parameters_by_feature_and_the_clock_is_none_of_them(space: str):
    asked = (
        ("evaluatedAction", "evaluatedParty", "evaluatedTarget")
        if space == "sotw"
        else ("requestedAction", "requestingParty", "requestedTarget")
    )
    text = f"""a:q a {space}:EvaluationRequest ; {space}:{asked[0]} odrl:print ; {space}:{asked[1]} a:alice ; {space}:{asked[2]} a:x ;
        {space}:requestParameter [ {space}:describesFeature a:dpi ; {space}:value 1000 ] ,
          [ {space}:describesFeature sotw:CurrentXSDDateTime ; {space}:value "2026-06-15T12:00:00"^^xsd:dateTime ] ."""
    assert request(text) == Request(
        "urn:a:alice", ODRL + "print", "urn:a:x", {"urn:a:dpi": ({"@value": "1000", "@type": INTEGER},)}, id="urn:a:q"
    )
    assert world(text, None).now == NOW


def test_a_request_of_the_w3c_is_read_with_a_literal_under_the_wrong_key():
    document = {
        "@context": [W3C_CONTEXT, W3C_REQUEST_CONTEXT, {"ex": "urn:a:"}],
        "@type": "EvaluationRequest", "@id": "ex:q", "evaluatedAction": "odrl:print",
        "requestParameters": {"@type": "RequestParameter", "value": {"@id": "1000", "@type": "xsd:integer"}, "describesFeature": "ex:dpi"},
    }  # fmt: skip
    assert load_request(document).params == {"urn:a:dpi": ({"@value": "1000", "@type": INTEGER},)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a:q a odrl:Set .", "it holds no request; give one"),
        ("a:q a odrl:Request . a:r a odrl:Request .", "it holds 2 requests; give one request, or name it"),
        ("a:q a odrl:Request .", "it asks for 0 permissions"),
        ("a:q a odrl:Request ; odrl:permission [] , [] .", "it asks for 2 permissions; write one request for each"),
        ("a:q a odrl:Request ; odrl:permission [ odrl:target a:x ] .", "it does not say which action"),
        ("a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use , odrl:read ] .", "it names 2 for `action`"),
        ("a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use ; odrl:assignee a:x , a:y ] .", "it names 2 for `assignee`"),
        ('a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use ; odrl:target "x" ] .', "its `target` is no IRI"),
        ("a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use ; odrl:constraint a:c ] .", "sets no conditions"),
        ("a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use ; odrl:constraint a:c ] . "
            "a:c odrl:leftOperand odrl:count ; odrl:operator odrl:lt ; odrl:rightOperand 5 .", "declares values, and sets no conditions"),
        ("a:q a sotw:EvaluationRequest .", "it does not say which action"),
        ("a:q a sotw:EvaluationRequest ; sotw:evaluatedAction odrl:use ; sotw:requestParameter [ sotw:value 5 ] .", "not one feature"),
        ("a:q a sotw:EvaluationRequest ; sotw:evaluatedAction odrl:use ; sotw:requestParameter [ sotw:describesFeature a:x ] .", "a value"),
    ],
)  # fmt: skip
def test_a_request_that_is_none_or_several_is_refused(text: str, complaint: str):
    with pytest.raises(PolicyError, match=complaint):
        request(text)


def test_one_of_several_requests_is_named_by_its_iri():
    text = (
        "a:q a odrl:Request ; odrl:permission [ odrl:action odrl:use ] . a:r a odrl:Request ; odrl:permission [ odrl:action odrl:read ] ."
    )
    assert request(text, id="urn:a:r").action == ODRL + "read"
    with pytest.raises(PolicyError, match="there is no request `urn:a:x`"):
        request(text, id="urn:a:x")


@pytest.mark.parametrize(
    "text",
    [
        '<http://x.example/currentTime> dct:issued "2026-06-15T12:00:00Z"^^xsd:dateTime .',
        'a:w a sotw:SotW ; sotw:currentTime "2026-06-15T14:00:00+02:00"^^xsd:dateTime .',
        'a:w a fs:SotW ; fs:currentTime "2026-06-15 12:00:00" .',
        'a:w a sotw:SotW ; sotw:currentTime a:t . a:t dct:issued "2026-06-15T12:00:00Z"^^xsd:dateTime .',
        'a:w sotw:currentTime "2026-06-15T12:00:00Z" ; fs:currentTime "2026-06-15T12:00:00.000Z" .',
    ],
)
def test_a_world_says_what_time_it_is(text: str):
    assert world(text, datetime(2000, 1, 1, tzinfo=UTC)).now == NOW


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a:w a sotw:SotW .", "it does not say what time it is; add a `currentTime`, or give `now`"),
        ('a:w sotw:currentTime "2026-06-15T12:00:00Z" , "2026-06-15T12:00:01Z" .', "it is several times at once"),
        ('a:w sotw:currentTime "noon" .', "`noon` is no time"),
        ('a:w sotw:currentTime "2026-06-31T12:00:00Z" .', "there is no such day"),
        ('a:w sotw:currentTime "0001-01-01T00:00:00+14:00" .', "is beyond the calendar"),
    ],
)
def test_a_world_of_no_time_or_several_is_refused(text: str, complaint: str):
    with pytest.raises(PolicyError, match=complaint):
        world(text, None)


def test_membership_goes_through_collections_of_collections():
    found = world("a:alice odrl:partOf a:team . a:team odrl:partOf a:firm , a:guild . a:firm odrl:partOf a:team .")
    assert found.member_of["urn:a:alice"] == {"urn:a:team", "urn:a:firm", "urn:a:guild"}
    assert found.member_of["urn:a:team"] == {"urn:a:team", "urn:a:firm", "urn:a:guild"}


def test_too_many_collections_are_a_finding():
    members = ",".join(f"a:c{n}" for n in range(COLLECTIONS_MAX + 1))
    with pytest.raises(PolicyError) as caught:
        world(f"a:alice odrl:partOf {members} .")
    assert [finding.code for finding in caught.value.findings] == [Code.LIMIT_EXCEEDED]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("report:deonticState report:Fulfilled", "fulfilled"),
        ("report:deonticState report:Violated", "overdue"),
        ("report:deonticState report:NonSet", "pending"),
        ("report:performanceState report:Performed", "fulfilled"),
        ("report:performanceState report:Unperformed", "overdue"),
        ("report:performanceState report:Performed ; report:deonticState report:Violated", "overdue"),
        ("report:deonticState report:Strange", None),
        ("report:attemptState report:Attempted", None),
    ],
)
def test_an_earlier_report_says_how_a_duty_stands(said: str, state: str | None):
    assert world(f"[] a report:DutyReport ; report:rule a:d ; {said} .").duties == ({} if state is None else {"urn:a:d": state})


def test_a_payment_that_met_a_condition_is_an_act_of_the_log():
    text = """a:w a sotw:SotW ; sotw:context a:p . a:p a pay:Payment ; sotw:conditionID a:d ; pay:payer a:alice ; pay:netAmount 5.00 ;
        pay:paymentDate "2026-06-15T12:00:00Z"^^xsd:dateTime . a:other a pay:Payment ; pay:netAmount 7 ."""
    payment = Event(NOW, ODRL + "compensate", "urn:a:alice", amounts={ODRL + "payAmount": 5}, duty="urn:a:d", id="urn:a:p")
    assert world(text) == World(NOW, log=(payment,), id="urn:a:w")


def test_places_recipients_counts_and_sums_are_what_is_so():
    found = world("a:w a fs:SotW ; fs:currentLocation a:de ; sotw:recipient a:bob , a:eve ; fs:count 3 ; fs:paidAmount 2.5 , 1 .")
    assert found.facts == {ODRL + "spatial": ({"@id": "urn:a:de"},), ODRL + "recipient": ({"@id": "urn:a:bob"}, {"@id": "urn:a:eve"})}
    assert found.used == {ODRL + "count": 3, ODRL + "payAmount": 7 / 2}


def test_a_count_that_is_no_number_is_refused():
    with pytest.raises(PolicyError, match="`many` is no number") as caught:
        world('a:w fs:count "many" .')
    assert [finding.code for finding in caught.value.findings] == [Code.TYPE_MISMATCH]


def test_a_world_of_the_w3c_is_read_from_json_ld():
    document = {
        "@context": [W3C_CONTEXT, W3C_WORLD_CONTEXT, {"ex": "urn:a:"}], "@id": "ex:w", "@type": "SotW",
        "context": {"@id": "ex:p", "conditionId": "ex:d"},
    }  # fmt: skip
    assert load_world(document, now=NOW) == World(NOW, id="urn:a:w")


def test_what_is_too_deep_is_refused_and_not_mended():
    document: dict[str, Any] = {}
    for _ in range(200):
        document = {"urn:x": document}
    with pytest.raises(PolicyError, match="nested more than"):
        load_world(document, now=NOW)


REPORTED = """a:w a <http://example.org/Sotw> . a:p a report:PolicyReport ; dct:created "{at}"^^xsd:dateTime ; report:ruleReport a:s .
a:s a report:DutyReport ; report:rule <urn:paid> ; report:deonticState report:{state} ."""


def asking(
    id: str, *, action: Any = "odrl:compensate", party: str | None = "did:web:a", target: str | None = "urn:x", **more: Any
) -> Policy:
    """A policy that permits the use once a duty is done."""
    duty = {"@id": id, "action": action, **more}
    who = {} if party is None else {"assignee": party}
    what = {} if target is None else {"target": target}
    permission = {"action": "use", "duty": [duty], **who}
    return load({"@id": f"{id}:policy", "@type": "Set", "permission": [permission], **what})


def counted(*policies: Policy, state: str = "Fulfilled", at: str = "2026-06-15T11:00:00Z") -> World:
    return load_world(HEAD + REPORTED.format(state=state, at=at), "turtle", now=NOW, policies=policies)


MONEY = {"odrl:refinement": [{"leftOperand": "odrl:payAmount", "operator": "eq", "rightOperand": {"@value": "5", "@type": "xsd:integer"}}]}


@pytest.mark.parametrize(
    ("done", "asked", "counts"),
    [
        ({}, {}, True),
        ({"action": "odrl:obtainConsent"}, {}, False),  # another act
        ({"action": "odrl:obtainConsent"}, {"action": "odrl:obtainConsent"}, True),
        ({"action": "odrl:read"}, {"action": "odrl:use"}, True),  # what is below it is it (odrl.md 1.8, row 8)
        ({"action": "odrl:use"}, {"action": "odrl:read"}, False),
        ({}, {"target": "urn:y"}, False),
        ({"target": None}, {}, False),  # nobody says on what
        ({"party": None}, {}, False),  # nor who
        ({"action": "odrl:obtainConsent"}, {"action": "odrl:obtainConsent", "party": "did:web:b"}, False),
        ({}, {"party": "did:web:b"}, True),  # anybody may pay for the assignee
        ({}, {"party": "did:web:b", "assignee": "did:web:b"}, False),  # unless it is to be somebody
        ({"action": {"rdf:value": {"@id": "odrl:compensate"}, **MONEY}}, {}, False),  # how much was it?
        ({}, {"action": {"rdf:value": {"@id": "odrl:compensate"}, **MONEY}}, False),
        ({"odrl:compensatedParty": "did:web:c"}, {}, False),  # and to whom?
        ({"action": "odrl:delete"}, {"action": "odrl:delete"}, False),  # what follows one use does not follow another
    ],
)  # fmt: skip
def test_what_fulfilled_a_duty_of_one_policy_counts_for_another_that_asks_for_the_same_act(done: Any, asked: Any, counts: bool):
    paid, owed = asking("urn:paid", **done), asking("urn:owed", **asked)
    assert counted(paid, owed).duties == {"urn:paid": "fulfilled"} | ({"urn:owed": "fulfilled"} if counts else {})
    assert counted().duties == counted(owed).duties == {"urn:paid": "fulfilled"}  # nobody says what it was
    assert counted(paid, owed).log is None  # no word on any other act


def test_what_is_not_done_or_not_yet_counts_for_nothing_else():
    paid, owed = asking("urn:paid"), asking("urn:owed")
    assert counted(paid, owed, state="Violated").duties == {"urn:paid": "overdue"}
    assert counted(paid, owed, state="NonSet").duties == {"urn:paid": "pending"}
    assert counted(paid, owed, at="2026-06-15T13:00:00Z").duties == {"urn:paid": "fulfilled"}  # reported of what is to come
    timeless = HEAD + REPORTED.replace(' ; dct:created "{at}"^^xsd:dateTime', "").format(state="Fulfilled")
    assert load_world(timeless, "turtle", now=NOW, policies=(paid, owed)).duties == {"urn:paid": "fulfilled"}


def test_a_report_on_a_duty_itself_goes_before_what_was_done_for_another():
    told = """a:v a report:PolicyReport ; report:ruleReport a:t . a:t a report:DutyReport ; report:rule <urn:owed> ;
    report:deonticState report:Violated ."""
    text = HEAD + REPORTED.format(state="Fulfilled", at="2026-06-15T11:00:00Z") + told
    found = load_world(text, "turtle", now=NOW, policies=(asking("urn:paid"), asking("urn:owed")))
    assert found.duties == {"urn:paid": "fulfilled", "urn:owed": "overdue"}


INCLUDED = REPORTED.replace("a:w a <http://example.org/Sotw> .", "a:w a <http://example.org/Sotw> ; <http://example.org/includes> a:p .")


def included(text: str, *policies: Policy) -> World:
    return load_world(HEAD + text.format(state="Fulfilled", at="2026-06-15T11:00:00Z"), "turtle", now=NOW, policies=policies)


def test_what_a_world_of_solidlab_includes_is_the_report_on_the_condition_of_its_case():
    world, owed, asked = included(INCLUDED), asking("urn:owed"), Request("did:web:a", target="urn:x")
    assert world.duties == {"urn:paid": "fulfilled", "": "fulfilled"}
    assert evaluate(owed, asked, world).permitted
    assert not evaluate(owed, asked, included(INCLUDED, owed)).permitted  # who says which policies the reports are about is taken at that
    late = INCLUDED + " a:q a report:PolicyReport ; report:ruleReport a:t . a:w <http://example.org/includes> a:q . "
    late += "a:t a report:DutyReport ; report:rule <urn:other> ; report:deonticState report:Violated ."
    assert "" not in included(late).duties  # it says two things


def test_of_several_conditions_it_could_be_any_and_is_none():
    duties = [{"action": "odrl:compensate", "@id": "urn:pay"}, {"action": "odrl:obtainConsent", "@id": "urn:ask"}]
    both = load({"@id": "urn:o", "@type": "Offer", "target": "urn:x", "permission": [{"action": "odrl:use", "duty": duties}]})
    found = evaluate(both, Request("did:web:a", target="urn:x"), included(INCLUDED))
    assert (found.permitted, [duty.state for duty in found.duties]) == (False, ["pending", "pending"])


def test_no_world_of_another_form_counts_so():
    for text in (
        REPORTED,
        INCLUDED.replace("example.org/Sotw", "example.org/World"),
        INCLUDED.replace("<http://example.org/Sotw>", "sotw:SotW"),
    ):
        assert included(text).duties == {"urn:paid": "fulfilled"}
        assert not evaluate(asking("urn:owed"), Request("did:web:a", target="urn:x"), included(text)).permitted
