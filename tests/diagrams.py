"""Draws the state tables into `connector/README.md`: `python -m tests.diagrams`. A test says when that is due."""

import re
from collections.abc import Mapping
from pathlib import Path

from connector.dsp import negotiation, transfer
from connector.dsp.messages import Move, Role

README = Path(__file__).parents[1] / "connector" / "README.md"
TABLES = {"negotiation": negotiation.TRANSITIONS, "transfer": transfer.TRANSITIONS}


def diagram(table: Mapping[str, Mapping[tuple[Role, Move], str]]) -> str:
    """A table as a Mermaid state diagram: an arrow for each pair of states, with the moves on it and who may make them.

    Terminations are one arrow from a box around the open states, because they start in all of them.
    """
    over = [state for state, row in table.items() if not row]
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in table.items():
        for (role, move), after in row.items():
            if not move.termination:
                name = move.value.partition(":")[2] or move.type.removesuffix("Message")
                arrows.setdefault((state, after), []).append(f"{role.value[0].upper()} {name}")
    ends = all(
        {role for (role, move), after in row.items() if move.termination and after == "TERMINATED"} == set(Role)
        for state, row in table.items()
        if row and state != "INITIAL"
    )
    assert ends, "the box says that both sides may terminate in each open state"
    lines = [
        f"    {'[*]' if state == 'INITIAL' else state} --> {after}: {', '.join(sorted(moves))}" for (state, after), moves in arrows.items()
    ]
    inside = [line for line, (_, after) in zip(lines, arrows, strict=True) if after not in over]
    leaving = [line.removeprefix("    ") for line, (_, after) in zip(lines, arrows, strict=True) if after in over]
    head = ["stateDiagram-v2", "  state open {", *inside, "  }"]
    tail = ["  open --> TERMINATED: C or P Termination", *(f"  {line}" for line in leaving), *(f"  {state} --> [*]" for state in over)]
    return "\n".join(["```mermaid", *head, *tail, "```"])


def drawn(text: str) -> str:
    """The README with each diagram after its mark."""
    for name, table in TABLES.items():
        mark = f"<!-- {name} -->\n"
        before, _, after = text.partition(mark)
        rest = re.sub(r"^```mermaid\n.*?```\n", "", after, count=1, flags=re.DOTALL)
        text = f"{before}{mark}{diagram(table)}\n{rest}"
    return text


if __name__ == "__main__":
    README.write_text(drawn(README.read_text()))
