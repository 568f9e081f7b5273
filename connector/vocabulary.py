"""Reads our JSON Schemas and JSON-LD contexts from where the connector is installed; nothing is ever fetched.

In a checkout they stand in `vocab/` beside the package, in a wheel in `connector/_vocab`. Both trees are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from connector.dsp.messages import DSP_CONTEXT
from connector.errors import SettingsError

_PACKAGE = Path(__file__).resolve().parent
PLACES = (_PACKAGE / "_vocab", _PACKAGE.parent / "vocab")

# Context URL -> file. The second is imported by the first, messages never name it (DSP 2025-1, JSON-LD context).
CONTEXTS = {
    DSP_CONTEXT: "context/dspace.jsonld",
    "https://w3id.org/dspace/2025/1/odrl-profile.jsonld": "context/odrl.jsonld",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`schemas`: JSON Schema `$id` -> document. `contexts`: URL of a JSON-LD context -> document."""

    schemas: Mapping[str, Mapping[str, Any]]
    contexts: Mapping[str, Mapping[str, Any]]


def read_vocabulary(places: tuple[Path, ...] = PLACES) -> Vocabulary:
    """Read every schema and context from the first of `places` that exists.

    Raises `SettingsError` if there is none, or if a file of it is not what it should be.
    """
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        looked = ", ".join(f"`{place}`" for place in places)
        raise SettingsError(f"the folder of schemas and contexts is missing: looked for {looked}; reinstall the connector")
    documents = {path: _read(path) for path in sorted(root.glob("*/*-schema.json"))}
    for path, document in documents.items():
        if not isinstance(document.get("$id"), str):
            raise SettingsError(f"schema `{path}` has no `$id`; reinstall the connector")
    return Vocabulary(
        schemas={document["$id"]: document for document in documents.values()},
        contexts={url: _read(root / name) for url, name in CONTEXTS.items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise SettingsError(f"`{path}` cannot be read as JSON: {error}; reinstall the connector") from error
    if not isinstance(document, dict):
        raise SettingsError(f"`{path}` is not a JSON object; reinstall the connector")
    return document
