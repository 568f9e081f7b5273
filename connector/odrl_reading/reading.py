"""What one pass over a policy document gathers, and the shapes that every part of it shares: words, texts, ids, types, unknown properties.

A document is a tree of compact JSON-LD. Its words mean what its context defines and nothing else: the context of DSP 2025-1 knows few of
ODRL's terms bare, and a JSON-LD reader loses the others without a word; here they are findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any, Final, Literal

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding
from connector.odrl.registry import Registry
from connector.odrl.values import CHARS_MAX, in_iri, spoils, tellable
from connector.odrl.vocabulary import CC, DSP_CONTEXT, ODRL, W3C_CONTEXT, expand
from connector.odrl.words import shown

# Rules, constraints and values: some 10 ms to read and as much to compare, on the one loop that serves every peer. The largest published
# test policy has 788.
LEAVES_MAX: Final = 800
DUTY_LEAVES: Final = 5  # a duty is read, judged, explained and stored, and may run out: it takes as long as so many constraints
WORDS_MAX: Final = 4 * LEAVES_MAX  # actions and parties as they are written, the same word twice too
CANDIDATES_MAX: Final = 1_000  # words that are looked at for one suggestion
LETTERS_APART_MAX: Final = 6  # more are no slip of the pen
VALUES_MAX: Final = 1_000  # of what is not understood and kept as it is
FINDINGS_MAX: Final = 100  # more than anybody mends in one go, and a bound on the answer to a hostile document
SUGGESTIONS_MAX: Final = 5  # of one reading: the first mistakes are mended first, and each takes a look at every word that is known
WORD_CHARS_MAX: Final = 64  # longer words get no spelling suggestion, which takes quadratic time
NONE: Final[frozenset[str]] = frozenset()  # one for all: an empty set takes 216 bytes, and most rules have two

Dialect = Literal["dsp", "odrl"]

# Terms of ODRL that stand bare under the DSP context (DSP 2025-1, odrl-profile.jsonld); `timestamp` is DSP's own.
_DSP_BARE: Final = frozenset({
    "profile", "hasPolicy", "target", "assigner", "assignee", "permission", "prohibition", "obligation", "duty", "constraint", "action",
    "leftOperand", "operator", "rightOperand", "and", "andSequence", "or", "xone", "timestamp",
})  # fmt: skip
FUNCTIONS: Final = (
    "compensatedParty", "compensatingParty", "consentingParty", "consentedParty", "informedParty", "informingParty", "trackingParty",
    "trackedParty", "contractingParty", "contractedParty", "attributedParty", "attributingParty",
)  # fmt: skip
# The others of the model (ODRL 2.2 IM): they stand bare under the context of the W3C only.
_W3C_BARE: Final = _DSP_BARE | {
    "uid", "conflict", "inheritFrom", "remedy", "consequence", "refinement", "source", "rightOperandReference", "dataType", "unit",
    "status", "relation", *FUNCTIONS, "function", "failure", "implies", "includedIn", "partOf",
}  # fmt: skip
# Without these a policy says more, or of more people.
_NARROWING: Final = frozenset({
    "target", "assigner", "assignee", "action", "constraint", "refinement", "permission", "prohibition", "obligation", "duty", "remedy",
    "consequence", "inheritFrom", *FUNCTIONS,
})  # fmt: skip
_KEYWORDS: Final = frozenset({"@context", "@id", "@type"})
_BARE: Final[Mapping[Dialect, frozenset[str]]] = {"dsp": _DSP_BARE, "odrl": _W3C_BARE}
_ALIASES: Final = {"uid": "@id", "type": "@type"}  # of the W3C's context
_DCT, _RDFS = "http://purl.org/dc/terms/", "http://www.w3.org/2000/01/rdf-schema#"
_RDF_VALUE: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"
REPLACED_BY: Final = _DCT + "isReplacedBy"
_PREFIXED: Final = {"value": _RDF_VALUE, "isReplacedBy": "dct:isReplacedBy"}  # of RDF and Dublin Core: no context of ours has them bare
# What people write about a policy. It changes nothing.
_ANNOTATIONS: Final = frozenset(
    {
        _DCT + name
        for name in (
            "title", "description", "creator", "contributor", "publisher", "created", "issued", "modified", "source", "identifier",
            "subject",
        )
    }
    | {_RDFS + name for name in ("label", "comment", "seeAlso")}
    | {"http://www.w3.org/2004/02/skos/core#" + name for name in ("prefLabel", "altLabel", "note", "definition", "scopeNote")}
)  # fmt: skip
_PREFIXES: Final = {
    "dct": _DCT,
    "dc": _DCT,
    "rdfs": _RDFS,
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "rdf": _RDF_VALUE[:-5],
    "cc": CC,
}
_TYPES: Final = {
    "policy": ("Policy", "Set", "Offer", "Agreement", "Request", "Ticket", "Assertion", "Privacy"),
    "permission": ("Permission",),
    "prohibition": ("Prohibition",),
    "duty": ("Duty", "Obligation"),
    "constraint": ("Constraint", "LogicalConstraint"),
    "action": ("Action",),
    "asset": ("Asset", "AssetCollection"),
    "party": ("Party", "PartyCollection"),
}
_TYPE_NAMES: Final = {
    what: {spelling: name for name in names for spelling in (name, "odrl:" + name, ODRL + name)} for what, names in _TYPES.items()
}


class Reading:
    """What one pass over a document gathers. `references` are the values of `rightOperandReference`s that are at hand, `ancestors` the ids
    of the policies that inherit from this one, `base` the pointer by which the youngest of them names it, `source` says where in a graph a
    pointer leads."""

    __slots__ = (
        "ancestors",
        "base",
        "described",
        "dialect",
        "findings",
        "instants",
        "leaves",
        "measures",
        "references",
        "registry",
        "source",
        "suggestions",
        "usage",
        "words",
    )

    def __init__(
        self,
        registry: Registry,
        dialect: Dialect = "dsp",
        references: Mapping[str, object] | None = None,
        ancestors: frozenset[str] = NONE,
        base: str = "",
    ) -> None:
        self.ancestors, self.base = ancestors, base
        self.registry, self.dialect = registry, dialect
        self.references: Mapping[str, object] = references or {}
        self.findings: list[Finding] = []
        self.instants: set[int] = set()
        self.usage: set[str] = set()
        self.measures: set[tuple[str, str]] = set()
        self.leaves = self.suggestions = 0
        self.words = 0
        self.described: dict[str, object] = {}  # id -> what it names
        self.source: Callable[[str], str] = _nowhere

    def note(self, code: Code, path: str, message: str, fix: str, severity: Literal["error", "warning"] = "error", **more: Any) -> None:
        """Add a finding; beyond FINDINGS_MAX the document is given up for what is wrong with it, and is warned of nothing more."""
        if len(self.findings) >= FINDINGS_MAX:
            if severity == "warning":
                return
            self.give_up(path, f"there are more than {FINDINGS_MAX} findings", "mend these first")
        self.findings.append(Finding(code, path, message, fix, severity, source=self.source(path), **more))

    def count(self, leaves: int, path: str) -> None:
        """Count rules, constraints and values, a duty as DUTY_LEAVES; beyond LEAVES_MAX the document is given up."""
        self.leaves += leaves
        if self.leaves > LEAVES_MAX:
            fix = f"split the policy into several offers (a duty counts as {DUTY_LEAVES})"
            self.give_up(path, f"there are more than {LEAVES_MAX} constraints and values", fix)

    def look_at(self, words: int, path: str) -> None:
        """Count the words of a list before they are looked at: those that stand twice count once as leaves, and still take time."""
        self.words += words
        if self.words > WORDS_MAX:
            self.give_up(path, f"there are more than {WORDS_MAX} words", "write each once, and split the policy into several offers")

    def give_up(self, path: str, message: str, fix: str) -> None:
        """Stop reading a document that exceeds a limit."""
        raise refusal("policy", (*self.findings, Finding(Code.LIMIT_EXCEEDED, path, message, fix, source=self.source(path))))

    def describe(self, raw: dict[str, Any], path: str, id: str) -> str:
        """The id of a policy, a rule or a constraint, with a finding if it is that of another one: to a reader of RDF both are one, which
        says all that either does."""
        if id and self.described.setdefault(id, raw) != raw:
            message = f"`{shown(id)}` is the id of something else as well, and readers of RDF take both for one"
            self.note(Code.MALFORMED, path, message, "give each an id of its own, or none")
        return id

    def nearest(self, word: str, known: Iterable[str]) -> str | None:
        """The known word that is spelled most like this one, if any is close, for the first SUGGESTIONS_MAX that are asked for."""
        self.suggestions += 1
        return nearest(word, known) if self.suggestions <= SUGGESTIONS_MAX else None

    def expand(self, word: str) -> str | None:
        """The absolute IRI of a word with a prefix, or None where no context defines it."""
        prefix, colon, rest = word.partition(":")
        space = self.registry.prefixes.get(prefix) or _PREFIXES.get(prefix) if colon else None
        return space + rest if space is not None else expand(word)


def _nowhere(path: str) -> str:
    return ""  # the pointer itself leads into what the author wrote


def refusal(what: str, findings: tuple[Finding, ...]) -> PolicyError:
    """The error that names the first mistake and counts the others."""
    errors = [finding for finding in findings if finding.severity == "error"]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return PolicyError(f"{what} cannot be used: {errors[0]}{more}", findings)


class Named(dict[str, Any]):
    """The properties of an object by their bare term; `written` has the keys of the document where they are others."""

    __slots__ = ("written",)

    def __init__(self) -> None:
        self.written: dict[str, str] = {}


def place(known: Mapping[str, Any], path: str, term: str) -> str:
    """The pointer to a property of the object at `path`, by the key under which its author wrote it."""
    return _pointer(path, known.written.get(term, term)) if isinstance(known, Named) else f"{path}/{term}"


def fields(raw: dict[Any, Any], known: frozenset[str], path: str, reading: Reading) -> tuple[dict[str, Any], str]:
    """The properties of an object by their bare term, and the canonical JSON of those that are not known, each with a finding ("" if
    there is none). The id stands under `@id` in either form."""
    if raw.keys() <= _plain(known, reading.dialect):
        _nothing(raw, path, reading)
        return raw, ""
    if len(raw) > FINDINGS_MAX:
        reading.give_up(path, f"it has {len(raw)} properties", "leave out what a policy does not need")
    if not all(isinstance(key, str) for key in raw):
        reading.note(Code.MALFORMED, path, "the name of a property is no string", "write it as a string")
        raw = {key: value for key, value in raw.items() if isinstance(key, str)}
    found = Named()
    strange: list[str] = []
    for key in sorted(raw):
        term = _term(key, known, reading)
        if term is None:
            strange.append(key)
        elif term:
            if term in found and canonical(found[term], path) != canonical(raw[key], path):
                reading.note(Code.MALFORMED, _pointer(path, key), f"`{shown(term)}` stands twice, with different values", "write it once")
            found[term] = raw[key]
            if term != key:
                found.written[term] = key
    for key in strange:
        _stranger(key, raw, known, path, reading)
    _nothing(found, path, reading)
    return found, canonical({key: raw[key] for key in strange}, path) if strange else ""


def _nothing(known: Mapping[str, Any], path: str, reading: Reading) -> None:
    """A finding for each property that stands there and says nothing: an assignee that is `null` must not stand for everybody."""
    for term, value in known.items():
        missing = value is None or (value == [] and term == "action") or (isinstance(value, dict) and value.keys() == {"@list"})
        if missing and term in _NARROWING and not several(value, path):
            reading.note(Code.EMPTY_SET, place(known, path, term), "there is nothing in it", "name one or leave it out")


@lru_cache(maxsize=64)
def _plain(known: frozenset[str], dialect: Dialect) -> frozenset[str]:
    """The properties that are known and stand for themselves."""
    return known - _PREFIXED.keys() if dialect == "odrl" else known & (_DSP_BARE | _KEYWORDS)


def _term(key: str, known: frozenset[str], reading: Reading) -> str | None:
    """The bare term that a key stands for; "" for an annotation, None for what has no meaning here."""
    if reading.dialect == "odrl":
        key = _ALIASES.get(key, key)
    if key in _KEYWORDS or key == "@graph":
        return key if key in known else None
    full = reading.expand(key)
    if full is None:
        bare = key in known and (key in _DSP_BARE or (reading.dialect == "odrl" and key not in _PREFIXED))
        return key if bare else None
    if full == ODRL + "uid":
        return "@id" if "@id" in known else None
    if full in (_RDF_VALUE, REPLACED_BY):
        term = "value" if full == _RDF_VALUE else "isReplacedBy"
        return term if term in known else None
    if full.startswith(ODRL) and full[len(ODRL) :] in known:
        return full[len(ODRL) :]
    return "" if full in _ANNOTATIONS else None


def _stranger(key: str, raw: dict[str, Any], known: frozenset[str], path: str, reading: Reading) -> None:
    at, word, bare = _pointer(path, key), shown(key), _BARE[reading.dialect]
    if key == "target":
        reading.note(Code.TARGET_IN_RULE, at, "only the policy has a target, not its rules", "leave it out")
    elif reading.expand(key) is not None or (key in bare and key not in known):
        reading.note(Code.TERM_UNSUPPORTED, at, f"`{word}` has no meaning here", "leave it out")
    elif key in known or key in _W3C_BARE:
        message = f"`{word}` is no term of the DSP context, so JSON-LD readers lose it"
        name = _PREFIXED.get(key, f"odrl:{key}") if key in known else None
        fix = f"write `{name}`" if name else "leave it out"
        reading.note(Code.TERM_DROPPED, at, message, fix, patch=_moved(at, path, name, raw))
    else:
        near = reading.nearest(key, known)
        name = near if near is None or near in bare or near.startswith("@") else _PREFIXED.get(near, f"odrl:{near}")
        fix = f"write `{name}`" if name else "leave it out"
        reading.note(Code.TERM_DROPPED, at, f"`{word}` is no term of the context", fix, patch=_moved(at, path, name, raw))


def _moved(at: str, path: str, name: str | None, raw: dict[str, Any]) -> tuple[dict[str, str], ...]:
    """The patch (RFC 6902) that gives a property another name, where that does not overwrite anything."""
    return ({"op": "move", "from": at, "path": _pointer(path, name)},) if name and name not in raw and at != path else ()


def type_of(raw: dict[str, Any], what: str, path: str, reading: Reading) -> str | None:
    """The type of an object by its bare name; None if it has none, or one that is not known (a finding)."""
    written = raw.get("@type")
    if isinstance(written, list) and len(written) == 1:
        written = written[0]
    if written is None:
        return None
    names = _TYPE_NAMES[what]
    if isinstance(written, list) and reading.dialect == "odrl":  # RDF: a thing has several types, of which one is ours
        written = next((one for one in written if isinstance(one, str) and one in names), written)
    name = names.get(written) if isinstance(written, str) else None
    if name is None:
        named = f"`{shown(written)}`" if isinstance(written, str) else "it"
        fix = f"write {' or '.join(f'`{known}`' for known in _TYPES[what])}"
        reading.note(Code.TERM_UNSUPPORTED, place(raw, path, "@type"), f"{named} is no type that is known here", fix)
    return name


def text(raw: object, path: str, reading: Reading, *, required: bool = False) -> str | None:
    """A string that is not empty; None with a finding for anything else, and without one where nothing is required."""
    if isinstance(raw, dict) and raw.keys() == {"@value"}:
        raw = raw["@value"]
    if isinstance(raw, str) and raw:
        return raw
    if raw is not None or required:
        reading.note(Code.MALFORMED, path, "it is no string, or an empty one" if raw is not None else "it is missing", "give a string")
    return None


def iri(raw: object, path: str, reading: Reading, *, required: bool = False) -> str | None:
    """An id: a string or {"@id"}."""
    found = text(raw["@id"] if isinstance(raw, dict) and raw.keys() == {"@id"} else raw, path, reading, required=required)
    if found is not None and not tellable(found):
        message = f"`{shown(found)}` is no IRI, or has more than {CHARS_MAX} characters"
        reading.note(Code.TYPE_MISMATCH, path, message, "write a short one, without control characters")
    elif found is not None and spoils(found):
        message = f"`{shown(found)}` begins as an IRI and is none, or one that runs a script"
        reading.note(Code.TYPE_MISMATCH, path, message, "write an IRI without quotes, brackets and backslashes")
    elif found is not None and not in_iri(found):
        message = f"`{shown(found)}` has characters of no IRI, so readers of RDF lose it"
        reading.note(Code.TYPE_MISMATCH, path, message, "write it without quotes, brackets and backslashes", "warning")
    return found


def several(raw: object, path: str) -> list[tuple[str, object]]:
    """The entries of an array, of an "@list", or the one value, each with its pointer."""
    if isinstance(raw, dict) and raw.keys() == {"@list"}:
        raw, path = raw["@list"], f"{path}/@list"
    if isinstance(raw, list) and len(raw) > LEAVES_MAX:  # all that stands in arrays is counted, so this is too much in any case
        message = f"there are more than {LEAVES_MAX} constraints and values"
        raise refusal("policy", (Finding(Code.LIMIT_EXCEEDED, path, message, "split the policy into several offers"),))
    if isinstance(raw, list):
        return [(f"{path}/{index}", entry) for index, entry in enumerate(raw)]
    return [] if raw is None else [(path, raw)]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelled most like this one, if any is close."""
    if len(word) > WORD_CHARS_MAX:
        return None
    alike = (name for name in known if abs(len(name) - len(word)) <= LETTERS_APART_MAX)
    return next(iter(get_close_matches(word, islice(alike, CANDIDATES_MAX), 1, 0.8)), None)


def _pointer(path: str, key: object) -> str:
    """RFC 6901; a key that nobody could read is pointed at through its parent."""
    text = str(key)
    return f"{path}/{text.replace('~', '~0').replace('/', '~1')}" if len(text) <= WORD_CHARS_MAX and text.isprintable() else path


def canonical(raw: object, path: str) -> str:
    """JSON of one form for one meaning. Raises PolicyError for what is nested too deeply, too large, or no JSON."""
    waiting, count = [raw], 0
    while waiting:  # what stands in several places counts in each: a small object of Python's can be the tree of a huge one
        one, count = waiting.pop(), count + 1
        if count > VALUES_MAX:
            finding = Finding(Code.LIMIT_EXCEEDED, path, f"what is not understood has more than {VALUES_MAX} values", "leave it out")
            raise refusal("policy", (finding,))
        if isinstance(one, dict | list | tuple):
            waiting.extend(one.values() if isinstance(one, dict) else one)
    try:
        return json.dumps(raw, sort_keys=True, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        finding = Finding(Code.LIMIT_EXCEEDED, path, "it is nested too deeply, or no JSON", "write it flat")
        raise refusal("policy", (finding,)) from None


def is_tree(document: object) -> bool:
    """Whether a document needs no JSON-LD processor: an object under no context, or under those whose words are known here alone."""
    if not isinstance(document, dict) or "@graph" in document:
        return False
    if "@context" not in document:
        return not any(isinstance(key, str) and key.startswith(ODRL) for key in document)
    contexts = contexts_of(document)
    if DSP_CONTEXT in contexts and all(isinstance(entry, str) for entry in contexts):
        return True  # its terms are protected: what stands beside it can add words, which are findings, and change none
    return all(entry in (DSP_CONTEXT, W3C_CONTEXT) for entry in contexts)


def contexts_of(document: Mapping[str, Any]) -> list[object]:
    """What stands in `@context`, as a list."""
    raw = document.get("@context")
    return raw if isinstance(raw, list) else [raw]
