"""What a policy says, as one short word: the same for every form, spelling and order of it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from msgspec import Struct, structs

from connector.odrl.model import Policy
from connector.odrl_compare.wording import rule_meaning


def fingerprint(policy: Policy) -> str:
    """SHA-256 (64 hexadecimal digits) over the meaning of a policy: its rules, its profiles and who wins a conflict.

    Not over its own id, target, parties and timestamp, which the protocol sets, nor over how and in which order it is written. Two policies
    with one fingerprint say the same; two that say the same in other words (a window as two bounds, or as one beside a wider one) may
    have two, and `compare` finds out.
    """
    said = (policy.profiles, policy.conflict, policy.opaque, frozenset(rule_meaning(rule) for rule in policy.rules))
    return sha256(_written(said).encode()).hexdigest()


def _written(value: Any) -> str:
    """One text for one value: sets are sorted, and what is of another kind is written with its kind."""
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_written, value)))}}}"
    if isinstance(value, tuple):
        return f"({','.join(map(_written, value))})"
    if isinstance(value, Struct):
        return type(value).__name__ + _written(structs.astuple(value))
    if isinstance(value, str):
        return json.dumps(value)
    return f"{type(value).__name__} {value}"
