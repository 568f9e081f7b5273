"""Asks the policy engine on behalf of the use cases, and remembers what has been parsed.

The engine is pure and total; this module brings the caller's claims and the time, and turns a policy that cannot be
understood into a denial with its findings: what is not understood is refused when written and denied when met.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from connector.errors import PolicyError
from connector.odrl import Policy, Request, World, differences, evaluate, load, purposes_of, same_terms

REMEMBERED_MAX = 20_000  # parsed policies, some 2 KiB each: one for each dataset of a large catalog
USE = "odrl:use"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision comes down to for a use case. `ends` is the instant (POSIX seconds) at which a permission lapses,
    `reasons` what the peer may read, `document` what is stored beside the state."""

    permitted: bool
    result: str
    code: str
    reasons: tuple[str, ...]
    ends: float | None
    document: Mapping[str, Any]


class Policies:
    """Parses each policy once and evaluates it as often as needed."""

    def __init__(self) -> None:
        self._parsed: OrderedDict[bytes, Policy | PolicyError] = OrderedDict()

    def parse(self, document: Mapping[str, Any]) -> Policy | PolicyError:
        """The policy, or the error that says what in it is not understood."""
        key = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        known = self._parsed.get(key)
        if known is not None:
            self._parsed.move_to_end(key)
            return known
        try:
            parsed: Policy | PolicyError = load(document)
        except PolicyError as e:
            parsed = e
        self._parsed[key] = parsed
        if len(self._parsed) > REMEMBERED_MAX:
            self._parsed.popitem(last=False)
        return parsed

    def decide(
        self, document: Mapping[str, Any], *, party: str, target: str, purposes: tuple[str, ...], claims: Mapping[str, Any], now: float, stage: str
    ) -> Verdict:
        """Evaluate `use` of `target` by `party` for `purposes` under the policy, at `stage` catalog, negotiation or
        transfer. Never raises: what cannot be understood is denied with its findings."""
        policy = self.parse(document)
        if isinstance(policy, PolicyError):
            return not_understood(policy)
        request = Request(party=party, action=USE, target=target, params={"odrl:purpose": purposes} if purposes else {}, stage=stage)
        decision = evaluate(policy, request, World(now=datetime.fromtimestamp(now, UTC), facts=claims))
        ends = decision.valid_until.timestamp() if decision.valid_until else None
        permitted = decision.result in ("permit", "permit-with")
        return Verdict(permitted, decision.result, decision.code, tuple(decision.reason("peer")), ends, decision.to_json())

    def purposes(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        """The purposes that a set of terms asks for: what its permissions say about the purpose."""
        policy = self.parse(document)
        return () if isinstance(policy, PolicyError) else purposes_of(policy)

    def same(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        """Whether two documents grant the same on the same terms, whoever they name and however they are written."""
        one, other = self.parse(a), self.parse(b)
        return not isinstance(one, PolicyError) and not isinstance(other, PolicyError) and same_terms(one, other)

    def differences(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
        """What two documents say differently, in plain words; findings where one is not understood."""
        one, other = self.parse(a), self.parse(b)
        if isinstance(one, PolicyError):
            return one.reasons
        return other.reasons if isinstance(other, PolicyError) else tuple(differences(one, other))


def not_understood(error: PolicyError) -> Verdict:
    """The denial of what cannot be understood: the findings are its reasons."""
    document = {"result": "deny", "code": "POLICY_NOT_UNDERSTOOD", "findings": list(error.reasons)}
    return Verdict(False, "deny", "POLICY_NOT_UNDERSTOOD", error.reasons, None, document)
