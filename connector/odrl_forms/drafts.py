"""A policy in any form (JSON-LD, Turtle, the small text form, a choice of templates) -> the document of an offer as it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from connector.odrl.codes import Code, Finding
from connector.odrl.model import DEFAULT_OPTIONS, Options, Policy, Rule, Scope
from connector.odrl.vocabulary import DSP_CONTEXT
from connector.odrl_forms.plain import PlainWords
from connector.odrl_forms.template_files import Template
from connector.odrl_forms.templates import instantiate, origin
from connector.odrl_forms.text_form import parse_text, render_text
from connector.odrl_rdf.decoding import decoded, json_of
from connector.odrl_reading.parse import load
from connector.odrl_reading.reading import refusal
from connector.values import Value, replace

Form = Literal["json-ld", "turtle", "text", "templates"]
Library = Callable[[], Mapping[str, Template]]  # asked for when templates are chosen: others do without
TEXT_BYTES_MAX: Final = 1 << 20  # of the text form: as much as a call of the management API may hold
UNBOUND: Final = ("Set", "Policy", "Offer")  # they bind nobody, so that publishing one says the same as an offer of it


class Draft(Value):
    """What a policy that somebody wrote comes to. `form` is the one that it is in, `document` what `load` takes. `template` is what to keep
    beside the offer (`origin`), where templates were chosen: `{"templates": [{"template", "version", "parameters"}, ...]}`."""

    form: Form
    document: object
    template: Mapping[str, Any] | None = None

    @property
    def format(self) -> Literal["json-ld", "turtle"]:
        """The format of `document`, for `load`."""
        return "turtle" if self.form == "turtle" else "json-ld"


class Examined(Value):
    """What can be said of a policy: every finding, and in plain words what it means, None if it cannot be used. `document` is the offer to
    publish, with the choice of templates to keep beside it, if it was made from such; None if nothing can be published of it."""

    findings: tuple[Finding, ...]
    plain: PlainWords | None
    document: Mapping[str, Any] | None = None
    template: Mapping[str, Any] | None = None

    @property
    def refused(self) -> bool:
        """Whether a connector would not publish it."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for the management API."""
        return {
            "refused": self.refused,
            "findings": [finding.to_json() for finding in self.findings],
            "plain": self.plain.to_json() if self.plain is not None else None,
            "document": self.document,
            "template": self.template,
        }


def read_draft(content: bytes, form: Form, library: Library, *, options: Options = DEFAULT_OPTIONS) -> Draft:
    """Read what stands in a file. A JSON list is a choice of templates, a JSON object with a `template` one of a single one, and one with
    `templates` alone what was kept of a choice.

    `content` is UTF-8; `options.profiles` say which words the text form knows. Raises PolicyError with every mistake, in the text by line
    and column, in a choice by template and parameter.
    """
    if form == "text":
        return Draft("text", parse_text(decoded(content, TEXT_BYTES_MAX), options=options))
    if form == "turtle":
        return Draft("turtle", content)
    document = json_of(content)
    if isinstance(document, Mapping) and document.keys() == {"templates"} and isinstance(document["templates"], list):
        document = document["templates"]
    elif isinstance(document, Mapping) and "template" in document:
        document = [document]
    return chosen(document, library) if isinstance(document, list) else Draft("json-ld", document)


def chosen(choice: Sequence[Any], library: Library) -> Draft:
    """The offer of a choice of templates, see `instantiate`. Raises PolicyError."""
    known = library()
    document = instantiate(known, choice)
    return Draft("templates", document, {"templates": origin(known, choice)})


def offer_of(draft: Draft, *, options: Options = DEFAULT_OPTIONS) -> dict[str, Any]:
    """The document to publish, under the context of DSP 2025-1. What is written so already is left as it is, with its mistakes: whoever
    publishes it looks for them. Everything else is read and written anew; the asset that all its rules name is left out, because an offer
    is about the dataset within which it is published.

    Raises PolicyError for what is not understood, and for what an offer of the protocol cannot say.
    """
    document = draft.document
    if draft.format == "json-ld" and isinstance(document, Mapping) and _of_the_protocol(document):
        return dict(document)
    policy = load(document, draft.format, options=options)
    if policy.kind not in UNBOUND:
        what = f"it is of the kind `{policy.kind}`, and only an offer can be published"
        raise refusal("the policy", (Finding(Code.FORMAT_UNSUPPORTED, "/@type", what, "write an `Offer`, or a `Set`"),))
    found = parse_text(render_text(_hoisted(policy)), options=options)
    if not _of_the_protocol(found):
        what = "an offer of DSP 2025-1 cannot say it: one action without refinements for each rule, assets and assigners of the whole only"
        raise refusal("the policy", (Finding(Code.FORMAT_UNSUPPORTED, "", what, "split its rules, and leave the assets to the dataset"),))
    return {name: value for name, value in found.items() if name != "target"}


def _of_the_protocol(document: Mapping[str, Any]) -> bool:
    said = document.get("@context", DSP_CONTEXT)
    return "@graph" not in document and DSP_CONTEXT in (said if isinstance(said, list) else [said])


def _hoisted(policy: Policy) -> Policy:
    """The same as an offer, with the asset and the assigner that all its rules name said once, of the whole."""
    targets, assigners = ({getattr(rule, part) for rule in policy.rules} for part in ("targets", "assigners"))
    asset, assigner = _single(targets), _single(assigners)

    def rest(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        less: dict[str, Any] = {"targets": ()} if asset else {}
        less |= {"assigners": ()} if assigner else {}
        return tuple(replace(rule, **less) for rule in rules)

    return replace(
        policy,
        kind="Offer",
        target=asset or policy.target,
        assigner=assigner or policy.assigner,
        permissions=rest(policy.permissions),
        prohibitions=rest(policy.prohibitions),
        obligations=rest(policy.obligations),
    )


def _single(found: set[tuple[Scope, ...]]) -> str | None:
    """The one thing that every rule names, if it is one."""
    if len(found) != 1 or len(scopes := next(iter(found))) != 1 or scopes[0].collection or scopes[0].refinements:
        return None
    return scopes[0].id
