"""A device gateway as a source of live data: a heart rate ten times a second, as lines of JSON, for as long as somebody reads.

`python examples/vitals.py [PORT]` serves `/vitals.ndjson` on loopback. `?after=N` goes on behind line N, as long as it is remembered
here: every measurement has a number, so that a reader that was cut off loses none and gets none twice.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BEGUN, EACH_SECONDS = time.time(), 0.1


def measured(after: int) -> Iterator[bytes]:
    """The lines behind number `after`, each as soon as it is there."""
    seq = after + 1
    while True:
        at = BEGUN + seq * EACH_SECONDS
        time.sleep(max(0.0, at - time.time()))
        line = {"seq": seq, "at": round(at, 3), "heart_rate": round(72 + 6 * math.sin(seq / 20))}
        yield json.dumps(line).encode() + b"\n"
        seq += 1


class Gateway(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with lines, until whoever reads them goes."""
        after = parse_qs(urlsplit(self.path).query).get("after", ["-1"])[0]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        try:
            for line in measured(int(after)):
                self.wfile.write(line)
        except ConnectionError:
            return

    def log_message(self, *_: object) -> None:
        """Nothing: the connector has the record."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9100), Gateway)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}/vitals.ndjson\n")
    sys.stdout.flush()
    server.serve_forever()
