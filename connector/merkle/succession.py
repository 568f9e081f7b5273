"""The extension line of a checkpoint by which a log says whose place it takes. Pure.

    follows <origin> <number of leaves> <base64 of the root>

It cites the last checkpoint that is known of the log before, so that whoever has that one sees that nothing of it was taken back.
"""

from __future__ import annotations

from typing import Final

from connector.errors import ProofRefused
from connector.merkle import checkpoints

WORD: Final = "follows"
CODE: Final = "checkpoint-follows"
PARTS: Final = 3  # origin, size, root


def follows(cited: checkpoints.Checkpoint) -> str:
    """The line that cites a checkpoint."""
    origin, size, root = cited.text.splitlines()[:PARTS]
    return f"{WORD} {origin} {size} {root}"


def read_follows(line: str) -> checkpoints.Checkpoint:
    """The checkpoint that a line cites. Raises ProofRefused with `checkpoint-follows` for a line that is not `follows` of one in its only
    spelling."""
    word, _, rest = line.partition(" ")
    parts = rest.rsplit(" ", PARTS - 1)
    if word != WORD or len(parts) != PARTS:
        raise ProofRefused("a line that says whose place a log takes has its origin, size and root", CODE)
    try:
        cited = checkpoints.read("".join(f"{part}\n" for part in parts))
    except ProofRefused as refused:
        raise ProofRefused(f"what a log says of the one whose place it takes is no checkpoint: {refused.message}", CODE) from None
    if follows(cited) != line:
        raise ProofRefused("a line that says whose place a log takes has another spelling", CODE)
    return cited
