"""`connector explain`: why a negotiation or a transfer was decided as it was, rule by rule, and what the other side said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from connector.cli import policy_text, show
from connector.cli.processes import either
from connector.cli.session import Common, ask

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import Explained

YES, NO, OPEN = "✓", "✗", "?"
MARKS = {"permit": YES, "permit-with": YES, "deny": NO, "unknown": OPEN}
STATES = {"satisfied": YES, "unsatisfied": NO, "unknown": OPEN}
ABOUT = {"action": "the action", "target": "the target", "assignee": "the party"}
GROUPS = {"and": "all of these", "or": "one at least of these", "xone": "exactly one of these", "andSequence": "all of these in this order"}
WHEN = {"pre": "before the use", "with": "with the use", "post": "after the use"}
STEP = 2  # blanks of one level of the tree
DEPTH = 8  # of nested conditions that are shown; a policy that the connector takes is flatter

Lines = Iterator[tuple[int, str]]  # how deep, and what


def explain(pid: str, *, lang: Annotated[Literal["en", "zh"], Parameter()] = "en", common: Common | None = None) -> None:
    """Show why a negotiation or a transfer was decided as it was, on both sides.

    Each rule and constraint with what it expects and what was found, duties, the next change, what would have been right, and what the
    other side has said.

    Parameters
    ----------
    pid
        as the lists show it
    lang
        language of the terms in plain words
    """
    common = common or Common()

    async def work(client: ManagementClient) -> Explained:
        return await either(
            pid, lambda: client.decision("negotiations", pid, language=lang), lambda: client.decision("transfers", pid, language=lang)
        )

    found = ask(common, work)
    if common.json:
        show.document(found)
        return
    who = {found.kind: found.pid, "we are the": found.role, "peer": found.peer, "state": found.state, "dataset": found.dataset}
    show.facts(who | {"agreement": found.agreement})
    for depth, text in explained(found):
        show.line(text, indent=STEP * depth)


def explained(found: Explained) -> Lines:
    """Everything that is known about the decision, as lines."""
    held = held_by(found.plain)
    if found.decision is not None:
        yield 0, ""
        yield 0, "decided here"
        yield from decided(found.decision, held, 1)
    if found.changes:
        yield 0, ""
        yield 0, "the terms that were asked for differ from ours"
        yield from ((1, change) for change in found.changes)
    if found.refusal is not None:
        yield 0, ""
        yield from _refused(found.refusal, found.peer)
    if found.decision is None and found.refusal is None:
        yield 0, ""
        yield 0, "nothing was decided here, and the peer has given no reason: whether it may be is the peer's to decide"
    yield 0, ""
    if found.terms is None:
        yield 0, "the terms that were judged are not here any more: their offer was withdrawn or replaced"
        return
    yield 0, "the terms in plain words"
    sentences = found.plain.get("sentences", ()) if found.plain is not None else (policy_text.summary(found.terms),)
    yield from ((1, sentence) for sentence in sentences)


def held_by(plain: Mapping[str, Any] | None) -> dict[str, str]:
    """Who holds each constraint, by its path."""
    return {one["path"]: one["held_text"] for one in plain.get("conditions", ())} if plain is not None else {}


def decided(decision: Mapping[str, Any], held: Mapping[str, str], depth: int = 0) -> Lines:
    """A stored decision: the result, its reasons, the tree of rules, duties, counters, the next change, near misses, findings."""
    place = " ".join(filter(None, (_at("at", decision.get("at")), f"({decision['stage']})" if decision.get("stage") else "")))
    yield depth, f"{_mark(decision.get('result'))} {decision.get('result')} {decision.get('code', '')} {place}"
    yield from ((depth + 1, reason) for reason in decision.get("reason", ()))
    for rule in decision.get("rules", ()):
        yield from _rule(rule, held, depth)
    if decision.get("abridged"):
        yield depth, "the policy is too large for every constraint to be kept; the reasons name those that decided"
    for duty in decision.get("duties", ()):
        yield depth, _duty(duty)
    for counter in decision.get("counters", ()):
        limit = f" of {counter['limit']}" if counter.get("limit") is not None else ""
        said = f"{counter.get('used', 0)}{limit} used, {counter.get('reserved', 0)} reserved"
        yield depth, f"{policy_text.short(counter.get('operand'))}: {said} ({counter.get('rule', '')})"
    if misses := decision.get("near_misses", ()):
        yield depth, "it would be permitted if"
        yield from ((depth + 1, f"{miss.get('change')} ({miss.get('path')})") for miss in misses)
    yield depth, f"next change: {show.moment(decision.get('valid_until'))}" if decision.get("valid_until") else "time alone changes nothing"
    for finding in decision.get("findings", ()):
        yield depth, finding_line(finding)


def finding_line(finding: Mapping[str, Any]) -> str:
    """A finding about a policy, with its remedy."""
    path, said = finding.get("path") or "the policy", f"{finding.get('message')}; {finding.get('fix')}"
    return f"{finding.get('severity', 'error')} {finding.get('code')} at {path}: {said}"


def grounds_of(grounds: Sequence[Mapping[str, Any]], depth: int) -> Lines:
    """The grounds of a refusal, ours or a peer's."""
    for ground in grounds:
        rule, place = ground.get("rule"), ground.get("constraint") or ground.get("path")
        where = ", ".join(filter(None, (f"rule {rule}" if rule else "", f"at {place}" if place else "", ground.get("policy"))))
        said = ground.get("code", "")
        if "leftOperand" in ground:
            said = _asked(ground["leftOperand"], ground.get("operator"), ground.get("expected"))
            said += f"; found {', '.join(ground['actual'])}" if ground.get("actual") else ""
        yield depth, f"{NO} {said} ({where})" if where else f"{NO} {said}"


def _refused(refusal: Mapping[str, Any], peer: str) -> Lines:
    who = "we have told" if refusal.get("by") == "us" else "said by"
    yield 0, f"{who} {peer}: {refusal.get('code') or 'no code'}"
    yield from ((1, reason) for reason in refusal.get("reasons") or ("no reason was given",))
    yield from grounds_of(refusal.get("grounds") or (), 1)


def _rule(rule: Mapping[str, Any], held: Mapping[str, str], depth: int) -> Lines:
    kind, active = rule.get("kind", "rule"), rule.get("active")
    strange = [text for name, text in ABOUT.items() if not rule.get("matches", {}).get(name, True)]
    if kind == "prohibition":
        mark, said = {True: (NO, "applies"), False: (YES, "does not apply"), None: (OPEN, "may apply")}[active]
    elif kind == "permission":
        mark, said = {True: (YES, "grants"), False: (NO, "does not grant"), None: (OPEN, "may grant")}[active]
    else:
        mark, said = (NO, "overdue") if rule.get("state") == "overdue" else (YES, rule.get("state") or "inactive")
    why = f": it is not about {', '.join(strange)}" if strange else ""
    yield depth, f"{mark} {kind} {rule.get('path', '')} {said}{why}"
    for node in (*rule.get("refinements", ()), *rule.get("constraints", ())):
        yield from _constraint(node, held, depth + 1, DEPTH)


def _constraint(node: Mapping[str, Any], held: Mapping[str, str], depth: int, levels: int) -> Lines:
    mark = STATES.get(node.get("state", ""), OPEN)
    if "children" in node:
        yield depth, f"{mark} {GROUPS.get(node.get('operator', ''), node.get('operator'))}"
        if levels:
            for child in node["children"]:
                yield from _constraint(child, held, depth + 1, levels - 1)
        return
    if not node.get("left"):
        yield depth, f"{mark} a constraint that is not understood ({node.get('path')})"
        return
    found = "not known" if node.get("actual") is None else f"found {node['actual']}"
    by = f", {held[node['path']]}" if node.get("path") in held else ""
    yield depth, f"{mark} {_asked(node['left'], node.get('operator'), node.get('expected'))}; {found}{by}"


def _asked(left: Any, operator: Any, expected: Any) -> str:
    return f"{policy_text.short(left)} {policy_text.OPERATORS.get(operator, operator)} {', '.join(map(str, expected or ()))}"


def _duty(duty: Mapping[str, Any]) -> str:
    actions = " or ".join(policy_text.short(action) for action in duty.get("action", ()))
    by = f" by {duty['debtor']}" if duty.get("debtor") else ""
    due = _at(", due", duty.get("due_by"))
    stops = ", and the use waits for it" if duty.get("blocking") else ""
    when = WHEN.get(duty.get("when", ""), "")
    return f"duty to {actions}{by} {when}: {duty.get('state')}{due}{stops} ({duty.get('path')})"


def _at(word: str, instant: str | None) -> str:
    return f"{word} {show.moment(instant)}" if instant else ""


def _mark(result: Any) -> str:
    return MARKS.get(result, OPEN)
