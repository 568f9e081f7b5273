"""`connector simulate`, `what-if` and `lint`: what terms mean, before anybody meets them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from connector.cli import show
from connector.cli.explain import MARKS, NO, OPEN, STEP, Lines, Telling, finding_line, states_of
from connector.cli.publish import FORMS, read_bytes, read_policy
from connector.cli.session import Common, ask
from connector.errors import InvalidRequest

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import OtherTerms, Simulated

EFFECTS = {
    "loses": "loses access",
    "gains": "gains access",
    "narrower": "may do less",
    "wider": "may do more",
    "other": "may do other things",
}
REFUSED = 1  # the exit code where a policy cannot be used


def simulate(
    *,
    participant: Annotated[str | None, Parameter(name="--as")] = None,
    at: str | None = None,
    purpose: Annotated[list[str] | None, Parameter(negative=())] = None,
    dataset: str | None = None,
    claim: Annotated[list[str] | None, Parameter(negative=())] = None,
    all: Annotated[bool, Parameter(negative=())] = False,
    common: Common | None = None,
) -> None:
    """Show our catalog as somebody else would see it.

    What is shown, what is hidden and by which rule, what is still to be known, what a request would be answered, and when that changes.

    Parameters
    ----------
    participant
        id or name of a participant in the registry, or an id that nobody has yet, with `--claim`
    at
        instant, such as 2030-12-31T18:00:00Z, or a day; default: now
    purpose
        what a request would be for; may be given several times; default: all that an offer names
    dataset
        only this dataset, with every rule and constraint
    claim
        what is vouched for, as name=value, instead of what the registry says; may be given several times
    all
        every page, not the first only
    """
    common = common or Common()
    claims = _claims(claim) if claim else None

    async def work(client: ManagementClient) -> list[Simulated]:
        def page(after: str | None = None) -> Any:
            return client.simulate(participant, claims=claims, at=at, purposes=purpose or (), dataset=dataset, after=after)

        pages = [await page()]
        while all and pages[-1].next is not None:
            pages.append(await page(pages[-1].next))
        return pages

    pages = ask(common, work)
    if common.json:
        show.document({"pages": pages})
        return
    items = [item for page in pages for item in page.items]
    if dataset is not None:
        for depth, text in (line for item in items for line in _exactly(item)):
            show.line(text, indent=STEP * depth)
    else:
        rows = [_row(item, offer) for item in items for offer in item["offers"]]
        show.table(("", "DATASET", "OFFER", "IF ASKED", "UNTIL", "WHY"), rows, "nothing is published here")
    who, changes = pages[0].who, min((page.next_change for page in pages if page.next_change is not None), default=None)
    then = f"; the next change is at {show.moment(changes)}" if changes else "; time alone changes nothing"
    show.note(f"as {who.get('name') or who.get('id') or 'somebody with these claims'} at {show.moment(pages[0].at)}{then}")
    if pages[-1].next is not None:
        show.note("there is more; `--all` shows it")


def what_if(
    policy: Path,
    *,
    offer: str | None = None,
    dataset: str | None = None,
    at: str | None = None,
    purpose: Annotated[list[str] | None, Parameter(negative=())] = None,
    common: Common | None = None,
) -> None:
    """Show who would lose or gain access by other terms.

    The terms of a file are tried instead of those of an offer, or of all offers of a dataset, for everybody in the registry and everybody
    with an agreement. Nothing is changed.

    Parameters
    ----------
    policy
        file of the terms, in any form that `connector publish` takes
    offer
        the offer for which they would stand
    dataset
        the dataset, for all offers of which they would stand
    at
        instant, such as 2030-12-31T18:00:00Z, or a day; default: now
    purpose
        a purpose to try beside those that the terms name; may be given several times
    """
    common = common or Common()
    if offer is None and dataset is None:
        raise InvalidRequest("say which terms would change: `--offer` or `--dataset`; `connector simulate --as PARTICIPANT` shows the ids")
    terms = read_policy(policy)

    async def work(client: ManagementClient) -> tuple[OtherTerms, list[dict[str, Any]], list[dict[str, Any]]]:
        def page(**cursor: str | None) -> Any:
            return client.what_if(terms, offer=offer, dataset=dataset, at=at, purposes=purpose or (), **cursor)

        first = page_of = await page()
        affected, agreements = list(first.items), list(first.agreements.items)
        while page_of.next is not None:
            page_of = await page(after=page_of.next)
            affected += page_of.items
        page_of = first
        while page_of.agreements.next is not None:
            page_of = await page(agreements_after=page_of.agreements.next)
            agreements += page_of.agreements.items
        return first, affected, agreements

    found, affected, agreements = ask(common, work)
    if common.json:
        first = {"dataset": found.dataset, "at": found.at, "replaced": found.replaced, "unchanged": found.unchanged}
        show.document(first | {"items": affected, "agreements": agreements})
        return
    for replaced in found.replaced:
        show.line(f"offer {replaced['offer']}: {'; '.join(replaced['differences']) or 'the same terms'}")
    rows = [(e["name"], EFFECTS[e["effect"]], _access(e["before"]), _access(e["after"]), "; ".join(e["reasons"])) for e in affected]
    show.table(("PARTICIPANT", "EFFECT", "BEFORE", "AFTER", "WHY"), rows, "nobody loses or gains anything")
    for depth, text in (line for agreement in agreements for line in _agreed(agreement)):
        show.line(text, indent=STEP * depth)
    if found.untried:
        show.note(f"{len(found.tried)} purposes were tried, {found.untried} more were not; `--purpose` names those that matter")
    agreed = "; agreements go on under their own terms, unless the new ones are published with `--binding`" if agreements else ""
    show.note(f"{found.unchanged} keep what they have{agreed}")


def lint(file: Path, *, lang: Annotated[Literal["en", "zh"], Parameter()] = "en", common: Common | None = None) -> int:
    """Check a policy, and say what it means in plain words.

    Everything in it that is not understood or easily misread is listed with its remedy. Ends with 1 if the policy cannot be used.

    Parameters
    ----------
    file
        the policy: JSON-LD or a JSON list of templates; Turtle if it is called .ttl, the small text form if it is called .odrl or .txt
    lang
        language of the plain words
    """
    from connector.app_settings import examined

    common = common or Common()
    found = examined(read_bytes(file), FORMS.get(file.suffix, "json-ld"), lang, time.time())
    findings, refused = [finding.to_json() for finding in found.findings], found.refused
    words = found.plain.to_json() if found.plain is not None else None
    if common.json:
        show.document({"file": str(file), "refused": refused, "findings": findings, "plain": words})
        return REFUSED if refused else 0
    for finding in findings:
        show.line(finding_line(finding))
    if words is not None:
        for sentence in words["sentences"]:
            show.line(sentence)
        for condition in words["conditions"]:
            show.line(f"{condition['path']}: {condition['text']} ({condition['held_text']})", indent=STEP)
    counts = [(name, sum(finding["severity"] == name for finding in findings)) for name in ("error", "warning")]
    said = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts if count)
    show.note(f"{file}: {said or 'nothing to mend'}")
    return REFUSED if refused else 0


def _claims(given: list[str]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"`--claim` is `{text}`; write it as name=value, such as role=researcher")
        claims.setdefault(name, []).append(value)
    return claims


def _row(item: Mapping[str, Any], offer: Mapping[str, Any]) -> tuple[str | None, ...]:
    decision, request = offer["decision"], offer.get("request")
    mark = MARKS.get(decision.get("result", ""), OPEN) if offer["shown"] else NO
    answer = "hidden" if request is None else "an operator decides" if offer.get("manual") and _permits(request) else request.get("result")
    return mark, item["id"], offer["id"], answer, show.moment(decision.get("valid_until")), _why(offer)


def _why(offer: Mapping[str, Any]) -> str:
    """What hides an offer, or what it still needs, or why a request would be refused."""
    decision, request = offer["decision"], offer.get("request")
    if request is not None and not _permits(request):
        return "; ".join(request.get("reason", ()))
    if offer["shown"]:
        needed = [f"{miss['change']}{_held(offer, miss['path'])}" for miss in decision.get("near_misses", ())]
        return f"needs: {'; '.join(needed)}" if needed else ""
    rule = next((ground["rule"] for ground in offer.get("grounds", ()) if "rule" in ground), None)
    return f"{decision.get('code')}{f' by {rule}' if rule else ''}: {'; '.join(decision.get('reason', ()))}"


def _held(offer: Mapping[str, Any], path: str) -> str:
    """Who holds a constraint of an offer, as in: [declared by the other side]."""
    held = offer.get("held", {}).get(path)
    return f" [{held}]" if held else ""


def _permits(request: Mapping[str, Any]) -> bool:
    return request.get("result") in ("permit", "permit-with")


def _exactly(item: Mapping[str, Any]) -> Lines:
    """One dataset with every rule, and who holds each constraint."""
    yield 0, f"{item['id']}  {item.get('title') or ''}"
    for offer in item["offers"]:
        telling = Telling(held=offer.get("held", {}), states=states_of(offer["decision"]))
        yield 1, f"offer {offer['id']} is {'shown' if offer['shown'] else 'hidden'}"
        yield from telling.decided(offer["decision"], 2)
        if not offer["shown"]:
            yield from telling.grounds(offer.get("grounds", ()), 2)
        elif offer.get("request") is not None:
            yield 2, "a request would be answered"
            yield from telling.decided(offer["request"], 3)


def _access(access: Mapping[str, Any]) -> str:
    if not access["sees"]:
        return "does not see it"
    if access["purposes"]:
        return f"may have it for {', '.join(access['purposes'])}"
    return "may have it" if access["as_offered"] else "sees it, and would be refused"


def _agreed(agreement: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    running = f", {len(agreement['transfers'])} transfers run under it" if agreement["transfers"] else ""
    ends = f" until {show.moment(agreement['ends'])}" if agreement.get("ends") else ""
    yield 0, f"agreement {agreement['id']} with {agreement['peer']} is in force{ends}{running}"
    yield from ((1, f"transfer {pid}") for pid in agreement["transfers"])
    yield from ((1, f"the new terms differ: {text}") for text in agreement["differences"])
    if not agreement["bound"]:
        whose = "published with `--binding`, they would end it" if agreement["permitted"] else "it permits nothing now"
        yield from ((1, f"{whose}: {reason}") for reason in agreement["reasons"])
