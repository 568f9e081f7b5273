"""The vocabulary of the protocol: kinds of process, roles, moves, and one value for a message.

A *move* is what the state tables speak of. It is a message type, except that the negotiation event message is two
moves, ACCEPTED and FINALIZED, because different sides may send them (DSP 2025-1, contract negotiation, message types).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from connector.values import Value

DSP_CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"
CONTEXT = [DSP_CONTEXT]


class Kind(StrEnum):
    """Which of the protocol's two processes."""

    NEGOTIATION = "negotiation"
    TRANSFER = "transfer"


class Role(StrEnum):
    """Which side of a process a participant is on."""

    CONSUMER = "consumer"
    PROVIDER = "provider"


OTHER = {Role.CONSUMER: Role.PROVIDER, Role.PROVIDER: Role.CONSUMER}


class Move(StrEnum):
    """One step that a side can take. The value is unique over both kinds and is what stores and logs show."""

    CONTRACT_REQUEST = "ContractRequestMessage"
    CONTRACT_OFFER = "ContractOfferMessage"
    ACCEPTED = "ContractNegotiationEventMessage:ACCEPTED"
    CONTRACT_AGREEMENT = "ContractAgreementMessage"
    VERIFICATION = "ContractAgreementVerificationMessage"
    FINALIZED = "ContractNegotiationEventMessage:FINALIZED"
    CONTRACT_TERMINATION = "ContractNegotiationTerminationMessage"
    TRANSFER_REQUEST = "TransferRequestMessage"
    START = "TransferStartMessage"
    SUSPENSION = "TransferSuspensionMessage"
    COMPLETION = "TransferCompletionMessage"
    TRANSFER_TERMINATION = "TransferTerminationMessage"

    def __init__(self, value: str) -> None:
        name, _, event = value.partition(":")
        self.type = name  # the `@type` on the wire
        self.event = event or None  # the `eventType` on the wire, for the two moves that share a message type
        self.kind = Kind.TRANSFER if value.startswith("Transfer") else Kind.NEGOTIATION
        self.termination = value.endswith("TerminationMessage")


TERMINATION = {Kind.NEGOTIATION: Move.CONTRACT_TERMINATION, Kind.TRANSFER: Move.TRANSFER_TERMINATION}

# Where a move is posted, below the peer's base. `{}` is the peer's own pid; a first message has none.
# DSP 2025-1, HTTPS binding. The first of the two is for a move that creates a process.
PATHS: dict[Move, tuple[str, str]] = {
    Move.CONTRACT_REQUEST: ("/negotiations/request", "/negotiations/{}/request"),
    Move.CONTRACT_OFFER: ("/negotiations/offers", "/negotiations/{}/offers"),
    Move.ACCEPTED: ("", "/negotiations/{}/events"),
    Move.FINALIZED: ("", "/negotiations/{}/events"),
    Move.CONTRACT_AGREEMENT: ("", "/negotiations/{}/agreement"),
    Move.VERIFICATION: ("", "/negotiations/{}/agreement/verification"),
    Move.CONTRACT_TERMINATION: ("", "/negotiations/{}/termination"),
    Move.TRANSFER_REQUEST: ("/transfers/request", ""),
    Move.START: ("", "/transfers/{}/start"),
    Move.SUSPENSION: ("", "/transfers/{}/suspension"),
    Move.COMPLETION: ("", "/transfers/{}/completion"),
    Move.TRANSFER_TERMINATION: ("", "/transfers/{}/termination"),
}

PATH_CHARACTERS = "!$&'()*+,;=:@-._~"  # what a path segment may hold as it is (RFC 3986, pchar)
SEGMENT = re.compile(rf"[A-Za-z0-9{re.escape(PATH_CHARACTERS)}]*")
PROCESS_TYPE = {Kind.NEGOTIATION: "ContractNegotiation", Kind.TRANSFER: "TransferProcess"}
ERROR_TYPE = {Kind.NEGOTIATION: "ContractNegotiationError", Kind.TRANSFER: "TransferError"}


PID_CHARACTERS_MAX = 255  # ours have 45; it becomes a segment of an address
PID = re.compile(rf"(?!\.\.?\Z)[!-~]{{1,{PID_CHARACTERS_MAX}}}")  # a dot or two would lead elsewhere (RFC 3986, 5.2.4)


def is_pid(value: object) -> bool:
    """Whether this can be a process id: visible ASCII of a bounded length, and no step of a path, since it travels in addresses."""
    return isinstance(value, str) and PID.fullmatch(value) is not None


def path_of(move: Move, peer_pid: str | None) -> str:
    """Return the path below the peer's base to which `move` is posted; `peer_pid` is None for a first message."""
    first, later = PATHS[move]
    if not peer_pid:
        return first
    return later.format(peer_pid if SEGMENT.fullmatch(peer_pid) else quote(peer_pid, safe=PATH_CHARACTERS))


class Message(Value):
    """A message that was read from the wire, or is about to be written to it.

    `digest` is the SHA-256 of the canonical body (keys sorted): what makes two messages equal, since DSP 2025-1 has no
    message id. `document` is the compact form.
    """

    move: Move
    consumer_pid: str | None
    provider_pid: str | None
    document: Mapping[str, Any]
    digest: bytes

    def pid_of(self, role: Role) -> str | None:
        """The pid that the side `role` chose."""
        return self.consumer_pid if role is Role.CONSUMER else self.provider_pid
