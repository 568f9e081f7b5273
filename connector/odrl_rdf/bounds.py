"""What any graph of a policy may come to, counted while it is read: what exceeds a bound is refused there, and the rest is not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.vocabulary import ODRL
from connector.odrl_reading.reading import LEAVES_MAX

# Each is far from what policies have. The largest that anybody has published has 3,155 statements about 789 nodes by 12 properties; one of
# 800 constraints, each with its type, unit and datatype, has 4,900 about 802.
STATEMENTS_MAX: Final = 5_000  # and members of lists
NODES_MAX: Final = 2_000
NAMES_MAX: Final = 1_000  # of properties, however often each stands there
RELATIVE_MAX: Final = 1_000  # IRIs that lean on a base: each takes as long as ten words

_LEFT_OPERAND: Final = ODRL + "leftOperand"

Place = TypeVar("Place")


class Counted(Generic[Place]):
    """The counts of one document. `refused` makes the error of a place in it: its code, what is wrong, how to mend it.

    Each of the methods raises PolicyError for one too many.
    """

    __slots__ = ("_leaves", "_names", "_nodes", "_refused", "_relative", "_statements")

    def __init__(self, refused: Callable[[Code, str, str, Place], PolicyError]) -> None:
        self._refused = refused
        self._statements = self._nodes = self._leaves = self._names = self._relative = 0

    def statement(self, at: Place, count: int = 1) -> None:
        """Count statements, or members of a list."""
        self._statements += count
        if self._statements > STATEMENTS_MAX:
            raise self._too_much(f"it has more than {STATEMENTS_MAX} statements", "split it", at)

    def node(self, at: Place) -> None:
        """Count a node that is described."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._too_much(f"it has more than {NODES_MAX} nodes", "split it", at)

    def property(self, predicate: str, at: Place, values: int = 1) -> None:
        """So many values of one property of a node: those of ODRL are parts of a policy, and so is a constraint on a left operand,
        whichever of the document's policies it is of."""
        self._leaves += predicate == _LEFT_OPERAND
        if self._leaves > LEAVES_MAX or (values > LEAVES_MAX and predicate.startswith(ODRL)):
            message = f"there are more than {LEAVES_MAX} constraints and values"
            fix = "split the policy into several offers, and give each of several policies a document of its own"
            raise self._too_much(message, fix, at)

    def name(self, at: Place) -> None:
        """Count the name of a property as it is first met."""
        self._names += 1
        if self._names > NAMES_MAX:
            message = f"it has properties of more than {NAMES_MAX} names"
            raise self._too_much(message, "leave out what a policy does not need", at)

    def relative(self, at: Place) -> None:
        """Count a relative IRI as it is first met."""
        self._relative += 1
        if self._relative > RELATIVE_MAX:
            message = f"it has more than {RELATIVE_MAX} relative IRIs"
            raise self._too_much(message, "write them in full, or with a prefix", at)

    def _too_much(self, message: str, fix: str, at: Place) -> PolicyError:
        return self._refused(Code.LIMIT_EXCEEDED, message, fix, at)
