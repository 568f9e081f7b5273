"""Why a case was decided as it was: the primary code, the faults behind it, what was known, and what would have been permitted.

Nothing here decides; it is computed when somebody asks, from the same judges and facts as the decision.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import chain, islice
from typing import Any, Final, Literal, NamedTuple

from connector.odrl import words
from connector.odrl.codes import Code, Result, Stage
from connector.odrl.duties import doubtful
from connector.odrl.facts import ATOMS_MAX, stated
from connector.odrl.judge import Case, Spoken, clashes, covers, deciding_atom, facts_of, granted, on_target, unknown_code
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Constraint, Facts, Logic, Node, Origin, Policy, Rule, Window, fact_key, leaves
from connector.odrl.operands import DATE_TIME, PARTICIPANT, is_payment
from connector.odrl.results import Owed, owed
from connector.odrl.vocabulary import ODRL, compact

FAULTS_MAX: Final = 32  # that are put into words; fewer are told
_CODES: Final = list(Code)
_CONSENT: Final = frozenset({"obtainConsent", "consent", "Consent"})


class NearMiss(NamedTuple):
    """A change that, with the others beside it, would permit: the place, and what has to be so there."""

    path: str
    change: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"path": self.path, "change": self.change}


class Fault(NamedTuple):
    """One part of the reason: where it lies and what it says. `secret` says it without values that the requester did not tell us."""

    path: str
    text: str
    secret: str


def undecided(case: Case, settled: Container[str] = ()) -> tuple[Node, ...]:
    """The constraints of matching rules, without parts, of which it is not known whether they hold, and which leave the rules open.
    `settled` are the paths of rules that are known to hold."""
    if case.policy.refused or not case.atoms:
        return ()
    facts = deciding_atom(case)
    asking = [one for one in (*case.permissions, *case.prohibitions) if one.rule.path not in settled and _is_open(case, one, facts)]
    found = {leaf.path: leaf for one in asking for leaf, _ in _not_decided(case, one, facts)}
    return tuple(found.values())


def _is_open(case: Case, spoken: Spoken, facts: Facts) -> bool:
    """Whether it is not known if a rule holds, or if one of its duties stands in the way."""
    if spoken.judge(facts_of(case, spoken.rule, facts)) == UNKNOWN:
        return True
    return spoken.rule.kind == "permission" and bool(spoken.rule.duties) and granted(case, spoken, facts) == UNKNOWN


def unknown_operands(case: Case) -> tuple[str, ...]:
    """The left operands (full IRIs) of matching rules whose facts are not known."""
    return tuple(dict.fromkeys(leaf.operand for leaf in undecided(case) if isinstance(leaf, Constraint)))


def known(case: Case) -> dict[str, dict[str, Any]]:
    """What was known, by left operand (full IRI, with its unit): `value`, a list of text; `source`, who said it: the requester
    (`declared`), or what the world was told by: who they are (`identity`), what others vouch for (`claims`), a `meter`, a `log`, the
    `agreement` or the `contract`; and, as far as that is told, by whom it was `asserted_by`, `as_of` when, and the `evidence_ref`."""
    found: dict[str, dict[str, Any]] = {}
    params, world, origins = case.request.params, case.world, case.world.origins
    for key, source, short in _sources(case.policy):
        facts = [fact for atom in case.atoms if (fact := atom.get(key)) is not None]
        if not facts:
            continue
        told = words.all_shown(words.texts(facts[0]))
        for fact in facts[1:]:
            told += [text for text in words.all_shown(words.texts(fact)) if text not in told]
        declared = short and (key in params or short in params)
        document = found[key] = {"value": told, "source": "claims" if short and not declared else source}
        if declared and (key in world.facts or short in world.facts):
            document["source"] = "declared and claims"  # of which value is whose nobody is told: all of them have to be covered
        elif declared:
            document["asserted_by"] = words.shown(case.request.party, words.SENTENCE_CHARS_MAX)
        if origins and (origin := origins.get(key)) is not None:
            document |= _origin(origin)
    return found


def _origin(origin: Origin) -> dict[str, str]:
    by, at, shown_by = origin
    said = (
        by and words.shown(by, words.SENTENCE_CHARS_MAX),
        at.isoformat().replace("+00:00", "Z") if at else None,
        shown_by and words.shown(shown_by, words.SENTENCE_CHARS_MAX),
    )
    return {name: text for name, text in zip(("asserted_by", "as_of", "evidence_ref"), said, strict=True) if text}


def _sources(policy: Policy) -> list[tuple[str, str, str]]:
    """The facts of a policy, each with its source, and its short name if it may be declared."""
    known: list[tuple[str, str, str]] | None = policy.memo.get(_sources)
    if known is None:
        keys = [(operand, operand) for operand in policy.usage] + [(fact_key(*measure), measure[0]) for measure in policy.measures]
        rows = [(key, policy.registry.operands[operand].source) for key, operand in keys]
        known = policy.memo[_sources] = [(key, source, compact(key) if source == "declared" else "") for key, source in rows]
    return known


def near_misses(case: Case) -> tuple[NearMiss, ...]:
    """What the permission that fails least would need: constraints to be satisfied, duties to be done. () if nothing but another requester
    or act would help: where no permission speaks about it, where a prohibition applies, where the policy is void."""
    if case.policy.refused or not case.atoms or _void(case):
        return ()
    facts = deciding_atom(case)
    if case.conflict != "permit" and _biting(case, facts):
        return ()
    first = [NearMiss(duty.path, f"the obligation to {words.acts(duty.rule)} is done") for duty in _held_up(case)]
    ways = [[*first, *_wants(case, one, facts)] for one in case.permissions]
    return tuple(min((way for way in ways if way), key=len, default=[])[:FAULTS_MAX])


def _wants(case: Case, spoken: Spoken, facts: Facts) -> list[NearMiss]:
    own = facts_of(case, spoken.rule, facts)
    asked = [leaf for node in (*spoken.rule.constraints, *spoken.rule.refinements) for leaf in _fewest(node, own)]
    return [*(NearMiss(leaf.path, words.asked(leaf)) for leaf in asked), *_undone(case, spoken.rule, own)]


def _undone(case: Case, rule: Rule, facts: Facts) -> list[NearMiss]:
    duties = owed(case.policy, rule, case.world, case.now, facts, case.options, case.request.stage)
    return [NearMiss(duty.path, f"the duty to {words.acts(duty.rule)} is done") for duty in duties if duty.blocking]


def _fewest(node: Node, facts: Facts) -> list[Node]:
    """The fewest leaves that would have to be satisfied: of a choice, one part. What counts as one (`xone`, a sequence) is told as one."""
    if node.judge(facts) == TRUE:
        return []
    if not isinstance(node, Logic) or node.kind in ("xone", "andSequence"):
        return [node]
    parts = [_fewest(part, facts) for part in node.parts]
    return min(parts, key=len) if node.kind == "or" else list(chain.from_iterable(parts))


def account(case: Case, result: Result) -> tuple[Code, list[Fault]]:
    """The primary code and the first faults, the most useful first."""
    policy, request = case.policy, case.request
    if policy.refused:
        errors = [finding for finding in policy.findings if finding.severity == "error"]
        texts = [f"{finding.message}; {finding.fix}" for finding in errors]
        return errors[0].code, [Fault(finding.path, text, text) for finding, text in zip(errors, texts, strict=True)]
    if not case.atoms:
        return Code.LIMIT_EXCEEDED, [_fault("", f"more than {ATOMS_MAX} values are declared")]
    permissions, facts = case.permissions, deciding_atom(case)
    if result is Result.PERMIT or result is Result.PERMIT_WITH:
        path = next((one.rule.path for one in permissions[:-1] if granted(case, one, facts) != FALSE), permissions[-1].rule.path)
        return Code.PERMITTED, [_fault(path, "granted")]
    if void := _void(case):
        return Code.POLICY_VOID_CONFLICT, void
    if not permissions and not any(on_target(policy, rule, request, case.world) for rule in policy.rules):
        return Code.NO_MATCHING_RULE, [_fault("/target", f"it is not about `{words.shown(str(request.target))}`")]
    if case.conflict != "permit" and (biting := _biting(case, facts)):
        return Code.PROHIBITED, [fault for rule in biting[:FAULTS_MAX] for fault in _prohibited(rule, case, facts_of(case, rule, facts))]
    if not permissions:
        return _nothing_matches(case)
    if waiting := _held_up(case):
        return _waiting(waiting, "obligation")
    return _unmet(case, result, facts)


def _unmet(case: Case, result: Result, facts: Facts) -> tuple[Code, list[Fault]]:
    """What keeps the permissions from granting where nothing forbids it."""
    states = [(one, granted(case, one, facts)) for one in case.permissions]
    grants = any(state == TRUE for _, state in states)
    asks = case.conflict != "permit" and (grants or result is Result.UNKNOWN)
    may_bite = [one for one in case.prohibitions if asks and one.judge(facts_of(case, one.rule, facts)) == UNKNOWN]
    if may_bite or result is Result.UNKNOWN:
        rules_in_doubt = [*(one for one, state in states if not grants and state == UNKNOWN), *may_bite]
        in_doubt = list(islice((each for one in rules_in_doubt for each in _not_decided(case, one, facts)), FAULTS_MAX))
        return unknown_code(case, [leaf for leaf, _ in in_doubt]), [_leaf_fault(leaf, case, own) for leaf, own in in_doubt]
    owns = [(one, facts_of(case, one.rule, facts)) for one in case.permissions]
    blocked = [found for one, own in owns if one.judge(own) == TRUE and (found := _blocked(one.rule, case, own))]
    if blocked:
        return max(blocked, key=lambda found: _CODES.index(found[0]))
    failing = sorted((_failing(case, one, facts) for one in case.permissions), key=len)
    fewest = [(_code_of(found, case), found) for found in failing if len(found) == len(failing[0])]
    code, first = max(fewest, key=lambda found: _CODES.index(found[0]))  # the most telling word, in whatever order they stand
    told = islice(chain(first, *(found for found in failing if found is not first)), FAULTS_MAX)
    return code, [_leaf_fault(leaf, case, own) for leaf, own in told]


def _void(case: Case) -> list[Fault]:
    pairs = clashes(case.policy, case.world) if case.conflict == "invalid" else []
    said = "it may forbid what {} allows, and so the whole policy is void"
    return [_fault(other.path, said.format(words.shown(one.path))) for one, other in pairs]


def _biting(case: Case, facts: Facts) -> list[Rule]:
    return [one.rule for one in case.prohibitions if one.judge(facts_of(case, one.rule, facts)) == TRUE]


def _held_up(case: Case) -> list[Owed]:
    """The obligations that stand in the way of the use."""
    if case.request.stage in (Stage.CATALOG, Stage.NEGOTIATION):
        return []
    found: dict[str, Owed] = {}
    for rule in case.policy.obligations:
        for atom in case.atoms:
            held = owed(case.policy, rule, case.world, case.now, atom, case.options, case.request.stage)
            found |= {duty.path: duty for duty in held if duty.blocking}
    return list(found.values())


def _blocked(rule: Rule, case: Case, facts: Facts) -> tuple[Code, list[Fault]] | None:
    waiting = [duty for duty in owed(case.policy, rule, case.world, case.now, facts, case.options, case.request.stage) if duty.blocking]
    return _waiting(waiting, "duty") if waiting else None


def _waiting(waiting: list[Owed], what: Literal["duty", "obligation"]) -> tuple[Code, list[Fault]]:
    """The code for what the use waits for, and each of it."""
    late = any(duty.state == "overdue" for duty in waiting)
    consent = any(action.rpartition("/")[2] in _CONSENT for duty in waiting for action in duty.actions)
    code = Code.OBLIGATION_OVERDUE if late else Code.CONSENT_MISSING if consent else Code.PREDUTY_OPEN
    return code, [_fault(duty.path, _undone_yet(duty, what)) for duty in sorted(waiting, key=lambda duty: duty.state != "overdue")]


def _undone_yet(duty: Owed, what: str) -> str:
    if duty.state == "overdue":
        return f"the {what} to {words.acts(duty.rule)} is overdue"
    whose = f" of {words.value(duty.debtor)}" if duty.rule.assignees else ""
    how = " and ".join([words.asked(leaf) for leaf in duty.rule.refinements[: words.VALUES_SHOWN_MAX]])  # so much has to be paid
    act = f"{words.acts(duty.rule)} so that {how}" if how else words.acts(duty.rule)
    return f"first it is a duty{whose} to {words.shown(act, words.TEXT_CHARS_MAX // 2)}, and nothing shows that this was done"


def _fault(path: str, text: str) -> Fault:
    return Fault(path, text, text)


def _nothing_matches(case: Case) -> tuple[Code, list[Fault]]:
    policy, action = case.policy, words.shown(case.request.action)
    if not policy.permissions:
        return Code.NO_MATCHING_RULE, [_fault("", "it has no permission")]
    within = policy.registry.action_within(case.request.action)
    if not within:
        known = f"; write `odrl:{action}`" if policy.registry.action_within(ODRL + case.request.action) else ""
        return Code.ACTION_NOT_COVERED, [_fault("/permission", f"`{action}` is no action that is known here{known}")]
    about = [rule for rule in policy.permissions if covers(rule, within)]
    if not about:
        return Code.ACTION_NOT_COVERED, [_fault("/permission", f"no permission covers the action `{action}`")]
    if not any(on_target(policy, rule, case.request, case.world) for rule in about):
        return Code.NO_MATCHING_RULE, [_fault("/permission", f"no permission is about `{words.shown(str(case.request.target))}`")]
    return Code.PARTY_NOT_COVERED, [_fault("/permission", f"no permission to `{action}` is for `{words.shown(case.request.party)}`")]


def _prohibited(rule: Rule, case: Case, facts: Facts) -> list[Fault]:
    action = words.shown(case.request.action)
    found = [leaf for leaf in leaves(rule.constraints) if isinstance(leaf, Constraint) and leaf.judge(facts) == TRUE]
    if not found:
        return [_fault(rule.path, f"to `{action}` is prohibited")]
    said = f"to `{action}` is prohibited where "
    return [
        Fault(leaf.path, said + words.held(leaf, _actual(leaf, facts)), said + words.held(leaf, _told(leaf, case, facts)))
        for leaf in found[:FAULTS_MAX]
    ]


def _leaf_fault(leaf: Node, case: Case, facts: Facts) -> Fault:
    if not isinstance(leaf, Constraint) or leaf.judge(facts) == UNKNOWN:
        return _fault(leaf.path, words.unstated(leaf))
    return Fault(leaf.path, words.failed(leaf, _actual(leaf, facts)), words.failed(leaf, _told(leaf, case, facts)))


def _code_of(found: list[tuple[Node, Facts]], case: Case) -> Code:
    """Time alone in the way says when, a counter alone that it is used up; anything else that is known to fail goes before what is not."""
    false = [leaf for leaf, own in found if leaf.judge(own) == FALSE]
    if not false:
        return unknown_code(case, [leaf for leaf, _ in found])
    operands = case.policy.registry.operands
    if all(isinstance(leaf, Constraint) and operands[leaf.operand].kind == "counter" and not is_payment(leaf) for leaf in false):
        return Code.QUOTA_EXHAUSTED
    now = case.now
    early = late = 0
    for leaf in false:
        if not isinstance(leaf, Constraint) or not isinstance(leaf.test, Window) or leaf.test.negated or not isinstance(now, int):
            return Code.CONSTRAINT_UNSATISFIED
        if leaf.operand != DATE_TIME:
            return Code.CONSTRAINT_UNSATISFIED
        if leaf.test.end is not None and now >= leaf.test.end[0]:
            late += 1
        else:
            early += 1
    return Code.NOT_YET_VALID if early else Code.EXPIRED


def _failing(case: Case, spoken: Spoken, facts: Facts) -> list[tuple[Node, Facts]]:
    """The leaves that keep a permission from granting, each with the facts that it is judged by: what the rule has used up is its own."""
    own = facts_of(case, spoken.rule, facts)
    return [(leaf, own) for node in (*spoken.rule.constraints, *spoken.rule.refinements) for leaf in _in_the_way(node, own)]


def _in_the_way(node: Node, facts: Facts) -> Iterator[Node]:
    """The leaves that keep a constraint from being satisfied. What counts as one (`xone`, a sequence) is told as one."""
    if node.judge(facts) == TRUE:
        return
    if isinstance(node, Logic) and node.kind in ("and", "or"):
        for part in node.parts:
            yield from _in_the_way(part, facts)
    else:
        yield node


def _not_decided(case: Case, spoken: Spoken, facts: Facts) -> Iterator[tuple[Node, Facts]]:
    rule, own = spoken.rule, facts_of(case, spoken.rule, facts)
    duties = rule.duties if rule.kind == "permission" else ()
    asked = [node for duty in duties if doubtful(case.policy, duty, case.world, case.now, own) for node in duty.constraints]
    return ((leaf, own) for node in (*rule.constraints, *rule.refinements, *asked) for leaf in _unknown(node, own))


def _unknown(node: Node, facts: Facts) -> Iterator[Node]:
    """The leaves that are not known, where they make the whole so."""
    if node.judge(facts) != UNKNOWN:
        return
    found = list(chain.from_iterable(_unknown(part, facts) for part in node.parts)) if isinstance(node, Logic) else []
    yield from found or [node]


def _actual(leaf: Constraint, facts: Facts) -> str | None:
    of = facts.get(leaf.fact)
    return None if of is None else words.quoted(leaf, of)


def found_values(leaf: Constraint, case: Case, facts: Facts, *, full: bool) -> list[str] | None:
    """What was found for a constraint, each value as text: None where it is not known, or where the requester may not read it."""
    of = facts.get(leaf.fact)
    if of is None or not (full or _tells(leaf, case, facts)):
        return None
    return sorted(of) if isinstance(of, frozenset) else [words.fact(leaf, of)]


def _told(leaf: Constraint, case: Case, facts: Facts) -> str | None:
    return _actual(leaf, facts) if _tells(leaf, case, facts) else None


def _tells(leaf: Constraint, case: Case, facts: Facts) -> bool:
    """Whether the requester may read the value: the clock, who they are, what they used themselves (both sides count it), and what they
    declared, but nothing that others said of them: no group that they were put in, no credential of somebody else."""
    if leaf.operand == PARTICIPANT or case.policy.registry.operands[leaf.operand].source in ("clock", "meter"):
        return True
    of, said = facts.get(leaf.fact), stated(leaf.operand, case.request.params)
    return of <= said.keys() if isinstance(of, frozenset) else of in said
