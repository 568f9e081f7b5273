"""A policy document -> the immutable policy, with a finding for everything in it that cannot be meant here.

What stands in the document is never skipped: what is not understood becomes a finding, and a policy with a finding of severity `error`
permits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final, Literal, NamedTuple

from connector.odrl.codes import Code
from connector.odrl.duties import has_deadline
from connector.odrl.judges import all_of
from connector.odrl.model import DEFAULT_OPTIONS, Action, Constraint, Logic, Node, Options, Policy, Rule, RuleKind, Scope, conjuncts
from connector.odrl.operands import COUNT, TIME_INTERVAL
from connector.odrl.registry import registry_of
from connector.odrl.vocabulary import CORE_PROFILE, DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl.words import shown
from connector.odrl_reading import exact, inherit
from connector.odrl_reading.constraints import nodes
from connector.odrl_reading.naming import actions, name_once, scopes
from connector.odrl_reading.payments import payments
from connector.odrl_reading.reading import (
    DUTY_LEAVES,
    FUNCTIONS,
    NONE,
    Reading,
    contexts_of,
    fields,
    iri,
    is_tree,
    place,
    refusal,
    several,
    text,
    type_of,
)
from connector.values import replace

CONFLICTS: Final[Mapping[str, Literal["prohibit", "permit", "invalid"]]] = {
    spelling: word  # type: ignore[misc]
    for term, word in (("perm", "permit"), ("prohibit", "prohibit"), ("invalid", "invalid"))
    for spelling in (term, "odrl:" + term, ODRL + term)
}
_PARTS: Final = frozenset({"permission", "prohibition", "obligation"})
_POLICY: Final = _PARTS | {
    "@context", "@id", "@type", "profile", "conflict", "inheritFrom", "isReplacedBy", "target", "assigner", "assignee", "timestamp",
    "action", "constraint",
}  # fmt: skip
_DUTY: Final = frozenset({"@id", "@type", "action", "constraint", "assigner", "assignee", "target", "consequence", *FUNCTIONS})
_OF_POLICY: Final = frozenset({"target", "assigner"})  # in messages of DSP; a rule of these has none
_RULE: Final = frozenset({"@id", "@type", "action", "constraint", "assigner", "assignee", "target"})
_OF_KIND: Final[Mapping[RuleKind, frozenset[str]]] = {
    "permission": _RULE | {"duty"},
    "prohibition": _RULE | {"remedy"},
    "obligation": _DUTY,
    "duty": _DUTY,
    "remedy": _DUTY - {"consequence"},
    "consequence": _DUTY - {"consequence"},
}
_BELOW: Final[Mapping[RuleKind, RuleKind]] = {
    "permission": "duty", "prohibition": "remedy", "obligation": "consequence", "duty": "consequence",
}  # fmt: skip


def load(
    document: object,
    format: str = "json-ld",
    *,
    options: Options = DEFAULT_OPTIONS,
    strict: bool = True,
    parents: Mapping[str, object] | None = None,
    references: Mapping[str, object] | None = None,
    id: str | None = None,
) -> Policy:
    """Read a policy.

    `document` is one policy: a dict of compact JSON-LD under the context of DSP 2025-1 (or none: then that is meant) or of the W3C, or
    text of any JSON-LD or Turtle; `format` is `json-ld` or `turtle`. `options.profiles` say which operands beside the core are known.
    `id` is the IRI of the policy where a document holds several; the others are at hand as its parents. `parents` are further policies
    that `inheritFrom` may name, `references` the values of `rightOperandReference`s, both by IRI: nothing is ever fetched. A document that
    is no policy at all, or beyond a limit, raises PolicyError with all findings; so does one that says something unknown. Without `strict`
    the latter is kept with its `findings`, so that a policy of somebody else can be shown and compared; it permits nothing.
    """
    reading = Reading(registry_of(options), "dsp", references)
    if format != "json-ld" or not is_tree(document):
        from connector.odrl_forms.ovc import as_constraints
        from connector.odrl_rdf.graph import tree

        made = tree(document, format, id=id, beside=reading.registry.contexts)
        document, parents = as_constraints(made.document), {**made.beside, **(parents or {})}
        reading.source = made.source
    policy = _policy(document, reading, parents or {})
    if policy is not None and not policy.refused and exact.fails(document, reading):
        policy = None
    if policy is None or (strict and policy.refused):
        raise refusal(f"policy `{shown(policy.id)}`" if policy and policy.id else "policy", tuple(reading.findings))
    return policy


def _policy(document: object, reading: Reading, parents: Mapping[str, object]) -> Policy | None:
    if not isinstance(document, dict):
        reading.note(Code.MALFORMED, "", "it is no JSON object", "give one policy")
        return None
    _context(document, reading)
    known, opaque = fields(document, _POLICY, "", reading)
    kind = type_of(known, "policy", "", reading)
    agreement = kind == "Agreement" and reading.dialect == "dsp"
    identifier = reading.describe({}, "", iri(known.get("@id"), place(known, "", "@id"), reading) or "")
    inherited = inherit.gather(known, identifier, parents, reading, _policy)
    pushed = {name: known[name] for name in ("target", "assignee") if _says_more(known.get(name))}
    target = None if "target" in pushed else _single(known, "target", reading, required=agreement)
    assigners = _ids(known.get("assigner"), place(known, "", "assigner"), reading, required=agreement)
    assignees = NONE if "assignee" in pushed else _ids(known.get("assignee"), place(known, "", "assignee"), reading, required=agreement)
    for name in (*assignees, *(() if target is None else (target,))):
        name_once(name, None, "", reading)
    if len(assigners) > 1:
        reading.note(Code.MALFORMED, place(known, "", "assigner"), "there are several assigners", "name one")
    if "isReplacedBy" in known:
        reading.note(Code.POLICY_REPLACED, "", "it is replaced by another policy", "use that one")
    shared = _shared(known, pushed, reading)
    rules = {part: (*_rules(known, part, reading, shared), *inherited.rules[part]) for part in ("permission", "prohibition", "obligation")}
    named = assignees or inherited.assignees
    rules["permission"] = tuple(_gated(rule, named, reading) for rule in rules["permission"])
    users = [_users(rule, named) for rule in rules["permission"]]
    rules["obligation"] = tuple(replace(rule, gates=any(_shaped(rule, who, reading) for who in users)) for rule in rules["obligation"])
    if not any(rules.values()):
        reading.note(Code.MALFORMED, "", "it has no rule", "add a `permission`")
    if reading.dialect == "dsp" and rules["obligation"] and not rules["permission"] and not rules["prohibition"]:
        reading.note(Code.MALFORMED, "", "an obligation alone is no policy of DSP 2025-1", "add a `permission`")
    conflict = _conflict(known, reading)
    if conflict and inherited.conflict and conflict != inherited.conflict:
        inherit.contradict(place(known, "", "conflict"), reading)
    conflict = conflict or inherited.conflict
    profiles = _profiles(known.get("profile"), place(known, "", "profile"), reading) | inherited.profiles
    if not reading.ancestors:
        _warn(document, rules, reading)
    if any(finding.code is Code.MALFORMED for finding in reading.findings):
        return None
    return Policy(
        id=identifier,
        kind=kind or ("Set" if reading.dialect == "odrl" else "Offer"),
        target=target or inherited.target,
        assigner=next(iter(assigners), None) or inherited.assigner,
        assignees=assignees or inherited.assignees,
        timestamp=text(known.get("timestamp"), place(known, "", "timestamp"), reading),
        profiles=profiles,
        conflict=conflict,
        permissions=rules["permission"],
        prohibitions=rules["prohibition"],
        obligations=rules["obligation"],
        opaque=opaque,
        findings=tuple(reading.findings),
        refused=any(finding.severity == "error" for finding in reading.findings),
        instants=tuple(sorted(reading.instants)),
        usage=tuple(sorted(reading.usage)),
        measures=tuple(sorted(reading.measures)),
        leaves=reading.leaves,
        registry=reading.registry,
        document=document,
        inherits=inherited.parents,
        parents=parents,
        references=reading.references,
    )


def _context(document: dict[str, Any], reading: Reading) -> None:
    """A document of its own names a context that is known, and is read by that; a parent without one is read by that of its heir. Other
    contexts beside it are not looked at: their words are findings."""
    raw = document.get("@context")
    if raw is None:
        return
    entries = contexts_of(document)
    reading.dialect = "odrl" if W3C_CONTEXT in entries else "dsp"
    if raw in (DSP_CONTEXT, W3C_CONTEXT):
        return
    if not {DSP_CONTEXT, W3C_CONTEXT} & {entry for entry in entries if isinstance(entry, str)}:
        reading.note(Code.TERM_UNSUPPORTED, "/@context", "it is no context that is known here", f'write `["{DSP_CONTEXT}"]`')
    elif not all(isinstance(entry, str) for entry in entries) and reading.dialect == "dsp":
        reading.note(Code.TERM_UNSUPPORTED, "/@context", "DSP messages take no context of their own", f'write `["{DSP_CONTEXT}"]`')


def _single(known: dict[str, Any], name: str, reading: Reading, *, required: bool) -> str | None:
    """The one id of a property; several belong into the rules."""
    path = place(known, "", name)
    found = _ids(known.get(name), path, reading, required=required)
    if len(found) > 1:
        reading.note(Code.MALFORMED, path, f"there are {len(found)} of them", "write one policy for each")
    return next(iter(found), None)


def _ids(raw: object, path: str, reading: Reading, *, required: bool = False) -> frozenset[str]:
    """Ids: a string, {"@id"}, an object with an id, or an array of these. An empty array would address everybody by accident."""
    if raw is None and not required:
        return NONE
    if raw == []:
        reading.note(Code.EMPTY_SET, path, "it names nobody", "name one or leave it out")
    found = set()
    reading.count(len(raw) if isinstance(raw, list) else 0, path)
    for at, entry in several(raw, path) or [(path, None)] * required:
        named = entry.get("@id", entry.get("uid")) if isinstance(entry, dict) else entry
        if (name := iri(named, at, reading, required=True)) is not None:
            found.add(name)
    return frozenset(found) if found else NONE


def _profiles(raw: object, at: str, reading: Reading) -> frozenset[str]:
    found = set()
    reading.count(len(raw) if isinstance(raw, list) else 0, at)
    for path, entry in several(raw, at):
        name = iri(entry, path, reading, required=True)
        full = reading.expand(name) or name if name is not None else None
        if full is None or full == CORE_PROFILE:
            continue
        found.add(full)
        if full not in reading.registry.profiles:  # ODRL 2.2 IM, 3: a processor that does not know the profile must stop
            reading.note(Code.PROFILE_UNKNOWN, path, f"the ODRL profile `{shown(full)}` is not known here", "load it, or leave it out")
    return frozenset(found) if found else NONE


def _conflict(known: dict[str, Any], reading: Reading) -> Literal["", "prohibit", "permit", "invalid"]:
    if "conflict" not in known:
        return ""
    path = place(known, "", "conflict")
    found = CONFLICTS.get(iri(known["conflict"], path, reading) or "")
    if found is None:
        reading.note(Code.CONFLICTING_TERMS, path, "it says not who wins", "write `perm`, `prohibit` or `invalid`, with `odrl:`")
        return ""
    return found


class Shared(NamedTuple):
    """What a policy says for all of its rules (ODRL 2.2 IM, 2.7.1); what a rule says itself goes before, but constraints add up."""

    actions: tuple[Action, ...] | None = None
    targets: tuple[Scope, ...] = ()
    assignees: tuple[Scope, ...] = ()
    constraints: tuple[Node, ...] = ()


ALONE: Final = Shared()


def _says_more(raw: object) -> bool:
    """Whether a target or an assignee of the policy is more than a name: a collection, or a part of one."""
    entries = raw if isinstance(raw, list) else [raw]
    return any(isinstance(entry, dict) and not entry.keys() <= {"@id", "uid"} for entry in entries)


def _shared(known: Mapping[str, Any], pushed: Mapping[str, Any], reading: Reading) -> Shared:
    base = reading.base
    constraints: tuple[Node, ...] = ()
    if "constraint" in known:
        constraints = nodes(known["constraint"], place(known, base, "constraint"), reading)
        message = "a constraint of the policy counts for each of its rules"
        reading.note(Code.POLICY_CONSTRAINT, place(known, base, "constraint"), message, "write it into the rules", "warning")
    return Shared(
        actions(known["action"], place(known, base, "action"), reading) if "action" in known else None,
        scopes(pushed.get("target"), "asset", place(known, base, "target"), reading),
        scopes(pushed.get("assignee"), "party", place(known, base, "assignee"), reading),
        constraints,
    )


def _rules(known: dict[str, Any], kind: RuleKind, reading: Reading, shared: Shared) -> tuple[Rule, ...]:
    raw, path = known.get(kind), place(known, reading.base, kind)
    if raw is not None and reading.dialect == "dsp" and not isinstance(raw, list):
        reading.note(Code.MALFORMED, path, "it is no array", "write an array of rules")
        return ()
    return tuple(rule for at, entry in several(raw, path) if (rule := _rule(entry, kind, at, reading, shared)) is not None)


def _rule(raw: object, kind: RuleKind, path: str, reading: Reading, shared: Shared) -> Rule | None:
    if not isinstance(raw, dict):
        reading.note(Code.MALFORMED, path, "it is no rule", "write an object with an `action`")
        return None
    if raw and raw.keys() <= {"@id", "uid"}:  # read as a rule, it would be one about any action, without conditions
        reading.note(Code.REFERENCE_UNRESOLVED, path, "it only names a rule", "write the rule down here; nothing is ever fetched")
        return None
    reading.count(1 if kind in ("permission", "prohibition") else DUTY_LEAVES, path)
    properties = _OF_KIND[kind] - (_OF_POLICY if reading.dialect == "dsp" and kind in ("permission", "prohibition") else NONE)
    known, opaque = fields(raw, properties, path, reading)
    what = kind if kind in ("permission", "prohibition") else "duty"
    type_of(known, what, path, reading)
    written = known.get("action")
    named = actions(written, place(known, path, "action"), reading)
    if written is None and shared.actions is not None:
        named = shared.actions
    if "action" not in known and shared.actions is None:
        severity: Literal["error", "warning"] = "warning" if reading.dialect == "odrl" else "error"
        code = Code.ACTION_MISSING if reading.dialect == "odrl" else Code.MALFORMED
        reading.note(code, path, "it has no action, so it is about any", "write `use`", severity)
    constraints = nodes(known.get("constraint"), place(known, path, "constraint"), reading)
    if what == "duty":
        named, constraints = payments(known, path, named, constraints, reading)
    constraints += shared.constraints
    below = _BELOW.get(kind)
    duties = tuple(
        duty
        for at, entry in (several(known.get(below), place(known, path, below)) if below else [])
        if below and (duty := _rule(entry, below, at, reading, ALONE)) is not None
    )
    functions = tuple(
        (name, party) for name in FUNCTIONS if name in known for party in sorted(_ids(known[name], place(known, path, name), reading))
    )
    return Rule(
        path=path,
        kind=kind,
        actions=named,
        targets=scopes(known.get("target"), "asset", place(known, path, "target"), reading) or shared.targets,
        assigners=scopes(known.get("assigner"), "party", place(known, path, "assigner"), reading),
        assignees=scopes(known.get("assignee"), "party", place(known, path, "assignee"), reading) or shared.assignees,
        constraints=constraints,
        opaque=opaque,
        judge=all_of([node.judge for node in constraints]),
        id=reading.describe(raw, path, iri(known.get("@id"), place(known, path, "@id"), reading) or ""),
        duties=duties,
        when=_when(named, constraints, reading),
        functions=functions,
    )


def _when(named: tuple[Action, ...], constraints: tuple[Node, ...], reading: Reading) -> Literal["pre", "with", "post"]:
    """When a duty is due (odrl.md 1.3): what it says about the event of the use goes before what its action usually means."""
    waiting = list(constraints)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Logic):
            waiting.extend(node.parts)
        elif isinstance(node, Constraint):
            if node.operand == ODRL + "event" and node.unit == ODRL + "policyUsage":
                return {"lt": "pre", "lteq": "pre", "eq": "with", "gteq": "post", "gt": "post"}.get(node.operator, "pre")  # type: ignore[return-value]
            if node.operand == ODRL + "delayPeriod" or (node.operand == ODRL + "event" and node.operator in ("gt", "gteq", "eq")):
                return "post"
    found = {reading.registry.duties.get(action.iri, "pre") for action in named}
    return "pre" if "pre" in found or not found else "with" if "with" in found else "post"  # in whatever order the actions stand


def _gated(permission: Rule, assignees: frozenset[str], reading: Reading) -> Rule:
    """A permission whose duties come before the use where somebody else shapes the data."""
    first = [_shaped(duty, _users(permission, assignees), reading) for duty in permission.duties]
    if not any(first):
        return permission
    duties = zip(permission.duties, first, strict=True)
    return replace(permission, duties=tuple(replace(duty, when="pre") if shaped else duty for duty, shaped in duties))


def _users(permission: Rule, assignees: frozenset[str]) -> Set[str]:
    return {scope.id for scope in permission.assignees} or assignees


def _shaped(duty: Rule, users: Set[str], reading: Reading) -> bool:
    """What shapes the data is done by who uses them; where it is to be somebody else, it comes before they leave: nobody here does it on
    their way, and what is let go as it is cannot be called back."""
    return bool(duty.assignees) and users.isdisjoint(scope.id for scope in duty.assignees) and _shapes(duty, reading)


def _shapes(duty: Rule, reading: Reading) -> bool:
    return duty.when == "with" and any(reading.registry.duties.get(action.iri) == "with" for action in duty.actions)


def _barred(document: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The patch (RFC 6902) that adds a prohibition to distribute."""
    bar = {"action": "odrl:distribute"}
    key = next((key for key in ("prohibition", "odrl:prohibition", ODRL + "prohibition") if key in document), None)
    if key is None:
        return ({"op": "add", "path": "/prohibition", "value": [bar]},)
    at = "/" + key.replace("~", "~0").replace("/", "~1")
    return ({"op": "add", "path": f"{at}/-", "value": bar},) if isinstance(document[key], list) else ()


def _warn(document: dict[str, Any], rules: Mapping[str, tuple[Rule, ...]], reading: Reading) -> None:
    """What is well-formed and easily means more, or less, than its author thinks."""
    for rule in rules["obligation"]:
        if not has_deadline(rule):
            message = "an obligation without a deadline is never overdue"
            reading.note(Code.OBLIGATION_NO_DEADLINE, rule.path, message, "add `odrl:dateTime` `lteq` or `odrl:delayPeriod`", "warning")
    for duty in (*(duty for rule in rules["permission"] for duty in rule.duties), *rules["obligation"]):
        if not duty.assignees and _shapes(duty, reading):
            message = "who uses the data owes this: nothing here shapes them on their way"
            fix = "know that it is a promise, or name in its `assignee` who does it before: nothing leaves until that is on record"
            reading.note(Code.DECLARATIVE_ONLY, duty.path, message, fix, "warning")
    for rule in (*rules["permission"], *rules["prohibition"]):
        asked = {node.operand: node.path for node in conjuncts(rule.constraints) if isinstance(node, Constraint)}
        if COUNT in asked and TIME_INTERVAL in asked:
            message = "beside a `count` it makes no rate: the count does not begin again with each interval"
            fix = "write the windows as `odrl:dateTime`, or know that both count: so many in all, and none sooner after the last"
            reading.note(Code.INTERVAL_AS_WINDOW, asked[TIME_INTERVAL], message, fix, "warning")
    use, distribute = ODRL + "use", ODRL + "distribute"
    open_use = [rule.path for rule in rules["permission"] if any(each.iri == use and not each.refinements for each in rule.actions)]
    if open_use and not any(action.iri == distribute for rule in rules["prohibition"] for action in rule.actions):
        message = "ODRL includes `distribute` in `use`: who may use this may pass it on"
        fix = "add a prohibition of `odrl:distribute`, if that is not meant"
        reading.note(Code.USE_IMPLIES_DISTRIBUTE, open_use[0], message, fix, "warning", patch=_barred(document))
    for rule in rules["prohibition"]:
        if any(action.iri == use for action in rule.actions) and not rule.constraints and rules["permission"]:
            message = "a prohibition of `use` without constraints forbids all that a permission allows"
            reading.note(Code.PROHIBITION_OF_USE, rule.path, message, "add constraints or forbid something narrower", "warning")
