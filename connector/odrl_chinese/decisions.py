"""The reasons of a decision in Chinese. A stored decision keeps the sentences that were said when it was taken; this says them again.

What a constraint asks for is told by the plain words of the policy, names and values stay as they are, and a sentence that is not the
engine's is told by its code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from connector.odrl.codes import Code
from connector.odrl.model import DEFAULT_OPTIONS, Options
from connector.odrl_chinese.sentences import told

CODES: Final[Mapping[Code, str]] = MappingProxyType({
    Code.PERMITTED: "已获允许",
    Code.NO_MATCHING_RULE: "没有规则涉及该请求",
    Code.ACTION_NOT_COVERED: "没有许可涵盖该行为",
    Code.PARTY_NOT_COVERED: "没有许可面向该参与方",
    Code.CONSTRAINT_UNSATISFIED: "有条件未满足",
    Code.CONSTRAINT_UNKNOWN: "有条件所需的事实尚不可知",
    Code.NOT_YET_VALID: "尚未到生效时间",
    Code.EXPIRED: "已过有效期",
    Code.PROHIBITED: "该行为被禁止",
    Code.PREDUTY_OPEN: "须先履行的义务尚未履行",
    Code.OBLIGATION_OVERDUE: "有义务已逾期",
    Code.QUOTA_EXHAUSTED: "限额已用尽",
    Code.CONSENT_MISSING: "尚未取得同意",
    Code.CONSENT_WITHDRAWN: "同意已被撤回",
    Code.CREDENTIAL_REVOKED: "已无人为该参与方担保，或其凭证已失效",
    Code.POLICY_VOID_CONFLICT: "规则相互冲突，整个策略无效",
    Code.POLICY_REPLACED: "策略已被另一策略取代",
    Code.AGREEMENT_CLOSED: "协议已被关闭",
    Code.EVALUATION_FAILED: "策略未能评估；这是作出决定的连接器的缺陷，与策略无关",
    Code.OPERAND_UNSUPPORTED: "此处无法核查该左操作数",
    Code.OPERATOR_UNSUPPORTED: "运算符不适用",
    Code.ACTION_UNSUPPORTED: "此处不认识该行为",
    Code.TERM_UNSUPPORTED: "有此处不认识的属性",
    Code.TERM_DROPPED: "上下文未定义该词，读取 JSON-LD 时会丢失",
    Code.TARGET_IN_RULE: "规则中不应写标的",
    Code.TYPE_MISMATCH: "值的类型或写法不符",
    Code.UNIT_MISMATCH: "单位缺失、不符或无法换算",
    Code.EMPTY_SET: "没有给出任何值",
    Code.PROFILE_UNKNOWN: "此处不认识该 ODRL 配置文件",
    Code.MALFORMED: "结构不符合规范",
    Code.LIMIT_EXCEEDED: "超出规模限制",
    Code.FORMAT_UNSUPPORTED: "不支持该格式",
    Code.CONTEXT_UNKNOWN: "手头没有该 JSON-LD 上下文，也不会去获取",
    Code.INHERITANCE_LOOP: "继承成环",
    Code.INHERITANCE_UNKNOWN: "手头没有所继承的策略，也不会去获取",
    Code.REFERENCE_UNRESOLVED: "手头没有所引用的值或规则，也不会去获取",
    Code.ZONE_MISSING: "没有时区，按 UTC 处理",
    Code.IRI_AS_STRING: "字符串被当作其所写的 IRI，其他连接器未必如此",
    Code.CONFLICT_UNSET: "许可与禁止重叠，而策略未说明以何者为准",
    Code.CONFLICTING_TERMS: "用词与 ODRL 或其他部分相矛盾",
    Code.ACTION_MISSING: "没有写行为，因此指任何行为",
    Code.DEPRECATED: "该词已弃用",
    Code.USE_IMPLIES_DISTRIBUTE: "ODRL 的 `use` 包含 `distribute`：可使用者即可转交",
    Code.PROHIBITION_OF_USE: "无条件禁止 `use` 会禁止许可所允许的一切",
    Code.OBLIGATION_NO_DEADLINE: "没有期限的义务永不逾期",
    Code.MONTHS_AS_MINUTES: "该时长以月计，而非以分钟计",
    Code.EQ_AS_LIMIT: "`eq` 只在恰好等于时成立，不是上限",
    Code.PAYMENT_AS_CONDITION: "付款义务中的金额是应付之数，而非义务生效的条件",
    Code.INTERVAL_AS_WINDOW: "`timeInterval` 是距上次使用的时长，不是有效期",
    Code.SEQUENCE_UNORDERED: "未用 `@list`，RDF 会丢失先后顺序",
    Code.POLICY_CONSTRAINT: "策略层面的条件适用于其每条规则",
    Code.DECLARATIVE_ONLY: "只能由合同约束，连接器无法核查",
    Code.UNSATISFIABLE: "任何请求都无法满足",
    Code.TAUTOLOGY: "恒为真，等于没有说明",
    Code.REDUNDANT: "其余条件已包含此要求",
    Code.XONE_OVERLAP: "`xone` 的几个分支可同时成立，那时便都不算数",
    Code.XONE_NEVER: "`xone` 的该分支永远不会是唯一成立的一支",
    Code.SHADOWED: "许可所允许的一切都被禁止",
    Code.DEONTIC_CONFLICT: "同一行为既被许可又被禁止",
    Code.DUTY_PROHIBITED: "必须履行的义务又被禁止",
    Code.DUTY_AFTER_END: "义务要在许可结束之后才能履行",
    Code.ALREADY_OVER: "其时间已过",
    Code.DUPLICATE_RULE: "与另一条规则内容相同",
    Code.CHILD_WIDER: "允许的比所继承的更多",
    Code.CHILD_INCONSISTENT: "与所继承的毫无共同之处",
})  # fmt: skip
# What the engine says behind `Denied: `, and how it reads; a place in braces takes what was said there.
_SENTENCES: Final = tuple((re.compile(pattern, re.DOTALL), zh) for pattern, zh in (
    (r"more than (\d+) values are declared", "声明的值超过{}个"),
    (r"it is not about (`.*`)", "不涉及 {}"),
    (r"it has no permission", "策略中没有许可"),
    (r"no permission covers the action (`.*`)", "没有许可涵盖行为 {}"),
    (r"(`.*`) is no action that is known here; write (`.*`)", "此处不认识行为 {}；请写 {}"),
    (r"(`.*`) is no action that is known here", "此处不认识行为 {}"),
    (r"no permission is about (`.*`)", "没有许可涉及 {}"),
    (r"no permission to (`.*`) is for (`.*`)", "没有面向 {1} 的 {0} 许可"),
    (r"it may forbid what (.*) allows, and so the whole policy is void", "它可能禁止 {} 所允许的，因此整个策略无效"),
    (r"to (`.*`) is prohibited", "禁止 {}"),
    (r"the (?:duty|obligation) to (.*) is overdue", "{} 的义务已逾期"),
    (r"the (?:duty|obligation) to (.*) is done", "{} 的义务已履行"),
    (r"first it is a duty to (.*), and nothing shows that this was done", "须先履行 {} 的义务，而没有任何记录表明已履行"),
    (r"first it is a duty of (<.*>|'.*') to (.*), and nothing shows that this was done",
     "须先由 {} 履行 {} 的义务，而没有任何记录表明已履行"),
    (r"a constraint that is not understood", "有无法理解的条件"),
))  # fmt: skip
_OPENINGS: Final = {"Permitted": "允许", "Denied": "拒绝", "Undecided": "未定"}
_KINDS: Final = {"offer": "要约", "agreement": "协议", "set": "策略", "policy": "策略", "request": "请求", "ticket": "凭票"}
_SAID: Final = re.compile(r"(Permitted|Denied|Undecided)(?: until (\S+))?(?:: (.*))? \(([^()]*(?:\([^()]*\)[^()]*)*)\)\.", re.DOTALL)
_UNKNOWN: Final = re.compile(r"the .* is not known, and it matters whether .*", re.DOTALL)
_SO_THAT: Final = re.compile(r"(first it is a duty .*?) so that .*(, and nothing shows that this was done)", re.DOTALL)
_PROHIBITED: Final = re.compile(r"to (`[^`]*`) is prohibited where .*", re.DOTALL)


def in_chinese(
    decision: Mapping[str, Any],
    refusal: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    others: Iterable[str] = (),
    options: Options = DEFAULT_OPTIONS,
) -> dict[str, str]:
    """Each sentence of a stored decision (`Decision.to_json`), of a refusal (`code`, `reasons`) that went by it, and each of `others` that
    is about terms (`sentences`) -> the same in Chinese.

    `texts` are what constraints ask for, in Chinese, by their paths (`plain`): those without are told by the code of the decision. The
    profiles of `options` say what left operands are called. What has neither a sentence nor a code of ours is left out.
    """
    telling = _Telling(decision, texts or {}, options)
    said_of_terms = told((*others, *(decision.get("reason") or ()), *((refusal or {}).get("reasons") or ())), options)
    found = {**telling.findings, **said_of_terms}
    for miss in decision.get("near_misses", ()):
        found[miss["change"]] = telling.asked(miss["path"]) or telling.part(miss["change"], miss["path"])
    for said, by in ((decision.get("reason"), decision), ((refusal or {}).get("reasons"), refusal or {})):
        for reason in said or ():
            if reason not in found and (zh := telling.reason(reason, CODES.get(by.get("code", ""), ""))):
                found[reason] = zh
    return found


class _Telling:
    """One decision, looked at for what its sentences are about."""

    def __init__(self, decision: Mapping[str, Any], texts: Mapping[str, str], options: Options) -> None:
        self.options = options
        self.code = CODES.get(decision.get("code", ""), "")
        self.texts = texts
        self.actual = {node["path"]: node.get("actual") for node in _nodes(decision) if "path" in node}
        self.findings: dict[str, str] = {}
        for one in decision.get("findings", ()):
            told, remedy = CODES.get(one["code"], one["code"]), f"{one['message']}; {one['fix']}"
            source = f" ({one['source']})" if one.get("source") else ""
            self.findings |= {remedy: told, f"{one['path'] or 'the policy'}{source}: {remedy}": f"{one['path'] or '整个策略'}：{told}"}

    def reason(self, reason: str, otherwise: str) -> str:
        """A whole sentence, with what it opens and where it comes from; `otherwise` is what one of another form comes to."""
        if (match := _SAID.fullmatch(reason)) is None:
            return self.findings.get(reason, otherwise)
        opening, until, text, place = match.groups()
        kind, _, rest = place.partition(" ")
        path = rest[rest.rfind(", /") + 2 :] if ", /" in rest else ""
        said = f"：{self.part(text, path)}" if text else f"，至 {until}" if until else ""
        return f"{_OPENINGS[opening]}{said}（{_KINDS.get(kind, kind)} {rest}）。"

    def asked(self, path: str) -> str:
        """What a constraint asks for; of one that has parts, what each of them does."""
        return self.texts.get(path) or "，".join(text for place, text in self.texts.items() if place.startswith(f"{path}/"))

    def part(self, text: str, path: str) -> str:
        """What a sentence says of one place."""
        if (so := _SO_THAT.fullmatch(text)) is not None:
            how = [said for place, said in self.texts.items() if place.startswith(f"{path}/") and "consequence" not in place[len(path) :]]
            return self.part(so[1] + so[2], path) + (f"（{'，'.join(how)}）" if how else "")
        for pattern, zh in _SENTENCES:
            if (match := pattern.fullmatch(text)) is not None:
                return zh.format(*match.groups())
        asked = self.asked(path)
        if text in self.findings or not asked:
            return self.findings.get(text) or told([text], self.options).get(text) or self.code
        if _UNKNOWN.fullmatch(text):
            return f"尚不可知是否满足：{asked}"
        if (prohibited := _PROHIBITED.fullmatch(text)) is not None:
            return f"禁止 {prohibited[1]}，因为：{asked}"
        actual = self.actual.get(path)
        return f"未满足：{asked}" + (f"；实际为 {actual}" if actual is not None else "")


def _nodes(decision: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The constraints of a decision, however deep they stand."""
    waiting = [node for rule in decision.get("rules", ()) for node in (*rule.get("refinements", ()), *rule.get("constraints", ()))]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.get("children", ()))
