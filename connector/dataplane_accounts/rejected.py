"""A leaf that a consumer has rejected is looked at again here: either its bytes have changed on the way, or what was published has.

A file that is changed in its place, with its times put back, looks like the one that was published. Its consumers find out, each pays
for what was right, and nobody gets it all. So data that are not what was signed are held back, like a file that looks changed, until they
are published again; and the operator hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from connector import telemetry
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane.logs import Logs
from connector.errors import SourceFailed
from connector.merkle.tree import leaf_hash
from connector.metering.objects import Rejected
from connector.ports import Sources

REMEDY = "publish the dataset again, from data that are right; until then nothing of it is served"


class Rejections:
    """Looks at the leaves in `sources` (by type) that were rejected, and holds back in `logs` what is not what was signed;
    `look_again` has whatever was looked up before be looked up anew."""

    def __init__(self, sources: Mapping[str, Sources], logs: Logs, look_again: Callable[[], None]) -> None:
        self._sources, self._logs, self._look_again = sources, logs, look_again

    async def look_at(self, permit: Permit, log: Described, rejected: Rejected) -> None:
        """Compare a leaf that the consumer of `permit` has rejected with the content log that was signed. Of data that pass stages or have
        no end it is only said that it was rejected: their bytes are made anew each time."""
        said = {"dataset": permit.dataset, "transfer": permit.transfer, "leaf": rejected.leaf}
        kind = self._sources.get(str(permit.source.get("type")))
        if kind is None or permit.stages or log.root is None:
            telemetry.log.warning("leaf rejected by its consumer", **said)
            return
        offset, length = log.layout.span(rejected.leaf, rejected.leaf + 1)
        try:
            source = await kind.open(permit.source)
            try:
                body = b"".join([piece async for piece in source.read(offset, length)])
            finally:
                await source.close()
        except SourceFailed as error:  # it is held back already: each request finds the same
            telemetry.log.error("published data cannot be read", reason=error.message, remedy=REMEDY, **said)
            return
        if leaf_hash(body) == log.hashes(0, rejected.leaf, 1):
            telemetry.log.warning("leaf rejected by its consumer, and right here: it has changed on the way, or over there", **said)
            return
        self._logs.hold_back(permit.source)
        self._look_again()
        telemetry.log.error("published data are not what was signed", offset=offset, length=length, remedy=REMEDY, **said)
