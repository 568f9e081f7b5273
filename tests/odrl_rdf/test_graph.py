"""A graph becomes the tree that is read already; whatever a graph can be, the tree is finite and nothing of it is lost."""

from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, load
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl_rdf.graph import DEPTH_MAX, PARTS_MAX, tree, trees

HEAD = f"""@prefix odrl: <{ODRL}> . @prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> . @prefix dct: <http://purl.org/dc/terms/> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> . @prefix a: <urn:a:> .
"""


def made(text: str, **more: Any) -> dict[str, Any]:
    document = tree(HEAD + text, "turtle", **more).document
    assert document.pop("@context") == W3C_CONTEXT
    return document


def rule(text: str) -> Any:
    return made(f"a:p a odrl:Set ; odrl:permission [ {text} ] .")["permission"][0]


def constraint(text: str) -> Any:
    return rule(f"odrl:constraint [ {text} ]")["constraint"][0]


def refused(text: str) -> tuple[Code, str, str]:
    with pytest.raises(PolicyError) as caught:
        tree(HEAD + text, "turtle")
    (finding,) = caught.value.findings
    return finding.code, finding.path, finding.source


def test_a_policy_is_the_tree_of_its_rules():
    document = made(
        """a:p a odrl:Agreement ; odrl:uid a:p ; odrl:profile a:profile ; odrl:conflict odrl:prohibit ; odrl:inheritFrom a:q , a:r ;
             odrl:permission a:perm ; odrl:prohibition [ odrl:action odrl:distribute ; odrl:remedy [ odrl:action odrl:delete ] ] ;
             odrl:obligation [ odrl:action odrl:inform ; odrl:informedParty a:x ; odrl:consequence [ odrl:action odrl:compensate ] ] .
           a:perm a odrl:Permission ; odrl:action odrl:use , odrl:read ; odrl:assignee a:alice ;
             odrl:duty [ odrl:action odrl:attribute ] ."""
    )
    assert document == {
        "@id": "urn:a:p",
        "@type": "Agreement",
        "profile": "urn:a:profile",
        "conflict": ODRL + "prohibit",
        "inheritFrom": ["urn:a:q", "urn:a:r"],
        "permission": [
            {"@id": "urn:a:perm", "@type": "Permission", "action": [ODRL + "use", ODRL + "read"], "assignee": "urn:a:alice",
             "duty": [{"action": ODRL + "attribute"}]}
        ],
        "prohibition": [{"action": ODRL + "distribute", "remedy": [{"action": ODRL + "delete"}]}],
        "obligation": [
            {"action": ODRL + "inform", "informedParty": "urn:a:x", "consequence": [{"action": ODRL + "compensate"}]}
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"x"', "x"),
        ('"x"@en', {"@value": "x", "@language": "en"}),
        ('"5"^^xsd:integer', {"@value": "5", "@type": "http://www.w3.org/2001/XMLSchema#integer"}),
        ("5", {"@value": "5", "@type": "http://www.w3.org/2001/XMLSchema#integer"}),
        ("a:x", {"@id": "urn:a:x"}),
        ('a:x , "y"', [{"@id": "urn:a:x"}, "y"]),
        ('( a:x "y" )', {"@list": [{"@id": "urn:a:x"}, "y"]}),
        ("()", {"@list": []}),
        ("( ( a:x ) )", {"@list": [{"@list": [{"@id": "urn:a:x"}]}]}),
    ],
)
def test_a_right_operand_keeps_what_it_is(text: str, value: Any):
    assert constraint(f"odrl:leftOperand odrl:purpose ; odrl:rightOperand {text}")["rightOperand"] == value


def test_the_other_parts_of_a_constraint_are_words():
    found = constraint(
        'odrl:leftOperand a:o ; odrl:operator odrl:eq ; odrl:unit a:u ; odrl:dataType xsd:integer ; odrl:status "3" ; odrl:uid a:c'
    )
    assert found == {
        "leftOperand": "urn:a:o", "operator": ODRL + "eq", "unit": "urn:a:u", "dataType": "http://www.w3.org/2001/XMLSchema#integer",
        "status": "3", "@id": "urn:a:c",
    }  # fmt: skip
    assert constraint('odrl:unit "u" ; odrl:rightOperandReference "urn:r"^^xsd:anyURI') == {"unit": "u", "rightOperandReference": "urn:r"}


@pytest.mark.parametrize("text", ["( a:c a:d )", "a:c , a:d", "( a:c ) , a:d"])
def test_the_parts_of_a_logical_constraint_are_an_array(text: str):
    document = made(f"a:p a odrl:Set ; odrl:permission [ odrl:constraint [ odrl:or {text} ] ] . a:c odrl:unit a:u . a:d odrl:unit a:u .")
    assert [part["@id"] for part in document["permission"][0]["constraint"][0]["or"]] == ["urn:a:c", "urn:a:d"]


def test_a_sequence_is_ordered_where_rdf_orders_it():
    ordered = constraint("odrl:andSequence ( [ odrl:unit a:u ] [ odrl:unit a:v ] )")["andSequence"]
    assert ordered == {"@list": [{"unit": "urn:a:u"}, {"unit": "urn:a:v"}]}
    assert constraint("odrl:andSequence [ odrl:unit a:u ] , [ odrl:unit a:v ]")["andSequence"] == [{"unit": "urn:a:u"}, {"unit": "urn:a:v"}]


def test_a_list_of_first_and_rest_is_a_list():
    lists = "_:1 rdf:first a:x ; rdf:rest _:2 . _:2 rdf:first a:y ; rdf:rest rdf:nil ."
    document = made(f"a:p a odrl:Set ; odrl:permission [ odrl:constraint [ odrl:rightOperand _:1 ] ] . {lists}")
    assert document["permission"][0]["constraint"][0]["rightOperand"] == {"@list": [{"@id": "urn:a:x"}, {"@id": "urn:a:y"}]}


def test_an_action_is_a_word_or_what_it_is_refined_to():
    assert rule("odrl:action odrl:print")["action"] == ODRL + "print"
    refined = rule("odrl:action [ rdf:value odrl:print ; odrl:refinement [ odrl:unit a:u ] ]")["action"]
    assert refined == {"rdf:value": {"@id": ODRL + "print"}, "refinement": [{"unit": "urn:a:u"}]}
    document = made("a:p a odrl:Set ; odrl:permission [ odrl:action a:act ] . a:act a odrl:Action ; odrl:includedIn odrl:use .")
    assert document["permission"][0]["action"] == "urn:a:act"


def test_a_thing_is_its_iri_or_what_it_says_of_itself():
    document = made(
        """a:p a odrl:Set ; odrl:permission a:perm .
           a:perm odrl:target a:t , a:c ; odrl:assignee a:alice ; odrl:assigner [ a odrl:Party ; odrl:uid a:b ] .
           a:t a odrl:Asset ; dct:title "T" . a:alice a <http://xmlns.com/foaf/0.1/Person> ; odrl:partOf a:team .
           a:c a odrl:AssetCollection , a:Thing ; odrl:source a:s ; odrl:refinement [ odrl:unit a:u ] ."""
    )["permission"][0]
    assert document["assignee"] == "urn:a:alice"
    assert document["assigner"] == {"@id": "urn:a:b", "@type": "Party"}
    assert document["target"] == [
        "urn:a:t", {"@id": "urn:a:c", "@type": "AssetCollection", "source": "urn:a:s", "refinement": [{"unit": "urn:a:u"}]},
    ]  # fmt: skip


def test_what_has_no_place_in_a_policy_is_there_under_its_full_name():
    document = made('a:p a odrl:Set ; odrl:prohibited a:x ; dct:title "T" ; a:more [ a:less ( 1 [] ) ] ; odrl:permission [] .')
    number = {"@value": "1", "@type": "http://www.w3.org/2001/XMLSchema#integer"}
    assert document[ODRL + "prohibited"] == {"@id": "urn:a:x"}
    assert document["http://purl.org/dc/terms/title"] == "T"
    assert document["urn:a:more"] == {"urn:a:less": {"@list": [number, {}]}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:p a odrl:Set ; odrl:permission a:r .", (Code.REFERENCE_UNRESOLVED, "/permission/0", "urn:a:p, line 3")),
        ("a:p a odrl:Set ; odrl:permission _:r .", (Code.REFERENCE_UNRESOLVED, "/permission/0", "urn:a:p, line 3")),
        ("a:p a odrl:Set ; odrl:permission\n[ odrl:constraint a:c ] .",
            (Code.REFERENCE_UNRESOLVED, "/permission/0/constraint/0", "line 4")),
        ('a:p a odrl:Set ; odrl:permission "r" .', (Code.MALFORMED, "/permission/0", "urn:a:p, line 3")),
        ('a:p a odrl:Set ; odrl:permission [ odrl:action "use" ] .', (Code.TYPE_MISMATCH, "/permission/0/action", "line 3")),
        ('a:p a odrl:Set ; odrl:permission [ odrl:assignee "alice" ] .', (Code.TYPE_MISMATCH, "/permission/0/assignee", "line 3")),
        ("a:p a odrl:Set ; odrl:uid a:q ; odrl:permission [] .", (Code.MALFORMED, "", "urn:a:p, line 3")),
        ("[] a odrl:Set ; odrl:uid a:p , a:q ; odrl:permission [] .", (Code.MALFORMED, "", "line 3")),
        ('[] a odrl:Set ; odrl:uid "p" ; odrl:permission [] .', (Code.MALFORMED, "", "line 3")),
        ("a:p a odrl:Set ; odrl:permission a:r .\na:r odrl:duty a:r .", (Code.MALFORMED, "/permission/0/duty/0", "urn:a:r, line 4")),
        ("a:p a odrl:Set ; odrl:permission [ odrl:constraint a:c ] .\na:c odrl:and ( a:d ) . a:d odrl:or a:c .",
            (Code.MALFORMED, "/permission/0/constraint/0/and/0/or/0", "urn:a:c, line 4")),
        ("a:p a odrl:Set ; odrl:permission [ odrl:target a:t ] . a:t odrl:source a:s ; a:x _:b . _:b a:y _:b .",
            (Code.MALFORMED, "/permission/0/target/urn:a:x/urn:a:y", "line 3")),
        ("a:p a:q a:r .", (Code.MALFORMED, "", "")),
        ("a:p a odrl:Set . a:q a odrl:Offer .", (Code.MALFORMED, "", "")),
        ("[] a odrl:Set . [] a odrl:Offer .", (Code.MALFORMED, "", "")),
    ],
)  # fmt: skip
def test_what_a_graph_cannot_say_in_a_tree_is_a_finding(text: str, found: tuple[Code, str, str]):
    assert refused(text) == found


def test_a_graph_that_blows_up_is_given_up():
    steps = "\n".join(f"a:c{n} odrl:and a:c{n + 1} , [ odrl:or ( a:c{n + 1} ) ] ." for n in range(30))
    code, path, source = refused(f"a:p a odrl:Set ; odrl:permission [ odrl:constraint a:c0 ] . {steps} a:c30 odrl:unit a:u .")
    assert (code, path[:26], source[:7]) == (Code.LIMIT_EXCEEDED, "/permission/0/constraint/0", "urn:a:c")


def test_a_list_that_many_share_counts_for_each():
    numbers = " ".join(map(str, range(PARTS_MAX // 10)))
    shared = f"_:l rdf:first 0 ; rdf:rest ( {numbers} ) ."
    document = f"a:p a odrl:Set ; odrl:permission [ odrl:constraint {', '.join(['[ odrl:rightOperand _:l ]'] * 10)} ] . {shared}"
    assert refused(document)[0] is Code.LIMIT_EXCEEDED


def test_a_deep_graph_is_given_up():
    steps = "\n".join(f"a:c{n} odrl:and a:c{n + 1} ." for n in range(DEPTH_MAX))
    code, _, source = refused(f"a:p a odrl:Set ; odrl:permission [ odrl:constraint a:c0 ] .\n{steps} a:c{DEPTH_MAX} odrl:unit a:u .")
    assert (code, source) == (Code.LIMIT_EXCEEDED, f"urn:a:c{DEPTH_MAX - 2}, line {DEPTH_MAX + 2}")


SEVERAL = "a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ] . a:q a odrl:Set ; odrl:prohibition [ odrl:action odrl:use ] ."


def test_one_of_several_policies_is_named_by_its_iri():
    assert list(trees(HEAD + SEVERAL, "turtle")) == ["urn:a:p", "urn:a:q"]
    assert "prohibition" in made(SEVERAL, id="urn:a:q")
    with pytest.raises(PolicyError, match="there are 2 policies in it: `urn:a:p`, `urn:a:q`; name one by its IRI"):
        tree(HEAD + SEVERAL, "turtle")
    with pytest.raises(PolicyError, match="there is no policy `urn:a:x`; name one of `urn:a:p`, `urn:a:q`"):
        tree(HEAD + SEVERAL, "turtle", id="urn:a:x")


def test_the_parents_of_a_policy_may_stand_beside_it():
    text = f"{HEAD} a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ] . a:q a odrl:Set ; odrl:inheritFrom a:p ."
    policy = load(text, "turtle")
    assert (policy.id, policy.inherits, len(policy.permissions)) == ("urn:a:q", ("urn:a:p",), 1)
    assert load(text, "turtle", id="urn:a:p").id == "urn:a:p"


@pytest.mark.parametrize("loop", ["a:p odrl:inheritFrom a:p .", "a:p odrl:inheritFrom a:q . a:q a odrl:Set ; odrl:inheritFrom a:p ."])
def test_policies_that_inherit_from_each_other_are_a_loop_and_not_several_to_choose_from(loop: str):
    text = f"{HEAD} a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ] . {loop}"
    with pytest.raises(PolicyError, match="each of its policies is inherited from: `urn:a:p`") as raised:
        load(text, "turtle")
    assert [finding.code for finding in raised.value.findings] == [Code.INHERITANCE_LOOP]


def test_a_policy_without_a_type_is_known_by_its_rules():
    document = made("a:p odrl:permission [ odrl:action odrl:use ; odrl:duty a:d ] . a:d odrl:action odrl:pay .")
    assert document["@id"] == "urn:a:p"


@pytest.mark.parametrize("context", [None, DSP_CONTEXT, [DSP_CONTEXT], W3C_CONTEXT, [DSP_CONTEXT, W3C_CONTEXT]])
def test_a_document_whose_words_are_known_is_the_tree_itself(context: Any):
    document = {"@id": "urn:a:p", "permission": [{"action": "use"}], **({"@context": context} if context else {})}
    found = tree(document, "json-ld")
    assert {**found.document, "@context": context} == {**document, "@context": context}
    assert found.source("/permission/0") == ""


def test_the_w3c_context_is_known_by_https_too():
    document = {"@context": "https://www.w3.org/ns/odrl.jsonld", "uid": "urn:a:p", "permission": [{"action": "use"}]}
    assert load(document).permissions[0].actions[0].iri == ODRL + "use"


def test_a_finding_says_where_the_author_wrote_it():
    text = f"""{HEAD}a:p a odrl:Set ; odrl:permission a:r .
        a:r odrl:action odrl:use ; odrl:constraint [
            odrl:operator odrl:eq ;
            odrl:leftOperand a:o ;
            odrl:rightOperand 5 ] ."""
    document = {
        "@context": [W3C_CONTEXT, {"ex": "urn:a:"}],
        "@graph": [
            {"uid": "ex:p", "type": "Set", "odrl:permission": {"@id": "ex:r"}},
            {"uid": "ex:r", "action": "use", "constraint": {"odrl:leftOperand": {"@id": "ex:o"}, "operator": "eq", "rightOperand": 5}},
        ],
    }
    for form, source in ((text, "line 6"), (document, "/@graph/1/constraint/odrl:leftOperand")):
        with pytest.raises(PolicyError) as caught:
            load(form, "turtle" if isinstance(form, str) else "json-ld")
        (finding,) = (finding for finding in caught.value.findings if finding.severity == "error")
        assert (finding.code, finding.path, finding.source) == (Code.OPERAND_UNSUPPORTED, "/permission/0/constraint/0/leftOperand", source)
        assert f"/permission/0/constraint/0/leftOperand ({source}): `urn:a:o`" in str(finding)
        assert finding.to_json()["source"] == source


@pytest.mark.parametrize(
    ("document", "format", "code"),
    [
        ("<a/>", "rdf/xml", Code.FORMAT_UNSUPPORTED),
        ({"permission": []}, "turtle", Code.FORMAT_UNSUPPORTED),
        (None, "turtle", Code.FORMAT_UNSUPPORTED),
        (None, "json-ld", Code.MALFORMED),
        (5, "json-ld", Code.MALFORMED),
        ("[]", "json-ld", Code.MALFORMED),
        ("{", "json-ld", Code.MALFORMED),
    ],
)
def test_what_is_no_document_of_its_format_is_a_finding(document: Any, format: str, code: Code):
    with pytest.raises(PolicyError) as caught:
        tree(document, format)
    assert [finding.code for finding in caught.value.findings] == [code]
