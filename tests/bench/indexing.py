"""Indexes a file as publishing it does, several times, and prints how fast, by the CPU that it took.

`python -m tests.bench.indexing FILE FOLDER TIMES`
"""

import asyncio
import shutil
import sys
from pathlib import Path
from time import process_time

from connector.adapters.file_source import FileSources
from connector.dataplane.logs import Logs


async def main(file: Path, folder: Path, times: int) -> None:
    """Prints MB for each second of CPU, on a line for each time."""
    for _ in range(times):
        shutil.rmtree(folder, ignore_errors=True)
        sources = Logs(folder).indexing(FileSources([file.parent]))
        begun = process_time()
        _, stat = await sources.index({"path": str(file)})
        assert stat.size_bytes is not None
        print(stat.size_bytes / 1e6 / (process_time() - begun), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
