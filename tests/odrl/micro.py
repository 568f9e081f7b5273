"""How long the engine takes, by hand: `python -m tests.odrl.micro`. The best of seven rounds, beside `json.loads` of the same policy."""

import json
from collections.abc import Callable
from timeit import repeat

from connector.odrl import Policy, evaluate, load, same_terms
from tests.odrl.cases import offer, participant, purpose, request, rule, time, world

ROUNDS, CALLS = 7, 2_000
SMALL = offer(
    rule(purpose("isAnyOf", ["research", "quality"]), time("lteq", {"@value": "2030-12-31Z", "@type": "xsd:date"})),
    prohibitions=(rule(action="odrl:distribute"),),
)
TEN = offer(
    rule(
        *[purpose("isAnyOf", ["research", "quality", f"p{n}"]) for n in range(4)],
        *[time("lteq", f"{2030 + n}-12-31T23:59:59Z") for n in range(3)],
        {"or": [participant("neq", "did:web:x.example"), purpose("eq", "quality"), time("gteq", "2020-01-01Z")]},
    )
)
NOW = world()


def microseconds(call: Callable[[], object], calls: int = CALLS) -> float:
    return min(repeat(call, number=calls, repeat=ROUNDS)) / calls * 1e6


def report(name: str, document: dict[str, object]) -> None:
    text, policy = json.dumps(document), load(document)
    granted, denied, unknown = request("research"), request("marketing"), request(stage="catalog")
    other = load(document)
    rows: dict[str, Callable[[], object]] = {
        "json.loads": lambda: json.loads(text),
        "load": lambda: load(document),
        "evaluate, permit": lambda: evaluate(policy, granted, NOW),
        "evaluate, deny": lambda: evaluate(policy, denied, NOW),
        "evaluate, unknown in the catalog": lambda: evaluate(policy, unknown, NOW),
        "evaluate and reason, deny": lambda: evaluate(policy, denied, NOW).reason(),
        "evaluate and to_json, permit": lambda: evaluate(policy, granted, NOW).to_json(),
        "evaluate and to_json, deny": lambda: evaluate(policy, denied, NOW).to_json(),
        "same_terms": lambda: same_terms(policy, other),
    }
    reference = microseconds(rows["json.loads"])
    print(f"{name}, {len(text)} bytes")
    for row, call in rows.items():
        took = microseconds(call)
        print(f"  {row:34} {took:8.2f} us  {took / reference:6.2f} x json.loads")


def page() -> None:
    """One catalog page: a hundred policies, each with bounds of its own, for one requester."""
    policies: list[Policy] = [
        load(offer(rule(purpose("neq", f"p{n}"), time("lteq", f"2030-12-31T00:{n % 60:02}:00Z")))) for n in range(100)
    ]
    asked = request("research", stage="catalog")
    took = microseconds(lambda: [evaluate(policy, asked, NOW) for policy in policies], 100)
    print(f"a catalog page of 100 policies      {took / 1000:8.3f} ms")


if __name__ == "__main__":
    report("small policy (2 constraints, 1 prohibition)", SMALL)
    report("policy of ten constraints", TEN)
    page()
