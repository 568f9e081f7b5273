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

LOOK_AHEAD_MAX: Final = 16  # instants that are tried for the next change; after them the decision is simply taken again

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
    first = bisect_right(instants, now)
    for at in instants[first : first + LOOK_AHEAD_MAX]:
        atoms = [{**atom, DATE_TIME: at} for atom in case.atoms]
        if weigh(permissions, prohibitions, atoms, case.options, case.enforcing) != state:
            return instant(at)
    later = first + LOOK_AHEAD_MAX
    return instant(instants[later]) if later < len(instants) else None
