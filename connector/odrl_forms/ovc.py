"""Constraints of Gaia-X on credentials -> constraints of ODRL, so that they are read, judged and compared like all others.

The profile (Gaia-X 25.07, "attribute based access/usage control") hangs `ovc:constraint` on the assignee, who holds the credentials, and
writes `ovc:leftOperand`, a path into a credential, beside `ovc:credentialSubjectType`. Here the path is a left operand like any other, the
constraint one of the rule, and the type of credential a second constraint. A path that no profile pack names is not known, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any, Final

OVC: Final = "https://w3id.org/gaia-x/ovc/1/"
SUBJECT_TYPE: Final = OVC + "credentialSubjectType"
_CONSTRAINT, _LEFT = OVC + "constraint", OVC + "leftOperand"
_ANY_OF: Final = frozenset({"anyOf", "odrl:anyOf", "http://www.w3.org/ns/odrl/2/anyOf"})  # what the profile's examples write for isAnyOf


def as_constraints(tree: object) -> object:
    """The tree of a policy with every such constraint written as ODRL has it; the same object if there is none.

    `tree` is what the JSON-LD processor leaves: compact JSON whose words beyond the W3C's context are full IRIs.
    """
    if isinstance(tree, list):
        # a hundred thousand values may stand in a list of somebody who means no good: what holds nothing is not called for
        parts = [as_constraints(entry) if isinstance(entry, (dict, list)) else entry for entry in tree]
        return tree if all(map(is_, parts, tree)) else parts
    if not isinstance(tree, dict) or "@value" in tree:  # a literal holds nothing
        return tree
    if _LEFT in tree:
        return _constraint(tree)
    if _CONSTRAINT not in tree and "assignee" not in tree:  # as most objects
        inner = {key: as_constraints(value) if isinstance(value, (dict, list)) else value for key, value in tree.items()}
        return tree if all(map(is_, inner.values(), tree.values())) else inner
    moved, parties = _of_assignees(tree)
    found = {key: as_constraints(value) for key, value in tree.items() if key not in (_CONSTRAINT, "assignee")}
    if parties:
        found["assignee"] = parties[0] if len(parties) == 1 else parties
    if moved:
        found["constraint"] = [*_listed(found.get("constraint")), *(as_constraints(entry) for entry in moved)]
    same = not moved and all(found.get(key) is value for key, value in tree.items() if key != "assignee")
    return tree if same else found


def _of_assignees(rule: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The constraints on credentials of a rule, its own and those on its assignees, and what is left of these: who fulfils them is
    addressed, whoever it is."""
    moved, parties = _listed(rule.get(_CONSTRAINT)), []
    for party in _listed(rule.get("assignee")):
        carries = isinstance(party, Mapping) and _CONSTRAINT in party
        own = {key: value for key, value in party.items() if key != _CONSTRAINT} if carries else party
        moved += _listed(party[_CONSTRAINT]) if carries else []
        if not carries or own.keys() - {"@type"}:
            parties.append(own)
    return moved, parties


def _constraint(raw: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: as_constraints(value) for key, value in raw.items() if key not in (_LEFT, SUBJECT_TYPE)}
    operator = own.get("operator")
    if isinstance(operator, str) and operator in _ANY_OF:
        own["operator"] = "odrl:isAnyOf"
    path = {"leftOperand": raw[_LEFT], **own}
    if SUBJECT_TYPE not in raw:
        return path
    return {"and": [path, {"leftOperand": SUBJECT_TYPE, "operator": "odrl:eq", "rightOperand": raw[SUBJECT_TYPE]}]}


def _listed(raw: Any) -> list[Any]:
    return [] if raw is None else list(raw) if isinstance(raw, list) else [raw]
