"""How a transfer ends of which there is no more: completed if that is possible, and said again while it waits for something else."""

from types import SimpleNamespace
from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control_streams.concluding import complete
from connector.dsp.messages import Kind
from connector.errors import Contradiction, NotFound, PeerFailed
from connector.records import Changes
from tests.dataplane.rig import TRANSFER, process

pytestmark = pytest.mark.asyncio


async def concluded(state: str | None, refusal: Exception | None = None) -> list[tuple[Any, ...]]:
    """What operations are asked for, of a transfer in this state."""
    asked, store = list[tuple[Any, ...]](), MemoryStore()
    if state is not None:
        await store.commit(Changes(saves=(process(state),)))

    async def completes(*said: Any) -> None:
        asked.append(said)
        if refusal is not None:
            raise refusal

    async def terminates(*said: Any) -> None:
        asked.append(said)

    operations: Any = SimpleNamespace(complete=completes, terminate=terminates)
    await complete(operations, store, TRANSFER, "why", "code")
    return asked


async def test_what_runs_is_completed_and_what_is_suspended_is_terminated_with_the_reason():
    assert await concluded("STARTED") == [(TRANSFER,)]
    assert await concluded("SUSPENDED") == [(Kind.TRANSFER, TRANSFER, "why", "code")]


async def test_what_waits_for_an_answer_is_asked_again_and_what_is_over_is_not():
    waits = Contradiction("it waits for the answer")
    with pytest.raises(PeerFailed, match="waits for the answer"):
        await concluded("STARTED", waits)
    with pytest.raises(Contradiction):
        await concluded("COMPLETED", waits)
    with pytest.raises(NotFound):
        await concluded(None, NotFound("there is none"))
