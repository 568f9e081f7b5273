"""Every reason why a header, a manifest, a receipt, an ack or a statement does not hold: one code and one sentence each. Pure.

Codes are stable: they go to the peer and into evidence. A sentence says what is wrong and how to mend it; values that a peer has sent
are never repeated in it, except numbers.
"""

from __future__ import annotations

from connector.errors import MeterRefused

# What each claim of a signed object is. A claim that is something else is refused with the code `claim-<name>`.
CLAIMS: dict[str, str] = {
    "v": "the version 1 of these objects",
    "iss": "the DID of the participant that signs",
    "aud": "the DID of the participant that it is for",
    "jti": "an identifier of 1 to 128 visible ASCII characters",
    "iat": "an instant in whole POSIX seconds",
    "exp": "an instant in whole POSIX seconds, after `iat`",
    "agr": "the id of an agreement",
    "pol": "the base64url SHA-256 of a policy's JCS form",
    "tp": "the `consumerPid` and the `providerPid` of a transfer",
    "ds": "the id of a dataset",
    "snap": "the name of a snapshot",
    "log": "a content log: `origin`, `alg` sha256, `chunk`, and `root` and `size`, both null while it is live",
    "unit": "the unit of records: none, line, message or row",
    "window": "a number of bytes that is a multiple of the log's chunk",
    "credit": "a number of windows from 1 to 64 in a manifest, a number of bytes in an ack",
    "required": "true or false",
    "receipts": "an http or https URL without a fragment",
    "prices": "the base64url SHA-256 of price terms, or null",
    "man": "the base64url SHA-256 of a manifest as it was signed",
    "seq": "a sequence number from 1",
    "prev": "the base64url SHA-256 of the receipt before, or null in the first",
    "ranges": "an array of at most 256 pairs [from, to) of leaf numbers",
    "bytes": "a whole number that is not negative",
    "records": "a whole number that is not negative",
    "items": "a whole number that is not negative",
    "calls": "a whole number that is not negative",
    "us": "a whole number of microseconds that is not negative",
    "cp": "a checkpoint: `size` in leaves and `root`, or null before a live log has one",
    "st": "one of the states of its kind: partial, complete, rejected, aborted; or ok, quota, revoked, suspended",
    "after": "write or fsync",
    "rej": "the `leaf` that failed and the hash `got` instead, or null; it goes with the state rejected alone",
    "why": "a short reason of letters, digits and dashes, or null; it goes with the state aborted alone",
    "led": "the newest checkpoint of the signer's ledger, a signed note, or null",
    "rcpt": "the base64url SHA-256 of a receipt as it was signed",
    "idx": "an index in the signer's ledger, or null",
    "from": "an instant in whole POSIX seconds",
    "to": "an instant in whole POSIX seconds, not before `from`",
    "flows": "an array of at most 128 flows with `transfer`, `man`, `seq`, `rcpt`, `attested` and their counts",
    "totals": "counts",
    "peer": "the newest checkpoint of the other side's ledger, a signed note, or null",
}

CODES: dict[str, str] = {
    # of what was signed: RFC 7515, and who may sign it
    "jws-length": "the object has more than 65,535 characters",
    "jws-parts": "the object is not a compact JWS of three parts",
    "jws-header": "the object's header is not JSON with `alg`, `kid` and `typ`, each once and nothing else",
    "jws-alg": "the object's `alg` is not EdDSA",
    "jws-typ": "the object is of another kind: its `typ` is not the one that belongs here",
    "jws-kid": "the object's `kid` is not a key of the participant that it should be by",
    "jws-key-unknown": "the object's `kid` is not a key that its issuer is known to have; publish it, or sign with another",
    "jws-key-ended": "the object's key was not valid at that time",
    "jws-signature": "the object's signature does not verify",
    "jws-payload": "the object's payload is not a JSON object with each name once",
    "jws-issuer": "the object's `iss` is not the participant whose key signed it",
    # of the claims
    "claims-missing": "the object lacks claims of its kind; null stands for what there is none of",
    "claims-unknown": "the object has claims that its kind does not have; take them out",
    **{f"claim-{name}": f"`{name}` is not {what}" for name, what in CLAIMS.items()},
    "ranges-empty": "one of the `ranges` has no leaves; `to` lies after `from`",
    "ranges-unsorted": "the `ranges` are not in ascending order",
    "ranges-overlap": "two of the `ranges` overlap",
    "ranges-adjacent": "two of the `ranges` touch; write them as one",
    "ranges-header": "the `ranges` name leaf 0, which is the header and no data",
    "totals-differ": "the `totals` are not the sums of the flows",
    "flows-twice": "two of the `flows` are of the same transfer",
    # of a manifest, for the consumer whose transfer it is
    "manifest-issuer": "the manifest is not by the provider of the transfer",
    "manifest-audience": "the manifest is not for the consumer of the transfer",
    "manifest-agreement": "the manifest is for another agreement",
    "manifest-policy": "the manifest's `pol` is not the digest of the policy that was agreed",
    "manifest-transfer": "the manifest is for another transfer",
    "manifest-dataset": "the manifest is for another dataset",
    "manifest-prices": "the manifest's `prices` are not the digest of the price terms that were agreed",
    "manifest-ahead": "the manifest's `iat` lies in the future; compare the clocks of both sides",
    "manifest-ended": "the manifest had ended when this was signed; get a new one",
    # of a receipt, in its place in the chain
    "receipt-issuer": "the receipt is not by the consumer whom the manifest is for",
    "receipt-audience": "the receipt is not for the provider who signed the manifest",
    "receipt-manifest": "the receipt is for another manifest",
    "receipt-ahead": "the receipt's `iat` lies more than 300 seconds in the future; compare the clocks of both sides",
    "receipt-before": "the receipt was signed before its manifest",
    "receipt-id-used": "the receipt has the `jti` of the one before; each has its own",
    "receipt-pending": "the last receipt has no ack yet; send that one again, as it was signed",
    "sequence-stale": "a later receipt was accepted; go on from that one, whose ack is here",
    "sequence-conflict": "another receipt with this `seq` was accepted; both are kept as evidence, and the account is disputed",
    "sequence-gap": "the receipt's `seq` leaves some out; the next one is {expected}",
    "previous-other": "the receipt's `prev` is not the digest of the receipt that was accepted last (null before the first)",
    "account-complete": "the account is complete: the last receipt said that everything is there",
    "account-disputed": "the account is disputed: two receipts with the same `seq`, or statements apart, were signed; it takes no more",
    "ranges-outside": "the receipt covers leaves from {limit} on, which the log of its checkpoint does not have",
    "ranges-shrunk": "the receipt covers less than the one before; ranges are cumulative",
    "bytes-differ": "the receipt's `bytes` are not the {known} that its ranges come to",
    "records-differ": "the receipt's `records` are not the {known} that its ranges come to",
    "items-differ": "the receipt's `items` are not the {known} that its ranges come to",
    "counts-shrunk": "the receipt counts less than the one before; counts are cumulative",
    "checkpoint-missing": "the receipt covers leaves and names no checkpoint by which they were verified",
    "checkpoint-other": "the receipt's checkpoint is not one of this log",
    "checkpoint-older": "the receipt's checkpoint has fewer leaves than that of the one before",
    "complete-early": "the receipt says complete, and its ranges are not the whole log",
    "rejected-outside": "the receipt rejects a leaf that the log of its checkpoint does not have",
    "rejected-covered": "the receipt rejects a leaf that its own ranges cover",
    "rejected-true": "the receipt rejects a leaf whose hash it has right",
    # of an ack, for the consumer whose receipt it answers
    "ack-issuer": "the ack is not by the provider who signed the manifest",
    "ack-audience": "the ack is not for the consumer whom the manifest is for",
    "ack-manifest": "the ack is for another manifest",
    "ack-ahead": "the ack's `iat` lies more than 300 seconds in the future; compare the clocks of both sides",
    "ack-stale": "the ack is for an earlier receipt",
    "ack-gap": "the ack is for a receipt that was not signed yet",
    "ack-receipt": "the ack is for another receipt with this `seq`",
    "ack-conflict": "the provider has signed another ack for this receipt",
    "ack-credit": "the ack's credit is not what the manifest promises in this state",
    # of what a consumer takes up again from the provider
    "restored-behind": "what the provider has kept is older than what is here",
    # of a statement, for either side
    "statement-parties": "the statement is not between the two participants of the agreement",
    "statement-agreement": "the statement is for another agreement or another period",
    "statement-flow": "the statement names a flow that is not of this agreement, or leaves one out",
    "statement-differs": "the statement's counts or receipts of a flow are not those of this side",
    # of a header leaf
    "header-length": "the header has more than 4,096 bytes",
    "header-json": "the header is not a JSON object",
    "header-members": "the header does not have exactly the members v, alg, chunk, size, mediaType, recordUnit and salt",
    "header-version": "the header is not of version 1",
    "header-alg": "the header's `alg` is not sha256",
    "header-chunk": "the header's `chunk` is not a power of two from 65,536 to 4,194,304",
    "header-size": "the header's `size` is not a number of bytes, or null for live data",
    "header-media": "the header's `mediaType` is not a media type",
    "header-unit": "the header's `recordUnit` is not none, line, message or row",
    "header-salt": "the header's `salt` is not base64url of 32 bytes",
    "header-spelling": "the header is not in its only spelling, that of RFC 8785 (JCS)",
    # of the side list of a live log
    "list-length": "the list of leaves is not a multiple of 8 bytes",
    "list-chunk": "leaf {leaf} of the list has no bytes, or more than a chunk",
    "list-records": "leaf {leaf} of the list has more records than bytes",
}


def refused(code: str, **values: int) -> MeterRefused:
    """The error for one of the codes; `values` are the numbers that its sentence names."""
    return MeterRefused(CODES[code].format(**values), code)
