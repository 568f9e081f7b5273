"""The pairs of request and report of the W3C's drafts of a formal semantics, for what their files state.

Their vocabulary is older than SolidLab's and loosely typed; what a report says is read by the types of its parts.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rdflib
from rdflib.namespace import RDF

from connector.odrl import Code, Decision, Operand, Options, Profile, Request, World, evaluate, load
from connector.odrl_rdf.report import report_rdf
from connector.odrl_rdf.worlds import load_request, load_world
from connector.values import replace

EXAMPLES = Path(__file__).parents[1] / "data" / "odrl" / "w3c-formal-semantics" / "examples"
PAIRS = sorted(EXAMPLES.glob("*/*/*/"))
STATES = sorted(EXAMPLES.glob("*/*/*/state*.json"))
REPORT = rdflib.Namespace("https://w3id.org/force/compliance-report#")

# The agreements of C1 and C2 are with `billie`, all requests are of `billie1`, and the reports treat both as one.
PARTY_MENDED = {"http://example.com/party/billie1": "http://example.com/party/billie"}
# The state of a condition, not of a constraint: C22, with the same open duty, has the right word.
STATE_MENDED = {("C11", "condition", "Satisfied"): "Active"}
WORDS = {"Not-Satisfied": "Unsatisfied", "Not-set": "NonSet"}

# B11 and B12 have no time, and no constraint that would ask for one.
SOME_TIME = datetime(2026, 6, 15, tzinfo=UTC)

# C2 asks for `ex:dayOfWeek`, which no vocabulary defines: a profile of one operand, and a fact that follows from the clock.
DAYS = Operand("ex:dayOfWeek", "day of the week", "星期", "term", "subject", frozenset({"eq"}), "clock", "measured")
OPTIONS = Options(profiles=(Profile("urn:example:days", operands=(DAYS,)),))


def request_and_world(folder: Path, *, mended: bool = True) -> tuple[Request, World]:
    text = next(folder.glob("evaluationrequest*.json")).read_bytes()
    request, world = load_request(text), load_world(text, now=SOME_TIME)
    if mended:
        request = replace(request, party=PARTY_MENDED.get(request.party, request.party))
    for state in folder.glob("state*.json"):
        world = load_world(state.read_bytes(), now=world.now)
    return request, replace(world, facts={**world.facts, DAYS.iri: (world.now.strftime("%A"),)})


def decided(folder: Path, *, mended: bool = True) -> Decision:
    request, world = request_and_world(folder, mended=mended)
    policy = load(next(folder.parent.glob("policy*.json")).read_bytes(), options=OPTIONS)
    return evaluate(policy, request, world, options=OPTIONS)


@cache
def stated(folder: Path) -> dict[tuple[str, str], str]:
    """(what, which state) -> the state that the report states: of the rule, its constraint, its condition, the act of that."""
    document: dict[str, Any] = json.loads(next(folder.glob("compliancereport*.json")).read_text())
    found = {}
    for part in document.values():
        if isinstance(part, dict) and "@type" in part and "@value" not in part:
            what = part["@type"].removeprefix("report:").removesuffix("Report").lower()
            states = {key: value for key, value in part.items() if key.endswith("State")}
            for name, value in states.items():
                word = value.removeprefix("report:")
                found[what, name.removeprefix("report:")] = STATE_MENDED.get((folder.name, what, word), WORDS.get(word, word))
    return found


def found(decision: Decision) -> dict[tuple[str, str], str]:
    """What we say of the same. The drafts call a rule active by its constraints and conditions alone; whether the request is what the rule
    is about shows in `controlState`."""
    graph = report_rdf(decision)
    rule = graph.value(predicate=RDF.type, object=REPORT.PermissionReport, any=False)
    says = {("rule", "controlState"): "Permit" if decision.permitted else "Deny"}
    active = all(graph.value(one, REPORT.satisfactionState) == REPORT.Satisfied for one in constraints(graph, rule))
    for duty in graph.objects(rule, REPORT.conditionReport):
        for state in ("activationState", "deonticState"):
            says["condition", state] = str(graph.value(duty, REPORT[state])).removeprefix(REPORT)
        performed = graph.value(duty, REPORT.performanceState) == REPORT.Performed
        says["action", "performanceState"] = "Performed" if performed else "Unperformed"  # theirs is that of now, not that of ever
        active = active and (performed or says["condition", "activationState"] == "Inactive")
    for one in graph.subjects(RDF.type, REPORT.ConstraintReport):
        says["constraint", "satisfactionState"] = str(graph.value(one, REPORT.satisfactionState, any=False)).removeprefix(REPORT)
    says["rule", "activationState"] = "Active" if active else "Inactive"
    return says


def constraints(graph: rdflib.Graph, rule: rdflib.term.Node | None) -> list[rdflib.term.Node]:
    return [one for one in graph.objects(rule, REPORT.premiseReport) if (one, RDF.type, REPORT.ConstraintReport) in graph]


def test_there_are_nine_pairs_and_a_policy_without_one():
    assert [folder.name for folder in PAIRS] == ["A11", "A12", "B11", "B12", "C11", "C12", "C21", "C22", "C23"]
    policies = {path.stem for path in EXAMPLES.glob("*/*/policy*.json")}
    assert policies - {f"policy{folder.name[:2]}" for folder in PAIRS} == {"policyA2"}


def test_each_report_states_whether_its_rule_is_active_and_what_follows():
    assert all({("rule", "activationState"), ("rule", "controlState")} <= stated(folder).keys() for folder in PAIRS)
    assert sum(len(stated(folder)) for folder in PAIRS) == 40


@pytest.mark.parametrize("folder", PAIRS, ids=lambda folder: folder.name)
def test_what_a_report_states_is_what_is_found(folder: Path):
    assert found(decided(folder)) == stated(folder)


@pytest.mark.parametrize("folder", [folder for folder in PAIRS if folder.name.startswith("C")], ids=lambda folder: folder.name)
def test_as_the_files_are_the_request_comes_from_somebody_else(folder: Path):
    decision = decided(folder, mended=False)
    assert (decision.permitted, decision.code) == (False, Code.PARTY_NOT_COVERED)


def test_the_prohibition_without_a_pair_holds_until_its_day():
    policy = load(next(EXAMPLES.glob("*/*/policyA2.json")).read_bytes())
    request = Request("http://example.com/assignee:55", "odrl:archive", "http://example.com/photoAlbum:55")
    states = [evaluate(policy, request, World(datetime(year, 1, 1, tzinfo=UTC))).rules[0].active for year in (2024, 2025)]
    assert states == [True, False]


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem)
def test_a_state_of_the_world_is_the_same_in_json_and_in_turtle(path: Path):
    world = load_world(path.read_bytes(), now=SOME_TIME)
    assert world == load_world(path.with_suffix(".ttl").read_bytes(), "turtle", now=SOME_TIME)
    (payment,) = world.log
    assert (payment.party, payment.duty) == ("http://example.com/party/billie", "http://example.com/condition/1")
    assert (payment.at, list(payment.amounts.values())) == (datetime(2025, 7, 23, tzinfo=UTC), [5])
