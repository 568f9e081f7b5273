"""Policies with prices that the tests of this folder share."""

from datetime import UTC, datetime
from typing import Any

from connector.metering_bills.currencies import CURRENCY
from connector.metering_bills.plans import plan_of
from connector.metering_bills.prices import QIAO, Plan
from connector.odrl import Policy, load
from connector.odrl.values import microseconds
from connector.records.metering import Counts
from tests.odrl_forms.shipped import options

SIGNED = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
NOTHING = Counts()


def instant(*parts: int) -> int:
    found = microseconds(datetime(*parts, tzinfo=UTC))  # type: ignore[misc]
    assert found is not None
    return found


def leaf(left: str, operator: str, right: object, **more: object) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right, **more}


def money(value: str, currency: str = "EUR", operator: str = "eq") -> dict[str, Any]:
    return leaf("odrl:payAmount", operator, {"@value": value, "@type": "xsd:decimal"}, **{"odrl:unit": {"@id": CURRENCY + currency}})


def unit(name: str) -> dict[str, Any]:
    return leaf("odrl:unitOfCount", "eq", {"@id": QIAO + name})


def count(operator: str, number: object) -> dict[str, Any]:
    return leaf("odrl:count", operator, {"@value": str(number), "@type": "xsd:integer"})


def every(period: str) -> dict[str, Any]:
    return leaf(QIAO + "billingPeriod", "eq", {"@value": period, "@type": "xsd:duration"})


AFTER_USE = leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"})


def priced(*refinements: dict[str, Any], constraints: tuple[dict[str, Any], ...] = (AFTER_USE,), **more: object) -> dict[str, Any]:
    action = {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": list(refinements)}
    return {"action": action, **({"constraint": list(constraints)} if constraints else {}), **more}


def price(value: str, name: str, *more: dict[str, Any], currency: str = "EUR") -> dict[str, Any]:
    return priced(money(value, currency), unit(name), *more)


def agreement(*duties: dict[str, Any], permissions: int = 1, **more: Any) -> dict[str, Any]:
    rules = [{"action": "use", "duty": list(duties)} if duties else {"action": "use"} for _ in range(permissions)]
    parties = {"assigner": "did:web:p.example", "assignee": "did:web:c.example", "timestamp": SIGNED.isoformat().replace("+00:00", "Z")}
    return {"@id": "urn:a", "@type": "Agreement", "target": "urn:d", **parties, "permission": rules, **more}


def policy(*duties: dict[str, Any], **more: Any) -> Policy:
    return load(agreement(*duties, **more), options=options())


def plan(*duties: dict[str, Any], **more: Any) -> Plan:
    found = plan_of(policy(*duties, **more))
    assert found is not None
    return found
