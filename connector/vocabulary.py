"""Reads what the words of messages and policies mean from where the connector is installed: JSON Schemas, JSON-LD contexts, profile packs
of ODRL, policy templates. Nothing is ever fetched.

In a checkout they stand in `vocab/` and `policies/` beside the package, in a wheel in `connector/_vocab` and `connector/_policies`. Both
trees are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import orjson

from connector.dsp.messages import DSP_CONTEXT
from connector.errors import PolicyError, ProfilesUnread, SettingsError
from connector.odrl.registry import Profile
from connector.values import Value

if TYPE_CHECKING:
    from connector.odrl_forms.template_files import Template

_PACKAGE = Path(__file__).resolve().parent
PLACES = (_PACKAGE / "_vocab", _PACKAGE.parent / "vocab")
POLICY_PLACES = (_PACKAGE / "_policies", _PACKAGE.parent / "policies")
DATA_BYTES_MAX = 1 << 20  # of one YAML file; the largest of ours has 20 kB, and reading takes 0.3 ms for each

# Context URL -> file. The second is imported by the first, messages never name it (DSP 2025-1, JSON-LD context). The third may stand beside
# the first in a message that uses more of ODRL.
CONTEXTS = {
    DSP_CONTEXT: "context/dspace.jsonld",
    "https://w3id.org/dspace/2025/1/odrl-profile.jsonld": "context/odrl.jsonld",
    "http://www.w3.org/ns/odrl.jsonld": "context/w3c-odrl.jsonld",
}


class Vocabulary(Value):
    """`schemas`: JSON Schema `$id` -> document. `contexts`: URL of a JSON-LD context -> document."""

    schemas: Mapping[str, Mapping[str, Any]]
    contexts: Mapping[str, Mapping[str, Any]]


def read_vocabulary(places: tuple[Path, ...] = PLACES) -> Vocabulary:
    """Read every schema and context from the first of `places` that exists.

    Raises `SettingsError` if there is none, or if a file of it is not what it should be.
    """
    root = _root(places, "schemas and contexts")
    documents = {path: _read(path) for path in sorted(root.glob("*/*-schema.json"))}
    for path, document in documents.items():
        if not isinstance(document.get("$id"), str):
            raise SettingsError(f"schema `{path}` has no `$id`; reinstall the connector")
    return Vocabulary(
        schemas={document["$id"]: document for document in documents.values()},
        contexts={url: _read(root / name) for url, name in CONTEXTS.items()},
    )


def read_profiles(places: tuple[Path, ...] = POLICY_PLACES) -> tuple[Profile, ...]:
    """Read every profile pack, `profiles/*.yaml`, from the first of `places` that exists, once for each: they come with the connector.
    Whoever asks while another thread reads waits for that one.

    Raises ProfilesUnread for a folder or file that cannot be read, and with all findings for packs that say what they cannot mean.
    """
    with _READING:
        return _profiles(places)


_READING = Lock()  # `cache` lets all who come before the first is done read for themselves


@cache
def _profiles(places: tuple[Path, ...]) -> tuple[Profile, ...]:
    from connector.odrl_forms.packs import read_packs

    try:
        return read_packs(read_data(_root(places, "policies") / "profiles"))
    except (SettingsError, PolicyError) as error:
        raise ProfilesUnread(error.message, error.reasons) from error


def read_template_library(places: tuple[Path, ...] = POLICY_PLACES) -> dict[str, Template]:
    """Read every policy template, `templates/*.yaml`, from the first of `places` that exists: id -> template.

    Only whoever writes a policy needs them, so they are read when they are asked for. Raises SettingsError for a folder or file that
    cannot be read, PolicyError with all findings for templates that say what they cannot mean.
    """
    from connector.odrl_forms.template_files import read_templates

    return read_templates(read_data(_root(places, "policies") / "templates"))


def read_data(folder: Path) -> dict[str, object]:
    """Read every `*.yaml` of a folder: name of the file -> its document. Raises `SettingsError` for one that cannot be read."""
    return {path.name: _data(path) for path in sorted(folder.glob("*.yaml"))}


def _root(places: tuple[Path, ...], what: str) -> Path:
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        looked = ", ".join(f"`{place}`" for place in places)
        raise SettingsError(f"the folder of {what} is missing: looked for {looked}; reinstall the connector")
    return root


def _data(path: Path) -> object:
    """A YAML file as mappings, lists, texts, whole numbers, booleans.

    What YAML takes for a date or a broken number stays the text that it is, so that no version and no price is bent; nothing is built by
    its tag, and there are no anchors, so a file cannot be larger than it is long.
    """
    import yaml

    try:
        text = path.read_bytes()
        if len(text) > DATA_BYTES_MAX:
            raise SettingsError(f"`{path}` is larger than {DATA_BYTES_MAX} bytes; reinstall the connector")
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return None if node is None else _plain(node, path, set())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"`{path}` cannot be read as YAML: {error}; reinstall the connector") from error
    except RecursionError as error:
        raise SettingsError(f"`{path}` is nested too deeply; write it flat") from error


_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_TEXT = "tag:yaml.org,2002:str"  # of what is quoted, said to be a text, or can be nothing else
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "value", "merge")}


def _plain(node: Any, path: Path, seen: set[int]) -> object:
    where = f"`{path}`, line {node.start_mark.line + 1}"
    if node.tag not in _TAGS:
        raise SettingsError(f"{where} has the tag `{node.tag}`; data needs none")
    if node.id == "scalar":
        text: str = node.value
        if node.tag == _TEXT:
            return text
        return int(text) if _WHOLE.fullmatch(text) else _WORDS.get(text, text)
    if id(node) in seen:
        raise SettingsError(f"{where} is used a second time; write it out, there are no anchors")
    seen.add(id(node))
    if node.id == "sequence":
        return [_plain(entry, path, seen) for entry in node.value]
    found: dict[str, object] = {}
    for key, value in node.value:
        if key.id != "scalar" or key.value in found:
            what = "a key that is no word" if key.id != "scalar" else f"`{key.value}` a second time"
            raise SettingsError(f"`{path}`, line {key.start_mark.line + 1} has {what}; write each word once")
        found[key.value] = _plain(value, path, seen)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise SettingsError(f"`{path}` cannot be read as JSON: {error}; reinstall the connector") from error
    if not isinstance(document, dict):
        raise SettingsError(f"`{path}` is not a JSON object; reinstall the connector")
    return document
