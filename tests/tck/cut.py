"""The system under test: the product as `connector.app` composes it, with real listeners and SQLite, for the kit to talk to.

Only who is speaking and what is decided come from here (`Replaced`), and a listener of its own with the two routes by
which the kit asks us to begin something. What is there beforehand is put there by the product's own use cases.
"""

import argparse
import asyncio
import hashlib
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from connector import telemetry
from connector.adapters import keys
from connector.app import Connector, Replaced, start
from connector.control.publish import Manifest
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import Unauthenticated
from connector.ports import Act, Caller, Participant
from connector.records import Agreement, Changes, Conflict, Record
from connector.settings import Settings, parse
from connector.signatures import jws
from connector.signatures.jws import PublicKey
from tests.free_ports import free_ports
from tests.tck import config, script
from tests.tck.__main__ import READY

NAME = "under-test"
USE = {"permission": [{"action": "use"}]}  # what the kit asks for and offers, in every test
PROVEN_SECONDS = 86_400.0  # how long a caller counts as known: longer than any run


class ScriptedIdentity:
    """The identity of the kit, whose every request carries the same header, and which checks none of ours."""

    def __init__(self, kit: str) -> None:
        self._own = Participant(config.AGENT_ID, NAME, "provider", None, ())
        self._kit = Participant(script.KIT, "kit", "consumer", kit, (kit,))
        self._key = jws.signing_key(f"{config.AGENT_ID}#k1", secrets.token_bytes(jws.KEY_BYTES))

    @property
    def own(self) -> Participant:
        """See the port."""
        return self._own

    async def verify(self, authorization: str | None) -> Caller:
        """See the port; the token is good as often as it comes."""
        if authorization != config.AUTHORIZATION:
            raise Unauthenticated("this is not the kit's token")
        return Caller(self._kit, {}, time.time() + PROVEN_SECONDS)

    async def mint(self, audience: str) -> str:
        """See the port."""
        return f"Bearer for-{audience}"

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """See the port; the key is made anew for each run, and the kit asks for nothing that is signed."""
        return jws.sign(claims, self._key, typ)

    def read(self, token: str, typ: str, issuer: str, *, at: float | None = None) -> dict[str, Any]:
        """See the port; the kit has no key."""
        return jws.read(token, typ, issuer, self.keys(issuer), time.time() if at is None else at)

    def keys(self, participant: str) -> Sequence[PublicKey]:
        """See the port; the kit has no key."""
        return (self._key.key,) if participant == self._own.id else ()

    def find(self, name: str) -> Participant | None:
        """See the port."""
        return next((each for each in (self._own, self._kit) if name in (each.id, each.name)), None)

    def participants(self) -> Sequence[Participant]:
        """See the port."""
        return (self._kit, self._own)

    def standing(self, participant: str, claims: Mapping[str, Any], expires: float) -> Caller | None:
        """See the port."""
        known = self.find(participant)
        return Caller(known, {}, time.time() + PROVEN_SECONDS) if known is not None else None

    def listen(self, changed: Callable[[str], None]) -> None:
        """See the port; nothing changes."""


class ScriptedApprover:
    """Decides as `script` says for the dataset or agreement of the process. A refusal of policy stands."""

    def __init__(self) -> None:
        self._visits = script.Visits()

    def next_act(self, process: Process, proposed: Act | None) -> Act | None:
        """See the port."""
        if proposed is not None and proposed.move.termination:
            return proposed
        subject = process.agreement if process.kind is Kind.TRANSFER else process.dataset
        visit = self._visits.count(process.pid, process.state, process.last_accepted)
        move = script.move(subject or "", process.state, visit)
        return None if move is None else Act(move, script.DELAY_SECONDS)


class Initiate:
    """The two routes by which the kit asks us to begin as consumer."""

    def __init__(self, running: Connector) -> None:
        self._operations = running.operations

    def add_to(self, app: web.Application) -> None:
        """Register both."""
        app.router.add_post(config.NEGOTIATIONS_PATH, self._negotiation)
        app.router.add_post(config.TRANSFERS_PATH, self._transfer)

    async def _negotiation(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        process = await self._operations.negotiate(asked["providerId"], asked["datasetId"], offer=asked["offerId"], policy=USE)
        return _begun(process)

    async def _transfer(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        return _begun(await self._operations.transfer(asked["agreementId"], asked["format"]))


def _begun(process: Process) -> web.Response:
    return web.Response(body=orjson.dumps({"pid": process.pid}), content_type="application/json")


def prepare(directory: Path, port: int) -> Settings:
    """Write what `connector init` would (a key, the hash of an admin token) into the empty `directory`; return settings with
    the protocol listener on `port` of 127.0.0.1. Raises ValueError if they cannot work."""
    for name in ("data", "participants"):
        (directory / name).mkdir()
    keys.generate(directory / "keys", time.time())
    (directory / "admin-token.sha256").write_text(hashlib.sha256(secrets.token_bytes(32)).hexdigest())
    document: dict[str, Any] = {
        "participant": {"id": config.AGENT_ID, "name": NAME, "role": "provider"},
        "protocol": {"port": port},
        "data": {"port": free_ports(1)[0]},
        "management": {"port": 0},
        "ops": {"port": 0},
        "egress": {"allow": ["127.0.0.0/8"], "http": True, "ports": []},
    }
    settings, findings = parse(document, {}, directory)
    if findings:
        raise ValueError("; ".join(map(str, findings)))
    return settings


async def seed(running: Connector, data: Path) -> None:
    """Publish every dataset of the script, each a file of its own below `data`, and store its agreements."""
    for dataset in script.DATASETS:
        file = data / f"{dataset}.json"
        file.write_bytes(orjson.dumps({"dataset": dataset}))
        policy = {"@id": script.offer_id(dataset), "@type": "Offer"} | USE
        await running.publishing.publish(Manifest(dataset, f"Dataset {dataset}", {"type": "file", "path": str(file)}, [policy]))
    now = time.time()
    ours: list[Record] = [_agreement(id, config.AGENT_ID, script.KIT, now) for id in script.PROVIDER_AGREEMENTS]
    theirs: list[Record] = [_agreement(id, script.KIT, config.AGENT_ID, now) for id in script.CONSUMER_AGREEMENTS]
    if isinstance(await running.journal.commit(Changes(saves=(*ours, *theirs))), Conflict):
        raise ValueError("the agreements are stored already; the directory has to be empty")


def _agreement(id: str, provider: str, consumer: str, now: float) -> Agreement:
    dataset = script.DATASETS[0]
    parties = {"target": dataset, "assigner": provider, "assignee": consumer, "timestamp": "2026-01-01T00:00:00Z"}
    document = {"@id": id, "@type": "Agreement"} | parties | USE
    digest = wire.digest(document)
    return Agreement(id, f"urn:x-seed:{id}", script.KIT, provider, consumer, dataset, document, digest, final=True, created=now)


@asynccontextmanager
async def running(directory: Path, port: int, initiate_port: int, kit: str) -> AsyncIterator[Connector]:
    """The system under test, seeded and listening, while the body runs."""
    settings = prepare(directory, port)
    connector = await start(settings, replaced=Replaced(ScriptedIdentity(kit), ScriptedApprover()))
    try:
        await seed(connector, directory / "data")
        app = web.Application()
        Initiate(connector).add_to(app)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", initiate_port).start()
            yield connector
        finally:
            await runner.cleanup()
    finally:
        await connector.close()


async def main(directory: Path, port: int, initiate_port: int, kit: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(directory, port, initiate_port, kit):
        print(READY, flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.tck.cut", description="the system under test")
    parser.add_argument("--directory", type=Path, required=True, help="for state; fresh and empty")
    parser.add_argument("--port", type=int, required=True, help="of the protocol listener")
    parser.add_argument("--initiate-port", type=int, required=True, help="of the two routes by which the kit has us begin")
    parser.add_argument("--kit", required=True, help="base address of the kit as counterparty")
    options = parser.parse_args()
    telemetry.configure_logging("info", "json", sys.stderr)
    asyncio.run(main(options.directory.absolute(), options.port, options.initiate_port, options.kit))
