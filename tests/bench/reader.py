"""Reads so many bytes of an answer and throws them away: `python -m tests.bench.reader URL BYTES [HEADER]...` prints MB/s."""

import socket
import sys
import time
from urllib.parse import urlsplit

BUFFER_BYTES = 1 << 20


def main(url: str, size_bytes: int, headers: list[str]) -> float:
    """From the request to the last of `size_bytes`, the framing of chunks included. Raises RuntimeError if they do not come."""
    where, buffer = urlsplit(url), bytearray(BUFFER_BYTES)
    said = "".join(f"{header}\r\n" for header in [f"Host: {where.netloc}", *headers])
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=60) as connection:
        begun = time.perf_counter()
        connection.sendall(f"GET {where.path} HTTP/1.1\r\n{said}\r\n".encode("ascii"))
        head = connection.recv(BUFFER_BYTES)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head[:300].decode("latin-1"))
        taken = len(head) - head.index(b"\r\n\r\n") - 4
        while taken < size_bytes:
            count = connection.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the answer ended after {taken} of {size_bytes} bytes")
            taken += count
        return size_bytes / 1e6 / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
