"""What every implementation of the port `Identity` must do, as tests. An adapter's test file inherits and says how to build it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pytest

from connector.errors import Unauthenticated
from connector.ports import Identity
from connector.signatures import jws
from connector.signatures.jws import PublicKey

TYP = "dp-receipt+jwt"


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

    def test_what_one_signs_everybody_who_knows_it_reads_as_often_as_they_like(self):
        one, other, _ = self.build(SetClock())
        claims = {"iss": one.own.id, "aud": other.own.id, "seq": 1}
        token = one.sign(claims, TYP)
        assert [other.read(token, TYP, one.own.id), other.read(token, TYP, one.own.id)] == [claims, claims]
        assert one.read(token, TYP, one.own.id) == claims

    def test_what_is_signed_may_be_as_long_as_an_entry_of_a_log(self):
        one, other, _ = self.build(SetClock())
        claims = {"iss": one.own.id, "ranges": [[2 * n, 2 * n + 1] for n in range(3000)]}
        assert other.read(one.sign(claims, TYP), TYP, one.own.id) == claims
        with pytest.raises(Unauthenticated) as refused:
            other.read(one.sign(claims | {"more": "x" * 50_000}, TYP), TYP, one.own.id)
        assert refused.value.fault == "length"

    def test_what_is_signed_is_of_one_kind_and_by_one_participant(self):
        one, other, stranger = self.build(SetClock())
        token = one.sign({"iss": one.own.id}, TYP)
        signature = token.rpartition(".")[2]
        cases = [
            ((token, "dp-ack+jwt", one.own.id), "typ"),
            ((token, TYP, other.own.id), "kid"),
            ((token, TYP, stranger.own.id), "kid"),
            ((one.sign({"iss": other.own.id}, TYP), TYP, one.own.id), "issuer"),
            ((one.sign({}, TYP), TYP, one.own.id), "issuer"),
            ((stranger.sign({"iss": stranger.own.id}, TYP), TYP, stranger.own.id), "key-unknown"),
            ((f"{one.sign({'iss': one.own.id, 'seq': 2}, TYP).rpartition('.')[0]}.{signature}", TYP, one.own.id), "signature"),
            ((token.rpartition(".")[0], TYP, one.own.id), "parts"),
        ]
        for (object, typ, issuer), fault in cases:
            with pytest.raises(Unauthenticated) as refused:
                other.read(object, typ, issuer)
            assert refused.value.fault == fault

    def test_keys_are_those_that_verify_what_is_signed(self):
        one, other, stranger = self.build(SetClock())
        token = one.sign({"iss": one.own.id}, TYP)
        for known in (one.keys(one.own.id), other.keys(one.own.id)):
            keys = [PublicKey(key.kid, key.public, key.not_before, key.not_after) for key in known if key.valid(SetClock().at)]
            assert jws.read(token, TYP, one.own.id, keys, SetClock().at) == {"iss": one.own.id}
        assert list(other.keys(stranger.own.id)) == []

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
