"""Small parts of the composition root."""

from pathlib import Path

import pytest
from aiohttp import web

from connector.adapters.memory import MemoryStore
from connector.app_parts import Together, kept_room, own_key, store_fault
from connector.errors import SettingsError, Unauthenticated
from connector.values import replace
from tests.ledger.rig import key_of
from tests.pair import site


class Route:
    def __init__(self, path: str) -> None:
        self._path = path

    def add_to(self, app: web.Application) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(text=self._path)

        app.router.add_get(self._path, answer)


def test_routes_that_share_a_door_are_all_there():
    app = web.Application()
    Together((Route("/a"), Route("/b"))).add_to(app)
    assert {resource.canonical for resource in app.router.resources()} == {"/a", "/b"}


@pytest.mark.asyncio
async def test_a_store_that_does_not_answer_is_a_fault():
    store = MemoryStore()
    assert await store_fault(store) is None
    await store.close()
    assert await store_fault(store) == "the store does not answer: StoreError"


class Held:
    """Keys of ours, as far as they are asked for."""

    def public(self) -> list[object]:
        return [replace(key_of("did:web:us.example").key, not_after=10.0)]


def test_a_token_by_a_key_that_is_not_ours_proves_nothing():
    key = key_of("did:web:us.example")
    assert own_key(Held(), key.kid, 0.0) == key.key.public  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated, match="not ours"):
        own_key(Held(), "did:web:us.example#other", 0.0)  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated, match="not ours now"):
        own_key(Held(), key.kid, 11.0)  # type: ignore[arg-type]


def test_what_is_kept_for_a_full_disk_lies_beside_the_database_and_a_place_that_is_none_is_named(tmp_path: Path):
    settings = site(tmp_path / "a", "hospital", store="sqlite").settings
    reserve = kept_room(settings)
    assert reserve is not None
    assert not reserve.held
    assert kept_room(replace(settings, store=replace(settings.store, kind="memory"))) is None
    with pytest.raises(SettingsError, match=r"store\.path"):
        kept_room(replace(settings, store=replace(settings.store, path=tmp_path / "nowhere" / "connector.db")))
