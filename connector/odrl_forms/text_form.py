"""The small text form of policies: what people read and write without JSON.

    offer for urn:ds:42
      permit use
        for {research, quality}
        until 2026-12-31Z and at most 100 times
        must delete
          after event odrl:policyUsage
          within 30 days
      forbid distribute
      on conflict forbid

One head, then what counts for all of it: `by` the assigner, `to` the assignees, `signed`, `profile`, `on conflict forbid|permit|void`;
then rules: `permit`, `forbid`, `must`, each with its actions, or `anything`. Below a rule stand `asset`, `to`, `by`, the function of a
party (`informedParty`), its conditions, and `must`: a duty below `permit`, a remedy below `forbid`, a consequence below `must`. `all of`,
`any of`, `exactly one of` and `in this order` group the conditions below them. `action X` and `members of X` take conditions that narrow
them. There are no expressions and no code in it; what it says is read like any other policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from connector.odrl.codes import Code, Finding
from connector.odrl.model import DEFAULT_OPTIONS, Action, Constraint, Logic, Node, Options, Policy, Rule, Scope
from connector.odrl.registry import Registry, registry_of
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl.words import shown
from connector.odrl_forms.text_lines import Line, Mistakes, Token, read_lines
from connector.odrl_forms.text_phrases import constraint_text, id_text, iri_text, name, operand_word, read_constraint, short
from connector.odrl_reading.reading import FUNCTIONS, LEAVES_MAX, nearest, refusal

RDF_VALUE: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"
KINDS: Final = ("Offer", "Agreement", "Set", "Policy", "Request", "Ticket", "Assertion", "Privacy")

_KIND_WORDS: Final = {kind.lower(): kind for kind in KINDS}
_VERBS: Final = {"permit": "permission", "forbid": "prohibition", "must": "obligation"}
_WINS: Final = {"forbid": "odrl:prohibit", "permit": "odrl:perm", "void": "odrl:invalid"}
_WIN_WORDS: Final = {"prohibit": "forbid", "permit": "permit", "invalid": "void"}
# What `must` is below a rule of each kind; a duty is read like an obligation, and nothing follows from a remedy or a consequence.
_BELOW: Final = {"permission": "duty", "prohibition": "odrl:remedy", "obligation": "odrl:consequence"}
_GROUPS: Final = {
    ("all", "of"): "and", ("any", "of"): "or", ("exactly", "one", "of"): "xone", ("in", "this", "order"): "andSequence",
}  # fmt: skip
_GROUP_WORDS: Final = {kind: " ".join(words) for words, kind in _GROUPS.items()}
_SCOPES: Final = {
    "asset": ("target", "odrl:AssetCollection"),
    "to": ("assignee", "odrl:PartyCollection"),
    "by": ("assigner", "odrl:PartyCollection"),
}
_HEADS: Final = ("by", "to", "signed", "profile", "on conflict", *_VERBS)


def parse_text(text: str, *, options: Options = DEFAULT_OPTIONS) -> dict[str, Any]:
    """The tree of a text, as `load` takes it: under the context of DSP 2025-1 wherever an offer of the protocol can say the same, else
    under that of the W3C.

    `options.profiles` say which operands, actions and prefixes there are beside the core. Raises PolicyError whose findings name every
    mistake by line and column, an unknown phrase with the nearest ones that are known.
    """
    mistakes = Mistakes()
    lines = read_lines(text, mistakes)
    if len(lines) != 1 and not mistakes.findings:
        place = lines[1].place() if lines else "line 1, column 1"
        mistakes.note(place, "a text is one policy" if lines else "there is nothing", "begin with `offer`, and indent all else below it")
    mistakes.done()
    tree = _Reader(registry_of(options), mistakes).policy(lines[0])
    mistakes.done()
    return tree


class _Reader:
    """Reads one text."""

    def __init__(self, registry: Registry, mistakes: Mistakes) -> None:
        self.registry, self.mistakes = registry, mistakes
        self.foreign = False  # whether something in it has no place in an offer of DSP 2025-1
        self.phrases = 0

    def policy(self, line: Line) -> dict[str, Any]:
        first, rest = line.tokens[0].text, list(line.tokens[1:])
        kind = _KIND_WORDS.get(first)
        if kind is None:
            self.mistakes.note(line.place(), f"`{shown(first)}` is no kind of policy", f"write `{nearest(first, _KIND_WORDS) or 'offer'}`")
        tree: dict[str, Any] = {"@context": [], "@type": kind}
        if len(rest) > 1 and rest[-2].is_word("for"):
            tree["target"] = self._name(rest[-1])
            rest = rest[:-2]
        if len(rest) > 1:
            self.mistakes.note(line.place(2), "it has more than a kind, an id and a target", "write like `offer urn:o1 for urn:ds:42`")
        elif rest:
            tree["@id"] = self._name(rest[0])
        for below in line.below:
            self._head(below, tree)
        if not tree.keys() & set(_VERBS.values()):
            self.mistakes.note(line.place(len(line.tokens)), "it has no rule", "write one below it, like `permit use`")
        agreed = kind == "Agreement" and tree.keys() >= {"target", "assigner", "assignee"}
        ours = (kind == "Offer" or agreed) and tree.keys() & {"permission", "prohibition"} and not self.foreign
        tree["@context"] = [DSP_CONTEXT] if ours else W3C_CONTEXT
        return tree

    def _head(self, line: Line, tree: dict[str, Any]) -> None:
        first, rest = line.tokens[0], line.tokens[1:]
        if first.is_word(*_VERBS):
            kind = _VERBS[first.text]
            tree.setdefault(kind, []).append(self._rule(line, kind, top=True))
        elif first.is_word("on") and len(rest) == 2 and rest[0].is_word("conflict") and rest[1].text in _WINS:  # noqa: PLR2004
            tree["odrl:conflict"] = {"@id": _WINS[rest[1].text]}
        elif first.is_word("by", "signed") and len(rest) == 1:
            tree["assigner" if first.text == "by" else "timestamp"] = self._name(rest[0])
        elif first.is_word("profile") and rest:
            tree.setdefault("profile", []).extend(self._names(line, rest))
        elif first.is_word("to") and rest:
            names = self._names(line, rest)
            tree["assignee"] = names[0] if len(names) == 1 else names
        else:
            near = nearest(first.text, _HEADS)
            known = "write `permit`, `forbid`, `must`, `to`, `by`, `signed`, `profile` or `on conflict forbid`"
            written = shown(" ".join(token.text for token in line.tokens))
            fix = f"did you mean `{near}`?" if near and near != first.text else known
            self.mistakes.note(line.place(), f"`{written}` has no meaning here", fix)

    def _rule(self, line: Line, kind: str, *, top: bool = False) -> dict[str, Any]:
        rule: dict[str, Any] = {}
        tokens = list(line.tokens[1:])
        if len(tokens) > 1 and tokens[-2].is_word("as"):
            rule["@id"] = self._name(tokens[-1])
            tokens = tokens[:-2]
        anything = len(tokens) == 1 and tokens[0].is_word("anything")
        actions: list[Any] = [self._action(line, token) for token in self._comma(line, tokens)] if tokens and not anything else []
        for below in line.below:
            self._part(below, rule, actions, kind)
        if actions:
            rule["action"] = actions[0] if len(actions) == 1 else actions
        elif not tokens:
            self.mistakes.note(line.place(), "it does not say what", f"write what: `{line.tokens[0].text} use`, or `anything`")
        elif rule.keys() == {"@id"}:  # an id alone would name a rule that stands elsewhere
            rule["@type"] = kind.capitalize() if kind in ("permission", "prohibition") else "Duty"
        moved = rule.keys() & {"target", "assigner"} if top and kind != "obligation" else set()
        plain = isinstance(rule.get("action"), str) if top else "action" in rule
        self.foreign = self.foreign or bool(moved) or not plain
        return rule

    def _part(self, line: Line, rule: dict[str, Any], actions: list[Any], kind: str) -> None:
        first, rest = line.tokens[0], line.tokens[1:]
        if first.is_word("must"):
            below = _BELOW.get(kind, "")
            if not below:
                self.mistakes.note(line.place(), "nothing follows from a remedy or a consequence", "leave it out")
                return
            rule.setdefault(below, []).append(self._rule(line, "obligation" if below == "duty" else below))
        elif first.is_word("action") and len(rest) == 1:
            action, refined = self._action(line, rest[0]), self._conditions(line.below)
            value = {"@id": "odrl:use" if action == "use" else action}
            actions.append({RDF_VALUE: value, "odrl:refinement": refined} if refined else action)
        elif first.is_word(*_SCOPES) and rest:
            key, collection = _SCOPES[first.text]
            rule.setdefault(key, []).extend(self._scopes(line, rest, collection))
        elif first.is_word(*FUNCTIONS) and rest:
            key = f"odrl:{first.text}"
            known = rule.get(key, [])
            names = [*(known if isinstance(known, list) else [known]), *self._names(line, rest)]
            rule[key] = names[0] if len(names) == 1 else names
        else:
            rule.setdefault("constraint", []).extend(self._conditions([line]))

    def _action(self, line: Line, token: Token) -> str:
        actions = self.registry.actions
        for spelling in (f"odrl:{token.text}", token.text, self._name(token)):
            if spelling in actions:
                return "use" if actions[spelling] == ODRL + "use" else short(actions[spelling])
        near = nearest(token.text, [word.removeprefix("odrl:") for word in actions if not word.startswith("http")])
        fix = f"did you mean `{near}`?" if near else "write `use`, or another action of the core or of a profile that is loaded"
        place = f"line {line.number}, column {token.column}"
        self.mistakes.note(place, f"`{shown(token.text)}` is no action that is known here", fix, Code.ACTION_UNSUPPORTED)
        return ""

    def _scopes(self, line: Line, tokens: Sequence[Token], collection: str) -> list[Any]:
        members = len(tokens) > 2 and tokens[0].is_word("members") and tokens[1].is_word("of")  # noqa: PLR2004 - members of X
        names = self._names(line, tokens[2:] if members else tokens)
        refined = self._conditions(line.below)
        if not members and not refined:
            return list(names)
        if len(names) != 1:
            self.mistakes.note(line.place(), "a line with `members of` or conditions names one", "write a line for each")
        more = {"odrl:refinement": refined} if refined else {}
        return [{"@type": collection, "odrl:source": of, **more} if members else {"@id": of, **more} for of in names]

    def _name(self, token: Token) -> str:
        return name(token, self.registry)

    def _names(self, line: Line, tokens: Sequence[Token]) -> list[str]:
        return [self._name(token) for token in self._comma(line, tokens)]

    def _comma(self, line: Line, tokens: Sequence[Token]) -> list[Token]:
        """Tokens with commas between them."""
        found = list(tokens[::2])
        commas = len(tokens) % 2 == 1 and all(token.is_word(",") for token in tokens[1::2])
        if not commas or any(token.kind == "mark" for token in found):
            self.mistakes.note(line.place(), "it is no list", "write names with a comma between them")
            return []
        return found

    def _conditions(self, lines: Iterable[Line]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for line in lines:
            group = _group(line.tokens)
            if group and not line.below:
                self.mistakes.note(line.place(), "nothing stands below it", "indent the conditions that it is about")
            elif group:
                parts: Any = self._conditions(line.below)
                named = {"@id": self._name(line.tokens[-1])} if line.tokens[-2].is_word("as") else {}
                found.append({group: {"@list": parts} if group == "andSequence" else parts, **named})
            else:
                if line.below:
                    self.mistakes.note(line.below[0].place(), "nothing can stand below a condition", "indent it like the condition")
                for tokens in _joined(line.tokens):
                    self.phrases += 1
                    if self.phrases > LEAVES_MAX:
                        what = f"there are more than {LEAVES_MAX} conditions"
                        self.mistakes.note(line.place(), what, "split the policy", Code.LIMIT_EXCEEDED)
                        self.mistakes.done()
                    constraint = read_constraint(tokens, line, self.registry, self.mistakes)
                    found += [] if constraint is None else [constraint]
        return found


def _group(tokens: Sequence[Token]) -> str:
    """The kind of a group of conditions, "" for something else."""
    words = tuple(token.text if token.kind == "word" else "" for token in tokens)
    for start, kind in _GROUPS.items():
        rest = words[len(start) :]
        if words[: len(start)] == start and (not rest or (len(rest) == 2 and rest[0] == "as")):  # noqa: PLR2004 - as X
            return kind
    return ""


def _joined(tokens: Sequence[Token]) -> list[list[Token]]:
    """The phrases between `and`."""
    found: list[list[Token]] = [[]]
    for token in tokens:
        if token.is_word("and"):
            found.append([])
        else:
            found[-1].append(token)
    return found


def render_text(policy: Policy) -> str:
    """The text of a policy; `load(parse_text(text, options), options)` reads it back: the same rules in the same order, with the same
    meaning. Where a rule stood in the document it was read from, and what was doubtful there, is not in the text.

    Raises PolicyError for a policy that says something that is not understood, or that inherits: such a one has no text of its own.
    """
    if policy.refused or policy.inherits:
        what = "it says something that is not understood" if policy.refused else "it inherits from another policy"
        raise refusal("the policy", (Finding(Code.FORMAT_UNSUPPORTED, "", what, "show its document instead"),))
    return "\n".join(_Writer(policy.registry).policy(policy)) + "\n"


class _Writer:
    """Writes one policy, line by line."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def policy(self, policy: Policy) -> Iterable[str]:
        target = f" for {self._id(policy.target)}" if policy.target is not None else ""
        yield policy.kind.lower() + (f" {self._id(policy.id)}" if policy.id else "") + target
        if policy.assigner is not None:
            yield f"  by {self._id(policy.assigner)}"
        if policy.assignees:
            yield f"  to {', '.join(self._id(party) for party in sorted(policy.assignees))}"
        if policy.timestamp is not None:
            yield f"  signed {self._id(policy.timestamp)}"
        for profile in sorted(policy.profiles):
            yield f"  profile {self._id(profile)}"
        for verb, rules in (("permit", policy.permissions), ("forbid", policy.prohibitions), ("must", policy.obligations)):
            for rule in rules:
                yield from self._rule(verb, rule, "  ")
        if policy.conflict:
            yield f"  on conflict {_WIN_WORDS[policy.conflict]}"

    def _id(self, text: str) -> str:
        return id_text(text, self.registry)

    def _rule(self, verb: str, rule: Rule, indent: str) -> Iterable[str]:
        narrowed = any(action.refinements for action in rule.actions)
        actions = "" if narrowed else ", ".join(self._action(action) for action in rule.actions) or "anything"
        yield f"{indent}{verb} {actions}".rstrip() + (f" as {self._id(rule.id)}" if rule.id else "")
        deeper = indent + "  "
        for action in rule.actions if narrowed else ():
            yield f"{deeper}action {self._action(action)}"
            yield from self._conditions(action.refinements, deeper + "  ")
        for word, scopes in (("asset", rule.targets), ("by", rule.assigners), ("to", rule.assignees)):
            yield from self._scopes(word, scopes, deeper)
        for function, party in rule.functions:
            yield f"{deeper}{function} {self._id(party)}"
        yield from self._conditions(rule.constraints, deeper)
        for duty in rule.duties:
            yield from self._rule("must", duty, deeper)

    def _action(self, action: Action) -> str:
        return operand_word(action.iri, self.registry) if action.iri.startswith(ODRL) else iri_text(action.iri, self.registry)

    def _scopes(self, word: str, scopes: Sequence[Scope], indent: str) -> Iterable[str]:
        for scope in scopes:
            yield f"{indent}{word} {'members of ' if scope.collection else ''}{self._id(scope.id)}"
            yield from self._conditions(scope.refinements, indent + "  ")

    def _conditions(self, nodes: Iterable[Node], indent: str) -> Iterable[str]:
        for node in nodes:
            if isinstance(node, Constraint):
                yield indent + constraint_text(node, self.registry)
            elif isinstance(node, Logic):
                yield f"{indent}{_GROUP_WORDS[node.kind]}" + (f" as {self._id(node.id)}" if node.id else "")
                yield from self._conditions(node.parts, indent + "  ")
