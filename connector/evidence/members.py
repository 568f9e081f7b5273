"""What an evidence file is made of: JSON Lines, one member a line, each kind with exactly its members, each line in one spelling. Pure.

evidence      the header: format, version, which agreement, exported by whom, in which role, and when
identity      a participant and its keys with their validity, as the exporter knows them
agreement     the ODRL document, its digest, its parties
negotiation   the process that led to it, and the terms that were on the table last
transfer      a transfer under it, and its account as the exporter keeps it
decision      a stored decision about the negotiation or a transfer
invoice       what is owed, where the agreement has prices
checkpoint    a signed note of a ledger: the exporter's newest, those that witnesses have cosigned, those of the counterparty
manifest, receipt, ack, statement, closing, closing-ack    signed objects (JWS), verbatim
entry         an entry of the exporter's ledger with its proof: its body, or the digest of the signed object that it is; the last is the
              count of all others (from version 3 on)
consistency   the proof that an older checkpoint of the exporter's ledger is the beginning of the newest
attestation   the exporter's signature (JWS) over all lines before it: that they are all that it has of the agreement (from version 2 on)
end           how many members there are of each kind
(seal)        `sealed`: says which byte was altered
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from math import isfinite
from typing import Any, Final

import orjson

from connector.evidence.codes import CODES
from connector.metering.content import canonical, read_bytes
from connector.metering.counts import COUNTED
from connector.values import Value

FORMAT: Final = "https://w3id.org/qiao/v1/evidence"
VERSION: Final = 3
UNATTESTED: Final = 1  # the version whose files end without an attestation
COUNTED_FROM: Final = 3  # from this version on the last entry is a count of all others
LINE_BYTES_MAX: Final = 16 * 1024 * 1024  # an invoice has 400 bytes for each transfer, which is a call; a receipt has 1 KB
SIZE_MAX: Final = 2**53 - 1
YEAR_10000: Final = 253_402_300_800  # in POSIX seconds: RFC 3339 says no later instant
HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
DIGEST_BYTES: Final = 32
BASE64: Final = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")  # of a SHA-256, with no bits behind it
NO_VALUES: Final[Mapping[str, object]] = {}

Is = Callable[[object], bool]


class Form(Value):
    """What a value has to be: whether it `holds`, and `what` that is in words."""

    holds: Is
    what: str


def _optional(form: Form) -> Form:
    return Form(lambda value: value is None or form.holds(value), f"{form.what}, or null")


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SIZE_MAX


def _bound(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _instant(value: object) -> bool:
    return _bound(value) and isinstance(value, int | float) and 0 <= value < YEAR_10000


def _base64(value: object) -> bool:
    return isinstance(value, str) and BASE64.fullmatch(value) is not None


def _object(*names: str) -> Is:
    return lambda value: isinstance(value, dict) and value.keys() == set(names)


def _counts(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == COUNTED.keys() and all(map(_number, value.values()))


def _account(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"sequence", "receipt", "ack", "status", "attested", "counts"}:
        return False
    digests = all(value[name] is None or DIGEST.holds(value[name]) for name in ("receipt", "ack"))
    texts = isinstance(value["status"], str) and isinstance(value["attested"], str)
    return digests and texts and _number(value["sequence"]) and _counts(value["counts"])


def _key(value: object) -> bool:
    if not _object("kid", "x", "notBefore", "notAfter")(value) or not isinstance(value, dict):
        return False
    times = all(value[name] is None or _bound(value[name]) for name in ("notBefore", "notAfter"))
    return times and isinstance(value["kid"], str) and isinstance(value["x"], str)


def _ending(value: object) -> bool:
    return isinstance(value, dict) and all(_number(count) and count > 0 for count in value.values())


def _each(form: Is) -> Is:
    return lambda value: isinstance(value, list) and all(map(form, value))


TEXT: Final = Form(lambda value: isinstance(value, str) and bool(value), "a text")
NUMBER: Final = Form(_number, "a whole number from 0 to 2^53 - 1")
INSTANT: Final = Form(_instant, "an instant in POSIX seconds")
BOUND: Final = Form(_bound, "an instant in POSIX seconds, however far away")
FLAG: Final = Form(lambda value: isinstance(value, bool), "true or false")
DOCUMENT: Final = Form(lambda value: isinstance(value, dict), "a JSON object")
DIGEST: Final = Form(lambda value: read_bytes(value, DIGEST_BYTES) is not None, "a SHA-256 in base64url")
ROLE: Final = Form(lambda value: value in ("provider", "consumer"), "provider or consumer")
SIDE: Final = Form(lambda value: value in ("us", "peer"), "us or peer")
BODY: Final = Form(lambda value: isinstance(value, str), "a text")
HASHES: Final = Form(_each(_base64), "an array of SHA-256 hashes in base64")
SALT: Final = Form(lambda value: isinstance(value, str) and HEX.fullmatch(value) is not None, "bytes in hexadecimal")
PROOF: Final = "proof"
NAMING: Final = frozenset({"log", "pid", "transfer"})  # members with a text that thousands of others have too
SIGNED: Final = {"jws": TEXT, "transfer": TEXT}

KINDS: Final[Mapping[str, Mapping[str, Form]]] = {
    "evidence": {"format": TEXT, "version": NUMBER, "agreement": TEXT, "by": TEXT, "role": ROLE, "at": INSTANT},
    "identity": {
        "id": TEXT,
        "name": _optional(TEXT),
        "role": _optional(TEXT),
        "protocol": _optional(TEXT),
        "keys": Form(_each(_key), "an array of keys with `kid`, `x`, `notBefore`, `notAfter`"),
    },
    "agreement": {
        "id": TEXT,
        "document": DOCUMENT,
        "policy": DIGEST,
        "provider": TEXT,
        "consumer": TEXT,
        "dataset": TEXT,
        "negotiation": TEXT,
        "created": INSTANT,
        "final": FLAG,
        "ends": _optional(BOUND),
        "closed": _optional(INSTANT),
        "closedBy": _optional(SIDE),
        "reason": _optional(TEXT),
        "performed": Form(_each(DOCUMENT.holds), "an array of JSON objects"),
    },
    "negotiation": {
        "pid": TEXT,
        "consumerPid": _optional(TEXT),
        "providerPid": _optional(TEXT),
        "state": TEXT,
        "agreement": _optional(TEXT),
        "terms": _optional(DOCUMENT),
        "created": INSTANT,
        "updated": INSTANT,
    },
    "transfer": {
        "pid": TEXT,
        "consumerPid": _optional(TEXT),
        "providerPid": _optional(TEXT),
        "agreement": TEXT,
        "state": _optional(TEXT),
        "code": _optional(TEXT),
        "created": _optional(INSTANT),
        "updated": INSTANT,
        "account": Form(lambda value: value is None or _account(value), "an account, or null"),
    },
    "decision": {"pid": TEXT, "document": DOCUMENT},
    "invoice": {"document": DOCUMENT},
    "checkpoint": {"of": TEXT, "note": TEXT},
    "manifest": SIGNED,
    "receipt": SIGNED,
    "ack": SIGNED,
    "statement": SIGNED,
    "closing": SIGNED,
    "closing-ack": SIGNED,
    "entry": {
        "log": TEXT,
        "index": NUMBER,
        "sequence": NUMBER,
        "pid": TEXT,
        "body": _optional(BODY),
        "jws": _optional(DIGEST),
        "detail": _optional(BODY),
        "salt": _optional(SALT),
        PROOF: HASHES,
    },
    "consistency": {"log": TEXT, "old": NUMBER, "size": NUMBER, PROOF: HASHES},
    "attestation": {"jws": TEXT},
    "end": {"members": Form(_ending, "counts by kind, none of them 0")},
}
# The order of kinds: what stands before the objects and entries, these in the order of the ledger, what is signed of it all, and the end.
BEFORE: Final = ("evidence", "identity", "agreement", "negotiation", "transfer", "decision", "invoice", "checkpoint")
PLACES: Final = {kind: place for place, kind in enumerate(BEFORE)} | {"attestation": len(BEFORE) + 1, "end": len(BEFORE) + 2}
OBJECTS: Final = ("manifest", "receipt", "ack", "statement", "closing", "closing-ack")


class Member(Value):
    """One line: its number from 1, where it begins in the file (bytes from 0), its kind and what it says."""

    line: int
    offset: int
    kind: str
    value: Mapping[str, Any]


class Finding(Value):
    """Something that does not hold: a code and its sentence; the line and the byte at which the member begins, and the place in it
    (RFC 6901), as far as it is about one."""

    code: str
    says: str
    line: int | None = None
    offset: int | None = None
    pointer: str = ""
    accuses: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "says": self.says,
            "line": self.line,
            "offset": self.offset,
            "pointer": self.pointer,
            "accuses": self.accuses,
        }


def finding(
    code: str, at: Member | None = None, pointer: str = "", values: Mapping[str, object] = NO_VALUES, *, accuses: bool = False
) -> Finding:
    """The finding with one of the codes of an evidence file; `values` are what its sentence names."""
    line, offset = (None, None) if at is None else (at.line, at.offset)
    return Finding(code, CODES[code].format(**values), line, offset, pointer, accuses)


def write(kind: str, value: Mapping[str, Any]) -> bytes:
    """The line of a member, its newline included. Raises ValueError for what its kind does not have, what JSON cannot
    say, and what is longer than LINE_BYTES_MAX."""
    faults = list(_faults(kind, value))
    if faults:
        code, pointer, values = faults[0]
        raise ValueError(f"a member of kind `{kind}` cannot be written: {CODES[code].format(**values)} at `{pointer}`")
    line = canonical({"kind": kind, **value})
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"a member of kind `{kind}` cannot be written: {CODES['line-long'].format(most=LINE_BYTES_MAX)}")
    return line + b"\n"


def read(body: bytes, found: list[Finding]) -> Iterator[Member]:
    """The members of a body, those that can be read, each proof as its hashes (32 bytes) one after the other; `found` takes what is wrong
    with the others."""
    offset, known = 0, dict[str, str]()
    for line in count(1):
        at, end = Member(line, offset, "", {}), body.find(b"\n", offset)
        if end < 0:  # behind the last newline
            if offset < len(body):
                found.append(finding("line-json", at))
            return
        text, offset = body[offset:end], end + 1
        if len(text) > LINE_BYTES_MAX:
            found.append(finding("line-long", at, values={"most": LINE_BYTES_MAX}))
            continue
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            found.append(finding("line-json", at))
        elif not _is_canonical(value, text):
            found.append(finding("line-spelling", at))
        else:
            kind = value.pop("kind", None)
            member = Member(line, at.offset, str(kind), value)
            faults = [finding(code, member, pointer, values) for code, pointer, values in _faults(kind, value)]
            found += faults
            if not faults:
                if PROOF in value:  # a third of a file, and of its memory
                    value[PROOF] = b"".join(map(a2b_base64, value[PROOF]))
                for name in NAMING & value.keys():
                    value[name] = known.setdefault(value[name], value[name])
                yield member


def _is_canonical(value: dict[str, Any], text: bytes) -> bool:
    """Whether a line is in its only spelling."""
    try:
        return canonical(value) == text
    except ValueError:  # a number that JSON does not carry without loss; too deep
        return False


def _faults(kind: object, value: Mapping[str, Any]) -> Iterable[tuple[str, str, dict[str, object]]]:
    if not isinstance(kind, str) or kind not in KINDS:
        yield "kind-unknown", "/kind", {}
        return
    forms = KINDS[kind]
    for name in sorted(forms.keys() - value.keys()):
        yield "member-missing", "", {"name": name}
    for name in sorted(value.keys() - forms.keys()):
        yield "member-unknown", "", {"name": name[:80]}
    for name, form in forms.items():
        if name in value and not form.holds(value[name]):
            yield "member-form", f"/{name}", {"name": name, "what": form.what}
