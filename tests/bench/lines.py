"""A live source: lines of JSON in an answer without a length, as fast as they are taken, and then nothing more, but no end.

`python -m tests.bench.lines BYTES` answers every request with at least so many bytes of them, and prints its port. They are sent in chunks
from memory, which is where live data come from: it takes as little of the two cores as a source can.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from typing import Final

LINE: Final = b'{"text":"' + b"x" * 501 + b'"}\n'
LINES_BYTES: Final = 1 << 20  # of a chunk, at most
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST_BYTES_MAX: Final = 65_536


def give(client: socket.socket, size_bytes: int) -> None:
    """Answer one request, and stay until its client is gone."""
    lines = LINE * (LINES_BYTES // len(LINE))
    chunk = b"%x\r\n%s\r\n" % (len(lines), lines)
    with client, suppress(ConnectionError):
        request = b""
        while b"\r\n\r\n" not in request:
            if len(request) > REQUEST_BYTES_MAX or not (more := client.recv(REQUEST_BYTES_MAX)):
                return
            request += more
        client.sendall(HEAD)
        for _ in range(0, size_bytes, len(lines)):
            client.sendall(chunk)
        client.recv(1)


def serve(size_bytes: int) -> None:
    """Serve until the process is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=give, args=(client, size_bytes), daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
