"""JSON Pointers (RFC 6901) and JSON Patches (RFC 6902), as far as findings use them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any


def steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def resolve(document: Any, pointer: str) -> Any:
    """What a pointer leads to. KeyError or IndexError where it leads nowhere."""
    for step in steps(pointer):
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def patched(document: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """The document with the changes of a patch; the document itself stays as it is."""
    document = deepcopy(document)
    for change in patch:
        *way, last = steps(change["path"])
        value = change.get("value")
        if change["op"] == "move":
            *there, name = steps(change["from"])
            value = walk(document, there).pop(name)
        place = walk(document, way)
        if change["op"] == "remove":
            place.pop(int(last) if isinstance(place, list) else last)
        elif isinstance(place, list):
            assert change["op"] in ("add", "replace")
            index = len(place) if last == "-" else int(last)
            place[index : index + (change["op"] == "replace")] = [value]
        else:
            assert change["op"] != "replace" or last in place, f"{change} replaces nothing"
            assert change["op"] == "replace" or last not in place, f"{change} overwrites something"
            place[last] = value
    return document


def walk(document: Any, way: Sequence[str]) -> Any:
    for step in way:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document
