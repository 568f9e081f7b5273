"""What a comparison answers: yes, no with a witness, or unknown with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from connector.odrl_compare.witness import Witness
from connector.values import Value

Answer = Literal["yes", "no", "unknown"]
YES: Final = "yes"
NO: Final = "no"
UNKNOWN: Final = "unknown"


class Found(Value):
    """One answer. `tell` gives, on demand, the sentence that explains it and the request that shows it; most callers need neither."""

    answer: Answer
    tell: Callable[[], tuple[str, Witness | None]] | None = None

    @property
    def reason(self) -> str:
        """Why the answer is what it is; "" if there is nothing to say."""
        return self.tell()[0] if self.tell is not None else ""

    @property
    def witness(self) -> Witness | None:
        """The request that shows it, if there is one."""
        return self.tell()[1] if self.tell is not None else None


def unknown(reason: str) -> Found:
    """The answer `unknown` with its reason."""
    return Found(UNKNOWN, lambda: (reason, None))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How two policies stand to each other (odrl.md 4.1).

    `refines`: the first permits nothing that the second does not, and owes at least what the second asks; `refined_by` the same the other
    way round, `equivalent` both, `compatible` that there is something which both permit. Each is `yes`, `no` or `unknown`.
    """

    refines: Answer
    refined_by: Answer
    equivalent: Answer
    compatible: Answer
    founds: Mapping[str, Found] = field(repr=False, compare=False)

    @property
    def reasons(self) -> dict[str, str]:
        """A sentence for each answer that is not `yes`, by its name."""
        return {name: reason for name, found in self.founds.items() if (reason := found.reason)}

    @property
    def witnesses(self) -> dict[str, Witness]:
        """A request for each `no`, by its name: one of the two permits it and the other does not, or only for a duty more. There is none
        where only an obligation or a remedy is lacking that no use shows. For a `compatible` that is `yes`: both permit it."""
        return {name: witness for name, found in self.founds.items() if (witness := found.witness) is not None}

    @property
    def witness(self) -> Witness | None:
        """The request that shows the first `no`; None if there is no `no`."""
        noes = [found for found in self.founds.values() if found.answer == NO]
        return next((witness for found in noes if (witness := found.witness) is not None), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "refines": self.refines,
            "refinedBy": self.refined_by,
            "equivalent": self.equivalent,
            "compatible": self.compatible,
            "reasons": self.reasons,
            "witnesses": {name: witness.to_json() for name, witness in self.witnesses.items()},
        }
