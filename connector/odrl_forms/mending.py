"""Mechanical remedies: a finding -> the JSON Patch (RFC 6902) that mends it, and the patch applied to a document.

Readers of policies attach a patch where they see one; here are those that need no more than the document. A patch never widens what a
policy permits: what it removes says nothing, or says the same twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding
from connector.odrl.vocabulary import W3C_CONTEXT
from connector.odrl.words import shown
from connector.values import replace

# What the schema of DSP 2025-1 wants as an array.
_ARRAYS: Final = frozenset({"permission", "prohibition", "obligation", "duty", "constraint", "and", "or", "xone", "andSequence"})
_TWICE: Final = frozenset({Code.DUPLICATE_RULE, Code.REDUNDANT, Code.TAUTOLOGY})
_MINUTES: Final = re.compile(r"P([0-9]+M)")
Steps = tuple[Mapping[str, Any], ...]


def mended(finding: Finding, document: object) -> Finding:
    """The finding with a patch, if one mends it mechanically."""
    if finding.patch or not finding.path.startswith("/"):
        return finding
    try:
        found = value_at(document, finding.path)
    except PolicyError:
        return finding
    return replace(finding, patch=_steps(finding, found, document))


def _steps(finding: Finding, found: Any, document: object) -> Steps:
    path = finding.path
    match finding.code:
        case Code.MALFORMED:
            return _shape(path, found)
        case Code.TARGET_IN_RULE:
            return ({"op": "remove", "path": path},)
        case Code.SEQUENCE_UNORDERED if isinstance(found, list) and W3C_CONTEXT in _contexts(document):
            return ({"op": "replace", "path": path, "value": {"@list": found}},)
        case Code.MONTHS_AS_MINUTES:
            return _minutes(path, found)
        case code if code in _TWICE and path.rpartition("/")[2].isdecimal() and len(value_at(document, path.rpartition("/")[0])) > 1:
            return ({"op": "remove", "path": path},)  # its array keeps something: an empty one is not valid on the wire
    return ()


def _contexts(document: object) -> list[Any]:
    """The contexts of a document; that of DSP 2025-1 has no place for an "@list"."""
    raw = document.get("@context") if isinstance(document, Mapping) else None
    return raw if isinstance(raw, list) else [raw]


def _shape(path: str, found: Any) -> Steps:
    last = path.rpartition("/")[2]
    if last in _ARRAYS and isinstance(found, Mapping):
        return ({"op": "replace", "path": path, "value": [found]},)
    if isinstance(found, Mapping) and (typed := _typed(found.get("rightOperand"))) is not None:
        return ({"op": "replace", "path": f"{path}/rightOperand", "value": typed},)
    if last == "rightOperand" and (typed := _typed(found)) is not None:
        return ({"op": "replace", "path": path, "value": typed},)
    return ()


def _typed(raw: object) -> dict[str, str] | None:
    """A bare number or truth value as the literal that it stands for: DSP 2025-1 takes strings, objects and arrays only."""
    if isinstance(raw, bool):
        return {"@value": "true" if raw else "false", "@type": "xsd:boolean"}
    if isinstance(raw, int | float):
        text = json.dumps(raw)
        sort = "integer" if isinstance(raw, int) else "double" if "e" in text.lower() else "decimal"
        return {"@value": text, "@type": f"xsd:{sort}"} if text.lstrip("-")[:1].isdecimal() else None
    return None


def _minutes(path: str, found: Any) -> Steps:
    written = found.get("@value") if isinstance(found, Mapping) else found
    match = _MINUTES.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return ()
    text = f"PT{match[1]}"
    return ({"op": "replace", "path": path, "value": {**found, "@value": text} if isinstance(found, Mapping) else text},)


def value_at(document: object, path: str) -> Any:
    """What stands at an RFC 6901 pointer. Raises PolicyError where nothing does."""
    at = document
    for token in _tokens(path):
        at = _step(at, token, path)
    return at


def apply_patch(document: object, patch: Sequence[Mapping[str, Any]]) -> Any:
    """A copy of the document with the steps of a JSON Patch done: `add`, `remove`, `replace`, `move`.

    Raises PolicyError for a step that cannot be done.
    """
    changed = deepcopy(document)
    for step in patch:
        path = str(step.get("path", ""))
        match step.get("op"):
            case "add" | "replace":
                changed = _put(changed, path, deepcopy(step.get("value")), fresh=step["op"] == "add")
            case "remove":
                _taken(changed, path)
            case "move":
                changed = _put(changed, path, _taken(changed, str(step.get("from", ""))), fresh=True)
            case other:
                raise PolicyError(f"the step `{shown(str(other))}` of a patch is not known; use `add`, `remove`, `replace` or `move`")
    return changed


def _tokens(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PolicyError(f"`{shown(path)}` is no JSON pointer; begin it with `/`")
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def _step(at: Any, token: str, path: str) -> Any:
    if isinstance(at, Mapping) and token in at:
        return at[token]
    if isinstance(at, list) and token.isdecimal() and int(token) < len(at):
        return at[int(token)]
    raise PolicyError(f"nothing stands at `{shown(path)}`; look at the document that the patch is for")


def _above(document: object, path: str) -> tuple[Any, str]:
    """What holds the place of a pointer, and its name in there."""
    *above, last = _tokens(path) or [""]
    at = document
    for token in above:
        at = _step(at, token, path)
    return at, last


def _put(document: Any, path: str, value: Any, *, fresh: bool) -> Any:
    if not path:
        return value
    at, token = _above(document, path)
    if not fresh:
        _step(at, token, path)
    if isinstance(at, list):
        index = len(at) if token == "-" else int(token) if token.isdecimal() else -1  # noqa: S105 - RFC 6901 calls it a token
        if not 0 <= index <= len(at):
            raise PolicyError(f"`{shown(path)}` is no place in the array; use its next index at most, or `-`")
        if fresh:
            at.insert(index, value)
        else:
            at[index] = value
    elif isinstance(at, dict):
        at[token] = value
    else:
        raise PolicyError(f"nothing can stand at `{shown(path)}`; look at the document that the patch is for")
    return document


def _taken(document: Any, path: str) -> Any:
    at, token = _above(document, path)
    found = _step(at, token, path)
    del at[int(token) if isinstance(at, list) else token]
    return found
