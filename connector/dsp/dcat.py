"""Datasets and offers as DCAT: what a catalog carries, made once at publication and only joined afterwards.

A dataset's description is rendered to bytes when it is published. A catalog page is those bytes between a head and a
tail, so that its cost does not grow with the number of datasets a connector holds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from connector.dsp.messages import CONTEXT

FORMAT_PULL, FORMAT_PUSH = "HttpData-PULL", "HttpData-PUSH"
EXPLAINED_MAX = 20  # of the datasets that are left out of a catalog: each costs milliseconds
OFFER_NAMESPACE = uuid.UUID("5f1c1f0e-6d0b-5c0e-9a5c-4d1f0a4e7a11")  # random, fixed: makes offer ids repeatable


def offer_id(dataset: str, policy: Mapping[str, Any]) -> str:
    """A `urn:uuid:` that follows from dataset and terms: publishing the same again changes no offer's id, and no two
    datasets share one (DSP 2025-1, catalog: an offer belongs to exactly one dataset)."""
    terms = {k: v for k, v in policy.items() if k not in ("@id", "@context")}
    name = dataset.encode() + b"\0" + orjson.dumps(terms, option=orjson.OPT_SORT_KEYS)
    return f"urn:uuid:{uuid.uuid5(OFFER_NAMESPACE, name.decode('utf-8', 'surrogateescape'))}"


def offer_document(id: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """A catalog offer: the policy under its id, without target, since the enclosing dataset is its target."""
    rest = {k: v for k, v in policy.items() if k not in ("@id", "@type", "@context", "target")}
    return {"@id": id, "@type": "Offer"} | rest


def message_offer(id: str, policy: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The same terms as a message carries them: with the dataset as target."""
    return offer_document(id, policy) | {"target": dataset}


def dataset_document(
    id: str,
    title: str,
    offers: Iterable[tuple[str, Mapping[str, Any]]],
    service: str,
    *,
    media_type: str,
    size_bytes: int | None = None,
    description: str | None = None,
    keywords: tuple[str, ...] = (),
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A DCAT dataset in compact form.

    `offers` are (id, policy); `service` is the id of the data service that hands it out; `properties` are further members
    with prefixed keys (`dct:`, `dcat:`): bare ones would be dropped by JSON-LD readers.
    """
    common: dict[str, Any] = {"accessService": service, "dcat:mediaType": media_type}
    if size_bytes is not None:
        common["dcat:byteSize"] = {"@value": str(size_bytes), "@type": "xsd:nonNegativeInteger"}
    formats = (FORMAT_PULL,) if size_bytes is None else (FORMAT_PULL, FORMAT_PUSH)  # what has no end is fetched
    distributions = [{"@type": "Distribution", "format": format} | common for format in formats]
    document: dict[str, Any] = {"@id": id, "@type": "Dataset", "dct:title": title}
    if description:
        document["dct:description"] = description
    if keywords:
        document["dcat:keyword"] = list(keywords)
    document |= dict(properties or {})
    return document | {"hasPolicy": [offer_document(i, p) for i, p in offers], "distribution": distributions}


def service_document(id: str, endpoint: str) -> dict[str, Any]:
    """The data service of this connector; `endpoint` is the `<base>` that negotiation and transfer endpoints extend."""
    return {"@id": id, "@type": "DataService", "endpointURL": endpoint}


def catalog(id: str, participant: str, service: Mapping[str, Any], datasets: list[bytes], nested: list[Mapping[str, Any]]) -> bytes:
    """A root catalog of rendered datasets. Empty arrays are left out, as the schema demands."""
    head = {"@context": CONTEXT, "@id": id, "@type": "Catalog", "participantId": participant, "service": [service]}
    if nested:
        head["catalog"] = nested
    body = orjson.dumps(head)
    return body[:-1] + b',"dataset":[' + b",".join(datasets) + b"]}" if datasets else body


def nested_catalog(id: str, title: str, endpoint: str, service: str) -> dict[str, Any]:
    """A stub of a catalog that is served elsewhere: a distribution whose access service says where to ask for it."""
    return {
        "@id": id,
        "@type": "Catalog",
        "dct:title": title,
        "distribution": [
            {
                "@type": "Distribution",
                "format": FORMAT_PULL,
                "accessService": {"@id": service, "@type": "DataService", "endpointURL": endpoint},
            }
        ],
    }


def root_dataset(document: bytes) -> bytes:
    """The root form of a dataset: the rendered bytes with the context in front."""
    return b'{"@context":' + orjson.dumps(CONTEXT) + b"," + document[1:]


def without_offers(document: bytes, hidden: frozenset[str]) -> bytes | None:
    """The dataset without the offers in `hidden` (ids), or None if none is left: a dataset has at least one."""
    parsed = orjson.loads(document)
    shown = [o for o in parsed["hasPolicy"] if o["@id"] not in hidden]
    return orjson.dumps(parsed | {"hasPolicy": shown}) if shown else None


def without_empty(value: Any) -> Any:
    """The value without members that are empty lists: in JSON-LD they say nothing. Recursive, for documents of bounded depth."""
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return {name: without_empty(inner) for name, inner in value.items() if inner != []} if isinstance(value, dict) else value


def without_invalid(
    catalog: Mapping[str, Any], valid: Callable[[Mapping[str, Any]], bool], reasons: Callable[[Mapping[str, Any]], list[str]]
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The catalog without what would make all of it invalid: offers without a rule, which permit nothing (Eclipse EDC sends an empty policy
    so), and datasets that are no datasets; and what is left out, as `id` and `reasons`. `valid` and `reasons` judge a dataset in its root
    form."""
    found = catalog.get("dataset")
    kept: list[Any] = []
    left: list[dict[str, Any]] = []
    for dataset in found if isinstance(found, list) else ():
        whole = {"@context": CONTEXT} | dataset if isinstance(dataset, dict) else {}
        if valid(whole):
            kept.append(dataset)
            continue
        offers = whole.get("hasPolicy")
        ruled = [offer for offer in offers if _has_rules(offer)] if isinstance(offers, list) else []
        if ruled and valid(whole | {"hasPolicy": ruled}):
            kept.append(dataset | {"hasPolicy": ruled})
        left.append({"id": str(whole.get("@id")), "reasons": reasons(whole) if len(left) < EXPLAINED_MAX else []})
    return {**catalog, "dataset": kept}, tuple(left)


def _has_rules(offer: Any) -> bool:
    return isinstance(offer, dict) and not {"permission", "prohibition"}.isdisjoint(offer)
