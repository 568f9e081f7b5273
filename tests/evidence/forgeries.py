"""What a forger can do to an evidence file before he seals it anew: each with the code by which it is refused.

First those of whoever has the file and no key; then those of a party that signs what is not so, or keeps something back.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import rfc8785

from connector.ledger.book import signer_of
from connector.merkle import checkpoints, notes
from connector.merkle.succession import follows
from connector.merkle.tree import leaf_hash
from connector.metering.closing import Closing, ClosingAck
from connector.metering.content import digest_of, write_bytes
from connector.metering.counts import Counts
from connector.metering.objects import Checkpoint, Rejected, digest
from connector.records.ledger import entry_of
from connector.values import replace
from tests.evidence.rig import (
    CONSUMER,
    DOCUMENT,
    KEYS,
    LATER,
    LOGS,
    NEGOTIATION,
    NOW,
    OLD,
    PROVIDER,
    STRANGER,
    TRANSFER,
    Draft,
    Story,
    billed,
    cosigned,
    fact,
    identity,
    key_of,
    note_over,
    signed,
)

Forge = Callable[[Draft], Any]
OTHER = write_bytes(b"o" * 32)
CLOSING = Closing(CONSUMER, PROVIDER, "c1", NOW + 30, "urn:uuid:a", NOW * 1_000_000 + 30_500_000)
OWN_CLOSING = replace(CLOSING, issuer=PROVIDER, audience=CONSUMER, id="c2")


def answer(to: Closing, **changed: Any) -> ClosingAck:
    """That the other side has taken a closing, or what it says instead."""
    said = ClosingAck(to.audience, to.issuer, f"a-{to.id}", NOW + 31, to.agreement, digest(signed(to)), ends=to.at)
    return replace(said, **changed)


TWIN = replace(CLOSING, id="c9", at=CLOSING.at + 7)  # another instant by the same side
REFUSAL: dict[str, Any] = {"state": "refused", "why": "closing-twice"}
HASH = "b29vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28="


def put(kind: str, number: int = 0, **values: Any) -> Forge:
    """Members of a member with other values."""
    return lambda draft: draft.one(kind, number).update(values)


def inside(kind: str, *path: Any, to: Any, number: int = 0) -> Forge:
    """Another value at a place in a member."""

    def forge(draft: Draft) -> None:
        value: Any = draft.one(kind, number)
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return forge


def drop(kind: str, number: int = 0) -> Forge:
    return lambda draft: draft.drop(kind, number)


def twice(kind: str, number: int = 0, **changed: Any) -> Forge:
    """A member that stands there once more."""
    return lambda draft: draft.members.insert(draft.place(kind, number), (kind, draft.one(kind, number) | changed))


def resigned(kind: str, number: int, by: str, **claims: Any) -> Forge:
    return lambda draft: draft.resigned(kind, number, KEYS[by], **claims)


def attested(draft: Draft, **changed: Any) -> None:
    """Let the exporter, or who is said to be, sign what is there by now."""
    lines = sha256(b"".join(text + b"\n" for text in replace(draft, attest=False).text(end=False))).digest()
    draft.members.append(("attestation", draft.attestation(lines, **changed)))


def counted(draft: Draft) -> dict[str, int]:
    """What the end of a file counts, once it is attested."""
    attested(draft)
    return {kind: len(draft.all(kind)) for kind, _ in draft.members}


def attested_before(forge: Forge) -> Forge:
    """What is done to a file after its exporter has signed it."""
    return lambda draft: (attested(draft), forge(draft))


def without_transfer(draft: Draft) -> None:
    """Take a transfer out, with its decision, its objects and entries, and with the invoice over it."""
    draft.members = [
        each for each in draft.members if TRANSFER not in (each[1].get("pid"), each[1].get("transfer")) and each[0] != "invoice"
    ]


def line(number: int, text: bytes) -> Forge:
    return lambda draft: draft.lines.update({number: text})


def document(**members: Any) -> Forge:
    """Another text of the agreement, with its digest made to fit."""

    def forge(draft: Draft) -> None:
        said = DOCUMENT | members
        draft.one("agreement").update(document=said, policy=write_bytes(digest_of(said)))

    return forge


def swapped(kind: str) -> Forge:
    """Two objects of a kind in each other's place, with their entries as they were."""

    def forge(draft: Draft) -> None:
        one, other = draft.one(kind), draft.one(kind, 1)
        one["jws"], other["jws"] = other["jws"], one["jws"]

    return forge


def _without_end(draft: Draft) -> None:
    """How the transfer ended is left out, and it is said to run."""
    del draft.members[draft.place("entry", -2)]
    draft.one("transfer")["state"] = "STARTED"


def dropped(kind: str, number: int) -> Forge:
    """An object that is gone, with its entry."""

    def forge(draft: Draft) -> None:
        entry = draft.entry_of(draft.one(kind, number)["jws"])
        draft.members = [each for each in draft.members if each[1] is not entry]
        draft.drop(kind, number)

    return forge


def without(move: str) -> Forge:
    def forge(draft: Draft) -> None:
        entry = draft.move(move)
        draft.members = [each for each in draft.members if each[1] is not entry]

    return forge


def of_entry(move: str, **values: Any) -> Forge:
    return lambda draft: draft.move(move).update(values)


def body(move: str, **values: Any) -> Forge:
    """An entry that says something else."""

    def forge(draft: Draft) -> None:
        entry = draft.move(move)
        entry["body"] = json.dumps(json.loads(entry["body"]) | values, separators=(",", ":"))

    return forge


def invoiced(**values: Any) -> Forge:
    """Another invoice, with its digest made to fit."""
    return lambda draft: draft.one("invoice").update(document=billed(draft.one("invoice")["document"] | values))


def deep(levels: int) -> Any:
    """Arrays in arrays."""
    return [] if levels == 0 else [deep(levels - 1)]


def deeper(kind: str, name: str) -> Forge:
    """A member that can be read, and of which nothing can be written."""

    def forge(draft: Draft) -> None:
        document = draft.one(kind)["document"] | {name: deep(300)}
        at = [each for each, _ in draft.members].index(kind)
        draft.lines[at] = rfc8785.dumps({"kind": kind, **draft.one(kind), "document": document})

    return forge


def beside(cites: int | None = None) -> Forge:
    """Another ledger of the exporter, which says that it takes the place of the first with so many entries."""

    def forge(draft: Draft) -> None:
        before = (checkpoints.Checkpoint(LOGS[PROVIDER], cites, b"x" * 32),) if cites is not None else ()
        said = checkpoints.Checkpoint("hospital.example/2", 1, leaf_hash(b"x"), tuple(map(follows, before)))
        draft.put(
            "checkpoint",
            {"of": PROVIDER, "note": checkpoints.sign(said, (signer_of(KEYS[PROVIDER], said.origin),)).decode()},
            "consistency",
        )

    return forge


def line_of_invoice(**values: Any) -> Forge:
    return lambda draft: invoiced(lines=[draft.one("invoice")["document"]["lines"][0] | values])(draft)


def for_nothing(draft: Draft) -> None:
    """An invoice whose only line is at a price of nothing."""
    line = draft.one("invoice")["document"]["lines"][0]
    invoiced(lines=[line | {"unit_price": "0.00", "amount": "0.00"}], total="0.00")(draft)


def unbilled(draft: Draft) -> None:
    """An invoice whose flow counts nothing in its period, and is for nothing but the subscription."""
    said = draft.one("invoice")["document"]
    nothing = dict.fromkeys(said["counts"], 0)
    (line,) = [each for each in said["lines"] if each["counted"] is None]
    invoiced(flows=[said["flows"][0] | {"counts": nothing}], counts=nothing, lines=[line], total=line["amount"])(draft)


def more_of_invoice(**counts: int) -> Forge:
    """A flow with more in it, and an invoice that adds up to that."""

    def forge(draft: Draft) -> None:
        (flow,) = draft.one("invoice")["document"]["flows"]
        more = flow["counts"] | counts
        invoiced(flows=[flow | {"counts": more}], counts=more)(draft)

    return forge


def flow_of_invoice(**values: Any) -> Forge:
    return lambda draft: invoiced(flows=[draft.one("invoice")["document"]["flows"][0] | values])(draft)


def _patched(draft: Draft, kind: str, number: int, **claims: Any) -> None:
    """Other claims under the same signature."""
    member = draft.one(kind, number)
    signature = member["jws"].rpartition(".")[2]
    draft.resigned(kind, number, KEYS[PROVIDER if kind != "receipt" else CONSUMER], **claims)
    member["jws"] = f"{member['jws'].rpartition('.')[0]}.{signature}"


def _shortened(draft: Draft) -> None:
    dropped("receipt", 1)(draft)
    dropped("ack", 1)(draft)
    one, ack = (write_bytes(digest(draft.one(kind)["jws"])) for kind in ("receipt", "ack"))
    counts = dict.fromkeys(COUNTED, 0)
    draft.one("transfer")["account"].update(sequence=1, receipt=one, ack=ack, counts=counts, status="open")


def _half_swapped(draft: Draft) -> None:
    """An entry that says to be another object than it is."""
    entry = draft.entry_of(draft.one("receipt")["jws"])
    entry["pid"] = NEGOTIATION


def _replaced(draft: Draft, kind: str, name: str, old: str, new: str) -> None:
    member = draft.one(kind)
    assert old in member[name], member[name]
    member[name] = member[name].replace(old, new, 1)


def _other_root(draft: Draft) -> None:
    member = draft.one("checkpoint")
    lines = member["note"].split("\n")
    member["note"] = "\n".join([*lines[:2], HASH, *lines[3:]])


def _bare(draft: Draft) -> str:
    """The cosigned checkpoint without its cosignature."""
    return draft.one("checkpoint", 1)["note"].rsplit("\u2014", 1)[0]


def _later(draft: Draft) -> None:
    member = draft.one("checkpoint", 1)
    honest, other = member["note"], cosigned(_bare(draft), at=NOW + 3000)
    mine, its = (text.rsplit(" ", 1)[1].strip() for text in (honest, other))
    mixed = b64decode(its)[:12] + b64decode(mine)[12:]  # the id of the key and the other time, with the signature as it was
    member["note"] = honest.replace(mine, b64encode(mixed).decode())


def _reworded(draft: Draft) -> None:
    document = DOCUMENT | {"permission": [{"action": "distribute"}]}
    draft.one("agreement").update(document=document, policy=write_bytes(digest_of(document)))


def _unlogged(draft: Draft) -> None:
    entry = draft.entry_of(draft.one("receipt")["jws"])
    draft.members = [each for each in draft.members if each[1] is not entry]


START, REQUESTED, AGREED = "TransferStartMessage", "TransferRequestMessage", "ContractAgreementMessage"
COUNTED = {"bytes": 1, "records": 0, "items": 1, "calls": 1, "us": 7}


# Whoever has the file: (what he does, what it is refused with, how).
def lined(*lines: str) -> Forge:
    """The newest checkpoint of the exporter with these extension lines."""

    def forge(draft: Draft) -> None:
        member = draft.one("checkpoint")
        said = checkpoints.read(notes.read(member["note"].encode()).text)
        member["note"] = checkpoints.sign(replace(said, extensions=lines), (signer_of(KEYS[PROVIDER], said.origin),)).decode()

    return forge


def _succeeds(draft: Draft) -> None:
    """Two logs of the exporter, the second of which says of the first what that has not signed."""
    before = note_over([leaf_hash(b"x")] * 3, origin="before.example/ledger")
    draft.put("checkpoint", {"of": PROVIDER, "note": before}, "consistency")
    lined(follows(checkpoints.Checkpoint("before.example/ledger", 3, b"y" * 32)))(draft)


def _reordered(draft: Draft) -> None:
    first, second = [at for at, (kind, value) in enumerate(draft.members) if kind == "entry" and value["pid"] == NEGOTIATION][:2]
    draft.members[first], draft.members[second] = draft.members[second], draft.members[first]


BOOK_BYTES = 65_536  # to seal 16 MiB takes seconds

FORGERIES: list[tuple[str, str, Forge]] = [
    # lines
    ("a line of spaces between members", "line-spelling", line(0, json.dumps({"kind": "evidence"}).encode())),
    ("a line that is no object", "line-json", line(1, b"[1]")),
    ("a line that is no JSON", "line-json", line(1, b'{"kind":')),
    (
        "a number in another spelling",
        "line-spelling",
        line(1, b'{"id":"x","keys":[],"kind":"identity","name":null,"protocol":null,"role":1.0}'),
    ),
    ("a name that stands twice", "line-spelling", line(1, b'{"id":"x","id":"x","kind":"identity"}')),
    ("an agreement that is deeper than anybody writes", "line-spelling", deeper("agreement", "permission")),
    ("a line as long as a book", "line-long", line(1, b'"' + b"x" * BOOK_BYTES + b'"')),
    ("a kind of another version", "kind-unknown", lambda draft: draft.members.insert(3, ("opinion", {"says": "x"}))),
    ("a member that lacks something", "member-missing", lambda draft: draft.one("transfer").pop("state")),
    ("a member with something more", "member-unknown", put("agreement", note="by the way")),
    ("a number that is a text", "member-form", put("entry", index="1")),
    ("a count that is negative", "member-form", inside("transfer", "account", "counts", "bytes", to=-1)),
    ("a proof in base64url", "member-form", put("entry", proof=[OTHER])),
    # the file
    ("a file of nothing", "file-empty", lambda draft: (draft.members.clear(), draft.lines.update({0: b'{"kind":1}'}))),
    ("no header", "header-first", drop("evidence")),
    ("two headers", "header-first", twice("evidence")),
    ("another format", "format-other", put("evidence", format="https://example.org/x")),
    ("a version to come", "version-other", put("evidence", version=4)),
    ("a file that is called an older one", "version-older", put("evidence", version=2)),
    ("a file without its count", "count-missing", drop("entry", -1)),
    ("an entry that its exporter leaves out at the end", "count-other", _without_end),
    ("a count of another export", "count-time", put("evidence", at=NOW + 61)),
    ("entries that are taken out by who has no key", "attestation-other", attested_before(drop("entry", 4))),
    ("a transfer that is taken out with all that is of it, by who has no key", "attestation-other", attested_before(without_transfer)),
    ("a file that nobody has signed", "attestation-missing", lambda draft: setattr(draft, "attest", False)),
    ("a file that is attested twice", "attestation-twice", lambda draft: [attested(draft), attested(draft)]),
    ("a file that somebody else has attested", "jws-kid", lambda draft: attested(draft, issuer=STRANGER)),
    ("a file that the counterparty has attested", "jws-kid", lambda draft: attested(draft, issuer=CONSUMER)),
    ("an attestation of another instant", "attestation-time", lambda draft: attested(draft, issued=NOW + 61)),
    ("an attestation before the entries", "order-other", lambda draft: (attested(draft), draft.members.append(draft.members.pop(-2)))),
    ("an end before the end", "end-last", lambda draft: draft.members.insert(5, ("end", {"members": {}}))),
    ("an end that counts what is not there", "end-counts", lambda draft: setattr(draft, "ending", {"evidence": 1})),
    ("an end that counts itself", "end-counts", lambda draft: draft.members.append(("end", {"members": counted(draft) | {"end": 1}}))),
    ("an end that counts what is none", "member-form", lambda draft: draft.members.append(("end", {"members": counted(draft) | {"x": 0}}))),
    ("an attestation in a file of before there were any", "kind-unknown", put("evidence", version=1)),
    ("a header of an instant that no calendar has", "member-form", put("evidence", at=1e300)),
    ("an attestation of an instant that no calendar has", "attestation-time", lambda draft: attested(draft, issued=10**14)),
    ("an agreement behind its transfer", "order-other", lambda draft: draft.members.append(draft.members.pop(draft.place("agreement")))),
    # identities
    ("no identity of a party", "identity-missing", drop("identity", 1)),
    ("two identities of one", "identity-twice", twice("identity", 1)),
    ("an identity of somebody else", "identity-stranger", lambda draft: draft.put("identity", identity(STRANGER), "agreement")),
    ("a key under a foreign name", "identity-kid", inside("identity", "keys", 0, "kid", to=f"{STRANGER}#k1")),
    ("one key twice", "identity-kid", lambda draft: draft.one("identity")["keys"].append(key_of(KEYS[PROVIDER].key))),
    ("a key that is no point", "identity-key", inside("identity", "keys", 0, "x", to="A" * 43)),
    ("a key that is no key", "identity-key", inside("identity", "keys", 0, "x", to="k")),
    (
        "a key that ends before it begins",
        "identity-validity",
        lambda draft: draft.one("identity")["keys"][0].update(notBefore=9, notAfter=1),
    ),
    ("the key of a party exchanged", "jws-signature", inside("identity", "keys", 0, "x", to=write_bytes(KEYS[STRANGER].key.public))),
    ("the key of a party renamed", "jws-key-unknown", inside("identity", "keys", 0, "kid", to=f"{PROVIDER}#k9")),
    ("a key that had ended", "jws-key-ended", inside("identity", "keys", 0, "notAfter", to=NOW - 1)),
    # the agreement and what led to it
    ("no agreement", "agreement-missing", drop("agreement")),
    ("two agreements", "agreement-missing", twice("agreement")),
    ("an agreement of another name", "agreement-other", put("agreement", id="urn:uuid:b")),
    ("an id that is not the document's", "agreement-id", document(**{"@id": "urn:uuid:b"})),
    ("another provider", "agreement-provider", document(assigner=STRANGER)),
    ("another consumer", "agreement-consumer", document(assignee=STRANGER)),
    ("a party with itself", "agreement-parties", put("agreement", consumer=PROVIDER)),
    ("another dataset", "agreement-dataset", document(target="urn:uuid:other")),
    ("another text of the agreement", "agreement-policy", inside("agreement", "document", "permission", to=[])),
    ("another text and digest of the agreement", "manifest-policy", document(permission=[])),
    ("an export by nobody of it", "agreement-exporter", put("evidence", by=STRANGER)),
    ("an export in the other role", "agreement-exporter", put("evidence", role="consumer")),
    ("a negotiation that had not come so far", "agreement-open", put("negotiation", state="REQUESTED")),
    ("two negotiations", "negotiation-twice", twice("negotiation")),
    ("another negotiation", "negotiation-other", put("negotiation", pid="urn:uuid:x")),
    ("a negotiation of another agreement", "negotiation-agreement", put("negotiation", agreement="urn:uuid:b")),
    ("a decision about another process", "decision-process", put("decision", pid="urn:uuid:x")),
    ("two decisions about one", "decision-twice", twice("decision")),
    ("a decision about another policy", "decision-policy", inside("decision", "document", "policy", to="urn:uuid:x", number=1)),
    ("a decision about other terms", "decision-hash", inside("decision", "document", "policy_hash", to="00", number=1)),
    ("a decision about somebody else", "decision-party", inside("decision", "document", "request", "party", to=STRANGER)),
    ("a decision about other data", "decision-target", inside("decision", "document", "request", "target", to="urn:uuid:x")),
    # transfers and what was signed of them
    ("two transfers of one pid", "transfer-twice", twice("transfer")),
    ("an invoice beside another", "invoice-twice", twice("invoice")),
    ("entries of one process in another order", "entry-order", _reordered),
    ("a transfer without its beginning", "transfer-half", put("transfer", created=None)),
    ("a transfer whose state is kept back", "transfer-half", put("transfer", state=None)),
    ("a transfer of another agreement", "transfer-agreement", put("transfer", agreement="urn:uuid:b")),
    ("a transfer with another pid of the peer", "transfer-pids", put("transfer", consumerPid="urn:uuid:x")),
    ("an object twice", "object-twice", twice("receipt")),
    ("an object of no transfer", "object-transfer", put("receipt", transfer="urn:uuid:x")),
    ("no manifest", "manifest-absent", dropped("manifest", 0)),
    ("a manifest by somebody else", "jws-kid", resigned("manifest", 0, STRANGER, iss=STRANGER)),
    ("a manifest in the name of the provider", "jws-kid", resigned("manifest", 0, STRANGER)),
    ("a manifest by the consumer", "jws-kid", resigned("manifest", 0, CONSUMER)),
    ("a count in a receipt", "jws-signature", lambda draft: _patched(draft, "receipt", 1, bytes=1)),
    ("a credit in an ack", "jws-signature", lambda draft: _patched(draft, "ack", 1, credit=1)),
    ("the size in a manifest", "jws-signature", lambda draft: _patched(draft, "manifest", 0, window=131_072)),
    ("a receipt that is signed as an ack", "jws-typ", lambda draft: draft.resigned("receipt", 1, KEYS[CONSUMER], "dp-ack+jwt")),
    ("a text that is no object", "jws-parts", put("receipt", jws="nothing", number=1)),
    ("the first receipt dropped", "receipt-missing", dropped("receipt", 0)),
    ("the last receipt dropped", "receipt-absent", dropped("receipt", 1)),
    ("the last receipt dropped with its ack", "account-absent", lambda draft: (dropped("receipt", 1)(draft), dropped("ack", 1)(draft))),
    ("the last receipt dropped, and the account made to fit", "statement-receipt", _shortened),
    ("the first ack dropped", "ack-missing", dropped("ack", 0)),
    ("the last ack dropped", "account-ack", dropped("ack", 1)),
    ("receipts swapped", "entry-object", _half_swapped),
    ("a receipt that was never signed so", "jws-kid", resigned("receipt", 0, STRANGER)),
    # accounts, statements, invoices
    ("another receipt for the account", "account-absent", inside("transfer", "account", "receipt", to=OTHER)),
    ("another number for the account", "account-sequence", inside("transfer", "account", "sequence", to=1)),
    ("another count for the account", "account-counts", inside("transfer", "account", "counts", "bytes", to=1)),
    ("another end for the account", "account-status", inside("transfer", "account", "status", to="aborted")),
    ("another ack for the account", "account-ack", inside("transfer", "account", "ack", to=OTHER)),
    ("an account that is said to be signed by nobody", "account-attested", inside("transfer", "account", "attested", to="provider-only")),
    ("a detail that is deeper than anybody reads", "entry-detail", put("entry", detail="[" * 1_010 + "]" * 1_010)),
    ("a statement by a stranger", "statement-by", resigned("statement", 0, STRANGER, iss=STRANGER)),
    ("an invoice with another line", "invoice-digest", inside("invoice", "document", "lines", 0, "amount", to="1.00")),
    ("an invoice that is deeper than anybody writes", "line-spelling", deeper("invoice", "lines")),
    ("an invoice to somebody else", "invoice-agreement", invoiced(consumer=STRANGER)),
    ("an invoice for more than its lines", "invoice-total", invoiced(total="6.00")),
    ("an invoice that adds up to nothing", "invoice-total", invoiced(total="much")),
    ("an invoice for more than its flows", "invoice-total", invoiced(counts=COUNTED)),
    ("an invoice for another receipt", "invoice-receipt", flow_of_invoice(receipt=OTHER)),
    ("an invoice for another number", "invoice-receipt", flow_of_invoice(sequence=1)),
    ("an invoice for more than was signed", "invoice-counts", flow_of_invoice(counts_so_far=COUNTED)),
    ("an invoice by another document", "invoice-policy", invoiced(agreement_digest=OTHER)),
    ("an invoice that says that both attest what nobody has signed", "invoice-attested", flow_of_invoice(receipt=None)),
    ("an invoice that says that nobody attests what both have", "invoice-attested", flow_of_invoice(attested="provider-only")),
    (
        "an invoice by the provider's word for what was signed for",
        "invoice-alone",
        flow_of_invoice(receipt=None, attested="provider-only", sequence=0),
    ),
    ("an invoice for a flow twice", "invoice-flow", lambda draft: invoiced(flows=draft.one("invoice")["document"]["flows"] * 2)(draft)),
    ("an invoice for another transfer", "invoice-flow", flow_of_invoice(transfer=LATER)),
    ("an invoice by another manifest", "invoice-flow", flow_of_invoice(manifest=OTHER)),
    ("an invoice for more than its receipt", "invoice-more", more_of_invoice(bytes=9_000_000)),
    ("an invoice that counts nothing that is a number", "invoice-more", flow_of_invoice(counts={})),
    ("an invoice for less than its receipt", "invoice-period", unbilled),
    ("an invoice that ends before its ack", "invoice-period", invoiced(to="2027-01-15T08:00:01.000Z")),
    ("an invoice with a total in another spelling", "invoice-form", invoiced(total="05.25")),
    ("an invoice of time that is yet to come", "invoice-ahead", invoiced(to="2027-01-15T08:06:31.000Z")),
    ("a line for more than was counted", "invoice-line", line_of_invoice(quantity=9_000_000, amount="2.25")),
    ("a line for more than it comes to", "invoice-line", line_of_invoice(amount="0.07")),
    ("a line of another price", "invoice-line", line_of_invoice(unit_price="0.50")),
    ("a line of another price, and what it comes to by that", "invoice-price", for_nothing),
    ("a line that is left out", "invoice-quantity", invoiced(lines=[], total="0.00")),
    ("a line twice", "invoice-line", lambda draft: invoiced(lines=draft.one("invoice")["document"]["lines"][:1] * 2)(draft)),
    ("a line of nothing but an amount", "invoice-line", invoiced(lines=[{"amount": "5.25"}])),
    ("a line of what nobody counts", "invoice-line", line_of_invoice(counted="claims")),
    ("a line for a part of nothing", "invoice-line", line_of_invoice(per=0)),
    ("an invoice for time that the ack does not have", "invoice-beyond", flow_of_invoice(beyond=dict.fromkeys(COUNTED, 0) | {"us": 9})),
    ("an invoice for calls beyond the receipt", "invoice-beyond", flow_of_invoice(beyond=dict.fromkeys(COUNTED, 0) | {"calls": 1})),
    # checkpoints
    ("a checkpoint of a stranger", "checkpoint-owner", put("checkpoint", 2, of=STRANGER)),
    ("a checkpoint twice", "checkpoint-twice", twice("checkpoint")),
    ("a ledger beside the other", "checkpoint-second", beside()),
    ("a ledger that goes on though another takes its place", "checkpoint-outgrown", beside(cites=14)),
    ("a line that cites no checkpoint", "checkpoint-follows", lined("follows elsewhere.example/ledger 07 x")),
    ("a line that cites nothing", "checkpoint-follows", lined("follows")),
    ("a log that takes its own place", "checkpoint-follows", lined(follows(checkpoints.Checkpoint(LOGS[PROVIDER], 3, b"x" * 32)))),
    ("a log that cites what nobody has signed", "checkpoint-succeeds", _succeeds),
    ("a stage without a name", "checkpoint-stage", lined("stage")),
    ("a stage whose name is none", "checkpoint-stage", lined("stage one", "stage two words")),
    ("a checkpoint by a stranger", "signature-untrusted", put("checkpoint", note=note_over([b"x" * 32], by=KEYS[STRANGER]))),
    ("another root in a checkpoint", "signature-invalid", _other_root),
    ("another size in a checkpoint", "signature-invalid", lambda draft: _replaced(draft, "checkpoint", "note", "\n15\n", "\n16\n")),
    ("a checkpoint that is none", "note-separator", put("checkpoint", note="x\n")),
    ("no newest checkpoint", "entry-index", drop("checkpoint")),
    ("no checkpoint of the ledger", "entry-log", lambda draft: (draft.drop("checkpoint"), draft.drop("checkpoint"))),
    (
        "no checkpoint of the ledger, and nothing of what was shown",
        "checkpoint-absent",
        lambda draft: (draft.drop("checkpoint"), draft.drop("checkpoint")),
    ),
    (
        "a cosignature by a stranger",
        "checkpoint-cosigner",
        lambda draft: put("checkpoint", 1, note=cosigned(_bare(draft), STRANGER))(draft),
    ),
    (
        "a cosignature by a key that had ended",
        "cosignature-ended",
        lambda draft: put("checkpoint", 1, note=cosigned(_bare(draft), key=OLD))(draft),
    ),
    ("the time of a cosignature", "signature-invalid", _later),
    ("a proof of another size", "consistency-root", put("consistency", size=13)),
    ("a proof for what nobody signed", "consistency-root", put("consistency", old=10)),
    ("a proof twice", "consistency-twice", twice("consistency")),
    ("no proof for a checkpoint that was shown", "checkpoint-unproven", drop("consistency")),
    (
        "another hash in a proof of consistency",
        "consistency-old-mismatch",
        lambda draft: draft.one("consistency")["proof"].__setitem__(0, HASH),
    ),
    ("a proof of consistency that is too short", "consistency-length", lambda draft: draft.one("consistency")["proof"].pop()),
    # entries
    ("an entry of another log", "entry-log", of_entry(START, log="elsewhere.example/ledger")),
    ("an entry at another place", "inclusion-mismatch", of_entry(START, index=0)),
    ("an entry behind the end", "entry-index", of_entry(START, index=99)),
    ("two entries at one place", "entry-twice", lambda draft: draft.members.append(("entry", dict(draft.move(START))))),
    ("two entries of one sequence", "entry-twice", of_entry(START, sequence=2)),
    ("entries in another order", "entry-order", of_entry(START, sequence=99)),
    ("an entry that is both", "entry-form", of_entry(START, jws=OTHER)),
    ("an entry that is nothing", "entry-form", lambda draft: draft.move(START).update(body=None)),
    ("an entry of an object that is not there", "entry-object", lambda draft: draft.one("entry", 6).update(jws=OTHER)),
    ("an entry that is no fact", "entry-json", of_entry(START, body="{}")),
    ("an entry that is no JSON", "entry-json", of_entry(START, body="so it was")),
    ("an entry about another process", "entry-foreign", of_entry(START, pid="urn:uuid:x")),
    ("an entry about another peer", "entry-foreign", body(START, peer=STRANGER)),
    ("a back-dated entry", "inclusion-mismatch", body(START, at=NOW - 86_400)),
    ("another state in an entry", "inclusion-mismatch", body(START, state="TERMINATED")),
    ("another detail of an entry", "entry-detail", of_entry(START, detail='{"reason":"it was not"}')),
    ("another salt of an entry", "entry-detail", of_entry(START, salt="00" * 16)),
    ("a detail that is half erased", "entry-half", of_entry(START, salt=None)),
    ("a detail beside a receipt", "entry-half", lambda draft: draft.entry_of(draft.one("receipt")["jws"]).update(detail="x")),
    ("a salt beside a receipt", "entry-half", lambda draft: draft.entry_of(draft.one("receipt")["jws"]).update(salt="00")),
    ("another hash in a proof of inclusion", "inclusion-mismatch", lambda draft: draft.move(START)["proof"].__setitem__(0, HASH)),
    ("a proof of inclusion that is too short", "inclusion-length", lambda draft: draft.move(START)["proof"].pop()),
    ("the entry of the agreement dropped", "entry-message", without(AGREED)),
    ("the entry of the start dropped", "entry-message", without(START)),
    ("other terms", "terms-digest", inside("negotiation", "terms", "permission", to=[])),
    ("terms taken out", "terms-digest", put("negotiation", terms=None)),
    ("another reason of a decision", "decision-digest", inside("decision", "document", "reason", to=["Denied."])),
    ("another result of a decision about a transfer", "decision-digest", inside("decision", "document", "result", to="deny", number=1)),
    ("a decision dropped", "decision-missing", lambda draft: draft.drop("decision", 1)),
    ("another agreement with its digest", "agreement-digest", _reworded),
    ("an agreement that is not final", "agreement-final", put("agreement", final=False)),
    ("the entry of a receipt dropped", "entry-unlogged", _unlogged),
    # states, instants and reasons, which the ledger has too
    ("another state of the transfer", "state-other", put("transfer", state="STARTED")),
    ("another state of the negotiation", "state-other", put("negotiation", state="VERIFIED")),
    ("a transfer that began before", "created-other", put("transfer", created=NOW - 999)),
    ("a negotiation that began before", "created-other", put("negotiation", created=NOW - 999)),
    ("a transfer that had not changed when its last message came", "updated-other", put("transfer", updated=NOW - 400)),
    ("a transfer that has changed after the file was written", "updated-other", put("transfer", updated=NOW + 9_999)),
    ("a reason for an end that nobody gave", "code-other", put("transfer", code="QUOTA_EXHAUSTED")),
    ("an agreement that was made before", "agreement-created", put("agreement", created=NOW - 99)),
    ("an agreement that nobody has closed", "agreement-closed", put("agreement", closed=NOW + 1, closedBy="us", reason="it is over")),
    (
        "an agreement that the peer has not closed",
        "agreement-closed",
        put("agreement", closed=NOW + 1, closedBy="peer", reason="it is over"),
    ),
    ("a reason for what is not closed", "agreement-closed", put("agreement", reason="it is over")),
    ("an invoice with an end that the agreement has not", "invoice-closed", invoiced(closed={"at": "x", "by": CONSUMER})),
    ("a duty that nobody has done", "agreement-performed", put("agreement", performed=[{"duty": "/permission/0/duty/0"}])),
    # what must not be there
    ("an access token in a reason", "secret-token", put("agreement", reason="Bearer abcdefgh.ijklmnop")),
    (
        "a token in the place of a body",
        "secret-token",
        put("negotiation", terms={"note": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"}),
    ),
    ("a password among the terms", "secret-name", put("negotiation", terms={"password": "x"})),
    ("a private key in a decision", "secret-key", inside("decision", "document", "key", to={"kty": "OKP", "d": "x"})),
    ("a private key as text", "secret-key", put("agreement", reason="-----BEGIN PRIVATE KEY-----")),
]


def told(**changed: Any) -> Callable[[Any], Any]:
    """A statement about the flow that says something else of it."""
    return lambda value: replace(value, flows=(replace(value.flows[0], **changed),))


def other(**changed: Any) -> Callable[[Any], Any]:
    return lambda value: replace(value, **changed)


REJECTED = Rejected(9, b"r" * 32)

# A party with its own key: (what it does, what it is refused with, the story as it would be). What follows from a lie is no longer signed
# for by the other side, so each is found by the rules of the chain, of the statement, or of the log.
LIES: list[tuple[str, str, Story]] = [
    ("a manifest for another consumer", "manifest-audience", Story({"manifest": other(audience=STRANGER)})),
    ("a manifest of another agreement", "manifest-agreement", Story({"manifest": other(agreement="urn:uuid:b")})),
    ("a manifest of another policy", "manifest-policy", Story({"manifest": other(policy=b"x" * 32)})),
    ("a manifest of other data", "manifest-dataset", Story({"manifest": other(dataset="urn:uuid:x")})),
    ("a manifest of another transfer", "transfer-pids", Story({"manifest": other(consumer_pid="urn:uuid:x")})),
    ("a receipt for somebody else", "receipt-audience", Story({"receipt 2": other(audience=STRANGER)})),
    ("a receipt of another manifest", "manifest-absent", Story({"receipt 2": other(manifest=b"x" * 32)})),
    ("a receipt of a chain that is another", "previous-other", Story({"receipt 2": other(previous=b"x" * 32)})),
    ("a receipt that leaves one out", "receipt-missing", Story({"receipt 2": other(sequence=3)})),
    ("a receipt with a number that was used", "receipt-conflict", Story({"receipt 2": other(sequence=1, previous=None)})),
    ("a receipt with an id that was used", "receipt-id-used", Story({"receipt 2": other(id="j1")})),
    ("a receipt from before the manifest", "receipt-before", Story({"receipt 2": other(issued=NOW - 3_000)})),
    ("a receipt after the end", "manifest-ended", Story({"receipt 2": other(issued=NOW + 90_000)})),
    ("a receipt for more bytes", "bytes-differ", Story({"receipt 2": other(counts=Counts(10**9, 0, 1, 1, 7))})),
    ("a receipt for records of data that have none", "records-differ", Story({"receipt 2": other(counts=Counts(196_613, 5, 1, 1, 7))})),
    ("a receipt for more files", "items-differ", Story({"receipt 2": other(counts=Counts(196_613, 0, 2, 1, 7))})),
    ("a receipt over leaves that are none", "ranges-outside", Story({"receipt 2": other(ranges=((1, 9),))})),
    ("a receipt of another root", "checkpoint-other", Story({"receipt 2": other(checkpoint=Checkpoint(5, b"x" * 32))})),
    ("a receipt without a root", "checkpoint-missing", Story({"receipt 1": other(checkpoint=None)})),
    ("a receipt that is complete too early", "complete-early", Story({"receipt 1": other(state="complete")})),
    ("a receipt that rejects what is not there", "rejected-outside", Story({"receipt 2": other(state="rejected", rejected=REJECTED)})),
    (
        "a receipt that rejects what it covers",
        "rejected-covered",
        Story({"receipt 2": other(state="rejected", rejected=Rejected(2, b"r" * 32))}),
    ),
    (
        "a receipt after the last",
        "account-complete",
        Story(
            {
                "receipt 1": other(ranges=((1, 5),), counts=Counts(196_613, 0, 1, 1), state="complete"),
                "ack 1": other(credit_bytes=196_613 + 4 * 65_536),
            }
        ),
    ),
    ("an ack for somebody else", "ack-audience", Story({"ack 2": other(audience=STRANGER)})),
    ("an ack of another manifest", "ack-manifest", Story({"ack 2": other(manifest=b"x" * 32)})),
    ("an ack of another number", "ack-gap", Story({"ack 2": other(sequence=3)})),
    ("an ack of an earlier number", "ack-stale", Story({"ack 2": other(sequence=1)})),
    ("an ack of a receipt that is none", "receipt-absent", Story({"ack 2": other(receipt=b"x" * 32)})),
    ("an ack with less credit than was promised", "ack-credit", Story({"ack 2": other(credit_bytes=7)})),
    ("an ack that is older than its receipt", "ack-before", Story({"ack 2": other(issued=NOW - 4_000)})),
    ("an ack that names another place", "ack-index", Story({"ack 2": other(index=3)})),
    ("a statement for somebody else", "statement-by", Story({"statement": other(audience=STRANGER)})),
    ("a statement of another agreement", "object-agreement", Story({"statement": other(agreement="urn:uuid:b")})),
    ("a statement of another transfer", "statement-transfer", Story({"statement": told(transfer="urn:uuid:x")})),
    ("a statement of another manifest", "statement-manifest", Story({"statement": told(manifest=b"x" * 32)})),
    ("a statement of another receipt", "statement-receipt", Story({"statement": told(receipt=b"x" * 32)})),
    ("a statement of another number", "statement-receipt", Story({"statement": told(sequence=1)})),
    ("a statement of more", "statement-counts", Story({"statement": told(counts=Counts(10**9, 0, 1, 1, 7))})),
    ("a closing for somebody else", "closing-by", Story(closings=(replace(CLOSING, audience=STRANGER),))),
    ("a closing by a stranger", "closing-by", Story({"closing 2": other(issuer=STRANGER)}, closings=(CLOSING, CLOSING))),
    ("a closing of another agreement", "object-agreement", Story(closings=(replace(CLOSING, agreement="urn:uuid:b"),))),
    ("a closing after it was signed", "claim-at", Story({"closing 2": other(at=NOW * 2_000_000)}, closings=(CLOSING, CLOSING))),
    ("an agreement that goes by the later closing", "closing-other", Story(closings=(OWN_CLOSING, replace(CLOSING, at=CLOSING.at - 9)))),
    ("a closing that the agreement does not know", "closing-other", Story({"closing 1": other(at=CLOSING.at - 9)}, closings=(CLOSING,))),
    ("an answer to a closing by a stranger", "closing-ack-by", Story(closings=(CLOSING,), answers=(answer(CLOSING, issuer=STRANGER),))),
    (
        "an answer to a closing for its own side",
        "closing-ack-parties",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, audience=PROVIDER),)),
    ),
    (
        "an answer to a closing of another agreement",
        "closing-ack-parties",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, agreement="urn:uuid:b"),)),
    ),
    ("an answer to a closing that nobody has", "closing-ack-absent", Story(closings=(CLOSING,), answers=(answer(TWIN),))),
    ("an answer that says another end", "closing-ack-ends", Story(closings=(CLOSING,), answers=(answer(CLOSING, ends=CLOSING.at + 1),))),
    ("an answer that takes a closing and says no end", "claim-ends", Story(closings=(CLOSING,), answers=(answer(CLOSING, ends=None),))),
    (
        "an answer that takes a closing for a reason",
        "claim-why",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, why="closing-twice"),)),
    ),
    (
        "an answer with a closing that is the other side's",
        "jws-kid",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, own=signed(CLOSING)),)),
    ),
    (
        "an answer with a closing of another agreement",
        "closing-ack-own",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, own=signed(replace(OWN_CLOSING, agreement="urn:uuid:b"))),)),
    ),
    (
        "a refusal for a closing in time where there was none",
        "closing-ack-why",
        Story(closings=(CLOSING,), answers=(answer(CLOSING, state="refused", why="closing-heard"),)),
    ),
    (
        "a refusal for another closing where there is none",
        "closing-ack-unfounded",
        Story(closings=(OWN_CLOSING, CLOSING), answers=(answer(CLOSING, **REFUSAL),)),
    ),
    (
        "an end that both know, of a closing that was refused",
        "closing-other",
        Story(closings=(CLOSING, OWN_CLOSING, TWIN), answers=(answer(CLOSING, **REFUSAL),)),
    ),
    (
        "a checkpoint of another ledger under a receipt",
        "signature-untrusted",
        Story({"receipt 2": other(ledger=note_over([], CONSUMER, KEYS[STRANGER]))}),
    ),
    ("a ledger that forks under an ack", "checkpoint-forked", Story({"ack 2": other(ledger=note_over([leaf_hash(b"x")] * 15))})),
    ("a count of fewer entries", "count-other", Story(counted={"entries": 12})),
    ("a count of less of the ledger", "count-size", Story(counted={"logs": {LOGS[PROVIDER]: 13}})),
    ("a count of another ledger", "count-size", Story(counted={"logs": {"x": 99}})),
    ("a ledger that was longer once", "checkpoint-absent", Story({"ack 2": other(ledger=note_over([leaf_hash(b"x")] * 99))})),
    (
        "a ledger that was rewritten after it was cosigned",
        "consistency-old-mismatch",
        Story(rewritten={5: entry_of(fact("message-received", TRANSFER), b"h" * 32)}),
    ),
]
