"""Downloads in a process of their own, which a test kills or whose disk it fills. The content comes from standard input.

kill DIRECTORY OVERWRITE N AFTER   dies at the N-th step of its commit, before or after it is done; prints the steps begun
fill DIRECTORY                     fills a small disk, makes room, goes on; prints what it was told as JSON
nothing DIRECTORY                  ends well
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connector.adapters.file_sink import FileSinks
from connector.errors import ConnectorError

NAME, ID = "a.bin", "urn:uuid:01"


async def kill(directory: Path, overwrite: str, number: str, after: str) -> None:
    begun: list[str] = []

    def watched(name: str, step: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            begun.append(name)
            print(name, flush=True)
            if len(begun) == int(number) and after != "True":
                os.kill(os.getpid(), signal.SIGKILL)
            step(*arguments, **options)
            if len(begun) == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    sink = await FileSinks([directory]).open(NAME, ID, overwrite=overwrite == "True")
    await sink.resume()
    await sink.append([sys.stdin.buffer.read()])
    for name in ("fsync", "link", "unlink", "replace", "rename"):
        setattr(os, name, watched(name, getattr(os, name)))
    await sink.commit()
    await sink.close()


async def fill(directory: Path) -> None:
    content, other = sys.stdin.buffer.read(), directory / "other"
    other.write_bytes(bytes(100_000))
    told: dict[str, Any] = {}
    sinks = FileSinks([directory])
    sink = await sinks.open(NAME, ID, overwrite=False)
    for what, attempt in (("reserve", sink.reserve(len(content))), ("append", sink.append([content]))):
        try:
            await attempt
        except ConnectorError as error:
            told[what] = [type(error).__name__, error.message]
    held = (directory / f"{NAME}.01.part").read_bytes()
    told["kept"] = [sink.size_bytes, sink.digest().hex(), hashlib.sha256(held).hexdigest()]
    told["named"] = (directory / NAME).exists()
    other.unlink()
    await sink.close()
    sink = await sinks.open(NAME, ID, overwrite=False)
    at = await sink.resume()
    await sink.append([content[at:]])
    await sink.commit()
    await sink.close()
    told["end"] = hashlib.sha256((directory / NAME).read_bytes()).hexdigest()
    print(json.dumps(told))


async def nothing(_directory: Path) -> None: ...


if __name__ == "__main__":
    asyncio.run({"kill": kill, "fill": fill, "nothing": nothing}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
