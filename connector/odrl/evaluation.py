"""(policy, request, world) -> decision. Total: it never raises, and what it does not know it does not permit."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Final

from connector.errors import PolicyError
from connector.odrl.codes import Code, Result, Stage
from connector.odrl.core import DATE_TIME
from connector.odrl.decision import Decision
from connector.odrl.duties import deadline_of, state_of
from connector.odrl.explain import leaves, unknown_operands
from connector.odrl.judge import Case, Spoken, gather, matching, weigh
from connector.odrl.model import (
    DEFAULT_OPTIONS,
    FALSE,
    TRUE,
    UNKNOWN,
    Constraint,
    Facts,
    Lapse,
    Options,
    Policy,
    Request,
    Since,
    World,
)
from connector.odrl.registry import registry_of
from connector.odrl.values import after, instant, microseconds

# Constraints judged in search of the next change: a few milliseconds, whatever a peer has written. A policy of up to a hundred constraints
# and values is always searched to its end; in a larger one the search may stop at an instant at which nothing changes yet.
LOOK_AHEAD_MAX: Final = 20_000
_NAMES: Final = frozenset({"@context", "@id", "uid", "@type", "target", "assigner", "assignee", "timestamp"})
LATER: Final = frozenset({"agreement", "transfer", "end"})  # stages at which a fact is measured, and not before


def evaluate(policy: Policy, request: Request, world: World, *, options: Options = DEFAULT_OPTIONS) -> Decision:
    """Decide whether `policy` lets `request` happen in `world`.

    A permission grants if it speaks about action, target and party, all its constraints and the refinements of these hold, and no duty
    stands in the way; one granting permission is enough. A prohibition that matches and is satisfied denies, unless `conflict` is `permit`.
    A missing fact leaves the result `unknown` at the stage `catalog`; at every other it closes: an unknown permission does not grant, an
    unknown prohibition applies. At `negotiation`, facts that are measured later (a count of uses) are left to the transfer. A policy with
    a finding of severity `error` permits nothing at any stage. Every stage is judged at `world.now`: an offer whose time has not come is
    denied, and `valid_until` says when it comes. A policy that was read under other profiles than those of `options` is read again.
    """
    try:
        return decide(_under(policy, options), request, world, options)
    except Exception as error:
        # A defect of this engine, for which no peer may be let in: it denies, and the decision says what it was.
        case = Case(policy, request, world, options, None, ())
        return Decision(Result.DENY, None, world.now, case, Code.EVALUATION_FAILED, type(error).__name__)


def _under(policy: Policy, options: Options) -> Policy:
    if policy.registry is registry_of(options) or (options.profiles == () and options.vocabularies == ()):
        return policy  # without profiles of their own, options leave a policy as it was read
    from connector.odrl_reading.parse import load

    try:
        return load(policy.document, options=options, strict=False)
    except PolicyError:
        return policy


def decide(policy: Policy, request: Request, world: World, options: Options) -> Decision:
    """`evaluate` without its net: an error here is a defect, and tests see it."""
    now = microseconds(world.now)
    if policy.refused:
        return Decision(Result.DENY, None, world.now, Case(policy, request, world, options, now, ()))
    case = Case(policy, request, world, options, now, gather(policy, request, world, now))
    permissions = matching(policy, policy.permissions, request, world)
    if not case.atoms or not permissions:
        return Decision(Result.DENY, None, world.now, case)
    prohibitions = matching(policy, policy.prohibitions, request, world)
    state = _state(case, permissions, prohibitions)
    until = None
    if now is not None and (policy.instants or policy.measures or policy.obligations or _with_duties(permissions)):
        until = _next_change(case, permissions, prohibitions, state, now)
    if state == TRUE:
        return Decision(Result.PERMIT_WITH if _owes(case, permissions) else Result.PERMIT, until, world.now, case)
    return Decision(Result.DENY if state == FALSE else Result.UNKNOWN, until, world.now, case)


def visible(
    offers: Iterable[tuple[str, str, Policy]], request: Request, world: World, *, options: Options = DEFAULT_OPTIONS
) -> dict[str, Decision]:
    """Which offers a catalog shows to a requester: id -> the decision, `permit`, `permit-with` or `unknown`; a denied one is absent.

    `offers` are (id, the asset that it hangs on, policy). Each distinct body is decided once, however many offers say the same: a body is
    a policy without its id, asset and parties.
    """
    found: dict[str, Decision] = {}
    known: dict[tuple[bytes, frozenset[str]], Decision] = {}
    for id, asset, policy in offers:
        if policy.target is not None and policy.target != asset:
            continue
        key = (body(policy), policy.assignees)
        decision = known.get(key)
        if decision is None or policy.targeted:
            decision = evaluate(policy, replace(request, target=asset, stage=Stage.CATALOG), world, options=options)
            known[key] = decision
        if decision.result is not Result.DENY:
            found[id] = decision
    return found


def body(policy: Policy) -> bytes:
    """The digest of what a policy says, whatever its id, its asset and its parties: equal for documents that are equal but for these."""
    known = policy.memo.get("body")
    if known is None:
        said = policy.document if isinstance(policy.document, dict) else {}
        terms = {key: value for key, value in said.items() if key not in _NAMES}
        known = policy.memo["body"] = blake2b(json.dumps(terms, sort_keys=True).encode(), digest_size=32).digest()
    return known


def _state(case: Case, permissions: list[Spoken], prohibitions: list[Spoken]) -> int:
    stage = case.request.stage
    if case.conflict == "invalid" and _clash(case, permissions, prohibitions):
        return FALSE
    if stage not in (Stage.CATALOG, Stage.NEGOTIATION) and _overdue(case):
        return FALSE
    if stage == Stage.NEGOTIATION:
        state = weigh(case, permissions, prohibitions, case.atoms, enforcing=False)
        if state != UNKNOWN:
            return state
        operands = case.policy.registry.operands
        later = all(operands[iri].stage in LATER for iri in unknown_operands(case))
        return TRUE if later else FALSE
    return weigh(case, permissions, prohibitions, case.atoms, enforcing=stage != Stage.CATALOG)


def _clash(case: Case, permissions: list[Spoken], prohibitions: list[Spoken]) -> bool:
    """`invalid`: the policy is void where a permission and a prohibition both apply, or may (ODRL 2.2 IM, 2.9)."""
    return any(
        any(one.judge(facts) != FALSE for one in permissions) and any(one.judge(facts) != FALSE for one in prohibitions)
        for facts in case.atoms
    )


def _overdue(case: Case) -> bool:
    facts = case.atoms[0] if case.atoms else {}
    return any(state_of(case.policy, rule, case.world, case.now, facts) == "overdue" for rule in case.policy.obligations)


def _with_duties(permissions: list[Spoken]) -> bool:
    return any(spoken.rule.duties for spoken in permissions)


def _owes(case: Case, permissions: list[Spoken]) -> bool:
    """Whether the permit comes with something that is still to be done."""
    if not case.policy.obligations and not _with_duties(permissions):
        return False
    return any(duty.state not in ("fulfilled", "remediated") for duty in Decision(Result.PERMIT, None, case.world.now, case).duties)


def _next_change(case: Case, permissions: list[Spoken], prohibitions: list[Spoken], state: int, now: int) -> datetime | None:
    """The first instant after now at which the result is another one; between two instants of the policy it cannot change."""
    points = case.policy.instants
    running = {key: fact for facts in case.atoms for key, fact in facts.items() if isinstance(fact, Since)}
    more = [*_lapses(case, running), *_deadlines(case)]
    instants: Sequence[int] = sorted({*points, *more}) if more else points
    steps = max(1, LOOK_AHEAD_MAX // (case.policy.leaves * len(case.atoms)))
    first = bisect_right(instants, now)
    for at in instants[first : first + steps]:
        then = replace(case, now=at, atoms=tuple(_at(facts, at) for facts in case.atoms))
        if _state(then, permissions, prohibitions) != state:
            return instant(at)
    later = first + steps
    return instant(instants[later]) if later < len(instants) else None


def _at(facts: Facts, at: int) -> Facts:
    moved = {key: Since(fact.anchor, at) for key, fact in facts.items() if isinstance(fact, Since)}
    return {**facts, DATE_TIME: at, **moved}


def _lapses(case: Case, running: dict[str, Since]) -> Iterable[int]:
    """The instants at which a running duration comes to a length of the policy."""
    if not running:
        return
    for leaf in leaves(case.policy):
        if isinstance(leaf, Constraint) and isinstance(leaf.test, Lapse) and (since := running.get(leaf.fact)) is not None:
            for span in (leaf.test.start, leaf.test.end):
                if span is not None and (end := after(since.anchor, span)) is not None:
                    yield from (end, end + 1)


def _deadlines(case: Case) -> Iterable[int]:
    for rule in case.policy.rules:
        for duty in (rule, *rule.duties) if rule.kind == "obligation" else rule.duties:
            if (end := deadline_of(duty, case.world)) is not None:
                yield end
