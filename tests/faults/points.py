"""Names the await points of the write path, seen from outside: which of the product's own lines a task stands at when it waits.

An await point is where a task is suspended: between two of them nothing can reach the disk or a socket but through the loop,
so a kill at each, and before and after each COMMIT on its thread, meets every state that a kill can meet in this code.
A point is the chain of the product's frames (the same `commit` called from elsewhere is another point) and the message that
the chain is about, if it has one.
"""

import gc
import linecache
from collections.abc import Iterator
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

import connector

PRODUCT = Path(connector.__file__).parent
INSIDE = f"{PRODUCT}/"  # compared as text: each life sees some hundred functions anew, and took a twentieth of its time for their paths
ROOMS = ("control", "api", "adapters", "dataplane", "intake", "ledger")  # and those beside them, `control_billing` and so on
WRITE_PATH = tuple(f"{room}{rest}" for room in ROOMS for rest in ("/", "_"))
# Tasks that only look: the event feed and the calls that wait for a state.
READERS = ("api_management/events_api.py:routes.<locals>.events", "api/management_api.py:ManagementApi._process")
ABOUT = ("message", "row")  # locals of the write path that carry the message (`move`)


def frames(awaitable: Any) -> Iterator[FrameType]:
    """The frames from the outermost coroutine to the innermost that is suspended."""
    while awaitable is not None:
        match awaitable:
            case CoroutineType():
                frame, awaitable = awaitable.cr_frame, awaitable.cr_await
            case AsyncGeneratorType():
                frame, awaitable = awaitable.ag_frame, awaitable.ag_await
            case GeneratorType():
                frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
            case _:  # a step of an asynchronous generator, or the wrapper around a coroutine: both hold what they drive
                held = [each for each in gc.get_referents(awaitable) if isinstance(each, CoroutineType | AsyncGeneratorType)]
                frame, awaitable = None, held[0] if held else None
        if frame is not None:
            yield frame


class Points:
    """Finds the point that a suspended coroutine stands at."""

    def __init__(self) -> None:
        self._names: dict[CodeType, str | None] = {}

    def of(self, coroutine: Any) -> str | None:
        """The point, or None if the write path has no part in this task."""
        chain, about = [], None
        for frame in frames(coroutine):
            name = self._name(frame.f_code)
            if name is None:
                continue
            if name.startswith(READERS):
                return None
            chain.append(f"{name}:{frame.f_lineno}")
            for local in ABOUT:
                about = str(getattr(frame.f_locals.get(local), "move", "") or "") or about
        if not chain:
            return None
        return " > ".join(chain) + (f" [{about}]" if about else "")

    def _name(self, code: CodeType) -> str | None:
        if code not in self._names:
            inside = code.co_filename.removeprefix(INSIDE) if code.co_filename.startswith(INSIDE) else ""
            self._names[code] = f"{inside}:{code.co_qualname.replace('.<locals>', '')}" if inside.startswith(WRITE_PATH) else None
        return self._names[code]


def short(point: str) -> str:
    """A point in one line of a table: the innermost frame with its caller, and the message."""
    chain, _, about = point.partition(" [")
    return " > ".join(chain.split(" > ")[-2:]) + (f" [{about}" if about else "")


def source(point: str) -> str:
    """The source line that a point's innermost frame stands at."""
    path, _, line = point.partition(" [")[0].rpartition(" > ")[2].rsplit(":", 2)
    return linecache.getline(str(PRODUCT / path), int(line)).strip()
