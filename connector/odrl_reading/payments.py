"""What a duty to pay says of the payment: it describes the act that is owed, and is no condition under which it is owed.

As a constraint of the duty (ODRL 2.2 IM, 2.6.3) `payAmount eq 5` would make it due once 5 had been paid, and until then leave nothing to be
paid: what its author wanted 5 for would be free. So it is read as the refinement of the action that it is meant to be, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from connector.odrl.codes import Code
from connector.odrl.duties import COMPENSATE
from connector.odrl.model import Action, Constraint, Logic, Node, leaves
from connector.odrl.operands import PAY_AMOUNT, UNIT_OF_COUNT
from connector.odrl.vocabulary import compact
from connector.odrl_reading.reading import Reading, place
from connector.values import replace

_AMOUNTS: Final = frozenset({PAY_AMOUNT, UNIT_OF_COUNT})  # how much, and for how much of what


def payments(
    known: Mapping[str, Any], path: str, named: tuple[Action, ...], constraints: tuple[Node, ...], reading: Reading
) -> tuple[tuple[Action, ...], tuple[Node, ...]]:
    """The actions and the constraints of a duty (`known`, at `path`), with what its constraints say of a payment among the refinements of
    the actions that pay. A choice between a payment and something else is a finding: it would say both what is owed and when."""
    if not any(COMPENSATE in action.within for action in named):
        return named, constraints
    owed: list[Node] = []
    conditions: list[Node] = []
    for node in _both(constraints):
        about = {isinstance(leaf, Constraint) and leaf.operand in _AMOUNTS for leaf in leaves((node,))}
        (owed if about == {True} else conditions).append(node)
        if about == {True, False}:
            message = "how much is to be paid, and when it is due, stand in one choice"
            fix = "refine the action by how much is to be paid, and leave in the constraint when"
            reading.note(Code.TERM_UNSUPPORTED, node.path, message, fix)
    if not owed:
        return named, constraints
    _say(known, path, owed, reading)
    found = (replace(act, refinements=(*act.refinements, *owed)) if COMPENSATE in act.within else act for act in named)
    return tuple(found), tuple(conditions)


def _both(nodes: Iterable[Node]) -> Iterable[Node]:
    """The constraints that all have to hold, without the `and`s around them; an order between them stays."""
    for node in nodes:
        if isinstance(node, Logic) and node.kind == "and":
            yield from _both(node.parts)
        else:
            yield node


def _say(known: Mapping[str, Any], path: str, owed: list[Node], reading: Reading) -> None:
    amounts = {f"{leaf.path}/" for leaf in leaves(owed)}
    # `eq` is how an amount that is owed is written: what was said of it as a limit falls away.
    reading.findings[:] = [one for one in reading.findings if one.code is not Code.EQ_AS_LIMIT or not one.path.startswith(tuple(amounts))]
    names = " and ".join(dict.fromkeys(f"`{compact(leaf.operand)}`" for leaf in leaves(owed) if isinstance(leaf, Constraint)))
    message = f"{names} of a duty to pay is what has to be paid: as a condition, it would be due only once it was paid"
    fix = "write it as `odrl:refinement` of the action; it is read so"
    reading.note(Code.PAYMENT_AS_CONDITION, owed[0].path, message, fix, "warning", patch=_moved(known, path, owed))


def _moved(known: Mapping[str, Any], path: str, owed: list[Node]) -> tuple[dict[str, Any], ...]:
    """The patch (RFC 6902) that writes it so, where the action is one word and what moves stands in the array itself."""
    written, at, constraints = known.get("action"), place(known, path, "constraint"), known.get("constraint")
    word = written.get("@id") if isinstance(written, dict) and written.keys() == {"@id"} else written
    if not isinstance(word, str) or not isinstance(constraints, list):
        return ()
    places = [f"{at}/{index}" for index in range(len(constraints))]
    moved = [places.index(node.path) for node in owed if node.path in places]
    if len(moved) < len(owed):
        return ()
    refined = {"rdf:value": {"@id": word}, "odrl:refinement": [constraints[index] for index in moved]}
    steps = [{"op": "replace", "path": place(known, path, "action"), "value": refined}]
    if len(moved) == len(constraints):
        return (*steps, {"op": "remove", "path": at})
    return (*steps, *({"op": "remove", "path": f"{at}/{index}"} for index in sorted(moved, reverse=True)))
