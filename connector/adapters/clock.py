"""The system's clock and time-ordered identifiers: the ports `Clock` and `Ids`."""

from __future__ import annotations

import os
import time

VERSION_7 = 0x7 << 76  # RFC 9562, 5.7: 48 bits of milliseconds, then the version,
VARIANT = 0b10 << 62  # 12 random bits, the variant, and 62 random bits
RAND_A = ((1 << 12) - 1) << 64
RAND_B = (1 << 62) - 1
RANDOM_BYTES = 10  # 80 bits are drawn, the masks keep 12 + 62 of them


class SystemClock:
    """Wall time of this machine. `now` is POSIX seconds, UTC: the system's own function, since a message asks a dozen times."""

    now = staticmethod(time.time)


class TimeOrderedIds:
    """Identifiers by the system's clock and its random source."""

    def new(self) -> str:
        """A fresh `urn:uuid:` of version 7 (RFC 9562): ordered by the millisecond of its making, 74 random bits."""
        random = int.from_bytes(os.urandom(RANDOM_BYTES), "big")
        number = (time.time_ns() // 1_000_000 << 80) | VERSION_7 | (random & RAND_A) | VARIANT | (random & RAND_B)
        digits = f"{number:032x}"
        return f"urn:uuid:{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
