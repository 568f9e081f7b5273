"""What one pass over a policy document gathers, and the shapes that every part of it shares: texts, parties, types, unknown properties."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, Final, Literal

from connector.errors import PolicyError
from connector.odrl.model import Code, Finding
from connector.odrl.vocabulary import ODRL, expand
from connector.odrl.words import shown

# Rules, constraints and values: some 6 ms to read and as much to compare, on the one loop that serves every peer. The largest published
# test policy has 524.
LEAVES_MAX: Final = 600
FINDINGS_MAX: Final = 100  # more than anybody mends in one go, and a bound on the answer to a hostile document
NONE: Final[frozenset[str]] = frozenset()  # one for all: an empty set takes 216 bytes, and most rules have two
WORD_CHARS_MAX: Final = 64  # longer words get no spelling suggestion, which takes quadratic time

_DUTY_KEYS: Final = frozenset({"remedy", "consequence", "odrl:remedy", "odrl:consequence", "odrl:duty", "odrl:obligation"})
_TYPES: Final = {
    "policy": ("Offer", "Agreement"),
    "permission": ("Permission",),
    "prohibition": ("Prohibition",),
    "constraint": ("Constraint", "LogicalConstraint"),
}
_TYPE_NAMES: Final = {
    what: {spelling: name for name in names for spelling in (name, "odrl:" + name, ODRL + name)} for what, names in _TYPES.items()
}


class Reading:
    """What one pass over a document gathers."""

    __slots__ = ("findings", "instants", "leaves", "usage")

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.instants: set[int] = set()
        self.usage: set[str] = set()
        self.leaves = 0

    def note(self, code: Code, path: str, message: str, fix: str, severity: Literal["error", "warning"] = "error") -> None:
        """Add a finding; beyond FINDINGS_MAX the document is given up."""
        if len(self.findings) >= FINDINGS_MAX:
            self.give_up(path, f"there are more than {FINDINGS_MAX} findings", "mend these first")
        self.findings.append(Finding(code, path, message, fix, severity))

    def count(self, leaves: int, path: str) -> None:
        """Count constraints and values; beyond LEAVES_MAX the document is given up."""
        self.leaves += leaves
        if self.leaves > LEAVES_MAX:
            self.give_up(path, f"there are more than {LEAVES_MAX} constraints and values", "split the policy into several offers")

    def give_up(self, path: str, message: str, fix: str) -> None:
        """Stop reading a document that exceeds a limit."""
        raise refusal("policy", (*self.findings, Finding(Code.LIMIT_EXCEEDED, path, message, fix)))


def refusal(what: str, findings: tuple[Finding, ...]) -> PolicyError:
    """The error that names the first mistake and counts the others."""
    errors = [finding for finding in findings if finding.severity == "error"]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return PolicyError(f"{what} cannot be used: {errors[0]}{more}", findings)


def strangers(raw: dict[str, Any], known: frozenset[str], path: str, reading: Reading) -> str:
    """A finding for each property that is not known; their canonical JSON, or "" if there is none."""
    extra = raw.keys() - known
    if not extra:
        return ""
    if len(extra) > FINDINGS_MAX:
        reading.give_up(path, f"{len(extra)} properties are not known", "leave them out")
    for key in sorted(extra, key=str):
        at, word = _pointer(path, key), shown(str(key))
        bare = str(key).removeprefix("odrl:").removeprefix(ODRL)
        if key == "target":
            reading.note(Code.TARGET_IN_RULE, at, "only the policy has a target, not its rules", "leave it out")
        elif key in _DUTY_KEYS:
            reading.note(Code.DUTY_UNSUPPORTED, at, "this connector cannot watch over duties", "leave it out")
        elif bare in known:
            reading.note(Code.TERM_UNSUPPORTED, at, f"`{word}` is the term `{bare}` in another form", f"write `{bare}`")
        elif expand(str(key)) is not None:
            reading.note(Code.TERM_UNSUPPORTED, at, f"`{word}` has no meaning here", "leave it out")
        else:
            near = nearest(str(key), known)
            reading.note(Code.TERM_DROPPED, at, f"`{word}` is no term of the DSP context", f"write `{near}`" if near else "leave it out")
    return canonical({str(key): raw[key] for key in extra}, path)


def type_of(raw: dict[str, Any], what: str, path: str, reading: Reading) -> str | None:
    written = raw.get("@type")
    if isinstance(written, list) and len(written) == 1:
        written = written[0]
    if written is None:
        return None
    name = _TYPE_NAMES[what].get(written) if isinstance(written, str) else None
    if name is None:
        named = f"`{shown(written)}`" if isinstance(written, str) else "it"
        fix = f"write {' or '.join(f'`{known}`' for known in _TYPES[what])}"
        reading.note(Code.TERM_UNSUPPORTED, f"{path}/@type", f"{named} is no type that is known here", fix)
    return name


def text(raw: object, path: str, reading: Reading, *, required: bool = False) -> str | None:
    if isinstance(raw, str) and raw:
        return raw
    if raw is not None or required:
        reading.note(Code.MALFORMED, path, "it is no string, or an empty one" if raw is not None else "it is missing", "give a string")
    return None


def parties(raw: object, path: str, reading: Reading, *, required: bool = False) -> frozenset[str]:
    """Participant ids: a string, {"@id"}, or an array of these. An empty array would address everybody by accident."""
    if raw is None and not required:
        return NONE
    if raw == []:
        reading.note(Code.EMPTY_SET, path, "it names nobody", "name a participant or leave it out")
    found = set()
    reading.count(len(raw) if isinstance(raw, list) else 0, path)
    for at, entry in several(raw, path) or [(path, None)] * required:
        party = entry["@id"] if isinstance(entry, dict) and entry.keys() == {"@id"} else entry
        if (name := text(party, at, reading, required=True)) is not None:
            found.add(name)
    return frozenset(found) if found else NONE


def several(raw: object, path: str) -> list[tuple[str, object]]:
    if isinstance(raw, list):
        return [(f"{path}/{index}", entry) for index, entry in enumerate(raw)]
    return [] if raw is None else [(path, raw)]


def nearest(word: str, known: Any) -> str | None:
    return next(iter(get_close_matches(word, known, 1, 0.8)), None) if len(word) <= WORD_CHARS_MAX else None


def _pointer(path: str, key: object) -> str:
    """RFC 6901; a key that nobody could read is pointed at through its parent."""
    text = str(key)
    return f"{path}/{text.replace('~', '~0').replace('/', '~1')}" if len(text) <= WORD_CHARS_MAX and text.isprintable() else path


def canonical(raw: object, path: str) -> str:
    try:
        return json.dumps(raw, sort_keys=True, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        finding = Finding(Code.LIMIT_EXCEEDED, path, "it is nested too deeply, or no JSON", "write it flat")
        raise refusal("policy", (finding,)) from None
