"""Measures the policy engine, each round beside the standard library's `json.loads` of the same policy: no listeners, no store."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from connector.odrl import Policy, Request, World, compare, evaluate, load, visible
from tests.bench.rows import Found
from tests.bench.size import Size

CALLS, COMPARISONS = 2_000, 60  # in a round
OFFERS, DISTINCT = 10_000, 100
MICRO = 1e6
COUNT = "http://www.w3.org/ns/odrl/2/count"
NOW = World(datetime(2026, 6, 15, 12, tzinfo=UTC), {"odrl:spatial": ("urn:place:guangzhou",)}, used={COUNT: 3})
ASKED = Request("did:web:biopharma.example", target="urn:ds:1", params={"odrl:purpose": ("research",), "odrl:recipient": ("urn:lab:1",)})


def constraint(left: str, operator: str, right: object) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def ten(number: int = 0) -> dict[str, Any]:
    """A policy of ten constraints, some 1.2 kB; another number gives another one."""
    constraints = [
        constraint("odrl:purpose", "isAnyOf", ["research", "quality", f"study-{number}"]),
        constraint("odrl:recipient", "isNoneOf", ["urn:lab:7", "urn:lab:8"]),
        constraint("odrl:dateTime", "gteq", {"@value": "2026-01-01T00:00:00Z", "@type": "xsd:dateTime"}),
        constraint("odrl:dateTime", "lteq", {"@value": f"20{30 + number % 60}-12-31T23:59:59Z", "@type": "xsd:dateTime"}),
        constraint("odrl:count", "lteq", {"@value": f"{100 + number}", "@type": "xsd:integer"}),
        constraint("odrl:spatial", "isAnyOf", ["urn:place:guangzhou", "urn:place:foshan"]),
        constraint("urn:qiao:participant", "neq", "did:web:nobody.example"),
    ]
    either = {"or": [constraint("odrl:purpose", "eq", "quality"), constraint("odrl:purpose", "neq", "marketing"), constraints[4]]}
    rule = {"action": "use", "constraint": [*constraints, either]}
    offer = {"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "Offer", "@id": "urn:o:1", "target": "urn:ds:1"}
    return offer | {"permission": [rule]}


async def measure(size: Size) -> dict[str, Found]:
    """A decision, one with its explanation, a catalog's filter, a comparison."""
    text, policy = json.dumps(ten()), load(ten())
    bodies = [load(ten(number) | {"@id": f"urn:o:{number}"}) for number in range(DISTINCT)]
    offers = [(f"urn:o:{number}", "urn:ds:1", bodies[number % DISTINCT]) for number in range(size.of(OFFERS))]
    pairs = [(bodies[number], bodies[(number * 7 + 1) % DISTINCT]) for number in range(COMPARISONS)]
    calls = size.of(CALLS)
    loads: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in ("decide", "explain", "filter", "compare")}
    if not evaluate(policy, ASKED, NOW).permitted:
        raise RuntimeError("the policy of the measurement has to permit")
    for _ in range(size.rounds):
        loads.append(_each(calls, lambda: json.loads(text)))
        found["decide"].append(_each(calls, lambda: evaluate(policy, ASKED, NOW)))
        found["explain"].append(_each(calls, lambda: evaluate(policy, ASKED, NOW).to_json()))
        found["filter"].append(_each(1, lambda: visible(offers, ASKED, NOW)))
        found["compare"].append(_middle(pairs))
    short = f"only {size.of(OFFERS):,} of {OFFERS:,} offers" if size.of(OFFERS) < OFFERS else ""
    note = f"{len(text):,} bytes of policy, json.loads {sorted(loads)[len(loads) // 2]:.1f} µs"
    return {
        "policy-decision": Found(found["decide"], loads, note),
        "policy-explained": Found(found["explain"], loads),
        "policy-filter-10000": Found(found["filter"], loads, f"{DISTINCT} distinct policies", fault=short),
        "policy-compare": Found(found["compare"], loads, f"median of {len(pairs)} pairs"),
    }


def _each(calls: int, call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    begun = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - begun) / calls * MICRO


def _middle(pairs: list[tuple[Policy, Policy]]) -> float:
    """Microseconds of the median comparison, of policies that were not compared before."""
    times = []
    for one, other in pairs:
        fresh = load(one.document), load(other.document)
        begun = perf_counter()
        compare(*fresh)
        times.append((perf_counter() - begun) * MICRO)
    return sorted(times)[len(times) // 2]
