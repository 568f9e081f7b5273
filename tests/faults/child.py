"""Runs connectors that can be killed at a chosen point: `python -m tests.faults.child`.

The program imports the product once, then reads orders from its standard input, a JSON document a line, and answers likewise:

- `{"start": {}, "settings": PATH, "log": PATH, "bug": NAME or null}` forks a process that runs the connector with these settings as
  `connector run` does, and writes its log to that pipe; answer `{"started": PID}`. It counts the await points that it passes, and
  SIGUSR1 writes them to its log. With `"start": {"kill": {POINT: N, ...}}` it ends itself with SIGKILL when it passes one of these points
  for the Nth time. The product knows nothing of it: the points are seen by a task factory, COMMITs by a wrapper around the writer's
  connection. With `"watched": false` nothing is seen, nor slowed down; with `"idle_seconds": S` its downloads and pushes give up a
  connection after that time without a byte; with `"jumps": [S, ...]` its wall clock jumps by so many seconds at each SIGRTMIN.
- `{"reap": PID}` waits for its end; answer `{"ended": PID, "status": CODE}`.

A fork instead of a fresh interpreter saves the second that imports take, several hundred times, and what else each start would do anew
with the same outcome: see `ready_to_fork`.
"""

import asyncio
import gc
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml  # noqa: F401 - which the product imports in each of its starts, to read its profiles

from connector import app, telemetry
from connector.adapters import sqlite, sqlite_write
from connector.adapters.clock import SystemClock
from connector.api_streams import sink_api
from connector.control_streams import pushing
from connector.dataplane_push import pusher
from connector.errors import SettingsError
from connector.intake import live as live_intake
from connector.intake.download import Downloads
from connector.odrl import Options
from connector.odrl.registry import registry_of
from connector.records import Usage
from connector.settings import load
from connector.vocabulary import read_profiles
from tests.faults.bugs import BUGS
from tests.faults.points import Points
from tests.pair import site

PUSH_SECONDS_MAX = 0.5  # between two attempts to bring data, as between those to deliver: in the field it is 30
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
        committing = [each.prepared for each in (self.writer._committing if self.writer else ())]
        group = {commit_of(prepared.changes.evidence, prepared.asked.expects) for prepared in committing}
        for change in sorted(group):
            self._passed(f"before COMMIT [{change}]")
        result = self._db.execute(sql)
        for change in sorted(group):
            self._passed(f"after COMMIT [{change}]")
        return result


def commit_of(evidence: Iterable[Any], expects: Iterable[Any] = ()) -> str:
    """What a change puts on record, in words that are the same each time, or that it is about what was used. Changes meet in one
    COMMIT by chance, so each of them is a point of its own."""
    facts = {f"{fact.what} {fact.move or fact.detail.get('stage') or ''}".strip() for fact in evidence}
    facts |= {"usage" for expect, *_ in expects if expect.of is Usage}
    return ", ".join(sorted(facts)) or "nothing on record"


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

    def writer(db: Any, number: int, fatal: Any, told: Any) -> sqlite_write.Writer:
        watched = Committing(db, passed)
        watched.writer = sqlite_write.Writer(watched, number, fatal, told)  # type: ignore[arg-type]
        return watched.writer

    asyncio.set_event_loop_policy(Policy())
    sqlite.Writer = writer  # type: ignore[assignment, misc]


class Passages:
    """Counts the passages of points, and ends this process with SIGKILL at the first one of those chosen: point -> passage."""

    def __init__(self, chosen: Mapping[str, int]) -> None:
        self._left = dict(chosen)
        self._counts: Counter[str] = Counter()

    def passed(self, name: str) -> None:
        self._counts[name] += 1
        if name in self._left:
            self._left[name] -= 1
            if self._left[name] == 0:
                self.say(died_at=name)
                os.kill(os.getpid(), signal.SIGKILL)

    def say(self, *, died_at: str | None = None) -> None:
        """Write to the log what was passed since the last time, in the order of the first passages."""
        counts, self._counts = self._counts, Counter()
        text = json.dumps({"event": "passed", "died_at": died_at, "counts": counts})
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def jumping(jumps: Iterable[float]) -> None:
    """Let the wall clock of this process jump by the next of these seconds at each SIGRTMIN, as it does where somebody sets it."""
    left, shift, now, now_ns = deque(jumps), [0.0], time.time, time.time_ns
    time.time = lambda: now() + shift[0]  # type: ignore[assignment]
    time.time_ns = lambda: now_ns() + int(shift[0] * 1e9)  # type: ignore[assignment]
    SystemClock.now = staticmethod(time.time)  # which has the function itself

    def jump(*_: object) -> None:
        shift[0] += left.popleft()

    signal.signal(signal.SIGRTMIN, jump)


async def lived() -> None:
    """One whole life, without a disk or anybody to deal with, and in silence."""
    telemetry.configure_logging("error", "json")
    with tempfile.TemporaryDirectory() as root:
        connector = await app.start(site(Path(root) / "once", "once").settings)
        await connector.close()


def ready_to_fork() -> None:
    """Do once what every start would do again, and what no kill can meet in another state: it took more than half of the time until a
    connector served. What was read and compiled before the fork, caches keep, and where the product has none because it starts once, it
    finds it here; what was imported is not looked through for garbage again; and nobody is trusted whom `egress.ca_file` does not name, so
    that the system's hundred and more authorities need not be read."""
    registry_of(Options(profiles=read_profiles()))
    os.environ |= dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR"), os.devnull)
    product: Any = app
    vocabulary = product.read_vocabulary()
    schemas = product.Schemas(vocabulary.schemas)
    product.read_vocabulary, product.Schemas = lambda: vocabulary, lambda _: schemas
    asyncio.run(lived())  # the addresses that listeners know are regular expressions: to compile them takes a quarter of a start
    assert threading.active_count() == 1  # a fork takes no other one along
    gc.collect()
    gc.freeze()
    gc.unfreeze = lambda: None  # type: ignore[assignment]


def born(order: dict[str, Any]) -> int:
    """Be a connector until a signal ends it; returns the exit status."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(order["log"], os.O_WRONLY), 2)
        os.dup2(2, 1)
        if order["bug"] is not None:
            BUGS[order["bug"]].plant()
        live(Path(order["settings"]), order["start"])
        return 0
    except SettingsError as error:  # as `connector run` says it, in one line
        sys.stderr.write("; ".join((error.message, *error.reasons)).replace("\n", " ") + "\n")
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
    return 1


def live(settings: Path, order: dict[str, Any]) -> None:
    """The same, as ordered."""
    random.seed()
    environ = dict(os.environ)
    pushing.PAUSE_SECONDS_MAX = PUSH_SECONDS_MAX
    if (idle_seconds := order.get("idle_seconds")) is not None:
        defaults = Downloads.__init__.__kwdefaults__
        defaults["idle_seconds"] = idle_seconds
        live_intake.SIGNED_SECONDS = pusher.IDLE_SECONDS = sink_api.STALL_SECONDS = idle_seconds  # type: ignore[misc]
    if "jumps" in order:
        jumping(order["jumps"])
    if not order.get("watched", True):
        app.run(load(settings, environ), path=settings, environ=environ)
        return
    passages = Passages(order.get("kill", {}))
    signal.signal(signal.SIGUSR1, lambda *_: passages.say())
    observe(passages.passed)
    app.run(load(settings, environ), path=settings, environ=environ)


def main() -> None:
    ready_to_fork()
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = born(order)
                finally:
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
