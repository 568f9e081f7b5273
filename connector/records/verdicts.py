"""What a decision comes down to for a use case, what is stored of it, and how one that was made before is said again. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

from connector.errors import PolicyError
from connector.odrl import Policy
from connector.values import Value, replace

KEY_BYTES = 32  # of the digest of a policy: nobody finds two with the same one
REASONS_MAX = 8  # findings that a peer reads in a refusal, beside the limit that its policy goes over


class Verdict(Value):
    """What a decision comes down to for a use case. `ends` is the instant (POSIX seconds) at which a permission lapses,
    `reasons` what the peer may read, `document` what is stored beside the state, `charged` the rules (paths) under which the
    use counts, if the policy counts anything, `grounds` the reasons of a denial as data (`Decision.grounds`)."""

    permitted: bool
    result: str
    code: str
    reasons: tuple[str, ...]
    ends: float | None
    document: Mapping[str, Any]
    charged: tuple[str, ...] = ()
    grounds: tuple[Mapping[str, Any], ...] = ()


def identified(document: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """A decision with the digest of its policy, and an id: the digest of what was asked of which policy, when, and what was known."""
    asked = orjson.dumps([document[name] for name in ("at", "stage", "request", "facts", "code")])
    id = blake2b(key + asked, digest_size=KEY_BYTES // 2).hexdigest()
    return {**document, "id": id, "policy_hash": key.hex()}


def again(known: Verdict, named: tuple[str, ...], key: bytes, policy: Policy, now: float) -> Verdict:
    """What was said before, said now. An agreement that is alike has an id of its own: in its `named` members and sentences."""
    at = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
    document, reasons, grounds = {**known.document, "at": at}, known.reasons, known.grounds
    if policy.kind == "Agreement" and document["policy"] != policy.id:
        text = orjson.dumps([{name: document[name] for name in named}, reasons, grounds])
        said, reasons, grounds = orjson.loads(text.replace(document["policy"].encode(), policy.id.encode()))
        document |= said
    return replace(known, document=identified(document, key), reasons=tuple(reasons), grounds=tuple(grounds))


def not_understood(error: PolicyError) -> Verdict:
    """The denial of what cannot be understood: the findings are its reasons."""
    code, findings = "POLICY_NOT_UNDERSTOOD", error.findings
    document = {"result": "deny", "code": code, "reason": list(error.reasons), "findings": [finding.to_json() for finding in findings]}
    grounds = tuple({"code": finding.code.value, "path": finding.path} for finding in findings if finding.severity == "error")
    return Verdict(False, "deny", code, error.reasons, None, document, grounds=grounds[:REASONS_MAX])
