"""What is said of terms in Chinese: what one policy says otherwise than another, how two relate, why a process ended or waits.

The sentences are kept as they were said, in English. Each is read here by the grammar by which it was written, and said again: one table
for whole sentences, one for what a constraint asks, by the phrases of connector/odrl/words.py. Names, ids and values stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from connector.odrl.model import DEFAULT_OPTIONS, Options
from connector.odrl.registry import registry_of
from connector.odrl.words import PHRASES

_KINDS: Final = {
    "permission": "许可", "prohibition": "禁止", "obligation": "义务", "duty": "义务", "remedy": "补救义务", "consequence": "后续义务",
}  # fmt: skip
_SIDES: Final = {"request": "请求", "offer": "要约", "first": "前者", "second": "后者", "terms": "条款"}
_AXES: Final = {"action": "行为", "target": "标的", "participant": "参与方", "a constraint that is not understood": "无法理解的条件"}
_JOINTS: Final = {"and": " 且 ", "or": " 或 ", "xone": " 与 ", "andSequence": " 然后 "}
_GROUPS: Final = {"xone": "恰有其一：", "andSequence": "依次："}
CHARS_MAX: Final = 2_000  # of a sentence that is read; ours are shorter
CUT: Final = "……"  # of a sentence that was cut off where it is too long
_OPAQUE: Final = "a constraint that is not understood"
# What is left of an axis, beside the phrases of operators.
_SPANS: Final = {
    "is anything": "任意", "is not stated": "未说明", "is something that no vocabulary names": "为任何词表都未列出的某物",
}  # fmt: skip
_FAILED: Final = {phrase.instead: phrase.zh for phrases in PHRASES.values() for phrase in phrases.values()}
_ASKED: Final = {phrase.asked: phrase.zh for phrases in PHRASES.values() for phrase in phrases.values()}

# A sentence -> the same in Chinese. {t} is a rule, {c} a condition, {w} what comes with a rule, {s} what is left of an axis, {a} an act,
# {d} a duty, {n} what a side is called, {l} a left operand, {k} a kind of rule, {j} names, {u} a unit, {x} a sentence, {f} a condition
# that is not met, {h} one that is, {v} anything: it stays as it is.
# Each place keeps its number.
_SENTENCES: Final = (
    ("profile {v} instead of {v}", "配置文件由 {1} 改为 {0}"),
    ("conflicts are decided by `{v}` instead of `{v}`", "规则冲突时的处理由 `{1}` 改为 `{0}`"),
    ("properties that are not understood here differ", "此处无法理解的属性不同"),
    ("{t} asks that {c}, and no longer that {c}", "{0}要求{1}，不再要求{2}"),
    ("{t} no longer asks that {c}", "{0}不再要求{1}"),
    ("{t} also asks that {c}", "{0}还要求{1}"),
    ("{t} no longer asks for {t}{w}", "{0}不再要求履行 {1}{2}"),
    ("{t} also asks for {t}{w}", "{0}还要求履行 {1}{2}"),
    ("{t} is missing{w}", "缺少 {0}{1}"),
    ("{t} is added{w}", "新增 {0}{1}"),
    ("on {l} they have nothing in common: for the {n} {s}, for the {n} {s}; only the {n} permits {a}",
     "在“{0}”上二者毫无共同之处：{1}：{2}；{3}：{4}；只有{5}允许：{6}"),
    ("on {l} they have nothing in common: for the {n} {s}, for the {n} {s}", "在“{0}”上二者毫无共同之处：{1}：{2}；{3}：{4}"),
    ("they have nothing in common, on no single axis; only the {n} permits {a}", "二者毫无共同之处，但并非只在某一方面；只有{0}允许：{1}"),
    ("they have nothing in common, on no single axis", "二者毫无共同之处，但并非只在某一方面"),
    ("the {n} permits nothing; only the {n} permits {a}", "{0}什么都不允许；只有{1}允许：{2}"),
    ("the {n} permits nothing", "{0}什么都不允许"),
    ("the {n} permits {a}, and the {n} does not", "{0}允许而{2}不允许：{1}"),
    ("the {n} asks for {d}, and the {n} for nothing that covers it", "{0}要求履行 {1}，而{2}中没有与之相当的义务"),
    ("the {n} is not understood here: {v}", "此处无法理解{0}：“{1}”"),
    ("one of the two is not understood here: {v}", "此处无法理解二者之一：“{0}”"),
    ("one of the two is not understood here", "此处无法理解二者之一"),
    ("nobody here can tell whether the duties of the {n} cover those of the {n}", "此处无法断定{0}的义务是否涵盖{1}的义务"),
    ("nobody here can tell whether the {n} covers {d} of the {n}", "此处无法断定{0}是否涵盖{2}中 {1}"),
    ("only the time for it can tell whether the {n} covers {d} of the {n}", "{0}是否涵盖{2}中 {1}，只能由其时间决定"),
    ("that depends on how long the months are, which is known only when the time begins to run",
     "这取决于各月的长短，而期限开始时才可知"),
    ("the two policies are too complex to be compared in the time that there is", "两个策略过于复杂，无法在限定的时间内比较"),
    ("the two were read under different profiles", "二者按不同的配置文件读取"),
    ("the two were read under other profiles than those of the options", "二者按其他配置文件读取"),
    ("the two were signed at different times, and a duration runs from that", "二者签署时间不同，而有期限自签署时起算"),
    ("what the two permit differs in something that is not understood here", "二者所允许的差别在于此处无法理解的内容"),
    ("a constraint that is not understood cannot be judged here", "有此处无法判断的条件"),
    ("no vocabulary says whether a {l} can be both", "没有词表说明一个“{0}”能否同时属于二者"),
    ("{l} is counted in {u} and in {u}, and nobody here can convert them", "“{0}”分别以 {1} 和 {2} 计，此处无法换算"),
    ("{v} has a target of its own, which a rule of DSP 2025-1 cannot have", "{0} 有自己的标的，而 DSP 2025-1 的规则不能有"),
    ("{v} has not one plain action, and DSP 2025-1 has no form for another", "{0} 并非只有一个简单行为，而 DSP 2025-1 没有其他写法"),
    ("{v} is not understood here, so it cannot be written anew", "此处无法理解 {0}，因此无法另写"),
    ("an instant beyond the calendar cannot be written", "超出历法的时刻无法写出"),
    ("the rest of a window has no operator of its own", "时间段的剩余部分没有对应的运算符"),
    ("the rest of a stretch of durations has no operator of its own", "时长范围的剩余部分没有对应的运算符"),
    ("the two are for different parties", "二者面向不同的参与方"),
    ("the two have different values of `{v}`", "二者的 `{0}` 不同"),
    ("there are more than {v} {k}s in it", "其中的{1}超过{0}条"),
    ("what two permissions have in common has no form of its own", "两个许可的共同部分无法单独写出"),
    ("what both permit cannot be written: {x}", "二者共同允许的内容无法写成策略：{0}"),
    ("what was found cannot be shown to be narrower than the {n}: {x}", "无法证明所得条款不宽于{0}：{1}"),
    ("the prices are not those that are acceptable without asking", "价格并非无需询问即可接受的价格"),
    ("they add {d}", "对方增加了 {0}"),
    ("they permit more than was asked for, and what is used is paid for", "所许可的多于所请求的，而使用须付费"),
    ("agreement `{v}` from this offer is used up ({j}), and another has a quota of its own",
     "由此要约订立的协议 `{0}` 的限额（{1}）已用尽，而再订一份会另有限额"),
    ("offer `{v}` of dataset `{v}` is not on offer any more: it was withdrawn or replaced", "数据集 `{1}` 的要约 `{0}` 已撤回或被替换"),
    ("offer `{v}` of dataset `{v}` says something else by now, and these terms do not lie within it",
     "数据集 `{1}` 的要约 `{0}` 现已改变，这些条款不在其范围内"),
    ("nobody vouches for `{v}` any more: it has left the data space, or has no valid key",
     "已无人为 `{0}` 担保：它已离开数据空间，或没有有效密钥"),
    ("the offer is for dataset `{v}`, the negotiation for `{v}`", "要约针对数据集 `{0}`，协商针对 `{1}`"),
    ("the agreement id `{v}` is that of another agreement", "协议标识 `{0}` 属于另一份协议"),
    ("target is `{v}`, it has to be `{v}`", "标的是 `{0}`，应为 `{1}`"),
    ("assigner is `{v}`, it has to be `{v}`", "授权方是 `{0}`，应为 `{1}`"),
    ("assignee is `{v}`, it has to be `{v}`", "被授权方是 `{0}`，应为 `{1}`"),
    ("the agreement has no timestamp in the form of an XSD dateTime", "协议没有 XSD dateTime 形式的时间戳"),
    ("the terms differ from the last offer", "条款与最后的要约不同"),
    ("these terms go beyond the acceptance template that this negotiation was begun with", "这些条款超出了协商开始时的接受模板"),
    ("agreement `{v}` is no longer stored", "协议 `{0}` 已不再保存"),
    ("dataset `{v}` is not published any more; ask its provider", "数据集 `{0}` 已不再发布；请询问其提供方"),
    ("the provider has replaced the terms of dataset `{v}`, also for agreements made before",
     "提供方已替换数据集 `{0}` 的条款，此前订立的协议也受其约束"),
    ("agreement `{v}` as it is stored is not the one that was agreed; restore it from the ledger or a backup",
     "所保存的协议 `{0}` 并非当初订立的协议；请从账本或备份恢复"),
    ("what agreement `{v}` says of prices is not understood", "无法理解协议 `{0}` 中的价格"),
    ("the agreement has ended", "协议已终止"),
    ("nobody decided within {v} s", "{0}秒内无人作出决定"),
    ("nothing was sent from here within {v} s in state {v}", "在状态 {1} 下，本方{0}秒内未发出任何消息"),
    ("nothing came within {v} s in state {v}", "在状态 {1} 下，{0}秒内未收到任何消息"),
    ("the two sides hold different states: here {v} with `{v}` unanswered", "双方状态不一致：本方为 {0}，`{1}` 未获答复"),
    ("the agreement was closed: {v}", "协议已被关闭：{0}"),
    ("the agreement was closed", "协议已被关闭"),
    ("the {l} is not known, and it matters whether {c}", "尚不可知是否满足：{1}"),
    ("to {v} is prohibited where {h}", "禁止 {0}，因为：{1}"),
    ("{f}", "未满足：{0}"),
)  # fmt: skip
_PLACE: Final = re.compile(r"\{([a-z])\}")
_RULE: Final = re.compile(
    rf"the ({'|'.join(_KINDS)}) to (\S+(?: (?:or|and) \S+)*?)(?: for ((?!the )\S+(?:, (?!which |partly |and )\S+)*?))?"
    r"(, partly not understood,)?(?: of (the .+))?",
    re.DOTALL,
)
_ACT: Final = re.compile(r"(\S+)(?: on (\S+))? by (somebody|\S+)(?: with (.+))?", re.DOTALL)
_VALUE: Final = r"(?:'[^']*'|<[^<>]*>|[^\s(),'<>]+)"
_VALUES: Final = re.compile(
    rf"{_VALUE}(?:, (?!and\b)(?!for\b){_VALUE})*(?: <[^<>]*>| [A-Z]{{3}}(?=[\s,)]|$))?(?: with \S+ used|(?: and \d+ more)?)"
)
_USED: Final = re.compile(r" with (\S+) used$")
_MORE: Final = re.compile(r" and (\d+) more$")


class _Row(NamedTuple):
    pattern: re.Pattern[str]
    kinds: tuple[str, ...]
    zh: str


def _row(english: str, zh: str) -> _Row:
    parts, kinds = _PLACE.split(english)[::2], tuple(_PLACE.findall(english))
    places = ["((?:, which asks .+)?)" if kind == "w" else "(.+?)" for kind in kinds]
    text = "".join(re.escape(part) + place for part, place in zip(parts, [*places, ""], strict=True))
    return _Row(re.compile(text, re.DOTALL), kinds, zh)


_ROWS: Final = tuple(_row(*each) for each in _SENTENCES)


def told(sentences: Iterable[str], options: Options = DEFAULT_OPTIONS) -> Mapping[str, str]:
    """Sentence -> the same in Chinese, for those that are ours. The profiles of `options` say what left operands are called; what is of
    another form is left out, and stays as it was said."""
    labels = {row.label: row.label_zh for row in registry_of(options).operands.values()} | _AXES
    telling = _Telling(labels)
    short = (each for each in sentences if len(each) <= CHARS_MAX)
    return MappingProxyType({each: zh for each in short if (zh := telling.sentence(each)) is not None})


class _Telling:
    """The grammar. Each part of it gives None for what it does not read."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True) if label != _OPAQUE)
        self.label = re.compile(f"({names}) ")
        phrases = "|".join(re.escape(phrase) for phrase in sorted(_ASKED, key=len, reverse=True))
        self.leaf = re.compile(f"({names}) ({phrases}) ({_VALUES.pattern})")
        spans = "|".join(re.escape(span) for span in sorted(_SPANS, key=len, reverse=True))
        self.span = re.compile(f"(?:({spans})|({phrases}) (\\d+ actions|{_VALUES.pattern}))")
        self.found = re.compile(f"({names})(?: (.+?))?? ({phrases}) ({_VALUES.pattern})", re.DOTALL)
        instead = "|".join(re.escape(phrase) for phrase in sorted(_FAILED, key=len, reverse=True))
        self.missed = re.compile(f"({names})(?: (.+?))?? ({instead}) ({_VALUES.pattern})", re.DOTALL)
        self.parts: Mapping[str, Callable[[str], str | None]] = {
            "t": self.rule, "c": self.condition, "w": self.comes_with, "s": self.side, "a": self.act, "d": self.rule,
            "n": _SIDES.get, "l": labels.get, "k": _KINDS.get, "v": str, "x": self.sentence,
            "u": lambda text: "无单位" if text == "no unit" else text, "j": lambda text: text.replace(" and ", "和"),
            "f": lambda text: self._value(text, self.missed, _FAILED), "h": lambda text: self._value(text, self.found, _ASKED),
        }  # fmt: skip

    def sentence(self, text: str) -> str | None:
        """A whole sentence."""
        for row in _ROWS:
            if (match := row.pattern.fullmatch(text)) is None:
                continue
            parts = [self.parts[kind](part) for kind, part in zip(row.kinds, match.groups(), strict=True)]
            if None not in parts:
                return row.zh.format(*parts)
        return None

    def rule(self, text: str) -> str | None:
        """`the duty to delete for did:web:x of the permission to use`."""
        if text == "a duty":
            return "某项义务"
        if (match := _RULE.fullmatch(text)) is None:
            return None
        kind, acts, whom, opaque, owner = match.groups()
        above = "" if owner is None else self.rule(owner)
        if above is None:
            return None
        said = re.sub(" (or|and) ", lambda found: "或" if found[1] == "or" else "和", acts)
        for_whom = f"（面向 {whom.replace(', ', '、')}）" if whom else ""
        return f"{above}{'之下' if above else ''} {said} 的{_KINDS[kind]}{for_whom}{'（部分无法理解）' if opaque else ''}".lstrip()

    def condition(self, text: str) -> str | None:
        """Conditions that all count, each with its parts."""
        found = self._joined(text, 0)
        return found[0] if found is not None and found[1] == len(text) else None

    def _joined(self, text: str, at: int) -> tuple[str, int] | None:
        """Conditions with one word between them, from a place on -> what they say, and where they end."""
        said: list[str] = []
        joint = ""
        while True:
            if (found := self._one(text, at)) is None:
                return (
                    ("".join([_GROUPS.get(joint, ""), _JOINTS.get(joint, "").join(said), CUT]), len(text)) if text.endswith("…") else None
                )
            said.append(found[0])
            at = found[1]
            if (more := re.compile(r" and (\d+) more(?=\)|$)").match(text, at)) is not None:
                said[-1] += f"等（另有{more[1]}项）"
                at = more.end()
            match = re.compile(r" (and|or|xone|andSequence) ").match(text, at)
            if match is None or (joint and match[1] != joint):
                return _GROUPS.get(joint, "") + _JOINTS.get(joint, "").join(said), at
            joint, at = match[1], match.end()

    def _one(self, text: str, at: int) -> tuple[str, int] | None:
        if text.startswith(_OPAQUE, at):
            return _AXES[_OPAQUE], at + len(_OPAQUE)
        if text.startswith("(", at):
            found = self._joined(text, at + 1)
            if found is None or text.startswith(")", found[1]):
                return found and (f"（{found[0]}）", found[1] + 1)
            return (f"（{found[0]}", len(text)) if found[0].endswith(CUT) else None
        if (match := self.leaf.match(text, at)) is None:
            if (party := re.compile(r"(\w+Party) is (\S+?)(?=,| and |$)").match(text, at)) is not None:
                return f"{party[1]} 为 {party[2]}", party.end()
            return None
        return f"{self.labels[match[1]]}{_ASKED[match[2]]}{_listed(match[3])}", match.end()

    def _value(self, text: str, pattern: re.Pattern[str], phrases: Mapping[str, str]) -> str | None:
        """A condition with the value that was found for it: `purpose 'marketing' is not one of 'research'`."""
        if (match := pattern.fullmatch(text)) is None:
            return None
        label, actual, phrase, expected = match.groups()
        return f"{self.labels[label]}{phrases[phrase]}{_listed(expected)}" + (f"；实际为 {actual}" if actual else "")

    def comes_with(self, text: str) -> str | None:
        """What a rule asks for: its conditions, and its own duties."""
        if not text:
            return ""
        if not text.startswith(", which asks "):
            return None
        rest, said = text.removeprefix(", which asks "), []
        if rest.startswith("that "):
            found = self._joined(rest, len("that "))
            if found is None:
                return None
            said.append(f"其条件为：{found[0]}")
            rest = rest[found[1] :].removeprefix(", and ")
        while rest:
            cut = self._next(rest)
            one = re.compile(r"for (the .+?)(, which asks .+)?", re.DOTALL).fullmatch(rest[:cut])
            if one is None or (rule := self.rule(one[1])) is None or (more := self.comes_with(one[2] or "")) is None:
                return "，".join(["", *said, CUT]) if rest.endswith("…") else None
            said.append(f"须履行：{rule}{more}")
            rest = rest[cut:].removeprefix(", and ")
        return "，" + "，".join(said)

    @staticmethod
    def _next(text: str) -> int:
        """Where the next duty beside the first one begins: one that a duty asks for in turn is a consequence, and of its own."""
        first = re.match(r"for the (\w+) to", text)
        found = re.compile(rf", and for the {first[1]} to ").search(text) if first is not None else None
        return len(text) if found is None else found.start()

    def side(self, text: str) -> str | None:
        """What is left of an axis: `time is before 2027-01-01T00:00:00Z or is after ...`."""
        for start, zh in (("any ", "任意"), ("no ", "未说明")):
            if text.startswith(start):
                name = self.labels.get(text.removeprefix(start).removesuffix(" stated"))
                return None if name is None else f"{zh}{name}"
        if (match := self.label.match(text)) is None:
            return None
        said, at = [self.labels[match[1]]], match.end()
        while True:
            if (span := self.span.match(text, at)) is None:
                return None
            said.append(_SPANS[span[1]] if span[1] else f"{_ASKED[span[2]]}{_listed(span[3])}")
            at = span.end()
            if at == len(text):
                return "".join(said)
            if text.startswith(" or more", at):
                return "".join([*said, "等"])
            if (joint := re.compile(r" (and|or) ").match(text, at)) is None:
                return None
            said.append(_JOINTS[joint[1]])
            at = joint.end()
            if text.startswith("no ", at):
                return "".join([*said, rest]) if (rest := self.side(text[at:])) is not None else None
            if (again := self.label.match(text, at)) is not None:
                said.append(self.labels[again[1]])
                at = again.end()

    def act(self, text: str) -> str | None:
        """`odrl:use on <urn:x> by <did:web:y> with purpose 'a'`."""
        if (match := _ACT.fullmatch(text)) is None:
            return None
        action, target, who, told = match.groups()
        facts = []
        for fact in re.split(r", (?![^<]*>)", told) if told else ():
            label = self.label.match(fact)
            if fact.startswith("no ") and fact.endswith(" stated"):
                facts.append(f"未说明{self.labels.get(fact[3:-7], fact[3:-7])}")
            elif label is None:
                return None
            else:
                facts.append(f"{self.labels[label[1]]}为 {fact[label.end() :]}")
        whom = "某人" if who == "somebody" else f" {who} "
        on, more = f"对 {target} " if target else "", f"（{'，'.join(facts)}）" if facts else ""
        return f"{whom}{on}进行 {action}{more}".strip()


def _listed(values: str) -> str:
    """Right operands as they are, with what is left out of a list."""
    more = _MORE.search(values)
    listed = values if more is None else f"{values[: more.start()]} 等（另有{more[1]}项）"
    return _USED.sub(r"（此前已用\1）", listed.replace(" actions", " 种行为"))
