"""Whoever has to sign its requests is heard for each of them once, and nobody is heard in its place."""

from pathlib import Path

import pytest

from connector.adapters_stores.used_file import UsedFile
from connector.dataplane.edr import Tokens, grant_for
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate
from connector.dataplane.possession import Possession, Proof, demand
from connector.dataplane.renewal import renew
from connector.errors import Busy, SignatureRefused, StoreError, TokenRefused, Withdrawn
from connector.ports import SIGNED_REQUESTS
from connector.signatures import http
from connector.signatures.http import AGE_SECONDS_MAX, Request
from connector.signatures.used import UsedIds
from tests.dataplane.rig import (
    CONSUMER,
    KEY,
    PROVIDER,
    STRANGER,
    TRANSFER,
    Counted,
    FakeIdentity,
    FakeTransfers,
    ShiftedClock,
    key_of,
    view,
)

URL = f"https://hospital.example/data/{TRANSFER}"
NONCE = "n" * 22


class KnownAgreements(FakeTransfers):
    """Also knows what an agreement demands where no dataset is behind its transfer."""

    def __init__(self) -> None:
        super().__init__()
        self.withdrawn: dict[str, frozenset[str]] = {}

    async def demands(self, pid: str) -> frozenset[str] | None:
        return self.views[pid].demands if pid in self.views else self.withdrawn.get(pid)


class Door:
    """A gate whose only transfer demands signed requests, some seconds after its start."""

    def __init__(self) -> None:
        self.clock, self.identity, self.transfers = ShiftedClock(), FakeIdentity(PROVIDER), KnownAgreements()
        self.possession = Possession(self.identity.keys, self.clock)
        self.clock.shift_seconds = 5.0
        self.tokens = Tokens(
            PROVIDER,
            "https://hospital.example",
            signer=lambda: KEY,
            key_of=lambda _: KEY.key.public,
            clock=self.clock,
            ids=Counted(),
            token_seconds=300.0,
        )
        self.flows = Flows(self.clock, lambda _pid: None)
        self.gate = Gate(self.tokens, self.transfers, self.flows, self.clock)
        self.transfers.views[TRANSFER] = view({"type": "file"}, demands=frozenset({SIGNED_REQUESTS}))
        self.token = self.tokens.access(grant_for(self.transfers.views[TRANSFER]))[0]

    def request(self, by: str | None = CONSUMER, nonce: str = NONCE, at: float | None = None) -> Request:
        headers = {"authorization": (f"Bearer {self.token}",)}
        request = Request("GET", URL, lambda name: headers.get(name, ()))
        if by is not None:
            given = http.sign(request, key_of(by), self.clock.now() if at is None else at, nonce=nonce)
            headers |= {http.INPUT: (given[0],), http.SIGNATURE: (given[1],)}
        return request

    def proof(self, by: str | None = CONSUMER, nonce: str = NONCE, at: float | None = None) -> Proof:
        return Proof(self.possession, self.request(by, nonce, at))


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.asyncio
async def test_a_token_counts_with_its_consumers_signature_however_often_the_gate_is_asked(door: Door):
    proof = door.proof()
    for _ in range(3):
        assert (await door.gate.permit(door.token, TRANSFER, proof)).consumer == CONSUMER
        door.flows.look_again()


@pytest.mark.parametrize(
    ("by", "code"), [(None, "signature-missing"), (PROVIDER, "signature-signer"), (STRANGER, "signature-signer")], ids=str
)
@pytest.mark.asyncio
async def test_a_token_does_not_count_without_it(door: Door, by: str | None, code: str):
    with pytest.raises(SignatureRefused) as refused:
        await door.gate.permit(door.token, TRANSFER, door.proof(by))
    assert refused.value.code == code
    if by is None:
        assert "`Accept-Signature` says what to cover" in refused.value.message


@pytest.mark.asyncio
async def test_a_door_that_looks_at_no_signatures_lets_nobody_through(door: Door):
    with pytest.raises(SignatureRefused):
        await door.gate.permit(door.token, TRANSFER)
    with pytest.raises(SignatureRefused):
        demand(None, CONSUMER)


@pytest.mark.asyncio
async def test_a_signature_is_good_once(door: Door):
    request = door.request()
    await door.gate.permit(door.token, TRANSFER, Proof(door.possession, request))
    with pytest.raises(SignatureRefused) as refused:
        await door.gate.permit(door.token, TRANSFER, Proof(door.possession, request))
    assert refused.value.code == "signature-used"
    with pytest.raises(SignatureRefused) as refused:  # nor is its nonce, under another signature
        await door.gate.permit(door.token, TRANSFER, door.proof(at=door.clock.now() + 1))
    assert refused.value.code == "signature-used"
    await door.gate.permit(door.token, TRANSFER, door.proof(nonce="m" * 22))


def test_a_nonce_is_remembered_as_long_as_its_signature_is_fresh_and_no_longer(door: Door):
    door.possession._used = UsedIds(door.clock.now)
    request = door.request()
    door.possession.demand(request, CONSUMER)
    for later, code in ((AGE_SECONDS_MAX - 2, "signature-used"), (AGE_SECONDS_MAX + 1, "signature-old")):
        door.clock.shift_seconds = 5.0 + later
        with pytest.raises(SignatureRefused) as refused:
            door.possession.demand(request, CONSUMER)
        assert refused.value.code == code
    for number in range(100):
        door.clock.shift_seconds += 10
        door.possession.demand(door.request(nonce=f"{number:022}"), CONSUMER)
    assert len(door.possession._used) < 20


def test_what_does_not_hold_uses_up_no_nonce(door: Door):
    forged = door.request(by=None)
    theirs = door.request(by=PROVIDER)
    for request in (forged, theirs):
        with pytest.raises(SignatureRefused):
            door.possession.demand(request, CONSUMER)
    assert len(door.possession._used) == 0
    door.possession.demand(door.request(), CONSUMER)


def test_what_was_signed_before_the_start_is_put_off_and_not_believed(door: Door):
    restarted = Possession(door.identity.keys, door.clock)
    with pytest.raises(Busy, match="sign again") as refused:
        restarted.demand(door.request(at=door.clock.now() - 2), CONSUMER)
    assert refused.value.retry_seconds == 1


def test_what_was_signed_while_both_clocks_were_ahead_is_used_also_after_a_restart_and_both_set_back(door: Door, tmp_path: Path):
    file = UsedFile(tmp_path / "used")
    before = Possession(door.identity.keys, door.clock, file)
    door.clock.shift_seconds += 3600
    used = door.request()
    before.demand(used, CONSUMER)
    door.clock.shift_seconds -= 3600
    restarted = Possession(door.identity.keys, door.clock, file)
    door.clock.shift_seconds += 3600
    with pytest.raises(SignatureRefused, match="used before"):
        restarted.demand(used, CONSUMER)
    file.close()


def test_while_what_was_used_cannot_be_read_nobody_is_heard_whose_signature_may_be_used(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = UsedFile(tmp_path / "used")
    used = door.request(at=door.clock.now() + 1)
    Possession(door.identity.keys, door.clock, file).demand(used, CONSUMER)
    door.clock.shift_seconds += 3600
    restarted = Possession(door.identity.keys, door.clock, file)
    door.clock.shift_seconds -= 3600

    def unreadable(*_: object) -> None:
        raise StoreError("no descriptor is left")

    with monkeypatch.context() as patched:
        patched.setattr(UsedFile, "read", unreadable)
        for _ in range(2):
            with pytest.raises(StoreError):
                restarted.demand(used, CONSUMER)
    with pytest.raises(SignatureRefused, match="used before"):
        restarted.demand(used, CONSUMER)
    file.close()


def test_a_clock_that_is_set_back_to_before_the_start_puts_off_nobody_for_all_that_time(door: Door):
    used = door.request()
    door.possession.demand(used, CONSUMER)
    door.clock.shift_seconds -= 3600
    with pytest.raises(Busy):  # it was signed an instant before
        door.possession.demand(door.request(at=door.clock.now() - 1), CONSUMER)
    door.possession.demand(door.request(nonce="n" * 20, at=door.clock.now() + 1), CONSUMER)
    door.clock.shift_seconds += 3600
    with pytest.raises(SignatureRefused, match="used before"):
        door.possession.demand(used, CONSUMER)


def test_a_clock_that_jumps_ahead_and_comes_back_makes_no_signature_good_twice(door: Door):
    used = door.request()
    door.possession.demand(used, CONSUMER)
    door.clock.shift_seconds += 3600
    door.possession.demand(door.request(nonce="a" * 22), CONSUMER)
    door.clock.shift_seconds -= 3600
    with pytest.raises(SignatureRefused, match="used before"):
        door.possession.demand(used, CONSUMER)


@pytest.mark.asyncio
async def test_who_has_not_signed_learns_nothing_of_the_transfer(door: Door):
    door.transfers.views[TRANSFER] = view({"type": "file"}, state="SUSPENDED", demands=frozenset({SIGNED_REQUESTS}))
    with pytest.raises(SignatureRefused):
        await door.gate.permit(door.token, TRANSFER, door.proof(None))
    with pytest.raises(Withdrawn):
        await door.gate.permit(door.token, TRANSFER, door.proof())
    with pytest.raises(TokenRefused):
        await door.gate.permit("other", TRANSFER, door.proof())


@pytest.mark.asyncio
async def test_a_party_signs_for_what_has_ended_too(door: Door):
    door.transfers.views[TRANSFER] = view({"type": "file"}, state="COMPLETED", demands=frozenset({SIGNED_REQUESTS}))
    await door.gate.party(door.token, TRANSFER, door.proof())
    with pytest.raises(SignatureRefused):
        await door.gate.party(door.token, TRANSFER, door.proof(None))
    with pytest.raises(TokenRefused):
        await door.gate.party("other", TRANSFER, door.proof(nonce="m" * 22))


@pytest.mark.asyncio
async def test_what_an_agreement_demands_of_a_party_it_demands_once_its_dataset_is_withdrawn(door: Door):
    token = door.token
    door.transfers.views.clear()
    door.flows.look_again()
    with pytest.raises(TokenRefused):  # of what is not known nobody can say what it demands
        await door.gate.party(token, TRANSFER, door.proof())
    door.transfers.withdrawn[TRANSFER] = frozenset({SIGNED_REQUESTS})
    with pytest.raises(SignatureRefused):
        await door.gate.party(token, TRANSFER)
    await door.gate.party(token, TRANSFER, door.proof())
    door.transfers.withdrawn[TRANSFER] = frozenset()
    await door.gate.party(token, TRANSFER)


@pytest.mark.asyncio
async def test_a_renewal_is_signed_too(door: Door):
    identity = FakeIdentity(PROVIDER)
    refresh = door.tokens.refresh(grant_for(door.transfers.views[TRANSFER]))
    form = {"grant_type": ["refresh_token"], "refresh_token": [refresh]}
    told = []
    for number, by in enumerate((None, CONSUMER)):
        authorization = f"Bearer {CONSUMER} for {PROVIDER} {number}"
        told.append(
            await renew(form, authorization, identity=identity, gate=door.gate, tokens=door.tokens, proof=door.proof(by))  # type: ignore[arg-type]
        )
    assert [status for status, _ in told] == [401, 200]
    assert told[0][1]["error"] == "invalid_client"
    assert "RFC 9421" in told[0][1]["error_description"]
