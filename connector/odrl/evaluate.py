"""(policy, request, world) -> decision. Total: it never raises, and what it does not know it does not permit."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from typing import Final

from connector.odrl.decision import Decision
from connector.odrl.judge import Case, gather, matching, weigh
from connector.odrl.model import DEFAULT_OPTIONS, Options, Policy, Request, Result, Rule, Stage, World
from connector.odrl.operands import DATE_TIME
from connector.odrl.values import instant, microseconds

# Constraints judged in search of the next change: a few milliseconds, whatever a peer has written. A policy of up to a hundred constraints
# and values is always searched to its end; in a larger one the search may stop at an instant at which nothing changes yet.
LOOK_AHEAD_MAX: Final = 20_000

_RESULTS: Final = (Result.DENY, Result.UNKNOWN, Result.PERMIT)


def evaluate(policy: Policy, request: Request, world: World, *, options: Options = DEFAULT_OPTIONS) -> Decision:
    """Decide whether `policy` lets `request` happen in `world`.

    A permission grants if it matches action, target and party and all its constraints are satisfied; one granting permission is enough. A
    prohibition that matches and is satisfied denies, unless `options.conflict` is `permit`. A missing fact leaves the result `unknown` at
    the stage `catalog`; at every other stage it closes: an unknown permission does not grant, an unknown prohibition applies. A policy with
    a finding of severity `error` permits nothing at any stage. Every stage is judged at `world.now`: an offer whose time has not come is
    denied, and `valid_until` says when it comes.
    """
    now = microseconds(world.now)
    if policy.refused:
        return Decision(Result.DENY, None, world.now, Case(policy, request, options, now, ()))
    atoms = gather(policy, request, world, now)
    case = Case(policy, request, options, now, atoms)
    permissions = matching(policy, policy.permissions, request)
    if not atoms or not permissions:
        return Decision(Result.DENY, None, world.now, case)
    prohibitions = matching(policy, policy.prohibitions, request)
    enforcing = request.stage != Stage.CATALOG
    state = weigh(permissions, prohibitions, atoms, options, enforcing)
    until = None
    if policy.instants and now is not None:
        until = _next_change(case, permissions, prohibitions, state, now)
    return Decision(_RESULTS[state], until, world.now, case)


def _next_change(case: Case, permissions: list[Rule], prohibitions: list[Rule], state: int, now: int) -> datetime | None:
    """The first instant after now at which the result is another one; between two instants of the policy it cannot change."""
    instants = case.policy.instants
    steps = max(1, LOOK_AHEAD_MAX // (case.policy.leaves * len(case.atoms)))
    first = bisect_right(instants, now)
    for at in instants[first : first + steps]:
        atoms = [{**atom, DATE_TIME: at} for atom in case.atoms]
        if weigh(permissions, prohibitions, atoms, case.options, case.enforcing) != state:
            return instant(at)
    later = first + steps
    return instant(instants[later]) if later < len(instants) else None
