"""What people say for the constraints that they write most: one row for the text form, for English and for Chinese.

`{}` is the place of the right operand. A constraint without a row reads `<left operand> <phrase of the operator> <right operand>`, by the
table of connector/odrl/words.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from connector.odrl.operands import (
    BYTE_COUNT,
    COUNT,
    DATE_TIME,
    DELAY_PERIOD,
    ELAPSED_TIME,
    EVENT,
    METERED_TIME,
    PURPOSE,
    RECORD_COUNT,
    TIME_INTERVAL,
)
from connector.odrl.vocabulary import ODRL


class Saying(NamedTuple):
    """How one operator of one left operand is said."""

    operand: str
    operator: str
    text: str
    en: str
    zh: str


_AMOUNTS: Final = (
    ("lt", "fewer than {}", "少于{}"),
    ("lteq", "at most {}", "最多{}"),
    ("gt", "more than {}", "多于{}"),
    ("gteq", "at least {}", "至少{}"),
    ("eq", "exactly {}", "恰好{}"),
    ("neq", "not exactly {}", "并非恰好{}"),
)
_COUNTED: Final = ((COUNT, "times", "次"), (BYTE_COUNT, "bytes", "字节"), (RECORD_COUNT, "records", "条记录"))

SAYINGS: Final = (
    Saying(PURPOSE, "isAnyOf", "for purpose in {}", "for {}", "用于{}"),  # taken as well; what is written is the shorter one below
    Saying(PURPOSE, "eq", "for {}", "for {}", "用于{}"),
    Saying(PURPOSE, "isAnyOf", "for {}", "for {}", "用于{}"),
    Saying(PURPOSE, "isA", "for kinds of {}", "for any kind of {}", "用于{}及其下位用途"),
    Saying(PURPOSE, "neq", "not for {}", "not for {}", "不用于{}"),
    Saying(PURPOSE, "isNoneOf", "not for {}", "not for {}", "不用于{}"),
    Saying(ODRL + "spatial", "eq", "in {}", "in {}", "在{}使用"),
    Saying(ODRL + "spatial", "isAnyOf", "in {}", "in {}", "在{}使用"),
    Saying(ODRL + "spatial", "neq", "not in {}", "not in {}", "不在{}使用"),
    Saying(ODRL + "spatial", "isNoneOf", "not in {}", "not in {}", "不在{}使用"),
    Saying(DATE_TIME, "lteq", "until {}", "until {}", "至{}为止"),
    Saying(DATE_TIME, "lt", "before {}", "before {}", "在{}之前"),
    Saying(DATE_TIME, "gteq", "from {}", "from {} on", "自{}起"),
    Saying(DATE_TIME, "gt", "after {}", "after {}", "在{}之后"),
    Saying(DATE_TIME, "eq", "on {}", "on {}", "在{}"),
    Saying(DATE_TIME, "neq", "not on {}", "not on {}", "不在{}"),
    Saying(EVENT, "lt", "before event {}", "before {}", "在{}之前"),
    Saying(EVENT, "lteq", "before or during event {}", "before or during {}", "在{}之前或期间"),
    Saying(EVENT, "eq", "during event {}", "at the time of {}", "在{}之时"),
    Saying(EVENT, "gteq", "during or after event {}", "during or after {}", "在{}期间或之后"),
    Saying(EVENT, "gt", "after event {}", "after {}", "在{}之后"),
    Saying(EVENT, "neq", "outside event {}", "outside of {}", "在{}以外的时间"),
    Saying(ELAPSED_TIME, "lteq", "for at most {}", "for at most {}", "期限最长{}"),
    Saying(ELAPSED_TIME, "lt", "for less than {}", "for less than {}", "期限不足{}"),
    Saying(ELAPSED_TIME, "gteq", "for at least {}", "after {} at least", "满{}之后"),
    Saying(METERED_TIME, "lteq", "for at most {} of use", "for at most {} of use per agreement", "每份协议实际使用最长{}"),
    Saying(METERED_TIME, "lt", "for less than {} of use", "for less than {} of use per agreement", "每份协议实际使用不足{}"),
    Saying(DELAY_PERIOD, "lteq", "within {}", "within {}", "在{}内"),
    Saying(DELAY_PERIOD, "gteq", "after waiting {}", "after waiting {}", "等待{}之后"),
    Saying(TIME_INTERVAL, "gteq", "at intervals of {}", "at intervals of {} at least", "间隔至少{}"),
    *(
        # Each agreement is counted by itself: who makes two has twice as much.
        Saying(operand, operator, f"{english} {noun}", f"{english} {noun} per agreement", f"每份协议{chinese}{chinese_noun}")
        for operand, noun, chinese_noun in _COUNTED
        for operator, english, chinese in _AMOUNTS
    ),
)
SAID: Final = {(saying.operand, saying.operator): saying for saying in SAYINGS}
