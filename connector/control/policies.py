"""Asks the policy engine on behalf of the use cases, and remembers what has been parsed.

The engine is pure and total; this module brings the caller's claims and the time, and turns a policy that cannot be
understood into a denial with its findings: what is not understood is refused when written and denied when met.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property, partial
from hashlib import blake2b
from itertools import islice
from typing import Any

import orjson

from connector.control.terms import MORE_TO_PAY, Alike, Settlement, alike_of, burdens, naming, settle
from connector.control_billing import measured as billing
from connector.control_billing.affording import Extents, nothing_known
from connector.control_billing.measured import DATED, MEASURED, Used
from connector.control_billing.performed import done
from connector.errors import InvalidRequest, PolicyError, Refused
from connector.lasting import aside
from connector.metering_bills.budgets import tallies
from connector.metering_bills.plans import plan_of, terms_of
from connector.metering_bills.prices import Plan
from connector.metering_bills.terms import name_of
from connector.odrl import (
    DEFAULT_OPTIONS,
    PURPOSE,
    Code,
    Decision,
    Options,
    Origin,
    Policy,
    Request,
    Result,
    Stage,
    World,
    differences,
    evaluate,
    load,
    same_terms,
)
from connector.odrl.counters import Tally, charged
from connector.odrl.evaluation import lapse
from connector.odrl.operands import METERED_TIME, TIME_INTERVAL, timeless
from connector.odrl.registry import registry_of
from connector.odrl.vocabulary import compact
from connector.odrl_reading.declaration import agreed, purposes_of
from connector.records import Dataset, Usage
from connector.records.verdicts import KEY_BYTES, REASONS_MAX, Verdict, again, identified, not_understood
from connector.remembered import Remembered
from connector.values import Value, replace

REMEMBERED_MAX = 20_000  # parsed policies: one for each dataset of a large catalog
REMEMBERED_BYTES_MAX = 32 << 20  # some 4,000 of the usual size; the largest that can be read takes less than a thirty-second of it
POLICY_BYTES, PART_BYTES = 5_000, 1_024  # in memory: a policy that says nothing, and each constraint, value or finding
VERDICTS_MAX, VERDICTS_BYTES_MAX = 2_000, 16 << 20  # what was said of terms that come again: the same offer to the same participant
BYTES_FOR_JSON = 10  # of memory for a byte of JSON
USE = "odrl:use"
PERMITS = frozenset({Result.PERMIT, Result.PERMIT_WITH})
MICROSECONDS = 1_000_000
ACTION_CHARACTERS, ACTIONS_NAMED = 80, 3  # of an action that is not known, and of those that are named instead
ASIDE_BYTES = 16 * 1024  # of a message whose policy may take longer than some 5 ms to be read
ASIDE_LEAVES = 100  # of two policies together: their differences take some 2 ms


class Read(Value):
    """A document that was read: its digest, equal for equal JSON, and what it means, or the error that says what in it is not
    understood. Whoever asks several things of one document has it read once."""

    document: Mapping[str, Any]
    key: bytes
    policy: Policy | PolicyError


Document = Mapping[str, Any] | Read


def _size_bytes(parts: int, text_bytes: int) -> int:
    return POLICY_BYTES + PART_BYTES * parts + text_bytes


def _named(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The text of a document, equal for equal JSON, and its digest."""
    text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return text, blake2b(text, digest_size=KEY_BYTES).digest()


def _loaded(reading: Callable[[Mapping[str, Any]], Policy], document: Mapping[str, Any]) -> Policy | PolicyError:
    try:
        return reading(document)
    except PolicyError as e:
        return PolicyError(e.message, e.findings)  # the one that was raised holds on to the document


class Policies:
    """Parses each policy once and evaluates it as often as needed, under `options`: the profiles that this connector knows. What they do
    not say of who measures what is what this connector measures: terms that wait for another meter would be agreed and never be met.
    They may be made by a function, which is asked for the first policy. `extents` says how large data are, where that is known."""

    def __init__(self, options: Options | Callable[[], Options] = DEFAULT_OPTIONS) -> None:
        self.extents: Extents = nothing_known
        self._made = options
        self._aside = asyncio.Lock()
        self._parsed: Remembered[bytes, Policy | PolicyError] = Remembered(REMEMBERED_MAX, REMEMBERED_BYTES_MAX)
        self._verdicts: Remembered[tuple[Any, ...], tuple[Verdict, tuple[str, ...]]] = Remembered(VERDICTS_MAX, VERDICTS_BYTES_MAX)
        self._same: Remembered[tuple[bytes, bytes], bool] = Remembered(VERDICTS_MAX, VERDICTS_BYTES_MAX)
        self._shown: Remembered[tuple[Any, ...], bool] = Remembered(VERDICTS_MAX, VERDICTS_BYTES_MAX)
        self._settled: Remembered[tuple[bytes, bytes, str, str], Settlement] = Remembered(VERDICTS_MAX, VERDICTS_BYTES_MAX)

    @cached_property
    def options(self) -> Options:
        options = self._made if isinstance(self._made, Options) else self._made()
        return replace(options, measured=MEASURED | DATED) if options.measured is None else options

    async def ready(self) -> None:
        """Return once the options are there, made in a thread if nobody has asked for them yet: profiles take long to be read. Raises what
        making them raises."""
        if "options" not in vars(self):
            await aside(getattr, self, "options")

    @cached_property
    def _alike(self) -> Alike:
        return Alike(self.options, _size_bytes)

    def read(self, document: Document) -> Read:
        """The document with what it means."""
        return document if isinstance(document, Read) else self._found(document, *_named(document))

    async def read_aside(self, document: Document) -> Read:
        """`read`, for who can wait: a large policy takes some 20 ms, and the loop serves everybody else. It is read in a thread, one at a
        time: several threads would keep the loop waiting for the interpreter."""
        if isinstance(document, Read):
            return document
        text, key = _named(document)
        if len(text) > ASIDE_BYTES and self._parsed.get(key) is None:
            await self.ready()
            async with self._aside:
                if self._parsed.get(key) is None:
                    reading = partial(load, options=self.options)  # what is alike is looked for on the loop alone
                    self._keep(key, await aside(_loaded, reading, document), len(text))
        return self._found(document, text, key)

    def _found(self, document: Mapping[str, Any], text: bytes, key: bytes) -> Read:
        if (known := self._parsed.get(key)) is not None:
            return Read(document, key, known)
        self._keep(key, parsed := _loaded(self._alike.load, document), len(text))
        return Read(document, key, parsed)

    def _keep(self, key: bytes, parsed: Policy | PolicyError, text_bytes: int) -> None:
        parts = len(parsed.findings) + (parsed.leaves if isinstance(parsed, Policy) else 0)
        self._parsed.put(key, parsed, _size_bytes(parts, text_bytes))

    def parse(self, document: Document) -> Policy | PolicyError:
        """The policy, or the error that says what in it is not understood."""
        return document.policy if isinstance(document, Read) else self.read(document).policy

    def hash_of(self, document: Document) -> str:
        """What a stored decision says of the document that it judged (`policy_hash`): equal for equal JSON."""
        return self.read(document).key.hex()

    def admit(self, document: Document) -> None:
        """Raise Refused for a policy of a peer that is too large to be read at all: nothing about it is kept. One that is only
        not understood is denied where it is met, with a decision on record."""
        parsed = self.parse(document)
        if isinstance(parsed, PolicyError) and any(finding.code is Code.LIMIT_EXCEEDED for finding in parsed.findings):
            raise Refused(parsed.message, (parsed.reasons[-1], *parsed.reasons[:-1][:REASONS_MAX]), code="policy-too-large")

    def decide(
        self,
        document: Document,
        *,
        party: str,
        target: str,
        purposes: tuple[str, ...],
        claims: Mapping[str, Any],
        now: float,
        stage: str,
        used: Used | None = None,
        action: str = USE,
        performed: Sequence[Mapping[str, Any]] = (),
    ) -> Verdict:
        """Evaluate `action` on `target` by `party` for `purposes` under the policy, at `stage` catalog, negotiation or
        transfer. `used` is what was used up before, by rule (path) and left operand; what it leaves out is not known, and that
        denies at a transfer. `performed` are the acts that fulfil duties (see `Agreement`). Never raises: what cannot be understood
        is denied with its findings."""
        read = self.read(document)
        if isinstance(read.policy, PolicyError):
            return not_understood(read.policy)
        policy, alike = read.policy, alike_of(read.policy)
        key: tuple[Any, ...] | None = None
        if not (used or performed) and timeless(policy) and (policy.kind != "Agreement" or alike is not None):
            key = (alike or read.key, party, target, purposes, orjson.dumps(claims, option=orjson.OPT_SORT_KEYS), stage, action)
            if (known := self._verdicts.get(key)) is not None:
                return again(*known, read.key, policy, now)
        params = {PURPOSE: purposes} if purposes else {}
        request = Request(party=party, action=action, target=target, params=params, stage=Stage(stage))
        verdict = self._verdict(read, policy, request, claims, now, used or {}, performed)
        if key and verdict.code != Code.EVALUATION_FAILED and (alike is None or policy.id not in repr(key)):  # what names it is no other's
            kept = verdict, naming(verdict.document, policy.id) if alike else ()
            self._verdicts.put(key, kept, BYTES_FOR_JSON * len(orjson.dumps(verdict.document)))
        return verdict

    def _verdict(
        self, read: Read, policy: Policy, request: Request, claims: Mapping[str, Any], now: float, used: Used, performed: Sequence[Any]
    ) -> Verdict:
        options = billing.measuring(policy, self.options)
        signed = agreed(policy) if policy.kind == "Agreement" else {}
        origins = {operand: Origin(policy.assigner, None, policy.id) for operand in signed if operand not in claims}
        world = World(now=datetime.fromtimestamp(now, UTC), facts={**signed, **claims}, used=used, origins=origins)
        world = replace(world, duties=done(policy, world, performed)) if performed else world
        decision = evaluate(policy, request, world, options=options)
        ends = lapse(policy, request, world, decision, options=options) if decision.permitted else None
        counts = charged(decision.case) if decision.permitted and tallies(policy) else ()
        reasons, grounds = tuple(decision.reason("peer")), tuple(decision.grounds("peer"))
        stored = identified(decision.to_json(), read.key)
        return Verdict(decision.permitted, decision.result, decision.code, reasons, ends, stored, counts, grounds)

    def shows(self, document: Document, *, party: str, target: str, claims: Mapping[str, Any], now: float) -> tuple[bool, float | None]:
        """Whether a catalog shows an offer under this policy to the party, and until when that is known (POSIX seconds, None
        for good). Everything but a definite no is shown; what cannot be understood is a no."""
        read = self.read(document)
        key = (read.key, party, target, orjson.dumps(claims, option=orjson.OPT_SORT_KEYS))
        if (known := self._shown.get(key)) is not None:
            return known, None
        seen = self.look(read, party=party, target=target, claims=claims, now=now)
        if isinstance(seen, PolicyError):
            return False, None
        shown = seen.result is not Result.DENY
        if not seen.failed and timeless(seen.case.policy):
            self._shown.put(key, shown, PART_BYTES + sum(map(len, key)))
        return shown, seen.valid_until.timestamp() if seen.valid_until else None

    def look(self, document: Document, *, party: str, target: str, claims: Mapping[str, Any], now: float) -> Decision | PolicyError:
        """The decision by which a catalog shows an offer under this policy or hides it, or what in it is not understood."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            return policy
        request = Request(party=party, action=USE, target=target, stage=Stage.CATALOG)
        return evaluate(policy, request, World(now=datetime.fromtimestamp(now, UTC), facts=claims), options=self.options)

    def demand_action(self, action: str) -> None:
        """Raise InvalidRequest for an action that nobody here knows, with the known ones that are spelled most like it."""
        known = registry_of(self.options).actions
        if action not in known:
            names = sorted({compact(iri) for iri in known.values()}, key=str.casefold)
            word = action[:ACTION_CHARACTERS].rpartition(":")[2]
            near = get_close_matches(word, [name.rpartition(":")[2] for name in names], ACTIONS_NAMED, 0.0)
            listed = ", ".join(f"`{name}`" for end in near for name in names if name.rpartition(":")[2] == end)
            raise InvalidRequest(f"`{action[:ACTION_CHARACTERS]}` is no action that is known here; nearest are {listed}", pointer="/action")

    def tallies(self, document: Document) -> tuple[Tally, ...]:
        """What has to be counted to decide by the policy; () for most."""
        policy = self.parse(document)
        return () if isinstance(policy, PolicyError) else tallies(policy)

    def counts(self, document: Document) -> bool:
        """Whether somebody has to count or to log what the policy asks for."""
        policy = self.parse(document)
        return not isinstance(policy, PolicyError) and (bool(tallies(policy)) or TIME_INTERVAL in dict(policy.measures))

    def meters_time(self, document: Document) -> bool:
        """Whether a policy says for how long data may flow; of one that is not understood nobody knows."""
        policy = self.parse(document)
        return not isinstance(policy, PolicyError) and any(tally.operand == METERED_TIME for tally in tallies(policy))

    def plan(self, document: Document) -> Plan | None:
        """The prices of a policy, None if it has none. Raises PolicyError for what is not understood."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            raise policy
        return plan_of(policy)

    def prices(self, document: Document) -> bytes | None:
        """The name of the prices of an agreement (`metering_bills.terms`): None if it has none. Raises PolicyError for what is not
        understood: nobody could say what is owed."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            raise policy
        return name_of(policy)

    def next_instant(self, document: Document, now: float) -> float | None:
        """The next point in time (POSIX seconds) at which a constraint of the policy may say something else, whatever becomes of the
        decision."""
        policy = self.parse(document)
        instants = () if isinstance(policy, PolicyError) else policy.instants
        later = (at / MICROSECONDS for at in islice(instants, bisect_right(instants, now * MICROSECONDS), None))
        return next((at for at in later if at > now), None)

    def counters(self, document: Document, usage: Usage) -> list[dict[str, Any]]:
        """What is counted under the policy, as it stands: see `control_billing.measured.counters`."""
        policy = self.parse(document)
        return [] if isinstance(policy, PolicyError) else billing.counters(policy, usage)

    async def used_up(self, document: Document, usage: Usage, dataset: Dataset | None = None) -> tuple[str, ...]:
        """The left operands of which nothing more is to be had under a permission of the policy, or of money too little for all of the
        dataset."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            return ()
        return billing.used_up(policy, usage, None if dataset is None else await self.extents(dataset.source))

    def unused(self, document: Document) -> Used:
        """`used` as the side that does not count has it: as if nothing had been used."""
        policy = self.parse(document)
        return {} if isinstance(policy, PolicyError) else billing.unused(policy)

    async def counted(self, dataset: Dataset) -> bool:
        """Whether the records of a dataset have a signed count."""
        if dataset.size_bytes is None:
            return True
        extent = await self.extents(dataset.source)
        return extent is not None and extent.counts

    def demand_measured(self, document: Document, media_type: str, *, counted: bool) -> None:
        """Raise PolicyError for a policy that counts or prices what nobody here can measure of data of this type."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            raise policy
        billing.demand_measured(policy, media_type, counted=counted)

    def purposes(self, document: Document) -> tuple[str, ...]:
        """The purposes that a set of terms asks for: what its permissions say about the purpose."""
        policy = self.parse(document)
        return () if isinstance(policy, PolicyError) else purposes_of(policy)

    def same(self, a: Document, b: Document) -> bool:
        """Whether two documents grant the same on the same terms, whoever they name and however they are written."""
        first, second = self.read(a), self.read(b)
        one, other = first.policy, second.policy
        if isinstance(one, PolicyError) or isinstance(other, PolicyError):
            return False
        if not (timeless(one) and timeless(other)):  # then it matters when they were signed
            return same_terms(one, other)
        key = (alike_of(one) or first.key, alike_of(other) or second.key)
        known = self._same.get(key)
        if known is None:
            known = same_terms(one, other)
            self._same.put(key, known, PART_BYTES)
        return known

    def settle(self, terms: Document, envelope: Document, *, party: str, target: str) -> Settlement:
        """How `terms` relate to the widest that is acceptable without asking anybody; what is not understood is undecided."""
        one, other = self.read(terms), self.read(envelope)
        for each in (one.policy, other.policy):
            if isinstance(each, PolicyError):
                return Settlement("undecided", says=each.reasons)
        key = (one.key, other.key, party, target)
        if (known := self._settled.get(key)) is None:
            known = settle(one.policy, other.policy, party=party, target=target, options=self.options)  # type: ignore[arg-type]
            self._settled.put(key, known, PART_BYTES + BYTES_FOR_JSON * len(orjson.dumps([known.says, known.common, known.instead])))
        return known

    def settle_any(self, terms: Document, templates: Sequence[Document], *, own: str, target: str) -> Settlement:
        """How `terms` relate to a consumer's acceptance templates: within one of them, without a duty that it does not name; apart from all
        of them; or something between."""
        found: list[Settlement] = []
        for template in templates:
            settled = self.settle(terms, template, party=own, target=target)
            if settled.kind == "refines" and (more := self.burdens(terms, template, own=own, target=target)):
                settled = Settlement("overlaps", more)
            if settled.kind == "refines":
                return settled
            found.append(settled)
        if all(each.kind == "disjoint" for each in found):
            return Settlement("disjoint", tuple(dict.fromkeys(said for each in found for said in each.says)))
        return next(each for each in found if each.kind != "disjoint")

    def burdens(self, terms: Document, accepted: Document, *, own: str, target: str) -> tuple[str, ...]:
        """What `terms` oblige `own` to and `accepted` does not, in plain words. Where uses are paid for, whatever bounds them, as a
        budget or an end, bounds what `own` comes to owe: terms that do not lie within those that are accepted oblige it to more."""
        one, other = self.parse(terms), self.parse(accepted)
        if isinstance(one, PolicyError) or isinstance(other, PolicyError):
            return ()
        found = burdens(one, other, own)
        if found or terms_of(one) == frozenset() or self.settle(terms, accepted, party=own, target=target).kind == "refines":
            return found
        return (MORE_TO_PAY,)

    def differences(self, a: Document, b: Document) -> tuple[str, ...]:
        """What two documents say differently, in plain words; findings where one is not understood."""
        one, other = self.parse(a), self.parse(b)
        if isinstance(one, PolicyError):
            return one.reasons
        return other.reasons if isinstance(other, PolicyError) else tuple(differences(one, other))

    async def differences_aside(self, a: Document, b: Document) -> tuple[str, ...]:
        """`differences`, for who can wait: those of large policies are found in a thread, since the loop serves everybody else."""
        one, other = self.parse(a), self.parse(b)
        if isinstance(one, PolicyError) or isinstance(other, PolicyError) or one.leaves + other.leaves <= ASIDE_LEAVES:
            return self.differences(a, b)
        return tuple(await aside(differences, one, other))
