"""The official files as an oracle, seeds of every message, and a seeded stream of mutations of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import orjson
from jsonschema import Draft201909Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT201909

from connector.dsp.messages import DSP_CONTEXT
from connector.dsp.schemas import BASE, SCHEMA_OF

OFFICIAL = Path(__file__).parents[1] / "data" / "dsp-2025-1"
ODRL_PROFILE = "https://w3id.org/dspace/2025/1/odrl-profile.jsonld"
CONTEXT = [DSP_CONTEXT]
DID_CONTEXT = "https://www.w3.org/ns/did/v1"

Document = dict[str, Any]

# Keywords that say no by themselves, and those that only pass on what is said below them.
ASSERTIONS = {"required", "const", "enum", "type", "minItems", "oneOf", "anyOf", "not", "contains", "pattern"}
APPLICATORS = {"items", "properties", "allOf"}
# A string has no items: this one place of the official files can never say no.
NEVER_APPLIES = ("common/context-schema.json", "/definitions/ContextSchema/items/items", "type")
PARTS_MOST = 10_000  # of messages, whose verdict is remembered: equal parts come soon after each other


@cache
def official_schemas() -> dict[str, Document]:
    """`$id` -> document. Three fragments of the official files lack their slash; they are mended here, on load."""
    texts = [path.read_text() for path in sorted(OFFICIAL.glob("*/*-schema.json"))]
    documents = [json.loads(text.replace(".json#definitions/", ".json#/definitions/")) for text in texts]
    return {document["$id"]: document for document in documents}


@cache
def _judging() -> dict[str, Document]:
    """The official schemas without the name of their dialect: where it stands, the reference implementation goes on by its own `$ref`."""
    return {id_: _without(document, "$schema") for id_, document in official_schemas().items()}


@cache
def official_contexts() -> dict[str, Document]:
    files = {DSP_CONTEXT: "dspace.jsonld", ODRL_PROFILE: "odrl.jsonld"}
    return {url: json.loads((OFFICIAL / "context" / name).read_text()) for url, name in files.items()}


def validators(schemas: dict[str, Any]) -> dict[str, Any]:
    """Shape -> validator of the reference implementation."""
    registry = Registry().with_resources((id_, DRAFT201909.create_resource(document)) for id_, document in schemas.items())
    known: dict[int, Any] = {}  # by the schema that refers, all of which live as long as the registry: a third of the time went there
    said: dict[tuple[int, bytes], tuple[ValidationError, ...]] = {}  # what is left of it went to parts that no mutation had touched

    def follow(validator: Any, reference: str, instance: Any, schema: Document) -> Iterator[ValidationError]:
        if (found := known.get(id(schema))) is None:
            found = known[id(schema)] = validator._resolver.lookup(reference)
        part = id(found.contents), orjson.dumps(instance)
        if (errors := said.get(part)) is None:
            errors = tuple(validator.descend(instance, found.contents, resolver=found.resolver))
            if len(said) >= PARTS_MOST:
                said.clear()
            said[part] = errors
        return map(_said_again, errors)

    following = extend(Draft201909Validator, {"$ref": follow})
    return {name: following({"$ref": BASE + place}, registry=registry) for name, place in SCHEMA_OF.items()}


def _said_again(error: ValidationError) -> ValidationError:
    """The same of an equal part at another place: whoever refers to the part writes its path into the error."""
    return ValidationError(
        error.message,
        validator=error.validator,
        path=error.relative_path,
        cause=error.cause,
        context=[_said_again(inner) for inner in error.context or ()],
        validator_value=error.validator_value,
        instance=error.instance,
        schema=error.schema,
        schema_path=error.relative_schema_path,
    )


@cache
def oracle() -> dict[str, Any]:
    return validators(_judging())


def examples() -> Iterator[tuple[str, str, Document]]:
    """Yield (file, shape, document) of every official example."""
    for path in sorted(OFFICIAL.glob("*/example/*.json")):
        document = json.loads(path.read_text())
        shape = document.get("@type") or ("VersionResponse" if "protocolVersions" in document else "DidService")
        yield path.relative_to(OFFICIAL).as_posix(), shape, document


# ---- which keyword says no, and where


@cache
def _places() -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}

    def walk(value: Any, file: str, pointer: str) -> None:
        if isinstance(value, dict):
            found[id(value)] = (file, pointer)
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            walk(inner, file, f"{pointer}/{key}")

    for id_, document in _judging().items():
        walk(document, id_.removeprefix(BASE), "")
    return found


def broken(error: ValidationError) -> Iterator[tuple[str, str, str]]:
    """Yield (file, pointer, keyword) of every official keyword that an error is about, those of its alternatives included."""
    place = _places().get(id(error.schema))
    if place:
        yield (*place, str(error.validator))
    for keyword in {str(part) for part in error.absolute_schema_path} & APPLICATORS:
        yield ("", "", keyword)
    for inner in error.context or ():
        yield from broken(inner)


@cache
def reachable(shape: str) -> frozenset[tuple[str, str, str]]:
    """Every (file, pointer, keyword) that can say no about a document of this shape."""
    schemas, found, seen = official_schemas(), set(), set()

    def follow(reference: str, file: str) -> None:
        target, _, fragment = reference.partition("#")
        name = target.removeprefix(BASE) or file
        value: Any = schemas[BASE + name]
        for part in fragment.split("/")[1:]:
            value = value[part]
        walk(value, name, fragment)

    def walk(schema: Document, file: str, pointer: str) -> None:
        if (file, pointer) in seen:
            return
        seen.add((file, pointer))
        for keyword, value in schema.items():
            here = f"{pointer}/{keyword}"
            if keyword in ASSERTIONS:
                found.add((file, pointer, keyword))
            if keyword == "$ref":
                follow(value, file)
            elif keyword in ("items", "contains", "not"):
                walk(value, file, here)
            elif keyword == "properties":
                for name, inner in value.items():
                    walk(inner, file, f"{here}/{name}")
            elif keyword in ("allOf", "anyOf", "oneOf"):
                for index, inner in enumerate(value):
                    walk(inner, file, f"{here}/{index}")

    follow(BASE + SCHEMA_OF[shape], "")
    # what stands below `contains` and `not` is not reported: the outer keyword says no
    return frozenset(place for place in found if "/contains" not in place[1] and "/not" not in place[1] and place != NEVER_APPLIES)


# ---- seeds: one small and one full document of each shape


def _constraint(operand: str = "odrl:purpose") -> Document:
    return {"leftOperand": operand, "operator": "eq", "rightOperand": "research"}


def _groups() -> list[Document]:
    return [
        {"and": [_constraint(), {"or": [_constraint("a"), {**_constraint("b"), "operator": "lteq"}]}]},
        {"andSequence": [_constraint(), _constraint("odrl:spatial")]},
        {
            "xone": [
                {**_constraint(), "rightOperand": {"@value": "5", "@type": "xsd:integer"}},
                {**_constraint(), "operator": "isAnyOf", "rightOperand": ["x", "y"]},
            ]
        },
    ]


def _policy(**more: Any) -> Document:
    return {"@id": "urn:example:policy:1", "permission": [{"action": "use"}], **more}


def _full_policy(**more: Any) -> Document:
    return {
        "@id": "urn:example:policy:2",
        "profile": ["https://example.org/profile"],
        "permission": [{"action": "use", "constraint": [_constraint(), *_groups()]}],
        "prohibition": [{"action": "odrl:distribute", "constraint": [_constraint()]}],
        "obligation": [{"action": "odrl:delete", "constraint": [_constraint("odrl:dateTime")]}],
        **more,
    }


def _ruled_policy(**more: Any) -> Document:
    """A rule of each kind: groups of constraints are the matter of policies that stand alone, and cost the oracle most of its time."""
    return _full_policy(**more) | {"permission": [{"action": "use", "constraint": [_constraint()]}]}


_AGREED = {"@type": "Agreement", "target": "urn:example:ds:1", "assigner": "did:web:p.test", "assignee": "did:web:c.test"}
_TIME = {"timestamp": "2026-11-23T22:15:00.5+01:00"}
_SERVICE = {"@id": "urn:example:service", "@type": "DataService", "endpointURL": "https://p.test/dsp"}
_DISTRIBUTION = {"@type": "Distribution", "format": "HttpData-PULL", "accessService": "urn:example:service"}
_ADDRESS = {
    "@type": "DataAddress",
    "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
    "endpoint": "https://p.test/data/1",
    "endpointProperties": [{"@type": "EndpointProperty", "name": "authorization", "value": "t0k3n"}],
}


def _dataset() -> Document:
    inner = {"@id": "urn:example:ds:2", "hasPolicy": [_policy()], "distribution": [_DISTRIBUTION]}
    return {
        "@id": "urn:example:ds:1",
        "@type": "Dataset",
        "hasPolicy": [_policy(**{"@type": "Offer"}), _ruled_policy(**{"@type": "Offer"})],
        "distribution": [{**_DISTRIBUTION, "accessService": {**_SERVICE, "servesDataset": [inner]}, "hasPolicy": [_policy()]}],
    }


def _catalog() -> Document:
    return {
        "@id": "urn:example:catalog",
        "@type": "Catalog",
        "dataset": [_dataset()],
        "service": [_SERVICE],
        "distribution": [_DISTRIBUTION],
        "catalog": [{"@id": "urn:example:sub", "@type": "Catalog", "service": [_SERVICE]}],
    }


def _message(type_: str, **more: Any) -> Document:
    return {"@context": CONTEXT, "@type": type_, "providerPid": "urn:uuid:p", "consumerPid": "urn:uuid:c", **more}


def _without(document: Document, *names: str) -> Document:
    return {name: value for name, value in document.items() if name not in names}


@cache
def seeds() -> dict[str, list[Document]]:
    """Shape -> valid documents: the official examples and our own, which together use every property of every schema."""
    offer = {"@type": "Offer", "target": "urn:example:ds:1"}
    request, callback = "ContractRequestMessage", {"callbackAddress": "https://c.test/dsp"}
    code = {"code": "99", "reason": ["no", {"en": "no"}]}
    own: dict[str, list[Document]] = {
        "VersionResponse": [],
        "DidService": [],
        "CatalogRequestMessage": [{"@context": CONTEXT, "@type": "CatalogRequestMessage"}],
        "DatasetRequestMessage": [],
        "Catalog": [{"@context": CONTEXT, "participantId": "did:web:p.test", **_catalog()}],
        "Dataset": [{"@context": CONTEXT, **_dataset()}],
        "CatalogError": [{"@context": CONTEXT, "@type": "CatalogError"}],
        "Policy": [_policy(**_AGREED), _full_policy(**_AGREED, **_TIME), _policy(**offer), _policy()],
        "Offer": [_policy(), {"@id": "urn:x", "prohibition": [{"action": "use"}]}, _full_policy(**{"@type": "Offer"})],
        "MessageOffer": [_policy(**offer), _full_policy(**{"@type": "Offer"})],
        "Agreement": [_policy(**_AGREED), _full_policy(**_AGREED, **_TIME)],
        request: [
            _without(_message(request, **callback, offer=_ruled_policy(**offer)), "providerPid"),
            _message(request, offer=_policy(**{"@type": "Offer"})),
        ],
        "ContractOfferMessage": [_message("ContractOfferMessage", offer=_ruled_policy(**offer))],
        "ContractAgreementMessage": [_message("ContractAgreementMessage", agreement=_ruled_policy(**_AGREED, **_TIME))],
        "ContractAgreementVerificationMessage": [],
        "ContractNegotiationEventMessage": [_message("ContractNegotiationEventMessage", eventType="FINALIZED")],
        "ContractNegotiationTerminationMessage": [_message("ContractNegotiationTerminationMessage", **code)],
        "ContractNegotiation": [_message("ContractNegotiation", state="AGREED")],
        "ContractNegotiationError": [_message("ContractNegotiationError", **code)],
        "TransferRequestMessage": [
            _without(_message("TransferRequestMessage", agreementId="urn:a", format="HttpData-PULL", **callback), "providerPid")
        ],
        "TransferStartMessage": [_message("TransferStartMessage")],
        "TransferSuspensionMessage": [_message("TransferSuspensionMessage", **code)],
        "TransferCompletionMessage": [],
        "TransferTerminationMessage": [_message("TransferTerminationMessage")],
        "TransferProcess": [_message("TransferProcess", state="SUSPENDED")],
        "TransferError": [_message("TransferError", **code)],
        "DataAddress": [_ADDRESS, {"@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP"}],
    }
    for _, shape, document in examples():
        own[shape].append(document)
    return own


# ---- mutations

Path_ = tuple[str | int, ...]
ODD_VALUES: tuple[Any, ...] = (None, True, 0, 5, 1.5, "", "x", [], {}, [[]], ["x"], [5], {"@id": "urn:x"}, {"a": {}})
KEEP = {"@type", "type", "state", "eventType", "operator", "binding", "timestamp", "serviceEndpoint"}  # strings that are not free
WORDS = ("urn:x", "did:web:w.test", "https://w.test/a?b=c#d", "", "桥", "a b", "HttpData-PUSH", "odrl:read", "x" * 200)
WRONG_WORDS = ("EQ", "requested", "FINALISED", "HTTP", "dspace:Offer", "2026-13-01T00:00:00Z", "2026-01-01", "https://p.test/catalogs")
TIMES = ("2026-11-23T22:15:00Z", "-0044-03-15T24:00:00.0", "on 12026-01-31T23:59:59.999-14:00 or so", "2026-02-30T00:00:00")
ADDITIONS: tuple[tuple[str, Any], ...] = (
    ("hasPolicy", [_policy()]),
    ("hasPolicy", []),
    ("target", "urn:t"),
    ("target", 5),
    ("callbackAddress", "https://c.test/"),
    ("providerPid", "urn:p"),
    ("consumerPid", "urn:c"),
    ("prohibition", [{"action": "use"}]),
    ("obligation", [{"action": "use"}]),
    ("profile", "urn:p"),
    ("profile", ["urn:p", 5]),
    ("code", 5),
    ("reason", []),
    ("reason", ["x"]),
    ("filter", {}),
    ("and", [_constraint()]),
    ("or", []),
    ("xone", "x"),
    ("constraint", [{}]),
    ("constraint", []),
    ("rightOperand", 5),
    ("timestamp", "2026-11-23T22:15:00Z"),
    ("timestamp", "tomorrow"),
    ("auth", {"protocol": "x"}),
    ("servesDataset", []),
    ("endpointProperties", []),
    ("dataAddress", {"@type": "DataAddress"}),
    ("@type", "Agreement"),
    ("@type", "Offer"),
)


@dataclass(frozen=True)
class Fault:
    """One change that usually breaks a document: at `path`, of a `kind`, with a `value` where the kind needs one."""

    kind: str
    path: Path_
    name: str = ""
    value: Any = None

    def fits(self, document: Any) -> bool:
        """Whether `document` still has the place."""
        return any(path == self.path for path in _nodes(document))

    def apply(self, document: Any) -> Any:
        """Return `document`, changed in place, or what stands instead of it."""
        if not self.path and self.kind == "replace":
            return copy.deepcopy(self.value)
        if self.kind == "add":
            _at(document, self.path)[self.name] = copy.deepcopy(self.value)
            return document
        holder, key = _at(document, self.path[:-1]), self.path[-1]
        if self.kind == "drop":
            del holder[key]
        elif self.kind == "insert":
            holder[key] = [copy.deepcopy(self.value), *holder[key]]
        elif self.kind == "wrap":
            holder[key] = {"@set": holder[key]} if isinstance(holder[key], list) else [holder[key]]
        else:
            holder[key] = copy.deepcopy(self.value)
        return document


def faults(document: Document) -> list[Fault]:
    """Every single fault, once for each kind of place."""
    return [fault for path in _kinds_of_places(document) for fault in _faults_at(_at(document, path), path)]


def _kinds_of_places(document: Document) -> list[Path_]:
    """One place of each kind: `/a/0/b` and `/a/1/b` are the same kind."""
    found: dict[tuple[str | int, ...], Path_] = {}
    for path in _nodes(document):
        found.setdefault(tuple("*" if isinstance(part, int) else part for part in path), path)
    return list(found.values())


def _faults_at(value: Any, path: Path_) -> Iterator[Fault]:
    yield from (Fault("replace", path, value=odd) for odd in ODD_VALUES)
    if path:
        yield Fault("wrap", path)
        yield Fault("drop", path)
    if isinstance(value, list) and path:
        yield Fault("empty", path, value=[])
        yield Fault("cut", path, value=value[:1])
        yield from (Fault("insert", path, value=odd) for odd in (5, "x", {}))
    if isinstance(value, dict):
        yield from (Fault("add", path, name, added) for name, added in ADDITIONS)
    if isinstance(value, str) and path[-1] in KEEP | {0}:
        yield from (Fault("misspell", path, value=word) for word in (*WRONG_WORDS, *_enumerated()))


@cache
def _enumerated() -> tuple[str, ...]:
    """Every word of every `enum` of the official schemas."""
    return tuple(sorted({word for id_ in official_schemas() for word in _words_of(official_schemas()[id_])}))


def _words_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _words_of(inner)


def _nodes(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _nodes(inner, (*path, key))


def _at(document: Any, path: Path_) -> Any:
    for part in path:
        document = document[part]
    return document


def _pick(document: Any, rng: Random, want: Callable[[Any, Path_], bool]) -> Path_ | None:
    fitting = [path for path in _nodes(document) if want(_at(document, path), path)]
    return rng.choice(fitting) if fitting else None


def gently_changed(document: Document, rng: Random) -> Document:
    """A changed copy that usually is as valid as the document was."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind == 0 and (path := _pick(document, rng, lambda v, _: isinstance(v, dict))) is not None:
            _at(document, path)[rng.choice(("title", "dct:title", "urn:x:extra", "@index"))] = rng.choice(("x", "1", "é"))
        elif kind == 1 and (path := _pick(document, rng, _is_free_text)):
            _at(document, path[:-1])[path[-1]] = rng.choice(WORDS)
        elif kind == 2 and (path := _pick(document, rng, lambda v, _: isinstance(v, list) and bool(v))):
            items = _at(document, path)
            items.insert(rng.randrange(len(items) + 1), copy.deepcopy(rng.choice(items)))
        elif kind == 3 and isinstance(document.get("@context"), list):
            document["@context"].insert(rng.randrange(2), "https://w3id.org/edc/dspace/v0.0.1")
        elif kind == 4 and (path := _pick(document, rng, lambda v, p: isinstance(v, str) and p[-1] == "timestamp")):
            _at(document, path[:-1])[path[-1]] = rng.choice(TIMES)
        elif kind == 5 and (path := _pick(document, rng, lambda v, _: isinstance(v, dict) and "leftOperand" in v)):
            _at(document, path)["operator"] = rng.choice(("gt", "neq", "isNoneOf", "term-lteq", "hasPart"))
    return document


def _is_free_text(value: Any, path: Path_) -> bool:
    return isinstance(value, str) and path[-1] not in KEEP and path[0] != "@context"


def mutations(shape: str, count: int) -> Iterator[Any]:
    """Yield `count` mutated documents of a shape, the same on every run; about two thirds stay valid."""
    for number in range(count):
        rng = Random(f"{shape}:{number}")
        document = gently_changed(seeds()[shape][number % len(seeds()[shape])], rng)
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            if isinstance(document, dict) and document:
                place, kinds = rng.choice(_kinds_of_places(document)), dict[str, list[Fault]]()
                for fault in _faults_at(_at(document, place), place):
                    kinds.setdefault(fault.kind, []).append(fault)
                document = rng.choice(kinds[rng.choice(sorted(kinds))]).apply(document)
        yield document
