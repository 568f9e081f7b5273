"""A consumer that signs receipts: the pure machine of its side, over HTTP, one call at a time."""

import ssl
from typing import Any

import aiohttp

from connector.dsp.messages import Role
from connector.errors import StoreError
from connector.metering import chain, chain_consumer, credit
from connector.metering.content import CHUNK_BYTES, digest_of
from connector.metering.objects import Ack, Checkpoint, Manifest, Receipt, kept
from connector.ports.ledger import Ledger
from connector.records.ledger import Place
from connector.records.metering import Metered
from connector.values import replace
from tests.dataplane.rig import CONSUMER, POLICY, PROVIDER, TRANSFER, FakeIdentity, Rig

WINDOW = {"window_bytes": CHUNK_BYTES, "credit_windows": 2}
CREDIT_BYTES = 2 * CHUNK_BYTES
CHANGED = ("previous", "sequence", "counts", "manifest", "issuer", "audience")  # of a receipt that a test makes wrong
JWT = {"Content-Type": "application/jwt"}


class Consumer:
    """A consumer that signs receipts: the pure machine of its side, over HTTP."""

    def __init__(self, rig: Rig, http: aiohttp.ClientSession) -> None:
        self.rig, self.http, self.identity = rig, http, FakeIdentity(CONSUMER)
        self.headers = rig.authorization()
        self.tls: ssl.SSLContext | None = None
        self.count = 0
        self.account: Metered
        self.log: credit.Log

    async def get(self, path: str = "", **headers: str) -> tuple[int, bytes, Any]:
        async with self.http.get(f"{self.rig.endpoint}{path}", headers=self.headers | headers, ssl=self.tls or True) as answer:
            return answer.status, await answer.read(), answer.headers

    async def post(self, token: str) -> tuple[int, bytes]:
        async with self.http.post(f"{self.rig.endpoint}/receipts", headers=self.headers | JWT, data=token, ssl=self.tls or True) as answer:
            return answer.status, await answer.read()

    async def begin(self) -> Manifest:
        """Take the manifest as what was agreed."""
        status, body, _ = await self.get("/manifest")
        assert status == 200, body
        terms = chain_consumer.Terms(PROVIDER, CONSUMER, "urn:agreement", digest_of(POLICY), "urn:uuid:consumer", TRANSFER, "urn:dataset")
        manifest = chain_consumer.accept(body.decode(), terms, proven=self.proven, now=self.rig.clock.now())
        shape = (TRANSFER, Role.CONSUMER, "urn:agreement", PROVIDER, body.decode(), manifest.log.origin, manifest.log.chunk)
        self.account, self.log = Metered(*shape), credit.finite(manifest)
        return manifest

    def proven(self, token: str, typ: str) -> dict[str, Any]:
        return self.identity.read(token, typ, PROVIDER)

    def receipt(self, *verified: tuple[int, int], **said: Any) -> str:
        """The next receipt over what was verified, signed."""
        self.count += 1
        checkpoint = Checkpoint(self.log.leaves, self.log.root(self.log.leaves) or b"")
        values = {"checkpoint": checkpoint, "id": f"r{self.count}", "now": self.rig.clock.now(), "after": "write"} | said
        changed = {
            name: values.pop(name) for name in ("previous", "sequence", "counts", "manifest", "issuer", "audience") if name in values
        }
        made = chain_consumer.receipt_for(self.account, verified, log=self.log, **values)
        return self.identity.sign(replace(made, **changed).claims(), Receipt.TYP)

    async def sign(self, *verified: tuple[int, int], **said: Any) -> Ack:
        """Send a receipt and take its ack as what was promised."""
        token = self.receipt(*verified, **said)
        self.account = chain_consumer.issued(self.account, token)
        status, body = await self.post(token)
        assert status == 200, body
        judged = chain_consumer.judge_ack(self.account, body.decode(), proven=self.proven, now=self.rig.clock.now())
        assert judged.outcome is chain.Outcome.ACCEPTED, judged.message
        self.account = judged.account
        return kept(Ack, judged.ack)


class Facts(Ledger):
    """A ledger in which each fact stands at its number; `fault` is what it fails with."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.asked: list[int] = []
        self.suspects: set[str] = set()

    async def index_of(self, sequence: int) -> Place:
        self.asked.append(sequence)
        if self.fault is not None:
            raise StoreError(self.fault)
        return Place("hospital.example/ledger", sequence)

    async def checkpoint(self) -> str | None:
        return "hospital.example/ledger\n7\nroot\n\n\u2014 hospital.example/ledger c2lnbmF0dXJl\n"

    def behind(self) -> bool:
        return self.fault is not None

    def suspected(self, peer: str) -> bool:
        return peer in self.suspects
