"""Whether a transfer may run now: one ruling over its agreement, its peer, its dataset, the policy, what was used up, and the time.

It is asked wherever a transfer starts, at each look-up of the data plane, and again when one of these is not what it was
(`connector.control.watch`). A refusal that may pass by itself suspends: a fact that is not known now, a time that is yet to come, a peer
for whom nobody vouches, data that are not published. Everything else ends the transfer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any

import orjson

from connector import telemetry
from connector.control.compose import SAID
from connector.control.negotiate import Reaction
from connector.control.policies import Policies
from connector.control.steps import Steps, fact
from connector.control.terms import demands
from connector.control_billing.affording import BUDGET_SHORT, RETURNS, Asked, about_to_return, afford
from connector.control_billing.measured import Used, used_of
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.dsp.transfer import FINAL, State
from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl.counters import Tally
from connector.odrl.operands import COUNT
from connector.ports import SIGNED_REQUESTS, Act, Identity, Store
from connector.records import Agreement, Changes, Dataset, Evidence, Expect, Record, Reservation, Usage
from connector.records.aside import aside_id, taken_id, taking
from connector.records.verdicts import Verdict
from connector.remembered import Remembered
from connector.values import Value, replace

WITHDRAWN, UNKNOWN_AGREEMENT = "dataset-withdrawn", "unknown-agreement"
PRICES_UNREADABLE, AGREEMENT_ALTERED = "prices-unreadable", "agreement-altered"
# What may be otherwise soon, without a date: somebody shows a credential, does a duty, publishes again, loads a profile.
PASSING = frozenset(
    {
        Code.CONSTRAINT_UNKNOWN,
        Code.CREDENTIAL_REVOKED,
        Code.CONSENT_MISSING,
        Code.PREDUTY_OPEN,
        Code.OBLIGATION_OVERDUE,
        Code.NOT_YET_VALID,
        Code.EVALUATION_FAILED,
        "POLICY_NOT_UNDERSTOOD",
        WITHDRAWN,
        PRICES_UNREADABLE,
    }
)
KNOWN_MAX, KNOWN_BYTES_MAX = 10_000, 16 << 20  # decisions kept at hand: those of agreements that are in use
OFFERS_MAX = 8  # of which a stored refusal says why
BYTES_FOR_JSON = 10  # of memory for a byte of JSON
VOLATILE = ("at", "counters", "id", "obligations_created")  # of a decision: they differ where nothing else does, and the first use counts


class Ruling(Value):
    """What holds at one instant. `ends` is when a permission lapses, or when a refusal that passes is one for good; `returns` when a
    refusal lapses, if that is known; all in POSIX seconds, or None for never. `claims` are vouched for until `expires`; None if nobody
    was asked, or nobody does. `tallies` and `usage` are what was counted by, () and None where nothing is counted; `looks` is the next
    instant at which a use may count under other rules; `set_aside` is what a transfer that starts sets aside of its budgets."""

    verdict: Verdict
    agreement: Agreement | None
    dataset: Dataset | None = None
    ends: float | None = None
    returns: float | None = None
    claims: Mapping[str, Any] | None = None
    expires: float | None = None
    tallies: tuple[Tally, ...] = ()
    usage: Usage | None = None
    looks: float | None = None
    set_aside: tuple[Reservation, ...] = ()

    @property
    def permitted(self) -> bool:
        return self.verdict.permitted

    @property
    def passing(self) -> bool:
        """Whether it is a refusal that may pass."""
        return not self.permitted and (self.verdict.code in PASSING or self.returns is not None)

    @property
    def expects(self) -> tuple[Expect, ...]:
        """What it was read from, for the write that follows from it."""
        read = (self.agreement, self.dataset)
        return tuple(Expect(type(record), record.id, record.version) for record in read if record is not None)

    def kept(self, process: Process, now: float) -> dict[str, Any]:
        """The detail of a process with what it keeps of the ruling. An equal one leaves it as it is."""
        detail = dict(process.detail)
        if _lasting(detail.get("decision", {})) != _lasting(self.verdict.document):
            detail["decision"] = self.verdict.document
        if self.claims is not None and self.expires is not None:
            known = detail.get("claims_expire")
            asked_early = detail.get("claims") == self.claims and known is not None and now < known <= self.expires
            detail |= {"claims": self.claims, "claims_expire": known if asked_early else self.expires}
        return detail | {"ends": self.ends, "returns": self.returns} | ({"looks": self.looks} if self.usage else {})


class _Decided(Value):
    """The last decision under an agreement: what it was taken on, and from when until when (POSIX seconds) it is the same."""

    claims: Mapping[str, Any]
    used: Used | None
    version: int
    at: float
    until: float
    verdict: Verdict


class Rights:
    """Takes the decision. It writes nothing."""

    def __init__(self, store: Store, policies: Policies, identity: Identity) -> None:
        self._store = store
        self._policies = policies
        self._identity = identity
        self._known: Remembered[str, _Decided] = Remembered(KNOWN_MAX, KNOWN_BYTES_MAX)

    async def of(self, process: Process, now: float, *, more: bool = False, starts: bool = False) -> Ruling | None:
        """Whether this transfer may run now; with `more` whether it may use more than it has, and if it `starts` whether its budgets pay
        for all of it. Where we consume that is for the provider to say, unless we have closed the agreement: None."""
        agreement, detail = await self._store.agreement(process.agreement or ""), process.detail
        if process.role is Role.CONSUMER:
            return _closed(agreement, now) if agreement is not None and agreement.closed_by == "us" else None
        if agreement is None:
            reason = f"agreement `{process.agreement}` is no longer stored"
            return Ruling(_refusal(UNKNOWN_AGREEMENT, now, reason), None)
        proven = detail.get("claims", {}), detail.get("claims_expire") or now
        pid = process.pid if starts else ""
        paid = starts and bool(detail.get("aside"))
        return await self.under(agreement, *proven, now, counted=detail.get("counted", ()), more=more, starts=pid, paid=paid)

    async def under(
        self,
        agreement: Agreement,
        claims: Mapping[str, Any],
        expires: float,
        now: float,
        *,
        counted: Collection[str] = (),
        more: bool = True,
        starts: str = "",
        paid: bool = False,
    ) -> Ruling:
        """Whether the consumer of an agreement of ours, who has proven `claims` until `expires`, may use its dataset now. A transfer that
        counts as a use under the rules `counted` is not counted against itself. `starts` is the one (its pid) that is to start: what is
        left of its budgets has to pay for all that it is to bring, unless it has started and `paid` before."""
        if agreement.closed is not None:
            return _closed(agreement, now)
        terms = await self._policies.read_aside(agreement.document)
        if agreement.ends is not None and agreement.ends <= now:
            return Ruling(self._over(agreement, claims, now), agreement)
        dataset = await self._store.dataset(agreement.dataset)
        caller = self._identity.standing(agreement.consumer, claims, expires)
        if caller is None or caller.expires <= now:
            reason = f"nobody vouches for `{agreement.consumer}` any more: it has left the data space, or has no valid key"
            return Ruling(_refusal(Code.CREDENTIAL_REVOKED, now, reason), agreement, dataset, agreement.ends)
        tallies = self._policies.tallies(terms)
        usage = (await self._store.usage(agreement.id) or Usage(agreement.id)) if tallies else None
        used = used_of(usage, tallies, counted, dataset.media_type if dataset else "", more, paid=paid) if usage else None
        looks = self._policies.next_instant(terms, now) if usage else None
        verdict = self._remembered(agreement, caller.claims, now, used, looks)
        if usage:
            counters = self._policies.counters(terms, usage)
            verdict = replace(verdict, document=dict(verdict.document) | {"counters": counters})
        if starts and usage and verdict.code == Code.QUOTA_EXHAUSTED and await about_to_return(self._store, usage, now):
            verdict = replace(verdict, reasons=(*verdict.reasons, RETURNS))
        if verdict.permitted:
            verdict = self._owed(agreement, now) or verdict
        if verdict.permitted and dataset is not None and dataset.binding is not None and agreement.created <= dataset.binding:
            verdict = self.bound(verdict, agreement, dataset, caller.claims, now)
        if verdict.permitted and dataset is None:
            verdict = _refusal(WITHDRAWN, now, f"dataset `{agreement.dataset}` is not published any more; ask its provider")
        asked = Asked()
        if starts and verdict.permitted and usage and dataset and not isinstance(terms.policy, PolicyError):
            asked = await afford(
                self._store, self._policies.extents, terms.policy, agreement, dataset, usage, verdict.charged, starts, now, begun=paid
            )
        if asked.reason:
            refusal = _refusal(BUDGET_SHORT, now, asked.reason)
            verdict = replace(refusal, document=dict(refusal.document) | {"counters": verdict.document["counters"]})
        ends = min((end for end in (verdict.ends, agreement.ends) if end is not None), default=None)
        returns = None if verdict.permitted else _instant(verdict.document.get("valid_until"))
        counted_by = (tallies, usage, looks, asked.set_aside)
        return Ruling(verdict, agreement, dataset, ends, returns, _stored(caller.claims), caller.expires, *counted_by)

    async def counts(self, agreement: Agreement) -> bool:
        """Whether anything is counted under an agreement."""
        return bool(self._policies.tallies(await self._policies.read_aside(agreement.document)))

    async def demanded(self, agreement: Agreement) -> frozenset[str]:
        """What an agreement demands of a stream, as IRIs, whatever has become of it and of its dataset. One whose terms are not understood
        any more may have demanded that requests are signed, so it does."""
        policy = (await self._policies.read_aside(agreement.document)).policy
        return frozenset({SIGNED_REQUESTS}) if isinstance(policy, PolicyError) else demands(policy)

    def outdated(self, process: Process) -> bool:
        """Whether a transfer was given access by what is not so of its peer any more."""
        detail = process.detail
        if process.kind is not Kind.TRANSFER or process.role is Role.CONSUMER or process.meant != State.STARTED or "claims" not in detail:
            return False
        caller = self._identity.standing(process.peer, detail["claims"], detail.get("claims_expire") or 0.0)
        return caller is None or _stored(caller.claims) != detail["claims"]

    def bound(self, verdict: Verdict, agreement: Agreement, dataset: Dataset, claims: Mapping[str, Any], now: float) -> Verdict:
        """An older agreement under offers that bind it too: the verdict, until the latest end of an offer that permits the same, or a
        refusal. What is counted is counted under the agreement alone. The peer reads of those offers only that its catalog shows; of the
        others, which may name somebody else, our operator does."""
        policies = [{**offer.policy, "@id": offer.id} for offer in dataset.offers]
        found = [self._decided(policy, agreement, claims, now, self._policies.unused(policy)) for policy in policies]
        permits = [each for each in found if each.permitted]
        if not permits:
            reason = f"the provider has replaced the terms of dataset `{dataset.id}`, also for agreements made before"
            told = list(zip(dataset.offers, policies, found, strict=True))
            shows = partial(self._policies.shows, party=agreement.consumer, target=agreement.dataset, claims=claims, now=now)
            closest = next((no.reasons for _, policy, no in told if shows(policy)[0]), ())
            refusal = _refusal(Code.POLICY_REPLACED, now, reason, *closest)
            each = [{"offer": offer.id, "code": no.code, "reason": list(no.reasons)} for offer, _, no in told[:OFFERS_MAX]]
            return replace(refusal, document=dict(refusal.document) | {"offers": each})
        longest = None if any(each.ends is None for each in permits) else max(each.ends or 0.0 for each in permits)
        ends = min((end for end in (verdict.ends, longest) if end is not None), default=None)
        return replace(verdict, ends=ends)

    def _owed(self, agreement: Agreement, now: float) -> Verdict | None:
        """The refusal under an agreement of which nobody could say what is owed: it is not the one that was signed, or its prices, which
        were understood then, are not any more. None if it can be said."""
        if wire.digest(agreement.document) != agreement.digest:
            reason = f"agreement `{agreement.id}` as it is stored is not the one that was agreed; restore it from the ledger or a backup"
            return _refusal(AGREEMENT_ALTERED, now, reason)
        try:
            self._policies.prices(agreement.document)
        except PolicyError as error:
            return _refusal(PRICES_UNREADABLE, now, f"what agreement `{agreement.id}` says of prices is not understood", *error.reasons)
        return None

    def _over(self, agreement: Agreement, claims: Mapping[str, Any], now: float) -> Verdict:
        """The refusal under an agreement that has ended: by its own rule and value, where these say so."""
        verdict = self._decided(agreement.document, agreement, claims, now, self._policies.unused(agreement.document))
        return verdict if verdict.code == Code.EXPIRED else _refusal(Code.EXPIRED, now, "the agreement has ended")

    def _remembered(self, agreement: Agreement, claims: Mapping[str, Any], now: float, used: Used | None, looks: float | None) -> Verdict:
        """What the agreement says. A decision is a function of these and says until when it holds (`looks`: under which rules a use
        counts): a transfer is looked up several times in a row, and sweeps meet the same again."""
        known = self._known.get(agreement.id)
        facts = (claims, used, agreement.version)
        if known is not None and (known.claims, known.used, known.version) == facts and known.at <= now < known.until:
            return known.verdict
        verdict = self._decided(agreement.document, agreement, claims, now, used)
        until = min(_instant(verdict.document.get("valid_until")) or inf, looks or inf)
        kept = _Decided(claims, used, agreement.version, now, now if verdict.code == Code.EVALUATION_FAILED else until, verdict)
        self._known.put(agreement.id, kept, BYTES_FOR_JSON * len(orjson.dumps(verdict.document)))
        return verdict

    def _decided(
        self, document: Mapping[str, Any], agreement: Agreement, claims: Mapping[str, Any], now: float, used: Used | None
    ) -> Verdict:
        """What a policy says to the use that the agreement was made for."""
        return self._policies.decide(
            document,
            party=agreement.consumer,
            target=agreement.dataset,
            purposes=self._policies.purposes(agreement.document),
            claims=claims,
            now=now,
            stage="transfer",
            used=used,
            performed=agreement.performed,
        )


def charge(process: Process, ruling: Ruling, now: float) -> Reaction:
    """A transfer that a ruling has permitted, and which carries it already: it counts as a use under each rule that it has not counted
    under before, and has what it needs of its budgets set aside, where it starts. What it takes of them is noted, as long as it is under
    the same rules: beyond, nobody could say under which of them that left which was never signed for."""
    verdict, usage = ruling.verdict, ruling.usage
    if usage is None:
        return Reaction(process, expects=ruling.expects)
    counted, charged = tuple(process.detail.get("counted", ())), process.detail.get("charged")
    new = [t.rule for t in ruling.tallies if t.operand == COUNT and t.rule in verdict.charged and t.rule not in counted]
    kept = replace(process, detail=dict(process.detail) | {"charged": list(verdict.charged), "counted": [*counted, *new]})
    rows = [*(Reservation(process.pid, process.pid, rule, COUNT, 1, now) for rule in new), *ruling.set_aside]
    before = usage
    if charged is None:
        budgets = ((tally.rule, tally.operand) for tally in ruling.tallies if tally.pricing is not None and tally.rule in verdict.charged)
        rows += (taken := taking(usage, process.pid, budgets, now))
        kept = replace(kept, detail=dict(kept.detail) | {"taken": True}) if taken else kept
    elif list(charged) != list(verdict.charged) and any(each.id == taken_id(process.pid) for each in usage.open):
        before = usage.settle(taken_id(process.pid), {}, now)
        kept = replace(kept, detail=dict(kept.detail) | {"taken": False})
    if not rows and before is usage:
        return Reaction(kept, expects=ruling.expects)
    if ruling.set_aside:
        kept = replace(kept, detail=dict(kept.detail) | {"aside": True})
        before = before.settle(aside_id(process.pid), {}, now)
    saves: tuple[Record, ...] = (before.reserve(rows, now),)
    return Reaction(kept, None, saves, (Expect(Usage, usage.agreement, usage.version or None), *ruling.expects))


def follow(process: Process, ruling: Ruling, now: float) -> Reaction | None:
    """What is done about a ruling on a transfer: keep it, start again, suspend, or end it. None if nothing changes by it.

    `held` in the detail is the code for which we keep it suspended; only such a transfer is started again by us. A message that is on its
    way comes first: `again` is the instant since which something else is to be said after it. Access goes by `halted`, from the commit on.
    """
    if process.meant in FINAL:
        return None
    moved, act = replace(process, detail=ruling.kept(process, now)), None
    if not ruling.permitted and not ruling.passing:
        return Reaction(moved, refuse(Move.TRANSFER_TERMINATION, ruling))
    serving, held = process.meant == State.STARTED, "held" in process.detail
    if ruling.permitted and held:
        moved, act = _let_go(moved, now)
    elif ruling.passing and (serving or held):
        moved, act = _hold(moved, ruling, now)
    reaction = charge(moved, ruling, now) if ruling.permitted and moved.meant == State.STARTED else Reaction(moved, expects=ruling.expects)
    return None if reaction.process == process and act is None else replace(reaction, act=act)


def _let_go(process: Process, now: float) -> tuple[Process, Act | None]:
    """Give access again. A suspension that is on its way has to arrive before."""
    rest = {name: value for name, value in process.detail.items() if name not in ("held", "again", *SAID)}
    if process.in_flight is Move.SUSPENSION:
        return _again(process, now), None
    if process.in_flight is None and process.state == State.SUSPENDED:
        return replace(process, detail=rest), Act(Move.START)
    return replace(process, detail=rest, halted=False), None


def _hold(process: Process, ruling: Ruling, now: float) -> tuple[Process, Act | None]:
    """Take access away. A start that is on its way may have arrived already: then the suspension follows it."""
    said = "held" in process.detail and "again" not in process.detail  # or it was refused, which changes nothing for access
    process = replace(process, detail=dict(process.detail) | {"held": ruling.verdict.code})
    if process.in_flight is not None:
        return (_again(replace(process, halted=True), now) if process.in_flight is Move.START else process), None
    rest = {name: value for name, value in process.detail.items() if name != "again"}
    if process.state != State.STARTED or said:
        return replace(process, detail=rest), None
    return replace(process, detail=rest), refuse(Move.SUSPENSION, ruling)


def _again(process: Process, now: float) -> Process:
    return replace(process, detail={"again": now} | dict(process.detail))


def refuse(move: Move, ruling: Ruling) -> Act:
    verdict = ruling.verdict
    return Act(move, code=verdict.code, reasons=verdict.reasons, grounds=verdict.grounds)


def outcome(steps: Steps, process: Process, ruling: Ruling, now: float) -> Changes | None:
    """What `follow` says as a write, with a fact for the record where the decision is another one than before."""
    reaction = follow(process, ruling, now)
    if reaction is None:
        return None
    verdict, act, before = ruling.verdict, reaction.act, process.detail.get("decision", {})
    said: tuple[Evidence, ...] = ()
    if act is not None or (before and (before.get("result"), before.get("code")) != (verdict.result, verdict.code)):
        what = telemetry.EXPIRED if verdict.code == Code.EXPIRED else telemetry.DECIDED_AGAIN
        telemetry.log.info(what, pid=process.pid, code=str(verdict.code), state=process.state)
        said = (fact(what, process, now, result=str(verdict.result), code=str(verdict.code)),)
    if act is not None and act.move.termination:
        return steps.end(reaction.process, verdict.code, verdict.reasons, now, verdict.grounds, stored=process, because=said)
    return steps.changes(process, reaction, now, evidence=said, ask=False)


def _closed(agreement: Agreement, now: float) -> Ruling:
    why = f": {agreement.reason}" if agreement.reason else ""
    return Ruling(_refusal(Code.AGREEMENT_CLOSED, now, f"the agreement was closed{why}"), agreement)


def _refusal(code: str, now: float, *reasons: str) -> Verdict:
    """A refusal for which no policy is needed, in the form of one."""
    at = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
    document = {"result": "deny", "code": str(code), "stage": "transfer", "at": at, "reason": list(reasons)}
    return Verdict(False, "deny", str(code), reasons, None, document)


def _stored(claims: Mapping[str, Any]) -> Any:
    """Claims as a store gives them back."""
    return orjson.loads(orjson.dumps(claims))


def _lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in VOLATILE}


def _instant(text: Any) -> float | None:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
