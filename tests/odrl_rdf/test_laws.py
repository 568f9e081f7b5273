"""One policy in every form: what it says does not depend on how it is written, by whom it is serialised, or in which order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st
from pyld import jsonld

from connector.dsp.jsonld import compact
from connector.dsp.messages import DSP_CONTEXT
from connector.odrl import Policy, load
from connector.odrl.model import Constraint, Logic, Node, Rule
from connector.odrl_forms.fingerprint import fingerprint
from connector.odrl_rdf.contexts import CONTEXTS
from connector.vocabulary import read_vocabulary
from tests.odrl.cases import an_offer
from tests.odrl_rdf.drawn import a_policy, permuted

seeds = st.integers(0, 2**64)
# Another context for the same words: other prefixes, other names, other containers.
OTHER = {
    "o": "http://www.w3.org/ns/odrl/2/",
    "x": "urn:x:",
    "rules": {"@id": "o:permission", "@container": "@set"},
    "o:action": {"@type": "@id"},
    "o:constraint": {"@container": "@set"},
    "left": {"@id": "o:leftOperand", "@type": "@id"},
    "o:operator": {"@type": "@vocab"},
}


def loader(url: str, _options: object) -> dict[str, Any]:
    return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": CONTEXTS[url]}


CLOSED: dict[str, Any] = {"base": None, "documentLoader": loader}


def nodes(policy: Policy) -> Iterator[tuple[Rule, Node]]:
    """Every constraint and refinement, with its rule."""
    waiting = list(policy.rules)
    while waiting:
        rule = waiting.pop()
        waiting += rule.duties
        scopes = (*rule.targets, *rule.assigners, *rule.assignees)
        below = [*rule.constraints, *(node for part in (*rule.actions, *scopes) for node in part.refinements)]
        while below:
            node = below.pop()
            below += node.parts if isinstance(node, Logic) else ()
            yield rule, node


def said(policy: Policy) -> dict[str, Any]:
    """Everything that the form of a policy holds, but for places and order."""
    atoms = Counter(
        (rule.id, rule.kind, node.id, node.operand, node.operator, tuple(sorted(node.expected)), node.unit, node.test)
        for rule, node in nodes(policy)
        if isinstance(node, Constraint)
    )
    return {
        "meaning": fingerprint(policy),
        "atoms": atoms,
        "groups": Counter((node.id, node.kind, len(node.parts)) for _, node in nodes(policy) if isinstance(node, Logic)),
        "rules": Counter((rule.id, rule.kind, rule.when, rule.functions, len(rule.duties)) for rule in policy.rules),
        "findings": Counter(finding.code for finding in policy.findings),
        "head": (
            policy.id,
            policy.kind,
            policy.target,
            policy.assigner,
            policy.assignees,
            policy.timestamp,
            policy.profiles,
            policy.conflict,
        ),
        "facts": (policy.instants, policy.usage, policy.measures, policy.leaves, policy.refused),
    }


@pytest.fixture(scope="module", autouse=True)
def as_written() -> Iterator[None]:
    """rdflib brings literals into a form of its own, in which an xsd:date has lost its time zone."""
    rdflib.NORMALIZE_LITERALS, before = False, rdflib.NORMALIZE_LITERALS
    yield
    rdflib.NORMALIZE_LITERALS = before


def as_graph(document: dict[str, Any]) -> rdflib.Graph:
    return rdflib.Graph().parse(data=jsonld.to_rdf(document, {**CLOSED, "format": "application/n-quads"}), format="nt")


FORMS: dict[str, Callable[[dict[str, Any]], tuple[Any, str]]] = {
    "text": lambda document: (json.dumps(document), "json-ld"),
    "UTF-16": lambda document: (json.dumps(document, ensure_ascii=False).encode("utf-16"), "json-ld"),
    "expanded": lambda document: (jsonld.expand(document, CLOSED), "json-ld"),
    "flattened": lambda document: (jsonld.flatten(document, None, CLOSED), "json-ld"),
    "compacted otherwise": lambda document: (jsonld.compact(document, OTHER, CLOSED), "json-ld"),
    "flattened otherwise": lambda document: (jsonld.flatten(document, OTHER, CLOSED), "json-ld"),
    "Turtle": lambda document: (as_graph(document).serialize(format="turtle"), "turtle"),
    "N-Triples": lambda document: (as_graph(document).serialize(format="nt"), "turtle"),
    "JSON-LD of rdflib": lambda document: (as_graph(document).serialize(format="json-ld"), "json-ld"),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(seeds)
def test_a_policy_is_the_same_in_every_form(form: str, seed: int):
    document = a_policy(Random(seed))
    other, format = FORMS[form](document)
    assert said(load(other, format)) == said(load(document))


@given(seeds)
def test_order_and_prefixes_change_nothing(seed: int):
    document = a_policy(Random(seed))
    other = permuted(document, Random(seed + 1))
    assert said(load(other)) == said(load(document))
    assert said(load(json.dumps({"@graph": [other], "@context": other.pop("@context")}))) == said(load(document))


@given(seeds, seeds)
def test_what_differs_has_another_fingerprint(one: int, other: int):
    first, second = (load(a_policy(Random(seed))) for seed in (one, other))
    meanings = [(policy.conflict, {rule.kind for rule in policy.rules}, said(policy)["facts"]) for policy in (first, second)]
    assert meanings[0] == meanings[1] or fingerprint(first) != fingerprint(second)


@cache
def contexts() -> Any:
    return read_vocabulary().contexts


@settings(max_examples=40)
@given(seeds)
def test_an_offer_of_the_wire_that_was_expanded_and_compacted_again_has_the_same_fingerprint(seed: int):
    offer = an_offer(Random(seed))
    message = {
        "@context": [DSP_CONTEXT], "@type": "ContractOfferMessage", "providerPid": "urn:x:p", "offer": {**offer, "target": "urn:x:d"},
        "callbackAddress": "https://p.example",
    }  # fmt: skip
    again = compact(message, "ContractOfferMessage", contexts())["offer"]
    assert again != offer
    assert fingerprint(load(again, strict=False)) == fingerprint(load(offer, strict=False))
