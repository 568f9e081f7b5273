"""How long the engine takes, by hand: `python -m tests.odrl.micro`. The best of nine rounds, beside `json.loads` of the same policy.

The promises, which `make bench` keeps for the policy of ten constraints: a decision takes at most 3 times as long as `json.loads`, one
that is told whole at most 12 times; reading a policy takes at most 250 microseconds.
"""

import json
from collections.abc import Callable
from timeit import timeit
from typing import Any

from connector.odrl import Policy, Request, World, evaluate, load, same_terms
from connector.odrl.operands import COUNT
from tests.odrl.cases import NOW as TIME
from tests.odrl.cases import PARTIES, leaf, offer, participant, purpose, request, rule, time, world

ROUNDS, CALLS = 9, 1_000
NOW = world()
SMALL = offer(
    rule(purpose("isAnyOf", ["research", "quality"]), time("lteq", {"@value": "2030-12-31Z", "@type": "xsd:date"})),
    prohibitions=(rule(action="odrl:distribute"),),
)
# As in tests/bench/policies.py: every sort of fact has to be gathered.
LIMIT = leaf("odrl:count", "lteq", {"@value": "100", "@type": "xsd:integer"})
TEN = offer(
    rule(
        purpose("isAnyOf", ["research", "quality", "study-0"]),
        leaf("odrl:recipient", "isNoneOf", ["urn:lab:7", "urn:lab:8"]),
        time("gteq", {"@value": "2026-01-01T00:00:00Z", "@type": "xsd:dateTime"}),
        time("lteq", {"@value": "2030-12-31T23:59:59Z", "@type": "xsd:dateTime"}),
        LIMIT,
        leaf("odrl:spatial", "isAnyOf", ["urn:place:guangzhou", "urn:place:foshan"]),
        participant("neq", "did:web:nobody.example"),
        {"or": [purpose("eq", "quality"), purpose("neq", "marketing"), LIMIT]},
    ),
    **{"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "target": "urn:ds:1"},
)
KNOWN = World(TIME, {"odrl:spatial": ("urn:place:guangzhou",)}, used={COUNT: 3})
DUTIFUL = offer(
    rule(
        purpose("isAnyOf", ["research", "quality"]),
        leaf("odrl:elapsedTime", "lteq", "P30D"),
        duty=[{"action": "odrl:delete", "constraint": [leaf("odrl:delayPeriod", "lteq", "P60D")]}, {"action": "odrl:attribute"}],
    ),
    timestamp="2026-06-01T00:00:00Z",
)


def asked(*purposes: str, **more: Any) -> Request:
    params = {"odrl:recipient": ("urn:lab:1",), **({"odrl:purpose": purposes} if purposes else {})}
    return Request(PARTIES[0], target="urn:ds:1", params=params, **more)


def fastest(rows: dict[str, Callable[[], object]], calls: int = CALLS) -> dict[str, float]:
    """Microseconds of one call, for each row; the rows take turns, so that all of them see the same noise."""
    found = {row: float("inf") for row in rows}
    for _ in range(ROUNDS):
        for row, call in rows.items():
            found[row] = min(found[row], timeit(call, number=calls) / calls * 1e6)
    return found


def report(name: str, document: dict[str, object], known: World = NOW) -> None:
    text, policy = json.dumps(document), load(document)
    granted, denied, unknown = asked("research"), asked("marketing"), asked(stage="catalog")
    other = load(document)
    rows: dict[str, Callable[[], object]] = {
        "json.loads": lambda: json.loads(text),
        "load": lambda: load(document),
        "evaluate, permit": lambda: evaluate(policy, granted, known),
        "evaluate, deny": lambda: evaluate(policy, denied, known),
        "evaluate, unknown in the catalog": lambda: evaluate(policy, unknown, known),
        "evaluate, several purposes": lambda: evaluate(policy, asked("research", "quality", "marketing"), known),
        "evaluate and reason, deny": lambda: evaluate(policy, denied, known).reason(),
        "evaluate and to_json, permit": lambda: evaluate(policy, granted, known).to_json(),
        "evaluate and to_json, deny": lambda: evaluate(policy, denied, known).to_json(),
        "same_terms": lambda: same_terms(policy, other),
    }
    print(f"{name}, {len(text)} bytes, {evaluate(policy, granted, known).result}")
    took = fastest(rows)
    for row, each in took.items():
        print(f"  {row:34} {each:8.2f} us  {each / took['json.loads']:6.2f} x json.loads")


def page() -> None:
    """One catalog page: a hundred policies, each with bounds of its own, for one requester."""
    policies: list[Policy] = [
        load(offer(rule(purpose("neq", f"p{n}"), time("lteq", f"2030-12-31T00:{n % 60:02}:00Z")))) for n in range(100)
    ]
    one = request("research", stage="catalog")
    took = fastest({"page": lambda: [evaluate(policy, one, NOW) for policy in policies]}, 100)
    print(f"a catalog page of 100 policies      {took['page'] / 1000:8.3f} ms")


if __name__ == "__main__":
    report("small policy (2 constraints, 1 prohibition)", SMALL)
    report("policy of ten constraints", TEN, KNOWN)
    report("agreement with a running duration and two duties", DUTIFUL)
    page()
