"""The gate: from a token and a transfer pid to a `Permit`, without which nothing is streamed.

The way is a sentence: the token is ours and holds, its transfer is one where we provide to this consumer, who has signed the request if
the agreement demands that, it is STARTED, its agreement is final and has not ended, it is permitted by the decision of now, whose
bound has not passed. What stays true until
the next commit is looked up once; what time changes is judged at each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connector.dataplane.edr import NOT_VALID, Claims, Grant, Tokens, grant_for
from connector.dataplane.flows import AGREEMENT_ENDED, COUNTED_ANEW, POLICY_BOUND, TRANSFERS_MAX, Flows, Lease, earliest, lapse
from connector.dataplane.possession import Proof, demand
from connector.dataplane.quotas import LARGEST
from connector.dsp.messages import Role
from connector.dsp.transfer import State
from connector.errors import TokenRefused, Withdrawn
from connector.odrl.counters import Tally
from connector.ports import SIGNED_REQUESTS, Clock, Stage, Transfers, TransferView
from connector.values import Value


class Permit(Value):
    """The permission to stream one dataset for one transfer. Built here and nowhere else.

    `not_after` is the instant (POSIX seconds) at which a running stream has to end, or None; `not_after_code` says why.
    `lease` is stale once the transfer has changed: then ask the gate again before streaming. `tallies` are what a stream uses up
    and has to be metered, () for most, and what is counted up to `counted_until`. `demands` are the IRIs of what else the agreement
    demands of a stream.
    """

    transfer: str
    agreement: str
    consumer: str
    dataset: str
    source: Mapping[str, Any]
    stages: tuple[Stage, ...]
    not_after: float | None
    not_after_code: str
    lease: Lease
    tallies: tuple[Tally, ...] = ()
    counted_until: float | None = None
    demands: frozenset[str] = frozenset()


class _Known(Value):
    view: TransferView
    permit: Permit


class Gate:
    """Judges requests to the data listener."""

    def __init__(self, tokens: Tokens, transfers: Transfers, flows: Flows, clock: Clock) -> None:
        self._tokens, self._transfers, self._flows, self._clock = tokens, transfers, flows, clock
        self._known: dict[str, _Known] = {}

    async def permit(self, token: str, transfer: str, proof: Proof | None = None) -> Permit:
        """Return the permission that `token` gives for `transfer`. `proof` is what the request proves beside it.

        Raises TokenRefused for a token that is not one of this transfer (unknown, foreign and forged look alike), has
        expired or was replaced by a later start; SignatureRefused (and Busy) if its consumer has to sign the request and has not;
        Withdrawn if the token is right but nothing may be read now.
        """
        claims = self._tokens.check_access(token, transfer)
        known = self._known.get(transfer)
        if known is None or known.permit.lease.stale or _over(known.permit, self._clock.now()):
            known = await self._look_up(transfer)
        _demand_match(known, claims, proof)
        _demand_running(known, self._clock.now())
        return known.permit

    async def own(self, transfer: str) -> Permit:
        """The permission to push a transfer, which no token of ours opens: the sink has one of its own, and where signed requests are
        demanded it is we who sign them. Raises TokenRefused if there is nothing behind it, Withdrawn if nothing may leave now."""
        known = await self._look_up(transfer)
        if known.view.role is not Role.PROVIDER:
            raise TokenRefused(NOT_VALID)
        _demand_running(known, self._clock.now())
        return known.permit

    async def party(self, token: str, transfer: str, proof: Proof | None = None) -> None:
        """Raise as `permit` unless `token` is one for `transfer`, whether or not that runs: also what has ended can be signed for. What
        its agreement demands of a request is demanded too where nothing is published there any more."""
        claims = self._tokens.check_access(token, transfer)
        try:
            demands: frozenset[str] | None = (await self._look_up(transfer)).view.demands
        except TokenRefused:  # nothing is published there any more, which is no reason to hear its consumer no more
            demands = await self._transfers.demands(transfer)
        if demands is None:
            raise TokenRefused(NOT_VALID)
        if SIGNED_REQUESTS in demands:
            demand(proof, claims.consumer)

    async def renewable(self, refresh_token: str, consumer: str, proof: Proof | None = None) -> Grant:
        """Return what `consumer` may have a fresh access token for. Raises as `permit`."""
        claims = self._tokens.check_refresh(refresh_token, consumer)
        known = await self._look_up(claims.transfer)
        _demand_match(known, claims, proof)
        _demand_running(known, self._clock.now())
        return grant_for(known.view)

    async def _look_up(self, transfer: str) -> _Known:
        known = self._known.get(transfer)
        if known is not None and _over(known.permit, self._clock.now()):
            known = None
        while known is None or known.permit.lease.stale:
            # Taken before the look-up: a commit in between makes it stale, and what was read is thrown away.
            lease = self._flows.lease(transfer)
            view = await self._transfers.lookup(transfer)
            if view is None:
                self._known.pop(transfer, None)
                raise TokenRefused(NOT_VALID)
            known = _Known(view, _permit(view, lease))
            self._known.pop(transfer, None)
            self._known[transfer] = known
            if len(self._known) > TRANSFERS_MAX:
                del self._known[next(iter(self._known))]
        return known


def _permit(view: TransferView, lease: Lease) -> Permit:
    tallies = tuple(tally for tally in view.tallies if tally.operand in LARGEST or (tally.pricing is not None and tally.least))
    until = view.counted_until if tallies else None
    bounds = ((view.agreement_ends, AGREEMENT_ENDED), (view.bound, POLICY_BOUND), lapse(view.proven_until), (until, COUNTED_ANEW))
    data = (view.pid, view.agreement, view.peer, view.dataset, view.source, view.stages)
    return Permit(*data, *earliest(*bounds), lease, tallies, until, view.demands)


def _over(permit: Permit, now: float) -> bool:
    """Whether its bound has passed; where that was not the end it is decided anew, and what was known is not."""
    return permit.not_after is not None and permit.not_after <= now


def _demand_match(known: _Known, claims: Claims, proof: Proof | None) -> None:
    view = known.view
    if view.role is not Role.PROVIDER or view.peer != claims.consumer or view.agreement != claims.agreement:
        raise TokenRefused(NOT_VALID)
    if view.generation != claims.generation:
        raise TokenRefused("the token was replaced when the transfer was started again")
    if SIGNED_REQUESTS in view.demands:
        demand(proof, claims.consumer)


def _demand_running(known: _Known, now: float) -> None:
    view, permit = known.view, known.permit
    if view.state != State.STARTED:
        raise Withdrawn(f"the transfer is {view.state}, data is served while it is STARTED", f"transfer-{view.state.lower()}")
    if not view.agreement_final:
        raise Withdrawn("the agreement is not finalized", "agreement-not-final")
    if view.withheld is not None:
        raise Withdrawn("the agreement permits no access now; a message on its transfer says why", view.withheld)
    if _over(permit, now):
        raise Withdrawn("the agreement permits no access at this time any more", permit.not_after_code)
