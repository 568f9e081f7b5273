"""The judgement itself: which rules speak about a request, what is known about it, and what follows in Kleene's logic.

A request with several values of a usage operand is several acts ("atoms"): it is permitted only if each of them is, and a prohibition that
bites one of them bites the request. Otherwise "research is permitted" would let a request for research and marketing through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Facts, Options, Policy, Request, Rule, Stage, World
from connector.odrl.operands import DATE_TIME, OPERANDS, PARTICIPANT
from connector.odrl.vocabulary import ACTION_WITHIN, ACTIONS, compact

ATOMS_MAX: Final = 16  # acts in one request; who names more purposes than this states none, and each is judged by itself

_SPELLINGS: Final = {iri: (iri, compact(iri)) if compact(iri) != iri else (iri,) for iri in OPERANDS}


@dataclass(frozen=True, slots=True)
class Case:
    """One policy, one request, and what was known when it was judged. `atoms` is empty if there were more than ATOMS_MAX."""

    policy: Policy
    request: Request
    options: Options
    now: int | None
    atoms: tuple[Facts, ...]

    @property
    def enforcing(self) -> bool:
        """Whether a missing fact closes."""
        return self.request.stage != Stage.CATALOG


def action_and_above(action: str) -> frozenset[str]:
    """The full IRIs of an action in any spelling and of all it is included in; empty for one that is not known."""
    return ACTION_WITHIN.get(ACTIONS.get(action, ""), frozenset())


def on_target(policy: Policy, request: Request) -> bool:
    """Whether the policy is about what is requested. One without a target is about the dataset that it hangs on (DSP 2025-1, catalog)."""
    return policy.target is None or policy.target == request.target


def addresses(policy: Policy, rule: Rule, party: str) -> bool:
    """Whether the rule is for this party; its own assignees go before those of the policy."""
    parties = rule.assignees or policy.assignees
    return not parties or party in parties


def matching(policy: Policy, rules: tuple[Rule, ...], request: Request) -> list[Rule]:
    """The rules that speak about this action of this party on this target."""
    if not rules or not on_target(policy, request):
        return []
    within, party = action_and_above(request.action), request.party
    return [rule for rule in rules if rule.action in within and addresses(policy, rule, party)]


def weigh(permissions: Sequence[Rule], prohibitions: Sequence[Rule], atoms: Sequence[Facts], options: Options, enforcing: bool) -> int:
    """TRUE to permit, FALSE to deny, UNKNOWN (never where it is enforced) if a missing fact decides."""
    worst = TRUE
    for facts in atoms:
        state = FALSE
        for rule in permissions:
            state = max(state, rule.judge(facts))
            if state == TRUE:
                break
        if prohibitions and not (options.conflict == "permit" and state == TRUE):
            for rule in prohibitions:
                state = min(state, TRUE - rule.judge(facts))
        if state == FALSE or (enforcing and state == UNKNOWN):
            return FALSE
        worst = min(worst, state)
    return worst


def gather(policy: Policy, request: Request, world: World, now: int | None) -> tuple[dict[str, str | int], ...]:
    """What is known, one mapping for each act of the request; () if there are more than ATOMS_MAX."""
    known: dict[str, str | int] = {}
    if now is not None:
        known[DATE_TIME] = now
    if request.party:
        known[PARTICIPANT] = request.party
    if not policy.usage:
        return (known,)
    atoms = [known]
    for operand in policy.usage:
        found = stated(operand, request.params) | stated(operand, world.facts) or {None: None}
        if len(atoms) * len(found) > ATOMS_MAX:
            return ()
        atoms = [atom if of is None else {**atom, operand: of} for atom in atoms for of in found]
    return tuple(atoms)


def stated(operand: str, source: Mapping[str, object]) -> dict[str | None, None]:
    """The values that a mapping states for an operand, in order; None stands for those that cannot be read, and counts as not known."""
    found: dict[str | None, None] = {}
    for spelling in _SPELLINGS[operand]:
        given = source.get(spelling)
        if given is None:
            continue
        for raw in given if isinstance(given, tuple | list | set | frozenset) else (given,):
            try:
                found[values.term(raw)] = None
            except PolicyError:
                found[None] = None
    return found
