"""What a policy means: read it, check it, decide by it, compare it. Pure; the names below are the public contract.

- load(document, format="json-ld", *, strict=True) -> Policy      PolicyError with findings
- lint(policy or document) -> list[Finding]
- evaluate(policy, request, world, *, options=Options()) -> Decision
- same_terms(a, b) -> bool            differences(a, b) -> list[str]            declared(policy), purposes_of(policy)
"""

from connector.errors import PolicyError
from connector.odrl.decision import Decision
from connector.odrl.declared import declared, purposes_of
from connector.odrl.evaluate import evaluate
from connector.odrl.explain import ConstraintResult, RuleResult
from connector.odrl.model import Code, Finding, Options, Policy, Request, Result, Stage, World
from connector.odrl.operands import DATE_TIME, OPERANDS, PARTICIPANT, PURPOSE, Operand
from connector.odrl.parse import lint, load
from connector.odrl.terms import differences, same_terms

__all__ = [
    "DATE_TIME",
    "OPERANDS",
    "PARTICIPANT",
    "PURPOSE",
    "Code",
    "ConstraintResult",
    "Decision",
    "Finding",
    "Operand",
    "Options",
    "Policy",
    "PolicyError",
    "Request",
    "Result",
    "RuleResult",
    "Stage",
    "World",
    "declared",
    "differences",
    "evaluate",
    "lint",
    "load",
    "purposes_of",
    "same_terms",
]
