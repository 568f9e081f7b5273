"""`connector simulate`, `what-if` and `lint`: what terms mean, before anybody meets them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from connector.cli import show
from connector.cli.explain import MARKS, NO, OPEN, STEP, Language, Lines, Telling, finding_line, states_of
from connector.cli.publish import FORMS, read_bytes, read_policy
from connector.cli.session import Common, ask
from connector.errors import InvalidRequest

if TYPE_CHECKING:
    from connector.client.management import ManagementClient
    from connector.client.views import OtherTerms, Simulated

CHINESE = {
    "DATASET": "数据集", "OFFER": "要约", "IF ASKED": "若请求", "UNTIL": "截至", "WHY": "原因",
    "PARTICIPANT": "参与方", "EFFECT": "影响", "BEFORE": "之前", "AFTER": "之后",
    "hidden": "已隐藏",
    "an operator decides": "由操作者决定",
    "needs: {}": "需要：{}",
    "{} by {}": "{}，依据 {}",
    "offer {} is shown": "要约 {} 可见",
    "offer {} is hidden": "要约 {} 已隐藏",
    "a request would be answered": "请求将得到的答复",
    "nothing is published here": "此处未发布任何数据",
    "as {} at {}": "以 {} 的身份，在 {}",
    "somebody with these claims": "持有这些声明者",
    "; the next change is at {}": "；下一次变化在 {}",
    "; time alone changes nothing": "；仅随时间推移不会改变",
    "there is more; `--all` shows it": "还有更多；用 `--all` 显示",
    "loses access": "失去访问",
    "gains access": "获得访问",
    "may do less": "可做的变少",
    "may do more": "可做的变多",
    "may do other things": "可做的不同",
    "does not see it": "不可见",
    "may have it for {}": "可用于 {}",
    "may have it": "可获取",
    "sees it, and would be refused": "可见，但会被拒绝",
    "offer {}: {}": "要约 {}：{}",
    "the same terms": "条款相同",
    "nobody loses or gains anything": "无人有所得失",
    "agreement {} with {} is in force{}{}": "与 {1} 的协议 {0} 有效{2}{3}",
    " until {}": "，至 {}",
    ", {} transfers run under it": "，其下有{}个传输在进行",
    "transfer {}": "传输 {}",
    "the new terms differ: {}": "新条款不同：{}",
    "published with `--binding`, they would end it": "若以 `--binding` 发布，将终止该协议",
    "it permits nothing now": "它现在不允许任何使用",
    "{}: {}": "{}：{}",
    "nothing to mend": "无须修改",
    "{} error": "{}处错误", "{} errors": "{}处错误", "{} warning": "{}处警告", "{} warnings": "{}处警告",
    "{} purposes were tried, {} more were not; `--purpose` names those that matter":
        "已试{}种用途，另有{}种未试；用 `--purpose` 指定要紧的",
    "; agreements go on under their own terms, unless the new ones are published with `--binding`":
        "；除非以 `--binding` 发布新条款，协议仍按自己的条款继续",
    "{} keep what they have{}": "{}个参与方不受影响{}",
}  # fmt: skip
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
    lang: Annotated[Language, Parameter()] = "en",
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
    lang
        language of everything but names
    """
    common = common or Common()
    claims = _claims(claim) if claim else None

    async def work(client: ManagementClient) -> list[Simulated]:
        def page(after: str | None = None) -> Any:
            return client.simulate(
                participant, claims=claims, at=at, purposes=purpose or (), dataset=dataset, after=after, language=asked_in(lang)
            )

        pages = [await page()]
        while all and pages[-1].next is not None:
            pages.append(await page(pages[-1].next))
        return pages

    pages = ask(common, work)
    if common.json:
        show.document({"pages": pages})
        return
    items = [item for page in pages for item in page.items]
    say = Saying(lang)
    if dataset is not None:
        for depth, text in (line for item in items for line in _exactly(item, say)):
            show.line(text, indent=STEP * depth)
    else:
        rows = [_row(item, offer, say) for item in items for offer in item["offers"]]
        heads = ("", *map(say, ("DATASET", "OFFER", "IF ASKED", "UNTIL", "WHY")))
        show.table(heads, rows, say("nothing is published here"))
    who, changes = pages[0].who, min((page.next_change for page in pages if page.next_change is not None), default=None)
    then = say("; the next change is at {}", show.moment(changes)) if changes else say("; time alone changes nothing")
    name = who.get("name") or who.get("id") or say("somebody with these claims")
    show.note(say("as {} at {}", name, show.moment(pages[0].at)) + then)
    if pages[-1].next is not None:
        show.note(say("there is more; `--all` shows it"))


def what_if(
    policy: Path,
    *,
    offer: str | None = None,
    dataset: str | None = None,
    at: str | None = None,
    purpose: Annotated[list[str] | None, Parameter(negative=())] = None,
    lang: Annotated[Language, Parameter()] = "en",
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
    lang
        language of everything but names
    """
    common = common or Common()
    if offer is None and dataset is None:
        raise InvalidRequest("say which terms would change: `--offer` or `--dataset`; `connector simulate --as PARTICIPANT` shows the ids")
    terms, told = read_policy(policy), dict[str, str]()

    async def work(client: ManagementClient) -> tuple[OtherTerms, list[dict[str, Any]], list[dict[str, Any]]]:
        def page(**cursor: str | None) -> Any:
            return client.what_if(terms, offer=offer, dataset=dataset, at=at, purposes=purpose or (), language=asked_in(lang), **cursor)

        first = page_of = await page()
        told.update(first.told)
        affected, agreements = list(first.items), list(first.agreements.items)
        while page_of.next is not None:
            page_of = await page(after=page_of.next)
            told.update(page_of.told)
            affected += page_of.items
        page_of = first
        while page_of.agreements.next is not None:
            page_of = await page(agreements_after=page_of.agreements.next)
            told.update(page_of.told)
            agreements += page_of.agreements.items
        return first, affected, agreements

    found, affected, agreements = ask(common, work)
    if common.json:
        first = {"dataset": found.dataset, "at": found.at, "replaced": found.replaced, "unchanged": found.unchanged}
        show.document(first | {"items": affected, "agreements": agreements})
        return
    say = Saying(lang, told)
    for replaced in found.replaced:
        show.line(say("offer {}: {}", replaced["offer"], say.all(replaced["differences"]) or say("the same terms")))
    rows = [
        (e["name"], say(EFFECTS[e["effect"]]), _access(e["before"], say), _access(e["after"], say), say.all(e["reasons"])) for e in affected
    ]
    heads = tuple(map(say, ("PARTICIPANT", "EFFECT", "BEFORE", "AFTER", "WHY")))
    show.table(heads, rows, say("nobody loses or gains anything"))
    for depth, text in (line for agreement in agreements for line in _agreed(agreement, say)):
        show.line(text, indent=STEP * depth)
    if found.untried:
        tried = "{} purposes were tried, {} more were not; `--purpose` names those that matter"
        show.note(say(tried, len(found.tried), found.untried))
    agreed = "; agreements go on under their own terms, unless the new ones are published with `--binding`" if agreements else ""
    show.note(say("{} keep what they have{}", found.unchanged, say(agreed)))


def lint(file: Path, *, lang: Annotated[Language, Parameter()] = "en", common: Common | None = None) -> int:
    """Check a policy, and say what it means in plain words.

    Everything in it that is not understood or easily misread is listed with its remedy. Ends with 1 if the policy cannot be used.

    Parameters
    ----------
    file
        the policy: JSON-LD or a JSON list of templates; Turtle if it is called .ttl, the small text form if it is called .odrl or .txt
    lang
        language of everything but names
    """
    from connector.app_settings import examined, in_chinese

    common = common or Common()
    found = examined(read_bytes(file), FORMS.get(file.suffix, "json-ld"), lang, time.time())
    findings, refused = [finding.to_json() for finding in found.findings], found.refused
    words = found.plain.to_json() if found.plain is not None else None
    if common.json:
        show.document({"file": str(file), "refused": refused, "findings": findings, "plain": words})
        return REFUSED if refused else 0
    told = in_chinese(found.findings) if lang == "zh" else {}
    for finding in findings:
        show.line(finding_line(finding, lang, told))
    if words is not None:
        for sentence in words["sentences"]:
            show.line(sentence)
        for condition in words["conditions"]:
            show.line(f"{condition['path']}: {condition['text']} ({condition['held_text']})", indent=STEP)
    say = Saying(lang)
    counts = [(name, sum(finding["severity"] == name for finding in findings)) for name in ("error", "warning")]
    said = ", ".join(say(f"{{}} {name}{'s' if count > 1 else ''}", count) for name, count in counts if count)
    show.note(say("{}: {}", file, said or say("nothing to mend")))
    return REFUSED if refused else 0


@dataclass(frozen=True, slots=True)
class Saying:
    """Says phrases of these commands in a language; `told` are whole sentences of the connector in it."""

    lang: Language = "en"
    told: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str, *values: object) -> str:
        found = CHINESE.get(text) if self.lang == "zh" else text
        return Telling(self.lang).say(text, *values) if found is None else found.format(*values) if values else found

    def all(self, sentences: Iterable[str]) -> str:
        """Sentences in a row."""
        return "; ".join(self.told.get(each, each) for each in sentences)


def asked_in(lang: Language) -> str | None:
    """The language as a call asks for it."""
    return None if lang == "en" else lang


def _claims(given: list[str]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"`--claim` is `{text}`; write it as name=value, such as role=researcher")
        claims.setdefault(name, []).append(value)
    return claims


def _row(item: Mapping[str, Any], offer: Mapping[str, Any], say: Saying) -> tuple[str | None, ...]:
    decision, request = offer["decision"], offer.get("request")
    mark = MARKS.get(decision.get("result", ""), OPEN) if offer["shown"] else NO
    answer = "hidden" if request is None else "an operator decides" if offer.get("manual") and _permits(request) else request.get("result")
    return mark, item["id"], offer["id"], say(str(answer)), show.moment(decision.get("valid_until")), _why(offer, say)


def _why(offer: Mapping[str, Any], say: Saying) -> str:
    """What hides an offer, or what it still needs, or why a request would be refused."""
    decision, request, say = offer["decision"], offer.get("request"), Saying(say.lang, offer.get("told", {}))
    if request is not None and not _permits(request):
        return say.all(request.get("reason", ()))
    if offer["shown"]:
        needed = [f"{say.all([miss['change']])}{_held(offer, miss['path'])}" for miss in decision.get("near_misses", ())]
        return say("needs: {}", "; ".join(needed)) if needed else ""
    rule = next((ground["rule"] for ground in offer.get("grounds", ()) if "rule" in ground), None)
    by = say("{} by {}", decision.get("code"), rule) if rule else decision.get("code")
    return say("{}: {}", by, say.all(decision.get("reason", ())))


def _held(offer: Mapping[str, Any], path: str) -> str:
    """Who holds a constraint of an offer, as in: [declared by the other side]."""
    held = offer.get("held", {}).get(path)
    return f" [{held}]" if held else ""


def _permits(request: Mapping[str, Any]) -> bool:
    return request.get("result") in ("permit", "permit-with")


def _exactly(item: Mapping[str, Any], say: Saying) -> Lines:
    """One dataset with every rule, and who holds each constraint."""
    yield 0, f"{item['id']}  {item.get('title') or ''}"
    for offer in item["offers"]:
        telling = Telling(say.lang, offer.get("held", {}), states_of(offer["decision"]), offer.get("texts", {}), offer.get("told", {}))
        yield 1, say("offer {} is shown" if offer["shown"] else "offer {} is hidden", offer["id"])
        yield from telling.decided(offer["decision"], 2)
        if not offer["shown"]:
            yield from telling.grounds(offer.get("grounds", ()), 2)
        elif offer.get("request") is not None:
            yield 2, say("a request would be answered")
            yield from telling.decided(offer["request"], 3)


def _access(access: Mapping[str, Any], say: Saying) -> str:
    if not access["sees"]:
        return say("does not see it")
    if access["purposes"]:
        return say("may have it for {}", ", ".join(access["purposes"]))
    return say("may have it") if access["as_offered"] else say("sees it, and would be refused")


def _agreed(agreement: Mapping[str, Any], say: Saying) -> Iterator[tuple[int, str]]:
    running = say(", {} transfers run under it", len(agreement["transfers"])) if agreement["transfers"] else ""
    ends = say(" until {}", show.moment(agreement["ends"])) if agreement.get("ends") else ""
    yield 0, say("agreement {} with {} is in force{}{}", agreement["id"], agreement["peer"], ends, running)
    yield from ((1, say("transfer {}", pid)) for pid in agreement["transfers"])
    yield from ((1, say("the new terms differ: {}", say.all([text]))) for text in agreement["differences"])
    if not agreement["bound"]:
        whose = say("published with `--binding`, they would end it" if agreement["permitted"] else "it permits nothing now")
        yield from ((1, say("{}: {}", whose, say.all([reason]))) for reason in agreement["reasons"])
