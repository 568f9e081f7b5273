"""What a policy is the evidence of: the values of usage operands to which its author binds themselves, and what only the contract holds.

The Dataspace Protocol has no field for a purpose. A consumer states it in the offer of its request, as a constraint; the provider takes
these values as the declaration of the request and judges its own offer by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connector.odrl.model import Constraint, Logic, Members, Node, Policy, leaves
from connector.odrl.operands import PURPOSE

_OTHERS: Final = frozenset({"neq", "isNoneOf", "lt", "gt"})
Bound = frozenset[str] | None  # None: any value at all


def declared(policy: Policy) -> dict[str, tuple[str, ...]]:
    """Left operand (full IRI) -> the sorted values to which every permission of the policy is limited, as `Request.params` takes them.

    An operand that a permission leaves open is not declared at all, so that a request for everything is never taken for a request for
    something. A policy with errors declares nothing.
    """
    if policy.refused:
        return {}
    bounds = {iri: _either([_all(rule.constraints, iri) for rule in policy.permissions]) for iri in policy.usage}
    return {iri: tuple(sorted(bound)) for iri, bound in bounds.items() if bound}


def purposes_of(policy: Policy) -> tuple[str, ...]:
    """The purposes that a policy declares, sorted; () if it leaves the purpose open."""
    known: tuple[str, ...] | None = policy.memo.get(purposes_of)
    if known is None:
        known = policy.memo[purposes_of] = declared(policy).get(PURPOSE, ())
    return known


def agreed(policy: Policy) -> dict[str, tuple[str, ...]]:
    """Left operand (full IRI) -> what the permissions ask of it, for operands that nobody but the contract can hold (liability, warranty).

    Once both sides have signed these terms, they are so: `World.facts` from the agreement on. Before it, and in a prohibition that speaks
    of another value, nothing is known of them. What is asked to be something else than a value (`neq`, `isNoneOf`) is no evidence. A policy
    with errors is none either.
    """
    found: dict[str, dict[str, None]] = {}
    if policy.refused:
        return {}
    for leaf in leaves([node for rule in policy.permissions for node in rule.constraints]):
        if isinstance(leaf, Constraint) and leaf.operator not in _OTHERS and policy.registry.operands[leaf.operand].source == "contract":
            found.setdefault(leaf.operand, {}).update(dict.fromkeys(leaf.expected))
    return {iri: tuple(values) for iri, values in found.items()}


def _bound(node: Node, operand: str) -> Bound:
    if isinstance(node, Constraint) and node.operand == operand and isinstance(node.test, Members) and not node.test.negated:
        return node.test.values
    if isinstance(node, Logic):
        return _all(node.parts, operand) if node.kind in ("and", "andSequence") else _either([_bound(part, operand) for part in node.parts])
    return None


def _all(nodes: Iterable[Node], operand: str) -> Bound:
    limits = [bound for node in nodes if (bound := _bound(node, operand)) is not None]
    return frozenset.intersection(*limits) if limits else None


def _either(bounds: list[Bound]) -> Bound:
    found: frozenset[str] = frozenset()
    for bound in bounds:
        if bound is None:
            return None
        found |= bound
    return found
