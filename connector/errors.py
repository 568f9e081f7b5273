"""Every error of the connector as one tree, and the one table that turns an error into an answer.

    ConnectorError
    ├── Unauthenticated            nobody we know is speaking, or the token proves nothing
    ├── UnknownProcess             no such process, or not the caller's: both look the same from outside
    ├── WireError                  bytes that are not a message of the protocol
    ├── IllegalMessage             a message that the state table does not allow now
    ├── Refused                    a legal message whose content we cannot accept
    │   └── UnknownOffer           no such offer for this participant
    ├── PolicyError                a policy we cannot mean; carries the findings
    ├── InvalidRequest             a call of the management API that cannot be understood
    │   └── TellsSecret            a text for a peer and for the record that looks like a token or a key
    ├── NotAuthorized              a management call without a valid token
    ├── NotFound                   something the management API was asked for is not there
    ├── Contradiction              a management call against the present state
    │   └── IdempotencyConflict    the same key came with another body
    ├── TooLarge                   a body over its limit
    ├── TooSlow                    a body that did not arrive in its time
    ├── UnsupportedMedia           a media type or an encoding that this door does not take
    ├── Busy                       something that every request needs is short or stopping; later will do
    │   ├── TooMany                this caller has more under way than its share; others are served
    │   └── DiskShort              a disk is all but full: what runs goes on, and nothing new begins
    ├── PeerFailed                 the other connector did not answer, or not with what the protocol says
    │   └── PeerRefused            it answered with an error of its own
    ├── EgressDenied               an address that we do not dial
    ├── TokenRefused               an access token of the data listener that does not hold
    ├── SignatureRefused           an HTTP message signature that is missing or does not hold; a code each
    ├── ProofRefused               a tree, a proof, a signed note or a checkpoint that does not hold; a code each
    ├── MeterRefused               a manifest, a receipt, an ack or a statement that does not hold; a code each
    ├── Withdrawn                  the permission to stream has ended
    ├── RangeNotSatisfiable        a range outside of what there is
    ├── SourceFailed               the data behind a dataset cannot be read, or has changed
    ├── SinkFailed                 the file that data should go to cannot be written
    │   └── DescriptorsShort       as many files and connections are open as may be; some will be let go
    ├── SettingsError              settings that cannot work; carries all findings
    │   └── ProfilesUnread         what the words of policies mean cannot be read here: no policy is judged
    └── StoreError                 the store cannot be used (newer schema, broken disk)

DSP 2025-1 fixes the statuses of the protocol's errors: 400 for what cannot be understood or is not allowed now, 404 for
what does not exist for the caller. The rest follows RFC 9110, and RFC 6585 for 429.
"""

from __future__ import annotations

from typing import Any


class ConnectorError(Exception):
    """Base of all errors that the connector raises on purpose. `reasons` are sentences for whoever is refused."""

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.reasons = reasons or (message,)


class Unauthenticated(ConnectorError):
    """The caller's identity could not be established. `fault` names the part of a token that proves nothing: whoever judges a signed
    object makes a code of its own of it."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), fault: str = "token") -> None:
        super().__init__(message, reasons)
        self.fault = fault


class UnknownProcess(ConnectorError):
    """No such process for this caller."""


class WireError(ConnectorError):
    """The bytes are not a valid message of the Dataspace Protocol."""


class IllegalMessage(ConnectorError):
    """The message is not allowed in the present state from this sender."""


class Refused(ConnectorError):
    """The message is well-formed and in turn, but its content cannot be accepted. `code` is stable."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), code: str = "refused") -> None:
        super().__init__(message, reasons)
        self.code = code


class UnknownOffer(Refused):
    """The offer does not exist for this participant; hidden and absent ones answer alike."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), code: str = "unknown-offer") -> None:
        super().__init__(message, reasons, code)


class PolicyError(ConnectorError):
    """A policy that contains something we cannot mean. `findings` say what, where, and how to mend it; `pointer` is the RFC 6901 place of
    the first in the body of a call that holds the policy."""

    def __init__(self, message: str, findings: tuple[Any, ...] = (), pointer: str = "") -> None:
        super().__init__(message, tuple(str(f) for f in findings))
        self.findings = findings
        self.pointer = pointer


class InvalidRequest(ConnectorError):
    """A management call that cannot be understood. `pointer` is the RFC 6901 place of the fault."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), pointer: str = "") -> None:
        super().__init__(message, reasons)
        self.pointer = pointer


class TellsSecret(InvalidRequest):
    """A text that goes to a peer and on record for good, and looks like a secret."""


class NotAuthorized(ConnectorError):
    """A management call without a valid token."""


class NotFound(ConnectorError):
    """What was asked for does not exist."""


class Contradiction(ConnectorError):
    """The call contradicts the present state."""


class IdempotencyConflict(Contradiction):
    """An idempotency key was used again with another body."""


class TooLarge(ConnectorError):
    """The body is larger than this door takes."""


class TooSlow(ConnectorError):
    """The body did not arrive in its time."""


class UnsupportedMedia(ConnectorError):
    """The media type or content encoding is not taken at this door."""


class Busy(ConnectorError):
    """What the request needs is short, or stopping. `retry_seconds` is when another try makes sense."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), retry_seconds: int = 1) -> None:
        super().__init__(message, reasons)
        self.retry_seconds = retry_seconds


class TooMany(Busy):
    """This caller has more under way than its share of something bounded. Others are still served."""


class DiskShort(Busy):
    """A disk has too little room for one more transfer."""


class PeerFailed(ConnectorError):
    """The peer could not be reached or answered outside of the protocol."""


class PeerRefused(PeerFailed):
    """The peer answered with an error. `status` is its HTTP status, `said` the code of its problem details, if they were read."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), status: int = 0, said: str | None = None) -> None:
        super().__init__(message, reasons)
        self.status, self.said = status, said


class EgressDenied(ConnectorError):
    """An address that this connector does not dial."""


class TokenRefused(ConnectorError):
    """An access token that does not hold for this request."""


class SignatureRefused(ConnectorError):
    """An HTTP message signature (RFC 9421) that is missing or does not hold. `code` is stable and says which rule it breaks."""

    def __init__(self, message: str, code: str = "signature-refused") -> None:
        super().__init__(message)
        self.code = code


class ProofRefused(ConnectorError):
    """A Merkle tree, a proof, a signed note, a checkpoint or a tile that does not hold. `code` is stable and says which rule it breaks."""

    def __init__(self, message: str, code: str = "proof-refused") -> None:
        super().__init__(message)
        self.code = code


class MeterRefused(ConnectorError):
    """A content log's header, a manifest, a receipt, an ack or a statement that does not hold. `code` is stable (`metering/codes.py`)."""

    def __init__(self, message: str, code: str = "meter-refused") -> None:
        super().__init__(message)
        self.code = code


class Withdrawn(ConnectorError):
    """The permission that a stream ran on has ended. `code` is stable."""

    def __init__(self, message: str, code: str = "withdrawn") -> None:
        super().__init__(message)
        self.code = code


class RangeNotSatisfiable(ConnectorError):
    """The requested range lies outside of the representation. `size_bytes` is its true size."""

    def __init__(self, message: str, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class SourceFailed(ConnectorError):
    """The source behind a dataset cannot be read, or is not what was published."""


class SinkFailed(ConnectorError):
    """The file that data should go to cannot be written: no space, no right, or something is in its place. `full`: for want of space, which
    somebody may make."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), *, full: bool = False) -> None:
        super().__init__(message, reasons)
        self.full = full


class DescriptorsShort(SinkFailed):
    """This process, or its machine, has as many files and connections open as it may. Nothing is said of the disk by that."""


class SettingsError(ConnectorError):
    """Settings that cannot work. `reasons` hold every finding: field, what is wrong, what would be right."""


class ProfilesUnread(SettingsError):
    """The profile packs of this installation cannot be read, so nobody knows what a policy means. No PolicyError, as that is a policy's
    fault, and ends what runs under it."""


class StoreError(ConnectorError):
    """The store cannot be used."""


# error -> (HTTP status, stable code). Used by the one middleware that answers; a test asserts that every leaf has a row.
ANSWERS: dict[type[ConnectorError], tuple[int, str]] = {
    Unauthenticated: (401, "unauthenticated"),
    UnknownProcess: (404, "not-found"),
    WireError: (400, "malformed-message"),
    IllegalMessage: (400, "illegal-message"),
    Refused: (400, "refused"),
    UnknownOffer: (400, "unknown-offer"),
    PolicyError: (422, "policy-not-understood"),
    InvalidRequest: (400, "invalid-request"),
    TellsSecret: (422, "tells-secret"),
    NotAuthorized: (401, "not-authorized"),
    NotFound: (404, "not-found"),
    Contradiction: (409, "contradiction"),
    IdempotencyConflict: (409, "idempotency-conflict"),
    TooLarge: (413, "too-large"),
    TooSlow: (408, "too-slow"),
    UnsupportedMedia: (415, "unsupported-media"),
    Busy: (503, "busy"),
    TooMany: (429, "too-many"),
    DiskShort: (503, "disk-short"),
    PeerFailed: (502, "peer-failed"),
    PeerRefused: (502, "peer-refused"),
    EgressDenied: (502, "egress-denied"),
    TokenRefused: (401, "token-refused"),
    SignatureRefused: (401, "signature-refused"),
    ProofRefused: (422, "proof-refused"),
    MeterRefused: (422, "meter-refused"),
    Withdrawn: (403, "withdrawn"),
    RangeNotSatisfiable: (416, "range-not-satisfiable"),
    SourceFailed: (502, "source-failed"),
    SinkFailed: (507, "sink-failed"),
    DescriptorsShort: (503, "descriptors-short"),
    SettingsError: (422, "settings"),  # while running: what a reload was to take
    ProfilesUnread: (503, "profiles-unread"),  # a moment before this connector ends for it: who asks again finds another one
    StoreError: (503, "store"),
}


def answer_to(error: ConnectorError) -> tuple[int, str]:
    """Return (HTTP status, stable code) for an error; the nearest row up its own line of classes counts."""
    for cls in type(error).__mro__:
        if row := ANSWERS.get(cls):
            status, code = row
            return status, getattr(error, "code", code)
    raise TypeError(f"{type(error).__name__} has no row in ANSWERS")


# What another participant is told of errors whose own texts are for our operator: they name files, databases and addresses.
TOLD: dict[type[ConnectorError], str] = {
    PeerFailed: "another system that this connector needs for the answer failed; try again later",
    EgressDenied: "this connector does not dial the address that it would need for the answer",
    SourceFailed: "the data behind this transfer cannot be read now; the provider has to look after it",
    SinkFailed: "this connector cannot write what it would have to write; its operator has to look after it",
    DescriptorsShort: "this connector has more open at present than it may; try again later",
    SettingsError: "this connector is not set up for this request; its operator has to look after it",
    StoreError: "this connector cannot use its store now; try again later",
}


def told(error: ConnectorError) -> ConnectorError:
    """`error` as another participant may read it: itself, or what TOLD has for it. The log keeps the original."""
    for cls in type(error).__mro__:
        if text := TOLD.get(cls):
            return ConnectorError(text)
    return error
