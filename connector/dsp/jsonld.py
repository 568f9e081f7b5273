"""Brings any JSON-LD form of a message into the compact form that the protocol's schemas describe.

DSP 2025-1 leaves it to the implementation whether a message is read as plain JSON or as JSON-LD. The plain reading is
the usual one; this is the other, for senders that use the expanded form, prefixes, or terms of their own. It must not
widen a policy: a term that no context defines is dropped by JSON-LD, so a policy that has one is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from connector.dsp.forms import tidy
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import quoted
from connector.errors import WireError

DEPTH_MAX = 64  # levels of objects and arrays; the deepest example of the protocol has 11
CONTEXTS_MAX = 32  # entries of all `@context` together; each is processed anew wherever it stands
CAUSE_MAX_CHARS = 200  # the library's own sentences fit; longer ones carry a value of the sender's

ODRL = "http://www.w3.org/ns/odrl/2/"
UNDEFINED = "urn:undefined-term:"  # stands for "no vocabulary" while terms without a definition are looked for

Context = Mapping[str, Any]


def compact(document: object, expected: str, contexts: Mapping[str, Context]) -> dict[str, Any]:
    """Return the compact form of `document` as one object of type `expected`, not yet checked against its schema.

    `document` is parsed JSON in any JSON-LD form, `expected` a class of the DSP context (`ContractRequestMessage`),
    `contexts` the only contexts there are (URL -> document). Raises `WireError` if the document is no JSON-LD, names a
    context outside of `contexts`, holds no such object, or has a policy with undefined terms.
    """
    from pyld import jsonld

    if not isinstance(document, (dict, list)):
        raise WireError("a message is a JSON object")
    _bound(document)
    document = with_imports(document, contexts)
    type_iri = iri_of(expected, contexts[DSP_CONTEXT])
    try:
        undefined: list[str | None] = []
        expanded = jsonld.expand(document, _options(contexts), on_property_dropped=undefined.append)
        if undefined:
            _refuse_undefined_terms_of_policies(document, contexts)
        if len(expanded) == 1 and type_iri in expanded[0].get("@type", ()):
            compacted = jsonld.compact(expanded, {"@context": CONTEXT}, _options(contexts, skipExpansion=True))
        else:
            frame = {"@context": CONTEXT, "@type": expected, **_root(expanded, expected, type_iri)}
            compacted = jsonld.frame(expanded, frame, _options(contexts, embed="@always", omitGraph=True, omitDefault=True))
    except jsonld.JsonLdError as error:
        raise _wire_error(error) from error
    compacted.pop("@context", None)
    if str(compacted.get("@id", "")).startswith("_:"):
        del compacted["@id"]  # a label within the document it came from, not a name
    return {"@context": list(CONTEXT), **tidy(compacted)}


def _root(expanded: list[dict[str, Any]], expected: str, type_iri: str) -> dict[str, str]:
    """Which object of a flattened graph is the message: the one of its type that no other object refers to."""
    found = [node for node in expanded if type_iri in node.get("@type", ())]
    if len(found) == 1:
        return {}
    referred = set(_references(expanded))
    roots = [node["@id"] for node in found if "@id" in node and node["@id"] not in referred]
    if len(roots) != 1:
        fault = f"the body must hold one object of type `{expected}`, holds {len(found)}"
        raise WireError(fault, (f"{fault}: {_types(expanded)}",))
    return {"@id": roots[0]}


def _references(expanded: list[dict[str, Any]]) -> Iterator[str]:
    left: list[object] = [value for node in expanded for key, value in node.items() if key != "@id"]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
            if isinstance(value.get("@id"), str):
                yield value["@id"]


def iri_of(type_: str, context: Context) -> str:
    """The IRI of a class of the DSP context. Raises `WireError` for a name that is none."""
    terms = context["@context"]
    definition = terms.get(type_)
    if not isinstance(definition, dict):
        raise WireError(f"{quoted(type_)} is not a type of the DSP context")
    prefix, _, name = definition["@id"].partition(":")
    return f"{terms[prefix]}{name}"


def _options(contexts: Mapping[str, Context], **more: Any) -> dict[str, Any]:
    """Options of one operation: no base, a loader that fetches nothing, and nothing left over from an earlier sender.

    The library keeps what it has resolved for the life of the process. Each operation therefore gets its own copies and
    its own resolver, or one body's contexts could change the next one's, and fill the memory.
    """
    from pyld.context_resolver import ContextResolver

    closed = {url: with_imports(context, contexts) for url, context in contexts.items()}

    def load(url: str, _options: object) -> dict[str, Any]:
        _known(url, contexts)
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": closed[url]}

    return {"base": None, "documentLoader": load, "contextResolver": ContextResolver({}, load), **more}


def with_imports(value: Any, contexts: Mapping[str, Context], in_context: bool = False) -> Any:
    """Return a copy of `value` in which each `@import` of a context is replaced by what it imports.

    JSON-LD 1.1: the entries of the imported context, overridden by those beside the `@import`. The library caches the
    result of one import and takes it for that of the next, so it must not see any. Raises `WireError` for a context,
    imported or named in an `@context`, that is not among `contexts`.
    """
    if isinstance(value, list):
        return [with_imports(item, contexts, in_context) for item in value]
    if not isinstance(value, dict):
        return value
    named = value.get("@context")
    for url in named if isinstance(named, list) else [named]:
        if isinstance(url, str):
            _known(url, contexts)
    entries = {key: with_imports(inner, contexts, in_context or key == "@context") for key, inner in value.items()}
    if in_context and isinstance(imports := entries.get("@import"), str):
        imported = _known(imports, contexts)["@context"]
        entries = {**deepcopy(imported), **entries}
        del entries["@import"]
    return entries


def _known(url: str, contexts: Mapping[str, Context]) -> Context:
    if url not in contexts:
        known = ", ".join(f"`{name}`" for name in contexts)
        raise WireError(f"the context {quoted(url)} is not known here; contexts are never fetched, known are {known}")
    return contexts[url]


def _bound(document: object) -> None:
    """Refuse what costs out of proportion: too deep, or too many contexts. Iterative, so that depth cannot break it."""
    level, depth, contexts = [document], 0, 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise WireError(f"the body is nested more than {DEPTH_MAX} levels deep")
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                if "@context" in value:
                    contexts += len(value["@context"]) if isinstance(value["@context"], list) else 1
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if contexts > CONTEXTS_MAX:
            raise WireError(f"the body has more than {CONTEXTS_MAX} contexts")
        level = [value for value in below if isinstance(value, (dict, list))]


def _refuse_undefined_terms_of_policies(document: object, contexts: Mapping[str, Context]) -> None:
    """Expand again with a vocabulary that catches every undefined term, and raise if one stands in a policy.

    A term that even so has no IRI was mapped to null on purpose; its place is not known, so it counts as in a policy.
    """
    from pyld import jsonld

    nulled: list[str | None] = []
    expanded = jsonld.expand(document, _options(contexts, expandContext={"@vocab": UNDEFINED}), on_property_dropped=nulled.append)
    terms = sorted(set(_undefined_in_policies(expanded, inside=False)))
    if nulled or terms:
        named = ", ".join(quoted(term) for term in terms[:5]) or "a term that its context maps to null"
        raise WireError(f"no context gives a meaning to {named}; what is not understood in a policy is refused")


def _undefined_in_policies(value: object, inside: bool) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _undefined_in_policies(item, inside)
    elif isinstance(value, dict):
        # in a flattened graph a policy is known by its own type and properties, not by where it stands
        types = value.get("@type", ())
        inside = inside or any(str(t).startswith(ODRL) for t in types) or any(k.startswith(ODRL) and k != ODRL + "hasPolicy" for k in value)
        for key, inner in value.items():
            if inside and key.startswith(UNDEFINED):
                yield key.removeprefix(UNDEFINED)
            yield from _undefined_in_policies(inner, inside or key.startswith(ODRL) or key.endswith(("/offer", "/agreement")))


def _types(expanded: list[dict[str, Any]]) -> str:
    types = sorted({str(t) for node in expanded for t in node.get("@type", ())})
    named = ", ".join(quoted(t) for t in types[:5])
    return f"its objects have the types {named}" if types else "no object of it has a type that its contexts define"


def _wire_error(error: BaseException) -> WireError:
    """What the innermost cause says; the outer ones of the library speak of servers and CORS."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, WireError):
        return error
    text = str(error.args[0]).removeprefix("Invalid JSON-LD syntax; ").rstrip(".") if error.args else type(error).__name__
    if not text.isprintable() or len(text) > CAUSE_MAX_CHARS:
        text = "a term or value is malformed"
    return WireError(f"the body is not valid JSON-LD: {text}")
