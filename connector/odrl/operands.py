"""The left operands of the ODRL 2.2 core vocabulary, and the few names of our own, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.model import Constraint, Event, Fact, Facts, Lapse, Logic, Node, Policy, Window, constraints_of, fact_key
from connector.odrl.registry import CHOICE, CONCEPT, ORDER, Alias, Operand
from connector.odrl.vocabulary import ODRL

PURPOSE: Final = ODRL + "purpose"
DATE_TIME: Final = ODRL + "dateTime"
EVENT: Final = ODRL + "event"
COUNT: Final = ODRL + "count"
UNIT_OF_COUNT: Final = ODRL + "unitOfCount"
PAY_AMOUNT: Final = ODRL + "payAmount"
PERCENTAGE: Final = ODRL + "percentage"
ELAPSED_TIME: Final = ODRL + "elapsedTime"
METERED_TIME: Final = ODRL + "meteredTime"
DELAY_PERIOD: Final = ODRL + "delayPeriod"
TIME_INTERVAL: Final = ODRL + "timeInterval"
POLICY_USAGE: Final = ODRL + "policyUsage"

# The requesting participant. ODRL 2.2 has no left operand for who asks (`recipient` is who receives the result), and an IRI in a domain
# that is not ours would claim an authority that we lack, so these are names. Nor has it one for volume.
PARTICIPANT: Final = "urn:qiao:participant"
BYTE_COUNT: Final = "urn:qiao:byteCount"
RECORD_COUNT: Final = "urn:qiao:recordCount"

TIMES: Final = (DATE_TIME, DELAY_PERIOD, ELAPSED_TIME)  # of which the upper bound is the deadline of a duty
EQUALITY: Final = frozenset({"eq", "neq"})


def _usage(name: str, label: str, zh: str, source: str = "declared", check: str = "declared") -> Operand:
    return Operand(ODRL + name, label, zh, "term", "usage", CONCEPT, source, check, "negotiation")  # type: ignore[arg-type]


def _size(name: str, label: str, zh: str, low: int | None, high: int | None = None, *, low_in: bool = True) -> Operand:
    return Operand(ODRL + name, label, zh, "number", "quantity", ORDER, "declared", "declared", "negotiation", low, high, low_in)


CORE_OPERANDS: Final = (
    Operand(DATE_TIME, "time", "时间", "instant", "time", ORDER, "clock", "measured"),
    Operand(EVENT, "event", "事件", "event", "time", ORDER, "log", "measured", "transfer"),
    Operand(DELAY_PERIOD, "delay", "延迟", "duration", "time", ORDER, "log", "measured", "transfer", 0),
    # "Time period which may be used for exercising": a use takes some, be it a microsecond, and within none nothing can be used.
    Operand(ELAPSED_TIME, "elapsed time", "已用时长", "duration", "time", ORDER, "log", "measured", "agreement", 0, step=1),
    Operand(METERED_TIME, "metered time", "计量时长", "duration", "counter", ORDER, "meter", "measured", "transfer", 0),
    Operand(TIME_INTERVAL, "time since the last use", "距上次使用的时长", "duration", "time", ORDER, "log", "measured", "transfer", 0),
    Operand(COUNT, "count of uses", "使用次数", "number", "counter", ORDER, "meter", "measured", "transfer", 0, step=1, integral=True),
    Operand(PAY_AMOUNT, "amount paid", "支付金额", "number", "counter", ORDER, "meter", "measured", "transfer", 0),
    Operand(PERCENTAGE, "percentage", "百分比", "number", "counter", ORDER, "meter", "measured", "transfer", 0, 100),
    Operand(UNIT_OF_COUNT, "unit of count", "计数单位", "term", "usage", CONCEPT, "declared", "contract-only", "negotiation"),
    _usage("purpose", "purpose", "用途"),
    _usage("recipient", "recipient", "接收方"),
    _usage("industry", "industry", "行业"),
    _usage("product", "product", "产品"),
    _usage("media", "media", "媒介"),
    _usage("deliveryChannel", "delivery channel", "交付渠道"),
    _usage("language", "language", "语言"),
    _usage("fileFormat", "file format", "文件格式"),
    _usage("version", "version", "版本"),
    _usage("systemDevice", "device or system", "设备或系统"),
    _usage("virtualLocation", "virtual location", "虚拟位置"),
    _usage("spatial", "place", "地点"),
    _usage("spatialCoordinates", "coordinates", "坐标"),
    _size("absolutePosition", "absolute position", "绝对位置", 0),
    _size("absoluteSpatialPosition", "absolute spatial position", "绝对空间位置", None),
    _size("absoluteTemporalPosition", "absolute temporal position", "绝对时间位置", 0),
    _size("absoluteSize", "absolute size", "绝对大小", 0, low_in=False),
    _size("relativePosition", "relative position", "相对位置", 0, 100),
    _size("relativeSpatialPosition", "relative spatial position", "相对空间位置", 0, 100),
    _size("relativeTemporalPosition", "relative temporal position", "相对时间位置", 0, 100),
    _size("relativeSize", "relative size", "相对大小", 0, low_in=False),
    _size("resolution", "resolution", "分辨率", 0, low_in=False),
    Operand(PARTICIPANT, "participant", "参与方", "term", "subject", CHOICE, "identity", "verified"),
    Operand(BYTE_COUNT, "bytes", "字节数", "number", "counter", ORDER, "meter", "measured", "transfer", 0, step=1, integral=True),
    Operand(RECORD_COUNT, "records", "记录数", "number", "counter", ORDER, "meter", "measured", "transfer", 0, step=1, integral=True),
)

_SAME: Final = MappingProxyType(dict(zip(sorted(CONCEPT), sorted(CONCEPT), strict=True)))
CORE_ALIASES: Final = tuple(Alias(ODRL + name, ODRL + "systemDevice", _SAME) for name in ("device", "system"))  # deprecated


def facts_of_act(event: Event, operands: Mapping[str, Operand]) -> Facts:
    """What an act says of its operands, by the key of the fact; what cannot be read is left out."""
    facts: dict[str, Fact] = dict(event.amounts)
    if (at := values.microseconds(event.at)) is not None:
        facts[DATE_TIME] = at
    for word, given in event.params.items():
        row = operands.get(word)
        for raw in given:
            unit = str(raw.get("unit", "")) if isinstance(raw, Mapping) else ""
            try:
                facts.setdefault(fact_key(row.iri if row else word, unit), _value(row, raw))
            except PolicyError:
                continue  # a value that cannot be read is not known, and no refinement is satisfied by it
    return facts


def _value(row: Operand | None, raw: object) -> Fact:
    if isinstance(raw, Mapping):
        raw = {key: value for key, value in raw.items() if key != "unit"}
    if row is not None and row.values == "number":
        return values.number(raw)[0]
    if row is not None and row.values == "duration":
        return max(values.exact(raw), int(row.step))
    return frozenset({values.term(raw)}) if row is not None and not row.single else values.term(raw)


def is_use(node: Constraint) -> bool:
    """Whether a constraint says when something is done by the event of the use."""
    return node.operand == EVENT and node.unit == POLICY_USAGE


def is_payment(node: Constraint) -> bool:
    """Whether a constraint says that so much has to be paid, in place of what it may cost at most."""
    return node.operand == PAY_AMOUNT and not (isinstance(node.test, Window) and node.test.start is None and not node.test.negated)


def bounds_time(node: Node) -> bool:
    """Whether a constraint of a duty sets its deadline."""
    return isinstance(node, Constraint) and has_time(node) and isinstance(node.test, Window | Lapse) and node.test.end is not None


def has_time(node: Node) -> bool:
    """Whether a constraint of a duty says from when on or until when it is to be done, or a logical one has such a part."""
    if isinstance(node, Logic):
        return any(has_time(part) for part in node.parts)
    if not isinstance(node, Constraint):
        return False
    timed = node.operand in TIMES and isinstance(node.test, Window | Lapse) and not node.test.negated
    return timed or is_use(node)


def timeless(policy: Policy) -> bool:
    """Whether what a policy says, and all of its explanation, is the same at every instant: it speaks of no time and has no duties,
    which fall due."""
    known: bool | None = policy.memo.get(timeless)
    if known is None:
        operands = policy.registry.operands
        known = policy.memo[timeless] = not policy.dutiful and all(
            isinstance(leaf, Constraint) and operands[leaf.operand].kind != "time" for leaf in constraints_of(policy)
        )
    return known
