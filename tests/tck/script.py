"""What the system under test does of its own accord, as data: per dataset (negotiations) or agreement (transfers).

The kit plays the counterparty and expects certain moves from us: "offer, then terminate". Which ones, it tells by the id of
the dataset or agreement. `STEPS` says it: the k-th entry with a state is the move on the k-th visit of that state, and a
visit without an entry asks for nothing (the kit then waits for us to stay still). States are those of the product's own
machine; nothing here sets one.
"""

from connector.dsp.messages import Move

KIT = "TCK_PARTICIPANT"  # the participant id under which the kit speaks

# Before each move of ours, counted from the last accepted message. The kit looks at its own state every 100 ms and is ready
# for our next message only then: a move that comes too early is refused, and some refusals are final.
DELAY_SECONDS = 0.5

FORMAT = "HttpData-PULL"

# Numbers of the tests per group, as the kit names them. 67 with the one of MET and the three of CAT; the kit itself has
# disabled TP:02-04 and TP_C:02-04.
CN = (*("01-01", "01-02", "01-03", "01-04"), *(f"02-0{n}" for n in range(1, 8)), *(f"03-0{n}" for n in range(1, 5)))
CN_C = (*("01-01", "01-02", "01-03", "01-04"), *(f"02-0{n}" for n in range(1, 7)), *(f"03-0{n}" for n in range(1, 7)))
TP = (*(f"01-0{n}" for n in range(1, 6)), *(f"02-0{n}" for n in range(1, 6)), *(f"03-0{n}" for n in range(1, 7)))
TP_C = TP
CAT = ("01-01", "01-02", "01-03")


def subject(group: str, number: str) -> str:
    """Return the id of the dataset (CN, CN_C, CAT) or agreement (TP, TP_C) of a test: `CN_C`, `01-02` -> `ACNC0102`."""
    letters, digits = group.replace("_", ""), number.replace("-", "")
    return f"{letters}{digits}" if group == "CAT" else f"A{letters}{digits}"


def offer_id(dataset: str) -> str:
    """Return the id of the one offer of a dataset. The kit has this pattern built in for its counter-request (CN:01-02)."""
    return f"CD123:{dataset}:456"


# What must be there before the kit starts. Every dataset has one offer (permission `use`, no constraint, the id from
# `offer_id`) and a distribution in FORMAT. `CAT0103` must not exist; it is what CAT:01-03 asks for in vain.
DATASETS = (*(subject("CN", number) for number in CN), "CAT0101", "CAT0102")
# Agreements with the kit, in finalized negotiations: we are the provider of the first, the consumer of the second.
PROVIDER_AGREEMENTS = tuple(subject("TP", number) for number in TP)
CONSUMER_AGREEMENTS = tuple(subject("TP_C", number) for number in TP_C)

OFFER = ("REQUESTED", Move.CONTRACT_OFFER)
AGREE = ("REQUESTED", Move.CONTRACT_AGREEMENT)
ACCEPT = ("OFFERED", Move.ACCEPTED)
VERIFY = ("AGREED", Move.VERIFICATION)
FINALIZE = ("VERIFIED", Move.FINALIZED)
START = ("REQUESTED", Move.START)
SUSPEND = ("STARTED", Move.SUSPENSION)


def _end(state: str) -> tuple[str, Move]:
    return (state, Move.CONTRACT_TERMINATION)


def _stop(state: str) -> tuple[str, Move]:
    return (state, Move.TRANSFER_TERMINATION)


STEPS: dict[str, tuple[tuple[str, Move], ...]] = {
    # CN: the kit is the consumer, we are the provider
    "ACN0101": (OFFER,),
    "ACN0102": (OFFER, _end("REQUESTED")),
    "ACN0103": (OFFER, ("ACCEPTED", Move.CONTRACT_AGREEMENT), FINALIZE),
    "ACN0104": (AGREE, FINALIZE),
    "ACN0201": (_end("REQUESTED"),),
    "ACN0202": (),
    "ACN0203": (AGREE,),
    "ACN0204": (OFFER,),
    "ACN0205": (OFFER, _end("OFFERED")),
    "ACN0206": (OFFER, _end("ACCEPTED")),
    "ACN0207": (AGREE, _end("VERIFIED")),
    "ACN0301": (AGREE, FINALIZE),
    "ACN0302": (OFFER,),
    "ACN0303": (OFFER,),  # still in ACCEPTED: an agreement would make the kit's verification legal
    "ACN0304": (OFFER,),  # still on the second REQUESTED, for the same reason
    # CN_C: the kit is the provider, we are the consumer and have sent the request
    "ACNC0101": (ACCEPT, VERIFY),
    "ACNC0102": (("OFFERED", Move.CONTRACT_REQUEST),),
    "ACNC0103": (_end("OFFERED"),),
    "ACNC0104": (VERIFY,),
    "ACNC0201": (),
    "ACNC0202": (_end("REQUESTED"),),
    "ACNC0203": (_end("AGREED"),),
    "ACNC0204": (),
    "ACNC0205": (ACCEPT,),
    "ACNC0206": (VERIFY,),
    "ACNC0301": (),
    "ACNC0302": (),
    "ACNC0303": (),
    "ACNC0304": (ACCEPT,),
    "ACNC0305": (ACCEPT,),
    "ACNC0306": (ACCEPT,),  # still in AGREED
    # TP: the kit is the consumer, we are the provider
    "ATP0101": (START, _stop("STARTED")),
    "ATP0102": (START, ("STARTED", Move.COMPLETION)),
    "ATP0103": (START, SUSPEND, _stop("SUSPENDED")),
    "ATP0104": (START, SUSPEND, ("SUSPENDED", Move.START), ("STARTED", Move.COMPLETION)),
    "ATP0105": (_stop("REQUESTED"),),
    **{subject("TP", number): (START,) for number in ("02-01", "02-02", "02-03", "02-04", "03-03", "03-04", "03-05", "03-06")},
    "ATP0205": (),
    "ATP0301": (),
    "ATP0302": (),
    # TP_C: the kit is the provider, we are the consumer and have sent the request
    **{subject("TP_C", number): () for number in ("01-01", "01-02", "01-03", "01-04", "01-05")},
    "ATPC0201": (_stop("STARTED"),),
    "ATPC0202": (("STARTED", Move.COMPLETION),),
    "ATPC0203": (SUSPEND, _stop("SUSPENDED")),
    "ATPC0204": (SUSPEND, ("SUSPENDED", Move.START), ("STARTED", Move.COMPLETION)),
    "ATPC0205": (_stop("REQUESTED"),),
    **{subject("TP_C", number): () for number in ("03-01", "03-02", "03-03", "03-04", "03-05", "03-06")},
}


def move(subject_id: str, state: str, visit: int) -> Move | None:
    """Return our own move on the `visit`-th visit (from 1) of `state`, or None to stay still. Raises KeyError for an id
    that the kit does not use: a mistake of the wiring should not look like patience."""
    moves = [move for at, move in STEPS[subject_id] if at == state]
    return moves[visit - 1] if visit <= len(moves) else None


class Visits:
    """Counts how often each process has come to each of its states. A visit is told by the state and by the last message
    accepted from the kit, so that asking twice in the same visit does not count twice."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[str, bytes | None]]] = {}

    def count(self, pid: str, state: str, last_accepted: bytes | None) -> int:
        """Note that process `pid` is in `state`; return the number of this visit, from 1."""
        seen = self._seen.setdefault(pid, [])
        if not seen or seen[-1] != (state, last_accepted):
            seen.append((state, last_accepted))
        return sum(at == state for at, _ in seen)
