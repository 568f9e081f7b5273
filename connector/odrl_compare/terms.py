"""Whether two policies have the same terms, and in plain words what differs.

What is compared is meaning. Ids, the target and the parties of the policy are no terms: the protocol sets them, and its state machine
checks them; nor is the timestamp, but where a duration runs from it. What is not understood must be equal as it stands.
"""

from __future__ import annotations

from connector.odrl.model import DEFAULT_OPTIONS, Options, Policy
from connector.odrl_compare.boxes import STEPS_MAX
from connector.odrl_compare.comparing import Comparison, signed_apart
from connector.odrl_compare.verdict import YES
from connector.odrl_compare.wording import changes, same_words


def same_terms(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS) -> bool:
    """Whether each of two policies refines the other, as far as that can be known: the check of an agreement against the offer it is of.

    Where nobody can know it (something is not understood, or too complex), they have the same terms if they say it in the same words.
    """
    known = told_alike(a, b, options=options)
    if known is not None:
        return known
    comparison = Comparison(a, b, options, bare=True, steps=STEPS_MAX // 2)
    return comparison.refines().answer == YES and comparison.turned().refines().answer == YES


def told_alike(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS) -> bool | None:
    """Whether two policies have the same terms, as far as their words say it; None where that is a matter of comparison."""
    if a is b:
        return True
    if a.profiles != b.profiles or a.opaque != b.opaque or a.refused != b.refused or signed_apart(a, b, options):
        return False
    return True if same_words(a, b) else None


def differences(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS) -> list[str]:
    """What `b` says otherwise than `a`, one sentence for each difference; empty if and only if they have the same terms."""
    if same_terms(a, b, options=options):
        return []
    found = changes(a, b)
    if found:
        return found
    comparison = Comparison(a, b, options, bare=True, steps=STEPS_MAX // 2)
    reasons = [found.reason for found in (comparison.refines(), comparison.turned().refines()) if found.answer != YES]
    return reasons or ["one of the two is not understood here"]
