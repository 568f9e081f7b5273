"""A policy in plain words, in English and Chinese: what it permits, forbids and asks for, and who holds each of its conditions.

The words are those of the registry and its profiles; what has no name prints its IRI. Whatever a peer has written is shortened, freed of
control characters and put in quotes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, Literal

from connector.odrl.duties import COMPENSATE
from connector.odrl.model import Action, Constraint, Logic, Node, Number, Opaque, Policy, Rule, Scope
from connector.odrl.operands import COUNT, DATE_TIME, EVENT, PARTICIPANT, PAY_AMOUNT, POLICY_USAGE, UNIT_OF_COUNT
from connector.odrl.registry import Check
from connector.odrl.vocabulary import ABSOLUTE, ODRL, compact
from connector.odrl.words import PHRASES, shown, texts
from connector.odrl_forms.locale_forms import Language, length, listed, number, time
from connector.odrl_forms.sayings import SAID
from connector.values import Value

Held = Check | Literal["not-checked"]

# Who holds a condition: a credential, a meter, the other side's word, the contract alone, or nobody here.
HELD: Final[Mapping[Held, Mapping[Language, str]]] = {
    "verified": {"en": "verified", "zh": "经核验"},
    "measured": {"en": "measured", "zh": "经计量"},
    "declared": {"en": "declared by the other side", "zh": "由对方声明"},
    "contract-only": {"en": "held by the contract alone", "zh": "仅由合同约束"},
    "not-checked": {"en": "not checked by this connector", "zh": "本连接器不检查"},
}
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "refused": (
        "This connector permits nothing under this policy, because it does not understand all of it.",
        "本连接器不能理解该策略的全部内容，因此不据此允许任何使用。",
    ),
    "permission": ("{who} may {what}{how}.", "{who}可以{what}{how}。"),
    "prohibition": ("{who} must not {what}{how}.", "{who}不得{what}{where}。"),
    "nobody": ("Nobody may {what}{how}.", "任何人不得{what}{where}。"),
    "obligation": ("{who} must {what}{how}.", "{who}须{what}{how}。"),
    "pre": ("Before that, {who} must {what}{how}.", "使用前，{who}须{what}{how}。"),
    "with": ("With the use, {who} must {what}{how}.", "使用时，{who}须{what}{how}。"),
    "post": ("Afterwards, {who} must {what}{how}.", "使用后，{who}须{what}{how}。"),
    "remedy": ("If that happens all the same, {who} must {what}{how}.", "如有违反，{who}须{what}{how}。"),
    "consequence": ("If that is not done in time, {who} must also {what}{how}.", "逾期未履行的，{who}还须{what}{how}。"),
    "prohibit": ("If rules clash, prohibitions win.", "规则冲突时以禁止为准。"),
    "permit": ("If rules clash, permissions win.", "规则冲突时以允许为准。"),
    "invalid": ("If rules clash, the whole policy is void.", "规则冲突时整个策略无效。"),
    "unset": (
        "If rules clash, prohibitions win: the policy does not say so, this connector holds it so.",
        "规则冲突时以禁止为准（策略未写明，由本连接器如此处理）。",
    ),
    "anybody": ("Anybody", "任何人"),
    "they": ("they", "使用方"),
    "it": ("it", "该数据"),
    "anything": ("do anything with {}", "以任何方式使用{}"),
    "members": ("members of {}", "{}的成员"),
    "by": ("by {}", "最迟至{}"),
    "so-that": (" (so that {})", "（要求{}）"),
    "price": ("pay {amount} for each {unit}", "按每{unit}{amount}付费"),
    "opaque": ("a condition that is not understood: {} (not checked by this connector)", "无法理解的条件：{}（本连接器不检查）"),
    "used": (" ({} used)", "（已用{}）"),
    "xone": ("exactly one of these holds: {}", "以下恰有一项成立：{}"),
}
# Of the units that a price is for, by the operator of their number.
_BANDS: Final[Mapping[str, tuple[str, str]]] = {
    "gt": (" beyond the first {}", "（超出前{}的部分）"),
    "lteq": (" up to {}", "（至多{}）"),
    "eq": (", {} of them", "（共{}）"),
}
_FUNCTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "compensatedParty": ("paid to {}", "收款方为{}"),
    "compensatingParty": ("paid by {}", "付款方为{}"),
    "consentingParty": ("consent of {}", "同意方为{}"),
    "consentedParty": ("consent given to {}", "被同意方为{}"),
    "informedParty": ("to {}", "告知对象为{}"),
    "informingParty": ("told by {}", "告知方为{}"),
    "trackingParty": ("tracked by {}", "跟踪方为{}"),
    "trackedParty": ("about {}", "被跟踪方为{}"),
    "contractingParty": ("contracted by {}", "发包方为{}"),
    "contractedParty": ("contracted to {}", "承包方为{}"),
    "attributedParty": ("naming {}", "署名方为{}"),
    "attributingParty": ("named by {}", "注明方为{}"),
}
_OF_ONE: Final = {"isAnyOf": "eq", "isNoneOf": "neq"}  # a list of one reads like one
DEPTH_MAX: Final = 6  # of nested conditions in one sentence; the rest is counted


class Condition(Value):
    """A condition of a policy: where it stands in the document, what it says, and who holds it, as a word and in the language asked."""

    path: str
    text: str
    held: Held
    held_text: str


class PlainWords(Value):
    """A policy in plain words: its sentences in the order of its rules, and each condition by itself."""

    sentences: tuple[str, ...]
    conditions: tuple[Condition, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for the management API."""
        return {
            "sentences": list(self.sentences),
            "conditions": [{"path": one.path, "text": one.text, "held": one.held, "held_text": one.held_text} for one in self.conditions],
        }


def plain(
    policy: Policy,
    language: Language = "en",
    *,
    names: Mapping[str, str] | None = None,
    used: Mapping[str, Number] | None = None,
) -> PlainWords:
    """The policy in words.

    `language` is `en` or `zh`; `names` what people call participants and assets, by id; `used` what was used up of a counter, by the key
    of its fact (left operand, and unit behind a space). Never raises.
    """
    speaker = Speaker(policy, language, names or {}, used or {})
    return PlainWords(tuple(speaker.sentences()), tuple(speaker.conditions()))


class Speaker:
    """Says one policy in one language."""

    __slots__ = ("at", "language", "names", "policy", "used")

    def __init__(self, policy: Policy, language: Language, names: Mapping[str, str], used: Mapping[str, Number]) -> None:
        self.policy, self.language, self.names, self.used = policy, language, names, used
        self.at = 0 if language == "en" else 1

    def sentences(self) -> Iterable[str]:
        """One sentence for each rule and duty, and how clashes are settled."""
        policy = self.policy
        if policy.refused:
            yield _TEXTS["refused"][self.at]
        for rule in policy.permissions:
            yield self._rule("permission", rule, rule)
            for duty in rule.duties:
                yield from self._duty(duty.when, duty, rule)
        for rule in policy.prohibitions:
            kind = "prohibition" if rule.assignees or policy.assignees else "nobody"
            yield self._rule(kind, rule, rule)
            for remedy in rule.duties:
                yield from self._duty("remedy", remedy, rule)
        for rule in policy.obligations:
            yield from self._duty("obligation", rule, rule)
        if policy.permissions and policy.prohibitions:
            yield _TEXTS[policy.conflict or "unset"][self.at]

    def conditions(self) -> Iterable[Condition]:
        """Each condition of each rule, with who holds it."""
        waiting: list[Rule] = list(self.policy.rules)
        while waiting:
            rule = waiting.pop(0)
            waiting = [*rule.duties, *waiting]
            for node in (*rule.constraints, *_refinements(rule)):
                yield from self._held(node)

    def _held(self, node: Node) -> Iterable[Condition]:
        if isinstance(node, Logic):
            for part in node.parts:
                yield from self._held(part)
            return
        operand = self.policy.registry.operands.get(node.operand) if isinstance(node, Constraint) else None
        held: Held = "not-checked" if operand is None else operand.check
        yield Condition(node.path, self.condition(node), held, HELD[held][self.language])

    def _duty(self, kind: str, duty: Rule, rule: Rule) -> Iterable[str]:
        yield self._rule(kind, duty, rule)
        for consequence in duty.duties:
            yield self._rule("consequence", consequence, rule)

    def _rule(self, kind: str, rule: Rule, above: Rule) -> str:
        assignees = rule.assignees or (above.assignees if kind == "obligation" else ())
        if assignees:
            who = listed([self._scope(scope) for scope in assignees], self.language, "or")
        elif rule is above and self.policy.assignees:
            who = listed([self._name(party) for party in sorted(self.policy.assignees)], self.language, "or")
        else:
            who = _TEXTS["anybody" if rule is above else "they"][self.at]
        # the sentence of a duty begins with when it is due
        nodes = [node for node in rule.constraints if rule.kind != "duty" or not _tells_when(node)]
        conditions = [self._clause(node, due=rule.kind not in ("permission", "prohibition")) for node in nodes]
        conditions += [_FUNCTIONS[function][self.at].format(self._name(party)) for function, party in rule.functions]
        if self.language == "zh":
            how, where = "".join(f"，{condition}" for condition in conditions), f"（{'，'.join(conditions)}）" if conditions else ""
            return _TEXTS[kind][1].format(who=who, what=self._what(rule), how=how, where=where)
        how = "".join(f", {condition}" for condition in conditions)
        if nodes and (conditions[0].startswith("(") or (isinstance(nodes[0], Constraint) and not conditions[0].startswith("if "))):
            how = how[1:]  # Anybody may use it until 31 Dec 2026 (UTC), if ...
        return _TEXTS[kind][0].format(who=who, what=self._what(rule), how=how)

    def _clause(self, node: Node, *, due: bool) -> str:
        """A condition as a part of a sentence; `due` says that it is of a duty, of which a last instant is the deadline."""
        if not isinstance(node, Constraint):
            return self.condition(node)
        if due and (node.operand, node.operator) == (DATE_TIME, "lteq"):
            return _TEXTS["by"][self.at].format(self._right(node))
        plain = self.language == "zh" or (node.operand, node.operator) in SAID
        return self.condition(node) if plain else f"if {self.condition(node)}"

    def _what(self, rule: Rule) -> str:
        if rule.targets:
            thing = listed([self._scope(scope) for scope in rule.targets], self.language, "or")
        elif self.policy.target is not None and self.policy.target in self.names:
            thing = self._name(self.policy.target, thing=True)
        else:
            thing = _TEXTS["it"][self.at]
        if not rule.actions:
            return _TEXTS["anything"][self.at].replace("{}", thing)
        return listed([self._action(action, thing) for action in rule.actions], self.language, "or")

    def _action(self, action: Action, thing: str) -> str:
        label = self.policy.registry.labels.get(action.iri)
        if action.iri == COMPENSATE and (price := self._price(action.refinements)) is not None:
            return price
        said = (label[self.at] if label else _spelled(action.iri)).replace("{}", thing)
        if label is None:  # the name of an action says where the thing stands; one without a name has it behind
            said = f"{said} {thing}" if self.language == "en" else f"{said}{thing}"
        return said + self._narrowed(action.refinements)

    def _price(self, refinements: Sequence[Node]) -> str | None:
        """So much for each of a unit; None for a payment that is no price."""
        parts = {node.operand: node for node in refinements if isinstance(node, Constraint)}
        amount, unit, count = (parts.get(operand) for operand in (PAY_AMOUNT, UNIT_OF_COUNT, COUNT))
        if amount is None or unit is None or (amount.operator, unit.operator) != ("eq", "eq") or len(parts) < len(refinements):
            return None
        how = _BANDS.get(count.operator) if count is not None else ("", "")
        said = _TEXTS["price"][self.at].format(amount=self._right(amount), unit=self._right(unit))
        said += "" if count is None or how is None else how[self.at].format(self._right(count))
        rest = [node for node in refinements if node not in (amount, unit) and (node is not count or how is None)]
        return said + self._narrowed(rest)

    def _scope(self, scope: Scope) -> str:
        name = self._name(scope.id)
        return (_TEXTS["members"][self.at].format(name) if scope.collection else name) + self._narrowed(scope.refinements)

    def _narrowed(self, refinements: Sequence[Node]) -> str:
        if not refinements:
            return ""
        joint = ", " if self.language == "en" else "，"
        return _TEXTS["so-that"][self.at].format(joint.join(self.condition(node) for node in refinements))

    def condition(self, node: Node, depth: int = 0) -> str:
        """One condition."""
        if isinstance(node, Logic):
            return self._logic(node, depth)
        if isinstance(node, Opaque):
            return _TEXTS["opaque"][self.at].format(_summary(node.text))
        said = SAID.get((node.operand, node.operator))
        right = self._right(node)
        if said is not None:
            text = said[3 + self.at].replace("{}", right)
        else:
            operand = self.policy.registry.operands.get(node.operand)
            operator = _OF_ONE.get(node.operator, node.operator) if len(node.expected) == 1 else node.operator
            phrase = PHRASES[operand.values if operand else "term"][operator]
            name = (operand.label, operand.label_zh)[self.at] if operand else shown(compact(node.operand))
            text = f"{name} {phrase.asked} {right}" if self.language == "en" else f"{name}{phrase.zh}{right}"
        used = self.used.get(node.fact)
        if used is not None or node.used:
            text += _TEXTS["used"][self.at].format(number(*texts((used or 0) + Fraction(node.used or 0))))
        return text

    def _logic(self, node: Logic, depth: int) -> str:
        if depth >= DEPTH_MAX:
            return "…"
        parts = [self.condition(part, depth + 1) for part in node.parts]
        if node.kind == "xone":
            return _TEXTS["xone"][self.at].format(listed([f"({part})" for part in parts], self.language, "or"))
        if node.kind == "andSequence":
            joint = ", and then " if self.language == "en" else "，然后"
            return f"({joint.join(parts)})" if self.language == "en" else f"（{joint.join(parts)}）"
        joined = listed(parts, self.language, "and" if node.kind == "and" else "or")
        return f"({joined})" if self.language == "en" else f"（{joined}）"

    def _right(self, constraint: Constraint) -> str:
        operand = self.policy.registry.operands.get(constraint.operand)
        sort = operand.values if operand else "term"
        if sort == "instant":
            return time(constraint.expected[0], self.language)
        if sort == "duration":
            return length(constraint.expected[0], self.language)
        if sort == "number":
            unit = f" {self._term(constraint.unit, unit=True)}" if constraint.unit else ""
            return number(constraint.expected[0]) + unit
        party = constraint.operand == PARTICIPANT
        parts = [self._name(text) if party else self._term(text) for text in constraint.expected]
        return listed(parts, self.language, "and" if constraint.operator == "isAllOf" else "or")

    def _term(self, text: str, *, unit: bool = False) -> str:
        """A concept by its name, an IRI as it is, a string in quotes; of a unit without a name the last word."""
        label = self.policy.registry.labels.get(text)
        if label is not None:
            return label[self.at].replace("{}", "").strip()
        if text in self.names:
            return shown(self.names[text])
        if unit:
            return shown(text.rstrip("/#").replace("#", "/").rpartition("/")[2] or text)
        return f"<{shown(compact(text))}>" if text.startswith(ABSOLUTE) else f"“{shown(text)}”"

    def _name(self, identifier: str, *, thing: bool = False) -> str:
        named = self.names.get(identifier)
        if named is None:
            return shown(identifier)
        return f"《{shown(named)}》" if thing and self.language == "zh" else shown(named)


def _tells_when(node: Node) -> bool:
    return isinstance(node, Constraint) and node.operand == EVENT and node.unit == POLICY_USAGE


def _refinements(rule: Rule) -> Iterable[Node]:
    for action in rule.actions:
        yield from action.refinements
    for scope in (*rule.targets, *rule.assigners, *rule.assignees):
        yield from scope.refinements


def _spelled(iri: str) -> str:
    """The IRI of an action without a name: of the core its last word, else all of it."""
    return shown(iri.removeprefix(ODRL)) if iri.startswith(ODRL) else f"<{shown(iri)}>"


def _summary(text: str) -> str:
    """What a condition that is not understood is about: its left operand and operator where they can be read."""
    try:
        raw = json.loads(text)
        left, operator = raw["leftOperand"], raw["operator"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return shown(text)
    words = [word["@id"] if isinstance(word, dict) and "@id" in word else word for word in (left, operator)]
    if not all(isinstance(word, str) for word in words):
        return shown(text)
    return f"<{shown(words[0])}> {shown(words[1])}"
