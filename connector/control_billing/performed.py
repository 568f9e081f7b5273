"""Acts that fulfil duties of an agreement: what is recorded of one, and which duties are done by them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from connector.errors import InvalidRequest, PolicyError
from connector.metering_bills.plans import pays
from connector.odrl import Policy, World
from connector.odrl.duties import performs, state_of
from connector.odrl.model import DutyState, Event, Rule
from connector.odrl.operands import DATE_TIME
from connector.odrl.values import microseconds
from connector.odrl.vocabulary import compact
from connector.values import replace

ANY_ACTION = "odrl:use"  # of a duty that names none
ID = re.compile(r"(?!(?i:mailto|tel|fax|sms|sips?|callto|acct):)[A-Za-z][A-Za-z0-9+.-]*:[^\s@]+")  # an IRI that is no address of a person
AMOUNT = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")  # without an exponent: a thousand million noughts are written in eleven characters
DUTY_CHARACTERS = 200  # of what was taken for a duty, in a refusal


def performance(
    policy: Policy | PolicyError, duty: str, action: str | None, at: float, by: str, amounts: Mapping[str, str]
) -> dict[str, Any]:
    """The act that fulfils a duty of an agreement, as it is kept with it (see `Agreement`). `duty` is its pointer or its id, `at` when
    (POSIX seconds). Raises InvalidRequest for what is no duty of it, and for what does not fulfil it: another action, debtor or amount."""
    duties = [] if isinstance(policy, PolicyError) else list(_duties(policy))
    found = next((each for each in duties if duty in (each.path, each.id)), None)
    if found is None or isinstance(policy, PolicyError):
        known = ", ".join(f"`{each.path}`" for each in duties) or "none"
        raise InvalidRequest(f"the agreement has no duty `{duty[:DUTY_CHARACTERS]}`; it has {known}", pointer="/duty")
    actions = [each.iri for each in found.actions]
    act = {"duty": found.path, "action": action or (actions[0] if actions else ANY_ACTION), "at": at, "by": by, "amounts": dict(amounts)}
    if not all(AMOUNT.fullmatch(text) for text in amounts.values()):
        raise InvalidRequest('an amount is no number; write it as text, like "5.00"', pointer="/amounts")
    event = _event(act)
    paid = pays(policy, found, event)
    if not (performs(policy, found, event) if paid is None else paid):
        asks = ", ".join(f"`{compact(name)}`" for name in actions)
        raise InvalidRequest(f"that is not what the duty asks for: {asks}, with the amounts and by whom it says", pointer="/action")
    if by not in (each.id for each in found.assignees) and not ID.fullmatch(by):  # a price may be paid by others than it names
        raise InvalidRequest("`by` is no id, such as `did:web:...`: names and addresses of people do not go on record", pointer="/by")
    if not all(ID.fullmatch(part) for key in amounts for part in key.split(" ", 1)):
        raise InvalidRequest("an amount is not named by the IRI of its operand, with that of its unit behind a space", pointer="/amounts")
    return act


def done(policy: Policy, world: World, performed: Sequence[Mapping[str, Any]]) -> dict[str, DutyState]:
    """The duties that these acts have fulfilled, by pointer. What is fulfilled stays so; the others go on by the clock."""
    told, now = replace(world, log=tuple(map(_event, performed))), microseconds(world.now)
    states = {duty.path: state_of(policy, duty, told, now, {} if now is None else {DATE_TIME: now}) for duty in _duties(policy)}
    for duty in _duties(policy):
        if any(event.duty == duty.path and pays(policy, duty, event) for event in told.log or ()):
            states[duty.path] = "fulfilled"  # a price is paid by what it comes to, and not by what its refinements say of one unit
    return {path: state for path, state in states.items() if state in ("fulfilled", "remediated")}


def _duties(policy: Policy) -> Iterator[Rule]:
    yield from (duty for rule in policy.permissions for duty in rule.duties)
    yield from policy.obligations


def _event(act: Mapping[str, Any]) -> Event:
    amounts = {operand: Fraction(text) for operand, text in act.get("amounts", {}).items()}
    return Event(datetime.fromtimestamp(act["at"], UTC), act["action"], act.get("by", ""), amounts=amounts, duty=act["duty"])
