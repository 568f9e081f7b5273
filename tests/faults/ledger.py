"""What was promised: every acknowledged call, and what both sides' records have to say because of it."""

from dataclasses import dataclass, field

CONSUMER, PROVIDER = "consumer", "provider"
SIDES = (CONSUMER, PROVIDER)
OTHER = {CONSUMER: PROVIDER, PROVIDER: CONSUMER}
NEGOTIATION, TRANSFER = "negotiation", "transfer"

Moves = tuple[tuple[str, str], ...]  # (who sends, move), in the order of the exchange


def _moves(text: str) -> Moves:
    """`C ContractRequestMessage` a line."""
    senders = {"C": CONSUMER, "P": PROVIDER}
    return tuple((senders[sender], move) for sender, move in (line.split() for line in text.strip().splitlines()))


REQUESTED = _moves("C ContractRequestMessage")
OFFERED = _moves("P ContractOfferMessage")
ACCEPTED = _moves("C ContractNegotiationEventMessage:ACCEPTED")
AGREED = _moves("""
    P ContractAgreementMessage
    C ContractAgreementVerificationMessage
    P ContractNegotiationEventMessage:FINALIZED
""")
REFUSED = _moves("P ContractNegotiationTerminationMessage")
GIVEN_UP = _moves("C ContractNegotiationTerminationMessage")
STARTED = _moves("""
    C TransferRequestMessage
    P TransferStartMessage
""")
NOT_STARTED = _moves("""
    C TransferRequestMessage
    P TransferTerminationMessage
""")


@dataclass
class Promise:
    """A process that an acknowledged call of `side` began there as `pid`. `moves` grow with each further call that was
    acknowledged; each stands once in both records. `state` is where both sides have to be in the end. `overruled` was perhaps sent, and
    `crossed` perhaps received as well: the other side has said the same at the same time."""

    job: str
    side: str
    kind: str
    pid: str
    moves: Moves
    state: str
    overruled: Moves = ()
    crossed: Moves = ()


@dataclass
class Order:
    """An acknowledged pull of the consumer: what has to be in which file ("": it has not come to that)."""

    job: str
    id: str
    out: str
    sha256: str


@dataclass
class Quota:
    """What an agreement lets be used: so many starts and bytes. `received` is what has come of it, `starts` the transfers that ran,
    and `ended` says that one of them was ended because nothing was left."""

    job: str
    agreement: str
    starts_max: int
    bytes_max: int
    starts: int = 0
    received: int = 0
    ended: bool = False


@dataclass
class Cosigned:
    """What `side` was told: the other one has cosigned so many entries of its log `origin`."""

    job: str
    side: str
    origin: str
    size: int


@dataclass
class Ledger:
    """All promises. `datasets` were published by the provider: (job, id)."""

    promises: list[Promise] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    datasets: list[tuple[str, str]] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    cosigned: list[Cosigned] = field(default_factory=list)
