"""Random edits of an evidence file, as whoever has the keys of both parties makes them: anywhere in a member, in the texts in it, and
in what is signed, which is signed anew."""

from base64 import urlsafe_b64decode
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import orjson

from connector.metering.content import write_bytes
from connector.metering.objects import digest
from connector.signatures import jws
from tests.evidence.rig import CONSUMER, KEYS, PROVIDER, Draft, billed

JUNK: list[Any] = [
    None, True, 0, -1, 2**53 - 1, 1e308, 1.5, 253_402_300_799, "", "x", "\u00e9", "1e999999999", "NaN", "9999-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00Z", [], {}, [[]], {"@id": 1}, [None], PROVIDER, CONSUMER, "A" * 43, "eyJhbGciOiJFZERTQSJ9.e30.", "\x00",
    "/permission/0/duty/0", "\u2014 x AAAA\n",
]  # fmt: skip
NAMES = ["x", "kty", "beyond", "closed", "left_out", "@type", "constraint", "duty", "takes_over", "digests", "answer", "sink"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that is in a JSON value."""
    for name, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, name)
        yield from places(each, (*path, name))


def edit(chance: Random, value: Any) -> None:
    """Change, take away, double or put in something in a JSON value."""
    paths = list(places(value))
    if not paths:
        return
    *way, name = chance.choice(paths)
    for each in way:
        value = value[each]
    match chance.randrange(6):
        case 0:
            del value[name]
        case 1 if isinstance(value, dict):
            value[chance.choice(NAMES)] = chance.choice(JUNK)
        case 1:
            value.append(deepcopy(value[name]))
        case _:
            value[name] = deepcopy(chance.choice(JUNK))


def edited(chance: Random, draft: Draft) -> Draft:
    """The file with one to three edits."""
    draft = draft.copy()
    for _ in range(chance.randint(1, 3)):
        kind, value = chance.choice(draft.members)
        text = chance.choice(["body", "detail"])
        if kind != "entry" and isinstance(value.get("jws"), str) and value["jws"].count(".") == 2:
            _signed_anew(chance, draft, value)
        elif kind == "entry" and value.get(text) and chance.random() < 0.6:
            said = orjson.loads(value[text])
            edit(chance, said)
            value[text] = orjson.dumps(said).decode()
        elif kind == "checkpoint" and isinstance(value.get("note"), str):
            lines = value["note"].split("\n")
            lines[chance.randrange(len(lines))] = chance.choice(["", "x", "-1", "99999999999999999999", "follows x 3 AAAA"])
            value["note"] = "\n".join(lines)
        else:
            edit(chance, value)
        if kind == "invoice" and isinstance(value.get("document"), dict):
            value["document"] = billed(value["document"])
    return draft


def _signed_anew(chance: Random, draft: Draft, member: dict[str, Any]) -> None:
    header, claims = (orjson.loads(urlsafe_b64decode(part + "==")) for part in member["jws"].split(".")[:2])
    before = write_bytes(digest(member["jws"]))
    edit(chance, claims)
    member["jws"] = jws.sign(claims, KEYS[chance.choice([PROVIDER, CONSUMER])], header["typ"])
    for entry in draft.all("entry"):
        if entry.get("jws") == before:
            entry["jws"] = write_bytes(digest(member["jws"]))
