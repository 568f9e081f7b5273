"""`connector explain`: why a negotiation or a transfer was decided as it was, rule by rule, and what the other side said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from connector.cli import policy_text, show
from connector.cli.session import Common, ask
from connector.client.meant import known, process_of

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import Explained

Language = Literal["en", "zh"]
YES, NO, OPEN = "✓", "✗", "?"
MARKS = {"permit": YES, "permit-with": YES, "deny": NO, "unknown": OPEN}
STATES = {"satisfied": YES, "unsatisfied": NO, "unknown": OPEN}
ABOUT = {"action": "the action", "target": "the target", "assignee": "the party"}
GROUPS = {"and": "all of these", "or": "one at least of these", "xone": "exactly one of these", "andSequence": "all of these in this order"}
WHEN = {"pre": " before the use", "with": " with the use", "post": " after the use"}
NOT_KNOWN = "CONSTRAINT_UNKNOWN"  # the code of a ground whose value is still to be known
MONEY = "payAmount"  # of which a number says nothing without its currency
CHINESE = {
    "negotiation": "协商",
    "transfer": "传输",
    "catalog": "目录",
    "we are the": "我方是",
    "consumer": "使用方",
    "provider": "提供方",
    "peer": "对方",
    "state": "状态",
    "dataset": "数据集",
    "agreement": "协议",
    "decided here": "本方的决定",
    "the terms of the other side differ from ours": "对方的条款与我方的不同",
    "what we offered instead differs from what was asked for": "我方改提的条款与对方请求的不同",
    "nothing was decided here, and the peer has given no reason: whether it may be is the peer's to decide":
        "本方未作决定，对方也未说明理由：是否允许由对方决定",
    "the terms that were judged are not here any more: their offer was withdrawn or replaced":
        "当时评判的条款已不在此：其要约已撤回或被替换",
    "the terms in plain words": "条款的通俗表述",
    "permit": "允许",
    "permit-with": "附义务允许",
    "deny": "拒绝",
    "unknown": "未定",
    " at {}": "，{}",
    "the policy is too large for every constraint to be kept; the reasons name those that decided":
        "策略过大，未保留每项条件；理由中列出起决定作用的条件",
    "{} used, {} reserved": "已用{}，预留{}",
    "{} of {} used, {} reserved": "已用{}/{}，预留{}",
    "it would be permitted if": "满足以下条件即可获允许",
    "next change: {}": "下一次变化：{}",
    "time alone changes nothing": "仅随时间推移不会改变",
    "rule {}": "规则 {}",
    "at {}": "位置 {}",
    "; found {}": "；实际为 {}",
    " with {} used": "（此前已用{}）",
    "; not known": "；尚不可知",
    ", {}": "，{}",
    "we have told {}": "我方已告知 {}",
    "said by {}": "{} 的说明",
    "a message of ours was not taken by {}": "{} 未接受我方的一条消息",
    "no code": "无代码",
    "no reason was given": "未说明理由",
    "the action": "该行为",
    "the target": "该标的",
    "the party": "该参与方",
    ": it is not about {}": "：不涉及{}",
    "permission": "许可",
    "prohibition": "禁止",
    "obligation": "义务",
    "rule": "规则",
    "applies": "适用",
    "does not apply": "不适用",
    "may apply": "可能适用",
    "grants": "授权",
    "does not grant": "不授权",
    "may grant": "可能授权",
    "inactive": "未生效",
    "pending": "待履行",
    "fulfilled": "已履行",
    "overdue": "已逾期",
    "remediated": "已补救",
    "all of these": "以下全部",
    "one at least of these": "以下至少一项",
    "exactly one of these": "以下恰好一项",
    "all of these in this order": "以下全部，依此顺序",
    "a constraint that is not understood ({})": "无法理解的条件（{}）",
    "duty to {}": "义务：{}",
    " or ": " 或 ",
    " by {}": "，由 {} 履行",
    " before the use": "，使用前",
    " with the use": "，使用时",
    " after the use": "，使用后",
    ", due {}": "，期限 {}",
    ", and the use waits for it": "，履行前不得使用",
    "to be on record: {}": "须有记录：{}",
    " where {}": "，且{}",
    " and ": "，",
    " on {}": "，针对 {}",
    " with {}": "，对方 {}",
    "from this use on: {}": "自此次使用起：{}",
    "still to be known: {}": "尚待查明：{}",
    "known: {}": "已知：{}",
    "declared": "由其声明",
    "identity": "其身份",
    "claims": "他人担保",
    "meter": "计量所得",
    "log": "来自记录",
    "clock": "时钟",
    "contract": "合同约定",
    "Fulfilled": "已履行",
    "Violated": "已违反",
    "error": "错误",
    "warning": "警告",
    "the policy": "整个策略",
}  # fmt: skip
CHINESE_OPERATORS = {
    "eq": "为",
    "neq": "不为",
    "lt": "<",
    "lteq": "<=",
    "gt": ">",
    "gteq": ">=",
    "isAnyOf": "为其中之一：",
    "isNoneOf": "不为其中任一：",
    "isAllOf": "为全部：",
    "isA": "属于",
    "isPartOf": "是其一部分：",
    "hasPart": "包含",
}
STEP = 2  # blanks of one level of the tree
DEPTH = 8  # of nested conditions that are shown; a policy that the connector takes is flatter

Lines = Iterator[tuple[int, str]]  # how deep, and what


def explain(pid: str, *, lang: Annotated[Language, Parameter()] = "en", common: Common | None = None) -> None:
    """Show why a negotiation or a transfer was decided as it was, on both sides.

    Each rule and constraint with what it expects and what was found, duties, the next change, what would have been right, and what the
    other side has said.

    Parameters
    ----------
    pid
        as the lists show it, or `latest` for the newest
    lang
        language of everything but names, and of what the peer has said: that stays as it was said
    """
    common = common or Common()

    async def work(client: ManagementClient) -> Explained:
        found = await known(client, await process_of(client, pid))
        return await client.decision("transfers" if found.kind == "transfer" else "negotiations", found.pid, language=lang)

    found = ask(common, work)
    if common.json:
        show.document(found)
        return
    say = Telling(lang).say
    who = {say(found.kind): found.pid, say("we are the"): say(found.role), say("peer"): found.peer, say("state"): found.state}
    show.facts(who | {say("dataset"): found.dataset, say("agreement"): found.agreement})
    for depth, text in explained(found, lang):
        show.line(text, indent=STEP * depth)


def explained(found: Explained, lang: Language = "en") -> Lines:
    """Everything that is known about the decision, as lines."""
    telling = Telling(lang, held_by(found.plain), states_of(found.decision), texts_of(found.plain), found.told)
    say = telling.say
    if found.decision is not None:
        yield 0, ""
        yield 0, say("decided here")
        yield from telling.decided(found.decision, 1)
    if found.changes:
        yield 0, ""
        yield 0, say("the terms of the other side differ from ours")
        yield from ((1, found.told.get(change, change)) for change in found.changes)
    if found.instead:
        yield 0, ""
        yield 0, say("what we offered instead differs from what was asked for")
        yield from ((1, found.told.get(change, change)) for change in found.instead)
    if found.refusal is not None:
        yield 0, ""
        yield from telling.refused(found.refusal, found.peer)
    if found.decision is None and found.refusal is None:
        yield 0, ""
        yield 0, say("nothing was decided here, and the peer has given no reason: whether it may be is the peer's to decide")
    yield 0, ""
    if found.terms is None:
        yield 0, say("the terms that were judged are not here any more: their offer was withdrawn or replaced")
        return
    yield 0, say("the terms in plain words")
    sentences = found.plain.get("sentences", ()) if found.plain is not None else (policy_text.summary(found.terms),)
    yield from ((1, sentence) for sentence in sentences)


def held_by(plain: Mapping[str, Any] | None) -> dict[str, str]:
    """Who holds each constraint, by its path."""
    return {one["path"]: one["held_text"] for one in plain.get("conditions", ())} if plain is not None else {}


def texts_of(plain: Mapping[str, Any] | None) -> dict[str, str]:
    """What each constraint says in plain words, by its path."""
    return {one["path"]: one["text"] for one in plain.get("conditions", ())} if plain is not None else {}


def states_of(decision: Mapping[str, Any] | None) -> dict[str, str]:
    """How each constraint of a decision stood, by its path."""
    waiting = [node for rule in (decision or {}).get("rules", ()) for node in (*rule.get("refinements", ()), *rule.get("constraints", ()))]
    states = {}
    while waiting:
        node = waiting.pop()
        states[node.get("path", "")] = node.get("state", "")
        waiting.extend(node.get("children", ()))
    return states


def finding_line(finding: Mapping[str, Any], lang: Language = "en", told: Mapping[str, str] | None = None) -> str:
    """A finding about a policy, with its remedy: as `told` says it, else as they were written."""
    say, said = Telling(lang).say, f"{finding.get('message')}; {finding.get('fix')}"
    said = (told or {}).get(said, said)
    return f"{say(finding.get('severity', 'error'))} {finding.get('code')} {say('at {}', finding.get('path') or say('the policy'))}: {said}"


@dataclass(frozen=True, slots=True)
class Telling:
    """Tells decisions in a language. By the path of a constraint: who holds it (`held`), how it stood (`states`), and what it says in plain
    words of that language (`texts`). `told` are whole sentences of ours in it."""

    lang: Language = "en"
    held: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    def say(self, text: str, *values: object) -> str:
        """A phrase in the language, with values in its places; a word of the standards has no translation and stays."""
        told = CHINESE.get(text, text) if self.lang == "zh" else text
        return told.format(*values) if values else told

    def decided(self, decision: Mapping[str, Any], depth: int = 0) -> Lines:
        """A stored decision: the result, its reasons, the tree of rules, duties, counters, the next change, near misses, findings."""
        say = self.say
        stage = f" ({say(decision['stage'])})" if decision.get("stage") else ""
        at = say(" at {}", show.moment(decision.get("at"))) if decision.get("at") else ""
        result, code = str(decision.get("result")), decision.get("code")
        yield depth, f"{MARKS.get(result, OPEN)} {say(result)}{f' {code}' if code else ''}{at}{stage}"
        yield from ((depth + 1, self.told.get(reason, reason)) for reason in decision.get("reason", ()))
        for rule in decision.get("rules", ()):
            yield from self._rule(rule, depth)
        if decision.get("abridged"):
            yield depth, say("the policy is too large for every constraint to be kept; the reasons name those that decided")
        for operand, fact in decision.get("facts", {}).items():
            yield depth, self._fact(operand, fact)
        for leaf in decision.get("residual", ()):
            yield depth, say("still to be known: {}", self._leaf(leaf))
        for duty in decision.get("duties", ()):
            yield depth, self._duty(duty)
            if "how_to_fulfil" in duty and duty.get("state") not in ("fulfilled", "remediated"):
                yield depth + 1, self._fulfilment(duty["how_to_fulfil"])
        for duty in decision.get("obligations_created", ()):
            yield depth, say("from this use on: {}", self._duty(duty))
        for counter in decision.get("counters", ()):
            used, reserved, limit = counter.get("used", 0), counter.get("reserved", 0), counter.get("limit")
            said = (
                say("{} used, {} reserved", used, reserved) if limit is None else say("{} of {} used, {} reserved", used, limit, reserved)
            )
            name = " ".join(filter(None, (policy_text.short(counter.get("operand")), counter.get("currency"))))
            yield depth, f"{name}: {said} ({counter.get('rule', '')})"
        if misses := decision.get("near_misses", ()):
            yield depth, say("it would be permitted if")
            for miss in misses:
                path, change = miss.get("path"), str(miss.get("change"))
                told = self.told.get(change) or (self.texts.get(str(path)) if self.lang == "zh" else None)
                yield depth + 1, f"{told or change} ({path})"
        until = decision.get("valid_until")
        yield depth, say("next change: {}", show.moment(until)) if until else say("time alone changes nothing")
        for finding in decision.get("findings", ()):
            yield depth, finding_line(finding, self.lang, self.told)

    def grounds(self, grounds: Sequence[Mapping[str, Any]], depth: int) -> Lines:
        """The grounds of a refusal, ours or a peer's, each with the sign that its constraint has in the tree."""
        say = self.say
        for ground in grounds:
            rule, place = ground.get("rule"), ground.get("constraint") or ground.get("path")
            at = (say("rule {}", rule) if rule else "", say("at {}", place) if place else "", ground.get("policy") or "")
            where, said = ", ".join(filter(None, at)), str(ground.get("code", ""))
            if "leftOperand" in ground:
                said = self._asked(ground["leftOperand"], ground, place)
                said += say("; found {}", ", ".join(ground["actual"])) if ground.get("actual") else ""
            mark = STATES.get(self.states.get(place or "", ""), OPEN if ground.get("code") == NOT_KNOWN else NO)
            yield depth, f"{mark} {said} ({where})" if where else f"{mark} {said}"
            if how := ground.get("how_to_fulfil"):
                yield depth + 1, self._fulfilment(how)

    def refused(self, refusal: Mapping[str, Any], peer: str) -> Lines:
        """Who has ended or stopped a process, and why; or that a message of ours was not taken, which neither did."""
        say, by = self.say, refusal.get("by")
        ours = by == "us"
        who = say({"us": "we have told {}", None: "a message of ours was not taken by {}"}.get(by, "said by {}"), peer)
        yield 0, f"{who}: {refusal.get('code') or say('no code')}"
        reasons = refusal.get("reasons") or (say("no reason was given"),)
        yield from ((1, self.told.get(reason, reason) if ours else reason) for reason in reasons)
        # What the peer has said is not of the terms that we judged, so that its places do not stand in our tree.
        yield from (self if ours else Telling(self.lang)).grounds(refusal.get("grounds") or (), 1)

    def _rule(self, rule: Mapping[str, Any], depth: int) -> Lines:
        say, kind, active = self.say, rule.get("kind", "rule"), rule.get("active")
        strange = [say(text) for name, text in ABOUT.items() if not rule.get("matches", {}).get(name, True)]
        if kind == "prohibition":
            mark, said = {True: (NO, "applies"), False: (YES, "does not apply"), None: (OPEN, "may apply")}[active]
        elif kind == "permission":
            mark, said = {True: (YES, "grants"), False: (NO, "does not grant"), None: (OPEN, "may grant")}[active]
        else:
            mark, said = (NO, "overdue") if rule.get("state") == "overdue" else (YES, rule.get("state") or "inactive")
        why = say(": it is not about {}", ", ".join(strange)) if strange else ""
        state = f" ({say(rule['deontic'])})" if rule.get("deontic") in ("Fulfilled", "Violated") else ""
        yield depth, f"{mark} {say(kind)} {rule.get('path', '')} {say(said)}{state}{why}"
        for node in (*rule.get("refinements", ()), *rule.get("constraints", ())):
            yield from self._constraint(node, depth + 1, DEPTH)

    def _constraint(self, node: Mapping[str, Any], depth: int, levels: int) -> Lines:
        say, mark = self.say, STATES.get(node.get("state", ""), OPEN)
        if "children" in node:
            yield depth, f"{mark} {say(GROUPS.get(node.get('operator', ''), str(node.get('operator'))))}"
            if levels:
                for child in node["children"]:
                    yield from self._constraint(child, depth + 1, levels - 1)
            return
        if not node.get("left"):
            yield depth, f"{mark} {self._leaf(node)}"
            return
        found = say("; not known") if node.get("actual") is None else say("; found {}", node["actual"])
        by = say(", {}", self.held[node["path"]]) if node.get("path") in self.held else ""
        yield depth, f"{mark} {self._leaf(node)}{found}{by}"

    def _leaf(self, node: Mapping[str, Any]) -> str:
        """What a constraint asks for; of one that is not understood, where it stands."""
        if not node.get("left"):
            return self.say("a constraint that is not understood ({})", node.get("path"))
        return self._asked(node["left"]["iri"], node, node.get("path"))

    def _fact(self, operand: str, fact: Mapping[str, Any]) -> str:
        """What was known of an operand, and who said it."""
        say, name = self.say, " ".join(policy_text.short(part) for part in operand.split(" "))
        who = [
            say(str(fact.get("source"))),
            fact.get("asserted_by"),
            show.moment(fact["as_of"]) if "as_of" in fact else "",
            fact.get("evidence_ref"),
        ]
        return say("known: {}", f"{name} {', '.join(fact.get('value', ()))} ({', '.join(filter(None, who))})")

    def _fulfilment(self, how: Mapping[str, Any]) -> str:
        """What has to be on record for a duty to be done."""
        say = self.say
        said = say(" and ").join(policy_text.short(action) for action in how.get("action", ()))
        if how.get("refinements"):
            said += say(" where {}", say(" and ").join(self._leaf(leaf) for leaf in how["refinements"]))
        with_whom, by = [*how.get("with", {}).values()], [how["by"]] if how.get("by") else []
        for phrase, names in ((" on {}", how.get("target")), (" with {}", with_whom), (" by {}", by)):
            said += say(phrase, ", ".join(names)) if names else ""
        return say("to be on record: {}", said)

    def _asked(self, left: Any, said: Mapping[str, Any], path: Any) -> str:
        if path in self.texts and (self.lang != "en" or policy_text.short(left) == MONEY):  # names of operands and currencies are in it too
            return self.texts[path]
        words = CHINESE_OPERATORS if self.lang == "zh" else policy_text.OPERATORS
        operator, used = said.get("operator"), self.say(" with {} used", said["status"]) if said.get("status") else ""
        return f"{policy_text.short(left)} {words.get(str(operator), operator)} {', '.join(map(str, said.get('expected') or ()))}{used}"

    def _duty(self, duty: Mapping[str, Any]) -> str:
        say = self.say
        said = say("duty to {}", say(" or ").join(policy_text.short(action) for action in duty.get("action", ())))
        said += say(" by {}", duty["debtor"]) if duty.get("debtor") else ""
        said += f"{say(WHEN.get(duty.get('when', ''), ''))}: {say(str(duty.get('state')))}"
        said += say(", due {}", show.moment(duty["due_by"])) if duty.get("due_by") else ""
        said += say(", and the use waits for it") if duty.get("blocking") else ""
        return f"{said} ({duty.get('path')})"
