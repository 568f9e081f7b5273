"""Requests and states of the world as the public test suites write them -> `Request` and `World`.

Two forms of each are known: SolidLab's (an `odrl:Request` with a permission; a world with `odrl:partOf` and earlier compliance reports)
and that of the W3C's drafts of a formal semantics (an `EvaluationRequest` with parameters; a `SotW` with the acts that performed duties).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Code
from connector.odrl.duties import state_of
from connector.odrl.model import DutyState, Event, Number, Policy, Request, Rule, Scope, Stage, World, fact_key
from connector.odrl.operands import DATE_TIME
from connector.odrl.vocabulary import ODRL
from connector.odrl.words import shown
from connector.odrl_rdf.contexts import CONTEXTS, SOTW
from connector.odrl_rdf.decoding import json_of, refusal
from connector.odrl_rdf.graph import graph_of
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal, Term, is_blank
from connector.values import replace

REPORT: Final = "https://w3id.org/force/compliance-report#"
# The drafts have had two names for one vocabulary; both are in use.
SPACES: Final = (SOTW, "https://w3id.org/odrl-fs#")
CLOCK: Final = SOTW + "CurrentXSDDateTime"  # the parameter of a request that is the time of the world
CREATED: Final = "http://purl.org/dc/terms/created"
ISSUED: Final = "http://purl.org/dc/terms/issued"  # SolidLab: <.../currentTime> dct:issued "..."
SOLIDLAB: Final = "http://example.org/"  # the terms of that suite for a state of the world
PAYMENTS: Final = "https://www.epimorphics.com/guide-to-the-payments-ontology/"

_FACTS: Final = {"currentLocation": "spatial", "location": "spatial", "recipient": "recipient"}
_USED: Final = {"count": "count", "paidAmount": "payAmount"}
_ASKED: Final = {
    "action": ("evaluatedAction", "requestedAction"),
    "party": ("evaluatedParty", "requestingParty"),
    "target": ("evaluatedTarget", "requestedTarget"),
}
_DEONTIC: Final[Mapping[str, DutyState]] = {"Fulfilled": "fulfilled", "Violated": "overdue", "NonSet": "pending"}
_PERFORMANCE: Final[Mapping[str, DutyState]] = {"Performed": "fulfilled", "Unperformed": "overdue", "Unknown": "pending"}
COLLECTIONS_MAX: Final = 1_000  # that one thing is in, one inside the other


def load_request(
    document: object,
    format: str = "json-ld",
    *,
    id: str | None = None,
    stage: str = Stage.TRANSFER,
    contexts: Mapping[str, Mapping[str, Any]] = CONTEXTS,
) -> Request:
    """Read a request: `odrl:Request` with one permission, or `EvaluationRequest`.

    `document` and `format` as for a policy: `turtle` or `json-ld`, of any shape. `id` is the IRI of the request where there are several.
    What it declares becomes `params`: the parameters of an EvaluationRequest by the feature that they describe, the constraints of a
    permission (`eq` only) by their left operand. The current time is no parameter, for nobody declares it: `load_world` reads it.

    Raises PolicyError with findings for a document that holds no such request, several, or one that asks for several things at once.
    """
    graph = _graph(document, format, contexts)
    asked = graph.typed(*(space + "EvaluationRequest" for space in SPACES))
    node = _single([*asked, *graph.typed(ODRL + "Request")], "request", id)
    return _evaluation_request(graph, node, stage) if node in asked else _odrl_request(graph, node, stage)


def load_world(
    document: object,
    format: str = "json-ld",
    *,
    now: datetime | None = None,
    policies: Iterable[Policy] = (),
    contexts: Mapping[str, Mapping[str, Any]] = CONTEXTS,
) -> World:
    """Read a state of the world: SolidLab's, the W3C's, or that of the moment which an EvaluationRequest names.

    `document` and `format` as for a policy. `now` (aware) is the time where the document says none; what it says goes before. Membership
    in collections (`odrl:partOf`) is transitive; reports of duties become `duties`, acts that performed one become `log`; of a location,
    a recipient, a count and a sum paid it takes the value. Whatever else is in the document is not known, and no constraint on it holds.

    A report counts for the duty that it names. One that a world of SolidLab's suite `includes` is the report on the condition of the case,
    also where it names the duty of another policy (case 065, whose expected report says so): it counts for the duty before the use, if
    there is one alone, of a policy of which the world names none. No world of another form counts so, and this one neither if `policies`
    are given.

    `policies` are those whose duties the reports are about. A duty is fulfilled when its action has been exercised (ODRL 2.2 IM, 2.6),
    whoever asked for it: with them, an act that fulfilled a duty of one of them counts for each other duty of theirs that asks for the same
    act on the same target by the same party: one payment counts for all that ask for it, so give those of which that is meant.

    Raises PolicyError with findings: no time or several, a value that cannot be read.
    """
    graph = _graph(document, format, contexts)
    at = _now(graph) or now
    if at is None:
        raise refusal(Code.MALFORMED, "it does not say what time it is", "add a `currentTime`, or give `now`")
    facts: dict[str, tuple[object, ...]] = {}
    used: dict[str | tuple[str, str], Number] = {}
    for space in SPACES:
        for name, operand in _FACTS.items():
            if found := [term for node in graph.nodes for term in graph.objects(node, space + name)]:
                facts[ODRL + operand] = (*facts.get(ODRL + operand, ()), *(_json(term) for term in found))
        for name, operand in _USED.items():
            if found := [term for node in graph.nodes for term in graph.objects(node, space + name)]:
                used[ODRL + operand] = sum(_number(term) for term in found)
    worlds = graph.typed(*(space + "SotW" for space in SPACES), SOLIDLAB + "Sotw")
    world = World(
        now=at,
        facts=facts,
        used=used,
        log=tuple(_acts(graph)) or None,  # a world that tells of no act does not say that there was none
        duties=dict(_duties(graph)),
        member_of={thing: frozenset(_collections(graph, thing)) for thing, said in graph.nodes.items() if ODRL + "partOf" in said},
        id=worlds[0] if len(worlds) == 1 and not is_blank(worlds[0]) else "",
    )
    known = tuple(policies)
    more = dict(_done_as_well(graph, world, known)) if known else _included(graph, world)
    return replace(world, duties={**more, **world.duties})


def _graph(document: object, format: str, contexts: Mapping[str, Mapping[str, Any]]) -> Graph:
    if format == "json-ld":
        document = _mended(json_of(document) if isinstance(document, str | bytes) else document)
    return graph_of(document, format, contexts)


def _mended(value: object, depth: int = 0) -> Any:
    """A copy in which {"@id": "1000", "@type": "xsd:integer"} is the literal that it means; the W3C's examples write some so."""
    if depth > 64:  # noqa: PLR2004 - what is deeper is refused by the reader of JSON-LD
        return value
    if isinstance(value, list):
        return [_mended(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"@id", "@type"} and str(value["@type"]).startswith(("xsd:", XSD)) and not ABSOLUTE_IRI.fullmatch(str(value["@id"])):
        return {"@value": value["@id"], "@type": value["@type"]}
    return {key: _mended(inner, depth + 1) for key, inner in value.items()}


def _single(found: list[str], what: str, id: str | None) -> str:
    if id is not None:
        if id not in found:
            raise refusal(Code.MALFORMED, f"there is no {what} `{shown(id)}`", "name one that is there")
        return id
    if len(found) != 1:
        there = "no" if not found else str(len(found))
        raise refusal(Code.MALFORMED, f"it holds {there} {what}{'s' if len(found) > 1 else ''}", f"give one {what}, or name it by its IRI")
    return found[0]


def _evaluation_request(graph: Graph, node: str, stage: str) -> Request:
    asked = {what: _id(_of_spaces(graph, node, names), what, node) for what, names in _ASKED.items()}
    params: dict[str, tuple[object, ...]] = {}
    for parameter in _of_spaces(graph, node, ("requestParameter", "requestParameters")):
        feature, found = _parameter(graph, parameter)
        if feature != CLOCK:
            params[feature] = (*params.get(feature, ()), *(_json(term) for term in found))
    if not asked["action"]:
        raise refusal(Code.MALFORMED, "it does not say which action is asked for", "add an `evaluatedAction`", source=node)
    name = "" if is_blank(node) else node
    return Request(asked["party"] or "", asked["action"], asked["target"], params, stage, name)


def _parameter(graph: Graph, node: Term) -> tuple[str, list[Term]]:
    features = _of_spaces(graph, node, ("describesFeature",))
    found = _of_spaces(graph, node, ("value",))
    if len(features) != 1 or not isinstance(features[0], str) or not found:
        raise refusal(
            Code.MALFORMED, "a parameter has not one feature and a value", "write `describesFeature` and `value`", source=str(node)
        )
    return features[0], found


def _odrl_request(graph: Graph, node: str, stage: str) -> Request:
    permissions = graph.objects(node, ODRL + "permission")
    if len(permissions) != 1 or not isinstance(permissions[0], str):
        raise refusal(Code.MALFORMED, f"it asks for {len(permissions)} permissions", "write one request for each", source=node)
    rule = permissions[0]
    action, params = _action(graph, rule)
    for constraint in graph.objects(rule, ODRL + "constraint"):
        _declare(graph, constraint, params)
    party, target = (_id(graph.objects(rule, ODRL + name), name, rule) for name in ("assignee", "target"))
    ids = ["" if is_blank(one) else one for one in (node, rule)]
    return Request(party or "", action, target, params, stage, ids[0], ids[1])


def _action(graph: Graph, rule: str) -> tuple[str, dict[str, tuple[object, ...]]]:
    """The action that is asked for, and what its refinements declare of it."""
    action = _id(graph.objects(rule, ODRL + "action"), "action", rule)
    if action is None:
        raise refusal(Code.MALFORMED, "it does not say which action is asked for", "add an `odrl:action`", source=rule)
    params: dict[str, tuple[object, ...]] = {}
    for refinement in graph.objects(action, ODRL + "refinement"):
        _declare(graph, refinement, params)
    return _id(graph.objects(action, RDF + "value"), "action", rule) or action, params


def _declare(graph: Graph, node: Term, params: dict[str, tuple[object, ...]]) -> None:
    left, operator, right, unit = (
        graph.objects(str(node), ODRL + name) if isinstance(node, str) else []
        for name in ("leftOperand", "operator", "rightOperand", "unit")
    )
    if len(left) != 1 or not isinstance(left[0], str) or operator != [ODRL + "eq"] or not right:
        fix = "write one `odrl:leftOperand`, `odrl:eq` and its value"
        raise refusal(Code.OPERATOR_UNSUPPORTED, "a request declares values, and sets no conditions", fix, source=str(node))
    found = [_json(term) for term in right]
    if unit:
        name = unit[0].text if isinstance(unit[0], Literal) else str(unit[0])
        found = [{**value, "unit": name} if isinstance(value, dict) else {"@value": value, "unit": name} for value in found]
    params[left[0]] = (*params.get(left[0], ()), *found)


def _now(graph: Graph) -> datetime | None:
    """The one time that a graph calls the current one."""
    said = [term for node in graph.nodes for term in _of_spaces(graph, node, ("currentTime",))]
    said = [time for term in said for time in (graph.objects(term, ISSUED) if isinstance(term, str) else [term])]
    said += [term for node in graph.nodes if node.endswith(("/currentTime", "#currentTime")) for term in graph.objects(node, ISSUED)]
    for node in graph.nodes:
        if CLOCK in _of_spaces(graph, node, ("describesFeature",)):
            said += _parameter(graph, node)[1]
    found = {_instant(term) for term in said}
    if len(found) > 1:
        raise refusal(Code.MALFORMED, "it is several times at once", "write one current time")
    return found.pop() if found else None


def _instant(term: Term) -> datetime:
    """An xsd:dateTime; a blank instead of the `T`, as ISO 8601 lets people agree on, is taken too. Without a zone it is UTC."""
    text = term.text if isinstance(term, Literal) else str(term)
    try:
        found = values.instant(values.stretch({"@value": text.replace(" ", "T", 1), "@type": XSD + "dateTime"}).start)
    except PolicyError as error:
        raise refusal(Code.TYPE_MISMATCH, f"`{shown(text)}` is no time", error.message) from error
    if found is None:
        raise refusal(Code.TYPE_MISMATCH, f"`{shown(text)}` is beyond the calendar", "write a time of the years 1 to 9999")
    return found


def _duties(graph: Graph) -> Iterable[tuple[str, DutyState]]:
    """Duties whose state an earlier report says."""
    for node in graph.typed(REPORT + "DutyReport"):
        for rule in graph.objects(node, REPORT + "rule"):
            for prop, states in (("deonticState", _DEONTIC), ("performanceState", _PERFORMANCE)):
                words = [str(term).removeprefix(REPORT) for term in graph.objects(node, REPORT + prop)]
                if isinstance(rule, str) and len(words) == 1 and words[0] in states:
                    yield rule, states[words[0]]
                    break


def _included(graph: Graph, world: World) -> dict[str, DutyState]:
    """The one state of all duties on which a world of SolidLab's suite includes a report, as that of a duty that it does not name."""
    wholes = [term for node in graph.typed(SOLIDLAB + "Sotw") for term in graph.objects(node, SOLIDLAB + "includes")]
    parts = [term for whole in wholes if isinstance(whole, str) for term in graph.objects(whole, REPORT + "ruleReport")]
    duties = [term for part in parts if isinstance(part, str) for term in graph.objects(part, REPORT + "rule")]
    states = {world.duties[duty] for duty in duties if isinstance(duty, str) and duty in world.duties}
    return {"": states.pop()} if len(states) == 1 else {}


def _done_as_well(graph: Graph, world: World, policies: tuple[Policy, ...]) -> Iterator[tuple[str, DutyState]]:
    """The duties before a use that are done because another one is, of which the world says that it is fulfilled.

    The acts are judged as those of a log, and are none of the world's: a world that tells of the performance of a duty does not say that
    it tells of all acts, and no count of uses follows from it.
    """
    duties = [(policy, rule, duty) for policy in policies for rule in policy.permissions for duty in rule.duties if duty.id]
    acts = [act for policy, rule, duty in duties if world.duties.get(duty.id) == "fulfilled" and (act := _act(graph, policy, rule, duty))]
    told, now = replace(world, log=tuple(acts), duties={}), values.microseconds(world.now)
    if acts and now is not None:
        for policy, _, duty in duties:
            if duty.when == "pre" and state_of(policy, duty, told, now, {DATE_TIME: now}) == "fulfilled":
                yield duty.id, "fulfilled"


def _act(graph: Graph, policy: Policy, rule: Rule, duty: Rule) -> Event | None:
    """The act that fulfilled a duty of a permission by when it was reported: None where the policy does not say which act of whom on what
    that was, and nothing else."""
    by = duty.assignees or rule.assignees or tuple(map(Scope, policy.assignees))
    on = duty.targets or rule.targets or (() if policy.target is None else (Scope(policy.target),))
    if any(len(parts) != 1 for parts in (duty.actions, by, on)) or duty.refinements or duty.functions or duty.opaque:
        return None
    if rule.refinements or by[0].collection or on[0].collection or not (times := _reported(graph, duty.id)):
        return None
    return Event(max(times), duty.actions[0].iri, by[0].id, on[0].id)


def _reported(graph: Graph, duty: str) -> list[datetime]:
    """When it was reported that a duty is fulfilled."""
    reports = [node for node in graph.typed(REPORT + "DutyReport") if duty in graph.objects(node, REPORT + "rule")]
    whole = [node for node in graph.nodes if any(report in graph.objects(node, REPORT + "ruleReport") for report in reports)]
    return [_instant(term) for node in (*reports, *whole) for term in graph.objects(node, CREATED)]


def _acts(graph: Graph) -> Iterable[Event]:
    """The acts that performed a duty, as the W3C's states of the world tell them: payments, each with the condition that it met."""
    for node, said in graph.nodes.items():
        named = [term for space in SPACES for name in ("conditionId", "conditionID") for term in graph.objects(node, space + name)]
        if len(named) != 1 or PAYMENTS + "Payment" not in said.get(TYPE, ()):
            continue
        paid = sum(_number(term) for term in graph.objects(node, PAYMENTS + "netAmount"))
        # DBpedia names its things with `http`, and its pages with `https`; the W3C's own examples mix them.
        currency = _text(graph.objects(node, PAYMENTS + "currency")).replace("https://dbpedia.org/", "http://dbpedia.org/", 1)
        for term in graph.objects(node, PAYMENTS + "paymentDate"):
            payer = _text(graph.objects(node, PAYMENTS + "payer"))
            yield Event(
                _instant(term),
                ODRL + "compensate",
                payer,
                None,
                {},
                {fact_key(ODRL + "payAmount", currency): paid},
                _text(named),
                "" if is_blank(node) else node,
            )


def _collections(graph: Graph, thing: str) -> set[str]:
    found: set[str] = set()
    waiting: list[Term] = [thing]
    while waiting:
        for term in graph.objects(str(waiting.pop()), ODRL + "partOf"):
            if isinstance(term, str) and term not in found:
                found.add(term)
                waiting.append(term)
                if len(found) > COLLECTIONS_MAX:
                    raise refusal(
                        Code.LIMIT_EXCEEDED, f"it is in more than {COLLECTIONS_MAX} collections", "name those that matter", source=thing
                    )
    return found


def _of_spaces(graph: Graph, node: Term, names: Iterable[str]) -> list[Term]:
    return [term for space in SPACES for name in names for term in (graph.objects(node, space + name) if isinstance(node, str) else ())]


def _id(terms: list[Term], what: str, node: str) -> str | None:
    """The one thing that is named; None if none is."""
    if len(terms) > 1:
        raise refusal(Code.MALFORMED, f"it names {len(terms)} for `{what}`", "write one request for each", source=node)
    if terms and not isinstance(terms[0], str):
        raise refusal(Code.TYPE_MISMATCH, f"its `{what}` is no IRI", "write an IRI", source=node)
    return str(terms[0]) if terms else None


def _number(term: Term) -> Number:
    try:
        return values.number(_json(term))[0]
    except PolicyError as error:
        text = term.text if isinstance(term, Literal) else str(term)
        raise refusal(Code.TYPE_MISMATCH, f"`{shown(text)}` is no number", error.message) from error


def _text(terms: list[Term]) -> str:
    return next((term.text if isinstance(term, Literal) else term for term in terms if isinstance(term, Literal | str)), "")


def _json(term: Term) -> Any:
    """A value as `Request.params` takes it."""
    if isinstance(term, Literal):
        return term.text if term.datatype == XSD + "string" else {"@value": term.text, "@type": term.datatype}
    return {"@id": term} if isinstance(term, str) else {"@list": [_json(member) for member in term]}
