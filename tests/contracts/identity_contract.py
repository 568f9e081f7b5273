"""What every implementation of the port `Identity` must do, as tests. An adapter's test file inherits and says how to build it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pytest

from connector.errors import Unauthenticated
from connector.ports import Identity


@dataclass
class SetClock:
    """A clock that stands where it is put."""

    at: float = 1_800_000_000.25

    def now(self) -> float:
        return self.at


class IdentityContract(ABC):
    """`build` returns two participants that know each other, on one clock, and a third that nobody knows."""

    @abstractmethod
    def build(self, clock: SetClock) -> tuple[Identity, Identity, Identity]: ...

    @pytest.mark.asyncio
    async def test_what_one_mints_the_other_verifies(self):
        clock = SetClock()
        one, other, _ = self.build(clock)
        caller = await other.verify(await one.mint(other.own.id))
        assert caller.participant.id == one.own.id
        assert caller.expires > clock.now()
        assert caller.claims == caller.participant.claims

    @pytest.mark.asyncio
    async def test_each_token_is_good_once(self):
        one, other, _ = self.build(SetClock())
        first, second = await one.mint(other.own.id), await one.mint(other.own.id)
        assert first != second
        await other.verify(first)
        with pytest.raises(Unauthenticated):
            await other.verify(first)
        await other.verify(second)

    @pytest.mark.asyncio
    async def test_a_token_for_another_is_refused(self):
        one, other, stranger = self.build(SetClock())
        for audience in (one.own.id, stranger.own.id):
            with pytest.raises(Unauthenticated):
                await other.verify(await one.mint(audience))

    @pytest.mark.asyncio
    async def test_a_stranger_is_refused(self):
        _, other, stranger = self.build(SetClock())
        with pytest.raises(Unauthenticated):
            await other.verify(await stranger.mint(other.own.id))

    @pytest.mark.asyncio
    @pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer a.b.c", "a.b.c", "Bearer \x00", "Bearer é"])
    async def test_what_is_no_token_is_refused(self, header: str | None):
        with pytest.raises(Unauthenticated):
            await self.build(SetClock())[0].verify(header)

    @pytest.mark.asyncio
    async def test_a_token_ends(self):
        clock = SetClock()
        one, other, _ = self.build(clock)
        header = await one.mint(other.own.id)
        clock.at += 3600
        with pytest.raises(Unauthenticated):
            await other.verify(header)

    @pytest.mark.asyncio
    async def test_what_a_message_has_proven_stands_until_it_lapses(self):
        clock = SetClock()
        one, other, stranger = self.build(clock)
        caller = await other.verify(await one.mint(other.own.id))
        standing = other.standing(one.own.id, caller.claims, caller.expires)
        assert standing is not None
        assert (standing.participant.id, standing.claims) == (one.own.id, caller.claims)
        assert standing.expires > clock.now()
        assert other.standing(stranger.own.id, {"role": "king"}, clock.now() + 3600) is None
        assert (other.standing(other.own.id, {}, 0.0) or caller).participant == other.own

    def test_who_listens_hears_nothing_while_nothing_changes(self):
        one, _, _ = self.build(SetClock())
        one.listen(lambda _: pytest.fail("nothing has changed"))
        one.standing("did:web:anybody.example", {}, 0.0)

    def test_participants_are_found_by_id_and_by_name(self):
        one, other, stranger = self.build(SetClock())
        found = one.find(other.own.id)
        assert found is not None
        assert found.id == other.own.id
        assert one.find(other.own.name) == found
        assert one.find(stranger.own.id) is None
        ids = [participant.id for participant in one.participants()]
        assert other.own.id in ids
        assert ids == sorted(ids)
