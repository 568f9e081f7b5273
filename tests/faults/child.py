"""Runs connectors that can be killed at a chosen point: `python -m tests.faults.child SETTINGS [--bug NAME]`.

The program imports the product once, then reads orders from its standard input, a JSON document a line, and answers likewise:

- `{"start": {}}` forks a process that runs the connector as `connector run` does; answer `{"started": PID}`.
  With `"record": true` it notes every await point that it passes (SIGUSR1 writes them to its log), with `"kill": POINT` and
  `"passage": N` it ends itself with SIGKILL when it passes that point for the Nth time. The product knows nothing of it: the
  points are seen by a task factory, COMMITs by a wrapper around the writer's connection.
- `{"reap": PID}` waits for its end; answer `{"ended": PID, "status": CODE}`.

A fork instead of a fresh interpreter saves the second that imports take, several hundred times.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from connector import app
from connector.adapters import sqlite, sqlite_write
from connector.settings import load
from tests.faults.bugs import BUGS
from tests.faults.points import Points

Passed = Callable[[str], None]


class Observed(Coroutine[Any, Any, Any]):
    """A coroutine whose suspensions are seen: `seen` is called with it after each."""

    def __init__(self, inner: Any, seen: Callable[[Any], None]) -> None:
        self._inner = inner
        self._seen = seen

    def send(self, value: Any) -> Any:
        result = self._inner.send(value)
        self._seen(self._inner)
        return result

    def throw(self, *error: Any) -> Any:
        result = self._inner.throw(*error)
        self._seen(self._inner)
        return result

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


class Committing:
    """The writer's connection, with a point before and one after each COMMIT, named by what the group puts on record."""

    def __init__(self, db: Any, passed: Passed) -> None:
        self._db = db
        self._passed = passed
        self.writer: sqlite_write.Writer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql != "commit":
            return self._db.execute(sql, *values)
        facts = {f"{fact.what} {fact.move or fact.detail.get('stage') or ''}".strip() for fact in self._facts()}
        what = ", ".join(sorted(facts)) or "nothing on record"
        self._passed(f"before COMMIT [{what}]")
        result = self._db.execute(sql)
        self._passed(f"after COMMIT [{what}]")
        return result

    def _facts(self) -> list[Any]:
        group = self.writer._committing if self.writer else []
        return [fact for waiting in group for fact in waiting.prepared.evidence]


def observe(passed: Passed) -> None:
    """See every await point and every COMMIT of the connector that runs next in this process."""
    points = Points()

    def seen(coroutine: Any) -> None:
        if (point := points.of(coroutine)) is not None:
            passed(point)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            loop = super().new_event_loop()
            loop.set_task_factory(lambda loop, work, **more: asyncio.Task(Observed(work, seen), loop=loop, **more))
            return loop

    def writer(db: Any, number: int, fatal: Any) -> sqlite_write.Writer:
        watched = Committing(db, passed)
        watched.writer = sqlite_write.Writer(watched, number, fatal)  # type: ignore[arg-type]
        return watched.writer

    asyncio.set_event_loop_policy(Policy())
    sqlite.Writer = writer  # type: ignore[assignment, misc]


def die_at(point: str, passage: int) -> Passed:
    """End this process with SIGKILL at the given passage of the point."""
    left = passage

    def passed(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed


def record() -> Passed:
    """Count passages; SIGUSR1 writes them to the log."""
    counts: Counter[str] = Counter()

    def say(*_: Any) -> None:
        print(json.dumps({"event": "points", "counts": counts}), file=sys.stderr, flush=True)

    signal.signal(signal.SIGUSR1, say)

    def passed(name: str) -> None:
        counts[name] += 1

    return passed


def live(settings: Path, order: dict[str, Any]) -> None:
    """Be a connector until a signal ends it."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    random.seed()
    if order.get("record"):
        observe(record())
    elif order.get("kill"):
        observe(die_at(order["kill"], order.get("passage", 1)))
    environ = dict(os.environ)
    app.run(load(settings, environ), path=settings, environ=environ)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.child")
    parser.add_argument("settings", type=Path)
    parser.add_argument("--bug", choices=sorted(BUGS))
    options = parser.parse_args()
    if options.bug:
        BUGS[options.bug].plant()
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    live(options.settings, order["start"])
                    status = 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            alive.add(pid)
            answer = {"started": pid}
        else:
            pid = order["reap"]
            answer = {"ended": pid, "status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
            alive.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in alive:  # whoever gave the orders is gone
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
