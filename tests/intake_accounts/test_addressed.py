"""An address of another transfer, with which a provider could spoil its consumer's evidence (`tests/evidence/test_held.py`, where an
answer is of the transfer whose address was asked), is refused before anything is asked there."""

from pathlib import Path
from urllib.parse import quote

import pytest

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.intake.promise import Broken
from connector.intake_accounts.addressed import demand_own
from connector.records import Changes
from connector.values import replace
from tests.dataplane.rig import PROVIDER, some_bytes
from tests.intake.signed_provider import AGREEMENT, CHUNK, PEER_PID, Consumer, both
from tests.metering import rig

CONTENT = some_bytes(CHUNK + 5)
OTHER, THEIRS = "urn:uuid:other", "urn:uuid:another-of-theirs"
ELSEWHERE = rig.account(Role.CONSUMER)  # its receipts are taken at `PLACE`/receipts
PLACE = rig.MANIFEST.receipts.rpartition("/")[0]

pytestmark = pytest.mark.asyncio


async def fetches(consumer: Consumer, endpoint: str, *, older: bool = False) -> None:
    edr = consumer.edr()
    named = {"endpoint": None, "endpointProperties": [{"name": "endpoint", "value": endpoint}]} if older else {"endpoint": endpoint}
    edr = replace(edr, address={**edr.address, **named})
    await consumer.downloads().fetch(consumer.order(), edr, **consumer.watcher.calls)


async def know_another(consumer: Consumer) -> None:
    process = Process(Kind.TRANSFER, OTHER, Role.CONSUMER, PROVIDER, "http://p", "COMPLETED", THEIRS, agreement=AGREEMENT, version=1)
    account = replace(ELSEWHERE, transfer=OTHER, agreement=AGREEMENT, version=1)
    await consumer.store.commit(Changes((), (process, account)))


@pytest.mark.parametrize(
    ("path", "older"),
    [
        (THEIRS, False),
        (THEIRS, True),
        (quote(THEIRS, safe=""), False),
        (f"flows/{THEIRS}/x?y=z", False),
        (PLACE, False),
        (f"{PLACE}?x", True),
    ],
)
async def test_a_data_address_of_another_transfer_is_refused_and_nothing_is_asked_there(tmp_path: Path, path: str, older: bool):
    """Also one that names its place as older connectors do, in its properties."""
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await know_another(consumer)
        with pytest.raises(Broken, match="the data address that the provider gave is that of another transfer") as broken:
            await fetches(consumer, path if path.startswith("http") else f"{provider.url}/data/{path}", older=older)
        assert (broken.value.code, provider.asked.total()) == ("address-other-transfer", 0)


async def test_a_place_for_receipts_of_another_transfer_is_refused_and_nothing_is_signed(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await know_another(consumer)
        provider.manifest_changes = {"receipts": f"{provider.url}/data/{THEIRS}/receipts"}
        provider.begin()
        with pytest.raises(Broken, match="the place for receipts that the provider gave is that of another") as broken:
            await fetches(consumer, f"{provider.url}/data/{provider.pid}")
        assert (broken.value.code, provider.receipts) == ("address-other-transfer", [])


@pytest.mark.parametrize("path", [PEER_PID, f"{THEIRS}/{PEER_PID}", "urn:uuid:nobodys", f"x?{THEIRS}"])
async def test_an_address_that_names_ours_or_nobodys_is_taken(tmp_path: Path, path: str):
    async with both(tmp_path, CONTENT) as (_, consumer):
        await know_another(consumer)
        await demand_own(consumer.store, consumer.order(), f"https://hospital.example/data/{path}", "the data address")
