"""Whether anything is in a file that must not leave its owner: tokens, secrets, private keys; and whose words it is in. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from connector.errors import Unauthenticated
from connector.evidence.case import Case, Ledgers
from connector.evidence.members import OBJECTS, Member
from connector.evidence.secrecy import RECEIVED, own_secrets, secrets_in
from connector.signatures.jws import claims_of

TERMS: Final = {"agreement": "/document", "negotiation": "/terms", "decision": "/document/"}  # what both have agreed on, or talked about
OURS: Final = "/document/facts/"  # in a decision, what its maker knew
CITED: Final = "own"  # in the answer to a closing, a closing that is looked at where it stands
SHOWN: Final = "peer"  # in a statement, the other side's checkpoint, as that has shown it
LEVELS: Final = 200  # that can always be written
REQUESTED: Final = ("declared", "declared and claims", "claims")  # the sources of that which are the words of who requests, the consumer


def check(case: Case, found: Ledgers) -> None:
    """Look at every text of every member, and of what is signed at every claim. What a peer gave may look like anything, and so may terms,
    which it has written or accepted: it accuses the peer, which could spoil a file else."""
    theirs = _words(case, found)
    for kind, members in case.members.items():
        for member in members:
            parsed = {name: _parsed(member.value[name]) for name in ("body", "detail")} if kind == "entry" else {}
            for pointer, code in secrets_in(member.value, signed=kind in (*OBJECTS, "attestation")):
                if parsed.get(pointer[1:]) is None:  # else the same is found where it stands
                    _say(case, member, pointer, code, theirs=_is_theirs(case, theirs, member, pointer))
            if kind == "entry":
                _entry(case, member, parsed["body"], parsed["detail"])
            elif kind in OBJECTS:
                _object(case, member, theirs)


def _entry(case: Case, member: Member, body: Any, detail: Any) -> None:
    for pointer, code in secrets_in(body, "/body"):
        case.fault(code, member, pointer)
    what = body.get("what") if isinstance(body, dict) else None
    own = own_secrets(what, detail, at_provider=case.exporter == case.provider)
    for pointer, code in secrets_in(detail):
        _say(case, member, f"/detail{pointer}", code, theirs=(pointer, code) not in own)


def _object(case: Case, member: Member, theirs: set[object]) -> None:
    """What a party has said in what it has signed: snapshots, ids, origins and addresses it chooses itself. The names of claims are known,
    or the object is refused."""
    try:
        claims = claims_of(str(member.value["jws"]))
    except (Unauthenticated, UnicodeEncodeError):
        return  # as that it is found where it is read
    issuer = claims.get("iss")
    for name, value in claims.items():
        by_peer = issuer == case.counterparty or name == SHOWN
        for text in _texts(value) if name != CITED else ():
            for _, code in secrets_in(text):
                _say(case, member, "/jws", code, theirs=by_peer or text in theirs)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _words(case: Case, found: Ledgers) -> set[object]:
    """The texts that the counterparty has chosen and the exporter goes by: its id, its pids, the reasons for which it has stopped a
    transfer, and what a provider names."""
    agreed, pid = case.agreement.value, "consumerPid" if case.exporter == case.provider else "providerPid"
    named = {agreed["id"], agreed["dataset"]} if case.exporter == case.consumer else set()
    pids = {member.value[pid] for member in (*case.of("negotiation"), *case.of("transfer"))}
    return named | pids | {case.counterparty} | {fact.code for facts in found.facts.values() for fact in facts if fact.what == RECEIVED}


def _is_theirs(case: Case, theirs: set[object], member: Member, pointer: str) -> bool:
    said, kind = member.value, member.kind
    if pointer.count("/") == 1 and isinstance(text := said.get(pointer[1:]), str) and text in theirs:
        return True
    if kind == "agreement" and pointer == "/reason":
        return bool(said["closedBy"] == "peer")
    if kind == "checkpoint":
        return bool(said["of"] == case.counterparty)
    if kind == "identity":
        return bool(said["id"] == case.counterparty)
    if kind == "invoice":
        return case.exporter == case.consumer  # of names that its provider has chosen
    if kind == "decision" and pointer.startswith(OURS):
        return case.exporter == case.provider and _is_requested(said["document"], pointer[len(OURS) :].split("/"))
    return kind in TERMS and pointer.startswith(TERMS[kind])


def _is_requested(decision: Any, steps: list[str]) -> bool:
    """Whether a place below the facts of a decision is a value that its requester gave, such as a purpose."""
    facts = decision["facts"]
    fact = facts.get(steps[0].replace("~1", "/").replace("~0", "~")) if isinstance(facts, dict) else None
    return isinstance(fact, dict) and fact.get("source") in REQUESTED and steps[1:2] == ["value"]


def _say(case: Case, member: Member, pointer: str, code: str, *, theirs: bool) -> None:
    if theirs:
        case.accuse(code, member)
    else:
        case.fault(code, member, pointer)


def _parsed(text: str | None) -> Any:
    """None for what is no JSON, or is too deep to be written and looked through: as a text it is looked at with its member."""
    try:
        said = orjson.loads(text) if text else None
        if text and text.count("[") + text.count("{") > LEVELS:
            orjson.dumps(said)
        return said
    except (orjson.JSONDecodeError, TypeError):
        return None
