"""The JSON-LD contexts under which policies are written, as tables: nothing is read and nothing is ever fetched.

They stand here and not only in `vocab/context`, because whoever calls `load` has no files of ours to pass; a test proves that both are the
same. The meaning of their terms is that of the ODRL 2.2 vocabulary and of DSP 2025-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from connector.odrl.operands import CORE_OPERANDS
from connector.odrl.vocabulary import DSP_CONTEXT, EXACT_MATCH, INCLUDED_IN, ODRL, OPERATORS, PREFIXES, W3C_CONTEXT

# The W3C's drafts of a formal semantics (2026-08) name these two for what an evaluator is asked and for the state of the world.
W3C_REQUEST_CONTEXT: Final = (
    "https://raw.githubusercontent.com/w3c/odrl/refs/heads/master/formal-semantics/ontology/evaluation_request.json"
)
W3C_WORLD_CONTEXT: Final = "https://raw.githubusercontent.com/w3c/odrl/refs/heads/master/formal-semantics/ontology/stow.json"
SOTW: Final = "https://w3id.org/force/sotw#"

CLASSES: Final = (
    "Policy", "Set", "Offer", "Agreement", "Request", "Ticket", "Assertion", "Privacy", "Rule", "Permission", "Prohibition", "Duty",
    "Action", "Asset", "AssetCollection", "Party", "PartyCollection", "PartyScope", "Group", "Individual", "All", "AllConnections",
    "All2ndConnections", "AllGroups", "ConflictTerm", "Constraint", "LogicalConstraint", "LeftOperand", "Operator", "RightOperand",
)  # fmt: skip
# Properties whose values are nodes or ids of things, and those whose values are terms of a vocabulary.
NODES: Final = (
    "permission", "prohibition", "obligation", "duty", "remedy", "consequence", "constraint", "refinement", "profile", "inheritFrom",
    "hasPolicy", "relation", "target", "output", "partOf", "source", "assigner", "assignee", "attributedParty", "attributingParty",
    "compensatedParty", "compensatingParty", "consentedParty", "consentingParty", "contractedParty", "contractingParty", "informedParty",
    "informingParty", "trackedParty", "trackingParty",
)  # fmt: skip
TERMS: Final = ("action", "leftOperand", "operator", "conflict", "scope", "function", "includedIn", "implies")
LOGIC: Final = ("and", "or", "xone", "andSequence")


def _plain(names: Iterable[str]) -> dict[str, Any]:
    return {name: f"odrl:{name}" for name in names}


def _coerced(names: Iterable[str], type_: str, **more: str) -> dict[str, Any]:
    return {name: {"@id": f"odrl:{name}", "@type": type_, **more} for name in names}


def _of_odrl(iris: Iterable[str]) -> list[str]:
    return [iri.removeprefix(ODRL) for iri in iris if iri.startswith(ODRL)]


# Own work, under the URL of the W3C's. `and` and its like are no lists of themselves, as in the W3C's: whoever means an order writes @list.
_W3C: Final = {
    "odrl": ODRL,
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "owl": "http://www.w3.org/2002/07/owl#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "dct": "http://purl.org/dc/terms/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "schema": "http://schema.org/",
    "cc": "http://creativecommons.org/ns#",
    "uid": "@id",
    "type": "@type",
    **_plain(CLASSES),
    **_coerced(NODES, "@id"),
    **_coerced(TERMS, "@vocab"),
    **_plain((*LOGIC, "rightOperand", "unit", "dataType", "status")),
    **_coerced(("rightOperandReference",), "xsd:anyURI"),
    **_plain(("perm", "prohibit", "invalid", *OPERATORS, "policyUsage")),
    **_plain(_of_odrl(sorted([*INCLUDED_IN, *EXACT_MATCH]))),
    **_plain(_of_odrl(operand.iri for operand in CORE_OPERANDS)),
}

# The profile of ODRL of DSP 2025-1. By itself it stands beside a context of somebody else's words.
PROFILE_CONTEXT: Final = "https://w3id.org/dspace/2025/1/odrl-profile.jsonld"
_PROFILE: Final = {
    "odrl": ODRL,
    **_plain(("Policy", "Set", "Offer", "Agreement", "Assertion", "Asset", "Rule", "Permission", "Prohibition", "Duty", "Action")),
    **_plain(("Constraint", "LeftOperand", "Operator", "RightOperand")),
    **_coerced(("profile", "hasPolicy", "target", "assigner", "assignee"), "@id"),
    **_coerced(("permission", "prohibition", "obligation", "duty", "constraint"), "@id", **{"@container": "@set"}),
    **_coerced(("action", "leftOperand", "operator"), "@vocab"),
    **_plain(("use", "prohibit", "rightOperand", *OPERATORS, *LOGIC)),
}

# What a policy inside a message of DSP 2025-1 is read by: the prefixes of the protocol's context and its profile of ODRL. There these terms
# hold below `offer` and `agreement` only; a policy that stands alone is read as if it stood there.
_DSP: Final = {"@version": 1.1, "@protected": True, **PREFIXES, **_PROFILE, "timestamp": "dspace:timestamp"}

_REQUEST: Final = {
    "sotw": SOTW,
    "xsd": PREFIXES["xsd"],
    "EvaluationRequest": "sotw:EvaluationRequest",
    "RequestParameter": "sotw:RequestParameter",
    **{
        name: {"@id": f"sotw:{name}", "@type": "@id"}
        for name in ("evaluatedAction", "evaluatedParty", "evaluatedTarget", "describesFeature")
    },
    "requestParameters": "sotw:requestParameter",
    "value": "sotw:value",
}
_WORLD: Final = {
    "sotw": SOTW,
    "SotW": "sotw:SotW",
    "context": "sotw:context",
    "conditionId": {"@id": "sotw:conditionId", "@type": "@id"},
}

# URL -> document.
CONTEXTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        DSP_CONTEXT: {"@context": _DSP},
        PROFILE_CONTEXT: {"@context": _PROFILE},
        W3C_CONTEXT: {"@context": _W3C},
        "https://www.w3.org/ns/odrl.jsonld": {"@context": _W3C},  # as many write it
        W3C_REQUEST_CONTEXT: {"@context": _REQUEST},
        W3C_WORLD_CONTEXT: {"@context": _WORLD},
    }
)
