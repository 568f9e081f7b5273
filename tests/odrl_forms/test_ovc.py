from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Request, World, evaluate, load
from connector.odrl_forms.ovc import OVC, as_constraints
from tests.odrl.cases import NOW
from tests.odrl_forms.shipped import options

GX = "https://registry.lab.gaia-x.eu/development/api/trusted-shape-registry/v1/shapes/jsonld/trustframework#"
REGION = "$.credentialSubject.gx:legalAddress.gx:countrySubdivisionCode"


def policy(assignee: Any, **more: Any) -> dict[str, Any]:
    """The first example of Gaia-X 25.07, "ODRL profile for attribute based access/usage control"."""
    return {
        "@context": ["http://www.w3.org/ns/odrl.jsonld", {"gx": GX}, {"ovc": OVC}],
        "@type": "Offer",
        "uid": "http://example.com/policy/123",
        "profile": OVC,
        "permission": [{"@type": "Permission", "target": "http://example.com/asset/456", "action": "play", "assignee": assignee, **more}],
    }


def credential(path: str, operator: str, right: Any, type_: str | None = "gx:LegalParticipant") -> dict[str, Any]:
    of = {"ovc:credentialSubjectType": type_} if type_ else {}
    return {"ovc:leftOperand": path, "operator": operator, "rightOperand": right, **of}


def decided(document: dict[str, Any], facts: dict[str, tuple[object, ...]], party: str = "did:web:a.example") -> str:
    request = Request(party, "odrl:play", target="http://example.com/asset/456")
    return evaluate(load(document, options=options()), request, World(NOW, facts), options=options()).result


def test_the_example_of_gaia_x_decides_by_the_credential():
    document = policy({"ovc:constraint": [credential(REGION, "isAnyOf", ["FR-HDF", "BE-BRU"])]})
    legal = {OVC + "credentialSubjectType": ("gx:LegalParticipant",)}
    assert decided(document, {REGION: ("FR-HDF",), **legal}) == "permit"
    assert decided(document, {REGION: ("DE-BY",), **legal}) == "deny"
    assert decided(document, {REGION: ("FR-HDF",), OVC + "credentialSubjectType": ("gx:Other",)}) == "deny"
    assert decided(document, legal) == "deny"


def test_the_operator_of_the_examples_that_is_none_of_odrl_is_read():
    document = policy({"ovc:constraint": [credential(REGION, "http://www.w3.org/ns/odrl/2/anyOf", ["FR-HDF"], None)]})
    assert decided(document, {REGION: ("FR-HDF",)}) == "permit"


def test_constraints_of_the_rule_and_named_assignees_are_kept():
    vat = {"ovc:constraint": [credential("$.credentialSubject.gx:vatID", "eq", "BE0762747721", None)]}
    time = {"leftOperand": "dateTime", "operator": "lt", "rightOperand": {"@value": "2030-01-01Z", "@type": "xsd:date"}}
    document = policy({"@id": "did:web:a.example", **vat}, constraint=[time])
    rule = load(document, options=options()).permissions[0]
    assert [scope.id for scope in rule.assignees] == ["did:web:a.example"]
    assert len(rule.constraints) == 2
    facts: dict[str, tuple[object, ...]] = {"$.credentialSubject.gx:vatID": ("BE0762747721",)}
    assert decided(document, facts) == "permit"
    assert decided(document, facts, "did:web:b.example") == "deny"


def test_a_constraint_on_the_rule_itself_is_read_too():
    document = policy("did:web:a.example", **{"ovc:constraint": [credential(REGION, "eq", "FR-HDF", None)]})
    assert decided(document, {REGION: ("FR-HDF",)}) == "permit"
    assert decided(document, {REGION: ("DE-BY",)}) == "deny"


@pytest.mark.parametrize("path", ["$.credentialSubject.unknown", "$..*", "$.credentialSubject[0]", "$.a[?(@.b)]"])
def test_a_path_that_no_pack_names_is_refused(path: str):
    with pytest.raises(PolicyError, match="is a left operand that cannot be checked here"):
        load(policy({"ovc:constraint": [credential(path, "eq", "x")]}), options=options())


def test_without_the_pack_it_is_not_understood():
    with pytest.raises(PolicyError):
        load(policy({"ovc:constraint": [credential(REGION, "eq", "FR-HDF")]}))


def test_what_has_none_of_it_is_left_as_it_is():
    tree = {"permission": [{"action": "use", "assignee": {"@id": "urn:a", "constraint": 5}, "constraint": [{"and": []}]}], "x": None}
    assert as_constraints(tree) is tree
    assert as_constraints("text") == "text"
