"""How much is measured: the number of rounds, and a factor for trials on which no promise can rest."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Size:
    """`rounds` of each measurement; below 1, `scale` makes each round smaller."""

    rounds: int = ROUNDS
    scale: float = 1.0

    def of(self, count: int) -> int:
        """`count` at this scale, at least 10."""
        return count if self.scale >= 1 else max(10, int(count * self.scale))
