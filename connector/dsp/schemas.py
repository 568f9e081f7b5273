"""Says whether a document has the shape of its message type, and if not, where and why.

DSP 2025-1 defines its messages by JSON Schema (draft 2019-09): a compact document that validates is a correct message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs

from connector.dsp.messages import DSP_CONTEXT
from connector.values import Value

BASE = "https://w3id.org/dspace/2025/1/"
_POLICY = "negotiation/contract-schema.json#/definitions/"

# Name of a shape -> its schema below BASE. For everything with an `@type` of its own on the wire the name is that type;
# `MessageOffer` is the `Offer` inside of a message, `Offer` the one inside of a catalog (DSP 2025-1, policy schema).
SCHEMA_OF: dict[str, str] = {
    "VersionResponse": "common/protocol-version-schema.json",
    "DidService": "common/did-service-schema.json",
    "CatalogRequestMessage": "catalog/catalog-request-message-schema.json",
    "DatasetRequestMessage": "catalog/dataset-request-message-schema.json",
    "Catalog": "catalog/catalog-schema.json",
    "Dataset": "catalog/dataset-schema.json",
    "CatalogError": "catalog/catalog-error-schema.json",
    "Policy": "negotiation/contract-schema.json",
    "Offer": _POLICY + "Offer",
    "MessageOffer": _POLICY + "MessageOffer",
    "Agreement": _POLICY + "Agreement",
    "ContractRequestMessage": "negotiation/contract-request-message-schema.json",
    "ContractOfferMessage": "negotiation/contract-offer-message-schema.json",
    "ContractAgreementMessage": "negotiation/contract-agreement-message-schema.json",
    "ContractAgreementVerificationMessage": "negotiation/contract-agreement-verification-message-schema.json",
    "ContractNegotiationEventMessage": "negotiation/contract-negotiation-event-message-schema.json",
    "ContractNegotiationTerminationMessage": "negotiation/contract-negotiation-termination-message-schema.json",
    "ContractNegotiation": "negotiation/contract-negotiation-schema.json",
    "ContractNegotiationError": "negotiation/contract-negotiation-error-schema.json",
    "TransferRequestMessage": "transfer/transfer-request-message-schema.json",
    "TransferStartMessage": "transfer/transfer-start-message-schema.json",
    "TransferSuspensionMessage": "transfer/transfer-suspension-message-schema.json",
    "TransferCompletionMessage": "transfer/transfer-completion-message-schema.json",
    "TransferTerminationMessage": "transfer/transfer-termination-message-schema.json",
    "TransferProcess": "transfer/transfer-process-schema.json",
    "TransferError": "transfer/transfer-error-schema.json",
    "DataAddress": "transfer/data-address-schema.json",
}

REASONS_MAX = 10  # a sender mends a message by its first faults; more would only make the answer a lever
REASON_MAX_CHARS = 320  # the longest list of allowed values plus a pointer fits
ECHO_MAX_CHARS = 80  # a longer value is described, so that nobody writes our logs and answers for us
LASTING_MAX_VALUES = 100  # looked at for each message that is not valid, hence fewer: some 5 ms at the worst
DETAIL_MAX_VALUES = 500  # an error of the validator costs up to 0.1 ms for each value below it, and the caller waits on a shared loop
TOO_DEEP = "the document is nested too deeply, or holds text that is not Unicode"


class Violation(Value):
    """One broken keyword of a schema, free of the library that found it.

    `path` leads into the document, `expected` is the keyword's value as far as the library tells, `found` the part of
    the document, `branches` the violations of each alternative of `oneOf` or `anyOf`.
    """

    path: tuple[str | int, ...]
    keyword: str
    expected: Any
    found: Any
    branches: tuple[tuple[Violation, ...], ...] = ()


class Schemas:
    """Validators for every shape of SCHEMA_OF, compiled once.

    `documents` maps the `$id` of each schema to its document. Raises `ValueError` for a missing or broken schema.
    """

    def __init__(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        resources = [(id_, dict(document)) for id_, document in documents.items()]
        registry = jsonschema_rs.Registry(resources, draft=jsonschema_rs.Draft201909)
        self._validators = {
            name: jsonschema_rs.Draft201909Validator({"$ref": BASE + place}, registry=registry, offline=True)
            for name, place in SCHEMA_OF.items()
        }

    def is_valid(self, type_: str, document: object) -> bool:
        """Whether `document` has the shape `type_`; an unknown shape has no valid documents.

        `document` is what orjson reads, hence at most 1024 levels deep; the validator recurses.
        """
        validator = self._validators.get(type_)
        try:
            return validator is not None and validator.is_valid(document)
        except ValueError:  # beyond the validator's depth limit, or a lone surrogate
            return False

    def reasons(self, type_: str, document: object) -> list[str]:
        """Why `document` has not the shape `type_`: at most REASONS_MAX sentences with JSON pointers, none if it has.

        A document of more than DETAIL_MAX_VALUES values gets one general sentence.
        """
        validator = self._validators.get(type_)
        if validator is None:
            return [f"{quoted(type_)} is not a message type of DSP 2025-1"]
        if self.is_valid(type_, document):
            return []
        if _is_large(document, DETAIL_MAX_VALUES):
            return [f"the document does not fit the schema of `{type_}`; it is too large to say here where"]
        try:
            return sentences(_violation(error) for error in validator.iter_errors(document))
        except ValueError:
            return [TOO_DEEP]

    def faults(self, type_: str, document: object) -> list[tuple[str, str]]:
        """The reasons with the JSON pointer of what each is about ("" for the whole document), for whoever mends the document in a form."""
        validator = self._validators.get(type_)
        if validator is None or self.is_valid(type_, document) or _is_large(document, DETAIL_MAX_VALUES):
            return [("", reason) for reason in self.reasons(type_, document)]
        try:
            found = [fault for error in validator.iter_errors(document) for fault in _explain(_violation(error))]
        except ValueError:
            return [("", TOO_DEEP)]
        return [(pointer(path), _shortened(text)) for path, text in dict.fromkeys(found)][:REASONS_MAX]

    def lasting(self, type_: str, document: object) -> list[str]:
        """The reasons, if one of them lasts in whatever JSON-LD form the same values are written, under the same bare terms;
        none if it takes expansion to know, or too long to look."""
        validator = self._validators.get(type_)
        if validator is None or _is_large(document, LASTING_MAX_VALUES):
            return []
        try:
            violations = [_violation(error) for error in validator.iter_errors(document)]
        except ValueError:
            return []
        return sentences(violations) if any(map(_lasts, violations)) else []


def _lasts(violation: Violation) -> bool:
    """Whether no other form mends it: a member is missing. One that is there may still be written as another kind of value."""
    if violation.branches:
        return all(any(map(_lasts, branch)) for branch in violation.branches)
    return violation.keyword == "required"


def _is_large(document: object, values_max: int) -> bool:
    left, count = [document], 0
    while left and count <= values_max:
        value = left.pop()
        count += 1
        if isinstance(value, dict):
            left.extend(islice(value.values(), values_max))
        elif isinstance(value, list):
            left.extend(value[:values_max])
    return count > values_max


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    keyword, value = error.kind.name, error.kind.value
    branches: tuple[tuple[Violation, ...], ...] = ()
    if keyword in ("oneOf", "anyOf"):
        branches = tuple(tuple(_violation(inner) for inner in branch) for branch in value)
        value = None
    return Violation(tuple(error.instance_path), keyword, value, error.instance, branches)


def sentences(violations: Iterable[Violation]) -> list[str]:
    """At most REASONS_MAX different sentences, each at most REASON_MAX_CHARS long."""
    found: dict[str, None] = {}
    for violation in violations:
        for _, sentence in _explain(violation):
            found[_shortened(sentence)] = None
        if len(found) >= REASONS_MAX:
            break
    return list(islice(found, REASONS_MAX))


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= REASON_MAX_CHARS else sentence[: REASON_MAX_CHARS - 1] + "…"


def _explain(violation: Violation) -> Sequence[tuple[tuple[str | int, ...], str]]:
    """Where each fault is, and what it is."""
    if violation.branches and all(violation.branches):
        return _explain_alternatives(violation)
    where = f"`{pointer(violation.path)}`" if violation.path else "the document"
    expected, found = violation.expected, violation.found
    match violation.keyword:
        case "required":
            # one library names the missing property, the other lists all that are required
            missing = [expected] if isinstance(expected, str) else [name for name in expected if name not in found]
            text = f"{where} lacks {listed(missing, 'and')}"
        case "type":
            text = f"{where} must be {_kinds([expected] if isinstance(expected, str) else expected)}, not {_kind(found)}"
        case "const":
            text = f"{where} must be {quoted(expected)}, not {quoted(found)}"
        case "enum":
            text = f"{where} must be one of {listed(expected, 'or')}, not {quoted(found)}"
        case "minItems":
            text = f"{where} must hold at least {expected} entry; leave the property out if there is none"
        case "contains":
            text = f"{where} must contain {quoted(expected['const'] if isinstance(expected, dict) else DSP_CONTEXT)}"
        case "pattern":
            text = f"{where} has the value {quoted(found)}, which does not match its pattern"
        case "not" if isinstance(expected, dict) and "required" in expected:
            text = f"{where} must not hold {listed(expected['required'], 'and')}"
        case "oneOf":
            text = f"{where} must hold exactly one of its alternatives{_alternatives(expected)}, but holds more"
        case keyword:
            text = f"{where} breaks the rule `{keyword}` of its schema"
    return ((violation.path, text),)


def _explain_alternatives(violation: Violation) -> Sequence[tuple[tuple[str | int, ...], str]]:
    branches, where = violation.branches, f"`{pointer(violation.path)}`" if violation.path else "the document"
    own = [branch[0] for branch in branches if len(branch) == 1 and branch[0].path == violation.path]
    if len(own) == len(branches):
        if all(v.keyword == "required" for v in own):
            names = [v.expected if isinstance(v.expected, str) else v.expected[0] for v in own]
            count = "exactly one" if violation.keyword == "oneOf" else "at least one"
            return ((violation.path, f"{where} must hold {count} of {listed(names, 'or')}"),)
        if all(v.keyword == "type" for v in own):
            kinds = [kind for v in own for kind in ([v.expected] if isinstance(v.expected, str) else v.expected)]
            return ((violation.path, f"{where} must be {_kinds(kinds)}, not {_kind(violation.found)}"),)
    nearest = min(branches, key=lambda branch: sum(_distance(violation, inner) for inner in branch))
    return [fault for inner in nearest for fault in _explain(inner)]


def _distance(outer: Violation, inner: Violation) -> int:
    """How far an alternative is from what the sender meant: a wrong kind is far, a fault deeper inside is near."""
    if inner.path != outer.path:
        return 0
    return {"type": 8, "oneOf": 3, "anyOf": 3}.get(inner.keyword, 1)


def _alternatives(expected: Any) -> str:
    names = [part["required"][0] for part in expected or () if isinstance(part, dict) and part.get("required")]
    return f" {listed(names, 'or')}" if names else ""


def pointer(path: Iterable[str | int]) -> str:
    """The RFC 6901 JSON pointer of a path into a document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def quoted(value: Any) -> str:
    """A value for an error text: in backticks, never longer than ECHO_MAX_CHARS, never with control characters."""
    if isinstance(value, (dict, list)):
        return _kind(value)
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
    return f"`{text}`" if len(text) <= ECHO_MAX_CHARS else f"a text of {len(text)} characters"


def listed(values: Sequence[Any], conjunction: str) -> str:
    """`a`, `b` or `c`."""
    parts = [quoted(value) for value in values]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"


def _kinds(names: Sequence[str]) -> str:
    articles = {name: f"an {name}" if name[0] in "aeiou" else f"a {name}" for name in names}
    return " or ".join(articles[name] for name in names)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case dict():
            return "an object"
        case list():
            return "an array"
        case _:
            return "a number"
