"""What a policy means: read it, check it, decide by it, compare it. Pure; the names below are the public contract.

- load(document, format="json-ld", *, options) -> Policy             PolicyError with findings; `json-ld` or `turtle`
- load_request(document, format) -> Request                          load_world(document, format, *, policies) -> World
- evaluate(policy, request, world, *, options) -> Decision           replay(policy, events, *, options) -> Report
- compare(a, b, *, options) -> Verdict                               same_terms(a, b), differences(a, b)
- meet(a, b, *, options) -> Meeting                                  separating(a, b, *, options) -> Separation or None
- lint(policy or document) -> [Finding]                              check(policy, *, options, now) -> (Finding, ...)
- report_rdf(decision) -> rdflib.Graph
- Options(duty_mode, conflict, recurrence_anchor, measured, duration_mode, profiles, vocabularies)

Each name is imported when it is first asked for: nothing that only reads Turtle pays for deciding, and the other way round.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.errors import PolicyError as PolicyError
    from connector.odrl.codes import Code as Code
    from connector.odrl.codes import Finding as Finding
    from connector.odrl.codes import Result as Result
    from connector.odrl.codes import Stage as Stage
    from connector.odrl.decision import Decision as Decision
    from connector.odrl.evaluation import evaluate as evaluate
    from connector.odrl.evaluation import visible as visible
    from connector.odrl.model import DEFAULT_OPTIONS as DEFAULT_OPTIONS
    from connector.odrl.model import Event as Event
    from connector.odrl.model import Options as Options
    from connector.odrl.model import Origin as Origin
    from connector.odrl.model import Policy as Policy
    from connector.odrl.model import Request as Request
    from connector.odrl.model import World as World
    from connector.odrl.operands import DATE_TIME as DATE_TIME
    from connector.odrl.operands import PARTICIPANT as PARTICIPANT
    from connector.odrl.operands import PURPOSE as PURPOSE
    from connector.odrl.registry import Alias as Alias
    from connector.odrl.registry import Operand as Operand
    from connector.odrl.registry import Profile as Profile
    from connector.odrl.registry import Vocabulary as Vocabulary
    from connector.odrl.results import ConstraintResult as ConstraintResult
    from connector.odrl.results import RuleResult as RuleResult
    from connector.odrl_compare.checking import check as check
    from connector.odrl_compare.comparing import compare as compare
    from connector.odrl_compare.meeting import meet as meet
    from connector.odrl_compare.meeting import separating as separating
    from connector.odrl_compare.terms import differences as differences
    from connector.odrl_compare.terms import same_terms as same_terms
    from connector.odrl_compare.verdict import Verdict as Verdict
    from connector.odrl_compare.witness import Witness as Witness
    from connector.odrl_forms.fingerprint import fingerprint as fingerprint
    from connector.odrl_forms.validate import lint as lint
    from connector.odrl_rdf.report import report_rdf as report_rdf
    from connector.odrl_rdf.worlds import load_request as load_request
    from connector.odrl_rdf.worlds import load_world as load_world
    from connector.odrl_reading.declaration import declared as declared
    from connector.odrl_reading.declaration import purposes_of as purposes_of
    from connector.odrl_reading.parse import load as load
    from connector.odrl_replay.replay import replay as replay
    from connector.odrl_replay.report import Report as Report

_PLACES = {
    "connector.errors": ("PolicyError",),
    "connector.odrl.codes": ("Code", "Finding", "Result", "Stage"),
    "connector.odrl.operands": ("DATE_TIME", "PARTICIPANT", "PURPOSE"),
    "connector.odrl.decision": ("Decision",),
    "connector.odrl_reading.declaration": ("declared", "purposes_of"),
    "connector.odrl.evaluation": ("evaluate", "visible"),
    "connector.odrl.results": ("ConstraintResult", "RuleResult"),
    "connector.odrl.model": ("DEFAULT_OPTIONS", "Event", "Options", "Origin", "Policy", "Request", "World"),
    "connector.odrl_reading.parse": ("load",),
    "connector.odrl_forms.fingerprint": ("fingerprint",),
    "connector.odrl_forms.validate": ("lint",),
    "connector.odrl_rdf.report": ("report_rdf",),
    "connector.odrl_rdf.worlds": ("load_request", "load_world"),
    "connector.odrl_replay.replay": ("replay",),
    "connector.odrl_replay.report": ("Report",),
    "connector.odrl.registry": ("Alias", "Operand", "Profile", "Vocabulary"),
    "connector.odrl_compare.checking": ("check",),
    "connector.odrl_compare.comparing": ("compare",),
    "connector.odrl_compare.meeting": ("meet", "separating"),
    "connector.odrl_compare.terms": ("differences", "same_terms"),
    "connector.odrl_compare.verdict": ("Verdict",),
    "connector.odrl_compare.witness": ("Witness",),
}
_HOME = {name: place for place, names in _PLACES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(_HOME[name]), name)
